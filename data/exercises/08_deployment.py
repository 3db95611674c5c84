# %% [markdown]
# # 08 · Exercises: deployment
#
# Seven tasks. 8.1, 8.2 and 8.6 need the page [Joining files](../deeper/08_joining_files.ipynb), 8.3
# [Phones](../deeper/08_phones.ipynb), 8.4 [Under load](../deeper/08_under_load.ipynb), and 8.5
# [A server, file by file](../deeper/08_server_file_by_file.ipynb). Each ends in a file in `work/` that `cu.check` looks
# at. A check tells you what is right, and gives a hint for what is not. Try as often as you like: the best answer is
# kept.
#
# The models and numbers are drawn from your id, so they are your own. Put your id between the quotes.

# %%
import course_utils as cu

cu.setup(student="guest")  # put your own id here

# %%
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pandas as pd
from onnx import compose, numpy_helper

# %% [markdown]
# ## 8.1 Put the preparation into the graph · deeper: joining files
#
# Your model takes `x`, float32 `[batch, 3, 8, 8]`, channels in the order red, green, blue. In training, `x` was pixels
# divided by 255, minus the mean, divided by the deviation, for each channel. These are the numbers, in the order red,
# green, blue, and the order in which your camera gives the channels:

# %%
{name: cu.params("8.1")[name] for name in ("mean", "deviation", "camera")}

# %%
cu.node_table(cu.given("8.1"))[["op", "inputs", "outputs"]]

# %% [markdown]
# The camera gives `pixels`, uint8 `[batch, 8, 8, 3]`: the channel is the **last** dimension. Write a model that takes
# `pixels`, with a free batch, and returns `y`. Save it as `work/8.1.onnx`.
#
# > **Hint** The given model has opset 20 and IR version 9. `Gather` with indices 2, 1, 0 turns the channels around.
# > `compose.merge_models` joins two models with the same opset and IR version. Numbers need not stand in the text that
# > `onnx.parser` reads: name them there, and store them with this function.


# %%
def store(model, **numbers):
    """Add initializers: name → array."""
    for name, value in numbers.items():
        model.graph.initializer.append(
            numpy_helper.from_array(np.asarray(value), name)
        )


# %%
# Task 8.1: write the preparation, join both, and save the model
p = cu.params("8.1")
model = onnx.load(cu.given("8.1"))
### BEGIN SOLUTION
before = onnx.parser.parse_model("""<ir_version: 9, opset_import: ["": 20]>
    before (uint8[batch, 8, 8, 3] pixels) => (float[batch, 3, 8, 8] prepared) {
        numbers = Cast<to = 1>(pixels)
        rgb = Gather<axis = 3>(numbers, order)
        scaled = Div(rgb, most)
        centred = Sub(scaled, mean)
        normalised = Div(centred, deviation)
        prepared = Transpose<perm = [0, 3, 1, 2]>(normalised)
    }""")
store(
    before,
    order=[2, 1, 0] if p["camera"] == "BGR" else [0, 1, 2],
    most=np.float32(255),
)
store(before, mean=np.float32(p["mean"]), deviation=np.float32(p["deviation"]))
whole = compose.merge_models(before, model, io_map=[("prepared", "x")])
onnx.checker.check_model(whole, full_check=True)
onnx.save(whole, "work/8.1.onnx")
### END SOLUTION

# %%
cu.check("8.1", "work/8.1.onnx")

# %% [markdown] tags=["solution"]
# The network must see what it saw in training, so the graph repeats each step in the same order: cast, order of the
# channels, division by 255, mean, deviation. The channels are put in order before the numbers that belong to red, green
# and blue are used. A typical mistake is Reshape in place of Transpose: the shape is right and the numbers are not. To
# notice it, compute the preparation with NumPy and compare the outputs, with more than one picture. Another road is one
# Mul and one Add after the Cast, with 255, mean and deviation folded into their constants.

# %% [markdown]
# ## 8.2 Answer with ids and probabilities · deeper: joining files
#
# Your model returns `y`, the scores of eight classes. The caller wants something else: the ids of the best classes, the
# best one first, and their probabilities.

# %%
{name: cu.params("8.2")[name] for name in ("best", "temperature", "ids")}

