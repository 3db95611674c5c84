# %% [markdown]
# # 09 · Troubleshooting
#
# The service has a new model. It loads, and some of its answers are wrong. Another team says that their model became
# slower in ONNX Runtime. Which question do you ask first, and which tool answers it?
#
# You need [lesson 03](03_tracing_vs_scripting.ipynb) and [lesson 05](05_execution_providers.ipynb).
#
# After this lesson you will be able to
#
# - examine any file with one call, and say what such an examination cannot see,
# - tell whether a wrong number comes from ONNX Runtime or from the file,
# - find the first node that computes something else than PyTorch,
# - say whether calls or loops make a model slow, and what to do.

# %%
import course_utils as cu

cu.setup()

# %% tags=["remove-input"]
cu.picture("first_question")

# %% [markdown]
# Ask the questions in this order. This lesson shows the doctor (the second), wrong numbers and slow models (the last two). If
# there is no file, read [It does not export](deeper/09_it_does_not_export.ipynb).
#
# ## The doctor
#
# `cu.doctor` reads a file and lists findings: what, where, why, and what to do. We give it a file with several
# mistakes: numbers of 64 bits, no `eval()`, a weight that is not a number, and a fixed batch.

# %%
import torch
from torch import nn

first, second = nn.Linear(8, 64), nn.Linear(64, 3)
sick = nn.Sequential(first, nn.ReLU(), nn.Dropout(0.5), second).double().train()
second.weight.data[0, 0] = float("nan")

# %% [markdown]
# We also ask the [exporter](glossary.md#exporter)
# ([its documentation](https://docs.pytorch.org/docs/stable/onnx_export.html)) for an [opset](glossary.md#opset) of
# years ago. What it says while it
# works goes into `heard`.

# %%
rows = torch.randn(4, 8, dtype=torch.float64)
with cu.exporter_messages() as heard:
    torch.onnx.export(
        sick, (rows,), "work/09_sick.onnx", opset_version=9, verbose=False
    )

# %% tags=["remove-input"]
cu.quiz("09_troubleshooting", 1)

# %%
found = cu.doctor("work/09_sick.onnx", requested_opset=9, run=True)
assert {"weights-not-finite", "outputs-nan", "float64"} <= set(found.codes)
found

# %% [markdown]
# All five were found. With `run=True` the doctor also runs the model with made-up inputs, in another process, with
# limits
# of time and memory. So it saw that one NaN among the weights makes outputs NaN. The file does not hold the opset that
# we wanted; we had to say it.
#
# Each finding has a *code*, such as `float64`, which scripts can read. Now we follow the cures. The NaN becomes 0 here;
# in a real project, find out where it came from.

# %%
sick.float().eval()
second.weight.data.nan_to_num_()
batch = torch.export.Dim("batch")
file, how = "work/09_cured.onnx", {"dynamic_shapes": ({0: batch},)}
program = torch.onnx.export(sick, (rows.float(),), file, verbose=False, **how)

# %%
cured = cu.doctor(file, run=True)
assert not cured.errors
cured

# %% [markdown]
# No error is left. If there is a note on names of folders, the exporter wrote them on the nodes:
# [What a file tells](deeper/01_metadata.ipynb) takes them out. On a server or in a build, use the command:
#
#     python -m course_utils.doctor model.onnx
#
# Its exit status is 1 when there is an error, so a build can stop; `--json` writes what programs read.
#
# ### What the doctor cannot see
#
# A file does not say what it *should* compute. `Gate` doubles its input where the sum is positive, and lowers it by one
# elsewhere. [Tracing](glossary.md#tracing) it with a positive example keeps one side only, as in lesson 03.

# %%
from course_utils.lab.control_flow import Gate

positive, file = torch.full((3,), 5.0), "work/09_gate.onnx"
with cu.exporter_messages():
    torch.onnx.export(Gate(), (positive,), file, dynamo=False)
cu.doctor(file, run=True).errors

# %% [markdown]
# No error. We compare with PyTorch, for a positive and for a negative sum:

# %%
right, wrong = cu.parity(Gate(), file, positive), cu.parity(Gate(), file, -positive)
assert right.within and not wrong.within
print(right, wrong, sep="\n\n")

# %% [markdown]
# Only the comparison shows that the file is wrong. Nor can the doctor know how the model will be called, on which
# machine, or what a quantizer will make of it.
#
# ## Its numbers are wrong
#
# Two things compute: the file, and ONNX Runtime, which first changes the graph ([lesson 06](06_fusion.ipynb)). So the
# first question is: are the numbers the same with its optimisations switched off? This model multiplies `x` by one over
# `x`:


# %%
class Ratio(nn.Module):
    def forward(self, x):
        return x * (torch.ones(()) / x)


tiny = torch.tensor([1e-39, 0.001, 100])
file, names = "work/09_ratio.onnx", {"input_names": ["x"]}
ratio = Ratio().eval()
torch.onnx.export(ratio, (tiny,), file, verbose=False, **names)
cu.parity(ratio, file, tiny)

# %% [markdown]
# The first number differs. The switch is a
# [session option](https://onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html):

# %%
import onnxruntime as ort

cpu, off = ["CPUExecutionProvider"], ort.SessionOptions()
off.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
plain = ort.InferenceSession(file, off, providers=cpu)
plain.run(None, {"x": tiny.numpy()})[0]

# %% [markdown]
# And as usual, with all optimisations:

# %%
usual = ort.InferenceSession(file, providers=cpu)
print(cu.node_table(cu.optimized(file))[["op", "inputs"]])
usual.run(None, {"x": tiny.numpy()})[0]

# %% [markdown]
# Switched off, ONNX Runtime gives PyTorch's numbers: one over `1e-39` is more than float32 can hold. Switched on, it
# has one node left, and divides `x` by `x`. That is the same in algebra, and here even better, but not what the file says. So
# the file is right.
# If such a difference harms you, set a lower level, and report it with the file.
#
# Now the other case. A script has turned one weight of our trained network around. We plant this fault ourselves, in
# the stage `stage2.1`:

# %%
import onnx
from onnx import numpy_helper

model, image = cu.fashion_resnet(), torch.randn(1, 1, 28, 28)
file = "work/09_turned.onnx"
torch.onnx.export(model, (image,), file, verbose=False, **names)
turned = onnx.load(file)

# %%
stored = [t for t in turned.graph.initializer if "stage2.1" in t.name]
weight = next(t for t in stored if len(t.dims) == 4)
values = numpy_helper.to_array(weight)[:, :, ::-1, ::-1].copy()
weight.CopyFrom(numpy_helper.from_array(values, weight.name))
onnx.save(turned, file)

# %% tags=["remove-input"]
cu.quiz("09_troubleshooting", 2)

# %%
onnx.checker.check_model(file, full_check=True)
cu.doctor(file, run=True).errors

# %% [markdown]
# Neither the [checker](https://onnx.ai/onnx/api/checker.html) nor the doctor finds an error. Now the switch:

# %%
x, ways = {"x": image.numpy()}, (None, off)
pair = [ort.InferenceSession(file, way, providers=cpu) for way in ways]
usual, plain = (session.run(None, x)[0] for session in pair)
abs(usual - plain).max()

# %% [markdown]
# The switch changes nothing but rounding. It could still be a fault of ONNX Runtime, so we ask another runtime, the
# [reference](https://onnx.ai/onnx/api/reference.html) of the package onnx:

# %%
from onnx.reference import ReferenceEvaluator

witness = ReferenceEvaluator(file).run(None, x)[0]
assert abs(plain - witness).max() < 1e-4
abs(plain - witness).max()

# %% [markdown]
# Both give the same numbers. So the fault is in the file:

# %%
compared = cu.parity(model, file, image)
assert not compared.within
compared

