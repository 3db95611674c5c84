"""The doctor and stored numbers: how many are odd, where they are read, and what is read twice."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from doctor_models import found, parsed, weights

import course_utils as cu

NAN = np.float32(np.nan)


def product(w: np.ndarray, **options: object) -> onnx.ModelProto:
    rows, columns = w.shape
    dtype = "double" if w.dtype == np.float64 else "float"
    return parsed(f"g ({dtype}[N, {rows}] x) => ({dtype}[N, {columns}] y) {{ y = MatMul(x, w) }}", {"w": w}, **options)


# Where it is read


def test_a_weight_that_a_branch_reads():
    """The branch reads what a node outside has turned, or an initializer outside, or one of its own."""

    def branches(w: np.ndarray, name: str) -> onnx.ModelProto:
        graph = """g (bool c, float[N, 4] x) => (float[N, 4] y) {{ m = Transpose(w)
            y = If (c) <then_branch = a () => (float[N, 4] t) {{ s = Identity(w)  t = MatMul(x, {}) }},
                        else_branch = b () => (float[N, 4] e) {{ e = Tanh(x) }}> }}"""
        return parsed(graph.format(name), {"w": w})

    healthy, sick = weights(4, 4), weights(4, 4)
    sick[1, 1] = np.nan
    for name in "mws":
        assert set(found(branches(healthy, name))) <= {"dead-nodes"}
        report = cu.doctor(branches(sick, name))
        (finding,) = (f for f in report.findings if f.code.id == "weights-not-finite")
        assert [(p.kind, p.name, p.graph) for p in finding.where] == [("tensor", "w", "")]


def test_a_name_inside_a_loop_is_not_the_one_outside():
    """`m` of the loop's body is what the loop carries, and begins as x."""
    graph = """g (float[4, 4] x) => (float[4, 4] y) { m = Transpose(w)  i = IsNaN(m)  z = Where(i, x, m)
        y = Loop(k, , z) <body = b (int64 j, bool c, float[4, 4] m) => (bool d, float[4, 4] o) { d = Identity(c)  o = Neg(m) }> }"""
    w = weights(4, 4)
    w[0, 0] = np.nan
    assert found(parsed(graph, {"w": w, "k": np.array(3)})) == []


@pytest.mark.parametrize(("turns", "codes"), [(31, ["weights-not-finite"]), (32, []), (3000, [])])
def test_a_chain_is_followed_back_for_32_nodes(turns, codes):
    chain = "  ".join(f"t{i + 1} = Transpose(t{i})" for i in range(turns))
    w = weights(4, 4)
    w[0, 0] = np.nan
    model = parsed(f"g (float[N, 4] x) => (float[N, 4] y) {{ {chain}  y = MatMul(x, t{turns}) }}", {"t0": w})
    assert set(found(model)) - {"pairs-that-cancel"} == set(codes)


def test_a_concat_gives_on_all_and_the_others_their_first_input():
    """NaN behind a Pad is what is put around; so it reaches no result where nothing is padded."""
    w, sick = weights(4, 4), np.full((4, 4), np.nan, np.float32)
    joined = "g (float[N, 4] x) => (float[N, 8] y) { c = Concat<axis = 1>(v, w)  y = MatMul(x, c) }"
    assert (
        found(parsed(joined, {"v": w, "w": sick}))
        == found(parsed(joined, {"v": sick, "w": w}))
        == ["weights-not-finite"]
    )
    padded = "g (float[N, 4] x) => (float[N, 4] y) { p = Pad(w, none, v)  y = MatMul(x, p) }"
    assert found(parsed(padded, {"w": w, "none": np.zeros(4, np.int64), "v": NAN})) == []
    assert found(parsed(padded, {"w": sick, "none": np.zeros(4, np.int64), "v": np.float32(0)})) == [
        "weights-not-finite"
    ]


def test_a_constant_without_a_name_has_that_of_its_node():
    model = parsed("g (float[N] x) => (float[N] y) { c = Constant<value = float {1.0}>()  y = Add(x, c) }")
    tensor = model.graph.node[0].attribute[0].t
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.asarray(NAN)))
    (finding,) = cu.doctor(model).findings
    assert (finding.code.id, finding.where[0].name) == ("weights-not-finite", "c")


@pytest.mark.parametrize(("body", "more", "codes"), [
    ("y = com.microsoft.FusedMatMul(x, w)", ', "com.microsoft": 1', ["weights-not-finite"]),
    ("y = ai.onnx.ml.Scaler<offset = [0.0], scale = [1.0]>(w)", ', "ai.onnx.ml": 3', []),
])  # fmt: skip
def test_operators_of_other_domains(body, more, codes):
    """What those of ONNX Runtime compute with is judged as well; the others may take NaN for what is missing."""
    sick = np.full((4, 4), np.nan, np.float32)
    assert found(parsed(f"g (float[N, 4] x) => (float[?, 4] y) {{ {body} }}", {"w": sick}, more=more)) == codes


