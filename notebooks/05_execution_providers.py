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

# %% [markdown]
# We export the network of the course, with a free batch:

# %%
import onnx
import onnxruntime as ort
import torch

file = "work/05_fashion_resnet.onnx"
x = (torch.randn(2, 1, 28, 28),)
free = ({0: torch.export.Dim("batch")},)
how = {"input_names": ["image"], "external_data": False, "verbose": False}
program = torch.onnx.export(
    cu.fashion_resnet(), x, file, dynamic_shapes=free, **how
)

# %% [markdown]
# ## The life of a session
#
# The report says: a session loads, optimises, partitions, and then runs. To *partition* is to divide the nodes among
# the providers. The drawing shows these stages for two providers.
#
# We check the order with three nodes on the CPU. A general rewrite removes `Identity`, and a
# [fusion](glossary.md#fusion) joins `Relu` with the node before it. One key makes the session write down, during the
# partition, which provider takes which node: this is the *plan*.

# %% tags=["remove-input"]
cu.picture("provider_islands")

# %%
three = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
    g (float[1, 1, 4, 4] x) => (float[1, 1, 4, 4] y) <float[1, 1, 1, 1] w = {2}>
    { same = Identity(x)  c = Conv(same, w)  y = Relu(c) }""")
cpu = ["CPUExecutionProvider"]
options = ort.SessionOptions()
options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
options.enable_profiling = True
options.profile_file_prefix = "work/05_profile"
session = ort.InferenceSession(three.SerializeToString(), options, providers=cpu)
plan = session.get_provider_graph_assignment_info()
taken = [(part.ep_name, n.op_type) for part in plan for n in part.get_nodes()]
taken

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
counts = events["name"].value_counts(sort=False).to_dict()
counts

# %% [markdown]
# One loading, one initialisation, three runs. In each run one node, named after `y`, ran for `Conv` and `Relu`: they
# were fused **after** the partition. (A `ReorderOutput`, where there is one, changes the layout.)
#
# The log of a larger model has the same stages. Level 1 holds rewrites that need standard operators only, level 2 and
# higher the fusions into ONNX Runtime's own operators.
# `cu.session_log` creates a [session](https://onnxruntime.ai/docs/api/python/api_summary.html) three times; we read the
# second time. The last line is a report: the nodes were placed between the two levels. How long does each stage take?
# See [stages and options](deeper/05_stages_and_options.ipynb).

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
        "a general rewrite came before the partition": [op for _, op in taken]
        == ["Conv", "Relu"],
        "a fusion came after it": "Conv" in ran_alone and "Relu" not in ran_alone,
        "loading and initialisation end before the first run": list(counts)[:2]
        == ["model_loading_array", "session_initialization"],
    },
)

# %% [markdown]
# ## Create once, reuse
#
# How long does it take to create a session, compared with one run for a single picture?

# %%
session = ort.InferenceSession(file, providers=cpu)
runs = {"create": lambda: ort.InferenceSession(file, providers=cpu)}
runs["run"] = lambda: session.run(None, {"image": np.zeros((1, 1, 28, 28), "f4")})
cu.compare(runs, rounds=15, seconds=4, threads=1)

# %% [markdown]
# One creation takes as long as many runs. One session can serve many requests at once: `run` may be called from
# several threads, without a lock. We send it 200 requests, one by one and from 8 threads. And we count the rewriting
# steps in the log: every creation makes all of them again.

# %%
from concurrent.futures import ThreadPoolExecutor

images = cu.normalize(cu.fashion_mnist("test")[0][:200])
feeds = [{"image": images[i : i + 1]} for i in range(200)]
alone = [session.run(None, feed) for feed in feeds]
with ThreadPoolExecutor(8) as pool:
    threaded = list(pool.map(lambda feed: session.run(None, feed), feeds))
same = np.array_equal(alone, threaded)
rewrites = log[log["message"].str.startswith("Applying")].groupby("creation").size()
same, rewrites.to_dict()

# %% tags=["hide-input"]
cu.claim(
    "session-init-is-heavy",
    {
        "every creation applies dozens of rewrites anew": len(rewrites) == 3
        and rewrites.min() > 24,
        "one loading and one initialisation, three runs": counts["model_run"] == 3
        and list(counts.values())[:2] == [1, 1],
        "8 threads sent one session 200 requests: the same answers": same,
    },
)

# %% [markdown]
# ## Registered, available, chosen, used
#
# Newer providers are [plug-ins](https://onnxruntime.ai/docs/execution-providers/plugin-ep-libraries/): a package beside
# `onnxruntime` brings one library. From there to a node are four steps:
#
# | a provider is | which means | the call | seen in |
# |---|---|---|---|
# | registered | its library was loaded | `ort.register_execution_provider_library` | no exception |
# | available | it offers a device on this machine | – | `ort.get_ep_devices()` |
# | chosen | the session may use it | `options.add_provider_for_devices` | `session.get_providers()` |
# | used | nodes run on it | – | the plan and the profile, as above |
#
# [Built-in providers](https://onnxruntime.ai/docs/execution-providers/), such as CPU and CUDA, come with the package of
# `onnxruntime` and need no registration.
# `ort.get_available_providers()` lists them, even where their device is missing. They are chosen by name:
# `ort.InferenceSession("model.onnx", providers=["CUDAExecutionProvider", "CPUExecutionProvider"])`.
#
# All steps for the plug-in WebGPU, which computes on most graphics cards (7 MB, MIT licence):
#
# ```python
# import onnxruntime as ort
# import onnxruntime_ep_webgpu as plugin  # pip install onnxruntime-ep-webgpu
#
# name, path = "WebGpuExecutionProvider", plugin.get_library_path()
# ort.register_execution_provider_library(name, path)
# devices = [d for d in ort.get_ep_devices() if d.ep_name == name]
# options = ort.SessionOptions()
# options.add_provider_for_devices(devices, {})  # {}: no options of the provider
# session = ort.InferenceSession("model.onnx", options)
# ```
#
# `cu.second_provider()` takes the first two steps for the first plug-in that works here: WebGPU, Qualcomm's QNN, or
# Intel's OpenVINO. It returns the devices and the provider's options. Where no plug-in works, you get the CPU
# provider's device, and read the results from a record.

# %%
devices, settings = cu.second_provider()
provider = devices[0].ep_name
[(d.ep_name, d.device.type.name, d.device.vendor) for d in ort.get_ep_devices()]

# %% [markdown]
# Each entry is a provider with a piece of hardware. Where WebGPU's driver computes in software, its type is CPU, too.
# Which provider is there for which device, and in which package? See
# [names and packages](deeper/05_names_and_packages.ipynb).
#
# Our model has six nodes. Few devices can compute `Unique`, because the size of its output depends on the data.

# %%
mixed = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
    g (float[8, 8] x) => (float[8, 8] y) {
    a = MatMul(x, x)  b = Relu(a)  u = Unique<sorted = 1>(b)
    m = ReduceMax<keepdims = 0>(u)  d = Div(b, m)  y = Sigmoid(d) }""")

