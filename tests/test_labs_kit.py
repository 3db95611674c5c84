"""What all labs share, in a browser: the page of all of them, addresses, paper, fingers, and the runtime."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

import numpy as np
import pytest

pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[test]'")
import browser as driver
from labs import Lab, Site, fixtures, site_labs
from playwright.sync_api import Browser, Page, expect

from course_utils.pages.webgpu_lab import SOFTWARE_ADAPTER

ASK = """async ([provider, pixels]) => {
  const { open, tensor, place } = await import('/below/the/root/_static/labs/kit/runtime.js');
  const session = await open('/below/the/root/_static/labs/files/classify/float.onnx', { provider, threads: 3 });
  const { probability } = await session.run({ pixels: await tensor('uint8', Uint8Array.from(pixels), [pixels.length / 784, 28, 28]) });
  return { probability: Array.from(probability.data), place: place(session), inputs: session.inputs, outputs: session.outputs };
}"""
site, browser, lab = fixtures("classify", Lab, *SOFTWARE_ADAPTER)


def ready(page: Page, name: str) -> None:
    root = page.locator(f".lab[data-lab={name}]")
    root.scroll_into_view_if_needed()
    expect(root).to_have_attribute("data-ready", "yes")


def fragment(page: Page) -> str:
    return urlsplit(page.url).fragment


def test_all_labs_live_on_the_page_of_all_labs(lab: Lab) -> None:
    lab.page.goto(f"{lab.site.address}/labs.html")
    for entry in site_labs.labs():
        ready(lab.page, entry.name)
    ids = lab.page.evaluate("[...document.querySelectorAll('[id]')].map(one => one.id)")
    assert len(ids) == len(set(ids))


def test_labs_leave_each_others_state(lab: Lab) -> None:
    lab.page.goto(f"{lab.site.address}/labs.html#classify?picture=3")
    ready(lab.page, "classify")
    ready(lab.page, "fusion")
    lab.page.get_by_role("radio", name="extended").check(force=True)
    assert fragment(lab.page).startswith("classify?picture=3;fusion?level=extended")
    lab.page.wait_for_load_state("networkidle")
    lab.page.reload()
    ready(lab.page, "fusion")
    ready(lab.page, "classify")
    expect(lab.page.get_by_role("radio", name="extended")).to_be_checked()
    expect(lab.page.locator(".classify-sample[aria-pressed=true]")).to_have_attribute("aria-label", "Picture 4 of 12")


def test_an_address_leads_to_its_lab_and_a_changed_one_is_taken_anew(lab: Lab) -> None:
    lab.page.goto(f"{lab.site.address}/labs.html#doctor?example=healthy")
    expect(lab.page.locator(".lab[data-lab=doctor]")).to_be_in_viewport()
    told = lab.page.locator(".lab[data-lab=doctor]").get_by_role("status").first
    expect(told).to_contain_text("healthy.onnx: ")
    lab.page.wait_for_load_state("networkidle")
    lab.page.evaluate("location.hash = '#doctor?example=half'")
    expect(told).to_contain_text("half.onnx: ")


def test_on_paper_a_lab_is_told_in_words(lab: Lab) -> None:
    words = lab.page.get_by_text("The lab shows a picture of 28 × 28 pixels")
    expect(words).to_be_hidden()
    lab.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    lab.page.emulate_media(media="print")
    expect(words).to_be_visible()
    expect(lab.page.locator(".lab-body")).to_be_hidden()
    lab.page.evaluate("dispatchEvent(new Event('afterprint'))")
    expect(words).to_be_hidden()


def test_a_finger_draws(browser: Browser, site: Site) -> None:
    """As the browser of a phone sends it; the page must not scroll meanwhile."""
    with driver.tab(browser, has_touch=True, is_mobile=True) as page:
        page.set_viewport_size({"width": 390, "height": 844})
        page.goto(f"{site.address}/notebooks/classify-light.html")
        ready(page, "classify")
        page.get_by_role("button", name="Draw your own").tap()
        canvas = page.locator(".classify-canvas")
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        assert box
        before = page.evaluate("scrollY")
        touch = page.context.new_cdp_session(page)
        at = [{"x": box["x"] + box["width"] / 2, "y": box["y"] + share * box["height"]} for share in (0.2, 0.5, 0.8)]
        touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": at[:1]})
        for point in at[1:]:
            touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        expect(page.get_by_role("status").first).to_contain_text("WebAssembly")
        lit = canvas.evaluate(
            "c => c.getContext('2d').getImageData(0, 0, 28, 28).data.filter((v, i) => i % 4 === 0 && v).length"
        )
        assert lit > 28, "a line two pixels wide, of more than half the height"
        assert page.evaluate("scrollY") == before


def test_only_the_small_build_is_loaded(lab: Lab) -> None:
    lab.open(picture=3)
    expect(lab.said).to_contain_text("WebAssembly")
    assert any(path.endswith(".wasm.gz") for path in lab.loaded)
    assert not [path for path in lab.loaded if "webgpu" in path or "asyncify" in path]


@pytest.mark.parametrize("provider", ["wasm", "webgpu"])
def test_a_model_tells_where_it_runs(provider: str, browser: Browser, site: Site) -> None:
    facts = json.loads((site.files / "classify.json").read_text(encoding="utf-8"))
    pixels = np.array(facts["pictures"][:4], np.uint8)
    with driver.tab(browser) as page:
        page.goto(f"{site.address}/notebooks/classify-light.html")
        adapter = page.evaluate("async () => Boolean(await navigator.gpu?.requestAdapter())")
        if provider == "webgpu" and not adapter:
            pytest.skip("This browser has no software adapter for WebGPU.")
        found = page.evaluate(ASK, [provider, pixels.ravel().tolist()])
    assert found["place"] == {"wasm": "WebAssembly, one thread", "webgpu": "WebGPU"}[provider]
    assert (found["inputs"], found["outputs"]) == (["pixels"], ["label", "probability"])
    there = np.reshape(found["probability"], (4, 10))
    np.testing.assert_allclose(there, facts["answers"]["float"][:4], atol=1e-4)
