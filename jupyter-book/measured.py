"""The book's page of measurements, made from `data/bench.json` (`make bench`)."""

from __future__ import annotations

from itertools import groupby
from typing import Any

LESSON = {  # the lesson where a reader can time it on another machine
    "ONNX Runtime and PyTorch": "00_start_here",
    "int8": "07_quantization",
    "optimisation level": "06_fusion",
    "shapes": "04_dynamic_axes",
    "session": "05_execution_providers",
    "size": "07_quantization",
    "execution providers": "05_execution_providers",
}
TITLES = {
    "ONNX Runtime and PyTorch": "ONNX Runtime and PyTorch",
    "int8": "int8 instead of float32, in ONNX Runtime",
    "optimisation level": "The levels of graph optimisation",
    "shapes": "A static shape instead of a dynamic one",
    "session": "Creating a session, and one run of it",
    "size": "The size of the file",
    "execution providers": "Another execution provider",
}


def page(record: dict[str, Any], written: list[str]) -> str:
    """Promises, ratios by kind, notebooks; above all the machine and the versions. written: the lessons that exist."""
    versions = " · ".join(f"{name} {number}" for name, number in record["versions"].items())
    machine = record["machine"]
    kept = sum(row["kept"] for row in record["promises"])
    parts = [
        "# Measurements",
        "How fast, how small, how much memory: measured by `make bench`, which you can run on your own machine. A time belongs to "
        "one machine on one day. So this page shows *ratios*: both sides were timed in turns in the same run, with one "
        "thread each. Your ratios will differ; the order of magnitude should not.",
        f"**Measured** on {record['date']} · {machine['processor']}, {machine['cores']} cores "
        f"({', '.join(machine['extensions'])}) · {versions}",
        "## What the course promises",
        f"{kept} of {len(record['promises'])} kept on this machine.",
        _table(
            ["promise", "reach", "measured", ""],
            [[r["what"], r["reach"], r["measured"], "✓ kept" if r["kept"] else "✗ missed"] for r in record["promises"]],
        ),
    ]
    for group, rows in groupby(sorted(record["ratios"], key=_place), key=lambda row: row["group"]):
        parts += [f"## {TITLES[group]}", _ratios(list(rows))]
        if LESSON[group] in written:
            parts.append(f"Time it yourself in {{doc}}`lesson {LESSON[group][:2]} <notebooks/{LESSON[group]}>`.")
    if record["notebooks"]:
        rows = [[r["notebook"], f"{r['seconds']:.0f} s", f"{r['peak_mib']} MiB"] for r in record["notebooks"]]
        parts += [
            "## The notebooks themselves",
            "From start to end, the start of the kernel included; the peak of resident memory, added up over all "
            "processes that a notebook starts.",
            _table(["notebook", "time", "memory"], rows),
        ]
    return "\n\n".join(parts) + "\n"


def _place(row: dict[str, Any]) -> int:
    return list(TITLES).index(row["group"])  # an unknown group fails the build: give it a title


def _ratios(rows: list[dict[str, Any]]) -> str:
    """A table with a bar behind each ratio: its length grows with the ratio, 1 is marked by the words."""
    longest = max(row["ratio"] for row in rows)
    cells = [
        [row["model"], str(row["batch"] or "–"), f"{row['slow']} ÷ {row['fast']}", _bar(row["ratio"], longest)]
        for row in rows
    ]
    return _table(["model", "batch", "ratio of", "ratio"], cells)


def _bar(ratio: float, longest: float) -> str:
    return f'<span class="ratio" style="--length: {ratio / longest:.3f}">{ratio:.2f}×</span>'


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
