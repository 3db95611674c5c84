"""Signs of a quantization that went wrong, or that does not pay."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import NodeProto

from ..parts import Scope, attribute, domain, is_op
from ..patient import Patient
from ..vocabulary import ERROR, NOTE, WARNING, Finding, code, count, finding, nodes
from .shapes import shape_of
from .weights import array

SCALE = code(
    "scale-impossible",
    ERROR,
    "07_calibration",
    "A scale of the quantization is zero, negative, NaN or infinite",
    "Calibrate again with real inputs: a tensor that was constant, or not finite, in the calibration gives such a scale.",
)
DEFAULT = code(
    "scale-not-calibrated",
    WARNING,
    "07_calibration",
    "A scale has the value that stands for “never saw anything but zero”",
    "Calibrate again with real inputs, prepared as in use. The calibration data was constant, or did not reach this tensor.",
)
CONVINTEGER = code(
    "dynamic-quantized-conv",
    WARNING,
    "07",
    "A convolutional network was quantized dynamically",
    "Use quantize_static for convolutions. Dynamic quantization suits MatMul: op_types_to_quantize=['MatMul', 'Gemm'].",
)
HALF = code(
    "qdq-incomplete",
    NOTE,
    "07_where_int8_runs",
    "Convolutions have quantized inputs, and compute in float32",
    "ONNX Runtime needs a QuantizeLinear behind the node, too: quantize the output, or take the node out of the quantization.",
)
LENGTH = code(
    "scale-length-wrong",
    ERROR,
    "07",
    "A list of scales is not as long as the axis that it belongs to",
    "Set the node's axis to the one that has a scale for each of its channels, or quantize again with per_channel=True.",
)
SCORES = code(
    "scores-lost",
    WARNING,
    "07",
    "Probabilities are quantized with a scale that is much too large for them",
    "Quantize what is joined apart, each with a scale of its own: name the Concat in nodes_to_exclude, or return boxes and scores as "
    "two outputs.",
)
_SCALES = {
    "QuantizeLinear": (1,), "DequantizeLinear": (1,), "QLinearConv": (1, 4, 6), "QLinearMatMul": (1, 4, 6),
}  # fmt: skip
_PROBABILITY = ("Sigmoid", "HardSigmoid", "Softmax", "QLinearSigmoid", "QLinearSoftmax")
# (domain, operator) → which input it quantizes, and which one is the scale of the result.
_QUANTIZES = {
    ("", "QuantizeLinear"): (0, 1), ("com.microsoft", "QuantizeLinear"): (0, 1), ("com.microsoft", "QLinearConcat"): (2, 0),
    ("com.microsoft", "QLinearSigmoid"): (0, 3), ("com.microsoft", "QLinearSoftmax"): (0, 3),
}  # fmt: skip
_KEEPS = (
    "Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split", "Gather", "Expand", "ReduceMax",
    "TopK", "MaxPool", "QuantizeLinear", "DequantizeLinear",
)  # fmt: skip
_COARSE = 0.25
_FAR = 12  # nodes between what is quantized and what tells its kind
_PASSES = (
    "Relu",
    "Clip",
    "LeakyRelu",
    "MaxPool",
    "Reshape",
    "Transpose",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Identity",
)


def scales(patient: Patient) -> Iterator[Finding]:
    wrong = []
    for scope, index, node in patient.each_node():
        if not is_op(node, *_SCALES):
            continue
        for position in _SCALES[node.op_type]:
            value = patient.value(scope, node.input[position]) if position < len(node.input) else None
            if value is None or value.dtype.kind != "f":
                continue
            bad = ~np.isfinite(value) | (value <= 0)
            if bad.any() and not (node.op_type == "DequantizeLinear" and _all_zero(patient, scope, node, value)):
                wrong.append((scope.place(index), float(value[bad].ravel()[0])))
    if wrong:
        yield finding(SCALE, f"Scale {wrong[0][1]:g} at {wrong[0][0]}.", [place for place, _ in wrong])


def _all_zero(patient: Patient, scope: Scope, node: NodeProto, scale: np.ndarray) -> bool:
    """Whether a scale is zero, if not positive, where all that it scales is zero, too: a channel that was pruned."""
    tensor = patient.stored(scope, node.input[0])
    stored = None if tensor is None else array(patient, tensor)
    if stored is None or scale.ndim > 1 or not np.isfinite(scale).all() or (scale < 0).any():
        return False
    if scale.size == 1:
        return not stored.astype(np.int64).any()
    axis = attribute(node, "axis", 1)
    if not -stored.ndim <= axis < stored.ndim or stored.shape[axis] != scale.size:
        return False
    return not np.moveaxis(stored.astype(np.int64), axis, 0)[scale == 0].any()


def lengths(patient: Patient) -> Iterator[Finding]:
    """A scale for each channel: there must be as many as channels, and as many zero points."""
    found = []
    for scope, index, node in patient.each_node():
        if (
            not is_op(node, "QuantizeLinear", "DequantizeLinear")
            or len(node.input) < 2
            or attribute(node, "block_size", 0)
        ):
            continue
        scale, zero = (patient.stored(scope, name) for name in (*node.input[1:3], "")[:2])
        if scale is None or len(scale.dims) != 1 or scale.dims[0] < 2 or (scope.version(node) or 13) < 13:
            continue
        says = f"{scale.dims[0]} scales"
        if zero is not None and list(zero.dims) != list(scale.dims):
            found.append((scope.place(index), f"{says}, and zero points of the shape {list(zero.dims)}"))
            continue
        dims, axis = _dims(patient, scope, node.input[0]), attribute(node, "axis", 1)
        if dims is None or not -len(dims) <= axis < len(dims):
            continue
        size = dims[axis]
        if isinstance(size, int) and size != scale.dims[0]:
            fits = [i for i, d in enumerate(dims) if d == scale.dims[0]]
            hint = f"; axis {fits[0]} has so many" if len(fits) == 1 else ""
            found.append((scope.place(index), f"{says} for axis {axis}, which has {size}{hint}"))
    if found:
        yield finding(LENGTH, f"{found[0][1]}.", [place for place, _ in found])


def _dims(patient: Patient, scope: Scope, name: str) -> list[int | None] | None:
    tensor = patient.stored(scope, name)
    if tensor is not None:
        return list(tensor.dims)
    known = patient.inferred.get(name) if not scope.label else None
    return shape_of(known) if known is not None else None


def scores(patient: Patient) -> Iterator[Finding]:
    """Numbers between 0 and 1, quantized in steps that leave five of them or fewer: boxes in pixels need such a scale."""
    found = []
    for scope, index, node in patient.each_node():
        kind = _QUANTIZES.get((domain(node), node.op_type))
        if kind is None or len(node.input) <= max(kind):
            continue
        read, scaled_by = kind
        scale = patient.value(scope, node.input[scaled_by])
        zero = patient.value(scope, node.input[scaled_by + 1]) if len(node.input) > scaled_by + 1 else None
        if scale is None or scale.size != 1 or not float(scale.ravel()[0]) > _COARSE:
            continue
        if float(scale.ravel()[0]) == 1 and (zero is None or not zero.any()) and is_op(node, "QuantizeLinear"):
            continue  # `uncalibrated` says so
        names = node.input[read::3] if node.op_type == "QLinearConcat" else node.input[read : read + 1]
        own = node.op_type in _PROBABILITY
        if own or any(_probability(scope, name) for name in names):
            found.append((scope.place(index), float(scale.ravel()[0])))
    if found:
        place, step = found[0]
        kept = int(1 / step + 0.5) + 1
        text = (
            f"{place} rounds to multiples of {step:.3g}, and part of what it reads is the result of a Sigmoid or Softmax, "
            f"between 0 and 1: {count(kept, 'number')} can be told apart afterwards."
        )
        yield finding(SCORES, text, [p for p, _ in found])


def _probability(scope: Scope, name: str, left: int = _FAR) -> bool:
    """Whether a tensor is, wholly or in part, the result of a Sigmoid or Softmax."""
    index = scope.producer.get(name)
    if index is None or not left:
        return False
    node = scope.nodes[index]
    if node.op_type in _PROBABILITY:
        return True
    if is_op(node, "Mul"):  # the confidence in an object times that in its class
        return all(_probability(scope, n, left - 1) for n in node.input)
    if is_op(node, "Concat") or node.op_type == "QLinearConcat":
        return any(_probability(scope, n, left - 1) for n in node.input)
    return is_op(node, *_KEEPS) and _probability(scope, node.input[0], left - 1)


def uncalibrated(patient: Patient) -> Iterator[Finding]:
    """Activations with the scale 1 and the zero point 0: ONNX Runtime's calibration gives these where it saw only zeros.

    In uint8 a picture of 0 … 255 has them, too; so there only tensors count that a computation gives.
    """
    found = []
    for scope, index, node in patient.each_node():
        if not is_op(node, "QuantizeLinear") or len(node.input) < 2:
            continue
        given = [*node.input, ""][2]
        scale, zero = patient.value(scope, node.input[1]), patient.value(scope, given) if given else np.uint8(0)
        if scale is None or zero is None or scale.size != 1 or float(scale.ravel()[0]) != 1 or zero.any():
            continue
        if zero.dtype == np.int8 or _computed(scope, node.input[0]):
            found.append(scope.place(index))
    if found:
        yield finding(
            DEFAULT, f"Scale 1 and zero point 0, in {nodes(len(found))}: values below 0.5 all become 0.", found
        )


def _computed(scope: Scope, name: str) -> bool:
    """Whether a tensor is more than an input in another dtype, or by another name."""
    for _ in range(_FAR):  # a graph may run in a circle
        index = scope.producer.get(name)
        if index is None or not is_op(scope.nodes[index], "Cast", "Identity") or not scope.nodes[index].input:
            return index is not None
        name = scope.nodes[index].input[0]
    return False


def dynamic_conv(patient: Patient) -> Iterator[Finding]:
    found = [
        (scope, index)
        for scope, index, node in patient.each_node()
        if is_op(node, "ConvInteger") and node.input
        and (before := scope.producer.get(node.input[0])) is not None
        and is_op(scope.nodes[before], "DynamicQuantizeLinear")
    ]  # fmt: skip
    if found:
        text = f"Input is quantized anew in each run, for {count(len(found), 'ConvInteger node')}, and these have no fast kernel."
        yield finding(CONVINTEGER, text, [s.place(i) for s, i in found])


def incomplete(patient: Patient) -> Iterator[Finding]:
    found, whole = [], 0
    for scope, index, node in patient.each_node():
        if not is_op(node, "Conv") or len(node.input) < 2 or not node.output:
            continue
        before = [scope.producer.get(name) for name in node.input[:2]]
        if any(b is None or not is_op(scope.nodes[b], "DequantizeLinear") for b in before):
            continue
        if _meets_quantize(scope, node.output[0]):
            whole += 1
        else:
            found.append(scope.place(index))
    if found:
        text = f"{len(found)} of {count(len(found) + whole, 'convolution')} with quantized input and weights, and no QuantizeLinear behind."
        yield finding(HALF, text, found)


def _meets_quantize(scope: Scope, name: str) -> bool:
    for _ in range(4):
        readers = [scope.nodes[i] for i in scope.readers.get(name, ())]
        if any(is_op(r, "QuantizeLinear") for r in readers):
            return True
        if len(readers) != 1 or not is_op(readers[0], *_PASSES) or not readers[0].output:
            return False
        name = readers[0].output[0]
    return False


CHECKS = (scales, lengths, uncalibrated, scores, dynamic_conv, incomplete)
