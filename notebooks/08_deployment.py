# %% [markdown]
# # 08 · Deployment
#
# Your model recognises clothes in a notebook. A shop wants to call it from its own program, a colleague wants it on a page
# that needs no server, and somebody asks for an app. All of them get the same kind of file. What differs is what stands
# around it, and most mistakes are made there.
#
# You need lessons [00](00_start_here.ipynb) and [04](04_dynamic_axes.ipynb) (a free batch) first.
#
# After this lesson you will be able to
#
# - put pre- and post-processing into the file, so that no caller can get them wrong,
# - start a server for the file, ask it, and read what it says about a wrong request,
# - run the file in a browser, prove that no data leave the page, and say how fast it is,
# - give a phone a file of its own, and ask which accelerator would take it.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## Everything the model needs goes into the file
#
# The network of lesson 00 does not take pictures. It takes float32 numbers: pixels divided by 255, minus a mean, divided by
# a standard deviation. With that preparation it is right for nine pictures of ten:

# %%
import torch

images, labels = cu.fashion_mnist("test")
few, right = images[:800], labels[:800]
model = cu.fashion_resnet().requires_grad_(False)
scores = model(torch.from_numpy(cu.normalize(few))).numpy()
float((scores.argmax(1) == right).mean())

# %% [markdown]
# In training, Python prepared the pictures. In production somebody writes that again, in JavaScript, Kotlin or Swift. What
# does it cost to get it slightly wrong?

# %% tags=["remove-input"]
cu.quiz("08_deployment", 1)

# %% [markdown]
# Five callers of the same model. Each believes that its preparation is right.

# %%
import numpy as np

pixels = few[:, None].astype(np.float32)
callers = {
    "as in training": cu.normalize(few),
    "forgets to divide by 255": (pixels - 0.286) / 0.353,
    "forgets mean and deviation": pixels / 255,
    "black and white swapped": (1 - pixels / 255 - 0.286) / 0.353,
    "rows and columns swapped": cu.normalize(few).swapaxes(2, 3),
}

# %%
accuracy = {}
for who, x in callers.items():
    found = model(torch.from_numpy(x)).argmax(1).numpy()
    accuracy[who] = float((found == right).mean())
assert accuracy["as in training"] > 0.9 > 2 * max(list(accuracy.values())[1:])
accuracy

# %% [markdown]
# No caller gets an error. The shape is right, the dtype is right, and more than half of the answers are wrong. This is
# called **training/serving skew**, and no log shows it.
#
# The cure is to leave nothing to the caller. We put the preparation, the network and the end into one module, bytes in, a
# label and probabilities out, and export that.


# %%
class Whole(torch.nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, pixels):
        image = (pixels.unsqueeze(1).float() / 255 - 0.286) / 0.353
        probability = torch.softmax(self.network(image), 1)
        return probability.argmax(1), probability


# %%
program = torch.onnx.export(
    Whole(model).eval(),
    (torch.zeros(2, 28, 28, dtype=torch.uint8),),
    "work/08_whole.onnx",
    input_names=["pixels"],
    output_names=["label", "probability"],
    dynamic_shapes=({0: torch.export.Dim("batch")},),
    external_data=False,
    verbose=False,
)

# %% [markdown]
# Does the file compute what PyTorch computes? The reference is the model with the preparation of its training.

# %%
import onnxruntime as ort

session = ort.InferenceSession(
    "work/08_whole.onnx", providers=["CPUExecutionProvider"]
)
label, probability = session.run(["label", "probability"], {"pixels": few})
expected = torch.softmax(torch.from_numpy(scores), 1).numpy()
assert (label == expected.argmax(1)).all()
assert np.allclose(probability, expected, atol=1e-5)
float(np.abs(probability - expected).max())

