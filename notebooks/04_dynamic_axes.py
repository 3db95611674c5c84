# %% [markdown]
# # 04 · Dynamic axes
#
# An exporter looks at one example. Unless you say otherwise, it writes every number of the example's shape into the
# file as a fixed size. This lesson is about the argument that makes a dimension free, and about finding out whether it
# really became free.
#
# After this lesson you will be able to
#
# - export models that take any batch, any picture size, any length of text,
# - tie dimensions together, bound them, and freeze them again,
# - find a dimension that the exporter fixed against your wish, and the line of code that made it do so,
# - say what free dimensions cost.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## Frozen
#
# Our network, exported with one picture as the example, as many people do it first. We ask the session what it takes.

# %%
import numpy as np
import onnxruntime as ort
import torch

fashion_resnet = cu.fashion_resnet()
names = {"input_names": ["image"], "output_names": ["logits"]}
how = {"external_data": False, "verbose": False}
with cu.exporter_messages():
    torch.onnx.export(
        fashion_resnet,
        (torch.randn(1, 1, 28, 28),),
        "work/04_frozen.onnx",
        **names,
        **how,
    )


# %%
def session_of(file):
    options = ort.SessionOptions()
    options.log_severity_level = (
        4  # errors come back as exceptions; no need to log them, too
    )
    return ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])


frozen = session_of("work/04_frozen.onnx")
{value.name: value.shape for value in [*frozen.get_inputs(), *frozen.get_outputs()]}

# %% [markdown]
# Four numbers. PyTorch takes any value for the first one. What happens if we feed four pictures?

# %% tags=["remove-input"]
cu.quiz("04_dynamic_axes", 1)


# %%
import re


def words(session, *arrays):
    """What ONNX Runtime says to these inputs: an error, or None."""
    try:
        session.run(None, {i.name: a for i, a in zip(session.get_inputs(), arrays)})
    except Exception as error:
        return re.sub(
            r"/\S*onnxruntime_src\S* ", "", str(error)
        ).strip()  # without the file of its source code


def zeros(*shape):
    return np.zeros(shape, dtype=np.float32)


print(words(frozen, zeros(4, 1, 28, 28)))

# %% [markdown]
# This is one of the most common errors with ONNX models. It says *which input*, *which axis* (`index: 0` is the first),
# what came, and what the file demands. A wrong number of axes has its own error:

# %%
print(words(frozen, zeros(28, 28)))

# %% [markdown]
# Note *when* the errors come: not when the file is written, and not when it is loaded, but when the first real batch
# arrives. Often that is on another machine. Does the older exporter,
# `dynamo=False`, also fix the batch?

# %%
with cu.exporter_messages():
    torch.onnx.export(
        fashion_resnet,
        (torch.randn(1, 1, 28, 28),),
        "work/04_frozen_old.onnx",
        **names,
        dynamo=False,
    )
frozen_old = session_of("work/04_frozen_old.onnx")

# %%
four = zeros(4, 1, 28, 28)
cu.claim(
    "fixed-batch-by-default",
    {
        "one picture runs": words(frozen, four[:1]) is None,
        "four pictures are an error": "Got: 4 Expected: 1"
        in (words(frozen, four) or ""),
        "the same with the older exporter": "Got: 4 Expected: 1"
        in (words(frozen_old, four) or ""),
        "PyTorch takes them": fashion_resnet(torch.from_numpy(four)).shape
        == (4, 10),
        "height and width are frozen, too": "Got: 32 Expected: 28"
        in (words(frozen, zeros(1, 1, 32, 28)) or ""),
    },
)

# %% [markdown]
# The course's own helpers say it in one sentence. `cu.run_in_batches` feeds many examples in portions:

# %%
images, labels = cu.fashion_mnist("test")
try:
    cu.run_in_batches(frozen, {"image": cu.normalize(images[:10])})
except cu.CourseError as error:
    print(error)

# %% [markdown]
# ## The report's listing
#
# The report's cure is the argument `dynamic_axes`. Here is its listing as it is printed there; only the file lies in
# our folder. `model` is a ResNet-18. The exporter prints its steps; we hide them, and keep the warnings for below.

# %%
import contextlib
import io
import warnings

model = cu.resnet18()
dummy_input = torch.randn(1, 3, 224, 224)

with (
    warnings.catch_warnings(record=True) as said,
    contextlib.redirect_stdout(io.StringIO()),
):
    warnings.simplefilter("always")
    dynamic_axes_config = {
        "input_image": {0: "batch_size"},
        "classification_scores": {0: "batch_size"},
    }

    torch.onnx.export(
        model,
        dummy_input,
        "work/04_resnet_dynamic.onnx",
        input_names=["input_image"],
        output_names=["classification_scores"],
        dynamic_axes=dynamic_axes_config,
    )

# %%
from pathlib import Path

import pandas as pd

pd.set_option("display.max_colwidth", None)  # show sentences in full
said = [
    (w.category.__name__, str(w.message))
    for w in said
    if "dynamic_axes" in str(w.message)
]
files = sorted(Path("work").glob("04_resnet_dynamic.onnx*"))
print(
    *(f"{file.name}: {file.stat().st_size / 1e6:.1f} MB" for file in files),
    sep="\n",
)
print(written := cu.written_shapes("work/04_resnet_dynamic.onnx"))
pd.DataFrame(said, columns=["kind", "message"])

# %% [markdown]
# It works, with two messages and two files. Python hides a `DeprecationWarning` from inside a library, so without our
# recording you would see only the first. The files belong together (lesson 01).

