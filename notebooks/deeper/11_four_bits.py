# %% [markdown]
# # 11 · Four bits
#
# Your decoder must fit into 110 MB. With 4 bits and the defaults it has 184 MB, and its perplexity has risen already.
# Which settings make it smaller, and what does each of them cost?
#
# You need the [core of lesson 11](../11_language_models.ipynb), with its packages.
#
# After this page you will be able to
#
# - say how many bits a weight takes, with all that belongs to it,
# - bring the table of words to 4 bits, too,
# - compare quantized files by the loss of each token, with its uncertainty.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## How we judge
#
# `cu.decoder_file` exports SmolLM2 as the lesson does. We judge each file by the same text.

# %%
FLOAT = "work/11_four_bits_float.onnx"
tokenizer = cu.decoder_file(FLOAT)
ids = tokenizer.encode(cu.story()).ids[:256]

# %% [markdown]
# The loss of a token is minus the logarithm of the chance that the model gave it. The mean loss, as a power of e, is the
# [perplexity](../glossary.md#perplexity).

# %%
import numpy as np
import onnxruntime as ort


def losses(file):
    session = ort.InferenceSession(file)
    feed = {
        i.name: np.zeros((1, 3, 0, 64), "float32") for i in session.get_inputs()
    }
    logits = session.run(["logits"], feed | {"ids": np.array([ids])})[0][0, :-1]
    logits -= logits.max(-1, keepdims=True)
    hit = logits[np.arange(len(ids) - 1), ids[1:]]
    return (np.log(np.exp(logits).sum(-1)) - hit).astype(float)


# %%
loss = {"float": losses(FLOAT)}
assert np.exp(loss["float"].mean()) < 100  # chance alone gives 49 152
f"perplexity {np.exp(loss['float'].mean()):.1f}"

# %% [markdown]
# ## The size of a block
#
# The weights of a block share a scale and a zero point. The scale is a float32, and the zero point has 4 bits, as the
# weights.

# %% tags=["remove-input"]
cu.quiz("11_four_bits", 1)

# %%
bits = {block: 4 + 32 / block + 4 / block for block in (16, 32, 128)}
bits

# %% [markdown]
# One call of the [tool](https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html) stands in a function,
# because we need it six times. It judges the file, too. The losses of two files
# on the same token belong together: so we look at their difference, its mean, and the standard error of this mean.

# %%
import logging
import onnx
import pandas as pd
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

logging.disable(logging.INFO)  # the tool names each node
columns = ["MB", "perplexity", "rise of loss", "standard error"]
table = pd.DataFrame(columns=columns, dtype=float)


# %%
from pathlib import Path


def quantized(name, model, block=32, **more):
    tool = MatMulNBitsQuantizer(model, bits=4, block_size=block, **more)
    tool.process()
    file = f"work/11_four_bits_{len(loss)}.onnx"
    onnx.save(tool.model.model, file)
    cu.give_back(tool)
    loss[name] = pd.Series(losses(file))
    rise = loss[name] - loss["float"]
    size, perplexity = Path(file).stat().st_size / 1e6, np.exp(loss[name].mean())
    table.loc[name] = size, perplexity, rise.mean(), rise.sem()
    return file


# %% [markdown]
# Large blocks save bits, and one scale serves more weights. We expect smaller files, and a higher loss.

# %% tags=["remove-input"]
cu.quiz("11_four_bits", 2)

# %%
for block in bits:
    quantized(f"blocks of {block}", onnx.load(FLOAT), block)
table.round(2)

# %% [markdown]
# Each file is clearly worse than float: the rise is several standard errors. Is one block size better than another?

# %%
gap = loss["blocks of 128"] - loss["blocks of 16"]
assert (table["rise of loss"] > 2 * table["standard error"]).all()
assert abs(gap.mean()) < 2 * gap.sem()
f"from 16 to 128: {gap.mean():+.2f}, standard error {gap.sem():.2f}"

# %% [markdown]
# Our text is too short to tell. There is a second reason: the weights had 4 bits in blocks of 32 before, in the package, and
# what a block size costs shows best with the original weights. So do not take a ranking from a table without its
# uncertainty, and measure with your own model and more text.
#
# The sizes surprise, too: blocks of 128 save little. The tool fills the last block of each row up, and a row of 576 weights
# takes five blocks of 128, room for 640.
#
# ## One wide input
#
# The scale of a block reaches from its smallest weight to its largest. In some models a few inputs of a product have much
# larger weights than the others. Here input 5 of 64 gets weights that are 20 times as large. We round to 16 steps, in blocks
# of 32 inputs.

