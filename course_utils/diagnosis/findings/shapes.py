"""Sizes: frozen, unknown, contradictory, or too large to be meant."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import ValueInfoProto

from ..parts import STANDARD, attribute, expected_bytes, input_values, is_op
from ..patient import Patient
from ..vocabulary import ERROR, NOTE, WARNING, Finding, Place, amount, code, finding, listed, plain
from .structure import objects

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
    "09_unknown_shapes",
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


def shape_of(value: ValueInfoProto) -> list[int | None] | None:
    """Sizes as the file has them: a number, or None where it is free; None for no shape at all, or no tensor."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]


def fixed_batch(patient: Patient) -> Iterator[Finding]:
    """One number stands in every input that has several dimensions where the batch is, and in an output: it is fixed.

    Only for models that learnt something: a formula of fixed size has no batch.
    """
    graph = patient.model.graph
    learnt = any(
        is_op(node, *_WITH_WEIGHTS) and any(patient.stored(scope, name) is not None for name in node.input)
        for scope, _, node in patient.each_node()
    )
    axes = _batch_axes(patient)
    shapes = {v.name: shape_of(v) for v in input_values(graph)}
    several = {name: dims for name, dims in shapes.items() if dims is not None and len(dims) > 1}
    sizes = {dims[axes.get(name, 0) % len(dims)] for name, dims in several.items()}
    number = sizes.pop() if learnt and len(sizes) == 1 else None
    if not number:
        return
    if any(dims and number in (dims if axes else dims[:1]) for dims in map(shape_of, graph.output)):
        at = [axes.get(name, 0) for name in several]
        inputs = listed(
            f"{plain(name)} (axis {axis})" if any(at) else name for name, axis in zip(several, at, strict=True)
        )
        where = "the size of the batch" if any(at) else "the first dimension"
        text = f"{inputs}: {where} is {number}. Another number of examples is an error."
        free = ", ".join(f"{{{axis}: 'batch'}}" for axis in at[:4]) + (
            "," if len(at) == 1 else ", …" if len(at) > 4 else ""
        )
        advice = BATCH.cure.replace("{0: 'batch'},", free)
        yield finding(BATCH, text, [Place("input", name) for name in several], advice)


# Operators whose result has the axes of their first input that is no weight.
_SAME_AXES = (
    "Identity", "Cast", "Dropout", "Add", "Sub", "Mul", "Div", "MatMul", "Relu", "LeakyRelu", "Elu", "Gelu", "Erf", "Tanh", "Sigmoid",
    "Clip", "Slice", "Split", "Sqrt", "Exp", "Log", "LayerNormalization", "Softmax", "Neg", "Pow", "Where",
)  # fmt: skip


def _batch_axes(patient: Patient) -> dict[str, int]:
    """Input → the axis of the batch, where a recurrent layer tells it: time stands first there, and the batch second."""
    found: dict[str, int] = {}
    for node in patient.main.nodes:
        if is_op(node, "LSTM", "GRU", "RNN") and not attribute(node, "layout", 0):
            for name in (*node.input[:1], *node.input[5:7]):  # the sequence, and the first states
                came = _came_from(patient, name, 1)
                if came is not None:
                    found.setdefault(*came)
    return found


def _came_from(patient: Patient, name: str, axis: int) -> tuple[str, int] | None:
    """(input of the model, which of its axes) that an axis of a tensor is; None where this cannot be followed."""
    scope = patient.main
    for _ in range(64):
        if name not in scope.producer:
            return (name, axis) if name in scope.inputs else None
        node = scope.nodes[scope.producer[name]]
        if is_op(node, "Transpose"):
            perm = attribute(node, "perm")
            if not perm or not 0 <= axis < len(perm):
                return None
            axis, name = perm[axis], node.input[0]
        elif (
            is_op(node, "Gather")
            and patient.stored(scope, node.input[0]) is not None
            and not attribute(node, "axis", 0)
        ):
            name = node.input[1]  # an embedding
        elif is_op(node, *_SAME_AXES):
            name = next((n for n in node.input if patient.stored(scope, n) is None), "")
        else:
            return None
    return None


def conflict(patient: Patient) -> Iterator[Finding]:
    """What onnx.shape_inference objects to, when it is strict. Of all that, a runtime forgives shapes that are out of date."""
    if patient.opinion is None or not patient.opinion.strict or not patient.sound or objects(patient.opinion):
        return  # not asked, no objection, or one that follows from another
    words = plain(" ".join(patient.opinion.strict.split()), None)
    # Two operators in one line: an error inside the function that defines the first, which is the affair of onnx itself, or
    # in a branch, which ONNX Runtime's words tell better.
    nested = any(line.count("(op_type:") > 1 for line in patient.opinion.strict.splitlines())
    beside = any(part in words for part in ("No Op registered", "external", "data type 0"))
    if not beside and not nested:
        what = DTYPE if "has unsupported type" in words or "inconsistent type" in words else CONFLICT
        mild = what is DTYPE or "existing shape differ" in words
        text = f"onnx.shape_inference says: {words.removeprefix('[ShapeInferenceError] ')[:350]}"
        yield finding(what, text, level="" if mild else ERROR)


def huge(patient: Patient) -> Iterator[Finding]:
    found = []
    for name, value in patient.inferred.items():
        shape = shape_of(value) or ()
        dims = [d for d in shape if d is not None]
        if dims and len(dims) == len(shape):
            tensor = onnx.TensorProto(data_type=value.type.tensor_type.elem_type, dims=dims)
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
        if value.type.WhichOneof("value") != "tensor_type" or shape_of(value) is not None
    }
    has |= {*scope.initializers, ""}
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
