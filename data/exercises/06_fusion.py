# %% [markdown]
# # 06 · Exercises: fusion
#
# Six tasks. Each ends in a file in `work/` that `cu.check` looks at. A check tells you what is right, and gives a hint
# for what is not. Try as often as you like: the best answer is kept.
#
# The models and numbers are drawn from your id, so they are your own. Put your id between the quotes.

# %%
import course_utils as cu

cu.setup(student="guest")  # put your own id here

# %%
import json
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
from onnx import helper, numpy_helper

# %% [markdown]
# ## 6.1 Fold BatchNorm by hand
#
# Two convolutions and two norms. The first norm follows its convolution, as in the lesson. The second one stands
# **before** its convolution, as in many networks with skip connections. ONNX Runtime folds the first one only.

# %%
cu.node_table(cu.given("6.1"))[["op", "inputs", "outputs", "attributes"]]

# %% [markdown]
# Fold both norms into the weights, with NumPy, and save the model as `work/6.1.onnx`:
#
# - two `Conv` and one `Relu` are left,
# - the result differs by at most a hundred-thousandth of its largest value.
#
# > **Hint** A norm is $a \cdot x + c$ for each channel. After a convolution, its channels are the outputs of the
# > weights. Before one, they are the inputs: what $c$ adds goes through the weights, too. Look at the attributes: these
# > layers have unusual epsilons.

# %%
# Task 6.1: fold both norms and save the model
model = onnx.load(cu.given("6.1"))
### BEGIN SOLUTION
graph = model.graph
weights = {
    t.name: numpy_helper.to_array(t).astype(np.float64) for t in graph.initializer
}
first, second = (node for node in graph.node if node.op_type == "Conv")
one, two = (node for node in graph.node if node.op_type == "BatchNormalization")


def line(norm):
    """What a norm does to each channel: a · x + c."""
    scale, shift, mean, variance = (weights[name] for name in norm.input[1:])
    a = scale / np.sqrt(variance + helper.get_node_attr_value(norm, "epsilon"))
    return a, shift - mean * a


(a1, c1), (a2, c2) = line(one), line(two)
folded = {
    "one.weight": weights["one.weight"] * a1[:, None, None, None],
    "one.bias": weights["one.bias"] * a1 + c1,
    "two.weight": weights["two.weight"] * a2[None, :, None, None],
    "two.bias": (weights["two.weight"] * c2[None, :, None, None]).sum((1, 2, 3)),
}
first.output[0] = one.output[0]
second.input[:] = [two.input[0], "two.weight", "two.bias"]
graph.node.remove(one)
graph.node.remove(two)
del graph.initializer[:]
graph.initializer.extend(
    numpy_helper.from_array(v.astype(np.float32), name)
    for name, v in folded.items()
)
onnx.save(model, "work/6.1.onnx")
### END SOLUTION

# %%
cu.check("6.1", "work/6.1.onnx")

# %% [markdown] tags=["solution"]
# Both steps are linear, so two of them in a row are one. After a convolution, the factor belongs to the outputs of the
# weights, their first axis, and the old bias is scaled with it. Before a convolution, the factor belongs to the inputs,
# the second axis; the constant goes through the old weights, summed over inputs, rows and columns. That is exact here
# because no zeros are padded between this norm and its convolution. Typical mistakes are the wrong axis, and the
# default epsilon in place of the attribute. Fold one layer, compare its tensor with the old one, then fold the next.

# %% [markdown]
# ## 6.2 At most three nodes
#
# Three layers of `Conv`, `BatchNormalization` and an activation. Each could be one node. But the model was changed
# while somebody searched for a mistake, and now nothing fuses:

# %%
cu.show(cu.given("6.2"), height=420)

# %% [markdown]
# Write a model with the input `x` and the output `y` that computes the same `y`, and of which ONNX Runtime leaves at
# most three nodes at level `extended`. Save it as `work/6.2.onnx`, **before** optimisation: with standard operators
# only. What was added for the search is not needed any more.
#
# > **Hint** `cu.optimized(model, "extended")` returns the graph that is run. In each layer something else is wrong.

