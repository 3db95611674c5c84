# %% [markdown]
# # 02 · Opsets
#
# An ONNX model is a text in a language, and the language has a dictionary. A new edition comes with each new minor
# release of the package `onnx`. The number of the edition is called the **opset**. A reader with an older dictionary
# does not know the newest words, and some old words have changed their meaning.
#
# After this lesson you will be able to
#
# - read the history of any operator,
# - find out which versions your runtime loads,
# - see which opset an exporter really wrote,
# - move a model to another opset, and prove that it still computes the same.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## Two numbers in every file
#
# We export our small network almost as in lesson 00 (the batch stays 2), and do not say which opset we want.
# `cu.exporter_messages` collects what the exporter says on the way. We need that later.

# %%
import onnx
import torch

model = cu.fashion_resnet()
image = torch.randn(2, 1, 28, 28)
names = {"input_names": ["image"], "output_names": ["logits"]}
with cu.exporter_messages():
    torch.onnx.export(
        model,
        (image,),
        "work/02_default.onnx",
        **names,
        external_data=False,
        verbose=False,
    )
default = onnx.load("work/02_default.onnx")
{
    "IR version": default.ir_version,
    "opset": {o.domain or "ai.onnx": o.version for o in default.opset_import},
}

# %% [markdown]
# - The [**IR version**](https://onnx.ai/onnx/repo-docs/IR.html) says how the file is built: which fields a graph, a
#   node and a tensor have. Think of the grammar.
# - The [**opset**](https://onnx.ai/onnx/repo-docs/Versioning.html) says which operators there are and what each of them
#   means. Think of the dictionary.
#
# A node does not carry a version. The model names one opset for each domain, and that decides the meaning of all nodes.
# We did not name an opset, and yet the file has one: no model can do without.
#
# ## How a node finds its meaning
#
# The package `onnx` contains all editions of the dictionary. `get_schema` looks up one operator as a certain opset
# sees it. We ask four opsets for `ReduceMean`, the average over some axes.

# %%
import pandas as pd

seen = {
    opset: onnx.defs.get_schema("ReduceMean", opset) for opset in (14, 17, 18, 20)
}
pd.DataFrame(
    {
        "version used": {o: s.since_version for o, s in seen.items()},
        "inputs": {o: ", ".join(i.name for i in s.inputs) for o, s in seen.items()},
        "attributes": {o: ", ".join(s.attributes) for o, s in seen.items()},
    }
).rename_axis("opset")

# %%
assert seen[14].since_version == seen[17].since_version == 13
assert "axes" in seen[17].attributes
assert "axes" in [i.name for i in seen[18].inputs]

# %% [markdown]
# An operator keeps its version until it changes. Opsets 14 and 17 both use version 13 of `ReduceMean`. Opset 18 has a
# new version: `axes` is no longer an attribute but an input. A node written for 17 is therefore wrong in 18.
#
# ## The whole history
#
# `cu.operator_history` puts all versions of all operators into one table.

# %% tags=["remove-input"]
cu.quiz("02_opsets", 1)

# %%
import matplotlib.pyplot as plt

history = cu.operator_history()
later = (
    history[history["opset"] > 1]
    .groupby(["opset", "event"])
    .size()
    .unstack(fill_value=0)
)
new, changed = later["new"].sum(), later["changed"].sum()
more_types = history["what"].str.fullmatch(r"(type \+ [\w()]+(, )?)+").sum()
assert changed > new
assert more_types > changed / 2
ax = later[["new", "changed", "withdrawn"]].plot.bar(stacked=True, width=0.8)
ax.set_title(f"For each new operator, opsets change {changed / new:.1f} old ones")
ax.set_ylabel("operators")
plt.show()

# %% [markdown]
# The first opset is left out: it brought all its operators at once. Since then, changes outnumber additions. More
# than half of them only allow more data types. But some change what a node means, and those matter.

# %%
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
# One operator in detail:

# %%
cu.operator_history("Softmax")[["opset", "event", "inputs", "attributes", "what"]]

# %% [markdown]
# `Softmax` looks the same in every opset: one input, one attribute. Keep it in mind. It has a surprise for us.
#
# ## The report's three dates
#
# The report says that opsets 7 to 9 cover convolutional networks, that opset 10 brought 8-bit integers, and that 13 to
# 17 brought audio and transformers. The history can tell. First, the operators of our network and its relatives:

