"""The explorer of lesson 07: a weight tensor, the numbers that int8 or int4 leaves of it, and what that costs."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..errors import CourseError
from ..style import INK

if TYPE_CHECKING:
    from ipywidgets import VBox

_WIDTH, _HEIGHT, _BINS = 560, 110, 56
_CHOICES = [(b, s, c) for b in (8, 4) for s in (True, False) for c in (False, True)]


def scale_explorer(weights: Mapping[str, np.ndarray]) -> VBox:
    """Choosers of a weight tensor and of the way to quantize it, over its histogram. First used in lesson 07.

    weights: name → float array `[output channel, …]`. For 8 and 4 bits, symmetric and asymmetric, one scale for the
    tensor or one for each channel: scale, zero point, the values that are left, and the error. All frames are made
    beforehand and linked in the browser, so that it works on a page without a kernel.
    Raises CourseError when there is no tensor, or one is no float array with at least two axes, or is not finite.
    """
    import ipywidgets as widgets

    if not weights:
        raise CourseError('scale_explorer() was given no tensor: it expects {"name": array}.')
    for name, values in weights.items():
        if not (isinstance(values, np.ndarray) and values.dtype.kind == "f" and values.ndim > 1 and values.size):
            raise CourseError(f"{name!r} is not a float array with at least two axes, output channels first.")
        if not np.isfinite(values).all():
            raise CourseError(f"{name!r} holds NaN or infinity: no scale fits that.")
    shared = widgets.HTML()  # one layout and one style for all keeps the page small
    chooser = widgets.Dropdown(options=list(weights), index=0, description="layer")
    ways = [_label(*choice) for choice in _CHOICES]
    way = widgets.Dropdown(options=ways, index=0, description="how", layout={"width": "min(95%, 420px)"})
    stacks = []
    for name, values in weights.items():
        frames = [
            widgets.HTML(frame(name, values, *choice), layout=shared.layout, style=shared.style) for choice in _CHOICES
        ]
        stacks.append(widgets.Stack(frames, selected_index=0))
        widgets.jslink((way, "index"), (stacks[-1], "selected_index"))
    outer = widgets.Stack(stacks, selected_index=0)
    widgets.jslink((chooser, "index"), (outer, "selected_index"))
    return widgets.VBox([chooser, way, outer])


def _label(bits: int, symmetric: bool, per_channel: bool) -> str:
    kind = "symmetric" if symmetric else "asymmetric"
    return f"{bits} bits, {kind}, {'per channel' if per_channel else 'per tensor'}"


def scale_and_zero_point(values: np.ndarray, bits: int, symmetric: bool) -> tuple[np.ndarray, np.ndarray]:
    """Of each row of `values` `[rows, n]`: scale and zero point; signed integers if symmetric, else unsigned ones."""
    low, high = np.minimum(values.min(1), 0), np.maximum(values.max(1), 0)
    width, steps = (np.maximum(-low, high), 2 ** (bits - 1) - 1) if symmetric else (high - low, 2**bits - 1)
    scale = np.where(width > 0, width / steps, 1.0)
    return scale, np.zeros_like(scale) if symmetric else np.rint(-low / scale)


def frame(name: str, values: np.ndarray, bits: int, symmetric: bool, per_channel: bool) -> str:
    """One way to quantize one tensor as HTML: the histogram, the values that are left, and a table."""
    channels = values.reshape(len(values), -1).astype(np.float64)
    rows = channels if per_channel else channels.reshape(1, -1)
    scale, zero = scale_and_zero_point(rows, bits, symmetric)
    least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if symmetric else (0, 2**bits - 1)
    integers = np.clip(np.rint(rows / scale[:, None]) + zero[:, None], least, most)
    error = np.sqrt(np.mean((scale[:, None] * (integers - zero[:, None]) - rows) ** 2))
    reach = np.abs(channels).max() * 1.05
    wide, narrow = int(scale.argmax()), int(scale.argmin())
    shown = {"whole tensor": 0} if not per_channel else {f"channel {wide}": wide, f"channel {narrow}": narrow}
    used = {label: len(np.unique(integers[row])) for label, row in shown.items()}
    if not per_channel:  # what the one scale leaves to the channel that would need another one most
        least_wide = int(np.ptp(np.c_[channels, np.zeros(len(channels))], axis=1).argmin())
        shown[f"its narrowest channel, {least_wide}"] = 0
        used[f"its narrowest channel, {least_wide}"] = len(np.unique(integers.reshape(channels.shape)[least_wide]))
    combs = [
        (label, (np.arange(least + (least < 0), most + 1) - zero[row]) * scale[row])
        for label, row in shown.items()
        if per_channel or label == "whole tensor"
    ]
    facts = "".join(
        f"<tr><td>{label}</td><td>{scale[row]:.5f}</td><td>{int(zero[row])}</td>"
        f"<td>{used[label]} of {2**bits}</td></tr>"
        for label, row in shown.items()
    )
    size = rows.size * bits / 8 + 4 * len(rows) + (0 if symmetric else len(rows) * bits / 8)
    return (
        f'<div style="line-height:1.5;color:{INK}"><p><b>{html.escape(name)}</b>, {_label(bits, symmetric, per_channel)}: '
        f"error {1000 * error:.2f} thousandths (root mean square), {size / 1024:.1f} KiB of {rows.size * 4 / 1024:.1f}</p>"
        f"{_picture(name, channels.ravel(), reach, combs)}"
        f'<table border="1" cellpadding="4" style="border-collapse:collapse;text-align:left"><tr><th></th><th>scale</th>'
        f"<th>zero point</th><th>integers used</th></tr>{facts}</table></div>"
    )


def _picture(name: str, values: np.ndarray, reach: float, combs: list[tuple[str, np.ndarray]]) -> str:
    counts, _ = np.histogram(values, _BINS, (-reach, reach))
    step = _WIDTH / _BINS
    tall = np.sqrt(counts / counts.max()) * _HEIGHT  # a root, so that the few large weights can be seen
    bars = "".join(
        f'<rect x="{i * step:.0f}" y="{_HEIGHT - h:.0f}" width="{step - 1:.0f}" height="{h:.0f}"/>'
        for i, h in enumerate(tall)
        if h > 0.5
    )
    lines = ""
    for index, (label, levels) in enumerate(combs):
        y = _HEIGHT + 8 + 40 * index
        inside = levels[np.abs(levels) <= reach]
        at = ((inside / reach + 1) * _WIDTH / 2).round(1)
        ticks = "".join(f"M{x:g} {y}v14" for x in at)
        lines += (
            f'<path d="{ticks}" stroke="#D55E00" fill="none"/>'
            f'<text x="0" y="{y + 29}" fill="currentColor" font-size="12">values left for {label}</text>'
        )
    height = _HEIGHT + 8 + 40 * len(combs)
    text = f"{html.escape(name)}: histogram of {values.size} weights from {values.min():.2f} to {values.max():.2f}"
    return (
        f'<svg role="img" aria-label="{text}" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}" '
        f'style="max-width:100%"><g fill="#56B4E9">{bars}</g>'
        f'<path d="M0 {_HEIGHT}H{_WIDTH}M{_WIDTH / 2:g} 0V{_HEIGHT}" stroke="currentColor" stroke-opacity=".4"/>{lines}</svg>'
    )
