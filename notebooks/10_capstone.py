# %% [markdown]
# # 10 · Capstone
#
# **Quest 14.2: the ONNX Scroll.** An archive has photographs of garments, taken with an old camera, and a model that says what
# is on them. Its author has left. The archive wants the model on a server and on a page, small, and right. Nobody has
# exported it so far, and it was not written for that.
#
# In this lesson we take one such model all the way, and use something from each lesson before. In the
# [exercises](exercises/10_capstone.ipynb) you do the same with a model of your own, and get a report card.
#
# After this lesson you will be able to
#
# - plan the way of a model from PyTorch to its users, and say after each step why you trust it,
# - rewrite what cannot be exported, and prove that the new code computes the same,
# - keep a budget: size, accuracy, nodes,
# - hand over a file that works on a server and on a page, and explains itself.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## The photographs
#
# The lens of the camera lets less light through at its edge: each photograph is darker in the corners. And about half of the
# garments lie on white paper, so they are darker than what is behind them. We make such photographs from Fashion-MNIST.

# %%
import numpy as np

from_middle = np.arange(28) - 13.5
fading = (
    1 + np.hypot(from_middle[:, None], from_middle) ** 2 / 365
)  # 2 in the corners


def photograph(images, seed):
    light, draw = images / 255, np.random.default_rng(seed)
    on_white = draw.random(len(images)) < 0.5
    light[on_white] = 1 - light[on_white]
    return np.rint(light / fading * 255).astype(np.uint8), on_white


images, labels = cu.fashion_mnist("test")
photos, on_white = photograph(images[:2000], seed=1)
labels = labels[:2000]

# %%
import matplotlib.pyplot as plt

figure, axes = plt.subplots(1, 8, figsize=(10, 1.7))
for axis, photo, label in zip(axes, photos, labels):
    axis.imshow(photo, cmap="gray", vmin=0, vmax=255)
    axis.set_title(cu.CLASS_NAMES[label], fontsize=9)
    axis.axis("off")
share = f"{on_white.mean():.0%}"
figure.suptitle(
    f"{share} of the photographs are on white paper; all are dark in the corners",
    y=1.1,
)
plt.show()

# %% [markdown]
# ## The model
#
# This is how its author wrote it. Read it with the eyes of an exporter: what in it will be difficult?

# %%
import torch
from torch import nn


class Scroll(nn.Module):
    """uint8 [batch, 28, 28] → scores of ten classes, float32 [batch, 10]."""

    def __init__(self):
        super().__init__()
        self.network = cu.fashion_resnet()
        self.register_buffer("from_middle", torch.arange(28) - 13.5)

    def forward(self, pixels):
        light = self.repaired(pixels.float() / 255)
        photos = []
        for photo in light:
            on_white = photo[::27, ::27].mean() > 0.5  # look at the four corners
            photos.append(1 - photo if on_white else photo)
        return self.network((torch.stack(photos)[:, None] - 0.286) / 0.353)

    def repaired(self, light):
        distance = torch.hypot(self.from_middle[:, None], self.from_middle)
        return (light * (1 + distance**2 / 365)).clamp(0, 1)


# %% tags=["remove-input"]
cu.quiz("10_capstone", 1)

# %% [markdown]
# Before anything else, we write down what it does today. These scores are the truth that each later step is compared with.


# %%
def by_pytorch(module):
    """The scores of all photographs, in parts: all at once would need much memory."""
    with torch.no_grad():
        parts = [module(part) for part in torch.from_numpy(photos).split(200)]
    return torch.cat(parts).numpy()


scroll = Scroll().eval()
scores = by_pytorch(scroll)
accuracy = (scores.argmax(1) == labels).mean()
assert accuracy > 0.9
f"right for {accuracy:.2%} of {len(photos)} photographs"

# %% [markdown]
# ## Export: three obstacles
#
# We try what we would try first. `reason` goes down the chain of errors to the one that started it.

# %%
names = {"input_names": ["pixels"], "output_names": ["logits"]}
free = ({0: torch.export.Dim("batch")},)
how = {"dynamic_shapes": free, "external_data": False, "verbose": False, **names}
some = torch.from_numpy(photos[:2])


def reason(error):
    while error.__cause__:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).splitlines()[0]}"


# %%
try:
    with cu.exporter_messages():
        torch.onnx.export(scroll, (some,), "work/10_first.onnx", **how)
