# %% [markdown]
# # 10 · Ship it
#
# You have a file that gives the right numbers. It still holds notes about your machine, is larger than the archive pays
# for, and nobody can call it yet. In this second sitting you make it ready to ship, small, and reachable from a server and
# a page.
#
# You need lessons 06, 07 and 08, and the first sitting, [10](../10_capstone.ipynb).
#
# After this page you will be able to
#
# - clean and describe a file that leaves your machine,
# - choose a quantized file under a budget of bytes and of accuracy,
# - serve the file, and show what the server refuses,
# - put the steps of a page into the file.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## Where we go on
#
# The first sitting left a file, photographs, and the right answers. What is missing here is made now:

# %%
import numpy as np
import pandas as pd

home = cu.first_sitting()
truth = np.load(home / "truth.npz")
photos, labels = truth["photos"], truth["labels"]
on_white, scores = truth["on_white"], truth["scores"]
photos.shape, scores.shape

# %% [markdown]
# ## Ready to ship
#
# ONNX Runtime can do some work now, for every machine, and save the result: the level
# [*basic*](https://onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html)
# ([optimisation level](../glossary.md#optimisation-level)).

# %%
import onnxruntime as ort

options = ort.SessionOptions()
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
options.optimized_model_filepath = "work/10_ship_it_basic.onnx"
cpu = {"providers": ["CPUExecutionProvider"]}
_ = ort.InferenceSession(home / "scroll.onnx", options, **cpu)

# %% [markdown]
# The saved file imports all operator sets that ONNX Runtime knows, also its own. Another runtime may refuse those. We
# remove the imports that no node uses, and the exporter's notes:

# %%
import onnx

model = onnx.load("work/10_ship_it_basic.onnx")
imported = {entry.domain for entry in model.opset_import}
used = {node.domain for node in model.graph.node}
for entry in [e for e in model.opset_import if e.domain not in used]:
    model.opset_import.remove(entry)
for part in [*model.graph.node, *model.graph.value_info]:
    del part.metadata_props[:]
    part.ClearField("doc_string")
assert "com.microsoft" in imported and used <= {"", "ai.onnx"}

# %% [markdown]
# A model outlives the people who know it. So the file says what it is ([metadata](../glossary.md#metadata)): its version,
# and what the ten scores mean. Then we check that it still gives the right numbers, and ask it what it is:

# %%
import json

facts = {"version": "1.0.0", "classes": json.dumps(cu.CLASS_NAMES)}
onnx.helper.set_model_props(model, facts)
onnx.checker.check_model(model, full_check=True)
shipped = "work/10_ship_it.onnx"
onnx.save(model, shipped)
session = ort.InferenceSession(shipped, **cpu)
logits = cu.run_in_batches(session, {"pixels": photos})["logits"]
assert np.allclose(logits, scores, atol=1e-4)
assert model.ByteSize() < (home / "scroll.onnx").stat().st_size
session.get_modelmeta().custom_metadata_map

# %% [markdown]
# The numbers are the same, the file is smaller by the size of its notes, and whoever loads it can read the classes.
#
# ## Int8 within a budget
#
# The archive pays for at most 355 kB, and accepts at most one point of accuracy less. We calibrate
# ([calibration](../glossary.md#calibration)) with other photographs of the same camera, on both kinds of paper.

# %% tags=["remove-input"]
cu.quiz("10_ship_it", 1)

# %%
import logging

from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

logging.getLogger().setLevel(logging.ERROR)  # the file is optimised already
examples, _, _ = cu.archive_photographs("calibration", 300, seed=2)
reader = cu.Calibration(shipped, {"pixels": examples})
quantize_static(shipped, "work/10_ship_it_0.onnx", reader, per_channel=True)

# %% [markdown]
# That was the default: QDQ, with int8 activations. The three others have uint8 activations, as processors of this kind
# want them (lesson 07). The last one quantizes the operators of the network only.
# For each file we then count its bytes, the photographs it gets right, and the convolutions, of 15, that run as integers.

