"""The doctor and nodes that lack what their operators need: the checker objects, and no check of the doctor stumbles."""

from __future__ import annotations

import onnx
import pytest
from doctor_models import parsed
from test_doctor_findings import PAIRS

import course_utils as cu


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
