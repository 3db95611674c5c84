"""The lab "classify" in a browser: two files answer in the page as they do in Python."""

from __future__ import annotations

import gzip
import json
from typing import Any

import numpy as np
import pytest

pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[test]'")
from labs import Lab, Site, fixtures, looks_right
from playwright.sync_api import expect

import course_utils as cu
from course_utils.paths import data_path
from course_utils.running import run, session_for

ASK = """async ([file, pixels]) => {
  const { open, tensor } = await import('../_static/labs/kit/runtime.js');
  const session = await open(new URL(`../_static/labs/files/classify/${file}.onnx`, location.href).href);
  const { label, probability } = await session.run({ pixels: await tensor('uint8', Uint8Array.from(pixels), [pixels.length / 784, 28, 28]) });
  return { label: Array.from(label.data, Number), probability: Array.from(probability.data) };
}"""
# Kernels of the page round the integers of int8 otherwise than those of a processor with its own instructions for them.
MOST_INT8_APART = 0.06

site, browser, lab = fixtures("classify")


@pytest.fixture(scope="module")
def facts(site: Site) -> dict[str, Any]:
    return json.loads((site.files / "classify.json").read_text(encoding="utf-8"))


def shown(lab: Lab, title: str) -> list[float]:
    texts = lab.page.locator(f"tbody [data-series={title}]").all_text_contents()
    return [float(text.removesuffix(" %")) / 100 for text in texts]


def test_a_picture_is_chosen_and_both_files_answer(lab, site, facts):
    assert not [url for url in lab.requests if url.endswith((".wasm.gz", ".onnx"))], (
        "nobody who only reads loads megabytes"
    )
    lab.page.get_by_role("button", name="Picture 10 of 12").click()
    expect(lab.page.locator("tfoot").get_by_text(" ms")).to_have_count(2)
    sure = facts["answers"]["float"][9][9], shown(lab, "int8")[9]
    expect(lab.said).to_have_text(
        f"Both say {cu.CLASS_NAMES[9]} ({100 * sure[0]:.1f} % and {100 * sure[1]:.1f} %). WebAssembly, one thread."
    )
    apart = np.abs(np.subtract(shown(lab, "float32"), facts["answers"]["float"][9]))
    assert apart.max() < 0.0006, "one decimal of a per cent is shown"
    for title, name in {"float32": "float", "int8": "int8"}.items():
        size = f"{(site.files / f'{name}.onnx').stat().st_size:,}".replace(",", "\u202f")
        expect(lab.page.locator(f"tfoot [data-series={title}]").first).to_have_text(size)
    assert lab.state == {"picture": "9"}


def test_rounded_weights_answer_as_those_of_the_course(site):
    pixels = {"pixels": cu.fashion_mnist("test")[0][:1000]}
    ours, theirs = site.files / "float.onnx", data_path("deploy/model/model.onnx")
    mine, course = (run(session_for(file), pixels)["probability"] for file in (ours, theirs))
    assert 0 < np.abs(mine - course).max() < 1e-3
    assert len(gzip.compress(ours.read_bytes())) < 0.85 * len(gzip.compress(theirs.read_bytes()))


def test_the_page_computes_what_python_computes(lab, site, facts):
    pixels, labels = cu.fashion_mnist("test")
    found = {}
    for name, most in {"float": 1e-4, "int8": MOST_INT8_APART}.items():
        there = lab.page.evaluate(ASK, [name, pixels[:200].ravel().tolist()])
        here = run(session_for(site.files / f"{name}.onnx"), {"pixels": pixels[:200]})
        found[name] = np.reshape(there["probability"], here["probability"].shape)
        assert np.abs(found[name] - here["probability"]).max() < most
        assert (np.array(there["label"]) != here["label"]).sum() <= (0 if name == "float" else 1)
        assert (np.array(there["label"]) == labels[:200]).mean() > 0.9
    assert np.abs(found["float"] - found["int8"]).max() > 1e-3, "two different files"


