# %% [markdown]
# # 07 · Quantization
#
# A weight in float32 takes four bytes. Do we need all of them? **Quantization** stores numbers as small integers, with a
# rule that says which real number each of them stands for. The file gets smaller, and a processor can multiply several
# small integers in the time of one float. The price is rounding.
#
# After this lesson you will be able to
#
# - compute scale, zero point and integers by hand, and get the same bits as ONNX Runtime,
# - quantize a network statically and dynamically, and say which of the two suits it,
# - find out whether the integers are used when the model runs,
# - find the layer that int8 does not survive, and rescue the model,
# - choose between float16, int8 and int4 by size, speed and accuracy.
#
# It takes about 75 minutes.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## The formula
#
# The report gives it in one line:
#
# $$real = scale \times (quantized - zero\_point)$$
#
# The *scale* is the step between two neighbours. The *zero point* is the integer that stands for 0. To go the other way,
# we divide, round, add the zero point, and cut off what does not fit (**saturation**).

# %%
import numpy as np


def quantize(real, scale, zero_point, dtype=np.uint8):
    """Floats → integers of dtype. scale: float32."""
    limits = np.iinfo(dtype)
    steps = np.rint(real / scale) + np.float32(zero_point)
    return np.clip(steps, limits.min, limits.max).astype(dtype)


def dequantize(quantized, scale, zero_point):
    """Integers → float32."""
    return scale * (quantized.astype(np.int32) - zero_point).astype(np.float32)


# %% tags=["remove-input"]
cu.quiz("07_quantization", 1)

# %%
import pandas as pd

real = np.array([-1.3, 0, 0.25, 0.3, 0.75, 1.25, 1.75, 60, 200], np.float32)
scale, zero_point = np.float32(0.5), 2
whole = quantize(real, scale, zero_point)
back = dequantize(whole, scale, zero_point)
pd.DataFrame({"real": real, "÷ scale": real / scale, "integer": whole, "back": back, "error": back - real}).T

# %% [markdown]
# Three things to see. Zero comes back as exactly zero: that is what the zero point is for, and networks are full of zeros
# (padding, ReLU). A number half-way between two integers goes to the **even** one. And what lies beyond the
# last integer is cut off: of 200 little is left. The zero point also uses up room: with 2, the smallest real number is -1.
#
# ## The same in ONNX
#
# The operators are `QuantizeLinear` and `DequantizeLinear`. This graph has one of each. Scale and zero point are inputs,
# so that we can try many.

# %%
import onnx
import onnxruntime as ort


def both_ways(dtype, x="[n]", scale="", axis=""):
    """A session: QuantizeLinear, then DequantizeLinear. x, scale: shapes; empty: a scalar."""
    text = f"""<ir_version: 10, opset_import: ["": 21]>
        both (float{x} x, float{scale} s, {dtype}{scale} z) => ({dtype}{x} q, float{x} y) {{
            q = QuantizeLinear {axis} (x, s, z)
            y = DequantizeLinear {axis} (q, s, z)
        }}"""
    model = onnx.parser.parse_model(text)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


# %% [markdown]
# Now thousands of random numbers, with random scales and zero points. Among them are numbers exactly half-way between two
# integers, numbers far outside of the range, and infinity. We ask for the same **bits**, not for *nearly the same*.

# %%
draw = np.random.default_rng(0)


def different_bits(dtype, rounds=200):
    session, limits, wrong = both_ways(np.dtype(dtype).name), np.iinfo(dtype), 0
    for _ in range(rounds):
        scale = draw.uniform(0.001, 2, ()).astype(np.float32)
        zero = draw.integers(limits.min, limits.max, (), dtype, endpoint=True)
        x = (draw.normal(size=500) * draw.uniform(0.1, 300)).astype(np.float32)
        x[:40], x[40:42] = scale * (np.arange(-20, 20) + np.float32(0.5)), [np.inf, -np.inf]
        q, y = session.run(None, {"x": x, "s": np.asarray(scale), "z": np.asarray(zero)})
        mine = quantize(x, scale, zero, dtype)
        wrong += (mine != q).sum() + (dequantize(mine, scale, np.int32(zero)).view(np.int32) != y.view(np.int32)).sum()
    return int(wrong)


different = {np.dtype(dtype).name: different_bits(dtype) for dtype in (np.uint8, np.int8)}
different

# %% [markdown]
# Not one bit is different. A tensor may also have **one scale for each channel**: then scale and zero point are vectors,
# and `axis` says along which axis of the tensor they run.

# %%
x = draw.normal(size=(6, 400)).astype(np.float32) * np.float32([[0.01], [0.1], [1], [2], [10], [100]])
scales = np.abs(x).max(1) / np.float32(127)
q, y = both_ways("int8", "[n, m]", "[n]", "<axis = 0>").run(None, {"x": x, "s": scales, "z": np.zeros(6, np.int8)})
mine = quantize(x, scales[:, None], 0, np.int8)
same_by_channel = np.array_equal(mine, q) and np.array_equal(dequantize(mine, scales[:, None], 0), y)

cu.claim(
    "dequantize-formula",
    {
        "uint8: our NumPy and ONNX Runtime agree bit for bit": different["uint8"] == 0,
        "int8: so they do": different["int8"] == 0,
        "with one scale for each channel, too": same_by_channel,
        "real zero comes back as zero": dequantize(quantize(np.float32([0]), scale, 2), scale, 2)[0] == 0,
    },
)

# %% [markdown]
# NaN is the exception: what becomes of it, nobody promises. Remember that for later.
#
# ## Which scale?
#
# The formula does not say where scale and zero point come from. There are two common ways.
#
# | | integers | zero point | range |
# |---|---|---|---|
# | symmetric | int8 | 0 | from -m to m, with m the largest absolute value |
# | asymmetric | uint8 | computed | from the smallest to the largest value; 0 must be inside |
#
# Weights usually get the first one, because products with a zero point of 0 need no correction. Activations behind a
# ReLU are never negative; with the symmetric way half of the integers would stay unused.


# %%
def ranges(values, axis, symmetric, bits=8):
    """Scale and zero point. axis: over which axes the range is taken; None: all of them."""
    low, high = values.min(axis, keepdims=True), values.max(axis, keepdims=True)
    if symmetric:
        return (np.maximum(-low, high) / np.float32(2 ** (bits - 1) - 1)), np.int32(0)
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    scale = (high - low) / np.float32(2**bits - 1)
    return scale, np.rint(-low / scale).astype(np.int32)


# %% [markdown]
# We need real weights. Here is our trained network, exported as in the lessons before.

# %%
import torch

model = cu.fashion_resnet()
picture, names = torch.randn(2, 1, 28, 28), {"input_names": ["image"], "output_names": ["logits"]}
dynamic = {"dynamic_shapes": ({0: torch.export.Dim("batch")},)}
with cu.exporter_messages():
    torch.onnx.export(
        model, (picture,), "work/07_exported.onnx", **names, **dynamic, external_data=False, verbose=False
    )
exported = onnx.load("work/07_exported.onnx")
weights = {t.name: onnx.numpy_helper.to_array(t) for t in exported.graph.initializer}
kernels = {name: values for name, values in weights.items() if values.ndim == 4}

# %% [markdown]
# For each kernel and each of the four ways: how large is the error of a typical weight? We measure it in parts of the
# typical weight (root mean square of both).

