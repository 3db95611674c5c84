"""The grader's pages and forms: their numbers are those of the marks, and nothing of a student's acts in them."""

from __future__ import annotations

import csv
import json
import os
import re
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import onnx
import pytest
from bs4 import BeautifulSoup
from checkout import ROOT
from submissions import listed, packed, put, right, submission, wrong
from test_grading import results, table

from course_utils.errors import CourseError
from course_utils.exercises import personal_params, task
from course_utils.grading import feedback, figures, lms, similar
from course_utils.grading.__main__ import main
from course_utils.grading.publishing import publish
from course_utils.grading.reading import Report
from course_utils.handin.points import percent
from course_utils.pages.loopback import served

AXE = ROOT / "jupyter-book" / "node_modules" / "axe-core" / "axe.min.js"
TASKS = ["1.2", "1.3", "2.4"]
EVIL = "<script>alert(1)</script>"
HEBREW = "שלום.עולם"
LONG = "ß" * 64  # 128 bytes: with anything behind it, too long for a file's name on some systems
HIJACK = "</title><img src=x onerror=alert(1)>"
DAY = 86400
FIRST = 1_790_000_000  # in September 2026


def renamed(data: bytes) -> bytes:
    """The same model with other names and another order of its weights."""
    model = onnx.load_model_from_string(data)
    held = list(model.graph.initializer)[::-1]
    names = {it.name: f"mine_{n}" for n, it in enumerate(held)}
    for it in held:
        it.name = names[it.name]
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    del model.graph.initializer[:]
    model.graph.initializer.extend(held)
    return model.SerializeToString()


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class of twenty: right, wrong and mixed, odd ids, two who copied, and zips that cannot be graded."""
    folder = tmp_path_factory.mktemp("class")

    def hand_in(who: str, made: dict[str, bytes], day: int, **more: Any) -> None:
        path = put(folder / "in", f"submission_{who}_{day:08x}.zip", submission(who, made, **more))
        os.utime(path, (FIRST + day * DAY,) * 2)

    for n in range(14):
        who = f"s-{n:02}"
        chosen = TASKS[: 3 - n % 2]
        hand_in(who, {id: (wrong if n == 1 or n % 3 == k else right)(id, who) for k, id in enumerate(chosen)}, n)
    hand_in(HEBREW, {"1.2": right("1.2", HEBREW)}, 14)
    hand_in(LONG, {"1.2": right("1.2", LONG)}, 15, course="0.0.9")
    hand_in("copier", {"1.2": right("1.2", "s-02")}, 16)
    hand_in("renamer", {"1.3": renamed(right("1.3", "s-02"))}, 17)
    for folder_of in ("Twin One_1", "Twin Two_2"):
        path = put(
            folder / "in",
            f"{folder_of}/submission_twin_00000001.zip",
            submission("twin", {"1.2": right("1.2", "twin")}, at=folder_of),
        )
        os.utime(path, (FIRST + DAY,) * 2)
    hand_in("guest", {"1.2": right("1.2", "guest")}, 18)
    about = json.dumps(listed("files", {"1.2": b"{}"})).encode()
    put(
        folder / "in",
        "submission_files_00000001.zip",
        packed({"1.2.json": b"{}", f"{EVIL}.txt": b"", "answers.json": about}),
    )
    put(folder / "in", "submission_evil_00000001.zip", submission(EVIL, {}))
    put(folder / "in", f"{EVIL.replace('/', '')}.zip", b"no zip")
    put(folder / "in", "=1+1.zip", b"")
    put(folder / "in", "notes.txt", b"")
    assert main(["grade", str(folder / "in"), "--out", str(folder / "out"), "--workers", "2"]) == 0
    return folder / "out"


def page(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def words(element: Any) -> str:
    return " ".join(element.get_text(" ").split())


def section(of: BeautifulSoup, heading: str) -> list[Any]:
    """What stands between a heading and the next one."""
    found = next(h for h in of.select("h2") if words(h) == heading)
    return [it for it in found.find_next_siblings() if it.find_previous("h2") is found and it.name != "h2"]


def rows(of: BeautifulSoup, heading: str) -> list[list[str]]:
    return [[words(c) for c in row.select("th, td")] for it in section(of, heading) for row in it.select("tbody tr")]


def counted(report: Path) -> list[dict[str, Any]]:
    return [one for one in results(report).values() if one["counted"]]


# Feedback


def test_every_grade_and_every_problem_has_its_page(graded):
    entries = [one for one in results(graded).values() if one["counted"] or one["problem"]]
    assert len(entries) == 25
    assert sorted(path.name for path in (graded / "feedback").iterdir()) == sorted(map(feedback.file_name, entries))


def test_a_page_says_what_the_marks_say(graded):
    chapters = Report(graded).chapters
    for one in counted(graded):
        shown = page(graded / "feedback" / feedback.file_name(one))
        assert words(shown.select_one(".who")) == one["student"]
        assert words(shown.select_one(".score")) == percent(Report(graded).shares(one)[0])
        assert f"{one['points']} of {one['of']} points" in words(shown.select_one("header"))
        tasks = {words(it.h3).split()[0]: it for it in shown.select("section.task")}
        assert tasks.keys() == one["tasks"].keys()
        for id, marks in one["tasks"].items():
            assert f"{marks['points']} of {marks['of']} point" in words(tasks[id].p)
            assert ("✓ passed" in words(tasks[id])) == (marks["points"] == marks["of"])
            lines = [words(li) for li in tasks[id].select(".criteria li")]
            assert len(lines) == len(marks["criteria"])
            for line, c in zip(lines, marks["criteria"], strict=True):
                assert line.startswith("✓" if c["passed"] else "✗")
                assert " ".join(c["hint"].split()) in line
            for note in [*marks["notes"], marks["problem"]]:
                assert note in words(tasks[id])
        lessons = rows(shown, "Lessons")
        assert [percent(Fraction(s)) for s in Report(graded).shares(one)[1].values()] == [row[-1] for row in lessons]
        assert len(lessons) == len(chapters)


def test_a_page_has_notes_and_no_name_of_another(graded):
    """What a comparison found is for the instructor."""
    for one in counted(graded):
        said = words(page(graded / "feedback" / feedback.file_name(one)))
        for note in one["notes"]:
            assert (note in said) == (note not in one["compared"])
        others = {o["student"] for o in counted(graded)} - {one["student"], "guest", "files"}
        assert not [name for name in others if name in said]
    twins = [one for one in counted(graded) if one["student"] == "twin"]
    assert len(twins) == 2
    assert all("Twin" in note for one in twins for note in one["compared"])
    for one in twins:
        assert "Twin" not in words(page(graded / "feedback" / feedback.file_name(one)))
    old = next(one for one in counted(graded) if one["student"] == LONG)
    assert "0.0.9" in words(page(graded / "feedback" / feedback.file_name(old)))


def test_a_zip_without_points_gets_the_reason(graded):
    for one in results(graded).values():
        if one["problem"]:
            shown = page(graded / "feedback" / feedback.file_name(one))
            assert one["problem"] in words(shown)
            assert not shown.select(".score")


def test_what_students_write_is_text(graded):
    """The id, the name of an artefact and the name of a zip hold a script."""
    pages = [graded / "class.html", *(graded / "feedback").iterdir()]
    assert sum("&lt;script&gt;" in path.read_text(encoding="utf-8") for path in pages) >= 4
    for path in pages:
        assert not page(path).select("script, img, iframe, link[href^=http], [onerror]")
        assert "default-src 'none'" in path.read_text(encoding="utf-8")


NASTY = [
    "../../etc/passwd",
    "a/b",
    "a\\b",
    "C:\\x",
    "\u202egnp.exe",
    HEBREW,
    "x" * 5000,
    "",
    ".",
    "..",
    "CON",
    "a\0b",
    "\ud800",
    EVIL,
]


@pytest.mark.parametrize("who", NASTY)
def test_names_of_pages_are_safe(who):
    name = feedback.file_name({"student": who, "zip": f"{who}.zip"})
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9@+._-]{0,60}-[0-9a-f]{12}\.html", name)


def test_names_of_pages_differ_where_case_and_sanitizing_do_not():
    names = {feedback.file_name({"student": who, "zip": who}).lower() for who in [*NASTY, "Ada", "ada", "é", "e\u0301"]}
    assert len(names) == len(NASTY) + 4


def test_a_page_that_no_longer_belongs_there_goes(graded, tmp_path):
    forged(tmp_path, [{"student": "ada"}])
    feedback.write(Report(tmp_path), tmp_path)
    (tmp_path / "feedback" / "old-0123456789ab.html").write_text("")
    feedback.write(Report(tmp_path), tmp_path)
    assert len(list((tmp_path / "feedback").iterdir())) == 1


# The class


def test_class_page_counts(graded):
    shown, mine = page(graded / "class.html"), counted(graded)
    shares = sorted(Report(graded).shares(one)[0] for one in mine)
    n = len(mine)
    assert words(shown.select_one(".who")) == f"{n} grades"
    assert words(shown.select_one(".score")) == percent((shares[(n - 1) // 2] + shares[n // 2]) / 2)
    about = dict(zip(map(words, shown.select("dt")), map(words, shown.select("dd")), strict=True))
    assert (about["submissions"], about["not graded"]) == ("25", "3")
    bars = Counter(min(int(share * 10), 9) for share in shares)
    chart = next(it for it in section(shown, "Distribution") if it.name == "svg")
    assert [int(words(t)) for t in chart.select("text:not(.name)")] == [bars[n] for n in sorted(bars)]
    students = rows(shown, "Students")
    assert len(students) == n
    for id, tasks, points, _ in students:
        one = next(o for o in mine if o["student"] == id)
        assert (tasks, points) == (str(len(one["tasks"])), str(one["points"]))
    for link in shown.select("a"):
        assert (graded / link["href"]).is_file()


def test_hardest_tasks_and_criteria(graded):
    shown, mine = page(graded / "class.html"), counted(graded)
    for name, handed_in, full, mean in rows(shown, "Hardest tasks"):
        marks = [one["tasks"][name.split()[0]] for one in mine if name.split()[0] in one["tasks"]]
        assert int(handed_in) == len(marks)
        assert int(full) == sum(m["points"] == m["of"] for m in marks)
        assert mean == percent(sum(Fraction(m["points"], m["of"]) for m in marks) / len(marks))
    listed_ = rows(shown, "Hardest criteria")
    assert listed_
    missed = 0
    for what, count, _ in listed_:
        id, _, said = what.partition(" ")
        found = [
            c["passed"] for one in mine for c in one["tasks"].get(id, {"criteria": []})["criteria"]
            if figures._NUMBER.sub("…", c["what"]) == figures._NUMBER.sub("…", said)
        ]  # fmt: skip
        assert count == f"{found.count(False)} of {len(found)}"
        missed += found.count(False)
    assert missed == sum(not c["passed"] for one in mine for m in one["tasks"].values() for c in m["criteria"])


def test_time_line_only_where_the_dates_differ(graded, tmp_path):
    shown = page(graded / "class.html")
    times = [one["modified"] for one in counted(graded)]
    chart = next(it for it in section(shown, "Time line") if it.name == "svg")
    per_column = [int(n) for n in re.findall(r"(\d+) from", chart["aria-label"])]
    assert sum(per_column) == len(times)
    forged(tmp_path, [{"student": f"s-{n}", "modified": FIRST + n} for n in range(5)])
    publish(tmp_path, tmp_path)
    said = section(page(tmp_path / "class.html"), "Time line")
    assert "no time line" in words(said[0])
    assert not [it for it in said if it.name == "svg"]


def test_what_to_look_at(graded):
    found = {words(it.summary).rpartition(":")[0]: it for it in section(page(graded / "class.html"), "To look at")}
    listed_ = {name: [words(li) for li in it.select("li")] for name, it in found.items()}
    everything = results(graded).values()
    assert len(listed_["Not graded"]) == sum(bool(one["problem"]) for one in everything)
    over = [
        one for one in everything if any(m["claimed"] and m["claimed"][0] > m["points"] for m in one["tasks"].values())
    ]
    assert len(listed_["The notebook claims more points than were counted"]) == len(over) > 0
    assert sum("is also that of" in line for line in listed_["Several zips, one id, or a name that does not fit"]) == 2
    assert listed_["Files that are no zips"] == ["notes.txt"]


def test_an_empty_class(tmp_path):
    forged(tmp_path, [])
    publish(tmp_path, tmp_path)
    assert words(page(tmp_path / "class.html").select_one(".who")) == "0 grades"
    assert len((tmp_path / "moodle.csv").read_text().splitlines()) == 1


# Answers that are alike


def test_copies_are_found(graded):
    groups = json.loads((graded / "similar.json").read_text())["groups"]
    found = {(g["task"], g["alike"]): g for g in groups}
    assert found.keys() == {("1.2", "bytes"), ("1.3", "weights")}
    assert not any(g["same_parameters"] for g in groups)
    same = {m["student"]: m["fits"] for m in found["1.2", "bytes"]["members"]}
    assert same == {"s-02": True, "copier": False}
    assert {m["student"] for m in found["1.3", "weights"]["members"]} == {"s-02", "renamer"}
    shown = page(graded / "class.html")
    assert [words(it.h3) for it in section(shown, "Answers that are alike") if it.name == "section"] == [
        "1.2: the same file",
        "1.3: other files with the same weights",
    ]


def test_weights_are_told_by_their_content():
    data = right("1.3", "ada")
    assert similar.weights(data) == similar.weights(renamed(data)) != similar.weights(right("1.3", "bob"))
    model = onnx.load_model_from_string(data)
    held = max(model.graph.initializer, key=lambda it: len(it.raw_data))
    values = onnx.numpy_helper.to_array(held).copy()
    values.flat[0] += 1
    held.CopyFrom(onnx.numpy_helper.from_array(values, held.name))
    assert similar.weights(model.SerializeToString()) != similar.weights(data)
    assert similar.weights(right("2.4", "ada")) == ""


def test_a_model_of_a_million_parts_costs_nothing():
    """Two bytes each; built as objects they are a hundred times as large."""
    graph = b"\x0a\x00" * 1_000_000
    size = len(graph)
    length = bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14 & 0x7F | 0x80, size >> 21])
    with pytest.raises(CourseError, match="parts"):
        similar.weights(b"\x3a" + length + graph)


def test_what_half_of_the_class_has_is_common(tmp_path):
    marks = {"file": "4.1.onnx", "sha256": "a" * 64, "points": 1, "of": 1}
    forged(tmp_path, [{"student": f"s-{n}", "tasks": {"4.1": marks}} for n in range(4)])
    groups, _ = similar.look(Report(tmp_path), tmp_path)
    assert [(g.common, g.handed_in, len(g.members)) for g in groups] == [(True, 4, 4)]
    forged(tmp_path, [{"student": f"s-{n}", "tasks": {"4.1": marks | {"points": 0}}} for n in range(4)])
    assert similar.look(Report(tmp_path), tmp_path)[0] == [], "a file that was handed back untouched earns nothing"


def test_answers_for_the_same_numbers_may_agree(tmp_path):
    """In 3.2 these two were given the same, and a third was not."""
    drawn = {who: personal_params(task("3.2"), who) for who in ("s-009", "s-015", "s-000")}
    assert drawn["s-009"] == drawn["s-015"] != drawn["s-000"]
    marks = {"file": "3.2.onnx", "sha256": "a" * 64, "points": 2, "of": 2}
    for others, same in (["s-015"], True), (["s-015", "s-000"], False):
        forged(tmp_path, [{"student": who, "tasks": {"3.2": marks}} for who in ["s-009", *others]])
        assert [g.same_parameters for g in similar.look(Report(tmp_path), tmp_path)[0]] == [same]


# Forms for an LMS


def cells(path: Path) -> list[list[str]]:
    with open(path, encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


def read_canvas(path: Path) -> dict[str, list[str]]:
    """By login, read as Canvas's own reader does."""
    head, *rest = cells(path)
    assert "Student" in head[0]
    assert "ID" in head[1]
    assert re.search(r"SIS\s+User\s+ID", head[2])
    assert re.search(r"SIS\s+Login\s+ID", head[3])
    assert "Section" in head[4]
    assert not [name for name in head[5:] if re.search(r"(Current|Final|Override) (Score|Points|Grade)|\(\d+\)$", name)]
    points, *students = [row for row in rest if any(cell.strip() for cell in row)]
    assert "Points Possible" in points[0]
    assert set(points[5:]) == {"100"}
    assert all(row[1] == "" for row in students), "a number there is Canvas's own, and nobody else's"
    return {row[3]: row[5:] for row in students}


