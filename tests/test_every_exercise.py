"""What holds for all tasks alike: points come from a student's own work, other roads lead there, mistakes are named.

Each `test_exercise_NN` has `RIGHT`, at least two ways to each right answer, and `WRONG`, at least three mistakes with what the
hints must say of them.
"""

from __future__ import annotations

import copy
import functools
import importlib
import re
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import onnx
import pytest
from answers import STUDENTS, criteria, given_files, hints, nearly

from course_utils import exercises
from course_utils.errors import CourseError
from course_utils.exercises import Criterion, Task, task
from course_utils.exercises.examine import every_node
from course_utils.handin.assessing import assess, assessed, read
from course_utils.handin.points import task_points
from course_utils.running import OutOfTimeError

TASKS = [id for chapter in exercises.chapters() for id in exercises.tasks_of(chapter)]
ONNX = [id for id in TASKS if task(id).kind == "onnx"]
JSON = [id for id in TASKS if task(id).kind == "json"]


def answers_to(id: str) -> Any:
    return importlib.import_module(f"test_exercise_{int(id.split('.', maxsplit=1)[0]):02}")


def points(id: str, value: Any, who: str) -> tuple[int, int]:
    return task_points(task(id), criteria(id, value, who))


def students(id: str) -> list[str]:
    few = {"7.7", "10.4", "11.1", "11.2", "11.3", "11.4"}  # files of 23 MB, an exam of 1 500 photographs, files of 4 MB
    return STUDENTS[:2] if id in few else STUDENTS


def roads(id: str) -> tuple[Callable[[str], Any], ...]:
    return answers_to(id).RIGHT[id]


@functools.cache
def _made_once(id: str, who: str) -> Any:
    return roads(id)[0](who)


def right_answer(id: str, who: str = "ada") -> Any:
    """The first road's answer, to be changed at will. Ten tests take it, and some are exported or quantized."""
    return copy.deepcopy(_made_once(id, who))


@pytest.mark.parametrize("id", TASKS)
def test_every_road_earns_all_points(id):
    assert len(roads(id)) >= 2, "one right answer is not enough to know that others pass"
    for who in students(id):
        for road in roads(id):
            found = criteria(id, right_answer(id, who) if road is roads(id)[0] else road(who), who)
            assert [c for c in found if not c.passed] == [], road
            assert task_points(task(id), found) == (task(id).points, task(id).points), road


# Their checks look at the rest all the same: it does not depend on what is wrong.
LOOKS_ON = {
    "1.1", "1.3", "1.4", "1.5", "2.4", "2.5", "3.5", "4.1", "4.2", "4.3", "4.4", "5.3", "7.3", "8.6", "9.3", "9.7", "9.8", "9.13",
    "10.3",
}  # fmt: skip


def stops(id: str, found: list[Criterion]) -> bool:
    """Whether a check examines nothing behind a condition that is not met. Names of inputs and of outputs are told together."""
    at = next((n for n, c in enumerate(found) if c.condition and not c.passed), len(found))
    return id in LOOKS_ON or all(c.what.startswith("the outputs are") for c in found[at + 1 :])


@pytest.mark.parametrize("id", TASKS)
def test_every_mistake_is_refused_with_its_cause(id):
    mistakes = answers_to(id).WRONG[id]
    assert len(mistakes) >= 3
    for name, (make, cause) in mistakes.items():
        found = criteria(id, make("ada"), "ada")
        assert not all(c.passed for c in found), f"{name}: accepted"
        assert re.search(cause, hints(found)), f"{name}: {hints(found)}"
        assert stops(id, found), f"{name}: {[c.what for c in found]}"
        reached, of = task_points(task(id), found)
        assert reached < of == task(id).points, name


@pytest.mark.parametrize("id", TASKS)
def test_what_was_handed_out_earns_nothing(id):
    """Every file that a task gives, handed back as it is."""
    for who in students(id):
        for name, data in given_files(id, who).items():
            try:
                value = read(task(id), data, name)
            except CourseError:
                continue  # no model, or no JSON: it is not even checked
            assert points(id, value, who)[0] == 0, name


# Files that are damaged, or too new, on purpose.
ILL = ["1.3", "1.4", "1.5", "2.4", "2.5", "9.2", "9.3", "9.4", "9.5", "9.10"]


@pytest.mark.parametrize("id", [id for id in TASKS if id not in ILL])
def test_what_was_handed_out_is_sound(id):
    for name, data in given_files(id, "ada").items():
        if name.endswith(".onnx"):
            onnx.checker.check_model(onnx.load_from_string(data), full_check=True)


