"""The hospital: time lost without a word. A session that fell back to the CPU, and a chain of tiny models."""

from __future__ import annotations

import contextlib
import io
import itertools
import warnings
from random import Random
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

from .. import Criteria, Criterion, Params, Task
from ..examine import has_io, is_sound, numpy_source, result, wants_keys
from ..slips import Calculation, Feed
from .hospital import any_size, judged, patient, promises_any_size

node = helper.make_node
CPU = "CPUExecutionProvider"
STRICT = "session.disable_cpu_ep_fallback"


# 9.8: a silent fallback

# The real name, and one that people write.
_NAMES = {
    "CUDAExecutionProvider": "CudaExecutionProvider",
    "TensorrtExecutionProvider": "TensorRTExecutionProvider",
    "DmlExecutionProvider": "DirectMLExecutionProvider",
    "OpenVINOExecutionProvider": "OpenVinoExecutionProvider",
    "CoreMLExecutionProvider": "CoreMlExecutionProvider",
}
_UNARY = ["Relu", "Sigmoid", "Tanh", "Erf", "Neg", "Abs", "Softplus", "Elu"]


def _draw_fallback(rng: Random) -> Params:
    chain = rng.sample(_UNARY, 6)
    return {"wrong_name": _NAMES[rng.choice(sorted(_NAMES))], "chain": chain, "takes": sorted(rng.sample(chain, 4))}


def _right_name(p: Params) -> str:
    return next(right for right, wrong in _NAMES.items() if wrong == p["wrong_name"])


def _chain(p: Params) -> onnx.ModelProto:
    tensors = ["x", *(f"t{i}" for i in range(len(p["chain"]) - 1)), "y"]
    nodes = [node(op, [tensors[i]], [tensors[i + 1]], f"{op.lower()}_{i}") for i, op in enumerate(p["chain"])]
    return patient("chain", nodes, {}, ["batch", 4], ["batch", 4])


