# %% [markdown]
# # 07 · Scales, bit for bit
#
# You quantize a number in C++, in a test or in a browser, and the result must be the one of ONNX Runtime. Nearly the same
# is not enough: one integer more or less is another model. This page compares our formula with the runtime, bit for bit,
# and with what a quantized file stores.
#
# You need the [core of lesson 07](../07_quantization.ipynb).
#
# After this page you will be able to
#
# - quantize and dequantize as ONNX Runtime does, for uint8 and int8, with one scale or one per channel,
# - choose between a symmetric and an asymmetric range by the error that is left,
# - check the integers, and the scale of a bias, in a quantized file.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## The formula as two functions
#
# Divide by the scale, round to the nearest integer, a half to the even one, add the zero point, cut off. The computation
# is in float32, as in the runtime.

# %%
import numpy as np


def quantize(real, scale, zero_point, dtype):
    """Floats → integers of dtype."""
    steps = np.rint(real / scale) + np.float32(zero_point)
    limits = np.iinfo(dtype)
    return np.clip(steps, limits.min, limits.max).astype(dtype)


def dequantize(integers, scale, zero_point):
    """Integers → float32."""
    return scale * (integers.astype(np.int32) - zero_point).astype(np.float32)


# %% [markdown]
# ## The same bits
#
# One graph with [`QuantizeLinear`](https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html) and
# [`DequantizeLinear`](https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html). `[]` leaves the shapes open: the scale
# may be one number, or a vector along the axis 0.

# %%
import onnx
import onnxruntime as ort

text = """<ir_version: 10, opset_import: ["": 21]>
both (float[] x, float[] s, uint8[] z) => (uint8[] q, float[] y) {
    q = QuantizeLinear <axis = 0> (x, s, z)
    y = DequantizeLinear <axis = 0> (q, s, z)
}"""

# %% [markdown]
# Now numbers that are hard to round: 200 scales, and for each of them 500 numbers. Of these, 40 lie half-way between two
# integers, two are infinite, and many are out of range.

# %%
steps = np.random.default_rng(0).normal(size=(200, 500)) * 150
steps[:, :42] = [*np.arange(-19.5, 20.5), np.inf, -np.inf]
scales = np.linspace(0.001, 2, 200, dtype="float32")
hard = steps.astype("float32") * scales[:, None]

# %% [markdown]
# To compare bits, we look at the floats as if they were integers: `view` does not convert.


# %%
def different_bits(run, x, scale, zero):
    """How many results of ONNX Runtime are not ours, bit for bit."""
    q, y = run(None, {"x": x, "s": scale, "z": zero})
    mine = quantize(x.T, scale, zero, q.dtype)
    ours = dequantize(mine, scale, zero).T
    return int((q != mine.T).sum() + (y.view("int32") != ours.view("int32")).sum())


# %% [markdown]
# Each row alone with its scale, then all rows at once as 200 channels:

# %%
different = {}
for dtype in ("uint8", "int8"):
    model = onnx.parser.parse_model(text.replace("uint8", dtype))
    run = ort.InferenceSession(model.SerializeToString()).run
    limits = np.iinfo(dtype)
    zeros = np.linspace(limits.min, limits.max, 200).astype(dtype)
    rows = [(hard[i], scales[i, ...], zeros[i, ...]) for i in range(200)]
    different[dtype] = sum(different_bits(run, *row) for row in rows)
    different[f"{dtype}, per channel"] = different_bits(run, hard, scales, zeros)
different

# %% [markdown]
# Not one of 800 000 results is different. We left out NaN: the standard does not say what becomes of it.

# %%
zero = quantize(np.zeros(200, "float32"), scales, zeros, "int8")
back = dequantize(zero, scales, zeros)
float(np.abs(back).max())

# %% [markdown]
# Real zero comes back as exactly zero, with each of the 200 scales and zero points.

# %% tags=["hide-input"]
cu.claim(
    "dequantize-formula",
    {
        "uint8: our NumPy and ONNX Runtime agree bit for bit": different["uint8"]
        == 0,
        "int8: so they do": different["int8"] == 0,
        "with one scale for each channel, too": different["uint8, per channel"]
        == different["int8, per channel"]
        == 0,
        "real zero comes back as zero": not back.any(),
    },
)

# %% [markdown]
# ## Which range leaves the smallest error?
#
# We take a weight and an activation of our trained network. The activation is behind a ReLU, so none of its values is
# negative.

