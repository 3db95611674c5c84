"""Task 6.1: fold BatchNorm by hand, behind a convolution and before one.

ONNX Runtime folds the first one only, so its own optimised file is no answer.
"""

from __future__ import annotations

from random import Random

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ...lab.graphs import operator_counts
from .. import Criteria, Criterion, Params
from ..examine import computes, has_io, is_sound, numpy_source, result
from .fusion_models import Weights, conv_node, float32_model, norm_node

_LAYERS = ("one", "two")
_PARTS = ("scale", "shift", "mean", "variance", "weight")


def draw_fold(rng: Random) -> Params:
    # Epsilons so large that forgetting them shows.
    return {"epsilon": [rng.choice([0.05, 0.1, 0.2]), rng.choice([0.3, 0.4, 0.5])], "seed": rng.getrandbits(32)}


def _fold_weights(p: Params) -> Weights:
    draw = np.random.default_rng(p["seed"])
    weights: Weights = {"one.bias": draw.normal(0, 1, 4)}
    for layer in _LAYERS:
        weights |= {
            f"{layer}.weight": draw.normal(0, 0.4, (4, 4, 3, 3)),
            f"{layer}.scale": draw.uniform(0.5, 2, 4),
            f"{layer}.shift": draw.normal(0, 1, 4),
            f"{layer}.mean": draw.normal(0, 1, 4),
            f"{layer}.variance": draw.uniform(0.2, 3, 4),
        }
    return weights


def _second_conv(source: str, weights: list[str]) -> onnx.NodeProto:
    """Without padding: around a folded norm, a border of zeros would be another number."""
    return helper.make_node("Conv", [source, *weights], ["y"], "conv_y", kernel_shape=[3, 3])


def unfolded(p: Params) -> onnx.ModelProto:
    nodes = [
        conv_node("x", ["one.weight", "one.bias"], "a"),
        norm_node("a", "one", "b", p["epsilon"][0]),
        helper.make_node("Relu", ["b"], ["c"], "relu"),
        norm_node("c", "two", "d", p["epsilon"][1]),
        _second_conv("d", ["two.weight"]),
    ]
    return float32_model("unfolded", nodes, _fold_weights(p), [1, 4, 8, 8], [1, 4, 6, 6])


def folded_layer(p: Params, layer: str, mistake: str = "") -> tuple[np.ndarray, np.ndarray]:
    """Weights and bias of one layer; the right ones, or those that a likely mistake gives."""
    weights, epsilon = _fold_weights(p), p["epsilon"][_LAYERS.index(layer)]
    if mistake == "other epsilon":
        epsilon = p["epsilon"][1 - _LAYERS.index(layer)]
    scale, shift, mean, variance, kernel = (weights[f"{layer}.{name}"] for name in _PARTS)
    deviation = np.sqrt(variance + (0 if mistake == "epsilon" else epsilon))
    if mistake == "epsilon behind":
        deviation = np.sqrt(variance) + epsilon
    factor = scale * deviation if mistake == "times" else scale / (deviation**2 if mistake == "root" else deviation)
    outputs = (layer == "one") != (mistake == "axis")
    new = kernel * (factor[:, None, None, None] if outputs else factor[None, :, None, None])
    sign = -1 if mistake == "sign" else 1
    if layer == "one":
        old = weights["one.bias"]
        bias = {
            "mean": shift + old * factor,
            "bias": shift - mean * factor,
            "unscaled": shift + old - mean * factor,
            "shift": (old - mean) * factor,
        }.get(mistake, shift + (old - sign * mean) * factor)
        return new, bias
    into = {"mean": shift, "shift": -mean * factor}.get(mistake, shift - sign * mean * factor)
    bias = {
        "no bias": np.zeros(4),
        "as behind": into,
        "new kernel": (new * into[None, :, None, None]).sum((1, 2, 3)),
        "one tap": (kernel.mean((2, 3)) * into).sum(1),
    }.get(mistake, (kernel * into[None, :, None, None]).sum((1, 2, 3)))
    return new, bias


