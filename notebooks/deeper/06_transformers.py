# %% [markdown]
# # 06 · Transformers: when fusion fires
#
# A transformer runs slower in ONNX Runtime than you hoped. You read that it fuses attention into one node, and your graph
# has none. A session fuses attention only in a few old forms of the graph. A tool knows more forms, but not all.
#
# You need the [core of lesson 06](../06_fusion.ipynb).
#
# After this page you will be able to
#
# - let ONNX Runtime's tool fuse the attention of a transformer,
# - find out at which node a pattern stopped to match,
# - prove the cause with one change to the graph.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## An encoder, written in two ways
#
# Self-attention is about twenty nodes, and ONNX Runtime has one operator for all of them, `com.microsoft::Attention`. Here
# is a small attention layer with a mask, so that it does not look at padding. We write the steps out.

# %%
import torch
from torch import nn
from torch.nn import functional as F


class Steps(nn.Module):
    def forward(self, q, k, v, penalty):
        scores = q @ k.transpose(2, 3) / 16**0.5 + penalty
        return torch.softmax(scores, -1) @ v


# %%
class BuiltIn(nn.Module):
    def forward(self, q, k, v, penalty):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=penalty)


# %% [markdown]
# `BuiltIn` computes the same with PyTorch's function. `SmallEncoder` of the course is the rest of an encoder: words,
# projections, norms. It takes token ids and a mask, both int64 of shape `[N, 16]`. We export it with both kinds of
# attention, each by the default [exporter](../glossary.md#exporter) and by the older one. The second text has nine words.

# %%
from course_utils.lab.models import SmallEncoder

ids = torch.randint(0, 100, (2, 16))
mask = (torch.arange(16) < torch.tensor([[16], [9]])).long()
names = {"input_names": ["ids", "mask"], "verbose": False}
ways = {"default": {"external_data": False}, "older": {"dynamo": False}}
files = {}
for core in (Steps(), BuiltIn()):
    model, kind = SmallEncoder(core).eval(), type(core).__name__
    for way, how in ways.items():
        file = files[kind, way] = f"work/06_encoder_{kind}_{way}.onnx"
        with cu.exporter_messages():
            torch.onnx.export(model, (ids, mask), file, **names, **how)

# %% [markdown]
# What does a session do by itself, with all optimisations?

# %%
by_session = cu.op_histogram(cu.optimized(files["Steps", "default"], "all"))
assert "com.microsoft::Attention" not in by_session
by_session.to_dict()

# %% [markdown]
# It fuses neighbours, for example an `Add` with the `LayerNormalization` behind it. But there is no `Attention`.
#
# ## The tool
#
# A Python package comes with ONNX Runtime:
# [`onnxruntime.transformers.optimizer`](https://onnxruntime.ai/docs/performance/transformers-optimization.html). It wants
# to know the number of heads and the width.

# %%
from onnxruntime.transformers import optimizer

sizes = {"num_heads": 4, "hidden_size": 64, "opt_level": 0}
done = optimizer.optimize_model(files["Steps", "older"], "bert", **sizes)
cu.op_histogram(done.model).to_dict()

# %% [markdown]
# There it is: one `Attention`. Does it work for all four files? The tool's log says why a pattern did not match, so we
# listen to it.

# %%
import logging

reasons = []
listener = logging.Handler(logging.DEBUG)
listener.emit = lambda record: reasons.append(record.getMessage())
for place in ("", "onnxruntime.transformers."):  # which one depends on the version
    logger = logging.getLogger(f"{place}fusion_attention")
    logger.setLevel(logging.DEBUG)
    logger.handlers, logger.propagate = [listener], False

# %% [markdown]
# The next function runs the tool and counts. In how many of the four files does it find attention?

# %% tags=["remove-input"]
cu.quiz("06_transformers", 1)


# %%
def fuse(file, sizes=sizes):
    """The model, its Attention nodes and all nodes, and what the log says."""
    reasons.clear()
    model = optimizer.optimize_model(file, "bert", **sizes).model
    found = int(cu.op_histogram(model).get("com.microsoft::Attention", 0))
    why = next((reason for reason in reasons if "failed to match" in reason), "")
    return model, found, len(model.graph.node), why


# %%
import pandas as pd

