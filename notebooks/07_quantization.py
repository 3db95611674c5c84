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
# - find the layer in which int8 loses the accuracy, and mend the model,
# - choose between float16, int8 and int4 by size, speed and accuracy.

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
table = pd.DataFrame({"real": real, "÷ scale": real / scale})
table["integer"] = quantize(real, scale, zero_point)
table["back"] = dequantize(table["integer"].to_numpy(), scale, zero_point)
table["error"] = table["back"] - table["real"]
table

# %% [markdown]
# Three things to see. Zero comes back as exactly zero: that is what the zero point is for, and networks are full of zeros
# (padding, ReLU). A number half-way between two integers goes to the **even** one. And what lies beyond the last integer
# is cut off, at both ends: of 200 little is left, and with the zero point 2 nothing is below -1.
#
# ## The same in ONNX
#
# The operators are [`QuantizeLinear`](https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html) and
# [`DequantizeLinear`](https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html). This graph has one of each. Scale
# and zero point are inputs, so that we can try many.

# %%
import onnx
import onnxruntime as ort


def both_ways(dtype, x="[n]", scale="", axis=""):
    """A session with both operators. x, scale: shapes; empty: a scalar."""
    text = f"""<ir_version: 10, opset_import: ["": 21]>
        both (float{x} x, float{scale} s, {dtype}{scale} z) => ({dtype}{x} q, float{x} y) {{
            q = QuantizeLinear {axis} (x, s, z)
            y = DequantizeLinear {axis} (q, s, z)
        }}"""
    model = onnx.parser.parse_model(text).SerializeToString()
    return ort.InferenceSession(model, providers=["CPUExecutionProvider"])


# %% [markdown]
# Now thousands of numbers that are hard to round: random ones, some exactly half-way between two integers, some far
# outside of the range, and infinity.

# %%
draw = np.random.default_rng(0)


def hard_numbers(scale):
    x = (draw.normal(size=500) * draw.uniform(0.1, 300)).astype(np.float32)
    x[:40] = scale * (np.arange(-20, 20) + np.float32(0.5))
    x[40:42] = np.inf, -np.inf
    return x


# %% [markdown]
# With 200 random scales and zero points, we ask for the same **bits**, not for *nearly the same*.


# %%
def different_bits(dtype, rounds=200):
    running, limits, wrong = both_ways(np.dtype(dtype).name), np.iinfo(dtype), 0
    for _ in range(rounds):
        scale = draw.uniform(0.001, 2, ()).astype(np.float32)
        zero = draw.integers(limits.min, limits.max, (), dtype, endpoint=True)
        x = hard_numbers(scale)
        q, y = running.run(
            None, {"x": x, "s": np.asarray(scale), "z": np.asarray(zero)}
        )
        mine = quantize(x, scale, zero, dtype)
        back = dequantize(mine, scale, np.int32(zero))
        wrong += (mine != q).sum() + (back.view(np.int32) != y.view(np.int32)).sum()
    return int(wrong)


different = {"uint8": different_bits(np.uint8), "int8": different_bits(np.int8)}
different

# %% [markdown]
# Not one bit is different. A tensor may also have **one scale for each channel**: then scale and zero point are vectors,
# and `axis` says along which axis of the tensor they run.

# %%
sizes = np.float32([[0.01], [0.1], [1], [2], [10], [100]])
x = draw.normal(size=(6, 400)).astype(np.float32) * sizes
scales = np.abs(x).max(1) / np.float32(127)
by_channel = both_ways("int8", "[n, m]", "[n]", "<axis = 0>")
q, y = by_channel.run(None, {"x": x, "s": scales, "z": np.zeros(6, np.int8)})
mine = quantize(x, scales[:, None], 0, np.int8)
same_by_channel = np.array_equal(mine, q)
same_back = np.array_equal(dequantize(mine, scales[:, None], 0), y)

# %%
cu.claim(
    "dequantize-formula",
    {
        "uint8: our NumPy and ONNX Runtime agree bit for bit": different["uint8"]
        == 0,
        "int8: so they do": different["int8"] == 0,
        "with one scale for each channel, too": same_by_channel and same_back,
        "real zero comes back as zero": table["back"][1] == 0,
    },
)

# %% [markdown]
# NaN is the exception: the standard does not say what becomes of it. We come back to that.
#
# ## Two ways to choose the scale
#
# The formula does not say where scale and zero point come from.
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
    """Scale and zero point. axis: over which axes the range is taken; None: all."""
    low, high = values.min(axis, keepdims=True), values.max(axis, keepdims=True)
    if symmetric:
        return np.maximum(-low, high) / np.float32(2 ** (bits - 1) - 1), np.int32(0)
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    scale = (high - low) / np.float32(2**bits - 1)
    return scale, np.rint(-low / scale).astype(np.int32)


# %% [markdown]
# We need real weights. Here is our trained network, exported with
# [`torch.onnx.export`](https://docs.pytorch.org/docs/stable/onnx_export.html) as in the lessons before.

# %%
import torch

names = {"input_names": ["image"], "output_names": ["logits"]}
dynamic = {"dynamic_shapes": ({0: torch.export.Dim("batch")},)}
with cu.exporter_messages():
    torch.onnx.export(
        cu.fashion_resnet(),
        (torch.randn(2, 1, 28, 28),),
        "work/07_exported.onnx",
        **names,
        **dynamic,
        external_data=False,
        verbose=False,
    )

# %%
exported = onnx.load("work/07_exported.onnx")
weights = {
    t.name: onnx.numpy_helper.to_array(t) for t in exported.graph.initializer
}
kernels = {name: values for name, values in weights.items() if values.ndim == 4}
len(kernels)

# %% [markdown]
# For each of these kernels and each of four ways: how large is the error of a typical weight? We measure it in parts of
# the typical weight (root mean square of both).

# %%
WAYS = {
    "symmetric, per tensor": (None, True),
    "asymmetric, per tensor": (None, False),
    "symmetric, per channel": ((1, 2, 3), True),
    "asymmetric, per channel": ((1, 2, 3), False),
}


def relative_error(values, axis, symmetric):
    scale, zero = ranges(values, axis, symmetric)
    whole = quantize(values, scale, zero, np.int8 if symmetric else np.uint8)
    error = dequantize(whole, scale, zero) - values
    return np.sqrt(np.mean(error**2) / np.mean(values**2))


# %%
errors = pd.DataFrame(index=kernels)
for way, how in WAYS.items():
    errors[way] = [relative_error(values, *how) for values in kernels.values()]
gain = errors.rdiv(errors["symmetric, per tensor"], axis=0).median()
assert gain["symmetric, per channel"] > 1.5 > gain["asymmetric, per tensor"] > 1

# %%
import matplotlib.pyplot as plt

title = (
    f"A scale per channel divides the error by {gain['symmetric, per channel']:.1f}"
)
axes = (100 * errors).plot(marker="o", figsize=(7.2, 4), title=title)
axes.set(ylabel="error, % of a typical weight", xticks=range(len(errors)))
axes.set_ylim(0, 130 * errors.max().max())  # room for the legend
axes.legend(ncols=2, loc="upper center")
layers = [name.removesuffix(".weight") for name in errors.index]
axes.set_xticklabels(layers, rotation=60, ha="right")
plt.show()

