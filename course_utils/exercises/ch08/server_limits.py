"""Tasks 8.4 and 8.5: settings of a server within limits, and what it answers to real bodies of requests."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from random import Random
from typing import Any

import numpy as np

from ...lab.batching import Simulated, simulate
from .. import Criteria, Criterion, Params
from ..examine import wants_keys, whole

# 8.4: settings within limits


def draw_limits(rng: Random) -> Params:
    # From 1.5 to 12 ms: what suits one student's model is wrong for most others.
    fixed, each = round(1.5 * 8 ** rng.random(), 2), round(rng.uniform(0.2, 0.4), 2)
    spans = {str(n): round(fixed + each * n, 2) for n in (1, 2, 4, 8, 16, 32)}
    per_second = round(rng.uniform(0.6, 0.9) * 1000 / (fixed + each))
    wait = fixed * rng.uniform(2.0, 3.0)
    good = served({"spans": spans, "per_second": per_second}, 16, wait, 0)
    return {
        "spans": spans,
        "per_second": per_second,
        "p99_ms": round(float(np.percentile(good.latencies, 99)) * 1.15, 1),
        "busy": round(float(good.busy) + 0.03, 2),
        "seed": rng.randrange(10**6),
    }


def served(p: Params, largest: int, wait_ms: float, seed: int) -> Simulated:
    return simulate({int(n): ms for n, ms in p["spans"].items()}, p["per_second"], wait_ms, largest, 4000, seed)


def _p99(found: Simulated) -> float:
    return float(np.percentile(found.latencies, 99))


def _number(value: object, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most  # NaN is not


def check_settings(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not wants_keys(answer, {"largest_batch", "wait_ms", "p99_ms", "busy"}, criteria):
        return criteria
    largest, wait = whole(answer["largest_batch"]), answer["wait_ms"]
    sound = criteria.require(
        "largest_batch is a whole number from 1 to 32",
        largest is not None and 1 <= largest <= 32,
        f"It is {str(answer['largest_batch'])[:40]}: 32 is what was measured.",
    )
    sound &= criteria.require("wait_ms is a number from 0 to 1000", _number(wait, 1000), f"It is {str(wait)[:40]}.")
    for key in ("p99_ms", "busy"):
        sound &= criteria.require(f"{key} is a number", _number(answer[key], 1e9), f"It is {str(answer[key])[:40]}.")
    if not sound or largest is None:
        return criteria
    own = served(p, largest, wait, p["seed"])
    told = math.isclose(answer["p99_ms"], _p99(own), rel_tol=0.01, abs_tol=0.02)
    told &= math.isclose(answer["busy"], own.busy, abs_tol=0.006)
    if not criteria.require(
        "p99_ms and busy are what outcome() gives for these settings",
        told,
        f"It gives {_p99(own):.2f} and {own.busy:.3f} for them, with your numbers.",
    ):
        return criteria
    found = served(p, largest, wait, rng.randrange(10**6))
    p99 = _p99(found)

    def slow() -> str:
        if _p99(served(p, largest, 0, 1)) > p["p99_ms"]:
            return "The batches are too small for so many requests, and they queue up: allow larger ones."
        return "They wait too long for other requests: lower wait_ms."

    criteria.add(
        f"99 of 100 requests are answered within {p['p99_ms']} ms",
        p99 <= p["p99_ms"],
        lambda: f"With other requests it takes {p99:.1f} ms. {slow()}",
    )
    criteria.add(
        f"the model is busy for at most {p['busy']:.0%} of the time",
        found.busy <= p["busy"],
        f"With other requests it is busy for {found.busy:.0%}, with {found.batches.mean():.1f} images per batch. "
        + (
            "No more fit into a batch: allow larger ones."
            if found.batches.mean() > 0.9 * largest
            else "Larger batches need less time for each picture: let requests wait longer for others."
        ),
    )
    return criteria


# 8.5: what does the server answer?

_STATUS = {
    413: "the body is larger than most_bytes; this is seen first, before anything is read",
    415: "the Content-Type is neither application/x-npy nor application/json",
    400: "the body is not what its Content-Type says",
    422: "the body can be read, but what it holds is wrong",
    503: "the request is fine, but as many are waiting as the queue allows",
    200: "nothing is wrong with it, and a limit itself is allowed",
}
_ENOUGH = 9  # right statuses of twelve for the first point
NPY, JSON = "application/x-npy", "application/json"


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _json(value: object) -> bytes:
    return json.dumps({"pixels": value}).encode()


def requests_of(p: Params) -> dict[str, tuple[str, int, bytes]]:
    """Letter → Content-Type, how many requests wait, body. Drawn from the seed: a parameter would tell what is in a body."""
    rng, draw = Random(p["seed"]), np.random.default_rng(p["seed"])
    limits = p["limits"]
    edge, full = limits["most_images"], limits["queue"]

    def pixels(*shape: int) -> np.ndarray:
        return draw.integers(0, 256, shape, np.uint8)

    one, rows = pixels(1, 28, 28), pixels(28, 28).tolist()
    far = [row[:] for row in rows]
    far[rng.randrange(28)][rng.randrange(28)] = rng.choice([256, 300, -1])
    some = rng.randint(2, edge)
    found: list[tuple[str, int | None, bytes]] = [
        (NPY, None, _npy(pixels(some, 28, 28))),
        (NPY, full - 1, _npy(pixels(edge, 28, 28))),
        (f"{NPY}; charset=utf-8", None, _npy(pixels(28, 28))),
        (JSON, None, _json(rows)),
        ("image/png", None, b"\x89PNG\r\n\x1a\n" + draw.bytes(limits["most_bytes"] - 7)),
        (rng.choice(["text/plain", "multipart/form-data"]), None, _npy(one)),
        (NPY, full, _npy(pixels(some, 28, 28))[: -rng.randint(1, 99)]),
        (JSON, None, _json(rows)[:-1]),
        (NPY, full, _npy(one.astype(rng.choice([np.float32, np.float64, np.int64])))),
        (NPY, None, _npy(pixels(edge + rng.randint(1, 2), 28, 28))),
        (JSON, full, _json(far)),
        (NPY, full, _npy(one)),
    ]
    rng.shuffle(found)
    return {
        letter: (kind, rng.randint(0, full - 1) if waiting is None else waiting, body)
        for letter, (kind, waiting, body) in zip("ABCDEFGHIJKL", found, strict=True)
    }


def draw_requests(rng: Random) -> Params:
    limits = {
        "most_bytes": rng.choice([16, 24, 32]) * 1024,
        "most_images": rng.randint(3, 8),
        "queue": rng.randint(20, 100),
    }
    p = {"limits": limits, "seed": rng.getrandbits(32)}
    shown = {k: {"Content-Type": kind, "waiting": waiting} for k, (kind, waiting, _) in requests_of(p).items()}
    return p | {"requests": shown}


def bodies(p: Params) -> dict[str, bytes]:
    return {f"8.5_{letter}.bin": body for letter, (_, _, body) in requests_of(p).items()}


def status(kind: str, waiting: int, body: bytes, limits: Mapping[str, int]) -> int:
    """What the server answers, by the rules of the task."""
    if len(body) > limits["most_bytes"]:
        return 413
    kind = kind.partition(";")[0]
    if kind not in (NPY, JSON):
        return 415
    try:
        if kind == NPY:
            array = np.load(io.BytesIO(body), allow_pickle=False)
            good = array.dtype == np.uint8
        else:
            array = np.array(json.loads(body)["pixels"])
            good = array.dtype.kind == "i" and 0 <= array.min() <= array.max() <= 255
    except ValueError:
        return 400
    count = len(array) if array.ndim == 3 else 1
    if not good or array.shape[-2:] != (28, 28) or not 1 <= count <= limits["most_images"]:
        return 422
    return 503 if waiting >= limits["queue"] else 200


def check_requests(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    criteria, requests = Criteria(), requests_of(p)
    if not wants_keys(answer, set(requests), criteria):
        return criteria
    if not criteria.require(
        "each value is a status",
        all(whole(s) in _STATUS for s in answer.values()),
        f"Each is one of the numbers {', '.join(map(str, sorted(_STATUS)))}, without quotes.",
    ):
        return criteria
    right = {letter: status(*request, p["limits"]) for letter, request in requests.items()}
    wrong = [letter for letter in right if whole(answer[letter]) != right[letter]]
    hint = ""
    if wrong:
        hint = (
            f"{len(right) - len(wrong)} of {len(right)} are right. Of one you say {whole(answer[wrong[0]])}, but "
            f"{_STATUS[right[wrong[0]]]}."
        )
    criteria.add(f"at least {_ENOUGH} of {len(right)} are right", len(right) - len(wrong) >= _ENOUGH, hint)
    criteria.add("all are right", not wrong, hint if len(right) - len(wrong) >= _ENOUGH else "First most of them.")
    return criteria
