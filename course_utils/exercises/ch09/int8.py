"""The hospital: int8. A collapse, a crash of quantize_dynamic, and a network quantized the wrong way."""

from __future__ import annotations

from random import Random

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ...errors import CourseError
from ...lab.provenance import optimized
from ...lab.quantization import quantized_operators
from ...running import run, session_for
from .. import Criteria, Criterion, Params, Task
from ..examine import has_io, is_sound, numpy_source, result
from ..slips import Feed
from ..trained_network import has_uint8_activations
from .hospital import least_on_the_way, patient, relative_error

node = helper.make_node
_EIGHT = (TensorProto.INT8, TensorProto.UINT8)
# What computes products in float, in any domain. The last layer of the networks here may be one.
_FLOAT_CONVOLUTIONS = ("Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose", "ConvInteger")
_FLOAT_PRODUCTS = ("MatMul", "Gemm", "FusedMatMul", "FusedGemm", "Einsum")


# What 9.9 and 9.11 share: a small network of three convolutions


def _convolutions(p: Params, stretch: tuple[int, int, float] | None = None) -> onnx.ModelProto:
    """stretch: (layer, channel, factor): this output channel is so much larger, and the next layer makes up for it."""
    draw, sizes, weights, nodes = np.random.default_rng(p["seed"]), (3, 8, 8, 6), {}, []
    for i in (1, 2, 3):
        weights[f"weight{i}"] = draw.normal(0, (2 / (9 * sizes[i - 1])) ** 0.5, (sizes[i], sizes[i - 1], 3, 3))
        weights[f"bias{i}"] = draw.normal(0, 0.3, sizes[i])
        source = "x" if i == 1 else f"relu{i - 1}"
        nodes += [
            node(
                "Conv", [source, f"weight{i}", f"bias{i}"], [f"conv{i}"], f"conv{i}", kernel_shape=[3, 3], pads=[1] * 4
            ),
            node("Relu", [f"conv{i}"], [f"relu{i}"], f"relu{i}"),
        ]
    nodes += [
        node("GlobalAveragePool", ["relu3"], ["pooled"], "pool"),
        node("Flatten", ["pooled"], ["flat"], "flatten"),
        node("Gemm", ["flat", "weight"], ["y"], "last"),
    ]
    weights["weight"] = draw.normal(0, 1, (6, 4))
    if stretch:
        layer, channel, factor = stretch
        weights[f"weight{layer}"][channel] *= factor
        weights[f"bias{layer}"][channel] *= factor
        weights[f"weight{layer + 1}"][:, channel] /= factor
    return patient("network", nodes, weights, ["batch", 3, 10, 10], ["batch", 4])


def _runs_in_int8(model: onnx.ModelProto, criteria: Criteria) -> onnx.ModelProto | None:
    """Add: all three convolutions run in an integer kernel with uint8 activations. Returns the graph that is run."""
    try:
        running = optimized(model)
    except CourseError as error:
        criteria.require("ONNX Runtime loads the model", False, str(error))
        return None
    kind = {t.name: t.data_type for t in running.graph.initializer}
    kernels = [n for n in running.graph.node if n.op_type == "QLinearConv" and len(n.input) > 7]
    count = len({n.input[3] for n in kernels if kind.get(n.input[3]) in _EIGHT})
    if not criteria.require("three convolutions run in int8", count == 3, f"{count} do. {_float_cause(model)}"):
        return None
    operators = [n.op_type for n in running.graph.node]
    beside = any(op in _FLOAT_CONVOLUTIONS for op in operators) or sum(op in _FLOAT_PRODUCTS for op in operators) > 1
    if not criteria.require(
        "the result comes from these three, one after the other",
        not beside and least_on_the_way(running.graph, ("QLinearConv",)) >= 3,
        "Beside them a network in float computes the result. Hand in what quantize_static writes for the whole network.",
    ):
        return None
    # ONNX Runtime quantizes a layer between two quantized tensors by itself; another runtime need not.
    large = [t.name for t in model.graph.initializer if len(t.dims) == 4 and t.data_type not in _EIGHT]
    if not criteria.require(
        "all weights of convolutions are stored in 8 bits",
        not large,
        f"{', '.join(large)[:100]} is stored in float: is that layer in nodes_to_exclude?",
    ):
        return None
    has_uint8_activations(model, running, criteria)
    return running


def _float_cause(model: onnx.ModelProto) -> str:
    operators = quantized_operators(model)
    if "ConvInteger" in operators:
        return (
            "This was quantized dynamically: before each ConvInteger the range of its input is measured, in every run, and "
            "behind it come Cast and Mul in float. For convolutions use quantize_static."
        )
    if not operators:
        return "This is a float model: there is no quantized node in it."
    return "The others stay in float: is there a list in nodes_to_exclude, or op_types_to_quantize, or are activations int8?"


