"""Quantized weights that lost too much: few of their levels are used, or many are cut off."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import TensorProto

from ..parts import Scope, attribute, count_of, domain, is_op
from ..patient import Patient
from ..vocabulary import WARNING, Finding, Place, code, count, finding, plain
from .weights import array

LEVELS = code(
    "weights-collapsed",
    WARNING,
    "07_find_the_layer",
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
_INT8 = (TensorProto.INT8, TensorProto.UINT8)
# (domain, operator) → which inputs are the weight, what tells whether it has several scales, its zero point; and its axis of channels.
_INTEGER = {
    ("", "QLinearConv"): (3, 4, 5, 0), ("", "QLinearMatMul"): (3, 4, 5, -1), ("com.microsoft", "QGemm"): (3, 4, 5, -1),
    ("", "MatMulInteger"): (1, 3, 3, -1), ("", "ConvInteger"): (1, 3, 3, 0),
    ("com.microsoft", "DynamicQuantizeMatMul"): (1, 2, 3, -1), ("com.microsoft", "MatMulIntegerToFloat"): (1, 3, 5, -1),
}  # fmt: skip
_FEW = 4  # levels on each side of zero
_FAR = 12  # nodes between a weight and what tells its axis of channels


def levels(patient: Patient) -> Iterator[Finding]:
    """int8 weights: how much of the range do they use, and how many stand at its very end?"""
    few, cut, seen = [], [], set()
    for scope, name, axis, per_tensor, zero_name in _quantized_weights(patient):
        tensor = patient.stored(scope, name)
        if tensor is None or tensor.data_type not in _INT8 or len(tensor.dims) < 2 or id(tensor) in seen:
            continue
        seen.add(id(tensor))
        value = array(patient, tensor)
        if value is None or value.size < 256:
            continue
        points = patient.value(scope, zero_name)
        zero = float(np.median(points)) if points is not None and points.size else 0.0
        by_channel = (
            np.moveaxis(value, axis % value.ndim, 0).reshape(value.shape[axis % value.ndim], -1).astype(np.int16)
        )
        widest = np.abs(by_channel - zero).max(axis=1)
        used = widest[widest > 0]  # channels of zeros may have been pruned, but hardly all but one or two
        place = Place("tensor", tensor.name, None, scope.label)
        lost = len(widest) > 3 and (widest > _FEW).sum() <= max(1, len(widest) // 8)
        if per_tensor and (lost or (len(used) > 3 and np.median(used) <= _FEW)):
            few.append((place, float(np.median(widest if lost else used))))
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


def _quantized_weights(patient: Patient) -> Iterator[tuple[Scope, str, int, bool, str]]:
    """(scope, name of the weight, axis of its channels, whether one scale stands for all, name of the zero point)."""
    for scope, _, node in patient.each_node():
        given = [*node.input, *[""] * 9]  # a damaged node may have none
        if is_op(node, "DequantizeLinear"):
            scale = patient.stored(scope, given[1])
            single = scale is not None and count_of(scale.dims) == 1
            axis = _channels(scope, next(iter(node.output), "")) if single else attribute(node, "axis", 1)
            yield scope, given[0], axis, single, given[2]
        elif (known := _INTEGER.get((domain(node), node.op_type))) is not None:
            weight, judged_by, zero, axis = known
            if attribute(node, "transB", 0):
                axis = 0
            by = patient.stored(scope, given[judged_by])
            yield scope, given[weight], axis, by is not None and count_of(by.dims) == 1, given[zero]


def _channels(scope: Scope, name: str) -> int:
    """The axis of the channels of a weight, by the node that reads it."""
    turned, reader = False, None
    for _ in range(_FAR):  # a graph may run in a circle
        reader = next((scope.nodes[i] for i in scope.readers.get(name, ())), None)
        if reader is None or not is_op(reader, "Transpose") or not reader.output:
            break
        turned, name = not turned, reader.output[0]  # between a weight as PyTorch has it and a MatMul
    if reader is not None and is_op(reader, "ConvTranspose"):
        return 1
    first = reader is not None and (is_op(reader, "Conv") or (is_op(reader, "Gemm") and attribute(reader, "transB", 0)))
    return 0 if bool(first) != turned else -1


CHECKS = (levels,)
