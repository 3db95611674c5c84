# %% [markdown]
# # 01 · Graph structure
#
# A colleague sends you a file `model.onnx`. The code that made it is gone. You want to know what it computes, which
# inputs it takes, and whether the file is in order. For this you must know the parts of such a file.
#
# You need [lesson 00](00_start_here.ipynb).
#
# After this lesson you will be able to
#
# - build a model without PyTorch, and name each part of a file,
# - read the graph of any model: as a table, as text, in the viewer,
# - understand the checker's messages,
# - say which PyTorch layer became which node, and where its weights are.

# %%
import course_utils as cu

cu.setup()

# %% tags=["remove-input"]
cu.picture("nested_boxes")

# %% [markdown]
# An ONNX file is one message, [`ModelProto`](https://onnx.ai/onnx/api/classes.html), that holds other messages. The
# largest part is the graph. We build one by hand, part by part; come back to the drawing while you read.
#
# ## Build a model by hand
#
# We want one layer of a network: $y = \max(0,\ xW + b)$. Each step is a [**node**](glossary.md#node): an
# [operator](https://onnx.ai/onnx/operators/), with the *names* of the tensors that it reads and writes. Nodes are
# connected by these names only, and each name is written once.

# %%
from onnx import TensorProto, helper, numpy_helper

nodes = [
    helper.make_node("MatMul", ["x", "W"], ["xw"], name="multiply"),
    helper.make_node("Add", ["xw", "b"], ["s"], name="add_bias"),
    helper.make_node("Relu", ["s"], ["y"], name="activate"),
]

# %% [markdown]
# The weights are tensors with a name and values. ONNX calls them [**initializers**](glossary.md#initializer).

# %%
import numpy as np

W = np.array([[1, -2], [3, 4], [-5, 6]], dtype=np.float32)
b = np.array([0.5, -0.5], dtype=np.float32)
weights = [numpy_helper.from_array(W, "W"), numpy_helper.from_array(b, "b")]

# %% [markdown]
# Inputs and outputs are declared with a name, a type, and a shape. A dimension is a number or a name: `"batch"` means
# *any size*.

# %%
x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])
y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])

# %% [markdown]
# Nodes, inputs, outputs and initializers make a **graph**. The graph and two version numbers make a **model**: the
# [opset](glossary.md#opset) says which edition of the operators we mean, the [IR version](glossary.md#ir-version) which
# edition of the file format. [Lesson 02](02_opsets.ipynb) is about these two.

# %%
import onnx

graph = helper.make_graph(nodes, "tiny", [x], [y], initializer=weights)
opset = helper.make_opsetid("", 18)
model = helper.make_model(graph, opset_imports=[opset], ir_version=10)

# %% [markdown]
# `check_model` raises an error when something is wrong with the model. Then we save the file and open it in the viewer.

# %%
onnx.checker.check_model(model, full_check=True)
onnx.save(model, "work/01_tiny.onnx")
cu.show("work/01_tiny.onnx", height=420)

# %% [markdown]
# There is no error, so the form of the model is in order. Click on `MatMul`: `W` is one of its inputs, as `x` is. ONNX Runtime
# runs the file:

# %%
import onnxruntime as ort

feed = {"x": np.array([[1, 1, 1], [1, 0, -1]], dtype=np.float32)}
cpu = ["CPUExecutionProvider"]
session = ort.InferenceSession("work/01_tiny.onnx", providers=cpu)
(result,) = session.run(None, feed)
assert np.array_equal(result, np.maximum(0, feed["x"] @ W + b))

# %% [markdown]
# NumPy gives the same numbers. For a small model the [text form](https://onnx.ai/onnx/repo-docs/Syntax.html) is the
# fastest way to read all of it:

# %%
text = onnx.printer.to_text(model)
print(text)

# %% [markdown]
# Find the parts again: the two versions, the graph with its input and output, the initializers, the nodes.
# `onnx.parser.parse_model` goes the other way, from text to model. We use it below.
#
# ## Break it, and read what the checker says
#
# [`onnx.checker`](https://onnx.ai/onnx/api/checker.html) is the first thing to ask about a file you do not trust. Its
# messages are short. We break copies of our model. In the first one a name is misspelt:

# %%
from copy import deepcopy


def complaint(model, **options):
    try:
        onnx.checker.check_model(model, **options)
    except Exception as error:
        return str(error)


typo = deepcopy(model)
typo.graph.node[1].input[1] = "bias"  # the initializer is called "b"
print(complaint(typo))

