# %% [markdown]
# # 07 · Language models in 8 and 4 bits
#
# Your search uses a sentence encoder. Its file has 90 MB, too many for a small server or a download, and the results must
# stay the same. Somebody proposes 8 bits, somebody else 4. This page makes all these files and judges them.
#
# You need the [core of lesson 07](../07_quantization.ipynb). The model comes with the extra `nlp` of the course.
#
# After this page you will be able to
#
# - quantize a transformer to 8 bits with one call, and choose the two settings that matter,
# - store weights in 4 bits, with the table of words or without it,
# - judge an encoder by the direction of its vectors.

# %%
import course_utils as cu
import onnx
import onnxruntime as ort

cu.setup()

# %% [markdown]
# ## The encoder
#
# [MiniLM](https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2) turns a text into a vector, the
# [embedding](../glossary.md#embedding). Texts of a like meaning have vectors of a like direction. Ten sentences in five
# pairs:

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
# `cu.sentence_encoder` exports MiniLM to a file, as the page [A trained transformer](06_trained.ipynb) shows it. It
# returns the sentences as the inputs of the model: the numbers of their words, and a mask that says where a sentence ends.

# %%
TEXT = "work/07_language_models.onnx"
feed = cu.sentence_encoder(TEXT, sentences)
{name: values.shape for name, values in feed.items()}

# %% [markdown]
# The longest sentence gives all rows their length. The model returns a vector for each of the words.
#
# ## 8 bits with one call
#
# The report recommends [dynamic](../glossary.md#quantization) quantization for language models. It needs no examples:

# %%
import logging

from onnxruntime.quantization import quantize_dynamic

logging.getLogger().setLevel(logging.ERROR)  # the tools log advice
INT8 = "work/07_language_models_int8.onnx"
quantize_dynamic(TEXT, INT8, per_channel=True)

# %% [markdown]
# Is it still the same encoder? The vector of a sentence is the mean over its words. Two
# vectors have the same direction when their [cosine](../glossary.md#cosine-similarity) is 1.

# %%
import numpy as np


def embed(session):
    """One vector of length 1 for each sentence."""
    there = feed["mask"][..., None]
    total = (session.run(None, feed)[0] * there).sum(1)
    return total / np.linalg.norm(total, axis=1, keepdims=True)


# %% [markdown]
# For each sentence, the cosine between the vector of the float model and that of the int8 model:

# %%
one = ort.SessionOptions()
one.intra_op_num_threads = 1
before, after = (embed(ort.InferenceSession(file, one)) for file in (TEXT, INT8))
(before * after).sum(1).round(3)

# %% [markdown]
# The directions have hardly changed. We also ask whether each sentence keeps its nearest neighbour, how large a file is,
# and how fast.


# %%
from pathlib import Path


def judged(files):
    """Size, quality and speed of each file, beside the first one."""
    sessions = {what: ort.InferenceSession(f, one) for what, f in files.items()}
    calls = {what: lambda s=s: s.run(None, feed) for what, s in sessions.items()}
    table = cu.compare(calls, rounds=4, seconds=2).table[["× as fast"]]
    table["MB"] = [Path(file).stat().st_size / 1e6 for file in files.values()]
    vectors = [embed(session) for session in sessions.values()]
    table["worst cosine"] = [(v * vectors[0]).sum(1).min() for v in vectors]
    near = [(v @ v.T - 2 * np.eye(len(v))).argmax(1) for v in vectors]
    table["neighbours kept"] = [(n == near[0]).sum() for n in near]
    return table


# %% [markdown]
# ## The two settings that matter
#
# Which operators are quantized? And has a weight one scale, or one for each channel? We change **one at a time**, so there
# are four files. A fifth one quantizes only the largest tensor, the table of words, which `Gather` reads.

# %%
operators = {"all operators": None, "products only": ["MatMul"]}
files = {"float": TEXT, "table only": "work/07_language_models_table.onnx"}
quantize_dynamic(TEXT, files["table only"], op_types_to_quantize=["Gather"])
for what, ops in operators.items():
    for way in ("per tensor", "per channel"):
        file = f"work/07_language_models_{len(files)}.onnx"
        how = {"op_types_to_quantize": ops, "per_channel": way == "per channel"}
        quantize_dynamic(TEXT, file, **how)
        files[f"{what}, {way}"] = file

# %%
summary = judged(files)
worst, MB = summary["worst cosine"], summary["MB"]
summary.round(3)

