"""Tasks 2.1 and 2.2: which opset brought an operator, changed it, or is the lowest that a model can state."""

from __future__ import annotations

from random import Random
from typing import Any

import onnx
from onnx import helper

from ...lab.opsets import Edition, editions_of
from .. import Criteria, Criterion, Params
from ..examine import wants_keys, whole
from ..handouts import x_to_y
from .model_heads import HORIZON, used_version

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


def draw_history(rng: Random) -> Params:
    """Personal parameters of 2.1."""
    operator, name = rng.choice(_MOVED)
    restless = rng.choice(_RESTLESS.split())
    newcomers = sorted(rng.sample(_NEWCOMERS.split(), 3))
    return {"newcomers": newcomers, "restless": restless, "moved": {"operator": operator, "name": name}}


def check_history(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    """The check of 2.1."""
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
    opset = whole(got)
    if opset is None:
        return f"{got!r} is not a whole number such as 13."
    if opset in versions[1:]:
        return f"In opset {opset} {operator} was changed; it was there before. Take the first row of its history."
    # Not which one it is: a few numbers can be tried out faster than looked up.
    return (
        ""
        if opset == versions[0]
        else "In one of these opsets nothing happened to its operator: see cu.operator_history."
    )


def _versions_hint(got: object, right: list[int]) -> str:
    opsets = [n for v in got if (n := whole(v)) is not None] if isinstance(got, list) else []
    if not isinstance(got, list) or len(opsets) < len(got):
        return "It must be a list of whole numbers, such as [1, 11, 13]."
    if extra := [v for v in opsets if v > HORIZON]:
        return f"{extra} is newer than opset {HORIZON}, where this task ends."
    if extra := sorted(set(opsets) - set(right)):
        return f"In opset {extra[0]} the operator was not changed: it keeps the version it had before."
    if missing := set(right) - set(opsets):
        return f"{len(missing)} versions are missing. The version that the operator came with counts, too."
    return "" if opsets == right else "Write each version once, the oldest first."


def _moved_hint(operator: str, name: str, got: object) -> str:
    editions, opset = editions_of(operator), whole(got)
    if opset is None:
        return f"{got!r} is not a whole number such as 13."
    # The direction is said of the operator's versions only: else the number would be found without looking it up.
    if opset not in [edition.opset for edition in editions]:
        return f"In opset {opset} nothing happened to {operator}: see cu.operator_history({operator!r})."
    right = next(edition.opset for edition in editions if name in edition.inputs)
    if opset < right:
        return f"In opset {opset} {name!r} is still an attribute: compare the columns inputs and attributes."
    if opset > right:
        return f"In opset {opset} {name!r} has been an input for a while: find the first version that has it so."
    return ""


# 2.2: the lowest opset

_UNARY = (
    "Relu Sigmoid Tanh LeakyRelu Elu Selu Softplus Softsign HardSigmoid HardSwish Gelu Mish Celu ThresholdedRelu Erf "
    "Abs Neg Softmax Sin Cos Atan Asinh Sign Shrink"
)


def draw_chain(rng: Random) -> Params:
    """Personal parameters of 2.2."""
    stated = rng.choice([20, 21])
    while True:
        operators = rng.sample(_UNARY.split(), 5)
        born = max(editions_of(operator)[0].opset for operator in operators)
        # Where the answer is also the opset that brought the youngest operator, a wrong reasoning would pass.
        if born < max(used_version(operator, stated) for operator in operators):
            return {"operators": operators, "stated": stated}


def chain(p: Params) -> onnx.ModelProto:
    """The model of 2.2: five operators, one behind the other."""
    names = ["x", *(f"t{i}" for i in range(1, len(p["operators"]))), "y"]
    nodes = [helper.make_node(op, [names[i]], [names[i + 1]], f"node_{i}") for i, op in enumerate(p["operators"])]
    return x_to_y("chain", nodes, {}, [2, 3, 4], [2, 3, 4], {"": p["stated"]})


def check_lowest(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    """The check of 2.2."""
    criteria = Criteria()
    if not wants_keys(answer, {"versions", "opset"}, criteria):
        return criteria
    said = answer["versions"]
    if not criteria.require(
        "versions names the operators of the model",
        isinstance(said, dict)
        and set(said) == set(p["operators"])
        and all(whole(v) is not None for v in said.values()),
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
        hint = _lowest_hint(answer["opset"], p, used)
        criteria.add("the lowest opset that changes no node", not hint, hint)
    return criteria


def _lowest_hint(got: object, p: Params, used: dict[str, int]) -> str:
    opset = whole(got)
    if opset is None:
        return f"{got!r} is not a whole number such as 13."
    if opset == max(used.values()):
        return ""
    if opset >= p["stated"]:
        return f"The model says {p['stated']} already. It can go lower."
    if opset == max(editions_of(operator)[0].opset for operator in used):
        return (
            "That is when the youngest operator came. What counts is the version of each operator that the model uses."
        )
    changed = [operator for operator, version in used.items() if version > opset]
    if changed:
        return (
            f"In opset {opset}, {changed[0]} has version {used_version(changed[0], opset)}; the model uses another one."
        )
    return f"Opset {opset} changes no node, but a lower one does not either."


def _known(operator: str) -> list[Edition]:
    return [edition for edition in editions_of(operator) if edition.opset <= HORIZON]
