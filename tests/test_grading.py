"""The grader: marks equal the known truth, and each submission has exactly one result."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT
from submissions import put, right, submission, wrong

from course_utils.errors import CourseError
from course_utils.exercises import task, tasks_of
from course_utils.grading import __main__ as command
from course_utils.grading.journal import NAME
from course_utils.grading.runs import grade
from course_utils.handin.assessing import assessed
from course_utils.handin.points import task_points
from course_utils.processes import environment

CHEAP = ["1.1", "1.2", "2.4", "2.6", "3.2"]
WORDS = "a long word"


def truth(id: str, data: bytes, who: str) -> tuple[int, int]:
    """Points by the check itself, without the grader."""
    return task_points(task(id), assessed(task(id), data, "a", who).criteria)


def results(report: Path) -> dict[str, dict]:
    """By the name of the zip."""
    found = json.loads((report / "results.json").read_text(encoding="utf-8"))["submissions"]
    assert len({one["zip"] for one in found}) == len(found)
    return {one["zip"]: one for one in found}


def table(report: Path) -> list[dict[str, str]]:
    with open(report / "grades.csv", encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def a_class(folder: Path, count: int) -> dict[str, dict[str, bytes]]:
    """Students who have all right, all wrong, or some of both, and one who handed in a part; their answers by id."""
    answers = {}
    for n in range(count):
        who = f"s-{n:03}"
        made = {id: (right if (n + k) % 3 or n == 0 else wrong)(id, who) for k, id in enumerate(CHEAP[: 5 - n % 2])}
        if n == 1:
            made = {id: wrong(id, who) for id in CHEAP}
        answers[who] = made
        put(folder, f"submission_{who}_{n:08x}.zip", submission(who, made))
    return answers


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, bytes]]]:
    folder = tmp_path_factory.mktemp("graded")
    answers = a_class(folder / "in", 6)
    grade(folder / "in", folder / "out", workers=2)
    return folder, answers


def test_marks_equal_the_truth(graded):
    folder, answers = graded
    found = {one["student"]: one for one in results(folder / "out").values()}
    assert found.keys() == answers.keys()
    for who, mine in answers.items():
        got = {id: (marks["points"], marks["of"]) for id, marks in found[who]["tasks"].items()}
        assert got == {id: truth(id, data, who) for id, data in mine.items()}
        assert found[who]["points"] == sum(points for points, _ in got.values())
    assert found["s-000"]["chapters"]["1"] == 2 / len(tasks_of(1))
    assert found["s-001"]["share"] < found["s-000"]["share"] < 1
    assert found["s-001"]["points"] < sum(task(id).points for id in CHEAP)


def test_criteria_and_hints_are_those_of_the_notebook(graded):
    folder, answers = graded
    one = next(one for one in results(folder / "out").values() if one["student"] == "s-001")
    for id, data in answers["s-001"].items():
        verdict = assessed(task(id), data, task(id).file, "s-001")
        assert [(c["what"], c["passed"], c["hint"], c["condition"]) for c in one["tasks"][id]["criteria"]] == [
            (c.what, c.passed, c.hint, c.condition) for c in verdict.criteria
        ]
        assert one["tasks"][id]["sha256"] == hashlib.sha256(data).hexdigest()


def test_a_difference_to_what_the_notebook_claims_is_named(graded):
    """The submissions of the class claim all points."""
    folder, _ = graded
    for one in results(folder / "out").values():
        for id, marks in one["tasks"].items():
            assert marks["claimed"] == [task(id).points] * 2
            said = [
                f"The notebook claims {marks['of']} of {marks['of']} points, the grader counted {marks['points']} of {marks['of']}."
            ]
            assert marks["notes"] == (said if marks["points"] < marks["of"] else [])


def test_table_of_grades(graded):
    folder, _ = graded
    rows, found = table(folder / "out"), results(folder / "out")
    assert [row["student"] for row in rows] == [f"s-{n:03}" for n in range(6)]
    for row in rows:
        one = found[row["zip"]]
        assert int(row["points"]) == one["points"]
        assert int(row["percent"]) == int(100 * one["share"] + 1e-9)
        assert {id: int(row[id]) for id in one["tasks"]} == {id: m["points"] for id, m in one["tasks"].items()}
        assert row["10.4"] == ""


def test_a_second_run_grades_nothing_again(graded, monkeypatch):
    folder, _ = graded
    before = {path.name: path.read_bytes() for path in (folder / "out").iterdir()}
    monkeypatch.setattr("course_utils.grading.marking.Marker.mark", None)
    grade(folder / "in", folder / "out", workers=1)
    assert {path.name: path.read_bytes() for path in (folder / "out").iterdir()} == before


def test_equal_answers_are_checked_once(tmp_path, monkeypatch):
    """In two zips of a student, and when the run goes on after a stop."""
    from course_utils.handin import guarded

    asked, examine = [], guarded.examine_with
    monkeypatch.setattr(guarded, "examine_with", lambda w, it, *a, **k: asked.append(it.id) or examine(w, it, *a, **k))
    first = {id: right(id, "ada") for id in ("1.2", "2.4")}
    put(tmp_path, "in/submission_ada_00000001.zip", submission("ada", first))
    put(tmp_path, "in/submission_ada_00000002.zip", submission("ada", first | {"2.6": right("2.6", "ada")}))
    grade(tmp_path / "in", tmp_path / "out", workers=2)
    put(tmp_path, "in/submission_ada_00000003.zip", submission("ada", first | {"2.6": wrong("2.6", "ada")}))
    grade(tmp_path / "in", tmp_path / "out")
    assert sorted(asked) == ["1.2", "2.4", "2.6", "2.6"]
    marks = {name[-5]: one["points"] for name, one in results(tmp_path / "out").items()}
    assert marks["2"] == sum(task(id).points for id in ("1.2", "2.4", "2.6"))
    assert marks["1"] <= marks["3"] < marks["2"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system knows no such signal")
@pytest.mark.parametrize(
    ("lines", "how", "status"), [(1, "SIGKILL", -9), (3, "SIGKILL", -9), (2, "SIGINT", command.STOPPED)]
)
def test_ended_in_the_middle_and_resumed(tmp_path, graded, python, lines, how, status):
    """When so many zips are done. The results are then those of the run that nobody disturbed."""
    whole, _ = graded
    code = f"""
    import os, signal, sys
    from course_utils.grading import __main__ as command
    from course_utils.grading.journal import Journal

    add = Journal.add
    def add_and_end(self, *more):
        add(self, *more)
        if len(self) == {lines}:
            os.kill(os.getpid(), signal.{how})
    Journal.add = add_and_end
    sys.exit(command.main(["grade", {str(whole / "in")!r}, "--out", "out", "--workers", "2"]))
    """
    child = python(code, cwd=tmp_path, ok=False)
    journal, said = tmp_path / "out" / NAME, child.stderr
    assert child.returncode == status
    assert "Traceback" not in said
    assert ("grading: stopped. Run the same command again" in said) == (how == "SIGINT")
    kept = journal.read_bytes()
    assert not (tmp_path / "out" / "results.json").exists()
    with open(journal, "ab") as stream:  # as if the kill had come while the next line was written
        stream.write(b'{"sha256": "12')
    grade(whole / "in", tmp_path / "out", workers=2)
    now = journal.read_bytes()
    assert now.startswith(kept[: kept.rindex(b"\n") + 1]), "what was graded is not graded again"
    digests = [json.loads(line)["sha256"] for line in now.splitlines()[1:]]
    assert len(digests) == len(set(digests)) == 6, "none is doubled, none is missing"
    for name in ("results.json", "grades.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (whole / "out" / name).read_bytes()


def two_zips(folder: Path) -> None:
    """The earlier one is better."""
    early = put(folder, "in/submission_ada_00000001.zip", submission("ada", {"2.4": right("2.4", "ada")}))
    late = put(folder, "in/submission_ada_00000002.zip", submission("ada", {"2.4": wrong("2.4", "ada")}))
    os.utime(early, (1_000_000, 1_000_000))
    os.utime(late, (2_000_000, 2_000_000))


@pytest.mark.parametrize(("rule", "number"), [("last", "2"), ("best", "1")])
def test_of_two_zips_the_rule_chooses(tmp_path, rule, number):
    two_zips(tmp_path)
    grade(tmp_path / "in", tmp_path / "out", rule=rule)
    (chosen,) = table(tmp_path / "out")
    assert chosen["zip"] == f"submission_ada_0000000{number}.zip"
    counted = {name: one["counted"] for name, one in results(tmp_path / "out").items()}
    assert counted == {f"submission_ada_0000000{n}.zip": n == number for n in "12"}
    (other,) = (one for one in results(tmp_path / "out").values() if not one["counted"])
    assert other["notes"] == [f"It does not count: by the rule {rule!r}, {chosen['zip']!r} does."]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Ada L_123_file/submission_ada_00000001.zip", "Bob M_124_file/submission_ada_00000002.zip"),
        ("lovelaceada_123_777_submission_ada_00000001.zip", "bob_LATE_124_778_submission_ada_00000002.zip"),
    ],
    ids=["Moodle", "Canvas"],
)
def test_two_senders_with_one_id(tmp_path, first, second):
    """Both have a grade, and both are named."""
    put(tmp_path / "in", first, submission("ada", {"2.4": right("2.4", "ada")}))
    put(tmp_path / "in", second, submission("ada", {"2.4": wrong("2.4", "ada")}))
    grade(tmp_path / "in", tmp_path / "out")
    assert [one["counted"] for one in results(tmp_path / "out").values()] == [True, True]
    for row in table(tmp_path / "out"):
        assert "The id 'ada' is also that of '" in row["notes"]


def test_one_sender_with_two_zips_in_a_folder_per_week(tmp_path):
    """Such folders hold several students, so they are no senders."""
    for week in (1, 2):
        for who in ("ada", "bob"):
            path = put(
                tmp_path / "in", f"week {week}/submission_{who}_0000000{week}.zip", submission(who, {"1.2": b"{}"})
            )
            os.utime(path, (week, week))
    grade(tmp_path / "in", tmp_path / "out")
    assert [row["zip"] for row in table(tmp_path / "out")] == [
        f"week 2/submission_{who}_00000002.zip" for who in ("ada", "bob")
    ]


def test_the_same_bytes_twice(tmp_path):
    data = submission("ada", {"2.4": right("2.4", "ada")})
    for name in ("A_1_file/one.zip", "B_2_file/two.zip"):
        put(tmp_path / "in", name, data)
    grade(tmp_path / "in", tmp_path / "out")
    assert [one["points"] for one in results(tmp_path / "out").values()] == [task("2.4").points] * 2
    assert "'B_2_file/two.zip' has the same bytes." in results(tmp_path / "out")["A_1_file/one.zip"]["notes"]


def test_guests_do_not_stand_for_each_other(tmp_path):
    for n, make in enumerate((right, wrong)):
        put(tmp_path, f"in/submission_guest_0000000{n}.zip", submission("guest", {"2.4": make("2.4", "guest")}))
    grade(tmp_path / "in", tmp_path / "out")
    assert [row["student"] for row in table(tmp_path / "out")] == ["guest", "guest"]


def test_other_versions_are_graded_with_a_note(tmp_path):
    old = {"course": "0.0.7", "format": 9}
    data = submission("ada", {"2.4": right("2.4", "ada")}, **old)
    put(tmp_path, "in/a.zip", data)
    grade(tmp_path / "in", tmp_path / "out")
    (one,) = results(tmp_path / "out").values()
    assert one["points"] == task("2.4").points
    assert one["course"] == "0.0.7"
    assert re.search(
        r"version 0\.0\.7 of the course, and graded with .* has format 9, this grader knows 2", " ".join(one["notes"])
    )


def test_a_secret_changes_the_hidden_inputs_and_a_key_the_parameters(tmp_path):
    """A right answer stays right with any secret; with the key of another class it is another student's."""
    put(tmp_path, "in/a.zip", submission("ada", {"1.1": right("1.1", "ada")}))
    (tmp_path / "secret.txt").write_text(f"{WORDS}\n")
    arguments = ["grade", str(tmp_path / "in"), "--workers", "1"]
    assert command.main([*arguments, "--out", str(tmp_path / "a"), "--secret-file", str(tmp_path / "secret.txt")]) == 0
    assert command.main([*arguments, "--out", str(tmp_path / "b"), "--class-key", WORDS]) == 0
    points = [next(iter(results(tmp_path / name).values()))["points"] for name in "ab"]
    assert points == [task("1.1").points, 0]
    for path in (path for name in "ab" for path in (tmp_path / name).rglob("*") if path.is_file()):
        assert WORDS not in path.read_text(encoding="utf-8")
    with pytest.raises(CourseError, match="another version, secret or class key"):
        grade(tmp_path / "in", tmp_path / "a")


