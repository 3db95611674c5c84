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

from . import Criteria, Criterion, Params, quest
from .examine import is_whole, wants_keys

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
    photos = quest.photographs(p, "test", 200, draw)[0]
    scores = np.sort(quest.answers(p, photos), 1)
    photos = photos[scores[:, -1] - scores[:, -2] > 4]  # int8 does not turn these
    labels = quest.answers(p, photos).argmax(1)
    white = quest.edges(p, photos) > p["threshold"]
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
    odd = [key for key, got in answer.items() if not isinstance(got, dict) or not is_whole(got.get("status"))]
    if not criteria.add(
        "each request has a status",
        not odd,
        f"Write a dict such as {{'status': 200, 'label': [3]}}; of {odd[:1]} it is {str(answer[odd[0]])[:60] if odd else ''}.",
    ):
        return criteria
    for letter, (_, _, status, labels) in right.items():
        got = answer[letter]
        if got["status"] == 500:
            hint = "500 is a crash inside your server: nothing that a client sends may do that."
        elif got["status"] == 200:
            hint = f"Your server answered, but {_CONTRACT[status]}: that is {status}."
        else:
            hint = f"Your server says {got['status']}, but {_CONTRACT[status]}: that is {status}."
        if criteria.add(f"request {letter} is answered as agreed", got["status"] == status, hint) and status == 200:
            said = got.get("label")
            criteria.add(f"request {letter} gets the right labels", said == labels, _label_cause(said, labels, p))
    return criteria


def _label_cause(said: Any, labels: list[int], p: Params) -> str:
    if not isinstance(said, list) or len(said) != len(labels) or not all(map(is_whole, said)):
        return f"Write a list with one whole number for each of the {len(labels)} photographs."
    if said == [p["order"][i] for i in labels]:
        return "These are the classes of Fashion-MNIST: the label is the position of the largest score."
    wrong = sum(a != b for a, b in zip(said, labels, strict=True))
    return f"{wrong} of {len(labels)} are wrong: does the server run the model that passed task 10.4?"
