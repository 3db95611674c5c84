"""A class file in a notebook: where it is found, what its key changes, and what is said of a damaged one."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import pytest
from answers import given_files
from submissions import right

import course_utils as cu
from course_utils import classroom
from course_utils.exercises import personal_params, task

ID = "1.1"


def write(path: Path, **more: object) -> Path:
    about = {"onnx_scroll_class": 1, "title": "Autumn", "key": "k-26", "tasks": [ID], "due": {}, "solutions": True}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(about | more), encoding="utf-8")
    return path


@pytest.fixture
def notebook(tmp_path, nobody_known, monkeypatch):
    """A notebook's folder, as deep in a bundle as the exercises are; two folders lie above the bundle."""
    place = tmp_path / "home" / "bundle" / "notebooks" / "exercises"
    place.mkdir(parents=True)
    monkeypatch.chdir(place)
    return place


def drawn(key: str) -> dict:
    return personal_params(task(ID), "ada", key)


def test_without_a_class_nothing_changes(notebook, capsys):
    cu.setup(student="ada")
    assert "class" not in capsys.readouterr().out
    assert cu.params(ID) == drawn("")
    assert cu.given("1.3").parent == Path("work/given/ada")


@pytest.mark.parametrize("above", [0, 1, 2, 3])
def test_it_is_found_beside_the_notebook_and_above(notebook, capsys, above):
    write([notebook, *notebook.parents][above] / "class.json", title="Autumn 26")
    cu.setup(student="ada")
    assert capsys.readouterr().out.rstrip().endswith("exercises for 'ada' · class 'Autumn 26'")
    assert cu.params(ID) == drawn("k-26") != drawn("")


def test_not_further_up_and_the_nearest_counts(notebook):
    write(notebook.parents[3] / "class.json")
    cu.setup(student="ada")
    assert cu.params(ID) == drawn("")
    write(notebook.parents[1] / "class.json", key="far")
    write(notebook / "class.json", key="near")
    cu.setup(student="ada")
    assert cu.params(ID) == drawn("near")


def test_a_hub_says_where_it_is(notebook, monkeypatch, tmp_path):
    write(notebook / "class.json", key="near")
    monkeypatch.setenv("COURSE_CLASS", str(write(tmp_path / "shared" / "of_the_hub.json", key="hub")))
    cu.setup(student="ada")
    assert cu.params(ID) == drawn("hub")
    monkeypatch.setenv("COURSE_CLASS", str(tmp_path / "gone.json"))
    with pytest.raises(
        cu.CourseError, match=r"^The class in '.*gone\.json' cannot be read \(No such file.*: copy class\.json"
    ):
        cu.setup(student="ada")


def test_without_setup_of_a_student_it_is_not_read(notebook):
    (notebook / "class.json").write_text("{")
    cu.setup()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is not JSON"),
        ("{", "it is not JSON"),
        ("[" * 100_000, r"cannot be read"),
        ("[" * 60_000, "it is not JSON"),
        ("[]", "it has no 'onnx_scroll_class'"),
        ('{"title": "my school"}', "it has no 'onnx_scroll_class'"),
        ('{"onnx_scroll_class": 2}', r"has format 2, and this course knows 1: install the course"),
        ('{"onnx_scroll_class": 1, "key": 3}', "its 'key' is not"),
        ('{"onnx_scroll_class": 1, "key": "a\\nb"}', "its 'key' is not"),
        ('{"onnx_scroll_class": 1, "title": "%s"}' % ("x" * 201), "its 'title' is not"),
        ('{"onnx_scroll_class": 1, "tasks": 3}', "its 'tasks' is not"),
        ('{"onnx_scroll_class": 1, "tasks": [[]]}', "its 'tasks' is not"),
        ('{"onnx_scroll_class": 1, "due": []}', "its 'due' is not"),
        ('{"onnx_scroll_class": 1, "solutions": "off"}', "its 'solutions' is not"),
    ],
)
def test_a_damaged_file_is_one_sentence(notebook, text, why):
    (notebook / "class.json").write_text(text)
    with pytest.raises(cu.CourseError, match=why) as caught:
        cu.setup(student="ada")
    assert re.fullmatch(r"[^\n]+: [^\n]+\.", str(caught.value))
    with pytest.raises(cu.CourseError, match="not known yet who you are"):
        cu.params(ID)


def test_a_folder_of_that_name_is_said(notebook):
    (notebook / "class.json").mkdir()
    with pytest.raises(cu.CourseError, match=r"Is a directory|Permission"):
        cu.setup(student="ada")


def test_check_and_submit_use_the_key(notebook, in_this_process, capsys):
    write(notebook / "class.json")
    cu.setup(student="ada")
    made_without = right(ID, "ada")
    Path("work/1.1.onnx").write_bytes(made_without)
    assert not cu.check(ID, "work/1.1.onnx").passed
    path = cu.given("1.3")
    assert path.parent == Path("work/given/ada") / classroom.fingerprint("k-26")
    assert path.read_bytes() == given_files("1.3", "ada", "k-26")["1.3.onnx"] != given_files("1.3")["1.3.onnx"]
    with zipfile.ZipFile(cu.submit()) as archive:
        about = json.loads(archive.read("answers.json"))
    assert about["class"] == about["tasks"][ID]["class"] == classroom.fingerprint("k-26") != ""
    assert "k-26" not in json.dumps(about)
    (notebook / "class.json").unlink()
    cu.setup(student="ada")
    assert cu.check(ID, "work/1.1.onnx").passed
    capsys.readouterr()
    with zipfile.ZipFile(cu.submit()) as archive:
        about = json.loads(archive.read("answers.json"))
    assert "class" not in about
    assert "class" not in about["tasks"][ID]


def test_the_points_of_another_class_keep_no_answer_out(notebook, in_this_process, capsys):
    """All points under one key are none under another: the answer to hand in is the best of this class."""
    cu.setup(student="ada")
    Path("work/1.1.onnx").write_bytes(right(ID, "ada"))
    assert cu.check(ID, "work/1.1.onnx").passed
    write(notebook / "class.json")
    cu.setup(student="ada")
    cu.submit()
    assert "1.1  1 of 1 point, counted for another class: run its check again" in capsys.readouterr().out
    assert "Kept for cu.submit()" in repr(cu.check(ID, "work/1.1.onnx"))
    cu.submit()
    assert "1.1  0 of 1 point\n" in capsys.readouterr().out


def test_a_class_without_solutions(notebook, in_this_process):
    write(notebook / "class.json")
    cu.setup(student="ada")
    Path("work/1.2.json").write_text("{}")
    cu.check("1.2", "work/1.2.json")
    assert "# Task 1.2" in cu.solution("1.2").code
    write(notebook / "class.json", solutions=False)
    cu.setup(student="ada")
    with pytest.raises(cu.CourseError, match="This class works without shown solutions"):
        cu.solution("1.2")