# %%
first = history[history["event"] == "new"].set_index("operator")["opset"]
cnn = [
    "Conv",
    "BatchNormalization",
    "Relu",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "Add",
    "Concat",
    "Gemm",
]
cnn += ["ConvTranspose", "Flatten", "Dropout", "Softmax"]
first[cnn].reset_index().groupby("opset")["operator"].agg(", ".join).to_frame()

# %% [markdown]
# All of them are as old as ONNX itself. But does that help in practice? The older exporter, `dynamo=False`, still
# writes such old opsets. Lesson 03 introduces it properly.

# %%
gates = {}
for opset in (7, 9):
    file = f"work/02_cnn_{opset}.onnx"
    with cu.exporter_messages():
        torch.onnx.export(
            model, (image,), file, **names, dynamo=False, opset_version=opset
        )
    assert onnx.load(file).opset_import[0].version == opset
    gates[opset] = cu.parity(model, file, image)

# %%
cu.claim(
    "opset-history-cnn",
    {
        "every operator of our list exists in opset 7": (first[cnn] <= 7).all(),
        "our network, written in opset 7 and 9, gives PyTorch's numbers": all(
            g.within for g in gates.values()
        ),
        "none of the operators was new in opsets 7 to 9": not first[cnn]
        .between(7, 9)
        .any(),
        "but some were changed there": (
            history["operator"].isin(cnn) & history["opset"].between(7, 9)
        ).any(),
    },
)

# %% [markdown]
# Next, 8-bit integers. The names of the operators tell what they are for:

# %%
integer = first[first.index.str.contains("(?i)quantize|qlinear|integer")]
integer.reset_index().groupby("opset")["operator"].agg(", ".join).to_frame()


# %% [markdown]
# To be sure, we write a model that turns numbers into 8-bit integers and back, and ask two dictionaries about it.


# %%
def quantizer(opset):
    return onnx.parser.parse_model(f"""<ir_version: 5, opset_import: ["": {opset}]>
        g (float[4] x) => (float[4] y) <float s = {{0.5}}, int8 zero = {{0}}>
        {{ q = QuantizeLinear(x, s, zero)
           y = DequantizeLinear(q, s, zero) }}""")


