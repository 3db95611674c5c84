"""Run the lessons and the pages that lie deeper for the book, two at a time, and keep what they showed.

A notebook whose code, helpers, data and packages are as they were is taken from the cache. pytest does not run it a second
time then: `notebooks/conftest.py` asks here.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import sysconfig
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.metadata import distributions
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "jupyter-book" / "_build"
SECONDS = 180  # for one cell
AT_ONCE = 2  # notebooks
UNREAD = {
    "__pycache__",
    ".ruff_cache",
    ".training",
    "bench.json",
    "exercises",
}  # names in `course_utils/` and `data/` that no lesson reads


@cache
def folder() -> Path:
    """Where executed notebooks and the models that they show are kept, named by everything that they depend on."""
    digest = hashlib.sha256()
    # Of the environment alone: what a package brings along for itself is found only once that package is imported.
    packages = distributions(path=[sysconfig.get_path("purelib")])
    installed = sorted({f"{package.name}=={package.version}" for package in packages})
    digest.update("\n".join(installed).encode())
    files = [*(ROOT / "course_utils").rglob("*"), *(ROOT / "data").rglob("*")]
    for file in sorted(f for f in files if f.is_file() and UNREAD.isdisjoint(f.parts)):
        digest.update(f"{file.relative_to(ROOT)}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return BUILD / f"cache-{digest.hexdigest()[:16]}"


def kept(name: str, notebook: bytes) -> Path:
    """The executed form of a notebook, whether it is there or not. name: its path below `notebooks/`, without ending."""
    return folder() / "notebooks" / f"{name}-{hashlib.sha256(notebook).hexdigest()[:16]}.ipynb"


def delete_old() -> None:
    for old in set(BUILD.glob("cache-*")) - {folder()}:
        shutil.rmtree(old)


def run_all(names: list[str], staged: Path, variables: dict[str, str]) -> None:
    """Put the outputs into the notebooks in `staged`; those that have none in the cache are run.

    variables: of the environment, for the kernels. Ends the build when a cell failed, and names all that did.
    """
    todo = [name for name in names if not kept(name, (staged / f"{name}.ipynb").read_bytes()).exists()]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        failed = [said for said in pool.map(lambda name: _run(name, staged, variables), todo) if said]
    if failed:
        sys.exit("\n\n".join([*failed, f"The book was not built: {len(failed)} notebook(s) failed, see above."]))
    for name in names:
        path = staged / f"{name}.ipynb"
        shutil.copy(kept(name, path.read_bytes()), path)


def _run(name: str, staged: Path, variables: dict[str, str]) -> str:
    """Run one notebook and keep it; returns what failed."""
    path = staged / f"{name}.ipynb"
    start = time.perf_counter()
    book = nbformat.read(path, as_version=4)
    client = NotebookClient(book, timeout=SECONDS, kernel_name="python3", record_timing=False)
    client.extra_arguments = ["--log-level=40"]  # a kernel's own warnings say nothing of the notebook
    try:
        client.execute(cwd=str(path.parent), env=os.environ | variables)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        print(f"  {name} failed", flush=True)
        return f"{name}.ipynb failed:\n{error}"
    _write(book, kept(name, path.read_bytes()))
    print(f"  {name} has run ({time.perf_counter() - start:.0f} s)", flush=True)
    return ""


def _write(book: NotebookNode, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(nbformat.writes(book), encoding="utf-8")
    partial.rename(path)
