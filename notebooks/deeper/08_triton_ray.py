# %% [markdown]
# # 08 · Triton and Ray
#
# One process on one machine is no longer enough: there are forty models, or a million pictures to score tonight, and one
# dead process must not stop the service. Two programs do this with the same ONNX file.
#
# You need the [core of lesson 08](../08_deployment.ipynb).
#
# After this page you will be able to
#
# - describe a model to Triton, and test the description without Triton,
# - run a model in several processes with Ray, and say what happens when one dies,
# - decide whether you need either of them.

# %%
import course_utils as cu

cu.setup()
home = cu.course_files("model", "work/08_triton_ray")

# %% [markdown]
# ## Triton: somebody else's server
#
# NVIDIA's [Triton](https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/batcher.html) does what our
# server does, for many models and many machines. It is set up with a folder and a text file, `config.pbtxt`. The server is
# a container for Linux and was *not run here*.

# %%
triton = cu.course_files("triton", home / "triton")
cu.listing(triton / "fashion_resnet" / "config.pbtxt")

# %% [markdown]
# - The folder is called like the model; the file goes to `fashion_resnet/1/model.onnx`, where `1` is its version.
# - `dims` leaves the batch out, because `max_batch_size` says that the first dimension is the batch. Our `label` is just
#   `[batch]`, so nothing would be left: for this case Triton wants `dims: [ 1 ]` and a `reshape`.
# - `dynamic_batching` collects requests like our `batching.py`. `instance_group` starts two sessions.
#
# The text can be checked without Triton: its format is a protobuf message, and the package `tritonclient` has the
# definition. `cu.triton_findings` reads it, and compares it with what the model really has.

# %%
import onnxruntime as ort

cpu = {"providers": ["CPUExecutionProvider"]}
session = ort.InferenceSession(home / "model.onnx", **cpu)
good = (triton / "fashion_resnet" / "config.pbtxt").read_text()

# %%
from importlib.util import find_spec

has_triton = find_spec("tritonclient") is not None  # with the extra serve
cu.triton_findings(good, session) if has_triton else "tritonclient is missing"

# %% [markdown]
# An empty list: the text fits the model. Here are five texts with one mistake each. All of them look right at a glance.

# %%
texts = {
    "with the batch in dims": good.replace("[ 28, 28 ]", "[ -1, 28, 28 ]"),
    "another type": good.replace("UINT8", "FP32"),
    "without reshape": good.replace("  reshape { shape: [ ] }\n", ""),
    "another name": good.replace('"label"', '"class"'),
    "a misspelled field": good.replace("max_batch_size", "max_batchsize"),
}

# %%
for mistake, text in texts.items() if has_triton else ():
    findings = cu.triton_findings(text, session)
    assert findings and text != good
    print(f"{mistake}: {'; '.join(findings)}")

# %% [markdown]
# None of the five fits. A test of this kind takes a second, and belongs beside every `config.pbtxt`.
#
# ## Ray: several processes
#
# One process is one point of failure, and Python uses one core for most of its work. [Ray](https://docs.ray.io/) starts
# several processes, on one machine or on a hundred, with the same program. First the model, for any of these processes:
# each has a session of its own.

# %%
ray_files = cu.course_files("on_ray", home / "on_ray")
cu.listing(ray_files / "fashion.py", "Fashion")

# %% [markdown]
# [Ray Serve](https://docs.ray.io/en/latest/serve/index.html) keeps *replicas* of a service and sends requests to those that
# live.

# %%
cu.listing(ray_files / "service.py", "Service")

# %% [markdown]
# A replica may die while it has our request. Then the caller gets an error, and asks again. That is allowed because a
# prediction changes nothing: computing it twice does no harm.

# %%
cu.listing(ray_files / "service.py", "answer")

# %% [markdown]
# The experiment: two replicas answer, one is killed while both have work, and nobody may stay without an answer. **Ray
# Data**, in `scoring.py`, then spreads 10 000 pictures over a pool of workers. With the address of a cluster, the same
# program runs there: `python -m on_ray.scale_out auto` on one of its machines.
#
# Ray is made for large things, and starting it is one. So below is the record of a run. `run_ray = True` repeats it here,
# if the extra `serve` is installed; the course's tests do.

# %%
import subprocess
import sys

import numpy as np

run_ray = False
images, labels = cu.fashion_mnist("test")
np.save(home / "pixels.npy", images)
np.save(home / "labels.npy", labels)
if run_ray:
    subprocess.run([sys.executable, "-m", "on_ray.scale_out"], cwd=home, check=True)

# %% [markdown]
# The record counts what happened.

# %%
import json

record = cu.deployment_record("scale_out")
found = json.loads((home / "scale_out.json").read_text()) if run_ray else record
serving = {key: n for key, n in found["serving"].items() if key != "labels"}
serving

# %% [markdown]
# The replica was killed in the middle of its work, without any warning. Were all answers right?

# %%
(right,) = session.run(["label"], {"pixels": images[:120]})
assert found["serving"]["labels"] == right.tolist()
caught = serving["requests under way when it was killed"]
assert serving["of these, answered right"] == caught > 0
assert serving["answers by the killed one, afterwards"] == 0
assert serving["replicas before"] == serving["replicas in the end"] == 2
record["serving"]["asked again"]

# %% [markdown]
# All were right, so many requests had to be asked again, and in the end a new replica was running. Ray Data, and what the
# whole run cost on the recorded machine:

# %%
scoring = found["scoring"]
accuracy = scoring["right"] / scoring["pictures"]
assert scoring["pictures"] == 10_000 and accuracy > 0.92
assert record["serving"]["asked again"] > 0
{"accuracy": accuracy} | {
    key: record[key] for key in ("seconds", "processes", "MiB")
}

# %% [markdown]
# That is the price of the machinery around two replicas of a model of one megabyte.

# %% [markdown]
# ## Recap
#
# - Use Triton when you serve many models, or need its schedulers for GPUs. Test every `config.pbtxt` against its model.
# - Use Ray when one machine is not enough, or when it must not be the only one. Asking again is part of the client.
# - Use neither for one small model: the server of this course, started twice behind a proxy, is enough.
#
# **Now you:** task 8.7 of the [exercises](../exercises/08_deployment.ipynb).
# **Next:** [Browser speed, and Node](08_browser_and_node.ipynb). **Back:** [08 · Deployment](../08_deployment.ipynb).
