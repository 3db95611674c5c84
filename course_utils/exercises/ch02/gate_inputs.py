"""Task 2.6: inputs for a gate. Three converted files are wrong, each on some inputs only; the gate has to find all of them."""

from __future__ import annotations

import json
from functools import partial
from random import Random
from typing import Any

import numpy as np
import onnx
from onnx import helper

from ...errors import CourseError
from ...running import OutOfTimeError, run, session_for
from .. import Criteria, Criterion, Params, Task
from ..examine import wants_keys
from ..handouts import x_to_y

TOLERANCE = 0.01
_INPUTS, _NUMBERS = 2, 60  # at most
_NAMES = [
    "volts", "amperes", "metres", "litres", "grams", "seconds", "degrees", "pascals", "lumens", "watts", "joules", "hertz",
    "ohms", "newtons", "teslas", "moles", "bars", "knots", "inches", "ounces", "pounds", "yards", "miles", "acres",
]  # fmt: skip
node = helper.make_node

SIGN = ("no slope", "slope of the default", "no activation")
SIZE_OR_TIE = ("no limit", "limit doubled", "half up", "half down")
BATCH_OR_LENGTH = ("mean of all rows", "last of the first row", "frozen place", "frozen count")


def draw_gate(rng: Random) -> Params:
    return {"input": rng.choice(_NAMES), "length": rng.randint(5, 9), "seed": rng.getrandbits(32)}


def details(p: Params) -> dict[str, Any]:
    """What the files are made of: not among the parameters. Factor and offset are exact in float32, so that ties are, too."""
    rng = Random(f"{p['seed']}/gate")
    faults = [rng.choice(SIGN), rng.choice(SIZE_OR_TIE), rng.choice(BATCH_OR_LENGTH)]
    rng.shuffle(faults)
    return {
        "faults": dict(zip("abc", faults, strict=True)),
        "offset": rng.randint(-20, 20) / 4 + 0.25,
        "factor": rng.choice([0.25, 0.5, 2.0, 4.0]),
        "slope": rng.choice([0.125, 0.25, 0.5]),
        "limit": float(rng.randint(12, 40)),
        "step": rng.choice([0.25, 0.375, 0.5]),
    }


def _model(name: str, p: Params, nodes: list[onnx.NodeProto], weights: dict[str, Any], opset: int) -> onnx.ModelProto:
    stored = {k: np.asarray(v, np.int64 if isinstance(v, list) else np.float32) for k, v in weights.items()}
    read = {i for n in nodes for i in n.input}
    model = x_to_y(
        name,
        nodes,
        {k: v for k, v in stored.items() if k in read},
        ["batch", "length"],
        ["batch", "length"],
        {"": opset},
        ir_version=8 if opset < 18 else 10,
    )
    for n in model.graph.node:
        n.input[:] = [p["input"] if i == "x" else i for i in n.input]
    model.graph.input[0].name = p["input"]
    return model


def before(p: Params) -> onnx.ModelProto:
    """Rows of measurements: bent, cut off, and rounded to steps; the last step and the drift of the row are added."""
    d = details(p)
    nodes = [
        node("Sub", ["x", "offset"], ["centred"]),
        node("Mul", ["centred", "factor"], ["scaled"]),
        node("LeakyRelu", ["scaled"], ["bent"], alpha=d["slope"]),
        node("Clip", ["bent", "lowest", "limit"], ["kept"]),
        node("Round", ["kept"], ["whole"]),
        node("Mul", ["whole", "step"], ["steps"]),
        node("Gather", ["steps", "last_place"], ["last"], axis=1),
        node("Mul", ["last", "half"], ["part"]),
        node("ReduceMean", ["x"], ["level"], axes=[1], keepdims=1),
        node("Sub", ["x", "level"], ["drift"]),
        node("Add", ["steps", "drift"], ["sum"]),
        node("Add", ["sum", "part"], ["y"]),
    ]
    return _model("before", p, nodes, _weights(d), 13)


def _weights(d: dict[str, Any]) -> dict[str, Any]:
    numbers = {k: d[k] for k in ("offset", "factor", "slope", "limit", "step")}
    return numbers | {"lowest": -d["limit"], "half": 0.5, "last_place": [-1]}