def read_moodle(path: Path) -> dict[str, list[str]]:
    head, *rest = cells(path)
    assert head[0] == "username"
    assert len(set(head)) == len(head)
    assert all(0 <= float(value) <= 100 for row in rest for value in row[1:]), "more than a new item takes"
    return {row[0]: row[1:] for row in rest}


def read_gradescope(path: Path) -> dict[str, list[str]]:
    head, *rest = cells(path)
    assert head[:5] == ["First Name", "Last Name", "SID", "Email", "Sections"]
    assert [name.removeprefix(head[5]) for name in head[5:9]] == [
        "",
        " - Max Points",
        " - Submission Time",
        " - Lateness (H:M:S)",
    ]
    assert all(set(row[6::4]) == {"100"} for row in rest)
    return {row[2]: row[5::4] for row in rest}


@pytest.mark.parametrize("read", [read_canvas, read_moodle, read_gradescope])
def test_forms_hold_the_numbers_of_the_table(graded, read):
    found = read(graded / f"{read.__name__.removeprefix('read_')}.csv")
    expected = {
        row["student"]: [*(row[name] for name in row if name.startswith("chapter")), row["percent"]]
        for row in table(graded)
        if row["student"] not in ("", "guest", "twin")
    }
    assert found == expected
    assert LONG in found
    assert HEBREW in found


