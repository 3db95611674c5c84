"""What lies in the folder of submissions, and what is in one zip. Nothing of it is trusted, and nothing is unpacked to disk."""

from __future__ import annotations

import collections
import hashlib
import io
import os
import re
import stat
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import CourseError
from ..handin.assessing import LARGEST_ARTEFACT
from ..handin.keeping import MANIFEST
from ..paths import NoOrdinaryFileError, TooLargeError, read_limited

LARGEST_ZIP = 256 * 2**20  # bytes; a whole course has about eight million
LARGEST_UNPACKED = 512 * 2**20  # bytes, all entries of a zip together
MOST_ENTRIES = 1000
_LARGEST_DIRECTORY = 2**20  # bytes of a zip's own list of its entries; that of a whole course has about 4 000
_DENSE, _SMALL = 100, 64 * 2**20  # a zip may be so many times larger inside, or have so many bytes there
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}  # others may ask for a gigabyte before the first byte comes out
_LONGEST_NAME = 150  # characters that are shown of a name

_AGAIN = "ask for the zip that cu.submit() wrote"


@dataclass(frozen=True)
class Found:
    """A submission in the folder. name: its path in it, with /. problem: why it cannot be read, one sentence."""

    path: Path
    name: str
    modified: int = 0  # seconds since 1970
    problem: str = ""


def shown(name: str) -> str:
    """A name that may hold anything, as one short line: what cannot be printed, or turns the direction of text, is a ?."""
    text = "".join(c if c.isprintable() else "?" for c in name[: _LONGEST_NAME + 1])
    return text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}…"


def find(folder: Path) -> tuple[list[Found], list[str]]:
    """All submissions in a folder and in the folders below, by name; and the names of what is none.

    Links are not followed. Raises CourseError when the folder itself cannot be read.
    """
    try:
        os.listdir(folder)
    except OSError as error:
        raise CourseError(
            f"The submissions in {shown(str(folder))!r} cannot be read ({error.strerror}): give a folder of zips."
        ) from None
    found: list[Found] = []
    others: list[str] = []
    closed: list[OSError] = []
    for place, folders, files in os.walk(folder, onerror=closed.append):
        if Path(place).name == "__MACOSX":  # what a Mac adds to each zip it makes
            folders.clear()
            continue
        for name in [*folders, *files]:
            path = Path(place, name)
            if not name.lower().endswith(".zip") or name.startswith("."):
                if name in files or path.is_symlink():
                    others.append(shown(_below(folder, path)))
                continue
            found.append(_found(folder, path))
    for failed in closed:
        path = Path(os.fsdecode(failed.filename))
        found.append(
            Found(path, _below(folder, path), 0, f"This folder cannot be read ({failed.strerror}): check its rights.")
        )
    return sorted(found, key=lambda f: os.fsencode(f.name)), sorted(others)


