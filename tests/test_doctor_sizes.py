"""The doctor and sizes: what is free by the file, and frozen inside. Models as people report them, each with healthy twins."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from doctor_models import found, parsed, weights

import course_utils as cu

# Sizes


def attention(frozen: int | None) -> onnx.ModelProto:
    """Heads cut out of a text, [length, batch · heads, 4], as nn.MultiheadAttention does it; the length may be a number."""
    stored = {"k": np.array([frozen or 0, -1, 4]), "w": weights(4, 4), "b": np.array([0, 0, 8])}
    body = "t = Transpose<perm = [1, 0, 2]>(x)  r = Reshape(t, k)  m = MatMul(r, w)  {}  y = Transpose<perm = [1, 0, 2]>(o)"
    back = "o = Reshape(m, j)"
    stored |= {"j": np.array([frozen or -1, 1 if frozen else 0, 8])} if frozen else {}
    if not frozen:
        back = "s = Shape(t)  o = Reshape(m, s)"
    del stored["b"]
    return parsed(f"g (float[batch, length, 8] x) => (float[batch, length, 8] y) {{ {body.format(back)} }}", stored)


def positions(rows: int | None, into: str = "Add") -> onnx.ModelProto:
    """Embeddings of words and of positions; for `rows` positions, or looked up by the length."""
    stored = {"t": weights(10, 4), "p": weights(1, rows or 300, 4)}
    cut = "" if rows else "s = Shape<start = 1, end = 2>(i)  c = Slice(p, z, s, a)  "
    stored |= {} if rows else {"z": np.array([0]), "a": np.array([1])}
    return parsed(
        f"g (int64[batch, length] i) => (float[batch, length, 4] y) {{ e = Gather(t, i)  {cut}y = {into}(e, {'p' if rows else 'c'}) }}",
        stored,
    )


def expanded(frozen: bool) -> onnx.ModelProto:
    """ONNX Runtime's words for an Expand tell no sizes."""
    stored = {"k": np.array([1, 7, 4])} if frozen else {"k": np.array([1, 1, 4])}
    return parsed("g (float[N, L, 4] x) => (float[N, L, 4] y) { y = Expand(x, k) }", stored)


def flattened(frozen: bool) -> onnx.ModelProto:
    """A picture network whose last layer counts on 12 × 12; or takes the mean of what there is."""
    stored = {"w": weights(4, 3, 3, 3), "v": weights(400 if frozen else 4, 5)}
    middle = "f = Flatten(c)" if frozen else "p = GlobalAveragePool(c)  f = Flatten(p)"
    return parsed(f"g (float[N, 3, H, W] x) => (float[N, 5] y) {{ c = Conv(x, w)  {middle}  y = Gemm(f, v) }}", stored)


def joined(frozen: bool) -> onnx.ModelProto:
    stored = {"w": weights(1, 6, 4)} if frozen else {"w": weights(1, 1, 4)}
    axis = 2 if frozen else 1
    return parsed(f"g (float[1, L, 4] x) => (float[1, ?, ?] y) {{ y = Concat<axis = {axis}>(x, w) }}", stored)


FROZEN = {
    "attention at length 5": (lambda: attention(5), lambda: attention(None), "'length' = 5"),
    "positions at length 6": (lambda: positions(6), lambda: positions(None), "'length' = 6"),
    "positions at length 9, multiplied": (lambda: positions(9, "Mul"), lambda: positions(None, "Mul"), "'length' = 9"),
    "an Expand": (lambda: expanded(True), lambda: expanded(False), "'L' = 7"),
    "pictures of 12 × 12": (lambda: flattened(True), lambda: flattened(False), "'H' = 12 and 'W' = 12"),
    "a Concat": (lambda: joined(True), lambda: joined(False), "'L' = 6"),
}


