"""The checks of exercise 05: right answers pass, and each likely mistake gets a hint that names it."""

from __future__ import annotations

import copy
import itertools
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import copied_models
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from answers import STUDENTS, criteria, failed, given, given_files, params
from onnx import helper, numpy_helper

from course_utils.exercises import tasks_of

CPU = "CPUExecutionProvider"


# Right answers, made as a student would


def right_placement(who: str) -> dict[str, Any]:
    takes, nodes = params("5.1", who)["providers"], given("5.1", who).graph.node
    where = {n.name: next((name for name, ops in takes.items() if n.op_type in ops), CPU) for n in nodes}
    made_by = {n.output[0]: n.name for n in nodes}
    crossings = sum(where[made_by[i]] != where[n.name] for n in nodes for i in n.input if i in made_by)
    return {"placement": where, "crossings": crossings, "strict_error": CPU in where.values()}


def profile(
    folder: Path,
    who: str = "ada",
    *,
    level: str = "",
    runs: int = 0,
    rows: int = 0,
    model: onnx.ModelProto | None = None,
    early: bool = False,
) -> Any:
    p, options = params("5.2", who), ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level or p["level"])
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
    source = (model or given("5.2", who)).SerializeToString()
    session = ort.InferenceSession(source, options, providers=[CPU])
    ended = session.end_profiling() if early else ""
    for _ in range(runs or p["runs"]):
        session.run(None, {session.get_inputs()[0].name: np.zeros((rows or p["rows"], 3, 6, 6), np.float32)})
    return json.loads(Path(ended or session.end_profiling()).read_text())


def some_profile(who: str, **other: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        return profile(Path(folder), who, **other)


def typed_profile(who: str) -> Any:
    """Everything the check used to look at, written by hand."""
    p, nodes = params("5.2", who), given("5.2", who).graph.node
    left = [n for n in nodes if p["level"] == "ORT_DISABLE_ALL" or n.op_type in ("Conv", "Relu", "Mul", "Sigmoid")]
    args = {"provider": CPU, "input_type_shape": [{"float": [p["rows"], 3, 6, 6]}]}
    events = [{"cat": "Node", "name": f"{n.name}_kernel_time", "args": args} for n in left]
    runs = [{"name": "model_run"}] * p["runs"]
    return [{"name": "session_initialization"}, *runs, *events * p["runs"]]


def bound_profile(who: str) -> Any:
    """By another road: two threads of nodes, random numbers, bound in memory, and written out with spaces."""
    p, options = params("5.2", who), ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, p["level"])
    options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    options.inter_op_num_threads = 2
    with tempfile.TemporaryDirectory() as folder:
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder, "p"))
        session = ort.InferenceSession(given("5.2", who).SerializeToString(), options, providers=[CPU])
        x = np.random.default_rng(0).normal(size=(p["rows"], 3, 6, 6)).astype(np.float32)
        for _ in range(p["runs"]):
            bound = session.io_binding()
            bound.bind_cpu_input("x", x)
            bound.bind_output("y")
            session.run_with_iobinding(bound)
        return json.loads(json.dumps(json.loads(Path(session.end_profiling()).read_text()), indent=2, sort_keys=True))


def right_configuration(who: str) -> dict[str, Any]:
    p = params("5.3", who)
    zero = "1" if p["subnormals"] == "set to zero" else "0"
    return {
        "options": {
            "intra_op_num_threads": p["threads"],
            "graph_optimization_level": p["level"],
            "enable_cpu_mem_arena": False,
        },
        "config": {"session.intra_op.allow_spinning": "0", "session.set_denormal_as_zero": zero},
        "free_dimensions": {"rows": p["rows"]},
        "providers": [CPU],
    }


REAL = {
    "TensorRTExecutionProvider": "TensorrtExecutionProvider",
    "DirectMLExecutionProvider": "DmlExecutionProvider",
    "NNAPIExecutionProvider": "NnapiExecutionProvider",
    "OpenVinoExecutionProvider": "OpenVINOExecutionProvider",
    "CoreMlExecutionProvider": "CoreMLExecutionProvider",
}


