"""What the cases of the hospital (exercises of lesson 09) share: making a patient, and judging what comes back.

Each module beside it holds the cases of one subject. A case is: a patient made from the student's parameters, a
check that judges the healed model by what it computes on hidden inputs, and three hints.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import numpy as np
import onnx

from .. import Criteria
from ..handouts import x_to_y
from ..slips import compare

OPSET, IR = 17, 8
ATOL, RTOL = 1e-5, 1e-4  # a patient is small: what is right agrees closely
judged = partial(compare, atol=ATOL, rtol=RTOL)


def patient(
    name: str,
    nodes: Sequence[onnx.NodeProto],
    weights: Mapping[str, np.ndarray],
    x: list[int | str],
    y: list[int | str],
    *,
    opset: int = OPSET,
    ir_version: int = IR,
) -> onnx.ModelProto:
    """A model from `x` to `y`, both float32; weights that are real numbers are stored as float32."""
    stored = {key: _single(np.asarray(value)) for key, value in weights.items()}
    return x_to_y(name, list(nodes), stored, x, y, {"": opset}, ir_version=ir_version)


def _single(value: np.ndarray) -> np.ndarray:
    return value.astype(np.float32) if value.dtype.kind == "f" else value


def first_dimension(values: Iterable[onnx.ValueInfoProto]) -> int | str | None:
    """The first dimension that the first of these declares: a number, a name, or None where nothing is said."""
    shape = next((value.type.tensor_type.shape.dim for value in values), None)
    if not shape:
        return None
    return shape[0].dim_value if shape[0].HasField("dim_value") else shape[0].dim_param or None


def any_size(model: onnx.ModelProto, criteria: Criteria, what: str) -> bool:
    """Add: the first dimension of the input is no number. what: what is counted there, such as rows."""
    stored = {t.name for t in model.graph.initializer}
    size = first_dimension(v for v in model.graph.input if v.name not in stored)
    return criteria.require(
        f"the input takes any number of {what}",
        not isinstance(size, int),
        f"Its first dimension is the number {size}: ONNX Runtime refuses any other. Give it a name (dim_param), such as "
        f"{what}.",
    )


def promises_any_size(model: onnx.ModelProto, criteria: Criteria, what: str) -> bool:
    """Add: nor is that of the output."""
    size = first_dimension(model.graph.output)
    return criteria.require(
        f"the output promises no number of {what}",
        not isinstance(size, int),
        f"Its first dimension is the number {size}, and the input's is a name: the file contradicts itself.",
    )


def least_on_the_way(graph: onnx.GraphProto, op_types: Sequence[str]) -> int:
    """How many nodes of these types lie on the way from the input to the output that passes the fewest of them.

    What a graph inside a node reads counts as read by the node. 0 where the output does not depend on the input.
    """
    passed = {v.name: 0 for v in graph.input if v.name not in {t.name for t in graph.initializer}}
    for n in graph.node:  # in order, as the checker has made sure
        before = [passed[name] for name in _read_by(n) if name in passed]
        if before:
            passed |= dict.fromkeys(n.output, min(before) + (n.op_type in op_types))
    return min((passed.get(v.name, 0) for v in graph.output), default=0)


def _read_by(node: onnx.NodeProto) -> set[str]:
    inner = [graph for a in node.attribute for graph in (*([a.g] if a.HasField("g") else []), *a.graphs)]
    return {*node.input, *(name for graph in inner for n in graph.node for name in _read_by(n))}


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    """Root mean square of the difference, divided by that of what was expected."""
    difference = got.astype(np.float64) - expected
    return float(np.sqrt(np.mean(difference**2) / np.mean(expected.astype(np.float64) ** 2)))
