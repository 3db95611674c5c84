"""The model as the checks see it: its graphs, with who writes and who reads each tensor."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto

from .child import runtime
from .child.onnx_tools import STARTING, Opinion, Verdict, ask, ask_runtime
from .file.skeleton import KEPT, Piece
from .parts import STANDARD, Scope, constant, expected_bytes, inner_graphs, is_op, without_data
from .vocabulary import Place, plain

MOST_GRAPHS = 200_000
_MAY_BE_SHAPES = (TensorProto.INT64, TensorProto.INT32, TensorProto.FLOAT)
MOST_NODES = 100_000  # for shape inference
MOST_WEIGHTS = 8 * 10**9  # bytes that ONNX Runtime may be shown as a hole: they count as its memory


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
    loaded: bool | None = None  # what became of it in a trial: ONNX Runtime loaded it, or refused it with these words
    refusal: str = ""
    unfinished: list[str] = field(default_factory=list)  # what went wrong in the examination, not in the model
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
                scope.outer.inner_reads.update(scope.free())
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
            "because of what was found" if not self.sound  # they mean nothing then; and some errors end the process
            else "because long lists in attributes were left out" if self.cut_lists
            else f"because {count:,} nodes are too many" if count > MOST_NODES
            else ""
        )  # fmt: skip
        if why:
            self.not_checked.append(f"onnx.checker and onnx.shape_inference were not asked, {why}.")
            return None
        bare, empty = (self._bare(keep, unknown=self.only_in_runtime) for keep in (True, False))
        found = ask(bare, empty, self.seconds)
        if found.died and found.during == STARTING:
            self.unfinished.append(f"The tools of onnx did not start: {plain(found.died)}.")
            return None
        if found.problem:
            self.not_checked.append(f"Shapes were not worked out: {plain(found.problem, 200)}")
        return found

    def only_in_runtime(self, node: NodeProto) -> bool:
        """Whether the opset of the file has this standard operator for ONNX Runtime, and not for the onnx package.

        So it is with operators that ONNX Runtime adds (SimplifiedLayerNormalization), has in older opsets
        (LayerNormalization), or has in opsets that are newer than the package.
        """
        version = self.opsets.get("", 1)
        try:
            onnx.defs.get_schema(node.op_type, version)
        except onnx.defs.SchemaError:
            inforce = [s for s in runtime.schemas().get(("", node.op_type), ()) if s.since <= version]
            return bool(inforce) and not inforce[-1].withdrawn
        return False

    def _bare(self, keep_shapes: bool, **how: Callable[[NodeProto], bool]) -> bytes:
        """The model without its long weights, whose shapes are still told. Short ones are put in: they may be shapes."""
        bare = without_data(self.model, self.pieces, keep_shapes=keep_shapes, small=self._short, **how)
        return bare.SerializeToString()

    @property
    def _shapes_missing(self) -> bool:
        outside = (t for _, t in self.each_tensor() if t.data_location == TensorProto.EXTERNAL)
        short = (t for t in outside if 0 < (expected_bytes(t) or 0) < KEPT and t.data_type in _MAY_BE_SHAPES)
        return any(self._short(t) is None for t in short)

    def _short(self, tensor: TensorProto) -> bytes | None:
        """The data of a short tensor in another file, where it is to be had."""
        from .findings.weights import chunks, source

        if (expected_bytes(tensor) or KEPT) >= KEPT:
            return None
        return b"".join(chunks(self, tensor)) if source(self, tensor) is not None else None

    @functools.cached_property
    def verdict(self) -> Verdict:
        """Whether ONNX Runtime takes the model, asked without its long weights; nothing in it is executed."""
        if runtime.absent():
            return Verdict()
        why = (
            "because long lists in attributes were left out" if self.cut_lists
            else "because it has too many nodes" if sum(len(scope.nodes) for scope in self.scopes) > MOST_NODES
            else "because its weights are too large" if self.weights_bytes > MOST_WEIGHTS
            else "because shapes may be among the data in other files" if self._shapes_missing
            else ""
        )  # fmt: skip
        if not why:
            largest = max((expected_bytes(t) or 0 for _, t in self.each_tensor()), default=0)
            found = ask_runtime(self._bare(True), largest, self.seconds)
            if found.loads is False and largest > KEPT and "by zero" in found.words:
                return Verdict()  # of zeros in the place of weights
            if found.loads is not None or found.died:
                return found
            why = f"because {plain(found.words, 200)}"
        self.not_checked.append(f"ONNX Runtime was not asked whether it loads the model, {why}.")
        return Verdict()

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
                return constant(node)
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
