"""Reading `results.json` again, one submission at a time: that of a thousand students need not fit into memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from .results import RESULTS
from .scoring import Scheme

Entry = dict[str, Any]  # one submission; `results` says what is in it


class Report:
    """What a folder of the grader holds. Iterating gives the submissions, by the zip's name, anew each time.

    tasks: id → title, kind, points and worth, of all that count. scheme: how. chapters: chapter → its tasks. ignored: files that are no zips.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with open(folder / RESULTS, encoding="utf-8") as stream:
            first = stream.readline()
            last = first
            for line in stream:
                last = line
        head = json.loads(first.removesuffix(', "submissions": [\n') + "}")
        self.course: str = head["course"]
        self.rule: str = head["rule"]
        self.tasks: dict[str, dict[str, Any]] = head["tasks"]
        self.ignored: list[str] = json.loads("{" + last.removeprefix("], "))["ignored"]
        self.scheme = Scheme(self.tasks, head["class"])
        self.chapters = self.scheme.chapters

    def __iter__(self) -> Iterator[Entry]:
        with open(self.folder / RESULTS, encoding="utf-8") as stream:
            next(stream)
            for line in stream:
                if line.startswith("]"):
                    return
                entry: Entry = json.loads(line.rstrip(",\n"))
                yield entry

    def shares(self, entry: Entry) -> tuple[Fraction, dict[int, Fraction]]:
        """What a submission is worth, of the whole and of each chapter: exact, 0 to 1."""
        points = {id: (marks["points"], marks["of"]) for id, marks in entry["tasks"].items()}
        lost = {id: Fraction(str(marks["lost"])) for id, marks in entry["tasks"].items()}
        return self.scheme.shares(points, lost)
