# %% [markdown]
# # 07 · Find the layer that int8 ruins
#
# Your int8 network has lost most of its accuracy. The types are right, and so are the calibration data. One layer loses
# too much by the rounding, but which one? This page builds such a network, finds the layer, and mends the model.
#
# You need the [core of lesson 07](../07_quantization.ipynb).
#
# After this page you will be able to
#
# - say why one wide channel ruins int8, also with a scale per channel,
# - find the tensor where the error begins, with ONNX Runtime's own tools,
# - leave the right nodes in float.

# %%
import course_utils as cu
import numpy as np
import onnx

cu.setup()

# %% [markdown]
# ## A network that int8 ruins
#
# We export and prepare the network of lesson 07.

# %%
import torch

FLOAT = "work/07_find_the_layer_float.onnx"
net, example = cu.fashion_resnet(), (torch.randn(2, 1, 28, 28),)
names = {"input_names": ["image"], "output_names": ["logits"], "verbose": False}

# %%
from onnxruntime.quantization import QuantType, quant_pre_process, quantize_static

with cu.exporter_messages():
    made = torch.onnx.export(net, example, dynamic_shapes=({0: "batch"},), **names)
quant_pre_process(made.model_proto, FLOAT)

# %% [markdown]
# Then we change it so that it computes **the same**. In one block, channel 3 that the first convolution writes is
# multiplied by *k*, and what the second convolution makes of it is divided by *k*. Between the two is only a ReLU, and it
# lets a positive factor pass.

# %%
FIRST, SECOND = "stage2.0.conv1.weight", "stage2.0.conv2.weight"


def stretched(k):
    """The file of the network with one channel k times as wide."""
    model, file = onnx.load(FLOAT), f"work/07_find_the_layer_{k}.onnx"
    tensors = {t.name: t for t in model.graph.initializer}
    for name, axis in ((FIRST, 0), (f"{FIRST}_bias", 0), (SECOND, 1)):
        x = onnx.numpy_helper.to_array(tensors[name]).copy()
        x.swapaxes(0, axis)[3] *= np.float32(1 / k if axis else k)
        tensors[name].CopyFrom(onnx.numpy_helper.from_array(x, name))
    onnx.save(model, file)
    return file


# %% [markdown]
# Does it still give the same answers?

# %%
images, labels = cu.fashion_mnist("test")


def accuracy(file):
    """Per cent of the first 500 test images."""
    feed = {"image": cu.normalize(images[:500])}
    logits = cu.run_in_batches(file, feed, 500)["logits"]
    return round(100 * float((logits.argmax(1) == labels[:500]).mean()), 1)


accuracy(FLOAT), accuracy(stretched(4096))

# %% [markdown]
# The accuracy in float is the same. Now int8, once with one scale per tensor, once with one per channel.

# %%
TRY = "work/07_find_the_layer_try.onnx"
good = {"image": cu.normalize(cu.fashion_mnist("calibration")[0][:50])}
types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}

# %% [markdown]
# The first value of *k*, 1, is our own network.

# %%
import pandas as pd

rows = {}
for k in (1, 64, 256, 4096):
    rows[k] = {"float": accuracy(stretched(k))}
    for way in ("per tensor", "per channel"):
        reader = cu.Calibration(stretched(k), good)
        how = types | {"per_channel": way == "per channel"}
        quantize_static(stretched(k), TRY, reader, **how)
        rows[k][way] = accuracy(TRY)
table = pd.DataFrame(rows).T.rename_axis("k")

# %%
assert np.ptp(table["float"]) <= 0.5
assert table["per tensor"][256] + 10 < table["per channel"][256]
assert table["per channel"][4096] + 20 < table["float"][4096]
table

# %% [markdown]
# With one scale per tensor, the wide channel takes nearly all integers, and the other 63 channels share a few. At *k* = 256
# a scale per channel still helps. At *k* = 4096 it does not: **activations** always have one scale per tensor, and the wide
# channel takes it.
#
# ## Look at the weights
#
# From here on we pretend not to know the layer. [`qdq_loss_debug`](https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html#quantization-debugging)
# compares a float model with its
# [QDQ](../glossary.md#qdq-and-qoperator) form. First the weights, with one scale per tensor, in the healthy model and in
# the sick one.

# %%
from onnxruntime.quantization import qdq_loss_debug as debug

floats = {"healthy": FLOAT, "sick": stretched(4096)}
int8 = {kind: f"work/07_find_the_layer_{kind}.onnx" for kind in floats}
for kind, file in floats.items():
    quantize_static(file, int8[kind], cu.Calibration(file, good), **types)

# %%
matching = {k: debug.create_weight_matching(floats[k], int8[k]) for k in floats}
error = {k: debug.compute_weight_error(both) for k, both in matching.items()}
weights = pd.DataFrame(error).filter(regex="weight$", axis=0)
assert weights["sick"].drop("classifier.weight").idxmax() == FIRST
weights.sort_values("sick", ascending=False).head(4).round(1).add_suffix(", dB")

