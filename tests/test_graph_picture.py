"""The drawing of a small graph on a page of feedback."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import onnx
import pytest
from bs4 import BeautifulSoup
from onnx import parser
from submissions import put, right, submission, wrong

from course_utils.grading import feedback
from course_utils.grading.__main__ import main
from course_utils.grading.graph_picture import MOST, Graph, in_words, read_graph, svg
from course_utils.grading.reading import Report

SKIP = "g (float[N] x) => (float[N] y) { a = Neg(x) b = Abs(a) y = Add(b, x) }"
EVIL = "<script>alert(1)</script>"


def graph(text: str) -> onnx.ModelProto:
    return parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]> {text}')


def read(model: onnx.ModelProto) -> Graph:
    found = read_graph(model.SerializeToString())
    assert found is not None
    return found


def drawn(found: Graph) -> BeautifulSoup:
    return BeautifulSoup(svg(found), "html.parser")


def boxes(of: BeautifulSoup) -> list[dict[str, float]]:
    return [{name: float(box[name]) for name in ("x", "y", "width", "height")} for box in of.select("rect")]


def test_nodes_inputs_and_outputs_with_what_leads_where():
    found = read(graph(SKIP))
    assert found.labels == ["x", "Neg", "Abs", "Add", "y"]
    assert found.ends == {0, 4}
    assert found.arrows == [(0, 1), (0, 3), (1, 2), (2, 3), (3, 4)]
    assert in_words(found) == "Neg takes x; Abs takes Neg; Add takes x and Abs; y takes Add"


def test_weights_are_no_inputs():
    """Files of IR version 3 list them there, too."""
    model = graph("g (float[2] x, float[2] w) => (float[2] y) <float[2] w = {1, 2}> { y = Mul(x, w) }")
    assert [v.name for v in model.graph.input] == ["x", "w"]
    assert read(model).labels == ["x", "Mul", "y"]


def test_no_box_lies_on_another_and_arrows_lead_down():
    found = drawn(read(graph(SKIP)))
    placed = boxes(found)
    for n, one in enumerate(placed):
        for other in placed[n + 1 :]:
            apart = (
                one["x"] + one["width"] <= other["x"]
                or other["x"] + other["width"] <= one["x"]
                or one["y"] + one["height"] <= other["y"]
                or other["y"] + other["height"] <= one["y"]
            )
            assert apart
    top = {words.text: box["y"] for words, box in zip(found.select("text"), placed, strict=True)}
    assert all(top[a] < top[b] for a, b in pairwise(["x", "Neg", "Abs", "Add", "y"]))
    # The arrow from x to Add passes two layers, and goes beside their boxes.
    assert len(found.select("path:not(.head)")) == 5 + 2
    assert len(found.select("path.head")) == 5


def test_everything_lies_in_the_picture():
    found = drawn(read(graph(SKIP)))
    x, y, width, height = map(float, found.svg["viewbox"].split())
    for box in boxes(found):
        assert x <= box["x"]
        assert box["x"] + box["width"] <= x + width
        assert y <= box["y"]
        assert box["y"] + box["height"] <= y + height


def test_names_are_text_and_not_too_long():
    model = graph(SKIP)
    model.graph.node[0].op_type = EVIL
    model.graph.input[0].name = "x" * 300
    found = drawn(read(model))
    assert not found.select("script")
    assert [words.text for words in found.select("text")][:2] == ["x" * 21 + "…", EVIL[:21] + "…"]
    assert "<" not in found.svg["aria-label"].replace(EVIL[:21], "")


@pytest.mark.parametrize("nodes", [MOST - 2, MOST - 1])
def test_only_small_graphs(nodes):
    """Input and output count, too."""
    steps = " ".join(f"a{n + 1} = Neg(a{n})" for n in range(nodes))
    found = read_graph(graph(f"g (float[N] a0) => (float[N] a{nodes}) {{ {steps} }}").SerializeToString())
    assert (found is not None) == (nodes + 2 <= MOST)


def test_what_is_no_graph_is_not_drawn():
    circle = graph("g (float[N] x) => (float[N] y) { a = Add(x, b) b = Neg(a) y = Abs(b) }")
    empty = graph(SKIP)
    del empty.graph.node[:]
    cut = graph(SKIP).SerializeToString()[:-5]
    for data in (circle.SerializeToString(), empty.SerializeToString(), cut, b"", b"\xff" * 100, b'{"a": 1}'):
        assert read_graph(data) is None
    many = graph(SKIP)
    many.graph.node[0].attribute.extend(onnx.helper.make_attribute(f"a{n}", n) for n in range(40_000))
    assert read_graph(many.SerializeToString()) is not None, "attributes are stepped over"
    many.graph.value_info.extend(onnx.ValueInfoProto() for _ in range(40_000))
    assert read_graph(many.SerializeToString()) is None


def test_on_the_page_of_what_is_not_right_yet(tmp_path):
    """A model that passed needs none, nor has a JSON file one; and a zip that changed since is not opened."""
    made = {"1.1": wrong("1.1", "ada"), "1.2": wrong("1.2", "ada"), "1.3": right("1.3", "ada")}
    zip_file = put(tmp_path / "in", "submission_ada_00000001.zip", submission("ada", made))
    assert main(["grade", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--workers", "1"]) == 0

    def figures() -> dict[str, int]:
        (path,) = (tmp_path / "out" / "feedback").iterdir()
        page = BeautifulSoup(Path(path).read_text(encoding="utf-8"), "html.parser")
        return {task.h3.text.split()[0]: len(task.select("figure svg.graph")) for task in page.select("section.task")}

    assert figures() == {"1.1": 1, "1.2": 0, "1.3": 0}
    zip_file.write_bytes(submission("ada", {"1.1": right("1.3", "ada")}))
    feedback.write(Report(tmp_path / "out"), tmp_path / "in")
    assert figures() == {"1.1": 0, "1.2": 0, "1.3": 0}
