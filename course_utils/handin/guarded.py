"""Examining an artefact in a process of its own, so that nothing in it can stop, fill or end the student's kernel.

The one place of the limits. The process (`guarded_child`) is kept for the next artefact, because starting one takes a
second; it is ended when an artefact passes a limit, and a new one is started for the next. `cu.check`, the report card
and the grader use it alike. `walls` cuts it off from network and files, as far as the system can.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import psutil

from ..exercises import Criterion, Task
from ..paths import PACKAGE
from ..processes import ending, pipes
from . import walls
from .assessing import LARGEST_ARTEFACT, Verdict

SECONDS = 60.0  # for one artefact; the longest check takes less than a third of it
PROCESSOR = 2 * SECONDS  # seconds of all processors together: some checks use two
MEMORY = 2 * 2**30  # bytes that the process, and those it started, may hold at any moment
FILE = (
    2 * LARGEST_ARTEFACT
)  # bytes of one file that it writes: a check that writes at all writes a copy of the artefact
PROCESSES = 8  # that it may have started; no check of today starts any
_LOOK = 0.05  # seconds between two looks
_SELDOM = 10  # looks between two at the processes that it started: they are searched among all of the machine

_ENDLESS = "a Loop without an end and functions that call each other many times are what this comes from as a rule"
_OUTSIDE = "close other notebooks and programs, then run this cell again"
FROM_OUTSIDE = ("signal SIGKILL", "signal SIGTERM", "signal SIGINT", "signal SIGHUP")
_CAUSE = {
    "time": f"it was not done after {SECONDS:g} s: {_ENDLESS}",
    "memory": f"it took more than {MEMORY / 2**30:g} GiB of memory: look for a node whose result is far larger than its input",
    "processes": f"it started more than {PROCESSES} processes, and no model has a reason to: hand in another one",
    "signal SIGXCPU": f"it used more than {PROCESSOR:g} s of the processor: {_ENDLESS}",
    **dict.fromkeys(
        FROM_OUTSIDE,
        f"something outside ended the process that looked at it, perhaps because the machine had no memory left: {_OUTSIDE}",
    ),
}


def examine(
    it: Task, data: bytes, name: str, who: str, *, secret: str = "", key: str = "", facts: bool = False
) -> Verdict:
    """What `assessing.assessed` says of an artefact, or why the process that looked at it was ended.

    data: the artefact. name: of its file, for messages. secret: an instructor's. key: of the student's class. facts: measure
    them for the report card.
    """
    try:
        with _lock:
            return examine_with(Worker.current(), it, data, name, who, secret=secret, key=key, facts=facts)
    except (OSError, NotStartedError) as error:  # no place for a file, no place for a process
        why = f"the process that looks at it did not start ({getattr(error, 'strerror', None) or error}): {_OUTSIDE}"
        return Verdict(problem=f"{name!r} could not be checked, {why}.")


def examine_with(
    worker: Worker, it: Task, data: bytes, name: str, who: str, *, secret: str = "", key: str = "", facts: bool = False
) -> Verdict:
    """As `examine`, in a process of the caller's: the grader has several. After `Verdict.ended` it needs a new one."""
    request = {"task": it.id, "name": name, "who": who, "secret": secret, "key": key, "facts": facts}
    answer, ended = worker.ask(request, data)
    if ended:
        cause = _CAUSE.get(ended, f"onnx or ONNX Runtime ended the process that looked at it ({ended}): it is damaged")
        return Verdict(problem=f"{name!r} could not be checked, {cause}.", ended=ended)
    criteria = tuple(Criterion(**c) for c in answer["criteria"])
    return Verdict(criteria, answer["facts"], answer["problem"], lacking=answer["lacking"])


_lock = threading.Lock()


def _after_fork() -> None:
    """Another thread may have held the lock at that moment, and in the new process it never lets go."""
    global _lock  # noqa: PLW0603 - there is one
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class NotStartedError(Exception):
    """The process ended, or said nothing, before its first artefact."""


# The package comes from where the parent has it. With its folder in PYTHONPATH, a student's json.py or onnx.py that lies
# beside it would come before the real one.
_START = (
    "import importlib, importlib.util as u, sys; s = u.spec_from_file_location(*sys.argv[1:3]); m = u.module_from_spec(s); "
    "sys.modules[s.name] = m; s.loader.exec_module(m); importlib.import_module(s.name + '.handin.guarded_child').main()"
)
# The first makes Python wait for commands after an error, the second lets a model set options of its session.
_NOT_FOR_IT = {"PYTHONINSPECT", "ORT_LOAD_CONFIG_FROM_MODEL"}


def _environment(folder: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _NOT_FOR_IT}
    # Files that a check writes for a moment are deleted with the folder, even when the process is ended before.
    return {**kept, "PYTHONUTF8": "1", "PYTHONSAFEPATH": "1", **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), folder)}


def _end_late(started: Future[subprocess.Popen[bytes]]) -> None:
    if not started.exception():
        started.result().kill()