# %% [markdown]
# A scale per channel is the larger step. One wide channel no longer decides for all the others, and the price is a few
# more scales. The asymmetric way gains less, because weights lie on both sides of zero.
#
# ## Prepare the file
#
# ONNX Runtime comes with tools for all this, in
# [`onnxruntime.quantization`](https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html). The
# simplest is `quantize_dynamic`: a file goes in, a file comes out. The tools change the graph as it stands in the file.
# So their log advises to call `quant_pre_process` before: it infers all shapes anew and optimises the graph. Here we want
# errors only.

# %%
import logging

from onnxruntime.quantization import QuantType, quant_pre_process, quantize_dynamic

logging.getLogger().setLevel(logging.ERROR)


def outcome(function, *arguments, **options):
    """ "works", or the first line of the error."""
    try:
        function(*arguments, **options)
        return "works"
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"


# %% [markdown]
# Is the advice worth following? We try it without and with:

# %%
quant_pre_process("work/07_exported.onnx", "work/07_processed.onnx")
made = {
    "as exported": outcome(
        quantize_dynamic, "work/07_exported.onnx", "work/07_dynamic.onnx"
    ),
    "processed before": outcome(
        quantize_dynamic, "work/07_processed.onnx", "work/07_dynamic.onnx"
    ),
}
assert made["processed before"] == "works"
pd.Series(made, name="quantize_dynamic").to_frame()

# %% [markdown]
# The first row depends on the version of ONNX Runtime. In 1.31 it is an error: the exporter writes down the shapes of
# the weights, too, and the tool transposes the last weight and does not update its shape. A later version may accept it.
# The second row works, so always do this step. From now on we work with its result. We also take out the notes that the
# exporter left on each node: they are no part of the model.

# %%
FLOAT = "work/07_float.onnx"


def without_notes(model):
    for node in model.graph.node:
        del node.metadata_props[:]
    del model.graph.metadata_props[:]
    return model


onnx.save(without_notes(onnx.load("work/07_processed.onnx")), FLOAT)
cu.op_histogram(FLOAT).to_frame().T

# %% [markdown]
# ## Dynamic quantization
#
# *Dynamic* means: weights become integers beforehand, activations at run time. For each tensor, in each run, the model
# looks for the smallest and the largest value and computes a scale from them.

# %%
quantize_dynamic(FLOAT, "work/07_dynamic_int8.onnx", weight_type=QuantType.QInt8)
quantize_dynamic(FLOAT, "work/07_dynamic_uint8.onnx", weight_type=QuantType.QUInt8)
cu.op_histogram("work/07_dynamic_int8.onnx").to_frame()

# %% [markdown]
# A `Conv` has become four nodes:
# [`DynamicQuantizeLinear`](https://onnx.ai/onnx/operators/onnx__DynamicQuantizeLinear.html) for the activation,
# `ConvInteger` for the product, a `Cast` of the sum and a `Mul` with the scales. Then the bias is added. The integers
# are in the file. Is it faster?

# %% tags=["remove-input"]
cu.quiz("07_quantization", 2)

# %%
images, labels = cu.fashion_mnist("test")
pictures = cu.normalize(images)


def session(file, threads=1, **more):
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(
        file, options, providers=["CPUExecutionProvider"], **more
    )


def timed(models, feed, **how):
    """The stopwatch over several files or sessions, one thread each."""
    is_session = {
        name: isinstance(model, ort.InferenceSession)
        for name, model in models.items()
    }
    sessions = {
        name: model if is_session[name] else session(model)
        for name, model in models.items()
    }
    calls = {name: lambda s=s: s.run(None, feed) for name, s in sessions.items()}
    return cu.compare(calls, warmup=1, seconds=2, **how)


# %% [markdown]
# The same 16 pictures, three files:

# %%
files = {
    "float": FLOAT,
    "dynamic, int8 weights": "work/07_dynamic_int8.onnx",
    "dynamic, uint8 weights": "work/07_dynamic_uint8.onnx",
}
timed(files, {"image": pictures[:16]}, rounds=10)

# %% [markdown]
# In the last column, 0.1 means ten times **slower** than float. It is below 1 on all processors that we know, with uint8
# weights too. The profile of lesson 06 shows where the time goes.

# %%
import json
from pathlib import Path


def profile(file, feed):
    """The events of the nodes, in three runs with one thread, as a table."""
    options = ort.SessionOptions()
    options.enable_profiling, options.intra_op_num_threads = True, 1
    options.profile_file_prefix = "work/07_profile"
    running = ort.InferenceSession(
        file, options, providers=["CPUExecutionProvider"]
    )
    for _ in range(3):
        running.run(None, feed)
    record = Path(running.end_profiling())
    events = pd.DataFrame(json.loads(record.read_text()))
    record.unlink()
    return events[events["name"].str.endswith("_kernel_time")]


# %% [markdown]
# How much of the time does each operator take, if we count its fastest run?

# %%
events = profile("work/07_dynamic_int8.onnx", {"image": pictures[:16]})
operator = events["args"].str["op_name"].rename("operator")
fastest = events.groupby([operator, "name"])["dur"].min().groupby(level=0).sum()
share = 100 * fastest / fastest.sum()
share.sort_values(ascending=False).head(4).round(1).to_frame("% of the time")

# %% [markdown]
# Nearly all of it is `ConvInteger` itself. ONNX Runtime has excellent kernels for float convolutions, and only a simple
# one for this operator. A file full of integers need not be fast: there must be a
# good **kernel** for it.
#
# ## Static quantization
#
# *Static* means: the ranges of activations are measured beforehand, on examples. This is **calibration**. Then all scales
# are constants. ONNX Runtime asks for the examples by calling a *data reader* until it returns nothing.

# %%
from onnxruntime.quantization import CalibrationDataReader, quantize_static


class Reader(CalibrationDataReader):
    """Hands out pictures in batches of 50."""

    def __init__(self, pictures):
        self.batches = iter(
            [pictures[i : i + 50] for i in range(0, len(pictures), 50)]
        )

    def get_next(self):
        batch = next(self.batches, None)
        return None if batch is None else {"image": batch}


# %% [markdown]
# A hundred training pictures, and nothing but defaults:

# %%
train_images, train_labels = cu.fashion_mnist("calibration")
calibration = cu.normalize(train_images)
quantize_static(FLOAT, "work/07_default.onnx", Reader(calibration[:100]))
cu.op_histogram("work/07_default.onnx").to_frame()

# %% [markdown]
# In this file all `Conv` are still there. Before and after each of them stand pairs of `QuantizeLinear` and
# `DequantizeLinear`. This form is called **QDQ**: the graph still computes in float, and the pairs say *here a tensor may
# be int8*. But all `Relu` are gone. Which integer stands for 0 behind them?

# %%
default = onnx.load("work/07_default.onnx")
behind_relu = [t for t in default.graph.initializer if t.name.startswith("relu")]
points = [t for t in behind_relu if t.name.endswith("zero_point")]
zeros = {int(onnx.numpy_helper.to_array(t)) for t in points}
assert zeros == {np.iinfo(np.int8).min}
zeros

# %% [markdown]
# The lowest one. So saturation cuts off the negative numbers, and a `Relu` would have nothing left to do.
#
# It is the runtime that has to make integer kernels of the pairs, when it optimises.

# %% tags=["remove-input"]
cu.quiz("07_quantization", 3)

# %%
import platform

