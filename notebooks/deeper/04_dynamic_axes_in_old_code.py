# %% [markdown]
# # 04 · Old code: dynamic_axes
#
# Tutorials, older projects and the report use the argument `dynamic_axes` of
# [`torch.onnx.export`](https://docs.pytorch.org/docs/stable/onnx_export.html). You have such code, and want to know whether
# it still works, and what to write in its place.
#
# You need the [core of lesson 04](../04_dynamic_axes.ipynb).
#
# After this page you will be able to
#
# - run code with `dynamic_axes`, and read its messages,
# - rewrite it with `dynamic_shapes`,
# - say what each exporter does with a misspelled name.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## The report's listing
#
# `model` is a ResNet-18, and the dict is the report's.

# %%
import contextlib
import io
import warnings

import torch

model = cu.resnet18()
dummy_input = torch.randn(1, 3, 224, 224)
dynamic_axes_config = {
    "input_image": {0: "batch_size"},
    "classification_scores": {0: "batch_size"},
}

# %% [markdown]
# The call is as printed there; only the file lies in our folder. The exporter prints its steps, which we hide, and
# gives warnings, which we record.

# %%
with warnings.catch_warnings(record=True) as heard:
    warnings.simplefilter("always")
    with contextlib.redirect_stdout(io.StringIO()):
        torch.onnx.export(
            model,
            dummy_input,
            "work/04_resnet_dynamic.onnx",
            input_names=["input_image"],
            output_names=["classification_scores"],
            dynamic_axes=dynamic_axes_config,
        )

# %% [markdown]
# What did it say about the argument?

# %%
said = [(w.category.__name__, str(w.message)) for w in heard]
said = [row for row in said if "dynamic_axes" in row[1]]
for kind, message in said:
    print(f"{kind}: {message}\n")

# %% [markdown]
# Two messages. Python hides a `DeprecationWarning` from inside a library, so without our recording you would see only
# the first. And the file:

# %%
from pathlib import Path

files = sorted(Path("work").glob("04_resnet_dynamic.onnx*"))
written = cu.written_shapes(files[0])
print(written, *(file.name for file in files), sep="\n")

# %% [markdown]
# The batch is free. There are two files, which [belong together](01_large_files.ipynb): the second one holds the
# weights. Does it compute the same as PyTorch, for one image and for three?

# %%
gates = [cu.parity(model, files[0], torch.randn(n, 3, 224, 224)) for n in (1, 3)]
print(*gates, sep="\n")

# %% [markdown]
# It does. So such code still works, and a later version of PyTorch may take the argument away.

# %% tags=["hide-input"]
cu.claim(
    "report-dynamic-listing",
    {
        "one image and three give PyTorch's numbers": all(g.within for g in gates),
        "the labels stand at their axes": written
        == {
            "input_image": "['batch_size', 3, 224, 224]",
            "classification_scores": "['batch_size', 1000]",
        },
        "one message recommends dynamic_shapes": said[0][0] == "UserWarning"
        and "dynamic_shapes" in said[0][1],
        "the other says that dynamic_axes will go, and is of a kind that "
        "Python hides": said[1][0] == "DeprecationWarning",
        "the weights lie in a second file": [f.suffix for f in files]
        == [".onnx", ".data"],
    },
)

# %% [markdown]
# ## The same wish, written in three ways
#
# From here on we take a smaller network, and free three axes.

# %%
pair, free = torch.randn(2, 1, 28, 28), {0: "batch", 2: "height", 3: "width"}
layers = torch.nn.Conv2d(1, 4, 3), torch.nn.AdaptiveAvgPool2d(1)
small = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(4, 10))

# %% [markdown]
# `dynamic_axes` goes by the names in the file, and wants inputs and outputs:

# %%
small.eval()
names = {"input_names": ["image"], "output_names": ["logits"], "verbose": False}
axes, file = {"image": free, "logits": {0: "batch"}}, "work/04_by_axes.onnx"
with cu.exporter_messages():
    torch.onnx.export(small, (pair,), file, **names, dynamic_axes=axes)
by_axes = cu.written_shapes(file)
by_axes

# %% [markdown]
# `dynamic_shapes` goes by the arguments of `forward`. In `torch.nn.Sequential` the argument is called `input`. Outputs
# are not named: the exporter works their shapes out.

# %%
axes, file = {"input": free}, "work/04_by_shapes.onnx"
with cu.exporter_messages():
    torch.onnx.export(small, (pair,), file, **names, dynamic_shapes=axes)
print(by_shapes := cu.written_shapes(file))

# %% [markdown]
# The same shapes. By position, `dynamic_shapes=(free,)`, it would be the same again.
#
# ## A misspelled name
#
# Somebody writes `picture`, and the input is called `image`. We collect what comes of it: the shapes in the file, or
# the kind of the error.


# %%
def outcome(**wish):
    """The shapes in the file, or the kind of the error."""
    with cu.exporter_messages():
        try:
            torch.onnx.export(small, (pair,), "work/04_try.onnx", **names, **wish)
        except Exception as error:
            return {"error": type(error).__name__}
    return cu.written_shapes("work/04_try.onnx")


outcome(dynamic_axes={"picture": free})

# %% [markdown]
# The default exporter raises an error. The table shows the other cases: the older exporter (`dynamo=False`) with the
# right name and with the wrong one, and `dynamic_shapes` with the wrong one.

# %%
import pandas as pd

right, wrong = {"image": free, "logits": {0: "batch"}}, {"picture": free}
tried = {
    "older, right name": outcome(dynamo=False, dynamic_axes=right),
    "older, misspelled": outcome(dynamo=False, dynamic_axes=wrong),
    "default, misspelled": outcome(dynamic_axes=wrong),
    "dynamic_shapes, misspelled": outcome(dynamic_shapes=wrong),
}
pd.DataFrame(tried).T.fillna("")

# %% [markdown]
# The older exporter writes a frozen file, and raises no error. With old code, look at the file after each export.

# %% tags=["hide-input"]
cu.claim(
    "dynamic-axes-dict",
    {
        "a label stands at each axis that was given": by_axes
        == {"image": "['batch', 1, 'height', 'width']", "logits": "['batch', 10]"},
        "dynamic_axes writes the same, with both exporters": by_axes
        == tried["older, right name"],
        "dynamic_shapes follows the arguments of forward, "
        "and needs no output": by_shapes == by_axes,
        "older exporter: a misspelled name gives a frozen file": tried[
            "older, misspelled"
        ]
        == {"image": "[2, 1, 28, 28]", "logits": "[2, 10]"},
        "default exporter: it is an error, with either argument": "error"
        in tried["default, misspelled"]
        and "error" in tried["dynamic_shapes, misspelled"],
    },
)

# %% [markdown]
# ## Recap
#
# - Code with `dynamic_axes` still works, with two warnings, and its file takes any batch.
# - Use `dynamic_shapes` in new code: it follows the arguments of `forward`, and needs inputs only.
# - Use `dynamic_axes` only with the older exporter, and read the shapes in the file: a misspelled name freezes it.
#
# **Back:** [04 · Dynamic axes](../04_dynamic_axes.ipynb). **Next:** [Static again](04_static_again.ipynb).