except Exception as error:
    first = reason(error)
assert "data-dependent" in first
first

# %% [markdown]
# The exporter met the `if`: which way it goes depends on numbers that it does not have (lesson 03). The loop is the second
# obstacle: it runs once for each photograph, so its length is the batch. Below we see what becomes of it.
#
# Both are cured by one change. Do not ask photograph by photograph: compute both ways for the whole batch, and choose with
# [`torch.where`](https://docs.pytorch.org/docs/stable/generated/torch.where.html).


# %%
class Ready(Scroll):
    def forward(self, pixels):
        light = self.repaired(pixels.float() / 255)
        on_white = light[:, ::27, ::27].mean((1, 2), keepdim=True) > 0.5
        x = torch.where(on_white, 1 - light, light)
        return self.network((x[:, None] - 0.286) / 0.353)


# %% tags=["remove-input"]
cu.quiz("10_capstone", 2)

# %% [markdown]
# New code may have new mistakes. So we compare before we export, in PyTorch, where it is easy: on all photographs.

# %%
ready = Ready().eval()
rewritten = by_pytorch(ready)
assert np.allclose(rewritten, scores, atol=1e-4)
f"largest difference: {np.abs(rewritten - scores).max():.1e}"

# %% [markdown]
# Again:

# %%
try:
    with cu.exporter_messages():
        torch.onnx.export(ready, (some,), "work/10_first.onnx", **how)
except Exception as error:
    second = reason(error)
assert "No ONNX function found" in second and "hypot" in second
second

# %% [markdown]
# That is the third obstacle. ONNX has no operator for $\sqrt{x^2 + y^2}$, and nobody told the exporter how to spell it. We
# can: with a [translation](https://docs.pytorch.org/docs/stable/onnx_export.html), as in lesson 03.

# %%
from onnxscript import FLOAT
from onnxscript import opset18 as op


def hypot_in_onnx(x: FLOAT, y: FLOAT):
    return op.Sqrt(op.Add(op.Mul(x, x), op.Mul(y, y)))


table = {torch.ops.aten.hypot.default: hypot_in_onnx}
with cu.exporter_messages():
    torch.onnx.export(
        ready,
        (some,),
        "work/10_scroll.onnx",
        opset_version=18,
        custom_translation_table=table,
        **how,
    )

# %% [markdown]
# ## Parity: is it the same model?
#
# A file without an error is not yet a right file. Three groups of photographs, because the decision has two sides and a
# batch may mix them. And one photograph alone, because we exported with two.

# %%
groups = {
    "on black paper": photos[~on_white][:200],
    "on white paper": photos[on_white][:200],
    "both together": photos[:200],
    "one alone": photos[:1],
}
for what, group in groups.items():
    found = cu.parity(scroll, "work/10_scroll.onnx", torch.from_numpy(group))
    assert found.within
    print(f"{what:15} {found}")

# %% [markdown]
# The reference is `scroll`, the author's model, and not our rewritten one. So both steps are tested: the change and the
# export.
#
# ## What no error would have told us
#
# The `if` and the operator were refused. What if they had not been? First the loop alone: the operator is replaced, each
# photograph gets a `torch.where` of its own, and we ask for a free batch.


# %%
class OnlyTheOperator(Scroll):
    def repaired(self, light):
        x, y = self.from_middle[:, None], self.from_middle
        return (light * (1 + (x * x + y * y) / 365)).clamp(0, 1)


class WithTheLoop(OnlyTheOperator):
    def forward(self, pixels):
        photos = []
        for photo in self.repaired(pixels.float() / 255):
            on_white = photo[::27, ::27].mean() > 0.5
            photos.append(torch.where(on_white, 1 - photo, photo))
        return self.network((torch.stack(photos)[:, None] - 0.286) / 0.353)


# %%
import onnx

with cu.exporter_messages():
    torch.onnx.export(WithTheLoop().eval(), (some,), "work/10_loop.onnx", **how)
looped = onnx.load("work/10_loop.onnx").graph.input[0].type.tensor_type.shape
assert looped.dim[0].dim_value == len(some) == 2
f"pixels: {[dim.dim_value or dim.dim_param for dim in looped.dim]}"

# %% [markdown]
# No error, and a file for exactly two photographs: the loop was unrolled, and the free batch that we asked for is gone
# (lesson 04). At least the file says so.
#
# The older exporter, which traces, does not even complain about an `if`:

