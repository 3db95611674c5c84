"""Asking the tools of the onnx package, which live in another process (`bench`): one that is kept for the next question."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from dataclasses import dataclass, field

import onnx

from ..processes import ending, environment


@dataclass
class Opinion:
    """What the tools say. checker, strict: objections, empty for none. inferred: types and shapes.

    died: how their process ended, empty when it lives; during: which of them was at work then.
    """

    checker: str = ""
    strict: str = ""
    inferred: onnx.GraphProto = field(default_factory=onnx.GraphProto)
    problem: str = ""
    died: str = ""
    during: str = ""


_AT_WORK = {
    "": "starting",
    "start": "onnx.checker",
    "checker": "onnx.shape_inference",
    "strict": "onnx.shape_inference",
}


def ask(with_shapes: bytes, empty: bytes, seconds: float) -> Opinion:
    """The opinion of the tools. with_shapes, empty: the model for shape inference, and for the checker."""
    with _lock:
        bench = _Bench.current()
        return bench.ask(with_shapes, empty, seconds)


_lock = threading.Lock()


class _Bench:
    """The process, and a thread that listens to it: waiting with a limit works so on every system."""

    _now: _Bench | None = None

    @classmethod
    def current(cls) -> _Bench:
        # After a fork, the process belongs to the parent.
        if cls._now is None or cls._now.owner != os.getpid() or cls._now.child.poll() is not None:
            cls._now = cls()
        return cls._now

    def __init__(self) -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.bench"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment(),
            start_new_session=True,  # Jupyter's stop button is the parent's
        )  # fmt: skip
        self.owner = os.getpid()
        self.said: queue.SimpleQueue[tuple[dict, bytes] | None] = queue.SimpleQueue()
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()
        atexit.register(self.stop)

    def _listen(self) -> None:
        try:
            while line := self.child.stdout.readline():
                head = json.loads(line)
                self.said.put((head, self.child.stdout.read(head["size"])))
        except ValueError:  # cut off by the end of the process, or closed
            pass
        self.said.put(None)

    def ask(self, with_shapes: bytes, empty: bytes, seconds: float) -> Opinion:
        opinion, last = Opinion(), ""
        try:
            for data in (*(len(d).to_bytes(8, "little") for d in (with_shapes, empty)), with_shapes, empty):
                self.child.stdin.write(data)
            self.child.stdin.flush()
        except OSError:  # it ended while it read
            self.stop()
        while last != "end":
            try:
                answer = self.said.get(timeout=seconds)
            except queue.Empty:
                self.stop()
                opinion.died, opinion.during = f"no answer within {seconds:g} seconds", _AT_WORK[last]
                return opinion
            if answer is None:
                opinion.died, opinion.during = ending(self.child.wait()), _AT_WORK[last]
                return opinion
            head, data = answer
            last = head["event"]
            if last == "inferred":
                opinion.problem = head["words"]
                opinion.inferred.ParseFromString(data)
            elif last in ("checker", "strict"):
                setattr(opinion, last, head["words"])
        return opinion

    def stop(self) -> None:
        if self.owner == os.getpid():
            self.child.kill()
            self.child.wait()
            self.listener.join(5)
            for pipe in (self.child.stdin, self.child.stdout):
                with contextlib.suppress(OSError):  # what was not written yet has no reader any more
                    pipe.close()
