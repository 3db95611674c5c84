"""What comes out: `results.json`, `grades.csv`, and a few lines for the terminal.

`results.json`, one submission a line, is what feedback, forms of an LMS and statistics are made from:

    {"format": 1, "course": version of the course, "checks": version of the checks,
     "secret", "class_key": fingerprints of these words, "" without,
     "rule": "last" or "best",
     "tasks": {id: {"title", "kind", "points"}} of the whole course,
     "submissions": [one for each zip, by name,
       {"zip": path in the folder, with "/",    "sha256": of its bytes, "" when it was not read,
        "modified": seconds since 1970,         "owner": folder or name that an LMS gave its sender, "" when unknown,
        "student": id it claims, "" when there is none,  "course": version it was made with,
        "counted": whether this one is the student's grade: the rule chose it,
        "problem": why there are no marks, one sentence, "" when there are,
        "notes": [sentences],                   "compared": those of them that come from comparing it with others,
        "points", "of": sums over all tasks of the course,
        "share": of the course, 0 to 1, the mean over its chapters,  "chapters": {"1": share, …},
        "tasks": {id: one for each task handed in,
          {"file", "sha256": of the artefact, "" when it is missing or was not read,
           "points", "of",
           "claimed": [points, of] as the notebook counted, null when it says nothing,
           "criteria": [{"what", "passed", "hint": "" when it passed, "condition"}],
           "problem": why it could not be checked, or not to the end; "" when it was,
           "notes": [sentences]}}}],
     "ignored": [paths of files in the folder that are no zips]}

Everything in it that a student wrote may be hostile: escape it. Two runs over the same zips write the same bytes.
"""

from __future__ import annotations

import collections
import csv
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from .. import exercises, student
from ..handin.points import course_points, percent
from .intake import Found, shown
from .journal import whole
from .marking import Result, every_task

FORMAT = 1
RESULTS, GRADES = "results.json", "grades.csv"
_MOST_OTHERS = 3  # other submissions that a note names

# Canvas puts the sender's name and number, and the number of the file, before each name.
_CANVAS = re.compile(r"(?P<sender>[^_]+_(?:LATE_)?\d+)_\d+_.*submission_")
_OURS = re.compile(r"submission_(\w[\w.@+-]{0,63})_[0-9a-f]{8}")


@dataclass
class Row:
    """One submission, without its criteria: a thousand of these fit into memory."""

    found: Found
    digest: str
    student: str
    problem: str
    points: dict[str, tuple[int, int]]
    notes: list[str]
    owner: str = ""
    counted: bool = False
    more: list[str] = field(default_factory=list)  # notes from comparing it with the others

    @property
    def share(self) -> Fraction:
        return course_points(self.points, _chapters())[0]


def _chapters() -> dict[int, list[str]]:
    return {chapter: list(exercises.tasks_of(chapter)) for chapter in exercises.chapters()}


def row(found: Found, digest: str, result: Result) -> Row:
    points = {id: (marks["points"], marks["of"]) for id, marks in result["tasks"].items()}
    return Row(found, digest, result["student"], result["problem"], points, result["notes"])


def compare(rows: list[Row], rule: str) -> None:
    """Say of each submission who sent it, what it has in common with others, and whether it counts."""
    _owners(rows)
    for group in _grouped((r for r in rows if r.digest), lambda r: r.digest):
        for one in group:
            others = (f"{shown(o.found.name)!r} has the same bytes." for o in group if o is not one)
            one.more += itertools.islice(others, _MOST_OTHERS)
    for group in _grouped((r for r in rows if r.student and r.student != student.GUEST), lambda r: r.student):
        owners = sorted({r.owner for r in group})
        for owner in owners:
            mine = [r for r in group if r.owner == owner]
            best = max(mine, key=lambda r: _order(r, rule))
            best.counted = True
            for one in mine:
                if one is not best:
                    one.more.append(f"It does not count: by the rule {rule!r}, {shown(best.found.name)!r} does.")
        if len(owners) > 1:
            for one in group:
                others = (repr(shown(o.found.name)) for o in group if o.owner != one.owner)
                named = ", ".join(itertools.islice(others, _MOST_OTHERS))
                one.more.append(f"The id {one.student!r} is also that of {named}, from another sender: ask who is who.")
    for one in rows:
        one.counted |= one.student == student.GUEST  # who knows how many guests there are
        ours = _OURS.search(Path(one.found.name).name)
        if ours and one.student and ours[1] != one.student:
            one.more.append(f"The zip's name says {shown(ours[1])!r}, and the list in it {one.student!r}.")


def _grouped(rows: Iterable[Row], by: Callable[[Row], str]) -> list[list[Row]]:
    groups = collections.defaultdict(list)
    for one in rows:
        groups[by(one)].append(one)
    return list(groups.values())


