# %% [markdown]
# # 05 · Execution providers
#
# A file becomes a program when a **session** is created from it. The session decides where each node will run: on the
# processor, on a graphics card, on a chip of a phone. The part of ONNX Runtime that computes a node is called an
# [execution provider](https://onnxruntime.ai/docs/execution-providers/). This decision is easy to ask for, and easy to
# get wrong without noticing.
#
# After this lesson you will be able to
#
# - say what happens when a session is created, and how long each stage takes,
# - feed a session in three ways, and set its threads and options,
# - prove for every node on which provider it ran,
# - recognise the silent fallbacks, and turn them into errors.

# %%
import course_utils as cu

cu.setup()

# %%
import torch

model = cu.fashion_resnet()
file = "work/05_fashion_resnet.onnx"
with cu.exporter_messages():
    torch.onnx.export(
        model,
        (torch.randn(2, 1, 28, 28),),
        file,
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=False,
        verbose=False,
    )

# %% [markdown]
# ## The report's listing
#
# The report shows an [`InferenceSession`](https://onnxruntime.ai/docs/api/python/api_summary.html) in eight lines. Here
# they are, as printed:

# %%
printed = """
import onnxruntime as ort
import numpy as np

providers =
session = ort.InferenceSession("resnet_dynamic.onnx", providers=providers)

input_name = session.get_inputs().name
input_data = np.random.randn(1, 3, 224, 224).astype(np.float32)

outputs = session.run(None, {input_name: input_data})
print("result:", outputs.shape)
"""

# %% [markdown]
# It needs a model that takes any number of colour pictures. A very small one is enough. Then we run the listing, and
# repair one fault after the other.

# %%
import contextlib
import io

import onnx

