"""The report card: what the kept answers are worth today, on one page that is complete in itself."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import onnx
import pytest
from answers import given, params
from bs4 import BeautifulSoup
from checkout import ROOT
from test_exercise_02 import RIGHT

import course_utils as cu
from course_utils import exercises, student
from course_utils.exercises import Criteria, Task
from course_utils.handin import checks, html_parts, report_cards
from course_utils.handin.assessing import assessed
from course_utils.handin.points import course_points, percent
from course_utils.pages.loopback import served

pytestmark = pytest.mark.usefixtures("folder", "nobody_known", "in_this_process")
AXE = ROOT / "jupyter-book" / "node_modules" / "axe-core" / "axe.min.js"


@pytest.fixture
def ada():
    student.remember("ada")


def write(name: str, value: Any) -> Path:
    path = Path("work", name)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def real_answers() -> None:
    """2.2 and 2.4 are right, and 1.2 meets some criteria only."""
    cu.check("2.2", write("2.2.json", RIGHT["2.2"][0]("ada")))
    model = given("2.4")
    model.ir_version = params("2.4")["device_ir"]
    onnx.save(model, "work/2.4.onnx")
    cu.check("2.4", "work/2.4.onnx")
    nodes = given("1.2").graph.node
    ops = Counter(node.op_type for node in nodes)
    cu.check("1.2", write("1.2.json", {"nodes": len(nodes), "ops": ops, "parameters": 0, "unused": []}))


def page_of(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def cells(row: Any) -> list[str]:
    return [" ".join(cell.get_text(" ").split()) for cell in row.select("th, td")]


def rows(page: BeautifulSoup, table: str) -> dict[str, list[str]]:
    """The rows of all tables of one class, by what the first cell begins with: a lesson's or a task's number."""
    found = [cells(row) for row in page.select(f"table.{table} tbody tr, table.{table} tfoot tr")]
    return {first.split()[0]: rest for first, *rest in found}


def manifest(who: str = "ada") -> tuple[Path, dict[str, Any]]:
    path = Path("work/answers", who, "answers.json")
    return path, json.loads(path.read_text())


# A course of two small chapters, for what the real one does not show.


def meets(answer, params, rng):
    """The answer says how many of four criteria it meets, and what a hint quotes."""
    criteria = Criteria()
    for number in range(4):
        criteria.add(f"criterion {number}", number < answer["right"], f"hint {answer.get('quote', number)}")
    return criteria


@pytest.fixture
def small_course(monkeypatch):
    """Chapter 1 with two tasks, and a capstone with two. Tests may put others in."""
    course = {
        1: {id: Task(id, f"Title of {id}", "json", meets, points=4) for id in ("1.1", "1.2")},
        10: {id: Task(id, f"Title of {id}", "json", meets, points=4) for id in ("10.1", "10.2")},
    }
    monkeypatch.setattr(exercises, "chapters", lambda: list(course))
    monkeypatch.setattr(exercises, "tasks_of", course.__getitem__)
    monkeypatch.setattr(checks, "task", lambda id: course[int(id.split(".")[0])][id])
    student.remember("ada")
    return course


def answered(**right: int) -> None:
    """answered(t1_1=4): the answer to task 1.1 meets four criteria."""
    for name, number in right.items():
        id = name[1:].replace("_", ".")
        cu.check(id, write(f"{id}.json", {"right": number}))


# What the card says


def test_real_answers(ada, capsys):
    real_answers()
    met, of = checks.check("1.2", "work/1.2.json").score
    assert 0 < met < of
    capsys.readouterr()
    path = cu.report_card()
    page, tasks = page_of(path), sum(len(exercises.tasks_of(n)) for n in exercises.chapters())
    assert [h.get_text() for h in page.select("h1")] == ["The ONNX Scroll: report card"]
    assert page.select_one(".who").get_text() == "ada"
    shown = rows(page, "tasks")
    data = Path("work/answers/ada/2.4.onnx").read_bytes()
    digits = hashlib.sha256(data).hexdigest()[:12]
    assert re.fullmatch(r"✓ passed (\d+) of \1 points?", shown["2.4"][0])
    assert shown["2.4"][1] == f"2.4.onnx {len(data):,} bytes {digits}"
    assert shown["1.2"][0] == f"✗ not there yet {met} of {of} points"
    assert shown["5.1"] == ["not handed in yet", "none"]
    lessons = rows(page, "lessons")
    first, second = Fraction(met, of * len(exercises.tasks_of(1))), Fraction(2, len(exercises.tasks_of(2)))
    score = percent((first + second) / len(exercises.chapters()))
    all_points = {n: sum(it.points for it in exercises.tasks_of(n).values()) for n in (1, 5)}
    assert lessons["01"] == [f"0 of {len(exercises.tasks_of(1))}", f"{met} of {all_points[1]}", percent(first)]
    assert lessons["02"][0] == f"2 of {len(exercises.tasks_of(2))}"
    assert lessons["02"][2] == percent(second)
    assert lessons["05"][1:] == [f"0 of {all_points[5]}", "0 %"]
    assert lessons["The"][2] == page.select_one(".score").get_text() == score
    assert capsys.readouterr().out == (
        f"{path}: {score} of the course, 2 of {tasks} tasks passed. Open it in a browser, and keep it.\n"
    )
    made = " ".join(page.select_one(".made").get_text(" ").split())
    for package in ("torch", "onnx", "onnxruntime"):
        assert f"{package} {cu.machine().versions[package]}" in made
    assert f"course {cu.__version__}" in made
    assert cu.machine().processor in made


def test_every_lesson_has_its_title():
    lessons = {int(path.stem[:2]) for path in ROOT.glob("notebooks/[0-9][0-9]_*.py")}
    assert lessons | set(exercises.chapters()) <= html_parts.titles().keys()


def test_a_lesson_without_a_title_has_its_number(monkeypatch):
    """As where somebody adds exercises before their lesson."""
    monkeypatch.setattr(html_parts, "titles", lambda: {3: "Control & data"})
    assert html_parts.title(3) == "03 · Control &amp; data"
    assert html_parts.title(11) == "11 · Lesson 11"


def test_what_the_list_of_answers_claims_counts_for_nothing(small_course):
    answered(t1_1=1)
    path, listed = manifest()
    listed["tasks"]["1.1"] |= {"points": 4, "of": 4}
    path.write_text(json.dumps(listed))
    shown = rows(page_of(cu.report_card()), "tasks")
    assert shown["1.1"][0] == "✗ not there yet 1 of 4 points"


def test_answers_that_cannot_be_read_are_worth_nothing(small_course):
    answered(t10_1=4)
    path, listed = manifest()
    Path("work/answers/ada/10.1.json").write_text("{")
    listed["tasks"]["10.1"]["sha256"] = hashlib.sha256(b"{").hexdigest()
    path.write_text(json.dumps(listed))
    text = page_of(cu.report_card()).get_text()
    assert "the answer can be checked" in text
    assert "is not a JSON file" in text


def test_capstone_criterion_by_criterion(small_course):
    answered(t10_1=3, t10_2=4)
    first, second = page_of(cu.report_card()).select("section.task")
    marks = [mark["aria-label"] for mark in first.select("li .mark")]
    assert marks == ["met", "met", "met", "not met"]
    assert "→ hint 3" in first.get_text()
    assert "hint" not in second.get_text()
    assert len(second.select("li .good")) == 4


def test_seal(small_course):
    def seal() -> str:
        page = page_of(cu.report_card())
        assert bool(page.select_one(".seal svg [fill='#a33c39']")) == (
            "is sealed" in page.select_one(".seal").get_text()
        )
        return " ".join(page.select_one(".seal").get_text(" ").split())

    answered(t1_1=4)
    assert seal() == "Not sealed yet Still to do: 10.1, 10.2"
    answered(t10_1=4, t10_2=3)
    assert seal() == "Not sealed yet Still to do: 10.2"
    answered(t10_2=4)
    assert seal() == "The scroll is sealed"
    del small_course[10]
    page = page_of(cu.report_card())
    assert page.select(".seal") == []
    assert [h.get_text() for h in page.select("h2")][:3] == ["Lessons", "Tasks", "No longer part of the course"]


def test_measured_facts(small_course):
    for chapter, id in ((1, "1.1"), (10, "10.1")):
        measure = lambda value, params: {"nodes": 61, "accuracy": f"{value['right']} %"}  # noqa: E731
        small_course[chapter][id] = Task(id, "t", "json", meets, points=4, measure=measure)
    small_course[1]["1.2"] = Task("1.2", "t", "json", meets, points=4, measure=lambda value, params: {"never": "shown"})
    answered(t1_1=4, t10_1=4, t1_2=3)
    page = page_of(cu.report_card())
    facts = [[e.get_text() for e in facts.select("dt, dd")] for facts in page.select(".facts")]
    assert facts == [["nodes", "61", "accuracy", "4 %"]] * 2, "and nothing of an answer that does not pass"


def test_what_a_check_does_to_the_answer_is_not_measured(small_course):
    def check(answer, params, rng):
        answer["right"] = 0
        return [exercises.Criterion("passes", True)]

    small_course[10]["10.1"] = Task("10.1", "t", "json", check, points=1, measure=lambda value, params: value)
    answered(t10_1=4)
    assert page_of(cu.report_card()).select_one(".facts dd").get_text() == "4"


@pytest.mark.parametrize("key", ["", "of the class"])
def test_what_is_measured_is_of_the_draw_that_is_checked(key):
    """The key of the class takes part in it, the instructor's secret does not."""
    checked = []

    def check(answer, params, rng):
        checked.append(params["number"])
        return [exercises.Criterion("passes", True)]

    it = Task(
        "1.1", "t", "json", check, lambda rng: {"number": rng.random()}, points=1, measure=lambda _, params: params
    )
    for secret in ("", "of the instructor"):
        verdict = assessed(it, b"{}", "a.json", "ada", secret=secret, key=key, facts=True)
        assert verdict.facts == {"number": str(checked[0])}
    assert len({*checked}) == 1
    assert assessed(it, b"{}", "a.json", "ada", key="of another class", facts=True).facts != verdict.facts


