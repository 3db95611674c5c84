# %% [markdown]
# # 07 · Static quantization for text
#
# A phone's [NPU](../glossary.md#npu) takes static int8 only, and your model reads text. The report advises against it: the
# ranges of activations depend strongly on the text, so language models need dynamic quantization. Is that so? This page
# tries it.
#
# You need the [core of lesson 07](../07_quantization.ipynb). The model comes with the extra `nlp` of the course.
#
# After this page you will be able to
#
# - measure how much the ranges of a model change from input to input,
# - quantize a transformer statically with little loss, where you have to,
# - tell which of several settings caused a loss, by changing one at a time.

# %%
import logging

import course_utils as cu
import numpy as np
import onnxruntime as ort

cu.setup()
logging.getLogger().setLevel(logging.ERROR)  # the tools log advice

# %% [markdown]
# ## Two models
#
# MiniLM reads ten sentences.

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
# `cu.sentence_encoder` exports the model, as the page [A trained transformer](06_trained.ipynb) shows it, and returns the
# sentences as its inputs: the numbers of their words, and a mask that says where a sentence ends.

# %%
TEXT = "work/07_static_text.onnx"
text = cu.sentence_encoder(TEXT, sentences)

# %% [markdown]
# For comparison, the convolutional network of lesson 07, which static quantization suits:

# %%
import torch

net, example = cu.fashion_resnet(), (torch.randn(2, 1, 28, 28),)
names = {"input_names": ["image"], "output_names": ["logits"], "verbose": False}
with cu.exporter_messages():
    made = torch.onnx.export(net, example, dynamic_shapes=({0: "batch"},), **names)

# %%
from onnxruntime.quantization import quant_pre_process

CNN = "work/07_static_text_cnn.onnx"
quant_pre_process(made.model_proto, CNN)

# %% [markdown]
# ## Do the ranges depend on the text?
#
# In a dynamically quantized model,
# [`DynamicQuantizeLinear`](https://onnx.ai/onnx/operators/onnx__DynamicQuantizeLinear.html) writes each scale as its second output. We make these outputs
# of the model, and feed one text, or one picture, at a time.

# %%
from onnxruntime.quantization import QuantType, quantize_dynamic

TEXT8, CNN8 = "work/07_static_text_int8.onnx", "work/07_static_text_cnn8.onnx"
quantize_dynamic(TEXT, TEXT8, per_channel=True, op_types_to_quantize=["MatMul"])
quantize_dynamic(CNN, CNN8, weight_type=QuantType.QInt8)

# %% [markdown]
# `spread` gives the largest scale divided by the smallest, over all runs, of the tensor where that is largest.

# %%
import onnx


def spread(file, feeds):
    model = onnx.load(file)
    nodes = [n for n in model.graph.node if n.op_type == "DynamicQuantizeLinear"]
    del model.graph.output[:]
    scales = [onnx.ValueInfoProto(name=node.output[1]) for node in nodes]
    model.graph.output.extend(scales)
    session = ort.InferenceSession(model.SerializeToString())
    seen = [session.run(None, feed) for feed in feeds]
    return round(float((np.max(seen, 0) / np.min(seen, 0)).max()), 2)


# %% [markdown]
# One text, or one picture, at a time:

# %%
lengths = text["mask"].sum(1)
ones = [{k: x[[i], :n] for k, x in text.items()} for i, n in enumerate(lengths)]
spreads = {"texts": spread(TEXT8, ones)}

# %%
images, labels = cu.fashion_mnist("test")
pictures = cu.normalize(images)
spreads["pictures"] = spread(CNN8, [{"image": pictures[[i]]} for i in range(10)])
spreads

# %% [markdown]
# The ranges do depend on the text. But those of the
# pictures change more, and static quantization suits that network:

# %%
from onnxruntime.quantization import quantize_static