X86 = platform.machine() in ("x86_64", "AMD64")
running = cu.optimized("work/07_default.onnx")
in_default = cu.op_histogram(running)
assert not X86 or 0 < in_default["com.microsoft::QLinearConv"] < 15
in_default.to_frame()

# %% [markdown]
# Where a convolution became `QLinearConv`, it computes in int8. On an x86 processor only a part of them did. The others
# are `Conv` in float, with conversions around them. The help of the tool says which types to take on each processor.
# Its lines for x86:

# %%
import inspect

guidance = [
    part
    for part in inspect.getdoc(quantize_static).split("\n\n")
    if part.lstrip("- ").startswith("x86")
]
print(
    "\n".join(guidance)
    or "The help of this version of ONNX Runtime does not say it."
)

# %% [markdown]
# | processor | activations | weights | `reduce_range` |
# |---|---|---|---|
# | x86 with VNNI | uint8 | int8 | no |
# | x86 without VNNI | uint8 | int8 | yes: 7 bits for weights |
# | ARM (not run here) | int8 | int8 | no |
# | GPU, TensorRT (not run here) | int8, symmetric | int8, symmetric | – |
#
# The last row is not in that help: TensorRT takes symmetric int8 only, as NVIDIA's guide to it says. The default, int8
# for both, is the choice for ARM. On x86 the optimiser converts int8 tensors to uint8, but not all of them. We count how
# many nodes read each tensor.

# %%
graph, type_name = running.graph, onnx.TensorProto.DataType.Name
kind = {t.name: type_name(t.data_type) for t in graph.initializer}
to_int = [n for n in graph.node if n.op_type == "QuantizeLinear"]
readers = pd.Series([name for n in graph.node for name in n.input]).value_counts()
tensors = [(kind[n.input[2]], readers[n.output[0]]) for n in to_int]
assert not X86 or set(tensors) == {("UINT8", 1), ("INT8", 2)}
pd.DataFrame(tensors, columns=["type", "readers"]).value_counts().to_frame(
    "tensors"
)

# %% [markdown]
# It skips a tensor that two nodes read, and each shortcut of a residual network is one. A convolution between an int8 and
# a uint8 tensor then fits no kernel. So we write what the help says for our processor. We also ask for a scale per
# channel. By the help it costs a little speed, and above it made the error of the weights much smaller.

# %%
settings = {
    "activation_type": QuantType.QUInt8,
    "weight_type": QuantType.QInt8,
    "per_channel": True,
}
quantize_static(FLOAT, "work/07_static.onnx", Reader(calibration[:100]), **settings)
running = cu.optimized("work/07_static.onnx")
operators = cu.op_histogram(running)
assert operators["com.microsoft::QLinearConv"] == 15 and "Conv" not in operators
operators.to_frame()

# %% [markdown]
# All fifteen. The pairs are gone: two conversions are left at the ends, and a few around the mean. Scales, zero points and
# integers are stored in the file. So we can check a weight against our own formula.


# %%
def initializers(file):
    tensors = onnx.load(file).graph.initializer
    return {t.name: onnx.numpy_helper.to_array(t) for t in tensors}


stored, floats = initializers("work/07_static.onnx"), initializers(FLOAT)
name = "stage1.0.conv2.weight"
scale, zero = ranges(floats[name], (1, 2, 3), symmetric=True)
assert np.array_equal(scale.ravel(), stored[f"{name}_scale"])
mine = quantize(floats[name], scale, zero, np.int8)
different = int((mine != stored[f"{name}_quantized"]).sum())
assert different == 0
different

# %% [markdown]
# Not one is different. The bias is int32: it is added to a sum of many products of 8-bit numbers, and such a sum needs
# 32 bits.
#
# Why 7 bits without VNNI? Such processors add two products in 16 bits, and 2 × 255 × 127 is more than the 32 767 that
# fit.
#
# ## Two forms: QDQ and QOperator
#
# The second form, **QOperator**, writes the integer operators right into the file.

# %%
from onnxruntime.quantization import QuantFormat

how = settings | {"quant_format": QuantFormat.QOperator}
quantize_static(FLOAT, "work/07_qoperator.onnx", Reader(calibration[:100]), **how)
forms = {"QDQ": "work/07_static.onnx", "QOperator": "work/07_qoperator.onnx"}
table = {}
for form, file in forms.items():
    table[f"{form}, file"] = cu.op_histogram(file)
    table[f"{form}, runs"] = cu.op_histogram(cu.optimized(file))
table = pd.DataFrame(table).fillna(0).astype(int)
assert (table["QDQ, runs"] == table["QOperator, runs"]).all()
table.replace(0, "")

# %% [markdown]
# What runs is the same, here and with this version: `com.microsoft::QLinearConv` is the same operator for tensors whose
# last axis is the channel. QDQ has standard operators only, so any runtime can read it, and each
# makes of it what its hardware can do. The help prefers it strongly, also for CPUs. QOperator has fewer nodes, so its
# file is a little smaller, and it needs a runtime that knows operators like `QGemm`. Take it only where those bytes count.
#
# Now the accuracy, on all 10 000 test images.


# %%
def answers(file, count=10_000, **more):
    running = session(
        file, threads=0, **more
    )  # 0: one for each core; nothing is timed
    batches = [pictures[i : i + 500] for i in range(0, count, 500)]
    return np.concatenate(
        [running.run(None, {"image": batch})[0] for batch in batches]
    )


def accuracy(logits):
    return 100 * (logits.argmax(1) == labels[: len(logits)]).mean()


# %%
logits = {"float": answers(FLOAT), "QDQ": answers("work/07_static.onnx")}
accuracies = {form: accuracy(values) for form, values in logits.items()}
assert accuracies["float"] - accuracies["QDQ"] <= 0.5
same = answers("work/07_qoperator.onnx", 2000).argmax(1) == logits["QDQ"][
    :2000
].argmax(1)
assert same.mean() > 0.995
pd.Series(accuracies, name="% of 10 000 images").round(2).to_frame()

# %% [markdown]
# Less than half a point is lost. So why is static the way for convolutional networks? Compare what the two graphs have
# to do in a run.

# %%
graphs = {
    "float": cu.optimized(FLOAT, "extended"),
    "dynamic": cu.optimized("work/07_dynamic_int8.onnx", "extended"),
    "static": cu.optimized("work/07_static.onnx", "extended"),
}
nodes, moved = {}, {}
for way, graph in graphs.items():
    nodes[way] = cu.op_histogram(graph)
    traffic = cu.traffic(graph, {"image": pictures[:1]})
    moved[way] = int(traffic[["reads", "writes"]].to_numpy().sum())
count = {way: histogram.sum() for way, histogram in nodes.items()}
pd.DataFrame({"nodes": count, "bytes between them": moved})

# %% [markdown]
# A static model has its ranges in the file, and its tensors are int8 from node to node. A dynamic one computes ranges in
# each run, and goes back to float after each layer.

# %%
looks = nodes["dynamic"]["DynamicQuantizeLinear"]
lost, fourfold = accuracies["float"] - accuracies["QDQ"], 4 * moved["static"]
in_int8 = operators["com.microsoft::QLinearConv"]
cu.claim(
    "static-suits-cnn",
    {
        "static: every convolution runs as QLinearConv": in_int8 == 15,
        "dynamic: every one runs as ConvInteger": nodes["dynamic"]["ConvInteger"]
        == 15,
        "dynamic looks for a range more than ten times in each run": looks > 10,
        "static never does": "DynamicQuantizeLinear" not in nodes["static"],
        "static moves less than a quarter of the bytes": fourfold
        < moved["dynamic"],
        "and loses at most half a point on 10 000 images": lost <= 0.5,
    },
)