# %%
gates = [cu.parity(model, files[0], torch.randn(n, 3, 224, 224)) for n in (1, 3)]
cu.claim(
    "report-dynamic-listing",
    {
        "one image and three give PyTorch's numbers": all(
            gate.within for gate in gates
        ),
        "the labels stand at their axes": written
        == {
            "input_image": "['batch_size', 3, 224, 224]",
            "classification_scores": "['batch_size', 1000]",
        },
        "one message recommends dynamic_shapes": said[0][0] == "UserWarning"
        and "dynamic_shapes" in said[0][1],
        "the other says that dynamic_axes will go, and is of a kind that Python hides": said[
            1
        ][0]
        == "DeprecationWarning",
        "the weights lie in a second file": [f.suffix for f in files]
        == [".onnx", ".data"],
    },
)

# %% [markdown]
# ## `dynamic_shapes`
#
# The report describes the argument in its table 1. This is that table for today; the right column is the argument that
# [the default exporter](https://docs.pytorch.org/docs/stable/onnx_export.html) recommends.
#
# | | `dynamic_axes` | `dynamic_shapes` |
# |---|---|---|
# | key | the name of an input or output, from `input_names` or `output_names` | an argument of `forward`, by position or by name; inputs only |
# | value | a dict: number of the axis → a label | the same dict; in place of a label also a `Dim` |
# | result | the label in place of the number, for any size | the same |
# | a misspelled key | the older exporter (`dynamo=False`) writes a frozen file, the default one raises an error | an error |
#
# We try it. First, three axes at once by `dynamic_shapes`:

# %%
pair = torch.randn(2, 1, 28, 28)
three = {0: "batch", 2: "height", 3: "width"}
with cu.exporter_messages():
    torch.onnx.export(
        fashion_resnet,
        (pair,),
        "work/04_free.onnx",
        **names,
        **how,
        dynamic_shapes=(three,),
    )
cu.written_shapes("work/04_free.onnx")

# %% [markdown]
# Now the same wish in other ways, and with a misspelled key, on a network of three layers:


