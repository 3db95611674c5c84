# %% [markdown]
# # 03 · What a file forgets
#
# A file gives PyTorch's numbers on the example and on similar inputs. With a longer sequence, one more tensor in a
# list, or a second run, it gives other numbers. The program is correct, and something of it is not in the file.
#
# You need the [core of lesson 03](../03_tracing_vs_scripting.ipynb).
#
# After this page you will be able to
#
# - recognise a length that was fixed without an error,
# - give a list of tensors a free length,
# - recognise a file that was exported in training mode.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## A length that was fixed without an error
#
# This Python loop reads a sequence row by row. Lesson 03 asked for a free length with `Dim.DYNAMIC`, and the exporter
# refused. [`Dim.AUTO`](https://docs.pytorch.org/docs/stable/export.html) asks the exporter to decide.


# %%
import onnx
import torch
from torch import nn


class Reader(nn.Module):
    def forward(self, x):
        h = torch.zeros_like(x[0])
        for row in x:
            h = torch.tanh(row + 0.5 * h)
        return h


five, nine = torch.randn(5, 3), torch.randn(9, 3)

# %% [markdown]
# The example has five rows:

# %% tags=["remove-input"]
cu.quiz("03_what_a_file_forgets", 1)

# %%
auto, file = ({0: torch.export.Dim.AUTO},), "work/03_forgets_auto.onnx"
torch.onnx.export(
    Reader().eval(), (five,), file, dynamic_shapes=auto, verbose=False
)
cu.parity(Reader(), file, five).within, cu.parity(Reader(), file, nine).within

# %% [markdown]
# There is a file and no warning, and nine rows give wrong numbers. What does the file say of its input, and how many
# steps does it hold?

# %%
print(onnx.printer.to_text(onnx.load(file).graph).splitlines()[0])
cu.op_histogram(file)

# %% [markdown]
# The input may have any length, and five steps are stored. `dynamic_axes` with `dynamo=False` writes the same kind of
# file. Use `Dim.DYNAMIC` where a size must be free: then the export fails, and you know.
#
# ## A list of tensors
#
# A Python function can take a list. A graph has a fixed row of inputs, one per tensor.


# %%
class Mixer(nn.Module):
    def forward(self, parts, options):
        return sum(parts) * options["scale"]


a, b, c = (torch.full((2, 3), value) for value in (1.0, 2.0, 3.0))
file, double = (
    "work/03_forgets_mixer.onnx",
    {"options": {"scale": torch.tensor(2.0)}},
)
torch.onnx.export(Mixer().eval(), ([a, b],), file, kwargs=double, verbose=False)
[given.name for given in onnx.load(file).graph.input]

# %% [markdown]
# List and dict became three inputs, one for each tensor. The list had two parts at the export, so the file takes two: a
# third part has no input. The dict was given in `kwargs`. As the last positional argument it would be taken for the
# keyword arguments of `forward`, and the export would fail.
#
# The cure for the length is one tensor with a free first dimension:


# %%
class Stacked(nn.Module):
    def forward(self, parts, scale):
        return parts.sum(0) * scale


two, three, scale = torch.stack([a, b]), torch.stack([a, b, c]), torch.tensor(2.0)
shapes = ({0: torch.export.Dim.DYNAMIC}, {})
torch.onnx.export(
    Stacked().eval(), (two, scale), file, dynamic_shapes=shapes, verbose=False
)
[cu.parity(Stacked(), file, (parts, scale)).within for parts in (two, three)]

# %% [markdown]
# The same file adds two parts and three.
#
# ## A forgotten eval()
#
# `Dropout` sets values to zero at random while a model learns, and `BatchNorm` uses the statistics of the batch.
# Neither must happen in a file. What if we forget `eval()`?


# %%
learner = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)).train()
for _ in range(50):  # so that BatchNorm has seen something
    learner(torch.randn(64, 4) * 3 + 2)
batch, file = torch.randn(8, 4), "work/03_forgets_learner.onnx"

# %% [markdown]
# We export it in the mode that it is in:

# %% tags=["remove-input"]
cu.quiz("03_what_a_file_forgets", 2)

