# %% [markdown]
# # 03 · An older listing, line by line
#
# You copy an export from a report or a tutorial. It was written for the older exporter, and it still runs. The files
# that it writes today are not those of the text: there are two of them, and the opset is another one.
#
# You need the [core of lesson 03](../03_tracing_vs_scripting.ipynb).
#
# After this page you will be able to
#
# - run an older listing and say what it wrote,
# - write one file in place of two,
# - replace the arguments that have changed,
# - recognise the arguments that have no effect any more.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## The report's listing
#
# The report exports a ResNet-18 with `pretrained=True`. Where there is no network the weights are random; nothing else
# changes.

# %%
import contextlib
import io

import torchvision
from course_utils.lab.data import impatient_network

screen = io.StringIO()  # the download's progress
quiet = contextlib.redirect_stderr(screen), contextlib.redirect_stdout(screen)
with cu.exporter_messages() as said, impatient_network(), quiet[0], quiet[1]:
    try:
        model = torchvision.models.resnet18(pretrained=True)
    except (OSError, RuntimeError):  # no network, or a download that breaks
        model = torchvision.models.resnet18(pretrained=False)
said[0]

# %% [markdown]
# `pretrained` is an old word for `weights`. Now the export, as it is printed in the report. The exporter prints its
# steps; we hide them.

# %%
import torch

model.eval()
dummy_input = torch.randn(1, 3, 224, 224, device="cpu")
file, names = "work/03_listing_resnet18.onnx", {"input_names": ["input_image"]}
names["output_names"] = ["classification_scores"]
with cu.exporter_messages() as said_later, contextlib.redirect_stdout(screen):
    program = torch.onnx.export(
        model, dummy_input, file, verbose=True, opset_version=14, **names
    )

# %% [markdown]
# What was written?

# %%
from pathlib import Path

import onnx

resnet = onnx.load(file, load_external_data=False)
files = {
    path.name: path.stat().st_size
    for path in Path("work").glob("03_listing_resnet18.*")
}
resnet.opset_import[0].version, files

# %% [markdown]
# The [opset](../glossary.md#opset) is not the one that was asked for, and there are **two** files. The second holds the
# weights, as [external data](../glossary.md#external-data): whoever copies only the first has a model without weights.
# Did the exporter say anything of the opset?

# %%
[message[:110] for message in said_later]

# %% [markdown]
# It did, in a warning. `external_data=False` writes one file:

# %%
single = "work/03_listing_single.onnx"
program.save(single, external_data=False)
Path(single).stat().st_size, cu.parity(model, file, dummy_input)

# %% [markdown]
# The numbers are PyTorch's, in both.

# %% tags=["hide-input"]
cu.claim(
    "report-export-snippet",
    {
        "pretrained=True is deprecated": any(
            "pretrained" in m and "deprecated" in m for m in said
        ),
        "the file gives PyTorch's numbers": cu.parity(
            model, file, dummy_input
        ).within,
        "it has the names that were given": [
            v.name for v in (*resnet.graph.input, *resnet.graph.output)
        ]
        == ["input_image", "classification_scores"],
        "it is not in the opset that was asked for": resnet.opset_import[0].version
        != 14,
        "the weights lie in a second file": files["03_listing_resnet18.onnx.data"]
        > 100 * files["03_listing_resnet18.onnx"],
        "external_data=False writes one file": Path(single).stat().st_size > 4e7,
    },
)

# %% [markdown]
# ## Arguments that have changed
#
# Older listings free a size with `dynamic_axes`. The default exporter still takes it:

# %%
net, x, small = (
    torch.nn.Linear(3, 2).eval(),
    torch.randn(4, 3),
    "work/03_listing.onnx",
)
axes = {"dynamic_axes": {"x": {0: "batch"}}, "input_names": ["x"], "verbose": False}
with cu.exporter_messages() as heard:
    torch.onnx.export(net, (x,), small, **axes)
[message[:110] for message in heard]

# %% [markdown]
# It translates the request and warns. Its own argument is
# [`dynamic_shapes`](https://docs.pytorch.org/docs/stable/onnx_export.html), with one entry per input of `forward`:

# %%
shapes = {"dynamic_shapes": ({0: torch.export.Dim.DYNAMIC},), "verbose": False}
torch.onnx.export(net, (x,), small, **shapes)
cu.parity(net, small, torch.randn(7, 3))

# %% [markdown]
# Seven rows run, though the example had four. [Lesson 04](../04_dynamic_axes.ipynb) is about this argument.
#
# ## Arguments without effect
#
# Two arguments stand in many listings: `do_constant_folding`, and `training`, which switched the older exporter to
# training mode. We set both and compare the file with the one before:

# %%
before, training = Path(small).read_bytes(), torch.onnx.TrainingMode.TRAINING
old = {"do_constant_folding": False, "training": training}
torch.onnx.export(net, (x,), small, **shapes, **old)
print("the same file:", Path(small).read_bytes() == before)

# %% [markdown]
# It is the same file, byte by byte. What to write today:
#
# | in the listing | today |
# |---|---|
# | `pretrained=True` | `weights="DEFAULT"` |
# | `opset_version=14` | leave it out, unless a runtime needs an older one ([lesson 02](../02_opsets.ipynb)) |
# | `dynamic_axes=…` | `dynamic_shapes=…` |
# | `do_constant_folding=…`, `training=…` | leave them out, and call `eval()` |
# | nothing about weights | `external_data=False`, unless the model is larger than 2 GB |

# %% [markdown]
# ## Recap
#
# - An older listing runs with the default exporter, and writes other files than its text says.
# - Use `external_data=False`, unless the model is larger than 2 GB.
# - Use `dynamic_shapes` in place of `dynamic_axes`.
# - Read `opset_import` of the file: the opset asked for may not be the one written.
#
# **Next:** the [exercises](../exercises/03_tracing_vs_scripting.ipynb).
# **Deeper:** [The older exporter](03_older_exporter.ipynb).
