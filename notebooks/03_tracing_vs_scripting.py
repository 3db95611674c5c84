# %% [markdown]
# # 03 · Tracing versus scripting
#
# Your model contains an `if`. You export it, the file loads, and the first test gives PyTorch's numbers. With other
# inputs the same file gives wrong numbers, and nothing reports an error. Whether this can happen depends on the
# mechanism that made the file.
#
# You need [lesson 00](00_start_here.ipynb), and from [lesson 01](01_graph_structure.ipynb) what a node is.
#
# After this lesson you will be able to
#
# - say what each of the three export mechanisms looks at,
# - recognise a file that has lost a branch,
# - rewrite an `if` with `torch.where` or `torch.cond`, and a loop with `scan`,
# - choose a mechanism for your own model.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## Three ways to look at a program
#
# Your model is a Python program. A file holds a list of operators. The [exporter](glossary.md#exporter) turns one into
# the other. [`torch.onnx.export`](https://docs.pytorch.org/docs/stable/onnx_export.html) has two exporters, and the
# older one can be used in two ways:

# %% tags=["remove-input"]
cu.picture("export_paths")

# %% [markdown]
# We give one small model to all three. It notes down what its `forward` receives. The third mechanism cannot compile
# that line, so `is_scripting` hides it.

# %%
import torch
from torch import nn

seen = []


class Witness(nn.Module):
    def forward(self, x):
        if not torch.jit.is_scripting():
            seen.append(str(x))
        return torch.relu(x) * 2


x = torch.tensor([[-1.0, 2.0, 3.0]])


# %% [markdown]
# First the default exporter:

# %%
program = torch.onnx.export(
    Witness().eval(), (x,), "work/03_default.onnx", verbose=False
)
seen

# %% [markdown]
# Python ran `forward` once, with a *fake* tensor. It has a shape and a dtype, and no numbers. What was recorded is an
# [`ExportedProgram`](glossary.md#exported-program), a list of PyTorch's operators:

# %%
[str(node.target) for node in program.exported_program.graph.nodes]

# %% [markdown]
# The exporter then translates each of them into ONNX operators. That is the ONNX IR, `program.model`; the file is
# written from it.
#
# Now [tracing](glossary.md#tracing), which is the older exporter. It prints warnings; `cu.exporter_messages` collects
# them.

# %%
with cu.exporter_messages() as legacy:
    torch.onnx.export(Witness().eval(), (x,), "work/03_traced.onnx", dynamo=False)
seen[-1], legacy[0].partition(". Learn")[0]

# %% [markdown]
# Python ran `forward` once, with the real numbers of your example. Each tensor operation was written down. PyTorch
# calls this way *legacy*.
#
# [Scripting](glossary.md#scripting) compiles the module first:

# %%
with cu.exporter_messages() as deprecated:
    scripted = torch.jit.script(Witness().eval())
    torch.onnx.export(scripted, (x,), "work/03_scripted.onnx", dynamo=False)
print(scripted.code, runs := len(seen))

# %% [markdown]
# Two runs have been noted, one for each mechanism before: Python did not run `forward` this time.
# [`torch.jit.script`](https://docs.pytorch.org/docs/stable/generated/torch.jit.script.html) read the source text and
# compiled it. Do the three files hold the same operators, and compute the same?

# %%
files = [f"work/03_{name}.onnx" for name in ("default", "traced", "scripted")]
operators = [set(cu.op_histogram(file).index) - {"Constant"} for file in files]
agree = [cu.parity(Witness(), file, x).within for file in files]
operators, agree

# %% tags=["hide-input"]
cu.claim(
    "export-is-compilation",
    {
        "each mechanism turns the Python function into the nodes Relu and Mul": all(
            found == {"Relu", "Mul"} for found in operators
        ),
        "the files give PyTorch's numbers": all(agree),
        "tracing runs Python with real numbers": "3." in seen[1],
        "scripting does not run Python": runs == 2,
        "there is a third way: Python runs with fake tensors": "Fake" in seen[0],
    },
)

# %% [markdown]
# ## Which one is the default?
#
# The report says: tracing. Our first call above did not set `dynamo`, and the model saw a fake tensor. What if the
# package [`onnxscript`](https://github.com/microsoft/onnxscript) is missing? A new Python process tries both:

# %%
import subprocess
import sys

code = """
import sys, torch
sys.modules["onnxscript"] = None  # as if it were not installed
for dynamo in (False, True):
    torch.onnx.export(torch.nn.ReLU(), torch.ones(1), "work/03.onnx", dynamo=dynamo)
    print("dynamo =", dynamo, "wrote a file")
"""
command = [sys.executable, "-W", "ignore", "-c", code]
child = subprocess.run(command, check=False, capture_output=True, text=True)
print(child.stdout + child.stderr.splitlines()[-1])

