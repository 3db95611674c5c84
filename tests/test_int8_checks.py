"""The checks of 7.2 and 7.3 at their borders: what stands beside the int8 network, what is lost, and why."""

from __future__ import annotations

from functools import cache
from random import Random
from typing import Any

import numpy as np
import onnx
import pytest
from answers import accepted, criteria, failed, given, params
from onnx import ModelProto, helper, numpy_helper
from test_exercise_07 import rescued, static

import course_utils as cu
from course_utils.exercises import Criteria, accuracy
from course_utils.exercises.ch07 import network as int8_network


@cache
def small() -> bytes:
    return static(given("7.2")).SerializeToString()


@cache
def rescue() -> bytes:
    return rescued().SerializeToString()


def beside(data: bytes, op: str, *weight: int, **attributes: Any) -> ModelProto:
    """The model, and beside it one float node that reads the image; its result is added as zero."""
    model = ModelProto.FromString(data)
    model.graph.initializer.append(numpy_helper.from_array(np.full(weight, 0.01, np.float32), "extra_w"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0, -1]), "extra_flat"))
    source = "image"
    if op == "MatMul":
        model.graph.node.append(helper.make_node("Reshape", ["image", "extra_flat"], ["extra_in"]))
        source = "extra_in"
    model.graph.node[list(model.graph.node).index(last(model))].output[0] = "real"
    model.graph.node.extend(
        [
            helper.make_node(op, [source, "extra_w"], ["extra"], **attributes),
            helper.make_node("Reshape", ["extra", "extra_flat"], ["extra_rows"]),
            helper.make_node("ReduceMean", ["extra_rows"], ["mean"], axes=[1], keepdims=1),
            helper.make_node("Sub", ["mean", "mean"], ["zero"]),
            helper.make_node("Abs", ["zero"], ["nothing"]),
            helper.make_node("Add", ["real", "nothing"], ["logits"]),
        ]
    )
    return model


def last(model: ModelProto) -> onnx.NodeProto:
    return next(n for n in model.graph.node if "logits" in n.output)


def test_each_convolution_beside_the_network_counts() -> None:
    refused = "beside them the graph that runs holds {} other convolutions"
    assert refused.format(1) in failed("7.2", beside(small(), "Conv", 8, 1, 5, 5))
    # 7.3 leaves two in float: a third one is too many.
    assert refused.format(3) in failed("7.3", beside(rescue(), "Conv", 8, 1, 5, 5))


def test_a_convolution_that_only_cuts_out_is_no_network() -> None:
    accepted("7.2", beside(small(), "Conv", 1, 1, 10, 10))  # 100 numbers
    assert "1 other convolutions" in failed("7.2", beside(small(), "Conv", 1, 1, 1, 101, pads=[0, 50, 0, 50]))


def test_numbers_beside_the_network_are_counted() -> None:
    assert "0 other convolutions and 1" in failed("7.2", beside(small(), "MatMul", 784, 16))
    assert "other numbers" in failed("7.3", beside(rescue(), "MatMul", 784, 110))


@pytest.mark.parametrize("task_id", ["7.2", "7.3"])
def test_no_convolution_in_int8_at_all(task_id: str) -> None:
    """Nothing else is said of such a model: it would take long, and there is no wide channel to look for."""
    model = static(given(task_id), op_types_to_quantize=["Gemm"])
    assert "0 do. The others stay in float: is there a list in nodes_to_exclude" in failed(task_id, model)
    assert not [c for c in criteria(task_id, model) if "accuracy" in c.what or "uint8" in c.what]


def with_tensor(dtype: Any, numbers: int) -> ModelProto:
    model = ModelProto.FromString(small())
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(numbers, dtype), "old"))
    return model