def right_causes(who: str) -> dict[str, Any]:
    causes, name = {}, ""
    for letter, seen in params("5.4", who)["transcripts"].items():
        said = " ".join(seen["said"])
        if seen["asked for"][0] in REAL:
            causes[letter], name = "wrong name", REAL[seen["asked for"][0]]
        elif "Invalid preferred layout" in said:
            causes[letter] = "wrong option"
        elif said:
            causes[letter] = "missing provider"
        elif seen["get_providers()"] == [CPU]:
            causes[letter] = "plug-in by name"
        else:
            left = seen["record: nodes per provider"].get(CPU, 0)
            causes[letter] = "unsupported operators" if left else "nothing wrong"
    return {"causes": causes, "right_name": name}


def other_configuration(who: str) -> dict[str, Any]:
    """More than is asked for, numbers written with a point, defaults left out."""
    answer, p = right_configuration(who), params("5.3", who)
    answer["options"] |= {"intra_op_num_threads": float(p["threads"]), "inter_op_num_threads": 1}
    answer["options"] |= {"enable_mem_pattern": False, "use_deterministic_compute": True}
    answer["free_dimensions"]["rows"] = float(p["rows"])
    answer["config"] |= {"session.inter_op.allow_spinning": "0", "session.dynamic_block_base": "4"}
    if p["subnormals"] == "kept":
        del answer["config"]["session.set_denormal_as_zero"]
    return answer


def other_placement(who: str) -> dict[str, Any]:
    """Found the other way round: what the CPU is left with, then each provider takes over, the first one last."""
    nodes = list(given("5.1", who).graph.node)[::-1]
    where = dict.fromkeys((n.name for n in nodes), CPU)
    for name, takes in reversed(params("5.1", who)["providers"].items()):
        where |= {n.name: name for n in nodes if n.op_type in takes}
    crossings = sum(where[a.name] != where[b.name] for a in nodes for b in nodes for i in b.input if i == a.output[0])
    left = sum(provider == CPU for provider in where.values())
    return {"strict_error": left > 0, "crossings": float(crossings), "placement": where}


def other_causes(who: str) -> dict[str, Any]:
    """From the record first: who has nodes, and only then from what was said."""
    answer = {"right_name": "", "causes": {}}
    for letter, seen in params("5.4", who)["transcripts"].items():
        asked, nodes = seen["asked for"][0], seen["record: nodes per provider"]
        real = {name.lower(): name for name in ort.get_all_providers()} | {
            "directmlexecutionprovider": "DmlExecutionProvider"
        }
        if seen["get_providers()"][0] == asked:
            cause = "nothing wrong" if list(nodes) == [asked] else "unsupported operators"
        elif asked not in ort.get_all_providers():
            cause, answer["right_name"] = "wrong name", real[asked.lower()]
        else:
            quiet = "wrong option" if seen["by"] == "device" else "missing provider"
            cause = quiet if seen["said"] else "plug-in by name"
        answer["causes"] = {letter: cause, **answer["causes"]}
    return answer


STEPS = {
    "Softsign": "a = Abs x; b = Add a one; y = Div x b",
    "HardSwish": "a = Mul x sixth; b = Add a half; c = Min b one; d = Max c zero; y = Mul x d",
    "Mish": "a = Exp x; b = Add a one; c = Log b; d = Tanh c; y = Mul x d",
    "Gelu": "a = Mul x root; b = Erf a; c = Add b one; d = Mul x half; y = Mul c d",
    "Celu": "a = Exp x; b = Sub a one; c = Min b zero; d = Max x zero; y = Add c d",
}


