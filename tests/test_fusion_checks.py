"""The checks of exercises 06 at their borders. What a mistake gives is computed here, from the file that is handed out."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from answers import accepted, criteria, failed, given
from onnx import ModelProto, numpy_helper
from test_exercise_06 import changed, folded, reasons, tidy

Parts = tuple[np.ndarray, np.ndarray]


def stored(model: ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer}


def epsilons(model: ModelProto) -> list[float]:
    return [a.f for n in model.graph.node for a in n.attribute if a.name == "epsilon"]


def on(axis: int, factor: np.ndarray) -> np.ndarray:
    return factor[:, None, None, None] if axis == 0 else factor[None, :, None, None]


FACTORS = {
    "The epsilon is missing": lambda scale, variance, own, other: scale / np.sqrt(variance),
    "The epsilon is that of the other layer": lambda scale, variance, own, other: scale / np.sqrt(variance + other),
    "under the square root": lambda scale, variance, own, other: scale / (np.sqrt(variance) + own),
    "The square root is missing": lambda scale, variance, own, other: scale / (variance + own),
    "It is multiplied by the square root": lambda scale, variance, own, other: scale * np.sqrt(variance + own),
}
BIASES = {
    "one": {
        "": lambda k, b, s, m, f: s + (b - m) * f,
        "The mean has the wrong sign": lambda k, b, s, m, f: s + (b + m) * f,
        "The mean is missing in the new bias": lambda k, b, s, m, f: s + b * f,
        "The shift is missing": lambda k, b, s, m, f: (b - m) * f,
        "The bias that the convolution had is lost": lambda k, b, s, m, f: s - m * f,
        "The old bias must be multiplied": lambda k, b, s, m, f: s + b - m * f,
    },
    "two": {
        "": lambda k, b, s, m, f: (k * on(1, s - m * f)).sum((1, 2, 3)),
        "The mean has the wrong sign": lambda k, b, s, m, f: (k * on(1, s + m * f)).sum((1, 2, 3)),
        "The mean is missing in the new bias": lambda k, b, s, m, f: (k * on(1, s)).sum((1, 2, 3)),
        "The shift is missing": lambda k, b, s, m, f: (k * on(1, -m * f)).sum((1, 2, 3)),
        "Its new bias is missing": lambda k, b, s, m, f: np.zeros(4),
        "What the norm adds goes through the weights": lambda k, b, s, m, f: s - m * f,
        "multiplied with the old weights": lambda k, b, s, m, f: (k * on(1, f) * on(1, s - m * f)).sum((1, 2, 3)),
        "The sum over rows and columns": lambda k, b, s, m, f: (k.mean((2, 3)) * (s - m * f)).sum(1),
    },
}


def one_layer(who: str, layer: str, cause: str) -> ModelProto:
    """The right answer, one layer of it folded anew with this mistake; with none, as it must be."""
    source = given("6.1", who)
    w, (first, second) = stored(source), epsilons(source)
    own, other = (first, second) if layer == "one" else (second, first)
    scale, shift, mean, variance, kernel = (
        w[f"{layer}.{name}"] for name in ("scale", "shift", "mean", "variance", "weight")
    )
    factor = FACTORS.get(cause, lambda scale, variance, own, other: scale / np.sqrt(variance + own))(
        scale, variance, own, other
    )
    axis = (layer == "two") != (cause == "The factor is on the wrong axis")
    bias = BIASES[layer].get(cause, BIASES[layer][""])(kernel, w["one.bias"], shift, mean, factor)
    model = folded(who)
    new = {f"{layer}.weight": kernel * on(int(axis), factor), f"{layer}.bias": bias}
    for tensor in model.graph.initializer:
        if tensor.name in new:
            tensor.CopyFrom(numpy_helper.from_array(new[tensor.name].astype(np.float32), tensor.name))
    return model


@pytest.mark.parametrize("layer", ["one", "two"])
def test_each_layer_folded_here(layer: str) -> None:
    accepted("6.1", one_layer("ada", layer, ""))


@pytest.mark.parametrize(
    ("layer", "cause"),
    [
        (layer, cause)
        for layer in ("one", "two")
        for cause in (*FACTORS, "The factor is on the wrong axis", *BIASES[layer])
        if cause
    ],
)
def test_slips_of_folding(layer: str, cause: str) -> None:
    assert cause in failed("6.1", one_layer("ada", layer, cause))


def with_layer(layer: str, kernel: float | None, bias: float) -> ModelProto:
    """The right answer, with another kernel and bias of a layer. kernel: a factor; None for the one handed out."""
    model = folded("ada")
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.name == f"{layer}.weight":
            values = (
                stored(given("6.1"))[tensor.name].astype(np.float32) if kernel is None else values * np.float32(kernel)
            )
        elif tensor.name == f"{layer}.bias":
            values = values + np.float32(bias)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return model


@pytest.mark.parametrize("layer", ["one", "two"])
@pytest.mark.parametrize(
    ("kernel", "bias", "cause"),
    [
        (None, 0, "The weights are still the old ones"),
        (1, 1, "Its bias is not right"),
        (2, 0, "Its weights are not right"),
        (2, 1, "Its weights are not right"),
    ],
)
def test_which_part_of_a_layer_is_another_one(layer: str, kernel: float | None, bias: float, cause: str) -> None:
    found = criteria("6.1", with_layer(layer, kernel, bias))
    assert next(c.what for c in found if not c.passed) == f"layer {layer} is folded"
    assert cause in failed("6.1", with_layer(layer, kernel, bias))
    other = {"one": "two", "two": "one"}[layer]
    assert next(c for c in found if c.what == f"layer {other} is folded").passed


def test_no_node_may_stand_beside_the_folded_ones() -> None:
    model = folded("ada")
    last = model.graph.node[-1]
    last.output[0] = "before"
    model.graph.node.append(onnx.helper.make_node("Identity", ["before"], ["y"]))
    assert "Fold into the weights of the two Conv" in failed("6.1", model)


# 6.2


def with_nodes(count: int) -> ModelProto:
    """Layers that become three nodes, and behind them others that no rewrite takes away."""
    model = tidy()
    last = model.graph.node[-1]
    last.output[0] = "end0"
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1), "unit"))
    for i in range(count):
        target = "y" if i == count - 1 else f"end{i + 1}"
        model.graph.node.append(onnx.helper.make_node("Max", [f"end{i}", f"end{i}"], [target]))
    return model


def test_three_nodes_and_one_more() -> None:
    accepted("6.2", tidy())
    hints = failed("6.2", with_nodes(1))
    assert hints.startswith("4 are left: ")
    assert "Max with zero is a Relu" in hints


# 6.3


def test_both_keys_and_a_known_reason_for_each() -> None:
    right = reasons("ada")
    for change in ({"reason": "fuses"}, {"where": "y"}, {"reason": "fuses", "where": "", "more": 1}):
        entry: dict[str, Any] = change
        assert "the keys are reason and where" in failed("6.3", right | {"c": entry})
    assert "the keys are reason and where" in failed("6.3", right | {"c": ["fuses", ""]})
    assert "the keys are reason and where" in failed("6.3", right | {"c": right["c"] | {"reason": "Fuses"}})


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("output", "a tensor that would disappear is among the outputs is not so there"),
        ("two readers", "a tensor that would disappear has a second reader is not so there"),
        ("can be fed", "a weight that would be folded is listed among the inputs is not so there"),
        ("order", "the activation stands before the norm is not so there"),
        ("no kernel", "fusedConv does not have this activation is not so there"),
    ],
)
def test_a_reason_that_is_not_so(said: str, cause: str) -> None:
    who, answer = changed("order" if said != "order" else "output", reason=said)
    assert cause in failed("6.3", answer, who)


def test_another_name_of_the_result() -> None:
    model = tidy()
    model.graph.node[-1].output[0] = model.graph.output[0].name = "z"
    assert "the outputs are y (float)" in [c.what for c in criteria("6.2", model) if not c.passed]
