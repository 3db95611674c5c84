"""The graph as a whole: typed inputs, nothing in it for nothing, no function that calls itself, and what onnx.checker says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import onnx

from ..child.onnx_tools import Opinion
from ..parts import Scope, count_of, domain, expected_bytes, inner_graphs, is_op
from ..patient import Patient
from ..vocabulary import ERROR, NOTE, WARNING, Finding, Place, amount, code, count, finding, listed, nodes, plain
from .names import before

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
    ERROR,
    "01",
    "Nodes share a name",
    "Give each node a name of its own, or none: ONNX Runtime refuses names that repeat, except for Constants.",
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
    "06_why_not_fused",
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
    "Field 'name' of 'graph'",
    "duplicate keys in metadata_props",
)


def types(patient: Patient) -> Iterator[Finding]:
    """Inputs of the main graph without a type, or with one that does not say of what. ONNX Runtime wants all of them."""
    found = [v.name for v in patient.model.graph.input if not _says(v.type)]
    if found:
        yield finding(
            NO_TYPE, f"{count(len(found), 'input')}: {listed(found)}.", [Place("input", name) for name in found]
        )


def _says(kind: onnx.TypeProto) -> bool:
    """Whether a type says what is in it, down to the dtype."""
    while True:  # a type within a type, as deep as the file has it
        what = kind.WhichOneof("value")
        if what is None:
            return False
        inner = getattr(kind, what)
        if hasattr(inner, "shape"):
            return inner.elem_type != 0
        if not hasattr(inner, "elem_type"):  # a map, or something opaque
            return True
        kind = inner.elem_type


def tidy(patient: Patient) -> Iterator[Finding]:
    """Nodes and weights that nobody reads, names that repeat, weights that are inputs."""
    dead, names, unused, inputs = [], [], [], []
    for scope in patient.scopes:
        live = _live(scope)
        dead += [scope.place(i) for i in range(len(scope.nodes)) if i not in live]
        # ONNX Runtime takes Constants out of the graph before it looks at the names.
        given = Counter(node.name for node in scope.nodes if node.name and not is_op(node, "Constant"))
        repeated = {n for n, c in given.items() if c > 1}
        names += [
            scope.place(i)
            for i, node in enumerate(scope.nodes)
            if node.name in repeated and not is_op(node, "Constant")
        ]
        unused += [(scope, t) for name, t in scope.initializers.items() if not scope.is_read(name)]
        if patient.model.ir_version >= 4:
            # A single number or a short list is an input with a default value, as it should be.
            inputs += [
                (scope, name)
                for name in scope.inputs
                if name in scope.initializers and count_of(scope.initializers[name].dims) >= _LEAST_WEIGHT
            ]
    if dead:
        yield finding(DEAD, f"The results of {nodes(len(dead))} reach no output.", dead)
    if names:
        text = f"Not unique: the names of {nodes(len(names))}, such as {plain(names[0].name)!r}."
        yield finding(SAME_NAME, text, names)
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
            waiting += before(scope, index)
    return found


def recursion(patient: Patient) -> Iterator[Finding]:
    calls = {key: _called(f) & set(patient.functions) for key, f in patient.functions.items()}
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


def _called(function: onnx.FunctionProto) -> set[tuple[str, str]]:
    """Domain and name of all that a function's nodes are, also in the graphs inside them."""
    found, waiting = set(), list(function.node)
    while waiting:
        node = waiting.pop()
        found.add((domain(node), node.op_type))
        waiting += [inner for _, graph in inner_graphs(node) for inner in graph.node]
    return found


def checker(patient: Patient) -> Iterator[Finding]:
    """What onnx.checker says that no other check has said; and whether it survived to say it."""
    opinion = patient.opinion
    if opinion is None:
        return
    if opinion.died:
        yield finding(DIE, f"{opinion.during}: {opinion.died}.")
    elif opinion.checker:
        words = plain(" ".join(opinion.checker.split("==> Context")[0].split()), None)[:400]
        yield finding(CHECKER if objects(opinion) else FORMALITY, f"onnx.checker says: {words}")


def objects(opinion: Opinion) -> bool:
    """Whether the checker objects to more than a formal point."""
    words = " ".join(opinion.checker.split("==> Context")[0].split())
    return bool(words) and not any(start in words for start in _FORMAL)


CHECKS = (types, tidy, recursion)
