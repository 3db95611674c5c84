"""Task 8.3: a variant of a model for an accelerator of a phone."""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ...running import run, session_for
from .. import Criteria, Criterion, Params
from ..activations import MEANINGS, Meaning, likely_slip
from ..examine import computes, has_io, is_sound, numpy_source
from ..handouts import x_to_y

_ACCELERATORS = {"NNAPI": "nnapi_supported_ops.md", "CoreML MLProgram": "coreml_supported_mlprogram_ops.md"}
_ACTIVATIONS = ("HardSwish", "Mish", "Softsign")


def draw_mobile(rng: Random) -> Params:
    return {
        "accelerator": rng.choice(sorted(_ACCELERATORS)),
        "activation": rng.choice(_ACTIVATIONS),
        "seed": rng.randrange(10**6),
    }


def for_the_server(p: Params) -> onnx.ModelProto:
    """Two convolutions with an activation that the accelerator lacks, and a free batch."""
    draw = np.random.default_rng(p["seed"])
    shapes = {"w1": (6, 3, 3, 3), "w2": (4, 6, 3, 3)}
    weights = {name: draw.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}
    same: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], "conv_1", **same),
        helper.make_node(p["activation"], ["c1"], ["a1"], "activate_1"),
        helper.make_node("Conv", ["a1", "w2"], ["c2"], "conv_2", **same),
        helper.make_node(p["activation"], ["c2"], ["a2"], "activate_2"),
        helper.make_node("GlobalAveragePool", ["a2"], ["y"], "pool"),
    ]
    return x_to_y("server", nodes, weights, ["batch", 3, 8, 8], ["batch", 4, 1, 1], {"": 22}, ir_version=10)


def _usability_checker() -> tuple[Any, Any]:
    """The checker, and its reader of models, without PyTorch: onnxruntime.tools loads it for an exporter, in two seconds."""
    import onnxruntime

    package = "onnxruntime.tools"
    if package in sys.modules:
        return _imported(package)
    bare = ModuleType(package)
    bare.__path__ = [str(Path(onnxruntime.__file__).parent / "tools")]
    sys.modules[package] = bare
    try:
        return _imported(package)
    finally:
        del sys.modules[package]  # who imports the package later gets all of it


def _imported(package: str) -> tuple[Any, Any]:
    checker = importlib.import_module(f"{package}.mobile_helpers.usability_checker")
    return checker, importlib.import_module(f"{package}.onnx_model_utils").ModelProtoWithShapeInfo


def _verdict(model: onnx.ModelProto, accelerator: str) -> Any:
    """What the usability checker finds: a PartitioningInfo. Shapes are inferred as the checker does it."""
    checker, reader = _usability_checker()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.onnx")
        onnx.save(model, file)
        known = reader(file).model_with_shape_info
    if accelerator == "NNAPI":
        return checker.check_nnapi_partitions(known, True)
    return checker.check_coreml_partitions(known, True, _ACCELERATORS[accelerator])


def check_mobile(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria, where = Criteria(), p["accelerator"]
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    if not criteria.require(
        "the model has no functions",
        not model.functions,
        "A function hides its nodes: write the nodes into the graph.",
    ):
        return criteria
    x = numpy_source(rng).normal(0, 1.5, (1, 3, 8, 8)).astype(np.float32)
    right = MEANINGS[p["activation"]]

    def cause() -> str:
        got = run(session_for(model), {"x": x})["y"]
        if np.allclose(got, _with_activations(p, x, _nothing, _nothing), atol=1e-4):
            return "The activations were taken out: they must be replaced."
        return likely_slip(p["activation"], got, lambda first, second: _with_activations(p, x, first, second))

    expected, what = _with_activations(p, x, right, right), "it computes what it computed"
    if not computes(model, {"x": x}, expected, criteria, what, cause, atol=1e-4, condition=True):
        return criteria
    (x_info,) = (value for value in model.graph.input if value.name == "x")
    dims = [d.dim_value if d.HasField("dim_value") else d.dim_param for d in x_info.type.tensor_type.shape.dim]
    fixed = criteria.add(
        "the input is exactly [1, 3, 8, 8]",
        dims == [1, 3, 8, 8],
        f"It is {dims}: make_dim_param_fixed(model.graph, 'batch', 1) fixes a free dimension."
        if "batch" in dims
        else f"It is {dims}.",
    )
    left = [node.name for node in model.graph.node if node.op_type == p["activation"]]
    criteria.add(
        f"{p['activation']} is gone",
        not left,
        f"It is still there: {', '.join(left)}. Replace it by nodes that {where} takes.",
    )
    try:
        found = _verdict(model, where)
        verdict = found.suitability().name
    except Exception as error:  # it stumbles over some valid models, such as one without nodes
        words = " ".join(str(error).split())[:200]
        criteria.require("the checker can read the graph", False, f"The usability checker fails on it: {words}.")
        return criteria
    lacks = sorted(op.removeprefix("ai.onnx:") for op in found.unsupported_ops)
    cause_of_no = "Some shapes are unknown." if fixed else "The free batch counts against every node."
    if lacks:
        cause_of_no = f"{where} lacks {', '.join(lacks)}."
    if lacks == ["Constant"]:
        cause_of_no = "Constant nodes count, too: write their values as initializers."
    # A YES allows a quarter of the nodes to stay behind, so many nodes that do nothing could buy one.
    criteria.add(
        f"the checker says YES for {where}, and it takes every node",
        verdict == "YES" and found.num_supported_nodes == found.num_nodes,
        f"It says {verdict}, for {found.num_supported_nodes} of {found.num_nodes} nodes, in {found.num_partitions} pieces. "
        f"{cause_of_no}",
    )
    return criteria


def _nothing(v: np.ndarray) -> np.ndarray:
    return v


def _with_activations(p: Params, x: np.ndarray, *activations: Meaning) -> np.ndarray:
    """What the handed-out network computes, with these functions in the place of its two activations."""
    value = x.astype(np.float64)
    kernels = map(numpy_helper.to_array, for_the_server(p).graph.initializer)
    for kernel, activation in zip(kernels, activations, strict=True):
        padded = np.pad(value, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
        with np.errstate(all="ignore"):
            value = activation(np.einsum("nchwij,ocij->nohw", windows, kernel))
    return value.mean((2, 3), keepdims=True)