def test_no_cell_is_a_formula(tmp_path):
    names = ["=1+1", "+1", "-1", "@x", "\t=1", "ada@example.org"]
    forged(tmp_path, [{"student": name} for name in names])
    lms.write(Report(tmp_path))
    for name in lms.FORMS:
        everything = [cell for row in cells(tmp_path / name) for cell in row]
        assert not [cell for cell in everything if cell.startswith(("=", "+", "-", "@", "\t"))]
        assert "'=1+1" in everything


def test_an_id_of_two_senders_is_in_no_form(tmp_path):
    forged(tmp_path, [{"student": "ada", "zip": "a.zip"}, {"student": "ada", "zip": "b.zip"}, {"student": "bob"}])
    assert figures.grades(Report(tmp_path)).keys() == {"bob"}


def forged(folder: Path, entries: list[dict[str, Any]]) -> None:
    """A results.json of students who handed in nothing, apart from what is said; ids as no check would let pass."""
    base = {
        "sha256": "", "modified": 0, "owner": "", "course": "1", "counted": True, "problem": "", "notes": [],
        "compared": [], "points": 0, "of": 9, "share": 0.0, "chapters": {}, "tasks": {},
    }  # fmt: skip
    marks = {
        "claimed": None,
        "criteria": [],
        "problem": "",
        "notes": [],
        "late_days": 0,
        "lost": 0,
        "earned": 0,
        "worth": 1,
    }
    tasks = {id: {"title": HIJACK, "kind": "onnx", "points": 1, "worth": 1} for id in ("1.1", "3.2", "4.1")}
    lines = [base | {"zip": f"{n}.zip"} | one for n, one in enumerate(entries)]
    for one in lines:
        one["tasks"] = {id: marks | mine for id, mine in one["tasks"].items()}
    head = json.dumps({"course": "1", "rule": "last", "class": None, "tasks": tasks})[:-1] + ', "submissions": ['
    text = head + "".join(("," if n else "") + "\n" + json.dumps(one) for n, one in enumerate(lines))
    (folder / "results.json").write_text(text + '\n], "ignored": []}\n')


