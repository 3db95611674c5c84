# %% [markdown]
# # 06 · Fusion
#
# A session does not run the graph that you gave it. It rewrites the graph first: it throws nodes away, computes others
# beforehand, and melts several into one. The last step is called **fusion**. In this lesson we watch it at work, find
# out for every new node where it comes from, and do the most important fusion by hand.
#
# After this lesson you will be able to
#
# - say what each optimisation level does to your graph, node by node,
# - fold a BatchNorm into a convolution with NumPy,
# - count the bytes that fusion saves, and read a profile,
# - find out why a fusion does not happen.
#
# It takes about 60 minutes.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## Before any optimisation
#
# The report says that conversion alone often makes a model faster, because the runtime has no Python overhead. To test
# *conversion alone*, we must switch the optimisations of the runtime off. The option for it is
# `graph_optimization_level`.

# %%
import onnxruntime as ort
import torch

model = cu.fashion_resnet()
picture = torch.randn(2, 1, 28, 28)
names = {"input_names": ["image"], "output_names": ["logits"]}
dynamic = {"dynamic_shapes": ({0: torch.export.Dim("batch")},)}
with cu.exporter_messages():
    torch.onnx.export(
        model, (picture,), "work/06_exported.onnx", **names, **dynamic, external_data=False, verbose=False
    )

# %%
Level = ort.GraphOptimizationLevel


def session_at(file, level, threads=1):
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = threads
    return ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])


plain = session_at("work/06_exported.onnx", Level.ORT_DISABLE_ALL)

# %% [markdown]
# How much Python is there in one prediction? Python can tell: `sys.setprofile` calls us for every function call. We count
# the calls for one picture, in PyTorch and in ONNX Runtime.

# %% tags=["remove-input"]
cu.quiz("06_fusion", 1)

# %%
import sys


def python_calls(function):
    function()  # the first call prepares this and that
    calls = []
    sys.setprofile(lambda frame, event, argument: calls.append(event))
    function()
    sys.setprofile(None)
    return sum(event in ("call", "c_call") for event in calls)


# %%
one = cu.normalize(cu.fashion_mnist("test")[0][:1])
one_tensor = torch.from_numpy(one)


def in_torch():
    with torch.inference_mode():
        return model(one_tensor)


def in_ort():
    return plain.run(None, {"image": one})[0]


calls = {"PyTorch": python_calls(in_torch), "ONNX Runtime": python_calls(in_ort)}
calls

# %% [markdown]
# Each layer of the PyTorch model is a Python object with a `forward`. A session is one call that goes into C++ and comes
# back with the result. Next: how many operators does each of them start? In PyTorch, a *dispatch mode* sees them all.

# %%
from torch.utils._python_dispatch import TorchDispatchMode


class Count(TorchDispatchMode):
    started = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.started += 1
        return function(*args, **(kwargs or {}))


with Count() as counter, torch.no_grad():
    model(one_tensor)
nodes = int(cu.op_histogram("work/06_exported.onnx").sum())
{"operators started by PyTorch": counter.started, "nodes in the file": nodes}

# %% [markdown]
# The file has fewer, because the exporter has already tidied up. Now the time, for one picture and for 64. All
# optimisations are still off.

# %%
import pandas as pd

many = cu.normalize(cu.fashion_mnist("test")[0][:64])


def timed(pictures):
    tensor = torch.from_numpy(pictures)

    def forward():
        with torch.inference_mode():
            return model(tensor)

    candidates = {"PyTorch": forward, "ONNX Runtime": lambda: plain.run(None, {"image": pictures})}
    return cu.compare(candidates, threads=1, rounds=12, seconds=5).table["median ms"]


pd.DataFrame({f"{len(p)} pictures, ms": timed(p) for p in (one, many)}).style.format("{:.3g}")

# %% [markdown]
# With one picture there is little to compute, and the overhead counts. With 64, the kernels decide: without its
# optimisations, ONNX Runtime may gain little there, or may even lose. So *often* is the right word. The evidence is what
# we counted: a time is shown, never asserted.

# %%
import numpy as np

cu.claim(
    "conversion-alone-is-faster",
    {
        "with all optimisations off, the file gives PyTorch's numbers": cu.parity(
            model, "work/06_exported.onnx", one_tensor
        ).within
        and np.allclose(in_ort(), in_torch().numpy(), atol=1e-4),
        "PyTorch makes more than 100 Python calls for one picture": calls["PyTorch"] > 100,
        "the runtime makes less than a fifth of them": calls["ONNX Runtime"] < calls["PyTorch"] / 5,
        "it starts fewer operators than PyTorch": nodes < counter.started,
    },
)

