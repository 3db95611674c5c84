"""The class file, a small YAML that an instructor edits: which tasks, for how many points, until when, and by which rules.

`notebooks/assignments/class.yaml` is an example with all fields. A file with faults is refused as a whole, with one
sentence for each of them. Every value is read as the text that stands there: 4.10 is no number and 2026-10-30 no date before
it is known what it should be.
"""

from __future__ import annotations

import datetime
import difflib
import re
import zoneinfo
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

from .. import classroom
from ..errors import CourseError
from ..version import __version__
from .class_yaml import FileFaultsError, Reader
from .intake import shown
from .marking import every_task

RULES = ("last", "best")
_ON = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}
_MOST_POINTS, _MOST_DAYS = 1000, 365
_NUMBER = re.compile(r"(?P<minus>-?)[0-9]{1,5}(\.[0-9]{1,2})?", re.ASCII)
_SELECTED = re.compile(r"(?P<chapter>[0-9]{1,2})(?P<task>\.[0-9]{1,2})?", re.ASCII)
_DATE = re.compile(r"(?P<day>\d{4}-\d\d-\d\d)([ T](?P<time>\d\d:\d\d(:\d\d)?) ?(?P<zone>Z|[+-]\d\d:\d\d)?)?", re.ASCII)
_YEARS = range(2000, 2200)
_ALL = "all"


@dataclass(frozen=True)
class Late:
    """percent: of a task's points that are lost for each day begun after the due date. days: the last one that is accepted."""

    percent: Fraction
    days: int | None = None


@dataclass(frozen=True)
class ClassFile:
    """A class. tasks: ids, in the order of the file. worth: points of each. due: of those that have a date. key: "" without."""

    title: str
    tasks: tuple[str, ...]
    worth: dict[str, Fraction]
    due: dict[str, datetime.datetime] = field(default_factory=dict)
    late: Late | None = None
    rule: str = "last"
    key: str = ""
    solutions: bool = True

    def about(self) -> dict[str, Any]:
        """Title, dates and late rule, as `results.json` says them."""
        late = self.late and {"percent_per_day": number(self.late.percent), "days": self.late.days}
        return {"title": self.title, "due": self._dates(), "late": late}

    def for_students(self) -> dict[str, Any]:
        """What `class.json` says. There is no secret in it."""
        return {
            classroom.MARK: classroom.FORMAT, "course": __version__, "title": self.title, "key": self.key,
            "tasks": list(self.tasks), "due": self._dates(), "solutions": self.solutions,
        }  # fmt: skip

    def _dates(self) -> dict[str, str]:
        return {id: date.isoformat() for id, date in self.due.items()}


def number(value: Fraction) -> int | float:
    """For JSON. A number with few decimals comes back exactly, by `Fraction(str(…))`."""
    return value.numerator if value.denominator == 1 else float(value)


def read(path: Path) -> ClassFile:
    """The class in a file. Raises CourseError: a sentence for each fault, with its line."""
    reader = Reader(path)
    try:
        found = _Class(reader).read()
    except FileFaultsError:
        found = None
    if found is None or reader.faults:
        raise CourseError(reader.said())
    return found


