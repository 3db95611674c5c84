# %% [markdown]
# # 08 · Deployment
#
# A model is useful when somebody else can use it: through a server, on a page in the browser, on a phone. The file stays
# the same in all of these places. What changes is everything around it, and there most of the mistakes are made.
#
# After this lesson you will be able to
#
# - put pre- and post-processing into the graph, so that no caller can get them wrong,
# - write a server that checks its input, collects requests into batches, and stops without losing an answer,
# - run the same file in a browser and in Node, and prove that no data leave the page,
# - prepare a model for a phone, and read what the usability checker says about it,
# - describe the model to Triton, and spread it over several processes with Ray.
#
# It takes about 90 minutes.

# %%
import course_utils as cu

cu.setup()

# %%
import torch

model = cu.fashion_resnet()
names = {"input_names": ["image"], "output_names": ["logits"]}
shapes = ({0: torch.export.Dim("batch")},)
with cu.exporter_messages():
    torch.onnx.export(
        model,
        (torch.randn(2, 1, 28, 28),),
        "work/08_resnet.onnx",
        **names,
        dynamic_shapes=shapes,
        external_data=False,
        verbose=False,
    )

# %% [markdown]
# ## Everything the model needs goes into the graph
#
# Our model does not take pictures. It takes float32 numbers: pixels divided by 255, minus a mean, divided by a standard
# deviation. In training that happened in Python. In production somebody writes it again, in JavaScript, Kotlin or Swift,
# perhaps two years later. What does it cost to get it slightly wrong?

# %% tags=["remove-input"]
cu.quiz("08_deployment", 1)

# %%
import numpy as np
import onnxruntime as ort
import pandas as pd

images, labels = cu.fashion_mnist("test")
session = ort.InferenceSession("work/08_resnet.onnx", providers=["CPUExecutionProvider"])
few, right = images[:800], labels[:800]
pixels = few[:, None].astype(np.float32)
callers = {
    "as in training": cu.normalize(few),
    "forgets to divide by 255": (pixels - 0.286) / 0.353,
    "forgets mean and deviation": pixels / 255,
    "black and white swapped": (1 - pixels / 255 - 0.286) / 0.353,
    "rows and columns swapped": cu.normalize(few).swapaxes(2, 3),
}

# %% [markdown]
# Five callers of the same model. Each believes that its preparation is right. How many of 800 pictures are recognised?

# %%
accuracy = {}
for who, x in callers.items():
    logits = cu.run_in_batches(session, {"image": x.astype(np.float32)})["logits"]
    accuracy[who] = (logits.argmax(1) == right).mean()
assert accuracy["as in training"] > 0.9 > max(list(accuracy.values())[1:])
pd.Series(accuracy, name="accuracy").map("{:.1%}".format).to_frame()

# %% [markdown]
# None of these callers gets an error. The shape is right, the dtype is right, the answers are worse. This is called
# **training/serving skew**, and it is the most common silent fault of a deployed model.
#
# The cure is to leave nothing to the caller. We write the preparation as a small ONNX model of its own: bytes in,
# normalised float32 out. And another one for the end: logits in, a label and probabilities out.

# %%
import onnx
from onnx import compose

opset = next(o.version for o in onnx.load("work/08_resnet.onnx").opset_import if not o.domain)
header = f'<ir_version: {onnx.load("work/08_resnet.onnx").ir_version}, opset_import: ["": {opset}]>'
before = onnx.parser.parse_model(
    header
    + """
    before (uint8[batch, 28, 28] pixels) => (float[batch, 1, 28, 28] prepared)
    <int64[1] channel = {1}, float scale = {255.0}, float mean = {0.286}, float deviation = {0.353}> {
        numbers = Cast<to = 1>(pixels)
        between_0_and_1 = Div(numbers, scale)
        centred = Sub(between_0_and_1, mean)
        normalised = Div(centred, deviation)
        prepared = Unsqueeze(normalised, channel)
    }"""
)
after = onnx.parser.parse_model(
    header
    + """
    after (float[batch, 10] scores) => (int64[batch] label, float[batch, 10] probability) {
        probability = Softmax<axis = 1>(scores)
        label = ArgMax<axis = 1, keepdims = 0>(scores)
    }"""
)

# %% [markdown]
# `onnx.compose.merge_models` joins two models: `io_map` says which output of the first becomes which input of the second.
# Both must have the same IR version and opset. A `prefix` keeps the names of the three parts apart.

# %%
core = compose.add_prefix(onnx.load("work/08_resnet.onnx"), "net_", rename_inputs=False, rename_outputs=False)
front = compose.merge_models(before, core, io_map=[("prepared", "image")])
whole = compose.merge_models(front, after, io_map=[("logits", "scores")])
onnx.checker.check_model(whole, full_check=True)
onnx.save(whole, "work/08_whole.onnx")

# %%
cu.show("work/08_whole.onnx")

# %% [markdown]
# Does it compute what PyTorch computes? We compare probabilities and labels on 800 pictures. The reference is the model
# in Python, with the preparation that it was trained with.

# %%
whole_session = ort.InferenceSession("work/08_whole.onnx", providers=["CPUExecutionProvider"])
answers = cu.run_in_batches(whole_session, {"pixels": few})
label, probability = answers["label"], answers["probability"]
with torch.no_grad():
    parts = [torch.softmax(model(part), 1) for part in torch.from_numpy(cu.normalize(few)).split(100)]
expected = torch.cat(parts).numpy()
assert np.allclose(probability, expected, atol=1e-5)
assert (label == expected.argmax(1)).all()
{"largest difference": float(np.abs(probability - expected).max()), "accuracy": float((label == right).mean())}

# %% [markdown]
# Now the file takes what a camera or a PNG decoder gives: bytes. It also became cheaper to feed, because a byte is a
# quarter of a float32. There is a second way to the same file: put the preparation into a `torch.nn.Module` and export
# that. Use whichever keeps the two definitions together, with a test that compares them.
#
# ## A server in three files
#
# A server for a model has four duties:
#
# 1. Load the model **once**, and be ready before the first request arrives.
# 2. Believe nothing. What a request contains is checked before it reaches the model.
# 3. Use the machine well: requests that arrive together are computed together.
# 4. Be observable, and stop politely.
#
# We write the files from here, so that you can change and restart them. The first one holds the session and the checks.

# %%
from pathlib import Path

Path("work/08").mkdir(exist_ok=True)
onnx.save(whole, "work/08/model.onnx")

# %%
# %%writefile work/08/predictor.py
"""One model, loaded once: what it takes, and what it answers."""

import io
import json
import math

import numpy as np
import onnxruntime as ort
from numpy.lib import format as npy


class RequestError(Exception):
    """A request that is not answered: the HTTP status, and one sentence for the sender."""

    def __init__(self, status, sentence):
        super().__init__(sentence)
        self.status = status