tiny = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
    g (float[N, 3, 224, 224] image) => (float[N, 3, 1, 1] mean) {
        mean = GlobalAveragePool(image)
    }""")
onnx.save(tiny, "work/05_resnet_dynamic.onnx")


def outcome(code):
    """What the listing prints, or the error that stops it."""
    shown = io.StringIO()
    try:
        with contextlib.redirect_stdout(shown):
            exec(code.replace("resnet_dynamic", "work/05_resnet_dynamic"), {})
    except Exception as error:
        return f"{type(error).__name__}: {error}".replace(" (<string>, line 5)", "")
    return shown.getvalue().strip()


# %%
import pandas as pd

versions = {"as printed": printed}
versions["with providers"] = printed.replace(
    "providers =\n", 'providers = ["CPUExecutionProvider"]\n'
)
versions["and get_inputs()[0]"] = versions["with providers"].replace(
    "get_inputs().", "get_inputs()[0]."
)
versions["and outputs[0]"] = versions["and get_inputs()[0]"].replace(
    "outputs.shape", "outputs[0].shape"
)
results = {name: outcome(code) for name, code in versions.items()}
pd.Series(results, name="what happens").to_frame()

# %%
said = list(results.values())
lacks = "'list' object has no attribute"
cu.claim(
    "report-session-snippet",
    {
        "as printed it is not Python": said[0].startswith("SyntaxError"),
        "get_inputs() returns a list, which has no name": f"{lacks} 'name'"
        in said[1],
        "run() returns a list, which has no shape": f"{lacks} 'shape'" in said[2],
        "with three repairs it runs": said[3] == "result: (1, 3, 1, 1)",
    },
)

# %% [markdown]
# The idea of the listing is right, and it is the pattern of every program that uses ONNX Runtime: a session is created
# **once**, then `run` is called with a dict of arrays, and returns a list of arrays.
#
# ## Telemetry
#
# Since version 1.29 the official packages of ONNX Runtime send **telemetry**: events about the library and the machine,
# to Microsoft ([what and how](https://github.com/microsoft/onnxruntime/blob/main/docs/Privacy.md)). The course
# switches it off: `import course_utils` sets a variable of the environment, and ONNX Runtime reads it when it is imported.
#
# Does that work? Here is a program that lives for 12 seconds. It runs in a process of its own, without a network. There is
# only a name server, which writes down each name it is asked for. (This needs Linux.)

# %%
program = f"""
import time
import course_utils
import onnxruntime as ort
session = ort.InferenceSession("{file}", providers=["CPUExecutionProvider"])
time.sleep(12)
"""
watched = cu.watch_lookups(program)

# %% [markdown]
# And without the variable? Such a program sends, so we do not run it here. The table was recorded without a network: each
# program lived for 40 seconds. On Linux, `python -m course_utils.lab.lookups` repeats it, cut off from the network in the same way.

# %%
record = cu.telemetry_record()
runs = pd.DataFrame(record["runs"]).T
runs["names"] = [sorted({name for _, name in asked}) for asked in runs["lookups"]]
runs["first after s"] = [asked[0][0] if asked else "" for asked in runs["lookups"]]
runs["look-ups"] = runs["lookups"].map(len)
runs["device id"] = [
    any("deviceid" in file for file in files) for files in runs["files"]
]
print(
    record["date"],
    "onnxruntime",
    record["versions"]["onnxruntime"],
    record["machine"]["system"],
)
runs[["look-ups", "first after s", "device id", "names"]]

# %% [markdown]
# The import alone starts it: it writes a random number, the *device id*, into the user's cache folder, and asks for the
# address of Microsoft's server after some seconds. What comes after the import is too late. A build service that sets `CI`
# sends nothing, so a test there never sees it.

# %%
silent = "ORT_DISABLE_TELEMETRY=1 before the import"
here = watched.result() if watched else record["runs"][silent]
loud, late = (
    runs.loc["nothing is done"],
    runs.drop(["nothing is done", silent, "CI=true"]),
)
cu.claim(
    "model-runs-silently",
    {
        "switched off, a session asks for no name": here["lookups"] == [],
        "and writes no file into the user's folder": here["files"] == [],
        "recorded: by itself it asks for a server of Microsoft": loud["names"]
        == ["mobile.events.data.microsoft.com"],
        "and writes a device id": loud["device id"],
        "recorded: after the import nothing stops it": (late["look-ups"] > 0).all()
        and late["device id"].all(),
        "recorded: with CI=true nothing is sent": runs.loc["CI=true", "look-ups"]
        == 0,
    },
)

# %% [markdown]
# In a program of your own, set `ORT_DISABLE_TELEMETRY=1` before Python starts, or in its first lines. If you want to send
# telemetry, set the variable to 0: the course leaves it as it is.
#
# ## How a session is created

# %% tags=["remove-input"]
cu.quiz("05_execution_providers", 1)

# %% [markdown]
# ONNX Runtime writes a detailed log: `log_severity_level = 0` is the most detailed of five levels. `cu.session_log`
# creates the session several times in another process, and returns the log as a table. A few lines of it:

# %%
log = cu.session_log(file, times=7)
second = log[log["creation"] == 2]
second[
    second["message"].str.contains(
        "Initializing|level 1 for|level 2 for|laced|successfully"
    )
]

# %% [markdown]
# The log has times, so we can cut the creation into stages. Each stage ends where a certain line appears. The first
# creation is left out, because it contains work that a process does only once. And one line tells the result of the
# partition: *All nodes placed on*.

# %%
import numpy as np

ends = {
    "options and threads": "Dynamic block base",
    "load the file": "Initializing session",
    "check and prepare the graph": "for level 1 for up to",
    "optimise: general rewrites": "iteration for level 1",
    "partition: who takes which node": "for level 2 for up to",
    "optimise: fusions and layout": "Node placements",
    "kernels, weights, memory plan": "Session successfully initialized",
}
spent = {}
for creation, lines in log[log["creation"] > 1].groupby("creation"):
    at = [
        lines[lines["message"].str.contains(text)]["ms"].min()
        for text in ends.values()
    ]
    spent[creation] = np.diff([0, *at])
stages = pd.DataFrame(spent, index=list(ends)).median(axis=1)

# %%
import matplotlib.pyplot as plt

_, ax = plt.subplots(figsize=(7.2, 2.8))
ax.barh(stages.index[::-1], stages[::-1], color="#56B4E9")
ax.set_title(f"Most time goes into “{stages.idxmax()}”")
ax.set_xlabel("milliseconds (median; writing the log costs some of it)")
plt.show()

# %% [markdown]
# A second source is the **profile**, which is more exact but knows only two stages. It is a JSON file that
# `end_profiling` completes. We run the model three times, so that runs stand in it, too.

# %%
import json
from pathlib import Path

import onnxruntime as ort

options = ort.SessionOptions()
options.enable_profiling = True
options.profile_file_prefix = "work/05_profile"
session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
for _ in range(3):
    session.run(None, {"image": np.zeros((1, 1, 28, 28), np.float32)})
events = json.loads(Path(session.end_profiling()).read_text())
whole = pd.DataFrame([e for e in events if e["cat"] == "Session"])[
    ["name", "ts", "dur"]
]
whole.rename(columns={"ts": "starts at µs", "dur": "lasts µs"})

# %% [markdown]
# Loading and initialisation happen once, the run as often as we ask for it.
#
# The report says: load, optimise, partition, run. Is that the order? The log shows *two* stages of optimisation, one on
# each side of the partition. A small model can prove it. Its `Identity` falls to a general rewrite, its `Relu` to a fusion.

# %%
life = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
    g (float[1, 3, 8, 8] x) => (float[1, 8, 8, 8] y) <float[8, 3, 3, 3] w> {
        same = Identity(x)
        c = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(same, w)
        y = Relu(c) }""")
weight = np.ones((8, 3, 3, 3), np.float32)
life.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
for node in life.graph.node:
    node.name = f"my_{node.op_type}"

# %% [markdown]
# Two things are new here. With `session.record_ep_graph_assignment_info` the session writes down which provider took
# which node, **at the moment of the partition**. And the profile has an event for each node that **ran**.

# %%
RECORD = "session.record_ep_graph_assignment_info"


def recording(prefix="work/05_profile"):
    options = ort.SessionOptions()
    options.add_session_config_entry(RECORD, "1")
    options.enable_profiling, options.profile_file_prefix = True, prefix
    return options


def placed(session):
    """[provider, operator, node] of each node, when the graph was divided."""
    return [
        [g.ep_name, n.op_type, n.name]
        for g in session.get_provider_graph_assignment_info()
        for n in g.get_nodes()
    ]