def _is_close(
    model: onnx.ModelProto, reference: onnx.ModelProto, feed: Feed, most: float, criteria: Criteria, cause: str
) -> None:
    """Add: the result differs by at most this share, a goal."""
    what = f"the result differs by at most {most:.0%} (root mean square)"
    try:
        got = next(iter(run(session_for(model), feed).values()))
    except CourseError as error:
        criteria.add(what, False, str(error))
        return
    expected = result(reference, feed)
    if got.shape != expected.shape:
        criteria.add(what, False, f"It has shape {list(got.shape)}, expected {list(expected.shape)}.")
        return
    off = relative_error(got, expected)
    criteria.add(what, off <= most, f"It differs by {off:.1%}. {cause}")


# 9.9: int8 collapse


def _draw_collapse(rng: Random) -> Params:
    return {
        "layer": rng.choice([1, 2]),
        "channel": rng.randrange(8),
        "factor": rng.choice([1024, 2048, 4096]),
        "seed": rng.getrandbits(32),
    }


def _wide(p: Params) -> onnx.ModelProto:
    return _convolutions(p, (p["layer"], p["channel"], float(p["factor"])))


_COLLAPSE_MOST = 0.1


def _check_collapse(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    running = _runs_in_int8(model, criteria)
    if running is None:
        return criteria
    stored = {t.name: t for t in running.graph.initializer}
    scales = [
        float(numpy_helper.to_array(stored[n.input[6]]).max())
        for n in running.graph.node
        if n.op_type == "QLinearConv" and n.input[6] in stored
    ]
    widest = max(scales, default=0)
    cause = (
        f"An activation has a scale of {widest:.3g}: one channel is still a thousand times wider than the others, and they "
        "all round to zero. Make that channel as narrow as its neighbours in the float model, then quantize."
        if widest > 1
        else "The wide channel is gone. Was it calibrated with normally distributed numbers, and did the float model still "
        "compute the same?"
    )
    feed = {"x": numpy_source(rng).normal(0, 1, (64, 3, 10, 10)).astype(np.float32)}
    _is_close(model, _convolutions(p), feed, _COLLAPSE_MOST, criteria, cause)
    return criteria


# 9.10: quantize_dynamic stops


def _draw_crash(rng: Random) -> Params:
    sizes = rng.sample([24, 32, 40, 48], 2)
    return {"sizes": [*sizes, rng.choice([5, 7, 10])], "seed": rng.getrandbits(32)}


def _crashing(p: Params) -> onnx.ModelProto:
    """Weights were stored turned round, for Gemm with transB; value_info describes them as they were before."""
    draw, (a, b, c) = np.random.default_rng(p["seed"]), p["sizes"]
    nodes = [
        node("Gemm", ["x", "first.weight", "first.bias"], ["h"], "first", transB=1),
        node("Relu", ["h"], ["r"], "relu"),
        node("Gemm", ["r", "second.weight", "second.bias"], ["y"], "second", transB=1),
    ]
    weights = {
        "first.weight": draw.normal(0, a**-0.5, (b, a)),
        "first.bias": draw.normal(0, 0.1, b),
        "second.weight": draw.normal(0, b**-0.5, (c, b)),
        "second.bias": draw.normal(0, 0.1, c),
    }
    model = patient("linear", nodes, weights, ["batch", a], ["batch", c])
    shapes = {name: list(w.shape)[::-1] for name, w in weights.items() if w.ndim == 2}
    model.graph.value_info.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()
    )
    return model