# %%
weights = np.random.default_rng(0).normal(size=(64, 256))
weights[5] *= 20
blocks = weights.reshape(2, 32, 256)  # the second axis shares a scale
low, high = blocks.min(1, keepdims=True), blocks.max(1, keepdims=True)
scale = (high - low) / 15
error = np.abs(low + np.round((blocks - low) / scale) * scale - blocks)
beside, elsewhere = np.delete(error[0], 5, 0).mean(), error[1].mean()
assert beside > 3 * elsewhere
f"mean error: {beside:.2f} in the block of input 5, {elsewhere:.2f} elsewhere"

# %% [markdown]
# The other weights of its block lose most of their bits. The perplexity of the whole model hides where this happens, so look
# for such inputs: the largest weight of an input beside the mean of its product. Three things help: leave this product in float
# (`nodes_to_exclude`), give it 8 bits, or divide these inputs' weights by 20 and multiply by 20 where the inputs are made.
# The last is called [weight equalization](https://arxiv.org/abs/1906.04721).
#
# ## The table of words
#
# The rest is the table of words, 113 MB of float32. `Gather` reads it, and, turned, the last product. We store the turned
# table as a weight of its own. Then the tool can take both.


# %%
def with_turned_table():
    model = onnx.load(FLOAT)
    (turn,) = [node for node in model.graph.node if node.op_type == "Transpose"]
    (words,) = [t for t in model.graph.initializer if t.name == turn.input[0]]
    turned = np.ascontiguousarray(onnx.numpy_helper.to_array(words).T)
    stored = onnx.numpy_helper.from_array(turned, turn.output[0])
    model.graph.initializer.append(stored)
    model.graph.node.remove(turn)
    return model


# %% [markdown]
# First all products get 4 bits, then `Gather`, too.

# %%
both = {"op_types_to_quantize": ("MatMul", "Gather")}
quantized("last product, too", with_turned_table())
small = quantized("table, too", with_turned_table(), **both)
table.round(2)

# %% [markdown]
# With the last product alone the file even grows, because it now has the turned table beside the float one. With both, it
# fits. And what has each of the two cost?

# %%
assert table["MB"]["table, too"] < 110 < table["MB"].drop("table, too").min()
product = loss["last product, too"] - loss["blocks of 32"]
lookup = loss["table, too"] - loss["last product, too"]
gaps = {"last product": product, "Gather": lookup}
{b: f"{g.mean():+.3f}, standard error {g.sem():.3f}" for b, g in gaps.items()}

# %% [markdown]
# `Gather` costs next to nothing. The last product, which reads the same table, costs more.
#
# ## Integers in the products
#
# With `accuracy_level=4`, activations become integers of 8 bits in each run:

# %%
level4 = quantized("table, level 4", with_turned_table(), accuracy_level=4, **both)
gap = loss["table, level 4"] - loss["table, too"]
f"{gap.mean():+.3f}, standard error {gap.sem():.3f}"

# %% [markdown]
# And the speed of a step, after 200 tokens:

# %%
floats, integers = (ort.InferenceSession(file) for file in (small, level4))
feed = {i.name: np.zeros((1, 3, 200, 64), "float32") for i in floats.get_inputs()}
feed["ids"] = np.array([ids[-1:]])
calls = {"floats": lambda: floats.run(None, feed)}
cu.compare(calls | {"integers": lambda: integers.run(None, feed)}, rounds=15)

# %% [markdown]
# The loss hardly moves. The gain in speed depends on the processor, and on its instructions for integers, such as
# [VNNI](../glossary.md#simd-and-vnni).

# %% [markdown]
# ## Recap
#
# - A weight takes 4 bits, and its share of a scale and a zero point. Rows that are no multiple of the block are filled up.
# - One wide input coarsens its whole block: exclude its product, give it more bits, or divide the width away.
# - In a small model the table of words is a large part. The tool takes it only if `Gather` is among its types, and the last
#   product only if its weight is stored as such.
# - Compare files by the loss of each token on the same text. A difference below two standard errors is no result.
# - Quantize the original weights where you can get them: a second rounding hides what the first one has cost.
# - Try `accuracy_level=4`, and measure it on the processor of your users.
#
# **Now you:** [exercises 11](../exercises/11_language_models.ipynb), task 11.4. **Next:** back to
# [lesson 11](../11_language_models.ipynb).
