# %% [markdown]
# # 01 · Exercises: graph structure
#
# Six tasks. Each ends in a file in `work/` that `cu.check` looks at. A check tells you what is right, and gives a hint
# for what is not. Try as often as you like: the best answer is kept. When you are stuck, `cu.hint("1.1")` gives a hint
# on the task, `cu.hint("1.1", 2)` the next one. After a try of your own, `cu.solution("1.1")` shows a solution.
#
# The numbers in the tasks are drawn from your id, so most of them are yours alone. Put your id between the quotes.

# %%
import course_utils as cu

cu.setup(student="guest")  # put your own id here

# %%
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# %% [markdown]
# ## 1.1 Build a formula by hand
#
# Build a model that computes $y = f(a \cdot x + b) + c \cdot x$, with your own $f$, $a$, $b$, $c$:

# %%
cu.params("1.1")

# %% [markdown]
# - The input is called `x`: float32, any number of rows, three columns. The output is called `y`.
# - $f$ is the ONNX operator of that name. The constants are initializers.
# - Use opset 18 and `ir_version=10`, as in the lesson. Save it as `work/1.1.onnx`.
#
# > **Hint** An initializer of shape `[1]` (or `[]`) is stretched over all rows and columns.

# %%
# Task 1.1: build the model and save it
p = cu.params("1.1")
### BEGIN SOLUTION
nodes = [
    helper.make_node("Mul", ["x", "a"], ["ax"]),
    helper.make_node("Add", ["ax", "b"], ["inner"]),
    helper.make_node(p["f"], ["inner"], ["outer"]),
    helper.make_node("Mul", ["x", "c"], ["cx"]),
    helper.make_node("Add", ["outer", "cx"], ["y"]),
]
constants = [
    numpy_helper.from_array(np.array([p[name]], dtype=np.float32), name)
    for name in "abc"
]
x, y = (
    helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3])
    for name in "xy"
)
graph = helper.make_graph(nodes, "formula", [x], [y], constants)
model = helper.make_model(
    graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10
)
onnx.save(model, "work/1.1.onnx")
### END SOLUTION

# %%
cu.check("1.1", "work/1.1.onnx")

# %% [markdown] tags=["solution"]
# Each operation of the formula is a node, and the names of its inputs and outputs join it to the others. `x` is read
# twice, once inside of $f$ and once beside it: a tensor is written once and may be read as often as you like. A typical
# mistake is to apply $f$ to the whole sum, or to exchange two constants. The checker accepts both, because all names,
# types and shapes fit; only a calculation in NumPy on a few rows shows it. Another road is `onnx.parser.parse_model`,
# which reads the same five nodes from text.

# %% [markdown]
# ## 1.2 Count what is in a graph
#
# Here is a model. It was made at random, for your id.

# %%
cu.show(cu.given("1.2"), height=380)

# %% [markdown]
# Write a JSON file `work/1.2.json` with four keys:
#
# | key | value |
# |---|---|
# | `nodes` | how many nodes the graph has |
# | `ops` | a dict: operator → how many of them |
# | `parameters` | how many values all initializers hold together; count only initializers that some node reads |
# | `unused` | a list: the names of the initializers that no node reads |
#
# > **Hint** All of it is in `model.graph`. Viewers may hide an initializer that nobody reads.

# %%
# Task 1.2: count, and write the answer
model = onnx.load(cu.given("1.2"))
### BEGIN SOLUTION
graph = model.graph
read = {name for node in graph.node for name in node.input}
ops = [node.op_type for node in graph.node]
answer = {
    "nodes": len(graph.node),
    "ops": {op: ops.count(op) for op in ops},
    "parameters": sum(
        int(np.prod(t.dims)) for t in graph.initializer if t.name in read
    ),
    "unused": [t.name for t in graph.initializer if t.name not in read],
}
Path("work/1.2.json").write_text(json.dumps(answer))
### END SOLUTION

# %%
cu.check("1.2", "work/1.2.json")

# %% [markdown] tags=["solution"]
# A node names what it reads in `input`. So an initializer is unused when its name is in none of these lists. The number
# of its values is the product of its `dims`: not their sum, and not the bytes, of which a float32 value has four. A
# typical mistake is to add up all initializers: print their names beside their sizes, and none of those in `unused` may
# be in your sum. Another road for `ops` is `cu.op_histogram`, with each count made an `int` for JSON.

# %% [markdown]
# ## Three broken graphs
#
# The next three models were meant to be the same small network: two layers, and a sum that leads past them. Each was
# damaged in another way. Repair them: no node may be added or taken away, and no weight may get other values (in 1.5
# one gets another type).
#
# Begin with the checker's words, `onnx.checker.check_model(model, full_check=True)`.
#
# ## 1.3 Repair the order

# %%
cu.node_table(cu.given("1.3"))

# %%
# Task 1.3: bring the nodes into topological order, save work/1.3.onnx
model = onnx.load(cu.given("1.3"))
### BEGIN SOLUTION
waiting, ordered = list(model.graph.node), []
known = {i.name for i in model.graph.input} | {
    t.name for t in model.graph.initializer
}
while waiting:
    ready = next(node for node in waiting if known.issuperset(node.input))
    waiting.remove(ready)
    ordered.append(ready)
    known.update(ready.output)
del model.graph.node[:]
model.graph.node.extend(ordered)
onnx.save(model, "work/1.3.onnx")
### END SOLUTION

# %%
cu.check("1.3", "work/1.3.onnx")