def test_a_scale_of_nan_is_no_weight():
    """It has a finding of its own. What is quantized with it, or read as a float, is a weight."""
    graph = "g (float[N, 4] x) => (float[N, 4] y) { q = QuantizeLinear(w, s, z)  d = DequantizeLinear(q, s, z)  y = MatMul(x, d) }"
    stored = {"w": weights(4, 4), "s": np.float32(0.05), "z": np.int8(0)}
    made = lambda **new: parsed(graph, {k: np.asarray(v) for k, v in (stored | new).items()})  # noqa: E731
    assert "weights-not-finite" not in found(made())
    assert "weights-not-finite" not in found(made(s=NAN))
    assert "weights-not-finite" in found(made(w=np.full((4, 4), NAN)))


# How many


def test_odd_numbers_are_counted():
    """Over all tensors; infinity only where it spoils something."""
    v, w, mask = weights(4, 4), weights(4, 4), np.full(4, -np.inf, np.float32)
    v[0, :3], w[1, 0], w[2, 0], w[3, 0] = np.nan, np.nan, np.inf, -np.inf
    graph = (
        "g (float[N, 4] x) => (float[N, 4] y) { a = MatMul(x, v)  b = MatMul(a, w)  c = Add(b, mask)  y = Softmax(c) }"
    )
    (finding,) = cu.doctor(parsed(graph, {"v": v, "w": w, "mask": mask})).findings
    assert finding.cause == "NaN: 4, infinite: 2, in 2 tensors."
    assert [p.name for p in finding.where] == ["v", "w"]


@pytest.mark.parametrize(
    ("rows", "tiny", "codes"),
    [(8, 63, []), (8, 64, ["subnormal-numbers"]), (100, 100, []), (100, 101, ["subnormal-numbers"])],
)
def test_where_subnormal_weights_begin(rows, tiny, codes):
    """64 of them, and more than a hundredth."""
    w = np.ones((rows, rows), np.float32)
    w.flat[:tiny] = 1e-40
    assert found(product(w)) == codes