def complaint(model):
    """The first line of what onnx.checker says, or None."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        return str(error).strip().splitlines()[0]


pd.Series(
    {o: complaint(quantizer(o)) or "accepted" for o in (9, 10)}, name="onnx.checker"
).to_frame()

# %%
cu.claim(
    "opset-history-int8",
    {
        "all operators for 8-bit integers came with opset 10 or later": integer.min()
        == 10,
        "opset 9 does not know QuantizeLinear": "No Op registered"
        in (complaint(quantizer(9)) or ""),
        "opset 10 does": complaint(quantizer(10)) is None,
    },
)

# %% [markdown]
# Last, audio and transformers. What did each opset from 13 on bring?

# %% tags=["remove-input"]
cu.quiz("02_opsets", 2)

# %%
brought = {
    opset: ", ".join(first[first == opset].index) or "nothing new"
    for opset in range(13, 25)
}
pd.Series(brought, name="new operators").rename_axis("opset").to_frame()

# %%
audio = [
    "DFT",
    "STFT",
    "HannWindow",
    "HammingWindow",
    "BlackmanWindow",
    "MelWeightMatrix",
]
cu.claim(
    "opset-history-audio",
    {
        "opset 13 brought no operator at all": not (first == 13).any(),
        "all operators for audio came with opset 17": (first[audio] == 17).all(),
        "so did LayerNormalization, which many transformers use": first[
            "LayerNormalization"
        ]
        == 17,
        "other operators of transformers came later": (
            first[["Gelu", "Attention", "RMSNormalization"]] > 17
        ).all(),
    },
)

# %% [markdown]
# ## What does your runtime load?
#
# ONNX Runtime has a dictionary of its own, built in. Your package `onnx` can be newer or older.

# %% tags=["remove-input"]
cu.quiz("02_opsets", 3)


# %% [markdown]
# We do not look it up, we try. This model has a single node, `Identity`, which every opset has. So only the two numbers
# decide whether it loads: first a harmless pair, then an IR version from the future, then an opset from the future.


# %%
import re

import onnxruntime as ort
from onnx import TensorProto, helper

quiet = ort.SessionOptions()
quiet.log_severity_level = 3  # errors only


def tiny(ir_version, opset, op="Identity", domain=""):
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"
    )
    graph = helper.make_graph(
        [helper.make_node(op, ["x"], ["y"], domain=domain)], "tiny", [x], [y]
    )
    return helper.make_model(
        graph,
        ir_version=ir_version,
        opset_imports=[helper.make_opsetid(domain, opset)],
    )


# %%
def refusal(model):
    """What ONNX Runtime says when it does not load the model, or None."""
    try:
        ort.InferenceSession(
            model.SerializeToString(), quiet, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        return re.sub(
            r"\S+\.(cc|h):\d+ .*\) ", "", str(error).strip()
        )  # without its source line


answers = {
    pair: refusal(tiny(*pair)) or "loads" for pair in [(8, 17), (99, 17), (8, 99)]
}
pd.Series(answers, name="ONNX Runtime").rename_axis(
    ["IR version", "opset"]
).to_frame()

# %%
assert answers[8, 17] == "loads"
assert "Unsupported model IR version: 99" in answers[99, 17]
assert "till opset" in answers[8, 99]

# %% [markdown]
# Two different errors, and each names the highest number that is allowed. `cu.loads_in_this_runtime` tries every pair
# of numbers in the same way. Each dot is a release of `onnx`: the pair of numbers that it writes by default.

# %%
loads = cu.loads_in_this_runtime()
newest = int(loads.columns[loads.any()].max())
newest_ir = int(loads.index[loads.any(axis=1)].max())
_, ax = plt.subplots()
ax.pcolormesh(loads.columns, loads.index, loads, cmap="Blues", vmax=3)
ax.scatter(
    *zip(*{(r[2], r[1]) for r in helper.VERSION_TABLE}),
    color="#D55E00",
    s=18,
    label="a release of onnx",
)
ax.set_title(
    f"ONNX Runtime {ort.__version__} loads opset {newest} and IR version {newest_ir} at most"
)
ax.set_xlabel("opset")
ax.set_ylabel("IR version")
ax.legend(loc="upper left")
plt.show()

# %% [markdown]
# ONNX Runtime loads every pair in the blue field. The two limits do not depend on each other: a new opset in an old IR
# version loads. (Its newest data types may need a newer one.) A dot outside means that this release of `onnx` writes
# files which your runtime refuses, unless you ask it for less.
# Its documentation has [a table](https://onnxruntime.ai/docs/reference/compatibility.html) for each release.
#
# Inside the blue field there is a second question: does the runtime have a *program* for this version of the operator?
# ONNX Runtime promises that from opset 7 on. Below, it depends:

# %%
old_relu = {
    opset: refusal(tiny(8, opset, "Relu")) or "loads" for opset in (5, 6, 7)
}
assert old_relu[7] == "loads"
pd.Series(old_relu, name="a model with Relu").rename_axis("opset").to_frame()

# %% [markdown]
# ## What you ask for, and what you get
#
# Now to the exporter. Our test case turns each picture a little, with `grid_sample`. The operator for it came late.


# %%
class Turn(torch.nn.Module):
    """Turn pictures by a fixed angle: float32 [2, 1, 28, 28] → the same shape."""

    def __init__(self):
        super().__init__()
        matrix = torch.tensor([[[0.9, -0.4, 0.0], [0.4, 0.9, 0.0]]] * 2)
        self.register_buffer(
            "grid",
            torch.nn.functional.affine_grid(
                matrix, [2, 1, 28, 28], align_corners=False
            ),
        )

    def forward(self, x):
        return torch.nn.functional.grid_sample(x, self.grid, align_corners=False)


{"GridSample came with opset": int(first["GridSample"])}

# %% [markdown]
# We ask both exporters for opset 9, which does not have this operator. What do you expect?

# %% tags=["remove-input"]
cu.quiz("02_opsets", 4)


# %%
def written(module, file, opset, **how):
    """Export, and return the opset that stands in the file, or the error."""
    with cu.exporter_messages():
        try:
            torch.onnx.export(module, (image,), file, opset_version=opset, **how)
        except Exception as error:
            return error
    return onnx.load(file).opset_import[0].version


turn = Turn().eval()
old = written(turn, "work/02_turn_old.onnx", 9, dynamo=False)
print(f"{type(old).__name__}: {old}")

# %% [markdown]
# The older exporter, `dynamo=False`, raises an error with good advice. Now the default one, with what it says:

# %%
with cu.exporter_messages() as messages:
    torch.onnx.export(
        turn,
        (image,),
        "work/02_turn.onnx",
        opset_version=9,
        external_data=False,
        verbose=False,
    )
turned = onnx.load("work/02_turn.onnx")
own = turned.opset_import[0].version
print("written:", own)
pd.Series(messages, name="the exporter's log").to_frame()

# %% [markdown]
# No error, and a file. But we asked for 9, and something else stands in it. The default exporter has building blocks
# for opset 18 and newer. Asked for less, it builds the graph in opset 18 and then tries to convert it. Where that
# fails, it keeps 18, and says so in the log. A program that runs by itself reads no log. (Not asked at all, it took 20
# in our first file.)

# %%
cu.claim(
    "old-opset-fails",
    {
        "the older exporter raises UnsupportedOperatorError": type(old).__name__
        == "UnsupportedOperatorError",
        "the default exporter writes a file that gives PyTorch's numbers": cu.parity(
            turn, turned, image
        ).within,
        "the file is not in the opset that we asked for": own != 9,
        "it is in one that has the operator": own >= first["GridSample"],
    },
)

# %% [markdown]
# The report's own example is *some kinds of interpolation*. We enlarge a picture in three ways, in opset 9.


# %%
class Apply(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


F = torch.nn.functional
rows = {}
for mode in ("nearest", "bilinear", "bicubic"):
    enlarge = Apply(
        lambda x, mode=mode: F.interpolate(x, scale_factor=2.0, mode=mode)
    ).eval()
    for exporter, options in {
        "older": {"dynamo": False},
        "default": {"external_data": False, "verbose": False},
    }.items():
        opset = written(enlarge, "work/02_enlarged.onnx", 9, **options)
        right = (
            isinstance(opset, int)
            and cu.parity(enlarge, "work/02_enlarged.onnx", image).within
        )
        rows[mode, exporter] = {
            "opset written": opset
            if isinstance(opset, int)
            else type(opset).__name__,
            "right": right,
        }
enlarged = pd.DataFrame(rows).T
enlarged

# %%
bilinear = Apply(
    lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear")
).eval()
eleven = written(bilinear, "work/02_enlarged.onnx", 11, dynamo=False)
resize_is_right = (
    eleven == 11 and cu.parity(bilinear, "work/02_enlarged.onnx", image).within
)
cu.claim(
    "interpolation-in-old-opset",
    {
        "bicubic is refused by the older exporter": enlarged.loc[
            ("bicubic", "older"), "opset written"
        ]
        == "UnsupportedOperatorError",
        "nearest is in opset 9, and right": list(enlarged.loc[("nearest", "older")])
        == [9, True],
        "bilinear is in opset 9, and its numbers are wrong": list(
            enlarged.loc[("bilinear", "older")]
        )
        == [9, False],
        "in opset 11, where an attribute says how the points lie, it is right": resize_is_right
        and "coordinate_transformation_mode"
        in onnx.defs.get_schema("Resize", 11).attributes
        and "coordinate_transformation_mode"
        not in onnx.defs.get_schema("Upsample", 9).attributes,
        "the default exporter writes all three in a newer opset, and right": (
            (enlarged.xs("default", level=1)["opset written"] > 9)
            & enlarged.xs("default", level=1)["right"]
        ).all(),
    },
)

# %% [markdown]
# The error is the harmless case: the bilinear file is written without an error, and its numbers are wrong. The operator
# of opset 9, `Upsample`, cannot say where the points of the picture lie. `Resize` of opset 11 can.
#
# How often do you get another opset than you asked for? We try three, for three tiny networks.

# %%
cases = {
    "ReLU": Apply(F.relu),
    "LayerNorm": Apply(lambda x: F.layer_norm(x, (28,))),
    "average": Apply(lambda x: x.mean((2, 3))),
}

# %%
how = {"external_data": False, "verbose": False}
table = pd.DataFrame(index=pd.Index([14, 17, 20], name="asked for"))
for name, case in cases.items():
    table[name] = [
        written(case.eval(), "work/02_asked.onnx", opset, **how)
        for opset in table.index
    ]
assert (table.loc[20] == 20).all()
table

# %% [markdown]
# From 18 on you get what you ask for, as far as the installed packages know it. Below, it depends on the operators.
# There is only one safe habit: after an export, **read the opset from the file** and compare.
#
# The report says that `opset_version` *must* be given. Our first file of this lesson was made without. We make another
# one with the older exporter.

# %%
with cu.exporter_messages():
    torch.onnx.export(model, (image,), "work/02_default_old.onnx", dynamo=False)
default_old = onnx.load("work/02_default_old.onnx")

# %%
cu.claim(
    "opset-must-be-explicit",
    {
        "without opset_version, the default exporter writes a file that this runtime loads": refusal(
            default
        )
        is None,
        "so does the older exporter": refusal(default_old) is None,
        "with it, the file can name another opset than the one given": own != 9,
    },
)

# %% [markdown]
# And is 14 to 17 still the range to recommend?

# %%
cu.claim(
    "opset-14-17-recommended",
    {
        "this runtime loads each of the opsets 14 to 17": loads.loc[8, 14:17].all(),
        "it loads newer ones as well": newest > 17
        and loads.loc[8, 18:newest].all(),
        "the default exporter builds its graphs in a newer one": own > 17,
        "asked for 14 or 17, it cannot always deliver": (table.loc[14] != 14).any()
        and (table.loc[17] != 17).any(),
        "there is an upper end: the next opset is refused": refusal(
            tiny(8, newest + 1)
        )
        is not None,
    },
)

# %% [markdown]
# A rule for today: keep what the exporter writes by itself, unless the place where the model will run has an older
# runtime. Then ask for the newest opset which that runtime loads.
#
# ## Move a model to another opset
#
# What if you have only the file? [`onnx.version_converter`](https://onnx.ai/onnx/api/version_converter.html) rewrites
# the nodes. We give it a small model in opset 11: a sum, a difference, and a softmax.

# %%
from onnx import version_converter

eleven = onnx.parser.parse_model("""<ir_version: 7, opset_import: ["": 11]>
    g (float[2, 3, 4] x) => (float[2, 3, 4] y)
    { total = ReduceSum <axes = [2], keepdims = 1> (x)
      centred = Sub(x, total)
      y = Softmax <axis = 1> (centred) }""")
thirteen = version_converter.convert_version(eleven, 13)
cu.node_table(thirteen)[["op", "inputs", "outputs", "attributes"]]

# %% [markdown]
# `ReduceSum` takes its axes from a `Constant` now. `Softmax` has got company: `Flatten` before it and `Reshape` after.
# Why? Before opset 13, `Softmax` flattened its input to a matrix and normalised whole rows. From 13 on it normalises
# along a single axis. The converter has written down what was meant. What if somebody just changes the number?

# %% tags=["remove-input"]
cu.quiz("02_opsets", 5)

# %%
import numpy as np


def run(model, x):
    """Run a model with the usual settings: a warning would be shown."""
    session = ort.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def renumbered(model, opset):
    """A copy with another opset number. Its nodes stay as they are."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    copy.opset_import[0].version = opset
    return copy


