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

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# We export the network of lesson 00 once more, with a free batch.

# %%
import torch

model = cu.fashion_resnet()
with cu.exporter_messages():
    torch.onnx.export(
        model,
        (torch.randn(2, 1, 28, 28),),
        "work/08_resnet.onnx",
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
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

images, labels = cu.fashion_mnist("test")
few, right = images[:800], labels[:800]
providers = ["CPUExecutionProvider"]
session = ort.InferenceSession("work/08_resnet.onnx", providers=providers)

# %% [markdown]
# Five callers of the same model. Each believes that its preparation is right. How many of 800 pictures are recognised?

# %%
pixels = few[:, None].astype(np.float32)
callers = {
    "as in training": cu.normalize(few),
    "forgets to divide by 255": (pixels - 0.286) / 0.353,
    "forgets mean and deviation": pixels / 255,
    "black and white swapped": (1 - pixels / 255 - 0.286) / 0.353,
    "rows and columns swapped": cu.normalize(few).swapaxes(2, 3),
}

# %%
import pandas as pd

accuracy = {}
for who, x in callers.items():
    found = cu.run_in_batches(session, {"image": x.astype(np.float32)})
    accuracy[who] = (found["logits"].argmax(1) == right).mean()
assert accuracy["as in training"] > 0.9 > 2 * max(list(accuracy.values())[1:])
pd.Series(accuracy, name="accuracy").map("{:.1%}".format).to_frame()

# %% [markdown]
# None of these callers gets an error. The shape is right, the dtype is right, and more than half of the answers are wrong.
# This is called **training/serving skew**. It is silent: no log shows it.
#
# The cure is to leave nothing to the caller. We write the preparation as a small ONNX model of its own: bytes in,
# normalised float32 out. It needs the IR version and the opset of the model that it will be joined to.

# %%
import onnx

core = onnx.load("work/08_resnet.onnx")
opset = next(o.version for o in core.opset_import if not o.domain)
header = f'<ir_version: {core.ir_version}, opset_import: ["": {opset}]>'
text = """
    before (uint8[batch, 28, 28] pixels) => (float[batch, 1, 28, 28] prepared)
    <float scale = {255.0}, float mean = {0.286}, float deviation = {0.353},
     int64[1] channel = {1}> {
        numbers = Cast<to = 1>(pixels)
        between_0_and_1 = Div(numbers, scale)
        centred = Sub(between_0_and_1, mean)
        normalised = Div(centred, deviation)
        prepared = Unsqueeze(normalised, channel)
    }"""
before = onnx.parser.parse_model(header + text)

# %% [markdown]
# And another one for the end: logits in, a label and probabilities out.

# %%
text = """
    after (float[batch, 10] scores)
        => (int64[batch] label, float[batch, 10] probability) {
        probability = Softmax<axis = 1>(scores)
        label = ArgMax<axis = 1, keepdims = 0>(scores)
    }"""
after = onnx.parser.parse_model(header + text)

# %% [markdown]
# [`compose.merge_models`](https://onnx.ai/onnx/api/compose.html) joins two models: `io_map` says which output of the first
# becomes which input of the second. A prefix on every name inside the network keeps its names apart from ours.

# %%
from onnx import compose

core = compose.add_prefix(core, "net_", rename_inputs=False, rename_outputs=False)
front = compose.merge_models(before, core, io_map=[("prepared", "image")])
whole = compose.merge_models(front, after, io_map=[("logits", "scores")])
onnx.checker.check_model(whole, full_check=True)
onnx.save(whole, "work/08_whole.onnx")

# %%
cu.show("work/08_whole.onnx")

# %% [markdown]
# Does it compute what PyTorch computes? The reference is the model in Python, with the preparation of its training.

# %%
with torch.no_grad():
    parts = torch.from_numpy(cu.normalize(few)).split(100)
    expected = torch.cat([torch.softmax(model(part), 1) for part in parts]).numpy()
whole_session = ort.InferenceSession("work/08_whole.onnx", providers=providers)
answers = cu.run_in_batches(whole_session, {"pixels": few})
label, probability = answers["label"], answers["probability"]
assert np.allclose(probability, expected, atol=1e-5)
assert (label == expected.argmax(1)).all()
{"largest difference": float(np.abs(probability - expected).max())}

# %% [markdown]
# Now the file takes what a camera or a PNG decoder gives: bytes. It also became cheaper to feed, because a byte is a
# quarter of a float32.
#
# ### The other way: one module
#
# If you have the PyTorch code, you need no parser. Put the preparation, the network and the end into one
# `torch.nn.Module`, and export that.


# %%
class Whole(torch.nn.Module):
    """Bytes in, label and probabilities out."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, pixels):
        image = (pixels.unsqueeze(1).float() / 255 - 0.286) / 0.353
        probability = torch.softmax(self.network(image), 1)
        return probability.argmax(1), probability


# %%
with cu.exporter_messages():
    torch.onnx.export(
        Whole(model).eval(),
        (torch.zeros(2, 28, 28, dtype=torch.uint8),),
        "work/08_module.onnx",
        input_names=["pixels"],
        output_names=["label", "probability"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=False,
        verbose=False,
    )

# %%
module_session = ort.InferenceSession("work/08_module.onnx", providers=providers)
same = cu.run_in_batches(module_session, {"pixels": few})
assert (same["label"] == label).all()
assert np.allclose(same["probability"], expected, atol=1e-5)
[f"{x.name}: {x.type} {x.shape}" for x in module_session.get_inputs()]

# %% [markdown]
# The same input, the same answers. With the module, PyTorch keeps the only definition. Joining models also works when all
# you have is a file. In both cases write a test that compares, as we did.
#
# ## A server of small files
#
# A server for a model has four duties. We give each of them files of its own, written from here, so that you can change
# and restart them:
#
# | duty | files |
# |---|---|
# | load the model **once**, and be ready before the first request | `predictor.py` |
# | believe nothing: check what a request holds before the model sees it | `checks.py`, `npy_reader.py`, `json_reader.py`, `readers.py`, `bodies.py` |
# | use the machine well: compute together what arrives together | `waiting.py`, `batching.py` |
# | be observable, and stop politely | `metrics.py`, `errors.py`, `app.py`, `serve.py` |

# %%
from pathlib import Path

Path("work/08").mkdir(exist_ok=True)
onnx.save(whole, "work/08/model.onnx")

# %%
# %%writefile work/08/predictor.py
"""One model, loaded once."""

import hashlib
import os
from pathlib import Path

os.environ.setdefault(
    "ORT_DISABLE_TELEMETRY", "1"
)  # before onnxruntime is imported

import numpy as np
import onnxruntime as ort


class Predictor:
    def __init__(self, model, name, threads):
        content = Path(model).read_bytes()  # what is hashed is what is loaded
        self.about = {"name": name, "sha256": hashlib.sha256(content).hexdigest()}
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        providers = ["CPUExecutionProvider"]
        self.session = ort.InferenceSession(content, options, providers=providers)
        # Warm up: the first run is slow.
        self.run(np.zeros((1, 28, 28), np.uint8))

    def run(self, pixels):
        """uint8 [n, 28, 28] → label int64 [n], probability float32 [n, 10]."""
        return self.session.run(["label", "probability"], {"pixels": pixels})


# %% [markdown]
# ### Believe nothing
#
# The sender must learn what is wrong with a request: a status from 400 to 499 (*4xx*), and one sentence.

# %%
# %%writefile work/08/checks.py
"""What a request must hold."""

import numpy as np


class RequestError(Exception):
    """A request that is not answered: HTTP status, and one sentence for the sender."""

    def __init__(self, status, sentence):
        super().__init__(sentence)
        self.status = status


def check(shape, dtype, most):
    """Refuse all but uint8 [28, 28] and [n, 28, 28] with n from 1 to most."""
    if dtype != np.uint8:
        found = str(dtype)[:60]
        raise RequestError(
            422, f"The dtype is {found}, expected uint8: pixels from 0 to 255."
        )
    if len(shape) not in (2, 3) or tuple(shape[-2:]) != (28, 28):
        found = list(shape)[:8]
        raise RequestError(
            422, f"The shape is {found}, expected [28, 28] or [n, 28, 28]."
        )
    if len(shape) == 3 and not 1 <= shape[0] <= most:
        raise RequestError(
            422, f"The request holds {shape[0]} images, expected 1 to {most}."
        )


# %% [markdown]
# There are two ways in. The first is the binary `.npy` format, which `numpy.save` writes: a header with shape and dtype, then
# the bytes of the array. Note that `numpy.load` is never called. We read the header, and refuse before we look at a single
# byte of data.

# %%
# %%writefile work/08/npy_reader.py
"""Pixels from the .npy format."""

import io
import math

import numpy as np
from numpy.lib import format as npy

from checks import RequestError, check


def header_of(stream):
    """Shape, whether it goes by columns, dtype."""
    try:
        if npy.read_magic(stream) != (1, 0):
            raise ValueError("numpy.save writes version 1.0 for such arrays")
        return npy.read_array_header_1_0(stream, max_header_size=1000)
    except Exception:  # whatever a parser does with a stranger's bytes
        sentence = "The body is not an .npy file: expected what numpy.save writes."
        raise RequestError(400, sentence) from None


def from_npy(body, most):
    stream = io.BytesIO(body)
    shape, by_columns, dtype = header_of(stream)
    check(shape, dtype, most)  # before the data: a header may promise anything
    data, size = body[stream.tell() :], math.prod(shape)
    if len(data) != size:
        sentence = (
            f"The .npy header promises {size} bytes of pixels, {len(data)} follow."
        )
        raise RequestError(400, sentence)
    order = "F" if by_columns else "C"
    return (
        np.frombuffer(data, np.uint8)
        .reshape(shape, order=order)
        .reshape(-1, 28, 28)
    )


# %% [markdown]
# So an array of a billion numbers that exists only in a header costs nothing, and a pickled object is never opened.
#
# The second way in is JSON, which everybody can write. There, more can go wrong:

# %%
# %%writefile work/08/json_reader.py
"""Pixels from JSON:  {"pixels": [[…], …]}"""

import json

import numpy as np

from checks import RequestError, check


def from_json(body, most):
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError(400, "The body is not valid JSON.") from None
    if not isinstance(value, dict) or set(value) != {"pixels"}:
        sentence = 'The JSON must be an object with one key: {"pixels": [[…], …]}.'
        raise RequestError(422, sentence)
    try:
        array = np.array(value["pixels"])
    except (ValueError, OverflowError, RecursionError):
        sentence = (
            "The rows in 'pixels' have different lengths, expected [n, 28, 28]."
        )
        raise RequestError(422, sentence) from None
    whole = array.dtype.kind == "i"
    if not whole or (array.size and not 0 <= array.min() <= array.max() <= 255):
        sentence = "The values in 'pixels' must be whole numbers from 0 to 255."
        raise RequestError(422, sentence)
    check(array.shape, np.dtype(np.uint8), most)
    return array.astype(np.uint8).reshape(-1, 28, 28)


# %% [markdown]
# The Content-Type of a request says which of the two it is.

# %%
# %%writefile work/08/readers.py
"""Which reader is for which Content-Type."""

from checks import RequestError
from json_reader import from_json
from npy_reader import from_npy

READERS = {"application/x-npy": from_npy, "application/json": from_json}


def reader_for(request):
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in READERS:
        wanted = ", ".join(READERS)
        sentence = f"The Content-Type is {kind[:60]!r}, expected one of: {wanted}."
        raise RequestError(415, sentence)
    return READERS[kind]


# %% [markdown]
# And a body may be too large, arrive byte by byte for hours, or never end. So its size is checked while it arrives, not
# afterwards. `async` marks code that can be put aside while it waits, so
# that the server reads other requests meanwhile. All of it runs in one thread, the **event loop**.

# %%
# %%writefile work/08/bodies.py
"""The body of a request, as long as it is small and arrives in time."""

import asyncio

from starlette.requests import ClientDisconnect

from checks import RequestError


async def body_of(request, settings):
    try:
        async with asyncio.timeout(settings.body_s):
            return await _read(request, settings.most_bytes)
    except TimeoutError:
        sentence = f"The body did not arrive within {settings.body_s:g} seconds."
        raise RequestError(408, sentence) from None
    except ClientDisconnect:  # nobody reads this, but it is counted
        sentence = "The sender went away before the body was complete."
        raise RequestError(400, sentence) from None


async def _read(request, most):
    too_big = RequestError(413, f"The body is larger than {most} bytes.")
    if int(request.headers.get("content-length", 0)) > most:
        raise too_big
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:  # it may have said less, or nothing, about its length
            raise too_big
    return bytes(body)


# %% [markdown]
# ### Compute together what arrives together
#
# A request waits for others until `wait_ms` after its arrival, and longer only while the model is busy. Then one run of the
# model answers them all.

# %% tags=["remove-input"]
cu.quiz("08_deployment", 2)

# %% [markdown]
# First the queue. For each request it holds the pixels, a **future**, which is a place where the answer will be, and the time
# of its arrival. Two events tell when somebody waits, and when there are enough for a full batch.

# %%
# %%writefile work/08/waiting.py
"""Requests that wait for their batch."""

import asyncio
from collections import deque

from checks import RequestError


class Waiting:
    def __init__(self, largest, queue):
        self.largest, self.queue = largest, queue
        self.requests = deque()  # (pixels, future, time of arrival)
        self.some, self.enough = asyncio.Event(), asyncio.Event()

    def add(self, pixels):
        """The future of this request's answer."""
        if self.full():
            sentence = f"The server is busy: {self.queue} requests are waiting."
            raise RequestError(503, f"{sentence} Try again in a second.")
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self.requests.append((pixels, future, loop.time()))
        self._look()
        return future

    def full(self):
        return len(self.requests) >= self.queue

    def since(self):
        """When the first of them arrived."""
        return self.requests[0][2]

    def take(self):
        """The next batch: as many requests as fit, at least one."""
        batch, images = [], 0
        while self.requests:
            images += len(self.requests[0][0])
            if batch and images > self.largest:
                break
            batch.append(self.requests.popleft())
        self._look()
        return batch

    def _look(self):
        images = sum(len(pixels) for pixels, *_ in self.requests)
        (self.some.set if images else self.some.clear)()
        (self.enough.set if images >= self.largest else self.enough.clear)()


# %% [markdown]
# And now the worker. The heart is `_next_batch`: wait until there is something, give others a chance to come, take what fits,
# compute.

# %%
# %%writefile work/08/batching.py
"""Requests that arrive together are computed together."""

import asyncio
import contextlib
import logging
import threading

import numpy as np

from checks import RequestError
from waiting import Waiting


class Batcher:
    """run: uint8 [n, 28, 28] → arrays with n rows. on_batch: gets each batch's size."""

    def __init__(self, run, largest, wait_ms, queue, run_s, on_batch):
        self.run, self.on_batch = run, on_batch
        self.wait_s, self.run_s = wait_ms / 1000, run_s
        self.waiting = Waiting(largest, queue)

    def start(self):
        self.worker = asyncio.create_task(self._work())

    def alive(self):
        return not self.worker.done()

    async def ask(self, pixels):
        """The answer for one request. However the worker may end, nobody waits in vain."""
        if self.alive():
            answer = self.waiting.add(pixels)
            try:
                either = answer, self.worker
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if answer.done():
                    return answer.result()
            finally:
                answer.cancel()  # does nothing if it is there
        raise RequestError(503, "This server computes no more. Ask another one.")

    async def _work(self):
        """Runs as long as the server does."""
        try:
            while True:
                await self._next_batch()
        except Exception:
            logging.exception("The worker has ended.")

    async def _next_batch(self):
        await self.waiting.some.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self.waiting.since() + self.wait_s):
                await self.waiting.enough.wait()
        batch = self.waiting.take()
        self.on_batch(sum(len(pixels) for pixels, *_ in batch))
        await self._compute(batch)

    async def _compute(self, batch):
        async with asyncio.timeout(self.run_s):
            requests = [pixels for pixels, *_ in batch]
            found = await in_thread(self._answers, requests)
        if not isinstance(found, BaseException):
            for (_, answer, _), rows in zip(batch, found, strict=True):
                if not answer.done():  # its sender may have gone
                    answer.set_result(rows)
        elif len(batch) > 1:  # one request must not spoil the others
            logging.warning("A batch of %s requests failed: %r", len(batch), found)
            for request in batch:
                await self._compute([request])
        elif not batch[0][1].done():
            failed = RuntimeError("The model failed on this request.")
            failed.__cause__ = found
            batch[0][1].set_exception(failed)

    def _answers(self, requests):
        """For each request its rows of each array."""
        results = self.run(np.concatenate(requests))
        *cuts, images = np.cumsum([len(pixels) for pixels in requests])
        if any(len(rows) != images for rows in results):
            raise ValueError(
                f"The model did not give {images} rows for {images} images."
            )
        return list(zip(*(np.split(rows, cuts) for rows in results), strict=True))


