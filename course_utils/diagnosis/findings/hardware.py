"""Files that were made for one kind of processor, or for one execution provider."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from onnx import NodeProto

from ...onnx_files import is_compiled
from ...paths import inside, is_file
from ..parts import attribute, is_op
from ..patient import Patient
from ..vocabulary import ERROR, NOTE, Finding, Place, amount, code, finding, listed, nodes, plain
from .external_data import ESCAPES

PROCESSOR = code(
    "made-for-one-processor",
    NOTE,
    "06_files_saved_optimised",
    "The file was optimised for the processor of one machine",
    "Ship the model from before the optimisation, and let each machine optimise its own; or optimise with "
    "ORT_ENABLE_EXTENDED, which writes no such nodes.",
)
PROVIDER = code(
    "made-for-one-provider",
    NOTE,
    "05",
    "The file was made for one execution provider",
    "Load it with that provider, of the version that made it. Keep the model that it was made from: other machines need it.",
)
CODE_MISSING = code(
    "compiled-code-missing",
    ERROR,
    "05",
    "The file with the compiled code is missing",
    "Copy it into the folder of the model under the name that the model gives, or compile again with "
    "embed_compiled_data_into_model=True.",
)
_BLOCKED = "com.microsoft.nchwc"
# Domains and operators that only the optimiser writes, once it knows the providers of a session.
_OTHER_LAYOUT = "com.ms.internal.nhwc"
_COPIES = ("MemcpyFromHost", "MemcpyToHost")
_MOST = 4  # makers and files of compiled code that get a finding of their own; a model may name thousands


def bound(patient: Patient) -> Iterator[Finding]:
    blocked: list[tuple[Place, str]] = []
    placed: list[tuple[Place, str]] = []
    for scope, index, node in patient.each_node():
        place = scope.place(index), plain(node.op_type)
        if node.domain == _BLOCKED:
            blocked.append(place)
        elif node.domain == _OTHER_LAYOUT or is_op(node, *_COPIES):
            placed.append(place)
    if blocked:
        text = (
            f"{_counted(blocked)} keep channels in blocks as wide as the vector registers of the machine that wrote the file. "
            f"On another kind of processor it fails, or gives wrong numbers."
        )
        yield finding(PROCESSOR, text, [place for place, _ in blocked])
    if placed:
        text = f"{_counted(placed)} were put in for the providers of the session that wrote the file."
        yield finding(PROVIDER, text, [place for place, _ in placed])


def compiled(patient: Patient) -> Iterator[Finding]:
    """What compiled code is bound to, and whether it is there. Nothing of it is run: nobody can look into it."""
    bound: dict[str, list[Place]] = {}
    absent: dict[str, list[Place]] = {}
    outside: dict[str, list[Place]] = {}
    for scope, index, node in patient.each_node():
        if not is_compiled(node):
            continue
        place, (where, name) = scope.place(index), _stored(patient, node)
        sdk = _text(node, "ep_sdk_version")
        maker = f"{_text(node, 'source') or 'a provider that it does not name'}{f' (SDK {sdk})' if sdk else ''}"
        bound.setdefault(f"to {maker}{where}", []).append(place)
        if name is None or patient.file is None:
            continue
        if name and not inside(patient.file, name):
            outside.setdefault(plain(name), []).append(place)
        elif not name or not is_file(patient.file.parent / name):
            absent.setdefault(plain(name), []).append(place)
    for to, places in list(bound.items())[:_MOST]:
        yield finding(PROVIDER, f"{nodes(len(places))} of it {_are(places)} compiled code, bound {to}.", places)
    more = [place for places in list(bound.values())[_MOST:] for place in places]
    if more:
        yield finding(PROVIDER, f"{nodes(len(more))} more of it {_are(more)} compiled code, bound to others.", more)
    unnamed = absent.pop("", [])
    if unnamed:
        text = f"The model does not name its file. It holds the code of {nodes(len(unnamed))}."
        yield finding(CODE_MISSING, text, unnamed)
    if absent:
        places = [place for of_file in absent.values() for place in of_file]
        text = f"In the model's folder there is no file {listed(map(repr, absent))}. It would hold the code of {nodes(len(places))}."
        yield finding(CODE_MISSING, text, places)
    if outside:
        text = f"It names {listed(map(repr, outside))} as the file of its compiled code. The doctor does not open that."
        yield finding(ESCAPES, text, [place for places in outside.values() for place in places])


def _stored(patient: Patient, node: NodeProto) -> tuple[str, str | None]:
    """Where the code of a node is, in words; and the file's name, None where it is in no file."""
    content = next((a.s for a in node.attribute if a.name == "ep_cache_context"), b"")
    if attribute(node, "main_context", 1) == 0:  # another node of this provider holds it
        return "", None
    if attribute(node, "embed_mode", 1) != 0:
        piece = patient.pieces.get(content)
        return f", {amount(piece.length if piece is not None else len(content))} inside the file", None
    name = content.decode("utf-8", "backslashreplace")
    return f", in the file {plain(name)!r} beside it", name


def _text(node: NodeProto, name: str) -> str:
    value = attribute(node, name, b"")
    return plain(value) if isinstance(value, bytes | str) else ""


def _are(places: list[Place]) -> str:
    return "is" if len(places) == 1 else "are"


def _counted(found: list[tuple[Place, str]]) -> str:
    ops = Counter(op for _, op in found)
    return f"{nodes(len(found))} ({listed(f'{count} × {op}' for op, count in ops.most_common())})"


CHECKS = (bound, compiled)
