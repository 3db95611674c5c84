"""Ray Serve: one of two replicas is killed while both have work."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import numpy as np
from ray import serve

from .service import Service, answer

KILL = signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL


def serving(pixels: np.ndarray) -> dict[str, Any]:
    # "HeadOnly" instead of "Disabled" opens an HTTP port, too
    serve.start(proxy_location="Disabled")
    service = serve.run(Service.bind(), name="fashion", route_prefix=None)
    rows = [pixels[i : i + 1] for i in range(len(pixels))]
    before = [answer(service, row) for row in rows[:40]]
    victim = before[0][0]

    under_way = [service.remote(pixels) for _ in range(8)]
    time.sleep(0.1)
    os.kill(victim, KILL)
    caught = [answer(service, pixels, request) for request in under_way]
    after = [answer(service, row) for row in rows[40:]]

    alive, until = set(), time.time() + 60
    while len(alive) < 2 and time.time() < until:
        alive = {answer(service, rows[0])[0] for _ in range(10)}
    serve.shutdown()
    labels = [label for _, found, _ in before + after for label in found]
    late = sum(process == victim for process, *_ in after)
    return {
        "replicas before": len({process for process, *_ in before}),
        "replicas in the end": len(alive),
        "requests under way when it was killed": len(caught),
        "of these, answered right": sum(found == labels for _, found, _ in caught),
        "asked again": sum(again for *_, again in caught + after),
        "answers by the killed one, afterwards": late,
        "labels": labels,
    }
