"""The lab of chapter 06, in a browser: two graphs, which node became which, and the same numbers at each level."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from lab_files import maker

import course_utils as cu
from course_utils.running import run_all

pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[test]'")
from labs import Lab, Site, fixtures, looks_right
from playwright.sync_api import Locator, expect

LESSON = Path(__file__).resolve().parents[1] / "notebooks" / "06_fusion.py"

site, browser, lab = fixtures("fusion")


@pytest.fixture(scope="module")
def files(site: Site) -> Path:
    """The folder of the lab's models."""
    return site.files


def nodes(lab: Lab, side: str) -> Locator:
    graph = "The graph as written" if side == "left" else "The graph at the level"
    return lab.page.get_by_role("group", name=graph).get_by_role("button")


def lit(lab: Lab, side: str) -> list[str]:
    names = nodes(lab, side).evaluate_all(
        "all => all.filter(one => one.classList.contains('lab-graph-lit')).map(one => one.querySelector('text').textContent)"
    )
    return list(names)


def story(lab: Lab) -> Locator:
    return lab.page.locator(".fusion-story")


def test_the_graph_is_the_one_of_the_lesson() -> None:
    assert maker("fusion").UNTIDY in LESSON.read_text(encoding="utf-8")


def test_the_facts_are_those_of_the_course(files: Path) -> None:
    """Origins, bytes and answers, against what the lesson's own functions tell of the saved files."""
    facts = json.loads((files / "fusion.json").read_text(encoding="utf-8"))
    feed = {"x": np.array(facts["x"], np.float32).reshape(1, 2, 8, 8)}
    for name, levels in facts["models"].items():
        plain = run_all(onnx.load(files / f"{name}_none.onnx"), feed)["y"]
        for level, told in levels.items():
            model = onnx.load(files / f"{name}_{level}.onnx")
            traffic = cu.traffic(model, feed)
            assert [node["reads"] for node in told["nodes"]] == traffic["reads"].tolist()
            assert [node["writes"] for node in told["nodes"]] == traffic["writes"].tolist()
            np.testing.assert_allclose(told["y"], plain.ravel(), rtol=1e-5)
            assert not any("nchwc" in node.domain for node in model.graph.node), "runs in a page, too"
    untidy, debug = facts["models"]["untidy"], facts["models"]["debug"]
    assert untidy["extended"]["nodes"][0] == {"what": "fused", "from": [0, 1, 2], "reads": 512, "writes": 512}
    assert untidy["extended"]["gone"] == {"3": "removed", "4": "removed", "5": "folded"}
    assert [node["from"] for node in debug["extended"]["nodes"][:3]] == [[0], [1], [2]]


def test_both_graphs_and_their_bytes(lab: Lab) -> None:
    expect(nodes(lab, "left")).to_have_count(14)
    expect(nodes(lab, "right")).to_have_count(9)
    expect(lab.page.locator(".fusion-head").first).to_contain_text("14 nodes, 10\u202f324 bytes")
    lab.page.get_by_role("radio", name="extended").check(force=True)
    expect(nodes(lab, "right")).to_have_count(8)
    expect(lab.page.locator(".fusion-head").last).to_contain_text("8 nodes, 6\u202f188 bytes")
    assert lab.state["level"] == "extended"
    lab.page.locator(".fusion-words summary").last.click()
    expect(lab.page.get_by_text("FusedConv reads x and writes r.")).to_be_visible()


def test_a_node_and_its_origins_from_both_sides(lab: Lab) -> None:
    lab.open(level="extended")
    nodes(lab, "right").first.click()
    expect(story(lab)).to_have_text("Conv + BatchNormalization + Relu became one node, FusedConv (fused).")
    assert lit(lab, "left") == ["Conv", "BatchNormalization", "Relu"]
    assert lit(lab, "right") == ["FusedConv"]
    nodes(lab, "left").last.click()
    expect(story(lab)).to_have_text("MatMul + Add became one node, Gemm (fused).")
    assert lit(lab, "right") == ["Gemm"]
    nodes(lab, "left").nth(5).click()
    expect(story(lab)).to_contain_text("Exp is gone (folded)")
    assert lit(lab, "right") == []
    nodes(lab, "left").nth(5).click()
    expect(story(lab)).to_contain_text("Choose a node")


def test_an_output_inside_prevents_fusion(lab: Lab) -> None:
    lab.open(level="extended", outputs="debug")
    first = nodes(lab, "right").evaluate_all("all => all.slice(0, 3).map(one => one.querySelector('text').textContent)")
    assert first == ["Conv", "BatchNormalization", "Relu"]
    expect(story(lab)).to_contain_text("stay three nodes")


def test_keys_go_through_a_graph_and_the_address_keeps_the_node(lab: Lab) -> None:
    first = nodes(lab, "right").first
    first.focus()
    first.press("ArrowDown")
    second = nodes(lab, "right").nth(1)
    expect(second).to_be_focused()
    second.press("Enter")
    expect(second).to_have_attribute("aria-pressed", "true")
    expect(story(lab)).to_have_text("Relu stayed as it was (kept).")
    kept = lab.state
    assert kept["node"] == "right 1"
    lab.open(**kept)
    expect(nodes(lab, "right").nth(1)).to_have_attribute("aria-pressed", "true")
    assert nodes(lab, "right").evaluate_all("all => all.filter(one => one.tabIndex === 0).length") == 1


def test_a_link_to_another_state_is_followed(lab: Lab) -> None:
    lab.page.evaluate("location.hash = '#fusion?level=extended&node=right+0'")
    expect(nodes(lab, "right")).to_have_count(8)
    expect(story(lab)).to_contain_text("FusedConv (fused)")
    expect(lab.page.get_by_role("radio", name="extended")).to_be_checked()


def test_the_three_files_run_and_give_pythons_numbers(lab: Lab, files: Path) -> None:
    loaded = lab.page.evaluate("performance.getEntriesByType('resource').map(entry => entry.name)")
    assert not [name for name in loaded if name.endswith(".wasm.gz")]
    lab.page.get_by_role("button", name="Run all three levels").click()
    expect(lab.said).to_contain_text("the same numbers, up to rounding")
    facts = json.loads((files / "fusion.json").read_text(encoding="utf-8"))
    rows = lab.page.locator("tbody tr")
    for at, level in enumerate(("none", "basic", "extended")):
        shown = rows.nth(at).locator("td").nth(2).inner_text()
        np.testing.assert_allclose(
            [float(v) for v in shown.split(", ")], facts["models"]["untidy"][level]["y"], atol=1e-4
        )
    before = rows.first.inner_text()
    lab.page.get_by_role("button", name="With another input").click()
    expect(lab.said).to_contain_text("Input 1:")
    assert rows.first.inner_text() != before
    assert lab.state["input"] == "1"


@pytest.mark.parametrize("node", ["right+99", "middle+1", "left+-1", "%3Cimg%3E"])
def test_nonsense_in_the_address_is_left_out(lab: Lab, node: str) -> None:
    lab.open(level="layout", outputs="x", node=node, input="1e9")
    expect(nodes(lab, "right")).to_have_count(9)
    expect(story(lab)).to_contain_text("Choose a node")


def test_how_it_looks(lab: Lab) -> None:
    lab.open(level="extended", node="right+0", input=2)
    expect(lab.page.locator("tbody tr")).to_have_count(3)
    looks_right(lab)
