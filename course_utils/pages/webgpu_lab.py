"""Lesson 08's page on WebGPU: in a browser that gives a software adapter, and in one that gives none.

    python -m course_utils.pages.webgpu_lab FOLDER      FOLDER is the lesson's page, with model.onnx and onnxruntime-web

A software adapter computes on the processor what a graphics card would compute: it shows what runs where, and whether the
numbers are right. Its speed means nothing. As in `browser_lab`, this runs as a process, and the result is JSON.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CourseError
from .browser_lab import FLAGS, browser, main, missing, npm_package, package_version, run_visit
from .loopback import served

if TYPE_CHECKING:
    from playwright.sync_api import Page

# SwiftShader comes with Chromium. Only the first of the two is needed on a machine without a graphics card.
SOFTWARE_ADAPTER = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"]
PATIENCE = 150_000  # milliseconds; a software adapter compiles each kernel on the processor
PICTURES = 8
SAYS = "document.querySelector('#ran').value"

# A session with these providers, made and asked: the error or the answer, and what the page can find out afterwards.
SESSION = """async ([providers, pixels]) => {
  const ort = await import("./webgpu/ort.webgpu.min.mjs");
  ort.env.wasm.wasmPaths = new URL("./webgpu/", location).href;
  ort.env.wasm.numThreads = 1;
  try {
    const session = await ort.InferenceSession.create("model.onnx", { executionProviders: providers });
    const shape = [pixels.length / 784, 28, 28];
    const { label } = await session.run({ pixels: new ort.Tensor("uint8", Uint8Array.from(pixels), shape) });
    return { error: null, label: Array.from(label.data, Number), device: Boolean(await ort.env.webgpu.device) };
  } catch (error) {
    return { error: error.message };
  }
}"""
# One run with a profile. The WebAssembly has no files to write it to, so it goes to the console.
PROFILED = """async ([model, provider, pixels]) => {
  const ort = await import("./webgpu/ort.webgpu.min.mjs");
  const options = { executionProviders: [provider], enableProfiling: true };
  const session = await ort.InferenceSession.create(model, options);
  await session.run({ pixels: new ort.Tensor("uint8", Uint8Array.from(pixels), [1, 28, 28]) });
  session.endProfiling();
}"""


def webgpu_in_browser(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Open lesson 08's page in two browsers without a window, without and with a software adapter for WebGPU.

    folder: the page, with `model.onnx` and what `cu.onnxruntime_web(folder, webgpu=True)` copies. Returns for "without
    adapter" what the page says, and what the lists ["webgpu", "wasm"] and ["webgpu"] give; for "with adapter" what the page
    says, and its answers beside those of ONNX Runtime in Python; for both, and each .onnx file in the folder, how many
    kernels of each operator ran on which provider in one run (["wasm"] without, ["webgpu"] with an adapter). None, after
    one sentence, where something is missing. Used in lesson 08.
    Raises CourseError when the page fails, or a file that it needs is not in the folder.
    """
    if lacking := missing():
        print(f"Not run here, because this is missing: {', '.join(lacking)}. What follows was recorded.")
        return None
    if absent := [name for name in ("model.onnx", "card.js", "webgpu") if not (Path(folder) / name).exists()]:
        raise CourseError(
            f"{str(folder)!r} has no {', '.join(absent)}: copy cu.course_files('page', …) and a model there, then call "
            "cu.onnxruntime_web(…, webgpu=True)."
        )
    seen = run_visit("course_utils.pages.webgpu_lab", folder)
    if not seen["with adapter"]:
        print("Not run here, because this browser has no software adapter for WebGPU. What follows was recorded.")
        return None
    return seen


@contextmanager
def opened(address: str, *flags: str) -> Iterator[tuple[Page, list[str]]]:
    """The page in a Chromium of its own, once it has answered, and what the console says from then on."""
    from playwright.sync_api import sync_playwright

    said: list[str] = []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser(), args=[*FLAGS, *flags])
        page = chromium.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: said.append(message.text))
        page.goto(address, wait_until="load")
        page.wait_for_function("window.ready")
        page.evaluate("ready")
        yield page, said
        chromium.close()


def visit(folder: Path) -> dict[str, Any]:
    """The experiment itself."""
    import onnxruntime as ort

    from ..lab.data import fashion_mnist

    pixels = fashion_mnist("test")[0][:PICTURES]
    session = ort.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    label, probability = session.run(["label", "probability"], {"pixels": pixels})
    numbers, files = pixels.ravel().tolist(), sorted(file.name for file in folder.glob("*.onnx"))
    with served(folder) as address:
        with opened(address) as (page, said):
            without: dict[str, Any] = {"the page says": page.evaluate(SAYS)}
            for providers in (["webgpu", "wasm"], ["webgpu"]):
                said.clear()
                answer = page.evaluate(SESSION, [providers, numbers])
                if "label" in answer:
                    answer["same labels"] = answer.pop("label") == label.tolist()
                without[", ".join(providers)] = answer | {"console": [line for line in said if "requested" in line]}
            without["kernels"] = {file: kernels(page, said, file, "wasm", numbers[:784]) for file in files}
            version = page.context.browser.version  # type: ignore[union-attr]
        with opened(address, *SOFTWARE_ADAPTER) as (page, said):
            found = {}
            if page.locator("#card").is_visible():
                page.click("#card")
                page.wait_for_function(f"/WebGPU (on|failed)/.test({SAYS})")
                answer = page.evaluate("predict", numbers)
                there = np.reshape(answer["probability"], probability.shape)
                found = {
                    "the page says": page.evaluate(SAYS),
                    "pictures": len(pixels),
                    "same labels": answer["label"] == label.tolist(),
                    "largest difference": float(np.abs(there - probability).max()),
                    "kernels": {file: kernels(page, said, file, "webgpu", numbers[:784]) for file in files},
                }
    return {
        "browser": f"Chromium {version}",
        "onnxruntime-web": package_version(npm_package("onnxruntime-web")),
        "without adapter": without,
        "with adapter": found,
    }


def kernels(page: Page, said: list[str], model: str, provider: str, pixels: list[int]) -> dict[str, dict[str, int]]:
    """Provider → operator → how often it ran in one run of a session that was asked for this provider."""
    said.clear()
    page.evaluate(PROFILED, [model, provider, pixels])
    while "]" not in said:  # the console arrives a little later
        page.wait_for_timeout(50)
    found: dict[str, Counter[str]] = {}
    for event in json.loads("".join(said[said.index("[") : said.index("]") + 1])):
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            found.setdefault(event["args"]["provider"], Counter())[event["args"]["op_name"]] += 1
    return {name: dict(count) for name, count in found.items()}


if __name__ == "__main__":
    main(visit, __doc__)
