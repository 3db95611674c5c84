"""Netron's web part as plain files that ask no other host: served to notebooks on loopback, copied into the book.

The page inside the netron package (MIT licence), opened as it is, looks up where its reader is, shows a consent dialog,
loads analytics, and refuses to work 180 days after its release. A course must keep working and must not watch its
readers, so those four steps are taken out at start-up. It also loads ahead what other formats need, and asks for its
5 MB of operator descriptions anew each time: both are cut back. The patch fails loudly when Netron has changed under it.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import CourseError, require

# What an ONNX model needs, out of 178 files.
_SCRIPTS = [
    "base",
    "browser",
    "dagre",
    "flatbuffers",
    "flexbuffers",
    "grapher",
    "hdf5",
    "index",
    "json",
    "onnx",
    "onnx-proto",
    "onnx-schema",
    "protobuf",
    "python",
    "tar",
    "text",
    "view",
    "worker",
    "xml",
    "zip",
]
_FILES = [f"{name}.js" for name in _SCRIPTS] + [
    "index.html",
    "grapher.css",
    "onnx-metadata.json",
    "favicon.ico",
    "icon.png",
]

# file → (pattern, replacement, how often it must match). VERSION stands for the version of Netron.
_PATCHES = {
    "browser.js": [
        (r"^ *await (?:age|consent|telemetry|capabilities)\(\);\n", "", 4),
        (r"(const tag = ).*(`version=).*(`) : `cb=.*;$", r"\g<1>\g<2>VERSION\g<3>;", 1),
    ],
    "view.js": [
        # When a model is shown; without this the page around the viewer jumps to it.
        (r"^( *(?:element|container))\.focus\(\);$", r"\g<1>.focus({ preventScroll: true });", 3),
        (r"(const modules = \[)'./message'.*;$", r"\g<1>'./onnx', './onnx-proto', './onnx-schema'];", 1),
        (r"(const assets = \['onnx-metadata.json').*;$", r"\g<1>];", 1),
    ],
    "index.html": [(r'(<meta name="version" content=")[^"]+(">)', r"\g<1>0.0.0\g<2>", 1)],
}


def build(folder: Path) -> Path:
    """Write the patched viewer into `folder` (about 8.5 MB) and return the path of its `index.html`.

    `index.html?url=../models/x.onnx` opens a model; the address is relative to `index.html`.
    Raises CourseError when netron is not installed, or no longer looks as the patch expects.
    """
    netron = require("netron")
    assert netron.__file__ is not None  # only a namespace package has none
    source = Path(netron.__file__).parent
    folder.mkdir(parents=True, exist_ok=True)
    for name in _FILES:
        if not (source / name).exists():
            raise CourseError(_changed(name, "the file is gone"))
        data = (source / name).read_bytes()
        for pattern, replacement, times in _PATCHES.get(name, []):
            new = replacement.replace("VERSION", netron.__version__)
            text, found = re.subn(pattern, new, data.decode(), flags=re.MULTILINE)
            if found != times:
                raise CourseError(_changed(name, f"{pattern!r} matched {found} times, expected {times}"))
            data = text.encode()
        (folder / name).write_bytes(data)
    return folder / "index.html"


def _changed(name: str, what: str) -> str:
    return f"Netron's {name} is not as the course expects ({what}): install the version in constraints.txt."
