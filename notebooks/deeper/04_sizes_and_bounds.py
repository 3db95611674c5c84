# %% [markdown]
# # 04 · Sizes, names, bounds
#
# Your file takes pictures of any size, and a colleague feeds it large ones. It runs, and the answers are bad. Another
# model has a table for at most 16 positions, and somebody feeds 24 steps. What does a free axis say, and what not?
#
# You need the [core of lesson 04](../04_dynamic_axes.ipynb).
#
# After this page you will be able to
#
# - test at which sizes a model is good, and not only at which it runs,
# - set bounds and formulas, and say where they are checked,
# - avoid the trap of one tensor for two inputs.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## It runs. Is it right?
#
# The course's network, with any batch, height and width. Convolutions slide over any size, and the pooling averages
# over what is left.

# %%
import torch

net, file = cu.fashion_resnet(), "work/04_any_size.onnx"
plain, pair = {"external_data": False, "verbose": False}, torch.randn(2, 1, 28, 28)

# %%
axes = ({0: "batch", 2: "height", 3: "width"},)
torch.onnx.export(net, (pair,), file, **plain, dynamic_shapes=axes)
cu.written_shapes(file)

# %% [markdown]
# A tall picture and one of a single pixel, against PyTorch:

# %%
gates = [cu.parity(net, file, torch.randn(2, 1, *s)) for s in [(40, 20), (1, 1)]]
assert all(gate.within for gate in gates)
print(*gates, sep="\n")

# %% [markdown]
# Parity says only that both programs compute the same. We shrink and enlarge 500 test pictures, and look at the
# accuracy.

# %% tags=["remove-input"]
cu.quiz("04_sizes_and_bounds", 1)

# %%
images, labels = cu.fashion_mnist("test")
some, accuracy = torch.from_numpy(cu.normalize(images[:500])), {}
for side in (14, 20, 24, 28, 32, 36, 42, 56):
    size = {"size": (side, side), "mode": "bilinear", "antialias": True}
    resized = torch.nn.functional.interpolate(some, **size).numpy()
    (logits,) = cu.run_in_batches(file, {"x": resized}).values()
    accuracy[side] = 100 * float((logits.argmax(1) == labels[:500]).mean())

# %%
import matplotlib.pyplot as plt

best, worst = max(accuracy, key=accuracy.get), min(accuracy.values())
assert accuracy[28] > max(accuracy[14], accuracy[56]) + 10
plt.plot(list(accuracy), list(accuracy.values()), marker="o")
plt.title(f"Accuracy is best at {best}×{best}, and falls to {worst:.0f}%")
plt.xlabel("height and width, pixels")
plt.ylabel("accuracy, %")
plt.show()

# %% [markdown]
# The network was trained on 28×28. A free axis only means that the file runs. Whether the model is *good* at that size
# depends on its training.

# %% [markdown]
# ## Bounds
#
# [`torch.export.Dim`](https://docs.pytorch.org/docs/stable/user_guide/torch_compiler/export.html) knows a smallest and
# a largest size. A table of positions, as in many text models, needs that: it has only so many rows.