def test_a_formula_in_a_name_is_no_formula_in_the_table(tmp_path):
    names = ["=1+1.zip", "+1.zip", "-1.zip", "@SUM(A1).zip"]
    for name in names:
        put(tmp_path / "in", name, b"")
    grade(tmp_path / "in", tmp_path / "out")
    assert sorted(row["zip"] for row in table(tmp_path / "out")) == sorted(f"'{name}" for name in names)


def test_nothing_outside_the_report_is_touched(tmp_path, graded):
    folder, _ = graded
    shutil.copytree(folder / "in", tmp_path / "in")

    def state(place: Path) -> dict[str, tuple[str, int]]:
        files = (p for p in place.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
        return {str(p): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns) for p in files}

    before = (
        state(tmp_path / "in"),
        state(ROOT / "course_utils" / "exercises"),
        state(ROOT / "course_utils" / "grading"),
    )
    grade(tmp_path / "in", tmp_path / "out")
    assert before == (
        state(tmp_path / "in"),
        state(ROOT / "course_utils" / "exercises"),
        state(ROOT / "course_utils" / "grading"),
    )
    assert {path.name for path in (tmp_path / "out").iterdir()} == {NAME, "results.json", "grades.csv", ".lock"}
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("in/report", "lie in each other"),
        (".", "lie in each other"),
        ("in", "lie in each other"),
        ("other", "holds other files"),
    ],
)
def test_a_report_in_the_wrong_place(tmp_path, where, said):
    put(tmp_path, "in/a.zip", b"")
    put(tmp_path, "other/thesis.txt", b"")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CourseError, match=said):
        grade(tmp_path / "in", tmp_path / where)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_journal_that_is_none_stays_as_it_is(tmp_path):
    put(tmp_path, "in/a.zip", b"")
    journal = put(tmp_path, f"out/{NAME}", b"my diary\n")
    with pytest.raises(CourseError, match="--out"):
        grade(tmp_path / "in", tmp_path / "out")
    assert journal.read_bytes() == b"my diary\n"


