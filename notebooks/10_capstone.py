# %% [markdown]
# # 10 · Capstone
#
# **Quest 14.2: the ONNX Scroll.** An archive has photographs of garments, taken with an old camera, and a PyTorch model
# that says what is on them. Its author has left. The archive wants the model on a server and on a page, small, and
# right. Nobody has exported it so far, and it was not written for that.
#
# This lesson goes as far as a right file. Two pages that lie deeper make it ready to ship, and bring it to its users. In
# the [exercises](exercises/10_capstone.ipynb) you go the same way with a model of your own, and leave the six files of the
# drawing.
#
# You need lessons [01](01_graph_structure.ipynb), [02](02_opsets.ipynb), [03](03_tracing_vs_scripting.ipynb),
# [04](04_dynamic_axes.ipynb) and [09](09_troubleshooting.ipynb). For the two pages you need [06](06_fusion.ipynb),
# [07](07_quantization.ipynb) and [08](08_deployment.ipynb).
#
# After this lesson you will be able to
#
# - plan the way of a model from PyTorch to its users, and say after each step why you trust it,
# - rewrite what cannot be exported, and prove that the new code computes the same,
# - choose test inputs that show a wrong file,
# - save a state that somebody else can go on from.

# %%
import course_utils as cu

cu.setup()

# %% tags=["remove-input"]
cu.picture("quest")

# %% [markdown]
# ## The photographs
#
# The lens of the camera lets less light through at its edge: each photograph is darker in the corners. About half of the
# garments lie on white paper, so they are darker than what is behind them. The course makes such photographs from
# Fashion-MNIST.

# %%
import numpy as np
import torch

photos, labels, on_white = cu.archive_photographs("test", 2000, seed=1)

# %%
import matplotlib.pyplot as plt

_, axes = plt.subplots(1, 8, figsize=(10, 1.7))
for axis, photo, label in zip(axes, photos, labels):
    axis.imshow(photo, cmap="gray", vmin=0, vmax=255)
    axis.set_title(cu.CLASS_NAMES[label], fontsize=9)
    axis.axis("off")
plt.show()

# %% [markdown]
# ## The model
#
# The author's code has two parts. The first one repairs the light:


# %%
def repaired(light):
    x = torch.arange(28) - 13.5
    return (light * (1 + torch.hypot(x[:, None], x) ** 2 / 365)).clamp(0, 1)


# %% [markdown]
# The second one turns a photograph on white paper into its negative, and asks the network. Read it as an exporter does:
# what will be difficult?