class Predictor:
    def __init__(self, model, threads, most_images):
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.most_images = most_images
        self.run(np.zeros((1, 28, 28), np.uint8))  # the first run is slow: it shall not be a customer's

    def run(self, pixels):
        """uint8 [n, 28, 28] → label int64 [n], probability float32 [n, 10]."""
        return self.session.run(["label", "probability"], {"pixels": pixels})

    def read(self, kind, body):
        """The pixels in a request's body, uint8 [n, 28, 28]. kind: its Content-Type."""
        readers = {"application/x-npy": self._from_npy, "application/json": self._from_json}
        kind = kind.partition(";")[0].strip().lower()
        if kind not in readers:
            raise RequestError(415, f"The Content-Type is {kind[:60]!r}, expected one of: {', '.join(readers)}.")
        return readers[kind](body)

    def _from_npy(self, body):
        stream = io.BytesIO(body)
        try:
            if npy.read_magic(stream) != (1, 0):
                raise ValueError("numpy.save writes version 1.0 for such arrays")
            shape, by_columns, dtype = npy.read_array_header_1_0(stream, max_header_size=1000)
        except Exception:  # whatever a parser does with a stranger's bytes
            raise RequestError(400, "The body is not an .npy file: expected what numpy.save writes.") from None
        self._check(shape, dtype)  # before the data are touched: a header may promise anything
        data = body[stream.tell() :]
        if len(data) != math.prod(shape):
            raise RequestError(400, f"The .npy header promises {math.prod(shape)} bytes of pixels, {len(data)} follow.")
        return np.frombuffer(data, np.uint8).reshape(shape, order="F" if by_columns else "C").reshape(-1, 28, 28)

    def _from_json(self, body):
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            raise RequestError(400, "The body is not valid JSON.") from None
        if not isinstance(value, dict) or set(value) != {"pixels"}:
            raise RequestError(422, 'The JSON must be an object with one key: {"pixels": [[…], …]}.')
        try:
            array = np.array(value["pixels"])
        except (ValueError, OverflowError, RecursionError):
            raise RequestError(422, "The rows in 'pixels' have different lengths, expected [n, 28, 28].") from None
        if array.dtype.kind != "i" or (array.size and not 0 <= array.min() <= array.max() <= 255):
            raise RequestError(422, "The values in 'pixels' must be whole numbers from 0 to 255.")
        self._check(array.shape, np.dtype(np.uint8))
        return array.astype(np.uint8).reshape(-1, 28, 28)

    def _check(self, shape, dtype):
        if dtype != np.uint8:
            raise RequestError(422, f"The dtype is {str(dtype)[:60]}, expected uint8: pixels from 0 to 255.")
        if len(shape) not in (2, 3) or tuple(shape[-2:]) != (28, 28):
            raise RequestError(422, f"The shape is {list(shape)[:8]}, expected [28, 28] or [n, 28, 28].")
        if len(shape) == 3 and not 1 <= shape[0] <= self.most_images:
            raise RequestError(422, f"The request holds {shape[0]} images, expected 1 to {self.most_images}.")


# %% [markdown]
# Two ways in: JSON, which everybody can write, and the binary `.npy` format, which is several times smaller and much faster
# to read. Note what does *not* happen. `numpy.load` is never called: we read the header first, and refuse before a single
# byte of data is believed. So an array of a billion numbers that exists only in the header costs nothing, and a pickled
# object is never opened.
#
# The second file collects requests into batches. A request waits at most `wait_ms` for others to come along.

# %% tags=["remove-input"]
cu.quiz("08_deployment", 2)

# %%
# %%writefile work/08/batching.py
"""Requests that arrive together are computed together."""

import asyncio
import contextlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from predictor import RequestError


class Batcher:
    """run: uint8 [n, 28, 28] → arrays with n rows. largest: images in a batch. wait_ms: how long a request may wait."""

    def __init__(self, run, largest, wait_ms, queue, on_batch=lambda images: None):
        self.run, self.largest, self.wait_s, self.queue, self.on_batch = run, largest, wait_ms / 1000, queue, on_batch
        self.waiting = deque()  # (pixels, future)
        self.some, self.enough = asyncio.Event(), asyncio.Event()
        self.thread = ThreadPoolExecutor(1)  # the model computes here, and the event loop goes on taking requests

    async def ask(self, pixels):
        """The answer for one request: it comes when its batch was computed."""
        if len(self.waiting) >= self.queue:
            raise RequestError(503, f"The server is busy: {self.queue} requests are waiting. Try again in a second.")
        answer = asyncio.get_running_loop().create_future()
        self.waiting.append((pixels, answer))
        self._look()
        return await answer

    def _look(self):
        images = sum(len(pixels) for pixels, _ in self.waiting)
        (self.some.set if images else self.some.clear)()
        (self.enough.set if images >= self.largest else self.enough.clear)()

    async def work(self):
        """Runs as long as the server does."""
        while True:
            await self.some.wait()
            if self.wait_s:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.enough.wait(), self.wait_s)
            await self._compute(self._take())

    def _take(self):
        batch, images = [], 0
        while self.waiting and (not batch or images + len(self.waiting[0][0]) <= self.largest):
            batch.append(self.waiting.popleft())
            images += len(batch[-1][0])
        self._look()
        self.on_batch(images)
        return batch

    async def _compute(self, batch):
        loop = asyncio.get_running_loop()
        try:
            together = np.concatenate([pixels for pixels, _ in batch])
            results = await loop.run_in_executor(self.thread, self.run, together)
        except Exception as error:
            if len(batch) == 1:
                batch[0][1].set_exception(error)
            else:  # one request must not spoil the answers of the others
                for request in batch:
                    await self._compute([request])
            return
        start = 0
        for pixels, answer in batch:
            if not answer.done():  # its sender may have gone
                answer.set_result([rows[start : start + len(pixels)] for rows in results])
            start += len(pixels)


# %% [markdown]
# The heart is `work`: wait until there is something, give others a chance to come, take what fits, compute. It happens in
# a thread of its own, so that the server goes on reading requests while the model computes. If a batch fails, its
# requests are computed one by one, and only the guilty one gets the error.
#
# The third file is the server itself: routes, metrics, start and end.

# %%
# %%writefile work/08/app.py
"""The server:  python app.py settings.json"""

import asyncio
import json
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from batching import Batcher
from predictor import Predictor, RequestError


@dataclass
class Settings:
    model: str = "model.onnx"
    threads: int = 1
    largest_batch: int = 16
    wait_ms: float = 2
    queue: int = 256
    most_images: int = 16  # in one request
    most_bytes: int = 64 * 1024  # in one body
    body_s: float = 5  # a body that is not here by then is given up


async def body_of(request, settings):
    """The body, as long as it is small and arrives in time."""
    too_big = RequestError(413, f"The body is larger than {settings.most_bytes} bytes.")
    if int(request.headers.get("content-length", 0)) > settings.most_bytes:
        raise too_big
    body = bytearray()
    try:
        async with asyncio.timeout(settings.body_s):
            async for part in request.stream():
                body += part
                if len(body) > settings.most_bytes:  # it may have said less, or nothing, about its length
                    raise too_big
    except TimeoutError:
        raise RequestError(408, f"The body did not arrive within {settings.body_s:g} seconds.") from None
    except ClientDisconnect:  # nobody reads this any more, but it is counted, and the log stays short
        raise RequestError(400, "The sender went away before the body was complete.") from None
    return bytes(body)