def _check_crash(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    constants = [a.t for n in model.graph.node if n.op_type == "Constant" for a in n.attribute if a.name == "value"]
    matrices = [t for t in (*model.graph.initializer, *constants) if len(t.dims) == 2 and min(t.dims) > 1]
    read = {name for n in model.graph.node for name in n.input}
    eight = [t for t in matrices if t.data_type in _EIGHT and t.name in read]
    large = [t.name for t in matrices if t.data_type not in _EIGHT]
    if not criteria.require(
        "both matrices are stored in 8 bits",
        len(eight) >= 2 and not large,
        f"{', '.join(large)[:100] or 'A matrix'} is float: "
        + (
            "nothing is quantized here. quantize_dynamic stopped because value_info still describes the weights as they "
            "were before they were turned round."
            if not quantized_operators(model)
            else "is Gemm missing among op_types_to_quantize, or is the node in nodes_to_exclude?"
        ),
    ):
        return criteria
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    floats = sorted({n.op_type for n in model.graph.node if n.op_type in _FLOAT_PRODUCTS})
    if not criteria.require(
        "both products are computed with whole numbers",
        not floats and least_on_the_way(model.graph, ("DynamicQuantizeLinear", "DynamicQuantizeMatMul")) >= 2,
        f"{', '.join(floats)} computes in float. Hand in what quantize_dynamic writes for the whole model."
        if floats
        else "quantize_dynamic puts a DynamicQuantizeLinear before each product, and the result comes from there alone: hand in what it writes.",
    ):
        return criteria
    x = numpy_source(rng).normal(0, 1, (64, p["sizes"][0])).astype(np.float32)
    cause = "These are other weights than those of the patient, or they were changed: quantize the patient itself."
    _is_close(model, _crashing(p), {"x": x}, 0.05, criteria, cause)
    return criteria


# 9.11: dynamic int8 is slower


def _draw_slower(rng: Random) -> Params:
    low = -rng.choice([0.5, 1.0, 2.0])
    return {"low": low, "high": low + rng.choice([3.0, 4.0, 5.0]), "seed": rng.getrandbits(32)}


def _check_slower(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    running = _runs_in_int8(model, criteria)
    if running is None:
        return criteria
    dynamic = quantized_operators(running) & {"DynamicQuantizeLinear", "ConvInteger"}
    if not criteria.require(
        "no range is measured in the run",
        not dynamic,
        f"{', '.join(sorted(dynamic))} is left: with quantize_static the ranges are known beforehand.",
    ):
        return criteria
    low, high = _input_range(running)
    cause = "Calibrate with inputs like those of use: uniform between low and high."
    if low is not None and high is not None:
        wide = high - low > 1.6 * (p["high"] - p["low"])
        if not criteria.require(
            "the range of the input is that of use",
            not wide and low <= p["low"] * 0.8 and high >= p["high"] * 0.8,
            f"The input's range is {low:.3g} to {high:.3g}, much wider than in use: it was calibrated with other data."
            if wide
            else f"The input is cut off outside of {low:.3g} to {high:.3g}: it was calibrated with other data than in use.",
        ):
            return criteria
    feed = {"x": numpy_source(rng).uniform(p["low"], p["high"], (64, 3, 10, 10)).astype(np.float32)}
    _is_close(model, _convolutions(p), feed, 0.05, criteria, cause)
    return criteria


def _input_range(running: onnx.ModelProto) -> tuple[float | None, float | None]:
    """The real numbers that the first QuantizeLinear of `x` lets through."""
    stored = {t.name: numpy_helper.to_array(t) for t in running.graph.initializer if t.data_location == 0}
    for n in running.graph.node:
        if n.op_type == "QuantizeLinear" and n.input[0] == "x" and len(n.input) > 2 and {*n.input[1:3]} <= set(stored):
            scale, zero = (float(stored[name].ravel()[0]) for name in n.input[1:3])
            return -zero * scale, (255 - zero) * scale
    return None, None


COLLAPSE = Task(
    "9.9",
    "int8 collapses",
    "onnx",
    _check_collapse,
    _draw_collapse,
    lambda p: {"9.9.onnx": _wide(p)},
    (
        "All numbers of a tensor share one scale. Look at the largest number of each channel of the weights.",
        "One channel is a thousand times larger than the others, and the next layer divides by it again. Relu stands between, "
        "and lets a positive factor through unchanged.",
        "Let f be how much too large the channel is. Divide weight[channel] and bias[channel] of this layer by f, and "
        "multiply weight[:, channel] of the next one by f: the float model computes the same. Then quantize_static with "
        "activations QUInt8.",
    ),
    points=1,
)
CRASH = Task(
    "9.10",
    "quantize_dynamic stops",
    "onnx",
    _check_crash,
    _draw_crash,
    lambda p: {"9.10.onnx": _crashing(p)},
    (
        "Two shapes contradict each other, says the message. Who wrote down the existing one, and who inferred the other?",
        "Compare what value_info says of the weights with the dims of the stored tensors. ONNX Runtime goes by the tensors, "
        "and onnx.shape_inference, which quantize_dynamic asks, compares both.",
        "value_info is only a description: del model.graph.value_info[:], save under another name, and call "
        "quantize_dynamic on that file.",
    ),
    points=1,
)
SLOWER = Task(
    "9.11",
    "int8, and slower",
    "onnx",
    _check_slower,
    _draw_slower,
    lambda p: {"9.11.onnx": _convolutions(p)},
    (
        "Count the operators of the float model and of the slow one. What has been added around each convolution?",
        "quantize_dynamic measures the range of each input anew in every run, and only the products are int8. Which "
        "function of onnxruntime.quantization wants to know the ranges beforehand?",
        "quantize_static with a calibration set like the inputs in use, "
        'cu.Calibration(path, {"x": uniform numbers between low and high}), activation_type=QuantType.QUInt8, '
        "weight_type=QuantType.QInt8.",
    ),
    points=1,
)
