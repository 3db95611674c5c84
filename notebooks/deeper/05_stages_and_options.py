# %% [markdown]
# # 05 · Stages and options of a session
#
# Your service takes long to start, or it takes all cores of a machine that it shares. The first is a question of
# stages: which part of creating a session takes the time? The second is a question of options.
#
# You need the [core of lesson 05](../05_execution_providers.ipynb).
#
# After this page you will be able to
#
# - cut the creation of a session into stages, and time each,
# - set threads, free dimensions and a limit for one run,
# - find a key of the configuration, and know what happens to a misspelled one.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## Stage by stage
#
# We export the network of the course:

# %%
import torch

x, file = (torch.randn(2, 1, 28, 28),), "work/05_stages.onnx"
free = {"dynamic_shapes": ({0: torch.export.Dim("batch")},), "external_data": False}
model = cu.fashion_resnet()
torch.onnx.export(model, x, file, input_names=["image"], verbose=False, **free)
cu.written_shapes(file)

# %% [markdown]
# ONNX Runtime writes a detailed log: `log_severity_level = 0` is the most detailed of five levels. `cu.session_log`
# creates the session several times in another process, and returns the log as a table. It has hundreds of lines per
# creation:

# %%
log = cu.session_log(file, times=7)
log.groupby("creation").size().to_frame("lines").T

# %% [markdown]
# The first creation has more lines, because a process does some work only once. We leave it out. The log has times, so
# we can cut it. Each stage ends where a certain line appears:

# %%
ends = {
    "options and threads": "Dynamic block base",
    "load the file": "Initializing session",
    "check and prepare the graph": "for level 1 for up to",
    "optimise: general rewrites": "iteration for level 1",
    "partition: who takes which node": "for level 2 for up to",
    "optimise: fusions and layout": "Node placements",
    "kernels, weights, memory plan": "Session successfully initialized",
}

# %% tags=["remove-input"]
cu.quiz("05_stages_and_options", 1)

# %%
import numpy as np
import pandas as pd

spent = {}
for number, lines in log[log["creation"] > 1].groupby("creation"):
    found = [lines[lines["message"].str.contains(text)] for text in ends.values()]
    spent[number] = np.diff([0, *(rows["ms"].min() for rows in found)])
stages = pd.DataFrame(spent, index=list(ends)).median(axis=1)
stages.round(2).to_frame("ms, median")

# %% [markdown]
# As a picture:

# %%
title = f"Most time goes into “{stages.idxmax()}”"
ax = stages[::-1].plot.barh(title=title, color="#56B4E9", figsize=(7.2, 2.8))
_ = ax.set_xlabel("milliseconds (median; writing the log costs some of it)")

# %% [markdown]
# Look at the longest bar. If it is loading, the size of the file counts. If it is the fusions, a file that was
# [saved optimised](06_files_saved_optimised.ipynb) starts faster. If it is the partition, a provider compiles there:
# see [compiled files](05_compiled_files.ipynb).
#
# A second source is the [profile](../glossary.md#profile). It is more exact, but knows only two stages:

# %%
import onnxruntime as ort

options, cpu = ort.SessionOptions(), ["CPUExecutionProvider"]
options.enable_profiling = True
options.profile_file_prefix = "work/05_stages_profile"
session = ort.InferenceSession(file, options, providers=cpu)
events = pd.read_json(session.end_profiling())
events.loc[events["cat"] == "Session", ["name", "ts", "dur"]]

# %% [markdown]
# `ts` is the start and `dur` the length, in microseconds. Loading and initialisation happen once per session.
#
# ## Options of a session, and of a run
#
# | what | where | effect |
# |---|---|---|
# | `intra_op_num_threads` | session | threads inside one node; 0 means one per core |
# | `inter_op_num_threads`, `execution_mode` | session | several nodes at the same time; seldom useful |
# | `graph_optimization_level` | session | how much is rewritten, see lesson 06 |
# | `enable_cpu_mem_arena` | session | keep memory for the next run, or give it back |
# | `add_free_dimension_override_by_name` | session | fix a free dimension, such as the batch |
# | `add_session_config_entry(key, value)` | session | everything else, as text |
# | `RunOptions` | one run | stop it, log it, give memory back after it |
#
# The number of [threads](https://onnxruntime.ai/docs/performance/tune-performance/threading.html) is fixed when a
# session is created:

# %%
one = ort.SessionOptions()
one.intra_op_num_threads = 1
session = ort.InferenceSession(file, one, providers=cpu)
feed = {"image": cu.normalize(cu.fashion_mnist("test")[0][:64])}

# %% [markdown]
# How many are good for a batch of 64? We compare three sessions. The last one gets four times as many threads as there
# are cores.

# %%
import os

runs = {}
for threads in (1, 2, 4 * os.cpu_count()):
    one.intra_op_num_threads = threads
    s = ort.InferenceSession(file, one, providers=cpu)
    runs[f"{threads} threads"] = lambda s=s: s.run(None, feed)
cu.compare(runs, rounds=15, seconds=4)

# %% [markdown]
# More threads than free cores do not help, and often harm. On a server that works on many requests at once, one thread
# per session is often the best choice.
#
# A **free dimension** can be fixed for one session, for a device that needs sizes in numbers:

# %%
fixed = ort.SessionOptions()
fixed.add_free_dimension_override_by_name("batch", 1)
ort.InferenceSession(file, fixed, providers=cpu).get_inputs()[0].shape

# %% [markdown]
# `RunOptions` belong to a single run. Set `terminate` from another thread, and a run that takes too long stops. Here it
# is set before the run begins:

# %%
stop = ort.RunOptions()
stop.terminate = True
try:
    session.run(None, feed, stop)
except Exception as error:
    print(error)

# %% [markdown]
# ## Keys are text
#
# An attribute that does not exist is an error:

# %%
try:
    one.intra_op_num_thread = 1
except AttributeError as error:
    print(error)

# %% [markdown]
# And a configuration **key** that does not exist? This one lacks a letter. It should switch off the busy loop of
# threads that wait:

# %% tags=["remove-input"]
cu.quiz("05_stages_and_options", 2)

# %%
options = ort.SessionOptions()
options.add_session_config_entry("session.intra_op.allow_spining", "0")
accepted = ort.InferenceSession(file, options, providers=cpu).get_session_options()
accepted.get_session_config_entry("session.intra_op.allow_spining")

# %% [markdown]
# It is stored, and nobody reads it. So copy keys, never type them. ONNX Runtime lists them in a header file,
# [`onnxruntime_session_options_config_keys.h`](https://github.com/microsoft/onnxruntime/blob/main/include/onnxruntime/core/session/onnxruntime_session_options_config_keys.h).
# Some that are useful:
#
# | key | value | effect |
# |---|---|---|
# | `session.intra_op.allow_spinning` | `"0"` | threads that wait sleep, in place of a busy loop |
# | `session.set_denormal_as_zero` | `"1"` | numbers very near to zero (*subnormal*) count as zero: some models get faster. **Only the first session of a process decides** |
# | `session.disable_prepacking` | `"1"` | weights are not stored a second time in another order: less memory, often slower |
# | `session.record_ep_graph_assignment_info` | `"1"` | write down which provider takes which node |
# | `session.disable_cpu_ep_fallback` | `"1"` | a node that is left for the CPU is an error |
#
# The condition in the second row is easy to miss. A later session keeps what the first one has set, whatever it asks
# for. `cu.session_log` created seven sessions, and the log mentions the setting once:

# %%
log.loc[log["message"].str.contains("denormal-as-zero"), ["creation", "message"]]

# %% [markdown]
# ## Recap
#
# - Cut the creation into stages before you make it shorter.
# - Threads are fixed at the creation. Use one per session where many requests run at once, unless one request must be
#   fast.
# - `RunOptions` stop a single run; `add_free_dimension_override_by_name` fixes a size.
# - Keys of the configuration are text: a misspelled one is accepted and ignored.
#
# **Back:** [05 · Execution providers](../05_execution_providers.ipynb). **Deeper:**
# [files saved optimised](06_files_saved_optimised.ipynb).
