"""A service with two replicas, and a caller who asks again."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
from ray import serve
from ray.exceptions import RayError

from .fashion import Fashion


@serve.deployment(num_replicas=2, ray_actor_options={"num_cpus": 0.5})
class Service(Fashion):
    def __call__(self, pixels: np.ndarray) -> tuple[int, list[int]]:
        return os.getpid(), self.labels(pixels).tolist()


def answer(
    service: Any, pixels: np.ndarray, request: Any = None, tries: int = 5
) -> list:
    """[process, labels, how often it was asked again]. request: one under way."""
    for again in range(tries):
        try:
            request = request or service.remote(pixels)
            return [*request.result(timeout_s=60), again]
        except RayError:  # the replica that had the request is dead
            request = None
            time.sleep(0.1)
    raise RuntimeError(f"no answer in {tries} tries")
