"""The instructor's secret: a word in a file, from which hidden inputs are drawn."""

from __future__ import annotations

from pathlib import Path

from ..errors import CourseError
from ..paths import read_limited

_LONGEST_SECRET = 4096  # bytes


def read_secret(path: Path | None) -> str:
    """The word in the file; empty without a file. Raises CourseError where there is none in it."""
    if path is None:
        return ""
    try:
        word = read_limited(path, _LONGEST_SECRET).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise CourseError(f"The secret in {str(path)!r} cannot be read ({why}): give a short text file.") from None
    if not word:
        raise CourseError(f"The secret in {str(path)!r} is empty: write a long word that nobody guesses into it.")
    return word
