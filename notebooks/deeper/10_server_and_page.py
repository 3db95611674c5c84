# %% [markdown]
# # 10 · On a server and on a page
#
# The archive has its file, and nobody can call it yet. One department wants to ask over HTTP, another one wants a page that
# takes any picture. Both get the model of lesson 10.
#
# You need [lesson 08](../08_deployment.ipynb), and the [core of lesson 10](../10_capstone.ipynb).
#
# After this page you will be able to
#
# - serve the file as it is, and show what the server refuses,
# - write the steps around a model as ONNX text, and join them with it,
# - prove that a page gives the answers of Python, and asks nobody.

# %%
import course_utils as cu
import numpy as np
import onnx
import onnxruntime as ort
from onnx import compose

cu.setup()

# %% [markdown]
# ## Where lesson 10 ended
#
# The rewritten model repairs the light of a photograph, turns one on white paper into its negative, and asks the network:

# %%
import torch


class Scroll(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.network = cu.fashion_resnet()

    def forward(self, pixels):
        x = torch.arange(28) - 13.5
        fading = 1 + (x[:, None] ** 2 + x**2) / 365
        light = (pixels.float() / 255 * fading).clamp(0, 1)
        is_white = light[:, ::27, ::27].mean((1, 2), keepdim=True) > 0.5
        light = torch.where(is_white, 1 - light, light)
        return self.network((light[:, None] - 0.286) / 0.353)


# %% [markdown]
# We export it again, so that this page needs no file of the lesson:

# %%
file, example = "work/10_called.onnx", (torch.zeros(2, 28, 28, dtype=torch.uint8),)
how = {"input_names": ["pixels"], "output_names": ["logits"], "verbose": False}
how |= {"dynamic_shapes": ({0: torch.export.Dim("batch")},), "external_data": False}
_ = torch.onnx.export(Scroll().eval(), example, file, **how)

# %% [markdown]
# The photographs of the archive, and what the file answers in Python:

# %%
photos, labels, _ = cu.archive_photographs("test", 100, seed=1)
session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
(expected,) = session.run(None, {"pixels": photos})

# %% [markdown]
# ## The server
#
# The server of lesson [08](../08_deployment.ipynb), made with [FastAPI](https://fastapi.tiangolo.com/), takes `pixels` and
# returns every output of its model. So it can serve this file as it is. We copy it, put the model beside it, and start it.

# %%
import shutil

served = cu.course_files("server", "work/10_served/server").parent
shutil.copy(file, served / "model.onnx")
server = cu.start_server(served, name="scroll")

# %% [markdown]
# A client sends what `numpy.save` writes, at most 16 photographs:

# %%
status, answer = server.ask(photos[:4])
assert status == 200 and np.allclose(answer["logits"], expected[:4], atol=1e-4)
[cu.CLASS_NAMES[i] for i in np.argmax(answer["logits"], 1)]

# %% [markdown]
# The server gives the numbers of the file. And what does it say to those who ask for something else? `numpy.save` stores a
# Python object as a pickle, which can run code when it is read.

# %%
bad = {"a text": b"a photograph of a shoe", "float32": photos[:1] / np.float32(255)}
bad |= {"too many": photos[:20], "too large": photos}
bad |= {"a Python object": np.array([None])}
refused = {what: server.ask(body) for what, body in bad.items()}

# %%
server.stop()
assert all(400 <= status < 500 for status, _ in refused.values())
{what: f"{status} {said['error']}" for what, (status, said) in refused.items()}

# %% [markdown]
# Five statuses from 400 to 499, each with a sentence, and none reached the model. How the server does that is in
# [A server, file by file](08_server_file_by_file.ipynb).
#
# ## The page
#
# On a page, a picture is a *canvas*: red, green, blue and alpha for each pixel, in any size. From there to 28 × 28 bytes
# there are several steps, and a page could get each of them wrong. The most likely one is
# [`Resize`](https://onnx.ai/onnx/operators/onnx__Resize.html). So they go into the file.
#
# The parts that we join must have the same opset, and no name twice. A prefix keeps the names apart:

# %%
scroll = onnx.load(file)
opset = next(entry.version for entry in scroll.opset_import if not entry.domain)
kept = {"rename_inputs": False, "rename_outputs": False}
scroll = compose.add_prefix(scroll, "scroll_", **kept)

# %% [markdown]
# The steps before the model, in the text form of ONNX: the mean of the three colours, the new size, whole numbers.

# %%
before = """canvas (uint8[height, width, 4] rgba) => (uint8[one, 28, 28] small)
    <int64[1] start = {0}, int64[1] end = {3}, int64[1] last = {2},
     int64[2] front = {0, 1}, int64[4] sizes = {1, 1, 28, 28}> {
        colour = Slice(rgba, start, end, last)
        numbers = Cast<to = 1>(colour)
        grey = ReduceMean<keepdims = 0>(numbers, last)
        four = Unsqueeze(grey, front)
        resized = Resize<mode = "linear", antialias = 1>(four, , , sizes)
        whole = Round(resized)
        flat = Squeeze(whole, start)
        small = Cast<to = 2>(flat)
    }"""

# %% [markdown]
# And the steps after it:

# %%
after = """answer (float[batch, 10] result)
    => (int64[batch] label, float[batch, 10] probability) {
        probability = Softmax<axis = 1>(result)
        label = ArgMax<axis = 1, keepdims = 0>(result)
    }"""

# %% [markdown]
# [`merge_models`](https://onnx.ai/onnx/api/compose.html) joins an output of one model to an input of the next. The
# exporter's notes name folders of your machine, so they go first:

# %%
for part in [*scroll.graph.node, *scroll.graph.value_info]:
    del part.metadata_props[:]
header = f'<ir_version: {scroll.ir_version}, opset_import: ["": {opset}]>'
front, end = (onnx.parser.parse_model(header + text) for text in (before, after))
page = compose.merge_models(front, scroll, io_map=[("small", "pixels")])
page = compose.merge_models(page, end, io_map=[("logits", "result")])
onnx.checker.check_model(page, full_check=True)
onnx.save(page, "work/10_page.onnx")

# %% [markdown]
# A canvas for it, twice as high and three times as wide as the first photograph, and not transparent. Does the file answer as
# before?

# %%
canvas = np.kron(photos[0], np.ones((2, 3), np.uint8))
rgba = np.stack([canvas] * 3 + [np.full_like(canvas, 255)], axis=-1)
label, probability = ort.InferenceSession(page.SerializeToString()).run(
    ["label", "probability"], {"rgba": rgba}
)
assert label[0] == expected[0].argmax()
rgba.shape, cu.CLASS_NAMES[label[0]], float(probability.max())

# %% tags=["remove-input"]
cu.quiz("10_server_and_page", 1)

# %% [markdown]
# `cu.quest_page` writes a page around such a file, opens it in a real browser, cuts the network off, and lets it look at
# canvases of several sizes. The page is about a hundred lines, in `work/quest_page/index.html`.

# %%
seen = cu.quest_page("work/10_page.onnx", photos[:12], cu.CLASS_NAMES)
seen

# %%
if seen:
    assert seen["same labels"] == seen["pictures"]
    assert seen["largest difference"] < 1e-4
    assert not seen["requests while predicting"]
    assert not seen["requests to other hosts"]
seen and cu.show_page("work/quest_page", "The scroll on a page", height=760)

# %% [markdown]
# In the browser the labels are those of ONNX Runtime in Python, and the page asks the network for nothing. It also takes a
# picture of your own, and keeps it to itself.

# %% [markdown]
# ## Recap
#
# - Serve the file as it is, and try what the server must refuse.
# - Put into the graph what each caller would have to do by hand, unless callers need to change it.
# - Write small steps as ONNX text. Join them with the same opset, and with a prefix for the names.
# - Test a page with the network cut off, on canvases of several sizes.
#
# **Now you:** [your quest](../exercises/10_capstone.ipynb), tasks 10.5 and 10.6. At its end, `cu.report_card()` checks all
# your answers of the course anew, and writes one page for you to keep.