# %%
class Small(torch.nn.Module):
    """Pictures float32 [batch, 1, height, width] → ten numbers each."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = torch.nn.Conv2d(1, 4, 3), torch.nn.Linear(4, 10)

    def forward(self, x):
        return self.head(self.conv(x).relu().mean((2, 3)))


small, old = Small().eval(), {"dynamo": False}
tries = {
    "older exporter, dynamic_axes": {
        **old,
        "dynamic_axes": {"image": three, "logits": {0: "batch"}},
    },
    "default, dynamic_axes": {
        **how,
        "dynamic_axes": {"image": three, "logits": {0: "batch"}},
    },
    "default, dynamic_shapes by name": {**how, "dynamic_shapes": {"x": three}},
    "older exporter, a misspelled key": {**old, "dynamic_axes": {"picture": three}},
    "default, a misspelled key": {**how, "dynamic_axes": {"picture": three}},
    "dynamic_shapes, a misspelled key": {
        **how,
        "dynamic_shapes": {"picture": three},
    },
}
outcome = {}
for title, options in tries.items():
    with cu.exporter_messages():
        try:
            torch.onnx.export(
                small, (pair,), "work/04_tried.onnx", **names, **options
            )
            outcome[title] = cu.written_shapes("work/04_tried.onnx")
        except Exception as error:
            outcome[title] = {"error": type(error).__name__}
pd.DataFrame(outcome).T.fillna("")

# %%
said_right = cu.written_shapes("work/04_free.onnx")
frozen_shape = {"image": "[2, 1, 28, 28]", "logits": "[2, 10]"}
cu.claim(
    "dynamic-axes-dict",
    {
        "a label stands at each axis that was given": said_right
        == {"image": "['batch', 1, 'height', 'width']", "logits": "['batch', 10]"},
        "dynamic_axes writes the same, with both exporters": outcome[
            "older exporter, dynamic_axes"
        ]
        == outcome["default, dynamic_axes"]
        == said_right,
        "dynamic_shapes follows the arguments of forward, and needs no output": outcome[
            "default, dynamic_shapes by name"
        ]
        == said_right,
        "older exporter: a misspelled name gives a frozen file": outcome[
            "older exporter, a misspelled key"
        ]
        == frozen_shape,
        "default exporter: it is an error, with either argument": "error"
        in outcome["default, a misspelled key"]
        and "error" in outcome["dynamic_shapes, a misspelled key"],
    },
)

# %% [markdown]
# What is different inside the file? We compare it with the frozen one, and look at the tensors on the way.

# %%
cu.graph_diff("work/04_frozen.onnx", "work/04_free.onnx")

# %%
tensors = cu.tensor_table("work/04_free.onnx")
tensors[tensors["role"] != "initializer"][["tensor", "role", "shape"]].iloc[
    [0, 1, 5, 20, -2, -1]
]

# %% [markdown]
# The first table is empty: the same nodes, the same weights. Only descriptions changed. The names even travel through
# the network: a convolution with stride 2 makes a formula of `height`. In
# [the file format](https://onnx.ai/onnx/repo-docs/IR.html), a dimension has two fields, of which one is set:
# `dim_value` or `dim_param`.

# %%
import onnx


def first_dim(file):
    return onnx.load(file).graph.input[0].type.tensor_type.shape.dim[0]


fixed_dim, named_dim = (
    first_dim("work/04_frozen.onnx"),
    first_dim("work/04_free.onnx"),
)
inside = tensors[tensors["role"] == "intermediate"]["shape"]
cu.claim(
    "symbolic-dim-in-graph",
    {
        "the frozen file holds the number 1": fixed_dim.WhichOneof("value")
        == "dim_value"
        and fixed_dim.dim_value == 1,
        "the free file holds the name in its place": named_dim.WhichOneof("value")
        == "dim_param"
        and named_dim.dim_param == "batch",
        "every tensor inside carries it as well": len(inside) > 0
        and inside.str.startswith("['batch'").all(),
        "nothing else changed: nodes and weights": cu.graph_diff(
            "work/04_frozen.onnx", "work/04_free.onnx"
        ).empty,
    },
)

# %% [markdown]
# ## One file for all
#
# The report promises that one model serves a single request from a phone as well as batches on a server. We try batches
# of many sizes against PyTorch. Then 1000 test pictures, in portions of different sizes, must get the same answers.

# %%
gates = {
    n: cu.parity(fashion_resnet, "work/04_free.onnx", torch.randn(n, 1, 28, 28))
    for n in (1, 2, 3, 64, 300)
}
assert all(gate.within for gate in gates.values())
pd.Series({n: str(gate) for n, gate in gates.items()}, name="parity").rename_axis(
    "batch"
).to_frame()

# %%
server = session_of("work/04_free.onnx")
feed = {"image": cu.normalize(images[:1000])}
answers = {
    n: cu.run_in_batches(server, feed, batch=n)["logits"].argmax(1)
    for n in (1, 7, 64, 1000)
}
accuracy = {n: (guesses == labels[:1000]).mean() for n, guesses in answers.items()}
pd.Series(accuracy, name="accuracy").map("{:.2%}".format).rename_axis(
    "pictures at a time"
).to_frame()

# %%
cu.claim(
    "one-model-any-batch",
    {
        "batches of 1, 2, 3, 64 and 300 give PyTorch's numbers": all(
            gate.within for gate in gates.values()
        ),
        "even an empty batch runs": server.run(
            None, {"image": zeros(0, 1, 28, 28)}
        )[0].shape
        == (0, 10),
        "1000 pictures, 1, 7, 64 or 1000 at a time: the same answers": all(
            (guesses == answers[1]).mean() > 0.999 for guesses in answers.values()
        ),
        "and they are as good as those of the PyTorch model": min(accuracy.values())
        > 0.92,
    },
)

# %% [markdown]
# ## Any picture size
#
# Height and width are free as well. This network accepts it: convolutions slide over any size, and its pooling averages
# over what is left. A tall and a wide picture against PyTorch, and one of a single pixel:

# %%
sizes = [(40, 20), (20, 64), (1, 1)]
tall = {
    f"{h}×{w}": cu.parity(
        fashion_resnet, "work/04_free.onnx", torch.randn(2, 1, h, w)
    )
    for h, w in sizes
}
assert all(gate.within for gate in tall.values())
pd.Series(
    {size: str(gate) for size, gate in tall.items()}, name="parity"
).to_frame()

# %% [markdown]
# It runs. But is it *right*? Parity says only that both programs compute the same. We shrink and enlarge 500 test
# pictures and look at the accuracy.

# %% tags=["remove-input"]
cu.quiz("04_dynamic_axes", 2)

# %%
import matplotlib.pyplot as plt

some = torch.from_numpy(cu.normalize(images[:500]))
accuracy_at = {}
for side in (14, 20, 24, 28, 32, 36, 42, 56):
    resized = torch.nn.functional.interpolate(
        some, size=(side, side), mode="bilinear", antialias=True
    ).numpy()
    guesses = cu.run_in_batches(server, {"image": resized})["logits"].argmax(1)
    accuracy_at[side] = (guesses == labels[:500]).mean()
best = max(accuracy_at, key=accuracy_at.get)
assert accuracy_at[28] > max(accuracy_at[14], accuracy_at[56]) + 0.1

# %%
_, ax = plt.subplots()
ax.plot(list(accuracy_at), [100 * a for a in accuracy_at.values()], marker="o")
ax.axvline(28, color="#D55E00", linestyle="--", label="trained on")
worst = min(accuracy_at.values())
ax.set_title(
    f"Accuracy is best at {best}×{best}, and falls to {worst:.0%} at other sizes"
)
ax.set_xlabel("height and width, pixels")
ax.set_ylabel("accuracy, %")
ax.legend()
plt.show()

# %% [markdown]
# A free axis only means that the file runs. Whether the model is *good* at that size depends on its training.
#
# ## Names that link
#
# A text model has two inputs: the tokens, and a mask that says which of them are real. Both have the same batch and the
# same length. Give them the **same names**. Here is a small attention.


# %%
class Attention(torch.nn.Module):
    """tokens, mask int64 [batch, length] → float32 [batch, length, 8]."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(50, 8)
        self.project = torch.nn.Linear(8, 24)

    def forward(self, tokens, mask):
        q, k, v = self.project(self.embed(tokens)).chunk(3, dim=-1)
        scores = (q @ k.transpose(1, 2)) / 8**0.5
        scores = scores.masked_fill(mask[:, None, :] == 0, -1e9)
        return scores.softmax(dim=-1) @ v


# %%
attention = Attention().eval()
tokens, mask = (
    torch.randint(0, 50, (2, 6)),
    torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]]),
)
io = {"input_names": ["tokens", "mask"], "output_names": ["result"]}
both = {0: "batch", 1: "length"}
with cu.exporter_messages():
    torch.onnx.export(
        attention,
        (tokens, mask),
        "work/04_attention.onnx",
        **io,
        **how,
        dynamic_shapes=(both, both),
    )
cu.written_shapes("work/04_attention.onnx")

# %% [markdown]
# Do we have to know that the two belong together? We claim that they are four different dimensions, and see what the
# exporter makes of it.

# %%
apart = ({0: "batch", 1: "length"}, {0: "mask_batch", 1: "mask_length"})
with cu.exporter_messages() as messages:
    torch.onnx.export(
        attention,
        (tokens, mask),
        "work/04_apart.onnx",
        **io,
        **how,
        dynamic_shapes=apart,
    )
