"""How the course is scored. The report card and the grader count with the same function."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from fractions import Fraction

from ..exercises import Criterion, Task


def task_points(it: Task, criteria: Iterable[Criterion]) -> tuple[int, int]:
    """Points of an answer, and what a right one has: one for each goal that is met, and none unless every condition is.

    The second number is the task's own, so that a check which stops early, at the first thing that is wrong, makes no
    answer worth more than one that got further.
    """
    criteria = list(criteria)
    met = all(c.passed for c in criteria if c.condition)
    return sum(c.passed for c in criteria if not c.condition) if met else 0, it.points


def course_points(
    points: Mapping[str, tuple[int, int]], chapters: Mapping[int, Collection[str]]
) -> tuple[Fraction, dict[int, Fraction]]:
    """What the course is worth, and each chapter: exact numbers from 0 to 1.

    points: task id → points reached, and all of them; a task that is not there was not handed in and counts 0.
    chapters: chapter → the ids of its tasks. A task counts reached ÷ all, a chapter the mean over its tasks, the course the
    mean over its chapters.
    """

    def of_task(id: str) -> Fraction:
        reached, of = points.get(id, (0, 0))
        return Fraction(reached, of) if of else Fraction(0)

    by_chapter = {chapter: _mean([of_task(id) for id in ids]) for chapter, ids in chapters.items()}
    return _mean([*by_chapter.values()]), by_chapter


def _mean(values: Collection[Fraction]) -> Fraction:
    return sum(values, Fraction(0)) / len(values) if values else Fraction(0)


def percent(share: Fraction) -> str:
    """Whole percent, rounded down: 100 % stands where nothing is missing, and nowhere else."""
    return f"{share.numerator * 100 // share.denominator} %"
