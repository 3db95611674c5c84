"""The solution of a task with its explanation, shown to a student who has tried."""

from __future__ import annotations

import html
import os
import re
from dataclasses import dataclass
from pathlib import Path

from .. import classroom, student
from ..errors import CourseError
from ..exercises import Task, task
from ..paths import data_path
from .keeping import ANSWERS, manifest_of

OFF = "COURSE_SOLUTIONS"  # "0": a class works without them
_CELL = re.compile(r"^# %%.*\n", re.MULTILINE)
_EXPLAINS = re.compile(r'^# %% \[markdown\] tags=\["solution"\]')


@dataclass(frozen=True)
class Solution:
    """What `solution()` shows. code: the answer cell. text: why it is so, Markdown."""

    task: Task
    code: str
    text: str

    def __repr__(self) -> str:
        return "\n\n".join(filter(None, [f"A solution of task {self.task.id}", self.code, self.text]))

    def _repr_markdown_(self) -> str:
        title = f"**A solution of task {html.escape(self.task.id)} · {html.escape(self.task.title)}**"
        return "\n\n".join(filter(None, [title, f"```python\n{self.code}\n```", self.text]))


def solution(task_id: str) -> Solution:
    """Show a solution of a task, and why it is one. First used in exercise 01.

    It is there for whoever has tried: `cu.check` must have seen a file for this task, whatever it said about it.
    Raises CourseError before that, when there is no such task, and in a class that works without solutions.
    """
    it = task(task_id)
    source = _source(it)
    if os.environ.get(OFF) == "0" or source is None or not classroom.current().solutions:
        raise CourseError(
            f"This class works without shown solutions: use cu.hint({it.id!r}), and ask your instructor for that of task {it.id}."
        )
    if it.id not in manifest_of(ANSWERS / student.current())["tasks"]:
        raise CourseError(
            f"There is no try of task {it.id} yet: make a file, even one that is not right, run "
            f'cu.check("{it.id}", "work/{it.file}") on it, then ask for the solution.'
        )
    return read_solution(it, source.read_text(encoding="utf-8"))


def read_solution(it: Task, text: str) -> Solution:
    """The solution of a task, from the source of its exercise (percent format)."""
    heads, bodies = _CELL.findall(text), _CELL.split(text)[1:]
    cells = [(head, body.strip()) for head, body in zip(heads, bodies, strict=True)]
    at = next(number for number, (_, body) in enumerate(cells) if re.match(rf"# Task {re.escape(it.id)}\b", body))
    explained = []
    for head, body in cells[at + 1 :]:
        if re.match(r"# Task \d", body):
            break
        if _EXPLAINS.match(head):
            explained.append(re.sub(r"^# ?", "", body, flags=re.MULTILINE))
    code = re.sub(r"^\s*### (BEGIN|END) SOLUTION\n?", "", cells[at][1], flags=re.MULTILINE)
    return Solution(it, code.strip(), "\n\n".join(explained))


def _source(it: Task) -> Path | None:
    """The exercise's source; none where the course was handed out without it."""
    chapter = int(it.id.partition(".")[0])
    return next(iter(sorted(data_path("exercises").glob(f"{chapter:02}_*.py"))), None)