# %% [markdown]
# ## Five levels
#
# To see the optimiser at work, we need a graph with something to tidy up. So we write one by hand, in the text form of
# lesson 01. It has a `Dropout` and an `Identity`, which do nothing in inference, and `Exp(log_gain)`, which has the same
# result in each run.

# %%
import onnx

untidy = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 20]>
    untidy (float[1, 3, 32, 32] x) => (float[1, 10] y) {
        conv = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, kernel)
        norm = BatchNormalization (conv, scale, shift, mean, variance)
        relu = Relu (norm)
        dropped = Dropout (relu)
        same = Identity (dropped)
        gain = Exp (log_gain)
        scaled = Mul (same, gain)
        conv2 = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (scaled, kernel2)
        total = Add (conv2, scaled)
        relu2 = Relu (total)
        pooled = GlobalAveragePool (relu2)
        flat = Flatten (pooled)
        product = MatMul (flat, matrix)
        y = Add (product, bias)
    }""")

# %% [markdown]
# The weights are random. A variance must be positive, so all numbers are between 0.5 and 1.5, with a random sign where
# that is allowed.

# %%
from onnx import numpy_helper

draw = np.random.default_rng(0)
shapes = {"kernel": (16, 3, 3, 3), "kernel2": (16, 16, 3, 3), "matrix": (16, 10), "bias": (10,), "log_gain": (16, 1, 1)}
shapes |= dict.fromkeys(["scale", "shift", "mean", "variance"], (16,))
for name, shape in shapes.items():
    sign = 1 if name == "variance" else draw.choice([-1, 1], shape)
    values = (sign * draw.uniform(0.5, 1.5, shape)).astype(np.float32)
    untidy.graph.initializer.append(numpy_helper.from_array(values, name))
onnx.checker.check_model(untidy, full_check=True)
onnx.save(untidy, "work/06_untidy.onnx")
feed = {"x": draw.normal(size=(1, 3, 32, 32)).astype(np.float32)}

# %% [markdown]
# ONNX Runtime has five levels. With `optimized_model_filepath` a session writes down the graph that it is going to run.
# We create one session per level, and keep what each of them wrote.

# %%
LEVELS = {"none": Level.ORT_DISABLE_ALL, "basic": Level.ORT_ENABLE_BASIC, "extended": Level.ORT_ENABLE_EXTENDED}
LEVELS |= {"layout": Level.ORT_ENABLE_LAYOUT, "all": Level.ORT_ENABLE_ALL}


def rewritten(file, name, level):
    """The graph that a session at this level runs."""
    options = ort.SessionOptions()
    options.graph_optimization_level = LEVELS[level]
    options.optimized_model_filepath = f"work/06_{name}_{level}.onnx"
    options.log_severity_level = 3  # it warns about the level "layout"; we come to that
    ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return onnx.load(options.optimized_model_filepath)


tidied = {level: rewritten("work/06_untidy.onnx", "untidy", level) for level in LEVELS}

# %% tags=["remove-input"]
cu.quiz("06_fusion", 2)

# %%
histograms = pd.DataFrame({level: cu.op_histogram(graph) for level, graph in tidied.items()}).fillna(0).astype(int)
histograms.loc["all nodes"] = histograms.sum()
histograms.replace(0, "")

# %% [markdown]
# Level by level, the graph gets shorter and its operators become stranger. `com.microsoft` is the domain of ONNX
# Runtime's own operators. The numbers that come out stay the same, up to rounding:


# %%
def outcome(graph, feed):
    options = ort.SessionOptions()
    options.graph_optimization_level = Level.ORT_DISABLE_ALL
    session = ort.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feed)[0]


reference = outcome(untidy, feed)
delta = {level: float(np.abs(outcome(graph, feed) - reference).max()) for level, graph in tidied.items()}
assert max(delta.values()) < 1e-4 * np.abs(reference).max()
pd.Series(delta, name="largest difference").to_frame().style.format("{:.1e}")

# %% [markdown]
# ## Where does a node come from?
#
# A table of counts does not say **which** nodes became one. For a first answer we look at names. An optimiser that melts
# three nodes into one keeps the name of the last tensor, because others read it. So names that are gone were inside.

# %%
written = {level: {name for node in graph.graph.node for name in node.output} for level, graph in tidied.items()}
for before, after in [("none", "basic"), ("basic", "extended"), ("extended", "layout")]:
    print(f"gone from {before} to {after}:", ", ".join(sorted(written[before] - written[after])) or "none")

# %% [markdown]
# Names help up to `extended`. At `layout` nearly all names may be new. Values are a better witness: we can run
# both graphs on the same input and compare **every tensor**. That is what `cu.origins` does. It finds each tensor of the
# new graph among those of the old one, by name or else by values. A new node then stands for all old nodes between the
# tensors that it reads and the tensors that it writes. First the level `basic`:

# %%
basic = cu.origins(untidy, tidied["basic"], feed)
basic

# %% [markdown]
# The last rows are the nodes that are gone: *removed* means that the output was the input, in every value; *folded* means
# that only constants went in. The result of `Exp` must now be stored in the file. Is it?

# %%
stored = {t.name: numpy_helper.to_array(t) for t in tidied["basic"].graph.initializer}
original = {t.name: numpy_helper.to_array(t) for t in untidy.graph.initializer}
gone = basic[basic["node"] == ""].set_index("from")["what"]

cu.claim(
    "basic-removes-redundancy",
    {
        "at level none, Identity and Dropout are still in the graph": {"Identity", "Dropout"}
        <= set(cu.op_histogram(tidied["none"]).index),
        "at level basic they are gone, and they had changed no value": (
            gone[["Identity", "Dropout"]] == "removed"
        ).all(),
        "Exp of a constant is gone, too": gone["Exp"] == "folded",
        "its result is among the weights": np.allclose(stored["gain"], np.exp(original["log_gain"])),
        "the model still computes the same": delta["basic"] < 1e-4 * np.abs(reference).max(),
    },
)

# %% [markdown]
# `basic` did more than the report says: it has **fused**, too. `Conv` and `BatchNormalization` became one `Conv`,
# `MatMul` and `Add` became one `Gemm`. What is left for the next level?

# %% tags=["remove-input"]
cu.quiz("06_fusion", 3)

# %%
extended = cu.origins(untidy, tidied["extended"], feed)
extended[extended["what"] == "fused"]

# %% [markdown]
# `FusedConv` is a `Conv` with an attribute `activation`. It applies the `Relu` to each number before it writes it. The
# second `Relu` is not in it: between it and its `Conv` there is an `Add`. And the level `layout`:

# %%
layout = cu.origins(untidy, tidied["layout"], feed)
layout[layout["node"] != ""]

# %% [markdown]
# On most processors with AVX you see `nchwc::Conv` here, which takes the `Add` of the second convolution as well. Even
# the `Mul` has become a convolution. `ReorderOutput` was inserted: it brings numbers back into the usual order. On
# other processors this level may look just like `extended`.
#
# So is fusion the level *Extended*, as the report says?

# %%
nchwc = [o for o in cu.op_histogram(tidied["layout"]).index if o.startswith("com.microsoft.nchwc")]
fused = {level: set(t.loc[t["what"] == "fused", "from"]) for level, t in [("basic", basic), ("extended", extended)]}
fused["layout"] = set(layout.loc[layout["what"] == "fused", "from"])

cu.claim(
    "fusion-is-extended",
    {
        "basic already fuses Conv + BatchNormalization": "Conv + BatchNormalization" in fused["basic"],
        "and MatMul + Add": "MatMul + Add" in fused["basic"],
        "extended adds the Relu: Conv + BatchNormalization + Relu": "Conv + BatchNormalization + Relu"
        in fused["extended"],
        "it leaves Conv + Add + Relu alone": not any("Conv + Add" in f for f in fused["extended"]),
        "where there is nchwc, layout fuses that as well": not nchwc or "Conv + Add + Relu" in fused["layout"],
        "an exported model has no BatchNormalization left to fuse": "BatchNormalization"
        not in cu.op_histogram("work/06_exported.onnx"),
    },
)

# %% [markdown]
# ## Fold a BatchNorm by hand
#
# Why can a `BatchNormalization` disappear? In inference it is a straight line for each channel: subtract a mean, divide
# by a deviation, multiply, add. A convolution is linear, too. Two linear steps are one:
#
# $$\text{factor} = \frac{\text{scale}}{\sqrt{\text{variance} + \varepsilon}} \qquad W' = W \cdot \text{factor} \qquad
# b' = \text{shift} + (b - \text{mean}) \cdot \text{factor}$$
#
# Each output channel has its own factor, so it goes along the **first** axis of $W$.


# %%
def fold(kernel, bias, scale, shift, mean, variance, epsilon):
    factor = scale / np.sqrt(variance + epsilon)
    return kernel * factor[:, None, None, None], shift + (bias - mean) * factor


# %% [markdown]
# We test it on our trained network. The exporters fold BatchNorm by themselves. The older one can be told not to:
# `do_constant_folding=False`. So we get a file with every layer as PyTorch has it.

# %%
with cu.exporter_messages():
    torch.onnx.export(
        model,
        (picture,),
        "work/06_raw.onnx",
        **names,
        dynamic_axes={"image": {0: "batch"}},
        dynamo=False,
        do_constant_folding=False,
    )
raw = onnx.load("work/06_raw.onnx")
cu.graph_diff("work/06_exported.onnx", raw)

# %% [markdown]
# Fold all of them, with NumPy:

# %%
weights = {t.name: numpy_helper.to_array(t) for t in raw.graph.initializer}
for node in raw.graph.node:  # the file stores equal tensors once, and points to them with Identity
    if node.op_type == "Identity":
        weights[node.output[0]] = weights[node.input[0]]
convolution = {node.output[0]: node for node in raw.graph.node if node.op_type == "Conv"}

by_hand = {}
for node in raw.graph.node:
    if node.op_type == "BatchNormalization":
        kernel = weights[convolution[node.input[0]].input[1]]
        epsilon = onnx.helper.get_node_attr_value(node, "epsilon")
        by_hand[node.output[0]] = fold(kernel, 0, *(weights[name] for name in node.input[1:]), epsilon)
len(by_hand)

# %% [markdown]
# Now the same layers in two other files: the one that the exporter folded, and the one that ONNX Runtime writes at level
# `basic`. `cu.origins` says which `Conv` comes from which pair. Do all three agree?

# %%
pictures = {"image": many[:2]}
folded_by = {"exporter": onnx.load("work/06_exported.onnx"), "runtime": rewritten("work/06_raw.onnx", "raw", "basic")}
named = {node.name: node.output[0] for node in raw.graph.node}
rows = []
for who, graph in folded_by.items():
    values = {t.name: numpy_helper.to_array(t) for t in graph.graph.initializer}
    inputs = {node.output[0]: node.input for node in graph.graph.node}
    table = cu.origins(raw, graph, pictures)
    for row in table[table["from"] == "Conv + BatchNormalization"].itertuples():
        ours = by_hand[named[row.originals.split(", ")[1]]]
        theirs = [values[name] for name in inputs[row.output][1:3]]
        rows.append({"folded by": who, **{n: np.abs(a - b).max() for n, a, b in zip(("kernel", "bias"), ours, theirs)}})
agreement = (
    pd.DataFrame(rows)
    .groupby("folded by")
    .agg(layers=("kernel", "size"), kernel=("kernel", "max"), bias=("bias", "max"))
)
agreement.style.format("{:.1e}", subset=["kernel", "bias"])

# %%
assert (agreement["layers"] == len(by_hand)).all()
assert (agreement[["kernel", "bias"]] <= 1e-6).all(axis=None)

# %% [markdown]
# Nobody has a secret: PyTorch's exporter, ONNX Runtime and four lines of NumPy compute the same weights, to one part in
# a million. And since the exporter folds already, this fusion is usually done before the runtime sees the file.
#
# ## What nchwc means
#
# A picture in a network has the order N, C, H, W: first all numbers of the first channel, then all of the second. A
# vector unit works on 8 or 16 numbers at once. It likes best to have 16 *channels* of one pixel side by side:
# N, C/16, H, W, 16. That is **nchwc**, *c* for the block of channels. We take such a tensor out of the optimised
# graph, and unpack it.

# %%
if nchwc:
    probe = onnx.ModelProto.FromString(tidied["layout"].SerializeToString())
    first = next(node for node in probe.graph.node if node.domain == "com.microsoft.nchwc")
    del probe.graph.output[:]
    probe.graph.output.append(onnx.ValueInfoProto(name=first.output[0]))
    packed = outcome(probe, feed)
    block = next(t.dims[0] for t in probe.graph.initializer if t.name == first.input[1])
    n, c, h, w = packed.shape
    unpacked = packed.reshape(n, c // block, h, w, block).transpose(0, 1, 4, 2, 3).reshape(n, c, h, w)
    probe.CopyFrom(untidy)
    probe.graph.output[0].CopyFrom(onnx.ValueInfoProto(name="relu"))
    assert np.allclose(unpacked, outcome(probe, feed), atol=1e-4)
    print(f"{first.output[0]}, unpacked from blocks of {block} channels, is the tensor relu of the original graph")
else:
    print("This processor has no nchwc kernels: the level layout leaves the order of the numbers alone.")

# %% [markdown]
# The size of the block is the width of *this* processor's vectors, and it is baked into the weights of that file. We come
# back to that.
#
# ## Count the bytes
#
# Why does fusion help? The report says: fewer round trips to memory. Without fusion, `Conv` writes a tensor,
# `BatchNormalization` reads and writes it, `Relu` reads and writes it. How many bytes are that? Shapes tell. `cu.traffic`
# adds up what each node reads from other nodes and what it writes.

# %%
cu.traffic(untidy, feed).head(4)

# %% tags=["remove-input"]
cu.quiz("06_fusion", 4)

# %% [markdown]
# And the trained network, on 16 pictures, at each level:

# %%
batch = {"image": many[:16]}
versions = {level: rewritten("work/06_raw.onnx", "raw", level) for level in ("none", "basic", "extended", "layout")}
moved = pd.Series({v: cu.traffic(g, batch)[["reads", "writes"]].to_numpy().sum() / 2**20 for v, g in versions.items()})

# %%
fast = {v: session_at(f"work/06_raw_{v}.onnx", Level.ORT_DISABLE_ALL) for v in versions}
times = cu.compare({v: lambda s=s: s.run(None, batch) for v, s in fast.items()}, rounds=15, seconds=6)

# %%
import matplotlib.pyplot as plt

_, (left, right) = plt.subplots(1, 2, figsize=(9, 2.8))
left.barh(list(moved.index)[::-1], moved[::-1], color="#56B4E9")
left.set_xlabel("MiB between nodes, per run")
left.set_title(f"Extended moves {moved['extended'] / moved['none']:.0%} of the bytes")
medians = times.table["median ms"]
right.barh(list(medians.index)[::-1], medians[::-1], color="#E69F00")
right.set_xlabel("milliseconds per run")
right.set_title(f"and takes {medians['extended'] / medians['none']:.0%} of the time")
plt.show()

# %% [markdown]
# The bytes fall step by step. The time need not follow: our feature maps are small enough for the cache of the processor,
# and there a round trip is cheap. `layout` is often the fastest, but for another reason: its *kernels* are better. A
# single layer makes that clear. Its feature maps are large, and it computes little:

# %%
layer = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 20]>
    layer (float[1, 32, 256, 256] x) => (float[1, 32, 256, 256] y) {
        conv = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], group = 32> (x, kernel)
        norm = BatchNormalization (conv, scale, shift, mean, variance)
        y = Relu (norm) }""")
