# %% [markdown]
# # 07 · Quantization
#
# Your model must become smaller and faster. You call the simplest function of the tools, `quantize_dynamic`. The file is
# nearly four times smaller, and the model is slower than before. This lesson shows the cause, and what to call instead.
#
# You need [lesson 01](01_graph_structure.ipynb) (graphs) and [lesson 06](06_fusion.ipynb) (the graph that runs is not
# the graph in the file).
#
# After this lesson you will be able to
#
# - compute scale, zero point and integers by hand,
# - quantize a convolutional network so that its integers are really used,
# - tell dynamic from static quantization, and choose one of them,
# - judge a quantized model by its size, its speed and its accuracy.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## Scale and zero point
#
# [Quantization](glossary.md#quantization) stores real numbers as small integers. The report gives the rule in one line:
#
# $$real = scale \times (quantized - zero\_point)$$
#
# The [scale](glossary.md#scale-and-zero-point) is the step between two neighbours. The *zero point* is the integer that
# stands for 0. There are two usual ways to place the integers on the number line:

# %% tags=["remove-input"]
cu.picture("scale_and_zero_point")

# %% [markdown]
# | | integers | zero point | scale | used for |
# |---|---|---|---|---|
# | symmetric | int8 | 0 | largest absolute value ÷ 127 | weights: they lie on both sides of 0 |
# | asymmetric | uint8 | computed | (largest − smallest value) ÷ 255 | activations: behind a ReLU none is negative |
#
# What lies outside of the range gets the last integer at that end. This is [saturation](glossary.md#saturation). So the way
# to an integer has four steps: divide by the scale, round, add the zero point, cut off at both ends.

# %% tags=["remove-input"]
cu.quiz("07_quantization", 1)

# %%
import numpy as np
import pandas as pd

scale, zero_point = np.float32(0.5), 2
real = np.float32([-1.3, 0, 0.3, 1.25, 1.75, 60, 200])
integers = np.clip(np.rint(real / scale) + zero_point, 0, 255)
back = scale * (integers - zero_point)
pd.DataFrame({"real": real, "integer": integers, "back": back})

# %% [markdown]
# Zero comes back as exactly zero. That matters, because padding and ReLU fill a network with zeros. A number half-way
# between two integers goes to the **even** one. Here the 256 integers reach from -1 to 126.5, so -1.3 and 200 are cut off.
#
# In ONNX the operators are [`QuantizeLinear`](https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html) and
# [`DequantizeLinear`](https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html). A graph with one of each:

# %%
import onnx
import onnxruntime as ort

text = """<ir_version: 10, opset_import: ["": 21]>
both (float[n] x, float s, uint8 z) => (uint8[n] q, float[n] y) {
    q = QuantizeLinear (x, s, z)
    y = DequantizeLinear (q, s, z)
}"""
both = ort.InferenceSession(onnx.parser.parse_model(text).SerializeToString())
both.run(None, {"x": real, "s": np.array(scale), "z": np.array(2, "uint8")})

# %% [markdown]
# These are the last two columns of our table. The page [Scales, bit for bit](deeper/07_scales.ipynb) compares 800 000
# results.
#
# ## Export, and look at the weights
#
# We export our trained network with
# [`torch.onnx.export`](https://docs.pytorch.org/docs/stable/onnx_export.html), as in the lessons before.

# %%
import torch

with cu.exporter_messages():
    torch.onnx.export(
        cu.fashion_resnet(),
        (torch.randn(2, 1, 28, 28),),
        "work/07_exported.onnx",
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=False,
        verbose=False,
    )

# %% [markdown]
# A weight may have one scale for the whole tensor, or one for each output channel. In the next picture, the marks under
# the histogram are the values that int8 can express. With one scale for the tensor, how many of its 256 integers does the
# narrowest channel use? Then choose *per channel*, and 4 bits.

# %%
stored = onnx.load("work/07_exported.onnx").graph.initializer
weights = {t.name: onnx.numpy_helper.to_array(t) for t in stored}
layers = ("stage1.0.conv2", "stem.0", "stage2.0.shortcut.0")
cu.scale_explorer({layer: weights[f"{layer}.weight"] for layer in layers})

# %% [markdown]
# One wide channel sets the step for all the others: the narrowest one uses a few of the integers. A
# [scale per channel](glossary.md#per-channel) mends that, and costs 13 bytes of the file for each channel: scales and zero
# points of the weight and of the bias. So choose it for weights.
#
# ## Prepare the file
#
# The tools are in
# [`onnxruntime.quantization`](https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html). They change
# the graph as it stands in the file. So call `quant_pre_process` first: it optimises the graph and infers all shapes anew.
# Without it the tools may fail, as with case 9.10 of the hospital. We also take out the notes that the exporter
# left on each node, because we want to compare sizes.

# %%
from onnxruntime.quantization import QuantType, quant_pre_process

FLOAT = "work/07_float.onnx"
quant_pre_process("work/07_exported.onnx", FLOAT)
model = onnx.load(FLOAT)
for node in model.graph.node:
    node.ClearField("metadata_props")
onnx.save(model, FLOAT)