# %% [markdown]
# `cu.parity` compares every tensor inside both runs by value, and names the first node whose result PyTorch never
# had: the
# one that reads the weight that we turned. [Where the numbers part](deeper/09_where_the_numbers_part.ipynb) does this
# by
# hand.
#
# ## It is slow: calls
#
# First look where it runs: the profile says which provider computed each node ([lesson 05](05_execution_providers.ipynb)). Then
# count the calls. Each call of a
# [session](glossary.md#session) costs something before the first node runs, however small the model is. Here is a tiny
# one, with a free batch:

# %%
layer, file = nn.Linear(8, 8).eval(), "work/09_tiny.onnx"
how = {"dynamic_shapes": ({0: batch},), "verbose": False}
torch.onnx.export(layer, (torch.randn(2, 8),), file, **names, **how)
session = ort.InferenceSession(file, providers=cpu)

# %% [markdown]
# Two hundred rows come in. We run them one by one, and all in one call.

# %% tags=["remove-input"]
cu.quiz("09_troubleshooting", 3)

# %%
many = torch.randn(200, 8).numpy()
ways = {
    "one by one": lambda: [session.run(None, {"x": row[None]}) for row in many],
    "together": lambda: session.run(None, {"x": many}),
}
cu.compare(ways, rounds=8, seconds=2)

# %% [markdown]
# The work is the same; nearly all of the time was the price of 200 calls. So put more rows into one call. Where each
# row
# must be answered at once, merge small models that follow each other into one file, or
# [bind the memory](https://onnxruntime.ai/docs/performance/tune-performance/iobinding.html).
# [Tiny models](deeper/09_tiny_models.ipynb) counts what a call does, and shows when PyTorch wins.
#
# ## It is slow: loops
#
# A traced `for` is written out, step by step. `Reader` reads a sequence row by row; we trace it with 100 rows.

# %%
from course_utils.lab.control_flow import Reader

hundred, file = torch.randn(100, 16), "work/09_unrolled.onnx"
with cu.exporter_messages():
    torch.onnx.export(Reader(), (hundred,), file, dynamo=False, **names)
cu.op_histogram(file).to_frame().T

# %% [markdown]
# There is one `Tanh` for each row. What does the doctor say?

# %%
report = cu.doctor(file)
assert "loop-unrolled" in report.codes
report

# %% [markdown]
# The length is frozen, and every copy must be read, checked and optimised when the session starts. With `scan`, as in
# lesson 03, the loop stays in the file; [Unrolled loops](deeper/09_unrolled_loops.ipynb) measures what that saves.
# Where neither calls nor loops explain the time,
# [ask the profile](deeper/09_where_the_time_went.ipynb).
#
# ## Play
#
# Choose a symptom, and think of cause and cure before you read them. The sixteen symptoms are those of the hospital.
# The
# words are those of the installed versions.

# %%
cu.symptom_explorer()

# %% [markdown]
# ## Recap
#
# - Use `cu.doctor` for every file that you did not make. It knows what is in the file, and not what should be in it.
# - Wrong numbers: switch the optimisations off. If they become right, ONNX Runtime changed them. If they stay wrong, ask the
#   reference. If it agrees with ONNX Runtime, use `cu.parity` to find the first wrong node.
# - Give a tiny model more rows in one call unless each row must be answered at once; then bind its memory.
# - Write a loop with `scan` unless its length never changes and is small: an unrolled loop costs start time.
#
# **Now you:** the [hospital](exercises/09_troubleshooting.ipynb), sixteen cases in four wards. **Next:**
# [10 · Capstone](10_capstone.ipynb).
#
# **Deeper:** [Tiny models](deeper/09_tiny_models.ipynb) · [Unrolled loops](deeper/09_unrolled_loops.ipynb) ·
# [It does not export](deeper/09_it_does_not_export.ipynb) ·
# [Its shapes are unknown](deeper/09_unknown_shapes.ipynb) ·
# [Where the time went](deeper/09_where_the_time_went.ipynb) ·
# [Where the numbers part](deeper/09_where_the_numbers_part.ipynb) ·
# [Memory and containers](deeper/09_memory_and_containers.ipynb)
