"""What is graded already, in a file that only grows: after a kill at any moment the next run goes on from there.

One line of JSON for each zip, written through to the disk before the next one. The first line says what all were graded
with. A last line that is not whole was being written when the run ended, and does not count.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ..classroom import fingerprint
from ..errors import CourseError
from ..exercises import VERSION
from ..version import __version__
from .intake import shown

NAME = "journal.jsonl"
FORMAT = 2
_RESUME = "then run the same command again, and it goes on where it stopped"


def settings(secret: str, key: str) -> dict[str, Any]:
    """What marks depend on beside the zips. The words themselves are not in it."""
    return {
        "grading": FORMAT,
        "course": __version__,
        "checks": VERSION,
        "secret": fingerprint(secret),
        "class_key": fingerprint(key),
    }


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the disk into one sentence."""
    try:
        yield
    except OSError as error:
        raise CourseError(
            f"Cannot write {path.name!r} into {shown(str(path.parent))!r} ({error.strerror}): make room there, or give it the "
            f"rights, {_RESUME}."
        ) from None


@contextmanager
def whole(path: Path) -> Iterator[IO[str]]:
    """Write a text file under another name, and rename it when all of it is on the disk."""
    part = path.with_name(f"{path.name}.part")
    with writing(path):
        try:
            with open(part, "w", encoding="utf-8", newline="") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


class Journal:
    """The file in the folder of the report. Raises CourseError for a folder that holds something else.

    about: `settings`. A report that was graded with others is not mixed with these marks.
    """

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.path = folder / NAME
        self._places: dict[str, int] = {}  # SHA-256 of a zip → where its line begins
        head = json.dumps(about).encode() + b"\n"
        with writing(self.path):
            self._stream = open(self.path, "a+b")  # noqa: SIM115 - open as long as the run
        try:
            end = self._read(head)
            with writing(self.path):
                self._stream.truncate(end)  # the line that was cut off
                if not end:
                    self._append(head)
        except BaseException:
            self.close()
            raise

    def _read(self, head: bytes) -> int:
        """Learn where each line is; returns where the last whole one ends."""
        self._stream.seek(0)
        first = self._stream.readline(10_000)
        if not first.endswith(b"\n"):
            if head.startswith(first):
                return 0
            raise CourseError(f"{shown(str(self.path))!r} is no journal of this grader: give another folder for --out.")
        if first != head:
            raise CourseError(
                f"{shown(str(self.path.parent))!r} holds marks that were made with another version, secret or class key: give "
                f"another folder for --out, or delete this one."
            )
        end = self._stream.tell()
        for line in self._stream:
            if not line.endswith(b"\n"):
                break
            with contextlib.suppress(ValueError, KeyError, TypeError):  # damaged on the disk: graded anew
                self._places[json.loads(line)["sha256"]] = end
            end += len(line)
        return end

    def __contains__(self, digest: str) -> bool:
        return digest in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._places))

    def __getitem__(self, digest: str) -> dict[str, Any]:
        """The marks of the zip with this SHA-256."""
        self._stream.seek(self._places[digest])
        result: dict[str, Any] = json.loads(self._stream.readline())["result"]
        return result

    def add(self, digest: str, result: dict[str, Any]) -> None:
        """Write the marks of a zip, through to the disk."""
        with writing(self.path):
            self._stream.seek(0, os.SEEK_END)
            place = self._stream.tell()
            self._append(json.dumps({"sha256": digest, "result": result}).encode() + b"\n")
        self._places[digest] = place

    def _append(self, line: bytes) -> None:
        self._stream.write(line)
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what could not be written before cannot be written now
            self._stream.close()
