"""Tasks 10.1 and 10.2: a student's own export, and the node where a colleague's file goes wrong.

Whether a file computes what Scroll computes is asked here; task 10.3 asks it again of the file that is ready to ship.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from functools import lru_cache, partial
from random import Random
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from ...errors import CourseError
from ...running import run, session_for
from .. import Criteria, Criterion, Params
from ..examine import has_io, is_sound, numpy_source, wants_keys, whole
from . import scroll as quest
from .camera import photographs
from .module_source import source

_PIXELS, _LOGITS = {"pixels": "uint8"}, {"logits": "float"}
_CLOSE: dict[str, Any] = {"atol": 2e-3, "rtol": 1e-3}


def outputs(session: ort.InferenceSession, photos: np.ndarray) -> np.ndarray | str:
    """The first output, or what went wrong, in one sentence."""
    try:
        return next(iter(run(session, {"pixels": photos}).values()))
    except CourseError as error:
        return str(error)
    except Exception as error:  # ONNX Runtime's own classes derive from Exception alone
        return f"Running it failed: {str(error).strip().splitlines()[0]}"


def _same(got: np.ndarray | str, expected: np.ndarray) -> bool:
    return not isinstance(got, str) and got.shape == expected.shape and np.allclose(got, expected, **_CLOSE)


def _cause(p: Params, got: np.ndarray | str, photos: np.ndarray) -> str:
    """Which mistake gives these scores."""
    if isinstance(got, str):
        return got
    right = quest.answers(p, photos)
    if got.shape != right.shape:
        return f"The scores have shape {list(got.shape)}, expected {list(right.shape)}."
    for fault, sentence in quest.FAULTS.items():
        if quest.OF_ONE_OPERATOR.get(fault, p["operator"]) != p["operator"]:
            continue
        wrong = quest.answers(p, photos, fault)
        if not np.allclose(wrong, right, **_CLOSE) and np.allclose(got, wrong, **_CLOSE):
            return sentence
    delta = float(np.abs(got - right).max())
    return (
        f"The largest difference is {delta:.3g}. Compare the tensors on the way with those of Scroll, as in task 10.2."
    )


_ELSEWHERE = ("first line", "last line", "other edge")  # where a wrong decision looks


def is_scroll(model: onnx.ModelProto, p: Params, rng: Random, criteria: Criteria) -> bool:
    """Add: it computes what the student's Scroll computes, whatever the light, and however many come together."""
    if not is_sound(model, criteria) or not has_io(model, _PIXELS, _LOGITS, criteria):
        return False
    if not criteria.require(
        "it is a model of your own",
        _wiring(model) not in (_wiring(quest.built(p)), _wiring(sick(p))),
        "It is the file of your colleague, node for node: export your own module.",
    ):
        return False
    try:
        session = session_for(model)
    except CourseError as error:
        return criteria.require("ONNX Runtime loads the model", False, str(error))
    photos = _telling(p, numpy_source(rng))
    white = quest.edges(p, photos) > p["threshold"]
    whole, single = outputs(session, photos), outputs(session, photos[:1])
    if not criteria.require(
        "it takes 1 photograph, and 40",
        not isinstance(whole, str) and not isinstance(single, str),
        f"{whole if isinstance(whole, str) else single} The batch must be free, also in the steps before the network.",
    ):
        return False
    good, right = True, quest.answers(p, photos)
    for what, chosen in {"black": ~white, "white": white}.items():
        got = outputs(session, photos[chosen])
        good &= criteria.add(
            f"it agrees with Scroll on {what} paper",
            _same(got, right[chosen]),
            partial(_cause, p, got, photos[chosen]),
        )
    company = partial(_cause, p, whole, photos) if not good else quest.FAULTS["one for all"]
    good &= criteria.add("it agrees when both come together", _same(whole, right), company)
    blank = np.stack([np.full((28, 28), value, np.uint8) for value in (0, 255)])
    got = outputs(session, blank)
    good &= criteria.add(
        "it agrees on a black and on a white photograph",
        _same(got, quest.answers(p, blank)),
        partial(_cause, p, got, blank),
    )
    return good