def _below(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def _found(folder: Path, path: Path) -> Found:
    problem, modified = "", 0
    try:
        about = path.lstat()
        modified = int(about.st_mtime)
        if stat.S_ISLNK(about.st_mode):
            problem = "It is a link, and links are not followed: put the file itself there."
        elif stat.S_ISDIR(about.st_mode):
            problem = f"It is a folder, and a zip was expected: {_AGAIN}."
        elif not stat.S_ISREG(about.st_mode):
            problem = f"It is no ordinary file, but a pipe or a device: {_AGAIN}."
    except OSError as error:
        problem = f"It cannot be read ({error.strerror}): check its rights."
    return Found(path, _below(folder, path), modified, problem)


def content(one: Found) -> bytes:
    """The bytes of a submission. Raises CourseError, in one sentence, when there are none that can be looked at."""
    if one.problem:
        raise CourseError(one.problem)
    try:
        data = read_limited(one.path, LARGEST_ZIP)
    except TooLargeError:
        raise CourseError(
            f"It has more than {LARGEST_ZIP / 2**20:.0f} MiB, far more than all answers together: {_AGAIN}."
        ) from None
    except NoOrdinaryFileError:
        raise CourseError(f"It is no ordinary file, but a pipe or a device: {_AGAIN}.") from None
    except OSError as error:
        raise CourseError(f"It cannot be read ({error.strerror}): check its rights, or load it down again.") from None
    if not data:
        raise CourseError(f"It is empty, 0 bytes: load it down again, or {_AGAIN}.")
    return data


class _Careful(io.BytesIO):
    """Refuses to hand out much at once, as long as `most` is set: a zip may say that its list of entries has gigabytes."""

    most: int | None = _LARGEST_DIRECTORY

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = len(self.getbuffer()) - self.tell()
        if self.most is not None and size > self.most:
            raise CourseError(f"It lists far more entries than any hand-in has: {_AGAIN}.")
        return super().read(size)


class Submission:
    """The entries of one zip that may be answers, by name. Raises CourseError, in one sentence, when it is none."""

    def __init__(self, data: bytes) -> None:
        stream = _Careful(data)
        try:
            self._zip = zipfile.ZipFile(stream)
            entries = self._zip.infolist()
        except CourseError:
            raise
        except Exception:  # a damaged list raises whatever it comes to first
            raise CourseError(_no_zip(data)) from None
        stream.most = None
        _refuse(entries, len(data))
        self._entries, self._others = _answers(entries)

    def left(self, known: Collection[str]) -> list[str]:
        """What is in the zip beside the files of these names, apart from what an operating system hides in each folder."""
        beside = [shown(name) for name in self._entries if name not in known and not name.startswith(".")]
        return sorted(beside + self._others)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def read(self, name: str, most: int = LARGEST_ARTEFACT) -> bytes:
        """The bytes of an entry. Raises CourseError, in one sentence, when it is larger, or damaged."""
        entry = self._entries[name]
        if entry.file_size > most:
            raise CourseError(
                f"{name!r} has {entry.file_size:,} bytes, and it may have {most:,}: is it the right file?"
            )
        try:
            with self._zip.open(entry) as stream:
                return stream.read(most)
        except Exception:  # as above, and what zlib raises
            raise CourseError(f"{name!r} is damaged in the zip: {_AGAIN}.") from None


_BEGINNINGS = {
    b"%PDF": "a PDF", b"Rar!": "a RAR archive", b"7z\xbc\xaf": "a 7z archive", b"\x1f\x8b": "a gzip file",
    b"{": "a text or a notebook", b"<": "a web page", b"\x08": "an ONNX model",
}  # fmt: skip


def reopened(one: Found | None, digest: str) -> Submission | None:
    """A zip that was graded, if it is still there and still the same. digest: SHA-256 of its bytes then."""
    if one is None:
        return None
    try:
        data = content(one)
        return Submission(data) if hashlib.sha256(data).hexdigest() == digest else None
    except CourseError:
        return None


def _no_zip(data: bytes) -> str:
    if data.startswith(b"PK"):
        return f"It begins as a zip and is cut off or damaged: load it down again, or {_AGAIN}."
    looks = next((f", but looks like {kind}" for start, kind in _BEGINNINGS.items() if data.startswith(start)), "")
    return f"It is not a zip{looks}: {_AGAIN}."


def _refuse(entries: list[zipfile.ZipInfo], size: int) -> None:
    """Raise CourseError for what `cu.submit()` never writes, and what somebody writes who means harm."""
    if len(entries) > MOST_ENTRIES:
        raise CourseError(f"It has {len(entries):,} entries, and may have {MOST_ENTRIES:,}: {_AGAIN}.")
    twice = [name for name, n in collections.Counter(e.filename for e in entries).items() if n > 1]
    if twice:
        raise CourseError(f"It holds {shown(twice[0])!r} more than once, and nobody knows which counts: {_AGAIN}.")
    for entry in entries:
        if why := _fault(entry):
            raise CourseError(f"Its entry {shown(entry.orig_filename)!r} {why}: {_AGAIN}.")
    total = sum(e.file_size for e in entries)
    if total > LARGEST_UNPACKED or (total > _SMALL and total > _DENSE * size):
        raise CourseError(
            f"It has {size:,} bytes and unpacks to {total:,}: that is no hand-in but a zip bomb, and it was not unpacked."
        )


def _fault(entry: zipfile.ZipInfo) -> str:
    name = entry.orig_filename  # `filename` ends at a zero byte
    mode = entry.external_attr >> 16
    faults = {
        "has a zero byte in its name": "\0" in name,
        "has an absolute path, or one of another system": "\\" in name or re.match("/|[A-Za-z]:", name),
        "leads out of the zip's folder with '..'": ".." in PurePosixPath(name).parts,
        "is a link": stat.S_ISLNK(mode),
        "is no ordinary file, but a pipe or a device": stat.S_IFMT(mode)
        not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK),
        "is encrypted": entry.flag_bits & 0x1,
        f"is packed by method {entry.compress_type}, and cu.submit() uses deflate": entry.compress_type not in _METHODS,
    }
    return next((fault for fault, there in faults.items() if there), "")


def _answers(entries: list[zipfile.ZipInfo]) -> tuple[dict[str, zipfile.ZipInfo], list[str]]:
    """The entries that lie beside answers.json, by name, and the names of the others.

    Some browsers unpack what they load, and who packs the folder again puts one around it all.
    """
    files = [e for e in entries if not e.is_dir() and "__MACOSX" not in PurePosixPath(e.filename).parts]
    lists = [e for e in files if PurePosixPath(e.filename).name == MANIFEST]
    at_top = [e for e in lists if e.filename == MANIFEST]
    if not lists:
        inner = [e for e in files if e.filename.lower().endswith(".zip")]
        if inner:
            raise CourseError(
                f"It holds zips ({shown(inner[0].filename)!r}) and no answers: put each into the folder itself."
            )
        raise CourseError(f"There is no {MANIFEST} in it, so it is not from this course: {_AGAIN}.")
    if len(lists) > 1 and not at_top:
        raise CourseError(f"It holds {len(lists)} hand-ins, in folders: {_AGAIN}, one for each.")
    around = PurePosixPath((at_top or lists)[0].filename).parent
    beside = {PurePosixPath(e.filename).name: e for e in files if PurePosixPath(e.filename).parent == around}
    return beside, [shown(e.filename) for e in files if PurePosixPath(e.filename).parent != around]
