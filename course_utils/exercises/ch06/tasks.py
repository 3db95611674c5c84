"""Exercises of lesson 06: fold, tidy up, explain, trace back, make a pattern match, read a profile.

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

from ...lab.graphs import operator_counts
from ...lab.provenance import optimized
from .. import Criteria, Criterion, Params, Task
from ..examine import computes, has_io, is_sound, numpy_source, result, wants_keys
from .attention_fusion import attention, check_attention, draw_attention, faults
from .batchnorm_folding import check_fold, draw_fold, unfolded
from .fusion_models import Weights, conv_node, float32_model, is_standard, norm_node
from .fusion_origins import check_origins, draw_origins, shown_origins
from .profile_reading import READING

# 6.2: at most so many nodes

_FAULTS = ("output", "input", "max")


def _draw_tidy(rng: Random) -> Params:
    return {"most": 3, "seed": rng.getrandbits(32)}


def _faults(p: Params) -> list[str]:
    """Which fault is in which layer: not among the parameters, it shall be found."""
    return Random(p["seed"]).sample(_FAULTS, 3)


def _untidy(p: Params) -> onnx.ModelProto:
    """Three layers; in each one something keeps Conv, BatchNormalization and Relu from becoming one node."""
    draw = np.random.default_rng(p["seed"])
    weights: Weights = {"zero": np.zeros(())}
    nodes, extra_inputs, extra_outputs, current = [], [], [], "x"
    for index, fault in enumerate(_faults(p), 1):
        layer = f"layer{index}"
        weights |= {
            f"{layer}.weight": draw.normal(0, 0.4, (4, 4, 3, 3)),
            **{f"{layer}.{name}": draw.uniform(0.5, 1.5, 4) for name in ("scale", "shift", "mean", "variance")},
        }
        end = "y" if index == len(_FAULTS) else f"{layer}.done"
        nodes += [
            conv_node(current, [f"{layer}.weight"], f"{layer}.conv"),
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
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    del plain.graph.output[:]
    plain.graph.output.extend(v for v in model.graph.output if v.name == "y")
    if not has_io(plain, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    x = numpy_source(rng).normal(0, 1, (1, 4, 8, 8)).astype(np.float32)
    given = _untidy(p)
    del given.graph.output[1:]
    expected = result(given, {"x": x})
    tolerance = 1e-4 * float(np.abs(expected).max())
    hint = "Start again from the given model."
    if not computes(
        plain, {"x": x}, expected, criteria, "y is what it was", hint, atol=tolerance, rtol=0, condition=True
    ):
        return criteria
    criteria.add(
        "no other tensor is an output",
        not extra,
        f"{', '.join(extra)} is an output, too, so it must exist: the nodes after it cannot become one with the Conv.",
    )
    fed = [v.name for v in model.graph.input if v.name != "x"]
    criteria.add(
        "no weight is an input",
        not fed,
        f"{', '.join(fed)} is listed among the inputs, so a caller may feed it: it cannot be folded.",
    )
    left = operator_counts(optimized(model, "extended"))
    criteria.add(
        f"at level extended at most {p['most']} nodes are left",
        sum(left.values()) <= p["most"],
        f"{sum(left.values())} are left: {', '.join(f'{n} {op}' for op, n in left.items())}. {_tidy_cause(model)}",
    )
    return criteria


def _tidy_cause(model: onnx.ModelProto) -> str:
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
    return {"seed": rng.getrandbits(32)}


def _details(p: Params) -> Params:
    """What the models are made of: not among the parameters, because it says why each of them does not fuse."""
    rng = Random(p["seed"])
    return {
        "cases": dict(zip("abcde", rng.sample(_REASONS, 5), strict=True)),
        "names": rng.sample(_WORDS_FOR_NAMES, 6),
        "weight": rng.choice(["scale", "shift", "mean", "variance", "weight"]),
        "tensor": rng.choice([0, 1]),
        "kernels": rng.choice(["Relu", "Sigmoid", "Tanh"]),
        "no_kernel": rng.choice(["Elu", "Softplus", "Softsign"]),
    }


def _shown_reasons(p: Params) -> Mapping[str, onnx.ModelProto]:
    details = _details(p)
    return {f"6.3_{letter}.onnx": _case(details, reason)[0] for letter, reason in details["cases"].items()}


def _case(p: Params, reason: str) -> tuple[onnx.ModelProto, str]:
    """A model, and the name of what keeps it from becoming one node."""
    first, second = p["names"][:2]
    names = ("weight", "scale", "shift", "mean", "variance")
    weights: Weights = {
        name: np.linspace(0.5, 1.5, 144 if name == "weight" else 4).reshape((4, 4, 3, 3) if name == "weight" else 4)
        for name in names
    }
    norm = ["scale", "shift", "mean", "variance"]
    conv = conv_node("x", ["weight"], first)
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
    criteria, details = Criteria(), _details(p)
    cases = details["cases"]
    if not wants_keys(answer, set(cases), criteria):
        return criteria
    odd = [
        e
        for e in answer.values()
        if not isinstance(e, dict) or set(e) != {"reason", "where"} or e["reason"] not in _REASONS
    ]
    if not criteria.require(
        "each entry has the keys reason and where, with a reason of the list",
        not odd,
        f"{str(odd[0])[:60]} is none: the keys are reason and where, reason is one of {', '.join(_REASONS)}."
        if odd
        else "",
    ):
        return criteria
    wrong = [
        (answer[letter]["reason"], reason) for letter, reason in cases.items() if answer[letter]["reason"] != reason
    ]
    if not criteria.add(
        "all reasons are right",
        not wrong,
        f"{len(cases) - len(wrong)} of {len(cases)} are right. {_reason_hint(*wrong[0])}" if wrong else "",
    ):
        return criteria
    places = [reason for letter, reason in cases.items() if answer[letter]["where"] != _case(details, reason)[1]]
    criteria.add(
        "all places are right",
        not places,
        f"{len(cases) - len(places)} of {len(cases)} are right. {_PLACES[places[0]]}" if places else "",
    )
    return criteria


_PLACES = {
    "fuses": "Where nothing is in the way, where is an empty text.",
    "output": "Of a tensor that is an output, too: name the output that is not y.",
    "two readers": "Of a tensor with two readers: name the tensor that two nodes read.",
    "can be fed": "Of a weight that can be fed: name the weight that is among the inputs.",
    "order": "Of a wrong order: name the tensor that the activation writes.",
    "no kernel": "Of an activation without a kernel: name the tensor that the activation writes.",
}


def _reason_hint(said: str, reason: str) -> str:
    if said == "fuses":
        return "One that you call 'fuses' does not: optimise it at level extended and count the nodes that are left."
    if reason == "fuses":
        return f"One that you call {said!r} becomes one node: optimise it at level extended and count."
    return f"One that you call {said!r} has another cause: {_WHY[said][0].lower()}{_WHY[said][1:-1]} is not so there."


TASKS = (
    Task(
        "6.1",
        "Fold BatchNorm by hand",
        "onnx",
        check_fold,
        draw_fold,
        lambda p: {"6.1.onnx": unfolded(p)},
        points=3,
        hints=(
            "Write each norm as a factor and a constant for each channel. Are its channels the outputs of the weights, or the inputs?",
            "After a convolution, lesson 06 has the formula. Before one, the factor goes along the second axis of the weights.",
            "The constant of the norm before a convolution becomes a bias: multiply the old weights with it along the second axis, and sum over all axes but the first.",
        ),
    ),
    Task(
        "6.2",
        "At most three nodes",
        "onnx",
        _check_tidy,
        _draw_tidy,
        lambda p: {"6.2.onnx": _untidy(p)},
        points=3,
        hints=(
            "Look at the inputs and outputs of the whole graph, then at the operators of each layer. What is not as in a usual layer?",
            'The deeper page "Why it does not fuse" mends two of the three. For the third one: which usual activation does this layer compute?',
        ),
    ),
    Task(
        "6.3",
        "Why does it not fuse?",
        "json",
        _check_reasons,
        _draw_reasons,
        _shown_reasons,
        points=2,
        hints=(
            'cu.optimized(model, "extended") says which of the models become one node. The others have a reason each.',
            "The first line of each printed model shows its inputs and outputs. After that, count for each inner tensor how many nodes read it.",
            "If inputs, outputs and readers are as usual, look at what the activation reads: the convolution, or the norm?",
        ),
    ),
    Task(
        "6.4",
        "Where does it come from?",
        "json",
        check_origins,
        draw_origins,
        shown_origins,
        points=3,
        hints=(
            "An optimiser may rename a tensor, but its values stay. Which tensors of the two models are equal on the same input?",
            "cu.origins(before, after, feed) makes this comparison with a random input of the right shape. The rows with an empty node are those that are gone.",
        ),
    ),
    Task(
        "6.5",
        "Make attention match",
        "onnx",
        check_attention,
        draw_attention,
        lambda p: {"6.5.onnx": attention(p, *faults(p))},
        points=2,
        hints=(
            "Go backwards from the Softmax in both directions, and compare operator by operator with the two patterns of the task.",
            "For the scores, multiply query and key first and divide after that, by the root of the size of one head. For the mask, compute (1 - mask) times a large negative number.",
            "Make the new nodes with helper.make_node, let the last ones write what mask_add reads, and insert them before mask_add. Remove the old nodes.",
        ),
    ),
    READING,
)