def create_app(settings):
    predictor = Predictor(settings.model, settings.threads, settings.most_images)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    answers = Counter("answers", "answers by HTTP status", ["status"], registry=registry)
    seconds = Histogram("answer_seconds", "from request to answer", registry=registry)
    batches = Histogram("batch_images", "images in a batch", buckets=(1, 2, 4, 8, 16, 32, 64), registry=registry)

    limits = settings.largest_batch, settings.wait_ms, settings.queue
    batcher = Batcher(predictor.run, *limits, on_batch=batches.observe)

    @asynccontextmanager
    async def lifespan(app):
        working = asyncio.create_task(batcher.work())
        yield  # the server serves; on SIGTERM uvicorn takes no new request, waits for the running ones, and comes back
        working.cancel()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    @app.post("/predict")
    async def predict(request: Request):
        began = time.perf_counter()
        body = await body_of(request, settings)
        pixels = predictor.read(request.headers.get("content-type", ""), body)
        label, probability = await batcher.ask(pixels)
        seconds.observe(time.perf_counter() - began)
        answers.labels(200).inc()
        return JSONResponse({"label": label.tolist(), "probability": probability.tolist()})

    @app.get("/health")
    async def health():
        return {"status": "ready", "waiting": len(batcher.waiting)}

    @app.get("/metrics")
    async def metrics():
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4")

    @app.exception_handler(RequestError)
    async def refused(request, error):
        answers.labels(error.status).inc()
        return JSONResponse({"error": str(error)}, error.status)

    @app.exception_handler(HTTPException)
    async def unknown(request, error):
        answers.labels(error.status_code).inc()
        ways = "POST /predict, GET /health, GET /metrics"
        return JSONResponse({"error": f"{error.detail}: this server answers {ways}."}, error.status_code)

    return app


if __name__ == "__main__":
    settings = Settings(**json.loads(Path(sys.argv[1]).read_text()))
    app = create_app(settings)  # the model is loaded before anybody can connect
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", timeout_graceful_shutdown=10)
    socket = config.bind_socket()  # port 0: the system gives a free one
    socket.listen()
    print("listening on port", socket.getsockname()[1], flush=True)
    uvicorn.Server(config).run([socket])

# %% [markdown]
# Before the socket is opened, the model is loaded and has computed once. The limit on the body is checked while it
# arrives, not afterwards. And metrics are written in the format of Prometheus, which every monitoring system can read.
#
# ## Start it, and ask
#
# The server is a process of its own, on this machine only, on a port that the system chooses. `atexit` makes sure that it
# ends with this notebook, even if a cell fails.

# %%
import atexit
import json
import subprocess
import sys


def start(**settings):
    """Start the server with these settings; returns the process and its port."""
    Path("work/08/settings.json").write_text(json.dumps(settings))
    command = [sys.executable, "app.py", "settings.json"]
    server = subprocess.Popen(command, cwd="work/08", stdout=subprocess.PIPE, text=True)
    atexit.register(server.kill)
    return server, int(server.stdout.readline().split()[-1])


server, port = start()

# %% [markdown]
# A client keeps its connection open and sends one request after the other. The body is what `numpy.save` writes.

# %%
import http.client
import io


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def ask(line, body, kind="application/x-npy", way="/predict"):
    """Status and content of the answer."""
    line.request("POST", way, body, {"Content-Type": kind})
    answer = line.getresponse()
    return answer.status, json.loads(answer.read())


line = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
status, answer = ask(line, npy(few[:3]))
assert status == 200
assert np.allclose(answer["probability"], expected[:3], atol=1e-4)
[cu.CLASS_NAMES[i] for i in answer["label"]]

# %% [markdown]
# Now the other kind of request. Eight of the mistakes that clients really make, and one lie:

# %%
liar = npy(few[0]).replace(b"(28, 28), }" + b" " * 8, b"(999999, 28, 28), }")
wrong = {
    "a text": (b"a picture of a shoe", "application/x-npy"),
    "another Content-Type": (npy(few[0]), "image/png"),
    "float32": (npy(few[0].astype(np.float32)), "application/x-npy"),
    "another size": (npy(np.zeros((32, 32), np.uint8)), "application/x-npy"),
    "too many pictures": (npy(few[:40]), "application/x-npy"),
    "too many bytes": (npy(few[:200]), "application/x-npy"),
    "a value of 300 in JSON": (json.dumps({"pixels": [[300] * 28] * 28}), "application/json"),
    "another key in JSON": (b'{"image": []}', "application/json"),
    "a header that lies": (liar, "application/x-npy"),
}
said = {}
for mistake, (body, kind) in wrong.items():
    fresh = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    status, answer = ask(fresh, body, kind)
    said[mistake] = status, answer["error"]
    assert 400 <= status < 500
    assert ask(line, npy(few[0]))[0] == 200  # and the next good request is answered
assert "999999 images" in said["a header that lies"][1]
pd.DataFrame(said, index=["status", "the server says"]).T

# %% [markdown]
# Each gets a status from 400 to 499, which means *you* made the mistake, and one sentence: what was given, what is
# expected. In the course's tests seventy kinds of malformed requests are sent, with good ones in between.
#
# ## Many clients at once
#
# Eight clients, each sending the next request as soon as it has its answer. Once without batches, once with.

# %%
import re
import time
from concurrent.futures import ThreadPoolExecutor


def get(port, way):
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    line.request("GET", way)
    return line.getresponse().read().decode()


def metric(port, name):
    return float(re.search(rf"^{name} (\S+)$", get(port, "/metrics"), re.MULTILINE)[1])


def client(port, numbers):
    """Ask for these pictures, one by one; the milliseconds of each answer."""
    line, times = http.client.HTTPConnection("127.0.0.1", port, timeout=30), []
    for i in numbers:
        began = time.perf_counter()
        status, answer = ask(line, npy(few[i]))
        times.append((time.perf_counter() - began) * 1000)
        assert status == 200 and np.allclose(answer["probability"][0], expected[i], atol=1e-4)
    line.close()
    return times


# %%
rows = {}
for title, settings in {"one by one": {"largest_batch": 1, "wait_ms": 0}, "in batches": {"largest_batch": 8}}.items():
    server.terminate()
    server, port = start(**settings)
    client(port, range(20))
    began = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        times = np.concatenate(list(pool.map(client, [port] * 8, [range(k, 800, 8) for k in range(8)])))
    took = time.perf_counter() - began
    count = metric(port, "batch_images_count")
    rows[title] = [800 / took, *np.percentile(times, [50, 99]), 820 / count]
assert rows["one by one"][3] == 1 < rows["in batches"][3]
columns = ["answers per second", "p50 in ms", "p99 in ms", "images per batch"]
load = pd.DataFrame(rows, index=columns).T.round(1)
load

# %% [markdown]
# `p50` is the time that half of the requests stay below, `p99` what all but one in a hundred stay below. Averages hide the
# slow requests, and users remember the slow ones. Every answer was compared with PyTorch's.
#
# What did the batches gain? That is the ratio of the first column:

