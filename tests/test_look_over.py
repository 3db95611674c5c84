"""The look over notebooks that nbgrader collected: whatever lies in a student's folder, it is named and nothing stops."""

from __future__ import annotations

import json
import os
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT

from course_utils.errors import CourseError
from course_utils.grading.__main__ import main
from course_utils.grading.looking_over import LARGEST_NOTEBOOK, look_over

NAME = "02_opsets.ipynb"
RELEASED = json.loads((ROOT / "notebooks" / "exercises" / NAME).read_text(encoding="utf-8"))


@pytest.fixture
def course(tmp_path: Path) -> Path:
    put(tmp_path / "release" / "02_opsets", RELEASED)
    (tmp_path / "submitted").mkdir()
    return tmp_path


def put(folder: Path, book: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    for name in ("timestamp.txt", "submission_secret.txt"):
        (folder / name).write_text("as nbgrader writes it")
    path.write_text(book if isinstance(book, str) else json.dumps(book), encoding="utf-8")
    return path


def said(course: Path, book: Any, who: str = "ada") -> list[str]:
    """What is said of this notebook, handed in beside a good one."""
    put(course / "submitted" / who / "02_opsets", book)
    put(course / "submitted" / "zoe" / "02_opsets", RELEASED)
    count, found = look_over(course / "submitted", course / "release")
    assert count == 2
    assert {f.student for f in found} <= {who}
    return [f.what for f in found]


def changed(change: Any) -> dict[str, Any]:
    book = deepcopy(RELEASED)
    change({cell["metadata"].get("nbgrader", {}).get("grade_id", ""): cell for cell in book["cells"]}, book["cells"])
    return book


def test_an_untouched_notebook_has_nothing_to_name(course):
    assert said(course, RELEASED) == []


def test_answers_outputs_and_own_cells_are_nothing_to_name(course):
    def solve(by_name, cells):
        by_name["answer-2-1"]["source"] = ["p = 1\n", "q = 2"]
        by_name["answer-2-1"]["outputs"] = [{"output_type": "stream", "name": "stderr", "text": "noise"}]
        cells.insert(3, {"cell_type": "code", "source": "x", "metadata": {}, "outputs": [], "execution_count": 1})

    assert said(course, changed(solve)) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda by_name, cells: cells.append(by_name["answer-2-2"]),
            "The answer cell of task 2.2 is there 2 times: its task is graded once.",
        ),
        (
            lambda by_name, cells: cells.remove(by_name["check-2-2"]),
            "The check cell of task 2.2 was deleted: it is put back, and the task is graded by its file.",
        ),
        (
            lambda by_name, cells: cells.remove(by_name["answer-2-2"]),
            "The answer cell of task 2.2 was deleted: unless another cell writes its file, the task has no points.",
        ),
        (
            lambda by_name, cells: by_name["check-2-2"].update(source="100"),
            "The check cell of task 2.2 was changed, and it is read-only: it is graded as it was released.",
        ),
        (
            lambda by_name, cells: by_name["check-2-2"]["metadata"]["nbgrader"].update(points=100),
            "The settings of the check cell of task 2.2 were changed: those that were released count.",
        ),
        (
            lambda by_name, cells: by_name["check-2-2"]["metadata"]["nbgrader"].update(grade_id=[{}]),
            "The check cell of task 2.2 was deleted: it is put back, and the task is graded by its file.",
        ),
        (
            lambda by_name, cells: cells.append(
                {"source": "", "metadata": {"nbgrader": {"grade_id": "mine\u202e"}}, "cell_type": "code"}
            ),
            "The cell 'mine?' was not released: it is not graded.",
        ),
        (
            lambda by_name, cells: cells.append({"source": 'cu.setup(student="grace")', "metadata": {}}),
            "It was written as 'grace', and is graded as 'ada': where the personal parameters of the two differ, it earns "
            "nothing.",
        ),
    ],
    ids=["copied", "check deleted", "answer deleted", "read-only", "settings", "odd id", "own cell", "other id"],
)
def test_what_was_done_to_a_notebook_is_named_once(course, change, sentence):
    assert said(course, changed(change)) == [sentence]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not JSON, so it is no notebook"),
        ("no notebook", "is not JSON, so it is no notebook"),
        ("\udcff", "is not JSON, so it is no notebook"),
        ("[" * 100_000, "is not JSON, so it is no notebook"),
        ("9" * 5_000, "is not JSON, so it is no notebook"),
        ("3", "is no notebook of format 4"),
        ("null", "is no notebook of format 4"),
        ('{"cells": 3}', "is no notebook of format 4"),
        ('{"cells": [3]}', "is no notebook of format 4"),
        ('{"cells": [{"source": [1], "metadata": {}}]}', "is no notebook of format 4"),
        ('{"cells": [{"source": "", "metadata": []}]}', "is no notebook of format 4"),
        ('{"worksheets": [], "nbformat": 3}', "is no notebook of format 4"),
    ],
)
def test_a_file_that_is_no_notebook(course, text, why):
    path = put(course / "submitted" / "ada" / "02_opsets", "")
    path.write_bytes(text.encode(errors="surrogateescape"))
    count, found = look_over(course / "submitted", course / "release")
    assert (count, [f.what for f in found]) == (1, [f"It {why}: ask for it anew."])