def test_a_chapter_without_a_lesson_has_its_number(tmp_path):
    """The results of a class may name a chapter that this version of the course does not have."""
    forged(tmp_path, [{"student": "ada"}])
    path = tmp_path / "results.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"4.1"', '"77.1"'), encoding="utf-8")
    publish(tmp_path, tmp_path)
    assert "77 · Lesson 77" in (tmp_path / "class.html").read_text(encoding="utf-8")
    assert "ONNX Scroll 77 Lesson 77 (percent)" in cells(tmp_path / "canvas.csv")[0]


def test_read_again_it_is_the_same(graded):
    whole = json.loads((graded / "results.json").read_text(encoding="utf-8"))
    report = Report(graded)
    assert list(report) == whole["submissions"]
    assert (report.tasks, report.ignored) == (whole["tasks"], whole["ignored"])


@pytest.mark.parametrize("name", ["class.html", "similar.json", "canvas.csv", "feedback"])
def test_what_cannot_be_written_is_one_sentence(tmp_path, name):
    """A folder stands where the file belongs, or a file where the folder does."""
    forged(tmp_path, [{"student": "ada"}])
    (tmp_path / name).touch() if name == "feedback" else (tmp_path / name).mkdir()
    with pytest.raises(
        CourseError, match=rf"^Cannot write '{re.escape(name)}' into '.*' \(.*\): .* goes on where it stopped\.$"
    ):
        publish(tmp_path, tmp_path)


