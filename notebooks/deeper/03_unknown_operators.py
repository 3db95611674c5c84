# %% [markdown]
# # 03 · Unknown operators
#
# The export stops with *No ONNX function found*. Your model uses an operator that the exporter does not know: a
# function of a NumPy library, or one of PyTorch's rare ones. You write a translation, and now you want a proof that it
# is right.
#
# You need the [core of lesson 03](../03_tracing_vs_scripting.ipynb).
#
# After this page you will be able to
#
# - read the export report,
# - translate an operator with onnxscript,
# - put an operator of the runtime into a model by name,
# - keep only files that pass a test, on inputs that differ in what matters.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## An operator that the exporter does not know
#
# [`torch.library.custom_op`](https://docs.pytorch.org/docs/stable/library.html) makes an operator of a function in
# NumPy, here of a wavelet with the shape of a hat.

# %%
import numpy as np
import torch
from torch import nn


@torch.library.custom_op("scroll::ricker", mutates_args=())
def ricker(x: torch.Tensor, width: float) -> torch.Tensor:
    """(1 - s) · exp(-s / 2) with s = (x / width)²."""
    s = np.square(x.numpy() / np.float32(width))
    return torch.from_numpy((1 - s) * np.exp(-s / 2))


# %% [markdown]
# The exporter runs the model with fake tensors. `register_fake` tells the shape of the result for those.


# %%
ricker.register_fake(lambda x, width: torch.empty_like(x))


class Wavelet(nn.Module):
    def forward(self, x):
        return ricker(x, 1.5) + 1


# %% [markdown]
# We export, and ask for the **export report**, a Markdown file in the folder `artifacts_dir`:

# %%
signal, louder = torch.randn(4, 5), torch.randn(4, 5) * 3
wavelet, file = Wavelet().eval(), "work/03_unknown_wavelet.onnx"
inputs = {"a signal": (signal,), "a louder one": (louder,)}
report = {
    "report": True,
    "artifacts_dir": "work/03_report",
    "verbose": False,
}
cu.try_export(torch.onnx.export, wavelet, (signal,), file, inputs, **report)

# %% [markdown]
# It fails. The report begins with the list of all steps:

# %%
from pathlib import Path

newest = max(Path("work/03_report").glob("*.md"), key=lambda p: p.stat().st_mtime)
print(newest.read_text(encoding="utf-8").partition("## Error messages")[0])

# %% [markdown]
# The step *Translate the graph into ONNX* failed. Further down stand the error, the
# [`ExportedProgram`](../glossary.md#exported-program) and a list of its operators. Read the report before you send it
# to somebody: it names files and folders of your machine.
#
# ## A translation
#
# We write the operator in Python with operators of ONNX. The language is
# [onnxscript](https://github.com/microsoft/onnxscript).

# %%
from onnxscript import FLOAT
from onnxscript import opset18 as op


divisor = 2.0


def ricker_in_onnx(x: FLOAT, width: float):
    ratio = op.Div(x, op.Constant(value_float=width))
    s = op.Mul(ratio, ratio)
    return op.Mul(op.Sub(1.0, s), op.Exp(op.Div(op.Neg(s), divisor)))


# %% [markdown]
# `custom_translation_table` tells the exporter which function translates which operator:

# %%
table = {torch.ops.scroll.ricker.default: ricker_in_onnx}
how = {"custom_translation_table": table, "verbose": False}
torch.onnx.export(wavelet, (signal,), file, **how)
[cu.parity(wavelet, file, x).within for x in (signal, louder)]

# %% [markdown]
# There is a file, and it is right on both inputs.
#
# ## An operator of the runtime, by name
#
# A runtime has operators that neither PyTorch nor ONNX knows.
# [`torch.onnx.ops.symbolic`](https://docs.pytorch.org/docs/stable/onnx_ops.html) puts one into the graph, with its
# [domain](../glossary.md#domain) and name:


# %%
class Quick(nn.Module):
    def forward(self, x):
        name, settings = "com.microsoft::QuickGelu", {"alpha": 1.702}
        like = {"dtype": x.dtype, "shape": x.shape, "version": 1}
        return torch.onnx.ops.symbolic(name, (x,), settings, **like)


# %%
import onnxruntime as ort