# %%
x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
softmax = onnx.parser.parse_model("""<ir_version: 7, opset_import: ["": 11]>
    g (float[2, 3, 4] x) => (float[2, 3, 4] y) { y = Softmax <axis = 1> (x) }""")
moved = {
    "converted to 13": version_converter.convert_version(softmax, 13),
    "renumbered to 13": renumbered(softmax, 13),
}
delta = {
    name: float(np.abs(run(new, x) - run(softmax, x)).max())
    for name, new in moved.items()
}
assert delta["converted to 13"] < 1e-6
assert delta["renumbered to 13"] > 0.01
pd.Series(delta, name="largest difference from opset 11").to_frame()

# %% [markdown]
# The renumbered model loads, runs, and is wrong. Nothing warns you. With `ReduceSum` you would have been lucky: there,
# the runtime complains.

# %%
print(refusal(renumbered(eleven, 13)))

# %% [markdown]
# ## Up: well, but compare
#
# Our network, from opset 9 upwards. We compare with PyTorch each time, and look at what changed in the file.

# %%
nine = onnx.load("work/02_cnn_9.onnx")
up = {}
for opset in (14, 17, 21, 23):
    onnx.save(
        version_converter.convert_version(nine, opset), f"work/02_up_{opset}.onnx"
    )
    up[opset] = cu.parity(model, f"work/02_up_{opset}.onnx", image)