# %%
traced = "work/10_traced.onnx"
axes = {"pixels": {0: "batch"}, "logits": {0: "batch"}}
dark = torch.from_numpy(photos[~on_white][:2])
author = OnlyTheOperator().eval()
with cu.exporter_messages():
    torch.onnx.export(
        author, (dark,), traced, dynamo=False, dynamic_axes=axes, **names
    )

# %%
import onnxruntime as ort

quiet = ort.SessionOptions()
quiet.log_severity_level = 4  # the error is caught below
tracing = ort.InferenceSession(traced, quiet, providers=["CPUExecutionProvider"])


def outcome(group):
    with torch.no_grad():
        right = scroll(torch.from_numpy(group)).numpy()
    try:
        (got,) = tracing.run(None, {"pixels": group})
    except Exception as error:
        return (
            "refused: " + str(error).split("Status Message: ")[-1].partition(".")[0]
        )
    return "right" if np.allclose(got, right, atol=1e-4) else "wrong numbers"


# %%
import pandas as pd

black, white = photos[~on_white], photos[on_white]
sizes = {"2 on black": black[2:4], "2 on white": white[:2], "5 on black": black[:5]}
said = {what: outcome(group) for what, group in sizes.items()}
assert said["2 on black"] == "right" and said["2 on white"] == "wrong numbers"
assert "refused" in said["5 on black"]
pd.Series(said, name="the traced file").to_frame()

# %% [markdown]
# It is right for what it was traced with, and for nothing else: the decision is frozen, and so is the loop. The file
# declares a free batch all the same. Without the groups above, you would find out from your users.

# %% [markdown]
# ## Diagnosis
#
# Now that the numbers are right, is the file fit to be handed over?

# %%
report = cu.doctor("work/10_scroll.onnx", run=True)
assert not report.errors
findings = [(f.severity, f.code.title, f.cure) for f in report.findings]
pd.DataFrame(findings, columns=["severity", "finding", "cure"])

# %%
model = onnx.load("work/10_scroll.onnx")
has_sqrt = "Sqrt" in cu.op_histogram(model)
assert not has_sqrt
{"nodes": len(model.graph.node), "bytes": model.ByteSize(), "Sqrt": has_sqrt}

# %% [markdown]
# `Sqrt` is not there, although we spelled it out: the middle of a photograph is always at the same place, so the exporter
# has computed the fading once and for all. What remains to do are the notes, which name files of this machine.

# %% [markdown]
# ## Ready to ship
#
# A model outlives the people who know it. So we write into the file what it is: its version, and what the ten scores mean.
# And we let ONNX Runtime do, now, what it can do for every machine: the level
# [*basic*](https://onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html) (lesson 06).

# %%
options = ort.SessionOptions()
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
options.optimized_model_filepath = "work/10_basic.onnx"
cpu = {"providers": ["CPUExecutionProvider"]}
saving = ort.InferenceSession("work/10_scroll.onnx", options, **cpu)

# %% [markdown]
# The saved file imports all the operator sets that ONNX Runtime knows, its own included. Another runtime may refuse those. So
# the imports go that no node uses, the notes go, too, and the facts come:

# %%
import json

shipped = onnx.load("work/10_basic.onnx")
imported = {opset.domain for opset in shipped.opset_import}
used = {node.domain for node in shipped.graph.node}
for opset in [o for o in shipped.opset_import if o.domain not in used]:
    shipped.opset_import.remove(opset)
for part in [*shipped.graph.node, *shipped.graph.value_info]:
    del part.metadata_props[:]
    part.ClearField("doc_string")
facts = {"version": "1.0.0", "classes": json.dumps(cu.CLASS_NAMES)}
onnx.helper.set_model_props(shipped, facts)
onnx.checker.check_model(shipped, full_check=True)
onnx.save(shipped, "work/10_shipped.onnx")

# %%
assert cu.parity(
    scroll, "work/10_shipped.onnx", torch.from_numpy(photos[:200])
).within
assert "com.microsoft" in imported
assert used == {opset.domain for opset in shipped.opset_import} <= {"", "ai.onnx"}
before, after = model.ByteSize(), shipped.ByteSize()
nodes = len(model.graph.node), len(shipped.graph.node)
assert after < before
pd.DataFrame(
    {"bytes": [before, after], "nodes": nodes}, index=["exported", "shipped"]
)

