"""The book's page of measurements, made from `data/bench.json` (`make bench`)."""

from __future__ import annotations

from itertools import groupby
from typing import Any

# Per kind of ratio, in the order of the page: title, how to read it, and the lesson where a reader can time it again.
GROUPS = {
    "ONNX Runtime and PyTorch": (
        "ONNX Runtime and PyTorch",
        "How many times faster the second is than the first. *Eager* is PyTorch as everybody uses it.",
        "00_start_here",
    ),
    "int8": (
        "int8 instead of float32",
        "How many times faster the int8 file is, in the same runtime.",
        "07_quantization",
    ),
    "size": ("The size of the file", "How many times smaller the int8 file is.", "07_quantization"),
    "optimisation level": (
        "The levels of graph optimisation",
        "How many times faster a level is than the graph as the exporter wrote it. The exporter has folded BatchNorm "
        "already, so only the last level has much to do.",
        "06_fusion",
    ),
    "shapes": (
        "A static shape instead of a dynamic one",
        "How many times faster the same model is when its batch is fixed.",
        "deeper/04_static_again",
    ),
    "session": (
        "Creating a session",
        "As many runs with one input take the same time as creating the session.",
        "05_execution_providers",
    ),
}


def page(record: dict[str, Any]) -> str:
    """Promises, ratios by kind, notebooks; above all the machine and the versions."""
    kept = sum(row["kept"] for row in record["promises"])
    parts = [
        "# Measurements",
        "How fast, how small, how much memory: measured by `make bench`, which you can run on your own machine. A time belongs to "
        "one machine on one day. So this page shows *ratios*: both sides were timed in turns in the same run, with one "
        "thread each. Your ratios will differ; the order of magnitude should not.",
        _where(record),
        "## What the course promises",
        f"{kept} of {len(record['promises'])} kept on this machine (✓); the others are marked ✗.",
        _promises(record["promises"]),
    ]
    for group, rows in groupby(sorted(record["ratios"], key=_place), key=lambda row: row["group"]):
        title, reading, lesson = GROUPS[group]
        number = lesson.rpartition("/")[2][:2]
        reading += f" Time it yourself in {{doc}}`lesson {number} <notebooks/{lesson}>`."
        parts += [f"## {title}", reading, _ratios(list(rows))]
    if record["notebooks"]:
        rows = [[r["notebook"], f"{r['seconds']:.0f} s", f"{r['peak_mib']} MiB"] for r in record["notebooks"]]
        parts += [
            "## The notebooks themselves",
            "From start to end, the start of the kernel included; the peak of memory, added up over all "
            "processes that a notebook starts. What they share is counted once, where the system tells.",
            table(["notebook", "time", "memory"], rows),
        ]
    if "language" in record:
        parts += _language(record["language"])
    if "grading" in record:
        parts += _grading(record["grading"])
    return "\n\n".join(parts) + "\n"


def _language(found: dict[str, Any]) -> list[str]:
    """A step of the decoder of chapter 11, by the length of the text, with its own machine."""
    rows = [
        [str(r["tokens"]), f"{r['without']:.1f} ms", f"{r['with']:.1f} ms", f"{r['without'] / r['with']:.1f}×"]
        for r in found["steps"]
    ]
    order = found["order"]
    return [
        "## A language model",
        "Time for one more token after a text, with one thread: without a cache the whole text is computed again. Time it "
        "yourself in {doc}`lesson 11 <notebooks/11_language_models>`.",
        _where(found),
        table(["tokens of text", "without a cache", "with it", "ratio"], rows),
        f"Fitted over these lengths, the time grows as the length to the power {order['without']:g} without a cache, and "
        f"{order['with']:g} with it.",
        table(["ratio of", "ratio"], [[r["what"], f"{r['ratio']:.2f}×"] for r in found["ratios"]]),
    ]


def _grading(found: dict[str, Any]) -> list[str]:
    """What an instructor wants to know of the grader, with its own machine."""
    rows = [
        [r["chapter"], f"{r['nbgrader']:.1f} s", f"{r['grader']:.3f} s", f"{r['nbgrader'] / r['grader']:.0f}×"]
        for r in found["nbgrader"]
    ]
    a_second = " · ".join(
        f"{number:g} a second with {workers} worker{'s' * (workers != '1')}"
        for workers, number in found["a_second"].items()
    )
    return [
        "## The grader",
        f"Right answers to all {found['tasks']} tasks, of {found['students']} students, marked by processes that have marked one submission "
        "before, as most of a class are.",
        _where(found),
        _promises(found["promises"]),
        f"**Submissions:** {a_second}. **Memory:** a worker held at most {found['peak_mib']} MiB.",
        *([f"**On this machine right answers lost points** in {', '.join(found['lost'])}."] if found["lost"] else []),
        "nbgrader runs the notebook that a student hands in, and the grader looks at the files that it made. So much time each "
        "takes for one student's chapter, all tasks solved:",
        table(["chapter", "nbgrader", "grader", "ratio"], rows),
    ]


def _where(record: dict[str, Any]) -> str:
    versions = " · ".join(f"{name} {number}" for name, number in record["versions"].items())
    machine = record["machine"]
    return (
        f"**Measured** on {record['date']} · {machine['processor']}, {machine['cores']} cores "
        f"({', '.join(machine['extensions'])}) · {versions}"
    )


def _promises(promises: list[dict[str, Any]]) -> str:
    return table(
        ["promise", "reach", "measured"],
        [[r["what"], r["reach"], f"{'✓' if r['kept'] else '✗'} {r['measured']}"] for r in promises],
    )


def _place(row: dict[str, Any]) -> int:
    return list(GROUPS).index(row["group"])  # an unknown group fails the build: give it a title


def _ratios(rows: list[dict[str, Any]]) -> str:
    """A table with a bar behind each ratio, as long as the ratio beside the largest one of the table."""
    longest = max(row["ratio"] for row in rows)
    cells = [
        [
            row["model"] + (f", batch {row['batch']}" if row["batch"] else ""),
            f"{row['slow']} ÷ {row['fast']}",
            _bar(row["ratio"], longest),
        ]
        for row in rows
    ]
    return table(["model", "ratio of", "ratio"], cells)


def _bar(ratio: float, longest: float) -> str:
    return f'<span class="ratio" style="--length: {ratio / longest:.3f}">{ratio:.2f}×</span>'


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
