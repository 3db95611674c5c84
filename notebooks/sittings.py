"""How long a notebook takes, and the map of the course: both made from the sources, never written by hand."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import jupytext
import yaml
from nbformat import NotebookNode

from course_utils.deploy.ready_files import listing

NOTEBOOKS = Path(__file__).resolve().parent
DATA = NOTEBOOKS.parent / "data"
WORDS_A_MINUTE = 150
LINES_A_MINUTE = 8
QUIZ = re.compile(r'^cu\.quiz\("(\w+)", (\d+)\)', re.MULTILINE)
LISTING = re.compile(
    r'^cu\.listing\(.*?"([\w.]+)"(?:, "([\w.]+)")?\)', re.MULTILINE
)
LINK = re.compile(r"(!?\[[^\]]*\])\([^)]*\)")


def is_hidden(cell: NotebookNode) -> bool:
    """Whether the code of the cell is not there to be read: a question or a picture."""
    return "remove-input" in cell.metadata.get("tags", [])


def lines(cell: NotebookNode) -> list[str]:
    """The lines of a code cell that are not empty."""
    return [line for line in cell.source.splitlines() if line.strip()]


def words(book: NotebookNode) -> int:
    """The words of the prose and of the questions; the address of a link is none."""
    prose = [
        LINK.sub(r"\1", cell.source)
        for cell in book.cells
        if cell.cell_type == "markdown"
    ]
    code = [cell.source for cell in book.cells if cell.cell_type == "code"]
    asked = [
        _question(name, int(number))
        for source in code
        for name, number in QUIZ.findall(source)
    ]
    return sum(len(text.split()) for text in prose + asked)


def minutes(book: NotebookNode) -> int:
    """A reader's minutes: words ÷ 150 + lines of code, listings too, ÷ 8, rounded to 5."""
    code = sum(
        len(lines(cell))
        for cell in book.cells
        if cell.cell_type == "code" and not is_hidden(cell)
    )
    code += sum(_listed(cell.source) for cell in book.cells)
    return max(
        5, 5 * round((words(book) / WORDS_A_MINUTE + code / LINES_A_MINUTE) / 5)
    )


def _listed(source: str) -> int:
    """The lines of the course's files that a cell shows with `cu.listing`."""
    found = 0
    for name, part in LISTING.findall(source):
        package = NOTEBOOKS.parent / "course_utils"
        places = (package / "server", package / "on_ray", DATA / "deploy")
        path = next(path for place in places for path in place.rglob(name))
        shown = repr(listing(path, part or None)).splitlines()
        found += sum(bool(line.strip()) for line in shown)
    return found


def lessons() -> list[dict[str, Any]]:
    """What `data/lessons.yml` says of each lesson: file, title, learn, and the same of its deeper pages."""
    return yaml.safe_load((DATA / "lessons.yml").read_text(encoding="utf-8"))


def course_map(prefix: str = "") -> str:
    """One row per lesson: its minutes, what it is good for, and the pages that lie deeper. prefix: of the links."""
    rows = []
    for lesson in lessons():
        number, time = lesson["file"][:2], minutes_of(lesson["file"])
        pages = []
        for page in lesson.get("deeper", []):
            path = f"deeper/{page['file']}"
            pages.append(
                f"[{page['title']}]({prefix}{path}.ipynb) ({minutes_of(path)} min)"
            )
        link = f"[{number} · {lesson['title']}]({prefix}{lesson['file']}.ipynb)"
        rows.append(
            f"| {link} | {time} min | {lesson['learn']} | {' · '.join(pages) or '–'} |"
        )
    head = [
        "| core | time | you learn to | deeper, when you need it |",
        "|---|---|---|---|",
    ]
    return "\n".join([*head, *rows])


def core_hours() -> str:
    """How long the core lessons take together, to the half of an hour."""
    return _in_hours(sum(minutes_of(lesson["file"]) for lesson in lessons()))


def deeper_hours() -> str:
    """How long the deeper pages take together."""
    return _in_hours(
        sum(
            minutes_of(f"deeper/{page['file']}")
            for lesson in lessons()
            for page in lesson.get("deeper", [])
        )
    )


def _in_hours(time: int) -> str:
    hours = round(time / 30) / 2
    return f"{hours:g} hour{'' if hours == 1 else 's'}"


@cache
def minutes_of(name: str) -> int:
    """name: the notebook's path below `notebooks/`, without ending."""
    return minutes(jupytext.read(NOTEBOOKS / f"{name}.py", fmt="py:percent"))


@cache
def _question(name: str, number: int) -> str:
    question = json.loads(
        (DATA / "quizzes" / f"{name}.json").read_text(encoding="utf-8")
    )[number - 1]
    answers = [
        f"{answer['answer']} {answer['feedback']}" for answer in question["answers"]
    ]
    return " ".join([question["question"], *answers])
