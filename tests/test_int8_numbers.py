"""Tasks 7.1 and 7.4: what a mistake gives is computed here with NumPy, and the files are fed, without the check's formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from answers import STUDENTS, accepted, failed, given_files, params
from onnx import load_from_string, numpy_helper
from test_exercise_07 import readers_by_running

# 7.1

INTEGERS = {
    "": lambda exact, zero: (np.rint(exact) + zero).clip(0, 255),
    "A half goes to the even neighbour": lambda exact, zero: (np.floor(exact + 0.5) + zero).clip(0, 255),
    "You cut the fraction off": lambda exact, zero: (np.trunc(exact) + zero).clip(0, 255),
    "The zero point is not added": lambda exact, zero: np.rint(exact).clip(0, 255),
    "came back from the other end": lambda exact, zero: (np.rint(exact) + zero) % 256,
    "uint8 ends at 0 and 255": lambda exact, zero: np.rint(exact) + zero,
    "These are int8": lambda exact, zero: (np.rint(exact) + zero - 128).clip(-128, 127),
    "12 are wrong: round(value / scale) + zero point": lambda exact, zero: (np.rint(exact) + zero).clip(0, 255)[::-1],
}


def answer(who: str, cause: str = "") -> dict[str, Any]:
    p = params("7.1", who)
    scale = (p["high"] - p["low"]) / 255
    zero = round(-p["low"] / scale)
    integers = [int(n) for n in INTEGERS[cause](np.array(p["values"]) / scale, zero)]
    return {"scale": scale, "zero_point": zero, "integers": integers, "back": [scale * (n - zero) for n in integers]}


@pytest.mark.parametrize("who", STUDENTS)
def test_integers_with_a_slip(who: str) -> None:
    accepted("7.1", answer(who), who)
    for cause in INTEGERS:
        if cause:
            wrong = answer(who) | {"integers": answer(who, cause)["integers"]}
            assert cause in failed("7.1", wrong, who)


def test_numbers_back_from_wrong_integers() -> None:
    for cause in list(INTEGERS)[1:-1]:
        assert "They fit integers that are wrong" in failed(
            "7.1", answer("ada") | {"back": answer("ada", cause)["back"]}
        )
    right = answer("ada")
    assert "The zero point is not subtracted" in failed(
        "7.1", right | {"back": [right["scale"] * n for n in right["integers"]]}
    )
    assert "the values themselves" in failed("7.1", right | {"back": params("7.1")["values"]})
    other = [*right["back"][:-1], right["back"][-1] + right["scale"]]
    assert "It is scale × (integer - zero point)" in failed("7.1", right | {"back": other})


def test_scales_with_a_slip() -> None:
    p, right = params("7.1"), answer("ada")
    width, most = p["high"] - p["low"], max(-p["low"], p["high"])
    for steps in (127, 127.5, 128):
        assert "That is the symmetric way" in failed("7.1", right | {"scale": most / steps})
    assert "divide by 255" in failed("7.1", right | {"scale": width / 256})
    assert "upside down" in failed("7.1", right | {"scale": 255 / width})
    for other in (width / 254, width, 1e29, -width / 255):
        assert "It is (high - low) / 255" in failed("7.1", right | {"scale": other})
    for odd in (1e30, 1e31, None, "1", True):
        assert "Write one Python float" in failed("7.1", right | {"scale": odd})
    assert "The zero point" not in failed("7.1", right | {"scale": width})


def test_zero_points_with_a_slip() -> None:
    right = answer("ada")
    zero = right["zero_point"]
    for other, cause in (
        (-zero, "The sign is wrong"), (zero - 128, "the zero point of int8"), (255 - zero, "That is high / scale"),
        (0, "Which integer stands for 0.0"), (zero + 1, "It is -low / scale"), (zero + 0.5, "write one Python int"),
    ):  # fmt: skip
        hints = failed("7.1", right | {"zero_point": other})
        assert cause in hints
        assert "(high - low)" not in hints


# 7.4: as the sentences say it

RANGES = {"right": (-0.81, 2.02), "raw": (0, 255), "scaled": (0, 1), "one broken": (-0.81, 255), "dark": (-0.81, 0)}


@pytest.mark.parametrize("who", STUDENTS)
def test_files_let_through_what_the_sentences_say(who: str) -> None:
    said = readers_by_running(who)
    accepted("7.4", said, who)
    for name, data in given_files("7.4", who).items():
        model = load_from_string(data)
        stored = {t.name: float(numpy_helper.to_array(t)) for t in model.graph.initializer}
        scale, zero = stored["x_scale"], stored["x_zero_point"]
        kind, low, high = said[name[4]]["reader"], -zero * scale, (255 - zero) * scale
        if kind in RANGES:
            want = RANGES[kind]
            assert low == pytest.approx(want[0], abs=scale)
            assert high == pytest.approx(want[1], abs=26 if want[1] == 255 else 0.02)
        else:
            assert -5.3 < low < -3.7
            assert 3.7 < high < 5.3


def of_kind(kind: str) -> tuple[str, str, dict[str, Any], float, float]:
    """A student who has this kind: name, letter, right answer, scale and zero point."""
    who = next(w for w in map(str, range(99)) if kind in [e["reader"] for e in readers_by_running(w).values()])
    right = readers_by_running(who)
    letter = next(k for k, e in right.items() if e["reader"] == kind)
    model = load_from_string(given_files("7.4", who)[f"7.4_{letter}.onnx"])
    scale, zero = (float(numpy_helper.to_array(t)) for t in model.graph.initializer)
    return who, letter, right, scale, zero


@pytest.mark.parametrize("kind", ["right", "raw", "one broken"])
def test_largest_numbers_with_a_slip(kind: str) -> None:
    who, letter, right, scale, zero = of_kind(kind)

    def hints(largest: object) -> str:
        return failed("7.4", right | {letter: right[letter] | {"largest": largest}}, who)

    assert "The integers are uint8" in hints(scale * (127 - zero))
    assert "Which real number does the integer 255 stand for" in hints(scale * 300 + 1)
    assert "Write one Python float" in hints("2")
    if kind == "right":
        assert "The zero point is not subtracted" in hints(scale * 255)
        assert "That is the smallest one" in hints(-scale * zero)
    if kind == "raw":  # 0 is the smallest there, and also what stands for nothing
        assert "Which real number does the integer 255 stand for" in hints(0)


def test_readers_of_another_name() -> None:
    right = readers_by_running("ada")
    for odd in ("normalised", None, 3, ["right"]):
        assert "reader is one of: right, raw, scaled, one broken, dark, noise" in failed(
            "7.4", right | {"a": right["a"] | {"reader": odd}}
        )
