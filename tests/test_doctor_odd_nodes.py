"""The doctor and nodes that lack what their operators need: the checker objects, and no check of the doctor stumbles."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from doctor_models import int8_weights, parsed, quantized
from onnx import TensorProto, helper, numpy_helper
from test_doctor_findings import PAIRS

import course_utils as cu
from course_utils.diagnosis.parts import attribute, constant, expected_bytes, inner_graphs


@pytest.mark.parametrize(
    "nodes",
    [
        "w = Identity()  y = MatMul(x, w)",
        "w = Identity()  z = BatchNormalization(x, w, w, w, w)  y = Relu(z)",
        "w = DequantizeLinear()  y = MatMul(x, w)",
        "w = Transpose()  y = MatMul(x, w)",
        "w = Constant()  y = MatMul(x, w)",
    ],
)
def test_a_weight_that_is_made_of_nothing(nodes):
    report = cu.doctor(parsed(f"g (float[N, 4] x) => (float[N, 4] y) {{ {nodes} }}"))
    assert report.codes
    assert report.unfinished == ()


@pytest.mark.parametrize("code", PAIRS)
def test_nodes_without_inputs_outputs_or_attributes(code):
    for make in PAIRS[code]:
        model = make()
        for op in {node.op_type for node in model.graph.node}:
            for field, kept in (("input", 0), ("input", 1), ("input", 2), ("output", 0), ("attribute", 0)):
                damaged = onnx.ModelProto()
                damaged.CopyFrom(model)
                for node in damaged.graph.node:
                    if node.op_type == op:
                        del getattr(node, field)[kept:]
                assert cu.doctor(damaged).unfinished == (), (op, field, kept)


@pytest.mark.parametrize("code", PAIRS)
def test_attributes_without_a_type(code):
    for make in PAIRS[code]:
        model = make()
        for node in model.graph.node:
            for a in node.attribute:
                a.ClearField("type")
        assert cu.doctor(model).unfinished == ()


def test_numbers_that_cannot_be_read():
    """Weights and scales that are a byte short: their size is the finding, and no check stops at them."""
    model = quantized(int8_weights())
    for tensor in model.graph.initializer:
        tensor.raw_data = numpy_helper.to_array(tensor).tobytes()[:-1]
    report = cu.doctor(model)
    assert "weights-size-mismatch" in report.codes
    assert report.unfinished == ()


def test_attributes_without_a_value():
    node = helper.make_node("Relu", ["x"], ["y"], alpha=2.0)
    assert attribute(node, "alpha", 7) == 2.0
    assert attribute(node, "beta", 7) == 7
    node.attribute[0].ClearField("type")
    assert attribute(node, "alpha", 7) == 7
    node.attribute[0].CopyFrom(helper.make_attribute_ref("alpha", onnx.AttributeProto.FLOAT))
    assert attribute(node, "alpha", 7) == 7, "it is a function's, and each call gives another one"


def test_what_a_constant_holds():
    def made(**value: object) -> onnx.NodeProto:
        return helper.make_node("Constant", [], ["c"], **value)

    one = numpy_helper.from_array(np.ones(1, np.float32), "t")
    assert constant(made(value=one)) == one
    for value in ({"value_int": 3}, {"value_ints": [3, 4]}, {"value_float": 0.5}, {"value_floats": [0.5, 2.0]}):
        (wanted,) = value.values()
        tensor = constant(made(**value))
        assert numpy_helper.to_array(tensor).tolist() == wanted
        assert tensor.data_type == (TensorProto.FLOAT if "float" in next(iter(value)) else TensorProto.INT64)
    of_function = made()
    of_function.attribute.append(helper.make_attribute_ref("value_int", onnx.AttributeProto.INT))
    for node in (made(), made(value_string="a"), made(value_int=3, value_float=0.5), of_function):
        assert constant(node) is None
    assert constant(helper.make_node("Relu", ["x"], ["c"], value=one)) is None


def test_graphs_in_a_list():
    graphs = [helper.make_graph([], name, [], []) for name in "ab"]
    found = [(name, g.name) for name, g in inner_graphs(helper.make_node("Many", [], [], domain="own", bodies=graphs))]
    assert found == [("bodies", "a"), ("bodies", "b")]


@pytest.mark.parametrize(
    ("dtype", "dims", "size"),
    [
        (TensorProto.FLOAT, [2, 3], 24), (TensorProto.FLOAT, [], 4), (TensorProto.BFLOAT16, [3], 6), (TensorProto.INT4, [3], 2),
        (TensorProto.FLOAT, [0, 3], 0), (TensorProto.FLOAT, [-1, 3], None), (TensorProto.STRING, [3], None), (999, [3], None),
    ],
)  # fmt: skip
def test_bytes_that_a_tensor_takes(dtype, dims, size):
    assert expected_bytes(TensorProto(data_type=dtype, dims=dims)) == size