# %%
uint8 = {"activation_type": QuantType.QUInt8, "per_channel": True}
direct = uint8 | {"quant_format": QuantFormat.QOperator}
network = direct | {"op_types_to_quantize": ["Conv", "Relu", "Add", "Gemm"]}
for number, settings in enumerate([uint8, direct, network], 1):
    reader = cu.Calibration(shipped, {"pixels": examples})
    quantize_static(shipped, f"work/10_ship_it_{number}.onnx", reader, **settings)

# %%
answers, rows = {}, {}
for way in ("int8 QDQ", "uint8 QDQ", "uint8 QOperator", "network only"):
    file = f"work/10_ship_it_{len(rows)}.onnx"
    found = cu.run_in_batches(ort.InferenceSession(file, **cpu), {"pixels": photos})
    answers[way] = found["logits"].argmax(1)
    integers = cu.op_histogram(cu.optimized(file)).get(
        "com.microsoft::QLinearConv", 0
    )
    right = (answers[way] == labels).mean() * 100
    rows[way] = [onnx.load(file).ByteSize(), right, integers]
results = pd.DataFrame(rows, ["bytes", "right in %", "int8 convolutions"]).T
results

# %% [markdown]
# Now the budget, as three conditions. And for the files that fit: what stands before the first convolution?

# %%
small = results["bytes"] <= 355_000
good = results["right in %"] >= (scores.argmax(1) == labels).mean() * 100 - 1
fits = results[small & good & (results["int8 convolutions"] == 15)]
assert list(fits.index) == ["uint8 QOperator", "network only"]
before = {}
for number, way in enumerate(fits.index, 2):
    nodes = onnx.load(f"work/10_ship_it_{number}.onnx").graph.node
    operators = [node.op_type for node in nodes]
    before[way] = operators[: operators.index("QLinearConv")]
assert "QLinearMul" in before["uint8 QOperator"]
before

# %% [markdown]
# Two files fit. `QLinearMul`: the first one repairs the light in int8, so the decision about the paper looks at rounded numbers. Here
# that did no harm, because white paper is far from black. For a greyer paper nothing promises it. We take the other file.
# Does it give the same answers as PyTorch, on each kind of paper?

# %%
chosen = "work/10_ship_it_3.onnx"
agree = answers["network only"] == scores.argmax(1)
same = {"black": agree[~on_white].mean(), "white": agree[on_white].mean()}
assert not [op for op in before["network only"] if op.startswith("QLinear")]
assert before["network only"].count("QuantizeLinear") == 1
assert min(same.values()) > 0.97
pd.Series(same, name="answers as before").map("{:.1%}".format).to_frame()

# %% [markdown]
# Nearly all answers are as before. How much faster int8 is, lesson [07](../07_quantization.ipynb) measures.
#
# ## The server
#
# The server of lesson [08](../08_deployment.ipynb), made with [FastAPI](https://fastapi.tiangolo.com/), takes `pixels` and
# returns every output of its model. So it can serve this file as it is. We copy it, put the model beside it, and start it.
# A client then sends what `numpy.save` writes, at most 16 photographs:

# %%
import shutil

served = cu.course_files("server", "work/10_ship_it/server").parent
shutil.copy(chosen, served / "model.onnx")
server = cu.start_server(served, name="scroll")
status, answer = server.ask(photos[:4])
int8 = ort.InferenceSession(chosen, **cpu)
(expected,) = int8.run(None, {"pixels": photos[:4]})
assert status == 200 and np.allclose(answer["logits"], expected, atol=1e-4)
[cu.CLASS_NAMES[i] for i in np.argmax(answer["logits"], 1)]

# %% [markdown]
# The server gives the numbers of the file. And what does it say to those who ask for something else?

# %%
bad = {"a text": b"a photograph of a shoe", "float32": photos[:1] / np.float32(255)}
bad |= {"too many": photos[:20], "too large": photos[:100]}
bad |= {"a Python object": np.array([None])}  # numpy.save pickles it
refused = {what: server.ask(body) for what, body in bad.items()}
server.stop()
assert all(400 <= status < 500 for status, _ in refused.values())
{what: f"{status} {said['error']}" for what, (status, said) in refused.items()}