@pytest.mark.parametrize("kind", FROZEN)
def test_a_size_that_is_frozen_inside(kind):
    """A warning, not an error: its author may feed this one size. The node is named where it has a name."""
    sick, twin, words = FROZEN[kind]
    report = cu.doctor(sick(), run=True)
    assert "size-not-free" in report.codes, report
    assert not report.errors
    (finding,) = [f for f in report.findings if f.code.id == "size-not-free"]
    assert words in finding.cause
    named_twin = sick()
    for i, node in enumerate(named_twin.graph.node):
        node.name = f"node {i}"
    (finding,) = [f for f in cu.doctor(named_twin, run=True).findings if f.code.id == "size-not-free"]
    assert finding.where[0].name.startswith("node ")
    report = cu.doctor(twin(), run=True)
    assert [c for c in report.codes if c != "shape-unknown"] == []
    assert not [text for text in report.not_checked if "run" in text]


def test_no_size_that_was_tried_runs():
    """2300 would fit; so large a size is not tried."""
    model = parsed("g (float[N, L, 4] x) => (float[?, ?, ?] y) { y = Reshape(x, k) }", {"k": np.array([-1, 2300, 4])})
    report = cu.doctor(model, run=True)
    assert report.codes == ["size-not-free"]
    assert "No size that was tried runs" in report.findings[0].cause
    assert "'L' = 16, 32, 64" in report.findings[0].cause


def test_words_that_tell_no_sizes_prove_nothing():
    """The same words for all sizes, as they name none: that is no sign that no size fits."""
    model = parsed("g (float[3, 1, L] x) => (float[?, 1, 4] y) { y = MatMul(x, w) }", {"w": weights(2300, 4)})
    report = cu.doctor(model, run=True)
    assert report.codes == ["size-not-free"]
    assert "MatMul dimension mismatch" in report.findings[0].cause


def test_an_output_that_differs_because_a_size_is_frozen_is_no_second_finding():
    model = parsed("g (float[1, L, 4] x) => (float[1, L, 4] y) { y = Add(x, p) }", {"p": weights(1, 2300, 4)})
    report = cu.doctor(model, run=True)
    assert report.codes == ["size-not-free"]
    assert "It runs with 'L' = 1, and not with" in report.findings[0].cause


def broken(body: str, stored: Mapping[str, np.ndarray], inputs: str = "float[N, 6] x") -> onnx.ModelProto:
    return parsed(f"g ({inputs}) => (float[?, ?] y) {{ {body} }}", stored)


BROKEN = {
    "channels of a Conv": (
        lambda: parsed(
            "g (float[N, 3, H, W] x) => (float[N, 8, ?, ?] y) { y = Conv(x, w) }", {"w": weights(8, 4, 3, 3)}
        ),
        lambda: parsed(
            "g (float[N, 3, H, W] x) => (float[N, 8, ?, ?] y) { y = Conv(x, w) }", {"w": weights(8, 3, 3, 3)}
        ),
    ),
    "an index beyond the end": (
        lambda: broken("y = Gather<axis = 1>(x, i)", {"i": np.array([9])}),
        lambda: broken("y = Gather<axis = 1>(x, i)", {"i": np.array([5])}),
    ),
    "an index beyond the end, for words": (
        lambda: broken(
            "e = Gather(t, i)  y = Gather(t, n)", {"t": weights(10, 4), "n": np.array([12])}, "int64[N, L] i"
        ),
        lambda: broken(
            "e = Gather(t, i)  y = Gather(t, n)", {"t": weights(10, 4), "n": np.array([2])}, "int64[N, L] i"
        ),
    ),
    "numbers that cannot be cut so": (
        lambda: broken("r = Reshape(x, s)  y = Relu(r)", {"s": np.array([0, 4])}),
        lambda: broken("r = Reshape(x, s)  y = Relu(r)", {"s": np.array([-1, 3])}),
    ),
    "pieces that do not add up": (
        lambda: broken("y, z = Split<axis = 1>(x, s)", {"s": np.array([3, 4])}, "float[N, K] x"),
        lambda: broken("y, z = Split<axis = 1>(x, s)", {"s": np.array([3, 3])}, "float[N, 6] x"),
    ),
}


@pytest.mark.parametrize("kind", sorted(set(BROKEN) - {"pieces that do not add up"}))
def test_a_node_that_fits_no_input(kind):
    """Whatever the free sizes are: an error, though the model loads."""
    sick, twin = BROKEN[kind]
    report = cu.doctor(sick(), run=True)
    assert [f.code.id for f in report.errors] == ["run-fails"], report
    assert not cu.doctor(sick()).errors
    assert not [c for c in found(twin(), run=True) if c not in ("dead-nodes", "shape-unknown")]


