# %% [markdown]
# # 05 · Execution providers
#
# You ask for a graphics card. The session is created, the answers are right, nothing is said, and it is as slow as
# before: every node runs on the processor. What computes nodes on one kind of device is an [**execution
# provider**](glossary.md#execution-provider). It is easily asked for, and easily lost without notice.
#
# You need [lesson 01](01_graph_structure.ipynb).
#
# After this lesson you will be able to
#
# - say what happens when a [session](glossary.md#session) is created, and why one session is enough,
# - tell four things apart: a provider is registered, available, chosen, used,
# - prove for each node where it ran, and count the copies between devices,
# - recognise silent fallbacks, and turn them into errors.

# %%
import course_utils as cu

cu.setup()
import torch

x, file = (torch.randn(2, 1, 28, 28),), "work/05_fashion_resnet.onnx"
free = {"dynamic_shapes": ({0: torch.export.Dim("batch")},), "external_data": False}
names = {"input_names": ["image"], "verbose": False}
program = torch.onnx.export(cu.fashion_resnet(), x, file, **names, **free)
# %% [markdown]
# ## The life of a session
#
# The report says: a session loads, optimises, partitions, and then runs. We check it with three nodes. `Identity` falls
# to a general rewrite, `Relu` to a [fusion](glossary.md#fusion). One key of the configuration makes the session write
# down, at the moment of the partition, which provider takes which node. We call this list the *plan*.

# %% tags=["remove-input"]
cu.picture("provider_islands")

# %%
import onnx
import onnxruntime as ort

three = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
    g (float[1, 1, 4, 4] x) => (float[1, 1, 4, 4] y) <float[1, 1, 1, 1] w = {2}>
    { same = Identity(x)  c = Conv(same, w)  y = Relu(c) }""")
options, cpu = ort.SessionOptions(), ["CPUExecutionProvider"]
options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
options.enable_profiling, options.profile_file_prefix = True, "work/05_profile"
session = ort.InferenceSession(three.SerializeToString(), options, providers=cpu)
parts = session.get_provider_graph_assignment_info()
taken = [node.op_type for part in parts for node in part.get_nodes()]
parts[0].ep_name, taken

# %% [markdown]
# `Identity` is gone already: a general rewrite came before the partition. The [profile](glossary.md#profile), which is
# switched on too, has an event for each node that **ran**:

# %%
import numpy as np
import pandas as pd

for _ in range(3):
    session.run(None, {"x": np.ones((1, 1, 4, 4), np.float32)})
events = pd.read_json(session.end_profiling())
ran_alone = set(events[events["cat"] == "Node"]["args"].str["op_name"])
times = events["name"].value_counts(sort=False).to_dict()
times

# %% [markdown]
# One loading, one initialisation, three runs. In each run one node ran for `Conv` and `Relu`: they were fused **after**
# the partition. (A `ReorderOutput`, where there is one, changes the layout.)
#
# The log of a larger model shows the same order: level 1 holds the general rewrites, level 2 and higher the fusions.
# `cu.session_log` creates a
# [session](https://onnxruntime.ai/docs/api/python/api_summary.html) three times. How long does each stage take? See
# [stages and options](deeper/05_stages_and_options.ipynb).

# %%
stages = ["Initializing", "for level 1 for up", "for level 2 for up", "All nodes"]
log = cu.session_log(file, times=3)
lines = log["message"][log["creation"] == 2]
written = list(lines[lines.str.contains("|".join(stages))])
written

# %% tags=["hide-input"]
cu.claim(
    "session-lifecycle",
    {
        "the log has the stages in this order": all(map(str.count, written, stages))
        and len(written) == len(stages),
        "a general rewrite came before the partition": taken == ["Conv", "Relu"],
        "a fusion came after it": "Conv" in ran_alone and "Relu" not in ran_alone,
        "loading and initialisation end before the first run": list(times)[:2]
        == ["model_loading_array", "session_initialization"],
    },
)

# %% [markdown]
# ## Create once, reuse
#
# How long does it take to create a session, compared with one run for a single picture?

# %%
session, runs = ort.InferenceSession(file, providers=cpu), {}
runs["create"] = lambda: ort.InferenceSession(file, providers=cpu)
runs["run"] = lambda: session.run(None, {"image": np.zeros((1, 1, 28, 28), "f4")})
cu.compare(runs, rounds=15, seconds=4, threads=1)

# %% [markdown]
# One creation takes as long as many runs. One session can serve many requests at the same time: `run` may be called
# from several threads, without a lock. We send it 200 requests, one by one and from 8 threads. And we count the
# rewriting steps in the log: every creation makes all of them again, a run makes none.

# %%
from concurrent.futures import ThreadPoolExecutor

images = cu.normalize(cu.fashion_mnist("test")[0][:200])
feeds = [{"image": images[i : i + 1]} for i in range(200)]
alone = [session.run(None, feed) for feed in feeds]
with ThreadPoolExecutor(8) as pool:
    same = np.array_equal(alone, [*pool.map(session.run, [None] * 200, feeds)])
rewrites = log[log["message"].str.startswith("Applying")].groupby("creation").size()
same, rewrites.to_dict()

# %% tags=["hide-input"]
cu.claim(
    "session-init-is-heavy",
    {
        "every creation applies dozens of rewrites anew": len(rewrites) == 3
        and rewrites.min() > 24,
        "one loading and one initialisation, three runs": times["model_run"] == 3
        and list(times.values())[:2] == [1, 1],
        "8 threads sent one session 200 requests: the same answers": same,
    },
)

# %% [markdown]
# ## Registered, available, chosen, used
#
# Newer providers are [plug-ins](https://onnxruntime.ai/docs/execution-providers/plugin-ep-libraries/): a package beside
# `onnxruntime` that brings one library. From the package to a node there are four steps:
#
# | a provider is | by | which means |
# |---|---|---|
# | registered | `ort.register_execution_provider_library` | its library was loaded |
# | available | `ort.get_ep_devices` | it offers a device on this machine |
# | chosen | `options.add_provider_for_devices` | the session may use it |
# | used | the plan, the profile | nodes run on it |
#
# For WebGPU, which computes on most graphics cards (7 MB, MIT licence):
#
# ```python
# import onnxruntime_ep_webgpu as plugin  # pip install onnxruntime-ep-webgpu
#
# name, path = "WebGpuExecutionProvider", plugin.get_library_path()
# ort.register_execution_provider_library(name, path)
# devices = [d for d in ort.get_ep_devices() if d.ep_name == name]
# options.add_provider_for_devices(devices, {})
# session = ort.InferenceSession("model.onnx", options)
# ```
#
# `cu.second_provider()` takes the first two steps for the first plug-in that works here: WebGPU, Qualcomm's QNN, or
# Intel's OpenVINO. Where none works, you get the CPU provider's device, and read the results from a record.

# %%
devices, settings = cu.second_provider()
provider = devices[0].ep_name
[(d.ep_name, d.device.type.name, d.device.vendor) for d in ort.get_ep_devices()]

# %% [markdown]
# Our model has six nodes. Few devices can compute `Unique`, because the size of its output depends on the data. We
# choose the devices of the second provider:

# %%
mixed = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
    g (float[8, 8] x) => (float[8, 8] y) {
    a = MatMul(x, x)  b = Relu(a)  u = Unique<sorted = 1>(b)
    m = ReduceMax<keepdims = 0>(u)  d = Div(b, m)  y = Sigmoid(d) }""")

# %%
options = ort.SessionOptions()
options.add_provider_for_devices(devices, settings)
session = ort.InferenceSession(mixed.SerializeToString(), options)
session.get_providers()

# %% [markdown]
# `get_providers()` names what was chosen, and the CPU, which ONNX Runtime adds. (We come to the message.) `cu.placed`
# creates such a session with plan and profile switched on, runs it once, and returns what was said and where each node
# ran. Beside it stands a record of the same operators, made with WebGPU in software:

# %% tags=["remove-input"]
cu.quiz("05_execution_providers", 1)

# %%
eye, chosen = {"x": np.eye(8, dtype=np.float32)}, (provider, settings)
here = cu.placed(mixed, eye, [chosen], by="device")
record = cu.ep_record("webgpu")
asked = [e for e in record["placements"] if e["model"] in ("fixed", "mixed")]
entries = {e["title"]: e for e in asked}
ran = {"here": here["ran"], "recorded": entries["WebGpu by device"]["ran"]}
pd.DataFrame({k: pd.Series([": ".join(n) for n in v]) for k, v in ran.items()})

