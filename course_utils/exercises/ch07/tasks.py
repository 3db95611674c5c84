"""Exercises of lesson 07: quantize by hand, make a network int8, rescue one, read a calibration, four bits, choose, a sentence encoder."""

from __future__ import annotations

from random import Random

import numpy as np
import onnx
from onnx import helper

from ...errors import CourseError
from ...lab.graphs import operator_counts
from ...running import run, session_for
from .. import Criteria, Criterion, Params, Task
from ..examine import has_io, is_small, is_sound, numpy_source
from ..handouts import x_to_y
from .budgets import check_budgets, draw_budgets, six_files
from .by_hand import calibrated, check_by_hand, check_readers, draw_by_hand, draw_readers
from .network import check_rescue, check_small, draw_rescue, draw_small, network, sick
from .sentences import check_encoder, draw_encoder, given_projection

# 7.5: four bits

_IN, _MID, _OUT = 256, 256, 64
_OTHER_MODEL = 0.6  # of the result: no way to four bits loses so much


def _draw_four(rng: Random) -> Params:
    # Each budget fits one size of blocks, in the asymmetric way; the next size on either side misses it.
    error, most_bytes = rng.choice([(0.118, 66_000), (0.148, 54_000), (0.188, 48_000)])
    return {"seed": rng.getrandbits(32), "error": error, "most_bytes": most_bytes}


def _two_products(p: Params) -> onnx.ModelProto:
    draw = np.random.default_rng(p["seed"])
    weights = {"first": draw.normal(0, 1 / 16, (_IN, _MID)), "second": draw.normal(0, 1 / 16, (_MID, _OUT))}
    for values in weights.values():
        wide = draw.random(values.shape) < 0.01
        values[wide] *= 6  # one weight in a hundred is large, and decides for its block
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"], "product1"),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("MatMul", ["b", "second"], ["y"], "product2"),
    ]
    return x_to_y(
        "products",
        nodes,
        {n: v.astype(np.float32) for n, v in weights.items()},
        ["batch", _IN],
        ["batch", _OUT],
        {"": 17},
    )


