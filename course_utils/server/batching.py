"""Requests that arrive together are computed together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from .checks import RequestError
from .waiting import Waiter, Waiting


class Batcher:
    """Collects requests into batches, computes them, and hands out the answers.

    run: uint8 [n, 28, 28] → arrays of n rows. largest: images in a batch.
    wait_ms: from its arrival on, a request waits so long for others. queue: how
    many may wait. run_s: seconds after which a run is given up.
    on_batch: is called with each batch's size.
    """

    def __init__(
        self,
        run: Callable[[np.ndarray], Any],
        largest: int,
        wait_ms: float,
        queue: int,
        run_s: float,
        on_batch: Callable[[int], object],
    ) -> None:
        self.run, self.on_batch = run, on_batch
        self.wait_s, self.run_s = wait_ms / 1000, run_s
        self.waiting = Waiting(largest, queue)

    def start(self) -> None:
        self.worker = asyncio.create_task(self._work())

    def alive(self) -> bool:
        return not self.worker.done()

    async def ask(self, pixels: np.ndarray) -> tuple[np.ndarray, ...]:
        """One request's answer. However the worker ends, nobody waits in vain."""
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

    async def _work(self) -> None:
        """Runs as long as the server does."""
        try:
            while True:
                await self._next_batch()
        except Exception:
            logging.exception("The worker has ended.")

    async def _next_batch(self) -> None:
        await self.waiting.some.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self.waiting.since() + self.wait_s):
                await self.waiting.enough.wait()
        batch = self.waiting.take()
        self.on_batch(sum(len(pixels) for pixels, *_ in batch))
        await self._compute(batch)

    async def _compute(self, batch: list[Waiter]) -> None:
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

    def _answers(self, requests: list[np.ndarray]) -> list[tuple[np.ndarray, ...]]:
        """For each request its rows of each array."""
        results = self.run(np.concatenate(requests))
        *cuts, images = np.cumsum([len(pixels) for pixels in requests])
        if any(len(rows) != images for rows in results):
            said = f"The model did not give {images} rows for {images} images."
            raise ValueError(said)
        parts = [np.split(rows, cuts) for rows in results]
        return list(zip(*parts, strict=True))


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """Its result, or the error that it raised. Meanwhile the event loop goes on."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def call() -> None:
        try:
            found = function(*arguments)
        except (
            BaseException
        ) as error:  # of any kind, or somebody would wait for ever
            found = error
        loop.call_soon_threadsafe(lambda: done.done() or done.set_result(found))

    # Not a pool: a thread that never comes back must not keep the process alive.
    threading.Thread(target=call, daemon=True).start()
    return await done
