# %% [markdown]
# # 09 · Where the numbers part
#
# The file gives other numbers than PyTorch, and you have neither this course nor `cu.parity` at hand. You want to know
# in which block of the network the difference begins.
#
# You need the [core of lesson 09](../09_troubleshooting.ipynb).
#
# After this page you will be able to
#
# - let a session return tensors from inside the graph,
# - get the same tensors from PyTorch,
# - find the first block that differs.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## A file with a fault
#
# We turn one weight around in the stage `stage2.1` of our trained network. The shape and the range stay as they were.

# %%
import onnx
import torch
from onnx import numpy_helper

model, image = cu.fashion_resnet(), torch.randn(1, 1, 28, 28)
file, how = "work/09_right.onnx", {"input_names": ["image"]}
program = torch.onnx.export(model, (image,), file, verbose=False, **how)

# %% [markdown]
# The weight is stored under the name that it has in PyTorch.

# %%
wrong = onnx.load(file)
stored = [t for t in wrong.graph.initializer if "stage2.1" in t.name]
weight = next(t for t in stored if len(t.dims) == 4)
weight.name

# %% [markdown]
# We turn its rows and columns:

# %%
turned = numpy_helper.to_array(weight)[:, :, ::-1, ::-1].copy()
weight.CopyFrom(numpy_helper.from_array(turned, weight.name))
onnx.save(wrong, "work/09_wrong.onnx")

# %% [markdown]
# How large is the difference at the end?

# %%
import onnxruntime as ort

cpu, feed = ["CPUExecutionProvider"], {"image": image.numpy()}
session = ort.InferenceSession("work/09_wrong.onnx", providers=cpu)
(y,) = session.run(None, feed)

# %%
with torch.no_grad():
    print(abs(y - model(image).numpy()).max())

# %% [markdown]
# ## Tensors from inside the graph
#
# A [session](../glossary.md#session) returns only the outputs of the graph. So we **add outputs**. Which tensors? The
# [exporter](../glossary.md#exporter) notes on each [node](../glossary.md#node) from which modules it comes; we remember
# the last tensor of each module.

# %%
import ast

last = {}
for node in wrong.graph.node:
    notes = {note.key: note.value for note in node.metadata_props}
    for module in ast.literal_eval(notes["pkg.torch.onnx.name_scopes"]):
        last[module] = node.output[0]
last["stage1.0"], last["stage2.1"]

# %% [markdown]
# One output more is one line. This adds the end of each block. ONNX Runtime infers type and shape itself, so a name is
# enough.

# %%
stages = ["stage1.0", "stage1.1", "stage2.0", "stage2.1", "stage2.2", "stage2.3"]
blocks = ["stem", *stages, "pool"]
for block in blocks:
    wrong.graph.output.append(onnx.ValueInfoProto(name=last[block]))

# %% [markdown]
# A session of the new graph returns them:

# %%
probe = ort.InferenceSession(wrong.SerializeToString(), providers=cpu)
values = probe.run([last[block] for block in blocks], feed)
in_onnx = dict(zip(blocks, values, strict=True))
{block: value.shape for block, value in in_onnx.items()}

# %% [markdown]
# ## The same tensors in PyTorch
#
# A [forward hook](https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html) is called with the result of a
# module. We put one on each block, run once, and take them away.

# %%
in_torch = {}


def keep(block):
    def hook(module, args, result):
        in_torch[block] = result.numpy()

    return hook


# %%
hooks = [model.get_submodule(b).register_forward_hook(keep(b)) for b in blocks]
with torch.no_grad():
    model(image)

# %% [markdown]
# Away with them:

# %%
for hook in hooks:
    hook.remove()
{block: value.shape for block, value in in_torch.items()}

# %% [markdown]
# The shapes agree.
#
# ## The first block that differs
#
# We take the largest difference in each block, as a share of the largest number there.

# %% tags=["remove-input"]
cu.quiz("09_where_the_numbers_part", 1)

# %%
import pandas as pd

delta = pd.Series(dtype=float)
for block in blocks:
    expected = in_torch[block]
    delta[block] = abs(in_onnx[block] - expected).max() / abs(expected).max()
delta.map("{:.1e}".format)

# %% [markdown]
# Which block is the first one with more than rounding?

# %%
first = next(block for block in blocks if delta[block] > 1e-4)
assert first == "stage2.1"
first

# %% [markdown]
# In a picture:

# %%
colours = ["#D55E00" if value > 1e-4 else "#009E73" for value in delta]
axes = delta.plot.bar(color=colours, figsize=(7.5, 3), logy=True, rot=30)
axes.set_ylabel("largest difference, relative")
title = axes.set_title(f"Different from {first} on")
# %% [markdown]
# Before `stage2.1` the two differ by rounding alone. From there on they differ by much, so the fault is in that block.
# Inside the block, do the same with its few nodes. `cu.parity` does all of it, by value, without names:

# %%
cu.parity(model, "work/09_wrong.onnx", image).first_divergent_node

# %% [markdown]
# ## Recap
#
# - Add outputs to a copy of the graph, and hooks to the modules: both show the same tensors.
# - The first block with more than rounding holds the fault. All blocks after it differ as well.
# - Use blocks first and nodes then, unless `cu.parity` names the node at once.
#
# **Now you:** case 9.16 of the [hospital](../exercises/09_troubleshooting.ipynb).
#
# **Next:** [Memory and containers](09_memory_and_containers.ipynb). **Back:**
# [lesson 09](../09_troubleshooting.ipynb).