@pytest.mark.parametrize("measure", [lambda value, params: 1 / 0, lambda value, params: None], ids=["raises", "None"])
def test_a_failing_measure_breaks_nothing(measure, small_course):
    small_course[10]["10.1"] = Task("10.1", "t", "json", meets, points=4, measure=measure)
    answered(t10_1=4)
    page = page_of(cu.report_card())
    assert re.search(r"not this time \((ZeroDivision|Attribute)Error: ", page.select_one(".facts").get_text())
    assert rows(page, "lessons")["10"][0] == "1 of 2"


def test_tasks_that_are_gone(small_course):
    answered(t1_1=4, t1_2=4)
    del small_course[1]["1.2"]
    page = page_of(cu.report_card())
    heading = page.find("h2", string="No longer part of the course")
    assert "1.2: 1.2.json" in heading.find_next("ul").get_text()
    assert rows(page, "lessons")["01"] == ["1 of 1", "4 of 4", "100 %"]


# Points


@pytest.mark.parametrize(
    ("criteria", "course", "by_chapter"),
    [
        ({}, "0", ["0", "0"]),
        ({"1.1": (4, 4), "1.2": (2, 2), "2.1": (3, 3)}, "1", ["1", "1"]),
        ({"1.1": (1, 4)}, "1/16", ["1/8", "0"]),
        ({"2.1": (2, 3)}, "1/3", ["0", "2/3"]),
        ({"1.1": (0, 0), "9.9": (5, 5)}, "0", ["0", "0"]),
    ],
    ids=["nothing", "all", "a task of two", "the only task", "none seen, and one that is gone"],
)
def test_points(criteria, course, by_chapter):
    found = course_points(criteria, {1: ["1.1", "1.2"], 2: ["2.1"]})
    assert found == (Fraction(course), dict(zip((1, 2), map(Fraction, by_chapter), strict=True)))


