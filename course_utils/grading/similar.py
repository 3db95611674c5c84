"""Answers of different students that are alike: `similar.json`.

    {"format": 1,
     "groups": [{"task", "alike": "bytes" or "weights",
       "handed_in": students who handed this task in,
       "common": more than half of more than two have it, so it comes from the course rather than from one another,
       "same_parameters": all members were given the same numbers, so right answers may be the same by chance,
       "members": [{"student", "zip", "points", "of",
                    "fits": false when the same bytes earn another all points, and this one fewer: they are made for the
                            other's parameters}]}],
     "not_looked_at": [{"task", "zip", "why"}]}

"bytes": the files are the same, and earn somebody points; files as they were handed out earn nobody any. "weights": the files
differ, and hold the same tensors, whatever their names, their order and the nodes around them are. Only what stands in
initializers counts, and only tensors of 64 bytes or more: small ones, such as a shape or a scale, are alike by chance.

Not looked for: weights that were changed a little, cast or quantized; weights in `Constant` nodes; a file solved for another's
parameters and then written anew; texts that are alike. Right answers of honest students differ, for their parameters do. What
is alike is a reason to ask, and no proof.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import student
from ..diagnosis.file.skeleton import MalformedError, fields
from ..errors import CourseError
from ..exercises import personal_params, task
from .intake import find, reopened
from .journal import whole
from .reading import Entry, Report

SIMILAR = "similar.json"
FORMAT = 1
_SMALLEST = 64  # bytes of a tensor
_MOST_FIELDS = 200_000  # of a model; what the course hands out has some thousand
_GRAPH, _INITIALIZER = 7, 5  # fields of ModelProto and GraphProto
_DIMS, _TYPE, _TEXT, _EXTERNAL = 1, 2, 6, 13  # of TensorProto
_DATA = {4, 5, 7, 9, 10, 11}


@dataclass(frozen=True)
class Member:
    """One of those who have it."""

    student: str
    zip: str
    points: int
    of: int
    fits: bool = True


@dataclass(frozen=True)
class Group:
    """Answers to one task that are alike."""

    task: str
    alike: str
    handed_in: int
    common: bool
    same_parameters: bool
    members: list[Member]


def weights(data: bytes) -> str:
    """A sum over the tensors in a model's initializers, whatever their names and order; "" when there is none of 64 bytes.

    Nothing is built from the file: it is gone through field by field. Raises MalformedError for what is no model, and
    CourseError for one of more parts than any answer has.
    """
    view = memoryview(data)
    count = 0

    def parts(start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        nonlocal count
        for number, kind, _, content, stop in fields(view, start, end):
            count += 1
            if count > _MOST_FIELDS:
                raise CourseError(f"It has more than {_MOST_FIELDS:,} parts: its weights are not compared.")
            yield number, kind, content, stop

    sums = []
    for number, kind, content, stop in parts(0, len(view)):
        if (number, kind) != (_GRAPH, 2):
            continue
        for inner, wire, start, end in parts(content, stop):
            if (inner, wire) == (_INITIALIZER, 2) and end - start >= _SMALLEST:
                tensor = [(n, view[a:b]) for n, _, a, b in parts(start, end)]
                held = [piece for n, piece in tensor if n in _DATA]
                if sum(map(len, held)) >= _SMALLEST and not any(n in (_TEXT, _EXTERNAL) for n, _ in tensor):
                    one = hashlib.sha256()
                    for wanted in (_TYPE, _DIMS):
                        one.update(b"|" + b",".join(bytes(piece) for n, piece in tensor if n == wanted))
                    for piece in held:
                        one.update(piece)
                    sums.append(one.digest())
    return hashlib.sha256(b"".join(sorted(sums))).hexdigest() if sums else ""


def look(report: Report, submissions: Path, key: str = "") -> tuple[list[Group], list[dict[str, str]]]:
    """All groups, those that tell most first, and what could not be looked at.

    submissions: the folder that was graded; key: of the class. A zip that is not the one of the report any more is left out.
    """
    zips = {one.name: one for one in find(submissions)[0]}
    by_bytes: dict[tuple[str, str], list[tuple[Entry, str]]] = defaultdict(list)
    by_weights: dict[tuple[str, str], list[tuple[Entry, str]]] = defaultdict(list)
    handed_in: dict[str, set[str]] = defaultdict(set)
    not_looked_at = []
    for entry in report:
        known = {key: entry[key] for key in ("student", "zip")} | {"tasks": _points(entry)}
        checked = {
            id: marks["sha256"] for id, marks in entry["tasks"].items() if marks["sha256"] and not marks["problem"]
        }
        for id, digest in checked.items():
            handed_in[id].add(_who(entry))
            by_bytes[id, digest].append((known, digest))
        models = [id for id in checked if report.tasks[id]["kind"] == "onnx"]
        opened = reopened(zips.get(entry["zip"]), entry["sha256"]) if models else None
        if opened is None:
            continue
        for id in models:
            try:
                found = weights(opened.read(entry["tasks"][id]["file"]))
            except MalformedError:  # the marks say so already
                continue
            except CourseError as error:
                not_looked_at.append({"task": id, "zip": entry["zip"], "why": str(error)})
                continue
            if found:
                by_weights[id, found].append((known, checked[id]))
    order = {id: place for place, id in enumerate(report.tasks)}
    groups = [
        *(
            _group(id, "bytes", len(handed_in[id]), found, key)
            for (id, _), found in by_bytes.items()
            if _alike(found, id)
        ),
        *(
            _group(id, "weights", len(handed_in[id]), found, key)
            for (id, _), found in by_weights.items()
            if len(_people(found)) > 1 and len({digest for _, digest in found}) > 1
        ),
    ]
    groups.sort(key=lambda g: (g.common, g.same_parameters, order[g.task], g.alike, len(g.members), g.members[0].zip))
    return groups, not_looked_at


def _points(entry: Entry) -> dict[str, tuple[int, int]]:
    return {id: (marks["points"], marks["of"]) for id, marks in entry["tasks"].items()}


def _who(entry: Entry) -> str:
    """Who it is from: nobody knows how many guests there are."""
    return f"guest in {entry['zip']}" if entry["student"] == student.GUEST else entry["student"]


def _people(found: list[tuple[Entry, str]]) -> set[str]:
    return {_who(entry) for entry, _ in found}


def _alike(found: list[tuple[Entry, str]], id: str) -> bool:
    return len(_people(found)) > 1 and any(entry["tasks"][id][0] for entry, _ in found)


def _group(id: str, alike: str, handed_in: int, found: list[tuple[Entry, str]], key: str) -> Group:
    most = max(entry["tasks"][id] for entry, _ in found)
    drawn = {repr(personal_params(task(id), entry["student"], key)) for entry, _ in found}
    made_for_one = alike == "bytes" and most[0] == most[1] and len(drawn) > 1
    members = [
        Member(entry["student"], entry["zip"], points, of, fits=not made_for_one or points == most[0])
        for entry, _ in found
        for points, of in [entry["tasks"][id]]
    ]
    # Of two answers nobody can tell whether their weights come from the course.
    common = len(_people(found)) * 2 > handed_in and (handed_in > 2 or alike == "weights")
    return Group(id, alike, handed_in, common, len(drawn) == 1, members)


def write(folder: Path, groups: list[Group], not_looked_at: list[dict[str, str]]) -> None:
    """Write `similar.json`. Raises CourseError when the disk is full."""
    about: dict[str, Any] = {
        "format": FORMAT, "groups": [asdict(group) for group in groups], "not_looked_at": not_looked_at,
    }  # fmt: skip
    with whole(folder / SIMILAR) as stream:
        json.dump(about, stream, indent=1)
        stream.write("\n")
