"""A simulation of the server of lesson 08: how long requests wait when they are collected into batches."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

REQUESTS = 3000


@dataclass(frozen=True)
class Simulated:
    """latencies: ms from arrival to answer, per request. batches: images per batch. busy: share of time the model ran."""

    latencies: np.ndarray
    batches: np.ndarray
    busy: float
    per_second: float


def simulate(
    spans: Mapping[int, float], per_second: float, wait_ms: float, largest: int, requests: int = REQUESTS, seed: int = 0
) -> Simulated:
    """Requests that arrive at random (Poisson), one model, and the rule of the lesson's `batching.py`.

    spans: images in a batch → milliseconds of one run; sizes between are interpolated. A batch starts when the model is
    free, and either `largest` requests are there or `wait_ms` have passed since the first of them arrived.
    """
    when = np.cumsum(np.random.default_rng(seed).exponential(1000 / per_second, requests))
    arrivals: list[float] = when.tolist()  # one by one, Python's own numbers are several times as fast
    sizes = sorted(spans)
    took_for: list[float] = np.interp(np.arange(largest + 1), sizes, [spans[n] for n in sizes]).tolist()
    latencies, batches, free, first, busy = np.empty(requests), [], 0.0, 0, 0.0
    while first < requests:
        ready = max(free, arrivals[first])
        full = arrivals[first + largest - 1] if first + largest <= requests else math.inf
        begin = max(ready, min(full, arrivals[first] + wait_ms))
        last = min(bisect.bisect_right(arrivals, begin, first), first + largest)
        took = took_for[last - first]
        free = begin + took
        latencies[first:last] = free - when[first:last]
        batches.append(last - first)
        busy, first = busy + took, last
    return Simulated(latencies, np.array(batches), busy / free, requests / free * 1000)
