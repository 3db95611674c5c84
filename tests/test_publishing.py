"""The built book as a site that others link to: addresses, cards, the site map, the version line, lost readers."""

from __future__ import annotations

import re
import sys
from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest
from bs4 import BeautifulSoup
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "jupyter-book" / "_build" / "html"
sys.path[:0] = [str(ROOT / "jupyter-book"), str(ROOT / "notebooks")]
import publishing  # noqa: E402 - jupyter-book/publishing.py

pytestmark = pytest.mark.book

MOST = 60 * 10**6  # bytes of the whole site
LESSON = "notebooks/04_dynamic_axes.html"


def soup(name: str) -> BeautifulSoup:
    if not (SITE / name).exists():
        pytest.fail("There is no book: make book")
    return BeautifulSoup((SITE / name).read_text(encoding="utf-8"), "html.parser")


def tag(page: BeautifulSoup, key: str) -> str:
    found = page.select(f'meta[property="{key}"], meta[name="{key}"]')
    assert len(found) == 1, key
    return str(found[0]["content"])


@pytest.mark.parametrize("name", ["index.html", LESSON, "claims.html", "notebooks/deeper/04_static_again.html"])
def test_a_page_tells_its_one_address(name: str) -> None:
    page = soup(name)
    assert [link["href"] for link in page.select("link[rel=canonical]")] == [publishing.ADDRESS + name]
    assert tag(page, "og:url") == publishing.ADDRESS + name
    assert tag(page, "og:title") in page.select_one("h1").get_text()
    assert 40 < len(tag(page, "description")) <= 210
    assert tag(page, "og:image").removeprefix(publishing.ADDRESS) == "_static/card.png"


def test_the_card_has_the_size_that_sites_expect() -> None:
    with Image.open(SITE / "_static" / "card.png") as card:
        assert card.size == (1200, 630)


def test_the_site_map_lists_what_is_there() -> None:
    tree = ElementTree.parse(SITE / "sitemap.xml")
    listed = [str(one.text).removeprefix(publishing.ADDRESS) or "index.html" for one in tree.findall(".//{*}loc")]
    assert len(listed) == len(set(listed)) > 80
    assert all((SITE / name).exists() for name in listed)
    lessons = {page.relative_to(SITE).as_posix() for page in SITE.glob("notebooks/**/*.html")}
    assert lessons <= set(listed)
    assert f"{publishing.ADDRESS}sitemap.xml" in (SITE / "robots.txt").read_text(encoding="utf-8")


def test_each_page_names_course_packages_and_day() -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    for name in ("index.html", LESSON):
        (line,) = soup(name).select(".version-line")
        for package in publishing.VERSIONS:
            pin = re.search(rf"^{package}==(.+)$", pins, re.MULTILINE)
            assert pin is not None
            assert f"{package} {pin[1]}" in line.get_text()
        day = line.get_text().rpartition("run on ")[2].strip()
        assert datetime.fromisoformat(day) <= datetime.now()


def test_a_lost_reader_finds_back_from_any_depth() -> None:
    page = soup("404.html")
    root = f"/{publishing.NAME}/"
    targets = [str(link["href"]) for link in page.select("a")]
    assert all(target.startswith(root) for target in targets)
    assert all((SITE / target.removeprefix(root)).exists() for target in targets)


def test_the_site_is_small() -> None:
    sizes = {file: file.stat().st_size for file in SITE.rglob("*") if file.is_file()}
    assert sum(sizes.values()) < MOST, [
        (f"{size:,}", str(file.relative_to(SITE))) for file, size in sorted(sizes.items(), key=lambda it: -it[1])[:10]
    ]


def test_a_description_is_cut_at_a_word() -> None:
    made = publishing.card(
        "<title>T — The ONNX Scroll</title><article><p>Core lesson</p><p>" + "word " * 100 + "</p>", "a.html"
    )
    assert re.search(r'name="description" content="(word )+…"', made)
    assert 'content="T"' in made