def test_a_hundred_percent_only_when_nothing_is_missing():
    assert [percent(Fraction(n, 1000)) for n in (0, 9, 290, 999, 1000)] == ["0 %", "0 %", "29 %", "99 %", "100 %"]


# The file


def test_same_answers_same_card_and_the_first_stays(small_course, monkeypatch):
    answered(t1_1=3)
    first = cu.report_card()
    assert re.fullmatch(r"report_card_ada_[0-9a-f]{8}\.html", first.name)
    before = first.read_bytes()
    monkeypatch.setattr(report_cards, "_made", lambda: {"checked on": "another day, on another machine"})
    assert cu.report_card() == first
    assert first.read_bytes() == before
    answered(t1_1=4)
    second = cu.report_card()
    assert second != first
    assert first.read_bytes() == before
    assert b"another day" in second.read_bytes()
    assert sorted(p.name for p in Path("work").glob("*.html")) == sorted([first.name, second.name])


def test_another_outcome_of_the_same_answer_is_another_card(small_course):
    answered(t1_1=4)
    first = cu.report_card()
    small_course[1]["1.1"] = Task("1.1", "t", "json", lambda *_: [exercises.Criterion("a", False)], points=1)
    assert cu.report_card() != first


HOSTILE = (
    '</title><script>alert(1)</script><img src="https://example.org/x.png" onerror="alert(2)">&amp;\ud83d\u202e\x00"'
)


