"""The checks of exercises 03 and 6.5 at their borders: slips that other tests do not make, and one thing wrong at a time."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import onnx
import pytest
from answers import accepted, failed, given, params
from onnx import helper, numpy_helper
from test_exercise_03 import exchanged, healed, hump, lies, loop, node
from test_exercise_06 import attention

import course_utils as cu
from course_utils.exercises.ch03 import traced_router

# 3.1 to 3.3


def begins_with_the_first_row() -> onnx.ModelProto:
    rows = "rows = Slice(x, one, end, zero)  top = Slice(x, zero, one, zero)  head = Squeeze(top, zero)"
    model = loop(params("3.2"), rows=rows)
    model.graph.node[-1].input[0] = "head"
    return model


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (
            lambda p: loop(p, step="ar = Mul(a, row) i = Add(ar, c) t = Tanh(i) bh = Mul(b, h) after = Add(t, bh)"),
            "b * h is added outside of the tanh",
        ),
        (lambda p: loop(exchanged("3.2", "a", "c")), "a and c are exchanged"),
        (lambda p: loop({**p, "a": 1.0}), "a is missing"),
        (lambda p: loop({**p, "b": 1.0}), "b is missing: the state is carried on as it is"),
        (lambda p: begins_with_the_first_row(), "The state begins with the first row, not with zeros"),
    ],
)
def test_slips_of_the_loop(make: Any, cause: str) -> None:
    assert cause in failed("3.2", make(params("3.2")))


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (lambda p: hump({**p, "power": 1}), "The power is not in it"),
        (lambda p: hump({**p, "height": -p["height"]}), "The hump has the wrong sign"),
        (lambda p: hump(exchanged("3.3", "height", "slope")), "Height and slope are exchanged"),
    ],
)
def test_slips_of_the_hump(make: Any, cause: str) -> None:
    assert cause in failed("3.3", make(params("3.3")))


@pytest.mark.parametrize("dims", [("rows", "columns"), ("rows", 4, 1), (5, 4), ("rows", 5), ("rows",)])
def test_shapes_of_x(dims: tuple[int | str, ...]) -> None:
    model = hump(params("3.3"))
    for value, name in ((model.graph.input[0], "x"), (model.graph.output[0], "y")):
        value.CopyFrom(helper.make_tensor_value_info(name, 1, dims))
    assert "The first dimension must be a name such as 'batch'" in failed("3.3", model)


# 3.4


@pytest.mark.parametrize("who", ["ada", "grace", "emmy", "x"])
def test_where_the_decisions_differ_the_file_is_wrong(who: str) -> None:
    p, session = params("3.4", who), cu.running.session_for(given("3.4", who))
    p = p | {"path": [any(n.op_type == op for n in given("3.4", who).graph.node) for op in ("Mul", "Sub")]}
    for values in lies(p).values():
        x = np.array(values, np.float32)
        y = x * p["factor"] if x[0] > p["first"] else x
        y = y - p["step"] if y.max() > p["second"] else y
        assert np.abs(session.run(None, {"x": x})[0] - y).max() > 0.01


@pytest.mark.parametrize(("near", "fine"), [(0.049, True), (0.051, False)])
def test_how_near_to_the_thresholds(near: float, fine: bool) -> None:
    p = traced_router.draw_router(random.Random(5))
    found = traced_router.check_lies(lies(p, near=near), p, random.Random(0))
    assert [c.passed for c in found if not c.condition] == [fine] * 3


def test_the_box_belongs_to_it() -> None:
    for fill, fine in ((-5, True), (-5.01, False)):
        p = traced_router.draw_router(random.Random(5))
        found = traced_router.check_lies(lies(p, fill=fill), p, random.Random(0))
        assert all(c.passed for c in found) is fine


# 3.5


def test_statistics_exchanged() -> None:
    model = healed("ada")
    norm = node(model, "BatchNormalization")
    norm.input[3], norm.input[4] = norm.input[4], norm.input[3]
    for name in ("norm.mean", "norm.var"):  # a negative variance gives no number
        tensor = next(t for t in model.graph.initializer if t.name == name)
        tensor.CopyFrom(numpy_helper.from_array(np.abs(numpy_helper.to_array(tensor)), name))
    hints = failed("3.5", model)
    assert "Mean and variance are exchanged" in hints or "Begin again" in hints


@pytest.mark.parametrize("ending", ["", "training_mode"])
def test_a_dropout_that_is_off(ending: str) -> None:
    """Its third input is empty, or a stored false."""
    model = healed("ada")
    drop = node(model, "Dropout")
    if ending:
        model.graph.initializer.append(numpy_helper.from_array(np.array(False), ending))
        drop.input.extend([ending])
    else:
        drop.input.append("")
    accepted("3.5", model)


# 6.5


def number(model: onnx.ModelProto, name: str, change: Any) -> onnx.ModelProto:
    tensor = next(t for t in model.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), name))
    return model


def behind(model: onnx.ModelProto, name: str, *ops: str) -> onnx.ModelProto:
    """The node of this name, and behind it these operators; what read its output reads the last one's."""
    at = next(i for i, n in enumerate(model.graph.node) if n.name == name)
    end = model.graph.node[at].output[0]
    model.graph.node[at].output[0] = f"{end}_0"
    for i, op in enumerate(ops):
        target = end if i == len(ops) - 1 else f"{end}_{i + 1}"
        model.graph.node.insert(at + 1 + i, helper.make_node(op, [f"{end}_{i}"], [target]))
    return model


def without_softmax() -> onnx.ModelProto:
    model = attention()
    at, old = next((i, n) for i, n in enumerate(model.graph.node) if n.op_type == "Softmax")
    source, target = old.input[0], old.output[0]
    model.graph.node.remove(old)
    model.graph.initializer.append(numpy_helper.from_array(np.array([3]), "last_axis"))
    steps = [
        helper.make_node("Exp", [source], ["powers"]),
        helper.make_node("ReduceSum", ["powers", "last_axis"], ["power_sum"]),
        helper.make_node("Div", ["powers", "power_sum"], [target]),
    ]
    for i, step in enumerate(steps):
        model.graph.node.insert(at + i, step)
    return model


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (lambda: number(attention(), "root", lambda v: v * v), "divided by the root twice, or by its square"),
        (lambda: number(attention(), "root", lambda v: v * 1.5), "no number may change"),
        (
            lambda: behind(attention(), "mask_add", "Neg", "Neg"),
            "Before the Softmax it wants an Add, and there is Neg",
        ),
        (without_softmax, "There is no Softmax"),
    ],
)
def test_slips_of_attention(make: Any, cause: str) -> None:
    assert cause in failed("6.5", make())


def test_the_mask_multiplied() -> None:
    model = attention()
    next(n for n in model.graph.node if n.name == "mask_add").op_type = "Mul"
    assert "The mask is multiplied, and not added" in failed("6.5", model)
