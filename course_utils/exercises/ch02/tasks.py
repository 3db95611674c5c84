"""Exercises of lesson 02: look up, lower, convert, heal, and prove it.

What a right answer is must not depend on the versions installed where it is given or graded. So histories are read up
to `HORIZON` only, and the runtimes to please are stated in the parameters.
"""

from __future__ import annotations

from random import Random
from typing import Any, TypeGuard

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ...lab.opsets import Edition, editions_of
from .. import Criteria, Criterion, Params, Task
from ..examine import has_io, is_sound, numpy_source, result, wants_keys
from ..handouts import x_to_y
from ..slips import Calculation, Feed, compare
from .gate_inputs import GATE
from .model_heads import (
    HORIZON,
    check_domains,
    check_ir,
    draw_domains,
    draw_ir,
    from_the_future,
    imports,
    nodes_of,
    unnamed_domain,
    used_version,
    weights_differ,
)


def _known(operator: str) -> list[Edition]:
    return [edition for edition in editions_of(operator) if edition.opset <= HORIZON]


def _is_number(value: object) -> TypeGuard[float]:
    """Whether this is a whole number; JSON may write 13 as 13.0."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1


# 2.1: look up

_NEWCOMERS = (
    "Expand Scan Where OneHot Erf NonZero MatMulInteger Mod Resize RoiAlign CumSum Range Unique ScatterND Celu Einsum "
    "Trilu HardSwish CastLike GridSample DFT LayerNormalization Mish Col2Im DeformConv Gelu AffineGrid Attention Swish"
)
_RESTLESS = (
    "Resize QuantizeLinear Pad Cast Reshape Loop ReduceSum ReduceMax Clip BatchNormalization Gemm Squeeze TopK Split"
)
_MOVED = [
    ("ReduceMean", "axes"),
    ("ReduceSum", "axes"),
    ("ReduceMax", "axes"),
    ("Squeeze", "axes"),
    ("Unsqueeze", "axes"),
    ("Clip", "min"),
    ("Pad", "pads"),
    ("Slice", "starts"),
    ("Clip", "max"),
    ("Slice", "axes"),
    ("Dropout", "ratio"),
    ("Reshape", "shape"),
]


def _draw_history(rng: Random) -> Params:
    operator, name = rng.choice(_MOVED)
    restless = rng.choice(_RESTLESS.split())
    newcomers = sorted(rng.sample(_NEWCOMERS.split(), 3))
    return {"newcomers": newcomers, "restless": restless, "moved": {"operator": operator, "name": name}}


def _check_history(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not wants_keys(answer, {"introduced", "versions", "moved"}, criteria):
        return criteria
    introduced = answer["introduced"]
    named = isinstance(introduced, dict) and sorted(introduced) == p["newcomers"]
    wrong = [hint for name in p["newcomers"] if named and (hint := _not_first(name, introduced[name]))]
    criteria.add(
        f"the opsets that brought {', '.join(p['newcomers'])}",
        named and not wrong,
        f"{3 - len(wrong)} of 3 are right. {wrong[0]}"
        if wrong
        else "introduced must be a dict with exactly these operators as keys, spelled as in the task.",
    )
    # Few operators can be drawn here: one of the two alone might be right by chance.
    versions = _versions_hint(answer["versions"], [edition.opset for edition in _known(p["restless"])])
    moved = _moved_hint(p["moved"]["operator"], p["moved"]["name"], answer["moved"])
    criteria.add(
        f"all versions of {p['restless']} up to opset {HORIZON}, and the opset in which {p['moved']['name']!r} of "
        f"{p['moved']['operator']} became an input",
        not versions and not moved,
        " ".join(f"{key}: {hint}" for key, hint in (("versions", versions), ("moved", moved)) if hint),
    )
    return criteria


def _not_first(operator: str, got: object) -> str:
    """What is wrong about the opset that is said to have brought an operator; empty when it is right."""
    versions = [edition.opset for edition in editions_of(operator)]
    if not _is_number(got):
        return f"{got!r} is not a whole number such as 13."
    if got in versions[1:]:
        return f"In opset {got} {operator} was changed; it was there before. Take the first row of its history."
    # Not which one it is: a few numbers can be tried out faster than looked up.
    return (
        ""
        if got == versions[0]
        else "In one of these opsets nothing happened to its operator: see cu.operator_history."
    )


def _versions_hint(got: object, right: list[int]) -> str:
    if not isinstance(got, list) or not all(map(_is_number, got)):
        return "It must be a list of whole numbers, such as [1, 11, 13]."
    if extra := [v for v in got if v > HORIZON]:
        return f"{extra} is newer than opset {HORIZON}, where this task ends."
    if extra := sorted(set(got) - set(right)):
        return f"In opset {extra[0]} the operator was not changed: it keeps the version it had before."
    if missing := set(right) - set(got):
        return f"{len(missing)} versions are missing. The version that the operator came with counts, too."
    return "" if got == right else "Write each version once, the oldest first."


def _moved_hint(operator: str, name: str, got: object) -> str:
    editions = editions_of(operator)
    if not _is_number(got):
        return f"{got!r} is not a whole number such as 13."
    # The direction is said of the operator's versions only: else the number would be found without looking it up.
    if got not in [edition.opset for edition in editions]:
        return f"In opset {got} nothing happened to {operator}: see cu.operator_history({operator!r})."
    right = next(edition.opset for edition in editions if name in edition.inputs)
    if got < right:
        return f"In opset {got} {name!r} is still an attribute: compare the columns inputs and attributes."
    if got > right:
        return f"In opset {got} {name!r} has been an input for a while: find the first version that has it so."
    return ""


# 2.2: the lowest opset

_UNARY = (
    "Relu Sigmoid Tanh LeakyRelu Elu Selu Softplus Softsign HardSigmoid HardSwish Gelu Mish Celu ThresholdedRelu Erf "
    "Abs Neg Softmax Sin Cos Atan Asinh Sign Shrink"
)


def _draw_chain(rng: Random) -> Params:
    stated = rng.choice([20, 21])
    while True:
        operators = rng.sample(_UNARY.split(), 5)
        born = max(editions_of(operator)[0].opset for operator in operators)
        # Where the answer is also the opset that brought the youngest operator, a wrong reasoning would pass.
        if born < max(used_version(operator, stated) for operator in operators):
            return {"operators": operators, "stated": stated}


def _chain(p: Params) -> onnx.ModelProto:
    names = ["x", *(f"t{i}" for i in range(1, len(p["operators"]))), "y"]
    nodes = [helper.make_node(op, [names[i]], [names[i + 1]], f"node_{i}") for i, op in enumerate(p["operators"])]
    return x_to_y("chain", nodes, {}, [2, 3, 4], [2, 3, 4], {"": p["stated"]})


def _check_lowest(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not wants_keys(answer, {"versions", "opset"}, criteria):
        return criteria
    said = answer["versions"]
    if not criteria.require(
        "versions names the operators of the model",
        isinstance(said, dict) and set(said) == set(p["operators"]) and all(map(_is_number, said.values())),
        f"It must be a dict with the keys {', '.join(p['operators'])}, and a whole number such as 13 for each.",
    ):
        return criteria
    used = {operator: used_version(operator, p["stated"]) for operator in p["operators"]}
    born = {operator: editions_of(operator)[0].opset for operator in used}
    newest = {operator: _known(operator)[-1].opset for operator in used}
    right = [operator for operator, version in used.items() if said[operator] == version]
    cause = (
        "These are the opsets that brought the operators. Most were changed later."
        if said == born
        else f"These are the newest versions. The model says opset {p['stated']}: it uses none that came later."
        if said == newest
        else "The model says one opset for all. Each operator has the version that came last before it, or in it."
        if set(said.values()) == {p["stated"]}
        else "Ask onnx.defs.get_schema with the operator and the opset of the file."
    )
    # The lowest opset is one of a few numbers: it counts only after the numbers that it follows from.
    if criteria.add(
        "the version of each operator that the model uses", len(right) == len(used), f"{len(right)} are right. {cause}"
    ):
        got = answer["opset"]
        lowest = _is_number(got) and got == max(used.values())
        criteria.add("the lowest opset that changes no node", lowest, _lowest_hint(got, p, used))
    return criteria


def _lowest_hint(got: object, p: Params, used: dict[str, int]) -> str:
    if not _is_number(got):
        return f"{got!r} is not a whole number such as 13."
    if got >= p["stated"]:
        return f"The model says {p['stated']} already. It can go lower."
    if got == max(editions_of(operator)[0].opset for operator in used):
        return (
            "That is when the youngest operator came. What counts is the version of each operator that the model uses."
        )
    changed = [operator for operator, version in used.items() if version > got]
    if changed:
        return f"In opset {got}, {changed[0]} has version {used_version(changed[0], int(got))}; the model uses another one."
    return f"Opset {got} changes no node, but a lower one does not either."


# 2.3: convert


def _draw_convert(rng: Random) -> Params:
    return {"target": rng.choice([13, 15, 17, 18, 19, 21]), "seed": rng.getrandbits(32), "width": rng.randint(4, 8)}


def _old_model(p: Params) -> onnx.ModelProto:
    """A model in opset 11 of which every node but two has another form, or meaning, from opset 13 or 18 on."""
    weight = np.random.default_rng(p["seed"]).normal(0, 0.7, (4, p["width"])).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["h"], "project"),
        helper.make_node("Softmax", ["h"], ["shares"], "shares", axis=1),
        helper.make_node("ReduceMean", ["h"], ["mean"], "mean", axes=[2], keepdims=0),
        helper.make_node("Unsqueeze", ["mean"], ["column"], "column", axes=[2]),
        helper.make_node("Sub", ["shares", "column"], ["y"], "difference"),
    ]
    return x_to_y("old", nodes, {"weight": weight}, ["batch", 3, 4], ["batch", 3, p["width"]], {"": 11}, ir_version=7)


def _check_convert(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria, old = Criteria(), _old_model(p)
    stated = imports(model).get("", 0)
    if not criteria.require(
        f"the file says opset {p['target']}", stated == p["target"], f"It says {stated}: your target is {p['target']}."
    ):
        return criteria
    if not criteria.require(
        "the nodes were rewritten for it",
        nodes_of(model) != nodes_of(old),
        "They are still those of opset 11: only the number was changed. Use onnx.version_converter.",
    ):
        return criteria
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    source = numpy_source(rng)
    compare(
        model,
        {
            "it computes what the given model computes": [
                {"x": source.normal(0, 2, (rows, 3, 4)).astype(np.float32)} for rows in (5, 1)
            ]
        },
        lambda feed: result(old, feed),
        _convert_slips(p),
        criteria,
        otherwise=lambda: (
            weights_differ(model, old)
            or "Compare tensor by tensor with the old model: add each one to the outputs, in both."
        ),
    )
    return criteria


def _convert_slips(p: Params) -> dict[str, Calculation]:
    (weight,) = (numpy_helper.to_array(t).astype(np.float64) for t in _old_model(p).graph.initializer)

    def with_softmax(axis: int | tuple[int, ...], mean: int | tuple[int, ...] = 2, sign: float = 1.0) -> Calculation:
        def calculate(feed: Feed) -> np.ndarray:
            h = feed["x"] @ weight
            shares = np.exp(h - h.max(axis, keepdims=True))
            shares /= shares.sum(axis, keepdims=True)
            column = h.mean(mean, keepdims=True)
            return sign * (shares - column)

        return calculate

    means = "Softmax means something else from opset 13 on"
    return {
        f"{means}: with axis=1 it sees one axis, and before it saw all from there on as one. It needs Flatten and Reshape "
        f"around it: use the converter.": with_softmax(1),
        f"{means}, and here it sees the last axis alone. Before it saw all from axis 1 on as one: use the "
        f"converter.": with_softmax(2),
        "ReduceMean takes the mean over all axes: its axes are an input from opset 18 on.": with_softmax(
            (1, 2), (0, 1, 2)
        ),
        "ReduceMean takes the mean over axis 1, not over axis 2.": with_softmax((1, 2), 1),
        "The two sides of the difference are exchanged.": with_softmax((1, 2), 2, -1.0),
    }


TASKS = (
    Task(
        "2.1",
        "Look up the history",
        "json",
        _check_history,
        _draw_history,
        points=2,
        hints=(
            "One row of cu.operator_history(operator) is one version. Which column says when it came, and which one names its inputs?",
            "A newcomer's opset is the smallest in its history. For `moved`, keep the rows whose inputs hold the name, and take the smallest opset.",
        ),
    ),
    Task(
        "2.2",
        "The lowest opset",
        "json",
        _check_lowest,
        _draw_chain,
        lambda p: {"2.2.onnx": _chain(p)},
        points=2,
        hints=(
            "An opset does not change all operators. Which version of each operator does the opset of the file choose?",
            "Ask onnx.defs.get_schema(operator, opset).since_version for each node. No version that you found may be newer than the opset you write.",
        ),
    ),
    Task(
        "2.3",
        "Convert to another opset",
        "onnx",
        _check_convert,
        _draw_convert,
        lambda p: {"2.3.onnx": _old_model(p)},
        points=1,
        hints=(
            "Between the two opsets, operators changed their form, and one changed its meaning. Which tool rewrites nodes?",
            "Call version_converter.convert_version(model, target), then run both models on the same random input and compare.",
        ),
    ),
    Task(
        "2.4",
        "An IR version from the future",
        "onnx",
        check_ir,
        draw_ir,
        lambda p: {"2.4.onnx": from_the_future(p)},
        points=1,
        hints=(
            "The IR version is a field of the file, apart from the opset. Between which two limits must it lie?",
            "Find the row of your opset in onnx.helper.VERSION_TABLE: its IR version is the lower limit, device_ir is the upper one.",
        ),
    ),
    Task(
        "2.5",
        "Name your domains",
        "onnx",
        check_domains,
        draw_domains,
        lambda p: {"2.5.onnx": unnamed_domain(p)},
        points=2,
        hints=(
            "Each domain of a node needs an entry in opset_import. Compare the two lists, then look at the history of the standard operators.",
            "Append helper.make_opsetid for the domain without an entry, and set the version of ai.onnx only after get_schema(…).since_version fits your device for each standard node.",
        ),
    ),
    GATE,
)
