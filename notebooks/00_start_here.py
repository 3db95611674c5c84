# %% [markdown]
# # 00 · Start here
#
# A model that was trained in PyTorch lives in Python. A phone, a browser, a C++ server or a small board does not.
# [**ONNX**](https://onnx.ai/) (Open Neural Network Exchange) is the common format between them: a file that holds the
# network as a graph, with its weights.
# [**ONNX Runtime**](https://onnxruntime.ai/) is a program that runs such files, on almost anything.
#
# After this lesson you will be able to
#
# - export a trained PyTorch model and run the file without PyTorch,
# - say what your machine offers to ONNX Runtime,
# - use the tools of this course: the viewer, the checks, the claims.

# %% [markdown]
# ## Set up
#
# After a cell that installs the course on Colab, every notebook begins with these two lines. The second one prepares a
# folder `work/` beside the notebook, fixes the random seeds, and prints what it runs on.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## A model worth exporting
#
# `fashion_resnet` is a small residual network. It looks at a grey picture of 28×28 pixels and names one of ten kinds
# of clothes. It was trained for this course, and you will meet it in every lesson.

# %%
model = cu.fashion_resnet()
sum(p.numel() for p in model.parameters())

# %% [markdown]
# Some of the 10 000 test pictures, and what the model says about them:

# %%
import matplotlib.pyplot as plt
import torch

images, labels = cu.fashion_mnist("test")
with torch.no_grad():
    guesses = model(torch.from_numpy(cu.normalize(images[:8]))).argmax(1)

_, axes = plt.subplots(1, 8, figsize=(9, 1.8))
for image, guess, label, ax in zip(images, guesses, labels, axes):
    ax.imshow(image, cmap="gray_r")
    ax.set_title(
        cu.CLASS_NAMES[guess],
        fontsize=9,
        color="green" if guess == label else "red",
        loc="center",
    )
    ax.axis("off")
plt.show()

# %% [markdown]
# ## The first export
#
# [`torch.onnx.export`](https://docs.pytorch.org/docs/stable/onnx_export.html) wants the model and an example of its
# input. It writes a file. We name the input and the output, so that we can speak of them later, and say that the first
# dimension, the batch, may have any size.

# %%
example = torch.randn(2, 1, 28, 28)
program = torch.onnx.export(
    model,
    (example,),
    "work/00_fashion_resnet.onnx",
    input_names=["image"],
    output_names=["logits"],
    dynamic_shapes=({0: torch.export.Dim("batch")},),
    external_data=False,
)

# %% [markdown]
# > **Note** `external_data=False` keeps the weights inside the file. Without it the exporter writes two files that must
# > stay together. Lesson 01 says when you want that.
#
# The file is now all there is. It knows nothing of Python classes:

# %%
from pathlib import Path

file = Path("work/00_fashion_resnet.onnx")
f"{file.stat().st_size / 1e6:.2f} MB"

# %% [markdown]
# ## The first run
#
# Before you run the next cell, make a guess.

# %% tags=["remove-input"]
cu.quiz("00_start_here", 1)

# %% [markdown]
# A [**session**](https://onnxruntime.ai/docs/api/python/api_summary.html) loads the file and prepares it; `providers`
# says what it runs on, here the CPU. `run` takes a dict of input names and NumPy arrays, and returns a list of NumPy
# arrays.

# %%
import onnxruntime as ort

session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
(logits,) = session.run(None, {"image": cu.normalize(images[:8])})
[cu.CLASS_NAMES[i] for i in logits.argmax(1)]

# %% [markdown]
# The same words as above. But are they the same *numbers*? Never take that for granted: after every export, compare.
# `cu.parity` runs both models and checks that no number differs by more than `atol + rtol · |number|`.

# %%
gate = cu.parity(model, file, torch.from_numpy(cu.normalize(images[:64])))
gate

# %%
assert gate.within

# %% [markdown]
# The difference is not zero. Two programs that add the same numbers in another order round differently. Lesson 01 looks
# at that closely. What counts in the end is the accuracy, on all 10 000 images:

# %%
import numpy as np

batches = np.split(images, 20)  # all at once would need much more memory
predictions = np.concatenate(
    [session.run(None, {"image": cu.normalize(b)})[0].argmax(1) for b in batches]
)
accuracy = (predictions == labels).mean()
assert accuracy >= 0.93
f"{accuracy:.2%} of {len(labels):,} test images"

# %% [markdown]
# ## Without PyTorch
#
# This course is built on a report, an introduction to ONNX for engineers. It makes about fifty statements; the page
# *The claims* of the book lists them in our words. We do not repeat them, we **test** them. Here is the first: *an
# exported model runs where PyTorch is not installed.*
#
# To test it, we start a second Python in which `import torch` is forbidden, and let it run the file.

# %% tags=["remove-input"]
cu.quiz("00_start_here", 2)

# %%
import json
import subprocess
import sys

script = """
import json, sys
sys.modules["torch"] = None          # from here on, `import torch` raises ImportError
import numpy as np, onnxruntime as ort
session = ort.InferenceSession("work/00_fashion_resnet.onnx", providers=["CPUExecutionProvider"])
logits = session.run(None, {"image": np.load("work/00_images.npy")})[0]
try:
    import torch
    imported = True
except ImportError:
    imported = False
print(json.dumps({"torch imported": imported, "guesses": logits.argmax(1).tolist()}))
"""

# %%
np.save("work/00_images.npy", cu.normalize(images[:8]))
done = subprocess.run(
    [sys.executable, "-c", script], capture_output=True, text=True, check=True
)
report = json.loads(done.stdout)
report