def test_tensors_with_most_subnormal_weights_come_first():
    v, w, u = (np.ones((20, 20), np.float32) for _ in range(3))
    v.flat[:100], w.flat[:300] = 1e-40, -1e-40
    graph = "g (float[N, 20] x) => (float[N, 20] y) { a = MatMul(x, v)  b = MatMul(a, w)  y = MatMul(b, u) }"
    (finding,) = cu.doctor(parsed(graph, {"v": v, "w": w, "u": u})).findings
    assert finding.cause.startswith("400 of 1,200 weights are subnormal")
    assert [p.name for p in finding.where] == ["w", "v"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_smallest_number_of_the_usual_form_is_not_subnormal(dtype):
    smallest = np.finfo(dtype).tiny
    code = "subnormal-numbers"
    assert code not in found(product(np.full((10, 10), smallest, dtype)))
    assert code not in found(product(np.full((10, 10), -smallest, dtype)))
    assert code not in found(product(np.zeros((10, 10), dtype)))
    assert code in found(product(np.full((10, 10), smallest / 2, dtype)))
    assert code in found(product(np.full((10, 10), -smallest / 2, dtype)))


def test_small_numbers_in_16_bits_cost_nothing():
    w = np.full((10, 10), 1e-7, np.float16)
    assert found(parsed("g (float16[N, 10] x) => (float16[N, 10] y) { y = MatMul(x, w) }", {"w": w})) == []


@pytest.mark.parametrize(("columns", "codes"), [(17, []), (18, ["float64"])])
def test_more_than_a_tenth_in_float64(columns, codes):
    stored = {"w": weights(170, 1), "v": weights(columns, 1).astype(np.float64)}
    graph = f"g (float[N, 170] x, double[N, {columns}] z) => (float[N, 1] a, double[N, 1] b) {{ a = MatMul(x, w)  b = MatMul(z, v) }}"
    report = cu.doctor(parsed(graph, stored))
    assert report.codes == codes
    if codes:
        assert report.findings[0].cause == "18 weights are float64, 170 are not. Inputs of float64: z."
        assert [p.name for p in report.findings[0].where] == ["v"]


# How much is read


def products(**stored: np.ndarray) -> onnx.ModelProto:
    """Each stored vector is multiplied with an input of its own."""
    ins, outs = (", ".join(f"float[N, {len(w)}] {c}_{name}" for name, w in stored.items()) for c in "xy")
    body = "  ".join(f"y_{name} = Mul(x_{name}, {name})" for name in stored)
    return parsed(f"g ({ins}) => ({outs}) {{ {body} }}", {k: w.astype(np.float32) for k, w in stored.items()})


def limited(model: onnx.ModelProto, kilobytes: float) -> tuple[list[str], list[str]]:
    """What is found within this budget, and what was left out because of it."""
    onnx.save(model, "m.onnx")
    report = cu.doctor("m.onnx", budget_mb=kilobytes / 1000)
    return report.codes, [text for text in report.not_checked if "budget_mb" in text]


def row(*odd: float, size: int = 5000) -> np.ndarray:
    return np.concatenate([odd, np.ones(size - len(odd))])


SEARCHED = "{} of weights were not searched for NaN: the limit is budget_mb."


def test_the_budget_may_be_spent_to_the_last_byte(folder):
    model, code = products(w=row(np.nan)), ["weights-not-finite"]
    assert limited(model, 20) == (code, [])
    assert limited(model, 19.999) == ([], [SEARCHED.format("20.0 kB")])


def test_short_tensors_are_searched_first(folder):
    large, small = row(np.nan, size=10_000), row(np.nan)
    report = limited(products(a=large, b=small), 20)
    assert report == (["weights-not-finite"], [SEARCHED.format("40.0 kB")])
    assert cu.doctor("m.onnx", budget_mb=0.02).findings[0].cause.startswith("NaN: 1, ")


def test_each_tensor_is_paid_for(folder):
    stored = {f"w{size}": row(np.nan, size=size) for size in range(5000, 5004)}
    assert limited(products(**stored), 22) == (["weights-not-finite"], [SEARCHED.format("60.0 kB")])
    assert limited(products(**stored), 79) == (["weights-not-finite"], [SEARCHED.format("20.0 kB")])
    assert cu.doctor("m.onnx", budget_mb=0.079).findings[0].cause.startswith("NaN: 3, ")
    assert limited(products(**stored), 81) == (["weights-not-finite"], [])


def test_what_is_in_memory_costs_nothing():
    w = row(np.nan, size=20_000)
    assert found(products(v=w, w=w), budget_mb=0) == ["weights-not-finite", "weights-stored-twice"]


def test_comparing_is_paid_for_again(folder):
    """Two tensors of 80 000 bytes are read twice: for NaN, and as copies."""
    w = row(size=20_000)
    model, text = products(v=w, w=w), "{} of weights were not compared with each other: the limit is budget_mb."
    assert limited(model, 320) == (["weights-stored-twice"], [])
    assert limited(model, 319.9) == ([], [text.format("80.0 kB")])
    assert limited(model, 239.9) == ([], [text.format("160.0 kB")])


# Copies


@pytest.mark.parametrize(
    ("copied", "beside", "codes"),
    [
        (16_384, 1, []), (16_385, 1, ["weights-stored-twice"]),
        (20_000, 360_000, []), (20_000, 359_999, ["weights-stored-twice"]),
    ],
)  # fmt: skip
def test_where_copies_begin(copied, beside, codes):
    """More than 64 KiB that could be left out, and more than a twentieth of all."""
    report = cu.doctor(products(v=row(size=copied), w=row(size=copied), u=row(size=beside)))
    assert report.codes == codes
    assert not codes or report.findings[0].cause.endswith("could be left out, for example of 'v' and 'w'.")


def test_each_further_copy_is_waste():
    """Of four copies, three; and of another pair, one."""
    a, b = row(2, size=20_000), row(3, size=20_000)
    report = cu.doctor(products(a=a, b=b, c=a, d=b, e=a, f=a, g=row(4, size=20_000)))
    assert report.codes == ["weights-stored-twice"]
    assert report.findings[0].cause == "320.0 kB of 560.0 kB could be left out, for example of 'a' and 'c'."
    assert [p.name for p in report.findings[0].where] == list("acefbd")


def test_copies_have_the_same_dtype_and_shape():
    zeros = np.zeros(40_000, np.float32)
    graph = "g (float[N, 40000] x, float[N, 200] z, int32[N, 40000] i) => (float[N, 40000] a, float[N, 200] b, int32[N, 40000] c) {"
    body = "a = Add(x, u)  b = MatMul(z, v)  c = Add(i, w) }"
    stored = {"u": zeros, "v": zeros.reshape(200, 200), "w": zeros.astype(np.int32)}
    assert found(parsed(f"{graph} {body}", stored)) == []
