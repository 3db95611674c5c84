# %% [markdown]
# # 06 · A trained transformer
#
# You serve sentence embeddings, and want them faster. Somebody tells you to fuse the attention of the model. Does the
# tool find it in a real model, and is the fused file faster?
#
# You need the [core of lesson 06](../06_fusion.ipynb), and best also
# [Transformers: when fusion fires](06_transformers.ipynb).
#
# After this page you will be able to
#
# - export a sentence encoder in the form that the tool knows,
# - fuse it, and count what was fused,
# - decide whether the fused file is worth it.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## A sentence encoder
#
# [MiniLM](https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2) turns a sentence into
# [384 numbers](../glossary.md#embedding). It has six layers with 12 heads each. Where its package is not installed, the
# cells of this page do nothing.

# %%
folder = cu.minilm()

# %% [markdown]
# The library computes attention in two ways: *eager*, step by step, and *sdpa*, with PyTorch's function. This class says
# which one we want, and names the two inputs and the output.

# %%
import torch
from torch import nn


class MiniLM(nn.Module):
    def __init__(self, attention):
        from transformers import AutoModel

        super().__init__()
        self.bert = AutoModel.from_pretrained(folder, attn_implementation=attention)

    def forward(self, ids, mask):
        return self.bert(input_ids=ids, attention_mask=mask).last_hidden_state


# %% [markdown]
# The number of sentences and their length are free. The two [exporters](../glossary.md#exporter) want that said in
# different ways:

# %%
free = {0: "batch", 1: "length"}
dims = {axis: torch.export.Dim(name) for axis, name in free.items()}
older = {"dynamo": False, "dynamic_axes": {"ids": free, "mask": free}}
default = {"dynamic_shapes": (dims, dims), "external_data": False}

# %% [markdown]
# First the older exporter, with attention written step by step:

# %%
words = torch.randint(1000, 20000, (4, 64))
args = words, torch.ones_like(words)
sizes = {"num_heads": 12, "hidden_size": 384, "opt_level": 0}
names = {"input_names": ["ids", "mask"], "verbose": False}
if folder:
    model, file = MiniLM("eager").eval(), "work/06_minilm.onnx"
    with cu.exporter_messages():
        torch.onnx.export(model, args, file, **names, **older)

# %% [markdown]
# ## Fuse it
#
# The [tool](https://onnxruntime.ai/docs/performance/transformers-optimization.html) wants the number of heads and the
# width. It returns a model that can be saved.

# %%
from onnxruntime.transformers import optimizer

if folder:
    fused = optimizer.optimize_model("work/06_minilm.onnx", "bert", **sizes)
    fused.save_model_to_file("work/06_minilm_fused.onnx")

# %% [markdown]
# How many `Attention` nodes are there, and how many nodes in all?


# %%
def counted(file):
    operators = cu.op_histogram(file)
    return int(operators.get("com.microsoft::Attention", 0)), int(operators.sum())


files = ["work/06_minilm.onnx", "work/06_minilm_fused.onnx"] if folder else []
{file: counted(file) for file in files}

# %% [markdown]
# All six layers were found, and of several hundred nodes less than a hundred are left.
#
# ## Two other ways to export
#
# The same with *sdpa*, and with the default exporter. How many `Attention` nodes are there?

# %%
others = {"sdpa, older": ("sdpa", older), "eager, default": ("eager", default)}
found = {file: counted(file)[0] for file in files[1:]}
for name, (attention, way) in others.items() if folder else []:
    model, file = MiniLM(attention).eval(), "work/06_minilm_other.onnx"
    with cu.exporter_messages():
        torch.onnx.export(model, args, file, **names, **way)
    other = optimizer.optimize_model(file, "bert", **sizes).model
    found[name] = counted(other)[0]
assert not folder or list(found.values()) == [6, 0, 0]
found

# %% [markdown]
# Only one of three fuses. The default exporter fails at the mask: it writes one `Unsqueeze` where the pattern looks for
# two. The tool raised no error. So count, and do not trust silence.
#
# ## Is the fused file faster?
#
# Both sessions optimise as usual. So we first count the nodes that they really run.

# %%
{file: int(cu.op_histogram(cu.optimized(file)).sum()) for file in files}

# %% [markdown]
# The session removes half of the nodes of the other file by itself. Now the numbers, and then the time:

# %%
import numpy as np
import onnxruntime as ort

runs, feed = {}, {"ids": words.numpy(), "mask": np.ones_like(words)}
for file in files:
    ready = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    runs[file] = lambda ready=ready: ready.run(None, feed)[0]
assert not runs or np.allclose(*[run() for run in runs.values()], atol=1e-4)

# %%
cu.compare(runs, rounds=10, seconds=5) if runs else None

# %% [markdown]
# When we wrote this, on two cores, the fused file was not faster. Nearly all of the time goes into large matrix products,
# and those are the same in both files. On a GPU, where starting each [kernel](../glossary.md#kernel) costs time, the
# same fusion may count for more; that was not run here.

# %% [markdown]
# ## Recap
#
# - Use the older exporter and *eager* attention for this tool, unless you have counted `Attention` nodes without.
# - Count nodes to see whether a fusion happened. Use a stopwatch to see whether it matters.
# - Compare with the nodes that a session runs, not with those in the file: it removes many by itself.
#
# **Back:** [06 · Fusion](../06_fusion.ipynb). **Next:** [Files saved optimised](06_files_saved_optimised.ipynb).
