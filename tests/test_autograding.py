"""The steps that the course puts into nbgrader's autograder, one by one; `test_hub.py` holds the whole way."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
import submissions
from checkout import ROOT
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from nbgrader.api import Gradebook
from nbgrader.preprocessors import CheckCellMetadata
from nbgrader.utils import determine_grade

from course_utils.errors import CourseError
from course_utils.exercises import task
from course_utils.grading.autograding import AsReleased, MarkAnswers, RunNotebook
from course_utils.handin import guarded
from course_utils.handin.assessing import Verdict, assessed
from course_utils.handin.points import task_points

CHAPTER = "02_opsets"


@pytest.fixture(scope="module")
def gradebook(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a gradebook that knows two tasks of chapter 2. No step writes to it."""
    url = f"sqlite:///{tmp_path_factory.mktemp('course') / 'gradebook.db'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)  # nbgrader calls alembic
        fill(url)
    return url


def fill(url: str) -> None:
    with Gradebook(url) as gradebook:
        gradebook.add_assignment(CHAPTER)
        gradebook.add_notebook(CHAPTER, CHAPTER)
        for number in "12":
            for kind, source in (("answer", "raise NotImplementedError()"), ("check", f'cu.check("2.{number}", "…")')):
                name, locked = f"{kind}-2-{number}", kind == "check"
                add = gradebook.add_grade_cell if locked else gradebook.add_solution_cell
                add(name, CHAPTER, CHAPTER, **({"max_score": 3, "cell_type": "code"} if locked else {}))
                more = {"cell_type": "code", "source": source, "locked": locked, "checksum": "0" * 32}
                gradebook.add_source_cell(name, CHAPTER, CHAPTER, **more)


@pytest.fixture
def resources(gradebook: str, tmp_path: Path) -> dict[str, Any]:
    """What nbgrader hands to a step, for ada's notebook."""
    folder = tmp_path / "ada"
    (folder / "work").mkdir(parents=True)
    about = {"db_url": gradebook, "assignment": CHAPTER, "notebook": CHAPTER, "student": "ada"}
    return {"nbgrader": about, "metadata": {"path": str(folder)}}


def cell(name: Any, source: str = "", **more: Any) -> NotebookNode:
    return new_code_cell(source, metadata={"nbgrader": {"grade_id": name, **more}})


def names(book: NotebookNode) -> list[str]:
    return [c.metadata.get("nbgrader", {}).get("grade_id", "") for c in book.cells]


def test_cells_are_as_released_and_answers_as_written(resources):
    book = new_notebook(
        cells=[
            cell("answer-2-1", "an answer", schema_version=99, locked=True),
            cell("check-2-1", "1 + 1", points=100, grade=False),
            new_markdown_cell("# no code", metadata={"nbgrader": {"grade_id": "answer-2-2"}}),
            cell("check-2-2"),
        ]
    )
    found, _ = AsReleased().preprocess(book, resources)
    assert [(c.cell_type, c.source) for c in found.cells] == [
        ("code", "an answer"),
        ("code", 'cu.check("2.1", "…")'),
        ("code", "# no code"),
        ("code", 'cu.check("2.2", "…")'),
    ]
    assert found.cells[1].metadata.nbgrader.points == 3
    assert [c.metadata.nbgrader.grade for c in found.cells] == [False, True, False, True]
    CheckCellMetadata().preprocess(found, resources)
    nbformat.validate(found)


def test_of_copies_the_last_counts_and_what_is_gone_comes_back(resources):
    book = new_notebook(cells=[cell("answer-2-1", "first"), cell("answer-2-1", "second"), cell("check-2-2")])
    found, _ = AsReleased().preprocess(book, resources)
    assert names(found) == ["", "answer-2-1", "check-2-2", "check-2-1"]
    assert [c.source for c in found.cells][:2] == ["first", "second"]


@pytest.mark.parametrize(
    "about", ["text", 3, None, [], {"grade_id": ["check-2-1"]}, {"grade_id": "mine"}, {"grade": True}]
)
def test_metadata_of_any_form_does_no_harm(resources, about):
    book = new_notebook(cells=[new_code_cell("x", metadata={"nbgrader": about})])
    found, _ = AsReleased().preprocess(book, resources)
    assert names(found) == ["", "check-2-1", "check-2-2"]
    CheckCellMetadata().preprocess(found, resources)


