"""The built book, opened in a browser: nothing fails, nothing asks another host, everything that should live lives."""

from __future__ import annotations

import functools
import gzip
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import onnx
import pytest
from bs4 import BeautifulSoup

import course_utils as cu
from course_utils.lab import claims
from course_utils.pages.loopback import served

pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[test]'")
import browser as driver
from playwright.sync_api import Page, expect

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "jupyter-book"
SITE = BOOK / "_build" / "html"
AXE = BOOK / "node_modules" / "axe-core" / "axe.min.js"
SCREENSHOTS = BOOK / "_build" / "screenshots"  # of every page, where COURSE_SCREENSHOTS asks for them
# `netron/` is another program's page, `_static/` holds templates of the theme, `pages/` what lessons built: see below.
PAGES = sorted(
    page.relative_to(SITE).as_posix()
    for page in SITE.rglob("*.html")
    if page.relative_to(SITE).parts[0] not in {"netron", "_static", "pages", "404.html"}
)
LESSONS = [page for page in PAGES if re.fullmatch(r"notebooks/(deeper/)?\d\d_\w+\.html", page)]
# What stands around the page is the same on all of one kind: axe looks at it here, and on the others at the page alone.
WHOLE = {
    "index.html",
    "claims.html",
    "notebooks/01_graph_structure.html",
    "notebooks/deeper/01_bytes.html",
    "notebooks/exercises/01_graph_structure.html",
}
all_pages = pytest.mark.parametrize("page", PAGES or ["index.html"])
all_lessons = pytest.mark.parametrize("lesson", LESSONS or ["notebooks/00_start_here.html"])

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


