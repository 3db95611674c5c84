"""Many clients, and what each of them met. It reads load.npz, and prints JSON.

    python -m server.load PORT          closed loop: eight clients
    python -m server.load PORT RATE     open loop: RATE requests a second on average

load.npz: pixels uint8 [n, 28, 28], expected float32 [n, 10].
"""

from __future__ import annotations

import http.client
import io
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

CLOSED, OPEN, WARM_UP = 8, 64, 20  # clients, clients, requests


class Clients:
    """Each thread keeps a connection of its own."""

    def __init__(self, port: int, pixels: np.ndarray, expected: np.ndarray) -> None:
        self.port, self.expected = port, expected
        self.bodies = [_npy(picture) for picture in pixels]
        self.mine = threading.local()

    def ask(self, i: int, due: float | None = None) -> float:
        """Milliseconds from the moment when the request was due to its answer."""
        if due is not None:
            time.sleep(max(0, due - time.perf_counter()))
        began = due or time.perf_counter()
        if not hasattr(self.mine, "line"):
            line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            self.mine.line = line
        kind = {"Content-Type": "application/x-npy"}
        self.mine.line.request("POST", "/predict", self.bodies[i], kind)
        answer = self.mine.line.getresponse()
        content = json.loads(answer.read())
        assert answer.status == 200, content
        got = content["probability"][0]
        assert np.allclose(got, self.expected[i], atol=1e-4)
        return (time.perf_counter() - began) * 1000


def _npy(picture: np.ndarray) -> bytes:
    np.save(stream := io.BytesIO(), picture)
    return stream.getvalue()


def load(port: int, rate: float | None) -> dict[str, object]:
    """times: ms. seconds: in all. worked: processor seconds of the clients."""
    given = np.load("load.npz")
    clients = Clients(port, given["pixels"], given["expected"])
    n = len(clients.bodies)
    for i in range(WARM_UP):
        clients.ask(i % n)
    began, worked = time.perf_counter(), time.process_time()
    dues: list[float | None] = [None] * n
    if rate:
        pauses = np.random.default_rng(0).exponential(1 / rate, n)
        dues = (began + np.cumsum(pauses)).tolist()
    with ThreadPoolExecutor(OPEN if rate else CLOSED) as pool:
        times = list(pool.map(clients.ask, range(n), dues))
    spent = {
        "seconds": time.perf_counter() - began,
        "worked": time.process_time() - worked,
    }
    return {"times": times, **spent}


if __name__ == "__main__":
    print(json.dumps(load(int(sys.argv[1]), float([*sys.argv, 0][2]))))
