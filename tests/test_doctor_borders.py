"""Where a finding of the doctor begins: a model just below, and one just above."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from doctor_models import found, joined_scores, linear, parsed, quantized, weights
from test_doctor_findings import changed, notes, saturated, spare


@pytest.mark.parametrize(("size", "beside"), [(100, 4), (1200, 512)])
def test_weights_that_waste_little(size, beside):
    """Most of a tiny file, and five kilobytes of a megabyte."""
    assert found(spare(size, beside)) == []


def float64_columns(count: int) -> onnx.ModelProto:
    """256 weights in float32, and 16 in float64 for each column."""
    stored = {"w": weights(16, 16), "v": weights(16, count).astype(np.float64)}
    body = "a = MatMul(x, w)  c = Cast<to = 11>(a)  y = MatMul(c, v)"
    return parsed(f"g (float[N, 16] x) => (double[N, {count}] y) {{ {body} }}", stored)


def stored_twice(size: int, beside: int = 1) -> onnx.ModelProto:
    w = weights(size, size)
    body = "a = MatMul(x, w)  b = MatMul(a, v)  c = MatMul(z, u)"
    graph = f"g (float[N, {size}] x, float[N, {beside}] z) => (float[N, {size}] b, float[N, {beside}] c) {{ {body} }}"
    return parsed(graph, {"w": w, "v": w, "u": weights(beside, beside)})


def added_input(size: int) -> onnx.ModelProto:
    return parsed(
        f"g (float[N, {size}] x, float[{size}] c) => (float[N, {size}] y) {{ y = Add(x, c) }}", {"c": weights(size)}
    )


def relu_of(rows: int) -> onnx.ModelProto:
    """2²⁰ × rows numbers, that nobody stores."""
    return parsed(f"g (float[1048576, {rows}] x) => (float[1048576, {rows}] y) {{ y = Relu(x) }}")


def one_wide(channels: int, pruned: int = 0) -> onnx.ModelProto:
    """One scale for all channels, of which one is far wider than the others, and the last ones hold zeros."""
    w = np.random.default_rng(5).integers(-3, 4, (channels, 64, 3, 3)).astype(np.int8)
    w[0, 0, 0, :2] = 127, -127
    w[channels - pruned :] = 0
    return quantized(w)


# What it begins with → a model just below, one just above, and the code of the latter.
BEGINS = {
    "256 GiB": (lambda: relu_of(2**16), lambda: relu_of(2**16 + 1), "tensor-huge"),
    "a tenth in float64": (lambda: float64_columns(1), lambda: float64_columns(2), "float64"),
    "64 KiB twice": (lambda: stored_twice(128), lambda: stored_twice(130), "weights-stored-twice"),
    "a twentieth twice": (lambda: stored_twice(140, 650), lambda: stored_twice(140, 550), "weights-stored-twice"),
    "four channels, one of them pruned": (lambda: one_wide(3, 1), lambda: one_wide(4, 1), "weights-collapsed"),
    "four channels": (lambda: one_wide(3), lambda: one_wide(4), "weights-collapsed"),
    "16 numbers that may be fed": (lambda: added_input(15), lambda: added_input(16), "weights-are-inputs"),
    "a twentieth at the end": (lambda: saturated(0.04), lambda: saturated(0.07), "weights-saturated"),
    "steps of a quarter": (
        lambda: joined_scores(together=True, scale=0.24), lambda: joined_scores(together=True, scale=0.26), "scores-lost",
    ),
    "64 KiB of notes": (
        changed(linear, lambda m: notes(m, "x" * 60_000)), changed(linear, lambda m: notes(m, "x" * 70_000)), "heavy-notes",
    ),
    "a fifth of notes": (
        changed(lambda: linear(320), lambda m: notes(m, "x" * 90_000)),
        changed(lambda: linear(280), lambda m: notes(m, "x" * 90_000)),
        "heavy-notes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BEGINS)
def test_where_a_finding_begins(what):
    below, above, code = BEGINS[what]
    assert found(below()) == []
    assert found(above()) == [code]
