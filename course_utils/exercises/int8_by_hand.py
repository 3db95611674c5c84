"""Tasks 7.1 and 7.4: scale and zero point, computed from a range, and a range read from them."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..data import FASHION_MEAN, FASHION_STD
from . import Criteria, Criterion, Params
from .examine import is_whole, wants_keys
from .handouts import x_to_y

# 7.1: quantize by hand


def draw_by_hand(rng: Random) -> Params:
    # A scale that is a power of two: every step is exact, in float32 and in float64 alike.
    zero, scale = rng.randint(40, 200), 2.0 ** -rng.randint(3, 6)
    halves = rng.sample(range(-zero + 2, 252 - zero), 4)
    steps = [halves[0] // 2 * 2 + 0.5, halves[1] // 2 * 2 + 1.5, halves[2] // 2 * 2 + 0.5, halves[3] // 2 * 2 + 1.5]
    steps += [rng.randint(-zero + 1, 254 - zero) + rng.choice([0.125, 0.25, 0.75, 0.875]) for _ in range(4)]
    steps += [0.0, -zero - rng.randint(3, 40), 255 - zero + rng.randint(3, 40), 255 - zero + 0.75]
    rng.shuffle(steps)
    return {"low": -zero * scale, "high": (255 - zero) * scale, "values": [step * scale for step in steps]}


def by_hand(p: Params, mistake: str = "") -> tuple[float, int, list[int], list[float]]:
    """scale, zero point, integers and numbers back; the right ones, or those of a likely mistake."""
    scale = (p["high"] - p["low"]) / 255
    zero = round(-p["low"] / scale)
    exact = [value / scale for value in p["values"]]
    rounded = [math.floor(e + 0.5) if mistake == "half up" else int(e) if mistake == "cut" else round(e) for e in exact]
    whole = [r + (0 if mistake == "no zero point" else zero) for r in rounded]
    if mistake == "wrapped":
        whole = [w % 256 for w in whole]
    elif mistake == "shifted":
        whole = [min(max(w - 128, -128), 127) for w in whole]
    elif mistake != "not saturated":
        whole = [min(max(w, 0), 255) for w in whole]
    return scale, zero, whole, [scale * (w - zero) for w in whole]


_WHOLE_CAUSES = {
    "half up": "A half goes to the even neighbour: 2.5 becomes 2, and 3.5 becomes 4. np.rint does that.",
    "cut": "You cut the fraction off: round to the nearest integer, and a half to the even one.",
    "no zero point": "The zero point is not added.",
    "wrapped": "Numbers outside of 0 to 255 came back from the other end: clip before you convert to uint8.",
    "not saturated": "uint8 ends at 0 and 255: what lies beyond becomes the last number.",
    "shifted": "These are int8. The task asks for uint8, from 0 to 255.",
}


def check_by_hand(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not wants_keys(answer, {"scale", "zero_point", "integers", "back"}, criteria):
        return criteria
    scale, zero, whole, back = by_hand(p)
    got = answer["scale"]
    criteria.add("the scale", _is_number(got) and np.float32(got) == np.float32(scale), _scale_cause(got, p))
    got = answer["zero_point"]
    criteria.add("the zero point", is_whole(got) and got == zero, _zero_cause(got, p))
    got = answer["integers"]
    if criteria.add(
        "integers is a list of 12 whole numbers",
        isinstance(got, list) and len(got) == len(whole) and all(map(is_whole, got)),
        "Write 12 Python ints, in the order of the values: [int(n) for n in …].",
    ):
        cause = next((why for kind, why in _WHOLE_CAUSES.items() if got == by_hand(p, kind)[2]), "")
        wrong = sum(a != b for a, b in zip(got, whole, strict=True))
        criteria.add("the integers", not wrong, cause or f"{wrong} of 12 are wrong: round(value / scale) + zero point.")
    got = answer["back"]
    if criteria.add(
        "back is a list of 12 numbers",
        isinstance(got, list) and len(got) == len(back) and all(map(_is_number, got)),
        "Write 12 Python floats: [float(n) for n in …].",
    ):
        right = np.array_equal(np.float32(got), np.float32(back))
        criteria.add("the real numbers that come back", right, _back_cause(got, p))
    return criteria


def _scale_cause(got: object, p: Params) -> str:
    if not _is_number(got):
        return "Write one Python float."
    width, value = p["high"] - p["low"], float(got)  # type: ignore[arg-type]
    if np.isclose(value, width / 256):
        return "256 integers have 255 steps between them: divide by 255."
    if any(np.isclose(value, max(-p["low"], p["high"]) / n) for n in (127, 127.5, 128)):
        return "That is the symmetric way. Here the range from low to high is spread over all 256 integers."
    if np.isclose(value * width, 255):
        return "It is upside down: the scale is the width of one step."
    return "It is (high - low) / 255."


def _zero_cause(got: object, p: Params) -> str:
    zero = by_hand(p)[1]
    if not is_whole(got):
        return "The zero point is a whole number: write one Python int."
    if got == -zero:
        return "The sign is wrong: low must become 0, so the zero point is -low / scale."
    if got == zero - 128:
        return "That is the zero point of int8. The task asks for uint8."
    return "0 for a range on both sides of zero? Which integer stands for 0.0?" if got == 0 else "It is -low / scale."


def _back_cause(got: list[float], p: Params) -> str:
    scale, _, whole, _ = by_hand(p)
    if np.allclose(got, p["values"], rtol=1e-6, atol=1e-9):
        return "These are the values themselves. Compute them from your integers: what was rounded stays rounded."
    if np.allclose(got, [scale * w for w in whole], rtol=1e-6):
        return "The zero point is not subtracted."
    if any(np.allclose(got, by_hand(p, kind)[3], rtol=1e-6) for kind in _WHOLE_CAUSES):
        return "They fit integers that are wrong: mend those first."
    return "It is scale × (integer - zero point)."


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


# 7.4: which data was it calibrated with?

READERS = {
    "right": "Normalised pictures reach from -0.81 to 2.02.",
    "raw": "Raw pixels reach from 0 to 255.",
    "scaled": "Pixels that are only divided by 255 reach from 0 to 1.",
    "one broken": "One raw picture among normalised ones: from -0.81 up to 255.",
    "dark": "A picture that is black all over, normalised, has -0.81 everywhere, and 0 always belongs to the range.",
    "noise": "Normal noise reaches about as far below zero as above, to 4 or 5.",
}


def draw_readers(rng: Random) -> Params:
    kinds = rng.sample(sorted(READERS), 5)
    ends = [round(rng.uniform(3.8, 5.2), 3) for _ in range(2)]
    return {"cases": dict(zip("abcde", kinds, strict=True)), "noise": [-ends[0], ends[1]], "top": rng.randint(230, 255)}


def _range(p: Params, kind: str) -> tuple[float, float]:
    low, high = -FASHION_MEAN / FASHION_STD, (1 - FASHION_MEAN) / FASHION_STD
    return {
        "right": (low, high),
        "raw": (0.0, float(p["top"])),
        "scaled": (0.0, 1.0),
        "one broken": (low, float(p["top"])),
        "dark": (low, 0.0),
        "noise": tuple(p["noise"]),
    }[kind]


def scale_of(p: Params, kind: str) -> tuple[np.float32, int]:
    low, high = _range(p, kind)
    scale = np.float32((high - low) / 255)
    return scale, round(-low / float(scale))


def calibrated(p: Params) -> dict[str, onnx.ModelProto]:
    models = {}
    for letter, kind in p["cases"].items():
        scale, zero = scale_of(p, kind)
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero_point"], ["q"], "quantize"),
            helper.make_node("DequantizeLinear", ["q", "x_scale", "x_zero_point"], ["y"], "dequantize"),
        ]
        model = x_to_y(
            "input", nodes, {"x_scale": np.array(scale)}, ["batch", 1, 28, 28], ["batch", 1, 28, 28], {"": 17}
        )
        model.graph.initializer.append(numpy_helper.from_array(np.array(zero, np.uint8), "x_zero_point"))
        models[f"7.4_{letter}.onnx"] = model
    return models


def check_readers(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not wants_keys(answer, set(p["cases"]), criteria):
        return criteria
    for letter, kind in p["cases"].items():
        got = answer[letter]
        what = f"model {letter}"
        if not criteria.add(
            f"{what} has the keys reader and largest",
            isinstance(got, dict) and set(got) == {"reader", "largest"},
            "Write a dict with exactly those keys.",
        ):
            continue
        scale, zero = scale_of(p, kind)
        largest, said = float(scale) * (255 - zero), got["reader"]
        known = isinstance(said, str) and said in READERS
        criteria.add(
            f"{what}: the data of its calibration",
            said == kind,
            f"{READERS[said]} This one reaches from {-zero * float(scale):.3g} to {largest:.3g}."
            if known
            else f"reader is one of: {', '.join(READERS)}.",
        )
        number = got["largest"]
        fits = _is_number(number) and math.isclose(number, largest, rel_tol=1e-3, abs_tol=1e-6)
        criteria.add(f"{what}: the largest number that survives", fits, _largest_cause(number, float(scale), zero))
    return criteria


def _largest_cause(number: object, scale: float, zero: int) -> str:
    if not _is_number(number):
        return "Write one Python float."
    value = float(number)  # type: ignore[arg-type]
    if zero and math.isclose(value, scale * 255, rel_tol=1e-3):
        return "The zero point is not subtracted: 255 does not stand for 255 steps above zero."
    if math.isclose(value, scale * (127 - zero), rel_tol=1e-3):
        return "The integers are uint8: the last one is 255."
    return "Which real number does the integer 255 stand for?"
