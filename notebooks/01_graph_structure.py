# %% [markdown]
# # 01 · Graph structure
#
# An ONNX file is a graph: operators that pass tensors to each other, and the weights they need. In this lesson we
# build such a graph by hand, break it, read what the checker says, and take apart the file of a trained network.
#
# After this lesson you will be able to
#
# - build a model without PyTorch, and name each part of a file,
# - read the graph of any model, in Python, as text, and in the viewer,
# - understand the checker's messages,
# - say where the weights are and what else the file tells about you.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## Build a model by hand
#
# We want one layer of a network: $y = \max(0,\ xW + b)$. In ONNX every arithmetic step is a **node**, with
# [an operator](https://onnx.ai/onnx/operators/) and with *names* of the tensors that it reads and writes. Nodes are
# connected by nothing but these names.

# %%
from onnx import helper

nodes = [
    helper.make_node("MatMul", ["x", "W"], ["xw"], name="multiply"),
    helper.make_node("Add", ["xw", "b"], ["s"], name="add_bias"),
    helper.make_node("Relu", ["s"], ["y"], name="activate"),
]

# %% [markdown]
# The weights are tensors with a name and a value. ONNX calls them **initializers**.

# %%
import numpy as np
from onnx import numpy_helper

W = numpy_helper.from_array(
    np.array([[1, -2], [3, 4], [-5, 6]], dtype=np.float32), "W"
)
b = numpy_helper.from_array(np.array([0.5, -0.5], dtype=np.float32), "b")

# %% [markdown]
# Inputs and outputs are promised with a name, a type, and a shape. A dimension may be a number or a name: `"batch"`
# means *any size*.

# %%
from onnx import TensorProto

x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])
y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])

# %% [markdown]
# Nodes, inputs, outputs and initializers make a **graph**. The graph and two version numbers make a **model**: the
# *opset* (operator set) says which edition of the operators we mean, the *IR version* (intermediate representation)
# which edition of the file format. Lesson 02 is
# about these two.

# %%
import onnx

graph = helper.make_graph(nodes, "tiny", [x], [y], initializer=[W, b])
model = helper.make_model(
    graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10
)
onnx.checker.check_model(model)
onnx.save(model, "work/01_tiny.onnx")

# %% [markdown]
# The checker is silent, so the model is in order. ONNX Runtime runs it, and NumPy agrees.

# %%
import onnxruntime as ort

session = ort.InferenceSession(
    "work/01_tiny.onnx", providers=["CPUExecutionProvider"]
)
feed = {"x": np.array([[1, 1, 1], [1, 0, -1]], dtype=np.float32)}
(result,) = session.run(None, feed)
result

# %%
by_hand = np.maximum(
    0, feed["x"] @ numpy_helper.to_array(W) + numpy_helper.to_array(b)
)
assert np.array_equal(result, by_hand)

# %%
cu.show("work/01_tiny.onnx", height=420)

# %% [markdown]
# ## Break it, and read what the checker says
#
# [`onnx.checker`](https://onnx.ai/onnx/api/checker.html) is the first thing to ask about a file you do not trust. Its
# messages are short. We make some typical mistakes, one at a time, each on a fresh copy.


# %%
def complaint(candidate, **options):
    """What the checker says, or nothing."""
    try:
        onnx.checker.check_model(candidate, **options)
    except Exception as error:
        return str(error).strip()
    return ""


def words_of_checker(change, **options):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    change(copy.graph)
    return complaint(copy, **options) or "no objection"


# %% [markdown]
# A name that nobody writes, for example after a typing error:


# %%
def misspell(graph):
    graph.node[1].input[1] = "bias"  # the initializer is called "b"


print(words_of_checker(misspell))

# %% [markdown]
# The checker does not know that `bias` is a typing error. It sees a name that nobody wrote before it is read, and takes
# it for a wrong order of the nodes (more on that below). So when you read *not output of any previous nodes*, check the
# spelling first.