def test_a_file_in_the_place_of_the_report(tmp_path):
    put(tmp_path, "in/a.zip", b"")
    put(tmp_path, "out", b"")
    with pytest.raises(CourseError, match="give another for --out"):
        grade(tmp_path / "in", tmp_path / "out")


def test_what_cannot_be_written_is_one_sentence_and_the_run_goes_on_later(tmp_path):
    """A folder stands where each of the files belongs."""
    put(tmp_path, "in/a.zip", submission("ada", {"2.4": right("2.4", "ada")}))
    for name in (NAME, "results.json", "grades.csv"):
        (tmp_path / "out" / name).mkdir(parents=True)
        with pytest.raises(
            CourseError, match=rf"^Cannot write '{re.escape(name)}' into '.*' \(.*\): .* goes on where it stopped\.$"
        ):
            grade(tmp_path / "in", tmp_path / "out")
        (tmp_path / "out" / name).rmdir()
        (tmp_path / "out" / NAME).touch()  # so short a journal is that of a run that was killed at once
    grade(tmp_path / "in", tmp_path / "out")
    assert [row["points"] for row in table(tmp_path / "out")] == [str(task("2.4").points)]
    assert not list((tmp_path / "out").glob("*.part"))
    with pytest.raises(CourseError, match="cannot be the report's folder"):
        grade(tmp_path / "in", tmp_path / "out" / NAME / "below")


