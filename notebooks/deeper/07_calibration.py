# %% [markdown]
# # 07 · Calibration
#
# A colleague gives you an int8 model. It loads, it runs, and most of its answers are wrong. No step failed, and no message
# came: its [calibration](../glossary.md#calibration) used pictures of the wrong range. This page tries good and bad
# calibration data, and shows how to notice the bad ones.
#
# You need the [core of lesson 07](../07_quantization.ipynb).
#
# After this page you will be able to
#
# - choose calibration data: how many, and of which kind,
# - choose between the methods MinMax, Percentile and Entropy,
# - find bad data that ruin a model without a message.

# %%
import course_utils as cu
import numpy as np
import onnx
import pandas as pd

cu.setup()

# %% [markdown]
# ## A model to calibrate
#
# We export and prepare the network of lesson 07.

# %%
import torch

FLOAT, INT8 = "work/07_calibration_float.onnx", "work/07_calibration_int8.onnx"
net, example = cu.fashion_resnet(), (torch.randn(2, 1, 28, 28),)
names = {"input_names": ["image"], "output_names": ["logits"], "verbose": False}

# %%
from onnxruntime.quantization import QuantType, quant_pre_process, quantize_static

with cu.exporter_messages():
    made = torch.onnx.export(net, example, dynamic_shapes=({0: "batch"},), **names)
quant_pre_process(made.model_proto, FLOAT)

# %% [markdown]
# The data reader is that of lesson 07. It does not look at its data, and it takes an empty set, too:

# %%
from onnxruntime.quantization import CalibrationDataReader


class Reader(CalibrationDataReader):
    def __init__(self, pictures):
        self.batches = iter([{"image": pictures}] if len(pictures) else [])

    def get_next(self):
        return next(self.batches, None)


# %% [markdown]
# One call, with a hundred normalised training pictures:

# %%
images, classes = cu.fashion_mnist("calibration")
good = cu.normalize(images)
how = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
quantize_static(FLOAT, INT8, Reader(good[:100]), per_channel=True, **how)

# %% [markdown]
# How good is the model? To save time, this page uses 500 test images everywhere.

# %%
test, labels = cu.fashion_mnist("test")


def accuracy(file):
    """Per cent of the first 500 test images."""
    feed = {"image": cu.normalize(test[:500])}
    logits = cu.run_in_batches(file, feed, 500)["logits"]
    return round(100 * float((logits.argmax(1) == labels[:500]).mean()), 1)


accuracy(FLOAT), accuracy(INT8)

# %% [markdown]
# The two numbers are close: these data are good. One image of 500 is 0.2 points, so a difference of this size says nothing.
#
# ## Which data, and how many?
#
# What if we take fewer pictures, or other ones? In one set, a single picture is not normalised. In the last two, none is:

# %%
broken, raw = good[:100].copy(), images[:50, None].astype("float32")
broken[60] = images[60]  # pixels up to 255
sets = {
    "1 picture": good[:1],
    "10 pictures": good[:10],
    "100 pictures": good[:100],
    "50, one class": good[classes == 5][:50],
    "100, one broken": broken,
    "pixels from 0 to 1": raw / 255,
    "pixels from 0 to 255": raw,
}

# %% [markdown]
# And how is a range made of them? ONNX Runtime has several
# [methods](https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html#static-quantization).
#
# - **MinMax** takes the smallest and the largest value that occurs.
# - **[Percentile](../glossary.md#percentile)** leaves out the outermost values: by default 0.001 % in all, here 1 %.
# - **Entropy** looks for the range that changes the distribution least.
#
# We try all sets with the first two. `calibrated` makes the int8 file:

# %%
import contextlib
import io

from onnxruntime.quantization import CalibrationMethod


def calibrated(data, method, **extra):
    """The int8 model, as a file."""
    file = "work/07_calibration_try.onnx"
    kind = {"calibrate_method": CalibrationMethod[method], "extra_options": extra}
    with contextlib.redirect_stdout(io.StringIO()):  # some methods print
        quantize_static(FLOAT, file, Reader(data), per_channel=True, **how, **kind)
    return file


# %% [markdown]
# Two methods, and the accuracy of each model in per cent:

# %% tags=["remove-input"]
cu.quiz("07_calibration", 1)

# %%
minmax = {k: accuracy(calibrated(x, "MinMax")) for k, x in sets.items()}
cut = {"method": "Percentile", "CalibPercentile": 99.0}
percentile = {k: accuracy(calibrated(x, **cut)) for k, x in sets.items()}
pd.DataFrame({"MinMax": minmax, "Percentile": percentile})