pd.Series(
    {opset: str(gate) for opset, gate in up.items()}, name="parity"
).rename_axis("from 9 to").to_frame()

# %%
difference = cu.graph_diff(nine, "work/02_up_23.onnx")
assert list(difference.index) == ["opset ai.onnx"]
assert list(nine.graph.node) == list(onnx.load("work/02_up_23.onnx").graph.node)
difference

# %% [markdown]
# Only the opset differs: for this network no node had to change, and the converter leaves the IR version alone. Is a
# comparison a waste of time, then? Here is `Hardmax`, which had the same change of meaning as `Softmax`.

# %%
hardmax = onnx.parser.parse_model("""<ir_version: 7, opset_import: ["": 12]>
    g (float[2, 3, 4] x) => (float[2, 3, 4] y) { y = Hardmax <axis = 1> (x) }""")
converted = version_converter.convert_version(hardmax, 13)
hardmax_delta = float(np.abs(run(converted, x) - run(hardmax, x)).max())
{
    "onnx.checker": complaint(converted) or "accepted",
    "largest difference": hardmax_delta,
}

# %% [markdown]
# The difference should be zero. This is a mistake of the converter: it renumbered `Hardmax` and forgot that its meaning
# had changed. The checker cannot see that. A comparison of numbers can.
#
# ## Down: rarely
#
# We take the network in opset 14 down to 13, and the file of the default exporter down to 17 and to 13.

