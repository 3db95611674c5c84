"""Reads artefacts and runs their checks in this process, which may die of them. Started by `guarded`, never imported by it.

Reads requests (a line of JSON, then the artefact's bytes) from the standard input until it ends, and answers each with one
line of JSON.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys

from ..processes import alarm
from . import walls


def keep_memory() -> None:
    """Let glibc keep what was given back, up to 256 MiB, for the next model: to fetch it anew from the system took a tenth of all time.

    Where there is another C library, nothing happens.
    """
    import ctypes

    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, 2**28)
        mallopt(_TRIM_THRESHOLD, 2**28)


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # as malloc.h numbers them


def main() -> None:
    """Answer requests until there are no more."""
    given = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a print of some library must not get among the answers
    limits = json.loads(sys.argv[-1])
    stand = walls.put_up(limits["memory"], limits["file"], limits["way"])
    # One thread each: a grader looks at several answers at a time, and threads that wait for each other cost time, too.
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))  # before NumPy is imported
    keep_memory()
    from .. import running

    running.threads = 1
    from ..exercises import task
    from .assessing import assessed

    def say(what: dict[str, object]) -> None:
        answers.write(json.dumps(what).encode() + b"\n")
        answers.flush()

    say({"walls": stand, "pid": os.getpid()})
    while line := given.readline():
        request = json.loads(line)
        data = given.read(request["size"])
        walls.processor_time(limits["processor"])
        alarm(2 * request["seconds"])  # the parent is far earlier, but it may be gone
        answer: dict[str, object] = {"criteria": [], "facts": {}, "problem": "", "ended": "", "lacking": False}
        try:
            verdict = assessed(
                task(request["task"]), data, request["name"], request["who"],
                secret=request["secret"], key=request.get("key", ""), facts=request["facts"],
            )  # fmt: skip
            answer |= dataclasses.asdict(verdict)
        except MemoryError:
            answer["ended"] = "memory"
        alarm(0)
        say(answer)
