"""The machine and the packages of a run, as a record tells them; nothing else of a machine belongs into a record."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """The brand of the processor, as the system tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    return platform.processor() or platform.machine() or "unknown"


def runtime_package() -> str:
    """The installed package that brings `onnxruntime`, with its version, such as "onnxruntime-gpu 1.31.1"."""
    for name in metadata.packages_distributions().get("onnxruntime", []):
        return f"{name} {metadata.version(name)}"
    import onnxruntime as ort

    return f"onnxruntime {ort.__version__}"


def processor_seconds() -> tuple[float, float] | None:
    """Seconds that all programs together, and this one, have used the processors; None where Linux does not tell."""
    try:
        user, nice, system, _, _, interrupts, soft, *_ = map(
            float, Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:]
        )
    except (OSError, ValueError):
        return None
    own = os.times()
    return (user + nice + system + interrupts + soft) / os.sysconf("SC_CLK_TCK"), own.user + own.system