def rewritten(who: str, steps: str = "", *, only: int | None = None) -> onnx.ModelProto:
    """The model of 5.5 with its awkward nodes replaced. only: just the one with this index."""
    model, awkward = given("5.5", who), params("5.5", who)["awkward"]
    constants = {
        "one": 1,
        "half": 0.5,
        "sixth": 1 / 6,
        "zero": 0,
        "root": 0.5**0.5,
        "two": 2,
        "three": 3,
        "six": 6,
        "minus": -1,
    }
    nodes, seen = [], -1
    for node in model.graph.node:
        seen += node.op_type == awkward
        if node.op_type != awkward or (only is not None and seen != only):
            nodes.append(node)
            continue
        names = {"x": node.input[0], "y": node.output[0]} | {name: name for name in constants}
        for step in (steps or STEPS[awkward]).split("; "):
            output, _, op, *inputs = step.split()
            names.setdefault(output, f"{node.name}_{output}")
            nodes.append(helper.make_node(op, [names[i] for i in inputs], [names[output]], names[output]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(np.float32(v), name) for name, v in constants.items())
    return model


# Other ways to say the same: constants in other places, sums in another order.
OTHER_STEPS = {
    "Softsign": "a = Add x x; b = Abs a; c = Add b two; y = Div a c",
    "HardSwish": "a = Add x three; b = Max a zero; c = Min b six; d = Mul c x; y = Mul sixth d",
    "Mish": "m = Mul x minus; a = Exp m; b = Add one a; c = Log b; d = Add c x; e = Tanh d; y = Mul e x",
    "Gelu": "h = Mul half x; a = Mul x root; b = Erf a; c = Mul h b; y = Add c h",
    "Celu": "a = Min zero x; b = Exp a; c = Max zero x; d = Add c b; y = Sub d one",
}
SLIPS = {
    "Softsign": [
        ("a = Abs x; b = Add a one; y = Div b x", "upside down"),
        ("a = Abs x; b = Add a one; y = Mul x b", "It is a product"),
        ("a = Abs x; y = Div x a", "The 1 is missing"),
        ("a = Abs x; b = Add a one; y = Div a b", "numerator has no absolute value"),
    ],
    "HardSwish": [
        ("a = Mul x half; b = Add a sixth; c = Min b one; d = Max c zero; y = Mul x d", "numbers are exchanged"),
        ("a = Mul x sixth; b = Add a half; c = Max b one; d = Min c zero; y = Mul x d", "Min and Max are exchanged"),
        ("a = Mul x sixth; c = Min a one; d = Max c zero; y = Mul x d", "The sum 1/2 is missing"),
        ("a = Mul x sixth; b = Add a half; c = Min b one; y = Mul x c", "0 is missing"),
    ],
    "Mish": [
        ("a = Exp x; c = Log a; d = Tanh c; y = Mul x d", "The 1 is missing"),
        ("m = Mul x minus; a = Exp m; b = Add a one; c = Log b; d = Tanh c; y = Mul x d", "The sign"),
        ("a = Exp x; b = Add a one; d = Tanh b; y = Mul x d", "The log is missing"),
        ("a = Exp x; b = Add a one; d = Tanh b; c = Log d; y = Mul x c", "wrong order"),
    ],
    "Gelu": [
        ("a = Mul x half; b = Erf a; c = Add b one; d = Mul x half; y = Mul c d", "divided by 2 inside"),
        ("a = Mul x root; b = Erf a; c = Add b half; y = Mul c x", "numbers are exchanged"),
        ("a = Mul x root; b = Erf a; m = Mul b minus; c = Add m one; d = Mul x half; y = Mul c d", "sign of erf"),
        ("a = Mul x root; b = Erf a; c = Add b one; y = Mul c half", "factor x is missing"),
    ],
    "Celu": [
        ("a = Exp x; b = Sub a one; c = Max b zero; d = Min x zero; y = Add c d", "Min and Max are exchanged"),
        ("a = Exp x; b = Sub a one; c = Min b zero; d = Max x zero; y = Sub d c", "subtracted: add"),
        ("a = Exp x; b = Sub one a; c = Min b zero; d = Max x zero; y = Add c d", "subtract 1 from e"),
        ("a = Exp x; b = Min a zero; d = Max x zero; y = Add b d", "not subtracted"),
    ],
}


def slip(number: int) -> tuple[Any, str]:
    """A wrong formula for Ada's operator, and its cause."""
    steps, cause = SLIPS[params("5.5")["awkward"]][number]
    return (lambda who: rewritten(who, steps)), cause


RIGHT = {
    "5.1": (right_placement, other_placement),
    "5.2": (some_profile, bound_profile),
    "5.3": (right_configuration, other_configuration),
    "5.4": (right_causes, other_causes),
    "5.5": (rewritten, lambda who: rewritten(who, OTHER_STEPS[params("5.5", who)["awkward"]])),
    **copied_models.RIGHT,
}


def with_part(right: Any, part: str, key: str, value: Any) -> Any:
    return lambda who: (answer := right(who)) | {part: answer[part] | {key: value}}


WRONG = {
    "5.1": {
        "all on the CPU": (
            lambda who: right_placement(who) | {"placement": dict.fromkeys(right_placement(who)["placement"], CPU)},
            r"[0-9] of 10 are right. .*the CPU gets only what is left",
        ),
        "the last provider wins": (
            lambda who: right_placement(who) | {"placement": right_placement(who)["placement"] | {with_both(who): "WideExecutionProvider"}},
            "9 of 10 are right. Where both providers take an operator",
        ),
        "x counted, too": (lambda who: right_placement(who) | {"crossings": slips(who)["made by no node"]}, "made by no node"),
        "the other answer about the error": (
            lambda who: right_placement(who) | {"strict_error": not right_placement(who)["strict_error"]},
            "is left for the CPU",
        ),
    },
    "5.2": {
        "typed by hand": (typed_profile, "has (op_name|output_size|output_type_shape|input_type_shape|parameter_size)"),
        "default level": (lambda who: some_profile(who, level="ORT_ENABLE_ALL"), "These are the nodes at ORT_ENABLE_ALL"),
        "one run more": (lambda who: some_profile(who, runs=params("5.2", who)["runs"] + 1), "also a first try"),
        "other rows": (lambda who: some_profile(who, rows=11), "first dimension was 11"),
        "one event doubled": (lambda who: [*(events := some_profile(who)), next(e for e in events if e["cat"] == "Node")], "ran . times in"),
    },
    "5.3": {
        "threads between nodes": (
            lambda who: with_part(right_configuration, "options", "inter_op_num_threads", params("5.3", who)["threads"])(who)
            | {"options": {"inter_op_num_threads": params("5.3", who)["threads"], "graph_optimization_level": params("5.3", who)["level"]}},
            "something else",
        ),
        "a word for a number": (with_part(right_configuration, "config", "session.intra_op.allow_spinning", "false"), "No other word counts"),
        "text for a block": (with_part(right_configuration, "config", "session.dynamic_block_base", "four"), "a number is expected"),
        "threads spin": (with_part(right_configuration, "config", "session.intra_op.allow_spinning", "1"), "busy loop"),
        "the arena stays": (with_part(right_configuration, "options", "enable_cpu_mem_arena", True), "as it is by default"),
        "another level": (with_part(right_configuration, "options", "graph_optimization_level", "ORT_DISABLE_ALL"), "these nodes run"),
        "another name of the dimension": (
            lambda who: right_configuration(who) | {"free_dimensions": {"batch": 3}},
            "that name is the key in free_dimensions",
        ),
    },
    "5.4": {
        "all the same": (
            lambda who: right_causes(who) | {"causes": dict.fromkeys("ABCDEFG", "missing provider")},
            "1 of 7 are right. In one that you call 'missing provider'",
        ),
        "what is not said is right": (
            lambda who: {"causes": {k: "nothing wrong" if v == "unsupported operators" else v
                                    for k, v in right_causes(who)["causes"].items()}, "right_name": right_causes(who)["right_name"]},
            "5 of 7 are right.*the CPU has nodes in the record",
        ),
        "a plug-in that is silent is missing": (
            lambda who: right_causes(who) | {"causes": {k: "missing provider" if v == "plug-in by name" else v
                                                        for k, v in right_causes(who)["causes"].items()}},
            "6 of 7 are right.*chosen by its device",
        ),
        "the name as it was written": (
            lambda who: right_causes(who)
            | {"right_name": next(k for k, v in REAL.items() if v == right_causes(who)["right_name"])},
            "is no provider that ONNX Runtime knows",
        ),
    },
    "5.5": {
        "first slip": slip(0),
        "second slip": slip(1),
        "third slip": slip(2),
        "fourth slip": slip(3),
        "one left": (lambda who: rewritten(who, only=0), "still there: activate_2"),
        "another seed": (lambda who: rewritten("grace"), "Compare each new piece"),
    },
    **copied_models.WRONG,
}  # fmt: skip


def connections(who: str) -> list[tuple[str, str]]:
    nodes = given("5.1", who).graph.node
    return [(a.name, b.name) for a in nodes for b in nodes for name in b.input if name == a.output[0]]


def inside(who: str) -> int:
    where = right_placement(who)["placement"]
    return sum(where[a] == where[b] for a, b in connections(who))


def test_tasks_are_complete_and_personal() -> None:
    assert list(tasks_of(5)) == [f"5.{n}" for n in range(1, 8)]
    for task_id in tasks_of(5):
        assert len({str(params(task_id, who)) for who in STUDENTS}) > 1
        assert params(task_id) == params(task_id)


@pytest.mark.parametrize("task_id", ["5.1", "5.3", "5.4", "5.6"])
@pytest.mark.parametrize("value", [None, [], 3, "13", {}, {"opset": 13}, math.nan])
def test_json_answer_of_another_shape(task_id: str, value: Any) -> None:
    assert "exactly those keys" in failed(task_id, value)


@pytest.mark.parametrize("value", [[], "x", ["nothing"], [1], None])
def test_copies_that_are_no_lists_of_tensors(value: Any) -> None:
    """An empty list, too: how many there are is told to those alone who have tried."""
    (data, *_) = given_files("5.6").values()
    name = onnx.ModelProto.FromString(data).graph.node[0].output[0]
    answer = {"on_cpu": 1, "islands": 1, "to_host": [name], "from_host": [name]}
    for key in ("to_host", "from_host"):
        hint = failed("5.6", answer | {key: value})
        assert (
            hint
            == "They are lists of text: the names of tensors that a node of your model makes or reads, without weights."
        )


# 5.1


def with_both(who: str) -> str:
    """A node whose operator both providers take."""
    fast, wide = params("5.1", who)["providers"].values()
    return next(n.name for n in given("5.1", who).graph.node if n.op_type in set(fast) & set(wide))


def test_every_student_has_a_node_that_both_providers_take() -> None:
    assert all(with_both(who) for who in STUDENTS)


def test_both_outcomes_of_the_strict_question_occur() -> None:
    assert {right_placement(str(i))["strict_error"] for i in range(20)} == {True, False}


def test_placement_names_the_mistake() -> None:
    right = right_placement("ada")
    node = with_both("ada")
    placed = right["placement"]

    def moved(name: str, provider: Any) -> str:
        return failed("5.1", {**right, "placement": {**placed, name: provider}})

    assert "the first one in the list gets it" in moved(node, "WideExecutionProvider")
    assert "the CPU gets only what is left" in moved(node, CPU)
    assert "is none of the providers" in moved(node, "CudaExecutionProvider")
    assert "is none of the providers" in moved(node, ["FastExecutionProvider"])
    assert not any(name in moved(name, CPU) for name in placed if placed[name] != CPU), "which one is not said"
    only_wide = next(name for name, provider in placed.items() if provider == "WideExecutionProvider")
    assert "does not take" in moved(only_wide, "FastExecutionProvider")
    assert "the name of each node" in failed("5.1", {**right, "placement": {node: CPU}})
    assert "the name of each node" in failed("5.1", {**right, "placement": list(placed)})


def with_crossings(number: Any, who: str) -> str:
    return failed("5.1", {**right_placement(who), "crossings": number}, who)


def slips(who: str) -> dict[str, int]:
    where = right_placement(who)["placement"]
    apart = [(a, b) for a, b in connections(who) if where[a] != where[b]]
    return {
        "inside of one provider": inside(who),
        "reads a tensor twice": len(set(apart)),
        "the next one in the list": sum(a != b for a, b in itertools.pairwise(where.values())),
        "made by no node": len(apart) + sum("x" in n.input for n in given("5.1", who).graph.node),
        "with two different providers": 99,
    }


@pytest.mark.parametrize("slip", slips("ada"))
def test_crossings_name_the_mistake(slip: str) -> None:
    """Of a student with whom this slip gives a number of its own."""
    who = next(
        w
        for w in map(str, range(99))
        if [*slips(w).values(), right_placement(w)["crossings"]].count(slips(w)[slip]) == 1
    )
    assert slip in with_crossings(slips(who)[slip], who)


def test_crossings_that_are_no_number_or_counted_over_a_wrong_placement() -> None:
    for odd in (math.nan, "5", True, 2.5, None):
        assert "not a whole number" in with_crossings(odd, "ada")
    right = right_placement("ada")
    for crossings in range(30):
        found = criteria("5.1", {**right, "placement": dict.fromkeys(right["placement"], CPU), "crossings": crossings})
        assert not any("crossings counts" in c.what for c in found), "so it cannot be found by trying"


@pytest.mark.parametrize("who", STUDENTS)
def test_strict_error_names_the_mistake(who: str) -> None:
    right = right_placement(who)
    hints = failed("5.1", {**right, "strict_error": not right["strict_error"]}, who)
    assert ("A node is left for the CPU" in hints) is right["strict_error"]
    assert "without quotes" in failed("5.1", {**right, "strict_error": "true"}, who)


# 5.2


@pytest.mark.parametrize("value", [None, [], {}, 3, [1, 2], [{}], [{"cat": "Node", "name": "x_kernel_time"}]])
def test_profile_of_another_shape(value: Any) -> None:
    assert "session_initialization" in failed("5.2", value)


def test_profile_names_the_mistake(tmp_path: Path) -> None:
    p = params("5.2")
    assert "before the profile was ended" in failed("5.2", profile(tmp_path, early=True))
    assert "These are the nodes at ORT_ENABLE_ALL" in failed("5.2", profile(tmp_path, level="ORT_ENABLE_ALL"))
    assert "events model_run" in failed("5.2", profile(tmp_path, runs=p["runs"] + 1))
    assert "first dimension was 11" in failed("5.2", profile(tmp_path, rows=11))
    assert "that was handed out to you" in failed("5.2", profile(tmp_path, model=given("5.2", "grace")))


def test_other_basic_level(tmp_path: Path) -> None:
    other = {"ORT_DISABLE_ALL": "ORT_ENABLE_BASIC", "ORT_ENABLE_BASIC": "ORT_DISABLE_ALL"}[params("5.2")["level"]]
    assert f"nodes at {other}" in failed("5.2", profile(tmp_path, level=other))


def test_runs_of_two_sizes() -> None:
    model, options, p = given("5.2"), ort.SessionOptions(), params("5.2")
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, p["level"])
    with tempfile.TemporaryDirectory() as folder:
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder, "p"))
        session = ort.InferenceSession(model.SerializeToString(), options, providers=[CPU])
        for index in range(p["runs"]):
            session.run(None, {"x": np.zeros((p["rows"] + index % 2, 3, 6, 6), np.float32)})
        events = json.loads(Path(session.end_profiling()).read_text())
    assert "Its first dimension was" in failed("5.2", events)


