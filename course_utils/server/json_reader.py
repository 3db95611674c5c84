"""Pixels from JSON:  {"pixels": [[…], …]}"""

from __future__ import annotations

import json

import numpy as np

from .checks import RequestError, check


def from_json(body: bytes, most: int) -> np.ndarray:
    """uint8 [n, 28, 28]. Raises RequestError for anything else."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError(400, "The body is not valid JSON.") from None
    if not isinstance(value, dict) or set(value) != {"pixels"}:
        sentence = 'The JSON must be an object with one key: {"pixels": [[…], …]}.'
        raise RequestError(422, sentence)
    try:
        array = np.array(value["pixels"])
    except (ValueError, OverflowError, RecursionError):
        sentence = (
            "The rows in 'pixels' have different lengths, expected [n, 28, 28]."
        )
        raise RequestError(422, sentence) from None
    whole = array.dtype.kind == "i"
    if not whole or (array.size and not 0 <= array.min() <= array.max() <= 255):
        sentence = "The values in 'pixels' must be whole numbers from 0 to 255."
        raise RequestError(422, sentence)
    check(array.shape, np.dtype(np.uint8), most)
    return array.astype(np.uint8).reshape(-1, 28, 28)
