"""The doctor with run=True: the model is loaded and run in a process of its own."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from doctor_models import external, found, linear, named_function, parsed

import course_utils as cu
from course_utils.diagnosis.child import trial


def test_a_healthy_model_runs():
    assert found(linear(), run=True) == []


def test_external_data_beside_the_model(folder):
    model = linear(64)
    (folder / "w.bin").write_bytes(external(model))
    onnx.save(model, "m.onnx")
    assert found("m.onnx", run=True) == []


def test_without_run_nothing_is_started(monkeypatch):
    monkeypatch.setattr(trial.subprocess, "run", None)
    assert found(linear()) == []


def test_refusal_is_quoted(folder):
    """A language that no machine has: ONNX Runtime tells, with or without a run. The folder of the model is nobody's business."""
    said = parsed(
        'g (string[N] x) => (string[N] y) { y = StringNormalizer<case_change_action = "LOWER", locale = "xx_YY">(x) }'
    )
    onnx.save(said, "m.onnx")
    for run in (False, True):
        report = cu.doctor("m.onnx", run=run)
        assert report.codes == ["runtime-refuses"]
        cause = report.errors[0].cause
        assert "xx_YY" in cause
        assert not any(text in cause for text in (str(folder), "string_normalizer.cc", "model.onnx", "doctor-"))
    (folder / "m.onnx").write_bytes(linear(opset=99).SerializeToString())
    assert str(folder) not in cu.doctor("m.onnx", run=True).to_json()


def test_the_runtime_dies_and_the_doctor_lives():
    """A function named Add with one input ends the process of onnxruntime 1.31.1; where it is mended, nothing is said of it."""
    codes = found(named_function("Add"), run=True)
    assert codes in (["function-name-clash", "runtime-dies"], [])
    assert found(named_function("Relu"), run=True) == []


def test_a_model_that_takes_all_time():
    """A loop of 2⁶² steps."""
    model = parsed(
        """g (float[4] x) => (float[4] y) {
        n = Constant<value_int = 4611686018427387904>()
        y = Loop(n, , x) <body = b (int64 i, bool c, float[4] h) => (bool d, float[4] k) { d = Identity(c)  k = Tanh(h) }>
        }"""
    )
    report = cu.doctor(model, run=True, seconds=4)
    assert report.codes == ["over-limits"]
    assert "still running after 4 seconds" in report.findings[0].cause


def test_a_model_that_takes_all_memory():
    """64 GB by an Expand that is worked out while loading, or running: far more than allowed."""
    model = parsed(
        "g (float[1] x) => (float s) { a = Expand(x, n)  s = ReduceMax<keepdims = 0>(a) }",
        {"n": np.array([16_000_000_000])},
    )
    codes = found(model, run=True, memory_mb=4000)
    assert codes in (["over-limits"], ["run-fails"])


def test_frozen_shapes_that_do_not_run():
    """Nothing in the file contradicts itself; the index is out of range in every run."""
    model = parsed("g (float[4] x) => (float[1] y) { y = Gather(x, i) }", {"i": np.array([9])})
    report = cu.doctor(model, run=True)
    assert "run-fails" in report.codes or "runtime-refuses" in report.codes or "shape-conflict" in report.codes


def test_inputs_that_cannot_be_made_up():
    """A map: that is no finding, and it is said."""
    model = parsed("g (seq(float[N]) x, int64 i) => (float[N] y) { y = SequenceAt(x, i) }")
    report = cu.doctor(model, run=True)
    assert report.codes == []
    assert "which cannot be made up" in report.not_checked[-1]


def test_nan_from_usual_inputs():
    model = parsed("g (float[N, 4] x) => (float[N, 4] y) { a = Abs(x)  b = Neg(a)  y = Sqrt(b) }")
    assert found(model, run=True) == ["outputs-nan"]
    assert found(parsed("g (float[N, 4] x) => (float[N, 4] y) { a = Abs(x)  y = Sqrt(a) }"), run=True) == []


def test_numbers_that_change():
    def dropout(on: bool) -> onnx.ModelProto:
        stored = {"r": np.array(0.5, np.float32), "t": np.array(on)}
        return parsed("g (float[N, 64] x) => (float[N, 64] y) { y = Dropout(x, r, t) }", stored)

    assert found(dropout(True), run=True) == ["dropout-in-training", "outputs-change"]
    assert found(dropout(False), run=True) == []
    random = parsed("g (float[N, 64] x) => (float[N, 64] y) { r = RandomNormalLike(x)  y = Add(x, r) }")
    assert found(random, run=True) == [], "it draws random numbers, and says so"


def test_batch_that_is_not_free():
    def reshaped(first: int) -> onnx.ModelProto:
        stored = {"s": np.array([first, 8])}
        return parsed("g (float[N, 2, 4] x) => (float[M, 8] y) { a = Reshape(x, s)  y = Relu(a) }", stored)

    assert found(reshaped(1), run=True) == ["batch-not-free"]
    assert found(reshaped(-1), run=True) == []


def test_provider_that_is_not_there():
    report = cu.doctor(linear(), run=True, provider="NoSuchExecutionProvider")
    assert report.codes == ["provider-missing"]
    assert "CPUExecutionProvider" in report.findings[0].cause
    assert found(linear(), run=True, provider="CPUExecutionProvider") == []


def test_fallback_is_counted():
    """What the worker reports of a session with two providers. No second provider is needed for this test."""
    placed = [
        ["XExecutionProvider", "Conv", "c"],
        ["CPUExecutionProvider", "Relu", "r"],
        ["CPUExecutionProvider", "Relu", "s"],
    ]
    (finding,) = trial._fallback({"loaded": {"placement": placed}}, "XExecutionProvider")
    assert finding.code.id == "fallback"
    assert finding.cause == "On the CPU: 2 of 3 nodes (2 × Relu)."
    assert not list(trial._fallback({"loaded": {"placement": placed[:1]}}, "XExecutionProvider"))


@pytest.mark.parametrize("evil", ["print('x')", "\x1b[2J"])
def test_names_reach_the_worker_as_data(evil, folder):
    (folder / "odd 'name';.onnx").write_bytes(linear().SerializeToString())
    assert found("odd 'name';.onnx", run=True) == []
    model = linear()
    model.graph.input[0].name = evil
    model.graph.node[0].input[0] = evil
    assert found(model, run=True) == []


def test_too_little_memory_for_what_lies_inside():
    """The model runs in a few megabytes. Keeping each result inside, to look at it, takes a gigabyte: that says nothing of it."""
    chain = "  ".join(f"t{i + 1} = Relu({f't{i}' if i else 'x'})" for i in range(64))
    model = parsed(
        f"g (float[N, 4194304] x) => (float[N] y) {{ {chain}  y = ReduceMax<keepdims = 0>(t64, axis) }}",
        {"axis": np.array([1])},
    )
    report = cu.doctor(model, run=True, memory_mb=700)
    assert (report.codes, report.not_checked) == ([], ())
