"""Measure what lesson 08 cannot run everywhere, and write it into `data/deployment.json`.

    python data/record_deployment.py [NAME …]

NAME: browser, webgpu, node, scale_out; without one, all of them. The files are those that the lesson and its deeper pages copy.
Browser, WebGPU: Chromium, Playwright and the npm packages of `make book` must be there. Node: onnxruntime-node. Scale-out: the
extra `serve`. What is missing stops the script, and the file stays as it is.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before onnxruntime is imported

import numpy as np
import onnxruntime as ort
import psutil

import course_utils as cu
from course_utils.ep_experiment.machine import cores, processor
from course_utils.pages import browser_lab

TARGET = Path(__file__).with_name("deployment.json")
# resnet18, the report's example: float32 pictures of 224 × 224, one thread.
PAGE = """<!doctype html><script type="module">
import * as ort from "./ort/ort.wasm.min.mjs";
ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create("resnet18.onnx", { executionProviders: ["wasm"] });
const image = new ort.Tensor("float32", new Float32Array(3 * 224 * 224), [1, 3, 224, 224]);
window.predict = () => session.run({ image });
window.ready = true;
</script>"""


def where(**versions: str) -> dict[str, Any]:
    return {
        "date": date.today().isoformat(),
        "machine": {"processor": processor(), "cores": cores()},
        "versions": {"python": platform.python_version(), "onnxruntime": ort.__version__, **versions},
    }


def in_browser(folder: Path) -> dict[str, Any]:
    page = cu.course_files("page", folder / "page")
    cu.onnxruntime_web(page)
    shutil.copy(folder / "model.onnx", page)
    seen = cu.in_browser(page)
    assert seen, "the browser lab did not run"
    wasm, native = resnet18_ms(page / "ort")
    return {**where(), **seen, "more wasm ms": {"resnet18": {"1": wasm}}, "more native ms": {"resnet18": {"1": native}}}


def resnet18_ms(runtime: Path) -> tuple[float, float]:
    """Milliseconds of one run in the browser and natively, the fastest of eight."""
    import torch
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "resnet18.onnx"
        with cu.exporter_messages():
            torch.onnx.export(
                cu.resnet18(), (torch.randn(1, 3, 224, 224),), file, input_names=["image"], external_data=False, verbose=False
            )  # fmt: skip
        (folder / "index.html").write_text(PAGE)
        shutil.copytree(runtime, folder / "ort")
        with browser_lab.served(folder) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=browser_lab.browser(), args=browser_lab.FLAGS)
            page = browser.new_page()
            page.goto(address)
            page.wait_for_function("window.ready", timeout=60_000)
            wasm = page.evaluate(browser_lab.TIMED, [None, 2, browser_lab.ROUNDS])
            browser.close()
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        feed, runs = {"image": np.zeros((1, 3, 224, 224), np.float32)}, 2
        return wasm, browser_lab.fastest(lambda: session.run(None, feed), runs)


def on_webgpu(folder: Path) -> dict[str, Any]:
    """As in the page of that name: the float model, and the same in int8."""
    from onnxruntime.quantization import QuantType, quant_pre_process, quantize_static

    page = cu.course_files("page", folder / "page")
    cu.onnxruntime_web(page, webgpu=True)
    shutil.copy(folder / "model.onnx", page)
    ready = folder / "ready.onnx"
    quant_pre_process(folder / "model.onnx", ready)
    types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    feed = {"pixels": cu.fashion_mnist("calibration")[0][:100]}
    quantize_static(ready, page / "int8.onnx", cu.Calibration(ready, feed), per_channel=True, **types)
    seen = cu.webgpu_in_browser(page)
    assert seen, "the page did not run on WebGPU"
    return {**where(), **seen}


def in_node(folder: Path) -> dict[str, Any]:
    seen = cu.in_node(cu.course_files("in_node", folder))
    assert seen, "Node did not run"
    return {**seen, **where()}


def scaled_out(folder: Path) -> dict[str, Any]:
    cu.course_files("on_ray", folder / "on_ray")
    for name, values in zip(("pixels", "labels"), cu.fashion_mnist("test"), strict=True):
        np.save(folder / f"{name}.npy", values)
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "on_ray.scale_out"], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as program:
        size = largest_size(psutil.Process(program.pid))
    assert program.returncode == 0, f"on_ray.scale_out ended with status {program.returncode}"
    cost = {"seconds": round(time.perf_counter() - began), **size}
    return {**where(ray=version("ray")), **cost, **json.loads((folder / "scale_out.json").read_text())}


def largest_size(program: psutil.Process) -> dict[str, int]:
    """Until the program ends: how many processes it had at once, and their memory, shared pages counted once."""
    processes, memory = 0, 0.0
    while program.is_running() and program.status() != psutil.STATUS_ZOMBIE:
        try:
            family = [program, *program.children(recursive=True)]
            memory = max(memory, sum(p.memory_full_info().pss for p in family))
            processes = max(processes, len(family))
        except psutil.Error:  # one of them ended meanwhile
            pass
        time.sleep(0.5)
    return {"processes": processes, "MiB": round(memory / 2**20)}


def main() -> None:
    ways = {"browser": in_browser, "webgpu": on_webgpu, "node": in_node, "scale_out": scaled_out}
    found = json.loads(TARGET.read_text()) if TARGET.exists() else {}
    for name in sys.argv[1:] or ways:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = ways[name](cu.course_files("model", folder))
    TARGET.write_text(json.dumps(found, indent=1) + "\n")
    print(f"Written: {TARGET.name}")


if __name__ == "__main__":
    main()
