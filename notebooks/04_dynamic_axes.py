# %% [markdown]
# # 04 · Dynamic axes
#
# You exported a network with one picture as the example. On the server four pictures arrive at once, and the file
# refuses them. You want one file that takes any number of pictures, and you want to know that it really does.
#
# You need [lesson 01](01_graph_structure.ipynb).
#
# After this lesson you will be able to
#
# - export models that take any batch, any picture size, any length of text,
# - read the error that a frozen size causes,
# - choose between a name, a `Dim` and `Dim.AUTO`, and say what each of them promises,
# - find out whether a size is really free: read the file, then probe it.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## Frozen
#
# An [exporter](glossary.md#exporter) looks at one example. Unless you say otherwise, it writes every number of the
# example's shape into the file as a fixed size. Our network, exported with one picture:

# %%
import torch

fashion_resnet = cu.fashion_resnet()
one, file = torch.randn(1, 1, 28, 28), "work/04_frozen.onnx"
how = {"external_data": False, "verbose": False}
how |= {"input_names": ["image"], "output_names": ["logits"]}
torch.onnx.export(fashion_resnet, (one,), file, **how)
cu.written_shapes(file)

# %% [markdown]
# The file holds numbers only. PyTorch takes any value for the first one. We load the file, and feed four pictures.

# %% tags=["remove-input"]
cu.quiz("04_dynamic_axes", 1)

# %%
import numpy as np
import onnxruntime as ort

cpu = ["CPUExecutionProvider"]
frozen = ort.InferenceSession(file, providers=cpu)
four = np.zeros((4, 1, 28, 28), dtype=np.float32)
try:
    frozen.run(None, {"image": four})
except Exception as error:
    print(error)

# %% [markdown]
# This is one of the most common errors with ONNX models. It names the input and the axis (`index: 0` is the first one),
# the size that came, and the size that the file demands.
#
# The error does not come when the file is written or loaded. It comes when the first real batch arrives, often on
# another machine.
#
# The older exporter, `dynamo=False`, freezes the batch as well. (`cu.exporter_messages` collects what an exporter
# prints.)


# %%
def refusal(session, *arrays):
    """What ONNX Runtime says to these inputs; None where it takes them."""
    try:
        session.run(None, {i.name: a for i, a in zip(session.get_inputs(), arrays)})
    except Exception as error:
        return str(error)


file = "work/04_older.onnx"
with cu.exporter_messages():
    torch.onnx.export(fashion_resnet, (one,), file, **how, dynamo=False)
older = ort.InferenceSession(file, providers=cpu)
print(refusal(older, four))

# %% tags=["hide-input"]
cu.claim(
    "fixed-batch-by-default",
    {
        "one picture runs": refusal(frozen, four[:1]) is None,
        "four pictures are an error": "Got: 4 Expected: 1"
        in (refusal(frozen, four) or ""),
        "the same with the older exporter": "Got: 4 Expected: 1"
        in (refusal(older, four) or ""),
        "PyTorch takes them": fashion_resnet(torch.from_numpy(four)).shape
        == (4, 10),
        "height and width are frozen, too": "Got: 32 Expected: 28"
        in (refusal(frozen, np.zeros((1, 1, 32, 28), np.float32)) or ""),
    },
)

# %% [markdown]
# ## Today: `dynamic_shapes`
#
# The report's table 1 describes `dynamic_axes`. This is that table for today; the right column is what
# [the default exporter](https://docs.pytorch.org/docs/stable/onnx_export.html) recommends.
#
# | | `dynamic_axes` | `dynamic_shapes` |
# |---|---|---|
# | key | a name from `input_names` or `output_names` | an argument of `forward`, by position or by name; inputs only |
# | value | a dict: number of the axis → a label | the same dict; in place of a label also a `Dim` |
# | result | the label in place of the number, for any size | the same |
# | a misspelled key | the older exporter writes a frozen file, the default one raises an error | an error |

# %%
pair, file = torch.randn(2, 1, 28, 28), "work/04_free.onnx"
free = {0: "batch", 2: "height", 3: "width"}
torch.onnx.export(fashion_resnet, (pair,), file, **how, dynamic_shapes=(free,))
cu.written_shapes(file)

# %% [markdown]
# Three axes are free: each has a name in place of the number, a
# [symbolic dimension](glossary.md#symbolic-dimension). The exporter worked out the shape of the output by itself.
#
# Older code often uses `dynamic_axes`. [Old code: `dynamic_axes`](deeper/04_dynamic_axes_in_old_code.ipynb) runs the
# report's listing, and tries each row of the table.
#
# ## What is different in the file
#
# In [the file format](https://onnx.ai/onnx/repo-docs/IR.html), a dimension has two fields, of which one is set. We
# look at the first dimension in both files, and at the shapes of two tensors inside the free one:

# %%
import onnx

