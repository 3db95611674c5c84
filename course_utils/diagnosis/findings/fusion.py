"""Neighbours that could be one node, and pairs that undo each other."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import NodeProto, TensorProto

from ..parts import Scope, attribute, is_op
from ..patient import Patient
from ..vocabulary import NOTE, Finding, code, count, finding, nodes
from .training import drops, normalises_by_batch

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
IDLE = code(
    "nodes-without-effect",
    NOTE,
    "06",
    "Nodes pass on what they are given",
    "ONNX Runtime removes them while loading. For other runtimes, simplify the file with onnxslim or onnxsim.",
)
_LEAST_IDLE = 3  # nodes in a row
# dtype → dtypes that hold every value of it
_WIDER: dict[int, set[int]] = {
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
    found = []
    for scope in patient.scopes:
        used: set[int] = set()  # of three in a row, the middle one is in one pair
        for index, node in enumerate(scope.nodes):
            if index in used or not is_op(node, "Transpose", "Cast") or not node.output or not node.input:
                continue
            after = _only_reader(scope, node.output[0])
            if after is None or not is_op(scope.nodes[after], node.op_type):
                continue
            first, second = (
                attribute(n, "perm" if node.op_type == "Transpose" else "to") for n in (node, scope.nodes[after])
            )
            if node.op_type == "Transpose":
                undone = first == second is None or _undoes(first or [], second or [])
            else:
                before = _dtype(patient, scope, node.input[0])
                undone = second == before and first in _WIDER.get(before, ())
            if undone:
                used.add(after)
                found.append(scope.place(index))
    if found:
        yield finding(
            PAIRS, f"{count(len(found), 'pair')} of nodes, one behind the other, whose result is their input.", found
        )


def _dtype(patient: Patient, scope: Scope, name: str) -> int:
    """The dtype of a tensor; 0 where it is not known."""
    return scope.declared.get(name) or (0 if scope.label else patient.tensor_types.get(name, 0))


def idle(patient: Patient) -> Iterator[Finding]:
    """Chains of nodes that pass their input on. One alone is common: an output that is an input, a name for a weight."""
    found = []
    for scope in patient.scopes:
        passes = [bool(n.input) and bool(n.output) and _passes_on(patient, scope, n) for n in scope.nodes]
        for index, node in enumerate(scope.nodes):
            before = scope.producer.get(node.input[0]) if node.input else None
            if not passes[index] or (before is not None and passes[before]):
                continue  # no beginning of a chain
            chain, last = {index: None}, index  # in order; a graph may run in a circle
            while (after := _only_reader(scope, scope.nodes[last].output[0])) is not None and passes[after]:
                if after in chain:
                    break
                chain[after], last = None, after
            if len(chain) >= _LEAST_IDLE:
                found += [scope.place(i) for i in chain]
    if found:
        yield finding(IDLE, f"{nodes(len(found))}, one behind the other, give what they are given.", found)


def _passes_on(patient: Patient, scope: Scope, node: NodeProto) -> bool:
    if is_op(node, "Transpose"):
        perm = attribute(node, "perm") or [0]
        return len(perm) > 1 and list(perm) == list(range(len(perm)))
    if is_op(node, "Cast"):
        return attribute(node, "to") == _dtype(patient, scope, node.input[0])
    if is_op(node, "Dropout"):
        return not drops(patient, scope, node, scope.version(node) or 1)
    return is_op(node, "Identity")


def _undoes(first: list[int], second: list[int]) -> bool:
    try:
        return len(first) == len(second) > 0 and [first[i] for i in second] == list(range(len(first)))
    except IndexError:
        return False


CHECKS = (unfused, cancelling, idle)
