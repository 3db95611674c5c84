# %% [markdown]
# # 06 · Why it does not fuse
#
# Two models have the same layers. In one of them a `Conv`, a norm and a `Relu` become one node, in the other one they
# stay three. Nobody tells you why: a session that cannot fuse says nothing. This page shows the usual causes.
#
# You need the [core of lesson 06](../06_fusion.ipynb).
#
# After this page you will be able to
#
# - see in one line whether a layer was fused,
# - name the five usual causes when it was not,
# - mend the model, so that it fuses again.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## A layer that fuses
#
# Here is a layer as text: a convolution, a norm, an activation. At the level *extended* it becomes one node, the
# [`FusedConv`](https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md) of ONNX Runtime.

# %%
import onnx

text = """<ir_version: 10, opset_import: ["": 20]>
layer (float[1, 2, 8, 8] x) => (float[1, 2, 8, 8] y)
<float[2, 2, 1, 1] W = {1, -2, -3, 4}, float[2] scale = {1, 2},
 float[2] shift = {-1, 1}, float[2] mean = {0, 1}, float[2] variance = {1, 2}>
{ c = Conv (x, W)  n = BatchNormalization (c, scale, shift, mean, variance)
  y = Relu (n) }"""
layer = onnx.parser.parse_model(text)
cu.op_histogram(cu.optimized(layer, "extended")).to_frame()

# %% [markdown]
# `cu.op_histogram` of the optimised graph is the test: one row, one node. A model fuses where this table gets shorter.
#
# ## Seven small changes
#
# Now we change the text in small ways. Each entry says what is replaced by what.

# %%
cases = {
    "c is an output, too": ("8] y)", "8] y, float[1, 2, 8, 8] c)"),
    "another node reads c": ("y = Relu (n)", "r = Relu (n)  y = Add (r, c)"),
    "a leftover node reads c": ("y = Relu (n)", "left = Tanh (c)  y = Relu (n)"),
    "scale can be fed": ("8] x)", "8] x, float[2] scale)"),
    "Relu before the norm": ("c = Conv (x, W)", "k = Conv (x, W)  c = Relu (k)"),
    "Sigmoid in place of Relu": ("Relu (n)", "Sigmoid (n)"),
    "Elu in place of Relu": ("Relu (n)", "Elu (n)"),
}

# %% [markdown]
# `onnx.parser` makes a model of each:

# %%
models = {k: onnx.parser.parse_model(text.replace(*v)) for k, v in cases.items()}

# %% [markdown]
# One of the seven still becomes a single node. Which one? Decide before you run the cell.

# %%
import pandas as pd

left = {k: cu.op_histogram(cu.optimized(m, "extended")) for k, m in models.items()}
assert [k for k, nodes in left.items() if len(nodes) == 1] == [
    "Sigmoid in place of Relu"
]
pd.DataFrame(left).T.notna().replace({True: "✓", False: ""})

# %% [markdown]
# A row is a model, and a tick is an operator that is left. Each row has its reason:
#
# - **An output, or another reader.** Fusion would make the tensor `c` disappear, and somebody needs it. A line added for
#   debugging can cost a fusion, even when nobody reads its result: the session does not remove such a node.
# - **A weight that can be fed.** An [initializer](../glossary.md#initializer) that is also an input is only a default
#   value: a caller may send another one, so it cannot be folded. Old exporters wrote all weights like that.
# - **Order.** `Relu` before the norm is another function. The norm cannot go through it.
# - **No such [kernel](../glossary.md#kernel).** `FusedConv` can do `Relu`, `Sigmoid` and some more, but not `Elu`.

# %% [markdown]
# ## Mend it
#
# Three of these are easy to mend. A weight is no input any more when its entry among the inputs is gone:

# %%
fed = models["scale can be fed"]
del fed.graph.input[1:]
cu.op_histogram(cu.optimized(fed, "extended")).to_frame()

# %% [markdown]
# An output that was added for debugging goes the same way. A leftover node must be removed itself. Who reads a tensor?

# %%
leftover = models["a leftover node reads c"]
readers = [node for node in leftover.graph.node if "c" in node.input]
[node.op_type for node in readers]

# %% [markdown]
# The result of `Tanh` is read by nobody, and it is no output. So it can go:

# %%
leftover.graph.node.remove(readers[1])
onnx.checker.check_model(leftover, full_check=True)
fused = cu.op_histogram(cu.optimized(leftover, "extended"))
assert list(fused.index) == ["com.microsoft::FusedConv"]
fused.to_frame()

# %% [markdown]
# One node again. The other obstacles, such as the order and the activation, belong to what the model computes. There you can only
# choose other layers, and train again.

# %% [markdown]
# ## Recap
#
# - Look at the histogram of `cu.optimized(model, "extended")`: no message tells you that a pattern did not match.
# - Take out what was added for debugging before you ship: outputs, and nodes that nobody reads.
# - Keep weights out of the inputs, unless a caller must replace them.
# - Order and activation belong to the model. Prefer a plain `Relu` behind the norm when you design a network for a CPU.
#
# **Back:** [06 · Fusion](../06_fusion.ipynb). **Next:**
# [Transformers: when fusion fires](06_transformers.ipynb).
