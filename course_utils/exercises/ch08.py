"""Exercises of lesson 08: processing inside the graph, a mobile variant, a server's settings, a server's answers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..errors import CourseError
from ..running import run, session_for
from ..widget_batching import simulate
from . import Criteria, Criterion, Params, Task
from .examine import computes, has_io, is_sound, numpy_source, wants_keys
from .handouts import x_to_y

OPSET, IR = 20, 9


# 8.1: preparation inside the graph


def _draw_preparation(rng: Random) -> Params:
    return {
        "mean": [round(rng.uniform(0.3, 0.6), 3) for _ in range(3)],
        "deviation": [round(rng.uniform(0.15, 0.35), 3) for _ in range(3)],
        "camera": rng.choice(["RGB", "BGR"]),
        "seed": rng.randrange(10**6),
    }


def _small_net(p: Params) -> onnx.ModelProto:
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


def _prepared(pixels: np.ndarray, p: Params, **faults: bool) -> np.ndarray:
    """What the model must see; with faults, what it sees when something was forgotten."""
    x = (pixels // 255 if faults.get("whole") else pixels).astype(np.float64)
    if (p["camera"] == "BGR") != faults.get("channels", False):
        x = x[..., ::-1]
    if not (faults.get("scale") or faults.get("whole")):
        x = x / 255
    mean, deviation = np.array(p["mean"]), np.array(p["deviation"])
    if faults.get("mean_channels"):
        mean, deviation = mean[::-1], deviation[::-1]
    if not faults.get("mean"):
        x = x - mean
    if not faults.get("deviation"):
        x = x * deviation if faults.get("times") else x / deviation
    if faults.get("reshaped"):
        return x.reshape(len(x), 3, 8, 8).astype(np.float32)
    return x.transpose((0, 3, 2, 1) if faults.get("turned") else (0, 3, 1, 2)).astype(np.float32)


_PREPARATION = {
    "The division by 255 is missing: mean and deviation are meant for values from 0 to 1.": ["scale"],
    "The mean is not subtracted.": ["mean"],
    "The division by the deviation is missing.": ["deviation"],
    "It is multiplied by the deviation: divide by it.": ["times"],
    "The channels are in the wrong order: the model was trained with RGB, and mind the order of your camera.": [
        "channels"
    ],
    "Mean and deviation belong to the channels in the order RGB: apply them after the channels were put in order.": [
        "mean_channels"
    ],
    "Rows and columns are swapped: the model wants [batch, channel, row, column].": ["turned"],
    "A Reshape does not move the channels, it only counts anew: use Transpose.": ["reshaped"],
    "Whole numbers were divided: cast to float first, or almost every pixel becomes 0.": ["whole"],
    "Neither mean nor deviation are applied.": ["mean", "deviation"],
}


def _check_preparation(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not is_sound(model, criteria) or not has_io(model, {"pixels": "uint8"}, {"y": "float"}, criteria):
        return criteria
    draw = numpy_source(rng)
    pixels = draw.integers(0, 256, (5, 8, 8, 3), np.uint8)
    expected = _net_output(p, _prepared(pixels, p))
    cause = "Compare the tensor that goes into the convolution with what NumPy gives."
    for sentence, faults in _PREPARATION.items():
        guess = _net_output(p, _prepared(pixels, p, **dict.fromkeys(faults, True)))
        if computes(model, {"pixels": pixels}, guess, Criteria(), "", "", atol=1e-4):
            cause = sentence
    if not _runs(model, {"pixels": pixels[:1]}, criteria, "it runs with one picture, [1, 8, 8, 3]"):
        return criteria
    _runs(model, {"pixels": pixels}, criteria, "it runs with five pictures: the batch is free")
    computes(model, {"pixels": pixels}, expected, criteria, "it sees what the model was trained with", cause, atol=1e-4)
    return criteria


def _net_output(p: Params, x: np.ndarray) -> np.ndarray:
    return run(session_for(_small_net(p)), {"x": x})["y"]


def _runs(model: onnx.ModelProto, feed: Mapping[str, np.ndarray], criteria: Criteria, what: str) -> bool:
    try:
        run(session_for(model), dict(feed))
    except CourseError as error:
        return criteria.add(what, False, str(error))
    except Exception as error:  # ONNX Runtime's own classes derive from Exception alone
        return criteria.add(what, False, f"Running it failed: {str(error).strip().splitlines()[0]}")
    return criteria.add(what, True, "")


# 8.2: the answer a caller wants

_CLASSES = 8


def _draw_answer(rng: Random) -> Params:
    return {
        "best": rng.randint(2, 4),
        "temperature": rng.choice([0.5, 2.0, 3.0, 4.0]),
        "ids": rng.sample(range(100, 1000), _CLASSES),
        "seed": rng.randrange(10**6),
    }


def _scores(p: Params) -> onnx.ModelProto:
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
}


def _check_answer(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria, wanted = Criteria(), {"id": "int64", "probability": "float"}
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, wanted, criteria):
        return criteria
    x = numpy_source(rng).normal(0, 1, (5, 6)).astype(np.float32)
    if not _runs(model, {"x": x[:1]}, criteria, "it runs with one row, [1, 6]"):
        return criteria
    if not _runs(model, {"x": x}, criteria, "it runs with five rows: the batch is free"):
        return criteria
    got = run(session_for(model), {"x": x})
    scores = run(session_for(_scores(p)), {"x": x})["y"].astype(np.float64)
    best, shape = _best(scores, p), (len(x), p["best"])
    if not criteria.add(
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
    elif np.array_equal(np.sort(got["id"], 1), np.sort(ids[best], 1)):
        hint = "The ids are right, their order is not: the best one comes first (sorted = 1)."
    criteria.add("id names the best classes, the best one first", np.array_equal(got["id"], ids[best]), hint)

    def rows_of(values: np.ndarray) -> np.ndarray:
        return np.take_along_axis(values, best, 1)

    right = rows_of(_softmax(scores / p["temperature"]))
    hint = "Compare with NumPy: softmax of scores ÷ temperature over all classes, then the best ones."
    for sentence, wrong in _WRONG_PROBABILITIES.items():
        if np.allclose(got["probability"], rows_of(wrong(scores, p)), atol=1e-4):
            hint = sentence
    if np.allclose(got["probability"], _softmax(rows_of(scores) / p["temperature"]), atol=1e-4):
        hint = "The softmax sees the best classes only, so they add up to 1: take it over all classes, then the best."
    criteria.add(
        "probability is that of all classes, at your temperature",
        np.allclose(got["probability"], right, atol=1e-4),
        hint,
    )
    return criteria


# 8.3: a variant for a phone

_ACCELERATORS = {"NNAPI": "nnapi_supported_ops.md", "CoreML MLProgram": "coreml_supported_mlprogram_ops.md"}
Activation = Callable[[np.ndarray], np.ndarray]
_ACTIVATIONS: dict[str, Activation] = {
    "HardSwish": lambda v: v * np.clip(v / 6 + 0.5, 0, 1),
    "Mish": lambda v: v * np.tanh(np.logaddexp(v, 0)),
    "Softsign": lambda v: v / (1 + np.abs(v)),
}
# What a replacement computes when a part of it was forgotten.
_FORGOTTEN: dict[str, dict[str, Activation]] = {
    "HardSwish": {
        "The factor x is missing.": lambda v: np.clip(v / 6 + 0.5, 0, 1),
        "The limits 0 and 1 are missing.": lambda v: v * (v / 6 + 0.5),
        "The limits belong around x/6 + 1/2, before x is multiplied.": lambda v: np.clip(v * (v / 6 + 0.5), 0, 1),
    },
    "Mish": {
        "The factor x is missing.": lambda v: np.tanh(np.logaddexp(v, 0)),
        "The Tanh is missing.": lambda v: v * np.logaddexp(v, 0),
    },
    "Softsign": {
        "The 1 is missing in 1 + |x|.": np.sign,
    },
}


def _draw_mobile(rng: Random) -> Params:
    return {
        "accelerator": rng.choice(sorted(_ACCELERATORS)),
        "activation": rng.choice(sorted(_ACTIVATIONS)),
        "seed": rng.randrange(10**6),
    }


def _for_the_server(p: Params) -> onnx.ModelProto:
    """Two convolutions with an activation that the accelerator lacks, and a free batch."""
    draw = np.random.default_rng(p["seed"])
    shapes = {"w1": (6, 3, 3, 3), "w2": (4, 6, 3, 3)}
    weights = {name: draw.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}
    same = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], "conv_1", **same),
        helper.make_node(p["activation"], ["c1"], ["a1"], "activate_1"),
        helper.make_node("Conv", ["a1", "w2"], ["c2"], "conv_2", **same),
        helper.make_node(p["activation"], ["c2"], ["a2"], "activate_2"),
        helper.make_node("GlobalAveragePool", ["a2"], ["y"], "pool"),
    ]
    return x_to_y("server", nodes, weights, ["batch", 3, 8, 8], ["batch", 4, 1, 1], {"": 22}, ir_version=10)


def _verdict(model: onnx.ModelProto, accelerator: str) -> Any:
    """What the usability checker finds: a PartitioningInfo. Shapes are inferred as the checker does it."""
    from onnxruntime.tools.mobile_helpers import usability_checker
    from onnxruntime.tools.onnx_model_utils import ModelProtoWithShapeInfo

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.onnx")
        onnx.save(model, file)
        known = ModelProtoWithShapeInfo(file).model_with_shape_info
    if accelerator == "NNAPI":
        return usability_checker.check_nnapi_partitions(known, True)
    return usability_checker.check_coreml_partitions(known, True, _ACCELERATORS[accelerator])


def _check_mobile(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria, where = Criteria(), p["accelerator"]
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    if not criteria.add(
        "the model has no functions",
        not model.functions,
        "A function hides its nodes: write the nodes into the graph.",
    ):
        return criteria
    (x_info,) = (value for value in model.graph.input if value.name == "x")
    dims = [d.dim_value if d.HasField("dim_value") else d.dim_param for d in x_info.type.tensor_type.shape.dim]
    fixed = criteria.add(
        "the input is exactly [1, 3, 8, 8]",
        dims == [1, 3, 8, 8],
        f"It is {dims}: make_dim_param_fixed(model.graph, 'batch', 1) fixes a free dimension."
        if "batch" in dims
        else f"It is {dims}.",
    )
    try:
        found = _verdict(model, where)
        verdict = found.suitability().name
    except Exception as error:  # it stumbles over some valid models, such as one without nodes
        words = " ".join(str(error).split())[:200]
        criteria.add("the checker can read the graph", False, f"The usability checker fails on it: {words}.")
        return criteria
    lacks = sorted(op.removeprefix("ai.onnx:") for op in found.unsupported_ops)
    cause = "Some shapes are unknown." if fixed else "The free batch counts against every node."
    if lacks:
        cause = f"{where} lacks {', '.join(lacks)}."
    if lacks == ["Constant"]:
        cause = "Constant nodes count, too: write their values as initializers."
    counted = f"{found.num_supported_nodes} of {found.num_nodes} nodes, in {found.num_partitions} pieces. {cause}"
    criteria.add(f"the checker says YES for {where}", verdict == "YES", f"It says {verdict}: {counted}")
    # A YES allows a quarter of the nodes to stay behind, so many nodes that do nothing could buy one.
    every = found.num_supported_nodes == found.num_nodes
    criteria.add(f"{where} takes every node", every, f"It takes {counted}")
    left = [node.name for node in model.graph.node if node.op_type == p["activation"]]
    criteria.add(
        f"{p['activation']} is gone",
        not left,
        f"It is still there: {', '.join(left)}. Replace it by nodes that {where} takes.",
    )
    x = numpy_source(rng).normal(0, 1.5, (1, 3, 8, 8)).astype(np.float32)
    hint = "Compare each replacement with the old node, on the same input."
    wrong = {"The activations were taken out: they must be replaced.": lambda v: v, **_FORGOTTEN[p["activation"]]}
    for sentence, activation in wrong.items():
        if computes(model, {"x": x}, _with_activation(p, activation, x), Criteria(), "", "", atol=1e-4):
            hint = sentence
    right = _with_activation(p, _ACTIVATIONS[p["activation"]], x)
    computes(model, {"x": x}, right, criteria, "it computes what it computed", hint, atol=1e-4)
    return criteria


def _with_activation(p: Params, activation: Activation, x: np.ndarray) -> np.ndarray:
    """What the handed-out network computes, with this function in the place of both activations."""
    value = x.astype(np.float64)
    for kernel in map(numpy_helper.to_array, _for_the_server(p).graph.initializer):
        padded = np.pad(value, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
        with np.errstate(all="ignore"):
            value = activation(np.einsum("nchwij,ocij->nohw", windows, kernel))
    return value.mean((2, 3), keepdims=True)


# 8.4: settings within limits


def _draw_limits(rng: Random) -> Params:
    # From 1.5 to 12 ms: what suits one student's model is wrong for most others.
    fixed, each = round(1.5 * 8 ** rng.random(), 2), round(rng.uniform(0.2, 0.4), 2)
    spans = {str(n): round(fixed + each * n, 2) for n in (1, 2, 4, 8, 16, 32)}
    per_second = round(rng.uniform(0.6, 0.9) * 1000 / (fixed + each))
    wait = fixed * rng.uniform(2.0, 3.0)
    good = _served({"spans": spans, "per_second": per_second}, 16, wait, 0)
    return {
        "spans": spans,
        "per_second": per_second,
        "p99_ms": round(float(np.percentile(good.latencies, 99)) * 1.15, 1),
        "busy": round(float(good.busy) + 0.03, 2),
    }


def _served(p: Params, largest: int, wait_ms: float, seed: int) -> Any:
    return simulate({int(n): ms for n, ms in p["spans"].items()}, p["per_second"], wait_ms, largest, 4000, seed)


def _check_settings(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not wants_keys(answer, {"largest_batch", "wait_ms"}, criteria):
        return criteria
    largest, wait = answer["largest_batch"], answer["wait_ms"]
    whole = isinstance(largest, int) and not isinstance(largest, bool) and 1 <= largest <= 32
    sound = criteria.add(
        "largest_batch is a whole number from 1 to 32", whole, f"It is {str(largest)[:40]}: 32 is what was measured."
    )
    number = isinstance(wait, int | float) and not isinstance(wait, bool) and 0 <= wait <= 1000  # NaN is not
    sound &= criteria.add("wait_ms is a number from 0 to 1000", number, f"It is {str(wait)[:40]}.")
    if not sound:
        return criteria
    found = _served(p, largest, wait, rng.randrange(10**6))
    p99 = float(np.percentile(found.latencies, 99))
    rough = np.percentile(_served(p, largest, 0, 1).latencies, 99)
    criteria.add(
        f"99 of 100 requests are answered within {p['p99_ms']} ms",
        p99 <= p["p99_ms"],
        f"It takes {p99:.1f} ms. "
        + (
            "The batches are too small for so many requests, and they queue up: allow larger ones."
            if rough > p["p99_ms"]
            else "They wait too long for company: lower wait_ms."
        ),
    )
    criteria.add(
        f"the model is busy for at most {p['busy']:.0%} of the time",
        found.busy <= p["busy"],
        f"It is busy for {found.busy:.0%}, with {found.batches.mean():.1f} images per batch. "
        + (
            "No more fit into a batch: allow larger ones."
            if found.batches.mean() > 0.9 * largest
            else "Larger batches need less time for each picture: let requests wait longer for company."
        ),
    )
    return criteria


# 8.5: what does the server answer?

_STATUS = {
    413: "the body is larger than most_bytes; this is seen first, before anything is read",
    415: "the Content-Type is neither application/x-npy nor application/json",
    400: "the body is not what its Content-Type says",
    422: "the body can be read, but dtype, shape or number of images is wrong",
    503: "the request is fine, but as many are waiting as the queue allows",
    200: "nothing is wrong with it",
}


def _draw_requests(rng: Random) -> Params:
    limits = {
        "most_bytes": rng.choice([8, 16, 32, 64]) * 1024,
        "most_images": rng.randint(3, 8),
        "queue": rng.randint(20, 100),
    }

    def fine() -> dict[str, Any]:
        images = rng.randint(1, limits["most_images"])
        return {
            "content_type": "application/x-npy",
            "bytes": 128 + 784 * images,
            "readable": True,
            "dtype": "uint8",
            "shape": [images, 28, 28],
            "waiting": rng.randint(0, limits["queue"] - 1),
        }

    unread = {"readable": False, "dtype": None, "shape": None}
    many = limits["most_images"] + rng.randint(1, 2)
    edge = limits["most_images"]
    requests = [
        fine(),
        fine() | {"bytes": 128 + 784 * edge, "shape": [edge, 28, 28], "waiting": limits["queue"] - 1},
        fine() | {"shape": [28, 28], "bytes": 912, "content_type": "application/x-npy; charset=utf-8"},
        fine() | unread | {"content_type": "image/png", "bytes": limits["most_bytes"] + 1},
        fine() | {"content_type": rng.choice(["text/plain", "multipart/form-data"])},
        fine() | unread | {"bytes": rng.randint(10, 900), "waiting": limits["queue"]},
        fine() | {"dtype": "float32", "bytes": 128 + 4 * 784, "shape": [1, 28, 28], "waiting": limits["queue"]},
        fine() | {"shape": [many, 28, 28], "bytes": 128 + 784 * many},
        fine() | {"shape": [0, 28, 28], "bytes": 128},
        fine() | {"waiting": limits["queue"]},
    ]
    rng.shuffle(requests)
    return {"limits": limits, "requests": dict(zip("ABCDEFGHIJ", requests, strict=True))}


def _status(request: Mapping[str, Any], limits: Mapping[str, int]) -> int:
    if request["bytes"] > limits["most_bytes"]:
        return 413
    if request["content_type"].partition(";")[0] not in ("application/x-npy", "application/json"):
        return 415
    if not request["readable"]:
        return 400
    shape = request["shape"]
    count = shape[0] if len(shape) == 3 else 1
    if request["dtype"] != "uint8" or shape[-2:] != [28, 28] or not 1 <= count <= limits["most_images"]:
        return 422
    return 503 if request["waiting"] >= limits["queue"] else 200


def _check_requests(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    criteria, requests = Criteria(), p["requests"]
    if not wants_keys(answer, set(requests), criteria):
        return criteria
    if not criteria.add(
        "each value is a status",
        all(isinstance(s, int) and not isinstance(s, bool) and s in _STATUS for s in answer.values()),
        f"Each is one of the numbers {', '.join(map(str, sorted(_STATUS)))}, without quotes.",
    ):
        return criteria
    for letter, request in requests.items():
        right = _status(request, p["limits"])
        got = answer[letter]
        hint = f"You say {got}, but here {_STATUS[right]}."
        if right == 200:
            hint = f"You say {got}, but nothing is wrong with it: compare each value with the limits; a limit itself is allowed."
        elif got == 200:
            hint = f"It is not answered: {_STATUS[right]}."
        criteria.add(f"request {letter}", got == right, hint)
    return criteria


TASKS = (
    Task("8.1", "Put the preparation into the graph", "onnx", _check_preparation, _draw_preparation,
         lambda p: {"8.1.onnx": _small_net(p)}),
    Task("8.2", "Answer with ids and probabilities", "onnx", _check_answer, _draw_answer,
         lambda p: {"8.2.onnx": _scores(p)}),
    Task("8.3", "Make a variant for a phone", "onnx", _check_mobile, _draw_mobile,
         lambda p: {"8.3.onnx": _for_the_server(p)}),
    Task("8.4", "Settings within limits", "json", _check_settings, _draw_limits),
    Task("8.5", "What does the server answer?", "json", _check_requests, _draw_requests),
)  # fmt: skip
