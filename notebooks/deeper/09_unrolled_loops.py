# %% [markdown]
# # 09 · Unrolled loops
#
# A recurrent network was traced with 100 steps. The service takes long to start, and stops at a longer sequence.
# Would a
# real loop be faster?
#
# You need the [core of lesson 09](../09_troubleshooting.ipynb).
#
# After this page you will be able to
#
# - recognise a loop that was written out,
# - keep the loop in the file,
# - say what an unrolled loop costs, and what it does not.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## Three ways to write it
#
# The report says: a traced `for` is written out. `Reader` reads a sequence row by row; `Scanned` does the
# same with `scan`, as in lesson 03.

# %%
import torch

from course_utils.lab.control_flow import Reader, Scanned

# %% [markdown]
# The example has 100 rows.

# %%
hundred = torch.randn(100, 16)
reader, lengths = Reader().eval(), (10, 50, 100)
fixed = {"input_names": ["x"], "dynamo": False}

# %% [markdown]
# Traced, for three lengths:

# %%
with cu.exporter_messages():
    for n in lengths:
        file = f"work/09_traced {n}.onnx"
        torch.onnx.export(reader, (hundred[:n],), file, **fixed)

# %% [markdown]
# Scripted, for the older [exporter](../glossary.md#exporter):

# %%
with cu.exporter_messages() as heard:
    scripted, free = torch.jit.script(reader), {"dynamic_axes": {"x": [0]}}
    file = "work/09_scripted.onnx"
    torch.onnx.export(scripted, (hundred,), file, **fixed, **free)
deprecated = any("torch.jit.script` is deprecated" in said for said in heard)

# %% [markdown]
# The version with `scan` goes to the [default exporter](https://docs.pytorch.org/docs/stable/onnx_export.html).

# %%
free = ({0: torch.export.Dim.DYNAMIC},)
how = {"dynamic_shapes": free, "input_names": ["x"], "verbose": False}
file, scanned = "work/09_scan.onnx", Scanned().eval()
program = torch.onnx.export(scanned, (hundred,), file, **how)

# %% [markdown]
# For each file: how large, how many steps, right for the example, right for seven rows more, and what does the doctor
# say?


# %%
def right_for(file, length):
    try:
        return cu.parity(reader, file, torch.randn(length, 16)).within
    except cu.CourseError:
        return False  # it does not run


# %%
from pathlib import Path

import pandas as pd

table, traced = {}, {f"traced {n}": n for n in lengths}
for name, n in (traced | {"scripted": 100, "scan": 100}).items():
    file = f"work/09_{name}.onnx"
    ops, size = cu.op_histogram(file), Path(file).stat().st_size
    row = {"bytes": size, "nodes": int(ops.sum()), "Tanh": int(ops["Tanh"])}
    row |= {"right": right_for(file, n), "another length": right_for(file, n + 7)}
    table[name] = row | {"the doctor": ", ".join(cu.doctor(file).codes)}
loops = pd.DataFrame(table).T
loops

# %% [markdown]
# Traced, there is one `Tanh` for each step, and the file stops at another length. Scripted, the loop is a loop, but
# `torch.jit.script` is deprecated. `scan` is the way of today. Which costs more time at the start?

# %%
import onnxruntime as ort

cpu, one = ["CPUExecutionProvider"], ort.SessionOptions()
one.intra_op_num_threads = 1

# %%
files = [f"work/09_{name}.onnx" for name in ("traced 100", "scripted", "scan")]
start = {f: lambda f=f: ort.InferenceSession(f, one, providers=cpu) for f in files}
cu.compare(start, rounds=6, seconds=2)

# %% [markdown]
# And in a run?

# %%
x, ready = {"x": hundred.numpy()}, {f: make() for f, make in start.items()}
run = {f: lambda s=s: s.run(None, x) for f, s in ready.items()}
cu.compare(run, rounds=6, seconds=2)

# %% [markdown]
# The steps that were written out do the same work as a loop, so a run need not be slower. The start is: every copy must
# be read, checked and optimised. A real loop gives you a small file, a quick start, and any length.

# %% tags=["hide-input"]
cu.claim(
    "unrolled-loop",
    {
        "traced, 100 steps are 100 copies": list(loops["Tanh"][:3])
        == [10, 50, 100],
        "the nodes grow with the steps": loops["nodes"]["traced 100"]
        > 9 * loops["nodes"]["traced 10"],
        "it does not run with another length": not loops["another length"][
            :3
        ].any(),
        "the doctor finds it": all(
            "loop-unrolled" in codes for codes in loops["the doctor"][:3]
        ),
        "scripted and with scan there is one copy": list(loops["Tanh"][3:])
        == [1, 1],
        "these two are right for another length": loops["another length"][3:].all(),
        "and less than a quarter as large": (
            loops["bytes"][3:] * 4 < loops["bytes"]["traced 100"]
        ).all(),
        "torch.jit.script calls itself deprecated": deprecated,
        "all are right for the example": loops["right"].all(),
    },
)

# %% [markdown]
# ## Recap
#
# - A traced loop is one copy for each step. It costs size, start time and every other length.
# - A run need not be slower: measure both.
# - Write a loop with `scan` unless it has few steps and always the same number.
#
# **Now you:** case 9.12 of the [hospital](../exercises/09_troubleshooting.ipynb). **Next:**
# [It does not export](09_it_does_not_export.ipynb).
