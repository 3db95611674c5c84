"""Finding the mistake behind wrong numbers: the one that explains all of them, and none that does not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from course_utils import running
from course_utils.exercises import Criteria
from course_utils.exercises.slips import Feed, compare
from course_utils.running import OutOfTimeError


def model(body: str, rows: str = "n") -> onnx.ModelProto:
    return onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 18]> g (float[{rows}] x) => (float[m] y) <float two = {{2}}> {{ {body} }}'
    )


def feeds(*values: list[float]) -> list[Feed]:
    return [{"x": np.array(v, np.float32)} for v in values]


def never(feed: Feed) -> np.ndarray:
    raise AssertionError("computed, though nothing is wrong")


def hints(it: onnx.ModelProto, slips: dict, cases: dict | None = None) -> list[str]:
    criteria = Criteria()
    cases = cases or {"right": feeds([1, -2, 3], [-4, 5])}
    compare(it, cases, lambda feed: 2 * feed["x"], slips, criteria, otherwise="Look closer.")
    assert not any(c.condition for c in criteria)
    return [c.hint for c in criteria]


SLIPS = {
    "The factor is missing.": lambda feed: feed["x"],
    "The sign is wrong.": lambda feed: -2 * feed["x"],
    "The absolute value is taken.": lambda feed: np.abs(2 * feed["x"]),
    "It gives the square.": lambda feed: feed["x"] ** 2,
}


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        ("y = Identity(x)", "The largest difference is 3. The factor is missing."),
        ("a = Mul(x, two)  y = Neg(a)", "The largest difference is 12. The sign is wrong."),
        ("y = Add(x, two)", "The largest difference is 4. Look closer."),
        ("a = Mul(x, two)  y = Concat<axis = 0>(a, a)", "The result has the shape [6], expected [3]. Look closer."),
        ("a = Sub(x, x)  y = Div(x, a)", "3 of 3 numbers of the result are nan or infinite. Look closer."),
    ],
)
def test_a_cause_is_named_when_it_explains_everything(body: str, hint: str) -> None:
    assert hints(model(body), SLIPS) == [hint]


def test_causes_that_cannot_be_told_apart_are_both_named() -> None:
    said = hints(model("a = Mul(x, two)  y = Abs(a)"), SLIPS, {"one": feeds([-1, -2])})
    assert said == ["The largest difference is 8. The sign is wrong. Or: The absolute value is taken."]


def test_of_many_causes_the_first_two_are_named() -> None:
    slips = {f"Cause {number}.": lambda feed: feed["x"] for number in (1, 2, 3)}
    assert hints(model("y = Identity(x)"), slips) == ["The largest difference is 3. Cause 1. Or: Cause 2."]


def test_a_cause_that_explains_one_input_of_two_is_not_named() -> None:
    said = hints(
        model("y = Mul(x, x)"), {"It gives 1.": lambda feed: np.ones_like(feed["x"])}, {"one": feeds([1, 1], [3])}
    )
    assert said == ["The largest difference is 1. Look closer."]


def test_a_right_answer_costs_no_slip() -> None:
    assert hints(model("y = Mul(x, two)"), {"never": never}) == [""]


def test_what_is_refused_has_the_reason_and_no_invented_cause() -> None:
    (hint,) = hints(model("y = Mul(x, two)", rows="2"), {"never": never}, {"one": feeds([1, 2, 3])})
    assert hint.startswith("It is refused: Input 'x' was fed shape [3]")
    assert "Look closer" not in hint
    first, second = hints(model("y = Identity(x)", rows="2"), SLIPS, {"one": feeds([1, 2]), "other": feeds([1, 2, 3])})
    assert "The factor is missing" in first
    assert second.startswith("It is refused")


def test_a_result_whose_name_is_no_text_is_a_failed_run() -> None:
    data = model("y = Mul(x, two)").SerializeToString().replace(b"\x01y", b"\x01\xff")
    (hint,) = hints(onnx.ModelProto.FromString(data), SLIPS)
    assert hint.startswith("It is refused: 'utf-8' codec can't decode")


def test_a_run_without_an_end_ends_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running.run, "__defaults__", (0.3,))
    endless = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 18]> g (float[n] x) => (float[n] y) <bool yes = {1}> {
        y = Loop<body = b (int64 i, bool go, float[n] h) => (bool on, float[n] k) { on = Identity(go)  k = Neg(h) }>(, yes, x) }""")
    with pytest.raises(OutOfTimeError):
        hints(endless, SLIPS)
