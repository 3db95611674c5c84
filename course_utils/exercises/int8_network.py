"""Tasks 7.2 and 7.3: make a network int8, and rescue one that int8 ruins.

What an answer is worth is measured: the model is run on real test images, and the graph that ONNX Runtime makes of it is
looked at. Networks are built here from the stored weights, with names of their own, so that no exporter takes part.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..data import fashion_mnist, normalize, verified
from ..errors import CourseError
from ..provenance import optimized
from ..quantization import quantized_operators
from ..running import run, session_for
from . import Criteria, Criterion, Params
from .examine import has_io, is_sound, numpy_source

CONVS = 15
_LARGEST = 64 * 64 * 9  # numbers in the weight of the largest convolution
_TINY = 100  # numbers in a weight that no network needs
_FEW = 10_000  # more than all the rest of the network stores: biases, scales, the last layer


# 7.2: small and right


def draw_small(rng: Random) -> Params:
    order = list(range(10))
    rng.shuffle(order)
    return {"order": order, "most_bytes": rng.randrange(348_000, 352_500, 500), "points": rng.choice([0.8, 0.9, 1.0])}


def network(order: list[int], stretch: tuple[int, int, float] | None = None) -> onnx.ModelProto:
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


def check_small(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    running = opened(model, CONVS, criteria)
    if running is None:
        return criteria
    if not has_uint8_activations(model, running, criteria) or not _is_accurate(
        model, p, 1500, rng, criteria, lambda: _accuracy_cause(model)
    ):
        return criteria
    size = len(model.SerializeToString())
    what = f"the file has at most {p['most_bytes']:,} bytes"
    criteria.add(what, size <= p["most_bytes"], lambda: f"It has {size:,}. {_size_cause(model)}")
    return criteria


# What both checks look at


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
    found, others = set(), set()
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


def _size_cause(model: onnx.ModelProto) -> str:
    large = [t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT and math.prod(t.dims) > 1000]
    if large:
        return f"{large[0]} is stored as float, and takes four times as many bytes: is it in nodes_to_exclude?"
    wide = [t.name for t in model.graph.initializer if t.data_type == TensorProto.INT32 and math.prod(t.dims) > 1000]
    if wide:
        return f"{wide[0]} is stored in 32 bits, and takes four times as many bytes as int8."
    notes = sum(len(v.SerializeToString()) for v in model.graph.value_info)
    notes += len(model.doc_string) + sum(m.ByteSize() for m in model.metadata_props)
    notes += sum(len(n.doc_string) + sum(m.ByteSize() for m in n.metadata_props) for n in model.graph.node)
    if notes > 5000:
        return f"{notes:,} of them are notes and shapes of tensors: del model.graph.value_info[:] and save again."
    if "DequantizeLinear" in quantized_operators(model) and not _qlinear(model):
        return "Each Q/DQ pair takes room: with longer names, more of it. Start from the model that was handed out."
    return "Compare the bytes of weights, scales and nodes, as in the lesson."


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
    model: onnx.ModelProto, p: Params, count: int, rng: Random, criteria: Criteria, cause: Callable[[], str]
) -> bool:
    """Add: it loses at most p["points"] points. cause: what to say of a model that loses more."""
    what = f"it loses at most {p['points']} points of accuracy on {count:,} test images"
    pictures, wanted = _unseen(count, rng)
    try:
        logits = _answers(model, pictures)
    except CourseError as error:
        return criteria.add(what, False, str(error))
    if logits.shape != (count, 10):
        hint = f"For {count} pictures the logits have shape {list(logits.shape)}, expected {[count, 10]}."
        return criteria.add(what, False, hint)
    names, clean = np.array(p["order"]), network(p["order"])
    right = names[logits.argmax(1)] == wanted

    def best(of: np.ndarray) -> np.ndarray:
        return names[_answers(clean, pictures[of]).argmax(1)] == wanted[of]

    # The float model is first asked for what this one has wrong: more than that it cannot have lost.
    lost = 100 * int(best(~right).sum()) / count if not right.all() else 0.0
    if lost > p["points"]:
        lost -= 100 * int((~best(right)).sum()) / count if right.any() else 0
    usual = float((logits.argmax(1) == wanted).mean())

    def hint() -> str:
        unmoved = usual > right.mean() + 0.2
        said = "It answers in the usual order of classes: start from your own model." if unmoved else cause()
        return f"It is right for {right.mean():.1%}, the float model for {right.mean() + lost / 100:.1%}. {said}"

    return criteria.add(what, lost <= p["points"] and bool(np.isfinite(logits).all()), hint)


def _answers(model: onnx.ModelProto, pictures: np.ndarray) -> np.ndarray:
    """In small batches: their tensors stay in the processor's cache."""
    session = session_for(model)
    parts = [run(session, {"image": pictures[at : at + 50]})["logits"] for at in range(0, len(pictures), 50)]
    return np.concatenate(parts) if all(part.ndim == 2 for part in parts) else parts[0]


def _unseen(count: int, rng: Random) -> tuple[np.ndarray, np.ndarray]:
    """Inputs made of test images, and their labels. A pixel may be one brighter or darker: nobody can look it up."""
    images, labels = fashion_mnist("test")
    draw = numpy_source(rng)
    chosen = draw.choice(len(images), count, replace=False)
    moved = images[chosen] + draw.integers(-1, 2, (count, 28, 28))
    return normalize(moved.clip(0, 255).astype(np.uint8)), labels[chosen]


# 7.3: rescue

SICK = (2, 7, 10, 12)  # first convolutions of a block whose stretched channel ruins int8


def draw_rescue(rng: Random) -> Params:
    order = list(range(10))
    rng.shuffle(order)
    return {"order": order, "conv": rng.choice(SICK), "channel": rng.randrange(16), "least": CONVS - 2, "points": 1.5}


def sick(p: Params) -> onnx.ModelProto:
    return network(p["order"], (p["conv"], p["channel"], 4096.0))


def check_rescue(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    running = opened(model, p["least"], criteria)
    if running is None:
        return criteria

    def cause() -> str:
        return _wide_cause(model, running) or _accuracy_cause(model)

    _is_accurate(model, p, 1000, rng, criteria, cause)
    return criteria


def _wide_cause(model: onnx.ModelProto, running: onnx.ModelProto) -> str:
    """Where the wide channel still is, if it is somewhere. model: as handed in. running: the graph that runs."""
    stored = {t.name: numpy_helper.to_array(t) for t in running.graph.initializer}

    def largest(name: str) -> float:
        return float(stored[name].max(initial=0)) if name in stored else 0.0

    for node in running.graph.node:
        if node.op_type == "QLinearConv" and len(node.input) > 4 and largest(node.input[4]) > 1:
            if node.input[3] not in {t.name for t in model.graph.initializer}:
                return (
                    "ONNX Runtime quantized a layer that you left in float, because the tensors before and after it are "
                    "int8. Leave both layers in float, on either side of the wide channel."
                )
            return (
                f"There is still a wide channel in int8: a weight has a scale of {largest(node.input[4]):.3g}. Look for "
                f"the layer with the loss debug, channel by channel."
            )
    scale = max((largest(n.input[1]) for n in running.graph.node if n.op_type == "QuantizeLinear"), default=0)
    if scale > 1:
        return (
            f"An activation has a scale of {scale:.3g}: the tensor of the wide channel is still quantized. Leave both "
            f"layers in float, the one that writes it and the one that reads it."
        )
    return ""
