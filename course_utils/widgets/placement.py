"""The explorer of lesson 05: choose a model and a request for providers, see what was said and where each node went."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import CourseError
from ..lab.sessions import CPU
from ..style import INK

if TYPE_CHECKING:
    from ipywidgets import VBox

_COLOURS = {CPU: "#0072B2"}
_OTHER = "#D55E00"


def placement_explorer(records: Sequence[Mapping[str, Any]]) -> VBox:
    """Choose a model and a request for providers; see what was said, and where each node went. First used in lesson 05.

    records: results of the provider experiment. All frames are made beforehand and linked in the browser, so that it
    works on a page without a kernel. Raises CourseError when there is no placement in them.
    """
    import ipywidgets as widgets

    entries = [(record, entry) for record in records for entry in record["placements"]]
    if not entries:
        raise CourseError("placement_explorer() was given no placements: give it records of the provider experiment.")
    names = list(dict.fromkeys(entry["model"] for _, entry in entries))
    plain, stacks = widgets.HTML(), []
    for name in names:
        mine = [(record, entry) for record, entry in entries if entry["model"] == name]
        frames = [widgets.HTML(frame(record, entry), layout=plain.layout, style=plain.style) for record, entry in mine]
        titles = [f"{_package(record)}: {entry['title']}" for record, entry in mine]
        chooser = widgets.Dropdown(options=titles, index=0, description="request", layout={"width": "min(95%, 560px)"})
        stack = widgets.Stack(frames, selected_index=0)
        widgets.jslink((chooser, "index"), (stack, "selected_index"))
        stacks.append(widgets.VBox([chooser, stack]))
    model = widgets.Dropdown(options=names, index=0, description="model")
    outer = widgets.Stack(stacks, selected_index=0)
    widgets.jslink((model, "index"), (outer, "selected_index"))
    return widgets.VBox([model, outer])


def _package(record: Mapping[str, Any]) -> str:
    return str(record["versions"]["package"]).split()[0]


def frame(record: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    """One request as HTML: what was asked for, what was said, and the nodes in the colour of their provider."""
    asked = ", ".join(html.escape(name + (f" {options}" if options else "")) for name, options in entry["providers"])
    by = {"name": "by name", "device": "by device"}.get(entry["by"], f"by the policy {html.escape(entry['by'])}")
    config = "".join(
        f"<br><small>{html.escape(key)} = {html.escape(value)}</small>" for key, value in entry["config"].items()
    )
    said = (
        "".join(f"<li><small>{html.escape(line)}</small></li>" for line in entry["said"])
        or "<li><small>nothing</small></li>"
    )
    parts = [
        f"<p><b>asked for</b> {by}{f': <code>{asked}</code>' if asked else ''}{config}</p>",
        f'<p style="margin-bottom:0"><b>said:</b></p><ul style="margin-top:0">{said}</ul>',
    ]
    if entry["error"]:
        parts.append(f"<p><b>✗ no session:</b> {html.escape(entry['error'])}</p>")
    else:
        parts.append(f"<p><b>get_providers():</b> <code>{html.escape(', '.join(entry['chosen']))}</code></p>")
        parts.append(_nodes(record["models"][entry["model"]], entry))
    source = f"{record['versions']['package']}, {record['machine']['processor']}, {record['date']}"
    parts.append(f"<p><small>{html.escape(source)}</small></p>")
    return f'<div style="line-height:1.4;color:{INK}">{"".join(parts)}</div>'


def _nodes(nodes: Sequence[Sequence[str]], entry: Mapping[str, Any]) -> str:
    """A chain of boxes, one per node of the file; nodes compiled into one subgraph share a frame."""
    where = {
        name: (index, provider) for index, (provider, names) in enumerate(entry["recorded"] or []) for name in names
    }
    boxes: list[str] = []
    previous = None
    for name, op in nodes:
        index, provider = where.get(name, (None, "not recorded"))
        joined = index is not None and index == previous
        previous = index
        colour = _COLOURS.get(provider, _OTHER)
        boxes.append(
            f'{"" if not boxes else "·" if joined else "→"} <span style="display:inline-block;border:2px solid {colour};'
            f'border-radius:6px;padding:0 .5em;margin:.2em 0">{html.escape(op)}<br><small>'
            f"{html.escape(provider.removesuffix('ExecutionProvider'))}</small></span> "
        )
    pieces = [provider.removesuffix("ExecutionProvider") for provider, op in entry["ran"] if "Memcpy" not in op]
    copies = len(entry["ran"]) - len(pieces)
    copied = f" And {copies} copies between the processor and the device." if copies else ""
    summary = ", ".join(f"{pieces.count(p)} on {p}" for p in dict.fromkeys(pieces))
    return f"<p>{''.join(boxes)}</p><p><small>The profile saw {len(pieces)} kernels: {html.escape(summary)}.{copied}</small></p>"