def test_whatever_it_quotes_is_text(small_course, monkeypatch):
    def check(answer, params, rng):
        return [exercises.Criterion(HOSTILE, False, HOSTILE)]

    small_course[10]["10.1"] = Task("10.1", HOSTILE, "json", check, points=1)
    small_course[10]["10.2"] = Task("10.2", HOSTILE, "json", meets, points=4, measure=lambda v, p: {HOSTILE: HOSTILE})
    small_course[1]["1.1"] = Task("1.1", HOSTILE, "json", meets, points=4, measure=lambda v, p: {HOSTILE: HOSTILE})
    answered(t1_1=4, t10_1=4, t10_2=4)
    path, listed = manifest()
    listed["tasks"][HOSTILE] = listed["tasks"]["1.1"]
    path.write_text(json.dumps(listed))
    path.parent.rename(path.parent.with_name("<b>"))
    monkeypatch.setattr(student, "_current", ["<b>"])  # setup() refuses it, and the card does not rely on that
    text = cu.report_card().read_text(encoding="utf-8")
    page = BeautifulSoup(text, "html.parser")
    assert page.select_one(".who").get_text() == "<b>"
    assert page.title.get_text() == "The ONNX Scroll: report card of <b>"
    assert text.count("&lt;script&gt;alert(1)") == page.get_text().count("<script>alert(1)") == 10
    assert not re.search("[\x00\u202e\ud800-\udfff]", text)
    assert complete_in_itself(text)


def test_needs_no_other_file_and_runs_nothing(ada):
    real_answers()
    assert complete_in_itself(cu.report_card().read_text(encoding="utf-8"))


def complete_in_itself(text: str) -> bool:
    """No element that loads or runs something, no address, nothing in the style that fetches."""
    page = BeautifulSoup(text, "html.parser")
    names = {tag.name for tag in page.find_all(True)}
    assert not names & {"script", "img", "iframe", "object", "embed", "form", "a", "base", "audio", "video", "use"}
    assert [tag["href"] for tag in page.find_all(href=True)] == ["data:,"]
    attributes = {name for tag in page.find_all(True) for name in tag.attrs}
    assert not {name for name in attributes if name.startswith("on") or name in {"src", "srcset", "style"}}
    style = page.style.get_text()
    assert not re.search(r"url\(|@import|https?:", style)
    policy = page.find("meta", {"http-equiv": "Content-Security-Policy"})["content"]
    assert policy.startswith("default-src 'none';")
    return True


# What it refuses


def test_before_the_first_cell():
    with pytest.raises(cu.CourseError, match=r"run the cell with cu\.setup"):
        cu.report_card()


def test_nothing_answered(ada):
    with pytest.raises(cu.CourseError, match=r"no answer .* yet: run a cu\.check\(…\) cell first"):
        cu.report_card()


@pytest.mark.parametrize("how", ["changed", "deleted", "damaged list"])
def test_the_same_sentence_as_on_handing_in(how, small_course):
    answered(t1_1=1)
    file, (listed, _) = Path("work/answers/ada/1.1.json"), manifest()
    if how == "changed":
        file.write_text('{"right": 4}')
    elif how == "deleted":
        file.unlink()
    else:
        listed.write_text('{"tasks": {"1.1": {"file": "1.1.json"}}}')
    sentences = []
    for call in (cu.submit, cu.report_card):
        with pytest.raises(cu.CourseError) as refused:
            call()
        sentences.append(str(refused.value))
    assert sentences[0] == sentences[1]
    assert re.search("was changed or deleted|is damaged", sentences[0])
    assert not list(Path("work").glob("*.html"))


# In a browser


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_in_a_browser(colours, small_course):
    """It fits a phone, nothing is asked of another host, and axe finds nothing serious, whichever colours are preferred."""
    pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[test]'")
    import browser as driver

    if not AXE.exists():
        driver.give_up("axe-core is not installed: run `make book` first.")
    student.remember("x" * 64)
    small_course[1]["1.1"] = Task("1.1", "t" * 80, "json", meets, points=4, measure=lambda v, p: {"f" * 80: "v" * 80})
    answered(t1_1=4, t1_2=2, t10_1=4)
    cu.check("10.2", write("10.2.json", {"right": 2, "quote": "q" * 300}))
    path, seen = cu.report_card(), driver.Seen()
    with driver.launched() as chromium, served(path.parent) as address:
        with driver.tab(chromium, color_scheme=colours) as page:
            seen.watch(page)
            page.goto(f"{address}/{path.name}", wait_until="load")
            paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
            lightness = [int(n) for n in re.findall(r"\d+", paper)]
            assert max(lightness) < 60 if colours == "dark" else min(lightness) > 200
            driver.fits_phone_and_paper(page, colours)
        with driver.tab(chromium, color_scheme=colours, bypass_csp=True) as page:
            page.goto(f"{address}/{path.name}", wait_until="load")
            page.add_script_tag(path=AXE)
            assert driver.findings(page) == []
    assert (seen.errors, seen.failed, seen.foreign) == ([], [], [])
