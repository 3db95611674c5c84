"""The doctor and the graph: names, inputs, and what counts as a constant."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from doctor_models import convolution, external, found, linear, parsed, weights
from onnx import helper

import course_utils as cu


def test_where_names_the_place():
    report = cu.doctor(parsed("g (float[N] x) => (float[N] y) { hidden = Relu(x)  y = Tanh(hiden) }"))
    (finding,) = [f for f in report.findings if f.code.id == "tensor-undefined"]
    assert str(finding.where[0]) == "node #1 'y'"
    assert "reads 'hiden'. The nearest name that is written: 'hidden'." in finding.cause


def test_inside_a_branch():
    """Names from outside count as known in a branch; a name that nobody writes is found there, too."""

    def branch(name: str) -> onnx.ModelProto:
        return parsed(
            f"""g (bool c, float[N] x) => (float[N] y) {{
            y = If (c) <then_branch = a () => (float[N] t) {{ t = Relu({name}) }},
                        else_branch = b () => (float[N] e) {{ e = Tanh(x) }}>
            }}"""
        )

    assert found(branch("x")) == []
    report = cu.doctor(branch("nobody"))
    assert report.codes == ["tensor-undefined"]
    assert "then_branch" in report.findings[0].where[0].graph


@pytest.mark.parametrize("deeper", [1, 2, 3])
def test_what_only_a_graph_inside_a_graph_reads(deeper):
    """A weight, and what a node of the main graph gives: both are in use, however deep the reader lies."""
    read = "o0 = Add(h, w)"
    for level in range(1, deeper + 1):
        inner = f"then_branch = a{level} () => (float[9000] o{level - 1}) {{ {read} }}"
        other = f"else_branch = b{level} () => (float[9000] p{level}) {{ p{level} = Relu(x) }}"
        read = f"o{level} = If (c) <{inner}, {other}>"
    graph = f"g (bool c, float[9000] x) => (float[9000] o{deeper}) {{ h = Tanh(x)  {read} }}"
    assert found(parsed(graph, {"w": weights(9000)})) == []
    assert found(parsed(graph, {"w": weights(9000), "v": weights(9000)})) == ["unused-weights"]


def test_a_default_value_of_an_input_is_no_weight():
    model = parsed("g (float[N] x, float k) => (float[N] y) { y = Mul(x, k) }", {"k": np.array(2, np.float32)})
    assert found(model) == []


@pytest.mark.parametrize(("ir", "codes"), [(3, ["batchnorm-not-folded"]), (4, ["weights-are-inputs"])])
def test_what_a_caller_may_replace_is_constant_up_to_ir_version_3(ir, codes):
    """Until then every initializer had to be listed among the inputs, and none of them could be fed."""
    model = convolution(batchnorm=True)
    model.ir_version, model.opset_import[0].version = ir, 9
    for t in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(t.name, t.data_type, t.dims))
    assert found(model) == codes


@pytest.mark.parametrize("renamed", [1, 3, 12])
def test_a_constant_behind_many_names(renamed):
    """Each Identity gives it another one."""
    renames = "  ".join(f"t{i + 1} = Identity(t{i})" for i in range(renamed))
    stored = {"r": np.array(0.5, np.float32), "t0": np.array(True)}
    model = parsed(f"g (float[N] x) => (float[N] y) {{ {renames}  y = Dropout(x, r, t{renamed}) }}", stored)
    assert "dropout-in-training" in found(model)


def test_external_data_of_a_model_without_a_file(folder):
    model = linear()
    external(model)
    report = cu.doctor(model)
    assert report.codes == []
    assert "Give the model's path" in report.not_checked[0]
    assert cu.doctor(model, run=True).codes == []


def test_inputs_of_other_kinds_have_types():
    sequence = parsed("g (seq(float[N]) x, int64 i) => (float[N] y) { y = SequenceAt(x, i) }")
    assert found(sequence) == []
    sequence.graph.input[0].type.sequence_type.elem_type.ClearField("tensor_type")
    assert found(sequence) == ["input-type-missing"]
    optional = parsed("g (optional(float[N]) x) => (float[N] y) { y = OptionalGetElement(x) }")
    assert found(optional) == []


def test_a_single_vector_has_no_batch():
    assert found(parsed("g (float[4] x) => (float[4] y) { y = MatMul(x, w) }", {"w": weights(4, 4)})) == []


def test_the_model_that_was_given_stays_as_it_is():
    """It is not copied, so nothing may change it."""
    branches = "y = If (c) <then_branch = a () => (float[N] t) { t = Add(x, w) }, else_branch = b () => (float[N] e) { e = Relu(x) }>"
    for model in (
        convolution(batchnorm=True),
        parsed(f"g (bool c, float[N] x) => (float[N] y) {{ {branches} }}", {"w": weights(1)}),
    ):
        external(model)
        model.graph.node.add(op_type="SimplifiedLayerNormalization", input=["x", "s"], output=["z"])
        before = model.SerializeToString(deterministic=True)
        cu.doctor(model, run=True)
        assert model.SerializeToString(deterministic=True) == before
