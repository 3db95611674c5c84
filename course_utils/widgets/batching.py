"""The explorer of lesson 08: how long requests wait when a server collects them into batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import CourseError
from ..lab.batching import Simulated, simulate
from ..style import INK

if TYPE_CHECKING:
    from ipywidgets import VBox

LOADS = (0.1, 0.5, 0.9, 1.2)  # arrivals, as a part of what single runs can serve
WAITS = (0, 0.5, 1, 2, 4, 8)  # of the time of a single run
LARGEST = (1, 4, 16, 32)


def batching_explorer(spans: Mapping[int, float]) -> VBox:
    """Three choosers, arrivals, waiting time and largest batch, and what a simulated server does. First used in lesson 08.

    spans: images in a batch → measured milliseconds of one run; 1 must be among them. All frames are made beforehand and
    linked in the browser, so that it works on a page without a kernel.
    Raises CourseError for spans that are not positive, or without 1.
    """
    import ipywidgets as widgets

    if 1 not in spans or not all(size >= 1 and ms > 0 for size, ms in spans.items()):
        raise CourseError(
            "batching_explorer() expects the milliseconds of one run by number of images, with 1 among them, such as "
            "{1: 0.4, 8: 2.5}."
        )
    rates, waits = [load * 1000 / spans[1] for load in LOADS], [factor * spans[1] for factor in WAITS]
    plain = widgets.HTML()  # one layout and one style for all keeps the page small
    arrive = _chooser([f"{r:.0f} a second ({part:.0%})" for r, part in zip(rates, LOADS, strict=True)], "arrive", 1)
    wait = _chooser([f"{ms:.1f} ms" for ms in waits], "wait at most", 0)
    largest = _chooser([str(n) for n in LARGEST], "largest batch", 1)
    outer = []
    for rate in rates:
        middle = []
        for size in LARGEST:
            frames = [
                widgets.HTML(frame(simulate(spans, rate, ms, size)), layout=plain.layout, style=plain.style)
                for ms in waits
            ]
            middle.append(_linked(frames, wait))
        outer.append(_linked(middle, largest))
    return widgets.VBox([arrive, wait, largest, _linked(outer, arrive)])


def _chooser(options: Sequence[str], description: str, index: int):
    import ipywidgets as widgets

    style = {"description_width": "7em"}
    return widgets.Dropdown(options=options, index=index, description=description, style=style)


def _linked(children: Sequence, chooser):
    import ipywidgets as widgets

    stack = widgets.Stack(list(children), selected_index=chooser.index)
    widgets.jslink((chooser, "index"), (stack, "selected_index"))
    return stack


def frame(found: Simulated) -> str:
    """One simulation as HTML: the figures, a verdict, and the latencies as columns."""
    p50, p99 = np.percentile(found.latencies, [50, 99])
    half = len(found.latencies) // 2
    grows = found.busy > 0.9 and found.latencies[half:].mean() > 1.7 * found.latencies[:half].mean()
    colour, verdict = ("#D55E00", "The queue grows without end.") if grows else ("#009E73", "The server keeps up.")
    edges = np.linspace(0, max(np.percentile(found.latencies, 99.5), 1e-9), 25)
    counts = np.histogram(found.latencies, edges)[0]
    bars = "".join(
        f'<rect x="{12 * i}" y="{60 - h}" width="11" height="{h}"/>'
        for i, h in enumerate(np.round(58 * counts / max(counts.max(), 1)).astype(int))
        if h
    )
    return (
        f'<div style="line-height:1.5;color:{INK};border-left:5px solid {colour};padding:.2em 1em">'
        f"<b>{verdict}</b> The model is busy {found.busy:.0%} of the time, {found.batches.mean():.1f} images per batch, "
        f"{found.per_second:.0f} answers a second.<br>Half of the requests are answered within {p50:.1f} ms, 99 of 100 "
        f'within {p99:.1f} ms.<br><svg width="300" height="78" role="img" aria-label="Latencies from 0 to '
        f'{edges[-1]:.1f} ms; most near {edges[counts.argmax()]:.1f} ms"><g fill="{colour}">{bars}</g>'
        f'<text y="75" font-size="11" fill="currentColor">0</text><text x="300" y="75" font-size="11" '
        f'text-anchor="end" fill="currentColor">{edges[-1]:.1f} ms</text></svg></div>'
    )
