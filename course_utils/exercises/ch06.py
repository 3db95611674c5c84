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
from onnx import TensorProto, helper, numpy_helper

from ..errors import CourseError
from ..graphs import op_histogram
from ..provenance import optimized
from ..running import run, session_for
from . import Criteria, Criterion, Params, Task
from .examine import computes, has_io, is_sound, numpy_source, wants_keys
from .handouts import x_to_y

OPSET, IR = 17, 8
Weights = dict[str, np.ndarray]


# 6.1: fold BatchNorm by hand

_LAYERS = ("one", "two")


def _draw_fold(rng: Random) -> Params:
    # Epsilons so large that forgetting them shows.
    return {"epsilon": [rng.choice([0.05, 0.1, 0.2]), rng.choice([0.3, 0.4, 0.5])], "seed": rng.getrandbits(32)}


def _fold_weights(p: Params) -> Weights:
    draw = np.random.default_rng(p["seed"])
    weights: Weights = {}
    for layer in _LAYERS:
        weights |= {
            f"{layer}.kernel": draw.normal(0, 0.4, (4, 4, 3, 3)),
            f"{layer}.bias": draw.normal(0, 1, 4),
            f"{layer}.scale": draw.uniform(0.5, 2, 4),
            f"{layer}.shift": draw.normal(0, 1, 4),
            f"{layer}.mean": draw.normal(0, 1, 4),
            f"{layer}.variance": draw.uniform(0.2, 3, 4),
        }
    return weights


def _unfolded(p: Params) -> onnx.ModelProto:
    weights = _fold_weights(p)
    del weights["two.bias"]  # so that both cases occur
    nodes = [
        _conv("x", ["one.kernel", "one.bias"], "a"),
        _norm("a", "one", "b", p["epsilon"][0]),
        helper.make_node("Relu", ["b"], ["c"], "relu"),
        _conv("c", ["two.kernel"], "d"),
        _norm("d", "two", "y", p["epsilon"][1]),
    ]
    return _model("unfolded", nodes, weights, [1, 4, 8, 8], [1, 4, 8, 8])


def _folded(p: Params, mistake: str = "") -> onnx.ModelProto:
    """The right answer, or the one that a likely mistake gives."""
    old, new = _fold_weights(p), {}
    old["two.bias"] = np.zeros(4)
    for layer, epsilon in zip(_LAYERS, p["epsilon"], strict=True):
        scale, shift, mean, variance, kernel, bias = (
            old[f"{layer}.{name}"] for name in ("scale", "shift", "mean", "variance", "kernel", "bias")
        )
        deviation = np.sqrt(variance + (0 if mistake == "epsilon" else epsilon))
        factor = scale / (variance + epsilon if mistake == "root" else deviation)
        axis = (None, slice(None), None, None) if mistake == "axis" else (slice(None), None, None, None)
        new[f"{layer}.kernel"] = kernel * factor[axis]
        new[f"{layer}.bias"] = {
            "mean": shift + bias * factor,
            "bias": shift - mean * factor,
            "unscaled": shift + bias - mean * factor,
            "shift": (bias - mean) * factor,
        }.get(mistake, shift + (bias - mean) * factor)
    nodes = [
        _conv("x", ["one.kernel", "one.bias"], "b"),
        helper.make_node("Relu", ["b"], ["c"], "relu"),
        _conv("c", ["two.kernel", "two.bias"], "y"),
    ]
    return _model("folded", nodes, new, [1, 4, 8, 8], [1, 4, 8, 8])


_FOLD_CAUSES = {
    "epsilon": "The epsilon is missing: it is an attribute of each BatchNormalization, and added to the variance.",
    "root": "The square root is missing: the factor is scale / sqrt(variance + epsilon).",
    "axis": "The factor is on the wrong axis: the first axis of a kernel counts the output channels.",
    "mean": "The mean is missing in the new bias.",
    "bias": "The bias that the first convolution had is lost.",
    "unscaled": "The old bias must be multiplied with the factor, too.",
    "shift": "The shift is missing in the new bias.",
}


