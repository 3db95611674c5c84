"""Hostile submissions: each has exactly one result with one clear sentence, and those beside it have their marks."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import hostile
import pytest
from submissions import put, right, submission
from test_grading import results, table
from test_guarded import HOSTILE

from course_utils.errors import CourseError
from course_utils.exercises import task
from course_utils.grading.journal import Journal
from course_utils.grading.runs import grade
from course_utils.handin import guarded
from course_utils.paths import PACKAGE, data_path
from course_utils.processes import environment

MEMORY = 2 * 2**30  # bytes; the grader has far less, and a bomb that is opened passes it
KINDS = hostile.KINDS | (hostile.SPECIAL if sys.platform == "linux" else {})


def state(*places: Path) -> dict[str, tuple[str, int]]:
    """SHA-256 and date of each file below."""
    files = (p for place in places for p in place.rglob("*") if p.is_file() and not p.is_symlink())
    small = (p for p in files if "__pycache__" not in p.parts and p.stat().st_size < 2**30)
    return {str(p): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns) for p in small}


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on a folder with one of each, from a process that may not hold much."""
    folder = tmp_path_factory.mktemp("hostile")
    hostile.fill(folder / "in", KINDS)
    mine = (folder / "in", PACKAGE, data_path())
    before, temporary = state(*mine), set(os.listdir(tempfile.gettempdir()))
    run = [
        sys.executable,
        "-m",
        "course_utils.grading",
        "grade",
        str(folder / "in"),
        "--out",
        str(folder / "out"),
        "--workers",
        "2",
    ]

    def limit() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, resource.RLIM_INFINITY))

    done = subprocess.run(
        run, env=environment(), capture_output=True, text=True, check=False, timeout=300,
        preexec_fn=limit if sys.platform == "linux" else None,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert state(*mine) == before, "the grader's own files and the submissions are as they were"
    assert not [name for name in set(os.listdir(tempfile.gettempdir())) - temporary if name.startswith("check-")]
    assert {path.name for path in folder.iterdir()} == {"in", "out"}
    return folder / "out"


def sentences(one: dict[str, Any]) -> list[str]:
    """All that is said of a submission."""
    tasks = one["tasks"].values()
    hints = [c["hint"] for marks in tasks for c in marks["criteria"] if not c["passed"]]
    return [one["problem"], *one["notes"], *hints, *(t for marks in tasks for t in (marks["problem"], *marks["notes"]))]


def test_there_are_enough_of_them():
    assert len(KINDS) >= 100


def test_one_result_for_each_and_none_beside(graded):
    assert results(graded).keys() == {f"{kind}.zip" for kind in KINDS} | {f"good-{n}.zip" for n in range(3)}


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_named(graded, kind):
    one = results(graded)[f"{kind}.zip"]
    said = [sentence for sentence in sentences(one) if sentence]
    assert any(re.search(KINDS[kind][1], sentence) for sentence in said or [""]), said
    assert all(sentence.isprintable() and len(sentence) < 700 for sentence in said), said
    assert not re.search("Traceback|The grader failed", " ".join(said))
    assert bool(one["problem"]) != bool(one["tasks"]), "either there is one sentence, or there are marks"
    assert one["problem"] == "" or one["problem"].endswith((".", "?"))


@pytest.mark.parametrize("n", range(3))
def test_those_beside_them_have_their_marks(graded, n):
    one = results(graded)[f"good-{n}.zip"]
    assert one["points"] == task(hostile.ID).points
    assert not any(sentences(one))


def test_the_table_has_each_once_and_nothing_runs_in_it(graded):
    rows = table(graded)
    assert len({row["zip"] for row in rows}) == len(rows) == len(KINDS) + 3
    for row in rows:
        assert all(cell.isprintable() and not cell.startswith(("=", "+", "-", "@")) for cell in row.values())


def test_models_that_end_or_fill_or_delay_the_process(tmp_path, monkeypatch):
    """Each is ended at its limit; the one behind it has its marks."""
    ask = guarded.Worker.ask
    monkeypatch.setattr(guarded.Worker, "ask", lambda self, request, data: ask(self, request, data, seconds=10))
    for n, (make, _) in enumerate(HOSTILE.values()):
        answers = {"2.4": right("2.4", f"h-{n}"), "3.2": make().SerializeToString()}
        put(tmp_path, f"in/submission_h-{n}_0000000{n}.zip", submission(f"h-{n}", answers))
    grade(tmp_path / "in", tmp_path / "out", workers=2)
    found = {one["student"]: one["tasks"] for one in results(tmp_path / "out").values()}
    assert len(found) == len(HOSTILE)
    for n, (name, (_, sentence)) in enumerate(HOSTILE.items()):
        tasks = found[f"h-{n}"]
        assert tasks["2.4"]["points"] == task("2.4").points, name
        assert tasks["3.2"]["points"] == 0, name
        expected = "it was not done after" if name == "endless loop" else sentence
        assert re.search(expected, tasks["3.2"]["problem"]), (name, tasks["3.2"]["problem"])


def test_one_that_takes_all_its_time_delays_no_other(tmp_path, monkeypatch):
    """The first is held until all others have their marks: were they to wait for it, it would be for ever."""
    for who in ("a-slow", "bob", "eve", "zoe"):
        put(tmp_path, f"in/{who}.zip", submission(who, {"2.4": right("2.4", who)}))
    others, ask, add = threading.Event(), guarded.Worker.ask, Journal.add

    def ask_slowly(self, request, data):
        if request["who"] == "a-slow":
            assert others.wait(120), "the others wait for the slow one"
        return ask(self, request, data)

    def add_and_tell(self, *more):
        add(self, *more)
        if len(self) == 3:
            others.set()

    monkeypatch.setattr(guarded.Worker, "ask", ask_slowly)
    monkeypatch.setattr(Journal, "add", add_and_tell)
    grade(tmp_path / "in", tmp_path / "out", workers=2)
    assert {one["points"] for one in results(tmp_path / "out").values()} == {task("2.4").points}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_what_may_not_be_read(tmp_path):
    put(tmp_path, "in/a.zip", b"x").chmod(0)
    put(tmp_path, "in/below/b.zip", b"x").parent.chmod(0)
    try:
        grade(tmp_path / "in", tmp_path / "out")
    finally:
        (tmp_path / "in" / "below").chmod(0o700)
    said = {one["zip"]: one["problem"] for one in results(tmp_path / "out").values()}
    assert said["a.zip"].startswith("It cannot be read (Permission denied)")
    assert said["below"].startswith("This folder cannot be read (Permission denied)")


def test_a_folder_that_was_packed_anew_is_read(tmp_path):
    """Some browsers unpack a zip; a Mac puts a folder around it, and files of its own beside it."""
    entries = {f"submission_ada/{name}": data for name, data in hostile.good("ada").items()}
    entries |= {"submission_ada/.DS_Store": b"x", "__MACOSX/submission_ada/._answers.json": b"x"}
    put(tmp_path, "in/a.zip", hostile.packed(entries))
    put(tmp_path, "in/__MACOSX/._a.zip", b"x")
    put(tmp_path, "in/._a.zip", b"x")
    grade(tmp_path / "in", tmp_path / "out")
    (one,) = results(tmp_path / "out").values()
    assert (one["zip"], one["points"], one["problem"]) == ("a.zip", task("2.4").points, "")


def test_a_machine_without_room_for_a_process_is_no_fault_of_a_student(tmp_path, monkeypatch):
    """Nothing is written down, so that the next run grades it."""
    put(tmp_path, "in/a.zip", submission("ada", {"2.4": right("2.4", "ada")}))

    def none(self) -> None:
        raise guarded.NotStartedError("exit status 1")

    with monkeypatch.context() as patch:
        patch.setattr(guarded.Worker, "__init__", none)
        with pytest.raises(CourseError, match=r"did not start \(exit status 1\): .* goes on where it stopped\.$"):
            grade(tmp_path / "in", tmp_path / "out")
    grade(tmp_path / "in", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "results.json").read_text())["submissions"][0]["points"] == task("2.4").points


