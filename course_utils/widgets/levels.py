"""The explorer of lesson 06: move through the optimisation levels, and see what each makes of a graph."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import onnx

from ..errors import CourseError
from ..lab.graphs import op_histogram
from ..lab.provenance import LEVELS, optimized, origins, traffic
from ..onnx_files import Model, as_model
from ..style import INK

if TYPE_CHECKING:
    import pandas as pd
    from ipywidgets import VBox

_COLOURS = {"kept": "currentColor", "fused": "#009E73", "rewritten": "#0072B2", "inserted": "#E69F00"}
_OTHER = "#D55E00"
_BAR = 150  # pixels of the longest bar
_FIRST = "layout"  # where nodes appear that nobody wrote: more to see than the untouched graph


def level_explorer(models: Mapping[str, tuple[Model, Mapping[str, np.ndarray]]]) -> VBox:
    """A chooser of models over a slider of optimisation levels. First used in lesson 06.

    models: a name → (model, feed); the feed tells which node comes from which, see `origins`. Each level shows the nodes
    in their order with the original nodes in them, the operators, and the bytes between the nodes. It opens on the level
    "layout". All frames are made beforehand and linked in the browser, so that it works on a page without a kernel.
    Raises CourseError when there is no model, or one cannot be read, or its feed does not fit.
    """
    import ipywidgets as widgets

    if not models:
        raise CourseError('level_explorer() was given no model: it expects {"name": (model, feed)}.')
    shared = widgets.HTML()  # one layout and one style for all keeps the page small
    slider = widgets.SelectionSlider(
        options=list(LEVELS), value=_FIRST, description="level", layout={"width": "min(95%, 480px)"}
    )
    chooser = widgets.Dropdown(options=list(models), index=0, description="model")
    stacks = []
    for model, feed in models.values():
        frames = [widgets.HTML(f, layout=shared.layout, style=shared.style) for f in _frames(as_model(model), feed)]
        stacks.append(widgets.Stack(frames, selected_index=slider.index))
        widgets.jslink((slider, "index"), (stacks[-1], "selected_index"))
    outer = widgets.Stack(stacks, selected_index=0)
    widgets.jslink((chooser, "index"), (outer, "selected_index"))
    return widgets.VBox([chooser, slider, outer])


def _frames(model: onnx.ModelProto, feed: Mapping[str, np.ndarray]) -> list[str]:
    versions = [optimized(model, level) for level in LEVELS]
    longest = max(int(op_histogram(version).max()) for version in versions)
    return [
        frame(level, origins(model, version, feed), op_histogram(version), _moved(version, feed), longest)
        for level, version in zip(LEVELS, versions, strict=True)
    ]


def _moved(model: onnx.ModelProto, feed: Mapping[str, np.ndarray]) -> int:
    return int(traffic(model, feed)[["reads", "writes"]].to_numpy().sum())


def frame(level: str, table: pd.DataFrame, operators: pd.Series, moved: int, longest: int) -> str:
    """One level of one model as HTML: a sentence, the nodes, the histogram, and what is gone.

    table: from `origins`. operators: from `op_histogram`. moved: bytes. longest: the count that fills a whole bar.
    """
    here, gone = table[table["node"] != ""], table[table["node"] == ""]
    rows = "".join(_node(row) for row in here.to_dict("records"))
    lost = ", ".join(html.escape(f"{row['from']} ({row['what']})") for row in gone.to_dict("records"))
    return (
        f'<div style="line-height:1.5;color:{INK}"><p><b>{level}</b>: {len(here)} nodes, '
        f"{moved / 1024:,.0f} KiB between them in one run</p>"
        f'<div style="display:flex;flex-wrap:wrap;gap:1.5em"><ol style="max-height:420px;overflow-y:auto;margin:0;'
        f'padding:0 1em 0 2.5em" tabindex="0" aria-label="nodes at level {level}">{rows}</ol>{_bars(operators, longest)}</div>'
        f"<p><small>{f'gone: {lost}' if lost else 'nothing is gone'}</small></p></div>"
    )


def _short(operator: str) -> str:
    return html.escape(operator.replace("com.microsoft.nchwc::", "nchwc::"))


def _node(row: Mapping[str, str]) -> str:
    colour = _COLOURS.get(row["what"], _OTHER)
    made_of = f" ← {html.escape(row['from'])}" if row["what"] in ("fused", "rewritten") else ""
    return (
        f'<li style="border-left:4px solid {colour};padding-left:.5em;margin:2px 0"><b>{_short(row["node"])}</b>'
        f"<small> {row['what']}{made_of}</small></li>"
    )


def _bars(operators: pd.Series, longest: int) -> str:
    rows = "".join(
        f'<tr><td style="text-align:right;padding:0 .5em">{_short(str(name))}</td>'
        f'<td style="text-align:left"><span style="display:inline-block;height:.7em;background:#56B4E9;'
        f'width:{max(2, round(_BAR * int(count) / longest))}px"></span> {int(count)}</td></tr>'
        for name, count in operators.items()
    )
    return f'<table style="border:0;margin:0;align-self:flex-start"><caption>operators</caption>{rows}</table>'
