"""What the file tells besides the model: notes of the exporter, paths of the machine that built it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import onnx

from ..patient import Patient
from ..vocabulary import NOTE, Finding, Place, amount, code, finding, plain

PATHS = code(
    "paths-of-a-machine",
    NOTE,
    "01_metadata",
    "The file names folders of the machine that built it",
    "Before you publish the model, take the notes of the exporter out of its nodes: their metadata_props and doc_string.",
)
HEAVY = code(
    "heavy-notes",
    NOTE,
    "01_metadata",
    "Notes of the exporter take up much of the file",
    "Clear metadata_props and doc_string of nodes and values before you ship the model. It computes the same.",
)
# Folders that are the same everywhere, or made up for one session, and packages: they tell nothing.
_EVERYWHERE = ("/tmp/ipykernel_", "/usr/lib/", "/usr/local/lib/", "/content/")
_PACKAGES = ("/site-packages/", "/dist-packages/")
_HOME = "/home/"
_PERSONAL = (_HOME, "/Users/")
_ROBOT = f"{_HOME}runner/"  # a build on GitHub
# A path with somebody's name in it, or one of a source file in a stack trace.
_PATH = re.compile(
    r"(?:/home/|/Users/|[A-Za-z]:\\\\?Users\\\\?)[^\s\"'<>:;,)]{2,120}"
    r"|File \"((?:/|[A-Za-z]:\\)[^\"\n]{2,200})\""
    r"|(?<![\w.:/-])(/[\w.@+-]+(?:/[\w.@ +-]+){1,15}\.py)(?=[:(\s\"'])"
)
_READ = 20_000  # characters of one text that are searched


def notes(patient: Patient) -> Iterator[Finding]:
    """Paths in notes, and the weight of the notes."""
    total, found = 0, []
    for place, text in _texts(patient.model):
        total += len(text)
        paths = (m[1] or m[2] or m[0] for m in _PATH.finditer(plain(text[:_READ], None)))
        telling = next((path for path in paths if _tells(path)), None)
        if telling:
            found.append((place, telling))
    if found:
        # In a stack trace, the outer frames are those of the packages; the shortest path is the most telling one.
        example = min((path for _, path in found), key=len)
        text = f"Notes name source files or folders, such as {plain(example)!r}. Users and projects can be read from such names."
        yield finding(PATHS, text, [place for place, _ in found])
    whole = patient.size
    if total > 64 * 1024 and total > whole // 5:
        yield finding(HEAVY, f"{amount(total)} of the file's {amount(whole)} are notes, such as stack traces.")


def _tells(path: str) -> bool:
    """Whether a path tells something of a person or a project."""
    plain_path = path.replace("\\\\", "/").replace("\\", "/")
    if plain_path.startswith(_EVERYWHERE):
        return False
    named = (plain_path.startswith(_PERSONAL) and not plain_path.startswith(_ROBOT)) or ":/Users/" in plain_path
    return named or not any(folder in plain_path for folder in _PACKAGES)


def _texts(model: onnx.ModelProto) -> Iterator[tuple[Place, str | bytes]]:
    """Every free text of the model, with the place where it stands."""

    def of(
        place: Place, thing: onnx.NodeProto | onnx.GraphProto | onnx.ModelProto
    ) -> Iterator[tuple[Place, str | bytes]]:
        if thing.doc_string:
            yield place, thing.doc_string
        for entry in thing.metadata_props:
            yield place, entry.value

    yield from of(Place("file", "the model's own notes"), model)
    waiting = [("", model.graph), *((f.name, f) for f in model.functions)]
    while waiting:
        label, graph = waiting.pop()
        yield from of(Place("graph", graph.name), graph)
        values = list(graph.value_info)
        if isinstance(graph, onnx.GraphProto):  # a function's inputs and outputs are names alone
            values += [*graph.input, *graph.output, *graph.initializer]
        for value in values:
            yield from of(Place("tensor", value.name, None, plain(label)), value)
        for index, node in enumerate(graph.node):
            yield from of(Place("node", node.name, index, plain(label)), node)
            for a in node.attribute:
                waiting += [(graph.name, inner) for inner in ([a.g] if a.HasField("g") else []) + list(a.graphs)]


CHECKS = (notes,)