# %%
gain = load["answers per second"]["in batches"] / load["answers per second"]["one by one"]
batch = np.ascontiguousarray(few[:8])
alone = cu.compare(
    {
        "8 runs of 1": lambda: [whole_session.run(None, {"pixels": batch[i : i + 1]}) for i in range(8)],
        "1 run of 8": lambda: whole_session.run(None, {"pixels": batch}),
    },
    rounds=20,
)
{"in the server": round(float(gain), 2), "of the model alone": round(alone.ratio("8 runs of 1", "1 run of 8"), 2)}

# %% [markdown]
# Two things limit the gain. On a CPU a batch saves little, as the second number says: nearly all of the work is
# arithmetic, and that grows with every picture. And this model is so small that HTTP and JSON take more time than the
# network. Batching pays off where starting a run is expensive, as on a GPU. Measure before you make users wait for company.
#
# ## What it tells about itself, and how it ends

# %%
wanted = r"answers_total|batch_images_(bucket|sum)|answer_seconds_count"
[get(port, "/health"), *(text for text in get(port, "/metrics").splitlines() if re.match(wanted, text))]

# %% [markdown]
# `/health` is for the machine that decides whether to send requests here, `/metrics` for people: a histogram counts how many
# batches had at most 1, 2, 4, 8 images.
#
# A server is stopped often: for every new version, by every machine that is replaced. It should answer what it has
# accepted. We let a request wait for company for a second, and ask the server to stop meanwhile.

# %%
server.terminate()
server, port = start(wait_ms=1000)
with ThreadPoolExecutor(1) as pool:
    late = pool.submit(client, port, [0])
    time.sleep(0.4)
    server.terminate()  # SIGTERM on Linux and macOS; Windows has none, and ends a process at once
    waited = late.result() if sys.platform != "win32" else [0]
server.wait(timeout=20)
{"the request was answered after ms": round(waited[0]), "the server runs": server.poll() is None}

# %% [markdown]
# ## Play
#
# How long should a request wait, and how many fit in a batch? It depends on how many arrive. Below, requests arrive at
# random, and a simulated server batches them like ours. The times of the model are measured here, now; HTTP is left out.

# %%
sizes = (1, 2, 4, 8, 16, 32)
calls = {n: lambda x=few[:n]: whole_session.run(None, {"pixels": x}) for n in sizes}
measured = cu.compare(calls, rounds=15, seconds=4).samples.median() * 1000
cu.batching_explorer(measured.to_dict())

# %% [markdown]
# Try to answer: when few requests arrive, what does waiting bring? When more arrive than single runs can serve, what saves
# the server, and what does it cost?
#
# ## Triton: somebody else's server
#
# Our server has some two hundred lines. NVIDIA's Triton does the same for many models and many machines, and is set up with a
# folder and a text file. The server itself is a container for Linux and is *not run here*. But the configuration can be
# checked without it, because its format is a protobuf message, and the package `tritonclient` has the definition.

# %%
Path("work/08/triton/fashion_resnet/1").mkdir(parents=True, exist_ok=True)
onnx.save(whole, "work/08/triton/fashion_resnet/1/model.onnx")

# %%
_ = Path("work/08/triton/fashion_resnet/config.pbtxt").write_text("""name: "fashion_resnet"
backend: "onnxruntime"
max_batch_size: 16
input {
  name: "pixels"
  data_type: TYPE_UINT8
  dims: [ 28, 28 ]
}
output {
  name: "label"
  data_type: TYPE_INT64
  dims: [ 1 ]
  reshape { shape: [ ] }
}
output {
  name: "probability"
  data_type: TYPE_FP32
  dims: [ 10 ]
}
dynamic_batching {
  preferred_batch_size: [ 8, 16 ]
  max_queue_delay_microseconds: 2000
}
instance_group { count: 2 kind: KIND_CPU }
version_policy { latest { num_versions: 1 } }
""")

# %% [markdown]
# The folder is called like the model, and `1` is its version. `dims` leaves the batch out, because `max_batch_size` says
# that the first dimension is the batch. Our `label` is just `[batch]`, so nothing would be left: for this case Triton wants
# `dims: [ 1 ]` and a `reshape`. `dynamic_batching` is our `batching.py`, with the same two numbers.
#
# Now the check: parse it, and compare it with what the model really has.

# %%
from importlib.util import find_spec

TYPES = {"tensor(uint8)": "TYPE_UINT8", "tensor(int64)": "TYPE_INT64", "tensor(float)": "TYPE_FP32"}


