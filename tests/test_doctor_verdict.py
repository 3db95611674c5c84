"""The doctor and ONNX Runtime: what it refuses is an error, and what it loads is none. Models as people report them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from doctor_models import external, found, linear, parsed, texts, weights
from onnx import helper
from test_doctor_files import NO_MODELS
from test_doctor_findings import PAIRS
from test_doctor_healthy import errors_of_runtime

import course_utils as cu
from course_utils.diagnosis import verdict
from course_utils.diagnosis.vocabulary import all_codes, finding

# Errors of numbers, which no runtime refuses; and of what it would only find in a run.
OF_NUMBERS = {"weights-not-finite", "scale-impossible", "scale-length-wrong", "tensor-huge"}


# What the runtime refuses, and the severities


def named(model: onnx.ModelProto, *, inside: bool = False) -> onnx.ModelProto:
    """The first two nodes get one name; with `inside`, those of the first branch."""
    graph = model.graph.node[0].attribute[0].g if inside else model.graph
    for node in graph.node[:2]:
        node.name = "n"
    return model


BRANCHES = """g (bool c, float[N] x) => (float[N] y) {
    y = If (c) <then_branch = a () => (float[N] t) { u = Relu(x)  t = Tanh(u) }, else_branch = b () => (float[N] e) { e = Tanh(x) }>
}"""


def names_in_a_function() -> onnx.ModelProto:
    nodes = [helper.make_node("Relu", ["a"], ["c"], name="n"), helper.make_node("Tanh", ["c"], ["b"], name="n")]
    function = helper.make_function("my.own", "F", ["a"], ["b"], nodes, [helper.make_opsetid("", 21)])
    model = parsed("g (float[N] x) => (float[N] y) { y = my.own.F(x) }", more=', "my.own": 1')
    model.functions.append(function)
    return model


def outdated(*, dtype: int = 1, size: int = 4) -> onnx.ModelProto:
    """A note of the type of a tensor inside, which may be out of date."""
    (model,) = texts("a = Relu(x)  y = Tanh(a)")
    model.graph.value_info.append(helper.make_tensor_value_info("a", dtype, ["N", size]))
    return model


CONSTANTS = "a = Constant<value_float = 1.0>()  b = Constant<value_float = 2.0>()  c = Add(x, a)  y = Add(c, b)"
REFUSED = {
    "two nodes of one name": (lambda: named(texts("a = Relu(x)  y = Tanh(a)")[0]), "node-names-repeat"),
    "two in a branch": (lambda: named(parsed(BRANCHES), inside=True), "node-names-repeat"),
    "two in a function": (names_in_a_function, "node-names-repeat"),
    "sizes of a MatMul": (lambda: texts("y = MatMul(x, w)", stored={"w": weights(5, 4)})[0], "shape-conflict"),
    "sizes of a Gemm": (lambda: texts("y = Gemm(x, w)", stored={"w": weights(5, 4)})[0], "shape-conflict"),
    "rank of a Conv": (lambda: texts("y = Conv(x, w)", stored={"w": weights(4, 4, 1)})[0], "shape-conflict"),
    "dtype of an output": (lambda: parsed("g (float[N] x) => (double[N] y) { y = Relu(x) }"), "shape-conflict"),
    "a note of another dtype": (lambda: outdated(dtype=11), "shape-conflict"),
    "a branch that is not sorted": (lambda: parsed(BRANCHES.replace("u = Relu(x)  t = Tanh(u)", "t = Tanh(u)  u = Relu(x)")), "not-sorted"),
    "an input too many": (lambda: texts("y = MatMul(x, w, w)", stored={"w": weights(4, 4)})[0], "checker-objects"),
}  # fmt: skip
LOADED = {
    "names that differ": (lambda: texts("a = Relu(x)  y = Tanh(a)")[0], []),
    "Constants of one name": (lambda: named(texts(CONSTANTS)[0]), []),
    "a Constant and a node of one name": (lambda: named(texts("a = Constant<value_float = 1.0>()  y = Add(x, a)")[0]), []),
    "sizes that fit": (lambda: texts("y = MatMul(x, w)", stored={"w": weights(4, 4)})[0], []),
    "a note of another size": (lambda: outdated(size=5), ["shape-conflict"]),
    "a note that is right": (outdated, []),
    "an output of another size": (lambda: parsed("g (float[N, 4] x) => (float[N, 5] y) { y = Relu(x) }"), ["shape-conflict"]),
    "a graph that is not sorted": (lambda: texts("y = Tanh(a)  a = Relu(x)")[0], ["not-sorted"]),
    "a branch that reads what a later node writes": (
        lambda: parsed(BRANCHES.replace("u = Relu(x)  t = Tanh(u)", "t = Tanh(u)").replace("}>", "}>  u = Relu(x)")), ["not-sorted"],
    ),
    "a domain that is not imported": (lambda: texts("y = com.microsoft.Gelu(x)")[0], ["opset-missing"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_the_runtime_refuses_is_one_error(kind):
    """And its words stand in it, whether it was asked without the weights or with them."""
    make, code = REFUSED[kind]
    for run in (False, True):
        report = cu.doctor(make(), run=run)
        (error,) = report.errors
        assert error.code.id == code, (run, report)
        assert "ONNX Runtime says: “" in error.cause


@pytest.mark.parametrize("kind", LOADED)
def test_what_the_runtime_loads_is_no_error(kind):
    make, codes = LOADED[kind]
    for run in (False, True):
        report = cu.doctor(make(), run=run)
        assert not report.errors, report
        assert [f.code.id for f in report.findings if f.code.id != "output-shape-differs"] == codes


def refused(data: bytes, folder) -> bool:
    (folder / "asked.onnx").write_bytes(data)
    return bool(errors_of_runtime(folder / "asked.onnx"))


def judged(data: bytes, folder) -> None:
    """The doctor and the runtime say the same."""
    report = cu.doctor(data)
    if refused(data, folder):
        assert report.errors, "refused, and no error"
    else:
        assert {f.code.id for f in report.errors} <= OF_NUMBERS, report


@pytest.mark.parametrize(
    "code", sorted(set(PAIRS) - {"function-name-clash"})
)  # loading that one would end this process
def test_errors_are_those_of_the_runtime(code, folder):
    for make in PAIRS[code]:
        judged(make().SerializeToString(), folder)


@pytest.mark.parametrize("kind", [*REFUSED, *LOADED])
def test_errors_are_those_of_the_runtime_in_the_field(kind, folder):
    judged({**REFUSED, **LOADED}[kind][0]().SerializeToString(), folder)


@pytest.mark.parametrize("kind", sorted(set(NO_MODELS) - {"last byte gone"}))
def test_what_is_no_model_is_refused_by_both(kind, folder):
    data = NO_MODELS[kind][0]
    assert cu.doctor(data).errors
    assert refused(data, folder)


def hurt(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Change one thing somewhere in the graph."""
    graph = model.graph
    node = graph.node[rng.integers(len(graph.node))]
    known = [n for each in graph.node for n in (*each.input, *each.output)] + [t.name for t in graph.initializer]
    name = known[rng.integers(len(known))]
    what = rng.integers(9)
    if what == 0 and node.input:
        node.input[rng.integers(len(node.input))] = name
    elif what == 1:
        node.output[0] = name
    elif what == 2:
        node.op_type = str(rng.choice(["Relu", "Add", "MatMul", "Gelu", "Cast", "Concat", "Nope"]))
    elif what == 3:
        model.opset_import[0].version = int(rng.choice([1, 7, 11, 13, 17, 20, 99]))
    elif what == 4 and graph.input:
        graph.input[0].type.tensor_type.elem_type = int(rng.choice([1, 6, 7, 9, 10, 11]))
    elif what == 5:
        node.input.append(name)
    elif what == 6 and node.input:
        del node.input[-1]
    elif what == 7 and node.attribute:
        node.attribute[0].name = "axis"
    elif what == 8:
        node.domain = str(rng.choice(["com.microsoft", "ai.onnx.ml", "nobody"]))


