"""The worker of lesson 08's server: its batches, and how it fails. No error of any kind may leave a request without an answer.

Nothing is asserted about times: what counts is who was computed with whom, and who was answered with what.
"""

from __future__ import annotations

import asyncio
import ctypes
import hashlib
import http.client
import importlib
import json
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from serving import ask, get, is_one_sentence, metric, npy, raw, running

pytest.importorskip("fastapi")
PICTURE = np.zeros((28, 28), np.uint8)
UNLUCKY = PICTURE + np.uint8(13)
ERRORS = [RuntimeError, MemoryError, StopIteration, TimeoutError, asyncio.InvalidStateError]  # and not even Exceptions:
ERRORS += [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, BaseException]
LONG = 10**6  # milliseconds of waiting that no test lives to see


@pytest.fixture
def batcher(served: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a Batcher of the lesson: run, and what differs from the defaults of these tests."""
    monkeypatch.syspath_prepend(served)
    module = importlib.import_module("batching")

    def make(run: Callable[..., Any], largest: int = 16, wait_ms: float = 5, queue: int = 100, **more: Any) -> Any:
        return module.Batcher(run, largest, wait_ms, queue, **{"run_s": 60, "on_batch": lambda images: None, **more})

    yield make
    for name in ("batching", "waiting", "checks"):
        sys.modules.pop(name)


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


# The same in a real process, over HTTP


def changed(served: Path, folder: Path, file: str, code: str) -> Path:
    """A copy of the server in which one of the files goes on with this code."""
    files = shutil.copytree(served, folder / "08")
    with (files / file).open("a") as source:
        source.write(code)
    return files


def ask_at_once(port: int, pictures: list[np.ndarray], pool: ThreadPoolExecutor) -> list[Any]:
    def client(picture: np.ndarray) -> tuple[int, dict[str, Any]]:
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            return ask(line, npy(picture))
        finally:
            line.close()

    return [pool.submit(client, picture) for picture in pictures]


def wait_for(port: int, waiting: int) -> None:
    given_up = time.monotonic() + 20
    while get(port, "/health")[1]["waiting"] < waiting:
        assert time.monotonic() < given_up
        time.sleep(0.02)


def test_a_mistake_of_the_server_is_a_500_and_is_counted(served: Path, tmp_path: Path) -> None:
    bad_luck = """
right = Predictor.run


def run(self, pixels):
    if (pixels == 13).all():
        raise RuntimeError("bad luck")
    return right(self, pixels)


Predictor.run = run
"""
    with running(changed(served, tmp_path, "predictor.py", bad_luck)) as (_, port):
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        assert ask(line, npy(PICTURE))[0] == 200
        status, answer = ask(http.client.HTTPConnection("127.0.0.1", port, timeout=20), npy(UNLUCKY))
        assert status == 500
        assert is_one_sentence(answer["error"])
        assert "bad luck" not in answer["error"], "what went wrong inside is nobody else's business"
        assert ask(line, npy(PICTURE))[0] == 200
        assert metric(port, 'answers_total{status="500"}') == 1
        line.close()


SCARCE = """
from types import SimpleNamespace


def concatenate(requests):
    if len(requests) > {most}:
        raise MemoryError
    return numpy.concatenate(requests)


numpy, np = np, SimpleNamespace(concatenate=concatenate, cumsum=np.cumsum, split=np.split)
"""


@pytest.mark.parametrize(("most", "status"), [(1, 200), (0, 500)])
def test_no_memory_for_a_batch(served: Path, tmp_path: Path, most: int, status: int) -> None:
    """Four requests are a full batch. There is memory for one at a time, or for none."""
    files = changed(served, tmp_path, "batching.py", SCARCE.format(most=most))
    with running(files, largest_batch=4, wait_ms=LONG) as (_, port), ThreadPoolExecutor(4) as pool:
        for answered in (4, 8):  # once more: the worker lives
            asked = ask_at_once(port, [PICTURE] * 4, pool)
            assert [answer.result()[0] for answer in asked] == [status] * 4
            assert metric(port, "batch_images_sum") == answered
            assert metric(port, "batch_images_count") == answered / 4, "it was one batch that failed"
        assert get(port, "/health") == (200, {"status": "ready", "waiting": 0})


SWITCH = """
import signal

start = Batcher.start


def start_with_a_switch(self):
    start(self)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self.worker.cancel)


Batcher.start = start_with_a_switch
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGUSR1")
def test_a_server_whose_worker_was_killed_says_so(served: Path, tmp_path: Path) -> None:
    files = changed(served, tmp_path, "batching.py", SWITCH)
    with running(files, wait_ms=LONG) as (process, port), ThreadPoolExecutor(3) as pool:
        asked = ask_at_once(port, [PICTURE] * 3, pool)
        wait_for(port, 3)
        assert (get(port, "/health")[0], get(port, "/live")[0]) == (200, 200)
        process.send_signal(signal.SIGUSR1)
        for status, answer in [one.result() for one in asked + ask_at_once(port, [PICTURE] * 3, pool)]:
            assert status == 503
            assert is_one_sentence(answer["error"])
        assert get(port, "/health")[0] == 503
        assert get(port, "/health")[1]["status"] == "not ready"
        assert get(port, "/live") == (503, {"status": "dead"})
        assert metric(port, 'answers_total{status="503"}') == 6


def test_a_run_that_never_ends_ends_the_worker_and_not_the_server(served: Path, tmp_path: Path) -> None:
    forever = """
right = Predictor.run


def run(self, pixels):
    while (pixels == 13).all():
        pass
    return right(self, pixels)


Predictor.run = run
"""
    files = changed(served, tmp_path, "predictor.py", forever)
    with running(files, run_s=1) as (process, port), ThreadPoolExecutor(1) as pool:
        assert [one.result()[0] for one in ask_at_once(port, [PICTURE, UNLUCKY, PICTURE], pool)] == [200, 503, 503]
        assert (get(port, "/health")[0], get(port, "/live")[0]) == (503, 503)
        if sys.platform != "win32":
            process.terminate()
            process.wait(timeout=60)  # the run goes on for ever; the process does not


def test_a_full_server_is_alive_but_not_ready(served: Path) -> None:
    with running(served, queue=2, wait_ms=LONG) as (process, port), ThreadPoolExecutor(2) as pool:
        ask_at_once(port, [PICTURE] * 2, pool)
        wait_for(port, 2)
        assert get(port, "/health") == (503, {"status": "not ready", "waiting": 2})
        assert get(port, "/live") == (200, {"status": "alive"})
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        status, answer = ask(line, npy(PICTURE))
        assert status == 503
        assert "2 requests are waiting" in answer["error"]
        line.close()
        process.kill()


def test_answers_and_metrics_name_the_model(served: Path, tmp_path: Path) -> None:
    """Two files that compute the same have the same name and another SHA-256."""
    other = onnx.load(served / "model.onnx")
    other.producer_version = "another one"
    (tmp_path / "other.onnx").write_bytes(other.SerializeToString())
    seen = []
    for file in (served / "model.onnx", tmp_path / "other.onnx"):
        with running(served, model=str(file), name="boots") as (_, port):
            line = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            status, answer = ask(line, npy(PICTURE))
            line.close()
            right = {"name": "boots", "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
            assert status == 200
            assert answer["model"] == right
            text = raw(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")[1]
            assert f'model_info{{name="boots",sha256="{right["sha256"]}"}} 1.0\n' in text
            seen.append(json.dumps(right))
    assert len(set(seen)) == 2
