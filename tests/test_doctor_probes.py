"""What the process for a trial finds out of sizes, by other ones than those that ran, and of the numbers inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from doctor_models import parsed, weights
from doctor_runs import RESHAPE, listen, runs

from course_utils.diagnosis.child import trial_child as worker


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    return listen(monkeypatch)


# Sizes that are frozen


def probed(graph: str, stored: Mapping[str, object], base: dict[str, int], said: dict) -> tuple[dict | None, list[str]]:
    worker.probe(runs(graph, stored), base, "normal")
    return said.get("frozen"), said.get("not-probed", {}).get("names", [])


def test_a_frozen_batch(said):
    event, left = probed(RESHAPE.format(4), {"s": np.array([1, 4])}, {"N": 1}, said)
    assert (event["name"], event["runs"], event["fails"], event["batch"], left) == ("N", 1, [2, 3], True, [])
    assert "{2,4}" in event["why"]


def test_batches_of_one_kind_alone(said):
    """Even numbers: a batch must be any number."""
    even = "g (float[N, 4] x) => (float[?, ?, ?] y) { y = Reshape(x, s) }", {"s": np.array([-1, 2, 4])}
    event, _ = probed(*even, {"N": 2}, said)
    assert (event["runs"], event["fails"]) == (2, [3])


@pytest.mark.parametrize(("name", "batch"), [("L", False), ("batch_size", True), ("Batch", True)])
def test_a_frozen_size(name, batch, said):
    graph = f"g (float[1, {name}] x) => (float[?, ?] y) {{ y = Add(x, p) }}"
    event, left = probed(graph, {"p": weights(1, 7)}, {name: 7}, said)
    assert (event["name"], event["runs"], event["fails"][:3], event["batch"], left) == (name, 7, [8, 3, 14], batch, [])


def test_sizes_that_one_other_number_fits(said):
    """Steps of eight are free enough; and sizes that are equal may have to stay so."""
    assert probed(
        "g (float[1, L] x) => (float[?, ?] y) { y = Reshape(x, s) }", {"s": np.array([-1, 8])}, {"L": 16}, said
    ) == (None, [])
    assert probed(
        "g (float[N, L] x, float[M, L] z) => (float[?, ?] y) { y = Add(x, z) }", {}, {"N": 1, "M": 1, "L": 4}, said
    ) == (None, [])
    assert probed(
        "g (float[1, A] x, float[1, B] z) => (float[?, ?] y) { y = Concat<axis = 0>(x, z) }",
        {},
        {"A": 16, "B": 16},
        said,
    ) == (None, [])


def test_a_frozen_size_beside_a_free_one(said):
    """Both were 7. Changed together with the other one, the free one would fail; alone it does not."""
    graph = "g (float[1, B] z, float[1, A] x) => (float[?, ?] y, float[?, ?] v) { y = Add(z, p)  v = Relu(x) }"
    event, left = probed(graph, {"p": weights(1, 7)}, {"B": 7, "A": 7}, said)
    assert (event["name"], left) == ("B", [])


def test_a_size_that_is_a_sum_is_left(said):
    """Where one of the sizes is 0, the others may have to add up."""
    graph = "g (float[1, P] c, float[1, S] x, float[1, T] m) => (float[?, ?] y) { j = Concat<axis = 1>(c, x)  y = Concat<axis = 0>(j, m) }"
    event, left = probed(graph, {}, {"P": 0, "S": 16, "T": 16}, said)
    assert event is None
    assert "P" in left


def test_nothing_is_probed_when_it_is_late(said):
    made = runs(RESHAPE.format(4), {"s": np.array([1, 4])}, seconds=-1)
    worker.probe(made, {"N": 1}, "normal")
    assert said == {"not-probed": {"names": ["N"]}}
    quadratic = runs("g (float[1, L] x) => (float[?, ?] y) { y = Add(x, p) }", {"p": weights(1, 16)}, seconds=100)
    quadratic.seconds = 60  # and 17 would take 68
    worker.probe(quadratic, {"L": 16}, "normal")
    assert "frozen" in said
    assert said["frozen"]["fails"] == [17, 8], "32 would take four times as long"


def test_sizes_that_are_too_large_say_nothing(said):
    large = "g (float[N, 40000000] x) => (float[N, 1] y) { y = ReduceMax(x, a) }"
    made = runs(large, {"a": np.array([1])})
    worker.probe(made, {"N": 1}, "normal")
    assert said == {"not-probed": {"names": ["N"]}}


# Inside


def inside(graph: str, stored: Mapping[str, object], said: dict, **how: object) -> dict | None:
    said.clear()
    made = runs(graph, stored)
    onnx.save(parsed(graph, {k: np.asarray(v) for k, v in stored.items()}), "m.onnx")
    worker.inside(ort, {"path": "m.onnx", "provider": None, **how}, made, {"N": 4}, "normal")
    return said.get("inside")


def test_what_is_seen_inside(said, folder):
    graph = "g (float[N, 4] x) => (float[N, 4] y) { a = Mul(x, k)  b = Abs(a)  c = Neg(b)  d = Sqrt(c)  e = Log(c)  f = Add(d, e)  y = Clip(f) }"
    found = inside(graph, {"k": np.float32(1e-39)}, said)
    assert [(name, node) for name, node, _ in found["slow"]] == [("a", "Mul")]
    assert found["slow"][0][2] == 1
    assert found["nan"] == ["d"], "the first one"
    healthy = inside(graph, {"k": np.float32(1)}, said)
    assert healthy["slow"] == []
    own = parsed(graph, {"k": np.asarray(np.float32(1e-39))})
    own.graph.node[0].domain = "ai.onnx"
    own.graph.node[0].name = "scaled"
    onnx.save(own, "m.onnx")
    worker.inside(ort, {"path": "m.onnx", "provider": None}, runs(graph, {"k": np.float32(1)}), {"N": 4}, "normal")
    assert said["inside"]["slow"][0][:2] == ["a", "scaled"]


def test_an_output_is_looked_at_once(said, folder):
    graph = "g (float[N, 4] x) => (float[N, 4] y) { y = Mul(x, k) }"
    assert inside(graph, {"k": np.float32(1e-39)}, said)["slow"] == [["y", "Mul", 1]]


def test_when_nothing_is_looked_at_inside(said, folder, monkeypatch):
    graph = "g (float[N, 4] x) => (float[N, 4] y) { y = Mul(x, k) }"
    monkeypatch.setattr(worker.Runs, "late", lambda self, factor=1: factor >= 10)
    assert inside(graph, {"k": np.float32(1)}, said) is None
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("numbers", "dtype", "share"),
    [
        ([1e-40] * 8, np.float32, 1), ([1e-40] * 4 + [1] * 4, np.float32, 0.5), ([1e-40] * 7, np.float32, 0), ([1e-40] * 8 + [0] * 8, np.float32, 1),
        ([1e-40] * 7 + [0] * 8, np.float32, 0), ([1e-40] * 8, np.float64, 0), ([1e-310] * 8, np.float64, 1), ([-1e-40] * 8, np.float32, 1),
        ([1e-7] * 8, np.float16, 0), ([1] * 8, np.int64, 0), ([0] * 9, np.float32, 0), ([1.2e-38] * 8, np.float32, 0),
    ],
)  # fmt: skip
def test_the_share_of_small_numbers(numbers, dtype, share):
    assert worker._subnormal(np.array(numbers, dtype)) == share


def test_what_is_no_array_has_no_numbers():
    assert worker._subnormal([1e-40] * 8) == 0
    assert worker._subnormal(None) == 0
    assert not worker._has(np.isnan, None)
    assert not worker._has(np.isnan, np.array(["a"]))
    assert not worker._nothing_finite(np.zeros(0, np.float32))
    assert worker._same([1], [2]), "sequences are not compared"
    assert not worker._same(np.zeros(2), np.zeros(3))
    assert worker._same(np.array([np.nan]), np.array([np.nan]))
    assert worker._same(np.array(["a"]), np.array(["a"]))
    assert not worker._same(np.array([1.0]), np.array([2.0]))


# A constant k of NaN is read by one node, which is the first that gives one, if it computes.
COMPUTE = {
    "Conv": "Conv(c, k)", "ConvTranspose": "ConvTranspose(c, k)", "Gemm": "Gemm(x, k)", "MatMul": "MatMul(x, k)", "Einsum": 'Einsum<equation = "ij,jk">(x, k)',
    "Mul": "Mul(x, k)", "Div": "Div(x, k)", "Add": "Add(x, k)", "Sub": "Sub(x, k)", "Pow": "Pow(x, k)", "Exp": "Exp(k)", "Log": "Log(k)", "Sqrt": "Sqrt(k)",
    "Sigmoid": "Sigmoid(k)", "Softmax": "Softmax(k)", "Tanh": "Tanh(k)", "Relu": "Relu(k)", "LSTM": "LSTM<hidden_size = 1>(r, k, q)",
    "GRU": "GRU<hidden_size = 1>(r, k, q)", "RNN": "RNN<hidden_size = 1>(r, k, q)", "BatchNormalization": "BatchNormalization(x, k, v, v, v)",
    "LayerNormalization": "LayerNormalization(x, k)", "InstanceNormalization": "InstanceNormalization(c, k, v)", "ReduceMean": "ReduceMean(k)",
    "ReduceSum": "ReduceSum(k)", "Identity": "Identity(k)", "Neg": "Neg(k)", "Transpose": "Transpose(k)",
}  # fmt: skip
DIMS = {"Conv": (4, 4, 1), "ConvTranspose": (4, 4, 1), "LSTM": (1, 4, 4), "GRU": (1, 3, 4), "RNN": (1, 1, 4), "BatchNormalization": (4,), "LayerNormalization": (4,), "InstanceNormalization": (4,)}  # fmt: skip


@pytest.mark.parametrize("op", COMPUTE)
def test_which_nodes_are_looked_at(op, said, folder):
    """Those that compute; what others give on was computed before."""
    number = 1e-40 if op == "Relu" else np.nan  # it gives no NaN
    stored = {
        "k": np.full(DIMS.get(op, (4, 4)), number, np.float32),
        "one": np.array([2]),
        "three": np.array([0]),
        "v": np.ones(4, np.float32),
    }
    stored["q"] = np.ones((1, stored["k"].shape[1] if stored["k"].ndim > 1 else 1, 1), np.float32)
    body = f"c = Unsqueeze(x, one)  r = Unsqueeze(x, three)  y = {COMPUTE[op]}"
    graph = f"g (float[N, 4] x) => (float y) {{ {body} }}"
    found = inside(graph, stored, said)
    wanted = [] if op in ("Identity", "Neg", "Transpose") else ["y"]
    assert (found["nan"] if op != "Relu" else [name for name, *_ in found["slow"]]) == wanted
