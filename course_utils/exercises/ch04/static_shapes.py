"""Task 4.5: a model with free sizes, one of them a formula, that must become static."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .. import Criteria, Criterion, Params
from ..examine import has_io, is_sound, numpy_source, result
from ..slips import outcomes, same

Shape = Sequence[str | int]


def dims_of(value: onnx.ValueInfoProto) -> list[str | int]:
    """The sizes that a file gives for a tensor: numbers, names, "?" for none."""
    return [d.dim_param or (d.dim_value if d.HasField("dim_value") else "?") for d in value.type.tensor_type.shape.dim]


def shape_text(shape: Shape) -> str:
    """[batch, 3]"""
    return "[" + ", ".join(map(str, shape)) + "]"


def draw_static(rng: Random) -> Params:
    """Personal parameters. The two sizes differ, so that it shows when they are exchanged."""
    batch = rng.randint(2, 9)
    return {"seed": rng.randrange(10**6), "batch": batch, "length": batch + rng.randint(1, 9)}


def free_model(p: Params) -> onnx.ModelProto:
    """Twice the mean over a sequence of any length; one tensor inside has a formula of the length in its shape."""
    values = np.random.default_rng(p["seed"])
    weight = values.normal(0, 1, (6, 4)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["projected"]),
        helper.make_node("Tanh", ["projected"], ["active"]),
        helper.make_node("Concat", ["active", "active"], ["doubled"], axis=1),
        helper.make_node("Shape", ["x"], ["sizes"]),
        helper.make_node("Gather", ["sizes", "one"], ["steps"], axis=0),
        helper.make_node("Cast", ["steps"], ["divisor"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["doubled", "axis"], ["total"], keepdims=0),
        helper.make_node("Div", ["total", "divisor"], ["y"]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "free",
        [info("x", TensorProto.FLOAT, ["batch", "length", 6])],
        [info("y", TensorProto.FLOAT, ["batch", 4])],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(np.array(1, np.int64), "one"),
            numpy_helper.from_array(np.array([1], np.int64), "axis"),
        ],
        value_info=[
            info("projected", TensorProto.FLOAT, ["batch", "length", 4]),
            info("active", TensorProto.FLOAT, ["batch", "length", 4]),
            info("doubled", TensorProto.FLOAT, ["batch", "2*length", 4]),
            info("total", TensorProto.FLOAT, ["batch", 4]),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def check_static(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    """The check of the task."""
    criteria, free = Criteria(), free_model(p)
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    (x_info,) = (v for v in model.graph.input if v.name == "x")
    ends = {
        "x": (dims_of(x_info), [p["batch"], p["length"], 6]),
        "y": (dims_of(model.graph.output[0]), [p["batch"], 4]),
    }
    wrong = next((name for name, (got, want) in ends.items() if got != want), "")
    criteria.add(
        f"x has the shape {shape_text(ends['x'][1])}, and y {shape_text(ends['y'][1])}",
        not wrong,
        _end_hint(wrong, *ends[wrong], p) if wrong else "",
    )
    _inside(model, free, p, criteria)
    feed = {"x": numpy_source(rng).normal(0, 1, (p["batch"], p["length"], 6)).astype(np.float32)}
    (ran,) = outcomes(model, [feed])
    criteria.require(
        "it computes what the free model computes",
        same(ran.got, result(free, feed)),
        "Only sizes may be changed: begin again with the given file."
        if ran.said == ""
        else f"It is refused: {ran.said}",
    )
    return criteria


def _end_hint(name: str, got: list[str | int], want: list[str | int], p: Params) -> str:
    if name == "x" and got[:2] == [p["length"], p["batch"]]:
        return "Batch and length are exchanged."
    if names := [d for d in got if isinstance(d, str)]:
        return (
            f"{name} is {shape_text(got)}: {names[0]!r} is still a name. Call make_dim_param_fixed for each name, with the "
            f"name as it stands in the file; fix_output_shapes sees to the outputs."
        )
    return f"{name} is {shape_text(got)}, and your sizes are batch {p['batch']} and length {p['length']}."


def _inside(model: onnx.ModelProto, free: onnx.ModelProto, p: Params, criteria: Criteria) -> None:
    sizes: dict[str | int, int] = {"batch": p["batch"], "length": p["length"], "2*length": 2 * p["length"]}
    wanted = {v.name: [sizes.get(d, d) for d in dims_of(v)] for v in free.graph.value_info}
    found = {v.name: dims_of(v) for v in model.graph.value_info if v.type.tensor_type.HasField("shape")}
    named = [name for name, dims in found.items() if any(isinstance(d, str) for d in dims)]
    missing = [name for name in wanted if name not in found]
    other = [name for name, dims in wanted.items() if name in found and found[name] != dims]
    at_the_ends = {d for v in (*model.graph.input, *model.graph.output) for d in dims_of(v) if isinstance(d, str)}
    if named and at_the_ends:
        hint = (
            f"{', '.join(named[:4])} still {'has' if len(named) == 1 else 'have'} a name in the shape, as x or y has."
        )
    elif named:
        hint = f"{', '.join(named[:4])} still {'has' if len(named) == 1 else 'have'} a name in the shape: " + (
            "a formula of a name is not replaced. Empty graph.value_info and run shape inference anew."
            if named == ["doubled"]
            else "the ends were changed by hand; make_dim_param_fixed goes through the whole graph."
        )
    elif missing:
        hint = (
            f"{', '.join(missing)} have no shape in the file: run onnx.shape_inference.infer_shapes and save what it "
            f"returns."
        )
    else:
        hint = f"{', '.join(other)} have other sizes than they will have: run shape inference anew."
    criteria.add("every tensor inside has its size as numbers", not (named or missing or other), hint)
