"""Files that were made for one kind of processor, or for one execution provider."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ..parts import attribute, is_op
from ..patient import Patient
from ..vocabulary import NOTE, Finding, Place, code, finding, listed, nodes, plain

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
COMPILED = "EPContext"
_BLOCKED = "com.microsoft.nchwc"
# Domains and operators that only the optimiser writes, once it knows the providers of a session.
_OTHER_LAYOUT = "com.ms.internal.nhwc"
_COPIES = ("MemcpyFromHost", "MemcpyToHost")


def bound(patient: Patient) -> Iterator[Finding]:
    blocked: list[tuple[Place, str]] = []
    placed: list[tuple[Place, str]] = []
    compiled: list[tuple[Place, str]] = []
    for scope, index, node in patient.each_node():
        place = scope.place(index), plain(node.op_type)
        if node.domain == _BLOCKED:
            blocked.append(place)
        elif node.domain == _OTHER_LAYOUT or is_op(node, *_COPIES):
            placed.append(place)
        elif node.op_type == COMPILED and node.domain == "com.microsoft":
            source = attribute(node, "source", b"")
            made_by = plain(source if isinstance(source, bytes | str) else "") or "a provider that it does not name"
            compiled.append((place[0], made_by))
    if blocked:
        text = (
            f"{_counted(blocked)} keep channels in blocks as wide as the vector registers of the machine that wrote the file. "
            f"On another kind of processor it fails, or gives wrong numbers."
        )
        yield finding(PROCESSOR, text, [place for place, _ in blocked])
    if placed:
        text = f"{_counted(placed)} were put in for the providers of the session that wrote the file."
        yield finding(PROVIDER, text, [place for place, _ in placed])
    if compiled:
        makers = listed(dict.fromkeys(maker for _, maker in compiled))
        text = f"{nodes(len(compiled))} of it {'is' if len(compiled) == 1 else 'are'} compiled code, made by {makers}."
        yield finding(PROVIDER, text, [place for place, _ in compiled])


def _counted(found: list[tuple[Place, str]]) -> str:
    ops = Counter(op for _, op in found)
    return f"{nodes(len(found))} ({listed(f'{count} × {op}' for op, count in ops.most_common())})"


CHECKS = (bound,)