# %%
# Task 6.2: make all three layers fuse, and save the model
model = onnx.load(cu.given("6.2"))
### BEGIN SOLUTION
graph = model.graph
del graph.output[1:]  # outputs for debugging
del graph.input[1:]  # weights that could be fed
for node in graph.node:
    if node.op_type == "Max":  # max(x, 0)
        node.op_type = "Relu"
        node.input.pop()
onnx.save(model, "work/6.2.onnx")
### END SOLUTION

# %%
cu.check("6.2", "work/6.2.onnx")

# %% [markdown] tags=["solution"]
# A fusion makes tensors between nodes disappear and computes weights beforehand. It must not do so when a tensor is an
# output, or when a weight is an input that a caller may feed. And it looks for operators by name: `Max` with zero
# computes what `Relu` computes, but no pattern has it. The typical mistake is to save the optimised model: it has
# operators that only ONNX Runtime knows. Count the nodes of `cu.optimized(model, "extended")` after each change; one
# layer after the other becomes a single node.

# %% [markdown]
# ## 6.3 Why does it not fuse?
#
# The deeper page [Why it does not fuse](../deeper/06_why_not_fused.ipynb) shows such models, and those of task 6.2.
#
# Five small models, *a* to *e*. Each has a `Conv`, a `BatchNormalization` and an activation.

# %%
cases = {path.stem[-1]: onnx.load(path) for path in cu.given("6.3")}
for letter, case in cases.items():
    graph = onnx.GraphProto.FromString(case.graph.SerializeToString())
    graph.name = letter
    del graph.initializer[:]  # the weights would fill pages
    print(onnx.printer.to_text(graph), "\n")

# %% [markdown]
# Does all of it become one node at level `extended`? If not, why? Write `work/6.3.json`: a dict from letter to a dict
# with two keys, `reason` and `where`. The check says how many are right, not which; places count once all reasons are
# right.
#
# | reason | it means | where |
# |---|---|---|
# | `fuses` | one node is left | an empty text |
# | `output` | a tensor that would disappear is an output, too | that tensor |
# | `two readers` | a tensor that would disappear has a second reader | that tensor |
# | `can be fed` | a weight that would be folded is among the inputs | that weight |
# | `order` | the activation stands before the norm | the tensor that the activation writes |
# | `no kernel` | `FusedConv` does not have this activation | the tensor that the activation writes |

# %%
# Task 6.3: find the reasons, and write the answer
### BEGIN SOLUTION
answer = {}
for letter, case in cases.items():
    graph = case.graph
    read = [name for node in graph.node for name in node.input]
    inner = [
        name for name in (node.output[0] for node in graph.node) if name != "y"
    ]
    activation = next(
        node
        for node in graph.node
        if node.op_type not in ("Conv", "BatchNormalization", "Add")
    )
    norm = next(node for node in graph.node if node.op_type == "BatchNormalization")
    if cu.op_histogram(cu.optimized(case, "extended")).sum() == 1:
        reason, where = "fuses", ""
    elif len(graph.output) > 1:
        reason, where = "output", graph.output[1].name
    elif len(graph.input) > 1:
        reason, where = "can be fed", graph.input[1].name
    elif any(read.count(name) > 1 for name in inner):
        reason, where = (
            "two readers",
            next(name for name in inner if read.count(name) > 1),
        )
    else:
        reason = "order" if norm.input[0] == activation.output[0] else "no kernel"
        where = activation.output[0]
    answer[letter] = {"reason": reason, "where": where}
Path("work/6.3.json").write_text(json.dumps(answer))
### END SOLUTION

# %%
cu.check("6.3", "work/6.3.json")

# %% [markdown] tags=["solution"]
# The reasons can be asked in a fixed order. First let ONNX Runtime optimise the model: one node left means that it
# fuses. Otherwise look at the graph's outputs, its inputs, the readers of each inner tensor, and the order of the
# nodes; what remains is an activation that `FusedConv` does not have. The typical mistake is to take an activation
# other than `Relu` for the cause: some others fuse, too. Another one is to name a node where the name of a tensor or
# weight is asked for.

# %% [markdown]
# ## 6.4 Where does it come from?
#
# Here is a model, and the same model after an optimiser. All names are meaningless, and all tensors but `x` and `y`
# have new names.