async def in_thread(function, *arguments):
    """Its result, or the error that it raised. Meanwhile the event loop goes on."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def call():
        try:
            found = function(*arguments)
        except (
            BaseException
        ) as error:  # of any kind, or somebody would wait for ever
            found = error
        loop.call_soon_threadsafe(lambda: done.done() or done.set_result(found))

    # A thread of its own: one that never comes back must not keep the process alive.
    threading.Thread(target=call, daemon=True).start()
    return await done


# %% [markdown]
# The model computes in another thread, so that the server goes on reading requests. If a batch fails, its requests are
# computed one by one, and only the guilty one gets the error.
#
# And if the worker itself ends, because of a mistake of ours, or of a run that takes longer than `run_s`? A future that
# nobody fulfils is never done, so its request would wait for ever. Therefore `ask` waits for two things at once, the answer
# and the end of the worker. Whichever comes first ends the waiting.
#
# ### Be observable
#
# [Prometheus](https://prometheus.io/docs/instrumenting/exposition_formats/) is a program that asks servers for their
# numbers every few seconds and keeps them. Its text format is what monitoring systems understand. A *counter* only grows, a
# *histogram* counts how many values fell below each limit.

# %%
# %%writefile work/08/metrics.py
"""What the server counts, in the format of Prometheus."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    Info,
    ProcessCollector,
    generate_latest,
)


