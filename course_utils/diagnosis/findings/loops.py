"""Loops that were written out step by step.

How they are found: each node of the main graph gets a number for what it does: its operator, its attributes, and which
stored tensors it reads. Two layers of a network have weights of their own, so their numbers differ. The steps of a loop
read the same weights, or none, so their numbers repeat, in the order of the file, with a period: the length of one step.
Whole numbers of one element, such as the index of a step, count as equal. What repeats at least four times is a loop if
each step also reads a result of the step before: branches side by side, as the heads of a detector, are none. And a step
computes: a chain that only moves or converts its data, or applies one function again and again, is none. Nor are layers
that happen to have the same weights, as those of an untrained encoder: exporters name the module that a node comes from.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

import numpy as np
from onnx import NodeProto, TensorProto

from ..parts import Scope, is_op
from ..patient import Patient
from ..vocabulary import NOTE, Finding, code, finding, nodes

UNROLLED = code(
    "loop-unrolled",
    NOTE,
    "03",
    "A loop stands in the file step by step",
    "The number of steps is frozen. If it should follow the input, export with scan, as lesson 03 shows, or with "
    "while_loop of torch. If it never changes, leave it.",
)
LEAST_STEPS = 4
LEAST_NODES = 12  # in all steps together: four of the same in a row can be a chain, such as of MaxPool
LONGEST_STEP = 400  # nodes
_LONGEST_NAME = 2000  # characters that are looked at
# Operators of several inputs that compute nothing from them: they move or convert data, or cut it off.
_MOVES = {
    "Reshape", "Squeeze", "Unsqueeze", "Expand", "Tile", "Pad", "Slice", "Split", "Concat", "Gather", "GatherElements", "GatherND",
    "CastLike", "QuantizeLinear", "DequantizeLinear", "Clip", "Dropout", "Resize", "Upsample", "Trilu", "Range", "SequenceAt",
    "SequenceInsert", "SequenceConstruct", "ReverseSequence",
}  # fmt: skip
_INTEGERS = (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)


def unrolled(patient: Patient) -> Iterator[Finding]:
    scope = patient.main
    index = [i for i, n in enumerate(scope.nodes) if not is_op(n, "Constant", "Identity")]
    numbers: dict[bytes, int] = {}
    does = np.array([numbers.setdefault(_does(patient, scope, scope.nodes[i]), len(numbers)) for i in index])
    taken = np.zeros(len(index), bool)
    for period in range(1, min(LONGEST_STEP, len(index) // LEAST_STEPS) + 1):
        for start, stop in _runs(does[period:] == does[:-period], (LEAST_STEPS - 1) * period):
            steps = (stop - start) // period + 1  # the last step has no partner behind it
            end = start + steps * period
            if steps * period < LEAST_NODES or taken[start:end].any():
                continue  # two steps are a period, too
            if not _is_loop(scope, index[start:end], period, dict(zip(index, does.tolist(), strict=True))):
                continue
            first, second = index[start : start + period], index[start + period : start + 2 * period]
            if not any(map(_computes, (scope.nodes[i] for i in first))) or _other_modules(scope, first, second):
                continue
            taken[start:end] = True
            ops = [scope.nodes[i].op_type for i in index[start : start + period]]
            shown = ", ".join(ops[:6]) + (" …" if period > 6 else "")
            text = f"{steps} steps of {nodes(period)} each ({shown}), which read the same weights, or none."
            yield finding(UNROLLED, text, [scope.place(i) for i in index[start:end]])


def _computes(node: NodeProto) -> bool:
    """Whether a node makes something new of several tensors: a sum, a product, a layer."""
    return len([name for name in node.input if name]) > 1 and not is_op(node, *_MOVES)


def _other_modules(scope: Scope, first: list[int], second: list[int]) -> bool:
    """Whether most nodes of one step come from other modules than their partners in the next step."""
    pairs = [(_module(scope.nodes[i]), _module(scope.nodes[j])) for i, j in zip(first, second, strict=True)]
    return sum(a != b for a, b in pairs) > len(pairs) // 2


def _module(node: NodeProto) -> str:
    """The module that a node comes from, as the exporters of PyTorch write it; empty where nothing tells.

    The default one lists the modules and then the operator: ['', 'layers.0', 'layers.0.norm', 'add_3']. In the names of the
    older one, `/layers.0/norm/Add`, each further call of one module has a number more: `/layers.0/norm_1/Add`.
    """
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            return str(re.findall(r"'([^']*)'", str(entry.value)[:_LONGEST_NAME])[:-1])
    return re.sub(r"_\d+(?=/)", "", str(node.name)[:_LONGEST_NAME]).rpartition("/")[0]


def _does(patient: Patient, scope: Scope, node: NodeProto) -> bytes:
    """What a node does, as bytes: the same for the same operator, attributes and stored inputs."""
    parts = [node.domain.encode() if isinstance(node.domain, str) else node.domain, str(node.op_type).encode()]
    parts += sorted(a.SerializeToString(deterministic=True) for a in node.attribute)
    for name in node.input:
        tensor = patient.stored(scope, name)
        if tensor is None:
            parts.append(b"." if name else b"-")
        elif tensor.data_type in _INTEGERS and np.prod(tensor.dims, dtype=float) <= 1:
            parts.append(b"#")
        elif tensor.name and tensor.name in scope.initializers:
            parts.append(tensor.name.encode() if isinstance(tensor.name, str) else tensor.name)
        else:
            bare = TensorProto()
            bare.CopyFrom(tensor)
            bare.ClearField("name")
            parts.append(hashlib.blake2b(bare.SerializeToString(deterministic=True), digest_size=16).digest())
    return b"\0".join(parts)


def _runs(same: np.ndarray, least: int) -> list[tuple[int, int]]:
    """(start, stop) of stretches of at least `least` True values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], same.view(np.int8), [0]])))
    starts, stops = edges[::2], edges[1::2]
    long = stops - starts >= least
    return list(zip(starts[long].tolist(), stops[long].tolist(), strict=True))


