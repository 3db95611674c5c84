"""Which sizes does a model take? Probe them, and run any number of examples in batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from ..errors import CourseError
from ..onnx_files import Model, as_model
from ..running import run, session_for
from .graphs import type_text
from .parity import tensors_in, untouched

if TYPE_CHECKING:
    import pandas as pd
    import torch

_Sizes = dict[str, list[int]]
_Places = list[tuple[int, int]]  # (input, axis)


def probe_sizes(
    model: Model,
    inputs: Any,
    torch_model: torch.nn.Module | None = None,
    sizes: Sequence[int] | None = None,
) -> pd.DataFrame:
    """Try other sizes in every dimension of a model's inputs, one dimension at a time. First used in lesson 04.

    inputs: an example that the model takes, one array or tensor or a tuple of them, in the order of the model's inputs.
    Other sizes are made by repeating or cutting it. Dimensions of the same name are changed together; so are free ones
    of the same size that the model takes in more sizes together than each alone.
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

    def tried(places: _Places) -> _Sizes:
        index, axis = places[0]
        n = values[index].shape[axis]
        found: _Sizes = {"works": [], "refused": [], "wrong": [], "neither": []}
        for size in sorted(set(sizes or _around(n)) | {n}):
            changed = list(values)
            for i, a in places:
                changed[i] = _resized(changed[i], a, size)
            found[_outcome(session, names, changed, torch_model)].append(size)
        return found

    waiting = dict(_dimensions(session))
    while waiting:
        written = next(iter(waiting))
        places = waiting.pop(written)
        free, (index, axis) = isinstance(written, str), places[0]
        n = values[index].shape[axis]
        found = tried(places)
        if free and set(found["works"]) <= {n, 1}:  # 1 may work by broadcasting alone
            for group in _tied(waiting, places, [v.shape for v in values]):
                linked = [*places, *(place for key in group for place in waiting[key])]
                together = tried(linked)
                if len(together["works"]) > len(found["works"]):
                    places, found = linked, together
                    for key in group:
                        del waiting[key]
                    break
        rows.append(
            {
                "dimension": ", ".join(f"{names[i]}[{a}]" for i, a in places),
                "the file says": session.get_inputs()[index].shape[axis] or "?",
                "works": ", ".join(map(str, found["works"])),
                "refused": ", ".join(map(str, found["refused"])),
                "wrong numbers": ", ".join(map(str, found["wrong"])),
                "verdict": _verdict(free, n, found),
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


def _tied(
    waiting: Mapping[str | tuple[int, int], _Places], places: _Places, shapes: Sequence[tuple[int, ...]]
) -> list[list[str]]:
    """Free dimensions that may have to change together with `places`: of the same size, first those on the same axis.

    Two inputs of one batch have two names, or none, where the exporter was given axes without names.
    """
    index, axis = places[0]
    alike = {
        key: at[0][1]
        for key, at in waiting.items()
        if isinstance(key, str) and shapes[at[0][0]][at[0][1]] == shapes[index][axis]
    }
    same_axis = [key for key, a in alike.items() if a == axis]
    groups = [same_axis, list(alike), *([key] for key in alike)]
    return [group for i, group in enumerate(groups) if group and group not in groups[:i]]


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

    with untouched(model):
        try:
            result = model(
                *(torch.from_numpy(v.copy()) for v in values)
            )  # copies: some models change what they are given
        except Exception:  # whatever a model raises: it does not take this size
            return None
    return [_array(t) for t in tensors_in(result)]


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
    Raises CourseError when `feed` is no dict, when the model's batch is frozen, when the arrays do not hold the same
    number of examples or none, when an output has not one row per example along axis 0, or when `batch` is not a positive
    whole number.
    """
    if not isinstance(batch, int) or isinstance(batch, bool) or batch < 1:
        raise CourseError(f"run_in_batches() was given batch={batch!r}: it expects a whole number of at least 1.")
    if not isinstance(feed, Mapping):
        raise CourseError(
            f"run_in_batches() was given a {type(feed).__name__}: it expects a dict, from input name to array."
        )
    session = model if isinstance(model, ort.InferenceSession) else session_for(model)
    _check_batch_axes(session)
    counts = {name: len(value) for name, value in feed.items() if np.ndim(value)}
    if len(set(counts.values())) != 1 or len(counts) != len(feed) or 0 in counts.values():
        raise CourseError(
            f"run_in_batches() needs arrays with the same number of examples, at least one; it was given {counts}."
        )
    count = next(iter(counts.values()))

    def part(start: int, stop: int) -> dict[str, np.ndarray]:
        return run(session, {k: v[start:stop] for k, v in feed.items()})

    parts = []
    for start in range(0, count, batch):
        parts.append(part(start, min(start + batch, count)))
        _check_rows(parts[-1], min(batch, count - start))
    if len(parts) > 1 and count % batch == 0:
        # All parts have the same size, and an output can have as many rows by chance, as a GRU's has after 64 steps: one
        # more run of another size tells.
        other = 1 if batch > 1 else 2
        try:
            probe = part(0, other)
        except CourseError:  # it does not take another size: nothing more can be said
            probe = {}
        _check_rows(probe, other)
    return {name: _joined(name, [found[name] for found in parts]) for name in parts[0]}


def _check_batch_axes(session: ort.InferenceSession) -> None:
    """Raise CourseError where an input's axis 0 is not free: with the batch as the cause where no axis at all is free."""
    shapes = {value.name: value.shape for value in session.get_inputs()}
    frozen = not any(not isinstance(size, int) for shape in shapes.values() for size in shape)
    for name, shape in shapes.items():
        if not shape:
            raise CourseError(
                f"The model's input {name!r} is a single number, and run_in_batches() feeds each input a part of the "
                f"examples: run the model yourself, with session.run(None, feed) for each part."
            )
        if not isinstance(shape[0], int):
            continue
        if frozen:
            raise CourseError(
                f"The model takes its input {name!r} in the shape {shape} only: its batch is frozen, and "
                f"run_in_batches() needs a free one. Export it with dynamic_shapes=({{0: 'batch'}},)."
            )
        raise CourseError(
            f"The model's input {name!r} has the shape {shape}: its axis 0 has the fixed size {shape[0]}, and "
            f"run_in_batches() needs the examples along axis 0. Where they lie along another axis, run the model yourself; "
            f"where axis 0 is the batch, export the model with a free one."
        )


def _check_rows(part: Mapping[str, Any], rows: int) -> None:
    """Raise CourseError where an output does not hold one row per example."""
    for name, value in part.items():
        if not isinstance(value, np.ndarray):
            raise CourseError(
                f"The model's output {name!r} is a {type(value).__name__} and no tensor, so run_in_batches() cannot join "
                f"its parts: run the model yourself, with session.run(None, feed) for each part."
            )
        if not value.ndim or len(value) != rows:
            raise CourseError(
                f"The model's output {name!r} has the shape {list(value.shape)} for {rows} examples: run_in_batches() "
                f"joins outputs along axis 0, and its examples are not there. Run the model yourself, and join the parts "
                f"of {name!r} along the axis of its examples with np.concatenate(parts, axis=…)."
            )


def _joined(name: str, parts: list[np.ndarray]) -> np.ndarray:
    inner = {part.shape[1:] for part in parts}
    if len(inner) > 1:
        first, second = (list(shape) for shape in sorted(inner)[:2])
        raise CourseError(
            f"The parts of the model's output {name!r} differ in the shape of an example, such as {first} and {second}, so "
            f"run_in_batches() cannot join them: run the model yourself, and keep the parts apart."
        )
    return np.concatenate(parts)


def written_shapes(model: Model) -> dict[str, str]:
    """Input or output name → its shape as the file has it; initializers are left out. First used in lesson 04."""
    graph = as_model(model, external_data=False).graph
    stored = {t.name for t in graph.initializer}
    return {v.name: type_text(v)[1] for v in [*graph.input, *graph.output] if v.name not in stored}