# %% [markdown]
# It does, up to rounding. Now the file takes what a camera or a PNG decoder gives: bytes, a quarter of the size.
#
# If all you have is a file, write the preparation as a small ONNX model and
# [join the two](deeper/08_joining_files.ipynb).
#
# ## On a server
#
# A server for a model loads the file **once**, checks a request before the model sees it, computes together what arrives
# together ([batching](glossary.md#batching)), and says how it is. The course has such a server, in short files, made with
# [FastAPI](https://fastapi.tiangolo.com/). This is the way of a request through it:

# %% tags=["remove-input"]
cu.picture("batching_server")

# %% [markdown]
# Whatever is wrong with a request is found before the model runs. We copy the server's files, put our model beside them,
# and start it. It is a program of its own: in a terminal, `python -m server.serve` in `work/08` does the same.

# %%
import shutil

cu.course_files("server", "work/08/server")
shutil.copy("work/08_whole.onnx", "work/08/model.onnx")
server = cu.start_server("work/08")

# %% [markdown]
# A client sends a picture as HTTP, in the binary format that `numpy.save` writes.

# %%
import http.client
import io
import json

np.save(body := io.BytesIO(), few[:1])
line = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
kind = {"Content-Type": "application/x-npy"}
line.request("POST", "/predict", body.getvalue(), kind)
answer = json.load(line.getresponse())
assert answer["label"] == label[:1].tolist()
answer

# %% [markdown]
# A label, ten probabilities, and which model gave them: its name and the SHA-256 of its file. After
# an update, that is how you find out who answered. And what does a client hear that sends float32?

# %%
status, answer = server.ask(few[0].astype(np.float32))
assert status == 422
server.stop()
status, answer

# %% [markdown]
# A status from 400 to 499 means: *you* made the mistake. The sentence says what was given, and what is expected. `stop`
# sends SIGTERM, as Docker and Kubernetes do, and the server answers what it has accepted before it ends. (Windows has no
# such signal: there it ends at once.)
#
# ## In the browser
#
# Now the other end: no server for the model at all.
# [ONNX Runtime Web](https://onnxruntime.ai/docs/get-started/with-javascript/web.html) is ONNX Runtime, compiled to
# [WebAssembly](glossary.md#webassembly-and-webgpu), which any browser can run. We copy a page, and put the model and the
# runtime beside it. Whoever can open a page can download its model, so the exporter's notes go first: they name folders
# of your machine.

# %%
import onnx

page = cu.course_files("page", "work/08/page")
public = onnx.load("work/08_whole.onnx")
for node in public.graph.node:
    del node.metadata_props[:]
onnx.save(public, page / "model.onnx")
has_runtime = cu.onnxruntime_web(page, webgpu=True)

# %% [markdown]
# Open it, and choose a picture or draw one. Your own browser runs the model, also when you read this in the book, where no
# Python runs. If it gives the page a graphics card, there is a button for it; under each picture stands what computed the
# answer.

# %%
about = "onnxruntime-web is not here, so there is no page to open: run  make book"
cu.show_page(page, "What do you wear?", later="webgpu") if has_runtime else about

# %% [markdown]
# A few pictures prove little. `cu.in_browser` opens the page in a Chromium without a window and writes down each request
# that it makes. When the page is loaded, **the network is cut off**. Then it classifies 200 pictures.

# %% tags=["remove-input"]
cu.quiz("08_deployment", 2)

# %%
record = cu.deployment_record("browser")
seen = cu.in_browser(page) or record
loaded, asked = seen["to load"], seen["while predicting"]
{"same labels": seen["same labels"], "loaded": loaded, "asked": asked}

# %% [markdown]
# The labels are Python's. All that was loaded came from the page's own server, and while the page predicted, it asked
# nobody. That is proven for *this* page: a page can also send the picture away, and nothing in ONNX Runtime prevents it.
# So repeat the experiment with each version of yours.
#
# How long does one picture take, in milliseconds? Both sides use one thread of this machine.

# %%
{"browser": seen["wasm ms"]["1"], "native": seen["native ms"]["1"]}

