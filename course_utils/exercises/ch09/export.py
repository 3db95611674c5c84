"""The hospital: what an export froze. A branch, and layers that are still in training."""

from __future__ import annotations

import json
from functools import lru_cache, partial
from random import Random

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

from ...running import run, session_for
from .. import Criteria, Criterion, Params, Task
from ..examine import has_io, is_sound, numpy_source, result
from ..slips import Calculation, Feed, outcomes, same, slip_made
from .hospital import ATOL, RTOL, judged, patient

node = helper.make_node


# 9.6: the wrong branch is baked in


def _draw_branch(rng: Random) -> Params:
    return {
        "threshold": rng.choice([-1, 1]) * rng.choice([0.4, 0.5, 0.6, 0.8]),
        "features": rng.choice([4, 5, 6]),
        "seed": rng.getrandbits(32),
    }


def _branches(p: Params) -> dict[str, onnx.ModelProto]:
    """The same program, traced twice: with inputs above the threshold, and with inputs below it."""
    draw, n = np.random.default_rng(p["seed"]), p["features"]
    sizes = {"batch": ["batch", n], "y": ["batch", 3]}
    above = patient(
        "above",
        [node("MatMul", ["x", "weight"], ["h"], "product"), node("Tanh", ["h"], ["y"], "activation")],
        {"weight": draw.normal(0, 1, (n, 3))},
        sizes["batch"],
        sizes["y"],
    )
    below = patient(
        "below",
        [node("Neg", ["x"], ["h"], "negative"), node("Gemm", ["h", "weight", "bias"], ["y"], "product")],
        {"weight": draw.normal(0, 1, (n, 3)), "bias": draw.normal(0, 1, 3)},
        sizes["batch"],
        sizes["y"],
    )
    return {"9.6_above.onnx": above, "9.6_below.onnx": below}


@lru_cache(maxsize=1)
def _sessions(key: str) -> list[ort.InferenceSession]:
    """Of both branches: they are asked for each input, and for each slip."""
    return [session_for(model, optimize=False) for model in _branches(json.loads(key)).values()]


def _by_rule(p: Params, x: np.ndarray, rule: str = "") -> np.ndarray:
    above, below = (run(session, {"x": x})["y"] for session in _sessions(json.dumps(p)))
    if rule == "by row":
        return np.where(x.mean(1, keepdims=True) > p["threshold"], above, below)
    if rule == "by value":
        return np.where(np.float32(x[:, :1]) > p["threshold"], above, below)
    takes_first = {
        "above": True,
        "below": False,
        "largest": x.max() > p["threshold"],
        "smallest": x.min() > p["threshold"],
        "median": np.median(x) > p["threshold"],
        "first row": x[0].mean() > p["threshold"],
        "swapped": x.mean() <= p["threshold"],
        "zero": x.mean() > 0,
        "sum": x.sum() > p["threshold"],
        "sign": x.mean() > -p["threshold"],
    }.get(rule, x.mean() > p["threshold"])
    return above if takes_first else below


_BAKED_IN = {
    "above": "It always computes what stands above the threshold: that branch is baked in. The graph needs both, and an If.",
    "below": "It always computes what stands below the threshold: that branch is baked in. The graph needs both, and an If.",
}
_BRANCH_CAUSES = {
    "swapped": "The branches are swapped: then_branch is for a mean above the threshold.",
    "zero": "The mean is compared with 0: compare it with the threshold.",
    "sign": "The threshold has the wrong sign.",
    "sum": "The sum is compared with the threshold: it is the mean.",
    "largest": "The largest number is compared with the threshold: it is the mean.",
    "smallest": "The smallest number is compared with the threshold: it is the mean.",
    "median": "The median is compared with the threshold: it is the mean.",
    "first row": "The mean of the first row decides: the program takes one mean over all numbers of x.",
    "by row": "Each row decides for itself: the program takes one mean over all numbers of x.",
    "by value": "The first number of each row decides: the program takes one mean over all numbers of x.",
}


