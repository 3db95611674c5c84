# %% [markdown]
# # 06 · Fusion
#
# A session does not run the graph that you gave it. It rewrites the graph first: it removes nodes, computes others
# beforehand, and merges several into one. The last step is called **fusion**. In this lesson we watch it at work, find
# out for every new node where it comes from, and do the most important fusion by hand.
#
# After this lesson you will be able to
#
# - say what each optimisation level does to your graph, node by node,
# - fold a BatchNorm into a convolution with NumPy,
# - count the bytes that fusion saves, and read a profile,
# - find out why a fusion does not happen.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## Before any optimisation
#
# The report says that conversion alone often makes a model faster, because the runtime has no Python overhead. To test
# *conversion alone*, we must switch the optimisations of the runtime off. The option for it is
# [`graph_optimization_level`](https://onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html).

# %%
import onnxruntime as ort
import torch

model = cu.fashion_resnet()
picture = torch.randn(2, 1, 28, 28)
names = {"input_names": ["image"], "output_names": ["logits"]}
dynamic = {"dynamic_shapes": ({0: torch.export.Dim("batch")},)}
with cu.exporter_messages():
    torch.onnx.export(
        model,
        (picture,),
        "work/06_exported.onnx",
        **names,
        **dynamic,
        external_data=False,
        verbose=False,
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
images = cu.normalize(cu.fashion_mnist("test")[0][:64])


@torch.inference_mode()
def in_torch(batch=images[:1]):
    return model(torch.from_numpy(batch)).numpy()


def in_ort(batch=images[:1]):
    return plain.run(None, {"image": batch})[0]


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


with Count() as counter:
    in_torch()
nodes = int(cu.op_histogram("work/06_exported.onnx").sum())
{"operators started by PyTorch": counter.started, "nodes in the file": nodes}

# %% [markdown]
# The file has fewer, because the exporter has already tidied up. Now the time, for one picture and for 64. All
# optimisations are still off.

# %%
import pandas as pd


def timed(batch):
    candidates = {
        "PyTorch": lambda: in_torch(batch),
        "ONNX Runtime": lambda: in_ort(batch),
    }
    return cu.compare(candidates, threads=1, rounds=12, seconds=5).table[
        "median ms"
    ]


pd.DataFrame(
    {"1 picture, ms": timed(images[:1]), "64 pictures, ms": timed(images)}
).style.format("{:.3g}")

# %% [markdown]
# With one picture there is little to compute, and the overhead counts. With 64, the kernels decide: without its
# optimisations, ONNX Runtime may gain little there, or may even lose. So *often* is the right word. The evidence is what
# we counted: a time is shown, never asserted.

# %%
import numpy as np

same = np.allclose(in_ort(images), in_torch(images), atol=1e-4)
cu.claim(
    "conversion-alone-is-faster",
    {
        "with all optimisations off, the file gives PyTorch's numbers": same,
        "PyTorch makes more than 100 Python calls for one picture": calls["PyTorch"]
        > 100,
        "the runtime makes less than a fifth of them": calls["ONNX Runtime"]
        < calls["PyTorch"] / 5,
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
shapes = {
    "kernel": (16, 3, 3, 3),
    "kernel2": (16, 16, 3, 3),
    "matrix": (16, 10),
    "bias": (10,),
    "log_gain": (16, 1, 1),
}
shapes |= dict.fromkeys(["scale", "shift", "mean", "variance"], (16,))
for name, shape in shapes.items():
    sign = 1 if name == "variance" else draw.choice([-1, 1], shape)
    values = (sign * draw.uniform(0.5, 1.5, shape)).astype(np.float32)
    untidy.graph.initializer.append(numpy_helper.from_array(values, name))
onnx.checker.check_model(untidy, full_check=True)
onnx.save(untidy, "work/06_untidy.onnx")
feed = {"x": draw.normal(size=(1, 3, 32, 32)).astype(np.float32)}

# %% [markdown]
# ONNX Runtime has five levels; the last one, *all*, is the default. With `optimized_model_filepath` a session writes down the graph that it is going to run.
# We create one session per level, and keep what each of them wrote.

# %%
LEVELS = {
    "none": Level.ORT_DISABLE_ALL,
    "basic": Level.ORT_ENABLE_BASIC,
    "extended": Level.ORT_ENABLE_EXTENDED,
}
LEVELS |= {"layout": Level.ORT_ENABLE_LAYOUT, "all": Level.ORT_ENABLE_ALL}


def optimized(file, level):
    """The graph that a session at this level runs."""
    options = ort.SessionOptions()
    options.graph_optimization_level = LEVELS[level]
    options.optimized_model_filepath = file.replace(".onnx", f"_{level}.onnx")
    options.log_severity_level = (
        3  # it warns about the level "layout"; we come to that
    )
    ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return onnx.load(options.optimized_model_filepath)


tidied = {level: optimized("work/06_untidy.onnx", level) for level in LEVELS}

# %% tags=["remove-input"]
cu.quiz("06_fusion", 2)

# %%
histograms = (
    pd.DataFrame({level: cu.op_histogram(graph) for level, graph in tidied.items()})
    .fillna(0)
    .astype(int)
)
histograms.loc["all nodes"] = histograms.sum()
histograms.replace(0, "")

# %% [markdown]
# Level by level, the graph gets shorter and its operators become stranger. `com.microsoft` is the domain of
# [ONNX Runtime's own operators](https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md). The numbers
# that come out stay the same, up to rounding:


# %%
def outcome(graph, feed):
    options = ort.SessionOptions()
    options.graph_optimization_level = Level.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feed)[0]


reference = outcome(untidy, feed)
delta = {
    level: float(np.abs(outcome(graph, feed) - reference).max())
    for level, graph in tidied.items()
}
assert max(delta.values()) < 1e-4 * np.abs(reference).max()
pd.Series(delta, name="largest difference").to_frame().style.format("{:.1e}")

# %% [markdown]
# ## Where does a node come from?
#
# A table of counts does not say **which** nodes became one. For a first answer we look at names. An optimiser that merges
# three nodes into one keeps the name of the last tensor, because others read it. So names that are gone were inside.

# %%
written = {
    level: {name for node in graph.graph.node for name in node.output}
    for level, graph in tidied.items()
}
for before, after in [
    ("none", "basic"),
    ("basic", "extended"),
    ("extended", "layout"),
]:
    print(
        f"gone from {before} to {after}:",
        ", ".join(sorted(written[before] - written[after])) or "none",
    )

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
def weights_of(graph):
    return {t.name: numpy_helper.to_array(t) for t in graph.graph.initializer}


gone = basic[basic["node"] == ""].set_index("from")["what"]
log_gain, gain = weights_of(untidy)["log_gain"], weights_of(tidied["basic"])["gain"]
cu.claim(
    "basic-removes-redundancy",
    {
        "at level none, Identity and Dropout are there": {"Identity", "Dropout"}
        <= set(histograms.index[histograms["none"] > 0]),
        "at level basic they are gone; they had changed no value": (
            gone[["Identity", "Dropout"]] == "removed"
        ).all(),
        "Exp of a constant is gone, too": gone["Exp"] == "folded",
        "its result is among the weights": np.allclose(gain, np.exp(log_gain)),
        "the model still computes the same": delta["basic"]
        < 1e-4 * np.abs(reference).max(),
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
# What is a `FusedConv`?

# %%
cu.node_table(tidied["extended"]).loc[[0], ["op", "inputs", "attributes"]]

# %% [markdown]
# It is a `Conv` with an attribute `activation`: it applies the `Relu` to each number before it writes it. The
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
tables = {"basic": basic, "extended": extended, "layout": layout}
fused = {
    level: list(table.loc[table["what"] == "fused", "from"])
    for level, table in tables.items()
}
has_nchwc = any(
    "nchwc" in operator for operator in cu.op_histogram(tidied["layout"]).index
)
exported = onnx.load("work/06_exported.onnx")

cu.claim(
    "fusion-is-extended",
    {
        "basic already fuses Conv + BatchNormalization": "Conv + BatchNormalization"
        in fused["basic"],
        "and MatMul + Add": "MatMul + Add" in fused["basic"],
        "extended adds the Relu": "Conv + BatchNormalization + Relu"
        in fused["extended"],
        "it leaves Conv + Add + Relu alone": not any(
            "Conv + Add" in f for f in fused["extended"]
        ),
        "where there is nchwc, layout fuses that, too": not has_nchwc
        or "Conv + Add + Relu" in fused["layout"],
        "an exported model has no BatchNorm left": "BatchNormalization"
        not in cu.op_histogram(exported),
    },
)

# %% [markdown]
# ## Fold a BatchNorm by hand
#
# Why can a [`BatchNormalization`](https://onnx.ai/onnx/operators/onnx__BatchNormalization.html) disappear? In inference
# it is a straight line for each channel: subtract a mean, divide by a deviation, multiply, add. A convolution is
# linear, too. Two linear steps are one:
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
    options = {
        "dynamo": False,
        "do_constant_folding": False,
        "dynamic_axes": {"image": {0: "batch"}},
    }
    torch.onnx.export(model, (picture,), "work/06_raw.onnx", **names, **options)
raw = onnx.load("work/06_raw.onnx")
cu.graph_diff(exported, raw)

# %% [markdown]
# Fold all of them, with NumPy:

# %%
weights = weights_of(raw)
# The file stores equal tensors once, and points to them with Identity.
weights |= {
    n.output[0]: weights[n.input[0]]
    for n in raw.graph.node
    if n.op_type == "Identity"
}
writer = {node.output[0]: node for node in raw.graph.node}

by_hand = {}
for node in raw.graph.node:
    if node.op_type == "BatchNormalization":
        kernel = weights[writer[node.input[0]].input[1]]
        epsilon = onnx.helper.get_node_attr_value(node, "epsilon")
        by_hand[node.name] = fold(
            kernel, 0, *(weights[name] for name in node.input[1:]), epsilon
        )
assert len(by_hand) == 15

# %% [markdown]
# Now the same layers in two other files: the one that the exporter folded, and the one that ONNX Runtime writes at level
# `basic`. `cu.origins` says which `Conv` comes from which pair. Do all three agree?

# %%
pictures = {"image": images[:2]}


def largest_difference(graph):
    """Between our folded weights and those in a file: layers compared, kernel, bias."""
    table, found = cu.origins(raw, graph, pictures), weights_of(graph)
    read = {node.output[0]: node.input for node in graph.graph.node}
    pairs = table[table["from"] == "Conv + BatchNormalization"]
    ours = [by_hand[names.split(", ")[1]] for names in pairs["originals"]]
    theirs = [
        [found[name] for name in read[output][1:3]] for output in pairs["output"]
    ]
    return len(ours), *(
        max(np.abs(a[i] - b[i]).max() for a, b in zip(ours, theirs)) for i in (0, 1)
    )


# %%
folded_by = {
    "exporter": exported,
    "runtime": optimized("work/06_raw.onnx", "basic"),
}
agreement = pd.DataFrame(
    map(largest_difference, folded_by.values()),
    folded_by,
    ["layers", "kernel", "bias"],
)
assert (agreement["layers"] == len(by_hand)).all()
assert (agreement[["kernel", "bias"]] <= 1e-6).all(axis=None)
agreement.rename_axis("folded by").style.format("{:.1e}", subset=["kernel", "bias"])

# %% [markdown]
# PyTorch's exporter, ONNX Runtime and three lines of NumPy compute the same weights, to one part in
# a million. And since the exporter folds already, this fusion is usually done before the runtime sees the file.
#
# ## What nchwc means
#
# A picture in a network has the order N, C, H, W: first all numbers of the first channel, then all of the second. A
# vector unit works on 8 or 16 numbers at once. It likes best to have as many *channels* of one pixel side by side:
# N, C/16, H, W, 16, for example. That is **nchwc**, *c* for the block of channels. We take such a tensor out of the optimised
# graph, and unpack it. With which size of a block does it give the numbers of the original graph?


# %%
def tensor_inside(graph, name):
    probe = onnx.ModelProto.FromString(graph.SerializeToString())
    del probe.graph.output[:]
    probe.graph.output.append(onnx.ValueInfoProto(name=name))
    return outcome(probe, feed)


# %%
def unpacked(tensor, block):
    n, c, h, w = tensor.shape
    return (
        tensor.reshape(n, c // block, h, w, block)
        .transpose(0, 1, 4, 2, 3)
        .reshape(n, c, h, w)
    )


relu = tensor_inside(untidy, "relu")
if has_nchwc:
    first = next(
        node for node in tidied["layout"].graph.node if node.op_type == "Conv"
    )
    packed = tensor_inside(tidied["layout"], first.output[0])
    (block,) = [
        size
        for size in (4, 8, 16)
        if np.allclose(unpacked(packed, size), relu, atol=1e-4)
    ]
    print(
        f"{first.output[0]}, unpacked from blocks of {block}, is the tensor relu of the original graph"
    )
else:
    print(
        "No nchwc kernels for this processor: the order of the numbers stays as it is."
    )

# %% [markdown]
# The size of the block is the width of *this* processor's vectors, and it is baked into the weights of that file. We come
# back to that.
#
# ## Count the bytes
#
# Why does fusion help? The report says: fewer round trips to memory. Without fusion, `Conv` writes a tensor,
# `BatchNormalization` reads and writes it, `Relu` reads and writes it. How many bytes are that? Shapes tell. `cu.traffic`
# adds up what each node reads from other nodes and what it writes.

# %% tags=["remove-input"]
cu.picture("fused_node")

# %%
cu.traffic(untidy, feed).head(4)

# %% tags=["remove-input"]
cu.quiz("06_fusion", 4)

# %% [markdown]
# And the trained network, on 16 pictures, at each level:

# %%
batch = {"image": images[:16]}
four = ["none", "basic", "extended", "layout"]


def measured(file, feed):
    """For each level: bytes between the nodes, and median milliseconds per run."""
    graphs = {level: optimized(file, level) for level in four}
    moved = pd.Series(
        {
            level: cu.traffic(g, feed)[["reads", "writes"]].sum().sum()
            for level, g in graphs.items()
        }
    )
    sessions = {level: session_at(file, LEVELS[level]) for level in four}
    runs = {level: lambda s=s: s.run(None, feed) for level, s in sessions.items()}
    return graphs, moved, cu.compare(runs, rounds=12, seconds=5).table["median ms"]


versions, moved, ms = measured("work/06_raw.onnx", batch)

# %%
import matplotlib.pyplot as plt

_, (left, right) = plt.subplots(1, 2, figsize=(9, 2.8))
left.barh(four[::-1], moved[::-1] / 2**20, color="#56B4E9")
left.set_xlabel("MiB between nodes, per run")
left.set_title(
    f"Extended moves {moved['extended'] / moved['none']:.0%} of the bytes"
)
right.barh(four[::-1], ms[::-1], color="#E69F00")
right.set_xlabel("milliseconds per run")
right.set_title(f"and takes {ms['extended'] / ms['none']:.0%} of the time")
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
for name, shape in {
    "kernel": (32, 1, 3, 3),
    **dict.fromkeys(["scale", "shift", "mean", "variance"], (32,)),
}.items():
    values = draw.uniform(0.5, 1.5, shape).astype(np.float32)
    layer.graph.initializer.append(numpy_helper.from_array(values, name))
onnx.save(layer, "work/06_layer.onnx")
big = {"x": draw.normal(size=(1, 32, 256, 256)).astype(np.float32)}

# %%
_, bytes_moved, ms = measured("work/06_layer.onnx", big)
tensors = bytes_moved / big["x"].nbytes
pd.DataFrame({"tensors moved": tensors, "ms": ms}).style.format("{:.3g}")

# %% [markdown]
# Three nodes move six tensors, one node moves two: the least that is possible. `layout` may move more than `extended`
# here, because it must bring the tensor into its own order and back; in a long chain of convolutions it does that once.
# Compare the times: bytes are one reason for speed, kernels are another.

# %%
same = [
    np.allclose(outcome(graph, batch), outcome(raw, batch), atol=1e-3)
    for graph in versions.values()
]
cu.claim(
    "fusion-saves-memory-traffic",
    {
        "Conv, BatchNormalization and Relu move six tensors": tensors["none"] == 6,
        "one FusedConv moves two": tensors["extended"] == 2,
        "in the trained network the bytes fall at basic": moved["basic"]
        < moved["none"],
        "and again at extended, to less than two thirds": moved["extended"]
        < moved["none"] * 2 / 3,
        "all levels give the same numbers": all(same),
    },
)

# %% [markdown]
# ## When fusion does not fire
#
# An optimiser knows patterns, and it is careful: it fuses only where nobody can notice. We write the layer small, change
# it a little, and ask for `extended` each time. `cu.optimized` is our function of above, without a file.

# %% tags=["remove-input"]
cu.quiz("06_fusion", 5)


# %%
def small(body, inputs="", outputs=""):
    graph = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["": 20]>
        small (float[1, 3, 8, 8] x{inputs}) => (float[1, 4, 8, 8] y{outputs}) {{ {body} }}""")
    for name, shape in {
        "kernel": (4, 3, 3, 3),
        **dict.fromkeys(["scale", "shift", "mean", "variance"], (4,)),
    }.items():
        values = np.linspace(0.5, 1.5, np.prod(shape), dtype=np.float32).reshape(
            shape
        )
        graph.graph.initializer.append(numpy_helper.from_array(values, name))
    return graph


conv = "c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, kernel) "
norm = "n = BatchNormalization (c, scale, shift, mean, variance) "
cases = {
    "as it should be": small(conv + norm + "y = Relu (n)"),
    "c is an output, too": small(
        conv + norm + "y = Relu (n)", outputs=", float[1, 4, 8, 8] c"
    ),
    "somebody else reads c": small(conv + norm + "r = Relu (n) y = Add (r, c)"),
    "a leftover node reads c": small(
        conv + norm + "left = Sigmoid (c) y = Relu (n)"
    ),
    "scale can be fed": small(
        conv + norm + "y = Relu (n)", inputs=", float[4] scale"
    ),
    "Relu before the norm": small(
        conv
        + "r = Relu (c) y = BatchNormalization (r, scale, shift, mean, variance)"
    ),
    "Sigmoid in place of Relu": small(conv + norm + "y = Sigmoid (n)"),
    "Elu in place of Relu": small(conv + norm + "y = Elu (n)"),
}

# %%
results = {
    case: list(cu.op_histogram(cu.optimized(graph, "extended")).index)
    for case, graph in cases.items()
}
one_node = [
    case
    for case, operators in results.items()
    if operators == ["com.microsoft::FusedConv"]
]
assert one_node == ["as it should be", "Sigmoid in place of Relu"]
pd.Series(results, name="nodes at extended").str.join(", ").to_frame()

# %% [markdown]
# Each line has its reason:
#
# - **An output, or another reader.** Fusion would make the tensor `c` disappear, and somebody wants it. A line added for
#   debugging can cost a fusion, even when nobody reads its result: the session does not remove such a node.
# - **A weight that can be fed.** An initializer that is listed among the inputs is only a default value: a caller may
#   send another one, so it cannot be folded. Old exporters wrote all weights like that.
# - **Order.** `Relu` before the norm is another function. Only `Conv` and `Relu` are fused here.
# - **No such kernel.** `FusedConv` can do `Relu`, `Sigmoid` and some more, but not `Elu`.
#
# ## Attention
#
# Transformers have larger patterns. Self-attention is about twenty nodes, and ONNX Runtime has one operator for all of
# them, `com.microsoft::Attention`. Here is a small attention layer of three kinds: without a mask; with one, so that it
# does not look at padding; and the same with the function that is built into PyTorch.

# %%
import math

from torch import nn
from torch.nn import functional as F


class Attention(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.query, self.key, self.value = (nn.Linear(64, 64) for _ in range(3))

    def forward(self, x, mask):
        q, k, v = (
            f(x).view(-1, 16, 4, 16).transpose(1, 2)
            for f in (self.query, self.key, self.value)
        )
        penalty = (
            0.0
            if mask is None
            else (1.0 - mask[:, None, None, :].to(x.dtype)) * -10000.0
        )
        if self.kind == "built in":
            return (
                F.scaled_dot_product_attention(q, k, v, attn_mask=penalty)
                .transpose(1, 2)
                .reshape(x.shape)
            )
        scores = q @ k.transpose(2, 3) / math.sqrt(16)
        scores = scores if mask is None else scores + penalty
        return (torch.softmax(scores, -1) @ v).transpose(1, 2).reshape(x.shape)


# %% [markdown]
# Around it, the rest of an encoder:


# %%
class Encoder(nn.Module):
    """Token ids int64 [N, 16], and a mask of 0 and 1 of the same shape → float32 [N, 16, 64]."""

    def __init__(self, kind):
        super().__init__()
        self.words, self.norm, self.mix = (
            nn.Embedding(100, 64),
            nn.LayerNorm(64),
            Attention(kind),
        )
        self.out, self.wide, self.narrow = (
            nn.Linear(64, 64),
            nn.Linear(64, 256),
            nn.Linear(256, 64),
        )
        self.norm1, self.norm2 = nn.LayerNorm(64), nn.LayerNorm(64)

    def forward(self, ids, mask=None):
        x = self.norm(self.words(ids))
        x = self.norm1(x + self.out(self.mix(x, mask)))
        return self.norm2(x + self.narrow(F.gelu(self.wide(x))))


# %% [markdown]
# We export each kind twice, by the default exporter and by the older one.

# %%
ids = torch.randint(0, 100, (2, 16))
mask = (
    torch.arange(16) < torch.tensor([[16], [9]])
).long()  # the second text has nine words
ways = {
    "default": {"external_data": False, "verbose": False},
    "older": {"dynamo": False, "opset_version": 17},
}
encoders = {}
for kind, inputs in {
    "no mask": (ids,),
    "masked": (ids, mask),
    "built in": (ids, mask),
}.items():
    encoder = Encoder(kind).eval()
    for way, options in ways.items():
        file = f"work/06_encoder_{len(encoders)}.onnx"
        with cu.exporter_messages():
            torch.onnx.export(
                encoder,
                inputs,
                file,
                input_names=["ids", "mask"][: len(inputs)],
                **options,
            )
        encoders[way, kind] = onnx.load(file)

# %% [markdown]
# First, what the session does by itself. We ask for all optimisations:

# %%
by_session = {
    kind: cu.op_histogram(cu.optimized(g, "all"))
    for (way, kind), g in encoders.items()
    if way == "default"
}
by_session = pd.DataFrame(by_session).fillna(0).astype(int)
assert "com.microsoft::Attention" not in by_session.index
by_session.replace(0, "")

# %% [markdown]
# A session fuses neighbours, for example an `Add` with the `LayerNormalization` behind it. But there is no `Attention`.
# For this, a Python package comes with ONNX Runtime:
# [`onnxruntime.transformers.optimizer`](https://onnxruntime.ai/docs/performance/transformers-optimization.html). It
# wants to know the number of heads. Its log says why a pattern did not match, so we listen.

# %%
import logging

reasons = []
listener = logging.Handler(logging.DEBUG)
listener.emit = lambda record: reasons.append(record.getMessage())
for name in (
    "fusion_attention",
    "onnxruntime.transformers.fusion_attention",
):  # which one depends on the version
    logger = logging.getLogger(name)
    logger.setLevel(logging.DEBUG)
    logger.addHandler(listener)
    logger.propagate = False

# %%
from onnxruntime.transformers import optimizer


def fuse(graph):
    """The optimised model, and what its log says about a failed match."""
    reasons.clear()
    onnx.save(graph, "work/06_to_fuse.onnx")
    done = optimizer.optimize_model(
        "work/06_to_fuse.onnx", "bert", num_heads=4, hidden_size=64, opt_level=0
    )
    return done.model, ", ".join(r for r in reasons if "failed to match" in r)


# %%
attempts = {key: fuse(graph) for key, graph in encoders.items()}
rows = [
    (cu.op_histogram(g).get("com.microsoft::Attention", 0), len(g.graph.node), why)
    for g, why in attempts.values()
]
columns = ["Attention nodes", "all nodes", "the log says"]
pd.DataFrame(
    rows, pd.MultiIndex.from_tuples(attempts, names=["exporter", "kind"]), columns
)

# %% [markdown]
# With the older exporter all three fuse. With the default one, a mask prevents it, and the log says where the match
# stopped. First the kind *masked*, where the path of the mask does not match. So
# we look at the two paths, from the mask to the sum:


# %%
def mask_path(graph):
    known, path = {"mask"}, []
    for node in graph.graph.node:
        if known & set(node.input) and node.op_type != "Add":
            known.update(node.output)
            path.append(node)
    return path


paths = {way: mask_path(encoders[way, "masked"]) for way in ways}
pd.Series(
    {way: " → ".join(n.op_type for n in path) for way, path in paths.items()},
    name="from the mask",
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
split = onnx.ModelProto.FromString(
    encoders["default", "masked"].SerializeToString()
)
nodes = split.graph.node
at = [node.name for node in nodes].index(merged.name)
axes = next(t for t in split.graph.initializer if t.name == merged.input[1])
axes.CopyFrom(
    numpy_helper.from_array(np.array([1]), "axis_1")
)  # in place of [1, 2]
nodes.pop(at)
nodes.insert(
    at,
    onnx.helper.make_node("Unsqueeze", ["mask_3d", "axis_1"], list(merged.output)),
)
nodes.insert(
    at, onnx.helper.make_node("Unsqueeze", ["mask", "axis_1"], ["mask_3d"])
)
onnx.checker.check_model(split, full_check=True)
healed, reason = fuse(split)
cu.op_histogram(healed).to_frame()

# %%
texts = {"ids": ids.numpy(), "mask": mask.numpy()}
before = attempts["default", "masked"][0]
assert "com.microsoft::Attention" not in cu.op_histogram(before)
assert "com.microsoft::Attention" in cu.op_histogram(healed) and not reason
assert len(healed.graph.node) < len(before.graph.node) / 2
assert np.allclose(outcome(healed, texts), outcome(split, texts), atol=1e-4)

# %% [markdown]
# One more node went in, and less than half of the nodes came out. The result is the same. Which nodes are in the new one?

# %%
table = cu.origins(split, healed, texts)
inside = (
    table.set_index("node").loc["com.microsoft::Attention", "from"].split(" + ")
)
assert inside.count("MatMul") == 5
pd.Series(inside, name="in Attention").value_counts().to_frame().T

# %% [markdown]
# Three `MatMul` for query, key and value, and two for the scores and the mix, with all that lies between.
#
# Now the kind *built in*. Its log says that the path of the scores, *qk*, does not match. For the built-in function the
# pattern looks for a `Sqrt`, because PyTorch divides by the root of the size. How many are there?

# %%
roots = {
    way: int(cu.op_histogram(encoders[way, "built in"]).get("Sqrt", 0))
    for way in ways
}
assert roots["default"] == 0 < roots["older"]
roots

# %% [markdown]
# The default exporter has computed the root beforehand: constant folding has removed what the pattern looks for. The log
# names the first obstacle only; there may be more behind it.
#
# A pattern does not know what your model *means*. It knows a list of node names. Another exporter, another version,
# another way to write the same formula, and it may not match. So look at the histogram after the optimiser has run.
# Silence is not success.
#
# ### A trained encoder
#
# Does a real model behave like our small one? [MiniLM](https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2)
# turns a sentence into 384 numbers. It has six layers with 12 heads each, and comes in a package of its own. Where that
# is not installed, the next cells do nothing.

# %%
folder = cu.minilm()
if folder:
    from IPython.display import display
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    sentences = [
        "A cat sits on the mat.",
        "There is a kitten on the rug, and it sleeps.",
    ]
    tokens = tokenizer(sentences, padding=True, return_tensors="pt")
    tokens = tokens["input_ids"], tokens["attention_mask"]

# %% [markdown]
# The library has two ways to compute attention: *eager*, step by step, and *sdpa*, with PyTorch's built-in function. This
# class holds the model and says which two inputs and which output we want:


# %%
class MiniLM(nn.Module):
    """Token ids and mask, int64 [N, length] → a vector for each token, float32 [N, length, 384]."""

    def __init__(self, attention):
        super().__init__()
        self.bert = AutoModel.from_pretrained(folder, attn_implementation=attention)

    def forward(self, ids, mask):
        return self.bert(input_ids=ids, attention_mask=mask).last_hidden_state


# %% [markdown]
# We export it three times, with a free number of sentences and a free length, and let the optimiser look for attention.


# %%
def export_minilm(attention, way, file):
    names = {"input_names": ["ids", "mask"], "output_names": ["words"]}
    free = {0: "batch", 1: "length"}
    dims = {axis: torch.export.Dim(name) for axis, name in free.items()}
    shapes = {
        "default": {"dynamic_shapes": (dims, dims)},
        "older": {"dynamic_axes": {"ids": free, "mask": free}},
    }
    with cu.exporter_messages():
        torch.onnx.export(
            MiniLM(attention).eval(),
            tokens,
            file,
            **names,
            **ways[way],
            **shapes[way],
        )


# %%
import time
from pathlib import Path


def fuse_minilm(attention, way):
    file, fused_file = (
        f"work/06_minilm_{attention}_{way}.onnx",
        f"work/06_minilm_{attention}_{way}_fused.onnx",
    )
    start = time.perf_counter()
    export_minilm(attention, way, file)
    seconds = time.perf_counter() - start
    reasons.clear()
    done = optimizer.optimize_model(
        file, "bert", num_heads=12, hidden_size=384, opt_level=0
    )
    done.save_model_to_file(fused_file)
    why = next((reason for reason in reasons if "failed to match" in reason), "")
    before, size = len(onnx.load(file).graph.node), Path(file).stat().st_size / 1e6
    found = cu.op_histogram(done.model).get("com.microsoft::Attention", 0)
    return found, before, len(done.model.graph.node), seconds, size, why


# %%
if folder:
    three = [("sdpa", "older"), ("eager", "older"), ("eager", "default")]
    found = pd.DataFrame(
        [fuse_minilm(*key) for key in three], pd.MultiIndex.from_tuples(three)
    )
    found.columns = [
        "Attention nodes",
        "nodes before",
        "nodes after",
        "export, s",
        "MB",
        "the log says",
    ]
    assert list(found["Attention nodes"]) == [0, 6, 0]
    display(found.round(1))

# %% [markdown]
# It is the same story. Only one of three fuses: the older exporter, with attention written step by step. All six layers
# are found then, and of several hundred nodes less than a hundred are left. The default exporter fails at the mask, as
# before. And *sdpa* fails without a word in the log. Look at the export, too: the older exporter is several times quicker
# with this model, and the files have the same size.
#
# Is the fused file faster? First be sure that it computes the same, then time both with longer texts. Both sessions run
# with all optimisations, so we also count the nodes that are left when they run.

# %%
if folder:
    words = np.random.default_rng(0).integers(1000, 20000, (4, 64))
    longer = {"ids": words, "mask": np.ones_like(words)}
    both = {
        "as exported": "work/06_minilm_eager_older.onnx",
        "fused": "work/06_minilm_eager_older_fused.onnx",
    }
    in_file = [len(onnx.load(file).graph.node) for file in both.values()]
    running = [len(cu.optimized(file, "all").graph.node) for file in both.values()]
    both = {
        name: session_at(file, Level.ORT_ENABLE_ALL) for name, file in both.items()
    }
    vectors = [session.run(None, longer)[0] for session in both.values()]
    assert np.allclose(*vectors, atol=1e-4)
    race = cu.compare(
        {name: lambda s=s: s.run(None, longer) for name, s in both.items()},
        rounds=10,
        seconds=5,
    )
    nodes = {"nodes in the file": in_file, "nodes that run": running}
    display(race.table[["median ms", "× as fast"]].assign(**nodes).round(2))
    del both, vectors

# %% [markdown]
# Read the two columns of nodes beside the time. The fused *file* has a seventh of the nodes, but the session removes
# half of the nodes of the other file by itself. When we wrote this, on two cores, the fused file was not faster.
# On a CPU with long texts nearly all of it is in large matrix products, and those are the same in both files. On a GPU,
# where starting each small kernel costs time, the same fusion may count for more; that was not run here. Count nodes to
# see *whether* a fusion happened. Use a stopwatch to see whether it *matters*.
#
# ## Read the profile
#
# Where does the time go, and does it go elsewhere after optimisation?
# [`enable_profiling`](https://onnxruntime.ai/docs/performance/tune-performance/profiling-tools.html) writes each node
# of each run into a JSON file.

# %%
import json


def profile(level, runs=7):
    """All nodes that were run, one row each."""
    options = ort.SessionOptions()
    options.graph_optimization_level = LEVELS[level]
    options.enable_profiling = True
    options.profile_file_prefix = "work/06_profile"
    session = ort.InferenceSession(
        "work/06_raw.onnx", options, providers=["CPUExecutionProvider"]
    )
    for _ in range(runs):
        session.run(None, batch)
    record = Path(session.end_profiling())
    events = pd.DataFrame(json.loads(record.read_text()))
    record.unlink()
    return events[events["name"].str.endswith("_kernel_time")]


events = profile("none")
events[["name", "cat", "ts", "dur"]].head(3)

# %% [markdown]
# `ts` is when a node began and `dur` how long it took, in microseconds. The column `args`, not shown, holds the operator,
# the shapes, and the provider. For each node we take the median of the runs, and add up by operator, at three levels.


# %%
def by_operator(events):
    events = events.assign(operator=events["args"].str["op_name"])
    per_node = events.groupby(["operator", "name"])["dur"].median()
    return per_node.groupby("operator").sum() / 1000


profiles = pd.DataFrame(
    {level: by_operator(profile(level)) for level in ("none", "extended", "all")}
)
assert {"BatchNormalization", "Relu"} <= set(profiles["none"].dropna().index)
assert "BatchNormalization" not in profiles["extended"].dropna()
profiles.sort_values("none", ascending=False).style.format("{:.3f}", na_rep="")

# %% [markdown]
# Milliseconds per run with 16 pictures. Read it from the top: as long as `Conv` takes most of the time, all other
# nodes together cannot save more than the rest. Folding BatchNorm alone can then change little. At level `all`
# the operators are called `Conv` again, but they are the nchwc ones.
#
# ## Optimise once, and keep the file
#
# Each new session repeats all that work. The file that `optimized_model_filepath` writes can be used again: load it with
# all optimisations off. How long does a session take to create, for both ways?

# %%
starts = cu.compare(
    {
        "optimise at start": lambda: session_at(
            "work/06_raw.onnx", Level.ORT_ENABLE_EXTENDED
        ),
        "optimised before": lambda: session_at(
            "work/06_raw_extended.onnx", Level.ORT_DISABLE_ALL
        ),
    },
    rounds=12,
    seconds=4,
)
starts

# %% [markdown]
# But is it still a file for everybody? We ask three times: which domains of operators does it need, what does the checker
# say, and does another runtime run it? The [reference evaluator](https://onnx.ai/onnx/api/reference.html)
# of the `onnx` package stands for the other runtime. Which
# of the five files do you expect it to run?

# %%
from onnx.reference import ReferenceEvaluator


def other_runtime(graph):
    try:
        ReferenceEvaluator(graph).run(None, feed)
        return "runs it"
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0].split(', known')[0]}"


# %%
for graph in tidied.values():
    onnx.checker.check_model(graph, full_check=True)  # no objection to any of them
domains = {
    level: {n.domain for n in graph.graph.node} for level, graph in tidied.items()
}
other = {level: other_runtime(graph) for level, graph in tidied.items()}
assert other["basic"] == "runs it"
assert "FusedConv" in other["extended"]
table = pd.DataFrame(
    {
        "domains of nodes": pd.Series(domains).map(
            lambda names: ", ".join(n or "ai.onnx" for n in names)
        )
    }
)
imported = {
    level: {entry.domain for entry in graph.opset_import}
    for level, graph in tidied.items()
}
table["imported, not used"] = {
    level: len(imported[level] - domains[level]) for level in LEVELS
}
table.assign(**{"another runtime": other})

# %% [markdown]
# | level | where the file runs |
# |---|---|
# | basic | its nodes are standard operators, for any runtime; its list of imports is not |
# | extended | ONNX Runtime on a CPU, and a version of it that knows these operators |
# | layout, all | ONNX Runtime on this kind of processor: the block size is in the weights |
#
# Look at the third column. Whatever ONNX Runtime writes, it **imports** eight more domains, among them `com.microsoft`, even
# when no node is from them. The tools of this lesson ignore that; a stricter reader may refuse the file. So take out what
# no node needs:

# %%
for_everybody = onnx.ModelProto.FromString(tidied["basic"].SerializeToString())
needed = [
    entry
    for entry in for_everybody.opset_import
    if entry.domain in domains["basic"]
]
del for_everybody.opset_import[:]
for_everybody.opset_import.extend(needed)
onnx.checker.check_model(for_everybody, full_check=True)
assert np.array_equal(outcome(for_everybody, feed), outcome(tidied["basic"], feed))
assert other_runtime(for_everybody) == "runs it"
{entry.domain or "ai.onnx": entry.version for entry in for_everybody.opset_import}

# %% [markdown]
# The checker is no help, because it does not look into domains that it does not know. And ONNX Runtime, does it warn? Its
# log goes past Python, so we ask in another process:

# %%
import subprocess

saving = """
import onnxruntime as ort
options = ort.SessionOptions()
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_{level}
options.optimized_model_filepath = "work/06_warned.onnx"
ort.InferenceSession("work/06_untidy.onnx", options, providers=["CPUExecutionProvider"])
"""
warned = {}
for level in ("EXTENDED", "ALL"):
    child = subprocess.run(
        [sys.executable, "-c", saving.format(level=level)],
        capture_output=True,
        text=True,
        check=True,
    )
    warned[level] = (
        child.stderr.partition("] ")[2].replace("\x1b[m", "").strip() or "nothing"
    )
pd.Series(warned, name="ONNX Runtime says").to_frame()

# %% [markdown]
# It does, where the file depends on the processor. So ship the file of the exporter, or the one of `basic` with its
# imports cleaned up, and let each machine do the rest.
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
        "fashion_resnet, as exported": (exported, pictures),
        "encoder": (encoders["default", "masked"], texts),
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