def ran(session):
    """[provider, operator, node] of each node that ran. It ends the profile."""
    events = json.loads(Path(session.end_profiling()).read_text())
    kernels = [
        e
        for e in events
        if e["cat"] == "Node" and e["name"].endswith("_kernel_time")
    ]
    return [
        [
            e["args"]["provider"],
            e["args"]["op_name"],
            e["name"].removesuffix("_kernel_time"),
        ]
        for e in kernels
    ]


# %%
session = ort.InferenceSession(
    life.SerializeToString(), recording(), providers=["CPUExecutionProvider"]
)
in_record = placed(session)
session.run(None, {"x": np.ones((1, 3, 8, 8), np.float32)})
in_profile = ran(session)
columns = ["provider", "operator", "node"]
pd.concat(
    {
        "the record": pd.DataFrame(in_record, columns=columns),
        "the profile": pd.DataFrame(in_profile, columns=columns),
    }
)

# %% [markdown]
# Read from top to bottom. The file has three nodes. In the record `Identity` is gone already: a general rewrite came
# *before* the partition. `Conv` and `Relu` are still apart. In the profile `Relu` is gone, too: it was fused into the
# convolution *after* the partition. A node `ReorderOutput`, where there is one, was added by the change of layout.

# %%
order = second["message"].reset_index(drop=True)
position = [order[order.str.contains(text)].index.min() for text in ends.values()]
cu.claim(
    "session-lifecycle",
    {
        "the log has the stages in this order": position == sorted(position),
        "a general rewrite came before the partition": [
            op for _, op, _ in in_record
        ]
        == ["Conv", "Relu"],
        "a fusion came after it": "Relu" not in [op for _, op, _ in in_profile],
        "loading and initialisation end before the first run": list(
            whole["name"][:2]
        )
        == ["model_loading_uri", "session_initialization"],
    },
)

# %% [markdown]
# ## Create once, reuse

# %% tags=["remove-input"]
cu.quiz("05_execution_providers", 2)

# %%
cpu = ["CPUExecutionProvider"]
one = ort.SessionOptions()
one.intra_op_num_threads = 1
session = ort.InferenceSession(file, one, providers=cpu)
images, labels = cu.fashion_mnist("test")
picture = {"image": cu.normalize(images[:1])}
cost = cu.compare(
    {
        "create a session": lambda: ort.InferenceSession(file, one, providers=cpu),
        "run": lambda: session.run(None, picture),
    },
    rounds=20,
)
cost

# %%
as_long = cost.ratio("create a session", "run")
cost.plot(f"Creating the session takes as long as {as_long:.0f} runs")
plt.show()

# %% [markdown]
# A program that creates the session for every request spends most of its time on preparation. Can one session serve
# many requests at the same time? Yes: `run` may be called from several threads at once. Nothing needs to be locked.

# %%
from concurrent.futures import ThreadPoolExecutor

requests = [cu.normalize(images[i : i + 1]) for i in range(200)]
alone = [session.run(None, {"image": x})[0] for x in requests]
with ThreadPoolExecutor(8) as pool:
    together = list(
        pool.map(lambda x: session.run(None, {"image": x})[0], requests)
    )
same_answers = all(np.array_equal(a, b) for a, b in zip(alone, together))
same_answers

# %% [markdown]
# The claim must not depend on a clock. So we count work: how many rewriting steps each creation makes, and how often the
# profile above says that a model was loaded, initialised and run.

# %%
rewrites = (
    log[log["message"].str.startswith("Applying graph transformer")]
    .groupby("creation")
    .size()
)
counts = whole["name"].value_counts()
cu.claim(
    "session-init-is-heavy",
    {
        "every creation applies dozens of rewrites anew": rewrites.min() > 24
        and len(rewrites) == 7,
        "three runs needed one loading and one initialisation": counts[
            "model_loading_uri"
        ]
        == 1
        and counts["session_initialization"] == 1
        and counts["model_run"] == 3,
        "8 threads sent one session 200 requests: the same answers": same_answers,
    },
)

# %% [markdown]
# ## What goes in, what comes out
#
# A session knows the names, types and shapes of its inputs and outputs. A name in a shape stands for any size.

# %%
ports = {"input": session.get_inputs(), "output": session.get_outputs()}
pd.DataFrame(
    [[kind, v.name, v.type, v.shape] for kind, vs in ports.items() for v in vs],
    columns=["", "name", "type", "shape"],
)

# %% [markdown]
# Feed it something else, and it says what it wanted. Four mistakes that everybody makes once:

# %%
batch = cu.normalize(images[:4])
wrong = {
    "another name": {"picture": batch},
    "float64": {"image": batch.astype(np.float64)},
    "a dimension too few": {"image": batch[:, 0]},
    "another size": {"image": np.zeros((4, 1, 32, 32), np.float32)},
}
said = {}
for mistake, feed in wrong.items():
    try:
        session.run(None, feed)
    except Exception as error:
        said[mistake] = " ".join(str(error).split(" : ")[-1].split())
assert set(said) == set(wrong)
pd.Series(said, name="ONNX Runtime says").to_frame()

# %% [markdown]
# NumPy arrays are one way to feed a session. An `OrtValue` is ONNX Runtime's own tensor. It can live on a device, and it
# can be used again in the next run. On the CPU it even shares the memory of the array:

# %%
value = ort.OrtValue.ortvalue_from_numpy(batch)
(result,) = session.run_with_ort_values(["logits"], {"image": value})
assert np.array_equal(result.numpy(), session.run(None, {"image": batch})[0])
{
    "device": value.device_name(),
    "type": value.data_type(),
    "same memory": value.data_ptr() == batch.ctypes.data,
}

# %% [markdown]
# [IO binding](https://onnxruntime.ai/docs/performance/tune-performance/iobinding.html) goes one step further. You say
# beforehand where each input comes from and where each output goes. Then a run creates nothing. On a graphics card this
# avoids copies between card and processor, and that is what it is for.

# %%
answer = np.empty((4, 10), np.float32)
target = ort.OrtValue.ortvalue_from_numpy(answer)
binding = session.io_binding()
binding.bind_ortvalue_input("image", value)
binding.bind_ortvalue_output("logits", target)
session.run_with_iobinding(binding)
assert np.array_equal(answer, session.run(None, {"image": batch})[0])

# %% [markdown]
# The result stands in `answer`, our own array. Nothing was returned. Does it pay off here, on the CPU?

# %%
ways = cu.compare(
    {
        "run": lambda: session.run(None, {"image": batch}),
        "IO binding": lambda: session.run_with_iobinding(binding),
    },
    rounds=20,
)
ways

# %% [markdown]
# Do not expect much of it here: on the CPU nothing has to be copied to another device.
#
# ## Options: of the session, and of a run
#
# | what | where | effect |
# |---|---|---|
# | `intra_op_num_threads` | session | threads inside one node; 0 means one per core |
# | `inter_op_num_threads`, `execution_mode` | session | several nodes at the same time; seldom useful |
# | `graph_optimization_level` | session | how much is rewritten, see lesson 06 |
# | `enable_cpu_mem_arena` | session | keep memory for the next run, or give it back |
# | `add_free_dimension_override_by_name` | session | fix a free dimension, such as the batch |
# | `add_session_config_entry(key, value)` | session | everything else, as text |
# | `RunOptions` | one run | stop it, log it, give memory back after it |
#
# [Threads](https://onnxruntime.ai/docs/performance/tune-performance/threading.html) first. We make three sessions,
# since the number is fixed when a session is created. The last one gets four times as many threads as there are cores.

# %%
import os

big = {"image": cu.normalize(images[:64])}
sessions = {}
for threads in (1, 2, 4 * os.cpu_count()):
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    sessions[threads] = ort.InferenceSession(file, options, providers=cpu)
cu.compare(
    {f"{n} threads": lambda s=s: s.run(None, big) for n, s in sessions.items()},
    rounds=15,
)

# %% [markdown]
# More threads than free cores do not help, and often harm. On a server that works on many requests at once, one thread
# per session is often the best choice.
#
# `RunOptions` belong to a single run. Set `terminate` from another thread, and a run that takes too long stops:

# %%
stop = ort.RunOptions()
stop.terminate = True
try:
    session.run(None, picture, stop)
except Exception as error:
    stopped = str(error)
assert "terminate flag" in stopped
print(stopped)

# %% [markdown]
# Now a trap. An attribute that does not exist is an error. A configuration **key** that does not exist is not: it is text,
# stored and never read. This is one letter away from switching off the waiting in a busy loop:

# %%
options = ort.SessionOptions()
with contextlib.suppress(AttributeError):
    options.intra_op_num_thread = 1
    raise AssertionError("the misspelled attribute was accepted")
options.add_session_config_entry("session.intra_op.allow_spining", "0")
accepted = ort.InferenceSession(file, options, providers=cpu)
accepted.get_session_options().get_session_config_entry(
    "session.intra_op.allow_spining"
)

# %% [markdown]
# So copy keys, never type them. ONNX Runtime lists them in its header file
# [`onnxruntime_session_options_config_keys.h`](https://github.com/microsoft/onnxruntime/blob/main/include/onnxruntime/core/session/onnxruntime_session_options_config_keys.h).
# Some that are useful; the last two come later in this lesson:
#
# | key | value | effect |
# |---|---|---|
# | `session.intra_op.allow_spinning` | `"0"` | threads that wait sleep, in place of a busy loop |
# | `session.set_denormal_as_zero` | `"1"` | numbers very near to zero (*subnormal*) count as zero: some models get faster. **Only the first session of a process decides** |
# | `session.disable_prepacking` | `"1"` | weights are not stored a second time in another order: less memory, often slower |
# | `session.record_ep_graph_assignment_info` | `"1"` | write down which provider takes which node |
# | `session.disable_cpu_ep_fallback` | `"1"` | a node that is left for the CPU is an error |
#
# The condition in the second row is easy to miss. A later session keeps what the first one has set, whatever it asks for.
# We created seven sessions above, and the log mentions the setting once:

# %%
asked_once = log[log["message"].str.contains("denormal-as-zero")]
assert list(asked_once["creation"]) == [1]
asked_once

# %% [markdown]
# ## Providers: known, available, used
#
# There are three lists. The first two do not need a session; the third is `session.get_providers()`, below.

