"""Exercises of lesson 03: living branches and loops, an operator nobody knows, a file that lies, a forgotten eval()."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import numpy as np
import onnx
from onnx import helper

from ..errors import CourseError
from ..graphs import op_histogram, type_text
from ..running import run, session_for
from . import Criteria, Criterion, Params, Task
from .examine import computes, has_io, is_sound, numpy_source, wants_keys
from .handouts import x_to_y

OPSET, IR = 18, 10
BOX = 5.0  # the numbers of a counterexample lie between minus and plus this


# 3.1: both branches


def _draw_gate(rng: Random) -> Params:
    return {
        "threshold": rng.choice([-1, 1]) * rng.randint(3, 9) / 10,
        "up": rng.randint(15, 30) / 10,
        "down": -rng.randint(3, 9) / 10,
        "shift": rng.randint(5, 20) / 10,
    }


def _gate(x: np.ndarray, p: Params) -> np.ndarray:
    return _upper(x, p) if x.mean() > p["threshold"] else _lower(x, p)


def _upper(x: np.ndarray, p: Params) -> np.ndarray:
    return x * p["up"]


def _lower(x: np.ndarray, p: Params) -> np.ndarray:
    return x * p["down"] + p["shift"]


def _row_by_row(x: np.ndarray, p: Params) -> np.ndarray:
    return np.where(x.mean(1, keepdims=True) > p["threshold"], _upper(x, p), _lower(x, p))


def _gate_input(source: np.random.Generator, p: Params, rows: int, above: float) -> np.ndarray:
    """float32 [rows, 4] whose mean is the threshold plus `above`; single rows lie on both sides of it."""
    x = source.normal(0, 2, (rows, 4))
    return (x - x.mean() + p["threshold"] + above).astype(np.float32)


def _check_gate(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria, source = Criteria(), numpy_source(rng)
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    if not _any_first(model, 4, "batch", "rows", criteria):
        return criteria
    # Margins on both sides of the threshold, and of zero: a threshold of 0 must not pass by luck.
    above = [_gate_input(source, p, rows, size) for rows, size in ((1, 0.15), (6, 2.5), (3, 0.15))]
    below = [_gate_input(source, p, rows, -size) for rows, size in ((1, 0.15), (6, 2.5), (3, 0.15))]
    # Between zero and the threshold, so near to zero that the sum lies there, too.
    near_zero = _gate_input(source, p, 1, -7 / 8 * p["threshold"])
    (below if p["threshold"] > 0 else above).append(near_zero)
    cause = _first_cause(
        model,
        [*above, *below],
        {
            "The file takes the upper branch whatever comes: the other one is not in it. Was the if traced?": _upper,
            "The file takes the lower branch whatever comes: the other one is not in it. Was the if traced?": _lower,
            "The two branches are exchanged.": lambda x, p: _lower(x, p) if x.mean() > p["threshold"] else _upper(x, p),
            "The threshold is not in it: the mean is compared with 0.": lambda x, p: _gate(x, {**p, "threshold": 0}),
            "It decides row by row: the mean must be taken over the whole of x.": _row_by_row,
            "It compares the sum with the threshold, not the mean.": lambda x, p: (
                _upper(x, p) if x.sum() > p["threshold"] else _lower(x, p)
            ),
            "It takes the mean of the first row only: the mean must be taken over the whole of x.": lambda x, p: (
                _upper(x, p) if x[0].mean() > p["threshold"] else _lower(x, p)
            ),
            "The shift of the lower branch is missing.": lambda x, p: _gate(x, {**p, "shift": 0}),
            "The shift is subtracted in place of added.": lambda x, p: _gate(x, {**p, "shift": -p["shift"]}),
        },
        p,
    )
    for side, inputs in (("above", above), ("below", below)):
        _all_compute(model, inputs, [_gate(x, p) for x in inputs], criteria, f"right where the mean is {side}", cause)
    return criteria


# 3.2: a loop of any length


def _draw_loop(rng: Random) -> Params:
    a, b, c = rng.randint(4, 9) / 10, rng.randint(11, 18) / 10, rng.choice([-1, 1]) * rng.randint(2, 6) / 10
    return {"a": a, "b": b, "c": c}


def _states(x: np.ndarray, p: Params) -> list[np.ndarray]:
    """All states h = tanh(a·row + b·h + c), the one before the first row included: zeros."""
    states = [np.zeros(x.shape[1])]
    for row in x.astype(np.float64):
        states.append(np.tanh(p["a"] * row + p["b"] * states[-1] + p["c"]))
    return states


def _last(x: np.ndarray, p: Params) -> np.ndarray:
    return _states(x, p)[-1]


def _c_outside(x: np.ndarray, p: Params) -> np.ndarray:
    h = np.zeros(x.shape[1])
    for row in x.astype(np.float64):
        h = np.tanh(p["a"] * row + p["b"] * h) + p["c"]
    return h


def _check_loop(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria, source = Criteria(), numpy_source(rng)
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    if not _any_first(model, 3, "length", "rows", criteria):
        return criteria
    counts = op_histogram(model)
    tanh = int(counts.get("Tanh", 0))
    criteria.add(
        "the loop is alive",
        bool(counts.get("Loop", 0) + counts.get("Scan", 0)),
        f"There is no Loop and no Scan in it, but {tanh} times Tanh: the Python loop ran while the exporter looked on, "
        f"and was written out.",
    )
    lengths = [1, 2, 7, 80 + rng.randrange(80)]  # the last one longer than anybody writes out
    inputs = [source.normal(0, 1, (length, 3)).astype(np.float32) for length in lengths]
    frozen: dict[str, Callable[[np.ndarray, Params], np.ndarray]] = {
        f"It reads {k} rows, whatever comes: the loop was written out.": lambda x, p, k=k: _last(x[:k], p)
        for k in range(1, 11)
    }
    cause = _first_cause(
        model,
        inputs[-1:],  # the longest: a file with fewer steps does not stop on it
        {
            **frozen,
            "c is missing.": lambda x, p: _last(x, {**p, "c": 0}),
            "c is added outside of the tanh.": _c_outside,
            "a and b are exchanged.": lambda x, p: _last(x, {**p, "a": p["b"], "b": p["a"]}),
            "The state is not carried on: each row begins at zero.": lambda x, p: _last(x[-1:], p),
            "It reads the rows in reverse order.": lambda x, p: _last(x[::-1], p),
            "The first row is left out.": lambda x, p: _last(x[1:], p),
            "The last row is left out.": lambda x, p: _last(x[:-1], p),
            "It returns all steps: y is the last one only.": lambda x, p: np.stack(_states(x, p)[1:]),
        },
        p,
    )
    for length, x in zip(lengths, inputs, strict=True):
        _all_compute(
            model,
            [x],
            [_last(x, p)],
            criteria,
            f"right with {length} {'row' if length == 1 else 'rows'}",
            cause,
            atol=1e-4,
        )
    return criteria


# 3.3: an operator nobody knows


def _draw_hump(rng: Random) -> Params:
    return {
        "width": rng.choice([rng.randint(4, 8), rng.randint(13, 25)]) / 10,
        "height": rng.randint(15, 40) / 10,
        "power": rng.choice([4, 6]),
        "slope": rng.choice([-1, 1]) * rng.randint(3, 9) / 10,
    }


def _hump(x: np.ndarray, p: Params) -> np.ndarray:
    return p["height"] / (1 + (x.astype(np.float64) / p["width"]) ** p["power"]) + p["slope"] * x


def _check_hump(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    defined = {(f.domain, f.name) for f in model.functions}
    foreign = sorted(
        {f"{n.domain}::{n.op_type}" for n in model.graph.node if n.domain not in ("", "ai.onnx")}
        - {"::".join(pair) for pair in defined}
    )
    if not criteria.add(
        "every operator is one that runtimes know",
        not foreign,
        f"{', '.join(foreign)} is in the file, and it is no standard operator of ONNX: hand a translation to "
        f"custom_translation_table.",
    ):
        return criteria
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    if not _any_first(model, 4, "batch", "rows", criteria):
        return criteria
    source = numpy_source(rng)
    inputs = [source.normal(0, 2, (rows, 4)).astype(np.float32) for rows in (5, 1)]
    cause = _first_cause(
        model,
        inputs,
        {
            "The width is not in it: it computes as if it were 1.": lambda x, p: _hump(x, {**p, "width": 1}),
            "The height is not in it: it computes as if it were 1.": lambda x, p: _hump(x, {**p, "height": 1}),
            "It takes the square, not your power.": lambda x, p: _hump(x, {**p, "power": 2}),
            "It multiplies by the width in place of dividing.": lambda x, p: _hump(x, {**p, "width": 1 / p["width"]}),
            "The 1 in the denominator is missing.": lambda x, p: (
                p["height"] / (x.astype(np.float64) / p["width"]) ** p["power"] + p["slope"] * x
            ),
            "The slope is missing: that is the model around the operator.": lambda x, p: _hump(x, {**p, "slope": 0}),
            "Width and height are exchanged.": lambda x, p: _hump(x, {**p, "width": p["height"], "height": p["width"]}),
        },
        p,
    )
    wanted = [_hump(x, p) for x in inputs]
    _all_compute(model, inputs, wanted, criteria, "it computes what the PyTorch model computes", cause, atol=1e-4)
    return criteria


# 3.4: find the lie


def _draw_router(rng: Random) -> Params:
    return {
        "first": -rng.randint(5, 20) / 10,
        "second": rng.randint(10, 30) / 10,
        "factor": rng.randint(15, 30) / 10,
        "step": rng.randint(6, 20) / 10,
        "path": [rng.random() < 0.5, rng.random() < 0.5],
    }


def route(x: np.ndarray, p: Params) -> tuple[np.ndarray, tuple[bool, bool]]:
    """What the Python program of task 3.4 computes, and which of its two decisions said yes."""
    first = bool(x[0] > p["first"])
    if first:
        x = x * p["factor"]
    second = bool(x.max() > p["second"])
    if second:
        x = x - p["step"]
    return x, (first, second)


def _traced_router(p: Params) -> onnx.ModelProto:
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
    return x_to_y("router", nodes, weights, [4], [4], {"": OPSET}, ir_version=IR)


_WANTED = {"first": (True, False), "second": (False, True), "both": (True, True)}  # which decisions must differ


def _check_lies(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not wants_keys(answer, set(_WANTED), criteria):
        return criteria
    session = session_for(_traced_router(p))
    for key, differ in _WANTED.items():
        value, what = answer[key], f"{key}: the file is wrong here, because of {_named(differ)}"
        if problem := _no_input(value):
            criteria.add(what, False, problem)
            continue
        x = np.array(value, np.float32)
        want, took = route(x, p)
        got = run(session, {"x": x})["y"]
        off = tuple(mine != frozen for mine, frozen in zip(took, p["path"], strict=True))
        if off != differ:
            hint = f"Here {_named(off)} differ{'s' * (sum(off) == 1)} from the path in the file, not {_named(differ)}."
            if not any(off):
                hint = "Here the program takes the very path that is in the file, so the file is right."
            criteria.add(what, False, hint)
        else:
            criteria.add(
                what,
                bool(np.abs(got - want).max() > 0.01),
                "The decisions differ as they should, but the numbers happen to agree: take larger ones.",
            )
    return criteria


def _named(differ: tuple[bool, bool]) -> str:
    return {(True, False): "the first decision", (False, True): "the second decision"}.get(differ, "both decisions")


def _no_input(value: Any) -> str:
    if not isinstance(value, list) or len(value) != 4:
        return "It must be a list of four numbers."
    if any(isinstance(v, bool) or not isinstance(v, int | float) for v in value):
        return "It must be a list of four numbers."
    if not all(-BOX <= v <= BOX for v in value):  # so that not-a-number fails, too
        return f"All numbers must lie between -{BOX:g} and {BOX:g}."
    return ""


# 3.5: somebody forgot eval()


def _draw_train(rng: Random) -> Params:
    return {"seed": rng.getrandbits(32), "ratio": rng.randint(2, 6) / 10}


def _train_weights(p: Params) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(p["seed"])

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return draw.normal(0, scale, shape).astype(np.float32)

    return {
        "hidden.weight": normal(4, 6, scale=0.7),
        "hidden.bias": normal(6, scale=0.5),
        "norm.scale": 1 + normal(6, scale=0.2),
        "norm.shift": normal(6, scale=0.5),
        "norm.mean": 1 + normal(6, scale=0.5),
        "norm.var": np.abs(normal(6)) + np.float32(0.5),
        "head.weight": normal(6, 3, scale=0.7),
        "head.bias": normal(3, scale=0.5),
    }


def _train_mode(p: Params) -> onnx.ModelProto:
    """A model as an export in training mode leaves it: Dropout on, BatchNormalization on the batch's own statistics."""
    weights = _train_weights(p) | {"drop.ratio": np.array(p["ratio"], np.float32), "drop.on": np.array(True)}
    nodes = [
        helper.make_node("Gemm", ["x", "hidden.weight", "hidden.bias"], ["h"], "hidden"),
        helper.make_node(
            "BatchNormalization",
            ["h", "norm.scale", "norm.shift", "norm.mean", "norm.var"],
            ["normed", "new.mean", "new.var"],
            "norm",
            training_mode=1,
        ),
        helper.make_node("Relu", ["normed"], ["active"], "relu"),
        helper.make_node("Dropout", ["active", "drop.ratio", "drop.on"], ["dropped"], "drop"),
        helper.make_node("Gemm", ["dropped", "head.weight", "head.bias"], ["y"], "head"),
    ]
    return x_to_y("forgot_eval", nodes, weights, ["batch", 4], ["batch", 3], {"": OPSET}, ir_version=IR)


