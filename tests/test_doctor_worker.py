"""What the process for a trial finds out of a session: here in this process, with sessions of small models."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from doctor_models import linear, parsed, weights
from doctor_runs import RESHAPE, listen, runs

from course_utils.diagnosis.child import trial_child as worker
from course_utils.diagnosis.child.feeding import Shapes, UnmadeError


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    return listen(monkeypatch)


def test_a_run_and_its_failure():
    made = runs(RESHAPE.format(4), {"s": np.array([2, 4])})
    assert made.run({"N": 3}) is None
    assert made.seconds == 0
    ((sizes, kind, words),) = made.failures
    assert (sizes, kind) == ({"N": 3}, "normal")
    assert "cannot be reshaped" in words
    assert "\n" not in words
    (result,) = made.run({"N": 2})
    assert result.shape == (2, 4)
    first = made.seconds
    assert first > 0
    made.run({"N": 2})
    assert made.seconds == first, "of the first run"
    assert len(made.failures) == 1


@pytest.mark.parametrize(
    "words",
    ["std::bad_alloc", "Failed to allocate memory for x", "Cannot allocate memory", "libx.so: failed to map segment"],
)
def test_too_little_memory_is_no_failure(words):
    def refuse(*given: object) -> None:
        raise RuntimeError(words)

    made = worker.Runs(SimpleNamespace(run=refuse), Shapes([]), 0)
    with pytest.raises(MemoryError):
        made.run({})
    assert made.failures == []


def test_time_that_is_left():
    made = runs("g (float[N] x) => (float[N] y) { y = Relu(x) }", seconds=100)
    made.seconds = 30
    assert not made.late()
    assert not made.late(3)
    assert made.late(4)
    made.until = time.monotonic() - 1
    assert made.late()


# The first sizes that run


def first(made: worker.Runs, hints: list[int] | None = None) -> tuple | None:
    found = worker._first(made, hints or [])
    return None if found is None else found[:2]


def test_the_first_sizes_that_run(said):
    assert first(runs(RESHAPE.format(4), {"s": np.array([3, 4])})) == ({"N": 3}, "normal")
    assert first(runs(RESHAPE.format(4), {"s": np.array([7, 4])}), [7]) == ({"N": 7}, "normal")
    assert first(runs("g (float[2, 4] x) => (float[2, 4] y) { y = Relu(x) }")) == ({}, "normal")
    division = "g (int64[N] x) => (int64[N] y) { i = Sub(x, one)  y = Gather(t, i) }"
    assert first(runs(division, {"one": np.array(6), "t": np.arange(5)})) == ({"N": 1}, "uniform"), (
        "with zeros it would be -6"
    )
    assert said == {}


def test_no_size_that_runs(said):
    assert first(runs(RESHAPE.format("L"), {"s": np.array([-1, 2300])})) is None
    event = said["fails"]
    assert event["tried"]["N"][:3] == [1, 2, 16]
    assert event["tried"]["L"][:4] == [16, 32, 64, 224]
    assert len(set(event["tried"]["L"])) == len(event["tried"]["L"])
    assert (event["certain"], event["by_values"]) == (False, False)
    assert "{1,16}" in event["why"]


@pytest.mark.parametrize(
    ("inputs", "body", "stored", "certain"),
    [
        ("float[N, 6] x", "y = Gather<axis = 1>(x, i)", {"i": np.array([9])}, True),  # only the batch was free
        ("float[4, 6] x", "y = Gather<axis = 1>(x, i)", {"i": np.array([9])}, True),
        ("float[N, 6, L] x", "y = Gather<axis = 1>(x, i)", {"i": np.array([9])}, True),  # the same words for all, which tell sizes
        ("float[N, L] x", "y = Reshape(x, s)", {"s": np.array([-1, 2300])}, False),
        ("float[3, 1, L] x", "y = MatMul(x, w)", {"w": weights(2300, 4)}, False),  # words that tell none
        ("int64[N, 6] x", "y = Gather<axis = 1>(x, i)", {"i": np.array([9])}, True),
        ("int64[N] x", "i = Sub(x, k)  y = Gather(t, i)", {"k": np.array(9), "t": np.arange(3)}, False),  # other numbers may run
    ],
)  # fmt: skip
def test_whether_no_other_inputs_would_run(inputs, body, stored, certain, said):
    out = "int64" if "int64[" in inputs else "float"
    assert first(runs(f"g ({inputs}) => ({out}[...] y) {{ {body} }}".replace("[...]", ""), stored)) is None
    assert said["fails"]["certain"] is certain
    assert said["fails"]["by_values"] is (not certain and "Sub" in body)


def failed(only: bool, other: list[str], *texts: str) -> bool:
    made = worker.Runs(
        None, SimpleNamespace(only_floats=only, other=other), 0, [({}, "normal", text) for text in texts]
    )
    return worker._certain(made)


def test_words_that_prove_something():
    """Whatever node they name; sizes must stand in the message itself, and it must have come up several times."""
    tells, silent = "Name:'node_{}' Status Message: got 4, wants 5", "Name:'node_7' Status Message: it does not fit"
    assert failed(True, [], tells, silent)
    assert failed(True, ["L"], *[tells] * 3)
    assert failed(True, ["L"], *(tells.format(i) for i in range(3)))
    assert not failed(True, ["L"], *[tells] * 2)
    assert not failed(True, ["L"], *[silent] * 3)
    assert not failed(True, ["L"], tells, tells, silent)
    assert failed(False, ["L"], *[tells] * 2)
    assert failed(False, [], *[tells] * 2)
    assert not failed(False, [], tells)
    assert not failed(False, [], *[silent] * 2)
    for words in ("it is not implemented", "not supported", "Unsupported type", "NOT_IMPLEMENTED : x"):
        assert failed(True, ["L"], words)
        assert failed(False, ["L"], words)
        assert not failed(False, ["L"], words, tells)


def test_inputs_that_cannot_be_made_up(said):
    """Only where nothing else failed."""
    with pytest.raises(UnmadeError):
        first(runs("g (seq(float[N]) x, int64 i) => (float[N] y) { y = SequenceAt(x, i) }"))
    large = "g (uint8[N, 40000000] x) => (uint8[?, ?] y) { y = Reshape(x, s) }"
    assert first(runs(large, {"s": np.array([-1, 7])})) is None
    assert "fails" in said


def test_no_time_is_left(said):
    """After the first failure; then nothing is certain."""
    assert first(runs(RESHAPE.format(4), {"s": np.array([2300, 4])}, seconds=-1)) is None
    assert said["fails"]["tried"] == {"N": [1]}
    assert said["fails"]["certain"] is False


# Outputs


NUMBERS = {
    "g (float[N, 4] x) => (float[N, 4] y) { a = Abs(x)  b = Neg(a)  y = Sqrt(b) }": (["y"], [], True),
    "g (float[N, 4] x) => (float[N, 4] y) { y = Sqrt(x) }": ([], [], True),  # of negative numbers alone
    "g (float[N, 4] x) => (float[N, 4] y) { z = Sub(x, x)  y = Reciprocal(z) }": ([], ["y"], True),
    "g (float[N, 4] x) => (float[N, 4] y) { z = Sub(x, x)  r = Reciprocal(z)  y = Neg(r) }": (
        [],
        ["y"],
        True,
    ),  # nothing finite
    "g (float[N, 4] x) => (float[N, 4] y, float[N, 4] v) { z = Sub(x, x)  y = Div(z, z)  v = Reciprocal(z) }": (
        ["y"],
        ["v"],
        True,
    ),
    "g (float[N, 4] x) => (float[N, 4] y) { y = Log(x) }": ([], [], True),
    "g (float[N, 64] x) => (float[N, 64] y) { r = RandomNormalLike(x)  y = Add(x, r) }": ([], [], False),
    "g (int64[N, 4] x) => (int64[N, 4] y) { y = Neg(x) }": ([], [], True),
}


# The largest of the four normal numbers is 0.64, that of the others 0.67; so these are odd in one of two runs alone.
ONCE = "k = Constant<value_float = 0.65>()  d = Sub(k, x)"
for body in ("y = Sqrt(d)", "r = Relu(d)  y = Reciprocal(r)", "r = Relu(d)  s = ReduceMin(r)  y = Log(s)"):
    NUMBERS[f"g (float[N, 4] x) => (float[?, ?] y) {{ {ONCE}  {body} }}"] = ([], [], True)
for body in ("r = Relu(x)  y = Reciprocal(r)", "r = Relu(x)  s = ReduceMin(r)  y = Log(s)"):
    NUMBERS[f"g (float[N, 4] x) => (float[?, ?] y) {{ {body} }}"] = ([], [], True)


@pytest.mark.parametrize("graph", NUMBERS)
def test_nan_infinity_and_change(graph, said, folder):
    """Of two kinds of inputs both must give it."""
    nan, infinite, same = NUMBERS[graph]
    onnx.save(parsed(graph), "m.onnx")
    worker.examine(ort, runs(graph), {"hints": [], "path": "m.onnx", "provider": None})
    assert said["outputs"] == {"same": same, "nan": nan, "infinite": infinite}
    assert "ran" in said
    assert "shapes" not in said
    assert "frozen" not in said
    assert "not-probed" not in said
    if "Div(z, z)" in graph or "Sqrt(b)" in graph:
        assert said["inside"]["nan"] == ["y"]


@pytest.mark.parametrize(
    ("says", "wrong"),
    [
        ("N, L, 4", None), ("?, ?, ?", None), ("N, L, 5", True), ("N, 16, 4", None), ("N, 17, 4", True), ("A, B, C", None), ("L, N, 4", False), ("A, A, 4", False),
        ("N, L", True), ("N, L, 4, 1", True), ("N, L + 1, 4", False), ("N, L*1, 4", None), ("5, N, 4", True),
    ],
)  # fmt: skip
def test_outputs_of_another_shape(says, wrong, said):
    """True: by a number or the number of axes. False: by a name that stands for another number."""
    made = runs("g (float[N, L, 4] x) => (float[N, L, 4] y) { y = Relu(x) }")
    dims = [int(d) if d.isdigit() else None if d == "?" else d for d in says.split(", ")]
    session = SimpleNamespace(get_outputs=lambda: [SimpleNamespace(name="y", type="tensor(float)", shape=dims)])
    sizes = {"N": 1, "L": 16}
    assert worker.compare(worker.Runs(session, made.shapes, 0), sizes, made.run(sizes)) is (wrong is None)
    assert said.get("shapes") == (
        None if wrong is None else {"wrong": [["y", dims, [1, 16, 4], wrong]], "sizes": [("N", 1), ("L", 16)]}
    )


def test_outputs_without_a_shape(said):
    """A single number and no shape look alike; a sequence has none."""
    outputs = [
        SimpleNamespace(name=n, type=t, shape=s)
        for n, t, s in (
            ("a", "tensor(float)", []),
            ("b", "tensor(float)", None),
            ("c", "seq(x)", []),
            ("d", "tensor(float)", [0, -1]),
        )
    ]
    made = worker.Runs(SimpleNamespace(get_outputs=lambda: outputs), None, 0)
    assert worker.compare(made, {}, [np.zeros((2, 3)), np.zeros(()), [1], np.zeros((5, 6))])
    outputs[0].shape = [4]
    assert not worker.compare(made, {}, [np.zeros(()), np.zeros(()), [1], np.zeros((5, 6))])
    assert said["shapes"]["wrong"] == [["a", [4], [], True]]


# Sessions


def test_a_provider_that_is_not_there(said):
    session = worker.load(ort, linear().SerializeToString(), "XExecutionProvider")
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert said == {"provider-missing": {"available": ort.get_available_providers()}}
    assert worker.placement(session) == []
    said.clear()
    for provider in (None, "CPUExecutionProvider"):
        worker.load(ort, linear().SerializeToString(), provider)
    assert said == {}


def test_where_nodes_went():
    nodes = [SimpleNamespace(op_type="Conv", name="c"), SimpleNamespace(op_type="Relu", name="r")]
    groups = [SimpleNamespace(ep_name="X", get_nodes=lambda: nodes)]
    session = SimpleNamespace(get_providers=lambda: ["X", "CPU"], get_provider_graph_assignment_info=lambda: groups)
    assert worker.placement(session) == [("X", "Conv", "c"), ("X", "Relu", "r")]
    assert worker.placement(SimpleNamespace(get_providers=lambda: ["X", "CPU"])) == [], (
        "an older ONNX Runtime records nothing"
    )


def test_long_words_are_cut():
    assert worker.words(ValueError("a\n  b")) == "a b"
    assert len(worker.words(ValueError("x" * 5000))) == 1500


@pytest.mark.skipif(len(ort.get_available_providers()) < 2, reason="this package of ONNX Runtime has one provider")
def test_the_provider_that_was_asked_for_comes_first(said):
    wanted = next(p for p in ort.get_available_providers() if p != "CPUExecutionProvider")
    session = worker.load(ort, linear().SerializeToString(), wanted)
    assert session.get_providers() == [wanted, "CPUExecutionProvider"]
    assert [(op, name) for _, op, name in worker.placement(session)] == [("MatMul", "")]
    assert said == {}


@pytest.mark.parametrize(
    ("where", "error", "events"),
    [
        ("load", MemoryError(), ["start", "memory"]),
        ("load", RuntimeError("std::bad_alloc"), ["start", "memory"]),
        ("load", RuntimeError("No such file"), ["start", "refused"]),
        ("examine", MemoryError(), ["start", "loaded", "memory", "end"]),
        ("examine", UnmadeError("x has no type"), ["start", "loaded", "not-run", "end"]),
    ],
)
def test_how_a_trial_ends_early(where, error, events, monkeypatch, capsys):
    """Too little memory is no refusal of the model, whatever class and words it comes with."""

    def fail(*given: object) -> None:
        raise error

    request = {"path": "m.onnx", "provider": None, "seconds": 60, "memory": 0}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(request)))
    monkeypatch.setattr(worker, "alarm", lambda seconds: None)
    monkeypatch.setattr(worker, "limit_memory", lambda size: True)
    monkeypatch.setattr(worker, "load", lambda *given: SimpleNamespace(get_inputs=list))
    monkeypatch.setattr(worker, where, fail)
    worker.main()
    assert [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()] == events


def test_a_limit_without_room_for_a_model(monkeypatch, capsys):
    request = {"path": "m.onnx", "provider": None, "seconds": 60, "memory": 0}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(request)))
    monkeypatch.setattr(worker, "alarm", lambda seconds: None)
    monkeypatch.setattr(worker, "limit_memory", lambda size: False)
    worker.main()
    assert capsys.readouterr().out == '{"event": "memory"}\n'


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells how much memory a process has")
def test_the_limit_of_memory(python, folder):
    """There must be room for a model: more than 32 MiB beyond what Python and ONNX Runtime take."""
    code = """
        import json, resource, sys
        from pathlib import Path
        from course_utils.diagnosis.child import trial_child
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        room = trial_child.limit_memory(taken + {} * 2**20)
        print(room, resource.getrlimit(resource.RLIMIT_CORE), resource.getrlimit(resource.RLIMIT_AS)[1] - taken)
    """
    for room, enough in ((20, False), (60, True)):
        told, last = python(code.format(room), cwd=folder).stdout.splitlines()
        assert 5e7 < json.loads(told)["taken"] < 1e9
        assert last == f"{enough} (0, 0) {room * 2**20}"
