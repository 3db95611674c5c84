# %% [markdown]
# # 10 · Ready to ship, and small
#
# You have a file that gives the right numbers. It still holds notes about your machine, it does not say what it is, and it
# is larger than the archive pays for. Now it gets ready to leave.
#
# You need lessons [06](../06_fusion.ipynb) and [07](../07_quantization.ipynb), and the
# [core of lesson 10](../10_capstone.ipynb).
#
# After this page you will be able to
#
# - clean and describe a file that leaves your machine,
# - choose a quantized file under a budget of bytes and of accuracy,
# - find out which part of a model a quantizer should leave alone.

# %%
import json

import course_utils as cu
import numpy as np
import onnx
import onnxruntime as ort
import pandas as pd

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
scroll, example = Scroll().eval(), (torch.zeros(2, 28, 28, dtype=torch.uint8),)
how = {"input_names": ["pixels"], "output_names": ["logits"], "verbose": False}
how |= {"dynamic_shapes": ({0: torch.export.Dim("batch")},), "external_data": False}
_ = torch.onnx.export(scroll, example, "work/10_scroll.onnx", **how)

# %% [markdown]
# And the photographs, with the answers of PyTorch, 200 at a time:

# %%
photos, labels, on_white = cu.archive_photographs("test", 2000, seed=1)
parts = torch.from_numpy(photos).split(200)
with torch.no_grad():
    scores = torch.cat([scroll(part) for part in parts]).numpy()

# %% [markdown]
# ## A clean file that explains itself
#
# ONNX Runtime can do some work now, for every machine, and save the result: the level
# [*basic*](https://onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html)
# ([optimisation level](../glossary.md#optimisation-level)).

# %%
options = ort.SessionOptions()
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
options.optimized_model_filepath = "work/10_basic.onnx"
_ = ort.InferenceSession("work/10_scroll.onnx", options)
# %% [markdown]
# Which operator sets does the saved file import, although none of its nodes is from there?

# %%
model = onnx.load("work/10_basic.onnx")
assert not any(node.domain for node in model.graph.node)
others = [entry for entry in model.opset_import if entry.domain]
[entry.domain for entry in others]

# %% [markdown]
# The nodes are all from the standard, whose [domain](../glossary.md#domain) is the empty name. But ONNX Runtime writes down all
# sets that it knows, also its own, and another runtime may refuse those ([Files saved optimised](06_files_saved_optimised.ipynb)). We
# remove them, and the exporter's notes:

# %%
for entry in others:
    model.opset_import.remove(entry)
for part in [*model.graph.node, *model.graph.value_info]:
    del part.metadata_props[:]

# %% [markdown]
# A model outlives the people who know it. So the file says what it is ([metadata](../glossary.md#metadata)): its version,
# and what the ten scores mean. Whoever loads it can ask for that:

# %%
facts = {"version": "1.0.0", "classes": json.dumps(cu.CLASS_NAMES)}
onnx.helper.set_model_props(model, facts)
onnx.checker.check_model(model, full_check=True)
onnx.save(model, "work/10_shipped.onnx")
ort.InferenceSession("work/10_shipped.onnx").get_modelmeta().custom_metadata_map

# %% [markdown]
# Each of these steps could have changed a result. Is the new file still right, and how many bytes has each file?

# %%
from pathlib import Path

shipped, feed = "work/10_shipped.onnx", {"pixels": photos}
assert np.allclose(cu.run_in_batches(shipped, feed)["logits"], scores, atol=1e-4)
[Path(name).stat().st_size for name in ("work/10_scroll.onnx", shipped)]

# %% [markdown]
# The numbers are the same, and the file is smaller by the size of its notes.
#
# ## Int8 within a budget
#
# The archive pays for at most 355 kB, and accepts at most one point of accuracy less. We calibrate
# ([calibration](../glossary.md#calibration)) with other photographs of the same camera, on both kinds of paper.

# %% tags=["remove-input"]
cu.quiz("10_ready_to_ship", 1)

# %%
import logging

from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

logging.getLogger().setLevel(logging.ERROR)  # the file is optimised already
examples = {"pixels": cu.archive_photographs("calibration", 300, seed=2)[0]}
reader = cu.Calibration(shipped, examples)
quantize_static(shipped, "work/10_int8 QDQ.onnx", reader, per_channel=True)

# %% [markdown]
# That was the default: QDQ, with int8 activations. Three others have uint8 activations, as processors of this kind
# want them (lesson 07). The last one quantizes the operators of the network only.

# %%
uint8 = {"activation_type": QuantType.QUInt8, "per_channel": True}
direct = uint8 | {"quant_format": QuantFormat.QOperator}
network = direct | {"op_types_to_quantize": ["Conv", "Relu", "Add", "Gemm"]}
ways = {"uint8 QDQ": uint8, "uint8 QOperator": direct, "network only": network}
for way, settings in ways.items():
    reader = cu.Calibration(shipped, examples)
    quantize_static(shipped, f"work/10_{way}.onnx", reader, **settings)

# %% [markdown]
# For each file we ask for its bytes, the photographs it gets right, and how many of its 15 convolutions run as integers.

# %%
files = {way: f"work/10_{way}.onnx" for way in ("int8 QDQ", *ways)}
answers = {}
for way, name in files.items():
    answers[way] = cu.run_in_batches(name, feed)["logits"].argmax(1)

# %%
integers = {}
for way, name in files.items():
    operators = cu.op_histogram(cu.optimized(name))
    integers[way] = operators.get("com.microsoft::QLinearConv", 0)

# %%
results = pd.DataFrame({"int8 convolutions": integers})
results["bytes"] = [Path(name).stat().st_size for name in files.values()]
results["right in %"] = [(got == labels).mean() * 100 for got in answers.values()]
results

# %% [markdown]
# The three conditions of the archive, as code:

# %%
small = results["bytes"] <= 355_000
good = results["right in %"] >= (scores.argmax(1) == labels).mean() * 100 - 1
fits = results.index[small & good & (results["int8 convolutions"] == 15)]
assert list(fits) == ["uint8 QOperator", "network only"]
list(fits)

# %% [markdown]
# Two files fit. What stands in them before the first convolution?

# %%
before = {}
for way in fits:
    operators = [node.op_type for node in onnx.load(files[way]).graph.node]
    before[way] = " ".join(operators[: operators.index("QLinearConv")])
assert ["QLinear" in operators for operators in before.values()] == [True, False]
before

# %% [markdown]
# `QLinearMul`: the first file repairs the light in int8, so the decision about the paper looks at rounded numbers. Here that
# did no harm, because white paper is far from black. For a greyer paper nothing promises it. We take the other file. Does it
# give the same answers as PyTorch, on each kind of paper?

# %%
agree = answers["network only"] == scores.argmax(1)
same = {"black": agree[~on_white].mean(), "white": agree[on_white].mean()}
assert min(same.values()) > 0.97
{paper: f"{share:.1%}" for paper, share in same.items()}

# %% [markdown]
# Nearly all answers are as before. How much faster int8 is, lesson [07](../07_quantization.ipynb) measures.

# %% [markdown]
# ## Recap
#
# - Ship a file that explains itself: standard operators, no notes, its version and its classes inside.
# - Compare the numbers again after the last change to a file.
# - Check a budget in one table: bytes, accuracy, and what really runs as integers.
# - Quantize the network only, unless you have measured that its preparation keeps every decision in int8.
#
# **Now you:** [your quest](../exercises/10_capstone.ipynb), tasks 10.3 and 10.4.
# **Next:** [On a server and on a page](10_server_and_page.ipynb).
