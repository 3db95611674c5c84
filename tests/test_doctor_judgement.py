"""What ONNX Runtime's answer makes of the findings: milder, harder, or one more. For every code, and every way to answer."""

from __future__ import annotations

import pytest
from doctor_models import linear
from test_doctor_findings import PAIRS

import course_utils as cu
from course_utils.diagnosis import examination, verdict
from course_utils.diagnosis.child import onnx_tools as tools
from course_utils.diagnosis.file.reading import read
from course_utils.diagnosis.patient import Patient
from course_utils.diagnosis.vocabulary import Finding, all_codes, finding

CODES = {c.id: c for c in all_codes()}
LISTS = [
    "ir-too-new", "opset-too-new", "domain-unknown", "operator-unknown", "attribute-unknown", "operator-not-implemented", "dtypes-differ", "dtype-not-allowed",
]  # fmt: skip
GRAPH = [
    "cycle", "not-sorted", "tensor-undefined", "tensor-written-twice", "output-undefined", "input-type-missing", "node-names-repeat",
    "recursive-function", "onnx-tools-die", "opset-missing", "shape-conflict",
]  # fmt: skip
STORED = [
    "external-file-missing", "external-file-foreign", "external-file-too-short", "external-entry-damaged", "weights-size-mismatch", "function-name-clash",
]  # fmt: skip
OTHERS = sorted(set(CODES) - {*LISTS, *GRAPH, *STORED, "checker-objects"})
SAME = "ONNX Runtime loads the model all the same."


def patient(loads: bool | None = None, words: str = "", died: str = "", *, trial: bool = False) -> Patient:
    """A patient of whom ONNX Runtime has said this, of the graph alone or in a trial."""
    made = read(linear())
    if trial:
        made.loaded, made.refusal = loads, words
    else:
        made.__dict__["verdict"] = tools.Verdict(loads, words, died)  # in the place of the question
    return made


def told(name: str, cause: str = "It is so.") -> Finding:
    return finding(CODES[name], cause, level="error")


@pytest.mark.parametrize("trial", [False, True])
@pytest.mark.parametrize("name", LISTS)
def test_lists_are_wrong_where_it_loads(name, trial):
    loads = patient(True, trial=trial)
    assert verdict.judged(loads, [told(name)]) == []
    assert loads.not_checked == ["ONNX Runtime loads the model, so this was no finding: It is so."]


@pytest.mark.parametrize("trial", [False, True])
@pytest.mark.parametrize("name", GRAPH)
def test_the_standard_is_right_and_no_error_where_it_loads(name, trial):
    (after,) = verdict.judged(patient(True, trial=trial), [told(name)])
    assert (after.code.id, after.severity, after.cause) == (name, "warning", f"It is so. {SAME}")
    mild = finding(CODES[name], "It is so.", level="note")
    assert verdict.judged(patient(True, trial=trial), [mild]) == [mild]


@pytest.mark.parametrize("name", STORED)
def test_weights_are_seen_in_a_trial_alone(name):
    (after,) = verdict.judged(patient(True, trial=True), [told(name)])
    assert (after.severity, after.cause) == ("warning", f"It is so. {SAME}")
    assert verdict.judged(patient(True), [told(name)]) == [told(name)]


@pytest.mark.parametrize("trial", [False, True])
@pytest.mark.parametrize("name", OTHERS)
def test_other_findings_stay_as_they_are(name, trial):
    assert verdict.judged(patient(True, trial=trial), [told(name)]) == [told(name)]


def test_the_checker_s_objection_is_a_formality_where_it_loads():
    (after,) = verdict.judged(patient(True), [finding(CODES["checker-objects"], "It is so.")])
    assert (after.code.id, after.cause) == ("checker-formality", "It is so.")


WORDS = {
    "two have the same node name": "node-names-repeat", "T is bound to different types (a)": "dtypes-differ", "Could not find an implementation for X": "operator-not-implemented",
    "not topologically sorted": "not-sorted", "[ShapeInferenceError] x": "shape-conflict", "[TypeInferenceError] x": "shape-conflict",
    "Type x does not match expected type y": "shape-conflict", "Something else": "runtime-refuses",
}  # fmt: skip


@pytest.mark.parametrize("trial", [False, True])
@pytest.mark.parametrize("words", WORDS)
def test_words_of_a_refusal(words, trial):
    """Where nothing was found that explains it, they are a finding; where it was, they stand in it."""
    refuses, code, quote = patient(False, words, trial=trial), WORDS[words], f"ONNX Runtime says: “{words}”"
    note = finding(CODES["float64"], "It is.")
    added = verdict.judged(refuses, [note])
    assert [(f.code.id, f.severity) for f in added] == [("float64", "warning"), (code, "error")]
    assert added[1].cause == quote
    (after,) = verdict.judged(refuses, [finding(CODES[code], "It is so", level="warning")])
    assert (after.code.id, after.severity, after.cause) == (code, "error", f"It is so. {quote}")
    known, other = verdict.judged(refuses, [told(code), told("cycle" if code != "cycle" else "not-sorted")])
    assert known.cause == f"It is so. {quote}", "the one that the words name"
    assert other.cause == "It is so."