# %%
cu.node_table(cu.given("8.2"))[["op", "inputs", "outputs"]]

# %% [markdown]
# - `best`: how many classes to return.
# - `temperature`: the scores are divided by it, then follows a softmax over **all** classes.
# - `ids`: the id of class 0, of class 1, and so on.
#
# Write a model with the input `x`, float32 `[batch, 6]`, with a free batch, and two outputs: `id`, int64
# `[batch, best]`, and `probability`, float32 `[batch, best]`. Save it as `work/8.2.onnx`.
#
# > **Hint** This model has opset 20 and IR version 9, too. `TopK` returns values and positions, and wants the number as
# > an int64 tensor of shape `[1]`. A softmax keeps the order.

# %%
# Task 8.2: write the processing, join both, and save the model
p = cu.params("8.2")
model = onnx.load(cu.given("8.2"))
### BEGIN SOLUTION
after = onnx.parser.parse_model("""<ir_version: 9, opset_import: ["": 20]>
    after (float[batch, 8] scores)
    => (int64[batch, best] id, float[batch, best] probability) {
        cooled = Div(scores, temperature)
        all = Softmax<axis = 1>(cooled)
        probability, position = TopK<axis = 1>(all, k)
        id = Gather<axis = 0>(ids, position)
    }""")
store(after, temperature=np.float32(p["temperature"]), k=[p["best"]], ids=p["ids"])
for output in after.graph.output:  # "best" is a number
    output.type.tensor_type.shape.dim[1].dim_value = p["best"]
whole = compose.merge_models(model, after, io_map=[("y", "scores")])
onnx.checker.check_model(whole, full_check=True)
onnx.save(whole, "work/8.2.onnx")
### END SOLUTION

# %%
cu.check("8.2", "work/8.2.onnx")

# %% [markdown] tags=["solution"]
# Softmax comes before TopK, so that the probabilities refer to all classes. TopK returns positions, and Gather looks
# each one up in the table of ids. A typical mistake is TopK first and Softmax on its values: then each row of
# probabilities adds up to exactly 1, which is how one notices it. Another mistake is to return the positions
# themselves. Because a softmax keeps the order within a row, another road is TopK on the scores, and GatherElements to
# fetch the probabilities at its positions.

# %% [markdown]
# ## 8.3 Make a variant for a phone · deeper: phones
#
# Your model was made for a server. The app will use an accelerator, and the usability checker says no:

# %%
cu.params("8.3")["accelerator"]

# %%
from onnxruntime.tools.mobile_helpers import usability_checker as checker
from onnxruntime.tools.onnx_model_utils import ModelProtoWithShapeInfo


def verdict(file, accelerator):
    """What the checker says about one accelerator."""
    model = ModelProtoWithShapeInfo(Path(file)).model_with_shape_info
    if accelerator == "NNAPI":
        found = checker.check_nnapi_partitions(model, True)
    else:
        listed = "coreml_supported_mlprogram_ops.md"
        found = checker.check_coreml_partitions(model, True, listed)
    return {
        "verdict": found.suitability().name,
        "nodes": f"{found.num_supported_nodes}/{found.num_nodes}",
        "pieces": found.num_partitions,
        "lacks": sorted(found.unsupported_ops),
        "nodes with a free dimension": found.nodes_unsupported_due_to_dynamic_input,
    }


verdict(cu.given("8.3"), cu.params("8.3")["accelerator"])

# %%
cu.node_table(cu.given("8.3"))[["op", "inputs", "outputs"]]

# %% [markdown]
# Save a variant as `work/8.3.onnx` that takes `x`, exactly `[1, 3, 8, 8]`, computes what the model computed, and gets a
# YES with **every** node. Constants belong in initializers: a `Constant` node counts as one that the accelerator lacks.
# What the activations mean:
#
# - `HardSwish`: $x \cdot \max(0, \min(1, x/6 + 1/2))$
# - `Mish`: $x \cdot \tanh(\log(1 + e^x))$
# - `Softsign`: $x / (1 + \lvert x\rvert)$
#
# These operators are on the lists of both accelerators: `Add`, `Sub`, `Mul`, `Div`, `Max`, `Clip`, `Exp`, `Tanh`. `Abs`
# and `Log` are on that of NNAPI only, `Softplus`, which is $\log(1 + e^x)$, on that of CoreML only.
#
# > **Hint** `make_dim_param_fixed(graph, "batch", 1)` fixes the batch. It is in `onnxruntime.tools`, in the module
# > `make_dynamic_shape_fixed`.
# > $\lvert x\rvert$ is the larger one of $x$ and $-x$.

