"""For the tests of single labs: a page with one lab in it, below the root of a host, and what was seen of it."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from urllib.parse import parse_qs, urlsplit

import browser as driver
from playwright.sync_api import Browser, Locator, Page, expect

from course_utils.pages.browser_lab import WEB_FILES
from course_utils.pages.loopback import served

BOOK = Path(__file__).resolve().parent.parent / "jupyter-book"
LABS = BOOK / "labs"
AXE = BOOK / "node_modules" / "axe-core" / "axe.min.js"
PAGE = """<!DOCTYPE html>
<html lang="en" data-theme="light"><head><meta charset="utf-8"><title>{name}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<link rel="stylesheet" href="../_static/styles/pydata-sphinx-theme.css">
<style>body {{ margin: 0; background: var(--pst-color-background); color: var(--pst-color-text-base); }}
main {{ margin: auto; padding: 1rem; max-width: 56rem; }}</style>
</head><body style="display: block"><main><h1>A lab</h1><div class="lab" data-lab="{name}"></div></main>
<script type="module">
import {{ mount }} from "../_static/labs/{name}/lab.js";
const base = new URL("../_static/labs/files/{name}/", import.meta.url).href;
await mount(document.querySelector(".lab"), {{ name: "{name}", base }});
document.documentElement.dataset.ready = "yes";
</script></body></html>"""


def maker(name: str) -> ModuleType:
    """The script that makes a lab's files."""
    spec = importlib.util.spec_from_file_location(f"lab_files_{name}", LABS / "models" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Site:
    """A folder with one lab, its files and the runtime in it, and its address."""

    name: str
    files: Path
    address: str


@contextmanager
def site_of(name: str, root: Path) -> Iterator[Site]:
    """Make the site in `root` and serve it."""
    import pydata_sphinx_theme

    book = root / "below" / "the" / "root"
    labs = book / "_static" / "labs"
    for folder in (name, "kit"):
        shutil.copytree(LABS / folder, labs / folder, ignore=shutil.ignore_patterns("*.test.mjs", "vendor"))
    subprocess.run([sys.executable, str(LABS / "vendor.py"), str(labs / "kit" / "vendor")], check=True, timeout=60)
    (labs / "ort").mkdir()
    for file in WEB_FILES:
        shutil.copy(BOOK / "node_modules" / "onnxruntime-web" / "dist" / file, labs / "ort")
    files = labs / "files" / name
    files.mkdir(parents=True)
    maker(name).make(files)
    styles = Path(pydata_sphinx_theme.__file__).parent / "theme" / "pydata_sphinx_theme" / "static" / "styles"
    shutil.copytree(styles, book / "_static" / "styles", ignore=shutil.ignore_patterns("*.map"))
    (book / "notebooks").mkdir()
    (book / "notebooks" / "lab.html").write_text(PAGE.format(name=name), encoding="utf-8")
    with served(root) as address:
        yield Site(name, files, f"{address}/below/the/root")


@dataclass
class Lab:
    """The page with the lab in a browser."""

    page: Page
    site: Site
    seen: driver.Seen

    def open(self, **state: object) -> None:
        """Load the page anew, with a state in its address."""
        query = "&".join(f"{key}={value}" for key, value in state.items())
        self.page.goto("about:blank")
        self.page.goto(f"{self.site.address}/notebooks/lab.html" + (f"#{self.site.name}?{query}" if state else ""))
        expect(self.page.locator("html[data-ready=yes]")).to_be_attached()
        self.page.wait_for_load_state("networkidle")  # what is still on its way would fail with the next page

    @property
    def state(self) -> dict[str, str]:
        """What stands in the address."""
        name, _, query = urlsplit(self.page.url).fragment.partition("?")
        assert name in {"", self.site.name}
        return {key: values[0] for key, values in parse_qs(query, keep_blank_values=True).items()}

    @property
    def said(self) -> Locator:
        return self.page.get_by_role("status").first


@contextmanager
def lab_page(browser: Browser, site: Site) -> Iterator[Lab]:
    """The lab in a tab of its own; at the end, nothing may have failed and no other host been asked."""
    with driver.tab(browser) as page:
        seen = driver.Seen()
        seen.watch(page)
        lab = Lab(page, site, seen)
        lab.open()
        yield lab
        assert (seen.errors, seen.failed, seen.foreign) == ([], [], [])


def looks_right(lab: Lab) -> None:
    """No serious finding of axe in light and in dark; nothing is wider than a phone; it prints."""
    lab.page.add_script_tag(path=AXE)
    for theme in ("light", "dark"):
        lab.page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
        assert driver.findings(lab.page) == [], theme
    lab.page.evaluate("document.documentElement.dataset.theme = 'light'")
    driver.fits_phone_and_paper(lab.page, "light")
