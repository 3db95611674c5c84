# %% [markdown]
# # 09 · Tiny models
#
# A team moved a tiny model to ONNX Runtime, and each request became slower. What does a call cost, and when is PyTorch
# faster?
#
# You need the [core of lesson 09](../09_troubleshooting.ipynb).
#
# After this page you will be able to
#
# - count what a call does,
# - bind the memory of a tiny model,
# - say from how many operators on a session is faster on your machine.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## What a call costs
#
# Each call of a [session](../glossary.md#session) costs something before the first [node](../glossary.md#node) runs:
# Python checks the names, C++ wraps the arrays. We make models that do next to nothing: `sin` of eight numbers, from 1
# to 64 times.

# %%
import torch


class Sines(torch.nn.Module):
    def __init__(self, count):
        super().__init__()
        self.count = count

    def forward(self, x):
        for _ in range(self.count):
            x = torch.sin(x)
        return x


# %%
counts, eight = (1, 2, 4, 8, 16, 64), torch.randn(1, 8)
io = {"input_names": ["x"], "output_names": ["y"], "dynamo": False}
io["dynamic_axes"] = {"x": [0]}
with cu.exporter_messages():
    for n in counts:
        torch.onnx.export(Sines(n), (eight,), f"work/09_sines_{n}.onnx", **io)

# %% [markdown]
# We count the Python calls of one run, as [Reading a profile](06_reading_a_profile.ipynb) does.

# %%
import sys


def python_calls(function):
    function()  # the first call prepares this and that
    calls = []
    sys.setprofile(lambda frame, event, argument: calls.append(event))
    function()
    sys.setprofile(None)
    return sum(event in ("call", "c_call") for event in calls)


# %% [markdown]
# Each session gets one thread.

# %%
import onnxruntime as ort

cpu, one, sessions = ["CPUExecutionProvider"], ort.SessionOptions(), {}
one.intra_op_num_threads = 1

# %% [markdown]
# One session for each file:

# %%
for n in counts:
    file = f"work/09_sines_{n}.onnx"
    sessions[n] = ort.InferenceSession(file, one, providers=cpu)

# %% tags=["remove-input"]
cu.quiz("09_tiny_models", 1)

# %%
feed = {"x": eight.numpy()}
[python_calls(lambda s=s: s.run(None, feed)) for s in sessions.values()]

# %% [markdown]
# A run makes the same number of Python calls, whatever is in the model. [IO binding](../glossary.md#io-binding)
# ([its documentation](https://onnxruntime.ai/docs/performance/tune-performance/iobinding.html)) makes fewer: input and
# output get their memory once. An `OrtValue` made of a NumPy array uses that array, so the result appears in `out`.

# %%
import numpy as np

out = np.zeros((1, 8), np.float32)


# %% [markdown]
# This function binds both, and returns what is called:


# %%
def bound(session):
    binding, wrap = session.io_binding(), ort.OrtValue.ortvalue_from_numpy
    binding.bind_ortvalue_input("x", wrap(feed["x"]))
    binding.bind_ortvalue_output("y", wrap(out))
    return lambda: session.run_with_iobinding(binding)


# %% [markdown]
# Three ways for all models: PyTorch, a run, a run with bound memory.

# %%
runs = {}
for n, s in sessions.items():
    module = Sines(n)
    runs["PyTorch", n] = lambda m=module: m(eight)
    runs["run", n] = lambda s=s: s.run(None, feed)[0]
    runs["IO binding", n] = bound(s)

# %% [markdown]
# Do they give the same numbers?

# %%
agree = []
for n in counts:
    runs["IO binding", n]()
    for y in (runs["run", n](), out):
        agree.append(np.allclose(y, Sines(n)(eight), atol=1e-6))
all(agree)

# %% [markdown]
# They do. The Python calls of each:

# %%
import pandas as pd

with torch.inference_mode():
    made = pd.Series({k: python_calls(run) for k, run in runs.items()}).unstack(0)
made

# %% [markdown]
# PyTorch pays for each operator, a session for each call. And the time?

# %%
clocked = {f"{way} {n}": run for (way, n), run in runs.items()}
with torch.inference_mode():
    clock = cu.compare(clocked, threads=1, rounds=8, seconds=8).table["median ms"]

# %% [markdown]
# As a picture, in microseconds:

# %%
us = pd.Series({(w, n): clock[f"{w} {n}"] * 1000 for w, n in runs}).unstack(0)
axes = us.plot(logx=True, logy=True, marker="o", figsize=(7, 3))
faster = [n for n in counts if us["run"][n] < us["PyTorch"][n]]
where = f"session.run overtakes PyTorch at {min(faster)} nodes" if faster else ""
axes.set(xlabel="nodes in the model", ylabel="microseconds per call")
axes.minorticks_off()
axes.set_xticks(counts, counts)
axes.yaxis.get_major_locator().set_params(subs=(1, 2, 5))
axes.yaxis.set_major_formatter("{x:g}")
title = axes.set_title(where or "PyTorch is always faster")
# %% [markdown]
# With a handful of operators PyTorch can win, as the report says. Bound memory helps. More rows in one call help most:

# %%
many = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
call = sessions[1].run

# %% [markdown]
# We run them in two ways:

# %%
ways = {
    "one by one": lambda: [call(None, {"x": row[None]})[0] for row in many],
    "together": lambda: call(None, {"x": many})[0],
}

# %%
each, whole = np.concatenate(ways["one by one"]()), ways["together"]()
per_way = {name: python_calls(way) for name, way in ways.items()}
per_way

# %% [markdown]
# The work is the same, with one call in place of 200.

# %% tags=["hide-input"]
cu.claim(
    "small-models-slower",
    {
        "a run makes as many Python calls for 1 node as for 64": made[
            "run"
        ].nunique()
        == 1,
        "PyTorch makes more with each operator": made[
            "PyTorch"
        ].is_monotonic_increasing
        and made["PyTorch"][64] > made["PyTorch"][1] + 60,
        "for one operator PyTorch makes fewer than a session": made["PyTorch"][1]
        < made["run"][1],
        "for 64 it makes more": made["PyTorch"][64] > made["run"][64],
        "IO binding saves some of the calls": made["IO binding"][1]
        < made["run"][1],
        "200 rows in one call need less than a fiftieth of the calls": per_way[
            "together"
        ]
        * 50
        < per_way["one by one"],
        "all give the same numbers": all(agree)
        and np.allclose(each, whole, atol=1e-6),
    },
)

# %% [markdown]
# ## Recap
#
# - A call of a session has a fixed price. PyTorch pays for each operator, and can win with a handful of them.
# - Give a tiny model more rows in one call unless each row must be answered at once; then bind its memory.
# - Small models that follow each other become one file: one call in place of many.
#
# **Now you:** case 9.14 of the [hospital](../exercises/09_troubleshooting.ipynb). **Next:**
# [Unrolled loops](09_unrolled_loops.ipynb).
