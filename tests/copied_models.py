"""Answers to tasks 5.6 and 5.7, right and wrong, made as students would."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from answers import given, given_files
from onnx import numpy_helper, parser

from course_utils.onnx_files import parse

LEFT = {"Selu", "Celu", "Softsign", "Shrink"}
LAYOUT = {"Slice", "Reshape", "Tile"}


def model_of(who: str) -> onnx.ModelProto:
    return parse(given_files("5.6", who)["5.6.onnx"], "5.6.onnx")


def listed(who: str) -> dict[str, Any]:
    """From the edges of the graph: a tensor is copied if an edge leads from one provider to the other."""
    nodes = model_of(who).graph.node
    on_cpu = {n.output[0]: n.op_type in LEFT for n in nodes}
    edges = [(i, n.output[0]) for n in nodes for i in n.input if i in on_cpu]
    down = {a for a, b in edges if not on_cpu[a] and on_cpu[b]}
    up = {a for a, b in edges if on_cpu[a] and not on_cpu[b]}
    groups = {name: {name} for name, there in on_cpu.items() if there}
    for a, b in edges:
        if on_cpu[a] and on_cpu[b]:
            joined = groups[a] | groups[b]
            groups |= dict.fromkeys(joined, joined)
    return {
        "to_host": sorted(down),
        "from_host": sorted(up),
        "on_cpu": sum(on_cpu.values()),
        "islands": len(set(map(frozenset, groups.values()))),
    }


def from_the_record(who: str) -> dict[str, Any]:
    """From the record, reader by reader; numbers written with a point, lists from the end."""
    record, nodes = json.loads(given_files("5.6", who)["5.6_record.json"]), model_of(who).graph.node
    where = {name: provider for provider, names in record["recorded"] for name in names}
    makers = {n.output[0]: where[n.name] for n in nodes}
    to_host, from_host, joined = [], [], 0
    for node in reversed(nodes):
        here = where[node.name]
        for name in node.input:
            if name in makers and makers[name] == here == "CPUExecutionProvider":
                joined += 1
            if name in makers and makers[name] != here:
                found = to_host if here == "CPUExecutionProvider" else from_host
                found += [] if name in found else [name]
    on_cpu = list(makers.values()).count("CPUExecutionProvider")
    ran = [op for _, op in record["ran"]]
    assert (ran.count("MemcpyToHost"), ran.count("MemcpyFromHost")) == (len(to_host), len(from_host))
    return {"islands": float(on_cpu - joined), "on_cpu": float(on_cpu), "from_host": from_host, "to_host": to_host}


def with_lists(change: Callable[[dict[str, Any], onnx.GraphProto], dict[str, Any]]) -> Callable[[str], dict[str, Any]]:
    return lambda who: (right := listed(who)) | change(right, model_of(who).graph)


def per_reader(right: dict[str, Any], graph: onnx.GraphProto) -> dict[str, Any]:
    up = set(right["from_host"])
    return {"from_host": [i for n in graph.node for i in n.input if i in up]}


def inside_of_islands(right: dict[str, Any], graph: onnx.GraphProto) -> dict[str, Any]:
    return {"from_host": [n.output[0] for n in graph.node if n.op_type in LEFT and n.output[0] != "y"]}


def of_all_on_the_cpu(right: dict[str, Any], graph: onnx.GraphProto) -> dict[str, Any]:
    return {"to_host": [n.input[0] for n in graph.node if n.op_type in LEFT]}


# 5.7


def placed_again(node: onnx.NodeProto, inputs: list[str], output: str) -> onnx.NodeProto:
    new = onnx.NodeProto()
    new.CopyFrom(node)
    new.input[:], new.output[:], new.name = inputs, [output], f"{node.op_type}_{output}"
    return new


def with_nodes(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def in_order(model: onnx.ModelProto) -> onnx.ModelProto:
    """Nodes after what they read."""
    known, waiting, nodes = {"x", *(t.name for t in model.graph.initializer)}, list(model.graph.node), []
    while waiting:
        ready = next(n for n in waiting if set(n.input) <= known)
        waiting.remove(ready)
        nodes.append(ready)
        known |= set(ready.output)
    return with_nodes(model, nodes)


def moved(who: str, *, join: bool = True, chains: bool = True, end: bool = True) -> onnx.ModelProto:
    """Operators on the CPU come together. join, chains, end: which of the three places are changed."""
    model = given("5.7", who)
    nodes = list(model.graph.node)
    makers = {n.output[0]: n for n in nodes}
    if join:
        joins = next(n for n in nodes if n.op_type == "Concat")
        ends = [makers[name] for name in joins.input]
        first = placed_again(joins, [n.input[0] for n in ends], "joined")
        nodes = [n for n in nodes if n not in (*ends, joins)]
        nodes += [first, placed_again(ends[0], ["joined"], joins.output[0])]
    again = True
    while again:
        again = False
        for a in nodes:
            b = next((n for n in nodes if a.output[0] in n.input), None)
            wanted = b is not None and (end if b.output[0] == "y" else chains)
            if wanted and a.op_type in LEFT and b.op_type in LAYOUT:
                one = placed_again(b, [a.input[0], *b.input[1:]], a.output[0])
                two = placed_again(a, [a.output[0]], b.output[0])
                nodes = [n for n in nodes if n not in (a, b)] + [one, two]
                again = True
                break
    return in_order(with_nodes(model, nodes))


FORMULAS = {
    "Celu": "y = Elu(x)",
    "Selu": "a = Elu<alpha: float = 1.6732632>(x) y = Mul(a, gamma)",
    "Softsign": "a = Abs(x) b = Add(a, one) y = Div(x, b)",
    "Shrink": "a = Clip(x, low, high) y = Sub(x, a)",
}
NUMBERS = {"gamma": 1.050701, "one": 1, "low": -0.1, "high": 0.1}


def replaced(who: str, formulas: dict[str, str] = FORMULAS) -> onnx.ModelProto:
    """No node is left for the CPU. formulas: operator → nodes from x to y; of other operators nothing is changed."""
    model, nodes = given("5.7", who), []
    for node in model.graph.node:
        if node.op_type not in formulas:
            nodes.append(node)
            continue
        graph = parser.parse_graph(f"g (float[1] x) => (float[1] y) {{ {formulas[node.op_type]} }}")
        names = {"x": node.input[0], "y": node.output[0]}
        for part in graph.node:
            for values in (part.input, part.output):
                values[:] = [names.get(v, v if v in NUMBERS else f"{node.output[0]}_{v}") for v in values]
            nodes.append(part)
    with_nodes(model, nodes)
    model.graph.initializer.extend(numpy_helper.from_array(np.float32(v), name) for name, v in NUMBERS.items())
    return model


def joined_in_reverse(who: str) -> onnx.ModelProto:
    model = moved(who)
    node = next(n for n in model.graph.node if n.op_type == "Concat")
    node.input[:] = list(node.input)[::-1]
    return model


def before_the_branches(who: str) -> onnx.ModelProto:
    """The branches' operator is used once, in front of them."""
    model = moved(who)
    nodes = list(model.graph.node)
    joins = next(n for n in nodes if n.op_type == "Concat")
    once = next(n for n in nodes if n.input[0] == joins.output[0])
    branches = [n for n in nodes if n.output[0] in joins.input]
    first = placed_again(once, [branches[0].input[0]], "once")
    nodes = [n for n in nodes if n not in (joins, once, *branches)]
    nodes += [first, placed_again(joins, list(joins.input), once.output[0])]
    nodes += [placed_again(n, ["once"], n.output[0]) for n in branches]
    return in_order(with_nodes(model, nodes))


