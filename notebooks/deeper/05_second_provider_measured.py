# %% [markdown]
# # 05 · Second providers, measured
#
# Before you choose a device for your model, you want to know which nodes it takes and what it copies. You do not have
# the device, but somebody else has: the course keeps **records**, and a program writes them, never a person.
#
# You need the [core of lesson 05](../05_execution_providers.ipynb).
#
# After this page you will be able to
#
# - read records of several providers side by side,
# - say what a free batch, int8 and an unusual operator cost on a provider,
# - run the same experiment on your machine, and add a record.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## Four records
#
# One record per provider, each made in a process of its own:

# %%
import pandas as pd

records = cu.ep_records()
for name, record in records.items():
    kinds = [device["type"] for device in record["devices"]] or "no device"
    print(f"{name}: {record['versions']['package']}, {record['date']}, {kinds}")
    print("  ", record["machine"]["processor"], "| emulated:", record["emulated"])

# %% [markdown]
# *Emulated* names the program that stands in for a device: SwiftShader for a graphics card, Qualcomm's emulator for its
# NPU. Placement and copies are those of the provider, the numbers are those of the emulator. Times would say nothing
# about the device, so none are taken.
#
# OpenVINO could be registered on this processor and offered no device, so its record holds no placement by device.
#
# ## Which nodes does it take?
#
# Five small models were asked for: `plain` is a classifier with a free batch, `fixed` the same for two pictures, `int8`
# its quantized form, `mixed` has a `Unique` in its middle and a free batch, `scattered` three `Det`. We count what a
# record holds: `recorded` is the plan (provider and names of nodes), `ran` the profile (provider and operator).

# %%
from collections import Counter


def placement(record, model, way="by device"):
    title = f"{record['provider'].removesuffix('ExecutionProvider')} {way}"
    asked = [e for e in record["placements"] if e["title"] == title]
    (entry,) = [e for e in asked if e["model"] == model]
    nodes = Counter(p for p, names in entry["recorded"] for _ in names)
    copies = sum("Memcpy" in operator for _, operator in entry["ran"])
    on_it = nodes.pop(record["provider"], 0)
    return {"on it": on_it, "not on it": nodes.total(), "copies": copies}


placement(records["webgpu"], "mixed")

# %% [markdown]
# These are the operators of the core's example: five nodes on the device, one on the CPU, two copies in a run. Now all models on both
# plug-ins:

# %% tags=["remove-input"]
cu.quiz("05_second_provider_measured", 1)

# %%
models = ["plain", "fixed", "int8", "mixed", "scattered"]
pairs = [(model, name) for model in models for name in ("webgpu", "qnn")]
pd.DataFrame({(m, name): placement(records[name], m) for m, name in pairs}).T

# %% [markdown]
# Four things to read:
#
# - A **free batch** costs QNN everything: no node of `plain`, and all nodes of `fixed`. An NPU wants numbers in its
#   shapes.
# - In **int8**, QNN takes all but two nodes. WebGPU takes most of them, and makes many copies.
# - **One unusual operator** in the middle costs two copies, three cost six. In `mixed`, QNN takes nothing, because
#   there the batch is free, too.
# - QNN's emulator works in the memory of the processor, so the profile shows no copies. On a phone there may be some.
#
# ## Where do the copies come from?
#
# Which operators of the int8 model were left to the CPU by WebGPU?

# %%
entries = {(e["model"], e["title"]): e for e in records["webgpu"]["placements"]}
int8 = entries["int8", "WebGpu by device"]
Counter(op for provider, op in int8["ran"] if provider == "CPUExecutionProvider")

# %%
Counter(op for provider, op in int8["ran"] if "Memcpy" in op)

# %% [markdown]
# WebGPU has `DequantizeLinear` and not `QuantizeLinear`. So each activation goes to the processor, is quantized there,
# and comes back. Look for a provider with both operators, or keep the model in float there.
#
# What does QNN do when the fallback is forbidden?

# %%
free = placement(records["qnn"], "int8")
strict = placement(records["qnn"], "int8", "by device, fallback forbidden")
free, strict

# %% [markdown]
# It takes the two nodes at the border as well. So the partition depends on what is allowed: when you can, forbid the
# fallback.
#
# ## On your machine
#
# The same int8 model, on the first plug-in that works here. Without one, the CPU provider stands in:

# %%
import numpy as np

from course_utils.ep_experiment.models import int8 as build

devices, settings = cu.second_provider()
chosen, feed = (devices[0].ep_name, settings), {"x": np.ones((2, 3, 16, 16), "f4")}
here = cu.placed(build(), feed, [chosen], by="device")
Counter(provider for provider, _ in here["ran"]), here["difference"]

# %%
Counter(provider for provider, _ in int8["ran"])  # the record of WebGPU

# %% [markdown]
# These are the [kernels](../glossary.md#kernel) per provider that ran. The copies are among them, and fused nodes count
# once, so the numbers are not those of the plan. If your provider is WebGPU, both lines should agree. The whole
# experiment is one call, `cu.run_ep_experiment(devices[0].ep_name)`; it takes about a minute.
#
# The explorer shows all requests of the records. It opens on the quantized model: choose *by device*, and then forbid
# the fallback.

# %%
shown = [records["webgpu"], records["qnn"]]
for record in shown:
    record["placements"].sort(key=lambda e: e["model"] != "int8")
cu.placement_explorer(shown)

# %% [markdown]
# ## Add a record
#
# For CUDA, TensorRT, MIGraphX, DirectML and Core ML there was no device at hand, so there is no record, and the course
# gives no figure for them. If you have one, run this in a checkout of the course, and send the file as a pull request:
#
# ```
# python course_utils/ep_experiment --provider CUDAExecutionProvider --out data/ep_records/cuda.json
# ```
#
# It needs NumPy, onnx and a package of ONNX Runtime with that provider, and it takes times, too. `make providers`
# records all that works on your machine. The operators that a built-in provider supports are listed, for example, for
# [CPU and CUDA](https://github.com/microsoft/onnxruntime/blob/main/docs/OperatorKernels.md).

# %% [markdown]
# ## Recap
#
# - Ask of a device: how many nodes, how many copies, which difference. The name of a provider tells none of it.
# - Fix the shapes for an NPU, unless its record shows that it takes free ones.
# - Use int8 where the provider has both `QuantizeLinear` and `DequantizeLinear`, unless you accept two copies per
#   activation.
# - An emulator is good for placement and numbers, and says nothing about speed.
#
# **Back:** [05 · Execution providers](../05_execution_providers.ipynb). **Deeper:**
# [compiled files](05_compiled_files.ipynb).