# %% [markdown]
# ## Calibration
#
# Which examples, how many, and how is a range made of them? ONNX Runtime offers several methods:
#
# - **MinMax** takes the smallest and the largest value that occurs.
# - **Percentile** leaves out the outermost values, half of them at each end: by default 0.001 % in all, here 1 %.
# - **Entropy** looks for the range that changes the distribution least.

# %% tags=["remove-input"]
cu.quiz("07_quantization", 4)

# %% [markdown]
# We try them on good and on bad data. One set has a *broken picture*: one of the hundred was forgotten when pixels were
# normalised, so it has values up to 255. To save time, each cell of the grid uses the first 500 test images.

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

# %%
import contextlib
import io

from onnxruntime.quantization import CalibrationMethod


def calibrated(data, method, **options):
    how = {"calibrate_method": CalibrationMethod[method], "extra_options": options}
    with contextlib.redirect_stdout(
        io.StringIO()
    ):  # some methods print what they do
        quantize_static(FLOAT, "work/07_try.onnx", Reader(data), **settings, **how)
    return accuracy(answers("work/07_try.onnx", 500))


# %% [markdown]
# Seven sets, two methods:

# %%
grid = pd.DataFrame(index=sets)
for method, options in {
    "MinMax": {},
    "Percentile": {"CalibPercentile": 99.0},
}.items():
    grid[method] = [calibrated(data, method, **options) for data in sets.values()]

# %%
worst, reference = grid.stack().idxmin()[0], accuracy(logits["float"][:500])
figure, axes = plt.subplots(figsize=(7.2, 4))
axes.imshow(grid, cmap="cividis", vmin=0, vmax=100, aspect="auto")
axes.set_xticks(range(len(grid.columns)), grid.columns)
axes.set_yticks(range(len(grid)), grid.index)
for (row, column), value in np.ndenumerate(grid.to_numpy()):
    ink = "black" if value > 60 else "white"
    axes.text(column, row, f"{value:.1f}", ha="center", va="center", color=ink)
axes.grid(False)
least = grid.min().min()
axes.set_title(
    f"{worst}: {least:.0f} % accuracy is left (float: {reference:.1f} %)"
)
plt.show()

# %% [markdown]
# From top to bottom:
#
# - **How many** hardly matters here: a single picture gives nearly the full accuracy. Our network is small and its
#   normalised layers all have similar ranges. Do not count on it with other models.
# - **One class** of pictures is enough, too: to a range it does not matter what a picture shows.
# - **The wrong range of pixels** ruins the model. No error, no warning: the file is fine, and the answers are not.
# - **One broken picture** is enough to ruin MinMax. Percentile, which cuts off 1 %, is not harmed.
#
# And Entropy? It cuts the range into bins and tries how many of them to keep, but at least 128. `quantize_static` gives it
# 128 bins to begin with: there is nothing to try. So it should store the scales of MinMax, even with the broken picture:


# %%
stored_with = {}
for method in ("MinMax", "Entropy"):
    calibrated(broken, method)
    stored_with[method] = initializers("work/07_try.onnx")
entropy_is_minmax = all(
    np.array_equal(v, stored_with["Entropy"][k])
    for k, v in stored_with["MinMax"].items()
)
assert entropy_is_minmax
{"Entropy stores what MinMax stores": entropy_is_minmax}

# %%
lost = reference - grid
good, least_lost = lost["MinMax"], lost.min(axis=1)


def try_data(data):
    return outcome(
        quantize_static, FLOAT, "work/07_bad.onnx", Reader(data), **settings
    )


refused = try_data(calibration[:0]).startswith("ValueError")
cu.claim(
    "calibration-needed",
    {
        "without data ONNX Runtime refuses": refused,
        "100 pictures lose less than a point": good["100 pictures"] < 1,
        "a small set is enough: so do 10": good["10 pictures"] < 1,
        "raw pixels lose more than 30 points": least_lost["pixels from 0 to 255"]
        > 30,
        "so do pixels of a wrong scale": least_lost["pixels from 0 to 1"] > 30,
    },
)

# %% [markdown]
# ## Faults without a message
#
# Other bad input, and what ONNX Runtime makes of it: NaN in one picture, and infinity in one pixel.

# %%
import warnings

nan, infinite = calibration[:50].copy(), calibration[:50].copy()
nan[3], infinite[3, 0, 5, 5] = np.nan, np.inf
said = {}
bad_data = {"NaN in one picture": nan, "infinity in one pixel": infinite}
for what, data in bad_data.items():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, about the numbers
        said[what] = {"quantize_static": try_data(data)}
    said[what]["accuracy, %"] = accuracy(answers("work/07_bad.onnx", 1000))
    scale = initializers("work/07_bad.onnx")["image_scale"]
    said[what]["scale of the input"] = float(scale)

# %%
said = pd.DataFrame(said).T
assert (said["quantize_static"] == "works").all()
assert list(np.isfinite(said["scale of the input"].astype(float))) == [True, False]
said

# %% [markdown]
# NaN is skipped when the range is taken, without a message. One infinite pixel gives an infinite scale, and a useless
# model, with no error either. `cu.Calibration` is a data reader like ours that checks model and data first.
# `cu.ready_to_quantize` checks the model alone: is it quantized already? You will use the first of them in the exercises.

# %%
attempts = {
    "NaN": lambda: cu.Calibration(FLOAT, {"image": nan}),
    "infinity": lambda: cu.Calibration(FLOAT, {"image": infinite}),
    "no picture": lambda: cu.Calibration(FLOAT, {"image": calibration[:0]}),
    "wrong shape": lambda: cu.Calibration(FLOAT, {"image": calibration[:, 0]}),
    "quantized": lambda: cu.ready_to_quantize("work/07_static.onnx"),
}
refused = {what: outcome(attempt) for what, attempt in attempts.items()}
assert "works" not in refused.values()
pd.Series(refused, name="the course says").str.removeprefix(
    "CourseError: "
).to_frame()

# %% [markdown]
# ## When int8 collapses
#
# Here is a model that computes **the same** as ours, and that int8 ruins. In one block we multiply the output
# channel 3 of the first convolution by *k*, and divide what the second one makes of it by *k*. Between the two is only a
# ReLU, which lets a positive factor pass.

# %%
first, second = "stage2.0.conv1.weight", "stage2.0.conv2.weight"


def stretched(k, channel=3):
    """Our network with one wide channel, as a file; its results do not change."""
    proto, file = onnx.load(FLOAT), f"work/07_stretched_{k}.onnx"
    tensors = {t.name: t for t in proto.graph.initializer}
    changes = [(first, k, 0), (f"{first}_bias", k, 0), (second, 1 / k, 1)]
    for name, factor, axis in changes:
        values = onnx.numpy_helper.to_array(tensors[name]).copy()
        values.swapaxes(0, axis)[channel] *= np.float32(factor)
        tensors[name].CopyFrom(onnx.numpy_helper.from_array(values, name))
    onnx.save(proto, file)
    return file