def test_the_page_opens_on_a_picture_that_they_see_differently(lab, site, facts):
    different = [
        i
        for i, rows in enumerate(zip(*facts["answers"].values(), strict=True))
        if len({np.argmax(row) for row in rows}) == 2
    ]
    assert different == [10, 11]
    pressed = lab.page.locator(".classify-sample[aria-pressed=true]")
    expect(pressed).to_have_attribute("aria-label", "Picture 11 of 12")
    expect(lab.page.locator(".classify-label")).to_have_text(f"Label: {cu.CLASS_NAMES[facts['labels'][10]]}")
    found = {name: [int(np.argmax(row)) for row in rows] for name, rows in facts["answers"].items()}
    assert facts["labels"] == [*found["int8"][:10], found["float"][10], found["int8"][11]], "as labs.yml tells"
    assert [cu.CLASS_NAMES[label] for label in facts["labels"][10:]] == ["pullover", "dress"]
    lab.page.get_by_role("button", name="Ask both files").click()
    expect(lab.said).to_contain_text("float32 says")


def test_an_address_with_a_picture_shows_its_answer_at_once(lab):
    lab.open(picture=0)
    expect(lab.said).to_contain_text(cu.CLASS_NAMES[0])


@pytest.mark.parametrize("state", [{"picture": "99"}, {"drawing": "abc"}, {"picture": "x", "drawing": ""}])
def test_an_address_that_cannot_be_meant_is_as_none(lab, state):
    lab.open(**state)
    expect(lab.page.locator(".classify-sample[aria-pressed=true]")).to_have_count(1)
    expect(lab.said).to_have_text("")


def test_nothing_is_asked_about_an_empty_drawing(lab):
    lab.page.get_by_role("button", name="Draw your own").click()
    expect(lab.page.locator(".classify-label")).to_have_text("")
    lab.page.get_by_role("button", name="Ask both files").click()
    expect(lab.said).to_have_text("Draw something first.")
    lab.open(**lab.state)
    expect(lab.said).to_have_text("Draw something first.")
    assert not [url for url in lab.requests if url.endswith(".onnx")]


@pytest.mark.parametrize("way", ["mouse", "keyboard"])
def test_a_drawing_is_asked_about_and_can_be_shared(lab, way):
    lab.page.get_by_role("button", name="Draw your own").click()
    expect(lab.said).to_contain_text("Draw a garment")
    if way == "mouse":
        box = lab.page.locator(".classify-canvas").bounding_box()
        assert box
        for x in (0.35, 0.5, 0.65):
            lab.page.mouse.move(box["x"] + x * box["width"], box["y"] + 0.2 * box["height"])
            lab.page.mouse.down()
            lab.page.mouse.move(box["x"] + x * box["width"], box["y"] + 0.8 * box["height"], steps=3)
            lab.page.mouse.up()
    else:
        for key in ["Space", *["Shift+ArrowDown"] * 6, "ArrowRight", *["Shift+ArrowRight"] * 4]:
            lab.page.keyboard.press(key)
    expect(lab.said).to_contain_text("WebAssembly")
    answer = lab.said.text_content()
    assert lab.state.keys() == {"drawing"}
    lab.open(**lab.state)
    expect(lab.said).to_have_text(answer or "")


def test_it_is_accessible_and_fits_a_phone(lab):
    lab.open(picture=3)
    expect(lab.said).to_contain_text("WebAssembly")
    looks_right(lab)


def test_a_file_that_is_gone_is_a_sentence_and_the_next_click_tries_again(lab):
    lab.page.route("**/int8.onnx", lambda route: route.fulfill(status=404))
    lab.page.get_by_role("button", name="Picture 2 of 12").click()
    expect(lab.said).to_have_text("int8.onnx could not be loaded (404): load the page again.")
    lab.page.unroute("**/int8.onnx")
    lab.page.get_by_role("button", name="Picture 2 of 12").click()
    expect(lab.said).to_contain_text("Both say")
    lab.seen.failed.clear()
    lab.seen.errors.clear()


def test_without_javascript_the_words_are_there(browser, site):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site.address}/notebooks/classify-light.html")
    expect(page.get_by_text("The lab shows a picture of 28 × 28 pixels")).to_be_visible()
    context.close()