class Metrics:
    def __init__(self, model):
        self.all = CollectorRegistry()
        Info("model", "the model that answers", registry=self.all).info(model)
        ProcessCollector(registry=self.all)  # memory and processor time, on Linux
        about = "answers by HTTP status"
        self.answers = Counter("answers", about, ["status"], registry=self.all)
        about = "seconds from request to answer"
        self.seconds = Histogram("answer_seconds", about, registry=self.all)
        about, sizes = "images in a batch", (1, 2, 4, 8, 16, 32, 64)
        self.batches = Histogram(
            "batch_images", about, buckets=sizes, registry=self.all
        )

    def text(self):
        return generate_latest(self.all)


# %% [markdown]
# ### The server itself
#
# [FastAPI](https://fastapi.tiangolo.com/) turns functions into addresses: `@app.post("/predict")` says which function
# answers there. **uvicorn** is the program that speaks HTTP and calls it. First what happens when something is wrong, ours
# or the sender's:

# %%
# %%writefile work/08/errors.py
"""Each error gets a status and one sentence, and is counted."""

from starlette.exceptions import HTTPException

from checks import RequestError

WAYS = "POST /predict, GET /health, GET /live, GET /metrics"


def answer_errors(app, said):
    """said(status, content): counts an answer, and makes it."""

    @app.exception_handler(RequestError)
    async def refused(request, error):
        return said(error.status, {"error": str(error)})

    @app.exception_handler(HTTPException)
    async def unknown(request, error):
        sentence = f"{error.detail}: this server answers {WAYS}."
        return said(error.status_code, {"error": sentence})

    @app.exception_handler(Exception)
    async def failed(
        request, error
    ):  # not the sender's mistake; the log has the details
        return said(500, {"error": "The server failed on this request."})


# %% [markdown]
# And the four addresses. Two of them are for the machine that runs our server, such as Kubernetes. It asks two questions:
#
# | address | the question | what is done when it is answered with 503 |
# |---|---|---|
# | `/health` | Are you **ready**? Not if the queue is full, or the worker has ended. | Requests go elsewhere, for now. |
# | `/live` | Are you **alive**? Not if the worker has ended. | The process is started anew. |
#
# Every answer says which model gave it, by name and SHA-256. After an update, that is the way to find out who answered.
#
# What stands before `yield` happens at the start, what follows it at the end.

# %%
# %%writefile work/08/app.py
"""The server's addresses: POST /predict, GET /health, GET /live, GET /metrics."""

from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from batching import Batcher
from bodies import body_of
from errors import answer_errors
from metrics import Metrics
from predictor import Predictor
from readers import reader_for


def create_app(settings):
    predictor = Predictor(settings.model, settings.name, settings.threads)
    metrics = Metrics(predictor.about)
    limits = (
        settings.largest_batch,
        settings.wait_ms,
        settings.queue,
        settings.run_s,
    )
    batcher = Batcher(predictor.run, *limits, metrics.batches.observe)

    @asynccontextmanager
    async def lifespan(app):
        batcher.start()
        yield  # here the server serves
        batcher.worker.cancel()

    app = FastAPI(
        lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None
    )

    def said(status, content):
        metrics.answers.labels(status).inc()
        return JSONResponse(content, status)

    @app.post("/predict")
    async def predict(request: Request):
        with metrics.seconds.time():
            body = await body_of(request, settings)
            pixels = reader_for(request)(body, settings.most_images)
            label, probability = await batcher.ask(pixels)
        found = {"label": label.tolist(), "probability": probability.tolist()}
        return said(200, found | {"model": predictor.about})

    @app.get("/health")
    async def health():
        ready = batcher.alive() and not batcher.waiting.full()
        waiting = len(batcher.waiting.requests)
        status = "ready" if ready else "not ready"
        return JSONResponse(
            {"status": status, "waiting": waiting}, 200 if ready else 503
        )

    @app.get("/live")
    async def live():
        alive = batcher.alive()
        return JSONResponse(
            {"status": "alive" if alive else "dead"}, 200 if alive else 503
        )

    @app.get("/metrics")
    async def numbers():
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    answer_errors(app, said)
    return app


# %% [markdown]
# The last file holds all limits, and starts the server. The model is loaded, and has computed once, before anybody can
# connect. When a process is to stop, the system sends it the signal SIGTERM: uvicorn then takes no new request, waits for
# the running ones, and ends.

