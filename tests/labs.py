"""For the tests of the labs: a small site with nothing but labs, below the root of its host, and one of them opened in a browser."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import browser as driver
import pytest
from checkout import ROOT
from markdown_it import MarkdownIt
from playwright.sync_api import Browser, Locator, Page, expect

from course_utils.pages.browser_lab import npm_package
from course_utils.pages.loopback import served

BOOK = ROOT / "jupyter-book"
AXE = BOOK / "node_modules" / "axe-core" / "axe.min.js"
BELOW = "below/the/root"
sys.path.append(str(BOOK / "labs"))
import site_labs  # noqa: E402 - jupyter-book/labs/site_labs.py

PAGE = """<!DOCTYPE html>
<html lang="en" data-theme="{theme}"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<link rel="stylesheet" href="../_static/styles/pydata-sphinx-theme.css">
<style>body {{ margin: 0; background: var(--pst-color-background); color: var(--pst-color-text-base); }}
main {{ max-width: 60rem; margin: 0 auto; padding: 1rem; }}</style>
</head><body><main><h1>{title}</h1>
{place}
</main></body></html>"""


def build(root: Path, *names: str) -> Path:
    """Write a site with a page for each of these labs and each theme, such as `pages/classify-dark.html`; return its folder."""
    import pydata_sphinx_theme

    if npm_package("protobufjs") is None:
        driver.give_up("The packages for the browser are not installed: make book installs them.")
    site = root / BELOW
    site_labs.write(site / "_static", BOOK / "_build" / "labs")
    styles = Path(pydata_sphinx_theme.__file__).parent / "theme" / "pydata_sphinx_theme" / "static" / "styles"
    shutil.copytree(styles, site / "_static" / "styles")
    (site / "pages").mkdir()
    for lab in site_labs.labs():
        if lab.name in names:
            place = MarkdownIt("commonmark", {"html": True}).render(lab.place("../_static"))
            for theme in ("light", "dark"):
                page = PAGE.format(theme=theme, title=lab.title, place=place)
                (site / "pages" / f"{lab.name}-{theme}.html").write_text(page, encoding="utf-8")
    return site


@dataclass
class Lab:
    """A page with a lab, and what was seen of it."""

    name: str
    page: Page
    address: str
    seen: driver.Seen = field(default_factory=driver.Seen)
    requests: list[str] = field(default_factory=list)

    def open(self, state: str = "", theme: str = "light") -> Locator:
        """Load the page anew and wait until the lab is there. state: such as "picture=3"."""
        self.page.goto("about:blank")
        self.page.goto(f"{self.address}/pages/{self.name}-{theme}.html" + (f"#{self.name}?{state}" if state else ""))
        root = self.page.locator(f".lab[data-lab={self.name}]")
        expect(root).to_have_attribute("data-ready", "yes", timeout=driver.PATIENCE)
        return root

    @property
    def said(self) -> Locator:
        return self.page.get_by_role("status").first

    @property
    def state(self) -> str:
        """What stands behind `#` in the address."""
        return self.page.url.partition("#")[2]

    def violations(self, theme: str) -> list[str]:
        """Serious and critical findings of axe in the page as it is."""
        self.page.evaluate("theme => document.documentElement.dataset.theme = theme", theme)
        self.page.add_script_tag(path=AXE)
        return driver.findings(self.page)

    def too_wide(self) -> list[str]:
        """What is wider than a phone."""
        self.page.set_viewport_size({"width": 390, "height": 844})
        found: list[str] = self.page.evaluate(driver.TOO_WIDE)
        return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with driver.launched() as it:
        yield it


@contextmanager
def opened(browser: Browser, address: str, name: str) -> Iterator[Lab]:
    """A tab for a lab. At the end nothing may have failed, and no other host may have been asked."""
    with driver.tab(browser) as page:
        lab = Lab(name, page, address)
        lab.seen.watch(page)
        page.on("request", lambda request: lab.requests.append(request.url))
        yield lab
        assert (lab.seen.errors, lab.seen.failed, lab.seen.foreign) == ([], [], [])


def site_of(folder: Path, *names: str) -> Iterator[str]:
    """Serve a site with these labs; gives its address."""
    build(folder, *names)
    with served(folder) as address:
        yield f"{address}/{BELOW}"
