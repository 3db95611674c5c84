# %% [markdown]
# # 10 · Exercises: the quest
#
# Six tasks, one model, and it is your own: its operator, its decision and its classes are drawn from your id. You take
# it from PyTorch to a server and a page. Each task ends in a file in `work/` that `cu.check` looks at, and at the end
# you get your report card. It takes about three hours.
#
# Tasks 10.1 and 10.2 follow the lesson, 10.3 and 10.4 the page
# [Ready to ship, and small](../deeper/10_ready_to_ship.ipynb), 10.5 and 10.6 the page
# [On a server and on a page](../deeper/10_server_and_page.ipynb). Each file is checked alone, so you may come back to
# any task.

# %%
import course_utils as cu

cu.setup(student="guest")  # put your own id here

# %%
import base64
import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import compose
from torch import nn

# %% [markdown]
# ## 10.1 Export
#
# The archive has photographs of garments, and a model that says what is on them. Its author has left.

# %%
scroll_file, practice_file, calibration_file = cu.given("10.1")
print(Path(scroll_file).read_text())

# %%
sys.path.insert(0, str(Path(scroll_file).parent))
from scroll import Scroll

practice = np.load(practice_file)
photos, labels = practice["photos"], practice["labels"]
scroll = Scroll().eval()
with torch.no_grad():
    scores = scroll(torch.from_numpy(photos)).numpy()
f"right for {(scores.argmax(1) == labels).mean():.1%} of {len(photos)} photographs"

# %%
import matplotlib.pyplot as plt

figure, axes = plt.subplots(1, 8, figsize=(10, 1.8))
for axis, photo, label in zip(axes, photos, scores.argmax(1), strict=False):
    axis.imshow(photo, cmap="gray", vmin=0, vmax=255)
    axis.set_title(cu.CLASS_NAMES[scroll.order[label]], fontsize=8)
    axis.axis("off")
figure.suptitle("What the camera of your archive sees, and what your scroll says")
plt.show()

# %% [markdown]
# Write `work/10.1.onnx`: input `pixels`, uint8 `[batch, 28, 28]`, output `logits`, float32 `[batch, 10]`. It must agree
# with `Scroll` for each photograph, on black and on white paper, however many come together. Do not change `scroll.py`:
# write a module of your own that computes the same, such as one that inherits from `Scroll`.
#
# > **Hint** Three things stand in the way: a Python `for` over the photographs, an `if` that looks at numbers, and an
# > operator without a translation. The first two become one `torch.where` on the whole batch. For the third there are
# > other operators with the same result. For `kthvalue` and `median`: sort the values, and take the one at that place.
# > For `searchsorted`: compare with each level of the curve, and count how often the light is larger.

# %%
# Task 10.1: write your module, prove that it agrees with Scroll, and export it
### BEGIN SOLUTION
p = cu.params("10.1")


class Ready(Scroll):
    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, pixels):
        p = self.p
        light = self.repaired(pixels.float() / 255)
        edge = light[:, :, ::27] if p["edge"] == "columns" else light[:, ::27]
        negative = 1 - light
        if p["mirrored"]:
            negative = negative.flip(2)
        on_white = edge.mean((1, 2), keepdim=True) > p["threshold"]
        x = (torch.where(on_white, negative, light) - 0.286) / 0.353
        return self.network(x[:, None]).index_select(1, torch.tensor(self.order))

    def repaired(self, light):
        p, k = self.p, self.p["strength"]
        if p["operator"] == "searchsorted":
            return (light[..., None] > self.curve).float().sum(-1) / k
        if p["operator"] == "kthvalue":
            row = light.flatten(1).sort(dim=1).values
            low, high = row[:, k - 1, None, None], row[:, 784 - k, None, None]
            return ((light - low) / (high - low + 0.01)).clamp(0, 1)
        wide = nn.functional.pad(light[:, None], (1, 1, 1, 1), mode="reflect")
        median = (
            nn.functional.unfold(wide, 3)
            .sort(dim=1)
            .values[:, 4]
            .reshape(light.shape)
        )
        return torch.where((light == 0) | (light == 1), median, light)


