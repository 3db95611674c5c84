# %% [markdown]
# # 02 · Exercises: opsets
#
# Six tasks. Each ends in a file in `work/` that `cu.check` looks at. A check tells you what is right, and gives a hint
# for what is not. Try as often as you like: the best answer is kept.
#
# The operators, models and numbers are drawn from your id, so they are your own. Put your id between the quotes.

# %%
import course_utils as cu

cu.setup(student="guest")  # put your own id here

# %%
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper, version_converter

# %% [markdown]
# ## 2.1 Look up the history
#
# Three operators that came late, one that changed often, and one whose attribute became an input:

# %%
cu.params("2.1")

# %% [markdown]
# Write a JSON file `work/2.1.json` with three keys:
#
# | key | value |
# |---|---|
# | `introduced` | a dict: each of the three `newcomers` → the opset that brought it |
# | `versions` | a list: all versions of the `restless` operator up to opset 24, the oldest first |
# | `moved` | the first opset in which the `moved` name is an input of its operator |
#
# > **Hint** `cu.operator_history("Resize")` is one operator's history. JSON does not know NumPy's numbers: make them
# > `int`.

# %%
# Task 2.1: look up, and write the answer
p = cu.params("2.1")
### BEGIN SOLUTION
history = cu.operator_history(p["restless"])
moved = cu.operator_history(p["moved"]["operator"])
is_input = (
    moved["inputs"].str.split(", ").apply(lambda names: p["moved"]["name"] in names)
)
answer = {
    "introduced": {
        name: int(cu.operator_history(name)["opset"].min())
        for name in p["newcomers"]
    },
    "versions": [int(opset) for opset in history["opset"] if opset <= 24],
    "moved": int(moved[is_input]["opset"].min()),
}
with open("work/2.1.json", "w") as file:
    json.dump(answer, file)
### END SOLUTION

# %%
cu.check("2.1", "work/2.1.json")

# %% [markdown] tags=["solution"]
# Each row of the history is one version of the operator, so the oldest row says which opset brought it. A name that
# moved is first an attribute and later an input: the first row whose inputs hold it is the answer. A typical mistake is
# to take the newest row, or to keep versions above opset 24. Another road is
# `onnx.defs.get_all_schemas_with_history()`, which gives the same schemas.

# %% [markdown]
# ## 2.2 The lowest opset
#
# This model says that it needs a rather new opset. Does it?

# %%
cu.node_table(cu.given("2.2"))[["op", "inputs", "outputs"]]

# %%
onnx.load(cu.given("2.2")).opset_import[0].version

# %% [markdown]
# Each node uses a certain version of its operator. Find the **lowest** opset that could stand in the file without
# giving any node another version than it uses now. Write `work/2.2.json` with two keys:
#
# | key | value |
# |---|---|
# | `versions` | a dict: each operator of the model → the version of it that the model uses now |
# | `opset` | the lowest opset |
#
# > **Hint** `onnx.defs.get_schema(operator, opset).since_version` is the version that a model with this opset uses. It
# > is not the same as the opset that brought the operator.

# %%
# Task 2.2: find the lowest opset, and write the answer
model = onnx.load(cu.given("2.2"))
### BEGIN SOLUTION
stated = model.opset_import[0].version
used = {
    node.op_type: onnx.defs.get_schema(node.op_type, stated).since_version
    for node in model.graph.node
}
answer = {"versions": used, "opset": max(used.values())}
with open("work/2.2.json", "w") as file:
    json.dump(answer, file)
### END SOLUTION

# %%
cu.check("2.2", "work/2.2.json")

# %% [markdown] tags=["solution"]
# A model uses, for each operator, the newest version that is not newer than its opset. The lowest opset must reach all
# of these versions, so it is the largest of them. A typical mistake is to take the opset that brought each operator:
# most were changed later, and a lower opset would choose an older version. To see it, ask `get_schema` with your opset:
# each `since_version` must be the same as before.

# %% [markdown]
# ## 2.3 Convert, and prove it
#
# This model is old: its opset is 11. Its new home wants your own target opset.

