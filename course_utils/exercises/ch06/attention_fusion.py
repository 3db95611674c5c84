"""Task 6.5: make attention match the pattern that the optimiser of Transformers looks for."""

from __future__ import annotations

from random import Random

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ...lab.graphs import operator_counts
from ...running import run, session_for
from .. import Criteria, Criterion, Params
from ..examine import computes, has_io, is_sound, numpy_source, result
from .fusion_models import Weights, float32_model, is_standard

_SCORES = ("query", "key", "reciprocal")
_MASKS = ("one step", "expanded", "order")


def draw_attention(rng: Random) -> Params:
    heads = rng.choice([2, 4])
    return {"heads": heads, "hidden": heads * 4, "seed": rng.getrandbits(32)}


def faults(p: Params) -> tuple[str, str]:
    """What keeps the scores and the mask from being recognised: not among the parameters, it shall be found."""
    rng = Random(f"{p['seed']}/faults")
    return rng.choice(_SCORES), rng.choice(_MASKS)


_WORDS = 6


def attention(p: Params, scores: str = "", mask: str = "") -> onnx.ModelProto:
    """Layer norm, masked self-attention, sum, layer norm. scores, mask: what keeps it from being recognised, if something."""
    heads, hidden = p["heads"], p["hidden"]
    draw = np.random.default_rng(p["seed"])
    weights: Weights = {
        **{f"{n}.weight": draw.normal(0, 0.4, (hidden, hidden)) for n in ("query", "key", "value", "out")},
        **{f"{n}.bias": draw.normal(0, 0.5, (hidden,)) for n in ("query", "key", "value", "out", "norm1", "norm2")},
        **{f"{n}.scale": draw.uniform(0.5, 1.5, (hidden,)) for n in ("norm1", "norm2")},
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
    if scores in ("query", "key"):
        pair = ["small", "key"] if scores == "query" else ["query", "small"]
        nodes += [n("Div", [scores, "root"], ["small"], "divide"), n("MatMul", pair, ["scores"], "match")]
    else:
        op = "Mul" if scores == "reciprocal" else "Div"
        nodes += [n("MatMul", ["query", "key"], ["raw"], "match"), n(op, ["raw", "root"], ["scores"], "divide")]
    if scores == "reciprocal":
        weights["root"] = 1 / weights["root"]
    if mask == "one step":
        nodes.append(n("Unsqueeze", ["mask", "axes"], ["mask_4d"], "mask_axes"))
    else:
        nodes.append(n("Unsqueeze", ["mask", "axis_1"], ["mask_3d"], "mask_axis_1"))
        nodes.append(n("Unsqueeze", ["mask_3d", "axis_2"], ["mask_4d"], "mask_axis_2"))
    nodes.append(n("Cast", ["mask_4d"], ["mask_float"], "mask_cast", to=TensorProto.FLOAT))
    if mask == "expanded":  # (1 - mask) · far = mask · (-far) - (-far)
        del weights["one"], weights["far"]
        weights["near"] = np.array(10000.0)
        nodes.append(n("Mul", ["mask_float", "near"], ["lifted"], "mask_mul"))
        nodes.append(n("Sub", ["lifted", "near"], ["penalty"], "mask_sub"))
    else:
        pair = ["far", "padding"] if mask == "order" else ["padding", "far"]
        nodes.append(n("Sub", ["one", "mask_float"], ["padding"], "mask_sub"))
        nodes.append(n("Mul", pair, ["penalty"], "mask_mul"))
    nodes += [
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
    # At least two words end early: what the mask does must show.
    mask = (np.arange(_WORDS) < source.integers(2, _WORDS, (3, 1))).astype(np.int64)
    feed: dict[str, np.ndarray] = {"x": source.normal(0, 1, (3, _WORDS, p["hidden"])).astype(np.float32), "mask": mask}
    expected, what = result(attention(p), feed), "it computes what the given model computes"
    if not computes(
        model, feed, expected, criteria, what, lambda: _attention_cause(model, feed, p), atol=1e-4, condition=True
    ):
        return criteria
    reason = _why_not_attention(model, p)
    scores = _scores_cause(model) if reason else ""
    criteria.add("the scores are MatMul, Div, Add, Softmax", not scores, scores)
    criteria.add(
        "the optimiser makes one Attention of it",
        not reason,
        "Mend the scores first, then the mask." if scores else reason,
    )
    return criteria


def _changed(p: Params, name: str, op: str, *inputs: str) -> onnx.ModelProto:
    """The model that matches, with another operator in the place of this node."""
    model = attention(p)
    node = next(n for n in model.graph.node if n.name == name)
    node.op_type, node.input[:] = op, inputs
    return model


def _with_root(p: Params, value: float) -> onnx.ModelProto:
    model = attention(p)
    stored = next(t for t in model.graph.initializer if t.name == "root")
    stored.CopyFrom(numpy_helper.from_array(np.array(value, np.float32), "root"))
    return model


def _attention_cause(model: onnx.ModelProto, feed: dict[str, np.ndarray], p: Params) -> str:
    size = p["hidden"] // p["heads"]
    slips = {
        "The mask has no effect any more: words behind the end of a text must not count. A wrong axis does that, too.": (
            attention(p),
            {"mask": np.ones_like(feed["mask"])},
        ),
        "The penalty is on the words that count: it is (1 - mask) times a large negative number.": (
            attention(p),
            {"mask": 1 - feed["mask"]},
        ),
        "The scores are multiplied by the root: divide them.": (_changed(p, "divide", "Mul", "raw", "root"), {}),
        "The division by the root is missing.": (_changed(p, "divide", "Identity", "raw"), {}),
        "The scores are divided by the root twice, or by its square.": (_with_root(p, size), {}),
        "It is the root of the size of one head, and not of all heads together.": (
            _with_root(p, float(np.sqrt(p["hidden"]))),
            {},
        ),
        "The division is upside down: the scores are divided by the root.": (
            _changed(p, "divide", "Div", "root", "raw"),
            {},
        ),
        "The mask is multiplied, and not added.": (_changed(p, "mask_add", "Mul", "scores", "penalty"), {}),
    }
    got = run(session_for(model), feed)["y"]
    for sentence, (wrong, other) in slips.items():
        if np.allclose(got, result(wrong, {**feed, **other}), atol=1e-4, equal_nan=True):
            return sentence
    return "Only move, split or replace the nodes around scores and mask: no number may change."


def _scores_cause(model: onnx.ModelProto) -> str:
    """What is wrong in front of the Softmax; empty when it is as the pattern wants it. The log names the mask for it, too."""
    made = {name: node for node in model.graph.node for name in node.output}
    softmax = next((n for n in model.graph.node if n.op_type == "Softmax"), None)
    if softmax is None:
        return "There is no Softmax: start again from the given model."
    total = made.get(softmax.input[0])
    if total is None or total.op_type != "Add":
        return f"Before the Softmax it wants an Add, and there is {total.op_type if total else 'none'}."
    before = [made[name] for name in total.input if name in made]
    if any(n.op_type == "Div" and getattr(made.get(n.input[0]), "op_type", "") == "MatMul" for n in before):
        return ""
    kinds = ", ".join(n.op_type for n in before)
    return f"Before the Softmax it wants MatMul, then Div, then Add. Into your Add goes what {kinds} computed."


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
    except Exception as error:  # it asserts what it expects of shapes, and raises whatever else
        words = " ".join(f"{type(error).__name__} {error}".split())[:200]
        return f"The optimiser stops at it ({words}): are the weights of query, key and value as they were?"
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(listener)
            logger.setLevel(level)
            logger.propagate = propagate
    left = operator_counts(done)
    if left.get("com.microsoft::Attention", 0) == 1:
        beside = {"Softmax": left.get("Softmax", 0), "MatMul": left.get("MatMul", 0) - 1}  # one behind the Attention
        more = ", ".join(f"{count} {op}" for op, count in beside.items() if count > 0)
        return f"There is an Attention, but the old pattern is still there beside it: {more}." if more else ""
    said = next((words.split(": ")[-1] for words in heard if "failed to match" in words), "")
    if not said:
        return "It finds nothing that looks like attention: start again from the given model."
    causes = {
        "mask path": "between the mask and the sum it wants Unsqueeze, Unsqueeze, Cast, Sub, Mul.",
        "qk path": "before the Softmax it wants MatMul, then Div, then Add.",
        "q path": "between the norm and the product of query and key it wants MatMul, Add, Reshape, Transpose.",
    }
    why = next((text for path, text in causes.items() if f"match {path}" in said), "compare with the lesson's encoder.")
    made = {name: node for node in model.graph.node for name in node.output}
    if "mask path" in said and any(
        n.op_type == "Mul" and getattr(made.get(n.input[1]), "op_type", "") == "Sub" for n in model.graph.node
    ):
        why = "the Mul must read what Sub computed first, and then the large number."
    return f"Its log says: {said}. That means: {why}"
