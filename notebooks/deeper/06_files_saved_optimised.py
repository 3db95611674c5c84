# %% [markdown]
# # 06 · Files saved optimised
#
# Your service starts slowly, because each new session optimises the graph again. So you save the optimised graph and load
# that. It works on your machine. On a colleague's machine, or in another runtime, the same file may be refused.
#
# You need the [core of lesson 06](../06_fusion.ipynb).
#
# After this page you will be able to
#
# - save the graph that a session runs, and load it without optimising it again,
# - say which runtime and which processor can run a saved file,
# - clean the list of imports of a file that others shall read.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## Save it once
#
# We export the trained network, and let a session write down what it is going to run. First the export:

# %%
import torch

file = "work/06_files.onnx"
torch.onnx.export(
    cu.fashion_resnet(),
    (torch.randn(2, 1, 28, 28),),
    file,
    input_names=["image"],
    dynamic_shapes=({0: torch.export.Dim("batch")},),
    external_data=False,
    verbose=False,
)
cu.op_histogram(file).to_frame().T

# %% [markdown]
# Each `Conv` that had a norm holds it already. The session options say the level and the file to write:

# %%
import onnxruntime as ort

Level, cpu = ort.GraphOptimizationLevel, ["CPUExecutionProvider"]
saving = ort.SessionOptions()
saving.graph_optimization_level = Level.ORT_ENABLE_EXTENDED
saving.optimized_model_filepath = "work/06_files_extended.onnx"
ort.InferenceSession(file, saving, providers=cpu)
cu.graph_diff(file, "work/06_files_extended.onnx").filter(like="op ", axis=0)

# %% [markdown]
# Each `Relu` behind a convolution is in a `FusedConv` now; those behind an `Add` are left. To use the file, switch all
# optimisations off: they have happened.

# %%
off = ort.SessionOptions()
off.graph_optimization_level = Level.ORT_DISABLE_ALL
ready = ort.InferenceSession("work/06_files_extended.onnx", off, providers=cpu)
ready.get_inputs()[0].shape

# %% [markdown]
# How long does a session take to create? We compare two ways: the exported file at the same level, and the saved one.

# %%
saving.optimized_model_filepath = ""  # the same level, and nothing is written
ways = {"optimise at start": (file, saving)}
ways["optimised before"] = "work/06_files_extended.onnx", off

# %%
starts = {k: lambda w=w: ort.InferenceSession(*w, cpu) for k, w in ways.items()}
cu.compare(starts, rounds=12, seconds=4)

# %% [markdown]
# Compare the two medians. Where they are close, reading the file costs most, and there is little to gain. The larger the
# model and the more there is to fuse, the more it brings.
#
# ## Who can run the file?
#
# `cu.optimized` gives us the graph of each level. Which [domains](../glossary.md#domain) of operators do its nodes need?

# %%
graphs = {k: cu.optimized(file, k) for k in ("none", "basic", "extended", "layout")}
domains = {level: {n.domain for n in g.graph.node} for level, g in graphs.items()}
{level: sorted(names) for level, names in domains.items()}

# %% [markdown]
# An empty name is the standard's own domain, `ai.onnx`. What does the checker say of these four files?

# %%
import onnx

for graph in graphs.values():
    onnx.checker.check_model(graph, full_check=True)

# %% [markdown]
# It has no objection to any of them, because it does not look into domains that it does not know. So we need another
# runtime as a witness. The [reference evaluator](https://onnx.ai/onnx/api/reference.html) of the `onnx` package runs the
# standard's operators and no others.

# %%
from onnx.reference import ReferenceEvaluator


def other_runtime(graph):
    feed = {"image": cu.normalize(cu.fashion_mnist("test")[0][:1])}
    try:
        ReferenceEvaluator(graph).run(None, feed)
        return "runs it"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:45]}"


other_runtime(graphs["none"])

# %% [markdown]
# The file as exported runs there. Now the other levels:

# %% tags=["remove-input"]
cu.quiz("06_files_saved_optimised", 1)

# %%
answers = {level: other_runtime(graph) for level, graph in graphs.items()}
answers

# %% [markdown]
# It runs the files of *none* and *basic*, and refuses those with operators of ONNX Runtime.
#
# ## What a file imports
#
# A file also has a list of the domains that it imports, with their versions:

# %%
assert answers["basic"] == "runs it" and "FusedConv" in answers["extended"]
{entry.domain or "ai.onnx": entry.version for entry in graphs["basic"].opset_import}

# %% [markdown]
# ONNX Runtime **imports** its private domains into every file that it writes, among them `com.microsoft`, even when no
# node is from them. The reference evaluator ignores that; a stricter reader may refuse the file. So take out what no node
# needs:

# %%
clean = onnx.ModelProto.FromString(graphs["basic"].SerializeToString())
needed = [entry for entry in clean.opset_import if entry.domain in domains["basic"]]
del clean.opset_import[:]
clean.opset_import.extend(needed)
{entry.domain or "ai.onnx": entry.version for entry in clean.opset_import}

# %% [markdown]
# One import is left. Does the file still run?

# %%
onnx.checker.check_model(clean, full_check=True)
assert other_runtime(clean) == "runs it"

# %% [markdown]
# It does. In a model with functions or subgraphs look at the nodes in there, too: they also have domains.
#
# ## Bound to a processor
#
# At *layout*, weights are stored in blocks of channels, and the size of a block is the width of the vectors of *this*
# processor. Can we see it? We take the weights of the first convolution from two files.


# %%
def first_weights(level):
    graph = graphs[level].graph
    node = next(n for n in graph.node if "Conv" in n.op_type)
    (tensor,) = [t for t in graph.initializer if t.name == node.input[1]]
    return onnx.numpy_helper.to_array(tensor)


usual, packed = first_weights("basic"), first_weights("layout")
usual.shape, packed.shape

# %% [markdown]
# The shape is the same. Is the order of the numbers? We put the 16 output channels into blocks, as in the drawing of the
# core, and try three sizes:

# %%
import numpy as np

fits = {}
for block in (4, 8, 16):
    blocks = usual.reshape(-1, block, *usual.shape[1:])
    fits[block] = np.array_equal(np.moveaxis(blocks, 1, -1).ravel(), packed.ravel())
assert sum(fits.values()) == ("com.microsoft.nchwc" in domains["layout"])
fits

# %% [markdown]
# The size that fits is the block of your processor. (All are false where ONNX Runtime has no nchwc kernels.) Another
# processor takes another block, and its kernels would read these weights in the wrong order. Does ONNX Runtime warn? Its
# log goes past Python, so we save in another process and listen:

# %%
import subprocess
import sys

code = """
import onnxruntime as ort
options = ort.SessionOptions()
options.optimized_model_filepath = "work/06_files_all.onnx"
ort.InferenceSession("work/06_files.onnx", options)
"""
child = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, check=True
)
print(child.stderr.decode().partition("] ")[2].replace("\x1b[m", ""))

# %% [markdown]
# It warns, because the default level is *all*.
#
# | level | where the file runs |
# |---|---|
# | basic | any runtime that has this opset, when the imports are cleaned |
# | extended | ONNX Runtime on a CPU, in a version that knows these operators |
# | layout, all | ONNX Runtime on this kind of processor |

# %% [markdown]
# ## Recap
#
# - Ship the exporter's file, unless the start is too slow: each machine then optimises for itself.
# - Save at *extended* when your own service starts slowly, and save again when you change the version of ONNX Runtime.
# - Save at *layout* or *all* only for the machine that does it.
# - For others, save at *basic*, and take out the imports that no node needs.
# - The checker does not look into private domains. Ask another runtime.
#
# **Back:** [06 · Fusion](../06_fusion.ipynb). **Next:** [Reading a profile](06_reading_a_profile.ipynb).
