"""The worker of lesson 08's server: its batches, and how it fails. No error of any kind may leave a request without an answer.

Nothing is asserted about times: what counts is who was computed with whom, and who was answered with what.
"""

from __future__ import annotations

import asyncio
import ctypes
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
ERRORS = [RuntimeError, MemoryError, StopIteration, TimeoutError, asyncio.InvalidStateError]  # and not even Exceptions:
ERRORS += [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, BaseException]
LONG = 10**6  # milliseconds of waiting that no test lives to see


@pytest.fixture
def batcher() -> Any:
    """Makes a Batcher of the server: run, and what differs from the defaults of these tests."""
    from course_utils.server.batching import Batcher

    def make(run: Callable[..., Any], largest: int = 16, wait_ms: float = 5, queue: int = 100, **more: Any) -> Any:
        return Batcher(run, largest, wait_ms, queue, **{"run_s": 60, "on_batch": lambda images: None, **more})

    return make


def together(batcher: Any, requests: list[np.ndarray]) -> list[Any]:
    """The answers, or errors, of requests that arrive at the same time."""

    async def main() -> list[Any]:
        batcher.start()
        answers = await asyncio.gather(*map(batcher.ask, requests), return_exceptions=True)
        assert batcher.alive()
        batcher.worker.cancel()
        return answers

    return asyncio.run(asyncio.wait_for(main(), 60))


async def until(happened: Callable[[], bool]) -> None:
    """Let the event loop turn until something has happened."""
    given_up = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < given_up, "it did not happen"
        time.sleep(0.001)  # the other threads want to work, too
        await asyncio.sleep(0)


# Batches


def test_no_batch_is_larger_than_allowed(batcher: Any) -> None:
    sizes: list[int] = []
    requests = [np.full((n, 1), n) for n in (3, 4, 2, 8, 1, 1)]
    answers = together(batcher(lambda p: [p], 8, on_batch=sizes.append), requests)
    assert [len(a[0]) for a in answers] == [3, 4, 2, 8, 1, 1]
    assert max(sizes) == 8
    assert sum(sizes) == 19


def test_a_full_queue_says_so(batcher: Any) -> None:
    answers = together(batcher(lambda p: [p], 4, queue=3), [np.zeros((1, 1))] * 5)
    assert [getattr(a, "status", 200) for a in answers] == [200, 200, 200, 503, 503]


class Clock(asyncio.SelectorEventLoop):
    """An event loop whose time goes on when the test says so."""

    now = 0.0

    def time(self) -> float:
        return self.now


@pytest.mark.parametrize(("busy_s", "batches"), [(1001, [4, 1, 2]), (999, [4, 3])])
def test_waiting_counts_from_the_arrival(batcher: Any, busy_s: float, batches: list[int]) -> None:
    """A request may wait 1000 seconds for others. The model is busy for longer, or for a little less."""
    sizes: list[int] = []
    free, loop = threading.Event(), Clock()

    def run(pixels: np.ndarray) -> list[np.ndarray]:
        sizes.append(len(pixels))
        assert len(pixels) < 4 or free.wait(20)
        return [pixels]

    async def main() -> None:
        waiting = batcher(run, 4, wait_ms=1_000_000, run_s=10**9)
        waiting.start()
        full = loop.create_task(waiting.ask(np.zeros((4, 1))))
        await until(lambda: sizes == [4])
        second = loop.create_task(waiting.ask(np.zeros((1, 1))))
        await until(lambda: len(waiting.waiting.requests) == 1)
        loop.now += busy_s
        free.set()
        await full
        if busy_s > 1000:
            await until(second.done)  # its time is over: nobody else is waited for
        for _ in range(100):
            await asyncio.sleep(0)
        third = loop.create_task(waiting.ask(np.zeros((2, 1))))
        await until(lambda: third.done() or len(waiting.waiting.requests) == 3 - len(sizes))
        loop.now += 1001
        await until(lambda: second.done() and third.done())
        waiting.worker.cancel()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())
    assert sizes == batches