# %% [markdown]
# Read the table from top to bottom:
#
# - **How many** hardly matters here: a single picture gives nearly the full accuracy. The network is small, and its
#   normalised layers all have similar ranges. Do not count on it with other models.
# - **One class** of pictures is enough here, too: its pictures give nearly the same ranges in all layers.
# - **One broken picture** ruins MinMax. Percentile, which cuts off 1 %, is not harmed.
# - **The wrong range of pixels** ruins both, without an error or a warning. The end of this page shows why.
#
# And Entropy? It counts the values in bins and tries how many of them to keep, but at least 128. `quantize_static` gives it
# 128 bins to begin with, so there is nothing to try. Even with the broken picture, it should store what MinMax stores.

# %%
from pathlib import Path

by_entropy = Path(calibrated(broken, "Entropy")).read_bytes()
assert by_entropy == Path(calibrated(broken, "MinMax")).read_bytes()

# %% [markdown]
# The two files are the same, byte for byte. So with the default settings, Entropy brings nothing.
#
# Last, no data at all:

# %%
try:
    calibrated(good[:0], "MinMax")
except ValueError as error:
    print(refused := str(error))

# %% [markdown]
# An empty set is the one fault that ONNX Runtime refuses here.

# %% tags=["hide-input"]
cu.claim(
    "calibration-needed",
    {
        "without data ONNX Runtime refuses": refused != "",
        "100 pictures lose less than a point": accuracy(FLOAT)
        - minmax["100 pictures"]
        < 1,
        "a small set is enough: so do 10": accuracy(FLOAT) - minmax["10 pictures"]
        < 1,
        "raw pixels lose more than 30 points": accuracy(FLOAT)
        - max(minmax["pixels from 0 to 255"], percentile["pixels from 0 to 255"])
        > 30,
        "so do pixels of a wrong scale": accuracy(FLOAT)
        - max(minmax["pixels from 0 to 1"], percentile["pixels from 0 to 1"])
        > 30,
    },
)

# %% [markdown]
# ## Faults without a message
#
# Two other faults are NaN in one picture, and infinity in one pixel. We look at the scale that is stored for the input.


# %%
def input_scale(file):
    """The scale of the model's input."""
    stored = {t.name: t for t in onnx.load(file).graph.initializer}
    return float(onnx.numpy_helper.to_array(stored["image_scale"]))


nan, infinite = good[:50].copy(), good[:50].copy()
nan[3], infinite[3, 0, 5, 5] = float("nan"), float("inf")

# %%
import warnings

table = {}
for what, data in {"NaN": nan, "infinity": infinite}.items():
    with warnings.catch_warnings(action="ignore"):  # NumPy's, about the numbers
        file = calibrated(data, "MinMax")
    table[what] = {"scale": input_scale(file), "accuracy, %": accuracy(file)}
pd.DataFrame(table).T

# %% [markdown]
# NaN is skipped when the range is taken. One infinite pixel gives an infinite scale, and a useless model. ONNX Runtime accepts
# both. The course has a data reader that looks at its data first. We give it both sets at once:

# %%
try:
    cu.Calibration(FLOAT, {"image": np.concatenate([nan, infinite])})
except cu.CourseError as error:
    print(error)

# %% [markdown]
# ## Compare the ranges yourself
#
# No tool knows the right range of your pixels. But the model tells which range it accepts: its width is 255 times the scale of
# the input. We compare it with the width of the real data:

# %%
kinds = ("100 pictures", "pixels from 0 to 1", "pixels from 0 to 255")
widths = {k: 255 * input_scale(calibrated(sets[k], "MinMax")) for k in kinds}
widths["the real data"] = float(good[:100].max() - good[:100].min())
pd.Series(widths, name="width").round(2).to_frame()

# %% [markdown]
# Only the first model fits the real data. The second one accepts a width of 1, and cuts off all numbers outside of it: this is
# [saturation](../glossary.md#saturation). The third one accepts numbers from 0 to 255, and its 256 integers are a whole 1
# apart. What is left of the real data?

# %%
np.unique(good[:100].round().clip(0, 255))

# %% [markdown]
# Three numbers are left, and the negative ones have become 0.
#
# Do this with every model that somebody else has calibrated. Task 7.4 of the
# [exercises](../exercises/07_quantization.ipynb) is about it.

# %% [markdown]
# ## Recap
#
# - Use a hundred examples of the real input, through the same preprocessing. Their range counts more than their number.
# - Use MinMax, unless your data have outliers that you cannot take out. Then use Percentile.
# - Entropy stores what MinMax stores, with the default number of bins.
# - Wrong data give no error. Compare the width of the real data with 255 × the scale, and measure the accuracy.
#
# **Next:** [find the layer that int8 ruins](07_find_the_layer.ipynb), or back to
# [lesson 07](../07_quantization.ipynb).