def triton_findings(text, session):
    """What in a config.pbtxt does not fit the model; a ParseError where it is not even one."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2 as triton

    config, found = text_format.Parse(text, triton.ModelConfig()), []
    for kind, stated, real in (
        ("input", config.input, session.get_inputs()),
        ("output", config.output, session.get_outputs()),
    ):
        if {s.name for s in stated} != {r.name for r in real}:
            found.append(f"{kind}s are {[r.name for r in real]}")
        for s in stated:
            r = next((r for r in real if r.name == s.name), None)
            dims = list(s.reshape.shape if s.HasField("reshape") else s.dims)
            if r and triton.DataType.Name(s.data_type) != TYPES[r.type]:
                found.append(f"{s.name} is {TYPES[r.type]}")
            if r and dims != r.shape[1:]:
                found.append(f"{s.name} is {r.shape[1:]} without the batch, not {dims}")
    return found


# %%
good = Path("work/08/triton/fashion_resnet/config.pbtxt").read_text()
texts = {
    "as written": good,
    "with the batch in dims": good.replace("[ 28, 28 ]", "[ -1, 28, 28 ]"),
    "another type": good.replace("UINT8", "FP32"),
    "without reshape": good.replace("  reshape { shape: [ ] }\n", ""),
    "another name": good.replace('"label"', '"class"'),
    "a misspelled field": good.replace("max_batch_size", "max_batchsize"),
}


def verdict(text):
    try:
        return triton_findings(text, whole_session) or ["fits the model"]
    except Exception as error:
        return [str(error).split(" : ")[-1]]


if find_spec("tritonclient"):
    checked = {title: verdict(text) for title, text in texts.items()}
    assert checked["as written"] == ["fits the model"] and sum(c == ["fits the model"] for c in checked.values()) == 1
else:
    checked = {
        title: ["not checked: the package tritonclient is missing, it comes with the extra serve"] for title in texts
    }
pd.Series(checked, name="finding").str.join("; ").to_frame()

# %% [markdown]
# Each of these mistakes would stop Triton from loading the model, or make it refuse every request. A test of this kind costs
# a second, and belongs beside every `config.pbtxt`.
#
# ## More than one process: Ray
#
# One process is one point of failure, and Python uses one core for most of its work. Ray starts several, on one machine or
# on a hundred, with the same program. Two of its libraries fit here. **Ray Serve** keeps *replicas* of a service and sends
# requests to those that live. **Ray Data** spreads a large set of inputs over workers.

# %%
# %%writefile work/08/scale_out.py
"""One model in several processes:  python scale_out.py [address of a cluster]"""

import json
import logging
import os
import signal
import sys
import time
from pathlib import Path

# No statistics are sent; a slow machine gets time to start; messages of the services stay in their log files.
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_raylet_start_wait_time_s": "120", "RAY_SERVE_LOG_TO_STDERR": "0"}

import numpy as np
import onnxruntime as ort
import ray
from ray import data, serve

MODEL = Path("model.onnx").read_bytes()  # travels to every process, also on other machines


class Fashion:
    """Each replica and each worker has a session of its own."""

    def __init__(self):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])

    def labels(self, pixels):
        return self.session.run(["label"], {"pixels": pixels})[0]


@serve.deployment(num_replicas=2, ray_actor_options={"num_cpus": 0.5})
class Service(Fashion):
    def __call__(self, pixels):
        return os.getpid(), self.labels(pixels).tolist()


class Score(Fashion):
    def __call__(self, batch):
        return {"label": self.labels(batch["pixels"]), "right": batch["right"]}


def ask(service, pixels, tries=5):
    """[process, labels, how often it had to be asked again]. A replica may die while it has our request."""
    for again in range(tries):
        try:
            return [*service.remote(pixels).result(timeout_s=60), again]
        except ray.exceptions.RayError:
            time.sleep(0.1)
    raise RuntimeError(f"no answer in {tries} tries")


def serving(pixels):
    """Two replicas answer, one is killed, all requests are answered, and a new replica comes."""
    serve.start(proxy_location="Disabled")  # we ask from Python; with "HeadOnly" there is an HTTP port, too
    service = serve.run(Service.bind(), name="fashion", route_prefix=None)
    before = [ask(service, pixels[i : i + 1]) for i in range(40)]
    victim = before[0][0]
    os.kill(victim, signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
    after = [ask(service, pixels[i : i + 1]) for i in range(40, len(pixels))]
    alive, until = set(), time.time() + 60
    while len(alive) < 2 and time.time() < until:
        alive = {ask(service, pixels[:1])[0] for _ in range(10)}
    serve.shutdown()
    return {
        "replicas before": len({process for process, *_ in before}),
        "replicas in the end": len(alive),
        "answers by the killed one, afterwards": sum(process == victim for process, *_ in after),
        "asked again": sum(again for *_, again in after),
        "labels": [label for _, labels, _ in before + after for label in labels],
    }


def scoring(pixels, labels):
    """All pictures, in batches, by a pool of workers."""
    rows = data.from_items([{"pixels": p, "right": int(r)} for p, r in zip(pixels, labels, strict=True)])
    result = rows.map_batches(Score, batch_size=500, compute=data.ActorPoolStrategy(size=1)).to_pandas()
    return {"pictures": len(result), "right": int((result["label"] == result["right"]).sum())}


if __name__ == "__main__":
    small = {"address": "local", "num_cpus": 2, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    where = {"address": sys.argv[1]} if len(sys.argv) > 1 else small
    ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
    pixels, labels = np.load("pixels.npy"), np.load("labels.npy")
    found = {"serving": serving(pixels[:120]), "scoring": scoring(pixels, labels)}
    ray.shutdown()
    Path("scale_out.json").write_text(json.dumps(found))


# %% [markdown]
# To move it to a cluster, you pass its address: `python scale_out.py auto` on a machine of the cluster. That is all that
# changes in the program; `num_replicas` and the size of the pool grow with the cluster.
#
# Ray is made for large things, and starting it is one. On a machine with two cores it takes about a minute, and more than
# a gigabyte of memory in a dozen processes. So we do not run it by default: below is the record of a run, and `run_ray = True` repeats it here,
# if the extra `serve` is installed. In the course's tests it runs each time.

# %%
run_ray = False

np.save("work/08/pixels.npy", images)
np.save("work/08/labels.npy", labels)
if run_ray and find_spec("ray"):
    subprocess.run([sys.executable, "scale_out.py"], cwd="work/08", check=True, capture_output=True)
    ray_run = json.loads(Path("work/08/scale_out.json").read_text())
else:
    ray_run = cu.deployment_record("scale_out")
serving, scoring = ray_run["serving"], ray_run["scoring"]
pd.Series({name: value for name, value in serving.items() if name != "labels"}, name="Ray Serve").to_frame()

# %%
assert serving["labels"] == whole_session.run(["label"], {"pixels": images[:120]})[0].tolist()
assert serving["answers by the killed one, afterwards"] == 0 and serving["replicas in the end"] == 2
accuracy = scoring["right"] / scoring["pictures"]
assert scoring["pictures"] == 10_000 and accuracy > 0.92
f"Ray Data: {accuracy:.2%} of {scoring['pictures']} pictures are right"

# %% [markdown]
# One of two replicas was killed in the middle of the work, without any warning. All 120 requests got the right label, and
# a new replica was started. The one thing the caller must do is in `ask`: ask again when a replica dies that has the
# request. That is allowed because a prediction changes nothing, so computing it twice does no harm.

# %% [markdown]
# ## In the browser
#
# Now to the other end: no server at all. `onnxruntime-web` is ONNX Runtime, compiled to WebAssembly. A page loads it like
# any other script, then loads the model, and from there on everything happens in the page. We write a real one: two files.

# %%
page = Path("work/08/page")
(page / "ort").mkdir(parents=True, exist_ok=True)

# %%
_ = Path("work/08/page/index.html").write_text("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>What do you wear?</title>
<link rel="icon" href="data:,">
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 34em; margin: 2em auto; padding: 0 1em; color-scheme: light dark }
  canvas { width: 224px; height: 224px; image-rendering: pixelated; border: 1px solid; touch-action: none }
  meter { width: 12em }
</style>
<h1>What do you wear?</h1>
<p>Choose a picture, or draw one. The model runs in this page: nothing that you draw leaves your device.</p>
<p id="samples"></p>
<canvas width="28" height="28" role="img" aria-label="The picture that the model sees"></canvas>
<p><button id="clear">Clear</button> <output id="said">The model is being loaded …</output></p>
<table id="bars"></table>
<script type="module" src="predict.js"></script>
</html>
""")

# %% [markdown]
# The interesting part is the second file. Read the first ten lines: they are all that a page needs. Note `wasmPaths`.
# Without it, and with another build of the package, files may come from somebody else's server.

