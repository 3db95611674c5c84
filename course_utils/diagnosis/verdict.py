"""The last word has ONNX Runtime: what it loads has no error that only a refusal would prove, and what it refuses has one.

Without a trial it is asked for the model without its weights (`patient.verdict`); in a trial it has loaded the real one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from .patient import Patient
from .vocabulary import ERROR, WARNING, Code, Finding, all_codes, finding, plain, spoken

# Errors because ONNX Runtime would refuse the graph. These tell what it knows, and are wrong where it loads the model …
OF_THE_RUNTIME = {
    "ir-too-new", "opset-too-new", "domain-unknown", "operator-unknown", "attribute-unknown", "operator-not-implemented",
    "dtypes-differ", "dtype-not-allowed",
}  # fmt: skip
# … and these tell what the standard demands, which is true of the file all the same.
OF_THE_GRAPH = {
    "cycle", "not-sorted", "tensor-undefined", "tensor-written-twice", "output-undefined", "input-type-missing",
    "node-names-repeat", "recursive-function", "checker-objects", "onnx-tools-die", "opset-missing", "shape-conflict",
}  # fmt: skip
# Errors because it would refuse the weights, which it sees only in a trial.
OF_THE_WEIGHTS = {
    "external-file-missing", "external-file-foreign", "external-file-too-short", "external-entry-damaged", "weights-size-mismatch",
    "function-name-clash",
}  # fmt: skip
# Words of a refusal → the finding that they make an error. It has been found already, or is added.
_WORDS = (
    ("same node name", "node-names-repeat"),
    ("bound to different types", "dtypes-differ"),
    ("Could not find an implementation", "operator-not-implemented"),
    ("topologically sorted", "not-sorted"),
    ("ShapeInference", "shape-conflict"),
    ("TypeInference", "shape-conflict"),
    ("does not match expected type", "shape-conflict"),
)


def judged(patient: Patient, found: list[Finding]) -> list[Finding]:
    """The findings, as ONNX Runtime's own answer makes them: milder, harder, or one more."""
    loads, words, died = patient.loaded, patient.refusal, ""
    if loads is None:
        loads, words, died = patient.verdict.loads, patient.verdict.words, patient.verdict.died
    if loads:
        return _without_disproved(patient, found)
    if patient.loaded is None and any(f.code.id == "made-for-one-provider" for f in found):
        return found  # the CPU, which was asked, refuses it
    refusable = OF_THE_RUNTIME | OF_THE_GRAPH | OF_THE_WEIGHTS
    explained = any(f.severity == ERROR and f.code.id in refusable for f in found)
    if loads is False:
        return _refused(found, words, explained)
    if died and not explained:
        return [*found, finding(_code("runtime-dies"), f"The process ended while loading the model: {died}.")]
    return found


def without_consequences(found: list[Finding]) -> list[Finding]:
    """What a run says of a cause that has been found already."""
    ids = {f.code.id for f in found}
    return [f for f in found if not (f.code.id == "run-fails" and "scale-length-wrong" in ids)]


def _without_disproved(patient: Patient, found: list[Finding]) -> list[Finding]:
    """The findings of a model that was loaded: no error stays that only a refusal would prove."""
    milder = OF_THE_GRAPH | (OF_THE_WEIGHTS if patient.loaded else set())
    kept = []
    for f in found:
        if f.code.id in OF_THE_RUNTIME:
            patient.not_checked.append(f"ONNX Runtime loads the model, so this was no finding: {f.cause}")
        elif f.code.id == "checker-objects":
            kept.append(replace(f, code=_code("checker-formality")))
        elif f.severity == ERROR and f.code.id in milder:
            kept.append(replace(f, level=WARNING, cause=f"{f.cause} ONNX Runtime loads the model all the same."))
        else:
            kept.append(f)
    return kept


def _refused(found: list[Finding], words: str, explained: bool) -> list[Finding]:
    """One of the findings becomes an error, or gets ONNX Runtime's words; or these words are one more."""
    said = f"ONNX Runtime says: “{plain(spoken(words), 500)}”"
    known = next((code for part, code in _WORDS if part in words), "runtime-refuses")
    at = _first(found, lambda f: f.code.id == known)
    if at is None and explained:
        at = _first(
            found, lambda f: f.severity == ERROR and f.code.id in OF_THE_RUNTIME | OF_THE_GRAPH | OF_THE_WEIGHTS
        )
    if at is None:
        return [*found, finding(_code(known), said, level=_hard(_code(known)))]
    old = found[at]
    quoted = "” " in f"{old.cause} " and "says: “" in old.cause
    cause = old.cause if quoted else f"{old.cause}{'' if old.cause.endswith(('.', '”')) else '.'} {said}"
    return [*found[:at], replace(old, cause=cause, level=_hard(old.code)), *found[at + 1 :]]


def _hard(code: Code) -> str:
    """The level that makes a finding with this code an error."""
    return "" if code.severity == ERROR else ERROR


def _first(found: Iterable[Finding], fits: Callable[[Finding], bool]) -> int | None:
    return next((i for i, f in enumerate(found) if fits(f)), None)


def _code(name: str) -> Code:
    return next(c for c in all_codes() if c.id == name)
