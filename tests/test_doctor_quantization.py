"""Signs of a quantization that went wrong: which operators, which inputs, from which number on."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from doctor_models import RNG, external, found, int8_weights, joined_scores, parsed, quantized, weights

import course_utils as cu

MICROSOFT = ', "com.microsoft": 1'


def model(graph: str, stored: Mapping[str, object], opset: int = 21) -> onnx.ModelProto:
    return parsed(graph, {k: np.asarray(v) for k, v in stored.items()}, opset=opset, more=MICROSOFT)


def only(made: onnx.ModelProto, code: str) -> str:
    """The cause of the one finding of a model."""
    report = cu.doctor(made)
    assert report.codes == [code], report
    return report.findings[0].cause


# Scales that are impossible

F, U, INT8 = np.float32, np.uint8, np.int8
SCALED = {
    "QuantizeLinear": ("y = QuantizeLinear(x, s, z)", "float", "uint8", {"s"}),
    "DequantizeLinear": ("y = DequantizeLinear(x, s, z)", "uint8", "float", {"s"}),
    "QLinearConv": ("y = QLinearConv(x, s, z, w, t, z, u, z)", "uint8", "uint8", {"s", "t", "u"}),
    "QLinearMatMul": ("y = QLinearMatMul(x, s, z, w, t, z, u, z)", "uint8", "uint8", {"s", "t", "u"}),
}


@pytest.mark.parametrize("op", SCALED)
def test_each_scale_of_each_operator(op):
    body, reads, writes, names = SCALED[op]
    dims, w = ("N, 4, 1", (8, 4, 1)) if op == "QLinearConv" else ("N, 8", (8, 8))
    graph = f"g ({reads}[{dims}] x) => ({writes}[N, ...] y) {{ {body} }}".replace(
        ", ...", ", 8, 1" if "Conv" in op else ", 8"
    )
    stored = {"z": U(3)} | {name: F(0.1) for name in names}
    if "Q" in op[:2] and op.startswith("QL"):
        stored["w"] = RNG.integers(20, 200, w).astype(U)
    assert found(model(graph, stored)) == []
    for name in names:
        for bad in (0, -0.5, np.nan, np.inf):
            findings = cu.doctor(model(graph, {**stored, name: F(bad)})).findings
            assert f"Scale {bad:g} at node #0 'y'." in [f.cause for f in findings if f.code.id == "scale-impossible"]


def weight_scales(
    w: np.ndarray, scale: object, axis: int | None = 0, rest: str = "y = MatMul(x, d)"
) -> onnx.ModelProto:
    said = "" if axis is None else f"<axis = {axis}>"
    return model(
        f"g (float[N, {w.shape[0]}] x) => (float[N, ?] y) {{ d = DequantizeLinear {said} (w, s)  {rest} }}",
        {"w": w, "s": scale},
    )


def test_scales_that_are_no_number_of_their_own_channel():
    """Where all that a scale belongs to is zero, it may be zero, too; but not negative, and not NaN."""
    w, scale = RNG.integers(1, 127, (6, 4)).astype(INT8), np.full(6, 0.01, F)
    w[2] = 0
    for bad, codes in ((0, []), (-1, ["scale-impossible"]), (np.nan, ["scale-impossible"])):
        scale[2] = bad
        assert found(weight_scales(w, scale)) == codes
    scale[2] = 0
    cause = only(weight_scales(RNG.integers(1, 127, (6, 4)).astype(INT8), scale), "scale-impossible")
    assert cause == "Scale 0 at node #0 'd'."
    assert found(weight_scales(w, scale, axis=-2)) == []
    assert found(weight_scales(np.ascontiguousarray(w.T), scale, axis=None)) == [], "axis 1 where nothing is said"
    assert found(weight_scales(w, scale, axis=1))[:1] == ["scale-impossible"], "of another length than this axis"
    assert found(weight_scales(w, scale, axis=2))[:1] == ["scale-impossible"], "there is no such axis"


def test_one_scale_of_zero_for_all():
    zeros = np.zeros((6, 4), INT8)
    one = zeros.copy()
    one[3, 2] = 1
    assert found(weight_scales(zeros, F(0), None)) == []
    assert found(weight_scales(zeros, F(-0.1), None)) == ["scale-impossible"]
    assert found(weight_scales(one, F(0), None)) == ["scale-impossible"]
    activation = "g (float[N, 4] x) => (float[N, 4] y) { q = QuantizeLinear(x, t, z)  y = DequantizeLinear(q, s, z) }"
    assert found(model(activation, {"t": F(0.1), "s": F(0), "z": U(3)})) == ["scale-impossible"]


def test_a_scale_in_a_file_beside_the_model(folder):
    """It is not looked at; and least of all a file of the same name in the current folder, which is not the model's."""
    negative = weight_scales(RNG.integers(1, 127, (6, 4)).astype(INT8), F(-0.1), None)
    (folder / "m").mkdir()
    onnx.save(negative, "m/inside.onnx")
    negative.graph.initializer.sort(key=lambda t: t.name != "s")
    (folder / "s.bin").write_bytes(external(negative, "s.bin"))
    (folder / "m" / "s.bin").write_bytes(F(0.1).tobytes())
    onnx.save(negative, "m/outside.onnx")
    assert found("m/outside.onnx") == []
    assert found("m/inside.onnx") == ["scale-impossible"]