def _check_fold(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria, given = Criteria(), _unfolded(p)
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    ops = op_histogram(model).to_dict()
    criteria.add(
        "two Conv and one Relu are left",
        ops == {"Conv": 2, "Relu": 1} and not model.functions,
        "There is still a BatchNormalization: take the node out, and let its readers read the Conv."
        if "BatchNormalization" in ops
        else f"The graph has {ops}. Fold into the weights of the two Conv that are there.",
    )
    kernels = [node.input[1] for node in model.graph.node if node.op_type == "Conv" and len(node.input) > 1]
    criteria.add(
        "the kernels have the names they had",
        kernels == ["one.kernel", "two.kernel"],
        "These are names that ONNX Runtime gives. Do it yourself, with NumPy."
        if any("Fusion" in name for name in kernels)
        else f"They are {', '.join(kernels) or 'none'}: change the values of one.kernel and two.kernel.",
    )
    x = numpy_source(rng).normal(0, 1, (1, 4, 8, 8)).astype(np.float32)
    expected = _result(given, {"x": x})
    tolerance = 1e-5 * float(np.abs(expected).max())
    _computes(
        model, {"x": x}, expected, criteria, "the result is the same to 1e-5", tolerance, _fold_cause(model, x, p)
    )
    return criteria


def _fold_cause(model: onnx.ModelProto, x: np.ndarray, p: Params) -> str:
    for mistake, sentence in _FOLD_CAUSES.items():
        wrong = _result(_folded(p, mistake), {"x": x})
        if computes(model, {"x": x}, wrong, Criteria(), "", "", atol=1e-4):
            return sentence
    return "Compare the tensors of one layer after the other, with NumPy."


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
            _conv(current, [f"{layer}.kernel"], f"{layer}.conv"),
            _norm(f"{layer}.conv", layer, f"{layer}.norm", 1e-5),
            helper.make_node("Max", [f"{layer}.norm", "zero"], [end], f"{layer}.max")
            if fault == "max"
            else helper.make_node("Relu", [f"{layer}.norm"], [end], f"{layer}.relu"),
        ]
        if fault == "output":
            extra_outputs.append(helper.make_tensor_value_info(f"{layer}.conv", TensorProto.FLOAT, [1, 4, 8, 8]))
        if fault == "input":
            extra_inputs.append(helper.make_tensor_value_info(f"{layer}.scale", TensorProto.FLOAT, [4]))
        current = end
    model = _model("untidy", nodes, weights, [1, 4, 8, 8], [1, 4, 8, 8])
    model.graph.input.extend(extra_inputs)
    model.graph.output.extend(extra_outputs)
    return model


def _check_tidy(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not _is_standard(model, criteria) or not is_sound(model, criteria):
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
    expected = _result(given, {"x": x})
    tolerance = 1e-4 * float(np.abs(expected).max())
    _computes(model, {"x": x}, expected, criteria, "y is what it was", tolerance, "Start again from the given model.")
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
    conv = _conv("x", ["kernel"], first)
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
    model = _model("case", nodes, weights, [1, 4, 8, 8], [1, 4, 8, 8])
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


# 6.4: where does it come from?


def _draw_origins(rng: Random) -> Params:
    blocks = rng.sample(["conv norm relu", "conv relu", "conv norm"], 3)
    between = [*rng.sample(["identity", "dropout", "gain"], 2), ""]
    rng.shuffle(between)
    return {"blocks": blocks, "between": between, "seed": rng.getrandbits(32)}


class _Pair:
    """A model and its optimised form, built side by side, with the truth about which node became which.

    Names tell nothing: those of the nodes are drawn, and all tensors of the second model have new ones.
    """

    def __init__(self, p: Params) -> None:
        self.draw = np.random.default_rng(p["seed"])
        self.labels = [f"n{number:02}" for number in Random(p["seed"]).sample(range(100), 30)]
        self.old_nodes: list[onnx.NodeProto] = []
        self.new_nodes: list[onnx.NodeProto] = []
        self.old_weights: Weights = {}
        self.new_weights: Weights = {}
        self.truth: dict[str, list[str]] = {}
        self.gone: list[str] = []
        self.old = self.new = "x"

    def before(self, op: str, *weights: str, target: str = "", **attributes: Any) -> str:
        """Add a node behind the last one of the first model; return its name."""
        label = self.labels.pop()
        self.old, source = target or f"t_{label}", self.old
        self.old_nodes.append(helper.make_node(op, [source, *weights], [self.old], label, **attributes))
        return label

    def after(self, op: str, *weights: str, target: str, originals: list[str], **attributes: Any) -> None:
        """Add a node behind the last one of the second model, made of `originals`."""
        self.new_nodes.append(helper.make_node(op, [self.new, *weights], [target], **attributes))
        self.truth[target], self.new = originals, target


_CONV: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}