def test_a_notebook_of_an_older_format_stays_one(resources):
    book = nbformat.from_dict({"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": []})
    found, _ = AsReleased().preprocess(book, resources)
    assert names(found) == ["check-2-1", "check-2-2"]
    nbformat.validate(found)


def marked(resources: dict[str, Any], **settings: str) -> dict[str, float]:
    """The points that nbgrader takes from each check cell."""
    book, _ = AsReleased().preprocess(new_notebook(), resources)
    for each in book.cells:  # a student's own output
        each.outputs = [nbformat.v4.new_output("stream", name="stderr", text="noise")]
    book, _ = MarkAnswers(**settings).preprocess(book, resources)
    nbformat.validate(book)
    return {c.metadata.nbgrader.grade_id: determine_grade(c)[0] for c in book.cells}


def test_points_come_from_the_files(resources):
    assert marked(resources) == {"check-2-1": 0, "check-2-2": 0}
    work = Path(resources["metadata"]["path"]) / "work"
    (work / "2.1.json").write_bytes(submissions.right("2.1", "ada"))
    (work / "2.2.json").write_text("no JSON")
    assert marked(resources) == {"check-2-1": 3, "check-2-2": 0}


def test_a_part_of_the_goals_earns_a_part_of_the_points(resources):
    it, data = task("2.2"), json.dumps({**json.loads(submissions.right("2.2", "ada")), "opset": 3}).encode()
    reached, of = task_points(it, assessed(it, data, "it", "ada").criteria)
    assert 0 < reached < of
    (Path(resources["metadata"]["path"]) / "work" / "2.2.json").write_bytes(data)
    assert marked(resources)["check-2-2"] == pytest.approx(3 * reached / of)


def test_the_secret_and_the_key_reach_the_check(resources, tmp_path, monkeypatch):
    """The real process is asked as always; what it is asked is looked at."""
    (tmp_path / "secret.txt").write_text("word\n")
    asked, real = [], guarded.examine
    monkeypatch.setattr(guarded, "examine", lambda *args, **more: asked.append(more) or real(*args, **more))
    (Path(resources["metadata"]["path"]) / "work" / "2.1.json").write_bytes(submissions.right("2.1", "ada"))
    found = marked(resources, secret_file=str(tmp_path / "secret.txt"), class_key="another")
    assert asked == [{"secret": "word", "key": "another"}]
    assert found["check-2-1"] < 3  # the answer is right with the parameters of a class without a key


def test_a_secret_that_is_not_there_ends_it(resources, tmp_path):
    with pytest.raises(CourseError, match=r"The secret in .* cannot be read"):
        marked(resources, secret_file=str(tmp_path / "none.txt"))


@pytest.mark.parametrize(
    "verdict", [Verdict(problem="A package is missing.", lacking=True), Verdict(ended="signal SIGKILL")]
)
def test_no_marks_where_this_machine_cannot_grade(resources, monkeypatch, verdict):
    monkeypatch.setattr(guarded, "examine", lambda *args, **more: verdict)
    (Path(resources["metadata"]["path"]) / "work" / "2.1.json").write_text("{}")
    with pytest.raises(CourseError, match=r"Task 2\.1 of 'ada' cannot be graded now\."):
        marked(resources)


def test_a_notebook_runs_as_its_student_without_the_old_files_and_survives_its_kernel(resources, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("COURSE_STUDENT", raising=False)
    folder = Path(resources["metadata"]["path"])
    (folder / "work" / "2.1.json").write_text("handed in")
    code = (
        "import os, pathlib\nwork = pathlib.Path('work')\nwork.mkdir()\n"
        "(work / '2.2.json').write_text(os.environ['COURSE_STUDENT'])"
    )
    book = new_notebook(cells=[new_code_cell(code), new_code_cell("os._exit(1)"), new_code_cell("1")])
    RunNotebook().preprocess(book, resources)
    assert [p.name for p in (folder / "work").iterdir()] == ["2.2.json"]
    assert (folder / "work" / "2.2.json").read_text() == "ada"
