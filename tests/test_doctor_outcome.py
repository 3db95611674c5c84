"""From what the process of a trial says to findings: how it ended, and what it saw."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from doctor_models import external, linear, parsed, weights
from onnx import TensorProto, helper

from course_utils.diagnosis.child import trial
from course_utils.diagnosis.file.reading import read
from course_utils.diagnosis.vocabulary import Finding, Place

PLACE = Place("file", "m.onnx")
NODES = "g (float[N, 4] x) => (float[N, 4] y) { a = Relu(x)  b = Tanh(a)  y = Abs(b) }"


def named() -> onnx.ModelProto:
    model = parsed(NODES)
    for node, name in zip(model.graph.node, ("one", "two", ""), strict=True):
        node.name = name
    return model


def stopped(ended: str, *events: str, memory: int = 4000, **more: Any) -> tuple[list[str], str, list[str]]:
    """The codes, the first cause, and what was not checked. The worker alone takes 165 MB."""
    patient = read(linear())
    told = {"room": {"taken": 165_000_000}} | {e: {} for e in events} | more
    found = list(trial._stopped(patient, told, ended, PLACE, 7, memory * 10**6))
    return [f.code.id for f in found], found[0].cause if found else "", patient.not_checked


FINE = "exit status 0"


def test_what_was_said_before_the_process_died_counts(monkeypatch, tmp_path):
    """The line that its end cut off does not."""

    def run(command: object, *, stdout: Any, **how: object) -> SimpleNamespace:
        stdout.write(b'{"event": "start"}\n{"event": "refused", "why": "no room"}\n{"event": "loa')
        return SimpleNamespace(returncode=1)

    monkeypatch.setattr(trial.subprocess, "run", run)
    said, ended = trial._start(tmp_path / "m.onnx", {"seconds": 1}, str(tmp_path))
    assert said == [{"event": "start"}, {"event": "refused", "why": "no room"}]
    assert ended == "exit status 1"


def test_how_the_process_ended():
    assert stopped(FINE, "start", "loaded", "ran", "end") == ([], "", [])
    assert stopped("time", "start", "loaded", "ran") == ([], "", ["It ran. Not all sizes were tried within 7 seconds."])
    assert stopped("time", "start") == (["over-limits"], "It was still loading after 7 seconds.", [])
    assert stopped("time", "start", "loaded") == (["over-limits"], "It was still running after 7 seconds.", [])
    assert stopped(FINE, "start", "loaded", "ran", "memory", "end")[2] == [
        "It ran. Not all sizes were tried: 4.0 GB of memory are too little for it."
    ]
    assert stopped(FINE, "start", "memory") == (
        ["over-limits"],
        "It did not get along with 4.0 GB of memory while loading.",
        [],
    )
    assert stopped(FINE, "start", "loaded", "memory", "end") == (
        ["over-limits"],
        "It did not get along with 4.0 GB of memory while running.",
        [],
    )
    low = "It did not get along with 300.0 MB of memory while loading. Python and ONNX Runtime alone take 165.0 MB, before there is a model."
    assert stopped("signal SIGSEGV", "start", memory=300) == (["over-limits"], low, [])
    assert stopped("signal SIGSEGV", "start", memory=330)[0] == ["runtime-dies"]
    assert (
        stopped(FINE, "start", "memory", memory=330)[1] == "It did not get along with 330.0 MB of memory while loading."
    )
    assert stopped(FINE, "start", "refused", memory=300) == ([], "", [])
    assert stopped("signal SIGSEGV", "start", "loaded", "ran", "end", memory=300)[0] == []
    assert stopped("signal SIGSEGV", "start") == (
        ["runtime-dies"],
        "The process ended while loading the model: signal SIGSEGV.",
        [],
    )
    assert stopped("signal SIGSEGV", "start", "loaded") == (
        ["runtime-dies"],
        "The process ended while running the model: signal SIGSEGV.",
        [],
    )
    assert stopped("signal SIGSEGV", "start", "refused")[0] == [], "it had said no before"
    why = "The model was not run: the process for it did not do its work ({})."
    assert stopped("exit status 1", "start") == ([], "", [why.format("exit status 1")])
    assert stopped("signal SIGKILL") == ([], "", [why.format("signal SIGKILL")])
    assert stopped(FINE, absent={"why": "No module"}) == ([], "", [why.format("No module")])


def outcome(*said: dict[str, Any], model: onnx.ModelProto | None = None) -> tuple[list[Finding], list[str]]:
    patient = read(model or named())
    return list(trial._outcome(patient, list(said), PLACE)), patient.not_checked


def only(*said: dict[str, Any], model: onnx.ModelProto | None = None) -> Finding:
    found, left = outcome(*said, model=model)
    assert left == []
    assert len(found) == 1, found
    return found[0]


def event(event: str, **what: Any) -> dict[str, Any]:
    return {"event": event, **what}


GOOD = {"same": True, "nan": [], "infinite": []}


def test_what_a_good_run_says():
    assert outcome(event("ran"), event("outputs", **GOOD), event("inside", slow=[], nan=[])) == ([], [])
    assert outcome() == ([], [])
    assert outcome(event("not-run", why="too large")) == ([], ["It loads. It was not run: too large."])


def test_numbers_that_are_none():
    nan = only(event("outputs", **GOOD | {"nan": ["y", "z"]}))
    assert (nan.code.id, nan.cause) == ("outputs-nan", "Made-up inputs of usual size give NaN in y, z.")
    assert [str(p) for p in nan.where] == ["output 'y'", "output 'z'"]
    first = only(event("outputs", **GOOD | {"nan": ["y"]}), event("inside", slow=[], nan=["b"]))
    assert first.cause.endswith("give NaN in y. The first NaN is in 'b'.")
    infinite = only(event("outputs", **GOOD | {"infinite": ["y"]}), event("inside", slow=[], nan=["b"]))
    assert infinite.cause == "Made-up inputs of usual size give infinity in y."


RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")


def test_results_that_change():
    changes = event("outputs", **GOOD | {"same": False})
    assert only(changes).code.id == "outputs-change"
    for op in RANDOM:
        model = named()
        model.graph.node[1].op_type = op
        assert outcome(changes, model=model) == ([], []), "it draws random numbers, and says so"


def frozen(name: str, batch: bool, why: str = "", **more: Any) -> dict[str, Any]:
    return event("frozen", **{"name": name, "runs": 4, "fails": [2, 3], "why": why, "batch": batch, **more})


def test_sizes_that_are_frozen():
    found = only(frozen("N", True, "Name:'two' Status Message: no"))
    assert found.code.id == "batch-not-free"
    assert found.cause == "It runs with 'N' = 4, and not with 'N' = 2, 3. It says: “Name:'two' Status Message: no”"
    assert found.places == "node #1 'two'"
    found = only(frozen("H", False), frozen("W", False, runs=5, fails=[1, 2, 3, 4, 5, 6]))
    assert found.code.id == "size-not-free"
    assert (
        found.cause
        == "It runs with 'H' = 4 and 'W' = 5, and not with 'H' = 2, 3; 'W' = 1, 2, 3, 4 and 2 more. It says: “”"
    )
    both, _ = outcome(frozen("L", False), frozen("N", True))
    assert [f.code.id for f in both] == ["batch-not-free", "size-not-free"]
    many = only(*(frozen(f"n{i}", False) for i in range(6)))
    assert "'n3' = 4" in many.cause
    assert "'n4'" not in many.cause


def shapes(*wrong: list[Any]) -> dict[str, Any]:
    return event("shapes", wrong=list(wrong), sizes=[["N", 1], ["L", 16]])


def test_outputs_that_differ():
    sure, named_only = ["y", ["N", 5], [1, 4], True], ["z", ["N", None], [2, 4], False]
    found = only(shapes(sure))
    assert (found.code.id, found.severity) == ("output-shape-differs", "warning")
    assert found.cause == "'y' is [N, 5] by the file, and [1, 4] in a run with N = 1, L = 16."
    found = only(shapes(named_only))
    assert (found.severity, found.cause[:38]) == ("note", "'z' is [N, ?] by the file, and [2, 4] "[:38])
    both, _ = outcome(shapes(sure, named_only, ["v", ["N", 5], [1, 4], True]))
    assert [(f.severity, f.places) for f in both] == [("warning", "output 'y', output 'v'"), ("note", "output 'z'")]
    fixed = only(event("shapes", wrong=[sure], sizes=[]))
    assert fixed.cause == "'y' is [N, 5] by the file, and [1, 4]."
    assert [f.code.id for f in outcome(shapes(sure), frozen("N", True))[0]] == ["batch-not-free"], "that explains it"


def test_what_was_not_found_out():
    assert outcome(event("not-probed", names=["N", "L"])) == (
        [], ["It ran with one size of 'N', 'L'. Whether others run, too, was not found out."],
    )  # fmt: skip


def test_numbers_that_processors_are_slow_with():
    found = only(event("inside", slow=[["a", "one", 0.25], ["b", "two", 0.75], ["y", "three", 0.5]], nan=[]))
    assert found.code.id == "subnormal-numbers"
    assert "75% of the numbers in 'b' are" in found.cause
    assert found.cause.endswith("So in 3 tensors.")
    assert found.places == "node 'one', node 'two', node 'three'"


def fails(**how: Any) -> dict[str, Any]:
    return event(
        "fails",
        **{"why": "Name:'one' Status Message: no", "tried": {"N": [1, 2]}, "by_values": False, "certain": False, **how},
    )


def test_a_model_that_never_ran():
    certain = only(fails(certain=True))
    assert (certain.code.id, certain.cause, certain.places) == (
        "run-fails",
        "It says: “Name:'one' Status Message: no”",
        "node #0 'one'",
    )
    assert only(fails(certain=True, why="no")).places == "file 'm.onnx'"
    size = only(fails())
    assert size.code.id == "size-not-free"
    assert size.cause == "No size that was tried runs ('N' = 1, 2). It says: “Name:'one' Status Message: no”"
    assert size.places == "node #0 'one'"
    many = only(fails(tried={f"n{i}": list(range(9)) for i in range(5)})).cause
    assert "'n0' = 0, 1, 2, 3, 4, 5, 6, 7 and 1 more; 'n1'" in many
    assert "'n3'" in many
    assert "'n4'" not in many
    for how in ({"by_values": True}, {"tried": {}}):
        found, left = outcome(fails(**how))
        assert found == []
        assert left == [
            "It loads. It was not run to the end, as fitting inputs could not be made up: Name:'one' Status Message: no"
        ]


@pytest.mark.parametrize(
    ("longest", "said"),
    [
        (300, lambda why: only(frozen("N", True, why)).cause),
        (400, lambda why: only(fails(why=why)).cause),
        (400, lambda why: outcome(event("not-run", why=why))[1][0]),
    ],
)
def test_long_words_are_cut(longest, said):
    assert "…" not in said("x" * longest)
    assert "…" in said("x" * (longest + 1))


def test_the_node_that_a_message_names():
    patient = read(named())
    for words, index in (
        ("Name:'two' Status Message: no", 1),
        ("Name: 'two' Status", 1),
        ("Name:'' Status", None),
        ("no", None),
        ("Name:'x' Status", None),
    ):
        assert [p.index for p in trial._node_of(patient, words)] == ([] if index is None else [index])
    twice = named()
    twice.graph.node[2].name = "two"
    assert [p.index for p in trial._node_of(read(twice), "Name:'two' Status")] == [1]


# Numbers in the file that a frozen size may be


def hints(**stored: np.ndarray) -> list[int]:
    model = parsed(NODES, stored)
    return trial.hints(read(model))


def test_numbers_that_a_size_may_be():
    """Parts of shapes first, and their sum; then the sizes of what is stored. Each once, and none that are too large."""
    assert hints(w=weights(7, 5), s=np.array([3, 4])) == [3, 4, 7, 2, 5]
    assert hints(s=np.array([1, -1, 0, 2000])) == [4]
    assert hints(w=weights(1, 1024), v=weights(1025)) == [1024]
    assert hints(s=np.array([6])) == [6]
    assert hints(s=np.array(6)) == [6]
    assert hints(s=np.array([3, 4], np.int32)) == [2], "shapes are int64"
    assert hints(s=np.arange(100, 116)) == list(range(100, 116))
    assert hints(s=np.arange(100, 117)) == [17], "a list this long is no shape"
    assert hints(s=np.arange(0, dtype=np.int64)) == []
    many = hints(**{f"w{i}": weights(i, 1) for i in range(30, 2, -1)})
    assert many == list(range(3, 19)), "sixteen of them"


def test_shapes_that_cannot_be_read(folder):
    model = parsed(NODES, {"s": np.array([3, 4])})
    external(model)
    assert trial.hints(read(model)) == [2]
    damaged = parsed(NODES, {"s": np.array([3, 4])})
    damaged.graph.initializer[0].raw_data = b"123"
    assert trial.hints(read(damaged)) == [2]


# A provider that does not take everything


def fallback(provider: str | None, *placed: list[str]) -> list[Finding]:
    return list(trial._fallback({"loaded": {"placement": placed}}, provider))


def test_nodes_that_stay_on_the_cpu():
    here, there = ["CPUExecutionProvider", "Relu", "r"], ["XExecutionProvider", "Conv", "c"]
    (found,) = fallback("XExecutionProvider", here, there, ["CPUExecutionProvider", "Abs", ""], here)
    assert found.cause == "On the CPU: 3 of 4 nodes (2 × Relu, 1 × Abs)."
    assert found.places == "node 'r', node 'Abs', node 'r'"
    assert fallback("XExecutionProvider", there) == []
    assert fallback("CPUExecutionProvider", here) == []
    assert fallback(None, here) == []
    assert list(trial._fallback({}, "XExecutionProvider")) == []


def test_weights_that_are_not_at_hand():
    """The path of the model is not known: it is not run, and that is said."""
    model = linear()
    external(model)
    patient = read(model)
    assert list(trial.trial(patient, 20, 4 * 10**9, None)) == []
    assert patient.not_checked == ["The model was not run: its weights are in other files, and its path is not known."]
    assert patient.loaded is None


@pytest.mark.parametrize(("op", "loaded"), [("MatMul", True), ("Matmul", False)])
def test_whether_it_was_loaded_is_remembered(op, loaded):
    model = linear()
    model.graph.node[0].op_type = op
    patient = read(model)
    assert list(trial.trial(patient, 20, 4 * 10**9, None)) == []
    assert patient.loaded is loaded
    assert ("Matmul" in patient.refusal) is not loaded


def test_the_type_of_a_hint():
    """An int64 tensor in an attribute counts as well as an initializer."""
    model = parsed(NODES)
    value = helper.make_tensor("v", TensorProto.INT64, [2], [11, 12])
    model.graph.node.insert(0, helper.make_node("Constant", [], ["k"], value=value))
    assert trial.hints(read(model)) == [11, 12, 23, 2]
