"""The hospital: a file that computes something else than it did. Which node is the first, and what is wrong with it?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ...running import run_all
from .. import Criteria, Criterion, Params, Task
from ..examine import wants_keys
from .hospital import patient

SHAPE = (2, 4, 8, 8)
_LONG = 6  # numbers of one of the sixteen places of a picture
_NEAR = 0.05  # of the difference: what rounding may change in a small one
node = helper.make_node


def fixed_input() -> np.ndarray:
    """The picture of the task: float32, the same on every machine."""
    return np.sin(np.arange(np.prod(SHAPE))).reshape(SHAPE).astype(np.float32)


def _draw(rng: Random) -> Params:
    return {"seed": rng.getrandbits(32)}


def as_it_was(p: Params) -> onnx.ModelProto:
    """Two convolutions, two layers of attention over the sixteen places, and six numbers for each picture."""
    draw = np.random.default_rng(p["seed"])
    conv: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    weights = {
        "conv1.weight": draw.normal(0, 0.3, (_LONG, 4, 3, 3)),
        "conv2.weight": draw.normal(0, 0.2, (_LONG, _LONG, 3, 3)),
        **{f"conv{i}.bias": draw.normal(0, 0.5, _LONG) for i in (1, 2)},
        "classify.matrix": draw.normal(0, 0.5, (_LONG, 6)),
        "classify.bias": draw.normal(0, 0.5, 6),
        "places": np.array([0, _LONG, 16]),
    }
    nodes = [
        node("Conv", ["x", "conv1.weight", "conv1.bias"], ["c1"], "conv1", **conv),
        node("LeakyRelu", ["c1"], ["a1"], "activation1", alpha=0.1),
        node("Conv", ["a1", "conv2.weight", "conv2.bias"], ["c2"], "conv2", **conv),
        node("LeakyRelu", ["c2"], ["a2"], "activation2", alpha=0.1),
        node("Add", ["a1", "a2"], ["s0"], "shortcut"),
        node("AveragePool", ["s0"], ["pooled"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Reshape", ["pooled", "places"], ["flat"], "places"),
        node("Transpose", ["flat"], ["t0"], "rows", perm=[0, 2, 1]),
    ]
    for i in (1, 2):
        weights |= {
            f"norm{i}.scale": draw.uniform(0.7, 1.3, _LONG),
            f"norm{i}.shift": draw.normal(0, 0.3, _LONG),
            **{f"{name}{i}.matrix": draw.normal(0, 0.5, (_LONG, _LONG)) for name in ("query", "key", "value")},
        }
        nodes += [
            node(
                "LayerNormalization",
                [f"t{i - 1}", f"norm{i}.scale", f"norm{i}.shift"],
                [f"n{i}"],
                f"norm{i}",
                axis=-1,
                epsilon=1e-5,
            ),
            node("MatMul", [f"n{i}", f"query{i}.matrix"], [f"q{i}"], f"query{i}"),
            node("MatMul", [f"n{i}", f"key{i}.matrix"], [f"k{i}"], f"key{i}"),
            node("MatMul", [f"n{i}", f"value{i}.matrix"], [f"v{i}"], f"value{i}"),
            node("Transpose", [f"k{i}"], [f"kt{i}"], f"turn{i}", perm=[0, 2, 1]),
            node("MatMul", [f"q{i}", f"kt{i}"], [f"z{i}"], f"scores{i}"),
            node("Softmax", [f"z{i}"], [f"w{i}"], f"shares{i}", axis=-1),
            node("MatMul", [f"w{i}", f"v{i}"], [f"o{i}"], f"seen{i}"),
            node("Add", [f"t{i - 1}", f"o{i}"], [f"t{i}"], f"sum{i}"),
        ]
    nodes += [
        node("ReduceMean", ["t2"], ["m"], "mean", axes=[1], keepdims=0),
        node("Gemm", ["m", "classify.matrix", "classify.bias"], ["y"], "classify"),
    ]
    return patient("good", nodes, weights, ["batch", *SHAPE[1:]], ["batch", 6])


@dataclass(frozen=True)
class Fault:
    """What is wrong with a node. part: the attribute or the weight. change: the new value from the old one and a source."""

    node: str
    part: str
    change: Callable[[Any, np.random.Generator], Any]


def _one_number(value: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    changed = value.copy()
    changed.flat[draw.integers(value.size)] += draw.choice([-1, 1])
    return changed


_PADS = ([0, 0, 2, 2], [2, 2, 0, 0], [0, 2, 2, 0], [2, 0, 0, 2], [0, 1, 2, 1], [1, 0, 1, 2])
# None in the first node: there, who takes rounding for a fault would be right.
FAULTS = (
    Fault("conv2", "pads", lambda old, draw: list(_PADS[draw.integers(len(_PADS))])),
    Fault("conv2", "conv2.weight", lambda old, draw: old[:, :, ::-1, ::-1]),
    Fault("conv2", "conv2.weight", lambda old, draw: old.astype(np.float16)),
    Fault("conv2", "conv2.bias", _one_number),
    *(Fault(f"activation{i}", "alpha", lambda old, draw: float(draw.choice([0.01, 0.2, 0.3]))) for i in (1, 2)),
    *(Fault(f"norm{i}", "epsilon", lambda old, draw: float(draw.choice([1e-1, 1e-2, 3e-2]))) for i in (1, 2)),
    *(Fault(f"norm{i}", f"norm{i}.shift", _one_number) for i in (1, 2)),
    *(Fault(f"shares{i}", "axis", lambda old, draw: 1) for i in (1, 2)),
    *(Fault(f"{n}{i}", f"{n}{i}.matrix", lambda old, draw: old.T) for n in ("query", "key", "value") for i in (1, 2)),
    *(Fault(f"value{i}", f"value{i}.matrix", lambda old, draw: old.astype(np.float16)) for i in (1, 2)),
)


def fault(p: Params) -> Fault:
    """Drawn from the seed: not among the parameters, it shall be found."""
    return Random(f"{p['seed']}/fault").choice(FAULTS)


def as_it_is(p: Params, faulty: bool = True) -> onnx.ModelProto:
    """The same model from another tool: other names of tensors, other words for the same, rounding, and one fault."""
    model, draw, wrong = as_it_was(p), np.random.default_rng([p["seed"], 1]), fault(p)
    graph = model.graph
    graph.name = "new"
    for i in (1, 2):  # both orders are right
        at = next(k for k, n in enumerate(graph.node) if n.name == f"query{i}")
        query, key = onnx.NodeProto(), onnx.NodeProto()
        query.CopyFrom(graph.node[at])
        key.CopyFrom(graph.node[at + 1])
        graph.node[at].CopyFrom(key)
        graph.node[at + 1].CopyFrom(query)
    names = {n.output[0]: f"tensor_{k}" for k, n in enumerate(graph.node) if n.output[0] != "y"}
    by_name = {n.name: n for n in graph.node}
    for n in graph.node:
        n.input[:] = [names.get(name, name) for name in n.input]
        n.output[:] = [names.get(name, name) for name in n.output]
    _say_otherwise(by_name, draw)
    for tensor in graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype == np.float32:
            rounded = value * (1 + 1e-7 * draw.choice([-1, 1], value.shape))
            if faulty and tensor.name == wrong.part:
                rounded = wrong.change(rounded, draw)
            if tensor.name == "classify.matrix":
                rounded = rounded.T  # read with transB
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(rounded, np.float32), tensor.name))
    if faulty and wrong.part in ("pads", "alpha", "epsilon", "axis"):
        _set(by_name[wrong.node], wrong.part, wrong.change(None, draw))
    return model


def _say_otherwise(nodes: dict[str, onnx.NodeProto], draw: np.random.Generator) -> None:
    """Write attributes in another way that means the same."""
    auto, plain = draw.permutation(["conv1", "conv2"])
    _drop(nodes[auto], "pads")
    _set(nodes[auto], "auto_pad", "SAME_UPPER")
    _drop(nodes[plain], "kernel_shape")
    _drop(nodes[draw.choice(["norm1", "norm2"])], "epsilon")  # 1e-5 unless it is told
    for name in ("norm1", "norm2", "shares1", "shares2"):
        if draw.integers(2):
            _set(nodes[name], "axis", 2)
    _set(nodes["classify"], "transB", 1)


def _drop(n: onnx.NodeProto, name: str) -> None:
    for a in [a for a in n.attribute if a.name == name]:
        n.attribute.remove(a)


def _set(n: onnx.NodeProto, name: str, value: Any) -> None:
    _drop(n, name)
    if name == "pads":
        _drop(n, "auto_pad")
    n.attribute.append(helper.make_attribute(name, value))


def shown(p: Params) -> dict[str, onnx.ModelProto]:
    return {"9.16_good.onnx": as_it_was(p), "9.16_new.onnx": as_it_is(p)}


def by_node(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Node → what it writes for the picture of the task, in the order of the file."""
    seen = run_all(model, {"x": fixed_input()})
    return {n.name: seen[n.output[0]] for n in model.graph.node}


