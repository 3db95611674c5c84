"""What the labs' modules import from others, as ES modules: `python jupyter-book/labs/vendor.py [FOLDER]`.

Without a folder the files go to `kit/vendor/` beside this file, which git ignores, so that `node --test` finds them.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import onnx
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

LABS = Path(__file__).resolve().parent
PACKAGES = LABS.parent / "node_modules"
TYPES = {
    value: name.removeprefix("TYPE_").lower()
    for name, value in vars(FieldDescriptor).items()
    if name.startswith("TYPE_")
}


def write(folder: Path, packages: Path = PACKAGES) -> None:
    """Write `protobuf.js`, `long.js`, `dagre.js` and `onnx_schema.js` into `folder`. packages: what `npm ci` installed."""
    folder.mkdir(parents=True, exist_ok=True)
    reader = _source(packages / "protobufjs/dist/light/protobuf.min.js")
    files = {
        # It would hand itself to RequireJS, which the book's pages have for the widgets, under no name: an error there.
        "protobuf.js": f"const define = undefined, module = undefined;\n{reader}\nexport default globalThis.protobuf;\n",
        "long.js": _source(packages / "long/index.js"),
        "dagre.js": _source(packages / "@dagrejs/dagre/dist/dagre.esm.js"),
        "onnx_schema.js": f"export default {json.dumps(schema(), separators=(',', ':'))};\n",
    }
    for name, text in files.items():
        half = folder / f"{name}.{os.getpid()}"  # tests that run side by side write the same file
        half.write_text(text, encoding="utf-8")
        half.replace(folder / name)


def schema() -> dict[str, object]:
    """`onnx-ml.proto` of the Python package onnx, in the JSON that protobufjs reads."""
    file = onnx.ModelProto.DESCRIPTOR.file
    nested = {name: _message(found) for name, found in file.message_types_by_name.items()}
    nested |= {name: _enum(found) for name, found in file.enum_types_by_name.items()}
    return {"nested": {file.package: {"nested": nested}}}


def _source(file: Path) -> str:
    """The text of a package's file, without the line that tells where its source map would be."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.startswith("//# sourceMappingURL="))


def _message(message: Descriptor) -> dict[str, object]:
    nested: dict[str, object] = {found.name: _message(found) for found in message.nested_types}
    nested |= {found.name: _enum(found) for found in message.enum_types}
    return {
        "fields": {field.name: _field(field) for field in message.fields},
        "oneofs": {one.name: {"oneof": [field.name for field in one.fields]} for one in message.oneofs},
        "nested": nested,
    }


def _field(field: FieldDescriptor) -> dict[str, object]:
    kind = field.message_type or field.enum_type
    found: dict[str, object] = {"id": field.number, "type": f".{kind.full_name}" if kind else TYPES[field.type]}
    if field.is_repeated:
        found |= {"rule": "repeated", "options": {"packed": field.GetOptions().packed}}
    return found


def _enum(enum: EnumDescriptor) -> dict[str, object]:
    return {"values": {value.name: value.number for value in enum.values}}


if __name__ == "__main__":
    write(Path(sys.argv[1]) if sys.argv[1:] else LABS / "kit" / "vendor")
