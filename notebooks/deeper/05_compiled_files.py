# %% [markdown]
# # 05 · Compiled files
#
# Your program starts slowly: its provider compiles the graph each time a session is created. On the NPU of a phone that
# can take long. It can be done once, and kept in a file. The file then belongs to that provider.
#
# You need the [core of lesson 05](../05_execution_providers.ipynb).
#
# After this page you will be able to
#
# - compile a model with `ModelCompiler`, with the result inside the file or beside it,
# - recognise such a file, and say what it is bound to,
# - decide when a compiled file is worth its price.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## A provider that compiles
#
# QNN, for the NPUs of Qualcomm, compiles. Its package for processors of the type x86-64 has an emulator of such an NPU,
# so it can be tried without a phone (99 MB; read its licence first, which you accept by downloading it). It takes
# shapes in numbers only, so we export for exactly one picture:

# %%
import torch

file = "work/05_compiled_plain.onnx"
x, model = (torch.randn(1, 1, 28, 28),), cu.fashion_resnet()
torch.onnx.export(model, x, file, external_data=False, verbose=False)
cu.written_shapes(file)

# %% [markdown]
# Now QNN's devices, and the option that names the library of the NPU:

# %%
devices, settings = [], {}
try:
    devices = cu.provider_devices("QNN")
    import onnxruntime_qnn

    settings = {"backend_path": onnxruntime_qnn.get_qnn_htp_path()}
except cu.CourseError as error:
    print(error)

# %% [markdown]
# If a sentence stands here, QNN does not run on your machine. Then the cells of the next two sections do nothing: read
# their code, and go on at *The record*.
#
# ## Compile
#
# `ModelCompiler` takes the options of a session and a model, and writes a new model. The design is called
# [EPContext](https://onnxruntime.ai/docs/execution-providers/EP-Context-Design.html):

# %%
import onnxruntime as ort

inside, options = "work/05_compiled_inside.onnx", ort.SessionOptions()
options.log_severity_level = 3  # QNN writes many lines

# %%
if devices:
    options.add_provider_for_devices(devices, settings)
    compiler = ort.ModelCompiler(options, file, embed_compiled_data_into_model=True)
    compiler.compile_to_file(inside)

# %% [markdown]
# The network had dozens of nodes. What does the new file hold?

# %% tags=["remove-input"]
cu.quiz("05_compiled_files", 1)

# %%
import onnx

nodes = onnx.load(inside).graph.node if devices else []
[(n.op_type, {a.name: a.s[:30] or a.i for a in n.attribute}) for n in nodes]

# %% [markdown]
# One node, `EPContext`. It holds the compiled graph as bytes (`ep_cache_context`), the provider (`source`) and the
# version of its library (`ep_sdk_version`). The weights are in there, too. With `embed_compiled_data_into_model=False`
# the bytes go into a second file:

# %%
from pathlib import Path

folder = Path("work/05_compiled_outside")
folder.mkdir(exist_ok=True)
if devices:
    apart = ort.ModelCompiler(options, file, embed_compiled_data_into_model=False)
    apart.compile_to_file(str(folder / "model.onnx"))
{path.name: path.stat().st_size for path in sorted(folder.iterdir())}

# %% [markdown]
# Both files belong together: the model names the other one, without a folder. What does it bring? Create a session from
# each:

# %%
paths = {"plain": file, "inside": inside, "outside": folder / "model.onnx"}
ways = {k: lambda p=p: ort.InferenceSession(p, options) for k, p in paths.items()}
cu.compare(ways, rounds=5, seconds=5) if devices else "not compiled here"

# %% [markdown]
# Creating a session from a compiled file leaves out the compilation. The ratio is of the emulator on this processor; on
# a phone it is another one.
#
# ## What the file is bound to
#
# Can the CPU provider read compiled code of QNN?


# %%
def refusal(path, *options, **how):
    try:
        with cu.overheard([]):  # the log would say it, too
            return ort.InferenceSession(path, *options, **how)
    except Exception as error:
        return str(error) if devices else "not compiled here"


refusal(inside, providers=["CPUExecutionProvider"])

# %% [markdown]
# *Not compatible with any execution provider added to the session*: this file has no fallback: it is bound to the
# provider. A file of a real NPU can be bound to the version of its library and to the chip, too (not run here). And without its second file, the other one cannot be loaded
# at all:

# %%
for binary in folder.glob("*.bin"):
    binary.unlink()
refusal(folder / "model.onnx", options, enable_fallback=0)

# %% [markdown]
# The message does not name the missing file. Look at `ep_cache_context` in the node. The doctor recognises a compiled
# file, and takes it for healthy:

# %%
if devices:
    print(cu.doctor(inside))

# %% [markdown]
# ## The record
#
# A small network in float32 and in int8, recorded with QNN's emulator, and then with WebGPU:

# %%
import pandas as pd

found = [e for n in ("qnn", "webgpu") for e in cu.ep_record(n)["compiled"]]
rows = [{**e, **e.get("inside", {})} for e in found]
pd.DataFrame(rows)[
    ["model", "plain_bytes", "files", "creation", "difference", "error"]
]

# %% [markdown]
# `plain_bytes` is the size of the model before, and `files` that of the compiled file, in bytes. `creation` says how
# many times faster a session was created from it, and `difference` is the largest one between the outputs: none. Such
# small networks become larger.
#
# Compiling for WebGPU ended the whole process, by signal 6. So compile in a process of its own, never in a server.

# %% [markdown]
# ## Recap
#
# - `ModelCompiler` does the work of a provider beforehand; the new file has a node `EPContext` for each part.
# - Inside the file is simpler to ship; outside, the two files must stay together.
# - A compiled file is bound to one provider, and can be to its version and a chip. It has no fallback. Keep the plain model.
# - Use it where a program starts often on devices that you know, unless users bring their own machines.
#
# **Back:** [05 · Execution providers](../05_execution_providers.ipynb). **Deeper:**
# [files saved optimised](06_files_saved_optimised.ipynb), which do the same for ONNX Runtime's own rewrites.