# %%
# Task 8.3: replace the activations, fix the shape, and save the model
p = cu.params("8.3")
model = onnx.load(cu.given("8.3"))
### BEGIN SOLUTION
from onnx import helper
from onnxruntime.tools.make_dynamic_shape_fixed import make_dim_param_fixed

# Each step: output = operator, inputs.
# "x" is the input of the node that is replaced, "y" its output.
nnapi = p["accelerator"] == "NNAPI"
softplus = "a = Exp x; b = Add a one; c = Log b" if nnapi else "c = Softplus x"
steps = {
    "HardSwish": "a = Mul x sixth; b = Add a half; "
    "c = Clip b zero one; y = Mul x c",
    "Mish": softplus + "; d = Tanh c; y = Mul x d",
    "Softsign": "a = Sub zero x; b = Max x a; c = Add b one; y = Div x c",
}[p["activation"]]
constants = {"one": 1, "half": 0.5, "sixth": 1 / 6, "zero": 0}
nodes = []
for node in model.graph.node:
    if node.op_type != p["activation"]:
        nodes.append(node)
        continue
    names = {"x": node.input[0], "y": node.output[0]} | {
        name: name for name in constants
    }
    for step in steps.split("; "):
        output, _, op, *inputs = step.split()
        names.setdefault(output, f"{node.name}_{output}")
        written = names[output]
        nodes.append(
            helper.make_node(op, [names[i] for i in inputs], [written], written)
        )
del model.graph.node[:]
model.graph.node.extend(nodes)
for name, value in constants.items():
    model.graph.initializer.append(numpy_helper.from_array(np.float32(value), name))
make_dim_param_fixed(model.graph, "batch", 1)
onnx.checker.check_model(model, full_check=True)
onnx.save(model, "work/8.3.onnx")
### END SOLUTION

# %%
cu.check("8.3", "work/8.3.onnx")

# %% [markdown] tags=["solution"]
# An accelerator takes a whole graph only where it knows each operator and each shape. So both activations are written
# with operators of its list, and the batch becomes 1. The constants are initializers, shared by both places.
# Intermediate tensors get the name of the replaced node in front, because each name may be written only once. A typical
# mistake is a formula that is right for positive numbers only: compare both models on random inputs before you ask the
# checker. Another road is to write the replacement as nodes by hand; two activations are few.

# %% [markdown]
# ## 8.4 Settings within limits · deeper: under load
#
# A server like that of the lesson. You know:
#
# - `spans`: how many milliseconds one run takes, for some batch sizes,
# - `per_second`: how many requests arrive, one picture each,
# - `p99_ms`: 99 of 100 requests must be answered within this time,
# - `busy`: the model may run for at most this part of the time, because the machine does other work, too,
# - `seed`: it draws the requests of your simulation.

# %%
cu.params("8.4")

# %% [markdown]
# Choose `largest_batch`, a whole number up to 32, and `wait_ms`. This function is the simulation of
# [Under load](../deeper/08_under_load.ipynb), with your numbers.

# %%
from course_utils.lab.batching import simulate


def outcome(largest_batch, wait_ms):
    """p99 in milliseconds, and the part of the time that the model is busy."""
    p = cu.params("8.4")
    spans = {int(images): ms for images, ms in p["spans"].items()}
    found = simulate(
        spans,
        p["per_second"],
        wait_ms,
        largest_batch,
        requests=4000,
        seed=p["seed"],
    )
    p99 = pd.Series(found.latencies).quantile(0.99)
    return round(float(p99), 2), round(float(found.busy), 3)


outcome(largest_batch=1, wait_ms=0)

# %% [markdown]
# Write `work/8.4.json` with four keys: `largest_batch`, `wait_ms`, and what `outcome` gives for them, `p99_ms` and
# `busy`. Requests arrive at random, and the check draws others, so stay away from the edge.

