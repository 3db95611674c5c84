"""Who is doing the exercises: the id that personal parameters are drawn from."""

from __future__ import annotations

import os
import re

from .errors import CourseError

GUEST = "guest"
ID = re.compile(r"\w[\w.@+-]{0,63}")  # it stands in file names
_current: list[str] = []  # at most one; empty until cu.setup(student=…) has run


def remember(student: str) -> None:
    """Take the id given to `cu.setup(student=…)`. A hub's user name replaces `guest`.

    Raises CourseError for an id that cannot stand in a file name.
    """
    if student == GUEST:
        student = os.environ.get("COURSE_STUDENT") or os.environ.get("JUPYTERHUB_USER") or GUEST
    if not isinstance(student, str) or not ID.fullmatch(student):
        raise CourseError(
            f"setup() was given student={student!r}: it expects 1 to 64 letters, digits or any of . @ + - _, begun by "
            f"a letter or digit, such as a student number or an e-mail address."
        )
    _current[:] = [student]


def current() -> str:
    """The id in use. Raises CourseError before `cu.setup(student=…)` has run."""
    if not _current:
        raise CourseError("It is not known yet who you are: run the cell with cu.setup(student=…) first.")
    return _current[0]


def greeting() -> str:
    return f" · exercises for {_current[0]!r}" if _current else ""
