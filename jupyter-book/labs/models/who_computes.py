"""Files of the lab *who_computes*: three graphs of lesson 05's experiment, and who computed their nodes where it was recorded.

`NAME.onnx`, and `who_computes.json`: for each graph its `title`, `shape`, `input` and `output` (as ONNX Runtime in Python computes it)
and `records`: `who`, `placed` (name of a node → provider), `apart` (from the CPU's numbers), `forbidden` (the error where a
node for the CPU is forbidden, or null) and `made`, words on machine, versions and day.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before onnxruntime is imported

import numpy as np
import onnx

import course_utils as cu
from course_utils.ep_experiment.models import PLACED
from course_utils.running import run, session_for

GRAPHS = {
    "mixed": "One unusual operator",
    "scattered": "Three unusual operators",
    "fixed": "Common operators only",
}
# record → how it is called, the title of its entry
RECORDED = {
    "cpu": ("CPU", "CPU alone"),
    "webgpu": ("WebGPU plug-in", "WebGpu by device"),
    "qnn": ("QNN plug-in", "QNN by device"),
}


def make(folder: Path) -> None:
    """Write the lab's files into `folder`."""
    facts = {}
    for name, title in GRAPHS.items():
        build, shape = PLACED[name]
        model = build()
        onnx.save(model, folder / f"{name}.onnx")
        given = np.random.default_rng(1).normal(0, 1, shape).astype(np.float32)
        (answer,) = run(session_for(model), {"x": given}).values()
        records = [_record(cu.ep_record(key), who, entry, name, model) for key, (who, entry) in RECORDED.items()]
        facts[name] = {
            "title": title,
            "shape": shape,
            "input": given.ravel().tolist(),
            "output": answer.ravel().tolist(),
            "records": records,
        }
    (folder / "who_computes.json").write_text(json.dumps(facts, separators=(",", ":")), encoding="utf-8")


def _record(record: dict[str, Any], who: str, title: str, graph: str, model: onnx.ModelProto) -> dict[str, Any]:
    entries = {entry["title"]: entry for entry in record["placements"] if entry["model"] == graph}
    entry, strict = entries[title], entries[f"{title}, fallback forbidden"]
    names = {node.name for node in model.graph.node}
    placed = {}
    for provider, nodes in entry["recorded"]:
        for node in nodes:
            as_written = re.sub(r"_token_\d+$", "", node)  # a change of the layout gives nodes other names
            if as_written in names:
                placed[as_written] = provider.removesuffix("ExecutionProvider")
    if set(placed) != names:
        raise ValueError(f"The record of {who} does not tell who computes {', '.join(sorted(names - set(placed)))}.")
    where = record["emulated"] or record["machine"]["processor"]
    return {
        "who": who,
        "placed": placed,
        "apart": entry["difference"],
        "forbidden": strict["error"],
        "made": f"{record['versions']['package']}, {where}, {record['date']}",
    }
