"""What the checks feed, and how exact they are, as it was recorded: `python tests/recorded_checks.py` records it anew.

An instructor who grades a second time gets the same points. So a change of inputs or tolerances is made on purpose.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnxruntime as ort
from answers import criteria, nearly, params
from onnx.reference import ReferenceEvaluator
from recorded_tasks import TASKS, _number, _of_model, compact
from test_every_exercise import ONNX, roads

from course_utils.exercises import slips
from course_utils.exercises.activations import AWKWARD
from course_utils.exercises.ch10 import canvas, scroll
from course_utils.exercises.ch10.camera import photographs
from course_utils.exercises.slips import Calculation, Outcome

RECORD = Path(__file__).with_suffix(".json")
ON_PURPOSE = "if it is meant, run: python tests/recorded_checks.py"
# Whether its right answer, an int8 network, is near enough depends on the processor: without VNNI ONNX Runtime lets sums saturate.
CHECKED = [id for id in TASKS if id != "9.11"]
# What they take for the tolerances that are not given.
OF_NUMPY = {"rtol": 1e-5, "atol": 1e-8, "equal_nan": False}
OF_MATH = {"rel_tol": 1e-9, "abs_tol": 0}


@contextmanager
def overheard() -> Iterator[tuple[dict[str, list[float]], set[str]]]:
    """While it is open: the inputs that sessions get, with a number for the values of each, and the tolerances of comparisons."""
    fed, exact = defaultdict(list), set()

    def listening(run: Callable[..., Any]) -> Callable[..., Any]:
        def heard(self: Any, names: Any, feed: dict[str, np.ndarray], *more: Any, **how: Any) -> Any:
            for name, value in feed.items():
                array = np.asarray(value)
                number = _number(array) if array.dtype.kind in "fiub" else 0.0
                fed[f"{name} {array.dtype} {list(array.shape)}"].append(number)
            return run(self, names, feed, *more, **how)

        return heard

    def noting(compare: Callable[..., Any], usual: dict[str, Any]) -> Callable[..., Any]:
        def noted(a: Any, b: Any, **how: Any) -> Any:
            exact.add(" ".join(f"{name}={value:g}" for name, value in sorted({**usual, **how}.items())))
            return compare(a, b, **how)

        return noted

    with (
        patch.object(ort.InferenceSession, "run", listening(ort.InferenceSession.run)),
        patch.object(ReferenceEvaluator, "run", listening(ReferenceEvaluator.run)),
        patch.object(np, "allclose", noting(np.allclose, OF_NUMPY)),
        patch.object(np, "isclose", noting(np.isclose, OF_NUMPY)),
        patch.object(math, "isclose", noting(math.isclose, OF_MATH)),
    ):
        yield fed, exact


def slips_of(id: str) -> list[list[float]]:
    """What the mistakes that a check looks for compute: a number for each of its inputs."""
    model = roads(id)[0]("ada")
    found: list[list[float]] = []

    def noted(ran: Sequence[Outcome], known: Mapping[str, Calculation], *more: Any) -> str:
        found.extend([_number(slip(o.feed)) for o in ran] for slip in known.values())
        return "none"

    with patch.object(slips, "slip_made", noted), np.errstate(all="ignore"):
        criteria(id, nearly(model))
    return found


def asked(id: str) -> dict[str, Any]:
    """What the check of a task does to ada's right answer: inputs with how often they were fed, and tolerances."""
    answer = roads(id)[0]("ada")
    criteria(id, copy.deepcopy(answer))  # what is computed once and kept is no part of it
    with overheard() as (fed, exact):
        found = criteria(id, answer)
    assert all(c.passed for c in found)
    inputs = {what: [len(numbers), float(f"{np.mean(numbers):.4g}")] for what, numbers in sorted(fed.items())}
    return {"inputs": inputs, "tolerances": sorted(exact), "slips": slips_of(id) if id in ONNX else []}


def activations() -> dict[str, list[Any]]:
    """Operator → what it may be said with, and a number for what it computes, and for each of its slips."""
    x, found = np.linspace(-3.1, 3.3, 41), {}
    with np.errstate(all="ignore"):
        for operator, (meaning, enough, wrong) in AWKWARD.items():
            found[operator] = [*enough, *(_number(says(x)) for says in (meaning, *wrong.values()))]
    return found


def scrolls() -> dict[str, list[Any]]:
    """Operator of the repair → a number for its photographs, its canvas with each fault, its models with each fault."""
    found: dict[str, list[Any]] = {}
    for who in map(str, range(40)):
        p = params("10.6", who)
        if p["operator"] in found:
            continue
        draw = np.random.default_rng(1)
        photos, labels = photographs(p, "test", 60, draw)
        rgba = canvas._canvas(p, photos[0], 90, 160, draw)
        pages = [_number(canvas._pixels(rgba, p, fault)) for fault in ("", *canvas._PAGE_FAULTS)]
        models = [scroll.built(p, fault) for fault in ("", *scroll.FAULTS)]
        graphs = [_of_model(model.SerializeToString()) for model in models]
        kinds = [kind for kind, *_ in graphs]
        found[p["operator"]] = [
            *kinds,
            _number(photos),
            _number(labels),
            *pages,
            *(float(f"{np.mean(n):.4g}") for _, *n in graphs),
        ]
    return found


def write() -> None:
    checks = {id: asked(id) for id in CHECKED}
    RECORD.write_text(compact({"activations": activations(), "scrolls": scrolls(), "checks": checks}), encoding="utf-8")


if __name__ == "__main__":
    write()