# As many scales as channels


def test_what_is_said_of_scales_of_another_number():
    w = RNG.integers(1, 127, (6, 4)).astype(INT8)
    graph = "g (float[N, 6] x) => (float[N, 4] y) {{ d = DequantizeLinear<axis = {}{}>(w, s, z)  y = MatMul(x, d) }}"

    def made(axis: int, scales: int, zeros: int, more: str = "", opset: int = 21) -> onnx.ModelProto:
        return model(
            graph.format(axis, more), {"w": w, "s": np.full(scales, 0.01, F), "z": np.zeros(zeros, INT8)}, opset
        )

    assert only(made(1, 6, 6), "scale-length-wrong") == "6 scales for axis 1, which has 4; axis 0 has so many."
    assert only(made(1, 2, 2), "scale-length-wrong") == "2 scales for axis 1, which has 4."
    assert "6 scales, and zero points of the shape [4]." in cu.doctor(made(0, 6, 4)).findings[0].cause
    square = RNG.integers(1, 127, (6, 6)).astype(INT8)
    twice = model(
        graph.format(2, ""), {"w": np.stack([square] * 4, 2), "s": np.full(6, 0.01, F), "z": np.zeros(6, INT8)}
    )
    (cause,) = [f.cause for f in cu.doctor(twice).findings if f.code.id == "scale-length-wrong"]
    assert cause == "6 scales for axis 2, which has 4.", "two axes have so many: neither is named"
    assert "scale-length-wrong" not in found(made(7, 6, 6)), "no such axis: that is another error"
    assert "scale-length-wrong" not in found(made(1, 1, 1)), "one scale for all"


def test_scales_of_another_number_behind_nodes_that_are_passed_over():
    """None of the first six is judged; each of the last three is, wherever it stands."""
    stored = {
        "w": RNG.integers(1, 127, (6, 4)).astype(INT8),
        **{f"s{n}": np.full(n, 0.01, F) for n in (1, 2, 6)},
        **{f"z{n}": np.zeros(n, INT8) for n in (1, 2, 6)},
        "blocks": np.full((2, 4), 0.1, F),
    }
    passed_over = {
        "another operator": "Relu(x)",
        "a scale that is computed": "DequantizeLinear(w, r, z6)",
        "one scale": "DequantizeLinear(w, s1, z1)",
        "blocks": "DequantizeLinear<axis = 0, block_size = 3>(w, blocks)",
        "no such axis": "DequantizeLinear<axis = 7>(w, s6, z6)",
        "any size": "QuantizeLinear(x, s2, z2)",
    }
    wrong = ["DequantizeLinear(w, s6, z6)", "DequantizeLinear(w, s6, z2)", "DequantizeLinear(w, s2, z2)"]
    nodes = "  ".join(f"d{i} = {call}" for i, call in enumerate([*passed_over.values(), *wrong]))
    graph = f"g (float[N, K] x, float[6] r) => (float y) {{ {nodes}  y = Identity(d0) }}"
    (finding,) = [f for f in cu.doctor(model(graph, stored)).findings if f.code.id == "scale-length-wrong"]
    assert [place.index for place in finding.where] == [6, 7, 8]


