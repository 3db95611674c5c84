"""Submissions that mean harm, or were damaged on the way: for each kind a maker and what its result must say."""

from __future__ import annotations

import io
import json
import os
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from submissions import listed, packed, put, right, submission

from course_utils.exercises import task

Writer = Callable[[Path, str], None]  # gets the path, and the student's id
ID, LIST = "2.4", "answers.json"


def good(who: str) -> dict[str, bytes]:
    """The entries of a right answer."""
    answers = {ID: right(ID, who)}
    return {task(ID).file: answers[ID], LIST: json.dumps(listed(who, answers)).encode()}


def bytes_of(make: Callable[[str], bytes]) -> Writer:
    return lambda path, who: path.write_bytes(make(who))


def starts(data: bytes) -> Writer:
    return bytes_of(lambda who: data + bytes(100))


def cut(part: float) -> Writer:
    return bytes_of(lambda who: (data := packed(good(who)))[: int(len(data) * part)])


def flipped(part: float) -> Writer:
    """One byte changed, somewhere."""

    def make(who: str) -> bytes:
        data = bytearray(packed(good(who)))
        data[int(len(data) * part)] ^= 0xFF
        return bytes(data)

    return bytes_of(make)


def with_entry(
    name: str, data: bytes = b"x", mode: int = 0, change: Callable[[zipfile.ZipInfo], None] | None = None
) -> Writer:
    def make(who: str) -> bytes:
        stream = io.BytesIO(packed(good(who)))
        with zipfile.ZipFile(stream, "a") as archive:
            info = zipfile.ZipInfo(name.replace("\0", "?"))
            info.external_attr = mode << 16
            if change:
                change(info)
            archive.writestr(info, data)
        return stream.getvalue().replace(name.replace("\0", "?").encode(), name.encode())

    return bytes_of(make)


def packed_by(method: int) -> Writer:
    def make(who: str) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", method) as archive:
            for name, data in good(who).items():
                archive.writestr(name, data)
        return stream.getvalue()

    return bytes_of(make)


def directory(change: Callable[[bytearray, int], None]) -> Writer:
    """The list at the end of the zip changed: gets the zip and where each entry of the list begins."""

    def make(who: str) -> bytes:
        data = bytearray(packed(good(who)))
        at = -1
        while (at := data.find(b"PK\1\2", at + 1)) >= 0:
            change(data, at)
        return bytes(data)

    return bytes_of(make)


def number(offset: int, kind: str, value: int) -> Callable[[bytearray, int], None]:
    return lambda data, at: struct.pack_into(kind, data, at + offset, value)


def twice(name: str) -> Writer:
    def make(who: str) -> bytes:
        data = packed(good(who) | {"x" * len(name): b"{}"})
        return data.replace(b"x" * len(name), name.encode())

    return bytes_of(make)


def bomb(count: int, size: int) -> Writer:
    def make(who: str) -> bytes:
        return packed(good(who) | {f"{n}.onnx": bytes(size) for n in range(count)})

    return bytes_of(make)


def overlapping(path: Path, who: str) -> None:
    """Two hundred names for the same bytes: 600 MiB in 3 KiB."""
    data = packed(good(who) | {"zeros": bytes(3 * 2**20)})
    at, end = data.rindex(b"PK\1\2"), data.index(b"PK\5\6")
    begin, entry = data.index(b"PK\1\2"), data[at:end]
    more = b"".join(entry.replace(b"zeros", b"%05d" % n) for n in range(200))
    count, size = 3 + 200, end - begin + len(more)
    path.write_bytes(data[:end] + more + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, size, begin, 0))


def entries(count: int) -> Writer:
    return bytes_of(lambda who: packed(good(who) | {f"{n}": b"" for n in range(count)}))


def inner(data: Callable[[str], dict[str, bytes]]) -> Writer:
    return bytes_of(lambda who: packed(data(who)))


def list_of(make: Callable[[dict[str, Any]], Any] | bytes) -> Writer:
    """An answers.json that is these bytes, or what a function makes of the right one."""

    def entry(who: str) -> bytes:
        whole = good(who)
        about = make if isinstance(make, bytes) else json.dumps(make(json.loads(whole[LIST]))).encode()
        return packed(whole | {LIST: about})

    return bytes_of(entry)


