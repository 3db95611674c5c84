"""The hospital: versions. An opset or an IR version that is too new for the server."""

from __future__ import annotations

from functools import partial
from random import Random

import numpy as np
import onnx
from onnx import helper

from .. import Criteria, Criterion, Params, Task
from ..examine import has_io, is_sound, numpy_source, result
from .hospital import IR, judged, patient

node = helper.make_node

# 9.2: opset too new

_NEWEST = 28  # what onnx 1.23 writes; no released ONNX Runtime of its time takes it


def _draw_opset(rng: Random) -> Params:
    return {"opset": rng.choice([13, 14, 15, 16, 17]), "features": rng.choice([4, 6, 8]), "seed": rng.getrandbits(32)}


def _new_opset(p: Params) -> onnx.ModelProto:
    """As the newest exporters write it: two operators whose form changed with opset 18."""
    return _two_halves(p, _NEWEST, {"axes": np.array([1])}, ["a", "axes"], {"num_outputs": 2}, {})


def _old_opset(p: Params, axes: list[int] | None = None, *, swapped: bool = False) -> onnx.ModelProto:
    model = _two_halves(p, max(p["opset"], 13), {}, ["a"], {}, {"axes": axes or [1], "keepdims": 1})
    if swapped:
        model.graph.node[0].output[:] = ["b", "a"]
    return model


def _two_halves(p: Params, opset: int, extra: dict, mean_inputs: list[str], split: dict, mean: dict) -> onnx.ModelProto:
    draw, half = np.random.default_rng(p["seed"]), p["features"] // 2
    nodes = [
        node("Split", ["x"], ["a", "b"], "split", axis=1, **split),
        node("ReduceMean", mean_inputs, ["mean"], "mean", **mean),
        node("Sub", ["a", "mean"], ["centred"], "centre"),
        node("Mul", ["centred", "b"], ["gated"], "gate"),
        node("MatMul", ["gated", "weight"], ["y"], "product"),
    ]
    weights = {"weight": draw.normal(0, 1, (half, 3)), **extra}
    return patient("halves", nodes, weights, ["batch", p["features"]], ["batch", 3], opset=opset)


def _check_opset(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria, imports = Criteria(), {o.domain: o.version for o in model.opset_import}
    opset = imports.get("", imports.get("ai.onnx", 0))
    if not criteria.require(
        f"the opset is {p['opset']} or older",
        opset <= p["opset"],
        f"It is {opset}, too new for the server, which takes up to {p['opset']}.",
    ):
        return criteria
    new = [
        n.name or n.op_type
        for n in model.graph.node
        if (n.op_type == "ReduceMean" and len(n.input) > 1)
        or (n.op_type == "Split" and any(a.name == "num_outputs" for a in n.attribute))
    ]
    if not criteria.require(
        "every node is written as its opset has it",
        not new,
        f"Only the number was changed: {', '.join(new)} still {'has' if len(new) == 1 else 'have'} the form of opset 18. "
        "Before it, ReduceMean had its axes as an attribute, and Split did not know num_outputs.",
    ):
        return criteria
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    x = numpy_source(rng).normal(0, 1, (4, p["features"])).astype(np.float32)
    judged(
        model,
        {"it computes what it computed": [{"x": x}]},
        partial(result, _old_opset(p)),
        {
            "The mean is taken over all axes: ReduceMean lost its axes. They are the stored tensor axes of the "
            "patient.": partial(result, _old_opset(p, [0, 1])),
            "The mean is taken over the rows: the axis was 1.": partial(result, _old_opset(p, [0])),
            "The two halves have changed places: the first output of Split goes into ReduceMean and Sub.": partial(
                result, _old_opset(p, swapped=True)
            ),
        },
        criteria,
        otherwise="Start again from the patient: only Split and ReduceMean are to be rewritten.",
    )
    return criteria


# 9.3: IR too new

_NEWEST_IR = 14


def _draw_ir(rng: Random) -> Params:
    return {"reads": rng.choice([8, 9, 10]), "features": rng.choice([3, 5, 7]), "seed": rng.getrandbits(32)}


def _new_ir(p: Params, ir_version: int = _NEWEST_IR) -> onnx.ModelProto:
    draw = np.random.default_rng(p["seed"])
    nodes = [
        node("Gemm", ["x", "weight", "bias"], ["h"], "layer"),
        node("Sigmoid", ["h"], ["y"], "activation"),
    ]
    weights = {"weight": draw.normal(0, 1, (p["features"], 4)), "bias": draw.normal(0, 1, 4)}
    return patient("plain", nodes, weights, ["batch", p["features"]], ["batch", 4], ir_version=ir_version)


def _check_ir(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    touched = "" if opset == 17 else " The opset is another number: it was right, put it back."
    if not criteria.require(
        f"the IR version is {p['reads']} or older",
        model.ir_version <= p["reads"],
        f"It is {model.ir_version}, and the server reads files up to IR version {p['reads']}.{touched}",
    ):
        return criteria
    criteria.require(
        "the IR version is 4 or newer",
        model.ir_version >= 4,
        f"Version {model.ir_version} is from the time when each weight had to be an input, too. Do not go lower than needed.",
    )
    criteria.require(
        "the opset is what it was", opset == 17, f"It is {opset}, and was 17: the opset was not what is wrong."
    )
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    x = numpy_source(rng).normal(0, 1, (4, p["features"])).astype(np.float32)
    judged(
        model,
        {"it computes what it computed": [{"x": x}]},
        partial(result, _new_ir(p, IR)),
        {},
        criteria,
        otherwise="Only one number in the file is wrong.",
    )
    return criteria


NEW_OPSET = Task(
    "9.2",
    "Opset too new",
    "onnx",
    _check_opset,
    _draw_opset,
    lambda p: {"9.2.onnx": _new_opset(p)},
    (
        "An opset is a promise about the form of each node. What would the server say if you changed the number alone?",
        "Two operators of this model got another form with opset 18. cu.operator_history, or onnx.checker after the change, "
        "names them.",
        "Set the opset, give ReduceMean an attribute axes in place of its second input, and take num_outputs away from "
        "Split, which then cuts into equal parts. The stored axes are not needed any more.",
    ),
    points=1,
)
NEW_IR = Task(
    "9.3",
    "IR version too new",
    "onnx",
    _check_ir,
    _draw_ir,
    lambda p: {"9.3.onnx": _new_ir(p)},
    (
        "The message names a version, and it is not that of the opset.",
        "The IR version belongs to the file format. Does this model use anything that the newer format brought?",
        "It uses nothing of it: load the model with onnx.load, set one number of the ModelProto to what the server reads, "
        "and save it. The opset stays.",
    ),
    points=1,
)
