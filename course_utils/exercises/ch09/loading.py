"""The hospital: patients that do not load. Weights elsewhere, an operator that nobody knows."""

from __future__ import annotations

from functools import partial
from random import Random

import numpy as np
import onnx
from onnx import helper

from .. import Criteria, Criterion, Params, Task
from ..examine import every_node, every_tensor, has_io, is_sound, numpy_source, result
from ..slips import Calculation
from .hospital import judged, patient

node = helper.make_node

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
        {"it computes what it did with its weights": [{"x": x}]},
        partial(result, _whole(p)),
        {text: partial(result, _refilled(p, kind)) for text, kind in mistakes.items()},
        criteria,
        otherwise="These are other weights. Take them from the file that was handed out with the model.",
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

    def activated(by: str = kind, value: float = p["value"]) -> Calculation:
        return lambda feed: _with_activation(p, feed["x"], by, value)

    judged(
        model,
        {"it computes the formula": [{"x": x}]},
        activated(),
        {
            f"The attribute {attribute} is ignored: its value is {p['value']}.": activated(value=1.0),
            f"{attribute} is used upside down.": activated(value=1 / p["value"]),
            "The node was taken out, and nothing stands in its place.": activated("nothing"),
            "A plain Relu is not the same operator: read the formula in the node's doc_string.": activated("Relu"),
            "A plain Sigmoid is not the same operator: the formula multiplies it with x.": activated("Sigmoid"),
            "The product with x is missing.": activated("sigmoid of the scaled"),
            f"{attribute} has the wrong sign.": activated(value=-p["value"]),
            "It is not squared.": activated("ReluOnce"),
            "The product with the limit is missing.": activated("TanhOfScaled"),
        },
        criteria,
        otherwise="The formula is in the node's doc_string: compare your nodes with it, one step after the other.",
    )
    return criteria


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