# %% [markdown]
# Only the standard's operator set is left. The exporter had done most of the work already, as the number of nodes shows.
# The bytes that went were notes. Whoever loads the file can ask it what it is:

# %%
session = ort.InferenceSession("work/10_shipped.onnx", **cpu)
facts = session.get_modelmeta().custom_metadata_map
assert json.loads(facts["classes"]) == list(cu.CLASS_NAMES)
facts

# %% [markdown]
# ## Int8 within a budget
#
# Next comes [quantization](https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html). The archive pays
# for space: at most 355 kB, and at most one point of accuracy. We calibrate with other photographs, from the same camera,
# on both kinds of paper.

# %% tags=["remove-input"]
cu.quiz("10_capstone", 3)

# %%
import logging

from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

# The quantizer advises to pre-process. We have done that: the file is optimised.
logging.getLogger().setLevel(logging.ERROR)
garments = cu.fashion_mnist("calibration")[0][:300]
calibration, _ = photograph(garments, seed=2)
ours = {"activation_type": QuantType.QUInt8, "quant_format": QuantFormat.QOperator}


def quantized(file, **changes):
    reader = cu.Calibration("work/10_shipped.onnx", {"pixels": calibration})
    settings = ours | changes
    quantize_static(
        "work/10_shipped.onnx", file, reader, per_channel=True, **settings
    )
    return ort.InferenceSession(file, **cpu)


# %% [markdown]
# Four ways, each measured: how many bytes, how many of 2 000 photographs are right, and how many of the 15 convolutions
# really run as integers (lesson 07). The last one quantizes the operators of the network only.

# %%
network_only = ["Conv", "Relu", "Add", "Gemm"]
ways = {
    "int8, QDQ": {
        "activation_type": QuantType.QInt8,
        "quant_format": QuantFormat.QDQ,
    },
    "uint8, QDQ": {"quant_format": QuantFormat.QDQ},
    "uint8, QOperator": {},
    "uint8, QOperator, network only": {"op_types_to_quantize": network_only},
}

# %%
from pathlib import Path

files = {way: f"work/10_int8_{number}.onnx" for number, way in enumerate(ways)}
rows, answers = {"float": [after, accuracy * 100, 0]}, {}
for way, changes in ways.items():
    int8_session = quantized(files[way], **changes)
    answers[way] = cu.run_in_batches(int8_session, {"pixels": photos})["logits"]
    running = cu.op_histogram(cu.optimized(files[way]))
    integers = running.get("com.microsoft::QLinearConv", 0)
    size = Path(files[way]).stat().st_size
    rows[way] = [size, (answers[way].argmax(1) == labels).mean() * 100, integers]
results = pd.DataFrame(rows, index=["bytes", "right in %", "int8 convolutions"]).T
results

# %%
small = results["bytes"] <= 355_000
good = results["right in %"] >= accuracy * 100 - 1
fits = results[small & good & (results["int8 convolutions"] == 15)]
assert list(fits.index) == ["uint8, QOperator", "uint8, QOperator, network only"]
list(fits.index)

# %% [markdown]
# Two of them fit. Which one do we take? Look at what the first has done before the network begins:


# %%
def before_the_network(file):
    operators = [node.op_type for node in onnx.load(file).graph.node]
    first = next(i for i, op in enumerate(operators) if op.endswith("Conv"))
    return operators[:first]


whole_file, chosen = (files[way] for way in fits.index)
assert "QLinearMul" in before_the_network(whole_file)
before_the_network(whole_file)

# %% [markdown]
# `QLinearMul`: the repair of the light is quantized, too. So the decision about the paper looks at rounded numbers. With these
# photographs that did no harm, because white paper is far from black. Nothing promises it for a greyer paper. The other file
# leaves everything before the network as it was:

# %%
assert before_the_network(chosen).count("QuantizeLinear") == 1
assert not [op for op in before_the_network(chosen) if op.startswith("QLinear")]
got = answers[fits.index[1]]
agree = got.argmax(1) == scores.argmax(1)
same = {
    "black paper": agree[~on_white].mean(),
    "white paper": agree[on_white].mean(),
}
assert min(same.values()) > 0.97
pd.Series(same, name="answers as before").map("{:.1%}".format).to_frame()

# %% [markdown]
# Is it faster, too?