# %%
WAYS = {
    "symmetric, per tensor": (None, True),
    "asymmetric, per tensor": (None, False),
    "symmetric, per channel": ((1, 2, 3), True),
    "asymmetric, per channel": ((1, 2, 3), False),
}


def relative_error(values, axis, symmetric):
    scale, zero = ranges(values, axis, symmetric)
    back = dequantize(quantize(values, scale, zero, np.int8 if symmetric else np.uint8), scale, zero)
    return np.sqrt(np.mean((back - values) ** 2) / np.mean(values**2))


errors = pd.DataFrame({way: {n: relative_error(v, *how) for n, v in kernels.items()} for way, how in WAYS.items()})
assert (errors["symmetric, per channel"] < errors["symmetric, per tensor"]).all()
assert (errors["asymmetric, per tensor"] < errors["symmetric, per tensor"]).all()

# %%
import matplotlib.pyplot as plt

gain = (errors["symmetric, per tensor"] / errors["symmetric, per channel"]).median()
axes = (100 * errors).plot(marker="o", figsize=(7.2, 4), title=f"A scale per channel divides the error by {gain:.1f}")
axes.set(ylabel="error, % of a typical weight", ylim=0, xticks=range(len(errors)))
axes.set_xticklabels([name.removesuffix(".weight") for name in errors.index], rotation=60, ha="right")
plt.show()

# %% [markdown]
# A scale per channel is the larger step. One wide channel no longer decides for all the others, and the price is a few
# more scales. The asymmetric way gains little, because weights lie on both sides of zero.
#
# ## A crash first
#
# ONNX Runtime comes with tools for all this, in `onnxruntime.quantization`. The simplest is `quantize_dynamic`: a file
# goes in, a file comes out. Let us feed it what the exporter wrote.

# %%
import logging

from onnxruntime.quantization import QuantType, quantize_dynamic

logging.getLogger().setLevel(logging.ERROR)  # it logs advice; we come to that


def outcome(function, *arguments, **options):
    """ "works", or the first line of the error."""
    try:
        function(*arguments, **options)
        return "works"
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"


crash = outcome(quantize_dynamic, "work/07_exported.onnx", "work/07_dynamic.onnx")
crash

# %% [markdown]
# It does not work. 64 and 10 are the two axes of the weight of the last layer. What does the file say about this tensor, and
# how is it used?

# %%
described = [v for v in exported.graph.value_info if v.name == "classifier.weight"]
last = exported.graph.node[-1]
{
    "value info": [[d.dim_value for d in v.type.tensor_type.shape.dim] for v in described],
    "used by": last.op_type,
    **{a.name: onnx.helper.get_attribute_value(a) for a in last.attribute},
}

# %% [markdown]
# The exporter describes even the weights in the value info. The quantizer turns `Gemm` with `transB` into a `MatMul`, for
# which it transposes the weight, and it forgets to update that description. Then the shape inference finds two shapes for
# one name. People recommend three cures. Do they work?

# %%
from onnxruntime.quantization import quant_pre_process

quant_pre_process("work/07_exported.onnx", "work/07_processed.onnx")
bare = onnx.load("work/07_exported.onnx")
del bare.graph.value_info[:]
onnx.save(bare, "work/07_bare.onnx")
float_type = {"extra_options": {"DefaultTensorType": onnx.TensorProto.FLOAT}}
cures = {
    "as exported": crash,
    "quant_pre_process before": outcome(quantize_dynamic, "work/07_processed.onnx", "work/07_dynamic.onnx"),
    "no value info": outcome(quantize_dynamic, "work/07_bare.onnx", "work/07_dynamic.onnx"),
    "DefaultTensorType": outcome(quantize_dynamic, "work/07_exported.onnx", "work/07_dynamic.onnx", **float_type),
}
assert cures["quant_pre_process before"] == cures["no value info"] == "works"
pd.Series(cures, name="quantize_dynamic").to_frame()

# %% [markdown]
# Two of them do; the type of a tensor was not the trouble here. `quant_pre_process` is the cure to remember, and what the
# advice in the log asks for: it infers all shapes anew and optimises the graph. From now on we work with its result. We also
# take out the notes that the exporter left on each node: they are no part of the model.


# %%
def without_notes(model):
    for node in model.graph.node:
        del node.metadata_props[:]
    del model.graph.metadata_props[:]
    return model


onnx.save(without_notes(onnx.load("work/07_processed.onnx")), "work/07_float.onnx")
cu.op_histogram("work/07_float.onnx").to_frame().T

# %% [markdown]
# ## Dynamic quantization
#
# *Dynamic* means: weights become integers beforehand, activations at run time. For each tensor, in each run, the model
# looks for the smallest and the largest value and computes a scale from them.

# %%
for name, weight_type in {"int8": QuantType.QInt8, "uint8": QuantType.QUInt8}.items():
    quantize_dynamic("work/07_float.onnx", f"work/07_dynamic_{name}.onnx", weight_type=weight_type)
cu.op_histogram("work/07_dynamic_int8.onnx").to_frame().T

# %% [markdown]
# A `Conv` has become four nodes: `DynamicQuantizeLinear` for the activation, `ConvInteger` for the product, a `Cast` of the
# sum and a `Mul` with the scales. Then the bias is added. The integers are in the file. Is it faster?

# %% tags=["remove-input"]
cu.quiz("07_quantization", 2)

# %%
images, labels = cu.fashion_mnist("test")
pictures = cu.normalize(images)


def session(file, threads=1, **more):
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(file, options, providers=["CPUExecutionProvider"], **more)


def timed(files, feed, **how):
    """The stopwatch over several files, one thread each."""
    sessions = {name: session(file) for name, file in files.items()}
    return cu.compare({name: lambda s=s: s.run(None, feed) for name, s in sessions.items()}, warmup=1, **how)


files = {"float": "work/07_float.onnx"}
files |= {f"dynamic, {name} weights": f"work/07_dynamic_{name}.onnx" for name in ("int8", "uint8")}
timed(files, {"image": pictures[:16]}, rounds=10, seconds=3)

# %% [markdown]
# Look at the last column. It is below 1 on all processors that we know: the int8 model is several times **slower** than
# float. Where does the time go? The profile of lesson 06 tells.

# %%
import json
from pathlib import Path


def profile(file, feed):
    """Share of the time of each operator, in per cent, in the fastest of three runs."""
    options = ort.SessionOptions()
    options.enable_profiling, options.profile_file_prefix, options.intra_op_num_threads = True, "work/07_profile", 1
    running = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    for _ in range(3):
        running.run(None, feed)
    record = Path(running.end_profiling())
    events = pd.DataFrame(json.loads(record.read_text()))
    record.unlink()
    events = events[events["name"].str.endswith("_kernel_time")]
    fastest = events.groupby([events["args"].str["op_name"], "name"])["dur"].min()
    return (100 * fastest.groupby(level=0).sum() / fastest.sum()).sort_values(ascending=False)


profile(files["dynamic, int8 weights"], {"image": pictures[:16]}).round(1).head(4).to_frame("% of the time")

# %% [markdown]
# Nearly all of it is `ConvInteger` itself. ONNX Runtime has excellent kernels for float convolutions, and only a simple one
# for this operator. A file full of integers is no promise of speed: there must be a **kernel** for it.
#
# ## Static quantization
#
# *Static* means: the ranges of activations are measured beforehand, on examples. This is **calibration**. Then all scales
# are constants. ONNX Runtime asks for the examples by calling a *data reader* until it returns nothing.