def _before_after(p: Params) -> _Pair:
    pair = _Pair(p)
    for index, (block, between) in enumerate(zip(p["blocks"], p["between"], strict=True)):
        _add_block(pair, index, block)
        if between in ("identity", "dropout"):
            pair.gone.append(pair.before(between.capitalize()))
        elif between == "gain":
            label = pair.labels.pop()
            pair.old_nodes.append(helper.make_node("Exp", ["log_gain"], ["gain"], label))
            pair.gone.append(label)
            pair.old_weights["log_gain"] = pair.draw.normal(0, 0.3, (4, 1, 1)).astype(np.float32)
            pair.new_weights["w9"] = np.exp(pair.old_weights["log_gain"])
            pair.after("Mul", "w9", target="u9", originals=[pair.before("Mul", "gain")])
    for target, op in {"u4": "GlobalAveragePool", "u5": "Flatten"}.items():
        pair.after(op, target=target, originals=[pair.before(op)])
    matrix, offset = pair.draw.normal(0, 1, (4, 3)), pair.draw.normal(0, 1, 3)
    pair.old_weights |= {"matrix": matrix, "offset": offset}
    pair.new_weights |= {"w7": matrix, "w8": offset}
    originals = [pair.before("MatMul", "matrix"), pair.before("Add", "offset", target="y")]
    pair.after("Gemm", "w7", "w8", target="y", originals=originals)
    return pair


def _add_block(pair: _Pair, index: int, block: str) -> None:
    kernel, bias = pair.draw.normal(0, 0.4, (4, 4, 3, 3)), pair.draw.normal(0, 1, 4)
    pair.old_weights |= {f"k{index}": kernel, f"b{index}": bias}
    originals = [pair.before("Conv", f"k{index}", f"b{index}", **_CONV)]
    if "norm" in block:
        scale, shift, mean, variance = (pair.draw.uniform(0.5, 1.5, 4) for _ in range(4))
        names = [f"{letter}{index}" for letter in "sfmv"]
        pair.old_weights |= dict(zip(names, (scale, shift, mean, variance), strict=True))
        originals.append(pair.before("BatchNormalization", *names, epsilon=1e-5))
        factor = scale / np.sqrt(variance + 1e-5)
        kernel, bias = kernel * factor[:, None, None, None], shift + (bias - mean) * factor
    pair.new_weights |= {f"w{2 * index}": kernel, f"w{2 * index + 1}": bias}
    fused: dict[str, Any] = {}
    if "relu" in block:
        originals.append(pair.before("Relu"))
        fused = {"domain": "com.microsoft", "activation": "Relu"}
    weights = f"w{2 * index}", f"w{2 * index + 1}"
    pair.after("FusedConv" if fused else "Conv", *weights, target=f"u{index}", originals=originals, **_CONV, **fused)


def _shown_origins(p: Params) -> dict[str, onnx.ModelProto]:
    pair, both = _before_after(p), {"": OPSET, "com.microsoft": 1}
    return {
        "6.4_before.onnx": _model("before", pair.old_nodes, pair.old_weights, [1, 4, 8, 8], [1, 3]),
        "6.4_after.onnx": _model("after", pair.new_nodes, pair.new_weights, [1, 4, 8, 8], [1, 3], both),
    }


def _check_origins(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    pair = _before_after(p)
    truth, gone = pair.truth, pair.gone
    if not wants_keys(answer, {"from", "gone"}, criteria):
        return criteria
    came, known = answer["from"], {node.name for node in pair.old_nodes}
    if criteria.add(
        "from has one entry for each tensor that a node of the optimised model writes",
        isinstance(came, dict) and set(came) == set(truth),
        f"Its keys must be {', '.join(sorted(truth))}.",
    ):
        for tensor, names in truth.items():
            got = came[tensor]
            criteria.add(
                f"the original nodes in {tensor}", _as_set(got) == set(names), _origin_hint(got, names, gone, known)
            )
    criteria.add(
        "gone lists the nodes that are in none of them",
        _as_set(answer["gone"]) == set(gone) and len(answer["gone"]) == len(gone),
        _gone_hint(answer["gone"], gone, known),
    )
    return criteria


def _gone_hint(got: object, gone: list[str], known: set[str]) -> str:
    found = _as_set(got)
    if found is None:
        return "Write a list of node names."
    if strange := sorted(found - known):
        return f"{strange[0][:40]} is not the name of a node of the original model."
    if extra := sorted(found - set(gone)):
        return f"{extra[0]} is not gone: a node of the optimised model computes what it computed."
    if missing := set(gone) - found:
        return (
            f"{len(missing)} missing: a node is gone when it changed nothing, or when it computed from constants alone."
        )
    return "A name stands in the list twice."


def _as_set(names: object) -> set[str] | None:
    return set(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _origin_hint(got: object, names: list[str], gone: list[str], known: set[str]) -> str:
    found = _as_set(got)
    if found is None:
        return "Write a list of names of original nodes."
    if strange := sorted(found - known):
        return f"{strange[0][:40]} is not the name of a node of the original model."
    if found & set(gone):
        return f"{sorted(found & set(gone))[0]} changed nothing, or read constants only: it belongs to gone."
    if missing := set(names) - found:
        return f"{len(missing)} missing: what stands between the tensors that the new node reads and the one it writes?"
    return "A node too many: another node of the optimised model computes it."


# 6.5: make attention match


def _draw_attention(rng: Random) -> Params:
    heads = rng.choice([2, 4])
    return {"fault": rng.choice(["mask", "scale"]), "heads": heads, "hidden": heads * 4, "seed": rng.getrandbits(32)}


_WORDS = 6


def _attention(p: Params, fault: str) -> onnx.ModelProto:
    """Layer norm, masked self-attention, sum, layer norm. fault: what keeps it from being recognised; none if empty."""
    heads, hidden = p["heads"], p["hidden"]
    draw = np.random.default_rng(p["seed"])
    weights: dict[str, np.ndarray] = {
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
    model = _model("attention", nodes, weights, ["batch", _WORDS, hidden], ["batch", _WORDS, hidden])
    model.graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in integers.items() if name in read)
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.INT64, ["batch", _WORDS]))
    return model


