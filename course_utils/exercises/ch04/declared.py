"""What a file declares about the shapes of its inputs and outputs, against what a task of lesson 04 asks for."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from .. import Criteria
from .static_shapes import Shape, dims_of, shape_text


def declares(model: onnx.ModelProto, wanted: Mapping[str, Shape], criteria: Criteria) -> bool:
    """Add, for each input and output: its dimensions are named and numbered as the task says."""
    initialized = {t.name for t in model.graph.initializer}
    right = True
    for value in (*model.graph.input, *model.graph.output):
        if value.name not in initialized:
            got, want = dims_of(value), list(wanted[value.name])
            right &= criteria.require(
                f"{value.name} has the shape {shape_text(want)}", got == want, _shape_hint(got, want)
            )
    return right


def _shape_hint(got: list[str | int], want: list[str | int]) -> str:
    says = f"The file says {shape_text(got)}."
    if len(got) != len(want):
        return f"{says} It must have {len(want)} axes."
    if sorted(map(str, got)) == sorted(map(str, want)):
        return f"{says} The names are right, and stand in each other's places."
    for axis, (g, w) in enumerate(zip(got, want, strict=True)):
        if isinstance(g, int) and isinstance(w, str):
            return f"{says} Axis {axis} is frozen at {g}: name it {w!r} in dynamic_shapes, and see whether the exporter kept it."
        if isinstance(w, int) and g != w:
            return f"{says} Axis {axis} must stay the number {w}: leave it out of dynamic_shapes."
        if g != w:
            return f"{says} Axis {axis} is free, but its name must be {w!r}: give it as a label, not as Dim.AUTO or Dim.DYNAMIC."
    return says
