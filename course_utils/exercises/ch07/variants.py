"""The files of task 7.6: the trained network in six forms, made from its weights and from ranges that are measured once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ...lab.data import normalize
from ...running import run_all
from ..fashion_reference import pictures
from ..trained_network import network

Ranges = dict[str, tuple[float, float]]
_IR = 9


@cache
def _ranges(*, dark: bool) -> Ranges:
    """Smallest and largest value of each activation. dark: for pictures that are much darker than any real one."""
    images = pictures("calibration")[0][:100]
    x = normalize(images // 6 if dark else images)
    seen = {"image": x} | run_all(network(list(range(10))), {"image": x})
    # Rounded, so that every machine writes the same files.
    return {name: (round(float(v.min()), 2), round(float(v.max()), 2)) for name, v in seen.items()}


def _stored(name: str, value: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(value, name)


def _finished(
    nodes: list[onnx.NodeProto], stored: list[onnx.TensorProto], opset: int, *, contrib: bool = False
) -> onnx.ModelProto:
    read = {name for node in nodes for name in node.input}  # an integer convolution takes no scale of its bias
    stored = [tensor for tensor in stored if tensor.name in read]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 28, 28])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        stored,
    )
    opsets = [helper.make_opsetid("", opset)] + [helper.make_opsetid("com.microsoft", 1)] * contrib
    return helper.make_model(graph, ir_version=_IR, opset_imports=opsets, producer_name="onnx-scroll")


def _float32(order: list[int], opset: int) -> onnx.ModelProto:
    graph = network(order).graph
    return _finished(list(graph.node), list(graph.initializer), opset)


def _float16(order: list[int], opset: int) -> onnx.ModelProto:
    """Weights and arithmetic in 16 bits, float32 outside."""
    graph = network(order).graph
    stored = [_stored(t.name, numpy_helper.to_array(t).astype(np.float16)) for t in graph.initializer]
    nodes = [helper.make_node("Cast", ["image"], ["half"], to=TensorProto.FLOAT16), *graph.node]
    nodes[1].input[0], nodes[-1].output[0] = "half", "half_logits"
    nodes.append(helper.make_node("Cast", ["half_logits"], ["logits"], to=TensorProto.FLOAT))
    return _finished(nodes, stored, opset)


class _Weights:
    """The convolutions' weights in int8, with a scale for each output channel; what else is stored stays as it is."""

    def __init__(self, order: list[int]) -> None:
        self.graph = network(order).graph
        self.float = {t.name: numpy_helper.to_array(t) for t in self.graph.initializer}
        self.stored: list[onnx.TensorProto] = []
        self.scale: dict[str, np.ndarray] = {}
        for name, value in self.float.items():
            if name.startswith("conv") and name.endswith("weight"):
                self.scale[name] = np.abs(value).max((1, 2, 3)) / np.float32(127)
                steps = np.rint(value / self.scale[name][:, None, None, None]).astype(np.int8)
                self.stored += [_stored(f"{name}.q", steps), _stored(f"{name}.s", self.scale[name])]
                self.stored.append(_stored(f"{name}.z", np.zeros(len(value), np.int8)))
            elif name.startswith("last"):
                self.stored.append(_stored(name, value))

    def bias(self, node: onnx.NodeProto, input_scale: float) -> str:
        """Store the bias of a convolution as int32; the name of its steps."""
        weight, bias = node.input[1:3]
        step = self.scale[weight] * np.float32(input_scale)
        self.stored += [_stored(f"{bias}.q", np.rint(self.float[bias] / step).astype(np.int32))]
        self.stored += [_stored(f"{bias}.s", step), _stored(f"{bias}.z", np.zeros(len(step), np.int32))]
        return f"{bias}.q"


def _weight_only(order: list[int], opset: int) -> onnx.ModelProto:
    made, nodes = _Weights(order), []
    for node in made.graph.node:
        if node.op_type == "Conv":
            nodes.append(_dequantize(node.input[1], axis=0))
            made.stored.append(_stored(node.input[2], made.float[node.input[2]]))
            node.input[1] += ".d"
        nodes.append(node)
    return _finished(nodes, made.stored, opset)


def _dequantize(name: str, axis: int | None = None) -> onnx.NodeProto:
    return helper.make_node("DequantizeLinear", [f"{name}.{part}" for part in "qsz"], [f"{name}.d"], axis=axis)


def _steps(made: _Weights, ranges: Ranges, names: list[str]) -> dict[str, float]:
    """Store scale and zero point, uint8, of these activations; their scales."""
    scales = {}
    for name in names:
        low, high = min(ranges[name][0], 0.0), max(ranges[name][1], 0.0)
        scales[name] = float(np.float32((high - low) / 255))
        made.stored.append(_stored(f"{name}.s", np.array(scales[name], np.float32)))
        made.stored.append(_stored(f"{name}.z", np.array(round(-low / scales[name]), np.uint8)))
    return scales