def test_a_size_that_only_one_number_fits_is_no_error():
    """K = 7 runs: the file may be meant for it."""
    report = cu.doctor(BROKEN["pieces that do not add up"][0](), run=True)
    assert not report.errors
    assert "size-not-free" in report.codes
    assert "'K' = 7" in next(f.cause for f in report.findings if f.code.id == "size-not-free")


def test_sizes_that_belong_together_are_no_finding():
    """A cache and a mask as long as cache and text; two inputs of one batch under two names; formulas; steps of eight."""
    cache = """g (float[b, s, 4] x, float[b, p, 4] past, float[b, total] mask) => (float[b, s, total] y) {
        k = Concat<axis = 1>(past, x)  t = Transpose<perm = [0, 2, 1]>(k)  a = MatMul(x, t)  u = Unsqueeze(mask, one)  y = Add(a, u) }"""
    one = {"one": np.array([1])}
    formula = parsed(cache, one)
    for value in (formula.graph.input[2], formula.graph.output[0]):
        value.type.tensor_type.shape.dim[-1].dim_param = "p + s"
    assert found(formula, run=True) == []
    pair = "g (float[n, 4] x, float[m, 4] z) => (float[n, 4] y) { y = Mul(x, z) }"
    square = "g (float[n, m] x) => (float[n, m] y) { a = MatMul(x, x)  y = Relu(a) }"
    eight = """g (float[1, 1, H, W] x) => (float[1, 2, H, W] y) {
        p = MaxPool<kernel_shape = [8, 8], strides = [8, 8]>(x)  u = Resize<mode = "nearest">(p, , k)  y = Concat<axis = 1>(x, u) }"""
    for graph, stored in (
        (cache, one), (pair, {}), (square, {}), (eight, {"k": np.array([1, 1, 8, 8], np.float32)}),
    ):  # fmt: skip
        assert found(parsed(graph, stored), run=True) == [], graph


def test_what_was_not_probed_is_said():
    """A mask must be as long as cache and text. It runs with an empty cache; how the sizes hang together is not found out."""
    graph = """g (float[b, s, 4] x, float[b, p, 4] past, float[b, total] mask) => (float[b, s, 1] y) {
        k = Concat<axis = 1>(past, x)  t = Transpose<perm = [0, 2, 1]>(k)  a = MatMul(x, t)  u = Unsqueeze(mask, one)  y = MatMul(a, u) }"""
    report = cu.doctor(parsed(graph, {"one": np.array([2])}), run=True)
    assert report.codes == []
    (text,) = [t for t in report.not_checked if "Whether others run" in t]
    assert "'p'" in text


def recurrent(
    op: str, state: str, *, time_first: bool = False, time: str = "time", batch: str = "batch"
) -> onnx.ModelProto:
    """A recurrent layer with its first state as an input; the batch stands second there, whatever the file says."""
    gates = {"GRU": 12, "LSTM": 16, "RNN": 4}[op]
    stored = {"w": weights(1, gates, 3), "r": weights(1, gates, 4)}
    sizes = f"{time}, {batch}" if time_first else f"{batch}, {time}"
    states = ", h, c" if op == "LSTM" else ", h"
    inputs = f"float[{sizes}, 3] x, float[1, {state}, 4] h" + (f", float[1, {state}, 4] c" if op == "LSTM" else "")
    before = "t = Identity(x)" if time_first else "t = Transpose<perm = [1, 0, 2]>(x)"
    return parsed(
        f"g ({inputs}) => (float[{time}, 1, {batch}, 4] y, float[1, {state}, 4] n) {{ "
        f"{before}  y, n = {op}<hidden_size = 4>(t, w, r, , {states}) }}".replace(", , ,", ", , ,"),
        stored,
    )


