"""The trained network as students get it, and how much of an answer computes with integers. Chapters 07, 09 and 10."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from ..errors import CourseError
from ..lab.provenance import optimized
from ..lab.quantization import quantized_operators
from ..running import run, session_for
from . import Criteria
from .examine import has_io, is_sound
from .fashion_reference import stored_weights

CONVS = 15


_LARGEST = 64 * 64 * 9  # numbers in the weight of the largest convolution


_TINY = 100  # numbers in a weight that no network needs


_FEW = 10_000  # more than all the rest of the network stores: biases, scales, the last layer


def network(order: list[int], stretch: tuple[int, int, float] | None = None) -> onnx.ModelProto:
    """fashion_resnet with BatchNorm folded; the classes in this order.

    stretch: (convolution, channel, factor): this output channel is so much larger, and the next layer makes up for it.
    """
    model, changed = onnx.ModelProto(), dict(_built()[1])
    model.CopyFrom(_built()[0])
    for name in ("last.weight", "last.bias"):
        changed[name] = changed[name][list(order)]
    if stretch:
        number, channel, factor = stretch
        wide, bias, after = f"conv{number:02}.weight", f"conv{number:02}.bias", f"conv{number + 1:02}.weight"
        for name in (wide, bias, after):
            changed[name] = changed[name].copy()
        changed[wide][channel] *= factor
        changed[bias][channel] *= factor
        changed[after][:, channel] /= factor
    for tensor in model.graph.initializer:
        if changed[tensor.name] is not _built()[1][tensor.name]:
            tensor.CopyFrom(numpy_helper.from_array(changed[tensor.name].astype(np.float32), tensor.name))
    return model


def float_logits(x: np.ndarray) -> np.ndarray:
    """What the float network says of float32 [n, 1, 28, 28]: float32 [n, 10], the classes in their usual order.

    In small batches: their tensors stay in the processor's cache.
    """
    if not len(x):
        return np.zeros((0, 10), np.float32)
    return np.concatenate([run(_session(), {"image": x[at : at + 50]})["logits"] for at in range(0, len(x), 50)])


@functools.cache
def _session() -> ort.InferenceSession:
    """One for all students: the order of the classes is all that differs in their networks."""
    return session_for(_built()[0])


@functools.cache
def _built() -> tuple[onnx.ModelProto, Mapping[str, np.ndarray]]:
    """The network with the classes in their usual order, made once in a process, and its weights in float64."""
    stored = stored_weights()
    weights: dict[str, np.ndarray] = {}
    nodes: list[onnx.NodeProto] = []

    def conv(source: str, name: str, norm: str, stride: int, target: str) -> str:
        number = sum(node.op_type == "Conv" for node in nodes) + 1
        kernel = stored[f"{name}.weight"].astype(np.float64)
        scale, shift, mean, variance = (
            stored[f"{norm}.{part}"].astype(np.float64) for part in ("weight", "bias", "running_mean", "running_var")
        )
        factor = scale / np.sqrt(variance + 1e-5)
        label = f"conv{number:02}"
        weights[f"{label}.weight"] = kernel * factor[:, None, None, None]
        weights[f"{label}.bias"] = shift - mean * factor
        pad = kernel.shape[2] // 2
        inputs = [source, f"{label}.weight", f"{label}.bias"]
        attributes: dict[str, Any] = {"kernel_shape": kernel.shape[2:], "pads": [pad] * 4, "strides": [stride] * 2}
        nodes.append(helper.make_node("Conv", inputs, [target], label, **attributes))
        return target

    def relu(source: str) -> str:
        nodes.append(helper.make_node("Relu", [source], [f"{source}.relu"], f"{source}.relu"))
        return f"{source}.relu"

    x = relu(conv("image", "stem.0", "stem.1", 1, "t01"))
    blocks = [("stage1.0", 2), ("stage1.1", 1), ("stage2.0", 2), ("stage2.1", 1), ("stage2.2", 1), ("stage2.3", 1)]
    for index, (block, stride) in enumerate(blocks):
        y = relu(conv(x, f"{block}.conv1", f"{block}.bn1", stride, f"b{index}.a"))
        y = conv(y, f"{block}.conv2", f"{block}.bn2", 1, f"b{index}.b")
        if stride > 1:
            x = conv(x, f"{block}.shortcut.0", f"{block}.shortcut.1", stride, f"b{index}.c")
        nodes.append(helper.make_node("Add", [y, x], [f"b{index}"], f"add{index}"))
        x = relu(f"b{index}")
    nodes += [
        helper.make_node("GlobalAveragePool", [x], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "last.weight", "last.bias"], ["logits"], "last", transB=1),
    ]
    weights["last.weight"], weights["last.bias"] = (stored[f"classifier.{part}"] for part in ("weight", "bias"))
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 28, 28])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, ir_version=8, opset_imports=opsets, producer_name="onnx-scroll"), weights


def opened(
    model: onnx.ModelProto, least: int, criteria: Criteria, *, source: str = "image", kind: str = "float"
) -> onnx.ModelProto | None:
    """Add what comes first: a sound model that loads, with `least` of its convolutions in int8, and nothing beside them.

    source, kind: name and dtype of its input. Returns the graph that runs, or None where nothing else about the model matters; such models can be slow, too.
    """
    if not (is_sound(model, criteria) and has_io(model, {source: kind}, {"logits": "float"}, criteria)):
        return None
    try:
        running = optimized(model, "extended")  # the layouts beyond it fill small weights up, as the processor likes
    except CourseError as error:
        criteria.require("ONNX Runtime loads the model", False, str(error))
        return None
    weights = _int8_weights(running.graph)
    # A weight of so few numbers prepares the input only, such as one that cuts windows out.
    known = weights | {t.name for t in running.graph.initializer if math.prod(t.dims) <= _TINY}
    beside = sum("Conv" in n.op_type and not known & set(_kernel(n)) for n in running.graph.node)
    numbers = _numbers(running.graph, weights)
    hint = (
        f"{len(weights)} do, but beside them the graph that runs holds {beside} other convolutions and {numbers:,} "
        f"other numbers: the network itself must run in int8."
    )
    criteria.require(
        f"{'all' if least == CONVS else f'at least {least} of'} {CONVS} convolutions run in int8",
        len(weights) >= least and beside <= CONVS - least and numbers <= _FEW + (CONVS - least) * _LARGEST,
        hint if len(weights) >= least else lambda: _float_cause(model, len(weights), least),
    )
    return running if weights else None


def _int8_weights(graph: onnx.GraphProto) -> set[str]:
    """Stored weights of 8 bits that a convolution reads in an integer kernel, and that nothing else reads."""
    kind = {t.name: t.data_type for t in graph.initializer}
    eight = (TensorProto.INT8, TensorProto.UINT8)
    found: set[str] = set()
    others: set[str] = set()
    for node in graph.node:
        kernel = _kernel(node) if node.op_type == "QLinearConv" else []
        found.update(name for name in kernel if kind.get(name) in eight)
        others.update(name for name in node.input if name not in kernel)
    return found - others


def _kernel(convolution: onnx.NodeProto) -> list[str]:
    """The name of its weight. QLinearConv has it behind input, scale and zero point."""
    at = 3 if convolution.op_type == "QLinearConv" else 1
    return list(convolution.input[at : at + 1])


def _numbers(graph: onnx.GraphProto, without: set[str]) -> int:
    """How many numbers a graph stores, in tensors, attributes and subgraphs; without those of these tensors."""
    found = sum(math.prod(t.dims) for t in graph.initializer if t.name not in without)
    found += sum(math.prod(t.values.dims) for t in graph.sparse_initializer)
    for attribute in (a for node in graph.node for a in node.attribute):
        found += sum(math.prod(t.dims) for t in (attribute.t, *attribute.tensors) if t.data_type)
        found += len(attribute.floats) + len(attribute.ints)
        found += sum(_numbers(inner, set()) for inner in (attribute.g, *attribute.graphs))
    return found


def has_uint8_activations(model: onnx.ModelProto, running: onnx.ModelProto, criteria: Criteria) -> bool:
    """Add: no activation is int8, neither in the model as handed in nor in the graph that runs."""
    signed = max(_signed_activations(model), _signed_activations(running))
    return criteria.require(
        "activations are uint8",
        not signed,
        f"{signed} tensors are int8. x86 has no fast kernels for that: activation_type=QuantType.QUInt8.",
    )


def _signed_activations(model: onnx.ModelProto) -> int:
    kind = {t.name: t.data_type for t in model.graph.initializer}
    zeros = {n.input[2] for n in model.graph.node if n.op_type == "QuantizeLinear" and len(n.input) > 2}
    zeros |= {n.input[7] for n in model.graph.node if n.op_type == "QLinearConv" and len(n.input) > 7}
    return sum(kind.get(name) == TensorProto.INT8 for name in zeros)


def _float_cause(model: onnx.ModelProto, count: int, least: int) -> str:
    operators, before = quantized_operators(model), f"{count} do. "
    if any(t.data_type == TensorProto.FLOAT16 for t in model.graph.initializer):
        return before + "These weights are float16, which a CPU casts back to float32."
    if not operators:
        return before + "This is a float model: there is no quantized node in it."
    if "ConvInteger" in operators:
        return before + "ConvInteger comes from quantize_dynamic: use quantize_static."
    if _signed_activations(model):
        return before + "Activations are int8, and x86 has kernels for uint8: give activation_type=QuantType.QUInt8."
    if count and least < CONVS:
        return before + "Leave only those two in float between which the wide channel lies."
    return before + "The others stay in float: is there a list in nodes_to_exclude, or op_types_to_quantize?"
