"""The service worker of the site: threads, visited pages without a network, nothing of an earlier build."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[test]'")
import browser as driver
from playwright.sync_api import Browser, Page, expect

from course_utils.pages.loopback import served

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "jupyter-book" / "_build" / "html"
sys.path[:0] = [str(ROOT / "jupyter-book"), str(ROOT / "notebooks")]
import publishing  # noqa: E402 - jupyter-book/publishing.py

pytestmark = pytest.mark.book

LESSON = "below/notebooks/00_start_here.html"
ANSWERED = "() => document.querySelector('.lab [role=status]')?.textContent.includes('WebAssembly')"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A host with a copy of the site, in a folder of its own."""
    if not SITE.exists():
        pytest.fail("There is no book: make book")
    folder = tmp_path_factory.mktemp("host")
    shutil.copytree(SITE, folder / "below", copy_function=shutil.copy)
    return folder


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with driver.tab(browser, service_workers="allow") as it:
        yield it


def controlled(page: Page, address: str) -> None:
    """Visit a page, wait for the service worker, and load the page again under it."""
    page.goto(address)
    page.evaluate("navigator.serviceWorker.ready")
    page.wait_for_function("() => navigator.serviceWorker.controller")
    page.reload(wait_until="networkidle")


def ask_lab(page: Page) -> str:
    page.locator(".lab").first.scroll_into_view_if_needed()
    page.get_by_role("button", name="Picture 10 of 12").click()
    page.wait_for_function(ANSWERED)
    return page.locator(".lab [role=status]").first.inner_text()


def stores(page: Page) -> list[str]:
    return list(page.evaluate("caches.keys()"))


def test_the_second_page_has_threads_and_the_same_answer(page: Page, root: Path) -> None:
    with served(root) as host:
        page.goto(f"{host}/{LESSON}")
        first = ask_lab(page)
        assert "one thread" in first
        controlled(page, f"{host}/{LESSON}")
        assert page.evaluate("crossOriginIsolated")
        second = ask_lab(page)
    threads = min(4, page.evaluate("navigator.hardwareConcurrency"))
    assert threads == 1 or f"{threads} threads" in second
    assert first.partition("WebAssembly")[0] == second.partition("WebAssembly")[0]


def test_without_a_network_visited_pages_and_their_labs_open(page: Page, root: Path) -> None:
    with served(root) as host:
        controlled(page, f"{host}/{LESSON}")
        told = ask_lab(page)
        page.wait_for_load_state("networkidle")
        page.goto(f"{host}/below/claims.html", wait_until="networkidle")
    page.goto(f"{host}/{LESSON}")  # nobody listens there any more
    expect(page.locator("h1").first).to_contain_text("00")
    assert ask_lab(page).partition("WebAssembly")[0] == told.partition("WebAssembly")[0]
    page.goto(f"{host}/below/claims.html?verdict=wrong")
    expect(page.locator("h1").first).to_have_text("The claims")
    page.goto(f"{host}/below/notebooks/06_fusion.html")
    expect(page.locator("main")).to_contain_text("This page was not opened before")


def test_a_new_build_begins_with_an_empty_store(page: Page, root: Path) -> None:
    with served(root) as host:
        controlled(page, f"{host}/{LESSON}")
        (before,) = stores(page)
        file = root / "below" / "service_worker.js"
        kept = file.read_text(encoding="utf-8")
        file.write_text(kept.replace(before.removeprefix("onnx-scroll "), "another-build"), encoding="utf-8")
        page.evaluate("navigator.serviceWorker.getRegistration().then(it => it.update())")
        page.wait_for_function("async () => (await caches.keys()).join() !== " + repr(before))
        page.reload(wait_until="networkidle")
        assert stores(page) == ["onnx-scroll another-build"]
        file.write_text(kept, encoding="utf-8")


def test_a_build_without_it_takes_it_away(
    page: Page, root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with served(root) as host:
        controlled(page, f"{host}/{LESSON}")
        monkeypatch.setenv("COURSE_OFFLINE", "0")
        publishing.write_service_worker(tmp_path)
        file = root / "below" / "service_worker.js"
        kept = file.read_text(encoding="utf-8")
        shutil.copy(tmp_path / "service_worker.js", file)
        page.evaluate("navigator.serviceWorker.getRegistration().then(it => it.update())")
        page.wait_for_function(
            "async () => !(await navigator.serviceWorker.getRegistration()) && !(await caches.keys()).length"
        )
        file.write_text(kept, encoding="utf-8")


def test_frames_widgets_and_formulas_live_under_it(page: Page, root: Path) -> None:
    seen = driver.Seen()
    with served(root) as host:
        controlled(page, f"{host}/below/notebooks/01_graph_structure.html")
        seen.watch(page)
        page.reload(wait_until="networkidle")
        frame = page.locator("iframe.netron").first
        frame.scroll_into_view_if_needed()
        frame.content_frame.locator("g.node-item-type text").first.wait_for()
        page.goto(f"{host}/below/notebooks/deeper/01_step_by_step.html")
        page.locator(driver.WIDGETS).first.scroll_into_view_if_needed()
        page.locator(".widget-vbox").first.wait_for()
    assert (seen.errors, seen.foreign) == ([], [])