# %%
known, available = ort.get_all_providers(), ort.get_available_providers()
pd.Series(
    {name: "in this package" if name in available else "" for name in known},
    name="available",
).to_frame()

# %% [markdown]
# `get_all_providers` names all that this version of ONNX Runtime has heard of, in their default order.
# `get_available_providers` names what was compiled into the installed package. Whether its libraries load, and whether
# there is a device for it, are two more questions. Now compare with the names in the report's table:

# %%
import difflib

report = ["CPU", "CUDA", "TensorRT", "OpenVINO", "NNAPI", "CoreML", "DirectML"]
names = pd.DataFrame(index=[f"{name}ExecutionProvider" for name in report])
names["known here"] = names.index.isin(known)
by_lower = {name.lower(): name for name in known}
near = [
    difflib.get_close_matches(n.lower(), by_lower, n=1, cutoff=0.7)
    for n in names.index
]
names["the real name"] = [by_lower[n[0]] if n else "" for n in near]
names

# %% [markdown]
# One misspelled letter matters: the name is compared as text. What can be said of each provider today? This table is from
# the documentation and the package registry, as of November 2026. Of its rows, this lesson runs the CPU and OpenVINO; the
# others were not run here.
#
# | provider | for | library behind it | Python package |
# |---|---|---|---|
# | `CPUExecutionProvider` | every processor | MLAS, Eigen | all of them |
# | `CUDAExecutionProvider` | NVIDIA | cuDNN, cuBLAS | `onnxruntime-gpu` |
# | `TensorrtExecutionProvider` | NVIDIA | TensorRT | `onnxruntime-gpu` |
# | `NvTensorRTRTXExecutionProvider` | NVIDIA RTX | TensorRT for RTX | plug-in `onnxruntime-ep-nv-tensorrt-rtx` |
# | `MIGraphXExecutionProvider` | AMD graphics cards | MIGraphX | `onnxruntime-migraphx` |
# | `OpenVINOExecutionProvider` | Intel; also runs on processors of AMD | OpenVINO | `onnxruntime-openvino`, plug-in `onnxruntime-ep-openvino` |
# | `DmlExecutionProvider` | Windows | DirectML on DirectX 12 | `onnxruntime-directml`; new work goes into Windows ML |
# | `QNNExecutionProvider` | Qualcomm NPU | Qualcomm QNN | plug-in `onnxruntime-qnn`, from version 2 |
# | `CoreMLExecutionProvider` | Apple | CoreML | `onnxruntime` on macOS |
# | `NnapiExecutionProvider` | Android | NNAPI, deprecated since Android 15 | none: Android library |
# | `WebGpuExecutionProvider` | browsers, and more | WebGPU | plug-in `onnxruntime-ep-webgpu` |
#
# Newer providers are [plug-ins](https://onnxruntime.ai/docs/execution-providers/plugin-ep-libraries.html): a package
# beside `onnxruntime` that brings one library. You register the library, and then ask **by device**, not by name:
# `ort.register_execution_provider_library(name, path)`, then `ort.get_ep_devices()`, then
# `options.add_provider_for_devices(…)`. A registered plug-in is not in `get_available_providers()`. Asked for by name, it
# gave the CPU and the warning of a missing provider (tried with `onnxruntime-ep-openvino` 1.8.1 and
# `onnxruntime-ep-webgpu` 0.4.0, on a machine that has no device for either). The CPU can be asked for by device, too:

# %%
devices = [
    device
    for device in ort.get_ep_devices()
    if device.ep_name == "CPUExecutionProvider"
]
by_device = ort.SessionOptions()
by_device.add_provider_for_devices(devices, {})
assert ort.InferenceSession(file, by_device).get_providers() == [
    "CPUExecutionProvider"
]
[
    (device.ep_name, device.device.type.name, device.device.vendor)
    for device in ort.get_ep_devices()
]

# %% [markdown]
# Lesson 08 returns to browsers and phones.
#
# ## Three requests that cannot be met
#
# We ask for something that is not available, and collect all messages: Python's warnings, printed lines, and the log of
# ONNX Runtime, at its default level. `cu.overheard` does that. `strict` adds the option
# `session.disable_cpu_ep_fallback`, which comes later.


# %%
def ask(providers, strict=False, **how):
    """The session, or the error; and everything that was said."""
    options, said = recording(), []
    if strict:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    with cu.overheard(said):
        try:
            session = ort.InferenceSession(
                file, options, providers=providers, **how
            )
        except Exception as error:
            session = error
    return session, said


# %% tags=["remove-input"]
cu.quiz("05_execution_providers", 4)

# %%
fallbacks = {
    "a wrong name": ["DirectMLExecutionProvider", "CPUExecutionProvider"],
    "a missing provider": ["CUDAExecutionProvider", "CPUExecutionProvider"],
    "an unsupported operator": ["AzureExecutionProvider", "CPUExecutionProvider"],
}
asked = {title: ask(providers) for title, providers in fallbacks.items()}
alone = {title: ask(providers[:1]) for title, providers in fallbacks.items()}
heard = {"CPU in the list": asked, "CPU left out": alone}
heard = {
    how: {title: " / ".join(said) or "nothing" for title, (_, said) in them.items()}
    for how, them in heard.items()
}
pd.DataFrame(heard)