# %% [markdown]
# Two nodes that write the same name. Each tensor is written once; this is called *single static assignment*, SSA.


# %%
def write_twice(graph):
    graph.node[1].output[0] = "xw"


print(words_of_checker(write_twice))

# %% [markdown]
# An operator that does not exist, and an attribute that the operator does not have:


# %%
def invent_operator(graph):
    graph.node[2].op_type = "Relax"


def invent_attribute(graph):
    graph.node[2].attribute.append(helper.make_attribute("alpha", 1.0))


print(words_of_checker(invent_operator))
print(words_of_checker(invent_attribute))

# %% [markdown]
# Now a wrong promise: the output has two columns, we declare three.

# %% tags=["remove-input"]
cu.quiz("01_graph_structure", 1)


# %%
def promise_three(graph):
    graph.output[0].type.tensor_type.shape.dim[1].dim_value = 3


print("check_model:                 ", words_of_checker(promise_three))
print(
    "check_model(full_check=True):",
    words_of_checker(promise_three, full_check=True),
)

# %% [markdown]
# The plain check looks at names, operators and attributes. Only `full_check=True` also works out all types and shapes
# and compares them with what the file promises. Use it always.

# %%
assert words_of_checker(promise_three) == "no objection"
assert "dimension 1" in words_of_checker(promise_three, full_check=True)

# %% [markdown]
# ## Static, and in topological order
#
# Nodes must stand in an order in which everything is written before it is read: **topological order**. What if they do
# not?


# %%
def last_node_first(graph):
    ordered = list(graph.node)
    del graph.node[:]
    graph.node.extend([ordered[2], ordered[0], ordered[1]])


print(words_of_checker(last_node_first))

# %% tags=["remove-input"]
cu.quiz("01_graph_structure", 2)

# %%
shuffled = onnx.ModelProto()
shuffled.CopyFrom(model)
last_node_first(shuffled.graph)
lenient = ort.InferenceSession(
    shuffled.SerializeToString(), providers=["CPUExecutionProvider"]
)
sorted_itself = np.array_equal(lenient.run(None, feed)[0], result)
sorted_itself

# %% [markdown]
# ONNX Runtime sorts the nodes itself and runs the file. The
# [reference implementation](https://onnx.ai/onnx/api/reference.html) in the `onnx` package goes through the nodes as
# they stand, and stops at the first one:

# %%
from onnx.reference import ReferenceEvaluator

try:
    ReferenceEvaluator(shuffled).run(None, feed)
    strict = False
except Exception as error:
    strict = True
    print(f"{type(error).__name__}: {str(error).splitlines()[0]}")

# %% [markdown]
# So keep the order: what one runtime forgives, another refuses.
#
# *Static* means: the file is a fixed list of steps, whatever the input is. We can watch. ONNX Runtime's profiler writes
# down each node as it runs, here for an empty picture and for a real one, through our trained network.

# %%
import torch

fashion_resnet = cu.fashion_resnet()
torch.onnx.export(
    fashion_resnet,
    (torch.randn(2, 1, 28, 28),),
    "work/01_fashion_resnet.onnx",
    input_names=["image"],
    output_names=["logits"],
    dynamic_shapes=({0: torch.export.Dim("batch")},),
    external_data=False,
    verbose=False,
)
trained = onnx.load("work/01_fashion_resnet.onnx")

# %%
import json
from pathlib import Path


def nodes_run(x, file="work/01_fashion_resnet.onnx"):
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = "work/01_profile"
    profiled = ort.InferenceSession(
        file, options, providers=["CPUExecutionProvider"]
    )
    profiled.run(None, {profiled.get_inputs()[0].name: x})
    record = Path(profiled.end_profiling())
    events = json.loads(record.read_text())
    record.unlink()
    return [e["name"] for e in events if e["cat"] == "Node"]


