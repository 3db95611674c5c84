"""Task 5.5: write a model without the operator that a provider does not take."""

from __future__ import annotations

from random import Random

import numpy as np
import onnx
from onnx import helper

from ...lab.graphs import operator_counts
from ...running import run, session_for
from .. import Criteria, Criterion, Params
from ..activations import AWKWARD, MEANINGS, Meaning, likely_slip
from ..examine import computes, has_io, is_sound, numpy_source
from ..handouts import x_to_y
from .profile_proof import IR, OPSET


def draw_fit(rng: Random) -> Params:
    awkward = rng.choice(sorted(AWKWARD))
    needed = {"MatMul", "Add", *AWKWARD[awkward][1]}
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
