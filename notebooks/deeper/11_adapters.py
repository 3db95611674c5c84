# %% [markdown]
# # 11 · Adapters
#
# Your model serves two shops. One has photographs as negatives, the other one has them upside down (turned by 180 degrees). You could train the
# model once more for each, and keep three large files in memory. This page keeps **one** file, and two small ones with what
# differs, called [adapters](../glossary.md#adapter). They are switched from run to run. Language models are served in the same
# way, in many styles from one file.
#
# You need the [core of lesson 11](../11_language_models.ipynb).
#
# After this page you will be able to
#
# - export a network whose small weights can be replaced in each run,
# - write such weights to a file, and run with it,
# - find an adapter that does not fit, or does nothing.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## A base
#
# A layer multiplies by a large weight. *LoRA*, [low-rank adaptation](https://huggingface.co/docs/peft/conceptual_guides/lora), keeps
# that weight, and adds the product of two narrow ones, `a` and `b`. While `b` is zero, nothing is added.

# %%
import torch
from torch import nn


class Lora(nn.Linear):
    def __init__(self, size_in, size_out):
        super().__init__(size_in, size_out)
        self.start(8)

    def start(self, wide):
        self.a = nn.Parameter(torch.zeros(self.in_features, wide))
        self.b = nn.Parameter(torch.zeros(wide, self.out_features))

    def forward(self, x):
        return super().forward(x) + x @ self.a @ self.b


# %% [markdown]
# Three such layers make a small network for our pictures. `cu.train_pictures` trains the weights that we give, here the large
# ones, on 8 000 pictures; 2 000 are left to judge.

# %%
torch.manual_seed(0)
layers = [Lora(784, 256), Lora(256, 256), Lora(256, 10)]
net = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
cu.train_pictures(net, [w for layer in layers for w in (layer.weight, layer.bias)])

# %% [markdown]
# ## One file with open places
#
# The export makes an [initializer](../glossary.md#initializer) of each weight, the narrow ones, too.

# %%
example, sizes = (torch.randn(2, 784),), ({0: torch.export.Dim("batch")},)
with cu.exporter_messages():
    program = torch.onnx.export(net, example, dynamic_shapes=sizes, verbose=False)

# %% [markdown]
# An initializer is fixed. If an input has the same name, it becomes the *default* of this input: a run may give another
# value. So we declare the narrow weights as inputs, too. Their narrow side gets a name, since adapters may differ in it.

# %%
import onnx

FILE, model = "work/11_adapters.onnx", program.model_proto
narrow = [t for t in model.graph.initializer if t.name.endswith((".a", ".b"))]
for tensor in narrow:
    size = [n if n != 8 else "rank" for n in tensor.dims]
    value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, size)
    model.graph.input.append(value)
onnx.checker.check_model(model, full_check=True)
onnx.save(model, FILE)

# %% [markdown]
# ONNX Runtime warns of initializers that are inputs, because it cannot compute with them in advance. Here we want this, so we
# let it be silent. It lists the inputs with a default:

# %%
import onnxruntime as ort

ort.set_default_logger_severity(4)
session = ort.InferenceSession(FILE)
[value.name for value in session.get_overridable_initializers()]

# %% [markdown]
# How well does the base do, on pictures as they are, as negatives, and turned?

# %%
pictures, labels = (array[8000:] for array in cu.fashion_mnist("test"))
x = cu.normalize(pictures).reshape(-1, 784)
VIEWS = {"as it is": x, "negative": -x, "turned": x[:, ::-1].copy()}


def accuracies(options=None):
    found = {}
    for name, view in VIEWS.items():
        chosen = session.run(None, {"input": view}, options)[0].argmax(1)
        found[name] = float((chosen == labels).mean())
    return found


rows = {"base": accuracies()}
rows["base"]

# %% [markdown]
# ## Two adapters
#
# Now the large weights stay as they are, and only the narrow ones learn. `a` starts with small random numbers, `b` with
# zeros. The adapter for negatives is eight numbers wide.


# %%
def adapt(change, wide):
    for layer in layers:
        layer.start(wide)
        nn.init.normal_(layer.a, std=0.02)
    weights = {n: w for n, w in net.named_parameters() if n[-2:] in (".a", ".b")}
    cu.train_pictures(net, weights.values(), change)
    arrays = {n: w.detach().numpy().copy() for n, w in weights.items()}
    return {n: ort.OrtValue.ortvalue_from_numpy(a) for n, a in arrays.items()}


# %%
negative, form = adapt(lambda p: -p, 8), ort.AdapterFormat()
form.set_parameters(negative)
form.export_adapter("work/11_negative.onnx_adapter")