# %%
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, quantize_static


class Reader(CalibrationDataReader):
    """Hands out pictures in batches of 50."""

    def __init__(self, pictures):
        self.batches = iter([pictures[i : i + 50] for i in range(0, len(pictures), 50)])

    def get_next(self):
        batch = next(self.batches, None)
        return None if batch is None else {"image": batch}


train_images, train_labels = cu.fashion_mnist("calibration")
calibration = cu.normalize(train_images)
quantize_static("work/07_float.onnx", "work/07_default.onnx", Reader(calibration[:100]))
cu.op_histogram("work/07_default.onnx").to_frame().T

# %% [markdown]
# In this file all `Conv` are still there. Before and after each of them stand pairs of `QuantizeLinear` and
# `DequantizeLinear`. This form is called **QDQ**: the graph still computes in float, and the pairs say *here a tensor may be
# int8*. All `Relu` are gone. With a zero point at the lower end, saturation cuts off the negative numbers.
#
# It is the runtime that has to make integer kernels of it, when it optimises.

# %% tags=["remove-input"]
cu.quiz("07_quantization", 3)

# %%
import platform

running = cu.optimized("work/07_default.onnx")
in_default = cu.op_histogram(running)
assert platform.machine() not in ("x86_64", "AMD64") or 0 < in_default["com.microsoft::QLinearConv"] < 15
in_default.to_frame().T

# %% [markdown]
# Where a convolution became `QLinearConv`, it computes in int8. On an x86 processor only a part of them did. The others
# are `Conv` in float, with conversions around them. Why? We look at the types of the numbers before and after each.


# %%
def types_around(graph, node):
    """Type of the integers that are converted to the input of a node, and of those its output is converted to."""
    kind = {t.name: onnx.TensorProto.DataType.Name(t.data_type) for t in graph.initializer}
    before = [n for n in graph.node if node.input[0] in n.output and n.op_type == "DequantizeLinear"]
    after = [n for n in graph.node if node.output[0] in n.input and n.op_type == "QuantizeLinear"]
    return [kind.get(n.input[2], "?") for n in (before + after) if len(n.input) > 2]


left = [node for node in running.graph.node if node.op_type == "Conv"]
around = pd.Series([" → ".join(types_around(running.graph, node)) for node in left], dtype=str)
around.value_counts().rename("Conv left in float").to_frame()

# %% [markdown]
# The default type for activations is int8. The kernels for x86 want uint8, so the optimiser converts int8 tensors to
# uint8, but it skips a tensor that two nodes read, and each shortcut of a residual network is one. A convolution between
# an int8 and a uint8 tensor then fits no kernel. (On ARM you see no such row: its kernels take int8.)
#
# The cure is to write uint8 from the start. We also ask for a scale per channel.

# %%
settings = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "per_channel": True}
quantize_static("work/07_float.onnx", "work/07_static.onnx", Reader(calibration[:100]), **settings)
running = cu.optimized("work/07_static.onnx")
operators = cu.op_histogram(running)
assert operators["com.microsoft::QLinearConv"] == 15 and "Conv" not in operators
operators.to_frame().T

# %% [markdown]
# All fifteen. The pairs are gone: two conversions are left at the ends, and a few around the mean. What went into a `QLinearConv`? Its
# inputs tell.

# %%
node = next(n for n in running.graph.node if "stage1.0.conv2.weight_quantized" in n.input)
pd.Series(dict(zip(["x", "x scale", "x zero", "w", "w scale", "w zero", "y scale", "y zero", "bias"], node.input)))

# %% [markdown]
# The `DequantizeLinear` before it, its weight, and the `QuantizeLinear` after it have become inputs of one node. These nine
# tensors are all in the file. So we can check them against our own formula: are the integers in the file those that we
# get?

# %%
stored = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load("work/07_static.onnx").graph.initializer}
floats = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load("work/07_float.onnx").graph.initializer}
name = "stage1.0.conv2.weight"
scale, zero = ranges(floats[name], (1, 2, 3), symmetric=True)
x_scale, w_scale = stored[node.input[1]], stored[f"{name}_scale"]
bias = np.rint(floats[f"{name}_bias"].astype(np.float64) / (x_scale.astype(np.float64) * w_scale))

assert np.array_equal(scale.ravel(), w_scale)
assert np.array_equal(quantize(floats[name], scale, zero, np.int8), stored[f"{name}_quantized"])
assert np.abs(bias - stored[f"{name}_bias_quantized"]).max() <= 1

# %% [markdown]
# They are. The bias is int32, and its scale is the product of the other two scales. In this way it can be added to the sum of
# products directly. A sum of many products of 8-bit numbers needs 32 bits, too.
#
# > **Note** Some x86 processors have no instructions for int8 products (*VNNI*). They add pairs of products in 16 bits,
# > which can overflow. If your accuracy drops on such a machine, set `reduce_range=True`: 7 bits for weights.
#
# ## QDQ or QOperator?
#
# There is a second form. **QOperator** writes the integer operators right into the file.

# %%
how = settings | {"quant_format": QuantFormat.QOperator}
quantize_static("work/07_float.onnx", "work/07_qoperator.onnx", Reader(calibration[:100]), **how)
forms = {"QDQ": "work/07_static.onnx", "QOperator": "work/07_qoperator.onnx"}
table = pd.DataFrame({f"{form}, file": cu.op_histogram(file) for form, file in forms.items()})
for form, file in forms.items():
    table = table.join(cu.op_histogram(cu.optimized(file)).rename(f"{form}, runs"), how="outer")
table = table.fillna(0).astype(int)
assert (table["QDQ, runs"] == table["QOperator, runs"]).all()
table.replace(0, "")

# %% [markdown]
# What runs is the same. QDQ has standard operators only, so any runtime can read it, and each makes of it what its hardware
# can do. QOperator is a little smaller, and needs a runtime that knows operators like `QGemm`. Now the accuracy, on all
# 10 000 test images.


# %%
def answers(file, count=10_000, **more):
    running = session(file, threads=0, **more)  # 0: one thread for each core; nothing is timed here
    return np.concatenate([running.run(None, {"image": pictures[i : i + 500]})[0] for i in range(0, count, 500)])


def accuracy(logits):
    return 100 * (logits.argmax(1) == labels[: len(logits)]).mean()


logits = {"float": answers("work/07_float.onnx")}
logits |= {form: answers(file) for form, file in forms.items()}
accuracies = {form: accuracy(values) for form, values in logits.items()}
agree = 100 * (logits["QDQ"].argmax(1) == logits["QOperator"].argmax(1)).mean()
assert accuracies["float"] - min(accuracies.values()) <= 0.5
assert agree > 99.5
pd.Series(accuracies | {"QDQ and QOperator agree": agree}, name="% of 10 000 images").round(2).to_frame()

# %% [markdown]
# Less than half a point is lost, often nothing at all. So why is static the way for convolutional networks?
# Compare what the two graphs have to do in a run.

