"""Submissions for the tests of the grader: zips as `cu.submit()` writes them, from answers that the exercises' tests know."""

from __future__ import annotations

import functools
import hashlib
import importlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from course_utils.exercises import VERSION, task
from course_utils.version import __version__


@functools.cache
def right(id: str, who: str) -> bytes:
    """A right answer, as the file that a student writes."""
    return _file(id, _registry(id, "RIGHT")[0](who))


@functools.cache
def wrong(id: str, who: str) -> bytes:
    """An answer with one of the typical mistakes."""
    make, _ = next(iter(_registry(id, "WRONG").values()))
    return _file(id, make(who))


def _registry(id: str, name: str) -> Any:
    chapter = int(id.partition(".")[0])
    return getattr(importlib.import_module(f"test_exercise_{chapter:02}"), name)[id]


def _file(id: str, value: Any) -> bytes:
    return json.dumps(value).encode() if task(id).kind == "json" else value.SerializeToString()


def listed(who: str, answers: Mapping[str, bytes], claims: Mapping[str, tuple[int, int]] = {}, **more: Any) -> dict:
    """What answers.json says. claims: points that differ from all of them."""
    entries = {}
    for id, data in answers.items():
        points, of = claims.get(id, (task(id).points, task(id).points))
        digest = hashlib.sha256(data).hexdigest()
        entries[id] = {"file": task(id).file, "sha256": digest, "points": points, "of": of, "checks": VERSION}
    return {"format": 2, "student": who, "tasks": entries, "course": __version__, **more}


def packed(entries: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED, 1)  # weights hardly shrink
    return stream.getvalue()


def submission(
    who: str, answers: Mapping[str, bytes], claims: Mapping[str, tuple[int, int]] = {}, **more: Any
) -> bytes:
    """The bytes of a student's zip."""
    about = json.dumps(listed(who, answers, claims, **more)).encode()
    return packed({**{task(id).file: data for id, data in answers.items()}, "answers.json": about})


def put(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
