"""Inputs of a node that have two dtypes: where that is an error, and what is said of it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from doctor_models import found, named_function, parsed, texts
from onnx import helper
from test_doctor_verdict import BRANCHES
from test_doctor_versions import model, the

import course_utils as cu

MIXED = {
    "Add": ("y = Add(x, c)", np.float64, "float ('x') and double ('c')"),
    "Div": ("y = Div(x, c)", np.int64, "float ('x') and int64 ('c')"),
    "MatMul": ("y = MatMul(x, c)", np.float64, "float ('x') and double ('c')"),
    "Max of three": ("y = Max(x, x, c)", np.float16, "float ('x') and float16 ('c')"),
    "Concat": ("y = Concat<axis = 0>(x, c)", np.int32, "float ('x') and int32 ('c')"),
    "Where": ("b = IsNaN(x)  y = Where(b, x, c)", np.int64, "float ('x') and int64 ('c')"),
    "behind a node": ("a = Relu(x)  y = Mul(c, a)", np.float64, "double ('c') and float ('a')"),
    "of com.microsoft": ("y = com.microsoft.FusedMatMul(x, c)", np.float64, "float ('x') and double ('c')"),
}


@pytest.mark.parametrize("kind", MIXED)
def test_two_dtypes_where_one_is_wanted(kind):
    """One finding, which says to put a Cast; not another provider, and nothing of shapes."""
    body, dtype, words = MIXED[kind]
    graph = f"g (float[4, 4] x) => (float[?, 4] y) {{ {body} }}"
    for run in (False, True):
        model = parsed(graph, {"c": np.ones((4, 4), dtype)}, more=', "com.microsoft": 1')
        report = cu.doctor(model, run=run)
        assert [code for code in report.codes if code != "float64"] == ["dtypes-differ"], report
        assert words in report.findings[0].cause
        assert "Put a Cast" in report.findings[0].cure
        assert "provider" not in report.findings[0].cure
    assert found(parsed(graph, {"c": np.ones((4, 4), np.float32)}, more=', "com.microsoft": 1'), run=True) == []


def test_two_dtypes_in_a_branch():
    """Types are worked out for the main graph; for the others the runtime's words say the same."""
    model = parsed(BRANCHES.replace("u = Relu(x)", "u = Cast<to = 11>(x)").replace("t = Tanh(u)", "t = Add(u, x)"))
    report = cu.doctor(model)
    assert [f.code.id for f in report.errors] == ["dtypes-differ"]
    assert "Put a Cast" in report.errors[0].cure


def test_inputs_that_may_differ():
    """An exponent, an index, the values of a loop: their types have names of their own."""
    assert found(texts("y = Pow(x, k)", stored={"k": np.array(2)})[0]) == []
    assert found(texts("y = GatherElements<axis = 1>(x, k)", stored={"k": np.zeros((1, 4), np.int64)})[0]) == []
    loop = """g (float[4] x, int64 n) => (float[4] y) {
        y, m = Loop(n, , x, n) <body = b (int64 i, bool c, float[4] h, int64 k) => (bool d, float[4] j, int64 l) {
            d = Identity(c)  j = Tanh(h)  l = Identity(k) }> }"""
    assert found(parsed(loop)) == []


def test_what_is_said_of_two_dtypes():
    stored = {"c": np.ones((1, 4)), "d": np.ones((1, 4), np.int64)}
    finding = the(model("a = Add(x, c)  b = Sub(x, d)  y = Max(x, c, d, d)", stored), "dtypes-differ")
    assert finding.cause.startswith(
        "Add reads float ('x') and double ('c'), and takes one dtype for all of these. So in 3 nodes."
    )
    finding = the(model("y = Max(x, c, d, e)", stored | {"e": np.ones((1, 4), np.int32)}), "dtypes-differ")
    assert finding.cause.startswith("Max reads float ('x') and double ('c') and int64 ('d'), and takes")
    clip = the(model("y = Clip(x, , c)", {"c": np.array(1.0)}), "dtypes-differ")
    assert clip.cause.startswith("Clip reads float ('x') and double ('c'),")


def test_a_function_s_inputs_may_be_of_any_dtype():
    made = named_function("Max")
    made.functions[0].input.append("b2")
    made.graph.node[0].input.append("c")
    made.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(1), "c"))
    assert "dtypes-differ" not in found(made)


def test_a_function_that_has_the_name_of_an_operator_changes_nothing():
    """ONNX Runtime goes by its own definition, and refuses."""
    body = [helper.make_node("Cast", ["b"], ["d"], to=1), helper.make_node("Sub", ["a", "d"], ["c"])]
    made = model("y = Add(x, c)", {"c": np.ones((1, 4), np.int64)})
    made.functions.append(helper.make_function("", "Add", ["a", "b"], ["c"], body, [helper.make_opsetid("", 21)]))
    assert found(made)[0] == "dtypes-differ"