@pytest.mark.parametrize("name", [*LISTS, *GRAPH, *STORED, "checker-objects"])
def test_a_refusal_belongs_to_what_explains_it(name):
    other, error = finding(CODES["float64"], "It is."), told("weights-not-finite")
    after = verdict.judged(patient(False, "Something else"), [other, error, told(name), told("cycle", "Another.")])
    assert after[:2] == [other, error]
    assert after[2].cause == "It is so. ONNX Runtime says: “Something else”"
    assert after[3].cause == "Another."
    assert len(after) == 4


def test_what_explains_no_refusal():
    for other in (
        told("weights-not-finite"),
        finding(CODES["shape-conflict"], "It is so."),
        finding(CODES["cycle"], "It is so.", level="warning"),
    ):
        assert other.severity == "warning" or other.code.id == "weights-not-finite"
        after = verdict.judged(patient(False, "Something else"), [other])
        assert [f.code.id for f in after] == [other.code.id, "runtime-refuses"]
        assert after[0] == other


@pytest.mark.parametrize(
    ("cause", "after"),
    [
        ("It is so", "It is so. {}"), ("It is so.", "It is so. {}"), ("It says: “no”", "It says: “no”"), ("It says: “no” And more.", "It says: “no” And more."),
        ("Of “x”", "Of “x” {}"), ("It says: “no”, so", "It says: “no”, so. {}"),
    ],
)  # fmt: skip
def test_words_are_quoted_once(cause, after):
    (found,) = verdict.judged(patient(False, "Something else"), [told("cycle", cause)])
    assert found.cause == after.format("ONNX Runtime says: “Something else”")


def test_a_process_that_ended():
    """A finding where nothing explains it. No answer is none."""
    died = patient(None, "signal SIGSEGV", "signal SIGSEGV")
    (found,) = verdict.judged(died, [])
    assert (found.code.id, found.severity, found.cause) == (
        "runtime-dies",
        "error",
        "The process ended while loading the model: signal SIGSEGV.",
    )
    assert verdict.judged(died, [told("cycle")]) == [told("cycle")]
    mild = finding(CODES["cycle"], "It is so.", level="warning")
    assert [f.code.id for f in verdict.judged(died, [mild])] == ["cycle", "runtime-dies"]
    assert verdict.judged(patient(None, "it is busy"), [mild]) == [mild]


def test_files_for_one_provider_are_refused_by_the_cpu():
    """Only in a trial it was another provider that was asked."""
    bound = finding(CODES["made-for-one-provider"], "It is.")
    assert verdict.judged(patient(False, "Something else"), [bound]) == [bound]
    assert verdict.judged(patient(None, "x", "signal SIGSEGV"), [bound]) == [bound]
    assert [f.code.id for f in verdict.judged(patient(False, "Something else", trial=True), [bound])] == [
        "made-for-one-provider",
        "runtime-refuses",
    ]
    other = finding(CODES["made-for-one-processor"], "It is.")
    assert len(verdict.judged(patient(False, "Something else"), [other])) == 2


def test_a_trial_counts_more_than_the_graph_alone():
    both = patient(True)
    both.loaded, both.refusal = False, "Something else"
    assert [f.code.id for f in verdict.judged(both, [])] == ["runtime-refuses"]
    both = patient(False, "Something else")
    both.loaded = True
    assert verdict.judged(both, []) == []


def test_what_a_run_says_of_a_known_cause():
    fails, length, other = (finding(CODES[name], "It is.") for name in ("run-fails", "scale-length-wrong", "float64"))
    assert verdict.without_consequences([length, fails, other]) == [length, other]
    assert verdict.without_consequences([fails, other]) == [fails, other]


def test_long_words_are_cut_and_say_no_place():
    words = "/s/core/graph.cc:12 onnxruntime::Graph::Graph() " + "x" * 600
    cause = verdict.judged(patient(False, words), [])[0].cause
    assert "graph.cc" not in cause
    assert 400 < len(cause) < 520


def test_what_is_too_large_to_run_is_not_run():
    report = cu.doctor(PAIRS["tensor-huge"][0](), run=True)
    assert report.codes == ["tensor-huge"]
    assert "The model was not run, because of tensor-huge." in report.not_checked


def test_a_judgement_that_stops_leaves_the_findings(monkeypatch):
    """It is said, and the examination is not complete."""

    def judged(*given: object) -> list[Finding]:
        raise ValueError("of all things")

    monkeypatch.setattr(examination, "judged", judged)
    report = cu.doctor(PAIRS["not-sorted"][0]())
    assert report.codes == ["not-sorted"]
    said = "The check whether ONNX Runtime loads the model stopped: ValueError: of all things"
    assert report.unfinished == report.not_checked[:1] == (said,)
