"""The graph itself: every tensor written once and before it is read, and nothing in it for nothing."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator

import onnx

from .patient import Patient, Scope, count_of, domain, expected_bytes
from .vocabulary import ERROR, NOTE, WARNING, Code, Finding, Place, amount, code, count, finding, listed, nodes, plain

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
    "Sort the nodes so that producers come first. Lesson 01 shows how.",
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
NO_TYPE = code(
    "input-type-missing",
    ERROR,
    "01",
    "An input of the model has no type",
    "Give it one: onnx.helper.make_tensor_value_info(name, dtype, shape), or make_sequence_type_proto for a list. The older "
    "exporter leaves it out where it does not know what a list holds.",
)
SAME_NAME = code(
    "node-names-repeat",
    NOTE,
    "01",
    "Nodes share a name",
    "Give each node a name of its own: profiles, quantization and debugging tools tell nodes apart by it.",
)
DEAD = code(
    "dead-nodes",
    NOTE,
    "01",
    "Nodes compute what nobody reads",
    "Nothing to do for ONNX Runtime, which leaves them out. onnx.utils.extract_model or onnxslim removes them from the file.",
)
UNUSED = code(
    "unused-weights",
    WARNING,
    "01",
    "The file stores weights that nothing reads",
    "Remove them from graph.initializer, or save the model again with onnxslim or onnxsim.",
)
AS_INPUTS = code(
    "weights-are-inputs",
    WARNING,
    "06",
    "Weights are listed as inputs, too",
    "Remove them from graph.input (torch.onnx.export: keep_initializers_as_inputs=False). Until then a caller may replace "
    "them, so ONNX Runtime can neither fold nor fuse with them.",
)
RECURSIVE = code(
    "recursive-function", ERROR, "01", "A function calls itself", "ONNX has no recursion: use Loop or Scan."
)
CHECKER = code(
    "checker-objects",
    ERROR,
    "01",
    "onnx.checker does not accept the model",
    "Correct what it names. Lesson 01 reads its messages. --run says whether ONNX Runtime takes the model all the same.",
)
DIE = code(
    "onnx-tools-die",
    ERROR,
    "01",
    "The tools of onnx crash on this model, or never come back",
    "Do not load it in a process that must live on: ONNX Runtime is built with the same code. Look for attributes and types that make no sense.",
)
FORMALITY = code(
    "checker-formality",
    NOTE,
    "01",
    "onnx.checker objects to a formal point that ONNX Runtime passes over",
    "Other tools may not pass over it: correct what the checker names. Missing shapes come from onnx.shape_inference.infer_shapes.",
)


_LEAST_WEIGHT = 16  # elements
# The checker's words for what ONNX Runtime does not mind. The second rule held up to IR version 3.
_FORMAL = (
    "Field 'shape' of",
    "Field 'type' of",
    "Field 'elem_type' of",
    "in initializer but not in graph input",
)


def order(patient: Patient) -> Iterator[Finding]:
    """Names: undefined, written twice, read too early, in a circle."""
    found: dict[Code, list[tuple[Place, str, Scope]]] = {c: [] for c in (UNSORTED, UNDEFINED, TWICE, NO_OUTPUT)}
    for scope in patient.scopes:
        early = _names(scope, found)
        circle = _circle(scope) if early else []
        if circle:
            way = " → ".join(plain(scope.place(i).name) for i in [*circle[:6], circle[0]])
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
        reads = {*node.input, *(n for child in scope.children.get(index, ()) for n in _free(child))} - {""}
        missing = reads - defined - known
        early += [(index, name) for name in missing if name in later]
        # What a graph inside this node lacks is found when that graph has its turn.
        nowhere = [name for name in missing.intersection(node.input) if name not in later]
        found[UNDEFINED] += [(scope.place(index), name, scope) for name in nowhere]
        written = [name for name in node.output if name]
        found[TWICE] += [(scope.place(index), name, scope) for name in written if name in defined]
        defined.update(written)
    lacking = [name for name in scope.outputs if name and name not in defined and name not in known]
    found[NO_OUTPUT] += [(Place("output", name, None, scope.label), name, scope) for name in lacking]
    return early


def _outside_names(scope: Scope) -> set[str]:
    names: set[str] = set()
    here = scope.outer
    while here is not None:
        names |= {*here.producer, *here.initializers, *here.sparse, *here.inputs}
        here = here.outer
    return names


def _free(scope: Scope) -> set[str]:
    """Names that a graph inside a node takes from outside."""
    reads = {*scope.readers, *scope.inner_reads, *scope.outputs}
    return reads - {*scope.producer, *scope.initializers, *scope.sparse, *scope.inputs, ""}


def _near(name: str, scope: Scope) -> str:
    if isinstance(name, bytes):
        return ""
    known = [n for n in (*scope.producer, *scope.initializers, *scope.inputs) if isinstance(n, str)]
    near = difflib.get_close_matches(name, known[:5000], n=1, cutoff=0.75)
    return f" The nearest name that is written: {plain(near[0])!r}." if near else ""


def _circle(scope: Scope) -> list[int]:
    """One circle of nodes, in the order of the data; empty where there is none. Without recursion: graphs can be long."""
    state = [0] * len(scope.nodes)  # 0 new, 1 on the way, 2 done
    for start in range(len(scope.nodes)):
        if state[start]:
            continue
        way = [(start, iter(_before(scope, start)))]
        state[start] = 1
        while way:
            node, rest = way[-1]
            for before in rest:
                if state[before] == 1:
                    path = [i for i, _ in way]
                    return path[path.index(before) :][::-1]
                if state[before] == 0:
                    state[before] = 1
                    way.append((before, iter(_before(scope, before))))
                    break
            else:
                state[node] = 2
                way.pop()
    return []


def _before(scope: Scope, index: int) -> list[int]:
    names = {*scope.nodes[index].input, *(n for child in scope.children.get(index, ()) for n in _free(child))}
    return [scope.producer[n] for n in names if n in scope.producer]


def types(patient: Patient) -> Iterator[Finding]:
    """Inputs of the main graph without a type, or with one that does not say of what. ONNX Runtime wants all of them."""
    found = [v.name for v in patient.model.graph.input if not _says(v.type)]
    if found:
        yield finding(
            NO_TYPE, f"{count(len(found), 'input')}: {listed(found)}.", [Place("input", name) for name in found]
        )


def _says(kind: onnx.TypeProto) -> bool:
    """Whether a type says what is in it, down to the dtype."""
    for _ in range(16):
        what = kind.WhichOneof("value")
        if what is None:
            return False
        inner = getattr(kind, what)
        if hasattr(inner, "shape"):
            return inner.elem_type != 0
        if not hasattr(inner, "elem_type"):  # a map, or something opaque
            return True
        kind = inner.elem_type
    return False


def tidy(patient: Patient) -> Iterator[Finding]:
    """Nodes and weights that nobody reads, names that repeat, weights that are inputs."""
    dead, names, unused, inputs = [], [], [], []
    for scope in patient.scopes:
        live = _live(scope)
        dead += [scope.place(i) for i in range(len(scope.nodes)) if i not in live]
        repeated = {n for n, c in Counter(node.name for node in scope.nodes if node.name).items() if c > 1}
        names += [scope.place(i) for i, node in enumerate(scope.nodes) if node.name in repeated]
        unused += [(scope, t) for name, t in scope.initializers.items() if not scope.is_read(name)]
        if patient.model.ir_version >= 4 and not scope.is_function:
            # A single number or a short list is an input with a default value, as it should be.
            inputs += [
                (scope, name)
                for name in scope.inputs
                if name in scope.initializers and count_of(scope.initializers[name].dims) >= _LEAST_WEIGHT
            ]
    if dead:
        yield finding(DEAD, f"The results of {nodes(len(dead))} reach no output.", dead)
    if names:
        yield finding(
            SAME_NAME, f"Not unique: the names of {nodes(len(names))}, such as {plain(names[0].name)!r}.", names
        )
    wasted = sum(expected_bytes(t) or 0 for _, t in unused)
    if wasted > 4096 and wasted > patient.weights_bytes // 50:
        text = f"{count(len(unused), 'tensor')} of {amount(wasted)}; the weights have {amount(patient.weights_bytes)} in all."
        yield finding(UNUSED, text, [Place("tensor", t.name, None, s.label) for s, t in unused])
    if inputs:
        text = f"{count(len(inputs), 'initializer')}: {listed(n for _, n in inputs)}."
        yield finding(AS_INPUTS, text, [Place("input", n, None, s.label) for s, n in inputs])


def _live(scope: Scope) -> set[int]:
    """Indices of the nodes whose results reach an output."""
    found: set[int] = set()
    waiting = [scope.producer[n] for n in scope.outputs if n in scope.producer]
    while waiting:
        index = waiting.pop()
        if index not in found:
            found.add(index)
            waiting += _before(scope, index)
    return found


def recursion(patient: Patient) -> Iterator[Finding]:
    calls = {
        key: {(domain(n), n.op_type) for n in f.node if (domain(n), n.op_type) in patient.functions}
        for key, f in patient.functions.items()
    }
    for key, called in calls.items():
        reached, waiting = set(), list(called)
        while waiting:
            other = waiting.pop()
            if other not in reached:
                reached.add(other)
                waiting += calls[other]
        if key in reached:
            name = f"{plain(key[0])}::{plain(key[1])}"
            yield finding(RECURSIVE, f"{name} is called within itself.", Place("function", name))
            return


def checker(patient: Patient) -> Iterator[Finding]:
    """What onnx.checker says that no other check has said; and whether it survived to say it."""
    opinion = patient.opinion
    if opinion is None:
        return
    if opinion.died:
        yield finding(DIE, f"{opinion.during}: {opinion.died}.")
    elif opinion.checker:
        words = " ".join(plain(opinion.checker.split("==> Context")[0], None).split())[:400]
        formal = any(start in words for start in _FORMAL)
        yield finding(FORMALITY if formal else CHECKER, f"onnx.checker says: {words}")


CHECKS = (order, types, tidy, recursion)
