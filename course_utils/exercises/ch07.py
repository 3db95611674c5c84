"""Exercises of lesson 07: quantize by hand, make a network int8, rescue one, read a calibration, four bits.

What an answer is worth is measured: the models are run on real test images, and the graph that ONNX Runtime makes of them is
looked at. Networks are built here from the stored weights, with names of their own, so that no exporter takes part.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..data import FASHION_MEAN, FASHION_STD, fashion_mnist, normalize, verified
from ..errors import CourseError
from ..graphs import op_histogram
from ..provenance import optimized
from ..quantization import quantized_operators
from ..running import run, session_for
from . import Criteria, Criterion, Params, Task
from .examine import has_io, is_sound, numpy_source, wants_keys
from .handouts import x_to_y

Weights = dict[str, np.ndarray]
_CONVS = 15


# 7.1: quantize by hand


def _draw_by_hand(rng: Random) -> Params:
    # A scale that is a power of two: every step is exact, in float32 and in float64 alike.
    zero, scale = rng.randint(40, 200), 2.0 ** -rng.randint(3, 6)
    halves = rng.sample(range(-zero + 2, 252 - zero), 4)
    steps = [halves[0] // 2 * 2 + 0.5, halves[1] // 2 * 2 + 1.5, halves[2] // 2 * 2 + 0.5, halves[3] // 2 * 2 + 1.5]
    steps += [rng.randint(-zero + 1, 254 - zero) + rng.choice([0.125, 0.25, 0.75, 0.875]) for _ in range(4)]
    steps += [0.0, -zero - rng.randint(3, 40), 255 - zero + rng.randint(3, 40), 255 - zero + 0.75]
    rng.shuffle(steps)
    return {"low": -zero * scale, "high": (255 - zero) * scale, "values": [step * scale for step in steps]}


def _by_hand(p: Params, mistake: str = "") -> tuple[float, int, list[int], list[float]]:
    """scale, zero point, integers and numbers back; the right ones, or those of a likely mistake."""
    scale = (p["high"] - p["low"]) / 255
    zero = round(-p["low"] / scale)
    exact = [value / scale for value in p["values"]]
    rounded = [math.floor(e + 0.5) if mistake == "half up" else int(e) if mistake == "cut" else round(e) for e in exact]
    whole = [r + (0 if mistake == "no zero point" else zero) for r in rounded]
    if mistake == "wrapped":
        whole = [w % 256 for w in whole]
    elif mistake == "shifted":
        whole = [min(max(w - 128, -128), 127) for w in whole]
    elif mistake != "not saturated":
        whole = [min(max(w, 0), 255) for w in whole]
    return scale, zero, whole, [scale * (w - zero) for w in whole]


_WHOLE_CAUSES = {
    "half up": "A half goes to the even neighbour: 2.5 becomes 2, and 3.5 becomes 4. np.rint does that.",
    "cut": "You cut the fraction off: round to the nearest integer, and a half to the even one.",
    "no zero point": "The zero point is not added.",
    "wrapped": "Numbers outside of 0 to 255 came back from the other end: clip before you convert to uint8.",
    "not saturated": "uint8 ends at 0 and 255: what lies beyond becomes the last number.",
    "shifted": "These are int8. The task asks for uint8, from 0 to 255.",
}


def _check_by_hand(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not wants_keys(answer, {"scale", "zero_point", "integers", "back"}, criteria):
        return criteria
    scale, zero, whole, back = _by_hand(p)
    got = answer["scale"]
    criteria.add("the scale", _is_number(got) and np.float32(got) == np.float32(scale), _scale_cause(got, p))
    got = answer["zero_point"]
    criteria.add("the zero point", _is_whole(got) and got == zero, _zero_cause(got, p))
    got = answer["integers"]
    if criteria.add(
        "integers is a list of 12 whole numbers",
        isinstance(got, list) and len(got) == len(whole) and all(map(_is_whole, got)),
        "Write 12 Python ints, in the order of the values: [int(n) for n in …].",
    ):
        cause = next((why for kind, why in _WHOLE_CAUSES.items() if got == _by_hand(p, kind)[2]), "")
        wrong = sum(a != b for a, b in zip(got, whole, strict=True))
        criteria.add("the integers", not wrong, cause or f"{wrong} of 12 are wrong: round(value / scale) + zero point.")
    got = answer["back"]
    if criteria.add(
        "back is a list of 12 numbers",
        isinstance(got, list) and len(got) == len(back) and all(map(_is_number, got)),
        "Write 12 Python floats: [float(n) for n in …].",
    ):
        right = np.array_equal(np.float32(got), np.float32(back))
        criteria.add("the real numbers that come back", right, _back_cause(got, p))
    return criteria


def _scale_cause(got: object, p: Params) -> str:
    if not _is_number(got):
        return "Write one Python float."
    width, value = p["high"] - p["low"], float(got)  # type: ignore[arg-type]
    if np.isclose(value, width / 256):
        return "256 integers have 255 steps between them: divide by 255."
    if any(np.isclose(value, max(-p["low"], p["high"]) / n) for n in (127, 127.5, 128)):
        return "That is the symmetric way. Here the range from low to high is spread over all 256 integers."
    if np.isclose(value * width, 255):
        return "It is upside down: the scale is the width of one step."
    return "It is (high - low) / 255."


def _zero_cause(got: object, p: Params) -> str:
    zero = _by_hand(p)[1]
    if not _is_whole(got):
        return "The zero point is a whole number: write one Python int."
    if got == -zero:
        return "The sign is wrong: low must become 0, so the zero point is -low / scale."
    if got == zero - 128:
        return "That is the zero point of int8. The task asks for uint8."
    return "0 for a range on both sides of zero? Which integer stands for 0.0?" if got == 0 else "It is -low / scale."


def _back_cause(got: list[float], p: Params) -> str:
    scale, _, whole, _ = _by_hand(p)
    if np.allclose(got, p["values"], rtol=1e-6, atol=1e-9):
        return "These are the values themselves. Compute them from your integers: what was rounded stays rounded."
    if np.allclose(got, [scale * w for w in whole], rtol=1e-6):
        return "The zero point is not subtracted."
    if any(np.allclose(got, _by_hand(p, kind)[3], rtol=1e-6) for kind in _WHOLE_CAUSES):
        return "They fit integers that are wrong: mend those first."
    return "It is scale × (integer - zero point)."


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# 7.2: small and right


def _draw_small(rng: Random) -> Params:
    order = list(range(10))
    rng.shuffle(order)
    return {"order": order, "most_bytes": rng.randrange(331_000, 334_500, 500), "points": rng.choice([0.8, 0.9, 1.0])}


def _network(order: list[int], stretch: tuple[int, int, float] | None = None) -> onnx.ModelProto:
    """fashion_resnet with BatchNorm folded; the classes in this order.

    stretch: (convolution, channel, factor): this output channel is so much larger, and the next layer makes up for it.
    """
    from safetensors.numpy import load_file

    stored, weights, nodes = load_file(verified("fashion_resnet.safetensors")), {}, []

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
        attributes = {"kernel_shape": kernel.shape[2:], "pads": [pad] * 4, "strides": [stride] * 2}
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
    weights["last.weight"], weights["last.bias"] = (
        stored[f"classifier.{part}"][list(order)] for part in ("weight", "bias")
    )
    if stretch:
        number, channel, factor = stretch
        weights[f"conv{number:02}.weight"][channel] *= factor
        weights[f"conv{number:02}.bias"][channel] *= factor
        weights[f"conv{number + 1:02}.weight"][:, channel] /= factor
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 28, 28])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(
        graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)], producer_name="onnx-scroll"
    )


def _check_small(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not _is_network(model, criteria):
        return criteria
    running = _running(model, criteria)
    if running is None:
        return criteria
    count = _int8_convolutions(running)
    criteria.add(f"all {_CONVS} convolutions run in int8", count == _CONVS, _float_cause(model, count))
    if not count:  # nothing else about it matters, and such models can be slow
        return criteria
    signed = _signed_activations(model)
    criteria.add(
        "activations are uint8",
        not signed,
        f"{signed} tensors are int8. x86 has no fast kernels for that: activation_type=QuantType.QUInt8.",
    )
    size = len(model.SerializeToString())
    criteria.add(f"the file has at most {p['most_bytes']:,} bytes", size <= p["most_bytes"], _size_cause(model, size))
    _is_accurate(model, _network(p["order"]), p["order"], p["points"], 1500, rng, criteria, _accuracy_cause)
    return criteria


def _is_network(model: onnx.ModelProto, criteria: Criteria) -> bool:
    return is_sound(model, criteria) and has_io(model, {"image": "float"}, {"logits": "float"}, criteria)


def _running(model: onnx.ModelProto, criteria: Criteria) -> onnx.ModelProto | None:
    try:
        found = optimized(model)
    except CourseError as error:
        criteria.add("ONNX Runtime loads the model", False, str(error))
        return None
    criteria.add("ONNX Runtime loads the model", True, "")
    return found


def _int8_convolutions(running: onnx.ModelProto) -> int:
    """Convolutions in an integer kernel with a stored weight of 8 bits, none of them twice."""
    kind = {t.name: t.data_type for t in running.graph.initializer}
    eight = (TensorProto.INT8, TensorProto.UINT8)
    found = {
        node.input[3]
        for node in running.graph.node
        if node.op_type == "QLinearConv" and len(node.input) > 3 and kind.get(node.input[3]) in eight
    }
    return len(found)


def _signed_activations(model: onnx.ModelProto) -> int:
    kind = {t.name: t.data_type for t in model.graph.initializer}
    zeros = {n.input[2] for n in model.graph.node if n.op_type == "QuantizeLinear" and len(n.input) > 2}
    zeros |= {n.input[7] for n in model.graph.node if n.op_type == "QLinearConv" and len(n.input) > 7}
    return sum(kind.get(name) == TensorProto.INT8 for name in zeros)


def _float_cause(model: onnx.ModelProto, count: int) -> str:
    operators, before = quantized_operators(model), f"{count} do. "
    if any(t.data_type == TensorProto.FLOAT16 for t in model.graph.initializer):
        return before + "These weights are float16, which a CPU casts back to float32."
    if not operators:
        return before + "This is a float model: there is no quantized node in it."
    if "ConvInteger" in operators:
        return before + "ConvInteger comes from quantize_dynamic: use quantize_static."
    if _signed_activations(model):
        return before + "Activations are int8, and x86 has kernels for uint8: give activation_type=QuantType.QUInt8."
    return before + "The others stay in float: is there a list in nodes_to_exclude, or op_types_to_quantize?"


def _size_cause(model: onnx.ModelProto, size: int) -> str:
    text = f"It has {size:,}. "
    large = [t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT and math.prod(t.dims) > 1000]
    if large:
        return text + f"{large[0]} is stored as float, and takes four times as many bytes: is it in nodes_to_exclude?"
    if "DequantizeLinear" in quantized_operators(model) and not _qlinear(model):
        return text + "Each Q/DQ pair takes room: the format QOperator is smaller."
    if len(model.graph.value_info) > 5:
        return text + "It describes the shapes of all tensors: del model.graph.value_info[:] and save again."
    return text + "Compare the bytes of weights, scales and nodes, as in the lesson."


def _qlinear(model: onnx.ModelProto) -> bool:
    return any(node.op_type.startswith("QLinear") for node in model.graph.node)


def _accuracy_cause(model: onnx.ModelProto) -> str:
    """What is wrong with the range of the input, if something is."""
    tensors = {t.name: t for t in model.graph.initializer}
    first = next((n for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == "image"), None)
    if first is None or len(first.input) < 3 or not {first.input[1], first.input[2]} <= set(tensors):
        return "Was it calibrated with normalised pictures?"
    scale, zero = (float(numpy_helper.to_array(tensors[name]).ravel()[0]) for name in first.input[1:3])
    reach = f"Its scale lets the input reach from {-zero * scale:.3g} to {(255 - zero) * scale:.3g}. "
    if scale * 255 > 10:
        return reach + "Pixels were not normalised for calibration: cu.normalize(images)."
    if zero * scale < 0.5:
        return reach + "Negative values are cut off: cu.normalize gives values from -0.81 to 2.02."
    if (255 - zero) * scale < 1.5 or scale * 255 > 3.5:
        return reach + "Real pictures reach from -0.81 to 2.02: calibrate with pictures."
    return reach + "The range of the input is right. Start from the model that was handed out, or take more pictures."


def _is_accurate(
    model: onnx.ModelProto,
    reference: onnx.ModelProto,
    order: list[int],
    points: float,
    count: int,
    rng: Random,
    criteria: Criteria,
    cause: Callable[[onnx.ModelProto], str],
) -> None:
    what = f"it loses at most {points} points of accuracy on {count:,} test images"
    images, labels = fashion_mnist("test")
    chosen = numpy_source(rng).choice(len(images), count, replace=False)
    feed = {"image": normalize(images[chosen])}
    wanted = labels[chosen]
    try:
        logits = run(session_for(model), feed)["logits"]
    except CourseError as error:
        criteria.add(what, False, str(error))
        return
    if logits.shape != (count, 10):
        criteria.add(
            what, False, f"For {count} pictures the logits have shape {list(logits.shape)}, expected {[count, 10]}."
        )
        return
    names = np.array(order)
    right = 100 * float((names[logits.argmax(1)] == wanted).mean())
    clean = run(session_for(reference), feed)
    best = 100 * float((names[clean["logits"].argmax(1)] == wanted).mean())
    hint = f"It is right for {right:.1f} %, the float model for {best:.1f} %. "
    usual = 100 * float((logits.argmax(1) == wanted).mean())
    if right < best - points and usual > right + 20:
        hint += "It answers in the usual order of classes: start from your own model."
    elif right < best - points:
        hint += cause(model)
    criteria.add(what, right >= best - points, hint)


# 7.3: rescue

_SICK = (2, 7, 10, 12)  # first convolutions of a block whose stretched channel ruins int8


def _draw_rescue(rng: Random) -> Params:
    order = list(range(10))
    rng.shuffle(order)
    return {"order": order, "conv": rng.choice(_SICK), "channel": rng.randrange(16), "least": _CONVS - 2}


def _sick(p: Params) -> onnx.ModelProto:
    return _network(p["order"], (p["conv"], p["channel"], 4096.0))


def _check_rescue(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not _is_network(model, criteria):
        return criteria
    running = _running(model, criteria)
    if running is None:
        return criteria
    count = _int8_convolutions(running)
    criteria.add(
        f"at least {p['least']} of {_CONVS} convolutions run in int8",
        count >= p["least"],
        f"{count} do. Leave only those two in float between which the wide channel lies."
        if count > 0 and not _signed_activations(model)
        else _float_cause(model, count),
    )
    if not count:
        return criteria

    def cause(model: onnx.ModelProto) -> str:
        stored = {t.name: t for t in running.graph.initializer}
        for node in running.graph.node:
            if node.op_type == "QLinearConv" and len(node.input) > 4 and node.input[4] in stored:
                scales = numpy_helper.to_array(stored[node.input[4]]).ravel().astype(np.float64)
                if scales.max(initial=0) > 1:
                    if node.input[3] not in {t.name for t in model.graph.initializer}:
                        return (
                            "ONNX Runtime quantized a layer that you left in float, because the tensors before and after "
                            "it are int8. Leave both layers in float, on either side of the wide channel."
                        )
                    return (
                        "There is still a wide channel in int8: a weight has a scale of "
                        f"{scales.max():.3g}. Look for the layer with the loss debug, channel by channel."
                    )
        sources = {t.name for t in running.graph.initializer}
        wide = [n for n in running.graph.node if n.op_type == "QuantizeLinear" and n.input[1] in sources]
        largest = max((float(numpy_helper.to_array(stored[n.input[1]]).max()) for n in wide), default=0)
        if largest > 1:
            return (
                f"An activation has a scale of {largest:.3g}: the tensor of the wide channel is still quantized. Leave "
                f"both layers in float, the one that writes it and the one that reads it."
            )
        return _accuracy_cause(model)

    _is_accurate(model, _network(p["order"]), p["order"], 1.5, 1000, rng, criteria, cause)
    return criteria


# 7.4: which data was it calibrated with?

_READERS = {
    "right": "Normalised pictures reach from -0.81 to 2.02.",
    "raw": "Raw pixels reach from 0 to 255.",
    "scaled": "Pixels that are only divided by 255 reach from 0 to 1.",
    "one broken": "One raw picture among normalised ones: from -0.81 up to 255.",
    "dark": "A picture that is black all over, normalised, has -0.81 everywhere, and 0 always belongs to the range.",
    "noise": "Normal noise reaches about as far below zero as above, to 4 or 5.",
}


def _draw_readers(rng: Random) -> Params:
    kinds = rng.sample(sorted(_READERS), 5)
    ends = [round(rng.uniform(3.8, 5.2), 3) for _ in range(2)]
    return {"cases": dict(zip("abcde", kinds, strict=True)), "noise": [-ends[0], ends[1]], "top": rng.randint(230, 255)}


def _range(p: Params, kind: str) -> tuple[float, float]:
    low, high = -FASHION_MEAN / FASHION_STD, (1 - FASHION_MEAN) / FASHION_STD
    return {
        "right": (low, high),
        "raw": (0.0, float(p["top"])),
        "scaled": (0.0, 1.0),
        "one broken": (low, float(p["top"])),
        "dark": (low, 0.0),
        "noise": tuple(p["noise"]),
    }[kind]


def _scale_of(p: Params, kind: str) -> tuple[np.float32, int]:
    low, high = _range(p, kind)
    scale = np.float32((high - low) / 255)
    return scale, round(-low / float(scale))


def _calibrated(p: Params) -> dict[str, onnx.ModelProto]:
    models = {}
    for letter, kind in p["cases"].items():
        scale, zero = _scale_of(p, kind)
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero_point"], ["q"], "quantize"),
            helper.make_node("DequantizeLinear", ["q", "x_scale", "x_zero_point"], ["y"], "dequantize"),
        ]
        model = x_to_y(
            "input", nodes, {"x_scale": np.array(scale)}, ["batch", 1, 28, 28], ["batch", 1, 28, 28], {"": 17}
        )
        model.graph.initializer.append(numpy_helper.from_array(np.array(zero, np.uint8), "x_zero_point"))
        models[f"7.4_{letter}.onnx"] = model
    return models


def _check_readers(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not wants_keys(answer, set(p["cases"]), criteria):
        return criteria
    for letter, kind in p["cases"].items():
        got = answer[letter]
        what = f"model {letter}"
        if not criteria.add(
            f"{what} has the keys reader and largest",
            isinstance(got, dict) and set(got) == {"reader", "largest"},
            "Write a dict with exactly those keys.",
        ):
            continue
        scale, zero = _scale_of(p, kind)
        largest, said = float(scale) * (255 - zero), got["reader"]
        known = isinstance(said, str) and said in _READERS
        criteria.add(
            f"{what}: the data of its calibration",
            said == kind,
            f"{_READERS[said]} This one reaches from {-zero * float(scale):.3g} to {largest:.3g}."
            if known
            else f"reader is one of: {', '.join(_READERS)}.",
        )
        number = got["largest"]
        fits = _is_number(number) and math.isclose(number, largest, rel_tol=1e-3, abs_tol=1e-6)
        criteria.add(f"{what}: the largest number that survives", fits, _largest_cause(number, float(scale), zero))
    return criteria


def _largest_cause(number: object, scale: float, zero: int) -> str:
    if not _is_number(number):
        return "Write one Python float."
    value = float(number)  # type: ignore[arg-type]
    if zero and math.isclose(value, scale * 255, rel_tol=1e-3):
        return "The zero point is not subtracted: 255 does not stand for 255 steps above zero."
    if math.isclose(value, scale * (127 - zero), rel_tol=1e-3):
        return "The integers are uint8: the last one is 255."
    return "Which real number does the integer 255 stand for?"


# 7.5: four bits

_IN, _MID, _OUT = 256, 256, 64


def _draw_four(rng: Random) -> Params:
    # Each budget fits one size of blocks, in the asymmetric way; the next size on either side misses it.
    error, most_bytes = rng.choice([(0.118, 66_000), (0.148, 54_000), (0.188, 48_000)])
    return {"seed": rng.getrandbits(32), "error": error, "most_bytes": most_bytes}


def _two_products(p: Params) -> onnx.ModelProto:
    draw = np.random.default_rng(p["seed"])
    weights = {"first": draw.normal(0, 1 / 16, (_IN, _MID)), "second": draw.normal(0, 1 / 16, (_MID, _OUT))}
    for values in weights.values():
        wide = draw.random(values.shape) < 0.01
        values[wide] *= 6  # one weight in a hundred is large, and decides for its block
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"], "product1"),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("MatMul", ["b", "second"], ["y"], "product2"),
    ]
    return x_to_y(
        "products",
        nodes,
        {n: v.astype(np.float32) for n, v in weights.items()},
        ["batch", _IN],
        ["batch", _OUT],
        {"": 17},
    )


def _check_four(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    operators = op_histogram(model).to_dict()
    products = [n for n in model.graph.node if n.op_type == "MatMulNBits"]
    bits = {a.i for n in products for a in n.attribute if a.name == "bits"}
    count = len({n.input[1] for n in products if len(n.input) > 1})
    criteria.add(
        "both products are MatMulNBits, and no other is left",
        count == len(products) == 2 and not {"MatMul", "Gemm", "MatMulInteger"} & set(operators),
        f"The graph has {operators}. "
        + (
            "quant_format=QDQ leaves a MatMul behind DequantizeLinear: take QOperator, the default."
            if "DequantizeLinear" in operators
            else "MatMulInteger comes from quantize_dynamic, with 8 bits."
            if "MatMulInteger" in operators
            else "Give your model to MatMulNBitsQuantizer, and call process()."
        ),
    )
    criteria.add("they have 4 bits", bits <= {4}, f"They have {sorted(bits)}: give bits=4.")
    size = len(model.SerializeToString())
    criteria.add(
        f"the file has at most {p['most_bytes']:,} bytes",
        size <= p["most_bytes"],
        f"It has {size:,}. Each block has a scale of its own: with larger blocks there are fewer of them.",
    )
    x = numpy_source(rng).normal(0, 1, (64, _IN)).astype(np.float32)
    what = f"the result differs by at most {p['error']:.1%} (root mean square)"
    try:
        got = run(session_for(model), {"x": x})["y"]
    except CourseError as error:
        criteria.add(what, False, str(error))
        return criteria
    expected = run(session_for(_two_products(p)), {"x": x})["y"]
    if got.shape != expected.shape:
        criteria.add(what, False, f"The result has shape {list(got.shape)}, expected {list(expected.shape)}.")
        return criteria
    error = float(
        np.sqrt(np.mean((got.astype(np.float64) - expected) ** 2) / np.mean(expected.astype(np.float64) ** 2))
    )
    hint = f"It differs by {error:.1%}. "
    if not error <= 1:
        hint += "That is another model: start from the one that was handed out."
    elif any(len(n.input) < 4 or not n.input[3] for n in products):
        hint += "There are no zero points. The asymmetric way uses all 16 integers: is_symmetric=False."
    else:
        hint += "One large weight decides for its whole block: make the blocks smaller."
    criteria.add(what, error <= p["error"], hint)
    return criteria


TASKS = (
    Task("7.1", "Quantize by hand", "json", _check_by_hand, _draw_by_hand),
    Task("7.2", "Small and right", "onnx", _check_small, _draw_small, lambda p: {"7.2.onnx": _network(p["order"])}),
    Task("7.3", "Rescue", "onnx", _check_rescue, _draw_rescue, lambda p: {"7.3.onnx": _sick(p)}),
    Task("7.4", "What was it calibrated with?", "json", _check_readers, _draw_readers, _calibrated),
    Task("7.5", "Four bits", "onnx", _check_four, _draw_four, lambda p: {"7.5.onnx": _two_products(p)}),
)
