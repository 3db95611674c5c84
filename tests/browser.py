"""For the tests of the site: a browser, and what was seen when a page was opened."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright
from playwright.sync_api import Error as PlaywrightError

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MAC = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
PATIENCE = 120_000  # milliseconds; the other tests may keep all processors busy
expect.set_options(timeout=PATIENCE)
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


def give_up(sentence: str) -> None:
    """Skip, except in CI, where nothing may be missing."""
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(sentence)


@contextmanager
def launched(*flags: str) -> Iterator[Browser]:
    """The Chromium or Chrome of this machine, with a fresh profile."""
    path = next(filter(None, map(shutil.which, [*NAMES, MAC])), None)
    if not path:
        give_up("No Chromium or Chrome was found: install one to test the site in a browser.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*FLAGS, *flags])
        yield browser
        browser.close()


# Netron takes `eval` away from its page, and Playwright cannot look into a page without it.
KEEP_EVAL = "{const kept = eval; Object.defineProperty(window, 'eval', {get: () => kept, set: () => {}})}"
# Found in the theme, not curable in CSS: the two buttons' names leave out the key "Ctrl+K" and the hidden icons' titles.
NOT_OURS = {
    ("label-content-name-mismatch", "search-button-field"),
    ("label-content-name-mismatch", "theme-switch-button"),
}


@contextmanager
def tab(browser: Browser, **options: Any) -> Iterator[Page]:
    """A page in a context of its own, 1280 pixels wide. The site's service worker is left out: it would hide requests."""
    options.setdefault("service_workers", "block")
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce", **options)
    context.set_default_timeout(PATIENCE)
    context.add_init_script(KEEP_EVAL)
    yield context.new_page()
    context.close()