# %% [markdown]
# These are the islands of the drawing. `MemcpyToHost` and `MemcpyFromHost` are the copies: two in each run, because of
# one node. (QNN compiles each island into one node, and its emulator needs no copies.) On a graphics card, copies can
# take longer than the nodes around them.
#
# Now three more ways of asking. Which providers are chosen, which are used, and what is said?

# %%
ways = {
    "WebGpu by device": ([chosen], "device"),
    "WebGpu by device, then the CPU's device": ([chosen, *cpu], "device"),
    "the CPU's device first": ([*cpu, chosen], "device"),
    "WebGpu by name, then CPU": ([chosen, *cpu], "name"),
}
seen = {way: entries[way] for way in ways}
if {name for name, _ in here["ran"]} == {provider, *cpu} != {*cpu}:
    seen = {way: cu.placed(mixed, eye, by[0], by=by[1]) for way, by in ways.items()}
only, behind, before, named = seen.values()
left = [operator for name, operator in only["ran"] if name == cpu[0]]


# %%
def used(entry):
    return {name for name, _ in entry["ran"]}


rows = {w: [e["registered"], used(e), e["said"]] for w, e in seen.items()}
pd.DataFrame(rows, index=["chosen", "used", "said"]).T

# %% [markdown]
# Where your machine has no second provider, or one that takes `Unique`, these rows are from the record.
#
# 1. By device alone: a message says that some nodes went to the CPU.
# 2. With the CPU's device behind it, the same happens **without a message**: you have asked for it.
# 3. The CPU first: it takes every node. The order decides, node by node.
# 4. By name: not one node, and nothing is said. A plug-in is not chosen by its name.

# %% [markdown]
# ## Requests that cannot be met
#
# By name, more can go wrong: the package lacks the provider, the name is wrong, or the provider has no operator of the
# model. We ask for each, with the CPU in the list and without it.

# %% tags=["remove-input"]
cu.quiz("05_execution_providers", 2)

# %%
short = {"missing": "CUDA", "wrong name": "DirectML", "no operators": "Azure"}
wishes = {wish: [f"{name}ExecutionProvider"] for wish, name in short.items()}
met = {wish: cu.placed(mixed, eye, name + cpu) for wish, name in wishes.items()}
{wish: [e["registered"], used(e), *e["said"]] for wish, e in met.items()}

# %% [markdown]
# All end on the CPU. A missing provider leads to one warning, a wrong name to a message and a second try.
# `AzureExecutionProvider` calls services on the network and computes none of our operators: it is chosen and not used,
# and nothing is said. In a fourth case, the commonest in bug reports, the libraries of a provider [do not
# load](deeper/05_devices_and_policies.ipynb).
#
# The cure: with the key `session.disable_cpu_ep_fallback`, a node that is left for the CPU is an error. The CPU must
# not be in the list then.

# %%
missing, misnamed, idle = met.values()
lone = [cu.placed(mixed, eye, name) for name in wishes.values()]
strict = [cu.placed(mixed, eye, name, strict=True) for name in wishes.values()]
[entry["error"] for entry in strict]

# %% [markdown]
# Each is an error now. One message misleads: after a wrong name, Python's second try adds the CPU, and that contradicts
# the option. `enable_fallback=0` in the call of `InferenceSession` forbids the second try. `cu.strict_session` sets
# both, and says in one sentence what is wrong. Use it in the test of a service; in place of a name it takes devices,
# too.

# %%
try:
    cu.strict_session(file, "DirectMLExecutionProvider")
except cu.CourseError as error:
    print(error)

# %% tags=["hide-input"]
cu.claim(
    "ep-priority-list",
    {
        "with the device first, both providers take nodes": len(used(behind)) == 2,
        "with the CPU first, it takes all of them": used(before) == {*cpu},
        "both are named in the order asked for": [cpu[0], behind["registered"][0]]
        == before["registered"],
        "built-in ones, too": idle["registered"] == wishes["no operators"] + cpu,
    },
)

# %% tags=["hide-input"]
cu.claim(
    "ep-fallback-automatic",
    {
        "the operator that the device lacks went to the CPU": "Unique" in left
        and "MatMul" not in left,
        "it is said, if the CPU is left out": "not assigned" in str(only["said"]),
        "and not said, if it is listed": "not assigned" not in str(behind["said"]),
        "by its name, a plug-in gets no node": used(named) == {*cpu},
        "and nothing is said": named["said"] == [],
        "nor when a provider takes no node": idle["said"] == lone[2]["said"] == [],
        "a chosen provider may not be used": used(idle) == {*cpu},
        "a missing provider falls back as a whole": missing["registered"] == cpu,
        "with one warning": len(missing["said"]) == len(lone[0]["said"]) == 1,
        "the option makes errors of them": all(entry["error"] for entry in strict),
        "of the single operator, too": "has been explicitly disabled"
        in entries["WebGpu by device, fallback forbidden"]["error"],
    },
)

