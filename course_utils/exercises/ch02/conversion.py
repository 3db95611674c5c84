"""Task 2.3: a model of opset 11, and the check of its conversion to another opset."""

from __future__ import annotations

from random import Random

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .. import Criteria, Criterion, Params
from ..examine import has_io, is_sound, numpy_source, result
from ..handouts import x_to_y
from ..slips import Calculation, Feed, compare
from .model_heads import imports, nodes_of, weights_differ


def draw_convert(rng: Random) -> Params:
    """Personal parameters of 2.3."""
    return {"target": rng.choice([13, 15, 17, 18, 19, 21]), "seed": rng.getrandbits(32), "width": rng.randint(4, 8)}


def old_model(p: Params) -> onnx.ModelProto:
    """A model in opset 11 of which every node but two has another form, or meaning, from opset 13 or 18 on."""
    weight = np.random.default_rng(p["seed"]).normal(0, 0.7, (4, p["width"])).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["h"], "project"),
        helper.make_node("Softmax", ["h"], ["shares"], "shares", axis=1),
        helper.make_node("ReduceMean", ["h"], ["mean"], "mean", axes=[2], keepdims=0),
        helper.make_node("Unsqueeze", ["mean"], ["column"], "column", axes=[2]),
        helper.make_node("Sub", ["shares", "column"], ["y"], "difference"),
    ]
    return x_to_y("old", nodes, {"weight": weight}, ["batch", 3, 4], ["batch", 3, p["width"]], {"": 11}, ir_version=7)


def check_convert(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    """The check of 2.3."""
    criteria, old = Criteria(), old_model(p)
    stated = imports(model).get("", 0)
    if not criteria.require(
        f"the file says opset {p['target']}", stated == p["target"], f"It says {stated}: your target is {p['target']}."
    ):
        return criteria
    if not criteria.require(
        "the nodes were rewritten for it",
        nodes_of(model) != nodes_of(old),
        "They are still those of opset 11: only the number was changed. Use onnx.version_converter.",
    ):
        return criteria
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    source = numpy_source(rng)
    compare(
        model,
        {
            "it computes what the given model computes": [
                {"x": source.normal(0, 2, (rows, 3, 4)).astype(np.float32)} for rows in (5, 1)
            ]
        },
        lambda feed: result(old, feed),
        _convert_slips(p),
        criteria,
        otherwise=lambda: (
            weights_differ(model, old)
            or "Compare tensor by tensor with the old model: add each one to the outputs, in both."
        ),
    )
    return criteria


def _convert_slips(p: Params) -> dict[str, Calculation]:
    (weight,) = (numpy_helper.to_array(t).astype(np.float64) for t in old_model(p).graph.initializer)

    def with_softmax(axis: int | tuple[int, ...], mean: int | tuple[int, ...] = 2, sign: float = 1.0) -> Calculation:
        def calculate(feed: Feed) -> np.ndarray:
            h = feed["x"] @ weight
            shares = np.exp(h - h.max(axis, keepdims=True))
            shares /= shares.sum(axis, keepdims=True)
            column = h.mean(mean, keepdims=True)
            return sign * (shares - column)

        return calculate

    means = "Softmax means something else from opset 13 on"
    return {
        f"{means}: with axis=1 it sees one axis, and before it saw all from there on as one. It needs Flatten and Reshape "
        f"around it: use the converter.": with_softmax(1),
        f"{means}, and here it sees the last axis alone. Before it saw all from axis 1 on as one: use the "
        f"converter.": with_softmax(2),
        "ReduceMean takes the mean over all axes: its axes are an input from opset 18 on.": with_softmax(
            (1, 2), (0, 1, 2)
        ),
        "ReduceMean takes the mean over axis 1, not over axis 2.": with_softmax((1, 2), 1),
        "The two sides of the difference are exchanged.": with_softmax((1, 2), 2, -1.0),
    }
