"""Draw the card that other sites show for a page of the book: `python jupyter-book/card.py` writes `assets/card.png`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

BOOK = Path(__file__).resolve().parent
FONTS = BOOK / "node_modules" / "@fontsource-variable"
PAGE = """<!DOCTYPE html><style>
@font-face {{ font-family: Heading; src: url("{fonts}/source-serif-4/files/source-serif-4-latin-wght-normal.woff2"); font-weight: 200 900; }}
@font-face {{ font-family: Text; src: url("{fonts}/source-sans-3/files/source-sans-3-latin-wght-normal.woff2"); font-weight: 200 900; }}
body {{ box-sizing: border-box; width: 1200px; height: 630px; margin: 0; padding: 56px 72px; background: #fffdf9; color: #23211d;
  border-top: 14px solid #b58a3c; font: 400 34px/1.35 Text; }}
h1 {{ margin: 0 0 12px; font: 600 76px/1.1 Heading; }}
p {{ margin: 0; max-width: 1000px; color: #5f594d; }}
img {{ position: absolute; left: 72px; bottom: 32px; width: 1056px; height: 360px; object-fit: contain; }}
</style><h1>The ONNX Scroll</h1><p>A course on ONNX and ONNX Runtime in which every statement is run.</p>
<img src="{picture}">"""


def main() -> None:
    browser_path = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if not browser_path:
        sys.exit("No Chromium or Chrome was found: install one, then run this again.")
    page_file = BOOK / "_build" / "card.html"
    page_file.parent.mkdir(exist_ok=True)
    page_file.write_text(
        PAGE.format(fonts=FONTS.as_uri(), picture=(BOOK / "images" / "onnx-scroll.svg").as_uri()), encoding="utf-8"
    )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 630})
        page.goto(page_file.as_uri(), wait_until="networkidle")
        page.screenshot(path=BOOK / "assets" / "card.png")
        browser.close()


if __name__ == "__main__":
    main()