class Worker:
    """The process, and a thread that listens to it: waiting with a limit works so on every system."""

    _now: Worker | None = None
    _way: str | None = None  # the strongest one that worked here

    @classmethod
    def current(cls) -> Worker:
        """The one kept for the next artefact."""
        # After a fork, the process belongs to the parent.
        if cls._now is None or cls._now.owner != os.getpid() or cls._now.child.poll() is not None:
            if cls._now is not None:
                cls._now.stop()
            cls._now = cls()
        return cls._now

    def __init__(self) -> None:
        ways = walls.ways() if Worker._way is None else (Worker._way,)
        for way in ways:
            try:
                self._start(way)
            except NotStartedError:
                if way == ways[-1]:
                    raise
            else:
                Worker._way = way
                return

    def _start(self, way: str) -> None:
        self.owner = os.getpid()
        self.way = way
        self.said: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        # Empty: a path in an artefact leads nowhere. Not a TemporaryDirectory: after a fork, that is deleted twice.
        self.folder = tempfile.mkdtemp(prefix="check-")
        limits = json.dumps({"memory": MEMORY, "file": FILE, "processor": PROCESSOR, "way": way})
        command = [sys.executable, "-c", _START, PACKAGE.name, str(PACKAGE / "__init__.py"), limits]
        self.process: psutil.Process | None = None
        started: Future[subprocess.Popen[bytes]] = Future()

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                walls.boxed(command, self.folder) if way == walls.BUBBLEWRAP else command,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_environment(self.folder),
                cwd=self.folder, start_new_session=True,  # Jupyter's stop button is the parent's
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # Windows: the same, and no black window
            )  # fmt: skip

        # In the thread that listens: bubblewrap ends with the thread that started it, and who asks may be one that ends soon.
        threading.Thread(target=self._listen, args=(start, started), daemon=True).start()
        try:
            self.child = started.result()
        except BaseException:  # the stop button, too, and then it may come yet
            started.add_done_callback(_end_late)
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        self.asking, self.answering = pipes(self.child)
        atexit.register(self.stop)
        try:
            ready = self.said.get(timeout=SECONDS)  # what it takes to start counts for no artefact
            if ready is None:
                raise NotStartedError(self._ending())
            self.walls: list[str] = ready["walls"]
            # Not always the child: Windows starts a venv's Python through another process, bubblewrap through two.
            boxed = psutil.Process(self.child.pid).children(recursive=True)[-1:] if way == walls.BUBBLEWRAP else []
            self.process = boxed[0] if boxed else psutil.Process(ready["pid"])
        except queue.Empty:
            self.stop()
            raise NotStartedError(f"it was not ready after {SECONDS:g} s") from None
        except psutil.Error:
            self.stop()
            raise NotStartedError("it ended at once") from None
        except BaseException:
            self.stop()
            raise
        self.pid = self.process.pid

    def _listen(self, start: Callable[[], subprocess.Popen[bytes]], started: Future[subprocess.Popen[bytes]]) -> None:
        try:
            child = start()
        except BaseException as error:
            started.set_exception(error)
            return
        started.set_result(child)
        said, (_, answers) = self.said, pipes(child)
        with contextlib.suppress(ValueError, OSError):  # cut off by the end of the process, or closed
            while line := answers.readline():
                said.put(json.loads(line))
        said.put(None)

    def _send(self, message: bytes) -> None:
        with contextlib.suppress(ValueError, OSError):  # it ended while it read, or was stopped
            self.asking.write(message)
            self.asking.flush()

    def ask(self, request: dict[str, Any], data: bytes, seconds: float = SECONDS) -> tuple[dict[str, Any], str]:
        """What the child answers; or how it ended: "time", "memory", or the process's end in words."""
        head = json.dumps({**request, "size": len(data), "seconds": seconds}).encode() + b"\n"
        try:
            # A thread, because a process that does not read would keep us waiting without a limit.
            threading.Thread(target=self._send, args=(head + data,), daemon=True).start()
            answer, ended = self._wait(time.monotonic() + seconds)
        except BaseException:  # the stop button, above all: a late answer must not be taken for the next one's
            self.stop()
            raise
        if not ended and self._held() > MEMORY / 2:  # what one artefact leaves behind must not count for the next
            self.stop()
        return answer, ended

    def _held(self) -> int:
        with contextlib.suppress(psutil.Error):
            return self.process.memory_info().rss if self.process else 0
        return 0

    def _started(self) -> list[psutil.Process]:
        """The processes that it started, and those that they started."""
        with contextlib.suppress(psutil.Error):
            return self.process.children(recursive=True) if self.process else []
        return []

    def _passed(self, deadline: float, seldom: bool) -> str:
        """The limit that was passed, if one was."""
        held = self._held()
        if seldom and (started := self._started()):
            if len(started) > PROCESSES:
                return "processes"
            for process in started:
                with contextlib.suppress(psutil.Error):
                    held += process.memory_info().rss
        if held > MEMORY:
            return "memory"
        return "time" if time.monotonic() > deadline else ""

    def _wait(self, deadline: float) -> tuple[dict[str, Any], str]:
        looks = 0
        while True:
            try:
                answer = self.said.get(timeout=_LOOK)
            except queue.Empty:
                looks += 1
                if passed := self._passed(deadline, looks % _SELDOM == 0):
                    self.stop()
                    return {}, passed
                continue
            if answer is None:
                ended = self._ending()
                self.stop()
                return {}, ended
            return answer, answer["ended"]

    def _ending(self) -> str:
        status = self.child.wait()
        return ending(128 - status if self.way == walls.BUBBLEWRAP and status > 128 else status)

    def stop(self) -> None:
        """End the process, and those that it started."""
        if self.owner != os.getpid():
            return
        for process in [*self._started(), self.process]:
            with contextlib.suppress(psutil.Error):
                if process:
                    process.kill()
        if self.way == walls.BUBBLEWRAP and self.process:  # it ends by itself after what it started, and reaps that
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(timeout=5)
        self.child.kill()
        self.child.wait()
        for pipe in (self.asking, self.answering):
            with contextlib.suppress(OSError):
                pipe.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        atexit.unregister(self.stop)