# %% [markdown]
# The default is `dynamo=True` since PyTorch 2.9, and it needs `onnxscript`. If you see this `ModuleNotFoundError`,
# install that package. Do not go back to `dynamo=False` for it.

# %% tags=["hide-input"]
cu.claim(
    "default-is-tracing",
    {
        "the default is dynamo=True": torch.onnx.export.__kwdefaults__["dynamo"]
        is True,
        "it shows no numbers to the model, so it is not tracing": "3."
        not in seen[0],
        "tracing needs dynamo=False, and is called legacy": "legacy" in legacy[0],
        "the default needs onnxscript": "onnxscript" in child.stderr,
        "tracing does not": child.stdout == "dynamo = False wrote a file\n",
    },
)

# %% [markdown]
# ## The branch that was not taken
#
# This model decides by the numbers of its input. We need two inputs, one for each side of the `if`.


# %%
class Gate(nn.Module):
    """Double x where its sum is positive, else lower it by one."""

    def forward(self, x):
        if x.sum() > 0:
            return x * 2
        return x - 1


gate, file = Gate().eval(), "work/03_gate.onnx"
positive, negative = torch.tensor([[1.0, 2.0]]), torch.tensor([[-1.0, -2.0]])
inputs = {"positive": (positive,), "negative": (negative,)}

# %% [markdown]
# The default exporter first. `cu.try_export` calls it and shows an error in one sentence.

# %%
refused = cu.try_export(
    torch.onnx.export, gate, (positive,), file, inputs, verbose=False
)
refused

# %% [markdown]
# There is no file. A fake tensor has no sum that could be compared with zero, so the exporter *could not guard on a
# data-dependent expression*. A [guard](glossary.md#guard) is a condition that the exporter relies on. `u0` is its name
# for the unknown answer, and `Eq(u0, 1)` asks whether it is *yes*. At the end stands the line of the model.
#
# What does tracing do with the same model, and an example whose sum is positive?

# %% tags=["remove-input"]
cu.quiz("03_tracing_vs_scripting", 1)

# %%
with cu.exporter_messages() as warned:
    torch.onnx.export(gate, (positive,), file, dynamo=False)
on_example, elsewhere = (cu.parity(gate, file, x) for x in (positive, negative))
print(on_example, elsewhere, *(w for w in warned if "incorrect" in w), sep="\n")

# %% [markdown]
# There is a file, and it doubles every input. On the example it gives PyTorch's numbers, so a test with the example
# passes. The only sign of the mistake is the last line, a `TracerWarning` during the export. The file does not carry
# it.
#
# Scripting would keep both sides, but `torch.jit.script` is deprecated. [The older
# exporter](deeper/03_older_exporter.ipynb) measures it. The next sections rewrite the model for the default exporter.

# %% tags=["hide-input"]
cu.claim(
    "tracing-bakes-branch",
    {
        "the traced file is right on the branch of the example": on_example.within,
        "it is wrong on the other one": not elsewhere.within,
        "the operator of the other branch, Sub, is not in the file": "Sub"
        not in cu.op_histogram(file),
        "the default exporter refuses this model": refused.verdict == "refuses",
    },
)

# %% [markdown]
# ## A branch that chooses between values: torch.where
#
# Most branches choose between two values.
# [`torch.where`](https://docs.pytorch.org/docs/stable/generated/torch.where.html) computes both and takes one of them,
# for the whole tensor or element by element.


# %%
class Where(nn.Module):
    def forward(self, x):
        return torch.where(x.sum() > 0, x * 2, x - 1)


torch.onnx.export(Where().eval(), (positive,), file, verbose=False)
right = [cu.parity(gate, file, x).within for x in (positive, negative)]
right, list(cu.op_histogram(file).index)

# %% [markdown]
# Both inputs agree with the `if` of `Gate`. `Mul` and `Sub` are both computed, and `Where` takes one of the results.
# The graph has no branch any more, so none can be lost.
#
# ## A branch that must not run: torch.cond
#
# What if one side is expensive, or fails on some inputs? Then only one side may run.
# [`torch.cond`](https://docs.pytorch.org/docs/stable/cond.html) takes the condition, one function for each side, and
# their arguments.


# %%
class Conditional(nn.Module):
    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda x: x * 2, lambda x: x - 1, (x,))


torch.onnx.export(Conditional().eval(), (positive,), file, verbose=False)
right = [cu.parity(gate, file, x).within for x in (positive, negative)]
right, list(cu.op_histogram(file).index)