# %%
class Positions(torch.nn.Module):
    """float32 [batch, length, 4] → the same; length at most 16."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Parameter(torch.randn(16, 4))

    def forward(self, x):
        return x + self.table[: x.shape[1]]


made, x, file = Positions().eval(), torch.randn(2, 8, 4), "work/04_positions.onnx"

# %% [markdown]
# The export returns a program, which knows the range:

# %%
Dim = torch.export.Dim
bounded = ({1: Dim("length", min=1, max=16)},)
program = torch.onnx.export(made, (x,), file, **plain, dynamic_shapes=bounded)
{str(k): str(v) for k, v in program.exported_program.range_constraints.items()}

# %% [markdown]
# The exporter knows it. Does the file?

# %%
cu.written_shapes(file)

# %% [markdown]
# It says `length`, and no bounds: ONNX has no place for them. What happens with 24 steps?

# %%
import onnxruntime as ort

quiet, cpu = ort.SessionOptions(), ["CPUExecutionProvider"]
quiet.log_severity_level = 4  # the error comes back as an exception
session = ort.InferenceSession(file, quiet, providers=cpu)

# %%
try:
    session.run(None, {"x": x.repeat(1, 3, 1).numpy()})
except Exception as error:
    print(str(error).rpartition("false. ")[2])

# %% [markdown]
# The error comes from the node that cannot go on. If your users need the bounds, write them into the [metadata](../glossary.md#metadata), or check them before the run.
#
# The example itself has to lie within the bounds. Ours has 8 steps:

# %%
beyond = ({1: Dim("length", min=9, max=16)},)
try:
    with cu.exporter_messages():
        torch.onnx.export(made, (x,), file, **plain, dynamic_shapes=beyond)
except torch.onnx.errors.OnnxExporterError as error:
    print(*(line for line in str(error).splitlines() if "not in range" in line))

# %% [markdown]
# A `Dim` can also be part of a formula. This network takes the steps in pairs, so it needs an even length:


# %%
class Pairs(torch.nn.Module):
    def forward(self, x):
        return x.reshape(x.shape[0], -1, 2, 4).sum(2)


even, file = ({1: 2 * Dim("half")},), "work/04_pairs.onnx"
torch.onnx.export(Pairs().eval(), (x,), file, **plain, dynamic_shapes=even)
assert cu.written_shapes(file)["x"] == "[2, '2*half', 4]"
cu.written_shapes(file)

# %% [markdown]
# To ONNX Runtime the formula is a name like any other. Readers and tools can use it; the run does not calculate with it.
#
# ## One tensor for two inputs
#
# To save a line, somebody writes the *same tensor* for both inputs of the example.


# %%
class Minus(torch.nn.Module):
    def forward(self, a, b):
        return a - 2 * b


minus, file = Minus().eval(), "work/04_twins.onnx"
twins, axes = (x, x), ({0: "batch"}, {0: "batch"})
with cu.exporter_messages():
    torch.onnx.export(minus, twins, file, **plain, dynamic_shapes=axes)
cu.parity(minus, file, (x, torch.randn(2, 8, 4)))

# %% [markdown]
# Wrong numbers. The exporter took the two inputs for one. Both stand in the file; which of them does the graph read?

# %%
import onnx

read = {name for node in onnx.load(file).graph.node for name in node.input}
assert len(read & {"a", "b"}) == 1
read & {"a", "b"}

# %% [markdown]
# Only one. Use different tensors.
#
# ## Play
#
# Four files of the network, and a dozen shapes. Which shapes does each file take? The first file says that height and
# width are the same dimension. We make the files from the free one, by hand:

# %%
any_size, square = "work/04_any_size.onnx", onnx.load("work/04_any_size.onnx")
any_batch, frozen = onnx.load(any_size), onnx.load(any_size)
for axis, size in {0: 1, 2: 28, 3: 28}.items():
    frozen.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = size
for axis in (2, 3):
    square.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = "side"
    any_batch.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = 28

# %% [markdown]
# The explorer has run each file with each shape:

# %%
files = {"linked: height = width": square, "any batch and size": any_size}
files |= {"any batch": any_batch, "frozen": frozen}
tries = [
    (1, 1, 20, 40),
    (1, 1, 28, 28),
    (4, 1, 28, 28),
    (0, 1, 28, 28),
    (2, 1, 1, 1),
]
tries += [(1, 3, 28, 28), (28, 28), (1, 28, 28), (1, 28, 28, 1), (1, 1, 224, 224)]
cu.shape_explorer(files, tries)

# %% [markdown]
# The first frame shows it: 20 × 40 is accepted, although the file has one name for both. A name is only a name.

# %% [markdown]
# ## Recap
#
# - Test the accuracy at the sizes that your users will send. Parity with PyTorch does not tell it.
# - Use bounds of `Dim` for the exporter, and check them in your own code as well: the file has no place for them.
# - A formula such as `2*half` is a name to the run.
# - Use different tensors for different inputs of the example.
#
# **Back:** [04 · Dynamic axes](../04_dynamic_axes.ipynb). **Next:** [Recurrent networks](04_recurrent_networks.ipynb).