def _telling(p: Params, draw: np.random.Generator) -> np.ndarray:
    """Photographs of which some are decided otherwise by a scroll that looks at the wrong lines. One draw in a hundred has none."""
    for _ in range(20):
        photos = photographs(p, "test", 40, draw)[0]
        white = quest.edges(p, photos) > p["threshold"]
        if all(((quest.edges(p, photos, fault) > p["threshold"]) != white).any() for fault in _ELSEWHERE):
            break
    return photos


def _wiring(model: onnx.ModelProto) -> list[tuple[str, list[int]]]:
    """Operators in their order, and which of them each one reads: what stays when everything is named anew."""
    made_by: dict[str, int] = {}
    found: list[tuple[str, list[int]]] = []
    for node in model.graph.node:
        reads = [made_by.get(name, -1) for name in node.input if name]
        if node.op_type == "Identity":
            made_by[node.output[0]] = reads[0]
            continue
        made_by.update(dict.fromkeys(node.output, len(found)))
        found.append((node.op_type, reads))
    return found


# 10.1: export


def _practice(p: Params, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Photographs and labels of practice.npz. draw: from the student's seed."""
    return photographs(p, "test", 500, draw)


def practice(p: Params) -> Mapping[str, onnx.ModelProto | bytes]:
    draw = np.random.default_rng(p["seed"])
    files: dict[str, onnx.ModelProto | bytes] = {"scroll.py": source(p)}
    parts = {"practice.npz": _practice(p, draw), "calibration.npz": photographs(p, "calibration", 300, draw)}
    for name, (photos, labels) in parts.items():
        stream = io.BytesIO()
        np.savez(stream, photos=photos, labels=labels)
        files[name] = stream.getvalue()
    return files


def check_export(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    is_scroll(model, p, rng, criteria)
    return criteria


# 10.2: diagnosis

_FAULTY = (
    "activation",
    "always as it is",
    "always negative",
    "far rank",
    "one for all",
    "order",
    "other edge",
    "padding",
)


def _fault(p: Params) -> str:
    return _FAULTY[p["seed"] % len(_FAULTY)]  # not in the parameters, which the student sees


def sick(p: Params) -> onnx.ModelProto:
    return quest.built(p, _fault(p))


def _first_wrong(p: Params) -> str:
    """The first node that is another one than in Scroll, or reads another constant: what it writes is the first wrong tensor."""
    right, wrong = quest.built(p).graph, sick(p).graph
    stored = [{t.name: t for t in graph.initializer if not t.name.startswith("conv")} for graph in (right, wrong)]
    return next(
        b.name
        for a, b in zip(right.node, wrong.node, strict=True)
        if a != b or any(stored[0].get(name) != stored[1].get(name) for name in b.input)
    )


@lru_cache(maxsize=16)
def _spoiled(key: str) -> tuple[str, np.ndarray, np.ndarray]:
    """The first wrong node; the scores of all practice photographs, of Scroll and of the file with the fault."""
    p = json.loads(key)
    photos = _practice(p, np.random.default_rng(p["seed"]))[0]
    return _first_wrong(p), *quest.right_and_wrong(p, photos, _fault(p))


def check_diagnosis(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not wants_keys(answer, {"node", "different"}, criteria):
        return criteria
    names = [node.name for node in sick(p).graph.node]
    said, (node, right, wrong) = answer["node"], _spoiled(json.dumps(p))
    if not criteria.require(
        "node is the name of a node",
        isinstance(said, str) and said in names,
        f"There is no node {str(said)[:60]!r} in the file: cu.node_table shows their names.",
    ):
        return criteria
    number, count = answer["different"], int((right.argmax(1) != wrong.argmax(1)).sum())
    hint = "Compare argmax of both on all photographs of practice.npz, in one batch."
    if number == int((~np.isclose(right, wrong, **_CLOSE).all(1)).sum()):
        hint = "So many have other scores. Count those whose answer, the largest score, is another."
    counted = criteria.add("the number of answers that differ", whole(number) == count, hint)
    # Nothing of where the node lies: whoever goes by that finds it without a look at a tensor.
    criteria.add(
        "the first node that is wrong",
        said == node and counted,
        "First count the answers that differ: then this one is looked at."
        if not counted
        else "It is another one. Give the tensors one after the other, from the top, as outputs, and compare each with PyTorch.",
    )
    return criteria
