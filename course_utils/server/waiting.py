"""Requests that wait for their batch."""

from __future__ import annotations

import asyncio
from collections import deque

import numpy as np

from .checks import RequestError

# The pixels of a request, the future of its answer, and when it arrived.
Waiter = tuple[np.ndarray, asyncio.Future, float]


class Waiting:
    """largest: images in a batch. queue: how many requests may wait."""

    def __init__(self, largest: int, queue: int) -> None:
        self.largest, self.queue = largest, queue
        self.requests: deque[Waiter] = deque()
        self.some, self.enough = asyncio.Event(), asyncio.Event()

    def add(self, pixels: np.ndarray) -> asyncio.Future:
        """The future of the answer. Raises RequestError when the queue is full."""
        if self.full():
            sentence = f"The server is busy: {self.queue} requests are waiting."
            raise RequestError(503, f"{sentence} Try again in a second.")
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self.requests.append((pixels, future, loop.time()))
        self._look()
        return future

    def full(self) -> bool:
        return len(self.requests) >= self.queue

    def since(self) -> float:
        """When the first of them arrived."""
        return self.requests[0][2]

    def take(self) -> list[Waiter]:
        """The next batch: as many requests as fit, at least one."""
        batch: list[Waiter] = []
        images = 0
        while self.requests:
            images += len(self.requests[0][0])
            if batch and images > self.largest:
                break
            batch.append(self.requests.popleft())
        self._look()
        return batch

    def _look(self) -> None:
        images = sum(len(pixels) for pixels, *_ in self.requests)
        (self.some.set if images else self.some.clear)()
        (self.enough.set if images >= self.largest else self.enough.clear)()
