"""Examining an artefact in a process of its own, so that nothing in it can stop, fill or end the student's kernel.

The one place of the limits. The process (`guarded_child`) is kept for the next artefact, because starting one takes a
second; it is ended when an artefact passes a limit, and a new one is started for the next. `cu.check`, the report card
and the grader use it alike.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

import psutil

from .assessing import Verdict
from .exercises import Criterion, Task
from .processes import ending, environment

SECONDS = 60.0  # for one artefact; the longest check takes less than a third of it
MEMORY = 2 * 2**30  # bytes that the process may hold at any moment
_LOOK = 0.05  # seconds between two looks at them

_ENDLESS = "a Loop without an end and functions that call each other many times are what this comes from as a rule"
_CAUSE = {
    "time": f"it was not done after {SECONDS:g} s: {_ENDLESS}",
    "memory": f"it took more than {MEMORY / 2**30:g} GiB of memory: look for a node whose result is far larger than its input",
}


def examine(it: Task, data: bytes, name: str, who: str, *, secret: str = "", facts: bool = False) -> Verdict:
    """What `assessing.assessed` says of an artefact, or why the process that looked at it was ended.

    data: the artefact. name: of its file, for messages. secret: an instructor's. facts: measure them for the report card.
    """
    request = {"task": it.id, "name": name, "who": who, "secret": secret, "facts": facts}
    with _lock:
        answer, ended = Worker.current().ask(request, data)
    if ended:
        cause = _CAUSE.get(ended, f"onnx or ONNX Runtime ended the process that looked at it ({ended}): it is damaged")
        return Verdict(problem=f"{name!r} could not be checked, {cause}.")
    return Verdict(tuple(Criterion(**c) for c in answer["criteria"]), answer["facts"], answer["problem"])


_lock = threading.Lock()


class Worker:
    """The process, and a thread that listens to it: waiting with a limit works so on every system."""

    _now: Worker | None = None

    @classmethod
    def current(cls) -> Worker:
        """The one kept for the next artefact."""
        # After a fork, the process belongs to the parent.
        if cls._now is None or cls._now.owner != os.getpid() or cls._now.child.poll() is not None:
            cls._now = cls()
        return cls._now

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="check-")  # empty: a path in an artefact leads nowhere
        self.child = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.guarded_child", str(MEMORY)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=environment(), cwd=self.folder.name, start_new_session=True,  # Jupyter's stop button is the parent's
        )  # fmt: skip
        self.owner = os.getpid()
        self.said: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()
        atexit.register(self.stop)
        self.said.get(timeout=SECONDS)  # it is ready: what it takes to start counts for no artefact

    def _listen(self) -> None:
        with contextlib.suppress(ValueError, OSError):  # cut off by the end of the process, or closed
            while line := self.child.stdout.readline():
                self.said.put(json.loads(line))
        self.said.put(None)

    def ask(self, request: dict[str, Any], data: bytes, seconds: float = SECONDS) -> tuple[dict[str, Any], str]:
        """What the child answers; or how it ended: "time", "memory", or the process's end in words."""
        head = json.dumps({**request, "size": len(data)}).encode() + b"\n"
        try:
            with contextlib.suppress(OSError):  # it ended while it read
                self.child.stdin.write(head + data)
                self.child.stdin.flush()
            return self._wait(time.monotonic() + seconds)
        except (
            BaseException
        ):  # the stop button, above all: an answer that comes late must not be taken for the next one
            self.stop()
            raise

    def _wait(self, deadline: float) -> tuple[dict[str, Any], str]:
        process = psutil.Process(self.child.pid)
        while True:
            try:
                answer = self.said.get(timeout=_LOOK)
            except queue.Empty:
                held = 0
                with contextlib.suppress(psutil.Error):
                    held = process.memory_info().rss
                if held > MEMORY or time.monotonic() > deadline:
                    self.stop()
                    return {}, "memory" if held > MEMORY else "time"
                continue
            if answer is None:
                ended = ending(self.child.wait())
                self.stop()
                return {}, ended
            return answer, answer["ended"]

    def stop(self) -> None:
        """End the process."""
        if self.owner != os.getpid():
            return
        self.child.kill()
        self.child.wait()
        for pipe in (self.child.stdin, self.child.stdout):
            with contextlib.suppress(OSError):
                pipe.close()
        self.folder.cleanup()
        atexit.unregister(self.stop)