# %%
# Task 8.4: choose the settings, and write them
p = cu.params("8.4")
### BEGIN SOLUTION
fits = {}
for wait_ms in range(40):
    p99, busy = outcome(16, wait_ms)
    if p99 <= p["p99_ms"] and busy <= p["busy"]:
        fits[wait_ms] = min(1 - p99 / p["p99_ms"], 5 * (p["busy"] - busy))
wait_ms = max(fits, key=fits.get)
p99, busy = outcome(16, wait_ms)
settings = {"largest_batch": 16, "wait_ms": wait_ms, "p99_ms": p99, "busy": busy}
Path("work/8.4.json").write_text(json.dumps(settings))
### END SOLUTION

# %%
cu.check("8.4", "work/8.4.json")

# %% [markdown] tags=["solution"]
# Waiting fills the batches. Larger batches need less time per picture, so the model is less busy, but each request
# waits longer. Some waits satisfy both limits, and the solution takes the one that stays farthest from the nearer
# limit; the factor 5 makes the two distances comparable. A typical mistake is to take the first wait that fits: with
# other requests it is over the limit. To notice it, run `simulate` with another seed. Another road is to try several
# values of `largest_batch`, too: a small one can make the requests queue up.

# %% [markdown]
# ## 8.5 What does the server answer? · deeper: a server
#
# Twelve requests to a server like that of the lesson, with these limits:

# %%
cu.params("8.5")["limits"]

# %%
bodies = {path.stem[-1]: path.read_bytes() for path in cu.given("8.5")}
table = pd.DataFrame(cu.params("8.5")["requests"]).T
table.assign(
    bytes=[len(body) for body in bodies.values()],
    begins=[repr(body[:12]) for body in bodies.values()],
)

# %% [markdown]
# `waiting` says how many requests wait already; `bodies` holds what was sent. The server checks in this order, and the
# first thing it finds decides:
#
# | status | when |
# |---|---|
# | 413 | the body has more than `most_bytes` |
# | 415 | the Content-Type is neither `application/x-npy` nor `application/json`; what follows a semicolon does not count |
# | 400 | the body is not what its Content-Type says: no JSON, no `.npy`, or not as many bytes as its header promises |
# | 422 | its dtype is not uint8 (JSON: whole numbers from 0 to 255), the shape neither `[28, 28]` nor `[n, 28, 28]`, or `n` not from 1 to `most_images` |
# | 503 | as many requests are waiting as `queue` allows |
# | 200 | otherwise |
#
# JSON is an object with one key, `pixels`. Write `work/8.5.json`: a dict from each letter to its status, a number. The
# check says how many are right, not which.
#
# > **Hint** These are a stranger's bytes: give `np.load` no `allow_pickle`. It reads from `io.BytesIO(body)`.

# %%
# Task 8.5: decide, and write the answers
limits, requests = cu.params("8.5")["limits"], cu.params("8.5")["requests"]
### BEGIN SOLUTION
import io


def status(content_type, waiting, body):
    kind = content_type.split(";")[0]
    if len(body) > limits["most_bytes"]:
        return 413
    if kind not in ("application/x-npy", "application/json"):
        return 415
    try:
        if kind == "application/json":
            array = np.array(json.loads(body)["pixels"])
            good = (
                array.dtype.kind == "i" and 0 <= array.min() <= array.max() <= 255
            )
        else:
            array = np.load(io.BytesIO(body))
            good = array.dtype == np.uint8
    except ValueError:
        return 400
    images = len(array) if array.ndim == 3 else 1
    if (
        not good
        or array.shape[-2:] != (28, 28)
        or not 1 <= images <= limits["most_images"]
    ):
        return 422
    return 503 if waiting >= limits["queue"] else 200


answers = {
    letter: status(r["Content-Type"], r["waiting"], bodies[letter])
    for letter, r in requests.items()
}
Path("work/8.5.json").write_text(json.dumps(answers))
### END SOLUTION

# %%
cu.check("8.5", "work/8.5.json")

# %% [markdown] tags=["solution"]
# The order of the table is the order of the code, and the first match returns. So the size is looked at before anything
# is read, and the queue last. `np.load` and `json.loads` raise ValueError for bytes that are not what they claim to be;
# without `allow_pickle`, nothing of a stranger is executed. A typical mistake lies at the limits: as many images as
# allowed are fine, as many waiting as allowed are too many. A dtype check also matters, because float pixels have a
# good shape. Another road is to print dtype, shape and length of each body and to decide by hand.