# What lives on a page: where it is, what is done with it. The first comes first: the others scroll.
LOOKS = {
    "link to evidence": (CLAIM, claim_stays_in_view),
    "formulas": ("article .math", formulas_are_set),
    "widgets": (
        'script[type="application/vnd.jupyter.widget-state+json"]:-soup-contains("StackModel")',
        widgets_live_without_a_kernel,
    ),
    "quiz": (".quiz", quiz_answers),
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
def browser() -> Iterator:
    with driver.launched() as it:
        yield it


@pytest.fixture(scope="module")
def visited(browser, site) -> Callable[[str], driver.Visit]:
    """Opens each page once, at its last claim; the tests below look at what was seen."""
    wanted = os.environ.get("COURSE_SCREENSHOTS") == "1"
    if wanted:
        SCREENSHOTS.mkdir(exist_ok=True)

    @functools.cache
    def open_once(page: str) -> driver.Visit:
        there = {name: look for name, (mark, look) in LOOKS.items() if soup(page).select(mark)}
        anchors = [claim["id"] for claim in soup(page).select(CLAIM)]
        address = f"{site}/{page}" + (f"#{anchors[-1]}" if anchors else "")
        name = page.removesuffix(".html").replace("/", "-")
        part = "html" if page in WHOLE else "main"
        return driver.visit(browser, address, AXE, there, SCREENSHOTS / name if wanted else None, part)

    return open_once


def lessons_with(look: str) -> list[str]:
    """The lessons that have what this look is for: its name stands in their source."""
    return [page for page in LESSONS if soup(page).select(LOOKS[look][0])] or ["(none)"]


@pytest.fixture
def tab(browser) -> Iterator:
    with driver.tab(browser) as page:
        yield page


@functools.cache
def soup(page: str) -> BeautifulSoup:
    return BeautifulSoup((SITE / page).read_text(encoding="utf-8"), "html.parser")


def paths_of_this_machine(data: bytes) -> list[str]:
    paths = {str(ROOT), str(Path.home()) + "/", sys.prefix, tempfile.gettempdir() + "/"} - {"//"}
    return [path for path in paths if path.encode() in data]


@all_pages
def test_page_opens_without_an_error(page, visited):
    assert visited(page).seen.errors == []
    assert visited(page).seen.failed == []


@all_pages
def test_page_asks_no_other_host(page, visited):
    assert visited(page).seen.foreign == []
    assert not re.search(r"jsdelivr|cdnjs|unpkg|googleapis|google-analytics|googletagmanager", str(soup(page)))


@all_pages
def test_page_has_one_heading_and_text(page, visited):
    assert len(visited(page).headings) == 1
    assert len(visited(page).text) > 50 or page in {"genindex.html", "search.html"}


@all_pages
def test_page_fits_a_phone(page, visited):
    assert visited(page).too_wide == []


@all_pages
def test_no_line_of_code_is_wrapped_on_a_screen(page, visited):
    assert visited(page).wrapped == []


@all_pages
def test_page_is_accessible(page, visited):
    assert visited(page).violations == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_each_word_of_the_listings_can_be_read(theme, tab, site):
    """The other pages have the same colours, and are looked at without their listings."""
    tab.goto(f"{site}/notebooks/04_dynamic_axes.html")
    tab.evaluate("theme => document.documentElement.dataset.theme = theme", theme)
    tab.add_script_tag(path=AXE)
    assert driver.findings(tab, only="color-contrast", code=True) == []


def test_widgets_have_dark_ground_in_dark_mode(tab, site):
    """Ink and ground of one colour are no finding of axe."""
    tab.goto(f"{site}/notebooks/deeper/01_step_by_step.html")
    tab.evaluate("document.documentElement.dataset.theme = 'dark'")
    tab.locator(driver.WIDGETS).first.scroll_into_view_if_needed()
    ground = "one => getComputedStyle(one).backgroundColor"
    assert tab.locator(".widget-subarea").first.evaluate(ground) == "rgba(0, 0, 0, 0)"


@pytest.mark.parametrize(
    "page",
    [
        "index.html",
        "claims.html",
        "errors.html",
        "labs.html",
        "notebooks/01_graph_structure.html",
        "notebooks/deeper/01_step_by_step.html",
        "notebooks/exercises/04_dynamic_axes.html",
        "notebooks/glossary.html",
    ],
)
def test_all_can_be_read_without_javascript(page, browser, site):
    """Prose, code, outputs, pictures and the words of each lab stand in the page itself."""
    with driver.tab(browser, java_script_enabled=False) as tab:
        tab.goto(f"{site}/{page}")
        seen = tab.inner_text("article")
        for picture in tab.locator("article img:visible").all():
            picture.scroll_into_view_if_needed()  # of pictures far down a browser loads nothing before
            assert picture.bounding_box()["height"] > 10
        assert tab.locator("article .lab-words").count() == tab.locator("article .lab-words[open]").count()
    wanted = soup(page).select_one("article")
    for hidden in wanted.select("script, style, details:not([open]), .headerlink, template, .quiz .why"):
        hidden.extract()
    squeezed = "".join(seen.split())
    missing = [one for one in wanted.find_all(["h2", "p", "pre"]) if "".join(one.get_text().split()) not in squeezed]
    assert missing == []


# Bytes that a reader waits for, as a host sends them: packed. The program of widgets comes with the first widget.
@pytest.mark.parametrize(
    ("page", "most"),
    [
        ("index.html", 1_200_000),
        ("claims.html", 1_200_000),
        ("notebooks/glossary.html", 1_200_000),
        ("notebooks/04_dynamic_axes.html", 1_200_000),
        ("notebooks/deeper/01_step_by_step.html", 1_200_000),
    ],
)
def test_a_page_to_read_is_light(page, most, tab, site):
    asked = set()
    tab.on("request", lambda request: asked.add(urlsplit(request.url).path.lstrip("/")))
    tab.goto(f"{site}/{page}", wait_until="networkidle")
    sizes = {name: len(gzip.compress((SITE / name).read_bytes())) for name in asked if (SITE / name).is_file()}
    assert len(sizes) > 10
    assert sum(sizes.values()) < most, sorted(sizes.items(), key=lambda item: -item[1])[:6]


@all_pages
def test_links_lead_somewhere(page):
    for link in soup(page).select("a[href]"):
        address, _, anchor = link["href"].partition("#")
        if re.match(r"\w+:", address):
            continue
        target = (SITE / page).parent / address.partition("?")[0] if address else SITE / page
        assert target.exists(), link
        if anchor and target.suffix == ".html":
            assert soup(target.resolve().relative_to(SITE).as_posix()).find(id=anchor), link


@all_pages
def test_page_names_no_path_of_this_machine(page):
    assert paths_of_this_machine((SITE / page).read_bytes()) == []


@all_lessons
def test_launch_buttons_open_the_notebook_of_the_page(lesson):
    notebook = lesson.replace(".html", ".ipynb")
    assert (ROOT / notebook).exists()
    links = [link["href"] for link in soup(lesson).select(".dropdown-launch-buttons a")]
    assert len(links) == 2
    badges = (ROOT / notebook).read_text(encoding="utf-8")  # generated from the same address
    for link in links:
        assert link in badges


@pytest.mark.parametrize("lesson", [p for p in LESSONS if soup(p).select("iframe.netron")] or ["(none)"])
def test_viewer_shows_the_model(lesson, tab, site):
    failed = []
    tab.on("response", lambda r: failed.append(r.url) if r.status >= 400 else None)
    tab.goto(f"{site}/{lesson}")
    frame = tab.locator("iframe.netron").first
    frame.scroll_into_view_if_needed()
    model = onnx.load(SITE / "models" / frame.get_attribute("src").rpartition("/")[2])
    wanted = [node.op_type for node in model.graph.node]
    titles = frame.content_frame.locator("g.node-item-type text")
    titles.first.wait_for()
    assert sorted(titles.all_text_contents()) == sorted(wanted)
    titles.filter(has_text=wanted[0]).first.click()
    frame.content_frame.locator("#sidebar").get_by_text(wanted[0], exact=True).first.wait_for()
    assert failed == []


@pytest.mark.parametrize("lesson", [p for p in LESSONS if soup(p).select("details.live-page")] or ["(none)"])
def test_a_live_page_runs_its_model_once_it_is_opened(lesson, tab, site):
    seen = driver.Seen()
    seen.watch(tab)
    asked = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(f"{site}/{lesson}", wait_until="load")
    closed = tab.locator("details.live-page").first
    closed.scroll_into_view_if_needed()
    tab.wait_for_timeout(500)
    assert not [url for url in asked if "/pages/" in url], "nobody who only reads loads megabytes"
    closed.locator("summary").click()
    frame = closed.locator("iframe").content_frame
    expect(frame.locator("meter").first).to_be_visible(timeout=driver.PATIENCE)
    frame.locator("#samples button").nth(1).click()
    expect(frame.locator("#said")).to_have_text(re.compile("|".join(cu.CLASS_NAMES)))
    assert [url for url in asked if url.endswith(".wasm.gz")]
    if "08_deployment" in lesson:  # this browser has no adapter
        expect(frame.locator("#ran")).to_have_text("WebAssembly: this browser gave no adapter")
        assert not [url for url in asked if "webgpu" in url or "asyncify" in url], (
            "nobody who has no use for it loads 27 MB more"
        )
    assert (seen.errors, seen.failed, seen.foreign) == ([], [], [])


@pytest.mark.parametrize(
    "page", sorted(p.relative_to(SITE).as_posix() for p in SITE.glob("pages/*/index.html")) or ["(none)"]
)
def test_a_live_page_fits_a_phone_and_is_accessible(page, visited):
    assert visited(page).too_wide == []
    assert visited(page).violations == []
    for file in (SITE / page).parent.rglob("*"):
        assert file.is_dir() or paths_of_this_machine(file.read_bytes()) == []


@pytest.mark.parametrize(("look", "lesson"), [(look, page) for look in LOOKS for page in lessons_with(look)])
def test_it_lives(look, lesson, visited):
    if error := visited(lesson).wrong.get(look):
        raise error


def test_doctor_page_lists_all_it_can_find():
    shown = [small.get_text() for small in soup("doctor.html").select("td:first-child small.section")]
    assert sorted(shown) == sorted(cu.doctor_codes()["code"])


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


def test_a_live_page_is_dark_when_the_book_is(tab, site):
    """The book has a switch of its own; the page in the frame would follow the system."""
    lesson = next(page for page in LESSONS if soup(page).select("details.live-page"))
    tab.goto(f"{site}/{lesson}")
    tab.locator("details.live-page summary").first.click()
    body = tab.locator("details.live-page iframe").first.content_frame.locator("body")
    for theme in ("dark", "light"):
        tab.evaluate("theme => document.documentElement.dataset.theme = theme", theme)
        dark = "one => getComputedStyle(one).backgroundColor.match(/\\d+/g).slice(0, 3).every(n => n < 60)"
        expect(body).to_be_visible()
        assert body.evaluate(dark) == (theme == "dark")
