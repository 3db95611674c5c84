"""Quantized weights that lost their levels or were cut off, and quantizations that do not pay."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from doctor_models import RNG, found, int8_weights, parsed

import course_utils as cu

F, U, INT8 = np.float32, np.uint8, np.int8
MICROSOFT = ', "com.microsoft": 1'
# operator → how x is read by it (q: x in uint8), and the axis of the weight's channels
READERS = {
    "MatMul": ("d = DequantizeLinear(w, s, z)  y = MatMul(x, d)", 1),
    "Gemm": ("d = DequantizeLinear(w, s, z)  y = Gemm(x, d)", 1),
    "Gemm, transposed": ("d = DequantizeLinear(w, s, z)  y = Gemm<transB = 1>(x, d)", 0),
    "MatMul of a Transpose": ("d = DequantizeLinear(w, s, z)  t = Transpose(d)  y = MatMul(x, t)", 0),
    "Gemm of a Transpose": ("d = DequantizeLinear(w, s, z)  t = Transpose(d)  y = Gemm<transB = 1>(x, t)", 1),
    "MatMul of two": ("d = DequantizeLinear(w, s, z)  t = Transpose(d)  u = Transpose(t)  y = MatMul(x, u)", 1),
    "Conv": ("d = DequantizeLinear(w, s, z)  y = Conv(x, d)", 0),
    "ConvTranspose": ("d = DequantizeLinear(w, s, z)  y = ConvTranspose(x, d)", 1),
    "QLinearConv": ("y = QLinearConv(q, a, b, w, s, z, a, b)", 0),
    "QLinearMatMul": ("y = QLinearMatMul(q, a, b, w, s, z, a, b)", 1),
    "MatMulInteger": ("y = MatMulInteger(q, w, b, z)", 1),
    "ConvInteger": ("y = ConvInteger(q, w, b, z)", 0),
    "QGemm": ("y = com.microsoft.QGemm(q, a, b, w, s, z, , a, b)", 1),
    "QGemm, transposed": ("y = com.microsoft.QGemm<transB = 1>(q, a, b, w, s, z, , a, b)", 0),
    "DynamicQuantizeMatMul": ("y = com.microsoft.DynamicQuantizeMatMul(x, w, s, z)", 1),
    "MatMulIntegerToFloat": ("y = com.microsoft.MatMulIntegerToFloat(q, w, a, s, b, z)", 1),
}  # fmt: skip


def weight(
    shape: tuple[int, ...], axis: int, narrow: int, *, wide: int = 1, reach: float = 3, zero: int = 0
) -> np.ndarray:
    """Whole numbers, `narrow` channels of which reach no further than ±`reach`, and `wide` of which take all levels."""
    w = RNG.integers(-100, 101, shape)
    by_channel = np.moveaxis(w, axis, 0)
    by_channel[wide : wide + narrow] = np.clip(by_channel[wide : wide + narrow], -reach, reach)
    by_channel[wide + narrow :] = 0
    return (w + zero).astype(INT8 if not zero else U)


def reader(
    kind: str, w: np.ndarray, *, zero: object = INT8(0), scale: object = F(0.01), shared: bool = False
) -> onnx.ModelProto:
    body, axis = READERS[kind]
    spatial = kind.replace("QLinear", "").startswith("Conv")
    size = w.shape[0 if kind == "ConvTranspose" or (axis and not spatial) else 1]
    start, reads = ("", "float") if "(x" in body else ("", "uint8")
    body = body.replace("(q,", "(x,")
    stored = {"w": w, "s": scale, "z": zero, "a": F(0.1), "b": U(3)}
    more = body.replace("y = ", "y2 = ").replace("d =", "d2 =").replace(", d)", ", d2)") if shared else ""
    out = "int32" if "Integer(" in body else "uint8" if "QL" in body or "QG" in body else "float"
    dims = ", ".join("?" * w.ndim)
    graph = f"g ({reads}[N, {size}{', 8, 8' if spatial else ''}] x) => ({out}[{dims}] y{f', {out}[{dims}] y2' if shared else ''}) {{ {start}{body}  {more} }}"
    used = {
        k: np.asarray(v)
        for k, v in stored.items()
        if any(f"{left}{k}{right}" in body for left in "( " for right in "),")
    }
    return parsed(graph, used, more=MICROSOFT)


def shape_for(kind: str) -> tuple[tuple[int, ...], int]:
    axis = READERS[kind][1]
    spatial = kind.replace("QLinear", "").startswith("Conv")
    return ((16, 20, 3, 3) if axis == 0 else (20, 16, 3, 3)) if spatial else ((16, 40) if axis == 0 else (40, 16)), axis


def judged(made: onnx.ModelProto) -> list[str]:
    return [code for code in found(made) if code.startswith("weights-")]


@pytest.mark.parametrize("kind", READERS)
def test_one_wide_channel_for_each_reader(kind):
    """The channels are counted along the right axis: 15 of 16 lost theirs. Along the other one nothing would be seen."""
    shape, axis = shape_for(kind)
    for zero in (INT8(0), U(100)):
        report = cu.doctor(reader(kind, weight(shape, axis, 15, zero=int(zero)), zero=zero))
        assert [f.code.id for f in report.findings if f.code.id.startswith("weights-")] == ["weights-collapsed"], report
        (cause,) = [f.cause for f in report.findings if f.code.id == "weights-collapsed"]
        assert cause.startswith("1 tensor with one scale for all channels")
        assert "In 'w' half of the channels reach no further than ±3 of ±127." in cause
    assert judged(reader(kind, weight(shape, 1 - axis, 15))) == [], "rows and columns differ"
    if "z" in READERS[kind][0] and "Integer(" not in READERS[kind][0]:
        many, zeros = np.full(16, 0.01, F), np.zeros(16, INT8)
        made = reader(kind, weight(shape, axis, 15), scale=many, zero=zeros)
        assert "weights-collapsed" not in found(made), "a scale for each channel"
    elif "Integer(" in READERS[kind][0]:
        assert "weights-collapsed" not in found(reader(kind, weight(shape, axis, 15), zero=np.zeros(16, INT8)))


@pytest.mark.parametrize(
    ("narrow", "wide", "rest", "codes"),
    [
        (15, 1, 0, True), (14, 2, 0, True), (13, 3, 0, True), (9, 7, 0, True), (8, 8, 0, False), (7, 9, 0, False),  # more than half
        (0, 1, 15, True), (0, 2, 14, True), (0, 3, 13, False), (0, 8, 8, False),  # pruned, unless hardly any is left
        (2, 1, 0, False), (3, 1, 0, True), (3, 2, 11, True), (2, 3, 11, False), (2, 2, 12, True),
    ],
)  # fmt: skip
def test_how_many_channels_are_lost(narrow, wide, rest, codes):
    w = weight((100, narrow + wide + rest), 1, narrow, wide=wide)
    assert judged(reader("MatMul", w)) == (["weights-collapsed"] if codes else [])


@pytest.mark.parametrize(("reach", "codes"), [(3, True), (4, True), (5, False)])
def test_how_far_lost_channels_reach(reach, codes):
    for zero in (0, 128):
        w = weight((40, 16), 1, 15, reach=reach, zero=zero)
        assert judged(reader("MatMul", w, zero=np.asarray(zero, U if zero else INT8))) == (
            ["weights-collapsed"] if codes else []
        )


def test_the_worst_that_is_said_of_pruned_channels():
    """Fifteen channels of zeros: half of all reach no further than 0. With some that are not, it is half of those that are left."""
    cause = cu.doctor(reader("MatMul", weight((40, 16), 1, 0))).findings[0].cause
    assert "reach no further than ±0 of ±127" in cause
    cause = cu.doctor(reader("MatMul", weight((100, 16), 1, 4, wide=3))).findings[0].cause
    assert "reach no further than ±3 of ±127" in cause


@pytest.mark.parametrize(("rows", "codes"), [(15, []), (16, ["weights-collapsed"])])
def test_small_tensors_prove_nothing(rows, codes):
    assert judged(reader("MatMul", weight((rows, 16), 1, 15))) == codes


def test_weights_that_two_nodes_read_are_one_tensor():
    for kind in ("MatMul", "QLinearMatMul"):
        (cause,) = [
            f.cause
            for f in cu.doctor(reader(kind, weight((40, 16), 1, 15), shared=True)).findings
            if f.code.id == "weights-collapsed"
        ]
        assert cause.startswith("1 tensor with")


def test_what_is_no_weight_in_eight_bits():
    graph = "g (float[N, 640] x) => (float[?, ?] y) { d = DequantizeLinear(w, s)  y = Add(x, d) }"
    vector = weight((40, 16), 1, 15).T.reshape(-1)
    assert judged(parsed(graph, {"w": vector, "s": np.asarray(F(0.01))})) == [], "one axis has no channels"
    for dtype in (np.int16, np.uint16, np.int32):
        assert judged(reader("MatMul", weight((40, 16), 1, 15).astype(dtype), zero=np.asarray(0, dtype))) == []


# Cut off


def cut(share: float, *, low: int = -127, high: int = 127, dtype: type = INT8, zero: int = 0) -> np.ndarray:
    """A share of the numbers stand at the ends, half of it at each."""
    w = np.clip(RNG.normal(zero, 30, (40, 50)).round(), low + 9, high - 9)
    ends = round(share * w.size)
    w.reshape(-1)[: ends // 2] = low
    w.reshape(-1)[ends // 2 : ends] = high
    return RNG.permutation(w.reshape(-1)).reshape(w.shape).astype(dtype)


@pytest.mark.parametrize(
    ("share", "codes"), [(0.04, []), (0.051, []), (0.052, ["weights-saturated"]), (0.3, ["weights-saturated"])]
)
@pytest.mark.parametrize("ends", [(-127, 127, INT8, 0), (-128, 127, INT8, 0), (0, 255, U, 128)])
def test_numbers_at_the_end_of_the_range(share, codes, ends):
    """A twentieth of all, besides the largest one and its equal on the other side."""
    low, high, dtype, zero = ends
    w = cut(share, low=low, high=high, dtype=dtype, zero=zero)
    made = reader("MatMul", w, zero=np.asarray(zero, dtype))
    assert judged(made) == codes
    if share == 0.3:
        assert cu.doctor(made).findings[0].cause == "1 tensor; in 'w' 30% of the values stand at the end of the range."


@pytest.mark.parametrize("only_at", ["low", "high"])
@pytest.mark.parametrize("dtype", [INT8, U])
def test_one_end_is_enough(only_at, dtype):
    w = RNG.integers(20, 100, (40, 50)).astype(dtype)
    w[:8] = {("low", INT8): -127, ("low", U): 0, ("high", INT8): 127, ("high", U): 255}[only_at, dtype]
    assert judged(reader("MatMul", w, zero=dtype(0))) == ["weights-saturated"]
    w[:8] = {("low", INT8): -126, ("low", U): 1, ("high", INT8): 126, ("high", U): 254}[only_at, dtype]
    assert judged(reader("MatMul", w, zero=dtype(0))) == []


def test_each_channel_s_own_largest_number_is_not_cut_off():
    w = np.clip(RNG.normal(0, 30, (20, 50)), -100, 100).astype(INT8)
    w[3], w[7] = 127, -127  # the largest of each of 50 columns, and its equal on the other side
    many = {"scale": np.full(50, 0.01, F), "zero": np.zeros(50, INT8)}
    assert judged(reader("MatMul", w, **many)) == []
    assert judged(reader("MatMul", w)) == ["weights-saturated"]
    w[8:10] = -127
    assert judged(reader("MatMul", w, **many)) == ["weights-saturated"]


@pytest.mark.parametrize(
    ("levels", "codes"),
    [
        ([-127, 127], []),
        ([-127, 0, 127], []),
        ([-127, -40, 40, 127], []),
        ([-127, -40, 0, 40, 127], ["weights-saturated"]),
    ],
)
def test_weights_of_a_few_levels_were_trained_so(levels, codes):
    assert judged(reader("MatMul", RNG.choice(np.array(levels, INT8), (40, 50)))) == codes


# What does not pay


def dynamic(conv: str = "ConvInteger", before: str = "DynamicQuantizeLinear", times: int = 1) -> onnx.ModelProto:
    start = "q, s, z = DynamicQuantizeLinear(x)" if before == "DynamicQuantizeLinear" else "q = QuantizeLinear(x, t, u)"
    body = "  ".join(f"y{i} = {conv}(q, w)" for i in range(times))
    stored = {"w": RNG.integers(0, 255, (8, 3, 3, 3)).astype(U), "t": np.asarray(F(0.02)), "u": np.asarray(U(128))}
    outs = ", ".join(f"int32[N, 8, 6, 6] y{i}" for i in range(times))
    return parsed(
        f"g (float[N, 3, 8, 8] x) => ({outs}) {{ {start}  {body} }}",
        {k: v for k, v in stored.items() if k == "w" or f" {k}" in start},
    )


def test_convolutions_that_are_quantized_in_each_run():
    assert (
        cu.doctor(dynamic())
        .findings[0]
        .cause.startswith("Input is quantized anew in each run, for 1 ConvInteger node,")
    )
    assert "for 2 ConvInteger nodes," in cu.doctor(dynamic(times=2)).findings[0].cause
    assert found(dynamic(before="QuantizeLinear")) == []


BEHIND = {
    "QuantizeLinear": ("", True), "Relu": ("Relu", True), "Clip": ("Clip", True), "LeakyRelu": ("LeakyRelu", True),
    "MaxPool": ("MaxPool<kernel_shape = [1, 1]>", True), "Reshape": ("Reshape({}, k)", True), "Transpose": ("Transpose", True),
    "Flatten": ("Flatten", True), "Squeeze": ("Squeeze", True), "Unsqueeze": ("Unsqueeze({}, one)", True), "Identity": ("Identity", True),
    "three in a row": ("Relu Transpose Identity", True), "Sigmoid": ("Sigmoid", False), "Sigmoid behind Relu": ("Relu Sigmoid", False),
}  # fmt: skip


def convolution(steps: str, *, weight_too: bool = True, also: str = "") -> onnx.ModelProto:
    body, at = "c0 = Conv(xd, wd)  ", 0
    for step in steps.split(" ") if steps and "{}" not in steps and "," not in steps else [steps] if steps else []:
        body += f"c{at + 1} = {step.format(f'c{at}') if '{}' in step else f'{step}(c{at})'}  "
        at += 1
    weights = "wd = DequantizeLinear(w, s, i)" if weight_too else "wd = Identity(v)"
    text = f"xq = QuantizeLinear(x, s, z)  xd = DequantizeLinear(xq, s, z)  {weights}  {body} {also} q = QuantizeLinear(c{at}, s, z)  y = DequantizeLinear(q, s, z)"
    stored = {
        "w": int8_weights(),
        "v": RNG.random((16, 4, 3, 3)).astype(F),
        "s": F(0.02),
        "z": U(0),
        "i": INT8(0),
        "k": np.array([0, 16, -1]),
        "one": np.array([1]),
    }
    used = {
        k: np.asarray(v)
        for k, v in stored.items()
        if any(f"{left}{k}{right}" in text for left in "( " for right in "),")
    }
    out = ", float[?, ?, ?, ?] o" if also else ""
    return parsed(f"g (float[1, 4, 8, 8] x) => (float[?, ?, ?, ?] y{out}) {{ {text} }}", used)


@pytest.mark.parametrize("kind", BEHIND)
def test_what_may_stand_between_a_convolution_and_its_quantization(kind):
    steps, fits = BEHIND[kind]
    assert ("qdq-incomplete" in found(convolution(steps))) == (not fits)


def test_what_is_said_of_incomplete_ones():
    cause = next(f.cause for f in cu.doctor(convolution("Sigmoid")).findings if f.code.id == "qdq-incomplete")
    assert cause == "1 of 1 convolution with quantized input and weights, and no QuantizeLinear behind."
    second = "e = Conv(xd, wd)  o = Sigmoid(e)"
    cause = next(f.cause for f in cu.doctor(convolution("", also=second)).findings if f.code.id == "qdq-incomplete")
    assert cause.startswith("1 of 2 convolutions with")
    assert "qdq-incomplete" not in found(convolution("Sigmoid", weight_too=False)), (
        "weights in float: no quantized convolution"
    )
    assert "qdq-incomplete" not in found(convolution("", also="o = Sigmoid(c0)")), "one of its readers quantizes"
    assert "qdq-incomplete" in found(convolution("Relu", also="o = Sigmoid(c0)")), (
        "Relu cannot be drawn in: another node reads, too"
    )
    assert "qdq-incomplete" in found(convolution("Relu Relu Relu Relu")), "too far"


def test_many_transposes_take_no_time():
    """Who reads the weight is looked for behind a few of them only; with another answer for each, no end would be in sight."""
    turns = "".join(f"t{i + 1} = Transpose(t{i})  " for i in range(80))
    graph = f"g (float[N, 16] x) => (float[N, ?] y) {{ t0 = DequantizeLinear(w, s, z)  {turns} y = MatMul(x, t80) }}"
    stored = {"w": weight((16, 40), 1, 40, wide=0), "s": np.asarray(F(0.01)), "z": np.asarray(INT8(0))}
    assert "pairs-that-cancel" in found(parsed(graph, stored))
