"""The whole examination, from a path to a report."""

from __future__ import annotations

import importlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable

import onnx

from ..errors import CourseError
from ..onnx_files import is_compiled
from .child import runtime
from .child.trial import trial
from .file.reading import read
from .findings.structure import checker
from .parts import domain, dtype_name, expected_bytes, input_values
from .patient import Patient
from .report import Report
from .verdict import judged, without_consequences
from .vocabulary import ERROR, MODULES, SEVERITIES, Finding, amount, listed, plain

_ASKS_RUNTIME = ("findings.versions",)  # modules whose checks need ONNX Runtime
_EVERY = {name: i for i, name in enumerate(SEVERITIES)}


def doctor(
    model: str | os.PathLike[str] | bytes | onnx.ModelProto,
    *,
    run: bool = False,
    requested_opset: int | None = None,
    provider: str | None = None,
    budget_mb: int = 512,
    seconds: float = 60,
    memory_mb: int | None = None,
) -> Report:
    """Examine a model: what is wrong with it, where, why, and what to do. First used in lesson 05.

    model: the path of an .onnx file, its bytes, or a ModelProto. Nothing in it is executed, and no file outside its
    folder is opened, unless run=True: then ONNX Runtime loads it and runs it with made-up inputs of several sizes, in a
    process of its own that may take `memory_mb` (by default 4 GB and three times the weights).
    seconds: the longest time of that run, and of the tools of onnx, which also work in another process.
    requested_opset: what the exporter was asked for; the file does not say it.
    provider: with run=True, also tell which nodes it would not take.
    budget_mb: how much of the weights is read in the search for NaN and for copies; what is left out is named.

    A file that is no healthy model gives a report with an error in it. Where a tool for the examination is missing, or a
    check stopped, the report's `unfinished` says so: that is no finding about the model. Raises CourseError where there is nothing to
    examine: no such file, a folder, another type.
    """
    start = time.perf_counter()
    _check_options(run, requested_opset, provider, budget_mb, seconds, memory_mb)
    name = os.fspath(model) if isinstance(model, str | os.PathLike) else "this model"
    patient = read(model)
    if isinstance(patient, Finding):
        return Report(os.path.basename(name), {}, (patient,), (), time.perf_counter() - start)
    patient.requested_opset, patient.budget, patient.seconds = requested_opset, budget_mb * 10**6, max(seconds, 1)
    found: list[Finding] = []
    if runtime.absent():
        patient.unfinished.append(runtime.absent())
    for module in MODULES:
        if module in _ASKS_RUNTIME and runtime.absent():
            continue
        for check in getattr(importlib.import_module(f"{__package__}.{module}"), "CHECKS", ()):
            found += _made(check, patient)
            patient.sound = not any(f.severity == ERROR for f in found)
    if patient.sound:
        found += _made(checker, patient)
    if run:
        compiled = any(is_compiled(node) for *_, node in patient.each_node())
        unsafe = [f.code.id for f in found if f.code.id in ("external-path-outside", "tensor-huge")]
        if unsafe:
            patient.not_checked.append(f"The model was not run, because of {unsafe[0]}.")
        elif compiled:
            patient.not_checked.append(
                "It was not run: it is bound to one provider, and nobody can look into compiled code."
            )
        elif not runtime.absent():
            memory = (memory_mb * 10**6) if memory_mb else 4 * 10**9 + 3 * patient.weights_bytes
            found += _made(lambda p: trial(p, seconds, memory, provider), patient)
            patient.unfinished += [text for text in patient.not_checked if text.startswith("The model was not run")]
    try:
        found = without_consequences(judged(patient, found))
    except Exception as error:  # as with the checks: a model can be odd in ways that nobody thought of
        why = f"{type(error).__name__}: {plain(str(error), 200)}"
        patient.unfinished.append(f"The check whether ONNX Runtime loads the model stopped: {why}")
    found.sort(key=lambda f: _EVERY[f.severity])  # stable: within a severity the order of the checks
    left_out = tuple(dict.fromkeys([*patient.unfinished, *patient.not_checked]))
    seconds_taken = time.perf_counter() - start
    return Report(
        os.path.basename(name), _facts(patient), tuple(found), left_out, seconds_taken, tuple(patient.unfinished)
    )


def _check_options(
    run: bool, opset: int | None, provider: str | None, budget: int, seconds: float, memory: int | None
) -> None:
    numbers = {"budget_mb": budget, "seconds": seconds, "memory_mb": 1 if memory is None else memory}
    for name, value in numbers.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e9:
            raise CourseError(f"doctor() was given {name}={value!r}: it expects a number that is not negative.")
    if opset is not None and (not isinstance(opset, int) or isinstance(opset, bool) or opset < 1):
        raise CourseError(f"doctor() was given requested_opset={opset!r}: it expects a whole number, such as 17.")
    if provider is not None and not run:
        raise CourseError(
            "doctor() was given a provider without run=True: where nodes go is known when a session is created."
        )
    meant = runtime.provider_meant(provider) if provider is not None else ""
    if meant:
        raise CourseError(f"There is no execution provider {provider!r}: write {meant!r}, as ONNX Runtime spells it.")


def _made(check: Callable[[Patient], Iterable[Finding]], patient: Patient) -> list[Finding]:
    """The findings of one check. A model can be odd in ways that nobody thought of: then the other checks still count."""
    found: list[Finding] = []
    try:
        for item in check(patient):
            found.append(item)  # one by one, so that those before an error stay
    except Exception as error:
        what = getattr(check, "__name__", "a check").replace("_", " ")
        text = f"The check “{what}” stopped: {type(error).__name__}: {plain(str(error), 200)}"
        patient.not_checked.append(text)
        patient.unfinished.append(text)
    return found


def _facts(patient: Patient) -> dict[str, str]:
    """What kind of model it is, in a line."""
    model = patient.model
    used = {domain(node) for *_, node in patient.each_node()}  # converters list many domains, and use two
    opsets = listed(f"{plain(d or 'ai.onnx')} {v}" for d, v in patient.opsets.items() if d in used)
    dtypes: Counter[str] = Counter()
    for _, tensor in patient.each_tensor():
        dtypes[dtype_name(tensor.data_type)] += expected_bytes(tensor) or 0
    main = ", ".join(name for name, _ in dtypes.most_common(2))
    facts = {
        "file": amount(patient.size),
        "weights": f"{amount(patient.weights_bytes)}{f' ({main})' if main else ''}",
        "nodes": f"{sum(len(s.nodes) for s in patient.scopes):,}",
        "inputs": str(len(input_values(model.graph))),
        "outputs": str(len(model.graph.output)),
        "IR version": str(model.ir_version),
        "opset": opsets or "none",
    }
    if model.producer_name:
        facts["written by"] = plain(f"{plain(model.producer_name)} {plain(model.producer_version)}".strip(), 60)
    return facts