@pytest.mark.parametrize("op", ["GRU", "LSTM", "RNN"])
@pytest.mark.parametrize("time_first", [False, True])
def test_the_state_of_a_recurrent_layer(op, time_first):
    report = cu.doctor(recurrent(op, "1", time_first=time_first), run=True)
    assert report.codes == ["batch-not-free"], report
    assert "'batch' = 1" in report.findings[0].cause
    assert found(recurrent(op, "batch", time_first=time_first), run=True) == []
    assert found(recurrent(op, "states", time_first=time_first), run=True) == [], "another name for the same"


def test_the_fixed_batch_of_a_recurrent_layer():
    """Time first: the number in front is no batch, and the cure frees the second axis."""
    fixed = cu.doctor(recurrent("GRU", "2", time_first=True, time="7", batch="2"))
    assert fixed.codes == ["batch-fixed"]
    assert "x (axis 1), h (axis 1): the size of the batch is 2." in fixed.findings[0].cause
    assert "dynamic_shapes=({1: 'batch'}, {1: 'batch'})" in fixed.findings[0].cure
    assert found(recurrent("GRU", "batch", time_first=True, time="7")) == []
    batch_first = cu.doctor(recurrent("GRU", "2", time="7", batch="2")).findings[0]
    assert "dynamic_shapes=({0: 'batch'}, {1: 'batch'})" in batch_first.cure
    assert found(recurrent("GRU", "batch", time="7")) == []
    layers = "g (float[7, N, 3] x) => (float[7, ?, ?, ?] y) { e = MatMul(x, v)  a = Relu(e)  y = GRU<hidden_size = 4>(a, w, r) }"
    stored = {"v": weights(3, 3), "w": weights(1, 12, 3), "r": weights(1, 12, 4)}
    assert found(parsed(layers, stored)) == []
    alone = cu.doctor(parsed(layers.replace("7, N", "7, 1").replace("7, ?", "7, 1"), stored)).findings[0]
    assert "dynamic_shapes=({1: 'batch'},)" in alone.cure
    words = "g (int64[7, N] i) => (float[7, ?, ?, ?] y) { e = Gather(v, i)  y = GRU<hidden_size = 4>(e, w, r) }"
    assert found(parsed(words, stored)) == []


def test_outputs_of_another_shape():
    """A note in the file that nothing inside contradicts, only a run."""

    def reshaped(shape: str, **how: int) -> onnx.ModelProto:
        graph = f"g (int64[batch, length] i) => (float[{shape}] y) {{ e = Gather(t, i)  y = Reshape(e, s) }}"
        return parsed(graph, {"t": weights(10, 4), "s": np.array([0, -1, 4])})

    for shape in ("batch, length, 5", "batch, length"):  # that is seen without a run
        assert found(reshaped(shape), run=True) == ["shape-conflict"]
    for shape in ("batch, 777, 4", "3, length, 4"):
        (finding,) = [f for f in cu.doctor(reshaped(shape), run=True).findings if f.code.id == "output-shape-differs"]
        assert finding.severity == "warning"
        assert f"'y' is [{shape}] by the file, and [1, 16, 4] in a run with batch = 1, length = 16." in finding.cause
    (finding,) = cu.doctor(reshaped("length, batch, 4"), run=True).findings
    assert (finding.code.id, finding.severity) == ("output-shape-differs", "note")
    for shape in ("batch, length, 4", "a, b, c", "?, ?, 4", "batch, any, 4"):
        assert found(reshaped(shape), run=True) == [], shape
    formula = parsed(
        "g (float[1, L, 4] x) => (float[1, M, 4] y) { y = Concat<axis = 1>(x, w) }", {"w": weights(1, 1, 4)}
    )
    for sized, codes in (("L + 1", []), ("L + 2", ["output-shape-differs"])):
        formula.graph.output[0].type.tensor_type.shape.dim[1].dim_param = sized
        assert found(formula, run=True) == codes


@pytest.mark.parametrize("kind", [*FROZEN, *BROKEN])
def test_no_words_name_a_place_in_the_source(kind):

    report = cu.doctor({**FROZEN, **BROKEN}[kind][0](), run=True)
    assert not re.search(r"onnxruntime(_src|/|::)|\.(h|cc):\d", report.to_json())