# Where the sizes are no part of the task, or wrong on purpose.
FIXED = {
    "2.2.onnx", "3.4.onnx", "5.6.onnx", "5.7.onnx", "6.1.onnx", "6.2.onnx", *(f"6.3_{case}.onnx" for case in "abcde"), "6.4_before.onnx",
    "6.4_after.onnx", "9.1.onnx", "9.12.onnx",
}  # fmt: skip


@pytest.mark.parametrize("id", [id for id in TASKS if id not in ILL])
def test_what_was_handed_out_takes_any_batch(id):
    for name, data in given_files(id, "ada").items():
        if name.endswith(".onnx"):
            graph = onnx.load_from_string(data).graph
            first = [v.type.tensor_type.shape.dim[0] for v in (*graph.input, *graph.output)]
            assert all(dim.dim_param for dim in first) == (name not in FIXED), name


@pytest.mark.parametrize("id", [id for id in TASKS if id not in {"1.2", *ILL}])
def test_what_was_handed_out_stores_nothing_that_is_not_read(id):
    """It could tell of the answer. In 1.2 such tensors are counted."""
    for name, data in given_files(id, "ada").items():
        if name.endswith(".onnx"):
            model = onnx.load_from_string(data)
            read = {name for node in every_node(model) for name in node.input} | {o.name for o in model.graph.output}
            assert {t.name for t in model.graph.initializer} <= read, name


def _hollow(value: Any, fill: Any) -> Any:
    return {key: fill for key in value} if isinstance(value, dict) else fill


@pytest.mark.parametrize("id", JSON)
@pytest.mark.parametrize("fill", [None, "", 0, [], {}, False], ids=repr)
def test_empty_keys_earn_nothing(id, fill):
    right = right_answer(id)
    nested = {k: _hollow(v, fill) for k, v in right.items()} if isinstance(right, dict) else fill
    for value in (fill, {}, _hollow(right, fill), nested):
        assert points(id, value, "ada")[0] == 0, value


TOLD_TOGETHER = {"7.1", "7.6", "8.4"}  # what is odd about each key
ODD = (None, "", 7, -1.5, True, "a text", [], [1, "2", None], [[]], {}, {"a": 1})


@pytest.mark.parametrize("id", JSON)
def test_odd_values_get_a_hint(id):
    """No check stumbles over the kind of a value: it says what is wanted."""
    right = right_answer(id)
    keys = list(right) if isinstance(right, dict) else []
    for odd in ODD:
        for value in (odd, _hollow(right, odd), *({**right, key: odd} for key in keys if right[key] != odd)):
            found = criteria(id, value)
            assert "the answer can be examined" not in [c.what for c in found], (value, hints(found))
            assert not all(c.passed for c in found), value
            assert stops(id, found) or id in TOLD_TOGETHER, value


