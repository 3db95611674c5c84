"""How long a notebook takes and how much memory it needs, for `data/bench.py`."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import nbformat
import psutil
from nbclient import NotebookClient

INTERVAL = 0.2  # seconds between two looks at the memory


def measure_notebook(path: Path) -> tuple[float, float]:
    """Run a notebook in a new kernel, in its own folder; nothing is written back.

    Returns seconds, the start of the kernel included, and the peak of memory in MiB: the kernel and all processes it
    started, added up. Memory that several of them share is shared out among them (PSS), as the limit of a container
    counts it; where the system does not tell that (it is Linux that does), it counts more than once (RSS).
    """
    client = NotebookClient(nbformat.read(path, 4), timeout=300, resources={"metadata": {"path": str(path.parent)}})
    peak, done = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(INTERVAL):
            peak = max(peak, _held())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    try:
        client.execute()
        seconds = time.perf_counter() - start
    finally:
        done.set()
        watcher.join()
    return seconds, peak / 2**20


def _held() -> int:
    total = 0
    for child in psutil.Process().children(recursive=True):
        try:
            found = child.memory_full_info()
            total += getattr(found, "pss", found.rss)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total
