"""Neighbours that could be one node, and pairs that undo each other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import TensorProto

from .parts import Scope, attribute, is_op
from .patient import Patient
from .training import normalises_by_batch
from .vocabulary import NOTE, Finding, code, count, finding

BATCHNORM = code(
    "batchnorm-not-folded",
    NOTE,
    "06",
    "BatchNormalization stands behind a convolution whose weights could hold it",
    "ONNX Runtime folds it while loading. For other runtimes, export again with the default exporter, which folds it in the file.",
)
PAIRS = code(
    "pairs-that-cancel",
    NOTE,
    "06",
    "Neighbouring nodes undo each other",
    "ONNX Runtime removes most of them while loading. For other runtimes, simplify the file with onnxslim or onnxsim.",
)
# dtype → dtypes that hold every value of it
_WIDER = {
    TensorProto.FLOAT16: {TensorProto.FLOAT, TensorProto.DOUBLE},
    TensorProto.BFLOAT16: {TensorProto.FLOAT, TensorProto.DOUBLE},
    TensorProto.FLOAT: {TensorProto.DOUBLE},
    TensorProto.INT8: {TensorProto.INT16, TensorProto.INT32, TensorProto.INT64},
    TensorProto.UINT8: {TensorProto.INT16, TensorProto.INT32, TensorProto.INT64},
    TensorProto.INT32: {TensorProto.INT64},
    TensorProto.BOOL: {TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32, TensorProto.INT64, TensorProto.FLOAT},
}


def _only_reader(scope: Scope, name: str) -> int | None:
    """The one node that reads a tensor; None where there are several, or it is an output."""
    readers = scope.readers.get(name, [])
    return readers[0] if len(readers) == 1 and name not in scope.outputs and name not in scope.inner_reads else None


def unfused(patient: Patient) -> Iterator[Finding]:
    found = []
    for scope in patient.scopes:
        for index, node in enumerate(scope.nodes):
            if not is_op(node, "Conv", "ConvTranspose") or not node.output:
                continue
            after = _only_reader(scope, node.output[0])
            if after is None or not is_op(scope.nodes[after], "BatchNormalization"):
                continue
            if normalises_by_batch(scope.nodes[after], scope.version(node) or 1):
                continue  # another finding, and nothing to fold
            stored = [*node.input[1:], *scope.nodes[after].input[1:]]
            if len(node.input) > 1 and all(patient.stored(scope, name) is not None for name in stored if name):
                found.append((scope, index, after))
    if found:
        yield finding(
            BATCHNORM, f"{count(len(found), 'pair')} with constant weights.", [s.place(i) for s, i, _ in found]
        )


def cancelling(patient: Patient) -> Iterator[Finding]:
    types = {
        v.name: v.type.tensor_type.elem_type for v in (*patient.model.graph.input, *patient.model.graph.value_info)
    }
    found = []
    for scope in patient.scopes:
        for index, node in enumerate(scope.nodes):
            if not is_op(node, "Transpose", "Cast") or not node.output or not node.input:
                continue
            after = _only_reader(scope, node.output[0])
            if after is None or not is_op(scope.nodes[after], node.op_type):
                continue
            first, second = (
                attribute(n, "perm" if node.op_type == "Transpose" else "to") for n in (node, scope.nodes[after])
            )
            if node.op_type == "Transpose":
                undone = bool(first) and bool(second) and len(first) == len(second) and _identity(first, second)
            else:
                before = types.get(node.input[0], 0) if not scope.label else 0
                undone = second == before and first in _WIDER.get(before, ())
            if undone:
                found.append(scope.place(index))
    if found:
        yield finding(
            PAIRS, f"{count(len(found), 'pair')} of nodes, one behind the other, whose result is their input.", found
        )


def _identity(first: list[int], second: list[int]) -> bool:
    try:
        return bool(np.array_equal(np.asarray(first)[np.asarray(second)], np.arange(len(first))))
    except IndexError:
        return False


CHECKS = (unfused, cancelling)
