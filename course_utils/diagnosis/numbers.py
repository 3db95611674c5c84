"""The stored numbers: NaN, float64, the same data twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from onnx import TensorProto

from .parts import Scope, count_of, expected_bytes, input_values, is_op
from .patient import Patient
from .vocabulary import ERROR, NOTE, WARNING, Finding, Place, amount, code, count, finding, listed, plain
from .weights import digest, not_finite, source

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
    "Numbers are so small that a processor computes with them slowly",
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
# Where a weight that is not finite spoils the result. In other places it can be meant, such as a mask of -inf.
_MULTIPLIES = (
    "Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN", "BatchNormalization", "InstanceNormalization",
    "LayerNormalization", "GroupNormalization", "PRelu", "Einsum",
)  # fmt: skip
_LOOKS_UP = "Gather"  # an embedding; or a table of masks, where -inf is meant
_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
_LEAST = 1024  # bytes: what is shorter is no weight, and costs nothing


def finite(patient: Patient) -> Iterator[Finding]:
    """NaN or infinity in weights that something multiplies with. Short tensors first, until the budget is spent."""
    found, skipped = [], 0
    for scope, name, tensor, multiplied in sorted(_weights(patient), key=lambda item: expected_bytes(item[2]) or 0):
        size = expected_bytes(tensor) or 0
        if source(patient, tensor) is None:
            continue  # its file is missing, or its data is damaged: other checks say so
        if size > patient.budget:
            skipped += size
            continue
        patient.budget -= size if _in_a_file(patient, tensor) else 0
        nan, above, below = not_finite(patient, tensor)
        if nan or above or (below and multiplied):
            found.append((Place("tensor", name, None, scope.label), nan, above + below))
    if skipped:
        patient.not_checked.append(f"{amount(skipped)} of weights were not searched for NaN: the limit is budget_mb.")
    if found:
        nan, infinite = sum(n for _, n, _ in found), sum(i for *_, i in found)
        text = f"NaN: {nan:,}, infinite: {infinite:,}, in {count(len(found), 'tensor')}."
        yield finding(NAN, text, [place for place, *_ in found])


def _in_a_file(patient: Patient, tensor: TensorProto) -> bool:
    where = source(patient, tensor)
    return where is not None and not isinstance(where[0], bytes)


def _weights(patient: Patient) -> list[tuple[Scope, str, TensorProto, bool]]:
    """Each stored float tensor that a node multiplies with, or looks rows up in, once; the last says which."""
    found: dict[int, tuple[Scope, str, TensorProto, bool]] = {}
    for scope, _, node in patient.each_node():
        if not is_op(node, *_MULTIPLIES, _LOOKS_UP):
            continue
        for name in node.input:
            tensor = patient.stored(scope, name)
            if tensor is not None and tensor.data_type in _FLOATS:
                multiplied = node.op_type != _LOOKS_UP or found.get(id(tensor), (False,))[-1]
                found[id(tensor)] = (scope, tensor.name or name, tensor, multiplied)
    return list(found.values())


def float64(patient: Patient) -> Iterator[Finding]:
    sizes: dict[bool, int] = {True: 0, False: 0}
    places = []
    for scope, name, tensor, _ in _weights(patient):
        double = tensor.data_type == TensorProto.DOUBLE
        sizes[double] += count_of(tensor.dims)
        if double:
            places.append(Place("tensor", name, None, scope.label))
    if sizes[True] > sizes[False] // 10:
        fed = [
            v.name
            for v in input_values(patient.model.graph, patient.model.ir_version)
            if v.type.tensor_type.elem_type == TensorProto.DOUBLE
        ]
        inputs = f" Inputs of float64: {listed(fed)}." if fed else ""
        yield finding(FLOAT64, f"{sizes[True]:,} weights are float64, {sizes[False]:,} are not.{inputs}", places)


def twice(patient: Patient) -> Iterator[Finding]:
    """Tensors of the same dtype, shape and data. First by size, so that few of them need to be read."""
    alike = defaultdict(list)
    for scope in patient.scopes:
        for tensor in scope.initializers.values():
            if (expected_bytes(tensor) or 0) > _LEAST:
                alike[tensor.data_type, tuple(tensor.dims)].append(
                    (Place("tensor", tensor.name, None, scope.label), tensor)
                )
    groups = [group for group in alike.values() if len(group) > 1]
    if sum(expected_bytes(t) or 0 for group in groups for _, t in group[1:]) < patient.weights_bytes // 20:
        return  # even if all of these were the same, it would not matter
    wasted, places = 0, []
    for copies in (same for group in groups for same in _same(patient, group)):
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
        where, size = source(patient, tensor), expected_bytes(tensor) or 0
        if where is None:
            continue
        in_file = not isinstance(where[0], bytes)
        if in_file and size > patient.budget:
            skipped += size
            continue
        patient.budget -= size if in_file else 0
        found[digest(patient, tensor)][where if in_file else number] = (place, tensor)
    if skipped:
        patient.not_checked.append(
            f"{amount(skipped)} of weights were not compared with each other: the limit is budget_mb."
        )
    return [list(copies.values()) for copies in found.values() if len(copies) > 1]


CHECKS = (finite, float64, twice)
