"""The lab of chapter 02, in a browser: definitions are those of `onnx.defs`, and the page's runtime says of kernels what Python's says."""

from __future__ import annotations

import collections
import json
import re
from typing import Any

import onnx
import pytest

import course_utils as cu

pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[test]'")
from labs import Lab, Site, fixtures, looks_right
from playwright.sync_api import expect

NAME = "opset_explorer"
site, browser, lab = fixtures(NAME)

# For the newest definition of each operator, and each of these types: the bytes of the model that is tried, and what came of it.
TRY_ALL = """async ([labs, types]) => {
  const [{ probe, typesOf, reason }, { writeModel }, { open }, { words }] = await Promise.all(
    ["opset_explorer/probe.js", "kit/onnx.js", "kit/runtime.js", "kit/ui.js"].map((name) => import(labs + name)));
  const { operators } = await (await fetch(labs + "files/opset_explorer/opsets.json")).json();
  const found = [];
  for (const [name, editions] of Object.entries(operators)) {
    const edition = editions.filter(({ event, opset }) => event !== "withdrawn" && opset < 24).at(-1);
    for (const type of edition ? typesOf(edition).filter((one) => types.includes(one)) : []) {
      const model = probe(name, edition, type);
      if (!model) continue;
      const bytes = writeModel(model);
      let why = "";
      try { (await open(bytes, { sessionOptions: { graphOptimizationLevel: "disabled" } })).release(); } catch (error) { why = reason(words(error)); }
      found.push([name, type, [...bytes], why]);
    }
  }
  return found;
}"""


@pytest.fixture(scope="module")
def operators(site: Site) -> dict[str, Any]:
    return json.loads((site.files / "opsets.json").read_text(encoding="utf-8"))["operators"]


def choose(lab: Lab, name: str) -> None:
    lab.page.get_by_label("Operators").select_option(name)


def rows(lab: Lab) -> list[list[str]]:
    read = "all => all.map(one => [...one.cells].map(cell => cell.textContent))"
    return lab.page.locator(".lab-body tbody tr").evaluate_all(read)


def test_all_definitions_are_there(operators: dict[str, Any]) -> None:
    known = [schema for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""]
    assert {(name, one["opset"]) for name, versions in operators.items() for one in versions} == {
        (schema.name, schema.since_version) for schema in known
    }
    assert [one["what"] for one in operators["Softmax"]] == list(cu.operator_history("Softmax")["what"])


def test_the_pages_runtime_has_the_kernels_that_pythons_has(lab: Lab) -> None:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    kinds = collections.Counter()
    differs = set()
    tried = lab.page.evaluate(TRY_ALL, [f"{lab.site.address}/_static/labs/", ["float", "int64", "bfloat16"]])
    for name, type, data, why in tried:
        try:
            ort.InferenceSession(bytes(data), options, providers=["CPUExecutionProvider"])
            here = ""
        except Exception as error:
            here = "no kernel" if "Could not find an implementation" in str(error) else "words"
        kinds[there := why if why in {"", "no kernel"} else "words"] += 1
        if here != there:
            differs.add(f"{name} {type}: page {why!r}, Python {here!r}")
    assert kinds[""] > 150
    assert kinds["no kernel"] > 30
    assert differs == set()


def test_one_operator_is_told(lab: Lab) -> None:
    assert not [url for url in lab.requests if ".wasm" in url]
    lab.page.get_by_role("button", name="Ask this page's runtime").click()
    expect(lab.said).to_contain_text("Softmax, opset 13: a kernel for float16, float, double; no kernel for bfloat16.")
    shown = {row[0]: row[1:] for row in rows(lab)}
    assert list(shown) == ["13", "11", "1"]
    assert shown["13"][0].startswith("default of axis: 1 → -1")
    assert shown["11"][1] == "a kernel for every type of this definition"
    choose(lab, "Upsample")  # once asked, it goes on asking
    expect(lab.said).to_contain_text("Upsample was withdrawn with opset 10. Opset 9: ")
    expect(lab.said).not_to_contain_text("“")  # ONNX Runtime's words are folded away
    expect(lab.page.locator(".opset-words p").first).to_contain_text("“")
    expect(lab.page.locator(".opset-words p").first).to_be_hidden()
    assert lab.state["operator"] == "Upsample"
    assert lab.page.locator(".opset-line").get_attribute("aria-label").endswith("changed with 9, withdrawn with 10")
    choose(lab, "If")
    expect(lab.said).to_contain_text("not asked: it takes a sequence, or has a graph or a tensor inside.")


def test_what_is_found(lab: Lab, operators: dict[str, Any]) -> None:
    lab.page.get_by_label("Find a name, an input or an attribute").fill("SOFTMAX")
    expect(lab.page.locator(".opset-count")).to_have_text(f"4 of {len(operators)} operators")
    assert lab.page.get_by_label("Operators").locator("option").all_inner_texts() == [
        "Attention",
        "LogSoftmax",
        "Softmax",
        "SoftmaxCrossEntropyLoss",
    ]
    lab.page.get_by_label("Find a name, an input or an attribute").fill("num_outputs")
    expect(lab.page.locator(".opset-count")).to_have_text("1 operator")
    assert rows(lab)[0][0] == "18"
    lab.page.get_by_label("Find a name, an input or an attribute").fill("")
    lab.page.get_by_label("New, changed or withdrawn with opset").select_option("10")
    wanted = {name for name, versions in operators.items() if any(one["opset"] == 10 for one in versions)}
    assert set(lab.page.get_by_label("Operators").locator("option").all_inner_texts()) == wanted
    lab.page.get_by_label("Find a name, an input or an attribute").fill("<b>nothing</b>")
    expect(lab.page.locator(".opset-count")).to_have_text(f"0 of {len(operators)} operators")


def test_the_state_is_taken_from_the_address(lab: Lab) -> None:
    lab.open(operator="Resize", find="resize", opset="13")
    expect(lab.page.locator(".opset-name b")).to_have_text("Resize")
    assert lab.page.get_by_label("New, changed or withdrawn with opset").input_value() == "13"
    lab.open(operator="toString", opset="1e9")
    expect(lab.page.locator(".opset-name b")).to_have_text("Softmax")


def test_a_runtime_that_is_gone_is_a_sentence(lab: Lab) -> None:
    lab.page.route("**/ort/*", lambda route: route.fulfill(status=404))
    lab.page.get_by_role("button", name="Ask this page's runtime").click()
    expect(lab.said).to_contain_text(re.compile("could not be loaded"))
    lab.seen.failed.clear()
    lab.seen.errors.clear()


def test_how_it_looks(lab: Lab) -> None:
    lab.page.get_by_role("button", name="Ask this page's runtime").click()
    expect(lab.said).to_contain_text("Softmax, opset 13: ")
    looks_right(lab)