# %% [markdown]
# We quantize it in three ways. In the last one, `nodes_to_exclude` leaves the two convolutions in float.


# %%
def static(source, target, **options):
    """quantize_static with our settings and 50 pictures; returns the target."""
    reader = cu.Calibration(source, {"image": calibration[:50]})
    quantize_static(source, target, reader, **(settings | options))
    return target


node_of = {
    n.input[1]: n.name for n in onnx.load(FLOAT).graph.node if len(n.input) > 1
}
sick = [node_of[first], node_of[second]]
rescues = {
    "per tensor": {"per_channel": False},
    "per channel": {},
    "per channel, two layers in float": {"nodes_to_exclude": sick},
}

# %% [markdown]
# *k* = 1 is our own network. The float accuracy must not move.

# %%
rows = {}
for k in (1, 64, 256, 4096):
    file = stretched(k)
    rows[k] = {"float": accuracy(answers(file, 500))}
    for rescue, options in rescues.items():
        quantized = static(file, "work/07_try.onnx", **options)
        rows[k][rescue] = accuracy(answers(quantized, 500))
collapse = pd.DataFrame(rows).T
lost = -collapse.sub(collapse["float"], axis=0)
assert np.ptp(collapse["float"]) <= 0.5
assert lost["per channel"][256] + 10 < lost["per tensor"][256]
assert lost["per channel"][4096] > 20
assert lost["per channel, two layers in float"].max() < 1.5

# %%
title = f"The same function, and int8 loses {lost['per channel'][4096]:.0f} points"
axes = collapse.plot(marker="o", logx=True, title=title)
axes.lines[0].set(linewidth=7, alpha=0.4)  # the last line lies on it
axes.set(xlabel="factor k of one channel", ylabel="accuracy on 500 images, %")
axes.set(ylim=(0, 100), xticks=list(rows), xticklabels=rows)
axes.minorticks_off()
axes.legend(loc="lower left")
plt.show()

# %% [markdown]
# With one scale per tensor, the wide channel takes nearly all integers, and the other 63 channels share a few. At
# *k* = 256 a scale per channel still helps. At *k* = 4096 it does not: **activations** always have one scale per tensor,
# and the wide channel takes it. Left in float, the two layers do no harm.
#
# ## Find the layer
#
# With a model of your own you do not know which layer it is. `onnxruntime.quantization.qdq_loss_debug` helps: it
# compares weights and activations of a float model and its QDQ form. First the weights, with one scale per tensor.

# %%
from onnxruntime.quantization import qdq_loss_debug as debug

pairs, matching = {}, {}
sources = {"healthy": FLOAT, "stretched": "work/07_stretched_4096.onnx"}
for kind, source in sources.items():
    quantized = static(source, f"work/07_debug_{kind}.onnx", per_channel=False)
    pairs[kind] = source, quantized
    matching[kind] = debug.create_weight_matching(source, quantized)

# %%
error = {
    kind: debug.compute_weight_error(match) for kind, match in matching.items()
}
weight_error = pd.DataFrame(error).reindex(kernels)
assert weight_error["stretched"].idxmax() == first
weight_error.sort_values("stretched").add_suffix(", dB").round(1)

# %% [markdown]
# This is the signal-to-noise ratio in decibels: 20 dB means that the error is a tenth of the signal, 40 dB a hundredth.
# And it is **blind** to our fault: the sick layer, `stage2.0.conv1`, even looks best of all. The wide channel *is* nearly
# all of the signal, and it is stored well. But `compute_weight_error` accepts another measure. We ask for the ratio of the
# channel in the middle.


# %%
def middle_channel(real, back):
    real, back = (values.reshape(len(values), -1) for values in (real, back))
    signal, error = (
        np.linalg.norm(real, axis=1),
        np.linalg.norm(real - back, axis=1),
    )
    decibel = 20 * np.log10(np.maximum(signal, 1e-12) / np.maximum(error, 1e-12))
    return float(np.median(decibel))


by_channel = {}
for kind, match in matching.items():
    convolutional = {name: both for name, both in match.items() if name in kernels}
    by_channel[kind] = debug.compute_weight_error(convolutional, middle_channel)
by_channel = pd.DataFrame(by_channel)
assert by_channel["stretched"].idxmin() == first
by_channel.sort_values("stretched").add_suffix(", dB").head(3).round(1)

# %% [markdown]
# There it is. 0 dB: the error is as large as the signal. In most channels every integer is 0.
#
# Now activations. Each model gets all its tensors as outputs, and both run on the same pictures.


# %%
def all_tensors(file):
    debug.modify_model_output_intermediate_tensors(file, "work/07_probed.onnx")
    reader = Reader(calibration[100:150])
    return debug.collect_activations("work/07_probed.onnx", reader)


signal = {}
for kind, (source, quantized) in pairs.items():
    both = debug.create_activation_matching(
        all_tensors(quantized), all_tensors(source)
    )
    signal[kind] = pd.DataFrame(debug.compute_activation_error(both)).T
signal["healthy"].loc[["image", "relu", "getitem_6", "logits"]].add_suffix(
    ", dB"
).round(1)

# %% [markdown]
# `xmodel_err` compares a tensor in the two models. `qdq_err` compares it before and after its own pair. `relu` has a
# `qdq_err` near zero, and that is no fault: the `Relu` node is gone, so *before* means before ReLU here, and what
# is lost are the negative numbers. `xmodel_err` is the one to plot, in the order of the graph.

# %%
order = [name for node in onnx.load(FLOAT).graph.node for name in node.output]
noise = pd.DataFrame({kind: table["xmodel_err"] for kind, table in signal.items()})
noise = noise.loc[["image", *[name for name in order if name in noise.index]]]
fall = noise["healthy"] - noise["stretched"]
culprit = fall[fall > 10].index[0]
title = f"The fault begins at the tensor {culprit}"
axes = noise.plot(marker="o", figsize=(7.2, 4), title=title)
axes.set(ylabel="signal to noise, dB", xticks=range(len(noise)))
axes.set_xticklabels(noise.index, rotation=70, ha="right")
plt.show()

# %% [markdown]
# The healthy model loses a little in its first layers and then stays level; no layer stands out. The stretched one falls
# at one place, and what depends on it is noise. (One tensor behind it is fine: it belongs to the shortcut, which goes
# round the sick layers.) The convolution that writes this tensor, and the one before it, are those to exclude.

# %%
writer = {name: n for n in onnx.load(FLOAT).graph.node for name in n.output}


def layer_before(tensor):
    """The nearest convolution, or Gemm, on the way back from a tensor."""
    node = writer[tensor]
    return node if node.op_type in ("Conv", "Gemm") else layer_before(node.input[0])


here = layer_before(culprit)
assert [layer_before(here.input[0]).name, here.name] == sick

# %% [markdown]
# So use the loss debug to find candidates, and judge them by the output: a noisy tensor in the middle need not matter,
# because later layers average its noise away. (A newer ONNX Runtime may quantize an excluded layer again by itself, where
# it stands between two int8 tensors; `disabled_optimizers=["WeightBiasQuantization"]` forbids it.)
#
# ## The size of an int8 file
#
# The report says that int8 makes a model four times smaller. Let us count the bytes.