# %%
down = {}
for file, opset in [
    ("02_up_14.onnx", 13),
    ("02_default.onnx", 17),
    ("02_default.onnx", 13),
]:
    try:
        result = version_converter.convert_version(onnx.load(f"work/{file}"), opset)
        down[file, opset] = complaint(result) or refusal(result) or "converted"
    except RuntimeError as error:
        down[file, opset] = str(error).rpartition("failed: ")[2]
assert refusal(version_converter.convert_version(default, 17)) is not None
pd.Series(down, name="what happened").rename_axis(["file", "to opset"]).to_frame()

# %% [markdown]
# *No adapter* means: nobody has written the rule that leads back. The line for opset 17 is worse. The converter
# returned a model and no error, but the model is broken: `ReduceMean` kept an attribute that opset 17 does not have.
# The checker objects, and ONNX Runtime would refuse it, too. That is
# also why the exporter could not give us the average in opset 17 above.

# %%
cu.claim(
    "opset-converter",
    {
        "upwards, from 9 to 14, 17, 21 and 23, the network gives PyTorch's numbers": all(
            g.within for g in up.values()
        ),
        "nodes are rewritten where their form changed": "Reshape"
        in cu.op_histogram(thirteen),
        "there, the result is the same": np.allclose(
            run(thirteen, x), run(eleven, x), atol=1e-6
        ),
        "it is not the same for Hardmax, and nothing says so": complaint(converted)
        is None
        and hardmax_delta > 0.5,
        "downwards, from 14 to 13, there is no adapter": "No Adapter"
        in down["02_up_14.onnx", 13],
        "none of the three attempts to go down gave a sound model": "converted"
        not in down.values(),
    },
)

# %% [markdown]
# To get a lower opset, export again with `dynamo=False` and the opset you need, or change the network.
#
# ## Other dictionaries
#
# `ai.onnx` is one domain among several. A model names an opset for **each** domain that its nodes use
# ([all operators of the standard](https://onnx.ai/onnx/operators/), [those of ONNX
# Runtime](https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md)):
#
# | domain | what it holds | whose |
# |---|---|---|
# | `ai.onnx`, or empty | neural networks, tensors | the standard |
# | `ai.onnx.ml` | trees, scalers, text encoders | the standard |
# | `com.microsoft` | faster and fused operators | ONNX Runtime only |
# | your own | what you like | you |
#
# Trees come from other frameworks. The report says that a model of *any supported framework* can be written as ONNX. We
# try a forest of [scikit-learn](https://scikit-learn.org/stable/), through its converter
# [skl2onnx](https://onnx.ai/sklearn-onnx/). Where that package is not installed, the claim says so.