# %% [markdown]
# Right on both sides. The exporter ran both functions with fake tensors, so both are in the file. The decision is the
# operator [`If`](https://onnx.ai/onnx/operators/onnx__If.html). `Mul` and `Sub` stand in the two graphs inside it, and
# each run executes one of them.
#
# ## A loop over the rows: scan
#
# This model reads a sequence row by row. How many rows there are is known when the file runs, not before.


# %%
class Reader(nn.Module):
    """A sequence [length, 3] → what is remembered at its end, [3]."""

    def forward(self, x):
        h = torch.zeros_like(x[0])
        for row in x:
            h = torch.tanh(row + 0.5 * h)
        return h


five, nine = torch.randn(5, 3), torch.randn(9, 3)
free, scanned = ({0: torch.export.Dim.DYNAMIC},), "work/03_scan.onnx"

# %% [markdown]
# Python's `for` runs during the export, so the steps of the example are written out, one after the other. `scan` keeps
# the loop. It takes a function for one step, the first state and the rows. The step returns the next state and what to
# keep of this step; the two must be different tensors, hence `clone`.

# %%
from torch._higher_order_ops.scan import scan


class Scanned(nn.Module):
    def forward(self, x):
        def step(h, row):
            h = torch.tanh(row + 0.5 * h)
            return h, h.clone()

        last, _ = scan(step, torch.zeros_like(x[0]), x)
        return last


# %% [markdown]
# `scan` stands in a module whose name begins with an underscore, so it may move in a later PyTorch. `free` says that
# the first dimension may have any size; [lesson 04](04_dynamic_axes.ipynb) is about that.

# %%
torch.onnx.export(
    Scanned().eval(), (five,), scanned, dynamic_shapes=free, verbose=False
)
[cu.parity(Reader(), scanned, x).within for x in (five, nine)]

# %% [markdown]
# The file agrees with the Python loop on five rows and on nine. One step is stored, in the operator
# [`Scan`](https://onnx.ai/onnx/operators/onnx__Scan.html), and the file reads any number of rows. Without `scan`, the
# same request fails:

# %%
rows = {"nine rows": (nine,)}
looped = (torch.onnx.export, Reader(), (five,), "work/03_loop.onnx", rows)
cu.try_export(*looped, dynamic_shapes=free, verbose=False)

# %% [markdown]
# The loop was written out for five rows, so this dimension cannot be free. Other ways to ask for it write a file that
# is wrong for nine rows: [What a file forgets](deeper/03_what_a_file_forgets.ipynb).
#
# ## What to do with your model
#
# | your model has | use | unless |
# |---|---|---|
# | no decision and no loop | the default exporter, after `eval()` | |
# | an `if` that chooses between two values | `torch.where` | one side is expensive or must not run: `torch.cond` |
# | an `if` over a size or a setting | the default exporter; it decides at the export | the size is free: [lesson 04](04_dynamic_axes.ipynb) |
# | a loop over the rows of an input | one operator for all rows | there is none: `scan` |
# | a loop that ends on a condition | [`while_loop`](deeper/03_living_branches_and_loops.ipynb) | |
# | an operator that the exporter does not know | a [translation](deeper/03_unknown_operators.ipynb) | |
#
# Use `dynamo=False` only if the runtime needs an old [opset](glossary.md#opset) that the default exporter, asked for it,
# does not write ([lesson 02](02_opsets.ipynb)), or if that exporter fails on a model that you may not change. Then test every branch and every size.
#
# The default exporter writes the weights into a second file, `.onnx.data`. Add `external_data=False` for one file,
# unless the model is larger than 2 GB.

# %% [markdown]
# ## Recap
#
# - The default exporter runs `forward` with fake tensors, tracing with your example. Scripting reads the source.
# - Tracing keeps the branch and the number of steps of your example. The file gives no warning.
# - The default exporter refuses a Python `if` over numbers. Use `torch.where`, unless one side must not run; then use
#   `torch.cond`.
# - Use one operator for all rows, unless there is none; then use `scan`.
# - After every export, check [parity](glossary.md#parity) on inputs that take each branch and have other sizes.
#
# **Next:** the [exercises of this lesson](exercises/03_tracing_vs_scripting.ipynb). After them,
# [04 · Dynamic axes](04_dynamic_axes.ipynb) is about sizes that are not known beforehand.
#
# **Deeper:** [What a file forgets](deeper/03_what_a_file_forgets.ipynb): lengths, lists, modes ·
# [Branches and loops in the file](deeper/03_living_branches_and_loops.ipynb) ·
# [Unknown operators](deeper/03_unknown_operators.ipynb), and a test after every export ·
# [The older exporter](deeper/03_older_exporter.ipynb) ·
# [Three mechanisms compared](deeper/03_comparison_measured.ipynb) ·
# [An older listing, line by line](deeper/03_older_listing.ipynb).