# %%
images, labels = cu.fashion_mnist("test")
pictures = cu.normalize(images[:8])
for_empty = nodes_run(cu.normalize(np.zeros((1, 28, 28), dtype=np.uint8)))
for_real = nodes_run(pictures[:1])
len(for_real), for_real == for_empty

# %% [markdown]
# The same steps, in the same order. They are fewer than the nodes of the file, because ONNX Runtime joins some of them
# before it begins (lesson 06).
#
# There is one exception: the operators `If`, `Loop` and `Scan` hold small graphs of their own, and the data decide
# which one runs, or how often. Here is an `If`:

# %%
choosing = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 18]>
    choosing (float[1] x) => (float[1] y) <float[1] zero = {0}>
    { big = Greater(x, zero)
      flag = Squeeze(big)
      y = If (flag) <then_branch = left () => (float[1] p) { p = Sqrt(x) },
                     else_branch = right () => (float[1] q) { q = Neg(x) }> }""")
onnx.save(choosing, "work/01_choosing.onnx")
four = np.array([4], dtype=np.float32)
steps = {sign: nodes_run(sign * four, "work/01_choosing.onnx") for sign in (1, -1)}
chosen = {
    sign: [op for op in ("Sqrt", "Neg") if op in " ".join(names)]
    for sign, names in steps.items()
}
chosen

# %% [markdown]
# Lesson 03 is about such models. In all others the list is fixed. And in the file, each node's inputs were written
# before:


# %%
def is_sorted(graph):
    known = (
        {i.name for i in graph.input} | {t.name for t in graph.initializer} | {""}
    )
    for node in graph.node:
        if not known.issuperset(node.input):
            return False
        known.update(node.output)
    return True


cu.claim(
    "graph-static-topological",
    {
        "in the trained model every tensor is written before it is read": is_sorted(
            trained.graph
        ),
        "with the last node moved to the front it is not": not is_sorted(
            shuffled.graph
        ),
        "the checker then objects": "topologically sorted"
        in words_of_checker(last_node_first),
        "the reference evaluator does not run such a file": strict,
        "ONNX Runtime runs it all the same": sorted_itself,
        "two different pictures run the same nodes in the same order": for_real
        == for_empty,
        "only an If lets the data choose what runs": chosen
        == {1: ["Sqrt"], -1: ["Neg"]},
    },
)

# %% [markdown]
# ## The parts of a file
#
# The whole file is one message, [`ModelProto`](https://onnx.ai/onnx/api/classes.html). It holds a `GraphProto`, which
# holds lists of the other kinds.

# %%
parts = {
    "the file": trained,
    "its graph": trained.graph,
    "first node": trained.graph.node[0],
    "first attribute": trained.graph.node[0].attribute[0],
    "first initializer": trained.graph.initializer[0],
    "first input": trained.graph.input[0],
    "first value info": trained.graph.value_info[0],
}
{what: type(part).__name__ for what, part in parts.items()}

# %% [markdown]
# The header of the model says who wrote it, in which edition. The report names three of its fields: IR version,
# producer, and **domain**. The last one is for the owner of the model, a name such as `com.example`. The exporter
# leaves it empty.

# %%
owned, headless = (
    onnx.ModelProto.FromString(trained.SerializeToString()),
    onnx.ModelProto.FromString(model.SerializeToString()),
)
owned.domain = "com.example"
headless.ClearField("ir_version")
meta = ort.InferenceSession(
    owned.SerializeToString(), providers=["CPUExecutionProvider"]
).get_modelmeta()
{
    "ir_version": trained.ir_version,
    "opset_import": {
        o.domain or "ai.onnx": o.version for o in trained.opset_import
    },
    "producer": f"{trained.producer_name} {trained.producer_version.split('+')[0]}",
    "graph": trained.graph.name,
    "domain": trained.domain,
    "domain, after we set it": meta.domain,
}

# %%
cu.claim(
    "model-metadata",
    {
        "without the IR version the checker refuses a model": "ir_version"
        in complaint(headless),
        "the exporter gives its name and version": (
            trained.producer_name,
            bool(trained.producer_version),
        )
        == ("pytorch", True),
        "our model by hand has no producer, and passes": model.producer_name == ""
        and complaint(model) == "",
        "the exporter leaves the domain empty": trained.domain == "",
        "a domain that was set reaches ONNX Runtime": meta.domain == "com.example",
    },
)

# %% [markdown]
# **Nodes** in a table: each has an operator, inputs, outputs, attributes. *Attributes* are fixed settings, such as the
# size of a kernel. *Inputs* are tensors, weights among them.

# %%
cu.node_table(trained).head(6)

# %% [markdown]
# **Tensors** in a table: inputs, outputs, initializers, and **value info**, which is what the exporter wrote down about
# the intermediate tensors. The batch is a name, all other dimensions are numbers.

# %%
tensors = cu.tensor_table(trained)
tensors.groupby("role").head(3)

# %% [markdown]
# The weights are among the initializers, under the names that they have in PyTorch. The classifier's are the same
# numbers. Those of the convolutions are not: BatchNorm was multiplied into them (lesson 00), and what it adds became a
# new tensor, `…weight_bias`.

# %%
stored = {t.name: numpy_helper.to_array(t) for t in trained.graph.initializer}
kernel = fashion_resnet.classifier.weight.detach().numpy()
assert np.array_equal(stored["classifier.weight"], kernel)
stem = fashion_resnet.stem[0].weight.detach().numpy()
assert not np.array_equal(stored["stem.0.weight"], stem)
list(stored)[:6]

# %% [markdown]
# ## Down to the bytes
#
# The format of the file is **Protocol Buffers**. It is simple: a message is a list of fields, and a field is a *key*
# followed by a value. The key is `8 × field number + kind`. Kind 0 is a number, kind 2 is "so many bytes follow".
# Here are the first bytes of our hand-made model:

# %%
raw = Path("work/01_tiny.onnx").read_bytes()
list(raw[:2])

# %% [markdown]
# The first byte is 8 = 8 × 1 + 0: field number 1, a number. The second byte is its value. In the definition of
# `ModelProto`, field 1 is `ir_version`. We have parsed a field by hand:

# %%
field, kind, value = raw[0] // 8, raw[0] % 8, raw[1]
name = onnx.ModelProto.DESCRIPTOR.fields_by_number[field].name
assert (name, kind, value) == ("ir_version", 0, model.ir_version)
name, value

# %% [markdown]
# Numbers above 127 take several bytes, seven bits in each; the highest bit says that more follow. With that we can
# list all fields of the messages here. (Kinds 1 and 5, numbers of fixed size, do not occur in them.)


# %%
def number(data, at):
    """Read a number of any length; return it and the position behind it."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def fields(data, message):
    at = 0
    while at < len(data):
        key, at = number(data, at)
        value, at = number(
            data, at
        )  # the value itself (kind 0), or a length (kind 2)
        name = message.DESCRIPTOR.fields_by_number[key // 8].name
        yield name, value if key % 8 == 0 else data[at : at + value]
        at += value if key % 8 == 2 else 0


# %%
top = dict(fields(raw, onnx.ModelProto))
inside_graph = [name for name, _ in fields(top["graph"], onnx.GraphProto)]
top["ir_version"], inside_graph

# %% [markdown]
# Three nodes, a name, two initializers, an input and an output: exactly what we put in.

# %%
counts = {
    name: inside_graph.count(name)
    for name in ("node", "initializer", "input", "output")
}
first_node = dict(
    fields(
        next(v for n, v in fields(top["graph"], onnx.GraphProto) if n == "node"),
        onnx.NodeProto,
    )
)


def kinds(messages):
    return {type(message).__name__ for message in messages}


cu.claim(
    "protobuf-hierarchy",
    {
        "a ModelProto holds a GraphProto": isinstance(
            trained.graph, onnx.GraphProto
        ),
        "a GraphProto holds NodeProto": kinds(trained.graph.node) == {"NodeProto"},
        "and TensorProto, its weights": kinds(trained.graph.initializer)
        == {"TensorProto"},
        "and ValueInfoProto": kinds(trained.graph.value_info) == {"ValueInfoProto"},
        "read from the raw bytes, the IR version is the one we set": top[
            "ir_version"
        ]
        == model.ir_version,
        "and the graph has our nodes, weights, input and output": counts
        == {"node": 3, "initializer": 2, "input": 1, "output": 1},
        "and its first node is our MatMul": first_node["op_type"] == b"MatMul",
    },
)

# %% [markdown]
# ## Is it compact?
#
# The report says that Protocol Buffers make the file compact. Compared with what? We write the same model in four
# ways.

# %% tags=["remove-input"]
cu.quiz("01_graph_structure", 3)

# %%
from google.protobuf import json_format

weights = sum(array.nbytes for array in stored.values())
sizes = {
    "the weights alone": weights,
    "the .onnx file": Path("work/01_fashion_resnet.onnx").stat().st_size,
    "the same as JSON": len(json_format.MessageToJson(trained)),
    "the same as text": len(onnx.printer.to_text(trained)),
}

# %%
import matplotlib.pyplot as plt

extra = sizes["the .onnx file"] / weights - 1
fig, ax = plt.subplots(figsize=(7.2, 2.4))
bars = ax.barh(list(sizes)[::-1], [size / 1e6 for size in sizes.values()][::-1])
ax.bar_label(bars, fmt="%.2f MB", padding=3)
ax.set_xlabel("size, MB")
ax.set_title(f"The .onnx file is {extra:.0%} larger than the weights it holds")
plt.show()
# %% [markdown]
# The weights decide. The file stores them as plain bytes, so there is little else. But it does not *compress* them:

# %%
import gzip

zipped = len(gzip.compress(Path("work/01_fashion_resnet.onnx").read_bytes()))
bare = onnx.load("work/01_fashion_resnet.onnx")
for part in (*bare.graph.node, *bare.graph.value_info, *bare.graph.initializer):
    del part.metadata_props[:]  # the exporter's notes, see the end of this lesson
cu.claim(
    "protobuf-compact",
    {
        "the file is at most a tenth larger than its weights": sizes[
            "the .onnx file"
        ]
        < 1.1 * weights,
        "JSON is larger by a third or more": sizes["the same as JSON"]
        > 1.33 * weights,
        "text is more than twice as large": sizes["the same as text"] > 2 * weights,
        "without the exporter's notes it is smaller by more than 1 %": bare.ByteSize()
        < 0.99 * trained.ByteSize(),
        "weights are not compressed: gzip still makes the file smaller": zipped
        < sizes["the .onnx file"],
    },
)

# %% [markdown]
# ## As text
#
# For a small model the [text form](https://onnx.ai/onnx/repo-docs/Syntax.html) is the fastest way to read it, and to
# write it. `onnx.printer` and `onnx.parser` are opposite directions.

# %%
text = onnx.printer.to_text(model)
print(text)

# %%
parsed = onnx.parser.parse_model(text)
(from_text,) = ReferenceEvaluator(parsed).run(None, feed)
assert np.array_equal(from_text, result)

# %% [markdown]
# ## The same graph from PyTorch
#
# Nobody builds large graphs by hand. The exporter does it. We give a `Linear` layer the same weights and export it:

# %%
layer = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU()).eval()
with torch.no_grad():
    layer[0].weight.copy_(torch.tensor(numpy_helper.to_array(W).T))
    layer[0].bias.copy_(torch.tensor(numpy_helper.to_array(b)))
