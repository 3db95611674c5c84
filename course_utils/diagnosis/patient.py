"""The model as the checks see it: its graphs, with who writes and who reads each tensor."""

from __future__ import annotations

import functools
import math
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto

from .skeleton import Piece
from .tools import Opinion, ask
from .vocabulary import Place, plain

STANDARD = ("", "ai.onnx")
MOST_GRAPHS = 200_000
MOST_NODES = 100_000  # for shape inference
_BITS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}
_DTYPES = {value: name for name, value in TensorProto.DataType.items()}


class Scope:
    """One graph: the main one, one inside a node (of If, Loop, Scan), or the body of a function.

    label: where it is, empty for the main graph. opsets: domain → version that counts here.
    """

    def __init__(
        self, body: GraphProto | onnx.FunctionProto, label: str, outer: Scope | None, opsets: dict[str, int]
    ) -> None:
        self.body, self.label, self.outer, self.opsets = body, label, outer, opsets
        self.is_function = isinstance(body, onnx.FunctionProto)
        self.nodes: list[NodeProto] = list(body.node)
        self.initializers: dict[str, TensorProto] = {}
        self.sparse: set[str] = set()
        if not self.is_function:
            self.initializers = {t.name: t for t in body.initializer}
            self.sparse = {t.values.name for t in body.sparse_initializer}
        self.inputs: list[str] = list(body.input) if self.is_function else [v.name for v in body.input]
        self.outputs: list[str] = list(body.output) if self.is_function else [v.name for v in body.output]
        self.producer = {name: i for i, node in enumerate(self.nodes) for name in node.output if name}
        self.readers: dict[str, list[int]] = {}
        for i, node in enumerate(self.nodes):
            for name in dict.fromkeys(node.input):
                self.readers.setdefault(name, []).append(i)
        self.inner_reads: set[str] = set()  # names that graphs inside this one's nodes read
        self.children: dict[int, list[Scope]] = {}

    def place(self, index: int) -> Place:
        node = self.nodes[index]
        return Place("node", node.name or next(iter(node.output), "") or node.op_type, index, self.label)

    def version(self, node: NodeProto) -> int | None:
        """The opset version that counts for a node; None where its domain is not imported."""
        return self.opsets.get(domain(node))

    def is_read(self, name: str) -> bool:
        return name in self.readers or name in self.inner_reads or name in self.outputs


def domain(node: NodeProto) -> str:
    return "" if node.domain in STANDARD else node.domain


def is_op(node: NodeProto, *op_types: str) -> bool:
    """Whether a node is one of these standard operators."""
    return node.op_type in op_types and node.domain in STANDARD


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """The value of a node's attribute; the default where it is not there, or refers to a function's attribute."""
    for a in node.attribute:
        if a.name == name and not a.ref_attr_name:
            try:
                return onnx.helper.get_attribute_value(a)
            except ValueError:  # no type given
                return default
    return default


def inner_graphs(node: NodeProto) -> Iterator[tuple[str, GraphProto]]:
    for a in node.attribute:
        if a.HasField("g"):
            yield a.name, a.g
        for graph in a.graphs:
            yield a.name, graph


def dtype_name(number: int) -> str:
    return _DTYPES.get(number, f"type {number}").lower()


def count_of(dims: Any) -> int:
    return math.prod(dims)


def expected_bytes(tensor: TensorProto) -> int | None:
    """Bytes of a tensor's data by its dtype and shape; None for text, unknown dtypes, and impossible sizes."""
    name = _DTYPES.get(tensor.data_type, "UNDEFINED")
    if name in ("STRING", "UNDEFINED") or any(d < 0 for d in tensor.dims):
        return None
    count = count_of(tensor.dims)
    if name in _BITS:
        return -(-count * _BITS[name] // 8)
    try:
        return count * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, TypeError):
        return None


@dataclass(frozen=True)
class External:
    """Where a tensor says that its data is. path: None where it may not be opened. problem: why not."""

    location: str
    offset: int
    length: int | None
    path: Path | None
    problem: str = ""


