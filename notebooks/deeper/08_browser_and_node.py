# %% [markdown]
# # 08 · Browser speed, and Node
#
# The page of lesson 08 predicts without a server. Before you promise that to your users you want to know: how much slower is
# it than native code, and is a browser the only place where JavaScript can run the file?
#
# You need the [core of lesson 08](../08_deployment.ipynb).
#
# After this page you will be able to
#
# - load a model in a page, from your own server and no other,
# - compare a browser with native code fairly,
# - run the same file in Node.

# %%
import course_utils as cu

cu.setup()
home = cu.course_files("model", "work/08_browser_and_node")

# %% [markdown]
# ## What a page needs
#
# These lines are all that a page needs of [ONNX Runtime Web](../glossary.md#onnx-runtime-web). `wasmPaths` says where the
# WebAssembly comes from; without it, that depends on the build of the package, and may be somebody else's server.

# %%
import shutil

page = cu.course_files("page", home / "page")
shutil.copy(home / "model.onnx", page)
cu.listing(page / "predict.js")

# %% [markdown]
# Beside them lie the model and three files of the package `onnxruntime-web`. In a project of your own it comes with
# `npm install onnxruntime-web`.

# %%
has_runtime = cu.onnxruntime_web(page)
{file.name: file.stat().st_size for file in page.glob("ort/*")}

# %% [markdown]
# These bytes are loaded before the first prediction; most of them are the WebAssembly.
#
# ## Is it fast?
#
# The report says *nearly native*. [WebAssembly](https://developer.mozilla.org/en-US/docs/WebAssembly) knows vectors of 128
# bits; a processor may have 256 or 512. Both sides use one thread, the same model and the same machine, and the fastest of
# eight rounds counts.

# %%
record = cu.deployment_record("browser")
seen = cu.in_browser(page) or record
seen["wasm ms"], seen["native ms"]

# %% [markdown]
# Milliseconds, for 1 picture and for a batch of 16. The row of `resnet18`, the report's own example, was recorded.

# %%
import pandas as pd

rows = {
    f"fashion_resnet, batch {n}": (seen["native ms"][n], ms)
    for n, ms in seen["wasm ms"].items()
}
rows["resnet18, recorded"] = (
    record["more native ms"]["resnet18"]["1"],
    record["more wasm ms"]["resnet18"]["1"],
)
speed = pd.DataFrame(rows, index=["native ms", "browser ms"]).T

# %%
speed["times slower"] = speed["browser ms"] / speed["native ms"]
speed.round(2)

# %% [markdown]
# The same as a picture:

# %%
import matplotlib.pyplot as plt

slower = speed["times slower"][::-1]
plt.figure(figsize=(7.2, 2.2))
plt.barh(slower.index, slower)
plt.axvline(1, color="gray")
low, high = slower.min(), slower.max()
plt.title(f"One thread of WebAssembly is {low:.0f} to {high:.0f} times slower")
plt.xlabel("time in the browser ÷ time in Python's ONNX Runtime")
plt.show()

# %% [markdown]
# What counts is the time of *one* answer, and there is no network on the way. How much slower was it in the record? And
# did the page load anything for the graphics card?

# %%
kinds = ("wasm ms", "more wasm ms", "native ms", "more native ms")
small, big, small_native, big_native = (record[kind] for kind in kinds)
times = [small[n] / small_native[n] for n in small]
times += [big["resnet18"]["1"] / big_native["resnet18"]["1"]]
[round(time, 1) for time in times]

# %%
graphics = ("webgl", "webgpu", "jsep")
others = [r for r in seen["to load"] if any(part in r for part in graphics)]
others

# %% [markdown]
# That was one thread on one machine. Several threads need a page that is *cross-origin isolated*, a matter of two HTTP
# headers. [WebGPU](08_webgpu.ipynb) reaches the graphics card. WebGL, which the report names, is
# [deprecated](https://github.com/microsoft/onnxruntime/issues/32241) since August 2026. None of these three was timed
# here.

# %% tags=["hide-input"]
cu.claim(
    "web-wasm-near-native",
    {
        "the model runs through WebAssembly": any(
            r.endswith(".wasm") for r in seen["to load"]
        ),
        "correctly": seen["same labels"],
        "in the record one thread was three to ten times slower than a native one": min(
            times
        )
        > 3
        and max(times) < 10,
        "one picture took less than a tenth of a second": record["wasm ms"]["1"]
        < 100,
        "WebGL and WebGPU were not in that page": not others,
    },
)

# %% [markdown]
# ## In Node
#
# Outside the browser, JavaScript does not have to put up with WebAssembly: `onnxruntime-node` has the same API, and native
# code below it.

# %%
cu.course_files("in_node", home)
cu.listing(home / "predict.mjs")

# %% [markdown]
# It reads the model and the pictures from files, and prints labels, probabilities and the SHA-256 of what it read. The
# command is `node predict.mjs node_modules model.onnx pictures.bin`. `cu.in_node` runs it with 200 pictures, and compares
# with Python. Without Node, we read what was recorded.

# %%
in_node = cu.in_node(home) or cu.deployment_record("node")
in_node

# %% [markdown]
# The same bytes, the same labels. The report says that a file can be used from any language; here two of them used the same
# file.

# %% tags=["hide-input"]
cu.claim(
    "same-file-other-language",
    {
        f"onnxruntime-node {in_node['version']} read the same bytes": in_node[
            "same bytes"
        ],
        "and gave 200 pictures the same labels": in_node["same labels"],
        "the probabilities agree to 1e-5": in_node["largest difference"] < 1e-5,
    },
)

# %% [markdown]
# ## Recap
#
# - Set `wasmPaths`, so that the page loads everything from your own server.
# - Expect one thread of WebAssembly to be several times slower than native code. Time it on your users' devices, for one
#   answer; use a server unless that is fast enough.
# - In Node use `onnxruntime-node`: the same API, native code.
#
# **Next:** [WebGPU](08_webgpu.ipynb). **Back:** [08 · Deployment](../08_deployment.ipynb).
