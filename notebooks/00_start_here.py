# %% [markdown]
# # 00 · Start here
#
# You have trained a model in PyTorch. Now it must run on a phone, in a browser, or on a server without Python.
# [**ONNX**](https://onnx.ai/) (Open Neural Network Exchange) is a file format for this: the file holds the network as
# a graph, with its weights. [**ONNX Runtime**](https://onnxruntime.ai/) is a program that runs such files.
#
# You need to know Python, and have seen PyTorch. You need to know nothing about ONNX.
#
# After this lesson you will be able to
#
# - export a trained PyTorch model and run the file without PyTorch,
# - compare the file with the model: its numbers, its accuracy, its speed,
# - say what your machine offers to ONNX Runtime,
# - use the tools of this course: the viewer, the checks, the claims.

# %% [markdown]
# ## Set up
#
# After a cell that installs the course on Colab, every notebook begins with these two lines. The second one makes a
# folder `work/` beside the notebook, fixes the random seeds, and prints the versions.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# The drawing shows the way of a model, and which lesson is about which part of it. This lesson goes the whole way
# once, quickly.

# %% tags=["remove-input"]
cu.picture("way_of_a_model")

# %% [markdown]
# ## A model worth exporting
#
# `fashion_resnet` is a small residual network, trained for this course. It looks at a grey picture of 28×28 pixels
# and names one of ten kinds of clothes. You will meet it in every lesson.

# %%
model = cu.fashion_resnet()
images, labels = cu.fashion_mnist("test")
pictures = cu.normalize(images[:8])

# %% [markdown]
# `images` holds 10 000 test pictures; `pictures` holds the first eight, as the network wants them: float32, of shape
# `[8, 1, 28, 28]`.

# %%
import torch

guesses = model(torch.from_numpy(pictures)).argmax(1)

# %% [markdown]
# Here they are, and what the model says about them:

# %%
import matplotlib.pyplot as plt

_, axes = plt.subplots(1, 8, figsize=(9, 1.6))
for image, guess, ax in zip(images, guesses, axes):
    ax.imshow(image, cmap="gray_r")
    ax.set_title(cu.CLASS_NAMES[guess], fontsize=9, loc="center")
    ax.axis("off")
plt.show()

# %% [markdown]
# ## The first export
#
# [`torch.onnx.export`](https://docs.pytorch.org/docs/stable/onnx_export.html) takes the model and an example of its
# input, and writes a file. We give names to the input and the output. We also say that the first dimension, the
# batch, may have any size.

# %%
program = torch.onnx.export(
    model,
    (torch.randn(2, 1, 28, 28),),
    "work/00_fashion_resnet.onnx",
    input_names=["image"],
    output_names=["logits"],
    dynamic_shapes=({0: torch.export.Dim("batch")},),
    external_data=False,
    verbose=False,
)

# %% [markdown]
# > **Note** `external_data=False` keeps the weights inside the file. Without it the exporter writes two files that must
# > stay together. [Large files](deeper/01_large_files.ipynb) says when you want that.
#
# From here on we use only the file. It needs no Python class of the model.

# %%
from pathlib import Path

file = Path("work/00_fashion_resnet.onnx")
f"{file.stat().st_size / 1e6:.2f} MB"

# %% [markdown]
# ## The first run
#
# A [**session**](https://onnxruntime.ai/docs/api/python/api_summary.html) loads the file and prepares it; `providers`
# says what it runs on, here the CPU. `run` takes a dict of input names and NumPy arrays, and returns a list of NumPy
# arrays: here the [logits](glossary.md#logits), one number per class.

# %%
import onnxruntime as ort

session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
(logits,) = session.run(None, {"image": pictures})
[cu.CLASS_NAMES[i] for i in logits.argmax(1)]

# %% [markdown]
# These are the same words as above. Are they the same *numbers*? Compare after every export. `cu.parity` runs both
# models and checks that no number differs by more than `atol + rtol · |number|`. Make a guess before you run it.

# %% tags=["remove-input"]
cu.quiz("00_start_here", 1)

# %%
gate = cu.parity(model, file, torch.from_numpy(cu.normalize(images[:64])))
assert gate.within
gate

# %% [markdown]
# The difference is not zero: two programs that add the same numbers in another order round differently
# ([Step by step](deeper/01_step_by_step.ipynb) measures it). What counts in the end is the accuracy, on all 10 000
# pictures. We give them in 20 batches, because all at once would need much more memory.

# %%
import numpy as np

batches = [cu.normalize(part) for part in np.split(images, 20)]
found = [session.run(None, {"image": batch})[0].argmax(1) for batch in batches]
predictions = np.concatenate(found)
accuracy = (predictions == labels).mean()
assert accuracy >= 0.93
f"{accuracy:.2%} of {len(labels):,} test pictures"

# %% [markdown]
# The model is good, but not perfect. Here are the first eight pictures that it gets wrong:

# %%
wrong = np.flatnonzero(predictions != labels)[:8]
_, axes = plt.subplots(1, 8, figsize=(9, 1.8))
for i, ax in zip(wrong, axes):
    ax.imshow(images[i], cmap="gray_r")
    said, is_ = cu.CLASS_NAMES[predictions[i]], cu.CLASS_NAMES[labels[i]]
    ax.set_title(f"{said}?\n{is_}", fontsize=9, loc="center")
    ax.axis("off")
plt.show()

# %% [markdown]
# Above each picture stands what the model says, and below that what it is. The file makes the mistakes of the PyTorch
# model: it computes the same function.
#
# ## Without PyTorch
#
# This course is built on a report, an introduction to ONNX for engineers. The report makes about fifty statements. The
# page *The claims* of the book lists them in our words. We **test** them. Here is the first one: *an exported model
# runs where PyTorch is not installed.*
#
# We start a second Python in which `import torch` is forbidden, and let it run the file.

# %%
script = """
import json, sys
sys.modules["torch"] = None  # from here on, `import torch` raises ImportError
import numpy as np, onnxruntime as ort
session = ort.InferenceSession("work/00_fashion_resnet.onnx")
(logits,) = session.run(None, {"image": np.load("work/00_pictures.npy")})
try:
    import torch
except ImportError as error:
    print(json.dumps({"error": str(error), "guesses": logits.argmax(1).tolist()}))
"""

# %% [markdown]
# The script prints only when PyTorch could not be imported.

# %% tags=["remove-input"]
cu.quiz("00_start_here", 2)

# %%
import json
import subprocess
import sys

np.save("work/00_pictures.npy", pictures)
command = [sys.executable, "-c", script]
done = subprocess.run(command, capture_output=True, text=True, check=True)
report = json.loads(done.stdout)
report

# %% [markdown]
# The second process names the same classes. A **claim** cell puts such evidence next to the statement. It fails when
# the evidence is false, so a claim you see on a page was true when the page was made. All of them together are the
# *claims ledger*.

# %% tags=["hide-input"]
cu.claim(
    "runs-without-pytorch",
    {
        "PyTorch could not be imported in the second process": "torch"
        in report["error"],
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
# `cu.op_histogram` counts the operators of the graph.

# %%
histogram = cu.op_histogram(file)
convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
assert histogram["Conv"] == len(convolutions)
histogram.to_frame()

# %% [markdown]
# Every convolution of the model is there. The BatchNorm layers are not: the exporter has multiplied them into the
# convolutions. [Lesson 06](06_fusion.ipynb) does that by hand.
#
# ## Your machine
#
# What ONNX Runtime can do depends on the processor and on the
# [execution providers](glossary.md#execution-provider) in the installed package.

# %%
cu.machine()

# %% [markdown]
# Look at two rows. **Vector extensions**: 8-bit integers are fast with AVX-VNNI (laptops), AVX512-VNNI or AMX-INT8
# (servers), and on Arm with dot product or i8mm (lesson 07).
# **[Execution providers](https://onnxruntime.ai/docs/execution-providers/)**: `CPUExecutionProvider` is always there.
# Others come with other packages, for a GPU for example (lesson 05).
#
# ## An honest stopwatch
#
# Is the file faster than the PyTorch model? A single measurement says nothing, because other programs run on your
# machine, too. `cu.compare` lets both take turns, many times, and looks at the median. One thread for each gives the
# most reliable comparison.

# %%
options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
one = pictures[:1]


@torch.inference_mode()
def in_torch():
    return model(torch.from_numpy(one))


# %% [markdown]
# `cu.compare` takes functions without arguments, each under a name.

# %% tags=["remove-input"]
cu.quiz("00_start_here", 3)


# %%
def in_ort():
    return session.run(None, {"image": one})


ways = {"PyTorch": in_torch, "ONNX Runtime": in_ort}
result = cu.compare(ways, threads=1)
result.plot()
plt.show()

# %% [markdown]
# Your numbers will differ from those on the page. That is why no lesson asserts a time: it asserts what is true on
# every machine, and shows the rest.
#
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
# Words of the field are linked to the [glossary](glossary.md). Everything you make goes into `work/`. You can delete
# that folder at any time, but for your exercises' answers.
#
# Each lesson has a core that is one sitting. What lies deeper stands in pages of its own, for the day when you need it.
# The core lessons take about {{ core_hours }} together, the deeper pages {{ deeper_hours }}.
#
# {{ course_map }}

# %% [markdown]
# ## Recap
#
# - `torch.onnx.export` turns a model and an example input into a file.
# - `ort.InferenceSession` loads the file once; `run` uses it many times. The file runs without PyTorch.
# - After every export: compare the numbers, then the accuracy.
# - Use ONNX when the model must run without Python, or when a measurement says that it is faster. Stay with PyTorch
#   where it is installed anyway and fast enough.
# - Times are shown, never asserted.
#
# **Next:** [01 · Graph structure](01_graph_structure.ipynb) opens the file and looks at every part of it.
