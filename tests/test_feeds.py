"""Feeding a model what it does not take: one sentence with the input, what came, what was expected."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, parser

import course_utils as cu
from course_utils.running import run, run_all, session_for


@pytest.fixture(scope="module")
def model():
    """y = a + b: one fixed dimension, one free."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["y"])],
        "add",
        [value("a", TensorProto.FLOAT, ["n", 3]), value("b", TensorProto.FLOAT, ["n", 3])],
        [value("y", TensorProto.FLOAT, ["n", 3])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def feed(**changed: object) -> dict[str, object]:
    return {"a": np.ones((2, 3), np.float32), "b": np.ones((2, 3), np.float32)} | changed


WRONG = {
    "dtype": (feed(a=np.ones((2, 3))), r"'a' was fed float64, the model expects float32: .*astype\(np\.float32\)"),
    "rank": (feed(a=np.ones(3, np.float32)), r"'a' was fed shape \[3\], the model expects \['n', 3\]"),
    "fixed dimension": (feed(b=np.ones((2, 4), np.float32)), r"'b' was fed shape \[2, 4\]"),
    "name": ({"a": feed()["a"], "c": feed()["b"]}, r"named \['a', 'b'\], and it was fed \['a', 'c'\]"),
    "too few": ({"a": feed()["a"]}, r"named \['a', 'b'\], and it was fed \['a'\]"),
    "too many": (feed(c=feed()["a"]), r"it was fed \['a', 'b', 'c'\]"),
    "list": (feed(a=[[1.0, 2.0, 3.0]]), r"'a' was fed a list, the model expects a NumPy array"),
    "torch tensor": (feed(a=torch.ones(2, 3)), r"'a' was fed a Tensor, .*\.numpy\(\)"),
    "sizes that do not go together": (feed(b=np.ones((5, 3), np.float32)), r"ONNX Runtime stopped in the run: "),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("how", ["run", "run_all"])
def test_wrong_feed(kind, how, model):
    wrong, sentence = WRONG[kind]
    with pytest.raises(cu.CourseError, match=sentence) as caught:
        run(session_for(model), wrong) if how == "run" else run_all(model, wrong)
    assert "\n" not in str(caught.value)


def test_right_feed(model):
    assert run(session_for(model), feed())["y"].tolist() == [[2.0] * 3] * 2
    assert run_all(model, feed())["y"].tolist() == [[2.0] * 3] * 2


def test_text_goes_in_as_numpy_text():
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "text",
        [value("x", TensorProto.STRING, [1])],
        [value("y", TensorProto.STRING, [1])],
    )
    text = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    assert run(session_for(text), {"x": np.array(["hello"])})["y"].tolist() == ["hello"]


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        (np.ones((2, 3), np.float32), "given a ndarray as input, it expects torch tensors"),
        (torch.ones(2, 3), "has 2 inputs .* was given 1"),
        ((torch.ones(2, 3), torch.ones(2, 3).double()), "'b' was fed float64"),
        ((torch.ones(2, 3), torch.ones(2, 4)), r"'b' was fed shape \[2, 4\]"),
    ],
    ids=["numpy", "too few", "dtype", "shape"],
)
def test_parity_inputs(inputs, sentence, model):
    class Sum(torch.nn.Module):
        def forward(self, a, b):
            return a + b

    with pytest.raises(cu.CourseError, match=sentence):
        cu.parity(Sum(), model, inputs)
    assert cu.parity(Sum(), model, [torch.ones(2, 3), torch.ones(2, 3)]).within


ENDLESS = """
    <ir_version: 10, opset_import: ["": 18]>
    endless (float[N] x) => (float[N] y) {
        rounds = Constant <value = int64 {9223372036854775807}> ()
        on = Constant <value = bool {1}> ()
        y = Loop (rounds, on, x) <body = round (int64 i, bool go, float[N] v) => (bool more, float[N] doubled) {
            more = Identity (go)
            doubled = Add (v, v)
        }>
    }
"""


def test_a_loop_without_an_end_is_stopped():
    session = session_for(parser.parse_model(ENDLESS))
    x = np.ones(3, np.float32)
    with pytest.raises(cu.CourseError, match=r"stopped after 0\.5 s\. A Loop of this model goes on without an end"):
        run(session, {"x": x}, seconds=0.5)


def test_integer_products_do_not_depend_on_the_processor():
    """x86 without VNNI adds two products of uint8 and int8 in 16 bits: 2 * 255 * 127 does not fit."""
    product = parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
        g (uint8[1, 4] x) => (int32[1, 1] y) <int8[4, 1] w = {127, 127, 127, 127}> { y = MatMulInteger(x, w) }""")
    got = run(session_for(product), {"x": np.full((1, 4), 255, np.uint8)})
    assert got["y"].tolist() == [[4 * 255 * 127]]
