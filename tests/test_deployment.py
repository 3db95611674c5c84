"""Lesson 08 outside Python: its page in a real browser, its script in Node, its service in Ray, its Triton folder.

All files are those that the lesson copies. What this machine lacks is skipped with a sentence; in CI that is a failure.
"""

from __future__ import annotations

import ast
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

import course_utils as cu
from course_utils.deploy import node_lab
from course_utils.errors import CourseError
from course_utils.pages import browser_lab
from course_utils.pages.loopback import served
from course_utils.paths import data_path

AXE = ROOT / "jupyter-book" / "node_modules" / "axe-core" / "axe.min.js"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the pages below lesson 08 have it: all ready files, and the model that takes bytes."""
    folder = tmp_path_factory.mktemp("deployment")
    for name in ("on_ray", "in_node", "triton", "page"):
        cu.course_files(name, folder / name)
    return cu.course_files("model", folder)


@pytest.fixture(scope="module")
def page(files: Path) -> Path:
    """The page as the lesson puts it together."""
    if not cu.onnxruntime_web(files / "page"):
        give_up("onnxruntime-web is not installed: run  make book  once.")
    shutil.copy(files / "model.onnx", files / "page")
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
    package, node = browser_lab.npm_package("onnxruntime-node"), browser_lab.node()
    if not package or not node:
        give_up("Node or onnxruntime-node is not installed: run  make book  once.")
    pixels, label, probability = expected
    (files / "pictures.bin").write_bytes(pixels.tobytes())
    command = [node, "in_node/predict.mjs", package.parent, "model.onnx", "pictures.bin"]
    answer = json.loads(subprocess.run(command, cwd=files, capture_output=True, text=True, check=True).stdout)
    assert answer["label"] == label.tolist()
    assert np.allclose(np.reshape(answer["probability"], (200, 10)), probability, atol=1e-5)
    assert answer["sha256"] == hashlib.sha256((files / "model.onnx").read_bytes()).hexdigest()


def test_lesson_sees_the_file_in_node(files: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    folder = cu.course_files("in_node", files / "node")
    shutil.copy(files / "model.onnx", folder)
    seen = cu.in_node(folder)
    if seen is None:
        give_up(capsys.readouterr().out)
    assert seen["same bytes"]
    assert seen["same labels"]
    assert seen["largest difference"] < 1e-5
    (folder / "model.onnx").write_bytes(b"no model")
    with pytest.raises(CourseError, match=r"The program failed in Node: .*Error"):
        cu.in_node(folder)
    monkeypatch.setattr(node_lab, "node", lambda: None)
    assert cu.in_node(folder) is None
    assert "missing: Node" in capsys.readouterr().out


def test_ray_serves_scores_and_survives(files: Path, expected: tuple[np.ndarray, ...]) -> None:
    if not find_spec("ray"):
        give_up("Ray is not installed: it comes with the extra serve.")
    for name, values in zip(("pixels", "labels"), cu.fashion_mnist("test"), strict=True):
        np.save(files / f"{name}.npy", values)
    # It takes 54 seconds of a core in a dozen processes: five minutes and more beside the other tests. Where it hangs, it
    # says in which line, and ends. Ray gives its parts 30 seconds to start, whatever else the machine does.
    program = (
        "import faulthandler, runpy; faulthandler.dump_traceback_later(900, exit=True); "
        "runpy.run_module('on_ray.scale_out', run_name='__main__')"
    )
    command = [sys.executable, "-c", program]
    for _ in range(3):
        done = subprocess.run(command, cwd=files, capture_output=True, text=True, timeout=1000, check=False)
        if "timed out during startup" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr[-8000:]
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


def check_webgpu(seen: dict[str, Any]) -> None:
    """What the page on WebGPU reads in words."""
    listed, alone = (seen["without adapter"][providers] for providers in ("webgpu, wasm", "webgpu"))
    assert (listed["error"], listed["same labels"], listed["device"]) == (None, True, False)
    assert "not available" in listed["console"][0]
    assert "Failed to get GPU adapter" in alone["error"]
    assert seen["with adapter"]["same labels"]
    assert seen["with adapter"]["largest difference"] < 1e-5
    float32, int8 = (seen["with adapter"]["kernels"][file] for file in ("model.onnx", "int8.onnx"))
    assert float32["CPUExecutionProvider"] == {"Unsqueeze": 1}
    assert float32["WebGpuExecutionProvider"]["Conv"] == int8["WebGpuExecutionProvider"]["Conv"] == 15
    assert set(int8["CPUExecutionProvider"]) == {"Unsqueeze", "QuantizeLinear"}
    assert seen["without adapter"]["kernels"]["int8.onnx"]["CPUExecutionProvider"]["QLinearConv"] == 15


@pytest.mark.parametrize("name", ["browser", "webgpu", "node", "scale_out"])
def test_records_have_the_form_that_the_lesson_expects(name: str, expected: tuple[np.ndarray, ...]) -> None:
    record = cu.deployment_record(name)
    assert date.fromisoformat(record["date"]) <= date.today()
    assert set(record["machine"]) == {"processor", "cores"}, "nothing else of the machine belongs into a record"
    assert {"python", "onnxruntime"} <= set(record["versions"])
    if name == "browser":
        check_browser(record)
    elif name == "webgpu":
        check_webgpu(record)
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


CONFIG = data_path("deploy/triton/fashion_resnet/config.pbtxt").read_text()


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        ("", "", []),
        ("[ 10 ]", "[ 11 ]", ["probability is [10] without the batch, not [11]"]),
        ("[ 28, 28 ]", "[ -1, 28, 28 ]", ["pixels is [28, 28] without the batch, not [-1, 28, 28]"]),
        ("UINT8", "FP32", ["pixels is TYPE_UINT8"]),
        ("  reshape { shape: [ ] }\n", "", ["label is [] without the batch, not [1]"]),
        ('"label"', '"class"', ["outputs are ['label', 'probability']"]),
        ("max_batch_size: 16", "", ["max_batch_size is not given, so Triton takes dims for the whole shape"]),
    ],
)
def test_triton_folder(files: Path, old: str, new: str, finding: list[str]) -> None:
    if not find_spec("tritonclient"):
        give_up("tritonclient is not installed: it comes with the extra serve.")
    session = ort.InferenceSession(files / "model.onnx", providers=["CPUExecutionProvider"])
    assert old in CONFIG
    assert cu.triton_findings(CONFIG.replace(old, new), session) == finding


def test_text_that_is_no_configuration_of_triton(files: Path) -> None:
    if not find_spec("tritonclient"):
        give_up("tritonclient is not installed: it comes with the extra serve.")
    session = ort.InferenceSession(files / "model.onnx", providers=["CPUExecutionProvider"])
    (finding,) = cu.triton_findings(CONFIG.replace("backend", "back_end"), session)
    assert "no field named" in finding


# The files themselves


def test_the_ready_model_is_fashion_resnet_with_its_processing(files: Path) -> None:
    import torch

    pixels = cu.fashion_mnist("test")[0][:200]
    session = ort.InferenceSession(files / "model.onnx", providers=["CPUExecutionProvider"])
    label, probability = session.run(["label", "probability"], {"pixels": pixels})
    with torch.no_grad():
        right = torch.softmax(cu.fashion_resnet()(torch.from_numpy(cu.normalize(pixels))), 1).numpy()
    assert np.allclose(probability, right, atol=1e-5)
    assert label.tolist() == right.argmax(1).tolist()
    content = (files / "model.onnx").read_bytes()
    assert b"stack_trace" not in content, "the exporter's notes name folders of the machine"
    assert b"site-packages" not in content


def test_the_ready_pictures_are_test_images(files: Path) -> None:
    found = json.loads((files / "page" / "pictures.json").read_text())
    assert tuple(found["names"]) == cu.CLASS_NAMES
    assert found["pictures"] == cu.fashion_mnist("test")[0][:6].reshape(6, -1).tolist()


def test_what_the_student_has_changed_stays(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copied = cu.course_files("server", "work/server")
    assert {path.name for path in copied.iterdir()} == {
        path.name for path in (ROOT / "course_utils" / "server").glob("*.py")
    }
    (copied / "batching.py").write_text("mine")
    (copied / "readers.py").unlink()
    (copied / "notes.txt").write_text("mine, too")
    assert capsys.readouterr().out == ""
    cu.course_files("server", "work/server")
    said = capsys.readouterr().out
    assert "work/server has its own batching.py: delete" in said.replace("\\", "/")
    assert (copied / "batching.py").read_text() == "mine"
    assert (copied / "notes.txt").read_text() == "mine, too"
    assert (copied / "readers.py").read_bytes() == (ROOT / "course_utils" / "server" / "readers.py").read_bytes()


@pytest.mark.parametrize("name", ["phone", "../diagnosis", ""])
def test_there_are_no_such_files(name: str, folder: Path) -> None:
    with pytest.raises(CourseError, match=r"There are no files .* There are: container, in_node, model, on_ray, page"):
        cu.course_files(name, "work")
    assert not (folder / "work").exists()


SOURCE = """
import os


