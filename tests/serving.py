"""For the tests of the server in `course_utils/server/`: start a copy as a process on loopback, and ask it."""

from __future__ import annotations

import http.client
import io
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

NPY, JSON = "application/x-npy", "application/json"


@contextmanager
def running(folder: Path, **settings: Any) -> Iterator[tuple[psutil.Process, int]]:
    """The server as a process; gives it and its port. It is stopped in any case."""
    (folder / "settings.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "server.serve", "settings.json"]
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


def raw(port: int, sent: bytes) -> tuple[int, str]:
    """Status and body of the answer to these bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
        line.sendall(sent)
        answer = http.client.HTTPResponse(line)
        answer.begin()
        return answer.status, answer.read().decode()


def is_one_sentence(text: str) -> bool:
    return "\n" not in text and 10 < len(text) < 300 and "Traceback" not in text and text.rstrip().endswith(".")


def get(port: int, way: str) -> tuple[int, dict[str, Any]]:
    """Status and content of an address that answers in JSON."""
    status, text = raw(port, f"GET {way} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return status, json.loads(text)
