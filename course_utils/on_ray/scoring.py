"""Ray Data: a large set of pictures, in batches, by a pool of workers."""

from __future__ import annotations

import numpy as np
from ray import data

from .fashion import Fashion


class Score(Fashion):
    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"label": self.labels(batch["pixels"]), "right": batch["right"]}


def scoring(pixels: np.ndarray, labels: np.ndarray) -> dict[str, int]:
    pairs = zip(pixels, labels, strict=True)
    rows = data.from_items([{"pixels": p, "right": int(r)} for p, r in pairs])
    pool = data.ActorPoolStrategy(size=1)
    result = rows.map_batches(Score, batch_size=500, compute=pool).to_pandas()
    right = (result["label"] == result["right"]).sum()
    return {"pictures": len(result), "right": int(right)}
