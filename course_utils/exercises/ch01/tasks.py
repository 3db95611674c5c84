"""Exercises of lesson 01: build, count, repair, cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import numpy as np
import onnx
from onnx import helper

from ...lab.graphs import operator_counts, type_text
from .. import Criteria, Criterion, Params, Task
from ..examine import every_node, has_io, is_sound, numpy_source, result, wants_keys
from ..fashion_reference import BLOCKS, blocks
from ..handouts import x_to_y
from ..slips import Calculation, Feed, compare, outcomes, same
from .graph_repair import check_repair, dangling, disordered, mistyped

OPSET, IR = 18, 10

_FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Relu": lambda v: np.maximum(v, 0),
    "Sigmoid": lambda v: 1 / (1 + np.exp(-v)),
    "Tanh": np.tanh,
    "Softplus": lambda v: np.log1p(np.exp(v)),
}


# 1.1: build a formula


def _draw_formula(rng: Random) -> Params:
    sizes = rng.sample([tenths for tenths in range(5, 31) if tenths != 10], 3)  # 1 would hide that a is missing
    a, b, c = (rng.choice([-1, 1]) * size / 10 for size in sizes)
    return {"f": rng.choice(list(_FUNCTIONS)), "a": a, "b": b, "c": c}


def _formula(x: np.ndarray, p: Params) -> np.ndarray:
    return _FUNCTIONS[p["f"]](p["a"] * x + p["b"]) + p["c"] * x


def _check_formula(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    (x_info,) = (v for v in model.graph.input if v.name == "x")
    dims = x_info.type.tensor_type.shape.dim
    criteria.require(
        "x takes any number of rows of three",
        len(dims) == 2 and not dims[0].HasField("dim_value") and dims[1].dim_value == 3,
        f"Its shape is {type_text(x_info)[1]}. The first dimension must be a name such as 'batch', the second one 3.",
    )
    stated = {o.domain: o.version for o in model.opset_import}
    opset = stated.get("", stated.get("ai.onnx"))
    criteria.require(
        f"opset {OPSET}, IR version {IR}",
        (opset, model.ir_version) == (OPSET, IR),
        f"It says opset {opset} and IR version {model.ir_version}: give helper.make_model both opset_imports and ir_version.",
    )
    inside = sorted({n.op_type for n in every_node(model) if n.op_type in ("Constant", "ConstantOfShape")})
    criteria.require(
        "the constants are initializers",
        not inside,
        f"Nodes of the kind {', '.join(inside)} make some of them: make initializers with numpy_helper.from_array.",
    )
    source = numpy_source(rng)
    # What f gets lies around zero in the first one: far from there, a and b hardly matter to it.
    drawn = ((source.normal(0, 2, (5, 3)) - p["b"]) / p["a"], source.normal(0, 3, (8, 3)))
    feeds = [{"x": x.astype(np.float32)} for x in drawn]
    criteria.require(
        f"the operator {p['f']} is at work",
        any(n.op_type == p["f"] for n in every_node(model)) and _has_effect(model, p["f"], feeds[0]),
        f"The graph has {', '.join(operator_counts(model))}, and your f is {p['f']}: y must be made with it.",
    )
    compare(
        model,
        {"y is f(a·x + b) + c·x": feeds},
        lambda feed: _formula(feed["x"], p),
        _formula_slips(p),
        criteria,
        otherwise="Print each step with ReferenceEvaluator(model, verbose=2) and compare with a calculation by hand.",
        atol=1e-5,
        rtol=1e-4,
    )
    return criteria


def _has_effect(model: onnx.ModelProto, op: str, feed: Feed) -> bool:
    """Whether the output changes when another operator stands in place of this one."""
    other = onnx.ModelProto()
    other.CopyFrom(model)
    for node in every_node(other):
        if node.op_type == op:
            node.op_type = "Neg"
            del node.attribute[:]
    (before,), (after,) = outcomes(model, [feed]), outcomes(other, [feed])
    return before.got is None or not same(after.got, before.got, atol=1e-6, rtol=0)


def _formula_slips(p: Params) -> dict[str, Calculation]:
    f, a, b, c = _FUNCTIONS[p["f"]], p["a"], p["b"], p["c"]

    def changed(**others: float) -> Calculation:
        return lambda feed: _formula(feed["x"], {**p, **others})

    return {
        "The term c·x is missing.": changed(c=0),
        "b is missing.": changed(b=0),
        "a is missing, or is 1.": changed(a=1),
        "a has the wrong sign.": changed(a=-a),
        "b has the wrong sign: it is subtracted.": changed(b=-b),
        "c has the wrong sign: c·x is subtracted.": changed(c=-c),
        "a and b are exchanged.": changed(a=b, b=a),
        "a and c are exchanged.": changed(a=c, c=a),
        "b and c are exchanged.": changed(b=c, c=b),
        "b, c and a stand where a, b and c belong.": changed(a=b, b=c, c=a),
        "c, a and b stand where a, b and c belong.": changed(a=c, b=a, c=b),
        "f is applied to all of it: c·x is added after f.": lambda feed: f((a + c) * feed["x"] + b),
        "b is added before a multiplies: it is a·x + b, not a·(x + b).": lambda feed: (
            f(a * (feed["x"] + b)) + c * feed["x"]
        ),
        "b is added after f: it belongs inside.": lambda feed: f(a * feed["x"]) + b + c * feed["x"],
        "c is added, and not multiplied by x.": lambda feed: f(a * feed["x"] + b) + c,
        "c multiplies f, not x.": lambda feed: c * f(a * feed["x"] + b),
        "f(a·x + b) is multiplied by c·x, not added.": lambda feed: f(a * feed["x"] + b) * c * feed["x"],
    }


# 1.2: count what is in a graph


def _draw_seed(rng: Random) -> Params:
    return {"seed": rng.randrange(10**6)}


def _counting_model(p: Params) -> onnx.ModelProto:
    """A chain of products and element-wise operators, and some initializers that nobody reads; their names tell nothing."""
    rng = Random(p["seed"])
    values = np.random.default_rng(p["seed"])
    names = [f"w{number}" for number in rng.sample(range(100, 1000), 20)]
    nodes, weights, current, width = [], [], "x", 6
    for index in range(rng.randint(7, 11)):
        kind, out = rng.choice(["MatMul", "Add", "Mul", "Relu", "Tanh", "Sigmoid", "Neg"]), f"t{index}"
        inputs = [current]
        if kind == "MatMul":
            inner = rng.randint(3, 9)
            weights.append((names.pop(), values.normal(0, 1, (width, inner))))
            inputs, width = [current, weights[-1][0]], inner
        elif kind in ("Add", "Mul"):
            weights.append((names.pop(), values.normal(0, 1, (width,))))
            inputs = [current, weights[-1][0]]
        nodes.append(helper.make_node(kind, inputs, [out], name=f"n{index}"))
        current = out
    nodes.append(helper.make_node("Identity", [current], ["y"], name="last"))
    for _ in range(rng.randint(2, 3)):
        weights.append((names.pop(), values.normal(0, 1, (rng.randint(2, 5), rng.randint(2, 5)))))
    rng.shuffle(weights)
    stored = {name: value.astype(np.float32) for name, value in weights}
    return x_to_y("counting", nodes, stored, ["batch", 6], ["batch", width], {"": OPSET}, ir_version=IR)


def _check_count(answer: object, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not wants_keys(answer, {"nodes", "ops", "parameters", "unused"}, criteria):
        return criteria
    assert isinstance(answer, dict)
    graph = _counting_model(p).graph
    read = {name for node in graph.node for name in node.input}
    sizes = {t.name: int(np.prod(t.dims)) for t in graph.initializer}
    used = sum(size for name, size in sizes.items() if name in read)
    ops = {op: int(count) for op, count in operator_counts(_counting_model(p)).items()}
    criteria.add(
        "nodes and ops say how many nodes there are, and of which operators",
        answer["nodes"] == len(graph.node) and answer["ops"] == ops,
        "nodes is not right: take len(model.graph.node)."
        if answer["nodes"] != len(graph.node)
        else "ops is not right. It is a dict such as {'Relu': 2, …} over all nodes; its values add up to the number of nodes.",
    )
    likely = {
        sum(sizes.values()): "You counted initializers that no node reads.",
        sum(sizes.values()) - used: "You counted the initializers that no node reads, and not those that are read.",
        4 * used: "You counted bytes: a float32 value has four.",
        len(read & set(sizes)): "You counted the initializers, not the values in them.",
        sum(sum(t.dims) for t in graph.initializer if t.name in read): "You added up the dims. Multiply those of each.",
    }
    said = answer["parameters"]
    criteria.add(
        "parameters is the number of values in the initializers that are read",
        said == used,
        next((hint for value, hint in likely.items() if value == said), "")
        or "Multiply the dims of each initializer that some node reads, and add up. Count values, not bytes.",
    )
    unused = answer["unused"] if isinstance(answer["unused"], list) else []
    right = set(sizes) - read
    criteria.add(
        "unused lists the initializers that no node reads",
        len(unused) == len(right) and all(name in unused for name in right),
        "Those are the initializers that are read."
        if unused and set(map(str, unused)) == set(sizes) & read
        else "Collect the inputs of all nodes in a set; list the initializers whose name is not in it.",
    )
    return criteria


# 1.6: cut blocks out of the trained network


def _draw_blocks(rng: Random) -> Params:
    first = rng.randrange(1, len(BLOCKS))
    return {"first": BLOCKS[first], "last": BLOCKS[rng.randrange(first, len(BLOCKS))]}


def _from_to(p: Params) -> tuple[str, ...]:
    return BLOCKS[BLOCKS.index(p["first"]) : BLOCKS.index(p["last"]) + 1]


def _check_cut(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not is_sound(model, criteria):
        return criteria
    # What a block of 32 or 64 channels reads, but for the one that widens from 32 to 64.
    channels, side = (32, 14) if p["first"] in ("stage1.1", "stage2.0") else (64, 7)
    weights = {t.name for t in model.graph.initializer}
    inputs = [v for v in model.graph.input if v.name not in weights]
    shapes = [type_text(v)[1] for v in inputs]
    end = f", {channels}, {side}, {side}]"
    if not criteria.require(
        f"the one input is a feature map [N{end}, and there is one output",
        len(shapes) == len(model.graph.output) == 1 and shapes[0].endswith(end),
        f"The inputs have the shapes {', '.join(shapes) or 'none'}, and the outputs are {len(model.graph.output)}. The cut "
        f"begins behind the ReLU of the block before {p['first']}.",
    ):
        return criteria
    source = numpy_source(rng)
    # Negative numbers, too, though a ReLU never gives them: else a cut in front of that ReLU would look the same.
    feeds = [{inputs[0].name: source.normal(0, 1, (n, channels, side, side)).astype(np.float32)} for n in (2, 1)]
    compare(
        model,
        {f"it computes what {p['first']} to {p['last']} compute": feeds},
        _blocks(_from_to(p)),
        _cut_slips(p),
        criteria,
        otherwise="Find the names anew with cu.node_table: the ReLU behind the n-th Add is the end of the n-th block.",
        atol=1e-3,
    )
    return criteria


def _blocks(names: Sequence[str], **wrong: bool) -> Calculation:
    return lambda feed: result(blocks(names, **wrong), {"x": next(iter(feed.values()))})


def _cut_slips(p: Params) -> dict[str, Calculation]:
    own = _from_to(p)
    early, late = "It begins in front of the ReLU of the block before, not behind it.", "The last ReLU is missing."
    # Blocks that read as many channels as the student's.
    begins = [b for b in BLOCKS[1:] if (b in ("stage1.1", "stage2.0")) == (p["first"] in ("stage1.1", "stage2.0"))]
    others = [
        BLOCKS[i : j + 1] for i in map(BLOCKS.index, begins) for j in range(i, len(BLOCKS)) if BLOCKS[i : j + 1] != own
    ]
    return {
        late: _blocks(own, last_relu=False),
        early: _blocks(own, relu_first=True),
        f"{early} {late}": _blocks(own, relu_first=True, last_relu=False),
        **{f"It holds {o[0]} to {o[-1]}, and yours are {own[0]} to {own[-1]}.": _blocks(o) for o in others},
    }


def _repair_task(id: str, title: str, break_it: Callable[[Params], onnx.ModelProto], *hints: str) -> Task:
    return Task(id, title, "onnx", check_repair, _draw_seed, lambda p: {f"{id}.onnx": break_it(p)}, hints, points=1)


TASKS = (
    Task(
        "1.1",
        "Build a formula by hand",
        "onnx",
        _check_formula,
        _draw_formula,
        points=1,
        hints=(
            "Each operation of the formula becomes one node. Which operations are there, and what does each of them read?",
            "Two Mul, two Add and f, and a name of your own for each result between them. The second Mul reads x and c, and "
            "only the last Add comes behind f.",
            "helper.make_graph takes the constants as its list of initializers; numpy_helper.from_array makes one of a "
            "float32 array and a name.",
        ),
    ),
    Task(
        "1.2",
        "Count what is in a graph",
        "json",
        _check_count,
        _draw_seed,
        lambda p: {"1.2.onnx": _counting_model(p)},
        points=3,
        hints=(
            "Look at one node and one initializer of model.graph. Which field says what a node reads, and which one how "
            "many values an initializer has?",
            "Collect the inputs of all nodes in a set. An initializer whose name is in it counts with the product of its "
            "dims; each other one belongs to unused.",
        ),
    ),
    _repair_task(
        "1.3",
        "Repair the order",
        disordered,
        "A node may read inputs, initializers and what earlier nodes wrote. Which node of the table could run first?",
        "Start with the names of inputs and initializers as known. Take the node whose inputs are all known, add its outputs "
        "to the known names, and repeat.",
        "del model.graph.node[:] empties the list, and model.graph.node.extend fills it with the nodes in their new order.",
    ),
    _repair_task(
        "1.4",
        "Repair the names",
        dangling,
        "Compare the columns inputs and outputs of the table. Which name is read and never written, and which one is "
        "written twice?",
        "The misspelled name is one of the initializers. For the other fault, look for the tensor that multiply_2 reads: "
        "which node, by its name, was meant to write it?",
        "node.input[index] = … and node.output[0] = … change one name. Do not rename an initializer.",
    ),
    _repair_task(
        "1.5",
        "Repair types and shapes",
        mistyped,
        "Read the columns dtype and shape. Which weight has another dtype than the tensors that it meets, and which shape "
        "does not follow from the node that writes it?",
        "numpy_helper.to_array, astype(np.float32), numpy_helper.from_array with the old name, then tensor.CopyFrom.",
        "The promise is model.graph.output[0].type.tensor_type.shape.dim: set dim_value of the dimension that is wrong.",
    ),
    Task(
        "1.6",
        "Cut blocks out of the trained network",
        "onnx",
        _check_cut,
        _draw_blocks,
        points=1,
        hints=(
            "extract_model wants the names of tensors, not of nodes: one that your first block reads, and one that your last "
            "block writes. Which nodes write these two?",
            "Take the ReLU nodes that read the output of an Add, in order: what the n-th of them writes is the end of the "
            "n-th block.",
            "A block begins where the block before it ends. Give extract_model the end of the block before first, and the "
            "end of last.",
        ),
    ),
)