# %%
_ = Path("work/08/page/predict.js").write_text("""import * as ort from "./ort/ort.wasm.min.mjs";

ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href; // from this server, and from no other
ort.env.wasm.numThreads = 1;

const session = await ort.InferenceSession.create("model.onnx", { executionProviders: ["wasm"] });
const { names, pictures } = await (await fetch("pictures.json")).json();

// pixels: numbers from 0 to 255, 784 for each picture
export async function predict(pixels) {
  const shape = [pixels.length / 784, 28, 28];
  const feed = { pixels: new ort.Tensor("uint8", Uint8Array.from(pixels), shape) };
  const { label, probability } = await session.run(feed);
  return { label: Array.from(label.data, Number), probability: Array.from(probability.data) };
}

const canvas = document.querySelector("canvas");
const pen = canvas.getContext("2d", { willReadFrequently: true });

function put(pixels) {
  const image = pen.createImageData(28, 28);
  image.data.set(pixels.flatMap((p) => [p, p, p, 255]));
  pen.putImageData(image, 0, 0);
  return look();
}

async function look() {
  const { data } = pen.getImageData(0, 0, 28, 28);
  const { label, probability } = await predict(Array.from({ length: 784 }, (_, i) => data[4 * i]));
  document.querySelector("#said").value = names[label[0]];
  document.querySelector("#bars").replaceChildren(...probability.map((p, i) => {
    const row = document.createElement("tr");
    row.innerHTML = `<td>${names[i]}</td><td><meter value="${p}" aria-label="${names[i]}"></meter></td>`;
    return row;
  }));
}

canvas.addEventListener("pointermove", ({ buttons, offsetX, offsetY }) => {
  if (!buttons) return;
  pen.fillStyle = "white";
  pen.fillRect((offsetX * 28) / canvas.clientWidth - 1, (offsetY * 28) / canvas.clientHeight - 1, 3, 3);
  look();
});
document.querySelector("#clear").onclick = () => put(Array(784).fill(0));
pictures.forEach((pixels, i) => {
  const button = document.createElement("button");
  button.textContent = `Picture ${i + 1}`;
  button.onclick = () => put(pixels);
  document.querySelector("#samples").append(button, " ");
});

Object.assign(window, { predict, ready: put(pictures[0]) }); // for the lesson's tests
""")

# %% [markdown]
# The page also needs the model, a few pictures to start with, and three files of the package `onnxruntime-web`. In a
# checkout of the course, `make book` has installed the package with npm. In a project of your own it is
# `npm install onnxruntime-web`.

# %%
import shutil

onnx.save(whole, page / "model.onnx")
samples = {"names": cu.CLASS_NAMES, "pictures": few[:6].reshape(6, -1).tolist()}
(page / "pictures.json").write_text(json.dumps(samples))
package = cu.npm_package("onnxruntime-web")
for name in ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"):
    if package:
        shutil.copy(package / "dist" / name, page / "ort" / name)

# %% [markdown]
# You can look at it yourself: run `python -m http.server --directory work/08/page --bind 127.0.0.1` beside this notebook,
# and open the address that it prints.
#
# Here we let a program do it. `cu.in_browser` serves the folder on this machine, opens the page in a real Chromium without
# a window, and writes down every request that the page makes. When the page is loaded, **the network is cut off**. Then it
# has to classify 200 pictures.

# %% tags=["remove-input"]
cu.quiz("08_deployment", 3)

# %%
seen = cu.in_browser(page) or cu.deployment_record("browser")
shown = ["browser", "onnxruntime-web", "pictures", "same labels", "largest difference", "the page says"]
pd.Series({name: str(seen[name]) for name in shown}, name="the page").to_frame()

# %%
cu.claim(
    "same-result-in-browser",
    {
        "200 pictures got the same labels in both": seen["same labels"] and seen["pictures"] == 200,
        "the probabilities agree to 1e-5": seen["largest difference"] < 1e-5,
        "in the recorded run they were not the same bit for bit": cu.deployment_record("browser")["largest difference"]
        > 0,
    },
)

# %% [markdown]
# The same file, the same labels, probabilities that differ in the seventh digit. Which requests were made?

# %%
requests = [*seen["to load"], f"-- network off, {seen['pictures']} pictures --", *seen["while predicting"]]
pd.Series(requests, name="request").to_frame()

# %%
cu.claim(
    "web-data-stays-local",
    {
        "the page was watched from its first request": seen["to load"][0] == "GET /",
        "everything it loaded came from its own server": all(r.startswith("GET /") for r in seen["to load"]),
        "while it predicted, it made no request": seen["while predicting"] == [],
        "without a network it predicted correctly": seen["same labels"],
    },
)

# %% [markdown]
# That proves it for *this* page. A page that predicts locally can still send the picture away: nothing in ONNX Runtime
# prevents it. A `Content-Security-Policy` with `connect-src 'self'` lets the browser enforce the promise.
#
# Is it fast? The report says *nearly native*. WebAssembly knows vectors of 128 bits; this processor may have 256 or 512.
# Both sides use one thread and the same model. The last row was recorded, with
# the report's own example `resnet18`.

# %%
wasm = {"fashion_resnet": seen["wasm ms"], **cu.deployment_record("browser").get("more wasm ms", {})}
native = {"fashion_resnet": seen["native ms"], **cu.deployment_record("browser").get("more native ms", {})}
speed = pd.DataFrame(
    {f"{name}, batch {n}": [native[name][n], wasm[name][n]] for name in wasm for n in wasm[name]},
    index=["native ms", "browser ms"],
).T
speed["times slower"] = speed["browser ms"] / speed["native ms"]
speed.round(2)

# %%
import matplotlib.pyplot as plt

_, ax = plt.subplots(figsize=(7.2, 2.2))
ax.barh(speed.index[::-1], speed["times slower"][::-1], color="#0072B2")
ax.axvline(1, color="gray")
low, high = speed["times slower"].min(), speed["times slower"].max()
ax.set_title(f"One thread of WebAssembly is {low:.0f} to {high:.0f} times slower than native code")
ax.set_xlabel("time in the browser ÷ time in Python's ONNX Runtime")
plt.show()

# %%
files = [request.split("/")[-1] for request in seen["to load"]]
record = cu.deployment_record("browser")
recorded_ratio = [record["wasm ms"][n] / record["native ms"][n] for n in record["wasm ms"]]
cu.claim(
    "web-wasm-near-native",
    {
        "the model runs through WebAssembly": "ort-wasm-simd-threaded.wasm" in files,
        "correctly": seen["same labels"],
        "in the recorded run it was more than three times slower than native": min(recorded_ratio) > 3,
        "but one picture took less than a tenth of a second": record["wasm ms"]["1"] < 100,
    },
)

# %% [markdown]
# Not native, and fast enough for many uses: what counts is the time of *one* answer, and there is no network on the way.
# Several threads need a page that is *cross-origin isolated*, a matter of two HTTP headers. WebGPU reaches the graphics
# card, and WebGL, which the report names, is its predecessor. Neither was timed here.
#
# ## In Node
#
# Outside the browser, JavaScript does not have to put up with WebAssembly: `onnxruntime-node` has the same API, and native
# code below it.

# %%
_ = Path("work/08/predict.mjs").write_text("""import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const [, , packages, model, pictures] = process.argv;
const ort = createRequire(packages + "/")("onnxruntime-node");

const session = await ort.InferenceSession.create(model, { intraOpNumThreads: 1 });
const pixels = new Uint8Array(readFileSync(pictures));
const tensor = new ort.Tensor("uint8", pixels, [pixels.length / 784, 28, 28]);
const { label, probability } = await session.run({ pixels: tensor });
const answer = { label: Array.from(label.data, Number), probability: Array.from(probability.data) };
console.log(JSON.stringify({ ...answer, version: ort.env.versions.node }));
""")