ready = Ready(p).eval()
some = torch.from_numpy(photos[:3])
how = {
    "input_names": ["pixels"],
    "output_names": ["logits"],
    "external_data": False,
    "verbose": False,
}
free = {"dynamic_shapes": ({0: torch.export.Dim("batch")},)}
with cu.exporter_messages():
    torch.onnx.export(
        ready, (some,), "work/10.1.onnx", opset_version=18, **how, **free
    )
print(cu.parity(scroll, "work/10.1.onnx", torch.from_numpy(photos)))
### END SOLUTION

# %%
cu.check("10.1", "work/10.1.onnx")

# %% [markdown] tags=["solution"]
# A loop over the photographs and an `if` on their values are Python: an export would freeze both. `torch.where`
# computes both answers for the whole batch and chooses one for each photograph. The repair uses sorting or
# comparing, which ONNX has, and gives the same numbers.
#
# Dimension 0 of one photograph is dimension 1 of the batch: a typical mistake is to keep `flip(1)`, or to take one mean
# over the whole batch. Another one is a place in the sorted values that is off by one: `kthvalue` counts from 1, not
# from 0. None of them gives an error. `cu.parity` with photographs of both kinds of paper, alone and together, shows
# them.

# %% [markdown]
# ## 10.2 Diagnose
#
# A colleague wrote your scroll as an ONNX graph by hand, and made one mistake. The names of the nodes say what each
# should do.

# %%
theirs = cu.given("10.2")
cu.node_table(theirs)[["name", "op", "inputs", "outputs"]]

# %% [markdown]
# Two questions:
#
# - `node`: the name of the first node, from the top, whose result is wrong.
# - `different`: for how many of all photographs in `practice.npz`, given as **one batch**, is the answer not that
#   of `Scroll`? The answer is the class with the largest score.
#
# Write both into `work/10.2.json`.
#
# > **Hint** Any tensor of a graph can become an output: append `onnx.ValueInfoProto(name="light")` to
# > `model.graph.output`. Compare with PyTorch from the top. `onnx.utils.extract_model` cuts the network out, and
# > `cu.parity` compares it with `scroll.network`.

# %%
# Task 10.2: find the node, count the answers, and write both
### BEGIN SOLUTION
p = cu.params("10.2")
model = onnx.load(theirs)
session = ort.InferenceSession(theirs, providers=["CPUExecutionProvider"])
batch = torch.from_numpy(photos)
(got,) = session.run(None, {"pixels": photos})
different = int((got.argmax(1) != scores.argmax(1)).sum())

# What each node of the preparation should give, in the order of the graph.
with torch.no_grad():
    light = batch.float() / 255
    repaired = scroll.repaired(light)
    axis = 2 if p["edge"] == "columns" else 1
    edge = repaired.index_select(axis, torch.tensor([0, 27]))
    mean = edge.mean((1, 2), keepdim=True)
    negative = 1 - repaired
    expected = {
        "light": light,
        "repaired": repaired,
        "edge": edge,
        "edge_mean": mean,
    }
    expected["on_white"] = mean > p["threshold"]
    if p["operator"] == "kthvalue":
        row = light.flatten(1).sort(1).values
        expected["low_all"], expected["high_all"] = (
            row[:, : p["strength"]],
            row.flip(1)[:, : p["strength"]],
        )
    if p["operator"] == "median":
        wide = nn.functional.pad(light[:, None], (1, 1, 1, 1), mode="reflect")
        expected["median"] = (
            nn.functional.unfold(wide, 3).median(1).values.reshape(light.shape)
        )
    if p["operator"] == "searchsorted":
        expected["above"] = light[..., None] > scroll.curve

names = [node.name for node in model.graph.node]
watched = onnx.load(theirs)
watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in expected)
found = ort.InferenceSession(
    watched.SerializeToString(), providers=["CPUExecutionProvider"]
)
tensors = dict(
    zip(expected, found.run(list(expected), {"pixels": photos}), strict=True)
)


def differs(name):
    x, y = tensors[name], expected[name].numpy()
    return x.shape != y.shape or not np.allclose(x, y, atol=1e-4)


wrong = sorted((name for name in expected if differs(name)), key=names.index)
if wrong:
    node = wrong[0]
