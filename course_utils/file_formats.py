"""What a file is that is no whole ONNX model. Nothing is unpacked, and no pickle is opened.

Other formats are told by their first bytes; those that are protobuf messages too, by the numbers of their fields, which
(https://protobuf.dev/programming-guides/encoding/) can be read without their definition.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import onnx

HEAD = 64 * 1024  # bytes that are looked at

_EXPORT = "Load it in PyTorch, and write an ONNX file with torch.onnx.export."
_TFLITE = "Convert it with the package tflite2onnx or tf2onnx."
_LFS = b"version https://git-lfs"
# (where, bytes) → what it is, what to do
_MAGIC = (
    (0, _LFS, "a Git LFS pointer, which stands in place of the file itself", "Run  git lfs pull  to get it."),
    (4, b"TFL3", "a TensorFlow Lite model", _TFLITE),
    (4, b"ORTM", "a model in ONNX Runtime's own format (.ort)", "Use the .onnx file that it was made from."),
    (0, b"GGUF", "a GGUF model, for llama.cpp", "Export the original model to ONNX."),
    (0, b"\x89HDF", "an HDF5 file, perhaps from Keras", "Convert it with tf2onnx."),
    (0, b"\x93NUMPY", "a NumPy array", "Give the path of the .onnx file."),
    (0, b"\x1f\x8b", "a gzip archive", "Unpack it first."),
    (0, b"\xfd7zXZ", "an xz archive", "Unpack it first."),
    (0, b"BZh", "a bzip2 archive", "Unpack it first."),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive", "Unpack it first."),
    (0, b"7z\xbc\xaf", "a 7z archive", "Unpack it first."),
    (0, b"Rar!", "a RAR archive", "Unpack it first."),
    (257, b"ustar", "a tar archive", "Unpack it first."),
    (0, b"%PDF", "a PDF document", "Give the path of the .onnx file."),
    (0, b"\x89PNG", "a picture", "Give the path of the .onnx file."),
    (0, b"\xff\xd8\xff", "a picture", "Give the path of the .onnx file."),
    (0, b"ptrt", "a TensorRT engine", "Use the .onnx file that it was built from."),
    (0, b"RKNN", "a model for Rockchip processors (.rknn)", "Use the .onnx file that it was made from."),
    (0, b"\x7fELF", "a compiled program or library", "Give the path of the .onnx file."),
    (0, b"MZ", "a compiled program or library", "Give the path of the .onnx file."),
    (0, b"\x78\x9c", "a file packed with zlib, perhaps by joblib", "Convert the model in it with skl2onnx."),
    (0, b"ftrt", "a TensorRT engine", "Use the .onnx file that it was built from."),
)  # fmt: skip


def recognise_weights(head: bytes, *, too_short: bool) -> tuple[str, str] | None:
    """The same for a file that should hold weights. Any bytes can be weights: unless there are too few of them, only what
    no weights begin with counts."""
    if head.startswith(_LFS) or (too_short and head.strip(b"\0")):
        return recognise(head)
    return None


def recognise(head: bytes) -> tuple[str, str] | None:
    """(what the file is, what to do), from its first 64 KiB; None where they say nothing."""
    for at, magic, what, cure in _MAGIC:
        if head[at : at + len(magic)] == magic:
            return what, cure
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _zip(head)
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a pickle, perhaps an old PyTorch checkpoint", _EXPORT
    if head[8:10] == b'{"' and 0 < int.from_bytes(head[:8], "little") < 2**40:
        return "a safetensors file, which holds weights and no graph", _EXPORT
    if head and not head.strip(b"\0"):
        return (
            "all zeros where the model should begin, as after a download that broke off",
            "Download or copy it again.",
        )
    return _text(head) or _protobuf(head)


def _zip(head: bytes) -> tuple[str, str]:
    """By the names in the archive's first entries; the entries themselves stay packed."""
    names = []
    for found in re.finditer(rb"PK\x03\x04.{22}(..)..", head, re.DOTALL):
        length = int.from_bytes(found[1], "little")
        names.append(head[found.end() : found.end() + length].decode("utf-8", "replace"))
    if any(name.endswith(("data.pkl", "constants.pkl", ".format_version", "byteorder")) for name in names):
        return "a zip archive from PyTorch (torch.save, torch.jit.save or torch.export.save)", _EXPORT
    if any(".npy" in name for name in names):
        return "a NumPy archive (.npz)", "Give the path of the .onnx file."
    if any("model.weights.h5" in name or name.startswith("config.json") for name in names):
        return "a zip archive, perhaps a Keras model", "Convert it with tf2onnx."
    return "a zip archive", "Unpack it, and give the path of the .onnx file in it."


