"""Task 3.4: a program with two decisions, the file that tracing made of it, and inputs that show where the file lies."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import onnx
from onnx import helper

from .. import Criteria, Criterion, Params
from ..examine import wants_keys
from ..handouts import x_to_y

BOX = 5.0  # the numbers of a counterexample lie between minus and plus this
NEAR = 0.05  # from a threshold: so near that no input is right for two students


def draw_router(rng: Random) -> Params:
    """Personal parameters. path: which decisions said yes while the program was traced; the given file shows it."""
    return {
        "first": -rng.randint(50, 200) / 100,
        "second": rng.randint(100, 300) / 100,
        "factor": rng.randint(15, 30) / 10,
        "step": rng.randint(6, 20) / 10,
        "path": [rng.random() < 0.5, rng.random() < 0.5],
    }


def route(x: np.ndarray, p: Params) -> tuple[np.ndarray, tuple[bool, bool], tuple[float, float]]:
    """What the Python program computes, which of its two decisions said yes, and how far each was from its threshold."""
    far = [float(x[0] - p["first"])]
    if far[0] > 0:
        x = x * p["factor"]
    far.append(float(x.max() - p["second"]))
    if far[1] > 0:
        x = x - p["step"]
    return x, (far[0] > 0, far[1] > 0), (abs(far[0]), abs(far[1]))


def traced_router(p: Params) -> onnx.ModelProto:
    """The file that tracing would write with an example on the student's path."""
    nodes, current = [], "x"
    steps = [("Mul", "factor", "scaled"), ("Sub", "step", "lowered")]
    weights = {}
    for (op, weight, result), taken in zip(steps, p["path"], strict=True):
        if taken:
            nodes.append(helper.make_node(op, [current, weight], [result], result))
            weights[weight] = np.array(p[weight], np.float32)
            current = result
    nodes.append(helper.make_node("Identity", [current], ["y"], "result"))
    return x_to_y("router", nodes, weights, [4], [4], {"": 18}, ir_version=10)


_WANTED = {"first": (True, False), "second": (False, True), "both": (True, True)}  # which decisions must differ


def check_lies(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    """The check of the task."""
    criteria = Criteria()
    if not wants_keys(answer, set(_WANTED), criteria):
        return criteria
    for key, differ in _WANTED.items():
        value, what = answer[key], f"{key}: the file is wrong here, because of {_named(differ)}"
        if problem := _no_input(value):
            criteria.add(what, False, problem)
            continue
        x = np.array(value, np.float32)
        _, took, far = route(x, p)
        off = tuple(mine != frozen for mine, frozen in zip(took, p["path"], strict=True))
        if not any(off):
            hint = "Here the program takes the very path that is in the file, so the file is right."
        elif off != differ:
            hint = f"Here {_named(off)} differ{'s' * (sum(off) == 1)} from the path in the file, not {_named(differ)}."
        elif far[0] > NEAR:
            hint = f"x[0] is {far[0]:.3g} away from first: at most {NEAR} is asked for."
        else:
            hint = f"The largest number that the second decision sees is {far[1]:.3g} away from second: at most {NEAR}."
        # So near to both thresholds, no scaling makes up for a step: where the decisions differ, the numbers do, too.
        criteria.add(what, off == differ and max(far) <= NEAR, hint)
    return criteria


def _named(differ: tuple[bool, ...]) -> str:
    names: dict[tuple[bool, ...], str] = {(True, False): "the first decision", (False, True): "the second decision"}
    return names.get(differ, "both decisions")


def _no_input(value: Any) -> str:
    if not isinstance(value, list) or len(value) != 4:
        return "It must be a list of four numbers."
    if any(isinstance(v, bool) or not isinstance(v, int | float) for v in value):
        return "It must be a list of four numbers."
    if not all(-BOX <= v <= BOX for v in value):  # so that not-a-number fails, too
        return f"All numbers must lie between -{BOX:g} and {BOX:g}."
    return ""