def _integer_tensors(graph: onnx.GraphProto) -> list[str]:
    """What is quantized: the picture, and what a convolution or a sum gives, behind its Relu where it has one."""
    behind = {n.input[0]: n.output[0] for n in graph.node if n.op_type == "Relu"}
    written = [n.output[0] for n in graph.node if n.op_type in ("Conv", "Add")]
    return ["image", *(behind.get(name, name) for name in written)]


def _pairs(order: list[int], opset: int, *, dark: bool = False) -> onnx.ModelProto:
    """Static, with pairs of QuantizeLinear and DequantizeLinear."""
    made, nodes = _Weights(order), []
    whole = _integer_tensors(made.graph)
    scales = _steps(made, _ranges(dark=dark), whole)

    def pair(name: str) -> None:
        nodes.append(helper.make_node("QuantizeLinear", [name, f"{name}.s", f"{name}.z"], [f"{name}.q"]))
        nodes.append(_dequantize(name))

    pair("image")
    for node in made.graph.node:
        if node.op_type == "Conv":
            made.bias(node, scales[node.input[0]])
            nodes += [_dequantize(node.input[1], axis=0), _dequantize(node.input[2], axis=0)]
            node.input[1] += ".d"
            node.input[2] += ".d"
        for at, name in enumerate(node.input):
            if name in scales:
                node.input[at] = f"{name}.d"
        nodes.append(node)
        if node.output[0] in scales:
            pair(node.output[0])
    return _finished(nodes, made.stored, opset)


def _operators(order: list[int], opset: int, *, dark: bool = False) -> onnx.ModelProto:
    """Static, with integer operators. Those of sum and mean are ONNX Runtime's own."""
    made = _Weights(order)
    whole = _integer_tensors(made.graph)
    scales = _steps(made, _ranges(dark=dark) | {"pooled": _ranges(dark=dark)["b5.relu"]}, [*whole, "pooled"])
    behind = {n.input[0]: n.output[0] for n in made.graph.node if n.op_type == "Relu"}

    def three(name: str) -> list[str]:
        return [f"{name}.q", f"{name}.s", f"{name}.z"]

    nodes = [helper.make_node("QuantizeLinear", ["image", "image.s", "image.z"], ["image.q"])]
    for node in made.graph.node:
        # Smaller than zero cannot be said where the zero point is 0: Relu is in it.
        end = behind.get(node.output[0], node.output[0])
        steps = [f"{end}.s", f"{end}.z"]
        if node.op_type == "Conv":
            bias = made.bias(node, scales[node.input[0]])
            inputs = [*three(node.input[0]), *three(node.input[1]), *steps, bias]
            nodes.append(helper.make_node("QLinearConv", inputs, [f"{end}.q"], node.name))
            nodes[-1].attribute.extend(node.attribute)
        elif node.op_type == "Add":
            inputs = [*three(node.input[0]), *three(node.input[1]), *steps]
            nodes.append(helper.make_node("QLinearAdd", inputs, [f"{end}.q"], node.name, domain="com.microsoft"))
        elif node.op_type == "GlobalAveragePool":
            inputs, pool = [*three(node.input[0]), *steps], "QLinearGlobalAveragePool"
            nodes.append(helper.make_node(pool, inputs, ["pooled.q"], node.name, domain="com.microsoft"))
            nodes.append(helper.make_node("DequantizeLinear", three("pooled"), ["pooled"]))
        elif node.op_type != "Relu":
            nodes.append(node)
    return _finished(nodes, made.stored, opset, contrib=True)


_MAKERS: dict[str, Callable[[list[int], int], onnx.ModelProto]] = {
    "float32": _float32,
    "float16": _float16,
    "weights": _weight_only,
    "pairs": _pairs,
    "operators": _operators,
    "dark pairs": partial(_pairs, dark=True),
    "dark operators": partial(_operators, dark=True),
}
FORMS = tuple(_MAKERS)
BLOCK = 50  # images; what the forms answer is recorded by blocks, as `data/record_answers.py` says


def form(name: str, order: list[int], opset: int) -> onnx.ModelProto:
    """One of `FORMS`, with the classes in this order."""
    return _MAKERS[name](order, opset)


def variants(order: list[int], opsets: dict[str, int], bad: str) -> dict[str, onnx.ModelProto]:
    """Kind → model. opsets: for each kind. bad: the form of the file whose ranges are wrong, `pairs` or `operators`."""
    return {kind: form(form_of(kind, bad), order, opset) for kind, opset in opsets.items()}


def form_of(kind: str, bad: str) -> str:
    """Which of `FORMS` a kind of file is."""
    return f"dark {bad}" if kind == "dark" else kind
