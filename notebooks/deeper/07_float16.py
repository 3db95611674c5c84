# %% [markdown]
# # 07 · float16
#
# You want half of the bytes and no calibration. Somebody says: convert the model to 16-bit floats. The file is half as
# large, but the model needs as much time and memory as before. This page shows why, and where float16 helps.
#
# You need the [core of lesson 07](../07_quantization.ipynb).
#
# After this page you will be able to
#
# - convert a model to [float16](../glossary.md#float16-and-bfloat16), with inputs and outputs of either type,
# - find out whether a session really computes in it,
# - recognise a number that is too large for it, before a GPU meets it.

# %%
import course_utils as cu

cu.setup()
FLOAT, HALF = "work/07_float16_float.onnx", "work/07_float16_half.onnx"

# %% [markdown]
# ## Convert
#
# We take the network of lesson 07.

# %%
import torch

net, example = cu.fashion_resnet(), (torch.randn(2, 1, 28, 28),)
names = {"input_names": ["image"], "output_names": ["logits"]}
more = {"dynamic_shapes": ({0: "batch"},), "verbose": False}

# %% [markdown]
# Now the export, and the preparation of lesson 07:

# %%
from onnxruntime.quantization import quant_pre_process

with cu.exporter_messages():
    program = torch.onnx.export(net, example, **names, **more)
quant_pre_process(program.model_proto, FLOAT)

# %% [markdown]
# A [converter](https://onnxruntime.ai/docs/performance/model-optimizations/float16.html) comes with ONNX Runtime. With
# `keep_io_types`, the model still takes and gives float32.

# %%
import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

half = convert_float_to_float16(onnx.load(FLOAT), keep_io_types=True)
OnnxModel(half).topological_sort()  # the converter adds its Cast out of order
onnx.checker.check_model(half)
onnx.save(half, HALF)

# %% [markdown]
# The bytes of all stored tensors, by type:

# %%
import pandas as pd

floats = cu.tensor_table(FLOAT).groupby("dtype")["bytes"].sum()
halves = cu.tensor_table(HALF).groupby("dtype")["bytes"].sum()
table = pd.DataFrame({"float": floats, "float16": halves}).fillna(0).astype(int)
table[table.any(axis=1)]

# %% [markdown]
# The weights take half of the bytes. Are the answers the same?

# %%
images, labels = cu.fashion_mnist("test")
feed = {"image": cu.normalize(images[:1000])}
logits = cu.run_in_batches(FLOAT, feed)["logits"]
logits16 = cu.run_in_batches(HALF, feed)["logits"]

# %% [markdown]
# We compare the numbers, and then the answers:

# %%
other = int((logits.argmax(1) != logits16.argmax(1)).sum())
assert other < 10
float(abs(logits - logits16).max()), other

# %% [markdown]
# The largest difference of a logit, and how many of 1000 answers are others. No calibration was needed.
#
# ## What runs
#
# The file has two `Cast`, at its ends. And the graph that the session runs, without and with optimisation?

# %%
steps = {"in the file": half}
steps["level none"] = cu.optimized(half, "none")
steps["level all"] = cu.optimized(half, "all")
table = pd.DataFrame(
    {step: cu.op_histogram(model) for step, model in steps.items()}
)
table.fillna(0).astype(int)

# %% [markdown]
# On an x86 processor there is no [kernel](../glossary.md#kernel) for `Conv` in float16. So the session adds a `Cast` before
# and after each node: it computes in float32. At level *all* the casts of the weights are computed when the model is
# loaded. Which types do the stored tensors have then?

# %%
import platform

x86 = platform.machine() in ("x86_64", "AMD64")
stored = cu.tensor_table(steps["level all"]).query("role == 'initializer'")
assert not x86 or "float16" not in set(stored["dtype"])
stored.groupby("dtype")["bytes"].sum().to_frame()

# %% [markdown]
# On x86 what runs is the float32 model, with all its bytes. Its time should be the same, too:

# %%
import onnxruntime as ort

options = ort.SessionOptions()
options.intra_op_num_threads = 1
run, run16 = (ort.InferenceSession(f, options).run for f in (FLOAT, HALF))

# %% [markdown]
# 32 pictures, one thread:

# %%
few = {"image": feed["image"][:32]}
calls = {"float": lambda: run(None, few), "float16": lambda: run16(None, few)}
cu.compare(calls, rounds=8, seconds=2)

# %% [markdown]
# Here float16 halves the file, and neither memory nor time. A GPU has kernels for float16, and there it brings all three
# (not run here). Some ARM processors have them, too (not run here).
#
# ## Numbers that are too large
#
# The largest float16 is 65 504. What is larger becomes infinite, and what is very small becomes 0.

# %%
import numpy as np

with np.errstate(over="ignore"):
    small_and_large = np.float32([1e-8, 65504, 70000]).astype("float16")
small_and_large

# %% [markdown]
# A model can meet such numbers inside, although its inputs and outputs are small. This one computes the length of a vector:

# %%
text = """<ir_version: 10, opset_import: ["": 17]>
length (float[n] x) => (float y) {
    [sum] s = ReduceSumSquare <keepdims = 0> (x)
    [root] y = Sqrt (s)
}"""
short = convert_float_to_float16(onnx.parser.parse_model(text))
x = np.arange(256, dtype="float16")

# %% [markdown]
# We run it in the session, and in the [reference evaluator](https://onnx.ai/onnx/api/reference.html), which computes each
# node in the type that the file says.

# %%
from onnx.reference import ReferenceEvaluator

here = ort.InferenceSession(short.SerializeToString()).run(None, {"x": x})[0]
with np.errstate(over="ignore"):
    as_written = ReferenceEvaluator(short).run(None, {"x": x})[0]
assert not x86 or (np.isfinite(here) and np.isinf(as_written))
here, as_written

# %% [markdown]
# The sum of the squares is about 5.6 million. As the file says, it is infinite. The x86 session hides that, because it
# computes in float32. On a device with float16 kernels you would meet it. So a test on your laptop does not prove a
# float16 model: run it through the reference evaluator too, or look at the largest activations of the float model.
#
# Cures: scale the numbers before the sum, or leave nodes in float32 with `op_block_list`, and sort the nodes as above. Then also the tensor *between*
# two such nodes must fit, because the converter casts each output to float16. **bfloat16** has the range of float32, with
# fewer digits; it is for devices that compute in it.

# %% [markdown]
# ## Recap
#
# - Use float16 for a GPU, or for a smaller download. On an x86 CPU it brings neither speed nor memory.
# - Use int8 when the CPU must be faster.
# - Look at the graph that runs: many `Cast` mean that there is no kernel for the type.
# - The largest float16 is 65 504. A session on x86 hides an overflow; the reference evaluator shows it.
#
# **Next:** [language models in 8 and 4 bits](07_language_models.ipynb), or back to
# [lesson 07](../07_quantization.ipynb).