assert cu.written_shapes("work/04_apart.onnx") == cu.written_shapes(
    "work/04_attention.onnx"
)
pd.Series(messages, name="the exporter").to_frame()

# %% [markdown]
# The exporter saw that the code works only when the sizes are equal, and wrote the same names.
#
# One trap. To save a line, somebody writes *the same tensor* for both inputs of the example:

# %%
with cu.exporter_messages():
    twins = (tokens, tokens)
    torch.onnx.export(
        attention,
        twins,
        "work/04_twins.onnx",
        **io,
        **how,
        dynamic_shapes=(both, both),
    )
read = {
    name
    for node in onnx.load("work/04_twins.onnx").graph.node
    for name in node.input
}
assert len(read & {"tokens", "mask"}) == 1
print("the graph reads:", read & {"tokens", "mask"})
cu.parity(attention, "work/04_twins.onnx", (tokens, mask))

# %% [markdown]
# The exporter took the two inputs for one. Both stand in the file, and one of them has no effect. Use different
# tensors.
#
# Now the other side. Does ONNX Runtime compare sizes that have the same name? What do you expect?

# %% tags=["remove-input"]
cu.quiz("04_dynamic_axes", 3)

# %%
linked = session_of("work/04_attention.onnx")
ones = np.ones((3, 9), dtype=np.int64)
cases = {"mask 3×9": ones, "mask 3×8": ones[:, :8], "mask 1×9": ones[:1]}
said = {name: (words(linked, ones, m) or "runs") for name, m in cases.items()}
assert said["mask 3×9"] == "runs"
assert "Got invalid dimensions" not in said["mask 3×8"]
pd.Series(said, name="tokens 3×9").to_frame()

# %% [markdown]
# A number in the file is compared with what you feed; a **name is only a name**. The mask of another length fails deep
# inside, at the first node that cannot go on, with a much worse message. And the mask with
# another batch runs: the node stretches it. Check such inputs yourself before you call `run`.
#
# ## Bounds
#
# [`torch.export.Dim`](https://docs.pytorch.org/docs/stable/user_guide/torch_compiler/export.html) knows a smallest and
# a largest size. A table of positions, as in many text models, needs that: it has only so many rows.