def test_one_run_less_or_events_at_another_time(tmp_path: Path) -> None:
    assert "events model_run" in failed("5.2", profile(tmp_path, runs=params("5.2")["runs"] - 1))
    for change in ({"ts": 10**9}, {"dur": 10**9}, {"ts": 0, "dur": 1}):
        events = profile(tmp_path)
        next(e for e in events if e["cat"] == "Node").update(change)
        assert "outside of each model_run" in failed("5.2", events), change


def test_damaged_events_do_not_break_the_check(tmp_path: Path) -> None:
    events = profile(tmp_path)
    for event in events:
        if event["cat"] == "Node":
            event["args"] = {"input_type_shape": [3], "provider": ["odd"]}
    hints = failed("5.2", events)
    assert "has op_name None, a run has 'Conv'" in hints


# 5.3


def changed(part: str, key: str, value: Any, who: str = "ada") -> dict[str, Any]:
    answer = copy.deepcopy(right_configuration(who))
    answer[part][key] = value
    return answer


def without(part: str, key: str) -> dict[str, Any]:
    answer = copy.deepcopy(right_configuration("ada"))
    del answer[part][key]
    return answer


def test_configuration_names_the_mistake() -> None:
    assert "one per core" in failed("5.3", without("options", "intra_op_num_threads"))
    threads = params("5.3")["threads"]
    other = without("options", "intra_op_num_threads")
    other["options"] |= {"inter_op_num_threads": threads, "intra_op_num_threads": 1}
    assert "something else: the nodes that run at the same time" in failed("5.3", other)
    del other["options"]["intra_op_num_threads"]
    assert "something else: the nodes that run at the same time" in failed("5.3", other)
    assert "busy loop" in failed("5.3", without("config", "session.intra_op.allow_spinning"))
    assert "enable_cpu_mem_arena is on" in failed("5.3", without("options", "enable_cpu_mem_arena"))
    assert "The dimension is named 'rows'" in failed("5.3", without("free_dimensions", "rows"))
    assert "Your number of rows is" in failed("5.3", changed("free_dimensions", "rows", 999))
    assert "these nodes run" in failed("5.3", without("options", "graph_optimization_level"))
    assert "exactly ['CPUExecutionProvider']" in failed("5.3", {**right_configuration("ada"), "providers": []})


