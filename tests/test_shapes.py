"""Probing sizes, running in batches, and the shape explorer."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto
from torch import nn

import course_utils as cu
from course_utils.running import session_for
from course_utils.widget_style import INK


def model(body: str, x: str = "batch, length, 4", y: str = "", more: str = "") -> ModelProto:
    return onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["": 18]>
        g (float[{x}] x) => (float[{y or x}] y) {more} {{ {body} }}""")


DOUBLE = model("y = Add(x, x)")


class Double(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + x


class Mask(nn.Module):
    """Takes lengths 1 and 8, as PyTorch stretches."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.ones(8, 4)


X = torch.randn(2, 8, 4)


def verdicts(*args: object, **more: object) -> list[str]:
    return list(cu.probe_sizes(*args, **more)["verdict"])


def test_free_and_frozen() -> None:
    table = cu.probe_sizes(DOUBLE, X, Double())
    assert list(table["verdict"]) == ["free", "free", "frozen at 4"]
    assert list(table["the file says"]) == ["batch", "length", 4]
    assert table["refused"][2] == "1, 2, 3, 5, 9"


def test_a_size_that_runs_with_wrong_numbers() -> None:
    cut = model("y = Slice(x, b, e, a)", more="<int64[1] b = {0}, int64[1] e = {8}, int64[1] a = {1}>")
    table = cu.probe_sizes(cut, X, nn.Identity()).set_index("dimension")
    assert table.loc["x[1]", "wrong numbers"] == "9, 17"
    assert table.loc["x[1]", "verdict"] == "wrong numbers, without an error"
    assert "wrong" not in " ".join(verdicts(cut, X)), "nothing to compare with"


def test_a_file_that_says_any_and_takes_one() -> None:
    stiff = model("y = Reshape(x, s)", more="<int64[3] s = {0, 8, 4}>")
    assert verdicts(stiff, X, nn.Identity())[1] == "says any, takes 8 only"


def test_what_pytorch_refuses_as_well_is_nobodys_fault() -> None:
    masked = model("y = Add(x, m)", more=f"<float[8, 4] m = {{{', '.join(['1.0'] * 32)}}}>")
    table = cu.probe_sizes(masked, X, Mask())
    assert table["refused"][1] == ""
    assert table["verdict"][1] == "free, as far as in PyTorch"
    fixed = model("y = Reshape(x, s)", x="batch, 8, 4", more="<int64[3] s = {0, 8, 4}>")

    class Only(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(-1, 8, 4) if x.shape[1:] == (8, 4) else x.reshape(0, 5)

    assert verdicts(fixed, X, Only())[1:] == ["takes 8 only, as in PyTorch", "takes 4 only, as in PyTorch"]


def test_dimensions_of_the_same_name_change_together() -> None:
    both = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 18]>
        g (float[b, n] x, float[b, n] m) => (float[b, n] y) { y = Mul(x, m) }""")
    table = cu.probe_sizes(both, (torch.randn(3, 5), torch.randn(3, 5)))
    assert list(table["dimension"]) == ["x[0], m[0]", "x[1], m[1]"]
    assert list(table["verdict"]) == ["free", "free"]


def test_sizes_of_ones_own() -> None:
    assert cu.probe_sizes(DOUBLE, X, sizes=[3, 100])["works"][1] == "3, 8, 100"


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ((DOUBLE, (X, X)), r"1 inputs .* was given 2"),
        ((DOUBLE, X.double()), "was fed float64"),
        ((DOUBLE, X[0]), r"fed shape \[8, 4\]"),
        ((DOUBLE, X, None, [0]), "positive whole numbers"),
        ((DOUBLE, X, None, [2.5]), "positive whole numbers"),
        ((DOUBLE, X, None, 5), "positive whole numbers"),
        ((DOUBLE, X, nn.Linear(7, 7)), "a Linear, does not take the example"),
        ((DOUBLE, X, "Double()"), "a str, does not take the example"),
        (("missing.onnx", X), "no file 'missing.onnx'"),
    ],
)
def test_bad_probes(args: tuple, sentence: str) -> None:
    with pytest.raises(cu.CourseError, match=sentence):
        cu.probe_sizes(*args)


@pytest.mark.parametrize("batch", [1, 4, 9, 100])
def test_run_in_batches(batch: int) -> None:
    x = np.random.default_rng(0).normal(size=(9, 8, 4)).astype(np.float32)
    for it in (DOUBLE, session_for(DOUBLE)):
        assert np.array_equal(cu.run_in_batches(it, {"x": x}, batch)["y"], x + x)


def test_a_frozen_batch_is_one_clear_sentence() -> None:
    frozen = model("y = Add(x, x)", x="1, 8, 4")
    with pytest.raises(cu.CourseError, match=r"'x' in the shape \[1, 8, 4\] only: its batch is frozen") as caught:
        cu.run_in_batches(frozen, {"x": np.zeros((9, 8, 4), np.float32)})
    assert "dynamic_shapes=({0: 'batch'},)" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("feed", "batch", "sentence"),
    [
        ({"x": np.zeros((3, 8, 4), np.float32)}, 0, "batch=0"),
        ({"x": np.zeros((3, 8, 4), np.float32)}, 2.0, "batch=2.0"),
        ({"x": np.zeros((0, 8, 4), np.float32)}, 2, "at least one"),
        ({}, 2, "at least one"),
        (np.zeros((3, 8, 4), np.float32), 2, "was given a ndarray: it expects a dict"),
        ({"x": np.float32(3)}, 2, "at least one"),
        ({"z": np.zeros((3, 8, 4), np.float32)}, 2, r"named \['x'\]"),
    ],
)
def test_bad_batches(feed: dict, batch: int, sentence: str) -> None:
    with pytest.raises(cu.CourseError, match=sentence):
        cu.run_in_batches(DOUBLE, feed, batch)


def test_written_shapes_leave_weights_out() -> None:
    assert cu.written_shapes(DOUBLE) == {"x": "['batch', 'length', 4]", "y": "['batch', 'length', 4]"}


def test_the_explorer_lives_without_a_kernel() -> None:
    widget = cu.shape_explorer({"free": DOUBLE, "one <b>": model("y = Add(x, x)", x="1, 8, 4")}, [(1, 8, 4), (5, 8, 4)])
    which, shape, outer = widget.children
    pages = [[frame.value for frame in stack.children] for stack in outer.children]
    assert which.options == ("free", "one <b>")
    assert shape.options == ("1 × 8 × 4", "5 × 8 × 4")
    assert "accepted" in pages[0][1]
    assert "Got: 5 Expected: 1" in pages[1][1]
    assert all(f"color:{INK}" in page for stack in pages for page in stack), "text takes the colour of the page"
    assert len(json.dumps(pages)) < 10_000


@pytest.mark.parametrize(("models", "shapes"), [({}, [(1,)]), ({"a": DOUBLE}, []), ({"a": DOUBLE}, [(-1, 8, 4)])])
def test_nothing_to_explore(models: dict, shapes: list) -> None:
    with pytest.raises(cu.CourseError, match="at least one model and one shape"):
        cu.shape_explorer(models, shapes)


def test_the_explorer_takes_one_input() -> None:
    two = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 18]>
        g (float[n] a, float[n] b) => (float[n] y) { y = Add(a, b) }""")
    with pytest.raises(cu.CourseError, match="'two' has 2"):
        cu.shape_explorer({"two": two}, [(3,)])
