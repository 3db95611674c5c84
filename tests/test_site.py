"""The built book as a whole: its links, its viewers and live pages, what it costs to load, what it is without JavaScript."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import onnx
import pytest

import course_utils as cu
from course_utils.pages.loopback import served

pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[test]'")
import browser as driver
from playwright.sync_api import expect
from site_pages import AXE, LESSONS, PAGES, ROOT, SITE, pages_with, paths_of_this_machine, soup

all_pages = pytest.mark.parametrize("page", PAGES or ["index.html"])
all_lessons = pytest.mark.parametrize("lesson", LESSONS or ["notebooks/00_start_here.html"])

pytestmark = pytest.mark.book


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    if not (SITE / "index.html").exists():
        driver.give_up("The site is not built: run `make book` first.")


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with served(SITE) as address:
        yield address


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


@pytest.mark.parametrize("lesson", pages_with('<iframe class="netron') or ["(none)"])
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


@pytest.mark.parametrize("lesson", pages_with('<details class="live-page') or ["(none)"])
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


def test_doctor_page_lists_all_it_can_find():
    shown = [small.get_text() for small in soup("doctor.html").select("td:first-child small.section")]
    assert sorted(shown) == sorted(cu.doctor_codes()["code"])


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