# %% [markdown]
# ## 8.6 Make the file fit the page · deeper: joining files, and browser
#
# A page is written already, by somebody who has never seen your model. The code stays as it is: the file must fit it.

# %%
model_file, page_code = cu.given("8.6")
cu.listing(page_code)

# %% [markdown]
# Your model is the trained network, as an exporter left it: `image`, float32 `[batch, 1, 28, 28]`, white on black and
# prepared as `cu.normalize` does it, $(x / 255 - 0.286) / 0.353$; `logits`, where position `i` belongs to class
# `order[i]`.

# %%
p, model = cu.params("8.6"), onnx.load(model_file)
{"IR version": model.ir_version, "opset": model.opset_import[0].version} | {
    name: p[name] for name in ("order", "most_bytes")
}

# %% [markdown]
# Write `work/8.6.onnx`, which
#
# - takes what the page sends, for any number of pictures, and returns what it reads, with the labels of your model,
# - has at most `most_bytes` bytes, because everybody who opens the page downloads it,
# - is loaded by the runtime that lies beside the page: see the first line of its code,
# - carries no notes. Anybody who opens the page can read them.
#
# > **Hint** `onnx.version_converter.convert_version` and `model.ir_version`. Weights may be stored in float16 with a
# > `Cast` behind each; smaller types may change labels. The function `store` of 8.1 is still there.

# %%
# Task 8.6: convert, join, make it small, clear the notes, and save the model
### BEGIN SOLUTION
code = page_code.read_text()
name, label, share = p["input"], p["label"], p["share"]
shape = code.split("bytes.length / 784, ")[1].split("]")[0]
model = onnx.version_converter.convert_version(model, p["opset"])
model.ir_version = p["ir"]
header = f'<ir_version: {p["ir"]}, opset_import: ["": {p["opset"]}]>'
ink = "Sub(most, numbers)" if "black on white" in code else "Identity(numbers)"
before = onnx.parser.parse_model(f"""{header}
    before (uint8[n, {shape}] {name}) => (float[n, 1, 28, 28] prepared) {{
        numbers = Cast<to = 1>({name})
        white = {ink}
        scaled = Div(white, most)
        centred = Sub(scaled, mean)
        normalised = Div(centred, deviation)
        prepared = Reshape(normalised, shape)
    }}""")
store(before, most=np.float32(255), mean=np.float32(0.286), shape=[-1, 1, 28, 28])
store(before, deviation=np.float32(0.353))
after = onnx.parser.parse_model(f"""{header}
    after (float[n, 10] scores) => (int32[n] {label}, float[n] {share}) {{
        all = Softmax<axis = 1>(scores)
        top, position = TopK<axis = 1>(all, one)
        {share} = Squeeze(top, one)
        place = Squeeze(position, one)
        {label} = Gather(classes, place)
    }}""")
store(after, one=[1], classes=np.int32(p["order"]))
front = compose.merge_models(before, model, io_map=[("prepared", "image")])
whole = compose.merge_models(front, after, io_map=[("logits", "scores")])

casts = []
for tensor in whole.graph.initializer:
    values = numpy_helper.to_array(tensor)
    if values.dtype == np.float32 and values.size > 1000:
        half = f"{tensor.name}_half"
        casts.append(onnx.helper.make_node("Cast", [half], [tensor.name], to=1))
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), half))
nodes = [*casts, *whole.graph.node]
del whole.graph.node[:]
whole.graph.node.extend(nodes)
graph = whole.graph
for part in [graph, *graph.node, *graph.initializer, *graph.value_info]:
    del part.metadata_props[:]
    part.ClearField("doc_string")
onnx.checker.check_model(whole, full_check=True)
onnx.save(whole, "work/8.6.onnx")
### END SOLUTION

# %%
cu.check("8.6", "work/8.6.onnx")

