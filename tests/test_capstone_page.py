"""The page of the capstone: what it refuses, and what it does in a real browser."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from answers import params
from checkout import ROOT
from quest_models import built, page

import course_utils as cu
from course_utils.exercises.ch10 import camera
from course_utils.pages import capstone_page
from course_utils.pages.loopback import served

AXE = ROOT / "jupyter-book" / "node_modules" / "axe-core" / "axe.min.js"
NAMES = [f"class {i} <i>" for i in range(10)]  # text, whatever it looks like


@functools.cache
def photographs() -> np.ndarray:
    return camera.photographs(params("10.6", "dora"), "test", 6, np.random.default_rng(3))[0]


# What it refuses, before any browser


@pytest.mark.parametrize(
    ("photos", "names", "sentence"),
    [
        (np.zeros((2, 28, 28), np.float32), NAMES, r"uint8 \[n, 28, 28\], these are float32 \[2, 28, 28\]"),
        (np.zeros((28, 28), np.uint8), NAMES, r"these are uint8 \[28, 28\]"),
        (np.zeros((0, 28, 28), np.uint8), NAMES, r"these are uint8 \[0, 28, 28\]"),
        (np.zeros((1, 28, 28), np.uint8), ["shoe"], "10 names, one for each score, these are 1"),
    ],
)
def test_photographs_and_names_that_do_not_fit(photos, names, sentence, folder):
    with pytest.raises(cu.CourseError, match=sentence):
        cu.quest_page(page("dora"), photos, names)
    assert not list(folder.iterdir())


def test_model_that_takes_no_canvas(folder):
    with pytest.raises(cu.CourseError, match=r"^The page needs a model with the inputs .*rgba.* has .*pixels.*\.$"):
        cu.quest_page(built("dora"), photographs(), NAMES)
    assert not list(folder.iterdir())


def test_without_a_browser_the_page_is_written(folder, monkeypatch, capsys):
    monkeypatch.setattr(capstone_page, "missing", lambda: ["Chromium or Chrome"])
    assert cu.quest_page(page("dora"), photographs(), NAMES) is None
    assert "is written. It was not opened here, because this is missing: Chromium or Chrome." in capsys.readouterr().out
    assert {"index.html", "model.onnx", "photos.json"} <= {p.name for p in Path("work/quest_page").iterdir()}


# In a browser


@pytest.fixture
def driver() -> Any:
    pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[test]'")
    import browser

    if lacking := capstone_page.missing():
        browser.give_up(f"The page cannot be opened, because this is missing: {', '.join(lacking)}.")
    if not AXE.exists():
        browser.give_up("axe-core is not installed: run `make book` first.")
    return browser


@pytest.fixture
def written(driver: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the page, not opened yet."""
    monkeypatch.setattr(capstone_page, "missing", lambda: ["this test opens it itself"])
    cu.quest_page(page("dora"), photographs(), NAMES)
    return folder / "work" / "quest_page"


def test_it_answers_as_python_does_and_asks_nobody(driver, folder):
    seen = cu.quest_page(page("dora"), photographs(), NAMES)
    assert seen["same labels"] == seen["pictures"] == len(photographs())
    assert seen["largest difference"] < 1e-4
    assert seen["the page says"] in NAMES
    assert seen["requests while predicting"] == seen["requests to other hosts"] == []


def test_page_that_fails_says_why(driver, folder):
    model = page("dora")
    for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim, (28, 28), strict=False):
        dim.dim_value = size
    with pytest.raises(cu.CourseError, match=r"The page failed in the browser: .*(dimension|shape)"):
        cu.quest_page(model, photographs(), NAMES)


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_a_visitor(colours, driver, written):
    """The keyboard is enough, a file that is no picture gets a sentence, it fits a phone, and axe finds nothing serious."""
    seen, said = driver.Seen(), "document.querySelector('#said').value"
    (written / "notes.txt").write_text("not a picture")
    with (
        driver.launched() as chromium,
        served(written) as address,
        driver.tab(chromium, color_scheme=colours) as opened,
    ):
        seen.watch(opened)
        opened.goto(address, wait_until="load")
        opened.wait_for_function("window.ready")
        assert opened.evaluate(said) in NAMES
        opened.add_script_tag(path=AXE)
        assert driver.findings(opened) == []
        opened.context.set_offline(True)
        rows = opened.locator("tr").all_inner_texts()
        opened.evaluate("document.querySelector('table').replaceChildren()")
        opened.keyboard.press("Tab")
        opened.keyboard.press("Enter")
        opened.wait_for_function("document.querySelectorAll('tr').length === 10")
        assert opened.locator("tr").all_inner_texts() == rows, "the first button shows the first photograph"
        opened.set_input_files("input", written / "notes.txt")
        opened.wait_for_function(f"{said} === 'This file is not a picture.'")
        assert opened.locator("tr").count() == 0, "no answer of an earlier picture stays"
        opened.set_input_files("input", picture(written))
        opened.wait_for_function("document.querySelectorAll('tr').length === 10")
        for width in (390, 320):
            opened.set_viewport_size({"width": width, "height": 844})
            assert opened.evaluate(driver.TOO_WIDE) == []
        assert driver.findings(opened) == []
    assert (seen.errors, seen.failed, seen.foreign) == ([], [], [])


def picture(where: Path) -> Path:
    """A large photograph, wider than high."""
    from PIL import Image

    Image.new("RGB", (2000, 900), "white").save(where / "large.png")
    return where / "large.png"


def test_file_that_is_not_there_is_said(driver, written):
    (written / "model.onnx").unlink()
    with driver.launched() as chromium, served(written) as address, driver.tab(chromium) as opened:
        opened.goto(address, wait_until="load")
        opened.wait_for_function("document.querySelector('#said').value === 'The model could not be loaded.'")