# How a text begins, or what stands near its beginning → what it is, what to do.
_TEXTS = (
    (r"<!doctype html|<html|[^<]*<!doctype html", "a web page, so the download went wrong", "Download the file itself, not its page."),
    (r"<[^>]{0,200}(ir_version|opset_import)", "a model in ONNX's text form", "Read it with onnx.parser.parse_model, and save it with onnx.save."),
    (r"<.{0,500}<net\b", "an OpenVINO model (.xml)", "Use the .onnx file that it was made from."),
    (r"<.{0,1000}<html", "a web page, so the download went wrong", "Download the file itself, not its page."),
    (r"<", "an XML file", "Give the path of the .onnx file."),
    (r"\{.{0,500}irversion", "a model written as JSON", "Read it with google.protobuf.json_format, and save it with onnx.save."),
    (r"[{\[]", "a JSON file, perhaps a server's error message", "Download or export the model again."),
    (r"ir_version", "a model in protobuf's text form", "Read it with onnx.load_model(path, format='textproto'), and save it with onnx.save."),
)  # fmt: skip


def _text(head: bytes) -> tuple[str, str] | None:
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    try:
        # At the cut a letter may be torn apart; elsewhere it must be proper text.
        start = head[:2000].decode(encoding, "strict" if len(head) < 2000 else "ignore").lstrip("\ufeff \t\r\n")
    except UnicodeDecodeError:
        return None
    if not start or sum(not c.isprintable() and c not in "\r\n\t\f" for c in start) > len(start) // 50:
        return None
    for pattern, what, cure in _TEXTS:
        if re.match(pattern, start, re.IGNORECASE | re.DOTALL):
            return what + (_quote(start) if "ML file" in what or "JSON file" in what else ""), cure
    return f"a text file{_quote(start)}", "Download or export the model again, or give the path of the .onnx file."


def _quote(text: str) -> str:
    """The first line, which often says what went wrong: `Entry not found`. Safe to print."""
    line = "".join(c if c.isprintable() else " " for c in text.splitlines()[0]).strip()
    return f" that begins with “{line[:_LONGEST_QUOTE]}{'…' * (len(line) > _LONGEST_QUOTE)}”"


_LONGEST_QUOTE = 80
_VARINT, _BYTES = 0, 2  # wire types
_FIRST_COREML = 200  # its kinds of models have the fields from this number on; ONNX ends below
_IN_A_TENSOR = {field.number for field in onnx.TensorProto.DESCRIPTOR.fields}
_TF2ONNX = "Convert it with tf2onnx."


def _protobuf(head: bytes) -> tuple[str, str] | None:
    """Formats that are protobuf messages, as ONNX is: by which fields stand at the top."""
    fields, _ = _fields(memoryview(head))
    if not fields or fields[0].number != 1:
        return None
    return _after_a_number(head, fields) if fields[0].kind == _VARINT else _after_a_part(head, fields)


def _after_a_number(head: bytes, fields: list[_Field]) -> tuple[str, str] | None:
    """Messages that begin with a number in field 1, which in ONNX is ir_version."""
    kinds = {(f.number, f.kind) for f in fields}
    second = fields[1] if len(fields) > 1 else None
    if any(number >= _FIRST_COREML and kind == _BYTES for number, kind in kinds):
        return "a Core ML model (.mlmodel)", "Use the .onnx file that it was made from, or export the original model."
    if second and (second.number, second.kind) == (2, _BYTES) and not _is_text(head[second.content : second.end]):
        return "a TensorFlow SavedModel (saved_model.pb)", _TF2ONNX
    if (2, _VARINT) in kinds and {number for number, _ in kinds} <= _IN_A_TENSOR:
        return "a single tensor (onnx.TensorProto)", "Give the path of the .onnx file that it belongs to."
    return None


def _after_a_part(head: bytes, fields: list[_Field]) -> tuple[str, str] | None:
    """Messages that begin with another message or a text in field 1."""
    inner = head[fields[0].content : fields[0].end][:4096]
    parts = {f.number: inner[f.content : f.end] for f in reversed(_fields(memoryview(inner))[0]) if f.kind == _BYTES}
    if inner[:1] == b"\x08":
        return "a PaddlePaddle model", "Convert it with paddle2onnx."
    if re.fullmatch(rb"[A-Z_]\w*", parts.get(2, b"")) and 1 in parts:
        return "a TensorFlow graph (.pb)", _TF2ONNX
    if _is_text(inner) and any((f.number, f.kind) in ((2, _BYTES), (100, _BYTES)) for f in fields):
        return "a Caffe model", "Convert the original model to ONNX."
    return None


def _is_text(data: bytes) -> bool:
    for cut in range(4):  # a letter may be torn apart at the end
        try:
            text = data[: len(data) - cut].decode()
        except UnicodeDecodeError:
            continue
        return all(c.isprintable() or c in "\r\n\t" for c in text)
    return False


@dataclass(frozen=True)
class _Field:
    """One field of a message: where it begins, where its content begins, and where it says that it ends."""

    number: int
    kind: int
    start: int
    content: int
    end: int


