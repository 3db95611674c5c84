# %% [markdown]
# # 01 · Down to the bytes
#
# Somebody sends you a model that no tool opens, and you want to see what is in the file. Or you write a tool in a
# language that has no ONNX package. Then you read the bytes yourself. It is easier than it looks.
#
# You need the [core of lesson 01](../01_graph_structure.ipynb).
#
# After this page you will be able to
#
# - read a file of Protocol Buffers without a library,
# - find the parts of an ONNX file in its bytes,
# - say what the bytes of a model file are spent on, and what a zip of it brings.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## The first two bytes
#
# We take a small model of three nodes, and save it.

# %%
import onnx

model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 18]>
tiny (float[batch, 3] x) => (float[batch, 2] y)
<float[3, 2] W = {1, -2, 3, 4, -5, 6}, float[2] b = {0.5, -0.5}>
{ xw = MatMul(x, W)  s = Add(xw, b)  y = Relu(s) }""")
onnx.save(model, "work/01_bytes.onnx")

# %% [markdown]
# The format of the file is [**Protocol Buffers**](../glossary.md#protobuf). A message is a list of fields. A field is a
# *key*, followed by a value. The key is `8 × field number + kind`. Kind 0 is a number, kind 2 means that a length
# follows, and then so many bytes. The
# [encoding](https://protobuf.dev/programming-guides/encoding/) is public. Here are the first bytes of our file:

# %%
from pathlib import Path

raw = Path("work/01_bytes.onnx").read_bytes()
list(raw[:2])

# %% [markdown]
# The first byte is 8 = 8 × 1 + 0: field number 1, a number. The second byte is its value. The
# [definition of `ModelProto`](https://github.com/onnx/onnx/blob/main/onnx/onnx.proto) says what field 1 is:

# %%
number, kind = divmod(raw[0], 8)
name = onnx.ModelProto.DESCRIPTOR.fields_by_number[number].name
assert (name, kind, raw[1]) == ("ir_version", 0, model.ir_version)
name, raw[1]

# %% [markdown]
# We have read one field by hand.
#
# ## All fields
#
# A number above 127 takes several bytes, seven bits in each; the highest bit says that another one follows. This
# function reads such a number. It returns the number, and the position behind it.


# %%
def read_number(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return value, at


# %% [markdown]
# For example, 300 is 44 + 2 × 128:

# %%
assert read_number(bytes([44 + 128, 2]), 0) == (300, 2)

# %% [markdown]
# With that we list all fields of a message: key, then a number or a length, then the content. (Kinds 1 and 5, numbers of
# fixed size, do not occur in the messages that we read.)


# %%
def fields(data, message):
    at = 0
    while at < len(data):
        key, at = read_number(data, at)
        value, at = read_number(data, at)  # the value itself, or a length
        name = message.DESCRIPTOR.fields_by_number[key // 8].name
        if key % 8 == 2:
            at += value
            value = data[at - value : at]
        yield name, value


# %% [markdown]
# First the model, then the graph in it:

# %%
top = dict(fields(raw, onnx.ModelProto))
inside = list(fields(top["graph"], onnx.GraphProto))
names = [name for name, _ in inside]
top["ir_version"], names

# %% [markdown]
# Three nodes, a name, two initializers, an input and an output: exactly what we put in. The first node is a message
# itself:

# %%
first_node = list(fields(inside[0][1], onnx.NodeProto))
first_node

# %% [markdown]
# It has two inputs, one output, the operator `MatMul`, and an empty domain. The report says that a file is a hierarchy of such messages.
# In the file of a trained network we look at the same hierarchy through Python:

# %%
import torch

torch.onnx.export(
    cu.fashion_resnet(),
    (torch.randn(2, 1, 28, 28),),
    "work/01_bytes_resnet.onnx",
    dynamic_shapes=({0: torch.export.Dim("batch")},),
    external_data=False,
    verbose=False,
)
trained = onnx.load("work/01_bytes_resnet.onnx")

# %% [markdown]
# The class of each part, and of the parts in its lists:

# %%
graph, kinds = trained.graph, {"model": {type(trained).__name__}}
kinds["graph"] = {type(graph).__name__}
for part in ("node", "initializer", "value_info", "input"):
    kinds[part] = {type(item).__name__ for item in getattr(graph, part)}
kinds

# %% tags=["hide-input"]
cu.claim(
    "protobuf-hierarchy",
    {
        "a ModelProto holds a GraphProto": (kinds["model"], kinds["graph"])
        == ({"ModelProto"}, {"GraphProto"}),
        "a GraphProto holds NodeProto": kinds["node"] == {"NodeProto"},
        "and TensorProto, its weights": kinds["initializer"] == {"TensorProto"},
        "and ValueInfoProto": kinds["value_info"] == {"ValueInfoProto"},
        "read from the raw bytes, the IR version is the one we set": top[
            "ir_version"
        ]
        == model.ir_version,
        "and the graph has our nodes, weights, input and output": (
            names.count("node"),
            names.count("initializer"),
            names.count("input"),
            names.count("output"),
        )
        == (3, 2, 1, 1),
        "and its first node is our MatMul": ("op_type", b"MatMul") in first_node,
    },
)

# %% [markdown]
# ## Is it compact?
#
# The report says that Protocol Buffers make the file compact. Compared with what? We write the trained network in
# other forms, and count bytes.

# %%
from google.protobuf import json_format

file = Path("work/01_bytes_resnet.onnx").read_bytes()
arrays = [onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer]
sizes = {"weights alone": sum(array.nbytes for array in arrays)}
sizes["the .onnx file"] = len(file)
sizes["as JSON"] = len(json_format.MessageToJson(trained))
sizes["as text"] = len(onnx.printer.to_text(trained))

# %% [markdown]
# The picture compares the four, in megabytes. What do you expect?

# %% tags=["remove-input"]
cu.quiz("01_bytes", 1)

# %%
import matplotlib.pyplot as plt

fig, ax = plt.subplots(figsize=(7.2, 2.2))
bars = ax.barh(list(sizes), [size / 1e6 for size in sizes.values()])
ax.bar_label(bars, fmt="%.2f MB", padding=3)
ax.invert_yaxis()
extra = sizes["the .onnx file"] / sizes["weights alone"] - 1
ax.set_title(f"The .onnx file is {extra:.0%} larger than the weights it holds")
ax.set_xlabel("size, MB")
plt.show()

# %% [markdown]
# The file stores the weights as plain bytes, so there is little else. A part of the rest are notes: the exporter writes
# on each node where it came from ([What a file tells](01_metadata.ipynb) reads them). We count the bytes without them.

# %%
bare = onnx.ModelProto.FromString(file)
for part in (*bare.graph.node, *bare.graph.value_info, *bare.graph.initializer):
    part.ClearField("metadata_props")
trained.ByteSize(), bare.ByteSize()

# %% [markdown]
# And is anything *compressed*? If it were, gzip could not make the file smaller.

# %%
import gzip

zipped = len(gzip.compress(file))
f"{zipped / len(file):.0%} of the file"

# %% [markdown]
# Nothing is compressed, but zip does not bring much: the digits of trained weights look like noise. Fewer bits per
# weight do ([lesson 07](../07_quantization.ipynb)).

# %% tags=["hide-input"]
cu.claim(
    "protobuf-compact",
    {
        "the file is at most a tenth larger than its weights": sizes[
            "the .onnx file"
        ]
        < 1.1 * sizes["weights alone"],
        "JSON is larger by a third or more": sizes["as JSON"]
        > 1.33 * sizes["weights alone"],
        "text is more than twice as large": sizes["as text"]
        > 2 * sizes["weights alone"],
        "the exporter's notes take more than 1 % of it": bare.ByteSize()
        < 0.99 * trained.ByteSize(),
        "weights are not compressed: gzip still makes the file smaller": zipped
        < sizes["the .onnx file"],
    },
)

# %% [markdown]
# ## Recap
#
# - A message is a list of fields; a field is a key, and a number or a length with so many bytes.
# - The graph is a field of the model, a node is a field of the graph: messages in messages.
# - A file is about as large as its weights. JSON and text are much larger.
# - Use zip for the way over the network if you like, but use fewer bits per weight to make a model small.
#
# **Back:** [01 · Graph structure](../01_graph_structure.ipynb). **Next:**
# [Large files](01_large_files.ipynb).
