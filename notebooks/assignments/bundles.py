"""Build the bundles of a class: `python notebooks/assignments/bundles.py --class my_class.yaml` writes into `build/assignments/`.

`students/` is the course with the exercises of the class, without any solution: what a student installs and works in.
`instructor/` has the solutions, a rubric and an answer guide. Each comes as a folder and as a zip. The solutions are run, so that
the rubric lists what the checks really look at, and so that a key under which one of them fails is found before the class is.

The same class gives the same bytes. A folder that this did not make, or in which something was changed, is never replaced.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import nbformat
from markdown_it import MarkdownIt
from nbformat import NotebookNode

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent), str(ROOT)]

import generate
import instructor
from selection import cut, say_the_class

from course_utils.classroom import FILE
from course_utils.errors import CourseError
from course_utils.exercises import task
from course_utils.grading.class_file import ClassFile, read
from course_utils.grading.scoring import (
    Scheme,
    counted_points,
    head,
    shown_date,
    shown_points,
)
from course_utils.handin.html_parts import document
from course_utils.words import for_markdown

OUT = Path("build/assignments")
LIST = "files.json"  # what this made, with SHA-256 sums
STUDENTS, INSTRUCTOR = "students", "instructor"
# What the course is installed from. The maintainers' tools and tests stay behind: the tests know right answers.
_COURSE = (
    "pyproject.toml",
    "constraints.txt",
    "environment.yml",
    "LICENSE",
    "LICENSE-prose.md",
)
_FOLDERS = ("course_utils", "data")
_CACHES = {"__pycache__", ".ipynb_checkpoints", "_data"}
_NOT_DONE = 2


def build(class_file: Path, out: Path) -> str:
    """Write all of it into `out`, and say in a few lines what was made. Raises CourseError, in one sentence."""
    a_class = read(class_file)
    _refuse_others(out)
    about = head(a_class)
    scheme = Scheme(about["tasks"], about["class"])
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=".assignments-", dir=out.parent
        ) as folder:
            new = Path(folder) / "new"
            _students(new / STUDENTS, a_class, scheme)
            missing = _instructor(
                new / INSTRUCTOR, a_class, scheme, class_file, new / STUDENTS / FILE
            )
            for name in (STUDENTS, INSTRUCTOR):
                _pack(new / name, new / f"{name}.zip")
            (new / LIST).write_text(
                json.dumps(_sums(new), indent=1) + "\n",
                encoding="utf-8",
                newline="\n",
            )
            if out.exists():
                out.rename(Path(folder) / "old")
            new.rename(out)
    except OSError as error:
        raise CourseError(
            f"The bundles cannot be built, because of {str(error.filename or out)!r} ({error.strerror}): make room, or give another "
            f"--out."
        ) from None
    lines = [
        f"{a_class.title}: {len(a_class.tasks)} tasks, {counted_points(scheme.total)}.",
        f"For students:     {out / STUDENTS}.zip",
        f"For you alone:    {out / INSTRUCTOR}.zip",
        *(f"Look at task {id}: {why}" for id, why in missing.items()),
    ]
    return "\n".join(lines)


def _refuse_others(out: Path) -> None:
    """Raise CourseError where something would be lost."""
    try:
        names = os.listdir(out)
    except FileNotFoundError:
        return
    except OSError as error:
        raise CourseError(
            f"{str(out)!r} cannot be the folder of bundles ({error.strerror}): give another --out."
        ) from None
    if not names:
        return
    try:
        made = json.loads((out / LIST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        made = None
    if not isinstance(made, dict):
        raise CourseError(
            f"{str(out)!r} was not made by this command ({sorted(names)[0]!r} is in it): give another --out."
        )
    there = _sums(out)
    del there[LIST]
    if changed := sorted(name for name in there if there[name] != made.get(name)):
        raise CourseError(
            f"{changed[0]!r} in {str(out)!r} is new or was changed since the bundles were built: move it to another place, or delete "
            f"the whole folder, then run this again."
        )


def _files(folder: Path) -> Iterator[Path]:
    """All files below, without caches, in the same order everywhere."""
    for path in sorted(
        folder.rglob("*"), key=lambda p: p.relative_to(folder).as_posix()
    ):
        if path.is_file() and not _CACHES & set(path.relative_to(folder).parts):
            yield path


def _sums(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in _files(folder)
    }


def _pack(folder: Path, target: Path) -> None:
    """A zip with one folder in it. No date of today is in it."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in _files(folder):
            entry = zipfile.ZipInfo(
                f"onnx-scroll-{folder.name}/{path.relative_to(folder).as_posix()}"
            )
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


def _students(folder: Path, a_class: ClassFile, scheme: Scheme) -> None:
    folder.mkdir(parents=True)
    for name in _COURSE:
        shutil.copyfile(ROOT / name, folder / name)
    for name in _FOLDERS:
        for path in _files(ROOT / name):
            below = path.relative_to(ROOT)
            # data/exercises holds the solutions, data/*.py the maintainers' scripts.
            if below.parts[:2] != ("data", "exercises") and not (
                below.parent == Path("data") and below.suffix == ".py"
            ):
                (folder / below).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, folder / below)
    for source in generate.sources():
        if source.parent.name != "exercises":
            generate.write(
                generate.notebook(source),
                folder / "notebooks" / source.with_suffix(".ipynb"),
            )
    _write(
        folder / "notebooks" / "glossary.md",
        (ROOT / "notebooks" / "glossary.md").read_text(encoding="utf-8"),
    )
    for name, book in _exercises(a_class, scheme, solutions=False).items():
        generate.write(book, folder / "notebooks" / "exercises" / f"{name}.ipynb")
    _write(
        folder / FILE,
        json.dumps(a_class.for_students(), indent=1, ensure_ascii=False) + "\n",
    )
    _write(folder / "README.md", _readme(a_class, scheme))


