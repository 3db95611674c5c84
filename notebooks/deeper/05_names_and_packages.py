# %% [markdown]
# # 05 · Names and packages
#
# You know your device, and want its provider: what is it called, which package brings it, and is it ONNX Runtime itself
# that computes there? The report answers with a table of seven rows. We bring it up to date, and test it.
#
# You need the [core of lesson 05](../05_execution_providers.ipynb).
#
# After this page you will be able to
#
# - find the name and the package of the provider for a device,
# - check a name before a session falls back because of it,
# - say whether a provider's kernels are ONNX Runtime's own.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## The report's table, today
#
# From the [documentation](https://onnxruntime.ai/docs/execution-providers/) and the package registry, November 2026.
# *Run* means: for this course, without a graphics card. The first seven rows are the report's.
#
# | provider | for | library | package today, and its state | run |
# |---|---|---|---|---|
# | `CPUExecutionProvider` | every processor | MLAS, Eigen | in each package | yes |
# | `CUDAExecutionProvider` | NVIDIA | cuDNN, cuBLAS | `onnxruntime-gpu` | no |
# | `TensorrtExecutionProvider` | NVIDIA | TensorRT | `onnxruntime-gpu`; for RTX cards plug-in `onnxruntime-ep-nv-tensorrt-rtx` | no |
# | `OpenVINOExecutionProvider` | Intel | OpenVINO | plug-in `onnxruntime-ep-openvino` | registered: no device on a processor of AMD |
# | `NnapiExecutionProvider` | Android | NNAPI | Android library; deprecated since Android 15 | no |
# | `CoreMLExecutionProvider` | Apple | Core ML | `onnxruntime` on macOS | no |
# | `DmlExecutionProvider` | Windows | DirectML on DirectX 12 | `onnxruntime-directml`; new work goes into Windows ML | no |
# | `MIGraphXExecutionProvider` | AMD | MIGraphX | `onnxruntime-migraphx`; the name `ROCMExecutionProvider` is gone | no |
# | `QNNExecutionProvider` | Qualcomm NPU | QNN | plug-in `onnxruntime-qnn` | its emulator |
# | `WebGpuExecutionProvider` | graphics cards, browsers | WebGPU | plug-in `onnxruntime-ep-webgpu` | a driver in software |
# | `WebNNExecutionProvider` | browsers | WebNN | `onnxruntime-web` | no |
# | `XnnpackExecutionProvider` | phones | XNNPACK | Android library, or your own build | no |
# | `VitisAIExecutionProvider` | AMD NPU | Vitis AI | AMD's Ryzen AI software | no |
#
# Three packages bring other providers in place of `onnxruntime`: `onnxruntime-gpu`, `onnxruntime-directml` and
# `onnxruntime-migraphx`. A plug-in is installed beside it.
#
# ## Is the name right?
#
# The report writes the names as *CPU*, *CUDA*, *TensorRT* and so on, with `ExecutionProvider` behind them.
# `ort.get_all_providers()` lists the names that ONNX Runtime knows, whether the package has the provider or not. How
# many of the seven are among them?

# %%
import onnxruntime as ort

report = ["CPU", "CUDA", "TensorRT", "OpenVINO", "NNAPI", "CoreML", "DirectML"]
known = [p.removesuffix("ExecutionProvider") for p in ort.get_all_providers()]
right = [name for name in report if name in known]
right

# %% [markdown]
# Four. A name is compared letter by letter, and the other three are spelled in another way. We look for them:

# %%
import difflib

wrong = [name for name in report if name not in known]
lower = {name.lower(): name for name in known}
close = {n: difflib.get_close_matches(n.lower(), lower, n=1) for n in wrong}
{name: [lower[match] for match in found] for name, found in close.items()}

# %% [markdown]
# A short name such as `Dml` is too far from *DirectML* to be found by its letters. Copy a name from the list, and do
# not write it from memory. What does a session do with a wrong one?

# %%
import numpy as np
import onnx

small = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
    g (float[1, 1, 4, 4] x) => (float[1, 1, 4, 4] y) <float[1, 1, 1, 1] w = {2}>
    { c = Conv(x, w)  y = Relu(c) }""")

# %%
feed, cpu = {"x": np.ones((1, 1, 4, 4), np.float32)}, "CPUExecutionProvider"
misnamed = cu.placed(small, feed, ["DirectMLExecutionProvider", cpu])
misnamed["ran"], [line[:72] for line in misnamed["said"]]

# %% [markdown]
# It runs on the CPU, after a message that is printed and not raised.

# %% tags=["hide-input"]
cu.claim(
    "ep-names",
    {
        "four of the report's seven names are right": len(right) == 4,
        "for the other three there is a name that is almost the same": {*known}
        >= {"Tensorrt", "Nnapi", "Dml"},
        "with a wrong name, all runs on the CPU": {
            name for name, _ in misnamed["ran"]
        }
        == {cpu},
        "and it is said": "Unknown Provider Type" in str(misnamed["said"]),
    },
)

# %% [markdown]
# ## Whose kernels are they?
#
# The third column names libraries. Does each provider hand its work to somebody else's? For the CPU, we look for MLAS
# and Eigen in the files of the installed package:

# %%
from pathlib import Path

(library,) = Path(ort.__file__).parent.glob("capi/onnxruntime_pybind11_state*")
binary = library.read_bytes().lower()
{name: binary.count(name) for name in (b"mlas", b"eigen")}

# %% [markdown]
# MLAS is a part of ONNX Runtime's own source. Eigen is a library of others, compiled into the same file. So the CPU needs
# no separate library. And QNN, the provider for Qualcomm's NPU? What did it do with the nodes of a network of fixed size?

# %%
placements = cu.ep_record("qnn")["placements"]
by_device = {e["model"]: e for e in placements if e["title"] == "QNN by device"}
qnn = by_device["fixed"]
sum(len(nodes) for _, nodes in qnn["recorded"]), qnn["ran"]

# %% [markdown]
# Recorded: it took these nodes in the plan, and compiled them into one. Here the kernels are the library's. On the CPU,
# each node runs as a kernel of its own.

# %% tags=["hide-input"]
cu.claim(
    "ep-libraries",
    {
        "QNN: a network became one node, compiled by the library": qnn["ran"]
        == [["QNNExecutionProvider", "subgraph"]],
        "CPU: no node is a compiled subgraph": [cpu, "Conv"] in misnamed["ran"]
        and "subgraph" not in str(misnamed["ran"]),
        "MLAS is compiled into ONNX Runtime": binary.count(b"mlas") > 0,
        "so is Eigen": binary.count(b"eigen") > 0,
    },
)

# %% [markdown]
# ## Recap
#
# - The name of a provider is compared letter by letter: copy it from `ort.get_all_providers()`. A plug-in is asked for
#   by device.
# - Some packages replace `onnxruntime`, a plug-in is installed beside it.
# - On the CPU each node runs as a kernel of ONNX Runtime. QNN compiles whole parts of the graph with a library.
#
# **Back:** [05 · Execution providers](../05_execution_providers.ipynb). **Deeper:**
# [devices and policies](05_devices_and_policies.ipynb).
