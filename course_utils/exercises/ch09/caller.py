"""The hospital: a caller who sends something else than the model takes."""

from __future__ import annotations

from random import Random

import numpy as np
import onnx
from onnx import TensorProto, helper

from .. import Criteria, Criterion, Params, Task
from ..examine import has_io, is_sound, numpy_source, result
from ..slips import Calculation
from .hospital import judged, patient

node = helper.make_node

# 9.15: the caller sends something else

_SENT = ["pictures", "photos", "frames"]


def _draw_caller(rng: Random) -> Params:
    height = rng.choice([6, 8, 10])
    return {
        "sends": rng.choice(_SENT),
        "shape": ["batch", height, height + rng.choice([2, 4]), 3],
        "mean": rng.choice([0.4, 0.45, 0.5]),
        "deviation": rng.choice([0.2, 0.25, 0.3]),
        "seed": rng.getrandbits(32),
    }


def _strict(p: Params) -> onnx.ModelProto:
    draw, (_, height, width, _) = np.random.default_rng(p["seed"]), p["shape"]
    nodes = [
        node("Conv", ["x", "filters"], ["c"], "conv", kernel_shape=[3, 2]),
        node("Relu", ["c"], ["r"], "relu"),
        node("GlobalAveragePool", ["r"], ["g"], "pool"),
        node("Flatten", ["g"], ["f"], "flatten"),
        node("MatMul", ["f", "weight"], ["y"], "product"),
    ]
    weights = {"filters": draw.normal(0, 1, (4, 3, 3, 2)), "weight": draw.normal(0, 1, (4, 3))}
    return patient("strict", nodes, weights, ["batch", 3, height, width], ["batch", 3])


def _prepared(p: Params, pictures: np.ndarray, mistake: str = "") -> np.ndarray:
    """What the model was trained with; or what a mistake in the preparation gives."""
    x = pictures.astype(np.float64)
    if mistake == "reshaped":
        x = x.reshape(len(x), 3, *x.shape[1:3])
    elif mistake == "turned":
        x = x.transpose(0, 3, 2, 1)
    else:
        x = x.transpose(0, 3, 1, 2)
    x = x if mistake == "not divided" else x / 255
    mean, deviation = p["mean"], p["deviation"]
    if mistake == "not normalised":
        return x.astype(np.float32)
    if mistake == "added":
        return ((x + mean) / deviation).astype(np.float32)
    if mistake == "exchanged":
        return ((x - deviation) / mean).astype(np.float32)
    if mistake == "multiplied":
        return ((x - mean) * deviation).astype(np.float32)
    if mistake == "order":
        return (x / deviation - mean).astype(np.float32)
    return ((x - mean) / deviation).astype(np.float32)


_CALLER_CAUSES = {
    "reshaped": "Reshape only counts the same numbers in another way, and mixes colours with places: use Transpose.",
    "turned": "Height and width have changed places: the Transpose needs perm=[0, 3, 1, 2].",
    "not divided": "The pixels are not divided by 255.",
    "not normalised": "mean and deviation are missing: the model was trained with (pixels / 255 - mean) / deviation.",
    "multiplied": "It is multiplied with the deviation: divide by it.",
    "added": "The mean is added: subtract it.",
    "exchanged": "Mean and deviation are exchanged.",
    "order": "The mean goes off first, and the division by the deviation comes behind.",
}


def _check_caller(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    stored = {t.name for t in model.graph.initializer}
    inputs = {v.name: v.type.tensor_type for v in model.graph.input if v.name not in stored}
    if not criteria.require(
        f"its one input is {p['sends']}",
        list(inputs) == [p["sends"]],
        f"Its inputs are {', '.join(inputs)[:100] or 'none'}, and the caller sends {p['sends']}: ONNX Runtime goes by the name.",
    ):
        return criteria
    kind = inputs[p["sends"]].elem_type
    dtype = TensorProto.DataType.Name(kind).lower() if kind in TensorProto.DataType.values() else str(kind)
    if not criteria.require(
        "its input is uint8",
        kind == TensorProto.UINT8,
        f"It is {dtype}, and the caller sends uint8, which ONNX Runtime does not convert: put a Cast in front.",
    ):
        return criteria
    dims = [d.dim_value if d.HasField("dim_value") else d.dim_param for d in inputs[p["sends"]].shape.dim]
    shape = p["shape"]
    if not criteria.require(
        f"its input takes shape {shape}",
        len(dims) == 4
        and not isinstance(dims[0], int)
        and all(isinstance(d, str) or d == s for d, s in zip(dims[1:], shape[1:], strict=True)),
        f"It has {dims[:6]}: the caller sends colours last, and any number of pictures.",
    ):
        return criteria
    if not is_sound(model, criteria) or not has_io(model, {p["sends"]: "uint8"}, {"y": "float"}, criteria):
        return criteria
    source = numpy_source(rng)
    pictures = source.integers(0, 256, (int(source.integers(2, 7)), *shape[1:]), np.uint8)

    def prepared(mistake: str = "") -> Calculation:
        return lambda feed: result(_strict(p), {"x": _prepared(p, feed[p["sends"]], mistake)})

    slips = {text: prepared(kind) for kind, text in _CALLER_CAUSES.items()}
    slips[_CALLER_CAUSES["turned"]] = lambda feed: _turned(p, feed[p["sends"]])
    judged(
        model,
        {"it computes what the model does with prepared pictures": [{p["sends"]: pictures}]},
        prepared(),
        slips,
        criteria,
        otherwise="Prepare as in training: Cast, divide by 255, subtract the mean, divide by the deviation, then "
        "Transpose.",
    )
    return criteria


def _turned(p: Params, pictures: np.ndarray) -> np.ndarray:
    """The result where height and width have changed places; the convolution takes both."""
    free = _strict(p)
    for axis in (2, 3):
        free.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = "any"
    return result(free, {"x": _prepared(p, pictures, "turned")})


CALLER = Task(
    "9.15",
    "The caller sends something else",
    "onnx",
    _check_caller,
    _draw_caller,
    lambda p: {"9.15.onnx": _strict(p)},
    (
        "The name, the dtype and the order of the axes do not fit. Which of the three does ONNX Runtime tell you first?",
        "The caller will not change, so the model must: nodes in front of the first Conv can do all that the caller does not. "
        "Which four steps lead from pixels to what the model was trained with?",
        "New input: the caller's name, UINT8, the caller's shape. Then Cast to float, Div by 255, Sub mean, Div by the "
        "deviation, Transpose with perm=[0, 3, 1, 2], whose output is x, and x is no input any more.",
    ),
    points=1,
)
