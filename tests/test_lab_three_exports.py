"""The lab of chapter 03, in a browser: what each mechanism made of a module, and whether the file gives PyTorch's numbers."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from lab_files import maker, site_labs
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[test]'")
from labs import Lab, Site, fixtures, looks_right
from playwright.sync_api import expect

import course_utils as cu

NAME = "three_exports"
SIGNS = {"right": "✓", "wrong": "✗", "refused": "!"}
TRIED = "all => all.map(cell => Array.from(cell.querySelectorAll('span'), one => one.textContent).join(''))"

site, browser, lab = fixtures(NAME)


@pytest.fixture(scope="module")
def files(site: Site) -> Path:
    """The folder of the lab's models."""
    return site.files


@pytest.fixture(scope="module")
def facts(files: Path) -> dict[str, Any]:
    return json.loads((files / f"{NAME}.json").read_text(encoding="utf-8"))


def verdict(session: ort.InferenceSession, x: list[list[float]], expected: Any) -> str:
    """What ONNX Runtime in Python makes of it."""
    try:
        (y,) = session.run(None, {"x": np.array(x, np.float32)})
    except Fail:
        return "refused"
    expected = np.array(expected, np.float32)
    return "right" if y.shape == expected.shape and np.allclose(y, expected, rtol=0, atol=1e-4) else "wrong"


def judged(files: Path, facts: dict[str, Any], module: str, how: str) -> list[str]:
    """The verdicts of one file on the three inputs; none where there is no file."""
    file = files / f"{module}_{how}.onnx"
    assert file.exists() != ("refused" in facts["modules"][module]["exports"][how])
    if not file.exists():
        return []
    quiet = ort.SessionOptions()
    quiet.log_severity_level = 4
    session = ort.InferenceSession(file, quiet)
    return [verdict(session, x, facts["modules"][module]["torch"][name]) for name, x in facts["inputs"].items()]


def pick(lab: Lab, group: str, name: str) -> None:
    lab.page.get_by_role("group", name=group).get_by_role("radio", name=name, exact=True).check(force=True)


def test_the_words_are_what_python_finds(files: Path, facts: dict[str, Any]) -> None:
    """`alternative` of labs.yml, against the files and PyTorch."""
    right = ["right"] * 3
    expected = {
        "plain": (right, right, right),
        "branch": (["right", "wrong", "right"], right, []),
        "loop": (["right", "right", "refused"], right, []),
        "number": (["right", "wrong", "wrong"], right, right),
    }
    for module, told in expected.items():
        assert tuple(judged(files, facts, module, how) for how in maker(NAME).MECHANISMS) == told, module
    exports = {name: module["exports"] for name, module in facts["modules"].items()}
    assert "Could not guard on data-dependent expression" in exports["branch"]["default"]["refused"]
    assert "Dim.DYNAMIC" in exports["loop"]["default"]["refused"]
    assert max(max(row) for row in facts["inputs"]["example"]) == 5
    assert cu.op_histogram(files / "loop_trace.onnx")["Add"] == 3, "three steps"
    assert "If" in cu.op_histogram(files / "branch_script.onnx")
    assert "Loop" in cu.op_histogram(files / "loop_script.onnx")
    words = next(lab.alternative for lab in site_labs.labs() if lab.name == NAME)
    assert all(module["line"].rstrip(":").removeprefix("largest = ") in words for module in facts["modules"].values())


def test_the_facts_are_pytorchs(files: Path, facts: dict[str, Any]) -> None:
    for name, (module, line) in maker(NAME).MODULES.items():
        told = facts["modules"][name]
        assert not line or [text.strip() for text in told["source"]].count(line) == 1
        for key, x in facts["inputs"].items():
            np.testing.assert_allclose(told["torch"][key], module(torch.tensor(x)).numpy(), atol=1e-6)
    for how, warned in {"trace": True, "script": False, "default": False}.items():
        exports = [facts["modules"][name]["exports"][how] for name in ("branch", "loop", "number")]
        assert all(bool(export.get("warned")) is warned for export in exports), how
    for file in files.glob("*.onnx"):
        onnx.checker.check_model(onnx.load(file), full_check=True)
        assert b".py" not in file.read_bytes(), "no places in a source"


