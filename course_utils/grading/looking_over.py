"""A look at collected notebooks before nbgrader grades them: cells that were deleted, copied or changed, files that are none.

Nothing is run, and nbgrader is not needed. What is named here does not stop the grading of anybody else.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import student
from ..errors import CourseError
from ..paths import NoOrdinaryFileError, TooLargeError, read_limited
from .intake import shown

LARGEST_NOTEBOOK = 64 * 2**20  # bytes; pictures in outputs are what makes one large
_MOST_FILES = 10_000  # of one student
_WRITTEN_BY_NBGRADER = ("submission_secret.txt", "timestamp.txt")
_SETUP = re.compile(r"^cu\.setup\(\s*student\s*=\s*[\"']([^\"'\n]*)[\"']", re.MULTILINE)
_KIND = re.compile(r"(check|answer)-(\d+)-(\d+)")  # how the course names its cells for nbgrader


@dataclass(frozen=True)
class Finding:
    """One thing to know about one student's folder. file: below the folder of the assignment; empty for the folder itself."""

    student: str
    assignment: str
    file: str
    what: str

    def __str__(self) -> str:
        return f"{shown(self.student)} · {' · '.join(shown(p) for p in (self.assignment, self.file) if p)}: {self.what}"


@dataclass(frozen=True)
class Cell:
    """What counts of a cell. about: nbgrader's metadata."""

    source: str
    about: dict[str, Any]

    @property
    def name(self) -> str:
        name = self.about.get("grade_id")
        return name if isinstance(name, str) else ""


def look_over(submitted: Path, release: Path) -> tuple[int, list[Finding]]:
    """How many submissions there are, and what is to be said of them.

    submitted, release: folders of an nbgrader course: `submitted/STUDENT/ASSIGNMENT/`, `release/ASSIGNMENT/`.
    Raises CourseError where one of them cannot be read, or nothing was released.
    """
    assignments = {folder.name: _notebooks(folder) for folder in _folders(release)}
    assignments = {name: notebooks for name, notebooks in assignments.items() if notebooks}
    if not assignments:
        raise CourseError(f"There is no assignment in {str(release)!r}: run nbgrader generate_assignment first.")
    count, found = 0, []
    for who in _folders(submitted):
        for folder in _folders(who):
            count += 1
            notebooks = assignments.get(folder.name)
            found += [Finding(who.name, folder.name, *said) for said in _of_submission(who.name, folder, notebooks)]
    return count, found


def _folders(parent: Path) -> list[Path]:
    try:
        return sorted(p for p in parent.iterdir() if p.is_dir() and not p.is_symlink() and p.name[0] != ".")
    except OSError as error:
        raise CourseError(f"The folder {str(parent)!r} cannot be read ({error.strerror}): check its name.") from None


def _notebooks(folder: Path) -> dict[str, list[Cell]]:
    return {path.name: read_cells(path) for path in sorted(folder.glob("*.ipynb"))}


def read_cells(path: Path) -> list[Cell]:
    """The cells of a notebook. Raises CourseError, in one sentence, when the file is none."""
    try:
        found = json.loads(read_limited(path, LARGEST_NOTEBOOK))
        return [_cell(cell) for cell in found["cells"]]
    except FileNotFoundError:
        why = "is missing, and its tasks have no points"
    except (IsADirectoryError, NoOrdinaryFileError):
        why = "is no ordinary file"
    except TooLargeError:
        why = f"has more than {LARGEST_NOTEBOOK // 2**20} MiB"
    except OSError as error:
        why = f"cannot be read ({error.strerror})"
    except (ValueError, RecursionError):
        why = "is not JSON, so it is no notebook"
    except (TypeError, KeyError, AttributeError):
        why = "is no notebook of format 4"
    raise CourseError(f"It {why}: ask for it anew.")


def _cell(cell: Any) -> Cell:
    """Raises TypeError, KeyError or AttributeError for anything else."""
    source, about = cell["source"], cell["metadata"].get("nbgrader", {})
    return Cell(source if isinstance(source, str) else "".join(source), about if isinstance(about, dict) else {})


def _of_submission(who: str, folder: Path, released: dict[str, list[Cell]] | None) -> Iterator[tuple[str, str]]:
    """Pairs of a file, or nothing, and a sentence."""
    if released is None:
        yield "", "No assignment of this name was released: it is not graded."
        return
    if not student.ID.fullmatch(who):
        yield "", "Its folder is not named by an id that the course takes, so no personal parameters can be drawn."
    yield from _places(folder)
    for name in _WRITTEN_BY_NBGRADER:
        if not (folder / name).is_file():
            yield (
                name,
                "It is missing, so this was not handed in with nbgrader, and nbgrader cannot release feedback to anybody.",
            )
    for name, cells in released.items():
        path = folder / name
        try:
            found = read_cells(path)
        except CourseError as error:
            yield name, str(error)
            continue
        yield from ((name, said) for said in _of_notebook(who, found, cells))
    for path in sorted(folder.glob("*.ipynb")):
        if path.name not in released:
            yield path.name, "No notebook of this name was released: it is not graded."


def _places(folder: Path) -> Iterator[tuple[str, str]]:
    count = 0
    for place, folders, files in os.walk(folder):
        for name in sorted(folders + files):
            count += 1
            if count > _MOST_FILES:
                yield "", f"It has more than {_MOST_FILES:,} files: look into it before it is graded."
                return
            if (path := Path(place, name)).is_symlink():
                said = "It is a link, and nbgrader copies what it leads to: delete it before it is graded."
                yield path.relative_to(folder).as_posix(), said


def _of_notebook(who: str, found: list[Cell], released: list[Cell]) -> Iterator[str]:
    counts = Counter(cell.name for cell in found if cell.name)
    known = {cell.name: cell for cell in released if cell.name}
    for name, cell in known.items():
        if not counts[name]:
            yield f"The {_called(name)} was deleted: {_after_deletion(cell)}."
        elif counts[name] > 1:
            yield f"The {_called(name)} is there {counts[name]} times: its task is graded once."
    for cell in found:
        if (meant := known.get(cell.name)) is None:
            continue
        if meant.about.get("locked") and cell.source != meant.source:
            yield f"The {_called(cell.name)} was changed, and it is read-only: it is graded as it was released."
        elif cell.about != meant.about:
            yield f"The settings of the {_called(cell.name)} were changed: those that were released count."
    for name in sorted(counts.keys() - known):
        yield f"The cell {shown(name)!r} was not released: it is not graded."
    ids = {id for cell in found for id in _SETUP.findall(cell.source)} - {who, student.GUEST}
    for id in sorted(ids):
        yield (
            f"It was written as {shown(id)!r}, and is graded as {shown(who)!r}: where the personal parameters of the two "
            f"differ, it earns nothing."
        )


def _called(name: str) -> str:
    match = _KIND.fullmatch(name)
    return f"{match[1]} cell of task {match[2]}.{match[3]}" if match else f"cell {shown(name)!r}"


def _after_deletion(cell: Cell) -> str:
    if cell.about.get("grade"):
        return "it is put back, and the task is graded by its file"
    return "unless another cell writes its file, the task has no points"
