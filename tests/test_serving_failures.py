"""How lesson 08's server fails, as a real process asked over HTTP: who gets which status, and what it says of itself."""

from __future__ import annotations

import hashlib
import http.client
import json
import shutil
import signal
import sys
import time
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
LONG = 10**6  # milliseconds of waiting that no test lives to see


def changed(served: Path, folder: Path, file: str, code: str) -> Path:
    """A copy of the server in which one of the files goes on with this code."""
    files = shutil.copytree(served, folder / "08")
    with (files / "server" / file).open("a") as source:
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