# %% [markdown]
# ## Dynamic quantization
#
# *Dynamic* means: weights become integers now, activations become integers in each run. One call makes the file:

# %%
from onnxruntime.quantization import quantize_dynamic

DYNAMIC = "work/07_dynamic.onnx"
quantize_dynamic(FLOAT, DYNAMIC, weight_type=QuantType.QInt8)
cu.op_histogram(DYNAMIC).to_frame()

# %% [markdown]
# Each `Conv` has become several nodes.
# [`DynamicQuantizeLinear`](https://onnx.ai/onnx/operators/onnx__DynamicQuantizeLinear.html) measures the range of an
# activation and quantizes it, `ConvInteger` computes, `Cast` and `Mul` make floats of the sum. Is this faster? We time both
# files on 16 pictures, with one thread.

# %% tags=["remove-input"]
cu.quiz("07_quantization", 2)

# %%
images, labels = cu.fashion_mnist("test")
pictures = cu.normalize(images)
one = ort.SessionOptions()
one.intra_op_num_threads = 1

# %%
slow, fast = (ort.InferenceSession(f, one) for f in (DYNAMIC, FLOAT))
x = {"image": pictures[:16]}
calls = {"float": lambda: fast.run(None, x), "dynamic": lambda: slow.run(None, x)}
cu.compare(calls, rounds=10, seconds=2)

# %% [markdown]
# In the last column, 0.2 means five times **slower** than float. Nearly all the time goes to `ConvInteger`; the page
# [Where int8 runs](deeper/07_where_int8_runs.ipynb) shows the profile. ONNX Runtime has very fast
# [kernels](glossary.md#kernel) for float convolutions, and only a simple one for this operator. **A file full of integers is
# fast only where there is a good kernel for it.**
#
# ## Static quantization
#
# *Static* means: the ranges of activations are measured once, on examples, and stored in the file. This is
# [calibration](glossary.md#calibration). ONNX Runtime asks a *data reader* for batches until it returns `None`.

# %%
from onnxruntime.quantization import CalibrationDataReader, quantize_static


class Reader(CalibrationDataReader):
    def __init__(self, examples):
        self.batches = iter([{"image": examples}])

    def get_next(self):
        return next(self.batches, None)


# %% [markdown]
# A hundred training pictures, in one batch, are enough here. For a CPU of the x86 family we ask for uint8 activations,
# int8 weights, and a scale per channel:

# %%
examples = cu.normalize(cu.fashion_mnist("calibration")[0][:100])
types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
STATIC = "work/07_static.onnx"
quantize_static(FLOAT, STATIC, Reader(examples), per_channel=True, **types)

# %% [markdown]
# Which operators are in the file, and which does the session run?

# %%
static = cu.op_histogram(cu.optimized(STATIC))
table = pd.DataFrame({"in the file": cu.op_histogram(STATIC), "that runs": static})
table.fillna(0).astype(int).replace(0, "")

# %% [markdown]
# The **file** holds all `Conv`, between `QuantizeLinear` and `DequantizeLinear`. This form is called
# [QDQ](glossary.md#qdq-and-qoperator): the graph computes in float, and each pair says that a tensor may be int8. The `Relu`
# are gone: behind them the zero point is the lowest integer, so saturation cuts off the negative numbers.
#
# In the graph that **runs**, the runtime has made integer operators of the pairs. All fifteen convolutions are
# `QLinearConv`. Now we leave out the types, and look at the graph that runs.

# %% tags=["remove-input"]
cu.quiz("07_quantization", 3)

# %%
DEFAULT = "work/07_default.onnx"
quantize_static(FLOAT, DEFAULT, Reader(examples))
cu.op_histogram(cu.optimized(DEFAULT)).to_frame()

# %% [markdown]
# The default is int8 for both: the choice for ARM. On x86, a part of the convolutions stays in float, with conversions
# around them. No message says so. Take the types that `help(quantize_static)` names for your processor, and count.
#
# ## What it brings
#
# First the accuracy, on all 10 000 test images:

# %%
logits = cu.run_in_batches(STATIC, {"image": pictures}, 500)["logits"]
accuracy = {"static": 100 * float((logits.argmax(1) == labels).mean())}

# %%
logits = cu.run_in_batches(FLOAT, {"image": pictures}, 500)["logits"]
accuracy["float"] = 100 * float((logits.argmax(1) == labels).mean())
accuracy

# %% [markdown]
# Less than half a point is lost. Next, the bytes that travel between the nodes when one picture is computed:

# %%
nodes, moved = {}, {}
for way, file in {"float": FLOAT, "dynamic": DYNAMIC, "static": STATIC}.items():
    graph = cu.optimized(file, "extended")
    nodes[way] = cu.op_histogram(graph)
    table = cu.traffic(graph, {"image": pictures[:1]})
    moved[way] = int(table[["reads", "writes"]].to_numpy().sum())
moved

# %% [markdown]
# A static model keeps int8 from node to node. A dynamic one measures the ranges in each run, and goes back to float after
# each layer. Last, the file. The report says that int8 makes it four times smaller:

# %%
kinds = ["weight", "bias", "scale", "zero_point"]
size = pd.DataFrame(index=kinds)
for way, file in {"float": FLOAT, "static": STATIC}.items():
    stored = cu.tensor_table(file).set_index("tensor")["bytes"]
    size[way] = [stored.filter(regex=f"{k}(_quantized)?$").sum() for k in kinds]
size

# %% [markdown]
# The weights are four times smaller. The biases stay 32 bits wide, because they are added to sums of many products. Scales
# and zero points are new. Nodes and names, not listed here, grow a little. These costs come per layer and not per weight,
# so a model with larger layers gets closer to four.
#
# All in one picture. The accuracy is now that on 1000 images.

# %%
from pathlib import Path

files = {"float": FLOAT, "dynamic": DYNAMIC, "static, default types": DEFAULT}
files["static, uint8 × int8"] = STATIC
sessions = {w: ort.InferenceSession(f, one) for w, f in files.items()}
calls = {w: lambda s=s: s.run(None, x) for w, s in sessions.items()}
result = cu.compare(calls, rounds=6, seconds=3).table[["× as fast"]]
result["KiB"] = [Path(file).stat().st_size / 1024 for file in files.values()]
for way, file in files.items():
    logits = cu.run_in_batches(file, {"image": pictures[:1000]}, 500)["logits"]
    right = logits.argmax(1) == labels[:1000]
    result.loc[way, "accuracy"] = 100 * right.mean()

# %%
import matplotlib.pyplot as plt

axes = result["× as fast"].plot.barh(xlabel="times as fast as float, one thread")
text = [f"{row.KiB:.0f} KiB, {row.accuracy:.1f} %" for row in result.itertuples()]
axes.bar_label(axes.containers[0], text, padding=4)
axes.axvline(1, color="C6", linewidth=1)
axes.invert_yaxis()
axes.set_xlim(0, 1.5 * result["× as fast"].max())
speed, small = result.iloc[-1][["× as fast", "KiB"]]
smaller = result["KiB"]["float"] / small
axes.set_title(f"uint8 × int8: {speed:.1f} × as fast, {smaller:.1f} × smaller")
plt.show()

# %% [markdown]
# The dynamic file is the smallest, and the slowest. With the default types, little is gained. With the right types, the
# model is small and as exact as float, and on a processor with
# [VNNI](glossary.md#simd-and-vnni) it is clearly faster. The size does not tell the speed: measure all three.

# %% tags=["hide-input"]
cu.claim(
    "static-suits-cnn",
    {
        "static: every convolution runs as QLinearConv": static[
            "com.microsoft::QLinearConv"
        ]
        == 15,
        "dynamic: every one runs as ConvInteger": nodes["dynamic"]["ConvInteger"]
        == 15,
        "dynamic looks for a range more than ten times in each run": nodes[
            "dynamic"
        ]["DynamicQuantizeLinear"]
        > 10,
        "static never does": "DynamicQuantizeLinear" not in nodes["static"],
        "static moves less than a quarter of the bytes": 4 * moved["static"]
        < moved["dynamic"],
        "and loses at most half a point on 10 000 images": accuracy["float"]
        - accuracy["static"]
        <= 0.5,
    },
)

# %% tags=["hide-input"]
cu.claim(
    "int8-four-times-smaller",
    {
        "the weights shrink to a quarter": size["float"]["weight"]
        > 3.95 * size["static"]["weight"],
        "biases do not shrink": size["static"]["bias"] >= size["float"]["bias"],
        "scales and zero points are added": size["static"].min() > 0,
        "the whole file, without notes, shrinks by at least 3.6": result["KiB"][
            "float"
        ]
        >= 3.6 * result["KiB"].min(),
        "and by less than 4": result["KiB"]["float"] < 4 * result["KiB"].min(),
    },
)

# %% [markdown]
# ## Recap
#
# - Divide by the scale, round to even, add the zero point, cut off. Zero stays exactly zero.
# - Use **static** quantization for a convolutional network, unless you have no examples of its real input.
# - Use **dynamic** quantization for text encoders on a CPU, unless the device takes static files only. For decoders, store
#   the weights in 4 bits ([lesson 11](11_language_models.ipynb)).
# - Call `quant_pre_process` first. Take the types for your processor from `help(quantize_static)`, and weights per channel.
# - Look at the graph that runs. Integers without a good kernel are slower than floats.
# - Judge by size, speed and accuracy together, on your data and your machine.
#
# **Next:** the [exercises of this lesson](exercises/07_quantization.ipynb), then lesson 08.
#
# **Deeper:** [which examples to calibrate with](deeper/07_calibration.ipynb) ·
# [find the layer that int8 ruins](deeper/07_find_the_layer.ipynb) · [float16](deeper/07_float16.ipynb) ·
# [language models in 8 and 4 bits](deeper/07_language_models.ipynb) ·
# [static quantization for text](deeper/07_static_text.ipynb) ·
# [where int8 runs](deeper/07_where_int8_runs.ipynb) · [which file for which target](deeper/07_targets.ipynb) ·
# [scales, bit for bit](deeper/07_scales.ipynb).
