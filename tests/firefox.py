"""For the tests: the Firefox of this machine, driven by its own protocol, Marionette. Playwright's needs a Firefox of its own."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import browser as driver
import pytest

marionette = pytest.importorskip("marionette_driver.marionette", reason="pip install -e '.[test]'")
NAMES = ("firefox-esr", "firefox")
# What the pages of 127.0.0.1 ask for, and the errors of their scripts. Firefox's own requests have another principal.
WATCH = """
globalThis.asked = [];
Services.obs.addObserver(subject => {
  const channel = subject.QueryInterface(Ci.nsIChannel);
  if (/^http:..127/.test(channel.loadInfo?.triggeringPrincipal?.origin ?? "")) globalThis.asked.push(channel.URI.spec);
}, "http-on-opening-request");
"""
ERRORS = """
return Services.console.getMessageArray()
  .filter(it => it instanceof Ci.nsIScriptError && !(it.flags & Ci.nsIScriptError.warningFlag) && /127/.test(it.sourceName))
  .map(it => `${it.errorMessage} (${it.sourceName})`);
"""


class Firefox:
    """One window. Scripts are bodies of functions: `run("return document.title")`; `wait` runs one until it returns something."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.in_chrome(WATCH)

    def in_chrome(self, script: str) -> Any:
        """Run a script where it may see what the browser itself sees."""
        with self.inner.using_context("chrome"):
            return self.inner.execute_script(script, new_sandbox=False, sandbox="system")

    def open(self, address: str) -> None:
        self.in_chrome("Services.console.reset(); globalThis.asked = [];")
        self.inner.navigate("about:blank")  # another fragment alone would load nothing
        self.inner.navigate(address)

    def run(self, script: str, *args: Any) -> Any:
        return self.inner.execute_script(script, script_args=args, sandbox=None, new_sandbox=False)

    def promise(self, body: str, *args: Any) -> Any:
        """What the body of an async function returns."""
        script = f"const done = arguments[arguments.length - 1]; (async () => {{ {body} }})().then(done, e => done(`${{e}}`))"
        return self.inner.execute_async_script(
            script, script_args=args, sandbox=None, script_timeout=driver.PATIENCE, new_sandbox=False
        )

    def wait(self, script: str, *args: Any) -> Any:
        deadline = time.monotonic() + driver.PATIENCE / 1000
        while not (found := self.run(script, *args)):
            assert time.monotonic() < deadline, f"never true: {script}"
            time.sleep(0.1)
        return found

    def click(self, selector: str) -> None:
        """As a finger or mouse does it, in the middle of the first one."""
        self.wait("return document.querySelector(arguments[0])", selector)
        self.run("document.querySelector(arguments[0]).scrollIntoView({ block: 'center' })", selector)
        self.inner.find_element("css selector", selector).click()

    def went_wrong(self) -> list[str]:
        """Errors of scripts, and requests to other hosts, since the page was opened."""
        asked = self.in_chrome("return globalThis.asked")
        return [
            *self.in_chrome(ERRORS),
            *(url for url in asked if not url.startswith(("http://127.0.0.1", "data:", "blob:"))),
        ]


@contextmanager
def launched() -> Iterator[Firefox]:
    """The Firefox of this machine, with a fresh profile and without a window."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if not path:
        driver.give_up("No Firefox was found: install one to test the site in it.")
    logging.getLogger("mozversion").setLevel(logging.ERROR)
    log = tempfile.TemporaryDirectory()  # a folder: a file that is there already would be deleted first, /dev/null too
    inner = marionette.Marionette(bin=path, headless=True, gecko_log=log.name)
    try:
        inner.start_session()
        inner.set_window_rect(width=1280, height=900)
        yield Firefox(inner)
    finally:
        inner.delete_session()
        inner.instance.close(clean=True)
        inner.cleanup()
        log.cleanup()