# %% [markdown]
# A **claim** cell puts the evidence next to the statement. It fails when the evidence is false, so a claim you see on
# a page was true when the page was made. All of them together are the *claims ledger*.

# %%
cu.claim(
    "runs-without-pytorch",
    {
        "PyTorch could not be imported in the second process": not report[
            "torch imported"
        ],
        "its eight guesses are those of the PyTorch model": report["guesses"]
        == guesses.tolist(),
    },
)

# %% [markdown]
# ## Look inside
#
# `cu.show` opens a model in [**Netron**](https://github.com/lutzroeder/netron). Click on a node to see its attributes
# and weights. Follow the arrows from `image` at the top to `logits` at the bottom.

# %%
cu.show(file)

# %% [markdown]
# The same in numbers: which operators the graph is made of, and how many of each.

# %%
histogram = cu.op_histogram(file)
assert histogram["Conv"] == sum(
    isinstance(m, torch.nn.Conv2d) for m in model.modules()
)
histogram.to_frame()

# %% [markdown]
# Every convolution of the model is there. The BatchNorm layers are not: the exporter has folded them into the
# convolutions. Lesson 06 does that by hand.

# %% [markdown]
# ## Your machine
#
# What ONNX Runtime can do depends on the processor and on the *execution providers* in the installed package.

# %%
cu.machine()

# %% [markdown]
# Look at two rows. **Vector extensions**: 8-bit integers are fast with AVX-VNNI (laptops), AVX512-VNNI or AMX-INT8
# (servers), and on Arm with dot product or i8mm (lesson 07).
# **[Execution providers](https://onnxruntime.ai/docs/execution-providers/)**: `CPUExecutionProvider` is always there.
# Others come with other packages, for a GPU for example (lesson 05).

# %% [markdown]
# ## An honest stopwatch
#
# Is the file faster than the PyTorch model? `cu.compare` lets the candidates take turns, many times, and looks at the
# median. A single measurement says nothing: other programs run on your machine, too.

# %% tags=["remove-input"]
cu.quiz("00_start_here", 3)

# %%
options = ort.SessionOptions()
options.intra_op_num_threads = (
    1  # one thread for each: the most reliable comparison
)
session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])

one = cu.normalize(images[:1])
one_tensor = torch.from_numpy(one)


# %%
def in_torch():
    with torch.inference_mode():
        return model(one_tensor)


result = cu.compare(
    {
        "PyTorch": in_torch,
        "ONNX Runtime": lambda: session.run(None, {"image": one}),
    },
    threads=1,
)
result

# %%
result.plot()
plt.show()
# %% [markdown]
# Your numbers will differ from those on the page. That is why no lesson asserts a time: it asserts what is true on
# every machine, and shows the rest.

# %% [markdown]
# ## Play
#
# ONNX Runtime looks at 24 pictures: the first twelve, and the first twelve that the model gets wrong. Move the slider.
# Would you have known better?

# %%
wrong = np.flatnonzero(predictions != labels)
rows = [*range(12), *wrong[:12]]
scores = session.run(None, {"image": cu.normalize(images[rows])})[0]
shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)

# %%
import base64
import io


def drawing(row, share):
    """A picture and the model's opinion of it, as HTML."""
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(6.4, 2.6), width_ratios=[1, 2]
    )
    left.imshow(images[row], cmap="gray_r")
    left.axis("off")
    right.barh(cu.CLASS_NAMES, share * 100)
    right.set_xlabel("share, %")
    title = (
        f"{cu.CLASS_NAMES[share.argmax()]} (it is: {cu.CLASS_NAMES[labels[row]]})"
    )
    right.set_title(title)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=80)
    plt.close(figure)
    return f'<img alt="{title}" src="data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}">'


# %% [markdown]
# The pictures are drawn beforehand, and the slider is linked to them in the browser. So it also works on a page
# without a kernel.

# %%
from ipywidgets import HTML, IntSlider, Stack, VBox, jslink

stack = Stack(
    [HTML(drawing(row, share)) for row, share in zip(rows, shares)],
    selected_index=0,
)
slider = IntSlider(0, 0, len(rows) - 1, description="picture")
jslink((slider, "value"), (stack, "selected_index"))
VBox([slider, stack])

# %% [markdown]
# ## How this course works
#
# | you see | it means |
# |---|---|
# | a question with buttons | guess first, then run the next cell |
# | `cu.claim(…)` | a statement of the report, with its evidence and verdict |
# | `assert` | something that is true on every machine; if it fails, tell us |
# | `cu.check("1.1", …)` | in an exercise: looks at the file you made, and gives a hint |
# | `cu.submit()` | packs your answers for your instructor |
# | `cu.report_card()` | checks all your answers anew, and writes one page for you to keep |
#
# Everything you make goes into `work/`. You can delete that folder at any time, but for your exercises' answers.
#
# Each lesson has a core that is one sitting. What lies deeper stands in pages of its own, for the day when you need it.
# The core lessons take about {{ core_hours }} together, the deeper pages {{ deeper_hours }}.
#
# {{ course_map }}

# %% [markdown]
# ## Recap
#
# - `torch.onnx.export` turns a model and an example input into a file.
# - `ort.InferenceSession` loads the file once; `run` uses it many times.
# - The file runs without PyTorch.
# - After every export: compare the numbers, then the accuracy.
# - Times are shown, never asserted.
#
# **Next:** [01 · Graph structure](01_graph_structure.ipynb) opens the file and looks at every part of it.