torch.onnx.export(
    layer,
    (torch.randn(2, 3),),
    "work/01_linear.onnx",
    input_names=["x"],
    dynamic_shapes=({0: torch.export.Dim("batch")},),
    external_data=False,
    verbose=False,
)
cu.node_table("work/01_linear.onnx")

# %% [markdown]
# `Gemm` is one operator for product and sum. There is often more than one way to write the same thing. What counts is
# the result:

# %%
exported = ort.InferenceSession(
    "work/01_linear.onnx", providers=["CPUExecutionProvider"]
)
assert np.array_equal(exported.run(None, feed)[0], result)
assert list(cu.op_histogram("work/01_linear.onnx").index) == ["Gemm", "Relu"]

# %% [markdown]
# And a convolution? The report says it becomes the operator [`Conv`](https://onnx.ai/onnx/operators/onnx__Conv.html),
# with its settings as attributes. We choose
# settings that cannot be confused:

# %%
conv = torch.nn.Conv2d(
    3, 8, kernel_size=(3, 5), stride=(2, 1), padding=(1, 2)
).eval()
torch.onnx.export(
    conv,
    (torch.randn(1, 3, 16, 16),),
    "work/01_conv.onnx",
    external_data=False,
    verbose=False,
)
(node,) = onnx.load("work/01_conv.onnx").graph.node
attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
attributes