@dataclass
class Patient:
    """What is examined. file: None for a model that is no file. pieces: of the skeleton, see there."""

    model: onnx.ModelProto
    file: Path | None = None
    size: int = 0
    pieces: dict[bytes, Piece] = field(default_factory=dict)
    cut_lists: bool = False
    requested_opset: int | None = None
    seconds: float = 60  # for the tools of onnx
    sound: bool = True  # no error was found so far
    not_checked: list[str] = field(default_factory=list)
    budget: int = 512 * 2**20  # bytes of weights that may be looked at

    @functools.cached_property
    def opsets(self) -> dict[str, int]:
        return {"" if o.domain in STANDARD else o.domain: o.version for o in self.model.opset_import}

    @functools.cached_property
    def functions(self) -> dict[tuple[str, str], onnx.FunctionProto]:
        return {("" if f.domain in STANDARD else f.domain, f.name): f for f in self.model.functions}

    @functools.cached_property
    def main(self) -> Scope:
        return self.scopes[0]

    @functools.cached_property
    def scopes(self) -> list[Scope]:
        """The main graph first, then the graphs in its nodes, then the functions with theirs."""
        found: list[Scope] = []
        roots = [Scope(self.model.graph, "", None, self.opsets)]
        for f in self.model.functions:
            opsets = {"" if o.domain in STANDARD else o.domain: o.version for o in f.opset_import}
            roots.append(Scope(f, f"function {plain(f.domain)}::{plain(f.name)}", None, {**self.opsets, **opsets}))
        waiting = roots[::-1]
        while waiting and len(found) < MOST_GRAPHS:
            scope = waiting.pop()
            found.append(scope)
            for i, node in enumerate(scope.nodes):
                for name, graph in inner_graphs(node):
                    label = f"{scope.label}{' / ' if scope.label else ''}{node.op_type} {plain(node.name or str(i))} / {plain(name)}"
                    child = Scope(graph, label, scope, scope.opsets)
                    scope.children.setdefault(i, []).append(child)
                    waiting.append(child)
        for scope in reversed(found):  # inner graphs first, so that their reads reach every graph around them
            if scope.outer is not None:
                outside = {*scope.readers, *scope.inner_reads, *scope.outputs}
                scope.outer.inner_reads |= outside - {
                    *scope.producer,
                    *scope.initializers,
                    *scope.sparse,
                    *scope.inputs,
                }
        return found

    def each_node(self) -> Iterator[tuple[Scope, int, NodeProto]]:
        for scope in self.scopes:
            for index, node in enumerate(scope.nodes):
                yield scope, index, node

    def each_tensor(self) -> Iterator[tuple[Place, TensorProto]]:
        """Every dense tensor that is stored: initializers, and tensors in attributes."""
        for scope in self.scopes:
            for tensor in scope.initializers.values():
                yield Place("tensor", tensor.name, None, scope.label), tensor
            for index, node in enumerate(scope.nodes):
                for a in node.attribute:
                    for tensor in ([a.t] if a.HasField("t") else []) + list(a.tensors):
                        yield scope.place(index), tensor

    @functools.cached_property
    def weights_bytes(self) -> int:
        return sum(expected_bytes(t) or 0 for _, t in self.each_tensor())

    @functools.cached_property
    def opinion(self) -> Opinion | None:
        """What the tools of onnx say of the model without its long weights. None where they were not asked."""
        count = sum(len(scope.nodes) for scope in self.scopes)
        why = (
            "because of the errors" if not self.sound  # they mean nothing then; and some errors end the process
            else "because long lists in attributes were left out" if self.cut_lists
            else f"because {count:,} nodes are too many" if count > MOST_NODES
            else ""
        )  # fmt: skip
        if why:
            self.not_checked.append(f"onnx.checker and onnx.shape_inference were not asked, {why}.")
            return None
        bare, empty = (without_data(self.model, self.pieces, keep_shapes=keep) for keep in (True, False))
        found = ask(bare.SerializeToString(), empty.SerializeToString(), self.seconds)
        if found.problem:
            self.not_checked.append(f"Shapes were not worked out: {plain(found.problem, 200)}")
        return found

    @functools.cached_property
    def inferred(self) -> dict[str, onnx.ValueInfoProto]:
        """Name → type and shape of each tensor of the main graph, as far as onnx.shape_inference knows them."""
        graph = self.opinion.inferred if self.opinion is not None else onnx.GraphProto()
        return {v.name: v for v in (*graph.value_info, *graph.output, *graph.input)}

    @functools.cached_property
    def tensor_types(self) -> dict[str, int]:
        """Name → dtype of the tensors of the main graph, as far as it is known."""
        found = {name: v.type.tensor_type.elem_type for name, v in self.inferred.items()}
        return {**found, **{name: t.data_type for name, t in self.main.initializers.items()}}

    def stored(self, scope: Scope, name: str) -> TensorProto | None:
        """The tensor that a name always stands for: an initializer or a Constant, also through Identity or from outside.

        An initializer that is an input as well is none: a caller may feed another value (from IR version 4 on).
        """
        here: Scope | None = scope
        for _ in range(16):
            if here is None or not name:
                return None
            if name in here.initializers:
                fed = name in here.inputs and self.model.ir_version >= 4
                return None if fed else here.initializers[name]
            if name in here.producer:
                node = here.nodes[here.producer[name]]
                if is_op(node, "Identity") and node.input:
                    name = node.input[0]
                    continue
                return _constant(node)
            if name in here.inputs:
                return None
            here = here.outer
        return None

    def value(self, scope: Scope, name: str) -> np.ndarray | None:
        """The value of a small constant; None where it is none, or is large, or cannot be read."""
        tensor = self.stored(scope, name)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL or tensor.raw_data in self.pieces:
            return None
        try:
            return onnx.numpy_helper.to_array(tensor)
        except Exception:  # damaged data; `numbers` says so
            return None


