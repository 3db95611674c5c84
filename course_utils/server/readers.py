"""Which reader is for which Content-Type."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from starlette.requests import Request

from .checks import RequestError
from .json_reader import from_json
from .npy_reader import from_npy

READERS = {"application/x-npy": from_npy, "application/json": from_json}


def reader_for(request: Request) -> Callable[[bytes, int], np.ndarray]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in READERS:
        wanted = ", ".join(READERS)
        sentence = f"The Content-Type is {kind[:60]!r}, expected one of: {wanted}."
        raise RequestError(415, sentence)
    return READERS[kind]
