"""Graphs, nodes and tensors: small questions that many checks ask of them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Container, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, TensorProto

from .vocabulary import Place

STANDARD = ("", "ai.onnx")
HOLE = "elsewhere"  # the name of the file that stands in the place of weights
ELSEWHERE = "com.microsoft"  # a domain in which the tools of onnx know no operator
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

    @functools.cached_property
    def declared(self) -> dict[str, int]:
        """Name → dtype of the tensors for which this graph itself tells it."""
        values = () if self.is_function else (*self.body.input, *self.body.value_info)
        return {v.name: v.type.tensor_type.elem_type for v in values}

    def version(self, node: NodeProto) -> int | None:
        """The opset version that counts for a node; None where its domain is not imported."""
        return self.opsets.get(domain(node))

    def is_read(self, name: str) -> bool:
        return name in self.readers or name in self.inner_reads or name in self.outputs

    def free(self) -> list[str]:
        """Names that this graph, or a graph in its nodes, takes from outside."""
        reads = dict.fromkeys((*self.readers, *self.outputs, *sorted(self.inner_reads, key=repr)))  # some are bytes
        own = {*self.producer, *self.initializers, *self.sparse, *self.inputs}
        return [name for name in reads if name not in own]


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
                value = onnx.helper.get_attribute_value(a)
            except ValueError:  # no type given, or one that this onnx does not know
                return default
            return default if value is None else value  # newer versions of onnx: no type given
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


def constant(node: NodeProto) -> TensorProto | None:
    """The tensor that a Constant gives; None for any other node."""
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


def without_data(
    model: onnx.ModelProto,
    pieces: Container[bytes],
    *,
    keep_shapes: bool = False,
    small: Callable[[TensorProto], bytes | None] = lambda tensor: None,
    unknown: Callable[[NodeProto], bool] = lambda node: False,
) -> onnx.ModelProto:
    """A copy for the tools of onnx: tensors whose data is not at hand become empty ones, or keep their shape and say
    that their data is elsewhere.

    small: the data of a tensor that lies in another file and is put in; None to leave it out. unknown: standard operators
    that the tools do not know, and the runtime does; they are put into a domain of its own, where the tools pass over them,
    so that they look at the rest.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    waiting, renamed = [copy.graph, *copy.functions], False
    while waiting:
        graph = waiting.pop()
        tensors = list(graph.initializer) if isinstance(graph, onnx.GraphProto) else []
        for node in graph.node:
            if node.domain in STANDARD and unknown(node):
                node.domain, renamed = ELSEWHERE, True
            for a in node.attribute:
                tensors += ([a.t] if a.HasField("t") else []) + list(a.tensors)
                waiting += ([a.g] if a.HasField("g") else []) + list(a.graphs)
        for tensor in tensors:
            data = small(tensor) if tensor.data_location == onnx.TensorProto.EXTERNAL else None
            if data is not None or tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.raw_data in pieces:
                _replace(tensor, data, keep_shapes)
    for body in (copy, *copy.functions) if renamed else ():
        if not any(opset.domain == ELSEWHERE for opset in body.opset_import):
            body.opset_import.add(domain=ELSEWHERE, version=1)
    return copy


def _replace(tensor: TensorProto, data: bytes | None, keep_shape: bool) -> None:
    """Put other data in the place of a tensor's own: this, or a hole of the same shape, or none at all."""
    for name in ("external_data", "data_location", "raw_data"):
        tensor.ClearField(name)
    if data is not None:
        tensor.raw_data = data
    elif keep_shape:
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=HOLE)
    else:
        tensor.dims[:] = [0]
        tensor.raw_data = b""


def input_values(graph: GraphProto) -> list[onnx.ValueInfoProto]:
    """What a caller feeds: the graph's inputs without its initializers."""
    stored = {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
    return [v for v in graph.input if v.name not in stored]
