"""The lab of chapter 07, in a browser: levels, errors and answers are those of NumPy and of ONNX Runtime in Python."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import onnx
import pytest
from lab_files import site_labs
from onnx import numpy_helper

import course_utils as cu
from course_utils.running import run, session_for

pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[test]'")
from labs import Lab, Site, fixtures, looks_right
from playwright.sync_api import expect

NAME = "quantize"
# bits, scale, both ends in per cent → right ones of 200, as labs.yml tells them
TOLD = {
    ("8", "tensor", "100"): 189,
    ("8", "channel", "100"): 189,
    ("4", "tensor", "100"): 184,
    ("4", "channel", "100"): 189,
    ("2", "tensor", "100"): 15,
    ("2", "channel", "100"): 147,
    ("8", "tensor", "60"): 141,
}
site, browser, lab = fixtures(NAME)


@pytest.fixture(scope="module")
def model(site: Site) -> onnx.ModelProto:
    return onnx.load(site.files / "float.onnx")


@pytest.fixture(scope="module")
def facts(site: Site) -> dict[str, Any]:
    return json.loads((site.files / "quantize.json").read_text(encoding="utf-8"))


def levels(values: np.ndarray, bits: str, per: str, end: str) -> tuple[np.ndarray, np.ndarray, int]:
    """The weights that the levels stand for, the scales, and how many are clipped; all in float32."""
    axes = tuple(range(1, values.ndim)) if per == "channel" else None
    share = np.float32(int(end) / 100)
    low = np.minimum(values.min(axis=axes, keepdims=True), 0) * share
    high = np.maximum(values.max(axis=axes, keepdims=True), 0) * share
    most = np.float32(2 ** int(bits) - 1)
    scale = (high - low) / most
    zero = np.rint(-low / scale)
    wished = np.rint(values / scale) + zero
    kept = wished.clip(0, most)
    return ((kept - zero) * scale).astype(np.float32), scale, int((kept != wished).sum())


def right_ones(model: onnx.ModelProto, facts: dict[str, Any], rule: tuple[str, str, str]) -> int:
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for tensor in made.graph.initializer:
        if tensor.name in facts["weights"]:
            tensor.CopyFrom(numpy_helper.from_array(levels(numpy_helper.to_array(tensor), *rule)[0], tensor.name))
    pixels, labels = (part[:200] for part in cu.fashion_mnist("test"))
    return int((run(session_for(made), {"pixels": pixels})["label"] == labels).sum())


def open_with(lab: Lab, bits: str, per: str, end: str, **more: str) -> None:
    lab.open(bits=bits, per=per, low=end, high=end, **more)


def test_nothing_large_is_loaded_before_it_is_asked_for(lab: Lab, facts: dict[str, Any]) -> None:
    assert not [url for url in lab.requests if url.endswith((".onnx", ".bin", ".wasm.gz"))]
    lab.page.get_by_role("button", name="Ask 200 pictures").click()
    expect(lab.said).to_contain_text(f"189 of 200 pictures are named right; with float weights {facts['right']}.")
    assert len(facts["weights"]) == 15


@pytest.mark.parametrize("rule", TOLD)
def test_the_network_knows_what_python_says(rule, lab, model, facts):
    """Kernels of the page add in another order: a picture between two classes may fall to the other side."""
    open_with(lab, *rule)
    expect(lab.said).to_contain_text("pictures are named right")
    found = int(lab.said.inner_text().partition(" ")[0])
    assert right_ones(model, facts, rule) == TOLD[rule]
    assert abs(found - TOLD[rule]) <= 1


@pytest.mark.parametrize("rule", [("8", "tensor", "100"), ("3", "tensor", "50"), ("4", "channel", "70")])
def test_errors_and_clipped_weights_are_numpys(
    rule: tuple[str, str, str], lab: Lab, model: onnx.ModelProto, facts: dict[str, Any]
) -> None:
    open_with(lab, *rule, weight="3")
    expect(lab.said).to_contain_text("pictures are named right")
    (tensor,) = [one for one in model.graph.initializer if one.name == facts["weights"][3]]
    values = numpy_helper.to_array(tensor)
    wanted, scale, clipped = levels(values, *rule)
    rows = dict(
        lab.page.locator(".quantize-shown tbody tr").evaluate_all(
            "all => all.map(one => [one.cells[0].textContent, one.cells[1].textContent])"
        )
    )
    off = np.abs(wanted.astype(np.float64) - values)
    assert float(rows["mean squared error"].replace("\u2011", "-")) == pytest.approx((off**2).mean(), rel=6e-3)
    assert float(rows["largest error"]) == pytest.approx(off.max(), rel=6e-3)
    assert rows["clipped weights"].replace("\u202f", "") == f"{clipped} of {values.size}"
    if rule[1] == "tensor":
        assert float(rows["scale"]) == pytest.approx(float(scale.squeeze()), rel=1e-3)


def test_the_words_tell_these_numbers() -> None:
    words = next(one.alternative for one in site_labs.labs() if one.name == NAME)
    assert set(map(str, TOLD.values())) <= set(re.findall(r"\d+", words))


def test_what_is_chosen_stands_in_the_address_and_changes_the_picture(lab: Lab) -> None:
    open_with(lab, "8", "tensor", "100")
    expect(lab.said).to_contain_text("pictures are named right")
    picture = lab.page.locator(".quantize-picture")
    before = picture.get_attribute("aria-label")
    lab.page.get_by_label("Lower end of the range").press("ArrowLeft")
    lab.page.get_by_role("radio", name="2", exact=True).check(force=True)
    lab.page.get_by_label("Weights", exact=True).select_option(label="stem.0")
    expect(lab.said).to_have_text("Ask the 200 pictures again: the levels have changed.")
    assert lab.state == {"weight": "0", "bits": "2", "per": "tensor", "low": "95", "high": "100"}
    assert picture.get_attribute("aria-label") != before


def test_the_last_six_answers_stay(lab: Lab) -> None:
    rows = lab.page.locator(".quantize-answers tbody tr")
    open_with(lab, "2", "tensor", "100")
    for bits in ("2", "8", "4", "3", "2"):
        for per in ("one per channel", "one per tensor") if bits == "4" else ("one per channel",):
            lab.page.get_by_role("radio", name=bits, exact=True).check(force=True)
            lab.page.get_by_role("radio", name=per).check(force=True)
            lab.page.get_by_role("button", name="Ask 200 pictures").click()
            expect(lab.said).to_contain_text("pictures are named right")
    found = rows.evaluate_all("all => all.map(one => [...one.cells].map(cell => cell.textContent).slice(0, -1).join())")
    told = [("2", "tensor"), ("8", "channel"), ("4", "channel"), ("4", "tensor"), ("3", "channel"), ("2", "channel")]
    assert found == [f"{bits},one per {per},100 %,100 %" for bits, per in told], "what is asked again moves to the end"
    assert abs(int(rows.last.locator("td").last.inner_text()) - TOLD["2", "channel", "100"]) <= 1
    lab.page.get_by_label("Lower end of the range").press("ArrowLeft")
    lab.page.get_by_role("button", name="Ask 200 pictures").click()
    expect(rows.last).to_contain_text("95 %")
    expect(rows).to_have_count(6)


def test_nonsense_in_the_address_is_left_out(lab: Lab) -> None:
    lab.open(bits="99", per="toString", low="-3", high="abc", weight="77")
    expect(lab.said).to_contain_text("189 of 200 pictures are named right")


def test_a_file_that_is_gone_is_a_sentence(lab: Lab) -> None:
    lab.page.route("**/float.onnx", lambda route: route.fulfill(status=404))
    lab.page.get_by_role("button", name="Ask 200 pictures").click()
    expect(lab.said).to_have_text("float.onnx could not be loaded (404): load the page again.")
    lab.seen.failed.clear()
    lab.seen.errors.clear()


def test_how_it_looks(lab: Lab) -> None:
    open_with(lab, "4", "tensor", "80")
    expect(lab.said).to_contain_text("pictures are named right")
    looks_right(lab)
