"""Tasks 3.1 and 3.2: a branch and a loop that must stay alive in the file."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np
import onnx

from .. import Criteria, Criterion, Params
from ..examine import is_sound, numpy_source
from ..slips import Calculation, Feed, compare
from .exported import LOOK, any_first, one_to_one

# 3.1: both branches


def draw_gate(rng: Random) -> Params:
    """Personal parameters of 3.1."""
    return {
        "threshold": rng.choice([-1, 1]) * rng.randint(3, 9) / 10,
        "up": rng.randint(15, 30) / 10,
        "down": -rng.randint(3, 9) / 10,
        "shift": rng.randint(5, 20) / 10,
    }


def _upper(x: np.ndarray, p: Params) -> np.ndarray:
    return x * p["up"]


def _lower(x: np.ndarray, p: Params) -> np.ndarray:
    return x * p["down"] + p["shift"]


def _gate(p: Params, decides: Callable[[np.ndarray], np.ndarray] = np.mean, **changed: float) -> Calculation:
    """The gate of the task, or one with a mistake. decides: what is compared with the threshold. changed: other numbers."""
    q = {**p, **changed}
    return lambda feed: np.where(decides(feed["x"]) > q["threshold"], _upper(feed["x"], q), _lower(feed["x"], q))


def _gate_inputs(source: np.random.Generator, p: Params) -> dict[str, list[Feed]]:
    """Inputs float32 [rows, 4] on both sides of the threshold."""

    def around(rows: int, above: float) -> np.ndarray:
        """The mean is the threshold plus `above`; single rows and numbers lie on both sides of it."""
        x = source.normal(0, 2, (rows, 4))
        return x - x.mean() + p["threshold"] + above

    sides = {}
    for side, sign in (("above", 1), ("below", -1)):
        # Every number on the same side, so that the largest and the smallest one are seen apart from the mean.
        all_there = p["threshold"] + sign * (0.2 + np.abs(source.normal(0, 1, (2, 4))))
        # Most numbers, the first row and the last one on the other side.
        most_not = p["threshold"] - sign * (0.2 + np.abs(source.normal(0, 0.5, (3, 4))))
        most_not[1] += 12 * (p["threshold"] + sign * 0.2 - most_not.mean()) / 4
        sides[side] = [around(1, sign * 0.03), around(6, sign * 2.5), around(3, sign * 0.03), all_there, most_not]
    # Between zero and the threshold, so near to zero that the sum lies there, too, and on the other side of zero: neither 0
    # nor the threshold with another sign must pass for it.
    t = p["threshold"]
    sides["below" if t > 0 else "above"] += [around(1, -7 / 8 * t), around(1, -3 / 2 * t)]
    return {
        f"right where the mean is {side} the threshold": [{"x": x.astype(np.float32)} for x in found]
        for side, found in sides.items()
    }


def check_gate(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    """The check of 3.1."""
    criteria = Criteria()
    if not is_sound(model, criteria) or not one_to_one(model, criteria):
        return criteria
    if not any_first(model, 4, "batch", "rows", criteria):
        return criteria
    one_branch = "branch whatever comes: the other one has no effect. Was the if traced?"
    compare(
        model,
        _gate_inputs(numpy_source(rng), p),
        _gate(p),
        {
            f"The file takes the upper {one_branch}": lambda feed: _upper(feed["x"], p),
            f"The file takes the lower {one_branch}": lambda feed: _lower(feed["x"], p),
            "The two branches are exchanged.": lambda feed: np.where(
                feed["x"].mean() > p["threshold"], _lower(feed["x"], p), _upper(feed["x"], p)
            ),
            "The threshold is not in it: the mean is compared with 0.": _gate(p, threshold=0),
            "The threshold has the wrong sign.": _gate(p, threshold=-p["threshold"]),
            "It decides row by row: the mean must be taken over the whole of x.": _gate(p, lambda x: x.mean(1, keepdims=True)),
            "It decides column by column: the mean must be taken over the whole of x.": _gate(p, lambda x: x.mean(0)),
            "It decides number by number: the mean must be taken over the whole of x.": _gate(p, lambda x: x),
            "It compares the sum with the threshold, not the mean.": _gate(p, np.sum),
            "It compares the largest number with the threshold, not the mean.": _gate(p, np.max),
            "It compares the smallest number with the threshold, not the mean.": _gate(p, np.min),
            "It takes the mean of the first row only: it must be taken over the whole of x.": _gate(p, lambda x: x[0].mean()),
            "It compares the first number only: the mean must be taken over the whole of x.": _gate(p, lambda x: x[0, 0]),
            "The shift of the lower branch is missing.": _gate(p, shift=0),
            "The shift is subtracted in place of added.": _gate(p, shift=-p["shift"]),
            "up and down are exchanged.": _gate(p, up=p["down"], down=p["up"]),
            "down has the wrong sign.": _gate(p, down=-p["down"]),
            "The shift is added before down multiplies, not after it.": _gate(p, shift=p["shift"] * p["down"]),
        },
        criteria,
        otherwise=LOOK,
    )  # fmt: skip
    return criteria


# 3.2: a loop of any length


def draw_loop(rng: Random) -> Params:
    """Personal parameters of 3.2."""
    a, b, c = rng.randint(4, 9) / 10, rng.randint(11, 18) / 10, rng.choice([-1, 1]) * rng.randint(2, 6) / 10
    return {"a": a, "b": b, "c": c}


def _states(x: np.ndarray, p: Params, first: float = 0.0) -> list[np.ndarray]:
    """All states h = tanh(a·row + b·h + c), the one before the first row included."""
    states = [np.full(x.shape[1], first)]
    for row in x.astype(np.float64):
        states.append(np.tanh(p["a"] * row + p["b"] * states[-1] + p["c"]))
    return states


def _first(k: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: x[:k]


def _last(
    p: Params, rows: Callable[[np.ndarray], np.ndarray] = lambda x: x, first: float = 0.0, **changed: float
) -> Calculation:
    """The loop of the task, or one with a mistake. rows: those it reads. first: the state before. changed: other numbers."""
    return lambda feed: _states(rows(feed["x"]), {**p, **changed}, first)[-1]


def _c_outside(feed: Feed, p: Params) -> np.ndarray:
    h = np.zeros(feed["x"].shape[1])
    for row in feed["x"].astype(np.float64):
        h = np.tanh(p["a"] * row + p["b"] * h) + p["c"]
    return h


def _b_outside(feed: Feed, p: Params) -> np.ndarray:
    h = np.zeros(feed["x"].shape[1])
    with np.errstate(over="ignore", invalid="ignore"):
        for row in feed["x"].astype(np.float64):
            h = np.tanh(p["a"] * row + p["c"]) + p["b"] * h
    return h


def check_loop(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    """The check of 3.2."""
    criteria, source = Criteria(), numpy_source(rng)
    if not is_sound(model, criteria) or not one_to_one(model, criteria):
        return criteria
    if not any_first(model, 3, "length", "rows", criteria):
        return criteria

    def rows(*lengths: int) -> list[Feed]:
        return [{"x": source.normal(0, 1, (length, 3)).astype(np.float32)} for length in lengths]

    compare(
        model,
        {
            "right with a few rows": rows(1, 2, 7),
            "right with many rows": rows(80 + rng.randrange(80)),  # more than anybody writes out
        },
        _last(p),
        {
            **{
                f"It reads {k} rows, whatever comes: the Python loop ran during the export, and was written "
                f"out.": _last(p, _first(k))
                for k in range(1, 11)
            },
            "c is missing.": _last(p, c=0),
            "c has the wrong sign.": _last(p, c=-p["c"]),
            "c is added outside of the tanh.": lambda feed: _c_outside(feed, p),
            "b * h is added outside of the tanh.": lambda feed: _b_outside(feed, p),
            "a and b are exchanged.": _last(p, a=p["b"], b=p["a"]),
            "a and c are exchanged.": _last(p, a=p["c"], c=p["a"]),
            "b and c are exchanged.": _last(p, b=p["c"], c=p["b"]),
            "a is missing.": _last(p, a=1),
            "b is missing: the state is carried on as it is.": _last(p, b=1),
            "The state is not carried on: each row begins at zero.": _last(p, lambda x: x[-1:]),
            "It reads the rows in reverse order.": _last(p, lambda x: x[::-1]),
            "The state begins with ones, not with zeros.": _last(p, first=1.0),
            "The state begins with the first row, not with zeros.": lambda feed: _from_first_row(feed, p),
            "The first row is left out.": _last(p, lambda x: x[1:]),
            "The last row is left out.": _last(p, lambda x: x[:-1]),
            "It returns all steps: y is the last one only.": lambda feed: np.stack(_states(feed["x"], p)[1:]),
        },
        criteria,
        otherwise=LOOK,
    )
    return criteria


def _from_first_row(feed: Feed, p: Params) -> np.ndarray:
    h = feed["x"][0].astype(np.float64)
    for row in feed["x"][1:]:
        h = np.tanh(p["a"] * row + p["b"] * h + p["c"])
    return h
