# %% [markdown]
# # 07 · Exercises: quantization
#
# Five tasks. Each ends in a file in `work/` that `cu.check` looks at. A check tells you what is right, and gives a hint
# for what is not. Try as often as you like: the best answer is kept.
#
# The models and numbers are drawn from your id, so they are your own. Put your id between the quotes.

# %%
import course_utils as cu

cu.setup(student="guest")  # put your own id here

# %%
import json
import logging
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pandas as pd
from onnx import numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from onnxruntime.quantization import qdq_loss_debug as debug
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

for name in ("", "onnxruntime.quantization.matmul_nbits_quantizer"):
    logging.getLogger(name).setLevel(logging.ERROR)  # they log advice and progress

# %% [markdown]
# ## 7.1 Quantize by hand
#
# A tensor lies between `low` and `high` in all calibration data. Here is the range, and twelve values to quantize:

# %%
cu.params("7.1")

# %% [markdown]
# Spread the range over all integers of **uint8**, in the asymmetric way. Write `work/7.1.json` with four keys:
#
# | key | value |
# |---|---|
# | `scale` | one number |
# | `zero_point` | one integer |
# | `integers` | the twelve values, quantized, in their order: a list of integers |
# | `back` | the real numbers that these integers stand for: a list of numbers |
#
# > **Hint** Some values lie exactly half-way, some outside of the range. JSON knows Python's numbers only, not NumPy's:
# > `int(n)`, `float(n)`.

# %%
# Task 7.1: compute scale, zero point and integers, and write the answer
p = cu.params("7.1")
### BEGIN SOLUTION
scale = (p["high"] - p["low"]) / 255
zero_point = round(-p["low"] / scale)
integers = np.clip(np.rint(np.array(p["values"]) / scale) + zero_point, 0, 255)
answer = {
    "scale": scale,
    "zero_point": zero_point,
    "integers": [int(n) for n in integers],
    "back": [float(scale * (n - zero_point)) for n in integers],
}
Path("work/7.1.json").write_text(json.dumps(answer))
### END SOLUTION

# %%
cu.check("7.1", "work/7.1.json")

# %% [markdown] tags=["solution"]
# The range has 255 steps between 256 integers, so the scale is the width of one step, and the zero point is the integer
# that stands for 0.0. `np.rint` takes a half to the even neighbour, as QuantizeLinear does; then the zero point is added, and
# clipping keeps the rest within uint8. A typical mistake is to convert to uint8 before clipping: a value beyond the range
# comes back from the other end. To notice it, compare `back` with the values: inside the range they differ by at most half a
# step. Another road is a small graph with QuantizeLinear and DequantizeLinear.

# %% [markdown]
# ## 7.2 Small and right
#
# The trained network of the lesson. BatchNorm is folded already. Your model names the ten classes in an order of its own:
# the first output belongs to class `order[0]`, and so on.

# %%
cu.params("7.2")

# %%
cu.op_histogram(cu.given("7.2")).to_frame().T

# %% [markdown]
# Write an int8 model and save it as `work/7.2.onnx`:
#
# - all 15 convolutions run in int8, with activations of type uint8,
# - the file has at most `most_bytes` bytes,
# - it loses at most `points` percentage points of accuracy on test images that you do not know.
#
# `cu.fashion_mnist("calibration")` has 1 000 pictures for calibration, and `cu.normalize` makes inputs of them. The data reader
# is `cu.Calibration(model, {"image": pictures})`.
#
# > **Hint** `help(quantize_static)` says which format and which types suit a CPU. Every format fits; weights left in float
# > do not.

# %%
# Task 7.2: quantize the model, and save it
source = str(cu.given("7.2"))
### BEGIN SOLUTION
pictures = cu.normalize(cu.fashion_mnist("calibration")[0])
quantize_static(
    source,
    "work/7.2.onnx",
    cu.Calibration(source, {"image": pictures[:200]}),
    quant_format=QuantFormat.QDQ,
    activation_type=QuantType.QUInt8,
    weight_type=QuantType.QInt8,
    per_channel=True,
)
### END SOLUTION

# %%
cu.check("7.2", "work/7.2.onnx")