def _check_fallback(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not wants_keys(answer, {"providers", "config", "on_cpu"}, criteria):
        return criteria
    right, providers, config = _right_name(p), answer["providers"], answer["config"]
    criteria.require(
        "the providers are the one that was meant, alone", providers == [right], _provider_hint(providers, p)
    )
    criteria.require(f"config makes a fallback an error: {STRICT}", config == {STRICT: "1"}, _config_hint(config))
    known = isinstance(providers, list) and all(isinstance(name, str) for name in providers)
    if known and config in ({}, {STRICT: "1"}) and right not in ort.get_available_providers():
        started = _starts(_chain(p), providers, config)
        criteria.require(
            f"on a machine without {right} it refuses to start",
            not started,
            f"It started here, silently, on {started}: that is the illness. Nobody would notice.",
        )
    left, got = [n.name for n in _chain(p).graph.node if n.op_type not in p["takes"]], answer["on_cpu"]
    listed = isinstance(got, list) and all(isinstance(name, str) for name in got)
    criteria.add(
        "on_cpu lists the nodes that the provider would leave to the CPU",
        listed and sorted(got) == sorted(left),
        "Write a list of node names."
        if not listed
        else "It has names of operators: a node has a name of its own, see cu.node_table."
        if set(got) & set(_UNARY)
        else "These are the nodes that the provider takes: the others are left."
        if set(got) & {n.name for n in _chain(p).graph.node} and not set(got) & set(left)
        else f"{len(set(left) - set(got))} missing, {len(set(got) - set(left))} too many: compare each operator with takes.",
    )
    return criteria


def _provider_hint(got: object, p: Params) -> str:
    if not isinstance(got, list) or not all(isinstance(name, str) for name in got):
        return "Write a list of names."
    if p["wrong_name"] in got:
        return f"There is no {p['wrong_name']}: it is spelled otherwise, and a name that nobody knows lands on the CPU."
    if CPU in got:
        return "The CPU in the list is the permission to fall back to it: leave it out."
    if got and set(got) & set(_NAMES):
        return f"Another provider than the one that was asked for: {p['wrong_name']} was meant to be one of ort.get_all_providers()."
    return "ort.get_all_providers() lists all real names."


def _config_hint(got: object) -> str:
    if not isinstance(got, dict):
        return "Write a dict of text to text."
    if STRICT in got and got[STRICT] != "1":
        return f'Its value is {str(got[STRICT])[:30]!r}: ONNX Runtime knows the texts "0" and "1" only.'
    if STRICT in got:
        return "There is more in it than asked for."
    return "Nothing in it forbids the fallback. Lesson 05 names the key that turns it into an error."


def _starts(model: onnx.ModelProto, providers: list[str], config: dict[str, str]) -> str:
    """The providers of the session, if one can be created; otherwise nothing."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    for key, value in config.items():
        options.add_session_config_entry(key, value)
    # ONNX Runtime prints on a wrong name, and warns on one that is not installed.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            session = ort.InferenceSession(model.SerializeToString(), options, providers=providers)
        except Exception:  # its exception classes derive from Exception alone
            return ""
    return ", ".join(session.get_providers())


# 9.14: tiny models, one after the other

_STAGES = {"a": "Tanh", "b": "Sigmoid", "c": "Relu"}


def _draw_tiny(rng: Random) -> Params:
    return {"order": rng.sample(sorted(_STAGES), 3), "seed": rng.getrandbits(32)}


def _tiny(p: Params) -> dict[str, onnx.ModelProto]:
    """Three models that were made by the same script, so that all their tensors have the same names."""
    draw, models = np.random.default_rng(p["seed"]), {}
    for letter, activation in _STAGES.items():
        nodes = [
            node("MatMul", ["x", "weight"], ["h"], "product"),
            node("Add", ["h", "bias"], ["s"], "sum"),
            node(activation, ["s"], ["y"], "activation"),
        ]
        weights = {"weight": draw.normal(0, 1, (4, 4)), "bias": draw.normal(0, 1, 4)}
        models[f"9.14_{letter}.onnx"] = patient(f"stage_{letter}", nodes, weights, ["batch", 4], ["batch", 4])
    return models


def _chained(p: Params, order: list[str] | str, weights_of: str = "") -> Calculation:
    models = {name[5]: model for name, model in _tiny(p).items()}
    if weights_of:
        stored = {letter: list(model.graph.initializer) for letter, model in models.items()}
        for model in models.values():
            del model.graph.initializer[:]
            model.graph.initializer.extend(stored[weights_of])

    def calculate(feed: Feed) -> np.ndarray:
        x = feed["x"]
        for letter in order:
            x = result(models[letter], {"x": x})
        return x

    return calculate


def _check_tiny(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    if not any_size(model, criteria, "rows") or not promises_any_size(model, criteria, "rows"):
        return criteria
    order, source = p["order"], numpy_source(rng)
    sizes = (1, int(source.integers(50, 400)))
    judged(
        model,
        {
            f"one call does the work of three, for {rows} row{'s' * (rows > 1)}": [
                {"x": source.normal(0, 1, (rows, 4)).astype(np.float32)}
            ]
            for rows in sizes
        },
        _chained(p, order),
        _tiny_slips(p),
        criteria,
        otherwise=f"x must pass through {', then '.join(order)}.",
    )
    return criteria


def _tiny_slips(p: Params) -> dict[str, Calculation]:
    order, found = p["order"], {}
    for letter in _STAGES:
        alone = f"This is stage {letter} alone: each call still costs as much as the work, and there are three of them."
        found[alone] = _chained(p, letter)
        clash = f"All stages compute with the weights of stage {letter}: the names clash. Give merge_models a prefix."
        found[clash] = _chained(p, order, letter)
    for pair in itertools.permutations(_STAGES, 2):
        missing = (set(_STAGES) - set(pair)).pop()
        found[f"Only {pair[0]} and then {pair[1]}: stage {missing} is missing."] = _chained(p, list(pair))
    for other in itertools.permutations(_STAGES):
        if list(other) != order:
            text = f"The order is {', '.join(other)}, and should be {', '.join(order)}."
            found[text] = _chained(p, list(other))
    return found


FALLBACK = Task(
    "9.8",
    "A silent fallback",
    "json",
    _check_fallback,
    _draw_fallback,
    lambda p: {"9.8.onnx": _chain(p)},
    (
        "Compare the name that was asked for with those in ort.get_all_providers(), letter by letter.",
        "A right name is not enough: on a machine without that provider the session would be on the CPU again. One entry of "
        "the configuration forbids it, and it does not go together with the CPU in the list.",
        'providers: the right name alone. config: "session.disable_cpu_ep_fallback" with the text "1". on_cpu: the names '
        "of the nodes whose operator is not in takes.",
    ),
    points=1,
)
TINY = Task(
    "9.14",
    "Tiny models, many calls",
    "onnx",
    _check_tiny,
    _draw_tiny,
    _tiny,
    (
        "A call costs some microseconds, whatever is in the model. How many calls does one row need here? How many would do?",
        "Three graphs can become one: onnx.compose. But all three use the same names for their tensors.",
        "onnx.compose.merge_models(first, second, io_map=[(output of the first, input of the second)], prefix1=…, prefix2=…), "
        "twice. Then rename the input to x and the output to y, in the nodes, too: onnx.compose.add_prefix and "
        "merge_models rename everything. All rows go into one call.",
    ),
    points=2,
)
