"""Each error gets a status and one sentence, and is counted."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from .checks import RequestError

WAYS = "POST /predict, GET /health, GET /live, GET /metrics"


def answer_errors(app: FastAPI, said: Callable[[int, dict], Response]) -> None:
    """said(status, content): counts an answer, and makes it."""

    @app.exception_handler(RequestError)
    async def refused(request: Request, error: RequestError) -> Response:
        return said(error.status, {"error": str(error)})

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        sentence = f"{error.detail}: this server answers {WAYS}."
        return said(error.status_code, {"error": sentence})

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        # Not the sender's mistake. The log has the details.
        return said(500, {"error": "The server failed on this request."})
