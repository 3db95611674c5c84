"""What the doctor finds does not depend on what stands in front of it, or behind it."""

from __future__ import annotations

import onnx
import pytest
from doctor_models import found, parsed
from onnx import TensorProto, helper
from test_doctor_findings import PAIRS

import course_utils as cu


def beside(model: onnx.ModelProto, where: str) -> onnx.ModelProto:
    """The model with a healthy node of its own input and output as the first one, or as the last one."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    graph, value = model.graph, helper.make_tensor_value_info
    graph.input.append(value("beside", TensorProto.FLOAT, ["rows", 4]))
    graph.output.append(value("healthy", TensorProto.FLOAT, ["rows", 4]))
    node = helper.make_node("Relu", ["beside"], ["healthy"], "healthy_node")
    graph.node.insert(0 if where == "front" else len(graph.node), node)
    return model


# One input whose first size is free is enough: the others may be meant as they are.
@pytest.mark.parametrize("where", ["front", "back"])
@pytest.mark.parametrize("code", [code for code in PAIRS if code != "batch-fixed"])
def test_a_node_beside_it_hides_nothing(code: str, where: str) -> None:
    sick, twin = PAIRS[code]
    assert code in found(beside(sick(), where))
    assert found(beside(twin(), where)) == []


def test_a_place_names_the_graph_that_it_is_in() -> None:
    branches = "then_branch = t () => (float[N] a) { a = Odd(x) }, else_branch = e () => (float[N] b) { b = Odd(x) }"
    report = cu.doctor(parsed(f"g (bool c, float[N] x) => (float[N] y) {{ h = Relu(x)  y = If<{branches}>(c) }}"))
    (finding,) = (f for f in report.findings if f.code.id == "operator-unknown")
    assert set(map(str, finding.where)) == {"node #0 'a' in If 1 / then_branch", "node #0 'b' in If 1 / else_branch"}