def _check_branch(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    feeds = _branch_feeds(p, numpy_source(rng))

    def by(rule: str = "") -> Calculation:
        return lambda feed: _by_rule(p, feed["x"], rule)

    baked_in = slip_made(
        outcomes(model, [*feeds.values()]), {text: by(rule) for rule, text in _BAKED_IN.items()}, ATOL, RTOL
    )
    if not criteria.require("both branches are alive", not baked_in, baked_in):
        return criteria
    judged(
        model,
        {f"it does what the program does, for {place}": [feed] for place, feed in feeds.items()},
        by(),
        {text: by(rule) for rule, text in _BRANCH_CAUSES.items()},
        criteria,
        otherwise="Each branch must compute what the model that was handed out computes.",
    )
    return criteria


def _branch_feeds(p: Params, source: np.random.Generator) -> dict[str, Feed]:
    """Inputs by what they are, so chosen that no two of the causes give the same results for all of them."""
    t, feeds = p["threshold"], {}
    for place, target, spread in (
        ("a mean above the threshold", t + 0.2, 1.0),
        ("a mean below the threshold", t - 0.2, 1.0),
        ("a mean between zero and the threshold", t / 100, 1.0),
        ("a mean near zero, of the other sign", -t / 2, 1.0),
        ("a mean far away, of the other sign", -1.5 * t, 1.0),
        ("numbers that are all above the threshold", t + 0.2, 0.02),
        ("numbers that are all below the threshold", t - 0.2, 0.02),
    ):
        x = source.normal(0, spread, (int(source.integers(3, 9)), p["features"]))
        feeds[place] = {"x": (x - x.mean() + target).astype(np.float32)}
    for place, row, value in (("a mean that a few numbers raise", -1, 2.0), ("a first row unlike the others", 0, 0.2)):
        x = np.full((5, p["features"]), t - 0.1)
        x[row] = t + value
        feeds[place] = {"x": x.astype(np.float32)}
    return feeds


# 9.7: exported in training mode


def _draw_training(rng: Random) -> Params:
    return {"ratio": rng.choice([0.3, 0.4, 0.5]), "width": rng.choice([5, 6, 7]), "seed": rng.getrandbits(32)}


def _layers(p: Params, *, norm: str, dropout: str) -> onnx.ModelProto:
    """norm: training, inference, or none. dropout: training, inference, scaled or shrunk (two mistakes)."""
    draw, width = np.random.default_rng(p["seed"]), p["width"]
    weights: dict[str, np.ndarray] = {
        "weight1": draw.normal(0, 1, (4, width)),
        "scale": draw.uniform(0.5, 2, (width,)),
        "shift": draw.normal(0, 1, (width,)),
        "mean": draw.normal(0, 1, (width,)),
        "variance": draw.uniform(1, 6, (width,)),
        "ratio": np.array(p["ratio"]),
        "training": np.array(dropout == "training"),
        "kept": np.array((1 - p["ratio"]) ** (1 if dropout == "shrunk" else -1)),
        "weight2": draw.normal(0, 1, (width, 3)),
    }
    inputs, outputs = ["h", "scale", "shift", "mean", "variance"], ["n"]
    if norm == "training":
        outputs += ["new_mean", "new_variance"]
    nodes = [
        node("MatMul", ["x", "weight1"], ["h"], "layer1"),
        node("Identity", ["h"], ["n"], "norm")
        if norm == "none"
        else node("BatchNormalization", inputs, outputs, "norm", training_mode=int(norm == "training")),
        node("Relu", ["n"], ["a"], "activation"),
        node("MatMul", ["a", "weight2"], ["s"], "layer2"),
        node("Mul", ["s", "kept"], ["y"], "dropout")
        if dropout in ("scaled", "shrunk")
        else node("Dropout", ["s", "ratio", "training"], ["y"], "dropout"),
    ]
    read = {name for n in nodes for name in n.input}
    weights = {name: value for name, value in weights.items() if name in read}
    return patient("layers", nodes, weights, ["batch", 4], ["batch", 3])


def _in_training(p: Params) -> onnx.ModelProto:
    return _layers(p, norm="training", dropout="training")


def _check_training(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    lists = [n for n in model.graph.node if n.op_type == "BatchNormalization" and len(n.output) > 1]
    modes = [
        helper.get_node_attr_value(n, "training_mode")
        for n in lists
        if any(a.name == "training_mode" for a in n.attribute)
    ]
    if not criteria.require(
        "BatchNormalization has as many outputs as its mode allows",
        len(lists) == sum(modes),
        "Outside of training it has one output: take new_mean and new_variance away.",
    ):
        return criteria
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    x = numpy_source(rng).normal(0, 1, (24, 4)).astype(np.float32)
    # As it stands in the file: the optimiser takes a Dropout out, unless it is last.
    first, second = outcomes(model, [{"x": x}, {"x": x}])
    if first.got is None or second.got is None:
        criteria.require("it runs", False, first.said or second.said)
        return criteria
    criteria.require(
        "two runs give the same numbers",
        same(first.got, second.got, ATOL, RTOL),
        "They differ: Dropout is still switched on, and sets values to zero at random. Its third input says so.",
    )
    # Several rows: a Dropout may by chance do the same to one row twice.
    alone = [o.got for o in outcomes(model, [{"x": x[i : i + 1]} for i in range(12)])]
    by_batch = any(
        n.op_type == "BatchNormalization" and any(a.name == "training_mode" and a.i for a in n.attribute)
        for n in model.graph.node
    )
    depends = not all(same(got, first.got[i : i + 1], ATOL, RTOL) for i, got in enumerate(alone))
    criteria.require(
        "a row's result does not depend on the rows beside it",
        not depends,
        "It does: BatchNormalization is in training mode, and takes mean and variance from the batch that is fed."
        if by_batch
        else "It does, because two runs differ: mend Dropout first.",
    )
    if not criteria.require(
        "no layer is left in training mode",
        not _trains(model),
        "A ratio of 0 hides it, and the mode is still training: set the third input of Dropout to false, or take the node out.",
    ):
        return criteria

    healed = partial(_layers, p, norm="inference")
    judged(
        model,
        {"it computes what PyTorch computes after model.eval()": [{"x": x}]},
        partial(result, healed(dropout="inference")),
        {
            "BatchNormalization is gone altogether. It must stay, with the mean and variance that are stored.": partial(
                result, _layers(p, norm="none", dropout="inference")
            ),
            "What Dropout kept is still made larger, by 1 / (1 - ratio): outside of training it changes nothing.": partial(
                result, healed(dropout="scaled")
            ),
            "The values are made smaller, by 1 - ratio: outside of training Dropout changes nothing.": partial(
                result, healed(dropout="shrunk")
            ),
        },
        criteria,
        otherwise="Outside of training Dropout changes nothing, and BatchNormalization uses the stored mean and variance.",
    )
    return criteria


def _trains(model: onnx.ModelProto) -> bool:
    """Whether a Dropout in the main graph has a third input that is stored as true."""
    stored = {t.name: t for t in model.graph.initializer}
    stored |= {
        n.output[0]: a.t for n in model.graph.node if n.op_type == "Constant" for a in n.attribute if a.name == "value"
    }
    switches = [n.input[2] for n in model.graph.node if n.op_type == "Dropout" and len(n.input) > 2]
    return any(name in stored and bool(onnx.numpy_helper.to_array(stored[name]).any()) for name in switches)


BRANCH = Task(
    "9.6",
    "The wrong branch is baked in",
    "onnx",
    _check_branch,
    _draw_branch,
    _branches,
    (
        "Feed both models inputs with a large and with a small mean. Does either of them ever do something else?",
        "Each file holds one branch, and the condition stands in neither. Which operator of ONNX chooses between two graphs? "
        "Mind that both models use the same names.",
        "ReduceMean over all axes (keepdims=0), Greater with the threshold, then If with the two graphs as then_branch and "
        "else_branch. A branch has no inputs: it sees x of the main graph. Its output needs a name of its own.",
    ),
    points=9,
)
TRAINING = Task(
    "9.7",
    "Exported in training mode",
    "onnx",
    _check_training,
    _draw_training,
    lambda p: {"9.7.onnx": _in_training(p)},
    (
        "Feed the same rows twice. Then feed a row alone, and among others. There are two illnesses here.",
        "Two kinds of layers know whether they are in training: one by an input, the other by an attribute.",
        "Dropout: set the stored tensor training to False, or take the node out. BatchNormalization: training_mode=0, and "
        "only its first output stays.",
    ),
    points=1,
)