# %% [markdown]
# This is the ratio of signal to error in decibels: with 20 dB the error is a tenth of the signal, with 40 dB a hundredth.
# The list is **blind** to our fault. The sick layer, `stage2.0.conv1`, even looks best of all convolutions: the wide
# channel *is* nearly all of the signal, and it is stored well. But `compute_weight_error` takes another measure. We ask for
# the ratio of the channel in the middle.


# %%
def middle_channel(real, back):
    """Signal to error of the median channel, in dB."""
    signal = np.linalg.norm(real.reshape(len(real), -1), axis=1)
    error = np.linalg.norm((real - back).reshape(len(real), -1), axis=1)
    ratio = np.maximum(signal, 1e-12) / np.maximum(error, 1e-12)
    return float(np.median(20 * np.log10(ratio)))


# %% [markdown]
# The three weights with the smallest ratio:

# %%
ratios = debug.compute_weight_error(matching["sick"], middle_channel)
by_channel = pd.Series(ratios).filter(regex="weight$").sort_values()
assert by_channel.idxmin() == FIRST
by_channel.head(3).round(1).to_frame("dB, median channel")

# %% [markdown]
# Now the sick layer is the first one. With 0 dB the error is as large as the signal: in most channels every integer is 0.
#
# ## Look at the activations
#
# A scale per channel would mend the weight, and not the activation. So compare all tensors, too. Each model gets them as
# outputs, and both run on the same pictures.

# %%
PROBED = "work/07_find_the_layer_probed.onnx"
debug.modify_model_output_intermediate_tensors(FLOAT, PROBED)
tensors = debug.collect_activations(PROBED, cu.Calibration(FLOAT, good))
len(tensors)

# %% [markdown]
# So many tensors of the float model. Now for both models, and for their int8 files:

# %%
noise = {}
for kind, file in floats.items():
    both = []
    for each in (int8[kind], file):
        debug.modify_model_output_intermediate_tensors(each, PROBED)
        reader = cu.Calibration(FLOAT, good)
        both.append(debug.collect_activations(PROBED, reader))
    matched = debug.create_activation_matching(*both)
    found = debug.compute_activation_error(matched)
    noise[kind] = {name: ratio["xmodel_err"] for name, ratio in found.items()}

# %% [markdown]
# `xmodel_err` compares a tensor in the two models; we plot it in the order of the graph. (`qdq_err` compares a tensor
# before and after its own pair. Where a `Relu` has gone into the pair it is near zero, and that is no fault.)

# %%
import matplotlib.pyplot as plt

nodes = onnx.load(FLOAT).graph.node
order = [name for node in nodes for name in node.output if name in noise["sick"]]
decibel = pd.DataFrame(noise).loc[order]
fall = decibel["healthy"] - decibel["sick"]
culprit = fall[fall > 10].index[0]
title = f"The fault begins at the tensor {culprit}"
axes = decibel.plot(marker="o", title=title, ylabel="signal to error, dB")
axes.set_xticks(range(len(order)), order, rotation=70, ha="right")
plt.show()

# %% [markdown]
# The healthy model loses a little in its first layers and then stays level. The sick one falls at one tensor, and what
# depends on it is noise. (One tensor behind it is fine: it belongs to the shortcut, which goes round the sick layers.)
#
# ## Leave two nodes in float
#
# The wide channel lies *before* the convolution that writes this tensor. So exclude this one, and the one before it.

# %%
writer = {name: node for node in nodes for name in node.output}
here = writer[culprit]
before = writer[writer[here.input[0]].input[0]]  # past the Relu
assert [before.input[1], here.input[1]] == [FIRST, SECOND]

# %% [markdown]
# These are the two layers that we changed. Their nodes stay in float:

# %%
reader = cu.Calibration(floats["sick"], good)
how = types | {"per_channel": True, "nodes_to_exclude": [before.name, here.name]}
quantize_static(floats["sick"], TRY, reader, **how)
accuracy(TRY)

# %% [markdown]
# The accuracy is back. And how many convolutions are still int8?

# %%
assert table["float"][4096] - accuracy(TRY) < 1.5
runs = cu.op_histogram(cu.optimized(TRY))
runs.filter(regex="Conv").to_frame().T

# %% [markdown]
# 13 of 15. So loss debug finds candidates; the accuracy decides. A
# noisy tensor in the middle need not matter, because later layers may average its noise away.

# %% [markdown]
# ## Recap
#
# - One wide channel takes the scale. For a weight, a scale per channel helps; an activation has one scale in any case.
# - `compute_weight_error` is blind to it. Give it a measure per channel.
# - Compare activations in the order of the graph: where the sick model falls, there the fault begins.
# - Use `nodes_to_exclude` for the layers on both sides of the wide tensor, unless one of them is most of the work.
#
# **Next:** task 7.3 of the [exercises](../exercises/07_quantization.ipynb) asks for this, or back to
# [lesson 07](../07_quantization.ipynb).
