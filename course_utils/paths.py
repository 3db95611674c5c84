"""Where the course's own files are, and how files are written."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from .errors import CourseError

PACKAGE = Path(__file__).parent
BOOK_MODELS = "COURSE_BOOK_MODELS"  # set by the book's build: the folder its pages open models from
WORK = Path("work")  # beside the notebook: everything a lesson or a student writes


def data_path(name: str = "") -> Path:
    """A file of the course's `data/`: in a checkout the folder beside the package, in an installed wheel the copy within."""
    installed, checkout = PACKAGE / "_data", PACKAGE.parent / "data"
    return (checkout if checkout.is_dir() and not installed.is_dir() else installed) / name


class NoOrdinaryFileError(OSError):
    """A pipe or a device: reading it may never end."""


class TooLargeError(OSError):
    """A file with more bytes than were asked for."""


def read_limited(path: Path, most: int) -> bytes:
    """The bytes of an ordinary file. Raises OSError; for a file of more than `most` bytes TooLargeError."""

    def must_be_ordinary(about: os.stat_result) -> None:
        if stat.S_ISDIR(about.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(about.st_mode):
            raise NoOrdinaryFileError(errno.EINVAL, "no ordinary file")
        if about.st_size > most:
            raise TooLargeError(errno.EFBIG, os.strerror(errno.EFBIG))

    must_be_ordinary(path.stat())  # to open a device may already do something
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags), "rb") as stream:
        must_be_ordinary(os.fstat(stream.fileno()))  # another file may have come to its place meanwhile
        data = stream.read(most + 1)  # and this one may grow
    if len(data) > most:
        raise TooLargeError(errno.EFBIG, os.strerror(errno.EFBIG))
    return data


_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}  # Windows knows no quota by that name


def cannot_write(path: Path, error: OSError) -> str:
    try:
        folder = str(path.parent.resolve())
    except OSError:  # the current folder was deleted
        folder = str(path.parent)
    if error.errno in _FULL:
        return (
            f"Cannot write {path.name!r} into {folder!r} ({error.strerror}): delete what you no longer "
            f"need there, then run the cell again."
        )
    return (
        f"Cannot write {path.name!r} into {folder!r} ({error.strerror}): copy the notebook into "
        f"a folder of your own and open it from there."
    )


@contextmanager
def write_whole(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO]:
    """Open a file beside `path` and rename it when all is written, so that no half-written file is ever left.

    Text (mode "w") is UTF-8 with plain line ends, so that its bytes are the same on every system.
    Raises CourseError where the folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise CourseError(cannot_write(path, error)) from None
    try:
        text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
        with os.fdopen(handle, mode, **text) as stream:
            yield stream
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except BaseException as error:
        Path(partial).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _FULL:
            raise CourseError(cannot_write(path, error)) from None
        raise


def inside(model: Path, name: str | bytes) -> bool:
    """Whether a name leads to a place below the model's folder.

    A link may lead on, as in the cache of the Hugging Face hub, where the model itself is one and its real folder holds
    both files. ONNX Runtime has the same rule.
    """
    if isinstance(name, bytes) or "\0" in name or "\\" in name or ":" in name[1:2] or Path(name).is_absolute():
        return False
    try:
        target = (model.parent / name).resolve()
        return any(target.is_relative_to(folder) for folder in (model.parent.resolve(), model.resolve().parent))
    except (OSError, RuntimeError, ValueError):  # a circle of links, a name that is too long
        return False


def is_file(path: Path) -> bool:
    """Whether there is an ordinary file."""
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False