both_files = [onnx.load(f"work/04_{name}.onnx") for name in ("frozen", "free")]
first = [m.graph.input[0].type.tensor_type.shape.dim[0] for m in both_files]
print(*first, sep="")
tensors = cu.tensor_table("work/04_free.onnx")
inside = tensors[tensors["role"] == "intermediate"]["shape"]
inside.iloc[[0, -4]].tolist()

# %% [markdown]
# The number 1 became a name. The tensors inside have the names, too: two convolutions with stride 2 made formulas of
# `height` and `width`. Only such descriptions changed: nodes and weights are the same in both files.

# %% tags=["hide-input"]
cu.claim(
    "symbolic-dim-in-graph",
    {
        "the frozen file holds the number 1": first[0].WhichOneof("value")
        == "dim_value"
        and first[0].dim_value == 1,
        "the free file holds the name in its place": first[1].WhichOneof("value")
        == "dim_param"
        and first[1].dim_param == "batch",
        "every tensor inside carries it as well": len(inside) > 0
        and inside.str.startswith("['batch'").all(),
        "nothing else changed: nodes and weights": cu.graph_diff(
            "work/04_frozen.onnx", "work/04_free.onnx"
        ).empty,
    },
)

# %% [markdown]
# ## One file for all
#
# The report promises that one model serves a single request from a phone as well as batches on a server. Does the
# file give PyTorch's numbers for batches of 1, 2, 3, 64 and 300 pictures?

# %%
file = "work/04_free.onnx"
sizes = {n: torch.randn(n, 1, 28, 28) for n in (1, 2, 3, 64, 300)}
gates = {n: cu.parity(fashion_resnet, file, some) for n, some in sizes.items()}
{n: gate.within for n, gate in gates.items()}

# %% [markdown]
# All agree. `cu.run_in_batches` feeds many examples in portions. We feed 1000 test pictures, 1, 7, 64 or 1000 at a
# time, and compare the answers with the labels:

# %%
images, labels = cu.fashion_mnist("test")
feed = {"image": cu.normalize(images[:1000])}
server = ort.InferenceSession(file, providers=cpu)

# %%
logits = {n: cu.run_in_batches(server, feed, n)["logits"] for n in (1, 7, 64, 1000)}
guesses = {n: value.argmax(1) for n, value in logits.items()}
accuracy = {n: float((g == labels[:1000]).mean()) for n, g in guesses.items()}
accuracy

# %% [markdown]
# It does not matter how the pictures are packed. Pictures of another size run as well. Whether the model is *good* at
# them depends on its training: see [Sizes, names, bounds](deeper/04_sizes_and_bounds.ipynb).

# %% tags=["hide-input"]
cu.claim(
    "one-model-any-batch",
    {
        "batches of 1, 2, 3, 64 and 300 give PyTorch's numbers": all(
            gate.within for gate in gates.values()
        ),
        "pictures of 40 × 24 give PyTorch's numbers, too": cu.parity(
            fashion_resnet, file, torch.randn(3, 1, 40, 24)
        ).within,
        "even an empty batch runs": server.run(None, {"image": four[:0]})[0].shape
        == (0, 10),
        "1000 pictures, 1, 7, 64 or 1000 at a time: the same answers": all(
            (g == guesses[1]).mean() > 0.999 for g in guesses.values()
        ),
        "and they are as good as those of the PyTorch model": min(accuracy.values())
        > 0.92,
    },
)

# %% [markdown]
# ## Names that link
#
# A text model has two inputs: the steps of a sequence, and a mask that says which of them are real. Both have the same
# batch and the same length, so give them the **same names**. Here is a small attention.


# %%
class Attention(torch.nn.Module):
    """x float32 [batch, length, 4], mask int64 [batch, length] → like x."""

    def forward(self, x, mask):
        scores = x @ x.transpose(1, 2)
        scores = scores.masked_fill(mask[:, None, :] == 0, -1e9)
        return scores.softmax(dim=-1) @ x


attention, x = Attention().eval(), torch.randn(2, 8, 4)
mask, axes = torch.ones(2, 8).long(), ({0: "batch", 1: "length"},) * 2
plain, file = {"external_data": False, "verbose": False}, "work/04_linked.onnx"
with cu.exporter_messages():
    torch.onnx.export(attention, (x, mask), file, **plain, dynamic_shapes=axes)
cu.written_shapes(file)

# %% [markdown]
# The inputs and the output have both names. We load the file without the runtime's log:

# %%
quiet = ort.SessionOptions()
quiet.log_severity_level = 4  # errors come back as exceptions only
linked = ort.InferenceSession("work/04_linked.onnx", quiet, providers=cpu)

# %% tags=["remove-input"]
cu.quiz("04_dynamic_axes", 2)

# %%
steps, ones = np.ones((3, 9, 4), np.float32), np.ones((3, 9), np.int64)
assert refusal(linked, steps, ones) is None
print(refusal(linked, steps, ones[:, :8]))
linked.run(None, {"x": steps, "mask": ones[:1]})[0].shape

