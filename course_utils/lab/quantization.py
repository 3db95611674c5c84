"""What stands between a student and a bad calibration: data that no range can be read from, a model that is int8 already."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader

from ..errors import CourseError
from ..onnx_files import Model, as_model
from ..running import check_feed, session_for

_QUANTIZED = {
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "MatMulNBits",
    "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "GatherBlockQuantized", "DynamicQuantizeLSTM", "QAttention",
    "QGemm", "QEmbedLayerNormalization",
}  # fmt: skip
ModelPath = str | os.PathLike[str] | onnx.ModelProto


def ready_to_quantize(model: ModelPath) -> ModelPath:
    """Return the model as it was given, once it is clear that it holds no quantized node yet.

    ONNX Runtime does not look: it quantizes some models a second time without a word, and stops at others with an
    error about something else. Raises CourseError for a quantized model, or one that cannot be read.
    """
    found = sorted(quantized_operators(model))
    if found:
        raise CourseError(
            f"{_named(model)} is quantized already: it holds {', '.join(found[:3])}. Give the float model that it was "
            f"made from."
        )
    return model


def quantized_operators(model: Model) -> set[str]:
    """The operators of a model that work on quantized numbers, subgraphs and functions included."""
    proto, found = as_model(model, external_data=False), set()
    waiting = [proto.graph.node, *(function.node for function in proto.functions)]
    while waiting:
        for node in waiting.pop():
            if node.op_type in _QUANTIZED or node.op_type.startswith("QLinear"):
                found.add(node.op_type)
            for attribute in node.attribute:
                waiting += [inner.node for inner in (attribute.g, *attribute.graphs)]
    return found


class Calibration(CalibrationDataReader):
    """Hands out calibration data in batches, after it was looked at. First used in lesson 07.

    model: the float model that will be quantized. data: input name → array `[N, …]`, as the model takes it. batch: how
    many of the N go into one run.
    Raises CourseError for a quantized model, an empty set, a wrong name, dtype or shape, or for NaN or infinity: a
    range that was read from such numbers is worth nothing, and ONNX Runtime does not always say so.
    """

    def __init__(self, model: ModelPath, data: Mapping[str, np.ndarray], batch: int = 50) -> None:
        ready_to_quantize(model)
        if not isinstance(data, Mapping) or not data:
            raise CourseError(
                f"Calibration data are a dict of input name → array, such as {{'image': pictures}}; this is "
                f"{'an empty dict' if isinstance(data, Mapping) else 'a ' + type(data).__name__}."
            )
        if not isinstance(batch, int) or batch < 1:
            raise CourseError(f"Calibration was given batch={batch!r}: it expects a whole number of at least 1.")
        lengths = {name: len(np.atleast_1d(value)) for name, value in data.items()}
        if len(set(lengths.values())) > 1:
            raise CourseError(f"Each input needs as many examples as the others; these have {lengths}.")
        self._size = next(iter(lengths.values()))
        if not self._size:
            raise CourseError(
                "The calibration set is empty: give at least one example, better a hundred, of the kind that the model "
                "will meet."
            )
        first = {name: value[:batch] if isinstance(value, np.ndarray) else value for name, value in data.items()}
        check_feed(session_for(model), first)
        for name, value in data.items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                bad = ~np.isfinite(value).reshape(self._size, -1).all(1)
                raise CourseError(
                    f"{int(bad.sum())} of {self._size} calibration examples hold NaN or infinity in {name!r} (the first "
                    f"is number {int(bad.argmax())}): take them out, or find out where they come from."
                )
        self._data, self._batch, self._at = dict(data), batch, 0

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch as a feed; None when there is none left."""
        if self._at >= self._size:
            return None
        part = slice(self._at, self._at + self._batch)
        self._at = part.stop
        return {name: value[part] for name, value in self._data.items()}

    def rewind(self) -> None:
        """Begin again, for a second pass over the same data."""
        self._at = 0

    def __len__(self) -> int:
        """Number of examples."""
        return self._size


def _named(model: ModelPath) -> str:
    return "This model" if isinstance(model, onnx.ModelProto) else repr(str(model))
