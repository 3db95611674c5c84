# %% [markdown]
# # 03 · Three mechanisms compared
#
# A report recommends tracing for vision models and scripting for production. A colleague has heard that the default
# exporter is still in beta. Which mechanism is right on which model, and would you notice where it is not?
#
# You need the [core of lesson 03](../03_tracing_vs_scripting.ipynb).
#
# After this page you will be able to
#
# - say which mechanism fails on which of five models,
# - tell failures that you notice from those that you do not,
# - choose the cure for each model.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## Five models
#
# The report ends with a comparison. What it calls *dynamo* is the default today.
#
# | | tracing | scripting | dynamo |
# |---|---|---|---|
# | control flow | none | in full | yes (Python bytecode) |
# | how hard to use | easy (a CNN works at once) | medium (wants types) | hard (still in beta) |
# | reliable | medium (silent errors) | high | high |
# | recommended for | vision and text, simple logic | complex logic, production | the future |
#
# We fill it in anew, with five models. Three are in `course_utils/lab/control_flow.py`: `Gate` has an `if`, `Reader` a loop
# over rows, and `Mixer` takes a dict of options and a list of tensors. The other two are built of layers, and one of
# them is left in training mode.

# %%
import torch
from course_utils.lab.control_flow import Gate, Mixer, Reader
from torch import nn

plain = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
learner = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
for _ in range(50):  # so that BatchNorm has seen something
    learner(torch.randn(64, 4) * 3 + 2)

# %% [markdown]
# Here is one export and its test, in full: the loop, traced from five rows, with a free length.

# %%
five, nine = torch.randn(5, 3), torch.randn(9, 3)
any_length = {"input_names": ["x"], "dynamic_axes": {"x": {0: "n"}}}
with cu.exporter_messages():
    torch.onnx.export(
        Reader().eval(),
        (five,),
        "work/03_compared_one.onnx",
        dynamo=False,
        **any_length,
    )
[cu.parity(Reader(), "work/03_compared_one.onnx", x).within for x in (five, nine)]

# %% [markdown]
# Right for the example, wrong for nine rows. We do the same with every model and mechanism. Each model gets an example,
# and inputs that differ from it in what matters:

# %%
x, image, batch = torch.arange(2.0), torch.randn(2, 1, 8, 8), torch.randn(8, 4)
a, b, c = torch.ones(2, 3), torch.randn(2, 3), torch.randn(2, 3)
twice = {"scale": torch.tensor(2.0)}
lists = {"two parts": (twice, [a, b]), "three parts": (twice, [a, b, c])}

# %%
cases = {
    "loop": (Reader().eval(), (five,), {"nine rows": (nine,), "five": (five,)}),
    "if": (Gate().eval(), (x,), {"negative": (-x,), "positive": (x,)}),
    "list and dict": (Mixer().eval(), (twice, [a, b]), lists),
    "train mode": (learner, (batch,), {"other rows": (batch + 1,)}),
    "plain CNN": (plain, (image,), {"another picture": (image + 1,)}),
}

# %% [markdown]
# The three mechanisms become functions of one form. `cu.try_export` exports, feeds each input to the file, and compares
# with PyTorch.

# %%
from functools import partial

by_tracing = partial(torch.onnx.export, dynamo=False)
by_default = partial(torch.onnx.export, external_data=False, verbose=False)


def by_scripting(module, args, file, **how):
    by_tracing(torch.jit.script(module), args, file, **how)


ways = {"traced": by_tracing, "scripted": by_scripting, "default": by_default}


# %%
def attempts(module, args, inputs, **how):
    tried = (module, args, "work/03_compared_trial.onnx", inputs)
    return {name: cu.try_export(way, *tried, **how) for name, way in ways.items()}


asked = {"loop": any_length}  # the other models have no free size
trials = {
    name: attempts(*case, **asked.get(name, {})) for name, case in cases.items()
}

# %% [markdown]
# ## What happened
#
# *Refuses*: no file. *Stops*: a file, and an error on some input. *Wrong*: a file, and wrong numbers.

# %%
import pandas as pd

verdicts = pd.DataFrame(trials).T.map(lambda trial: trial.verdict)
verdicts

# %% [markdown]
# You notice *refuses* and *stops*. For *wrong* there is a warning during the export at most: the file and its run say nothing. The list *stops* for two reasons: scripting writes a dict
# that ONNX Runtime does not load, and the others write a list of two parts, so a third has no input. Look at what was
# written, and at what it made of the input:

# %%
cu.mechanism_explorer(trials)

# %% [markdown]
# Without changes to the models, scripting is right on most. What does PyTorch say of it?

# %%
heard = {name: trial.messages for name, trial in trials["plain CNN"].items()}
going = ("will be removed", "deprecated")
leaving = {w: [m for m in heard[w] if any(g in m for g in going)] for w in ways}
leaving

# %% [markdown]
# Tracing and scripting will be removed. The report also says that scripting wants types. This list has none:

# %%
from course_utils.lab.control_flow import Untyped

untyped = attempts(Untyped().eval(), ([a, b],), {"two parts": ([a, b],)})
untyped

# %% [markdown]
# The other two do not need types.
#
# ## The default exporter, with the cures
#
# The `if` becomes [`torch.where`](https://docs.pytorch.org/docs/stable/generated/torch.where.html) or `torch.cond`, the
# loop `scan`, the list one tensor with a free first dimension. And `eval()` is called.

# %%
from course_utils.lab.control_flow import Conditional, Scanned, Stacked, Where

DYNAMIC = torch.export.Dim.DYNAMIC
freed = {"loop": ({0: DYNAMIC},), "list and dict": ({"scale": {}}, {0: DYNAMIC})}
two, three = (twice, torch.stack([a, b])), (twice, torch.stack([a, b, c]))

# %% [markdown]
# The five models again, in their new form:

# %%
cures = {
    "loop": (Scanned().eval(), *cases["loop"][1:]),
    "if": (Where().eval(), *cases["if"][1:]),
    "list and dict": (
        Stacked().eval(),
        two,
        {"two parts": two, "three parts": three},
    ),
    "train mode": (learner.eval(), *cases["train mode"][1:]),
    "plain CNN": cases["plain CNN"],
}


# %%
def by_default_with(shapes, module, args, inputs):
    file = "work/03_compared_cured.onnx"
    return cu.try_export(
        by_default, module, args, file, inputs, dynamic_shapes=shapes
    )


cured = {
    name: by_default_with(freed.get(name), *case) for name, case in cures.items()
}
living = by_default_with(None, Conditional().eval(), *cases["if"][1:])

# %% [markdown]
# One more column in the table:

# %%
board = verdicts.assign(cured=[cured[name].verdict for name in verdicts.index])
board.columns = ["traced", "scripted", "default", "default, with the cures"]
board

# %% [markdown]
# With its cure, each of the five models is right. `torch.cond` is, too:

# %%
living

# %% [markdown]
# The table of today reads: tracing and scripting will be removed. Tracing is wrong on control flow, without an error. The default
# exporter refuses what it cannot keep; of these five models it is wrong only on the one without `eval()`.

# %% tags=["hide-input"]
cu.claim(
    "methods-table",
    {
        "tracing has no control flow: the file is wrong, without an error": verdicts.loc[
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
        "only scripting wants types": {
            name: trial.verdict for name, trial in untyped.items()
        }
        == {"traced": "right", "scripted": "refuses", "default": "right"},
        "scripting wrote no wrong file": "wrong" not in set(verdicts["scripted"]),
        "with a dict it alone writes what ONNX Runtime does not load": {
            name: trial.outcomes["two parts"].verdict
            for name, trial in trials["list and dict"].items()
        }
        == {"traced": "right", "scripted": "stops", "default": "right"},
        "the third column is now the default, without a warning": not leaving[
            "default"
        ],
        "it refuses Python's if and loop": verdicts.loc[["if", "loop"], "default"]
        .eq("refuses")
        .all(),
        "and takes them as torch.where, torch.cond and scan": {
            trial.verdict for trial in (cured["if"], living, cured["loop"])
        }
        == {"right"},
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
# ## Recap
#
# - Tracing is wrong on an `if` and on a loop, with a warning and without an error. Scripting keeps both, and is deprecated.
# - The default exporter refuses an `if` and a loop of Python, so you notice. For a forgotten `eval()` there is only
#   a warning.
# - Use the default exporter with `torch.where`, `torch.cond`, `scan`, one tensor for a list, and `eval()`, unless the
#   runtime needs an old opset that it does not write, or you may not change the model.
#
# **Next:** the [exercises](../exercises/03_tracing_vs_scripting.ipynb).
# **Deeper:** [The older exporter](03_older_exporter.ipynb) · [What a file forgets](03_what_a_file_forgets.ipynb).
