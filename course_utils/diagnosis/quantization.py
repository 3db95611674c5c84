"""Signs of a quantization that went wrong, or that does not pay."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import NodeProto, TensorProto

from .parts import Scope, attribute, is_op
from .patient import Patient
from .vocabulary import ERROR, NOTE, WARNING, Finding, Place, code, count, finding, nodes, plain
from .weights import array

SCALE = code(
    "scale-impossible",
    ERROR,
    "07",
    "A scale of the quantization is zero, negative, NaN or infinite",
    "Calibrate again with real inputs: a tensor that was constant, or not finite, in the calibration gives such a scale.",
)
DEFAULT = code(
    "scale-not-calibrated",
    WARNING,
    "07",
    "A scale has the value that stands for “never saw anything but zero”",
    "Calibrate again with real inputs, prepared as in use. The calibration data was constant, or did not reach this tensor.",
)
LEVELS = code(
    "weights-collapsed",
    WARNING,
    "07",
    "Quantized weights use only a few of their levels",
    "Quantize with per_channel=True, so that each channel has a scale of its own, or leave this layer in float.",
)
SATURATED = code(
    "weights-saturated",
    WARNING,
    "07",
    "Many quantized weights are cut off at the end of the range",
    "The scale is too small: calibrate weights with MinMax, and check that the file was not quantized twice.",
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
    "07",
    "Convolutions have quantized inputs, and compute in float32",
    "ONNX Runtime needs a QuantizeLinear behind the node, too: quantize the output, or take the node out of the quantization.",
)
_SCALES = {
    "QuantizeLinear": (1,), "DequantizeLinear": (1,), "QLinearConv": (1, 4, 6), "QLinearMatMul": (1, 4, 6),
}  # fmt: skip
_INT8 = (TensorProto.INT8, TensorProto.UINT8)
_FEW = 4  # levels on each side of zero
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
            if bad.any():
                wrong.append((scope.place(index), float(value[bad].ravel()[0]) if value.ndim else float(value)))
    if wrong:
        yield finding(SCALE, f"Scale {wrong[0][1]:g} at {wrong[0][0]}.", [place for place, _ in wrong])


def uncalibrated(patient: Patient) -> Iterator[Finding]:
    """Activations with the scale 1 and the zero point 0: ONNX Runtime's calibration gives these where it saw only zeros.

    In uint8 a picture of 0 … 255 has them, too; so there only tensors count that a computation gives.
    """
    found = []
    for scope, index, node in patient.each_node():
        if not is_op(node, "QuantizeLinear") or len(node.input) < 3:
            continue
        scale, zero = (patient.value(scope, name) for name in node.input[1:3])
        if scale is None or zero is None or scale.size != 1 or float(scale.ravel()[0]) != 1 or zero.any():
            continue
        before = scope.producer.get(node.input[0])
        computed = before is not None and not is_op(scope.nodes[before], "Cast", "Identity")
        if computed or zero.dtype == np.int8:
            found.append(scope.place(index))
    if found:
        yield finding(
            DEFAULT, f"Scale 1 and zero point 0, in {nodes(len(found))}: values below 0.5 all become 0.", found
        )


def levels(patient: Patient) -> Iterator[Finding]:
    """int8 weights: how much of the range do they use, and how many stand at its very end?"""
    few, cut, seen = [], [], set()
    for scope, node, position, axis, per_tensor in _quantized_weights(patient):
        tensor = patient.stored(scope, node.input[position])
        if tensor is None or tensor.data_type not in _INT8 or len(tensor.dims) < 2 or id(tensor) in seen:
            continue
        seen.add(id(tensor))
        value = array(patient, tensor)
        if value is None or value.size < 256:
            continue
        zero = patient.value(scope, node.input[position + 2]) if len(node.input) > position + 2 else None
        zero = float(np.median(zero)) if zero is not None and zero.size else 0.0
        by_channel = (
            np.moveaxis(value, axis % value.ndim, 0).reshape(value.shape[axis % value.ndim], -1).astype(np.int16)
        )
        widest = np.abs(by_channel - zero).max(axis=1)
        used = widest[widest > 0]  # channels of zeros were pruned, not collapsed
        place = Place("tensor", tensor.name, None, scope.label)
        if per_tensor and len(used) > 3 and np.median(used) <= _FEW:
            few.append((place, float(np.median(used))))
        low, high = (-128, 127) if tensor.data_type == TensorProto.INT8 else (0, 255)
        ends = (by_channel >= high) | (by_channel <= (-127 if low else 0))
        # The largest weight of each scale stands at the end, as it should, and its equals on the other side.
        surplus = ends.sum() - 2 * (1 if per_tensor else len(by_channel))
        binary = len(np.unique(value)) <= 4  # weights that were trained with two or three values
        if surplus > value.size // 20 and not binary:
            cut.append((place, surplus / value.size))
    if few:
        text = (
            f"{count(len(few), 'tensor')} with one scale for all channels, and one channel that is much wider than the others. In "
            f"{plain(few[0][0].name)!r} half of the channels reach no further than ±{few[0][1]:.0f} of ±127."
        )
        yield finding(LEVELS, text, [place for place, _ in few])
    if cut:
        text = f"{count(len(cut), 'tensor')}; in {plain(cut[0][0].name)!r} {cut[0][1]:.0%} of the values stand at the end of the range."
        yield finding(SATURATED, text, [place for place, _ in cut])


def _quantized_weights(patient: Patient) -> Iterator[tuple[Scope, NodeProto, int, int, bool]]:
    """(scope, node, position of the weight, axis of its channels, whether one scale stands for all)."""
    for scope, _, node in patient.each_node():
        if is_op(node, "DequantizeLinear") and len(node.input) > 1:
            reader = next((scope.nodes[i] for i in scope.readers.get(next(iter(node.output), ""), ())), None)
            axis = 0 if reader is not None and is_op(reader, "Conv") else -1
            scale = patient.value(scope, node.input[1])
            single = scale is not None and scale.size == 1
            yield scope, node, 0, axis if single else attribute(node, "axis", 1), single
        elif is_op(node, "QLinearConv", "QLinearMatMul") and len(node.input) > 5:
            scale = patient.value(scope, node.input[4])
            axis = 0 if node.op_type == "QLinearConv" else -1
            yield scope, node, 3, axis, scale is not None and scale.size == 1


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


CHECKS = (scales, uncalibrated, levels, dynamic_conv, incomplete)