# %%
before, after = cu.given("6.4")
cu.node_table(before)[["op", "inputs", "outputs", "name"]]

# %%
cu.node_table(after)[["op", "inputs", "outputs"]]

# %% [markdown]
# Write `work/6.4.json` with two keys:
#
# | key | value |
# |---|---|
# | `from` | a dict: each tensor that a node of the optimised model writes → a list of names of the original nodes in that node |
# | `gone` | a list of names of the original nodes that are in none: they changed nothing, or computed from constants alone |
#
# The check says how many are right, not which.
#
# > **Hint** You can do it by thinking. Or let values speak: both models take float32 `[1, 4, 8, 8]`.

# %%
# Task 6.4: trace the nodes back, and write the answer
### BEGIN SOLUTION
x = np.random.default_rng(0).normal(size=(1, 4, 8, 8)).astype(np.float32)
table = cu.origins(before, after, {"x": x})
here = table[table["node"] != ""]
answer = {
    "from": {row.output: row.originals.split(", ") for row in here.itertuples()},
    "gone": list(table.loc[table["node"] == "", "originals"]),
}
Path("work/6.4.json").write_text(json.dumps(answer))
### END SOLUTION

# %%
cu.check("6.4", "work/6.4.json")

# %% [markdown] tags=["solution"]
# Names tell nothing here, but values do: an optimiser may rename a tensor, and its numbers stay the same up to
# rounding. So run both models on the same random input and pair equal tensors. A new node then stands for all old nodes
# between the tensors it reads and the one it writes. The typical mistake is to count a node that read only constants as
# part of the new node: its result became a weight. By thinking alone: go from `x` to `y` in both tables at the same
# time.

# %% [markdown]
# ## 6.5 Make attention match
#
# This task belongs to the deeper page [Transformers: when fusion fires](../deeper/06_transformers.ipynb).
#
# One layer of attention with a mask. `onnxruntime.transformers.optimizer` does not recognise it:

# %%
from onnxruntime.transformers import optimizer

p = cu.params("6.5")
sizes = {"num_heads": p["heads"], "hidden_size": p["hidden"]}
done = optimizer.optimize_model(str(cu.given("6.5")), "bert", **sizes, opt_level=0)
cu.op_histogram(done.model).get("com.microsoft::Attention", 0)

# %%
cu.node_table(cu.given("6.5"))[["op", "inputs", "outputs", "name"]]

# %% [markdown]
# Change the model so that it computes the same, and the optimiser makes one `Attention` of it. Save it as
# `work/6.5.onnx`, **before** the optimiser has run: with standard operators only.
#
# > **Hint** These two patterns, backwards from the `Softmax`, are known to it: `Add`, `Div`, `MatMul` for the scores;
# > and for the other input of that `Add`, with the mask: `Mul`, `Sub`, `Cast`, `Unsqueeze`, `Unsqueeze`, where the
# > `Mul` reads the `Sub` first. Both are broken in your model. Remember that nodes must stand in topological order.

