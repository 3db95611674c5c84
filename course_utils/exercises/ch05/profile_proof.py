"""Task 5.2: a profile that proves where the nodes of a session ran."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

from .. import Criteria, Criterion, Params
from ..examine import whole
from ..handouts import x_to_y

CPU = "CPUExecutionProvider"
OPSET, IR = 20, 9

LEVELS = {
    "ORT_DISABLE_ALL": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "ORT_ENABLE_BASIC": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "ORT_ENABLE_EXTENDED": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "ORT_ENABLE_ALL": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


def draw_profile(rng: Random) -> Params:
    return {
        "level": rng.choice(["ORT_DISABLE_ALL", "ORT_ENABLE_BASIC"]),
        "runs": rng.randint(3, 9),
        "rows": rng.randint(2, 9),
        "seed": rng.randrange(10**6),
    }


def layered(p: Params) -> onnx.ModelProto:
    """Pictures [rows, 3, 6, 6]: nodes that the basic rewrites remove, and a pair that the extended ones fuse.

    Names and the number of channels are personal: nobody's profile becomes another one's by a changed name.
    """
    draw, tag, channels = np.random.default_rng(p["seed"]), f"{p['seed']:06}", 4 + p["seed"] % 7
    weights = {
        "w1": draw.normal(0, 0.4, (channels, 3, 3, 3)),
        "a": draw.normal(0, 1, (1, channels, 1, 1)),
        "b": np.ones((1, channels, 1, 1)),
    }
    steps: list[tuple[str, list[str], dict[str, Any]]] = [
        ("Identity", ["x"], {}),
        ("Conv", ["t0", "w1"], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
        ("Relu", ["t1"], {}),
        ("Add", ["a", "b"], {}),
        ("Mul", ["t2", "t3"], {}),
        ("Dropout", ["t4"], {}),
        ("Sigmoid", ["t5"], {}),
    ]
    nodes = [
        helper.make_node(op, inputs, ["y" if i == len(steps) - 1 else f"t{i}"], f"{op.lower()}_{tag}", **attributes)
        for i, (op, inputs, attributes) in enumerate(steps)
    ]
    weights = {name: value.astype(np.float32) for name, value in weights.items()}
    shape = ["rows", channels, 6, 6]
    return x_to_y("layered", nodes, weights, ["rows", 3, 6, 6], shape, {"": OPSET}, ir_version=IR)


def record_of_run(model: onnx.ModelProto, level: str, rows: int) -> dict[str, dict[str, Any]]:
    """Node → what a profile of this runtime says of it, after one run of this many rows."""
    options = at_level(level)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder, "profile"))
        session = ort.InferenceSession(model.SerializeToString(), options, providers=[CPU])
        session.run(None, {"x": np.zeros((rows, 3, 6, 6), np.float32)})
        return dict(_kernels(json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))))


def _kernels(events: list[Any]) -> list[tuple[str, dict[str, Any]]]:
    """(node, arguments) of each event of a node that ran."""
    return [
        (e["name"].removesuffix("_kernel_time"), e["args"])
        for e in events
        if e.get("cat") == "Node" and str(e.get("name")).endswith("_kernel_time") and isinstance(e.get("args"), dict)
    ]


def at_level(level: str) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.graph_optimization_level = LEVELS[level]
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return options


def check_profile(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    criteria, model = Criteria(), layered(p)
    is_profile = isinstance(answer, list) and bool(answer) and all(isinstance(e, dict) for e in answer)
    if not criteria.require(
        "the file is a profile of ONNX Runtime",
        is_profile and any(e.get("name") == "session_initialization" for e in answer),
        "A profile is a list of events, one of them session_initialization: copy the file that end_profiling() names.",
    ):
        return criteria
    ran = _kernels(answer)
    if not criteria.require(
        "it has events of nodes",
        bool(ran),
        "No node ran before the profile was ended: call run first, end_profiling after it.",
    ):
        return criteria
    names, own = {name for name, _ in ran}, {node.name for node in model.graph.node}
    found = {_rows(arguments) for _, arguments in ran} - {1} or {1}  # the addition of two weights has one row
    rows = next((n for n in found if n is not None and 0 < n <= 1000), p["rows"])
    levels = [p["level"], *(level for level in LEVELS if level != p["level"])]
    records = ((level, record_of_run(model, level, rows)) for level in levels)
    level, record = next(((at, nodes) for at, nodes in records if set(nodes) == names), ("", {}))
    if not criteria.require(
        "the nodes are those of your model",
        bool(level or names & own),
        "None of them is in your model: profile the model that was handed out to you.",
    ):
        return criteria
    runs = sum(e.get("name") == "model_run" for e in answer)
    # Runs of several sizes have no one record to compare with.
    odd = _not_written(answer, ran, record, runs) if level and len(found) == 1 else ""
    if not criteria.require(
        "it was written by ONNX Runtime",
        not odd,
        f"{odd} Copy the file as it is.",
    ):
        return criteria
    criteria.add(
        f"the nodes are those of your model at {p['level']}",
        level == p["level"],
        f"These are the nodes at {level}: set options.graph_optimization_level before you create the session."
        if level
        else f"Among them are {', '.join(sorted(names)[:9])}: that is the model at none of the levels. Profile your model "
        f"alone, and as it was handed out.",
    )
    criteria.add(
        f"the model ran {p['runs']} times",
        runs == p["runs"],
        f"The profile has {runs} events model_run. Every run with this session counts, also a first try.",
    )
    criteria.add(
        f"each run had {p['rows']} rows",
        found == {p["rows"]},
        f"Its first dimension was {', '.join(map(str, sorted(found, key=str)))} there.",
    )
    elsewhere = {str(arguments.get("provider")) for _, arguments in ran} - {CPU}
    criteria.require("all nodes ran on the CPU provider", not elsewhere, f"Some ran on {', '.join(sorted(elsewhere))}.")
    return criteria


_EARLY, _LATE = 10, 1000  # microseconds: times are rounded, and a thread may come a little late
_FACTS = ("op_name", "input_type_shape", "output_type_shape", "output_size", "parameter_size")


def _not_written(events: list[Any], ran: list[tuple[str, Any]], record: dict[str, dict[str, Any]], runs: int) -> str:
    """What shows that this is no record of real runs; empty when nothing does. record: of a run here."""
    counted = Counter(name for name, _ in ran)
    for name, arguments in ran:
        for fact in _FACTS:
            if fact in record[name] and arguments.get(fact) != record[name][fact]:
                return f"{name} has {fact} {arguments.get(fact)!r}, a run has {record[name][fact]!r}."
    if uneven := [name for name, times in counted.items() if times != runs]:
        return f"{uneven[0]} ran {counted[uneven[0]]} times in {runs} events model_run."
    timed = [e for e in events if e.get("cat") == "Node" or e.get("name") == "model_run"]
    if not all(None not in (whole(e.get("ts")), whole(e.get("dur"))) and e["dur"] >= 0 for e in timed):
        return "Events have no times."
    spans = sorted((e["ts"], e["ts"] + e["dur"]) for e in events if e.get("name") == "model_run")
    for event in timed:
        begun = [span for span in spans if span[0] <= event["ts"] + _EARLY]
        if not begun or event["ts"] + event["dur"] > begun[-1][1] + _LATE:
            return f"{event['name']} took place outside of each model_run."
    return ""


def _rows(arguments: Mapping[str, Any]) -> int | None:
    """First dimension of a node's first input, as the profile has it; None where it has none."""
    try:
        (shape,) = arguments["input_type_shape"][0].values()
        return whole(shape[0])
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return None
