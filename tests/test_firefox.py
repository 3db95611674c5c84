"""Labs and reading in Firefox, which has other engines for scripts, WebAssembly and layout than Chromium."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[test]'")
import firefox
import labs
from firefox import Firefox
from labs import BOOK, Site
from test_labs_kit import ASK

from course_utils.pages.loopback import served

pytestmark = pytest.mark.book

BUILT = BOOK / "_build" / "html"
READ = ["index.html", "labs.html", "claims.html", "notebooks/04_dynamic_axes.html", "notebooks/07_quantization.html"]
SAID = "return document.querySelector(`.lab[data-lab=${arguments[0]}] [role=status]`)?.textContent"


@pytest.fixture(scope="module")
def browser() -> Iterator[Firefox]:
    with firefox.launched() as it:
        yield it


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with labs.site_of("classify", tmp_path_factory.mktemp("site")) as it:
        yield it


@pytest.fixture
def lab(browser: Firefox, site: Site) -> Iterator[Firefox]:
    """The page with all labs."""
    browser.open(f"{site.address}/labs.html")
    yield browser
    assert browser.went_wrong() == []


def ready(page: Firefox, name: str) -> str:
    """Bring a lab near; returns the selector of its place."""
    root = f".lab[data-lab={name}]"
    page.run("document.querySelector(arguments[0]).scrollIntoView()", root)
    page.wait("return document.querySelector(arguments[0]).dataset.ready", root)
    return root


@pytest.mark.parametrize("name", [entry.name for entry in labs.site_labs.labs()])
def test_a_lab_starts(name: str, lab: Firefox) -> None:
    root = ready(lab, name)
    assert lab.run("return document.querySelector(arguments[0]).innerText.length", f"{root} .lab-body") > 100
    assert not lab.run("return document.querySelector(arguments[0])", f"{root} [data-state=error]")


def test_a_model_gives_the_numbers_of_python(lab: Firefox, site: Site) -> None:
    facts = json.loads((site.files / "classify.json").read_text(encoding="utf-8"))
    pixels = np.array(facts["pictures"][:4], np.uint8).ravel().tolist()
    found = lab.promise(f"return ({ASK})(arguments[0])", ["wasm", pixels])
    assert found["place"] == "WebAssembly, one thread"
    np.testing.assert_allclose(np.reshape(found["probability"], (4, 10)), facts["answers"]["float"][:4], atol=1e-4)


def test_classify_answers(lab: Firefox) -> None:
    lab.click(f"{ready(lab, 'classify')} .classify-sample:nth-of-type(3)")
    assert "WebAssembly" in lab.wait(f"{SAID}.match(/^.*WebAssembly.*$/)?.[0]", "classify")


def test_batch_and_size_tells_three_stories(lab: Firefox) -> None:
    lab.open(lab.run("return location.href") + "#batch_and_size?batch=1&height=29&width=28")
    root = ready(lab, "batch_and_size")
    verdicts = "return Object.fromEntries([...document.querySelectorAll('[data-file]')].map(it => [it.dataset.file, it.dataset.verdict]))"
    lab.wait("return document.querySelectorAll(arguments[0] + ' [data-verdict]').length === 4", root)
    assert lab.run(verdicts) == {"frozen": "refused", "wish": "refused", "guess": "wrong", "promise": "right"}


def test_the_doctor_examines_a_file(lab: Firefox) -> None:
    lab.open(lab.run("return location.href") + "#doctor?example=half")
    assert "half.onnx" in lab.wait(f"{SAID}.match(/half.onnx: .*/)?.[0]", "doctor")


@pytest.mark.parametrize("page", READ)
def test_a_page_of_the_book_is_readable(page: str, browser: Firefox) -> None:
    if not (BUILT / page).exists():
        pytest.fail("There is no book: make book")
    with served(BUILT) as address:
        browser.open(f"{address}/{page}")
        browser.wait(
            "return document.readyState === 'complete' && (!window.MathJax || !document.querySelector('article .math:not(:has(mjx-container))'))"
        )
        broken = "return [...document.images].filter(it => it.complete && !it.naturalWidth).map(it => it.src)"
        assert browser.run(broken) == []
        browser.run(Path(labs.AXE).read_text(encoding="utf-8") + "; return 0")
        assert browser.went_wrong() == []


def test_what_goes_wrong_is_seen(browser: Firefox, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(
        "<!DOCTYPE html><script>no.such</script><img src='http://other.invalid/it.png'>"
    )
    with served(tmp_path) as address:
        browser.open(f"{address}/index.html")
        wrong = browser.went_wrong()
    assert [one.partition(" (")[0] for one in wrong] == [
        "ReferenceError: no is not defined",
        "http://other.invalid/it.png",
    ]
