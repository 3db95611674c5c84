"""Sizes: frozen, unknown, contradictory, or too large to be meant."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import ValueInfoProto

from .parts import STANDARD, expected_bytes, input_values, is_op
from .patient import Patient
from .vocabulary import ERROR, NOTE, WARNING, Finding, Place, amount, code, finding, listed, plain

BATCH = code(
    "batch-fixed",
    NOTE,
    "04",
    "The batch size is fixed",
    "To feed any number of examples, export with dynamic_shapes=({0: 'batch'},). For one example at a time, leave it.",
)
UNKNOWN = code(
    "shape-unknown",
    NOTE,
    "04",
    "Shapes are unknown from some node on",
    "Try onnxruntime.tools.symbolic_shape_infer, or quant_pre_process: quantization and mobile providers need shapes.",
)
CONFLICT = code(
    "shape-conflict",
    WARNING,
    "04",
    "Shapes or dtypes contradict each other",
    "If value_info is out of date, delete it and run onnx.shape_inference.infer_shapes. Else correct the node that is named.",
)
DTYPE = code(
    "dtype-not-allowed",
    ERROR,
    "01",
    "An operator is fed a dtype that it does not take",
    "Put a Cast before the node that is named, or convert or export the model in float32.",
)
HUGE = code(
    "tensor-huge",
    ERROR,
    "04",
    "A tensor would take more memory than a machine has",
    "Correct the shape. Do not load such a file from somebody you do not trust: it fills the memory.",
)
_WITH_WEIGHTS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN", "MatMulInteger", "ConvInteger", "QLinearConv", "QLinearMatMul")  # fmt: skip
_HUGE = 256 * 2**30  # bytes


def _dims(value: ValueInfoProto) -> list[int | str | None] | None:
    """Sizes as the file has them: a number, a name, or None; None for no shape at all, or no tensor."""
    kind = value.type.WhichOneof("value")
    if kind not in ("tensor_type", "sparse_tensor_type"):
        return None
    tensor = getattr(value.type, kind)
    if not tensor.HasField("shape"):
        return None
    return [d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in tensor.shape.dim]


def fixed_batch(patient: Patient) -> Iterator[Finding]:
    """The same number stands first in every input that has several dimensions, and in an output: that is the batch.

    Only for models that learnt something: a formula of fixed size has no batch.
    """
    graph = patient.model.graph
    learnt = any(
        is_op(node, *_WITH_WEIGHTS) and any(patient.stored(scope, name) is not None for name in node.input)
        for scope, _, node in patient.each_node()
    )
    shapes = {v.name: _dims(v) for v in input_values(graph, patient.model.ir_version)}
    several = {name: dims for name, dims in shapes.items() if dims is not None and len(dims) > 1}
    first = {dims[0] for dims in several.values()}
    if not learnt or len(first) != 1 or not isinstance(number := first.pop(), int) or number < 1:
        return
    if any(dims and dims[0] == number for dims in map(_dims, graph.output)):
        text = f"{listed(several)}: the first dimension is {number}. Another number of examples is an error."
        yield finding(BATCH, text, [Place("input", name) for name in several])


def conflict(patient: Patient) -> Iterator[Finding]:
    """What onnx.shape_inference objects to, when it is strict. A dtype that an operator does not take, no runtime forgives."""
    if patient.opinion is None or not patient.opinion.strict:
        return
    words = plain(" ".join(patient.opinion.strict.split()), None)
    # Twice "op_type": inside the function that defines a standard operator, which is the affair of onnx itself.
    beside = any(part in words for part in ("No Op registered", "external", "data type 0"))
    if not beside and words.count("(op_type:") < 2:
        what = DTYPE if "has unsupported type" in words else CONFLICT
        yield finding(what, f"onnx.shape_inference says: {words.removeprefix('[ShapeInferenceError] ')[:350]}")


def huge(patient: Patient) -> Iterator[Finding]:
    found = []
    for name, value in patient.inferred.items():
        dims = _dims(value)
        if dims and all(isinstance(d, int) and d >= 0 for d in dims):
            tensor = onnx.TensorProto(data_type=value.type.tensor_type.elem_type or 1, dims=dims)
            size = expected_bytes(tensor)
            if size is not None and size > _HUGE:
                found.append((size, name, dims))
    if found:
        size, name, dims = max(found)
        yield finding(
            HUGE, f"{plain(name)!r} has the shape {dims}: {amount(size)}.", [Place("tensor", n) for _, n, _ in found]
        )


def unknown(patient: Patient) -> Iterator[Finding]:
    """Standard operators whose inputs have shapes and whose result has none: here the shapes are lost."""
    if not patient.inferred:
        return
    scope = patient.main
    has = {
        name
        for name, value in patient.inferred.items()
        if value.type.WhichOneof("value") != "tensor_type" or _dims(value) is not None
    }
    has |= {*scope.initializers, *scope.sparse, ""}
    lost = [
        index
        for index, node in enumerate(scope.nodes)
        if node.domain in STANDARD
        and not patient.only_in_runtime(node)  # of its own operators ONNX Runtime knows the shapes
        and has.issuperset(node.input)
        and any(name not in has and scope.is_read(name) for name in node.output)
    ]
    if lost:
        ops = listed(dict.fromkeys(scope.nodes[i].op_type for i in lost))
        behind = sum(name not in has and scope.is_read(name) for node in scope.nodes for name in node.output)
        text = f"Even onnx.shape_inference does not know {behind} tensor{'s' * (behind > 1)}. They are lost at: {ops}."
        yield finding(UNKNOWN, text, [scope.place(i) for i in lost])


CHECKS = (fixed_batch, conflict, huge, unknown)
