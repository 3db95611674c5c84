# %% [markdown]
# # 03 · Tracing versus scripting
#
# Your model is a Python program. An ONNX file is a list of operators. Something must turn the one into the other, and
# there are three ways to do it. On a plain network all three agree. On other models the results differ: the same
# mechanism can refuse one model, write a wrong file for another, and be right on a third.
#
# After this lesson you will be able to
#
# - say what each export mechanism looks at, and what it cannot see,
# - predict where a file will be silently wrong, and catch it,
# - export an `if` and a loop so that they are kept in the file,
# - export an operator that the exporter does not know,
# - read the export report.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## Three mechanisms
#
# [`torch.onnx.export`](https://docs.pytorch.org/docs/stable/onnx_export.html) is one function with three very different
# mechanisms behind it. Here they are, in full:

# %%
import torch
from torch import nn


def by_default(module, args, file, **how):
    torch.onnx.export(module, args, file, external_data=False, verbose=False, **how)


def by_tracing(module, args, file, **how):
    torch.onnx.export(module, args, file, dynamo=False, **how)


def by_scripting(module, args, file, **how):
    torch.onnx.export(torch.jit.script(module), args, file, dynamo=False, **how)


MECHANISMS = {"default": by_default, "traced": by_tracing, "scripted": by_scripting}

# %% [markdown]
# What does `forward` receive in each mechanism? This module records the type of its input, and tries to compare its sum
# with zero. (`is_scripting` hides these lines from the third mechanism, which could not compile them.)

# %%
notes = []


class Witness(nn.Module):
    def forward(self, x):
        if not torch.jit.is_scripting():
            notes.append(
                {"x is a": type(x).__name__, "is its sum positive?": answer(x)}
            )
        return torch.relu(x) * 2


def answer(x):
    try:
        return "yes" if x.sum() > 0 else "no"
    except Exception as error:
        return type(error).__name__


# %%
import pandas as pd

pd.set_option("display.max_colwidth", None)  # show sentences in full
x = torch.tensor([[-1.0, 2.0, 3.0]])
heard = {}
for name, mechanism in MECHANISMS.items():
    notes.clear()
    with cu.exporter_messages():
        mechanism(Witness().eval(), (x,), f"work/03_witness_{name}.onnx")
    heard[name] = {
        "Python runs forward": ["never", "once"][len(notes)],
        **(notes[0] if notes else {}),
    }
pd.DataFrame(heard).T.fillna("")

# %% [markdown]
# - **default**: Python runs `forward` once, with a *fake* tensor. It has a shape and a dtype, and no numbers: the
#   question is an error.
# - **traced**: Python runs `forward` once, with your real example, and every tensor operation is written down.
# - **scripted**: Python does not run it at all. [`torch.jit.script`](https://docs.pytorch.org/docs/stable/jit.html)
#   reads the *source text* and compiles it.
#
# For the third one, this is the compiled program:

# %%
with cu.exporter_messages():
    scripted = torch.jit.script(Witness())
print(scripted.code)

# %% [markdown]
# All three write the same operators here, and the three files compute the same:

# %%
import onnx

files = {name: onnx.load(f"work/03_witness_{name}.onnx") for name in MECHANISMS}
operators = {
    name: {op for op in cu.op_histogram(file).index if op != "Constant"}
    for name, file in files.items()
}
cu.claim(
    "export-is-compilation",
    {
        "each mechanism turns the Python function into the nodes Relu and Mul": all(
            found == {"Relu", "Mul"} for found in operators.values()
        ),
        "the files give PyTorch's numbers": all(
            cu.parity(Witness(), file, x).within for file in files.values()
        ),
        "tracing runs Python with real numbers": heard["traced"][
            "is its sum positive?"
        ]
        == "yes",
        "scripting does not run Python": heard["scripted"]
        == {"Python runs forward": "never"},
        "there is a third way: Python runs with fake tensors": "Fake"
        in heard["default"]["x is a"],
    },
)

# %% [markdown]
# ## The default mechanism
#
# The report says: tracing, by default. We look at the signature of the function, and read its warning when we choose
# `dynamo=False`.

# %%
import inspect

signature = inspect.signature(torch.onnx.export)
with cu.exporter_messages() as messages:
    by_tracing(Witness().eval(), (x,), "work/03_witness_traced.onnx")
print("dynamo =", signature.parameters["dynamo"].default)
print(messages[0].partition(". Learn more")[0])

# %% [markdown]
# The default exporter needs one more package, [`onnxscript`](https://github.com/microsoft/onnxscript). What if it is
# missing? In a new Python process we make its import fail:

# %%
import subprocess
import sys

program = """
import sys
sys.modules["onnxscript"] = None  # as if it were not installed
import torch
for dynamo in (True, False):
    try:
        torch.onnx.export(torch.nn.ReLU(), (torch.ones(1),), "work/03_relu.onnx", dynamo=dynamo)
        print("a file")
    except ImportError as error:
        print(type(error).__name__, error)
"""
child = subprocess.run(
    [sys.executable, "-W", "ignore", "-c", program],
    capture_output=True,
    text=True,
    check=True,
)
without = dict(zip(["dynamo=True", "dynamo=False"], child.stdout.splitlines()))
without

# %%
cu.claim(
    "default-is-tracing",
    {
        "the default is dynamo=True": signature.parameters["dynamo"].default
        is True,
        "it shows no numbers to the model, so it is not tracing": heard["default"][
            "is its sum positive?"
        ]
        not in ("yes", "no"),
        "tracing needs dynamo=False, and is called legacy": "legacy" in messages[0],
        "the default needs onnxscript": "onnxscript" in without["dynamo=True"],
        "tracing does not": without["dynamo=False"] == "a file",
    },
)

# %% [markdown]
# ## When the example matters
#
# The default exporter never sees the numbers of your example. Tracing does. Does it use them?