def test_a_file_that_is_missing_too_large_or_a_folder(course):
    for who in ("ada", "emmy", "grace"):
        put(course / "submitted" / who / "02_opsets", "").unlink()
    with open(course / "submitted" / "emmy" / "02_opsets" / NAME, "wb") as stream:
        stream.truncate(LARGEST_NOTEBOOK + 1)
    (course / "submitted" / "grace" / "02_opsets" / NAME).mkdir()
    _, found = look_over(course / "submitted", course / "release")
    assert [(f.student, f.what) for f in found] == [
        ("ada", "It is missing, and its tasks have no points: ask for it anew."),
        ("emmy", "It has more than 64 MiB: ask for it anew."),
        ("grace", "It is no ordinary file: ask for it anew."),
    ]


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_are_named_and_not_followed(course):
    secret = course / "secret.txt"
    secret.write_text("long word")
    folder = put(course / "submitted" / "ada" / "02_opsets", RELEASED).parent
    (folder / "work").mkdir()
    (folder / "work" / "2.1.json").symlink_to(secret)
    (folder / "all").symlink_to("/", target_is_directory=True)
    (course / "submitted" / "everybody").symlink_to(course / "submitted", target_is_directory=True)
    count, found = look_over(course / "submitted", course / "release")
    link = "It is a link, and nbgrader copies what it leads to: delete it before it is graded."
    assert count == 1
    assert [(f.file, f.what) for f in found] == [("all", link), ("work/2.1.json", link)]


def test_a_folder_that_nbgrader_did_not_make(course):
    (put(course / "submitted" / "ada" / "02_opsets", RELEASED).parent / "timestamp.txt").unlink()
    _, found = look_over(course / "submitted", course / "release")
    assert [(f.file, f.what) for f in found] == [
        (
            "timestamp.txt",
            "It is missing, so this was not handed in with nbgrader, and nbgrader cannot release feedback to anybody.",
        )
    ]


def test_names_nobody_released(course):
    put(course / "submitted" / "ada" / "02_opsets", RELEASED).with_name("copy.ipynb").write_text("{}")
    put(course / "submitted" / "ada" / "99_own", RELEASED)
    put(course / "submitted" / "a b" / "02_opsets", RELEASED)
    _, found = look_over(course / "submitted", course / "release")
    assert [str(f) for f in found] == [
        "a b · 02_opsets: Its folder is not named by an id that the course takes, so no personal parameters can be drawn.",
        "ada · 02_opsets · copy.ipynb: No notebook of this name was released: it is not graded.",
        "ada · 99_own: No assignment of this name was released: it is not graded.",
    ]


def test_the_command_says_it_and_has_a_status(course, capsys):
    arguments = ["look-over", str(course / "submitted"), "--release", str(course / "release")]
    assert main(arguments) == 0
    assert capsys.readouterr().out == "Looked over: 0 submissions, nothing to look at.\n"
    put(course / "submitted" / "ada" / "02_opsets", "no notebook")
    assert main(arguments) == 1
    assert main([*arguments, "--move-on"]) == 0
    said = f"ada · 02_opsets · {NAME}: It is not JSON, so it is no notebook: ask for it anew.\n"
    assert capsys.readouterr().out == 2 * f"{said}Looked over: 1 submission, 1 to look at.\n"


def test_folders_that_are_not_there(course, capsys):
    assert main(["look-over", str(course / "nowhere"), "--release", str(course / "release")]) == 2
    assert "nowhere' cannot be read (No such file or directory): check its name." in capsys.readouterr().err
    (course / "empty").mkdir()
    with pytest.raises(CourseError, match=r"There is no assignment in .*: run nbgrader generate_assignment first\."):
        look_over(course / "submitted", course / "empty")
