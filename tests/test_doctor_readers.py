"""NaN and infinity by the operator that reads them: each kind of reader, with a healthy twin."""

from __future__ import annotations

import numpy as np
import pytest
from doctor_models import found, parsed, weights


def table(value: float) -> np.ndarray:
    t = weights(4, 4)
    t[1, 2] = value
    return t


MULTIPLY = {
    "Gemm": "y = Gemm(x, t)",
    "Einsum": 'y = Einsum<equation = "ij,jk->ik">(x, t)',
    "PRelu": "y = PRelu(x, t)",
    "FusedMatMul": "y = com.microsoft.FusedMatMul(x, t)",
}


@pytest.mark.parametrize("reader", MULTIPLY)
def test_a_reader_that_multiplies(reader):
    value = np.nan if reader == "FusedMatMul" else -np.inf
    graph = f"g (float[4, 4] x) => (float[4, 4] y) {{ {MULTIPLY[reader]} }}"
    for number, sick in ((value, True), (1.0, False)):
        codes = found(parsed(graph, {"t": table(number)}, more=', "com.microsoft": 1'))
        assert ("weights-not-finite" in codes) == sick


@pytest.mark.parametrize(
    ("reader", "sick"),
    [("Min(r, x)", False), ("Max(r, x)", False), ("Clip(x, , r)", False), ("Sub(x, r)", False), ("Add(x, r)", True)],
)
def test_infinity_from_a_table_may_be_a_bound(reader, sick):
    stored = np.array([1, np.inf, 2, 3], np.float32) if "Clip" in reader else table(np.inf)
    graph = f"g (float[4] x, int64 i) => (float[4] y) {{ r = Gather(t, i)  y = {reader} }}"
    assert ("weights-not-finite" in found(parsed(graph, {"t": stored}))) == sick


@pytest.mark.parametrize("way", ["Tile(t, one)", "Flatten(t)", "Trilu(t)", "CastLike(t, x)"])
def test_nan_behind_other_ways(way):
    graph = f"g (float[4, 4] x) => (float[4, 4] y) {{ m = {way}  y = MatMul(x, m) }}"
    stored = {"one": np.array([1, 1])} if "one" in way else {}
    assert "weights-not-finite" in found(parsed(graph, {"t": table(np.nan), **stored}))
    assert "weights-not-finite" not in found(parsed(graph, {"t": table(1.0), **stored}))