# %% [markdown]
# The checker cannot know that `bias` is a typing error. It sees a name that no node before has written, and takes it
# for a wrong order of the nodes. So when you read *not output of any previous nodes*, look at the spelling first.
#
# In the next copy the file declares an output of three columns, and the graph computes two.

# %% tags=["remove-input"]
cu.quiz("01_graph_structure", 1)

# %%
wide = deepcopy(model)
wide.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 3
assert complaint(wide) is None
print(complaint(wide, full_check=True))

# %% [markdown]
# The plain check looks at names, operators and attributes, and finds nothing here. Only `full_check=True` also works
# out all types and shapes ([shape inference](glossary.md#shape-inference)) and compares them with what the file
# declares. Use it always.
#
# ## Nodes stand in order
#
# The standard demands **topological order**: a tensor is written before it is read. This function goes through the
# nodes and remembers what has been written. We move the last node of a copy to the front.


# %%
def is_sorted(graph):
    known = {part.name for part in [*graph.input, *graph.initializer]}
    for node in graph.node:
        if not known.issuperset(node.input):
            return False
        known.update(node.output)
    return True


shuffled = deepcopy(model)
shuffled.graph.node.insert(0, shuffled.graph.node.pop())
print(complaint(shuffled))
is_sorted(model.graph), is_sorted(shuffled.graph)

# %% tags=["remove-input"]
cu.quiz("01_graph_structure", 2)

# %%
lenient = ort.InferenceSession(shuffled.SerializeToString(), providers=cpu)
sorted_itself = np.array_equal(lenient.run(None, feed)[0], result)
sorted_itself

# %% [markdown]
# The checker objects, with the words that we know. ONNX Runtime sorts the nodes itself and runs the file. The
# [reference implementation](https://onnx.ai/onnx/api/reference.html) in the `onnx` package takes the nodes as they
# stand:

# %%
from onnx.reference import ReferenceEvaluator

try:
    ReferenceEvaluator(shuffled).run(None, feed)
    refused = False
except Exception as error:
    refused = True
    print(type(error).__name__, str(error).splitlines()[0])

# %% [markdown]
# It stops at the first node, whose input nobody has written yet. So keep the order: what one runtime forgives, another
# refuses.
#
# ## From PyTorch
#
# Nobody builds large graphs by hand. The [exporter](glossary.md#exporter) does it. The report says that a convolution
# becomes the operator [`Conv`](https://onnx.ai/onnx/operators/onnx__Conv.html), with its settings as
# [attributes](glossary.md#attribute). We choose settings that cannot be confused:

# %%
import torch

conv = torch.nn.Conv2d(3, 8, (3, 5), stride=(2, 1), padding=(1, 2)).eval()
example = torch.ones(1, 3, 16, 16)
torch.onnx.export(conv, (example,), "work/01_conv.onnx", verbose=False)
(node,) = onnx.load("work/01_conv.onnx").graph.node
settings = {a.name: helper.get_attribute_value(a) for a in node.attribute}
list(node.input), settings

# %% [markdown]
# *Attributes* are fixed settings. *Inputs* are tensors, weights among them. One setting looks different: PyTorch pads
# by one number per axis. ONNX has one for the beginning and one for the end: first all beginnings, then all ends.

# %% tags=["hide-input"]
cu.claim(
    "conv2d-becomes-conv",
    {
        "the operator is Conv": node.op_type == "Conv",
        "kernel_shape is the layer's kernel_size": tuple(settings["kernel_shape"])
        == conv.kernel_size,
        "strides is its stride": tuple(settings["strides"]) == conv.stride,
        "pads is its padding, for both ends": tuple(settings["pads"])
        == conv.padding + conv.padding,
        "weight and bias are inputs, not attributes": list(node.input)[1:]
        == ["weight", "bias"],
    },
)

# %% [markdown]
# ## Read a trained network
#
# Now the file of a real network. `cu.node_table` lists the nodes in their order.

# %%
torch.onnx.export(
    cu.fashion_resnet(),
    (torch.randn(2, 1, 28, 28),),
    "work/01_fashion_resnet.onnx",
    input_names=["image"],
    output_names=["logits"],
    dynamic_shapes=({0: torch.export.Dim("batch")},),
    external_data=False,
    verbose=False,
)
trained = onnx.load("work/01_fashion_resnet.onnx")
cu.node_table(trained).iloc[[0, 1, 2, -2, -1]]

