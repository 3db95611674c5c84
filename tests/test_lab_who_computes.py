"""The lab of chapter 05, in a browser with a software adapter for WebGPU: records are those of the course, answers those of Python."""

from __future__ import annotations

import json
from typing import Any

import onnx
import pytest
from lab_files import site_labs

import course_utils as cu
from course_utils.pages.webgpu_lab import SOFTWARE_ADAPTER

pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[test]'")
from labs import Lab, Site, fixtures, looks_right
from playwright.sync_api import expect

NAME = "who_computes"
WORDS = "fallback to CPU EP has been explicitly disabled by the user"
site, browser, lab = fixtures(NAME, Lab, *SOFTWARE_ADAPTER)
# graph → nodes on the WebGPU plug-in and on the CPU, tensors that are copied, as labs.yml tells them
TOLD = {"mixed": (5, 1, 2), "scattered": (5, 3, 6), "fixed": (8, 0, 0)}


@pytest.fixture(scope="module")
def facts(site: Site) -> dict[str, Any]:
    return json.loads((site.files / "who_computes.json").read_text(encoding="utf-8"))


def rows(lab: Lab) -> dict[str, str]:
    read = "all => all.map(one => [one.cells[0].textContent, one.cells[1].textContent])"
    return dict(lab.page.locator(".who-shown tbody tr").evaluate_all(read))


def run(lab: Lab, graph: str, who: str) -> None:
    lab.open(graph=graph, who=who)
    lab.page.get_by_role("button", name="Run in this page").click()
    expect(lab.said).to_contain_text("It runs")


def copies(model: onnx.ModelProto, placed: dict[str, str]) -> int:
    written = {name: placed[node.name] for node in model.graph.node for name in node.output}
    pairs = ((name, placed[node.name]) for node in model.graph.node for name in node.input if name in written)
    return len({name for name, reader in pairs if written[name] != reader})


@pytest.mark.parametrize("graph", TOLD)
def test_who_computed_is_what_was_recorded(graph: str, lab: Lab, site: Site, facts: dict[str, Any]) -> None:
    model = onnx.load(site.files / f"{graph}.onnx")
    for at, (key, title) in enumerate([("cpu", "CPU alone"), ("webgpu", "WebGpu by device"), ("qnn", "QNN by device")]):
        entries = {e["title"]: e for e in cu.ep_record(key)["placements"] if e["model"] == graph}
        placed = facts[graph]["records"][at]["placed"]
        on_cpu = {
            name for provider, names in entries[title]["recorded"] if provider.startswith("CPU") for name in names
        }
        assert {name for name, provider in placed.items() if provider == "CPU"} == on_cpu
        lab.open(graph=graph, who=f"record+{at}")
        expect(lab.said).to_contain_text("Recorded: onnxruntime")
        found = rows(lab)
        assert sum(int(part.split()[0]) for part in found["nodes"].split(", ")) == len(model.graph.node)
        n = copies(model, placed)
        assert found["copied between providers"].split(":")[0] == (str(n) if n else "nothing")
        assert lab.page.locator("[data-mark='on the CPU']").count() == len(on_cpu)
        if key != "cpu":
            forbidden = entries[f"{title}, fallback forbidden"]["error"]
            assert found["where the CPU is forbidden"] == (f"“{forbidden}”" if forbidden else "it runs, too")
        if key == "webgpu":
            device, cpu, moved = TOLD[graph]
            assert (len(placed) - len(on_cpu), len(on_cpu), n) == (device, cpu, moved)


@pytest.mark.parametrize("graph", TOLD)
def test_webassembly_computes_what_python_computes(graph: str, lab: Lab) -> None:
    run(lab, graph, "wasm")
    expect(lab.said).to_have_text("It runs on WebAssembly, one thread, every node.")
    assert float(rows(lab)["largest difference from Python's numbers"].replace("\u2011", "-")) < 1e-4


@pytest.mark.parametrize("graph", TOLD)
def test_webgpu_falls_back_silently_unless_it_is_forbidden(graph: str, lab: Lab) -> None:
    said = []
    lab.page.on("console", lambda message: said.append(message.text))
    run(lab, graph, "webgpu")
    found = rows(lab)
    assert float(found["largest difference from Python's numbers"].replace("\u2011", "-")) < 1e-4
    if TOLD[graph][1]:
        assert WORDS in found["where the CPU is forbidden"]
        expect(lab.said).to_contain_text("Not every node runs on WebGPU")
    else:
        assert found["where the CPU is forbidden"] == "it runs, too"
        expect(lab.said).to_have_text("It runs on WebGPU, every node.")
    assert said == []


def test_the_words_tell_these_numbers() -> None:
    words = next(one.alternative for one in site_labs.labs() if one.name == NAME)
    for sentence in (
        "takes five of six nodes, and two tensors are copied",
        "five of eight nodes on the plug-ins, and six tensors",
        WORDS,
    ):
        assert sentence in " ".join(words.split())


def test_what_is_chosen_stands_in_the_address(lab: Lab) -> None:
    assert not [url for url in lab.requests if ".wasm" in url]
    lab.page.get_by_role("radio", name="Three unusual operators").check(force=True)
    lab.page.get_by_role("radio", name="QNN plug-in, recorded").check(force=True)
    expect(lab.said).to_contain_text("onnxruntime-qnn")
    assert lab.state == {"graph": "scattered", "who": "record 2"}
    lab.open(graph="constructor", who="record+9")
    expect(lab.said).to_contain_text("onnxruntime-ep-webgpu")


@pytest.mark.parametrize(
    "gpu", ["undefined", "({ requestAdapter: async () => null })"], ids=["no WebGPU", "no adapter"]
)
def test_without_webgpu_it_is_a_sentence(gpu: str, lab: Lab) -> None:
    lab.page.add_init_script(f"Object.defineProperty(Navigator.prototype, 'gpu', {{ get: () => {gpu} }})")
    lab.open(graph="mixed", who="webgpu")
    expect(lab.page.locator(".who-here")).to_contain_text("and no WebGPU.")
    expect(lab.said).to_have_text("This browser has no WebGPU. The recorded plug-in shows the same graph.")
    expect(lab.page.get_by_role("button", name="Run in this page")).to_be_hidden()
    lab.page.get_by_role("radio", name="WebAssembly, here").check(force=True)
    expect(lab.page.get_by_role("button", name="Run in this page")).to_be_visible()


def test_how_it_looks(lab: Lab) -> None:
    looks_right(lab)
