"""Tasks 1.3 to 1.5: a small network of two layers, damaged in three ways, and the check of its repair."""

from __future__ import annotations

from random import Random
from typing import cast

import numpy as np
import onnx
import onnx.reference
from onnx import helper, numpy_helper

from ...lab.graphs import operator_counts
from .. import Criteria, Criterion, Params
from ..examine import has_io, is_sound, numpy_source
from ..handouts import x_to_y
from ..slips import Feed, compare


def _healthy(p: Params) -> onnx.ModelProto:
    values = np.random.default_rng(p["seed"])
    weights = {f"{kind}_{i}": values.normal(0, 0.5, shape).astype(np.float32) for i, kind, shape in _LAYERS}
    nodes = [
        helper.make_node("MatMul", ["x", "weight_1"], ["product_1"], name="multiply_1"),
        helper.make_node("Add", ["product_1", "bias_1"], ["sum_1"], name="add_1"),
        helper.make_node("Relu", ["sum_1"], ["hidden"], name="activate_1"),
        helper.make_node("MatMul", ["hidden", "weight_2"], ["product_2"], name="multiply_2"),
        helper.make_node("Add", ["product_2", "bias_2"], ["sum_2"], name="add_2"),
        helper.make_node("Add", ["sum_2", "x"], ["skip"], name="add_skip"),
        helper.make_node("Tanh", ["skip"], ["y"], name="activate_2"),
    ]
    return x_to_y("repair", nodes, weights, ["batch", 4], ["batch", 4], {"": 18}, ir_version=10)


_LAYERS = [(1, "weight", (4, 8)), (1, "bias", (8,)), (2, "weight", (8, 4)), (2, "bias", (4,))]


def disordered(p: Params) -> onnx.ModelProto:
    """The nodes in another order."""
    model = _healthy(p)
    nodes = list(model.graph.node)
    rng = Random(p["seed"])
    # Node by node in reverse, then some neighbours exchanged: never in order, and never the same way twice.
    shuffled = nodes[::-1]
    at = rng.randrange(len(nodes) - 1)
    shuffled[at], shuffled[at + 1] = shuffled[at + 1], shuffled[at]
    del model.graph.node[:]
    model.graph.node.extend(shuffled)
    return model


def dangling(p: Params) -> onnx.ModelProto:
    """One input name misspelled, and one node that writes over another's output."""
    model = _healthy(p)
    rng = Random(p["seed"])
    node = model.graph.node[rng.choice([0, 1, 3, 4])]
    node.input[1] = node.input[1].replace("_", "")
    model.graph.node[2].output[0] = "sum_1"
    return model


def mistyped(p: Params) -> onnx.ModelProto:
    """One initializer in float64, and an output that promises one column too many."""
    model = _healthy(p)
    tensor = model.graph.initializer[Random(p["seed"]).randrange(4)]
    values = numpy_helper.to_array(tensor).astype(np.float64)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value += 1
    return model


def check_repair(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    """The check of all three tasks."""
    criteria, healthy = Criteria(), _healthy(p)
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    got, want = operator_counts(model), operator_counts(healthy)
    criteria.require(
        "no node was added or taken away",
        got == want,
        f"The graph has {got}, it was handed out with {want}. Repair it, do not rewrite it.",
    )
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    wrong = [
        t.name
        for t in healthy.graph.initializer
        if not np.array_equal(stored.get(t.name, ()), numpy_helper.to_array(t))
    ]
    criteria.require(
        "names and values of the weights are as they were handed out",
        not wrong,
        f"{', '.join(wrong)} was renamed, lost or changed. The nodes must be made to fit the weights, not the other way "
        f"round.",
    )
    source = numpy_source(rng)
    feeds = [{"x": source.normal(0, 1, (rows, 4)).astype(np.float32)} for rows in (3, 1)]
    compare(
        model,
        {"it computes what the author meant": feeds},
        lambda feed: _computed(healthy, feed),
        {},
        criteria,
        otherwise=lambda: _rewired(model, healthy) or "A node reads or writes a wrong name.",
    )
    return criteria


def _computed(model: onnx.ModelProto, feed: Feed) -> np.ndarray:
    """The model's first output, by the reference implementation."""
    results = onnx.reference.ReferenceEvaluator(model).run(None, feed)
    return cast(list[np.ndarray], results)[0]  # a dict comes back only of a run for intermediate results


def _rewired(model: onnx.ModelProto, healthy: onnx.ModelProto) -> str:
    """The first node, by its name, that reads another node's result than its author meant; empty when none does."""
    meant, found = _read_from(healthy), _read_from(model)
    for name, sources in meant.items():
        others = found.get(name, sources)
        for source, other in zip(sources, others, strict=False):
            if source != other and set(sources) != set(others):  # the two sides of a sum may change places
                return f"The node {name!r} takes {other!r}, and its author meant {source!r}."
    return ""


def _read_from(model: onnx.ModelProto) -> dict[str, list[str]]:
    """Name of a node → what it reads: names of nodes, of weights, or of the input."""
    writer = {name: node.name for node in model.graph.node for name in node.output}
    return {node.name: [writer.get(name, name) for name in node.input] for node in model.graph.node}
