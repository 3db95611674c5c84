# %% [markdown]
# # 06 · Fusion
#
# You profile a model, and the profile lists nodes such as `FusedConv` that your file does not have. A session does not
# run the graph that you gave it. It rewrites the graph first: it removes nodes, computes others
# beforehand, and merges several into one. Merging is called [**fusion**](glossary.md#fusion).
#
# You need [lesson 05](05_execution_providers.ipynb).
#
# After this lesson you will be able to
#
# - say what each optimisation level does to your graph, node by node,
# - fold a BatchNorm into a convolution by hand,
# - count the bytes that fusion saves, and compare them with the time,
# - see whether a fusion happened.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## A graph to tidy up
#
# We write a small network by hand, in the text form of [lesson 01](01_graph_structure.ipynb). A runtime can spare three
# of its nodes: `Dropout` and `Identity` do nothing in inference, and `Exp(log_gain)` has the same result in each run.

# %%
import onnx

untidy = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 20]>
untidy (float[1, 2, 8, 8] x) => (float[1, 3] y)
<float[2, 2, 1, 1] W1 = {1, -2, -3, 4}, float[2, 2, 1, 1] W2 = {2, 1, -1, 3},
 float[2] scale = {2, 1}, float[2] shift = {-1, 1}, float[2] mean = {0, 1},
 float[2] variance = {1, 2}, float[2, 1, 1] log_gain = {0, 1},
 float[2, 3] W3 = {1, 2, 3, 4, 5, 6}, float[3] bias = {1, 2, 3}>
{ c = Conv (x, W1)  n = BatchNormalization (c, scale, shift, mean, variance)
  r = Relu (n)  d = Dropout (r)  i = Identity (d)  gain = Exp (log_gain)
  m = Mul (i, gain)  c2 = Conv (m, W2)  a = Add (c2, m)  r2 = Relu (a)
  p = GlobalAveragePool (r2)  f = Flatten (p)
  t = MatMul (f, W3)  y = Add (t, bias) }""")

# %% [markdown]
# ONNX Runtime has five
# [levels](https://onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html) of optimisation: *none*,
# *basic*, *extended*, *layout* and *all*, which is the default. You choose one in the options of the session. The session
# can also write down the graph that it is going to run:

# %%
import onnxruntime as ort

Level, cpu = ort.GraphOptimizationLevel, ["CPUExecutionProvider"]
options = ort.SessionOptions()
options.graph_optimization_level = Level.ORT_ENABLE_BASIC
options.optimized_model_filepath = "work/06_basic.onnx"
session = ort.InferenceSession(untidy.SerializeToString(), options, providers=cpu)

# %% [markdown]
# The file `work/06_basic.onnx` holds that graph. `cu.optimized(model, level)` does the same steps and returns the graph.
# How often does each operator occur at the first three levels?

# %% tags=["remove-input"]
cu.quiz("06_fusion", 1)

# %%
import pandas as pd

tidied = {k: cu.optimized(untidy, k) for k in ("none", "basic", "extended")}
counts = pd.DataFrame({level: cu.op_histogram(g) for level, g in tidied.items()})
counts.fillna(0).astype(int).replace(0, "")

# %% [markdown]
# From column to column the graph gets shorter, and an operator appears that is not in the standard. `com.microsoft` is the
# [domain](glossary.md#domain) of
# [ONNX Runtime's own operators](https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md).
#
# Does the model still compute the same? We compare the session above, which is at *basic*, with one that changes nothing:

# %%
import numpy as np

feed = {"x": np.random.default_rng(0).normal(size=(1, 2, 8, 8)).astype("float32")}
off = ort.SessionOptions()
off.graph_optimization_level = Level.ORT_DISABLE_ALL
plain = ort.InferenceSession(untidy.SerializeToString(), off, providers=cpu)
same_result = np.allclose(session.run(None, feed), plain.run(None, feed), rtol=1e-4)
same_result

# %% [markdown]
# The results agree, up to rounding.
#
# ## What *basic* does
#
# Counts do not say **which** nodes became one. `cu.origins` runs both graphs on the same input and compares every tensor.
# So it finds the old nodes that a new one stands for. These nodes have no names, so `originals` lists what they write.

# %%
basic = cu.origins(untidy, tidied["basic"], feed)
basic

# %% [markdown]
# *Basic* has **fused**: `Conv` and `BatchNormalization` became one `Conv`; `MatMul` and `Add` became one `Gemm`.
#
# The last rows are the nodes that are gone. *Removed* means that the output was the input, in every value; *folded* means
# that only constants went in ([constant folding](glossary.md#constant-folding)). The result of `Exp`, the tensor `gain`,
# must now be stored in the file. We compare it with the one that NumPy computes:


# %%
def weights_of(model):
    return {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}


gain, log_gain = weights_of(tidied["basic"])["gain"], weights_of(untidy)["log_gain"]
gain.ravel(), np.exp(log_gain).ravel()

# %% tags=["hide-input"]
cu.claim(
    "basic-removes-redundancy",
    {
        "at level none, Identity and Dropout are there": {"Identity", "Dropout"}
        <= set(cu.op_histogram(tidied["none"]).index),
        "at level basic they are gone; they had changed no value": {
            ("removed", "Identity"),
            ("removed", "Dropout"),
        }
        <= set(zip(basic["what"], basic["from"], strict=True)),
        "Exp of a constant is gone, too": ("folded", "Exp")
        in set(zip(basic["what"], basic["from"], strict=True)),
        "its result is among the weights": np.allclose(gain, np.exp(log_gain)),
        "the model still computes the same": same_result,
    },
)

# %% [markdown]
# ## Fold a BatchNorm by hand
#
# Why can a [`BatchNormalization`](https://onnx.ai/onnx/operators/onnx__BatchNormalization.html) disappear? In inference
# it does the same to each number of a channel: subtract a mean, divide by a deviation, multiply, add. A convolution is
# linear, too, and two linear steps are one:
#
# $$\text{factor} = \frac{\text{scale}}{\sqrt{\text{variance} + \varepsilon}} \qquad W' = W \cdot \text{factor} \qquad
# b' = \text{shift} + (b - \text{mean}) \cdot \text{factor}$$
#
# $W$ and $b$ are the weights and the bias of the convolution, $W'$ and $b'$ are the new ones, and $\varepsilon$ is a
# small constant of the norm. Each output channel has its own factor, so the factor goes along the **first** axis of $W$.
# The convolutions of our trained network have no bias, so $b = 0$.

# %%
import torch


def fold(conv, norm):
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    weight = conv.weight * factor[:, None, None, None]
    return weight, norm.bias - norm.running_mean * factor


model = cu.fashion_resnet().requires_grad_(False)
weight, bias = fold(model.stem[0], model.stem[1])
weight.shape, bias.shape

# %% [markdown]
# The new weights have the shape of the old ones. The new bias has one number for each output channel.
#
# Do the others compute the same numbers? The default [exporter](glossary.md#exporter) folds. The older one can be told not
# to, so that ONNX Runtime does it at *basic*. We export with both, and look for our weights in both models. How large is
# the largest difference?

# %%
x, free = (torch.randn(2, 1, 28, 28),), {0: "batch"}
names = {"input_names": ["image"], "verbose": False}
program = torch.onnx.export(model, x, dynamic_shapes=(free,), **names)
exported = program.model_proto

file, older = "work/06_raw.onnx", {"dynamo": False, "do_constant_folding": False}
with cu.exporter_messages():
    torch.onnx.export(
        model, x, file, dynamic_axes={"image": free}, **older, **names
    )
raw = onnx.load(file)

# %%
from itertools import pairwise

theirs, apart = {"exporter": exported, "basic": cu.optimized(raw, "basic")}, {}
for (name, conv), (_, norm) in pairwise(model.named_modules()):
    if isinstance(norm, torch.nn.BatchNorm2d):  # it follows its convolution
        ours = fold(conv, norm)[0].numpy()
        for who, other in theirs.items():
            stored = weights_of(other).items()
            (found,) = [w for k, w in stored if k.endswith(f"{name}.weight")]
            apart[who, name] = np.abs(found - ours).max()
assert max(apart.values()) < 1e-6
pd.Series(apart).groupby(level=0).agg(["count", "max"])

# %% [markdown]
# PyTorch's exporter, ONNX Runtime and our three lines compute the same weights for all layers, up to rounding. An exporter
# that folds does this work before the runtime sees the file.
#
# ## *Extended* and *layout*
#
# *Extended* also fuses into operators that only ONNX Runtime has. We look at the two convolutions of `untidy`:

# %% tags=["remove-input"]
cu.quiz("06_fusion", 2)

# %%
extended = cu.origins(untidy, tidied["extended"], feed)
extended[extended["what"] == "fused"]

# %%
cu.node_table(tidied["extended"]).loc[[0], ["op", "inputs", "attributes"]]

# %% [markdown]
# `Conv`, `BatchNormalization` and `Relu` are one node now, a `FusedConv`. Its attribute `activation` says that it applies
# the `Relu` to each number before it writes it. The second `Relu` is not fused, because an `Add` stands between it and
# its `Conv`.
#
# The level *layout* changes the order of the numbers in memory ([layout](glossary.md#layout)). Processors with vector
# instructions prefer to have several channels of one pixel side by side. This order is called **nchwc**:

# %% tags=["remove-input"]
cu.picture("nchwc_blocks")

# %% [markdown]
# The explorer shows every level of our models. A green edge means fused, blue rewritten, orange inserted. It opens at
# *layout*. On most processors with AVX you see `nchwc::Conv`, which takes `Add` and `Relu` as well, and `ReorderOutput`,
# which brings the numbers back into the usual order. On other processors this level may look like *extended*. At which
# level does each model lose most of its nodes?

# %%
two = {"image": cu.normalize(cu.fashion_mnist("test")[0][:2])}
layout = cu.origins(exported, cu.optimized(exported, "layout"), two)
models = {"exported": (exported, two), "raw, as in PyTorch": (raw, two)}
cu.level_explorer(models | {"untidy": (untidy, feed)})

# %% [markdown]
# `raw` loses most at *basic*, which folds the norms. `exported` has no norms any more and loses nothing there. Where you see
# nchwc, `exported` loses most at *layout*.
#
# So the report's example, Conv + BatchNorm + ReLU, becomes one node in steps. *Basic* folds the norm, *extended* takes the
# activation, *layout* also takes the sum of a shortcut.

# %% tags=["hide-input"]
cu.claim(
    "fusion-is-extended",
    {
        "basic already fuses Conv + BatchNormalization": "Conv + BatchNormalization"
        in set(basic["from"]),
        "and MatMul + Add": "MatMul + Add" in set(basic["from"]),
        "extended adds the Relu": "Conv + BatchNormalization + Relu"
        in set(extended["from"]),
        "it leaves Conv + Add + Relu alone": not any(
            "Conv + Add" in origin for origin in extended["from"]
        ),
        "where there is nchwc, layout fuses that, too": not any(
            "nchwc" in operator for operator in layout["node"]
        )
        or "Conv + Add + Relu" in set(layout["from"]),
        "an exported model has no BatchNorm left": "BatchNormalization"
        not in cu.op_histogram(exported),
    },
)

# %% [markdown]
# ## Count the bytes
#
# The report says that fusion saves round trips to memory:

# %% tags=["remove-input"]
cu.picture("fused_node")

# %% [markdown]
# `cu.traffic` counts the bytes that each node reads and writes, from the shapes of the tensors. Weights do not count. Here
# are the first nodes of `untidy`, and the one that *extended* makes of them:

# %%
three = cu.traffic(untidy, feed).head(3)
one = cu.traffic(tidied["extended"], feed).head(1)
pd.concat({"none": three, "extended": one})

# %% [markdown]
# Each of these tensors has 512 bytes. Three nodes move six tensors, one node moves two: that is the least possible.
#
# Now the trained network with 16 pictures. We take `raw`, so that the norms count, too. First we count the bytes at each
# level, then we measure the time. The graphs are optimised already, so their sessions change nothing more. Each uses one
# thread.

# %%
batch = {"image": cu.normalize(cu.fashion_mnist("test")[0][:16])}
versions = {
    k: cu.optimized(raw, k) for k in ("none", "basic", "extended", "layout")
}
traffic = {k: cu.traffic(graph, batch) for k, graph in versions.items()}
moved = pd.Series({k: t.reads.sum() + t.writes.sum() for k, t in traffic.items()})
(moved / 2**20).round(1).to_frame("MiB between nodes").T

# %%
off.intra_op_num_threads = 1
runs, logits = {}, {}
for k, graph in versions.items():
    ready = ort.InferenceSession(graph.SerializeToString(), off, providers=cpu)
    (logits[k],) = ready.run(None, batch)
    runs[k] = lambda ready=ready: ready.run(None, batch)
same_logits = np.ptp(list(logits.values()), axis=0).max() < 1e-3
cu.compare(runs, rounds=12, seconds=5)

# %% [markdown]
# The bytes fall at *basic*, and again at *extended*. With nchwc they fall once more, because the sums are fused. The time
# need not follow: our largest tensor has 16 × 16 × 28 × 28 numbers, which is less than 1 MiB. It may stay in the cache of
# the processor, where a round trip is cheap.
#
# *Layout* is often the fastest. It changes two things at once: it moves fewer bytes, and it has other
# [kernels](glossary.md#kernel). So bytes alone do not explain its speed.

# %% tags=["hide-input"]
cu.claim(
    "fusion-saves-memory-traffic",
    {
        "the three nodes are Conv, BatchNormalization and Relu": list(three["op"])
        == ["Conv", "BatchNormalization", "Relu"],
        "they move six tensors": three[["reads", "writes"]].sum().sum()
        == 6 * feed["x"].nbytes,
        "one FusedConv moves two": one[["reads", "writes"]].sum().sum()
        == 2 * feed["x"].nbytes,
        "in the trained network the bytes fall at basic": moved["basic"]
        < moved["none"],
        "and again at extended, to less than two thirds": moved["extended"]
        < moved["none"] * 2 / 3,
        "all levels give the same numbers": same_logits,
    },
)

# %% [markdown]
# ## When fusion does not happen
#
# An optimiser looks for fixed patterns, and it fuses only where every output stays as it was. Suppose that you search for
# a mistake and want to see the tensor `c`, the result of the first `Conv`.

# %% tags=["remove-input"]
cu.quiz("06_fusion", 3)

# %%
debug = onnx.ModelProto.FromString(untidy.SerializeToString())
debug.graph.output.append(onnx.ValueInfoProto(name="c"))
cu.node_table(cu.optimized(debug, "extended")).head(3)[["op", "inputs", "outputs"]]

# %% [markdown]
# `Conv`, `BatchNormalization` and `Relu` are three nodes again. Fusion would make the tensor `c` disappear, and now it is an
# output. A second node that reads `c` prevents fusion, too, and so does a weight that a caller may replace.
# [Why it does not fuse](deeper/06_why_not_fused.ipynb) tries seven such changes.

# %% [markdown]
# ## Recap
#
# - Use the default level *all*, unless you look for the cause of wrong numbers: then compare with `ORT_DISABLE_ALL`.
# - *Basic* removes, folds and fuses; exporters do much of that before. *Extended* adds operators of ONNX Runtime, such as
#   `FusedConv`. *Layout* reorders the numbers for your processor.
# - To fold a BatchNorm, multiply each output channel of the weights by its factor, and compute a new bias.
# - Fusion saves bytes. Whether it saves time depends on the kernels and on the cache: measure it.
# - A pattern matches exactly or not at all. Look at `cu.op_histogram(cu.optimized(model))` before you rely on it.
#
# **Now you:** [exercises 06](exercises/06_fusion.ipynb). **Next:** [07 · Quantization](07_quantization.ipynb).
#
# **Deeper:** [Why it does not fuse](deeper/06_why_not_fused.ipynb) ·
# [Transformers: when fusion fires](deeper/06_transformers.ipynb) · [A trained transformer](deeper/06_trained.ipynb) ·
# [Files saved optimised](deeper/06_files_saved_optimised.ipynb) ·
# [Reading a profile](deeper/06_reading_a_profile.ipynb)
