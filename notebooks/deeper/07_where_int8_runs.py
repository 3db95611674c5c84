# %% [markdown]
# # 07 · Where int8 runs
#
# You have made an int8 file, as somebody else did for his model. His is three times as fast as float, yours is slower. Both
# files are full of integers. This page counts which part of the work a session really does in integers.
#
# You need the [core of lesson 07](../07_quantization.ipynb).
#
# After this page you will be able to
#
# - find the operators that take the time, with a profile,
# - measure how much of the work a session does in int8,
# - explain why a part of a network stays in float.

# %%
import course_utils as cu
import onnx
import onnxruntime as ort
import pandas as pd

cu.setup()

# %% [markdown]
# ## Integers without a good kernel
#
# We export and prepare the network of lesson 07, and make the dynamic file, which is slower than float.

# %%
import torch

FLOAT, DYNAMIC = "work/07_where_float.onnx", "work/07_where_dynamic.onnx"
net, example = cu.fashion_resnet(), (torch.randn(2, 1, 28, 28),)
names = {"input_names": ["image"], "output_names": ["logits"], "verbose": False}

# %%
from onnxruntime.quantization import quant_pre_process

with cu.exporter_messages():
    made = torch.onnx.export(net, example, dynamic_shapes=({0: "batch"},), **names)
quant_pre_process(made.model_proto, FLOAT)

# %%
from onnxruntime.quantization import QuantType, quantize_dynamic

quantize_dynamic(FLOAT, DYNAMIC, weight_type=QuantType.QInt8)
pictures = cu.normalize(cu.fashion_mnist("test")[0])

# %% [markdown]
# A [profile](../glossary.md#profile) says which operators take the time. ONNX Runtime
# [writes one](https://onnxruntime.ai/docs/performance/tune-performance/profiling-tools.html) when a session asks for it:

# %%
options = ort.SessionOptions()
options.enable_profiling, options.intra_op_num_threads = True, 1
options.profile_file_prefix = "work/07_where"
session = ort.InferenceSession(DYNAMIC, options)
session.run(None, {"image": pictures[:16]})
record = session.end_profiling()

# %% [markdown]
# The share of each operator:

# %%
events = pd.read_json(record)
nodes = events[events["name"].str.endswith("_kernel_time")]
spent = nodes.groupby(nodes["args"].str["op_name"].rename("operator"))["dur"].sum()
(100 * spent / spent.sum()).nlargest(3).round(1).to_frame("% of the time")

# %% [markdown]
# Nearly all of it is `ConvInteger` itself. ONNX Runtime has very fast [kernels](../glossary.md#kernel) for float
# convolutions, and only a simple one for this operator.
#
# ## How much of the work is done in int8?
#
# A static file with the types for x86:

# %%
from onnxruntime.quantization import quantize_static

STATIC = "work/07_where_static.onnx"
good = {"image": cu.normalize(cu.fashion_mnist("calibration")[0][:100])}
x86 = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
x86["per_channel"] = True
quantize_static(FLOAT, STATIC, cu.Calibration(FLOAT, good), **x86)

# %% [markdown]
# And one with the default types:

# %%
DEFAULT = "work/07_where_default.onnx"
quantize_static(FLOAT, DEFAULT, cu.Calibration(FLOAT, good))

# %% [markdown]
# A time depends on the machine. What we can count is the work: the multiplications of a layer. Each weight is used once for
# each pixel of the output.

# %%
import platform

import numpy as np

graph, work = onnx.load(FLOAT).graph, {}
shape = {v.name: v.type.tensor_type.shape.dim for v in graph.value_info}
size = {t.name: np.prod(t.dims) for t in graph.initializer}
for node in graph.node:
    if node.op_type in ("Conv", "Gemm"):
        pixels = [d.dim_value for d in shape.get(node.output[0], ())[2:]]
        work[node.input[1]] = int(size[node.input[1]] * np.prod(pixels))

# %% [markdown]
# An integer operator of the graph that runs reads the quantized weight of its layer:


# %%
def int8_share(file):
    """Per cent of the multiplications in integer operators."""
    nodes = cu.optimized(file).graph.node
    inside = [
        n for n in nodes if n.op_type in ("QLinearConv", "QGemm", "ConvInteger")
    ]
    read = {name for node in inside for name in node.input}
    done = sum(count for name, count in work.items() if f"{name}_quantized" in read)
    return round(100 * done / sum(work.values()), 1)


