"""Predict-first questions: the answer is chosen first, the reason comes after the next cell, or when it is asked for."""

from __future__ import annotations

import html
import json
import re

import pytest

pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[test]'")
import browser as driver
from bs4 import BeautifulSoup
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

import course_utils as cu
from course_utils.lab import quizzes
from course_utils.paths import BOOK_MODELS, data_path

ASKED = json.loads(data_path("quizzes/00_start_here.json").read_text(encoding="utf-8"))


def run(folder, *cells: str) -> list:
    """The outputs of the cell with the question, after all cells have run."""
    book = new_notebook(cells=[new_code_cell(cell) for cell in ("import course_utils as cu", *cells)])
    NotebookClient(book, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    return [output for output in book.cells[1].outputs if output.output_type == "display_data"]


def page(outputs: list) -> str:
    return "<!doctype html><meta charset=utf-8>" + "".join(output.data["text/html"] for output in outputs)


def test_the_question_that_was_asked_for(folder):
    (question, below) = run(folder, 'cu.quiz("00_start_here", 2)')
    shown = BeautifulSoup(question.data["text/html"], "html.parser")
    assert shown.legend.get_text().startswith("We forbid")
    assert [label.get_text() for label in shown.select("fieldset label")] == [
        one["answer"].replace("`", "") for one in ASKED[1]["answers"]
    ]
    assert question.data["text/plain"].startswith(ASKED[1]["question"])
    assert below.data["text/html"] == "", "the next cell has not run yet"


def test_it_becomes_a_style_when_the_next_cell_has_run(folder):
    (_, below) = run(folder, 'cu.quiz("00_start_here", 1)', "1 + 1", "2 + 2")
    assert below.data["text/html"].startswith("<style>")


def test_in_the_book_only_the_reader_asks(folder, monkeypatch):
    monkeypatch.setenv(BOOK_MODELS, str(folder))
    assert len(run(folder, 'cu.quiz("00_start_here", 1)', "1 + 1")) == 1


@pytest.mark.parametrize("choice", range(len(ASKED[0]["answers"])))
def test_in_a_browser_the_reason_of_the_choice_alone_is_shown(choice, folder, tab):
    tab.set_content(page(run(folder, 'cu.quiz("00_start_here", 1)')))
    reasons = tab.locator(".why")
    assert not any(reasons.nth(at).is_visible() for at in range(reasons.count()))
    assert not tab.locator(".ask").is_visible()
    tab.locator("[type=radio]").nth(choice).check()
    assert not any(reasons.nth(at).is_visible() for at in range(reasons.count())), "chosen, but not asked for"
    tab.locator(".ask").click()
    assert [reasons.nth(at).is_visible() for at in range(reasons.count())] == [
        at == choice for at in range(reasons.count())
    ]
    mark = "✓" if ASKED[0]["answers"][choice]["correct"] else "✗"
    assert reasons.nth(choice).inner_text().startswith(mark)


def test_in_a_browser_the_next_cell_shows_the_reason(folder, tab):
    tab.set_content(page(run(folder, 'cu.quiz("00_start_here", 1)', "1 + 1")))
    reasons = tab.locator(".why")
    assert not any(reasons.nth(at).is_visible() for at in range(reasons.count())), "nothing was chosen"
    tab.locator("[type=radio]").nth(1).check()
    assert [reasons.nth(at).is_visible() for at in range(reasons.count())] == [at == 1 for at in range(reasons.count())]
    assert not tab.locator(".ask").is_visible()


def test_it_works_without_javascript_and_by_keyboard(folder, browser):
    with driver.tab(browser, java_script_enabled=False) as tab:
        tab.set_content(page(run(folder, 'cu.quiz("00_start_here", 1)')))
        tab.locator("[type=radio]").first.focus()
        tab.keyboard.press("Space")
        tab.keyboard.press("Tab")
        tab.keyboard.press("Space")
        assert tab.locator(".why").first.is_visible()


def test_text_is_text(monkeypatch):
    answers = [
        {"answer": "`a < b`", "correct": True, "feedback": "<b>"},
        {"answer": "&amp;", "correct": False, "feedback": ""},
    ]
    shown = quizzes.Question("x-1", {"question": "<script>", "answers": answers})._repr_html_()
    assert "<legend>&lt;script&gt;</legend>" in shown
    assert "<code>a &lt; b</code>" in shown
    assert html.escape("&amp;") in shown
    assert not re.search(r"<script|javascript:|https?:", shown)


@pytest.mark.parametrize(
    ("lesson", "number", "sentence"),
    [
        ("00_start", 1, "no quiz for '00_start'. There is one for: 00_start_here"),
        ("00_start_here", 0, "has questions 1 to 3, not 0"),
        ("00_start_here", 4, "has questions 1 to 3, not 4"),
    ],
)
def test_no_such_question(lesson, number, sentence):
    with pytest.raises(cu.CourseError, match=sentence):
        cu.quiz(lesson, number)
