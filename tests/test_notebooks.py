"""The notebooks as files: derived from their sources, without outputs, and of the shape every lesson has.

That they run is tested elsewhere: nbval runs the lessons, test_exercises.py the exercises.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import nbformat
import pytest
from checkout import ROOT, project_files

NOTEBOOKS = ROOT / "notebooks"
QUIZZES = ROOT / "data" / "quizzes"
CORE = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.py"))
DEEPER = sorted(NOTEBOOKS.glob("deeper/[0-9][0-9]_*.py"))
LESSONS = CORE + DEEPER
EXERCISES = sorted((ROOT / "data" / "exercises").glob("[0-9][0-9]_*.py"))
SOURCES = LESSONS + EXERCISES
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SLUG = PROJECT["urls"]["Repository"].removeprefix("https://github.com/")


def names(paths: list[Path]) -> list[str]:
    """Notebooks below `notebooks/`, without ending. The sources of exercises, with the solutions, lie in `data/`."""
    roots = [NOTEBOOKS if path.is_relative_to(NOTEBOOKS) else ROOT / "data" for path in paths]
    return [path.relative_to(root).with_suffix("").as_posix() for path, root in zip(paths, roots, strict=True)]


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """All notebooks, made anew in a clean folder by the command that `make notebooks` runs."""
    folder = tmp_path_factory.mktemp("generated")
    command = [sys.executable, str(NOTEBOOKS / "generate.py"), "--out", str(folder)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)
    return folder


@pytest.mark.parametrize("name", names(SOURCES))
def test_notebook_is_as_its_source_says(name, generated):
    committed = NOTEBOOKS / f"{name}.ipynb"
    made = (generated / f"{name}.ipynb").read_bytes()
    assert committed.exists(), f"{name}.ipynb is missing: run  make notebooks"
    assert committed.read_bytes() == made, f"{name}.ipynb is out of date: run  make notebooks"


def test_no_notebook_without_a_source(generated):
    committed = {p for p in project_files() if p.suffix == ".ipynb" and p.is_relative_to(NOTEBOOKS)}
    made = {NOTEBOOKS / p.relative_to(generated) for p in generated.rglob("*.ipynb")}
    assert committed - made == set(), "a notebook without a .py source: delete it, or run  make notebooks"


@pytest.mark.parametrize("name", names(SOURCES))
def test_nothing_of_a_run_is_committed(name):
    book = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    stem = name.split("/")[-1].replace("_", "-") + ("-exercise" if name.startswith("exercises/") else "")
    assert [cell.id for cell in book.cells] == [f"{stem}-{position:03}" for position in range(len(book.cells))]


@pytest.mark.parametrize("name", names(SOURCES))
def test_badges_and_colab_cell(name):
    """Both point to the release of this version, in the repository that pyproject.toml names."""
    book = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    badges, install = book.cells[0].source, book.cells[1].source
    release, path = f"v{PROJECT['version']}", f"notebooks/{name}.ipynb"
    assert f"https://colab.research.google.com/github/{SLUG}/blob/{release}/{path}" in badges
    assert f"https://mybinder.org/v2/gh/{SLUG}/{release}?urlpath=lab/tree/{path}" in badges
    assert f"git+https://github.com/{SLUG}@{release}" in install
    assert install.splitlines()[2].startswith('os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")')
    assert install.splitlines()[3].startswith('if "google.colab" in sys.modules:')
    assert "%pip" not in "".join(cell.source for cell in book.cells[2:]), "only the Colab cell installs anything"


def test_the_repository_is_named_in_one_place():
    """So that a fork, or a move, changes one line."""
    elsewhere = [
        path.relative_to(ROOT).as_posix()
        for path in project_files()
        if path.suffix != ".ipynb" and path.name != "pyproject.toml" and SLUG.encode() in path.read_bytes()
    ]
    assert elsewhere == []


@pytest.mark.parametrize("name", names(LESSONS))
def test_links_to_other_notebooks_lead_somewhere(name):
    source = NOTEBOOKS / f"{name}.py"
    links = re.findall(r"\]\(([\w/.-]+\.(?:ipynb|md))(?:#[\w-]+)?\)", source.read_text(encoding="utf-8"))
    assert not {link for link in links if not (source.parent / link).exists()}


def test_every_question_is_asked_once_and_every_answer_has_its_feedback():
    asked = Counter(
        (lesson, int(number))
        for path in SOURCES
        for lesson, number in re.findall(r'^cu\.quiz\("(\w+)", (\d+)\)', path.read_text(encoding="utf-8"), re.MULTILINE)
    )
    stored = [
        (path.stem, number)
        for path in sorted(QUIZZES.glob("*.json"))
        for number in range(1, len(json.loads(path.read_text(encoding="utf-8"))) + 1)
    ]
    assert asked == Counter(stored)
    for path in SOURCES:
        quizzes = re.findall(r'^cu\.quiz\("(\w+)"', path.read_text(encoding="utf-8"), re.MULTILINE)
        assert set(quizzes) <= {path.stem}, "a lesson asks its own questions"


@pytest.mark.parametrize("path", sorted(QUIZZES.glob("*.json")), ids=lambda path: path.stem)
def test_quiz_is_well_formed(path):
    for question in json.loads(path.read_text(encoding="utf-8")):
        assert set(question) == {"question", "answers"}
        assert question["question"].strip()
        answers = question["answers"]
        assert sum(answer["correct"] for answer in answers) == 1
        assert len({answer["answer"] for answer in answers}) == len(answers) >= 2
        assert all(answer["feedback"].strip() for answer in answers)