@pytest.mark.parametrize("seed", range(4))
def test_errors_are_those_of_the_runtime_whatever_was_changed(seed, folder):
    # Loading the first would end this process; the runtime would try to work out the second.
    kept = sorted(set(PAIRS) - {"function-name-clash", "tensor-huge"})
    rng, makers = np.random.default_rng(seed), [m for code in kept for m in PAIRS[code]]
    for _ in range(25):
        model = makers[rng.integers(len(makers))]()
        hurt(model, rng)
        if not any(n.domain and n.op_type in ("Add", "Mul", "Sub", "Div") for n in model.graph.node):
            judged(model.SerializeToString(), folder)


def test_a_node_that_reads_itself_is_no_endless_chain():
    stored = {"r": np.array(0.5, np.float32), "t": np.array(False)}
    model = parsed("g (float[N] x) => (float[N] y) { t = Dropout(x, r, t) }", stored)
    assert "tensor-written-twice" in found(model)


def test_the_lists_of_the_verdict_are_codes():
    known = {c.id for c in all_codes()}
    assert known >= verdict.OF_THE_RUNTIME | verdict.OF_THE_GRAPH | verdict.OF_THE_WEIGHTS | {
        code for _, code in verdict._WORDS
    }


def test_the_verdict_without_weights_is_that_with_weights(folder):
    """Weights of all places: in the file, in another one, in a Constant. Nothing of them is read for it."""
    w = weights(200, 200)
    body = "g (float[N, 200] x) => (float[N, 200] y) {{ {} y = MatMul(x, w) }}"
    within = parsed(body.format(""), {"w": w})
    held = parsed(body.format("w = Identity(v) "), {"v": w})
    held.graph.node[0].CopyFrom(helper.make_node("Constant", [], ["w"], value=onnx.numpy_helper.from_array(w)))
    del held.graph.initializer[:]
    beside = parsed(body.format(""), {"w": w})
    (folder / "w.bin").write_bytes(external(beside))
    for model in (within, held, beside):
        onnx.save(model, "m.onnx")
        assert found("m.onnx") == []
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 199
        onnx.save(model, "m.onnx")
        report = cu.doctor("m.onnx")
        assert [f.code.id for f in report.errors] == ["shape-conflict"]


