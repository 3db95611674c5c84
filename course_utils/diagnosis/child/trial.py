"""Loading and running the model, when asked: in a process of its own, with limits of time and memory."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from ...lab.providers import plugin_of
from ...processes import ending, environment
from ..findings.numbers import SUBNORMAL
from ..parts import count_of
from ..patient import Patient
from ..vocabulary import (
    ERROR,
    NOTE,
    WARNING,
    Finding,
    Place,
    amount,
    code,
    count,
    finding,
    listed,
    nodes,
    plain,
    spoken,
)

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
    "Outputs are NaN or infinite",
    "Find the first tensor that is: cu.parity and onnx.reference.ReferenceEvaluator show all of them.",
)
CHANGES = code(
    "outputs-change",
    WARNING,
    "03_what_a_file_forgets",
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
SIZE = code(
    "size-not-free",
    WARNING,
    "04",
    "The file leaves a size free, and takes one value only",
    "Something inside was frozen at the example's size, near the node that is named. cu.probe_sizes shows it in PyTorch. Export it "
    "again with this axis dynamic, or write the one size that fits into the file.",
)
OUTPUT = code(
    "output-shape-differs",
    WARNING,
    "04",
    "An output has another shape than the file says",
    "Correct the shape in graph.output: programs that trust it reserve the wrong memory. onnxruntime.tools.make_dynamic_shape_fixed "
    "and onnx.tools.update_model_dims set shapes.",
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
_HINTS = 16


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
        request = {"path": str(path.resolve()), "memory": memory, "provider": provider, "seconds": seconds}
        said, ended = _start(path, request | {"hints": hints(patient)}, folder)
    events = {line["event"]: line for line in said}
    place = Place("file", path.name)
    if "provider-missing" in events:
        text = f"{provider!r} was asked for. Available: {', '.join(events['provider-missing']['available'])}."
        yield finding(NO_PROVIDER, text, place, _of_plugin(provider))
    if "loaded" in events:
        patient.loaded = True
    elif "refused" in events:
        patient.loaded, patient.refusal = False, events["refused"]["why"]
    yield from _stopped(patient, events, ended, place, seconds, memory)
    yield from _outcome(patient, said, place)
    yield from _fallback(events, provider)


def _of_plugin(provider: str | None) -> str:
    """What to do for a provider that is a plug-in; empty for another one."""
    plugin = plugin_of(provider or "")
    if plugin is None:
        return ""
    return (
        f"It comes as a plug-in, {plugin.package}, and the doctor registers none. In Python, "
        f"cu.strict_session(model, cu.provider_devices({plugin.name!r})) says which nodes it does not take."
    )


def _stopped(
    patient: Patient, events: dict[str, Any], ended: str, place: Place, seconds: float, memory: int
) -> Iterator[Finding]:
    """Why the worker did not come to its end, if it did not."""
    stage = "running" if "loaded" in events else "loading"
    taken = events.get("room", {}).get("taken", 0)
    if ended == "time" and "ran" in events:
        patient.not_checked.append(f"It ran. Not all sizes were tried within {seconds:g} seconds.")
    elif ended == "time":
        yield finding(LIMITS, f"It was still {stage} after {seconds:g} seconds.", place)
    elif "memory" in events and "ran" in events:
        patient.not_checked.append(
            f"It ran. Not all sizes were tried: {amount(memory)} of memory are too little for it."
        )
    elif "memory" in events or (ended != "exit status 0" and "end" not in events and memory < 2 * taken):
        text = f"It did not get along with {amount(memory)} of memory while {stage}."
        if memory < 2 * taken:
            text += f" Python and ONNX Runtime alone take {amount(taken)}, before there is a model."
        yield finding(LIMITS, text, place)
    elif "start" not in events or ended == "exit status 1":  # an error of Python's, not of the runtime
        why = events.get("absent", {}).get("why", ended)
        patient.not_checked.append(
            f"The model was not run: the process for it did not do its work ({plain(why, 200)})."
        )
    elif "refused" not in events and "end" not in events:
        yield finding(DIES, f"The process ended while {stage} the model: {ended}.", place)


def _outcome(patient: Patient, said: list[dict[str, Any]], place: Place) -> Iterator[Finding]:
    events = {line["event"]: line for line in said}
    if "not-run" in events:
        patient.not_checked.append(f"It loads. It was not run: {plain(events['not-run']['why'], 400)}.")
    if "fails" in events:
        yield from _failure(patient, events["fails"], place)
    outputs, inside = events.get("outputs", {}), events.get("inside", {})
    for what in ("nan", "infinite"):
        if outputs.get(what):
            text = f"Made-up inputs of usual size give {'NaN' if what == 'nan' else 'infinity'} in {listed(outputs[what])}."
            first = inside.get("nan", []) if what == "nan" else []
            text += f" The first NaN is in {plain(first[0])!r}." if first else ""
            yield finding(NAN, text, [Place("output", name) for name in outputs[what]])
    if outputs.get("same") is False and not any(node.op_type in _RANDOM for *_, node in patient.each_node()):
        yield finding(CHANGES, "Two runs with one made-up input differed.", place)
    frozen = [line for line in said if line["event"] == "frozen"]
    for kind in (BATCH, SIZE):
        alike = [e for e in frozen if e["batch"] is (kind is BATCH)]
        if alike:
            runs = " and ".join(f"{plain(e['name'])!r} = {e['runs']}" for e in alike[:4])
            fails = "; ".join(f"{plain(e['name'])!r} = {listed(e['fails'])}" for e in alike[:4])
            text = f"It runs with {runs}, and not with {fails}. It says: “{plain(alike[0]['why'], 300)}”"
            yield finding(kind, text, _node_of(patient, alike[0]["why"]))
    if not frozen:
        yield from _shapes(events.get("shapes", {}))
    if "not-probed" in events:
        names = listed(repr(plain(name)) for name in events["not-probed"]["names"])
        patient.not_checked.append(f"It ran with one size of {names}. Whether others run, too, was not found out.")
    if inside.get("slow"):
        name, _, share = max(inside["slow"], key=lambda item: item[2])
        text = (
            f"In a run with made-up inputs, {share:.0%} of the numbers in {plain(name)!r} are, other than zero, smaller than the "
            f"smallest in usual form. So in {count(len(inside['slow']), 'tensor')}."
        )
        yield finding(SUBNORMAL, text, [Place("node", node) for _, node, _ in inside["slow"]])


def _failure(patient: Patient, e: dict[str, Any], place: Place) -> Iterator[Finding]:
    """It loads, and none of the runs succeeded."""
    why = plain(e["why"], 400)
    if e["certain"]:
        yield finding(FAILS, f"It says: “{why}”", _node_of(patient, e["why"]) or place)
    elif e["by_values"] or not e["tried"]:
        patient.not_checked.append(
            f"It loads. It was not run to the end, as fitting inputs could not be made up: {why}"
        )
    else:
        tried = "; ".join(f"{plain(name)!r} = {listed(sizes, 8)}" for name, sizes in list(e["tried"].items())[:4])
        yield finding(SIZE, f"No size that was tried runs ({tried}). It says: “{why}”", _node_of(patient, e["why"]))


def _shapes(event: dict[str, Any]) -> Iterator[Finding]:
    """Outputs that differ from what the file says: by a number; or by a name that stands for another number already."""
    for sure in (True, False):
        wrong = [w for w in event.get("wrong", []) if w[3] is sure]
        if wrong:
            name, says, has, _ = wrong[0]
            sizes = ", ".join(f"{plain(name)} = {size}" for name, size in event["sizes"])
            given = f" in a run with {sizes}" if sizes else ""
            shape = ", ".join("?" if d is None else plain(str(d)) for d in says)
            text = f"{plain(name)!r} is [{shape}] by the file, and {has}{given}."
            yield finding(OUTPUT, text, [Place("output", w[0]) for w in wrong], level="" if sure else NOTE)


def _node_of(patient: Patient, words: str) -> list[Place]:
    """The node that a message names, where the file has it under this name."""
    found = re.search(r"Name: ?'(.*?)' Status", words)
    name = found[1] if found else ""
    return [scope.place(i) for scope, i, node in patient.each_node() if name and node.name == name][:1]


def hints(patient: Patient) -> list[int]:
    """Numbers in the file that a frozen size may be: parts of stored shapes first, then the sizes of what is stored."""
    shapes: Counter[int] = Counter()
    sizes: Counter[int] = Counter()
    for _, tensor in patient.each_tensor():
        sizes.update(tensor.dims)
        if (
            tensor.data_type == TensorProto.INT64
            and 0 < count_of(tensor.dims) <= 16
            and tensor.raw_data not in patient.pieces
        ):
            with contextlib.suppress(Exception):  # damaged data, or in another file
                values = onnx.numpy_helper.to_array(tensor).ravel().tolist()
                shapes.update([*values, sum(values)])  # the sum: of the pieces of a Split
    usable = [n for n in (*sorted(shapes), *sorted(sizes)) if 1 < n <= 1024]
    return list(dict.fromkeys(usable))[:_HINTS]


def _fallback(events: dict[str, Any], provider: str | None) -> Iterator[Finding]:
    placed = events.get("loaded", {}).get("placement", [])
    here = [(op, name) for where, op, name in placed if where == "CPUExecutionProvider"]
    if provider and provider != "CPUExecutionProvider" and here:
        ops = listed(f"{count} × {op}" for op, count in Counter(op for op, _ in here).most_common())
        text = f"On the CPU: {len(here)} of {nodes(len(placed))} ({ops})."
        yield finding(FALLBACK, text, [Place("node", name or op) for op, name in here])


def _start(path: Path, request: dict[str, Any], folder: str) -> tuple[list[dict], str]:
    """What the worker said, and how it ended."""
    command = [sys.executable, "-m", f"{__package__}.trial_child"]
    output = Path(folder, "said")
    try:
        with output.open("wb") as stream:  # a file, not a pipe: what was said stays, whatever happens
            child = subprocess.run(
                command, input=json.dumps(request).encode(), stdout=stream, stderr=subprocess.DEVNULL, cwd=folder, env=environment(),
                timeout=request["seconds"], check=False,
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