# %%
Path("work/08/pictures.bin").write_bytes(few[:200].tobytes())
package = cu.npm_package("onnxruntime-node")
if package and cu.node():
    command = [cu.node(), "predict.mjs", package.parent, "model.onnx", "pictures.bin"]
    done = subprocess.run(command, cwd="work/08", capture_output=True, text=True, check=True)
    in_node = json.loads(done.stdout)
    difference = float(np.abs(np.reshape(in_node["probability"], (200, 10)) - probability[:200]).max())
    in_node = {"version": in_node["version"], "same labels": in_node["label"] == label[:200].tolist()}
    in_node["largest difference"] = difference
else:
    print("Node or the package onnxruntime-node is missing here. What follows was recorded.")
    in_node = cu.deployment_record("node")
assert in_node["same labels"] and in_node["largest difference"] < 1e-5
pd.Series(
    {name: str(in_node[name]) for name in ("version", "same labels", "largest difference")}, name="Node"
).to_frame()

# %% [markdown]
# ## On a phone
#
# We have no phone here. But most of the work, and most of the mistakes, happen before the phone: what kind of file it gets,
# and whether its accelerators can do anything with it. Both can be seen on any machine.
#
# A phone app counts megabytes, of the model and of the runtime. ONNX Runtime answers with the **ORT format**: optimised
# beforehand, read without protobuf. The conversion also writes which operators are needed. With this list one can build a
# runtime that contains nothing else.

# %%
import contextlib
import logging

from onnxruntime.tools.convert_onnx_models_to_ort import OptimizationStyle, convert_onnx_models_to_ort
from onnxruntime.tools.make_dynamic_shape_fixed import make_dim_param_fixed

mobile = Path("work/08/mobile")
mobile.mkdir(exist_ok=True)
single = onnx.load("work/08_whole.onnx")
make_dim_param_fixed(single.graph, "batch", 1)
onnx.save(single, mobile / "fashion.onnx")
logging.disable(logging.WARNING)  # the tools of this section like to talk
with contextlib.redirect_stdout(io.StringIO()):
    convert_onnx_models_to_ort(mobile, optimization_styles=[OptimizationStyle.Fixed])
{file.name: file.stat().st_size for file in sorted(mobile.iterdir())}

# %%
needed = [text for text in (mobile / "required_operators.config").read_text().splitlines() if text[:1] not in ("#", "")]
needed

# %% [markdown]
# Each line has a domain, an opset and operators. `FusedConv` is there because the fusions of lesson 06 have happened
# already. The file is loaded like any other, and computes the same:

# %%
phone = ort.InferenceSession(mobile / "fashion.ort", providers=["CPUExecutionProvider"])
got = [phone.run(["label", "probability"], {"pixels": few[i : i + 1]}) for i in range(50)]
assert [int(g[0][0]) for g in got] == label[:50].tolist()
assert np.allclose(np.concatenate([g[1] for g in got]), probability[:50], atol=1e-5)
assert any("FusedConv" in text for text in needed)

# %% [markdown]
# ## Will the accelerator take it?
#
# On Android the provider was called NNAPI, on Apple's systems it is CoreML. Each supports a list of operators. The
# **usability checker** compares a model with these lists, and counts how many pieces the graph would be cut into. We give it
# five models: ours with a free batch and with a fixed one, with pre- and post-processing, in int8, and one that is unfriendly
# on purpose.

# %%
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static


class Calibration(CalibrationDataReader):
    def __init__(self):
        self.batches = iter(np.split(cu.normalize(cu.fashion_mnist("calibration")[0][:200]), 4))

    def get_next(self):
        return next(({"image": batch} for batch in self.batches), None)


quantize_static("work/08_resnet.onnx", "work/08_int8.onnx", Calibration(), QuantFormat.QDQ, per_channel=True)

# %% [markdown]
# And the unfriendly one: every other operator is one that accelerators seldom have.