# %% [markdown]
# One thing differs. PyTorch pads by one number per axis. ONNX has one for the beginning and one for the end of each
# axis: first all beginnings, then all ends.

# %%
cu.claim(
    "conv2d-becomes-conv",
    {
        "the operator is Conv": node.op_type == "Conv",
        "kernel_shape is the layer's kernel_size": tuple(attributes["kernel_shape"])
        == conv.kernel_size,
        "strides is its stride": tuple(attributes["strides"]) == conv.stride,
        "pads is its padding, for both ends": tuple(attributes["pads"])
        == conv.padding + conv.padding,
        "weight and bias are inputs, not attributes": list(node.input)[1:]
        == ["weight", "bias"],
    },
)

# %% [markdown]
# ## Step by step
#
# The reference evaluator of the `onnx` package is slow and simple: it follows the words of the standard, one node after
# the other. It is made for reading: with `verbose` it prints each node as it runs.

# %%
_ = ReferenceEvaluator(model, verbose=2).run(None, feed)
# %% [markdown]
# Below is the same idea for the trained network. Move the slider: each step shows a node, what it reads, and what it
# writes. Watch the picture become smaller and the channels more abstract.

# %%
cu.step_through(trained, {"image": pictures[:1]})

# %% [markdown]
# ## The same result everywhere?
#
# The standard says what an operator computes. So every program should give the same numbers. We ask four ways of
# computing the same eight pictures.