# %%
import importlib.util

evidence = {
    "skl2onnx is installed": importlib.util.find_spec("skl2onnx") is not None
}
if evidence["skl2onnx is installed"]:
    from skl2onnx import to_onnx
    from sklearn.ensemble import RandomForestClassifier

    pictures, labels = cu.fashion_mnist("test")
    flat = cu.normalize(pictures[:3000]).reshape(3000, -1)
    forest = RandomForestClassifier(20, max_depth=8, random_state=0).fit(
        flat[:2000], labels[:2000]
    )
    trees = to_onnx(forest, flat[:1], options={"zipmap": False})
    same = (run(trees, flat[2000:]) == forest.predict(flat[2000:])).mean()
    evidence["the forest is one node, of the domain ai.onnx.ml"] = [
        n.domain for n in trees.graph.node
    ] == ["ai.onnx.ml"]
    evidence[
        "ONNX Runtime names the same classes, of 1000 pictures all but ten at most"
    ] = same > 0.99

# %%
if evidence["skl2onnx is installed"]:

    class OurForest(RandomForestClassifier):
        """The same forest, but the converter does not know this class."""

    try:
        refused = to_onnx(OurForest(2).fit(flat[:100], labels[:100]), flat[:1])
    except Exception as error:
        refused = type(error).__name__
    evidence["the converter refuses a class that it does not know"] = (
        refused == "MissingShapeCalculator"
    )

cu.claim("any-framework-exports", evidence)

# %% [markdown]
# PyTorch has its exporter built in; other frameworks have a package of their own, and each knows a list of operators or
# classes. Now a node from `com.microsoft`, first in a model that does not name this domain, then in one that does.

# %%
unnamed = tiny(8, 17, "QuickGelu")
unnamed.graph.node[0].domain = "com.microsoft"
named = onnx.ModelProto.FromString(unnamed.SerializeToString())
named.opset_import.append(helper.make_opsetid("com.microsoft", 1))
pd.DataFrame(
    [[complaint(m) or "accepted", refusal(m) or "loads"] for m in (unnamed, named)],
    index=["domain not named", "domain named"],
    columns=["onnx.checker", "ONNX Runtime"],
)

# %% [markdown]
# The checker insists on the name of the domain. ONNX Runtime is generous here; another program may not be. So name it.
#
# Your own domain needs no program in C++, as long as you can say your operator in standard ones: the model carries a
# **function** (lesson 01). ONNX Runtime puts its body in place of the node. But be careful with the converter, once
# more:

# %%
own_word = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 17, "school": 1]>
    g (float[2, 3, 4] x) => (float[2, 3, 4] y) { y = school.Swish(x) }
    <domain: "school", opset_import: ["": 17]>
    Swish (a) => (b) { s = Sigmoid(a)   b = Mul(a, s) }""")
assert complaint(own_word) is None
assert np.allclose(run(own_word, x), x / (1 + np.exp(-x)), atol=1e-6)
later_word = version_converter.convert_version(own_word, 21)
print(
    "functions:",
    len(own_word.functions),
    "before,",
    len(later_word.functions),
    "after",
)
print(refusal(later_word))
assert not later_word.functions

# %% [markdown]
# The converter has dropped the function and kept the node that needs it. After every conversion: run the checker, load
# the model, and compare the numbers.
#
# ## Play
#
# Choose an operator. The line starts where it came into the dictionary; each large dot is a version. Try `Upsample`,
# `Resize`, `QuantizeLinear`. Find three operators that have never changed.

# %%
cu.opset_explorer()

# %% [markdown]
# ## Recap
#
# - A file has an IR version (grammar) and one opset for each domain (dictionary). The runtime has a limit for each.
# - For each node, take the newest version of its operator that is not newer than the opset: that is its meaning.
# - The default exporter can return without an error and write another opset than you asked for: read it from the file.
# - Never change the number alone, unless no operator of the model changed in between. `Softmax` would run, and compute
#   something else.
# - The version converter goes up well and down rarely. After it: checker, runtime, parity.
# - Name every domain that your nodes use.
#
# **Next:** the [exercises of this lesson](exercises/02_opsets.ipynb). After them, `03_tracing_vs_scripting` asks how
# the exporter sees your Python code at all.
