"""Task 10.5: what the student's server says to twelve requests, good ones and bad ones."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from functools import lru_cache
from random import Random
from typing import Any

import numpy as np

from .. import Criteria, Criterion, Params
from ..examine import wants_keys, whole
from . import scroll as quest
from .camera import photographs

_REQUESTS = "ABCDEFGHIJKL"
_CONTRACT = {
    413: "the body has more than 16,384 bytes",
    415: "the Content-Type is not application/x-npy",
    400: "the body is not an .npy file that can be read without pickle",
    422: "the array is not uint8 with the shape [n, 28, 28], n from 1 to 8",
    200: "nothing is wrong with it",
}


def _npy(array: np.ndarray, **how: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **how)
    return stream.getvalue()


def _requests(p: Params) -> Mapping[str, tuple[str, bytes, int, list[int]]]:
    """Letter → Content-Type, body, the right status, the right labels. The photographs are clear cases."""
    return _written_requests(json.dumps(p))


@lru_cache(maxsize=4)
def _written_requests(key: str) -> Mapping[str, tuple[str, bytes, int, list[int]]]:
    p = json.loads(key)
    draw = np.random.default_rng(p["seed"] + 5)
    photos, labels, white = _clear_cases(p, photographs(p, "test", 200, draw)[0])
    on_white, on_black = np.flatnonzero(white), np.flatnonzero(~white)

    def fine(chosen: np.ndarray) -> tuple[str, bytes, int, list[int]]:
        return kind, _npy(photos[chosen]), 200, labels[chosen].tolist()

    kind = "application/x-npy"
    one, many = photos[:1], int(draw.integers(9, 15))
    cases = [
        fine(on_white[:1]),
        fine(on_black[:1]),
        fine(np.concatenate([on_white[1:4], on_black[1:4]])[draw.permutation(6)]),
        fine(np.concatenate([on_black[4:8], on_white[4:8]])),
        (kind, _npy(photos[:many]), 422, []),
        (kind, _npy(photos[:30]), 413, []),
        ("image/png", _npy(one), 415, []),
        (kind, b"\x89PNG\r\n\x1a\n" + draw.bytes(200), 400, []),
        (kind, _npy(np.array([{"pixels": one.tolist()}], dtype=object), allow_pickle=True), 400, []),
        (kind, _npy((one / 255).astype(np.float32)), 422, []),
        (kind, _npy(np.zeros((1, 32, 32), np.uint8)), 422, []),
        (kind, _npy(photos[:0]), 422, []),
    ]
    order = draw.permutation(len(cases))
    return {letter: cases[i] for letter, i in zip(_REQUESTS, order, strict=True)}


_OF_EACH, _IN_ALL = 8, 30  # so many of them go into the requests
_AT_A_TIME = 10  # photographs, until there are enough


def _clear_cases(p: Params, photos: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first photographs that int8 does not turn, their labels, and whether they are on white paper."""
    white = quest.edges(p, photos) > p["threshold"]
    labels, clear = np.zeros(len(photos), np.int64), np.zeros(len(photos), bool)
    for start in range(0, len(photos), _AT_A_TIME):
        some = slice(start, start + _AT_A_TIME)
        scores = quest.answers(p, photos[some])
        best = np.sort(scores, 1)
        labels[some], clear[some] = scores.argmax(1), best[:, -1] - best[:, -2] > 4
        if min((clear & white).sum(), (clear & ~white).sum()) >= _OF_EACH and clear.sum() >= _IN_ALL:
            break
    return photos[clear], labels[clear], white[clear]


def handed_out(p: Params) -> Mapping[str, bytes]:
    requests = {
        letter: {"content_type": kind, "body": base64.b64encode(body).decode()}
        for letter, (kind, body, _, _) in _requests(p).items()
    }
    return {"requests.json": json.dumps(requests, indent=1).encode()}


def check_server(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    criteria, right = Criteria(), _requests(p)
    if not wants_keys(answer, set(right), criteria):
        return criteria
    odd = [key for key, got in answer.items() if not isinstance(got, dict) or whole(got.get("status")) is None]
    if not criteria.require(
        "each request has a status",
        not odd,
        f"Write a dict such as {{'status': 200, 'label': [3]}}; of {odd[:1]} it is {str(answer[odd[0]])[:60] if odd else ''}.",
    ):
        return criteria
    wrong = {letter: status for letter, (*_, status, _) in right.items() if answer[letter]["status"] != status}
    first = next(iter(wrong), "")
    criteria.add(
        "each request is answered as agreed",
        not wrong,
        lambda: f"{len(wrong)} of {len(right)} are not. {_status_cause(answer[first]['status'], wrong[first])}",
    )
    said = {letter: answer[letter].get("label") for letter, (*_, labels) in right.items() if labels}
    off = next((letter for letter, labels in said.items() if labels != right[letter][3]), "")
    criteria.add(
        "the photographs that are as agreed get the right labels",
        not off,
        lambda: _label_cause(said[off], right[off][3], p),
    )
    return criteria


def _status_cause(said: int, status: int) -> str:
    """Why this one, without its letter: who knows which one it is need not look at what was sent."""
    if said == 500:
        return "One says 500, a crash inside your server: nothing that a client sends may do that."
    did = "Your server answered one" if said == 200 else f"Your server says {said} to one"
    return f"{did}, but {_CONTRACT[status]}: that is {status}."


def _label_cause(said: Any, labels: list[int], p: Params) -> str:
    if not isinstance(said, list) or len(said) != len(labels) or None in map(whole, said):
        return f"Write a list with one whole number for each of the {len(labels)} photographs."
    if said == [p["order"][i] for i in labels]:
        return "These are the classes of Fashion-MNIST: the label is the position of the largest score."
    wrong = sum(a != b for a, b in zip(said, labels, strict=True))
    return f"{wrong} of {len(labels)} are wrong: does the server run the model that passed task 10.4?"