fused = pd.DataFrame({key: fuse(file) for key, file in files.items()}).T
fused.columns = ["model", "Attention", "nodes", "the log says"]
fused.drop(columns="model")

# %% [markdown]
# With the older exporter both fuse. With the default one, neither does, and the log says where the match stopped: at the
# path of the mask, or at the scores (*qk*).
#
# ## One node too few
#
# First the steps written out. Which nodes lead from the mask to the sum?

# %%
import numpy as np
import onnx
import onnxruntime as ort

cpu = ["CPUExecutionProvider"]
for way in ways:
    nodes = onnx.load(files["Steps", way]).graph.node
    ops = [n.op_type for n in nodes if n.op_type in ("Unsqueeze", "Cast", "Sub")]
    print(way, ops)

# %% [markdown]
# `mask[:, None, None, :]` adds two axes. The older exporter writes one `Unsqueeze` for each. The default one writes a
# single `Unsqueeze` for both. Why? The exporter leaves notes on its nodes:

# %%
default = onnx.load(files["Steps", "default"])
nodes = default.graph.node
(merged,) = [node for node in nodes if node.op_type == "Unsqueeze"]
[n.value for n in merged.metadata_props if "rule_name" in n.key]

# %% [markdown]
# The exporter has an optimiser of its own, and this rule of it **merged** two nodes. So one fusion may have prevented
# another. To prove it, we split that one node again, change nothing else, and try once more.

# %%
axes = next(t for t in default.graph.initializer if t.name == merged.input[1])
axes.CopyFrom(onnx.numpy_helper.from_array(np.array([1]), "axis_1"))  # was [1, 2]
first = onnx.helper.make_node("Unsqueeze", ["mask", "axis_1"], ["mask_3d"])
nodes.insert(list(nodes).index(merged), first)
merged.input[:] = ["mask_3d", "axis_1"]
onnx.save(default, "work/06_encoder_split.onnx")

# %%
onnx.checker.check_model(default, full_check=True)
healed, found, left, why = fuse("work/06_encoder_split.onnx")
assert found == 1 and not why and left < fused["nodes"]["Steps", "default"] / 2
found, left

# %% [markdown]
# One more node went in, and less than half of the nodes came out. Is the result the same?

# %%
feed = {"ids": ids.numpy(), "mask": mask.numpy()}
(healed_result,), (split_result,) = (
    ort.InferenceSession(m.SerializeToString(), providers=cpu).run(None, feed)
    for m in (healed, default)
)
assert np.allclose(healed_result, split_result, atol=1e-4)

# %% [markdown]
# It is. Which nodes are in the new one?

# %%
table = cu.origins(default, healed, feed).set_index("node")
inside = table.loc["com.microsoft::Attention", "from"].split(" + ")
assert inside.count("MatMul") == 5
pd.Series(inside).value_counts().to_frame("in Attention").T

# %% [markdown]
# Three `MatMul` for query, key and value, two for the scores and the mix, with all that lies between.
#
# Now `BuiltIn`. Its log says that the path of the scores does not match. The pattern looks for a `Sqrt`, because
# PyTorch divides by the root of the size. How many are there?

# %%
counts = {way: cu.op_histogram(files["BuiltIn", way]).to_dict() for way in ways}
roots = {way: count.get("Sqrt", 0) for way, count in counts.items()}
assert roots["default"] == 0 < roots["older"]
roots

# %% [markdown]
# The default exporter has computed the root beforehand: [constant folding](../glossary.md#constant-folding) has removed
# what the pattern looks for. The log names the first obstacle only; there may be more behind it.

# %% [markdown]
# ## Recap
#
# - A session fuses attention in a few old forms only. Use `onnxruntime.transformers.optimizer`, with the right number of heads
#   and width, unless `cu.optimized` already shows an `Attention`.
# - A pattern knows a list of node names. Another exporter or another way to write the formula, and it may not match.
# - Count `Attention` nodes afterwards: the tool reports no error when it finds none.
# - Use the older exporter for this tool, unless the pattern matches without.
# - Change one thing at a time before you name a cause.
#
# **Back:** [06 · Fusion](../06_fusion.ipynb). **Next:** [A trained transformer](06_trained.ipynb).