# %%
def lean(file):
    """The bytes of a model without what it does not need: shapes, names of nodes."""
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
    for ending, kind in {"_scale": "scales", "_zero_point": "zero points"}.items():
        if name.endswith(ending):
            return kind
    return "biases" if "bias" in name else "weights"


def by_kind(file):
    data = lean(file)
    sizes = dict.fromkeys(["weights", "biases", "scales", "zero points"], 0)
    for tensor in onnx.load_from_string(data).graph.initializer:
        sizes[kind_of(tensor.name)] += onnx.numpy_helper.to_array(tensor).nbytes
    rest = len(data) - sum(sizes.values())
    return sizes | {"nodes and names": rest, "all": len(data)}


# %%
size = pd.DataFrame({"float": by_kind(FLOAT)})
for form, file in forms.items():
    size[form] = by_kind(file)
    size[f"float ÷ {form}"] = (size["float"] / size[form]).round(2)
size.replace(0, "")

# %% [markdown]
# Weights: four times smaller, as the report says. Biases stay 32 bits wide. Scales and zero points are new, and each node
# needs the names of its tensors, whatever the type of the numbers; a QDQ file has many nodes.
#
# These costs come per layer, and not per weight. So a model with more weights per layer comes closer to four. We took the
# exporter's notes out of both files: they alone would have made the float file larger.

# %%
ratios = [size.loc["all", "float"] / size.loc["all", form] for form in forms]
qdq = size["QDQ"]
cu.claim(
    "int8-four-times-smaller",
    {
        "the weights shrink to a quarter": size.loc["weights", "float ÷ QDQ"]
        > 3.95,
        "biases do not shrink": qdq["biases"] >= size.loc["biases", "float"],
        "scales and zero points are added": qdq[["scales", "zero points"]].min()
        > 0,
        "the whole file, without notes, shrinks by at least 3.6": max(ratios)
        >= 3.6,
        "and by less than 4": max(ratios) < 4,
    },
)

# %% [markdown]
# ## The speed of int8
#
# The report says: two to four times faster. A time depends on the machine. What we can count is how much of the **work** is
# done in int8. The work of a layer is its number of multiplications: each weight is used once for each pixel of the output.

# %%
graph, work = onnx.load(FLOAT).graph, {}
shape = {v.name: v.type.tensor_type.shape.dim for v in graph.value_info}
for node in graph.node:
    if node.op_type in ("Conv", "Gemm"):
        pixels = np.prod([d.dim_value for d in shape.get(node.output[0], [])[2:]])
        work[node.input[1]] = floats[node.input[1]].size * int(pixels)


# %%
def int8_share(file):
    """Per cent of the multiplications in integer kernels, in the graph that runs."""
    kernels = ("QLinearConv", "QGemm", "ConvInteger")
    inside = [n for n in cu.optimized(file).graph.node if n.op_type in kernels]
    read = {name for node in inside for name in node.input}
    done = sum(count for name, count in work.items() if f"{name}_quantized" in read)
    return 100 * done / sum(work.values())


# %% [markdown]
# Four files, the same 32 pictures:

# %%
variants = {
    "float": FLOAT,
    "dynamic, int8 weights": "work/07_dynamic_int8.onnx",
    "static, default types": "work/07_default.onnx",
    "static, uint8 × int8": "work/07_static.onnx",
}
in_int8 = {name: int8_share(file) for name, file in variants.items()}
times = timed(variants, {"image": pictures[:32]}, rounds=6)
print("vector extensions here:", ", ".join(cu.machine().extensions))
speed = times.table["× as fast"]
pd.DataFrame({"work in int8, %": in_int8, "× as fast as float here": speed}).round(
    2
)

# %% [markdown]
# Read both columns together. Where all work is done by *good* integer kernels, a processor with VNNI is clearly faster.
# Where a part of it stays in float, with conversions in between, there is little gain, or a loss. The dynamic model does
# its convolutions in int8 and is slow: the speed depends on the kernel, not on the type. `make bench` measures this for
# two models and two batch sizes on your machine, with nothing else running.

# %%
done = in_int8["static, uint8 × int8"]
done_by_default = in_int8["static, default types"] if X86 else 0
threefold = 3 * moved["static"]
cu.claim(
    "int8-two-to-four-faster",
    {
        "static: more than 99 % of the work runs in integer kernels": done > 99,
        "and no convolution is left in float": "Conv" not in operators,
        "less than a third of the bytes travels between nodes": threefold
        < moved["float"],
        "with the default types, x86 leaves a part in float": done_by_default < 90,
        "the dynamic one has a kernel of another kind": "ConvInteger"
        in nodes["dynamic"],
    },
)

# %% [markdown]
# ## float16
#
# Half of the bytes, and nearly nothing lost: why not simply use 16-bit floats? A
# [converter](https://onnxruntime.ai/docs/performance/model-optimizations/float16.html) comes with ONNX Runtime. We keep
# input and output as float32.

# %%
from onnxruntime.transformers.float16 import convert_float_to_float16

half = convert_float_to_float16(onnx.load(FLOAT), keep_io_types=True)
onnx.save(half, "work/07_half.onnx")
steps = {"in the file": half}
steps |= {f"level {level}": cu.optimized(half, level) for level in ("none", "all")}
table = pd.DataFrame(
    {step: cu.op_histogram(model) for step, model in steps.items()}
)
table.fillna(0).astype(int).replace(0, "")

# %% [markdown]
# The file has two `Cast`, at its ends. On an x86 processor the session has added many more, because there is no kernel for
# `Conv` in float16: each weight is cast **back** to float32. At level *all* these casts are computed at load time. Which
# types do the stored tensors have then?


# %%
def stored_types(model):
    types = [type_name(t.data_type) for t in model.graph.initializer]
    return pd.Series(types).value_counts()


table = pd.DataFrame({step: stored_types(model) for step, model in steps.items()})
assert not X86 or np.isnan(table["level all"].get("FLOAT16", np.nan))
table.fillna(0).astype(int).replace(0, "")

# %% [markdown]
# What runs on x86 is the float32 model. So here float16 halves the file, and neither memory nor time. A GPU has kernels
# for float16.
#
# ## Language models
#
# The report recommends dynamic quantization for language models. We take a sentence encoder: it turns a text into a
# vector, such that texts with a like meaning have vectors with a like direction.

# %%
sentences = [
    "A cat sits on the mat.",
    "On the rug there is a kitten.",
    "The bank raised its interest rates.",
    "Money will cost more from now on.",
    "She plays the violin every evening.",
    "He is a musician.",
    "It rains in London.",
    "Tomorrow there will be a storm.",
    "How do I bake a cake?",
    "The recipe needs two eggs.",
]

# %% [markdown]
# [MiniLM](https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2) of lesson 06 needs the extra `nlp`. Without
# it, a small encoder with random weights stands in: same operators, no knowledge.

# %%
folder = cu.minilm()
if folder:
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(sentences, padding=True, return_tensors="pt")
    ids, mask = tokens["input_ids"], tokens["attention_mask"]
    encoder = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
else:
    encoder, ids, mask = cu.random_encoder(sentences)

# %% [markdown]
# We export with the older exporter. The table of MiniLM in lesson 06 shows why: it takes a fraction of the time, and the
# file has the same size. For a model of your own, take the default one. The wrapper returns the one tensor that we want,
# the vectors of all words. It starts in training mode like every new module, so it needs its own `eval()`.


