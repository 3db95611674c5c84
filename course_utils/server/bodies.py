"""The body of a request, as long as it is small and arrives in time."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from .checks import RequestError
from .settings import Settings


async def body_of(request: Request, settings: Settings) -> bytes:
    try:
        async with asyncio.timeout(settings.body_s):
            return await _read(request, settings.most_bytes)
    except TimeoutError:
        sentence = f"The body did not arrive within {settings.body_s:g} seconds."
        raise RequestError(408, sentence) from None
    except ClientDisconnect:  # nobody reads this, but it is counted
        sentence = "The sender went away before the body was complete."
        raise RequestError(400, sentence) from None


async def _read(request: Request, most: int) -> bytes:
    too_big = RequestError(413, f"The body is larger than {most} bytes.")
    if int(request.headers.get("content-length", 0)) > most:
        raise too_big
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:  # it may have said less, or nothing, about its length
            raise too_big
    return bytes(body)