# %% [markdown]
# All three end on the CPU, and one of them silently:
#
# 1. **A wrong name.** A warning, some printed lines, and a second try with the CPU alone.
# 2. **A missing provider.** The name is right, but the package does not have it. A single warning.
# 3. **An unsupported operator.** `AzureExecutionProvider` calls services on the network and computes none of our operators.
#    It is there, it is registered, it takes no node. Nothing is said at all, with the CPU in the list or without.
#
# There is a fourth case, the commonest in bug reports: **libraries that do not load.** The package has CUDA, so
# `get_available_providers()` names it, but CUDA's own libraries are missing or have another version. With
# `onnxruntime-gpu` 1.31.1 on a machine without CUDA, this was logged, and the session ran on the CPU:
#
# > Failed to load library … with error: libcublasLt.so.13: cannot open shared object file: No such file or directory
# >
# > Failed to create CUDAExecutionProvider. Require cuDNN 9.* and CUDA 13.*. …
#
# `get_providers()` shows this case: it names the CPU alone. The cure is a matching CUDA
# ([requirements](https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html)). Where PyTorch or NVIDIA's
# packages bring one, `ort.preload_dlls()` before the session loads it from there (not run here).
#
# All our sessions work. We compare what `get_providers()` says with the record and the profile:

# %% tags=["remove-input"]
cu.quiz("05_execution_providers", 3)

# %%
truth = {}
for title, (session, _) in asked.items():
    session.run(None, picture)
    registered, nodes = (
        session.get_providers(),
        {provider for provider, *_ in placed(session)},
    )
    truth[title] = [
        fallbacks[title][0],
        ", ".join(registered),
        ", ".join(nodes),
        ", ".join({p for p, *_ in ran(session)}),
    ]
truth = pd.DataFrame(
    truth, index=["asked for", "get_providers()", "the record", "the profile"]
).T
truth

# %% [markdown]
# In the last row `get_providers()` names a provider on which **not one node** ran. Only the record and the profile show
# that. They agree here: the record holds the plan, the profile what ran.
#
# Now the cure. `session.disable_cpu_ep_fallback` says: if a node ends up on the CPU, that is an error. The CPU provider
# must not stand in the list then.

# %%
strictly = {
    title: ask(providers[:1], strict=True)[0]
    for title, providers in fallbacks.items()
}
assert all(isinstance(outcome, Exception) for outcome in strictly.values())
pd.Series(
    {title: str(error).split(" : ")[-1] for title, error in strictly.items()},
    name="the error",
).to_frame()

# %% [markdown]
# Now each of the three is an error. The first message misleads: the second try of the wrong name adds the CPU
# by itself, and that contradicts the option. `enable_fallback=0` forbids the second try, and then the message is clear:

# %%
unknown, _ = ask(["DirectMLExecutionProvider"], enable_fallback=0)
assert "Unknown Provider Type" in str(unknown)
print(unknown)

# %% [markdown]
# What about an **option** that a provider does not know? That depends on the provider. The CPU provider stores nothing and
# says nothing:

# %%
session, said = ask([("CPUExecutionProvider", {"tempo": "presto"})])
assert said == []
session.get_provider_options()

# %% [markdown]
# OpenVINO refuses an unknown option, and then the second try puts everything on the CPU. We come to it below.
#
# `cu.strict_session` puts all of this together: it looks the name up, sets both options, and says in one sentence what is
# wrong. Use it, or write your own; it is shorter than this lesson.

# %%
bad = {
    "a wrong name": ("DirectMLExecutionProvider", {}),
    "a missing provider": ("CUDAExecutionProvider", {}),
    "an unsupported operator": ("AzureExecutionProvider", {}),
    "an unknown option": ("CPUExecutionProvider", {"tempo": "presto"}),
}
sentences = {}
for title, (provider, provider_options) in bad.items():
    try:
        cu.strict_session(file, provider, provider_options)
    except cu.CourseError as error:
        sentences[title] = str(error)
assert set(sentences) == set(bad)
pd.Series(sentences, name="cu.strict_session says").to_frame()

# %% [markdown]
# Now we can judge the report's names:

# %%
misspelled = names[~names["known here"]]
cu.claim(
    "ep-names",
    {
        "four of the report's seven names are right": names["known here"].sum()
        == 4,
        "for the other three there is a name that is almost the same": set(
            misspelled["the real name"]
        )
        == {
            "TensorrtExecutionProvider",
            "NnapiExecutionProvider",
            "DmlExecutionProvider",
        },
        "with a wrong name, everything runs on the CPU": truth.loc[
            "a wrong name", "the profile"
        ]
        == cpu[0],
        "and it is said": any(
            "Unknown Provider Type" in line for line in asked["a wrong name"][1]
        ),
    },
)

# %% [markdown]
# ## A second provider, for real
#
# To see a partition, we need a provider that takes some nodes and leaves others. `onnxruntime-openvino` runs on processors
# of Intel and of AMD. It brings a whole ONNX Runtime of its own, so it wants an environment of its own:
#
# ```
# make ep-openvino
# ```
#
# builds `.venv-openvino`, runs the script `course_utils/lab/ep_experiment.py` there, and writes `data/ep_records/openvino.json`.
# The script asks for providers as we did above, and writes down what was said and where the nodes went. If you have that
# environment, the next cell runs the script now; otherwise it reads the record. This package is built from
# an older ONNX Runtime than the one of this lesson; the cell shows both versions.

