"""Tasks 7.1 and 7.4: scale and zero point, computed from a range, and a range read from them."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ...lab.data import FASHION_MEAN, FASHION_STD
from .. import Criteria, Criterion, Params
from ..examine import wants_keys, whole
from ..handouts import x_to_y

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
    scale, zero, integers, back = by_hand(p)
    lists = criteria.require(
        "integers is a list of 12 whole numbers",
        isinstance(answer["integers"], list)
        and len(answer["integers"]) == len(integers)
        and all(whole(n) is not None for n in answer["integers"]),
        "Write 12 Python ints, in the order of the values: [int(n) for n in …].",
    )
    lists &= criteria.require(
        "back is a list of 12 numbers",
        isinstance(answer["back"], list) and len(answer["back"]) == len(back) and all(map(_is_number, answer["back"])),
        "Write 12 Python floats: [float(n) for n in …].",
    )
    if not lists:
        return criteria
    step, stands_for_0 = answer["scale"], whole(answer["zero_point"])
    right = _is_number(step) and np.float32(step) == np.float32(scale)
    criteria.add(
        "scale and zero point",
        right and stands_for_0 == zero,
        f"{'' if right else _scale_cause(step, p)} {'' if stands_for_0 == zero else _zero_cause(stands_for_0, p)}",
    )
    got = [whole(n) for n in answer["integers"]]
    wrong = sum(a != b for a, b in zip(got, integers, strict=True))
    cause = next((why for kind, why in _WHOLE_CAUSES.items() if got == by_hand(p, kind)[2]), "")
    criteria.add("the integers", not wrong, cause or f"{wrong} of 12 are wrong: round(value / scale) + zero point.")
    right = np.array_equal(np.asarray(answer["back"], np.float32), np.asarray(back, np.float32))
    criteria.add("the real numbers that come back", right, lambda: _back_cause(answer["back"], p))
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


def _zero_cause(got: int | None, p: Params) -> str:
    zero = by_hand(p)[1]
    if got is None:
        return "The zero point is a whole number: write one Python int."
    if got == -zero:
        return "The sign is wrong: low must become 0, so the zero point is -low / scale."
    if got == zero - 128:
        return "That is the zero point of int8. The task asks for uint8."
    if got == 255 - zero:
        return "That is high / scale: the zero point is -low / scale."
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
    return {"seed": rng.getrandbits(32)}


def details(p: Params) -> Params:
    """Who calibrated with what: not among the parameters, it is what the task asks for."""
    rng = Random(p["seed"])
    kinds = rng.sample(sorted(READERS), 5)
    ends = [round(rng.uniform(3.8, 5.2), 3) for _ in range(2)]
    return {"cases": dict(zip("abcde", kinds, strict=True)), "noise": [-ends[0], ends[1]], "top": rng.randint(230, 255)}


def _range(drawn: Params, kind: str) -> tuple[float, float]:
    low, high = -FASHION_MEAN / FASHION_STD, (1 - FASHION_MEAN) / FASHION_STD
    return {
        "right": (low, high),
        "raw": (0.0, float(drawn["top"])),
        "scaled": (0.0, 1.0),
        "one broken": (low, float(drawn["top"])),
        "dark": (low, 0.0),
        "noise": tuple(drawn["noise"]),
    }[kind]


def scale_of(drawn: Params, kind: str) -> tuple[np.float32, int]:
    """Scale and zero point of data of this kind. drawn: `details`."""
    low, high = _range(drawn, kind)
    scale = np.float32((high - low) / 255)
    return scale, round(-low / float(scale))


def calibrated(p: Params) -> dict[str, onnx.ModelProto]:
    models, drawn = {}, details(p)
    for letter, kind in drawn["cases"].items():
        scale, zero = scale_of(drawn, kind)
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
    criteria, drawn = Criteria(), details(p)
    cases = drawn["cases"]
    if not wants_keys(answer, set(cases), criteria):
        return criteria
    odd = [e for e in answer.values() if not isinstance(e, dict) or set(e) != {"reader", "largest"}]
    if not criteria.require(
        "each entry has the keys reader and largest",
        not odd,
        f"{str(odd[0])[:60]} is another thing: write a dict with exactly those keys." if odd else "",
    ):
        return criteria
    wrong = []
    for letter, kind in cases.items():
        scale, zero = scale_of(drawn, kind)
        number, largest = answer[letter]["largest"], float(scale) * (255 - zero)
        if not (_is_number(number) and math.isclose(number, largest, rel_tol=1e-3, abs_tol=1e-6)):
            wrong.append(_largest_cause(number, float(scale), zero))
    if not criteria.add(
        "the largest number that passes, of each model",
        not wrong,
        f"{len(cases) - len(wrong)} of {len(cases)} are right. {wrong[0]}" if wrong else "",
    ):
        return criteria
    said = [answer[letter]["reader"] for letter, kind in cases.items() if answer[letter]["reader"] != kind]
    criteria.add(
        "the data of each calibration",
        not said,
        (f"{len(cases) - len(said)} of {len(cases)} are right. " + _reader_cause(said[0])) if said else "",
    )
    return criteria


def _reader_cause(said: object) -> str:
    if not isinstance(said, str) or said not in READERS:
        return f"reader is one of: {', '.join(READERS)}."
    return f"One that you call {said!r} is not: {READERS[said][0].lower()}{READERS[said][1:]}"


def _largest_cause(number: object, scale: float, zero: int) -> str:
    if not _is_number(number):
        return "Write one Python float."
    value = float(number)  # type: ignore[arg-type]
    if zero and math.isclose(value, scale * 255, rel_tol=1e-3):
        return "The zero point is not subtracted: 255 does not stand for 255 steps above zero."
    if math.isclose(value, scale * (127 - zero), rel_tol=1e-3):
        return "The integers are uint8: the last one is 255."
    if zero and math.isclose(value, -scale * zero, rel_tol=1e-3):
        return "That is the smallest one, which the integer 0 stands for."
    return "Which real number does the integer 255 stand for?"