STATIC = "work/07_static_text_cnn_static.onnx"
types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
how = types | {"per_channel": True}
examples = {"image": cu.normalize(cu.fashion_mnist("calibration")[0][:100])}
quantize_static(CNN, STATIC, cu.Calibration(CNN, examples), **how)

# %% [markdown]
# The accuracy of both, on 10 000 images:

# %%
accuracy = {}
for file in (CNN, STATIC):
    logits = cu.run_in_batches(file, {"image": pictures}, 500)["logits"]
    accuracy[file] = 100 * float((logits.argmax(1) == labels).mean())
accuracy

# %% [markdown]
# Less than half a point is lost. So the spread of the ranges alone does not decide for dynamic.
#
# ## Static, tried
#
# For calibration we take the sentences of the test themselves, which is the best case. One call, products only, with a scale
# per channel:

# %%
products = how | {"op_types_to_quantize": ["MatMul"]}
files = {"float": TEXT, "dynamic": TEXT8, "static": "work/07_static_text_1.onnx"}
quantize_static(TEXT, files["static"], cu.Calibration(TEXT, text), **products)

# %% [markdown]
# Then one change at a time. `quantize_static` also rounds the *results* of the products to 8 bits, and `quantize_dynamic`
# does not. So we leave them in float:

# %%
rest = {"extra_options": {"OpTypesToExcludeOutputQuantization": ["MatMul"]}}
results = files["static, results in float"] = "work/07_static_text_2.onnx"
quantize_static(TEXT, results, cu.Calibration(TEXT, text), **products, **rest)

# %% [markdown]
# The other change: activations of 16 bits.

# %%
wide = products | {"activation_type": QuantType.QUInt16}
wide_file = files["static, 16-bit activations"] = "work/07_static_text_3.onnx"
quantize_static(TEXT, wide_file, cu.Calibration(TEXT, text), **wide)

# %% [markdown]
# How good are they? For each sentence, the [cosine](../glossary.md#cosine-similarity) between its vector and that of the
# float model; the worst of ten counts.

# %%
vectors, worst = {}, {}
for way, file in files.items():
    total = ort.InferenceSession(file).run(None, text)[0] * text["mask"][..., None]
    mean = total.sum(1)
    vectors[way] = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    worst[way] = round(float((vectors[way] * vectors["float"]).sum(1).min()), 4)
worst

# %% [markdown]
# With the default settings, static loses much more than dynamic. With the
# **results left in float** it is nearly as good. So the loss came not from the fixed range of the inputs, but from rounding
# the results. 16 bits are the most exact. Do they run as integers?

# %%
runs = cu.op_histogram(cu.optimized(wide_file))
assert not runs.index.str.contains("QLinearMatMul|MatMulIntegerToFloat").any()
runs.head(4).to_frame().T

# %% [markdown]
# No. There is no integer kernel for 16 bits on this CPU: the model computes in float, with conversions. An NPU may have
# one (not run here).

# %% tags=["hide-input"]
cu.claim(
    "ranges-follow-the-text",
    {
        "a scale changes from text to text": spreads["texts"] > 1.1,
        "it changes more from picture to picture": (
            spreads["pictures"] > spreads["texts"]
        ),
        "and static int8 suits the pictures": (
            accuracy[CNN] - accuracy[STATIC] <= 0.5
        ),
        "static, with the default settings, loses with texts": (
            worst["static"] < 0.97 < worst["dynamic"]
        ),
        "with results in float it nearly reaches dynamic": (
            worst["dynamic"] - worst["static, results in float"] < 0.02
        ),
    },
)

# %% [markdown]
# ## Recap
#
# - Ranges depend on the text, but those of our convolutional network depend on the picture even more.
# - Use dynamic quantization for text on a CPU: it keeps the directions better than static int8, and needs no data.
# - Use static where the device demands it. Leave the results of products in float, or take 16-bit activations.
# - Change one setting at a time. With two at once you cannot tell which of them caused the loss.
#
# **Next:** [where int8 runs](07_where_int8_runs.ipynb), or back to [lesson 07](../07_quantization.ipynb).
