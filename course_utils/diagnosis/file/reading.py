"""Reading the file: either a patient to examine, or the one finding that says why it is no model."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import onnx

from ...errors import CourseError
from ...file_formats import Fault, explain
from ...onnx_files import LIMIT, missing
from ..patient import Patient
from ..vocabulary import ERROR, Finding, Place, amount, code, finding
from .skeleton import DEEPEST, MalformedError, TooComplexError, depth, read_skeleton

EMPTY = code("empty-file", ERROR, "01", "The file is empty", "Export, download or copy the model again.")
FOREIGN = code("not-onnx", ERROR, "01", "This is another kind of file", "Give the path of an ONNX model.")
TRUNCATED = code(
    "truncated",
    ERROR,
    "01",
    "The end of the file is missing",
    "Export, download or copy it again, and compare the sizes.",
)
EXTRA = code(
    "extra-bytes",
    ERROR,
    "01",
    "The file holds more than the model",
    "Keep the bytes of the model alone, or download or copy the file again.",
)
DAMAGED = code("damaged", ERROR, "01", "The file cannot be read as a model", "Export, download or copy it again.")
TOO_LARGE = code(
    "over-2gb",
    ERROR,
    "01_large_files",
    "The file is larger than protobuf allows",
    "Save it with onnx.save(model, path, save_as_external_data=True), or export with external_data=True.",
)
TOO_COMPLEX = code(
    "too-complex",
    ERROR,
    "01",
    "The file is built in a way that no exporter writes",
    "Do not open it with other programs unless you know where it comes from.",
)


def read(source: str | os.PathLike[str] | bytes | onnx.ModelProto) -> Patient | Finding:
    """What is to be examined, or why it is no model. Raises CourseError where there is nothing to examine."""
    if isinstance(source, onnx.ModelProto):
        return Patient(source, size=source.ByteSize())
    if isinstance(source, bytes):
        return _from(memoryview(source), None, Place("file", "these bytes"))
    if not isinstance(source, str | os.PathLike):
        raise CourseError(
            f"A model was expected: the path of an .onnx file, its bytes, or an onnx.ModelProto. "
            f"This is a {type(source).__name__}."
        )
    path = Path(source)
    try:
        if path.is_dir():
            inside = sorted(p.name for p in path.glob("*.onnx"))[:5]
            there = f"In it there are: {', '.join(inside)}." if inside else "There is no .onnx file in it."
            raise CourseError(f"{str(path)!r} is a folder: give the path of an .onnx file. {there}")
        if not path.exists():
            raise CourseError(f"{missing(path)} Check its name.")
        if not path.is_file():
            raise CourseError(f"{str(path)!r} is no ordinary file: give the path of an .onnx file.")
        if path.stat().st_size == 0:
            return finding(EMPTY, "It has 0 bytes: nothing was written, or a copy broke off.", Place("file", path.name))
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            view = memoryview(mapped)
            try:
                return _from(view, path, Place("file", path.name))
            finally:
                view.release()
    except (OSError, ValueError) as error:  # ValueError: a name no file can have
        reason = getattr(error, "strerror", None) or error
        raise CourseError(f"The file {str(path)!r} cannot be read ({reason}): check its name and rights.") from None


def _from(view: memoryview, path: Path | None, place: Place) -> Patient | Finding:
    size, model = len(view), onnx.ModelProto()
    if size == 0:
        return finding(EMPTY, "There are 0 bytes.", place)
    try:
        skeleton = read_skeleton(view)
        # Bytes that are no file are parsed whole: there is nowhere else to read the weights from later.
        model.ParseFromString(skeleton.data if path is not None else bytes(view))
    except TooComplexError as error:
        return finding(TOO_COMPLEX, f"It has {error}.", place)
    except Exception as error:  # MalformedError, or protobuf's DecodeError, which has no stable home
        return _unreadable(view, place, error)
    if not model.HasField("graph") or not (model.ir_version or model.graph.node or model.opset_import):
        return _headless(view, model, place)
    if size > LIMIT:
        text = f"It has {amount(size)} in one file. Protobuf takes at most {amount(LIMIT)}, so no runtime reads it."
        return finding(TOO_LARGE, text, place)
    return Patient(model, path, size, skeleton.pieces, skeleton.cut_lists)


def _headless(view: memoryview, model: onnx.ModelProto, place: Place) -> Finding:
    """It reads like a protobuf message, as some short texts do, and has no graph."""
    fault = explain(view)
    if fault.kind in _FAULTS:
        return _of_fault(fault, len(view), place)
    if model.ir_version or model.opset_import:
        return finding(TRUNCATED, f"It has {amount(len(view))} and a header, and no graph behind it.", place)
    return finding(DAMAGED, f"Its {amount(len(view))} hold no graph, so it is no model.", place)


_FAULTS = {"foreign": FOREIGN, "truncated": TRUNCATED, "extra": EXTRA}


def _of_fault(fault: Fault, size: int, place: Place) -> Finding:
    if fault.kind == "foreign":
        return finding(FOREIGN, f"It has {amount(size)}, and looks like {fault.what}.", place, fault.cure)
    text = f"It has {size:,} bytes; {fault.what}."
    return finding(_FAULTS[fault.kind], text, place, fault.cure if fault.kind == "extra" else "")


def _unreadable(view: memoryview, place: Place, error: Exception) -> Finding:
    size, fault = len(view), explain(view)
    if fault.kind in _FAULTS:
        return _of_fault(fault, size, place)
    try:
        levels = 0 if isinstance(error, MalformedError) else depth(view)
    except MalformedError:
        levels = 0
    if levels > DEEPEST - 8:
        text = (
            f"Graphs stand within graphs, more than {levels // 3} deep. Protobuf stops at {DEEPEST} levels of messages."
        )
        return finding(TOO_COMPLEX, text, place)
    reason = f": {error}" if isinstance(error, MalformedError) else ""
    return finding(DAMAGED, f"Its {amount(size)} are not in the format of ONNX{reason}.", place)