class _Class:
    """Reads the fields one after the other, and notes what is wrong with each."""

    def __init__(self, reader: Reader) -> None:
        self._reader, self._known = reader, every_task()
        self._chapters: dict[str, list[str]] = {}
        for id in self._known:
            self._chapters.setdefault(id.partition(".")[0], []).append(id)
        self._zone: datetime.tzinfo | None = None
        self._tasks: list[str] = []

    def read(self) -> ClassFile:
        fields: dict[str, Callable[[yaml.Node], Any]] = {
            "title": self._title, "time_zone": self._time_zone, "tasks": self._selection, "points": self._points, "due": self._due,
            "late": self._late, "rule": self._rule, "key": self._word, "solutions": self._switch,
        }  # fmt: skip
        given = self._reader.top()
        known = {name: value for name, (key, value) in given.items() if self._is_field(name, key, [*fields])}
        values: dict[str, Any] = {}
        for name, take in fields.items():  # in this order: dates need the zone, and points the selection
            if name in known and (name == "tasks" or not self._reader.is_nothing(known[name])):
                values[name] = take(known[name])
            elif name == "tasks":
                self._tasks = [*self._known]
        worth = {id: Fraction(self._known[id].points) for id in self._tasks} | values.get("points", {})
        if self._tasks and not sum(worth.values()):
            self._reader.fault(known.get("points"), "All tasks together have 0 points: give one of them more.")
        if values.get("late") and not values.get("due") and "due" not in known:
            self._reader.fault(known["late"], "There is a late rule and no due date: give 'due', or leave 'late' out.")
        return ClassFile(
            values.get("title") or "ONNX Scroll", tuple(self._tasks), worth, values.get("due") or {}, values.get("late"),
            values.get("rule") or "last", values.get("key") or "", values.get("solutions", True),
        )  # fmt: skip

    def _is_field(self, name: str, key: yaml.Node, fields: list[str]) -> bool:
        if name in fields:
            return True
        if name == "secret":
            said = "The secret does not stand in this file: write it into another one, and give that as --secret-file."
        else:
            said = f"There is no field {shown(name)!r}{_nearest(name, fields)}"
        self._reader.fault(key, said)
        return False

    # Words.

    def _word(self, node: yaml.Node, what: str = "key") -> str:
        word = self._reader.text(node, f"{what!r} must be a word or a sentence")
        if word is not None and (len(word) > classroom.LONGEST_WORD or not word.isprintable()):
            self._reader.fault(node, f"{what!r} has up to {classroom.LONGEST_WORD} characters that can be printed.")
        return word or ""

    def _title(self, node: yaml.Node) -> str:
        return self._word(node, "title")

    def _rule(self, node: yaml.Node) -> str:
        word = self._reader.text(node, "'rule' must be last or best")
        if word is not None and word not in RULES:
            self._reader.fault(node, f"'rule' is {shown(word)!r}, and it must be last or best.")
        return word or ""

    def _switch(self, node: yaml.Node) -> bool:
        word = self._reader.text(node, "'solutions' must be on or off")
        if word is not None and word.lower() not in _ON:
            self._reader.fault(node, f"'solutions' is {shown(word)!r}, and it must be on or off.")
        return _ON.get((word or "").lower(), True)

    def _time_zone(self, node: yaml.Node) -> None:
        word = self._reader.text(node, "'time_zone' must be a name such as Europe/Berlin")
        try:
            self._zone = zoneinfo.ZoneInfo(word) if word else None
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            self._zone = datetime.UTC  # so that no date is blamed for it
            self._reader.fault(
                node,
                f"'time_zone' is {shown(word or '')!r}, and this machine knows no such zone: write one such as Europe/Berlin, or "
                f"an offset in each date. Where it knows none at all, run  pip install tzdata.",
            )

    # Tasks, and what is said of them.

    def _ids(self, node: yaml.Node, name: str) -> list[str]:
        """The tasks that a chapter or an id stands for; none, and a fault, when there are none."""
        match = _SELECTED.fullmatch(name)
        chapter = str(int(match["chapter"])) if match else ""
        ids = self._chapters.get(chapter, [])
        if match and match["task"]:
            ids = [id for id in ids if id == chapter + match["task"]]
        if not ids:
            here = self._chapters.get(chapter)
            has = f"chapter {chapter} has {', '.join(here)}" if here else f"chapters are {', '.join(self._chapters)}"
            self._reader.fault(
                node,
                f"There is no task or chapter {shown(name)!r}: {has}; write a chapter such as 2, or a task such as 2.1.",
            )
        return ids

    def _selection(self, node: yaml.Node) -> None:
        if isinstance(node, yaml.ScalarNode) and node.value == _ALL:
            self._tasks = [*self._known]
            return
        wanted = "'tasks' is a list of chapters and tasks, such as [1, 2.1, 2.3], or the word all"
        by: dict[str, str] = {}
        faults = len(self._reader.faults)
        for item in self._reader.items(node, wanted):
            name = self._reader.text(item, wanted)
            for id in self._ids(item, name) if name is not None else []:
                if id in by:
                    self._reader.fault(
                        item, f"Task {id} is selected twice, by {by[id]!r} and by {shown(name or '')!r}."
                    )
                by.setdefault(id, shown(name or ""))
        self._tasks = [*by]
        if not by and len(self._reader.faults) == faults:
            self._reader.fault(node, f"No task is selected: {wanted}.")

    def _by_task(self, node: yaml.Node, wanted: str, take: Callable[[yaml.Node, str], Any]) -> dict[str, Any]:
        """A value for each task. One that stands at the task goes before that of its chapter, and that before `all`."""
        levels: list[dict[str, Any]] = [{}, {}, {}]
        for name, (key, value) in self._reader.mapping(node, wanted).items():
            ids = self._tasks if name == _ALL else self._ids(key, name)
            chosen = [id for id in ids if id in self._tasks]
            if ids and not chosen:
                self._reader.fault(
                    key, f"{shown(name)!r} is not among the selected tasks: select it, or take it out here."
                )
            found = take(value, name)
            if found is not None:
                level = 0 if name == _ALL else 1 + ("." in name)
                if twice := [id for id in chosen if id in levels[level]]:
                    self._reader.fault(key, f"{shown(name)!r} stands for {twice[0]}, which has a value already.")
                levels[level].update(dict.fromkeys(chosen, found))
        return levels[0] | levels[1] | levels[2]

    def _points(self, node: yaml.Node) -> dict[str, Fraction]:
        def take(value: yaml.Node, name: str) -> Fraction | None:
            return self._number(value, f"The points of {shown(name)}", _MOST_POINTS)

        return self._by_task(node, "'points' says for tasks how many they have, such as {2.1: 10}", take)

    def _number(self, node: yaml.Node, what: str, most: int) -> Fraction | None:
        wanted = f"they must be 0 to {most}, with two decimals at most"
        text = self._reader.text(node, f"{what} are a number; {wanted}")
        if text is None:
            return None
        match = _NUMBER.fullmatch(text)
        if not match or match["minus"] or Fraction(text) > most:
            self._reader.fault(node, f"{what} are {shown(text)!r}, and {wanted}.")
            return None
        return Fraction(text)

    def _due(self, node: yaml.Node) -> dict[str, datetime.datetime]:
        if isinstance(node, yaml.ScalarNode):
            date = self._date(node, "all")
            return dict.fromkeys(self._tasks, date) if date else {}
        found = self._by_task(node, "'due' is a date, or says one for chapters and tasks", self._date)
        return {id: found[id] for id in self._tasks if id in found}

    def _date(self, node: yaml.Node, name: str) -> datetime.datetime | None:
        wanted = "write a day such as 2026-10-30, or a time such as 2026-10-30 18:00"
        text = self._reader.text(node, f"The due date of {shown(name)} is a day or a time: {wanted}")
        match = _DATE.fullmatch(text or "")
        if text is None or not match:
            if text is not None:
                self._reader.fault(node, f"The due date of {shown(name)}, {shown(text)!r}, is no date: {wanted}.")
            return None
        zone = (match["zone"] or "").replace("Z", "+00:00")
        try:
            date = datetime.datetime.fromisoformat(f"{match['day']}T{match['time'] or '23:59:59'}{zone}")
            if date.year not in _YEARS:
                raise ValueError(f"the year must be {_YEARS[0]} to {_YEARS[-1]}")
        except ValueError as error:
            self._reader.fault(
                node, f"The due date of {shown(name)}, {text!r}, is an impossible date ({error}): {wanted}."
            )
            return None
        if date.tzinfo is None and self._zone is None:
            self._reader.fault(
                node,
                f"The due date of {shown(name)}, {text!r}, has no time zone: give 'time_zone', such as Europe/Berlin.",
            )
            return None
        return date if date.tzinfo else date.replace(tzinfo=self._zone)

    def _late(self, node: yaml.Node) -> Late | None:
        wanted = "'late' has percent_per_day, and may have days, the last day that is accepted"
        given = self._reader.mapping(node, wanted)
        names = ["percent_per_day", "days"]
        for name, (key, _) in given.items():
            if name not in names:
                self._reader.fault(key, f"There is no field {shown(name)!r} in 'late'{_nearest(name, names)}")
        percent = days = None
        if names[0] in given:
            percent = self._number(given[names[0]][1], "The percent for a late day", 100)
        elif given:
            self._reader.fault(node, f"The percent for a late day is missing: {wanted}.")
        if names[1] in given:
            days = self._number(given[names[1]][1], "The days after the due date", _MOST_DAYS)
            if days is not None and days.denominator != 1:
                self._reader.fault(
                    given[names[1]][1], f"The days after the due date are {float(days)}: write a whole number."
                )
        return None if percent is None else Late(percent, None if days is None else int(days))


def _nearest(name: str, fields: list[str]) -> str:
    near = difflib.get_close_matches(name, fields, 1)
    return f": do you mean {near[0]!r}?" if near else f": fields are {', '.join(fields)}."
