"""The first call of every notebook, and what this machine is."""

from __future__ import annotations

import functools
import html
import os
import platform
import random
import sys
import warnings
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from . import classroom
from . import student as _student
from .errors import CourseError, require
from .paths import PACKAGE, WORK

# What MLAS, the CPU kernels of ONNX Runtime, chooses its code by; the last of a family that is present is used.
_EXTENSIONS = {
    "AVX2": ("avx2",),
    "AVX-512": ("avx512f", "avx512bw", "avx512vl"),
    "AVX-VNNI": ("avx_vnni",),
    "AVX512-VNNI": ("avx512_vnni", "avx512vnni"),
    "AMX-INT8": ("amx_int8",),
    "NEON": ("asimd", "neon"),
    "dot product": ("asimddp",),
    "i8mm": ("i8mm",),
}
_HEADLINE = ("torch", "onnx", "onnxruntime")
# What a result can depend on; a claim may name the oldest version of one of these.
PACKAGES = ("torch", "torchvision", "onnx", "onnxruntime", "onnxscript", "numpy", "skl2onnx")
_ANY_OF = {"AVX512-VNNI", "NEON"}  # one of the names is enough: systems spell them differently


def setup(student: str | None = None, threads: int | None = None, seed: int = 0) -> None:
    """Prepare a notebook: folder `work/`, seeds, threads, style of plots and tables, and one line that says what it runs on.

    student: the id that personal exercises are drawn from (exercise notebooks only). A `class.json` beside the notebook, or in
    one of three folders above it, says which class the student is in; its key is drawn from, too.
    threads: torch's threads; by default one per physical core that this process may use.
    seed: for Python's, NumPy's and torch's generators.
    Raises CourseError when the folder cannot be written to, `threads` is not a positive number, or the class's file is damaged.
    """
    import numpy as np
    import pandas as pd

    from .torchvision_ops import make_importable

    torch, plt = require("torch"), require("matplotlib.pyplot")
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise CourseError(f"setup() was given threads={threads!r}: it expects a whole number of at least 1, or none.")
    _make_work_folder()
    make_importable()
    _quiet()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(threads or usable_cores())
    plt.style.use(PACKAGE / "course.mplstyle")
    pd.set_option("display.max_colwidth", None)  # pandas cuts text after 50 characters, also in HTML
    if student is not None:
        classroom.remember()  # first: where it cannot be read, nobody gets the numbers of no class
        _student.remember(student)
    numbers = " · ".join(f"{name} {number}" for name, number in versions().items() if name in _HEADLINE)
    print(f"{numbers} · {torch.get_num_threads()} threads" + _student.greeting() + classroom.greeting())


def _quiet() -> None:
    """Hide warnings that libraries raise about each other: they name paths of this machine, and nobody here can act on them."""
    warnings.filterwarnings("ignore", message=r".*LeafSpec.* is deprecated", category=FutureWarning)


def _make_work_folder() -> None:
    probe = WORK / f".writable-{os.getpid()}"
    try:
        WORK.mkdir(exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise CourseError(
            f"The folder {os.getcwd()!r} cannot be written to ({error.strerror}), and lessons keep their models in "
            f"'work/' there. Copy the notebook into a folder of your own and open it from there."
        ) from None


def usable_cores() -> int:
    """Physical cores this process may use: containers and batch systems often grant fewer than the machine has."""
    logical = os.cpu_count() or 1
    granted = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else logical
    per_core = logical // (psutil.cpu_count(logical=False) or logical) or 1
    return max(1, min(granted // per_core, _quota()))


def _quota(file: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Whole processors that a container's limit is worth, as on Binder (Linux control groups, version 2); many without one."""
    try:
        allowed, period = file.read_text().split()
        return max(1, int(allowed) // int(period))
    except (OSError, ValueError):  # no such file on other systems; "max" where there is no limit
        return sys.maxsize


def in_colab() -> bool:
    return "google.colab" in sys.modules


def versions() -> dict[str, str]:
    """Installed versions of the packages a result can depend on, without build tags; a missing one is left out."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name).split("+")[0]
        except PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class Machine:
    """What a measurement was taken on; a table in a notebook."""

    system: str
    processor: str
    cores: int
    threads: int
    memory_gib: float
    extensions: tuple[str, ...]
    providers: tuple[str, ...]
    versions: dict[str, str]

    def rows(self) -> list[tuple[str, str]]:
        """Pairs of name and value, in the order they are shown."""
        return [
            ("system", self.system),
            ("processor", self.processor),
            ("cores", f"{self.cores} physical, {self.threads} logical"),
            ("memory", f"{self.memory_gib:.1f} GiB"),
            ("vector extensions", ", ".join(self.extensions) or "none found"),
            ("execution providers", ", ".join(self.providers)),
            *self.versions.items(),
        ]

    def __str__(self) -> str:
        return "\n".join(f"{name:20} {value}" for name, value in self.rows())

    def _repr_html_(self) -> str:
        cells = (f"<tr><th>{html.escape(n)}</th><td>{html.escape(v)}</td></tr>" for n, v in self.rows())
        return f"<table>{''.join(cells)}</table>"


@functools.cache
def machine() -> Machine:
    """Versions, cores, memory, vector extensions and execution providers of this machine. First used in lesson 00."""
    import cpuinfo
    import onnxruntime

    info = cpuinfo.get_cpu_info()
    flags = {flag.lower() for flag in info.get("flags", [])}
    present = tuple(
        name for name, need in _EXTENSIONS.items() if (any if name in _ANY_OF else all)(flag in flags for flag in need)
    )
    return Machine(
        system=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        processor=info.get("brand_raw", platform.processor() or "unknown"),
        cores=usable_cores(),
        threads=os.cpu_count() or 1,
        memory_gib=psutil.virtual_memory().total / 2**30,
        extensions=present,
        providers=tuple(onnxruntime.get_available_providers()),
        versions=versions(),
    )
