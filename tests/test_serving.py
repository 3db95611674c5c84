"""The server of lesson 08, as a real process on loopback, under load, under attack, and at its end.

A copy of its files runs, as in the lesson. Nothing is asserted about times; what was measured is printed (pytest -s).
"""

from __future__ import annotations

import ast
import hashlib
import http.client
import json
import pickle
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from checkout import ROOT
from serving import JSON, NPY, ask, is_one_sentence, metric, npy, raw, running

import course_utils as cu
from course_utils.paths import data_path

pytest.importorskip("fastapi")


@pytest.fixture(scope="module")
def expected() -> tuple[np.ndarray, np.ndarray]:
    """Pixels of 64 pictures, and the probabilities that PyTorch gives them."""
    import torch

    pixels = cu.fashion_mnist("test")[0][:64]
    with torch.no_grad():
        return pixels, torch.softmax(cu.fashion_resnet()(torch.from_numpy(cu.normalize(pixels))), 1).numpy()


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


ALONE = """
import sys
from importlib.machinery import PathFinder

find = PathFinder.find_spec
COURSE = {"course_utils", "torch", "torchvision", "onnx", "onnxscript", "pandas", "matplotlib", "IPython", "psutil"}
PathFinder.find_spec = staticmethod(
    lambda name, path=None, target=None: None if name.split(".")[0] in COURSE else find(name, path, target)
)
sys.argv[0:] = ["serve"]
import runpy
runpy.run_module("server.serve", run_name="__main__")
"""


def test_a_copy_runs_without_the_course(served: Path, expected: tuple[np.ndarray, np.ndarray]) -> None:
    """In a process that can import neither the course nor what only the course needs. It has no settings, either."""
    with subprocess.Popen([sys.executable, "-c", ALONE], cwd=served, stdout=subprocess.PIPE, text=True) as process:
        try:
            port = int(process.stdout.readline().split()[-1])
            line = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            status, answer = ask(line, npy(expected[0][:16]))
            line.close()
        finally:
            process.kill()
    assert status == 200
    assert np.allclose(answer["probability"], expected[1][:16], atol=1e-4)


def test_the_container_installs_what_the_server_imports() -> None:
    """And nothing else, in the versions of the course."""
    folder = data_path("deploy/container")
    pins = (ROOT / "constraints.txt").read_text().replace("_", "-").splitlines()
    asked = (folder / "requirements.txt").read_text().splitlines()
    assert set(asked) <= set(pins)
    imported = set()
    for path in (ROOT / "course_utils" / "server").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.split(".")[0])
    assert "course_utils" not in imported
    foreign = {name.replace("_", "-") for name in imported - set(sys.stdlib_module_names)}
    assert foreign - {"starlette"} == {line.split("==")[0] for line in asked}, "starlette comes with fastapi"
    dockerfile = (folder / "Dockerfile").read_text()
    assert "python -m server.serve" in " ".join(json.loads(dockerfile[dockerfile.rindex("CMD ") + 4 :]))
    assert f"FROM python:{'.'.join(map(str, (3, 11)))}-slim" in dockerfile


def started(folder: Path, settings: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    (folder / "settings.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "server.serve", "settings.json"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_a_setting_that_is_not_known_is_named(served: Path) -> None:
    done = started(served, {"wait": 2})
    assert done.returncode == 1
    assert done.stderr.startswith("There is no setting 'wait'. There are: model, name, sha256,")
    assert done.stdout == ""


def test_another_file_than_was_agreed_is_not_served(served: Path) -> None:
    right = hashlib.sha256((served / "model.onnx").read_bytes()).hexdigest()
    done = started(served, {"sha256": right[:-1] + "x"})
    assert done.returncode == 1
    assert done.stderr == f"model.onnx has the SHA-256 {right}, expected {right[:-1]}x.\n"
    with running(served, sha256=right) as (_, port):
        assert json.loads(raw(port, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")[1])["status"] == "ready"


def test_a_model_with_other_outputs_is_served_under_their_names(served: Path, tmp_path: Path) -> None:
    """The server asks the model what it gives: it can serve any that takes `pixels`."""
    text = """<ir_version: 8, opset_import: ["": 17]>
        g (uint8[n, 28, 28] pixels) => (float[n] mean) <int64[2] axes = {1, 2}> {
            numbers = Cast<to = 1>(pixels)
            mean = ReduceMean<axes = [1, 2], keepdims = 0>(numbers)
        }"""
    (tmp_path / "mean.onnx").write_bytes(onnx.parser.parse_model(text).SerializeToString())
    with running(served, model=str(tmp_path / "mean.onnx"), name="mean") as (_, port):
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        status, answer = ask(line, npy(np.full((2, 28, 28), 7, np.uint8)))
        line.close()
    assert status == 200
    assert answer["mean"] == [7, 7]
    assert set(answer) == {"mean", "model"}