def test_subnormals_both_ways() -> None:
    key = "session.set_denormal_as_zero"
    kept = next(w for w in map(str, range(40)) if params("5.3", w)["subnormals"] == "kept")
    zero = next(w for w in map(str, range(40)) if params("5.3", w)["subnormals"] != "kept")
    assert "yours shall be kept" in failed("5.3", changed("config", key, "1", kept), kept)
    assert "must be '1'" in failed("5.3", changed("config", key, "0", zero), zero)


def test_misspelled_key_is_named_with_the_right_one() -> None:
    answer = without("config", "session.intra_op.allow_spinning")
    answer["config"]["session.intra_op.allow_spining"] = "0"
    assert "Did you mean 'session.intra_op.allow_spinning'?" in failed("5.3", answer)


def test_contradicting_options_give_onnx_runtimes_own_words() -> None:
    hints = failed("5.3", changed("config", "session.disable_cpu_ep_fallback", "1"))
    assert "explicitly added the CPU EP" in hints


@pytest.mark.parametrize(
    ("part", "key", "value", "hint"),
    [
        ("options", "enable_profiling", True, "these are allowed"),
        ("options", "optimized_model_filepath", "stolen.onnx", "these are allowed"),
        ("options", "register_custom_ops_library", "evil.so", "these are allowed"),
        ("options", "intra_op_num_threads", 10**9, "They are"),
        ("options", "intra_op_num_threads", 65, "They are"),
        ("options", "intra_op_num_threads", -1, "They are"),
        ("options", "intra_op_num_threads", "2", "They are"),
        ("options", "intra_op_num_threads", True, "They are"),
        ("options", "graph_optimization_level", 99, "as text"),
        ("options", "graph_optimization_level", ["ORT_ENABLE_ALL"], "as text"),
        ("options", "enable_cpu_mem_arena", "false", "without quotes"),
        ("config", "session.intra_op.allow_spinning", 0, "wants text"),
        ("config", "session.intra_op_thread_affinities", "1;2", "accept and ignore"),
        ("config", "session.dynamic_block_base", "10000", "a number is expected"),
        ("config", "session.dynamic_block_base", "-4", "a number is expected"),
        ("config", "session.intra_op.allow_spinning", "4", "No other word counts"),
        ("free_dimensions", "rows", 0, "whole number"),
        ("free_dimensions", "rows", 1001, "whole number"),
        ("free_dimensions", "rows", -1, "whole number"),
        ("free_dimensions", "rows", 10**12, "whole number"),
        ("free_dimensions", "rows", math.nan, "whole number"),
    ],
)
def test_absurd_configuration(part: str, key: str, value: Any, hint: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert hint in failed("5.3", changed(part, key, value))
    assert list(tmp_path.iterdir()) == [], "the check writes nothing"


@pytest.mark.parametrize("part", ["options", "config", "free_dimensions", "providers"])
def test_part_of_another_kind(part: str) -> None:
    assert "dicts" in " ".join(c.what for c in criteria("5.3", {**right_configuration("ada"), part: 3}) if not c.passed)


# 5.4


@pytest.mark.parametrize("who", STUDENTS)
def test_every_cause_occurs_and_each_wrong_one_is_explained(who: str) -> None:
    right = right_causes(who)
    assert len(set(right["causes"].values())) == 6
    signs = {
        "wrong name": "no package has a provider of this name",
        "wrong option": "an option is invalid",
        "plug-in by name": "chosen by its device",
        "missing provider": "the installed package lacks it",
        "unsupported operators": "the CPU has nodes in the record",
        "nothing wrong": "asked for first",
    }
    for letter, cause in right["causes"].items():
        other = next(c for c in signs if c != cause)
        hints = failed("5.4", {**right, "causes": {**right["causes"], letter: other}}, who)
        assert hints.startswith(f"6 of 7 are right. In one that you call {other!r}, ")
        assert signs[cause] in hints


def test_causes_of_another_shape() -> None:
    right = right_causes("ada")
    assert "the causes are" in failed("5.4", {**right, "causes": {"A": "wrong name"}})
    assert "the causes are" in failed("5.4", {**right, "causes": {**right["causes"], "A": ["wrong name"]}})
    assert "the causes are" in failed("5.4", {**right, "causes": {**right["causes"], "A": "bad luck"}})
    assert "no provider that ONNX Runtime knows" in failed("5.4", {**right, "right_name": "DirectML"})
    assert "another provider" in failed("5.4", {**right, "right_name": CPU})
    assert "no provider" in failed("5.4", {**right, "right_name": None})


# 5.5


def student_with(awkward: str) -> str:
    return next(w for w in map(str, range(200)) if params("5.5", w)["awkward"] == awkward)


@pytest.mark.parametrize("awkward", STEPS)
def test_every_awkward_operator_can_be_replaced(awkward: str) -> None:
    who = student_with(awkward)
    assert [c for c in criteria("5.5", rewritten(who), who) if not c.passed] == []


WRONG_STEPS = [
    ("Softsign", "a = Add x one; y = Div x a", ""),  # divides by zero somewhere: any hint will do
    ("HardSwish", "a = Mul x sixth; b = Add a half; y = Mul x b", "bounds 0 and 1 are missing"),
    ("HardSwish", "a = Mul x sixth; b = Add a half; c = Min b one; y = Max c zero", "factor x is missing"),
    ("HardSwish", "a = Mul x sixth; b = Add a half; c = Max b zero; y = Mul x c", "1 is missing"),
    ("Mish", "a = Exp x; b = Add a one; c = Log b; y = Tanh c", "factor x is missing"),
    ("Mish", "a = Exp x; b = Add a one; c = Log b; y = Mul x c", "tanh is missing"),
    ("Gelu", "a = Mul x root; b = Erf a; c = Add b one; y = Mul c x", "factor 0.5 is missing"),
    ("Gelu", "b = Erf x; c = Add b one; d = Mul x half; y = Mul c d", "square root of 2 is missing"),
    ("Gelu", "a = Mul x root; b = Erf a; d = Mul x half; y = Mul b d", "The 1 is missing"),
    ("Celu", "a = Exp x; b = Sub a one; y = Min b zero", "positive part is missing"),
    ("Celu", "y = Max x zero", "negative part is missing"),
]


@pytest.mark.parametrize(("awkward", "steps", "hint"), WRONG_STEPS)
def test_wrong_formula_is_named(awkward: str, steps: str, hint: str) -> None:
    who = student_with(awkward)
    assert hint in failed("5.5", rewritten(who, steps), who)


def test_numbers_that_are_only_near() -> None:
    who = student_with("HardSwish")
    model = rewritten(who)
    next(t for t in model.graph.initializer if t.name == "sixth").CopyFrom(
        numpy_helper.from_array(np.float32(0.167), "sixth")
    )
    assert "largest difference" in failed("5.5", model, who)


def test_a_slip_in_one_of_both() -> None:
    who = student_with("Softsign")
    right, wrong = rewritten(who), rewritten(who, "a = Abs x; y = Div x a", only=1)
    first = [n for n in right.graph.node if n.name.startswith("activate_1") or n.output[0] == "a1"]
    at = next(i for i, n in enumerate(wrong.graph.node) if n.name == "activate_1")
    nodes = [*wrong.graph.node[:at], *first, *wrong.graph.node[at + 1 :]]
    del wrong.graph.node[:]
    wrong.graph.node.extend(nodes)
    assert "In the second of both: The 1 is missing" in failed("5.5", wrong, who)


@pytest.mark.parametrize("who", STUDENTS)
def test_one_awkward_node_left(who: str) -> None:
    assert "still there: activate_2" in failed("5.5", rewritten(who, only=0), who)
    assert "still there: activate_1, activate_2" in failed("5.5", given("5.5", who), who)


def test_operator_that_the_provider_does_not_take() -> None:
    who = student_with("Softsign")
    hints = failed("5.5", rewritten(who, "a = Abs x; b = Add a one; c = Reciprocal b; y = Mul x c"), who)
    assert "does not take" in hints
    assert "Reciprocal" in hints


def test_function_does_not_hide_the_node() -> None:
    who = student_with("Softsign")
    model = given("5.5", who)
    body = [helper.make_node("Softsign", ["a"], ["b"])]
    model.functions.append(helper.make_function("own", "Add", ["a"], ["b"], body, [helper.make_opsetid("", 20)]))
    model.opset_import.append(helper.make_opsetid("own", 1))
    for node in model.graph.node:
        if node.op_type == "Softsign":
            node.op_type, node.domain = "Add", "own"
    assert "A function hides its nodes" in failed("5.5", model, who)


def test_empty_model() -> None:
    failed("5.5", onnx.ModelProto(ir_version=8))
