# %% [markdown]
# # 04 · Static again
#
# Your file takes any batch and any size. Now it shall run on a phone, whose accelerator takes known sizes only. Or your
# server always sends the same size, and you wonder whether a fixed size would be faster.
#
# You need the [core of lesson 04](../04_dynamic_axes.ipynb).
#
# After this page you will be able to
#
# - put numbers in place of all names, also inside the graph,
# - fix a size for one session only,
# - say what free sizes cost, and measure it.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## Numbers in place of names
#
# The course's network, with three free axes:

# %%
import torch

plain = {"external_data": False, "verbose": False, "input_names": ["image"]}
net, pair, file = cu.fashion_resnet(), torch.randn(2, 1, 28, 28), "work/04_any.onnx"

# %% [markdown]
# Each free axis gets a name, which we need below.

# %%
axes = ({0: "batch", 2: "height", 3: "width"},)
torch.onnx.export(net, (pair,), file, **plain, dynamic_shapes=axes)
cu.written_shapes(file)

# %% [markdown]
# ONNX Runtime brings
# [two functions](https://onnxruntime.ai/docs/tutorials/mobile/helpers/make-dynamic-shape-fixed.html) that put a number
# in place of a name.

# %%
import onnx
from onnxruntime.tools import onnx_model_utils as tools

static = onnx.load(file)
tools.make_dim_param_fixed(static.graph, "batch", 1)
cu.written_shapes(static)

# %% [markdown]
# The batch is 1, at the input and at the output. A misspelled name is no error here: nothing happens. So look at the
# file. Now the other two:

# %%
for name in ("height", "width"):
    tools.make_dim_param_fixed(static.graph, name, 28)
tools.fix_output_shapes(static)
cu.written_shapes(static)

# %% [markdown]
# The same from the command line, one name at a time:
#
# ```
# python -m onnxruntime.tools.make_dynamic_shape_fixed \
#     --dim_param batch --dim_value 1 in.onnx out.onnx
# ```
#
# Now look *inside*. Which tensors between the nodes still have names?

# %%
shapes = cu.tensor_table(static)["shape"]
left = shapes[shapes.str.contains("[a-z]", regex=True)]
len(left), left.iloc[0]

# %% [markdown]
# The function replaces the name `height`, and not formulas made of it. Drop the old descriptions, and let
# [shape inference](../glossary.md#shape-inference) write new ones:

# %%
del static.graph.value_info[:]
static = onnx.shape_inference.infer_shapes(static)
shapes = cu.tensor_table(static)["shape"]
assert not shapes.str.contains("[a-z]", regex=True).any()

# %% [markdown]
# No name is left. The model computes the same as before:

# %%
gate = cu.parity(net, static, pair[:1])
assert gate.within
gate

# %% [markdown]
# ## Who needs it
#
# ONNX Runtime comes with
# [a checker for phones](https://onnxruntime.ai/docs/tutorials/mobile/helpers/model-usability-checker.html). It counts
# the nodes that Android's NNAPI would take, with free sizes and with fixed ones:

# %%
from onnxruntime.tools.mobile_helpers import usability_checker

check = usability_checker.check_nnapi_partitions
free = check(onnx.load(file), require_fixed_input_sizes=True)
fixed = check(static, require_fixed_input_sizes=True)
assert free.num_supported_nodes == 0 < fixed.num_supported_nodes
free.num_supported_nodes, fixed.num_supported_nodes, fixed.num_nodes

# %% [markdown]
# None, or all of them. [Lesson 05](../05_execution_providers.ipynb) says what happens to nodes that no
# [execution provider](../glossary.md#execution-provider) takes.
#
# If only the session needs to know, leave the file alone and tell the session:

# %%
import onnxruntime as ort

options, cpu = ort.SessionOptions(), ["CPUExecutionProvider"]
options.add_free_dimension_override_by_name("batch", 1)
session = ort.InferenceSession(file, options, providers=cpu)
session.get_inputs()[0].shape

