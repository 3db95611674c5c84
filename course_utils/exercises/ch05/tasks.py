"""Exercises of lesson 05: predict placement, prove it, configure a session, diagnose a fallback, make a model fit, save copies."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from random import Random
from typing import Any

import onnx
from onnx import helper

from .. import Criteria, Criterion, Params, Task
from ..examine import wants_keys, whole
from ..handouts import x_to_y
from .copied import check_copies, check_fewer, draw_copied, handed_out, scattered
from .profile_proof import CPU, IR, OPSET, check_profile, draw_profile, layered
from .provider_fit import check_fit, draw_fit, unfit
from .session_options import check_configuration, draw_limits
from .transcripts import check_transcripts, draw_transcripts

# 5.1: predict the placement

_FAST, _WIDE = "FastExecutionProvider", "WideExecutionProvider"
_UNARY = ["Relu", "Sigmoid", "Tanh", "Erf", "Neg", "Abs", "Softmax"]
_BINARY = ["Add", "Mul", "Sub"]


def _draw_providers(rng: Random) -> Params:
    used = rng.sample(_UNARY, 4) + rng.sample(_BINARY, 2)
    rng.shuffle(used)
    # One operator only the first takes, two that both take, two only the second takes, one that is left over or not.
    fast, wide = used[:3], used[1:5]
    if rng.random() < 0.5:
        wide.append(used[5])
    return {
        "seed": rng.randrange(10**6),
        "operators": sorted(used),
        "providers": {_FAST: sorted(fast), _WIDE: sorted(wide)},
    }


def _branching(p: Params) -> onnx.ModelProto:
    """Ten nodes in which every operator occurs; most nodes read the last tensor, some read an older one, too."""
    rng = Random(p["seed"])
    kinds = [*p["operators"], *rng.choices(p["operators"], k=4)]
    rng.shuffle(kinds)
    nodes, tensors = [], ["x"]
    for index, kind in enumerate(kinds):
        inputs = [tensors[-1], *([rng.choice(tensors)] if kind in _BINARY else [])]
        tensors.append("y" if index == len(kinds) - 1 else f"t{index}")
        nodes.append(helper.make_node(kind, inputs, [tensors[-1]], f"n{index}"))
    return x_to_y("branching", nodes, {}, ["batch", 4], ["batch", 4], {"": OPSET}, ir_version=IR)


def _placement(p: Params) -> dict[str, str]:
    def first(op: str) -> str:
        return next((name for name, takes in p["providers"].items() if op in takes), CPU)

    return {node.name: first(node.op_type) for node in _branching(p).graph.node}


def _crossings(p: Params, where: Mapping[str, str]) -> int:
    nodes = _branching(p).graph.node
    made_by = {node.output[0]: node.name for node in nodes}
    pairs = [(made_by[name], node.name) for node in nodes for name in node.input if name in made_by]
    return sum(where[a] != where[b] for a, b in pairs)


def _check_placement(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not wants_keys(answer, {"placement", "crossings", "strict_error"}, criteria):
        return criteria
    right, got = _placement(p), answer["placement"]
    nodes = {node.name: node.op_type for node in _branching(p).graph.node}
    if not criteria.require(
        "placement names every node once",
        isinstance(got, dict) and set(got) == set(nodes),
        f"It is a dict from the name of each node ({', '.join(nodes)}) to the name of its provider.",
    ):
        return criteria
    wrong = [name for name in nodes if got[name] != right[name]]
    if not criteria.add(
        "every node is where the list of providers puts it",
        not wrong,
        f"{len(nodes) - len(wrong)} of {len(nodes)} are right. {_placement_hint(nodes, got, wrong, p)}",
    ):
        return criteria  # what is counted over a wrong placement tells nothing
    counted, crossings = whole(answer["crossings"]), _crossings(p, right)
    criteria.add(
        "crossings counts the connections between nodes on different providers",
        counted == crossings,
        "It is not a whole number." if counted is None else _crossings_hint(counted, p, right),
    )
    to_cpu = CPU in right.values()
    criteria.add(
        "strict_error says whether the session fails with session.disable_cpu_ep_fallback, without the CPU in its list",
        answer["strict_error"] is to_cpu,
        "It is true or false, without quotes."
        if not isinstance(answer["strict_error"], bool)
        else "A node is left for the CPU, and with this option that is an error."
        if to_cpu
        else "No node is left for the CPU: nothing falls back, and so there is no error.",
    )
    return criteria


def _crossings_hint(counted: int, p: Params, where: Mapping[str, str]) -> str:
    nodes = _branching(p).graph.node
    made_by = {node.output[0]: node.name for node in nodes}
    pairs = [(made_by[name], node.name) for node in nodes for name in node.input if name in made_by]
    order = [where[node.name] for node in nodes]
    slips = {
        sum(where[a] == where[b] for a, b in pairs): "That counts the connections inside of one provider.",
        sum(where[a] != where[b] for a, b in set(pairs)): "A node that reads a tensor twice has two connections to it.",
        sum(
            a != b for a, b in itertools.pairwise(order)
        ): "That compares each node with the next one in the list. Some read a tensor from further above.",
        _crossings(p, where) + sum("x" in node.input for node in nodes): "The input x of the model is made by no node.",
    }
    other = "Take each input of each node that another node has made, and count those with two different providers."
    return slips.get(counted, other)


def _placement_hint(nodes: Mapping[str, str], got: Mapping[str, object], wrong: list[str], p: Params) -> str:
    """The cause of one node's wrong place, without its name: it shall be found, and not be tried."""
    for name in wrong:
        takes = [provider for provider, ops in p["providers"].items() if nodes[name] in ops]
        if got[name] not in (*p["providers"], CPU):
            return f"{got[name]!r} is none of the providers: {', '.join(p['providers'])}, {CPU}."
        if got[name] == CPU:
            return "A node is placed on the CPU although a provider takes its operator: the CPU gets only what is left."
        if got[name] in takes:
            return "Where both providers take an operator, the first one in the list gets it."
    return "A node is placed on a provider that does not take its operator."