def test_two_graders_do_not_write_into_one_report(tmp_path):
    from filelock import FileLock

    put(tmp_path, "in/a.zip", b"")
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"), pytest.raises(CourseError, match="Another grader writes into"):
        grade(tmp_path / "in", tmp_path / "out")


def test_a_full_disk_is_one_sentence_and_the_run_goes_on_later(tmp_path, graded):
    """A limit of the file size fails in the same place, in the middle of a line of the journal."""
    resource = pytest.importorskip("resource")
    whole, _ = graded
    run = [
        sys.executable,
        "-m",
        "course_utils.grading",
        "grade",
        str(whole / "in"),
        "--out",
        str(tmp_path / "out"),
        "--workers",
        "1",
    ]
    size = (whole / "out" / NAME).stat().st_size // 2
    done = subprocess.run(
        run, env=environment(), capture_output=True, text=True, check=False, timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
    )  # fmt: skip
    (said,) = (line for line in done.stderr.splitlines() if line.startswith("grading: ") and "%" not in line)
    assert re.fullmatch(
        r"grading: Cannot write 'journal\.jsonl' into '.*' \(.*\): make room there, .* goes on where it stopped\.", said
    )
    assert done.returncode == command.NOT_DONE
    assert "Traceback" not in done.stderr
    grade(whole / "in", tmp_path / "out")
    assert (tmp_path / "out" / "results.json").read_bytes() == (whole / "out" / "results.json").read_bytes()


