"""Tasks 8.1 and 8.2: what comes before a network, and what comes behind it, as nodes of the graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

import numpy as np
import onnx
from onnx import helper

from ...errors import CourseError
from ...running import run, session_for
from .. import Criteria, Criterion, Params
from ..examine import computes, has_io, is_sound, numpy_source
from ..handouts import x_to_y

OPSET, IR = 20, 9


# 8.1: preparation inside the graph


def draw_preparation(rng: Random) -> Params:
    return {
        "mean": [round(rng.uniform(0.3, 0.6), 3) for _ in range(3)],
        "deviation": [round(rng.uniform(0.15, 0.35), 3) for _ in range(3)],
        "camera": rng.choice(["RGB", "BGR"]),
        "seed": rng.randrange(10**6),
    }


def small_net(p: Params) -> onnx.ModelProto:
    """x float32 [batch, 3, 8, 8], in the order RGB → y [batch, 5]."""
    draw = np.random.default_rng(p["seed"])
    weights = {"w1": (6, 3, 3, 3), "w2": (6, 5), "b2": (5,)}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c"], "conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["g"], "pool"),
        helper.make_node("Flatten", ["g"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w2", "b2"], ["y"], "gemm"),
    ]
    values = {name: draw.normal(0, 0.6, shape).astype(np.float32) for name, shape in weights.items()}
    return x_to_y("small", nodes, values, ["batch", 3, 8, 8], ["batch", 5], {"": OPSET}, ir_version=IR)


_PREPARATION: dict[str, list[str]] = {
    "The division by 255 is missing: mean and deviation are meant for values from 0 to 1.": ["scale"],
    "It is multiplied by 255: divide by it.": ["times 255"],
    "The mean is not subtracted.": ["mean"],
    "The mean is added: subtract it.": ["plus"],
    "The division by the deviation is missing.": ["deviation"],
    "It is multiplied by the deviation: divide by it.": ["times"],
    "Mean and deviation are exchanged.": ["exchanged"],
    "The division by the deviation comes before the mean is subtracted: it is the last step.": ["deviation first"],
    "The division by 255 comes too late: mean and deviation are meant for values from 0 to 1.": ["scale last"],
    "The channels are in the wrong order: the model was trained with RGB, and mind the order of your camera.": [
        "channels"
    ],
    "Mean and deviation belong to the channels in the order RGB: apply them after the channels were put in order.": [
        "mean channels"
    ],
    "Rows and columns are swapped: the model wants [batch, channel, row, column].": ["turned"],
    "A Reshape does not move the channels, it only counts anew: use Transpose.": ["reshaped"],
    "Whole numbers were divided: cast to float first, or almost every pixel becomes 0.": ["whole"],
    "Neither mean nor deviation are applied.": ["mean", "deviation"],
    "Only the cast and the order of the dimensions are there: scale, mean and deviation are missing.": [
        "scale",
        "mean",
        "deviation",
    ],
    "The channels are in the wrong order, and the division by 255 is missing.": ["channels", "scale"],
}


def _prepared(pixels: np.ndarray, p: Params, *faults: str) -> np.ndarray:
    """What the model must see; with faults, what it sees when something was forgotten or confused."""
    x = (pixels // 255 if "whole" in faults else pixels).astype(np.float64)
    if (p["camera"] == "BGR") != ("channels" in faults):
        x = x[..., ::-1]
    if "times 255" in faults:
        x = x * 255
    elif not {"scale", "whole", "scale last"} & set(faults):
        x = x / 255
    mean, deviation = np.array(p["mean"]), np.array(p["deviation"])
    if "mean channels" in faults:
        mean, deviation = mean[::-1], deviation[::-1]
    if "exchanged" in faults:
        mean, deviation = deviation, mean
    if "deviation first" in faults:
        x = x / deviation
    if "mean" not in faults:
        x = x + mean if "plus" in faults else x - mean
    if not {"deviation", "deviation first"} & set(faults):
        x = x * deviation if "times" in faults else x / deviation
    if "scale last" in faults:
        x = x / 255
    if "reshaped" in faults:
        return x.reshape(len(x), 3, 8, 8).astype(np.float32)
    return x.transpose((0, 3, 2, 1) if "turned" in faults else (0, 3, 1, 2)).astype(np.float32)


def check_preparation(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not is_sound(model, criteria) or not has_io(model, {"pixels": "uint8"}, {"y": "float"}, criteria):
        return criteria
    pixels = numpy_source(rng).integers(0, 256, (5, 8, 8, 3), np.uint8)
    if not _runs(model, {"pixels": pixels[:1]}, criteria, "it runs with one picture, [1, 8, 8, 3]") or not _runs(
        model, {"pixels": pixels}, criteria, "it runs with five pictures: the batch is free"
    ):
        return criteria

    def cause() -> str:
        got = run(session_for(model), {"pixels": pixels})["y"]
        for sentence, faults in _PREPARATION.items():
            guess = _net_output(p, _prepared(pixels, p, *faults))
            if np.allclose(got, guess, atol=1e-4, rtol=1e-4):
                return sentence
        return "Compare the tensor that goes into the convolution with what NumPy gives."

    expected, what = _net_output(p, _prepared(pixels, p)), "it sees what the model was trained with"
    computes(model, {"pixels": pixels}, expected, criteria, what, cause, atol=1e-4)
    return criteria


def _net_output(p: Params, x: np.ndarray) -> np.ndarray:
    return run(session_for(small_net(p)), {"x": x})["y"]


def _runs(model: onnx.ModelProto, feed: Mapping[str, np.ndarray], criteria: Criteria, what: str) -> bool:
    try:
        run(session_for(model), dict(feed))
    except CourseError as error:
        return criteria.require(what, False, str(error))
    return criteria.require(what, True, "")


# 8.2: the answer a caller wants

_CLASSES = 8


def draw_answer(rng: Random) -> Params:
    return {
        "best": rng.randint(2, 4),
        "temperature": rng.choice([0.5, 2.0, 3.0, 4.0]),
        "ids": rng.sample(range(100, 1000), _CLASSES),
        "seed": rng.randrange(10**6),
    }


def scoring_net(p: Params) -> onnx.ModelProto:
    draw = np.random.default_rng(p["seed"])
    weights = {"w": draw.normal(0, 1.2, (6, _CLASSES)), "b": draw.normal(0, 0.5, _CLASSES)}
    weights = {name: value.astype(np.float32) for name, value in weights.items()}
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"], "gemm")]
    return x_to_y("scores", nodes, weights, ["batch", 6], ["batch", _CLASSES], {"": OPSET}, ir_version=IR)


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def _best(scores: np.ndarray, p: Params) -> np.ndarray:
    return np.argsort(-scores, 1)[:, : p["best"]]


_WRONG_PROBABILITIES: dict[str, Callable[[np.ndarray, Params], np.ndarray]] = {
    "The temperature is missing: divide the scores by it before the softmax.": lambda s, p: _softmax(s),
    "The scores are multiplied by the temperature: divide them.": lambda s, p: _softmax(s * p["temperature"]),
    "These are scores, not probabilities: a softmax is missing.": lambda s, p: s,
    "These are scores divided by the temperature: a softmax is missing.": lambda s, p: s / p["temperature"],
    "The probabilities are divided by the temperature: it belongs before the softmax.": lambda s, p: (
        _softmax(s) / p["temperature"]
    ),
    "The softmax goes over the rows: it goes over the classes, axis 1.": lambda s, p: (
        _softmax(s.T / p["temperature"]).T
    ),
    "These are logarithms: a Softmax is wanted, and not a LogSoftmax.": lambda s, p: np.log(
        _softmax(s / p["temperature"])
    ),
    "That is a sigmoid of each score: a softmax divides by the sum over all classes.": lambda s, p: (
        1 / (1 + np.exp(-s / p["temperature"]))
    ),
}


def check_answer(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria, wanted = Criteria(), {"id": "int64", "probability": "float"}
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, wanted, criteria):
        return criteria
    x = numpy_source(rng).normal(0, 1, (5, 6)).astype(np.float32)
    if not _runs(model, {"x": x[:1]}, criteria, "it runs with one row, [1, 6]"):
        return criteria
    if not _runs(model, {"x": x}, criteria, "it runs with five rows: the batch is free"):
        return criteria
    got = run(session_for(model), {"x": x})
    scores = run(session_for(scoring_net(p)), {"x": x})["y"].astype(np.float64)
    best, shape = _best(scores, p), (len(x), p["best"])
    if not criteria.require(
        f"both outputs have the shape [batch, {p['best']}]",
        got["id"].shape == got["probability"].shape == shape,
        f"They have {list(got['id'].shape)} and {list(got['probability'].shape)} for five rows.",
    ):
        return criteria
    ids = np.array(p["ids"])
    hint = "Compare with the ids of the largest scores, row by row, the best one first."
    if np.array_equal(got["id"], best):
        hint = "These are positions: look each one up in the table of ids (Gather)."
    elif np.array_equal(got["id"], ids[np.argsort(scores, 1)[:, : p["best"]]]):
        hint = "These are the smallest scores: TopK has an attribute largest."
    elif np.array_equal(got["id"], ids[_best(_softmax(scores.T / p["temperature"]).T, p)]):
        hint = "They are in the order of probabilities over the rows: take the softmax over the classes, axis 1."
    elif np.array_equal(got["id"], ids[best][:, ::-1]):
        hint = "The best one comes last: it comes first."
    elif np.array_equal(np.sort(got["id"], 1), np.sort(ids[best], 1)):
        hint = "The ids are right, their order is not: the best one comes first (sorted = 1)."
    elif np.array_equal(got["id"], np.broadcast_to(ids[: p["best"]], shape)):
        hint = "These are the first ids of the table, whatever the scores are: look up the positions that TopK returns."
    criteria.add("id names the best classes, the best one first", np.array_equal(got["id"], ids[best]), hint)

    def rows_of(values: np.ndarray) -> np.ndarray:
        return np.take_along_axis(values, best, 1)

    right = rows_of(_softmax(scores / p["temperature"]))

    def cause() -> str:
        if np.allclose(got["probability"], _softmax(rows_of(scores) / p["temperature"]), atol=1e-4):
            return (
                "The softmax sees the best classes only, so they add up to 1: take it over all classes, then the best."
            )
        for sentence, wrong in _WRONG_PROBABILITIES.items():
            values = wrong(scores, p)
            for guess in (rows_of(values), -np.sort(-values, 1)[:, : p["best"]]):  # a slip may change the order, too
                if np.allclose(got["probability"], guess, atol=1e-4):
                    return sentence
        return "Compare with NumPy: softmax of scores ÷ temperature over all classes, then the best ones."

    criteria.add(
        "probability is that of all classes, at your temperature",
        np.allclose(got["probability"], right, atol=1e-4),
        cause,
    )
    return criteria
