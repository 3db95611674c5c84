"""A widget that steps through a model, node by node, and shows every tensor on the way.

All frames are made beforehand and the slider is linked to them in the browser, so the widget also lives on a page that
has no kernel.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping

import ipywidgets as widgets
import numpy as np
import onnx

from ..lab.graphs import attribute_text
from ..onnx_files import Model, as_model
from ..running import run_all
from ..style import INK

_LARGEST_TABLE = 6  # rows and columns of a tensor that is shown as numbers
_LARGEST_STRIP = 16  # channels of a feature map that are shown as pictures
_BOX = "border: 1px solid; border-radius: 6px; padding: 0.3em 0.8em; margin: 0.3em 0"


def step_through(model: Model, feed: Mapping[str, np.ndarray]) -> widgets.VBox:
    """A slider over the nodes of a model in their order; each step shows the node, what goes in and what comes out.

    feed: input name → array, as for `InferenceSession.run`. Feature maps `[N, C, H, W]` appear as pictures of the first
    example, small tensors as numbers, others by their range. Nodes inside subgraphs are not shown. First used in lesson 01.
    Raises CourseError when the model cannot be read or the feed does not fit it.
    """
    proto = as_model(model)
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    weights = set(tensors)
    tensors |= {**feed, **run_all(proto, feed)}
    nodes = proto.graph.node
    frames = [_frame(index, node, len(nodes), tensors, weights) for index, node in enumerate(nodes)]
    slider = widgets.IntSlider(0, 0, len(frames) - 1, description="node", layout={"width": "min(95%, 480px)"})
    stack = widgets.Stack([widgets.HTML(frame) for frame in frames], selected_index=0)
    widgets.jslink((slider, "value"), (stack, "selected_index"))
    return widgets.VBox([slider, stack])


def _frame(index: int, node: onnx.NodeProto, of: int, tensors: Mapping[str, np.ndarray], weights: set[str]) -> str:
    attributes = "<br>".join(html.escape(attribute_text(a)) for a in node.attribute)
    title = (
        f"<b>{index} · {html.escape(node.op_type)}</b> <small>({index + 1} of {of}) {html.escape(node.name)}</small>"
    )
    rows = [
        _tensor("weights" if name in weights else "in", name, tensors.get(name), full=name not in weights)
        for name in node.input
        if name  # an empty name is an optional input left out
    ]
    rows += [_tensor("out", name, tensors.get(name)) for name in node.output if name]
    return (
        f'<div style="line-height: 1.5; color: {INK}">{title}<div style="{_BOX}"><small>{attributes or "no attributes"}</small></div>'
        f"{''.join(rows)}</div>"
    )


def _tensor(role: str, name: str, value: np.ndarray | None, *, full: bool = True) -> str:
    head = f"<b>{role}</b> <code>{html.escape(name)}</code>"
    if value is None:
        return f'<div style="{_BOX}">{head}</div>'
    head += f" {value.dtype} {list(value.shape)}"
    if value.size and value.dtype.kind in "fiu":
        head += f"<br><small>from {value.min():.4g} to {value.max():.4g}, mean {value.mean():.4g}</small>"
    return f'<div style="{_BOX}">{head}{_preview(value) if full else ""}</div>'


def _preview(value: np.ndarray) -> str:
    if value.ndim == 4 and value.shape[2] > 1 and value.shape[3] > 1:
        return _pictures(value[0, :_LARGEST_STRIP])
    if value.ndim in (1, 2) and value.size <= _LARGEST_TABLE * 10 and value.shape[0] <= _LARGEST_TABLE:
        return _numbers(np.atleast_2d(value))
    return ""


def _numbers(matrix: np.ndarray) -> str:
    rows = ("".join(f'<td style="padding: 0 0.5em">{v:.4g}</td>' for v in row) for row in matrix)
    cells = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<div style="overflow-x: auto"><table style="border: 0; margin: 0">{cells}</table></div>'


def _pictures(channels: np.ndarray) -> str:
    """Channels `[C, H, W]` side by side in one PNG; a common grey scale, so that channels can be compared."""
    import matplotlib.pyplot as plt

    low, high = float(channels.min()), float(channels.max())
    gap = np.full((channels.shape[1], 1), high, channels.dtype)
    strip = np.concatenate([part for channel in channels for part in (channel, gap)][:-1], axis=1)
    stream = io.BytesIO()
    plt.imsave(stream, strip, cmap="gray", vmin=low, vmax=high or 1.0)
    data = base64.b64encode(stream.getvalue()).decode()
    what = f"{len(channels)} channel{'s' * (len(channels) != 1)} of the first example; white is {high:.3g}, black {low:.3g}"
    width = min(64 * len(channels), 640)
    return (
        f'<br><img alt="{what}" title="{what}" src="data:image/png;base64,{data}" '
        f'style="width: {width}px; max-width: 100%; image-rendering: pixelated">'
    )
