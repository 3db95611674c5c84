# %% [markdown]
# # 04 · Against your wish
#
# You asked for a free length, and the exporter refuses it, or the file takes only the length of the example. You look
# for the line of code that fixed the length, and want to change it.
#
# You need the [core of lesson 04](../04_dynamic_axes.ipynb).
#
# After this page you will be able to
#
# - find a size that was fixed, in four steps,
# - read the ranges that the exporter worked out,
# - change code that makes a number of a size,
# - say when `Dim("batch")` is good enough.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## The case
#
# This network walks over the steps of a sequence with a loop, and weighs older steps less. PyTorch runs it with any
# length.


# %%
import torch


class Steps(torch.nn.Module):
    """float32 [batch, length, 4] → [batch, 4]."""

    def forward(self, x):
        state = x[:, 0]
        for t in range(1, x.shape[1]):
            state = 0.9 * state + x[:, t]
        return state


# %% [markdown]
# We export it with `Dim.AUTO`, *free if possible*.

# %%
Dim, plain = torch.export.Dim, {"external_data": False, "verbose": False}
loop, x, file = Steps().eval(), torch.randn(2, 8, 4), "work/04_over.onnx"
axes = ({0: Dim.AUTO, 1: Dim.AUTO},)
program = torch.onnx.export(loop, (x,), file, **plain, dynamic_shapes=axes)

# %% [markdown]
# ## 1. Compare the wish with the file

# %%
cu.written_shapes(file)

# %% [markdown]
# This step finds a number in place of a name. Here it finds nothing. But `torch.onnx.export` returns a program, and the
# program knows the range of each symbol, from its [guards](../glossary.md#guard):

# %%
constraints = program.exported_program.range_constraints
ranges = {str(symbol): str(bounds) for symbol, bounds in constraints.items()}
assert "VR[8, 8]" in ranges.values()
ranges

# %% [markdown]
# `VR` is a *value range*, `int_oo` is infinity. A range from 8 to 8 is a fixed size. But usually you get a file from
# somebody else, without the program.
#
# ## 2. Probe
#
# Try several sizes in each dimension, and compare every result with PyTorch.

# %%
probe = cu.probe_sizes(file, x, loop)
assert probe["verdict"].iloc[0] == "free" and probe["works"].iloc[1] == "8"
probe

# %% [markdown]
# The batch is free, the length is not. Longer sequences run, with wrong numbers. Which numbers are these?

# %%
import onnxruntime as ort

cpu, long = ["CPUExecutionProvider"], torch.randn(1, 12, 4)
session = ort.InferenceSession(file, providers=cpu)
got = torch.from_numpy(session.run(None, {"x": long.numpy()})[0])

# %%
assert torch.allclose(got, loop(long[:, :8]), atol=1e-5)
assert not torch.allclose(got, loop(long), atol=1e-2)
float((got - loop(long[:, :8])).abs().max()), float((got - loop(long)).abs().max())

# %% [markdown]
# The first difference is to the first 8 steps, the second one to all 12. The file ignores the last four steps, without
# an error. Such exports are **over-specialised**: what was true of the example has become part of the graph.
#
# ## 3. Ask for the reason
#
# With a name in quotes the exporter raises an error, and its `__cause__` names the dimension.

# %%
axes = ({0: "batch", 1: "length"},)
with cu.exporter_messages():
    try:
        torch.onnx.export(loop, (x,), file, **plain, dynamic_shapes=axes)
    except torch.onnx.errors.OnnxExporterError as error:
        print(reason := str(error.__cause__))
assert "inferred a static shape of 8 for dimension" in reason

# %% [markdown]
# *Inferred a static shape of 8*: something in the code made a number of the length. `torch.export.export` gives reasons
# as well, but it runs under other settings. It objects even to a batch of one picture, which `torch.onnx.export` makes
# free:

# %%
picture, axes = torch.randn(1, 1, 28, 28), ({0: Dim("batch")},)
try:
    torch.export.export(cu.fashion_resnet(), (picture,), dynamic_shapes=axes)
except Exception as error:
    lines = str(error).splitlines()
print(*(line for line in lines if "to be a constant (1)" in line))

