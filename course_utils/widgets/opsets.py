"""The explorer of lesson 02: choose an operator, see when it came, when it changed, and how."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

import onnx

from ..errors import CourseError
from ..lab.opsets import Edition, editions, editions_of
from ..style import INK

if TYPE_CHECKING:
    from ipywidgets import VBox

# What models are made of, by the opset it came with; the others are in cu.operator_history().
_MODELS_USE = (
    "Add AveragePool BatchNormalization Cast Clip Concat Constant Conv ConvTranspose Dropout Flatten GRU Gather Gemm "
    "GlobalAveragePool Hardmax HardSigmoid Identity If InstanceNormalization LSTM LeakyRelu Loop MatMul MaxPool Pad Pow "
    "ReduceMax ReduceMean ReduceSum Relu Reshape Resize Sigmoid Slice Softmax Split Squeeze Tanh TopK Transpose "
    "Unsqueeze Upsample Expand Scan Erf NonZero Where ConvInteger DequantizeLinear MatMulInteger NonMaxSuppression "
    "QLinearConv QLinearMatMul QuantizeLinear DynamicQuantizeLinear CumSum Range ScatterND Einsum HardSwish Trilu "
    "GridSample DFT STFT LayerNormalization MelWeightMatrix BitwiseAnd Col2Im GroupNormalization Mish DeformConv "
    "AffineGrid Gelu Attention RMSNormalization RotaryEmbedding Swish"
)
_STEP, _TOP = 22, 16  # pixels between two opsets, and down to the line


def opset_explorer(operators: Sequence[str] | None = None) -> VBox:
    """A chooser of operators over a time line of opsets. First used in lesson 02.

    operators: names in the domain ai.onnx; by default those that models are made of. All frames are made beforehand and
    linked in the browser, so that it works on a page without a kernel.
    Raises CourseError for an unknown operator, or when there is none.
    """
    import ipywidgets as widgets

    if isinstance(operators, str):
        operators = [operators]
    if operators is None:  # an older onnx package has not heard of the newest
        operators = [name for name in _MODELS_USE.split() if name in editions()]
    names = sorted(operators, key=str.lower)
    if not names:
        raise CourseError("opset_explorer() was given no operator: give it names, such as ['Resize', 'Softmax'].")
    model = widgets.HTML()  # one layout and one style for all keeps the page small
    frames = [widgets.HTML(frame(editions_of(name)), layout=model.layout, style=model.style) for name in names]
    chooser = widgets.Dropdown(options=names, index=names.index(_first_shown(names)), description="operator")
    stack = widgets.Stack(frames, selected_index=chooser.index)
    widgets.jslink((chooser, "index"), (stack, "selected_index"))
    return widgets.VBox([chooser, stack])


def _first_shown(names: list[str]) -> str:
    return "Softmax" if "Softmax" in names else names[0]


def frame(versions: Sequence[Edition]) -> str:
    """One operator as HTML: a sentence, the time line, and a table of its versions, newest first."""
    first, last = versions[0], versions[-1]
    changes = sum(edition.event == "changed" for edition in versions)
    how_often = {0: "never changed", 1: "changed once"}.get(changes, f"changed {changes} times")
    text = f"<b>{first.operator}</b> came with opset {first.opset} and was {how_often} since."
    if last.event == "withdrawn":
        text += f" From opset {last.opset} on it is withdrawn."
    rows = "".join(
        f"<tr><td>{e.opset}</td><td>{_names(e.inputs)}</td><td>{_names(e.attributes)}</td>"
        f"<td>{html.escape(_shortened(e.what))}</td></tr>"
        for e in reversed(versions)
    )
    return (
        f'<div style="line-height:1.4;color:{INK}"><p>{text}</p>{_time_line(versions)}'
        f'<table style="text-align:left;border-collapse:collapse" border="1" cellpadding="4"><tr><th>opset</th>'
        f"<th>inputs</th><th>attributes</th><th>what is different</th></tr>{rows}</table></div>"
    )


def _time_line(versions: Sequence[Edition]) -> str:
    newest = onnx.defs.onnx_opset_version()
    at = {edition.opset: edition for edition in versions}
    width, start = _STEP * (newest + 1), _STEP * versions[0].opset
    # Colours of the page, not of ours: the same picture stands on a light and on a dark page.
    ticks = "".join(
        f'<circle cx="{_STEP * o}" cy="{_TOP}" r="{7 if o in at else 2}" '
        f'fill="{_fill(at.get(o))}"/><text x="{_STEP * o}" y="{_TOP + 22}" stroke="none" fill="currentColor">{o}</text>'
        for o in range(1, newest + 1)
        if o in at or o % 5 == 0
    )
    label = f"{versions[0].operator}: opsets {', '.join(map(str, at))}"
    return (
        f'<svg role="img" aria-label="{label}" width="{width}" height="{_TOP + 28}" style="max-width:100%" '
        f'viewBox="0 0 {width} {_TOP + 28}" stroke="currentColor" font-size="11" text-anchor="middle">'
        f'<path d="M{_STEP} {_TOP}H{_STEP * newest}" stroke-opacity=".35"/>'
        f'<path d="M{start} {_TOP}H{_STEP * newest}" stroke-width="2"/>'
        f"{ticks}</svg>"
    )


def _fill(edition: Edition | None) -> str:
    return {"new": "#009E73", "changed": "#0072B2", "withdrawn": "#D55E00"}[edition.event] if edition else "none"


def _names(names: Sequence[str]) -> str:
    return html.escape(", ".join(names)) or "–"


def _shortened(what: str, most: int = 6) -> str:
    parts = what.split(", ")
    return what if len(parts) <= most else ", ".join(parts[:most]) + f" and {len(parts) - most} more"
