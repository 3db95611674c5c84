"""How much accuracy an answer loses beside a reference, from few test images, and no run whose outcome cannot matter.

Most of what int8 changes are images between two classes. So hard images are drawn more often than easy ones, and each counts
for less: the estimate is right on average, as with an even draw, and varies as little as with more images.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .fashion_reference import pictures, recorded

SIZES = (1000, 2000, 7000)  # test images by how near their two largest logits lie, the nearest first
_BLOCK = 50  # images that a reference is asked at a time


@functools.cache
def groups() -> tuple[np.ndarray, ...]:
    """The numbers of the test images, in groups of these sizes."""
    hard = recorded()["hardest"].astype(np.int64)
    easy = np.setdiff1d(np.arange(len(pictures("test")[0])), hard)
    return hard[: SIZES[0]], hard[SIZES[0] :], easy


def weights(counts: Sequence[int]) -> np.ndarray:
    """What each image stands for, int64, when so many are drawn from each group: whole numbers, so that sums are exact."""
    common = math.lcm(*counts)
    return np.repeat([size * common // count for size, count in zip(SIZES, counts, strict=True)], counts)


@dataclass(frozen=True)
class Loss:
    """What an answer loses. right, reference: shares of the images, from 0 to 1; the second one is at least so large."""

    within: bool
    right: float
    reference: float


def loss(right: np.ndarray, weight: np.ndarray, reference: Callable[[np.ndarray], np.ndarray], most: float) -> Loss:
    """Whether the share of right answers is at most `most` points below that of a reference.

    right: bool [n]. weight: of each image, whole numbers. reference: is asked for numbers of images, and says where it is right.
    It is first asked for what the answer has wrong: more than that cannot be lost. Then for the others, and no longer
    than until the outcome is certain: it is the one that all images give, at the border, too.
    """
    total = int(weight.sum())

    def within(lost: int) -> bool:
        return 100 * lost / total <= most

    wrong, waiting = np.flatnonzero(~right), np.flatnonzero(right)
    lost = int(weight[wrong][reference(wrong)].sum()) if len(wrong) else 0
    left = int(weight[waiting].sum())  # as much could still be won back
    while not within(lost) and within(lost - left):
        part, waiting = waiting[:_BLOCK], waiting[_BLOCK:]
        lost -= int(weight[part][~reference(part)].sum())
        left -= int(weight[part].sum())
    kept = int(weight[right].sum())
    return Loss(within(lost), kept / total, max(0, kept + lost - left) / total)
