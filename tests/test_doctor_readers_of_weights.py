"""The doctor and who reads a weight: what NaN and infinity mean there, and what counts as a weight of float64."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from doctor_models import found, parsed, weights

# Operators that multiply with what is stored: x, the node, and the shape of w.
LAYERS = {
    "Conv": ("N, 3, 8, 8", "y = Conv(x, w)", (4, 3, 3, 3)),
    "ConvTranspose": ("N, 3, 8, 8", "y = ConvTranspose(x, w)", (3, 4, 3, 3)),
    "Gemm": ("N, 4", "y = Gemm(x, w)", (4, 4)),
    "MatMul": ("N, 4", "y = MatMul(x, w)", (4, 4)),
    "LSTM": ("5, N, 4", "y = LSTM<hidden_size = 3>(x, w, r)", (1, 12, 4)),
    "GRU": ("5, N, 4", "y = GRU<hidden_size = 4>(x, w, r)", (1, 12, 4)),
    "RNN": ("5, N, 4", "y = RNN<hidden_size = 12>(x, w, r)", (1, 12, 4)),
    "BatchNormalization": ("N, 4, 8", "y = BatchNormalization(x, w, v, v, v)", (4,)),
    "InstanceNormalization": ("N, 4, 8", "y = InstanceNormalization(x, w, v)", (4,)),
    "LayerNormalization": ("N, 4", "y = LayerNormalization(x, w)", (4,)),
    "GroupNormalization": ("N, 4, 8", "y = GroupNormalization<num_groups = 2>(x, w, v)", (4,)),
    "RMSNormalization": ("N, 4", "y = RMSNormalization(x, w)", (4,)),
    "PRelu": ("N, 4", "y = PRelu(x, w)", (4,)),
    "Einsum": ("N, 4", 'y = Einsum<equation = "nc,cd->nd">(x, w)', (4, 4)),
}
RECURRENT = {"LSTM": (1, 12, 3), "GRU": (1, 12, 4), "RNN": (1, 12, 12)}


def layer(op: str, value: float, dtype: str = "float") -> onnx.ModelProto:
    """One layer, with this number among its weights."""
    shape, body, size = LAYERS[op]
    w = np.ones(size)
    w.flat[2] = value
    stored = {"w": w, "v": np.ones(4), "r": np.ones(RECURRENT.get(op, 1))}
    used = {
        k: v.astype(np.float64 if dtype == "double" else np.float32)
        for k, v in stored.items()
        if f" {k})" in body or f" {k}," in body
    }
    graph = f"g ({dtype}[{shape}] x) => ({dtype} z) {{ {body}  z = ReduceMax<keepdims = 0>(y) }}"
    return parsed(graph, used, opset=23)


@pytest.mark.parametrize("op", LAYERS)
def test_infinite_weights_of_every_layer(op):
    assert set(found(layer(op, 2))) <= {"shape-unknown"}
    assert "weights-not-finite" in found(layer(op, np.inf))
    assert "weights-not-finite" in found(layer(op, -np.inf))


@pytest.mark.parametrize("op", LAYERS)
def test_weights_of_float64_in_every_layer(op):
    assert "float64" in found(layer(op, 2, "double"))


@pytest.mark.parametrize(
    "body",
    ["y = Mul(x, w)", "y = Div(x, w)", "y = Add(x, w)", "a, b = Split<axis = 1, num_outputs = 2>(w)  y = Add(x, a)"],
)
def test_a_constant_of_float64_is_no_weight(body):
    assert (
        found(
            parsed(
                f"g (double[N, 4] x) => (double[?, 4] y) {{ {body} }}", {"w": np.ones((4, 8 if "Split" in body else 4))}
            )
        )
        == []
    )


@pytest.mark.parametrize("dtype", ["float", "double"])
@pytest.mark.parametrize("op", ["Gather", "GatherND", "GatherElements"])
def test_a_table_of_float64(dtype, op):
    graph = f"g (int64[N, 1] i) => ({dtype} y) {{ e = {op}(t, i)  a = Abs(e)  y = ReduceMax<keepdims = 0>(a) }}"
    table = weights(40, 8).astype(np.float64 if dtype == "double" else np.float32)
    assert found(parsed(graph, {"t": table})) == (["float64"] if dtype == "double" else [])


@pytest.mark.parametrize("op", ["Gather", "GatherND", "GatherElements"])
@pytest.mark.parametrize(
    ("value", "codes"), [(-np.inf, []), (np.inf, ["weights-not-finite"]), (np.nan, ["weights-not-finite"])]
)
def test_infinity_in_a_table(op, value, codes):
    """-inf can be meant, as what is added before a Softmax."""
    table = weights(40, 8)
    table[3] = value
    graph = f"g (int64[N, 1] i) => (float y) {{ e = {op}(t, i)  a = Softmax(e)  y = ReduceMax<keepdims = 0>(a) }}"
    assert found(parsed(graph, {"t": table})) == codes


@pytest.mark.parametrize(
    "body", ["y = Min(e, x)", "y = Max(x, e)", "y = Clip(x, , k)", "a = Sub(x, e)  y = Softmax(a)"]
)
def test_a_table_of_bounds(body):
    """+inf can be meant there: no bound."""
    table = np.full(4, np.inf, np.float32)
    graph = f"g (int64 i, float[N] x) => (float[N] y) {{ e = Gather(t, i)  {body.replace('k', 'e')} }}"
    assert found(parsed(graph, {"t": table})) == []
    assert found(parsed(graph.replace(body.replace("k", "e"), "y = Add(x, e)"), {"t": table})) == ["weights-not-finite"]


# What a node does with NaN that spoils nothing.
HARMLESS = {
    "IsNaN": "b = IsNaN(t)  y = Where(b, x, x)",
    "IsInf": "b = IsInf(t)  y = Where(b, x, x)",
    "Where": "b = Less(x, x)  w = Where(b, t, x)  n = IsNaN(w)  y = Where(n, x, w)",
    "Equal": "b = Equal(x, t)  y = Where(b, x, x)",
    "Greater": "b = Greater(x, t)  y = Where(b, x, x)",
    "GreaterOrEqual": "b = GreaterOrEqual(x, t)  y = Where(b, x, x)",
    "Less": "b = Less(x, t)  y = Where(b, x, x)",
    "LessOrEqual": "b = LessOrEqual(x, t)  y = Where(b, x, x)",
    "Shape": "s = Shape(t)  y = Expand(x, s)",
    "Size": "s = Size(t)  f = Cast<to = 1>(s)  y = Add(x, f)",
    "Loop": "l = Loop(i, , t) <body = b (int64 n, bool c, float[4] v) => (bool d, float[4] o) { d = Identity(c)  o = Neg(x) }>  y = Add(x, l)",
    "Scan": "l, m = Scan<num_scan_inputs = 1, body = b (float[4] v, float e) => (float[4] o, float p) { o = Neg(x)  p = Neg(e) }>(t, x)  y = Add(x, l)",
    "ScatterND": "y = ScatterND(x, j, t)",
    "ScatterElements": "y = ScatterElements(x, i4, t)",
    "Compress": "y = Compress(t, k)",
    "Sequence": "s = SequenceConstruct(t)  q = SequenceInsert(s, t)  y = SequenceAt(q, i)",
    "Optional": "o = Optional(t)  y = OptionalGetElement(o)",
}  # fmt: skip


@pytest.mark.parametrize("op", HARMLESS)
def test_nan_that_nobody_computes_with(op):
    """It is asked for, chosen or kept. The same number beside a sum is an error."""
    body, t = HARMLESS[op], np.full(4, np.nan, np.float32)
    stored = {"t": t, "i": np.array(1), "j": np.arange(4)[:, None], "i4": np.arange(4), "k": np.array([True] * 4)}
    used = {
        k: v for k, v in stored.items() if f"({k})" in body or f"({k}," in body or f" {k}," in body or f" {k})" in body
    }
    graph = f"g (float[4] x) => (float[4] y) {{ {body} }}"
    assert set(found(parsed(graph, used))) <= {"shape-unknown"}
    summed = graph[: graph.rindex("}")].replace(" y) {", " z) {") + " z = Add(y, t) }"
    assert "weights-not-finite" in found(parsed(summed, used))