def _order(one: Row, rule: str) -> tuple[Fraction, int, str]:
    return (one.share if rule == "best" else Fraction(0), one.found.modified, one.found.name)


def _owners(rows: list[Row]) -> None:
    """Who sent it, as far as the LMS says so: a folder for each sender, or the beginning of the name.

    A folder in which several students hand in is no sender's.
    """
    ids = collections.defaultdict(set)
    for one in rows:
        folder, _, _ = one.found.name.rpartition("/")
        if one.student:
            ids[folder].add(one.student)
    for one in rows:
        folder, _, name = one.found.name.rpartition("/")
        canvas = _CANVAS.match(name)
        if canvas:
            one.owner = canvas["sender"].replace("LATE_", "")
        elif folder and len(ids[folder]) == 1:
            one.owner = folder


def write(
    folder: Path,
    rows: list[Row],
    results: Callable[[Row], Result],
    about: Mapping[str, Any],
    rule: str,
    ignored: list[str],
) -> None:
    """Write both files. results: the marks of a row. Raises CourseError when the disk is full."""
    tasks = every_task()
    head = {
        "format": FORMAT,
        **{name: value for name, value in about.items() if name != "grading"},
        "rule": rule,
        "tasks": {id: {"title": it.title, "kind": it.kind, "points": it.points} for id, it in tasks.items()},
    }
    with whole(folder / RESULTS) as stream:
        stream.write(json.dumps(head)[:-1] + ', "submissions": [')
        for number, one in enumerate(rows):
            stream.write(("," if number else "") + "\n" + json.dumps(_entry(one, results(one))))
        stream.write('\n], "ignored": ' + json.dumps(ignored) + "}\n")
    with whole(folder / GRADES) as stream:
        table = csv.writer(stream)
        table.writerow(
            ["student", "percent", "points", "of", *(f"chapter {n:02}" for n in _chapters()), *tasks, "zip", "notes"]
        )
        for one in rows:
            if one.counted or one.problem:
                table.writerow([cell(value) for value in _cells(one, list(tasks))])


def _entry(one: Row, result: Result) -> Result:
    course, chapters = course_points(one.points, _chapters())
    return {
        "zip": one.found.name,
        "sha256": one.digest,
        "modified": one.found.modified,
        "owner": one.owner,
        "student": one.student,
        "course": result["course"],
        "counted": one.counted,
        "problem": one.problem,
        "notes": one.notes + one.more,
        "compared": one.more,
        "points": _sum(one),
        "of": sum(it.points for it in every_task().values()),
        "share": float(course),
        "chapters": {str(chapter): float(share) for chapter, share in chapters.items()},
        "tasks": result["tasks"],
    }


def _sum(one: Row) -> int:
    return sum(reached for reached, _ in one.points.values())


def _cells(one: Row, tasks: list[str]) -> list[str]:
    course, chapters = course_points(one.points, _chapters())
    words = " ".join(filter(None, [one.problem, *one.notes, *one.more]))
    if one.problem:
        return [one.student, *[""] * (3 + len(chapters) + len(tasks)), shown(one.found.name), words]
    return [
        one.student,
        *(percent(course).removesuffix(" %"), str(_sum(one)), str(sum(it.points for it in every_task().values()))),
        *(percent(share).removesuffix(" %") for share in chapters.values()),
        *(str(one.points[id][0]) if id in one.points else "" for id in tasks),
        shown(one.found.name),
        words,
    ]


def cell(text: str) -> str:
    """For a CSV file: a spreadsheet runs what begins like a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def summary(rows: list[Row], ignored: list[str]) -> str:
    """A few lines for whoever waits at the terminal."""
    counted = [one for one in rows if one.counted]
    bad = [one for one in rows if one.problem]
    lines = [f"{_count(len(rows), 'submission')}, {_count(len(counted), 'grade')}."]
    if counted:
        shares = sorted(one.share for one in counted)
        lines[0] += f" The median is {percent(shares[len(shares) // 2])} of the course."
    lines += [f"  {shown(one.found.name)}: {one.problem}" for one in bad[:10]]
    if len(bad) > 10:
        lines.append(f"  And {len(bad) - 10} more that could not be graded: all are in {GRADES}.")
    noted = sum(bool(one.notes or one.more) for one in rows)
    if noted:
        lines.append(f"{_count(noted, 'submission')} with notes: see {GRADES}.")
    if ignored:
        lines.append(
            f"{_count(len(ignored), 'file')} in the folder {'is' if len(ignored) == 1 else 'are'} no zip: {', '.join(ignored[:3])}{' …' * (len(ignored) > 3)}."
        )
    return "\n".join(lines)


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"