def _as_eval(x: np.ndarray, p: Params, *, norm: str = "stored", factor: float = 1.0) -> np.ndarray:
    w = {name: value.astype(np.float64) for name, value in _train_weights(p).items()}
    h = x @ w["hidden.weight"] + w["hidden.bias"]
    if norm != "none":
        mean, var = (w["norm.mean"], w["norm.var"]) if norm == "stored" else (h.mean(0), h.var(0))
        h = (h - mean) / np.sqrt(var + 1e-5) * w["norm.scale"] + w["norm.shift"]
    return np.maximum(h, 0) * factor @ w["head.weight"] + w["head.bias"]


def _check_eval(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    if not _any_first(model, 4, "batch", "rows", criteria):
        return criteria
    x = numpy_source(rng).normal(0, 2, (40, 4)).astype(np.float32)
    try:
        session = session_for(model, optimize=False)  # the optimizer takes a Dropout out, whatever its mode
        first, second = (run(session, {"x": x})["y"] for _ in range(2))
        head = run(session, {"x": x[:3]})["y"]
    except CourseError as error:
        criteria.add("ONNX Runtime runs it", False, str(error))
        return criteria
    same = criteria.add(
        "two runs give the same numbers",
        np.array_equal(first, second),
        "They differ: Dropout is still switched on. Its third input, training_mode, must be false or left out.",
    )
    alone = criteria.add(
        "a row's result does not depend on the other rows",
        not same or (head.shape == first[:3].shape and np.allclose(head, first[:3], atol=1e-4)),
        "It does: BatchNormalization still takes mean and variance from the batch. Its training_mode must be 0.",
    )
    keep = 1 - p["ratio"]
    cause = _first_cause(
        model,
        [x],
        {
            "BatchNormalization is gone. It belongs to the model; only its mode was wrong.": lambda x, p: _as_eval(
                x, p, norm="none"
            ),
            "The values are still scaled by 1 / (1 - ratio), as Dropout does when it is on.": lambda x, p: _as_eval(
                x, p, factor=1 / keep
            ),
            "The values are scaled by 1 - ratio. Dropout scales while it learns, and not afterwards.": lambda x, p: (
                _as_eval(x, p, factor=keep)
            ),
        },
        p,
    )
    if same and alone:
        _all_compute(model, [x], [_as_eval(x, p)], criteria, "these are the numbers of eval mode", cause, atol=1e-3)
    else:
        criteria.add("these are the numbers of eval mode", False, "First heal what is named above.")
    return criteria


# What the tasks share


def _any_first(model: onnx.ModelProto, width: int, name: str, what: str, criteria: Criteria) -> bool:
    """Add: x is [any number of `what`, width]."""
    weights = {t.name for t in model.graph.initializer}
    (value,) = (v for v in model.graph.input if v.name not in weights)
    dims = value.type.tensor_type.shape.dim
    right = len(dims) == 2 and not dims[0].HasField("dim_value") and dims[1].dim_value == width
    return criteria.add(
        f"x takes any number of {what} of {width}",
        right,
        f"Its shape is {type_text(value)[1]}. The first dimension must be a name such as {name!r}: "
        f"dynamic_shapes=({{0: torch.export.Dim.DYNAMIC}},). The second one is {width}.",
    )


def _first_cause(
    model: onnx.ModelProto,
    inputs: list[np.ndarray],
    likely: Mapping[str, Callable[[np.ndarray, Params], np.ndarray]],
    p: Params,
) -> str:
    """The first likely mistake that gives exactly what the model computes, on all inputs."""
    try:
        session = session_for(model)
        got = [next(iter(run(session, {"x": x}).values())) for x in inputs]
    except CourseError:
        return "Feed it yourself, and compare with PyTorch."
    for sentence, wrong in likely.items():
        want = [wrong(x, p) for x in inputs]
        if all(g.shape == w.shape and np.allclose(g, w, atol=1e-4, rtol=1e-3) for g, w in zip(got, want, strict=True)):
            return sentence
    return "Feed it inputs that differ in what matters, and compare with PyTorch: cu.parity(model, path, x)."


def _all_compute(
    model: onnx.ModelProto,
    inputs: list[np.ndarray],
    expected: list[np.ndarray],
    criteria: Criteria,
    what: str,
    hint: str,
    *,
    atol: float = 1e-4,
) -> bool:
    """Add one criterion for several inputs: the first that fails gives the hint."""
    for x, want in zip(inputs, expected, strict=True):
        one = Criteria()
        if not computes(model, {"x": x}, want.astype(np.float32), one, what, hint, atol=atol, rtol=1e-3):
            return criteria.add(what, False, _with_cause(one[0].hint, hint))
    return criteria.add(what, True, "")


def _with_cause(found: str, cause: str) -> str:
    return found if cause in found else f"{found} {cause}"


TASKS = (
    Task("3.1", "Both branches alive", "onnx", _check_gate, _draw_gate),
    Task("3.2", "A loop of any length", "onnx", _check_loop, _draw_loop),
    Task("3.3", "An operator that nobody knows", "onnx", _check_hump, _draw_hump),
    Task("3.4", "Find the lie", "json", _check_lies, _draw_router, lambda p: {"3.4.onnx": _traced_router(p)}),
    Task("3.5", "Somebody forgot eval()", "onnx", _check_eval, _draw_train, lambda p: {"3.5.onnx": _train_mode(p)}),
)