@pytest.mark.parametrize(("opset", "known"), [(12, False), (13, True), (21, True)])
def test_a_scale_for_each_channel_is_known_from_opset_13_on(opset, known):
    graph = "g (float[N, 6] x) => (float[N, 6] y) { q = QuantizeLinear(x, s, z)  y = DequantizeLinear(q, s, z) }"
    made = model(graph, {"s": np.full(5, 0.1, F), "z": np.zeros(5, INT8)}, opset)
    assert ("scale-length-wrong" in found(made)) == known


def test_blocks_have_scales_of_their_own():
    graph = "g (float[N, 6] x) => (float[N, 4] y) {{ d = DequantizeLinear<axis = 0{}>(w, s)  y = MatMul(x, d) }}"
    w = RNG.integers(1, 127, (6, 4)).astype(INT8)
    assert found(model(graph.format(", block_size = 3"), {"w": w, "s": np.full((2, 4), 0.1, F)})) == []
    vector = "g (float[6] x) => (float[6] y) {{ d = DequantizeLinear<axis = 0{}>(w, s)  y = Add(x, d) }}"
    assert found(model(vector.format(", block_size = 3"), {"w": w[:, 0], "s": np.full(2, 0.1, F)})) == []
    assert "scale-length-wrong" in found(model(vector.format(""), {"w": w[:, 0], "s": np.full(2, 0.1, F)}))


@pytest.mark.parametrize(("dims", "codes"), [("N, K", []), ("N, 6", ["scale-length-wrong"])])
def test_a_size_that_is_free_may_be_any(dims, codes):
    graph = f"g (float[{dims}] x) => (float[{dims}] y) {{ a = Relu(x)  q = QuantizeLinear(a, s, z)  y = DequantizeLinear(q, s, z) }}"
    assert found(model(graph, {"s": np.full(5, 0.1, F), "z": np.zeros(5, INT8)})) == codes


# Probabilities


WAYS = {
    "Identity": "Identity({})",
    "Cast": "Cast<to = 1>({})",
    "Reshape": "Reshape({}, rs)",
    "Flatten": "Flatten<axis = 1>({})",
    "Squeeze": "Squeeze({})",
    "Unsqueeze": "Unsqueeze({}, one)",
    "Transpose": "Transpose({})",
    "Slice": "Slice({}, zero, one)",
    "Gather": "Gather({}, one)",
    "Expand": "Expand({}, rs)",
    "ReduceMax": "ReduceMax({})",
    "MaxPool": "MaxPool<kernel_shape = [1]>({})",
    "Concat": "Concat<axis = 0>(c, {})",
    "Concat, in front": "Concat<axis = 0>({}, c)",
    "Mul of two": "Mul({0}, {0})",
    "Relu": None,
    "Mul": "Mul({}, c)",
    "Mul, behind": "Mul(c, {})",
    "Add": "Add({}, c)",
    "Concat of others": "Concat<axis = 0>(c, c)",
}
LOSES = {"Relu", "Mul", "Mul, behind", "Add", "Concat of others"}


