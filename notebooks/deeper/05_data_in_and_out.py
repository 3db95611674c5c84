# %% [markdown]
# # 05 · Data in and out
#
# Your session refuses your array, or every run copies the same large input again. This page shows what a session
# accepts, what it says when it does not, and how memory is used again.
#
# You need the [core of lesson 05](../05_execution_providers.ipynb).
#
# After this page you will be able to
#
# - read what a session expects, and understand its four commonest refusals,
# - feed a session with arrays, with `OrtValue`s and with IO binding,
# - say what each of them saves, and where.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## What a session expects
#
# We export the network of the course for any number of pictures:

# %%
import torch

x, file = (torch.randn(2, 1, 28, 28),), "work/05_data.onnx"
names = {"input_names": ["image"], "output_names": ["logits"], "verbose": False}
free = {"dynamic_shapes": ({0: torch.export.Dim("batch")},), "external_data": False}
program = torch.onnx.export(cu.fashion_resnet(), x, file, **names, **free)

# %%
import onnxruntime as ort

session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
[(v.name, v.type, v.shape) for v in session.get_inputs() + session.get_outputs()]

# %% [markdown]
# A session knows name, type and shape of each input and output. A text in a shape stands for any size
# ([symbolic dimension](../glossary.md#symbolic-dimension)). `run` takes a dict and returns a list:

# %%
import numpy as np

batch = cu.normalize(cu.fashion_mnist("test")[0][:4])
(logits,) = session.run(["logits"], {"image": batch})
logits.shape

# %% [markdown]
# The first argument names the outputs that you want; `None` stands for all. Now one wrong call. The name of the input
# is not `picture`:

# %% tags=["remove-input"]
cu.quiz("05_data_in_and_out", 1)

# %%
try:
    session.run(None, {"picture": batch})
except ValueError as error:
    print(error)

# %% [markdown]
# The message names the input that is missing. Three more mistakes that everybody makes once:

# %%
wrong = {
    "float64": batch.astype(np.float64),
    "a dimension too few": batch[:, 0],
    "another size": np.zeros((4, 1, 32, 32), np.float32),
}
said = {}
for mistake, array in wrong.items():
    try:
        session.run(None, {"image": array})
    except Exception as error:
        said[mistake] = " ".join(str(error).split(" : ")[-1].split())
said

# %% [markdown]
# Each message says what was given and what was expected. NumPy makes float64 by default, so the first mistake is the
# commonest one: write `.astype(np.float32)`.

# %% [markdown]
# ## An `OrtValue`
#
# An `OrtValue` is ONNX Runtime's own tensor. It can live on a device, and it can be used again in the next run. On the
# CPU it shares the memory of the array:

# %%
assert set(said) == set(wrong)
value = ort.OrtValue.ortvalue_from_numpy(batch)
value.device_name(), value.data_type(), value.data_ptr() == batch.ctypes.data

# %% [markdown]
# Nothing was copied. A run that takes and returns such values:

# %%
(result,) = session.run_with_ort_values(["logits"], {"image": value})
np.array_equal(result.numpy(), logits)

# %% [markdown]
# Why would you want it? On a graphics card, the output of one model stays on the card, and the next model reads it
# there.
#
# ## IO binding
#
# [IO binding](https://onnxruntime.ai/docs/performance/tune-performance/iobinding.html) goes one step further ([IO
# binding](../glossary.md#io-binding)). You say beforehand where each input comes from and where each output goes. Then
# a run allocates nothing for them.

# %%
answer = np.empty((4, 10), np.float32)
target = ort.OrtValue.ortvalue_from_numpy(answer)
binding = session.io_binding()
binding.bind_ortvalue_input("image", value)
binding.bind_ortvalue_output("logits", target)
session.run_with_iobinding(binding)
np.array_equal(answer, logits)

# %% [markdown]
# The result stands in `answer`, our own array. Nothing was returned. The next run overwrites it, so copy what you want
# to keep:

# %%
batch[:] = 0
session.run_with_iobinding(binding)
np.array_equal(answer, logits)

# %% [markdown]
# We changed the array behind the input, and the result in `answer` is another one. Does binding pay off here?

# %%
runs = {"run": lambda: session.run(None, {"image": batch})}
runs["IO binding"] = lambda: session.run_with_iobinding(binding)
cu.compare(runs, rounds=20, seconds=4)

# %% [markdown]
# Do not expect much: on the CPU nothing has to be copied to another device. On a card, without binding, each run copies
# its inputs there and its outputs back.
#
# ## Memory between runs
#
# The CPU provider keeps the memory of a run for the next one, in an [arena](../glossary.md#arena). The first large
# batch makes it grow, and it stays large. A run can give memory back when it ends:

# %%
shrink = ort.RunOptions()
shrink.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
(again,) = session.run(None, {"image": np.zeros((64, 1, 28, 28), "f4")}, shrink)
again.shape

# %% [markdown]
# Use it after a rare, large request. The next run must allocate again, so do not use it for each run. The page
# [memory and containers](09_memory_and_containers.ipynb) measures what a session keeps.

# %% [markdown]
# ## Recap
#
# - `get_inputs()` and `get_outputs()` say what a session expects; its errors say it, too.
# - Use arrays unless a measurement says otherwise. They are simple, and on the CPU they cost little.
# - Use `OrtValue` or IO binding when data stay on a device between runs, or when an output must land in memory of
#   yours.
# - A bound output is overwritten by the next run.
#
# **Back:** [05 · Execution providers](../05_execution_providers.ipynb). **Next:** [06 · Fusion](../06_fusion.ipynb).
