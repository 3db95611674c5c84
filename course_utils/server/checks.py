"""What a request must hold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class RequestError(Exception):
    """A refused request: its HTTP status, and one sentence for the sender."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def check(shape: Sequence[int], dtype: np.dtype, most: int) -> None:
    """Refuse all but uint8 [28, 28] and [n, 28, 28] with n from 1 to most."""
    if dtype != np.uint8:
        found = str(dtype)[:60]
        wanted = "expected uint8: pixels from 0 to 255."
        raise RequestError(422, f"The dtype is {found}, {wanted}")
    if len(shape) not in (2, 3) or tuple(shape[-2:]) != (28, 28):
        found = str(list(shape)[:8])
        raise RequestError(
            422, f"The shape is {found}, expected [28, 28] or [n, 28, 28]."
        )
    if len(shape) == 3 and not 1 <= shape[0] <= most:
        raise RequestError(
            422, f"The request holds {shape[0]} images, expected 1 to {most}."
        )
