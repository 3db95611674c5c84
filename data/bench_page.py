"""How long a reader of the book waits for a model that runs in the page: for `make bench`."""

from __future__ import annotations

import time
from pathlib import Path

from course_utils.pages.browser_lab import FLAGS, browser, missing
from course_utils.pages.loopback import served

ROUNDS = 3


def measure_live_page(site: Path) -> float | None:
    """Seconds from the click that opens lesson 08's page to its first answer: the longest of three fresh browsers.

    None, after one sentence, where the book or the browser is missing. The site is served on this machine.
    """
    lesson = site / "notebooks" / "08_deployment.html"
    if not lesson.exists():
        print("  the book is not built here: make book")
        return None
    if lacking := missing():
        print(f"  this is missing here: {', '.join(lacking)}")
        return None
    from playwright.sync_api import sync_playwright

    times = []
    with served(site) as address, sync_playwright() as playwright:
        for _ in range(ROUNDS):
            chromium = playwright.chromium.launch(executable_path=browser(), args=FLAGS)
            page = chromium.new_page()
            page.goto(f"{address}/{lesson.relative_to(site).as_posix()}", wait_until="load")
            live = page.locator("details.live-page").first
            live.scroll_into_view_if_needed()
            began = time.perf_counter()
            live.locator("summary").click()
            live.locator("iframe").content_frame.locator("meter").first.wait_for()
            times.append(time.perf_counter() - began)
            chromium.close()
    return max(times)