# Errors of the model


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_stays_with_the_request_that_caused_it(
    batcher: Any, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def run(pixels: np.ndarray) -> list[np.ndarray]:
        if (pixels == 13).any():
            raise error("bad luck")
        return [pixels * 2]

    answers = together(batcher(run), [np.full((1, 1), n) for n in (1, 13, 3, 4)])
    assert isinstance(answers[1], RuntimeError)
    assert type(answers[1].__cause__) is error
    assert [int(answers[i][0][0, 0]) for i in (0, 2, 3)] == [2, 6, 8]
    assert "A batch of 4 requests failed" in caplog.text


@pytest.mark.parametrize("results", [None, 3, [None], [np.zeros((1, 1))], [np.zeros((9, 1))]])
def test_a_model_that_gives_something_else(batcher: Any, results: Any) -> None:
    answers = together(batcher(lambda pixels: results), [np.zeros((2, 1))] * 3)
    assert [type(answer) for answer in answers] == [RuntimeError] * 3


def test_a_request_that_was_given_up_does_not_stop_the_worker(batcher: Any) -> None:
    """Its sender has gone, and then the model fails on it."""
    ran: list[int] = []

    def run(pixels: np.ndarray) -> list[np.ndarray]:
        ran.append(len(pixels))
        if (pixels == 13).any():
            raise RuntimeError("bad luck")
        return [pixels * 2]

    async def main() -> list[np.ndarray]:
        waiting = batcher(run, wait_ms=50)
        waiting.start()
        gone = asyncio.create_task(waiting.ask(np.full((1, 1), 13)))
        await until(lambda: len(waiting.waiting.requests) == 1)
        gone.cancel()
        await until(lambda: ran == [1])
        answer = await asyncio.wait_for(waiting.ask(np.full((1, 1), 4)), 20)
        waiting.worker.cancel()
        return answer

    assert asyncio.run(main())[0].tolist() == [[8]]


# The end of the worker


def killed(waiting: Any) -> None:
    waiting.worker.cancel()


def counting_fails(waiting: Any) -> None:
    waiting.on_batch = None  # a mistake of the server, outside the model
    waiting.waiting.enough.set()


@pytest.mark.parametrize("kill", [killed, counting_fails])
def test_when_the_worker_ends_nobody_waits(
    batcher: Any, kill: Callable[[Any], None], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        waiting = batcher(lambda p: [p], wait_ms=LONG, queue=4)
        waiting.start()
        asked = [asyncio.create_task(waiting.ask(np.zeros((1, 1)))) for _ in range(3)]
        await until(lambda: len(waiting.waiting.requests) == 3)
        assert waiting.alive()
        kill(waiting)
        await until(lambda: all(task.done() for task in asked))
        assert not waiting.alive()
        later = [asyncio.create_task(waiting.ask(np.zeros((1, 1)))) for _ in range(9)]
        await until(lambda: all(task.done() for task in later))
        for task in asked + later:
            assert task.exception().status == 503
            assert "computes no more" in str(task.exception()), "not: try again in a second"

    asyncio.run(main())
    assert ("The worker has ended" in caplog.text) == (kill is counting_fails)


@pytest.mark.parametrize("kill", ["the task", "time"])
def test_when_the_worker_ends_during_a_run_nobody_waits(batcher: Any, kill: str) -> None:
    """Two requests are being computed, by a model that never comes back; a third one waits."""
    running, over = threading.Event(), threading.Event()

    def run(pixels: np.ndarray) -> list[np.ndarray]:
        running.set()
        over.wait(30)
        return [pixels]

    async def main() -> list[Any]:
        waiting = batcher(run, 2, wait_ms=LONG, run_s=60 if kill == "the task" else 0.3)
        waiting.start()
        asked = [asyncio.create_task(waiting.ask(np.zeros((1, 1)))) for _ in range(3)]
        await until(lambda: running.is_set() and len(waiting.waiting.requests) == 1)
        if kill == "the task":
            waiting.worker.cancel()
        await until(lambda: all(task.done() for task in asked))
        over.set()  # it comes back after all: too late
        await asyncio.sleep(0.1)
        return [task.exception().status for task in asked]

    assert asyncio.run(main()) == [503, 503, 503]


def test_a_thread_that_is_killed_costs_one_request(batcher: Any) -> None:
    first: list[int] = []

    def run(pixels: np.ndarray) -> list[np.ndarray]:
        if not first:
            first.append(threading.get_ident())
            for _ in range(3000):
                time.sleep(0.01)
        return [pixels]

    async def main() -> list[Any]:
        waiting = batcher(run, 1)
        waiting.start()
        asked = [asyncio.create_task(waiting.ask(np.zeros((1, 1)))) for _ in range(3)]
        await until(lambda: bool(first))
        assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(first[0]), ctypes.py_object(SystemExit)) == 1
        await until(lambda: all(task.done() for task in asked))
        assert waiting.alive()
        return [type(task.exception()) for task in asked]

    assert asyncio.run(main()) == [RuntimeError, type(None), type(None)]