# %%
dynamic_graph, static_graph = (cu.optimized(f"work/07_{name}.onnx", "extended") for name in ("dynamic_int8", "static"))
one = {"image": pictures[:1]}
moved = {
    kind: int(cu.traffic(graph, one)[["reads", "writes"]].to_numpy().sum())
    for kind, graph in {"dynamic": dynamic_graph, "static": static_graph}.items()
}
nodes = {"dynamic": cu.op_histogram(dynamic_graph), "static": cu.op_histogram(static_graph)}
pd.DataFrame({"nodes": {kind: n.sum() for kind, n in nodes.items()}, "bytes between them": moved})

# %%
cu.claim(
    "static-suits-cnn",
    {
        "static: every convolution runs as QLinearConv": operators["com.microsoft::QLinearConv"] == 15,
        "dynamic: every one runs as ConvInteger": nodes["dynamic"]["ConvInteger"] == 15,
        "dynamic looks for a range more than ten times in each run": nodes["dynamic"]["DynamicQuantizeLinear"] > 10,
        "static never does": "DynamicQuantizeLinear" not in nodes["static"],
        "static moves less than a quarter of the bytes": moved["static"] < moved["dynamic"] / 4,
        "and loses at most half a point on 10 000 images": accuracies["float"] - accuracies["QDQ"] <= 0.5,
    },
)

# %% [markdown]
# ## Calibration
#
# Which examples, how many, and how is a range made of them? ONNX Runtime offers several methods:
#
# - **MinMax** takes the smallest and the largest value that occurs.
# - **Percentile** leaves out the outermost values: by default 0.001 % on each side, here also 1 %.
# - **Entropy** looks for the range that changes the distribution least.

# %% tags=["remove-input"]
cu.quiz("07_quantization", 4)

# %% [markdown]
# We try them on good and on bad data. One set has a *broken picture*: one of the hundred was forgotten when pixels were
# normalised, so it has values up to 255. To save time, each cell of the grid uses the first 1 000 test images.

# %%
broken = calibration[:100].copy()
broken[60] = train_images[60]
sets = {
    "1 picture": calibration[:1],
    "10 pictures": calibration[:10],
    "100 pictures": calibration[:100],
    "50, one class": calibration[train_labels == 5][:50],
    "100, one broken": broken,
    "pixels from 0 to 1": train_images[:50, None].astype(np.float32) / 255,
    "pixels from 0 to 255": train_images[:50, None].astype(np.float32),
}
methods = {"MinMax": {}, "Entropy": {}, "Percentile": {}, "Percentile 99": {"CalibPercentile": 99.0}}

# %%
import contextlib
import io


def calibrated(data, method, options):
    how = {"calibrate_method": CalibrationMethod[method], "extra_options": options}
    with contextlib.redirect_stdout(io.StringIO()):  # the other methods print what they do
        quantize_static("work/07_float.onnx", "work/07_try.onnx", Reader(data), **settings, **how)
    return accuracy(answers("work/07_try.onnx", 1000))


grid = pd.DataFrame(
    {m: {s: calibrated(data, m.split()[0], options) for s, data in sets.items()} for m, options in methods.items()}
)
reference = accuracy(logits["float"][:1000])

# %%
worst = grid.stack().idxmin()
figure, axes = plt.subplots(figsize=(7.2, 4))
axes.imshow(grid, cmap="cividis", vmin=0, vmax=100, aspect="auto")
axes.set(xticks=range(len(methods)), xticklabels=grid.columns, yticks=range(len(sets)), yticklabels=grid.index)
for row, column in np.ndindex(grid.shape):
    value = grid.iat[row, column]
    axes.text(column, row, f"{value:.1f}", ha="center", va="center", color="black" if value > 60 else "white")
axes.grid(False)
axes.set_title(f"Worst: {worst[0]}, {grid.min().min():.0f} % accuracy is left (float: {reference:.1f} %)")
plt.show()

# %% [markdown]
# From top to bottom:
#
# - **How many** hardly matters here: a single picture gives nearly the full accuracy. Our network is small and its
#   normalised layers all have similar ranges. Do not count on it with other models.
# - **One class** of pictures is enough, too: to a range it does not matter what a picture shows.
# - **The wrong range of pixels** ruins the model. No error, no warning: the file is fine, and the answers are not.
# - **One broken picture** is enough to ruin MinMax. Percentile survives when it cuts off enough.
#
# And Entropy? Its column equals MinMax. Is that chance? A calibrator can be asked for its ranges directly.

# %%
from onnxruntime.quantization.calibrate import create_calibrator


def measured_ranges(method, **options):
    around = ["Gemm", "ReduceMean"]  # the last tensors are enough to see it
    calibrator = create_calibrator("work/07_float.onnx", around, "work/07_aug.onnx", method, extra_options=options)
    with contextlib.redirect_stdout(io.StringIO()):
        calibrator.collect_data(Reader(calibration[:50]))
        return {name: data.range_value for name, data in calibrator.compute_data().items()}


found = {"MinMax": measured_ranges(CalibrationMethod.MinMax)}
for bins in (128, 2048):
    options = {"num_bins": bins, "num_quantized_bins": 128}
    found[f"Entropy, {bins} bins"] = measured_ranges(CalibrationMethod.Entropy, **options)
columns = {m: {tensor: float(np.ravel(high)[0]) for tensor, (_, high) in v.items()} for m, v in found.items()}
assert columns["Entropy, 128 bins"] == columns["MinMax"] != columns["Entropy, 2048 bins"]
pd.DataFrame(columns).rename_axis("upper end of").style.format("{:.3f}")

# %% [markdown]
# `Entropy` cuts the range into bins and tries how many of them to keep, but at least 128. `quantize_static` gives it 128 bins to begin
# with: there is nothing to try. With 2 048 bins it does choose, but `quantize_static` has no option for that. So one more
# thing is not what its name promises.

# %%
no_data = outcome(quantize_static, "work/07_float.onnx", "work/07_none.onnx", Reader(calibration[:0]), **settings)
cu.claim(
    "calibration-needed",
    {
        "without data ONNX Runtime refuses": no_data.startswith("ValueError"),
        "100 pictures lose less than a point": reference - grid.loc["100 pictures", "MinMax"] < 1,
        "a small set is enough: so do 10": reference - grid.loc["10 pictures", "MinMax"] < 1,
        "data of another kind lose more than 30 points": grid.loc["pixels from 0 to 255"].max() < reference - 30,
        "so does a wrong scale of the pixels": grid.loc["pixels from 0 to 1"].max() < reference - 30,
    },
)

# %% [markdown]
# ## What can go wrong without a word
#
# Three kinds of bad input, and what ONNX Runtime makes of them: NaN in one picture, infinity in one pixel, no picture at
# all, and models that are quantized already.

# %%
import warnings

nan, infinite = calibration[:50].copy(), calibration[:50].copy()
nan[3], infinite[3, 0, 5, 5] = np.nan, np.inf
bad_data = {"NaN in one picture": nan, "infinity in one pixel": infinite, "no picture": calibration[:0]}
said = {}
for what, data in bad_data.items():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, about the numbers
        said[what] = outcome(quantize_static, "work/07_float.onnx", "work/07_bad.onnx", Reader(data), **settings)
    if said[what] == "works":
        said[what] += f", with {accuracy(answers('work/07_bad.onnx', 1000)):.1f} % accuracy"
assert said["NaN in one picture"].startswith("works") and said["no picture"].startswith("ValueError")
pd.Series(said, name="quantize_static").to_frame()

# %% [markdown]
# NaN is skipped when the range is taken, silently. One infinite pixel gives infinite scales, and a model that knows
# nothing, with no error either. And a model that is quantized already:


# %%
def second_time(method, source, *more):
    method(source, "work/07_again.onnx", *more)
    session("work/07_again.onnx")


again = {
    f"{kind}, {method.__name__}": outcome(second_time, method, f"work/07_{kind}.onnx", *more)
    for kind in ("static", "qoperator", "dynamic_int8")
    for method, more in ((quantize_static, [Reader(calibration[:50])]), (quantize_dynamic, []))
}
pd.Series({k: v.replace("work/", "") for k, v in again.items()}, name="quantized again, and loaded").to_frame()

# %% [markdown]
# Some cases end in an error about something else, others *work*. None says what is wrong. `cu.Calibration` is a data
# reader like ours that looks at model and data first, and `cu.ready_to_quantize` looks at the model alone. You will use
# both in the exercises.

# %%
attempts = {
    "NaN": lambda: cu.Calibration("work/07_float.onnx", {"image": nan}),
    "infinity": lambda: cu.Calibration("work/07_float.onnx", {"image": infinite}),
    "no picture": lambda: cu.Calibration("work/07_float.onnx", {"image": calibration[:0]}),
    "wrong shape": lambda: cu.Calibration("work/07_float.onnx", {"image": calibration[:, 0]}),
    "quantized": lambda: quantize_dynamic(cu.ready_to_quantize("work/07_static.onnx"), "work/07_again.onnx"),
}
refused = {what: outcome(attempt).removeprefix("CourseError: ") for what, attempt in attempts.items()}
assert "works" not in refused.values()
pd.Series(refused, name="the course says").to_frame()

# %% [markdown]
# ## When int8 collapses
#
# Here is a model that computes **the same** as ours, and that int8 does not survive. In one block we multiply the output
# channel 3 of the first convolution by *k*, and divide what the second one makes of it by *k*. Between the two is only a
# ReLU, which lets a positive factor pass.


# %%
def stretched(k, block="stage2.0", channel=3):
    """Our network with one wide channel; its results do not change."""
    proto = onnx.load("work/07_float.onnx")
    tensors = {t.name: t for t in proto.graph.initializer}
    first, second = f"{block}.conv1.weight", f"{block}.conv2.weight"
    for name, factor, at in [(first, k, 0), (f"{first}_bias", k, 0), (second, 1 / k, 1)]:
        values = onnx.numpy_helper.to_array(tensors[name]).copy()
        values.swapaxes(0, at)[channel] *= np.float32(factor)
        tensors[name].CopyFrom(onnx.numpy_helper.from_array(values, name))
    file = f"work/07_stretched_{k}.onnx"
    onnx.save(proto, file)
    return file


sick = [n.name for n in exported.graph.node if any(i.startswith("stage2.0.conv") for i in n.input)]

# %%
rescues = {
    "per tensor": {"per_channel": False},
    "per channel": {"per_channel": True},
    "per channel, two layers in float": {"per_channel": True, "nodes_to_exclude": sick},
}
rows = {}
for k in (1, 16, 256, 4096):
    file = stretched(k)
    rows[k] = {"float": accuracy(answers(file, 500))}
    for rescue, options in rescues.items():
        reader = cu.Calibration(file, {"image": calibration[:50]})
        quantize_static(file, "work/07_try.onnx", reader, **(settings | options))
        rows[k][rescue] = accuracy(answers("work/07_try.onnx", 500))
collapse = pd.DataFrame(rows).T

# %%
lost = collapse["float"].iloc[-1] - collapse["per channel"].iloc[-1]
axes = collapse.plot(marker="o", logx=True, title=f"The same function, and int8 loses {lost:.0f} points")
axes.set(xlabel="factor k of one channel", ylabel="accuracy on 500 images, %", ylim=(0, 100), xticks=list(rows))
axes.set_xticklabels(rows)
plt.show()

# %%
assert collapse["float"].max() - collapse["float"].min() <= 0.5
assert lost > 20
assert (collapse["float"] - collapse["per channel, two layers in float"]).max() < 1.5

# %% [markdown]
# With one scale per tensor, the wide channel takes all integers for itself, and the other 63 channels share a few. A
# scale per channel saves the weights. But **activations** have one scale per tensor always, so in the end it loses as well. Left
# in float, the two layers do no harm. Here is the case where int8 loses accuracy, and its cure.
#
# ## Find the layer
#
# In real life nobody tells you which layer it is. `onnxruntime.quantization.qdq_loss_debug` does: it compares weights and
# activations of a float model and its QDQ form. First the weights.

# %%
from onnxruntime.quantization import qdq_loss_debug as debug

pairs = {}
for kind, source in {"healthy": "work/07_float.onnx", "stretched": "work/07_stretched_4096.onnx"}.items():
    pairs[kind] = source, f"work/07_debug_{kind}.onnx"
    reader = cu.Calibration(source, {"image": calibration[:50]})
    quantize_static(*pairs[kind], reader, **(settings | {"per_channel": False}))
weight_error = pd.DataFrame(
    {kind: debug.compute_weight_error(debug.create_weight_matching(*pair)) for kind, pair in pairs.items()}
)
weight_error.reindex(kernels).sort_values("stretched").head(3).style.format("{:.1f} dB")

# %% [markdown]
# This is the signal-to-noise ratio in decibels: 20 dB means that the error is a tenth of the signal, 40 dB a hundredth. And
# it is **blind** to our fault: both models look the same. The wide channel *is* nearly all of the signal, and it is stored
# well. But `compute_weight_error` accepts another measure. We ask for the ratio of the channel in the middle.


# %%
def middle_channel(real, back):
    real, back = (values.reshape(len(values), -1) for values in (real, back))
    signal, error = np.linalg.norm(real, axis=1), np.linalg.norm(real - back, axis=1)
    return float(np.median(20 * np.log10(np.maximum(signal, 1e-12) / np.maximum(error, 1e-12))))


by_channel = {}
for kind, pair in pairs.items():
    matching = {n: m for n, m in debug.create_weight_matching(*pair).items() if n in kernels}
    by_channel[kind] = debug.compute_weight_error(matching, middle_channel)
by_channel = pd.DataFrame(by_channel)
assert by_channel["stretched"].idxmin() == "stage2.0.conv1.weight"
by_channel.sort_values("stretched").head(3).style.format("{:.1f} dB")

# %% [markdown]
# There it is: in the middle channel nothing is left. Every integer is 0. Now activations. Each model gets all its tensors as outputs, and both run on the same
# pictures.


# %%
def activation_error(source, quantized):
    values = []
    for file in (quantized, source):
        debug.modify_model_output_intermediate_tensors(file, "work/07_probed.onnx")
        values.append(debug.collect_activations("work/07_probed.onnx", Reader(calibration[100:150])))
    return pd.DataFrame(debug.compute_activation_error(debug.create_activation_matching(*values))).T


activation_errors = {kind: activation_error(*pair) for kind, pair in pairs.items()}
activation_errors["healthy"].loc[["image", "relu", "getitem_6", "logits"]].style.format("{:.1f} dB")

# %% [markdown]
# `xmodel_err` compares a tensor in the two models. `qdq_err` compares it before and after its own pair. Beware of `relu`:
# a `qdq_err` near zero looks like a catastrophe. But the `Relu` node is gone, so *before* means before ReLU here, and what
# is lost are the negative numbers. `xmodel_err` is the one to plot, in the order of the graph.

