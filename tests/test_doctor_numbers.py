"""The doctor and numbers: NaN, infinity, very small ones, and int8. Models as people report them, each with healthy twins."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from doctor_models import RNG, found, joined_scores, parsed, texts, weights

import course_utils as cu

# NaN and infinity


def moved(how: str, into: str, value: float, *, place: int = 3) -> onnx.ModelProto:
    """A table of 4 × 4 with one odd number, which reaches a node behind others that only move or convert it."""
    table = weights(4, 4)
    table.flat[place] = value
    stored = {
        "t": table, "two": np.array([1, 4, 4]), "square": np.array([4, 4]), "zero": np.array([0]), "four": np.array([4]),
        "all": np.arange(4), "other": weights(4, 4),
    }  # fmt: skip
    used = {
        k: v
        for k, v in stored.items()
        if f" {k})" in f"{how} {into}" or f" {k}," in f"{how} {into}" or f"({k}," in how or f"({k})" in how
    }
    return parsed(f"g (float[N, 4] x) => (float[N, 4] y) {{ {how}  {into} }}", used)


WAYS = {
    "nothing": "m = Identity(t)",
    "Transpose": "m = Transpose<perm = [1, 0]>(t)",
    "Cast": "h = Cast<to = 10>(t)  m = Cast<to = 1>(h)",
    "Reshape": "r = Reshape(t, two)  m = Reshape(r, square)",
    "Unsqueeze": "u = Unsqueeze(t, zero)  m = Squeeze(u, zero)",
    "Slice": "m = Slice(t, zero, four)",
    "Gather": "m = Gather(t, all)",
    "Concat": "c = Concat<axis = 0>(other, t)  m = Slice(c, four, four)".replace("four, four", "zero, four"),
    "Split": "a, b = Split<axis = 0, num_outputs = 2>(t)  m = Concat<axis = 0>(a, b)",
    "Expand": "m = Expand(t, square)",
    "Pad": "m = Pad(t, all)",
}
READERS = {
    "MatMul": "y = MatMul(x, m)",
    "Add": "k = ReduceSum<keepdims = 0>(m)  y = Add(x, k)",
    "Mul": "a = MatMul(x, other)  k = ReduceMax<keepdims = 0>(m)  y = Mul(a, k)",
    "Softmax": "s = Softmax(m)  y = MatMul(x, s)",
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("reader", READERS)
def test_nan_behind_what_only_moves_it(way, reader):
    how, into = WAYS[way], READERS[reader]
    assert "weights-not-finite" in found(moved(how, into, np.nan))
    assert "weights-not-finite" not in found(moved(how, into, 1.0))


@pytest.mark.parametrize("value", [np.inf, -np.inf])
@pytest.mark.parametrize("reader", ["y = Mul(x, m)", "y = Div(x, m)", "y = Div(m, x)", "y = MatMul(x, m)"])
@pytest.mark.parametrize("way", ["Identity(t)", "Transpose(t)"])
def test_infinity_that_something_multiplies_with(value, reader, way):
    table = weights(4, 4)
    table[1, 2] = value
    graph = f"g (float[N, 4] x) => (float[?, 4] y) {{ m = {way}  {reader} }}"
    assert found(parsed(graph, {"t": table})) == ["weights-not-finite"]
    assert found(parsed(graph, {"t": weights(4, 4)})) == []


MASK = np.where(np.tri(4) > 0, 0, -np.inf).astype(np.float32)
MEANT = {
    "a mask that is added": ("a = Add(x, t)  y = Softmax(a)", MASK),
    "a mask of float16": ("m = Cast<to = 1>(t)  a = Add(x, m)  y = Softmax(a)", MASK.astype(np.float16)),
    "a mask with more axes": ("u = Unsqueeze(t, zero)  s = Squeeze(u, zero)  a = Add(x, s)  y = Softmax(a)", MASK),
    "a mask that is expanded": ("m = Expand(t, square)  a = Add(x, m)  y = Softmax(a)", MASK),
    "a mask that is subtracted": ("a = Sub(x, t)  y = Softmax(a)", -MASK),
    "a value to choose": ("b = Less(x, one)  a = Where(b, x, t)  y = Softmax(a)", np.array(-np.inf, np.float32)),
    "bounds": ("y = Clip(x, , t)", np.array(np.inf, np.float32)),
    "the start of a maximum": ("y = Max(x, t)", np.array(-np.inf, np.float32)),
    "a comparison": ("b = Equal(x, t)  y = Where(b, one, x)", np.array(-np.inf, np.float32)),
    "NaN for what is missing": ("b = Less(x, one)  a = Where(b, x, t)  n = IsNaN(a)  y = Where(n, one, a)", np.array(np.nan, np.float32)),
}  # fmt: skip


@pytest.mark.parametrize("kind", MEANT)
def test_what_is_meant_so(kind):
    body, value = MEANT[kind]
    stored = {"t": value, "zero": np.array([0]), "square": np.array([4, 4]), "one": np.array(1, np.float32)}
    model = parsed(f"g (float[4, 4] x) => (float[4, 4] y) {{ {body} }}", {k: v for k, v in stored.items() if k in body})
    assert found(model, run=True) == []


def test_nan_in_a_model_that_reads_whole_numbers():
    """As every model of texts does: the run must not be blind for it."""
    graph = "g (int64[N, L] i) => (float[N, L, 4] y) {{ e = Gather(t, i)  a = Abs(e)  n = Neg(a)  y = {}(n) }}"
    assert found(parsed(graph.format("Sqrt"), {"t": weights(10, 4)}), run=True) == ["outputs-nan"]
    assert found(parsed(graph.format("Relu"), {"t": weights(10, 4)}), run=True) == []
    table = weights(10, 4)
    table[7, 1] = np.nan
    assert found(parsed(graph.format("Relu"), {"t": table})) == ["weights-not-finite"]
    with_lengths = (
        "g (float[N, 4] x, int64[N, 1] n) => (float[N, 4] y) { f = Cast<to = 1>(n)  z = Mul(x, f)  y = Div(z, f) }"
    )
    assert found(parsed(with_lengths), run=True) == [], "0 / 0 comes of what was made up"
    hidden = "g (float[N, 4] x, bool[N, 4] b) => (float[N, 4] y) { m = Where(b, t, x)  y = Softmax(m) }"
    assert found(parsed(hidden, {"t": np.array(-np.inf, np.float32)}), run=True) == [], "a mask of all True"


def test_infinite_outputs():
    report = cu.doctor(texts("y = Div(x, z)", stored={"z": np.zeros((1, 4), np.float32)})[0], run=True)
    assert report.codes == ["outputs-nan"]
    assert "infinity in y" in report.findings[0].cause
    assert found(
        texts("a = Abs(x)  s = Mul(a, k)  y = Exp(s)", stored={"k": np.array(1e4, np.float32)})[0], run=True
    ) == ["outputs-nan"]
    assert found(texts("a = Abs(x)  y = Exp(a)")[0], run=True) == []
    assert found(texts("a = Relu(x)  y = Log(a)")[0], run=True) == [], "-inf for a zero among other numbers is in order"


# Small numbers


def test_numbers_that_become_subnormal():
    """Weights of 1e-21 are in order; the product of two is not. Without a run that is not seen."""

    def chain(scale: float) -> onnx.ModelProto:
        stored = {"v": weights(16, 16, scale=scale), "w": weights(16, 16, scale=scale)}
        return parsed(
            "g (float[N, 16] x) => (float[N, 16] y) { a = MatMul(x, v)  b = MatMul(a, w)  y = Relu(b) }", stored
        )

    assert found(chain(1e-21)) == []
    report = cu.doctor(chain(1e-20), run=True)
    assert report.codes == ["subnormal-numbers"]
    assert "set_denormal_as_zero" in report.findings[0].cure
    assert found(chain(1e-15), run=True) == []


@pytest.mark.parametrize(("share", "codes"), [(0.5, ["subnormal-numbers"]), (0.005, [])])
def test_some_subnormal_weights(share, codes):
    w = weights(64, 64)
    w[RNG.random(w.shape) < share] = 1e-41
    assert found(parsed("g (float[N, 64] x) => (float[N, 64] y) { y = MatMul(x, w) }", {"w": w})) == codes


@pytest.mark.parametrize(("size", "tiny", "codes"), [(8, 20, []), (128, 100, []), (128, 200, ["subnormal-numbers"])])
def test_subnormal_weights_must_be_many_and_a_share_of_all(size, tiny, codes):
    w = weights(size, size)
    w.flat[:tiny] = 1e-41
    graph = f"g (float[N, {size}] x) => (float[N, {size}] y) {{ y = MatMul(x, w) }}"
    assert found(parsed(graph, {"w": w})) == codes


# Quantization


def quantized_weight(wide: float, kind: str) -> onnx.ModelProto:
    """A MatMul or Conv in int8 whose weights have one scale, and one channel that is `wide` times as wide as the others."""
    convolves = kind in ("Conv", "QLinearConv")
    w = weights(16, 4, 3, 3) if convolves else weights(32, 16)
    (w if convolves else w.T)[5] *= wide
    scale = np.float32(np.abs(w).max() / 127)
    stored = {"w": np.clip((w / scale).round(), -127, 127).astype(np.int8), "s": scale, "z": np.int8(0)}
    shapes = ("N, 4, 8, 8", "N, 16, 6, 6") if convolves else ("N, 32", "N, 16")
    bodies = {
        "Conv": "xq = QuantizeLinear(x, xs, xz)  xd = DequantizeLinear(xq, xs, xz)  d = DequantizeLinear(w, s, z)  c = Conv(xd, d)  "
        "q = QuantizeLinear(c, ys, yz)  y = DequantizeLinear(q, ys, yz)",
        "QLinearConv": "xq = QuantizeLinear(x, xs, xz)  q = QLinearConv(xq, xs, xz, w, s, z, ys, yz)  y = DequantizeLinear(q, ys, yz)",
        "MatMul": "d = DequantizeLinear(w, s, z)  y = MatMul(x, d)",
        "QLinearMatMul": "xq = QuantizeLinear(x, xs, xz)  q = QLinearMatMul(xq, xs, xz, w, s, z, ys, yz)  y = DequantizeLinear(q, ys, yz)",
        "MatMulInteger": "q, a, b = DynamicQuantizeLinear(x)  i = MatMulInteger(q, w, b, z)  f = Cast<to = 1>(i)  m = Mul(a, s)  y = Mul(f, m)",
        "transposed": "d = DequantizeLinear(w, s, z)  t = Transpose(d)  y = MatMul(x, t)",
    }  # fmt: skip
    stored |= {"xs": np.float32(0.02), "xz": np.uint8(128), "ys": np.float32(0.1), "yz": np.uint8(128)}
    if kind == "transposed":
        stored["w"] = np.ascontiguousarray(stored["w"].T)
    body = bodies[kind]
    used = {k: np.asarray(v) for k, v in stored.items() if f" {k}," in body or f" {k})" in body or f"({k}," in body}
    return parsed(f"g (float[{shapes[0]}] x) => (float[{shapes[1]}] y) {{ {body} }}", used)


@pytest.mark.parametrize("kind", ["Conv", "QLinearConv", "MatMul", "QLinearMatMul", "MatMulInteger", "transposed"])
@pytest.mark.parametrize("wide", [100, 300, 1000, 1e5])
def test_one_channel_that_takes_all_levels(kind, wide):
    """From 300 on, the other channels are all zeros, as if they had been pruned."""
    report = cu.doctor(quantized_weight(wide, kind), run=True)
    assert report.codes == ["weights-collapsed"], report
    assert "per_channel=True" in report.findings[0].cure
    assert found(quantized_weight(2, kind)) == []


@pytest.mark.parametrize("left", [16, 8, 4])
def test_channels_that_were_pruned_are_not_lost(left):
    model = quantized_weight(1, "MatMul")
    (w,) = [t for t in model.graph.initializer if t.name == "w"]
    pruned = onnx.numpy_helper.to_array(w).copy()
    pruned[:, left:] = 0
    w.CopyFrom(onnx.numpy_helper.from_array(pruned, "w"))
    assert found(model) == []


HEADS = {
    "Sigmoid": "p = Sigmoid(s)",
    "Softmax": "p = Softmax<axis = 1>(s)",
    "behind a Reshape": "g = Sigmoid(s)  p = Reshape(g, k)",
    "behind a Transpose": "h = Transpose<perm = [0, 2, 1]>(s)  g = Sigmoid(h)  p = Transpose<perm = [0, 2, 1]>(g)",
    "object times class": "g = Sigmoid(s)  h = Softmax<axis = 1>(s)  p = Mul(g, h)",
    "quantized before": "g = Sigmoid(s)  h = QuantizeLinear(g, t, z)  p = DequantizeLinear(h, t, z)",
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("scale", [0.6, 2.5])
def test_scores_and_boxes_of_one_scale(head, scale):
    def made(**how: object) -> onnx.ModelProto:
        model = joined_scores(head=HEADS[head], **how)
        more = {"k": np.array([0, 6, 10]), "t": np.array(1 / 255, np.float32)}
        model.graph.initializer.extend(
            onnx.numpy_helper.from_array(v, k) for k, v in more.items() if f" {k}" in HEADS[head]
        )
        return model

    report = cu.doctor(made(together=True, scale=scale), run=True)
    assert report.codes == ["scores-lost"]
    assert "Concat" in report.findings[0].cure
    assert found(made(together=False, scale=scale)) == []
    assert found(made(together=True, scale=0.004)) == []


@pytest.mark.parametrize(("scale", "codes"), [(2.5, ["scores-lost"]), (1 / 255, [])])
def test_scores_in_operators_of_the_runtime(scale, codes):
    """As ONNX Runtime writes a quantized Sigmoid and Concat."""
    stored = {"s": np.float32(0.1), "z": np.uint8(128), "t": np.float32(scale), "f": np.float32(0.01)}
    start = "g (float[N, 4] x) => (float[N, 4] y) { q = QuantizeLinear(x, s, z)  "
    for body in (
        "p = com.microsoft.QLinearSigmoid(q, s, z, t, z)  y = DequantizeLinear(p, t, z) }",
        "p = com.microsoft.QLinearSigmoid(q, s, z, f, z)  c = com.microsoft.QLinearConcat<axis = 0>(t, z, q, s, z, p, f, z)  y = DequantizeLinear(c, t, z) }",
    ):
        used = {k: np.asarray(v) for k, v in stored.items() if f" {k}," in body + start or f"({k}," in body}
        assert found(parsed(start + body, used, more=', "com.microsoft": 1')) == codes


def test_boxes_alone_may_have_a_large_scale():
    assert found(joined_scores(together=True, head="p = Relu(s)")) == []


@pytest.mark.parametrize(
    ("axis", "scales", "zeros", "codes"),
    [(0, 6, 6, []), (-2, 6, 6, []), (1, 4, 4, []), (1, 6, 6, ["scale-length-wrong"]), (-1, 6, 6, ["scale-length-wrong"]), (0, 4, 4, ["scale-length-wrong"]),
     (None, 4, 4, []), (None, 6, 6, ["scale-length-wrong"])],
)  # fmt: skip
def test_as_many_scales_as_channels(axis, scales, zeros, codes):
    stored = {
        "w": RNG.integers(-127, 127, (6, 4)).astype(np.int8),
        "s": np.full(scales, 0.01, np.float32),
        "z": np.zeros(zeros, np.int8),
    }
    said = "" if axis is None else f"<axis = {axis}>"  # 1 where nothing is said
    graph = f"g (float[N, 6] x) => (float[N, 4] y) {{ d = DequantizeLinear {said} (w, s, z)  y = MatMul(x, d) }}"
    report = cu.doctor(parsed(graph, stored), run=True)
    assert report.codes == codes, report
    assert not codes or "has so many" in report.findings[0].cause


def test_scales_of_an_activation():
    graph = "g (float[N, 6] x) => (float[N, 6] y) {{ q = QuantizeLinear<axis = {}>(x, s, z)  y = DequantizeLinear<axis = {}>(q, s, z) }}"
    stored = {"s": np.full(6, 0.1, np.float32), "z": np.zeros(6, np.int8)}
    assert found(parsed(graph.format(1, 1), stored), run=True) == []
    assert found(
        parsed(graph.format(1, 1), {**stored, "s": np.full(5, 0.1, np.float32), "z": np.zeros(5, np.int8)})
    ) == ["scale-length-wrong"]


def test_a_scale_of_zero_for_a_channel_of_zeros():
    """A channel that was pruned may have any scale; one that holds numbers loses them."""
    w, scale = RNG.integers(1, 127, (6, 4)).astype(np.int8), np.full(6, 0.01, np.float32)
    scale[2] = 0
    graph = "g (float[N, 6] x) => (float[N, 4] y) { d = DequantizeLinear<axis = 0>(w, s)  y = MatMul(x, d) }"
    assert found(parsed(graph, {"w": w, "s": scale})) == ["scale-impossible"]
    w[2] = 0
    assert found(parsed(graph, {"w": w, "s": scale})) == []
    w[2], w[:, 2] = 1, 0
    columns = parsed(graph.replace("<axis = 0>", ""), {"w": w, "s": scale[:4]})  # axis 1 where nothing is said
    assert found(columns) == []


@pytest.mark.parametrize(("zero", "codes"), [(0, ["scale-not-calibrated"]), (128, [])])
def test_a_scale_of_one_with_another_zero_point_was_calibrated(zero, codes):
    stored = {"s": np.array(1, np.float32), "z": np.array(zero, np.uint8)}
    steps = "a = Relu(x)  q = QuantizeLinear(a, s, z)  y = DequantizeLinear(q, s, z)"
    assert found(parsed(f"g (float[N, 4] x) => (float[N, 4] y) {{ {steps} }}", stored)) == codes
