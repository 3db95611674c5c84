"""Exercises of lesson 05: predict placement, prove it, configure a session, diagnose a fallback, make a model fit."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

import onnx
import onnxruntime as ort
from onnx import helper

from . import Criteria, Criterion, Params, Task
from .examine import is_whole, wants_keys
from .handouts import x_to_y
from .provider_fit import check_fit, draw_fit, unfit
from .session_options import CPU, IR, OPSET, check_configuration, check_profile, draw_limits, draw_profile, layered

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
    complete = isinstance(got, dict) and set(got) == set(nodes)
    if criteria.add(
        "placement names every node once",
        complete,
        f"It is a dict from the name of each node ({', '.join(nodes)}) to the name of its provider.",
    ):
        wrong = [name for name in nodes if got[name] != right[name]]
        criteria.add(
            "every node is where the list of providers puts it",
            not wrong,
            _placement_hint(wrong[0], nodes[wrong[0]], got[wrong[0]], p) if wrong else "",
        )
    crossings = answer["crossings"]
    own = None
    if complete and all(isinstance(v, str) for v in got.values()):
        own = _crossings(p, got)
    criteria.add(
        "crossings counts the connections between nodes on different providers",
        is_whole(crossings) and crossings == _crossings(p, right),
        "It is not a whole number."
        if not is_whole(crossings)
        else "It fits your placement, so the placement is what is wrong."
        if crossings == own
        else "Take each input of each node that another node has made, and count those with two different providers. "
        "The input x of the model is made by no node.",
    )
    to_cpu = CPU in right.values()
    criteria.add(
        "strict_error says whether the session fails with session.disable_cpu_ep_fallback",
        answer["strict_error"] is to_cpu,
        "It is true or false, without quotes."
        if not isinstance(answer["strict_error"], bool)
        else "A node is left for the CPU, and with this option that is an error."
        if to_cpu
        else "No node is left for the CPU: nothing falls back, and so there is no error.",
    )
    return criteria


def _placement_hint(name: str, op: str, got: object, p: Params) -> str:
    takes = [provider for provider, ops in p["providers"].items() if op in ops]
    if got not in (*p["providers"], CPU):
        return f"{name} is placed on {got!r}: the providers are {', '.join(p['providers'])} and {CPU}."
    if got == CPU:
        return f"{name} ({op}) is placed on the CPU, but {takes[0]} takes {op}: the CPU gets only what is left."
    if got not in takes:
        return f"{name} is placed on {got}, which does not take {op}."
    return f"{name} ({op}): both providers take {op}, and the first one in the list gets it."


# 5.4: what happened here?

_CAUSES = ("nothing wrong", "wrong name", "missing provider", "unknown option", "unsupported operators")
_NAMES = {  # real name → how people write it
    "TensorrtExecutionProvider": "TensorRTExecutionProvider",
    "DmlExecutionProvider": "DirectMLExecutionProvider",
    "NnapiExecutionProvider": "NNAPIExecutionProvider",
    "OpenVINOExecutionProvider": "OpenVinoExecutionProvider",
    "CoreMLExecutionProvider": "CoreMlExecutionProvider",
}


def _draw_transcripts(rng: Random) -> Params:
    real = rng.sample(sorted(_NAMES), 5)
    nodes, few = rng.randint(20, 60), rng.randint(1, 5)
    lacking = "Specified provider {!r} is not in available provider names."
    again = f"Falling back to [{CPU!r}] and retrying."
    wrong = _NAMES[real[0]]
    option = rng.choice(["device", "num_thread", "precison"])
    found = [
        (wrong, [lacking.format(wrong), f"EP Error Unknown Provider Type: {wrong}", again], [CPU], {CPU: nodes}),
        (real[1], [lacking.format(real[1])], [CPU], {CPU: nodes}),
        (real[2], [f"EP Error Invalid EP option: {option}", again], [CPU], {CPU: nodes}),
        (real[3], [], [real[3], CPU], {CPU: nodes}),
        (real[4], [], [real[4], CPU], {real[4]: nodes - few, CPU: few}),
        (real[1], [], [real[1], CPU], {real[1]: nodes}),
    ]
    rng.shuffle(found)
    keys = ("asked for", "said", "get_providers()", "record: nodes per provider")
    return {
        "transcripts": {
            letter: dict(zip(keys, ([first, CPU], said, names, record), strict=True))
            for letter, (first, said, names, record) in zip("ABCDEF", found, strict=True)
        }
    }


def _cause(transcript: Mapping[str, Any]) -> str:
    said, record = " ".join(transcript["said"]), transcript["record: nodes per provider"]
    if "Unknown Provider Type" in said:
        return "wrong name"
    if "option" in said:
        return "unknown option"
    if "not in available" in said:
        return "missing provider"
    return "unsupported operators" if CPU in record else "nothing wrong"


_SIGNS = {
    "wrong name": "It says that this type of provider is unknown: no package has a provider of this name.",
    "unknown option": "It says that an option is invalid. Provider and name are fine.",
    "missing provider": "The warning is all there is: the name is right, but the installed package lacks it.",
    "unsupported operators": "Nothing is said and the provider is registered. Look at the record: who has the nodes?",
    "nothing wrong": "All nodes are on the provider that was asked for first.",
}


def _check_transcripts(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    criteria, transcripts = Criteria(), p["transcripts"]
    if not wants_keys(answer, {"causes", "right_name"}, criteria):
        return criteria
    causes = answer["causes"]
    if criteria.add(
        "causes names one of the five causes for each transcript",
        isinstance(causes, dict) and set(causes) == set(transcripts) and all(c in _CAUSES for c in causes.values()),
        f"It is a dict with the keys {', '.join(transcripts)}; the causes are: {', '.join(_CAUSES)}.",
    ):
        for letter, transcript in transcripts.items():
            right = _cause(transcript)
            criteria.add(f"{letter} is explained", causes[letter] == right, _SIGNS[right])
    wrong = next(t["asked for"][0] for t in transcripts.values() if _cause(t) == "wrong name")
    right = next(real for real, written in _NAMES.items() if written == wrong)
    name = answer["right_name"]
    criteria.add(
        "right_name is the real name of the misspelled provider",
        name == right,
        f"{name!r} is no provider that ONNX Runtime knows: search in ort.get_all_providers(), capital letters count."
        if name not in ort.get_all_providers()
        else "That is another provider.",
    )
    return criteria


TASKS = (
    Task(
        "5.1",
        "Predict the placement",
        "json",
        _check_placement,
        _draw_providers,
        lambda p: {"5.1.onnx": _branching(p)},
    ),
    Task("5.2", "Prove where the nodes ran", "json", check_profile, draw_profile, lambda p: {"5.2.onnx": layered(p)}),
    Task(
        "5.3",
        "A configuration within limits",
        "json",
        check_configuration,
        draw_limits,
        lambda p: {"5.3.onnx": layered(p)},
    ),
    Task("5.4", "What happened here?", "json", _check_transcripts, _draw_transcripts),
    Task("5.5", "Make the model fit", "onnx", check_fit, draw_fit, lambda p: {"5.5.onnx": unfit(p)}),
)
