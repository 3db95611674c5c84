# %% [markdown]
# # 08 · Under load
#
# Your server answers in a few milliseconds when you ask it alone. How many requests a second does it bear, and what do the
# slowest of them meet? Before you promise a number to anybody, measure it the way users arrive.
#
# You need the [core of lesson 08](../08_deployment.ipynb).
#
# After this page you will be able to
#
# - measure a server in a closed loop and in an open loop, and say why they differ,
# - find out what batching brings for your model,
# - choose a waiting time and a largest batch.

# %%
import course_utils as cu

cu.setup()
home = cu.course_files("model", "work/08_under_load")
files = cu.course_files("server", home / "server")

# %% [markdown]
# ## Eight clients
#
# Clients cost processor time, too, so they get a process of their own: `server/load.py`. In a **closed loop** each of eight
# clients sends its next request when it has an answer. Every answer is compared with what the file gives here.

# %%
import numpy as np
import onnxruntime as ort

pixels = cu.fashion_mnist("test")[0][:800]
options = ort.SessionOptions()
options.intra_op_num_threads = 1
cpu = {"providers": ["CPUExecutionProvider"]}
session = ort.InferenceSession(home / "model.onnx", options, **cpu)
(expected,) = session.run(["probability"], {"pixels": pixels})
np.savez(home / "load.npz", pixels=pixels, expected=expected)

# %% [markdown]
# A request is timed from the moment when it is due until its answer is read.

# %%
cu.listing(files / "load.py", "Clients.ask")

# %% [markdown]
# We start a server with batches of up to eight pictures, and send it 800 requests.

# %%
import json
import subprocess
import sys

server = cu.start_server(home, largest_batch=8)
command = [sys.executable, "-m", "server.load", str(server.port)]
done = subprocess.run(command, cwd=home, capture_output=True, check=True)
seen = json.loads(done.stdout)
np.percentile(seen["times"], [50, 99])

# %% [markdown]
# Milliseconds: half of the requests stay below the first number (`p50`), all but one in a hundred below the second (`p99`,
# a [percentile](../glossary.md#percentile)). Averages hide the slow requests, and users remember those.
#
# ## What batching brings
#
# `server.load()` does the same. It also asks the server how many batches it has computed (`/metrics`), and the system how
# long a processor has worked for it. (A server can count percentiles itself, with
# [histograms](https://prometheus.io/docs/practices/histograms/).)

# %%
import pandas as pd

rows = {"in batches": server.load()}
rows["in batches"]

# %% [markdown]
# And the same load on a server that computes one by one:

# %%
server.stop()
server = cu.start_server(home, largest_batch=1, wait_ms=0)
rows["one by one"] = server.load()
table = pd.DataFrame(rows).T

# %%
sizes = table["images per batch"]
assert sizes["one by one"] == 1 < sizes["in batches"]
table.round(2)

# %% [markdown]
# What did the batches gain? That is the ratio of the first column. And how much of it can the model alone save, on one
# thread as in the server?

# %%
batch = pixels[:8].copy()
singles = [batch[i : i + 1] for i in range(8)]
calls = {
    "8 runs of 1": lambda: [session.run(None, {"pixels": x}) for x in singles],
    "1 run of 8": lambda: session.run(None, {"pixels": batch}),
}
alone = cu.compare(calls, rounds=20)

# %%
rate = table["answers a second"]
gain = float(rate["in batches"] / rate["one by one"])
{"in the server": gain, "the model alone": alone.ratio("8 runs of 1", "1 run of 8")}

# %% [markdown]
# On a CPU the second number is usually close to 1: nearly all of the work is arithmetic, and that grows with every picture.
# In the server a batch also saves work around the model: one thread and one hand-over in place of eight. A gain below 1 means
# that the waiting cost more than it brought, or that this machine had other things to do. How much
# of the server's work is the model?

# %%
busy = rows["in batches"]["server's ms of processor per answer"]
model_ms = float(alone.samples["1 run of 8"].median()) * 1000 / 8
{"the server, ms per answer": busy, "the model, ms per picture": model_ms}

# %% [markdown]
# The rest is HTTP, JSON and Python. Batching pays off where starting a run is expensive, as on a GPU.
#
# ## As users arrive
#
# A closed loop is kind: a slow server is asked less. In an **open loop** requests come at random, so many a second on
# average, whether the server keeps up or not. We ask for half of what it managed in the closed loop, and for a fifth more
# than that.

# %%
server.stop()
server = cu.start_server(home, largest_batch=8)
half, more = 0.5 * rate["in batches"], 1.2 * rate["in batches"]
opened = {f"{some:.0f} a second": server.load(some) for some in (half, more)}
server.stop()
columns = ["p50 in ms", "p99 in ms", "images per batch"]
pd.DataFrame(opened, index=columns).T.round(1)

# %% [markdown]
# When more requests arrive than it can answer, the queue grows as long as the load lasts, and so do the times. A closed
# loop never shows this, so do not take its `p99` for a promise.
#
# ## Play
#
# How long should a request wait, and how many fit in a batch? The time counts from the arrival of the first request.

# %% tags=["remove-input"]
cu.picture("batch_window")

# %% [markdown]
# Below, requests arrive at random, and a simulated server
# batches them like ours. The times of the model are measured here, now; HTTP is left out.

# %%
sizes = (1, 2, 4, 8, 16, 32)
calls = {n: lambda x=pixels[:n]: session.run(None, {"pixels": x}) for n in sizes}
measured = cu.compare(calls, rounds=15, seconds=4).samples.median() * 1000
cu.batching_explorer(measured.to_dict())

# %% [markdown]
# When few requests arrive, what does waiting bring? When more arrive than single runs can serve, what saves the server, and
# what does it cost?

# %% [markdown]
# ## Recap
#
# - Measure p50 and p99, with clients in a process of their own, and in an open loop. Promise nothing from a closed loop.
# - Batching trades waiting for [throughput](../glossary.md#latency-and-throughput). Time one run of 8 against eight of 1:
#   near 1, the model itself gains nothing.
# - Use `wait_ms: 0` unless this ratio is well above 1: what arrives while the model is busy becomes a batch anyway.
#
# **Now you:** task 8.4 of the [exercises](../exercises/08_deployment.ipynb). **Next:**
# [Containers and new versions](08_containers.ipynb).