def named(id: Any) -> Writer:
    return list_of(lambda about: about | {"student": id})


def claim(value: Any) -> Writer:
    """Another entry for the task in answers.json."""
    return list_of(lambda about: about | {"tasks": {ID: value}})


def claims(**change: Any) -> Writer:
    return list_of(lambda about: about | {"tasks": {ID: about["tasks"][ID] | change}})


def answer(id: str, data: bytes) -> Writer:
    return bytes_of(lambda who: submission(who, {id: data}))


def large(path: Path, who: str) -> None:
    with open(path, "wb") as stream:
        stream.truncate(5 * 2**30)


def link(to: str) -> Writer:
    return lambda path, who: path.symlink_to(to)


PLAIN = {
    "0 bytes": (bytes_of(lambda who: b""), "It is empty, 0 bytes"),
    "5 GB": (large, "more than 256 MiB"),
    "a PDF": (starts(b"%PDF-1.7"), "not a zip, but looks like a PDF"),
    "a RAR": (starts(b"Rar!\x1a\7"), "looks like a RAR archive"),
    "a 7z": (starts(b"7z\xbc\xaf\x27\x1c"), "looks like a 7z archive"),
    "a gzip": (starts(b"\x1f\x8b\x08"), "looks like a gzip file"),
    "a notebook": (starts(b'{"cells": []}'), "looks like a text or a notebook"),
    "a page": (starts(b"<!DOCTYPE html>"), "looks like a web page"),
    "a model": (bytes_of(lambda who: right(ID, who)), "looks like an ONNX model"),
    "zeros": (starts(b"\0"), "It is not a zip: ask"),
    "one byte": (bytes_of(lambda who: b"P"), "It is not a zip: ask"),
    "only the end of a zip": (bytes_of(lambda who: packed({})), r"There is no answers\.json in it"),
    "half an end": (bytes_of(lambda who: packed({})[:-3]), "begins as a zip and is cut off"),
    "zip in a zip": (inner(lambda who: {"a.zip": packed(good(who))}), r"holds zips \('a\.zip'\) and no answers"),
    "42 zips in a zip": (inner(lambda who: {f"{n}.zip": b"PK" for n in range(42)}), "holds zips"),
    "another course": (inner(lambda who: {"homework.py": b"import os"}), r"no answers\.json in it"),
    "only a folder": (inner(lambda who: {"work/": b""}), r"no answers\.json in it"),
    "two in folders": (
        inner(lambda who: {f"{f}/{name}": data for f in "ab" for name, data in good(who).items()}),
        "holds 2 hand-ins",
    ),
    "encrypted": (directory(lambda data, at: data.__setitem__(at + 8, data[at + 8] | 1)), "is encrypted"),
    "bzip2": (packed_by(zipfile.ZIP_BZIP2), "is packed by method 12"),
    "lzma": (packed_by(zipfile.ZIP_LZMA), "is packed by method 14"),
    "unknown method": (directory(number(10, "<H", 77)), "is packed by method 77"),
    "file twice": (twice(task(ID).file), r"'2\.4\.onnx' more than once"),
    "list twice": (twice(LIST), r"'answers\.json' more than once"),
    "bomb": (bomb(2, 60 * 2**20), "zip bomb"),
    "overlapping bomb": (overlapping, "zip bomb"),
    "says 2 GiB": (directory(number(24, "<L", 2**31)), "zip bomb"),
    "says 10 bytes": (directory(number(24, "<L", 10)), r"damaged"),
    "wrong sum": (directory(number(16, "<L", 0)), r"'answers\.json' is damaged in the zip"),
    "wrong place": (directory(number(42, "<L", 2**30)), "damaged"),
    "100 000 entries": (entries(100_000), "lists far more entries than any hand-in has"),
    "1 100 entries": (entries(1_100), "It has 1,102 entries, and may have 1,000"),
}  # fmt: skip
PATHS = {
    "..": "../x.onnx", "deep ..": "a/../../x", "absolute": "/etc/cron.d/x", "backslash": "..\\x", "drive": "C:/x.onnx",
    "drive backslash": "C:\\x", "server": "\\\\server\\share", "zero byte": "a\0b",
}  # fmt: skip
MODES = {"link": stat.S_IFLNK, "pipe": stat.S_IFIFO, "device": stat.S_IFBLK, "socket": stat.S_IFSOCK}
LISTS: dict[str, tuple[bytes | Callable[[dict[str, Any]], Any], str]] = {
    "empty": (b"", "is not a JSON file"),
    "cut": (b'{"student": "ada", "tas', "is not a JSON file"),
    "python": (b"__import__('os').system('id')", "is not a JSON file"),
    "latin-1": (b'{"student": "\xe9"}', "is not a JSON file"),
    "utf-16": ('{"student": "ada"}'.encode("utf-16"), "is not a JSON file"),
    "deep": (b"[" * 200_000, "hundreds of levels deep"),
    "long number": (b"1" * 10_000, "thousands of digits"),
    "2 MB": (b" " * 2_000_000, "has 2,000,000 bytes, and it may have 1,048,576"),
    "a list": (b"[]", "is not the list that cu.submit"),
    "null": (b"null", "is not the list that cu.submit"),
    "a number": (b"7", "is not the list that cu.submit"),
    "no student": (lambda a: {k: v for k, v in a.items() if k != "student"}, "is not the list that cu.submit"),
    "no tasks": (lambda a: {k: v for k, v in a.items() if k != "tasks"}, "is not the list that cu.submit"),
    "tasks a list": (lambda a: a | {"tasks": []}, "is not the list that cu.submit"),
    "tasks null": (lambda a: a | {"tasks": None}, "is not the list that cu.submit"),
    "unknown task": (lambda a: a | {"tasks": a["tasks"] | {"99.9": {}}}, r"Task '99\.9' is no part of this version"),
    "odd task": (lambda a: a | {"tasks": a["tasks"] | {"\x1b[2J\u202e": {}}}, r"Task '\?\[2J\?' is no part"),
    "5 000 tasks": (lambda a: a | {"tasks": a["tasks"] | {f"x{n}": n for n in range(5_000)}}, "And 4980 more of this kind"),
    "course a dict": (lambda a: a | {"course": {"a": 1}}, "made with version a list of the course"),
    "course escape": (lambda a: a | {"course": "\x1b]0;x\x07"}, r"made with version \?\]0;x\? of the course"),
    "no course": (lambda a: {k: v for k, v in a.items() if k != "course"}, "made with version None of the course"),
    "format text": (lambda a: a | {"format": "x"}, "has format x"),
    "no answers": (lambda a: a | {"tasks": {}}, r"It is not listed in answers\.json"),
}  # fmt: skip
NAMES = {
    "path": "../../etc/passwd", "slash": "a/b", "backslash": "a\\b", "nothing": "", "space": " ", "newline": "a\nb",
    "zero": "ada\0", "direction": "\u202eada", "isolate": "\u2067ada", "half": "\ud800", "65 long": "a" * 65,
    "very long": "a" * 50_000, "null": None, "number": 5, "list": ["ada"], "dict": {}, "true": True, "formula": "=1+1",
    "minus": "-x", "tab": "\tada", "emoji": "🎓", "escape": "\x1b[31mada", "quote": "ada'); drop table",
}  # fmt: skip
CLAIMS = {
    "null": None, "list": [], "text": "all", "empty": {}, "negative": {"points": -1, "of": 1}, "true": {"points": True, "of": 1},
    "fraction": {"points": 0.5, "of": 1}, "words": {"points": "9", "of": "9"}, "far too many": {"points": 10**30, "of": 1},
}  # fmt: skip
ANSWERS = {
    "deep": (b"[" * 100_000, "hundreds of levels deep"), "long number": (b"9" * 9_000, "thousands of digits"),
    "2 MB": (b'"' + b"a" * 2**21 + b'"', "no answer in JSON needs more"), "no JSON": (b"\xff\xfe", "is not a JSON file"),
    "empty": (b"", "is not a JSON file"), "NaN": (b"NaN", "has the keys|It has none"), "null": (b"null", "It has none"),
    "list": (b"[[[[1]]]]", "It has none"), "commands": (b'{"\\u001b[2J": 1}', "write a dict with exactly those keys"),
}  # fmt: skip
MODELS = {
    "empty": (b"", "empty|not an ONNX|no ONNX|0 bytes"), "text": (b"hello", "ONNX"), "zeros": (bytes(1000), "ONNX"),
    "pickle": (b"\x80\x04\x95\x00\x00cposix\nsystem\n", "ONNX"), "a zip": (packed({"a": b"b"}), "ONNX"),
}  # fmt: skip

