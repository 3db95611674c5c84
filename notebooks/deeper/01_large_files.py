# %% [markdown]
# # 01 · Large files
#
# You export a model and find two files. You copy one of them to the server, and it does not load. Or a model has 3 GB,
# and no tool opens it.
#
# You need the [core of lesson 01](../01_graph_structure.ipynb).
#
# After this page you will be able to
#
# - say when weights live in a second file, and make one file of two,
# - check and run a model above 2 GiB,
# - notice that one of the two files is another one.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## Two files
#
# The exporter writes two files by default, for any size:

# %%
from pathlib import Path
import torch

folder = Path("work/01_large_files")
folder.mkdir(exist_ok=True)
program = torch.onnx.export(
    cu.fashion_resnet(),
    (torch.randn(2, 1, 28, 28),),
    folder / "model.onnx",
    input_names=["image"],
    dynamic_shapes=({0: torch.export.Dim("batch")},),
    verbose=False,
)

# %% [markdown]
# The second file holds the weights, as plain bytes. This is called
# [external data](../glossary.md#external-data).

# %%
{f.name: f.stat().st_size for f in sorted(folder.glob("model.onnx*"))}

# %% [markdown]
# In the first file, a large initializer holds a file name, a position and a length in place of its values. Small ones
# stay where they are.

# %%
import onnx

file = folder / "model.onnx"
graph_only = onnx.load(file, load_external_data=False)
outside = [t for t in graph_only.graph.initializer if t.external_data]
outside[1].name, {entry.key: entry.value for entry in outside[1].external_data}

# %% [markdown]
# `onnx.load` without that option reads both files. `onnx.save` then writes one. For a model as small as ours, one file
# is simpler; `external_data=False` in the export does the same.

# %%
whole = onnx.load(file)
onnx.save(whole, folder / "one_file.onnx")
(folder / "one_file.onnx").stat().st_size

# %% [markdown]
# ## Above 2 GiB
#
# A [Protocol Buffers](https://protobuf.dev/) message cannot be larger than 2 GiB, so a larger model *must* have a second
# file. We make one of that size: a table of more than half a million rows of 1024 numbers, and a `Gather` that picks
# rows. The file is all zeros, and most systems store no bytes for them.

# %%
rows = 2**19 + 1
assert rows * 4096 > onnx.checker.MAXIMUM_PROTOBUF
with open(folder / "table.bin", "wb") as stream:
    stream.truncate(rows * 4096)  # 1024 numbers of four bytes

# %% [markdown]
# The model says where its table is:

# %%
large = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 18]>
large (int64[n] ids) => (float[n, 1024] y) { y = Gather(table, ids) }""")
table = large.graph.initializer.add(name="table", dims=[rows, 1024])
table.data_type = onnx.TensorProto.FLOAT
table.data_location = onnx.TensorProto.EXTERNAL
table.external_data.add(key="location", value="table.bin")
table.external_data.add(key="length", value=str(rows * 4096))
onnx.save(large, folder / "large.onnx")

# %% [markdown]
# Give the checker the *path* of such a model. `check_model(onnx.load(path))` would read 2 GiB and then fail, because
# the checker takes a model as one message.

# %%
onnx.checker.check_model(folder / "large.onnx", full_check=True)

# %% [markdown]
# ONNX Runtime takes a path, too. How much memory does the session need?

# %% tags=["remove-input"]
cu.quiz("01_large_files", 1)

# %%
import onnxruntime as ort
import psutil

before, cpu = psutil.Process().memory_info().rss, ["CPUExecutionProvider"]
session = ort.InferenceSession(folder / "large.onnx", providers=cpu)
f"{(psutil.Process().memory_info().rss - before) / 2**20:.0f} MB"

# %% [markdown]
# ONNX Runtime maps the file into memory. The system reads a part of it when a node needs that part, as `Gather` here needs
# some rows. Other nodes can need all of their weights at once, so measure your own model. Now we delete the
# large file again.

# %%
del session
(folder / "table.bin").unlink()

# %% [markdown]
# ## One of the two files is missing, or another one
#
# If only the first file is copied, the model does not load:

# %%
data = folder / "model.onnx.data"
away = data.rename(folder / "away.data")
try:
    ort.InferenceSession(file, providers=cpu)
    raise AssertionError("it loaded without its weights")
except ort.capi.onnxruntime_pybind11_state.Fail as error:
    print(str(error).split("FAIL : ")[-1].split(" Error")[0])
finally:
    away.rename(data)

# %% [markdown]
# That is easy to see. It is harder when the second file is there, but of another training run. We note the answer for
# one picture, and the [hash](https://docs.python.org/3/library/hashlib.html) of both files:

# %%
import hashlib


def answer_and_hashes():
    session = ort.InferenceSession(file, providers=cpu)
    (logits,) = session.run(None, {"image": picture})
    hashes = [hashlib.sha256(f.read_bytes()).hexdigest()[:8] for f in (file, data)]
    return float(logits.max()), hashes


# %% [markdown]
# The function returns the largest logit, and the first digits of two hashes:

# %%
picture = cu.normalize(cu.fashion_mnist("test")[0][:1])
right, hashes = answer_and_hashes()
right, hashes

# %% [markdown]
# Then we double all weights in the second file.

# %%
import numpy as np

(2 * np.fromfile(data, dtype=np.float32)).tofile(data)
onnx.checker.check_model(file, full_check=True)
wrong, other_hashes = answer_and_hashes()
assert wrong > 1.1 * right and other_hashes != hashes
wrong, other_hashes

# %% [markdown]
# The result is another one, and nobody objects: neither the checker nor ONNX Runtime. Only the second hash tells. So when
# the two files travel, note a hash of *both*, and compare.
#
# [The standard](https://onnx.ai/onnx/repo-docs/ExternalData.html) has an entry `checksum` for that. We write one that
# cannot be right:

# %%
for tensor in outside:
    tensor.external_data.add(key="checksum", value="0" * 40)
onnx.save(graph_only, file)
onnx.checker.check_model(file, full_check=True)

# %% [markdown]
# The checker does not object. Neither does ONNX Runtime:

# %%
unnoticed, _ = answer_and_hashes()
assert unnoticed == wrong
unnoticed

# %% [markdown]
# Nobody looks at the checksum: do not rely on this entry.

# %% [markdown]
# ## Recap
#
# - A message is at most 2 GiB, so a larger model keeps its weights in a second file. The exporter writes two files for
#   any size, unless you say `external_data=False`.
# - Use one file for a small model. Use two where the model is large, or where several models share their weights.
# - Give paths to the checker and to ONNX Runtime, not messages: then it is mapped, and read where a
#   node needs it.
# - Move both files, and compare a hash of both. No tool notices other weights.
#
# **Back:** [01 · Graph structure](../01_graph_structure.ipynb). **Next:**
# [What a file tells](01_metadata.ipynb).
