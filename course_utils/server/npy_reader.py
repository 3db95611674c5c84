"""Pixels from the .npy format."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from numpy.lib import format as npy

from .checks import RequestError, check


def header_of(stream: io.BytesIO) -> tuple[tuple[int, ...], bool, Any]:
    """Shape, whether it goes by columns, dtype."""
    try:
        if npy.read_magic(stream) != (1, 0):
            raise ValueError("numpy.save writes version 1.0 for such arrays")
        return npy.read_array_header_1_0(stream, max_header_size=1000)
    except Exception:  # whatever a parser does with a stranger's bytes
        sentence = "The body is not an .npy file: expected what numpy.save writes."
        raise RequestError(400, sentence) from None


def from_npy(body: bytes, most: int) -> np.ndarray:
    """uint8 [n, 28, 28]. Raises RequestError for anything else."""
    stream = io.BytesIO(body)
    shape, by_columns, dtype = header_of(stream)
    check(shape, dtype, most)  # before the data: a header may promise anything
    data, size = body[stream.tell() :], math.prod(shape)
    if len(data) != size:
        promised = f"The .npy header promises {size} bytes of pixels"
        raise RequestError(400, f"{promised}, {len(data)} follow.")
    pixels = np.frombuffer(data, np.uint8)
    return pixels.reshape(shape, order="F" if by_columns else "C").reshape(
        -1, 28, 28
    )
