# %% [markdown]
# # 02 · Opsets
#
# You export a model and send the file to a colleague. Her program refuses it: *Unsupported model IR version*, or an
# opset that it does not know. Somebody advises you to change one number in the file. Then it loads, and the results
# are wrong. In this lesson you learn what these numbers mean and which ones to choose.
#
# You need [lesson 01](01_graph_structure.ipynb).
#
# After this lesson you will be able to
#
# - read the history of any operator,
# - find out which versions your runtime loads,
# - see which opset an exporter really wrote,
# - choose an opset for the place where the model will run,
# - move a model to another opset, and prove that it still computes the same.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## Two numbers in every file
#
# We export our small network and do not say which opset we want. `cu.exporter_messages` collects what the exporter
# says on the way. We need that later.

# %%
import onnx
import torch

model, image = cu.fashion_resnet(), torch.randn(2, 1, 28, 28)
how = {"external_data": False, "verbose": False}

# %%
with cu.exporter_messages():
    torch.onnx.export(model, (image,), "work/02_default.onnx", **how)
default = onnx.load("work/02_default.onnx")
default.ir_version, default.opset_import[0].version

# %% [markdown]
# We did not name an opset, and yet the file has one. No model can do without these two numbers:
#
# - The [**IR version**](glossary.md#ir-version) says how the file is built: which fields a graph, a
#   [node](glossary.md#node) and a tensor have ([the standard](https://onnx.ai/onnx/repo-docs/IR.html)).
# - The [**opset**](glossary.md#opset) says which operators there are and what each of them means
#   ([its rules](https://onnx.ai/onnx/repo-docs/Versioning.html)).
#
# A node carries no version. The file names one opset for all nodes of a [domain](glossary.md#domain), and that decides
# what they mean. The package `onnx` holds all versions of all operators; `get_schema` looks one up.

# %% tags=["remove-input"]
cu.picture("opset_of_a_node")

# %%
in_17 = onnx.defs.get_schema("ReduceMean", 17)
in_18 = onnx.defs.get_schema("ReduceMean", 18)
assert "axes" in in_17.attributes and "axes" not in in_18.attributes
in_17.since_version, in_18.since_version

# %% [markdown]
# An operator keeps its version until it changes. In version 13, `axes` is an [attribute](glossary.md#attribute). In
# version 18, it is an input. So a node that is right in opset 17 can be wrong in opset 18.
#
# ## What a new opset brings
#
# A new opset comes with each new minor release of the package `onnx`. `cu.operator_history` puts all versions of all
# operators into one table.

# %% tags=["remove-input"]
cu.quiz("02_opsets", 1)

# %%
import matplotlib.pyplot as plt

history = cu.operator_history()
since = history[history["opset"] > 1]
later = since.groupby(["opset", "event"]).size().unstack(fill_value=0)
new, changed = later["new"].sum(), later["changed"].sum()
more_types = history["what"].str.fullmatch(r"(type \+ [\w()]+(, )?)+").sum()
assert changed > new and more_types > changed / 2
ax = later[["new", "changed", "withdrawn"]].plot.bar(stacked=True, width=0.8)
ax.set_title(f"For each new operator, opsets change {changed / new:.1f} old ones")
ax.set_ylabel("operators")
plt.show()

# %% [markdown]
# The first opset is left out, because it brought all its operators at once. Since then, changes outnumber additions.
# More than half of them only allow more data types. But some change what a node means, and those matter.

# %% tags=["hide-input"]
cu.claim(
    "opsets-add-and-change",
    {
        "every opset since the first one is in the table": list(later.index)
        == list(range(2, onnx.defs.onnx_opset_version() + 1)),
        "each of them brings or changes an operator": (
            later[["new", "changed"]].sum(axis=1) > 0
        ).all(),
        "some only change operators, some only bring new ones": later[
            ["new", "changed"]
        ]
        .eq(0)
        .any()
        .all(),
        "now and then an operator is withdrawn": later["withdrawn"].sum() > 0,
    },
)

# %% [markdown]
# ## One operator
#
# Choose an operator. The line starts with the opset that brought it; each large dot is a version. It opens on
# `Softmax`.

# %%
cu.opset_explorer()

# %% [markdown]
# `Softmax` has one input and one attribute in every version. A node of version 11 looks exactly like a node of version
# 13. Remember that: it becomes important below. Try `Upsample` and `Resize`, too: the second took the place of the
# first.
#
# ## What does your runtime load?
#
# ONNX Runtime has its own list of operators, built in. Your package `onnx` can be newer or older. We try a model with a
# single node, `Identity`, which every opset has. So only the two numbers decide: first an opset from the future, then an
# IR version from the future.