# %%
# %%writefile work/08/serve.py
"""The server:  python serve.py settings.json"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from app import create_app


@dataclass
class Settings:
    model: str = "model.onnx"
    name: str = "fashion_resnet"
    threads: int = 1
    largest_batch: int = 16
    wait_ms: float = 2  # from its arrival on, a request waits so long for others
    queue: int = 256  # how many requests may wait
    run_s: float = 30  # a run of the model that takes longer will never end
    most_images: int = 16  # in one request
    most_bytes: int = 64 * 1024  # in one body
    body_s: float = 5  # a body that is not here by then is given up


app = create_app(Settings(**json.loads(Path(sys.argv[1]).read_text())))
config = uvicorn.Config(
    app,
    host="127.0.0.1",  # this machine only
    port=0,  # the system gives a free one
    log_level="warning",
    timeout_graceful_shutdown=10,
)
socket = config.bind_socket()
socket.listen()
print("listening on port", socket.getsockname()[1], flush=True)
uvicorn.Server(config).run([socket])

# %% [markdown]
# ### Start it, and ask
#
# The server is a process of its own. `atexit` makes sure that it ends with this notebook, even if a cell fails. What it
# complains about goes to `work/08/log.txt`.

# %%
import atexit
import json
import subprocess
import sys


def start(**settings):
    """Start the server with these settings; returns the process and its port."""
    Path("work/08/settings.json").write_text(json.dumps(settings))
    command = [sys.executable, "serve.py", "settings.json"]
    with open("work/08/log.txt", "w") as log:
        out = {"stdout": subprocess.PIPE, "stderr": log, "text": True}
        server = subprocess.Popen(command, cwd="work/08", **out)
    atexit.register(server.kill)
    first = server.stdout.readline()
    assert first, Path("work/08/log.txt").read_text()  # it did not start: why
    return server, int(first.split()[-1])


server, port = start()

# %% [markdown]
# A client keeps its connection open and sends one request after the other.

# %%
import http.client
import io


def connect():
    return http.client.HTTPConnection("127.0.0.1", port, timeout=30)


def ask(line, body, kind="application/x-npy"):
    """Status and content of the answer."""
    line.request("POST", "/predict", body, {"Content-Type": kind})
    answer = line.getresponse()
    return answer.status, json.loads(answer.read())


def npy(array):
    """What numpy.save writes."""
    np.save(stream := io.BytesIO(), array)
    return stream.getvalue()


# %%
line = connect()
status, answer = ask(line, npy(few[:3]))
assert status == 200
assert np.allclose(answer["probability"], expected[:3], atol=1e-4)
[cu.CLASS_NAMES[i] for i in answer["label"]]

# %% [markdown]
# The same picture in JSON gives the same answer. What does it weigh?

# %%
as_json = json.dumps({"pixels": few[:3].tolist()}).encode()
assert ask(line, as_json, "application/json") == (200, answer)
{"bytes as .npy": len(npy(few[:3])), "bytes as JSON": len(as_json)}

# %% [markdown]
# Now the other kind of request. Eight of the mistakes that clients really make, and one lie:

# %%
file, text = "application/x-npy", "application/json"
wrong = {
    "a text": (b"a picture of a shoe", file),
    "another Content-Type": (npy(few[0]), "image/png"),
    "float32": (npy(few[0].astype(np.float32)), file),
    "another size": (npy(np.zeros((32, 32), np.uint8)), file),
    "too many pictures": (npy(few[:40]), file),
    "too many bytes": (npy(few[:200]), file),
    "a value of 300 in JSON": (json.dumps({"pixels": [[300] * 28] * 28}), text),
    "another key in JSON": (b'{"image": []}', text),
}
liar = npy(few[0]).replace(b"(28, 28), }" + b" " * 8, b"(999999, 28, 28), }")
wrong["a header that lies"] = (liar, file)

# %%
said = {}
for mistake, (body, kind) in wrong.items():
    status, answer = ask(connect(), body, kind)
    said[mistake] = status, answer["error"]
    assert 400 <= status < 500
    assert ask(line, npy(few[0]))[0] == 200  # the next good request is answered
assert "999999 images" in said["a header that lies"][1]
pd.DataFrame(said, index=["status", "the server says"]).T

# %% [markdown]
# Each gets a status that means *you* made the mistake, and one sentence: what was given, what is expected. In the course's
# tests seventy kinds of malformed requests are sent, with good ones in between.
#
# ### Many clients at once
#
# Clients cost processor time, too. If they ran in this notebook, they would take it from the measurement. So they get a
# process of their own. There are two kinds. In a **closed loop** each of eight clients sends its next request when it has
# an answer. In an **open loop** requests come at random (*Poisson arrivals*), so many per second on average, whether the
# server keeps up or not. That is what users do. Every answer is compared with PyTorch's.

# %%
# %%writefile work/08/load.py
"""Many clients:  python load.py PORT        closed loop, eight clients
python load.py PORT RATE   open loop, RATE requests per second on average"""

import http.client
import io
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

port, rates = int(sys.argv[1]), [float(rate) for rate in sys.argv[2:]]
given = np.load("load.npz")
mine = threading.local()  # each thread has a connection of its own


def body(picture):
    np.save(stream := io.BytesIO(), picture)
    return stream.getvalue()


bodies = [body(picture) for picture in given["pixels"]]


def ask(i, due=None):
    """Milliseconds until the answer, from the moment when the request was due."""
    if due is not None:
        time.sleep(max(0, due - time.perf_counter()))
    began = due or time.perf_counter()
    if not hasattr(mine, "line"):
        mine.line = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    mine.line.request(
        "POST", "/predict", bodies[i], {"Content-Type": "application/x-npy"}
    )
    answer = mine.line.getresponse()
    content = json.loads(answer.read())
    assert answer.status == 200, content
    assert np.allclose(content["probability"][0], given["expected"][i], atol=1e-4)
    return (time.perf_counter() - began) * 1000


for i in range(20):  # the first ones are slow
    ask(i)
began, worked = time.perf_counter(), time.process_time()
with ThreadPoolExecutor(64 if rates else 8) as pool:
    dues = [None] * len(bodies)
    if rates:
        pauses = np.random.default_rng(0).exponential(1 / rates[0], len(bodies))
        dues = began + np.cumsum(pauses)
    times = list(pool.map(ask, range(len(bodies)), dues))
seconds, worked = time.perf_counter() - began, time.process_time() - worked
print(json.dumps({"times": times, "seconds": seconds, "worked": worked}))

# %% [markdown]
# How many images were in a batch? The server has counted them itself. And the system has counted the time that a processor
# worked for the server, and for the clients.

# %%
import re

import psutil


def get(way):
    line = connect()
    line.request("GET", way)
    answer = line.getresponse()
    return answer.status, answer.read().decode()


def counted():
    """Images and batches so far, and seconds of a processor."""
    text = get("/metrics")[1]
    numbers = dict(
        re.findall(r"^batch_images_(sum|count) (\S+)$", text, re.MULTILINE)
    )
    used = psutil.Process(server.pid).cpu_times()
    return np.array(
        [float(numbers["sum"]), float(numbers["count"]), used.user + used.system]
    )


# %%
def load(*rate):
    """What 800 requests met, and what they cost."""
    before = counted()
    command = [sys.executable, "load.py", str(port), *map(str, rate)]
    done = subprocess.run(
        command, cwd="work/08", stdout=subprocess.PIPE, check=True
    )
    seen, (images, batches, seconds) = json.loads(done.stdout), counted() - before
    p50, p99 = np.percentile(seen["times"], [50, 99])
    return {
        "answers per second": 800 / seen["seconds"],
        "p50 in ms": p50,
        "p99 in ms": p99,
        "images per batch": images / batches,
        "ms of a processor, server": seconds * 1000 / images,
        "ms of a processor, clients": seen["worked"] * 1000 / 800,
    }


# %%
np.savez("work/08/load.npz", pixels=few, expected=expected)
ways = {
    "one by one": {"largest_batch": 1, "wait_ms": 0},
    "in batches": {"largest_batch": 8},
}
rows = {}
for title, settings in ways.items():
    server.terminate()
    server, port = start(**settings)
    rows[title] = load()
table = pd.DataFrame(rows).T
per_batch = table["images per batch"]
assert per_batch["one by one"] == 1 < per_batch["in batches"]
table.round(2)

# %% [markdown]
# `p50` is the time that half of the requests stay below, `p99` what all but one in a hundred stay below. Averages hide the
# slow requests, and users remember the slow ones. The last two columns are per answer.
#
# What did the batches gain? That is the ratio of the first column. How much of it can the model alone save, on one thread,
# as in the server?

# %%
options = ort.SessionOptions()
options.intra_op_num_threads = 1
one_thread = ort.InferenceSession(
    "work/08_whole.onnx", options, providers=providers
)
batch = few[:8].copy()
singles = [batch[i : i + 1] for i in range(8)]
calls = {
    "8 runs of 1": lambda: [one_thread.run(None, {"pixels": x}) for x in singles],
    "1 run of 8": lambda: one_thread.run(None, {"pixels": batch}),
}
alone = cu.compare(calls, rounds=20)

# %%
rate, busy = table["answers per second"], table["ms of a processor, server"]
gains = {
    "gain in the server": rate["in batches"] / rate["one by one"],
    "gain of the model alone": alone.ratio("8 runs of 1", "1 run of 8"),
    "ms of a processor per answer of the server": busy["in batches"],
    "ms per picture of the model": alone.samples["1 run of 8"].median() * 1000 / 8,
}
pd.Series(gains, name="").round(2).to_frame()

# %% [markdown]
# A gain below 1 means that the waiting cost more than it brought, or that this machine had other things to do.
#
# On a CPU the second number is usually close to 1: nearly all of the work is arithmetic, and that grows with every picture.
# The last two numbers say how much of the server's work is the model. The rest is HTTP, JSON and Python; the clients' part is
# not in it. Batching pays off where starting a run is expensive, as on a GPU. Measure before you let users wait for others.
#
# A closed loop is kind: a slow server is asked less. Now the open loop, with the same server. We ask for half of what it
# managed in the closed loop, and for a fifth more than that.

# %%
arriving = {part: part * rate["in batches"] for part in (0.5, 1.2)}
opened = {
    f"{part:.0%}: {some:.0f} a second": load(some)
    for part, some in arriving.items()
}
columns = ["p50 in ms", "p99 in ms", "images per batch"]
pd.DataFrame(opened, index=columns).T.round(1)

# %% [markdown]
# When more requests arrive than it can answer, the queue grows as long as the load lasts, and so do the times. Each time
# counts from the moment when the request was *due*. A closed loop never shows this, so do not take its `p99` for a promise.
#
# ### What it tells about itself

# %%
wanted = r"model_info|answers_total|batch_images_(bucket|sum)|answer_seconds_count"
lines = [text for text in get("/metrics")[1].splitlines() if re.match(wanted, text)]
[get("/health"), get("/live"), *lines]

# %% [markdown]
# `/health` and `/live` are for the machine that runs the server, `/metrics` is for people: the histogram says how many
# batches had at most (`le`, *less or equal*) 1, 2, 4, 8 images.
#
# A server runs for weeks. One that keeps a little of each request dies in the end. The course's tests send it 20 000
# requests, and allow its memory no more than 30 MiB.
#
# ### How it ends
#
# A server is stopped often: for every new version, by every machine that is replaced. It should answer what it has
# accepted. We let a request wait for others for a second, and ask the server to stop meanwhile.

# %%
import time
from concurrent.futures import ThreadPoolExecutor

server.terminate()
server, port = start(wait_ms=1000)
with ThreadPoolExecutor(1) as pool:
    late = pool.submit(ask, connect(), npy(few[0]))
    while not late.done() and '"waiting":1' not in get("/health")[1]:
        time.sleep(0.05)
    server.terminate()  # SIGTERM; Windows has none, and ends a process at once
    ended = late.result() if sys.platform != "win32" else (200, {})
assert (
    ended[0] == 200 and server.wait(timeout=20) is not None
)  # answered, and then over
ended

# %% [markdown]
# And if the worker dies, and the process lives on? We forbid any run to take time (`run_s`), so the first request ends the
# worker.

# %%
server, port = start(run_s=0)
before = {way: get(way)[0] for way in ("/health", "/live")}
status, answer = ask(connect(), npy(few[0]))
after = {way: get(way)[0] for way in before}
assert set(before.values()) == {200} and {status, *after.values()} == {503}
assert "The worker has ended." in Path("work/08/log.txt").read_text()
server.terminate()
{"before": before, "the request": answer["error"], "after": after}

# %% [markdown]
# ### Play
#
# How long should a request wait, and how many fit in a batch? It depends on how many arrive. Below, requests arrive at
# random, and a simulated server batches them like ours. The times of the model are measured here, now; HTTP is left out.

# %%
sizes = (1, 2, 4, 8, 16, 32)
calls = {n: lambda x=few[:n]: one_thread.run(None, {"pixels": x}) for n in sizes}
measured = cu.compare(calls, rounds=15, seconds=4).samples.median() * 1000
cu.batching_explorer(measured.to_dict())

# %% [markdown]
# Try to answer: when few requests arrive, what does waiting bring? When more arrive than single runs can serve, what saves
# the server, and what does it cost?
#
# ## Triton: somebody else's server
#
# NVIDIA's [Triton](https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/batcher.html) does what our
# server does, for many models and many machines. It is set up with a folder and a text file.
# The server itself is a container for Linux and is *not run here*. But the configuration can be checked without it: its
# format is a protobuf message, and the package `tritonclient` has the definition.

# %%
Path("work/08/triton/fashion_resnet/1").mkdir(parents=True, exist_ok=True)
onnx.save(whole, "work/08/triton/fashion_resnet/1/model.onnx")
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
# - The folder is called like the model, and `1` is its version.
# - `dims` leaves the batch out, because `max_batch_size` says that the first dimension is the batch. Our `label` is just
#   `[batch]`, so nothing would be left: for this case Triton wants `dims: [ 1 ]` and a `reshape`.
# - `dynamic_batching` is our `batching.py`, with a largest batch and a waiting time. `instance_group` starts two sessions.
#
# Now the check: parse it, and compare it with what the model really has. First one tensor:

# %%
from importlib.util import find_spec

TYPES = {
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float)": "TYPE_FP32",
}
if find_spec("tritonclient"):
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2 as triton


def misfits(stated, real):
    """What the configuration says of a tensor, and the model does not."""
    dims = list(stated.reshape.shape if stated.HasField("reshape") else stated.dims)
    if triton.DataType.Name(stated.data_type) != TYPES[real.type]:
        yield f"{stated.name} is {TYPES[real.type]}"
    if dims != real.shape[1:]:
        yield f"{stated.name} is {real.shape[1:]} without the batch, not {dims}"


# %% [markdown]
# Then all of them, by name:


# %%
def triton_findings(text, session):
    """What in a config.pbtxt does not fit the model; ParseError where it is not even one."""
    config, found = text_format.Parse(text, triton.ModelConfig()), []
    for kind, all_stated, all_real in (
        ("inputs", config.input, session.get_inputs()),
        ("outputs", config.output, session.get_outputs()),
    ):
        real = {tensor.name: tensor for tensor in all_real}
        if {tensor.name for tensor in all_stated} != set(real):
            found.append(f"{kind} are {list(real)}")
        for stated in all_stated:
            if stated.name in real:
                found += misfits(stated, real[stated.name])
    return found


# %% [markdown]
# Six files, of which one is right:

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


# %%
def verdict(text):
    try:
        return "; ".join(triton_findings(text, whole_session)) or "fits the model"
    except text_format.ParseError as error:
        return str(error).split(" : ")[-1]


if find_spec("tritonclient"):
    checked = {title: verdict(text) for title, text in texts.items()}
    fits = [title for title, said in checked.items() if said == "fits the model"]
    assert fits == ["as written"]
else:
    missing = "not checked: the package tritonclient comes with the extra serve"
    checked = dict.fromkeys(texts, missing)
pd.Series(checked, name="finding").to_frame()

# %% [markdown]
# None of the five fits the model, and all of them look right at a glance. A test of this kind costs a second, and belongs
# beside every `config.pbtxt`.
#
# ## More than one process: Ray
#
# One process is one point of failure, and Python uses one core for most of its work. [Ray](https://docs.ray.io/) starts
# several, on one machine or on a hundred, with the same program. First the model, for any of these processes:

# %%
# %%writefile work/08/fashion.py
"""The model, for the processes of Ray: each of them has a session of its own."""

import os
from pathlib import Path

os.environ.setdefault(
    "ORT_DISABLE_TELEMETRY", "1"
)  # before onnxruntime is imported

import onnxruntime as ort

MODEL = Path("model.onnx").read_bytes()  # travels along, also to other machines


class Fashion:
    def __init__(self):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        self.session = ort.InferenceSession(MODEL, options, providers=providers)

    def labels(self, pixels):
        return self.session.run(["label"], {"pixels": pixels})[0]


# %% [markdown]
# [Ray Serve](https://docs.ray.io/en/latest/serve/index.html) keeps *replicas* of a service and sends requests to those that
# live. A replica may die while it has our request. Then the caller gets an error, and asks again:

# %%
# %%writefile work/08/service.py
"""A service with two replicas, and a caller who asks again."""

import os
import time

from ray import serve
from ray.exceptions import RayError

from fashion import Fashion


@serve.deployment(num_replicas=2, ray_actor_options={"num_cpus": 0.5})
class Service(Fashion):
    def __call__(self, pixels):
        return os.getpid(), self.labels(pixels).tolist()


def answer(service, pixels, request=None, tries=5):
    """[process, labels, how often it was asked again]. request: one that is under way."""
    for again in range(tries):
        try:
            request = request or service.remote(pixels)
            return [*request.result(timeout_s=60), again]
        except RayError:  # the replica that had the request is dead
            request = None
            time.sleep(0.1)
    raise RuntimeError(f"no answer in {tries} tries")


# %% [markdown]
# And now the experiment. Two replicas answer; one is killed while both have work; nobody may stay without an answer.

# %%
# %%writefile work/08/serving.py
"""Ray Serve: one of two replicas is killed while both have work."""

import os
import signal
import sys
import time

from ray import serve

from service import Service, answer

KILL = signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL


def serving(pixels):
    # "HeadOnly" instead of "Disabled" opens an HTTP port, too
    serve.start(proxy_location="Disabled")
    service = serve.run(Service.bind(), name="fashion", route_prefix=None)
    rows = [pixels[i : i + 1] for i in range(len(pixels))]
    before = [answer(service, row) for row in rows[:40]]
    victim = before[0][0]

    under_way = [service.remote(pixels) for _ in range(8)]
    time.sleep(0.1)
    os.kill(victim, KILL)
    caught = [answer(service, pixels, request) for request in under_way]
    after = [answer(service, row) for row in rows[40:]]

    alive, until = set(), time.time() + 60
    while len(alive) < 2 and time.time() < until:
        alive = {answer(service, rows[0])[0] for _ in range(10)}
    serve.shutdown()
    labels = [label for _, found, _ in before + after for label in found]
    return {
        "replicas before": len({process for process, *_ in before}),
        "replicas in the end": len(alive),
        "requests under way when it was killed": len(caught),
        "of these, answered right": sum(found == labels for _, found, _ in caught),
        "asked again": sum(again for *_, again in caught + after),
        "answers by the killed one, afterwards": sum(
            process == victim for process, *_ in after
        ),
        "labels": labels,
    }


# %% [markdown]
# **Ray Data** spreads a large set of inputs over a pool of workers:

# %%
# %%writefile work/08/scoring.py
"""Ray Data: a large set of pictures, in batches, by a pool of workers."""

from ray import data

from fashion import Fashion


class Score(Fashion):
    def __call__(self, batch):
        return {"label": self.labels(batch["pixels"]), "right": batch["right"]}


def scoring(pixels, labels):
    pairs = zip(pixels, labels, strict=True)
    rows = data.from_items([{"pixels": p, "right": int(r)} for p, r in pairs])
    pool = data.ActorPoolStrategy(size=1)
    result = rows.map_batches(Score, batch_size=500, compute=pool).to_pandas()
    right = (result["label"] == result["right"]).sum()
    return {"pictures": len(result), "right": int(right)}


# %% [markdown]
# The program that starts both. With the address of a cluster, the same program runs there: `python scale_out.py auto` on one
# of its machines. Nothing else changes; `num_replicas` and the size of the pool may grow with the cluster.

# %%
# %%writefile work/08/scale_out.py
"""One model in several processes:  python scale_out.py [address of a cluster]"""

import json
import logging
import os
import sys
from pathlib import Path

# No statistics are sent; a slow machine gets time; services keep their messages.
os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": "120",
    "RAY_SERVE_LOG_TO_STDERR": "0",
}
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import ray

import fashion
import scoring
import service
import serving

SMALL = {
    "address": "local",
    "num_cpus": 2,
    "object_store_memory": 80 * 2**20,
    "include_dashboard": False,
}

if __name__ == "__main__":
    for module in (fashion, service, scoring):  # the code travels along, too
        ray.cloudpickle.register_pickle_by_value(module)
    # The processes of a cluster run elsewhere: they do not inherit it.
    name = "ORT_DISABLE_TELEMETRY"
    far = {"runtime_env": {"env_vars": {name: os.environ[name]}}}
    where = {"address": sys.argv[1], **far} if len(sys.argv) > 1 else SMALL
    ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
    pixels, labels = np.load("pixels.npy"), np.load("labels.npy")
    found = {
        "serving": serving.serving(pixels[:120]),
        "scoring": scoring.scoring(pixels, labels),
    }
    ray.shutdown()
    Path("scale_out.json").write_text(json.dumps(found))

# %% [markdown]
# Ray is made for large things, and starting it is one. So we do not run it by default: below is the record of a run, with
# what it cost. `run_ray = True` repeats it here, if the extra `serve` is installed. In the course's tests it runs each time.

# %%
run_ray = False

record = cu.deployment_record("scale_out")
ray_run = record
if run_ray and find_spec("ray"):
    np.save("work/08/pixels.npy", images)
    np.save("work/08/labels.npy", labels)
    command = [sys.executable, "scale_out.py"]
    subprocess.run(command, cwd="work/08", check=True, capture_output=True)
    ray_run = json.loads(Path("work/08/scale_out.json").read_text())
serving, scoring = ray_run["serving"], ray_run["scoring"]
counts = {name: value for name, value in serving.items() if name != "labels"}
cost = {name: record[name] for name in ("seconds", "processes", "MiB")}
right_labels = whole_session.run(["label"], {"pixels": images[:120]})[0]
assert serving["labels"] == right_labels.tolist()
assert (
    serving["of these, answered right"]
    == serving["requests under way when it was killed"]
)
assert serving["answers by the killed one, afterwards"] == 0
assert serving["replicas before"] == serving["replicas in the end"] == 2
assert record["serving"]["asked again"] > 0
pd.Series({**counts, **cost}, name="Ray Serve").to_frame()

# %% [markdown]
# The replica was killed in the middle of its work, without any warning. Some of its requests had to be asked again. In the
# end all had the right answer, and a new replica was running. Asking again is allowed because a prediction changes nothing:
# computing it twice does no harm.

# %%
accuracy = scoring["right"] / scoring["pictures"]
assert scoring["pictures"] == 10_000 and accuracy > 0.92
f"Ray Data: {accuracy:.2%} of {scoring['pictures']} pictures are right"

# %% [markdown]
# ## In the browser
#
# Now to the other end: no server at all.
# [`onnxruntime-web`](https://onnxruntime.ai/docs/get-started/with-javascript/web.html) is ONNX Runtime, compiled to
# [WebAssembly](https://developer.mozilla.org/en-US/docs/WebAssembly): machine code that any browser can run. A page loads
# it like any other script, then loads the model, and from there on everything happens in the page. We write a real one.
# First its frame:

# %%
page = Path("work/08/page")
(page / "ort").mkdir(parents=True, exist_ok=True)
_ = Path("work/08/page/index.html").write_text("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>What do you wear?</title>
<link rel="icon" href="data:,">
<style>
  :root { color-scheme: light dark }
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 38em; margin: 1em auto;
         padding: 0 1em }
  .both { display: flex; flex-wrap: wrap; gap: 1em }
  canvas { width: 224px; height: 224px; image-rendering: pixelated;
           border: 1px solid; touch-action: none }
  meter { width: 12em }
</style>
<main>
<h1>What do you wear?</h1>
<p>Choose a picture, or draw one. The model runs in this page: nothing that you draw
leaves your device.</p>
<p id="samples"></p>
<div class="both">
  <canvas width="28" height="28" role="img" aria-label="The picture that the model sees">
  </canvas>
  <table id="bars"></table>
</div>
<p><button id="clear">Clear</button> <output id="said">The model is being loaded …</output></p>
</main>
<script type="module" src="page.js"></script>
</html>
""")

