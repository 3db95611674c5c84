"""The checks of 9.12, 9.13 and 9.15 at their borders: one thing wrong in an otherwise healed model, and the cause that is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from answers import accepted, failed, params
from onnx import ModelProto, TensorProto, helper
from test_exercise_09 import (
    accepting,
    node,
    put,
    scanned,
    shape_of,
    shapes_of_a_run,
    the,
    with_shapes,
)


def in_front(model: ModelProto, *nodes: onnx.NodeProto) -> ModelProto:
    for n in reversed(nodes):
        model.graph.node.insert(0, n)
    return model


def reads_instead(model: ModelProto, old: str, new: str) -> ModelProto:
    for n in model.graph.node:
        n.input[:] = [new if name == old else name for name in n.input]
    return model


# 9.12


def part_of_x(who: str, start: int, end: int) -> ModelProto:
    """The loop reads some rows only."""
    model = put(reads_instead(scanned(who), "x", "rows"), begin=np.array([start]), end=np.array([end]))
    return in_front(model, node("Slice", ["x", "begin", "end"], ["rows"]))


@pytest.mark.parametrize("who", ["ada", "grace"])
def test_loops_over_some_of_the_rows(who: str) -> None:
    assert "The first row is left out" in failed("9.12", part_of_x(who, 1, 99), who)
    assert "The last step is missing" in failed("9.12", part_of_x(who, 0, -1), who)
    assert "the state after the first step" in failed("9.12", part_of_x(who, 0, 1), who)
    assert "stops after as many steps" in failed("9.12", part_of_x(who, 0, params("9.12", who)["steps"]), who)


def test_a_loop_without_tanh() -> None:
    model = scanned()
    body = next(a.g for n in model.graph.node for a in n.attribute if a.name == "body")
    body.node[-1].op_type = "Identity"
    assert "The tanh is missing" in failed("9.12", model)


def test_twenty_nodes_are_no_unrolled_loop() -> None:
    model = reads_instead(scanned(), "x", "i14")
    in_front(model, *(node("Identity", [f"i{n - 1}" if n else "x"], [f"i{n}"]) for n in range(15)))
    accepted("9.12", model)  # with the Scan and its four nodes
    reads_instead(model, "i14", "i15").graph.node.insert(15, node("Identity", ["i14"], ["i15"]))
    assert "There are 21 nodes" in failed("9.12", model)


# 9.13


def test_nodes_that_hide_are_counted() -> None:
    """Four in a function: a Constant, an If, and a node in each of its branches."""
    model = with_shapes("ada")
    branch = "b{} () => (float[N] t{}) {{ t{} = Relu(a) }}"
    text = f"""<ir_version: 10, opset_import: ["": 17, "own": 1]> g (float[N] x) => (float[N] y) {{ y = own.f(x) }}
        <domain: "own", opset_import: ["": 17]> f (a) => (t) {{ c = Constant<value = bool {{1}}>()
        t = If (c) <then_branch = {branch.format(1, 1, 1)}, else_branch = {branch.format(2, 2, 2)}> }}"""
    model.functions.extend(onnx.parser.parse_model(text).functions)
    assert "4 nodes stand in functions or subgraphs" in failed("9.13", model)


def test_a_tensor_is_named_once() -> None:
    model = shapes_of_a_run("ada")
    value = next(v for v in model.graph.value_info if v.name == "g")
    value.type.tensor_type.shape.dim[1].dim_value += 1
    assert "Not so for g. " in failed("9.13", model)


def test_one_tensor_without_a_shape() -> None:
    model = shapes_of_a_run("ada")
    value = next(v for v in model.graph.value_info if v.name == "t")
    value.type.tensor_type.ClearField("shape")
    assert "Unknown: t." in failed("9.13", model)
    model.graph.value_info.remove(value)
    assert "Unknown: t." in failed("9.13", model)


def test_no_tensor_between_the_nodes() -> None:
    model = the("9.13")
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.append(node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0))
    assert "Unknown: all" in failed("9.13", model)


def test_a_tensor_inside_that_is_an_output_too() -> None:
    model = shapes_of_a_run("ada")
    model.graph.output.append(next(v for v in model.graph.value_info if v.name == "m"))
    assert "They are y (float), m (float)" in failed("9.13", model)


def test_frozen_or_only_another_shape() -> None:
    model = shapes_of_a_run("ada")
    value = next(v for v in model.graph.value_info if v.name == "m")
    shape_of(value, 1)
    assert "The number of rows is frozen there" in failed("9.13", model)
    shape_of(value, "rows")
    assert "the first dimension must have the name that the input gives it" in failed("9.13", model)


def test_a_wrong_list_of_sizes_is_no_frozen_batch() -> None:
    """target holds the three sizes that Reshape reads: a list, and no row of a batch."""
    model = shapes_of_a_run("ada")
    shape_of(next(v for v in model.graph.value_info if v.name == "target"), 4)
    hints = failed("9.13", model)
    assert "Not so for target. Sizes must be numbers" in hints
    assert "frozen" not in hints


# 9.15


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda shape: [5, *shape[1:]], "any number of pictures"),
        (lambda shape: ["batch", 3, *shape[1:3]], "colours last"),
        (lambda shape: [*shape[:2], shape[2] + 1, 3], "colours last"),
        (lambda shape: [*shape[:3], 1], "colours last"),
        (lambda shape: [*shape, 1], "colours last"),
        (lambda shape: shape[:3], "colours last"),
    ],
)
def test_shapes_that_the_caller_does_not_send(change: Any, cause: str) -> None:
    model, p = accepting(), params("9.15")
    value = helper.make_tensor_value_info(p["sends"], TensorProto.UINT8, change(p["shape"]))
    model.graph.input[0].CopyFrom(value)
    assert cause in failed("9.15", model)


def test_named_sizes_and_a_second_input() -> None:
    model = accepting()
    shape_of(model.graph.input[0], "batch", "height", "width", "colours")
    accepted("9.15", model)
    model.graph.input.append(helper.make_tensor_value_info("x2", TensorProto.FLOAT, [1]))
    assert f"Its inputs are {params('9.15')['sends']}, x2" in failed("9.15", model)


def test_dtypes_that_the_caller_does_not_send() -> None:
    model = accepting()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT8
    assert "It is int8, and the caller sends uint8" in failed("9.15", model)
    model.graph.input[0].type.tensor_type.elem_type = 99
    assert "It is 99, and the caller sends uint8" in failed("9.15", model)


@pytest.mark.parametrize("who", ["ada", "grace", "emmy"])
def test_mean_and_deviation_exchanged(who: str) -> None:
    p = params("9.15", who)
    model = put(accepting(who), mean=np.float32(p["deviation"]), deviation=np.float32(p["mean"]))
    assert "Mean and deviation are exchanged" in failed("9.15", model, who)
    model = put(accepting(who), mean=np.float32(-p["mean"]))
    assert "The mean is added" in failed("9.15", model, who)
    model = put(accepting(who), full=np.float32(254))
    assert "Prepare as in training" in failed("9.15", model, who)
