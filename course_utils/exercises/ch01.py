"""Exercises of lesson 01: build, count, repair, cut."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np
import onnx
import onnx.reference
from onnx import TensorProto, helper, numpy_helper

from ..graphs import op_histogram, type_text
from . import Criteria, Criterion, Params, Task
from .examine import computes, has_io, is_sound, numpy_source, wants_keys

OPSET, IR = 18, 10

_FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Relu": lambda v: np.maximum(v, 0),
    "Sigmoid": lambda v: 1 / (1 + np.exp(-v)),
    "Tanh": np.tanh,
    "Softplus": lambda v: np.log1p(np.exp(v)),
}


# 1.1: build a formula


def _draw_formula(rng: Random) -> Params:
    a, b, c = (rng.choice([-1, 1]) * rng.randint(5, 30) / 10 for _ in range(3))
    return {"f": rng.choice(list(_FUNCTIONS)), "a": a, "b": b, "c": c}


def _formula(x: np.ndarray, p: Params) -> np.ndarray:
    return _FUNCTIONS[p["f"]](p["a"] * x + p["b"]) + p["c"] * x


def _check_formula(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    shape = type_text(model.graph.input[0])[1]
    criteria.add(
        "x takes any number of rows of three",
        shape.endswith(", 3]") and shape.count(",") == 1 and not shape[1].isdigit(),
        f"Its shape is {shape}. The first dimension must be a name such as 'batch', the second one 3.",
    )
    criteria.add(
        f"the operator {p['f']} is used",
        p["f"] in op_histogram(model).index,
        f"The graph has {', '.join(op_histogram(model).index)}. Your f is {p['f']}.",
    )
    x = numpy_source(rng).normal(0, 2, (5, 3)).astype(np.float32)
    computes(model, {"x": x}, _formula(x, p).astype(np.float32), criteria, "y is f(a·x + b) + c·x", _cause(model, x, p))
    return criteria


def _cause(model: onnx.ModelProto, x: np.ndarray, p: Params) -> str:
    """Which likely mistake gives exactly what the model computes."""
    likely = {
        "The term c·x is missing.": {**p, "c": 0},
        "b is missing.": {**p, "b": 0},
        "a is missing, or is 1.": {**p, "a": 1},
        "b has the wrong sign: it is subtracted.": {**p, "b": -p["b"]},
        "c has the wrong sign: c·x is subtracted.": {**p, "c": -p["c"]},
        "a and b are exchanged.": {**p, "a": p["b"], "b": p["a"]},
    }
    for sentence, wrong in likely.items():
        if computes(model, {"x": x}, _formula(x, wrong).astype(np.float32), Criteria(), "", ""):
            return sentence
    return "Print each step with ReferenceEvaluator(model, verbose=2) and compare with a calculation by hand."


# 1.2: count what is in a graph


def _counting_model(p: Params) -> onnx.ModelProto:
    """A chain of products and element-wise operators with side branches, and one initializer that nobody reads."""
    rng = Random(p["seed"])
    values = np.random.default_rng(p["seed"])
    nodes, weights, current, width = [], [], "x", 6
    for index in range(rng.randint(7, 11)):
        kind, out = rng.choice(["MatMul", "Add", "Mul", "Relu", "Tanh", "Sigmoid", "Neg"]), f"t{index}"
        inputs = [current]
        if kind == "MatMul":
            inner = rng.randint(3, 9)
            weights.append((f"w{index}", values.normal(0, 1, (width, inner))))
            inputs, width = [current, f"w{index}"], inner
        elif kind in ("Add", "Mul"):
            weights.append((f"v{index}", values.normal(0, 1, (width,))))
            inputs = [current, f"v{index}"]
        nodes.append(helper.make_node(kind, inputs, [out], name=f"n{index}"))
        current = out
    nodes.append(helper.make_node("Identity", [current], ["y"], name="last"))
    weights.append(("spare", values.normal(0, 1, (rng.randint(2, 5), rng.randint(2, 5)))))
    return _model("counting", nodes, [("x", ["batch", 6])], [("y", ["batch", width])], weights)


def _check_count(answer: object, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not wants_keys(answer, {"nodes", "ops", "parameters", "unused"}, criteria):
        return criteria
    assert isinstance(answer, dict)
    graph = _counting_model(p).graph
    read = {name for node in graph.node for name in node.input}
    sizes = {t.name: int(np.prod(t.dims)) for t in graph.initializer}
    used = sum(size for name, size in sizes.items() if name in read)
    ops = {op: int(count) for op, count in op_histogram(_counting_model(p)).items()}
    criteria.add("nodes is the number of nodes", answer["nodes"] == len(graph.node), "Take len(model.graph.node).")
    criteria.add(
        "ops says how often each operator occurs",
        answer["ops"] == ops,
        "It is a dict such as {'Relu': 2, …} over all nodes; its values add up to the number of nodes.",
    )
    criteria.add(
        "parameters is the number of values in the initializers that are read",
        answer["parameters"] == used,
        "You counted an initializer that no node reads."
        if answer["parameters"] == sum(sizes.values())
        else "Multiply the dims of each initializer that some node reads, and add up. Count values, not bytes.",
    )
    criteria.add(
        "unused lists the initializers that no node reads",
        answer["unused"] == sorted(set(sizes) - read),
        "Collect the inputs of all nodes in a set; list the initializers whose name is not in it.",
    )
    return criteria


# 1.3 to 1.5: repair


def _healthy(p: Params) -> onnx.ModelProto:
    values = np.random.default_rng(p["seed"])
    weights = [(f"{kind}_{i}", values.normal(0, 0.5, shape)) for i, kind, shape in _LAYERS]
    nodes = [
        helper.make_node("MatMul", ["x", "kernel_1"], ["product_1"], name="multiply_1"),
        helper.make_node("Add", ["product_1", "bias_1"], ["sum_1"], name="add_1"),
        helper.make_node("Relu", ["sum_1"], ["hidden"], name="activate_1"),
        helper.make_node("MatMul", ["hidden", "kernel_2"], ["product_2"], name="multiply_2"),
        helper.make_node("Add", ["product_2", "bias_2"], ["sum_2"], name="add_2"),
        helper.make_node("Add", ["sum_2", "x"], ["skip"], name="add_skip"),
        helper.make_node("Tanh", ["skip"], ["y"], name="activate_2"),
    ]
    return _model("repair", nodes, [("x", ["batch", 4])], [("y", ["batch", 4])], weights)


_LAYERS = [(1, "kernel", (4, 8)), (1, "bias", (8,)), (2, "kernel", (8, 4)), (2, "bias", (4,))]


def _draw_seed(rng: Random) -> Params:
    return {"seed": rng.randrange(10**6)}


def _disordered(p: Params) -> onnx.ModelProto:
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


def _dangling(p: Params) -> onnx.ModelProto:
    """One input name misspelled, and one node that writes over another's output."""
    model = _healthy(p)
    rng = Random(p["seed"])
    node = model.graph.node[rng.choice([0, 1, 3, 4])]
    node.input[1] = node.input[1].replace("_", "")
    model.graph.node[2].output[0] = "sum_1"
    return model


