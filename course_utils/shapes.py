"""Which sizes does a model take? Probe them, run any number of examples in batches, and play with it."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from .errors import CourseError
from .graphs import type_text
from .onnx_files import Model, as_model
from .running import run, session_for
from .widget_style import INK

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from ipywidgets import VBox

_Sizes = dict[str, list[int]]


def probe_sizes(
    model: Model,
    inputs: Any,
    torch_model: torch.nn.Module | None = None,
    sizes: Sequence[int] | None = None,
) -> pd.DataFrame:
    """Try other sizes in every dimension of a model's inputs, one dimension at a time. First used in lesson 04.

    inputs: an example that the model takes, one array or tensor or a tuple of them, in the order of the model's inputs.
    Other sizes are made by repeating or cutting it. Dimensions of the same name are changed together.
    torch_model: compare with its results; without it only refusals are found, not wrong numbers.
    sizes: what to try; by default 1 and some sizes below and above the example's.
    Returns one row per dimension: where it is, what the file says, the sizes that work, are refused, give wrong numbers
    (other than PyTorch's), and a verdict. Sizes that PyTorch refuses as well are left out.
    Raises CourseError when the example itself does not run, in the file or in PyTorch, or `sizes` holds anything but
    positive whole numbers.
    """
    import pandas as pd

    session = session_for(model)
    names = [i.name for i in session.get_inputs()]
    values = [_array(v) for v in (inputs if isinstance(inputs, tuple | list) else (inputs,))]
    if len(values) != len(names):
        raise CourseError(f"The model has {len(names)} inputs {names}, and probe_sizes() was given {len(values)}.")
    if sizes is not None and not (
        isinstance(sizes, Sequence) and all(isinstance(s, int) and not isinstance(s, bool) and s > 0 for s in sizes)
    ):
        raise CourseError(f"sizes is {sizes!r}: it expects positive whole numbers, such as [1, 7, 9, 16].")
    run(session, dict(zip(names, values, strict=True)))  # says in one sentence when the example does not fit
    if (
        torch_model is not None and _of_torch(torch_model, values) is None
    ):  # then there would be nothing to compare with
        raise CourseError(
            f"The PyTorch model, a {type(torch_model).__name__}, does not take the example: give probe_sizes() the module "
            f"that was exported, and its inputs in their order."
        )
    rows = []
    for written, places in _dimensions(session).items():
        index, axis = places[0]
        n = values[index].shape[axis]
        found: _Sizes = {"works": [], "refused": [], "wrong": [], "neither": []}
        for size in sorted(set(sizes or _around(n)) | {n}):
            changed = list(values)
            for i, a in places:
                changed[i] = _resized(changed[i], a, size)
            found[_outcome(session, names, changed, torch_model)].append(size)
        rows.append(
            {
                "dimension": ", ".join(f"{names[i]}[{a}]" for i, a in places),
                "the file says": session.get_inputs()[index].shape[axis] or "?",
                "works": ", ".join(map(str, found["works"])),
                "refused": ", ".join(map(str, found["refused"])),
                "wrong numbers": ", ".join(map(str, found["wrong"])),
                "verdict": _verdict(isinstance(written, str), n, found),
            }
        )
    return pd.DataFrame(rows)


def _array(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)


def _around(n: int) -> set[int]:
    return {1, max(1, n // 2), max(1, n - 1), n, n + 1, 2 * n + 1}


def _resized(value: np.ndarray, axis: int, size: int) -> np.ndarray:
    return np.take(value, np.arange(size) % value.shape[axis], axis=axis)


def _dimensions(session: ort.InferenceSession) -> dict[str | tuple[int, int], list[tuple[int, int]]]:
    """Name, or place where there is a number → the places (input, axis) that change together."""
    found: dict[str | tuple[int, int], list[tuple[int, int]]] = {}
    for index, value in enumerate(session.get_inputs()):
        for axis, size in enumerate(value.shape):
            key = size if isinstance(size, str) else f"?{index}.{axis}" if size is None else (index, axis)
            found.setdefault(key, []).append((index, axis))
    return found


def _outcome(
    session: ort.InferenceSession, names: list[str], values: list[np.ndarray], torch_model: torch.nn.Module | None
) -> str:
    try:
        got = session.run(None, dict(zip(names, values, strict=True)))
    except Exception:  # its exception classes derive from Exception alone
        got = None
    if torch_model is None:
        return "refused" if got is None else "works"
    want = _of_torch(torch_model, values)
    if got is None:
        return "neither" if want is None else "refused"
    if want is None:  # nothing to compare with
        return "works"
    same = len(got) == len(want) and all(
        g.shape == w.shape and np.allclose(g, w, atol=1e-4, rtol=1e-3, equal_nan=True)
        for g, w in zip(got, want, strict=True)
    )
    return "works" if same else "wrong"


def _of_torch(model: torch.nn.Module, values: list[np.ndarray]) -> list[np.ndarray] | None:
    import torch

    with torch.no_grad():
        try:
            result = model(*(torch.from_numpy(v) for v in values))
        except Exception:  # whatever a model raises: it does not take this size
            return None
    return [_array(t) for t in (result if isinstance(result, tuple | list) else (result,))]


def _verdict(free: bool, n: int, found: _Sizes) -> str:
    others = [size for size in found["works"] if size != n]
    if found["wrong"]:
        return "wrong numbers, without an error"
    if not free:
        return f"frozen at {n}" if found["refused"] else f"takes {n} only, as in PyTorch"
    if not others:
        return f"says any, takes {n} only" + ("" if found["refused"] else ", as in PyTorch")
    if found["refused"]:
        return "not every size"
    return "free, as far as in PyTorch" if found["neither"] else "free"


def run_in_batches(
    model: Model | ort.InferenceSession, feed: Mapping[str, np.ndarray], batch: int = 64
) -> dict[str, np.ndarray]:
    """Run many examples, at most `batch` at a time, and join the results: output name → array. First used in lesson 04.

    feed: input name → array, with the examples along axis 0; the last batch is as small as it comes out.
    Raises CourseError when `feed` is no dict, when the model's batch is frozen, when the arrays do not hold the same number of examples or none,
    or when `batch` is not a positive whole number.
    """
    if not isinstance(batch, int) or isinstance(batch, bool) or batch < 1:
        raise CourseError(f"run_in_batches() was given batch={batch!r}: it expects a whole number of at least 1.")
    if not isinstance(feed, Mapping):
        raise CourseError(
            f"run_in_batches() was given a {type(feed).__name__}: it expects a dict, from input name to array."
        )
    session = model if isinstance(model, ort.InferenceSession) else session_for(model)
    for value in session.get_inputs():
        if not value.shape or isinstance(value.shape[0], int):
            raise CourseError(
                f"The model takes its input {value.name!r} in the shape {value.shape} only: its batch is frozen, and "
                f"run_in_batches() needs a free one. Export it with dynamic_shapes=({{0: 'batch'}},)."
            )
    counts = {name: len(value) for name, value in feed.items() if np.ndim(value)}
    if len(set(counts.values())) != 1 or len(counts) != len(feed) or 0 in counts.values():
        raise CourseError(
            f"run_in_batches() needs arrays with the same number of examples, at least one; it was given {counts}."
        )
    count = next(iter(counts.values()))
    parts = [run(session, {k: v[i : i + batch] for k, v in feed.items()}) for i in range(0, count, batch)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


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


def written_shapes(model: Model) -> dict[str, str]:
    """Input or output name → its shape as the file has it; initializers are left out. First used in lesson 04."""
    graph = as_model(model, external_data=False).graph
    stored = {t.name for t in graph.initializer}
    return {v.name: type_text(v)[1] for v in [*graph.input, *graph.output] if v.name not in stored}
