"""The models of the experiment. Random weights: where a node runs and how long it takes does not depend on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, parser


def plain() -> onnx.ModelProto:
    """A small classifier of pictures [N, 3, 16, 16], every operator of which is common."""
    return _parsed(
        """<ir_version: 8, opset_import: ["": 17]> plain (float[N, 3, 16, 16] x) => (float[N, 10] y) {
        c1 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x, w1)
        r1 = Relu(c1)
        c2 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(r1, w2)
        s = Add(c2, r1)
        r2 = Relu(s)
        p = GlobalAveragePool(r2)
        f = Flatten(p)
        y = Gemm(f, w3) }""",
        {"w1": (8, 3, 3, 3), "w2": (8, 8, 3, 3), "w3": (8, 10)},
    )


def mixed() -> onnx.ModelProto:
    """Rows [N, 8], with one unusual operator in the middle: `Unique`, whose output has a size that depends on the data."""
    return _parsed(
        """<ir_version: 8, opset_import: ["": 17]> mixed (float[N, 8] x) => (float[N, 8] y) {
        a = MatMul(x, w)
        b = Relu(a)
        u = Unique<sorted = 1>(b)
        m = ReduceMax<keepdims = 0>(u)
        d = Div(b, m)
        y = Sigmoid(d) }""",
        {"w": (8, 8)},
    )


def scattered() -> onnx.ModelProto:
    """Square matrices [4, 4], with an unusual operator, `Det`, between every few common ones."""
    return _parsed(
        """<ir_version: 8, opset_import: ["": 17]> scattered (float[4, 4] x) => (float[4, 4] y) {
        a = MatMul(x, w)
        d1 = Det(a)
        b = Add(a, d1)
        c = Tanh(b)
        d2 = Det(c)
        e = Add(c, d2)
        d3 = Det(e)
        y = Mul(e, d3) }""",
        {"w": (4, 4)},
    )


def fixed() -> onnx.ModelProto:
    """The small classifier for exactly two pictures: some providers take only shapes that are written in the file."""
    model = plain()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    return model


def int8() -> onnx.ModelProto:
    """The small classifier for two pictures in int8: QuantizeLinear and DequantizeLinear around its tensors (QDQ)."""
    model = _parsed(
        """<ir_version: 8, opset_import: ["": 17]> int8 (float[2, 3, 16, 16] x) => (float[2, 10] y)
        <float s = {0.05}, uint8 z = {128}, float sw = {0.01}, int8 zw = {0}> {
        xq = QuantizeLinear(x, s, z)
        xd = DequantizeLinear(xq, s, z)
        v1 = DequantizeLinear(w1, sw, zw)
        c1 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(xd, v1)
        r1 = Relu(c1)
        r1q = QuantizeLinear(r1, s, z)
        r1d = DequantizeLinear(r1q, s, z)
        v2 = DequantizeLinear(w2, sw, zw)
        c2 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(r1d, v2)
        c2q = QuantizeLinear(c2, s, z)
        c2d = DequantizeLinear(c2q, s, z)
        t = Add(c2d, r1d)
        r2 = Relu(t)
        r2q = QuantizeLinear(r2, s, z)
        r2d = DequantizeLinear(r2q, s, z)
        p = GlobalAveragePool(r2d)
        pq = QuantizeLinear(p, s, z)
        pd = DequantizeLinear(pq, s, z)
        f = Flatten(pd)
        v3 = DequantizeLinear(w3, sw, zw)
        g = Gemm(f, v3)
        gq = QuantizeLinear(g, s, z)
        y = DequantizeLinear(gq, s, z) }""",
        {"w1": (8, 3, 3, 3), "w2": (8, 8, 3, 3), "w3": (8, 10)},
    )
    for weight in model.graph.initializer:
        if weight.name in ("w1", "w2", "w3"):
            values = np.clip(np.rint(numpy_helper.to_array(weight) / 0.01), -127, 127).astype(np.int8)
            weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    return model


PLACED: dict[str, tuple[Callable[[], onnx.ModelProto], tuple[int, ...]]] = {
    "plain": (plain, (2, 3, 16, 16)),
    "fixed": (fixed, (2, 3, 16, 16)),
    "int8": (int8, (2, 3, 16, 16)),
    "mixed": (mixed, (2, 8)),
    "scattered": (scattered, (4, 4)),
}


def _parsed(text: str, weights: Mapping[str, tuple[int, ...]]) -> onnx.ModelProto:
    model, draw = parser.parse_model(text), np.random.default_rng(0)
    for node in model.graph.node:
        node.name = f"{node.op_type}_{node.output[0]}"
    for name, shape in weights.items():
        values = draw.normal(0, 0.3, shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


def residual_network(size: int, channels: int, stages: Sequence[tuple[int, int]], classes: int) -> onnx.ModelProto:
    """A residual network with folded BatchNorm: float32 [N, channels, size, size] → [N, classes].

    stages: (width, number of blocks) of each; every stage halves the picture. Blocks as in `fashion_resnet`.
    """
    draw = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def weight(*shape: int) -> str:
        weights.append(
            numpy_helper.from_array(
                draw.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32), f"w{len(weights)}"
            )
        )
        return weights[-1].name

    def node(op: str, inputs: list[str], **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [f"t{len(nodes)}"], f"{op}_{len(nodes)}", **attributes))
        return nodes[-1].output[0]

    def conv(x: str, have: int, want: int, kernel: int, stride: int) -> str:
        inputs = [x, weight(want, have, kernel, kernel), weight(want)]
        pads = [kernel // 2] * 4
        return node("Conv", inputs, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads)

    have = stages[0][0]
    x = node("Relu", [conv("image", channels, have, 3, 1 if size < 64 else 2)])
    for want, blocks in stages:
        for block in range(blocks):
            stride = 1 if block else 2
            y = conv(node("Relu", [conv(x, have, want, 3, stride)]), want, want, 3, 1)
            shortcut = conv(x, have, want, 1, stride) if stride == 2 else x
            x, have = node("Relu", [node("Add", [y, shortcut])]), want
    x = node("Flatten", [node("GlobalAveragePool", [x])])
    nodes.append(helper.make_node("Gemm", [x, weight(have, classes)], ["logits"], "Gemm_last"))
    graph = helper.make_graph(
        nodes,
        "residual",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", channels, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes])],
        weights,
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


TIMED: dict[str, tuple[Callable[[], onnx.ModelProto], tuple[int, int, int], tuple[int, ...]]] = {
    "28×28, 0.3 M weights": (lambda: residual_network(28, 1, [(32, 2), (64, 4)], 10), (1, 28, 28), (1, 64)),
    "224×224, 11 M weights": (
        lambda: residual_network(224, 3, [(64, 2), (128, 2), (256, 2), (512, 2)], 1000),
        (3, 224, 224),
        (1,),
    ),
}