# %% [markdown]
# ## The report's table, today
#
# From the [documentation](https://onnxruntime.ai/docs/execution-providers/) and the package registry, November 2026.
# *Run* means: for this course, without a graphics card.
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
# The first seven rows are the report's. Are its names right? And are MLAS and Eigen libraries of somebody else? We look
# for them in the files of the installed package:

# %%
report = ["CPU", "CUDA", "TensorRT", "OpenVINO", "NNAPI", "CoreML", "DirectML"]
known = [p.removesuffix("ExecutionProvider") for p in ort.get_all_providers()]
right = [name for name in report if name in known]
right

# %%
from pathlib import Path

(library,) = Path(ort.__file__).parent.glob("capi/onnxruntime_pybind11_state*")
binary = library.read_bytes().lower()
requests = {(e["model"], e["title"]): e for e in cu.ep_record("qnn")["placements"]}
qnn = requests["fixed", "QNN by device"]
binary.count(b"mlas"), binary.count(b"eigen"), qnn["ran"]

# %% [markdown]
# Three names are not known: a name is compared letter by letter. MLAS is a part of ONNX Runtime's own source, and Eigen
# is compiled into it. Other providers hand parts of the graph to their library: recorded, QNN compiled eight nodes into
# one.

# %% tags=["hide-input"]
cu.claim(
    "ep-names",
    {
        "four of the report's seven names are right": len(right) == 4,
        "for the other three there is a name that is almost the same": {*known}
        >= {"Tensorrt", "Nnapi", "Dml"},
        "with a wrong name, all runs on the CPU": used(misnamed) == {*cpu},
        "and it is said": "Unknown Provider Type" in str(misnamed["said"]),
    },
)

# %% tags=["hide-input"]
cu.claim(
    "ep-libraries",
    {
        "QNN: a network became one node, compiled by the library": qnn["ran"]
        == [["QNNExecutionProvider", "subgraph"]],
        "CPU: no node is a compiled subgraph": "Conv" in ran_alone
        and "subgraph" not in str(ran_alone),
        "MLAS is compiled into ONNX Runtime": binary.count(b"mlas") > 0,
        "so is Eigen": binary.count(b"eigen") > 0,
    },
)

# %% [markdown]
# ## Play
#
# The explorer opens on the quietest fallback. Which other requests say nothing, and do not do what they were asked for?

# %%
records = record, cu.ep_record("qnn"), cu.ep_record("cpu")
record["placements"].sort(key=lambda e: "by name, then" not in e["title"])
cu.placement_explorer(records)

# %% [markdown]
# ## Recap
#
# - Create a session once, and share it among threads. It loads, rewrites, divides the graph among the providers, and
#   optimises each part; only then does it run.
# - A provider is registered, available, chosen, used. `get_providers()` says which were chosen; the plan and the
#   profile say which are used.
# - Ask for a plug-in by device, for a built-in provider by name. The order decides, and the CPU comes last. Leave it
#   out of the list, unless you do not want to hear of nodes that fall back to it.
# - Each change of provider may be a copy: count them in the profile.
# - A wrong name, a missing provider, an unsupported operator all end on the CPU, some without a word. Use
#   `session.disable_cpu_ep_fallback` and `enable_fallback=0`, unless a slow answer is better than none.
#
# **Now you:** [exercises 05](exercises/05_execution_providers.ipynb). **Next:** [06 · Fusion](06_fusion.ipynb).
# **Deeper:** [several providers, measured](deeper/05_second_provider_measured.ipynb),
# [devices and policies](deeper/05_devices_and_policies.ipynb), [compiled files](deeper/05_compiled_files.ipynb),
# [data in and out](deeper/05_data_in_and_out.ipynb), [stages and options](deeper/05_stages_and_options.ipynb),
# [telemetry](deeper/05_telemetry.ipynb), [the report's listing](deeper/05_report_listing.ipynb).