# %%
order = [o for n in onnx.load("work/07_float.onnx").graph.node for o in n.output]
noise = pd.DataFrame({kind: table["xmodel_err"] for kind, table in activation_errors.items()})
noise = noise.loc[["image", *[t for t in order if t in noise.index]]]
fall = noise["healthy"] - noise["stretched"]
culprit = fall[fall > 10].index[0]
axes = noise.plot(marker="o", figsize=(7.2, 4), title=f"The fault begins at the tensor {culprit}")
axes.set(ylabel="signal to noise, dB", xticks=range(len(noise)))
axes.set_xticklabels(noise.index, rotation=70, ha="right")
plt.show()

# %% [markdown]
# The healthy model loses a little in its first layers and then stays level; no layer stands out. The stretched one falls at
# one place, and what depends on it is noise. (One tensor behind it is fine: it belongs to the shortcut, which goes round the sick
# layers.) The convolution that writes this tensor, and the one before it, are those to exclude.
#
# Is there something to gain for the healthy model? We leave out what the loss debug calls worst, and in another attempt
# the last layer, and measure the noise of the **logits**.

# %%
writer = {o: n for n in onnx.load("work/07_float.onnx").graph.node for o in n.output}


def convolution_before(tensor):
    node = writer[tensor]
    return node.name if node.op_type in ("Conv", "Gemm") else convolution_before(node.input[0])


assert convolution_before(culprit) in sick

# %%

worst_three = [convolution_before(t) for t in noise["healthy"].drop("image").nsmallest(3).index]
left_out = {"nothing": [], "the worst three": worst_three, "the last layer": [convolution_before("logits")]}
clean, gains = logits["float"][:1000], {}
for what, excluded in left_out.items():
    file = f"work/07_without_{what.split()[-1]}.onnx"
    reader = cu.Calibration("work/07_float.onnx", {"image": calibration[:100]})
    quantize_static("work/07_float.onnx", file, reader, **settings, nodes_to_exclude=excluded)
    decibel = debug.compute_signal_to_quantization_noice_ratio(clean, answers(file, 1000))
    convolutions = cu.op_histogram(cu.optimized(file))["com.microsoft::QLinearConv"]
    size = Path(file).stat().st_size / 1024
    gains[what] = {"logits, dB": decibel, "KiB": size, "convolutions that run in int8": convolutions}
gains = pd.DataFrame(gains).T.rename_axis("left in float")
assert gains["logits, dB"].idxmax() == "the last layer"
gains.style.format("{:.1f}").format("{:.0f}", subset=["KiB", "convolutions that run in int8"])

# %% [markdown]
# Look at the last column. There are fifteen convolutions. Without three of them, twelve should run in int8, and you may see
# **more**. A newer ONNX Runtime finds a float layer between two int8 tensors and quantizes its weights by itself, with one
# scale per tensor. The optimiser that does it has a name, and can be switched off.

# %%
off = {"disabled_optimizers": ["WeightBiasQuantization"]}
by_itself = answers("work/07_without_three.onnx", 1000), answers("work/07_without_three.onnx", 1000, **off)
decibels = [debug.compute_signal_to_quantization_noice_ratio(clean, noisy) for noisy in by_itself]
pd.Series(decibels, ["the worst three, as it runs", "the same, without that optimiser"], name="logits, dB").to_frame()

# %% [markdown]
# The layers are float now, and there is little to gain. The noisiest tensors in the middle are not the ones that matter:
# later layers average their noise away. The last layer has nobody behind it. So use the loss debug to find candidates,
# judge them by the output, and look at the graph that runs.
#
# ## Why not four times smaller?
#
# The report says that int8 makes a model four times smaller. Let us count the bytes.


# %%
def lean(file):
    """The model with nothing but what it needs to run: no shapes, no names of nodes, no notes. Returns its bytes."""
    proto = without_notes(onnx.load(file))
    del proto.graph.value_info[:], proto.metadata_props[:]
    for node in proto.graph.node:
        node.ClearField("name")
        node.ClearField("doc_string")
    return proto.SerializeToString()


# %% [markdown]
# The name of a tensor tells what it holds. Whatever is left over describes the graph: nodes, and names again and again.


# %%
def kind_of(name):
    if name.endswith(("_scale", "_zero_point")):
        return "scales" if name.endswith("_scale") else "zero points"
    return "biases" if "bias" in name else "weights"


def by_kind(file):
    data = lean(file)
    sizes = dict.fromkeys(["weights", "biases", "scales", "zero points"], 0)
    for tensor in onnx.load_from_string(data).graph.initializer:
        sizes[kind_of(tensor.name)] += onnx.numpy_helper.to_array(tensor).nbytes
    return sizes | {"nodes and names": len(data) - sum(sizes.values()), "all": len(data)}


# %%
size = pd.DataFrame({"float": by_kind("work/07_float.onnx")} | {form: by_kind(file) for form, file in forms.items()})
for form in forms:
    size[f"float ÷ {form}"] = (size["float"] / size[form]).round(2)
size.replace(0, "")

# %% [markdown]
# Weights: four times smaller, as promised. Biases stay 32 bits wide. Scales and zero points are new, and each node
# needs its name tags, whatever its numbers look like. In a QDQ file there are nearly three times as many nodes.
#
# These costs come per layer, and not per weight. So a model with more weights per layer comes closer to four. And the
# file that the exporter wrote was even larger, because of its notes: compare like with like.

# %%
ratios = {form: size.loc["all", "float"] / size.loc["all", form] for form in forms}
cu.claim(
    "int8-four-times-smaller",
    {
        "the weights shrink to a quarter": size.loc["weights", "float"] / size.loc["weights", "QDQ"] > 3.95,
        "biases do not shrink": size.loc["biases", "QDQ"] >= size.loc["biases", "float"],
        "scales and zero points are added": size.loc[["scales", "zero points"], "QDQ"].min() > 0,
        "the whole file, without notes, shrinks by at least 3.6": max(ratios.values()) >= 3.6,
        "and by less than 4": max(ratios.values()) < 4,
    },
)

# %% [markdown]
# ## Two to four times faster?
#
# A time depends on the machine, so the evidence must come from elsewhere. What we can count is how much of the **work** is
# done in int8. The work of a layer is its number of multiplications.


# %%
def multiplications(file):
    """For one picture: name of the weight → multiplications."""
    graph = onnx.load(file).graph
    size = {t.name: int(np.prod(t.dims)) for t in graph.initializer}
    shape = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.value_info}
    layers = [n for n in graph.node if n.op_type in ("Conv", "Gemm")]
    return {n.input[1]: size[n.input[1]] * int(np.prod(shape.get(n.output[0], [])[2:])) for n in layers}


work = multiplications("work/07_float.onnx")


def int8_share(file):
    """Per cent of the multiplications that the optimised graph does with int8 weights in an integer kernel."""
    kernels = [n for n in cu.optimized(file).graph.node if n.op_type in ("QLinearConv", "QGemm", "ConvInteger")]
    read = {name for node in kernels for name in node.input}
    return 100 * sum(count for name, count in work.items() if f"{name}_quantized" in read) / sum(work.values())