# %% [markdown] tags=["solution"]
# A node may read the graph's inputs, the initializers, and what earlier nodes wrote. The loop takes a node as soon as
# it can read all its inputs, so it brings every graph without a cycle into order. A typical mistake is to turn the list
# round, because the table looks like that: two neighbours have changed places as well. The checker then names the first
# node that still comes too early. `onnx_ir` has the same method, `graph.sort()`; for a graph of this size you can also
# write the order by hand.

# %% [markdown]
# ## 1.4 Repair the names
#
# Two names are wrong here. The checker stops at the first problem it finds, so ask it again after each repair.
#
# > **Hint** The names of the nodes were not damaged: they say what each was meant to do.

# %%
cu.node_table(cu.given("1.4"))

# %%
# Task 1.4: repair the names and save the model as work/1.4.onnx
model = onnx.load(cu.given("1.4"))
### BEGIN SOLUTION
for node in model.graph.node:
    for index, name in enumerate(node.input):
        for tensor in model.graph.initializer:
            if name == tensor.name.replace("_", ""):
                node.input[index] = tensor.name
    if node.name == "activate_1":
        node.output[0] = "hidden"
onnx.save(model, "work/1.4.onnx")
### END SOLUTION

# %%
cu.check("1.4", "work/1.4.onnx")

# %% [markdown] tags=["solution"]
# Nodes are connected by names only. A misspelled name is a tensor that nobody writes, and a name that two nodes write
# is one tensor too many. What the second node should write is seen at its reader: `multiply_2` wants `hidden`, and
# nobody writes it. A typical mistake is to lead that reader to another tensor. The checker is then content, and the
# network has lost its activation. To notice it, read the table again from `x` to `y`: each node must do what its name
# says. To rename the weight instead is no repair.

# %% [markdown]
# ## 1.5 Repair types and shapes
#
# The plain check finds nothing here. Two things are wrong all the same: the type of a weight, and a promise.
#
# > **Hint** `cu.tensor_table` shows the dtype and the shape of every tensor.

# %%
cu.tensor_table(cu.given("1.5"))

# %%
# Task 1.5: repair dtype and shape and save the model as work/1.5.onnx
model = onnx.load(cu.given("1.5"))
### BEGIN SOLUTION
for tensor in model.graph.initializer:
    values = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 4
onnx.save(model, "work/1.5.onnx")
### END SOLUTION

# %%
cu.check("1.5", "work/1.5.onnx")

# %% [markdown] tags=["solution"]
# `Add` and `MatMul` want one type for both inputs, so one float64 weight among float32 tensors is a fault. `astype`
# gives it the type of the others, and the same name keeps its readers. The output's shape is a promise, and must be
# what the last node computes. Both are found by shape inference only, which is why the check needs `full_check=True`. A
# typical mistake is to mend what the first message names and to stop: ask again. A `Cast` node would run as well, and
# leaves the wrong weight in the file.

# %% [markdown]
# ## 1.6 Cut blocks out of the trained network
#
# `onnx.utils.extract_model` copies the part of a graph between some tensors into a model of its own. Export
# `fashion_resnet`, find the names, and cut out the residual blocks from `first` to `last` (it may be one block only):

# %%
cu.params("1.6")

# %% [markdown]
# The blocks follow each other as `stage1.0`, `stage1.1`, `stage2.0`, `stage2.1`, `stage2.2`, `stage2.3`. Each one ends
# with a sum and a ReLU. Begin behind the ReLU of the block before `first`, and end with the last ReLU of `last`. Save
# the model as `work/1.6.onnx`.
#
# > **Hint** Look for `Add` in `cu.node_table`: the ReLU behind the n-th `Add` is the end of the n-th block.

# %%
# Task 1.6: export, find the first and the last tensor, extract
import torch

torch.onnx.export(
    cu.fashion_resnet(),
    (torch.randn(2, 1, 28, 28),),
    "work/1.6_whole.onnx",
    dynamic_shapes=({0: torch.export.Dim("batch")},),
    external_data=False,
    verbose=False,
)
### BEGIN SOLUTION
nodes = onnx.load("work/1.6_whole.onnx").graph.node
sums = {node.output[0] for node in nodes if node.op_type == "Add"}
ends = [
    node.output[0]
    for node in nodes
    if node.op_type == "Relu" and node.input[0] in sums
]
blocks = ["stage1.0", "stage1.1", "stage2.0", "stage2.1", "stage2.2", "stage2.3"]
p = cu.params("1.6")
first, last = blocks.index(p["first"]), blocks.index(p["last"])
onnx.utils.extract_model(
    "work/1.6_whole.onnx", "work/1.6.onnx", [ends[first - 1]], [ends[last]]
)
### END SOLUTION

# %%
cu.check("1.6", "work/1.6.onnx")

# %% [markdown] tags=["solution"]
# `extract_model` copies the nodes that lie between the tensors you name. The end of one block is the beginning of the
# next, so one list of ends gives both names. A typical mistake is to take what `Add` writes, in front of the ReLU. The
# shapes are the same, and pictures of the network itself hide it at the beginning: what they bring there is never
# negative, and ReLU changes nothing. Feed random numbers of both signs and compare with PyTorch. Another road is to
# export these blocks alone, as a `torch.nn.Sequential`.

# %% [markdown]
# ## Hand in
#
# `cu.submit()` packs all answers that were checked into one file. Give that file to your instructor, or keep it.

# %%
if Path("work/answers").exists():
    cu.submit()
