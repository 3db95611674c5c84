"""The model of the capstone: a student's own parameters, and the ONNX graph that the checks compare with.

The graph is built node by node from the stored weights, so no exporter takes part. `fault` puts one mistake into it: for the
file of task 10.2, and to find out which mistake an answer has.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from ...lab.data import FASHION_MEAN, FASHION_STD
from ...running import run, session_for
from .. import Params
from ..trained_network import float_logits, network
from .module_source import EDGES, SIDE, SOURCES
from .seen import LIMITS, LINES, curve, middle, seen
from .seen import edges as edges  # noqa: PLC0414 - for the checks, which ask for it beside the answers

OPSET, IR = 17, 8
_AT_ONCE = 100


def draw(rng: Random) -> Params:
    """A student's own scroll: the awkward operator, the decision, the order of the classes."""
    order = list(range(10))
    rng.shuffle(order)
    operator = rng.choice(sorted(SOURCES))
    return {
        "operator": operator,
        "strength": {
            "kthvalue": rng.randint(8, 30),  # of 784 pixels, so many are darker than the darkest that counts
            "median": rng.randint(3, 6),  # percent of the pixels that are dead
            "searchsorted": rng.choice([24, 32, 40, 48]),  # levels of the tone curve
        }[operator],
        "gamma": rng.choice([0.5, 0.6, 1.7, 2.2]),
        "edge": rng.choice(sorted(EDGES)),
        "threshold": round(rng.uniform(0.42, 0.58), 2),
        "mirrored": rng.random() < 0.5,
        "order": order,
        "seed": rng.randrange(10**6),
    }


# The graph

OF_ONE_OPERATOR = {"everywhere": "median", "zeros": "median", "not clamped": "kthvalue"}
FAULTS = {
    "always as it is": "Photographs on white paper are treated like the others: the decision is frozen.",
    "always negative": "Every photograph is turned into its negative: the decision is frozen.",
    "one for all": "One decision is made for the whole batch: the answer depends on who else is in it.",
    "other edge": "The decision looks at the wrong part of the photograph: rows are dimension 1, columns dimension 2.",
    "first line": "The decision looks at the first line of the edge alone: it has two, the first and the last.",
    "last line": "The decision looks at the last line of the edge alone: it has two, the first and the last.",
    "mirror": "Mirroring is wrong: photo.flip(1) turns the columns of one photograph, in a batch they are dimension 2.",
    "rank": "The repaired light is nearly right: the operator picks a neighbour. Does it count from 0 or from 1?",
    "far rank": "The operator of the repair picks the wrong one of the sorted values.",
    "not repaired": "The light is not repaired.",
    "everywhere": "Every pixel has become the median of its neighbours: only dead ones should, and the others stay.",
    "zeros": "The photograph is continued with zeros: the padding of the repair is mode reflect.",
    "not clamped": "The repaired light goes below 0 and above 1: the clamp is missing.",
    "not normalised": "Mean and deviation are not applied.",
    "order": "The scores are right, in the wrong order: take the classes in the order of self.order.",
    "no order": "The scores are in the order of the network: self.order is missing.",
    "activation": "An activation in the network is not Relu.",
    "padding": "A convolution in the network pads the wrong sides.",
}