# %%
import torch

network = cu.fashion_resnet()
weight = network.stage1[0].conv2.weight.detach().numpy()
pictures = torch.from_numpy(cu.normalize(cu.fashion_mnist("calibration")[0][:100]))
relu = network.stem(pictures).detach().numpy()
tensors = {
    "weight, per tensor": weight.reshape(1, -1),
    "weight, per channel": weight.reshape(len(weight), -1),
    "activation, per tensor": relu.reshape(1, -1),
}

# %% [markdown]
# Each row gets a range of its own, so a tensor in one row has one scale. The error is measured in parts of a typical value:
# the root mean square of both.

# %%
error = {}
for name, x in tensors.items():
    low, high = x.min(1, keepdims=True), x.max(1, keepdims=True)
    low, high = np.minimum(low, 0), np.maximum(high, 0)  # 0 must be inside
    step = np.maximum(-low, high) / np.float32(127)
    symmetric = dequantize(quantize(x, step, 0, "int8"), step, 0)
    step = (high - low) / np.float32(255)
    zero = np.rint(-low / step)
    asymmetric = dequantize(quantize(x, step, zero, "uint8"), step, zero)
    both = [((back - x) ** 2).mean() for back in (symmetric, asymmetric)]
    error[name] = 100 * np.sqrt(both / (x**2).mean())

# %%
import pandas as pd

table = pd.DataFrame(error, index=["symmetric", "asymmetric"]).T
table.round(2).add_suffix(", error in %")

# %% [markdown]
# For a weight, a scale per channel is the larger step: one wide channel no longer decides for all the others. The
# asymmetric range is a little more exact. Yet weights are usually symmetric, because a product with a zero point of 0 needs
# no correction. For an activation behind a ReLU, the symmetric range wastes half of the integers, so its error is twice as
# large.
#
# ## What a quantized file stores
#
# We quantize the network as in lesson 07, and look for the same numbers in the file.

# %%
names = {"input_names": ["image"], "output_names": ["logits"]}
with cu.exporter_messages():
    program = torch.onnx.export(network, (pictures,), **names, verbose=False)

# %%
from onnxruntime.quantization import QuantType, quant_pre_process, quantize_static

FLOAT, INT8 = "work/07_scales_float.onnx", "work/07_scales_int8.onnx"
quant_pre_process(program.model_proto, FLOAT)
reader = cu.Calibration(FLOAT, {"image": pictures.numpy()}, batch=100)
types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
quantize_static(FLOAT, INT8, reader, per_channel=True, **types)

# %% [markdown]
# The convolution `stage1.0.conv2` reads these tensors:

# %%
tensors = onnx.load(INT8).graph.initializer
stored = {t.name: onnx.numpy_helper.to_array(t) for t in tensors}
name = "stage1.0.conv2.weight"
{key: (x.dtype, x.shape) for key, x in stored.items() if key.startswith(name)}

# %% [markdown]
# The weight is int8, with one scale for each of the 32 channels. Its integers should be ours:

# %%
floats = {t.name: t for t in onnx.load(FLOAT).graph.initializer}
folded = onnx.numpy_helper.to_array(floats[name])
step = np.abs(folded).max((1, 2, 3)) / np.float32(127)
assert np.array_equal(step, stored[f"{name}_scale"])

# %%
mine = quantize(folded, step[:, None, None, None], 0, "int8")
assert np.array_equal(mine, stored[f"{name}_quantized"])

# %% [markdown]
# All scales and all integers are the same. And the bias? It is int32, because it is added to a sum of products of 8-bit
# numbers. In that sum, one step is worth *scale of the input × scale of the weight*. So the bias must have this scale:

# %%
product = stored["relu_1_scale"] * step
assert np.array_equal(product, stored[f"{name}_bias_quantized_scale"])
product[:3]

# %% [markdown]
# It has, for each channel.

# %% [markdown]
# ## Recap
#
# - Divide in float32, round a half to even, add the zero point, cut off: with that you get the runtime's bits.
# - Use a symmetric range and a scale per channel for weights, unless your target knows no scale per channel.
# - Use an asymmetric range for activations, unless your target demands a symmetric one, as TensorRT does.
# - A bias is int32. Its scale is the product of the two others, so it is no free choice.
#
# **Next:** [which examples to calibrate with](07_calibration.ipynb), or back to
# [lesson 07](../07_quantization.ipynb).