# %%
class Scroll(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.network = cu.fashion_resnet()

    def forward(self, pixels):
        turned = []
        for photo in repaired(pixels.float() / 255):
            is_white = photo[::27, ::27].mean() > 0.5  # the four corners
            turned.append(1 - photo if is_white else photo)
        return self.network((torch.stack(turned)[:, None] - 0.286) / 0.353)


# %% [markdown]
# Before anything else, we write down what it answers today, 200 photographs at a time. Every later step is compared with
# these scores, and not with the step before.

# %%
scroll, pixels = Scroll().eval(), torch.from_numpy(photos)
with torch.no_grad():
    scores = torch.cat([scroll(part) for part in pixels.split(200)]).numpy()
assert (scores.argmax(1) == labels).mean() > 0.9
f"right for {(scores.argmax(1) == labels).mean():.2%}"

# %% [markdown]
# We save them now, with the photographs, for everybody who continues later:

# %%
from pathlib import Path

home = Path("work/10_capstone")
home.mkdir(exist_ok=True)
truth = {"photos": photos, "labels": labels, "on_white": on_white}
np.savez(home / "truth.npz", scores=scores, **truth)

# %% tags=["remove-input"]
cu.quiz("10_capstone", 1)

# %% [markdown]
# ## Export: three obstacles
#
# The groups of photographs that a right file must pass: one alone, each kind of paper, and both kinds in one batch. And the
# settings of the export, with a free batch:

# %%
black, white = (
    pixels[~torch.from_numpy(on_white)],
    pixels[torch.from_numpy(on_white)],
)
groups = {"one alone": (pixels[:1],), "both papers": (pixels[:100],)}
groups |= {"black": (black[:100],), "white": (white[:100],)}
how = {"input_names": ["pixels"], "output_names": ["logits"], "verbose": False}
how |= {"dynamic_shapes": ({0: torch.export.Dim("batch")},), "external_data": False}
some, trial = (pixels[:2],), "work/10_trial.onnx"

# %% [markdown]
# `cu.try_export` (lesson 03) exports, and compares the file with PyTorch on every group:

# %%
first = cu.try_export(torch.onnx.export, scroll, some, trial, groups, **how)
assert "data-dependent" in first.error
first

# %% [markdown]
# The exporter met the `if`. Which way it goes depends on numbers that the exporter does not have
# (lesson [03](03_tracing_vs_scripting.ipynb)). The loop is the second obstacle: it runs once for each photograph, so its
# length is the batch.
#
# One change removes both. We compute both ways for the whole batch, and choose for each photograph with
# [`torch.where`](https://docs.pytorch.org/docs/stable/generated/torch.where.html), in ONNX
# [`Where`](https://onnx.ai/onnx/operators/onnx__Where.html):


# %%
class Ready(Scroll):
    def forward(self, pixels):
        light = repaired(pixels.float() / 255)
        is_white = light[:, ::27, ::27].mean((1, 2), keepdim=True) > 0.5
        x = torch.where(is_white, 1 - light, light)
        return self.network((x[:, None] - 0.286) / 0.353)


# %% [markdown]
# New code may have new mistakes. We compare in PyTorch, before the export, on all photographs:

# %%
ready = Ready().eval()
with torch.no_grad():
    same = torch.cat([ready(part) for part in pixels.split(200)]).numpy()
assert np.allclose(same, scores, atol=1e-4)

# %% [markdown]
# The rewritten model computes the same. Now the export again:

# %%
second = cu.try_export(torch.onnx.export, ready, some, trial, groups, **how)
assert "hypot" in second.error
second

# %% [markdown]
# This is the third obstacle. ONNX has no operator for $\sqrt{x^2 + y^2}$, and the exporter has no translation of
# `torch.hypot`. We write [one](https://docs.pytorch.org/docs/stable/onnx_export.html), as in the page
# [Unknown operators](deeper/03_unknown_operators.ipynb), and export into the folder of the answers:

# %%
from onnxscript import FLOAT
from onnxscript import opset18 as op


def hypot_in_onnx(x: FLOAT, y: FLOAT):
    return op.Sqrt(op.Add(op.Mul(x, x), op.Mul(y, y)))


how |= {"custom_translation_table": {torch.ops.aten.hypot.default: hypot_in_onnx}}

# %%
file = home / "scroll.onnx"
with cu.exporter_messages():
    torch.onnx.export(ready, some, file, opset_version=18, **how)

# %% [markdown]
# ## Parity: is it the same model?
#
# There is a file, and no error. That does not prove that it is right. The decision has two sides, and a batch may mix them.
# We test one photograph alone first, because we exported with two ([parity](glossary.md#parity)):

# %%
alone = cu.parity(scroll, file, pixels[:1])
assert alone.within
alone

# %% [markdown]
# Then each kind of paper, and both kinds in one batch:

# %% tags=["remove-input"]
cu.quiz("10_capstone", 2)

# %%
found = {name: cu.parity(scroll, file, group) for name, group in groups.items()}
assert all(parity.within for parity in found.values())
found

# %% [markdown]
# A decision by `light.mean()` for the whole batch would have passed on each paper alone, and failed on both. The reference
# is the author's `scroll`, and not our rewritten model: so the rewriting and the export are tested at once.
#
# ## What no error would have told us
#
# Suppose that the author had written `torch.where` inside the loop. This module differs from `scroll` in that line alone,
# and we ask for a free batch, as before:


# %%
class WithTheLoop(Scroll):
    def forward(self, pixels):
        turned = []
        for photo in repaired(pixels.float() / 255):
            is_white = photo[::27, ::27].mean() > 0.5
            turned.append(torch.where(is_white, 1 - photo, photo))
        return self.network((torch.stack(turned)[:, None] - 0.286) / 0.353)


# %%
with cu.exporter_messages():
    torch.onnx.export(WithTheLoop().eval(), some, "work/10_loop.onnx", **how)
assert cu.written_shapes("work/10_loop.onnx")["pixels"] == "[2, 28, 28]"
cu.written_shapes("work/10_loop.onnx")

# %% [markdown]
# No error, and a file for exactly two photographs. The exporter unrolled the loop, and the free batch that we asked for is
# gone (lesson [04](04_dynamic_axes.ipynb)). At least the file says so.
#
# The older exporter ([tracing](glossary.md#tracing)) accepts the `if`, too. We give it two photographs on black paper, and
# then ask the file for other ones:

# %%
asked = {"2 on black": (black[2:4],), "2 on white": (white[:2],), "5": (black[:5],)}
axes = {"pixels": {0: "batch"}, "logits": {0: "batch"}}
old = {"dynamo": False, "input_names": ["pixels"], "output_names": ["logits"]}
old |= {"dynamic_axes": axes}
traced = cu.try_export(torch.onnx.export, scroll, (black[:2],), trial, asked, **old)
verdicts = {name: outcome.verdict for name, outcome in traced.outcomes.items()}
assert list(verdicts.values()) == ["right", "wrong", "stops"]
verdicts

# %% [markdown]
# The decision of the example is fixed in the file: right numbers for black paper, wrong numbers for white paper, no error.
# The loop is fixed, too, although the file declares a free batch. A test with two photographs on black paper would have
# passed. The groups of our parity test have other sizes, so they show the loop. To show the fixed decision, a test needs the
# size of the example, with both sides of the decision.
#
# ## Diagnosis
#
# The numbers are right. Is the file fit to be handed over?

# %%
import pandas as pd

report = cu.doctor(file, run=True)
assert not report.errors
found = [(f.severity, f.code.title, f.cure) for f in report.findings]
pd.DataFrame(found, columns=["severity", "finding", "cure"])

# %% [markdown]
# No errors. The exporter's notes name files of this machine:
# [Ready to ship, and small](deeper/10_ready_to_ship.ipynb) removes them. And what became of our translation?

# %%
operators = cu.op_histogram(file)
assert "Sqrt" not in operators
operators

# %% [markdown]
# `Sqrt` is not there, although we wrote it. The middle of a photograph is always at the same place, so the exporter
# computed the fading once ([constant folding](glossary.md#constant-folding)).
#
# ## The saved state
#
# The file and the answers that count as right are saved. Is that enough for somebody who has neither PyTorch nor the
# author's code? If so, they can change the file, and test after each step. We take what they have, these two files:

# %%
saved = np.load(home / "truth.npz")
got = cu.run_in_batches(file, {"pixels": saved["photos"]})["logits"]
assert np.allclose(got, saved["scores"], atol=1e-4)
float(np.abs(got - saved["scores"]).max())

# %% [markdown]
# ## Recap
#
# - Write down what the model answers today. Compare each step with that, and not with the step before.
# - Use `torch.where` for a decision on each example, unless all examples of a batch share the decision.
# - The default exporter refuses an `if` on data and an unknown operator. It unrolls a loop without an error.
# - Use the older exporter only when the model has no `if` and no loop that depends on the input.
# - Test each side of a decision, both in one batch, one example alone, and another size than you exported with.
# - Save the file together with test inputs and the right answers.
#
# **Next:** [your quest](exercises/10_capstone.ipynb), tasks 10.1 and 10.2.
# **Deeper:** [Ready to ship, and small](deeper/10_ready_to_ship.ipynb) for tasks 10.3 and 10.4,
# [On a server and on a page](deeper/10_server_and_page.ipynb) for tasks 10.5 and 10.6.
# **After the quest:** [11 · Language models](11_language_models.ipynb).