# %% [markdown]
# Read the rows in pairs. From *per tensor* to *per channel* the directions get much better, and the file hardly grows.
# From *products only* to *all operators* the file gets less than half as large, and the directions change very little: the
# table alone has hardly any effect. So take **all operators, per channel**.
#
# What has become of the products? We look at the graph that runs.

# %%
graph = onnx.load(TEXT).graph
stored = {tensor.name for tensor in graph.initializer}
products = [node for node in graph.node if node.op_type == "MatMul"]
with_weight = sum(node.input[1] in stored for node in products)

# %%
best = "all operators, per channel"
runs = cu.op_histogram(cu.optimized(files[best]))
fused = runs.filter(regex="::(DynamicQuantizeMatMul|MatMulIntegerToFloat)$").sum()
{"products": len(products), "with a weight": with_weight, "fused": int(fused)}

# %% [markdown]
# Each product with a weight runs in one fused integer [kernel](../glossary.md#kernel). The products without a weight, those
# of attention, stay in float.

# %%
import inspect

parameters = list(inspect.signature(quantize_dynamic).parameters)
parameters

# %% [markdown]
# And none of the parameters takes calibration data.

# %% tags=["hide-input"]
cu.claim(
    "dynamic-suits-nlp",
    {
        "every product with a weight runs in a fused integer kernel": (
            fused == with_weight > 0
        ),
        "it asks for no calibration data": "calib" not in " ".join(parameters),
        "a scale per channel brings most of the quality": (
            worst[best] > 0.98 > worst["all operators, per tensor"]
        ),
        "the table of words alone costs next to nothing": (
            worst["table only"] > 0.999
        ),
        "so all operators are as good as products only": (
            abs(worst[best] - worst["products only, per channel"]) < 0.01
        ),
        "in a file of less than half the size": (
            MB[best] < MB["products only, per channel"] / 2
        ),
        "each sentence keeps its nearest neighbour": (
            summary["neighbours kept"][best] == len(sentences)
        ),
    },
)

# %% [markdown]
# ## Four bits
#
# [`MatMulNBits`](https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MatMulNBits)
# cuts each weight matrix into blocks of 32 numbers, each with a scale of its own, and stores 4 bits for a weight. By
# default the tool takes products only, and the operator computes in float: the model is
# [weight-only](../glossary.md#weight-only) quantized.

# %% tags=["remove-input"]
cu.quiz("07_language_models", 1)

# %%
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

quantizer = MatMulNBitsQuantizer(onnx.load(TEXT), bits=4, block_size=32)
quantizer.process()
onnx.save(quantizer.model.model, "work/07_language_models_4bit.onnx")

# %% [markdown]
# Two options. With `Gather` among the types, the table gets 4 bits, too. With `accuracy_level=4`, activations become
# integers of 8 bits, so the products are integer ones.

# %%
small = {"float": TEXT, "4 bits": "work/07_language_models_4bit.onnx"}
both = {"op_types_to_quantize": ("MatMul", "Gather")}
for what, more in {"table, too": both, "level 4": {"accuracy_level": 4}}.items():
    model = onnx.load(TEXT)
    quantizer = MatMulNBitsQuantizer(model, bits=4, block_size=32, **more)
    quantizer.process()
    small[what] = f"work/07_language_models_4bit_{len(small)}.onnx"
    onnx.save(quantizer.model.model, small[what])

# %%
four = judged(small)
assert 3 * four["MB"]["table, too"] < four["MB"]["4 bits"]
four.round(3)

# %% [markdown]
# With the table, the file is six times smaller than float, and the directions are nearly those of 4 bits without it. 8 bits
# per channel keep them better. Level 4 gains little in MiniLM, whose matrices have 384 columns; try it where yours are
# larger.

# %% [markdown]
# ## Recap
#
# - Use `quantize_dynamic` with `per_channel=True` and all operators for a transformer on a CPU.
# - Use 4 bits where the file must be smallest, with `Gather` among the types, unless the cosines get too low for you.
# - `accuracy_level=4` makes integer products of 4-bit weights. Try it for large matrices, and measure.
# - Judge an encoder by directions and neighbours on your own texts. Ten sentences show the method; take more before you ship a model.
#
# **Now you:** tasks 7.5 and 7.7 of the [exercises](../exercises/07_quantization.ipynb).
# **Next:** [static quantization for text](07_static_text.ipynb), or back to [lesson 07](../07_quantization.ipynb).
