"""The photographs of the archive in lesson 10."""

from __future__ import annotations

from typing import Literal

import numpy as np

from .data import fashion_mnist


def archive_photographs(
    split: Literal["test", "calibration"], count: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Garments as the archive's camera sees them: photos, labels, and whether each is on white paper. First used in lesson 10.

    Returns uint8 [count, 28, 28], the labels [count], and bool [count]. The lens lets half of the light through in the
    corners; about half of the garments lie on white paper, and those photographs are negatives of the data set's.
    """
    images, labels = fashion_mnist(split)
    light, draw = images[:count] / 255, np.random.default_rng(seed)
    on_white = draw.random(len(light)) < 0.5
    light[on_white] = 1 - light[on_white]
    from_middle = np.arange(28) - 13.5
    fading = 1 + np.hypot(from_middle[:, None], from_middle) ** 2 / 365  # 2 in the corners
    return np.rint(light / fading * 255).astype(np.uint8), labels[:count], on_white
