"""Task 5.5: write a model without the operator that a provider does not take."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import numpy as np
import onnx
from onnx import helper

from ..graphs import op_histogram
from . import Criteria, Criterion, Params
from .examine import computes, has_io, is_sound, numpy_source
from .handouts import x_to_y
from .session_options import IR, OPSET


def _softplus(v: np.ndarray) -> np.ndarray:
    return np.logaddexp(v, 0)


_erf = np.vectorize(math.erf, otypes=[np.float64])
# Operator → its meaning, the operators that are enough to say it, and wrong ways to say it with the cause of each.
_AWKWARD: dict[str, tuple[Callable, list[str], dict[str, Callable]]] = {
    "Softsign": (
        lambda v: v / (1 + np.abs(v)),
        ["Abs", "Add", "Div"],
        {"The absolute value is missing: it is x / (1 + x).": lambda v: v / (1 + v)},
    ),
    "HardSwish": (
        lambda v: v * np.clip(v / 6 + 0.5, 0, 1),
        ["Add", "Mul", "Max", "Min"],
        {
            "The bounds 0 and 1 are missing.": lambda v: v * (v / 6 + 0.5),
            "Only the lower bound is there, 1 is missing.": lambda v: v * np.maximum(v / 6 + 0.5, 0),
            "That is HardSigmoid: the factor x is missing.": lambda v: np.clip(v / 6 + 0.5, 0, 1),
        },
    ),
    "Mish": (
        lambda v: v * np.tanh(_softplus(v)),
        ["Exp", "Log", "Add", "Tanh", "Mul"],
        {
            "The factor x is missing.": lambda v: np.tanh(_softplus(v)),
            "The tanh is missing.": lambda v: v * _softplus(v),
            "That is x · sigmoid(x), another function.": lambda v: v / (1 + np.exp(-v)),
        },
    ),
    "Gelu": (
        lambda v: 0.5 * v * (1 + _erf(v / np.sqrt(2))),
        ["Erf", "Add", "Mul"],
        {
            "The factor 0.5 is missing.": lambda v: v * (1 + _erf(v / np.sqrt(2))),
            "The division by the square root of 2 is missing.": lambda v: 0.5 * v * (1 + _erf(v)),
            "The 1 is missing before the product with x.": lambda v: 0.5 * v * _erf(v / np.sqrt(2)),
        },
    ),
    "Celu": (
        lambda v: np.maximum(v, 0) + np.minimum(np.expm1(v), 0),
        ["Exp", "Sub", "Add", "Max", "Min"],
        {
            "The positive part is missing.": lambda v: np.minimum(np.expm1(v), 0),
            "That is Relu: the negative part is missing.": lambda v: np.maximum(v, 0),
        },
    ),
}


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


def _expected(p: Params, x: np.ndarray, function: Callable) -> np.ndarray:
    w = {name: value.astype(np.float64) for name, value in _weights_of(p).items()}
    return function(function(x @ w["w1"] + w["b1"]) @ w["w2"]).astype(np.float32)


def check_fit(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    if not criteria.add(
        "the model has no functions",
        not model.functions,
        "A function hides its nodes, it does not change them: write the nodes into the graph.",
    ):
        return criteria  # a provider sees the nodes inside, and ONNX Runtime can die of a function with a bad name
    used = set(op_histogram(model).index) | {f"{n.domain}.{n.op_type}" for n in model.graph.node if n.domain}
    left = sorted(used - set(p["takes"]))
    still = [n.name or n.output[0] for n in model.graph.node if n.op_type == p["awkward"]]
    criteria.add(
        "the provider takes every node",
        not left,
        f"{p['awkward']} is still there: {', '.join(still)}."
        if still
        else f"The provider does not take {', '.join(left)}. Constants are best stored as initializers."
        if "Constant" in left
        else f"The provider does not take {', '.join(left)}: it takes {', '.join(p['takes'])}.",
    )
    function, _, wrongs = _AWKWARD[p["awkward"]]
    x = numpy_source(rng).normal(0, 1.5, (16, 5)).astype(np.float32)
    cause = "Compare each new piece with the old node, on the same input, before you put it in."
    for sentence, wrong in wrongs.items():
        with np.errstate(all="ignore"):
            guess = _expected(p, x, wrong)
        if np.isfinite(guess).all() and computes(model, {"x": x}, guess, Criteria(), "", "", atol=1e-4):
            cause = sentence
    computes(model, {"x": x}, _expected(p, x, function), criteria, "it computes what it computed", cause, atol=1e-4)
    return criteria
