"""What a file is that is no ONNX model, by its first bytes. Nothing is unpacked, and no pickle is opened."""

from __future__ import annotations

import re

HEAD = 64 * 1024  # bytes that are looked at

_EXPORT = "Load it in PyTorch, and write an ONNX file with torch.onnx.export."
_TFLITE = "Convert it with the package tflite2onnx or tf2onnx."
# (where, bytes) → what it is, what to do
_MAGIC = (
    (0, b"version https://git-lfs", "a Git LFS pointer, which stands in place of the model", "Run  git lfs pull  to get the file itself."),
    (4, b"TFL3", "a TensorFlow Lite model", _TFLITE),
    (4, b"ORTM", "a model in ONNX Runtime's own format (.ort)", "Examine the .onnx file that it was made from."),
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
    (0, b"ptrt", "a TensorRT engine", "Examine the .onnx file that it was built from."),
    (0, b"ftrt", "a TensorRT engine", "Examine the .onnx file that it was built from."),
)  # fmt: skip


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
    return _text(head)


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
    (r"<.{0,500}<net\b", "an OpenVINO model (.xml)", "Examine the .onnx file that it was made from."),
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
            return what, cure
    return "a text file", "Give the path of the .onnx file."
