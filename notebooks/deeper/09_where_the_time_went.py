# %% [markdown]
# # 09 · Where the time went
#
# A network is slower than it should be. Its slowest node is an operator that nobody wrote. Whose is it, what can stand
# in its place, and does the network compute the same then?
#
# You need the [core of lesson 09](../09_troubleshooting.ipynb), and the page
# [Reading a profile](06_reading_a_profile.ipynb).
#
# After this page you will be able to
#
# - add up a profile by the modules of a network,
# - explain an operator that the source does not name,
# - show that a cure gives the same numbers, and what it gains.

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
# We export it. Its nodes carry the notes of the [exporter](../glossary.md#exporter).

# %%
network, photo = Network().eval(), torch.randn(2, 3, 64, 64)
file, how = "work/09_network.onnx", {"input_names": ["image"], "verbose": False}
program = torch.onnx.export(network, (photo,), file, **how)

# %% [markdown]
# ## The slowest node
#
# The [profile](../glossary.md#profile) of seven runs, with the optimisations off, so that its rows have the names of the
# file's nodes:

# %%
import onnxruntime as ort

options, cpu = ort.SessionOptions(), ["CPUExecutionProvider"]
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
options.enable_profiling = True
options.profile_file_prefix = "work/09_profile"
session = ort.InferenceSession(file, options, providers=cpu)
for _ in range(7):
    session.run(None, {"image": photo.numpy()})

# %% [markdown]
# The median of the runs for each node, in milliseconds:

# %%
import pandas as pd

events = pd.read_json(session.end_profiling())
events = events[events["name"].str.endswith("_kernel_time")]
node = events["name"].str.removesuffix("_kernel_time")
ms = events["dur"].groupby(node).median() / 1000

# %% tags=["remove-input"]
cu.quiz("09_where_the_time_went", 1)

# %%
ms.sort_values(ascending=False).round(3).to_frame("ms per run")

# %% [markdown]
# One node takes most of the time. Which operator is it?

# %%
import onnx

nodes = {n.name: n for n in onnx.load(file).graph.node}
slow = nodes[ms.idxmax()]
slow.op_type

# %% [markdown]
# ## The time of each module
#
# Nobody wrote `TopK` in the network. The note `name_scopes` names the modules around a node: the whole model first,
# without a name, then a module of it. We add up the times of all nodes by that module:


# %%
import ast


def note(node, name):
    notes = {note.key: note.value for note in node.metadata_props}
    return notes[f"pkg.torch.onnx.{name}"]


module = {n: ast.literal_eval(note(nodes[n], "name_scopes"))[1] for n in ms.index}
per_module = ms.groupby(module).sum().sort_values()
per_module.round(3).to_frame("ms per run")

# %% [markdown]
# Nearly all the time is spent in `strongest`. So the other modules need no attention, however their code looks. The
# stack trace names files of your machine, too; we print its lines of code only.

# %%
trace = note(slow, "stack_trace").splitlines()
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
# - Add up the profile by module: it says where a change can pay, and where none can.
# - An operator that nobody wrote comes from a line that asks for more than it uses, such as a sort for the largest number.
# - Decide by the time at the usual level of optimisation.
# - Keep the exporter's notes in the files that you examine; [take them out](01_metadata.ipynb) of those that you publish.
# - Change the line in PyTorch, export again, and compare with the old network.
#
# **Next:** [Where the numbers part](09_where_the_numbers_part.ipynb). **Back:**
# [lesson 09](../09_troubleshooting.ipynb).
