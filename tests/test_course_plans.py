"""The plans for instructors: nothing is asked for before it was read, and nothing that does not exist."""

from __future__ import annotations

import re
import sys

import pytest
from checkout import ROOT

from course_utils import exercises

sys.path[:0] = [str(ROOT / "jupyter-book"), str(ROOT / "notebooks")]

import course_plans  # noqa: E402
import sittings  # noqa: E402

FILE = course_plans.read()
PLANS, NEEDS = {plan["weeks"]: plan for plan in FILE["plans"]}, FILE["needs"]
LESSONS = [lesson["file"] for lesson in sittings.lessons()]
DEEPER = {page["file"]: lesson["file"] for lesson in sittings.lessons() for page in lesson.get("deeper", [])}
TASKS = [id for chapter in exercises.chapters() for id in exercises.tasks_of(chapter)]


def test_the_plans():
    assert list(PLANS) == [4, 8, 12]


@pytest.mark.parametrize("weeks", [4, 8, 12])
def test_every_week_builds_on_what_was_read(weeks):
    plan = PLANS[weeks]["plan"]
    assert len(plan) == weeks
    assert [name for week in plan for name in week["lessons"]] == LESSONS
    tasks = [id for week in plan for id in week.get("tasks", [])]
    pages = [name for week in plan for name in week.get("deeper", [])]
    assert len(set(tasks)) == len(tasks)
    assert len(set(pages)) == len(pages)
    read: set[str] = set()
    pages_read: set[str] = set()
    for week in plan:
        read |= set(week["lessons"])
        assert {DEEPER[name] for name in week.get("deeper", [])} <= read
        assert {id.partition(".")[0].zfill(2) for id in week.get("tasks", [])} <= {name[:2] for name in read}
        pages_read |= set(week.get("deeper", []))
        for id in week.get("tasks", []):
            exercises.task(id)
            assert set(NEEDS.get(id, [])) <= pages_read, f"week of task {id}"
        assert course_plans.minutes(week) <= 150, "a week's reading is three sittings at most"


def test_what_the_plans_say_of_themselves():
    count = {weeks: sum(len(week.get("tasks", [])) for week in plan["plan"]) for weeks, plan in PLANS.items()}
    deeper = {weeks: sum(len(week.get("deeper", [])) for week in plan["plan"]) for weeks, plan in PLANS.items()}
    assert round(3 * count[4] / len(TASKS)) == 1, "a third"
    assert 1 / 2 < count[8] / len(TASKS) < 2 / 3, "more than half"
    assert sorted(id for week in PLANS[12]["plan"] for id in week.get("tasks", [])) == sorted(TASKS)
    assert deeper[4] == 1
    assert 0.6 < deeper[12] / len(DEEPER) < 0.9, "most"


# Pages that a task's text names for a detail; the task can be done without.
HELP = {"06_trained", "06_files_saved_optimised", "01_metadata", "08_server_file_by_file"}


@pytest.mark.parametrize("chapter", exercises.chapters())
def test_pages_that_the_exercises_name(chapter):
    """Each is needed by a task of that chapter, or a help; and what a task needs is named there."""
    (path,) = (ROOT / "data" / "exercises").glob(f"{chapter:02}_*.py")
    named = set(re.findall(r"\(\.\./deeper/(\w+)\.ipynb\)", path.read_text(encoding="utf-8")))
    needed = {page for id in exercises.tasks_of(chapter) for page in NEEDS.get(id, [])}
    assert needed <= named
    assert named - needed <= HELP


def test_the_page():
    """Each week is a row with its minutes; links lead to what exists."""
    page = course_plans.page()
    assert page.count("minutes* |") == 4 + 8 + 12
    links = set(re.findall(r"\]\((notebooks/[\w/]+)\.ipynb\)", page))
    assert len(links) > len(LESSONS)
    assert all((ROOT / f"{link}.ipynb").is_file() for link in links)


def test_the_tasks_of_a_plan_are_a_class(tmp_path):
    """What the page says to write into the class file is what the grader reads there."""
    from course_utils.grading import class_file

    lines = re.findall(r"```yaml\n(tasks: .*)\n```", course_plans.page())
    assert len(lines) == 3
    for line, plan in zip(lines, PLANS.values(), strict=True):
        path = tmp_path / "class.yaml"
        path.write_text(line, encoding="utf-8")
        assert list(class_file.read(path).tasks) == [id for week in plan["plan"] for id in week.get("tasks", [])]
