"""Loading and running the model, when asked: in a process of its own, with limits of time and memory."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onnx import TensorProto

from ..processes import ending, environment
from .patient import Patient
from .vocabulary import ERROR, WARNING, Finding, Place, amount, code, finding, listed, nodes, plain, spoken

REFUSED = code(
    "runtime-refuses",
    ERROR,
    "05",
    "ONNX Runtime does not load the model",
    "Act on its words, and on the other findings here.",
)
DIES = code(
    "runtime-dies",
    ERROR,
    "05",
    "ONNX Runtime ends the whole process while it loads or runs the model",
    "Do not load it in a process that must live on. Try session options with ORT_DISABLE_ALL, and report it to ONNX Runtime.",
)
LIMITS = code(
    "over-limits",
    WARNING,
    "05",
    "Loading or running the model took more than was allowed",
    "Allow more with --seconds and --memory-mb, on a machine that has it.",
)
FAILS = code(
    "run-fails",
    ERROR,
    "05",
    "The model loads, and does not run with inputs of the shapes that it asks for",
    "Act on the words of ONNX Runtime: a node in the graph does not fit its inputs.",
)
NAN = code(
    "outputs-nan",
    WARNING,
    "09",
    "Outputs are NaN",
    "Find the first tensor that is NaN: cu.parity and onnx.reference.ReferenceEvaluator show all of them.",
)
CHANGES = code(
    "outputs-change",
    WARNING,
    "03",
    "The same input gives other numbers in each run",
    "Call model.eval() before the export. If the model draws random numbers on purpose, leave it.",
)
BATCH = code(
    "batch-not-free",
    WARNING,
    "04",
    "The file says any batch, and takes one only",
    "Something inside was frozen at the example's size. Lesson 04 shows how to find it: cu.probe_sizes.",
)
NO_PROVIDER = code(
    "provider-missing",
    ERROR,
    "05",
    "The installed package of ONNX Runtime lacks the provider",
    "Install the package that brings it into an environment of its own. A session would take the CPU, with one warning.",
)
FALLBACK = code(
    "fallback",
    WARNING,
    "05",
    "Nodes run on the CPU in place of the provider",
    "Each change of provider copies data. Lesson 05 shows which nodes, and session.disable_cpu_ep_fallback makes it an error.",
)
_RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}


def trial(patient: Patient, seconds: float, memory: int, provider: str | None) -> Iterator[Finding]:
    """Start the worker on the model's file, and turn what it says into findings."""
    if patient.file is None and any(t.data_location == TensorProto.EXTERNAL for _, t in patient.each_tensor()):
        patient.not_checked.append("The model was not run: its weights are in other files, and its path is not known.")
        return
    with tempfile.TemporaryDirectory(prefix="doctor-") as folder:
        path = patient.file
        if path is None:
            path = Path(folder, "model.onnx")
            path.write_bytes(patient.model.SerializeToString())
        said, ended = _start(path, seconds, memory, provider, folder)
    events = {line["event"]: line for line in said}
    place = Place("file", path.name)
    if "provider-missing" in events:
        text = f"{provider!r} was asked for. Available: {', '.join(events['provider-missing']['available'])}."
        yield finding(NO_PROVIDER, text, place)
    stage = "running" if "loaded" in events else "loading"
    if ended == "time":
        yield finding(LIMITS, f"It was still {stage} after {seconds:g} seconds.", place)
    elif "memory" in events:
        yield finding(LIMITS, f"It did not get along with {amount(memory)} of memory while {stage}.", place)
    elif "start" not in events or ended == "exit status 1":  # an error of Python's, not of the runtime
        patient.not_checked.append(f"The model was not run: the process for it did not do its work ({ended}).")
    elif "refused" not in events and "end" not in events:
        yield finding(DIES, f"The process ended while {stage} the model: {ended}.", place)
    if "refused" in events:
        yield finding(REFUSED, f"It says: “{plain(events['refused']['why'], 500)}”", place)
    yield from _outcome(patient, events, place)
    yield from _fallback(events, provider)


def _outcome(patient: Patient, events: dict[str, Any], place: Place) -> Iterator[Finding]:
    if "not-run" in events:
        why = plain(events["not-run"]["why"], 400)
        if events["not-run"]["frozen"]:
            yield finding(FAILS, f"It says: “{why}”", place)
        else:
            patient.not_checked.append(
                f"It loads. It was not run to the end, as fitting inputs could not be made up: {why}"
            )
    outputs = events.get("outputs", {})
    if outputs.get("nan"):
        text = f"Made-up inputs of usual size give NaN in {listed(outputs['nan'])}."
        yield finding(NAN, text, [Place("output", name) for name in outputs["nan"]])
    if outputs.get("same") is False and not any(node.op_type in _RANDOM for *_, node in patient.each_node()):
        yield finding(CHANGES, "Two runs with one made-up input differed.", place)
    if "batch" in events:
        e = events["batch"]
        text = f"{plain(e['name'])!r} = 1 runs, and {e['size']} does not. It says: “{plain(e['why'], 300)}”"
        yield finding(BATCH, text, place)


def _fallback(events: dict[str, Any], provider: str | None) -> Iterator[Finding]:
    placed = events.get("loaded", {}).get("placement", [])
    here = [(op, name) for where, op, name in placed if where == "CPUExecutionProvider"]
    if provider and provider != "CPUExecutionProvider" and here:
        ops = listed(f"{count} × {op}" for op, count in Counter(op for op, _ in here).most_common())
        text = f"On the CPU: {len(here)} of {nodes(len(placed))} ({ops})."
        yield finding(FALLBACK, text, [Place("node", name or op) for op, name in here])


def _start(path: Path, seconds: float, memory: int, provider: str | None, folder: str) -> tuple[list[dict], str]:
    """What the worker said, and how it ended."""
    request = json.dumps({"path": str(path.resolve()), "memory": memory, "provider": provider})
    command = [sys.executable, "-m", f"{__package__}.worker"]
    output = Path(folder, "said")
    try:
        with output.open("wb") as stream:  # a file, not a pipe: what was said stays, whatever happens
            child = subprocess.run(
                command, input=request.encode(), stdout=stream, stderr=subprocess.DEVNULL, cwd=folder, env=environment(),
                timeout=seconds, check=False,
            )  # fmt: skip
        ended = ending(child.returncode)
    except subprocess.TimeoutExpired:
        ended = "time"
    said = []
    for line in output.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            event = json.loads(line)
            said.append(event | ({"why": spoken(event["why"], path.resolve().parent)} if "why" in event else {}))
        except ValueError:  # cut off by the end of the process
            continue
    return said, ended


CHECKS = ()