# %% [markdown]
# We choose the devices of the second provider:

# %%
options = ort.SessionOptions()
options.add_provider_for_devices(devices, settings)
session = ort.InferenceSession(mixed.SerializeToString(), options)
session.get_providers()

# %% [markdown]
# `get_providers()` names what was chosen, and the CPU, which ONNX Runtime adds. It does not say what is used.
# `cu.placed` creates such a session with plan and profile switched on, as in the first section, and runs it once. It
# returns a dict: `chosen` (`get_providers()`), `ran` (provider and operator of each node in the profile), `said`
# (warnings and messages), `error`.
#
# Where no second provider shares the nodes with the CPU, we read a record of the same operators, made with WebGPU in
# software:

# %%
record = cu.ep_record("webgpu")
asked = [e for e in record["placements"] if e["model"] in ("fixed", "mixed")]
entries = {e["title"]: e for e in asked}  # of two with one title, mixed is kept


def used(entry):
    """The providers that ran a node, in the order of the profile."""
    return list(dict.fromkeys(name for name, _ in entry["ran"]))


# %% tags=["remove-input"]
cu.quiz("05_execution_providers", 1)


# %%
eye, chosen = {"x": np.eye(8, dtype=np.float32)}, (provider, settings)
here = cu.placed(mixed, eye, [chosen], by="device")
first = here if len(used(here)) == 2 else entries["WebGpu by device"]
pd.DataFrame(first["ran"], columns=["provider", "operator"])

# %% [markdown]
# These are the islands of the drawing. `MemcpyToHost` and `MemcpyFromHost` are the copies: two in each run, because of
# one node. On a graphics card, they can take longer than the nodes around them.
#
# Now three more ways of asking. Which providers are chosen, which are used, and what is said? (Of the messages, we show
# the beginning.)

# %%
ways = {
    "WebGpu by device": ("device", [chosen]),
    "WebGpu by device, then the CPU's device": ("device", [chosen, *cpu]),
    "the CPU's device first": ("device", [*cpu, chosen]),
    "WebGpu by name, then CPU": ("name", [chosen, *cpu]),
}
seen = {way: entries[way] for way in ways}  # the answers of the record
if first is here:
    for way, (by, wanted) in ways.items():
        seen[way] = cu.placed(mixed, eye, wanted, by=by)


# %%
def told(entries):
    """One row per session, with short names, and the beginning of each message."""
    rows = {n: (e["chosen"], used(e), e["said"]) for n, e in entries.items()}
    table = pd.DataFrame(rows, index=["chosen", "used", "said"]).T
    text = table.map(lambda lines: " | ".join(line[:60] for line in lines))
    return text.replace("ExecutionProvider", "", regex=True)


