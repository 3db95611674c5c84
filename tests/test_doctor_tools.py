"""The doctor and the tools that it asks: when they die, do not start, never come back, or tell nothing."""

from __future__ import annotations

import json
import signal
import subprocess
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from doctor_models import chain, convolution, found, int8_weights, linear, parsed, quantized
from test_doctor_findings import PAIRS, nan_at

import course_utils as cu


def test_tools_that_die(monkeypatch):
    """The checker and shape inference are compiled code: when their process ends, that is a finding, and the next model is fine."""
    from course_utils.diagnosis import patient
    from course_utils.diagnosis.child import onnx_tools as tools

    died = tools.Opinion(died="signal SIGSEGV", during="onnx.shape_inference")
    with monkeypatch.context() as patched:
        patched.setattr(patient, "ask", lambda *given: died)
        report = cu.doctor(linear())
    assert report.codes == ["onnx-tools-die"]
    assert report.findings[0].cause.startswith("onnx.shape_inference: signal SIGSEGV.")
    assert report.findings[0].severity == "warning", "ONNX Runtime lives, and loads it"
    bench = tools._Bench.current()
    bench.child.kill()
    bench.child.wait()
    assert found(linear()) == []


@pytest.mark.parametrize(("most", "asked"), [(4, True), (3, False)])
def test_nobody_is_asked_about_too_many_nodes(most, asked, monkeypatch):
    """The nodes inside of nodes count, too: here are one If, and three in its branches."""
    from course_utils.diagnosis import patient

    monkeypatch.setattr(patient, "MOST_NODES", most)
    model = parsed("""g (bool c, float[N] x) => (float[N] y) {
        y = If (c) <then_branch = a () => (float[N] t) { u = Relu(x)  t = Tanh(u) }, else_branch = b () => (float[N] e) { e = Tanh(x) }>
    }""")
    assert cu.doctor(model).not_checked == (
        ()
        if asked
        else (
            "onnx.checker and onnx.shape_inference were not asked, because 4 nodes are too many.",
            "ONNX Runtime was not asked whether it loads the model, because it has too many nodes.",
        )
    )


@pytest.mark.parametrize("code", ["cycle", "recursive-function", "tensor-undefined"])
def test_tools_are_not_asked_about_a_broken_graph(code):
    """Their words would tell nothing new, and some errors end their process."""
    report = cu.doctor(PAIRS[code][0]())
    assert report.codes == [code]
    assert "onnx.checker and onnx.shape_inference were not asked, because of what was found." in report.not_checked


def test_the_checker_has_no_word_beside_an_error():
    """Most of what it says then follows from that. Once the error is mended, it is heard."""
    model = PAIRS["checker-formality"][0]()
    nan_at(model, np.nan)
    assert found(model) == ["weights-not-finite"]
    nan_at(model, 1)
    assert found(model) == ["checker-formality"]


def test_tools_that_do_not_start_are_no_finding(monkeypatch):
    """As where no process can be started: that says nothing about the model, and is no clean bill either."""
    from course_utils.diagnosis import patient
    from course_utils.diagnosis.child import onnx_tools as tools

    monkeypatch.setattr(patient, "ask", lambda *given: tools.Opinion(died="exit status 1", during=tools.STARTING))
    report = cu.doctor(linear())
    assert report.codes == []
    assert report.unfinished == ("The tools of onnx did not start: exit status 1.",)


def test_inference_that_stops_is_said(monkeypatch):
    """Types and shapes are missing then, and what is found by them."""
    from course_utils.diagnosis import patient
    from course_utils.diagnosis.child import onnx_tools as tools

    opinion = tools.ask(b"no model", b"no model", 30)
    assert (opinion.died, opinion.inferred.ByteSize()) == ("", 0)
    assert "parse" in opinion.problem
    monkeypatch.setattr(patient, "ask", lambda *given: tools.Opinion(problem="It is so."))
    assert cu.doctor(linear()).not_checked == ("Shapes were not worked out: It is so.",)


def test_tools_that_never_come_back():
    """An equation that is not ASCII: onnx 1.23 runs in a circle. Where it is mended, it is an error of another kind, or none."""
    model = parsed(
        'g (float[5, 2, 3] x, float[5, 3, 4] z) => (float[5, 2, 4] y) { y = Einsum<equation = "E">(x, z) }', opset=12
    )
    model.graph.node[0].attribute[0].s = b"bij, bjk\xee-> bik"
    codes = found(model, seconds=3)
    assert codes == ["onnx-tools-die"] or "onnx-tools-die" not in codes
    assert found(linear()) == []


def test_how_long_the_tools_were_waited_for():
    """Their process is ended then. That is our doing, and not told as its death."""
    from course_utils.diagnosis.child import onnx_tools as tools

    data, words = linear().SerializeToString(), "no answer within 0.2 seconds"

    def held() -> subprocess.Popen[bytes]:
        child = tools._Bench.current().child
        psutil.Process(child.pid).suspend()
        return child

    silent = held()
    assert tools.ask(data, data, 0.2).died == words
    assert silent.poll() is not None
    silent = held()
    assert tools.ask_runtime(data, 0, 0.2) == tools.Verdict(None, words)
    assert silent.poll() is not None
    assert found(linear()) == []


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system knows no such alarm")
def test_tools_end_by_themselves_where_nobody_waits():
    """The parent was killed, and onnx runs in a circle: of an equation that is not ASCII, in 1.23."""
    from course_utils.diagnosis.child import onnx_tools as tools

    model = parsed(
        'g (float[5, 2, 3] x, float[5, 3, 4] z) => (float[5, 2, 4] y) { y = Einsum<equation = "E">(x, z) }', opset=12
    )
    model.graph.node[0].attribute[0].s = b"bij, bjk\xee-> bik"
    data, bench = model.SerializeToString(), tools._Bench()
    question = {"whom": "tools", "seconds": 0.5, "sizes": [len(data), len(data)]}
    bench.asking.write(json.dumps(question).encode() + b"\n" + data + data)
    bench.asking.flush()
    said = []
    while answer := bench.said.get(timeout=60):
        said.append(answer[0]["event"])
        if said[-1] == "end":
            pytest.skip("this version of onnx comes back")
    assert said[0] == "start"
    assert bench.child.wait(5) == -signal.SIGALRM


