"""For the tests of the labs: a small site with nothing but labs, below the root of its host, and one of them opened in a browser."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import browser as driver
import pytest
from checkout import ROOT
from lab_files import site_labs
from markdown_it import MarkdownIt
from playwright.sync_api import Browser, Locator, Page, expect

from course_utils.pages.browser_lab import npm_package
from course_utils.pages.loopback import served

BOOK = ROOT / "jupyter-book"
AXE = BOOK / "node_modules" / "axe-core" / "axe.min.js"
BELOW = "below/the/root"
MOST, MOST_WEBGPU = 5_000_000, 12_000_000  # bytes that a lab loads: with the smallest build of the runtime, with both

PAGE = """<!DOCTYPE html>
<html lang="en" data-theme="{theme}"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<link rel="stylesheet" href="../_static/styles/pydata-sphinx-theme.css">
<style>body {{ margin: 0; background: var(--pst-color-background); color: var(--pst-color-text-base); }}
main {{ max-width: 60rem; margin: 0 auto; padding: 1rem; }}</style>
</head><body style="display: block"><main><h1>{title}</h1>
{place}
</main></body></html>"""


def build(root: Path, *names: str) -> Path:
    """Write a site with a page for each of these labs and each theme, such as `notebooks/classify-dark.html`; return its folder."""
    import pydata_sphinx_theme

    if npm_package("protobufjs") is None:
        driver.give_up("The packages for the browser are not installed: make book installs them.")
    site = root / BELOW
    site_labs.write(site / "_static", BOOK / "_build" / "labs")
    styles = Path(pydata_sphinx_theme.__file__).parent / "theme" / "pydata_sphinx_theme" / "static" / "styles"
    shutil.copytree(styles, site / "_static" / "styles")
    (site / "notebooks").mkdir()
    for lab in site_labs.labs():
        if lab.name in names:
            place = MarkdownIt("commonmark", {"html": True}).render(lab.place("../_static"))
            for theme in ("light", "dark"):
                page = PAGE.format(theme=theme, title=lab.title, place=place)
                (site / "notebooks" / f"{lab.name}-{theme}.html").write_text(page, encoding="utf-8")
    gallery = MarkdownIt("commonmark", {"html": True}).render(site_labs.gallery().removeprefix("# Labs\n"))
    page = PAGE.format(theme="light", title="Labs", place=gallery).replace('"../_static', '"_static')
    (site / "labs.html").write_text(page, encoding="utf-8")
    return site


@dataclass
class Site:
    """A folder with one lab, its files and the runtime in it, and its address."""

    name: str
    folder: Path
    address: str

    @property
    def files(self) -> Path:
        """What the lab's script has made."""
        return self.folder / "_static" / "labs" / "files" / self.name


@contextmanager
def site_of(name: str, root: Path) -> Iterator[Site]:
    """Make a site with one lab in `root` and serve it."""
    site = build(root, name)
    with served(root) as address:
        yield Site(name, site, f"{address}/{BELOW}")


@dataclass
class Lab:
    """The page with the lab in a browser, and what was seen of it."""

    page: Page
    site: Site
    seen: driver.Seen = field(default_factory=driver.Seen)
    requests: list[str] = field(default_factory=list)

    def open(self, *, theme: str = "light", **state: object) -> None:
        """Load the page anew, with a state in its address, and wait until the lab is there."""
        query = "&".join(f"{key}={value}" for key, value in state.items())
        self.page.goto("about:blank")
        address = f"{self.site.address}/notebooks/{self.site.name}-{theme}.html"
        self.page.goto(address + (f"#{self.site.name}?{query}" if state else ""))
        expect(self.page.locator(".lab")).to_have_attribute("data-ready", "yes", timeout=driver.PATIENCE)
        self.page.wait_for_load_state("networkidle")  # what is still on its way would fail with the next page

    @property
    def state(self) -> dict[str, str]:
        """What stands in the address."""
        name, _, query = urlsplit(self.page.url).fragment.partition("?")
        assert name in {"", self.site.name}
        return {key: values[0] for key, values in parse_qs(query, keep_blank_values=True).items()}

    @property
    def loaded(self) -> dict[str, int]:
        """What it has loaded of its own, of the labs' kit and of the runtime, in bytes as a server sends them, compressed."""
        paths = {urlsplit(url).path.partition(f"{BELOW}/")[2] for url in self.requests}
        name = self.site.name
        own = tuple(f"_static/{place}/" for place in (f"labs/{name}", f"labs/files/{name}", "labs/kit", "ort"))
        ours = sorted(path for path in paths if path.startswith(own))
        return {path: _sent(file) for path in ours if (file := self.site.folder / path).exists()}

    @property
    def said(self) -> Locator:
        return self.page.get_by_role("status").first


@cache
def _sent(file: Path) -> int:
    return len(file.read_bytes() if file.suffix == ".gz" else gzip.compress(file.read_bytes()))


AnyLab = TypeVar("AnyLab", bound=Lab)


@contextmanager
def lab_page(browser: Browser, site: Site, kind: type[AnyLab] = Lab) -> Iterator[AnyLab]:
    """The lab in a tab of its own; at the end, nothing may have failed and no other host been asked."""
    with driver.tab(browser) as page:
        lab = kind(page, site)
        lab.seen.watch(page)
        page.on("request", lambda request: lab.requests.append(request.url))
        lab.open()
        yield lab
        assert (lab.seen.errors, lab.seen.failed, lab.seen.foreign) == ([], [], [])
        sizes = lab.loaded
        assert sum(sizes.values()) < (MOST_WEBGPU if any("webgpu" in path for path in sizes) else MOST), sizes


def fixtures(name: str, kind: type[Lab] = Lab, *flags: str, more: Callable[[Site], object] = lambda _: None) -> Any:
    """Three fixtures for the tests of a lab: `site, browser, lab = fixtures("classify")`.

    flags: of the browser. more: what is put into the site before it is used.
    """

    @pytest.fixture(scope="module")
    def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
        with site_of(name, tmp_path_factory.mktemp("site")) as it:
            more(it)
            yield it

    @pytest.fixture(scope="module")
    def browser() -> Iterator[Browser]:
        with driver.launched(*flags) as it:
            yield it

    @pytest.fixture
    def lab(browser: Browser, site: Site) -> Iterator[Lab]:
        with lab_page(browser, site, kind) as it:
            yield it

    return site, browser, lab


def looks_right(lab: Lab) -> None:
    """No serious finding of axe in light and in dark; nothing is wider than a phone; it prints."""
    lab.page.add_script_tag(path=AXE)
    for theme in ("light", "dark"):
        lab.page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
        assert driver.findings(lab.page) == [], theme
    lab.page.evaluate("document.documentElement.dataset.theme = 'light'")
    driver.fits_phone_and_paper(lab.page, "light")
