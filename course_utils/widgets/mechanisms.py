"""The explorer of lesson 03: choose a model, a mechanism and an input, see what each export wrote and computed."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import AttributeProto

from ..errors import CourseError
from ..lab.exports import MARKS, Outcome, Trial
from ..lab.graphs import attribute_text
from ..style import INK

if TYPE_CHECKING:
    from ipywidgets import VBox

_REFUSED = "#0072B2"
_LARGEST_CONSTANT = 4  # values of a constant that are shown
_BOX = f"color:{INK};border:1px solid;border-radius:6px;padding:.2em .7em;margin:.25em 0"


def mechanism_explorer(trials: Mapping[str, Mapping[str, Trial]]) -> VBox:
    """Choosers of model, mechanism and input over what each trial wrote and computed. First used in lesson 03.

    trials: model → mechanism → Trial; every model with the same mechanisms. All frames are made beforehand and linked in
    the browser, so that it works on a page without a kernel.
    Raises CourseError when there is no trial, or the models differ in their mechanisms.
    """
    import ipywidgets as widgets

    kinds = {tuple(row) for row in trials.values()}
    if len(kinds) != 1 or not next(iter(kinds)):
        raise CourseError(
            "mechanism_explorer() expects model → mechanism → Trial, with the same mechanisms for each model."
        )
    look = widgets.HTML()  # one layout and one style for all keeps the page small

    def frame(text: str) -> widgets.HTML:
        return widgets.HTML(text, layout=look.layout, style=look.style)

    model = widgets.Dropdown(options=list(trials), index=0, description="model")
    mechanism = widgets.Dropdown(options=list(next(iter(kinds))), index=0, description="mechanism")
    pages = []
    for row in trials.values():
        names = next((list(trial.outcomes) for trial in row.values() if trial.outcomes), ["example"])
        chooser = widgets.Dropdown(options=names, index=0, description="input")
        shown = []
        for trial in row.values():
            if trial.model is None:
                shown.append(frame(_refusal(trial)))
                continue
            verdicts = widgets.Stack([frame(_verdict(trial.outcomes[name])) for name in names], selected_index=0)
            widgets.jslink((chooser, "index"), (verdicts, "selected_index"))
            shown.append(widgets.VBox([verdicts, frame(graph_html(trial.model.graph))]))
        stack = widgets.Stack(shown, selected_index=0)
        widgets.jslink((mechanism, "index"), (stack, "selected_index"))
        pages.append(widgets.VBox([chooser, stack]))
    book = widgets.Stack(pages, selected_index=0)
    widgets.jslink((model, "index"), (book, "selected_index"))
    return widgets.VBox([model, mechanism, book])


def _refusal(trial: Trial) -> str:
    return (
        f'<div style="line-height:1.4;{_BOX};border-left:6px solid {_REFUSED}"><b>No file.</b> '
        f"<code>{html.escape(trial.error)}</code></div>"
    )


def _verdict(outcome: Outcome) -> str:
    mark, colour = MARKS[outcome.verdict]
    return (
        f'<div style="line-height:1.4;{_BOX};border-left:6px solid {colour}"><b>{mark} {outcome.verdict}</b> '
        f"{html.escape(outcome.detail)}</div>"
    )


def graph_html(graph: onnx.GraphProto, title: str = "graph") -> str:
    """A graph as nested boxes: one row per node, and the graphs inside a node (`If`, `Loop`, `Scan`) inside its box."""
    given = ", ".join(v.name for v in graph.input) or "nothing of its own"
    rows = "".join(map(_node_html, graph.node))
    result = html.escape(", ".join(v.name for v in graph.output))
    return (
        f'<div style="line-height:1.4;{_BOX}"><small><b>{html.escape(title)}</b> reads {html.escape(given)}</small>{rows}'
        f"<small>gives {result}</small></div>"
    )


def _value_text(node: onnx.NodeProto) -> str:
    """The value of a small Constant, as `= 0.5`."""
    tensors = [a.t for a in node.attribute if a.name == "value" and a.type == AttributeProto.TENSOR]
    if not tensors or np.prod(tensors[0].dims) > _LARGEST_CONSTANT:
        return ""
    return f" = {onnx.numpy_helper.to_array(tensors[0]).tolist()}"


def _node_html(node: onnx.NodeProto) -> str:
    inner = [a for a in node.attribute if a.type == AttributeProto.GRAPH]
    settings = ", ".join(attribute_text(a) for a in node.attribute if a not in inner and a.name != "value")
    reads, writes = ", ".join(filter(None, node.input)), ", ".join(filter(None, node.output))
    text = html.escape(f"{reads} → {writes}" if reads else f"→ {writes}")
    if node.op_type == "Constant":
        text += html.escape(_value_text(node))
    head = (
        f"<b>{html.escape(node.op_type)}</b> <small>{text}{html.escape(f' ({settings})' if settings else '')}</small>"
    )
    if not inner:
        return f"<div>{head}</div>"
    return f'<div style="{_BOX}">{head}{"".join(graph_html(a.g, a.name) for a in inner)}</div>'
