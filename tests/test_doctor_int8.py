"""The doctor and int8: scales, channels, and scores. Models as people report them, each with healthy twins."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from doctor_models import RNG, found, int8_weights, joined_scores, parsed, quantized, weights

import course_utils as cu


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


def test_pruned_and_binary_weights_are_healthy():
    pruned, binary = int8_weights(), np.where(int8_weights() > 0, 127, -127).astype(np.int8)
    pruned[1:, 1:] = 0
    assert found(quantized(pruned)) == []
    assert found(quantized(binary)) == []
