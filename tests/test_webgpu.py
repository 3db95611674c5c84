"""Lesson 08's page on WebGPU: with a software adapter, without one, and what it says of itself in both.

The speed of a software adapter means nothing, so nothing here measures one.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from checkout import ROOT

import course_utils as cu
from course_utils.errors import CourseError
from course_utils.pages import webgpu_lab
from course_utils.pages.loopback import served

pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[test]'")
import browser as driver
from playwright.sync_api import Page, expect

AXE = ROOT / "jupyter-book" / "node_modules" / "axe-core" / "axe.min.js"
SCREENSHOTS = ROOT / "jupyter-book" / "_build" / "screenshots"
# Another name for this machine, which is not a secure place.
OTHER_NAME = "--host-resolver-rules=MAP shop.example 127.0.0.1"
NAME = "google swiftshader, a software adapter"
FAILED = "WebAssembly: WebGPU failed, the console says why"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page as lesson 08 puts it together."""
    folder = cu.course_files("page", tmp_path_factory.mktemp("webgpu") / "page")
    if not cu.onnxruntime_web(folder, webgpu=True):
        driver.give_up("onnxruntime-web is not installed: run  make book  once.")
    shutil.copy(cu.course_files("model", folder.parent) / "model.onnx", folder)
    return folder


def from_python(page: Path, pixels: np.ndarray) -> list[Any]:
    session = ort.InferenceSession(page / "model.onnx", providers=["CPUExecutionProvider"])
    return session.run(["label", "probability"], {"pixels": pixels})


def test_with_an_adapter_it_runs_on_webgpu_says_so_and_survives_its_loss(page: Path) -> None:
    seen, asked = driver.Seen(), []
    pixels = cu.fashion_mnist("test")[0][:6]
    label, probability = from_python(page, pixels)
    with (
        driver.launched(*webgpu_lab.SOFTWARE_ADAPTER) as chromium,
        served(page) as address,
        driver.tab(chromium) as tab,
    ):
        tab.on("request", lambda request: asked.append(request.url.replace(address, "")))
        tab.goto(address)
        ran, said, card = (tab.locator(where) for where in ("#ran", "#said", "#card"))
        expect(ran).to_have_text("WebAssembly")
        assert not [url for url in asked if url.startswith("/webgpu/")], "27 MB are loaded only when they are asked for"
        # Without a network the large build cannot be loaded.
        tab.context.set_offline(True)
        card.click()
        expect(ran).to_have_text(FAILED)
        tab.context.set_offline(False)
        seen.watch(tab)
        card.click()
        expect(ran).to_have_text(f"WebGPU on {NAME}", timeout=driver.PATIENCE)
        expect(card).to_be_hidden()
        assert "/webgpu/ort-wasm-simd-threaded.asyncify.wasm" in asked
        answer = tab.evaluate("predict", pixels.ravel().tolist())
        assert answer["label"] == label.tolist()
        assert np.allclose(np.reshape(answer["probability"], (6, 10)), probability, atol=1e-5)
        # All at once, as a quick hand does it: two runs at once would freeze the page.
        tab.evaluate("[...document.querySelectorAll('#samples button')].slice(0, 5).forEach(button => button.click())")
        assert label[4] not in label[:4]
        expect(said).to_have_text(cu.CLASS_NAMES[label[4]], timeout=driver.PATIENCE)
        look_at(tab)
        # A driver that is restarted takes the device away.
        tab.evaluate("import('./webgpu/ort.webgpu.min.mjs').then(async ort => (await ort.env.webgpu.device).destroy())")
        expect(ran).to_have_text(FAILED)
        expect(card).to_be_enabled()
        tab.locator("#samples button").first.click()
        expect(said).to_have_text(cu.CLASS_NAMES[label[0]])
        expect(ran).to_have_text(FAILED)
    # ONNX Runtime writes its own warnings as errors of the console.
    assert [line for line in seen.errors if "[W:onnxruntime" not in line] == []
    assert (seen.failed, seen.foreign) == ([], [])


def look_at(tab: Page) -> None:
    """Light, dark, and on a phone: a screenshot of each, and what axe finds."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    if AXE.exists():
        tab.add_script_tag(path=AXE)
    for name, scheme, width in (("light", "light", 1280), ("dark", "dark", 1280), ("phone", "light", 390)):
        tab.emulate_media(color_scheme=scheme)
        tab.set_viewport_size({"width": width, "height": 844})
        tab.screenshot(path=SCREENSHOTS / f"webgpu-{name}.png", full_page=True)
        assert tab.evaluate(driver.TOO_WIDE) == []
        if AXE.exists():
            assert driver.findings(tab) == []


def test_without_an_adapter_it_says_so_and_a_list_falls_back_silently(page: Path) -> None:
    pixels = cu.fashion_mnist("test")[0][:6]
    label, _ = from_python(page, pixels)
    asked: list[str] = []
    console: list[str] = []
    with driver.launched(OTHER_NAME) as chromium, served(page) as address, driver.tab(chromium) as tab:
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("console", lambda message: console.append(message.text))
        for host, reason in {
            "127.0.0.1": "this browser gave no adapter",
            "shop.example": "WebGPU needs a page from https",
        }.items():
            tab.goto(address.replace("127.0.0.1", host))
            expect(tab.locator("#ran")).to_have_text(f"WebAssembly: {reason}")
            expect(tab.locator("#card")).to_be_hidden()
        assert not [url for url in asked if "/webgpu/" in url]
        tab.goto(address)
        listed, alone = (
            tab.evaluate(webgpu_lab.SESSION, [providers, pixels.ravel().tolist()])
            for providers in (["webgpu", "wasm"], ["webgpu"])
        )
        small = tab.evaluate(webgpu_lab.SESSION.replace("webgpu/ort.webgpu", "ort/ort.wasm"), [["webgpu"], [0] * 784])
    assert "backend not found" in small["error"], "the small build does not know WebGPU at all"
    assert listed == {"error": None, "label": label.tolist(), "device": False}, "no error, and no word of the fallback"
    assert [line for line in console if 'removing requested execution provider "webgpu"' in line], "its only trace"
    assert "Failed to get GPU adapter" in alone["error"], "asked alone, it is an error"


# Where it cannot run


def test_what_is_missing_is_said(page: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    if webgpu_lab.missing():
        driver.give_up("A browser or onnxruntime-web is missing.")
    with pytest.raises(CourseError, match=r"has no model\.onnx, card\.js, webgpu: copy .* webgpu=True\)\.$"):
        cu.webgpu_in_browser(tmp_path)
    monkeypatch.setattr(webgpu_lab, "missing", lambda: ["Chromium or Chrome"])
    assert cu.webgpu_in_browser(page) is None
    assert "missing: Chromium or Chrome. What follows was recorded." in capsys.readouterr().out
