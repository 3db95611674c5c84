"""The exercises' checks: one package per chapter (`ch01`, `ch02`, …), one `Task` per exercise, listed in its module `tasks`.

A check looks at an artefact (an ONNX model or a JSON value) and at the student's personal parameters, and returns a list
of criteria: conditions, which every answer must meet and which earn nothing, and goals, each of which earns a point. The
notebook's `cu.check` and the instructor's grader call the very same function.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

import onnx

from ..errors import CourseError

Params = dict[str, Any]
Hint = str | Callable[[], str]

VERSION = 3  # of the checks: counts of points from another version are not compared with today's, but taken anew
_LONGEST_HINT = 600  # characters; a hint may quote an answer, and an answer may be anything


@dataclass(frozen=True)
class Criterion:
    """One thing a check looked at. hint: what to do about it, shown when it failed.

    condition: whether it must hold before anything earns points: the form of the answer, and what the files that were
    handed out meet already, or anybody's answer does. Otherwise it is a goal: work of this student's own, and one point.
    """

    what: str
    passed: bool
    hint: str = ""
    condition: bool = False


class Criteria(list[Criterion]):
    """The list a check returns, with short ways to add to it."""

    def add(self, what: str, passed: bool, hint: Hint, *, condition: bool = False) -> bool:
        """Append a goal; the outcome comes back, so that a check can stop where going on makes no sense.

        hint: a function is called only for what failed, where finding the cause takes time. It becomes one line of text
        that can be printed, however long or odd the answer is that it quotes.
        """
        said = "" if passed else hint if isinstance(hint, str) else hint()
        self.append(Criterion(_one_line(what), bool(passed), _one_line(said), condition))
        return bool(passed)

    def require(self, what: str, passed: bool, hint: Hint) -> bool:
        """Append a condition, as `add` does."""
        return self.add(what, passed, hint, condition=True)


def _one_line(text: str) -> str:
    # JSON may hold halves of characters, a name in a model commands to a terminal; and it may be very long.
    start = text[: 10 * _LONGEST_HINT].encode(errors="replace").decode()
    if not start.isprintable():
        start = "".join(c if c.isprintable() else " " for c in start)
    line = " ".join(start.split())
    return line if len(line) <= _LONGEST_HINT else f"{line[:_LONGEST_HINT]} …"


Check = Callable[[Any, Params, Random], list[Criterion]]


@dataclass(frozen=True)
class Task:
    """One exercise. check gets the artefact (ModelProto or JSON value), the parameters, and a source of hidden inputs.

    points: how many goals a right answer reaches; the same for every student, and however early a check stops.
    hidden: parameters that hold an answer, or a part of it; `cu.params` leaves them out.
    draw: personal parameters from a seeded source, JSON-able. given: files handed to the student, by name: models, or
    the bytes of another file. same_as: a task whose parameters this one shares. hints: what `cu.hint` shows one after the
    other, the last one nearest to the answer.
    measure: facts about an artefact that passed, for the report card, such as {"accuracy on 2 000 photos": "92.1 %"}.
    """

    id: str
    title: str
    kind: Literal["onnx", "json"]
    check: Check
    draw: Callable[[Random], Params] = field(default=lambda rng: {})
    given: Callable[[Params], Mapping[str, onnx.ModelProto | bytes]] | None = None
    hints: tuple[str, ...] = ()
    same_as: str = ""
    points: int = field(kw_only=True)
    hidden: tuple[str, ...] = ()
    measure: Callable[[Any, Params], Mapping[str, str]] | None = None

    @property
    def file(self) -> str:
        """Name of the artefact, in the exercise's `work/` folder."""
        return f"{self.id}.{self.kind}"


def task(id: str) -> Task:
    """The task with this id, such as "1.2". Raises CourseError when there is none."""
    chapter, _, number = str(id).partition(".")
    if chapter.isdigit() and number.isdigit():
        name = f"{__name__}.ch{int(chapter):02}"
        if importlib.util.find_spec(name):
            tasks = tasks_of(int(chapter))
            if id in tasks:
                return tasks[id]
            raise CourseError(f"There is no task {id!r}. Chapter {chapter} has: {', '.join(tasks)}.")
    raise CourseError(f"There is no task {id!r}: a task is named by chapter and number, such as '1.2'.")


def chapters() -> list[int]:
    """The chapters that have exercises, in order."""
    return sorted(int(m.name[2:]) for m in pkgutil.iter_modules(__path__) if re.fullmatch(r"ch\d\d", m.name))


def tasks_of(chapter: int) -> dict[str, Task]:
    """All tasks of one chapter by id, in order."""
    return {t.id: t for t in importlib.import_module(f"{__name__}.ch{chapter:02}.tasks").TASKS}


def personal_params(task: Task, student: str, secret: str = "") -> Params:
    """The parameters of one student: the same on every machine and every run. secret: the key of a class, which it has, too."""
    return task.draw(Random(f"{secret and secret + '/'}{student}/{task.same_as or task.id}"))


def hidden_inputs(task: Task, student: str, secret: str = "") -> Random:
    """The source a check draws its inputs from. secret: an instructor's word, so that nobody can prepare for them."""
    return Random(f"{secret}/{student}/{task.id}/inputs")