# %%
class Positions(torch.nn.Module):
    """float32 [batch, length, 4] → the same; length at most 16."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Parameter(torch.randn(16, 4))

    def forward(self, x):
        return x + self.table[: x.shape[1]]


Dim = torch.export.Dim
x = torch.randn(2, 8, 4)
bounded = ({0: Dim("batch"), 1: Dim("length", min=1, max=16)},)
with cu.exporter_messages():
    program = torch.onnx.export(
        Positions().eval(),
        (x,),
        "work/04_positions.onnx",
        dynamic_shapes=bounded,
        **how,
    )
{
    str(symbol): str(bounds)
    for symbol, bounds in program.exported_program.range_constraints.items()
}

# %% [markdown]
# The exporter knows the range. Does the file?

# %%
positions = session_of("work/04_positions.onnx")
assert words(positions, zeros(1, 16, 4)) is None
assert "Got invalid dimensions" not in words(positions, zeros(1, 20, 4))
print("the file says:", positions.get_inputs()[0].shape)
print("length 16:", words(positions, zeros(1, 16, 4)) or "runs")
print("length 20:", words(positions, zeros(1, 20, 4)))

# %% [markdown]
# It does not: ONNX has no place for bounds. They help the exporter, and they are lost on the way. If your users need
# them, write them into the model's metadata, or check them before the run. Our example has 8 steps. Does it have to lie
# within the bounds?

# %%
beyond = ({1: Dim("length", min=9, max=16)},)
with cu.exporter_messages():
    try:
        torch.onnx.export(
            Positions().eval(),
            (x,),
            "work/04_beyond.onnx",
            dynamic_shapes=beyond,
            **how,
        )
    except Exception as error:
        refused = next(
            line for line in str(error).splitlines() if "not in range" in line
        )
print(refused.rpartition(": ")[2])

# %% [markdown]
# It does.
#
# A `Dim` can also be part of a formula. This network takes the steps in pairs, so it needs an even length.


# %%
class Pairs(torch.nn.Module):
    """float32 [batch, length, 4] → [batch, length / 2, 4]."""

    def forward(self, x):
        return x.reshape(x.shape[0], -1, 2, 4).sum(2)


half = Dim("half")
with cu.exporter_messages():
    torch.onnx.export(
        Pairs().eval(),
        (x,),
        "work/04_pairs.onnx",
        dynamic_shapes=({1: 2 * half},),
        **how,
    )
formula = session_of("work/04_pairs.onnx").get_inputs()[0].shape
assert formula == [2, "2*half", 4]
formula

# %% [markdown]
# To ONNX Runtime the formula is a name like any other: readers and tools can use it, the run does not calculate with
# it.
#
# ## A loop over the length
#
# So far every export kept its free sizes, since our networks treat every size alike. This one walks over the steps of a
# sequence with a loop, and weighs older steps less. PyTorch runs it with any length.


# %%
class Steps(torch.nn.Module):
    """float32 [batch, length, 4] → [batch, 4]."""

    def forward(self, x):
        state = x[:, 0]
        for t in range(1, x.shape[1]):
            state = 0.9 * state + x[:, t]
        return state


# %% [markdown]
# We ask for a free batch and length in five ways, always with an example of length 8.
#
# | way | what it means |
# |---|---|
# | `Dim("length")` | a dimension with this name |
# | `"length"` | the same, shorter? |
# | `Dim.DYNAMIC` | must be free, I need no name |
# | `Dim.AUTO` | free if possible |
# | `Dim.STATIC` | frozen |

# %% tags=["remove-input"]
cu.quiz("04_dynamic_axes", 4)


# %%
def cause(error):
    """The line of a long message that names the dimension."""
    lines = [line for line in str(error).splitlines() if "tracing inferred" in line]
    return lines[0].partition("but ")[2] if lines else type(error).__name__


ways = {
    'Dim("length")': {0: Dim("batch"), 1: Dim("length")},
    '"length"': {0: "batch", 1: "length"},
    "Dim.DYNAMIC": {0: Dim.DYNAMIC, 1: Dim.DYNAMIC},
    "Dim.AUTO": {0: Dim.AUTO, 1: Dim.AUTO},
    "Dim.STATIC": {0: Dim.STATIC, 1: Dim.STATIC},
}

# %%
rows, said, programs, reasons = {}, {}, {}, {}
for index, (way, wanted) in enumerate(ways.items()):
    file = f"work/04_steps_{index}.onnx"
    with cu.exporter_messages() as said[way]:
        try:
            programs[way] = torch.onnx.export(
                Steps().eval(), (x,), file, dynamic_shapes=(wanted,), **how
            )
        except Exception as error:
            rows[way], reasons[way] = (
                {"outcome": f"no file: {cause(error)}"},
                str(error.__cause__),
            )
            continue
    take = [
        n for n in (5, 8, 12) if words(session_of(file), zeros(2, n, 4)) is None
    ]
    rows[way] = {
        "outcome": "a file",
        "it says": cu.written_shapes(file)["x"],
        "runs with lengths": str(take),
    }
table = pd.DataFrame(rows).T.fillna("")
table

# %% [markdown]
# Which way froze the length, and which way said so? And how many messages did the exporter leave?

# %%
assert (
    table.loc[['"length"', "Dim.DYNAMIC"], "outcome"]
    .str.startswith("no file")
    .all()
)
assert "8" in table.loc['Dim("length")', "it says"]
assert "8" not in table.loc["Dim.AUTO", "it says"]
{way: len(lines) for way, lines in said.items()}

# %% [markdown]
# - A label or `Dim.DYNAMIC` is a **promise**: the exporter keeps it, or there is no file, and the error names the
#   dimension.
# - `Dim("length")` is a **wish**. The exporter cannot fulfil it, so it writes the number 8, without a message.
# - `Dim.AUTO` is worse: the file *says* any length.
#
# Length 5 with the `Dim.AUTO` file is refused. But length 12 runs! With what numbers?

# %%
long = torch.randn(1, 12, 4)
auto = ort.InferenceSession(
    "work/04_steps_3.onnx", providers=["CPUExecutionProvider"]
)  # a warning would be shown
(got,) = auto.run(None, {"x": long.numpy()})
compared = {
    "all 12 steps": Steps()(long),
    "the first 8 steps": Steps()(long[:, :8]),
}
difference = {
    what: float(np.abs(got - want.numpy()).max()) for what, want in compared.items()
}
assert difference["the first 8 steps"] < 1e-5 < difference["all 12 steps"]
pd.Series(difference, name="largest difference from PyTorch over").to_frame()

# %% [markdown]
# The file ignores the last four steps, without an error and without a warning. Such exports are **over-specialised**:
# what was true of the example has become a part of the graph. So we need a method to find them.
#
# ## A method
#
# **1. Compare what you asked for with what is written.** One line: `cu.written_shapes(file)`. It finds the number 8.
# It cannot find the fixed length of `Dim.AUTO`. For that, look at the exporter's own notes: `torch.onnx.export` returns a
# program, and the program knows the range of each symbol.

# %%
notes = programs["Dim.AUTO"].exported_program.range_constraints
notes = {str(symbol): str(bounds) for symbol, bounds in notes.items()}
assert "VR[8, 8]" in notes.values()
notes

# %% [markdown]
# `VR` is a *value range*, `int_oo` is infinity. A range from 8 to 8 is a fixed size. But usually you get a file from
# somebody else, without the program.
#
# **2. Probe.** Try several sizes in each dimension: smaller, larger, 1. Compare every result with PyTorch.
# `cu.probe_sizes` does that for any model.

# %%
probe = cu.probe_sizes("work/04_steps_3.onnx", x, Steps())
found = probe.set_index("dimension")
assert found.loc["x[0]", "verdict"] == "free"
assert found.loc["x[1]", "works"] == "8"
assert found.loc["x[1]", "wrong numbers"] != ""
probe

# %% [markdown]
# The batch is free, the length is not. The third line is as expected: PyTorch would take other widths here, but we
# did not ask for that.
#
# **3. Ask for the reason.** With `Dim` the exporter hides it. With labels it raises an error, and the error's
# `__cause__` names the dimension. We kept it above:

# %%
assert "inferred a static shape of 8 for dimension" in reasons['"length"']
print(reasons['"length"'])

# %% [markdown]
# *Tracing inferred a static shape of 8*: something in the code made a fixed number of the length. Ask the exporter
# itself. `torch.export.export` gives reasons as well, but it runs under other settings. It objects even to a batch of
# one picture, which `torch.onnx.export` makes free (see below):

# %%
one_picture = torch.randn(1, 1, 28, 28)
try:
    torch.export.export(small, (one_picture,), dynamic_shapes=({0: Dim("batch")},))
    other_settings = ""
except Exception as error:
    other_settings = str(error)
objection = [
    line
    for line in other_settings.splitlines()
    if "specialized it to be a constant (1)" in line
]
assert objection
print(objection[0].strip(" -"))

# %% [markdown]
# **4. Change the code** so that the size never becomes a Python number: no `range`, no `int(x.shape[1])`, no `if` on a
# size. This loop is a weighted sum, so it can be written without a loop:


# %%
class Weighted(torch.nn.Module):
    """The same function as Steps, without a loop."""

    def forward(self, x):
        age = torch.arange(x.shape[1] - 1, -1, -1)
        return (x * (0.9**age)[:, None]).sum(1)


# %%
free = ({0: "batch", 1: "length"},)
with cu.exporter_messages():
    torch.onnx.export(
        Weighted().eval(), (x,), "work/04_weighted.onnx", dynamic_shapes=free, **how
    )
cured = cu.probe_sizes("work/04_weighted.onnx", x, Steps())
assert (cured["verdict"].iloc[:2] == "free").all()
cured

# %% [markdown]
# Compared with the *old* class, all lengths agree. A loop that cannot be written so needs `scan` or `while_loop`:
# lesson 03.
#
# ## When a `Dim` is kept
#
# Later lessons free a batch with `Dim("batch")`. When may they? We run the method over more networks, with a `Dim` and
# with a label. Three new ones: the first uses sizes as Python numbers, the other two decide by the size. And we give
# some networks an example with a size of 1, or with equal sizes.


# %%
class AsNumber(torch.nn.Module):
    def forward(self, x):
        return x.reshape(int(x.shape[0]), int(x.shape[1]) * 4)


class Compare(torch.nn.Module):
    def forward(self, x):
        return x * 2 if x.shape[1] == 8 else x * 3


class Threshold(torch.nn.Module):
    def forward(self, x):
        return x * 2 if x.shape[1] > 6 else x * 3


# %%
examples = {
    "Small, one picture": (small, (one_picture,)),
    "Attention, 3 × 3": (
        attention,
        (torch.randint(0, 50, (3, 3)), torch.ones(3, 3, dtype=torch.int64)),
    ),
    "Attention, 2 × 1": (
        attention,
        (torch.randint(0, 50, (2, 1)), torch.ones(2, 1, dtype=torch.int64)),
    ),
    "AsNumber, 2 × 8": (AsNumber(), (x,)),
    "Compare, 2 × 8": (Compare(), (x,)),
    "Threshold, 2 × 8": (Threshold(), (x,)),
}


# %%
def result_of(module, args, wanted):
    """What the file says of the first input and the output, and what probing finds in the axes that were asked for."""
    with cu.exporter_messages():
        try:
            torch.onnx.export(
                module.eval(),
                args,
                "work/04_kept.onnx",
                dynamic_shapes=(wanted,) * len(args),
                **how,
            )
        except Exception as error:
            return f"no file: {cause(error)}"
    probed = cu.probe_sizes("work/04_kept.onnx", args, module)
    first, *_, last = cu.written_shapes("work/04_kept.onnx").values()
    found = probed.groupby(probed["dimension"].str[-3:], sort=True)[
        "verdict"
    ].unique()  # [0]: of all inputs
    axes = {
        axis: name
        for axis, name in {0: "batch", 1: "length"}.items()
        if axis in wanted
    }
    return "; ".join(
        [
            f"{first} → {last}",
            *(f"{name}: {' / '.join(found[f'[{a}]'])}" for a, name in axes.items()),
        ]
    )


# %%
rows = {}
for title, (module, args) in examples.items():
    named = {0: "batch"} if "picture" in title else {0: "batch", 1: "length"}
    as_dim = {axis: Dim(name) for axis, name in named.items()}
    rows[title] = {
        "Dim": result_of(module, args, as_dim),
        "label": result_of(module, args, named),
    }
kept = pd.DataFrame(rows).T
all_free = ("batch: free", "batch: free; length: free")
assert (
    kept.iloc[:2]
    .map(lambda text: text.partition("; ")[2] in all_free)
    .all(axis=None)
)
assert (
    "→ ['batch', 1, 8]; batch: free; length: free"
    in kept.loc["Attention, 2 × 1", "label"]
)
assert kept["Dim"].str.contains("frozen").tolist() == [
    False,
    False,
    True,
    True,
    True,
    False,
]
assert kept["label"].str.contains("free").tolist() == [
    True,
    True,
    True,
    True,
    False,
    True,
]
assert kept.loc["Threshold, 2 × 8"].str.contains("wrong numbers").all()
kept

# %% [markdown]
# `Threshold` gives wrong numbers, with a label as well. Does the exporter know? We ask its program for the ranges once
# more:

# %%
with cu.exporter_messages():
    program = torch.onnx.export(
        Threshold().eval(), (x,), dynamic_shapes=({1: "length"},), verbose=False
    )
ranges = [
    str(bounds) for bounds in program.exported_program.range_constraints.values()
]
assert "VR[7, int_oo]" in ranges
ranges

# %% [markdown]
# - A `Dim` is **kept** where the code treats every size alike: the convolutional network, and the attention. One
#   picture is enough, and equal sizes do no harm.
# - It is **dropped without a message** where the code makes a number of the size, and in the attention for an example of
#   length 1. Take lengths of 2 or more. (*As in PyTorch*: there PyTorch, too, takes no other size.)
# - A label is never dropped here. It even frees `AsNumber`, and it refuses `Compare`. From a length of 1 it makes a
#   file that is right at every length, but that declares an output of length 1.
# - `Threshold` is the dangerous one: its file takes every length, and for short ones it gives the wrong branch. The
#   exporter knows that the branch holds from 7 on. The file has no place for it, and only probing *with numbers to
# compare* finds it.
#
# So `Dim("batch")` is fine for a network such as ours, if you read the shape from the file afterwards. Labels are
# safer.
#
# ## Sequences: recurrent networks
#
# An LSTM is a loop over the steps, too. [In ONNX it is one operator](https://onnx.ai/onnx/operators/onnx__LSTM.html),
# which takes any length. We let a fresh Python process export such a network, twice with the same call.

# %%
program = """
import torch