# %% [markdown]
# Then the model. These lines are all that a page needs. `wasmPaths` says where the WebAssembly comes from; without it, that
# depends on the build of the package, and may be somebody else's server.

# %%
_ = Path("work/08/page/predict.js").write_text("""import * as ort from "./ort/ort.wasm.min.mjs";

ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href; // from this server
ort.env.wasm.numThreads = 1;

const session = await ort.InferenceSession.create("model.onnx", {
  executionProviders: ["wasm"],
});

// pixels: numbers from 0 to 255, 784 for each picture
export async function predict(pixels) {
  const shape = [pixels.length / 784, 28, 28];
  const tensor = new ort.Tensor("uint8", Uint8Array.from(pixels), shape);
  const { label, probability } = await session.run({ pixels: tensor });
  return {
    label: Array.from(label.data, Number),
    probability: Array.from(probability.data),
  };
}
""")

# %% [markdown]
# The rest is a page like any other: a canvas of 28 × 28 pixels, bars for the probabilities, and a pen.

# %%
_ = Path("work/08/page/page.js").write_text("""import { predict } from "./predict.js";
import { draw } from "./pen.js";

const { names, pictures } = await (await fetch("pictures.json")).json();
const find = (what) => document.querySelector(what);
const canvas = find("canvas").getContext("2d", { willReadFrequently: true });

function put(pixels) {
  const image = canvas.createImageData(28, 28);
  image.data.set(pixels.flatMap((p) => [p, p, p, 255]));
  canvas.putImageData(image, 0, 0);
  return look();
}

async function look() {
  const { data } = canvas.getImageData(0, 0, 28, 28); // red, green, blue, opacity
  const pixels = Array.from({ length: 784 }, (_, i) => data[4 * i]);
  const { label, probability } = await predict(pixels);
  find("#said").value = names[label[0]];
  find("#bars").innerHTML = probability.map((p, i) =>
    `<tr><td>${names[i]}</td>
     <td><meter value="${p}" aria-label="${names[i]}"></meter></td></tr>`).join("");
}

draw(canvas, look);
find("#clear").onclick = () => put(Array(784).fill(0));
pictures.forEach((pixels, i) => {
  const button = document.createElement("button");
  button.textContent = `Picture ${i + 1}`;
  button.onclick = () => put(pixels);
  find("#samples").append(button, " ");
});
Object.assign(window, { predict, ready: put(pictures[0]) }); // for the lesson's tests
""")

