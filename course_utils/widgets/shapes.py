"""The explorer of lesson 04: choose a model and the shape of what you feed, and see what ONNX Runtime answers."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort

from ..errors import CourseError
from ..onnx_files import Model
from ..running import session_for
from ..style import INK

if TYPE_CHECKING:
    from ipywidgets import VBox


def shape_explorer(models: Mapping[str, Model], shapes: Sequence[Sequence[int]]) -> VBox:
    """Two choosers, model and shape of the input, and what ONNX Runtime answers. First used in lesson 04.

    models: label → a model with one float32 input. shapes: what to feed. Everything is run beforehand and linked in the
    browser, so that it works on a page without a kernel.
    Raises CourseError when there is nothing to choose from, a shape is not made of whole numbers, or a model has more
    than one input.
    """
    import ipywidgets as widgets

    if not models or not shapes or not all(isinstance(n, int) and n >= 0 for shape in shapes for n in shape):
        raise CourseError("shape_explorer() needs at least one model and one shape, such as [4, 1, 28, 28].")
    plain = widgets.HTML()  # one layout and one style for all keeps the page small
    which = widgets.Dropdown(options=list(models), index=0, description="model")
    shape = widgets.Dropdown(options=[" × ".join(map(str, s)) for s in shapes], index=0, description="you feed")
    stacks = []
    for label, model in models.items():
        session = session_for(model)
        frames = [widgets.HTML(_answer(label, session, s), layout=plain.layout, style=plain.style) for s in shapes]
        stacks.append(widgets.Stack(frames, selected_index=0))
        widgets.jslink((shape, "index"), (stacks[-1], "selected_index"))
    outer = widgets.Stack(stacks, selected_index=0)
    widgets.jslink((which, "index"), (outer, "selected_index"))
    return widgets.VBox([which, shape, outer])


def _answer(label: str, session: ort.InferenceSession, shape: Sequence[int]) -> str:
    if len(session.get_inputs()) != 1:
        raise CourseError(f"shape_explorer() shows models with one input; {label!r} has {len(session.get_inputs())}.")
    (value,) = session.get_inputs()
    feed = np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    try:
        results = session.run(None, {value.name: feed})
    except Exception as error:  # its exception classes derive from Exception alone
        colour, words = "#D55E00", f"✗ refused<br><code>{html.escape(_words(error))}</code>".replace("\n", "<br>")
    else:
        shapes = ", ".join(f"<code>{html.escape(str(list(r.shape)))}</code>" for r in results)
        colour, words = "#009E73", f"✓ accepted, the result has the shape {shapes}"
    says = html.escape(f"{value.name}: {value.shape}")
    return (
        f'<div style="line-height:1.5;color:{INK};border:1px solid;border-left:5px solid {colour};border-radius:6px;'
        f'padding:.4em 1em">The file says <code>{says}</code><br>{words}</div>'
    )


def _words(error: Exception) -> str:
    """ONNX Runtime's words, without the file of its source code."""
    text = re.sub(r"/\S*onnxruntime_src\S* .*?\) (?=\S)", "", str(error).strip())
    return "\n".join(line.strip() for line in text.splitlines())
