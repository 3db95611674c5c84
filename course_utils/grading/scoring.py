"""What tasks are worth, with a class file and without one: weights, dates and late rule.

Without a class file a course is the mean of its chapters, and a chapter the mean of its tasks, as the report card counts. With
one, a task has the points of the file, and all shares are points ÷ points.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from ..handin.points import course_points
from .class_file import ClassFile, number
from .marking import every_task

_DAY = 86_400  # seconds
ALL_LOST = Fraction(100)  # percent


def head(a_class: ClassFile | None) -> dict[str, Any]:
    """The tasks that count, and the class, as `results.json` says them."""
    known = every_task()
    worth = a_class.worth if a_class else {id: Fraction(it.points) for id, it in known.items()}
    tasks = {
        id: {"title": known[id].title, "kind": known[id].kind, "points": known[id].points, "worth": number(points)}
        for id, points in worth.items()
    }
    return {"tasks": tasks, "class": a_class.about() if a_class else None}


class Scheme:
    """How points are counted. worth: task → points of the class. due: task → date. title: of the class, "" without one."""

    def __init__(self, tasks: Mapping[str, Mapping[str, Any]], about: Mapping[str, Any] | None) -> None:
        """tasks, about: what `head` says, or `results.json`."""
        self.worth = {id: Fraction(str(it["worth"])) for id, it in tasks.items()}
        self.title: str = about["title"] if about else ""
        self.due = {id: datetime.datetime.fromisoformat(date) for id, date in about["due"].items()} if about else {}
        self._late = about["late"] if about else None
        self._of_class = about is not None
        self.chapters: dict[int, list[str]] = {}
        for id in tasks:
            self.chapters.setdefault(int(id.partition(".")[0]), []).append(id)

    @property
    def whole(self) -> str:
        """What percent are of."""
        return "class" if self._of_class else "course"

    @property
    def total(self) -> Fraction:
        return sum(self.worth.values(), Fraction(0))

    def late(self, id: str, modified: int) -> tuple[int, Fraction]:
        """Days after the due date that were begun, and the percent that are lost. modified: seconds since 1970, 0 when unknown."""
        if id not in self.due or not modified:
            return 0, Fraction(0)
        days = max(0, -((int(self.due[id].timestamp()) - modified) // _DAY))
        if not days or not self._late:
            return days, Fraction(0)
        last = self._late["days"]
        if last is not None and days > last:
            return days, ALL_LOST
        return days, min(ALL_LOST, Fraction(str(self._late["percent_per_day"])) * days)

    def earned(self, id: str, points: tuple[int, int], lost: Fraction = Fraction(0)) -> Fraction:
        """Points of the class. points: goals that were reached, and all. lost: percent."""
        reached, of = points
        return self.worth[id] * Fraction(reached, of) * (1 - lost / 100) if of else Fraction(0)

    def shares(
        self, points: Mapping[str, tuple[int, int]], lost: Mapping[str, Fraction]
    ) -> tuple[Fraction, dict[int, Fraction]]:
        """What a submission is worth, of the whole and of each chapter: exact numbers from 0 to 1."""
        if not self._of_class:
            return course_points(points, self.chapters)
        earned = {id: self.earned(id, pair, lost.get(id, Fraction(0))) for id, pair in points.items()}

        def share(ids: Iterable[str]) -> Fraction:
            ids = list(ids)
            of = sum((self.worth[id] for id in ids), Fraction(0))
            return sum((earned.get(id, Fraction(0)) for id in ids), Fraction(0)) / of if of else Fraction(0)

        return share(self.worth), {chapter: share(ids) for chapter, ids in self.chapters.items()}

    def rule(self) -> str:
        """The late rule in words; "" without one."""
        if not self.due:
            return ""
        if not self._late:
            return "what comes later counts in full"
        last = self._late["days"]
        until = "" if last is None else f", and nothing is accepted after {last} day{'s' * (last != 1)}"
        return f"{self._late['percent_per_day']} % less for each day begun after the due date{until}"


def shown_points(value: Fraction) -> str:
    """With up to two decimals."""
    return f"{float(value):.2f}".rstrip("0").rstrip(".")


def counted_points(value: Fraction) -> str:
    return f"{shown_points(value)} point{'s' * (value != 1)}"


def shown_date(date: datetime.datetime) -> str:
    return f"{date:%Y-%m-%d %H:%M} (UTC{date:%z})" if date.utcoffset() else f"{date:%Y-%m-%d %H:%M} (UTC)"
