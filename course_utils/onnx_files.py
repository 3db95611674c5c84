"""Reading an ONNX model that may be missing, damaged, or no model at all."""

from __future__ import annotations

import difflib
import mmap
import os
from pathlib import Path

import onnx

from .errors import CourseError
from .file_formats import HEAD, explain, recognise_weights

Model = onnx.ModelProto | str | os.PathLike[str] | bytes
LIMIT = 2**31 - 1  # bytes that protobuf takes in one message
COMPILED = "EPContext"  # the operator, of com.microsoft, that stands for code compiled for one execution provider
_NAMED = 5  # files that are named where one is missing


def is_compiled(node: onnx.NodeProto) -> bool:
    """Whether a node is code that was compiled for one execution provider."""
    return node.op_type == COMPILED and node.domain == "com.microsoft"


def as_model(model: Model, *, external_data: bool = True) -> onnx.ModelProto:
    """A ModelProto from a ModelProto (returned as it is), from bytes, or from the path of an `.onnx` file.

    external_data: load weights that lie in files beside the model.
    Raises CourseError, in one sentence, for a missing, empty, truncated or foreign file, or for another type.
    """
    if isinstance(model, onnx.ModelProto):
        return model
    if isinstance(model, bytes):
        return parse(model, "these bytes")
    path = existing(model)
    try:
        data = path.read_bytes() if path.stat().st_size <= LIMIT else b""
    except OSError as error:
        raise CourseError(_unreadable(path, error)) from None
    if not data:
        _refuse(path)
    proto = parse(data, repr(str(path)))
    del data  # it is as large as the model
    if external_data:
        _load_external(proto, path)
    return proto


def existing(model: Model) -> Path:
    """The path of an ordinary file. Raises CourseError, in one sentence, where there is none, or for another type."""
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
            raise CourseError(f"{missing(path)} Run the cell that writes it first.")
        if not path.is_file():
            raise CourseError(f"{str(path)!r} is no ordinary file: give the path of an .onnx file.")
    except (OSError, ValueError) as error:  # ValueError: a name no file can have
        raise CourseError(_unreadable(path, error)) from None
    return path


def _unreadable(path: Path, error: Exception) -> str:
    reason = getattr(error, "strerror", None) or error
    return f"The file {str(path)!r} cannot be read ({reason}): check its name and rights."


def missing(path: Path) -> str:
    """The sentence for a file that is not there, with the names that are nearest to it."""
    there = sorted(p.name for p in path.parent.glob("*.onnx")) if path.parent.is_dir() else []
    if not there:
        return f"There is no file {str(path)!r}; there is no .onnx file in its folder."
    if len(there) <= _NAMED:
        return f"There is no file {str(path)!r}; in its folder there are: {', '.join(there)}."
    near = difflib.get_close_matches(path.name, there, n=_NAMED, cutoff=0)
    return (
        f"There is no file {str(path)!r}; of the {len(there)} in its folder the nearest names are: {', '.join(near)}."
    )


def check_file(path: Path) -> None:
    """Raise CourseError where a file is no whole model, or weights that it keeps in other files are not there.

    For a file that ONNX Runtime refused: it says why in a sentence, where the reason lies in the files.
    """
    if not 0 < path.stat().st_size <= LIMIT:
        _refuse(path)
    try:
        proto = parse(path.read_bytes(), repr(str(path)))
    except OSError as error:
        raise CourseError(_unreadable(path, error)) from None
    for tensor in proto.graph.initializer:
        location = next((e.value for e in tensor.external_data if e.key == "location"), "")
        if tensor.data_location == onnx.TensorProto.EXTERNAL and location:
            problem = _external_problem(path, location)
            if problem:
                raise CourseError(_no_weights(path, [location], problem))


def _refuse(path: Path) -> None:
    """Raise the CourseError for a file that cannot be parsed at once: it is empty, or too large for protobuf."""
    if not path.stat().st_size:
        raise CourseError(f"{str(path)!r} is empty, so writing it was cut short: export the model again.")
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        fault = explain(mapped[: 2 * HEAD])
    if fault.kind == "foreign":
        raise CourseError(f"{str(path)!r} is not an ONNX model: it looks like {fault.what}. {fault.cure}")
    raise CourseError(
        f"{str(path)!r} has {path.stat().st_size / 1e9:.1f} GB in one file, and protobuf takes at most {LIMIT / 1e9:.1f} GB: "
        f"export the model with external_data=True, or save it with onnx.save(…, save_as_external_data=True)."
    )


def parse(data: bytes, name: str) -> onnx.ModelProto:
    """A ModelProto from bytes. name: what messages call them. Raises CourseError, in one sentence, when they hold none."""
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
        # The opsets stand behind the graph: a file cut between the two would parse, and fail much later.
        whole = proto.ir_version > 0 and proto.HasField("graph") and (proto.ir_version < 3 or proto.opset_import)
    except Exception:  # protobuf's DecodeError has no stable home across its implementations
        whole = False
    if whole:
        return proto
    fault, sized = explain(data), f"{name} ({len(data):,} bytes)"
    raise CourseError(
        {
            "empty": f"{name} is empty, so writing it was cut short: export the model again.",
            "foreign": f"{name} is not an ONNX model: it looks like {fault.what}. {fault.cure}",
            "extra": f"{sized} is not only an ONNX model: {fault.what}. {fault.cure}",
            "truncated": f"{sized} is not a whole ONNX model: it was cut short while being written or copied, for {fault.what}. "
            f"{fault.cure}",
            "damaged": f"{sized} is not a whole ONNX model: it was damaged while being written or copied, or is another kind "
            f"of file. {fault.cure}",
        }[fault.kind]
    )


def _load_external(proto: onnx.ModelProto, path: Path) -> None:
    try:
        onnx.load_external_data_for_model(proto, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        names = sorted({e.value for t in proto.graph.initializer for e in t.external_data if e.key == "location"})
        problem = next(filter(None, (_external_problem(path, name) for name in names)), str(error).splitlines()[0])
        raise CourseError(_no_weights(path, names, problem)) from None


def _external_problem(model: Path, name: str) -> str:
    """What is wrong with a file of weights: it is not there, or stands for another one. Empty where nothing is seen, and
    for a file outside the model's folder, which is never opened."""
    try:
        file = (model.parent / name).resolve()
        if not any(file.is_relative_to(folder) for folder in (model.parent.resolve(), model.resolve().parent)):
            return ""
        with file.open("rb") as stream:
            known = recognise_weights(stream.read(HEAD), too_short=False)
    except (OSError, RuntimeError, ValueError):  # a circle of links, a name that no file can have
        return "there is no such file"
    return f"it is {known[0]}: {known[1][0].lower()}{known[1][1:].rstrip('.')}" if known else ""


def _no_weights(path: Path, names: list[str], problem: str) -> str:
    return (
        f"{str(path)!r} keeps its weights in {', '.join(map(repr, names))}, and reading that failed ({problem}). Copy the "
        f"weight file into the same folder as the model."
    )
