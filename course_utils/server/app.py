"""The server's addresses: POST /predict, GET /health, GET /live, GET /metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from .batching import Batcher
from .bodies import body_of
from .errors import answer_errors
from .metrics import Metrics
from .predictor import Predictor
from .readers import reader_for
from .settings import Settings


def create_app(settings: Settings) -> FastAPI:
    """The model is loaded, and has computed once, when this returns."""
    predictor = Predictor(
        settings.model, settings.name, settings.threads, settings.sha256
    )
    metrics = Metrics(predictor.about)
    batcher = Batcher(
        predictor.run,
        settings.largest_batch,
        settings.wait_ms,
        settings.queue,
        settings.run_s,
        metrics.batches.observe,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        yield  # here the server serves
        batcher.worker.cancel()

    app = FastAPI(
        lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None
    )

    def said(status: int, content: dict[str, Any]) -> JSONResponse:
        metrics.answers.labels(status).inc()
        return JSONResponse(content, status)

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        with metrics.seconds.time():
            body = await body_of(request, settings)
            pixels = reader_for(request)(body, settings.most_images)
            rows = await batcher.ask(pixels)
        named = zip(predictor.outputs, rows, strict=True)
        found = {name: values.tolist() for name, values in named}
        return said(200, found | {"model": predictor.about})

    @app.get("/health")
    async def health() -> Response:
        ready = batcher.alive() and not batcher.waiting.full()
        about = {
            "status": "ready" if ready else "not ready",
            "waiting": len(batcher.waiting.requests),
        }
        return JSONResponse(about, 200 if ready else 503)

    @app.get("/live")
    async def live() -> Response:
        alive = batcher.alive()
        about = {"status": "alive" if alive else "dead"}
        return JSONResponse(about, 200 if alive else 503)

    @app.get("/metrics")
    async def numbers() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    answer_errors(app, said)
    return app
