"""What every process has in common that the course starts: how it finds the package, its pipes, and how its end is put into words."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from pathlib import Path
from typing import IO, Any


def environment() -> dict[str, str]:
    """For a child that shall find this package, wherever the parent found it, and nothing in the current folder.

    A student's own onnx.py beside the notebook would be taken for the real one.
    """
    root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONUTF8": "1", "PYTHONSAFEPATH": "1"}


def pipes(child: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    """Where to write to a child, and where to read from it. Both must have been asked for with `subprocess.PIPE`."""
    assert child.stdin is not None
    assert child.stdout is not None
    return child.stdin, child.stdout


def ending(status: int) -> str:
    """How a process ended, in words."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"


def alarm(seconds: float) -> None:
    """End this process then, whatever library it is in; 0: not any more. Windows has no such alarm.

    For a child, in case its parent is gone, and with it who would end it.
    """
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, min(seconds, 10**6))


def unshare(spaces: int, user: int, group: int) -> None:
    """Put this process into namespaces of its own, one of users among them. Raises OSError where the system forbids it.

    spaces: flags CLONE_NEW… . user, group: the ids that its own have in there.
    """
    own = {"setgroups": "deny", "uid_map": f"{user} {os.getuid()} 1", "gid_map": f"{group} {os.getgid()} 1"}
    call("unshare", spaces)
    for name, text in own.items():
        Path("/proc/self", name).write_text(text)


def call(name: str, *arguments: Any) -> None:
    """A function of the C library that gives 0 when all is well, for those that Python 3.11 lacks. Raises OSError."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
