# %% [markdown]
# # 11 · A decoder by hand
#
# You have trained a decoder of your own, and exported it with a cache. PyTorch and ONNX Runtime agree to six digits. But
# the text that it writes is nonsense from the second token on. This page builds such a decoder from PyTorch's parts, finds
# the wrong line, and shows the test that finds it.
#
# You need the [core of lesson 11](../11_language_models.ipynb).
#
# After this page you will be able to
#
# - write attention with a cache, so that it exports at all sizes,
# - test a decoder in parts, which parity with PyTorch does not replace,
# - write the loops around the file: greedy, sampled, and with IO binding.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## The layers
#
# A layer has four weights for attention, and a small network. Four heads have queries (`q`), but only two have keys and values
# (`k` and `v`), so
# the cache has half the size. This is *grouped-query attention*. The sizes are small and the weights random: we compare
# numbers, not texts.

# %%
import torch
from torch import nn

torch.manual_seed(0)


class Parts(nn.Module):
    def __init__(self, width=64, size=16):
        super().__init__()
        self.size, self.norm = size, nn.RMSNorm(width)
        self.q, self.out = nn.Linear(width, 4 * size), nn.Linear(4 * size, width)
        self.k, self.v = nn.Linear(width, 2 * size), nn.Linear(width, 2 * size)
        wide = nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width)
        self.net = nn.Sequential(nn.RMSNorm(width), *wide)


# %% [markdown]
# The new keys and values are appended to the past ones, and returned. What a token may look at stands in `attend`, which
# comes below.


# %%
class Layer(Parts):
    def forward(self, x, place, past):
        y = self.norm(x)
        q, k, v = (
            part(y).unflatten(-1, (-1, self.size)).transpose(1, 2)
            for part in (self.q, self.k, self.v)
        )
        k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        x = x + self.out(self.attend(q, k, v, place).transpose(1, 2).flatten(2))
        return x + self.net(x), (k, v)


# %% [markdown]
# The decoder puts two layers between the table of words and the scores. The places of the new tokens begin where the past
# ends. Each place has a vector of its own. (SmolLM2 turns queries and keys by an angle
# instead.)


# %%
class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(100, 64), nn.Embedding(200, 64)
        self.layers = nn.ModuleList([Layer(), Layer()])
        self.scores = nn.Linear(64, 100)

    def forward(self, ids, past):
        place = past[0][0].shape[2] + torch.arange(ids.shape[1])
        x, cache = self.words(ids) + self.places(place), list(past)
        for number, layer in enumerate(self.layers):
            x, cache[number] = layer(x, place, cache[number])
        return self.scores(x), cache


# %% [markdown]
# Each token may look at itself and at those before it. For this, PyTorch's
# [`scaled_dot_product_attention`](https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.scaled_dot_product_attention.html)
# has the argument `is_causal`.

# %%
attention, same = nn.functional.scaled_dot_product_attention, {"enable_gqa": True}
Layer.attend = lambda _, q, k, v, at: attention(q, k, v, is_causal=True, **same)
decoder = Decoder().eval().requires_grad_(False)

# %% [markdown]
# ## Export, and parity
#
# The names say which output becomes which input. The cache of an empty past has tensors of size 0.

# %%
KEPT = [f"{what}.{layer}" for layer in range(2) for what in ("key", "value")]
IN = ["ids", *(f"past.{name}" for name in KEPT)]
OUT = ["logits", *(f"new.{name}" for name in KEPT)]
EMPTY = [torch.zeros(1, 2, 0, 16).numpy()] * len(KEPT)

# %% [markdown]
# Three sizes are free: the number of texts, of new tokens, and of past ones.

# %%
text, fresh, past = map(torch.export.Dim, ("text", "new", "past"))
SHAPES = {0: text, 1: fresh}, [({0: text, 2: past},) * 2] * 2

# %% [markdown]
# We will export three times, so the call stands in a function:

# %%
import onnxruntime as ort


def exported(decoder, file, opset=23):
    past = [tuple(torch.randn(2, 2, 2, 5, 16)) for layer in range(2)]
    example = torch.ones(2, 4, dtype=torch.int64), past
    names = {"input_names": IN, "output_names": OUT, "dynamic_shapes": SHAPES}
    more = {"opset_version": opset, "external_data": False, "verbose": False}
    with cu.exporter_messages():
        torch.onnx.export(decoder, example, file, **names, **more)
    return ort.InferenceSession(file)


# %% [markdown]
# Then we compare with PyTorch, at sizes that the example did not have: texts, new tokens, past tokens.

# %%
import numpy as np

session, gaps = exported(decoder, "work/11_by_hand.onnx"), {}
for size in [(1, 7, 0), (3, 1, 9), (2, 5, 30), (1, 1, 0), (1, 1, 1)]:
    ids, texts, past = torch.randint(100, size[:2]), size[0], size[2]
    kept = torch.randn(2, 2, texts, 2, past, 16)
    feed = dict(zip(IN, [ids.numpy(), *kept.flatten(0, 1).numpy()]))
    expected, _ = decoder(ids, [tuple(layer) for layer in kept])
    found = session.run(["logits"], feed)[0]
    gaps[size] = abs(found - expected.numpy()).max()
assert max(gaps.values()) < 1e-3
{str(size): f"{gap:.0e}" for size, gap in gaps.items()}

