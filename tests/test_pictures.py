"""The drawings: each is shown somewhere, says in words what it shows, and takes its colours from the page."""

from __future__ import annotations

import re
from collections import Counter
from xml.etree import ElementTree

import pytest
from checkout import ROOT

import course_utils as cu
from course_utils.lab import pictures

FILES = sorted((ROOT / "data" / "pictures").glob("*.svg"))
SHOWN = re.compile(r'^cu\.picture\("(\w+)"\)', re.MULTILINE)
CLASSES = {"small", "strong", "middle", "end", "code", "box", "line", "dashed", "head"}
CLASSES |= {name + part for name in pictures._COLOURS for part in ("", "-line", "-head")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_drawing_is_sound(path):
    root = ElementTree.fromstring(path.read_text(encoding="utf-8"))
    assert root.get("role") == "img"
    assert root.get("aria-label")
    assert re.fullmatch(r"0 0 \d+ \d+", root.get("viewBox"))
    shown = cu.picture(path.stem)
    assert len(repr(shown).split()) >= 15, "somebody who cannot see it reads this"
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"<script|<style|href=\"(?!#)|url\((?!#)|#[0-9a-fA-F]{3,6}\"", text), (
        "nothing from elsewhere, no colour of its own"
    )
    used = {name for element in root.iter() for name in (element.get("class") or "").split()}
    assert used <= CLASSES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_markers_of_two_drawings_on_a_page_do_not_meet(path):
    """An id counts for the whole page, so it carries the drawing's name."""
    for id in re.findall(r'\bid="([^"]+)"', path.read_text(encoding="utf-8")):
        assert id.startswith(path.stem)


def test_every_drawing_is_shown_once():
    sources = [*ROOT.glob("notebooks/*.py"), *ROOT.glob("notebooks/deeper/*.py")]
    shown = Counter(name for source in sources for name in SHOWN.findall(source.read_text(encoding="utf-8")))
    assert shown == Counter(path.stem for path in FILES)


def test_there_is_no_such_drawing():
    with pytest.raises(cu.CourseError, match=r"There is no drawing 'no_such'\. There are: "):
        cu.picture("no_such")
