"""Task 6.6: find the slowest node in a profile, and the module and the line of PyTorch that it comes from.

The model, its notes and the events are what the exporter and ONNX Runtime wrote (`data/build_profiled.py`). The times are
drawn for each student: a real clock would not give everybody a sure answer.
"""

from __future__ import annotations

import ast
import json
import re
from functools import cache
from random import Random
from typing import Any

import numpy as np
import onnx

from ...paths import data_path
from .. import Criteria, Criterion, Params, Task
from ..examine import wants_keys, whole

_ENDING = "_kernel_time"
_USUAL = {"MatMul": 115, "Conv": 150, "Gelu": 60, "Softmax": 50, "LayerNormalization": 40, "Mul": 30, "Add": 25}
_OTHERWISE = 15  # microseconds of a node whose operator is not in the list
_NEAR = 0.0051  # of a share: two decimals are enough


def draw_reading(rng: Random) -> Params:
    return {"runs": rng.choice([7, 9, 11]), "seed": rng.getrandbits(32)}


@cache
def _recorded() -> list[dict[str, Any]]:
    """The events of one session and one run, as ONNX Runtime wrote them."""
    return json.loads(data_path("profiled/profile.json").read_text(encoding="utf-8"))


@cache
def _model() -> bytes:
    return data_path("profiled/recognizer.onnx").read_bytes()


def _notes() -> dict[str, dict[str, str]]:
    """Node → the last words of the key → what the exporter noted there."""
    nodes = onnx.load_from_string(_model()).graph.node
    return {n.name: {note.key.rpartition(".")[2]: note.value for note in n.metadata_props} for n in nodes}


def origin(notes: dict[str, str]) -> tuple[str, int]:
    """The module that a node comes from, and its line in recognizer.py: the last one, for PyTorch's own come after it."""
    scopes = ast.literal_eval(notes["name_scopes"])
    lines = re.findall(r'File "recognizer\.py", line (\d+)', notes["stack_trace"])
    return scopes[-2], int(lines[-1])


def times(p: Params) -> dict[str, list[int]]:
    """Node → its microseconds in each run. One node is the slowest in nearly every run, and another one far slower in one."""
    draw = np.random.default_rng(p["seed"])
    ran = [(e["name"].removesuffix(_ENDING), e["args"]["op_name"]) for e in _recorded() if e["cat"] == "Node"]
    usual = {name: _USUAL.get(op, _OTHERWISE) * draw.uniform(0.8, 1.2) for name, op in ran}
    notes = _notes()
    inside = [name for name, op in ran if op in _USUAL and origin(notes[name])[0]]
    slow, late = (inside[i] for i in draw.choice(len(inside), 2, replace=False))
    share, rest = draw.uniform(0.18, 0.34), sum(usual.values()) - usual[slow]
    usual[slow] = rest * share / (1 - share)
    speed = draw.uniform(0.95, 1.05, (len(ran), p["runs"]))
    speed[:, 0] *= 1.4  # the first run is a cold one
    found = {name: [round(usual[name] * s) for s in row] for (name, _), row in zip(ran, speed, strict=True)}
    found[late][draw.integers(1, p["runs"])] = round(usual[slow] * p["runs"] * draw.uniform(1.4, 1.9))
    return found


def profile(p: Params) -> bytes:
    """The record with as many runs as this student has, and with these times."""
    took, draw = times(p), np.random.default_rng(p["seed"] + 1)
    start = [e for e in _recorded() if e["name"] in ("model_loading_array", "session_initialization")]
    of_nodes = [e for e in _recorded() if e["cat"] == "Node"]
    execute, whole_run = (
        next(e for e in _recorded() if e["name"] == name) for name in ("SequentialExecutor::Execute", "model_run")
    )
    events, now = list(start), start[-1]["ts"] + start[-1]["dur"] + 200
    for run in range(p["runs"]):
        begun, now = now, now + 15
        for event in of_nodes:
            now += int(draw.integers(4, 8))  # between two nodes
            dur = took[event["name"].removesuffix(_ENDING)][run]
            events.append({**event, "ts": now, "dur": dur})
            now += dur
        events.append({**execute, "ts": begun + 12, "dur": now - begun - 10})
        events.append({**whole_run, "ts": begun, "dur": now - begun + 8})
        now += int(draw.integers(40, 90))
    return ("[\n" + ",\n".join(json.dumps(e) for e in events) + "\n]\n").encode()


def shown_reading(p: Params) -> dict[str, onnx.ModelProto | bytes]:
    source = data_path("profiled/recognizer.py").read_bytes()
    return {"6.6.onnx": onnx.load_from_string(_model()), "6.6_profile.json": profile(p), "6.6_recognizer.py": source}


