"""What the tests of the built book share: which pages there are, and what stands in their files."""

from __future__ import annotations

import functools
import re
import sys
import tempfile
from pathlib import Path

from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "jupyter-book" / "_build" / "html"
AXE = ROOT / "jupyter-book" / "node_modules" / "axe-core" / "axe.min.js"
# `netron/` is another program's page, `_static/` holds templates of the theme, `pages/` what lessons built: see below.
PAGES = sorted(
    page.relative_to(SITE).as_posix()
    for page in SITE.rglob("*.html")
    if page.relative_to(SITE).parts[0] not in {"netron", "_static", "pages", "404.html"}
)
LESSONS = [page for page in PAGES if re.fullmatch(r"notebooks/(deeper/)?\d\d_\w+\.html", page)]


@functools.cache
def pages_with(text: str) -> list[str]:
    """The pages in whose file this stands. To parse all of them, in each process of pytest, takes far longer."""
    return [page for page in PAGES if text in (SITE / page).read_text(encoding="utf-8")]


@functools.cache
def soup(page: str) -> BeautifulSoup:
    return BeautifulSoup((SITE / page).read_text(encoding="utf-8"), "html.parser")


def paths_of_this_machine(data: bytes) -> list[str]:
    paths = {str(ROOT), str(Path.home()) + "/", sys.prefix, tempfile.gettempdir() + "/"} - {"//"}
    return [path for path in paths if path.encode() in data]