# %%
class Words(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = encoder

    def forward(self, ids, mask):
        return self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state


# %%
TEXT = "work/07_text.onnx"
names = {"input_names": ["ids", "mask"], "output_names": ["vectors"]}
older = {"dynamo": False, "opset_version": 17}
older["dynamic_axes"] = {
    name: {0: "texts", 1: "words"} for name in ("ids", "mask", "vectors")
}
with cu.exporter_messages():
    torch.onnx.export(Words().eval(), (ids, mask), TEXT, **names, **older)

# %% [markdown]
# Two settings matter: which operators are quantized, and whether a weight has one scale or one for each channel. We
# change **one at a time**, so there are four files. A fifth one quantizes only the largest tensor, the table of words,
# which `Gather` reads.

# %%
text_files = {"float": TEXT}
for what, ops in {
    "all operators": None,
    "products only": ["MatMul"],
    "table only": ["Gather"],
}.items():
    for scales in ("per tensor", "per channel"):
        if (what, scales) != (
            "table only",
            "per channel",
        ):  # a table of words has one scale either way
            file = f"work/07_text_{len(text_files)}.onnx"
            quantize_dynamic(
                TEXT,
                file,
                op_types_to_quantize=ops,
                per_channel=scales == "per channel",
            )
            text_files[f"{what}, {scales}"] = file

# %% [markdown]
# How good are they? Do the vectors point where they did, and does each sentence keep its nearest neighbour?


# %%
text_feed = {"ids": ids.numpy(), "mask": mask.numpy()}


def embed(running):
    """One vector of length 1 for each sentence: the mean over its words."""
    vectors = running.run(None, text_feed)[0]
    there = text_feed["mask"][..., None]
    mean = (vectors * there).sum(1) / there.sum(1)
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)


def nearest(vectors):
    """For each sentence the number of the one whose vector is closest."""
    return (vectors @ vectors.T - 2 * np.eye(len(vectors))).argmax(1)


# %%
true = embed(session(TEXT))


def judged(files):
    """Size, quality and speed of each file, beside the float one."""
    table, sessions = (
        pd.DataFrame(index=files),
        {name: session(file) for name, file in files.items()},
    )
    vectors = [embed(running) for running in sessions.values()]
    table["MB"] = [Path(file).stat().st_size / 1e6 for file in files.values()]
    table["worst cosine"] = [(v * true).sum(1).min() for v in vectors]
    table["neighbours kept"] = [
        (nearest(v) == nearest(true)).sum() for v in vectors
    ]
    table["× as fast"] = timed(sessions, text_feed, rounds=4).table["× as fast"]
    return table


summary = judged(text_files)
summary.round(3)

# %% [markdown]
# Read the rows in pairs. From *per tensor* to *per channel* the directions get much better, and the file hardly grows.
# From *products only* to *all operators* the file gets less than half as large, and the directions change very little: the
# table alone has hardly any effect. So take **all operators, per channel**.
#
# What has become of the products? We look at the graph that runs.

# %%
best, kernel_names = (
    "all operators, per channel",
    ("DynamicQuantizeMatMul", "MatMulIntegerToFloat"),
)
weight_names = {t.name for t in onnx.load(TEXT).graph.initializer}
all_products = [n for n in onnx.load(TEXT).graph.node if n.op_type == "MatMul"]
products = sum(n.input[1] in weight_names for n in all_products)
running = cu.op_histogram(cu.optimized(text_files[best]))
fused = int(
    sum(running.get(f"com.microsoft::{kernel}", 0) for kernel in kernel_names)
)
{
    "products": len(all_products),
    "with a weight": products,
    "fused integer kernels": fused,
}

# %%
cosine, megabytes = summary["worst cosine"], summary["MB"]
cu.claim(
    "dynamic-suits-nlp",
    {
        "every product with a weight runs in a fused integer kernel": fused
        == products
        > 0,
        "it asks for no calibration data": "calibration_data_reader"
        not in inspect.signature(quantize_dynamic).parameters,
        "a scale per channel brings most of the quality": not folder
        or cosine[best] > 0.98 > cosine["all operators, per tensor"],
        "the table of words alone costs next to nothing": not folder
        or cosine["table only, per tensor"] > 0.999,
        "so all operators are as good as products only": not folder
        or abs(cosine[best] - cosine["products only, per channel"]) < 0.01,
        "in a file of less than half the size": not folder
        or megabytes[best] < megabytes["products only, per channel"] / 2,
        "each sentence keeps its nearest neighbour": not folder
        or summary["neighbours kept"][best] == len(sentences),
    },
)

# %% [markdown]
# Why not static here, too? The report's reason: ranges depend on the text. Do they, and more than those of our pictures?
# `DynamicQuantizeLinear` writes each scale as its second output. We make these outputs of the model, and feed one text,
# or one picture, at a time.


# %%
def spread(file, feeds):
    """Largest ÷ smallest scale that a tensor gets in several runs, for the tensor where it is largest."""
    probe = onnx.load(file)
    scales = [
        n.output[1]
        for n in probe.graph.node
        if n.op_type == "DynamicQuantizeLinear"
    ]
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in scales)
    watched = session(probe.SerializeToString())
    seen = [watched.run(None, feed) for feed in feeds]
    return float((np.max(seen, 0) / np.min(seen, 0)).max())


texts = [
    {"ids": ids.numpy()[[i], :n], "mask": mask.numpy()[[i], :n]}
    for i, n in enumerate(mask.sum(1))
]
spreads = {"texts": spread(text_files[best], texts)}
spreads["pictures"] = spread(
    "work/07_dynamic_int8.onnx", [{"image": pictures[[i]]} for i in range(10)]
)
spreads

# %% [markdown]
# The ranges do depend on the text, and those of the pictures change more. So this alone does not decide for dynamic. We
# try static: products only, per channel. For calibration we take the sentences of the test themselves, which is the best
# case. Again one change at a time: the method, then the results of the products, which `quantize_static` also rounds to
# 8 bits and `quantize_dynamic` does not, then activations of 16 bits.

# %%
ways = {
    "MinMax": {},
    "Percentile": {"calibrate_method": CalibrationMethod.Percentile},
    "results in float": {
        "extra_options": {"OpTypesToExcludeOutputQuantization": ["MatMul"]}
    },
    "16-bit activations": {"activation_type": QuantType.QUInt16},
}
static_files = {"float": TEXT}


class Texts(CalibrationDataReader):
    """Hands out all texts in one batch."""

    feeds = None

    def get_next(self):
        self.feeds = self.feeds or iter([text_feed])
        return next(self.feeds, None)


for way, change in ways.items():
    static_files[way] = f"work/07_text_static_{len(static_files)}.onnx"
    how = settings | {"op_types_to_quantize": ["MatMul"]} | change
    with contextlib.redirect_stdout(io.StringIO()):  # Percentile prints
        quantize_static(TEXT, static_files[way], Texts(), **how)

# %%
static_summary = judged(static_files)
assert (
    not folder
    or static_summary["worst cosine"].drop("float").idxmax() == "16-bit activations"
)
running = cu.op_histogram(cu.optimized(static_files["16-bit activations"])).index
assert not running.str.contains("QLinearMatMul|MatMulIntegerToFloat").any()
static_summary.round(3)

