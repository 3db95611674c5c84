"""The class a student is in: `class.json`, which lies in the bundle that an instructor hands out.

    {"onnx_scroll_class": 1, "course": version it was made with, "title", "key": word that parameters are drawn from,
     "tasks": [ids], "due": {id: date in ISO form}, "solutions": whether cu.solution shows them}

There is no secret in it. Without the file, a student is in no class, and nothing is drawn from a key.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import CourseError
from .paths import read_limited
from .words import plain

FILE = "class.json"
PLACE = "COURSE_CLASS"  # a hub sets it: the path of the file
MARK, FORMAT = "onnx_scroll_class", 1
LONGEST_WORD = 200  # characters of a title or a key
_LARGEST = 2**16  # bytes; that of a whole course has about 6 000
_UP = 3  # folders above the notebook that are looked into; in a bundle, it lies two above an exercise


@dataclass(frozen=True)
class ClassInfo:
    """What a student's notebook knows of the class. due: task → date in ISO form."""

    title: str = ""
    key: str = ""
    tasks: tuple[str, ...] = ()
    due: dict[str, str] = field(default_factory=dict)
    solutions: bool = True


_current: list[ClassInfo] = []  # at most one; empty until cu.setup(student=…) has found a class


def remember() -> None:
    """Look for the class of the notebook in the current folder. Raises CourseError for a file that cannot be one."""
    path = _find()
    _current[:] = [] if path is None else [read(path)]


def current() -> ClassInfo:
    """The class in use; without one, a class that changes nothing."""
    return _current[0] if _current else ClassInfo()


def greeting() -> str:
    return f" · class {plain(_current[0].title)!r}" if _current else ""


def fingerprint(word: str) -> str:
    """Tells whether it is the same word. Eight digits: not enough to find a good word by trying."""
    return hashlib.sha256(f"grading/{word}".encode()).hexdigest()[:8] if word else ""


def _find() -> Path | None:
    if place := os.environ.get(PLACE):
        return Path(place)
    here = Path.cwd()
    return next((at / FILE for at in (here, *here.parents[:_UP]) if os.path.lexists(at / FILE)), None)


def read(path: Path) -> ClassInfo:
    """The class in a file. Raises CourseError, in one sentence, when it is none."""
    try:
        found = json.loads(read_limited(path, _LARGEST).decode("utf-8-sig"))
    except OSError as error:
        raise CourseError(
            f"The class in {str(path)!r} cannot be read ({error.strerror}): copy {FILE} from your instructor's bundle to there."
        ) from None
    except (ValueError, RecursionError):
        raise _damaged(path, "it is not JSON") from None
    if not isinstance(found, dict) or MARK not in found:
        raise _damaged(path, f"it has no {MARK!r}")
    if found[MARK] != FORMAT:
        raise CourseError(
            f"The class in {str(path)!r} has format {plain(repr(found[MARK]))}, and this course knows {FORMAT}: install the course "
            f"that came with it."
        )
    return _info(path, found)


def _info(path: Path, found: dict[str, Any]) -> ClassInfo:
    given: dict[str, Any] = {"title": "", "key": "", "tasks": [], "due": {}, "solutions": True} | found
    for name, fits in {
        "title": _is_word,
        "key": _is_word,
        "tasks": lambda ids: isinstance(ids, list) and all(map(_is_word, ids)),
        "due": lambda due: isinstance(due, dict) and all(map(_is_word, due.values())),
        "solutions": lambda on: isinstance(on, bool),
    }.items():
        if not fits(given[name]):
            raise _damaged(path, f"its {name!r} is not what the course writes")
    return ClassInfo(given["title"], given["key"], tuple(given["tasks"]), given["due"], given["solutions"])


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_WORD and (value.isprintable() or not value)


def _damaged(path: Path, why: str) -> CourseError:
    return CourseError(
        f"{str(path)!r} is not the class file of this course ({why}): copy it from your instructor's bundle again, or move it "
        f"away if it belongs to something else."
    )