# %%
def identity(ir_version, opset):
    return onnx.parser.parse_model(f"""
        <ir_version: {ir_version}, opset_import: ["": {opset}]>
        tiny (float[1] x) => (float[1] y) {{ y = Identity(x) }}""")


# %% tags=["remove-input"]
cu.quiz("02_opsets", 2)

# %%
import onnxruntime as ort

cpu = ["CPUExecutionProvider"]
for tried in (identity(8, 99), identity(99, 17)):
    try:
        ort.InferenceSession(tried.SerializeToString(), providers=cpu)
    except Exception as error:
        print(str(error).strip().rpartition(") ")[2])

# %% [markdown]
# There are two different errors, and each names the highest number that is allowed. `cu.loads_in_this_runtime` tries
# every pair of numbers in the same way. Each dot is a release of `onnx`, with the pair that it writes by default.

# %%
loads = cu.loads_in_this_runtime()
newest = int(loads.columns[loads.any()].max())
newest_ir = int(loads.index[loads.any(axis=1)].max())
newest, newest_ir

# %%
_, ax = plt.subplots()
ax.pcolormesh(loads.columns, loads.index, loads, cmap="Blues", vmax=3)
releases = {(r[2], r[1]) for r in onnx.helper.VERSION_TABLE}
ax.scatter(*zip(*releases), color="#D55E00", s=18, label="a release of onnx")
ax.set_title(f"This runtime: opset {newest} and IR version {newest_ir} at most")
ax.set(xlabel="opset", ylabel="IR version")
ax.legend(loc="upper left")
plt.show()

# %% [markdown]
# ONNX Runtime loads every pair in the blue field. The two limits do not depend on each other. A dot outside means that
# this release of `onnx` writes files which your runtime refuses, unless you ask it for less. Each release of the
# runtime has its own limits ([table](https://onnxruntime.ai/docs/reference/compatibility.html)).
#
# A number that is allowed is not enough: the runtime also needs a [kernel](glossary.md#kernel) for this version of
# each operator. ONNX Runtime promises that from opset 7 on.
#
# ## What you ask for, and what you get
#
# Our test case enlarges a picture with bicubic interpolation. Opset 9 has no operator that can do this. We ask the
# older [exporter](glossary.md#exporter), `dynamo=False`, for opset 9. ([Lesson 03](03_tracing_vs_scripting.ipynb)
# introduces it.)

# %%
bicubic = torch.nn.Upsample(scale_factor=2, mode="bicubic").eval()
asked = {"dynamo": False, "opset_version": 9}
try:
    with cu.exporter_messages():
        torch.onnx.export(bicubic, (image,), "work/02_bicubic_9.onnx", **asked)
except torch.onnx.errors.UnsupportedOperatorError as error:
    refused = str(error)
print(refused)

# %% [markdown]
# An error, with good advice. Now the default exporter, with the same wish:

# %% tags=["remove-input"]
cu.quiz("02_opsets", 3)

# %%
file = "work/02_bicubic.onnx"
with cu.exporter_messages() as messages:
    torch.onnx.export(bicubic, (image,), file, opset_version=9, **how)
written = onnx.load(file).opset_import[0].version
print("asked for 9, written:", written)
print(messages[-1])

# %% [markdown]
# No error, and a file. But we asked for 9, and something else stands in it. The default exporter has building blocks
# for opset 18 and newer. Asked for less, it builds the graph in opset 18 and tries to convert it. Where that fails,
# it keeps 18 and prints a message. There is no exception, so a script goes on.

# %% tags=["hide-input"]
cu.claim(
    "old-opset-fails",
    {
        "the older exporter raises UnsupportedOperatorError": "opset version 9 is not"
        in refused,
        "the default exporter writes a file that gives PyTorch's numbers": cu.parity(
            bicubic, file, image
        ).within,
        "the file is not in the opset that we asked for": written != 9,
        "its Resize has a setting for bicubic, and opset 9 has no Resize": "cubic_coeff_a"
        in onnx.defs.get_schema("Resize", written).attributes
        and cu.operator_history("Resize")["opset"].min() > 9,
    },
)

# %% [markdown]
# ## Which opset should you choose?
#
# The report says two things: `opset_version` *must* be given, and 14 to 17 is the range to recommend. Our first file
# was made without a number. We make another one with the older exporter, and run both:

# %%
with cu.exporter_messages():
    torch.onnx.export(model, (image,), "work/02_older.onnx", dynamo=False)
older = cu.parity(model, "work/02_older.onnx", image)
cu.parity(model, default, image).within, older.within

# %% [markdown]
# Both files load here and give PyTorch's numbers. So a number need not be given. Now the range: we ask the default
# exporter for four opsets, for three layers.

