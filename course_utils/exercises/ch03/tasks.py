"""Exercises of lesson 03: living branches and loops, an operator nobody knows, a file that lies, a forgotten eval()."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np
import onnx

from ...lab.graphs import type_text
from .. import Criteria, Criterion, Params, Task
from ..examine import every_node, has_io, is_sound, numpy_source
from ..slips import Calculation, Feed, compare
from .traced_router import check_lies, draw_router, traced_router
from .train_mode import check_eval, draw_train, train_mode

_LOOK = "Feed it inputs that differ in what matters, and compare with PyTorch: cu.parity(model, path, x)."


# 3.1: both branches


def _draw_gate(rng: Random) -> Params:
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


def _check_gate(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not is_sound(model, criteria) or not _one_to_one(model, criteria):
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
        otherwise=_LOOK,
    )  # fmt: skip
    return criteria


# 3.2: a loop of any length


def _draw_loop(rng: Random) -> Params:
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


def _check_loop(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria, source = Criteria(), numpy_source(rng)
    if not is_sound(model, criteria) or not _one_to_one(model, criteria):
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
        otherwise=_LOOK,
    )
    return criteria


def _from_first_row(feed: Feed, p: Params) -> np.ndarray:
    h = feed["x"][0].astype(np.float64)
    for row in feed["x"][1:]:
        h = np.tanh(p["a"] * row + p["b"] * h + p["c"])
    return h


# 3.3: an operator nobody knows


def _draw_hump(rng: Random) -> Params:
    return {
        "width": rng.choice([rng.randint(4, 8), rng.randint(13, 25)]) / 10,
        "height": rng.randint(15, 40) / 10,
        "power": rng.choice([4, 6]),
        "slope": rng.choice([-1, 1]) * rng.randint(3, 9) / 10,
    }


def _hump(p: Params, one: float = 1.0, **changed: float) -> Calculation:
    """The model of the task, or one with a mistake. one: what is added in the denominator. changed: other numbers."""
    q = {**p, **changed}
    return lambda feed: (
        q["height"] / (one + (feed["x"].astype(np.float64) / q["width"]) ** q["power"]) + q["slope"] * feed["x"]
    )


def _check_hump(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    own = {(f.domain, f.name) for f in model.functions}
    used = {(n.domain, n.op_type) for n in every_node(model) if n.domain not in ("", "ai.onnx")}
    foreign = sorted(f"{domain}::{name}" for domain, name in used - own)
    if not criteria.require(
        "every operator is one that runtimes know",
        not foreign,
        f"{', '.join(foreign)} is in the file, and it is no standard operator of ONNX: hand a translation to "
        f"custom_translation_table.",
    ):
        return criteria
    if not is_sound(model, criteria) or not _one_to_one(model, criteria):
        return criteria
    if not any_first(model, 4, "batch", "rows", criteria):
        return criteria
    source = numpy_source(rng)
    width, height, power, slope = p["width"], p["height"], p["power"], p["slope"]
    compare(
        model,
        {
            "it computes what the PyTorch model computes": [
                {"x": source.normal(0, spread, (rows, 4)).astype(np.float32)}
                for spread, rows in ((2, 5), (width, 5), (1, 1))
            ]
        },
        _hump(p),
        {
            "The width is not in it: it computes as if it were 1.": _hump(p, width=1),
            "The height is not in it: it computes as if it were 1.": _hump(p, height=1),
            "It takes the square, not your power.": _hump(p, power=2),
            "The power is not in it.": _hump(p, power=1),
            "It multiplies by the width in place of dividing.": _hump(p, width=1 / width),
            "It divides after the power, not before it.": _hump(p, width=width ** (1 / power)),
            "The 1 in the denominator is missing.": _hump(p, 0.0),
            "The 1 in the denominator is subtracted, not added.": _hump(p, -1.0),
            "It takes height * (1 + …) in place of height / (1 + …).": lambda feed: (
                height * (1 + (feed["x"].astype(np.float64) / width) ** power) + slope * feed["x"]
            ),
            "It takes (1 + …) / height in place of height / (1 + …).": lambda feed: (
                (1 + (feed["x"].astype(np.float64) / width) ** power) / height + slope * feed["x"]
            ),
            "The slope is missing: that is the model around the operator.": _hump(p, slope=0),
            "The slope has the wrong sign.": _hump(p, slope=-slope),
            "The hump has the wrong sign.": _hump(p, height=-height),
            "Width and height are exchanged.": _hump(p, width=height, height=width),
            "Height and slope are exchanged.": _hump(p, height=slope, slope=height),
        },
        criteria,
        otherwise=_LOOK,
    )
    return criteria


# What the tasks share


def _one_to_one(model: onnx.ModelProto, criteria: Criteria) -> bool:
    """Add: one input `x` and one output, both float32. Some mechanisms choose the output's name themselves."""
    name = model.graph.output[0].name if len(model.graph.output) == 1 else "y"
    return has_io(model, {"x": "float"}, {name: "float"}, criteria)


def any_first(model: onnx.ModelProto, width: int, name: str, what: str, criteria: Criteria) -> bool:
    """Add: x is [any number of `what`, width]."""
    (value,) = (v for v in model.graph.input if v.name == "x")
    dims = value.type.tensor_type.shape.dim
    return criteria.require(
        f"x takes any number of {what} of {width}",
        len(dims) == 2 and not dims[0].HasField("dim_value") and dims[1].dim_value == width,
        f"Its shape is {type_text(value)[1]}. The first dimension must be a name such as {name!r}: "
        f"dynamic_shapes=({{0: torch.export.Dim.DYNAMIC}},). The second one is {width}.",
    )


TASKS = (
    Task(
        "3.1",
        "Both branches alive",
        "onnx",
        _check_gate,
        _draw_gate,
        points=2,
        hints=(
            "The Python `if` is decided once, during the export. Which function of torch keeps a decision in the graph?",
            "Call torch.cond with the comparison of x.mean(), two functions for the branches, and (x,) as their argument.",
        ),
    ),
    Task(
        "3.2",
        "A loop of any length",
        "onnx",
        _check_loop,
        _draw_loop,
        points=2,
        hints=(
            "A Python loop over rows runs during the export. Which mechanisms of lesson 03 keep a loop in the graph?",
            "Give scan a step that takes (h, row) and returns the new h twice, the second time as a clone; begin with zeros and take the carried state.",
        ),
    ),
    Task(
        "3.3",
        "An operator that nobody knows",
        "onnx",
        _check_hump,
        _draw_hump,
        points=1,
        hints=(
            "The exporter needs a function that says the same in standard operators. In which order does the formula compute?",
            "Divide by width, raise to your power, add 1, divide height by it; hand the function over under the key torch.ops.scroll.hump.default.",
        ),
    ),
    Task(
        "3.4",
        "Find the lie",
        "json",
        check_lies,
        draw_router,
        lambda p: {"3.4.onnx": traced_router(p)},
        points=3,
        hints=(
            "Read from the nodes which path the file took. For each key, which decisions must come out differently?",
            "Choose x[0] just above or below first. Set another number so that, after the first decision, it is just above or below second; keep the rest low.",
        ),
        hidden=("path",),
    ),
    Task(
        "3.5",
        "Somebody forgot eval()",
        "onnx",
        check_eval,
        draw_train,
        lambda p: {"3.5.onnx": train_mode(p)},
        points=1,
        hints=(
            "Two kinds of operators behave differently in training. Where does each of them say that it is training?",
            "For BatchNormalization remove the attribute training_mode and all outputs but the first; for Dropout remove the input training_mode.",
        ),
    ),
)