def _places(value: Any) -> list[tuple[Any, str | int]]:
    """(dict or list, key or index) of every number and text in an answer."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, v in items for place in (_places(v) if isinstance(v, dict | list) else [(value, key)])]


# A profile, as ONNX Runtime writes it: most of what is in it the task does not ask for.
WRITTEN_BY_THE_RUNTIME = "5.2"


@pytest.mark.parametrize("id", [id for id in JSON if id != WRITTEN_BY_THE_RUNTIME])
def test_one_value_that_is_missing_is_a_mistake(id):
    """null in the place of any one value: it is not taken for zero."""
    right = right_answer(id)
    for holder, key in _places(right):
        value, holder[key] = holder[key], None
        found = criteria(id, right)
        assert "the answer can be examined" not in [c.what for c in found], (key, hints(found))
        assert all(c.passed for c in found) == (value is None), (key, value)
        holder[key] = value


@pytest.mark.parametrize("id", ONNX)
def test_an_empty_model_earns_nothing(id):
    """Nodes that pass on what they get, with the names and types that the right answer has."""
    right = right_answer(id)
    model = onnx.ModelProto()
    model.CopyFrom(right)
    del model.graph.node[:], model.graph.initializer[:], model.functions[:]
    name = model.graph.input[0].name
    model.graph.node.extend(onnx.helper.make_node("Identity", [name], [o.name]) for o in model.graph.output)
    assert points(id, model, "ada")[0] == 0


@pytest.mark.parametrize("id", ONNX)
def test_what_the_checker_refuses_earns_nothing(id):
    """A graph without a name runs in ONNX Runtime all the same. Nothing is looked at after that."""
    model = right_answer(id)
    model.graph.name = ""
    last = criteria(id, model)[-1]
    assert (last.what, last.passed, last.condition) == ("onnx.checker accepts the model", False, True)


# Other conditions come first in these: the nodes are the given ones, or constants are initializers.
NOT_LOADED = ["2.4", "2.5", "5.7", "6.1", "9.13"]


@pytest.mark.parametrize("id", ONNX)
def test_what_the_runtime_refuses_gets_its_words(id):
    """The checker accepts Cosh of float64, and ONNX Runtime has no kernel for it."""
    model = right_answer(id)
    number = onnx.numpy_helper.from_array(np.zeros(1), "odd")
    model.graph.node.append(onnx.helper.make_node("Constant", [], ["odd"], "odd", value=number))
    model.graph.node.append(onnx.helper.make_node("Cosh", ["odd"], ["odder"], "odder"))
    found = criteria(id, model)
    assert "the answer can be examined" not in [c.what for c in found], hints(found)
    assert task_points(task(id), found)[0] == 0
    assert stops(id, found)
    assert ("Could not find an implementation for Cosh" in hints(found)) == (id not in NOT_LOADED)


@pytest.mark.parametrize("id", ONNX)
def test_a_constant_that_is_no_tensor(id):
    """A Constant may hold its number in value_float: the tensor that others have is empty there."""
    model = right_answer(id)
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["one"], "one", value_float=1.0))
    found = criteria(id, model)
    assert "the answer can be examined" not in [c.what for c in found], hints(found)


@pytest.mark.parametrize("id", [id for id in ONNX if id != "6.2"])  # there it is one of the faults to be found
def test_an_output_too_many_earns_nothing(id):
    model = right_answer(id)
    first = model.graph.output[0]
    model.graph.node.append(onnx.helper.make_node("Identity", [first.name], ["too_many"], "too_many"))
    model.graph.output.add().CopyFrom(first)
    model.graph.output[-1].name = "too_many"
    found = criteria(id, model)
    assert task_points(task(id), found)[0] == 0
    assert stops(id, found)


def _renamed(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Rename a tensor, in the graphs inside nodes, too."""
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]
        for a in node.attribute:
            if a.HasField("g"):
                _renamed(a.g, old, new)
    for value in (*graph.input, *graph.output):
        if value.name == old:
            value.name = new


# In these an output, or an input too, may have any name.
ANY_NAME = {"1.6": ("input", "output"), "3.1": ("output",), "3.2": ("output",), "3.3": ("output",)}


@pytest.mark.parametrize("end", ["input", "output"])
@pytest.mark.parametrize("id", ONNX)
def test_another_name_than_the_task_asks_for(id, end):
    """It is a condition, and the hint says which names there are."""
    model = right_answer(id)
    stored = {t.name for t in model.graph.initializer}
    old = next(v.name for v in getattr(model.graph, end) if v.name not in stored)
    _renamed(model.graph, old, "another")
    if end in ANY_NAME.get(id, ()):
        assert points(id, model, "ada") == (task(id).points, task(id).points)
    else:
        found = criteria(id, model)
        assert task_points(task(id), found)[0] == 0
        assert re.search("(They|Its inputs) are |Unknown: another", hints(found))
        assert stops(id, found)


@pytest.mark.parametrize("id", ONNX)
def test_the_standard_domain_by_its_other_name(id):
    """`ai.onnx` is the standard domain as well, and some exporters write it."""
    model = onnx.ModelProto()
    model.CopyFrom(roads(id)[0]("ada"))
    for opset in model.opset_import:
        opset.domain = opset.domain or "ai.onnx"
    assert points(id, model, "ada") == (task(id).points, task(id).points)


# Their answers must have the inputs of the given model, or be optimised, or quantized, which takes constants.
NO_MORE_INPUTS = ["2.4", "2.5", "6.2", "6.5", "9.9", "9.11"]


@pytest.mark.parametrize("id", [id for id in ONNX if id not in NO_MORE_INPUTS])
def test_weights_that_are_inputs_as_well(id):
    """As old exporters wrote it: such an input needs no value, and the answer is right."""
    model = right_answer(id)
    there = {v.name for v in model.graph.input}
    for t in reversed(model.graph.initializer):
        if t.name not in there:
            model.graph.input.insert(0, onnx.helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)))
    assert points(id, model, "ada") == (task(id).points, task(id).points)


