"""Task 3.3: an operator that the exporter does not know."""

from __future__ import annotations

from random import Random

import numpy as np
import onnx

from .. import Criteria, Criterion, Params
from ..examine import every_node, is_sound, numpy_source
from ..slips import Calculation, compare
from .exported import LOOK, any_first, one_to_one


def draw_hump(rng: Random) -> Params:
    """Personal parameters of 3.3."""
    return {
        "width": rng.choice([rng.randint(4, 8), rng.randint(13, 25)]) / 10,
        "height": rng.randint(15, 40) / 10,
        "power": rng.choice([4, 6]),
        "slope": rng.choice([-1, 1]) * rng.randint(3, 9) / 10,
    }


def _hump(p: Params, one: float = 1.0, **changed: float) -> Calculation:
    """The model of the task, or one with a mistake. one: what is added in the denominator. changed: other numbers."""
    q = {**p, **changed}
    return lambda feed: (
        q["height"] / (one + (feed["x"].astype(np.float64) / q["width"]) ** q["power"]) + q["slope"] * feed["x"]
    )


def check_hump(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    """The check of 3.3."""
    criteria = Criteria()
    own = {(f.domain, f.name) for f in model.functions}
    used = {(n.domain, n.op_type) for n in every_node(model) if n.domain not in ("", "ai.onnx")}
    foreign = sorted(f"{domain}::{name}" for domain, name in used - own)
    if not criteria.require(
        "every operator is one that runtimes know",
        not foreign,
        f"{', '.join(foreign)} is in the file, and it is no standard operator of ONNX: hand a translation to "
        f"custom_translation_table.",
    ):
        return criteria
    if not is_sound(model, criteria) or not one_to_one(model, criteria):
        return criteria
    if not any_first(model, 4, "batch", "rows", criteria):
        return criteria
    source = numpy_source(rng)
    width, height, power, slope = p["width"], p["height"], p["power"], p["slope"]
    compare(
        model,
        {
            "it computes what the PyTorch model computes": [
                {"x": source.normal(0, spread, (rows, 4)).astype(np.float32)}
                for spread, rows in ((2, 5), (width, 5), (1, 1))
            ]
        },
        _hump(p),
        {
            "The width is not in it: it computes as if it were 1.": _hump(p, width=1),
            "The height is not in it: it computes as if it were 1.": _hump(p, height=1),
            "It takes the square, not your power.": _hump(p, power=2),
            "The power is not in it.": _hump(p, power=1),
            "It multiplies by the width in place of dividing.": _hump(p, width=1 / width),
            "It divides after the power, not before it.": _hump(p, width=width ** (1 / power)),
            "The 1 in the denominator is missing.": _hump(p, 0.0),
            "The 1 in the denominator is subtracted, not added.": _hump(p, -1.0),
            "It takes height * (1 + …) in place of height / (1 + …).": lambda feed: (
                height * (1 + (feed["x"].astype(np.float64) / width) ** power) + slope * feed["x"]
            ),
            "It takes (1 + …) / height in place of height / (1 + …).": lambda feed: (
                (1 + (feed["x"].astype(np.float64) / width) ** power) / height + slope * feed["x"]
            ),
            "The slope is missing: that is the model around the operator.": _hump(p, slope=0),
            "The slope has the wrong sign.": _hump(p, slope=-slope),
            "The hump has the wrong sign.": _hump(p, height=-height),
            "Width and height are exchanged.": _hump(p, width=height, height=width),
            "Height and slope are exchanged.": _hump(p, height=slope, slope=height),
        },
        criteria,
        otherwise=LOOK,
    )
    return criteria
