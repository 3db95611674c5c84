"""The class file: what it says, and one sentence for whatever is wrong in it."""

from __future__ import annotations

import datetime
import re
from fractions import Fraction
from pathlib import Path

import pytest
from checkout import ROOT

from course_utils.errors import CourseError
from course_utils.exercises import task
from course_utils.grading.class_file import ClassFile, Late, read
from course_utils.grading.marking import every_task
from course_utils.grading.scoring import Scheme, head

HOUR, DAY = 3600, 86_400


def class_of(folder: Path, text: str | bytes) -> ClassFile:
    path = folder / "class.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read(path)


def scheme_of(a_class: ClassFile | None) -> Scheme:
    about = head(a_class)
    return Scheme(about["tasks"], about["class"])


def test_the_example_is_the_whole_course():
    a_class = read(ROOT / "notebooks" / "assignments" / "class.yaml")
    assert a_class.tasks == tuple(every_task())
    assert a_class.worth == {id: it.points for id, it in every_task().items()}
    assert (a_class.due, a_class.late, a_class.rule, a_class.key, a_class.solutions) == ({}, None, "last", "", True)


def test_what_the_example_shows_can_be_switched_on(tmp_path):
    """Its comments are right, too: each line that shows a field is one."""
    text = (ROOT / "notebooks" / "assignments" / "class.yaml").read_text(encoding="utf-8")
    on = re.sub(r"^# ((?: {2})?[\w.]+:.*|  - .*)$", r"\1", text, flags=re.MULTILINE)
    a_class = class_of(tmp_path, on)
    assert a_class.worth["1.1"] == 5
    assert a_class.worth["2.4"] == 10
    assert a_class.due["2.1"].isoformat() == "2026-11-13T18:00:00+01:00"
    assert a_class.due["9.1"].date() == datetime.date(2027, 1, 29)
    assert a_class.late == Late(Fraction(10), 5)
    assert a_class.key == "autumn-2026"


def test_order_points_and_dates(tmp_path):
    a_class = class_of(
        tmp_path,
        """
        tasks: [2.4, 01, "9.10"]
        points: {all: 2, 1: 2.5, 1.2: 0}
        due: {all: 2026-10-30T12:00Z, 1: "2026-11-01 12:00 +02:00", 1.3: 2026-11-02 12:00:30+00:00}
        """,
    )
    assert a_class.tasks == ("2.4", "1.1", "1.2", "1.3", "1.4", "1.5", "1.6", "9.10")
    assert [a_class.worth[id] for id in ("2.4", "1.1", "1.2", "9.10")] == [2, Fraction("2.5"), 0, 2]
    assert [a_class.due[id].isoformat() for id in ("9.10", "1.1", "1.3")] == [
        "2026-10-30T12:00:00+00:00",
        "2026-11-01T12:00:00+02:00",
        "2026-11-02T12:00:30+00:00",
    ]


def test_a_day_ends_when_it_ends_there(tmp_path):
    """Also on both sides of the change to winter time, which is on 25 October 2026."""
    a_class = class_of(tmp_path, "tasks: [1.1, 1.2]\ntime_zone: Europe/Berlin\ndue: {1.1: 2026-10-24, 1.2: 2026-10-25}")
    assert [date.isoformat() for date in a_class.due.values()] == [
        "2026-10-24T23:59:59+02:00",
        "2026-10-25T23:59:59+01:00",
    ]


def test_texts_stay_what_they_are(tmp_path):
    """YAML makes numbers and dates of some of these."""
    for key in ("007", "1e3", "2026-10-30", "no", "0x10", "12:30"):
        assert class_of(tmp_path, f"key: {key}\ntitle: 'null'").key == key
    assert class_of(tmp_path, "key: x\ntitle: 'null'").title == "null"
    assert class_of(tmp_path, "key:\nrule: ~\ndue:\nlate:\n") == class_of(tmp_path, "title:")
    assert class_of(tmp_path, "\ufeffkey: x").key == "x"


