"""Task 6.5: make attention match the pattern that the optimiser of Transformers looks for."""

from __future__ import annotations

from random import Random

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..graphs import op_histogram
from . import Criteria, Criterion, Params
from .examine import computes, has_io, is_sound, numpy_source, result
from .fusion_models import Weights, float32_model, is_standard


def draw_attention(rng: Random) -> Params:
    heads = rng.choice([2, 4])
    return {"fault": rng.choice(["mask", "scale"]), "heads": heads, "hidden": heads * 4, "seed": rng.getrandbits(32)}


_WORDS = 6


def attention(p: Params, fault: str) -> onnx.ModelProto:
    """Layer norm, masked self-attention, sum, layer norm. fault: what keeps it from being recognised; none if empty."""
    heads, hidden = p["heads"], p["hidden"]
    draw = np.random.default_rng(p["seed"])
    weights: Weights = {
        **{f"{n}.weight": draw.normal(0, 0.4, (hidden, hidden)) for n in ("query", "key", "value", "out")},
        **{f"{n}.bias": draw.normal(0, 0.5, hidden) for n in ("query", "key", "value", "out", "norm1", "norm2")},
        **{f"{n}.scale": draw.uniform(0.5, 1.5, hidden) for n in ("norm1", "norm2")},
        "root": np.array(np.sqrt(hidden // heads)),
        "one": np.array(1.0),
        "far": np.array(-10000.0),
    }
    integers = {
        "split": np.array([0, 0, heads, hidden // heads]),
        "joined": np.array([0, 0, hidden]),
        "axis_1": np.array([1]),
        "axis_2": np.array([2]),
        "axes": np.array([1, 2]),
    }
    n = helper.make_node
    nodes = [n("LayerNormalization", ["x", "norm1.scale", "norm1.bias"], ["h"], "norm1")]
    for name, order in {"query": [0, 2, 1, 3], "key": [0, 2, 3, 1], "value": [0, 2, 1, 3]}.items():
        nodes += [
            n("MatMul", ["h", f"{name}.weight"], [f"{name}_product"], f"{name}_matmul"),
            n("Add", [f"{name}_product", f"{name}.bias"], [f"{name}_sum"], f"{name}_add"),
            n("Reshape", [f"{name}_sum", "split"], [f"{name}_split"], f"{name}_reshape"),
            n("Transpose", [f"{name}_split"], [name], f"{name}_transpose", perm=order),
        ]
    if fault == "scale":
        nodes += [
            n("Div", ["query", "root"], ["small_query"], "divide"),
            n("MatMul", ["small_query", "key"], ["scores"], "match"),
        ]
    else:
        nodes += [n("MatMul", ["query", "key"], ["raw"], "match"), n("Div", ["raw", "root"], ["scores"], "divide")]
    if fault == "mask":
        nodes.append(n("Unsqueeze", ["mask", "axes"], ["mask_4d"], "mask_axes"))
    else:
        nodes.append(n("Unsqueeze", ["mask", "axis_1"], ["mask_3d"], "mask_axis_1"))
        nodes.append(n("Unsqueeze", ["mask_3d", "axis_2"], ["mask_4d"], "mask_axis_2"))
    nodes += [
        n("Cast", ["mask_4d"], ["mask_float"], "mask_cast", to=TensorProto.FLOAT),
        n("Sub", ["one", "mask_float"], ["padding"], "mask_sub"),
        n("Mul", ["padding", "far"], ["penalty"], "mask_mul"),
        n("Add", ["scores", "penalty"], ["masked"], "mask_add"),
        n("Softmax", ["masked"], ["shares"], "shares", axis=-1),
        n("MatMul", ["shares", "value"], ["mixed"], "mix"),
        n("Transpose", ["mixed"], ["mixed_back"], "mix_transpose", perm=[0, 2, 1, 3]),
        n("Reshape", ["mixed_back", "joined"], ["context"], "mix_reshape"),
        n("MatMul", ["context", "out.weight"], ["out_product"], "out_matmul"),
        n("Add", ["out_product", "out.bias"], ["out"], "out_add"),
        n("Add", ["h", "out"], ["total"], "skip"),
        n("LayerNormalization", ["total", "norm2.scale", "norm2.bias"], ["y"], "norm2"),
    ]
    read = {name for node in nodes for name in node.input}
    model = float32_model("attention", nodes, weights, ["batch", _WORDS, hidden], ["batch", _WORDS, hidden])
    model.graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in integers.items() if name in read)
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.INT64, ["batch", _WORDS]))
    return model


def check_attention(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not is_standard(model, criteria) or not is_sound(model, criteria):
        return criteria
    if not has_io(model, {"x": "float", "mask": "int64"}, {"y": "float"}, criteria):
        return criteria
    source = numpy_source(rng)
    mask = (np.arange(_WORDS) < source.integers(2, _WORDS, (3, 1))).astype(np.int64)
    feed = {"x": source.normal(0, 1, (3, _WORDS, p["hidden"])).astype(np.float32), "mask": mask}
    expected = result(attention(p, p["fault"]), feed)
    computes(
        model,
        feed,
        expected,
        criteria,
        "it computes what the given model computes",
        _attention_cause(model, feed, p),
        atol=1e-4,
    )
    reason = _why_not_attention(model, p)
    criteria.add("the optimiser makes one Attention of it", not reason, reason)
    return criteria


def _attention_cause(model: onnx.ModelProto, feed: dict[str, np.ndarray], p: Params) -> str:
    ones = {**feed, "mask": np.ones_like(feed["mask"])}
    if computes(model, feed, result(attention(p, ""), ones), Criteria(), "", "", atol=1e-4):
        return "The mask has no effect any more: words behind the end of a text must not count."
    if not any(node.op_type in ("Div", "Mul") and "root" in node.input for node in model.graph.node):
        return "The division by the root is missing."
    return "Only move or split nodes: no number may change."


def _why_not_attention(model: onnx.ModelProto, p: Params) -> str:
    """Empty when the optimiser recognises the pattern; otherwise where it stopped."""
    import logging

    from onnxruntime.transformers import optimizer

    heard: list[str] = []
    listener = logging.Handler(logging.DEBUG)
    listener.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    loggers = [logging.getLogger(name) for name in ("fusion_attention", "onnxruntime.transformers.fusion_attention")]
    before = [(logger.level, logger.propagate) for logger in loggers]
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    for logger in loggers:
        logger.addHandler(listener)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
    try:
        done = optimizer.optimize_by_fusion(copy, "bert", num_heads=p["heads"], hidden_size=p["hidden"]).model
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(listener)
            logger.setLevel(level)
            logger.propagate = propagate
    left = op_histogram(done)
    if left.get("com.microsoft::Attention", 0) == 1:
        beside = int(left.get("Softmax", 0))
        return (
            ""
            if not beside
            else f"There is an Attention, but the old pattern is still there beside it: {beside} Softmax."
        )
    said = next((words.split(": ")[-1] for words in heard if "failed to match" in words), "")
    if not said:
        return "It finds nothing that looks like attention: start again from the given model."
    causes = {
        "mask path": "between the mask and the sum it wants Unsqueeze, Unsqueeze, Cast, Sub, Mul.",
        "qk path": "before the Softmax it wants MatMul, then Div, then Add.",
        "q path": "between the norm and the product of query and key it wants MatMul, Add, Reshape, Transpose.",
    }
    why = next(
        (text for path, text in causes.items() if f"match {path}" in said), "compare with the encoder of the lesson."
    )
    return f"Its log says: {said}. That means: {why}"