# %% tags=["remove-input"]
cu.quiz("03_tracing_vs_scripting", 1)


# %% [markdown]
# We trace two models, each with three examples of the same shape: ones, zeros, and not-a-number. The first model is a
# plain convolutional network, the second one has an `if`.


# %%
class Plain(nn.Module):
    """Pictures [N, 1, 8, 8] → three scores."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = (
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.Linear(4, 3),
        )

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


class Gate(nn.Module):
    """Double x where its sum is positive, else lower it by one."""

    def forward(self, x):
        if x.sum() > 0:
            return x * 2
        return x - 1


# %%
plain = Plain().eval()
written = {}
for what, value in {
    "ones": 1.0,
    "zeros": 0.0,
    "not a number": float("nan"),
}.items():
    for name, module, shape in [
        ("plain network", plain, (2, 1, 8, 8)),
        ("with an if", Gate().eval(), (3, 4)),
    ]:
        with cu.exporter_messages():
            by_tracing(module, (torch.full(shape, value),), "work/03_dummy.onnx")
        written[name, what] = onnx.load("work/03_dummy.onnx").graph
pd.Series(
    {
        key: " ".join(n.op_type for n in g.node if n.op_type != "Constant")
        for key, g in written.items()
    }
).unstack()

# %%
networks = [
    graph.SerializeToString(deterministic=True)
    for (name, _), graph in written.items()
    if "plain" in name
]
gates = [
    graph.SerializeToString(deterministic=True)
    for (name, _), graph in written.items()
    if "if" in name
]
cu.claim(
    "dummy-values-do-not-matter",
    {
        "three examples, one and the same graph for the plain network": len(
            set(networks)
        )
        == 1,
        "two graphs for the model with an if": len(set(gates)) == 2,
    },
)

# %% [markdown]
# For a network without decisions, only shape and dtype matter: even not-a-number will do. With a decision, the numbers
# of your example decide what is in the file.
#
# ## The branch that was not taken
#
# From now on we try every mechanism on every model, and feed more than one input to what comes out. `cu.try_export`
# calls the export, catches the error if there is one, runs the file on each input, and compares with PyTorch. *Refuses*:
# no file. *Stops*: a file, and an error on some input. *Wrong*: a file, and wrong numbers.


# %%
def attempts(title, module, args, inputs, **how):
    found = {}
    for name, mechanism in MECHANISMS.items():
        file = f"work/03_{title}_{name}.onnx"
        found[name] = cu.try_export(mechanism, module, args, file, inputs, **how)
    return found


def show(found):
    return pd.Series(
        {name: str(trial) for name, trial in found.items()}, name="what happened"
    ).to_frame()


# %% [markdown]
# The `if` first. The example has a positive sum. The second input has a negative one.

# %% tags=["remove-input"]
cu.quiz("03_tracing_vs_scripting", 2)

# %%
trials = {}
positive, negative = torch.tensor([[1.0, 2.0]]), torch.tensor([[-1.0, -2.0]])
inputs = {"positive sum (the example)": (positive,), "negative sum": (negative,)}
trials["if"] = attempts("if", Gate().eval(), (positive,), inputs)
show(trials["if"])

# %% [markdown]
# Three mechanisms, three results.
#
# - The **default** exporter refuses. The fake tensor has no sum that could be compared with zero, and the error says
#   so: it *could not guard on a data-dependent expression*. `u0` is the exporter's name for the unknown number.
# - **Tracing** writes a file. The file is wrong for every input of the other kind, and nothing stops you from using it.
# - **Scripting** keeps both branches.
#
# Did tracing not warn us? It did, among other messages:

# %%
warned = [m for m in trials["if"]["traced"].messages if "incorrect" in m]
print(*warned)

# %% [markdown]
# That is a `TracerWarning`. It appears once, on the screen of the machine that exports. The file says nothing.

# %%
traced_if = trials["if"]["traced"]
cu.claim(
    "tracing-bakes-branch",
    {
        "the traced file is right on the branch of the example": traced_if.outcomes[
            "positive sum (the example)"
        ].verdict
        == "right",
        "it is wrong on the other one": traced_if.outcomes["negative sum"].verdict
        == "wrong",
        "the operator of the other branch, Sub, is not in the file": "Sub"
        not in cu.op_histogram(traced_if.model),
        "the default exporter refuses this model": trials["if"]["default"].verdict
        == "refuses",
    },
)

# %% [markdown]
# And what does a decision look like in ONNX? The operator is [`If`](https://onnx.ai/onnx/operators/onnx__If.html). It
# carries two graphs as attributes:

# %%
print(onnx.printer.to_text(trials["if"]["scripted"].model.graph))


# %% [markdown]
# ## A loop over the length
#
# A small recurrent model reads a sequence, row by row. In Python that is a `for`, and its length is that of the input.


# %%
class Reader(nn.Module):
    """A sequence [length, 3] → what is remembered at its end, [3]."""

    def forward(self, x):
        h = torch.zeros_like(x[0])
        for i in range(x.shape[0]):
            h = torch.tanh(x[i] + 0.5 * h)
        return h


# %% [markdown]
# We export with five rows, and ask for any length: `dynamic_axes` gives the first dimension a name. All three
# mechanisms understand it.

# %%
five, nine, two = (torch.randn(rows, 3) for rows in (5, 9, 2))
inputs = {
    "five rows (the example)": (five,),
    "nine rows": (nine,),
    "two rows": (two,),
}
any_length = {"input_names": ["x"], "dynamic_axes": {"x": {0: "length"}}}
trials["loop"] = attempts("loop", Reader().eval(), (five,), inputs, **any_length)
show(trials["loop"])

# %% [markdown]
# The traced file declares any length, and always reads five rows. Its loop was written out, step by step:

# %%
steps = {
    name: trial.model and cu.op_histogram(trial.model)
    for name, trial in trials["loop"].items()
}
counts = {
    name: {op: int(h.get(op, 0)) for op in ("Tanh", "Loop")}
    for name, h in steps.items()
    if h is not None
}
pd.DataFrame(counts).T

# %% [markdown]
# Scripting wrote one `Loop` with one `Tanh` in it. The report says that scripting keeps conditions and loops:

# %%
cu.claim(
    "scripting-keeps-control-flow",
    {
        "the scripted if becomes If, right on both branches": trials["if"][
            "scripted"
        ].verdict
        == "right"
        and "If" in cu.op_histogram(trials["if"]["scripted"].model),
        "the scripted loop becomes Loop, right for every length": trials["loop"][
            "scripted"
        ].verdict
        == "right"
        and counts["scripted"]["Loop"] == 1,
        "the traced loop becomes one copy per step": counts["traced"]
        == {"Tanh": 5, "Loop": 0},
        "PyTorch calls torch.jit.script deprecated": any(
            "torch.jit.script` is deprecated" in m
            for m in trials["if"]["scripted"].messages
        ),
    },
)

# %% [markdown]
# ### A free length for the default exporter
#
# Above, it refused. But there is more than one way to ask it for a dimension without a fixed size. Here are two;
# [lesson 04](04_dynamic_axes.ipynb) compares all of them.

# %% tags=["remove-input"]
cu.quiz("03_tracing_vs_scripting", 3)

# %%
Dim = torch.export.Dim
asked = {"Dim.AUTO": Dim.AUTO, "Dim.DYNAMIC": Dim.DYNAMIC}
asking = {}
for how, dim in asked.items():
    shapes = ({0: dim},)
    asking[how] = cu.try_export(
        by_default,
        Reader().eval(),
        (five,),
        "work/03_asked.onnx",
        inputs,
        dynamic_shapes=shapes,
    )
assert [trial.verdict for trial in asking.values()] == ["wrong", "refuses"]
show(asking)

# %% [markdown]
# - With `Dim.AUTO` the file declares a free length, and computes five steps. Nine rows run, and give wrong numbers.
# - `Dim.DYNAMIC`, as `dynamic_axes` above, must be free: the export fails.
#
# The Python loop runs during the export, so it is unrolled, as in tracing.

# %% [markdown]
# ## Lists and dicts
#
# A Python function can take a dict of options and a list of tensors. A graph has a flat row of inputs.


# %%
class Mixer(nn.Module):
    """The sum of all parts, times the option "scale"."""

    def forward(self, options: dict[str, torch.Tensor], parts: list[torch.Tensor]):
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total * options["scale"]


# %%
a, b, c = (torch.full((2, 3), value) for value in (1.0, 2.0, 3.0))
twice = {"scale": torch.tensor(2.0)}
inputs = {
    "two parts (the example)": (twice, [a, b]),
    "another scale": ({"scale": torch.tensor(7.0)}, [a, b]),
    "three parts": (twice, [a, b, c]),
}
trials["list and dict"] = attempts("mixer", Mixer().eval(), (twice, [a, b]), inputs)
show(trials["list and dict"])

# %% [markdown]
# The default exporter and tracing flatten dict and list into single inputs. The length of the list is fixed from then
# on: a third part has no input. Scripting writes a file without an error, and ONNX Runtime does not load it: the
# input for the dict has no type. The inputs are called:

# %%
{
    name: [i.name for i in trial.model.graph.input]
    for name, trial in trials["list and dict"].items()
}

# %% [markdown]
# Only the default exporter gives names that mean something. A list *alone* is another matter. ONNX has a type for it,
# the *sequence*, and scripting uses it: any number of parts.


# %%
class Total(nn.Module):
    def forward(self, parts: list[torch.Tensor]):
        total = torch.zeros_like(parts[0])
        for part in parts:
            total = total + part
        return total


lists = attempts(
    "total",
    Total().eval(),
    ([a, b],),
    {"two parts (the example)": ([a, b],), "three": ([a, b, c],)},
)
assert lists["scripted"].verdict == "right"
show(lists)

# %% [markdown]
# And a trap. If a dict is the *last* of the positional arguments, `torch.onnx.export` takes it for the keyword
# arguments of `forward`:


# %%
class Scaled(nn.Module):
    def forward(self, x, options: dict[str, torch.Tensor]):
        return x * options["scale"]


trap = attempts("trap", Scaled().eval(), (a, twice), {"example": (a, twice)})
assert all(trial.verdict == "refuses" for trial in trap.values())
show(trap)

# %% [markdown]
# The cure, for the first two: give it as a keyword argument, in `kwargs`.

# %%
cure = {"kwargs": {"options": twice}}
for mechanism in (by_default, by_tracing):
    cured = cu.try_export(
        mechanism,
        Scaled().eval(),
        (a,),
        "work/03_cured.onnx",
        {"example": (a, twice)},
        **cure,
    )
    assert cured.verdict == "right"
    print(mechanism.__name__, cured)

# %% [markdown]
# ## What scripting asks of your code
#
# `torch.jit.script` compiles a part of Python in which every value has one type, known beforehand. Four ordinary
# modules:


# %%
class Untyped(nn.Module):
    def forward(self, parts):  # a list, but nothing says so
        return parts[0] + parts[1]


class Starred(nn.Module):
    def forward(self, *parts):
        return parts[0] + parts[1]


class Lambda(nn.Module):
    def forward(self, parts: list[torch.Tensor]):
        add = lambda v: v[0] + v[1]
        return add(parts)


class TwoTypes(nn.Module):
    def forward(self, parts: list[torch.Tensor]):
        scale = 2 if len(parts) == 2 else "none"
        return parts[0] * scale


# %%
from course_utils.mechanisms import reason


def compiled(module):
    try:
        with cu.exporter_messages():
            torch.jit.script(module)([a, b])
        return "runs"
    except Exception as error:
        return reason(error)


said = {
    m.__name__: compiled(m()) for m in (Untyped, Starred, Lambda, TwoTypes, Total)
}
pd.Series(said, name="torch.jit.script").to_frame()

# %%
cu.claim(
    "scripting-needs-typed-subset",
    {
        "a list without a type is taken for a tensor": "RuntimeError"
        in said["Untyped"],
        "*parts is refused": "NotSupportedError" in said["Starred"],
        "a lambda is refused": "UnsupportedNodeError" in said["Lambda"],
        "one name with two types is refused": "RuntimeError" in said["TwoTypes"],
        "with a type for everything it runs": said["Total"] == "runs",
        "Python itself runs all four": all(
            torch.equal(m, a + b)
            for m in (Untyped()([a, b]), Starred()(a, b), Lambda()([a, b]))
        )
        and torch.equal(TwoTypes()([a, b]), 2 * a),
    },
)

# %% [markdown]
# ## Forgotten eval()
#
# `Dropout` throws values away while a model learns, and `BatchNorm` looks at the whole batch. Neither must happen in a
# file. What if we forget `eval()`?

# %% tags=["remove-input"]
cu.quiz("03_tracing_vs_scripting", 4)


# %%
class Learner(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.norm, self.drop = (
            nn.Linear(4, 4),
            nn.BatchNorm1d(4),
            nn.Dropout(0.5),
        )

    def forward(self, x):
        return self.drop(self.norm(self.hidden(x)))


learner = Learner().train()
for _ in range(50):  # so that BatchNorm has seen something
    learner(torch.randn(64, 4) * 3 + 2)

# %% [markdown]
# PyTorch's side of the comparison runs in eval mode, because those are the numbers that we want.

# %%
batch, other = torch.randn(8, 4), torch.randn(8, 4)
inputs = {"a batch (the example)": (batch,), "another batch": (other,)}
assert learner.training
trials["train mode"] = attempts("train", learner, (batch,), inputs)
show(trials["train mode"])

# %% [markdown]
# The two older mechanisms switch the model to eval mode themselves. The default exporter takes it as it is, prints a
# warning, and writes a `Dropout` whose third input, `training_mode`, is true:

# %%
kept = trials["train mode"]["default"]
print(kept.messages[0])
dropout = next(node for node in kept.model.graph.node if node.op_type == "Dropout")
stored = {
    t.name: onnx.numpy_helper.to_array(t) for t in kept.model.graph.initializer
}
print("training_mode =", stored[dropout.input[2]])
pd.Series(
    {
        name: " ".join(cu.op_histogram(t.model).index)
        for name, t in trials["train mode"].items()
    }
).to_frame("nodes")

# %% [markdown]
# Here `Dropout` is the last node. In most networks it stands somewhere in the middle, so we put a layer behind it. We
# run the file twice, with ONNX Runtime as it is and without its optimisations, and look whether the two runs agree:

# %%
import onnxruntime as ort

deeper = nn.Sequential(learner, nn.Linear(4, 2)).train()
with cu.exporter_messages():
    by_default(deeper, (batch,), "work/03_deeper.onnx")
agree = {}
for level in (
    ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
):
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    session = ort.InferenceSession(
        "work/03_deeper.onnx", options, providers=["CPUExecutionProvider"]
    )
    first, second = (
        session.run(None, {"input": batch.numpy()})[0] for _ in range(2)
    )
    agree[level.name] = bool((first == second).all())
print(*cu.op_histogram("work/03_deeper.onnx").index)
agree

# %% [markdown]
# ONNX Runtime takes such a `Dropout` out, whatever its `training_mode` is, unless it is the last node. So your tests
# pass, and another runtime, or a session without optimisations, gives other numbers in every run. Do not rely on it.
#
# And `BatchNorm`? It is not in the default exporter's file. It was folded into the layer before, with the stored
# averages, as if in eval mode. To be sure, we export a model with `BatchNorm` alone. The older exporter can be told to
# leave the mode alone: for comparison, that is the last row.

# %%
norm_only = nn.Sequential(learner.hidden, learner.norm).train()
preserve = {"training": torch.onnx.TrainingMode.PRESERVE}
file = "work/03_norm.onnx"
norm = {
    "default, BatchNorm alone": cu.try_export(
        by_default, norm_only, (batch,), file, inputs
    ),
    "traced, BatchNorm alone, PRESERVE": cu.try_export(
        by_tracing, norm_only, (batch,), file, inputs, **preserve
    ),
}
show(norm)

# %%
default_nodes = cu.op_histogram(kept.model)
cu.claim(
    "eval-mode-critical",
    {
        "the default exporter keeps Dropout, and every run gives other numbers": "Dropout"
        in default_nodes
        and "every run" in kept.outcomes["another batch"].detail,
        "in the middle of a graph, ONNX Runtime's optimiser takes it out": agree[
            "ORT_ENABLE_ALL"
        ],
        "without optimisation it works, there too": not agree["ORT_DISABLE_ALL"],
        "it writes BatchNorm as in eval mode": norm[
            "default, BatchNorm alone"
        ].verdict
        == "right",
        "tracing and scripting switch to eval mode themselves": trials[
            "train mode"
        ]["traced"].verdict
        == trials["train mode"]["scripted"].verdict
        == "right",
        "unless they are told not to": norm[
            "traced, BatchNorm alone, PRESERVE"
        ].verdict
        == "wrong",
        "after the exports the module is still in training mode": learner.training,
    },
)

# %% [markdown]
# ## The whole table
#
# One model is missing: the plain network, on which all three agree. Then the table is complete. Every cell of it was run
# in this lesson.

# %%
picture, another = torch.randn(2, 1, 8, 8), torch.randn(2, 1, 8, 8)
inputs = {"a picture (the example)": (picture,), "another picture": (another,)}
trials = {"plain CNN": attempts("plain", plain, (picture,), inputs), **trials}
pd.DataFrame(
    {
        name: {model: row[name].verdict for model, row in trials.items()}
        for name in MECHANISMS
    }
)

# %% [markdown]
# You notice *refuses* and *stops*. You do not notice *wrong*. Scripting looks best here, but PyTorch will remove it. The rest of the lesson rewrites the models for the default exporter; then we count.
#
# ## Play
#
# Choose a model, a mechanism and an input. You see what was written, and what it made of the input. Compare the loop,
# traced and scripted, on nine rows.

# %%
cu.mechanism_explorer(trials)

# %% [markdown]
# ## The usual cure for a branch: torch.where
#
# The default exporter refuses a Python `if` over data. Most branches only choose between two values. For that,
# [`torch.where`](https://docs.pytorch.org/docs/stable/generated/torch.where.html) is enough: it computes both sides and
# takes one of them, for the whole tensor or element by element.


# %%
class Where(nn.Module):
    def forward(self, x):
        return torch.where(x.sum() > 0, x * 2, x - 1)


inputs = {"positive sum (the example)": (positive,), "negative sum": (negative,)}
chosen = attempts("where", Where().eval(), (positive,), inputs)
assert all(trial.verdict == "right" for trial in chosen.values())
assert {"Mul", "Sub", "Where"} <= set(
    cu.op_histogram(chosen["default"].model).index
)  # both sides are computed
show(chosen)

# %% [markdown]
# Right, with every mechanism: there is no branch left that could be lost.
#
# ## A branch that stays in the file: torch.cond
#
# What if one side is expensive, or must not run?
# [`torch.cond`](https://docs.pytorch.org/docs/stable/generated/torch.cond.html) takes the condition, a function for
# each branch, and their arguments, and only one of the two runs.


# %%
def doubled(x):
    return x * 2


def lowered(x):
    return x - 1


class Conditional(nn.Module):
    def forward(self, x):
        return torch.cond(x.sum() > 0, doubled, lowered, (x,))


living = attempts("cond", Conditional().eval(), (positive,), inputs)
show(living)

# %% [markdown]
# The default exporter sees *both* functions, so both are in the file: an `If`, as scripting makes it. The two older
# mechanisms do not know `torch.cond`. It has rules: both branches must give results of the same shape and dtype, for
# example.


# %%
class Uneven(nn.Module):
    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda x: x.sum(0), lambda x: x - 1, (x,))


wide = torch.ones(3, 4)
uneven = cu.try_export(
    by_default,
    Uneven().eval(),
    (wide,),
    "work/03_uneven.onnx",
    {"example": (wide,)},
)
assert uneven.verdict == "refuses"
uneven

# %% [markdown]
# ## A loop that stays in the file: scan and while_loop
#
# For loops there are two such functions. In this version of PyTorch they are in a module whose name begins with
# an underscore, so they may change. `scan` goes through the rows of a tensor and carries a state along:

# %%
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop


class Scanned(nn.Module):
    def forward(self, x):
        def step(h, row):
            h = torch.tanh(row + 0.5 * h)
            return (
                h,
                h.clone(),
            )  # the next state, and what to note down of this step

        last, _every_step = scan(step, torch.zeros_like(x[0]), x)
        return last


# %% [markdown]
# `while_loop` takes a condition and a body. We try it three times: with the row `x[i]`, where `i` is the counting
# tensor; with `index_select` for the same row; and with a condition on the data itself.


# %%
class Counted(nn.Module):
    def forward(self, x):
        def more(i, h):
            return i < x.shape[0]

        def body(i, h):
            return i + 1, torch.tanh(self.row(x, i) + 0.5 * h)

        return while_loop(
            more, body, (torch.zeros((), dtype=torch.int64), torch.zeros_like(x[0]))
        )[1]

    def row(self, x, i):
        return x[i]


class Selected(Counted):
    def row(self, x, i):
        return torch.index_select(x, 0, i.reshape(1)).squeeze(0)


class Halved(nn.Module):
    """Halve x until it is small."""

    def forward(self, x):
        return while_loop(lambda x: x.abs().sum() > 1, lambda x: (x * 0.5,), (x,))[
            0
        ]


# %%
inputs = {
    "five rows (the example)": (five,),
    "nine rows": (nine,),
    "two rows": (two,),
}
insist = ({0: Dim.DYNAMIC},)
loops, living_loop = {}, {}
for module in (Scanned(), Counted(), Selected(), Halved()):
    name = type(module).__name__
    file = f"work/03_{name}.onnx"
    loops[name] = trial = cu.try_export(
        by_default, module.eval(), (five,), file, inputs, dynamic_shapes=insist
    )
    found = cu.op_histogram(trial.model).index if trial.model else []
    living_loop[name] = " ".join({"Scan", "Loop"} & set(found))
assert [trial.verdict for trial in loops.values()] == [
    "right",
    "refuses",
    "right",
    "right",
]
show(loops).assign(operator=living_loop)

# %% [markdown]
# Here is what we found: `scan` exports, as ONNX's [`Scan`](https://onnx.ai/onnx/operators/onnx__Scan.html).
# `while_loop` exports, as [`Loop`](https://onnx.ai/onnx/operators/onnx__Loop.html), for counting and for a condition on
# data. Only the index `x[i]` does not: the body must not turn a tensor into a Python number. `index_select` keeps it a
# tensor.
#
# So the default exporter has both: decisions and loops. It is the one that the report knows under an older name,
# `torch.onnx.dynamo_export`, as something to come.

# %%
with cu.exporter_messages():
    module = torch.jit.script(Gate())
into_default = cu.try_export(
    by_default, module, (positive,), "work/03_script.onnx", {"example": (positive,)}
)
cu.claim(
    "dynamo-export-is-the-future",
    {
        "torch.onnx.dynamo_export does not exist": not hasattr(
            torch.onnx, "dynamo_export"
        ),
        "what it did is the default of torch.onnx.export": signature.parameters[
            "dynamo"
        ].default
        is True,
        "it does not read a Python if over data": trials["if"]["default"].verdict
        == "refuses",
        "it exports torch.cond as If": living["default"].verdict == "right"
        and "If" in cu.op_histogram(living["default"].model),
        "it exports scan and while_loop": living_loop["Scanned"] == "Scan"
        and living_loop["Selected"] == "Loop",
        "it does not take a scripted module": into_default.verdict == "refuses",
    },
)

# %% [markdown]
# ## An operator that the exporter does not know
#
# Suppose your model uses a function that PyTorch does not have, from a NumPy library.
# [`torch.library.custom_op`](https://docs.pytorch.org/docs/stable/library.html) makes an operator of it.
# `register_fake` tells the shape of its result, for tensors without numbers.

# %%
import numpy as np


@torch.library.custom_op("scroll::ricker", mutates_args=())
def ricker(x: torch.Tensor, width: float) -> torch.Tensor:
    """The "Mexican hat" wavelet, (1 - s) · exp(-s / 2) with s = (x / width)²."""
    s = np.square(x.numpy() / np.float32(width))
    return torch.from_numpy((1 - s) * np.exp(-s / 2))


@ricker.register_fake
def _(x, width):
    return torch.empty_like(x)


class Wavelet(nn.Module):
    def forward(self, x):
        return ricker(x, 1.5) + 1


# %%
from pathlib import Path

signal, louder = torch.randn(4, 5), torch.randn(4, 5) * 3
inputs, file = (
    {"a signal (the example)": (signal,), "a louder one": (louder,)},
    "work/03_unknown.onnx",
)
folder = Path("work/03_report")
folder.mkdir(exist_ok=True)
for old in folder.glob("*.md"):
    old.unlink()  # from an earlier run
unknown = {
    "default": cu.try_export(
        by_default,
        Wavelet().eval(),
        (signal,),
        file,
        inputs,
        report=True,
        artifacts_dir=folder,
    ),
    "traced": cu.try_export(by_tracing, Wavelet().eval(), (signal,), file, inputs),
    "scripted": cu.try_export(
        by_scripting, Wavelet().eval(), (signal,), file, inputs
    ),
}
assert all(trial.verdict == "refuses" for trial in unknown.values())
show(unknown)

# %% [markdown]
# None of the three knows it. We asked the default exporter for its **export report** as well: with `report=True` it writes a
# Markdown file into the folder `artifacts_dir`. It begins with a list of the steps:

# %%
(report,) = folder.glob("*.md")
text = report.read_text(encoding="utf-8")
print(text[: text.index("## Error messages")])

# %% [markdown]
# The third step failed, the translation. Further down stand the error, the program as `torch.export` saw it, and a list
# of its operators. Before you send it to somebody, read it: it names files and folders of your machine.
#
# The cure is a translation. We write the operator with ONNX operators, in Python, with **onnxscript**, and hand it over
# in the `custom_translation_table`:

# %%
from onnxscript import FLOAT
from onnxscript import opset18 as op


def ricker_in_onnx(x: FLOAT, width: float):
    ratio = op.Div(x, op.Constant(value_float=width))
    s = op.Mul(ratio, ratio)
    return op.Mul(op.Sub(1.0, s), op.Exp(op.Div(op.Neg(s), 2.0)))


# %%
file = "work/03_wavelet.onnx"
how = {
    "custom_translation_table": {torch.ops.scroll.ricker.default: ricker_in_onnx}
}
wavelet = cu.try_export(
    by_default, Wavelet().eval(), (signal,), file, inputs, **how
)
assert wavelet.verdict == "right"
print(wavelet)
cu.node_table(wavelet.model)[["op", "inputs", "outputs"]]

# %% [markdown]
# ONNX Runtime runs it and does not need our operator: only standard ones are in the file. What does a mistake in the
# translation do? Here the division by 2 is missing:


# %%
def ricker_with_a_mistake(x: FLOAT, width: float):
    ratio = op.Div(x, op.Constant(value_float=width))
    s = op.Mul(ratio, ratio)
    return op.Mul(op.Sub(1.0, s), op.Exp(op.Neg(s)))


# %%
how = {
    "custom_translation_table": {
        torch.ops.scroll.ricker.default: ricker_with_a_mistake
    }
}
mistaken = cu.try_export(
    by_default, Wavelet().eval(), (signal,), "work/03_mistaken.onnx", inputs, **how
)
assert mistaken.verdict == "wrong"
print(mistaken, "· the exporter said:", mistaken.messages or "nothing")

# %% [markdown]
# A file, no error, no warning, and wrong numbers.
#
# ## A gate after every export
#
# A file without an error proves nothing yet. This function keeps a file only if it gives PyTorch's numbers, on inputs that *differ in what matters*: the sign, the length, the batch.


# %%
def export_through_gate(mechanism, module, args, file, inputs, **how):
    module.eval()
    mechanism(module, args, file, **how)
    for name, example in inputs.items():
        found = cu.parity(module, file, example)
        if not found.within:
            Path(file).unlink()
            raise ValueError(f"{name}: {found}")


# %%
inputs = {"positive sum": positive, "negative sum": negative}
passed = {}
for name, mechanism, module in [
    ("traced", by_tracing, Gate()),
    ("scripted", by_scripting, Gate()),
]:
    file = f"work/03_gate_{name}.onnx"
    try:
        with cu.exporter_messages():
            export_through_gate(mechanism, module, (positive,), file, inputs)
        passed[name] = "kept"
    except ValueError as error:
        passed[name] = f"thrown away. {error}"
assert passed["scripted"] == "kept" and "negative sum" in passed["traced"]
pd.Series(passed, name="the gate").to_frame()

# %% [markdown]
# Does `verify=True` of `torch.onnx.export` do the same? We export twice with it: the mistaken translation, and the loop
# with `Dim.AUTO`.

# %%
file, says = "work/03_verified.onnx", {}
with cu.exporter_messages() as said:
    by_default(Wavelet().eval(), (signal,), file, verify=True, **how)
says["the mistaken translation"] = [
    message for message in said if "difference" in message
]
with cu.exporter_messages() as said:
    by_default(
        Reader().eval(), (five,), file, verify=True, dynamic_shapes=({0: Dim.AUTO},)
    )
says["the loop, written out"] = [
    message for message in said if "difference" in message
]
assert says["the mistaken translation"] and not says["the loop, written out"]
assert not cu.parity(Reader(), file, nine).within
pd.Series(says, name="verify says").str.join(" ").to_frame()

# %% [markdown]
# It finds the mistake in the formula. It does not find the loop that reads five rows only, although that file is wrong
# for nine: `verify` looks at your example, and on the example a file with fixed sizes is always right.
#
# ## The report's listing
#
# Now the export from the report, as it is printed there, with `pretrained=True`. Where there is no network, the weights
# are random; nothing else changes. The exporter prints its steps; we hide them.

# %%
import contextlib
import io

import torchvision
from course_utils.data import impatient_network

screen = io.StringIO()  # the download's progress
with (
    cu.exporter_messages() as said_first,
    impatient_network(),
    contextlib.redirect_stdout(screen),
    contextlib.redirect_stderr(screen),
):
    try:
        model = torchvision.models.resnet18(pretrained=True)
    except (OSError, RuntimeError):  # no network, or a download that breaks
        model = torchvision.models.resnet18(pretrained=False)
model.eval()
dummy_input = torch.randn(1, 3, 224, 224, device="cpu")
pd.Series(
    dict.fromkeys(m.partition(". The current")[0] for m in said_first).keys(),
    name="warnings",
).to_frame()

# %%
with cu.exporter_messages(), contextlib.redirect_stdout(screen):
    written_program = torch.onnx.export(
        model,
        dummy_input,
        "work/03_resnet18.onnx",
        verbose=True,
        input_names=["input_image"],
        output_names=["classification_scores"],
        opset_version=14,
    )

# %%
resnet = onnx.load("work/03_resnet18.onnx", load_external_data=False)
sizes = {
    p.name: f"{p.stat().st_size / 1e6:.1f} MB"
    for p in sorted(Path("work").glob("03_resnet18.onnx*"))
}
print("opset asked for: 14, written:", resnet.opset_import[0].version)
pd.Series(sizes, name="size").to_frame()

# %% [markdown]
# It works, with three surprises: `pretrained` is an old word for `weights`; the opset is not the one asked for; and
# there are **two** files. Whoever copies only the first one has a model without weights. `external_data=False` makes
# one file.

# %%
single = "work/03_resnet18_single.onnx"
written_program.save(single, external_data=False)
cu.claim(
    "report-export-snippet",
    {
        "pretrained=True is deprecated": any(
            "pretrained" in m and "deprecated" in m for m in said_first
        ),
        "the file gives PyTorch's numbers": cu.parity(
            model, "work/03_resnet18.onnx", dummy_input
        ).within,
        "it has the names that were given": [
            v.name for v in (*resnet.graph.input, *resnet.graph.output)
        ]
        == ["input_image", "classification_scores"],
        "it is not in the opset that was asked for": resnet.opset_import[0].version
        != 14,
        "the weights lie in a second file": Path("work/03_resnet18.onnx.data")
        .stat()
        .st_size
        > 100 * Path("work/03_resnet18.onnx").stat().st_size,
        "external_data=False writes one file": Path(single).stat().st_size > 4e7,
    },
)

# %% [markdown]
# ## The report's comparison, measured
#
# The report ends with a table of the three methods:
#
# | | tracing | scripting | dynamo |
# |---|---|---|---|
# | control flow | none | in full | yes (Python bytecode) |
# | how hard to use | easy (a CNN works at once) | medium (wants types) | hard (still in beta) |
# | reliable | medium (silent errors) | high | high |
# | recommended for | vision and text, simple logic | complex logic, production | the future |
#
# Here is the same table, filled in by what ran in this lesson. What the report calls *dynamo* is our *default*. Two
# rows need runs that we have not made yet: `scan`, and code without types, in each of the three mechanisms.

# %%
any_rows = {"five rows (the example)": (five,), "nine rows": (nine,)}
scanned = attempts("scan", Scanned().eval(), (five,), any_rows, **any_length)
untyped = attempts("untyped", Untyped().eval(), ([a, b],), {"two parts": ([a, b],)})
leaving = {
    name: [
        m
        for m in trials["plain CNN"][name].messages
        if "will be removed" in m or "deprecated" in m
    ]
    for name in MECHANISMS
}

# %%
verdicts = pd.DataFrame(trials).T.map(lambda trial: trial.verdict)
more = {
    "torch.where": chosen,
    "torch.cond": living,
    "scan": scanned,
    "code without types": untyped,
}
more = pd.DataFrame(more).map(lambda trial: trial.verdict).T
rows = {
    ("control flow", "a Python if"): verdicts.loc["if"],
    ("control flow", "a Python loop"): verdicts.loc["loop"],
    ("control flow", "torch.where"): more.loc["torch.where"],
    ("control flow", "torch.cond"): more.loc["torch.cond"],
    ("control flow", "scan"): more.loc["scan"],
    ("how hard to use", "a plain CNN"): verdicts.loc["plain CNN"],
    ("how hard to use", "code without types"): more.loc["code without types"],
    ("reliable", "silently wrong, of 5"): (verdicts == "wrong").sum(),
    ("recommended for", "PyTorch warns: it will go"): {
        name: "yes" if m else "no" for name, m in leaving.items()
    },
}
pd.DataFrame(rows).T

# %% [markdown]
# Without changes to the models, scripting is right on most. That does not recommend it: PyTorch warns that it will be
# removed. So we count once more, and add a fourth column: the default exporter, with each model changed. The `if`
# becomes `torch.where`, the loop `scan`, the list one tensor with a free axis, and `eval()` is called.


# %%
class Stacked(nn.Module):
    def forward(self, options: dict[str, torch.Tensor], parts):
        return parts.sum(0) * options["scale"]


stack2, stack3 = torch.stack([a, b]), torch.stack([a, b, c])
stacks = {
    "two parts (the example)": (twice, stack2),
    "three parts": (twice, stack3),
}
free_list = {"dynamic_shapes": ({"scale": {}}, {0: Dim.DYNAMIC})}
batches = {"a batch (the example)": (batch,), "another batch": (other,)}
cured = {
    "plain CNN": trials["plain CNN"]["default"],
    "if": chosen["default"],
    "loop": scanned["default"],
    "list and dict": cu.try_export(
        by_default,
        Stacked(),
        (twice, stack2),
        "work/03_stack.onnx",
        stacks,
        **free_list,
    ),
    "train mode": cu.try_export(
        by_default, learner.eval(), (batch,), "work/03_eval.onnx", batches
    ),
}
assert list(cured) == list(trials)

# %%
import matplotlib.pyplot as plt

colours = {
    "right": "#009E73",
    "stops": "#56B4E9",
    "refuses": "#0072B2",
    "wrong": "#D55E00",
}
board = verdicts.assign(cured=[trial.verdict for trial in cured.values()])
board.columns = [
    "default",
    "traced (legacy)",
    "scripted (deprecated)",
    "default, with the cures",
]
counted = board.apply(lambda column: column.value_counts()).fillna(0)
ax = (
    counted.reindex(list(colours))
    .fillna(0)
    .T.iloc[::-1]
    .plot.barh(stacked=True, color=list(colours.values()))
)
ax.set_title(
    f"With the cures, the default exporter is right on {board.iloc[:, 3].eq('right').sum()} of {len(board)} models"
)
ax.set_xlabel("models")
ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

# %%
cu.claim(
    "methods-table",
    {
        "tracing has no control flow, and is silently wrong": verdicts.loc[
            ["if", "loop"], "traced"
        ]
        .eq("wrong")
        .all(),
        "scripting has it in full": verdicts.loc[["if", "loop"], "scripted"]
        .eq("right")
        .all(),
        "but PyTorch says that tracing and scripting are on their way out": bool(
            leaving["traced"] and leaving["scripted"]
        ),
        "a plain CNN is easy for all three": verdicts.loc["plain CNN"]
        .eq("right")
        .all(),
        "only scripting wants types": list(
            more.loc["code without types", list(MECHANISMS)]
        )
        == ["right", "right", "refuses"],
        "scripting wrote no wrong file": "wrong" not in set(verdicts["scripted"]),
        "and with a dict it writes what ONNX Runtime does not load, where the others are right on the example": {
            name: trial.outcomes["two parts (the example)"].verdict
            for name, trial in trials["list and dict"].items()
        }
        == {"default": "right", "traced": "right", "scripted": "stops"},
        "the third column is now the default, without a warning": not leaving[
            "default"
        ],
        "it refuses Python's if and loop": verdicts.loc[["if", "loop"], "default"]
        .eq("refuses")
        .all(),
        "and takes them as torch.where, torch.cond and scan": more.loc[
            ["torch.where", "torch.cond", "scan"], "default"
        ]
        .eq("right")
        .all(),
        "it is not free of wrong files either": verdicts.loc[
            "train mode", "default"
        ]
        == "wrong",
        "with its cure, it is right on each of the five models": board[
            "default, with the cures"
        ]
        .eq("right")
        .all(),
    },
)

# %% [markdown]
# ## What to do with your model
#
# | your model has | what to do |
# |---|---|
# | no decision and no loop | the default exporter, after `eval()` |
# | an `if` that chooses between two values | `torch.where` |
# | an `if` of which one side is expensive or must not run | `torch.cond` |
# | a loop over the rows of an input | one operator for all rows, if there is one; else `scan` |
# | a loop that ends on a condition | `while_loop` |
# | a list of any length | one tensor with a free axis |
# | an operator that the exporter does not know | `custom_translation_table` |
#
# `dynamo=False` is left for two cases: the runtime needs an opset below 18 ([lesson 02](02_opsets.ipynb)), or the
# default exporter fails on a model that you may not change. Then test every branch and every size.

# %% [markdown]
# ## Recap
#
# - The default exporter runs your code with fake tensors. Tracing runs it with your example. Scripting reads the
#   source.
# - Tracing keeps one branch and one length, and the file contains no warning. The default exporter refuses most such models.
# - It can be wrong, too: `Dim.AUTO` with a Python loop, a forgotten `eval()`.
# - A branch becomes `torch.where`. Where only one side may run, `torch.cond` gives `If`; `scan` gives `Scan`,
#   `while_loop` gives `Loop`.
# - An unknown operator is translated with onnxscript, in `custom_translation_table`. `report=True` says which step
#   failed.
# - After every export: parity, on inputs that differ in what matters.
#
# **Next:** the [exercises of this lesson](exercises/03_tracing_vs_scripting.ipynb). After them,
# [04 · Dynamic axes](04_dynamic_axes.ipynb) is about sizes that are not known beforehand.