else:
    onnx.utils.extract_model(
        theirs, "work/10.2_network.onnx", ["image"], ["scores"]
    )
    x = torch.randn(20, 1, 28, 28)
    parity = cu.parity(scroll.network, "work/10.2_network.onnx", x)
    node = "logits" if parity.within else parity.first_divergent_node.split()[0]
Path("work/10.2.json").write_text(
    json.dumps({"node": node, "different": different})
)
### END SOLUTION

# %%
cu.check("10.2", "work/10.2.json")

# %% [markdown] tags=["solution"]
# The first wrong node has right inputs and a wrong output. So every tensor before the network becomes an output,
# and is compared with the same step in PyTorch, from the top. Where all agree, the network is cut out and compared
# by `cu.parity`; where that agrees, too, only the order of the scores is left.
#
# A typical mistake is to name a node further down, whose result is wrong because its input is. Another one is to
# test with one photograph: some mistakes appear only in a batch. Count answers, not scores: a score can change
# without another class becoming the largest.

# %% [markdown]
# ## 10.3 Make it ready to ship
#
# The page [Ready to ship, and small](../deeper/10_ready_to_ship.ipynb) shows this and the next task.
#
# Your file will be used on other machines. What runs it may be older than your machine, and whoever opens it needs to
# know what it is.

# %%
{
    name: cu.params("10.3")[name]
    for name in ("opset", "most_nodes", "most_bytes", "version")
}

# %% [markdown]
# Write `work/10.3.onnx`. It computes what `work/10.1.onnx` computes, and
#
# - it has standard operators only, no model-local functions, at most `most_nodes` nodes, an opset of at most `opset`,
#   and imports no other domain,
# - it has at most `most_bytes` bytes, and carries no notes of the exporter, which name files of your machine,
# - its `metadata_props` hold two entries: `version`, as given, and `classes`, a JSON list of the ten names of
#   `cu.CLASS_NAMES` in the order of **your** scores.
#
# > **Hint** `cu.op_histogram` shows where many nodes come from. ONNX Runtime saves its own optimised model when the
# > session option `optimized_model_filepath` is set, and
# > [Files saved optimised](../deeper/06_files_saved_optimised.ipynb) says which level fits every machine. The page
# > [What a file tells](../deeper/01_metadata.ipynb) says how to clear notes.

# %%
# Task 10.3: optimise, describe, and save the model
p = cu.params("10.3")
### BEGIN SOLUTION
with cu.exporter_messages():
    torch.onnx.export(
        ready,
        (some,),
        "work/10.3_raw.onnx",
        opset_version=p["opset"],
        **how,
        **free,
    )
options = ort.SessionOptions()
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
options.optimized_model_filepath = "work/10.3_basic.onnx"
ort.InferenceSession(
    "work/10.3_raw.onnx", options, providers=["CPUExecutionProvider"]
)
model = onnx.load("work/10.3_basic.onnx")
classes = json.dumps([cu.CLASS_NAMES[i] for i in scroll.order])
onnx.helper.set_model_props(model, {"classes": classes, "version": p["version"]})
graph = model.graph
for part in [
    graph,
    *graph.node,
    *graph.input,
    *graph.output,
    *graph.initializer,
    *graph.value_info,
]:
    del part.metadata_props[:]
    part.ClearField("doc_string")
standard = [entry for entry in model.opset_import if not entry.domain]
del model.opset_import[:]
model.opset_import.extend(standard)
onnx.checker.check_model(model, full_check=True)
onnx.save(model, "work/10.3.onnx")
print(cu.doctor("work/10.3.onnx"))
### END SOLUTION

# %%
cu.check("10.3", "work/10.3.onnx")

# %% [markdown] tags=["solution"]
# The level *basic* writes standard operators only, so the file runs on other machines; higher levels write
# operators of ONNX Runtime. What it saves still imports other domains and carries the exporter's notes: both are
# taken out. The names are in the order of the scores, so they go through `scroll.order`.
#
# A typical mistake is `torch.bucketize` or an index with a list: one call becomes many nodes, as `cu.op_histogram`
# shows. Another one is to call `set_model_props` twice: the second call replaces what the first one wrote. Compare
# with `work/10.1.onnx` after all changes, because each of them could have changed a result.