# %%
recorded = cu.ep_record("openvino")
python = cu.second_environment()
openvino = (
    cu.run_ep_experiment("OpenVINOExecutionProvider", python=python)
    if python
    else recorded
)
print(
    "run just now" if python else "read from the record of " + recorded["date"],
    "| this lesson:",
    ort.__version__,
)
pd.Series(
    {**openvino["machine"], **openvino["versions"]}, name="openvino"
).to_frame()

# %% [markdown]
# And on other devices? A record exists only where somebody has measured.

# %%
records = {
    name: cu.ep_record(name) for name in ("cpu", "openvino", "cuda", "tensorrt")
}
pd.Series(
    {
        n: f"{r['machine']['processor']}, {r['date']}" if r else "no record yet"
        for n, r in records.items()
    },
    name="recorded on",
).to_frame()

# %% [markdown]
# For CUDA and TensorRT there was no graphics card at hand, so there is no record, and this lesson gives no figure for them.
# With a card: install `onnxruntime-gpu`, run `python course_utils/lab/ep_experiment.py --provider CUDAExecutionProvider --out
# data/ep_records/cuda.json`, and send it in.
#
# First, a model with `Unique` in its middle, which OpenVINO does not support.

# %% tags=["remove-input"]
cu.quiz("05_execution_providers", 5)


# %%
def request(record, model, title):
    """One entry of the experiment, by model and title."""
    return next(
        e
        for e in record["placements"]
        if (e["model"], e["title"]) == (model, title)
    )


mixed = request(openvino, "mixed", "OpenVINO first, then CPU")
pd.DataFrame(mixed["recorded"], columns=["the record: provider", "nodes"])

# %%
pd.DataFrame(mixed["ran"], columns=["the profile: provider", "kernel"])

# %% [markdown]
# Two subgraphs of several nodes each, and one node between them on the CPU. OpenVINO compiles a subgraph into a single
# kernel, so the profile sees it as one. The record still knows the nodes in it.
#
# The report says that ONNX Runtime delegates the work to such libraries, and names MLAS and Eigen for the CPU. Are they
# libraries of somebody else? We look for both names in the files of the installed package.

# %%
folder = Path(ort.__file__).parent / "capi"
binaries = [
    path
    for path in folder.iterdir()
    if path.suffix in (".so", ".pyd", ".dll", ".dylib")
]
found = {
    name: sum(path.read_bytes().lower().count(name.encode()) for path in binaries)
    for name in ("mlas", "eigen")
}
found | {"files": sorted(path.name for path in binaries)}

# %%
compiled = [
    kernel
    for provider, kernel in mixed["ran"]
    if provider == "OpenVINOExecutionProvider"
]
cu.claim(
    "ep-libraries",
    {
        "OpenVINO: five nodes became two kernels, compiled by the library": compiled
        == ["subgraph"] * 2,
        "CPU: no kernel is a compiled subgraph": not any(
            "subgraph" in operator for _, operator, _ in in_profile
        ),
        "MLAS is compiled into ONNX Runtime": found["mlas"] > 0,
        "so is Eigen": found["eigen"] > 0,
    },
)

# %% [markdown]
# MLAS is a part of ONNX Runtime's own source code, and Eigen is compiled into the same file.
#
# Does the order of the list matter? The same model, asked for in both orders:

# %%
orders = {
    t: request(openvino, "mixed", t)
    for t in ("OpenVINO first, then CPU", "CPU first, then OpenVINO")
}
counted = {
    t: pd.Series([p for p, nodes in e["recorded"] for _ in nodes]).value_counts()
    for t, e in orders.items()
}
pd.DataFrame(counted).fillna(0).astype(int).T

# %%
taken = {title: set(nodes.index) for title, nodes in counted.items()}
in_order = [
    e["registered"] == [name for name, _ in e["providers"]] for e in orders.values()
]
idle = fallbacks["an unsupported operator"]
cu.claim(
    "ep-priority-list",
    {
        "with OpenVINO first, both providers take nodes": len(
            taken["OpenVINO first, then CPU"]
        )
        == 2,
        "with CPU first, the CPU takes all of them": taken[
            "CPU first, then OpenVINO"
        ]
        == set(cpu),
        "both sessions name both providers, in the order asked for": all(in_order),
        "so does a session of this runtime": asked["an unsupported operator"][
            0
        ].get_providers()
        == idle,
    },
)

# %% [markdown]
# So the most general provider comes **last**. Or leave it out: ONNX Runtime adds it by itself, and then it has a message
# for nodes that fell back. The same model, asked for with OpenVINO alone:

# %%
lonely = request(openvino, "mixed", "OpenVINO alone")
pd.Series(
    {
        "said": " ".join(lonely["said"]),
        "registered": ", ".join(lonely["registered"]),
    },
    name="OpenVINO alone",
).to_frame()

# %% [markdown]
# The message comes when the CPU is not in the list **and** the provider took at least one node. A provider that takes none,
# as Azure above, is silent in both ways. Now the fallback claim, with the evidence of both runtimes:

# %%
forbidden = request(openvino, "mixed", "OpenVINO alone, fallback forbidden")[
    "error"
]
left = [nodes for provider, nodes in mixed["recorded"] if provider == cpu[0]]
whole_fallback, no_node = (
    truth.loc["a missing provider"],
    truth.loc["an unsupported operator"],
)
cu.claim(
    "ep-fallback-automatic",
    {
        "the one operator that OpenVINO lacks went to the CPU": left
        == [["Unique_u"]],
        "without a message, when the CPU is in the list": mixed["said"] == [],
        "with a message, when it is left out": "Some nodes were not assigned"
        in lonely["said"][0],
        "without one, when the provider takes no node": asked[
            "an unsupported operator"
        ][1]
        == alone["an unsupported operator"][1]
        == [],
        "a missing provider falls back as a whole": whole_fallback["the record"]
        == cpu[0],
        "with one warning": len(asked["a missing provider"][1])
        == len(alone["a missing provider"][1])
        == 1,
        "a registered provider may get no node at all": "Azure"
        in no_node["get_providers()"]
        and no_node["the profile"] == cpu[0],
        "the option makes errors of them": all(
            isinstance(e, Exception) for e in strictly.values()
        ),
        "of the single operator, too": "has been explicitly disabled" in forbidden,
    },
)

# %% [markdown]
# Three more results that the report does not mention: an unknown option; a GPU that does not exist (both fall back to
# the CPU with a message); and a model of which OpenVINO takes several pieces, so that the graph that is left has a
# cycle: here the session fails. On the CPU, that model runs.

# %%
assert request(openvino, "scattered", "CPU alone")["error"] is None
odd = {
    "an unknown option": request(
        openvino, "mixed", "OpenVINO with an unknown option"
    ),
    "a GPU that is not there": request(
        openvino, "mixed", "OpenVINO for a GPU that is not there"
    ),
    "many single pieces": request(
        openvino, "scattered", "OpenVINO first, then CPU"
    ),
}
pd.DataFrame(
    {
        t: [" / ".join(e["said"][:1]), e["error"] or "", ", ".join(e["registered"])]
        for t, e in odd.items()
    },
    index=["said", "error", "registered"],
).T

# %% [markdown]
# A fallback protects you from operators that a provider does not *claim*. It does not protect you from a provider that
# claims nodes and then fails. So test a model on the provider where it will run, before it goes into service.
#
# ## Speed
#
# The record holds times, too. Both providers come from the same package and ran in turns, with one thread each. The fastest
# of a hundred rounds counts, because other programs can only make a round slower.

# %%
times = pd.DataFrame(recorded["latencies"])
times["case"] = times["model"] + ", batch " + times["batch"].astype(str)
table = times.pivot(
    index="case", columns="provider", values=["create_ms", "run_ms"]
).round(2)
print(f"Times of {recorded['timed']}, with {recorded['versions']['package']}.")
print(
    f"Other programs kept {recorded['others']} of {recorded['machine']['cores']} "
    "processors busy meanwhile."
)
table.columns = [
    f"{provider.removesuffix('ExecutionProvider')}: {what}"
    for what, provider in table.columns
]
table

# %%
ratio = times[times["provider"] != cpu[0]].set_index("case")["ratio"]
faster, slower = ratio > 1.1, ratio < 0.9  # less than a tenth says nothing
colours = np.select([faster, slower], ["#009E73", "#D55E00"], "#999999")
_, ax = plt.subplots(figsize=(7.2, 2))
ax.barh(ratio.index[::-1], ratio[::-1], color=colours[::-1])
ax.axvline(1, color="black")
about_equal = len(ratio) - faster.sum() - slower.sum()
ax.set_title(
    f"OpenVINO: {faster.sum()} faster, {slower.sum()} slower, "
    f"{about_equal} about equal"
)
ax.set_xlabel(
    "time of the CPU provider ÷ time of OpenVINO, "
    f"on an {recorded['machine']['processor']}"
)
plt.show()

# %% [markdown]
# A provider's name does not tell its speed: that depends on the model, the batch, the threads and the processor. The
# creation takes longer, too: OpenVINO compiles the graph first. On a processor of Intel the result may be another one.
# Measure where the model will run.
#
# ## Play
#
# Choose a model and a request. Which requests say nothing, and still do not do what they were asked for?

# %%
here = cu.run_ep_experiment()
cu.placement_explorer([openvino, here])

# %% [markdown]
# ## Recap
#
# - Creating a session loads, optimises, divides the graph among the providers, optimises again, and prepares kernels. Do it
#   once, and share the session among threads.
# - `get_providers()` says who was registered. The record (`session.record_ep_graph_assignment_info`) and the profile say
#   where the nodes are.
# - The list of providers is an order of preference, node by node. The CPU comes last. Plug-ins are asked for by device.
# - A wrong name, a missing provider or library, an unsupported operator: all end on the CPU, some with a message and
#   some without.
#   `session.disable_cpu_ep_fallback` and `enable_fallback=0` make errors of them.
# - Keys of the configuration are text: a misspelled one is accepted and ignored.
# - Time every provider on your model and your machine.
#
# **Now you:** [exercises 05](exercises/05_execution_providers.ipynb). **Next:** [06 · Fusion](06_fusion.ipynb).