FAULTS = {
    "": "It is empty: start with a copy",
    "# nothing\n": "It is empty",
    "just words": "line 1: The file has one field a line.*and here stands 'just words'",
    "- a": "The file has one field a line.*here stands a list",
    "title: x\ntasks: [1, 2": "line 2: This is not YAML",
    "title: a: b": "line 1: This is not YAML",
    "title: x\n\tkey: y": "line 2: This is not YAML",
    "title: \x01": "This is not YAML",
    "title: x\n---\ntitle: y": "line 2: A second document begins here",
    "a: &x [1]\nb: *x": "line 1: Anchors",
    "key: " + "[" * 5000: "more than 5 levels deep",
    "title: !!python/object/apply:os.system [echo]": "'title' must be a word.*with the tag 'tag:yaml.org,2002:python/object/apply:os.system'",
    "key: !!binary aGk=": "'key' must be a word.*with the tag",
    "? [a, b]\n: c": "Before the colon stands a name",
    "rulle: last": r"line 1: There is no field 'rulle': do you mean 'rule'\?",
    "zzz: 1": "There is no field 'zzz': fields are title,",
    "secret: hush": "The secret does not stand in this file",
    "key: a\nkey: b": "line 2: 'key' stands here twice",
    "title: [x]": "'title' must be a word or a sentence, and here stands a list",
    f"title: {'x' * 201}": "'title' has up to 200 characters",
    'key: "a\\u202eb"': "'key' has up to 200 characters that can be printed",
    "rule: first": "'rule' is 'first', and it must be last or best",
    "solutions: maybe": "'solutions' is 'maybe', and it must be on or off",
    "tasks: []": "No task is selected",
    "tasks:": "'tasks' is a list of chapters and tasks.*here stands nothing",
    "tasks: 1": "'tasks' is a list of chapters and tasks",
    "tasks: [4.10]": "There is no task or chapter '4.10': chapter 4 has 4.1, 4.2",
    "tasks: [12]": r"There is no task or chapter '12': chapters are 1, 2, .* 11;",
    "tasks: [²]": "There is no task or chapter '²'",
    "tasks: [graphs]": "There is no task or chapter 'graphs'",
    "tasks: [1, 1.2]": "Task 1.2 is selected twice, by '1' and by '1.2'",
    "tasks: [1.2, '1.2']": "Task 1.2 is selected twice",
    "tasks: [[1]]": "'tasks' is a list .*here stands a list",
    "points: 3": "'points' says for tasks how many they have",
    "points: {1.1: -1}": "The points of 1.1 are '-1', and they must be 0 to 1000",
    "points: {1.1: 1001}": "must be 0 to 1000",
    "points: {1.1: 1e2}": "The points of 1.1 are '1e2'",
    "points: {1.1: 0.333}": "with two decimals at most",
    "points: {1.1: }": "The points of 1.1 are a number.*here stands nothing",
    "points: {7.99: 1}": "There is no task or chapter '7.99'",
    "tasks: [1]\npoints: {2: 1}": "'2' is not among the selected tasks",
    "points: {1: 1, 01: 2}": "'01' stands for 1.1, which has a value already",
    "points: {all: 0}": "All tasks together have 0 points",
    "due: 2026-10-30": "The due date of 'all', '2026-10-30', has no time zone|The due date of all, '2026-10-30', has no time zone",
    "due: 2026-02-30": "is an impossible date.*day is out of range",
    "due: 2026-10-30 25:00Z": "is an impossible date",
    "due: 0001-01-01T00:00Z": "the year must be 2000 to 2199",
    "due: 30.10.2026": "is no date: write a day such as",
    "due: 20261030": "is no date",
    "due: [2026-10-30]": "'due' is a date, or says one for chapters and tasks",
    "due: {1: {}}": "The due date of 1 is a day or a time",
    "due: 2026-10-30\ntime_zone: Mars/Olympus": "line 2: 'time_zone' is 'Mars/Olympus', and this machine knows no such zone",
    "time_zone: ../../etc/passwd": "knows no such zone",
    "late: {percent_per_day: 10}": "There is a late rule and no due date",
    "due: 2026-10-30Z\nlate: {}": "is no date",
    "due: 2026-10-30 12:00Z\nlate: 10": "'late' has percent_per_day",
    "due: 2026-10-30 12:00Z\nlate: {days: 3}": "The percent for a late day is missing",
    "due: 2026-10-30 12:00Z\nlate: {percent: 3, percent_per_day: 1}": "There is no field 'percent' in 'late': do you mean 'percent_per_day'",
    "due: 2026-10-30 12:00Z\nlate: {percent_per_day: 101}": "must be 0 to 100",
    "due: 2026-10-30 12:00Z\nlate: {percent_per_day: 10 %}": "are '10 %'",
    "due: 2026-10-30 12:00Z\nlate: {percent_per_day: 1, days: 1.5}": "write a whole number",
}


