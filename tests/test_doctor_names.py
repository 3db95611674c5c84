"""The doctor and the names of tensors: circles, the order of the nodes, what is written twice, and what nobody writes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from doctor_models import found, parsed, weights
from onnx import TensorProto, helper

import course_utils as cu


def one_input(body: str, **how: object) -> onnx.ModelProto:
    return parsed(f"g (float[N] x) => (float[N] y) {{ {body} }}", **how)


def in_a_branch(body: str, before: str = "", stored: dict[str, np.ndarray] | None = None) -> onnx.ModelProto:
    """The body of a branch, which writes t; nodes before that branch; and the other branch, which is in order."""
    model = parsed(
        f"""g (bool c, float[4] x) => (float[4] y) {{ {before}
        y = If (c) <then_branch = a () => (float[4] t) {{ {body} }}, else_branch = b () => (float[4] e) {{ e = Tanh(x) }}> }}""",
        stored,
    )
    return model


def only(model: onnx.ModelProto) -> tuple[str, str, list[str]]:
    """Code, cause without the words of ONNX Runtime, and places of the one finding."""
    (finding,) = cu.doctor(model).findings
    return finding.code.id, finding.cause.split(" ONNX Runtime ")[0], [str(place) for place in finding.where]


CIRCLES = {
    "itself": ("y = Add(x, y)", "1 node: y → y.", [0]),
    "of two": ("y = Add(x, b)  b = Relu(y)", "2 nodes: b → y → b.", [1, 0]),
    "of three": ("a = Add(x, y)  b = Relu(a)  y = Neg(b)", "3 nodes: b → y → a → b.", [1, 2, 0]),
    "before it a chain": ("h = Relu(x)  i = Neg(h)  a = Add(i, y)  y = Relu(a)", "2 nodes: y → a → y.", [3, 2]),
    "behind it a chain": ("a = Relu(b)  b = Neg(a)  c = Relu(a)  y = Neg(c)", "2 nodes: b → a → b.", [1, 0]),
    "found from behind": ("y = Neg(c)  c = Relu(a)  a = Relu(b)  b = Neg(a)", "2 nodes: b → a → b.", [3, 2]),
    "beside what is in order": ("k = Relu(h)  h = Neg(x)  l = Add(k, h)  a = Add(l, y)  y = Relu(a)", "2 nodes: y → a → y.", [4, 3]),
    "of six": ("  ".join(f"{q} = Relu({p})" for p, q in zip("yabcde", "abcdey", strict=True)), "6 nodes: b → c → d → e → y → a → b.", [1, 2, 3, 4, 5, 0]),
    "of seven": ("  ".join(f"{q} = Relu({p})" for p, q in zip("yabcdef", "abcdefy", strict=True)), "7 nodes: b → c → d → e → f → y → … → b.", [1, 2, 3, 4, 5, 6, 0]),
}  # fmt: skip


@pytest.mark.parametrize("kind", CIRCLES)
def test_a_circle_is_told_in_the_order_of_the_data(kind):
    body, cause, nodes = CIRCLES[kind]
    report = cu.doctor(one_input(body))
    finding = report.findings[0]
    assert [f.code.id for f in report.findings if f.severity == "error"] == ["cycle"]
    assert finding.cause.startswith(f"{cause} ONNX Runtime says")
    assert [place.index for place in finding.where] == nodes


def test_a_circle_through_a_branch():
    code, cause, _ = only(in_a_branch("t = Add(x, a)", "a = Relu(y)"))
    assert (code, cause) == ("cycle", "2 nodes: y → a → y.")


@pytest.mark.parametrize(
    "body",
    ["y = Neg(a)  a = Relu(x)", "y = Add(a, b)  a = Relu(c)  b = Tanh(c)  c = Neg(x)",
     "y = Neg(d)  a = Relu(x)  b = Relu(a)  c = Add(a, b)  d = Add(b, c)"],
)  # fmt: skip
def test_nodes_in_the_wrong_order_are_no_circle(body):
    report = cu.doctor(one_input(body))
    assert report.codes == ["not-sorted"]
    first = "d" if "d =" in body else "a"
    assert report.findings[0].cause.startswith(f"node #0 'y' reads '{first}', which a node behind it writes.")


def test_many_ways_through_a_graph_take_no_time():
    """Forty times two ways: each node is looked at once."""
    body = "  ".join(f"l{i + 1} = Add(a{i}, b{i})  a{i} = Relu(l{i})  b{i} = Neg(l{i})" for i in reversed(range(40)))
    assert found(parsed(f"g (float[N] l0) => (float[N] l40) {{ {body} }}")) == ["not-sorted"]


def test_every_node_that_stands_too_early_is_a_place():
    report = cu.doctor(one_input("y = Neg(b)  b = Neg(a)  a = Relu(x)"))
    assert [place.name for place in report.findings[0].where] == ["y", "b"]


def test_a_branch_that_reads_what_is_written_later():
    """In the main graph ONNX Runtime sorts, also for the sake of a graph inside a node."""
    model = parsed(
        """g (bool c, float[4] x) => (float[4] y) {
        y = If (c) <then_branch = a () => (float[4] t) { t = Add(x, a) }, else_branch = b () => (float[4] e) { e = Tanh(x) }>
        a = Relu(x) }"""
    )
    assert only(model)[::2] == ("not-sorted", ["node #0 'y'"])


# Names from outside


def sparse(name: str) -> onnx.SparseTensorProto:
    """Four numbers, one of them other than zero."""
    values, at = (
        helper.make_tensor(name, TensorProto.FLOAT, [1], [2.0]),
        helper.make_tensor("i", TensorProto.INT64, [1], [0]),
    )
    return helper.make_sparse_tensor(values, at, [4])


def test_a_branch_knows_all_names_outside():
    """Of nodes, initializers, sparse ones and inputs; also two graphs further out."""
    read = "p = Add(a, w)  q = Add(p, s)  t = Add(q, x)"
    inner = f"t = If (c) <then_branch = m () => (float[4] t) {{ {read} }}, else_branch = n () => (float[4] e) {{ e = Tanh(x) }}>"
    for body in (read, inner.replace("float[4] t)", "float[4] u)").replace("t = Add", "u = Add")):
        model = in_a_branch(body, "a = Relu(x)", {"w": weights(4)})
        model.graph.sparse_initializer.append(sparse("s"))
        assert not set(found(model)) & {"tensor-undefined", "not-sorted", "dead-nodes"}


def test_names_of_a_branch_are_its_own():
    """Its nodes, inputs and initializers, also sparse ones, are not looked for outside, though a node behind it writes the same names."""
    loop = parsed(
        """g (float[4] x) => (float[4] y) {
        l = Loop(k, , x) <body = b (int64 j, bool q, float[4] v) => (bool d, float[4] o)
            <float[4] w = {1.0, 2.0, 3.0, 4.0}> { d = Identity(q)  h = Neg(v)  i = Add(h, w)  o = Add(i, s) }>
        h = Relu(l)  v = Neg(h)  w = Neg(v)  s = Abs(w)  y = Neg(s) }""",
        {"k": np.array(3)},
    )
    loop.graph.node[0].attribute[0].g.sparse_initializer.append(sparse("s"))
    assert found(loop) == ["shape-unknown"]


def test_an_input_that_is_left_out_is_no_name():
    assert found(one_input("y = Clip(x, , )")) == []
    assert found(in_a_branch("t = Clip(x, , )")) == []


@pytest.mark.parametrize("name", ["a", "x", "w"])
def test_a_branch_must_write_its_output(name):
    """What it only knows from outside is none; ONNX Runtime wants an Identity."""
    model = in_a_branch("t = Neg(x)", "a = Relu(x)  b = Neg(a)", {"w": weights(4)})
    branch = model.graph.node[2].attribute[0].g
    branch.output[0].name = name
    report = cu.doctor(model)
    assert report.codes[0] == "output-undefined"
    assert report.findings[0].severity == "error"
    assert str(report.findings[0].where[0]).startswith(f"output '{name}' in If 2 / ")


def test_what_only_an_output_of_a_branch_reads_is_not_dead():
    model = in_a_branch("", "a = Relu(x)")
    model.graph.node[1].attribute[0].g.output[0].name = "a"
    assert found(model) == ["output-undefined"]


# Written twice


TWICE = {
    "two inputs": ("y = Relu(x)", "x", "input 'x'"),
    "an input and a node": ("x = Neg(x)  y = Relu(x)", "x", "node #0 'x'"),
    "a weight and a node": ("w = Neg(x)  y = Relu(w)", "w", "node #0 'w'"),
    "two nodes": ("a = Neg(x)  a = Relu(x)  y = Relu(a)", "a", "node #1 'a'"),
    "one node": ("a, a = Split<num_outputs = 2>(x)  y = Concat<axis = 0>(a, a)", "a", "node #0 'a'"),
    "inside": ("", "h", "node #1 'h' in If 0 / then_branch"),
}


@pytest.mark.parametrize("kind", TWICE)
def test_written_twice(kind):
    body, name, place = TWICE[kind]
    model = one_input(body or "y = Relu(x)", stored={"w": weights(4)} if "weight" in kind else {})
    if kind == "two inputs":
        model.graph.input.append(model.graph.input[0])
    if kind == "inside":
        model = in_a_branch("h = Neg(x)  h = Relu(x)  t = Tanh(h)")
    code, cause, places = next(iter([(f.code.id, f.cause, f.where) for f in cu.doctor(model).findings]))
    assert code == "tensor-written-twice"
    assert cause.startswith(f"'{name}' is written more than once.")
    assert [str(p) for p in places] == [place]


def test_outputs_without_a_name_are_not_the_same():
    model = one_input("a, y = Split<num_outputs = 2>(x)")
    model.graph.node[0].output[0] = ""
    assert "tensor-written-twice" not in found(model)


# The nearest name


@pytest.mark.parametrize(
    ("body", "known"),
    [("hidden = Relu(x)  y = Add(hiden, x)", "hidden"), ("y = Add(x, weigth)", "weight"), ("y = Add(inptu, x)", "input"),
     ("hidden = Relu(x)  hidden_2 = Relu(hidden)  y = Add(hidden_, hidden_2)", "hidden_2"),
     ("hidden = Relu(x)  y = Add(hidwen_of, hidden)", None), ("hidden = Relu(x)  y = Add(unlike, hidden)", None)],
)  # fmt: skip
def test_the_nearest_name(body, known):
    model = parsed(f"g (float[4] x, float[4] input) => (float[4] y) {{ {body} }}", {"weight": weights(4)})
    (finding,) = (f for f in cu.doctor(model).findings if f.code.id == "tensor-undefined")
    hint = "" if known is None else f" The nearest name that is written: '{known}'."
    told = finding.cause.partition(" ONNX Runtime says")[0]
    assert told.partition("'.")[2] == hint


def test_an_output_with_a_slip():
    model = one_input("logits = Relu(x)")
    model.graph.output[0].name = "logit"
    report = cu.doctor(model)
    assert report.findings[0].cause.startswith(
        "'logit' is listed as an output. The nearest name that is written: 'logits'."
    )
    assert str(report.findings[0].where[0]) == "output 'logit'"


def test_a_name_that_is_no_text():
    """Bytes that are no UTF-8: such names have no neighbours."""
    data = one_input("y = Add(x, wrong)").SerializeToString()
    assert found(data.replace(b"wrong", b"wr\xffng")) == ["tensor-undefined"]
    data = one_input("rigth = Relu(x)  y = Add(rigth, right)").SerializeToString()
    assert found(data.replace(b"rigth", b"ri\xffth")) == ["tensor-undefined"]
