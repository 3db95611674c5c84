# %% [markdown]
# # 08 · A server, file by file
#
# You want to put a model of your own behind HTTP, and wonder what such a server must do besides calling `session.run`. This
# page goes through the course's server. Its files are yours: change one, start the server again, and see.
#
# You need the [core of lesson 08](../08_deployment.ipynb); its drawing shows the way of a request.
#
# After this page you will be able to
#
# - check what strangers send, before a byte of it reaches the model,
# - collect requests into batches, and give everybody an answer when something fails,
# - tell ready from alive, and stop a server without losing an answer.

# %%
import course_utils as cu

cu.setup()

# %%
home = cu.course_files("model", "work/08_server_file_by_file")
files = cu.course_files("server", home / "server")
{f.name: len(f.read_text().splitlines()) for f in sorted(files.glob("*.py"))}

# %% [markdown]
# Each duty has files of its own:
#
# | duty | files |
# |---|---|
# | load the model once, and be ready before the first request | `predictor.py` |
# | check what a request holds before the model sees it | `bodies.py`, `readers.py`, `npy_reader.py`, `json_reader.py`, `checks.py` |
# | compute together what arrives together | `waiting.py`, `batching.py` |
# | be observable, and stop politely | `metrics.py`, `errors.py`, `app.py`, `serve.py` |
#
# ## Load once
#
# The file is read, hashed and loaded from the same bytes. Then the model runs once, because the first run is slow
# ([warm-up](../glossary.md#warm-up)). All this happens before anybody can connect.

# %%
cu.listing(files / "predictor.py", "Predictor")

# %% [markdown]
# ## Check what arrives
#
# A body may be too large, arrive byte by byte for hours, or never end. So its size and its time are checked while it
# arrives. `async` marks code that is put aside while it waits, so that the server reads other requests meanwhile. All of
# it runs in one thread, the **event loop**.

# %%
cu.listing(files / "bodies.py", "_read")

# %% [markdown]
# Then the content. An `.npy` file is a header with shape and dtype, followed by the bytes of the array. `numpy.load` is never
# called: we read the header, and refuse before we look at the data.

# %%
cu.listing(files / "npy_reader.py", "from_npy")

# %% [markdown]
# So an array of a billion numbers that exists only in a header costs nothing, and a pickled object is never opened. Let us
# send such a lie.

# %%
import io

import numpy as np

pixels = cu.fashion_mnist("test")[0][:40]
np.save(body := io.BytesIO(), pixels[0])
lie = body.getvalue().replace(b"(28, 28), }" + b" " * 8, b"(999999, 28, 28), }")
server = cu.start_server(home)
server.ask(lie)

# %% [markdown]
# A status from 400 to 499 says that the sender made the mistake. Here are other mistakes that clients really make.

# %%
npy, text = "application/x-npy", "application/json"
wrong = {
    "a text": (b"a picture of a shoe", npy),
    "another size": (np.zeros((32, 32), np.uint8), npy),
    "too many pictures": (pixels, npy),
    "too many bytes": (np.zeros((200, 28, 28), np.uint8), npy),
    "another key in JSON": (b'{"image": []}', text),
}
for mistake, (sent, kind) in wrong.items():
    status, answer = server.ask(sent, kind)
    assert 400 <= status < 500 and server.ask(pixels[0])[0] == 200
    print(f"{mistake}: {status} {answer['error']}")

# %% [markdown]
# Each gets one sentence: what was given, what is expected. In between, good requests are answered. The course's tests send
# seventy kinds of malformed requests.
#
# ## Compute together
#
# A request waits for others until `wait_ms` after its arrival, and longer only while the model is busy. Then one run of
# the model answers them all. What it waits for is a **future**: a place where the answer will be.

# %% tags=["remove-input"]
cu.quiz("08_server_file_by_file", 1)

# %%
cu.listing(files / "batching.py", "Batcher._next_batch")

# %% [markdown]
# The worker waits until there is something, gives others a chance to come, takes what fits, and computes it in another
# thread, so that the event loop goes on.

# %%
cu.listing(files / "batching.py", "Batcher._compute")

# %% [markdown]
# If a batch fails, its requests are computed one by one, and only the guilty one gets the error. A run that takes longer
# than `run_s` ends the worker. Its requests would then wait for ever, so `ask` waits for two things at once: the answer,
# and the end of the worker.

# %%
cu.listing(files / "batching.py", "Batcher.ask")

# %% [markdown]
# ## Be observable
#
# A machine that runs servers, such as Kubernetes, asks two questions. `/health`: are you **ready**? If not, requests go
# elsewhere, for now. `/live`: are you **alive**? If not, the process is started anew.

# %%
[server.get("/health"), server.get("/live")]

# %% [markdown]
# `/metrics` is for people, and for [Prometheus](https://prometheus.io/docs/instrumenting/exposition_formats/), which asks
# every few seconds and keeps the numbers. A *counter* only grows; a *histogram* counts how many values fell below each
# limit (`le`, *less or equal*).

# %%
lines = server.get("/metrics")[1].splitlines()
shown = ("model_info", "answers_total", "batch_images_bucket")
[line for line in lines if line.startswith(shown)]

# %% [markdown]
# The model's name and SHA-256, the answers by status, and the sizes of the batches.
#
# ## How it ends
#
# A server is stopped often: for each new version, by each machine that is replaced. It answers what it has accepted. We
# let a request wait for others for a second, and stop the server meanwhile.

# %%
import sys
import time
from concurrent.futures import ThreadPoolExecutor

server.stop()
server = cu.start_server(home, wait_ms=1000)
with ThreadPoolExecutor(1) as pool:
    late = pool.submit(server.ask, pixels[0])
    while not late.done() and '"waiting":1' not in server.get("/health")[1]:
        time.sleep(0.05)
    server.stop()
status = late.result()[0] if sys.platform != "win32" else 200  # no SIGTERM there

# %%
assert status == 200
status

# %% [markdown]
# The request was answered, and then the server was gone. And if the worker dies, while the process lives on? We forbid any
# run to take time (`run_s`), so the first request ends the worker.

# %%
server = cu.start_server(home, run_s=0)
before = [server.get(way)[0] for way in ("/health", "/live")]
status, answer = server.ask(pixels[0])
after = [server.get(way)[0] for way in ("/health", "/live")]

# %%
assert before == [200, 200] and {status, *after} == {503}
assert "The worker has ended." in server.log.read_text()
server.stop()
answer["error"], after

# %% [markdown]
# Nobody waits in vain, and both addresses say 503: the process will be replaced.

# %% [markdown]
# ## Recap
#
# - Check size and time while the body arrives, the header before the data, and the data before the model.
# - Answer each mistake with a 4xx and one sentence. A 500 means that the server is wrong.
# - In a batch, the mistake of one request stays with that request. Whatever ends, everybody gets an answer.
# - Use `/health` to send requests elsewhere and `/live` to start anew; count everything else in `/metrics`.
#
# **Now you:** task 8.5 of the [exercises](../exercises/08_deployment.ipynb). **Next:** [Under load](08_under_load.ipynb).
