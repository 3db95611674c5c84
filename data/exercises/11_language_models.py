# %% [markdown]
# # 11 · Exercises: language models
#
# Four tasks on the course's own small language model. It has a million weights, it was trained on the prose of
# this course, and it runs in a moment. Each task ends in a file in `work/` that `cu.check` looks at. A check tells
# you what is right, and gives a hint for what is not. Try as often as you like: the best answer is kept.
#
# Tasks 11.1 and 11.2 follow the page [A decoder by hand](../deeper/11_a_decoder_by_hand.ipynb), 11.3 follows the
# [lesson](../11_language_models.ipynb), and 11.4 the page on [four bits](../deeper/11_four_bits.ipynb). Put your id
# between the quotes.

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
from onnx import helper, numpy_helper
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

logging.disable(logging.INFO)  # the tool of 11.4 names each node

# %% [markdown]
# ## 11.1 A cache of any length
#
# This decoder was exported with an example that had a past. With a past of the same length it is right. With
# another one it may give an error, or wrong scores without an error:

# %%
given = cu.given("11.1")
[(i.name, i.shape) for i in ort.InferenceSession(given).get_inputs()[:3]]

# %% [markdown]
# The file has five layers, with the inputs `past.key.0`, `past.value.0`, … `past.value.4`, float32 *texts × 2 ×
# past × 32*. All your scores are multiplied by a number of your own:

# %%
cu.params("11.1")

# %% [markdown]
# Save a file that is right for a past of **any** length, the empty one included, as `work/11.1.onnx`. Names, types
# and weights must stay. The check feeds texts from their beginning, and texts that follow a past.
#
# > **Hint** Which nodes come first in the file, and which number do they read?

# %%
cu.node_table(given)[["op", "inputs", "outputs"]].head(12)

# %%
# Task 11.1: let the file read the length of its past, and save it
model = onnx.load(given)
### BEGIN SOLUTION
graph = model.graph
frozen = next(t for t in graph.initializer if t.name == "example_past")
print(numpy_helper.to_array(frozen))
graph.initializer.remove(frozen)
shape = helper.make_node("Shape", ["past.key.0"], ["its_shape"], start=2, end=3)
size = helper.make_node("Squeeze", ["its_shape"], ["example_past"])
graph.node.insert(0, shape)
graph.node.insert(1, size)
onnx.save(model, "work/11.1.onnx")
### END SOLUTION

# %%
cu.check("11.1", "work/11.1.onnx")

# %% [markdown] tags=["solution"]
# The length of the example's past stands in the file as a number. The rotations of queries and keys read it, and in
# some files the mask, too. Where the mask reads it, another past is refused. Where only the rotations read it,
# nothing is refused, and the scores after another past are wrong.
#
# The length is a size of an input, so `Shape` gives it. It must have the name that the nodes read, and stand before
# them. Another road is to let the nodes read a tensor that the file has already. A typical mistake is to write 0
# for the number: then only texts from their beginning are right.

# %% [markdown]
# ## 11.2 One wrong mask
#
# In this file one of the five layers has a wrong mask: a token sees what it should not see, or does not see what it
# should. The scores are wrong, with a past and without.

# %%
given = cu.given("11.2")
cu.op_histogram(given).head(8).to_frame()

# %% [markdown]
# Each layer has a tensor `layers.N.share`, with N from 0 to 4. It says how much each new token takes from each
# token of the text: *texts × 2 × 2 × new × all*. Find the layer, mend its mask, and save the file as
# `work/11.2.onnx`. Names, types and weights must stay. The check feeds texts from their beginning, and texts that
# follow a past.
#
# > **Hint** Append `onnx.ValueInfoProto(name="layers.0.share")` to `graph.output`, and so on. Do not save these
# > outputs in your answer.

# %%
# Task 11.2: find the layer, mend its mask, and save the file
model = onnx.load(given)
### BEGIN SOLUTION
masks = [node for node in model.graph.node if node.output[0].endswith(".seen")]
for node in masks:
    print(node.output[0], node.op_type, list(node.input))
for node in masks:
    node.op_type = "LessOrEqual"
    node.input[:] = ["columns", "rows"]
onnx.save(model, "work/11.2.onnx")
### END SOLUTION

# %%
cu.check("11.2", "work/11.2.onnx")

# %% [markdown] tags=["solution"]
# The mask of a layer is written by one comparison: the place of a key is at most the place of the token that looks.
# Four layers have it, and one is unlike them. In its shares you see the same: a number above the diagonal means
# that a token looks ahead, a zero on the diagonal that it does not see itself.
#
# Another road is to compute one mask and to let all layers read it. A typical mistake is a mask that counts from
# the first key, as `is_causal=True` does: it is right only without a past.

# %% [markdown]
# ## 11.3 Token by token, exactly
#
# This file is right. Here is your prompt, as tokens:

# %%
given = cu.given("11.3")
prompt = cu.params("11.3")["prompt"]
cu.small_decoder_text(prompt)