# %% [markdown]
# ## What free sizes cost
#
# When sizes are known, all that depends on sizes alone can be computed before the first run. We compare two models: our
# network, and a transformer, which splits and joins axes, so that its graph is full of nodes that ask for sizes.


# %%
def layer(width):
    """A layer of a transformer, exported with a free batch and length: its file."""
    torch.manual_seed(0)
    file, steps = f"work/04_layer_{width}.onnx", ({0: "batch", 1: "length"},)
    made = torch.nn.TransformerEncoderLayer(width, 4, 4 * width, batch_first=True)
    example = torch.randn(2, 8, width)
    torch.onnx.export(made.eval(), (example,), file, **plain, dynamic_shapes=steps)
    return file


files = {"fashion_resnet": file, "width 32": layer(32), "width 512": layer(512)}

# %% [markdown]
# We open each file twice, with free sizes and with fixed ones. A session writes the graph that it runs into a file.


# %%
def opened(file, **sizes):
    """A session of one thread with these sizes; its graph is in 04_optimised."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    options.optimized_model_filepath = "work/04_optimised.onnx"
    for name, size in sizes.items():
        options.add_free_dimension_override_by_name(name, size)
    return ort.InferenceSession(file, options, providers=cpu)


# %% tags=["remove-input"]
cu.quiz("04_static_again", 1)

# %%
known = {name: {"batch": 1, "length": 12} for name in files}
known["fashion_resnet"] = {"batch": 1, "height": 28, "width": 28}
sessions, nodes = {}, {}
for name, file in files.items():
    for kind, sizes in {"free": {}, "fixed": known[name]}.items():
        sessions[name, kind] = opened(file, **sizes)
        nodes[name, kind] = len(onnx.load("work/04_optimised.onnx").graph.node)

# %% [markdown]
# How many nodes run, after ONNX Runtime has optimised the graph?

# %%
import pandas as pd

counts = pd.Series(nodes).unstack()
gone = counts["free"] - counts["fixed"]
assert gone["fashion_resnet"] == 0 < gone["width 32"] == gone["width 512"]
counts

# %% [markdown]
# Nothing changes for the convolutional network: no node of it asks for a size. The transformer loses as many nodes at
# either width: they became constants. Does that show on the clock? One thread, one example at a time.

# %%
inputs = {"fashion_resnet": pair[:1]}
inputs |= {f"width {width}": torch.randn(1, 12, width) for width in (32, 512)}
feeds = {name: {"image": value.numpy()} for name, value in inputs.items()}

# %%
from functools import partial

calls = {key: partial(sessions[key].run, None, feeds[key[0]]) for key in sessions}
timed = cu.compare({" ".join(key): call for key, call in calls.items()}, threads=1)
ratios = {name: timed.ratio(f"{name} free", f"{name} fixed") for name in files}

# %%
import matplotlib.pyplot as plt

plt.barh(list(ratios), list(ratios.values()), color="#56B4E9")
plt.axvline(1, color="#D55E00", linestyle="--")
top = max(ratios, key=ratios.get)
plt.title(f"Free sizes cost most in {top}: {ratios[top]:.2f} times the time")
plt.xlabel("time with free sizes ÷ time with fixed sizes (1: no cost)")
plt.show()

# %% [markdown]
# Each extra node costs a little time, in a narrow and in a wide layer. In the wide one the other nodes take longer, so
# the extra ones are a smaller part of the run. And this is a CPU: a provider that compiles the graph for known sizes
# may have to compile anew for each new size. Measure it where your model will run.

# %% [markdown]
# ## Recap
#
# - Keep sizes free, unless the target takes known sizes only, or a measurement shows that fixed ones are faster.
# - `make_dim_param_fixed` puts a number in place of a name. Then drop `value_info`, and let shape inference write it
#   anew: formulas inside keep the name otherwise.
# - `add_free_dimension_override_by_name` fixes a size for one session, and leaves the file as it is.
#
# **Back:** [04 · Dynamic axes](../04_dynamic_axes.ipynb).