class _Graph:
    """Nodes and constants, added one by one."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, op: str, inputs: list[object], name: str, **attributes: Any) -> str:
        """A node with one output of the same name. An input that is not a name becomes a constant."""
        names = []
        for i, value in enumerate(inputs):
            if isinstance(value, str):
                names.append(value)
                continue
            array = np.asarray(value)
            if array.dtype == np.float64:
                array = array.astype(np.float32)
            self.constants.append(numpy_helper.from_array(array, f"{name}.{i}"))
            names.append(f"{name}.{i}")
        self.nodes.append(helper.make_node(op, names, [name], name, **attributes))
        return name

    def model(self, output: str, dtype: int, shape: list[str | int] | None) -> onnx.ModelProto:
        return helper.make_model(
            helper.make_graph(
                self.nodes,
                "scroll",
                [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", SIDE, SIDE])],
                [helper.make_tensor_value_info(output, dtype, shape)],
                self.constants,
            ),
            ir_version=IR,
            opset_imports=[helper.make_opsetid("", OPSET)],
            producer_name="onnx-scroll",
        )


def built(p: Params, fault: str = "") -> onnx.ModelProto:
    """The scroll as an ONNX model: pixels uint8 [batch, 28, 28] → logits float32 [batch, 10]. fault: one of `FAULTS`."""
    graph = _prepared(p, fault)
    stored = network(list(range(10))).graph
    graph.constants.extend(stored.initializer)
    _inject(list(stored.node), fault, p["seed"])
    graph.nodes.extend(stored.node)
    graph.nodes[-1].output[0] = graph.nodes[-1].name = "scores"
    graph.add("Gather", ["scores", _order(p, fault)], "logits", axis=1)
    return graph.model("logits", TensorProto.FLOAT, ["batch", 10])


def _order(p: Params, fault: str) -> list[int]:
    order: list[int] = p["order"]
    return {"order": np.argsort(order).tolist(), "no order": list(range(10))}.get(fault, order)


def _prepared(p: Params, fault: str) -> _Graph:
    """What comes before the network: from `pixels` to `image`."""
    graph = _Graph()
    number = graph.add("Cast", ["pixels"], "number", to=TensorProto.FLOAT)
    light = graph.add("Div", [number, 255.0], "light")
    if fault != "not repaired":
        light = _REPAIRS[p["operator"]](graph, light, p, fault)
    axis = EDGES[p["edge"]][1]
    lines = LINES.get(fault, [0, 27])
    edge = graph.add("Gather", [light, lines], "edge", axis=3 - axis if fault == "other edge" else axis)
    axes = [0, 1, 2] if fault == "one for all" else [1, 2]
    mean = graph.add("ReduceMean", [edge], "edge_mean", axes=axes, keepdims=1)
    limit = LIMITS.get(fault, p["threshold"])
    white = graph.add("Greater", [mean, limit], "on_white")
    negative = graph.add("Sub", [1.0, light], "negative")
    if p["mirrored"] != (fault == "mirror"):
        negative = graph.add("Gather", [negative, list(range(27, -1, -1))], "mirrored", axis=2)
    x = graph.add("Where", [white, negative, light], "chosen")
    if fault != "not normalised":
        centred = graph.add("Sub", [x, FASHION_MEAN], "centred")
        x = graph.add("Div", [centred, FASHION_STD], "normalised")
    graph.add("Unsqueeze", [x, [1]], "image")
    return graph


def _inject(nodes: list[onnx.NodeProto], fault: str, seed: int) -> None:
    """Put a fault of the network into one of its nodes."""
    if fault == "activation":
        node = [n for n in nodes if n.op_type == "Relu"][2 + seed % 9]
        node.op_type = "LeakyRelu"
        node.attribute.append(helper.make_attribute("alpha", 0.3))
    elif fault == "padding":
        wide = [n for n in nodes for a in n.attribute if a.name == "pads" and list(a.ints) == [1, 1, 1, 1]]
        node = wide[1 + seed % (len(wide) - 1)]
        next(a for a in node.attribute if a.name == "pads").ints[:] = [0, 0, 2, 2]


def _stretched(graph: _Graph, light: str, p: Params, fault: str) -> str:
    k = p["strength"] + {"rank": 1, "far rank": 100}.get(fault, 0)
    flat = graph.add("Reshape", [light, [0, -1]], "in_a_row")
    for name, largest in (("low", 0), ("high", 1)):
        graph.nodes.append(
            helper.make_node("TopK", [flat, f"{name}.k"], [f"{name}_all", f"{name}_at"], f"{name}_all", largest=largest)
        )
        graph.constants.append(numpy_helper.from_array(np.array([k]), f"{name}.k"))
        one = graph.add("Gather", [f"{name}_all", [k - 1]], f"{name}_one", axis=1)
        graph.add("Unsqueeze", [one, [2]], name)
    span = graph.add("Add", [graph.add("Sub", ["high", "low"], "difference"), 0.01], "span")
    scaled = graph.add("Div", [graph.add("Sub", [light, "low"], "above_low"), span], "scaled")
    return scaled if fault == "not clamped" else graph.add("Clip", [scaled, 0.0, 1.0], "repaired")


def _healed(graph: _Graph, light: str, p: Params, fault: str) -> str:
    # Each pixel beside its eight neighbours: every row with those above and below it, then the same for columns.
    three = np.pad(np.arange(SIDE), 1, mode="reflect")[np.arange(SIDE)[:, None] + np.arange(3)].ravel()
    source = light
    if fault == "zeros":
        source = graph.add("Pad", [light, [0, 1, 1, 0, 1, 1]], "with_zeros")
        three = (np.arange(SIDE)[:, None] + np.arange(3)).ravel()
    rows = graph.add("Gather", [source, three], "rows_of_three", axis=1)
    around = graph.add("Gather", [rows, three], "threes", axis=2)
    nine = graph.add("Reshape", [around, [-1, SIDE, 3, SIDE, 3]], "three_by_three")
    nine = graph.add("Transpose", [nine], "around", perm=[0, 1, 3, 2, 4])
    nine = graph.add("Reshape", [nine, [-1, SIDE, SIDE, 9]], "nine")
    graph.nodes.append(helper.make_node("TopK", [nine, "nine.k"], ["sorted", "sorted_at"], "sorted"))
    graph.constants.append(numpy_helper.from_array(np.array([9]), "nine.k"))
    median = graph.add("Gather", ["sorted", middle(fault)], "median", axis=3)
    return median if fault == "everywhere" else _only_dead(graph, light, median)


def _only_dead(graph: _Graph, light: str, median: str) -> str:
    black, white = (graph.add("Equal", [light, value], name) for name, value in (("black", 0.0), ("white", 1.0)))
    return graph.add("Where", [graph.add("Or", [black, white], "dead"), median, light], "repaired")


def _unbent(graph: _Graph, light: str, p: Params, fault: str) -> str:
    k = p["strength"]
    above = graph.add("Greater", [graph.add("Unsqueeze", [light, [3]], "one_by_one"), curve(p, fault)], "above")
    ones = graph.add("Cast", [above], "ones", to=TensorProto.FLOAT)
    count = graph.add("ReduceSum", [ones, [3]], "count", keepdims=0)
    return graph.add("Div", [count, float(k)], "repaired")


_REPAIRS: dict[str, Callable[[_Graph, str, Params, str], str]] = {
    "kthvalue": _stretched,
    "median": _healed,
    "searchsorted": _unbent,
}


_OF_THE_NETWORK = ("activation", "padding")


def answers(p: Params, photos: np.ndarray, fault: str = "") -> np.ndarray:
    """Scores float32 [n, 10] of the reference, or of one with a fault. The whole set counts as one batch."""
    return _scores(p, seen(p, photos, fault), fault)


def right_and_wrong(p: Params, photos: np.ndarray, fault: str) -> tuple[np.ndarray, np.ndarray]:
    """`answers` without a fault and with one, of all photographs whose scores the fault can change."""
    before, after = seen(p, photos), seen(p, photos, fault)
    if _order(p, fault) != p["order"]:
        logits = float_logits(before)
        return logits[:, p["order"]], logits[:, _order(p, fault)]
    if fault in _OF_THE_NETWORK:
        right, wrong = _logits(_beside_right(_broken(fault, p["seed"])), before)
        return right[:, p["order"]], wrong[:, p["order"]]
    changed = (before != after).any((1, 2, 3))
    return _scores(p, before[changed], ""), _scores(p, after[changed], fault)


def _scores(p: Params, images: np.ndarray, fault: str) -> np.ndarray:
    if fault in _OF_THE_NETWORK:
        (logits,) = _logits(_broken(fault, p["seed"]), images)
    else:
        logits = float_logits(images)
    return logits[:, _order(p, fault)]


def _broken(fault: str, seed: int) -> onnx.ModelProto:
    model = network(list(range(10)))
    _inject(list(model.graph.node), fault, seed)
    return model


def _beside_right(broken: onnx.ModelProto) -> onnx.ModelProto:
    """The network, and a broken one beside it: up to the fault, ONNX Runtime computes once what is in both."""
    model = network(list(range(10)))
    prefixed = compose.add_prefix(broken, "broken.", rename_inputs=False, rename_initializers=False)
    model.graph.node.extend(prefixed.graph.node)
    model.graph.output.extend(prefixed.graph.output)
    return model


def _logits(model: onnx.ModelProto, images: np.ndarray) -> list[np.ndarray]:
    """Each output of a model that reads `image`."""
    session = session_for(model)
    parts = [run(session, {"image": images[at : at + _AT_ONCE]}) for at in range(0, len(images), _AT_ONCE)]
    return [np.concatenate([part[name] for part in parts]) for name in parts[0]]
