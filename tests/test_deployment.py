"""Lesson 08 outside Python: its page in a real browser, its script in Node, its service in Ray, its Triton folder.

All files are the cells of the lesson. What this machine lacks is skipped with a sentence; in CI that is a failure.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from browser import Seen, findings, give_up, launched, tab
from checkout import ROOT
from lesson_files import WHOLE, run_cells, write_lesson_files

import course_utils as cu
from course_utils.errors import CourseError
from course_utils.pages import browser_lab
from course_utils.pages.loopback import served

AXE = ROOT / "jupyter-book" / "node_modules" / "axe-core" / "axe.min.js"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, fashion_onnx: Path) -> Path:
    """The lesson's `work/08` with the model that takes bytes."""
    folder = tmp_path_factory.mktemp("deployment")
    made = write_lesson_files(folder)
    shutil.copy(fashion_onnx, folder / "work" / "08_resnet.onnx")
    names = run_cells(folder, *WHOLE)
    (made / "model.onnx").write_bytes(names["whole"].SerializeToString())
    return made


@pytest.fixture(scope="module")
def page(files: Path) -> Path:
    """The page as the lesson puts it together."""
    package = cu.npm_package("onnxruntime-web")
    if not package:
        give_up("onnxruntime-web is not installed: run  make book  once.")
    (files / "page" / "ort").mkdir(exist_ok=True)
    for name in browser_lab.WEB_FILES:
        shutil.copy(package / "dist" / name, files / "page" / "ort")
    shutil.copy(files / "model.onnx", files / "page")
    pictures = cu.fashion_mnist("test")[0][:6].reshape(6, -1).tolist()
    (files / "page" / "pictures.json").write_text(json.dumps({"names": cu.CLASS_NAMES, "pictures": pictures}))
    return files / "page"


