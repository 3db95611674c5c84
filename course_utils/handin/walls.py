"""Walls around the process that looks at an artefact: what it may use, see and reach, each where the system has it.

`boxed` is the parent's part, `put_up` and `processor_time` are the process's own. The limits themselves are in `guarded`.
Whatever is missing on a system makes the process weaker, and stops nothing: `guarded` says which walls stand. Only the standard
library is loaded here: a thread of another library would keep the process from leaving the network.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import site
import sys
from pathlib import Path

from ..paths import PACKAGE, data_path
from ..processes import call, unshare

EVERYWHERE = ("time", "memory", "number of processes")  # the parent looks at these, on every system
ALL = (*EVERYWHERE, "processor time", "file size", "no network", "bubblewrap")
BUBBLEWRAP, NAMESPACES, LIMITS = "bubblewrap", "namespaces", "limits"  # from the strongest to what every system has

_TASKS = 512  # processes and threads at a time where they are counted by themselves; and for each processor
_TASKS_EACH = 32
_NEWIPC, _NEWUSER, _NEWNET = 0x08000000, 0x10000000, 0x40000000  # of sched.h
_NO_NEW_PRIVS = 38  # of sys/prctl.h


def ways() -> tuple[str, ...]:
    """How the process can be started here, the strongest way first. Not each of them works on each machine."""
    if sys.platform != "linux":
        return (LIMITS,)
    return (BUBBLEWRAP, NAMESPACES, LIMITS) if shutil.which("bwrap") else (NAMESPACES, LIMITS)


# In the parent

_SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store"),
    *("/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime"),
    *("/sys/devices/system/cpu", "/sys/devices/system/node"),
)


def boxed(command: list[str], folder: str) -> list[str]:
    """The command inside bubblewrap: it sees the system's programs, Python and the course, all read-only, and can write into
    `folder` alone. No home, no submissions, no report, no network, no process of anybody else; it ends with its parent.
    """
    read = [*_SYSTEM, sys.base_prefix, sys.prefix, str(PACKAGE), str(data_path()), *_libraries()]
    there = dict.fromkeys(place for place in read if os.path.isabs(place) and place != "/" and os.path.exists(place))
    return [
        *("bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"),
        *("--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"),
        *(word for place in there for word in ("--ro-bind", place, place)),
        *("--bind", folder, folder, "--remount-ro", "/tmp", "--remount-ro", "/dev", "--remount-ro", "/"),
        *("--chdir", folder, "--", *command),
    ]


def _libraries() -> list[str]:
    """Folders that modules and libraries are loaded from, beside Python's own."""
    named = [v for name in ("PYTHONPATH", "LD_LIBRARY_PATH") for v in os.environ.get(name, "").split(os.pathsep)]
    packages = [place for place in sys.path if Path(place).name in {"site-packages", "dist-packages"}]
    course = {
        str(PACKAGE.parent),
        str(PACKAGE.parent.resolve()),
    }  # of it the package and its data, and nothing beside them
    return [place for place in (*named, *packages, *site.getsitepackages()) if place not in course]


# In the process


def put_up(memory: int, file: int, way: str) -> list[str]:
    """Put up the walls around this process; returns those of `ALL` that stand.

    memory, file: bytes that it may hold, and that one file may have. The parent looks at what is held; the limit here is for
    what asks for far more at once.
    """
    stand = {*EVERYWHERE}
    if way == BUBBLEWRAP:
        stand |= {"no network", "bubblewrap"}
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a system that only looks like Linux
            call("prctl", _NO_NEW_PRIVS, 1, 0, 0, 0)
        stand.add("processor time")
        if way == NAMESPACES and _cut_off():
            stand.add("no network")
    most = _TASKS + _TASKS_EACH * (os.cpu_count() or 1)
    # Without namespaces of its own, all processes of the user would count.
    tasks = {"RLIMIT_NPROC": most} if "no network" in stand else {}
    for what, size in {"RLIMIT_DATA": 2 * memory, "RLIMIT_CORE": 0, "RLIMIT_FSIZE": file, **tasks}.items():
        if _limit(what, size) and what == "RLIMIT_FSIZE":
            stand.add("file size")
    return [wall for wall in ALL if wall in stand]


def _cut_off() -> bool:
    """Leave the network, loopback too, for good: for this process and its children. False where the system forbids it."""
    try:
        unshare(_NEWUSER | _NEWNET | _NEWIPC, os.getuid(), os.getgid())
    except OSError:
        return False
    return True


def _limit(what: str, size: int) -> bool:
    try:
        import resource
    except ImportError:  # Windows
        return False
    with contextlib.suppress(ValueError, OSError, AttributeError):  # a lower limit is set already, or none is known
        resource.setrlimit(getattr(resource, what), (size, size))
        return True
    return False


def processor_time(seconds: float) -> None:
    """End this process (SIGXCPU) when it has used so much more processor time than until now, all its threads together."""
    if sys.platform == "linux":
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        soft = int(used.ru_utime + used.ru_stime + seconds) + 1
        if hard == resource.RLIM_INFINITY or soft < hard:
            resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))