def through(way: str, head: str = "p = Sigmoid(x)", scale: float = 2.5, zero: object = U(3)) -> onnx.ModelProto:
    """A probability, something in between, and one quantization."""
    step = (WAYS.get(way, way) or "Relu({})").format("p")
    stored = {
        "s": F(scale),
        "z": zero,
        "rs": np.array([2, 3, 4]),
        "one": np.array([1]),
        "zero": np.array([0]),
        "c": weights(2, 3, 4),
    }
    body = f"{head}  a = {step}  q = QuantizeLinear(a, s, z)  y = DequantizeLinear(q, s, z)"
    used = {k: v for k, v in stored.items() if any(f"{left}{k}{right}" in body for left in "( " for right in "),")}
    return model(f"g (float[2, 3, 4] x) => (float[?, ?, ?] y) {{ {body} }}", used)


@pytest.mark.parametrize("way", WAYS)
def test_what_keeps_a_probability(way):
    assert ("scores-lost" in found(through(way))) == (way not in LOSES)


@pytest.mark.parametrize("head", ["p, r = Split<axis = 0, num_outputs = 2>(b)", "p, r = TopK(b, one)"])
def test_pieces_of_probabilities(head):
    stored = {"s": F(2.5), "z": U(3), **({"one": np.array([1])} if "one" in head else {})}
    body = f"b = Sigmoid(x)  {head}  q = QuantizeLinear(p, s, z)  y = DequantizeLinear(q, s, z)"
    rest = "int64" if "TopK" in head else "float"
    assert "scores-lost" in found(model(f"g (float[2, 4] x) => (float[?, ?] y, {rest}[?, ?] r) {{ {body} }}", stored))


@pytest.mark.parametrize(("op", "lost"), [("Sigmoid", True), ("HardSigmoid", True), ("Softmax", True), ("Tanh", False)])
def test_which_operators_give_probabilities(op, lost):
    assert ("scores-lost" in found(through("Identity", f"p = {op}(x)"))) == lost


@pytest.mark.parametrize(
    ("scale", "kept"),
    [(0.25, ""), (0.26, "5 numbers"), (0.3, "4 numbers"), (0.6, "3 numbers"), (1.5, "2 numbers"), (2.5, "1 number")],
)
def test_how_many_numbers_are_left(scale, kept):
    """With 0.3 these are 0, 0.3, 0.6 and 0.9; with 2.5 every probability becomes 0."""
    made = through("Identity", scale=scale)
    if not kept:
        assert found(made) == []
        return
    cause = only(made, "scores-lost")
    assert f": {kept} can be told apart" in cause
    assert f"node #2 'q' rounds to multiples of {scale}," in cause


def test_a_scale_of_one_is_said_once():
    """With the zero point 0, or without any, it was not calibrated; with another one it was."""
    assert found(through("Identity", scale=1, zero=U(0))) == ["scale-not-calibrated"]
    assert found(through("Identity", scale=1, zero=U(3))) == ["scores-lost"]
    graph = (
        "g (float[N, 4] x) => (float[N, 4] y) { p = Sigmoid(x)  q = QuantizeLinear(p, s)  y = DequantizeLinear(q, s) }"
    )
    assert found(model(graph, {"s": F(1)})) == ["scale-not-calibrated"]
    assert found(model(graph, {"s": F(2)})) == ["scores-lost"]


