"""Task 5.5: each slip in the formula of each operator is named. What a slip gives is computed by nodes, not by the check."""

from __future__ import annotations

import pytest
from answers import failed
from test_exercise_05 import rewritten, student_with

SOFTSIGN, SWISH, MISH = "a = Abs x; b = Add a one; ", "a = Mul x sixth; b = Add a half; ", "a = Exp x; b = Add a one; "
GELU, CELU = "b = Erf a; c = Add b one; d = Mul x half; y = Mul c d", "a = Exp x; b = Sub a one; "


@pytest.mark.parametrize(
    ("awkward", "steps", "hint"),
    [
        ("Softsign", "a = Abs x; y = Div x a", "The 1 is missing: it is x / |x|"),
        ("Softsign", SOFTSIGN + "y = Div a b", "The numerator has no absolute value"),
        ("Softsign", SOFTSIGN + "y = Div b x", "It is upside down"),
        ("Softsign", SOFTSIGN + "y = Mul x b", "It is a product"),
        ("Softsign", "a = Abs x; b = Sub one a; y = Div x b", "The sign is wrong"),
        ("Softsign", SOFTSIGN + "y = Div one b", "x is the numerator"),
        ("HardSwish", SWISH + "y = Mul x b", "The bounds 0 and 1 are missing"),
        ("HardSwish", SWISH + "c = Max b zero; y = Mul x c", "Only the lower bound is there"),
        ("HardSwish", SWISH + "c = Min b one; y = Mul x c", "Only the upper bound is there"),
        ("HardSwish", SWISH + "c = Min b one; y = Max c zero", "That is HardSigmoid"),
        (
            "HardSwish",
            "a = Mul x half; b = Add a sixth; c = Min b one; d = Max c zero; y = Mul x d",
            "The numbers are exchanged",
        ),
        ("HardSwish", SWISH + "e = Mul x b; c = Min e one; y = Max c zero", "The bounds belong around x/6 + 1/2"),
        ("HardSwish", SWISH + "c = Max b one; d = Min c zero; y = Mul x d", "Min and Max are exchanged"),
        ("HardSwish", "a = Mul x sixth; c = Min a one; d = Max c zero; y = Mul x d", "The sum 1/2 is missing"),
        ("Mish", MISH + "c = Log b; y = Tanh c", "The factor x is missing"),
        ("Mish", MISH + "c = Log b; y = Mul x c", "The tanh is missing"),
        ("Mish", "a = Exp x; b = Log a; c = Tanh b; y = Mul x c", "The 1 is missing in log"),
        ("Mish", MISH + "c = Tanh b; y = Mul x c", "The log is missing"),
        ("Mish", MISH + "c = Tanh b; d = Log c; y = Mul x d", "Log and tanh are in the wrong order"),
        ("Mish", "a = Sigmoid x; y = Mul x a", "another function"),
        ("Mish", "n = Neg x; a = Exp n; b = Add a one; c = Log b; d = Tanh c; y = Mul x d", "The sign in e^x is wrong"),
        ("Gelu", "a = Mul x root; b = Erf a; c = Add b one; y = Mul c x", "The factor 0.5 is missing"),
        ("Gelu", "a = Mul x one; " + GELU, "The division by the square root of 2 is missing"),
        ("Gelu", "a = Div x root; " + GELU, "x is multiplied by the square root of 2"),
        ("Gelu", "a = Mul x half; " + GELU, "It is divided by 2 inside of erf"),
        ("Gelu", "a = Mul x root; b = Erf a; d = Mul x half; y = Mul b d", "The 1 is missing before the product"),
        ("Gelu", "a = Mul x root; b = Erf a; c = Add b one; y = Mul c half", "The factor x is missing"),
        ("Gelu", "a = Mul x root; b = Erf a; c = Add b half; y = Mul c x", "The numbers are exchanged"),
        (
            "Gelu",
            "a = Mul x root; b = Erf a; c = Sub one b; d = Mul x half; y = Mul c d",
            "The sign of erf is wrong",
        ),
        ("Celu", CELU + "y = Min b zero", "The positive part is missing"),
        ("Celu", "y = Max x zero", "That is Relu"),
        ("Celu", CELU + "c = Max b zero; d = Min x zero; y = Add c d", "Min and Max are exchanged"),
        ("Celu", CELU + "c = Min b zero; d = Max x zero; y = Sub d c", "The parts are subtracted"),
        ("Celu", "a = Exp x; b = Sub one a; c = Min b zero; d = Max x zero; y = Add c d", "It is 1 - e^x"),
        ("Celu", CELU + "c = Min b zero; y = Add c x", "Max is missing"),
    ],
)
def test_each_slip_is_named(awkward: str, steps: str, hint: str) -> None:
    who = student_with(awkward)
    assert hint in failed("5.5", rewritten(who, steps), who)