# %%
float_session, int8_session = session, ort.InferenceSession(chosen, **cpu)
batch = photos[:32]
with torch.no_grad():
    race = cu.compare(
        {
            "PyTorch": lambda: scroll(torch.from_numpy(batch)),
            "float": lambda: float_session.run(None, {"pixels": batch}),
            "int8": lambda: int8_session.run(None, {"pixels": batch}),
        },
        rounds=10,
    )
race

# %% [markdown]
# ## The server
#
# It is a short one, written with [FastAPI](https://fastapi.tiangolo.com/): it loads the file once, believes nothing, and
# reads the names of the classes out of the file. What it lacks is in lesson 08: batches, metrics, a limit on the queue, a
# time limit for the body, and addresses that say whether it is ready and alive.

# %%
# %%writefile work/10_server.py
"""The scroll as a server:  python 10_server.py model.onnx"""

import io
import json
import os
import sys

os.environ.setdefault(
    "ORT_DISABLE_TELEMETRY", "1"
)  # before onnxruntime is imported

import numpy as np
import onnxruntime as ort
import uvicorn
from fastapi import FastAPI, HTTPException, Request

session = ort.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
session.run(
    None, {"pixels": np.zeros((1, 28, 28), np.uint8)}
)  # the first run is slow
app = FastAPI()


async def body_of(request):
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > 16_384:
            raise HTTPException(413, "The body has more than 16,384 bytes.")
    return bytes(body)


def pixels_of(body):
    try:
        pixels = np.load(io.BytesIO(body), allow_pickle=False)
        shape, dtype = pixels.shape, pixels.dtype
    except Exception:
        raise HTTPException(400, "The body is not an .npy file.") from None
    if dtype != np.uint8 or shape[1:] != (28, 28) or not 1 <= shape[0] <= 16:
        wanted = "expected uint8 [1 to 16, 28, 28]"
        raise HTTPException(422, f"It is {dtype} {list(shape)}, {wanted}.")
    return pixels


@app.post("/predict")
async def predict(request: Request):
    (scores,) = session.run(None, {"pixels": pixels_of(await body_of(request))})
    return {
        "names": [classes[i] for i in scores.argmax(1)],
        "scores": scores.tolist(),
    }


if __name__ == "__main__":
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning")
    socket = config.bind_socket()
    socket.listen()
    print(socket.getsockname()[1], flush=True)
    uvicorn.Server(config).run([socket])

# %%
import atexit
import subprocess
import sys

command = [sys.executable, "work/10_server.py", chosen]
server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
atexit.register(server.kill)
port = int(server.stdout.readline())

# %% [markdown]
# A client. Four of them ask at the same time, and each answer is compared with what the file gives here.

# %%
import http.client
import io
from concurrent.futures import ThreadPoolExecutor


def ask(body):
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    line.request("POST", "/predict", body)
    answer = line.getresponse()
    return answer.status, json.loads(answer.read())


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


# %%
with ThreadPoolExecutor(4) as pool:
    answers = list(
        pool.map(ask, [npy(photos[i : i + 4]) for i in range(0, 400, 4)])
    )
assert {status for status, _ in answers} == {200}
served = np.concatenate([answer["scores"] for _, answer in answers])
assert np.allclose(served, got[:400], atol=1e-4)
same = (served.argmax(1) == scores[:400].argmax(1)).mean()
f"{len(served)} photographs served; {same:.1%} of the answers are those of PyTorch"

# %% [markdown]
# And what it says to those who ask for something else:

# %%
bad = {
    "a text": b"a photograph of a shoe",
    "float32": npy((photos[:1] / 255).astype(np.float32)),
    "too many": npy(photos[:20]),
    "too large": npy(photos[:40]),
    "a Python object": npy(np.array([None])),  # numpy.save pickles it
}
refused = {what: ask(body) for what, body in bad.items()}
assert all(400 <= status < 500 for status, _ in refused.values())
server.terminate()
server.wait(timeout=20)
rows = {
    what: [status, answer["detail"]] for what, (status, answer) in refused.items()
}
pd.DataFrame(rows, index=["status", "it says"]).T

# %% [markdown]
# ## The page
#
# On a page, a picture is a *canvas*: red, green, blue and alpha for each pixel, in any size. From there to 28 × 28 bytes
# there are several steps, and every page could get one of them wrong, the
# [`Resize`](https://onnx.ai/onnx/operators/onnx__Resize.html) above all. So they go into the file, like the labels at the
# end (lesson 08).