def test_a_shape_in_another_file(folder):
    """It is needed to judge the model: where it is at hand it is read, and else nothing is judged by it."""
    model = parsed("g (float[2, 6] x) => (float[3, 4] y) { r = Reshape(x, s)  y = Relu(r) }", {"s": np.array([3, 4])})
    (folder / "w.bin").write_bytes(external(model))
    onnx.save(model, "m.onnx")
    assert found("m.onnx") == []
    report = cu.doctor(model)
    assert not report.errors
    assert [text for text in report.not_checked if "shapes may be among the data in other files" in text]


def test_without_the_runtime_nobody_is_acquitted(monkeypatch):
    """Where it does not answer, the doctor's own judgement stands, and that is said."""
    from course_utils.diagnosis import patient
    from course_utils.diagnosis.child import onnx_tools as tools

    (unsorted,) = texts("y = Tanh(a)  a = Relu(x)")
    monkeypatch.setattr(patient, "ask_runtime", lambda *given: tools.Verdict(None, "it is not installed"))
    report = cu.doctor(unsorted)
    assert [f.severity for f in report.findings] == ["error"]
    assert "ONNX Runtime was not asked whether it loads the model, because it is not installed." in report.not_checked
    monkeypatch.setattr(patient, "ask_runtime", lambda *given: tools.Verdict(None, "signal SIGSEGV", "signal SIGSEGV"))
    assert [f.code.id for f in cu.doctor(linear()).errors] == ["runtime-dies"]
    assert [f.code.id for f in cu.doctor(unsorted).errors] == ["not-sorted"]


