"""Where the doctor finds what, and which numbers it tells, as it was recorded: `python tests/recorded_reports.py` records it anew.

Of the words only the numbers are kept, so that a sentence may be written better.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import doctor_models
import numpy as np
import onnx
from answers import given_files
from recorded_tasks import TASKS
from test_doctor_borders import BEGINS
from test_doctor_findings import PAIRS, Maker

import course_utils as cu
from course_utils.diagnosis import verdict

RECORD = Path(__file__).with_suffix(".json")
MODELS: dict[str, Maker] = {
    **{
        f"{code}, {kind}": make
        for code, pair in PAIRS.items()
        for kind, make in zip(("sick", "healthy"), pair, strict=True)
    },
    **{
        f"{what}, {side}": make
        for what, pair in BEGINS.items()
        for side, make in zip(("below", "above"), pair[:2], strict=True)
    },
}
# The files of the others are calibrated where they are made: the last digits depend on the processor.
GIVING = [id for id in TASKS if id not in ("7.6", "10.2")]
# Their causes quote onnx and ONNX Runtime, or tell of their versions.
_QUOTING = (
    verdict.OF_THE_RUNTIME
    | verdict.OF_THE_GRAPH
    | {"runtime-refuses", "checker-formality", "opset-too-old", "function-name-clash"}
)


def _numbers(text: str) -> list[str]:
    return re.findall(r"\d[\d,.]*\d|\d", text)


def _told(model: onnx.ModelProto) -> dict[str, Any]:
    """The report in short."""
    report = cu.doctor(model)
    findings = [
        f"{f.severity} {f.code.id}: {f.places}" + ("" if f.code.id in _QUOTING else f" | {' '.join(_numbers(f.cause))}")
        for f in report.findings
    ]
    return {"facts": " | ".join(report.facts.values()), "findings": findings, "left out": len(report.not_checked)}


def told(what: str) -> dict[str, Any]:
    """Of one of the models."""
    doctor_models.RNG.bit_generator.state = np.random.default_rng(7).bit_generator.state  # whatever test came before
    return _told(MODELS[what]())


def told_of_task(id: str) -> dict[str, Any]:
    """Of the models that a task hands out."""
    return {name: _told(onnx.load_from_string(d)) for name, d in given_files(id).items() if name.endswith(".onnx")}


def write() -> None:
    every = {"models": {what: told(what) for what in MODELS}, "tasks": {id: told_of_task(id) for id in GIVING}}
    RECORD.write_text(json.dumps(every, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
