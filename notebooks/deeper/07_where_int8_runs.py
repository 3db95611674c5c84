# %% [markdown]
# # 07 · Where int8 runs
#
# Your int8 model must run on a server, on a phone and on a GPU. On the first machine it is fast. On the second, half of it
# runs in float, and nobody notices. Each target wants its own types. This page shows how to see what runs in int8, and
# which file to make for which target.
#
# You need lesson 07. What needs an ARM processor, a GPU or an NPU was **not run here**.
#
# After this page you will be able to
#
# - measure how much of the work a session does in integers,
# - choose types, range and form of a quantized file for its target,
# - explain why a file full of integers can be slow.

# %%
import course_utils as cu
import onnx
import onnxruntime as ort
import pandas as pd

cu.setup()

# %% [markdown]
# ## Integers without a good kernel
#
# We export and prepare the network of lesson 07.

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

# %% [markdown]
# First the dynamic file, which is slower than float.

# %%
from onnxruntime.quantization import QuantType, quantize_dynamic

quantize_dynamic(FLOAT, DYNAMIC, weight_type=QuantType.QInt8)
pictures = cu.normalize(cu.fashion_mnist("test")[0])

# %% [markdown]
# A [profile](../glossary.md#profile) says which operators take the time:

# %%
options = ort.SessionOptions()
options.enable_profiling, options.intra_op_num_threads = True, 1
options.profile_file_prefix = "work/07_where"
session = ort.InferenceSession(DYNAMIC, options)
session.run(None, {"image": pictures[:16]})
record = session.end_profiling()

# %%
events = pd.read_json(record)
nodes = events[events["name"].str.endswith("_kernel_time")]
spent = nodes.groupby(nodes["args"].str["op_name"])["dur"].sum()
(100 * spent / spent.sum()).nlargest(3).round(1).to_frame("% of the time")

# %% [markdown]
# Nearly all of it is `ConvInteger` itself. ONNX Runtime has very fast [kernels](../glossary.md#kernel) for float
# convolutions, and only a simple one for this operator.
#
# ## How much of the work is done in int8?
#
# Two static files: one with the types for x86, one with the default types.

# %%
from onnxruntime.quantization import quantize_static

STATIC = "work/07_where_static.onnx"
good = {"image": cu.normalize(cu.fashion_mnist("calibration")[0][:100])}
x86 = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
x86["per_channel"] = True
quantize_static(FLOAT, STATIC, cu.Calibration(FLOAT, good), **x86)

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
    return 100 * done / sum(work.values())


# %%
files = {"float": FLOAT, "dynamic": DYNAMIC, "default types": DEFAULT}
files["uint8 × int8"] = STATIC
share = {way: int8_share(file) for way, file in files.items()}

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

# %%
to_int = [node for node in graph.node if node.op_type == "QuantizeLinear"]
tensors = [(types[node.input[2]], readers[node.output[0]]) for node in to_int]
assert not X86 or set(tensors) == {("uint8", 1), ("int8", 2)}
pd.Series(tensors, name="(type, readers)").value_counts().to_frame("tensors")

# %% [markdown]
# It skips a tensor that two nodes read, and each shortcut of a residual network is one. A convolution between an int8 and a
# uint8 tensor fits no kernel, so it runs in float.
#
# ## Which file for which target
#
# The tool's help says it for CPUs and GPUs:

# %%
import inspect

parts = inspect.getdoc(quantize_static).split("\n\n")
print(
    "\n".join(part for part in parts if part.startswith("- x86") or "TRT" in part)
)

# %% [markdown]
# | target | activations | weights | settings | run here? |
# |---|---|---|---|---|
# | x86 with VNNI | uint8 | int8 | – | yes, where this processor has it |
# | x86 without VNNI | uint8 | int8 | `reduce_range=True` | the file |
# | ARM CPU | int8 | int8 | – | no |
# | NVIDIA GPU, [TensorRT](https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html) | int8, symmetric | int8, symmetric | `ActivationSymmetric` | the file |
# | Qualcomm NPU, [QNN](https://onnxruntime.ai/docs/execution-providers/QNN-ExecutionProvider.html) | uint8 or uint16 | uint8 | fixed shapes, `get_qnn_qdq_config` | no |
#
# Why 7 bits without VNNI? Such processors add two products in 16 bits, where the largest number is 32 767. With weights of
# 8 bits the sum can be 2 × 255 × 127 = 64 770, and is cut off. With 7 bits it is at most 2 × 255 × 63 = 32 130.
#
# Now the file for a GPU: symmetric on both sides.

# %%
GPU = "work/07_where_gpu.onnx"
how = {"extra_options": {"ActivationSymmetric": True}, "per_channel": True}
quantize_static(FLOAT, GPU, cu.Calibration(FLOAT, good), **how)

# %%
stored = {t.name: t for t in onnx.load(GPU).graph.initializer}
zeros = [onnx.numpy_helper.to_array(stored[n]) for n in stored if "zero_point" in n]
assert not np.any(np.concatenate([zero.ravel() for zero in zeros]))
int8_share(GPU)

# %% [markdown]
# All zero points are 0, as TensorRT asks. On this CPU, the number is the per cent of the work that runs in int8: the file
# for one target is not the file for another. Keep the float model, and make one file for each target.
#
# ## Two forms: QDQ and QOperator
#
# All these files are [QDQ](../glossary.md#qdq-and-qoperator): standard operators, from which each runtime makes what its
# hardware can do. The other form writes the integer operators into the file.

# %%
from onnxruntime.quantization import QuantFormat

QOP = "work/07_where_qoperator.onnx"
form = {"quant_format": QuantFormat.QOperator}
quantize_static(FLOAT, QOP, cu.Calibration(FLOAT, good), **x86, **form)

# %%
both = {"QDQ": STATIC, "QOperator": QOP}
columns = {f"{form}, file": cu.op_histogram(file) for form, file in both.items()}
for form, file in both.items():
    columns[f"{form}, runs"] = cu.op_histogram(cu.optimized(file))
forms = pd.DataFrame(columns).fillna(0).astype(int)
assert (forms["QDQ, runs"] == forms["QOperator, runs"]).all()
forms.replace(0, "")

# %% [markdown]
# What runs is the same here. The help prefers QDQ strongly, also for CPUs. QOperator makes a slightly smaller file, which
# only a runtime with operators like `QGemm` can read.
#
# ## Recap
#
# - Count the work in int8 in the graph that runs; a part in float costs more than it saves.
# - Use uint8 activations with int8 weights on x86, and int8 with int8 on ARM.
# - Use symmetric int8 for TensorRT, and QNN's own configuration for a Qualcomm NPU. Test on the device.
# - Keep the float model, and make one file per target.
# - Use QDQ, unless the last few kilobytes count and the target is ONNX Runtime on a CPU.
#
# **Next:** back to [lesson 07](../07_quantization.ipynb), or on to [lesson 08](../08_deployment.ipynb).