@pytest.fixture(scope="module")
def expected(files: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels, labels and probabilities of 200 pictures, from ONNX Runtime in Python."""
    pixels = cu.fashion_mnist("test")[0][:200]
    session = ort.InferenceSession(files / "model.onnx", providers=["CPUExecutionProvider"])
    return (pixels, *session.run(["label", "probability"], {"pixels": pixels}))


def test_page_predicts_like_python_and_asks_nobody(page: Path, expected: tuple[np.ndarray, ...]) -> None:
    pixels, label, probability = expected
    seen, requests = Seen(), []
    with launched() as browser, served(page) as address, tab(browser) as opened:
        seen.watch(opened)
        opened.goto(address)
        opened.wait_for_function("window.ready")
        opened.evaluate("ready")
        opened.context.on("request", lambda request: requests.append(request.url))
        opened.on("websocket", lambda socket: requests.append(socket.url))
        answer = opened.evaluate("predict", pixels.ravel().tolist())
        for i in range(6):
            opened.locator("#samples button").nth(i).click()
            opened.wait_for_function(f"document.querySelector('#said').value === {cu.CLASS_NAMES[label[i]]!r}")
        opened.click("#clear")
        box = opened.locator("canvas").bounding_box()
        opened.mouse.move(box["x"] + 40, box["y"] + 150)
        opened.mouse.down()
        opened.mouse.move(box["x"] + 190, box["y"] + 160, steps=20)
        opened.mouse.up()
        drawn = "[...document.querySelector('canvas').getContext('2d').getImageData(0, 0, 28, 28).data]"
        assert opened.evaluate(f"{drawn}.filter((v, i) => i % 4 === 0 && v === 255).length") > 30
        if AXE.exists():
            opened.add_script_tag(path=AXE)
            assert findings(opened) == []
    assert answer["label"] == label.tolist()
    assert np.allclose(np.reshape(answer["probability"], (200, 10)), probability, atol=1e-5)
    assert [r for r in requests if not r.endswith("axe.min.js")] == [], (
        "the page asked for something while it predicted"
    )
    assert (seen.errors, seen.failed, seen.foreign) == ([], [], [])


def test_lesson_sees_the_page_in_a_browser(page: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    seen = cu.in_browser(page)
    if seen is None:
        give_up(capsys.readouterr().out)
    check_browser(seen)
    ratio = {n: seen["wasm ms"][n] / seen["native ms"][n] for n in seen["wasm ms"]}
    print(f"WebAssembly ÷ native, one thread: {ratio}")
    monkeypatch.setattr(browser_lab, "browser", lambda: None)
    assert cu.in_browser(page) is None
    assert "missing: Chromium or Chrome" in capsys.readouterr().out


def test_page_that_fails_says_why(page: Path, tmp_path: Path) -> None:
    if not browser_lab.browser() or not find_spec("playwright"):
        give_up("No Chromium or Chrome was found, or no Playwright.")
    with pytest.raises(CourseError, match=r"page failed .*model\.onnx"):
        cu.in_browser(tmp_path)


def test_node_gives_the_same_numbers(files: Path, expected: tuple[np.ndarray, ...]) -> None:
    package, node = cu.npm_package("onnxruntime-node"), cu.node()
    if not package or not node:
        give_up("Node or onnxruntime-node is not installed: run  make book  once.")
    pixels, label, probability = expected
    (files / "pictures.bin").write_bytes(pixels.tobytes())
    command = [node, "predict.mjs", package.parent, "model.onnx", "pictures.bin"]
    answer = json.loads(subprocess.run(command, cwd=files, capture_output=True, text=True, check=True).stdout)
    assert answer["label"] == label.tolist()
    assert np.allclose(np.reshape(answer["probability"], (200, 10)), probability, atol=1e-5)
    assert answer["sha256"] == hashlib.sha256((files / "model.onnx").read_bytes()).hexdigest()


def test_ray_serves_scores_and_survives(files: Path, expected: tuple[np.ndarray, ...]) -> None:
    if not find_spec("ray"):
        give_up("Ray is not installed: it comes with the extra serve.")
    for name, values in zip(("pixels", "labels"), cu.fashion_mnist("test"), strict=True):
        np.save(files / f"{name}.npy", values)
    done = subprocess.run(
        [sys.executable, "scale_out.py"], cwd=files, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    check_scale_out(json.loads((files / "scale_out.json").read_text()), expected[1])


def check_browser(seen: dict[str, Any]) -> None:
    assert seen["same labels"]
    assert seen["largest difference"] < 1e-5
    assert seen["while predicting"] == []
    assert seen["to load"][0] == "GET /"
    assert "GET /ort/ort-wasm-simd-threaded.wasm" in seen["to load"]
    assert set(seen["wasm ms"]) == set(seen["native ms"]) == {"1", "16"}
    assert seen["the page says"] == "pullover"


def check_scale_out(found: dict[str, Any], label: np.ndarray) -> None:
    serving = found["serving"]
    assert serving["labels"] == label[:120].tolist(), "every request is answered, also after a replica died"
    assert serving["replicas before"] == serving["replicas in the end"] == 2
    assert serving["of these, answered right"] == serving["requests under way when it was killed"] == 8
    assert serving["answers by the killed one, afterwards"] == 0
    assert found["scoring"]["pictures"] == 10_000
    assert found["scoring"]["right"] > 9200


@pytest.mark.parametrize("name", ["browser", "node", "scale_out"])
def test_records_have_the_form_that_the_lesson_expects(name: str, expected: tuple[np.ndarray, ...]) -> None:
    record = cu.deployment_record(name)
    assert date.fromisoformat(record["date"]) <= date.today()
    assert set(record["machine"]) == {"processor", "cores"}, "nothing else of the machine belongs into a record"
    assert {"python", "onnxruntime"} <= set(record["versions"])
    if name == "browser":
        check_browser(record)
    elif name == "scale_out":
        check_scale_out(record, expected[1])
        assert record["serving"]["asked again"] > 0, "the lesson says that some had to be asked again"
        assert min(record[name] for name in ("seconds", "processes", "MiB")) > 0
    else:
        assert record["same bytes"]
        assert record["same labels"]
        assert record["largest difference"] < 1e-5


def test_unknown_record() -> None:
    with pytest.raises(CourseError, match=r"no record 'phone'.*browser, node, scale_out"):
        cu.deployment_record("phone")


def test_triton_folder(files: Path) -> None:
    if not find_spec("tritonclient"):
        give_up("tritonclient is not installed: it comes with the extra serve.")
    names = run_cells(files.parents[1], "def misfits", "def triton_findings")
    session = ort.InferenceSession(files / "model.onnx", providers=["CPUExecutionProvider"])
    text = (files / "triton" / "fashion_resnet" / "config.pbtxt").read_text()
    assert names["triton_findings"](text, session) == []
    assert names["triton_findings"](text.replace("[ 10 ]", "[ 11 ]"), session) == [
        "probability is [10] without the batch, not [11]"
    ]
    with pytest.raises(Exception, match="no field named"):
        names["triton_findings"](text.replace("backend", "back_end"), session)
