"""The checks of exercise 05: right answers pass, and each likely mistake gets a hint that names it."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from answers import STUDENTS, accepted, criteria, failed, given, params
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
        elif "Invalid EP option" in said:
            causes[letter] = "unknown option"
        elif said:
            causes[letter] = "missing provider"
        else:
            left = seen["record: nodes per provider"].get(CPU, 0)
            causes[letter] = "unsupported operators" if left else "nothing wrong"
    return {"causes": causes, "right_name": name}


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
    constants = {"one": 1, "half": 0.5, "sixth": 1 / 6, "zero": 0, "root": 0.5**0.5}
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


RIGHT = {
    "5.1": right_placement,
    "5.3": right_configuration,
    "5.4": right_causes,
    "5.5": rewritten,
}


@pytest.mark.parametrize("who", STUDENTS)
@pytest.mark.parametrize("task_id", RIGHT)
def test_right_answer_passes(task_id: str, who: str) -> None:
    accepted(task_id, RIGHT[task_id](who), who)


@pytest.mark.parametrize("who", STUDENTS)
def test_right_profile_passes(who: str, tmp_path: Path) -> None:
    assert [c for c in criteria("5.2", profile(tmp_path, who), who) if not c.passed] == []


def test_tasks_are_complete_and_personal() -> None:
    assert list(tasks_of(5)) == ["5.1", "5.2", "5.3", "5.4", "5.5"]
    for task_id in tasks_of(5):
        assert len({str(params(task_id, who)) for who in STUDENTS}) > 1
        assert params(task_id) == params(task_id)


@pytest.mark.parametrize("task_id", ["5.1", "5.3", "5.4"])
@pytest.mark.parametrize("value", [None, [], 3, "13", {}, {"opset": 13}, math.nan])
def test_json_answer_of_another_shape(task_id: str, value: Any) -> None:
    assert "exactly those keys" in failed(task_id, value)


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
    assert "the providers are" in moved(node, "CudaExecutionProvider")
    assert "the providers are" in moved(node, ["FastExecutionProvider"])
    only_wide = next(name for name, provider in placed.items() if provider == "WideExecutionProvider")
    assert "does not take" in moved(only_wide, "FastExecutionProvider")
    assert "the name of each node" in failed("5.1", {**right, "placement": {node: CPU}})
    assert "the name of each node" in failed("5.1", {**right, "placement": list(placed)})


def test_crossings_name_the_mistake() -> None:
    right = right_placement("ada")
    assert "made by no node" in failed("5.1", {**right, "crossings": right["crossings"] + 1})
    for odd in (math.nan, "5", True, 2.0):
        assert "not a whole number" in failed("5.1", {**right, "crossings": odd})
    all_cpu = dict.fromkeys(right["placement"], CPU)
    assert "It fits your placement" in failed("5.1", {**right, "placement": all_cpu, "crossings": 0})


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


def test_damaged_events_do_not_break_the_check(tmp_path: Path) -> None:
    events = profile(tmp_path)
    for event in events:
        if event["cat"] == "Node":
            event["args"] = {"input_type_shape": [3], "provider": ["odd"]}
    hints = failed("5.2", events)
    assert "Some ran on ['odd']" in hints
    assert "None" in hints


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
    assert "Your number is" in failed("5.3", changed("free_dimensions", "rows", 999))
    assert "these nodes ran" in failed("5.3", without("options", "graph_optimization_level"))
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
        ("options", "intra_op_num_threads", "2", "They are"),
        ("options", "intra_op_num_threads", True, "They are"),
        ("options", "graph_optimization_level", 99, "as text"),
        ("options", "graph_optimization_level", ["ORT_ENABLE_ALL"], "as text"),
        ("options", "enable_cpu_mem_arena", "false", "without quotes"),
        ("config", "session.intra_op.allow_spinning", 0, "wants text"),
        ("config", "session.intra_op_thread_affinities", "1;2", "accept and ignore"),
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
    assert len(set(right["causes"].values())) == 5
    signs = {
        "wrong name": "no package has a provider of this name",
        "unknown option": "an option is invalid",
        "missing provider": "the installed package lacks it",
        "unsupported operators": "who has the nodes?",
        "nothing wrong": "asked for first",
    }
    for letter, cause in right["causes"].items():
        other = next(c for c in signs if c != cause)
        assert signs[cause] in failed("5.4", {**right, "causes": {**right["causes"], letter: other}}, who)


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
