"""Task 5.5: write a model without the operator that a provider does not take."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import numpy as np
import onnx
from onnx import helper

from ..graphs import operator_counts
from ..running import run, session_for
from . import Criteria, Criterion, Params
from .examine import computes, has_io, is_sound, numpy_source
from .handouts import x_to_y
from .profile_proof import IR, OPSET


def _softplus(v: np.ndarray) -> np.ndarray:
    return np.logaddexp(v, 0)


_erf = np.vectorize(math.erf, otypes=[np.float64])
Meaning = Callable[[np.ndarray], np.ndarray]
# Operator → its meaning, the operators that are enough to say it, and wrong ways to say it with the cause of each.
_AWKWARD: dict[str, tuple[Meaning, list[str], dict[str, Meaning]]] = {
    "Softsign": (
        lambda v: v / (1 + np.abs(v)),
        ["Abs", "Add", "Div"],
        {
            "The absolute value is missing: it is x / (1 + x).": lambda v: v / (1 + v),
            "The 1 is missing: it is x / |x|.": lambda v: v / np.abs(v),
            "The numerator has no absolute value: it is |x| / (1 + |x|).": lambda v: np.abs(v) / (1 + np.abs(v)),
            "It is upside down: x is divided by the sum.": lambda v: (1 + np.abs(v)) / v,
            "It is a product: x is divided by the sum.": lambda v: v * (1 + np.abs(v)),
            "The sign is wrong: it is x / (1 - |x|).": lambda v: v / (1 - np.abs(v)),
            "It is 1 / (1 + |x|): x is the numerator.": lambda v: 1 / (1 + np.abs(v)),
        },
    ),
    "HardSwish": (
        lambda v: v * np.clip(v / 6 + 0.5, 0, 1),
        ["Add", "Mul", "Max", "Min"],
        {
            "The bounds 0 and 1 are missing.": lambda v: v * (v / 6 + 0.5),
            "Only the lower bound is there, 1 is missing.": lambda v: v * np.maximum(v / 6 + 0.5, 0),
            "Only the upper bound is there, 0 is missing.": lambda v: v * np.minimum(v / 6 + 0.5, 1),
            "That is HardSigmoid: the factor x is missing.": lambda v: np.clip(v / 6 + 0.5, 0, 1),
            "The numbers are exchanged: it is x/6 + 1/2, and not x/2 + 1/6.": lambda v: (
                v * np.clip(v / 2 + 1 / 6, 0, 1)
            ),
            "The bounds belong around x/6 + 1/2, before x is multiplied.": lambda v: np.clip(v * (v / 6 + 0.5), 0, 1),
            "Min and Max are exchanged: the smaller one of 1, then the larger one of 0.": lambda v: (
                v * np.minimum(np.maximum(v / 6 + 0.5, 1), 0)
            ),
            "The sum 1/2 is missing.": lambda v: v * np.clip(v / 6, 0, 1),
        },
    ),
    "Mish": (
        lambda v: v * np.tanh(_softplus(v)),
        ["Exp", "Log", "Add", "Tanh", "Mul"],
        {
            "The factor x is missing.": lambda v: np.tanh(_softplus(v)),
            "The tanh is missing.": lambda v: v * _softplus(v),
            "The 1 is missing in log(1 + e^x).": lambda v: v * np.tanh(v),
            "The log is missing.": lambda v: v * np.tanh(1 + np.exp(v)),
            "Log and tanh are in the wrong order.": lambda v: v * np.log(np.tanh(1 + np.exp(v))),
            "That is x · sigmoid(x), another function.": lambda v: v / (1 + np.exp(-v)),
            "The sign in e^x is wrong.": lambda v: v * np.tanh(_softplus(-v)),
        },
    ),
    "Gelu": (
        lambda v: 0.5 * v * (1 + _erf(v / np.sqrt(2))),
        ["Erf", "Add", "Mul"],
        {
            "The factor 0.5 is missing.": lambda v: v * (1 + _erf(v / np.sqrt(2))),
            "The division by the square root of 2 is missing.": lambda v: 0.5 * v * (1 + _erf(v)),
            "x is multiplied by the square root of 2: divide by it.": lambda v: 0.5 * v * (1 + _erf(v * np.sqrt(2))),
            "It is divided by 2 inside of erf: divide by its square root.": lambda v: 0.5 * v * (1 + _erf(v / 2)),
            "The 1 is missing before the product with x.": lambda v: 0.5 * v * _erf(v / np.sqrt(2)),
            "The factor x is missing.": lambda v: 0.5 * (1 + _erf(v / np.sqrt(2))),
            "The numbers are exchanged: 1/2 outside of erf, 1 beside it.": lambda v: v * (0.5 + _erf(v / np.sqrt(2))),
            "The sign of erf is wrong.": lambda v: 0.5 * v * (1 - _erf(v / np.sqrt(2))),
        },
    ),
    "Celu": (
        lambda v: np.maximum(v, 0) + np.minimum(np.expm1(v), 0),
        ["Exp", "Sub", "Add", "Max", "Min"],
        {
            "The positive part is missing.": lambda v: np.minimum(np.expm1(v), 0),
            "That is Relu: the negative part is missing.": lambda v: np.maximum(v, 0),
            "Min and Max are exchanged.": lambda v: np.minimum(v, 0) + np.maximum(np.expm1(v), 0),
            "The parts are subtracted: add them.": lambda v: np.maximum(v, 0) - np.minimum(np.expm1(v), 0),
            "It is 1 - e^x: subtract 1 from e^x.": lambda v: np.maximum(v, 0) + np.minimum(-np.expm1(v), 0),
            "Max is missing: x itself is added.": lambda v: v + np.minimum(np.expm1(v), 0),
        },
    ),
}


MEANINGS: dict[str, Meaning] = {operator: entry[0] for operator, entry in _AWKWARD.items()}


def draw_fit(rng: Random) -> Params:
    awkward = rng.choice(sorted(_AWKWARD))
    needed = {"MatMul", "Add", *_AWKWARD[awkward][1]}
    more = rng.sample(sorted({"Relu", "Sqrt", "Concat", "Reshape", "Neg", "Sub"} - needed), 2)
    return {"awkward": awkward, "takes": sorted(needed | set(more)), "seed": rng.randrange(10**6)}


def _weights_of(p: Params) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(p["seed"])
    shapes = {"w1": (5, 6), "b1": (6,), "w2": (6, 4)}
    return {name: draw.normal(0, 0.7, shape).astype(np.float32) for name, shape in shapes.items()}


def unfit(p: Params) -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["p1"], "multiply_1"),
        helper.make_node("Add", ["p1", "b1"], ["s1"], "add_1"),
        helper.make_node(p["awkward"], ["s1"], ["a1"], "activate_1"),
        helper.make_node("MatMul", ["a1", "w2"], ["p2"], "multiply_2"),
        helper.make_node(p["awkward"], ["p2"], ["y"], "activate_2"),
    ]
    return x_to_y("unfit", nodes, _weights_of(p), ["batch", 5], ["batch", 4], {"": OPSET}, ir_version=IR)


def _expected(p: Params, x: np.ndarray, first: Meaning, second: Meaning) -> np.ndarray:
    w = {name: value.astype(np.float64) for name, value in _weights_of(p).items()}
    with np.errstate(all="ignore"):
        return second(first(x @ w["w1"] + w["b1"]) @ w["w2"]).astype(np.float32)


def check_fit(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    if not criteria.require(
        "the model has no functions",
        not model.functions,
        "A function hides its nodes, it does not change them: write the nodes into the graph.",
    ):
        return criteria  # a provider sees the nodes inside, and ONNX Runtime can die of a function with a bad name
    x, right = numpy_source(rng).normal(0, 1.5, (16, 5)).astype(np.float32), MEANINGS[p["awkward"]]
    what, expected = "it computes what it computed", _expected(p, x, right, right)
    if not computes(
        model, {"x": x}, expected, criteria, what, lambda: _fit_cause(model, x, p), atol=1e-4, condition=True
    ):
        return criteria
    used = {op.removeprefix("ai.onnx::") for op in operator_counts(model)}
    still = [n.name or n.output[0] for n in model.graph.node if n.op_type == p["awkward"]]
    hint = f"{p['awkward']} is still there: {', '.join(still)}."
    if not criteria.add(f"at most one {p['awkward']} is left", len(still) < 2, hint):
        return criteria
    if not criteria.add(f"no {p['awkward']} is left", p["awkward"] not in used, hint):
        return criteria
    left = sorted(used - set(p["takes"]))
    criteria.add(
        "the provider takes every node",
        not left,
        f"The provider does not take {', '.join(left)}. Constants are best stored as initializers."
        if "Constant" in left
        else f"The provider does not take {', '.join(left)}: it takes {', '.join(p['takes'])}.",
    )
    return criteria


def _fit_cause(model: onnx.ModelProto, x: np.ndarray, p: Params) -> str:
    got = run(session_for(model), {"x": x})["y"]
    return likely_slip(p["awkward"], got, lambda first, second: _expected(p, x, first, second))


def likely_slip(operator: str, got: np.ndarray, expected: Callable[[Meaning, Meaning], np.ndarray]) -> str:
    """The slip in one or both replacements of an operator that gives these numbers, or what to do where none does.

    expected: what a network computes with these functions in its two places.
    """
    right, wrongs = MEANINGS[operator], _AWKWARD[operator][2]
    like: dict[str, float] = {}  # a part of the numbers may lie near a pole
    for sentence, wrong in wrongs.items():
        for where, functions in {
            "": (wrong, wrong),
            "In the first of both: ": (wrong, right),
            "In the second of both: ": (right, wrong),
        }.items():
            same = np.isclose(got, expected(*functions), atol=1e-4, rtol=1e-3, equal_nan=True)
            like[where + sentence] = float(same.mean())
    best = max(like, key=like.get)  # type: ignore[arg-type]
    return best if like[best] > 0.9 else "Compare each new piece with the old node, on the same input."