def test_a_traced_branch_is_right_on_its_example_and_wrong_elsewhere(lab: Lab, facts: dict[str, Any]) -> None:
    assert not [url for url in lab.requests if url.endswith((".onnx", ".wasm.gz"))]
    expect(lab.page.locator("mark")).to_have_text("    if x.sum() > 0:")
    lab.page.get_by_role("button", name="Export and run").click()
    expect(lab.said).to_have_text("✓ Branch, tracing, the example: PyTorch's numbers; the largest difference is 0.")
    graph = lab.page.get_by_role("group", name="The graph of the file")
    expect(graph).to_have_text("xMul 2y")
    expect(lab.page.get_by_text("Converting a tensor to a Python boolean might")).to_be_visible()
    pick(lab, "Input of the file", "other values")
    off = np.abs(np.array(facts["modules"]["branch"]["torch"]["values"]) - 2 * np.array(facts["inputs"]["values"]))
    expect(lab.said).to_contain_text(f"wrong numbers, and no error; the largest difference is {off.max():g}.")
    expect(lab.page.locator(".exports-result tbody tr").first).to_have_text("1−1, 2−2, 4−2, 1differs")
    pick(lab, "Mechanism", "Scripting")
    expect(graph).to_contain_text("then: Mul 2 else: Sub 1")
    expect(lab.said).to_contain_text("✓ Branch, scripting, other values")
    pick(lab, "Mechanism", "Default exporter")
    expect(lab.said).to_have_text("– Branch, default exporter: there is no file. PyTorch refuses to export.")
    expect(lab.page.get_by_label("PyTorch's error")).to_contain_text("Could not guard on data-dependent expression")
    assert lab.state == {"module": "branch", "mechanism": "default", "input": "values"}


def test_a_loop_that_was_traced_refuses_another_size(lab: Lab) -> None:
    lab.open(module="loop", mechanism="trace", input="rows")
    expect(lab.said).to_contain_text("refused when it runs. ONNX Runtime says why.")
    expect(lab.page.get_by_label("ONNX Runtime's error")).to_contain_text("Input shape={5,2} NumOutputs=3")
    pick(lab, "Mechanism", "Scripting")
    expect(lab.page.locator(".exports-result tbody tr")).to_have_text(["y−5.3125, 5.375−5.3125, 5.375"])


def test_the_table_has_pythons_verdicts(lab: Lab, files: Path, facts: dict[str, Any]) -> None:
    """All 36 in the page, against ONNX Runtime in Python."""
    cells = lab.page.locator(".exports-board tbody td")
    expect(cells.first).to_have_text("···")
    lab.page.get_by_role("button", name="Try all that is left").click()
    expect(lab.said).to_have_text("All are tried: look at the table.")
    module = maker(NAME)
    told = [judged(files, facts, name, how) for name, how in product(module.MODULES, module.MECHANISMS)]
    expected = ["".join(SIGNS[one] for one in verdicts) or "no file" for verdicts in told]
    shown = lab.page.locator(".exports-board tbody td").evaluate_all(TRIED)
    assert shown == expected
    expect(lab.page.get_by_role("img", name="five rows: refused when it runs")).to_have_count(1)


def test_keys_and_the_address(lab: Lab) -> None:
    lab.page.get_by_role("radio", name="Branch").focus()
    lab.page.keyboard.press("ArrowRight")
    expect(lab.said).to_contain_text("Loop, tracing, the example: PyTorch's numbers")
    kept = lab.state
    assert kept == {"module": "loop", "mechanism": "trace", "input": "example"}
    lab.open(**kept)
    expect(lab.said).to_contain_text("Loop, tracing, the example: PyTorch's numbers")


def test_nonsense_in_the_address_is_left_out(lab: Lab) -> None:
    lab.open(module="toString", mechanism="%3Cimg%3E", input="values")
    expect(lab.said).to_contain_text("Branch, tracing, other values: wrong numbers")


def test_a_file_that_is_gone_is_a_sentence_and_the_next_click_tries_again(lab: Lab) -> None:
    lab.page.route("**/branch_trace.onnx", lambda route: route.fulfill(status=404))
    lab.page.get_by_role("button", name="Export and run").click()
    expect(lab.said).to_have_text("branch_trace.onnx could not be loaded (404): load the page again.")
    lab.page.unroute("**/branch_trace.onnx")
    lab.page.get_by_role("button", name="Export and run").click()
    expect(lab.said).to_contain_text("PyTorch's numbers")
    lab.seen.failed.clear()
    lab.seen.errors.clear()


def test_how_it_looks(lab: Lab) -> None:
    lab.open(module="loop", mechanism="trace", input="rows")
    expect(lab.said).to_contain_text("refused when it runs")
    looks_right(lab)
