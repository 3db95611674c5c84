"""The page of the capstone: a model that takes what a canvas has, opened in a real browser with the network cut off.

    python -m course_utils.pages.capstone_page FOLDER      FOLDER is what `quest_page` wrote

Playwright wants an event loop of its own, and a notebook has one already: so this runs as a process. The result is JSON on
the standard output.
"""

from __future__ import annotations

import base64
import io
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ..errors import CourseError
from ..lab.graphs import type_text
from ..onnx_files import Model, as_model
from ..paths import WORK, write_whole
from ..running import run, session_for
from .browser_lab import FLAGS, WEB_FILES, browser, main, missing, npm_package, run_visit
from .loopback import served

_INPUT, _OUTPUTS = {"rgba": "uint8"}, {"label": "int64", "probability": "float"}
_FOLDER, _CLASSES = "quest_page", 10


def quest_page(model: Model, photos: np.ndarray, names: Sequence[str]) -> dict[str, Any] | None:
    """Write a page with this model and a few photographs into `work/quest_page/`, and open it in a browser without a window.

    model: rgba uint8 [height, width, 4] → label int64 [1], probability float32 [1, 10]. photos: uint8 [n, 28, 28], the
    buttons of the page. names: what the ten labels mean, in the order of the scores. Returns what the page answered beside
    ONNX Runtime's answers in Python, and what it asked of the network; None, after one sentence, where a browser,
    Playwright or the files of onnxruntime-web are missing. First used in lesson 10.
    Raises CourseError when the model has other inputs or outputs, the photographs or names are not such, or the page fails.
    """
    proto = as_model(model)
    if photos.dtype != np.uint8 or photos.ndim != 3 or not photos.size:
        raise CourseError(
            f"The page needs photographs uint8 [n, 28, 28], these are {photos.dtype} {list(photos.shape)}."
        )
    if len(names) != _CLASSES:
        raise CourseError(f"The page needs {_CLASSES} names, one for each score, these are {len(names)}.")
    has = ({v.name: type_text(v)[0] for v in values} for values in (proto.graph.input, proto.graph.output))
    for kind, got, wanted in zip(("inputs", "outputs"), has, (_INPUT, _OUTPUTS), strict=True):
        if got != wanted:
            raise CourseError(f"The page needs a model with the {kind} {wanted}, this one has {got}.")
    folder = WORK / _FOLDER
    pictures = {"names": list(names), "photos": [_png(photo) for photo in photos]}
    files = {
        "index.html": Path(__file__).with_suffix(".html").read_bytes(),
        "model.onnx": proto.SerializeToString(),
        "photos.json": json.dumps(pictures).encode(),
    }
    for name, data in files.items():
        with write_whole(folder / name) as stream:
            stream.write(data)
    np.save(folder / "photos.npy", photos)
    if package := npm_package("onnxruntime-web"):
        (folder / "ort").mkdir(exist_ok=True)
        for name in WEB_FILES:
            shutil.copy(package / "dist" / name, folder / "ort" / name)
    if lacking := missing():
        print(f"{folder} is written. It was not opened here, because this is missing: {', '.join(lacking)}.")
        return None
    return run_visit("course_utils.pages.capstone_page", folder)


def _png(photo: np.ndarray) -> str:
    """uint8 [height, width] → a data address of a PNG."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(photo).save(stream, "png")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def canvases(photos: np.ndarray) -> list[np.ndarray]:
    """The photographs as a page may have them: RGBA uint8 [height, width, 4], of several sizes, some half transparent."""
    found = []
    for i, photo in enumerate(photos):
        height, width = 28 * (1 + i % 4), 28 * (1 + i % 3)
        grey = np.repeat(np.repeat(photo, height // 28, 0), width // 28, 1)
        found.append(np.stack([grey, grey, grey, np.full_like(grey, 255 if i % 2 else 200)], -1))
    return found


def visit(folder: Path) -> dict[str, Any]:
    """Open the page, cut the network off, and let it predict."""
    from playwright.sync_api import sync_playwright

    session = session_for(onnx.load(folder / "model.onnx"))
    pictures = canvases(np.load(folder / "photos.npy", allow_pickle=False))
    requests: list[str] = []
    with served(folder) as address, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser(), args=FLAGS)
        context = chromium.new_context()
        context.on("request", lambda request: requests.append(request.url.replace(address, "")))
        page = context.new_page()
        began = time.perf_counter()
        page.goto(address, wait_until="load")
        page.wait_for_function("window.ready", timeout=60_000)
        seconds = time.perf_counter() - began
        loaded = len(requests)
        context.set_offline(True)
        worst, same = 0.0, 0
        for rgba in pictures:
            answer = page.evaluate(
                "([rgba, height, width]) => predict(rgba, height, width)", [rgba.ravel().tolist(), *rgba.shape[:2]]
            )
            mine = run(session, {"rgba": rgba})
            same += int(answer["label"] == int(mine["label"][0]))
            worst = max(worst, float(np.abs(np.array(answer["probability"]) - mine["probability"][0]).max()))
        page.locator("#samples button").last.click()
        page.wait_for_timeout(300)
        said = page.locator("#said").evaluate("one => one.value")
        chromium.close()
    foreign = [r for r in requests if not r.startswith(("/", "data:", "blob:"))]
    return {
        "pictures": len(pictures),
        "same labels": same,
        "largest difference": worst,
        "the page says": said,
        "requests while predicting": [r for r in requests[loaded:] if not r.startswith("data:")],
        "requests to other hosts": foreign,
        "seconds to the first prediction": round(seconds, 2),
    }


if __name__ == "__main__":
    main(visit, __doc__)
