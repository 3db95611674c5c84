# %% [markdown]
# # 05 · Devices and policies
#
# Your program shall use whatever the user's machine has, and you do not know what that is. Or you know it: a server
# with a card, and the session runs on the processor all the same. Both are questions about devices.
#
# You need the [core of lesson 05](../05_execution_providers.ipynb).
#
# After this page you will be able to
#
# - list what a machine offers, and say why a plug-in is not available,
# - let a policy or a function of yours choose the device, and check what was used,
# - read the messages of libraries that do not load,
# - find a provider that computes other numbers.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## What this machine offers
#
# `cu.provider_plugins()` tries three plug-ins, each in a process of its own, because a driver may end the process. The
# download size and the licence stand there, too:

# %%
plugins = cu.provider_plugins().set_index("plug-in")
plugins[["package", "version", "MB", "licence", "devices"]]

# %%
plugins["here"].to_dict()

# %% [markdown]
# Read the sentences: *not installed*, *no device here*, and a driver that fails are three different things. A package
# can be installed and registered, and still offer nothing. OpenVINO's processor device, for example, is offered on
# processors of Intel only.
#
# QNN's libraries come with a licence of Qualcomm, which you accept by downloading the package: read it first. That is
# why the course has an extra of its own for it, `pip install "onnx-scroll[qnn]"`.
#
# ## Each device
#
# The devices of this process, with what is known about each:

# %%
import onnxruntime as ort

devices, settings = cu.second_provider()
for d in ort.get_ep_devices():
    print(d.ep_name, d.device.type.name, d.device.vendor, d.ep_metadata["version"])

# %% [markdown]
# The *type* is CPU, GPU or NPU. A driver that computes in software, and an emulator, are of the type CPU. The CPU
# provider has a device, too.
#
# ## Let a policy choose
#
# A program for unknown machines can state a wish in place of names:

# %%
import onnx

graph = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
    g (float[8, 8] x) => (float[8, 8] y) { a = MatMul(x, x) y = Relu(a) }""")
model = graph.SerializeToString()
policies = ort.OrtExecutionProviderDevicePolicy
options = ort.SessionOptions()
options.set_provider_selection_policy(policies.PREFER_GPU)
ort.InferenceSession(model, options).get_providers()

# %% [markdown]
# A policy *prefers* a type, and does not demand it. Without a device of the type GPU, the policy takes the CPU, and
# nothing is said. What did the policies do on the machines of the records?

# %%
import pandas as pd

chosen = {}
for name in ("webgpu", "qnn"):
    entries = cu.ep_record(name)["placements"]
    asked = [e for e in entries if e["title"].startswith("policy")]
    chosen[name] = {e["by"]: e["error"] or e["chosen"] for e in asked}
pd.DataFrame(chosen)

# %% [markdown]
# With WebGPU on a driver in software, all three took the CPU provider. With QNN's emulator, none made a session: a
# policy gives no options, and QNN wants to be told its library. So a policy may hide a device that works, and it may
# fail where naming the device does not.
#
# A function of your own gives more control. It gets all devices and returns those to use, the best first:


# %%
def anything_but_the_cpu(devices, model, runtime, most):
    others = [d for d in devices if d.ep_name != "CPUExecutionProvider"]
    return others[:1] or devices[:1]


options = ort.SessionOptions()
options.set_provider_selection_policy_delegate(anything_but_the_cpu)
try:
    print(ort.InferenceSession(model, options).get_providers())
except Exception as error:
    print(str(error)[-90:])

# %% [markdown]
# Where your second provider is QNN, you see the same error as in the record: such a function cannot give options,
# either. Use a policy for a first version, and `add_provider_for_devices` when you know your devices. In both cases
# check what was **used**, as in the core.
#
# ## Libraries that do not load
#
# First the simple case, a file that is not there:

# %%
try:
    ort.register_execution_provider_library("mine", "/no/such/library.so")
except Exception as error:
    print(error)

# %% [markdown]
# It is an ordinary exception, and so is a file that is no library. With a provider that is built in, nothing is raised:

# %% tags=["remove-input"]
cu.quiz("05_devices_and_policies", 1)

# %%
said = []
with cu.overheard(said):
    wanted = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    session = ort.InferenceSession(model, providers=wanted)
session.get_providers(), said

# %% [markdown]
# Here the installed package has no CUDA, so one warning says that. The harder case: the package has CUDA, so
# `get_available_providers()` names it, but CUDA's own libraries are missing or have another version. It was recorded
# with `onnxruntime-gpu` 1.31.1 on a machine without CUDA. This was logged, and the session ran on the CPU:
#
# > Failed to load library … with error: libcublasLt.so.13: cannot open shared object file: No such file or directory
# >
# > Failed to create CUDAExecutionProvider. Require cuDNN 9.* and CUDA 13.*. …
#
# `get_providers()` shows this case: it names the CPU alone. The cure is a matching CUDA
# ([requirements](https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html)). Where PyTorch or
# NVIDIA's packages bring one, call `ort.preload_dlls()` before the session is created: it loads them from there (not
# run here).
#
# ## Options that nobody reads
#
# An option that a provider does not know may be ignored, too. The CPU provider stores nothing and says nothing:

# %%
odd = ("CPUExecutionProvider", {"tempo": "presto"})
ort.InferenceSession(model, providers=[odd]).get_provider_options()

# %%
for name in ("webgpu", "qnn"):
    for e in cu.ep_record(name)["placements"]:
        if e["title"].endswith("an unknown option"):
            print(name, e["error"], [line for line in e["said"] if "tempo" in line])

# %% [markdown]
# Recorded: both plug-ins ignored it as well, without an error and without a line that names it.
#
# ## Other numbers, without a word
#
# A provider may compute in another way. The records hold the largest difference from the CPU's output, per model:

# %%
differences = {}
for name in ("webgpu", "qnn"):
    entries = cu.ep_record(name)["placements"]
    asked = [e for e in entries if e["title"].endswith("by device")]
    differences[name] = {e["model"]: e["difference"] for e in asked}
pd.DataFrame(differences)

# %% [markdown]
# In float32 the differences are rounding. (For `plain` and `mixed`, QNN took no node, so they were computed by the CPU
# twice.) In the int8 model, QNN's result differs from the CPU's by 0.05: that is one
# step of the [scale](../glossary.md#scale-and-zero-point) of the output. Nothing announces it. Other providers may
# change more: OpenVINO is reported to compute a float32 model in [bfloat16](../glossary.md#float16-and-bfloat16) on
# processors of Intel that have AMX, and its option `INFERENCE_PRECISION_HINT` to switch that off (not run here).
#
# So compare outputs on your own data before a provider goes into service, and count the answers that change, as in
# lesson 07.

# %% [markdown]
# ## Recap
#
# - Installed, registered and available are three things; `cu.provider_plugins()` says which one is missing.
# - Use a policy when you do not know the machine, unless a provider needs options. Then name the devices.
# - A library that does not load is an exception for a plug-in, and a logged line for a built-in provider.
# - Options that are not known may be ignored. Look for an effect.
# - Compare the outputs with those of the CPU: a provider may round, or change its arithmetic.
#
# **Back:** [05 · Execution providers](../05_execution_providers.ipynb). **Deeper:**
# [second providers, measured](05_second_provider_measured.ipynb).
