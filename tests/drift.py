"""What newer (or older) packages change: run every notebook here, and list the cells and claims that no longer hold.

    make drift                                     with the newest onnx, onnxruntime and onnxscript, in `.venv-drift`
    python tests/drift.py [NOTEBOOK …]             with what is installed; all lessons, and all exercises with their solutions

It edits nothing: each notebook runs in a folder of its own. The exit status is 1 where something changed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "notebooks"), str(ROOT)]

import generate  # noqa: E402 - notebooks/generate.py
from nbclient import NotebookClient  # noqa: E402
from nbformat import NotebookNode  # noqa: E402
from packaging.version import Version  # noqa: E402

import course_utils  # noqa: E402, F401 - before onnxruntime: it switches the telemetry off

WATCHED = ("onnx", "onnxruntime", "onnxscript", "torch", "torchvision", "numpy")
# What cells say that need what an earlier cell did not make.
LACKS = re.compile(r"NameError|no such ?file|there is no file|file doesn't exist", re.IGNORECASE)
CLAIM = re.compile(r"^cu\.claim\(\s*[\"']([\w-]+)[\"']", re.MULTILINE)


@dataclass(frozen=True)
class Change:
    """cell: number among the notebook's code cells, as nbval counts. claim: its id, or nothing. what: in one line."""

    notebook: str
    cell: int
    claim: str
    what: str


def run(book: NotebookNode, folder: Path, seconds: int = 300) -> None:
    """Run the notebook in `folder`, past every cell that fails; its outputs are in it afterwards. seconds: for one cell."""
    where = {"metadata": {"path": str(folder)}}
    client = NotebookClient(book, timeout=seconds, allow_errors=True, kernel_name="python3", resources=where)
    client.extra_arguments = ["--log-level=40"]  # the kernel's own warnings would stand between the lines of the result
    client.on_notebook_start = _leave_signals
    client.execute()


def _leave_signals(**_: object) -> None:
    """nbclient takes Ctrl+C and a request to end as the end of one notebook. Here they are the end of all."""
    with suppress(NotImplementedError):  # on Windows it takes none
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().remove_signal_handler(number)


def changes(name: str, book: NotebookNode) -> list[Change]:
    """What did not go as it does with the pinned packages. A cell that only lacks what a failed one makes is counted."""
    found: list[Change] = []
    lacking = 0
    for number, cell in enumerate(cell for cell in book.cells if cell.cell_type == "code"):
        claim = "".join(CLAIM.findall(cell.source)[:1])
        for output in cell.outputs:
            if output.output_type == "error":
                said = _line(f"{output.ename}: {output.evalue}")
                if found and LACKS.search(said):
                    lacking += 1
                    found += [Change(name, number, claim, "not reached")] if claim else []
                else:
                    found.append(Change(name, number, claim, said))
            elif claim and "Not upheld here" in (text := output.get("data", {}).get("text/plain", "")):
                found.append(Change(name, number, claim, _line(text[text.index("Not upheld here") :])))
    if lacking:
        found.append(Change(name, found[0].cell, "", f"{lacking} cells lack what failed cells make"))
    return found


def _line(text: str) -> str:
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).split()).removesuffix(":")
    return text if len(text) <= 160 else f"{text[:159]}…"


def versions() -> str:
    """The installed versions, and beside them the pinned ones where they differ."""
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE))
    told = []
    for name in WATCHED:
        here = Version(version(name)).public  # without a build tag such as +cpu: the pins have none
        told.append(f"{name} {here}" + (f" (pinned: {pins[name]})" if here != pins[name] else ""))
    return ", ".join(told)


def table(found: list[Change]) -> str:
    rows = [
        ("notebook", "cell", "claim", "what happened"),
        *((c.notebook, str(c.cell), c.claim, c.what) for c in found),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument(
        "notebooks", nargs="*", metavar="NOTEBOOK", help="such as 07_quantization or exercises/02_opsets"
    )
    asked = parse.parse_args().notebooks
    known = {source.with_suffix("").as_posix(): source for source in generate.sources()}
    if unknown := set(asked) - set(known):
        parse.error(f"there is no notebook {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    print(versions(), flush=True)
    # An exercise: its own student, and a check that does not pass is an error.
    os.environ |= {"COURSE_STUDENT": "ada", "COURSE_STRICT": "1", "MPLBACKEND": "agg"}
    found: list[Change] = []
    for name in asked or known:
        book = generate.notebook(known[name], solutions=True)
        with tempfile.TemporaryDirectory() as folder:
            try:
                run(book, Path(folder))
                mine = changes(name, book)
            except Exception as error:  # a kernel that dies, a cell without an end
                mine = [Change(name, 0, "", _line(f"{type(error).__name__}: {error}"))]
        print(f"{'✗' if mine else '✓'} {name}", flush=True)
        found += mine
    print(f"\n{table(found)}" if found else "\nNothing changed.")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