# %%
cu.params("2.3")["target"]

# %%
cu.show(cu.given("2.3"), height=420)

# %% [markdown]
# Save the model in your target opset as `work/2.3.onnx`. It must compute the same as before, on any input: float32
# `[batch, 3, 4]`. Prove it to yourself with random inputs before you run the check.
#
# > **Hint** Changing the number alone is not enough. With some of these nodes you get an error, with another one you
# > get wrong numbers.

# %%
# Task 2.3: convert the model, compare the outputs, save it
model = onnx.load(cu.given("2.3"))
target = cu.params("2.3")["target"]
### BEGIN SOLUTION
converted = version_converter.convert_version(model, target)
x = np.random.default_rng(0).normal(size=(7, 3, 4)).astype(np.float32)
before, after = (
    ort.InferenceSession(
        m.SerializeToString(), providers=["CPUExecutionProvider"]
    ).run(None, {"x": x})[0]
    for m in (model, converted)
)
assert np.allclose(before, after, atol=1e-6)
onnx.save(converted, "work/2.3.onnx")
### END SOLUTION

# %%
cu.check("2.3", "work/2.3.onnx")

# %% [markdown] tags=["solution"]
# The converter rewrites each node whose definition changed. An attribute that became an input gives an error when only
# the number is raised. Softmax is worse: before opset 13 it takes all axes from `axis` on as one, and from 13 on a
# single axis, so a raised number gives wrong values and no error. Only a comparison of outputs shows it. By hand,
# Flatten and Reshape around Softmax keep its old meaning.

# %% [markdown]
# ## 2.4 Unsupported model IR version
#
# A colleague sends you a model. Nobody can load it:

# %%
try:
    ort.InferenceSession(cu.given("2.4"), providers=["CPUExecutionProvider"])
except Exception as error:
    print(str(error).strip().rpartition(") ")[2])

# %% [markdown]
# It shall run on a device. `device_ir` is the newest IR version which the device loads, `opset` is what the model uses:

# %%
{name: cu.params("2.4")[name] for name in ("device_ir", "opset")}

# %% [markdown]
# Save a repaired model as `work/2.4.onnx`:
#
# - The device loads it.
# - Its IR version is not older than the one that came with its opset. (A rule of good manners: a newer opset can use
#   types that an older file format does not have.)
# - Everything else stays: opset, nodes, weights, names.
#
# > **Hint** `onnx.helper.VERSION_TABLE` lists each release of `onnx` with its IR version and its opset.

# %%
# Task 2.4: heal the model and save it
p = cu.params("2.4")
model = onnx.load(cu.given("2.4"))
### BEGIN SOLUTION
model.ir_version = helper.OP_SET_ID_VERSION_MAP["ai.onnx", p["opset"]]
assert model.ir_version <= p["device_ir"]
onnx.save(model, "work/2.4.onnx")
### END SOLUTION

# %%
cu.check("2.4", "work/2.4.onnx")

# %% [markdown] tags=["solution"]
# The IR version says which file format is used, the opset which operators. Only the first one is too new here, so one
# field changes and the nodes stay. The IR version that came with the opset is the oldest allowed one, and the device
# loads it. Any version from there to `device_ir` is right, too. A typical mistake is to convert the opset: that changes
# what the model uses and leaves the error as it was.

# %% [markdown]
# ## 2.5 Name your domains
#
# The nodes of this model come from two domains, and the file has two faults. The page
# [domains and functions](../deeper/02_domains_and_functions.ipynb) helps with the first one.

# %%
cu.node_table(cu.given("2.5"))[["op", "inputs", "outputs"]]

# %%
try:
    onnx.checker.check_model(onnx.load(cu.given("2.5")))
except Exception as error:
    print(error)

# %% [markdown]
# That is the first fault. The second one: the file says opset 24, and the device on which it shall run loads only this
# opset of `ai.onnx`, or older ones:

# %%
cu.params("2.5")["device_opset"]