@dataclass
class Seen:
    """What went wrong while a page was open: errors in its console, requests that failed, requests to other hosts."""

    errors: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        page.on("console", lambda m: self.errors.append(f"{m.text} ({m.location})") if m.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("requestfailed", self._failed)
        page.on("response", lambda r: self.failed.append(f"{r.url} {r.status}") if r.status >= 400 else None)
        page.on("request", self._request)

    def _failed(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # what was on its way when another page was opened
            self.failed.append(f"{request.url} {request.failure}")

    def _request(self, request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme not in {"data", "blob"} and address.hostname != "127.0.0.1":
            self.foreign.append(request.url)


@dataclass
class Visit:
    """What one page is like: `Seen`, plus its outline, its width on a phone, what axe finds in light and in dark, and what
    a look of the caller's found wrong, by the look's name."""

    seen: Seen
    headings: list[str]
    text: str
    too_wide: list[str]
    wrapped: list[str]
    violations: list[str]
    wrong: dict[str, Exception]


# What is wider than a phone's screen and does not scroll inside something.
TOO_WIDE = """() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  const wide = [...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > width + 1);
  return [`page is ${document.documentElement.scrollWidth}px wide`, ...wide.slice(0, 5).map(e => e.outerHTML.slice(0, 120))];
}"""

# Lines of code that go on in the next line of the page.
WRAPPED = """() => [...document.querySelectorAll('div.cell_input pre')].filter(pre => !pre.closest('details:not([open])')).flatMap(pre => {
  const range = document.createRange(), found = [];
  const walker = document.createTreeWalker(pre, NodeFilter.SHOW_TEXT);
  let line = '', top, broken = false;
  for (let node = walker.nextNode(); node; node = walker.nextNode())
    for (let at = 0; at < node.length; at++) {
      if (node.data[at] === '\\n') { if (broken) found.push(line); line = ''; top = undefined; broken = false; continue; }
      range.setStart(node, at); range.setEnd(node, at + 1);
      const y = range.getBoundingClientRect().top;
      if (node.data[at].trim()) { top ??= y; broken ||= Math.abs(y - top) > 8; }
      line += node.data[at];
    }
  return broken ? [...found, line] : found;
})"""


def visit(
    browser: Browser, address: str, axe: Path, looks: dict[str, Callable[[Page], None]], screenshots: Path | None = None,
    part: str = "html",
) -> Visit:  # fmt: skip
    """Open a page once, as a reader would: wide, then dark, then on a phone.

    looks: are called with the page while it is wide. screenshots: where to write three, as NAME-desktop.jpg and so on. part: of
    the page, that axe looks at.
    """
    seen, wrong = Seen(), {}
    with tab(browser) as page:
        seen.watch(page)
        page.goto(address, wait_until="load")
        page.evaluate(FOLLOW)
        wrapped = page.evaluate(WRAPPED)
        page.add_script_tag(path=axe)
        violations = [f"light: {v}" for v in findings(page, part=part)]
        for name, look in looks.items():
            try:
                look(page)
            except (AssertionError, PlaywrightError) as error:
                wrong[name] = error
        _screenshot(page, screenshots, "desktop")
        page.evaluate("document.documentElement.dataset.theme = 'dark'")
        violations += [f"dark: {v}" for v in findings(page, part=part, only="color-contrast")]
        _screenshot(page, screenshots, "dark")
        page.evaluate("document.documentElement.dataset.theme = 'light'")
        page.set_viewport_size({"width": 390, "height": 844})
        _screenshot(page, screenshots, "phone")
        too_wide = page.evaluate(TOO_WIDE)
        headings = page.locator("h1:visible").all_inner_texts()
        return Visit(seen, headings, page.inner_text("main"), too_wide, wrapped, violations, wrong)


# Where a widget stands. What draws it is loaded when this comes near.
WIDGETS = 'div:has(> script[type="application/vnd.jupyter.widget-view+json"])'

# How long what the address names has been near the top of the window: `inViewSince`.
FOLLOW = """() => {
  const it = document.getElementById(location.hash.slice(1));
  if (!it) return;
  const look = () => {
    const top = it.getBoundingClientRect().top;
    window.inViewSince = top >= 0 && top < 300 ? window.inViewSince ?? performance.now() : undefined;
  };
  look();
  setInterval(look, 100);
}"""
STAYS_IN_VIEW = "() => performance.now() - window.inViewSince > 1500"


def fits_phone_and_paper(page: Page, colours: str) -> None:
    """Nothing is wider than a phone, and print has dark ink; the page is on the screen again afterwards."""
    for width in (390, 320):
        page.set_viewport_size({"width": width, "height": 844})
        assert page.evaluate(TOO_WIDE) == []
    page.emulate_media(media="print", color_scheme=colours)
    ink = page.evaluate("getComputedStyle(document.body).color")
    assert max(int(n) for n in re.findall(r"\d+", ink)) < 60, "dark ink on paper"
    page.emulate_media(media="screen", color_scheme=colours)


def _screenshot(page: Page, path: Path | None, what: str) -> None:
    if path:  # of a long lesson, PNG takes seconds. The sidebar slides when the width changes.
        file = path.with_name(f"{path.name}-{what}.jpg")
        page.screenshot(path=file, full_page=True, type="jpeg", quality=70, animations="disabled")


def findings(page: Page, only: str | None = None, code: bool = False, part: str = "html") -> list[str]:
    """Serious and critical findings in a part of the page, one line per element. code: look at each word of the listings, too; they are thousands,
    and have the same few colours on every page."""
    options: dict[str, Any] = {"resultTypes": ["violations"], "iframes": False}
    if only:
        options["runOnly"] = [only]
    where = {} if code else {"exclude": [["div.highlight pre > *"]]}
    found = page.evaluate(
        "([part, where, options]) => axe.run({ include: [[part]], ...where }, options)", [part, where, options]
    )["violations"]
    return [
        f"{rule['id']} {node['target']} {node['html'][:100]}"
        for rule in found
        if rule["impact"] in {"serious", "critical"}
        for node in rule["nodes"]
        if not any(rule["id"] == name and part in node["html"] for name, part in NOT_OURS)
    ]
