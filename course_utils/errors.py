"""The one error class of the course, and the sentence for a package that is not installed."""

from __future__ import annotations

import importlib
from types import ModuleType


class CourseError(Exception):
    """Something the student gave or has is not as expected. The message says what was given, what was expected, what to do.

    In a notebook the message stands alone, without a traceback through the helpers.
    """

    def _render_traceback_(self) -> list[str]:  # IPython calls this in place of its own traceback
        return [f"\x1b[31mCourseError\x1b[0m: {self}"]


class MissingPackageError(CourseError):
    """A package that a step needs is not installed."""


def require(package: str, extra: str | None = None) -> ModuleType:
    """Import an optional package, or say how to get it.

    package: import name; extra: the extra of this project that brings it (None: a core package).
    Raises CourseError (MissingPackageError) when it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package.split(".", maxsplit=1)[0]:
            raise  # the package is there, something it needs is not: its own message is the better one
        raise MissingPackageError(missing(package, extra)) from None


def missing(package: str, extra: str | None = None) -> str:
    """How to get a package that is not installed, in one sentence."""
    target = f"onnx-scroll[{extra}]" if extra else package.split(".", maxsplit=1)[0].replace("_", "-")
    return (
        f"The package {package!r} is not installed, and this step needs it. "
        f"Run  %pip install {target!r}  in a cell, then restart the kernel."
    )