# %%
_ = Path("work/08/page/pen.js").write_text("""// look: called after each stroke
export function draw(canvas, look) {
  canvas.canvas.addEventListener("pointermove", ({ buttons, offsetX, offsetY }) => {
    if (!buttons) return;
    const scale = 28 / canvas.canvas.clientWidth;
    canvas.fillStyle = "white";
    canvas.fillRect(offsetX * scale - 1, offsetY * scale - 1, 3, 3);
    look();
  });
}
""")

# %% [markdown]
# The page also needs the model, a few pictures to start with, and three files of the package `onnxruntime-web`. In a
# checkout of the course, `make book` has installed the package with npm. In a project of your own it is
# `npm install onnxruntime-web`.
#
# Whoever can open a page can download its model. So the exporter's notes go first: they name folders of your machine (lesson
# 01).

# %%
import shutil

public = onnx.ModelProto()
public.CopyFrom(whole)
for node in public.graph.node:
    del node.metadata_props[:]
assert b"stack_trace" not in public.SerializeToString()
onnx.save(public, page / "model.onnx")
samples = {"names": cu.CLASS_NAMES, "pictures": few[:6].reshape(6, -1).tolist()}
(page / "pictures.json").write_text(json.dumps(samples))
package = cu.npm_package("onnxruntime-web")
wasm = "ort-wasm-simd-threaded"
for name in ("ort.wasm.min.mjs", f"{wasm}.mjs", f"{wasm}.wasm"):
    if package:
        shutil.copy(package / "dist" / name, page / "ort" / name)

# %% [markdown]
# Here it is. Open it, choose a picture, or draw one: your own browser runs the model now, also when you read this in the
# book, where no Python runs at all.

# %%
about = "onnxruntime-web is not here: without it there is no page to open"
cu.show_page(page, "What do you wear?") if package else about

# %% [markdown]
# A person who tries a few pictures proves little, so we let a program do it, too. `cu.in_browser` serves the folder on this
# machine, opens the page in a real Chromium without a window, and writes down every request that the page makes. When the
# page is loaded, **the network is cut off**. Then it has to classify 200 pictures.

# %% tags=["remove-input"]
cu.quiz("08_deployment", 3)

# %%
record = cu.deployment_record("browser")
seen = cu.in_browser(page) or record
shown = ["browser", "onnxruntime-web", "pictures", "same labels"]
shown += ["largest difference", "the page says"]
pd.Series({name: str(seen[name]) for name in shown}, name="the page").to_frame()

# %% [markdown]
# The same file, the same labels. And the probabilities?

# %%
cu.claim(
    "same-result-in-browser",
    {
        "200 pictures got the same labels in both": seen["same labels"]
        and seen["pictures"] == 200,
        "the probabilities agree to 1e-5": seen["largest difference"] < 1e-5,
        "in the recorded run they were not the same bit for bit": record[
            "largest difference"
        ]
        > 0,
    },
)

# %% [markdown]
# Which requests did the page make?

# %%
off = f"-- network off, {seen['pictures']} pictures --"
requests = [*seen["to load"], off, *seen["while predicting"]]
pd.Series(requests, name="request").to_frame()

# %%
loaded = seen["to load"]
cu.claim(
    "web-data-stays-local",
    {
        "the page was watched from its first request": loaded[0] == "GET /",
        "all it loaded came from its own server": all(
            r.startswith("GET /") for r in loaded
        ),
        "while it predicted, it made no request": seen["while predicting"] == [],
        "without a network it predicted correctly": seen["same labels"],
    },
)

# %% [markdown]
# That proves it for *this* page. A page that predicts locally can still send the picture away: nothing in ONNX Runtime
# prevents it. So repeat the experiment with your own page, and with each new version of it.
#
# ### Is it fast?
#
# The report says *nearly native*. WebAssembly knows vectors of 128 bits; a processor may have 256 or 512. Both sides use one
# thread, the same model and the same machine. The row of `resnet18`, the report's own example, was recorded.

# %%
wasm = {"fashion_resnet": seen["wasm ms"], **record["more wasm ms"]}
native = {"fashion_resnet": seen["native ms"], **record["more native ms"]}
runs = [(name, n) for name in wasm for n in wasm[name]]
speed = pd.DataFrame(
    {
        "native ms": [native[name][n] for name, n in runs],
        "browser ms": [wasm[name][n] for name, n in runs],
    },
    index=[f"{name}, batch {n}" for name, n in runs],
)
speed["times slower"] = speed["browser ms"] / speed["native ms"]
speed.round(2)

# %%
import matplotlib.pyplot as plt

_, ax = plt.subplots(figsize=(7.2, 2.2))
ax.barh(speed.index[::-1], speed["times slower"][::-1], color="#0072B2")
ax.axvline(1, color="gray")
low, high = speed["times slower"].min(), speed["times slower"].max()
ax.set_title(
    f"One thread of WebAssembly is {low:.0f} to {high:.0f} times slower than native code"
)
ax.set_xlabel("time in the browser ÷ time in Python's ONNX Runtime")
plt.show()

# %%
wasm = {"fashion_resnet": record["wasm ms"], **record["more wasm ms"]}
native = {"fashion_resnet": record["native ms"], **record["more native ms"]}
times_slower = [
    wasm[name][n] / native[name][n] for name in wasm for n in wasm[name]
]
slower = min(times_slower) > 3 and max(times_slower) < 10
others = [request for request in loaded if re.search("webgl|webgpu|jsep", request)]
cu.claim(
    "web-wasm-near-native",
    {
        "the model runs through WebAssembly": any(
            r.endswith(".wasm") for r in loaded
        ),
        "correctly": seen["same labels"],
        "in the record one thread was three to ten times slower than a native one": slower,
        "one picture took less than a tenth of a second": record["wasm ms"]["1"]
        < 100,
        "WebGL and WebGPU were not in that page": not others,
    },
)

