"""The hospital: patients that do not load. Opset too new, IR too new, weights elsewhere, an operator nobody knows."""

from __future__ import annotations

from random import Random

import numpy as np
import onnx
from onnx import helper

from . import Criteria, Criterion, Params, Task
from .examine import every_node, every_tensor, has_io, is_sound, numpy_source, result
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
        0 < opset <= p["opset"],
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
        {"x": x},
        result(_old_opset(p), {"x": x}),
        criteria,
        "it computes what it computed",
        lambda: {
            "The mean is taken over all axes: ReduceMean lost its axes. They are the stored tensor axes of the patient.": result(
                _old_opset(p, [0, 1]), {"x": x}
            ),
            "The mean is taken over the rows: the axis was 1.": result(_old_opset(p, [0]), {"x": x}),
            "The two halves have changed places: the first output of Split goes into ReduceMean and Sub.": result(
                _old_opset(p, swapped=True), {"x": x}
            ),
        },
        "Start again from the patient: only Split and ReduceMean are to be rewritten.",
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
    expected = result(_new_ir(p, IR), {"x": x})
    judged(
        model,
        {"x": x},
        expected,
        criteria,
        "it computes what it computed",
        dict,
        "Only one number in the file is wrong.",
    )
    return criteria


# 9.4: the weights are elsewhere

_PLACES = ["final.onnx.data", "model_v2.onnx.data", "best_epoch.onnx.data", "export_monday.onnx.data"]
_WEIGHTS_FILE = "9.4_weights.bin"
_GAP = 64  # between two tensors, as exporters align them


def _draw_elsewhere(rng: Random) -> Params:
    order = ["weight1", "bias1", "weight2"]
    rng.shuffle(order)
    return {"location": rng.choice(_PLACES), "order": order, "seed": rng.getrandbits(32)}


def _whole(p: Params) -> onnx.ModelProto:
    draw = np.random.default_rng(p["seed"])
    weights = {
        "weight1": draw.normal(0, 1, (6, 8)),
        "bias1": draw.normal(0, 1, 8),
        "weight2": draw.normal(0, 1, (8, 4)),
    }
    nodes = [
        node("Gemm", ["x", "weight1", "bias1"], ["h"], "layer1"),
        node("Relu", ["h"], ["a"], "activation"),
        node("MatMul", ["a", "weight2"], ["y"], "layer2"),
    ]
    return patient("two_layers", nodes, weights, ["batch", 6], ["batch", 4])


def _torn(p: Params) -> dict[str, onnx.ModelProto | bytes]:
    """The model without its weights, and the file that they are in; the model asks for a file of another name."""
    model, data = _whole(p), b""
    tensors = {t.name: t for t in model.graph.initializer}
    for name in p["order"]:
        tensor, start = tensors[name], len(data)
        raw = tensor.raw_data
        data += raw + bytes(-len(raw) % _GAP)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in {"location": p["location"], "offset": start, "length": len(raw)}.items():
            tensor.external_data.add(key=key, value=str(value))
    return {"9.4.onnx": model, _WEIGHTS_FILE: data}


def _refilled(p: Params, mistake: str) -> onnx.ModelProto:
    """What comes out when the tensors are filled the wrong way."""
    model, data = _whole(p), _torn(p)[_WEIGHTS_FILE]
    at = 0
    for tensor in model.graph.initializer:
        size = len(tensor.raw_data)
        tensor.raw_data = bytes(size) if mistake == "zeros" else data[at : at + size]
        at += size if mistake == "in order" else 0
    return model


