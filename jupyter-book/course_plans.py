"""The page "Plan a course", made from `data/course_plans.yml`: minutes and titles are those of the lessons and tasks."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import sittings
import yaml

from course_utils import exercises

PLANS = Path(__file__).resolve().parent.parent / "data" / "course_plans.yml"

_BEGIN = """# Plan a course

Three plans: for 4, 8 and 12 weeks. Change them as you like: a lesson needs only those before it, a page that lies deeper only
its lesson. A task needs the lessons up to its own, and some tasks a page that lies deeper: these are listed below the plans.

The minutes are those of a reader, counted from the words and the code. **Time for the tasks is not in them.** Plan 15 to 30 minutes
for each task, and more for chapter 10. That is the authors' guess: no class has been timed.

A student needs a machine with two processor cores and 4 GB of memory, and no GPU. Tasks 5.6 and 5.7 need the extra `providers`, 7.7 the
extra `nlp`, 8.7 the extra `serve`; `make lab` installs the first two.
"""
_END = """## What does not depend on the plan

- **The first hour.** Let everybody install the course before the first week (`make lab`), and run lesson 00.
- **In class.** Ask the questions of a lesson aloud before the cell that answers them is run. The surprise is what people talk about.
- **Marks.** Each task has its points, and a lesson counts as much as every other one. [For instructors](for_instructors.md) says how
  to choose tasks, points and dates, and how to grade.
- **Ahead of the others.** Give those who are quick the pages that lie deeper, or the remaining tasks of the chapter.
"""


def read() -> dict[str, Any]:
    """As in the file. needs: task → pages. plans: weeks, title, good_for, and for each week lessons, deeper, tasks, able."""
    return yaml.safe_load(PLANS.read_text(encoding="utf-8"))


def page() -> str:
    """The page in Markdown."""
    return "\n\n".join([_BEGIN, *map(_plan, read()["plans"]), _needs(), _END])


def _needs() -> str:
    titles = _titles()
    by_pages: dict[tuple[str, ...], list[str]] = {}
    for id, names in read()["needs"].items():
        by_pages.setdefault(tuple(f"deeper/{name}" for name in names), []).append(id)
    rows = [
        f"| {' and '.join(f'[{titles[name]}](notebooks/{name}.ipynb)' for name in names)} | {', '.join(ids)} |"
        for names, ids in by_pages.items()
    ]
    return "\n".join(["## Tasks that need a page that lies deeper\n", "| page | tasks |", "|---|---|", *rows])


def _titles() -> dict[str, str]:
    titles = {f"deeper/{p['file']}": p["title"] for one in sittings.lessons() for p in one.get("deeper", [])}
    return titles | {one["file"]: f"{one['file'][:2]} · {one['title']}" for one in sittings.lessons()}


def minutes(week: dict[str, Any]) -> int:
    """A reader's minutes in one week."""
    return sum(sittings.minutes_of(name) for name in _notebooks(week))


def _notebooks(week: dict[str, Any]) -> list[str]:
    return [*week["lessons"], *(f"deeper/{name}" for name in week.get("deeper", []))]


def _plan(plan: dict[str, Any]) -> str:
    rows = [_week(number, week) for number, week in enumerate(plan["plan"], 1)]
    tasks = [id for week in plan["plan"] for id in week.get("tasks", [])]
    hours = round(sum(map(minutes, plan["plan"])) / 30) / 2
    total = sum(len(exercises.tasks_of(chapter)) for chapter in exercises.chapters())
    points = sum(exercises.task(id).points for id in tasks)
    return "\n".join(
        [
            f"## {plan['title']}\n",
            f"{plan['good_for']} Reading: {hours:g} hours. Tasks: {len(tasks)} of {total}, {points} points.\n",
            "| week | read | tasks | after it, a student can |",
            "|---|---|---|---|",
            *rows,
            "\nIn the [class file](assigning.md):\n",
            f"```yaml\ntasks: [{', '.join(tasks)}]\n```",
        ]
    )


def _week(number: int, week: dict[str, Any]) -> str:
    titles = _titles()
    links = "<br>".join(f"[{titles[name]}](notebooks/{name}.ipynb)" for name in _notebooks(week))
    tasks = "<br>".join(
        f"[{', '.join(ids)}](notebooks/exercises/{_exercise(chapter)}.ipynb)"
        for chapter, ids in groupby(week.get("tasks", []), key=lambda id: id.partition(".")[0])
    )
    return f"| {number} | {links}<br>*{minutes(week)} minutes* | {tasks or '–'} | {week['able']} |"


def _exercise(chapter: str) -> str:
    return next(one["file"] for one in sittings.lessons() if one["file"].startswith(chapter.zfill(2)))