# %%
only, behind, before, named = seen.values()
told(seen)

# %% [markdown]
# Rows of the record: the last two were made with a small classifier.
#
# 1. By device alone: a message says that some nodes went to the CPU.
# 2. With the CPU's device behind it, the same happens **without a message**: you have asked for it.
# 3. The CPU first: it takes every node. The order decides, node by node.
# 4. By name: not one node, and nothing is said. A plug-in is not chosen by its name.
#
# ## Requests that cannot be met
#
# By name, more can go wrong: the package lacks the provider, the name is wrong, or the provider has no operator of the
# model. We ask for each, first with the CPU behind it.

# %% tags=["remove-input"]
cu.quiz("05_execution_providers", 2)

# %%
wishes = {
    "missing": ["CUDAExecutionProvider"],
    "wrong name": ["DirectMLExecutionProvider"],
    "no operators": ["AzureExecutionProvider"],
}
met = {wish: cu.placed(mixed, eye, name + cpu) for wish, name in wishes.items()}
missing, _, idle = met.values()
told(met)

# %% [markdown]
# All end on the CPU. A missing provider leads to one warning, a wrong name to a message and a second try.
# (*Available* in the warning means: in the package, or registered. It does not mean that there is a device.)
# `AzureExecutionProvider` calls services on the network and computes none of our operators: it is chosen and not used,
# and nothing is said. In a fourth case, the commonest in bug reports, the libraries of a provider [do not
# load](deeper/05_devices_and_policies.ipynb).
#
# The cure: with one key, a node that is left for the CPU is an error. The CPU must not be in the list then.
#
# ```python
# options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
# ```
#
# We ask for each provider alone, without the key (`lone`) and with it (`strict`). The errors with it:

# %%
lone = [cu.placed(mixed, eye, name) for name in wishes.values()]
strict = [cu.placed(mixed, eye, name, strict=True) for name in wishes.values()]
pd.DataFrame({"error": [e["error"] for e in strict]}, index=list(met))

# %% [markdown]
# One message misleads: after a wrong name, Python's second try adds the CPU, which contradicts the key. `ort.InferenceSession(file, options, providers=[name], enable_fallback=0)` forbids the second
# try. `cu.strict_session` sets both, and says in one sentence what is wrong. Use it in the test of a service; in place
# of a name it takes devices, too.

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
        "with the CPU first, it takes all of them": used(before) == cpu,
        "both are named in the order asked for": [cpu[0], behind["chosen"][0]]
        == before["chosen"],
        "built-in ones, too": idle["chosen"] == wishes["no operators"] + cpu,
    },
)

# %% tags=["hide-input"]
cu.claim(
    "ep-fallback-automatic",
    {
        "the operator that the device lacks went to the CPU": [cpu[0], "Unique"]
        in only["ran"]
        and [cpu[0], "MatMul"] not in only["ran"],
        "it is said, if the CPU is left out": "not assigned" in str(only["said"]),
        "and not said, if it is listed": "not assigned" not in str(behind["said"]),
        "by its name, a plug-in gets no node": used(named) == cpu,
        "and nothing is said": named["said"] == [],
        "nor when a provider takes no node": idle["said"] == lone[2]["said"] == [],
        "a chosen provider may not be used": used(idle) == cpu,
        "a missing provider falls back as a whole": missing["chosen"] == cpu,
        "with one warning": len(missing["said"]) == len(lone[0]["said"]) == 1,
        "the option makes errors of them": all(entry["error"] for entry in strict),
        "of the single operator, too": "has been explicitly disabled"
        in entries["WebGpu by device, fallback forbidden"]["error"],
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
# - Ask for a plug-in by device, for a built-in provider by name. The order decides, and the CPU comes last. It is added
#   in any case: leave it out of the list, and nodes that fall back to it are reported.
# - Each change of provider may be a copy: count them in the profile.
# - A wrong name, a missing provider, an unsupported operator all end on the CPU, some without a word. Use
#   `session.disable_cpu_ep_fallback` and `enable_fallback=0`, unless a slow answer is better than none.
#
# **Now you:** [exercises 05](exercises/05_execution_providers.ipynb). **Next:** [06 · Fusion](06_fusion.ipynb).
# **Deeper:** [second providers, measured](deeper/05_second_provider_measured.ipynb),
# [devices and policies](deeper/05_devices_and_policies.ipynb), [compiled files](deeper/05_compiled_files.ipynb),
# [names and packages](deeper/05_names_and_packages.ipynb), [data in and out](deeper/05_data_in_and_out.ipynb),
# [stages and options](deeper/05_stages_and_options.ipynb), [telemetry](deeper/05_telemetry.ipynb),
# [the report's listing](deeper/05_report_listing.ipynb).
