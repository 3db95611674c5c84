"""Where the batch of a recurrent layer is found: behind what keeps the axes, and in the right place of the advice."""

from __future__ import annotations

import pytest
from doctor_models import parsed, weights

import course_utils as cu
from course_utils.diagnosis.report import Report

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def layer(op: str, before: str) -> Report:
    g = GATES[op]
    stored = {"w": weights(1, g * 3, 4), "r": weights(1, g * 3, 3)}
    body = f"{before}  y = {op}<hidden_size = 3>(a, w, r)"
    return cu.doctor(parsed(f"g (float[T, 2, 4] x) => (float[T, 1, 2, 3] y) {{ {body} }}", stored))


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize(
    "before", ["Identity(x)", "Relu(x)", "Tanh(x)", "Neg(x)", "Softmax(x)", "Dropout(x)", "Add(x, x)"]
)
def test_the_batch_is_the_second_axis(op, before):
    report = layer(op, f"a = {before}")
    assert report.codes == ["batch-fixed"]
    assert "axis 1" in report.findings[0].cause
    assert "{1: 'batch'}," in report.findings[0].cure


def test_twice_transposed():
    turn = "Transpose<perm = [1, 0, 2]>"
    assert "axis 1" in layer("GRU", f"b = {turn}(x)  a = {turn}(b)").findings[0].cause
