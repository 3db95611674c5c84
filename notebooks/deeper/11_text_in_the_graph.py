# %% [markdown]
# # 11 · A tokenizer in the graph
#
# Your decoder runs in an app that has ONNX Runtime and no Python. The file takes numbers, and the app has text. A second
# tokenizer, in the language of the app, is a second program that must give the same numbers. This page puts the tokenizer
# into an ONNX file, as an operator that
# [ONNX Runtime Extensions](https://onnxruntime.ai/docs/extensions/) adds, and checks its numbers.
#
# You need the [core of lesson 11](../11_language_models.ipynb), with its packages. For this page there must be a wheel of
# `onnxruntime-extensions` for your system; there is none for Windows at this time, and the course installs it for Python
# before 3.14.
#
# After this page you will be able to
#
# - write a tokenizer as one node of a graph,
# - load an operator that is not in ONNX Runtime, and say what you trust then,
# - test a tokenizer with texts that find differences.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## What a tokenizer is made of
#
# We take the tokenizer of SmolLM2, and give the memory of the model back.

# %%
decoder, tokenizer = cu.smollm2()
cu.give_back(decoder)

# %% [markdown]
# It can be written as JSON. Two parts are large: the words with their numbers, and the *merges*.

# %%
import json

parts = json.loads(tokenizer.to_str())["model"]
merges = [" ".join(pair) for pair in parts["merges"]]
len(parts["vocab"]), len(merges), merges[:6]

# %% [markdown]
# A text is cut into bytes first. Then the first pair of this list that occurs is joined, everywhere, and so on, until no pair
# is left. `Ġ` stands for a space. What is left are the tokens.
#
# ## One node
#
# The operator `GPT2Tokenizer` does this. Its input is a tensor of texts. Its outputs are the numbers, and a mask that says
# where a text has numbers. An operator of ONNX may follow: here one counts the tokens of each text.

# %%
import onnx

model = onnx.parser.parse_model("""
<ir_version: 10, opset_import: ["": 18, "ai.onnx.contrib": 1]>
tokens (string[n] text) => (int64[n, m] ids, int64[n] count) {
    ids, mask = ai.onnx.contrib.GPT2Tokenizer (text)
    last = Constant <value_ints = [1]> ()
    count = ReduceSum <keepdims = 0> (mask, last)
}""")

# %% [markdown]
# `ai.onnx.contrib` is another [domain](../glossary.md#domain): the operator does not belong to ONNX. Both lists become
# attributes of the node.

# %%
FILE = "work/11_text_in_the_graph.onnx"
lists = {"vocab": json.dumps(parts["vocab"]), "merges": "\n".join(merges)}
for name, value in lists.items():
    model.graph.node[0].attribute.append(onnx.helper.make_attribute(name, value))
onnx.checker.check_model(model)
onnx.save(model, FILE)

# %% [markdown]
# The checker does not object: it does not know the operators of other domains. ONNX Runtime must know them:

# %%
import onnxruntime as ort

try:
    ort.InferenceSession(FILE)
    raise AssertionError("it loaded an operator that it does not have")
except ort.capi.onnxruntime_pybind11_state.Fail as error:
    message = str(error).split("failed:")[-1]
assert "ai.onnx.contrib:GPT2Tokenizer" in message
message

# %% [markdown]
# ## With the library
#
# The operator is in a library that we register in the options of the session. Such libraries exist for C, C#, Java, Android
# and iOS, too.

# %%
from onnxruntime_extensions import get_library_path

options = ort.SessionOptions()
options.register_custom_ops_library(get_library_path())
session = ort.InferenceSession(FILE, options)

# %%
import numpy as np

texts = np.array(["The ship sails.", "The ship sails at nine."])
session.run(None, {"text": texts})

# %% [markdown]
# The shorter row is filled up with zeros. Zero is the number of a token, too: so a reader needs the count.
#
# ## The same numbers?
#
# We compare with the tokenizer that we started from, on our story, and on texts on which tokenizers often differ.

# %% tags=["remove-input"]
cu.quiz("11_text_in_the_graph", 1)

# %%
awkward = ["naïve café", "I'm, you’re", "  two  spaces\n\n\tx"]
awkward += ["🚢 日本", "10 235", "1 ½ cups"]


def in_graph(text):
    ids, count = session.run(None, {"text": np.array([text])})
    return ids[0, : count[0]].tolist()


# %%
equal = {text: in_graph(text) == tokenizer.encode(text).ids for text in awkward}
assert in_graph(cu.story()) == tokenizer.encode(cu.story()).ids
assert [text for text in awkward if not equal[text]] == ["1 ½ cups"]
equal

# %% [markdown]
# The story gives the same numbers, and so do accents, signs, spaces, pictures, other scripts and digits. But ½ does not:

# %%
ways = {
    "tokenizers": tokenizer.encode("1 ½ cups").ids,
    "graph": in_graph("1 ½ cups"),
}
{
    way: [tokenizer.id_to_token(number) for number in ids]
    for way, ids in ways.items()
}

# %% [markdown]
# `Â½` are the two bytes of ½. One tokenizer keeps the space apart from them, the other one joins it with the first byte. Both
# mean the same text, but the model has seen only one of the two. Why? A tokenizer cuts a text into pieces before it joins
# anything, and ours has two rules for that:

# %%
print(tokenizer.pre_tokenizer)

# %% [markdown]
# `ByteLevel` is the rule of GPT-2. `Digits` comes before it: each digit is a piece of its own. We take this rule away, and
# nothing else:

# %%
from tokenizers import pre_tokenizers

tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
assert all(in_graph(text) == tokenizer.encode(text).ids for text in awkward)
assert not any(pair.replace(" ", "").lstrip("Ġ").isdecimal() for pair in merges)

# %% [markdown]
# Now the numbers of all six texts are equal: for them, the missing rule was the cause. For the digits 0 to 9 it makes no
# difference: no merge joins two of them, or a space and one of them. For other signs that count as digits, such as ½, it can. A
# test with English words would not have found it.
#
# ## A library is code
#
# A model file is data: without the library it could not run the operator. A registered library is a program. It runs in the
# process of the session with all its rights, before any model is loaded. So it is not taken from the place where a model comes
# from, but from a package with a fixed version, or with a [hash](https://docs.python.org/3/library/hashlib.html) that one has
# noted:

# %%
import hashlib
from pathlib import Path

hashlib.sha256(Path(get_library_path()).read_bytes()).hexdigest()

# %% [markdown]
# A file that lists operators of an unknown domain asks you for such a library. Find out first whose it is.

# %% [markdown]
# ## Recap
#
# - A tokenizer can be a node: text goes in, numbers come out, and operators of ONNX follow.
# - Its operator needs a registered library, in each language in which the file shall run.
# - Compare it with the original on accents, spaces, other scripts and all kinds of digits. English words are not enough.
# - Rows of a batch are filled up: read the mask.
# - Register only libraries that you would install.
# - Put the tokenizer into the graph if your app has none in its own language and may load a library. Otherwise keep it beside
#   the file.
#
# **Next:** back to [lesson 11](../11_language_models.ipynb).
