"""The graph itself: every tensor written once and before it is read, and nothing in it for nothing."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator

import onnx

from .patient import Patient, Scope, domain, expected_bytes
from .vocabulary import ERROR, NOTE, WARNING, Finding, Place, amount, code, finding, listed, nodes, plain

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
INCOMPLETE = code(
    "type-missing",
    NOTE,
    "01",
    "An input or output does not say its dtype or shape",
    "ONNX Runtime loads it all the same, other tools may not: save the model after onnx.shape_inference.infer_shapes.",
)


def order(patient: Patient) -> Iterator[Finding]:
    """Names: undefined, written twice, read too early, in a circle."""
    undefined, twice, early, circles, outputs = [], [], [], [], []
    for scope in patient.scopes:
        known, later = _outside_names(scope), set(scope.producer)
        given = set(scope.inputs) | set(scope.initializers) | scope.sparse
        twice += [(Place("input", n, None, scope.label), n) for n, c in Counter(scope.inputs).items() if c > 1]
        defined = set(given)
        early_here = []
        for index, node in enumerate(scope.nodes):
            reads = {*node.input, *(n for child in scope.children.get(index, ()) for n in _free(child))} - {""}
            for name in reads - defined - known:
                if name in later:
                    early_here.append((index, name))
                else:
                    undefined.append((scope.place(index), name, scope))
            for name in filter(None, node.output):
                if name in defined:
                    twice.append((scope.place(index), name))
                defined.add(name)
        outputs += [
            (Place("output", n, None, scope.label), n, scope) for n in scope.outputs if n and n not in defined | known
        ]
        circle = _circle(scope) if early_here else []
        if circle:
            circles.append((scope, circle))
        else:
            early += [(scope.place(index), name) for index, name in early_here]
    for scope, circle in circles:
        way = " → ".join(plain(scope.place(i).name) for i in [*circle[:6], circle[0]])
        yield finding(CYCLE, f"{nodes(len(circle))} wait for each other: {way}.", [scope.place(i) for i in circle])
    if early:
        yield finding(
            UNSORTED,
            f"{early[0][0]} reads {plain(early[0][1])!r}, which a node behind it writes.",
            [p for p, _ in early],
        )
    if undefined:
        place, name, scope = undefined[0]
        yield finding(UNDEFINED, f"{place} reads {plain(name)!r}.{_near(name, scope)}", [p for p, *_ in undefined])
    if twice:
        yield finding(TWICE, f"{plain(twice[0][1])!r} is written more than once.", [p for p, _ in twice])
    if outputs:
        _, name, scope = outputs[0]
        yield finding(
            NO_OUTPUT, f"{plain(name)!r} is listed as an output.{_near(name, scope)}", [p for p, *_ in outputs]
        )


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
            inputs += [(scope, name) for name in scope.inputs if name in scope.initializers]
    if dead:
        yield finding(DEAD, f"The results of {nodes(len(dead))} reach no output.", dead)
    if names:
        yield finding(SAME_NAME, f"{nodes(len(names))} have a name that another one has, too.", names)
    wasted = sum(expected_bytes(t) or 0 for _, t in unused)
    if wasted > 4096 and wasted > patient.weights_bytes // 50:
        text = f"{len(unused):,} tensors of {amount(wasted)}, of {amount(patient.weights_bytes)} of weights in all."
        yield finding(UNUSED, text, [Place("tensor", t.name, None, s.label) for s, t in unused])
    if inputs:
        text = f"{len(inputs):,} initializers are inputs as well: {listed(n for _, n in inputs)}."
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
    for key in calls:
        reached, waiting = set(), list(calls[key])
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
    """What onnx.checker says that no other check has said. It sees the model without long weights."""
    try:
        onnx.checker.check_model(without_data(patient))
    except Exception as error:  # its own class, and those of the layers below
        words = " ".join(plain(str(error), None).split("==> Context")[0].split())[:400]
        if "is required but missing" in words and ("'shape'" in words or "'type'" in words or "elem_type" in words):
            yield finding(INCOMPLETE, f"onnx.checker says: {words}")
        elif "parsing message of type" not in words:
            yield finding(CHECKER, f"onnx.checker says: {words}")


def without_data(patient: Patient, *, keep_shapes: bool = False) -> onnx.ModelProto:
    """A copy for the tools of onnx: tensors whose data is not at hand become empty ones, or keep their shape and say
    that their data is elsewhere."""
    copy = onnx.ModelProto()
    copy.CopyFrom(patient.model)
    waiting = [copy.graph, *copy.functions]
    while waiting:
        graph = waiting.pop()
        tensors = list(graph.initializer) if isinstance(graph, onnx.GraphProto) else []
        for node in graph.node:
            for a in node.attribute:
                tensors += ([a.t] if a.HasField("t") else []) + list(a.tensors)
                waiting += ([a.g] if a.HasField("g") else []) + list(a.graphs)
        for tensor in tensors:
            if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.raw_data in patient.pieces:
                for name in ("external_data", "data_location", "raw_data"):
                    tensor.ClearField(name)
                if keep_shapes:
                    tensor.data_location = onnx.TensorProto.EXTERNAL
                    tensor.external_data.add(key="location", value="elsewhere")
                else:
                    tensor.dims[:] = [0]
                    tensor.raw_data = b""
    return copy


CHECKS = (order, tidy, recursion)
