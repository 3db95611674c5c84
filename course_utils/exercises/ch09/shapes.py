"""The hospital: shapes. A fixed batch, and shapes that nobody knows."""

from __future__ import annotations

from functools import partial
from random import Random

import numpy as np
import onnx
from onnx import helper

from ...errors import CourseError
from ...running import run_all
from .. import Criteria, Criterion, Params, Task
from ..examine import computes, every_node, has_io, is_sound, numpy_source, result
from .hospital import any_size, judged, patient, promises_any_size

node = helper.make_node

# 9.1: fixed batch


def _draw_batch(rng: Random) -> Params:
    return {"batch": rng.choice([1, 2, 4]), "features": rng.choice([6, 8, 10]), "seed": rng.getrandbits(32)}


def _fixed(p: Params, rows: int | str | None = None, stored: int | None = None) -> onnx.ModelProto:
    """rows: the first dimension of input and output. stored: the number of rows in the shapes that Reshape reads."""
    rows, stored = (p["batch"] if rows is None else rows), (p["batch"] if stored is None else stored)
    draw = np.random.default_rng(p["seed"])
    nodes = [
        node("MatMul", ["x", "weight1"], ["h"], "layer1"),
        node("Reshape", ["h", "table"], ["t"], "to_table"),
        node("Transpose", ["t"], ["u"], "turn", perm=[0, 2, 1]),
        node("Relu", ["u"], ["v"], "activation"),
        node("Reshape", ["v", "flat"], ["w"], "to_rows"),
        node("MatMul", ["w", "weight2"], ["y"], "layer2"),
    ]
    weights = {
        "weight1": draw.normal(0, 1, (p["features"], 12)),
        "weight2": draw.normal(0, 1, (12, 3)),
        "table": np.array([stored, 3, 4]),
        "flat": np.array([stored, 12]),
    }
    return patient("fixed", nodes, weights, [rows, p["features"]], [rows, 3])


