"""The doctor and shapes: the fixed batch and its axis, contradictions, what is unknown, and what is too large."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from doctor_models import found, parsed, weights
from onnx import numpy_helper

import course_utils as cu

# A fixed batch


BYTES = np.ones((4, 4), np.uint8)
POINT = {"s": np.array(0.1, np.float32), "z": np.array(0, np.uint8)}
QUANTIZED = "q = QuantizeLinear(x, s, z)  p = {}  y = DequantizeLinear(p, s, z)"
# Operator → shape of x, nodes, weights.
LEARNT = {
    "Conv": ("2, 3, 8, 8", "y = Conv(x, w)", {"w": weights(4, 3, 3, 3)}),
    "ConvTranspose": ("2, 3, 8, 8", "y = ConvTranspose(x, w)", {"w": weights(3, 4, 3, 3)}),
    "Gemm": ("2, 4", "y = Gemm(x, w)", {"w": weights(4, 4)}),
    "MatMul": ("2, 4", "y = MatMul(x, w)", {"w": weights(4, 4)}),
    "LSTM": ("5, 2, 4", "a = LSTM<hidden_size = 3>(x, w, r)  y = Squeeze(a, one)", {"w": weights(1, 12, 4), "r": weights(1, 12, 3), "one": np.array([1])}),
    "GRU": ("5, 2, 4", "a = GRU<hidden_size = 4>(x, w, r)  y = Squeeze(a, one)", {"w": weights(1, 12, 4), "r": weights(1, 12, 4), "one": np.array([1])}),
    "RNN": ("5, 2, 4", "a = RNN<hidden_size = 3>(x, w, r)  y = Squeeze(a, one)", {"w": weights(1, 3, 4), "r": weights(1, 3, 3), "one": np.array([1])}),
    "MatMulInteger": ("2, 4", "q, s, z = DynamicQuantizeLinear(x)  i = MatMulInteger(q, w, z)  y = Cast<to = 1>(i)", {"w": BYTES}),
    "ConvInteger": ("2, 4, 8, 8", "q, s, z = DynamicQuantizeLinear(x)  i = ConvInteger(q, w, z)  y = Cast<to = 1>(i)", {"w": BYTES.reshape(4, 4, 1, 1)}),
    "QLinearConv": ("2, 4, 8, 8", QUANTIZED.format("QLinearConv(q, s, z, w, s, z, s, z)"), {"w": BYTES.reshape(4, 4, 1, 1), **POINT}),
    "QLinearMatMul": ("2, 4", QUANTIZED.format("QLinearMatMul(q, s, z, w, s, z, s, z)"), {"w": BYTES, **POINT}),
}  # fmt: skip


def sized(shape: str, body: str, stored: dict[str, np.ndarray]) -> onnx.ModelProto:
    out = ", ".join(["?" if d.strip() not in ("2", "N") else d for d in shape.split(",")])
    return parsed(f"g (float[{shape}] x) => (float[{out}] y) {{ {body} }}", stored)


@pytest.mark.parametrize("op", LEARNT)
def test_the_fixed_batch_of_every_layer(op):
    """Of 2 examples, in a model that has learnt something. A formula of fixed size has no batch."""
    shape, body, stored = LEARNT[op]
    assert "batch-fixed" in found(sized(shape, body, stored))
    assert "batch-fixed" not in found(sized(shape.replace("2", "N"), body, stored))


@pytest.mark.parametrize("body", ["y = Mul(x, k)", "w = Reshape(v, size)  y = MatMul(x, w)"])
def test_a_formula_has_no_batch(body):
    """What is fed is not learnt; nor is a number beside it."""
    stored = {"k": weights(4)} if "Mul(x, k" in body else {"size": np.array([4, 4])}
    assert found(parsed(f"g (float[2, 4] x, float[16] v) => (float[2, 4] y) {{ {body} }}", stored)) == []


def test_a_layer_in_a_branch_counts():
    model = parsed(
        """g (bool c, float[2, 4] x) => (float[2, 4] y) {
        y = If (c) <then_branch = a () => (float[2, 4] t) { t = MatMul(x, w) }, else_branch = b () => (float[2, 4] e) { e = Tanh(x) }> }""",
        {"w": weights(4, 4)},
    )
    assert found(model) == ["batch-fixed"]


@pytest.mark.parametrize(
    ("inputs", "output", "codes"),
    [
        ("float[2, 4] x", "2, 4", ["batch-fixed"]),
        ("float[0, 4] x", "0, 4", []),
        ("float[2, 4] x, float[2, 4] z", "2, 4", ["batch-fixed"]),
        ("float[2, 4] x, float[1, 4] z", "2, 4", []),
        ("float[2, 4] x, float[N, 4] z", "2, 4", []),
        ("float[2, 4] x, float[4] z", "2, 4", ["batch-fixed"]),
        ("float[2, 4] x", "?, 4", []),
        ("float[4, 4] x", "?, 4", []),
    ],
)
def test_one_number_in_every_input_and_in_an_output(inputs, output, codes):
    body = "a = MatMul(x, w)  y = Add(a, z)" if " z" in inputs else "y = MatMul(x, w)"
    model = parsed(f"g ({inputs}) => (float[{output}] y) {{ {body} }}", {"w": weights(4, 4)})
    assert set(found(model)) - {"shape-conflict"} == set(codes)


def test_inputs_and_outputs_without_a_shape():
    """They say nothing of a batch; and one output is enough."""
    graph = "g (float[2, 4] x, float[2, 4] u) => (float[4, 2] z, float[2, 4] y) { y = MatMul(x, w)  z = Transpose(u) }"
    model = parsed(graph, {"w": weights(4, 4)})
    (finding,) = cu.doctor(model).findings
    assert finding.code.id == "batch-fixed"
    assert "dynamic_shapes=({0: 'batch'}, {0: 'batch'})." in finding.cure
    model.graph.input[1].type.tensor_type.ClearField("shape")
    assert "batch-fixed" in found(model)
    model.graph.output[1].type.tensor_type.ClearField("shape")
    assert "batch-fixed" not in found(model)


def test_the_first_dimension_is_told():
    (finding,) = cu.doctor(sized("2, 4", "y = MatMul(x, w)", {"w": weights(4, 4)})).findings
    assert finding.cause == "x: the first dimension is 2. Another number of examples is an error."
    assert [str(place) for place in finding.where] == ["input 'x'"]
    assert "({0: 'batch'},)" in finding.cure


def recurrent(
    body: str, shape: str = "5, 2, 4", *, layer: str = "GRU<hidden_size = 4>(b, w, r)", more: str = "", opset: int = 21
) -> onnx.ModelProto:
    """x, a body that writes b, and a layer behind it, for which the batch is the second axis of b."""
    stored = {
        "w": weights(1, 12, 4), "r": weights(1, 12, 4), "one": np.array([1]), "k": weights(4, 4), "c": np.ones((5, 2, 4), bool), "n": weights(4),
        "none": np.array([0, 0, 0]), "size": np.array([5, 2, 4]), "half": np.array(0.5, np.float32), "t": weights(10, 4),
    }  # fmt: skip
    text = f"{body}  a = {layer}"
    used = {k: v for k, v in stored.items() if any(f"{p}{k}{q}" in text for p in "( " for q in ",)") or k == "one"}
    graph = f"g ({'int64' if 'Gather' in body else 'float'}[{shape}] x{more}) => (float[5, 2, 4] y) {{ {text}  y = Squeeze(a, one) }}"
    return parsed(graph, used, opset=opset)


SAME_AXES = (
    "Identity(x)", "Cast<to = 1>(x)", "Dropout(x)", "Add(x, k)", "Sub(k, x)", "Mul(x, k)", "Div(x, k)", "MatMul(x, k)", "Relu(x)", "LeakyRelu(x)",
    "Elu(x)", "Gelu(x)", "Erf(x)", "Tanh(x)", "Sigmoid(x)", "Clip(x, half)", "Slice(x, none, size)", "Sqrt(x)", "Exp(x)", "Log(x)",
    "LayerNormalization(x, n)", "Softmax(x)", "Neg(x)", "Pow(x, half)", "Where(c, x, half)",
)  # fmt: skip
AXES = {
    step.partition("(")[0]: (
        f"b = {step.replace('k)', 'n)') if 'MatMul' not in step else step}".replace("(k,", "(n,"),
        "5, 2, 4",
        1,
    )
    for step in SAME_AXES
}
AXES |= {
    "nothing": ("b = Identity(x)", "5, 2, 4", 1),
    "Split": ("b, d = Split<axis = 2, num_outputs = 2>(x)", "5, 2, 8", 1),
    "Transpose": ("b = Transpose<perm = [1, 0, 2]>(x)", "2, 5, 4", 0),
    "another Transpose": ("b = Transpose<perm = [2, 0, 1]>(x)", "2, 4, 5", 0),
    "a third one": ("b = Transpose<perm = [1, 2, 0]>(x)", "4, 5, 2", 2),
    "Transpose twice": (
        "d = Transpose<perm = [1, 0, 2]>(x)  e = Neg(d)  b = Transpose<perm = [1, 0, 2]>(e)",
        "5, 2, 4",
        1,
    ),
    "an embedding": ("b = Gather(t, x)", "5, 2", 1),
}


@pytest.mark.parametrize("kind", AXES)
def test_the_axis_of_the_batch_is_followed_back(kind):
    """From a recurrent layer, where time stands first, to the input."""
    body, shape, axis = AXES[kind]
    (finding,) = (f for f in cu.doctor(recurrent(body, shape)).findings if f.code.id == "batch-fixed")
    if axis:
        assert finding.cause == f"x (axis {axis}): the size of the batch is 2. Another number of examples is an error."
        assert f"dynamic_shapes=({{{axis}: 'batch'}},)." in finding.cure
    else:
        assert finding.cause == "x: the first dimension is 2. Another number of examples is an error."


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        ("b = Reshape(x, size)", "2, 5, 4"),
        ("b = Transpose(x)", "2, 4, 5"),
        ("b = GlobalMaxPool(x)", "2, 5, 4"),
        ("b = Gather<axis = 1>(t, x)", "5, 2"),
    ],
)
def test_where_it_cannot_be_followed_the_batch_stands_first(body, shape):
    found(recurrent(body, shape))
    report = cu.doctor(recurrent(body, shape))
    assert not [f for f in report.findings if f.code.id == "batch-fixed" and "axis" in f.cause]


def test_the_layer_behind_another_tells_nothing():
    """`Y` has an axis more: what is behind a layer is left to that layer."""
    first = "a1 = GRU<hidden_size = 4>(x, w, r)  b = Squeeze(a1, one)"
    (finding,) = (f for f in cu.doctor(recurrent(first)).findings if f.code.id == "batch-fixed")
    assert finding.cause.startswith("x (axis 1): ")


@pytest.mark.parametrize(("count", "free"), [(1, "({1: 'batch'},)"), (2, "({1: 'batch'}, {1: 'batch'})"), (4, "({1: 'batch'}, {1: 'batch'}, {1: 'batch'}, {1: 'batch'})"),
                                             (5, "({1: 'batch'}, {1: 'batch'}, {1: 'batch'}, {1: 'batch'}, …)")])  # fmt: skip
def test_the_cure_names_the_axis_of_each_input(count, free):
    layers = "  ".join(f"a{i} = GRU<hidden_size = 4>(x{i}, w, r)" for i in range(count))
    total = "  ".join(f"s{i + 1} = Add(s{i}, a{i + 1})" for i in range(count - 1)).replace("(s0,", "(a0,")
    last = f"s{count - 1}" if count > 1 else "a0"
    inputs = ", ".join(f"float[5, 2, 4] x{i}" for i in range(count))
    stored = {"w": weights(1, 12, 4), "r": weights(1, 12, 4), "one": np.array([1])}
    model = parsed(f"g ({inputs}) => (float[5, 2, 4] y) {{ {layers}  {total}  y = Squeeze({last}, one) }}", stored)
    (finding,) = (f for f in cu.doctor(model).findings if f.code.id == "batch-fixed")
    assert f"dynamic_shapes={free}. " in finding.cure
    assert len(finding.where) == count


@pytest.mark.parametrize("states", ["h", "h, c"])
def test_the_batch_of_the_first_states(states):
    """Of the hidden state, and of the cell."""
    gates, layer = (16, "LSTM") if "c" in states else (12, "GRU")
    inputs = ", ".join(f"float[1, 2, 4] {name}" for name in states.split(", "))
    graph = f"g (float[5, 2, 4] x, {inputs}) => (float[5, 2, 4] y) {{ a = {layer}<hidden_size = 4>(x, w, r, , , {states})  y = Squeeze(a, one) }}"
    model = parsed(graph, {"w": weights(1, gates, 4), "r": weights(1, gates, 4), "one": np.array([1])})
    (finding,) = (f for f in cu.doctor(model).findings if f.code.id == "batch-fixed")
    assert finding.cause.startswith(
        ", ".join(f"{name} (axis 1)" for name in ["x", *states.split(", ")]) + ": the size of the batch is 2."
    )


def test_an_input_without_time_keeps_its_first_axis():
    body = "d = MatMul(v, k)  b = Add(x, d)"
    model = recurrent(body, more=", float[2, 4] v")
    (finding,) = (f for f in cu.doctor(model).findings if f.code.id == "batch-fixed")
    assert finding.cause.startswith("x (axis 1), v (axis 0): the size of the batch is 2.")
    assert "({1: 'batch'}, {0: 'batch'})." in finding.cure


# Contradictions


@pytest.mark.parametrize(
    ("graph", "stored", "code", "severity"),
    [
        ("g (float[N, 4] x) => (float[N, 5] y) { y = Relu(x) }", (), "shape-conflict", "warning"),
        ("g (float[N, 4] x) => (float[N, 5] y) { y = MatMul(x, w) }", (3, 5), "shape-conflict", "error"),
    ],
)
def test_how_bad_a_contradiction_is(graph, stored, code, severity):
    report = cu.doctor(parsed(graph, {"w": weights(*stored)} if stored else {}))
    assert [(f.code.id, f.severity) for f in report.findings] == [(code, severity)]


def test_a_contradiction_inside_a_standard_operator_is_none():
    """Such as this one is defined by a function, in which the onnx package infers shapes as well."""
    model = parsed("g (float[3, 4] x) => (float[3, 4] y) { y = MeanVarianceNormalization<axes = [0, 1, 2, 3]>(x) }")
    assert "shape-conflict" not in found(model)


# Too large


@pytest.mark.parametrize(("dtype", "codes"), [("uint8", []), ("float16", ["tensor-huge"]), ("float", ["tensor-huge"])])
def test_the_largest_tensor_is_told(dtype, codes):
    """2³⁷ and 2³⁸ numbers: 128 and 256 GiB of bytes."""
    model = parsed(
        f"g ({dtype}[131072, 1048576] x) => ({dtype}[262144, 1048576] y) {{ a = Identity(x)  y = Concat<axis = 0>(x, a) }}"
    )
    report = cu.doctor(model)
    assert report.codes == codes
    if codes:
        assert report.findings[0].cause.startswith("'y' has the shape [262144, 1048576]: ")
        assert {place.name for place in report.findings[0].where} == ({"y"} if dtype == "float16" else {"x", "a", "y"})


def test_free_sizes_are_never_too_large():
    assert found(parsed("g (float[N, 1048576, 1048576] x) => (float[N, 1048576, 1048576] y) { y = Relu(x) }")) == []


# Unknown


def unknown(body: str, output: str = "float y", more: str = "") -> onnx.ModelProto:
    return parsed(f"g (float[N, 4] x, int64[K] s{more}) => ({output}) {{ {body} }}")


@pytest.mark.parametrize(
    ("body", "words", "places"),
    [
        ("a = Reshape(x, s)  y = ReduceMax<keepdims = 0>(a)", "1 tensor. They are lost at: Reshape.", ["a"]),
        ("a = Reshape(x, s)  b = Relu(a)  y = ReduceMax<keepdims = 0>(b)", "2 tensors. They are lost at: Reshape.", ["a"]),
        ("a = Reshape(x, s)  b = Expand(x, s)  c = Reshape(x, s)  d = Add(a, b)  e = Add(c, d)  y = ReduceMax<keepdims = 0>(e)",
         "5 tensors. They are lost at: Reshape, Expand.", ["a", "b", "c"]),
    ],
)  # fmt: skip
def test_where_shapes_are_lost(body, words, places):
    (finding,) = cu.doctor(unknown(body)).findings
    assert finding.code.id == "shape-unknown"
    assert finding.cause == f"Even onnx.shape_inference does not know {words}"
    assert [place.name for place in finding.where] == places


def test_what_nobody_reads_needs_no_shape():
    assert found(unknown("a = Reshape(x, s)  y = ReduceMax<keepdims = 0>(x)")) == ["dead-nodes"]


def test_results_that_nobody_reads_are_not_counted():
    (_, finding) = cu.doctor(unknown("a = Reshape(x, s)  b = Relu(a)  y = ReduceMax<keepdims = 0>(a)")).findings
    assert finding.cause == "Even onnx.shape_inference does not know 1 tensor. They are lost at: Reshape."


def test_shapes_that_were_not_worked_out_are_not_lost():
    model = parsed("g (float[4] x) => (float[4] y) { k = Neg(w)  y = Add(k, nobody) }", {"w": weights(4)})
    assert found(model) == ["tensor-undefined"]


def test_a_list_of_tensors_has_no_shape():
    """What is taken out of it has one where it is known."""
    body = "l = SequenceConstruct(x, x)  a = SequenceAt(l, i)  y = ReduceMax<keepdims = 0>(a)"
    assert found(unknown(body, more=", int64 i")) == []


def test_shapes_are_not_lost_at_operators_of_the_runtime():
    """The onnx package knows none of their shapes; those behind them are counted where they are lost anew."""
    graph = "g (float[N, 4] x) => (float[N, 4] y) { a = com.microsoft.QuickGelu(x)  y = Relu(a) }"
    assert found(parsed(graph, more=', "com.microsoft": 1')) == []
    model = parsed(
        "g (float[N, 4] x) => (float y) { a = SimplifiedLayerNormalization(x, w)  y = ReduceMax<keepdims = 0>(a) }",
        {"w": weights(4)},
    )
    assert found(model) == []


@pytest.mark.parametrize("body", ["a = Expand(w, s)", "a = Resize(x, , , s)"])
def test_stored_tensors_have_shapes(body):
    """And an input that is left out has nothing to tell."""
    model = unknown(f"{body}  y = ReduceMax<keepdims = 0>(a)")
    model.graph.initializer.append(numpy_helper.from_array(weights(4), "w"))
    (finding,) = (f for f in cu.doctor(model).findings if f.code.id == "shape-unknown")
    assert finding.where[0].name == "a"
