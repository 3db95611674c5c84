# %% [markdown]
# # 06 · Reading a profile
#
# Your model is too slow for its task. Which part takes the time: Python, one operator, or all of them together? And how
# much can you gain at most, before you change anything? A profile answers most of this.
#
# You need the [core of lesson 06](../06_fusion.ipynb).
#
# After this page you will be able to
#
# - say what one call of a session costs besides its nodes,
# - write a profile, and add up its times by operator,
# - name the slowest node, and the line of PyTorch that it comes from.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## What no profile shows: the way to the nodes
#
# The report says that conversion alone often makes a model faster, because the runtime has no Python overhead. To test
# *conversion alone*, we export a model and switch the optimisations of the runtime off.

# %%
import onnx
import torch

model = cu.fashion_resnet().requires_grad_(False)
x, file = (torch.randn(2, 1, 28, 28),), "work/06_profile.onnx"
free = {"dynamic_shapes": ({0: torch.export.Dim("batch")},), "external_data": False}
torch.onnx.export(model, x, file, input_names=["image"], verbose=False, **free)
graph = onnx.load(file).graph
len(graph.node)

# %% [markdown]
# The file has so many nodes. This session runs them as they are:

# %%
import onnxruntime as ort

options, cpu = ort.SessionOptions(), ["CPUExecutionProvider"]
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
options.intra_op_num_threads = 1
plain = ort.InferenceSession(file, options, providers=cpu)

# %% [markdown]
# How much Python is there in one prediction? `sys.setprofile` calls us for every function call. We count the calls for
# one picture, in PyTorch and in ONNX Runtime.

# %%
images = cu.normalize(cu.fashion_mnist("test")[0][:64])
one, many = images[:1], images
runs = {
    "PyTorch": lambda x: model(torch.from_numpy(x)).numpy(),
    "ONNX Runtime": lambda x: plain.run(None, {"image": x})[0],
}

# %% tags=["remove-input"]
cu.quiz("06_reading_a_profile", 1)

# %%
import sys

calls = dict.fromkeys(runs, 0)
for name, run in runs.items():
    run(one)  # the first call prepares this and that
    events = []
    sys.setprofile(lambda frame, event, argument, to=events: to.append(event))
    run(one)
    sys.setprofile(None)
    calls[name] = events.count("call") + events.count("c_call")
calls

# %% [markdown]
# Each layer of the PyTorch model is a Python object with a `forward`. A session is one call that goes into C++ and comes
# back with the result. Next: how many operators does each of them start? In PyTorch, a *dispatch mode* sees them all
# ([dispatch](../glossary.md#dispatch)).

# %%
from torch.utils._python_dispatch import TorchDispatchMode


class Count(TorchDispatchMode):
    started = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.started += 1
        return function(*args, **(kwargs or {}))


with Count() as counter:
    runs["PyTorch"](one)
{"started by PyTorch": counter.started, "nodes in the file": len(graph.node)}

# %% [markdown]
# The file has fewer, because the exporter has folded BatchNorm. Now the time for one picture. All optimisations are
# still off.

# %%
cu.compare({k: lambda run=run: run(one) for k, run in runs.items()}, threads=1)

# %% [markdown]
# And for 64 pictures. We also compare the numbers:

# %%
import numpy as np

same = np.allclose(runs["ONNX Runtime"](many), runs["PyTorch"](many), atol=1e-4)
cu.compare({k: lambda run=run: run(many) for k, run in runs.items()}, threads=1)

# %% [markdown]
# With one picture there is little to compute, and the overhead counts. With 64, the [kernels](../glossary.md#kernel)
# decide: without its optimisations, ONNX Runtime may gain little there, or may even lose. So *often* is the right word.
# The evidence is what we counted: a time is shown, never asserted.

# %% tags=["hide-input"]
cu.claim(
    "conversion-alone-is-faster",
    {
        "with all optimisations off, the file gives PyTorch's numbers": same,
        "PyTorch makes more than 100 Python calls for one picture": calls["PyTorch"]
        > 100,
        "the runtime makes less than a fifth of them": calls["ONNX Runtime"]
        < calls["PyTorch"] / 5,
        "it starts fewer operators than PyTorch": len(graph.node) < counter.started,
    },
)