# %% [markdown]
# So take the reason from `torch.onnx.export` itself.
#
# ## 4. Change the code
#
# Avoid `range` over a size and `if` on a size. `int(x.shape[1])` freezes a `Dim`; a name leaves it free. This loop is a
# weighted sum, so it can be written without a loop:


# %%
class Weighted(torch.nn.Module):
    """The same function as Steps, without a loop."""

    def forward(self, x):
        age = torch.arange(x.shape[1] - 1, -1, -1)
        return (x * (0.9**age)[:, None]).sum(1)


# %% [markdown]
# We ask with names in quotes, so there is a file only if the exporter can keep both.

# %%
cured, axes = "work/04_cured.onnx", ({0: "batch", 1: "length"},)
torch.onnx.export(Weighted().eval(), (x,), cured, **plain, dynamic_shapes=axes)
cu.written_shapes(cured)

# %% [markdown]
# Both are free, says the file. We probe it, and compare with the *old* class:

# %%
cured_probe = cu.probe_sizes(cured, x, loop)
assert (cured_probe["verdict"].iloc[:2] == "free").all()
cured_probe

# %% [markdown]
# All lengths agree. A loop that cannot be written so needs `scan` ([lesson 03](../03_tracing_vs_scripting.ipynb)) or
# `while_loop` ([Branches and loops in the file](03_living_branches_and_loops.ipynb)).
#
# ## When a `Dim` is kept
#
# Later lessons free a batch with `Dim("batch")`. When may they? Three small modules: one makes a number of the length,
# two decide by it.


# %%
class AsNumber(torch.nn.Module):
    def forward(self, x):
        return x.reshape(int(x.shape[0]), int(x.shape[1]) * 4)


class Compare(torch.nn.Module):
    def forward(self, x):
        return x * 2 if x.shape[1] == 8 else x * 3


class Threshold(torch.nn.Module):
    def forward(self, x):
        return x * 2 if x.shape[1] > 6 else x * 3


# %%
def verdict(module, kind):
    """What probing says of the length. kind: Dim, or str for a name in quotes."""
    axes = ({0: kind("batch"), 1: kind("length")},)
    with cu.exporter_messages():
        try:
            torch.onnx.export(module, (x,), file, **plain, dynamic_shapes=axes)
        except torch.onnx.errors.OnnxExporterError:
            return "no file"
    return cu.probe_sizes(file, x, module)["verdict"].iloc[1]


verdict(AsNumber().eval(), Dim)

# %% [markdown]
# `AsNumber` is frozen by a `Dim`, without a message. All of them, with a `Dim` and with a name:

# %%
import pandas as pd

rows = {}
modules = Weighted().eval(), AsNumber().eval(), Compare().eval(), Threshold().eval()
for module in modules:
    row = {"Dim": verdict(module, Dim), "name": verdict(module, str)}
    rows[type(module).__name__] = row
kept = pd.DataFrame(rows).T
assert kept["Dim"].str.contains("frozen").tolist() == [False, True, True, False]
assert kept.loc["Threshold"].str.contains("wrong numbers").all()
kept

# %% [markdown]
# A `Dim` is kept where the code treats every size alike. A name frees even `AsNumber`, and refuses `Compare`.
#
# `Threshold` is the dangerous one: for short sequences its file takes the wrong branch, whichever way we ask. Does the
# exporter know?

# %%
axes = ({1: "length"},)
program = torch.onnx.export(modules[3], (x,), file, **plain, dynamic_shapes=axes)
constraints = program.exported_program.range_constraints
[str(bounds) for bounds in constraints.values()]

# %% [markdown]
# It knows that the branch holds from 7 on. The file has no place for that. Only probing with PyTorch beside it finds it.
# The exporter's notes on such conditions are described under
# [dynamic shapes](https://docs.pytorch.org/docs/stable/user_guide/torch_compiler/export.html).

# %% [markdown]
# ## Recap
#
# - The method: compare what is written, probe with PyTorch beside it, ask with names for the reason, change the code.
# - `range` and `if` over a size freeze a dimension or fix a branch; `int` freezes a `Dim`.
# - Use names in quotes, unless the network is as simple as ours: there `Dim("batch")` is kept. Read the file afterwards.
#
# **Back:** [04 · Dynamic axes](../04_dynamic_axes.ipynb). **Next:** [Sizes, names, bounds](04_sizes_and_bounds.ipynb).