def test_ended_from_outside_it_is_tried_again_and_then_said(tmp_path, monkeypatch):
    """As where memory runs out: at the first answer the system ends the process twice, at the second once."""
    ended = iter(["signal SIGKILL", "signal SIGKILL", "signal SIGKILL"])
    ask = guarded.Worker.ask
    monkeypatch.setattr(
        guarded.Worker, "ask", lambda self, *a: ({}, how) if (how := next(ended, "")) else ask(self, *a)
    )
    answers = {id: right(id, "ada") for id in ("1.2", "2.4")}
    put(tmp_path, "in/a.zip", submission("ada", answers))
    grade(tmp_path / "in", tmp_path / "out")
    (one,) = results(tmp_path / "out").values()
    assert "the system ended the process that looked at it, twice" in one["tasks"]["1.2"]["problem"]
    assert one["tasks"]["2.4"]["points"] == task("2.4").points


def test_a_fault_of_the_grader_itself_hits_one_submission(tmp_path, monkeypatch):
    """It is not written down either."""
    from course_utils.grading.marking import Marker

    for who in ("ada", "bob"):
        put(tmp_path, f"in/{who}.zip", submission(who, {"2.4": right("2.4", who)}))
    mark = Marker.mark
    with monkeypatch.context() as patch:
        patch.setattr(Marker, "mark", lambda self, data: 1 / 0 if data == bad else mark(self, data))
        bad = (tmp_path / "in" / "bob.zip").read_bytes()
        grade(tmp_path / "in", tmp_path / "out")
    found = results(tmp_path / "out")
    assert found["bob.zip"]["problem"].startswith("The grader failed at it (ZeroDivisionError: division by zero)")
    assert found["ada.zip"]["points"] == task("2.4").points
    grade(tmp_path / "in", tmp_path / "out")
    assert results(tmp_path / "out")["bob.zip"]["points"] == task("2.4").points


def test_a_package_that_is_missing_here_is_no_fault_of_a_student(tmp_path, monkeypatch):
    """The run stops, and goes on when it is there."""
    from course_utils.handin.assessing import Verdict

    put(tmp_path, "in/a.zip", submission("ada", {"2.4": right("2.4", "ada")}))
    lacks = Verdict(problem="The package 'x' is not installed. Install it.", lacking=True)
    with monkeypatch.context() as patch:
        patch.setattr(guarded, "examine_with", lambda *a, **k: lacks)
        with pytest.raises(
            CourseError, match=r"^Task 2\.4 cannot be graded on this machine\. The package 'x' .* stopped\.$"
        ):
            grade(tmp_path / "in", tmp_path / "out")
    grade(tmp_path / "in", tmp_path / "out")
    assert table(tmp_path / "out")[0]["points"] == str(task("2.4").points)
