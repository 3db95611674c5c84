"""Neighbours that could be one node, pairs that undo each other, and nodes that pass on what they are given."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from doctor_models import convolution, found, parsed, weights
from onnx import TensorProto

import course_utils as cu

NAMES = {
    "float": 1, "uint8": 2, "int8": 3, "int16": 5, "int32": 6, "int64": 7, "bool": 9, "float16": 10, "double": 11, "bfloat16": 16,
}  # fmt: skip
HELD = {
    "float16": {"float", "double"}, "bfloat16": {"float", "double"}, "float": {"double"}, "int8": {"int16", "int32", "int64"},
    "uint8": {"int16", "int32", "int64"}, "int32": {"int64"}, "bool": {"uint8", "int8", "int32", "int64", "float"},
}  # fmt: skip
PAIR = "pairs-that-cancel"


def row(
    steps: list[str], kind: str = "float[N, 2, 3]", *, more: str = "", stored: Mapping[str, np.ndarray] | None = None
) -> onnx.ModelProto:
    """y = the steps, one after the other, between two nodes that do something."""
    last = "Not" if kind.startswith("bool") else "Identity"
    body = "  ".join(f"t{i + 1} = {step}(t{i})" for i, step in enumerate(steps))
    return parsed(f"g ({kind} t0) => ({kind} y) {{ {body}  y = {last}(t{len(steps)}) {more} }}", stored)


def times(model: onnx.ModelProto, code: str) -> int:
    """How many places a finding has."""
    return sum(f.count for f in cu.doctor(model).findings if f.code.id == code)


# Casts


@pytest.mark.parametrize("through", NAMES)
@pytest.mark.parametrize("dtype", HELD)
def test_a_cast_and_back_loses_nothing_where_all_values_fit(dtype, through):
    model = row([f"Cast<to = {NAMES[through]}>", f"Cast<to = {NAMES[dtype]}>"], f"{dtype}[N]")
    assert times(model, PAIR) == (through in HELD[dtype])


def test_a_cast_to_a_third_dtype_is_no_way_back():
    assert times(row(["Cast<to = 11>", "Cast<to = 10>", "Cast<to = 1>"]), PAIR) == 0
    assert times(row(["Cast<to = 11>", "Cast<to = 1>"]), PAIR) == 1
    assert times(row(["Cast<to = 7>", "Cast<to = 6>"], "int32[N]"), PAIR) == 1
    assert times(row(["Cast<to = 6>", "Cast<to = 7>"], "int64[N]"), PAIR) == 0, "large numbers do not fit"


def in_a_branch(first: str, second: str, name: str = "x") -> onnx.ModelProto:
    return parsed(
        f"""g (bool c, float[N] x) => (float[N] y) {{
        y = If (c) <then_branch = a () => (float[N] t) {{ u = {first}({name})  t = {second}(u) }},
                    else_branch = b () => (float[N] e) {{ e = Tanh(x) }}> }}"""
    )


def test_types_within_branches_are_not_known():
    """Unless the branch itself tells them."""
    cast = "Cast<to = 11>", "Cast<to = 1>"
    model = in_a_branch(*cast)
    assert times(model, PAIR) == 0
    branch = model.graph.node[0].attribute[0].g
    branch.node.insert(0, onnx.helper.make_node("Relu", ["x"], ["r"]))
    branch.node[1].input[0] = "r"
    assert times(model, PAIR) == 0
    branch.value_info.append(onnx.helper.make_tensor_value_info("r", TensorProto.FLOAT, ["N"]))
    assert times(model, PAIR) == 1
    assert times(in_a_branch("Transpose<perm = [0]>", "Transpose<perm = [0]>"), PAIR) == 1


# Transposes


@pytest.mark.parametrize(
    ("there", "back", "undone"),
    [
        ("<perm = [0, 2, 1]>", "<perm = [0, 2, 1]>", True), ("<perm = [1, 2, 0]>", "<perm = [2, 0, 1]>", True),
        ("<perm = [1, 2, 0]>", "<perm = [1, 2, 0]>", False), ("", "", True), ("", "<perm = [2, 1, 0]>", False),
        ("<perm = [2, 1, 0]>", "", False), ("<perm = [2, 1, 0]>", "<perm = [0, 1, 2]>", False),
    ],
)  # fmt: skip
def test_the_way_back_of_a_transpose(there, back, undone):
    assert times(row([f"Transpose{there}", f"Transpose{back}"], "float[?, ?, ?]"), PAIR) == undone


def test_lists_of_axes_that_are_no_order_of_them():
    """Of another length, or with an axis that is not there: an error of another kind, and no pair."""
    for there, back in (
        ("[0, 2, 1]", "[0, 1]"),
        ("[1, 0]", "[1, 0, 2]"),
        ("[0, 2, 1]", "[0, 7, 1]"),
        ("[0, 0, 1]", "[0, 2, 1]"),
    ):
        model = row([f"Transpose<perm = {there}>", f"Transpose<perm = {back}>"], "float[?, ?, ?]")
        assert PAIR not in found(model), (there, back)


def test_neighbours_are_of_one_kind_and_have_one_reader():
    assert times(row(["Transpose<perm = [0, 2, 1]>", "Cast<to = 11>", "Cast<to = 1>"]), PAIR) == 1
    assert times(row(["Transpose<perm = [0, 2, 1]>", "Relu", "Transpose<perm = [0, 2, 1]>"]), PAIR) == 0
    two = ["Transpose<perm = [0, 2, 1]>"] * 2
    assert times(row(two, more="z = Relu(t1)"), PAIR) == 0, "somebody else reads what is between them"
    shown = row(two)
    shown.graph.output.append(onnx.helper.make_tensor_value_info("t1", 1, ["N", 3, 2]))
    assert times(shown, PAIR) == 0, "it is an output"
    inside = parsed(
        """g (bool c, float[N, 2] x) => (float[N, 2] y, float[?, ?] z) { t = Transpose(x)  y = Transpose(t)
        z = If (c) <then_branch = a () => (float[?, ?] v) { v = Relu(t) }, else_branch = b () => (float[?, ?] e) { e = Tanh(x) }> }"""
    )
    assert times(inside, PAIR) == 0, "a branch reads it"


@pytest.mark.parametrize(("steps", "pairs"), [(2, 1), (3, 1), (4, 2), (5, 2), (6, 3)])
def test_each_pair_is_counted_once(steps, pairs):
    model = row(["Transpose<perm = [0, 2, 1]>"] * steps, "float[N, 3, 3]")
    (finding,) = [f for f in cu.doctor(model).findings if f.code.id == PAIR]
    assert (
        finding.cause == f"{pairs} pair{'s' * (pairs > 1)} of nodes, one behind the other, whose result is their input."
    )
    assert [place.index for place in finding.where] == list(range(0, 2 * pairs, 2))


# BatchNormalization behind a convolution


def normalised(
    conv: str = "Conv(x, w)",
    norm: str = "BatchNormalization(c, s, b, m, v)",
    more: str = "",
    *,
    w: np.ndarray | None = None,
) -> onnx.ModelProto:
    stored = {
        "w": weights(4, 4, 3, 3) if w is None else w,
        "k": weights(4),
        "s": weights(4),
        "b": weights(4),
        "m": weights(4),
        "v": np.ones(4, np.float32),
    }
    body = f"c = {conv}  y = {norm}  {more}"
    used = {k: v for k, v in stored.items() if any(f" {k}{right}" in body for right in "),")}
    return parsed(f"g (float[N, 4, 8, 8] x, float[4] fed) => (float[?, ?, ?, ?] y) {{ {body} }}", used)


@pytest.mark.parametrize(
    ("conv", "norm", "folds"),
    [
        ("Conv(x, w)", "BatchNormalization(c, s, b, m, v)", True), ("Conv(x, w, k)", "BatchNormalization(c, s, b, m, v)", True),
        ("ConvTranspose(x, w)", "BatchNormalization(c, s, b, m, v)", True), ("Relu(x)", "BatchNormalization(c, s, b, m, v)", False),
        ("Conv(x, w, fed)", "BatchNormalization(c, s, b, m, v)", False), ("Conv(x, w)", "BatchNormalization(c, fed, b, m, v)", False),
        ("Conv(x, w)", "BatchNormalization(c, s, b, m, fed)", False), ("Conv(x, w)", "InstanceNormalization(c, s, b)", False),
        ("Conv(x, w, )", "BatchNormalization(c, s, b, m, v)", True), ("Conv(x)", "BatchNormalization(c, s, b, m, v)", False),
    ],
)  # fmt: skip
def test_which_pairs_can_be_one_convolution(conv, norm, folds):
    assert times(normalised(conv, norm), "batchnorm-not-folded") == folds


def test_what_else_reads_the_convolution():
    assert "batchnorm-not-folded" not in found(normalised(more="z = Relu(c)"))
    in_training = normalised(norm="BatchNormalization<training_mode = 1>(c, s, b, m, v)")
    assert "batchnorm-not-folded" not in found(in_training)
    assert "batchnorm-in-training" in found(in_training)
    (finding,) = cu.doctor(convolution(batchnorm=True)).findings
    assert (finding.cause, finding.where[0].index) == ("1 pair with constant weights.", 0)


# Nodes that do nothing


@pytest.mark.parametrize(
    ("step", "passes"),
    [
        ("Identity", True), ("Cast<to = 1>", True), ("Cast<to = 11>", False), ("Dropout", True), ("Transpose<perm = [0, 1, 2]>", True),
        ("Transpose<perm = [0, 2, 1]>", False), ("Transpose", False), ("Relu", False),
    ],
)  # fmt: skip
def test_which_nodes_pass_on_what_they_are_given(step, passes):
    body = f"a = Relu(x)  b = Identity(a)  c = {step}(b)  d = Identity(c)  y = Tanh(d)"
    assert times(parsed(f"g (float[N, 3, 3] x) => (float[?, ?, ?] y) {{ {body} }}"), "nodes-without-effect") == (
        3 if passes else 0
    )


def test_a_transpose_of_one_axis_may_be_there_for_a_name():
    body = "a = Relu(x)  b = Transpose<perm = [0]>(a)  c = Transpose<perm = [0]>(b)  d = Identity(c)  y = Tanh(d)"
    assert "nodes-without-effect" not in found(parsed(f"g (float[N] x) => (float[N] y) {{ {body} }}"))


@pytest.mark.parametrize(("length", "counted"), [(1, 0), (2, 0), (3, 3), (7, 7)])
def test_three_in_a_row_are_some(length, counted):
    def chain(names: str) -> str:
        return (
            f"{names}0 = Relu(x)  "
            + "  ".join(f"{names}{i + 1} = Identity({names}{i})" for i in range(length))
            + f"  {names} = Tanh({names}{length})"
        )

    for heads, graph in ((1, "float[N] a"), (2, "float[N] a, float[N] b")):
        body = "  ".join(chain(name) for name in "ab"[:heads])
        model = parsed(f"g (float[N] x) => ({graph}) {{ {body} }}")
        assert times(model, "nodes-without-effect") == counted * heads
        if counted:
            (finding,) = cu.doctor(model).findings
            assert finding.cause == f"{counted * heads} nodes, one behind the other, give what they are given."
            assert [place.index for place in finding.where][:3] == [1, 2, 3]


def test_where_a_row_ends():
    """At a second reader, and at an output."""
    graph = "g (float[N] x) => (float[N] y{}) {{ a = Relu(x)  b = Identity(a)  c = Identity(b)  d = Identity(c)  e = Identity(d)  y = Tanh(e) {} }}"
    assert times(parsed(graph.format("", "")), "nodes-without-effect") == 4
    assert times(parsed(graph.format(", float[N] z", "z = Relu(c)")), "nodes-without-effect") == 0
    assert times(parsed(graph.format(", float[N] b", "")), "nodes-without-effect") == 0
    assert times(parsed(graph.format(", float[N] z", "z = Relu(b)")), "nodes-without-effect") == 0


def test_a_circle_of_nodes_that_do_nothing_ends():
    model = parsed("g (float[N] x) => (float[N] y) { a = Identity(c)  b = Identity(a)  c = Identity(b)  y = Relu(x) }")
    assert "cycle" in found(model)
