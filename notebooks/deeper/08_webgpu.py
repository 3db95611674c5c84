# %% [markdown]
# # 08 · WebGPU
#
# Many of your users have a graphics card, and you want the page to use it. You write `"webgpu"` before `"wasm"` into the
# list of providers, the page answers, and all labels are right. A week later you learn that it never used the card. Nothing
# in your program told you.
#
# You need the [core of lesson 08](../08_deployment.ipynb), and [07](../07_quantization.ipynb) for the last part.
#
# After this page you will be able to
#
# - say what WebGPU needs in a browser,
# - write a page that never falls back silently, and says what computed an answer,
# - find out which nodes of a float and of an int8 file run on WebGPU.

# %%
import course_utils as cu

cu.setup()
home = cu.course_files("model", "work/08_webgpu")
MODEL = home / "model.onnx"

# %% [markdown]
# ## What WebGPU needs
#
# [WebGPU](https://developer.mozilla.org/en-US/docs/Web/API/WebGPU_API) is there under three conditions:
#
# - The page is *secure*: it comes from `https://` or from `localhost`. Elsewhere `navigator.gpu` does not exist.
# - The browser gives an **adapter**: a graphics card, with a driver that the browser trusts. `navigator.gpu` alone says
#   nothing; `requestAdapter()` may still give `null`.
# - The build of `onnxruntime-web` knows WebGPU. There are several builds, and each has a
#   [WebAssembly](../glossary.md#webassembly-and-webgpu) of its own.
#
# The page of lesson 08 gets two of them:

# %%
import shutil

page = cu.course_files("page", home / "page")
shutil.copy(MODEL, page)
cu.onnxruntime_web(page, webgpu=True)
{f"{f.parent.name}/{f.name}": f.stat().st_size for f in page.glob("*/*")}

# %% [markdown]
# The build with WebGPU is nearly twice as large: 27 MB in place of 14. So our page starts with the small one, and loads the
# large one only when somebody presses the button for the graphics card.
#
# We add a second model, for the end: the same network in int8, made as in lesson 07.

# %%
from onnxruntime.quantization import QuantType, quant_pre_process, quantize_static

READY = home / "ready.onnx"
quant_pre_process(MODEL, READY)
types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
feed = {"pixels": cu.fashion_mnist("calibration")[0][:100]}
data = cu.Calibration(READY, feed)
quantize_static(READY, page / "int8.onnx", data, per_channel=True, **types)

# %% [markdown]
# ## A list that falls back
#
# Most examples pass a list: `executionProviders: ["webgpu", "wasm"]`. `cu.webgpu_in_browser` opens the page in two browsers
# without a window. The first gives no adapter, like a laptop whose driver is on the browser's list of bad ones. The second
# gives **SwiftShader**, an adapter in software: what a graphics card would compute, computed on the processor.

# %% tags=["remove-input"]
cu.quiz("08_webgpu", 1)

# %%
seen = cu.webgpu_in_browser(page) or cu.deployment_record("webgpu")
without, given = seen["without adapter"], seen["with adapter"]
listed = without["webgpu, wasm"]
assert listed["error"] is None and listed["same labels"]
listed

# %% [markdown]
# No error, and the labels are Python's. The session does not say where it runs. There is one trace: a warning in the
# browser's console. It comes at every log level, but your users do not read their console. The 27 MB were loaded all the
# same.
#
# The build without WebGPU takes the same list, too, also where there is an adapter, with such a warning. Now WebGPU alone:

# %%
without["webgpu"]["error"]

# %% [markdown]
# This is an error, with the reason in it. So ask for WebGPU **alone**, and write the fallback yourself.
#
# ## Say what ran
#
# This is all that our page has for it:

# %%
cu.listing(page / "card.js")

# %% [markdown]
# `obstacle` asks before anything is loaded. `start` asks for one provider, and takes the name of the adapter from the device
# that the session *uses*. `lost` is a promise: a driver can be restarted at any time, and then each run fails. `turn` lets
# one run wait for the other: in this build, two runs at once froze the page for good.
#
# `page.js` writes beside each answer what computed it, and goes back to WebAssembly after an error. What does it say in the
# two browsers?

# %%
{"without": without["the page says"], "with": given["the page says"]}

# %% [markdown]
# And are the numbers right?

# %%
assert given["same labels"] and given["largest difference"] < 1e-4
{what: given[what] for what in ("pictures", "same labels", "largest difference")}

# %% [markdown]
# The labels are Python's, and the probabilities agree up to rounding. How *fast* WebGPU is, this cannot tell: a software
# adapter computes on the processor. Time it on the devices of your users.
#
# ## Which nodes ran there?
#
# A session on WebGPU may still compute some nodes on the processor. The session option `enableProfiling: true` writes the
# same [profile](../glossary.md#profile) as in Python; in a browser,
# [`endProfiling()`](https://onnxruntime.ai/docs/api/js/interfaces/InferenceSession-1.html) prints it to the console. Each
# node there has its provider. These are the kernels of one run of the float file:

# %%
import pandas as pd

kernels = given["kernels"]
ran = pd.DataFrame(kernels["model.onnx"]).fillna(0).astype(int)
assert ran["CPUExecutionProvider"].sum() == 1
ran

# %% [markdown]
# All 15 convolutions ran on WebGPU. Only `Unsqueeze` stayed on the processor: it works on the bytes of the picture, which
# were copied after it, once (`MemcpyFromHost`).

# %% tags=["remove-input"]
cu.quiz("08_webgpu", 2)

# %%
ran = pd.DataFrame(kernels["int8.onnx"]).fillna(0).astype(int)
assert not ran.index.str.startswith("QLinear").any()
ran

# %% [markdown]
# `Conv` is the operator for floats. Each `DequantizeLinear` ran as a step of its own, to make them. Each `QuantizeLinear`
# ran on the processor, so its data went there and came back:

# %%
copies = ["MemcpyToHost", "MemcpyFromHost"]
moved = {
    file: sum(ran["WebGpuExecutionProvider"].get(c, 0) for c in copies)
    for file, ran in kernels.items()
}
assert moved["int8.onnx"] > 20 > moved["model.onnx"]
moved

# %% [markdown]
# And the same int8 file in WebAssembly?

# %%
integers = without["kernels"]["int8.onnx"]["CPUExecutionProvider"]
assert integers["QLinearConv"] == 15
integers

# %% [markdown]
# There the pairs were fused: `QLinearConv` computes with integers, as on
# [any processor](07_where_int8_runs.ipynb).
#
# An int8 file is smaller to download everywhere. On WebGPU it saved no arithmetic, and paid with copies.

# %% [markdown]
# ## Recap
#
# - Ask for `["webgpu"]` alone, catch the error, and fall back yourself. A list falls back without an error.
# - Show what computed an answer, and take the adapter's name from the device of the session.
# - Load the larger build only when it is needed, run one request at a time, and expect the device to be lost.
# - Give WebGPU the float file and WebAssembly the int8 file, unless a profile says otherwise.
# - Never conclude a speed from a software adapter.
#
# **Next:** [Phones](08_phones.ipynb). **Back:** [08 · Deployment](../08_deployment.ipynb).