TASKS = (
    Task(
        "5.1",
        "Predict the placement",
        "json",
        _check_placement,
        _draw_providers,
        lambda p: {"5.1.onnx": _branching(p)},
        points=3,
        hints=(
            "The list of providers is an order of preference. Which is the first provider that takes the operator of this node?",
            "A crossing belongs to an input: for each input, find the node that made this tensor. The input x of the model was made by none.",
            "Build a dict from output name to node name, go over all inputs of all nodes, and compare the two providers. For strict_error, look for the CPU in your placement.",
        ),
    ),
    Task(
        "5.2",
        "Prove where the nodes ran",
        "json",
        check_profile,
        draw_profile,
        lambda p: {"5.2.onnx": layered(p)},
        points=3,
        hints=(
            "Level and profiling are options: they must be set before the session is created. What is written after a trial run with the same session?",
            "Set graph_optimization_level and enable_profiling, create one session, call run in a loop, then end_profiling, and copy the file that it names.",
        ),
    ),
    Task(
        "5.3",
        "A configuration within limits",
        "json",
        check_configuration,
        draw_limits,
        lambda p: {"5.3.onnx": layered(p)},
        points=3,
        hints=(
            "Sort the rules first: which are attributes of SessionOptions, which are keys with a dot, and which one names a dimension?",
            "Three attributes are needed: threads inside a node are called intra_op, and the arena is a switch. The two keys with a dot are about spinning threads and denormal numbers; their values are text.",
            "Read back what you wrote: build SessionOptions from it, create a session, and look at get_inputs()[0].shape.",
        ),
    ),
    Task(
        "5.4",
        "What happened here?",
        "json",
        check_transcripts,
        draw_transcripts,
        points=2,
        hints=(
            'The lesson\'s section "Requests that cannot be met" shows what is said in each case. What is said here, and is it an error or only a warning?',
            "First find the two with an error: it names what is wrong. Then the one with a warning alone. For the silent ones, look first who is in get_providers(), then count the nodes on the CPU.",
            "For right_name, look in ort.get_all_providers() for a name that differs only in capital letters, or in how the technology is written.",
        ),
    ),
    Task(
        "5.5",
        "Make the model fit",
        "onnx",
        check_fit,
        draw_fit,
        lambda p: {"5.5.onnx": unfit(p)},
        points=3,
        hints=(
            "Write the formula as steps of one operation each. Which operators of the list do these steps, and which numbers do they need?",
            "The first step reads the input of the old node, and the last one writes its output under the same name: then no other node has to change.",
            "Make a function that returns the nodes for one old node, with its name in front of all new names. Put them where the old node stood, and compare old and new outputs with NumPy.",
        ),
    ),
    Task(
        "5.6",
        "Count the copies",
        "json",
        check_copies,
        draw_copied,
        handed_out,
        points=3,
        hints=(
            "The record says where each node is. A copy belongs to a tensor: who makes it, and where is it read?",
            "Build two dicts: tensor → provider of its maker, and tensor → set of the providers that read it. The list ran has as many copies as your two lists together.",
            "To the host: made on WebGPU, and the CPU is among its readers. From the host: the other way round. For the islands, join each node on the CPU with the one that makes its input, if that is on the CPU, too.",
        ),
    ),
    Task(
        "5.7",
        "Fewer copies",
        "onnx",
        check_fewer,
        draw_copied,
        lambda p: {"5.7.onnx": scattered(p)},
        same_as="5.6",
        points=3,
        hints=(
            "Look for nodes on the CPU with only a few nodes on WebGPU between them. What do those nodes between do with the values?",
            "What works on each value alone may change places with what only moves, repeats, joins or cuts values. So several nodes on the CPU come to stand in a row, and the last one comes to stand at the end.",
            "Three places: the first chain, where all Slice, Reshape and Tile can come first; the branches, which can be joined before the operator, which is then needed once; and the last two nodes.",
        ),
    ),
)