def check_reading(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not wants_keys(answer, {"node", "share", "module", "line"}, criteria):
        return criteria
    took, notes = times(p), _notes()
    medians = {name: float(np.median(row)) for name, row in took.items()}
    slow = max(medians, key=medians.__getitem__)
    share = medians[slow] / sum(medians.values())
    name = str(answer["node"]).removesuffix(_ENDING)
    said = answer["share"]
    number = float(said) if isinstance(said, int | float) and not isinstance(said, bool) and abs(said) < 1e9 else None
    if not criteria.require(
        "node is the name of a node of the model, and share is a number",
        name in notes and number is not None,
        f"{name[:60]!r} is the name of no node: the profile has it in front of _kernel_time."
        if name not in notes
        else f"share is {str(said)[:40]!r}: write a number between 0 and 1.",
    ):
        return criteria
    if not criteria.add(
        "the node is the one that costs most, and its share of the time is right",
        name == slow and number is not None and abs(number - share) <= _NEAR,
        lambda: _time_hint(name, number or 0.0, slow, took),
    ):
        return criteria
    module, line = origin(notes[slow])
    criteria.add(
        "module is the one it comes from", answer["module"] == module, lambda: _module_hint(answer, notes[slow])
    )
    criteria.add(
        "line is the one it comes from", whole(answer["line"]) == line, lambda: _line_hint(answer, notes[slow])
    )
    return criteria


def _time_hint(name: str, number: float, slow: str, took: dict[str, list[int]]) -> str:
    if name == max(took, key=lambda node: max(took[node])):
        return "That node took long in one run only, and seldom else: take the median of the runs for each node, not the sum, the mean or the maximum."
    if name != slow:
        return "In the median of the runs, another node takes longer."
    medians, sums = ({n: float(of(row)) for n, row in took.items()} for of in (np.median, np.sum))
    share = medians[slow] / sum(medians.values())
    op = {e["name"].removesuffix(_ENDING): e["args"]["op_name"] for e in _recorded() if e["cat"] == "Node"}
    mean_run = sum(sums.values()) / len(took[slow])
    slips = {
        100 * share: "It is in per cent: write a number between 0 and 1.",
        sums[slow]
        / sum(
            sums.values()
        ): "This is a share of sums over all runs, the disturbed one among them: take the median of each node first, then add up.",
        medians[slow]
        / mean_run: "You divide a median by the mean of the runs: divide by the sum of the medians of all nodes.",
        share / (1 - share): "You divide by the time of all other nodes: divide by that of all nodes.",
        sum(medians[n] for n in medians if op[n] == op[slow])
        / sum(medians.values()): "This is the share of all nodes with that operator: only the one node is asked for.",
        max(took[slow]) / sum(medians.values()): "You take its longest run: take the median of its runs.",
    }
    near = min(slips, key=lambda slip: abs(slip - number))
    if abs(near - number) <= _NEAR * max(1, near / share):
        return slips[near]
    if share * 0.85 < number < share:
        return "The node is right. The share is a little too small: is more in what you divide by than the nodes, such as model_run?"
    return "The node is right, the share is not: divide the median of this node by the sum of the medians of all nodes."


def _module_hint(answer: dict[str, Any], notes: dict[str, str]) -> str:
    said, scopes = answer["module"], ast.literal_eval(notes["name_scopes"])
    classes = ast.literal_eval(notes["class_hierarchy"])
    if said == scopes[-1]:
        return "That is the operation. The module that calls it stands before it in name_scopes."
    if said in scopes:
        return "That module holds the one that is asked for: name_scopes goes from the whole model inwards."
    if isinstance(said, str) and said in {part for c in classes for part in (c, c.rpartition(".")[2])}:
        return "That is a class. The name of the module stands in name_scopes."
    return "name_scopes of the node has another one last, in front of the operation."


def _line_hint(answer: dict[str, Any], notes: dict[str, str]) -> str:
    said, frames = whole(answer["line"]), re.findall(r'File "(.*?)", line (\d+)', notes["stack_trace"])
    if said is None:
        return f"line is {str(answer['line'])[:40]!r}: write a whole number."
    if said in [int(line) for file, line in frames if file != "recognizer.py"]:
        return "That line is in a file of PyTorch. Which line of recognizer.py calls it?"
    if said in [int(line) for _, line in frames]:
        return "That line calls the module further out. The last line of recognizer.py in stack_trace is asked for."
    return "stack_trace of the node does not hold it. It is a line of recognizer.py."


READING = Task(
    "6.6",
    "Read a profile",
    "json",
    check_reading,
    draw_reading,
    shown_reading,
    points=3,
    hints=(
        "Only events whose name ends in _kernel_time are nodes. Look at the times of one node in all runs: are they alike?",
        "Take the median of the runs for each node. The share is the largest of these medians, divided by their sum.",
        "In metadata_props of that node, name_scopes ends with the module and the operation. In stack_trace, the frames go "
        "from the outside to the inside, and the last ones may be PyTorch's own: take the last one of recognizer.py.",
    ),
)
