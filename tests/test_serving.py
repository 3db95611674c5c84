"""The server of lesson 08, as a real process on loopback, under load, under attack, and at its end.

Its files are the cells of the lesson. Nothing is asserted about times; what was measured is printed (pytest -s).
"""

from __future__ import annotations

import asyncio
import http.client
import importlib
import io
import json
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from lesson_files import WHOLE, run_cells, write_lesson_files

import course_utils as cu

pytest.importorskip("fastapi")
NPY, JSON = "application/x-npy", "application/json"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, fashion_onnx: Path) -> Path:
    """The lesson's `work/08`, with the model that takes bytes."""
    folder = tmp_path_factory.mktemp("serving")
    files = write_lesson_files(folder)
    (folder / "work" / "08_resnet.onnx").write_bytes(fashion_onnx.read_bytes())
    names = run_cells(folder, *WHOLE)
    (files / "model.onnx").write_bytes(names["whole"].SerializeToString())
    return files


@pytest.fixture(scope="module")
def expected() -> tuple[np.ndarray, np.ndarray]:
    """Pixels of 64 pictures, and the probabilities that PyTorch gives them."""
    import torch

    pixels = cu.fashion_mnist("test")[0][:64]
    with torch.no_grad():
        return pixels, torch.softmax(cu.fashion_resnet()(torch.from_numpy(cu.normalize(pixels))), 1).numpy()


@contextmanager
def running(folder: Path, **settings: Any) -> Iterator[tuple[psutil.Process, int]]:
    """The server as a process; gives it and its port. It is stopped in any case."""
    (folder / "settings.json").write_text(json.dumps(settings))
    command = [sys.executable, "serve.py", "settings.json"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield psutil.Process(process.pid), int(process.stdout.readline().split()[-1])
        finally:
            process.kill()


def npy(array: Any, **how: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **how)
    return stream.getvalue()


def ask(line: http.client.HTTPConnection, body: bytes, kind: str = NPY) -> tuple[int, dict[str, Any]]:
    line.request("POST", "/predict", body, {"Content-Type": kind})
    answer = line.getresponse()
    return answer.status, json.loads(answer.read())


def metric(port: int, name: str) -> float:
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    line.request("GET", "/metrics")
    text = line.getresponse().read().decode()
    line.close()
    return float(re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)[1])


def load(port: int, requests: int, expected: tuple[np.ndarray, np.ndarray], clients: int = 16) -> np.ndarray:
    """Seconds of each of so many requests, from several clients at once; every answer is compared with PyTorch's."""
    pixels, right = expected
    bodies = [npy(picture) for picture in pixels]

    def client(number: int) -> list[float]:
        line, times = http.client.HTTPConnection("127.0.0.1", port, timeout=30), []
        for i in range(number, requests, clients):
            began = time.perf_counter()
            status, answer = ask(line, bodies[i % len(bodies)])
            times.append(time.perf_counter() - began)
            assert status == 200, answer
            assert np.allclose(answer["probability"][0], right[i % len(bodies)], atol=1e-4)
        line.close()
        return times

    with ThreadPoolExecutor(clients) as pool:
        return np.concatenate(list(pool.map(client, range(clients))))


def test_batches_are_formed_and_every_answer_is_pytorchs(served: Path, expected: tuple[np.ndarray, np.ndarray]) -> None:
    rates = {}
    for title, limits in {
        "one by one": {"largest_batch": 1, "wait_ms": 0},
        "in batches": {"largest_batch": 16, "wait_ms": 2},
    }.items():
        with running(served, **limits) as (_, port):
            load(port, 64, expected)
            began = time.perf_counter()
            times = load(port, 1600, expected)
            rates[title] = 1600 / (time.perf_counter() - began)
            images, batches = (metric(port, f"batch_images_{what}") for what in ("sum", "count"))
            p50, p99 = np.percentile(times, [50, 99]) * 1000
            print(
                f"{title}: {rates[title]:.0f}/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms, {images / batches:.1f} per batch"
            )
        assert images == 1664
        assert (batches < 1664 / 2) == (title == "in batches")
    print(f"throughput with batching ÷ without: {rates['in batches'] / rates['one by one']:.2f}")


def test_memory_stays_flat_over_20_000_requests(served: Path, expected: tuple[np.ndarray, np.ndarray]) -> None:
    with running(served) as (process, port):
        load(port, 2000, expected)
        early = process.memory_info().rss
        load(port, 18_000, expected)
        grown = (process.memory_info().rss - early) / 2**20
        print(f"after 2000 requests {early / 2**20:.0f} MiB, after 20 000 {grown:+.1f} MiB")
        assert grown < 30
        assert metric(port, 'answers_total{status="200"}') == 20_000