# %%
# Task 6.5: change the graph so that the pattern matches, and save it
model = onnx.load(cu.given("6.5"))
### BEGIN SOLUTION
graph, root = model.graph, np.sqrt(p["hidden"] // p["heads"])
broken = (
    "match",
    "divide",
    "mask_axis",
    "mask_axes",
    "mask_cast",
    "mask_sub",
    "mask_mul",
)
kept = [node for node in graph.node if not node.name.startswith(broken)]
at = [node.name for node in kept].index("mask_add")
new = [
    helper.make_node("MatMul", ["query", "key"], ["new_raw"]),
    helper.make_node("Div", ["new_raw", "new_root"], ["scores"]),
    helper.make_node("Unsqueeze", ["mask", "new_axis_1"], ["new_mask_3d"]),
    helper.make_node("Unsqueeze", ["new_mask_3d", "new_axis_2"], ["new_mask_4d"]),
    helper.make_node(
        "Cast", ["new_mask_4d"], ["new_mask"], to=onnx.TensorProto.FLOAT
    ),
    helper.make_node("Sub", ["new_one", "new_mask"], ["new_padding"]),
    helper.make_node("Mul", ["new_padding", "new_far"], ["penalty"]),
]
del graph.node[:]
graph.node.extend([*kept[:at], *new, *kept[at:]])
values = {
    "new_root": np.float32(root),
    "new_one": np.float32(1),
    "new_far": np.float32(-10000),
}
values |= {"new_axis_1": np.array([1]), "new_axis_2": np.array([2])}
graph.initializer.extend(
    numpy_helper.from_array(np.asarray(value), name)
    for name, value in values.items()
)
onnx.save(model, "work/6.5.onnx")
### END SOLUTION

# %%
cu.check("6.5", "work/6.5.onnx")

# %% [markdown] tags=["solution"]
# The optimiser compares the graph with fixed patterns, backwards from the `Softmax`, operator by operator and in part
# input by input. A graph that computes the same in other steps does not match. So the scores and the mask are written
# anew in the steps of the pattern, and put where the old nodes stood. Typical mistakes are a root of the whole hidden
# size in place of one head's size, a `Mul` whose inputs are exchanged, and nodes behind their reader. To notice them,
# compare the outputs with a mask that hides words, and read the log of the optimiser.

# %% [markdown]
# ## 6.6 Read a profile
#
# This task belongs to the deeper page [Reading a profile](../deeper/06_reading_a_profile.ipynb).
#
# A network that reads digits is too slow for its task. A colleague sends you three files: the model, a profile of some
# runs with all optimisations off, and the PyTorch source. (The events and notes are real. The times are drawn from your
# id.)

# %%
network, profile, source = cu.given("6.6")
events = pd.read_json(profile)
events[["cat", "name", "dur"]].groupby("cat").tail(3)

# %%
node = onnx.load(network).graph.node[5]
[node.name, *(note.key for note in node.metadata_props)]

# %% [markdown]
# Which node costs most? Runs are disturbed now and then, so a node's time is its **median** over the runs. Write
# `work/6.6.json` with four keys:
#
# | key | value |
# |---|---|
# | `node` | the name of the node that costs most |
# | `share` | its time, divided by the time of all nodes: a number between 0 and 1, two decimals are enough |
# | `module` | the innermost PyTorch module that it comes from, such as `encoder.3.scale` |
# | `line` | the number of the line in `6.6_recognizer.py` that it comes from: the one nearest to the operation |

# %%
# Task 6.6: find the node, and where it comes from; write the answer
### BEGIN SOLUTION
ran = events[events["name"].str.endswith("_kernel_time")]
medians = ran.groupby("name")["dur"].median()
slowest = medians.idxmax().removesuffix("_kernel_time")
(node,) = [n for n in onnx.load(network).graph.node if n.name == slowest]
notes = {note.key: note.value for note in node.metadata_props}
scopes = notes["pkg.torch.onnx.name_scopes"].strip("[]").split(", ")
frames = notes["pkg.torch.onnx.stack_trace"].split("File ")
ours = [frame for frame in frames if frame.startswith('"recognizer.py"')]
answer = {
    "node": slowest,
    "share": round(medians.max() / medians.sum(), 3),
    "module": scopes[-2].strip("'"),
    "line": int(ours[-1].split("line ")[1].split(",")[0]),
}
Path("work/6.6.json").write_text(json.dumps(answer))
### END SOLUTION

# %%
cu.check("6.6", "work/6.6.json")

# %% [markdown] tags=["solution"]
# The notes of the exporter lead from a node to the program. `name_scopes` goes inwards, and its last entry is the
# operation, so the module is the one before it. `stack_trace` ends in a line of PyTorch where a layer of PyTorch
# computes; the last line of our own file is the one that we can change.
#
# A typical mistake is to add up all runs: one node was disturbed once, and its sum is the largest. Look at the times of
# a node in all runs to notice it. Another one is to divide by `model_run`, which also holds the time between nodes.
# With `onnx.load` and `json` alone it works as well; `statistics.median` does the rest.

# %% [markdown]
# ## Hand in
#
# `cu.submit()` packs all answers that were checked into one file. Give that file to your instructor, or keep it.

# %%
if Path("work/answers").exists():
    cu.submit()
