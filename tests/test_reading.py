"""Finding one's way in the book: side bar, previous and next, ticks, the index of error messages, the search."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from bs4 import BeautifulSoup

import course_utils as cu

pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[test]'")
import browser as driver
from playwright.sync_api import Browser, Page, expect

from course_utils.lab import claims
from course_utils.pages.loopback import served

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "jupyter-book" / "_build" / "html"
sys.path[:0] = [str(ROOT / "notebooks"), str(ROOT / "jupyter-book" / "reading")]
import errors  # noqa: E402 - jupyter-book/reading/errors.py
import navigation  # noqa: E402 - jupyter-book/reading/navigation.py
import sittings  # noqa: E402 - notebooks/sittings.py

pytestmark = pytest.mark.book

LESSON, DEEPER = "notebooks/04_dynamic_axes.html", "notebooks/deeper/04_static_again.html"
# As ONNX Runtime and PyTorch say them of other models than those of the course → where the course shows it.
PASTED = {
    "onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument: [ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid "
    "dimensions for input: pixels for the following indices\n index: 0 Got: 7 Expected: 1\n Please fix either the inputs/outputs "
    "or the model.": "notebooks/04_dynamic_axes.html",
    "Fatal error: ai.mine:Swish(-1) is not a registered function/op": "notebooks/deeper/02_domains_and_functions.html",
    "ValueError: Required inputs (['input_ids']) are missing from input feed (['ids']).": "notebooks/08_deployment.html",
    "Unsupported model IR version: 12, max supported IR version: 9": "notebooks/02_opsets.html",
}


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    if not SITE.exists():
        pytest.fail("There is no book: make book")
    with served(SITE.parent) as address:  # not at the root of its host
        yield f"{address}/html"


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    seen = driver.Seen()
    with driver.tab(browser) as it:
        seen.watch(it)
        yield it
    assert (seen.errors, seen.failed, seen.foreign) == ([], [], [])


def soup(name: str) -> BeautifulSoup:
    return BeautifulSoup((SITE / name).read_text(encoding="utf-8"), "html.parser")


@pytest.mark.parametrize("name", ["index.html", LESSON, DEEPER])
def test_the_side_bar_tells_times_and_groups(name: str) -> None:
    bar = soup(name).select_one(".bd-sidebar-primary")
    assert sittings.core_hours() in bar.get_text()
    for lesson in sittings.lessons():
        (link,) = [a for a in bar.select("li.toctree-l1 > a") if a.get_text().startswith(f"{lesson['file'][:2]} · ")]
        assert f"{sittings.minutes_of(lesson['file'])} min" in link.get_text()
        below = link.parent.select("li.toctree-l2")
        groups = [item.get_text() for item in below if "nav-group" in item["class"]]
        assert groups == [
            *["Deeper"] * bool(lesson.get("deeper")),
            *["Exercises"] * (f"exercises/{lesson['file']}" in navigation.titles()),
        ]
        pages = [item.get_text() for item in below if item.select(".nav-minutes")]
        times = [sittings.minutes_of(f"deeper/{page['file']}") for page in lesson.get("deeper", [])]
        assert [text.rpartition(" min")[0].rpartition(" ")[2] for text in pages] == [str(time) for time in times]


def test_next_and_next_is_the_core_path(page: Page, site: str) -> None:
    page.goto(f"{site}/notebooks/{navigation.core()[0]}.html")
    for name in navigation.core()[1:]:
        page.locator("a.right-next").click()
        page.wait_for_url(f"**/notebooks/{name}.html")
    assert page.locator("a.right-next").count() == 0
    page.locator("a.left-prev").click()
    page.wait_for_url(f"**/notebooks/{navigation.core()[-2]}.html")


def test_below_a_lesson_one_comes_back_and_goes_on() -> None:
    """Each link of each page leads to a page that is there, and every page is reached."""
    reached = set()
    for name in navigation.titles():
        assert (SITE / "notebooks" / f"{name}.html").exists()
        links = soup(f"notebooks/{name}.html").select(".prev-next-area a")
        targets = [((SITE / "notebooks" / name).parent / str(link["href"])).resolve() for link in links]
        assert [target.relative_to(SITE / "notebooks").as_posix().removesuffix(".html") for target in targets] == [
            n for n in navigation.neighbours(name) if n
        ]
        assert all(target.exists() for target in targets)
        reached |= set(navigation.neighbours(name))
        if "/" in name:
            assert navigation.neighbours(name)[0] in navigation.core()
    exercises = {name for name in navigation.titles() if name.startswith("exercises/")}
    assert exercises == {f"exercises/{path.stem}" for path in (ROOT / "data" / "exercises").glob("[0-9]*.py")}
    assert exercises <= reached


def test_what_is_finished_is_ticked_and_forgotten_on_request(page: Page, site: str) -> None:
    page.goto(f"{site}/{LESSON}")
    button = page.get_by_role("button", name="I have finished this page")
    button.press("Enter")
    expect(page.get_by_role("button", name="Finished")).to_have_attribute("aria-pressed", "true")
    ticked = page.locator(".bd-links a:has(.tick)")
    expect(ticked).to_have_text([f"04 · Dynamic axes {sittings.minutes_of('04_dynamic_axes')} min✓"])
    page.goto(f"{site}/{DEEPER}")
    page.get_by_role("button", name="I have finished this page").click()
    expect(ticked).to_have_count(2)
    page.goto(f"{site}/index.html")
    expect(page.locator("#progress")).to_contain_text("You have finished 1 of 12 lessons.")
    page.get_by_role("button", name="Forget all").click()
    expect(ticked).to_have_count(0)
    page.reload()
    expect(page.locator("#progress")).to_be_empty()


@pytest.mark.parametrize("kept", ["no JSON", '{"a": 1}', "null", "7"])
def test_what_another_page_kept_there_does_no_harm(kept: str, page: Page, site: str) -> None:
    page.goto(f"{site}/index.html")
    page.evaluate("kept => localStorage.setItem('onnx-scroll finished pages', kept)", kept)
    page.goto(f"{site}/{LESSON}")
    page.get_by_role("button", name="I have finished this page").click()
    expect(page.locator(".bd-links .tick")).to_have_count(1)


def test_where_storage_is_blocked_a_sentence_says_so(browser: Browser, site: str) -> None:
    """Scripts of the theme complain there, too, so the errors of this page are not looked at."""
    with driver.tab(browser) as page:
        page.add_init_script(
            "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no') } })"
        )
        page.goto(f"{site}/{LESSON}")
        page.get_by_role("button", name="I have finished this page").click()
        expect(page.locator(".finish [role=status]")).to_have_text(
            "This browser keeps nothing for pages, so what you finish is not remembered."
        )


def test_the_index_has_what_lessons_show_and_the_doctor_finds() -> None:
    rows = soup("errors.html").select(".error-index tbody tr")
    kinds = [str(row["data-kind"]) for row in rows]
    assert sum(kind == "shown" for kind in kinds) >= 25
    found = [row.select_one("a").get_text() for row in rows if row["data-kind"] == "doctor"]
    assert sorted(found) == sorted(cu.doctor_codes()["code"])
    texts = [errors.normal(row.select_one("td").get_text()) for row in rows if row["data-kind"] == "shown"]
    assert len(texts) == len(set(texts))


@pytest.mark.parametrize("message", PASTED)
def test_a_pasted_message_finds_its_page(message: str, page: Page, site: str) -> None:
    page.goto(f"{site}/errors.html")
    page.get_by_label("Your message").fill(message)
    first = page.locator(".error-index tbody tr").first
    assert (first.get_by_role("link").get_attribute("href") or "").startswith(PASTED[message])
    expect(page.locator("#error-status")).to_contain_text("like yours, the nearest first.")


def test_a_message_of_something_else_gets_a_sentence_and_keeps_the_table(page: Page, site: str) -> None:
    page.goto(f"{site}/errors.html")
    field, rows = page.get_by_label("Your message"), page.locator(".error-index tbody tr:visible")
    every = rows.count()
    field.fill("Segmentation fault (core dumped)")
    expect(page.locator("#error-status")).to_have_text(
        "No message here is like yours. Try its last line alone, or the search."
    )
    expect(rows).to_have_count(every)
    field.fill("")
    expect(page.locator("#error-status")).to_have_text(f"{every} messages.")


@pytest.mark.parametrize(
    ("asked", "term", "error"),
    [
        ("opset", "Opset", "opset-too-new"),
        ("qdq", "QDQ and QOperator", None),
        ("Got invalid dimensions for input", None, "04 · Dynamic axes"),
    ],
)
def test_the_search_begins_with_terms_and_messages(
    asked: str, term: str | None, error: str | None, page: Page, site: str
) -> None:
    page.goto(f"{site}/search.html?q={quote(asked)}")
    first = page.locator(".search-first")
    expect(first).to_be_visible()
    for name in filter(None, (term, error)):
        expect(first.get_by_role("link", name=name, exact=True).first).to_be_visible()
    links = first.get_by_role("link").evaluate_all("all => all.map(one => one.href)")
    assert all((SITE / link.partition("/html/")[2].partition("#")[0]).exists() for link in links)
    assert page.locator(".search-first").evaluate(
        "one => one.compareDocumentPosition(document.getElementById('search-results')) & Node.DOCUMENT_POSITION_FOLLOWING"
    )


def test_claims_are_chosen_by_verdict_chapter_and_words(page: Page, site: str) -> None:
    entries = list(claims.ledger().values())
    page.goto(f"{site}/claims.html")
    told, rows = page.locator(".claims-filter [role=status]"), page.locator("tr:visible:has(a.evidence)")
    expect(told).to_have_text(f"All {len(entries)} statements.")
    page.get_by_label("verdict").select_option("changed")
    changed = [entry for entry in entries if entry.verdict == "changed"]
    expect(told).to_have_text(f"{len(changed)} of {len(entries)} statements.")
    expect(rows).to_have_count(len(changed))
    chapter = page.get_by_label("chapter")
    chapter.select_option(index=1)
    first = [entry for entry in changed if entry.section[0] == entries[0].section[0]]
    expect(rows).to_have_count(len(first))
    assert page.locator("h2:visible", has_text=" · ").count() == bool(first)
    page.get_by_label("words").fill("no such words")
    expect(told).to_have_text(f"0 of {len(entries)} statements.")
    page.goto(f"{site}/claims.html?verdict=wrong&chapter=none-such")
    expect(rows).to_have_count(sum(entry.verdict == "wrong" for entry in entries))


def test_messages_are_taken_from_lines_of_outputs_and_not_from_listings() -> None:
    text = """{'scripted': "RuntimeError: forward() Expected a value of type 'Tensor' (inferred)",
        raise ValueError(f"{model} has another SHA-256 than expected")
    \x1b[0;93m[ONNXRuntimeError] : 10 : INVALID_GRAPH : This is an invalid model.\x1b[m"""
    assert errors._messages(text) == [
        "RuntimeError: forward() Expected a value of type 'Tensor' (inferred)",
        "[ONNXRuntimeError] : 10 : INVALID_GRAPH : This is an invalid model.",
    ]