@pytest.mark.parametrize(
    ("kind", "severities"),
    [
        ("two nodes of one name", ["error"]), ("a Constant and a node of one name", []), ("Constants of one name", []),
        ("sizes of a MatMul", ["error"]), ("dtype of an output", ["error"]), ("an output of another size", ["warning"]),
    ],
)  # fmt: skip
def test_the_doctor_s_own_judgement(kind, severities, monkeypatch):
    """What it says where the runtime does not answer."""
    from course_utils.diagnosis import patient
    from course_utils.diagnosis.child import onnx_tools as tools

    monkeypatch.setattr(patient, "ask_runtime", lambda *given: tools.Verdict(None, "it is busy"))
    report = cu.doctor({**REFUSED, **LOADED}[kind][0]())
    assert [f.severity for f in report.findings] == severities, report


def test_a_warning_that_the_runtime_confirms_is_an_error():
    from course_utils.diagnosis.file.reading import read

    codes = {c.id: c for c in all_codes()}
    patient = read(linear())
    patient.loaded, patient.refusal = False, "Node (n) [ShapeInferenceError] Incompatible dimensions"
    mild = finding(codes["shape-conflict"], "Shapes differ.")
    assert mild.severity == "warning"
    (after,) = verdict.judged(patient, [mild])
    assert after.severity == "error"
    assert after.cause.endswith(
        "Shapes differ. ONNX Runtime says: “Node (n) [ShapeInferenceError] Incompatible dimensions”"
    )
    (again,) = verdict.judged(patient, [after])
    assert again.cause == after.cause, "quoted once"
    both = verdict.judged(patient, [finding(codes["float64"], "It is.")])
    assert [(f.code.id, f.severity) for f in both] == [("float64", "warning"), ("shape-conflict", "error")]
    patient.refusal = "Something new"
    named = verdict.judged(patient, [finding(codes["cycle"], "A circle.")])
    assert [f.code.id for f in named] == ["cycle"], "one cause, one finding"
    assert [f.code.id for f in verdict.judged(patient, [])] == ["runtime-refuses"]


def test_zeros_in_the_place_of_weights_are_nobody_s_fault(folder):
    """ONNX Runtime looks at whole numbers that something is divided by; here they are not shown to it."""
    onnx.save(parsed("g (int64[N, 9000] x) => (int64[N, 9000] y) { y = Div(x, d) }", {"d": np.full(9000, 3)}), "m.onnx")
    assert found("m.onnx") == []
    assert found("m.onnx", run=True) == []


def test_nothing_is_computed_for_the_verdict():
    """k - k is a zero only for those who compute it, and ONNX Runtime refuses to divide whole numbers by a constant zero."""
    model = parsed("g (int64[N] x) => (int64[N] y) { z = Sub(k, k)  y = Div(x, z) }", {"k": np.array([7])})
    assert found(model) == []
    assert [f.code.id for f in cu.doctor(model, run=True).errors] == ["runtime-refuses"]


def test_a_run_that_went_well_disproves():
    """An error that only a refusal would prove is none in a model that was loaded; a wrong number stays one."""
    from course_utils.diagnosis.examination import judged
    from course_utils.diagnosis.file.reading import read

    patient = read(linear())
    codes = {c.id: c for c in all_codes()}
    made = {name: finding(codes[name], "It is so.") for name in codes if codes[name].severity == "error"}
    patient.loaded = True
    after = {f.code.id: f.severity for f in judged(patient, list(made.values()))}
    for name in verdict.OF_THE_RUNTIME | verdict.OF_THE_GRAPH | verdict.OF_THE_WEIGHTS:
        assert after.get(name, "note") != "error"
    assert all(after[name] == "error" for name in OF_NUMBERS | {"run-fails", "external-path-outside"})


def test_a_verdict_without_the_weights_acquits_no_weights(folder):
    """ONNX Runtime takes the graph, and would miss the file: that is known without a run, and stays an error."""
    model = linear(64)
    data = external(model)
    onnx.save(model, "m.onnx")
    assert [f.code.id for f in cu.doctor("m.onnx").errors] == ["external-file-missing"]
    (folder / "w.bin").write_bytes(data)
    assert found("m.onnx") == []