for name, shape in {"kernel": (32, 1, 3, 3), **dict.fromkeys(["scale", "shift", "mean", "variance"], (32,))}.items():
    values = draw.uniform(0.5, 1.5, shape).astype(np.float32)
    layer.graph.initializer.append(numpy_helper.from_array(values, name))
onnx.save(layer, "work/06_layer.onnx")
big = {"x": draw.normal(size=(1, 32, 256, 256)).astype(np.float32)}

# %%
steps = {level: rewritten("work/06_layer.onnx", "layer", level) for level in ("none", "basic", "extended", "layout")}
fast = {level: session_at(f"work/06_layer_{level}.onnx", Level.ORT_DISABLE_ALL) for level in steps}
times = cu.compare({level: lambda s=s: s.run(None, big) for level, s in fast.items()}, rounds=12, seconds=5)
tensors = pd.Series(
    {v: cu.traffic(g, big)[["reads", "writes"]].to_numpy().sum() / big["x"].nbytes for v, g in steps.items()}
)
pd.DataFrame({"tensors moved": tensors, "ms": times.table["median ms"]}).style.format("{:.3g}")

# %% [markdown]
# Three nodes move six tensors, one node moves two: the least that is possible. `layout` may move more than `extended`
# here, because it must bring the tensor into its own order and back; in a long chain of convolutions it does that once.
# Compare the times: bytes are one reason for speed, kernels are another.