# %%
variants = {
    "float": "work/07_float.onnx",
    "dynamic, int8 weights": "work/07_dynamic_int8.onnx",
    "static, default types": "work/07_default.onnx",
    "static, uint8 × int8": "work/07_static.onnx",
}
times = timed(variants, {"image": pictures[:64]}, rounds=8, seconds=3)
in_int8 = {name: int8_share(file) for name, file in variants.items()}
print("vector extensions here:", ", ".join(cu.machine().extensions))
pd.DataFrame({"work in int8, %": in_int8, "× faster here": times.table["× faster"]}).style.format("{:.2f}")

# %% [markdown]
# Read both columns together. Where all work is done by *good* integer kernels, a processor with VNNI is clearly faster.
# Where a part of it stays in float, with conversions in between, the gain is gone, or worse. And the dynamic model does its
# convolutions in int8 and is slow: it is not the type that is fast, it is the kernel. `make bench` measures this for two
# models and two batch sizes on your machine, with nothing else running.

# %%
cu.claim(
    "int8-two-to-four-faster",
    {
        "static int8: more than 99 % of the multiplications run in integer kernels": in_int8["static, uint8 × int8"]
        > 99,
        "and no convolution is left in float": "Conv" not in operators,
        "between the nodes travels less than a third of the bytes": moved["static"]
        < cu.traffic(cu.optimized("work/07_float.onnx", "extended"), one)[["reads", "writes"]].to_numpy().sum() / 3,
        "an int8 file is no proof: with the default types, x86 leaves a part in float": in_int8["static, default types"]
        < 90
        or platform.machine() not in ("x86_64", "AMD64"),
        "and the dynamic one has a kernel of another kind": "ConvInteger" in nodes["dynamic"],
    },
)

# %% [markdown]
# ## float16
#
# Half of the bytes, and nearly nothing lost: why not simply use 16-bit floats? A converter comes with ONNX Runtime. We
# keep input and output as float32.

# %%
from onnxruntime.transformers.float16 import convert_float_to_float16

half = convert_float_to_float16(onnx.load("work/07_float.onnx"), keep_io_types=True)
onnx.save(half, "work/07_half.onnx")
pd.DataFrame(
    {
        "in the file": cu.op_histogram(half),
        "what runs, level none": cu.op_histogram(cu.optimized(half, "none")),
        "what runs, level all": cu.op_histogram(cu.optimized(half)),
    }
).fillna(0).astype(int).replace(0, "")

# %% [markdown]
# The file has two `Cast`, at its ends. On an x86 processor the session has added many more, because there is no kernel for
# `Conv` in float16: each weight is cast **back** to float32. At level *all* these casts are computed at load time, and what
# runs is the float32 model. So here float16 halves the file, and neither memory nor time. On a GPU it is another matter.
#
# ## Language models
#
# The report recommends dynamic quantization for language models. We take a sentence encoder: it turns a text into a
# vector, such that texts with a like meaning have vectors with a like direction. This needs the extra `nlp`. Without it, a
# small encoder with random weights stands in: same operators, no knowledge.


# %%
class StandIn(torch.nn.Module):
    """Ids and mask int64 [N, L] → .last_hidden_state float32 [N, L, 128]; two layers, random weights."""

    def __init__(self, width=128):
        super().__init__()
        self.words, self.norm = torch.nn.Embedding(5000, width), torch.nn.LayerNorm(width)
        self.project = torch.nn.ModuleList(torch.nn.Linear(width, 4 * width) for _ in range(2))
        self.narrow = torch.nn.ModuleList(torch.nn.Linear(2 * width, width) for _ in range(2))

    def forward(self, input_ids, attention_mask):
        x = self.norm(self.words(input_ids))
        for project, narrow in zip(self.project, self.narrow):
            q, k, v = (part.contiguous() for part in project(x).split([128, 128, 256], dim=-1))
            scores = q @ k.transpose(1, 2) / 11.3 + (attention_mask[:, None] - 1) * 1e4
            x = self.norm(x + narrow(torch.softmax(scores, -1) @ v))
        return type("Output", (), {"last_hidden_state": x})


# %%
sentences = """A cat sits on the mat. On the rug there is a kitten. The bank raised its interest rates.
Money will cost more from now on. She plays the violin every evening. He is a musician. It rains in London.
Tomorrow there will be a storm. How do I bake a cake? The recipe needs two eggs."""
sentences = sentences.replace("?", "?.").replace("\n", " ").removesuffix(".").split(". ")

# %%
folder = cu.minilm()
if folder:
    from transformers import AutoModel, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(folder)(sentences, padding=True, return_tensors="pt")
    ids, mask = tokens["input_ids"], tokens["attention_mask"]
    encoder = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
else:
    words = [[sum(map(ord, word)) for word in sentence.lower().split()] + [0] * 9 for sentence in sentences]
    ids = torch.tensor([line[:9] for line in words])
    mask, encoder = (ids > 0).long(), StandIn().eval()

# %% [markdown]
# We export with the older exporter, because it is faster here. The wrapper returns the one tensor that we want, the
# vectors of all words.


# %%
class Words(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = encoder

    def forward(self, ids, mask):
        return self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state


# %%
names = {"input_names": ["ids", "mask"], "output_names": ["vectors"]}
dynamic = {"dynamic_axes": {name: {0: "texts", 1: "words"} for name in ("ids", "mask", "vectors")}}
with cu.exporter_messages():
    torch.onnx.export(Words(), (ids, mask), "work/07_text.onnx", **names, **dynamic, dynamo=False, opset_version=17)

# %% [markdown]
# Two dynamic versions: all that can be quantized, and products only, with a scale per channel. And one with weights of
# **4 bits**: `MatMulNBits` cuts each weight matrix into blocks of 32 numbers, each with a scale of its own, and computes in
# float.

# %% tags=["remove-input"]
cu.quiz("07_quantization", 5)

# %%
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

quantize_dynamic("work/07_text.onnx", "work/07_text_all.onnx")
quantize_dynamic("work/07_text.onnx", "work/07_text_products.onnx", op_types_to_quantize=["MatMul"], per_channel=True)
quantizer = MatMulNBitsQuantizer(onnx.load("work/07_text.onnx"), bits=4, block_size=32)
quantizer.process()
quantizer.model.save_model_to_file("work/07_text_4bit.onnx")

# %% [markdown]
# What has become of the products?

# %%
text_files = {"float": "work/07_text.onnx", "dynamic int8": "work/07_text_all.onnx"}
text_files |= {"dynamic int8, products only": "work/07_text_products.onnx", "4-bit weights": "work/07_text_4bit.onnx"}
counts = pd.DataFrame({name: cu.op_histogram(file) for name, file in text_files.items()}).fillna(0).astype(int)
counts = counts[counts.index.str.contains("MatMul|QuantizeLinear|Gather$")]
counts.replace(0, "")

# %% [markdown]
# Every `MatMul` with a weight was replaced. Those that are left multiply two activations, inside attention. Now quality: do
# the vectors point where they did, and does each sentence keep its nearest neighbour?


# %%
def embed(file):
    """One vector of length 1 for each sentence: the mean over its words."""
    vectors = session(file, threads=0).run(None, {"ids": ids.numpy(), "mask": mask.numpy()})[0]
    mean = (vectors * mask.numpy()[..., None]).sum(1) / mask.numpy().sum(1, keepdims=True)
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)


def nearest(vectors):
    return (vectors @ vectors.T - 2 * np.eye(len(vectors))).argmax(1)


