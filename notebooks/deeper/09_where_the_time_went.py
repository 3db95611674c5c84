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
# ## A network with a slow spot
#
# `Strongest` takes the largest number of each channel: `[N, C, H, W] → [N, C]`. Which part is slow?

# %%
import torch
from torch import nn


class Strongest(nn.Module):
    def forward(self, x):
        return x.flatten(2).sort(dim=2).values[:, :, -1]


# %% [markdown]
# It stands between two convolutions and a linear layer:


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
# We export it, and keep the notes that the [exporter](../glossary.md#exporter) writes on each
# [node](../glossary.md#node).

# %%
network, photo = Network().eval(), torch.randn(2, 3, 64, 64)
file, how = "work/09_network.onnx", {"input_names": ["image"], "verbose": False}
program = torch.onnx.export(network, (photo,), file, **how)

# %% tags=["remove-input"]
cu.quiz("09_where_the_time_went", 1)

# %% [markdown]
# ## From the profile to the node
#
# We write a [profile](https://onnxruntime.ai/docs/performance/tune-performance/profiling-tools.html) of seven runs.
# At the
# level *basic* the nodes keep their names, so each row of the profile can be found in the file.

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
# The file of the profile is JSON. The events that end in `_kernel_time` are the nodes; `dur` is in microseconds.

# %%
import pandas as pd

events = pd.read_json(record)
events = events[events["name"].str.endswith("_kernel_time")]
node = events["name"].str.removesuffix("_kernel_time")
ms = events["dur"].groupby(node).median() / 1000

# %%
ms.sort_values(ascending=False).round(3)

# %% [markdown]
# One node takes most of the time.
#
# ## From the node to the module
#
# The note `name_scopes` says from which modules a node comes, the whole model first. The slow node is a

# %%
import ast

import onnx

nodes = {n.name: n for n in onnx.load(file).graph.node}
slow = nodes[ms.idxmax()]
slow.op_type

# %% [markdown]
# What do its notes say?

# %%
notes = {note.key: note.value for note in slow.metadata_props}
scopes = ast.literal_eval(notes["pkg.torch.onnx.name_scopes"])
scopes

# %% [markdown]
# Now the same for all nodes, and the time of each module that we wrote:


# %%
def module_of(name):
    notes = {note.key: note.value for note in nodes[name].metadata_props}
    return ast.literal_eval(notes["pkg.torch.onnx.name_scopes"])[1]


per_module = ms.groupby(ms.index.map(module_of)).sum().sort_values()
per_module.round(3)

# %% [markdown]
# As a picture:

# %%
axes = per_module.plot.barh(figsize=(7, 2), color="#E69F00")
share = per_module.max() / per_module.sum()
axes.set(xlabel="milliseconds per run", ylabel="")
title = axes.set_title(
    f"{share:.0%} of the time is spent in {per_module.index[-1]}"
)
# %% [markdown]
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
# The last line is the slow one. It sorts all pixels to take the last of them, and sorting became a
# [`TopK`](https://onnx.ai/onnx/operators/onnx__TopK.html) of *all*.
#
# ## The cure
#
# The largest number can be had for less. The file is compared with the *old* network:


# %%
class Largest(nn.Module):
    def forward(self, x):
        return x.amax(dim=(2, 3))


# %% [markdown]
# We put it in, export, and put the old one back:

# %%
network.strongest = Largest()
torch.onnx.export(network, (photo,), "work/09_better.onnx", **how)
network.strongest = Strongest()

# %%
assert "TopK" not in cu.op_histogram("work/09_better.onnx")
cu.parity(network, "work/09_better.onnx", photo)

# %% [markdown]
# The numbers are the same, without `TopK`. And the time?

# %%
both = {}
for name in ("network", "better"):
    file = f"work/09_{name}.onnx"
    both[name] = ort.InferenceSession(file, providers=cpu)
feed = {"image": photo.numpy()}
running = {name: lambda s=s: s.run(None, feed) for name, s in both.items()}
cu.compare(running, rounds=8, seconds=3)

# %% [markdown]
# ## Recap
#
# - Profile at the level *basic*: the rows have the names of the file's nodes. Decide with the clock at the usual level.
# - `name_scopes` leads from a node to the module, the stack trace to the line.
# - Keep the exporter's notes in the files that you examine; take them out of those that you publish.
# - Change the line in PyTorch, export again, and compare with the old network.
#
# **Next:** [Where the numbers part](09_where_the_numbers_part.ipynb). **Back:**
# [lesson 09](../09_troubleshooting.ipynb).