# %% [markdown]
# The first three nodes and the last two. Follow the names: what `Conv` writes, `Relu` reads. The last node is the
# classifier, a `Linear` layer. We wrote `MatMul` and `Add` for that; the exporter writes `Gemm`, which does both. There
# is often more than one way to write the same thing. Now the tensors, three of each role:

# %%
cu.tensor_table(trained).groupby("role").head(3)

# %% [markdown]
# The batch is a name, all other dimensions are numbers. *Intermediate* tensors are described by
# [value info](glossary.md#value-info), which a file may leave out. Many initializers have the name that a weight has in
# PyTorch. Of the BatchNorm layers nothing is left, as lesson 00 saw when it counted the nodes: they are multiplied into the
# weights of the convolutions, and a new `weight_bias` stands beside each. [Lesson 06](06_fusion.ipynb) shows how.
#
# ## The same steps for every input
#
# The report says that the graph is static and its nodes are in topological order. *Static* means that the file is a
# fixed list of steps, whatever the input is. ONNX Runtime's [profiler](glossary.md#profile) writes down each node as it
# runs. This function returns their names:

# %%
import json
from pathlib import Path


def nodes_run(model, x):
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = "work/01_profile"
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=cpu
    )
    session.run(None, {model.graph.input[0].name: x})
    events = json.loads(Path(session.end_profiling()).read_text())
    return [event["name"] for event in events if event["cat"] == "Node"]


# %% [markdown]
# We run a real picture and one that is all zeros.

# %%
real = cu.normalize(cu.fashion_mnist("test")[0][:1])
for_real = nodes_run(trained, real)
for_zeros = nodes_run(trained, np.zeros_like(real))
len(for_real), for_real == for_zeros

# %% [markdown]
# Both pictures take the same steps in the same order, whatever they show. The steps are fewer than the nodes of the
# file, because ONNX Runtime joins some of them before it begins (lesson 06).
#
# There are exceptions: `If`, `Loop`, `Scan` and the rare `SequenceMap` hold graphs of their own, and the data decide which
# one runs, or how often. Here is an `If`, written as text. It takes the square root of a positive number, and turns the
# sign of a negative one.

# %%
choosing = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 18]>
choosing (float[1] x) => (float[1] y) <float[1] zero = {0}> {
  big = Greater(x, zero)
  y = If (big) <then_branch = left () => (float[1] p) { p = Sqrt(x) },
                else_branch = right () => (float[1] q) { q = Neg(x) }>
}""")
for_plus = nodes_run(choosing, np.array([4], np.float32))
for_minus = nodes_run(choosing, np.array([-4], np.float32))
for_plus, for_minus

# %% [markdown]
# `Sqrt` ran for 4, `Neg` for −4. [Lesson 03](03_tracing_vs_scripting.ipynb) is about such models.

# %% tags=["hide-input"]
cu.claim(
    "graph-static-topological",
    {
        "in the trained model every tensor is written before it is read": is_sorted(
            trained.graph
        ),
        "with the last node moved to the front it is not": not is_sorted(
            shuffled.graph
        ),
        "the checker then objects": "topologically sorted" in complaint(shuffled),
        "the reference evaluator does not run such a file": refused,
        "ONNX Runtime runs it all the same": sorted_itself,
        "two different pictures run the same nodes in the same order": for_real
        == for_zeros,
        "an If lets the data choose: Sqrt for 4": "Sqrt" in str(for_plus)
        and "Neg" not in str(for_plus),
        "and Neg for −4": "Neg" in str(for_minus) and "Sqrt" not in str(for_minus),
    },
)

# %% [markdown]
# ## Recap
#
# - A file is a `ModelProto`. It holds a `GraphProto` with nodes, initializers, inputs, outputs and value info.
# - Nodes are connected by names. Each name is written once, and before it is read.
# - The graph is a fixed list of steps; only operators such as `If`, `Loop` and `Scan` let the data choose.
# - Run `onnx.checker.check_model(model, full_check=True)` before you use a file. It checks the form, not the numbers. Give it the path in place of the model
#   when the weights are in a second file.
# - Use `cu.node_table` or the viewer to read a model, unless it is small: then the text form shows all of it at once.
#
# **Now you:** [exercises 01](exercises/01_graph_structure.ipynb). **Next:** [02 · Opsets](02_opsets.ipynb).
#
# **Deeper:** [Down to the bytes](deeper/01_bytes.ipynb) ·
# [Large files](deeper/01_large_files.ipynb) · [What a file tells](deeper/01_metadata.ipynb) ·
# [Step by step](deeper/01_step_by_step.ipynb)
