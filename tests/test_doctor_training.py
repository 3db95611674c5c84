"""Layers that were exported as they are in training, in every opset."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from doctor_models import found, parsed, weights

import course_utils as cu

DROPOUT, NORM, STATISTICS = "dropout-in-training", "batchnorm-in-training", "batchnorm-without-statistics"


def dropout(arguments: str, opset: int = 21, attributes: str = "", **stored: object) -> onnx.ModelProto:
    graph = f"g (float[N] x, bool fed) => (float[N] y) {{ y = Dropout{attributes}(x{arguments}) }}"
    return parsed(graph, {k: np.asarray(v) for k, v in stored.items()}, opset=opset)


HALF, NONE = np.float32(0.5), np.float32(0)


@pytest.mark.parametrize(
    ("model", "drops"),
    [
        (lambda: dropout(", r, t", r=HALF, t=True), True), (lambda: dropout(", r, t", r=HALF, t=False), False),
        (lambda: dropout(", r, t", r=NONE, t=True), False), (lambda: dropout(", , t", t=True), True), (lambda: dropout(", , t", t=False), False),
        (lambda: dropout(", r", r=HALF), False), (lambda: dropout(""), False), (lambda: dropout(", r, fed", r=HALF), False),
        (lambda: dropout(", r, t", 12, r=HALF, t=True), True), (lambda: dropout("", 11), False), (lambda: dropout("", 7), False),
        (lambda: dropout("", 6, "<is_test = 0>"), True), (lambda: dropout("", 6, "<is_test = 1>"), False), (lambda: dropout("", 6), True),
        (lambda: dropout("", 6, "<ratio = 0.0>"), False), (lambda: dropout("", 6, "<ratio = 0.3>"), True), (lambda: dropout("", 1), True),
    ],
)  # fmt: skip
def test_whether_a_dropout_drops(model, drops):
    """Up to opset 6 an attribute said so, from 12 on an input; in between there was no training."""
    assert (DROPOUT in found(model())) == drops


def test_what_is_said_of_dropout():
    two = "a = Dropout(x, r, t)  y = Dropout(a, r, t)"
    model = parsed(f"g (float[N] x) => (float[N] y) {{ {two} }}", {"r": np.asarray(HALF), "t": np.asarray(True)})
    assert (
        cu.doctor(model).findings[0].cause
        == "Values are set to zero at random, in 2 nodes: each run gives other numbers."
    )


def norm(
    out: str = "y",
    opset: int = 21,
    attributes: str = "",
    more: str = "",
    mean: str = "m",
    var: str = "v",
    **other: np.ndarray,
) -> onnx.ModelProto:
    stored = {
        "s": weights(3),
        "b": weights(3),
        "m": weights(3),
        "v": np.ones(3, np.float32),
        "a": np.array([0, 2]),
        **other,
    }
    body = f"{more}  {out} = BatchNormalization{attributes}(x, s, b, {mean}, {var})"
    used = {k: v for k, v in stored.items() if any(f"{left}{k}{right}" in body for left in "( " for right in "),")}
    return parsed(f"g (float[N, 3, 4] x, float[3] fed) => (float[N, 3, 4] y) {{ {body} }}", used, opset=opset)


@pytest.mark.parametrize(
    ("model", "by_batch"),
    [
        (lambda: norm("y", 21, "<training_mode = 1>"), True), (lambda: norm("y, m2, v2", 14, "<training_mode = 1>"), True),
        (lambda: norm("y", 21, "<training_mode = 0>"), False), (lambda: norm("y", 21), False), (lambda: norm("y", 14), False),
        (lambda: norm("y", 13), False), (lambda: norm("y, m2", 13), True), (lambda: norm("y, m2, v2, m3, v3", 7), True), (lambda: norm("y", 7), False),
        (lambda: norm("y, , ", 13), False), (lambda: norm("y", 6, "<is_test = 1>"), False), (lambda: norm("y", 6, "<is_test = 0>"), True),
        (lambda: norm("y", 6), True),
    ],
)  # fmt: skip
def test_whether_a_norm_takes_the_batch(model, by_batch):
    """Up to opset 6 and from 14 on an attribute says so, in between the number of results."""
    made = model()
    for node in made.graph.node:  # the text form has no way to leave one out
        for i, name in enumerate(node.output):
            node.output[i] = "" if name == "_" else name
    assert (NORM in found(made)) == by_batch


MEAN, SQUARES = "mean = ReduceMean<keepdims = 0>(x, a)", "q = Mul(x, x)  var = ReduceMean<keepdims = 0>(q, a)"


@pytest.mark.parametrize(
    ("model", "without"),
    [
        (lambda: norm(more=f"{MEAN}  {SQUARES}", mean="mean", var="var"), True), (lambda: norm(more=MEAN, mean="mean", var="fed"), True),
        (lambda: norm(more=SQUARES, mean="fed", var="var"), True), (lambda: norm(more=MEAN, mean="mean"), False),
        (lambda: norm(more=SQUARES, var="var"), False), (lambda: norm(mean="fed", var="fed"), False), (norm, False),
        (lambda: norm(more="mean = Neg(m)  var = Exp(v)", mean="mean", var="var"), False),
        (lambda: norm(more="h = Shape(x)  f = Cast<to = 1>(h)  mean = Neg(f)  var = Exp(f)", mean="mean", var="var"), False),
        (lambda: norm(more="h = Size(x)  f = Cast<to = 1>(h)  mean = Mul(m, f)  var = Exp(fed)", mean="mean", var="var"), False),
        (lambda: norm(more="mean = Mul(fed, m)  var = Exp(fed)", mean="mean", var="var"), False),
    ],
)  # fmt: skip
def test_whether_mean_and_variance_are_of_the_data(model, without):
    assert (STATISTICS in found(model())) == without


def test_a_norm_without_statistics_is_told_once():
    """And not as one in training, whose cure would not help."""
    made = norm("y", 21, "<training_mode = 1>", f"{MEAN}  {SQUARES}", "mean", "var")
    assert [c for c in found(made) if c in (NORM, STATISTICS)] == [STATISTICS]
    two = norm("y", 21, "<training_mode = 1>", "z, m2, v2 = BatchNormalization<training_mode = 1>(x, s, b, m, v)")
    (cause,) = [f.cause for f in cu.doctor(two).findings if f.code.id == NORM]
    assert cause == "Mean and variance come from the batch that is fed, in 2 nodes: a result depends on its neighbours."
    (cause,) = [f.cause for f in cu.doctor(made).findings if f.code.id == STATISTICS]
    assert "for 1 node:" in cause


def test_data_behind_another_layer():
    """The data of the norm is what it is fed, not only what the model is fed; and a circle of names ends."""
    stored = {"s": weights(3), "b": weights(3), "a": np.array([0, 2])}
    graph = "g (float[N, 3, 4] x) => (float[N, 3, 4] y) {{ h = Relu(x)  mean = ReduceMean<keepdims = 0>({0}, a)  q = Mul({0}, {0})  var = ReduceMean<keepdims = 0>(q, a)  y = BatchNormalization(h, s, b, mean, var) }}"
    for data in ("h", "x"):
        assert STATISTICS in found(parsed(graph.format(data), stored))
    circle = parsed(graph.format("h").replace("Relu(x)", "Add(x, y)"), stored)
    assert "cycle" in found(circle)


def test_a_file_without_an_opset_for_these():
    """That is an error of its own, and no check stops at it."""
    stored = {
        "w": weights(3, 3, 1),
        "s": weights(3),
        "r": np.asarray(HALF),
        "t": np.asarray(True),
        "q": np.full(5, 0.1, np.float32),
        "z": np.zeros(5, np.int8),
    }
    body = "c = Conv(x, w)  n = BatchNormalization(c, s, s, s, s)  d = Dropout(n, r, t)  i = Dropout(d)  e = QuantizeLinear(i, q, z)  y = DequantizeLinear(e, q, z)"
    model = parsed(f"g (float[N, 3, 4] x) => (float[N, 3, 4] y) {{ {body} }}", stored)
    del model.opset_import[:]
    assert found(model)[0] == "opset-missing"


def test_an_input_too_many_is_no_matter_of_dtypes():
    """Up to opset 11 a Dropout had one input."""
    made = dropout(", r, t", 11, r=HALF, t=True)
    assert "dtypes-differ" not in found(made)
    assert cu.doctor(made).errors
