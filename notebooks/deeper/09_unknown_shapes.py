# %% [markdown]
# # 09 · Its shapes are unknown
#
# A tool for phones refuses your file: it wants the shape of every tensor. The viewer shows none between the nodes.
# `onnx.shape_inference` was run, and some are still missing.
#
# You need the [core of lesson 09](../09_troubleshooting.ipynb).
#
# After this page you will be able to
#
# - see which shapes a file holds,
# - choose among three ways to infer them,
# - say who needs them.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## Which shapes a file holds
#
# This module joins two axes. We export it with a free batch, once with each [exporter](../glossary.md#exporter).

# %%
import torch
from torch import nn


class Join(nn.Module):
    def forward(self, x):
        return torch.relu(x.reshape(x.shape[0], x.shape[1] * x.shape[2])) + 1


# %% [markdown]
# An example, and names for input and output:

# %%
block, names = torch.randn(2, 3, 4), {"input_names": ["x"], "output_names": ["y"]}

# %% [markdown]
# The default exporter first:

# %%
batch = torch.export.Dim("batch")
file, free = "work/09_join_default.onnx", {"dynamic_shapes": ({0: batch},)}
join = Join().eval()
program = torch.onnx.export(join, (block,), file, verbose=False, **names, **free)

# %% [markdown]
# The older one:

# %%
older = {"dynamo": False, "dynamic_axes": {"x": {0: "batch"}}}
file = "work/09_join_older.onnx"
with cu.exporter_messages():
    torch.onnx.export(Join().eval(), (block,), file, **older, **names)

# %% [markdown]
# Which tensors do the files describe, besides input and weights?

# %%
import onnx
import pandas as pd

files = {way: onnx.load(f"work/09_join_{way}.onnx") for way in ("older", "default")}
described = {way: cu.tensor_table(file) for way, file in files.items()}

# %%
for way, table in described.items():
    described[way] = table[table["role"].isin(["intermediate", "output"])]
pd.concat(described).droplevel(1)[["tensor", "dtype", "shape"]]

# %% [markdown]
# The default exporter writes all shapes, in [value info](../glossary.md#value-info). The older one writes the output
# only,
# with names invented for its sizes. Its graph *computes* the new shape, with `Shape`, `Gather` and `Mul`:

# %%
cu.op_histogram(files["older"]).to_frame().T

# %% [markdown]
# ## Three ways to infer them
#
# The report's cure is [`onnx.shape_inference`](https://onnx.ai/onnx/api/shape_inference.html). It goes from node to
# node
# and works out the shape of each result ([shape inference](../glossary.md#shape-inference)). So that both files begin
# alike, we take all shapes out first.

# %%
from onnx.shape_inference import infer_shapes


def bare(file):
    copy = onnx.ModelProto.FromString(file.SerializeToString())
    del copy.graph.value_info[:]
    copy.graph.output[0].type.tensor_type.ClearField("shape")
    return copy


# %%
inferred = infer_shapes(bare(files["older"]))
cu.written_shapes(inferred)["y"]

# %% [markdown]
# `unk__0` is a size that onnx could not tell. With `data_prop=True` it also follows the *values* of small integer
# tensors:

# %%
inferred = infer_shapes(bare(files["older"]), data_prop=True)
cu.written_shapes(inferred)["y"]

# %% [markdown]
# ONNX Runtime brings a third way, *symbolic* inference, which computes with names such as `batch`, as in algebra:

# %%
from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference

symbolic = SymbolicShapeInference.infer_shapes
inferred = symbolic(bare(files["older"]), auto_merge=True)
cu.written_shapes(inferred)["y"]

# %% [markdown]
# Which way finds the shape in which file?

# %%
ways = {
    "infer_shapes": infer_shapes,
    "with data_prop": lambda file: infer_shapes(file, data_prop=True),
    "symbolic": lambda file: symbolic(file, auto_merge=True),
}

# %% [markdown]
# Each way for each file:

# %%
result = pd.DataFrame(columns=list(files), index=list(ways))
for name, file in files.items():
    for way, infer in ways.items():
        result.loc[way, name] = cu.written_shapes(infer(bare(file)))["y"]
result

# %% [markdown]
# `data_prop` finds everything in the older exporter's graph. In the other graph it does not, although that one is
# simpler: the first size stands there as -1, *work it out*, and that needs algebra.
#
# ## Who needs them?
#
# The report says that ONNX Runtime cannot plan its memory without shapes. We give it the file that has none:

# %% tags=["remove-input"]
cu.quiz("09_unknown_shapes", 1)

# %%
import numpy as np
import onnxruntime as ort

shapeless = bare(files["older"]).SerializeToString()
session = ort.InferenceSession(shapeless, providers=["CPUExecutionProvider"])

# %%
own, whole = session.get_outputs()[0].shape, str(["batch", 12])
(y,) = session.run(None, {"x": block.numpy()})
same = np.array_equal(y, Join()(block).numpy())
own, same

# %% [markdown]
# A [session](../glossary.md#session) infers the shapes itself when it is created: it knows the output's shape, although
# the file did not say it. So shapes in the file are for *other* tools: viewers, quantizers, compilers for phones.

# %% tags=["hide-input"]
cu.claim(
    "unknown-shapes",
    {
        "the older exporter writes no shapes between the nodes": len(
            described["older"]
        )
        == 1,
        "the default exporter writes them": list(described["default"]["shape"])
        == 3 * [whole],
        "infer_shapes does not find what the graph computes": result["older"][
            "infer_shapes"
        ]
        != whole,
        "with data_prop it does": result["older"]["with data_prop"] == whole,
        "not so in the default exporter's graph": result["default"][
            "with data_prop"
        ]
        != whole,
        "there symbolic inference helps": result["default"]["symbolic"] == whole,
        "a session finds the size itself": own == ["batch", 12] and same,
    },
)

# %% [markdown]
# ## Recap
#
# - `cu.tensor_table` shows which shapes a file holds. The default exporter writes all of them.
# - Use `infer_shapes(model, data_prop=True)` unless it leaves a size open, as at a `Reshape` that
#   says -1 for a free size; then use the symbolic inference.
# - A session of ONNX Runtime infers shapes itself. Other tools may need them in the file.
#
# **Now you:** case 9.13 of the [hospital](../exercises/09_troubleshooting.ipynb). **Next:**
# [Where the time went](09_where_the_time_went.ipynb).
