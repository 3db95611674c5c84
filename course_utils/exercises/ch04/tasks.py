"""Exercises of lesson 04: free the batch, free the size, link, cure, freeze again, find out.

Every check runs the artefact with sizes the student has not seen. What a file declares is a condition.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np
import onnx

from .. import Criteria, Criterion, Params, Task
from ..examine import has_io, is_sound, numpy_source
from ..fashion_reference import classify, computed
from ..slips import Calculation, Feed, compare
from .declared import declares
from .loop_reader import check_reader, draw_reader
from .static_shapes import check_static, dims_of, draw_static, free_model
from .suspects import check_suspects, draw_suspects, suspects

_ASK_PYTORCH = "Compare with PyTorch at several sizes: cu.parity(module, path, inputs)."


# 4.1: any batch

_NAMES = ["batch", "requests", "pictures", "customers", "n"]
_PAIRS = [("height", "width"), ("rows", "columns"), ("h", "w"), ("lines", "pixels")]


def _draw_batch(rng: Random) -> Params:
    return {
        "input": rng.choice(["flat", "pixels", "grey"]),
        "output": rng.choice(["scores", "classes"]),
        "name": rng.choice(_NAMES),
        "mean": rng.randint(15, 29) / 100,
        "std": rng.randint(30, 45) / 100,
    }


def _pictures(prepare: Callable[[np.ndarray], np.ndarray]) -> Calculation:
    """The network on what `prepare` makes of the flat pixels, each as a picture 1×28×28."""
    return lambda feed: computed(prepare(next(iter(feed.values()))).reshape(-1, 1, 28, 28).astype(np.float32))


def _check_batch(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not is_sound(model, criteria) or not has_io(model, {p["input"]: "float"}, {p["output"]: "float"}, criteria):
        return criteria
    declares(model, {p["input"]: [p["name"], 784], p["output"]: [p["name"], 10]}, criteria)
    source, mean, std = numpy_source(rng), p["mean"], p["std"]

    def flat(n: int) -> Feed:
        return {p["input"]: source.integers(0, 256, (n, 784)).astype(np.float32)}

    def right(x: np.ndarray) -> np.ndarray:
        return (x / 255 - mean) / std

    compare(
        model,
        {
            "the right numbers for one picture": [flat(1)],
            "the right numbers for several pictures at once": [flat(rng.randint(3, 9)), flat(rng.randint(10, 40))],
        },
        _pictures(right),
        {
            "The division by 255 is missing.": _pictures(lambda x: (x - mean) / std),
            "mean and std are missing: the pixels are only divided by 255.": _pictures(lambda x: x / 255),
            "The pixels reach the network as they are.": _pictures(lambda x: x),
            "mean is missing.": _pictures(lambda x: x / 255 / std),
            "mean is added in place of subtracted.": _pictures(lambda x: (x / 255 + mean) / std),
            "std is missing.": _pictures(lambda x: x / 255 - mean),
            "std multiplies in place of dividing.": _pictures(lambda x: (x / 255 - mean) * std),
            "mean and std are exchanged.": _pictures(lambda x: (x / 255 - std) / mean),
            "mean is subtracted after std has divided, not before.": _pictures(lambda x: x / 255 / std - mean),
            "Rows and columns of the pictures are exchanged: the numbers come row by row.": _pictures(
                lambda x: right(x).reshape(-1, 28, 28).transpose(0, 2, 1)
            ),
        },
        criteria,
        otherwise=_ASK_PYTORCH,
        atol=1e-3,
    )
    return criteria


# 4.2: any size


def _draw_size(rng: Random) -> Params:
    height, width = rng.choice(_PAIRS)
    return {"batch": rng.choice(_NAMES[:3]), "height": height, "width": width, "share": rng.randint(20, 80) / 100}


def _pooled(pool: Callable[[np.ndarray], np.ndarray]) -> Calculation:
    """The network with another pooling. pool: maps float32 [N, 64, h, w] → [N, 64]."""
    return lambda feed: classify(pool(computed(next(iter(feed.values())), up_to_maps=True)).astype(np.float32))


def _mixed(share: float, of: Callable[[np.ndarray], np.ndarray] = lambda m: m) -> Calculation:
    """share: of the mean; the rest is of the maximum. of: the part of the maps that is looked at."""
    return _pooled(lambda m: share * of(m).mean((2, 3)) + (1 - share) * of(m).max((2, 3)))


def _check_size(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not is_sound(model, criteria) or not has_io(model, {"image": "float"}, {"logits": "float"}, criteria):
        return criteria
    declares(model, {"image": [p["batch"], 1, p["height"], p["width"]], "logits": [p["batch"], 10]}, criteria)
    source, share = numpy_source(rng), p["share"]

    def pictures(*shape: int) -> Feed:
        return {"image": source.normal(0, 1, shape).astype(np.float32)}

    h, w = rng.choice([36, 40, 44]), rng.choice([20, 24, 52, 56])
    wrong_head = "At other sizes, too, the mean and the maximum must be taken over all of each map."
    compare(
        model,
        {
            "the right numbers for pictures of 28×28": [pictures(2, 1, 28, 28), pictures(1, 1, 28, 28)],
            f"the right numbers for {h}×{w}, {h - 3}×{w + 7} and 9×11": [
                pictures(1, 1, h, w), pictures(1, 1, h - 3, w + 7), pictures(3, 1, 9, 11),
            ],
        },
        _mixed(share),
        {
            "It looks at one corner of the maps only.": _mixed(share, lambda m: m[:, :, :7, :7]),
            "The maximum is not in it: the mean counts alone.": _mixed(1.0),
            "The mean is not in it: the maximum counts alone.": _mixed(0.0),
            "The share is the maximum's, and must be the mean's.": _mixed(1 - share),
            "Mean and maximum are added up without the share.": _pooled(lambda m: m.mean((2, 3)) + m.max((2, 3))),
            "The sum is taken in place of the mean.": _pooled(
                lambda m: share * m.sum((2, 3)) + (1 - share) * m.max((2, 3))
            ),
        },
        criteria,
        otherwise=f"{wrong_head} Resizing the picture, or a window of fixed size, is something else.",
        atol=1e-3,
    )  # fmt: skip
    return criteria


# 4.3: two inputs that share a length


def _draw_shared(rng: Random) -> Params:
    return {
        "scale": rng.randint(11, 29) / 10,
        "shift": rng.randint(1, 9) / 10,
        "batch": rng.choice(_NAMES[:4]),
        "length": rng.choice(["length", "steps", "words", "time"]),
    }


def _shared(p: Params, **changed: float) -> Calculation:
    q = {**p, **changed}
    return _masked(lambda v, m: (np.tanh(v * q["scale"]) * m).sum(1) / m.sum(1) + q["shift"])


def _masked(calculate: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Calculation:
    """calculate: values [batch, length, 4] and mask [batch, length, 1] → [batch, 4]."""

    def on(feed: Feed) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return calculate(feed["values"], feed["mask"][:, :, None].astype(np.float32))

    return on


def _check_shared(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    inputs = {"values": "float", "mask": "int64"}
    if not is_sound(model, criteria) or not has_io(model, inputs, {"result": "float"}, criteria):
        return criteria
    b, n, scale, shift = p["batch"], p["length"], p["scale"], p["shift"]
    by_name = {v.name: dims_of(v) for v in model.graph.input}
    got = [by_name[name][1] if len(by_name[name]) > 1 else "?" for name in inputs]
    criteria.require(
        "both inputs have the same name for their length",
        isinstance(got[0], str) and got[0] != "?" and got[0] == got[1],
        f"Axis 1 is {got[0]!r} in values and {got[1]!r} in mask: use the same label {n!r} in both entries of dynamic_shapes.",
    )
    declares(model, {"values": [b, n, 4], "mask": [b, n], "result": [b, 4]}, criteria)
    source = numpy_source(rng)

    def feed(batch: int, length: int) -> Feed:
        mask = (source.random((batch, length)) < 0.6).astype(np.int64)
        mask[:, 0], mask[:, 2:3] = 1, 0  # some step counts, and some other one does not
        return {"values": source.normal(0, 1, (batch, length, 4)).astype(np.float32), "mask": mask}

    compare(
        model,
        {
            "the mean over the steps that count, short ones": [feed(1, 1), feed(2, rng.randint(3, 6))],
            "the mean over the steps that count, long ones": [feed(rng.randint(3, 6), rng.randint(12, 30))],
        },
        _shared(p),
        {
            "The mask has no effect: all steps are counted.": _masked(lambda v, m: np.tanh(v * scale).mean(1) + shift),
            "It divides by the whole length, not by the number of steps that count. Where a length became a number, the "
            "division did, too.": _masked(lambda v, m: (np.tanh(v * scale) * m).mean(1) + shift),
            "It gives the sum, not the mean.": _masked(lambda v, m: (np.tanh(v * scale) * m).sum(1) + shift),
            "It gives the maximum, not the mean.": _masked(
                lambda v, m: np.where(m > 0, np.tanh(v * scale), -np.inf).max(1) + shift
            ),
            "The mask is the wrong way round: 1 is a step that counts.": _masked(
                lambda v, m: (np.tanh(v * scale) * (1 - m)).sum(1) / (1 - m).sum(1) + shift
            ),
            "The shift is missing.": _shared(p, shift=0),
            "The shift is subtracted, not added.": _shared(p, shift=-shift),
            "The shift is inside of tanh.": _masked(lambda v, m: (np.tanh(v * scale + shift) * m).sum(1) / m.sum(1)),
            "The scale is missing.": _shared(p, scale=1.0),
            "The scale has the wrong sign.": _shared(p, scale=-scale),
            "The scale stands outside of tanh.": _masked(
                lambda v, m: (scale * np.tanh(v) * m).sum(1) / m.sum(1) + shift
            ),
            "Scale and shift are exchanged.": _shared(p, scale=shift, shift=scale),
            "tanh is missing.": _masked(lambda v, m: (v * scale * m).sum(1) / m.sum(1) + shift),
            "tanh is taken of the mean, not of the values.": _masked(
                lambda v, m: np.tanh(scale * (v * m).sum(1) / m.sum(1)) + shift
            ),
        },
        criteria,
        otherwise=_ASK_PYTORCH,
    )
    return criteria


TASKS = (
    Task(
        "4.1",
        "Any batch",
        "onnx",
        _check_batch,
        _draw_batch,
        points=2,
        hints=(
            "Only one dimension is free. In which dictionary does the exporter read its name, and what does a reshape do with the batch?",
            "Write reshape(-1, 1, 28, 28) in forward, and dynamic_shapes=({0: name},) with a batch of 2 or more in the example.",
        ),
    ),
    Task(
        "4.2",
        "Any size",
        "onnx",
        _check_size,
        _draw_size,
        points=2,
        hints=(
            "Which two lines of the class know how large the maps are?",
            "Take mean and maximum over the dimensions 2 and 3 of the maps, then name the dimensions 0, 2 and 3 in dynamic_shapes.",
        ),
    ),
    Task(
        "4.3",
        "Two inputs that share a length",
        "onnx",
        _check_shared,
        _draw_shared,
        points=2,
        hints=(
            "The mask must take part in two sums: that of the values and that of the number of steps. How do its dimensions fit those of values?",
            "Give the mask a third dimension with unsqueeze(2), multiply, and divide by the sum of the mask. Use the same names at both inputs.",
        ),
    ),
    Task(
        "4.4",
        "Cure the over-specialised export",
        "onnx",
        check_reader,
        draw_reader,
        points=2,
        hints=(
            "Find the places where a size becomes a Python number. What does the loop compute, written as one sum?",
            "Step t is multiplied by decay once for each later step, the start once for each step. Make these exponents with torch.arange from x.shape[1].",
        ),
    ),
    Task(
        "4.5",
        "Make it static again",
        "onnx",
        check_static,
        draw_static,
        lambda p: {"4.5.onnx": free_model(p)},
        points=2,
        hints=(
            "Names stand at the input, at the output and in value_info. Which of them does make_dim_param_fixed reach, and what about the formula?",
            "Fix both names, delete the old value_info, and let onnx.shape_inference.infer_shapes compute it anew.",
        ),
    ),
    Task(
        "4.6",
        "Four suspects",
        "json",
        check_suspects,
        draw_suspects,
        suspects,
        points=1,
        hints=(
            "Compare what the file says about the length with what it does at other lengths. Which kind of fault gives no error?",
            "Probe each file with sizes=range(1, 65) against a module that computes the sum; the column of sizes that work ends with your number.",
        ),
    ),
)
