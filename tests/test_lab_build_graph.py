"""The lab of chapter 01, in a browser: it reads what `onnx.parser` reads, and runs as ONNX Runtime in Python does."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from course_utils.running import run, session_for

pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[test]'")
from labs import Lab, Site, fixtures, looks_right
from playwright.sync_api import expect

NAME = "build_graph"
site, browser, lab = fixtures(NAME)

HEAD = '<ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>'
# Texts of the lesson's kind; both parsers read them to the same model.
READ = [
    f'{HEAD} g (float[N, 3] x, int64[] n, float z) => (float[?] y) {{ y = Relu (x) }}',
    f'{HEAD} g (x) => ("a/b:0") <float[2] k = {{1, -2.5e-1}}, int64[1] j = {{9}}, bool[2] q = {{1, 0}}, string[2] s = {{"a", "b\\"c"}}> '
    '{ [first] t, "" = Foo.Bar.Op (x, , "", k)\n # Relu\n "a/b:0" = com.microsoft.Gelu (t) }',
    f'{HEAD} g (float[2] x) => (float[2] y) <float[2] t, double d = {{1.5}}, uint8[1] u = {{7}}, float[2] w = {{inf, -0.0}}> '
    '{ y = Op <a = -1, b = 1.5, c = "s", d = [1, 2], e: float = 1, f: ints = [], g = int64[1] {3}, h = float[1] n {.0e}, i = [1.0, 2.0]> (x,) }'
    .replace("{.0e}", "{0.0}"),
    '<producer_name: "me", model_version: -3, metadata_props: ["a" : "b"], opset_import: ["" : 21]> "a g" () => () { y = Op () <a = 5.> }',
    "g () => () <> { }",
    f'{HEAD} g (float[2] x = {{1, 2}}) => (y) {{ y = Op <a = 9007199254740993, s = ["a", ""]> (x) y = Op (, x) }}',
]  # fmt: skip
REFUSED = [
    "", "g", "g (float[2] x) -> (y) {}", "g (float[2] x,) => (y) {}", "g (flt[2] x) => (y) {}", "g () => () <float[2] k = {1 2}> {}",
    "g () => () { y = Relu }", "g () => () { y = Relu (x); }", "g () => () { y = Relu (a.b) }", "g () => () { y = Op <> (x) }",
    "g () => () { y = Op <a = [1, 2.5]> (x) }", "g () => () { y = Op <a: int = 1.5> (x) }", "g () => () { y = Op <a = []> (x) }",
    "g () => () { y = Op <a = 99999999999999999999> (x) }", "<> g () => () {}", "<nonsense: 1> g () => () {}", "g () => () {",
    "g () => () { y = Op <a = int64[1] {1.5}> (x) }", "g () => () { ä = Op (x) }", "g () => () <float[N] k = {1}> {}",
]  # fmt: skip
PARSED = """([text, labs]) => Promise.all([import(labs + 'build_graph/text.js'), import(labs + 'kit/onnx.js')])
  .then(([{ parseModel }, { writeModel }]) => [...writeModel(parseModel(text))]).catch((error) => error.message)"""


@pytest.fixture(scope="module")
def facts(site: Site) -> dict[str, Any]:
    return json.loads((site.files / "build_graph.json").read_text(encoding="utf-8"))


def parsed(lab: Lab, text: str) -> onnx.ModelProto | str:
    """The model that the page reads, or the sentence of its refusal."""
    found = lab.page.evaluate(PARSED, [text, f"{lab.site.address}/_static/labs/"])
    return found if isinstance(found, str) else onnx.ModelProto.FromString(bytes(found))


def write(lab: Lab, text: str) -> None:
    lab.page.get_by_label("The model, as text").fill(text)


def answers(lab: Lab) -> dict[str, list[str]]:
    rows = "all => all.map(one => [...one.cells].map(cell => cell.textContent))"
    return {row[0]: row[1:] for row in lab.page.locator(".lab-body tbody tr").evaluate_all(rows)}


@pytest.mark.parametrize("text", READ)
def test_it_reads_what_python_reads(text: str, lab: Lab) -> None:
    wanted = onnx.parser.parse_model(text)
    found = parsed(lab, text)
    assert isinstance(found, onnx.ModelProto), found
    assert onnx.printer.to_text(found) == onnx.printer.to_text(wanted)
    pairs = zip(found.graph.initializer, wanted.graph.initializer, strict=True)
    assert all(np.array_equal(numpy_helper.to_array(one), numpy_helper.to_array(other)) for one, other in pairs)


@pytest.mark.parametrize("text", REFUSED)
def test_it_refuses_what_python_refuses(text: str, lab: Lab) -> None:
    with pytest.raises(Exception, match=r"ParseError|stoll"):
        onnx.parser.parse_model(text)
    said = parsed(lab, text)
    assert isinstance(said, str)
    assert said.startswith("Line 1, column ")


def test_each_node_writes_what_python_writes(lab: Lab, facts: dict[str, Any]) -> None:
    assert not [url for url in lab.requests if ".wasm" in url]
    lab.page.get_by_role("button", name="Run").click()
    expect(lab.said).to_contain_text("It runs: y = ")
    model = onnx.parser.parse_model(facts["text"])
    names = [node.output[0] for node in model.graph.node]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name != "y")
    wanted = run(session_for(model), {"x": np.array(json.loads(facts["values"]["x"]), np.float32)})
    found = answers(lab)
    assert list(found) == names
    for name, (_, kind, values) in found.items():
        assert kind == f"float32 [{', '.join(map(str, wanted[name].shape))}]"
        np.testing.assert_allclose(json.loads(values), wanted[name], rtol=1e-4)


def test_each_change_says_what_its_words_tell(lab: Lab, facts: dict[str, Any]) -> None:
    checkers = {change["name"]: change["checker"] for change in facts["changes"]}
    assert [name for name, words in checkers.items() if not words] == ["keepdims"]
    for change in facts["changes"]:
        lab.page.get_by_label("Change", exact=True).select_option(change["name"])
        runs = change["name"] in {"keepdims", "order"}
        expect(lab.said).to_contain_text("It runs: y =" if runs else "ONNX Runtime refuses: “")
        says = f"“{change['checker']}”" if change["checker"] else "nothing; it finds no fault."
        expect(lab.page.locator(".build-checker")).to_have_text(f"onnx.checker in Python says: {says}")
        assert lab.state == {"change": change["name"]}
        if change["name"] == "operator":
            expect(lab.said).to_contain_text("No Op registered for Expo with domain_version of 18")


def test_rows_add_up_to_one_or_not(lab: Lab) -> None:
    """The trap: two rows run and are wrong, three are refused."""
    sums = {}
    for change in ("", "keepdims"):
        lab.page.get_by_label("Change", exact=True).select_option(change)
        expect(lab.said).to_contain_text("It runs")
        sums[change] = np.array(json.loads(answers(lab)["y"][2])).sum(axis=1)
    assert sums[""] == pytest.approx([1, 1], abs=1e-4)
    expect(lab.said).to_contain_text("Sum of each row of y: 2.7186, 0.36776.")
    assert sums["keepdims"] == pytest.approx([2.7186, 0.36776], abs=1e-3)
    shapes = lab.page.locator(".lab-graph").get_by_text("y [2, 2]")
    expect(shapes).to_have_count(1)
    lab.page.get_by_label("Values of x").fill("[[1, 1, 1], [1, 0, -1], [0, 0, 0]]")
    lab.page.get_by_role("button", name="Run").click()
    expect(lab.said).to_contain_text("ONNX Runtime refuses: “")
    expect(shapes).to_have_count(0)  # a run that fails leaves no shapes of the one before


def test_a_text_of_ones_own_is_drawn_runs_and_can_be_shared(lab: Lab) -> None:
    text = f"{HEAD} mine (int64[K] a, int64[K] b) => (int64[K] c) {{ c = Mul (a, b) }}"
    write(lab, text)
    expect(lab.page.locator(".lab-graph-node")).to_have_count(1)
    lab.page.get_by_label("Values of a").fill("[3, 4]")
    lab.page.get_by_role("button", name="Run").click()
    expect(lab.said).to_contain_text("It runs: c = [3, 8].")
    state = lab.state
    assert state["text"] == text
    lab.page.reload()
    expect(lab.page.get_by_label("Values of a")).to_have_value("[3, 4]")
    expect(lab.said).to_contain_text("Run it")  # the text of somebody else does not run by itself
    lab.page.get_by_role("button", name="Run").click()
    expect(lab.said).to_contain_text("It runs: c = [3, 8].")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("g (float[2 x) => (y) {}", "Line 1, column 12: ] is expected in place of x."),
        ("g (seq(float) x) => (y) {}", "seq(…) is not read in this page, only tensors."),
        ("g () => () { y = If <then_branch = h () => () {}> (x) }", "A graph as a value is not read in this page."),
        ("<img src=x onerror=alert(1)>", "Line 1, column 2: A model has no field img"),
    ],
)
def test_a_text_that_is_none_is_a_sentence(text: str, says: str, lab: Lab) -> None:
    write(lab, text)
    expect(lab.said).to_contain_text(says)
    lab.page.get_by_role("button", name="Run").click()
    expect(lab.said).to_contain_text(says)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ("1 2 3", "The values of 'x' are written as lists, such as [[1, 2, 3], [2, 3, 4]]."),
        ("[[1], [2, 3]]", "The lists of 'x' are not equally long, or not equally deep."),
        ('[["a", 1, 2]]', "'x' takes float32, and \"a\" is not a number."),
        ("[[1, 2]]", "ONNX Runtime refuses: “Got invalid dimensions for input: x"),
    ],
)
def test_values_that_do_not_fit_are_a_sentence(values: str, says: str, lab: Lab) -> None:
    lab.page.get_by_label("Values of x").fill(values)
    lab.page.get_by_role("button", name="Run").click()
    expect(lab.said).to_contain_text(says)


def test_nonsense_in_the_address_is_left_out(lab: Lab) -> None:
    lab.open(change="toString", values="[1,")
    lab.page.get_by_role("button", name="Run").click()
    expect(lab.said).to_contain_text("It runs: y = ")


def test_how_it_looks(lab: Lab) -> None:
    lab.page.get_by_role("button", name="Run").click()
    expect(lab.said).to_contain_text("It runs")
    looks_right(lab)
