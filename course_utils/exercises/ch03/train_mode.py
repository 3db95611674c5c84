"""Task 3.5: a model that was exported in training mode, and the check of its cure."""

from __future__ import annotations

from random import Random

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .. import Criteria, Criterion, Params
from ..examine import every_node, has_io, is_sound, numpy_source
from ..handouts import x_to_y
from ..slips import Calculation, Feed, compare, outcomes


def draw_train(rng: Random) -> Params:
    """Personal parameters."""
    return {"seed": rng.getrandbits(32), "ratio": rng.randint(2, 6) / 10}


def _weights(p: Params) -> dict[str, np.ndarray]:
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


def train_mode(p: Params) -> onnx.ModelProto:
    """A model as an export in training mode leaves it: Dropout on, BatchNormalization on the batch's own statistics."""
    weights = _weights(p) | {"drop.ratio": np.array(p["ratio"], np.float32), "drop.on": np.array(True)}
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
    return x_to_y("forgot_eval", nodes, weights, ["batch", 4], ["batch", 3], {"": 18}, ir_version=10)


def _as_eval(p: Params, *, norm: str = "norm", factor: float = 1.0, **taken_for: str) -> Calculation:
    """The model in eval mode, or with a mistake.

    norm: "norm", "batch" (on the batch's statistics) or "none". factor: of the active values. taken_for: a weight of norm
    → the one that is read in its place.
    """
    w = {name: value.astype(np.float64) for name, value in _weights(p).items()}
    scale, shift, mean, var = (w[f"norm.{taken_for.get(n, n)}"] for n in ("scale", "shift", "mean", "var"))

    def calculate(feed: Feed) -> np.ndarray:
        h = feed["x"] @ w["hidden.weight"] + w["hidden.bias"]
        m, v = (h.mean(0), h.var(0)) if norm == "batch" else (mean, var)
        h = h if norm == "none" else (h - m) / np.sqrt(np.abs(v) + 1e-5) * scale + shift
        return np.maximum(h, 0) * factor @ w["head.weight"] + w["head.bias"]

    return calculate


def check_eval(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    """The check of the task."""
    criteria = Criteria()
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    criteria.require("no node is in training mode", not (learning := _learning(model)), " ".join(learning))
    source, keep = numpy_source(rng), 1 - p["ratio"]
    feeds = [{"x": source.normal(0, 2, (rows, 4)).astype(np.float32)} for rows in (40, 3, 1)]
    compare(
        model,
        {"these are the numbers of eval mode": feeds},
        _as_eval(p),
        {
            "BatchNormalization takes mean and variance from the batch, not the stored ones.": _as_eval(
                p, norm="batch"
            ),
            "BatchNormalization is gone. It belongs to the model; only its mode was wrong.": _as_eval(p, norm="none"),
            "The values are scaled by 1 / (1 - ratio), as Dropout does when it is on.": _as_eval(p, factor=1 / keep),
            "The values are scaled by 1 - ratio. Dropout scales while it learns, and not afterwards.": _as_eval(
                p, factor=keep
            ),
            "Mean and variance are exchanged.": _as_eval(p, mean="var", var="mean"),
            "Scale and shift are exchanged.": _as_eval(p, scale="shift", shift="scale"),
        },
        criteria,
        otherwise=lambda: (
            "Two runs give different numbers: something in it draws at random."
            if _random(model, feeds[0])
            else "Begin again with the given file, and change nothing but the mode of the two nodes."
        ),
        atol=1e-3,
    )
    return criteria


def _learning(model: onnx.ModelProto) -> list[str]:
    """A sentence for each node that is in training mode."""
    flags = {t.name: t for t in model.graph.initializer}
    flags |= {o: a.t for n in every_node(model) if n.op_type == "Constant" for o in n.output for a in n.attribute}
    false = {
        name for name, t in flags.items() if t.data_type == onnx.TensorProto.BOOL and not numpy_helper.to_array(t).any()
    }
    found = []
    for node in every_node(model):
        if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2] and node.input[2] not in false:
            found.append("Dropout is still switched on: its third input, training_mode, must be false or left out.")
        if node.op_type == "BatchNormalization" and any(a.name == "training_mode" and a.i for a in node.attribute):
            found.append("BatchNormalization still learns: its training_mode must be 0.")
    return found


def _random(model: onnx.ModelProto, feed: Feed) -> bool:
    (first,), (second,) = outcomes(model, [feed]), outcomes(model, [feed])
    if first.got is None or second.got is None:
        return False
    return not np.array_equal(first.got, second.got, equal_nan=True)
