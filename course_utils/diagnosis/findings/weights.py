"""Looking at stored weights piece by piece, wherever they lie, without ever holding them all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from ..file.locations import locate
from ..parts import expected_bytes
from ..patient import Patient

CHUNK = 4 * 2**20
_ITEM: dict[int, str] = {
    TensorProto.FLOAT: "<f4",
    TensorProto.DOUBLE: "<f8",
    TensorProto.FLOAT16: "<f2",
    TensorProto.BFLOAT16: "<u2",
}


def source(patient: Patient, tensor: TensorProto) -> tuple[Path | bytes, int, int] | None:
    """(file or bytes, offset, length) of a tensor's data as it would lie in memory; None where it cannot be had so."""
    expected = expected_bytes(tensor)
    if expected is None:
        return None
    if tensor.data_location == TensorProto.EXTERNAL:
        return _external(patient, tensor, expected)
    piece = patient.pieces.get(tensor.raw_data)
    if piece is not None:
        if patient.file is None or piece.kind != "raw" or piece.length != expected:
            return None
        return patient.file, piece.offset, piece.length
    data = tensor.raw_data
    if not tensor.HasField("raw_data"):
        try:
            data = onnx.numpy_helper.to_array(tensor).tobytes()
        except Exception:  # damaged; the size is checked elsewhere
            return None
    return (data, 0, expected) if len(data) == expected else None


def _external(patient: Patient, tensor: TensorProto, expected: int) -> tuple[Path, int, int] | None:
    where = locate(patient.file, tensor)
    if where.path is None or not where.path.is_file() or where.length not in (None, expected):
        return None
    return (where.path, where.offset, expected) if where.offset + expected <= where.path.stat().st_size else None


def chunks(patient: Patient, tensor: TensorProto) -> Iterator[bytes]:
    """The data of a tensor, at most 4 MiB at a time. Nothing where it cannot be had."""
    found = source(patient, tensor)
    if found is None:
        return
    where, offset, length = found
    if isinstance(where, bytes):
        yield where[offset : offset + length]
        return
    with where.open("rb") as stream:
        stream.seek(offset)
        while length > 0 and (data := stream.read(min(CHUNK, length))):
            length -= len(data)
            yield data


@dataclass
class Odd:
    """How many numbers are NaN, infinite, minus infinity, or subnormal: other than zero, and too small for the usual form."""

    nan: int = 0
    above: int = 0
    below: int = 0
    subnormal: int = 0


def odd(patient: Patient, tensor: TensorProto) -> Odd:
    """Counts the odd numbers in a tensor of floats, in one pass. Subnormal ones are counted where they cost time: not in 16 bits."""
    item, found = _ITEM[tensor.data_type], Odd()
    for data in chunks(patient, tensor):
        values = np.frombuffer(data, item)
        if tensor.data_type == TensorProto.BFLOAT16:
            exponent = (values & 0x7F80) == 0x7F80
            nan = exponent & ((values & 0x7F) != 0)
            infinite, negative = exponent & ~nan, (values & 0x8000) != 0
            above, below = infinite & ~negative, infinite & negative
        elif not np.isfinite(values).all():
            nan, above, below = np.isnan(values), np.isposinf(values), np.isneginf(values)
        else:
            nan = above = below = np.zeros(0, bool)
        found.nan, found.above, found.below = (
            found.nan + nan.sum(),
            found.above + above.sum(),
            found.below + below.sum(),
        )
        if tensor.data_type in (TensorProto.FLOAT, TensorProto.DOUBLE):
            found.subnormal += int(((values != 0) & (np.abs(values) < np.finfo(item).tiny)).sum())
    return found


def digest(patient: Patient, tensor: TensorProto) -> bytes:
    """A number for the data of a tensor: the same data, the same number."""
    total = hashlib.blake2b(digest_size=16)
    for data in chunks(patient, tensor):
        total.update(data)
    return total.digest()


def array(patient: Patient, tensor: TensorProto, largest: int = 64 * 2**20) -> np.ndarray | None:
    """A tensor as an array, where it has at most `largest` bytes; the budget pays for it."""
    size = expected_bytes(tensor)
    if size is None or size > min(largest, patient.budget) or source(patient, tensor) is None:
        return None
    patient.budget -= size
    whole = TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=b"".join(chunks(patient, tensor)))
    try:
        return onnx.numpy_helper.to_array(whole)
    except Exception:
        return None