def _check(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not wants_keys(answer, {"node", "difference", "part"}, criteria):
        return criteria
    good, new, wrong = by_node(as_it_was(p)), by_node(as_it_is(p)), fault(p)
    said, number = answer["node"], answer["difference"]
    is_number = isinstance(number, int | float) and not isinstance(number, bool) and 0 <= number < 1e9
    if not criteria.require(
        "node is the name of a node, and difference is a number",
        isinstance(said, str) and said in new and is_number,
        f"{str(number)[:40]!r} is no difference: write the largest absolute difference, a number."
        if isinstance(said, str) and said in new
        else f"{str(said)[:40]!r} is the name of no node: nodes have the same names in both files.",
    ):
        return criteria
    largest = float(np.abs(good[wrong.node] - new[wrong.node]).max())
    if not criteria.add(
        "the node is the first one that computes something else, by as much as you say",
        said == wrong.node and abs(number - largest) <= _NEAR * largest,
        lambda: _difference_hint(said, float(number), good, new, wrong.node),
    ):
        return criteria
    criteria.add(
        "the part is the one that is wrong", answer["part"] == wrong.part, lambda: _part_hint(answer["part"], p)
    )
    return criteria


def _difference_hint(
    said: str, number: float, good: dict[str, np.ndarray], new: dict[str, np.ndarray], first: str
) -> str:
    order = list(new)
    if order.index(said) < order.index(first):
        return (
            "There both files agree up to rounding. Compare by name: the nodes stand in another order in the new file."
            if said.startswith(("query", "key"))
            else "There both files agree up to rounding: the last digits may differ in any node."
        )
    if said != first:
        agrees = np.allclose(good[said], new[said], atol=1e-5, rtol=1e-4)
        return (
            "There both files agree up to rounding."
            if agrees
            else "That node differs, but not as the first one: it already reads something wrong. Go on from the beginning."
        )
    delta = np.abs(good[first].astype(np.float64) - new[first])
    end = np.abs(good["classify"].astype(np.float64) - new["classify"])
    slips = {
        "This is the difference at the end, in y: the one at the first node is asked for.": end.max(),
        "This is the mean of the differences: the largest one is asked for.": delta.mean(),
        "This is the root of the mean of squares: the largest difference is asked for.": np.sqrt((delta**2).mean()),
        "This is relative: the largest absolute difference is asked for.": delta.max() / np.abs(good[first]).max(),
        "This is a sum: the largest difference is asked for.": delta.sum(),
    }
    cause = next((text for text, value in slips.items() if abs(number - value) <= _NEAR * value), "")
    return (
        f"The node is right, the difference is not. {cause or 'Use the x of the task, and all numbers of the output.'}"
    )


def _part_hint(said: object, p: Params) -> str:
    wrong = fault(p)
    files = [as_it_was(p), as_it_is(p)]
    first, second = (next(n for n in m.graph.node if n.name == wrong.node) for m in files)
    stored = {t.name for t in files[0].graph.initializer}
    parts = {a.name for n in (first, second) for a in n.attribute} | {i for i in first.input if i in stored}
    if not isinstance(said, str) or said not in parts:
        return (
            f"{str(said)[:40]!r} is neither an attribute nor a weight of that node: it has {', '.join(sorted(parts))}."
        )
    if said in stored:
        return "That weight is the same in both files, up to rounding. Compare the others, and the attributes."
    return "That attribute means the same in both files: a default may be left out, and axis -1 is the last one. Compare the others, and the weights."


DIVERGING = Task(
    "9.16",
    "The first wrong node",
    "json",
    _check,
    _draw,
    shown,
    (
        "y is wrong, but where does it begin? Both files give every tensor inside, if they are asked.",
        "Copy each model, add every tensor to its outputs as onnx.ValueInfoProto(name=…), and run it. Pair the results by the "
        "names of the nodes, in the order of the new file, and let differences below one in ten thousand pass.",
        "At the first node whose outputs differ more, compare the inputs that are weights with np.allclose, and the attributes "
        "with helper.get_attribute_value. A left-out attribute has its default.",
    ),
    points=2,
)
