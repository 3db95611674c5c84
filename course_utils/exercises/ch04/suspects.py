"""Task 4.6: four files for sequences of any length. Up to which length each is right is found by running it."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import onnx
from onnx import helper

from .. import Criteria, Criterion, Params
from ..examine import wants_keys
from ..handouts import x_to_y

KINDS = ["free", "frozen", "only", "wrong"]
LONGEST = 64  # no longer sequence counts


def draw_suspects(rng: Random) -> Params:
    """Personal parameters. What each file is follows from the seed, and is not among them."""
    return {"seed": rng.randrange(10**6), "example": rng.randint(6, 11), "factor": rng.randint(2, 9)}


def verdicts(p: Params) -> dict[str, tuple[str, int]]:
    """Letter → kind, and the greatest length at which the file gives the right numbers."""
    rng = Random(p["seed"])
    kinds = rng.sample(KINDS, 4)
    limits = rng.sample(range(p["example"] + 3, LONGEST - 3), 4)
    until = {"free": LONGEST, "frozen": p["example"]}
    return {x: (kind, until.get(kind, limit)) for x, kind, limit in zip("abcd", kinds, limits, strict=True)}


def suspects(p: Params) -> dict[str, onnx.ModelProto]:
    """The four files: float32 [batch, length, 3] → [batch, 3], the sum over the length times the factor."""
    return {f"4.6{letter}.onnx": _suspect(kind, limit, p) for letter, (kind, limit) in verdicts(p).items()}


def _suspect(kind: str, limit: int, p: Params) -> onnx.ModelProto:
    def whole(*values: int) -> np.ndarray:
        return np.array(values, np.int64)

    make = helper.make_node
    weights = {"factor": np.array([p["factor"]], np.float32), "axis": whole(1), "begin": whole(0)}
    middle = [make("Identity", ["scaled"], ["used"])]
    if kind == "only":  # a table of positions, as many rows as somebody thought enough; here all zeros
        weights |= {"table": np.zeros((limit, 3), np.float32), "rows": whole(0)}
        middle = [
            make("Shape", ["x"], ["length"], start=1, end=2),
            make("Slice", ["table", "begin", "length", "rows"], ["positions"]),
            make("Add", ["scaled", "positions"], ["used"]),
        ]
    if kind == "wrong":  # a limit that cuts off what is behind it
        weights |= {"end": whole(limit)}
        middle = [make("Slice", ["scaled", "begin", "end", "axis"], ["used"])]
    nodes = [
        make("Mul", ["x", "factor"], ["scaled"]),
        *middle,
        make("ReduceSum", ["used", "axis"], ["y"], keepdims=0),
    ]
    read = {name for node in nodes for name in node.input}
    weights = {name: value for name, value in weights.items() if name in read}
    length = p["example"] if kind == "frozen" else "length"
    return x_to_y("suspect", nodes, weights, ["batch", length, 3], ["batch", 3], {"": 18})


def check_suspects(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    """The check of the task. It says how many files are judged right, not which: four guesses are soon through."""
    criteria = Criteria()
    if not wants_keys(answer, set("abcd"), criteria):
        return criteria
    odd = [x for x, said in answer.items() if not _is_verdict(said)]
    if not criteria.require(
        "each value is a list of a word and a length",
        not odd,
        f"{', '.join(sorted(odd))}: it must be a list such as ['only', 20], with one of {', '.join(KINDS)} and a whole number.",
    ):
        return criteria
    right = verdicts(p)
    hits = [x for x in "abcd" if tuple(answer[x]) == right[x]]
    criteria.add(
        "what each file does with other lengths, and how long it is right", len(hits) == 4, _hint(answer, right, hits)
    )
    return criteria


def _is_verdict(said: Any) -> bool:
    return (
        isinstance(said, list)
        and len(said) == 2
        and isinstance(said[0], str)
        and said[0] in KINDS
        and isinstance(said[1], int | float)
        and not isinstance(said[1], bool)
    )


def _hint(answer: dict[str, list], right: dict[str, tuple[str, int]], hits: list[str]) -> str:
    count = f"{len(hits)} of 4 are right."
    if any(answer[x][0] != kind for x, (kind, _) in right.items()):
        return (
            f"{count} Not every word is right. Try lengths from 1 to {LONGEST}, compare the numbers, and read the shape of "
            f"each file's input."
        )
    if all(answer[x][1] in (length, length + 1) for x, (_, length) in right.items()):
        return f"{count} The words are right. Give the last length that is right, not the first one that is not."
    return f"{count} The words are right, and not all lengths: try every one from 1 to {LONGEST}."