torch.onnx.export(Quick().eval(), (signal,), "work/03_quick.onnx", verbose=False)
session = ort.InferenceSession("work/03_quick.onnx")
(y,) = session.run(None, {"x": signal.numpy()})
np.abs(y - (signal * torch.sigmoid(1.702 * signal)).numpy()).max()

# %% [markdown]
# ONNX Runtime computes $x \cdot \sigma(1.702\,x)$. In PyTorch the module has no numbers:

# %%
Quick()(signal).abs().max()

# %% [markdown]
# It returns zeros of the right shape. So parity with the module cannot be tested: write the formula beside it, as
# above.
#
# ## A gate after every export
#
# What does a mistake in a translation do? The exporter cannot know the formula. This function keeps a file only if it
# gives PyTorch's numbers on all inputs.


# %%
def export_through_gate(module, args, file, inputs, **how):
    trial = Path(file).with_suffix(".trial.onnx")
    torch.onnx.export(module, args, trial, external_data=False, **how)
    for name, given in inputs.items():
        found = cu.parity(module, trial, given)
        if not found.within:
            raise ValueError(f"{name}: {found}")
    trial.replace(file)


# %%
export_through_gate(wavelet, (signal,), file, inputs, **how)
cu.node_table(file)[["op", "inputs", "outputs"]]

# %% [markdown]
# The right translation is kept. Only standard operators are in the file, so ONNX Runtime needs nothing of ours. Now a
# mistake in the formula, 1 in place of 2:

# %%
divisor = 1.0
try:
    export_through_gate(wavelet, (signal,), file, inputs, **how)
except ValueError as error:
    print(error)

# %% [markdown]
# The exporter wrote a file without an error or a warning. The gate did not let it take the place of the good one.
#
# ## Does verify=True do the same?
#
# `torch.onnx.export` has the option `verify`:

# %%
with cu.exporter_messages() as said:
    torch.onnx.export(wavelet, (signal,), file, verify=True, **how)
[message for message in said if "difference" in message]

# %% [markdown]
# It finds the mistake, and keeps the file. Now a Python loop, exported from five rows with a free length:


# %%
class Reader(nn.Module):
    def forward(self, x):
        h = torch.zeros_like(x[0])
        for row in x:
            h = torch.tanh(row + 0.5 * h)
        return h


reader, five, nine = Reader().eval(), torch.randn(5, 3), torch.randn(9, 3)


# %%
loose = {"dynamic_shapes": ({0: torch.export.Dim.AUTO},), "verbose": False}
with cu.exporter_messages() as said_of_loop:
    torch.onnx.export(reader, (five,), "work/03_loop.onnx", verify=True, **loose)
said_of_loop, cu.parity(reader, "work/03_loop.onnx", nine).within

# %% [markdown]
# No message, and nine rows are wrong. `verify` looks at your example only. A gate needs inputs that *differ in what
# matters*: the sign, the length, the batch.
#
# ## Inputs from real calls
#
# Which sizes differ in practice?
# [`torch.onnx.InputObserver`](https://docs.pytorch.org/docs/stable/onnx_export.html) watches calls of the model, and
# infers example and free dimensions from them:

# %%
observer = torch.onnx.InputObserver()
with observer(reader):
    reader(five), reader(nine)
observer.infer_dynamic_shapes()

# %% [markdown]
# The first dimension differed, so it is asked for as `Dim.DYNAMIC`. With that the exporter refuses the loop:

# %%
shapes = {"dynamic_shapes": observer.infer_dynamic_shapes(), "verbose": False}
args, sizes = observer.infer_arguments(), {"nine rows": (nine,)}
cu.try_export(torch.onnx.export, reader, args, "work/03_loop.onnx", sizes, **shapes)

# %% [markdown]
# ## Recap
#
# - `report=True` says which step of the export failed.
# - Use `custom_translation_table` for an operator that ONNX can express, unless the runtime has a faster one; then name
#   it with `torch.onnx.ops.symbolic`.
# - A mistake in a translation gives a file without an error. Send every export through a gate.
# - `verify=True` tests your example only. A gate tests inputs that differ in sign, length and batch.
# - `InputObserver` infers the free dimensions from calls of your program.
#
# **Next:** task 3.3 of the [exercises](../exercises/03_tracing_vs_scripting.ipynb).
# **Deeper:** [Branches and loops in the file](03_living_branches_and_loops.ipynb) exports this loop.