def _check_elsewhere(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    outside = [t for t in every_tensor(model) if t.data_location == onnx.TensorProto.EXTERNAL]
    places = sorted({e.value for t in outside for e in t.external_data if e.key == "location"})
    if not criteria.require(
        "no tensor is looked for elsewhere",
        not outside,
        f"{len(outside)} tensors are missing: the file says that they lie in {', '.join(places)[:80] or 'another file'}"
        + (
            ", which does not exist."
            if p["location"] in places
            else ", and whoever gets the model alone has none of them."
        )
        + " Load the weights into the model, then save it in one file.",
    ):
        return criteria
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    x = numpy_source(rng).normal(0, 1, (4, 6)).astype(np.float32)
    mistakes = {
        "All weights are zero: the numbers in the weight file were never read.": "zeros",
        "Every tensor was read from the start of the file: each has an offset of its own.": "from the start",
        "The tensors were read in the order of the model: in the file they have another one. Use offset and length.": "in order",
    }
    judged(
        model,
        {"x": x},
        result(_whole(p), {"x": x}),
        criteria,
        "it computes what it did with its weights",
        lambda: {text: result(_refilled(p, kind), {"x": x}) for text, kind in mistakes.items()},
        "These are other weights. Take them from the file that was handed out with the model.",
    )
    return criteria


# 9.5: an operator that nobody knows

_DOMAIN = "com.example"
_OPERATORS = {
    "ScaledSwish": ("beta", "y = x * sigmoid(beta * x)"),
    "SquaredRelu": ("scale", "y = scale * max(x, 0) * max(x, 0)"),
    "SoftClip": ("limit", "y = limit * tanh(x / limit)"),
}


def _draw_operator(rng: Random) -> Params:
    return {
        "operator": rng.choice(sorted(_OPERATORS)),
        "value": rng.choice([0.4, 0.6, 1.7, 2.3]),
        "seed": rng.getrandbits(32),
    }


def _stranger(p: Params) -> onnx.ModelProto:
    draw, (attribute, formula) = np.random.default_rng(p["seed"]), _OPERATORS[p["operator"]]
    odd = node(p["operator"], ["h"], ["a"], "activation", formula, domain=_DOMAIN, **{attribute: p["value"]})
    nodes = [
        node("MatMul", ["x", "weight1"], ["h"], "layer1"),
        odd,
        node("MatMul", ["a", "weight2"], ["y"], "layer2"),
    ]
    weights = {"weight1": draw.normal(0, 1, (5, 6)), "weight2": draw.normal(0, 1, (6, 3))}
    model = patient("stranger", nodes, weights, ["batch", 5], ["batch", 3])
    model.opset_import.add(domain=_DOMAIN, version=1)
    return model


def _with_activation(p: Params, x: np.ndarray, kind: str, value: float) -> np.ndarray:
    from onnx import numpy_helper

    first, second = (numpy_helper.to_array(t).astype(np.float64) for t in _stranger(p).graph.initializer)
    h = x.astype(np.float64) @ first
    a = {
        "ScaledSwish": lambda: h / (1 + np.exp(-value * h)),
        "SquaredRelu": lambda: value * np.maximum(h, 0) ** 2,
        "SoftClip": lambda: value * np.tanh(h / value),
        "ReluOnce": lambda: value * np.maximum(h, 0),
        "TanhOfScaled": lambda: np.tanh(h / value),
        "nothing": lambda: h,
        "Relu": lambda: np.maximum(h, 0),
        "Tanh": lambda: np.tanh(h),
        "Sigmoid": lambda: 1 / (1 + np.exp(-h)),
        "sigmoid of the scaled": lambda: 1 / (1 + np.exp(-value * h)),
    }[kind]()
    return (a @ second).astype(np.float32)


def _check_operator(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria, kind = Criteria(), p["operator"]
    own = {(f.domain, f.name) for f in model.functions}
    foreign = [n for n in every_node(model) if n.domain not in ("", "ai.onnx") and (n.domain, n.op_type) not in own]
    names = ", ".join(dict.fromkeys(f"{n.domain}::{n.op_type}" for n in foreign))
    if not criteria.require(
        "all operators are standard",
        not foreign,
        f"{names[:120]} is no standard operator: a runtime without its library does not load the model. Write its formula "
        f"with standard nodes.",
    ):
        return criteria
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    x = numpy_source(rng).normal(0, 1, (6, 5)).astype(np.float32)
    attribute = _OPERATORS[kind][0]

    def mistakes() -> dict[str, np.ndarray]:
        return {
            f"The attribute {attribute} is ignored: its value is {p['value']}.": _with_activation(p, x, kind, 1.0),
            f"{attribute} is used upside down.": _with_activation(p, x, kind, 1 / p["value"]),
            "The node was taken out, and nothing stands in its place.": _with_activation(p, x, "nothing", 1),
            "A plain Relu is not the same operator: read the formula in the node's doc_string.": _with_activation(
                p, x, "Relu", 1
            ),
            "A plain Sigmoid is not the same operator: the formula multiplies it with x.": _with_activation(
                p, x, "Sigmoid", 1
            ),
            "The product with x is missing.": _with_activation(p, x, "sigmoid of the scaled", p["value"]),
            f"{attribute} has the wrong sign.": _with_activation(p, x, kind, -p["value"]),
            "It is not squared.": _with_activation(p, x, "ReluOnce", p["value"]),
            "The product with the limit is missing.": _with_activation(p, x, "TanhOfScaled", p["value"]),
        }

    expected = _with_activation(p, x, kind, p["value"])
    otherwise = "The formula is in the node's doc_string: compare your nodes with it, one step after the other."
    judged(model, {"x": x}, expected, criteria, "it computes the formula", mistakes, otherwise)
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
ELSEWHERE = Task(
    "9.4",
    "The weights are elsewhere",
    "onnx",
    _check_elsewhere,
    _draw_elsewhere,
    _torn,
    (
        "The graph is whole. Look at what an initializer of this model says about its own data.",
        "Each tensor has a location, an offset and a length. Two of the three are right.",
        "Load with onnx.load(path, load_external_data=False), set each entry location to the file that is there, call "
        "onnx.load_external_data_for_model(model, folder), and save.",
    ),
    points=1,
)
STRANGER = Task(
    "9.5",
    "An operator that nobody knows",
    "onnx",
    _check_operator,
    _draw_operator,
    lambda p: {"9.5.onnx": _stranger(p)},
    (
        "Which domain has the operator? Who would have to bring the code for it?",
        "Nobody will bring it. But the node says in its doc_string what it computes, and the value of its attribute is there.",
        "Write the formula with standard nodes, such as Mul, Sigmoid, Relu, Div, Tanh. The attribute's value becomes an "
        "initializer, float32, shape []. The last new node writes the tensor that the old one wrote.",
    ),
    points=1,
)