def _check_batch(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not any_size(model, criteria, "rows") or not promises_any_size(model, criteria, "rows"):
        return criteria
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    source, free = numpy_source(rng), _fixed(p, "batch", -1)
    stored = {t.name: t for t in model.graph.initializer}
    shapes = [name for n in model.graph.node if n.op_type == "Reshape" for name in n.input[1:]]
    frozen = [s for s in shapes if s in stored and onnx.numpy_helper.to_array(stored[s]).ravel()[:1].tolist() > [0]]
    hint = (
        f"Reshape reads the stored shape {frozen[0]}, which begins with a number of rows: there the batch is frozen, too. "
        "0 stands for “as it was”, -1 for “what is left”."
        if frozen
        else "Start again from the patient: only sizes are wrong in it."
    )
    for rows in (p["batch"], p["batch"] + 1, int(source.integers(6, 40))):
        x = source.normal(0, 1, (rows, p["features"])).astype(np.float32)
        what = f"it computes the right result for {rows} row{'s' * (rows > 1)}"
        if not computes(model, {"x": x}, result(free, {"x": x}), Criteria(), what, "") and frozen:
            criteria.add(what, False, hint)
        else:
            computes(model, {"x": x}, result(free, {"x": x}), criteria, what, hint)
    return criteria


# 9.13: unknown shapes


def _draw_unknown(rng: Random) -> Params:
    return {
        "channels": rng.choice([4, 6, 8]),
        "size": rng.choice([6, 8, 10]),
        "parts": rng.choice([2, 4]),
        "seed": rng.getrandbits(32),
    }


def _unknown(p: Params) -> onnx.ModelProto:
    """Optimised offline: behind an operator of com.microsoft, onnx does not know any shape."""
    draw, c, size = np.random.default_rng(p["seed"]), p["channels"], p["size"]
    features = c * size * size // p["parts"]
    nodes = [
        node("Conv", ["x", "filters"], ["c"], "conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Gelu", ["c"], ["g"], "gelu", domain="com.microsoft"),
        node("Shape", ["g"], ["shape"], "shape"),
        node("Gather", ["shape", "zero"], ["rows"], "rows", axis=0),
        node("Concat", ["rows", "rest"], ["target"], "target", axis=0),
        node("Reshape", ["g", "target"], ["t"], "reshape"),
        node("MatMul", ["t", "weight"], ["m"], "product"),
        node("ReduceMean", ["m"], ["y"], "mean", axes=[1], keepdims=0),
    ]
    weights = {
        "filters": draw.normal(0, 0.5, (c, 3, 3, 3)),
        "weight": draw.normal(0, 0.2, (features, 5)),
        "zero": np.array([0]),
        "rest": np.array([p["parts"], features]),
    }
    model = patient("unknown", nodes, weights, ["batch", 3, size, size], ["batch", 5])
    model.opset_import.add(domain="com.microsoft", version=1)
    return model


def _check_unknown(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    hidden = len(list(every_node(model))) - len(model.graph.node)
    if not criteria.require(
        "all nodes stand in the main graph",
        not hidden,
        f"{hidden} nodes stand in functions or subgraphs, where value_info says nothing about them. Leave the nodes as they are.",
    ):
        return criteria
    inner = [name for n in model.graph.node for name in n.output if name not in ("", "y")]
    known = {v.name: v.type.tensor_type for v in model.graph.value_info if v.type.HasField("tensor_type")}
    blank = [name for name in inner if name not in known or not known[name].HasField("shape")]
    if not criteria.require(
        "every tensor between the nodes has a shape in the file",
        bool(inner) and not blank,
        f"Unknown: {', '.join(blank)[:200] or 'all'}. onnx.shape_inference does not know com.microsoft::Gelu, and stops there: "
        "the inference of ONNX Runtime does.",
    ):
        return criteria
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    source, size = numpy_source(rng), p["size"]
    wrong: list[str] = []
    frozen = False
    for rows in (1, int(source.integers(2, 9))):
        feed = {"x": source.normal(0, 1, (rows, 3, size, size)).astype(np.float32)}
        try:
            seen = run_all(model, feed)
        except CourseError as error:
            criteria.require("it runs", False, str(error))
            return criteria
        for name in inner:
            dims = [d.dim_value if d.HasField("dim_value") else d.dim_param for d in known[name].shape.dim]
            declared = [rows if d == "batch" else d for d in dims]
            if declared != list(seen[name].shape) and name not in wrong:
                wrong.append(name)
                frozen |= bool(dims) and isinstance(dims[0], int) and len(dims) == seen[name].ndim > 1
    hint = f"Not so for {', '.join(wrong)[:200]}. "
    hint += (
        "The number of rows is frozen there: infer with the input as it is, its first dimension named batch."
        if frozen
        else "Sizes must be numbers, and the first dimension must have the name that the input gives it: batch."
    )
    criteria.require("the shapes are those that tensors have in a run", not wrong, hint)
    x = source.normal(0, 1, (3, 3, size, size)).astype(np.float32)
    judged(
        model,
        {"it computes what it computed": [{"x": x}]},
        partial(result, _unknown(p)),
        {},
        criteria,
        otherwise="Only value_info is to be added.",
    )
    return criteria


FIXED_BATCH = Task(
    "9.1",
    "Fixed batch",
    "onnx",
    _check_batch,
    _draw_batch,
    lambda p: {"9.1.onnx": _fixed(p)},
    (
        "Where does the number of rows stand in this file? The input is one place, and not the only one.",
        "Give the first dimension of x and of y a name. Then feed two sizes: which node complains now, and what does it read?",
        "Besides the two dim_param, change the stored shapes table and flat, which Reshape reads: their first number "
        "becomes 0 (take it from the input) or -1 (work it out).",
    ),
    points=3,
)
UNKNOWN = Task(
    "9.13",
    "Unknown shapes",
    "onnx",
    _check_unknown,
    _draw_unknown,
    lambda p: {"9.13.onnx": _unknown(p)},
    (
        "From which node on are the shapes unknown? Who defined that operator?",
        "onnx knows standard operators only. ONNX Runtime brings an inference of its own, which keeps names of dimensions.",
        "from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference; its method infer_shapes(model, "
        "auto_merge=True) returns the model with value_info.",
    ),
    points=1,
)