# %% [markdown]
# `AdapterFormat` writes an adapter: tensors, under the names of the inputs. It only refers to their memory, so keep them until
# the file is written. The other adapter is four numbers wide.

# %%
turned, form = adapt(lambda p: p.flip(1), 4), ort.AdapterFormat()
form.set_parameters(turned)
form.export_adapter("work/11_turned.onnx_adapter")

# %% [markdown]
# How large are the files, beside the model?

# %%
from pathlib import Path

files = [FILE, "work/11_negative.onnx_adapter", "work/11_turned.onnx_adapter"]
sizes = [Path(file).stat().st_size for file in files]
f"of {sizes[0]} bytes, {sizes[1] / sizes[0]:.1%} and {sizes[2] / sizes[0]:.1%}"
# %% [markdown]
# ## Switch in each run
#
# `LoraAdapter` reads a file, and `RunOptions` say which adapter is active in a run. The session stays the same.


# %%
def active(file):
    adapter, options = ort.LoraAdapter(), ort.RunOptions()
    adapter.Load(file)
    options.add_active_adapter(adapter)
    return adapter, options


# %%
import sys

adapter, options = active("work/11_negative.onnx_adapter")
rows["negative"] = accuracies(options)
sys.getrefcount(adapter) - 1  # the call itself holds one

# %% [markdown]
# One reference: our variable. The options hold none, they just point to the adapter. So **keep the adapter** as long as its
# options. If it is deleted, they point to memory that may belong to something else.
#
# Now the other one, and the base once more:

# %%
import pandas as pd

kept, options = active("work/11_turned.onnx_adapter")
rows |= {"turned": accuracies(options), "base again": accuracies()}
assert rows["base again"] == rows["base"]
assert all(rows[n][n] > rows["base"][n] + 0.3 for n in ("negative", "turned"))
pd.DataFrame(rows).T

# %% [markdown]
# A row is an adapter, a column a view of the pictures. Each adapter makes the model good at its own view. Compare its row
# with the base for the other views. Without an adapter, the numbers of the base come back: an adapter belongs to a run. So requests of different
# users can share a session.
#
# ## Parity
#
# In PyTorch we add the product of the narrow weights to the large one. This merged network needs no adapter. It must
# give the numbers of ONNX Runtime with the adapter that we trained last.

# %%
import numpy as np

for layer in layers:
    layer.weight.data += (layer.a @ layer.b).T.detach()
    layer.b.data.zero_()
merged = net(torch.tensor(x)).detach().numpy()
found = session.run(None, {"input": x}, options)[0]
np.testing.assert_allclose(found, merged, atol=1e-3)
f"scores up to {abs(merged).max():.0f}, difference {abs(found - merged).max():.0e}"

# %% [markdown]
# Equal up to rounding. Merged weights save the additional products, but each shop needs a large file of its own.
#
# ## Adapters that do not fit
#
# Nothing in an adapter says for which model it is. We write three bad ones: with a name that the model does not have, with
# parts of different width, and with a `b` alone.

# %% tags=["remove-input"]
cu.quiz("11_adapters", 1)

# %%
a, b = turned["0.a"], negative["0.b"]
bad = {"name": {"9.a": a}, "width": {"0.a": a, "0.b": b}, "half": {"0.b": b}}
said, plain = {}, session.run(None, {"input": x})[0]
for what, values in bad.items():
    form = ort.AdapterFormat()
    form.set_parameters(values)
    form.export_adapter(f"work/11_bad_{what}.onnx_adapter")
    adapter, options = active(f"work/11_bad_{what}.onnx_adapter")
    try:
        said[what] = abs(session.run(None, {"input": x}, options)[0] - plain).max()
    except ort.capi.onnxruntime_pybind11_state.InvalidArgument as error:
        said[what] = str(error).split("INVALID_ARGUMENT : ")[-1]

# %%
assert said["name"] == "Invalid input name: 9.a" and "mismatch" in said["width"]
assert said["half"] == 0
said

# %% [markdown]
# The first two are refused, in the run and not before. The third one runs, and the scores change by 0: for the `a` that it lacks,
# the default counts, and this is zero. There is no message. So compare the names in an adapter with those of the session, and
# test each adapter on inputs for which it must change the answer.
#
# (GenAI does the same for its files: `Adapters` loads them, and `Generator.set_active_adapter` chooses one. Not run here.)

# %% [markdown]
# ## Recap
#
# - Declare the narrow weights as inputs with a default of zero: then one file serves with and without adapters.
# - Give adapters in `RunOptions`, and keep the `LoraAdapter` as long as these options.
# - Check parity with the merged weights, and that the base is the same afterwards.
# - A wrong name is refused in the first run. Half an adapter is not: compare the names yourself.
#
# **Next:** back to [lesson 11](../11_language_models.ipynb).
