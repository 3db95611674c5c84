# %% [markdown]
# # 09 · It does not export
#
# A model of signals uses `torch.fft`. The export stops: *Exporting the operator … to ONNX opset version … is not
# supported*. A forum says: take opset 17. Does that help?
#
# You need the [core of lesson 09](../09_troubleshooting.ipynb).
#
# After this page you will be able to
#
# - read the message and say which of its two causes you have,
# - teach the older exporter an operator with a symbolic function,
# - examine a file that was converted to an older opset.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## The message
#
# It comes from the older [exporter](../glossary.md#exporter) (`dynamo=False`). We provoke it with attention, and ask
# for
# [opset](../glossary.md#opset) 13:

# %%
import torch
from torch import nn


class Attention(nn.Module):
    def forward(self, x):
        return nn.functional.scaled_dot_product_attention(x, x, x)


# %% [markdown]
# We keep the error, to read it:

# %%
heads, file = torch.randn(1, 2, 5, 4), "work/09_attention.onnx"
old = {"dynamo": False, "opset_version": 13}
try:
    with cu.exporter_messages():
        torch.onnx.export(Attention().eval(), (heads,), file, **old)
except RuntimeError as error:
    too_old = error
print(f"{type(too_old).__name__}: {too_old}")

# %% [markdown]
# The message names the operator and the opset that would do. It is a `RuntimeError`, of a more exact class. We follow
# the
# advice. This function exports, and compares the file with PyTorch:


# %%
def older(module, x, opset, file="work/09_older.onnx"):
    how = {"dynamo": False, "opset_version": opset}
    try:
        with cu.exporter_messages():
            torch.onnx.export(module, (x,), file, **how)
    except RuntimeError as error:
        return error
    return "works" if cu.parity(module, file, x).within else "other numbers"


newer = older(Attention().eval(), heads, 14)
newer

# %% [markdown]
# And the default exporter, asked for 13?

# %%
new = {"opset_version": 13, "verbose": False}
with cu.exporter_messages() as heard:
    torch.onnx.export(Attention().eval(), (heads,), file, **new)
cu.doctor(file, requested_opset=13).codes

# %% [markdown]
# Which opset did it write?

# %%
import onnx

written = onnx.load(file).opset_import[0].version
written

# %% [markdown]
# The default exporter does not refuse. It writes a newer opset than we asked for, as lesson 02 shows, and the doctor
# says so.
#
# ## `torch.fft`, and opset 17
#
# Now the report's own example. It says that `torch.fft` works from opset 17 on. The output holds the real and the
# imaginary part, `[N, T/2 + 1, 2]`. We ask for opsets from before and after.

# %% tags=["remove-input"]
cu.quiz("09_it_does_not_export", 1)


# %%
class Spectrum(nn.Module):
    def forward(self, x):
        return torch.view_as_real(torch.fft.rfft(x))


import pandas as pd

signal = torch.randn(3, 16)
fft = {opset: older(Spectrum().eval(), signal, opset) for opset in (9, 14, 17, 20)}
pd.Series(fft, name="torch.fft.rfft in the older exporter").map(str).to_frame()

# %% [markdown]
# It fails at all of them, and this message has no advice. Two things must come together: the **standard** must have an
# operator, and the **exporter** must have a translation to it. Since when does the standard have
# [`DFT`](https://onnx.ai/onnx/operators/onnx__DFT.html)?

# %%
history = onnx.defs.get_schema("DFT", 17)
fft_file = "work/09_fft.onnx"
history.since_version

# %% [markdown]
# The report is right about the standard. The default exporter has the translation:

# %%
torch.onnx.export(Spectrum().eval(), (signal,), fft_file, verbose=False)
default_fft = cu.parity(Spectrum(), fft_file, signal)
print(default_fft)
cu.node_table(fft_file)[["op", "inputs", "outputs"]]

# %% [markdown]
# So use the default exporter. If you must keep the older one, you can teach it with a **symbolic function**: it gets
# the
# graph `g` and the operator's inputs, and adds nodes with `g.op`. `DFT` has no complex numbers: a last axis of two
# holds
# both parts. So `view_as_real` has nothing to do.