def header(text: str, data: bytes = b"") -> bytes:
    """An .npy file with a header of one's own."""
    padded = text.encode("latin-1") + b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded + data


PICTURE = np.zeros((28, 28), np.uint8)
ROW = [0] * 28
WRONG_NPY = {
    "nothing": b"",
    "text": b"hello",
    "a picture file": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "half a magic": b"\x93NUM",
    "no header": b"\x93NUMPY\x01\x00",
    "another version": b"\x93NUMPY\x02\x00" + bytes(100),
    "an unknown version": b"\x93NUMPY\x09\x09" + bytes(100),
    "a header that is cut": npy(PICTURE)[:40],
    "data that are cut": npy(PICTURE)[:-1],
    "too many data": npy(PICTURE) + b"x",
    "no data": npy(PICTURE)[:128],
    "a header that is no dict": header("[1, 2, 3]"),
    "a header with code": header("{'descr': __import__('os').getcwd(), 'fortran_order': False, 'shape': (28, 28)}"),
    "a header of brackets": header("(" * 500),
    "a header that is too long": header(" " * 5000),
    "a key too few": header("{'descr': '|u1', 'fortran_order': False}"),
    "a shape of text": header("{'descr': '|u1', 'fortran_order': False, 'shape': '28, 28'}"),
    "a shape of fractions": header("{'descr': '|u1', 'fortran_order': False, 'shape': (28.0, 28)}"),
    "a billion pictures": header("{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000, 28, 28)}"),
    "a negative number of pictures": header("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 28, 28)}"),
    "two negative sides": header("{'descr': '|u1', 'fortran_order': False, 'shape': (-28, -28)}", bytes(784)),
    "no pictures": npy(np.zeros((0, 28, 28), np.uint8)),
    "too many pictures": npy(np.zeros((17, 28, 28), np.uint8)),
    "another size": npy(np.zeros((32, 32), np.uint8)),
    "a channel": npy(np.zeros((1, 1, 28, 28), np.uint8)),
    "one dimension": npy(np.zeros(784, np.uint8)),
    "a single number": npy(np.uint8(7)),
    "float32": npy(PICTURE.astype(np.float32)),
    "float64 with NaN": npy(np.full((28, 28), np.nan)),
    "int8": npy(PICTURE.astype(np.int8)),
    "int64": npy(PICTURE.astype(np.int64)),
    "truth values": npy(PICTURE.astype(bool)),
    "complex numbers": npy(PICTURE.astype(complex)),
    "text in an array": npy(np.full((28, 28), "x")),
    "a record": npy(np.zeros((28, 28), [("a", "u1"), ("b", "u1")])),
    "objects": npy(np.full((28, 28), None), allow_pickle=True),
    "a pickle": pickle.dumps(PICTURE),
    "a body that is too large": npy(np.zeros((100, 28, 28), np.uint8)),
}
WRONG_JSON = {
    "no JSON": b"{",
    "no text": b"\xff\xfe\x00",
    "a deep nest": b"[" * 60_000,
    "a list": b"[]",
    "another key": b'{"images": [[0]]}',
    "a key too many": json.dumps({"pixels": [ROW] * 28, "x": 1}).encode(),
    "pixels of text": b'{"pixels": "black"}',
    "no pixels": b'{"pixels": null}',
    "rows of different length": json.dumps({"pixels": [ROW, [0]]}).encode(),
    "another size in JSON": json.dumps({"pixels": [ROW] * 27}).encode(),
    "an empty list": b'{"pixels": []}',
    "fractions": json.dumps({"pixels": [[0.5] * 28] * 28}).encode(),
    "not a number": json.dumps({"pixels": [[float("nan")] * 28] * 28}).encode(),
    "a negative value": json.dumps({"pixels": [[-1] * 28] * 28}).encode(),
    "a value of 256": json.dumps({"pixels": [[256] * 28] * 28}).encode(),
    "a huge number": json.dumps({"pixels": [[10**30] * 28] * 28}).encode(),
    "a number of 5000 digits": b'{"pixels": [[' + b"9" * 5000 + b"]]}",
    "true and false": json.dumps({"pixels": [[True] * 28] * 28}).encode(),
    "dicts as pixels": json.dumps({"pixels": [{"a": 1}]}).encode(),
}
POST = "POST /predict HTTP/1.1\r\nHost: x\r\n"
WRONG_HTTP = {
    "another address": b"GET /admin HTTP/1.1\r\nHost: x\r\n\r\n",
    "a way out of the folder": b"GET /../settings.json HTTP/1.1\r\nHost: x\r\n\r\n",
    "another method": b"GET /predict HTTP/1.1\r\nHost: x\r\n\r\n",
    "DELETE": b"DELETE /predict HTTP/1.1\r\nHost: x\r\n\r\n",
    "no content type": f"{POST}Content-Length: 2\r\n\r\nxx".encode(),
    "a form": f"{POST}Content-Type: multipart/form-data\r\nContent-Length: 2\r\n\r\nxx".encode(),
    "a length that is no number": f"{POST}Content-Length: many\r\n\r\n".encode(),
    "a negative length": f"{POST}Content-Length: -5\r\n\r\n".encode(),
    "a length of terabytes": f"{POST}Content-Type: {NPY}\r\nContent-Length: 9999999999999\r\n\r\n".encode(),
    "endless chunks": f"{POST}Content-Type: {NPY}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    + (b"8000\r\n" + bytes(0x8000) + b"\r\n") * 4,
    "a bad chunk": f"{POST}Content-Type: {NPY}\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".encode(),
    "less than it promised": f"{POST}Content-Type: {NPY}\r\nContent-Length: 500\r\n\r\nxx".encode(),
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "a line of noise": b"hello world\r\n\r\n",
}


