"""Asking the tools of the onnx package, and ONNX Runtime, which live in another process (`bench`): one that is kept for the
next question."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx

from ...processes import ending, environment, pipes


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


@dataclass
class Verdict:
    """What ONNX Runtime says to the model without its weights. loads: None where it was not asked, or did not answer.

    words: its refusal, or why there is no answer. died: how its process ended.
    """

    loads: bool | None = None
    words: str = ""
    died: str = ""


STARTING = "starting"
_AT_WORK = {
    "": STARTING,
    "start": "onnx.checker",
    "checker": "onnx.shape_inference",
    "strict": "onnx.shape_inference",
    "inferred": "onnx.shape_inference",
}


def ask(with_shapes: bytes, empty: bytes, seconds: float) -> Opinion:
    """The opinion of the tools. with_shapes, empty: the model for shape inference, and for the checker."""
    with _lock:
        bench = _Bench.current()
        return bench.ask(with_shapes, empty, seconds)


def ask_runtime(with_shapes: bytes, largest: int, seconds: float) -> Verdict:
    """Whether ONNX Runtime takes the model. largest: bytes of the largest tensor whose data is elsewhere."""
    found = Verdict()
    with _lock:
        for head, _ in _Bench.current().answers({"whom": "runtime", "largest": largest}, [with_shapes], seconds):
            if head["event"] in ("loads", "refuses"):
                found.loads, found.words = head["event"] == "loads", head["words"]
            elif head["event"] == "unknown":
                found.words = head["words"]
            elif head["event"] in ("died", "silent"):
                found.words = head["words"]
                found.died = head["words"] if head["event"] == "died" else ""
    return found


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
            [sys.executable, "-m", f"{__package__}.onnx_tools_child"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment(),
            start_new_session=True,  # Jupyter's stop button is the parent's
        )  # fmt: skip
        self.asking, self.answering = pipes(self.child)
        self.owner = os.getpid()
        self.said: queue.SimpleQueue[tuple[dict, bytes] | None] = queue.SimpleQueue()
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()
        atexit.register(self.stop)

    def _listen(self) -> None:
        try:
            while line := self.answering.readline():
                head = json.loads(line)
                self.said.put((head, self.answering.read(head["size"])))
        except ValueError:  # cut off by the end of the process, or closed
            pass
        self.said.put(None)

    def answers(self, question: dict, parts: list[bytes], seconds: float) -> Iterator[tuple[dict, bytes]]:
        """What the process says, line by line; "died" or "silent" where it stopped before the end."""
        line = json.dumps(question | {"seconds": seconds, "sizes": [len(part) for part in parts]}).encode() + b"\n"
        try:
            for data in (line, *parts):
                self.asking.write(data)
            self.asking.flush()
        except OSError:  # it ended while it read
            self.stop()
        while True:
            try:
                answer = self.said.get(timeout=seconds)
            except queue.Empty:
                self.stop()
                yield {"event": "silent", "words": f"no answer within {seconds:g} seconds"}, b""
                return
            if answer is None:
                yield {"event": "died", "words": ending(self.child.wait())}, b""
                return
            if answer[0]["event"] == "end":
                return
            yield answer

    def ask(self, with_shapes: bytes, empty: bytes, seconds: float) -> Opinion:
        opinion, last = Opinion(), ""
        for head, data in self.answers({"whom": "tools"}, [with_shapes, empty], seconds):
            event, words = head["event"], head["words"]
            if event in ("died", "silent"):
                opinion.died, opinion.during = words, _AT_WORK[last]
            elif event == "inferred":
                opinion.problem = words
                opinion.inferred.ParseFromString(data)
            elif event in ("checker", "strict"):
                setattr(opinion, event, words)
            last = event
        return opinion

    def stop(self) -> None:
        if self.owner == os.getpid():
            self.child.kill()
            self.child.wait()
            self.listener.join(5)
            for pipe in (self.asking, self.answering):
                with contextlib.suppress(OSError):  # what was not written yet has no reader any more
                    pipe.close()
