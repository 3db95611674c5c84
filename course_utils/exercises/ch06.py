"""Exercises of lesson 06: fold, tidy up, explain, trace back, make a pattern match.

What a right answer is must not depend on the versions installed where it is given or graded. So truths come from how a
model was built; where a runtime has to optimise an answer, it is at a level that every supported version has.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from ..errors import CourseError
from ..graphs import op_histogram
from ..provenance import optimized
from . import Criteria, Criterion, Params, Task
from .attention_fusion import attention, check_attention, draw_attention
from .batchnorm_folding import check_fold, draw_fold, unfolded
from .examine import computes, has_io, is_sound, numpy_source, result, wants_keys
from .fusion_models import Weights, conv_node, float32_model, is_standard, norm_node
from .fusion_origins import check_origins, draw_origins, shown_origins

# 6.2: at most so many nodes

_FAULTS = ("output", "input", "max")


def _draw_tidy(rng: Random) -> Params:
    return {"faults": rng.sample(_FAULTS, 3), "most": 3, "seed": rng.getrandbits(32)}


def _untidy(p: Params) -> onnx.ModelProto:
    """Three layers; in each one something keeps Conv, BatchNormalization and Relu from becoming one node."""
    draw = np.random.default_rng(p["seed"])
    weights: Weights = {"zero": np.zeros(())}
    nodes, extra_inputs, extra_outputs, current = [], [], [], "x"
    for index, fault in enumerate(p["faults"], 1):
        layer = f"layer{index}"
        weights |= {
            f"{layer}.kernel": draw.normal(0, 0.4, (4, 4, 3, 3)),
            **{f"{layer}.{name}": draw.uniform(0.5, 1.5, 4) for name in ("scale", "shift", "mean", "variance")},
        }
        end = "y" if index == len(p["faults"]) else f"{layer}.done"
        nodes += [
            conv_node(current, [f"{layer}.kernel"], f"{layer}.conv"),
            norm_node(f"{layer}.conv", layer, f"{layer}.norm", 1e-5),
            helper.make_node("Max", [f"{layer}.norm", "zero"], [end], f"{layer}.max")
            if fault == "max"
            else helper.make_node("Relu", [f"{layer}.norm"], [end], f"{layer}.relu"),
        ]
        if fault == "output":
            extra_outputs.append(helper.make_tensor_value_info(f"{layer}.conv", TensorProto.FLOAT, [1, 4, 8, 8]))
        if fault == "input":
            extra_inputs.append(helper.make_tensor_value_info(f"{layer}.scale", TensorProto.FLOAT, [4]))
        current = end
    model = float32_model("untidy", nodes, weights, [1, 4, 8, 8], [1, 4, 8, 8])
    model.graph.input.extend(extra_inputs)
    model.graph.output.extend(extra_outputs)
    return model


def _check_tidy(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not is_standard(model, criteria) or not is_sound(model, criteria):
        return criteria
    extra = [v.name for v in model.graph.output if v.name != "y"]
    if not criteria.add(
        "y is the only output",
        not extra,
        f"{', '.join(extra)} is an output, too, so it must exist: the nodes behind it cannot be folded into the Conv.",
    ) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    x = numpy_source(rng).normal(0, 1, (1, 4, 8, 8)).astype(np.float32)
    given = _untidy(p)
    del given.graph.output[1:]
    expected = result(given, {"x": x})
    tolerance = 1e-4 * float(np.abs(expected).max())
    hint = "Start again from the given model."
    computes(model, {"x": x}, expected, criteria, "y is what it was", hint, atol=tolerance, rtol=0)
    try:
        left = op_histogram(optimized(model, "extended"))
    except CourseError as error:
        criteria.add(f"at level extended at most {p['most']} nodes are left", False, str(error))
        return criteria
    criteria.add(
        f"at level extended at most {p['most']} nodes are left",
        int(left.sum()) <= p["most"],
        f"{int(left.sum())} are left: {', '.join(f'{n} {op}' for op, n in left.items())}. {_tidy_cause(model)}",
    )
    return criteria


def _tidy_cause(model: onnx.ModelProto) -> str:
    stored = {t.name for t in model.graph.initializer}
    fed = [v.name for v in model.graph.input if v.name in stored]
    if fed:
        return f"{fed[0]} is listed among the inputs, so anybody may feed it: it cannot be folded."
    if any(node.op_type == "Max" for node in model.graph.node):
        return "Max with zero is a Relu, but the optimiser does not know that."
    return "Look at the first layer that is not one node: who else needs the tensors in it?"


# 6.3: why does it not fuse?

_REASONS = ("fuses", "output", "two readers", "can be fed", "order", "no kernel")
_WHY = {
    "fuses": "It becomes one node.",
    "output": "A tensor that would disappear is among the outputs.",
    "two readers": "A tensor that would disappear has a second reader.",
    "can be fed": "A weight that would be folded is listed among the inputs.",
    "order": "The activation stands before the norm.",
    "no kernel": "FusedConv does not have this activation.",
}


_WORDS_FOR_NAMES = [
    "amber",
    "basil",
    "cedar",
    "dune",
    "ember",
    "fjord",
    "grove",
    "heath",
    "jade",
    "kelp",
    "lava",
    "moss",
]


def _draw_reasons(rng: Random) -> Params:
    cases = dict(zip("abcde", rng.sample(_REASONS, 5), strict=True))
    names = rng.sample(_WORDS_FOR_NAMES, 6)
    return {
        "cases": cases,
        "names": names,
        "weight": rng.choice(["scale", "shift", "mean", "variance", "kernel"]),
        "tensor": rng.choice([0, 1]),
        "kernels": rng.choice(["Relu", "Sigmoid", "Tanh"]),
        "no_kernel": rng.choice(["Elu", "Softplus", "Softsign"]),
    }


def _shown_reasons(p: Params) -> Mapping[str, onnx.ModelProto]:
    return {f"6.3_{letter}.onnx": _case(p, reason)[0] for letter, reason in p["cases"].items()}


def _case(p: Params, reason: str) -> tuple[onnx.ModelProto, str]:
    """A model, and the name of what keeps it from becoming one node."""
    first, second = p["names"][:2]
    names = ("kernel", "scale", "shift", "mean", "variance")
    weights: Weights = {
        name: np.linspace(0.5, 1.5, 144 if name == "kernel" else 4).reshape((4, 4, 3, 3) if name == "kernel" else 4)
        for name in names
    }
    norm = ["scale", "shift", "mean", "variance"]
    conv = conv_node("x", ["kernel"], first)
    activation, where = (p["no_kernel"] if reason == "no kernel" else p["kernels"]), ""
    if reason == "order":
        nodes = [
            conv,
            helper.make_node(activation, [first], [second], "activate"),
            helper.make_node("BatchNormalization", [second, *norm], ["y"], "norm"),
        ]
        where = second
    else:
        end = p["names"][2] if reason == "two readers" else "y"
        nodes = [
            conv,
            helper.make_node("BatchNormalization", [first, *norm], [second], "norm"),
            helper.make_node(activation, [second], [end], "activate"),
        ]
    if reason == "two readers":
        where = (first, second)[p["tensor"]]
        nodes.append(helper.make_node("Add", [end, where], ["y"], "sum"))
    model = float32_model("case", nodes, weights, [1, 4, 8, 8], [1, 4, 8, 8])
    if reason == "output":
        where = (first, second)[p["tensor"]]
        model.graph.output.append(helper.make_tensor_value_info(where, TensorProto.FLOAT, [1, 4, 8, 8]))
    if reason == "can be fed":
        where = p["weight"]
        model.graph.input.append(helper.make_tensor_value_info(where, TensorProto.FLOAT, list(weights[where].shape)))
    if reason == "no kernel":
        where = "y"
    return model, where


def _check_reasons(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not wants_keys(answer, set(p["cases"]), criteria):
        return criteria
    for letter, reason in p["cases"].items():
        got = answer[letter]
        fits = isinstance(got, dict) and set(got) == {"reason", "where"}
        hint = f"Write a dict with the keys reason and where. reason is one of: {', '.join(_REASONS)}."
        said, where = (got["reason"], got["where"]) if fits else (None, None)
        right = _case(p, reason)[1]
        if fits:
            hint = _reason_hint(reason, said, where, right)
        criteria.add(
            f"why model {letter} becomes one node, or does not", fits and said == reason and where == right, hint
        )
    return criteria


def _reason_hint(reason: str, said: object, where: object, right: str) -> str:
    if said not in _REASONS or not isinstance(said, str):
        return f"{str(said)[:40]!r} is none of: {', '.join(_REASONS)}."
    if said == reason:
        return {
            "fuses": "The reason is right. Nothing is in the way, so where is an empty text.",
            "output": "The reason is right, where is not: name the output that is not y.",
            "two readers": "The reason is right, where is not: name the tensor that two nodes read.",
            "can be fed": "The reason is right, where is not: name the weight that is among the inputs.",
            "order": "The reason is right, where is not: name the tensor that the activation writes.",
            "no kernel": "The reason is right, where is not: name the tensor that the activation writes.",
        }[reason]
    if said == "fuses":
        return "Optimise it at level extended and count: more than one node is left."
    if reason == "fuses":
        return "Optimise it at level extended and count: one node is left."
    return f"It is not that ({_WHY[said][0].lower()}{_WHY[said][1:-1]}: not so here). Compare with the six cases of the lesson."


TASKS = (
    Task("6.1", "Fold BatchNorm by hand", "onnx", check_fold, draw_fold, lambda p: {"6.1.onnx": unfolded(p)}),
    Task("6.2", "At most three nodes", "onnx", _check_tidy, _draw_tidy, lambda p: {"6.2.onnx": _untidy(p)}),
    Task("6.3", "Why does it not fuse?", "json", _check_reasons, _draw_reasons, _shown_reasons),
    Task("6.4", "Where does it come from?", "json", check_origins, draw_origins, shown_origins),
    Task(
        "6.5",
        "Make attention match",
        "onnx",
        check_attention,
        draw_attention,
        lambda p: {"6.5.onnx": attention(p, p["fault"])},
    ),
)
