"""The names of tensors: each written once, and before it is read."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator

from ..parts import Scope
from ..patient import Patient
from ..vocabulary import ERROR, Code, Finding, Place, code, finding, nodes, plain

CYCLE = code(
    "cycle",
    ERROR,
    "01",
    "The graph runs in a circle",
    "Give each result a name of its own, so that no node waits for itself.",
)
UNSORTED = code(
    "not-sorted",
    ERROR,
    "01",
    "A node stands before one whose result it reads",
    "Sort the nodes so that producers come first. ONNX Runtime does so itself in the main graph, not in one inside a node; "
    "onnx.checker and others refuse the file, as lesson 01 shows.",
)
UNDEFINED = code(
    "tensor-undefined",
    ERROR,
    "01",
    "A tensor is read that nothing writes",
    "Correct the name, or add the node, the input or the initializer that is missing.",
)
TWICE = code(
    "tensor-written-twice",
    ERROR,
    "01",
    "Two things write the same tensor",
    "Give one of them another name, and its readers, too.",
)
NO_OUTPUT = code(
    "output-undefined",
    ERROR,
    "01",
    "An output of the model is written by no node",
    "Correct the name in graph.output, or of the node's output.",
)
_SHOWN = 6  # nodes of a circle


def order(patient: Patient) -> Iterator[Finding]:
    """Names: undefined, written twice, read too early, in a circle."""
    found: dict[Code, list[tuple[Place, str, Scope]]] = {c: [] for c in (UNSORTED, UNDEFINED, TWICE, NO_OUTPUT)}
    for scope in patient.scopes:
        early = _names(scope, found)
        circle = _circle(scope) if early else []
        if circle:
            shown = [plain(scope.place(i).name) for i in circle[:_SHOWN]] + ["…"] * (len(circle) > _SHOWN)
            way = " → ".join([*shown, shown[0]])
            yield finding(CYCLE, f"{nodes(len(circle))}: {way}.", [scope.place(i) for i in circle])
        else:
            found[UNSORTED] += [(scope.place(i), name, scope) for i, name in early]
    for what, items in found.items():
        if not items:
            continue
        place, name, scope = items[0]
        text = {
            UNSORTED: f"{place} reads {plain(name)!r}, which a node behind it writes.",
            UNDEFINED: f"{place} reads {plain(name)!r}.{_near(name, scope)}",
            TWICE: f"{plain(name)!r} is written more than once.",
            NO_OUTPUT: f"{plain(name)!r} is listed as an output.{_near(name, scope)}",
        }[what]
        yield finding(what, text, [p for p, *_ in items])


def _names(scope: Scope, found: dict[Code, list[tuple[Place, str, Scope]]]) -> list[tuple[int, str]]:
    """Add what is wrong with the names of one graph. Returns (node, name) where a node reads what a later one writes."""
    known, later = _outside_names(scope), set(scope.producer)
    repeated = [name for name, times in Counter(scope.inputs).items() if times > 1]
    found[TWICE] += [(Place("input", name, None, scope.label), name, scope) for name in repeated]
    defined = set(scope.inputs) | set(scope.initializers) | scope.sparse
    early = []
    for index, node in enumerate(scope.nodes):
        reads = dict.fromkeys((*node.input, *(n for child in scope.children.get(index, ()) for n in child.free())))
        missing = [name for name in reads if name and name not in defined and name not in known]
        early += [(index, name) for name in missing if name in later]
        # What a graph inside this node lacks is found when that graph has its turn.
        nowhere = [name for name in missing if name not in later and name in node.input]
        found[UNDEFINED] += [(scope.place(index), name, scope) for name in nowhere]
        for name in filter(None, node.output):
            if name in defined:
                found[TWICE].append((scope.place(index), name, scope))
            defined.add(name)
    lacking = [name for name in scope.outputs if name not in defined]
    found[NO_OUTPUT] += [(Place("output", name, None, scope.label), name, scope) for name in lacking]
    return early


def _outside_names(scope: Scope) -> set[str]:
    names: set[str] = set()
    here = scope.outer
    while here is not None:
        names |= {*here.producer, *here.initializers, *here.sparse, *here.inputs}
        here = here.outer
    return names


def _near(name: str, scope: Scope) -> str:
    known = [*scope.producer, *scope.initializers, *scope.inputs]
    near = difflib.get_close_matches(name, known[:5000], cutoff=0.75)
    return f" The nearest name that is written: {plain(near[0])!r}." if near else ""


def _circle(scope: Scope) -> list[int]:
    """One circle of nodes, in the order of the data; empty where there is none. Without recursion: graphs can be long."""
    state = [0] * len(scope.nodes)  # 0 new, 1 on the way, 2 done
    for start in range(len(scope.nodes)):
        way = [(start, iter(before(scope, start)))]
        state[start] = 1
        while way:
            node, rest = way[-1]
            for earlier in rest:
                if state[earlier] == 1:
                    path = [i for i, _ in way]
                    return path[path.index(earlier) :][::-1]
                if state[earlier] == 0:
                    state[earlier] = 1
                    way.append((earlier, iter(before(scope, earlier))))
                    break
            else:
                state[node] = 2
                way.pop()
    return []


def before(scope: Scope, index: int) -> list[int]:
    """The nodes whose results a node reads, also in the graphs inside it."""
    names = {*scope.nodes[index].input, *(n for child in scope.children.get(index, ()) for n in child.free())}
    return [scope.producer[n] for n in names if n in scope.producer]


CHECKS = (order,)
