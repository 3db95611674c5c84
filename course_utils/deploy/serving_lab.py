"""Start the server of lesson 08 as a process of its own, and ask it."""

from __future__ import annotations

import atexit
import http.client
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from ..errors import CourseError
from ..paths import write_whole

_PATIENCE = 60  # seconds for one answer


class Server:
    """A server that runs. port: where it listens, on this machine. process: its `subprocess.Popen`. log: its complaints."""

    def __init__(self, process: subprocess.Popen[str], port: int, log: Path) -> None:
        self.process, self.port, self.log = process, port, log

    def ask(self, body: np.ndarray | bytes, kind: str = "application/x-npy") -> tuple[int, dict[str, Any]]:
        """POST /predict: status and content of the answer. body: an array, sent as `numpy.save` writes it, or bytes."""
        if isinstance(body, np.ndarray):
            np.save(stream := io.BytesIO(), body)
            body = stream.getvalue()
        status, text = self._send("POST", "/predict", body, {"Content-Type": kind})
        return status, json.loads(text)

    def get(self, way: str) -> tuple[int, str]:
        """GET of an address, such as "/health": status and text of the answer."""
        return self._send("GET", way)

    def load(self, rate: float | None = None) -> dict[str, float]:
        """What the pictures of `load.npz` met, sent by `server/load.py` in a process of its own, and what they cost.

        rate: requests a second on average, at random (open loop); None: eight clients, each with one request at a time
        (closed loop). Raises CourseError when an answer was not as expected.
        """
        command = [sys.executable, "-m", "server.load", str(self.port), *([str(rate)] if rate else [])]
        before = self._counted()
        done = subprocess.run(command, cwd=self.log.parent, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CourseError(f"The load did not succeed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
        seen, (images, batches, busy) = json.loads(done.stdout), self._counted() - before
        p50, p99 = np.percentile(seen["times"], [50, 99])
        return {
            "answers a second": len(seen["times"]) / seen["seconds"],
            "p50 in ms": float(p50),
            "p99 in ms": float(p99),
            "images per batch": float(images / batches),
            "server's ms of processor per answer": float(busy * 1000 / images),
            "clients' ms of processor per answer": seen["worked"] * 1000 / len(seen["times"]),
        }

    def _counted(self) -> np.ndarray:
        """Images and batches so far, as the server counts them; seconds of a processor, as the system counts them."""
        text = self.get("/metrics")[1]
        found = dict(re.findall(r"^batch_images_(sum|count) (\S+)$", text, re.MULTILINE))
        used = psutil.Process(self.process.pid).cpu_times()
        return np.array([float(found["sum"]), float(found["count"]), used.user + used.system])

    def _send(self, *request: Any) -> tuple[int, str]:
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE)
        try:
            line.request(*request)
            answer = line.getresponse()
            return answer.status, answer.read().decode()
        finally:
            line.close()

    def stop(self) -> int:
        """Ask it to stop (SIGTERM), wait until it has, and return its exit status."""
        self.process.terminate()
        return self.process.wait(timeout=_PATIENCE)


def start_server(folder: str | os.PathLike[str], **settings: Any) -> Server:
    """Run `python -m server.serve settings.json` in this folder, until it is stopped or the kernel ends.

    folder: holds `server/` and the model. settings: fields of `server/settings.py`; they are written to settings.json.
    First used in lesson 08. Raises CourseError with the server's last words when it does not start.
    """
    folder = Path(folder)
    if not (folder / "server" / "serve.py").is_file():
        raise CourseError(f"{str(folder)!r} holds no server: run  cu.course_files('server', '{folder}/server')  first.")
    with write_whole(folder / "settings.json", "w") as stream:
        json.dump(settings, stream)
    log = folder / "log.txt"
    command = [sys.executable, "-m", "server.serve", "settings.json"]
    with log.open("w") as complaints:
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=complaints, text=True)
    atexit.register(process.kill)
    first = process.stdout.readline() if process.stdout else ""
    if not first:
        process.wait(timeout=_PATIENCE)
        said = log.read_text().strip().splitlines() or ["nothing"]
        raise CourseError(f"The server did not start. It said: {said[-1]}")
    return Server(process, int(first.split()[-1]), log)
