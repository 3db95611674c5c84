"""The summary sheets: two pages at most, and nothing on them that is not in the course."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from course_utils.lab import claims

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "jupyter-book" / "_build" / "html"
sys.path[:0] = [str(ROOT / folder) for folder in ("jupyter-book", "jupyter-book/reading", "notebooks")]
import sheets  # noqa: E402 - jupyter-book/sheets.py
import sittings  # noqa: E402 - notebooks/sittings.py

pytestmark = pytest.mark.book

LESSONS = {lesson["file"]: lesson for lesson in sittings.lessons()}
each = pytest.mark.parametrize("file", LESSONS)


@each
def test_a_sheet_is_printed_on_two_pages_at_most(file: str) -> None:
    pdf = SITE / "sheets" / f"{file}.pdf"
    if not pdf.exists():
        pytest.fail("The book has no sheets: make book, on a machine with Chromium or Chrome")
    assert 1 <= sheets.pages(pdf) <= sheets.MOST
    data = pdf.read_bytes()
    assert pdf.stat().st_size < 400_000
    assert b"/StructTreeRoot" in data, "a screen reader needs tags"
    assert b"FontFile" in data, "letters are the same on every machine"


@each
def test_a_sheet_has_its_parts_and_they_stand_in_the_course(file: str) -> None:
    page = BeautifulSoup(sheets.sheet(LESSONS[file], [], "versions", 9), "html.parser")
    lesson = (ROOT / "notebooks" / f"{file}.py").read_text(encoding="utf-8")
    assert page.select_one(".drawing svg desc") is not None
    remembered = page.select("h2 + ul > li")
    assert len(remembered) >= 3
    calls = [code.get_text() for code in page.select(".columns code")]
    assert calls
    assert all(name in lesson for name in calls)
    number = file[:2]
    told = [c.statement for c in claims.ledger().values() if c.lesson.rpartition("/")[2].startswith(number)]
    assert [row.select_one("td").get_text() for row in page.select("tr")] == told


def test_the_page_of_sheets_and_the_lessons_lead_to_them() -> None:
    page = (SITE / "sheets.html").read_text(encoding="utf-8")
    assert re.findall(r'href="sheets/(\w+)\.pdf"', page) == list(LESSONS)
    for file in LESSONS:
        assert f'href="../sheets/{file}.pdf"' in (SITE / "notebooks" / f"{file}.html").read_text(encoding="utf-8")