# %% [markdown]
# Five statuses from 400 to 499, each with a sentence, and none reached the model.
#
# ## The page
#
# On a page, a picture is a *canvas*: red, green, blue and alpha for each pixel, in any size. From there to 28 × 28 bytes
# there are several steps, and a page could get each of them wrong. The most likely one is
# [`Resize`](https://onnx.ai/onnx/operators/onnx__Resize.html). So they go into the file.

# %% tags=["remove-input"]
cu.quiz("10_ship_it", 2)

# %%
from onnx import compose

core = onnx.load(shipped)
opset = next(e.version for e in core.opset_import if not e.domain)
core = compose.add_prefix(
    core, "scroll_", rename_inputs=False, rename_outputs=False
)
header = f'<ir_version: {core.ir_version}, opset_import: ["": {opset}]>'
constants = """<int64[1] start = {0}, int64[1] end = {3}, int64[1] last = {2},
    int64[2] front = {0, 1}, int64[1] second = {1},
    int64[4] sizes = {1, 1, 28, 28}>"""

# %% [markdown]
# The steps before the model, in the text form of ONNX: the mean of the three colours, the new size, whole numbers.

# %%
front = onnx.parser.parse_model(f"""{header}
    canvas (uint8[height, width, 4] rgba)
    => (uint8[one, 28, 28] small) {constants} {{
        numbers = Cast<to = 1>(rgba)
        colour = Slice(numbers, start, end, last)
        grey = ReduceMean<keepdims = 0>(colour, last)
        four = Unsqueeze(grey, front)
        resized = Resize<mode = "linear", antialias = 1>(four, , , sizes)
        flat = Squeeze(resized, second)
        whole = Round(flat)
        small = Cast<to = 2>(whole)
    }}""")

# %% [markdown]
# And the steps after it. [`merge_models`](https://onnx.ai/onnx/api/compose.html) joins an output of one model to an input of
# the next; the prefix keeps their names apart.

# %%
end = onnx.parser.parse_model(f"""{header}
    answer (float[batch, 10] result)
    => (int64[batch] label, float[batch, 10] probability) {{
        probability = Softmax<axis = 1>(result)
        label = ArgMax<axis = 1, keepdims = 0>(result)
    }}""")
page = compose.merge_models(front, core, io_map=[("small", "pixels")])
page = compose.merge_models(page, end, io_map=[("logits", "result")])
onnx.checker.check_model(page, full_check=True)
onnx.save(page, "work/10_ship_it_page.onnx")

# %% [markdown]
# `cu.quest_page` writes a page around such a file, opens it in a real browser, cuts the network off, and lets it look at
# canvases of several sizes. The page is about a hundred lines, in `work/quest_page/index.html`.

# %%
seen = cu.quest_page("work/10_ship_it_page.onnx", photos[:12], cu.CLASS_NAMES)
if seen:
    assert seen["same labels"] == seen["pictures"]
    assert seen["largest difference"] < 1e-4
    assert not seen["requests while predicting"]
    assert not seen["requests to other hosts"]
    print(seen)
seen and cu.show_page("work/quest_page", "The scroll on a page", height=760)

# %% [markdown]
# In the browser the labels are those of ONNX Runtime in Python, and the page asks the network for nothing. It also takes a
# picture of your own, and keeps it to itself.

# %% [markdown]
# ## Recap
#
# - Ship a file that explains itself: standard operators, no notes, its version and its classes inside.
# - Check a budget in one table: bytes, accuracy, and what really runs as integers.
# - Quantize the network only, unless you have measured that its preparation keeps every decision in int8.
# - Serve the file as it is, and try what the server must refuse.
# - Put into the graph what each caller would have to do by hand, unless callers need to change it.
#
# **Next:** [your quest](../exercises/10_capstone.ipynb), tasks 10.3 to 10.6. At its end, `cu.report_card()` checks all your
# answers of the course anew, and writes one page for you to keep.
