"""What comes out: `results.json`, `grades.csv`, and a few lines for the terminal.

`results.json`, one submission a line, is what feedback, forms of an LMS and statistics are made from:

    {"format": 2, "course": version of the course, "checks": version of the checks,
     "secret", "class_key": fingerprints of these words, "" without,
     "rule": "last" or "best",
     "tasks": {id: {"title", "kind", "points": its goals, "worth": its points in the class}}: those that count, which is the
              whole course without a class file; "worth" equals "points" then,
     "class": null, or what the class file says: {"title", "due": {id: date in ISO form},
              "late": null or {"percent_per_day", "days": the last one that is accepted, null for any}},
     "submissions": [one for each zip, by name,
       {"zip": path in the folder, with "/",    "sha256": of its bytes, "" when it was not read,
        "modified": seconds since 1970,         "owner": folder or name that an LMS gave its sender, "" when unknown,
        "student": id it claims, "" when there is none,  "course": version it was made with,
        "counted": whether this one is the student's grade: the rule chose it,
        "problem": why there are no marks, one sentence, "" when there are,
        "notes": [sentences],                   "compared": those of them that come from comparing it with others,
        "points", "of": sums of "earned" and "worth" over all tasks that count,
        "share": 0 to 1, of the course as the mean over its chapters, of a class "points" ÷ "of",  "chapters": {"1": share, …},
        "tasks": {id: one for each task handed in,
          {"file", "sha256": of the artefact, "" when it is missing or was not read,
           "points", "of": goals that are met, and all of the task,
           "earned": points in the class, after the late rule,  "worth": its points there,
           "late_days": days begun after the due date,  "lost": percent of the points that these cost,
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
import datetime
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from .. import student
from ..handin.points import percent
from .class_file import number
from .intake import Found, shown
from .journal import whole
from .marking import Result
from .scoring import Scheme, shown_date, shown_points

FORMAT = 2
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
    files: dict[str, str] = field(default_factory=dict)  # task → SHA-256 of its file
    owner: str = ""
    counted: bool = False
    late: dict[str, tuple[int, Fraction]] = field(default_factory=dict)  # task → days, and percent that are lost
    share: Fraction = Fraction(0)
    chapters: dict[int, Fraction] = field(default_factory=dict)
    more: list[str] = field(default_factory=list)  # notes from comparing it with the others


def row(found: Found, digest: str, result: Result, scheme: Scheme) -> Row:
    """A submission, as far as it counts: tasks that are no part of the class are named, and left out."""
    mine = {id: marks for id, marks in result["tasks"].items() if id in scheme.worth}
    points = {id: (marks["points"], marks["of"]) for id, marks in mine.items()}
    files = {id: marks["sha256"] for id, marks in mine.items() if marks["sha256"]}
    notes = list(result["notes"])
    if others := [id for id in result["tasks"] if id not in mine]:
        notes.append(f"No part of this class, and not counted: {_tasks(others)}.")
    return Row(found, digest, result["student"], result["problem"], points, notes, files)


def _tasks(ids: list[str]) -> str:
    return f"task{'s' * (len(ids) != 1)} {', '.join(ids)}"


def compare(rows: list[Row], rule: str, scheme: Scheme) -> None:
    """Say of each submission who sent it, how late it is, what it has in common with others, and whether it counts."""
    _owners(rows)
    _lateness(rows, scheme)
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


def _lateness(rows: list[Row], scheme: Scheme) -> None:
    """When each answer came in, and what it is worth then.

    A zip holds all answers that a student has so far. So an answer is as old as the first zip of its sender that holds the
    same file, and handing in a later chapter makes no earlier one late.
    """
    first: dict[tuple[str, ...], int] = {}
    for one in rows:
        for id, digest in one.files.items():
            name = _whose(one, id, digest)
            dates = (first.get(name, 0), one.found.modified)
            first[name] = min(filter(None, dates), default=0)
    for one in rows:
        by_date: dict[tuple[datetime.datetime, int, Fraction], list[str]] = {}
        for id in one.points:
            modified = first[_whose(one, id, one.files[id])] if id in one.files else one.found.modified
            one.late[id] = days, lost = scheme.late(id, modified)
            if days:
                by_date.setdefault((scheme.due[id], days, lost), []).append(id)
        for (due, days, lost), ids in by_date.items():
            cost = f"{shown_points(lost)} % of the points are lost" if lost else "no points are lost"
            late = f"{days} day{'s' * (days != 1)} late, counted from {shown_date(due)}"
            one.notes.append(f"{_tasks(ids).capitalize()}: {late}, so {cost}.")
        if scheme.due and one.digest and not one.found.modified:
            one.notes.append("The file has no date, so it counts as in time.")
        one.share, one.chapters = scheme.shares(one.points, {id: lost for id, (_, lost) in one.late.items()})


def _whose(one: Row, id: str, digest: str) -> tuple[str, ...]:
    """The same for zips in which one student hands in the same file."""
    alone = one.found.name if one.student == student.GUEST else ""
    return one.student, one.owner, alone, id, digest


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
    scheme: Scheme,
    ignored: list[str],
) -> None:
    """Write both files. results: the marks of a row; about: the head. Raises CourseError when the disk is full."""
    head = {
        "format": FORMAT,
        **{name: value for name, value in about.items() if name != "grading"},
        "rule": rule,
    }
    with whole(folder / RESULTS) as stream:
        stream.write(json.dumps(head)[:-1] + ', "submissions": [')
        for number, one in enumerate(rows):
            stream.write(("," if number else "") + "\n" + json.dumps(_entry(one, results(one), scheme)))
        stream.write('\n], "ignored": ' + json.dumps(ignored) + "}\n")
    with whole(folder / GRADES) as stream:
        table = csv.writer(stream)
        chapters = [f"chapter {n:02}" for n in scheme.chapters]
        table.writerow(["student", "percent", "points", "of", *chapters, *scheme.worth, "zip", "notes"])
        for one in rows:
            if one.counted or one.problem:
                table.writerow([cell(value) for value in _cells(one, scheme)])


def _entry(one: Row, result: Result, scheme: Scheme) -> Result:
    tasks = {}
    for id in one.points:
        days, lost = one.late[id]
        worth = {"earned": number(_earned(one, id, scheme)), "worth": number(scheme.worth[id])}
        tasks[id] = {**result["tasks"][id], **worth, "late_days": days, "lost": number(lost)}
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
        "points": number(_sum(one, scheme)),
        "of": number(scheme.total),
        "share": float(one.share),
        "chapters": {str(chapter): float(share) for chapter, share in one.chapters.items()},
        "tasks": tasks,
    }


def _earned(one: Row, id: str, scheme: Scheme) -> Fraction:
    return scheme.earned(id, one.points[id], one.late[id][1])


def _sum(one: Row, scheme: Scheme) -> Fraction:
    return sum((_earned(one, id, scheme) for id in one.points), Fraction(0))


def _cells(one: Row, scheme: Scheme) -> list[str]:
    words = " ".join(filter(None, [one.problem, *one.notes, *one.more]))
    if one.problem:
        return [one.student, *[""] * (3 + len(scheme.chapters) + len(scheme.worth)), shown(one.found.name), words]
    return [
        one.student,
        *(percent(one.share).removesuffix(" %"), shown_points(_sum(one, scheme)), shown_points(scheme.total)),
        *(percent(share).removesuffix(" %") for share in one.chapters.values()),
        *(shown_points(_earned(one, id, scheme)) if id in one.points else "" for id in scheme.worth),
        shown(one.found.name),
        words,
    ]


def cell(text: str) -> str:
    """For a CSV file: a spreadsheet runs what begins like a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def summary(rows: list[Row], ignored: list[str], whole: str = "course") -> str:
    """A few lines for whoever waits at the terminal."""
    counted = [one for one in rows if one.counted]
    bad = [one for one in rows if one.problem]
    lines = [f"{_count(len(rows), 'submission')}, {_count(len(counted), 'grade')}."]
    if counted:
        shares = sorted(one.share for one in counted)
        lines[0] += f" The median is {percent(shares[len(shares) // 2])} of the {whole}."
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
