"""What the tasks share whose answer is an exported module: one input, one output, any number of rows."""

from __future__ import annotations

import onnx

from ...lab.graphs import type_text
from .. import Criteria
from ..examine import has_io

LOOK = "Feed it inputs that differ in what matters, and compare with PyTorch: cu.parity(model, path, x)."


def one_to_one(model: onnx.ModelProto, criteria: Criteria) -> bool:
    """Add: one input `x` and one output, both float32. Some mechanisms choose the output's name themselves."""
    name = model.graph.output[0].name if len(model.graph.output) == 1 else "y"
    return has_io(model, {"x": "float"}, {name: "float"}, criteria)


def any_first(model: onnx.ModelProto, width: int, name: str, what: str, criteria: Criteria) -> bool:
    """Add: x is [any number of `what`, width]."""
    (value,) = (v for v in model.graph.input if v.name == "x")
    dims = value.type.tensor_type.shape.dim
    return criteria.require(
        f"x takes any number of {what} of {width}",
        len(dims) == 2 and not dims[0].HasField("dim_value") and dims[1].dim_value == width,
        f"Its shape is {type_text(value)[1]}. The first dimension must be a name such as {name!r}: "
        f"dynamic_shapes=({{0: torch.export.Dim.DYNAMIC}},). The second one is {width}.",
    )
