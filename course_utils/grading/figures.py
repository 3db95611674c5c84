"""The class in numbers, counted in one pass over the report."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction

from .. import student
from ..handin.points import percent
from .reading import Entry, Report

BINS = 10  # of the distribution: 0–9 %, … 90–100 %
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_TOGETHER = 600  # seconds: files that were copied or unpacked at once have dates as near as that


@dataclass
class TaskFigure:
    """One task, over those who handed it in. share: the sum of their shares."""

    handed_in: int = 0
    full: int = 0
    share: Fraction = Fraction(0)

    @property
    def mean(self) -> Fraction:
        return self.share / self.handed_in if self.handed_in else Fraction(0)


@dataclass
class CriterionFigure:
    """One criterion of a task. reached: answers in which it was looked at."""

    reached: int = 0
    missed: int = 0
    texts: Counter[str] = field(default_factory=Counter)


@dataclass
class Figures:
    """What the class page says. Grades are those of the submissions that count; zips are all."""

    zips: int = 0
    shares: list[Fraction] = field(default_factory=list)  # of the course, sorted
    chapters: dict[int, Fraction] = field(default_factory=dict)  # the mean of all grades
    tasks: dict[str, TaskFigure] = field(default_factory=dict)
    criteria: dict[tuple[str, str], CriterionFigure] = field(default_factory=dict)  # by task and text without numbers
    times: list[int] = field(default_factory=list)  # when the files of the grades were changed last, sorted; seconds
    claims: list[Entry] = field(default_factory=list)  # zip, student and the tasks in which more was claimed

    @property
    def median(self) -> Fraction:
        n = len(self.shares)
        return (self.shares[(n - 1) // 2] + self.shares[n // 2]) / 2 if n else Fraction(0)

    def distribution(self) -> list[int]:
        """How many grades lie in each tenth; 100 % are in the last."""
        counts = Counter(min(int(share * BINS), BINS - 1) for share in self.shares)
        return [counts[n] for n in range(BINS)]

    def hardest_tasks(self, most: int) -> list[tuple[str, TaskFigure]]:
        """Those with the lowest mean among who handed them in, if it is not all points."""
        found = [(id, it) for id, it in self.tasks.items() if it.handed_in and it.mean < 1]
        return sorted(found, key=lambda pair: (pair[1].mean, -pair[1].handed_in))[:most]

    def hardest_criteria(self, most: int) -> list[tuple[str, str, CriterionFigure]]:
        """Task, text and numbers of those that most answers miss."""
        found = [(id, _text(key, it), it) for (id, key), it in self.criteria.items() if it.missed]
        return sorted(found, key=lambda one: (-one[2].missed, Fraction(-one[2].missed, one[2].reached), one[1]))[:most]

    def at_once(self) -> bool:
        """Whether the files' dates say nothing about when they were handed in."""
        return not self.times or self.times[-1] - self.times[0] < _TOGETHER


def _text(key: str, it: CriterionFigure) -> str:
    return next(iter(it.texts)) if len(it.texts) == 1 else key


def count(report: Report) -> Figures:
    """Go through all submissions once."""
    all_ = Figures(tasks={id: TaskFigure() for id in report.tasks})
    sums = {chapter: Fraction(0) for chapter in report.chapters}
    for entry in report:
        all_.zips += 1
        over = [id for id, m in entry["tasks"].items() if m["claimed"] and m["claimed"][0] > m["points"]]
        if over:
            all_.claims.append({"zip": entry["zip"], "student": entry["student"], "tasks": over})
        if not entry["counted"]:
            continue
        course, chapters = report.shares(entry)
        all_.shares.append(course)
        for chapter, share in chapters.items():
            sums[chapter] += share
        if entry["modified"]:
            all_.times.append(entry["modified"])
        for id, marks in entry["tasks"].items():
            _count_task(all_, id, marks)
    all_.shares.sort()
    all_.times.sort()
    grades = max(len(all_.shares), 1)
    all_.chapters = {chapter: total / grades for chapter, total in sums.items()}
    return all_


def _count_task(all_: Figures, id: str, marks: Entry) -> None:
    it = all_.tasks[id]
    it.handed_in += 1
    it.full += marks["points"] == marks["of"]
    it.share += Fraction(marks["points"], marks["of"]) if marks["of"] else 0
    for one in marks["criteria"]:
        found = all_.criteria.setdefault((id, _NUMBER.sub("…", one["what"])), CriterionFigure())
        found.reached += 1
        found.missed += not one["passed"]
        if len(found.texts) < 2 or one["what"] in found.texts:
            found.texts[one["what"]] += 1


def grades(report: Report) -> dict[str, dict[str, int]]:
    """Whole percent, rounded down, as in `grades.csv`: student → column ("1", "2", … and "course") → 0 to 100.

    Left out is who cannot be told apart: guests, and an id from several senders.
    """
    found: dict[str, dict[str, int]] = {}
    twice = set()
    for entry in report:
        who = entry["student"]
        if not entry["counted"] or who in ("", student.GUEST):
            continue
        if who in found:
            twice.add(who)
        course, chapters = report.shares(entry)
        all_ = {**{str(chapter): share for chapter, share in chapters.items()}, "course": course}
        found[who] = {column: int(percent(share).removesuffix(" %")) for column, share in all_.items()}
    return {who: row for who, row in found.items() if who not in twice}
