"""The stored numbers: NaN, very small ones, float64, the same data twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from onnx import TensorProto

from ..parts import STANDARD, Scope, count_of, expected_bytes, input_values, is_op
from ..patient import Patient
from ..vocabulary import ERROR, NOTE, WARNING, Finding, Place, amount, code, count, finding, listed, plain
from .weights import digest, odd, source

NAN = code(
    "weights-not-finite",
    ERROR,
    "09",
    "Weights are NaN or infinite",
    "Look at the training (too large a step, a division by zero) or at the conversion to float16, whose largest number is 65504.",
)
SUBNORMAL = code(
    "subnormal-numbers",
    WARNING,
    "05",
    "Numbers are so small that many processors compute with them slowly",
    "Set what died in training to zero, and export again. Or let the session take such numbers for 0: session.set_denormal_as_zero, "
    "which works in the first session of a process only.",
)
FLOAT64 = code(
    "float64",
    WARNING,
    "09",
    "The model computes in float64",
    "Export it with model.float(): half as large, about twice as fast, and many operators have no float64 implementation.",
)
DOUBLE = code(
    "weights-stored-twice",
    NOTE,
    "09",
    "The same weights are stored more than once",
    "Let all nodes read one initializer. onnxslim does it, and so does torch.onnx.export for weights that a model shares.",
)
# Infinity spoils the result of these: infinity times zero is NaN. In other places it can be meant, such as a mask of -inf.
_MULTIPLIES = (
    "Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN", "BatchNormalization", "InstanceNormalization",
    "LayerNormalization", "GroupNormalization", "RMSNormalization", "PRelu", "Einsum",
)  # fmt: skip
_SCALES = ("Mul", "Div")  # these as well, though what they read is often no weight
# These give on what they read: their first input, and Concat all of them.
_CARRIES = (
    "Identity", "Cast", "CastLike", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Split", "Expand", "Tile",
    "Pad", "Trilu", "Dropout", "DepthToSpace", "SpaceToDepth", "Gather", "GatherND", "GatherElements", "Concat",
)  # fmt: skip
_LOOKS_UP = ("Gather", "GatherND", "GatherElements")  # in an embedding; or in a table of masks, where -inf is meant
# These ask what a number is, choose among numbers, or keep them. NaN can be meant there, as the sign of what is missing.
_HARMLESS = (
    *_CARRIES, "IsNaN", "IsInf", "Where", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Shape", "Size", "Loop",
    "Scan", "ScatterND", "ScatterElements", "Compress", "SequenceConstruct", "SequenceInsert", "Optional",
)  # fmt: skip
_BOUNDS = ("Min", "Max", "Clip", "Sub")  # +inf from a table can be meant here
_STORED_IN = {"QuantizeLinear": 1, "DequantizeLinear": 1}  # the inputs behind are for `quantization` to judge
_DEEPEST = 32  # nodes between a constant and its reader
_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
_FEW, _SHARE = 64, 0.01  # subnormal weights that do not matter: so many, or this share of all


def finite(patient: Patient) -> Iterator[Finding]:
    """NaN, infinity or very small numbers in weights. Short tensors first, until the budget is spent."""
    found, small, seen, skipped = [], [], 0, 0
    for read in sorted(_read(patient), key=lambda r: expected_bytes(r.tensor) or 0):
        tensor = read.tensor
        where = source(patient, tensor)
        if where is None:
            continue  # its file is missing, or its data is damaged: other checks say so
        if not _paid(patient, where):
            skipped += where[2]
            continue
        n = odd(patient, tensor)
        place = Place("tensor", read.name, None, read.scope.label)
        nan = n.nan if read.computed else 0
        infinite = (n.above + n.below) if read.multiplied else n.above if read.looked_up else 0
        if nan or infinite:
            found.append((place, nan, infinite))
        seen += count_of(tensor.dims)
        small += [(place, n.subnormal)] if n.subnormal else []
    if skipped:
        patient.not_checked.append(f"{amount(skipped)} of weights were not searched for NaN: the limit is budget_mb.")
    if found:
        nan, infinite = sum(n for _, n, _ in found), sum(i for *_, i in found)
        text = f"NaN: {nan:,}, infinite: {infinite:,}, in {count(len(found), 'tensor')}."
        yield finding(NAN, text, [place for place, *_ in found])
    tiny = sum(n for _, n in small)
    if tiny >= _FEW and tiny > seen * _SHARE:
        text = f"{tiny:,} of {seen:,} weights are subnormal: other than zero, and smaller than 1.2e-38, the smallest in usual form."
        yield finding(SUBNORMAL, text, [place for place, _ in sorted(small, key=lambda item: -item[1])])


@dataclass
class _Read:
    """A stored float tensor, and what its readers do with it: compute anything, multiply, or look up rows. weight: of a layer."""

    scope: Scope
    name: str
    tensor: TensorProto
    computed: bool = False
    multiplied: bool = False
    weight: bool = False
    looked_up: bool = False


def _read(patient: Patient) -> list[_Read]:
    """Each stored float tensor that a node computes with, once; also where nodes stand between that only move it."""
    found: dict[int, _Read] = {}
    ways: dict[tuple[int, str], list[tuple[Scope, str, TensorProto, bool]]] = {}
    for scope, _, node in patient.each_node():
        standard = node.domain in STANDARD
        if (standard and node.op_type in _HARMLESS) or not (standard or node.domain == "com.microsoft"):
            continue
        for name in node.input[: _STORED_IN.get(node.op_type)]:
            for where, stored, tensor, looked_up in _constants(patient, scope, name, ways):
                read = found.setdefault(id(tensor), _Read(where, stored, tensor))
                read.computed = True
                read.weight |= is_op(node, *_MULTIPLIES) or looked_up
                read.multiplied |= is_op(node, *_MULTIPLIES, *_SCALES)
                read.looked_up |= looked_up and not is_op(node, *_BOUNDS)
    return list(found.values())


def _constants(
    patient: Patient, scope: Scope, name: str, known: dict[tuple[int, str], list], left: int = _DEEPEST
) -> list[tuple[Scope, str, TensorProto, bool]]:
    """The stored float tensors that a name stands for, wholly or in part; the last says whether rows are looked up in it."""
    key = (id(scope), name)
    if key in known or not left:
        return known.get(key, [])
    known[key] = found = []
    node = scope.nodes[scope.producer[name]] if name in scope.producer else None
    if node is not None and is_op(node, *_CARRIES):
        for carried in node.input if node.op_type == "Concat" else node.input[:1]:
            inner = _constants(patient, scope, carried, known, left - 1)
            found += [(s, n, t, up or node.op_type in _LOOKS_UP) for s, n, t, up in inner]
    elif node is not None or name in scope.initializers:
        tensor = patient.stored(scope, name)
        if tensor is not None and tensor.data_type in _FLOATS:
            found.append((scope, tensor.name or name, tensor, False))
    elif name not in scope.inputs and scope.outer is not None:
        found += _constants(patient, scope.outer, name, known, left - 1)
    return found


def _paid(patient: Patient, where: tuple[Path | bytes, int, int]) -> bool:
    """Take from the budget what is to be read from a file; False where that is too much. where: as `source` tells it."""
    price = 0 if isinstance(where[0], bytes) else where[2]
    if price > patient.budget:
        return False
    patient.budget -= price
    return True


def float64(patient: Patient) -> Iterator[Finding]:
    sizes: dict[bool, int] = {True: 0, False: 0}
    places = []
    for read in (r for r in _read(patient) if r.weight):
        double = read.tensor.data_type == TensorProto.DOUBLE
        sizes[double] += count_of(read.tensor.dims)
        if double:
            places.append(Place("tensor", read.name, None, read.scope.label))
    if sizes[True] > sizes[False] // 10:
        fed = [v.name for v in input_values(patient.model.graph) if v.type.tensor_type.elem_type == TensorProto.DOUBLE]
        inputs = f" Inputs of float64: {listed(fed)}." if fed else ""
        yield finding(FLOAT64, f"{sizes[True]:,} weights are float64, {sizes[False]:,} are not.{inputs}", places)


def twice(patient: Patient) -> Iterator[Finding]:
    """Tensors of the same dtype, shape and data."""
    alike = defaultdict(list)
    for scope in patient.scopes:
        for tensor in scope.initializers.values():
            alike[tensor.data_type, tuple(tensor.dims)].append(
                (Place("tensor", tensor.name, None, scope.label), tensor)
            )
    wasted, places = 0, []
    for copies in (same for group in alike.values() if len(group) > 1 for same in _same(patient, group)):
        wasted += (expected_bytes(copies[0][1]) or 0) * (len(copies) - 1)
        places += [place for place, _ in copies]
    if wasted > max(64 * 1024, patient.weights_bytes // 20):
        example = " and ".join(repr(plain(p.name)) for p in places[:2])
        text = f"{amount(wasted)} of {amount(patient.weights_bytes)} could be left out, for example of {example}."
        yield finding(DOUBLE, text, places)


def _same(patient: Patient, group: list[tuple[Place, TensorProto]]) -> list[list[tuple[Place, TensorProto]]]:
    """Those of a group that hold the same data, each stored anew. One piece of a file with several names is stored once."""
    found: dict[bytes, dict[object, tuple[Place, TensorProto]]] = defaultdict(dict)
    skipped = 0
    for number, (place, tensor) in enumerate(group):
        where = source(patient, tensor)
        if where is None:
            continue
        if not _paid(patient, where):
            skipped += where[2]
            continue
        found[digest(patient, tensor)][number if isinstance(where[0], bytes) else where] = (place, tensor)
    if skipped:
        patient.not_checked.append(
            f"{amount(skipped)} of weights were not compared with each other: the limit is budget_mb."
        )
    return [list(copies.values()) for copies in found.values() if len(copies) > 1]


CHECKS = (finite, float64, twice)