def _check_four(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    operators = operator_counts(model)
    products = [n for n in model.graph.node if n.op_type == "MatMulNBits"]
    bits = {a.i for n in products for a in n.attribute if a.name == "bits"}
    if not criteria.require(
        "both products are MatMulNBits, and no other is left",
        _stored_shapes(model) == [(_IN, _MID), (_MID, _OUT)]
        and not {"MatMul", "Gemm", "MatMulInteger"} & set(operators),
        f"The graph has {operators}. {_products_cause(operators)}",
    ) or not criteria.require("they have 4 bits", bits <= {4}, f"They have {sorted(bits)}: give bits=4."):
        return criteria
    x = numpy_source(rng).normal(0, 1, (64, _IN)).astype(np.float32)
    what = "it is the model that was handed out to you"
    try:
        got = run(session_for(model), {"x": x})["y"]
    except CourseError as error:
        criteria.require(what, False, str(error))
        return criteria
    expected = run(session_for(_two_products(p)), {"x": x})["y"]
    if got.shape != expected.shape:
        criteria.require(what, False, f"The result has shape {list(got.shape)}, expected {list(expected.shape)}.")
        return criteria
    off = float(np.sqrt(np.mean((got.astype(np.float64) - expected) ** 2) / np.mean(expected.astype(np.float64) ** 2)))
    differs = f"It differs by {off:.1%}."
    if not criteria.require(what, off <= _OTHER_MODEL, f"{differs} That is another model: start from yours."):
        return criteria
    few = "Each block has a scale of its own: with larger blocks there are fewer of them."
    is_small(model, p["most_bytes"], criteria, few)
    cause = "One large weight decides for its whole block: make the blocks smaller."
    if any(len(n.input) < 4 or not n.input[3] for n in products):
        cause = "There are no zero points. The asymmetric way uses all 16 integers: is_symmetric=False."
    what = f"the result differs by at most {p['error']:.1%} (root mean square)"
    criteria.add(what, off <= p["error"], f"{differs} {cause}")
    return criteria


def _stored_shapes(model: onnx.ModelProto) -> list[tuple[int, int]]:
    """Rows and columns of each matrix that a MatMulNBits reads from the file, each matrix once."""
    stored, found = {t.name for t in model.graph.initializer}, {}
    for node in model.graph.node:
        if node.op_type == "MatMulNBits" and len(node.input) > 1 and node.input[1] in stored:
            size = {a.name: a.i for a in node.attribute}
            found[node.input[1]] = (size.get("K", 0), size.get("N", 0))
    return list(found.values())


def _products_cause(operators: dict[str, int]) -> str:
    if "com.microsoft::MatMulNBits" in operators:
        return f"Each of the two has its own weights in the file: {_IN} × {_MID} and {_MID} × {_OUT} numbers."
    if "DequantizeLinear" in operators:
        return "quant_format=QDQ leaves a MatMul behind DequantizeLinear: take QOperator, the default."
    if "MatMulInteger" in operators:
        return "MatMulInteger comes from quantize_dynamic, with 8 bits."
    return "Give your model to MatMulNBitsQuantizer, and call process()."


TASKS = (
    Task(
        "7.1",
        "Quantize by hand",
        "json",
        check_by_hand,
        draw_by_hand,
        points=3,
        hints=(
            "What is one step, and which integer stands for 0.0? Lesson 07 computes both from low and high.",
            "256 integers have 255 steps between them; the zero point is -low / scale, rounded to a whole number.",
            "Round value / scale with np.rint, add the zero point, clip to uint8. Then back is scale * (integer - zero point).",
        ),
    ),
    Task(
        "7.2",
        "Small and right",
        "onnx",
        check_small,
        draw_small,
        lambda p: {"7.2.onnx": network(p["order"])},
        points=2,
        hints=(
            "Static quantization measures ranges before it writes a file. Which data must it see, and what must be done to it first?",
            "Give quantize_static a cu.Calibration with cu.normalize(pictures), activation_type=QuantType.QUInt8 and per_channel=True, and exclude no node.",
        ),
    ),
    Task(
        "7.3",
        "Rescue",
        "onnx",
        check_rescue,
        draw_rescue,
        lambda p: {"7.3.onnx": sick(p)},
        points=1,
        hints=(
            "Where does the error begin? Collect the activations of both models with debug, and go through the graph from the input on.",
            "The first tensor with a low xmodel_err is written by a convolution that reads the damaged tensor. Which convolution stands before it?",
            "Pass the names of these two neighbouring convolutions as nodes_to_exclude; with only one of them the wide tensor stays quantized.",
        ),
    ),
    Task(
        "7.4",
        "What was it calibrated with?",
        "json",
        check_readers,
        draw_readers,
        calibrated,
        points=2,
        hints=(
            "Which real number does the integer 0 stand for, and which one the integer 255? Compute both for each model.",
            "The upper end is scale * (255 - zero point), the lower end is -scale * zero point. That is all for `largest`.",
            "For the readers, compute the smallest and the largest value that each row of the table can give, and compare with both ends.",
        ),
    ),
    Task(
        "7.5",
        "Four bits",
        "onnx",
        _check_four,
        _draw_four,
        lambda p: {"7.5.onnx": _two_products(p)},
        points=2,
        hints=(
            "What does a block store besides its weights, and what does one large weight do to the scale of its block? The deeper page on language models says what a block is.",
            "Smaller blocks lower the error, larger ones lower the bytes. Use is_symmetric=False, try each size on a fresh copy, and print both numbers.",
        ),
    ),
    Task(
        "7.6",
        "Choose under budgets",
        "json",
        check_budgets,
        draw_budgets,
        six_files,
        points=2,
        hints=(
            "Which limit can be read off the file, which one needs the graph that runs, and which one needs pictures? Begin with the table of facts.",
            "The largest file is the float32 one: its logits and its accuracy are what the others are compared with.",
            "For each use, go through its limits one by one and cross out the letters that break it. One letter stays; a small file with a low accuracy is never it.",
        ),
    ),
    Task(
        "7.7",
        "A sentence encoder for a download",
        "onnx",
        check_encoder,
        draw_encoder,
        given_projection,
        points=2,
        hints=(
            "First make the float model right: compare it with NumPy, for several sentences of different length at once. Then make it small.",
            "Words that are padding must not count: multiply by the mask, sum over the words, and divide by the sum of the mask.",
            "The page on language models compares five files of this encoder. The one that fits both budgets quantizes all operators, with a scale per channel.",
        ),
    ),
)
