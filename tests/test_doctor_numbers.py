"""The doctor and numbers: NaN, infinity and very small ones. Models as people report them, each with healthy twins."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from doctor_models import RNG, found, parsed, texts, weights
from onnx import TensorProto, helper

import course_utils as cu


def moved(how: str, into: str, value: float, *, place: int = 3) -> onnx.ModelProto:
    """A table of 4 × 4 with one odd number, which reaches a node behind others that only move or convert it."""
    table = weights(4, 4)
    table.flat[place] = value
    stored = {
        "t": table, "two": np.array([1, 4, 4]), "square": np.array([4, 4]), "zero": np.array([0]), "four": np.array([4]),
        "all": np.arange(4), "other": weights(4, 4), "ones": np.array([1, 1]), "rows": np.arange(4)[:, None],
        "columns": np.tile(np.arange(4), (4, 1)).T, "deep": np.array([1, 4, 2, 2]), "flat": np.array([1, 1, 4, 4]),
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
    "Identity": "h = Transpose<perm = [1, 0]>(t)  m = Identity(h)",
    "CastLike": "m = CastLike(t, other)",
    "Flatten": "m = Flatten<axis = 1>(t)",
    "Squeeze": "u = Reshape(t, two)  m = Squeeze(u, zero)",
    "Tile": "m = Tile(t, ones)",
    "Trilu": "m = Trilu(t)",
    "Dropout": "m = Dropout(t)",
    "GatherND": "m = GatherND(t, rows)",
    "GatherElements": "m = GatherElements(t, columns)",
    "DepthToSpace": "r = Reshape(t, deep)  d = DepthToSpace<blocksize = 2>(r)  m = Reshape(d, square)",
    "SpaceToDepth": "r = Reshape(t, flat)  d = SpaceToDepth<blocksize = 2>(r)  m = Reshape(d, square)",
}


READERS = {
    "MatMul": "y = MatMul(x, m)",
    "Add": "k = ReduceSum<keepdims = 0>(m)  y = Add(x, k)",
    "Mul": "a = MatMul(x, other)  k = ReduceMax<keepdims = 0>(m)  y = Mul(a, k)",
    "Softmax": "s = Softmax(m)  y = MatMul(x, s)",
}


@pytest.mark.parametrize(
    ("way", "reader"), [(way, "MatMul") for way in WAYS] + [(way, r) for way in ("nothing", "Slice") for r in READERS]
)
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


def test_infinity_in_a_mask_is_meant_so():
    mask = np.where(np.tri(40) > 0, 0, -np.inf).astype(np.float32)
    assert found(parsed("g (float[N, 40, 40] x) => (float[N, 40, 40] y) { y = Add(x, m) }", {"m": mask})) == []


def test_minus_infinity_in_a_table_is_a_mask_unless_somebody_multiplies_with_it():
    """An attention bias by distance: a row that is looked up, and added before a Softmax. Seen in a published model."""
    table = weights(40, 8)
    table[3] = -np.inf
    looked_up = "g (int64[N] i) => (float[N, 8] y) { r = Gather(t, i)  y = Softmax(r) }"
    assert found(parsed(looked_up, {"t": table})) == []
    tied = "g (int64[N] i, float[N, 40] x) => (float[N, 8] y) { r = Gather(t, i)  m = MatMul(x, t)  y = Add(r, m) }"
    assert found(parsed(tied, {"t": table})) == ["weights-not-finite"]
    assert found(parsed(looked_up, {"t": -table})) == ["weights-not-finite"]
    table[4, 0] = np.nan
    assert found(parsed(looked_up, {"t": table})) == ["weights-not-finite"]


@pytest.mark.parametrize(
    ("bits", "codes"), [(0xFF80, []), (0x7F80, ["weights-not-finite"]), (0x7FC0, ["weights-not-finite"])]
)
def test_minus_infinity_in_bfloat16_is_a_mask_too(bits, codes):
    """The bits of minus infinity, of infinity and of NaN."""
    table = np.full(40 * 8, 0x3F80, np.uint16)  # ones
    table[24:32] = bits
    model = parsed("g (int64[N] i) => (float[N, 8] y) { r = Gather(t, i)  c = Cast<to = 1>(r)  y = Softmax(c) }")
    model.graph.initializer.append(helper.make_tensor("t", TensorProto.BFLOAT16, [40, 8], table.tobytes(), raw=True))
    assert found(model) == codes


def test_float16_weights_that_overflowed():
    w = np.full((8, 8), np.inf, np.float16)
    assert found(parsed("g (float16[N, 8] x) => (float16[N, 8] y) { y = MatMul(x, w) }", {"w": w})) == [
        "weights-not-finite"
    ]