# %%
with cu.exporter_messages() as said:
    torch.onnx.export(learner, (batch,), file, verbose=False)
said[0]

# %% [markdown]
# The exporter warns and writes a file. Its `Dropout` has a third input, `training_mode`:

# %%
model = onnx.load(file)
stored = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
dropout = model.graph.node[-1]
dropout.op_type, stored[dropout.input[2]]

# %% [markdown]
# It is true. What does that do? We run the file twice on the same input.

# %%
import onnxruntime as ort

ALL = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
NONE = ort.GraphOptimizationLevel.ORT_DISABLE_ALL


def same_twice(file, level):
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    session = ort.InferenceSession(file, options)
    first, second = (session.run(None, {"input": batch.numpy()}) for _ in range(2))
    return bool((first[0] == second[0]).all())


at_the_end = same_twice(file, ALL)
at_the_end

# %% [markdown]
# The two runs differ. Here `Dropout` is the last node. In most networks a layer follows, so we add one, and run that
# file with ONNX Runtime's optimisations and without them.

# %%
longer = nn.Sequential(learner, nn.Linear(4, 2)).train()
with cu.exporter_messages():
    torch.onnx.export(
        longer, (batch,), "work/03_forgets_longer.onnx", verbose=False
    )
middle = [same_twice("work/03_forgets_longer.onnx", level) for level in (ALL, NONE)]
middle

# %% [markdown]
# With optimisations the runs agree: ONNX Runtime takes a `Dropout` out, whatever its `training_mode` is, unless it is
# the last node. So your test passes, and another runtime gives other numbers in every run.
#
# `BatchNorm` is not in the default exporter's file. Was it folded into the layer before as in training, or as in eval
# mode? We export it alone, and compare with PyTorch in eval mode:

# %%
norm, other = learner[:2], {"another batch": (torch.randn(8, 4),)}
alone = cu.try_export(torch.onnx.export, norm, (batch,), file, other, verbose=False)
alone

# %% [markdown]
# As in eval mode, with the stored statistics. Next, the older exporter with the whole model in training mode:

# %%
from functools import partial

by_tracing = partial(torch.onnx.export, dynamo=False)


def by_scripting(module, args, file):
    by_tracing(torch.jit.script(module), args, file)


# %%
ways = {"traced": by_tracing, "scripted": by_scripting}
older = {
    name: cu.try_export(way, learner, (batch,), file, other)
    for name, way in ways.items()
}
older

# %% [markdown]
# Both are right: the older exporter switches the model to eval mode itself, and back afterwards. It can be told to keep
# the mode:

# %%
preserve = torch.onnx.TrainingMode.PRESERVE
told = cu.try_export(by_tracing, norm, (batch,), file, other, training=preserve)
told

# %% [markdown]
# Now the statistics of the batch are in the result. Leave `training=` alone.

# %% tags=["hide-input"]
cu.claim(
    "eval-mode-critical",
    {
        "the default exporter keeps Dropout": dropout.op_type == "Dropout",
        "every run of its file gives other numbers": not at_the_end,
        "in the middle of a graph, ONNX Runtime's optimiser takes it out": middle[
            0
        ],
        "without optimisation it works, there too": not middle[1],
        "it writes BatchNorm as in eval mode": alone.verdict == "right",
        "tracing and scripting switch to eval mode themselves": {
            trial.verdict for trial in older.values()
        }
        == {"right"},
        "unless they are told not to": told.verdict == "wrong",
        "after the exports the module is still in training mode": learner.training,
    },
)

# %% [markdown]
# ## Recap
#
# - Use `Dim.DYNAMIC` where a size must be free. With `Dim.AUTO` a Python loop is written out, and the file is wrong for
#   other lengths.
# - Use one tensor with a free dimension for a list, unless its length never changes.
# - Call `eval()` before every export. ONNX Runtime hides a forgotten one, except at the end of a graph.
# - Compare on inputs of other sizes, and run each of them twice.
#
# **Next:** tasks 3.4 and 3.5 of the [exercises](../exercises/03_tracing_vs_scripting.ipynb), then
# [04 · Dynamic axes](../04_dynamic_axes.ipynb).