# %% [markdown]
# All equal up to rounding, with the empty past, too. So the file is a faithful copy of the PyTorch model.
#
# ## The test in parts
#
# What parity cannot tell is whether the PyTorch model is right with a past. So we ask the file alone: a text in two parts
# must get the same scores as the whole text.

# %% tags=["remove-input"]
cu.quiz("11_a_decoder_by_hand", 1)


# %%
def in_parts(session, ids):
    whole = session.run(None, dict(zip(IN, [ids, *EMPTY])))[0]
    cache = session.run(OUT[1:], dict(zip(IN, [ids[:, :4], *EMPTY])))
    return whole[:, 4:], session.run(None, dict(zip(IN, [ids[:, 4:], *cache])))[0]


# %%
ids = np.array([[5, 3, 8, 1, 9, 2]])
whole, parts = in_parts(session, ids)
gap = abs(whole - parts).max()
assert gap > 0.05 * abs(whole).max()
f"scores up to {abs(whole).max():.1f}, difference up to {gap:.1f}"

# %% [markdown]
# Not rounding, but other numbers. `is_causal=True` counts from the **first** key: the first new token sees one key, the
# second new token two. Without a past this is right. With a past, the new tokens see the beginning of the text, and not
# what stands before them. So we say ourselves what a token sees: the keys up to its own place.

# %%
seen = lambda k, place: place[:, None] >= torch.arange(k.shape[2])
Layer.attend = lambda _, q, k, v, at: attention(q, k, v, seen(k, at), **same)
session = exported(decoder, "work/11_by_hand_right.onnx")
np.testing.assert_allclose(*in_parts(session, ids), atol=1e-4)

# %% [markdown]
# Now the parts have the scores of the whole. Run this test on each decoder that you export.
#
# ## Which opset
#
# We export the right decoder once more, for an older opset, test it, too, and count the nodes.

# %%
old = exported(decoder, "work/11_by_hand_20.onnx", opset=20)
np.testing.assert_allclose(*in_parts(old, ids), atol=1e-4)
older, newer = (cu.op_histogram(f"work/11_by_hand_{n}.onnx") for n in (20, "right"))
f"{older.sum()} nodes, now {newer.sum()}, {newer['Attention']} of them Attention"

# %% [markdown]
# From opset 23 on, attention is one node in each layer. A runtime that knows the
# operator computes it in one piece; for an older one, take an older opset.
#
# ## The loops around the file
#
# *Greedy* decoding takes the token with the highest score. *Sampled* decoding draws one by its chance. The scores are divided
# by a *temperature* first: below 1, likely tokens become more likely. One function for both:


# %%
def write(prompt, count, temperature=0.0, seed=0):
    random, new, cache, written = np.random.default_rng(seed), prompt, EMPTY, []
    for _ in range(count):
        logits, *cache = session.run(None, dict(zip(IN, [np.array([new]), *cache])))
        scores = logits[0, -1].astype(float)
        token = scores.argmax()
        if temperature:
            chance = np.exp((scores - scores.max()) / temperature)
            token = random.choice(len(chance), p=chance / chance.sum())
        new = [int(token)]
        written += new
    return written


# %% [markdown]
# The weights are random, so the tokens mean nothing. But we see whether a loop does what it should:

# %%
texts = {t: write([5, 3, 8], 8, t) for t in (0, 0.001, 0.5, 2)}
assert texts[0] == texts[0.001] and texts[2] == write([5, 3, 8], 8, 2)
texts

# %% [markdown]
# At a very low temperature the draw is greedy. With the same seed, a draw gives the same text again; a test of a sampled loop
# needs that.
#
# Last, the cache as ONNX Runtime's own values: with [IO binding](../glossary.md#io-binding), what a step returns goes into
# the next one without becoming a NumPy array.

# %%
binding, new, bound = session.io_binding(), [5, 3, 8], []
kept = [ort.OrtValue.ortvalue_from_numpy(array) for array in EMPTY]
for _ in range(12):
    binding.bind_cpu_input("ids", np.array([new]))
    for name, value in zip(IN[1:], kept):
        binding.bind_ortvalue_input(name, value)
    for name in OUT:
        binding.bind_output(name, "cpu")
    session.run_with_iobinding(binding)
    logits, *kept = binding.get_outputs()
    new = [int(logits.numpy()[0, -1].argmax())]
    bound += new

# %%
assert bound == write([5, 3, 8], 12)
bound

# %% [markdown]
# The same tokens. The page [Data in and out](05_data_in_and_out.ipynb) measures what binding saves on a CPU. It matters most on
# another device: bind the outputs there, and the cache stays there from step to step. (Not run here.)

# %% [markdown]
# ## Recap
#
# - Compute the mask from the place of a token. `is_causal=True` is right only without a past.
# - Parity says that the file is a copy. The test in parts says that the cache is right. You need both, the empty past included.
# - Opset 23 keeps attention in one node. Take an older one only for an older runtime.
# - Give a sampled loop a seed. On a graphics card, bind the cache, so that it stays in the memory of the card. (Not run here.)
#
# **Now you:** [exercises 11](../exercises/11_language_models.ipynb), tasks 11.1 and 11.2. **Next:** back to
# [lesson 11](../11_language_models.ipynb).