class Cup:
    def fill(self):
        return 1

    @property
    async def tea(self):
        # hot
        return 2


def fill():
    pass
"""


def test_a_listing_shows_the_part_that_matters(folder: Path) -> None:
    Path("cup.py").write_text(SOURCE)
    assert repr(cu.listing("cup.py")) == SOURCE.strip()
    shown = cu.listing("cup.py", "Cup.tea")
    assert repr(shown) == "@property\nasync def tea(self):\n    # hot\n    return 2"
    assert shown._repr_markdown_() == f"```python\n{shown!r}\n```"
    assert repr(cu.listing("cup.py", "fill")) == "def fill():\n    pass", "the one of the module, not the method"
    for part, there in {"pour": "Cup, fill, tea", "Cup.pour": "fill, tea"}.items():
        with pytest.raises(CourseError, match=rf"'cup\.py' has no '{part}'\. It has: {there}\."):
            cu.listing("cup.py", part)
    with pytest.raises(CourseError, match=r"There is no file 'mug\.py'"):
        cu.listing("mug.py")
    Path("cup.py").write_text("def fill(:")
    with pytest.raises(CourseError, match=r"is no Python that can be read"):
        cu.listing("cup.py", "fill")


def test_every_part_of_every_ready_program_can_be_shown() -> None:
    for path in [*(ROOT / "course_utils" / "server").glob("*.py"), *(ROOT / "course_utils" / "on_ray").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                shown = repr(cu.listing(path, node.name))
                ast.parse(shown)
                assert max(map(len, shown.splitlines())) <= 84, "the column of a lesson"


def test_the_server_of_the_lesson_is_started_asked_and_stopped(folder: Path) -> None:
    cu.course_files("server", "work/server")
    cu.course_files("model", "work")
    server = cu.start_server("work", most_images=2)
    pixels = cu.fashion_mnist("test")[0]
    status, answer = server.ask(pixels[:2])
    assert status == 200
    assert len(answer["label"]) == 2
    assert server.ask(json.dumps({"pixels": pixels[0].tolist()}).encode(), "application/json")[0] == 200
    assert server.ask(pixels[:3]) == (422, {"error": "The request holds 3 images, expected 1 to 2."})
    assert server.get("/health") == (200, '{"status":"ready","waiting":0}')
    assert server.stop() in {0, -15, 1}
    with pytest.raises(OSError, match=r"refused|reset"):
        server.get("/health")


@pytest.mark.parametrize("rate", [None, 200.0])
def test_a_load_is_counted_and_each_answer_compared(folder: Path, rate: float | None) -> None:
    cu.course_files("server", "work/server")
    cu.course_files("model", "work")
    pixels = cu.fashion_mnist("test")[0][:60]
    session = ort.InferenceSession("work/model.onnx", providers=["CPUExecutionProvider"])
    (right,) = session.run(["probability"], {"pixels": pixels})
    server = cu.start_server("work", largest_batch=4)
    np.savez("work/load.npz", pixels=pixels, expected=right)
    row = server.load(rate)
    assert min(row.values()) >= 0
    assert 1 <= row["images per batch"] <= 4
    assert row["p50 in ms"] <= row["p99 in ms"]
    assert '{status="200"} 80.0' in server.get("/metrics")[1], "20 to warm up, and then 60"
    np.savez("work/load.npz", pixels=pixels, expected=right[::-1])
    with pytest.raises(CourseError, match="The load did not succeed: AssertionError"):
        server.load(rate)
    server.stop()


def test_a_server_that_does_not_start_says_why(folder: Path) -> None:
    with pytest.raises(CourseError, match=r"'work' holds no server: run  cu.course_files"):
        cu.start_server("work")
    cu.course_files("server", "work/server")
    with pytest.raises(CourseError, match=r"did not start\. It said: There is no setting 'wait'"):
        cu.start_server("work", wait=1)
    with pytest.raises(CourseError, match=r"did not start\. It said: FileNotFoundError: .*model\.onnx"):
        cu.start_server("work")
