# %% [markdown]
# # 08 · Containers and new versions
#
# On Friday a new model replaced the old one. On Monday a customer complains about an answer, and nobody can say which model
# gave it, or how to get the old one back. A server in production needs a name for each file, a box that is the same on
# every machine, and a way back.
#
# You need the [core of lesson 08](../08_deployment.ipynb).
#
# After this page you will be able to
#
# - say which file gave an answer, and refuse a file that is not the agreed one,
# - put the server into a container,
# - bring out a new version without a gap, and go back.

# %%
import course_utils as cu

cu.setup()
home = cu.course_files("model", "work/08_containers")
_ = cu.course_files("server", home / "server")

# %% [markdown]
# ## Which file is it?
#
# Two files with the same name may differ in one weight. So the server names its model by the SHA-256 of the bytes that it
# loaded, in every answer and in its metrics.

# %%
import numpy as np

pixels = cu.fashion_mnist("test")[0][:160]
server = cu.start_server(home, name="fashion-1")
model = server.ask(pixels[:1])[1]["model"]
model

# %% [markdown]
# Anybody who has the file can compute the same, and so find the file that belongs to an answer:

# %%
import hashlib

content = (home / "model.onnx").read_bytes()
assert hashlib.sha256(content).hexdigest() == model["sha256"]

# %% [markdown]
# An ONNX file is a program that you run. Take it from people you trust, write its hash down when you tested it, and let the
# server refuse any other. Here the agreed hash is that of an empty file:

# %%
agreed = hashlib.sha256(b"").hexdigest()
try:
    cu.start_server(home, sha256=agreed)
except cu.CourseError as error:
    print(error)

# %% [markdown]
# ## The container
#
# A container is a folder with all that a program needs, and a command to start it. This
# [Dockerfile](https://docs.docker.com/reference/dockerfile/) is the recipe. It was *not run here*, where there is no Docker;
# the course's tests hold its list of packages to what the server imports, and start the same program in a process that
# cannot import the course.

# %%
box = cu.course_files("container", home / "box")
cu.listing(box / "Dockerfile")

# %% [markdown]
# Versions are exact, so that the same box is built next year. Neither PyTorch nor the course is in it.

# %%
cu.listing(box / "requirements.txt")

# %% [markdown]
# It runs as a user who is not root. The settings differ from ours in two points: the server must listen on all addresses of
# the box, and at a port that is known. The number of threads is given, so that it does not depend on the machine.

# %%
import json

settings = {
    "host": "0.0.0.0",
    "port": 8000,
    "threads": 1,
    "sha256": model["sha256"],
}
_ = (box / "settings.json").write_text(json.dumps(settings))

# %% [markdown]
# The server and the model lie beside them:

# %%
import shutil

cu.course_files("server", box / "server")
shutil.copy(home / "model.onnx", box)
sorted(path.name for path in box.iterdir())

# %% [markdown]
# In this folder one would now call `docker build --tag fashion:1 .`, and then
# `docker run --publish 127.0.0.1:8000:8000 --memory 512m --read-only fashion:1`.
#
# ## A new version
#
# We make two candidates. The first is the same network with another version number. The second has a mistake that nobody
# sees in the file: its first weights have the wrong sign.

# %%
import onnx
from onnx import numpy_helper

new = onnx.load(home / "model.onnx")
new.model_version = 2
onnx.save(new, home / "model-2.onnx")

# %%
weights = new.graph.initializer[0]
negative = -numpy_helper.to_array(weights)
weights.CopyFrom(numpy_helper.from_array(negative, weights.name))
onnx.save(new, home / "model-3.onnx")

# %% [markdown]
# A candidate starts **beside** the old server, which goes on answering. It gets requests from us only, and we compare
# what both say about 160 pictures that we know.


# %%
def labels_of(server):
    parts = [server.ask(part)[1]["label"] for part in np.split(pixels, 10)]
    return np.concatenate(parts)


before = labels_of(server)

# %%
candidate = cu.start_server(home, model="model-2.onnx", name="fashion-2")
same = float((labels_of(candidate) == before).mean())
assert candidate.get("/health")[0] == 200 and same == 1
same

# %% [markdown]
# It is ready, and says the same. Now a proxy would send new requests to the candidate, and the old server stops: it answers
# what it has accepted, so that no request is lost.

# %%
server.stop()
server = candidate
server.ask(pixels[:1])[1]["model"]

# %% [markdown]
# From here on, answers carry the new hash. And the second candidate?

# %%
candidate = cu.start_server(home, model="model-3.onnx", name="fashion-3")
same = float((labels_of(candidate) == before).mean())
assert candidate.get("/health")[0] == 200 and same < 0.5
same

# %% [markdown]
# It loads, it is ready, and most of its answers are wrong. `/health` cannot see that; only known pictures can. The candidate
# stops, and nobody outside has met it.

# %%
candidate.stop()
status, answer = server.ask(pixels[:1])
server.stop()
status, answer["model"]["name"]

# %% [markdown]
# Had it come out, the way back would be the same as the way forward: start the file of the old hash, compare, switch. So
# keep the old files, under their hashes.

# %% [markdown]
# ## Recap
#
# - Name a model by the SHA-256 of its file, in every answer. Let the server refuse a file that was not agreed.
# - A container holds exact versions, the server, one file and its settings, and runs as an ordinary user.
# - Start a new version beside the old one. Switch when it is ready **and** right on data that you know.
# - Keep the old file: the way back is one more roll-out.
#
# **Next:** [Triton and Ray](08_triton_ray.ipynb). **Back:** [08 · Deployment](../08_deployment.ipynb).
