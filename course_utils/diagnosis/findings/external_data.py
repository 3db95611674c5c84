"""Weights in files beside the model, and whether the stored data is as long as it must be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from onnx import TensorProto

from ...file_formats import HEAD, recognise_weights
from ...paths import is_file
from ..file.locations import OUTSIDE, locate
from ..parts import dtype_name, expected_bytes
from ..patient import Patient
from ..vocabulary import ERROR, NOTE, Finding, Place, amount, code, count, finding, listed, plain

MISSING = code(
    "external-file-missing",
    ERROR,
    "01_large_files",
    "A file with weights is missing",
    "Copy it into the folder of the model under the name that the model gives, or export again with external_data=False.",
)
SHORT = code(
    "external-file-too-short",
    ERROR,
    "01_large_files",
    "A file with weights is too short",
    "Copy it again from where the model was exported: it was cut short, or belongs to another version of the model.",
)
FOREIGN = code(
    "external-file-foreign",
    ERROR,
    "01_large_files",
    "Something else stands in place of a file with weights",
    "Copy it again from where the model was exported.",
)
ESCAPES = code(
    "external-path-outside",
    ERROR,
    "01_large_files",
    "The model asks for a file outside its own folder",
    "Do not load a model like this from somebody you do not trust. Of your own: save it again with a plain file name as location.",
)
ENTRY = code(
    "external-entry-damaged",
    ERROR,
    "01_large_files",
    "An entry for weights in another file makes no sense",
    "Save the model again with onnx.save(…, save_as_external_data=True).",
)
SIZE = code(
    "weights-size-mismatch",
    ERROR,
    "01",
    "Stored data does not fit its dtype and shape",
    "Export the model again. If you edited a tensor, change dims, data_type and the data together.",
)
STALE = code(
    "external-file-stale",
    NOTE,
    "01_large_files",
    "A file with weights holds much that this model does not use",
    "If no other model shares the file: delete it before you save, for onnx.save appends to a file that is there.",
)


@dataclass
class _File:
    """One file with weights: its path, the tensors in it, and those that reach beyond its end."""

    path: Path
    places: list[Place] = field(default_factory=list)
    beyond: list[Place] = field(default_factory=list)
    pieces: dict[int, int] = field(default_factory=dict)  # offset → length: tensors may share a piece

    @property
    def end(self) -> int:
        return max(offset + length for offset, length in self.pieces.items())

    @property
    def size(self) -> int | None:
        return self.path.stat().st_size if is_file(self.path) else None


def external(patient: Patient) -> Iterator[Finding]:
    """Files that are missing, too short, outside, or mostly unused."""
    files: dict[str, _File] = {}
    outside, odd, nowhere = [], [], 0
    for place, tensor in patient.each_tensor():
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        where = locate(patient.file, tensor)
        if where.problem == OUTSIDE:
            outside.append((place, plain(where.location)))
        elif where.problem:
            odd.append((place, where.problem))
        elif where.path is None:
            nowhere += 1
        else:
            file = files.setdefault(where.location, _File(where.path))
            length = where.length if where.length is not None else expected_bytes(tensor) or 0
            file.places.append(place)
            file.pieces[where.offset] = max(length, file.pieces.get(where.offset, 0))
            if file.size is not None and where.offset + length > file.size:
                file.beyond.append(place)
    if nowhere:
        text = f"{count(nowhere, 'tensor')} in other files. Give the model's path to have them examined."
        patient.not_checked.append(text)
    if outside:
        names = listed(dict.fromkeys(repr(name) for _, name in outside))
        text = f"It names {names}. The doctor does not open that, and ONNX Runtime refuses it."
        yield finding(ESCAPES, text, [p for p, _ in outside])
    if odd:
        yield finding(ENTRY, f"{count(len(odd), 'tensor')}; of the first: {odd[0][1]}.", [p for p, _ in odd])
    for name, file in files.items():
        yield from _of_file(plain(name), file)


def _of_file(name: str, file: _File) -> Iterator[Finding]:
    if file.size is None:
        text = f"{name!r} is not in the model's folder. It holds {count(len(file.places), 'tensor')}, and has at least {amount(file.end)}."
        yield finding(MISSING, text, file.places)
    elif known := _other_format(file):
        text = f"{name!r} has {amount(file.size)}, and looks like {known[0]}."
        yield finding(FOREIGN, text, file.places, known[1])
    elif file.beyond:
        text = f"{name!r} has {amount(file.size)} ({file.size:,}), and the model's weights in it reach to byte {file.end:,}."
        yield finding(SHORT, text, file.beyond)
    else:
        used = sum(file.pieces.values())
        if file.size - used > 2**20 and used < file.size // 2:
            text = f"{name!r} has {amount(file.size)}, and this model uses {amount(used)} of it."
            yield finding(STALE, text, Place("file", name))


def _other_format(file: _File) -> tuple[str, str] | None:
    try:
        with file.path.open("rb") as stream:
            return recognise_weights(stream.read(HEAD), too_short=bool(file.beyond))
    except OSError:
        return None


def sizes(patient: Patient) -> Iterator[Finding]:
    """Data that is longer or shorter than dtype and shape say: a damaged file, or a shape too large to be true."""
    wrong = []
    for place, tensor in patient.each_tensor():
        says = f"{dtype_name(tensor.data_type)}{list(tensor.dims)}"
        if any(d < 0 for d in tensor.dims):
            wrong.append((place, f"{says} has a negative dimension"))
            continue
        want = expected_bytes(tensor)
        have = _stored(patient, tensor)
        if want is not None and have is not None and have != want:
            wrong.append((place, f"{says} takes {amount(want)}, and {amount(have)} are stored"))
    if wrong:
        text = f"Of {plain(wrong[0][0].name)!r}: {wrong[0][1]}."
        yield finding(SIZE, text, [place for place, _ in wrong])


# dtype → how many values of a typed field make one element. Two- and four-bit types are packed into int32_data one byte each.
_TYPED: dict[int, tuple[str, int]] = {
    TensorProto.FLOAT: ("float_data", 1),
    TensorProto.COMPLEX64: ("float_data", 2),
    TensorProto.DOUBLE: ("double_data", 1),
    TensorProto.COMPLEX128: ("double_data", 2),
    TensorProto.INT64: ("int64_data", 1),
    TensorProto.UINT32: ("uint64_data", 1),
    TensorProto.UINT64: ("uint64_data", 1),
}


def _stored(patient: Patient, tensor: TensorProto) -> int | None:
    """Bytes that are stored, as they would lie in memory; None where that cannot be said without reading them."""
    if tensor.data_location == TensorProto.EXTERNAL:
        where = locate(patient.file, tensor)
        return None if where.problem else where.length
    piece = patient.pieces.get(tensor.raw_data)
    if piece is not None:
        return piece.length if piece.kind == "raw" else None
    if tensor.HasField("raw_data"):
        return len(tensor.raw_data)
    name, each = _TYPED.get(tensor.data_type, ("int32_data", 1))
    want = expected_bytes(tensor)
    if not want or tensor.data_type >= TensorProto.UINT4:
        return None if want else 0
    count = 1
    for d in tensor.dims:
        count *= d
    return len(getattr(tensor, name)) * want // count // each


CHECKS = (external, sizes)
