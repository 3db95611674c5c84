# %% [markdown]
# # 02 · Converting
#
# You have an old file, and nobody has the code that made it. A tool demands a newer opset. Or you have a new file, and
# a device demands an older one. The converter of the package `onnx` may help. When can you trust it?
#
# You need the [core of lesson 02](../02_opsets.ipynb).
#
# After this page you will be able to
#
# - convert a model upwards, and prove that it still computes the same,
# - read what the converter says when there is no way down,
# - decide when to export again.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## Up
#
# We make an old file: our network in [opset](../glossary.md#opset) 9, from the older exporter.

# %%
import onnx
import torch

model, image = cu.fashion_resnet(), torch.randn(2, 1, 28, 28)
old = {"dynamo": False, "opset_version": 9}

# %%
with cu.exporter_messages():
    torch.onnx.export(model, (image,), "work/02_converter_9.onnx", **old)

# %% [markdown]
# One step up, with the [version converter](https://onnx.ai/onnx/api/version_converter.html):

# %%
from onnx import version_converter

nine = onnx.load("work/02_converter_9.onnx")
seventeen = version_converter.convert_version(nine, 17)
cu.parity(model, seventeen, image)

# %% [markdown]
# The converted file gives PyTorch's numbers. The same for four targets:

# %%
up = {n: version_converter.convert_version(nine, n) for n in (14, 17, 21, 23)}
parities = {n: cu.parity(model, up[n], image) for n in up}
assert all(up[n].opset_import[0].version == n for n in up)
{opset: str(found) for opset, found in parities.items()}

# %% [markdown]
# All four are right. What has changed in the file?

# %%
difference = cu.graph_diff(nine, up[23])
assert list(difference.index) == ["opset ai.onnx"]
assert list(nine.graph.node) == list(up[23].graph.node)
difference

# %% [markdown]
# Only the opset differs. For this network no [node](../glossary.md#node) had to change, and the converter leaves the
# [IR version](../glossary.md#ir-version) alone. Other models need more. Here are two operators whose form or meaning
# changed with opset 13:

# %%
eleven = onnx.parser.parse_model("""<ir_version: 7, opset_import: ["": 11]>
    g (float[2, 3, 4] x) => (float[2, 3, 4] y)
    { total = ReduceSum <axes = [2], keepdims = 1> (x)
      centred = Sub(x, total)
      y = Softmax <axis = 1> (centred) }""")
thirteen = version_converter.convert_version(eleven, 13)
[[node.op_type for node in model.graph.node] for model in (eleven, thirteen)]

# %% [markdown]
# Three nodes became seven: `ReduceSum` takes its axes from a `Constant`, and `Softmax` got company. Do they compute the same?


# %%
import numpy as np
import onnxruntime as ort

cpu = ["CPUExecutionProvider"]


def run(model, x):
    session = ort.InferenceSession(model.SerializeToString(), providers=cpu)
    return session.run(None, {"x": x})[0]


x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
rewritten_right = np.allclose(run(thirteen, x), run(eleven, x), atol=1e-6)
rewritten_right

# %% [markdown]
# They do. Is a comparison a waste of time, then? `Hardmax` puts 1 at the place of the largest value and 0 elsewhere. In
# opset 13 its meaning changed in the same way as that of `Softmax`.

# %%
hardmax = onnx.parser.parse_model("""<ir_version: 7, opset_import: ["": 12]>
    g (float[2, 3, 4] x) => (float[2, 3, 4] y) { y = Hardmax <axis = 1> (x) }""")
converted = version_converter.convert_version(hardmax, 13)
onnx.checker.check_model(converted, full_check=True)
[node.op_type for node in converted.graph.node]

# %% [markdown]
# No error from the converter, none from the checker.

# %% tags=["remove-input"]
cu.quiz("02_converter", 1)

# %%
hardmax_delta = float(np.abs(run(converted, x) - run(hardmax, x)).max())
hardmax_delta

# %% [markdown]
# The difference should be zero. This is a mistake of the converter: it renumbered `Hardmax` and forgot that its meaning
# had changed. The checker cannot see that. A comparison of numbers can ([parity](../glossary.md#parity)).
#
# ## Down
#
# We take the network from opset 14, which the converter itself has written, one step down to 13:

# %%
try:
    version_converter.convert_version(up[14], 13)
except RuntimeError as error:
    print(one_down := str(error).rpartition("failed: ")[2])

# %% [markdown]
# *No Adapter* means that nobody has written the rule for this step back. Now a file of the default exporter,
# which we take down to 17:

# %%
new = {"external_data": False, "verbose": False}
with cu.exporter_messages():
    torch.onnx.export(model, (image,), "work/02_converter_new.onnx", **new)
newest = onnx.load("work/02_converter_new.onnx")

# %%
down = version_converter.convert_version(newest, 17)
newest.opset_import[0].version, down.opset_import[0].version

# %% [markdown]
# A model, and no error. The checker says:

# %%
try:
    onnx.checker.check_model(down, full_check=True)
except onnx.checker.ValidationError as error:
    print(complaint := str(error).strip().splitlines()[0])

# %% [markdown]
# The model is broken: `ReduceMean` kept an attribute that opset 17 does not have. ONNX Runtime refuses it, too:

# %%
try:
    ort.InferenceSession(down.SerializeToString(), providers=cpu)
except Exception as error:
    print(refused := type(error).__name__)

# %% [markdown]
# Last, the same file to opset 13:

# %%
try:
    version_converter.convert_version(newest, 13)
except RuntimeError as error:
    print(far_down := str(error).rpartition("failed: ")[2])

# %% [markdown]
# None of the three attempts gave a sound model. To get a lower opset, export again with `dynamo=False` and the opset
# that you need. If the code is lost, change the few nodes by hand and compare.

# %% tags=["hide-input"]
cu.claim(
    "opset-converter",
    {
        "upwards, from 9 to 14, 17, 21 and 23, the network gives PyTorch's numbers": all(
            found.within for found in parities.values()
        ),
        "nodes are rewritten where their form changed": "Reshape"
        in cu.op_histogram(thirteen),
        "there, the result is the same": rewritten_right,
        "it is not the same for Hardmax, and nothing says so": hardmax_delta > 0.5,
        "downwards, from 14 to 13, there is no adapter": "No Adapter" in one_down,
        "none of the three attempts to go down gave a sound model": all(
            [one_down, complaint, refused, far_down]
        ),
    },
)

# %% [markdown]
# ## Recap
#
# - The converter goes up well and down rarely. It changes only the nodes whose form changed.
# - After it: run the checker, load the model, compare the numbers. `Hardmax` passes the first two and is wrong.
# - Use the converter for a file whose code is lost, unless you can export again. For a lower opset, export again.
#
# **Now you:** tasks 2.3 and 2.6 of the [exercises](../exercises/02_opsets.ipynb).
#
# **Back:** [02 · Opsets](../02_opsets.ipynb). **Next:** [domains and functions](02_domains_and_functions.ipynb).
