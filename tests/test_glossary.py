"""The glossary: its words stand in order, and the lessons' links lead to words that it has."""

from __future__ import annotations

import re

import pytest
from checkout import ROOT

NOTEBOOKS = ROOT / "notebooks"
HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
TEXT = (NOTEBOOKS / "glossary.md").read_text(encoding="utf-8")
TERMS = [heading.lower().replace(" ", "-") for heading in HEADING.findall(TEXT)]  # as anchors are made from them
SOURCES = sorted(NOTEBOOKS.rglob("[0-9][0-9]_*.py"))
LINK = re.compile(r"\]\(([./]*glossary\.md)#([\w-]+)\)")


def test_words_stand_in_order_and_are_explained():
    assert sorted(TERMS) == TERMS
    assert len(set(TERMS)) == len(TERMS) >= 40
    assert all(8 <= len(text.split()) <= 80 for text in HEADING.split(TEXT)[2::2])


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.relative_to(NOTEBOOKS).as_posix())
def test_links_lead_to_words_that_are_there(source):
    links = LINK.findall(source.read_text(encoding="utf-8"))
    assert {term for _, term in links} <= set(TERMS)
    assert {file for file, _ in links} <= {"glossary.md" if source.parent == NOTEBOOKS else "../glossary.md"}
    assert len({term for _, term in links}) == len(links), "a word is linked where it comes first"