# %% [markdown] tags=["solution"]
# Static quantization needs the range of every tensor, and takes it from pictures that look like those of later use. The
# weights in int8 make the file small, a scale per channel keeps the accuracy. A typical mistake is to calibrate with raw
# pixels: the file is small and the convolutions run in int8, yet the accuracy falls. The input's scale shows it: the integers
# reach far beyond what `cu.normalize` gives. `QuantFormat.QOperator` is another road: it writes the int8 operators into the
# file, and QDQ leaves the choice to ONNX Runtime.

# %% [markdown]
# ## 7.3 Rescue
#
# *Deeper: after the page [Find the layer that int8 ruins](../deeper/07_find_the_layer.ipynb).*
#
# Another network, as good as the one before. But with int8 its accuracy collapses, also with a scale per channel:

# %%
images, labels = cu.fashion_mnist("test")


def accuracy(file, task):
    """Per cent, on 500 test images. task: whose order of classes."""
    logits = ort.InferenceSession(file).run(
        None, {"image": cu.normalize(images[:500])}
    )[0]
    classes = np.array(cu.params(task)["order"])[logits.argmax(1)]
    return round(100 * float((classes == labels[:500]).mean()), 1)


# %%
healthy = str(cu.given("7.3"))
pictures = cu.normalize(cu.fashion_mnist("calibration")[0][:50])
settings = {
    "activation_type": QuantType.QUInt8,
    "weight_type": QuantType.QInt8,
    "per_channel": True,
}
reader = cu.Calibration(healthy, {"image": pictures})
quantize_static(healthy, "work/7.3_collapsed.onnx", reader, **settings)
{
    "float": accuracy(healthy, "7.3"),
    "int8": accuracy("work/7.3_collapsed.onnx", "7.3"),
}

# %% [markdown]
# Find the cause, and write an int8 model that works as `work/7.3.onnx`. At least 13 of the 15 convolutions must run in
# int8, and it may lose 1.5 points of accuracy.
#
# > **Hint** Compare the tensors of the float model with those of the collapsed one, in the order of the graph, with
# > `debug`. `nodes_to_exclude` takes names of nodes; `cu.node_table` shows them.

# %%
# Task 7.3: find the layers, and save an int8 model that works
### BEGIN SOLUTION
seen = []
for file in ("work/7.3_collapsed.onnx", healthy):
    debug.modify_model_output_intermediate_tensors(file, "work/7.3_probed.onnx")
    reader = cu.Calibration(healthy, {"image": cu.normalize(images[:20])})
    seen.append(debug.collect_activations("work/7.3_probed.onnx", reader))
error = debug.compute_activation_error(debug.create_activation_matching(*seen))
nodes = onnx.load(healthy).graph.node
order = [name for node in nodes for name in node.output if name in error]
first_bad = next(name for name in order if error[name]["xmodel_err"] < 10)
# The wide channel lies before the convolution that writes this tensor:
# leave that one and the one before it in float.
convolutions = [node for node in nodes if node.op_type == "Conv"]
at = next(i for i, node in enumerate(convolutions) if first_bad in node.output)
sick = [node.name for node in convolutions[at - 1 : at + 1]]
reader = cu.Calibration(healthy, {"image": pictures})
quantize_static(healthy, "work/7.3.onnx", reader, **settings, nodes_to_exclude=sick)
### END SOLUTION

# %%
cu.check("7.3", "work/7.3.onnx")

# %% [markdown] tags=["solution"]
# One channel is much wider than the others, so its tensor gets a coarse scale, and the other channels round to almost
# nothing. Tensors before it are fine, so the first one with a low signal-to-noise ratio shows the place. Two convolutions
# belong to it: one writes the wide channel, one reads it. A typical mistake is to exclude only one of them: the wide channel
# is still quantized, and the accuracy stays low. Another road is to compare the range of each channel in the float model, or
# to exclude pairs of neighbours one after the other and to measure.

# %% [markdown]
# ## 7.4 What was it calibrated with?
#
# *Deeper: after the page [Calibration](../deeper/07_calibration.ipynb).*
#
# Five people calibrated the same network. Here is what they left behind: of each model only the input, with the scale and
# the zero point that quantize it to uint8.

# %%
models = {path.stem[-1]: onnx.load(path) for path in cu.given("7.4")}
stored = {
    letter: {
        t.name: numpy_helper.to_array(t).item() for t in model.graph.initializer
    }
    for letter, model in models.items()
}
pd.DataFrame(stored).T.astype({"x_zero_point": int})

