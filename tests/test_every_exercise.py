"""What holds for all tasks alike: points come from a student's own work, other roads lead there, mistakes are named.

Each `test_exercise_NN` has `RIGHT`, at least two ways to each right answer, and `WRONG`, at least three mistakes with what the
hints must say of them.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Any

import onnx
import pytest
from answers import STUDENTS, criteria, given_files, hints

from course_utils import exercises
from course_utils.errors import CourseError
from course_utils.exercises import Task, task
from course_utils.handin.assessing import assessed, read
from course_utils.handin.points import task_points

TASKS = [id for chapter in exercises.chapters() for id in exercises.tasks_of(chapter)]
ONNX = [id for id in TASKS if task(id).kind == "onnx"]
JSON = [id for id in TASKS if task(id).kind == "json"]


def answers_to(id: str) -> Any:
    return importlib.import_module(f"test_exercise_{int(id.split('.', maxsplit=1)[0]):02}")


def points(id: str, value: Any, who: str) -> tuple[int, int]:
    return task_points(task(id), criteria(id, value, who))


def students(id: str) -> list[str]:
    return STUDENTS[:2] if id in ("7.7", "10.4") else STUDENTS  # files of 23 MB, and an exam of 1 500 photographs


def roads(id: str) -> tuple[Callable[[str], Any], ...]:
    return answers_to(id).RIGHT[id]


@pytest.mark.parametrize("id", TASKS)
def test_every_road_earns_all_points(id):
    assert len(roads(id)) >= 2, "one right answer is not enough to know that others pass"
    for who in students(id):
        for road in roads(id):
            found = criteria(id, road(who), who)
            assert [c for c in found if not c.passed] == [], road
            assert task_points(task(id), found) == (task(id).points, task(id).points), road


@pytest.mark.parametrize("id", TASKS)
def test_every_mistake_is_refused_with_its_cause(id):
    mistakes = answers_to(id).WRONG[id]
    assert len(mistakes) >= 3
    for name, (make, cause) in mistakes.items():
        found = criteria(id, make("ada"), "ada")
        assert not all(c.passed for c in found), f"{name}: accepted"
        assert re.search(cause, hints(found)), f"{name}: {hints(found)}"
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


def _hollow(value: Any, fill: Any) -> Any:
    return {key: fill for key in value} if isinstance(value, dict) else fill


@pytest.mark.parametrize("id", JSON)
@pytest.mark.parametrize("fill", [None, "", 0, [], {}, False], ids=repr)
def test_empty_keys_earn_nothing(id, fill):
    right = roads(id)[0]("ada")
    nested = {k: _hollow(v, fill) for k, v in right.items()} if isinstance(right, dict) else fill
    for value in (fill, {}, _hollow(right, fill), nested):
        assert points(id, value, "ada")[0] == 0, value


@pytest.mark.parametrize("id", ONNX)
def test_an_empty_model_earns_nothing(id):
    """Nodes that pass on what they get, with the names and types that the right answer has."""
    right = roads(id)[0]("ada")
    model = onnx.ModelProto()
    model.CopyFrom(right)
    del model.graph.node[:], model.graph.initializer[:], model.functions[:]
    name = model.graph.input[0].name
    model.graph.node.extend(onnx.helper.make_node("Identity", [name], [o.name]) for o in model.graph.output)
    assert points(id, model, "ada")[0] == 0


@pytest.mark.parametrize("id", ONNX)
def test_what_the_checker_refuses_earns_nothing(id):
    """A graph without a name runs in ONNX Runtime all the same. Nothing is looked at after that."""
    model = onnx.ModelProto()
    model.CopyFrom(roads(id)[0]("ada"))
    model.graph.name = ""
    last = criteria(id, model)[-1]
    assert (last.what, last.passed, last.condition) == ("onnx.checker accepts the model", False, True)


@pytest.mark.parametrize("id", [id for id in ONNX if id != "6.2"])  # there it is one of the faults to be found
def test_an_output_too_many_earns_nothing(id):
    model = onnx.ModelProto()
    model.CopyFrom(roads(id)[0]("ada"))
    first = model.graph.output[0]
    model.graph.node.append(onnx.helper.make_node("Identity", [first.name], ["too_many"], "too_many"))
    model.graph.output.add().CopyFrom(first)
    model.graph.output[-1].name = "too_many"
    assert points(id, model, "ada")[0] == 0


@pytest.mark.parametrize("id", TASKS)
def test_another_students_answer_earns_nothing(id):
    for mine, other in zip(students(id), [*students(id)[1:], students(id)[0]], strict=True):
        same = exercises.personal_params(task(id), mine) == exercises.personal_params(task(id), other)
        assert not same, "two students have the same task"
        assert points(id, roads(id)[0](other), mine)[0] == 0, (mine, other)


@pytest.mark.parametrize("id", TASKS)
def test_parameters_hold_no_answer(id):
    """What is hidden is no part of what a student sees, and the text of a right answer is not in it either."""
    it = task(id)
    every = exercises.personal_params(it, "ada")
    assert set(it.hidden) <= set(every)
    seen = {name: value for name, value in every.items() if name not in it.hidden}
    if it.kind == "json":
        right = roads(id)[0]("ada")
        parts = list(right.values()) if isinstance(right, dict) else [right]
        telling = [part for part in parts if isinstance(part, dict | list) and len(part) > 1]
        assert not [part for part in telling if part in list(seen.values())]


@pytest.mark.parametrize("id", TASKS)
def test_a_secret_changes_the_parameters(id):
    it = task(id)
    drawn = [exercises.personal_params(it, "ada", secret) for secret in ("", *"abcdefgh")]
    assert any(other != drawn[0] for other in drawn[1:])


def test_unreadable_answers_have_a_problem_and_no_criteria():
    it = Task("1.1", "t", "json", lambda *_: [])
    assert assessed(it, b"{", "a.json", "ada").problem.startswith("'a.json' is not a JSON file")
