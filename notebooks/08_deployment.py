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
few, right = images[:2000], labels[:2000]
pixels = few[:, None].astype(np.float32)
callers = {
    "as in training": cu.normalize(few),
    "forgets to divide by 255": (pixels - 0.286) / 0.353,
    "forgets mean and deviation": pixels / 255,
    "black and white swapped": (1 - pixels / 255 - 0.286) / 0.353,
    "rows and columns swapped": cu.normalize(few).swapaxes(2, 3),
}
accuracy = {
    who: (session.run(None, {"image": x.astype(np.float32)})[0].argmax(1) == right).mean() for who, x in callers.items()
}
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
# Does it compute what PyTorch computes? We compare probabilities and labels on 2000 pictures. The reference is the model
# in Python, with the preparation that it was trained with.

# %%
whole_session = ort.InferenceSession("work/08_whole.onnx", providers=["CPUExecutionProvider"])
label, probability = whole_session.run(["label", "probability"], {"pixels": few})
with torch.no_grad():
    expected = torch.softmax(model(torch.from_numpy(cu.normalize(few))), 1).numpy()
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
# Two ways in: JSON, which everybody can write, and the binary `.npy` format, which is four times smaller and much faster
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