# %% [markdown]
# Four files:

# %%
files = {"float": FLOAT, "dynamic": DYNAMIC, "default types": DEFAULT}
files["uint8 × int8"] = STATIC
share = {way: int8_share(file) for way, file in files.items()}
share

# %% [markdown]
# These are per cent. And how fast are the files?

# %%
one = ort.SessionOptions()
one.intra_op_num_threads = 1
sessions = {way: ort.InferenceSession(file, one) for way, file in files.items()}
x = {"image": pictures[:32]}
calls = {way: lambda s=s: s.run(None, x) for way, s in sessions.items()}
table = cu.compare(calls, rounds=6, seconds=3).table[["× as fast"]]
table["work in int8, %"] = share
table.round(2)

# %% [markdown]
# Read both together. Where all work is done by *good* integer kernels, a processor with
# [VNNI](../glossary.md#simd-and-vnni) is clearly faster. Where a part stays in float, with conversions in between, there is
# little gain, or a loss. The dynamic model does its convolutions in int8 and is slow: the speed depends on the kernel, not
# on the type. `make bench` measures this on your machine.
#
# And the bytes that travel between the nodes:

# %%
nodes, moved = {}, {}
for way, file in files.items():
    graph = cu.optimized(file, "extended")
    nodes[way] = cu.op_histogram(graph)
    traffic = cu.traffic(graph, {"image": pictures[:1]})
    moved[way] = int(traffic[["reads", "writes"]].to_numpy().sum())
moved

# %% [markdown]
# A model that keeps int8 from node to node moves less than a third of the float model's bytes.

# %% tags=["hide-input"]
cu.claim(
    "int8-two-to-four-faster",
    {
        "static: more than 99 % of the work runs in integer kernels": share[
            "uint8 × int8"
        ]
        > 99,
        "and no convolution is left in float": "Conv"
        not in cu.op_histogram(cu.optimized(STATIC)),
        "less than a third of the bytes travels between nodes": 3
        * moved["uint8 × int8"]
        < moved["float"],
        "with the default types, x86 leaves a part in float": share["default types"]
        < 90
        or platform.machine() not in ("x86_64", "AMD64"),
        "the dynamic one has a kernel of another kind": "ConvInteger"
        in nodes["dynamic"],
    },
)

# %% [markdown]
# ## Why a part stays in float
#
# The optimiser of the x86 session converts int8 tensors to uint8, but not all of them. For each tensor that a
# `QuantizeLinear` writes: its type, and how many nodes read it.

# %%
X86 = platform.machine() in ("x86_64", "AMD64")
graph = cu.optimized(DEFAULT).graph
types = cu.tensor_table(cu.optimized(DEFAULT)).set_index("tensor")["dtype"]
readers = pd.Series([x for node in graph.node for x in node.input]).value_counts()

# %% [markdown]
# Count the pairs of type and readers:

# %%
to_int = [node for node in graph.node if node.op_type == "QuantizeLinear"]
tensors = [(types[node.input[2]], readers[node.output[0]]) for node in to_int]
assert not X86 or set(tensors) == {("uint8", 1), ("int8", 2)}
pd.Series(tensors, name="(type, readers)").value_counts().to_frame("tensors")

# %% [markdown]
# It skips a tensor that two nodes read, and each shortcut of a residual network is one. Which types stand before and after
# the convolutions that are left in float?

# %%
made = {name: node for node in graph.node for name in node.output}
reads = {name: node for node in graph.node for name in node.input}
left = [node for node in graph.node if node.op_type == "Conv"]

# %%
around = {(made[n.input[0]].input[2], reads[n.output[0]].input[2]) for n in left}
pairs = {(types[before], types[after]) for before, after in around}
assert not X86 or pairs == {("int8", "uint8"), ("uint8", "int8")}
pairs

# %% [markdown]
# A convolution between an int8 and a uint8 tensor fits no kernel, so it runs in float.

# %% [markdown]
# ## Recap
#
# - Count the work that is done in int8, in the graph that runs. A part in float costs more than it saves.
# - Use uint8 activations with int8 weights on x86, unless `help(quantize_static)` names other types for your processor.
# - Use the profile when a quantized file is slow: it names the operator without a good kernel.
#
# **Next:** [which file for which target](07_targets.ipynb), or back to [lesson 07](../07_quantization.ipynb).