_CAUSES = {
    "epsilon": "The epsilon is missing: it is an attribute of each BatchNormalization, and added to the variance.",
    "other epsilon": "The epsilon is that of the other layer.",
    "epsilon behind": "The epsilon belongs under the square root.",
    "root": "The square root is missing: the factor is scale / sqrt(variance + epsilon).",
    "times": "It is multiplied by the square root: the factor is scale / sqrt(variance + epsilon).",
    "axis": "The factor is on the wrong axis: the first axis of the weights counts the output channels, the second the inputs.",
    "sign": "The mean has the wrong sign: it is subtracted.",
    "mean": "The mean is missing in the new bias.",
    "shift": "The shift is missing in the new bias.",
}
_CAUSES_ONE = {
    "bias": "The bias that the convolution had is lost.",
    "unscaled": "The old bias must be multiplied with the factor, too.",
}
_CAUSES_TWO = {
    "no bias": "Its new bias is missing: what the norm adds to each input channel goes through the weights.",
    "as behind": "What the norm adds goes through the weights: multiply it with the weights, and sum over all but outputs.",
    "new kernel": "What the norm adds is multiplied with the old weights, not with those that have the factor already.",
    "one tap": "The sum over rows and columns of the weights is missing: add them up, do not take the mean.",
}


def _stored(model: onnx.ModelProto) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights and bias of each convolution, in the order of the nodes, as far as they are stored in the file."""
    values = {t.name: t for t in model.graph.initializer}
    values |= {n.output[0]: n.attribute[0].t for n in model.graph.node if n.op_type == "Constant" and n.attribute}
    found = []
    for node in model.graph.node:
        if node.op_type == "Conv":
            arrays = [numpy_helper.to_array(values[name]) for name in node.input[1:] if name in values]
            if arrays:
                found.append((arrays[0], arrays[1] if len(arrays) > 1 else np.zeros(len(arrays[0]))))
    return found


def _like(got: tuple[np.ndarray, np.ndarray], wanted: tuple[np.ndarray, np.ndarray]) -> bool:
    return all(g.shape == w.shape and np.allclose(g, w, rtol=1e-3, atol=1e-4) for g, w in zip(got, wanted, strict=True))


def _layer_cause(got: tuple[np.ndarray, np.ndarray], p: Params, layer: str) -> str:
    for mistake, sentence in {**_CAUSES, **(_CAUSES_ONE if layer == "one" else _CAUSES_TWO)}.items():
        if _like(got, folded_layer(p, layer, mistake)):
            return sentence
    kernel, bias = folded_layer(p, layer)
    if np.array_equal(got[0], _fold_weights(p)[f"{layer}.weight"].astype(np.float32)):
        return "The weights are still the old ones: each of their channels gets a factor."
    part = "bias is" if _like((got[0], bias), (kernel, bias)) else "weights are"
    return f"Its {part} not right. Compare the tensors of one layer after the other, with NumPy."


def check_fold(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    ops = {op: count for op, count in operator_counts(model).items() if op != "Constant"}
    if not criteria.require(
        "two Conv and one Relu are left",
        ops == {"Conv": 2, "Relu": 1} and not model.functions,
        "There is still a BatchNormalization: take the node out, and let its readers read what it read."
        if "BatchNormalization" in ops
        else f"The graph has {ops}. Fold into the weights of the two Conv that are there.",
    ):
        return criteria
    x = numpy_source(rng).normal(0, 1, (1, 4, 8, 8)).astype(np.float32)
    expected = result(unfolded(p), {"x": x})
    tolerance = 1e-5 * float(np.abs(expected).max())
    tried = Criteria()
    what, hint = (
        "the result is the same to 1e-5",
        "Mend the layers first, if one is wrong. Pads and Relu stay as they were.",
    )
    same = computes(model, {"x": x}, expected, tried, what, hint, atol=tolerance, rtol=0)
    stored = [] if same else _stored(model)
    for index, layer in enumerate(_LAYERS):
        known = len(stored) == 2
        criteria.add(
            f"layer {layer} is folded",
            same or (known and _like(stored[index], folded_layer(p, layer))),
            _layer_cause(stored[index], p, layer) if known else "Its weights are not stored in the file.",
        )
    return Criteria([*criteria, *tried])
