"""The doctor and nodes that undo each other, or do nothing."""

from __future__ import annotations

import pytest
from doctor_models import found, parsed, weights
from onnx import TensorProto
from test_doctor_findings import casts, row

import course_utils as cu


def test_casts_that_lose_something_do_not_cancel():
    assert found(casts(TensorProto.DOUBLE)) == ["pairs-that-cancel"]
    assert found(casts(TensorProto.FLOAT16)) == []
    assert found(casts(TensorProto.INT32)) == []


THERE_AND_BACK = {
    "casts": (["Cast<to = 11>", "Cast<to = 1>"], 30),
    "casts of whole numbers": (["Cast<to = 7>", "Cast<to = 6>"], 8),
    "transposes": (["Transpose<perm = [0, 2, 1]>"] * 2, 10),
    "transposes of all axes": (["Transpose"] * 2, 7),
}


@pytest.mark.parametrize("kind", THERE_AND_BACK)
def test_there_and_back_again_is_no_loop(kind):
    """Pairs, each counted once; the types within the chain are those that were inferred."""
    pair, times = THERE_AND_BACK[kind]
    model = row(pair * times, "int32[N, 2, 3]" if "whole" in kind else "float[N, 2, 3]")
    report = cu.doctor(model)
    assert report.codes == ["pairs-that-cancel"]
    assert report.findings[0].cause.startswith(f"{times} pairs of nodes")
    odd = cu.doctor(row([*pair, pair[0]], "int32[N, 2, 3]" if "whole" in kind else "float[N, 2, 3]"))
    (finding,) = (f for f in odd.findings if f.code.id == "pairs-that-cancel")
    assert finding.cause.startswith("1 pair of nodes")


def test_only_the_way_back_undoes_a_transpose():
    """Of three axes that go round, the same step again is no way back."""
    there, back = "Transpose<perm = [1, 2, 0]>", "Transpose<perm = [2, 0, 1]>"
    assert found(row(["Relu", there, back, "Tanh"], "float[?, ?, ?]")) == ["pairs-that-cancel"]
    assert found(row(["Relu", there, there, "Tanh"], "float[?, ?, ?]")) == []


def test_chains_of_nodes_that_do_nothing():
    """Of several kinds, and only where they stand in a row; a Dropout in training does something."""
    for steps in (
        ["Identity", "Cast<to = 1>", "Transpose<perm = [0, 1, 2]>"],
        ["Dropout", "Identity", "Dropout", "Identity"],
    ):
        report = cu.doctor(row(["Relu", *steps, "Tanh"]))
        assert report.codes == ["nodes-without-effect"]
        assert report.findings[0].cause.startswith(f"{len(steps)} nodes,")
    assert found(row(["Identity"] * 2)) == []
    assert found(row(["Identity", "Transpose<perm = [0, 2, 1]>", "Identity"], "float[N, 2, 2]")) == []
    assert found(row(["Identity", "Cast<to = 10>", "Cast<to = 1>", "Identity"])) == []
    names_for_weights = "a = Identity(w)  b = Identity(w)  c = Identity(w)  d = Add(x, a)  e = Add(d, b)  y = Add(e, c)"
    assert found(parsed(f"g (float[N, 4] x) => (float[N, 4] y) {{ {names_for_weights} }}", {"w": weights(4)})) == []