# %% tags=["remove-input"]
cu.quiz("10_capstone", 4)

# %%
from onnx import compose

core = onnx.load(chosen)
opset = next(o.version for o in core.opset_import if not o.domain)
header = f'<ir_version: {core.ir_version}, opset_import: ["": {opset}]>'
before = onnx.parser.parse_model(
    header
    + """
    canvas (uint8[height, width, 4] rgba) => (uint8[one, 28, 28] small)
    <int64[1] start = {0}, int64[1] end = {3}, int64[1] last = {2},
     int64[2] front = {0, 1}, int64[1] second = {1}, int64[4] sizes = {1, 1, 28, 28}> {
        numbers = Cast<to = 1>(rgba)
        colour = Slice(numbers, start, end, last)
        grey = ReduceMean<keepdims = 0>(colour, last)
        four = Unsqueeze(grey, front)
        resized = Resize<mode = "linear", antialias = 1>(four, , , sizes)
        flat = Squeeze(resized, second)
        whole = Round(flat)
        small = Cast<to = 2>(whole)
    }"""
)

# %%
after = onnx.parser.parse_model(
    header
    + """
    answer (float[batch, 10] result)
        => (int64[batch] label, float[batch, 10] probability) {
        probability = Softmax<axis = 1>(result)
        label = ArgMax<axis = 1, keepdims = 0>(result)
    }"""
)

# %%
core = compose.add_prefix(
    core, "scroll_", rename_inputs=False, rename_outputs=False
)
front = compose.merge_models(before, core, io_map=[("small", "pixels")])
page_model = compose.merge_models(front, after, io_map=[("logits", "result")])
onnx.checker.check_model(page_model, full_check=True)
onnx.save(page_model, "work/10_page.onnx")

# %% [markdown]
# `cu.quest_page` writes a page around such a file, opens it in a real browser, cuts the network off, and lets it look at
# canvases of several sizes. The page itself is about a hundred lines, in `work/quest_page/index.html`.

# %%
seen = cu.quest_page("work/10_page.onnx", photos[:12], cu.CLASS_NAMES)
if seen:
    assert (
        seen["same labels"] == seen["pictures"]
        and seen["largest difference"] < 1e-4
    )
    assert (
        not seen["requests while predicting"]
        and not seen["requests to other hosts"]
    )
seen and pd.Series(seen, name="in the browser").to_frame()

# %% [markdown]
# Here is the same page for you. It also takes a picture of your own, and keeps it to itself.

# %%
seen and cu.show_page("work/quest_page", "The scroll on a page", height=760)

# %% [markdown]
# ## Your quest
#
# Your scroll is another one: another camera with another fault, repaired by another operator without a translation; another
# decision; other classes. Six files are asked for, and each is judged by what it computes on photographs that you have not
# seen.
#
# | Task | The file | What is asked |
# |---|---|---|
# | 10.1 | `10.1.onnx` | It agrees with your scroll, on both kinds of paper, alone and in a batch of both. |
# | 10.2 | `10.2.json` | Which node of a colleague's file is wrong, and how many answers does it spoil? |
# | 10.3 | `10.3.onnx` | Standard operators, few nodes, an older opset, no notes; it says what it is. |
# | 10.4 | `10.4.onnx` | Int8, within the budget of bytes and accuracy. |
# | 10.5 | `10.5.json` | What your server said to twelve requests, friendly and not. |
# | 10.6 | `10.6.onnx` | From a canvas of any size to a label. |
#
# At the end, `cu.report_card()` checks all your answers of the course anew, and writes one page for you to keep: what you
# did, what was measured on your files, and, when all six are right, the seal.

# %% [markdown]
# ## Recap
#
# - First the truth: write down what the model answers today. Each step is compared with that, not with the step before.
# - The exporter tells you about an `if` and an unknown operator. About a loop it does not, and tracing tells you nothing.
# - A decision for each example is `torch.where`. A decision for the batch makes an answer depend on the others in it.
# - Ship a file that explains itself: standard operators, no notes, its version and its classes inside.
# - A budget is checked in one table: bytes, accuracy, and what really runs as integers.
# - What the caller would have to do by hand belongs into the graph: on a server, on a page, everywhere.
#
# **Next:** [your quest](exercises/10_capstone.ipynb).