# %% [markdown]
# ## 10.4 Quantize within a budget
#
# The archive pays for space, and has processors without a graphics card. Make the scroll int8.

# %%
{name: cu.params("10.4")[name] for name in ("points", "most_bytes")}

# %% [markdown]
# Write `work/10.4.onnx`, with the same input and output. All 15 convolutions run in int8, with uint8 activations. What
# comes before the network stays in float. The file has at most `most_bytes`, and of a hundred photographs it gets at
# most `points` fewer right than `Scroll`. For the calibration use the photographs in `calibration.npz`, which lies in
# `calibration_file`.
#
# > **Hint** The defaults of `quantize_static` are made for other processors. Left alone, it may quantize the repair of
# > the light, too: the list of the nodes shows it. An operator of the network, such as `Add`, may also stand before it,
# > so nodes are safer to name than operators: `nodes_to_exclude`.

# %%
# Task 10.4: calibrate, quantize, measure, and save the model
### BEGIN SOLUTION
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

nodes = onnx.load("work/10.3.onnx").graph.node
first = next(i for i, node in enumerate(nodes) if node.op_type == "Conv")
quantize_static(
    "work/10.3.onnx",
    "work/10.4.onnx",
    cu.Calibration(
        "work/10.3.onnx", {"pixels": np.load(calibration_file)["photos"]}
    ),
    quant_format=QuantFormat.QOperator,
    activation_type=QuantType.QUInt8,
    weight_type=QuantType.QInt8,
    per_channel=True,
    nodes_to_exclude=[node.name for node in nodes[:first]],
)
int8 = ort.InferenceSession("work/10.4.onnx", providers=["CPUExecutionProvider"])
(got,) = int8.run(None, {"pixels": photos})
right = [(found.argmax(1) == labels).mean() for found in (scores, got)]
print(f"float {right[0]:.1%}, int8 {right[1]:.1%}")
### END SOLUTION

# %%
cu.check("10.4", "work/10.4.onnx")

# %% [markdown] tags=["solution"]
# The network bears rounding, the preparation does not: a repair and a decision need exact numbers. So all nodes
# before the first convolution are excluded by name; an operator such as `Add` may stand on both sides. QOperator
# needs fewer bytes than QDQ, and uint8 activations fit the int8 convolutions here. A scale per channel keeps the
# accuracy.
#
# A typical mistake is to leave the defaults: the repair is quantized, and photographs near the threshold change
# sides. The list of nodes before the first convolution shows it. Calibrate with photographs on both kinds of paper,
# or the ranges do not fit one of them.

# %% [markdown]
# ## 10.5 Serve
#
# The page [On a server and on a page](../deeper/10_server_and_page.ipynb) shows this and the next task.
#
# The archive asks over HTTP. Write a server, start it as a process of its own, and send it the twelve requests below.
# Not all of them are friendly.
#
# `POST /predict` with the Content-Type `application/x-npy` and a body that `numpy.save` wrote: uint8 `[n, 28, 28]`,
# with `n` from 1 to 8. The answer is JSON, `{"label": [3, …]}`, with one number for each photograph: the position of
# the largest score. What is not as agreed gets a status. They are looked at in this order:
#
# | status | when |
# |---|---|
# | 413 | the body has more than 16,384 bytes |
# | 415 | the Content-Type is not `application/x-npy` |
# | 400 | the body is not an `.npy` file that can be read without pickle |
# | 422 | the array is not uint8 with the shape `[n, 28, 28]`, `n` from 1 to 8 |
# | 200 | otherwise |

# %%
requests = json.loads(Path(cu.given("10.5")).read_text())
{
    letter: (r["content_type"], len(base64.b64decode(r["body"])))
    for letter, r in requests.items()
}

# %% [markdown]
# The client is ready. `send` gives the status and the labels of one answer.


# %%
def send(port, request):
    body = base64.b64decode(request["body"])
    url = f"http://127.0.0.1:{port}/predict"
    post = urllib.request.Request(
        url, body, {"Content-Type": request["content_type"]}
    )
    try:
        with urllib.request.urlopen(post, timeout=30) as answer:
            return {
                "status": answer.status,
                "label": json.loads(answer.read())["label"],
            }
    except urllib.error.HTTPError as error:
        return {"status": error.code, "label": []}


