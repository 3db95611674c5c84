"""Probing sizes, running in batches, and the shape explorer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto
from torch import nn

import course_utils as cu
from course_utils.running import session_for
from course_utils.style import INK


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


def unnamed(inputs: str, body: str) -> ModelProto:
    return onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["": 18]>
        g ({inputs}) => (float[?, ?] y) {{ {body} }}""")


@pytest.mark.parametrize("dims", [("?", "?"), ("x_batch", "m_batch")])
@pytest.mark.parametrize("rows", [1, 3])
def test_sizes_that_only_change_together(dims: tuple[str, str], rows: int) -> None:
    """Two inputs of one batch, under no name or under two: the older exporter writes two where it is given numbers of axes."""
    both = unnamed(f"float[{dims[0]}, 4] x, float[{dims[1]}, 4] m", "y = Concat<axis = 1>(x, m)")
    table = cu.probe_sizes(both, (torch.randn(rows, 4), torch.randn(rows, 4)))
    assert list(table["dimension"]) == ["x[0], m[0]", "x[1]", "m[1]"]
    assert table["verdict"][0] == "free"


def test_sizes_that_change_together_within_one_input() -> None:
    square = unnamed("float[?, ?] x", "t = Transpose(x)  y = Concat<axis = 0>(x, t)")
    table = cu.probe_sizes(square, torch.randn(4, 4))
    assert list(table["dimension"]) == ["x[0], x[1]"]
    assert table["verdict"][0] == "free"


def test_sizes_that_fail_together_as_well_stay_apart() -> None:
    stiff = unnamed("float[?, ?] x", "y = Reshape(x, s)")
    stiff.graph.initializer.append(onnx.numpy_helper.from_array(np.array([4, 4]), "s"))
    table = cu.probe_sizes(stiff, torch.randn(4, 4))
    assert list(table["dimension"]) == ["x[0]", "x[1]"]
    assert set(table["verdict"]) == {"says any, takes 4 only"}


def test_sizes_that_change_alone_stay_alone() -> None:
    apart = unnamed("float[?, ?] x, float[?, ?] m", "a = ReduceSum<keepdims = 1>(m)  y = Add(x, a)")
    table = cu.probe_sizes(apart, (torch.randn(3, 3), torch.randn(3, 3)))
    assert list(table["dimension"]) == ["x[0]", "x[1]", "m[0]", "m[1]"]
    assert set(table["verdict"]) == {"free"}


class Counting(nn.Module):
    """Keeps things from call to call in every way that a module has, and changes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("calls", torch.zeros(1))
        self.register_buffer("seen", None)
        self.last = torch.zeros(1)
        self.total = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls = self.calls + 1
        self.seen = x.detach().clone()
        self.last += 1
        self.total += 1
        y = self.norm(x) * 0 + x
        x.zero_()
        return y


def test_the_module_and_the_inputs_stay_as_they_are(folder: Path) -> None:
    module, x = Counting().train(), torch.randn(5, 4)
    state, given = {k: v.clone() for k, v in module.state_dict().items()}, x.clone()
    same = model("y = Identity(x)", x="batch, 4")
    assert verdicts(same, x, module) == ["free", "takes 4 only, as in PyTorch"]
    assert cu.parity(module, same, x).within
    trial = cu.try_export(lambda m, a, f: onnx.save(same, f), module, (x,), "same.onnx", {"x": (x,)})
    assert trial.verdict == "right", trial
    assert torch.equal(x, given)
    assert module.training
    assert module.norm.training
    assert module.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert (module.total, module.seen, module.last.item()) == (0, None, 0)


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


def recurrent(steps: str = "T", batch: str = "N") -> ModelProto:
    """A GRU that takes the batch first, as `nn.GRU(batch_first=True)`; all its states have the batch on axis 2, the last on 1."""
    rng = np.random.default_rng(0)
    made = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["": 18]>
        g (float[{batch}, {steps}, 3] x) => (float[a, b, c, 4] states, float[d, e, 4] last, float[{batch}, f] flat) {{
            t = Transpose<perm = [1, 0, 2]>(x)  states, last = GRU<hidden_size = 4>(t, w, r)
            flat = Flatten<axis = 1>(x) }}""")
    weights = {"w": rng.normal(size=(1, 12, 3)), "r": rng.normal(size=(1, 12, 4))}
    made.graph.initializer.extend(onnx.numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items())
    return made