# %% [markdown]
# Several times slower than native, and fast enough for many uses: what counts is the time of *one* answer, and there is no
# network on the way. That was one thread on one machine. Several threads need a page that is *cross-origin isolated*, a
# matter of two HTTP headers. WebGPU reaches the graphics card. WebGL, which the report names, is
# [deprecated](https://github.com/microsoft/onnxruntime/issues/32241) since August 2026. None of these three was timed here.
#
# ## In Node
#
# Outside the browser, JavaScript does not have to put up with WebAssembly: `onnxruntime-node` has the same API, and native
# code below it.

# %%
_ = Path("work/08/predict.mjs").write_text("""import { createHash } from "node:crypto";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const [, , packages, model, pictures] = process.argv;
process.env.ORT_DISABLE_TELEMETRY ??= "1"; // before onnxruntime-node is loaded
const ort = createRequire(packages + "/")("onnxruntime-node");

const bytes = readFileSync(model);
const session = await ort.InferenceSession.create(bytes, { intraOpNumThreads: 1 });
const pixels = new Uint8Array(readFileSync(pictures));
const tensor = new ort.Tensor("uint8", pixels, [pixels.length / 784, 28, 28]);
const { label, probability } = await session.run({ pixels: tensor });
console.log(JSON.stringify({
  label: Array.from(label.data, Number),
  probability: Array.from(probability.data),
  version: ort.env.versions.node,
  sha256: createHash("sha256").update(bytes).digest("hex"),
}));
""")

# %%
import hashlib

Path("work/08/pictures.bin").write_bytes(few[:200].tobytes())
package = cu.npm_package("onnxruntime-node")
if package and cu.node():
    command = [
        cu.node(),
        "predict.mjs",
        package.parent,
        "model.onnx",
        "pictures.bin",
    ]
    done = subprocess.run(
        command, cwd="work/08", capture_output=True, text=True, check=True
    )
    said = json.loads(done.stdout)
    there = np.reshape(said["probability"], (200, 10))
    sha256 = hashlib.sha256(Path("work/08/model.onnx").read_bytes()).hexdigest()
    in_node = {
        "version": said["version"],
        "same bytes": said["sha256"] == sha256,
        "same labels": said["label"] == label[:200].tolist(),
        "largest difference": float(np.abs(there - probability[:200]).max()),
    }
else:
    print(
        "Node or the package onnxruntime-node is missing here. What follows was recorded."
    )
    in_node = cu.deployment_record("node")

# %%
cu.claim(
    "same-file-other-language",
    {
        f"onnxruntime-node {in_node['version']} read the same bytes": in_node[
            "same bytes"
        ],
        "and gave 200 pictures the same labels": in_node["same labels"],
        "the probabilities agree to 1e-5": in_node["largest difference"] < 1e-5,
    },
)

# %% [markdown]
# The report says that a file can be used from any language. Here two of them, Python and JavaScript, used the same file. The
# Kotlin and the Swift below were not run.
#
# ## On a phone
#
# We have no phone here. But most of the work, and most of the mistakes, happen before the phone: what kind of file it gets,
# and whether its accelerators can do anything with it. Both can be seen on any machine. A phone shows one picture at a time,
# so we fix the batch.

# %%
from onnxruntime.tools.make_dynamic_shape_fixed import make_dim_param_fixed


def with_batch_1(source, target):
    fixed = onnx.load(source)
    make_dim_param_fixed(fixed.graph, "batch", 1)
    onnx.save(fixed, target)


mobile = Path("work/08/mobile")
mobile.mkdir(exist_ok=True)
with_batch_1("work/08_whole.onnx", mobile / "fashion.onnx")

# %% [markdown]
# A phone app counts megabytes, of the model and of the runtime. ONNX Runtime answers with the
# [ORT format](https://onnxruntime.ai/docs/performance/model-optimizations/ort-format-models.html): optimised beforehand, read
# without protobuf. There are two styles. *Fixed* optimises now. *Runtime* optimises a little now, and saves a plan for the
# rest. The processor of a phone is an ARM, so we say that, too. The conversion also writes which operators are needed. With
# this list one can build a runtime that contains nothing else.

# %%
import contextlib
import logging

from onnxruntime.tools.convert_onnx_models_to_ort import (
    OptimizationStyle,
    convert_onnx_models_to_ort,
)

logging.getLogger().setLevel(
    logging.ERROR
)  # the tools of this section like to talk
logging.getLogger("ort_format_model.utils").setLevel(logging.ERROR)
with contextlib.redirect_stdout(io.StringIO()):
    convert_onnx_models_to_ort(
        mobile, optimization_styles=list(OptimizationStyle), target_platform="arm"
    )
{file.name: file.stat().st_size for file in sorted(mobile.iterdir())}

# %%
from onnxruntime.tools.reduced_build_config_parser import parse_config

needed, _ = parse_config(mobile / "required_operators.config")
rows = {}
for domain, opsets in needed.items():
    for opset, names in opsets.items():
        rows[domain, opset] = ", ".join(sorted(names))
assert "FusedConv" in needed["com.microsoft"][1]
pd.Series(rows, name="operators").rename_axis(["domain", "opset"]).to_frame()

# %% [markdown]
# The program that builds the runtime reads the list with the same function. `FusedConv` is there because the fusions of
# lesson 06 have happened already. The file is loaded like any other, and computes the same:

# %%
phone = ort.InferenceSession(mobile / "fashion.ort", providers=providers)
names = ["label", "probability"]
got = [phone.run(names, {"pixels": few[i : i + 1]}) for i in range(50)]
assert [int(found[0][0]) for found in got] == label[:50].tolist()
assert np.allclose(
    np.concatenate([found[1] for found in got]), probability[:50], atol=1e-5
)

# %% [markdown]
# ## Will the accelerator take it?
#
# On Android the provider is NNAPI, on Apple's systems
# [CoreML](https://onnxruntime.ai/docs/execution-providers/CoreML-ExecutionProvider.html). Each supports a list of
# operators. The [usability checker](https://onnxruntime.ai/docs/tutorials/mobile/helpers/model-usability-checker.html)
# compares a model with these lists, and counts how many pieces the graph would be cut into. We give it five models: ours
# with a free batch and with a fixed one, with pre- and post-processing, in int8, and one that is unfriendly on purpose.

# %%
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    quantize_static,
)


class Calibration(CalibrationDataReader):
    def __init__(self):
        some = cu.normalize(cu.fashion_mnist("calibration")[0][:200])
        self.batches = iter(np.split(some, 4))

    def get_next(self):
        return next(({"image": batch} for batch in self.batches), None)


files = ("work/08_resnet.onnx", "work/08_int8.onnx")
quantize_static(*files, Calibration(), QuantFormat.QDQ, per_channel=True)

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
with_batch_1("work/08_resnet.onnx", "work/08_fixed.onnx")
with_batch_1("work/08_int8.onnx", "work/08_int8_fixed.onnx")

# %% tags=["remove-input"]
cu.quiz("08_deployment", 4)

# %% [markdown]
# On the command line the checker is
#
# ```
# python -m onnxruntime.tools.check_onnx_model_mobile_usability model.onnx
# ```
#
# We call the same functions. They want a model that was simplified (optimisation level *basic*, lesson 06) and has all
# shapes written into it.

# %%
import tempfile

from onnxruntime.tools.mobile_helpers import usability_checker as checker
from onnxruntime.tools.onnx_model_utils import (
    ModelProtoWithShapeInfo,
    optimize_model,
)


def prepared(file):
    with tempfile.TemporaryDirectory() as folder:
        simpler = Path(folder, "model.onnx")
        optimize_model(Path(file), simpler)
        return ModelProtoWithShapeInfo(simpler).model_with_shape_info


# %% [markdown]
# One row per accelerator: how many nodes it would take, in how many pieces, the verdict, and the operators it lacks. CoreML
# has two kinds of models, an older and a newer one, with a list each.


# %%
def usability(file):
    model = prepared(file)
    found = {"NNAPI": checker.check_nnapi_partitions(model, True)}
    for kind in ("NeuralNetwork", "MLProgram"):
        listed = f"coreml_supported_{kind.lower()}_ops.md"
        found[f"CoreML {kind}"] = checker.check_coreml_partitions(
            model, True, listed
        )
    return {
        name: {
            "nodes": f"{info.num_supported_nodes}/{info.num_nodes}",
            "pieces": info.num_partitions,
            "verdict": info.suitability().name,
            "lacks": ", ".join(
                sorted(op.split(":")[1] for op in info.unsupported_ops)
            ),
        }
        for name, info in found.items()
    }


# %%
models = {
    "free batch": "work/08_resnet.onnx",
    "batch 1": "work/08_fixed.onnx",
    "with pre- and post-processing": mobile / "fashion.onnx",
    "int8": "work/08_int8_fixed.onnx",
    "unfriendly": "work/08_unfriendly.onnx",
}
tables = {title: pd.DataFrame(usability(file)).T for title, file in models.items()}
verdicts = pd.concat(tables)
verdicts