def _check_attention(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not _is_standard(model, criteria) or not is_sound(model, criteria):
        return criteria
    if not has_io(model, {"x": "float", "mask": "int64"}, {"y": "float"}, criteria):
        return criteria
    source = numpy_source(rng)
    mask = (np.arange(_WORDS) < source.integers(2, _WORDS, (3, 1))).astype(np.int64)
    feed = {"x": source.normal(0, 1, (3, _WORDS, p["hidden"])).astype(np.float32), "mask": mask}
    expected = _result(_attention(p, p["fault"]), feed)
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
    if computes(model, feed, _result(_attention(p, ""), ones), Criteria(), "", "", atol=1e-4):
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


# What several tasks build with


def _conv(source: str, weights: list[str], target: str) -> onnx.NodeProto:
    return helper.make_node(
        "Conv", [source, *weights], [target], f"conv_{target}", kernel_shape=[3, 3], pads=[1, 1, 1, 1]
    )


def _norm(source: str, layer: str, target: str, epsilon: float) -> onnx.NodeProto:
    weights = [f"{layer}.{name}" for name in ("scale", "shift", "mean", "variance")]
    return helper.make_node("BatchNormalization", [source, *weights], [target], f"norm_{target}", epsilon=epsilon)


def _model(
    name: str,
    nodes: list[onnx.NodeProto],
    weights: Mapping[str, np.ndarray],
    shape_in: list[int | str],
    shape_out: list[int | str],
    opsets: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    single = {key: np.asarray(values, np.float32) for key, values in weights.items()}
    return x_to_y(name, nodes, single, shape_in, shape_out, opsets or {"": OPSET}, ir_version=IR)


def _is_standard(model: onnx.ModelProto, criteria: Criteria) -> bool:
    foreign = sorted({node.domain for node in model.graph.node} - {"", "ai.onnx"})
    return criteria.add(
        "only standard operators are in the file",
        not foreign and not model.functions,
        f"There are nodes of {', '.join(foreign) or 'a function'}. Leave the fusing to the optimiser: hand in the model "
        f"as it is before.",
    )


def _result(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> np.ndarray:
    return next(iter(run(session_for(model, optimize=False), feed).values()))


def _computes(
    model: onnx.ModelProto,
    feed: dict[str, np.ndarray],
    expected: np.ndarray,
    criteria: Criteria,
    what: str,
    tolerance: float,
    hint: str,
) -> None:
    computes(model, feed, expected, criteria, what, hint, atol=tolerance, rtol=0)


TASKS = (
    Task("6.1", "Fold BatchNorm by hand", "onnx", _check_fold, _draw_fold, lambda p: {"6.1.onnx": _unfolded(p)}),
    Task("6.2", "At most three nodes", "onnx", _check_tidy, _draw_tidy, lambda p: {"6.2.onnx": _untidy(p)}),
    Task("6.3", "Why does it not fuse?", "json", _check_reasons, _draw_reasons, _shown_reasons),
    Task(
        "6.4",
        "Where does it come from?",
        "json",
        _check_origins,
        _draw_origins,
        _shown_origins,
    ),
    Task(
        "6.5",
        "Make attention match",
        "onnx",
        _check_attention,
        _draw_attention,
        lambda p: {"6.5.onnx": _attention(p, p["fault"])},
    ),
)
