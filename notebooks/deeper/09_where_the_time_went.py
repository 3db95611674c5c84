# %% [markdown]
# # 09 · Where the time went
#
# A network is slower than it should be. The calls are few, and there is no loop. Which line of the PyTorch code costs
# the time?
#
# You need the [core of lesson 09](../09_troubleshooting.ipynb), and from [lesson 06](../06_fusion.ipynb) the levels of
# optimisation.
#
# After this page you will be able to
#
# - write a profile whose rows can be found in the file,
# - go from a node to the module, and to the line of code,
# - show that a cure gives the same numbers.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## The network
#
# `Strongest` takes the largest number of each channel: `[N, C, H, W] → [N, C]`.

# %%
import torch
from torch import nn


class Strongest(nn.Module):
    def forward(self, x):
        return x.flatten(2).sort(dim=2).values[:, :, -1]


# %% [markdown]
# It comes after two convolutions, and a linear layer follows:


# %%
class Network(nn.Module):
    def __init__(self):
        super().__init__()
        pair = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
        self.features = nn.Sequential(pair[0], nn.ReLU(), pair[1])
        self.strongest, self.head = Strongest(), nn.Linear(32, 10)

    def forward(self, x):
        return self.head(self.strongest(self.features(x)))


# %% [markdown]
# We export it. The [exporter](../glossary.md#exporter) writes notes on each [node](../glossary.md#node), its
# [metadata](../glossary.md#metadata). We shall need them.

# %%
network, photo = Network().eval(), torch.randn(2, 3, 64, 64)
file, how = "work/09_network.onnx", {"input_names": ["image"], "verbose": False}
program = torch.onnx.export(network, (photo,), file, **how)

# %% [markdown]
# ## From the profile to the node
#
# We write a [profile](https://onnxruntime.ai/docs/performance/tune-performance/profiling-tools.html) of seven runs. At
# the level *basic* the nodes that stay keep their names, so each row of the profile can be found in the file.

# %%
import onnxruntime as ort

options, cpu = ort.SessionOptions(), ["CPUExecutionProvider"]
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
options.enable_profiling = True
options.profile_file_prefix = "work/09_profile"

# %% [markdown]
# The session writes its file when profiling ends:

# %%
session = ort.InferenceSession(file, options, providers=cpu)
for _ in range(7):
    session.run(None, {"image": photo.numpy()})
record = session.end_profiling()

# %% [markdown]
# The file of the profile is JSON. The events that end in `_kernel_time` are the nodes; `dur` is in microseconds. We take
# the median of the runs for each node, in milliseconds.

# %%
import pandas as pd

events = pd.read_json(record)
events = events[events["name"].str.endswith("_kernel_time")]
node = events["name"].str.removesuffix("_kernel_time")
ms = events["dur"].groupby(node).median() / 1000

# %% tags=["remove-input"]
cu.quiz("09_where_the_time_went", 1)

# %%
ms.sort_values(ascending=False).round(3).to_frame("ms per run")

# %% [markdown]
# One node takes most of the time.
#
# ## From the node to the module
#
# We look for that node in the file. Which operator is it?

# %%
import ast

import onnx

nodes = {n.name: n for n in onnx.load(file).graph.node}
slow = nodes[ms.idxmax()]
slow.op_type

# %% [markdown]
# Nobody wrote `TopK` in the network. The note `name_scopes` says from which modules a node comes:

# %%
notes = {note.key: note.value for note in slow.metadata_props}
scopes = ast.literal_eval(notes["pkg.torch.onnx.name_scopes"])
scopes

# %% [markdown]
# The whole model stands first, without a name, then the module `strongest`, then the call in it. We do the same for all
# nodes, and add up the time of each module:


# %%
def module_of(name):
    notes = {note.key: note.value for note in nodes[name].metadata_props}
    return ast.literal_eval(notes["pkg.torch.onnx.name_scopes"])[1]


per_module = ms.groupby(ms.index.map(module_of)).sum().sort_values()
per_module.round(3).to_frame("ms per run")

# %% [markdown]
# Nearly all the time is spent in `strongest`.
#
# ## From the node to the line
#
# Another note, the *stack trace*, leads to the line. It also names files of your machine; we print its lines of code
# only.

# %%
trace = notes["pkg.torch.onnx.stack_trace"].splitlines()
code = [line.strip() for line in trace if line.startswith("    ")]
assert slow.op_type == "TopK" and "sort" in code[-1]
print(*code, sep="\n")

# %% [markdown]
# The last line is the slow one. It sorts all numbers of a channel, to take one of them. The exporter writes sorting as
# [`TopK`](https://onnx.ai/onnx/operators/onnx__TopK.html) with all numbers as the top.
#
# ## The cure
#
# The largest number can be found without sorting:


# %%
class Largest(nn.Module):
    def forward(self, x):
        return x.amax(dim=(2, 3))


# %% [markdown]
# We put it in, export, and put the old one back, so that we can compare the new file with the *old* network:

# %%
network.strongest = Largest()
torch.onnx.export(network, (photo,), "work/09_better.onnx", **how)
network.strongest = Strongest()

# %%
assert "TopK" not in cu.op_histogram("work/09_better.onnx")
cu.parity(network, "work/09_better.onnx", photo)

# %% [markdown]
# The numbers are the same, without `TopK`. Now the time of both files, at the usual level of optimisation:

# %%
both = {}
for name in ("network", "better"):
    both[name] = ort.InferenceSession(f"work/09_{name}.onnx", providers=cpu)
feed = {"image": photo.numpy()}
running = {name: lambda s=s: s.run(None, feed) for name, s in both.items()}
cu.compare(running, rounds=8, seconds=3)

# %% [markdown]
# ## Recap
#
# - Profile at the level *basic*: the rows have the names of the file's nodes. Decide by the time at the usual level.
# - `name_scopes` leads from a node to the module, the stack trace to the line.
# - Keep the exporter's notes in the files that you examine; [take them out](01_metadata.ipynb) of those that you publish.
# - Change the line in PyTorch, export again, and compare with the old network.
#
# **Next:** [Where the numbers part](09_where_the_numbers_part.ipynb). **Back:**
# [lesson 09](../09_troubleshooting.ipynb).