# %% [markdown]
# Save a repaired model as `work/2.5.onnx`. Name both domains, and choose an opset of `ai.onnx` that the device loads
# and in which no node gets another version than it has in opset 24. Nodes and weights stay as they are.
#
# > **Hint** You may change the number by hand when no operator of the model changed in between. Make sure of that
# > first. ONNX Runtime knows opset 1 of `com.microsoft`.

# %%
# Task 2.5: heal the model and save it
model = onnx.load(cu.given("2.5"))
device_opset = cu.params("2.5")["device_opset"]
### BEGIN SOLUTION
for node in model.graph.node:
    if node.domain == "":
        assert onnx.defs.get_schema(node.op_type, 24).since_version <= device_opset
model.opset_import[0].version = device_opset
model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
onnx.checker.check_model(model)
onnx.save(model, "work/2.5.onnx")
### END SOLUTION

# %%
cu.check("2.5", "work/2.5.onnx")

# %% [markdown] tags=["solution"]
# A node is looked up by its domain, its operator and the version that the file states for the domain, so each domain
# needs an entry. Lowering the number by hand is safe here because no standard operator got a new version in between;
# the assert proves it. A typical mistake is to lower it further, to an opset in which a node has an older version.
# Where a version differs, the nodes must be converted.

# %% [markdown]
# ## 2.6 Inputs for a gate
#
# Three tools have converted a model. Before a file goes out, a *gate* runs it beside the old one on a few inputs, and
# lets it pass if no number differs by more than 0.01. All three pass the gate of a colleague. All three are wrong, each
# on some inputs only.

# %%
old, right, *wrong, gate = cu.given("2.6")


def passes(path, inputs):
    pair = [
        ort.InferenceSession(file, providers=["CPUExecutionProvider"])
        for file in (old, path)
    ]
    for rows in inputs:
        feed = {name: np.array(values, np.float32) for name, values in rows.items()}
        try:
            want, got = (session.run(None, feed)[0] for session in pair)
        except Exception:
            return False
        if not np.allclose(got, want, atol=0.01, rtol=0):
            return False
    return True


{
    path.stem: passes(path, json.loads(gate.read_text())["inputs"])
    for path in [right, *wrong]
}

# %%
cu.node_table(old)[["op", "inputs", "outputs", "attributes"]]

# %% [markdown]
# Write a better gate, as `work/2.6.json`: a dict with the key `inputs`, as in the old gate. It is a list of **at most
# two** inputs with at most 60 numbers in all, and each input is a dict: the name of the model's input → its rows.
# `2.6_right.onnx` must pass, and each of the three others must be caught.
#
# > **Hint** `cu.node_table(wrong[0])` shows the nodes of the first wrong file.

# %%
# Task 2.6: choose the inputs, and write the gate
### BEGIN SOLUTION
stored = onnx.load(old).graph.initializer
value = {t.name: numpy_helper.to_array(t).ravel()[0] for t in stored}
columns = cu.params("2.6")["length"] + 2
read = np.ones((2, columns))
read[0, :5] = [0.5, 1.5, 2.5, -8, value["limit"] + 5]
read[1] = np.arange(columns) + 3
rows = value["offset"] + read / value["factor"]
inputs = [{cu.params("2.6")["input"]: rows.tolist()}]
print([passes(path, inputs) for path in [right, *wrong]])
Path("work/2.6.json").write_text(json.dumps({"inputs": inputs}))
### END SOLUTION

# %%
cu.check("2.6", "work/2.6.json")

# %% [markdown] tags=["solution"]
# An input finds a fault only if it makes the wrong node compute something else, and if the nodes behind let the
# difference through. So choose the numbers where the operator reads them, and go back to the input. Here one input has
# all: a negative number, one above the limit, both kinds of ties, two rows that are not alike, and another length.
#
# A typical mistake is many random numbers: they hardly ever hit a tie. Another one is to go to extremes: with millions,
# the right file differs by rounding, too, and is refused. Two small inputs, one for numbers and one for shapes, are
# another road.

# %% [markdown]
# ## Hand in
#
# This packs your answers into one file. It holds your answers, your id and your points, and no code.

# %%
if Path("work/answers").exists():
    cu.submit()