def test_summary_and_wrong_use_of_the_command(tmp_path, capsys):
    put(tmp_path, "in/submission_ada_00000001.zip", submission("ada", {"2.4": right("2.4", "ada")}))
    put(tmp_path, "in/bad.zip", b"%PDF")
    put(tmp_path, "in/essay.docx", b"")
    assert command.main(["grade", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--workers", "1"]) == 0
    said = capsys.readouterr().out
    assert "2 submissions, 1 grade. The median is " in said
    assert "Walls around each answer: time, memory, number of processes" in said
    assert "  bad.zip: It is not a zip, but looks like a PDF" in said
    assert "1 file in the folder is no zip: essay.docx." in said
    assert command.main(["grade", str(tmp_path / "no"), "--out", str(tmp_path / "out")]) == command.NOT_DONE
    assert "cannot be read" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert command.main(["grade", str(tmp_path / "empty"), "--out", str(tmp_path / "new")]) == command.NOT_DONE
    assert "There is no zip in" in capsys.readouterr().err
    put(tmp_path, "empty.txt", b" \n")
    for file, cause in (("empty.txt", "is empty"), ("no.txt", "cannot be read")):
        secret = ["--secret-file", str(tmp_path / file)]
        assert (
            command.main(["grade", str(tmp_path / "in"), "--out", str(tmp_path / "out"), *secret]) == command.NOT_DONE
        )
        assert cause in capsys.readouterr().err
    for number in ("0", "-1", "many"):
        with pytest.raises(SystemExit):
            command.main(["grade", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--workers", number])


def test_torch_is_not_loaded(python, tmp_path):
    """Neither by the grader nor by the checks: it takes seconds to load."""
    put(tmp_path, "in/a.zip", submission("ada", {"2.4": right("2.4", "ada")}))
    code = """
    import sys
    from pathlib import Path
    from course_utils.grading.runs import grade
    grade(Path("in"), Path("out"))
    print({"torch", "torchvision", "matplotlib", "pandas"} & set(sys.modules))
    """
    assert python(code, cwd=tmp_path).stdout.strip() == "set()"
