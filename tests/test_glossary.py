"""The glossary: its words stand in order, and the lessons' links lead to words that it has."""

from __future__ import annotations

import re

import pytest
from checkout import ROOT

NOTEBOOKS = ROOT / "notebooks"
TERMS = re.findall(r"^## (\S+)$", (NOTEBOOKS / "glossary.md").read_text(encoding="utf-8"), re.MULTILINE)
SOURCES = sorted(NOTEBOOKS.rglob("[0-9][0-9]_*.py"))
LINK = re.compile(r"\]\(([./]*glossary\.md)#([\w-]+)\)")


def test_words_stand_in_order_and_are_explained():
    assert sorted(TERMS) == TERMS
    assert len(set(TERMS)) == len(TERMS) >= 40
    sections = re.split(r"^## \S+$", (NOTEBOOKS / "glossary.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert all(8 <= len(section.split()) <= 80 for section in sections[1:])


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.relative_to(NOTEBOOKS).as_posix())
def test_links_lead_to_words_that_are_there(source):
    links = LINK.findall(source.read_text(encoding="utf-8"))
    assert {term for _, term in links} <= set(TERMS)
    assert {file for file, _ in links} <= {"glossary.md" if source.parent == NOTEBOOKS else "../glossary.md"}
    assert len({term for _, term in links}) == len(links), "a word is linked where it comes first"