def _fields(view: memoryview) -> tuple[list[_Field], int]:
    """The fields at the top of a message, the last one perhaps cut; and where what is no field begins (or the end)."""
    at = 0
    found: list[_Field] = []
    while at < len(view) and len(found) < 10_000:
        tag, content = _varint(view, at)
        if tag is None or tag >> 3 == 0:
            # A tag without an end is one that was cut off; a field of number 0 there is not.
            return found, at
        kind, size = tag & 7, {1: 8, 5: 4}.get(tag & 7, 0)
        if kind in (_VARINT, _BYTES):
            value, content_or_end = _varint(view, content)
            if value is None:
                end = len(view) + 1
            elif kind == _VARINT:
                end = content_or_end
            else:
                content, end = content_or_end, content_or_end + value
        elif size:
            end = content + size
        else:
            return found, at
        found.append(_Field(tag >> 3, kind, at, content, end))
        at = end
    return found, min(at, len(view))


def _varint(view: memoryview, at: int) -> tuple[int | None, int]:
    """A number in groups of seven bits, and the place behind it; None where the view ends within it."""
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(view):
            return None, at
        value |= (view[at] & 0x7F) << shift
        at += 1
        if view[at - 1] < 0x80:
            return value, at
    return None, at


@dataclass(frozen=True)
class Fault:
    """Why something is no whole model. kind: empty, foreign, truncated, extra or damaged.

    what: for "foreign" what it is, else what was seen, as a part of a sentence. cure: what to do.
    """

    kind: str
    what: str
    cure: str


_AGAIN = "Export, download or copy it again."
_ONNX = {
    field.number: _BYTES if field.type in (field.TYPE_STRING, field.TYPE_MESSAGE) else _VARINT
    for field in onnx.ModelProto.DESCRIPTOR.fields
}
_IR, _GRAPH, _OPSET = (
    onnx.ModelProto.DESCRIPTOR.fields_by_name[n].number for n in ("ir_version", "graph", "opset_import")
)
_MOST_IN_FRONT = 16  # bytes before the model that are looked behind


def explain(data: bytes | memoryview) -> Fault:
    """Why these bytes, which were not read as a model, are none; only what stands at the top is looked at."""
    view = memoryview(data)
    known = recognise(bytes(view[:HEAD])) if view else None
    if known:
        return Fault("foreign", *known)
    whole, end, cut = _extent(view)
    fault = Fault("damaged", "it is not in the format of ONNX", _AGAIN)
    if not view:
        fault = Fault("empty", "it has 0 bytes", _AGAIN)
    elif cut > len(view):
        fault = Fault("truncated", f"a part of it says that it ends at byte {cut:,}", _AGAIN)
    elif cut:
        fault = Fault("truncated", "there is a header, and no graph with its opsets behind it", _AGAIN)
    elif whole and end < len(view):
        cure = f"Keep its first {end:,} bytes alone, or download or copy it again as a binary file."
        fault = Fault("extra", f"a model ends at byte {end:,}, and behind it {_shown(view[end:])}", cure)
    elif front := _in_front(view):
        cure = f"Leave out its first {_bytes(front)}, or download or copy it again as a binary file."
        fault = Fault("extra", f"before the model there {_shown(view[:front])}", cure)
    return fault


def _in_front(view: memoryview) -> int:
    """How many bytes stand before a whole model, such as the mark of a text's encoding; 0 for none."""
    starts = (n for n in range(1, min(_MOST_IN_FRONT, len(view))) if view[n] == _IR << 3)
    return next((n for n in starts if _extent(view[n:])[:2] == (True, len(view) - n)), 0)


def _bytes(count: int) -> str:
    return f"{count:,} byte{'s' * (count > 1)}"


def _shown(view: memoryview) -> str:
    return f"stand{'s' * (len(view) == 1)} {_bytes(len(view))}: {bytes(view[:8])!r}{' …' * (len(view) > 8)}"


def _extent(view: memoryview) -> tuple[bool, int, int]:
    """Whether a whole model stands at the beginning; where it ends; and, where a part of a model is cut off, the byte at
    which it says that it ends (or the end of the view, where the cut is between two parts)."""
    fields, rest = _fields(view)
    numbers: set[int] = set()
    end = last = ir = 0
    for f in fields:
        header = f.number < _GRAPH and f.number != _IR and _ONNX.get(f.number) == _BYTES
        fits = _ONNX.get(f.number) == f.kind and not (
            header and not _is_text(bytes(view[f.content : min(f.end, f.content + 64)]))
        )
        whole = _GRAPH in numbers and (_OPSET in numbers or ir < 3)
        if not fits or (whole and f.number < last) or (whole and f.end > len(view) and _is_prose(view[f.start :])):
            return whole, end, 0  # behind a whole model stands something else; or it is none at all
        if f.end > len(view):
            return whole, end, f.end
        if f.number == _IR:
            ir = view[f.content] & 0x7F
        numbers.add(f.number)
        end, last = f.end, f.number
    whole = _GRAPH in numbers and (_OPSET in numbers or ir < 3)
    cut_between = not whole and rest >= len(view) and bool(numbers)
    return whole, end, len(view) if cut_between else 0


def _is_prose(view: memoryview) -> bool:
    """Whether it is readable text, such as a line of a web page: the fields of a model have control characters in them."""
    return len(view) > 3 and _is_text(bytes(view[:200]))