KINDS: dict[str, tuple[Writer, str]] = {
    **PLAIN,
    **{f"cut at {n} %": (cut(n / 100), "begins as a zip and is cut off or damaged") for n in range(10, 100, 15)},
    **{f"flipped at {n} %": (flipped(n / 100), "") for n in range(2, 100, 8)},
    **{f"entry {name}": (with_entry(path), "absolute path|leads out of|a zero byte") for name, path in PATHS.items()},
    **{f"entry {name}": (with_entry("x", b"/etc/passwd", mode | 0o777), "is a link|a pipe or a device") for name, mode in MODES.items()},
    **{f"list {name}": (list_of(make), said) for name, (make, said) in LISTS.items()},
    **{f"id {name}": (named(id), r"^The student's id in its answers\.json is .*: ask who it is\.$") for name, id in NAMES.items()},
    **{f"claim {name}": (claim(value), r"What answers\.json says of it is damaged|not listed in") for name, value in CLAIMS.items()},
    "claim too high": (claims(points=999, of=999), r"claims 999 of 999 points, the grader counted \d of \d"),
    "claim other file": (claims(file="../../secret"), ""),
    "claim other sum": (claims(sha256="0" * 64), "not the file that the notebook checked"),
    "claim sum a list": (claims(sha256=[1]), "not the file that the notebook checked"),
    "claim old checks": (claims(checks=1), "counted with version 1 of the checks"),
    "claim without file": (inner(lambda who: {LIST: good(who)[LIST]}), r"is listed in answers\.json, and it is not in the zip"),
    "more files": (with_entry("virus.exe"), r"The file 'virus\.exe' is no answer to a task: ignored"),
    **{f"json {name}": (answer("1.2", data), said) for name, (data, said) in ANSWERS.items()},
    **{f"model {name}": (answer(ID, data), said) for name, (data, said) in MODELS.items()},
}  # fmt: skip
# These depend on the system's files.
SPECIAL: dict[str, tuple[Writer, str]] = {
    "a link": (link("good-0.zip"), "It is a link, and links are not followed"),
    "a link to nowhere": (link("nowhere"), "It is a link"),
    "a link to itself": (link("a link to itself.zip"), "It is a link"),
    "a link to a folder": (link("."), "It is a link"),
    "a pipe": (lambda path, who: os.mkfifo(path), "no ordinary file, but a pipe or a device"),
    "a folder": (lambda path, who: path.mkdir(), "It is a folder, and a zip was expected"),
    "\u202ezip.exe": (starts(b"MZ"), "It is not a zip"),
    "new\nline": (starts(b"MZ"), "It is not a zip"),
    "שלום": (starts(b"MZ"), "It is not a zip"),
    "\x1b[2J": (starts(b"MZ"), "It is not a zip"),
    os.fsdecode(b"bytes \xff\xfe"): (starts(b"MZ"), "It is not a zip"),
    "long " + 200 * "x": (starts(b"MZ"), "It is not a zip"),
}


def fill(folder: Path, kinds: dict[str, tuple[Writer, str]]) -> None:
    """One zip of each kind, named by its kind and under an id of its own; among them three that are right."""
    folder.mkdir()
    for n, (kind, (write, _)) in enumerate(kinds.items()):
        write(folder / f"{kind}.zip", f"h-{n}")
    for n in range(3):
        put(folder, f"good-{n}.zip", packed(good(f"good-{n}")))