def test_two_runs_write_the_same(graded):
    before = {path: path.read_bytes() for path in graded.rglob("*") if path.is_file()}
    publish(graded, graded.parent / "in")
    assert {path: path.read_bytes() for path in graded.rglob("*") if path.is_file()} == before


# In a browser


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_in_a_browser(graded, colours):
    """No error, nothing asked of anybody, not wider than a phone, and axe finds nothing serious."""
    pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[test]'")
    import browser as driver

    if not AXE.exists():
        driver.give_up("axe-core is not installed: run `make book` first.")
    names = ["class.html"]
    for who in (LONG, "s-01", ""):
        one = next(one for one in results(graded).values() if one["student"] == who)
        names.append(f"feedback/{feedback.file_name(one)}")
    seen = driver.Seen()
    asked: list[str] = []
    with driver.launched() as chromium, served(graded) as address:
        with driver.tab(chromium, color_scheme=colours) as tab:
            seen.watch(tab)
            tab.on("request", lambda request: asked.append(request.url))
            tab.on("dialog", lambda dialog: pytest.fail(f"a script of a student ran: {dialog.message}"))
            for name in names:
                tab.set_viewport_size({"width": 1280, "height": 900})
                tab.goto(f"{address}/{name}", wait_until="load")
                driver.fits_phone_and_paper(tab, colours)
                tab.set_viewport_size({"width": 1280, "height": 900})
                tab.evaluate("document.querySelector('.made dd').textContent = 'a long rule '.repeat(20)")
                assert tab.evaluate("document.querySelector('h1').getBoundingClientRect().width") > 300
        with driver.tab(chromium, color_scheme=colours, bypass_csp=True) as tab:
            for name in names:
                tab.goto(f"{address}/{name}", wait_until="load")
                tab.add_script_tag(path=AXE)
                assert driver.findings(tab) == []
    assert (seen.errors, seen.failed, seen.foreign) == ([], [], [])
    assert sorted(url for url in asked if not url.startswith("data:")) == sorted(f"{address}/{name}" for name in names)