# %% tags=["remove-input"]
cu.quiz("01_graph_structure", 4)


# %%
def run_ort(level):
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    return ort.InferenceSession(
        "work/01_fashion_resnet.onnx", options, providers=["CPUExecutionProvider"]
    ).run(None, {"image": pictures})[0]


with torch.no_grad():
    answers = {"PyTorch": fashion_resnet(torch.from_numpy(pictures)).numpy()}
answers["ORT, optimised"] = run_ort(ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
answers["ORT, as written"] = run_ort(ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
answers["reference evaluator"] = ReferenceEvaluator(trained).run(
    None, {"image": pictures}
)[0]

# %% [markdown]
# As the measure of truth we take PyTorch in double precision, and look at the largest error of each.

# %%
with torch.no_grad():
    truth = (
        cu.fashion_resnet().double()(torch.from_numpy(pictures).double()).numpy()
    )
errors = {name: np.abs(answer - truth).max() for name, answer in answers.items()}

fig, ax = plt.subplots(figsize=(7.2, 2.4))
bars = ax.barh(list(errors)[::-1], list(errors.values())[::-1])
ax.bar_label(bars, fmt="%.1e", padding=3)
ax.set_xlabel("largest error of a logit")
ax.set_title(
    f"Nobody is exact: errors up to {max(errors.values()):.0e}, logits up to {np.abs(truth).max():.0f}"
)
plt.show()
# %% [markdown]
# A sum of hundreds of products is rounded at every step, and each program adds in another order. The differences are
# tiny and never go away. So compare with a tolerance, never with `==`.

# %%
from itertools import combinations

pairs = list(combinations(answers.values(), 2))
cu.claim(
    "same-result-everywhere",
    {
        "some of the answers differ in their bits": not all(
            np.array_equal(a, b) for a, b in pairs
        ),
        "all agree within 1e-4": all(
            np.allclose(a, b, atol=1e-4) for a, b in pairs
        ),
        "their errors are below 1e-5 of the largest logit": max(errors.values())
        < 1e-5 * np.abs(truth).max(),
        "all name the same classes": all(
            np.array_equal(a.argmax(1), b.argmax(1)) for a, b in pairs
        ),
    },
)

# %% [markdown]
# ## Large models: external data
#
# A [Protocol Buffers](https://protobuf.dev/) message cannot be larger than 2 GiB. Larger models keep their weights in a
# second file; the first one says where. Give the checker the *path* of such
# a model: `check_model(model)` refuses a message above the limit.

# %%
assert onnx.checker.MAXIMUM_PROTOBUF == 2**31 - 1
Path("work/01_external").mkdir(exist_ok=True)
onnx.save_model(
    onnx.load("work/01_fashion_resnet.onnx"),
    "work/01_external/model.onnx",
    save_as_external_data=True,
    location="model.onnx.data",
    size_threshold=1024,  # smaller tensors stay in the first file
)
{f.name: f.stat().st_size for f in sorted(Path("work/01_external").iterdir())}

# %% [markdown]
# Each large initializer now holds a file name, a position and a length in place of its values:

# %%
outside = onnx.load("work/01_external/model.onnx", load_external_data=False)
tensor = next(
    t for t in outside.graph.initializer if t.data_location == TensorProto.EXTERNAL
)
{"name": tensor.name, **{e.key: e.value for e in tensor.external_data}}

# %% [markdown]
# The two files belong together. If only one of them is copied, the model does not load:

# %%
data = Path("work/01_external/model.onnx.data")
data.rename(data.with_suffix(".away"))
try:
    ort.InferenceSession(
        "work/01_external/model.onnx", providers=["CPUExecutionProvider"]
    )
    raise AssertionError("it loaded without its weights")
except ort.capi.onnxruntime_pybind11_state.Fail as error:
    print(str(error).split("FAIL : ")[-1].split(" Error")[0])
finally:
    data.with_suffix(".away").rename(data)

# %% [markdown]
# And if the second file is another one? We double all its weights, and write a checksum into the first file that cannot
# be right. [The standard](https://onnx.ai/onnx/repo-docs/ExternalData.html) has an entry for it.

# %%
file, feed_one = "work/01_external/model.onnx", {"image": pictures[:1]}
before = ort.InferenceSession(file, providers=["CPUExecutionProvider"]).run(
    None, feed_one
)[0]
for stored_outside in (
    t for t in outside.graph.initializer if t.data_location == TensorProto.EXTERNAL
):
    stored_outside.external_data.add(key="checksum", value="0" * 40)
onnx.save(outside, file)
(2 * np.fromfile(data, dtype=np.float32)).tofile(data)

onnx.checker.check_model(file, full_check=True)
onnx.load(file)
after = ort.InferenceSession(file, providers=["CPUExecutionProvider"]).run(
    None, feed_one
)[0]
assert not np.allclose(before, after, rtol=0.1)
f"largest logit {before.max():.1f} before, {after.max():.1f} after"

# %% [markdown]
# Other numbers, and no objection: not from the checker, not from `onnx.load`, not from ONNX Runtime. Nobody looks at
# the checksum. If the two files travel, compare a hash of *both* yourself.
#
# The exporter writes two files by default, for any size. For a model as small as ours, `external_data=False` is
# simpler.

# %% [markdown]
# ## What else the file tells
#
# A model can carry notes: a version, a licence, the names of the classes. ONNX Runtime hands them out with the model,
# so a server needs no second file.

# %%
helper.set_model_props(
    trained, {"classes": ", ".join(cu.CLASS_NAMES), "course": "lesson 01"}
)
onnx.save(trained, "work/01_with_notes.onnx")
noted = ort.InferenceSession(
    "work/01_with_notes.onnx", providers=["CPUExecutionProvider"]
)
noted.get_modelmeta().custom_metadata_map["classes"]

# %% [markdown]
# The exporter leaves notes, too: on each node, where it came from. That helps to debug. Look at the kinds:

# %%
left = {p.key: p.value for p in trained.graph.node[0].metadata_props}
assert 'File "' in left["pkg.torch.onnx.stack_trace"]
left["pkg.torch.onnx.name_scopes"], sorted(left)

# %% [markdown]
# The `stack_trace` holds file names of the machine that made the export. We do not show them here. They are of no use
# to others, and perhaps not their business. Before you publish a model, take them out:

# %%
for node in trained.graph.node:
    kept = [p for p in node.metadata_props if "stack_trace" not in p.key]
    del node.metadata_props[:]
    node.metadata_props.extend(kept)

onnx.save(trained, "work/01_to_publish.onnx")
assert b"stack_trace" not in Path("work/01_to_publish.onnx").read_bytes()
assert b"stack_trace" in Path("work/01_fashion_resnet.onnx").read_bytes()

# %% [markdown]
# ## Functions
#
# A model can define operators of its own, as a graph of known ones. A runtime that does not know the new operator can
# use its definition.

# %%
swish = helper.make_function(
    "course",  # the domain: operators of different owners may have the same name
    "Swish",
    inputs=["x"],
    outputs=["y"],
    nodes=[
        helper.make_node("Sigmoid", ["x"], ["gate"]),
        helper.make_node("Mul", ["x", "gate"], ["y"]),
    ],
    opset_imports=[helper.make_opsetid("", 18)],
)

# %%
two_calls = helper.make_graph(
    [
        helper.make_node("Swish", ["x"], ["h"], domain="course"),
        helper.make_node("Swish", ["h"], ["y"], domain="course"),
    ],
    "two_calls",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
)
versions = [helper.make_opsetid("", 18), helper.make_opsetid("course", 1)]
with_function = helper.make_model(
    two_calls, functions=[swish], opset_imports=versions, ir_version=10
)
onnx.checker.check_model(with_function, full_check=True)

# %% [markdown]
# The graph has two nodes. With the definition put in their place (*inlining*), it has four:

# %%
import onnx.inliner

inlined = onnx.inliner.inline_local_functions(with_function)
points = {"x": np.linspace(-2, 2, 5, dtype=np.float32)}
outputs = [
    ReferenceEvaluator(m).run(None, points)[0] for m in (with_function, inlined)
]
assert np.array_equal(*outputs)
(
    [n.op_type for n in with_function.graph.node],
    [n.op_type for n in inlined.graph.node],
)

# %% [markdown]
# ## Recap
#
# - A model is a message: `ModelProto` ⊃ `GraphProto` ⊃ nodes, initializers, inputs, outputs, value info.
# - Nodes are connected by names. Each name is written once, and before it is read.
# - `onnx.checker.check_model(model, full_check=True)` before you trust a file.
# - The file is about as large as its weights. Above 2 GiB they live in a second file, and the two travel together.
# - Two runtimes agree within a tolerance, not in every bit.
# - The exporter writes where the nodes came from, with file names: look before you publish.
#
# **Now you:** [exercises 01](exercises/01_graph_structure.ipynb). **Next:** [02 · Opsets](02_opsets.ipynb).
