"""Limits, options, and the words of ONNX Runtime."""

from __future__ import annotations

import sys

import pytest
from doctor_models import found, linear

import course_utils as cu
from course_utils.diagnosis.child.runtime import provider_meant
from course_utils.diagnosis.vocabulary import spoken

# Limits, options, words


@pytest.mark.parametrize("megabytes", [1, 10, 100, 150, 170])
def test_a_limit_that_is_too_low_is_not_the_model_s_fault(megabytes):
    report = cu.doctor(linear(64), run=True, memory_mb=megabytes)
    assert report.codes == ["over-limits"]
    assert not report.errors
    assert f"{megabytes}.0 MB of memory" in report.findings[0].cause
    assert "before there is a model" in report.findings[0].cause


def test_a_limit_that_is_just_enough():
    assert found(linear(64), run=True, memory_mb=700) == []


@pytest.mark.parametrize(
    ("given", "meant"),
    [("cuda", "CUDAExecutionProvider"), ("CUDA", "CUDAExecutionProvider"), ("CUDAExecutionProvder", "CUDAExecutionProvider"),
     ("cpu", "CPUExecutionProvider"), ("CoreML EP", "CoreMLExecutionProvider"), ("tensorrt", "TensorrtExecutionProvider"),
     ("xnnpack", "XnnpackExecutionProvider"), ("gpu", "CUDAExecutionProvider"), ("nvidia", "CUDAExecutionProvider"), ("trt", "TensorrtExecutionProvider"),
     ("directml", "DmlExecutionProvider"), ("amd", "MIGraphXExecutionProvider"), ("rocm", "MIGraphXExecutionProvider"), ("onednn", "DnnlExecutionProvider")],
)  # fmt: skip
def test_a_provider_that_is_misspelt(given, meant):
    assert provider_meant(given) == meant
    assert provider_meant(meant) == ""
    with pytest.raises(cu.CourseError, match=f"{given!r}: write '{meant}'"):
        cu.doctor(linear(), run=True, provider=given)


def test_providers_that_nobody_knows_are_left_alone():
    for name in ("NoSuchExecutionProvider", "X", "MyPluginExecutionProvider"):
        assert provider_meant(name) == ""


def test_a_provider_where_there_is_no_runtime(monkeypatch):
    """Nothing can be told of its name then. That there is no ONNX Runtime, the report says."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert provider_meant("cuda") == ""


@pytest.mark.parametrize(
    ("said", "read"),
    [
        (
            "Status Message: /onnxruntime_src/onnxruntime/core/providers/cpu/tensor/reshape_helper.h:91 onnxruntime::ReshapeHelper::ReshapeHelper("
            "const onnxruntime::TensorShape&, onnxruntime::TensorShapeVector&, bool) a == b was false. The tensor cannot be reshaped. {4,7}\n",
            "Status Message: The tensor cannot be reshaped. {4,7}",
        ),
        (
            "Status Message: /s/core/x.h:583 void onnxruntime::B::Append(ptrdiff_t, ptrdiff_t) axis == 1 || a.b() == c was false. 4 by 6",
            "Status Message: 4 by 6",
        ),
        ("Status Message: concatbase.h:133 PrepareForComputeImpl Non concat axis (0) differs", "Status Message: Non concat axis (0) differs"),
        ("Load model from /a b/m.onnx failed:Type Error: T", "Type Error: T"),
        ("Deserialize tensor w failed.tensorprotoutils.cc:1876 GetExtDataFromTensorProto External: w", "Deserialize tensor w failed. External: w"),
        (
            "x: /s/x.cc:5 virtual common::Status onnxruntime::X::Compute(OpKernelContext*) const [with T = float] a.size() > 0 was false.",
            "x: a.size() > 0 was false.",
        ),
        ("C:\\s\\core\\y.cc:7 onnxruntime::Z::F(int (*)(int))::<lambda()> Is wrong", "Is wrong"),
        ("Graph output (y) of v1.2 has 3.5 cc: no place", "Graph output (y) of v1.2 has 3.5 cc: no place"),
    ],
)  # fmt: skip
def test_words_without_places_in_the_source(said, read):
    assert spoken(said) == read


@pytest.mark.parametrize(("memory", "code"), [(200, "over-limits"), (4000, "runtime-dies")])
def test_a_process_that_dies_near_its_limit(memory, code):
    """Compiled code does not always say that it got no memory. What the worker says before, of a process of 165 MB."""
    from course_utils.diagnosis.child import trial
    from course_utils.diagnosis.file.reading import read
    from course_utils.diagnosis.vocabulary import Place

    events = {"room": {"taken": 165_000_000}, "start": {}, "loaded": {}}
    place = Place("file", "m.onnx")
    (found_,) = trial._stopped(read(linear()), events, "signal SIGSEGV", place, 60, memory * 10**6)
    assert found_.code.id == code


@pytest.mark.parametrize("more", [40, 500])
def test_a_refusal_near_the_limit_is_a_refusal(tmp_path, more):
    """The process came to its end, so it had memory enough to say no. What it takes before differs between machines."""
    from course_utils.diagnosis.child import trial

    model = linear()
    model.graph.node[0].op_type = "Matmul"
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    request = {"path": str(path), "memory": 4 * 10**9, "provider": None, "seconds": 60, "hints": []}
    said, _ = trial._start(path, request, str(tmp_path))
    (room,) = [line for line in said if line["event"] == "room"]
    megabytes = room["taken"] // 10**6 + more
    assert found(model, run=True, memory_mb=megabytes) == ["operator-unknown"]


def test_an_error_of_the_worker_is_not_the_model_s_fault():
    """As Python ends a process whose program is wrong. That says nothing about the model, and is no clean bill either."""
    from course_utils.diagnosis.child import trial
    from course_utils.diagnosis.file.reading import read
    from course_utils.diagnosis.vocabulary import Place

    patient = read(linear())
    events = {"room": {"taken": 165_000_000}, "start": {}, "loaded": {}}
    assert not list(trial._stopped(patient, events, "exit status 1", Place("file", "m.onnx"), 60, 4 * 10**9))
    assert patient.not_checked == ["The model was not run: the process for it did not do its work (exit status 1)."]


F, STRING, HALF = "tensor(float)", "tensor(string)", "tensor(float16)"


@pytest.mark.parametrize(
    ("op", "since", "types", "made"),
    [
        (("", "Relu"), 14, (F,), True), (("", "Relu"), 14, ("",), True), (("", "Relu"), 14, (), True), (("", "Relu"), 14, (STRING,), False), (("", "Relu"), 6, (F,), True),
        (("", "Relu"), 1, (F,), False), (("", "Relu"), 1, (), False), (("", "Nobody"), 1, (), False), (("", "Max"), 13, ("tensor(int16)", F), False),
        (("", "Max"), 13, (F, F, F, "tensor(int16)"), False), (("", "Max"), 13, (F, F, F, F), True), (("", "Softmax"), 13, (HALF,), True),
        (("", "Gather"), 13, (STRING, "tensor(int64)"), True), (("", "Gather"), 13, (STRING, F), False), (("com.microsoft", "BiasGelu"), 1, (F, F), True),
        (("com.microsoft", "BiasGelu"), 1, ("tensor(double)", F), False),
    ],
)  # fmt: skip
def test_what_the_cpu_implements(op, since, types, made):
    """Of float16 it computes what it computes of float32. The last input's type may stand for many."""
    from course_utils.diagnosis.child import runtime

    assert runtime.implemented(*op, since, types) is made
