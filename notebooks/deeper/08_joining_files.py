# %% [markdown]
# # 08 · Joining files
#
# You were given an ONNX file and the sentence "pixels divided by 255, minus 0.286, divided by 0.353". There is no PyTorch
# code, so you cannot export a module that holds the preparation. But two ONNX files can be joined to one.
#
# You need lessons [08](../08_deployment.ipynb) and [01](../01_graph_structure.ipynb) (a graph as text).
#
# After this page you will be able to
#
# - write pre- and post-processing as small ONNX models, as text,
# - join them to a file that you were given,
# - find out when the parts do not fit.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# This is the file: float32 pictures in, logits out, a free batch.

# %%
import torch

example = torch.randn(2, 1, 28, 28)
program = torch.onnx.export(
    cu.fashion_resnet(),
    (example,),
    input_names=["image"],
    output_names=["logits"],
    dynamic_shapes=({0: torch.export.Dim("batch")},),
    verbose=False,
)
program.save("work/08_joining_files.onnx")

# %%
import onnx

network = onnx.load("work/08_joining_files.onnx")

# %% [markdown]
# ## Two small models
#
# A part needs the IR version and the [opset](../glossary.md#opset) of the model that it will be joined to. Both stand in
# the first line of a model's text.

# %%
opset = next(o.version for o in network.opset_import if not o.domain)
header = f'<ir_version: {network.ir_version}, opset_import: ["": {opset}]>'
header

# %% [markdown]
# The first part takes bytes and gives normalised float32. Its constants stand between `<` and `>`.

# %%
text = """
    before (uint8[batch, 28, 28] pixels) => (float[batch, 1, 28, 28] prepared)
    <float most = {255.0}, float mean = {0.286}, float deviation = {0.353},
     int64[1] channel = {1}> {
        numbers = Cast<to = 1>(pixels)
        between_0_and_1 = Div(numbers, most)
        centred = Sub(between_0_and_1, mean)
        normalised = Div(centred, deviation)
        prepared = Unsqueeze(normalised, channel)
    }"""
before = onnx.parser.parse_model(header + text)

# %% [markdown]
# The second one takes [logits](../glossary.md#logits) and gives a label and probabilities.

# %%
text = """
    after (float[batch, 10] scores)
        => (int64[batch] label, float[batch, 10] probability) {
        probability = Softmax<axis = 1>(scores)
        label = ArgMax<axis = 1, keepdims = 0>(scores)
    }"""
after = onnx.parser.parse_model(header + text)

# %% [markdown]
# ## Join
#
# [`compose.merge_models`](https://onnx.ai/onnx/api/compose.html) joins two models: `io_map` says which output of the first
# becomes which input of the second. We try it as it is.

# %%
from onnx import compose

try:
    compose.merge_models(before, network, io_map=[("prepared", "image")])
except ValueError as error:
    print(error)

# %% [markdown]
# Both parts have something called `mean`, and names must be unique in a graph. `add_prefix` renames everything inside the
# network; its inputs and outputs keep their names. Do this with every file that you do not know.

# %%
keep = {"rename_inputs": False, "rename_outputs": False}
network = compose.add_prefix(network, "net_", **keep)
front = compose.merge_models(before, network, io_map=[("prepared", "image")])
whole = compose.merge_models(front, after, io_map=[("logits", "scores")])

# %% [markdown]
# The checker infers all shapes and compares them with what is stated. Then we look at the result: it begins with `Cast` and
# ends with `Softmax` and `ArgMax`.

# %%
onnx.checker.check_model(whole, full_check=True)
onnx.save(whole, "work/08_joining_files.onnx")
cu.show("work/08_joining_files.onnx")

# %% [markdown]
# Does it compute what the parts compute? The reference is the model in PyTorch, with the preparation of its training.

# %%
import numpy as np
import onnxruntime as ort

pixels = cu.fashion_mnist("test")[0][:200]
cpu = {"providers": ["CPUExecutionProvider"]}
session = ort.InferenceSession("work/08_joining_files.onnx", **cpu)

# %%
label, probability = session.run(["label", "probability"], {"pixels": pixels})
label[:6]

# %% [markdown]
# These are labels. Are they the right ones?

# %%
with torch.no_grad():
    scores = cu.fashion_resnet()(torch.from_numpy(cu.normalize(pixels)))
expected = torch.softmax(scores, 1).numpy()
assert (label == expected.argmax(1)).all()
assert np.allclose(probability, expected, atol=1e-5)
float(np.abs(probability - expected).max())

# %% [markdown]
# It does, up to rounding. Write such a comparison for every file that you join.
#
# ## When the parts do not fit
#
# A part for another opset is refused at once.

# %%
older = onnx.parser.parse_model(header.replace(f'"": {opset}', '"": 13') + text)
try:
    compose.merge_models(front, older, io_map=[("logits", "scores")])
except ValueError as error:
    print(error)

# %% [markdown]
# A wrong shape is not. This part forgets the channel: it gives `[batch, 28, 28]`, and the network takes
# `[batch, 1, 28, 28]`. Joining works.

# %%
flat = """
    flat (uint8[batch, 28, 28] pixels) => (float[batch, 28, 28] prepared) {
        prepared = Cast<to = 1>(pixels)
    }"""

# %%
flat = onnx.parser.parse_model(header + flat)
wrong = compose.merge_models(flat, network, io_map=[("prepared", "image")])

# %% [markdown]
# The checker says nothing either:

# %%
onnx.checker.check_model(wrong)

# %% [markdown]
# With `full_check=True` it also infers all shapes.

# %%
try:
    onnx.checker.check_model(wrong, full_check=True)
except onnx.shape_inference.InferenceError as error:
    print(str(error)[:160])
else:
    raise AssertionError("the full check finds the wrong rank")

# %% [markdown]
# Now the mistake is found, at the first operator that cannot work with the shape.

# %% [markdown]
# ## Recap
#
# - Join files when a file is all you have. When you have the code, export one module instead: then there is one definition.
# - A part needs the IR version and the opset of the file that it is joined to.
# - Give the given file a prefix, check the result with `full_check=True`, and compare its numbers.
#
# **Now you:** tasks 8.1, 8.2 and 8.6 of the [exercises](../exercises/08_deployment.ipynb). **Back:**
# [08 · Deployment](../08_deployment.ipynb).