def converted(p: Params, fault: str = "") -> onnx.ModelProto:
    """The same in opset 21 and in other words; with one fault, or none."""
    d = details(p)
    more = {"moved": d["offset"] * d["factor"], "columns": [1], "all": [0, 1], "zero": 0.0, "a_half": 0.5}
    weights = (
        _weights(d) | more | {"end": [2**62], "frozen": [p["length"] - 1], "count": float(p["length"]), "row": [0]}
    )
    bend = {
        "no slope": node("Relu", ["scaled"], ["bent"]),
        "slope of the default": node("LeakyRelu", ["scaled"], ["bent"]),
        "no activation": node("Identity", ["scaled"], ["bent"]),
    }.get(fault, node("PRelu", ["scaled", "slope"], ["bent"]))
    weights["doubled"] = 2 * d["limit"]
    cut = [node("Max", ["bent", "lowest"], ["kept" if fault == "no limit" else "above"])]
    if fault != "no limit":
        cut.append(node("Min", ["above", "doubled" if fault == "limit doubled" else "limit"], ["kept"]))
    rounded = {
        "half up": [node("Add", ["kept", "a_half"], ["more"]), node("Floor", ["more"], ["whole"])],
        "half down": [node("Sub", ["kept", "a_half"], ["less"]), node("Ceil", ["less"], ["whole"])],
    }.get(fault, [node("Round", ["kept"], ["whole"])])
    last = {
        "frozen place": [node("Gather", ["steps", "frozen"], ["last"], axis=1)],
        "last of the first row": [
            node("Gather", ["steps", "row"], ["first"], axis=0),
            node("Gather", ["first", "last_place"], ["last"], axis=1),
        ],
    }.get(fault, [node("Slice", ["steps", "last_place", "end", "columns"], ["last"])])
    level = {
        "mean of all rows": [node("ReduceMean", ["x_moved", "all"], ["level"], keepdims=1)],
        "frozen count": [
            node("ReduceSum", ["x_moved", "columns"], ["total"], keepdims=1),
            node("Div", ["total", "count"], ["level"]),
        ],
    }.get(fault, [node("ReduceMean", ["x_moved", "columns"], ["level"], keepdims=1)])
    nodes = [
        node("Mul", ["x", "factor"], ["larger"]),
        node("Sub", ["larger", "moved"], ["scaled"]),
        bend,
        *cut,
        *rounded,
        node("Mul", ["whole", "step"], ["steps"]),
        *last,
        node("Mul", ["last", "half"], ["part"]),
        node("Sub", ["x", "offset"], ["x_moved"]),
        *level,
        node("Sub", ["x_moved", "level"], ["drift"]),
        node("Sum", ["steps", "drift", "part"], ["y"]),
    ]
    return _model("converted", p, nodes, weights, 21)


def old_gate(p: Params) -> dict[str, Any]:
    """The gate that lets all three pass: one row of the usual length, nothing negative, large or half-way."""
    d = details(p)
    inner = [1.25 + (3 * i) % 7 for i in range(p["length"])]
    return {"inputs": [{p["input"]: [[d["offset"] + v / d["factor"] for v in inner]]}]}


def shown_gate(p: Params) -> dict[str, onnx.ModelProto | bytes]:
    wrong = {f"2.6_{letter}.onnx": converted(p, fault) for letter, fault in details(p)["faults"].items()}
    gate = json.dumps(old_gate(p)).encode()
    return {"2.6_before.onnx": before(p), "2.6_right.onnx": converted(p), **wrong, "2.6_gate.json": gate}


def _arrays(answer: Any, p: Params, criteria: Criteria) -> list[np.ndarray]:
    """The inputs of an answer as float32 arrays; none where they have another form."""
    inputs = answer["inputs"]
    if not criteria.require(
        f"inputs is a list of at most {_INPUTS} inputs",
        isinstance(inputs, list) and 1 <= len(inputs) <= _INPUTS,
        f"It is {f'a list of {len(inputs)}' if isinstance(inputs, list) else 'no list'}.",
    ):
        return []
    named = all(isinstance(feed, dict) and set(feed) == {p["input"]} for feed in inputs)
    if not criteria.require(
        f"each input is a dict with the one key {p['input']}",
        named,
        "That is the name of the model's input, and its value the rows, as in the old gate.",
    ):
        return []
    tables = [feed[p["input"]] for feed in inputs]
    if not criteria.require(
        "each value is a list of rows, all of the same length, of finite numbers",
        all(map(_is_table, tables)),
        "Write lists of lists, such as [[0.5, 1.0], [2.0, 3.0]]; array.tolist() makes them.",
    ):
        return []
    count = sum(len(rows) * len(rows[0]) for rows in tables)
    if not criteria.require(
        f"there are at most {_NUMBERS} numbers in all",
        count <= _NUMBERS,
        f"There are {count}: a few numbers that are chosen well find more than many random ones.",
    ):
        return []
    return [np.array(rows, np.float32) for rows in tables]


