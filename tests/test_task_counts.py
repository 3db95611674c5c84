"""How many tasks a chapter has is written in several places for readers. It is counted here."""

from __future__ import annotations

import re

import pytest
from checkout import ROOT

from course_utils import exercises

WORDS = {
    3: "Three",
    4: "Four",
    5: "Five",
    6: "Six",
    7: "Seven",
    8: "Eight",
    9: "Nine",
    15: "Fifteen",
    16: "Sixteen",
    17: "Seventeen",
}


def source(chapter: int, folder: str) -> str:
    return next((ROOT / folder).glob(f"{chapter:02}_*.py")).read_text(encoding="utf-8")


@pytest.mark.parametrize("chapter", exercises.chapters())
def test_numbers_told_to_readers(chapter):
    count, ids = len(exercises.tasks_of(chapter)), list(exercises.tasks_of(chapter))
    (row,) = re.findall(rf"^\| {chapter:02} \|.*", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert re.search(rf"\b{count} (tasks|cases)\b", row)
    text = source(chapter, "data/exercises")
    assert text.partition("import course_utils")[0].count(f"{WORDS[count]} ") == 1
    assert sorted(re.findall(r"^# Task (\d+\.\d+):", text, re.MULTILINE)) == sorted(ids)


def test_numbers_of_the_hospital():
    count = WORDS[len(exercises.tasks_of(9))].lower()
    lesson = source(9, "notebooks")
    assert f"{count} symptoms" in lesson
    assert f"{count} cases" in lesson
    assert f"range(1, {len(exercises.tasks_of(9)) + 1})" in source(9, "data/exercises")


def test_each_patient_lies_in_one_ward():
    """In the list at the top in the order of the cases below."""
    text = source(9, "data/exercises")
    listed = [id for line in re.findall(r"^# \d\. \*\*.*", text, re.MULTILINE) for id in re.findall(r"9\.\d+", line)]
    assert listed == re.findall(r"^# ### (9\.\d+) ", text, re.MULTILINE) == list(exercises.tasks_of(9))
