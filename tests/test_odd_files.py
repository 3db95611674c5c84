"""Files that are not what they were, or never were ordinary: answers, what is kept of them, and the list."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest
from test_checks import TASKS, answer, kept

import course_utils as cu
from course_utils import paths, student
from course_utils.handin import checks, keeping

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no such files")

KEPT = Path("work/answers/ada/1.1.json")
LIST = Path("work/answers/ada/answers.json")


@pytest.fixture(autouse=True)
def ada(folder, nobody_known, in_this_process, monkeypatch):
    monkeypatch.setattr(checks, "task", TASKS.__getitem__)
    student.remember("ada")


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def in_a_circle(path: Path) -> None:
    path.symlink_to(path.absolute())


def huge(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(10**10)  # takes no space on the disk


def a_folder(path: Path) -> None:
    path.mkdir()


ODD = {
    a_pipe: "no ordinary file",
    endless: "no ordinary file",
    in_a_circle: r"cannot be read \(",
    huge: "larger than 64 MiB",
    a_folder: "is a folder",
}


@pytest.mark.parametrize("make", ODD)
def test_as_an_answer(make):
    make(Path("odd.json"))
    said = str(cu.check("1.1", "odd.json"))
    assert re.search(f"not checked yet.*{ODD[make]}", said)
    assert "\n" not in said


@pytest.mark.parametrize("make", ODD)
def test_in_the_place_of_a_kept_answer(make, capsys):
    """It is lost, as one that was deleted, and the others are handed in."""
    cu.check("1.1", answer(3))
    cu.check("1.4", answer(3, "work/1.4.json"))
    KEPT.unlink()
    make(KEPT)
    with zipfile.ZipFile(cu.submit()) as archive:
        assert sorted(archive.namelist()) == ["1.4.json", "answers.json"]
    assert "Left out. The kept answer" in capsys.readouterr().out
    said = str(cu.check("1.1", answer(2)))
    assert ("Not kept for cu.submit(): Cannot write" in said) == (make is a_folder)
    assert make is a_folder or kept()["right"] == 2


@pytest.mark.parametrize("make", ODD)
def test_in_the_place_of_the_list(make):
    cu.check("1.1", answer(3))
    LIST.unlink()
    make(LIST)
    result = cu.check("1.1", answer(3))
    assert result.passed
    assert re.search(r"Not kept for cu\.submit\(\): .*answers\.json' cannot be read \(", str(result))
    with pytest.raises(cu.CourseError, match=r"answers\.json' cannot be read \("):
        cu.submit()


@pytest.mark.parametrize("make", ODD)
def test_in_the_place_of_what_was_handed_out(make, capsys):
    path = cu.given("1.2")
    capsys.readouterr()
    path.unlink()
    make(path)
    cu.given("1.2")
    assert "was changed since it was handed out; it is left as it is" in capsys.readouterr().out


@pytest.mark.parametrize("swap", [a_pipe, endless])
def test_changed_between_a_look_and_the_opening(swap, monkeypatch):
    path, open_it = answer(3), os.open

    def late(file, flags, *more, **others):
        if str(file) == str(path):
            path.unlink()
            swap(path)
        return open_it(file, flags, *more, **others)

    monkeypatch.setattr(paths.os, "open", late)
    assert "no ordinary file" in str(cu.check("1.1", path))


def test_deleted_between_a_look_and_the_opening(monkeypatch):
    path, open_it = answer(3), os.open
    monkeypatch.setattr(paths.os, "open", lambda file, *more: (path.unlink(missing_ok=True), open_it(file, *more))[1])
    assert "There is no file 'work/1.1.json' yet" in str(cu.check("1.1", path))


def test_it_grows_while_it_is_read(monkeypatch):
    path = answer(3)
    monkeypatch.setattr(checks, "LARGEST_ARTEFACT", path.stat().st_size - 1)
    stat = os.fstat

    class Before:
        st_mode, st_size = path.stat().st_mode, 1

    monkeypatch.setattr(type(path), "stat", lambda self, **_: Before)
    monkeypatch.setattr(paths.os, "fstat", lambda number: (stat(number), Before)[1])
    assert "larger than" in str(cu.check("1.1", path))


def test_the_current_folder_is_gone(folder):
    """The kernel lives on in a folder that was deleted."""
    path = answer(3).absolute()
    elsewhere = shutil.copy(path, folder.parent / f"{folder.name}-1.1.json")
    there = folder / "gone"
    there.mkdir()
    os.chdir(there)
    there.rmdir()
    assert "There is no file" in str(cu.check("1.1", "work/1.1.json"))
    result = cu.check("1.1", elsewhere)
    assert result.passed
    assert "Not kept for cu.submit(): Cannot write" in str(result)


# A list that somebody wrote by hand


def tampered(**changes: object) -> None:
    listed = json.loads(LIST.read_text())
    listed["tasks"]["1.1"] |= changes
    LIST.write_text(json.dumps(listed))


@pytest.mark.parametrize(
    "changes",
    [
        {"points": -1}, {"points": 4}, {"points": 10**400}, {"of": 0}, {"of": -3}, {"points": True}, {"points": 1.0}, {"sha256": 7},
        {"file": "../1.1.json"}, {"file": "/etc/passwd"}, {"file": ".lock"}, {"file": "answers.json"}, {"file": "a/b"},
        {"file": "a\\b"}, {"file": "C:x"}, {"file": ""}, {"file": "a\n"}, {"file": None}, {"checks": "2"},
    ],
    ids=str,
)  # fmt: skip
def test_an_entry_that_no_check_wrote(changes):
    cu.check("1.1", answer(2))
    tampered(**changes)
    with pytest.raises(cu.CourseError, match=r"answers\.json' is damaged: delete it and run the cu\.check"):
        cu.submit()
    assert "Not kept for cu.submit()" in str(cu.check("1.1", answer(3)))


def test_a_list_of_another_student(capsys):
    """Its name is the folder's; and a task's name that cannot be printed stops nothing."""
    cu.check("1.1", answer(2))
    listed = json.loads(LIST.read_text())
    LIST.write_text(json.dumps({**listed, "student": "bob"}))
    with zipfile.ZipFile(cu.submit()) as archive:
        assert json.loads(archive.read("answers.json"))["student"] == "ada"
    for name in ("\ud83d", "\x1b[31m", "a\nb"):
        LIST.write_text(json.dumps({**listed, "tasks": {name: listed["tasks"]["1.1"]}}))
        cu.submit()
        assert re.search(r"^  [?\[31mab]+  2 of 3 points$", capsys.readouterr().out, re.MULTILINE)


def test_a_list_of_a_million_lines():
    cu.check("1.1", answer(2))
    entry = json.loads(LIST.read_text())["tasks"]["1.1"]
    LIST.write_text(json.dumps({"tasks": {str(n): entry for n in range(20_000)}}))
    with pytest.raises(cu.CourseError, match=r"answers\.json' cannot be read \("):
        cu.submit()


def test_a_notebook_killed_while_it_keeps_an_answer(folder, monkeypatch):
    """It held the lock, which ends with it."""
    code = """
    import time
    from pathlib import Path
    from course_utils.handin import keeping
    with keeping._alone(Path("work/answers/ada")):
        print("held", flush=True)
        time.sleep(600)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=folder) as other:
        try:
            assert other.stdout.readline().strip() == b"held"
            monkeypatch.setattr(keeping, "_PATIENCE", 0.2)
            said = str(cu.check("1.1", answer(3)))
        finally:
            other.kill()
    assert "locked for 0.2 s: close other notebooks, then run this again" in said
    assert "Kept for cu.submit()" in str(cu.check("1.1", answer(3)))
