"""A model without its weights: the file is read field by field, and long tensor data is stepped over.

The wire format (https://protobuf.dev/programming-guides/encoding/) is a sequence of fields, each a number, a type, and for
everything long its length. So data can be left out without being read: 2 GB of weights cost as little as 2 MB. Where
it stood is remembered, so that `weights` can look at it later, piece by piece.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

KEPT = 16 * 1024  # bytes: shorter tensor data stays in the skeleton, for it may be a shape, a scale, a constant
LARGEST_SKELETON = 192 * 2**20
MOST_FIELDS = 1_000_000
DEEPEST = 100  # protobuf's own limit of messages within messages

# Which fields of which message lead to tensors, by their numbers in onnx.proto.
_INNER = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Graph": {1: "Node", 5: "Tensor", 11: "Value", 12: "Value", 13: "Value", 14: "Parts", 15: "Sparse"},
    "Function": {7: "Node", 11: "Attribute", 12: "Value"},
    "Training": {1: "Graph", 2: "Graph"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
    # These hold no tensors. They are gone through because millions of empty parts could hide in them.
    "Value": {2: "Type"},
    "Type": {1: "TypeOfTensor", 4: "TypeOfMany", 5: "TypeOfMany", 8: "TypeOfTensor", 9: "TypeOfMany"},
    "TypeOfMany": {1: "Type", 2: "Type"},
    "TypeOfTensor": {2: "Parts"},
    "Parts": {},
}
# Lists of numbers in an attribute: floats (tag 0x3D, four bytes) or ints (tag 0x40, a number of one to ten bytes).
_LISTS = re.compile(rb"(?:\x3d[\x00-\xff]{4})++|(?:\x40[\x80-\xff]{0,9}+[\x00-\x7f])++")
_STRING = 0x4A  # the tag of a text in a list
_LONG_LIST = 2**20  # bytes; trees of ai.onnx.ml keep their numbers so, and nothing here looks at these
_ALL_LISTS = 8 * 2**20  # bytes of shorter lists that are kept: in memory they can be twenty times as large
_MANY = 16  # so many texts in a row are a list
_RAW = 9
_TEXT = 4  # of an attribute: it may be code that was compiled for a device, as large as the weights
_LONG_TEXT = 2**20
_DATA = {_RAW: "raw", 4: "raw", 10: "raw", 5: "varint", 7: "varint", 11: "varint"}  # 4, 10: packed floats and doubles


class MalformedError(Exception):
    """Not in the wire format. end: where the outermost message says that it ends; None when no length is to blame."""

    def __init__(self, what: str, end: int | None = None) -> None:
        super().__init__(what)
        self.end = end


class TooComplexError(Exception):
    """More parts than are read here."""


@dataclass(frozen=True)
class Piece:
    """Where the data of a tensor stands in the file. kind: "raw" bytes of the dtype; "varint" or "pieces": not readable as such."""

    offset: int
    length: int
    kind: str


@dataclass
class Skeleton:
    """data: the model without long tensor data, itself a valid file. pieces: token in place of the data → where it is."""

    data: bytes = b""
    pieces: dict[bytes, Piece] = field(default_factory=dict)
    fields: int = 0
    cut_lists: bool = False  # long lists in attributes were left out
    listed: int = 0  # bytes of lists in attributes
    size: int = 0
    secret: bytes = field(default_factory=lambda: os.urandom(12))  # so that no file can contain a token


def read_skeleton(view: memoryview) -> Skeleton:
    """The skeleton of the model in `view`. Raises MalformedError or TooComplexError."""
    skeleton = Skeleton()
    skeleton.data = b"".join(_message(view, 0, len(view), "Model", skeleton))
    return skeleton


def varint(view: memoryview, at: int, end: int) -> tuple[int, int]:
    """A number in 7-bit groups, and the place behind it."""
    result = shift = 0
    while at < end:
        byte = view[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
        shift += 7
        if shift > 63:
            raise MalformedError(f"a number at byte {at:,} has no end")
    raise MalformedError("the file ends within a number", end + 1)


def fields(view: memoryview, start: int, end: int, *, lists: bool = False) -> Iterator[tuple[int, int, int, int, int]]:
    """(number, wire type, start of the field, start of its content, its end) for each field of a message.

    lists: a list of numbers or of texts comes as one field of wire type -1.
    """
    at = start
    while at < end:
        begin = at
        if lists and (stop := _list_end(view, at, end)):
            yield view[at] >> 3, -1, at, at, stop
            at = stop
            continue
        tag, at = varint(view, at, end)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise MalformedError(f"byte {begin:,} begins no field")
        content = at
        if kind == 0:
            _, at = varint(view, at, end)
        elif kind == 1:
            at += 8
        elif kind == 2:
            length, content = varint(view, at, end)
            at = content + length
        elif kind == 5:
            at += 4
        else:
            raise MalformedError(f"byte {begin:,} begins no field")
        if at > end:
            raise MalformedError(f"a part at byte {begin:,} says that it ends at byte {at:,}", at)
        yield number, kind, begin, content, at


def _list_end(view: memoryview, at: int, end: int) -> int:
    """Where the list that begins here ends; 0 where none begins."""
    if view[at] in (0x3D, 0x40):
        run = _LISTS.match(view, at, end)
        return run.end() if run is not None else 0
    begin, count = at, 0
    while at + 1 < end and view[at] == _STRING and view[at + 1] < 0x80:  # longer texts are fields like any other
        stop = at + 2 + view[at + 1]
        if stop > end:
            break
        at, count = stop, count + 1
    return at if at > begin and count >= _MANY else 0


def _message(view: memoryview, start: int, end: int, what: str, out: Skeleton) -> list[bytes]:
    """The message from `start` to `end`, as pieces to join: copied where it is short, else gone through field by field."""
    if end - start <= KEPT:
        return [_copy(view, start, end, out)]
    inner, parts, copied = _INNER[what], [], start  # copied: everything before is in `parts`
    token = None
    for number, kind, begin, content, stop in fields(view, start, end, lists=what == "Attribute"):
        out.fields += 1
        if out.fields > MOST_FIELDS:
            raise TooComplexError(f"more than {MOST_FIELDS:,} parts")
        if kind == -1:
            out.listed += stop - begin
            if stop - begin > _LONG_LIST or out.listed > _ALL_LISTS:
                parts.append(_copy(view, copied, begin, out))
                copied, out.cut_lists = stop, True
        if kind != 2 or stop - content <= KEPT:
            continue
        if number in inner:
            rewritten = _message(view, content, stop, inner[number], out)
            parts += [_copy(view, copied, begin, out), _head(number, sum(map(len, rewritten))), *rewritten]
            copied = stop
        elif what == "Tensor" and number in _DATA:
            parts.append(_copy(view, copied, begin, out))
            copied = stop
            if token is None:
                token = out.secret + len(out.pieces).to_bytes(4, "little")
                parts += [_head(_RAW, len(token)), token]
                out.pieces[token] = Piece(content, stop - content, _DATA[number])
            else:  # protobuf joins several pieces of one field; nobody writes that
                out.pieces[token] = Piece(content, stop - content, "pieces")
        elif what == "Attribute" and number == _TEXT and stop - content > _LONG_TEXT:
            parts.append(_copy(view, copied, begin, out))
            copied = stop
            code = out.secret + len(out.pieces).to_bytes(4, "little")
            parts += [_head(_TEXT, len(code)), code]
            out.pieces[code] = Piece(content, stop - content, "raw")
    parts.append(_copy(view, copied, end, out))
    return parts


def _copy(view: memoryview, start: int, end: int, out: Skeleton) -> bytes:
    out.size += end - start
    if out.size > LARGEST_SKELETON:
        raise TooComplexError(f"more than {LARGEST_SKELETON // 2**20} MiB besides the weights")
    return bytes(view[start:end])


def _head(number: int, length: int) -> bytes:
    """Tag and length of a field of wire type 2."""
    return _encoded(number << 3 | 2) + _encoded(length)


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def depth(view: memoryview) -> int:
    """How many messages stand within each other on the way from the model to graphs in graphs. Stops when it is too deep."""
    deepest, waiting, seen = 0, [("Model", 0, len(view), 1)], 0
    while waiting:
        what, start, end, level = waiting.pop()
        deepest = max(deepest, level)
        if deepest > 2 * DEEPEST:
            break
        for number, kind, _, content, stop in fields(view, start, end):
            seen += 1
            if seen > MOST_FIELDS:
                return deepest
            if kind == 2 and number in _INNER[what]:
                waiting.append((_INNER[what][number], content, stop, level + 1))
    return deepest
