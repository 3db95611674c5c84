"""Task 4.4, cure the over-specialised export: a loop over the steps, which the export unrolled for the example's length."""

from __future__ import annotations

from random import Random

import numpy as np
import onnx

from .. import Criteria, Criterion, Params
from ..examine import has_io, is_sound, numpy_source
from ..slips import Calculation, Feed, compare
from .declared import declares

ROWS, WIDTH = 48, 6  # of the table of positions


def draw_reader(rng: Random) -> Params:
    return {
        "seed": rng.randrange(10**6),
        "decay": rng.choice([0.6, 0.7, 0.8]),
        "start": rng.choice([-1, 1]) * rng.randint(5, 30) / 10,
        "length": rng.randint(7, 12),
    }


def _table(p: Params) -> np.ndarray:
    return np.random.default_rng(p["seed"]).normal(0, 1, (ROWS, WIDTH)).astype(np.float32)


def _read(
    p: Params,
    steps: int | None = None,
    *,
    table: float = 1.0,
    decays: bool = True,
    flipped: bool = False,
    late: int = 0,
) -> Calculation:
    """What the network of the task computes, or one with a mistake.

    steps: it reads so many of them only. table: a factor of it. decays, flipped: whether the steps lose weight, and the
    last ones in place of the first. late: rounds too few in which the start loses weight.
    """

    def calculate(feed: Feed) -> np.ndarray:
        x = (feed["x"] + table * _table(p)[: feed["x"].shape[1]])[:, :steps]
        n = x.shape[1]
        age = np.arange(n) if flipped else np.arange(n - 1, -1, -1)
        weights = p["decay"] ** age if decays else np.ones(n)
        return (x * weights[:, None]).sum(1) + p["start"] * p["decay"] ** (n - late)

    return calculate


def check_reader(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    declares(model, {"x": ["batch", "length", WIDTH], "y": ["batch", WIDTH]}, criteria)
    source, n = numpy_source(rng), p["length"]

    def feed(batch: int, length: int) -> Feed:
        return {"x": source.normal(0, 1, (batch, length, WIDTH)).astype(np.float32)}

    shorter, longer = rng.randint(2, n - 2), rng.randint(n + 2, ROWS - 1)
    no_start = {**p, "start": 0.0}
    compare(
        model,
        {
            f"the numbers of the given network at the example's length ({n})": [feed(2, n), feed(rng.randint(3, 9), n)],
            f"its numbers at the lengths 1, {shorter}, {longer} and {ROWS}": [
                feed(batch, length) for batch, length in ((1, 1), (2, shorter), (2, longer), (1, ROWS))
            ],
        },
        _read(p),
        {
            f"It reads the first {n} steps and ignores the others: the loop over range(…) was unrolled for the "
            f"example.": _read(p, n),
            "The start is not in it.": _read(no_start),
            "The start does not lose weight: each round multiplies it, too.": lambda feed: (
                _read(no_start)(feed) + p["start"]
            ),
            "The start loses weight in one round too few.": _read(p, late=1),
            "The start has the wrong sign.": _read({**p, "start": -p["start"]}),
            "All steps count alike: the decay got lost.": _read(p, decays=False),
            "All steps count alike, and the start is not in it.": _read(no_start, decays=False),
            "The weights run the wrong way: the last step counts fully, older ones less.": _read(p, flipped=True),
            "The weights run the wrong way, and the start is not in it.": _read(no_start, flipped=True),
            "The table of positions is not added any more.": _read(p, table=0.0),
            "The table of positions is subtracted.": _read(p, table=-1.0),
        },
        criteria,
        otherwise="Write down what the loop gives for two steps, and compare: cu.parity(reader, path, x).",
    )
    return criteria