def only(made: ModelProto, name: str) -> ModelProto:
    """The model with one of its outputs."""
    kept = [output for output in made.graph.output if output.name == name]
    del made.graph.output[:]
    made.graph.output.extend(kept)
    return made


@pytest.mark.parametrize(
    ("output", "count", "length", "batch"),
    [
        ("states", 8, 5, 4),
        ("states", 8, 4, 4),  # as many steps as examples in a part, by chance
        ("states", 12, 4, 4),
        ("last", 8, 5, 4),
        ("last", 8, 5, 1),  # one row for one example, by chance
        ("last", 3, 5, 64),
    ],
)
def test_examples_that_are_not_on_axis_0_are_not_joined(output: str, count: int, length: int, batch: int) -> None:
    x = np.random.default_rng(1).normal(size=(count, length, 3)).astype(np.float32)
    with pytest.raises(
        cu.CourseError, match=rf"output '{output}' has the shape .* examples: .* along axis 0"
    ) as caught:
        cu.run_in_batches(only(recurrent(), output), {"x": x}, batch)
    assert "\n" not in str(caught.value)
    assert np.array_equal(cu.run_in_batches(only(recurrent(), "flat"), {"x": x}, batch)["flat"], x.reshape(count, -1))


@pytest.mark.parametrize(
    ("body", "y", "words"),
    [
        ("y = ReduceSum<keepdims = 0>(x)", "", r"output 'y' has the shape \[\] for 2 examples"),
        ("y = ReduceSum<keepdims = 1>(x)", "1, 1, 1", r"output 'y' has the shape \[1, 1, 1\] for 2 examples"),
        ("y = Relu(x)", "a, b, c", None),
        ("y = SequenceConstruct(x)", "seq", r"output 'y' is a list and no tensor"),
        ("m = ReduceMax<keepdims = 0>(x)  n = Cast<to = 7>(m)  o = Reshape(n, one)  s = Shape(x)  "
         "b = Slice(s, zero, one)  e = Concat<axis = 0>(b, o)  y = ConstantOfShape(e)", "a, b",
         r"output 'y' differ in the shape of an example, such as \[1\] and \[3\]"),
    ],
)  # fmt: skip
def test_outputs_that_cannot_be_joined(body: str, y: str, words: str | None) -> None:
    kind = "seq(float[b, c, d])" if y == "seq" else f"float[{y}]" if y else "float"
    made = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["": 18]>
        g (float[batch, length, 4] x) => ({kind} y) <int64[1] one = {{1}}, int64[1] zero = {{0}}> {{ {body} }}""")
    x = np.zeros((4, 8, 4), np.float32)
    x[:2], x[2:] = 1, 3
    if words is None:
        assert cu.run_in_batches(made, {"x": x}, 2)["y"].shape == (4, 8, 4)
        return
    with pytest.raises(cu.CourseError, match=words):
        cu.run_in_batches(made, {"x": x}, 2)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (
            "float[N, 4] x, float[1, N, 4] state",
            r"input 'state' has the shape \[1, 'N', 4\]: its axis 0 has the fixed size 1",
        ),
        ("float[N, 4] x, float threshold", "input 'threshold' is a single number"),
        ("float[8, N, 4] x", r"input 'x' has the shape \[8, 'N', 4\]: its axis 0 has the fixed size 8"),
    ],
)
def test_an_axis_that_is_no_batch_is_not_called_one(inputs: str, words: str) -> None:
    made = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["": 18]>
        g ({inputs}) => (float[M, 4] y) {{ y = Identity(x) }}""")
    with pytest.raises(cu.CourseError, match=words) as caught:
        cu.run_in_batches(made, {"x": np.zeros((8, 4), np.float32)})
    assert "batch is frozen" not in str(caught.value)


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
