"""The answers a student keeps for the hand-in: one file each, and the list of them, `answers.json`."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .. import classroom
from ..errors import CourseError
from ..exercises import VERSION, Task
from ..paths import WORK, cannot_write, read_limited, write_whole
from . import guarded
from .assessing import LARGEST_ARTEFACT, read_json
from .points import task_points

ANSWERS = WORK / "answers"
MANIFEST = "answers.json"
FORMAT = 2
_LARGEST_LIST = 2**20  # bytes of the list; it has about 15 000
_PATIENCE = 30  # seconds to wait for another notebook that keeps an answer at this moment


def keep(it: Task, data: bytes, who: str, score: tuple[int, int]) -> str:
    """Put an artefact into `work/answers/<student>/` unless a better one is there; say in a few words what was done.

    score: its points, and those of a right answer. Raises CourseError where nothing can be written.
    """
    folder = ANSWERS / who
    with _alone(folder):
        manifest = manifest_of(folder)
        best = _points_of_kept(it, folder, manifest["tasks"].get(it.id), who)
        if best is not None and Fraction(*best) > Fraction(*score):
            return f"An earlier answer has {best[0]} of {best[1]} points and stays the one to hand in."
        with write_whole(folder / it.file) as stream:
            stream.write(data)
        manifest["tasks"][it.id] = {
            "file": it.file,
            "sha256": hashlib.sha256(data).hexdigest(),
            "points": score[0],
            "of": score[1],
            "checks": VERSION,
            **_class(),
        }
        with write_whole(folder / MANIFEST, "w") as stream:
            json.dump(manifest, stream, indent=2)
    return "Kept for cu.submit()."


def _class() -> dict[str, str]:
    """What an answer says of the class it was checked for: nothing where parameters are drawn without a key."""
    found = classroom.fingerprint(classroom.current().key)
    return {"class": found} if found else {}


def is_of_class(entry: Mapping[str, Any]) -> bool:
    """Whether a kept answer was checked for the class that is in use."""
    return entry.get("class", "") == classroom.fingerprint(classroom.current().key)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two notebooks may check answers at the same time: one after the other reads the list, and writes it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=_PATIENCE):
            yield
    except Timeout:
        raise CourseError(
            f"Another program has kept {str(folder)!r} locked for {_PATIENCE} s: close other notebooks, then run this again."
        ) from None
    except OSError as error:
        raise CourseError(cannot_write(folder / MANIFEST, error)) from None


def _points_of_kept(it: Task, folder: Path, entry: dict[str, Any] | None, who: str) -> tuple[int, int] | None:
    """Points of the answer that is kept already; none when it is lost, was changed, or cannot be checked."""
    data = None if entry is None else content(folder, entry)
    if entry is None or data is None:
        return None
    if entry.get("checks") == VERSION and is_of_class(entry):
        return entry["points"], entry["of"]
    # Counted by other checks than today's, or for the parameters of another class.
    verdict = guarded.examine(it, data, entry["file"], who, key=classroom.current().key)
    return None if verdict.problem else task_points(it, verdict.criteria)


def content(folder: Path, entry: dict[str, Any]) -> bytes | None:
    """The bytes of a kept answer; none when they are not those that were checked."""
    try:
        data = read_limited(folder / entry["file"], LARGEST_ARTEFACT)
    except OSError:
        return None
    return data if hashlib.sha256(data).hexdigest() == entry["sha256"] else None


def manifest_of(folder: Path) -> dict[str, Any]:
    """What is kept for hand-in in one student's answers folder; empty when there is nothing."""
    path = folder / MANIFEST
    try:
        data = read_limited(path, _LARGEST_LIST)
    except FileNotFoundError:
        return {"format": FORMAT, "student": folder.name, "tasks": {}}
    except OSError as error:
        raise CourseError(f"{str(path)!r} cannot be read ({error.strerror}): check its rights.") from None
    found = read_json(data, str(path))
    tasks = found.get("tasks") if isinstance(found, dict) else None
    if not isinstance(tasks, dict) or not all(map(_is_entry, tasks.values())):
        raise CourseError(f"{str(path)!r} is damaged: delete it and run the cu.check(…) cells again.")
    return found | {"format": FORMAT, "student": folder.name}


def _is_entry(entry: Any) -> bool:
    """Whether this says of a kept answer what `keep` says, or said in format 1; its file must lie in the folder itself."""
    if not isinstance(entry, dict):
        return False
    kinds = {name: type(value) for name, value in entry.items()}
    counts = ("points", "of", "checks") if "checks" in entry else ("passed", "of")
    return (
        {"file": str, "sha256": str, **dict.fromkeys(counts, int)}.items() <= kinds.items()
        and re.fullmatch(r"\w[\w.-]*", entry["file"]) is not None
        and entry["file"] != MANIFEST
        and 0 <= entry[counts[0]] <= entry["of"]
        and ("checks" not in entry or entry["of"] > 0)
    )


def kept_answers(who: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What one student keeps for the hand-in: the manifest, and the bytes of each answer by task id.

    An answer that was changed or deleted behind the check's back is left out of both, and said so.
    Raises CourseError when there is none.
    """
    folder = ANSWERS / who
    manifest = manifest_of(folder)
    answers, lost = {}, []
    for name, entry in manifest["tasks"].items():
        if (data := content(folder, entry)) is not None:
            answers[name] = data
        else:
            lost.append(
                f"The kept answer {str(folder / entry['file'])!r} was changed or deleted: run the cu.check({name!r}, …) "
                f"cell again."
            )
    if lost and not answers:
        raise CourseError(lost[0])
    if not answers:
        raise CourseError("There is no answer to hand in yet: run a cu.check(…) cell first. It keeps what it has seen.")
    for sentence in lost:
        print(f"Left out. {sentence}")
    return {**manifest, "tasks": {name: manifest["tasks"][name] for name in answers}}, answers