# %% [markdown]
# Slower than native code, and fast enough for a small model: there is no network on the way. By how much is the
# subject of [Browser speed, and Node](deeper/08_browser_and_node.ipynb). The graphics card, and how a page can miss it
# without an error, is the subject of [WebGPU](deeper/08_webgpu.ipynb).

# %% tags=["hide-input"]
cu.claim(
    "same-result-in-browser",
    {
        "200 pictures got the same labels in both": seen["same labels"]
        and seen["pictures"] == 200,
        "the probabilities agree to 1e-5": seen["largest difference"] < 1e-5,
        "in the recorded run they were not the same bit for bit": record[
            "largest difference"
        ]
        > 0,
    },
)

# %% tags=["hide-input"]
cu.claim(
    "web-data-stays-local",
    {
        "the page was watched from its first request": loaded[0] == "GET /",
        "all it loaded came from its own server": all(
            r.startswith("GET /") for r in loaded
        ),
        "while it predicted, it made no request": asked == [],
        "without a network it predicted correctly": seen["same labels"],
    },
)

# %% [markdown]
# ## On a phone
#
# We have no phone here. But most mistakes are made before: the file has a shape that the phone's accelerator does not take.
# A phone shows one picture at a time, so it gets a file of its own, with the batch fixed to 1.

# %%
from onnxruntime.tools.make_dynamic_shape_fixed import make_dim_param_fixed

fixed = onnx.load("work/08_whole.onnx")
make_dim_param_fixed(fixed.graph, "batch", 1)
onnx.save(fixed, "work/08_phone.onnx")

# %% [markdown]
# ONNX Runtime has a list of operators for each accelerator, and a
# [checker](https://onnxruntime.ai/docs/tutorials/mobile/helpers/model-usability-checker.html) that compares a model with
# them: `python -m onnxruntime.tools.check_onnx_model_mobile_usability model.onnx`. `cu.usability` asks it about NNAPI
# (Android) and CoreML (Apple), and makes a table.

# %%
cu.usability("work/08_phone.onnx")

# %% [markdown]
# One row per accelerator: how many nodes it would take, in how many pieces, the verdict, and the operators it lacks. NNAPI
# takes all but one, and that one stands at the very end. Now the file of the server, whose batch is free.

# %% tags=["remove-input"]
cu.quiz("08_deployment", 3)

# %%
free = cu.usability("work/08_whole.onnx")
assert (free["pieces"] == 0).all()
free

# %% [markdown]
# Not a single node, and no error: on Android, the CPU would compute everything. CoreML takes free sizes, too, but more slowly,
# so the checker says no. It only reads lists, so the
# device has the last word. [Phones](deeper/08_phones.ipynb) tests what the report says of them.

# %% [markdown]
# ## Recap
#
# - Put pre- and post-processing into the file, unless a caller really needs the raw numbers.
# - Use a server when the model is large, secret, or changes often. Let it check each request before the model sees it, and
#   say which file answered.
# - Use the browser when the data must stay with the user and the model is small. Test that your page asks nobody.
# - Give a phone its own file with fixed shapes. Ask the checker first, then measure on the device.
#
# **Now you:** [exercises 08](exercises/08_deployment.ipynb). **Next:** [09 · Troubleshooting](09_troubleshooting.ipynb).
#
# **Deeper:** [joining files](deeper/08_joining_files.ipynb) · [a server, file by file](deeper/08_server_file_by_file.ipynb) ·
# [under load](deeper/08_under_load.ipynb) · [containers and new versions](deeper/08_containers.ipynb) ·
# [Triton and Ray](deeper/08_triton_ray.ipynb) · [browser speed, and Node](deeper/08_browser_and_node.ipynb) ·
# [WebGPU](deeper/08_webgpu.ipynb) · [phones](deeper/08_phones.ipynb) · [a file for an app](deeper/08_ort_format.ipynb)