embedded = {name: embed(file) for name, file in text_files.items()}
quality = {name: float((v * embedded["float"]).sum(1).min()) for name, v in embedded.items()}
kept = {name: int((nearest(v) == nearest(embedded["float"])).sum()) for name, v in embedded.items()}
megabytes = {name: Path(file).stat().st_size / 1e6 for name, file in text_files.items()}
text_times = timed(text_files, {"ids": ids.numpy(), "mask": mask.numpy()}, rounds=8, seconds=3)
summary = pd.DataFrame({"MB": megabytes, "worst cosine to float": quality, "same neighbour, of 10": kept})
summary.assign(**{"× faster here": text_times.table["× faster"]}).style.format("{:.3g}")

# %%
for sentence, other in zip(sentences[:4], nearest(embedded["dynamic int8, products only"])):
    print(f"{sentence:38} ← {sentences[other]}")

# %% [markdown]
# Dynamic quantization fits here: no calibration data, a file nearer to a quarter than that of our small network, and good
# directions. Quantizing the table of words
# (`Gather`) saves most of the bytes and costs most of the quality. With products only, it is the other way round.
#
# The 4-bit file is not eight times smaller, because the table of words stays in float. Its kernel unpacks weights and
# multiplies in float, so it saves memory traffic. That pays for models of many gigabytes, and less for ours.
#
# One question is left: why not static here, too? Because ranges depend on the text. We count the integer kernels, and then
# look at the scales that the model computes for each of our sentences.

# %%
inner = cu.optimized("work/07_text_products.onnx")
weight_products = int(counts.loc["MatMul", "float"] - counts.loc["MatMul", "dynamic int8, products only"])
integer = cu.op_histogram(inner)
fused = sum(int(integer[name]) for name in integer.index if name.endswith(("DynamicQuantizeMatMul", "IntegerToFloat")))
{"products with a weight": weight_products, "integer kernels for them": fused}

# %% [markdown]
# The scales: `DynamicQuantizeLinear` writes them as its second output. We make them outputs of the model.

# %%
probe = onnx.load("work/07_text_products.onnx")
scales_inside = [n.output[1] for n in probe.graph.node if n.op_type == "DynamicQuantizeLinear"]
del probe.graph.output[:]
probe.graph.output.extend(onnx.helper.make_tensor_value_info(s, onnx.TensorProto.FLOAT, []) for s in scales_inside)
watched = ort.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
seen = [watched.run(None, {"ids": ids[i : i + 1].numpy(), "mask": mask[i : i + 1].numpy()}) for i in range(len(ids))]
spread = float((np.max(seen, 0) / np.min(seen, 0)).max())
print(f"largest ÷ smallest scale of one tensor: {spread:.2f}")

# %%
cu.claim(
    "dynamic-suits-nlp",
    {
        "every product with a weight becomes an integer product": counts.loc[
            "MatMulInteger", "dynamic int8, products only"
        ]
        == weight_products,
        "and runs in a fused kernel that scales in the same go": fused == weight_products,
        "it needed no calibration data, and scales follow the text": spread > 1.1,
        "the vectors keep their direction (cosine above 0.95)": quality["dynamic int8, products only"] > 0.95,
        "MiniLM, where installed: each sentence keeps its neighbour": not folder
        or kept["dynamic int8, products only"] == len(sentences),
    },
)

# %% [markdown]
# ## All in one picture
#
# All variants of this lesson: size to the right, speed upwards, and what is lost as the colour. Some are slow, so
# the loss is that on the first 1 000 test images.

# %%
how = settings | {"per_channel": False}
quantize_static("work/07_float.onnx", "work/07_tensor.onnx", Reader(calibration[:100]), **how)
variants |= {
    "dynamic, uint8 weights": "work/07_dynamic_uint8.onnx",
    "static, per tensor": "work/07_tensor.onnx",
    "static, QOperator": "work/07_qoperator.onnx",
    "static, last layer float": "work/07_without_layer.onnx",
    "float16": "work/07_half.onnx",
}

# %%
known = {"float": logits["float"], "static, uint8 × int8": logits["QDQ"], "static, QOperator": logits["QOperator"]}
results = {}
for name, file in variants.items():
    got = known[name][:1000] if name in known else answers(file, 1000)
    results[name] = {"KiB": len(lean(file)) / 1024, "points lost": accuracy(logits["float"][:1000]) - accuracy(got)}
results = pd.DataFrame(results).T
results["× faster"] = timed(variants, {"image": pictures[:32]}, rounds=6, seconds=3).table["× faster"]
results.style.format("{:.2f}")

# %%
text = pd.DataFrame({"size": megabytes, "lost": 1 - pd.Series(quality), "× faster": text_times.table["× faster"]})
panels = [("fashion_resnet", results.set_axis(text.columns, axis=1), "KiB", "points of accuracy lost")]
panels += [("MiniLM" if folder else "random encoder", text, "MB", "1 − worst cosine to float")]
figure, axes = plt.subplots(1, 2, figsize=(9.5, 5.4))
for axis, (title, table, unit, loss) in zip(axes, panels):
    spots = axis.scatter(table["size"], table["× faster"], s=120, c=table["lost"], cmap="viridis_r", edgecolor="black")
    figure.colorbar(spots, location="bottom", label=loss)
    for i, (name, row) in enumerate(table.iterrows(), 1):
        axis.annotate(str(i), row[["size", "× faster"]], xytext=(8 + 9 * (i % 5), -4), textcoords="offset points")
        axis.plot([], [], " ", label=f"{i}: {name}")
    axis.axhline(1, color="C6", linewidth=1)
    axis.set_title(
        f"{title}: {table['× faster'].idxmax()}\nis {table['× faster'].max():.1f}× as fast as float", fontsize=10
    )
    axis.set(
        xlabel=unit,
        xlim=(0, table["size"].max() * 1.12),
        ylim=(0, 1.4 * table["× faster"].max()),
        ylabel="times as fast as float",
    )
    axis.legend(fontsize=8, loc="upper right", handlelength=0, handletextpad=0)
plt.show()

# %% [markdown]
# Upper left is good. On the left, static int8 with the right types stands alone, and its loss is as small as that of the
# others. The dynamic models are as small, and slow; float16 gains nothing but disk. On the right, it is dynamic int8. Size
# alone tells nothing about speed.
#
# ## Play
#
# Choose a layer and a way. The comb under the histogram shows the values that are left. What does one wide channel do to
# the others? How many integers does a narrow channel use, with one scale for the tensor and with its own?

# %%
cu.scale_explorer(
    {
        name.removesuffix(".weight"): kernels[name]
        for name in ("stem.0.weight", "stage1.0.shortcut.0.weight", "stage2.2.conv2.weight")
    }
)

# %% [markdown]
# ## Recap
#
# - Divide by the scale, round to even, add the zero point, cut off: with that you get the runtime's bits.
# - A scale per channel for weights, uint8 for activations on x86. Then look at the graph that **runs**.
# - Static for convolutions, dynamic for products of large matrices. Integers without a kernel are slow.
# - Calibration needs few examples, of the right kind. Wrong ones give no error.
# - One wide channel can ruin int8. Loss debug finds it; leave both layers around it in float.
# - Judge by all three: size, speed, accuracy, on your data and your machine.
#
# **Next:** the [exercises of this lesson](exercises/07_quantization.ipynb). After them, `08_deployment` takes the model to
# the places where it is used.
