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
from onnx import TensorProto, numpy_helper

from ...errors import CourseError
from ...lab.data import normalize
from ...lab.quantization import quantized_operators
from ...running import run, session_for
from .. import Criteria, Criterion, Params, accuracy
from ..examine import is_small, numpy_source
from ..fashion_reference import pictures
from ..trained_network import CONVS, float_logits, has_uint8_activations, network, opened

# 7.2: small and right


def draw_small(rng: Random) -> Params:
    order = list(range(10))
    rng.shuffle(order)
    return {"order": order, "most_bytes": rng.randrange(348_000, 352_500, 500), "points": rng.choice([0.8, 0.9, 1.0])}


def check_small(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    running = opened(model, CONVS, criteria)
    if running is None:
        return criteria
    if not has_uint8_activations(model, running, criteria) or not _is_accurate(
        model, p, rng, criteria, lambda: _accuracy_cause(model)
    ):
        return criteria
    is_small(model, p["most_bytes"], criteria, lambda: _size_cause(model))
    return criteria


# What both checks look at


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


_DRAWN = (300, 120, 80)  # test images of each group


def _is_accurate(model: onnx.ModelProto, p: Params, rng: Random, criteria: Criteria, cause: Callable[[], str]) -> bool:
    """Add: it loses at most p["points"] points. cause: what to say of a model that loses more."""
    count = sum(_DRAWN)
    what = f"it loses at most {p['points']} points of accuracy ({count} test images, hard ones drawn more often)"
    images, wanted = _unseen(rng)
    try:
        logits = _answers(model, images)
    except CourseError as error:
        return criteria.add(what, False, str(error))
    if logits.shape != (count, 10):
        hint = f"For {count} pictures the logits have shape {list(logits.shape)}, expected {[count, 10]}."
        return criteria.add(what, False, hint)
    weight, said = accuracy.weights(_DRAWN), logits.argmax(1)
    right = np.array(p["order"])[said] == wanted
    found = accuracy.loss(right, weight, lambda of: float_logits(images[of]).argmax(1) == wanted[of], p["points"])

    def why() -> str:
        unmoved = np.average(said == wanted, weights=weight) > found.right + 0.2
        more = "It answers in the usual order of classes: start from your own model." if unmoved else cause()
        return f"It is right for {found.right:.1%}, the float model for at least {found.reference:.1%}. {more}"

    return criteria.add(what, found.within and bool(np.isfinite(logits).all()), why)


def _answers(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    """In small batches: their tensors stay in the processor's cache."""
    session = session_for(model)
    parts = [run(session, {"image": images[at : at + 50]})["logits"] for at in range(0, len(images), 50)]
    return np.concatenate(parts) if all(part.ndim == 2 for part in parts) else parts[0]


def _unseen(rng: Random) -> tuple[np.ndarray, np.ndarray]:
    """Inputs made of test images, and their labels. A pixel may be one brighter or darker: nobody can look it up."""
    images, labels = pictures("test")
    draw = numpy_source(rng)
    pairs = zip(accuracy.groups(), _DRAWN, strict=True)
    chosen = np.concatenate([draw.choice(group, count, replace=False) for group, count in pairs])
    moved = images[chosen] + draw.integers(-1, 2, (len(chosen), 28, 28))
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

    _is_accurate(model, p, rng, criteria, cause)
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