def _exercises(
    a_class: ClassFile, scheme: Scheme, *, solutions: bool
) -> dict[str, NotebookNode]:
    """The exercises of the class by name, with its tasks only."""
    books = {}
    for source in generate.sources():
        chapter = int(source.name[:2])
        if source.parent.name != "exercises" or chapter not in scheme.chapters:
            continue
        ids = scheme.chapters[chapter]

        def change(book: NotebookNode, ids: list[str] = ids) -> None:
            say_the_class(cut(book, ids), _sentence(a_class, scheme, ids))

        book = generate.notebook(source, solutions=solutions, change=change)
        del book.cells[
            0
        ]  # the badges: they open the public course, which knows nothing of the class
        books[source.stem] = book
    return books


def _sentence(a_class: ClassFile, scheme: Scheme, ids: list[str]) -> str:
    every = [
        id
        for id in head(None)["tasks"]
        if id.partition(".")[0] == ids[0].partition(".")[0]
    ]
    points = sum((scheme.worth[id] for id in ids), Fraction(0))
    said = f"*{for_markdown(a_class.title)} · {counted_points(points)}*"
    dates: dict[str, list[str]] = {}
    for id in ids:
        if id in scheme.due:
            dates.setdefault(shown_date(scheme.due[id]), []).append(id)
    if len(dates) == 1 and len(*dates.values()) == len(ids):
        said = f"{said[:-1]} · due {next(iter(dates))}*"
    elif dates:
        listed = "; ".join(f"{', '.join(of)}: {date}" for date, of in dates.items())
        said = f"{said[:-1]} · due {listed}*"
    if len(ids) < len(every):
        said += f"\n\n**In this class:** {', '.join(ids)}. The other tasks are not in this notebook, also where the text speaks of them."
    return said


def _readme(a_class: ClassFile, scheme: Scheme) -> str:
    dates = bool(scheme.due)
    rows = []
    for id in a_class.tasks:
        date = (
            [shown_date(scheme.due[id]) if id in scheme.due else "–"]
            if dates
            else []
        )
        rows.append(
            " | ".join(
                [
                    "",
                    id,
                    for_markdown(task(id).title),
                    shown_points(scheme.worth[id]),
                    *date,
                    "",
                ]
            ).strip()
        )
    columns = ["task", "what", "points", *(["due"] if dates else [])]
    text = (HERE / "students.md").read_text(encoding="utf-8")
    known = {
        "title": for_markdown(a_class.title),
        "tasks": "\n".join(
            [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *rows]
        ),
        "late": f"Late answers: {scheme.rule()}.\n" if dates else "",
        "rule": "the newest one counts"
        if a_class.rule == "last"
        else "the one with the most points counts",
    }
    for name, value in known.items():
        text = text.replace(f"{{{{ {name} }}}}", value)
    return text


def _instructor(
    folder: Path,
    a_class: ClassFile,
    scheme: Scheme,
    class_file: Path,
    class_json: Path,
) -> dict[str, str]:
    """Returns for each task whose solution did not get all points why."""
    books = _exercises(a_class, scheme, solutions=True)
    for name, book in books.items():
        generate.write(book, folder / "notebooks" / f"{name}.ipynb")
    found = instructor.run(
        {name: nbformat.from_dict(book) for name, book in books.items()},
        a_class,
        class_json,
    )
    sources = {
        int(source.name[:2]): (generate.EXERCISES / source.name).read_text(
            encoding="utf-8"
        )
        for source in generate.sources()
        if source.parent.name == "exercises"
    }
    pages = {
        "rubric": instructor.rubric(a_class, scheme, found),
        "answer_guide": instructor.guide(a_class, scheme, sources),
    }
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    for name, text in pages.items():
        _write(folder / f"{name}.md", text)
        _write(
            folder / f"{name}.html",
            document(name.replace("_", " "), markdown.render(text)),
        )
    shutil.copyfile(class_file, folder / "class.yaml")
    shutil.copyfile(class_json, folder / FILE)
    return {id: one.problem for id, one in found.items() if one.problem}


def main() -> int:
    p = argparse.ArgumentParser(description="Build the bundles of a class.")
    p.add_argument(
        "--class",
        type=Path,
        default=HERE / "class.yaml",
        dest="class_file",
        metavar="YAML",
    )
    p.add_argument(
        "--out", type=Path, default=OUT, help=f"folder for the bundles ({OUT})"
    )
    given = p.parse_args()
    try:
        print(build(given.class_file, given.out))
    except CourseError as error:
        print(f"assignments: {error}", file=sys.stderr)
        return _NOT_DONE
    return 0


if __name__ == "__main__":
    sys.exit(main())
