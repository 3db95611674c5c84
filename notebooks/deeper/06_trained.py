# %% [markdown]
# # 06 · A trained transformer
#
# You serve sentence embeddings, and want them faster. Somebody tells you to fuse the attention of the model. Does the
# tool find it in a real model, and is the fused file faster?
#
# You need the [core of lesson 06](../06_fusion.ipynb), and best also
# [Transformers: when fusion fires](06_transformers.ipynb). The model comes with the extra `nlp` of the course.
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
# [384 numbers](../glossary.md#embedding). It has six layers with 12 heads each.

# %%
folder = cu.minilm()

# %% [markdown]
# The library computes attention in two ways: *eager*, step by step, and *sdpa*, with PyTorch's function. This class says
# which one we want, and names the two inputs and the output.

# %%
import torch
from torch import nn
from transformers import AutoModel


class MiniLM(nn.Module):
    def __init__(self, attention):
        super().__init__()
        self.bert = AutoModel.from_pretrained(folder, attn_implementation=attention)

    def forward(self, ids, mask):
        return self.bert(input_ids=ids, attention_mask=mask).last_hidden_state


# %% [markdown]
# An example of four texts with 64 words each. The model does not need to understand them, so the words are random.

# %%
words = torch.randint(1000, 20000, (4, 64))
args = words, torch.ones_like(words)

# %% [markdown]
# The number of texts and their length are free. First the older [exporter](../glossary.md#exporter), with attention written
# step by step:

# %%
names = {"input_names": ["ids", "mask"], "output_names": ["vectors"]}
free = {0: "texts", 1: "words"}
axes = {"ids": free, "mask": free, "vectors": free}
older = {"dynamo": False, "dynamic_axes": axes}

# %%
plain, file = MiniLM("eager").eval(), "work/06_minilm.onnx"
with cu.exporter_messages():
    torch.onnx.export(plain, args, file, **names, **older)

# %% [markdown]
# The pages on quantization call `cu.sentence_encoder(file, texts)`, which does the same export.
#
# ## Fuse it
#
# The [tool](https://onnxruntime.ai/docs/performance/transformers-optimization.html) wants the number of heads and the
# width. It returns a model that can be saved.

# %%
from onnxruntime.transformers import optimizer

sizes = {"num_heads": 12, "hidden_size": 384, "opt_level": 0}
fused = optimizer.optimize_model(file, "bert", **sizes)
fused.save_model_to_file("work/06_minilm_fused.onnx")

# %% [markdown]
# How many `Attention` nodes are there, and how many nodes in all?


# %%
def counted(model):
    operators = cu.op_histogram(model)
    return int(operators.get("com.microsoft::Attention", 0)), int(operators.sum())


files = [file, "work/06_minilm_fused.onnx"]
{name: counted(name) for name in files}

# %% [markdown]
# All six layers were found, and of several hundred nodes less than a hundred are left.
#
# ## Two other ways to export
#
# The same with *sdpa*, and with the default exporter, which wants the free sizes said in another way:

# %%
dims = {axis: torch.export.Dim(name) for axis, name in free.items()}
default = {"dynamic_shapes": (dims, dims), "external_data": False}

# %% [markdown]
# How many `Attention` nodes are there?

# %%
others = {"sdpa, older": ("sdpa", older), "eager, default": ("eager", default)}
found = {"eager, older": counted(files[1])[0]}
for name, (attention, way) in others.items():
    model, other = MiniLM(attention).eval(), "work/06_minilm_other.onnx"
    with cu.exporter_messages():
        torch.onnx.export(model, args, other, **names, **way, verbose=False)
    found[name] = counted(optimizer.optimize_model(other, "bert", **sizes).model)[0]
assert list(found.values()) == [6, 0, 0]
found

# %% [markdown]
# Only one of three fuses. With the default exporter the tool's log says *failed to match mask path*: this exporter writes
# the mask with other nodes. The tool raised no error. So count, and do not trust silence.
#
# ## Is the fused file faster?
#
# Both sessions optimise as usual. So we first count the nodes that they really run.

# %%
{name: int(cu.op_histogram(cu.optimized(name)).sum()) for name in files}

# %% [markdown]
# The session removes half of the nodes of the other file by itself. Now the numbers, and then the time:

# %%
import numpy as np
import onnxruntime as ort

runs, feed = {}, {"ids": words.numpy(), "mask": np.ones_like(words)}
for name in files:
    ready = ort.InferenceSession(name, providers=["CPUExecutionProvider"])
    runs[name] = lambda ready=ready: ready.run(None, feed)[0]
assert np.allclose(*[run() for run in runs.values()], atol=1e-4)

# %%
cu.compare(runs, rounds=10, seconds=5)

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