def one_less(who: str) -> onnx.ModelProto:
    """The last operator on the CPU is forgotten."""
    model = moved(who)
    node = next(n for n in model.graph.node if n.output[0] == "y")
    node.op_type = "Identity"
    del node.attribute[:]
    return model


RIGHT = {"5.6": (listed, from_the_record), "5.7": (moved, replaced)}
WRONG = {
    "5.6": {
        "directions exchanged": (
            with_lists(lambda right, _: {"to_host": right["from_host"], "from_host": right["to_host"]}),
            "in the other direction",
        ),
        "once for each reader": (with_lists(per_reader), "copied once, however many"),
        "inside of an island": (with_lists(inside_of_islands), "made and read on the same provider"),
        "all that the CPU reads": (with_lists(of_all_on_the_cpu), "made and read on the same provider|x is in the host"),
        "with x": (with_lists(lambda right, _: {"to_host": ["x", *right["to_host"]]}), "x is in the host's memory"),
        "with y": (with_lists(lambda right, _: {"from_host": [*right["from_host"], "y"]}), "y is read by no node"),
        "one forgotten": (with_lists(lambda right, _: {"to_host": right["to_host"][1:]}), r"(\d+) of the \1 that you list"),
        "nodes for islands": (
            with_lists(lambda right, _: {"islands": right["on_cpu"]}),
            "islands: that is the number of nodes",
        ),
        "copies counted as nodes": (
            with_lists(lambda right, _: {"on_cpu": right["on_cpu"] + len(right["to_host"])}),
            "on_cpu: count the nodes",
        ),
    },
    "5.7": {
        "the branches as they were": (lambda who: moved(who, join=False), r"Now \d+ are made: "),
        "only the branches": (lambda who: moved(who, chains=False, end=False), r"Now \d+ are made: "),
        "the end as it was": (lambda who: moved(who, end=False), r"Now \d+ are made: "),
        "joined in reverse": (joined_in_reverse, "another order"),
        "before the branches": (before_the_branches, "where do they part|two operators are exchanged"),
        "one operator less": (one_less, r"with one \w+ less"),
        "the factor of Selu forgotten": (
            lambda who: replaced(who, FORMULAS | {op: "y = Elu(x)" for op in ("Selu", "Softsign")}),
            "where do they part",
        ),
        "by others that are left for the CPU, too": (
            lambda who: replaced(who, {op: f"{text.replace('y =', 'z =')} y = Sum(z)" for op, text in FORMULAS.items()}),
            r"Now \d+ are made: ",
        ),
    },
}  # fmt: skip