# %% [markdown]
# Read it model by model.
#
# - With a **free batch** no accelerator takes a single node. This is the most important line of the table, since a free
#   batch is what we wanted for the server. A phone gets a file of its own.
# - With **batch 1** NNAPI and the newer kind of CoreML model (*MLProgram*) take all of it, in one piece.
# - **Pre- and post-processing** do no harm there: at most one operator is missing, `ArgMax`, and it stands at the very end.
# - **int8** is fine for NNAPI. CoreML's list has no `QuantizeLinear`, so the graph is cut into many pieces.
# - The **unfriendly** model changes sides at every other node. Each change is a copy.

# %%
new = "CoreML MLProgram"
assert (verdicts.loc["free batch", "pieces"] == 0).all()
for target in ("NNAPI", new):
    assert verdicts.loc[("batch 1", target), "lacks"] == ""
    assert verdicts.loc[("with pre- and post-processing", target), "lacks"] in (
        "ArgMax",
        "",
    )
    assert (
        verdicts.loc[("with pre- and post-processing", target), "verdict"] == "YES"
    )

# %% [markdown]
# The verdict mostly counts pieces. YES means one piece with more than three quarters of the nodes. With two pieces it is
# MAYBE at best, with three it is NO: between two pieces the data go to the CPU and back.

# %%
verdict_of, pieces_of = verdicts["verdict"], verdicts["pieces"]
available, known = ort.get_available_providers(), ort.get_all_providers()
cu.claim(
    "android-nnapi-flag",
    {
        "the provider exists": "NnapiExecutionProvider" in known,
        "but only in the packages for Android": "NnapiExecutionProvider"
        not in available,
        "a model with a free batch gives it no node": pieces_of[
            "free batch", "NNAPI"
        ]
        == 0,
        "the same model with a fixed batch suits it": verdict_of["batch 1", "NNAPI"]
        == "YES",
        "so does the int8 model": verdict_of["int8", "NNAPI"] == "YES",
        "an unfriendly model does not": verdict_of["unfriendly", "NNAPI"] == "NO",
    },
)

# %% [markdown]
# `addNnapi()` is a request, not a result. And it is a request to something that is going away: Google marked NNAPI as
# [deprecated](https://developer.android.com/ndk/guides/neuralnetworks/migration-guide) in Android 15. What is there
# instead, as far as documentation goes (*none of it was run here*):
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
lists = sorted(Path(checker.__file__).parent.glob("*_supported_*ops.md"))
row = re.compile(r"^\|ai\.onnx:(\w+)\|", re.MULTILINE)
listed = {file.stem.replace("_supported", ""): file.read_text() for file in lists}
listed = {name: set(row.findall(text)) for name, text in listed.items()}
schemas = onnx.defs.get_all_schemas()
current = {s.name for s in schemas if not s.domain and not s.deprecated}
sizes = {
    "ONNX": len(current),
    **{name: len(ops & current) for name, ops in listed.items()},
}
unknown = {name: ", ".join(sorted(ops - current)) for name, ops in listed.items()}
columns = {"operators": sizes, "names that ONNX does not know": unknown}
pd.DataFrame(columns).reindex(sizes).fillna("")

# %% [markdown]
# A fraction of ONNX, in all three. And the checker is a look-up in these lists, letter by letter. The last column shows names
# that ONNX does not know. Where a list has such a misspelling, the checker says that the operator is missing. In the versions
# of this course that happened to our `ArgMax`: the list of the newer CoreML models calls it `Argmax`, NNAPI's has none.
# So a "no" of the checker is a hint, and the device has the last word.

# %%
operators = {node.op_type for node in prepared(mobile / "fashion.onnx").graph.node}
said = verdicts.loc[("with pre- and post-processing", new), "lacks"]
assert said == ", ".join(
    operators - listed["coreml_mlprogram_ops"]
)  # letter by letter
int8_lacks = verdicts.loc[("int8", new), "lacks"]
cu.claim(
    "coreml-limited-ops",
    {
        "CoreML lists less than half of ONNX": sizes["coreml_mlprogram_ops"]
        < sizes["ONNX"] / 2,
        "our model in float32 fits": verdict_of["batch 1", new] == "YES",
        "in one piece": pieces_of["batch 1", new] == 1,
        "in int8 it is cut into many pieces": pieces_of["int8", new] > 10,
        "because QuantizeLinear is missing": "QuantizeLinear" in int8_lacks,
        "the rest stays with the CPU": verdicts.loc[("unfriendly", new), "nodes"]
        != "7/7",
    },
)

# %% [markdown]
# ## Two apps, not run here
#
# Which file does an app get? `fashion.ort` holds `FusedConv`, an operator that fusion made for the CPU. Who else knows it?

# %%
knows = {file.stem: "FusedConv" in file.read_text() for file in lists}
assert not knows["nnapi_supported_ops"]
knows

# %% [markdown]
# NNAPI does not, so `fashion.ort` is for the CPU. An accelerator gets `fashion.onnx`, or the file in the style *Runtime*,
# as the converter's help text advises. Its
# [plan](https://onnxruntime.ai/docs/performance/model-optimizations/ort-format-model-runtime-optimization.html) fuses what
# the accelerator leaves to the CPU. But is the plan carried out? A profile shows which nodes really run.


# %%
def ran(file, **config):
    options = ort.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, "work/08_profile"
    for key, value in config.items():
        options.add_session_config_entry(f"session.{key}", value)
    profiled = ort.InferenceSession(file, options, providers=providers)
    profiled.run(None, {"pixels": few[:1]})
    record = Path(profiled.end_profiling())
    events = [
        e for e in json.loads(record.read_text()) if "_kernel_time" in e["name"]
    ]
    record.unlink()
    return pd.Series([event["args"]["op_name"] for event in events]).value_counts()


# %%
from onnxruntime.tools import convert_onnx_models_to_ort as converter

key = "enable_saved_runtime_optimizations"
planned = mobile / "fashion.with_runtime_opt.ort"
rows = {
    "Fixed": ran(mobile / "fashion.ort"),
    "Runtime": ran(planned),
    f"Runtime, session.{key} = 1": ran(planned, **{key: "1"}),
}
table = (
    pd.DataFrame(rows).fillna(0).astype(int).T[["Conv", "FusedConv", "Relu", "Add"]]
)
fixed, by_default, with_key = table["FusedConv"]
assert 0 < with_key < fixed
assert by_default == (
    0 if key in Path(converter.__file__).read_text() else with_key
)
table

# %% [markdown]
# Newer versions of ONNX Runtime carry out a saved plan only when they are told to, with the key in the last row, because a
# plan from a stranger could change the graph. Set it for files of your own. Even then fewer convolutions are fused than
# with *Fixed*: the sums (`Add`) of the shortcuts stay nodes of their own.
#
# With the processing in the graph, little is left for the app. In **Kotlin**, on the CPU, with `fashion.ort` in `assets`
# (*not run here*):
#
# ```kotlin
# // build.gradle.kts:
# // implementation("com.microsoft.onnxruntime:onnxruntime-android:<version>")
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
#         options.setIntraOpNumThreads(2)
#         session = environment.createSession(model, options) // once, not for every picture
#     }
#
#     /** pixels: 784 bytes, row by row. */
#     fun label(pixels: ByteArray): Long {
#         val bytes = ByteBuffer.wrap(pixels)
#         val shape = longArrayOf(1, 28, 28)
#         OnnxTensor.createTensor(environment, bytes, shape, OnnxJavaType.UINT8).use {
#             session.run(mapOf("pixels" to it)).use { results ->
#                 return (results.get("label").get().value as LongArray)[0]
#             }
#         }
#     }
#
#     override fun close() = session.close()
# }
# ```
#
# For XNNPACK it would be `fashion.onnx`, and `options.addXnnpack(…)` with a number of threads.
#
# In **Swift**, on CoreML, with `fashion.onnx` in the bundle and the package `onnxruntime-swift-package-manager`
# (*not run here*):
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
#         session = try ORTSession(env: environment, modelPath: model,
#                                  sessionOptions: options)
#     }
#
#     /// pixels: 784 bytes, row by row.
#     func label(pixels: Data) throws -> Int64 {
#         let input = try ORTValue(tensorData: NSMutableData(data: pixels),
#                                  elementType: .uInt8, shape: [1, 28, 28])
#         let results = try session.run(withInputs: ["pixels": input],
#                                       outputNames: ["label"], runOptions: nil)
#         let bytes = try results["label"]!.tensorData() as Data
#         return bytes.withUnsafeBytes { $0.load(as: Int64.self) }
#     }
# }
# ```
#
# Neither app knows a mean or a deviation. That was decided at the beginning of this lesson.

# %% [markdown]
# ## Recap
#
# - Put pre- and post-processing into the graph. A caller who gets it wrong gets no error, only worse answers.
# - A server loads once, checks headers before data, limits what it reads, answers mistakes with a 4xx and one sentence, says
#   when it is not ready and which model it has, and finishes its work before it stops.
# - Batching trades waiting for throughput. How much it brings depends on the model: measure p50 and p99, in an open loop.
# - The same file gives the same labels in Python, in the browser and in Node. In the browser the data stay, and one thread
#   was several times slower here than a native one.
# - A phone wants fixed shapes, few pieces, and its own measurements. The usability checker gives hints, the device decides.
# - Ray and Triton run the same file on many machines; a dead replica costs a repeated request.
#
# **Now you:** [exercises 08](exercises/08_deployment.ipynb). **Next:** [09 · Troubleshooting](09_troubleshooting.ipynb).
