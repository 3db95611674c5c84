# %% [markdown]
# # 01 · Step by step
#
# Your model gives other numbers than PyTorch in the sixth digit. Is that an error, or is it rounding? To decide, you
# look at single steps, and you know how much two correct programs may differ.
#
# You need the [core of lesson 01](../01_graph_structure.ipynb).
#
# After this page you will be able to
#
# - run a model node by node, and look at every tensor on the way,
# - choose a tolerance when you compare two programs,
# - define an operator of your own as a function, and put its definition in place.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## One node after the other
#
# The [reference evaluator](https://onnx.ai/onnx/api/reference.html) of the `onnx` package is slow and simple: it
# follows the words of the standard. With `verbose` it prints each node as it runs. Here is one layer of a network:

# %%
import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 18]>
tiny (float[batch, 3] x) => (float[batch, 2] y)
<float[3, 2] W = {1, -2, 3, 4, -5, 6}, float[2] b = {0.5, -0.5}>
{ xw = MatMul(x, W)  s = Add(xw, b)  y = Relu(s) }""")
feed = {"x": np.array([[1, 1, 1], [1, 0, -1]], dtype=np.float32)}
outputs = ReferenceEvaluator(model, verbose=4).run(None, feed)

# %% [markdown]
# Each line with an arrow is a node: its operator, what it reads, what it writes. The lines with a plus hold the values:
# `C` a constant, `I` an input, then the result of each node.
#
# The same idea for a trained network:

# %%
import torch

fashion_resnet = cu.fashion_resnet()
torch.onnx.export(
    fashion_resnet,
    (torch.randn(2, 1, 28, 28),),
    "work/01_step_by_step.onnx",
    input_names=["image"],
    dynamic_shapes=({0: torch.export.Dim("batch")},),
    external_data=False,
    verbose=False,
)
trained = onnx.load("work/01_step_by_step.onnx")

# %% [markdown]
# Move the slider. Each step shows a node, what it reads, and what it writes. Watch how the picture becomes smaller, and
# the channels more abstract.

# %%
pictures = cu.normalize(cu.fashion_mnist("test")[0][:8])
cu.step_through(trained, {"image": pictures[:1]})

# %% [markdown]
# ## The same result everywhere?
#
# The standard says what an operator computes, so every program should give the same numbers. We ask four programs for
# the logits of the same eight pictures. First PyTorch, then ONNX Runtime, which rewrites the graph before it runs it:

# %%
import onnxruntime as ort

file, cpu = "work/01_step_by_step.onnx", ["CPUExecutionProvider"]
with torch.no_grad():
    answers = {"PyTorch": fashion_resnet(torch.from_numpy(pictures)).numpy()}
session = ort.InferenceSession(file, providers=cpu)
(answers["ORT, optimised"],) = session.run(None, {"image": pictures})

# %% [markdown]
# Then ONNX Runtime with the graph as it is written in the file:

# %%
options = ort.SessionOptions()
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
as_written = ort.InferenceSession(file, options, providers=cpu)
(answers["ORT, as written"],) = as_written.run(None, {"image": pictures})

# %% [markdown]
# And the reference evaluator:

# %%
reference = ReferenceEvaluator(trained)
(answers["reference"],) = reference.run(None, {"image": pictures})

# %% [markdown]
# As the measure of truth we take PyTorch in double precision, and look at the largest error of each.

# %%
with torch.no_grad():
    double = cu.fashion_resnet().double()
    truth = double(torch.from_numpy(pictures).double()).numpy()
errors = {name: np.abs(answer - truth).max() for name, answer in answers.items()}

# %% [markdown]
# The picture shows the four errors. Compare them with the largest logit in its title.

# %% tags=["remove-input"]
cu.quiz("01_step_by_step", 1)

# %%
import matplotlib.pyplot as plt

fig, ax = plt.subplots(figsize=(7.2, 2.2))
bars = ax.barh(list(errors), list(errors.values()))
ax.bar_label(bars, fmt="%.1e", padding=3)
ax.invert_yaxis()
worst, largest = max(errors.values()), np.abs(truth).max()
ax.set_title(
    f"No program is exact: errors up to {worst:.0e}, logits up to {largest:.0f}"
)
ax.set_xlabel("largest error of a logit")
plt.show()

# %% [markdown]
# A sum of hundreds of products is rounded at every step, and each program adds in another order. The differences are
# tiny, and no setting removes them. So compare with a tolerance, never with `==`:

# %%
from itertools import combinations

pairs = list(combinations(answers.values(), 2))
equal = [np.array_equal(a, b) for a, b in pairs]
close = [np.allclose(a, b, atol=1e-4) for a, b in pairs]
classes = [np.array_equal(a.argmax(1), b.argmax(1)) for a, b in pairs]
f"of {len(pairs)} pairs: {sum(equal)} equal, {sum(close)} close"

# %% [markdown]
# This holds for float32 on a CPU. A provider may compute in a shorter type, such as
# [bfloat16](../glossary.md#float16-and-bfloat16), with much larger differences.

# %% tags=["hide-input"]
cu.claim(
    "same-result-everywhere",
    {
        "some of the answers differ in their bits": not all(equal),
        "all agree within 1e-4": all(close),
        "their errors are below 1e-5 of the largest logit": worst < 1e-5 * largest,
        "all name the same classes": all(classes),
    },
)

# %% [markdown]
# ## Functions: an operator and its definition
#
# A model can define operators of its own, as a graph of known ones. This is a **function**. A runtime that does not know
# the new operator uses its definition. `Swish` belongs to a [domain](../glossary.md#domain), here `course`: operators
# of different owners may have the same name.

# %%
calls = onnx.parser.parse_model("""
<ir_version: 10, opset_import: ["": 18, "course": 1]>
two_calls (float[n] x) => (float[n] y) {
  h = course.Swish(x)
  y = course.Swish(h)
}
<domain: "course", opset_import: ["": 18]>
Swish (a) => (b) {
  gate = Sigmoid(a)
  b = Mul(a, gate)
}""")
onnx.checker.check_model(calls, full_check=True)

# %% [markdown]
# ONNX Runtime has never heard of `course.Swish`, and runs the file:

# %%
points = {"x": np.linspace(-2, 2, 5, dtype=np.float32)}
session = ort.InferenceSession(calls.SerializeToString(), providers=cpu)
(swish_twice,) = session.run(None, points)
swish_twice

# %% [markdown]
# `onnx.inliner` puts the definition in place of each call. That is useful for a tool that does not know functions.

# %%
import onnx.inliner

inlined = onnx.inliner.inline_local_functions(calls)
assert not inlined.functions
[node.op_type for node in calls.graph.node], [n.op_type for n in inlined.graph.node]

# %% [markdown]
# Two nodes became four. The result is the same:

# %%
(again,) = ReferenceEvaluator(inlined).run(None, points)
assert np.allclose(again, swish_twice, atol=1e-6)

# %% [markdown]
# We compare with a tolerance here, too: the two programs may compute `Sigmoid` in another way.

# %% [markdown]
# ## Recap
#
# - The reference evaluator runs a model node by node, slowly; with `verbose` it prints each one.
# - Two correct programs agree within a tolerance, not in every bit. In float32 use `1e-4` for logits of this size.
# - A larger difference, or another class, is an error to look for ([lesson 09](../09_troubleshooting.ipynb)).
# - A function is an operator with its definition in the file. Inline it for tools that do not know functions.
#
# **Back:** [01 · Graph structure](../01_graph_structure.ipynb). **Next:** [02 · Opsets](../02_opsets.ipynb).