def test_quantizations_of_the_runtime_s_own():
    """Written by its optimiser, for which one scale stands behind the numbers, or before them."""
    stored = {"s": F(0.1), "z": U(128), "t": F(2.5), "f": F(0.01), "one": F(1), "none": U(0)}
    start = "g (float[N, 4] x) => (float[N, 4] y) { q = QuantizeLinear(x, s, z)  "

    def made(body: str) -> onnx.ModelProto:
        text = start + body
        return model(
            text + " }", {k: v for k, v in stored.items() if f" {k}," in text or f"({k}," in text or f" {k})" in text}
        )

    own = "p = com.microsoft.{}(q, s, z, {}, z)  y = DequantizeLinear(p, {}, z)"
    for op in ("QLinearSigmoid", "QLinearSoftmax<opset = 13>"):
        assert found(made(own.format(op, "f", "f"))) == []
        assert "1 number can be told apart" in only(made(own.format(op, "t", "t")), "scores-lost")
    assert found(made(own.format("QLinearLeakyRelu", "t", "t"))) == []
    concat = "p = com.microsoft.QLinearSigmoid(q, s, z, f, z)  c = com.microsoft.QLinearConcat<axis = 0>(t, z, {})  y = DequantizeLinear(c, t, z)"
    for read in ("p, f, z, q, s, z", "q, s, z, p, f, z"):
        assert "rounds to multiples of 2.5," in only(made(concat.format(read)), "scores-lost")
    assert "scores-lost" not in found(made(concat.format("q, s, z, q, s, z")))
    of_one = concat.replace("(t, z,", "(one, none,").replace("(c, t, z)", "(c, one, none)")
    assert found(made(of_one.format("p, f, z, q, s, z"))) == ["scores-lost"], "it is no QuantizeLinear"
    again = "p = com.microsoft.QLinearSigmoid(q, s, z, f, z)  d = DequantizeLinear(p, f, z)  r = com.microsoft.QuantizeLinear(d, t, z)  y = com.microsoft.DequantizeLinear(r, t, z)"
    assert found(made(again)) == ["scores-lost"]


def test_a_circle_of_names_ends():
    """A graph may run in a circle: that is another error, and the search for a probability ends."""
    made = through("Identity")
    made.graph.node[0].CopyFrom(onnx.helper.make_node("Identity", ["a"], ["p"]))
    assert found(made) == ["cycle"]


# Scales that were never calibrated


@pytest.mark.parametrize(
    ("before", "zero", "codes"),
    [
        ("Relu", U(0), True), ("Relu", INT8(0), True), ("Cast<to = 1>", U(0), False), ("Identity", U(0), False), ("Identity", INT8(0), True),
        ("Relu", U(1), False), ("Identity", U(1), False), ("Relu", INT8(-128), False), (None, U(0), False), (None, INT8(0), True),
    ],
)  # fmt: skip
def test_a_scale_that_saw_only_zeros(before, zero, codes):
    first = f"a = {before}(x)  " if before else ""
    graph = f"g (float[N, 4] x) => (float[N, 4] y) {{ {first}q = QuantizeLinear({'a' if before else 'x'}, s, z)  y = DequantizeLinear(q, s, z) }}"
    assert ("scale-not-calibrated" in found(model(graph, {"s": F(1), "z": zero}))) == codes
    assert "scale-not-calibrated" not in found(model(graph, {"s": F(0.99), "z": zero}))
    if codes:
        assert only(model(graph, {"s": F([1]), "z": np.asarray([zero])}), "scale-not-calibrated").startswith(
            "Scale 1 and zero point 0, in 1 node:"
        )


@pytest.mark.parametrize(
    ("head", "codes"), [("a = Relu(x)", ["scale-not-calibrated"]), ("a = Identity(x)", []), ("a = Cast<to = 1>(x)", [])]
)
def test_another_name_for_an_input_is_no_computation(head, codes):
    graph = f"g (float[N, 4] x) => (float[N, 4] y) {{ {head}  b = Identity(a)  q = QuantizeLinear(b, s, z)  y = DequantizeLinear(q, s, z) }}"
    assert found(model(graph, {"s": F(1), "z": U(0)})) == codes


def test_scales_and_zero_points_that_are_fed_prove_nothing():
    graph = "g (float[N, 4] x, {}) => (float[N, 4] y) {{ a = Relu(x)  q = QuantizeLinear(a, s, z)  y = DequantizeLinear(q, s, z) }}"
    assert found(model(graph.format("uint8 z"), {"s": F(1)})) == []
    assert found(model(graph.format("float s"), {"z": U(0)})) == []
    many = {"s": np.ones(4, F), "z": np.zeros(4, U)}
    assert found(model(graph.format("float u"), many)) == [], "one for each channel: no calibration writes that"


def test_the_twin_of_all_of_these_is_healthy():
    assert found(quantized(int8_weights())) == []
    assert found(joined_scores(together=False)) == []
