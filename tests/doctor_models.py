"""Small models for the tests of the doctor: sick ones, each with a healthy near-twin."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import course_utils as cu
from course_utils.diagnosis.file import skeleton

RNG = np.random.default_rng(7)


def weights(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (scale * RNG.standard_normal(shape)).astype(np.float32)


def parsed(
    graph: str, stored: Mapping[str, np.ndarray] | None = None, *, opset: int = 21, ir: int = 10, more: str = ""
) -> onnx.ModelProto:
    """A model from ONNX's text form, such as `g (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }`, and its weights."""
    model = onnx.parser.parse_model(f'<ir_version: {ir}, opset_import: ["": {opset}{more}]> {graph}')
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in (stored or {}).items())
    return model


def texts(*bodies: str, stored: Mapping[str, np.ndarray] | None = None) -> list[onnx.ModelProto]:
    """y = body(x), for each body; x has a free batch and four numbers."""
    return [parsed(f"g (float[N, 4] x) => (float[N, 4] y) {{ {body} }}", stored) for body in bodies]


def linear(size: int = 4, batch: str = "N", dtype: str = "float", **numbers: object) -> onnx.ModelProto:
    """y = x · w: the healthy model that most others are made from."""
    w = weights(size, size).astype(np.float64 if dtype == "double" else np.float32)
    return parsed(
        f"g ({dtype}[{batch}, {size}] x) => ({dtype}[{batch}, {size}] y) {{ y = MatMul(x, w) }}", {"w": w}, **numbers
    )


def convolution(batchnorm: bool = False, size: int = 8) -> onnx.ModelProto:
    stored = {"w": weights(size, 3, 3, 3)}
    body = "y = Conv(x, w)"
    if batchnorm:
        body = "c = Conv(x, w)  y = BatchNormalization(c, s, b, m, v)"
        stored |= {"s": weights(size), "b": weights(size), "m": weights(size), "v": np.ones(size, np.float32)}
    return parsed(f"g (float[N, 3, 8, 8] x) => (float[N, {size}, 6, 6] y) {{ {body} }}", stored)


def quantized(
    w: np.ndarray, *, scale: float | np.ndarray = 0.01, x_scale: float = 0.02, behind: bool = True, y_scale: float = 0.1
) -> onnx.ModelProto:
    """A convolution as static quantization writes it: quantized input and weights w, and with `behind` a quantized output."""
    per_channel = isinstance(scale, np.ndarray)
    stored = {"w": w, "ws": np.asarray(scale, np.float32), "xs": np.float32(x_scale), "ys": np.float32(y_scale)}
    stored |= {"wz": np.zeros(len(w) if per_channel else (), np.int8), "z": np.uint8(0)}
    rest = "q = QuantizeLinear(c, ys, z)  y = DequantizeLinear(q, ys, z)" if behind else "y = Relu(c)"
    axis = "<axis = 0>" if per_channel else ""
    return parsed(
        f"g (float[N, {w.shape[1]}, 8, 8] x) => (float[N, {len(w)}, 6, 6] y) {{ xq = QuantizeLinear(x, xs, z) "
        f"xd = DequantizeLinear(xq, xs, z)  wd = DequantizeLinear {axis} (w, ws, wz)  c = Conv(xd, wd)  {rest} }}",
        {k: np.asarray(v) for k, v in stored.items()},
    )


def by_channel(axis: int) -> onnx.ModelProto:
    """y = x · w with int8 weights, and a scale for each of the six rows of w, which is right on axis 0."""
    stored = {
        "w": RNG.integers(-127, 127, (6, 4)).astype(np.int8),
        "s": np.full(6, 0.01, np.float32),
        "z": np.zeros(6, np.int8),
    }
    return parsed(
        f"g (float[N, 6] x) => (float[N, 4] y) {{ d = DequantizeLinear<axis = {axis}>(w, s, z)  y = MatMul(x, d) }}",
        stored,
    )


def joined_scores(*, together: bool, head: str = "p = Sigmoid(s)", scale: float = 2.5) -> onnx.ModelProto:
    """A detector's head: boxes in pixels and scores, quantized together or each with a scale of its own."""
    one = "c = Concat<axis = 1>(b, p)  q = QuantizeLinear(c, os, z)  y = DequantizeLinear(q, os, z)"
    two = (
        "bq = QuantizeLinear(b, os, z)  bd = DequantizeLinear(bq, os, z)  pq = QuantizeLinear(p, ps, z)  "
        "pd = DequantizeLinear(pq, ps, z)  y = Concat<axis = 1>(bd, pd)"
    )
    stored = {"os": np.float32(scale), "ps": np.float32(1 / 255), "z": np.uint8(0)}
    return parsed(
        f"g (float[N, 4, 10] b, float[N, 6, 10] s) => (float[N, 10, 10] y) {{ {head}  {one if together else two} }}",
        {k: np.asarray(v) for k, v in stored.items() if together is False or k != "ps"},
    )


def int8_weights(spread: float = 40) -> np.ndarray:
    w = np.clip(RNG.normal(0, spread, (16, 4, 3, 3)).round(), -126, 126).astype(np.int8)
    w[0, 0, 0, 0] = 127
    return w


def chain(length: int, *, shared: bool = True) -> onnx.ModelProto:
    """h = tanh(h · w + x), `length` times: a loop written out. Or as many layers, each with weights of its own."""
    steps, h = [], "x"
    for i in range(length):
        steps += [f"a{i} = MatMul({h}, {'w' if shared else f'w{i}'})", f"b{i} = Add(a{i}, x)", f"h{i} = Tanh(b{i})"]
        h = f"h{i}"
    stored = {"w": weights(4, 4)} if shared else {f"w{i}": weights(4, 4) for i in range(length)}
    return parsed(f"g (float[N, 4] x) => (float[N, 4] {h}) {{ {'  '.join(steps)} }}", stored)


def named_function(name: str) -> onnx.ModelProto:
    """A model that calls a function of its own, of one input, by this name."""
    function = helper.make_function(
        "my.own", name, ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], [helper.make_opsetid("", 21)]
    )
    model = parsed(f"g (float[N] x) => (float[N] y) {{ y = my.own.{name}(x) }}", more=', "my.own": 1')
    model.functions.append(function)
    return model


def external(model: onnx.ModelProto, location: str = "w.bin", *, offset: int = 0, length: int | None = None) -> bytes:
    """Move the data of the first initializer to another file; returns the data."""
    tensor = model.graph.initializer[0]
    data = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entries = {"location": location, "offset": offset, "length": len(data) if length is None else length}
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return data


def found(model: object, **options: object) -> list[str]:
    """The codes that the doctor finds. Every check must have run to its end."""
    report = cu.doctor(model, **options)
    assert not [text for text in report.not_checked if text.startswith("The check")], report.not_checked
    return report.codes


def nested(levels: int) -> bytes:
    """A graph in an attribute of a node of a graph, so many times."""
    graph = onnx.GraphProto(name="g").SerializeToString()
    node = helper.make_node("If", ["c"], ["y"]).SerializeToString()
    for _ in range(levels):
        branch = onnx.AttributeProto(name="then_branch", type=onnx.AttributeProto.GRAPH).SerializeToString()
        branch += skeleton._head(6, len(graph)) + graph
        within = node + skeleton._head(5, len(branch)) + branch
        graph = skeleton._head(1, len(within)) + within
    head = onnx.ModelProto(ir_version=10, opset_import=[helper.make_opsetid("", 21)]).SerializeToString()
    return head + skeleton._head(7, len(graph)) + graph