@pytest.mark.parametrize(("text", "said"), FAULTS.items(), ids=[repr(text[:40]) for text in FAULTS])
def test_a_sentence_for_each_fault(tmp_path, text, said):
    with pytest.raises(
        CourseError, match=r"^The class file '.*class\.yaml' has a fault:\n(?s:.)*" + f"(?:{said})"
    ) as caught:
        class_of(tmp_path, text)
    assert len(str(caught.value).splitlines()) == 2
    assert str(caught.value).endswith((".", "?"))


def test_all_faults_are_told_in_their_order(tmp_path):
    with pytest.raises(CourseError) as caught:
        class_of(tmp_path, "rule: first\ntasks: [0]\nkey: [k]\nsolutions: x\nrool: 1\n")
    first, *lines = str(caught.value).splitlines()
    assert first.endswith("has 5 faults:")
    assert [line[:8] for line in lines] == [f"  line {n}" for n in range(1, 6)]
    with pytest.raises(CourseError, match=r"has 50 faults:(?s:.)*And 30 more\.$"):
        class_of(tmp_path, "\n".join(f"{'x' * n}: 1" for n in range(1, 51)))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"title: " + b"x" * 2**16, "it has more than 65,536 bytes"),
        (b"title: \xff", "it is no UTF-8 text"),
        (None, "No such file"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path, data, why):
    path = tmp_path / "class.yaml"
    if data:
        path.write_bytes(data)
    with pytest.raises(CourseError, match=f"cannot be read .{why}"):
        read(path)


@pytest.mark.parametrize(
    ("seconds", "days", "lost"),
    [
        (-1, 0, 0), (0, 0, 0), (1, 1, 10), (DAY, 1, 10), (DAY + 1, 2, 20), (3 * DAY, 3, 30), (3 * DAY + 1, 4, 100),
        (400 * DAY, 400, 100),
    ],
)  # fmt: skip
def test_the_late_rule_at_its_borders(tmp_path, seconds, days, lost):
    a_class = class_of(tmp_path, "due: 2026-10-30 12:00Z\nlate: {percent_per_day: 10, days: 3}")
    due = int(a_class.due["1.1"].timestamp())
    assert scheme_of(a_class).late("1.1", due + seconds) == (days, lost)


def test_late_without_a_last_day_without_a_rule_and_without_a_date(tmp_path):
    due = "tasks: [1.1]\ndue: 2026-10-30 12:00Z\n"
    a_class = class_of(tmp_path, due + "late: {percent_per_day: 33.5}")
    at = int(a_class.due["1.1"].timestamp())
    assert [scheme_of(a_class).late("1.1", at + n * DAY)[1] for n in (1, 2, 3)] == [Fraction("33.5"), 67, 100]
    assert scheme_of(a_class).late("1.1", 0) == (0, 0), "a file without a date"
    assert scheme_of(class_of(tmp_path, due)).late("1.1", at + 9 * DAY) == (9, 0)
    none = scheme_of(class_of(tmp_path, due + "late: {percent_per_day: 0, days: 0}"))
    assert [none.late("1.1", at + n) for n in (0, 1)] == [(0, 0), (1, 100)]


def test_shares_of_a_class_are_weighed_and_those_of_the_course_are_means(tmp_path):
    a_class = class_of(tmp_path, "tasks: [1.1, 1.2, 2.4]\npoints: {1.1: 6, 1.2: 3, 2.4: 1}")
    full = {id: (task(id).points, task(id).points) for id in ("1.1", "2.4")}
    share, chapters = scheme_of(a_class).shares(full, {"1.1": Fraction(50)})
    assert (share, chapters) == (Fraction(4, 10), {1: Fraction(3, 9), 2: Fraction(1)})
    share, chapters = scheme_of(None).shares(full, {})
    assert chapters[1] == Fraction(1, 6)
    assert share == (Fraction(1, 6) + Fraction(1, 6)) / 11


def test_the_students_get_no_secret_and_all_else(tmp_path):
    a_class = class_of(tmp_path, "title: Ü\ntasks: [1.1]\nkey: k\nsolutions: off\ndue: 2026-10-30 12:00Z")
    assert a_class.for_students() == {
        "onnx_scroll_class": 1, "course": a_class.for_students()["course"], "title": "Ü", "key": "k", "tasks": ["1.1"],
        "due": {"1.1": "2026-10-30T12:00:00+00:00"}, "solutions": False,
    }  # fmt: skip