# %% [markdown]
# Write `work/10.5.json`: a dict from each letter to what `send` gave. The check knows the right statuses and labels. It
# cannot see that a server said them; the page of 10.6 and whoever uses your server can.
#
# > **Hint** The server of lesson 08 does all of this, and more; take from it what you need
# > ([A server, file by file](../deeper/08_server_file_by_file.ipynb)). `numpy.load` with
# > `allow_pickle=False` never runs what a stranger sent. A short server with FastAPI fits on a page.

# %%
# Task 10.5: write the server, start it, send the requests, and write what it said
### BEGIN SOLUTION
Path("work/10.5_server.py").write_text("""
import io, os, sys
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before the import
import numpy as np, onnxruntime as ort, uvicorn
from fastapi import FastAPI, HTTPException, Request

session = ort.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
session.run(None, {"pixels": np.zeros((1, 28, 28), np.uint8)})
app = FastAPI()


@app.post("/predict")
async def predict(request: Request):
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > 16_384:
            raise HTTPException(413, "The body has more than 16,384 bytes.")
    if request.headers.get("content-type") != "application/x-npy":
        raise HTTPException(415, "The Content-Type must be application/x-npy.")
    try:
        pixels = np.load(io.BytesIO(body), allow_pickle=False)
        shape, dtype = pixels.shape, pixels.dtype
    except Exception:
        raise HTTPException(400, "The body is not an .npy file.") from None
    if dtype != np.uint8 or shape[1:] != (28, 28) or not 1 <= shape[0] <= 8:
        said = f"It is {dtype} {shape}, expected uint8 [1 to 8, 28, 28]."
        raise HTTPException(422, said)
    return {"label": session.run(None, {"pixels": pixels})[0].argmax(1).tolist()}


config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning")
socket = config.bind_socket()
socket.listen()
print(socket.getsockname()[1], flush=True)
uvicorn.Server(config).run([socket])
""")
command = [sys.executable, "work/10.5_server.py", "work/10.4.onnx"]
server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
try:
    port = int(server.stdout.readline())
    said = {letter: send(port, request) for letter, request in requests.items()}
finally:
    server.terminate()
    server.wait(timeout=20)
Path("work/10.5.json").write_text(json.dumps(said))
### END SOLUTION

# %%
cu.check("10.5", "work/10.5.json")

# %% [markdown] tags=["solution"]
# Each line of the table is asked before the next, so a request gets the first status that fits. The body is counted
# while it arrives, so a large one never fills the memory. `allow_pickle=False` refuses Python objects, which could
# run code. Whatever `numpy.load` says, the client gets a 400.
#
# A typical mistake is to look at the shape before the Content-Type, or to forget that `n` may be 0. A 500 is a
# crash inside your server: print the statuses beside the table. Port 0 lets the system choose a free port, and
# `finally` ends the process in any case. The server of lesson 08 is another road.

# %% [markdown]
# ## 10.6 Fit it into a page
#
# A page has no arrays of 28 × 28 bytes. It has a *canvas*: red, green, blue and alpha for each pixel, in any size. All
# that lies between goes into the graph, so that nobody has to write it in JavaScript.

# %%
{name: cu.params("10.6")[name] for name in ("grey", "behind")}

# %% [markdown]
# Write `work/10.6.onnx`: input `rgba`, uint8 `[height, width, 4]` with free height and width; outputs `label`, int64
# `[1]`, and `probability`, float32 `[1, 10]`. These are the steps:
#
# 1. What is transparent shows what is behind it: colour × alpha + behind × (1 - alpha), with alpha from 0 to 1, and
#    black is 0, white is 255.
# 2. Grey is a weighted sum of red, green, blue: 0.299, 0.587, 0.114 in Rec. 601, and 0.2126, 0.7152, 0.0722 in Rec.
#    709.
# 3. `Resize` to 28 × 28 with the mode `linear`, all other attributes as they are by default.
# 4. `Round`, then `Cast` to uint8: these are the pixels for your scroll, the one in float from `work/10.3.onnx`.
# 5. A softmax over the scores gives `probability`, the position of the largest is `label`.
#
# > **Hint** `Resize` wants four dimensions and gets the new size as its fourth input:
# > `Resize<mode = "linear">(x, , , sizes)`. `compose.merge_models` wants one IR version and one opset for both models.

