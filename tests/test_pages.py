"""Each page of the built book, opened in a browser: nothing fails, nothing asks another host, what should live lives."""

from __future__ import annotations

import functools
import os
import re
import time
from collections.abc import Callable, Iterator

import pytest

from course_utils.lab import claims
from course_utils.pages.loopback import served

pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[test]'")
import browser as driver
from playwright.sync_api import Page, expect
from site_pages import AXE, PAGES, SITE, pages_with, paths_of_this_machine, soup

SCREENSHOTS = SITE.parent / "screenshots"  # of every page, where COURSE_SCREENSHOTS asks for them
# What stands around the page is the same on all of one kind: axe looks at it here, and on the others at the page alone.
WHOLE = {
    "index.html",
    "claims.html",
    "notebooks/01_graph_structure.html",
    "notebooks/deeper/01_bytes.html",
    "notebooks/exercises/01_graph_structure.html",
}

pytestmark = pytest.mark.book

CLAIM = "div.claim"


def claim_stays_in_view(tab: Page) -> None:
    """What grows late moves the claim away and the page brings it back, so it must stay for a while."""
    tab.wait_for_function(driver.STAYS_IN_VIEW, polling=100)


def formulas_are_set(tab: Page) -> None:
    formulas = tab.locator("article .math")
    tab.locator("article mjx-container").nth(formulas.count() - 1).wait_for(state="attached")
    assert tab.locator("mjx-merror").count() == 0


def quiz_answers(tab: Page) -> None:
    quiz = tab.locator(".quiz").first
    quiz.locator("[type=radio]").first.check()
    expect(quiz.locator(".why").first).to_be_hidden()
    quiz.locator(".ask").click()
    expect(quiz.locator(".why").first).to_be_visible()
    expect(quiz.locator(".why").nth(1)).to_be_hidden()


def widgets_live_without_a_kernel(tab: Page) -> None:
    tab.locator(driver.WIDGETS).first.scroll_into_view_if_needed()  # what draws them is loaded then
    box = tab.locator(".widget-vbox:has(.widget-html-content)").first
    shown = box.locator(".widget-html-content:visible")
    shown.first.wait_for()
    content = "all => all.map(one => one.innerHTML)"  # a picture has no text
    before = shown.evaluate_all(content)

    def move() -> None:
        if (handle := box.locator(".noUi-handle")).count():
            handle.first.press("ArrowRight")
        else:
            chooser = box.locator("select").first
            chooser.select_option(index=0 if chooser.evaluate("one => one.selectedIndex") else 1)

    # The handle is drawn before it is linked, so one key may come too early.
    deadline = time.monotonic() + 30
    while (after := shown.evaluate_all(content)) == before and time.monotonic() < deadline:
        move()
        tab.wait_for_timeout(200)
    assert after != before


# What lives on a page: what stands in its file, where it is, what is done with it. The first comes first: the others scroll.
LOOKS = {
    "link to evidence": ('<div class="claim"', CLAIM, claim_stays_in_view),
    "formulas": ('class="math ', "article .math", formulas_are_set),
    "widgets": (
        '"StackModel"',
        'script[type="application/vnd.jupyter.widget-state+json"]:-soup-contains("StackModel")',
        widgets_live_without_a_kernel,
    ),
    "quiz": ('<div class="quiz ', ".quiz", quiz_answers),
}


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    if not (SITE / "index.html").exists():
        driver.give_up("The site is not built: run `make book` first.")


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with served(SITE) as address:
        yield address


@pytest.fixture(scope="module")
def visited(browser, site) -> Callable[[str], driver.Visit]:
    """Opens each page once, at its last claim; the tests below look at what was seen."""
    wanted = os.environ.get("COURSE_SCREENSHOTS") == "1"
    if wanted:
        SCREENSHOTS.mkdir(exist_ok=True)

    @functools.cache
    def open_once(page: str) -> driver.Visit:
        there = {name: look for name, (_, mark, look) in LOOKS.items() if soup(page).select(mark)}
        anchors = [claim["id"] for claim in soup(page).select(CLAIM)]
        address = f"{site}/{page}" + (f"#{anchors[-1]}" if anchors else "")
        name = page.removesuffix(".html").replace("/", "-")
        part = "html" if page in WHOLE else "main"
        return driver.visit(browser, address, AXE, there, SCREENSHOTS / name if wanted else None, part)

    return open_once


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.cls and "look" in metafunc.fixturenames:
        looks = [(look, page) for look in LOOKS for page in pages_with(LOOKS[look][0]) if page in metafunc.cls.pages]
        metafunc.parametrize(("look", "page"), looks)
    elif metafunc.cls:
        metafunc.parametrize("page", metafunc.cls.pages)


class EachPage:
    """What holds for each page. The pages are in two classes, since pytest gives all tests of a class to one process."""

    pages: list[str]

    def test_opens_without_an_error(self, page, visited):
        assert visited(page).seen.errors == []
        assert visited(page).seen.failed == []

    def test_asks_no_other_host(self, page, visited):
        assert visited(page).seen.foreign == []
        assert not re.search(r"jsdelivr|cdnjs|unpkg|googleapis|google-analytics|googletagmanager", str(soup(page)))

    def test_has_one_heading_and_text(self, page, visited):
        assert len(visited(page).headings) == 1
        assert len(visited(page).text) > 50 or page in {"genindex.html", "search.html"}

    def test_fits_a_phone(self, page, visited):
        assert visited(page).too_wide == []

    def test_no_line_of_code_is_wrapped_on_a_screen(self, page, visited):
        assert visited(page).wrapped == []

    def test_is_accessible(self, page, visited):
        assert visited(page).violations == []

    def test_it_lives(self, look, page, visited):
        assert soup(page).select(LOOKS[look][1])
        if error := visited(page).wrong.get(look):
            raise error


class TestOneHalf(EachPage):
    pages = PAGES[::2]


class TestOtherHalf(EachPage):
    pages = PAGES[1::2]


@pytest.mark.parametrize("look", LOOKS)
def test_some_page_has_it(look):
    assert pages_with(LOOKS[look][0])


@pytest.mark.parametrize(
    "page", sorted(p.relative_to(SITE).as_posix() for p in SITE.glob("pages/*/index.html")) or ["(none)"]
)
def test_a_live_page_fits_a_phone_and_is_accessible(page, visited):
    assert visited(page).too_wide == []
    assert visited(page).violations == []
    for file in (SITE / page).parent.rglob("*"):
        assert file.is_dir() or paths_of_this_machine(file.read_bytes()) == []


def test_claims_page_says_what_the_ledger_says(visited):
    ledger = list(claims.ledger().values())
    assert f"{len(ledger)} statements are tested" in visited("claims.html").text
    rows = soup("claims.html").select("tr:has(small.section):has(.verdict)")
    assert len(rows) == len(ledger)
    for row, claim in zip(rows, ledger, strict=True):
        text = row.get_text()
        assert claim.statement in text
        assert claim.verdict in text
        page, _, anchor = row.select_one("a.evidence")["href"].partition("#")
        assert soup(page).find(id=anchor)