# %%
def rfft(g, x, length, axis, norm):
    last = g.op("Constant", value_t=torch.tensor([-1]))
    return g.op("DFT", g.op("Unsqueeze", x, last), axis_i=1, onesided_i=1)


symbolic = {"aten::fft_rfft": rfft, "aten::view_as_real": lambda g, x: x}

# %% [markdown]
# This one is for the last axis of a matrix, without length and norm. We register both from opset 17 on, export for 16
# and
# 17, and take them away again.

# %%
for operator, function in symbolic.items():
    torch.onnx.register_custom_op_symbolic(operator, function, 17)
taught = {opset: older(Spectrum().eval(), signal, opset) for opset in (16, 17)}
for operator in symbolic:
    torch.onnx.unregister_custom_op_symbolic(operator, 17)
pd.Series(taught, name="with a symbolic function").map(str).to_frame()

# %% [markdown]
# At 17 it works, and at 16 the message knows that 17 would do. In the default exporter the same idea is called
# [`custom_translation_table`](https://docs.pytorch.org/docs/stable/onnx_export.html);
# [Unknown operators](03_unknown_operators.ipynb) writes one.

# %% tags=["hide-input"]
cu.claim(
    "opset-error-message",
    {
        "the older exporter raises it at opset 13: a RuntimeError": isinstance(
            too_old, RuntimeError
        )
        and "to ONNX opset version 13 is not supported" in str(too_old),
        "a newer opset cures it, where the message names one": "added in version 14"
        in str(too_old)
        and newer == "works",
        "where it names none, no opset of four does": "try exporting"
        not in str(fft[20])
        and not any(outcome == "works" for outcome in fft.values()),
        "a symbolic function still works in the older exporter": taught[17]
        == "works",
        "the default exporter, asked for 13, writes a newer opset instead": written
        > 13,
        "and that file is right": cu.parity(Attention(), file, heads).within,
    },
)

# %% tags=["hide-input"]
cu.claim(
    "torch-fft-needs-17",
    {
        "the standard's operator DFT came with opset 17": history.since_version
        == 17,
        "the older exporter fails at 17 all the same, and at 20": all(
            isinstance(fft[o], RuntimeError) for o in (17, 20)
        ),
        "with a symbolic function it works at 17": taught[17] == "works",
        "and not at 16": isinstance(taught[16], RuntimeError),
        "the default exporter writes DFT": "DFT"
        in cu.op_histogram("work/09_fft.onnx"),
        "with PyTorch's numbers": default_fft.within,
    },
)

# %% [markdown]
# ## It exports, and does not load
#
# We want the strength of each frequency, and ask the *default* exporter for opset 17. It writes the file without an
# error. Does it load?


# %%
class Strength(nn.Module):
    def forward(self, x):
        return torch.fft.rfft(x).abs()


strength = Strength().eval()


# %% [markdown]
# Asked for 17:

# %%
file, down = "work/09_strength.onnx", {"opset_version": 17, "verbose": False}
with cu.exporter_messages() as heard:
    torch.onnx.export(strength, (signal,), file, **down)
verdict = cu.doctor(file, requested_opset=17, run=True)
print(*verdict.codes, *(finding.cause for finding in verdict.errors), sep="\n")

# %% [markdown]
# The exporter works in 18 and then converts down. In the versions of this course the conversion left an attribute
# behind
# that opset 17 does not know, and ONNX Runtime refuses the file. With 18 nothing is converted:

# %%
torch.onnx.export(strength, (signal,), file, opset_version=18, verbose=False)
at_18 = cu.parity(strength, file, signal)
assert at_18.within and not cu.doctor(file).errors
at_18

# %% [markdown]
# Use opset 18 or newer with the default exporter unless the runtime of your target is older; then examine what was
# written.

# %% [markdown]
# ## Recap
#
# - *Not supported* comes from the older exporter. A newer opset helps only where the message names one.
# - Two things must exist: an operator in the standard, and a translation in the exporter. For `torch.fft` the older
#   exporter has no translation.
# - Use the default exporter unless it refuses your model; a symbolic function is for those who must keep the older one.
# - A file that was converted to an older opset may not load: run `cu.doctor(file, run=True)`.
#
# **Next:** [Its shapes are unknown](09_unknown_shapes.ipynb). **Back:** [lesson 09](../09_troubleshooting.ipynb).