def test_tools_are_asked_one_after_the_other():
    """Several threads share the one process of the tools."""
    from concurrent.futures import ThreadPoolExecutor

    models = [linear(), linear(dtype="double"), convolution(), chain(12)] * 4
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(found, models)) == [[], ["float64"], [], ["loop-unrolled"]] * 4


@pytest.fixture(params=[0, 1])
def silent_runtime(monkeypatch, request):
    """A build of ONNX Runtime that does not tell what it knows, as when its process dies of the question: the first, or the second."""
    from course_utils.diagnosis.child import runtime

    def forget() -> None:
        for name in ("_catalogue", "schemas", "domains", "kernels", "implemented", "newest"):
            getattr(runtime, name).cache_clear()

    def run(*given: object, **how: object) -> SimpleNamespace:
        told = b"".join(real(*given, **how).stdout.splitlines(keepends=True)[: request.param])
        return SimpleNamespace(stdout=told)

    real = runtime.subprocess.run
    forget()
    with monkeypatch.context() as patched:
        patched.setattr(runtime.subprocess, "run", run)
        yield
    forget()


def test_a_runtime_that_tells_nothing(silent_runtime):
    """Operators of the standard are known from onnx; whether there is an implementation, loading tells."""
    assert found(PAIRS["operator-unknown"][0]()) == ["operator-unknown"]
    assert found(PAIRS["domain-unknown"][0]()) == ["domain-unknown"]
    report = cu.doctor(PAIRS["operator-not-implemented"][0]())
    assert report.codes == ["operator-not-implemented"]
    assert report.findings[0].cause.startswith("ONNX Runtime says:")
    contrib = parsed("g (float[N] x) => (float[N] y) { y = com.microsoft.QuickGelu(x) }", more=', "com.microsoft": 1')
    leaky = parsed("g (float[N] x) => (float[N] y) { y = LeakyRelu<alpha = 0.1>(x) }")
    for model in (linear(), convolution(), quantized(int8_weights()), contrib, leaky):
        assert found(model) == []


def test_definitions_that_onnx_tells_in_place_of_the_runtime(silent_runtime):
    """They say the same: which definitions there are, since when, what they take, and whether they were withdrawn."""
    from course_utils.diagnosis.child import runtime

    gemm = {s.since: s for s in runtime.schemas()["", "Gemm"]}
    assert list(gemm)[:3] == [1, 6, 7]
    assert (gemm[13].domain, gemm[13].name, gemm[13].inputs) == ("", "Gemm", ("T", "T", "T"))
    assert gemm[13].attributes == {"alpha", "beta", "transA", "transB"}
    assert [s.since for s in runtime.schemas()["", "Upsample"] if s.withdrawn] == [10]


def test_the_first_answer_is_out_before_the_second_is_asked_for(python, folder):
    """In some builds the second question ends the process."""
    code = """
    import os
    from onnxruntime.capi import onnxruntime_pybind11_state as state
    from course_utils.diagnosis.child import runtime_child
    state.get_all_opkernel_def = lambda: os._exit(3)
    runtime_child.main()
    """
    done = python(code, cwd=folder, ok=False)
    assert done.returncode == 3
    (line,) = done.stdout.splitlines()
    assert {entry["name"] for entry in json.loads(line)} >= {"Conv", "QuickGelu"}


@pytest.mark.parametrize(
    ("event", "loads", "died"),
    [("loads", True, ""), ("refuses", False, ""), ("unknown", None, ""), ("silent", None, ""), ("died", None, "words")],
)
def test_what_the_runtime_says_to_a_model_without_weights(event, loads, died, monkeypatch):
    """Whatever is neither yes nor no is no verdict."""
    from course_utils.diagnosis.child import onnx_tools as tools

    said = [({"event": "start", "words": ""}, b""), ({"event": event, "words": "words"}, b"")]
    monkeypatch.setattr(tools._Bench, "current", lambda: SimpleNamespace(answers=lambda *given: iter(said)))
    assert tools.ask_runtime(b"", 0, 1) == tools.Verdict(loads, "words", died)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), ("unknown", "it takes too much memory")),
        (RuntimeError("std::bad_alloc"), ("unknown", "it takes too much memory")),
        (RuntimeError("No kernel for Cosh"), ("refuses", "No kernel for Cosh")),
        (None, ("loads", "")),
    ],
)
def test_too_little_memory_is_no_verdict(error, said, monkeypatch):
    import onnxruntime as ort

    from course_utils.diagnosis.child import onnx_tools_child

    def load(*given: object, **how: object) -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(ort, "InferenceSession", load)
    assert onnx_tools_child.verdict(linear().SerializeToString(), 0) == said