# %%
# Task 10.6: write what comes before and after, join all, and save the model
p = cu.params("10.6")
### BEGIN SOLUTION
core = onnx.load("work/10.3.onnx")
opset = core.opset_import[0].version
header = f'<ir_version: {core.ir_version}, opset_import: ["": {opset}]>'
weights = {"Rec. 601": "0.299, 0.587, 0.114", "Rec. 709": "0.2126, 0.7152, 0.0722"}[
    p["grey"]
]
behind = 255.0 if p["behind"] == "white" else 0.0
before = onnx.parser.parse_model(
    header
    + f"""
    before (uint8[height, width, 4] rgba) => (uint8[one, 28, 28] small)
    <int64[2] parts = {{3, 1}}, float[3] weights = {{{weights}}},
     float behind = {{{behind}}}, float full = {{255.0}}, float unit = {{1.0}},
     int64[1] last = {{2}}, int64[2] front = {{0, 1}}, int64[1] second = {{1}},
     int64[4] sizes = {{1, 1, 28, 28}}> {{
        numbers = Cast<to = 1>(rgba)
        colour, raw = Split<axis = 2>(numbers, parts)
        alpha = Div(raw, full)
        shown = Mul(colour, alpha)
        open = Sub(unit, alpha)
        through = Mul(open, behind)
        seen = Add(shown, through)
        weighted = Mul(seen, weights)
        grey = ReduceSum<keepdims = 0>(weighted, last)
        four = Unsqueeze(grey, front)
        resized = Resize<mode = "linear">(four, , , sizes)
        flat = Squeeze(resized, second)
        whole = Round(flat)
        small = Cast<to = 2>(whole)
    }}"""
)
after = onnx.parser.parse_model(
    header
    + """
    after (float[batch, 10] scores)
    => (int64[batch] label, float[batch, 10] probability) {
        probability = Softmax<axis = 1>(scores)
        label = ArgMax<axis = 1, keepdims = 0>(scores)
    }"""
)
core = compose.add_prefix(
    core, "scroll_", rename_inputs=False, rename_outputs=False
)
front = compose.merge_models(before, core, io_map=[("small", "pixels")])
page = compose.merge_models(front, after, io_map=[("logits", "scores")])
onnx.checker.check_model(page, full_check=True)
onnx.save(page, "work/10.6.onnx")
### END SOLUTION

# %%
cu.check("10.6", "work/10.6.onnx")

# %% [markdown] tags=["solution"]
# Each step of the page becomes nodes, so the page only hands over its canvas. The prefix keeps the names of the
# scroll apart; `merge_models` joins output to input and wants one opset and one IR version. Height and width are
# names, so any size fits.
#
# A typical mistake is `Cast` without `Round`: it cuts off what is behind the point, and some pixels are smaller by
# one. Another one is `antialias` from the lesson, or alpha that is not divided by 255. To find it, run the first
# part alone and compare its 28 × 28 bytes with NumPy's. Another road is one PyTorch module with all steps, but its
# resize must agree with `Resize`.

# %% [markdown]
# Now see it live: this writes your page to `work/quest_page`. With the course's browser files (`make book` brings them)
# it is opened in a real browser, and the network is cut off before it predicts. To use it yourself, run
# `python -m http.server --directory work/quest_page --bind 127.0.0.1` beside this notebook, and open the address it
# prints.

# %%
if Path("work/10.6.onnx").exists():
    names = [cu.CLASS_NAMES[i] for i in scroll.order]
    print(cu.quest_page("work/10.6.onnx", photos[:6], names))

# %% [markdown]
# ## Hand in
#
# This packs your answers into one file, and writes your report card: a page to keep, print, or show. Every answer is
# checked anew for it.

# %%
if Path("work/answers").exists():
    cu.submit()
    cu.report_card()