def _mistyped(p: Params) -> onnx.ModelProto:
    """One initializer in float64, and an output that promises one column too many."""
    model = _healthy(p)
    tensor = model.graph.initializer[Random(p["seed"]).randrange(4)]
    values = numpy_helper.to_array(tensor).astype(np.float64)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value += 1
    return model


def _check_repair(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria, healthy = Criteria(), _healthy(p)
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    got, want = op_histogram(model).to_dict(), op_histogram(healthy).to_dict()
    criteria.add(
        "no node was added or taken away",
        got == want,
        f"The graph has {got}, it was handed out with {want}. Repair it, do not rewrite it.",
    )
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    same = all(
        t.name in stored and np.allclose(stored[t.name], numpy_helper.to_array(t)) for t in healthy.graph.initializer
    )
    criteria.add(
        "names and values of the weights are as they were handed out",
        same,
        "A weight was renamed, lost or changed. The nodes must be made to fit the weights, not the other way round.",
    )
    x = numpy_source(rng).normal(0, 1, (3, 4)).astype(np.float32)
    (expected,) = onnx.reference.ReferenceEvaluator(healthy).run(None, {"x": x})
    computes(
        model, {"x": x}, expected, criteria, "it computes what the author meant", "A node reads or writes a wrong name."
    )
    return criteria


# 1.6: cut a block out of the trained network

_BLOCKS = {"stage1.1": 32, "stage2.1": 64, "stage2.2": 64, "stage2.3": 64}  # block → channels in and out
_SIDE = {32: 14, 64: 7}  # channels → height and width of the feature maps


def _draw_block(rng: Random) -> Params:
    return {"block": rng.choice(list(_BLOCKS))}


def _check_cut(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    import torch

    from ..models import fashion_resnet

    criteria = Criteria()
    if not is_sound(model, criteria):
        return criteria
    channels = _BLOCKS[p["block"]]
    side = _SIDE[channels]
    graph = model.graph
    weights = {t.name for t in graph.initializer}
    inputs = [v for v in graph.input if v.name not in weights]
    shapes = [type_text(v)[1] for v in inputs]
    expected_end = f", {channels}, {side}, {side}]"
    if not criteria.add(
        f"the one input is a feature map [N{expected_end}",
        len(shapes) == 1 and shapes[0].endswith(expected_end),
        f"The inputs have the shapes {', '.join(shapes)}. The cut begins after the ReLU of the block before {p['block']}.",
    ):
        return criteria
    ops = op_histogram(model)
    if not criteria.add(
        "it is one block: two convolutions, one sum",
        ops.get("Conv", 0) == 2 and ops.get("Add", 0) == 1,
        f"It has {ops.to_dict()}. Begin at the block's input and end at the ReLU behind its sum.",
    ):
        return criteria
    block = fashion_resnet().get_submodule(p["block"])
    x = np.abs(numpy_source(rng).normal(0, 1, (2, channels, side, side))).astype(np.float32)
    with torch.no_grad():
        want = block(torch.from_numpy(x)).numpy()
        before_relu = (
            block.bn2(block.conv2(block.relu1(block.bn1(block.conv1(torch.from_numpy(x)))))) + torch.from_numpy(x)
        ).numpy()
    feed = {inputs[0].name: x}
    cut_early = computes(model, feed, before_relu, Criteria(), "", "", atol=1e-4)
    hint = "The last ReLU is missing." if cut_early else f"Is it the block {p['block']}, and not one of its neighbours?"
    computes(model, feed, want, criteria, f"it computes what {p['block']} computes in PyTorch", hint, atol=1e-4)
    return criteria


def _model(
    name: str,
    nodes: list[onnx.NodeProto],
    inputs: list[tuple[str, list[str | int]]],
    outputs: list[tuple[str, list[str | int]]],
    weights: list[tuple[str, np.ndarray]],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in inputs],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in outputs],
        [numpy_helper.from_array(values.astype(np.float32), n) for n, values in weights],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)


def _repair_task(id: str, title: str, break_it: Callable[[Params], onnx.ModelProto]) -> Task:
    return Task(id, title, "onnx", _check_repair, _draw_seed, lambda p: {f"{id}.onnx": break_it(p)})


TASKS = (
    Task("1.1", "Build a formula by hand", "onnx", _check_formula, _draw_formula),
    Task(
        "1.2", "Count what is in a graph", "json", _check_count, _draw_seed, lambda p: {"1.2.onnx": _counting_model(p)}
    ),
    _repair_task("1.3", "Repair the order", _disordered),
    _repair_task("1.4", "Repair the names", _dangling),
    _repair_task("1.5", "Repair types and shapes", _mistyped),
    Task("1.6", "Cut a block out of the trained network", "onnx", _check_cut, _draw_block),
)