# %%
by_static, dynamic_too = (
    static_summary["worst cosine"],
    cosine["products only, per channel"],
)
cu.claim(
    "ranges-follow-the-text",
    {
        "a scale changes from text to text": spreads["texts"] > 1.1,
        "it changes more from picture to picture": not folder
        or spreads["pictures"] > spreads["texts"],
        "and static int8 suits the pictures": accuracies["float"]
        - accuracies["QDQ"]
        <= 0.5,
        "static, with the default settings, loses with texts": not folder
        or by_static["MinMax"] < 0.97 < dynamic_too,
        "with results in float it nearly reaches dynamic": not folder
        or dynamic_too - by_static["results in float"] < 0.02,
    },
)

# %% [markdown]
# With the default settings, static costs much more than dynamic (0.99), and another method of calibration does not help.
# With the **results left in float** it is nearly as good: the loss came not from the fixed range of the inputs, but from
# rounding the results. Even so it is no better than dynamic, and it needs data. 16 bits are the most exact of the static
# ones, but no integer kernel takes them: this model runs in float, with conversions. So here dynamic is the simple choice.
#
# ## Four bits
#
# [`MatMulNBits`](https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md) cuts each weight matrix
# into blocks of 32 numbers, each with a scale of its own, and stores **4 bits** for a weight. By default it takes
# products only and computes in float.

# %% tags=["remove-input"]
cu.quiz("07_quantization", 5)

# %%
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer


def four_bits(model, **more):
    quantizer = MatMulNBitsQuantizer(model, bits=4, block_size=32, **more)
    quantizer.process()
    return quantizer.model.model


small_files = {"float": TEXT}
with_table = {"op_types_to_quantize": ("MatMul", "Gather")}
for what, more in {
    "4 bits": {},
    "table, too": with_table,
    "level 4": {"accuracy_level": 4},
}.items():
    small_files[what] = f"work/07_text_4bit_{len(small_files)}.onnx"
    onnx.save(four_bits(onnx.load(TEXT), **more), small_files[what])
small_summary = judged(small_files)
assert (
    not folder
    or small_summary["MB"]["table, too"] < small_summary["MB"]["4 bits"] / 3
)
small_summary.round(3)

# %% [markdown]
# With `Gather` among the types, the table gets 4 bits, too, and the file is six times smaller than float. `accuracy_level=4`
# also makes integers of 8 bits of the activations, and so the products are integer ones. In MiniLM, with 384 columns, that
# gains little. And in a larger product, with 2048 columns?

# %%
wide = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 21]>
    wide (float[N, 2048] x) => (float[N, 2048] y) { y = MatMul (x, w) }""")
values = draw.standard_normal((2048, 2048), np.float32)
wide.graph.initializer.append(onnx.numpy_helper.from_array(values, "w"))
both = {
    name: four_bits(onnx.ModelProto.FromString(wide.SerializeToString()), **more)
    for name, more in {"4 bits": {}, "level 4": {"accuracy_level": 4}}.items()
}
wide_models = {
    name: model.SerializeToString()
    for name, model in ({"float": wide} | both).items()
}
timed(wide_models, {"x": draw.normal(size=(8, 2048)).astype(np.float32)}, rounds=10)

# %% [markdown]
# Look at the last row. Four bits save memory everywhere, and they save time where the kernel computes in integers and the
# matrix is large.
#
# ## All in one picture
#
# All variants of this lesson. Some are slow, so the loss is that on the first 500 test images.

# %%
how = settings | {"per_channel": False}
quantize_static(FLOAT, "work/07_tensor.onnx", Reader(calibration[:100]), **how)
variants |= {
    "static, per tensor": "work/07_tensor.onnx",
    "static, QOperator": "work/07_qoperator.onnx",
    "float16": "work/07_half.onnx",
}

# %%
results = pd.DataFrame(index=variants)
results["size"] = [len(lean(file)) / 1024 for file in variants.values()]
right = [accuracy(answers(file, 500)) for file in variants.values()]
results["lost"] = right[0] - np.array(right)
times = timed(variants, {"image": pictures[:32]}, rounds=4)
results["× as fast"] = times.table["× as fast"]
static_rows = static_summary.drop("float").rename("static, {}".format)
small_rows = small_summary.drop("float").rename(
    {"table, too": "4 bits, table too", "level 4": "4 bits, level 4"}
)
text = pd.concat([summary, static_rows, small_rows])
text = text.assign(size=text["MB"], lost=1 - text["worst cosine"])

# %% [markdown]
# The length of a bar is the speed, the number beside it the size of the file, the colour what is lost.


# %%
def picture_of(axis, table, title, unit, loss):
    table = table.sort_values("× as fast")
    speed = table["× as fast"]
    span = plt.Normalize(0, max(table["lost"].max(), 1e-9))
    bars = axis.barh(
        table.index, speed, color=plt.cm.viridis_r(span(table["lost"]))
    )
    axis.bar_label(
        bars, [f"{size:.0f} {unit}" for size in table["size"]], padding=4
    )
    axis.axvline(1, color="C6", linewidth=1, zorder=0)
    axis.set(xlabel="times as fast as float", xlim=(0, 1.25 * speed.max()))
    axis.set_title(title, fontsize=11)
    axis.grid(axis="y", visible=False)
    figure.colorbar(plt.cm.ScalarMappable(span, "viridis_r"), ax=axis, label=loss)


# %%
figure, axes = plt.subplots(2, 1, figsize=(7.2, 9))
speed, size = results["× as fast"], text["MB"]
title = f"fashion_resnet: {speed.idxmax()} is {speed.max():.1f}× as fast as float"
picture_of(axes[0], results, title, "KiB", "points of accuracy lost")
title = f"{'MiniLM' if folder else 'random encoder'}: from {size['float']:.0f} to {size.min():.0f} MB ({size.idxmin()})"
picture_of(axes[1], text, title, "MB", "1 − worst cosine")
plt.show()

# %% [markdown]
# For the convolutional network the static models with uint8 activations are the fast ones, and their loss is as small as
# that of the others. The dynamic model is as small, and slow; float16 only halves the file. For the encoder, *all
# operators, per channel* is less than half as large as *products only*, at the same accuracy. Their times are close, and
# they come from three runs of the stopwatch, so compare them on an idle machine. 4 bits make the smallest file. The size
# does not tell the speed.
#
# ## Play
#
# Choose a layer and a way. The comb under the histogram shows the values that are left. What does one wide channel do to
# the others? How many integers does a narrow channel use, with one scale for the tensor and with its own?

# %%
shown = ("stem.0", "stage1.0.shortcut.0", "stage2.2.conv2")
cu.scale_explorer({layer: kernels[f"{layer}.weight"] for layer in shown})

# %% [markdown]
# ## Recap
#
# - Divide by the scale, round to even, add the zero point, cut off: with that you get the runtime's bits.
# - A scale per channel for weights, uint8 for activations on x86. Then look at the graph that **runs**.
# - Static for convolutions; dynamic for texts, all operators with a scale per channel. Integers without a kernel are slow.
# - Calibration needs few examples, of the right kind. Wrong ones give no error.
# - One wide channel can ruin int8. Loss debug finds it; leave both layers around it in float.
# - Judge by all three: size, speed, accuracy, on your data and your machine.
#
# **Next:** the [exercises of this lesson](exercises/07_quantization.ipynb). After them, `08_deployment` takes the model to
# the places where it is used.