def raw(port: int, sent: bytes) -> tuple[int, str]:
    """Status and body of the answer to these bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
        line.sendall(sent)
        answer = http.client.HTTPResponse(line)
        answer.begin()
        return answer.status, answer.read().decode()


def is_one_sentence(text: str) -> bool:
    return "\n" not in text and 10 < len(text) < 300 and "Traceback" not in text and text.rstrip().endswith(".")


def test_malformed_requests_harm_nobody(served: Path, expected: tuple[np.ndarray, np.ndarray]) -> None:
    """Each gets a 4xx and one sentence, and between them every good request gets PyTorch's answer."""
    pixels, right = expected
    wrong = [(name, NPY, body) for name, body in WRONG_NPY.items()]
    wrong += [(name, JSON, body) for name, body in WRONG_JSON.items()]
    wrong += [(name, "", body) for name, body in WRONG_HTTP.items()]
    assert len(wrong) >= 70, "the lesson says so"
    with running(served, body_s=1) as (process, port):
        good = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        for number, (name, kind, body) in enumerate(wrong):
            if kind:
                line = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
                status, answer = ask(line, body, kind)
                line.close()
                sentence = answer["error"]
            else:
                status, sentence = raw(port, body)
                sentence = json.loads(sentence)["error"] if sentence.startswith("{") else sentence
            assert 400 <= status < 500, (name, status, sentence)
            assert is_one_sentence(sentence), (name, sentence)
            picture = number % len(pixels)
            if number % 2:
                status, answer = ask(good, npy(pixels[picture]))
            else:
                status, answer = ask(good, json.dumps({"pixels": pixels[picture].tolist()}).encode(), JSON)
            assert status == 200, (name, answer)
            assert np.allclose(answer["probability"][0], right[picture], atol=1e-4)
            assert answer["label"] == [int(right[picture].argmax())]
        good.close()
        assert process.is_running()
        assert metric(port, 'answers_total{status="200"}') == len(wrong)


def test_a_sender_who_goes_away_harms_nobody(served: Path, expected: tuple[np.ndarray, np.ndarray]) -> None:
    with running(served) as (_, port):
        for sent in (POST.encode(), f"{POST}Content-Type: {NPY}\r\nContent-Length: 500\r\n\r\nxx".encode()):
            for _ in range(20):
                socket.create_connection(("127.0.0.1", port)).sendall(sent)  # and closed at once
        load(port, 32, expected)
        assert metric(port, 'answers_total{status="200"}') == 32


def test_arrays_of_other_layouts_mean_the_same(served: Path, expected: tuple[np.ndarray, np.ndarray]) -> None:
    pixels, right = expected
    with running(served) as (_, port):
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        for body in (npy(pixels[:16]), npy(np.asfortranarray(pixels[:16]))):
            assert np.allclose(ask(line, body)[1]["probability"], right[:16], atol=1e-4)
        line.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
