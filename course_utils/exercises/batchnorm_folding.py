"""Task 6.1: fold BatchNorm by hand."""

from __future__ import annotations

from random import Random

import numpy as np
import onnx
from onnx import helper

from ..graphs import op_histogram
from . import Criteria, Criterion, Params
from .examine import computes, has_io, is_sound, numpy_source, result
from .fusion_models import Weights, conv_node, float32_model, norm_node

_LAYERS = ("one", "two")


def draw_fold(rng: Random) -> Params:
    # Epsilons so large that forgetting them shows.
    return {"epsilon": [rng.choice([0.05, 0.1, 0.2]), rng.choice([0.3, 0.4, 0.5])], "seed": rng.getrandbits(32)}


def _fold_weights(p: Params) -> Weights:
    draw = np.random.default_rng(p["seed"])
    weights: Weights = {}
    for layer in _LAYERS:
        weights |= {
            f"{layer}.kernel": draw.normal(0, 0.4, (4, 4, 3, 3)),
            f"{layer}.bias": draw.normal(0, 1, 4),
            f"{layer}.scale": draw.uniform(0.5, 2, 4),
            f"{layer}.shift": draw.normal(0, 1, 4),
            f"{layer}.mean": draw.normal(0, 1, 4),
            f"{layer}.variance": draw.uniform(0.2, 3, 4),
        }
    return weights


def unfolded(p: Params) -> onnx.ModelProto:
    weights = _fold_weights(p)
    del weights["two.bias"]  # so that both cases occur
    nodes = [
        conv_node("x", ["one.kernel", "one.bias"], "a"),
        norm_node("a", "one", "b", p["epsilon"][0]),
        helper.make_node("Relu", ["b"], ["c"], "relu"),
        conv_node("c", ["two.kernel"], "d"),
        norm_node("d", "two", "y", p["epsilon"][1]),
    ]
    return float32_model("unfolded", nodes, weights, [1, 4, 8, 8], [1, 4, 8, 8])


def _folded(p: Params, mistake: str = "") -> onnx.ModelProto:
    """The right answer, or the one that a likely mistake gives."""
    old, new = _fold_weights(p), {}
    old["two.bias"] = np.zeros(4)
    for layer, epsilon in zip(_LAYERS, p["epsilon"], strict=True):
        scale, shift, mean, variance, kernel, bias = (
            old[f"{layer}.{name}"] for name in ("scale", "shift", "mean", "variance", "kernel", "bias")
        )
        deviation = np.sqrt(variance + (0 if mistake == "epsilon" else epsilon))
        factor = scale / (variance + epsilon if mistake == "root" else deviation)
        axis = (None, slice(None), None, None) if mistake == "axis" else (slice(None), None, None, None)
        new[f"{layer}.kernel"] = kernel * factor[axis]
        new[f"{layer}.bias"] = {
            "mean": shift + bias * factor,
            "bias": shift - mean * factor,
            "unscaled": shift + bias - mean * factor,
            "shift": (bias - mean) * factor,
        }.get(mistake, shift + (bias - mean) * factor)
    nodes = [
        conv_node("x", ["one.kernel", "one.bias"], "b"),
        helper.make_node("Relu", ["b"], ["c"], "relu"),
        conv_node("c", ["two.kernel", "two.bias"], "y"),
    ]
    return float32_model("folded", nodes, new, [1, 4, 8, 8], [1, 4, 8, 8])


_FOLD_CAUSES = {
    "epsilon": "The epsilon is missing: it is an attribute of each BatchNormalization, and added to the variance.",
    "root": "The square root is missing: the factor is scale / sqrt(variance + epsilon).",
    "axis": "The factor is on the wrong axis: the first axis of a kernel counts the output channels.",
    "mean": "The mean is missing in the new bias.",
    "bias": "The bias that the first convolution had is lost.",
    "unscaled": "The old bias must be multiplied with the factor, too.",
    "shift": "The shift is missing in the new bias.",
}


def check_fold(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria, given = Criteria(), unfolded(p)
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    ops = op_histogram(model).to_dict()
    criteria.add(
        "two Conv and one Relu are left",
        ops == {"Conv": 2, "Relu": 1} and not model.functions,
        "There is still a BatchNormalization: take the node out, and let its readers read the Conv."
        if "BatchNormalization" in ops
        else f"The graph has {ops}. Fold into the weights of the two Conv that are there.",
    )
    kernels = [node.input[1] for node in model.graph.node if node.op_type == "Conv" and len(node.input) > 1]
    criteria.add(
        "the kernels have the names they had",
        kernels == ["one.kernel", "two.kernel"],
        "These are names that ONNX Runtime gives. Do it yourself, with NumPy."
        if any("Fusion" in name for name in kernels)
        else f"They are {', '.join(kernels) or 'none'}: change the values of one.kernel and two.kernel.",
    )
    x = numpy_source(rng).normal(0, 1, (1, 4, 8, 8)).astype(np.float32)
    expected = result(given, {"x": x})
    tolerance = 1e-5 * float(np.abs(expected).max())
    hint = _fold_cause(model, x, p)
    computes(model, {"x": x}, expected, criteria, "the result is the same to 1e-5", hint, atol=tolerance, rtol=0)
    return criteria


def _fold_cause(model: onnx.ModelProto, x: np.ndarray, p: Params) -> str:
    for mistake, sentence in _FOLD_CAUSES.items():
        wrong = result(_folded(p, mistake), {"x": x})
        if computes(model, {"x": x}, wrong, Criteria(), "", "", atol=1e-4):
            return sentence
    return "Compare the tensors of one layer after the other, with NumPy."