# Quantization moves the numbers more than that; in 10.4 the class counts; in 8.2 and 10.6 the first output is whole numbers.
COARSE = ["7.2", "7.3", "7.5", "7.7", "8.2", "9.9", "9.10", "9.11", "10.4", "10.6", "11.4"]


@pytest.mark.parametrize("id", [id for id in ONNX if id not in COARSE])
def test_numbers_that_are_a_little_off(id):
    """By three in a thousand: no tolerance is so wide."""
    right = right_answer(id)
    assert not all(c.passed for c in criteria(id, nearly(right, 1.003)))


@pytest.mark.parametrize("id", TASKS)
def test_another_students_answer_earns_nothing(id):
    for mine, other in zip(students(id), [*students(id)[1:], students(id)[0]], strict=True):
        same = exercises.personal_params(task(id), mine) == exercises.personal_params(task(id), other)
        assert not same, "two students have the same task"
        found = criteria(id, right_answer(id, other), mine)
        assert task_points(task(id), found)[0] == 0, (mine, other)
        assert stops(id, found), [c.what for c in found]


@pytest.mark.parametrize("id", TASKS)
def test_parameters_hold_no_answer(id):
    """What is hidden is no part of what a student sees, and the text of a right answer is not in it either."""
    it = task(id)
    every = exercises.personal_params(it, "ada")
    assert set(it.hidden) <= set(every)
    seen = {name: value for name, value in every.items() if name not in it.hidden}
    if it.kind == "json":
        right = right_answer(id)
        parts = list(right.values()) if isinstance(right, dict) else [right]
        telling = [part for part in parts if isinstance(part, dict | list) and len(part) > 1]
        assert not [part for part in telling if part in list(seen.values())]


# What stands among the parameters so that the exercise can quote it.
THE_SAME_FOR_ALL = {
    "6.2": {"most"},
    "7.3": {"least", "points"},
    "7.6": {"uses/board/int8", "uses/board/points", "uses/page/foreign", "uses/page/points"},
    "7.7": {"cosine"},
    "8.7": {"agreed/serve"},
    "10.3": {"most_bytes"},
    "10.4": {"most_bytes"},
    "11.4": {"perplexity"},
}


def _leaves(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _leaves(value, f"{before}{name}/") if isinstance(value, dict) else {before + name: value}
    return found


@pytest.mark.parametrize("id", TASKS)
def test_each_parameter_differs_among_students(id):
    drawn = [_leaves(exercises.personal_params(task(id), f"s-{n}")) for n in range(60)]
    same = {name for name in drawn[0] if all(other.get(name) == drawn[0][name] for other in drawn)}
    assert same == THE_SAME_FOR_ALL.get(id, set())


@pytest.mark.parametrize("id", TASKS)
def test_a_secret_changes_the_parameters(id):
    it = task(id)
    drawn = [exercises.personal_params(it, "ada", secret) for secret in ("", *"abcdefgh")]
    assert any(other != drawn[0] for other in drawn[1:])


def test_unreadable_answers_have_a_problem_and_no_criteria():
    it = Task("1.1", "t", "json", lambda *_: [], points=1)
    assert assessed(it, b"{", "a.json", "ada").problem.startswith("'a.json' is not a JSON file")


@pytest.mark.parametrize("error", [MemoryError, OutOfTimeError("It was stopped.")])
def test_what_ends_a_check_is_no_failed_criterion(error):
    """Whoever runs the check says what was missing: time, or memory."""

    def check(*given: Any) -> list[Any]:
        raise error

    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        assess(Task("1.1", "t", "json", check, points=1), {}, "ada")


def test_what_a_check_is_given():
    """Parameters of the student and the key of the class, as what measures has; inputs of the student and the secret."""
    asked, measured = [], []

    def check(value: Any, p: dict[str, float], rng: Random) -> list[Criterion]:
        asked.append((p["n"], rng.random()))
        return [Criterion("it is there", True)]

    def measure(value: Any, p: dict[str, float]) -> dict[str, str]:
        measured.append(p["n"])
        return {}

    it = Task("1.1", "t", "json", check, lambda rng: {"n": rng.random()}, points=1, measure=measure)
    for who, how in (("ada", {}), ("ada", {}), ("ada", {"secret": "s"}), ("ada", {"key": "k"}), ("grace", {})):
        assessed(it, b"{}", "a.json", who, facts=True, **how)
    assert measured == [n for n, _ in asked]
    same = [tuple(a == b for a, b in zip(other, asked[0], strict=True)) for other in asked[1:]]
    assert same == [(True, True), (True, False), (False, True), (False, False)]