def test_running_requests_are_answered_before_it_stops(served: Path, expected: tuple[np.ndarray, np.ndarray]) -> None:
    pixels, right = expected
    with running(served, wait_ms=1500) as (process, port), ThreadPoolExecutor(8) as pool:

        def client(i: int) -> tuple[int, dict[str, Any]]:
            return ask(http.client.HTTPConnection("127.0.0.1", port, timeout=20), npy(pixels[i]))

        asked = [pool.submit(client, i) for i in range(8)]
        while json.loads(raw(port, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")[1])["waiting"] < 8:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        for i, answer in enumerate(asked):
            status, body = answer.result()
            assert status == 200
            assert np.allclose(body["probability"][0], right[i], atol=1e-4)
        process.wait(timeout=15)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


@pytest.fixture
def batching(served: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The lesson's module `batching`."""
    monkeypatch.syspath_prepend(served)
    yield importlib.import_module("batching")
    for name in ("batching", "waiting", "checks"):
        sys.modules.pop(name)


def together(batcher: Any, requests: list[np.ndarray]) -> list[Any]:
    """The answers, or errors, of requests that arrive at the same time."""

    async def main() -> list[Any]:
        working = asyncio.create_task(batcher.work())
        answers = await asyncio.gather(*map(batcher.ask, requests), return_exceptions=True)
        working.cancel()
        return answers

    return asyncio.run(main())


def test_an_error_stays_with_the_request_that_caused_it(batching: Any) -> None:
    def run(pixels: np.ndarray) -> list[np.ndarray]:
        if (pixels == 13).any():
            raise RuntimeError("bad luck")
        return [pixels * 2]

    requests = [np.full((1, 1), n) for n in (1, 13, 3, 4)]
    answers = together(batching.Batcher(run, 16, 5, 100), requests)
    assert isinstance(answers[1], RuntimeError)
    assert [int(answers[i][0][0, 0]) for i in (0, 2, 3)] == [2, 6, 8]


def test_a_request_that_was_given_up_does_not_stop_the_worker(batching: Any) -> None:
    """Its sender has gone, and then the model fails on it."""

    def run(pixels: np.ndarray) -> list[np.ndarray]:
        if (pixels == 13).any():
            raise RuntimeError("bad luck")
        return [pixels * 2]

    async def main() -> list[np.ndarray]:
        batcher = batching.Batcher(run, 16, 50, 100)
        working = asyncio.create_task(batcher.work())
        gone = asyncio.create_task(batcher.ask(np.full((1, 1), 13)))
        await asyncio.sleep(0.01)
        gone.cancel()
        await asyncio.sleep(0.2)
        answer = await asyncio.wait_for(batcher.ask(np.full((1, 1), 4)), 10)
        working.cancel()
        return answer

    assert asyncio.run(main())[0].tolist() == [[8]]


def test_a_mistake_of_the_server_is_a_500_and_is_counted(served: Path, tmp_path: Path) -> None:
    files = shutil.copytree(served, tmp_path / "08")
    with (files / "predictor.py").open("a") as source:
        source.write("""
right = Predictor.run


def run(self, pixels):
    if (pixels == 13).all():
        raise RuntimeError("bad luck")
    return right(self, pixels)


Predictor.run = run
""")
    with running(files) as (_, port):
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        assert ask(line, npy(PICTURE))[0] == 200
        status, answer = ask(http.client.HTTPConnection("127.0.0.1", port, timeout=20), npy(PICTURE + np.uint8(13)))
        assert status == 500
        assert is_one_sentence(answer["error"])
        assert "bad luck" not in answer["error"], "what went wrong inside is nobody else's business"
        assert ask(line, npy(PICTURE))[0] == 200
        assert metric(port, 'answers_total{status="500"}') == 1
        line.close()


def test_no_batch_is_larger_than_allowed(batching: Any) -> None:
    sizes: list[int] = []
    requests = [np.full((n, 1), n) for n in (3, 4, 2, 8, 1, 1)]
    answers = together(batching.Batcher(lambda p: [p], 8, 5, 100, sizes.append), requests)
    assert [len(a[0]) for a in answers] == [3, 4, 2, 8, 1, 1]
    assert max(sizes) == 8
    assert sum(sizes) == 19


def test_a_full_queue_says_so(batching: Any) -> None:
    answers = together(batching.Batcher(lambda p: [p], 4, 5, 3), [np.zeros((1, 1))] * 5)
    assert [getattr(a, "status", 200) for a in answers] == [200, 200, 200, 503, 503]


def test_ruff_finds_nothing_in_the_files(served: Path) -> None:
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "E,F,W,I,UP,B", "--line-length", "120"]
    done = subprocess.run([*command, "."], cwd=served, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
