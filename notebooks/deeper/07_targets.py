# %% [markdown]
# # 07 · Which file for which target
#
# Your model must run in int8 on a server, on a phone and on a GPU. You make one file, and on the second machine half of it
# runs in float without a message. Each target wants its own types. This page makes one file for each.
#
# You need the [core of lesson 07](../07_quantization.ipynb). What needs an ARM processor, a GPU or an NPU was **not run
# here**: the files were made, and run on this CPU.
#
# After this page you will be able to
#
# - choose types and range of a quantized file for its target,
# - check in the file that it is what the target asks for,
# - choose between the forms QDQ and QOperator.

# %%
import course_utils as cu
import onnx
import pandas as pd

cu.setup()

# %% [markdown]
# ## What the tool advises
#
# We take the network of lesson 07.

# %%
import torch

FLOAT = "work/07_targets_float.onnx"
net, example = cu.fashion_resnet(), (torch.randn(2, 1, 28, 28),)
names = {"input_names": ["image"], "output_names": ["logits"], "verbose": False}

# %% [markdown]
# Now the export, and the preparation of lesson 07:

# %%
from onnxruntime.quantization import QuantType, quant_pre_process, quantize_static

with cu.exporter_messages():
    made = torch.onnx.export(net, example, dynamic_shapes=({0: "batch"},), **names)
quant_pre_process(made.model_proto, FLOAT)

# %% [markdown]
# The help of the tool names types for CPUs and GPUs:

# %%
import inspect

paragraphs = inspect.getdoc(quantize_static).split("\n\n")
wanted = [p for p in paragraphs if p.startswith(("- x86", "- ARM")) or "TRT" in p]
print("\n".join(wanted))

# %% [markdown]
# | target | activations | weights | settings | run there? |
# |---|---|---|---|---|
# | x86 with [VNNI](../glossary.md#simd-and-vnni) | uint8 | int8 | – | yes, if this machine is one |
# | x86 without VNNI | uint8 | int8 | `reduce_range=True` | no |
# | ARM CPU | int8 | int8 | – | no |
# | GPU with [TensorRT](https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html) | int8, symmetric | int8, symmetric | `ActivationSymmetric` | no |
# | [NPU](../glossary.md#npu) with [QNN](https://onnxruntime.ai/docs/execution-providers/QNN-ExecutionProvider.html) | uint8 or uint16 | uint8 | fixed shapes, `get_qnn_qdq_config` | no |
#
# ## One file for each target
#
# First x86 with VNNI:

# %%
X86 = "work/07_targets_x86.onnx"
good = {"image": cu.normalize(cu.fashion_mnist("calibration")[0][:100])}
types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
quantize_static(FLOAT, X86, cu.Calibration(FLOAT, good), per_channel=True, **types)

# %% [markdown]
# Without VNNI, weights get 7 bits. Such processors add two products in 16 bits, where the largest number is 32 767. With
# weights of 8 bits the sum can be 2 × 255 × 127 = 64 770, and is cut off. With 7 bits it is at most 2 × 255 × 64 = 32 640.

# %%
OLD = "work/07_targets_old_x86.onnx"
how = types | {"per_channel": True, "reduce_range": True}
quantize_static(FLOAT, OLD, cu.Calibration(FLOAT, good), **how)

# %% [markdown]
# Is it so in the file? The largest absolute value of each quantized weight:

# %%
tensors = onnx.load(OLD).graph.initializer
tensors = [t for t in tensors if t.name.endswith("weight_quantized")]
largest = [abs(onnx.numpy_helper.to_array(t).astype(int)).max() for t in tensors]
assert max(largest) <= 64

# %% [markdown]
# Then ARM, with the default types, and the GPU, with symmetric activations, too:

# %%
ARM, GPU = "work/07_targets_arm.onnx", "work/07_targets_gpu.onnx"
quantize_static(FLOAT, ARM, cu.Calibration(FLOAT, good), per_channel=True)
even = {"extra_options": {"ActivationSymmetric": True}, "per_channel": True}
quantize_static(FLOAT, GPU, cu.Calibration(FLOAT, good), **even)

# %% [markdown]
# TensorRT demands that all zero points are 0:

# %%
tensors = [t for t in onnx.load(GPU).graph.initializer if "zero_point" in t.name]
zeros = [onnx.numpy_helper.to_array(tensor) for tensor in tensors]
assert not any(zero.any() for zero in zeros)
len(zeros)

# %% [markdown]
# They are, in so many tensors. Now all four files on **this** CPU: how many of the 15 convolutions run in int8, and the
# accuracy on 1000 images.

# %%
images, labels = cu.fashion_mnist("test")
feed, table = {"image": cu.normalize(images[:1000])}, {}
for file in (X86, OLD, ARM, GPU):
    runs = cu.op_histogram(cu.optimized(file))
    answers = cu.run_in_batches(file, feed, 500)["logits"].argmax(1)
    right = 100 * float((answers == labels[:1000]).mean())
    count = runs.get("com.microsoft::QLinearConv", 0)
    table[file] = {"convolutions in int8": count, "accuracy, %": right}
pd.DataFrame.from_dict(table, "index")

# %% [markdown]
# All four are right, and their accuracy is alike. But on an x86 processor, the files for the other targets leave a part of
# the network in float. So keep the float model, and make one file for each target. Test on the device.
#
# ## Two forms: QDQ and QOperator
#
# All these files are [QDQ](../glossary.md#qdq-and-qoperator): standard operators, from which each runtime makes what its
# hardware can do. The other form writes the integer operators into the file.

# %%
from onnxruntime.quantization import QuantFormat

QOP = "work/07_targets_qoperator.onnx"
how = types | {"quant_format": QuantFormat.QOperator, "per_channel": True}
quantize_static(FLOAT, QOP, cu.Calibration(FLOAT, good), **how)

# %% [markdown]
# The operators in both files, and those that run:

# %%
columns = {}
for form, file in {"QDQ": X86, "QOperator": QOP}.items():
    columns[f"{form}, file"] = cu.op_histogram(file)
    columns[f"{form}, runs"] = cu.op_histogram(cu.optimized(file))
forms = pd.DataFrame(columns).fillna(0).astype(int)
assert (forms["QDQ, runs"] == forms["QOperator, runs"]).all()
forms.replace(0, "")

# %% [markdown]
# What runs is the same here. The help prefers QDQ strongly, also for CPUs. QOperator makes a slightly smaller file, which
# only a runtime with operators like `QGemm` can read.

# %% [markdown]
# ## Recap
#
# - Use uint8 activations with int8 weights on x86, with `reduce_range=True` where VNNI is missing.
# - Use int8 with int8 on ARM, symmetric int8 for TensorRT, and QNN's own configuration for a Qualcomm NPU.
# - Keep the float model, and make one file per target. Test it on the device.
# - Use QDQ, unless the last few kilobytes count and the target is ONNX Runtime on a CPU.
#
# **Now you:** task 7.6 of the [exercises](../exercises/07_quantization.ipynb).
# **Next:** back to [lesson 07](../07_quantization.ipynb), or on to [lesson 08](../08_deployment.ipynb).