# %% [markdown]
# Write `work/11.3.json` with two keys. Each is a list of 24 tokens, without the prompt. Do not stop at token 0,
# which stands before a page.
#
# | key | value |
# |---|---|
# | `greedy` | each token has the highest score after all tokens before it |
# | `no_repeat` | the same, but a token that stands in the prompt, or was chosen before, may not be chosen |
#
# > **Hint** The lesson's function `step` is nearly enough. The past of a text without tokens is *1 × 2 × 0 × 32*.

# %%
# Task 11.3: write 24 tokens in two ways
session = ort.InferenceSession(given)
### BEGIN SOLUTION
names = [i.name for i in session.get_inputs()]


def written(fresh):
    new, chosen = prompt, []
    cache = [np.zeros((1, 2, 0, 32), "float32")] * 10
    while len(chosen) < 24:
        feed = dict(zip(names, [np.array([new]), *cache]))
        logits, *cache = session.run(None, feed)
        scores = logits[0, -1]
        if fresh:
            scores[prompt + chosen] = -np.inf
        new = [int(scores.argmax())]
        chosen += new
    return chosen


answer = {"greedy": written(False), "no_repeat": written(True)}
Path("work/11.3.json").write_text(json.dumps(answer))
print(*map(cu.small_decoder_text, answer.values()), sep="\n\n")
### END SOLUTION

# %%
cu.check("11.3", "work/11.3.json")

# %% [markdown] tags=["solution"]
# The first step feeds the whole prompt and an empty past. Each later step feeds one token, and the keys and values
# that the step before has returned. The scores of the next token stand in the last row. Greedy text of a small
# model soon repeats itself: a rule against repetition changes it from the first repeated token on.
#
# A typical mistake is to feed the last token with an empty past: then each token follows from the one before it
# alone. Another road needs no past at all: feed the whole text anew for each token. It is slower, and gives the
# same tokens.

# %% [markdown]
# ## 11.4 Four bits under two budgets
#
# *Deeper: after the page [Four bits](../deeper/11_four_bits.ipynb).*
#
# This is the decoder in float32. The table of words stands in it twice: once for `Gather`, and turned for the last
# product. The tokens of your file have numbers of their own, and the text is given in them:

# %%
given, text = cu.given("11.4")
ids = np.load(text)
ids.shape, given.stat().st_size

# %% [markdown]
# These are pieces of the course, with 128 tokens each, and the decoder was not trained on them. A function for their
# perplexity:


# %%
def perplexity(file):
    session = ort.InferenceSession(file)
    empty = np.zeros((len(ids), 2, 0, 32), "float32")
    feed = {i.name: empty for i in session.get_inputs()} | {"ids": ids}
    logits = session.run(["logits"], feed)[0][:, :-1].astype(float)
    logits -= logits.max(-1, keepdims=True)
    hit = np.take_along_axis(logits, ids[:, 1:, None], -1)[..., 0]
    return np.exp((np.log(np.exp(logits).sum(-1)) - hit).mean())


perplexity(given)

# %%
cu.params("11.4")

# %% [markdown]
# Save a file of at most `most_bytes` bytes as `work/11.4.onnx`. Its perplexity is at most `perplexity` times that of
# the given file. At least 30 of the 36 products with weights become `MatMulNBits` with 4 bits. Names and types of
# inputs and outputs must stay. The check reads eight other pieces of the same pages, so stay well below the limit.
#
# > **Hint** 4 bits spoil one of the products. Which one? `MatMulNBitsQuantizer` has `block_size`,
# > `is_symmetric`, `op_types_to_quantize`, `nodes_to_include` and `nodes_to_exclude`. The tool may warn of an invalid
# > value, because some weights are all zero. This does no harm.

# %%
# Task 11.4: find the product that 4 bits spoil, and save a file within both budgets
model = onnx.load(given)
### BEGIN SOLUTION
stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
wide = {}
for node in model.graph.node:
    if node.op_type == "MatMul" and node.input[1] in stored:
        sizes = np.abs(stored[node.input[1]])
        wide[node.name] = sizes.max() / sizes.mean()
widest = sorted(wide, key=wide.get)[-3:]
print({name: round(float(wide[name])) for name in widest})
tool = MatMulNBitsQuantizer(
    model,
    bits=4,
    block_size=64,
    op_types_to_quantize=("MatMul", "Gather"),
    nodes_to_exclude=widest[-1:],
)
tool.process()
onnx.save(tool.model.model, "work/11.4.onnx")
print(perplexity("work/11.4.onnx") / perplexity(given))
### END SOLUTION

# %%
cu.check("11.4", "work/11.4.onnx")

# %% [markdown] tags=["solution"]
# A block has one scale, and its widest weight decides it. In one matrix a few inputs are 128 times as wide as they
# were. Beside them most other weights of a block become zero, and the perplexity rises. The largest weight of each
# matrix, compared with its mean, shows which one it is. You can also measure: give 4 bits to one product at a time.
#
# Another road is to give this product 8 bits, in a second pass with `nodes_to_include`. A third one is to divide the
# wide inputs by 128, and to multiply by 128 where they are made. A typical mistake is to shrink the blocks: the file
# grows, and each block has wide inputs.

# %% [markdown]
# ## Hand in
#
# This packs your answers into one file. It holds your answers, your id and your points, and no code.

# %%
if Path("work/answers").exists():
    cu.submit()