# %% [markdown]
# The mask of another length is not compared with `x`. The error comes from a node inside, the first one that cannot go
# on, and ends with the two lengths. The mask for one sequence in place of three runs: the node stretches it. A number
# in the file is compared with what you feed; a **name is only a name**. Check such inputs yourself before you call
# `run`.
#
# ## Promise, wish, guess
#
# This network walks over the steps of a sequence with a loop, and weighs older steps less. PyTorch runs it with any
# length. We ask for a free length with
# [`torch.export.Dim`](https://docs.pytorch.org/docs/stable/user_guide/torch_compiler/export.html).


# %%
class Steps(torch.nn.Module):
    """float32 [batch, length, 4] → [batch, 4]."""

    def forward(self, x):
        state = x[:, 0]
        for t in range(1, x.shape[1]):
            state = 0.9 * state + x[:, t]
        return state


Dim, loop = torch.export.Dim, Steps().eval()

# %% tags=["remove-input"]
cu.quiz("04_dynamic_axes", 3)

# %%
file, axes = "work/04_loop.onnx", ({0: Dim("batch"), 1: Dim("length")},)
torch.onnx.export(loop, (x,), file, **plain, dynamic_shapes=axes)
assert "8" in cu.written_shapes(file)["x"]
cu.written_shapes(file)

# %% [markdown]
# The batch is free. The length is the number 8 of the example, and there was no message: `Dim` is a **wish**. Now with
# names in quotes:

# %%
axes, file = ({0: "batch", 1: "length"},), "work/04_promise.onnx"
with cu.exporter_messages():
    try:
        torch.onnx.export(loop, (x,), file, **plain, dynamic_shapes=axes)
    except torch.onnx.errors.OnnxExporterError as error:
        print(reason := str(error.__cause__))
assert "static shape of 8 for dimension" in reason

# %% [markdown]
# There is no file. The last line says which dimension could not be free. A name in quotes is a **promise**: the axis is
# free, or there is an error. (The message calls it `Dim.DYNAMIC`, which is the same without a name.) It does not promise
# right numbers for every size: an `if` over the size can still fix one branch. A third way, `Dim.AUTO`, means *free if
# possible*:

# %%
axes, file = ({0: Dim.AUTO, 1: Dim.AUTO},), "work/04_auto.onnx"
torch.onnx.export(loop, (x,), file, **plain, dynamic_shapes=axes)
cu.written_shapes(file)

# %% [markdown]
# The file says that both sizes are free. The exporter made up their names. `cu.probe_sizes` runs the file with several
# sizes, and compares each result with PyTorch:

# %%
probe = cu.probe_sizes("work/04_auto.onnx", x, loop)
assert probe["works"].iloc[1] == "8" and probe["wrong numbers"].iloc[1]
probe

# %% [markdown]
# The batch is free, the length is not: shorter sequences are refused, and longer ones give **wrong numbers without an
# error**. So `Dim.AUTO` is a **guess**. (The third axis is as expected: we did not ask for it.) The drawing compares
# the three ways:

# %% tags=["remove-input"]
cu.picture("promise_wish_guess")

# %% [markdown]
# [Against your wish](deeper/04_against_your_wish.ipynb) rewrites such a network, so that its length becomes free.
#
# ## Size 1 in the example
#
# PyTorch stretches an axis of size 1 where needed. So the exporter cannot know whether a 1 in the example may become
# another number. We export the attention with an example of length 1:

# %%
first_step = torch.randn(2, 1, 4), torch.ones(2, 1).long()
file, axes = "work/04_size_1.onnx", ({1: "length"},) * 2
with cu.exporter_messages():
    torch.onnx.export(attention, first_step, file, **plain, dynamic_shapes=axes)
assert list(cu.written_shapes(file).values())[-1] == "[2, 1, 4]"
cu.written_shapes(file)

# %% [markdown]
# The inputs are free, but the file declares an output of length 1, which is false. Take sizes of 2 or more in your
# example.

# %% [markdown]
# ## Recap
#
# - Unless you say otherwise, every size of the example is frozen. The error comes at the first run: *Got … Expected*.
# - Use names in quotes in `dynamic_shapes`, unless you need bounds: the axis is free, or there is an error. `Dim("name")`
#   can be dropped without a message.
# - Avoid `Dim.AUTO`, unless you probe the file: it can say *any size* and compute wrong numbers.
# - Take examples with sizes of 2 or more.
# - After every export read the file (`cu.written_shapes`), then probe it (`cu.probe_sizes`) with PyTorch beside it.
# - A name is not checked at the run. Only numbers are.
#
# **Next:** the [exercises of this lesson](exercises/04_dynamic_axes.ipynb), then
# [05 · Execution providers](05_execution_providers.ipynb): what happens inside a session, and on which hardware.
#
# **Deeper:** [Against your wish](deeper/04_against_your_wish.ipynb) ·
# [Sizes, names, bounds](deeper/04_sizes_and_bounds.ipynb) ·
# [Old code: `dynamic_axes`](deeper/04_dynamic_axes_in_old_code.ipynb) ·
# [Recurrent networks](deeper/04_recurrent_networks.ipynb) · [Static again](deeper/04_static_again.ipynb)
