"""Activations that a device does not know, what they mean, and what they are often taken for. Chapters 05 and 08."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _softplus(v: np.ndarray) -> np.ndarray:
    return np.logaddexp(v, 0)


Meaning = Callable[[np.ndarray], np.ndarray]


# Operator → its meaning, the operators that are enough to say it, and wrong ways to say it with the cause of each.
AWKWARD: dict[str, tuple[Meaning, list[str], dict[str, Meaning]]] = {
    "Softsign": (
        lambda v: v / (1 + np.abs(v)),
        ["Abs", "Add", "Div"],
        {
            "The absolute value is missing: it is x / (1 + x).": lambda v: v / (1 + v),
            "The 1 is missing: it is x / |x|.": lambda v: v / np.abs(v),
            "The numerator has no absolute value: it is |x| / (1 + |x|).": lambda v: np.abs(v) / (1 + np.abs(v)),
            "It is upside down: x is divided by the sum.": lambda v: (1 + np.abs(v)) / v,
            "It is a product: x is divided by the sum.": lambda v: v * (1 + np.abs(v)),
            "The sign is wrong: it is x / (1 - |x|).": lambda v: v / (1 - np.abs(v)),
            "It is 1 / (1 + |x|): x is the numerator.": lambda v: 1 / (1 + np.abs(v)),
        },
    ),
    "HardSwish": (
        lambda v: v * np.clip(v / 6 + 0.5, 0, 1),
        ["Add", "Mul", "Max", "Min"],
        {
            "The bounds 0 and 1 are missing.": lambda v: v * (v / 6 + 0.5),
            "Only the lower bound is there, 1 is missing.": lambda v: v * np.maximum(v / 6 + 0.5, 0),
            "Only the upper bound is there, 0 is missing.": lambda v: v * np.minimum(v / 6 + 0.5, 1),
            "That is HardSigmoid: the factor x is missing.": lambda v: np.clip(v / 6 + 0.5, 0, 1),
            "The numbers are exchanged: it is x/6 + 1/2, and not x/2 + 1/6.": lambda v: (
                v * np.clip(v / 2 + 1 / 6, 0, 1)
            ),
            "The bounds belong around x/6 + 1/2, before x is multiplied.": lambda v: np.clip(v * (v / 6 + 0.5), 0, 1),
            "Min and Max are exchanged: the smaller one of 1, then the larger one of 0.": lambda v: (
                v * np.minimum(np.maximum(v / 6 + 0.5, 1), 0)
            ),
            "The sum 1/2 is missing.": lambda v: v * np.clip(v / 6, 0, 1),
        },
    ),
    "Mish": (
        lambda v: v * np.tanh(_softplus(v)),
        ["Exp", "Log", "Add", "Tanh", "Mul"],
        {
            "The factor x is missing.": lambda v: np.tanh(_softplus(v)),
            "The tanh is missing.": lambda v: v * _softplus(v),
            "The 1 is missing in log(1 + e^x).": lambda v: v * np.tanh(v),
            "The log is missing.": lambda v: v * np.tanh(1 + np.exp(v)),
            "Log and tanh are in the wrong order.": lambda v: v * np.log(np.tanh(1 + np.exp(v))),
            "That is x · sigmoid(x), another function.": lambda v: v / (1 + np.exp(-v)),
            "The sign in e^x is wrong.": lambda v: v * np.tanh(_softplus(-v)),
        },
    ),
    "Gelu": (
        lambda v: 0.5 * v * (1 + _erf(v / np.sqrt(2))),
        ["Erf", "Add", "Mul"],
        {
            "The factor 0.5 is missing.": lambda v: v * (1 + _erf(v / np.sqrt(2))),
            "The division by the square root of 2 is missing.": lambda v: 0.5 * v * (1 + _erf(v)),
            "x is multiplied by the square root of 2: divide by it.": lambda v: 0.5 * v * (1 + _erf(v * np.sqrt(2))),
            "It is divided by 2 inside of erf: divide by its square root.": lambda v: 0.5 * v * (1 + _erf(v / 2)),
            "The 1 is missing before the product with x.": lambda v: 0.5 * v * _erf(v / np.sqrt(2)),
            "The factor x is missing.": lambda v: 0.5 * (1 + _erf(v / np.sqrt(2))),
            "The numbers are exchanged: 1/2 outside of erf, 1 beside it.": lambda v: v * (0.5 + _erf(v / np.sqrt(2))),
            "The sign of erf is wrong.": lambda v: 0.5 * v * (1 - _erf(v / np.sqrt(2))),
        },
    ),
    "Celu": (
        lambda v: np.maximum(v, 0) + np.minimum(np.expm1(v), 0),
        ["Exp", "Sub", "Add", "Max", "Min"],
        {
            "The positive part is missing.": lambda v: np.minimum(np.expm1(v), 0),
            "That is Relu: the negative part is missing.": lambda v: np.maximum(v, 0),
            "Min and Max are exchanged.": lambda v: np.minimum(v, 0) + np.maximum(np.expm1(v), 0),
            "The parts are subtracted: add them.": lambda v: np.maximum(v, 0) - np.minimum(np.expm1(v), 0),
            "It is 1 - e^x: subtract 1 from e^x.": lambda v: np.maximum(v, 0) + np.minimum(-np.expm1(v), 0),
            "Max is missing: x itself is added.": lambda v: v + np.minimum(np.expm1(v), 0),
        },
    ),
}


MEANINGS: dict[str, Meaning] = {operator: entry[0] for operator, entry in AWKWARD.items()}


def likely_slip(operator: str, got: np.ndarray, expected: Callable[[Meaning, Meaning], np.ndarray]) -> str:
    """The slip in one or both replacements of an operator that gives these numbers, or what to do where none does.

    expected: what a network computes with these functions in its two places.
    """
    right, wrongs = MEANINGS[operator], AWKWARD[operator][2]
    like: dict[str, float] = {}  # a part of the numbers may lie near a pole
    for sentence, wrong in wrongs.items():
        for where, functions in {
            "": (wrong, wrong),
            "In the first of both: ": (wrong, right),
            "In the second of both: ": (right, wrong),
        }.items():
            same = np.isclose(got, expected(*functions), atol=1e-4, rtol=1e-3, equal_nan=True)
            like[where + sentence] = float(same.mean())
    best = max(like, key=like.get)  # type: ignore[arg-type]
    return best if like[best] > 0.9 else "Compare each new piece with the old node, on the same input."