class Tagger(torch.nn.Module):  # tokens int64 [batch, length] → scores float32 [batch, 2]
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.score = torch.nn.Embedding(50, 16), torch.nn.Linear(16, 2)
        self.read = torch.nn.LSTM(16, 16, batch_first=True)

    def forward(self, tokens):
        states, _ = self.read(self.embed(tokens))
        return self.score(states[:, -1])

def export(file):
    tokens, shapes = torch.ones(2, 6, dtype=torch.int64), ({0: "batch", 1: "length"},)
    torch.onnx.export(Tagger().eval(), (tokens,), file, dynamic_shapes=shapes, external_data=False, verbose=False)

if __name__ == "__main__":
    for name in ("lstm", "lstm_again"):
        try:
            export(f"work/04_{name}.onnx")
            print("a file")
        except Exception as error:
            print("no file:", str(error.__cause__).splitlines()[-1])
"""
_ = Path("work/04_tagger.py").write_text(program, encoding="utf-8")

# %%
import runpy
import subprocess
import sys

command = [sys.executable, "-W", "ignore", "work/04_tagger.py"]
done = subprocess.run(
    command, capture_output=True, text=True, encoding="utf-8", check=True
)
print(
    f"torch {torch.__version__.split('+')[0]}", *done.stdout.splitlines(), sep="\n"
)

assert done.stdout.startswith("a file") or torch.__version__ < "2.13"
lstm = None
if done.stdout.startswith("a file"):
    tagger = runpy.run_path("work/04_tagger.py")["Tagger"]().eval()
    lstm = cu.probe_sizes("work/04_lstm.onnx", tokens, tagger)
    assert (lstm["verdict"] == "free").all() and cu.op_histogram(
        "work/04_lstm.onnx"
    )["LSTM"] == 1
lstm

# %% [markdown]
# The first file is right: an `LSTM` node, every batch, every length. The second call is the same, and in PyTorch 2.13
# it gives no file: the first export in the process spoils the next one. So export each recurrent network in **a fresh
# process**, with labels, and probe. (In PyTorch 2.11 both calls give no file.)
#
# ## Make it static again
#
# Some targets want it: many accelerators in phones take graphs with known sizes only. ONNX Runtime brings
# [two functions](https://onnxruntime.ai/docs/tutorials/mobile/helpers/make-dynamic-shape-fixed.html) that put a number
# in place of a name, everywhere.

# %%
from onnxruntime.tools.onnx_model_utils import (
    fix_output_shapes,
    make_dim_param_fixed,
)

again = onnx.load("work/04_free.onnx")
for name, size in {"batch": 1, "height": 28, "width": 28}.items():
    make_dim_param_fixed(again.graph, name, size)
fix_output_shapes(again)
onnx.save(again, "work/04_again.onnx")
cu.written_shapes("work/04_again.onnx")

# %% [markdown]
# The same from the command line, one name at a time:
#
# ```
# python -m onnxruntime.tools.make_dynamic_shape_fixed --dim_param batch --dim_value 1 in.onnx out.onnx
# ```
#
# A misspelled name is no error here either: nothing happens. So look at the file. And look *inside*:

# %%
inside = cu.tensor_table(again)
left = inside[
    (inside["role"] == "intermediate")
    & inside["shape"].str.contains("[a-z]", regex=True)
]
print(len(left), "tensors inside still have names, such as", left["shape"].iloc[0])

# %% [markdown]
# The function replaces the name `height`, not formulas made of it. Drop the old descriptions, and let shape inference
# write new ones:

# %%
del again.graph.value_info[:]
again = onnx.shape_inference.infer_shapes(again)
onnx.save(again, "work/04_again.onnx")
inside = cu.tensor_table(again)
left = inside[inside["shape"].str.contains("[a-z]", regex=True)]
assert len(left) == 0
assert cu.parity(fashion_resnet, again, torch.randn(1, 1, 28, 28)).within
print(len(left), "tensors inside still have names")

# %% [markdown]
# ONNX Runtime comes with
# [a checker for phones](https://onnxruntime.ai/docs/tutorials/mobile/helpers/model-usability-checker.html). It counts
# the nodes that Android's NNAPI would take:

# %%
from onnxruntime.tools.mobile_helpers.usability_checker import (
    check_nnapi_partitions,
)

takes = {}
for title, graph in {
    "sizes free": onnx.load("work/04_free.onnx"),
    "made static again": again,
}.items():
    found = check_nnapi_partitions(graph, require_fixed_input_sizes=True)
    takes[title] = {
        "nodes": found.num_nodes,
        "NNAPI takes": found.num_supported_nodes,
    }
assert (
    takes["sizes free"]["NNAPI takes"]
    == 0
    < takes["made static again"]["NNAPI takes"]
)
pd.DataFrame(takes).T

# %% [markdown]
# None, or all of them. [Lesson 05](05_execution_providers.ipynb) says what happens to the nodes that no provider takes.

# %% [markdown]
# If only the session needs to know, leave the file alone and tell the session:

# %%
options = ort.SessionOptions()
options.add_free_dimension_override_by_name("batch", 1)
overridden = ort.InferenceSession(
    "work/04_free.onnx", options, providers=["CPUExecutionProvider"]
)
assert overridden.get_inputs()[0].shape[0] == 1
overridden.get_inputs()[0].shape

# %% [markdown]
# ## The cost of free sizes
#
# When sizes are known, everything that depends on sizes alone can be computed before the first run. We freeze three
# models and count what remains after ONNX Runtime has optimised them. The third one is a transformer, in two widths: it
# splits and joins axes, so its graph is full of nodes that ask for sizes.

# %% tags=["remove-input"]
cu.quiz("04_dynamic_axes", 5)


# %%
def nodes_that_run(file):
    options = ort.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = (
        "work/04_optimised.onnx",
        4,
    )
    ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return len(onnx.load("work/04_optimised.onnx").graph.node)


known = {
    "free": {"batch": 1, "height": 28, "width": 28},
    "weighted": {"batch": 1, "length": 8},
}
data = {"free": zeros(1, 1, 28, 28), "weighted": zeros(1, 8, 4)}
for width in (32, 512):
    transformer = torch.nn.TransformerEncoderLayer(
        width, 4, 4 * width, batch_first=True
    ).eval()
    name, steps = f"transformer_{width}", ({0: "batch", 1: "length"},)
    with cu.exporter_messages():
        torch.onnx.export(
            transformer,
            (torch.randn(2, 8, width),),
            f"work/04_{name}.onnx",
            dynamic_shapes=steps,
            **how,
        )
    known[name], data[name] = {"batch": 1, "length": 12}, zeros(1, 12, width)

# %%
counts = {}
for name, sizes in known.items():
    fixed = onnx.load(f"work/04_{name}.onnx")
    for symbol, size in sizes.items():
        make_dim_param_fixed(fixed.graph, symbol, size)
    del fixed.graph.value_info[:]
    onnx.save(fixed, f"work/04_{name}_fixed.onnx")
    counts[name] = {
        kind: nodes_that_run(f"work/04_{name}{kind}.onnx")
        for kind in ("", "_fixed")
    }

# %%
counts = pd.DataFrame(counts).T.set_axis(
    ["nodes, sizes free", "nodes, sizes fixed"], axis=1
)
gone = counts["nodes, sizes free"] - counts["nodes, sizes fixed"]
assert gone["free"] == 0
assert (
    gone["transformer_32"] == gone["transformer_512"] > 0 and gone["weighted"] > 0
)
titles = {"free": "fashion_resnet", "weighted": "Weighted"}
titles |= {name: name.replace("_", ", width ") for name in counts.index[2:]}
counts.rename(index=titles)

# %% [markdown]
# Nothing changes for the convolutional network: no node of it asks for a size. In `Weighted` the nodes that make the
# weights from the length are gone, folded into a constant. The transformer loses as many nodes at either width. Does
# that show on the clock? One thread, batch 1.

# %%
options = ort.SessionOptions()
options.intra_op_num_threads, options.log_severity_level = 1, 4
calls = {}
for name, value in data.items():
    for kind in ("", "_fixed"):
        session = ort.InferenceSession(
            f"work/04_{name}{kind}.onnx",
            options,
            providers=["CPUExecutionProvider"],
        )
        feed_one = {session.get_inputs()[0].name: value}
        calls[name + kind] = lambda session=session, feed_one=feed_one: session.run(
            None, feed_one
        )
timed = cu.compare(calls, threads=1)

# %%
ratios = {
    title: timed.ratio(name, f"{name}_fixed") for name, title in titles.items()
}
_, ax = plt.subplots(figsize=(7.2, 2.4))
ax.barh(list(ratios), list(ratios.values()), color="#56B4E9")
ax.axvline(1, color="#D55E00", linestyle="--")
top = max(ratios, key=ratios.get)
ax.set_title(
    f"Free sizes cost most in {top}: {ratios[top]:.2f} times the time of fixed ones"
)
ax.set_xlabel("time with free sizes ÷ time with fixed sizes (1: no cost)")
plt.show()

# %% [markdown]
# Each extra node costs a little time, in a narrow and in a wide model. In the wide transformer the other nodes take
# longer, so the extra ones are a smaller part of the run. And this is a CPU: a provider that compiles the graph for
# known sizes may have to compile anew for each new size. Measure it where your model will run.
#
# ## Play
#
# Five files of one network, and a dozen shapes. Which shapes does each file take? The last file says that height and
# width are the same dimension. Find out whether ONNX Runtime checks it.

# %%
square, any_batch = onnx.load("work/04_free.onnx"), onnx.load("work/04_free.onnx")
for dim in square.graph.input[0].type.tensor_type.shape.dim[2:]:
    dim.dim_param = "side"
for name in ("height", "width"):
    make_dim_param_fixed(any_batch.graph, name, 28)
files = {
    "frozen": "work/04_frozen.onnx",
    "any batch": any_batch,
    "any batch and size": "work/04_free.onnx",
    "made static again": "work/04_again.onnx",
    "linked: height = width": square,
}
tries = [
    (1, 1, 28, 28),
    (4, 1, 28, 28),
    (0, 1, 28, 28),
    (1, 1, 32, 32),
    (1, 1, 20, 40),
    (2, 1, 1, 1),
    (1, 3, 28, 28),
]
tries += [(28, 28), (1, 28, 28), (1, 28, 28, 1), (64, 1, 28, 28), (1, 1, 224, 224)]
cu.shape_explorer(files, tries)

# %% [markdown]
# ## Recap
#
# - Unless you say otherwise, every size of the example is frozen. The error comes at the first run: *Got … Expected …*.
# - `dynamic_shapes` with labels is a promise that the exporter keeps or refuses. `Dim("name")` is a wish, `Dim.AUTO` a
#   guess: both can fix a dimension without a message.
# - A name is not checked at the run, and a bound is not in the file. Only numbers are enforced.
# - The method: compare what is written, probe with PyTorch beside it, ask with labels for the reason, change the code.
# - A size that becomes a Python number (`range`, `if`) freezes a dimension, and so can an example of length 1.
# - `make_dim_param_fixed` makes a model static again, for targets that want it.
#
# **Next:** the [exercises of this lesson](exercises/04_dynamic_axes.ipynb). After them,
# [05 · Execution providers](05_execution_providers.ipynb) asks what happens inside a session, and on which hardware.
