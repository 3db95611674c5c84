"""The lab of chapter 04, in a browser: who refuses, who is right, who lies; the numbers are those of Python."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from lab_files import maker

pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[test]'")
from labs import Lab, Site, fixtures, looks_right
from playwright.sync_api import expect

NAME = "batch_and_size"
RIGHT, WRONG, REFUSED = "right", "wrong", "refused"

site, browser, lab = fixtures("batch_and_size")


@pytest.fixture(scope="module")
def files(site: Site) -> Path:
    """The folder of the lab's models."""
    return site.files


def told(lab: Lab, **verdicts: str) -> None:
    """Wait until the cards of these files say so."""
    for name, verdict in verdicts.items():
        expect(lab.page.locator(f"[data-file={name}]")).to_have_attribute("data-verdict", verdict)


def pick(lab: Lab, group: str, size: int) -> None:
    lab.page.get_by_role("group", name=group).get_by_role("radio", name=str(size), exact=True).check(force=True)


def test_nothing_runs_before_it_is_asked_for(lab: Lab) -> None:
    loaded = lab.page.evaluate("performance.getEntriesByType('resource').map(entry => entry.name)")
    assert not [name for name in loaded if name.endswith((".onnx", ".wasm.gz"))]
    lab.page.get_by_role("button", name="Run the four files").click()
    told(lab, frozen=RIGHT, wish=RIGHT, guess=RIGHT, promise=RIGHT)


@pytest.mark.parametrize(
    ("sizes", "verdicts"),
    [
        ({"batch": 4, "height": 28, "width": 28}, {"frozen": REFUSED, "wish": RIGHT, "guess": RIGHT, "promise": RIGHT}),
        ({"batch": 1, "height": 28, "width": 14}, {"frozen": REFUSED, "wish": RIGHT, "guess": RIGHT, "promise": RIGHT}),
        (
            {"batch": 2, "height": 29, "width": 42},
            {"frozen": REFUSED, "wish": REFUSED, "guess": WRONG, "promise": RIGHT},
        ),
        (
            {"batch": 1, "height": 27, "width": 28},
            {"frozen": REFUSED, "wish": REFUSED, "guess": REFUSED, "promise": RIGHT},
        ),
    ],
)
def test_a_shared_address_runs_at_once(lab: Lab, sizes: dict[str, int], verdicts: dict[str, str]) -> None:
    lab.open(**sizes)
    told(lab, **verdicts)
    expect(lab.said).to_contain_text(f"Input [{sizes['batch']}, {sizes['height']}, {sizes['width']}]")


def test_the_errors_are_those_of_the_runtime(lab: Lab) -> None:
    lab.open(batch=4, height=27, width=28)
    told(lab, promise=RIGHT)
    frozen = lab.page.locator("[data-file=frozen] pre")
    expect(frozen).to_contain_text("Got invalid dimensions for input: picture")
    expect(frozen).to_contain_text("index: 0 Got: 4 Expected: 1")
    expect(frozen).to_contain_text("index: 1 Got: 27 Expected: 28")
    expect(lab.page.locator("[data-file=guess] pre")).to_contain_text("Gather node")


def test_the_guess_never_read_the_rows_below_the_example(lab: Lab) -> None:
    lab.open(batch=1, height=42, width=28)
    told(lab, guess=WRONG)
    expect(lab.page.locator("[data-file=guess]")).to_contain_text("These are the numbers of the first 28 rows")


def test_the_recorded_answers_and_verdicts_are_pythons(files: Path) -> None:
    """The four files in Python's runtime, for each size: the same verdicts as in the page, beside the same numbers."""
    making = maker("batch_and_size")
    facts = json.loads((files / f"{NAME}.json").read_text(encoding="utf-8"))
    stored = np.array(facts["pictures"], np.uint8).reshape(-1, 28, 28)
    quiet = ort.SessionOptions()
    quiet.log_severity_level = 4
    sessions = {
        name: ort.InferenceSession(files / f"{name}.onnx", quiet, providers=["CPUExecutionProvider"])
        for name in making.FILES
    }
    for height in making.HEIGHTS:
        for width in making.WIDTHS:
            feed = {"picture": making.resized(stored, height, width)}
            wanted = np.array(facts["torch"][f"{height}×{width}"])
            (free,) = sessions["promise"].run(None, feed)
            np.testing.assert_allclose(free, wanted, atol=1e-4)
            if height < 28:
                with pytest.raises(Exception, match="Gather"):
                    sessions["guess"].run(None, feed)
            else:
                (guessed,) = sessions["guess"].run(None, feed)
                assert (np.abs(guessed - wanted).max() < 1e-4) == (height == 28), (height, width)
    assert facts["shapes"]["wish"] == "['batch', 28, 'width']"
    assert "28" not in facts["shapes"]["guess"]


def test_the_page_feeds_the_pictures_that_python_fed(lab: Lab, files: Path) -> None:
    facts = json.loads((files / f"{NAME}.json").read_text(encoding="utf-8"))
    making = maker("batch_and_size")
    seen = lab.page.evaluate(
        """async pictures => {
          const { resized } = await import(new URL("../_static/labs/batch_and_size/compare.js", location.href));
          return Array.from(resized(pictures, 29, 42));
        }""",
        facts["pictures"],
    )
    stored = np.array(facts["pictures"], np.uint8).reshape(-1, 28, 28)
    np.testing.assert_array_equal(np.array(seen, np.float32), making.resized(stored, 29, 42).ravel())


def test_choices_run_and_stand_in_the_address(lab: Lab) -> None:
    pick(lab, "Height", 29)
    told(lab, frozen=REFUSED, wish=REFUSED, guess=WRONG, promise=RIGHT)
    assert lab.state == {"batch": "1", "height": "29", "width": "28"}
    pick(lab, "Pictures at once", 3)
    expect(lab.page.locator("canvas")).to_have_count(3)
    assert lab.state["batch"] == "3"
    lab.page.get_by_role("radio", name="29").press("ArrowLeft")
    told(lab, frozen=REFUSED, wish=RIGHT, guess=RIGHT, promise=RIGHT)
    assert lab.state["height"] == "28"


def test_a_link_to_another_state_is_followed(lab: Lab) -> None:
    lab.page.evaluate("location.hash = '#batch_and_size?batch=2&height=42'")
    told(lab, frozen=REFUSED, wish=REFUSED, guess=WRONG, promise=RIGHT)
    expect(lab.page.locator("canvas")).to_have_count(2)
    expect(lab.page.get_by_role("group", name="Height").get_by_role("radio", name="42")).to_be_checked()


def test_nonsense_in_the_address_is_left_out(lab: Lab) -> None:
    lab.open(batch=1000000, height="x", width=28)
    told(lab, frozen=RIGHT, promise=RIGHT)
    expect(lab.said).to_contain_text("Input [1, 28, 28]")


def test_how_it_looks(lab: Lab) -> None:
    lab.open(batch=4, height=42, width=42)
    told(lab, frozen=REFUSED, wish=REFUSED, guess=WRONG, promise=RIGHT)
    looks_right(lab)
