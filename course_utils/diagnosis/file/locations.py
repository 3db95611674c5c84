"""Where the data of an external tensor lies, and whether that place may be opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from onnx import TensorProto

from ...paths import inside
from ...words import plain

OUTSIDE = "outside"


@dataclass(frozen=True)
class External:
    """Where a tensor says that its data is. path: None where it may not be opened. problem: why not."""

    location: str
    offset: int
    length: int | None
    path: Path | None
    problem: str = ""


def locate(model: Path | None, tensor: TensorProto) -> External:
    """Where an external tensor's data is. Only files below the model's own folder are ever opened.

    model: its path; None for a model that is no file.
    """
    entries = {plain(e.key): e.value for e in tensor.external_data}
    name = entries.get("location", "")
    offset, length = _number(entries.get("offset", "0")), _number(entries.get("length", ""))
    location = plain(name, None)
    if not name:
        return External("", 0, length, None, "it names no file")
    if offset is None or offset < 0 or (length is None and "length" in entries) or (length or 0) < 0:
        return External(location, 0, length, None, "its offset or length is no number")
    if model is None:
        return External(location, offset, length, None)
    if not inside(model, name):
        return External(location, offset, length, None, OUTSIDE)
    return External(location, offset, length, model.parent / name)


def _number(text: str | bytes) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None