def with_notes(characters: int, where: str = "model") -> ModelProto:
    model = ModelProto.FromString(small())
    del model.graph.value_info[:], model.metadata_props[:]
    model.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    if where == "shapes":
        while len(model.graph.value_info) < characters / 20:
            name = f"tensor{len(model.graph.value_info)}"
            model.graph.value_info.append(helper.make_tensor_value_info(name, 1, [1, 2, 3, 4]))
    elif where == "node metadata":
        model.graph.node[3].metadata_props.add(key="k", value="x" * characters)
    elif where == "metadata":
        model.metadata_props.add(key="k", value="x" * characters)
    else:
        (model if where == "model" else model.graph.node[3]).doc_string = "x" * characters
    return model


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (lambda: with_tensor(np.float32, 1001), "old is stored as float"),
        (lambda: with_tensor(np.float32, 1000), "Compare the bytes"),
        (lambda: with_tensor(np.int32, 1001), "old is stored in 32 bits"),
        (lambda: with_tensor(np.int32, 1000), "Compare the bytes"),
        (lambda: with_notes(5001), "5,001 of them are notes"),
        (lambda: with_notes(5000), "Compare the bytes"),
        (lambda: with_notes(6000, "node"), "6,000 of them are notes"),
        (lambda: with_notes(6000, "node metadata"), "of them are notes"),
        (lambda: with_notes(6000, "metadata"), "of them are notes"),
        (lambda: with_notes(6000, "shapes"), "of them are notes"),
        (lambda: ModelProto.FromString(small()), "Compare the bytes"),
        (lambda: static(given("7.2"), quant_format=cu_qdq()), "Each Q/DQ pair takes room"),
    ],
)  # fmt: skip
def test_why_a_file_is_large(make: Any, cause: str) -> None:
    assert cause in int8_network._size_cause(make())


def cu_qdq() -> Any:
    from onnxruntime.quantization import QuantFormat

    return QuantFormat.QDQ


@pytest.mark.parametrize(
    ("low", "high", "cause"),
    [
        (-0.81, 2.02, "The range of the input is right"),
        (0, 255, "Pixels were not normalised"),
        (-0.81, 9, "Real pictures reach"),
        (-0.81, 9.4, "Pixels were not normalised"),
        (-0.45, 2.02, "Negative values are cut off"),
        (-0.55, 2.02, "The range of the input is right"),
        (-0.81, 1.45, "Real pictures reach"),
        (-0.81, 1.55, "The range of the input is right"),
        (-1.2, 2.25, "The range of the input is right"),
        (-1.3, 2.25, "Real pictures reach"),
    ],
)
def test_what_the_range_of_the_input_tells(low: float, high: float, cause: str) -> None:
    scale = (high - low) / 255
    model = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["": 17]>
        g (float[n] image) => (uint8[n] q) <float s = {{{scale}}}, uint8 z = {{{round(-low / scale)}}}, float wide = {{99}}>
        {{ k = QuantizeLinear (wide, wide, z)  q = QuantizeLinear (image, s, z) }}""")
    assert cause in int8_network._accuracy_cause(model)
    model.graph.initializer[0].name = "computed"
    assert int8_network._accuracy_cause(model) == "Was it calibrated with normalised pictures?"


def judged(model: ModelProto, points: float) -> tuple[bool, str]:
    found, p = Criteria(), params("7.2") | {"points": points}
    passed = int8_network._is_accurate(model, p, Random(4), found, lambda: "the cause")
    return passed, found[-1].hint


def with_last(change: Any) -> ModelProto:
    """The float network, its last layer changed."""
    model = int8_network.network(params("7.2")["order"])
    for tensor in model.graph.initializer:
        if tensor.name.startswith("last."):
            tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), tensor.name))
    return model


def exchanged(values: np.ndarray) -> np.ndarray:
    values[[0, 1]] = values[[1, 0]]
    return values


def test_what_is_lost_is_counted_to_the_picture() -> None:
    pictures, labels = int8_network._unseen(Random(4))
    names, weight = np.array(params("7.2")["order"]), accuracy.weights(int8_network._DRAWN)

    def right(model: ModelProto) -> float:
        logits = cu.running.session_for(model).run(None, {"image": pictures})[0]
        return float(np.average(names[logits.argmax(1)] == labels, weights=weight))

    whole, worse = with_last(lambda v: v), with_last(exchanged)
    lost = 100 * (right(whole) - right(worse))  # points
    assert lost > 5
    assert judged(worse, lost + 0.01)[0]
    passed, hint = judged(worse, lost - 0.01)
    assert not passed
    assert hint.startswith(f"It is right for {right(worse):.1%}, the float model for at least ")
    assert hint.endswith("%. the cause")
    assert judged(whole, 0)[0]


def test_answers_that_are_no_numbers_or_have_another_shape() -> None:
    passed, _ = judged(with_last(lambda v: v * np.float32("nan")), 100)
    assert not passed
    model = int8_network.network(params("7.2")["order"])
    last(model).op_type = "MatMul"
    last(model).input.pop()
    del last(model).attribute[:]
    weight = next(t for t in model.graph.initializer if t.name == "last.weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight)[:9].T.copy(), "last.weight"))
    passed, hint = judged(model, 100)
    assert not passed
    count = sum(int8_network._DRAWN)
    assert f"the logits have shape [{count}, 9], expected [{count}, 10]" in hint