def _is_table(rows: Any) -> bool:
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) and row for row in rows):
        return False
    numbers = [v for row in rows for v in row]
    return len({len(row) for row in rows}) == 1 and all(
        isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e30 for v in numbers
    )


def _agrees(model: onnx.ModelProto, p: Params, inputs: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    """Whether the gate lets a file pass: it runs, and no number differs by more than the tolerance."""
    session = session_for(model)
    for x, want in zip(inputs, expected, strict=True):
        try:
            (got,) = run(session, {p["input"]: x}).values()
        except OutOfTimeError:
            raise
        except CourseError:
            return False
        if got.shape != want.shape or not np.allclose(got, want, atol=TOLERANCE, rtol=0):
            return False
    return True


def check_gate(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not wants_keys(answer, {"inputs"}, criteria) or not (inputs := _arrays(answer, p, criteria)):
        return criteria
    session = session_for(before(p))
    expected = [next(iter(run(session, {p["input"]: x}).values())) for x in inputs]
    if not criteria.require(
        "the right file passes",
        _agrees(converted(p), p, inputs, expected),
        "It is refused, and a gate that refuses right files will be switched off. With very large numbers, rounding alone is more "
        "than the tolerance: go no further than you must.",
    ):
        return criteria
    for letter, fault in details(p)["faults"].items():
        criteria.add(
            f"2.6_{letter}.onnx is caught",
            not _agrees(converted(p, fault), p, inputs, expected),
            partial(_missing, fault, p, inputs),
        )
    return criteria


_NEEDS = {
    "negative": SIGN,
    "large": SIZE_OR_TIE[:2],
    "tie": SIZE_OR_TIE[2:],
    "rows": BATCH_OR_LENGTH[:2],
    "length": BATCH_OR_LENGTH[2:],
}
_NONE = {
    "negative": "None of your numbers is negative where the activation reads it.",
    "large": "None of your numbers is above the upper limit of Clip.",
    "tie": "None of your numbers is exactly half-way between two whole numbers where Round reads it.",
    "rows": "Each of your inputs has one row only.",
    "length": "All your rows are as long as in the old gate.",
}
_TOO_LITTLE = {
    "negative": "Some numbers are negative where the activation reads them, but Clip or Round makes the same of them: they are "
    "too small, or too large.",
    "large": "Your largest number is above the upper limit of Clip, but Round makes the same of both.",
    "tie": "There is a number half-way between two whole ones, but this file rounds that one as it should: Round goes to the "
    "even one, so take the next half, too.",
    "rows": "There are several rows, but they are too much alike.",
    "length": "There are rows of another length, but the numbers in them are too much alike.",
}


def _missing(fault: str, p: Params, inputs: list[np.ndarray]) -> str:
    """What inputs have to have, so that this fault is seen, and do not have."""
    d = details(p)
    scaled = np.concatenate([((x - d["offset"]) * d["factor"]).ravel() for x in inputs])
    bent = np.where(scaled < 0, d["slope"] * scaled, scaled)
    tie = (np.abs(bent) < d["limit"]) & (np.abs(bent) % 1 == 0.5)
    has = {
        "negative": (scaled < 0).any(),
        "large": (bent > d["limit"]).any(),
        "tie": tie.any(),
        "rows": any(len(x) > 1 for x in inputs),
        "length": any(x.shape[1] != p["length"] for x in inputs),
    }
    needs = next(need for need, faults in _NEEDS.items() if fault in faults)
    return f"It passes. {_TOO_LITTLE[needs] if has[needs] else _NONE[needs]}"


GATE = Task(
    "2.6",
    "Inputs for a gate",
    "json",
    check_gate,
    draw_gate,
    shown_gate,
    points=3,
    hints=(
        "Compare cu.node_table of the old file with that of each wrong one. On which numbers, or on which shape, do they part?",
        "The old gate has one row, of one length, and nothing that is negative, large, or half-way between two whole numbers. Which of "
        "these does each wrong file need?",
        "Choose the numbers where the operator reads them, and go back to the input: x = offset + number / factor. Two rows that "
        "are not alike, longer than in the old gate, can hold all of it.",
    ),
)
