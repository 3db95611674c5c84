"""What the network of a scroll sees, in NumPy: the same numbers as the graph gives, to the last bit, in a small part of its time."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import onnx
import onnxruntime as ort

from ...lab.data import FASHION_MEAN, FASHION_STD
from ...running import run, session_for
from .. import Params
from .module_source import EDGES, SIDE

# What a fault puts in the place of the lines that decide, and of the threshold.
LINES, LIMITS = {"first line": [0], "last line": [27]}, {"always as it is": 9.0, "always negative": -9.0}


def seen(p: Params, photos: np.ndarray, fault: str = "") -> np.ndarray:
    """What goes into the network, float32 [n, 1, 28, 28]. fault: one of `scroll.FAULTS`. The whole set counts as one batch."""
    light = _repaired(p, photos, fault)
    limit = np.float32(LIMITS.get(fault, p["threshold"]))
    negative = np.float32(1) - light
    if p["mirrored"] != (fault == "mirror"):
        negative = negative[:, :, ::-1]
    x = np.where(_edge_means(p, light, fault) > limit, negative, light)
    if fault != "not normalised":
        x = (x - np.float32(FASHION_MEAN)) / np.float32(FASHION_STD)
    return x[:, None]


def edges(p: Params, photos: np.ndarray, fault: str = "") -> np.ndarray:
    """What the decision looks at, float32 [n]: the mean light of the student's edge, after the repair.

    fault: one of `scroll.FAULTS` that makes it look elsewhere.
    """
    return _edge_means(p, _repaired(p, photos, ""), fault).ravel()


def _edge_means(p: Params, light: np.ndarray, fault: str) -> np.ndarray:
    """float32 [n, 1, 1], or [1, 1, 1] where there is one for all."""
    axis = EDGES[p["edge"]][1]
    edge = light.take(LINES.get(fault, [0, 27]), 3 - axis if fault == "other edge" else axis)
    return run(_mean("0, 1, 2" if fault == "one for all" else "1, 2"), {"edge": edge})["mean"]


@cache
def _mean(axes: str) -> ort.InferenceSession:
    """ONNX Runtime's: NumPy adds in another order, and the last bit decides where a mean lies on the threshold."""
    model = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["": 17]>
        mean (float[n, rows, columns] edge) => (float[m, 1, 1] mean) {{ mean = ReduceMean<axes = [{axes}]>(edge) }}""")
    return session_for(model)


# The repairs. Bytes are in the order of their light, and there are 256 of them: so most is done before they become float32.


def _repaired(p: Params, photos: np.ndarray, fault: str) -> np.ndarray:
    return _light(photos) if fault == "not repaired" else _REPAIRS[p["operator"]](photos, p, fault)


def _light(photos: np.ndarray) -> np.ndarray:
    return photos.astype(np.float32) / np.float32(255)


def _stretched(photos: np.ndarray, p: Params, fault: str) -> np.ndarray:
    k = p["strength"] + {"rank": 1, "far rank": 100}.get(fault, 0)
    places = [k - 1, SIDE**2 - k]
    found = np.partition(photos.reshape(len(photos), -1), places, 1)[:, places]
    low, high = np.moveaxis(_light(found), 1, 0)[..., None, None]
    scaled = (_light(photos) - low) / (high - low + np.float32(0.01))
    return scaled if fault == "not clamped" else scaled.clip(0, 1)


# Pairs to exchange, so that nine values are in order at the end, the largest first.
_SORTING = (
    (0, 3), (1, 7), (2, 5), (4, 8), (0, 7), (2, 4), (3, 8), (5, 6), (0, 2), (1, 3), (4, 5), (7, 8), (1, 4), (3, 6), (5, 7),
    (0, 1), (2, 4), (3, 5), (6, 8), (2, 3), (4, 5), (6, 7), (1, 2), (3, 4), (5, 6),
)  # fmt: skip


def _healed(photos: np.ndarray, p: Params, fault: str) -> np.ndarray:
    wide = np.pad(photos, ((0, 0), (1, 1), (1, 1)), "constant" if fault == "zeros" else "reflect")
    # Nine moved photographs, all of their pixels at once: to sort nine bytes at a time takes far longer.
    nine = [wide[:, row : row + SIDE, column : column + SIDE] for row in range(3) for column in range(3)]
    for a, b in _SORTING:
        nine[a], nine[b] = np.maximum(nine[a], nine[b]), np.minimum(nine[a], nine[b])
    median = nine[middle(fault)]
    dead = (photos == 0) | (photos == 255)
    return _light(median if fault == "everywhere" else np.where(dead, median, photos))


def middle(fault: str) -> int:
    """The place of the median among nine values, the largest first."""
    return 4 - {"rank": 1, "far rank": 3}.get(fault, 0)


def _unbent(photos: np.ndarray, p: Params, fault: str) -> np.ndarray:
    above = _light(np.arange(256))[:, None] > curve(p, fault).astype(np.float32)
    return (above.sum(1).astype(np.float32) / np.float32(p["strength"]))[photos]


def curve(p: Params, fault: str) -> np.ndarray:
    """The steps of the camera's curve, float64."""
    k = p["strength"]
    return ((np.arange(k) + 0.5 + {"rank": 1, "far rank": 3}.get(fault, 0)) / k) ** p["gamma"]


_REPAIRS: dict[str, Callable[[np.ndarray, Params, str], np.ndarray]] = {
    "kthvalue": _stretched,
    "median": _healed,
    "searchsorted": _unbent,
}