# %%
cu.claim(
    "fusion-saves-memory-traffic",
    {
        "Conv, BatchNormalization and Relu move six tensors, one FusedConv moves two": tensors["none"] == 6
        and tensors["extended"] == 2,
        "in the trained network the bytes fall from none to basic to extended": moved["none"]
        > moved["basic"]
        > moved["extended"],
        "extended moves less than two thirds of them": moved["extended"] < moved["none"] * 2 / 3,
        "all levels give the same numbers": all(
            np.allclose(outcome(g, batch), outcome(raw, batch), atol=1e-3) for g in versions.values()
        ),
    },
)

# %% [markdown]
# ## When fusion does not fire
#
# An optimiser knows patterns, and it is careful: it fuses only where nobody can notice. We write the layer small, change
# it a little, and ask for `extended` each time.

# %% tags=["remove-input"]
cu.quiz("06_fusion", 5)


# %%
def small(body, inputs="", outputs=""):
    graph = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["": 20]>
        small (float[1, 3, 8, 8] x{inputs}) => (float[1, 4, 8, 8] y{outputs}) {{ {body} }}""")
    for name, shape in {"kernel": (4, 3, 3, 3), **dict.fromkeys(["scale", "shift", "mean", "variance"], (4,))}.items():
        values = np.linspace(0.5, 1.5, np.prod(shape), dtype=np.float32).reshape(shape)
        graph.graph.initializer.append(numpy_helper.from_array(values, name))
    return graph


conv = "c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, kernel) "
norm = "n = BatchNormalization (c, scale, shift, mean, variance) "
cases = {
    "as it should be": small(conv + norm + "y = Relu (n)"),
    "c is an output, too": small(conv + norm + "y = Relu (n)", outputs=", float[1, 4, 8, 8] c"),
    "somebody else reads c": small(conv + norm + "r = Relu (n) y = Add (r, c)"),
    "scale can be fed": small(conv + norm + "y = Relu (n)", inputs=", float[4] scale"),
    "Relu before the norm": small(conv + "r = Relu (c) y = BatchNormalization (r, scale, shift, mean, variance)"),
    "Elu in place of Relu": small(conv + norm + "y = Elu (n)"),
}

# %%
for number, graph in enumerate(cases.values()):
    onnx.save(graph, f"work/06_case_{number}.onnx")
results = {
    case: list(cu.op_histogram(rewritten(f"work/06_case_{number}.onnx", f"case_{number}", "extended")).index)
    for number, case in enumerate(cases)
}
assert results["as it should be"] == ["com.microsoft::FusedConv"]
assert all(len(operators) > 1 for case, operators in results.items() if case != "as it should be")
pd.Series(results, name="nodes at extended").str.join(", ").to_frame()

# %% [markdown]
# Each line has its reason:
#
# - **An output, or another reader.** Fusion would make the tensor `c` disappear, and somebody wants it. A line added for
#   debugging can cost a fusion.
# - **A weight that can be fed.** An initializer that is listed among the inputs is only a default value: a caller may
#   send another one, so it cannot be folded. Old exporters wrote all weights like that.
# - **Order.** `Relu` before the norm is another function. Only `Conv` and `Relu` are fused here.
# - **No such kernel.** `FusedConv` can do `Relu`, `Sigmoid`, `Tanh` and some more, but not `Elu`.
#
# ## Attention
#
# Transformers have larger patterns. Self-attention is about twenty nodes, and ONNX Runtime has one operator for all of
# them, `com.microsoft::Attention`. Here is a small encoder layer. With a mask, it does not look at padding.

# %%
import math

from torch import nn
from torch.nn import functional as F


class Encoder(nn.Module):
    """Token ids int64 [N, 16] and, with masked, a mask of 0 and 1 of the same shape → float32 [N, 16, 64]."""

    def __init__(self, masked):
        super().__init__()
        self.masked = masked
        self.words, self.norm = nn.Embedding(100, 64), nn.LayerNorm(64)
        self.query, self.key, self.value, self.out = (nn.Linear(64, 64) for _ in range(4))
        self.norm1, self.norm2 = nn.LayerNorm(64), nn.LayerNorm(64)
        self.wide, self.narrow = nn.Linear(64, 256), nn.Linear(256, 64)

    def forward(self, ids, mask=None):
        x = self.norm(self.words(ids))
        q, k, v = (f(x).view(-1, 16, 4, 16).transpose(1, 2) for f in (self.query, self.key, self.value))
        scores = q @ k.transpose(2, 3) / math.sqrt(16)
        if self.masked:
            scores = scores + (1.0 - mask[:, None, None, :].to(x.dtype)) * -10000.0
        mixed = (torch.softmax(scores, -1) @ v).transpose(1, 2).reshape(x.shape)
        x = self.norm1(x + self.out(mixed))
        return self.norm2(x + self.narrow(F.gelu(self.wide(x))))


# %% [markdown]
# We export it with and without the mask, by the default exporter and by the older one.

# %%
ids = torch.randint(0, 100, (2, 16))
mask = (torch.arange(16) < torch.tensor([[16], [9]])).long()  # the second text has nine words
ways = {"default": {"external_data": False, "verbose": False}, "dynamo=False": {"dynamo": False, "opset_version": 17}}
files = {}
for masked in (False, True):
    torch.manual_seed(0)
    encoder, inputs = Encoder(masked).eval(), (ids, mask) if masked else (ids,)
    for way, options in ways.items():
        files[way, masked] = f"work/06_encoder_{len(files)}.onnx"
        with cu.exporter_messages():
            torch.onnx.export(
                encoder,
                inputs,
                files[way, masked],
                input_names=["ids", "mask"][: len(inputs)],
                output_names=["y"],
                **options,
            )

# %% [markdown]
# First, what the session does by itself. We ask for all optimisations:

# %%
by_session = {
    key: cu.op_histogram(rewritten(file, f"encoder_{number}", "all"))
    for number, (key, file) in enumerate(files.items())
}
by_session = pd.DataFrame(by_session).fillna(0).astype(int)
by_session.columns = [f"{way}, {'masked' if masked else 'no mask'}" for way, masked in files]
by_session.replace(0, "")

# %% [markdown]
# A session fuses neighbours, for example an `Add` with the `LayerNormalization` behind it. But there is no `Attention`.
# For this, a Python package comes with ONNX Runtime: `onnxruntime.transformers.optimizer`. It wants to know the number of
# heads. Its log says why a pattern did not match, so we listen.

# %%
import logging

from onnxruntime.transformers import optimizer


class Listener(logging.Handler):
    def emit(self, record):
        if "failed to match" in record.getMessage():
            reasons.append(record.getMessage().split(": ")[-1])


reasons = []
for name in ("fusion_attention", "onnxruntime.transformers.fusion_attention"):  # which one depends on the version
    logger = logging.getLogger(name)
    logger.setLevel(logging.DEBUG)
    logger.addHandler(Listener())
    logger.propagate = False


def fuse(file):
    """The optimised model, and the reason given when its attention was not fused."""
    reasons.clear()
    optimized = optimizer.optimize_model(file, model_type="bert", num_heads=4, hidden_size=64, opt_level=0)
    return optimized.model, ", ".join(reasons)


# %%
attention = {key: fuse(file) for key, file in files.items()}
pd.DataFrame(
    {
        "Attention nodes": {
            key: cu.op_histogram(g).get("com.microsoft::Attention", 0) for key, (g, _) in attention.items()
        },
        "all nodes": {key: len(g.graph.node) for key, (g, _) in attention.items()},
        "the log says": {key: reason for key, (_, reason) in attention.items()},
    }
).rename_axis(["exported with", "masked"])

# %% [markdown]
# Three of four fuse. With a mask, the default export does not, and the log says: the path of the mask does not match. So
# we look at the two paths, from the mask to the sum:


# %%
def mask_path(file):
    graph, known, path = onnx.load(file).graph, {"mask"}, []
    for node in graph.node:
        if known & set(node.input) and node.op_type != "Add":
            known.update(node.output)
            path.append(node)
        elif known & set(node.input):
            return path


paths = {way: mask_path(files[way, True]) for way in ways}
pd.Series(
    {way: " → ".join(node.op_type for node in path) for way, path in paths.items()}, name="from the mask"
).to_frame()

# %% [markdown]
# `mask[:, None, None, :]` adds two axes. The older exporter writes one `Unsqueeze` for each. The default one writes a
# single `Unsqueeze` for both. Why? The exporter leaves notes on its nodes:

# %%
merged = paths["default"][0]
notes = {note.key: note.value for note in merged.metadata_props}
notes.get("pkg.onnxscript.rewriter.rule_name")

# %% [markdown]
# The exporter has an optimiser of its own, and this rule of it **merged** two nodes. One fusion has prevented another: the
# pattern for `Attention` was written for two `Unsqueeze`. That is a guess so far. To prove it, we split that one node
# again, change nothing else, and try once more.

# %%
split = onnx.load(files["default", True])
at = [node.name for node in split.graph.node].index(merged.name)
split.graph.initializer.append(numpy_helper.from_array(np.array([1]), "axis_1"))
first = onnx.helper.make_node("Unsqueeze", ["mask", "axis_1"], ["mask_3d"])
second = onnx.helper.make_node("Unsqueeze", ["mask_3d", "axis_1"], list(merged.output))
split.graph.node.pop(at)
split.graph.node.insert(at, second)
split.graph.node.insert(at, first)
onnx.checker.check_model(split, full_check=True)
onnx.save(split, "work/06_split.onnx")
healed, reason = fuse("work/06_split.onnx")
cu.op_histogram(healed).to_frame()

# %%
texts = {"ids": ids.numpy(), "mask": mask.numpy()}
assert "com.microsoft::Attention" not in cu.op_histogram(attention["default", True][0])
assert "com.microsoft::Attention" in cu.op_histogram(healed) and not reason
assert np.allclose(outcome(healed, texts), outcome(onnx.load(files["default", True]), texts), atol=1e-4)

# %% [markdown]
# One node more, and the model gets shorter by a third. The result is the same. Which nodes are in the new one?

# %%
origins = cu.origins(split, healed, texts)
inside = origins.set_index("node").loc["com.microsoft::Attention", "from"].split(" + ")
assert inside.count("MatMul") == 5
pd.Series(inside, name="in Attention").value_counts().to_frame().T

# %% [markdown]
# Three `MatMul` for query, key and value, and two for the scores and the mix, with all that lies between. A pattern does
# not know what your model *means*. It knows a list of node names. Another exporter, another version, another way to write
# the same formula, and it may not match. So look at the histogram after the optimiser has run. Silence is not success.
#
# ## Read the profile
#
# Where does the time go, and does it go elsewhere after optimisation? `enable_profiling` writes each node of each run
# into a JSON file.

# %%
import json
from pathlib import Path


def profile(level, runs=5):
    """Milliseconds per run, summed by operator."""
    options = ort.SessionOptions()
    options.graph_optimization_level = LEVELS[level]
    options.intra_op_num_threads = 1
    options.enable_profiling = True
    options.profile_file_prefix = "work/06_profile"
    session = ort.InferenceSession("work/06_raw.onnx", options, providers=["CPUExecutionProvider"])
    for _ in range(runs):
        session.run(None, batch)
    record = Path(session.end_profiling())
    events = pd.DataFrame(json.loads(record.read_text()))
    record.unlink()
    nodes = events[events["name"].str.endswith("_kernel_time")]
    return nodes["dur"].groupby(nodes["args"].str["op_name"]).sum() / 1000 / runs


# %%
profiles = pd.DataFrame({level: profile(level) for level in ("none", "extended", "all")})
assert {"BatchNormalization", "Relu"} <= set(profiles["none"].dropna().index)
assert "BatchNormalization" not in profiles["extended"].dropna()
profiles.sort_values("none", ascending=False).style.format("{:.3f}", na_rep="")

# %% [markdown]
# Milliseconds per operator, for 16 pictures. Read it from the top: as long as `Conv` takes most of the time, all other
# nodes together cannot save more than the rest. That is why folding BatchNorm alone changes little here. At level `all`
# the operators are called `Conv` again, but they are the nchwc ones.
#
# ## Optimise once, and keep the file
#
# Each new session repeats all that work. The file that `optimized_model_filepath` writes can be used again: load it with
# all optimisations off. How long does a session take to create, for both ways?

# %%
starts = cu.compare(
    {
        "optimise at start": lambda: session_at("work/06_raw.onnx", Level.ORT_ENABLE_EXTENDED),
        "optimised before": lambda: session_at("work/06_raw_extended.onnx", Level.ORT_DISABLE_ALL),
    },
    rounds=12,
    seconds=4,
)
starts

# %% [markdown]
# But is it still a file for everybody? We ask three times: which other dictionaries does it need, what does the checker
# say, and does another runtime run it? The reference evaluator of the `onnx` package stands for the other runtime. Which
# of the five files do you expect it to run?

# %%
from onnx.reference import ReferenceEvaluator


def other_runtime(graph):
    try:
        ReferenceEvaluator(graph).run(None, feed)
        return "runs it"
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0].split(', known')[0]}"


def checker(graph):
    onnx.checker.check_model(graph, full_check=True)
    return "accepts it"


portable = pd.DataFrame(
    {
        "domains used": {
            v: ", ".join(sorted({n.domain or "ai.onnx" for n in g.graph.node})) for v, g in tidied.items()
        },
        "onnx.checker": {v: checker(g) for v, g in tidied.items()},
        "another runtime": {v: other_runtime(g) for v, g in tidied.items()},
    }
)
assert portable.loc["basic", "another runtime"] == "runs it"
assert "FusedConv" in portable.loc["extended", "another runtime"]
portable

# %% [markdown]
# | level | where the file runs |
# |---|---|
# | basic | anywhere: standard operators only |
# | extended | ONNX Runtime on a CPU, and a version of it that knows these operators |
# | layout, all | ONNX Runtime on this kind of processor: the block size is in the weights |
#
# The checker is no help, because it does not look into domains that it does not know. ONNX Runtime does warn when you
# save at `layout`: *the generated model may contain hardware specific optimizations, and should only be used in the same
# environment*. So ship the file of the exporter, or the one of `basic`, and let each machine do the rest.
#
# ## Play
#
# Choose a model and move through the levels. A coloured edge says what happened to a node: green was fused, blue was
# rewritten, orange was inserted. Which level inserts nodes? Which model gains the most?

# %%
cu.level_explorer(
    {
        "untidy": (untidy, feed),
        "fashion_resnet, as PyTorch has it": (raw, pictures),
        "fashion_resnet, as exported": ("work/06_exported.onnx", pictures),
        "encoder": (files["default", False], {"ids": ids.numpy()}),
    }
)

# %% [markdown]
# ## Recap
#
# - *Basic* removes, folds, and fuses already: BatchNorm goes into the convolution. Exporters do that before.
# - *Extended* adds operators of ONNX Runtime, such as `FusedConv`. *Layout* reorders the numbers for your processor.
# - Folding BatchNorm is one factor for each output channel, and a new bias.
# - Fusion saves bytes. Whether it saves time depends on the kernels and on the cache: measure it.
# - A pattern matches exactly or not at all. Another reader, an extra output, a merged node: look at the histogram.
# - An optimised file is tied to its runtime, and from *layout* on to the processor.
#
# **Next:** the [exercises of this lesson](exercises/06_fusion.ipynb). After them, `07_quantization` makes the numbers
# themselves smaller.