def _constant(node: NodeProto) -> TensorProto | None:
    if not is_op(node, "Constant") or len(node.attribute) != 1:
        return None
    (a,) = node.attribute
    if a.ref_attr_name:
        return None
    if a.name == "value" and a.HasField("t"):
        return a.t
    kinds = {"value_float": a.f, "value_int": a.i, "value_floats": list(a.floats), "value_ints": list(a.ints)}
    if a.name not in kinds:
        return None
    wanted = np.float32 if "float" in a.name else np.int64
    return onnx.numpy_helper.from_array(np.asarray(kinds[a.name], wanted))


def locate(patient: Patient, tensor: TensorProto) -> External:
    """Where an external tensor's data is. Only files below the model's own folder are ever opened."""
    entries = {plain(e.key): e.value for e in tensor.external_data}
    name = entries.get("location", "")
    offset, length = _number(entries.get("offset", "0")), _number(entries.get("length", ""))
    location = plain(name, None)
    if not name:
        return External("", 0, length, None, "it names no file")
    if offset is None or offset < 0 or (length is None and "length" in entries) or (length or 0) < 0:
        return External(location, 0, length, None, "its offset or length is no number")
    if patient.file is None:
        return External(location, offset, length, None)
    if not _inside(patient.file, name):
        return External(location, offset, length, None, OUTSIDE)
    return External(location, offset, length, patient.file.parent / name)


OUTSIDE = "outside"


def _inside(model: Path, name: str | bytes) -> bool:
    """Whether a name leads to a place below the model's folder.

    A link may lead on, as in the cache of the Hugging Face hub, where the model itself is one and its real folder holds
    both files. ONNX Runtime has the same rule.
    """
    if isinstance(name, bytes) or "\0" in name or "\\" in name or ":" in name[1:2]:
        return False
    if Path(name).is_absolute() or ".." in Path(name).parts:
        return False
    try:
        target = (model.parent / name).resolve()
        return any(target.is_relative_to(folder) for folder in (model.parent.resolve(), model.resolve().parent))
    except (OSError, RuntimeError, ValueError):  # a circle of links, a name that is too long
        return False


def _number(text: str | bytes) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def without_data(model: onnx.ModelProto, pieces: Container[bytes], *, keep_shapes: bool = False) -> onnx.ModelProto:
    """A copy for the tools of onnx: tensors whose data is not at hand become empty ones, or keep their shape and say
    that their data is elsewhere."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    waiting = [copy.graph, *copy.functions]
    while waiting:
        graph = waiting.pop()
        tensors = list(graph.initializer) if isinstance(graph, onnx.GraphProto) else []
        for node in graph.node:
            for a in node.attribute:
                tensors += ([a.t] if a.HasField("t") else []) + list(a.tensors)
                waiting += ([a.g] if a.HasField("g") else []) + list(a.graphs)
        for tensor in tensors:
            if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.raw_data in pieces:
                for name in ("external_data", "data_location", "raw_data"):
                    tensor.ClearField(name)
                if keep_shapes:
                    tensor.data_location = onnx.TensorProto.EXTERNAL
                    tensor.external_data.add(key="location", value="elsewhere")
                else:
                    tensor.dims[:] = [0]
                    tensor.raw_data = b""
    return copy


def input_values(graph: GraphProto, ir_version: int) -> list[onnx.ValueInfoProto]:
    """What a caller feeds: the graph's inputs without its initializers."""
    stored = {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
    return [v for v in graph.input if v.name not in stored]


__all__ = [
    "STANDARD", "AttributeProto", "External", "Patient", "Scope", "attribute", "count_of", "domain", "dtype_name",
    "expected_bytes", "inner_graphs", "input_values", "is_op", "locate", "without_data",
]  # fmt: skip
