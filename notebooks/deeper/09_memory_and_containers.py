# %% [markdown]
# # 09 · Memory and containers
#
# A service runs in a container with a limit of memory and of processors. Each night it is killed after one large
# request, and it has more threads than processors. The model file has 64 MB. What needs the rest?
#
# You need the [core of lesson 09](../09_troubleshooting.ipynb).
#
# After this page you will be able to
#
# - measure what a session and a request keep,
# - give memory back after a large request,
# - choose the number of threads in a container.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## What a session keeps
#
# One layer with 4096 × 4096 weights of float32: 64 MiB. The output is a single number, so results need no memory.

# %%
text = """<ir_version: 10, opset_import: ["": 18]>
wide (float[n, 4096] x) => (float y) {
  h = MatMul(x, W)
  y = ReduceMax <keepdims = 0> (h)
}"""

# %% [markdown]
# The weights, and the file:

# %%
import numpy as np
import onnx

model, W = onnx.parser.parse_model(text), np.full((4096, 4096), 0.01, np.float32)
model.graph.initializer.append(onnx.numpy_helper.from_array(W, "W"))
onnx.save(model, "work/09_wide.onnx")
del model, W

# %% [markdown]
# `psutil` says how much memory the process has in use (*resident*). This function tells by how much a step changed it,
# in MiB:

# %%
import gc

import psutil


def growth(step):
    gc.collect()
    before = psutil.Process().memory_info().rss
    kept = step()
    return kept, round((psutil.Process().memory_info().rss - before) / 2**20)


# %% [markdown]
# A session, with one thread:


# %%
import onnxruntime as ort

file, cpu = "work/09_wide.onnx", ["CPUExecutionProvider"]
options = ort.SessionOptions()
options.intra_op_num_threads = 1
session, at_start = growth(
    lambda: ort.InferenceSession(file, options, providers=cpu)
)
at_start

# %% [markdown]
# The [session](../glossary.md#session) keeps the weights, about as large as the file. A second one of the same file?

# %% tags=["remove-input"]
cu.quiz("09_memory_and_containers", 1)

# %%
second, again = growth(lambda: ort.InferenceSession(file, options, providers=cpu))
assert again > 0.8 * 64
del second
again

# %% [markdown]
# It keeps its own copy. Sessions of one file share nothing by default, nor do processes. So in one process use one
# session for all requests: several threads may call its `run`.
#
# With the weights in a [second file](01_large_files.ipynb) (*external data*), ONNX Runtime maps that file into memory:
# pages are read when they are used, and processes share them. But on the CPU it also arranges matrices anew for its
# [kernels](../glossary.md#kernel) (*prepacking*), which is a copy. A
# [session option](https://onnxruntime.ai/docs/api/python/api_summary.html) forbids that:

# %%
how = {"save_as_external_data": True, "location": "09_outside.data"}
outside = "work/09_outside.onnx"
onnx.save(onnx.load(file), outside, **how)

# %% [markdown]
# With the copy, as usual:

# %%
packed, size = growth(lambda: ort.InferenceSession(outside, options, providers=cpu))
del packed
size

# %% [markdown]
# And with the copy forbidden:

# %%
options.add_session_config_entry("session.disable_prepacking", "1")
mapped, size = growth(lambda: ort.InferenceSession(outside, options, providers=cpu))
del mapped
size

# %% [markdown]
# Without the copy the start needs nearly no memory; the pages come with the first run. The price may be slower products
# of matrices: measure your own model.
#
# ## What a large request leaves behind
#
# Now a request of one row, then one of 4000 rows, then one row again. The layer's result for 4000 rows has 62 MiB.

# %%
requests = {"one": np.zeros((1, 4096), np.float32)}
requests["many"] = np.ones((4000, 4096), np.float32)


# %%
def run(name, session=session, how=None):
    return growth(lambda: session.run(None, {"x": requests[name]}, how))[1]


# %% tags=["remove-input"]
cu.quiz("09_memory_and_containers", 2)

# %%
kept = [run("one"), run("many"), run("one")]
assert sum(kept) > 0.8 * 62
kept

# %% [markdown]
# The large request took its memory, and the next one did not give it back. The memory belongs to the
# [arena](../glossary.md#arena): the session keeps what it has got, for the next request of that size. In a container
# the
# largest request of the day decides what the process holds.
#
# ## Give it back
#
# A [run option](https://onnxruntime.ai/docs/get-started/with-c.html) asks the session to shrink the arena after a run:

# %%
shrink = ort.RunOptions()
shrink.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
given_back = run("one", how=shrink)
assert given_back < -0.5 * 62
given_back

# %% [markdown]
# The arena is smaller again. Use it after large requests only: the next one must ask the system for memory anew. Or a
# session has no arena at all:

# %%
bare = ort.SessionOptions()
bare.intra_op_num_threads, bare.enable_cpu_mem_arena = 1, False
loose = ort.InferenceSession(file, bare, providers=cpu)
kept_loose = [run("one", loose), run("many", loose), run("one", loose)]
assert sum(kept_loose) < 0.5 * 62
kept_loose

# %% [markdown]
# Nothing stays. But *during* the large request the memory is needed in each case: only a smaller request, or a limit on
# its size, lowers the peak.
#
# ## What the container kills
#
# A process above its [limit of memory](https://docs.docker.com/engine/containers/resource_constraints/) is killed by
# the
# system with signal 9. There is no error of Python and no line in your log. The exit status tells it: 128 + 9.

# %%
import subprocess

command = ["sh", "-c", "sh -c 'kill -9 $$'; exit $?"]
killed = subprocess.run(command, check=False, capture_output=True)
killed.returncode

# %% [markdown]
# We killed that one ourselves. When a container ends with 137, look at the memory first.
#
# ## Processors
#
# A session makes as many threads as the machine has cores (one of them is the caller). Does it see that a process may
# use one processor only? We allow one in a new process, and count its threads:

# %%
import sys

script = f"""
import psutil, sys
me = psutil.Process()
if hasattr(me, "cpu_affinity"): me.cpu_affinity(me.cpu_affinity()[:1])
import onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = int(sys.argv[1])
before = me.num_threads()
session = ort.InferenceSession({file!r}, options, providers={cpu})
print(me.num_threads() - before)"""

# %%
threads = {}
for asked in ("0", "1", "4"):
    command = [sys.executable, "-c", script, asked]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    threads[asked] = int(done.stdout)
assert (threads["1"], threads["4"]) == (0, 3)
threads | {"cores": psutil.cpu_count(logical=False)}

# %% [markdown]
# 0 is the default: the number of the machine's cores counts, not what the process may use. With 1 there is no new
# thread,
# with 4 there are three beside the caller. Too many threads on too few processors wait for each other. So in a
# container
# set `options.intra_op_num_threads` to the processors that you gave it.

# %% [markdown]
# ## Recap
#
# - A session holds its weights, and the memory of its largest request. Measure both with a process of your own.
# - Use one session for all threads of a process unless requests need different options.
# - Shrink the arena after large requests, unless most requests are large. Limit the size of a request.
# - Exit status 137 means killed: most often too little memory.
# - Set the number of threads in a container: the default counts the cores of the machine.
#
# **Back:** [lesson 09](../09_troubleshooting.ipynb).