# %%
unfriendly = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
    g (float[1, 16, 8, 8] x) => (float[1, 16, 8, 8] y) <int64 axis = {1}> {
        a = Relu(x)
        b = Mod<fmod = 1>(a, x)
        c = Sigmoid(b)
        d = CumSum(c, axis)
        e = Tanh(d)
        f = Sign(e)
        y = Add(f, a)
    }""")
onnx.save(unfriendly, "work/08_unfriendly.onnx")

# %%
for source, target in {"resnet": "fixed", "int8": "int8_fixed"}.items():
    fixed = onnx.load(f"work/08_{source}.onnx")
    make_dim_param_fixed(fixed.graph, "batch", 1)
    onnx.save(fixed, f"work/08_{target}.onnx")
onnx.save(single, "work/08_single.onnx")

# %% tags=["remove-input"]
cu.quiz("08_deployment", 4)

# %% [markdown]
# The checker writes to a log. We catch it, and read four things from it for each accelerator: how many nodes it would take,
# in how many pieces, the verdict, and which operators it lacks.

# %%
from onnxruntime.tools.mobile_helpers import usability_checker


def usability(file):
    """One row per accelerator: [nodes, pieces, verdict, operators it lacks], as the checker reports them."""
    text = io.StringIO()
    log = logging.getLogger("usability")
    log.handlers, log.propagate = [logging.StreamHandler(text)], False
    log.setLevel(logging.INFO)
    logging.disable(logging.NOTSET)
    usability_checker.analyze_model(Path(file), logger=log)
    rows = {}
    for part in text.getvalue().split("Checking ")[2:]:  # the first one names the file
        if part.startswith("if model"):  # what would be if its shapes were fixed
            continue
        name = part.split("\n")[0]
        pieces, nodes = re.search(r"(\d+) partitions with a total of (\S+) nodes", part).groups()
        lacks = re.search(r"Unsupported ops: (.*)", part)
        word = re.search(r"as is: (\w+)", part)[1]
        rows[name] = [nodes, int(pieces), word, lacks[1].replace("ai.onnx:", " ").strip() if lacks else ""]
    return rows


# %%
files = {
    "free batch": "work/08_resnet.onnx",
    "batch 1": "work/08_fixed.onnx",
    "with pre- and post-processing": "work/08_single.onnx",
    "int8": "work/08_int8_fixed.onnx",
    "unfriendly": "work/08_unfriendly.onnx",
}
verdicts = pd.concat(
    {
        title: pd.DataFrame(usability(file), index=["nodes", "pieces", "verdict", "lacks"]).T
        for title, file in files.items()
    }
)
verdicts

# %% [markdown]
# Read it model by model.
#
# - With a **free batch** no accelerator takes a single node. This is the most important line of the table, since a free
#   batch is what we wanted for the server. A phone gets a file of its own.
# - With **batch 1** NNAPI and the newer kind of CoreML model (*MLProgram*) take all of it, in one piece.
# - **Pre- and post-processing** do no harm there: the one operator that is missing, `ArgMax`, stands at the very end.
# - **int8** is fine for NNAPI, and the end of CoreML: it has no `QuantizeLinear`, and the graph falls into many pieces.
# - The **unfriendly** model changes sides at every other node. Each change is a copy.
#
# The verdict is mostly counting pieces: with two it is MAYBE at best, with three it is NO. Between two pieces the data go to
# the CPU and back.

# %%
verdict_of, pieces_of = verdicts["verdict"], verdicts["pieces"]
available, known = ort.get_available_providers(), ort.get_all_providers()
cu.claim(
    "android-nnapi-flag",
    {
        "the provider exists": "NnapiExecutionProvider" in known,
        "but only in the packages for Android": "NnapiExecutionProvider" not in available,
        "a model with a free batch gives it no node": pieces_of["free batch", "NNAPI"] == 0,
        "the same model with a fixed batch suits it": verdict_of["batch 1", "NNAPI"] == "YES",
        "so does the int8 model": verdict_of["int8", "NNAPI"] == "YES",
        "an unfriendly model does not": verdict_of["unfriendly", "NNAPI"] == "NO",
    },
)

# %% [markdown]
# `addNnapi()` is a request, not a result. And it is a request to something that is going away: Google marked NNAPI as
# deprecated in Android 15. What is there instead, as far as documentation goes (*none of it was run here*):
#
# | way | what it is |
# |---|---|
# | XNNPACK provider | fast kernels for the CPU of the phone; `addXnnpack()`, in the Android package |
# | QNN provider | the NPU of Qualcomm's chips; mostly for quantized models |
# | WebGPU provider | the graphics processor |
# | LiteRT | Google's own runtime; it reads `.tflite`, not ONNX |
#
# Start with the CPU: for a small model it is often enough, and it is the same on every phone.
#
# Now CoreML. How much smaller is its list than ONNX?

# %%
folder = Path(usability_checker.__file__).parent
listed = {}
for file in sorted(folder.glob("*_supported_*ops.md")):
    listed[file.stem] = set(re.findall(r"^\|ai\.onnx:(\w+)\|", file.read_text(), re.MULTILINE))
current = {schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain and not schema.deprecated}
sizes = {"ONNX": len(current), **{name: len(ops & current) for name, ops in listed.items()}}
misspelled = {name: ", ".join(sorted(ops - current)) for name, ops in listed.items()}
pd.DataFrame({"operators": sizes, "names that ONNX does not know": misspelled}).reindex(sizes).fillna("")

# %% [markdown]
# A fraction of ONNX, in all three. And the checker is a look-up in these lists, letter by letter. The last column shows
# names that ONNX does not know. Where a list has such a misspelling, the checker says that the operator is missing. So a
# "no" of the checker is a hint, and the device has the last word.

# %%
program = "CoreML MLProgram"
cu.claim(
    "coreml-limited-ops",
    {
        "CoreML lists less than half of ONNX's operators": sizes["coreml_supported_mlprogram_ops"] < sizes["ONNX"] / 2,
        "our model in float32 fits, in one piece": verdict_of["batch 1", program] == "YES"
        and pieces_of["batch 1", program] == 1,
        "in int8 it is cut into many pieces": pieces_of["int8", program] > 10,
        "because QuantizeLinear is missing": "QuantizeLinear" in verdicts.loc[("int8", program), "lacks"],
        "the rest stays with the CPU": verdicts.loc[("unfriendly", program), "nodes"] != "7/7",
    },
)

# %% [markdown]
# ## Two apps, not run here
#
# With the processing in the graph, little is left for the app. In **Kotlin**, with the file in `assets` (*not run here*):
#
# ```kotlin
# // build.gradle.kts: implementation("com.microsoft.onnxruntime:onnxruntime-android:<version>")
# import ai.onnxruntime.OnnxJavaType
# import ai.onnxruntime.OnnxTensor
# import ai.onnxruntime.OrtEnvironment
# import ai.onnxruntime.OrtSession
# import android.content.Context
# import java.nio.ByteBuffer
#
# class Fashion(context: Context) : AutoCloseable {
#     private val environment = OrtEnvironment.getEnvironment()
#     private val session: OrtSession
#
#     init {
#         val model = context.assets.open("fashion.ort").use { it.readBytes() }
#         val options = OrtSession.SessionOptions()
#         options.addXnnpack(mapOf("intra_op_num_threads" to "2"))
#         session = environment.createSession(model, options) // once, not for every picture
#     }
#
#     /** pixels: 784 bytes, row by row. */
#     fun label(pixels: ByteArray): Long {
#         val shape = longArrayOf(1, 28, 28)
#         OnnxTensor.createTensor(environment, ByteBuffer.wrap(pixels), shape, OnnxJavaType.UINT8).use { tensor ->
#             session.run(mapOf("pixels" to tensor)).use { results ->
#                 return (results.get("label").get().value as LongArray)[0]
#             }
#         }
#     }
#
#     override fun close() = session.close()
# }
# ```
#
# In **Swift**, with the package `onnxruntime-swift-package-manager` (*not run here*):
#
# ```swift
# import Foundation
# import OnnxRuntimeBindings
#
# final class Fashion {
#     private let environment: ORTEnv
#     private let session: ORTSession
#
#     init() throws {
#         let options = try ORTSessionOptions()
#         let coreML = ORTCoreMLExecutionProviderOptions()
#         coreML.createMLProgram = true // the newer kind, with the longer list
#         coreML.onlyAllowStaticInputShapes = true
#         try options.appendCoreMLExecutionProvider(with: coreML)
#         let model = Bundle.main.path(forResource: "fashion", ofType: "onnx")!
#         environment = try ORTEnv(loggingLevel: .warning)
#         session = try ORTSession(env: environment, modelPath: model, sessionOptions: options)
#     }
#
#     /// pixels: 784 bytes, row by row.
#     func label(pixels: Data) throws -> Int64 {
#         let input = try ORTValue(tensorData: NSMutableData(data: pixels), elementType: .uInt8, shape: [1, 28, 28])
#         let results = try session.run(withInputs: ["pixels": input], outputNames: ["label"], runOptions: nil)
#         let bytes = try results["label"]!.tensorData() as Data
#         return bytes.withUnsafeBytes { $0.load(as: Int64.self) }
#     }
# }
# ```
#
# Neither app knows a mean or a deviation. That was decided at the beginning of this lesson.

# %%
assert server.poll() is not None  # nothing that we started still runs

# %% [markdown]
# ## Recap
#
# - Put pre- and post-processing into the graph. A caller who gets it wrong gets no error, only worse answers.
# - A server loads once, checks headers before data, limits what it reads, answers mistakes with a 4xx and one sentence, and
#   finishes its work before it stops.
# - Batching trades waiting for throughput. How much it brings depends on the model: measure p50 and p99.
# - The same file gives the same labels in Python, in the browser and in Node. In the browser the data stay, and one thread
#   is several times slower than native.
# - A phone wants fixed shapes, few pieces, and its own measurements. The usability checker gives hints, the device decides.
# - Ray and Triton run the same file on many machines; a dead replica costs a repeated request.
#
# **Now you:** [exercises 08](exercises/08_deployment.ipynb). **Next:** [09 · Troubleshooting](09_troubleshooting.ipynb).
