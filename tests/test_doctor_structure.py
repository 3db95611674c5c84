"""The doctor and the graph as a whole: formal points, functions, what nobody reads, and what has no type."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from doctor_models import found, parsed, weights
from onnx import TensorProto, helper, numpy_helper

import course_utils as cu

# Formal points


def plain(*, outdated: bool) -> onnx.ModelProto:
    """y = tanh(relu(x)), and perhaps a shape that is out of date."""
    model = parsed("g (float[N, 4] x) => (float[N, 4] y) { a = Relu(x)  y = Tanh(a) }")
    if outdated:
        model.graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, ["N", 5]))
    return model


def not_among_inputs(model: onnx.ModelProto) -> None:
    """A weight that is no input, as it was not allowed up to IR version 3."""
    model.ir_version, model.opset_import[0].version = 3, 9
    model.graph.initializer.append(numpy_helper.from_array(np.ones(4, np.float32), "w"))
    model.graph.node[1].CopyFrom(helper.make_node("Add", ["a", "w"], ["y"]))


def two_notes(model: onnx.ModelProto) -> None:
    for _ in range(2):
        model.metadata_props.add(key="k", value="v")


FORMAL: dict[str, Callable[[onnx.ModelProto], object]] = {
    "no shape": lambda m: m.graph.output[0].type.tensor_type.ClearField("shape"),
    "no type": lambda m: m.graph.output[0].ClearField("type"),
    "a weight that is no input": not_among_inputs,
    "no name": lambda m: m.graph.ClearField("name"),
    "one key twice": two_notes,
}


@pytest.mark.parametrize("kind", FORMAL)
def test_a_formal_point_does_not_hide_an_error(kind):
    model, outdated = plain(outdated=False), plain(outdated=True)
    FORMAL[kind](model)
    FORMAL[kind](outdated)
    assert set(found(model)) - {"shape-unknown"} == {"checker-formality"}
    report = cu.doctor(outdated)
    assert report.codes == ["shape-conflict", "checker-formality"]
    assert report.findings[0].severity == "warning"


def test_a_dtype_that_is_left_out():
    """A formal point for the checker, and ONNX Runtime refuses it."""
    model = plain(outdated=True)
    model.graph.output[0].type.tensor_type.ClearField("elem_type")
    report = cu.doctor(model)
    assert report.codes == ["runtime-refuses", "shape-conflict", "checker-formality"]
    assert report.findings[2].cause == "onnx.checker says: Field 'elem_type' of 'type' is required but missing."


def test_the_checker_is_quoted_without_its_context():
    model = parsed("g (float[N] x) => (float[N] y) { y = Relu(x, x) }")
    model.graph.node[0].name = "long" * 200
    (finding,) = (f for f in cu.doctor(model).findings if f.code.id == "checker-objects")
    said = finding.cause.partition(" ONNX Runtime says")[0]
    assert said.startswith("onnx.checker says: Node(longlong")
    assert "==>" not in said
    assert "  " not in said
    assert len(said) < 450


# Functions


def calling(*functions: str) -> onnx.ModelProto:
    """y = F(x), and functions such as `F: b = Relu(a)`."""
    model = parsed("g (float[4] x) => (float[4] y) { y = my.own.F(x) }", more=', "my.own": 1')
    for text in functions:
        name, body = text.split(": ", 1)
        header = '<domain: "my.own", opset_import: ["": 21, "my.own": 1]>'
        model.functions.append(onnx.parser.parse_function(f"{header} {name} (a) => (b) {{ {body} }}"))
    return model


BRANCHES = "s = ReduceMax<keepdims = 0>(a)  c = Greater(s, s)  b = If (c) <then_branch = t () => (float[4] u) {{ u = {}(a) }}, else_branch = e () => (float[4] v) {{ v = Neg(a) }}>"
RECURSIVE = {
    "itself": (["F: b = my.own.F(a)"], "F"),
    "each other": (["F: b = my.own.G(a)", "G: b = my.own.F(a)"], "F"),
    "not the one that is called": (["F: b = my.own.G(a)", "G: b = my.own.H(a)", "H: b = my.own.G(a)"], "G"),
    "one of two calls": (["F: c = my.own.H(a)  b = my.own.G(c)", "H: b = Relu(a)", "G: d = my.own.H(a)  b = my.own.F(d)"], "F"),
    "in a branch": ([f"F: {BRANCHES.format('my.own.F')}"], "F"),
    "no": (["F: c = my.own.G(a)  b = my.own.H(c)", "G: b = my.own.H(a)", "H: b = Relu(a)"], None),
    "no, a standard operator of that name": (["F: b = my.own.Relu(a)", "Relu: b = Relu(a)"], None),
    "no, in a branch": ([f"F: {BRANCHES.format('my.own.H')}", "H: b = Relu(a)"], None),
}  # fmt: skip


@pytest.mark.parametrize("kind", RECURSIVE)
def test_functions_that_call_themselves(kind):
    functions, name = RECURSIVE[kind]
    report = cu.doctor(calling(*functions))
    assert report.codes == ([] if name is None else ["recursive-function"])
    if name:
        assert report.findings[0].cause.startswith(f"my.own::{name} is called within itself.")
        assert [str(place) for place in report.findings[0].where] == [f"function 'my.own::{name}'"]


# Types


def kind_of(kind: str) -> onnx.TypeProto:
    """Such as `seq(float[N])`, as an input of a model has it."""
    return parsed(f"g ({kind} x) => (float[N] y) {{ y = Relu(z) }}").graph.input[0].type


@pytest.mark.parametrize(
    "kind",
    [
        "float[N]",
        "seq(float[N])",
        "optional(float[N])",
        "optional(seq(float[N]))",
        "map(int64, float)",
        "seq(map(int64, float))",
    ],
)
def test_a_type_says_what_is_in_it(kind):
    def fed(say: onnx.TypeProto) -> list[str]:
        model = parsed("g (float[N] x) => (float[N] y) { y = Relu(x) }")
        model.graph.input.add(name="more").type.CopyFrom(say)
        return found(model)

    told = kind_of(kind)
    assert "input-type-missing" not in fed(told)
    inner = told
    while inner.WhichOneof("value") in ("sequence_type", "optional_type"):
        inner = getattr(inner, inner.WhichOneof("value")).elem_type
    if inner.HasField("tensor_type"):
        inner.tensor_type.elem_type = 0
        assert "input-type-missing" in fed(told)
    inner.ClearField(inner.WhichOneof("value"))
    assert "input-type-missing" in fed(told)


def test_all_inputs_without_a_type_are_named():
    model = parsed("g (float[N] a, float[N] b, float[N] c) => (float[N] y) { d = Add(a, b)  y = Add(c, d) }")
    for i in (0, 2):
        model.graph.input[i].ClearField("type")
    (finding,) = (f for f in cu.doctor(model).findings if f.code.id == "input-type-missing")
    assert finding.cause.startswith("2 inputs: a, c.")
    assert [str(place) for place in finding.where] == ["input 'a'", "input 'c'"]


# What nobody reads


def test_nodes_that_only_dead_nodes_read_are_dead():
    model = parsed("g (float[N] x) => (float[N] y) { a = Relu(x)  b = Neg(a)  c = Tanh(x)  y = Abs(c) }")
    (finding,) = cu.doctor(model).findings
    assert finding.code.id == "dead-nodes"
    assert finding.cause == "The results of 2 nodes reach no output."
    assert [place.name for place in finding.where] == ["a", "b"]


@pytest.mark.parametrize(
    ("body", "stored", "code"),
    [("d = Neg(x)  ", {}, "dead-nodes"), ("", {"d": weights(40, 40)}, "unused-weights")],
)
def test_an_input_of_a_body_hides_what_has_its_name(body, stored, code):
    """ONNX Runtime loads it: the body reads what is its own. Where the input has another name, it reads what is outside."""
    graph = """g (float[40, 40] x, int64 i) => (float[40, 40] y) { BODY y = Loop(i, , x)
        <body = b (int64 n, bool c, float[40, 40] d) => (bool k, float[40, 40] o) { k = Identity(c)  o = Abs(d) }> }"""
    assert found(parsed(graph.replace("BODY", body), stored)) == [code]
    assert found(parsed(graph.replace("BODY", body).replace("[40, 40] d)", "[40, 40] e)"), stored)) == []


@pytest.mark.parametrize("dead", [True, False])
def test_what_only_a_branch_reads_is_not_dead(dead):
    model = parsed(
        f"""g (bool c, float[4] x) => (float[4] y) {{ a = Relu(x)
        y = If (c) <then_branch = p () => (float[4] t) {{ h = Neg({"x" if dead else "a"})  t = Abs(h) }},
                    else_branch = q () => (float[4] e) {{ e = Tanh(x) }}> }}"""
    )
    assert found(model) == (["dead-nodes"] if dead else [])


def stored(used: int, unused: int, more: int = 0) -> onnx.ModelProto:
    """A model that multiplies with so many numbers, and stores so many for nothing."""
    model = parsed(f"g (float[N, {used}] x) => (float[N, {used}] y) {{ y = Mul(x, w) }}", {"w": weights(used)})
    model.graph.initializer.append(numpy_helper.from_array(weights(unused), "left"))
    if more:
        model.graph.initializer.append(numpy_helper.from_array(weights(more), "over"))
    return model


@pytest.mark.parametrize(
    ("used", "unused", "codes"),
    [(4, 1024, []), (4, 1025, ["unused-weights"]), (490_000, 10_000, []), (489_987, 10_000, ["unused-weights"])],
)
def test_where_unused_weights_begin(used, unused, codes):
    """More than 4 KiB, and more than a fiftieth of all."""
    assert found(stored(used, unused)) == codes


@pytest.mark.parametrize(("size", "codes"), [(4096, []), (4097, ["unused-weights"])])
def test_texts_count_nothing(size, codes):
    model = stored(4, 4)
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.ones(size, np.uint8), "left"))
    model.graph.initializer.append(helper.make_tensor("words", TensorProto.STRING, [2], [b"a", b"b"]))
    assert found(model) == codes


def test_unused_weights_are_added_up():
    report = cu.doctor(stored(1000, 2000, 1000))
    assert report.findings[0].cause == "2 tensors of 12.0 kB; the weights have 16.0 kB in all."
    assert [place.name for place in report.findings[0].where] == ["left", "over"]


def test_weights_of_a_branch():
    """A branch may store what a graph inside it reads, or nobody."""
    graph = """g (bool c, float[2000] x) => (float[2000] y) {{
        y = If (c) <then_branch = p () => (float[2000] t) {{ t = Mul(x, {}) }}, else_branch = q () => (float[2000] e) {{ e = Tanh(x) }}> }}"""
    for name, codes in (("w", []), ("x", ["unused-weights"])):
        model = parsed(graph.format(name))
        model.graph.node[0].attribute[0].g.initializer.append(numpy_helper.from_array(weights(2000), "w"))
        report = cu.doctor(model)
        assert report.codes == codes
        assert not codes or str(report.findings[0].where[0]) == "tensor 'w' in If 0 / then_branch"


# Names of nodes


@pytest.mark.parametrize(
    ("ops", "codes"),
    [(("Relu", "Tanh"), ["node-names-repeat"]), (("Constant", "Constant"), []), (("Constant", "Relu"), []), (("Constant", "Relu", "Tanh"), ["node-names-repeat"])],
)  # fmt: skip
def test_names_of_constants_may_repeat(ops, codes):
    """ONNX Runtime takes Constants out of the graph before it looks at the names."""
    steps = {
        "Constant": "k{} = Constant<value_float = 1.0>()  y{} = Add(y{}, k{})",
        "Relu": "y{1} = Relu(y{2})",
        "Tanh": "y{1} = Tanh(y{2})",
    }
    body = "  ".join(steps[op].format(i, i + 1, i, i) for i, op in enumerate(ops))
    model = parsed(f"g (float[N] y0) => (float[N] y{len(ops)}) {{ {body} }}")
    for node in model.graph.node:
        node.name = "same" if node.op_type != "Add" else ""
    report = cu.doctor(model)
    assert report.codes == codes
    if codes:
        assert report.findings[0].cause.startswith("Not unique: the names of 2 nodes, such as 'same'.")
        assert len(report.findings[0].where) == 2


def test_weights_that_may_be_fed_are_named():
    model = parsed(
        "g (float[N, 20] x, float[20] v, float[20] w) => (float[N, 20] y) { a = Add(x, v)  y = Mul(a, w) }",
        {"v": weights(20), "w": weights(20)},
    )
    (finding,) = cu.doctor(model).findings
    assert finding.cause == "2 initializers: v, w."
    assert [str(place) for place in finding.where] == ["input 'v'", "input 'w'"]