# %% [markdown]
# ## Write a profile
#
# Where does the time inside the session go?
# [`enable_profiling`](https://onnxruntime.ai/docs/performance/tune-performance/profiling-tools.html) writes each node of
# each run into a JSON file, the [profile](../glossary.md#profile). The session writes it when profiling ends. The events
# that end in `_kernel_time` are the nodes.


# %%
import pandas as pd

options.enable_profiling = True
options.profile_file_prefix = "work/06_profile"


def profiled(level):
    options.graph_optimization_level = level
    watched = ort.InferenceSession(file, options, providers=cpu)
    for _ in range(7):
        watched.run(None, {"image": many})
    events = pd.read_json(watched.end_profiling())
    events = events[events["name"].str.endswith("_kernel_time")]
    return events.assign(operator=events["args"].str["op_name"])


# %%
events = profiled(ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
events[["name", "operator", "ts", "dur"]].head(3)

# %% [markdown]
# `ts` is when a node began and `dur` how long it took, in microseconds. The operator comes from the column `args`, which
# also holds the shapes and the provider. One run may be disturbed, so we take the median of the runs for each node:

# %%
per_node = events.groupby(["operator", "name"])["dur"].median() / 1000
by_operator = per_node.groupby("operator").sum().sort_values(ascending=False)
by_operator.round(2).to_frame("ms")

# %% [markdown]
# Read it from the top. As long as `Conv` takes most of the time, all other nodes together cannot save more than the rest.
# How much is that?

# %%
rest = 1 - by_operator["Conv"] / by_operator.sum()
f"Without all other nodes, a run would take {rest:.0%} less."

# %% [markdown]
# That is the most that fusion can bring here, unless it also brings a better `Conv`.
#
# ## From the node to the line
#
# Which node is the slowest?

# %%
slowest = per_node.idxmax()[1].removesuffix("_kernel_time")
slowest, round(float(per_node.max()), 2)

# %% [markdown]
# With all optimisations off, the profile has the names of the file. The default exporter has left notes on each node.
# They name the PyTorch module:

# %%
(node,) = [node for node in graph.node if node.name == slowest]
notes = {note.key: note.value for note in node.metadata_props}
notes["pkg.torch.onnx.name_scopes"]

# %% [markdown]
# Read it from left to right: model, stage, block, layer, operation. The layer may be a norm: where the exporter folded
# one, the new node has the notes of the norm. Another note holds the stack of Python: file, line
# and function. Here is its last entry:

# %%
trace = notes["pkg.torch.onnx.stack_trace"].split("File ")
print(trace[-1].split("/")[-1])

# %% [markdown]
# After optimisation, one node may stand for several, and its notes may be gone. Then `cu.origins` of the core tells where
# it comes from. So profile twice: with all optimisations off to find the line, with the default to know the time.
#
# The same by operator, with the default level:

# %%
events = profiled(ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
per_node = events.groupby(["operator", "name"])["dur"].median() / 1000
per_run = per_node.groupby("operator").sum()
per_run.sort_values(ascending=False).round(2).to_frame("ms")

# %% [markdown]
# `Relu` and `Add` are gone: they are inside `Conv`. At this level the operator is called `Conv` again, but it is the one
# for nchwc blocks, where your processor has it.
#
# What to do with a line that is slow is another subject: see [where the time went](09_where_the_time_went.ipynb).

# %% [markdown]
# ## Recap
#
# - A session makes a dozen Python calls per run, PyTorch hundreds. That counts most for small inputs.
# - Add up a profile by operator before you change anything: the rest beside the largest one is the most you can gain.
# - Use the median of several runs, unless you look for the one slow run.
# - Profile without optimisations to find the module and the line, with them to know the time.
#
# **Now you:** task 6.6 of the [exercises](../exercises/06_fusion.ipynb).
#
# **Back:** [06 · Fusion](../06_fusion.ipynb). **Next:** [07 · Quantization](../07_quantization.ipynb).