# %%
layers = [torch.nn.ReLU(), torch.nn.GELU(), torch.nn.AdaptiveAvgPool2d(1)]
table, numbered = {}, "work/02_asked.onnx"
for layer in layers:
    for opset in (14, 17, 20, 26):
        with cu.exporter_messages():
            torch.onnx.export(layer, (image,), numbered, opset_version=opset, **how)
        got = onnx.load(numbered).opset_import[0].version
        table.setdefault(f"asked for {opset}", {})[type(layer).__name__] = got
assert set(table["asked for 20"].values()) == {20}
assert table["asked for 26"] == {"ReLU": 26, "GELU": 18, "AdaptiveAvgPool2d": 26}
table

# %% [markdown]
# What you get depends on the operators, below 18 and above: the exporter could not convert `GELU` to 26, and kept 18. So
# after an export, **read the opset from the file** and compare.
#
# A rule for today: keep what the exporter writes by itself, unless the model will run in an older runtime. Then ask
# for the newest opset which that runtime loads.

# %% tags=["hide-input"]
cu.claim(
    "opset-must-be-explicit",
    {
        "without opset_version, the default exporter writes a file that this runtime loads": cu.parity(
            model, default, image
        ).within,
        "so does the older exporter": older.within,
        "with it, the file can name another opset than the one given": written != 9,
    },
)

# %% tags=["hide-input"]
cu.claim(
    "opset-14-17-recommended",
    {
        "this runtime loads each of the opsets 14 to 17": loads.loc[8, 14:17].all(),
        "it loads newer ones as well": newest > 17
        and loads.loc[8, 18:newest].all(),
        "the default exporter builds its graphs in a newer one": written > 17,
        "asked for 14 or 17, it cannot always deliver": set(
            table["asked for 14"].values()
        )
        != {14}
        and set(table["asked for 17"].values()) != {17},
        "there is an upper end: the next opset is refused": not loads.loc[
            8, newest + 1
        ],
    },
)

# %% [markdown]
# ## Move a model to another opset
#
# What if you have only the file? [`onnx.version_converter`](https://onnx.ai/onnx/api/version_converter.html) rewrites
# the nodes. We give it a single `Softmax` in opset 11:

# %%
from onnx import version_converter

softmax = onnx.parser.parse_model("""<ir_version: 7, opset_import: ["": 11]>
    g (float[2, 3, 4] x) => (float[2, 3, 4] y) { y = Softmax <axis = 1> (x) }""")
converted = version_converter.convert_version(softmax, 13)
[node.op_type for node in converted.graph.node]

# %% [markdown]
# One node became four. Before opset 13, `Softmax` flattened its input to a matrix and normalised whole rows. From 13 on
# it normalises along a single axis. The converter has written down what was meant.
#
# Now somebody just changes the number:

# %%
renumbered = onnx.ModelProto.FromString(softmax.SerializeToString())
renumbered.opset_import[0].version = 13
onnx.checker.check_model(renumbered, full_check=True)

# %% [markdown]
# The checker accepts it. Does it compute the same?

# %% tags=["remove-input"]
cu.quiz("02_opsets", 4)


# %%
import numpy as np


def run(model, x):
    session = ort.InferenceSession(model.SerializeToString(), providers=cpu)
    return session.run(None, {"x": x})[0]


x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
right = np.abs(run(converted, x) - run(softmax, x)).max()
wrong = np.abs(run(renumbered, x) - run(softmax, x)).max()
assert right < 1e-6 and wrong > 0.01
print(f"converted: off by {right:.6f}. Renumbered: off by {wrong:.6f}")

# %% [markdown]
# The renumbered model loads, runs, and is wrong. Nothing warns you. With `ReduceSum` you would have been lucky: its
# attribute is unknown in opset 13, and the runtime complains.
#
# The converter itself is not free of errors. [Deeper: converting](deeper/02_converter.ipynb) shows when it works, one
# mistake of it, and why the way down mostly fails.

# %% [markdown]
# ## Recap
#
# - A file has an IR version (how it is built) and one opset for each domain (what its operators mean). The runtime has
#   a limit for each.
# - For each node, take the newest version of its operator that is not newer than the opset. That is its meaning.
# - Use the exporter's default opset, unless the model will run in an older runtime. Then use the newest opset which
#   that runtime loads.
# - After each export, read the opset from the file. The default exporter can write another one than you asked for.
# - Use the converter for a file that you cannot export again, unless you must go down. Compare the numbers afterwards.
# - Never change the number alone, unless no operator of the model changed in between.
#
# **Now you:** [exercises 02](exercises/02_opsets.ipynb). **Next:**
# [03 · Tracing versus scripting](03_tracing_vs_scripting.ipynb).
#
# **Deeper:** [old opsets](deeper/02_old_opsets.ipynb), [converting](deeper/02_converter.ipynb),
# [domains and functions](deeper/02_domains_and_functions.ipynb), [small types](deeper/02_small_types.ipynb).
