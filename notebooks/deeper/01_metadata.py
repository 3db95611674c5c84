# %% [markdown]
# # 01 · What a file tells
#
# You hand a model to a customer. The customer's server should know the names of the classes and the licence, and
# should not know the folders of your machine. Both stand in the file.
#
# You need the [core of lesson 01](../01_graph_structure.ipynb).
#
# After this page you will be able to
#
# - read the header of a file,
# - write notes into a model, and read them where it runs,
# - take out what is not for others before you publish.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## The header
#
# We export the network of the course.

# %%
import onnx
import torch

torch.onnx.export(
    cu.fashion_resnet(),
    (torch.randn(2, 1, 28, 28),),
    "work/01_metadata.onnx",
    input_names=["image"],
    external_data=False,
    verbose=False,
)
model = onnx.load("work/01_metadata.onnx")

# %% [markdown]
# The report says that a file holds [metadata](../glossary.md#metadata): IR version, producer, and
# [domain](../glossary.md#domain). Here they are in our file:

# %%
header = ("ir_version", "producer_name", "producer_version", "domain")
{field: getattr(model, field) for field in header}

# %% [markdown]
# The domain is for the owner of the model, a name such as `com.example`. The exporter leaves it empty. We set it in a
# copy, and ask ONNX Runtime:

# %%
import onnxruntime as ort

owned, cpu = onnx.load("work/01_metadata.onnx"), ["CPUExecutionProvider"]
owned.domain = "com.example"
session = ort.InferenceSession(owned.SerializeToString(), providers=cpu)
session.get_modelmeta().domain

# %% [markdown]
# Which of these fields must be there? The checker accepts this model, which has no producer. Then we take its IR
# version away.

# %%
bare = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 18]>
bare (float[n] x) => (float[n] y) { y = Relu(x) }""")
onnx.checker.check_model(bare)
bare.ClearField("ir_version")
try:
    onnx.checker.check_model(bare)
except onnx.checker.ValidationError as error:
    objection = str(error)
objection

# %% [markdown]
# The IR version must be there. All else in the header is optional.

# %% tags=["hide-input"]
cu.claim(
    "model-metadata",
    {
        "without the IR version the checker refuses a model": "ir_version"
        in objection,
        "the exporter gives its name and version": (
            model.producer_name,
            bool(model.producer_version),
        )
        == ("pytorch", True),
        "a model by hand has no producer, and passed": bare.producer_name == "",
        "the exporter leaves the domain empty": model.domain == "",
        "a domain that was set reaches ONNX Runtime": session.get_modelmeta().domain
        == "com.example",
    },
)

# %% [markdown]
# ## Notes for those who run the model
#
# `metadata_props` holds notes of your own: a version, a licence, the names of the classes.

# %%
notes = {"classes": ", ".join(cu.CLASS_NAMES), "licence": "Apache-2.0"}
onnx.helper.set_model_props(model, notes)
onnx.save(model, "work/01_with_notes.onnx")

# %% [markdown]
# ONNX Runtime [hands them out](https://onnxruntime.ai/docs/api/python/auto_examples/plot_metadata.html) with the model,
# so a server needs no second file:

# %%
session = ort.InferenceSession("work/01_with_notes.onnx", providers=cpu)
session.get_modelmeta().custom_metadata_map

# %% [markdown]
# ## Notes of the exporter
#
# The exporter leaves notes, too: on each node, where it came from.

# %%
left = {note.key: note.value for note in model.graph.node[0].metadata_props}
left["pkg.torch.onnx.name_scopes"], sorted(left)

# %% [markdown]
# `name_scopes` names the module of PyTorch that the node belongs to. That helps to debug. `stack_trace` holds lines of
# your code, with file names of the machine that made the export. We do not show them here. How many bytes do the notes
# of all nodes take?

# %%
assert 'File "' in left["pkg.torch.onnx.stack_trace"]
sum(len(n.value) for step in model.graph.node for n in step.metadata_props)

# %% [markdown]
# These notes are of no use to others. Before you publish a model, take the stack traces out:

# %%
for step in model.graph.node:
    kept = [n for n in step.metadata_props if not n.key.endswith("stack_trace")]
    step.ClearField("metadata_props")
    step.metadata_props.extend(kept)
onnx.save(model, "work/01_to_publish.onnx")

# %% [markdown]
# We look at the bytes of both files, to be sure:

# %%
from pathlib import Path

assert b"stack_trace" in Path("work/01_with_notes.onnx").read_bytes()
assert b"stack_trace" not in Path("work/01_to_publish.onnx").read_bytes()

# %% [markdown]
# The model doctor finds such notes in any file ([lesson 09](../09_troubleshooting.ipynb)).

# %% [markdown]
# ## Recap
#
# - The header holds the IR version, which must be there, and producer and domain, which may be empty.
# - `metadata_props` of the model is the place for a licence, a version, and the names of the classes.
# - The exporter writes on each node where it came from, with file names. Keep these notes while you debug; take them out
#   before you publish.
#
# **Back:** [01 · Graph structure](../01_graph_structure.ipynb). **Next:** [Step by step](01_step_by_step.ipynb).