# %% [markdown] tags=["solution"]
# The code is the contract: it names the input, its dtype and shape, the two outputs and their dtypes. Nothing there
# inverts the picture, so the graph does it. Labels are looked up by class, so the position goes through `order`.
# float16 halves the download, and a `Cast` gives each convolution its float32 back, so no runtime needs kernels for
# float16. The converter comes first, because joined parts must have one opset. A typical mistake is to set the number
# in `opset_import` by hand: operators that changed in between then mean something else, or do not load. Another road is
# `convert_float_to_float16` for the whole network, with `keep_io_types`, and its nodes sorted afterwards.

# %% [markdown]
# ## 8.7 Mend a config.pbtxt · deeper: Triton
#
# Needs the page [Triton and Ray](../deeper/08_triton_ray.ipynb), and the package `tritonclient` for the check: it comes
# with the extra `serve`, and where it is missing, the check says how to install it. A colleague wrote the description
# of a model in a hurry:

# %%
model_file, config_file = cu.given("8.7")
print(config_file.read_text())

# %%
session = ort.InferenceSession(model_file, providers=["CPUExecutionProvider"])
tensors = session.get_inputs() + session.get_outputs()
pd.DataFrame([(t.name, t.type, t.shape) for t in tensors])

# %% [markdown]
# It lies in a repository of models, and this was agreed:

# %%
p = cu.params("8.7")
versions = [f"{p['folder']}/{n}/model.onnx" for n in p["agreed"]["versions"]]
print(f"{p['folder']}/config.pbtxt", *versions, sep="\n")
{what: value for what, value in p["agreed"].items() if what != "versions"}

# %% [markdown]
# - `serve`: what the version policy must choose among the versions that are there.
# - `batch`: the largest batch. `wait_ms`: how many milliseconds a request may wait for others. Where neither was
#   agreed, one request is computed at a time.
# - `sessions`: how many instances there are, all of them on the device `on`.
#
# Mend the text. Write `work/8.7.json`: a dict with one key, `config`, and the whole text as its value.
#
# > **Hint** `cu.triton_findings(text, session)` compares a text with the model. What was agreed it does not know.

# %%
# Task 8.7: mend the text, and write it
### BEGIN SOLUTION
types = {
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
}
agreed = p["agreed"]
free = not isinstance(session.get_inputs()[0].shape[0], int)


def described(tensor, side):
    dims = [n if isinstance(n, int) else -1 for n in tensor.shape]
    dims = dims[1:] if free else dims
    shape = f"dims: {dims}" if dims else "dims: [ 1 ] reshape { shape: [ ] }"
    kind = types[tensor.type]
    return f'{side} {{ name: "{tensor.name}" data_type: {kind} {shape} }}'


lines = [f'name: "{p["folder"]}"', 'backend: "onnxruntime"']
lines += [described(tensor, "input") for tensor in session.get_inputs()]
lines += [described(tensor, "output") for tensor in session.get_outputs()]
if free:
    wait = f"max_queue_delay_microseconds: {1000 * agreed['wait_ms']}"
    lines += [
        f"max_batch_size: {agreed['batch']}",
        f"dynamic_batching {{ {wait} }}",
    ]
device, _, number = agreed["on"].partition(" ")
where = f"kind: KIND_{device}" + (f" gpus: [ {number} ]" if number else "")
lines += [f"instance_group {{ count: {agreed['sessions']} {where} }}"]
lines += ["version_policy { latest { num_versions: 1 } }"]
text = "\n".join(lines)
print(text, cu.triton_findings(text, session), sep="\n")
Path("work/8.7.json").write_text(json.dumps({"config": text}))
### END SOLUTION

# %%
cu.check("8.7", "work/8.7.json")

# %% [markdown] tags=["solution"]
# Names, types and dims are taken from the model itself, so they cannot differ from it. A free first dimension is the
# batch: dims leave it out, and what is left of `[batch]` is nothing, which Triton wants as `[ 1 ]` with a reshape. A
# model with a fixed batch gets its whole shape, no `max_batch_size`, and no batching. A typical mistake is a wait in
# milliseconds: 5 means 5 microseconds, and hardly any request finds another to go with. No parser notices it, as no
# parser notices a name that differs from the folder. Another road is to mend the colleague's text line by line, with
# `cu.triton_findings` after each.

# %% [markdown]
# ## Hand in
#
# This packs your answers into one file. It holds your answers and nothing else.

# %%
if Path("work/answers").exists():
    cu.submit()
