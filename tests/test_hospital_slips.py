"""The hospital: models that are healed but for their numbers, and conditions that look at another part of x."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from answers import failed
from onnx import ModelProto
from test_exercise_09 import (
    both_branches,
    by_row,
    merged,
    narrowed,
    node,
    normal,
    numbers_of,
    older_opset,
    put,
    scanned,
    static,
    the,
    uniform,
    with_shapes,
    with_weights,
)


def with_factor(model: ModelProto, name: str, factor: float = 1.5) -> ModelProto:
    return put(model, **{name: (numbers_of(model)[name] * factor).astype(np.float32)})


@pytest.mark.parametrize(
    ("task_id", "make", "cause"),
    [
        ("9.2", lambda: with_factor(older_opset(), "weight"), "only Split and ReduceMean are to be rewritten"),
        ("9.4", lambda: with_factor(with_weights(), "weight2"), "These are other weights"),
        ("9.9", lambda: static(with_factor(narrowed(), "weight"), normal()), "The wide channel is gone"),
        ("9.11", lambda: static(with_factor(the("9.11"), "weight"), uniform()), "Calibrate with inputs like those of use"),
        ("9.12", lambda: with_factor(scanned(), "from_input"), "One step is tanh"),
        ("9.13", lambda: with_factor(with_shapes(), "weight"), "Only value_info is to be added"),
        ("9.14", lambda: with_negative_x(merged()), "x must pass through"),
    ],
)  # fmt: skip
def test_other_numbers_than_the_patients(task_id: str, make: Any, cause: str) -> None:
    assert cause in failed(task_id, make())


def with_negative_x(model: ModelProto) -> ModelProto:
    for n in model.graph.node:
        n.input[:] = ["turned" if name == "x" else name for name in n.input]
    model.graph.node.insert(0, node("Neg", ["x"], ["turned"]))
    return model


def measured_by(who: str, *steps: onnx.NodeProto, **numbers: Any) -> ModelProto:
    """9.6 with other nodes in front of the comparison; the last one writes `m`."""
    model = both_branches(who)
    nodes = [*steps, *(onnx.NodeProto.FromString(n.SerializeToString()) for n in list(model.graph.node)[1:])]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return put(model, **{name: np.array(value) for name, value in numbers.items()})


def median() -> list[onnx.NodeProto]:
    """Of all numbers: the middle one, or the mean of the two in the middle."""
    return [
        node("Reshape", ["x", "flat"], ["row"]),
        node("Shape", ["row"], ["n"]),
        node("TopK", ["row", "n"], ["sorted", "places"], largest=0),
        node("Sub", ["n", "one"], ["last"]),
        node("Div", ["last", "two"], ["lower"]),
        node("Div", ["n", "two"], ["upper"]),
        node("Concat", ["lower", "upper"], ["both"], axis=0),
        node("Gather", ["sorted", "both"], ["middle"]),
        node("ReduceMean", ["middle"], ["m"], keepdims=0),
    ]


def first_row() -> list[onnx.NodeProto]:
    return [node("Gather", ["x", "zero"], ["top"], axis=0), node("ReduceMean", ["top"], ["m"], keepdims=0)]


@pytest.mark.parametrize("who", ["ada", "grace"])
def test_conditions_that_look_at_something_else(who: str) -> None:
    model = measured_by(who, *median(), flat=[-1], one=[1], two=[2])
    assert "The median is compared with the threshold" in failed("9.6", model, who)
    assert "The mean of the first row decides" in failed("9.6", measured_by(who, *first_row(), zero=0), who)
    model = by_row(who)
    model.graph.node[0].CopyFrom(node("Gather", ["x", "first"], ["m"], axis=1))
    assert "The first number of each row decides" in failed("9.6", put(model, first=np.array([0])), who)


def test_one_convolution_alone_stays_in_float() -> None:
    model = static(the("9.11"), uniform())
    assert not [t.name for t in model.graph.initializer if t.data_type == 1 and len(t.dims) == 4]
    for name in ("conv1", "conv3"):
        hints = failed("9.11", static(the("9.11"), uniform(), nodes_to_exclude=[name]))
        assert "in float" in hints
