"""The camera of the capstone: photographs of garments, spoilt as the student's own scroll repairs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from .. import Params
from ..fashion_reference import pictures
from .module_source import SIDE
from .seen import edges


def photographs(
    p: Params,
    split: Literal["test", "calibration"],
    count: int,
    rng: np.random.Generator,
    among: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Photographs uint8 [count, 28, 28] of garments drawn from "test" or "calibration", and their labels int64 [count].

    among: numbers of the images to draw from, all where none are given.

    About half are on white paper. The labels are in the student's order of classes. No photograph is near the edge of
    the decision, so that rounding cannot turn it.
    """
    images, labels = pictures(split)
    source = np.arange(len(images)) if among is None else among
    chosen = rng.choice(source, min(len(source), count + count // 4 + 8), replace=False)
    light = images[chosen].astype(np.float64) / 255
    white = rng.random(len(light)) < 0.5
    light[white] = 1 - (light[white][:, :, ::-1] if p["mirrored"] else light[white])
    _tear(light, white, p, rng)
    photos = np.rint(_CAMERAS[p["operator"]](light, p, rng).clip(0, 1) * 255).astype(np.uint8)
    clear = np.abs(edges(p, photos) - p["threshold"]) > 0.03
    places = np.argsort(p["order"])
    return photos[clear][:count], places[labels[chosen]][clear][:count]


def _tear(light: np.ndarray, white: np.ndarray, p: Params, rng: np.random.Generator) -> None:
    """Spoil the edges of some photographs, in place: a decision that looks elsewhere, or at half of its edge, shows.

    Neither black nor white quite, or a repair would take it for dead pixels and heal it.
    """
    across = light.swapaxes(1, 2)  # a view, as the next two are
    decides, others = (light, across) if p["edge"] == "rows" else (across, light)
    kind = rng.random(len(light))
    torn, half = kind < 0.1, (kind >= 0.1) & (kind < 0.35)
    others[np.ix_(torn, np.array([0, SIDE - 1]))] = np.where(white[torn], 0.03, 0.97)[:, None, None]
    # One line says the opposite, and both together are still a tenth on the right side.
    opposite = 2 * p["threshold"] - np.where(white, 0.8, 0.2)
    line = rng.choice([0, SIDE - 1], len(light))
    decides[half, line[half]] = opposite[half, None]


def _foggy(light: np.ndarray, p: Params, rng: np.random.Generator) -> np.ndarray:
    low, contrast = (rng.uniform(*limits, (len(light), 1, 1)) for limits in ((0.1, 0.3), (0.35, 0.65)))
    return low + contrast * light


def _dead(light: np.ndarray, p: Params, rng: np.random.Generator) -> np.ndarray:
    dead = rng.random(light.shape) < p["strength"] / 100
    return np.where(dead, rng.integers(0, 2, light.shape), light)


def _bent(light: np.ndarray, p: Params, rng: np.random.Generator) -> np.ndarray:
    return light ** p["gamma"]


_CAMERAS: dict[str, Callable[[np.ndarray, Params, np.random.Generator], np.ndarray]] = {
    "kthvalue": _foggy,
    "median": _dead,
    "searchsorted": _bent,
}
