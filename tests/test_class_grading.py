"""Grading with a class file: what counts, how much, until when; and that changing it needs no new marks."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from submissions import put, right, submission, wrong
from test_grading import results, table

from course_utils.classroom import fingerprint
from course_utils.exercises import task
from course_utils.grading.__main__ import NOT_DONE, main
from course_utils.grading.class_file import read
from course_utils.grading.marking import Marker
from course_utils.grading.reading import Report
from course_utils.handin.points import percent

DUE = 1_793_361_600  # 2026-10-30 12:00 UTC
DAY = 86_400
CLASS = """title: Autumn
tasks: [2.4, 1.2, 1.1]
points: {2.4: 10, 1.2: 5, 1.1: 0}
due: {2: 2026-10-30 12:00Z, 1: 2026-11-30 12:00Z}
late: {percent_per_day: 20, days: 2}
"""


def hand_in(folder: Path, name: str, who: str, answers: dict[str, bytes], seconds: int, **more: object) -> None:
    """A zip that came so many seconds after the first due date."""
    path = put(folder / "in", name, submission(who, answers, **more))
    os.utime(path, (DUE + seconds,) * 2)


def graded(folder: Path, text: str = CLASS, *more: str) -> dict[str, dict]:
    (folder / "class.yaml").write_text(text)
    command = ["grade", str(folder / "in"), "--out", str(folder / "out"), "--workers", "1"]
    assert main([*command, "--class", str(folder / "class.yaml"), *more]) == 0
    return results(folder / "out")


def both(who: str) -> dict[str, bytes]:
    return {id: right(id, who) for id in ("2.4", "1.2")}


def test_points_dates_and_selection(tmp_path, capsys):
    for name, seconds in {"early": -DAY, "sharp": 0, "late": 1, "later": DAY + 1, "too-late": 2 * DAY + 1}.items():
        hand_in(tmp_path, f"{name}.zip", name, both(name), seconds)
    hand_in(tmp_path, "more.zip", "more", {**both("more"), "2.6": right("2.6", "more")}, 0)
    hand_in(tmp_path, "half.zip", "half", {"2.4": wrong("2.4", "half"), "1.2": right("1.2", "half")}, 0)
    found = graded(tmp_path)
    expected = {"early": 15, "sharp": 15, "late": 13, "later": 11, "too-late": 5, "more": 15, "half": 5}
    assert {name.removesuffix(".zip"): one["points"] for name, one in found.items()} == expected
    assert {one["of"] for one in found.values()} == {15}
    assert found["late.zip"]["share"] == pytest.approx(13 / 15)
    assert found["late.zip"]["chapters"] == {"2": 0.8, "1": 1.0}
    marks = found["later.zip"]["tasks"]["2.4"]
    assert [marks[name] for name in ("earned", "worth", "late_days", "lost")] == [6, 10, 2, 40]
    assert (marks["points"], marks["of"]) == (task("2.4").points,) * 2
    assert found["more.zip"]["notes"] == ["No part of this class, and not counted: task 2.6."]
    assert "2.6" not in found["more.zip"]["tasks"]
    late = "Task 2.4: 1 day late, counted from 2026-10-30 12:00 (UTC), so 20 % of the points are lost."
    assert found["late.zip"]["notes"] == [late]
    rows = {row["student"]: row for row in table(tmp_path / "out")}
    assert list(rows["late"]) == [
        *("student", "percent", "points", "of", "chapter 02", "chapter 01", "2.4", "1.2", "1.1", "zip", "notes"),
    ]
    assert [rows["late"][name] for name in ("percent", "points", "of", "2.4", "1.2", "1.1")] == [
        "86",
        "13",
        "15",
        "8",
        "5",
        "",
    ]
    assert rows["late"]["notes"] == late
    assert "The median is 86 % of the class." in capsys.readouterr().out


def test_it_is_shown_where_people_look(tmp_path):
    hand_in(tmp_path, "ada.zip", "ada", both("ada"), 1)
    graded(tmp_path, CLASS.replace("Autumn", "<b>Autumn</b> =1+1"))
    folder = tmp_path / "out"
    (page,) = (BeautifulSoup(p.read_text("utf-8"), "html.parser") for p in (folder / "feedback").glob("*.html"))
    shown = " ".join(page.get_text(" ").split())
    assert page.select_one(".score").text == "86 %"
    assert "of the class, 13 of 15 points, 2 of 3 tasks handed in" in shown
    assert "1 of 1 goal; 8 of 10 points; due 2026-10-30 12:00 (UTC), 1 day late: −20 %" in shown
    assert "20 % less for each day begun after the due date, and nothing is accepted after 2 days" in shown
    assert "Task 2.4: 1 day late" in shown
    assert "<b>Autumn</b> =1+1" in shown
    overview = BeautifulSoup((folder / "class.html").read_text("utf-8"), "html.parser")
    words = " ".join(overview.get_text(" ").split())
    assert "2026-10-30 12:00 (UTC) · 2026-11-30 12:00 (UTC)" in words
    assert "of the class, the median" in words
    assert "Days late are those of the latest task." in words
    row = overview.select("table.figures")[-1]
    assert [cell.text for cell in row.select("tbody td")] == ["2", "1", "13", "86 %"]
    with open(folder / "canvas.csv", encoding="utf-8", newline="") as stream:
        head, _, ada = csv.reader(stream)
    assert head[-1] == "ONNX Scroll, <b>Autumn</b> =1+1 (percent)"
    assert ada[-3:] == ["80", "100", "86"]


def test_an_answer_is_as_old_as_the_first_zip_that_holds_it(tmp_path):
    """Whoever hands in chapter 1 in November hands in the answers of October once more."""
    hand_in(tmp_path, "a1.zip", "ada", {"2.4": right("2.4", "ada")}, -DAY)
    hand_in(tmp_path, "a2.zip", "ada", both("ada"), 20 * DAY)
    hand_in(tmp_path, "b1.zip", "bob", {"2.4": wrong("2.4", "bob")}, -DAY)
    hand_in(tmp_path, "b2.zip", "bob", both("bob"), 20 * DAY)
    hand_in(tmp_path, "c2.zip", "eve", both("eve"), 20 * DAY)
    found = graded(tmp_path)
    assert {name: one["points"] for name, one in found.items() if one["counted"]} == {
        "a2.zip": 15,
        "b2.zip": 5,
        "c2.zip": 5,
    }


def test_the_file_of_another_student_makes_nobody_early(tmp_path):
    """An equal file of somebody else is no proof of having been in time."""
    hand_in(tmp_path, "ada.zip", "ada", {"2.4": right("2.4", "ada")}, -DAY)
    hand_in(tmp_path, "bob.zip", "bob", {"2.4": right("2.4", "ada")}, DAY)
    assert graded(tmp_path)["bob.zip"]["tasks"]["2.4"]["late_days"] == 1


@pytest.mark.parametrize(("rule", "counts"), [("last", "new.zip"), ("best", "old.zip")])
def test_the_rule_looks_at_what_is_left(tmp_path, rule, counts):
    """The later zip has more goals, the earlier one more points."""
    hand_in(tmp_path, "old.zip", "ada", {"2.4": right("2.4", "ada")}, 0)
    hand_in(tmp_path, "new.zip", "ada", {"2.4": wrong("2.4", "ada"), "1.2": right("1.2", "ada")}, 3 * DAY)
    found = graded(tmp_path, CLASS + f"rule: {rule}\n")
    assert [name for name, one in found.items() if one["counted"]] == [counts]


def test_changing_the_class_needs_no_new_marks_and_another_key_does(tmp_path, monkeypatch, capsys):
    hand_in(tmp_path, "ada.zip", "ada", both("ada"), 1)
    assert graded(tmp_path)["ada.zip"]["points"] == 13
    journal = (tmp_path / "out" / "journal.jsonl").read_bytes()
    monkeypatch.setattr(Marker, "mark", None)  # whoever marks anything now, fails
    changed = CLASS.replace("2.4: 10", "2.4: 20").replace("percent_per_day: 20", "percent_per_day: 50") + "rule: best\n"
    assert graded(tmp_path, changed)["ada.zip"]["points"] == 15
    assert graded(tmp_path, "tasks: [1]")["ada.zip"]["points"] == task("1.2").points
    assert graded(tmp_path)["ada.zip"]["points"] == 13
    assert (tmp_path / "out" / "journal.jsonl").read_bytes() == journal
    (tmp_path / "class.yaml").write_text(CLASS + "key: another\n")
    command = ["grade", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--class", str(tmp_path / "class.yaml")]
    assert main(command) == NOT_DONE
    assert "made with another version, secret or class key" in capsys.readouterr().err


@pytest.mark.parametrize("more", [["--rule", "last"], ["--class-key", ""], ["--rule", "best", "--class-key", "x"]])
def test_nothing_is_said_twice(tmp_path, more, capsys):
    (tmp_path / "class.yaml").write_text(CLASS)
    command = ["grade", str(tmp_path), "--out", str(tmp_path / "out"), "--class", str(tmp_path / "class.yaml"), *more]
    assert main(command) == NOT_DONE
    assert (
        capsys.readouterr()
        .err.rstrip()
        .endswith(f"the class file says that, too: leave {' and '.join(more[::2])} out.")
    )
    assert not (tmp_path / "out").exists()


def test_a_class_with_faults_grades_nobody(tmp_path, capsys):
    put(tmp_path, "in/a.zip", submission("ada", {}))
    (tmp_path / "class.yaml").write_text("tasks: [4.10]\n")
    command = ["grade", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--class", str(tmp_path / "class.yaml")]
    assert main(command) == NOT_DONE
    assert "line 1: There is no task or chapter '4.10'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("made", "key", "said"),
    [
        ("", "", None),
        (fingerprint("k"), "k", None),
        ("", "k", f"It was made without the key of a class, and graded with that of {fingerprint('k')}:"),
        (fingerprint("x"), "k", f"It was made with the key of the class {fingerprint('x')}, and graded with that of"),
        (fingerprint("x"), "", f"It was made with the key of the class {fingerprint('x')}, and graded without one:"),
        (["<"], "k", "It was made with the key of the class a list, and"),
    ],
)
def test_the_zip_of_another_class_has_a_note(tmp_path, made, key, said):
    hand_in(tmp_path, "ada.zip", "ada", {"1.2": right("1.2", "ada")}, 0, **({"class": made} if made else {}))
    one = graded(tmp_path, f"tasks: [1]\nkey: '{key}'\n")["ada.zip"]
    notes = [note for note in one["notes"] if note.startswith("It was made")]
    assert [note.startswith(said) for note in notes] == ([True] if said else [])


def test_the_report_reads_the_same_shares(tmp_path):
    """Exactly: a third of a point, 33.33 percent of it, and a report that is read again."""
    hand_in(tmp_path, "ada.zip", "ada", both("ada"), 1)
    graded(tmp_path, CLASS.replace("2.4: 10", "2.4: 3.33").replace("percent_per_day: 20", "percent_per_day: 33.33"))
    report = Report(tmp_path / "out")
    (one,) = report
    assert float(report.shares(one)[0]) == one["share"]
    assert percent(report.shares(one)[0]) == f"{table(tmp_path / 'out')[0]['percent']} %"
    a_class = read(tmp_path / "class.yaml")
    assert report.scheme.total == sum(a_class.worth.values())
    head = json.loads(
        (tmp_path / "out" / "results.json").read_text().splitlines()[0][: -len(', "submissions": [')] + "}"
    )
    assert head["class"] == a_class.about()
    assert head["tasks"]["2.4"]["worth"] == 3.33