# %% [markdown]
# What did each of them calibrate with? And what is the largest real number that can pass this input? Write `work/7.4.json`:
# a dict from letter to a dict with the keys `reader` and `largest`. The check says how many are right, not which; readers
# count once all numbers are right.
#
# | reader | the calibration data |
# |---|---|
# | `right` | normalised pictures, as `cu.normalize` makes them |
# | `raw` | pixels as they are in the file |
# | `scaled` | pixels divided by 255, and no more |
# | `one broken` | normalised pictures, and a raw one among them |
# | `dark` | one normalised picture that is black all over |
# | `noise` | normally distributed random numbers |

# %%
# Task 7.4: read the scales, and write the answer
### BEGIN SOLUTION
answer = {}
for letter, values in stored.items():
    scale, zero = values["x_scale"], values["x_zero_point"]
    low, high = -zero * scale, (255 - zero) * scale
    if high > 10:
        reader = "one broken" if low < -0.5 else "raw"
    elif high < 0.1:
        reader = "dark"
    elif low < -2:
        reader = "noise"
    else:
        reader = "right" if low < -0.5 else "scaled"
    answer[letter] = {"reader": reader, "largest": high}
Path("work/7.4.json").write_text(json.dumps(answer))
### END SOLUTION

# %%
cu.check("7.4", "work/7.4.json")

# %% [markdown] tags=["solution"]
# Scale and zero point are a range in another form: the integer 0 stands for its lower end, 255 for its upper end. Both ends
# together tell the data. `raw` and `one broken` have almost the same upper end, only the lower end tells them apart. A
# typical mistake is `scale * 255`, which is the width of the range, and right only where the zero point is 0. The lower end
# is not exact, because the zero point is a whole number. Another road for `largest` is to run a very large input through the
# model: what comes out is the largest number.

# %% [markdown]
# ## 7.5 Four bits
#
# *Deeper: after the page [Language models in 8 and 4 bits](../deeper/07_language_models.ipynb).*
#
# Two products of matrices. Among the weights, one in a hundred is much larger than the others.

# %%
cu.params("7.5") | {"bytes in float32": cu.given("7.5").stat().st_size}

# %% [markdown]
# Store the weights in 4 bits, and save the model as `work/7.5.onnx`. Both products become `MatMulNBits`. The file has at
# most `most_bytes` bytes, and the result differs by at most `error` (root mean square of the difference ÷ that of the
# result, on normally distributed inputs).
#
# > **Hint** `MatMulNBitsQuantizer(model, bits=4, block_size=…, is_symmetric=…)`, then `process()`, then
# > `model.save_model_to_file(…)`. A block has 16, 32, 64, 128 or 256 numbers.

# %%
# Task 7.5: find a block size that fits both budgets, and save the model
p = cu.params("7.5")
### BEGIN SOLUTION
source = onnx.load(cu.given("7.5"))
x = np.random.default_rng(0).normal(size=(64, 256)).astype(np.float32)
expected = ort.InferenceSession(source.SerializeToString()).run(None, {"x": x})[0]
for block_size in (16, 32, 64, 128, 256):
    copy = onnx.ModelProto.FromString(source.SerializeToString())
    quantizer = MatMulNBitsQuantizer(
        copy, bits=4, block_size=block_size, is_symmetric=False
    )
    quantizer.process()
    data = quantizer.model.model.SerializeToString()
    got = ort.InferenceSession(data).run(None, {"x": x})[0]
    error = np.sqrt(np.mean((got - expected) ** 2) / np.mean(expected**2))
    if len(data) <= p["most_bytes"] and error <= p["error"]:
        Path("work/7.5.onnx").write_bytes(data)
### END SOLUTION

# %%
cu.check("7.5", "work/7.5.onnx")

# %% [markdown] tags=["solution"]
# Each block has a scale and a zero point of its own. Small blocks follow the weights closely, because a large weight spoils
# only its own block; large blocks need fewer bytes. So the first budget asks for large blocks and the second one for small
# ones, and trying all five sizes finds the one that fits both. The loop copies the model, because the quantizer changes what
# it is given. A typical mistake is `is_symmetric=True`: without zero points the error is larger, and no size fits. Another
# road is to count bytes: half a byte per weight, and the scales.

# %% [markdown]
# ## Hand in
#
# `cu.submit()` packs all answers that were checked into one file. Give that file to your instructor, or keep it.

# %%
if Path("work/answers").exists():
    cu.submit()
