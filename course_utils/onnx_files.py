"""Reading an ONNX model that may be missing, damaged, or no model at all."""

from __future__ import annotations

import os
from pathlib import Path

import onnx

from .errors import CourseError

Model = onnx.ModelProto | str | os.PathLike[str] | bytes

# What people hand in by mistake, by the first bytes of the file.
_OTHER_FORMATS = {
    b"PK": "a zip archive, perhaps a PyTorch checkpoint; export the model with torch.onnx.export first",
    b"\x80\x02": "a pickle, perhaps a PyTorch checkpoint; export the model with torch.onnx.export first",
    b"\x80\x04": "a pickle; export the model with torch.onnx.export first",
    b"<": "a web page or XML, so the download went wrong; download the file again",
    b"version https://git-lfs": "a Git LFS pointer; run  git lfs pull  to get the file itself",
    b"\x89HDF": "an HDF5 file, perhaps from Keras; convert it with tf2onnx first",
    b"\x1f\x8b": "a gzip archive; unpack it first",
}


def as_model(model: Model, *, external_data: bool = True) -> onnx.ModelProto:
    """A ModelProto from a ModelProto (returned as it is), from bytes, or from the path of an `.onnx` file.

    external_data: load weights that lie in files beside the model.
    Raises CourseError, in one sentence, for a missing, empty, truncated or foreign file, or for another type.
    """
    if isinstance(model, onnx.ModelProto):
        return model
    if isinstance(model, bytes):
        return parse(model, "these bytes")
    if not isinstance(model, str | os.PathLike):
        raise CourseError(
            f"A model was expected: the path of an .onnx file, its bytes, or an onnx.ModelProto. "
            f"This is a {type(model).__name__}."
        )
    path = Path(model)
    try:
        if path.is_dir():
            raise CourseError(f"{str(path)!r} is a folder: give the path of the .onnx file in it.")
        if not path.exists():
            raise CourseError(_missing(path))
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name no file can have
        reason = getattr(error, "strerror", None) or error
        raise CourseError(f"The file {str(path)!r} cannot be read ({reason}): check its name and rights.") from None
    proto = parse(data, repr(str(path)))
    if external_data:
        _load_external(proto, path)
    return proto


def _missing(path: Path) -> str:
    near = sorted(p.name for p in path.parent.glob("*.onnx")) if path.parent.is_dir() else []
    there = f"in its folder there are: {', '.join(near)}" if near else "there is no .onnx file in its folder"
    return f"There is no file {str(path)!r}; {there}. Run the cell that writes it first."


def parse(data: bytes, name: str) -> onnx.ModelProto:
    """A ModelProto from bytes. name: what messages call them. Raises CourseError, in one sentence, when they hold none."""
    if not data:
        raise CourseError(f"{name} is empty, so writing it was cut short: export the model again.")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
        # The opsets stand behind the graph: a file cut between the two would parse, and fail much later.
        whole = proto.ir_version > 0 and proto.HasField("graph") and (proto.ir_version < 3 or proto.opset_import)
    except Exception:  # protobuf's DecodeError has no stable home across its implementations
        whole = False
    if whole:
        return proto
    for start, what in _OTHER_FORMATS.items():
        if data.startswith(start):
            raise CourseError(f"{name} is not an ONNX model: it looks like {what}.")
    raise CourseError(
        f"{name} ({len(data):,} bytes) is not a whole ONNX model: it was cut short while being written or copied, or "
        f"is another kind of file. Export or copy it again."
    )


def _load_external(proto: onnx.ModelProto, path: Path) -> None:
    try:
        onnx.load_external_data_for_model(proto, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        names = sorted({e.value for t in proto.graph.initializer for e in t.external_data if e.key == "location"})
        raise CourseError(
            f"{str(path)!r} keeps its weights in {', '.join(map(repr, names))}, and reading that failed "
            f"({str(error).splitlines()[0]}). Copy the weight file into the same folder as the model."
        ) from None