def _is_loop(scope: Scope, index: list[int], period: int, does: dict[int, int]) -> bool:
    """Whether each step reads a result of the step before, and all steps read the same from outside.

    Where each step takes another piece of one tensor, the pieces may have been cut beforehand: then they come from one
    node, or from nodes that do the same with the same tensor.
    """
    steps = [index[i : i + period] for i in range(0, len(index), period)]
    loop = {name for i in index for name in scope.nodes[i].output if name}
    outside = set()
    before: set[str] = set()
    for number, step in enumerate(steps):
        reads = [name for i in step for name in scope.nodes[i].input]
        if number and not before & set(reads):
            return False
        outside.add(tuple(_origin(scope, name, does) for name in reads if name not in loop))
        before = {name for i in step for name in scope.nodes[i].output if name}
    # The first step reads its start from outside, where the others read the step before.
    return len(outside) <= 2


def _origin(scope: Scope, name: str, does: dict[int, int], depth: int = 4) -> object:
    """Where a tensor from outside the loop comes from: equal for pieces of one tensor, and for numbers such as indices.

    depth: how many nodes back. Two results of one node, as of Split, are pieces of one tensor.
    """
    producer = scope.producer.get(name)
    if producer is None:
        tensor = scope.initializers.get(name)
        index = tensor is not None and tensor.data_type in _INTEGERS and np.prod(tensor.dims, dtype=float) <= 1
        return "#" if index else name
    if producer not in does:  # Constant or Identity: what it holds is in the number of the reader
        return "constant"
    if depth == 0:
        return producer
    return does[producer], tuple(_origin(scope, n, does, depth - 1) for n in scope.nodes[producer].input if n)


CHECKS = (unrolled,)
