"""Exercises of lesson 02: look up, lower, convert, heal.

What a right answer is must not depend on the versions installed where it is given or graded. So histories are read up
to `HORIZON` only, and the runtimes to please are stated in the parameters.
"""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..opsets import Edition, editions_of
from ..running import run, session_for
from . import Criteria, Criterion, Params, Task
from .examine import computes, has_io, is_sound, numpy_source, wants_keys
from .handouts import x_to_y

HORIZON = 24  # the newest opset of onnx 1.19, the oldest package the course allows


def _known(operator: str) -> list[Edition]:
    return [edition for edition in editions_of(operator) if edition.opset <= HORIZON]


def _used(operator: str, opset: int) -> int:
    """The version of an operator that a model with this opset uses; 0 when there is none."""
    return max((edition.opset for edition in editions_of(operator) if edition.opset <= opset), default=0)


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


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
    ("TopK", "k"),
    ("Split", "split"),
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
    if criteria.add(
        f"introduced names {', '.join(p['newcomers'])}",
        isinstance(introduced, dict) and sorted(introduced) == p["newcomers"],
        "It must be a dict with exactly these operators as keys, spelled as in the task.",
    ):
        for operator in p["newcomers"]:
            got = introduced[operator]
            criteria.add(f"the opset that brought {operator}", *_first(operator, got))
    versions, right = answer["versions"], [edition.opset for edition in _known(p["restless"])]
    wrong = _versions_hint(versions, right)
    criteria.add(f"all versions of {p['restless']} up to opset {HORIZON}", not wrong, wrong)
    criteria.add(
        f"the opset in which {p['moved']['name']!r} of {p['moved']['operator']} became an input",
        *_moved(p["moved"]["operator"], p["moved"]["name"], answer["moved"]),
    )
    return criteria


def _first(operator: str, got: object) -> tuple[bool, str]:
    versions = [edition.opset for edition in editions_of(operator)]
    if not _is_number(got):
        return False, f"{got!r} is not a whole number such as 13."
    if got in versions[1:]:
        return False, f"In opset {got} {operator} was changed; it was there before. Take the first row of its history."
    return got == versions[
        0
    ], f"Nothing happened to {operator} in opset {got}: look at cu.operator_history({operator!r})."


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


def _moved(operator: str, name: str, got: object) -> tuple[bool, str]:
    if not _is_number(got):
        return False, f"{got!r} is not a whole number such as 13."
    right = next(edition.opset for edition in editions_of(operator) if name in edition.inputs)
    if got < right:
        return False, f"In opset {got} {name!r} is still an attribute: compare the columns inputs and attributes."
    return (
        got == right,
        f"In opset {got} {name!r} has been an input for a while: find the first version that has it so.",
    )


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
        if born < max(_used(operator, stated) for operator in operators):
            return {"operators": operators, "stated": stated}


def _chain(p: Params) -> onnx.ModelProto:
    names = ["x", *(f"t{i}" for i in range(1, len(p["operators"]))), "y"]
    nodes = [helper.make_node(op, [names[i]], [names[i + 1]], f"node_{i}") for i, op in enumerate(p["operators"])]
    return x_to_y("chain", nodes, {}, [2, 3, 4], [2, 3, 4], {"": p["stated"]})


def _check_lowest(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not wants_keys(answer, {"opset", "because"}, criteria):
        return criteria
    used = {operator: _used(operator, p["stated"]) for operator in p["operators"]}
    lowest = max(used.values())
    deciding = sorted(operator for operator, version in used.items() if version == lowest)
    got, because = answer["opset"], answer["because"]
    criteria.add("the lowest opset that changes no node", _is_number(got) and got == lowest, _lowest_hint(got, p, used))
    is_list = isinstance(because, list) and all(isinstance(name, str) for name in because)
    missing = set(deciding) - set(because) if is_list else set(deciding)
    criteria.add(
        "the operators that forbid a lower one",
        is_list and sorted(because) == deciding,
        "It must be a list of operator names."
        if not is_list
        else "An operator is missing: every one whose version is the opset you found belongs to the list."
        if missing
        else "An operator too many: only those whose version is the opset you found belong to the list.",
    )
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
        return f"In opset {got}, {changed[0]} has version {_used(changed[0], got)}; the model uses another one."
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
    imports = {o.domain: o.version for o in model.opset_import}
    stated = imports.get("", imports.get("ai.onnx", 0))
    if not criteria.add(
        f"the file says opset {p['target']}", stated == p["target"], f"It says {stated}: your target is {p['target']}."
    ):
        return criteria
    if not criteria.add(
        "the nodes were rewritten for it",
        _nodes(model) != _nodes(old),
        "They are still those of opset 11: only the number was changed. Use onnx.version_converter.",
    ):
        return criteria
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    feed = {"x": numpy_source(rng).normal(0, 2, (5, 3, 4)).astype(np.float32)}
    expected = next(iter(run(session_for(old), feed).values()))
    hint = _weights_differ(model, old) or (
        "Softmax means something else from opset 13 on, and needs Flatten and Reshape around it: use the converter."
    )
    computes(model, feed, expected, criteria, "it computes what the given model computes", hint)
    return criteria


# 2.4: an IR version from the future


def _draw_ir(rng: Random) -> Params:
    opset = rng.randint(15, 21)
    oldest = _ir_of(opset)
    return {
        "opset": opset,
        "ir_version": rng.randint(30, 60),
        "device_ir": oldest + rng.randint(0, 2),
        "seed": rng.getrandbits(32),
    }


def _ir_of(opset: int) -> int:
    """The IR version that came with an opset."""
    return helper.OP_SET_ID_VERSION_MAP["ai.onnx", opset]


def _from_the_future(p: Params) -> onnx.ModelProto:
    draw = np.random.default_rng(p["seed"])
    weight, bias = draw.normal(0, 0.5, (4, 3)).astype(np.float32), draw.normal(0, 1, 3).astype(np.float32)
    nodes = [
        helper.make_node("Gemm", ["x", "weight", "bias"], ["h"], "linear"),
        helper.make_node("Softmax", ["h"], ["y"], "shares", axis=-1),
    ]
    weights = {"weight": weight, "bias": bias}
    opsets = {"": p["opset"]}
    return x_to_y("future", nodes, weights, ["batch", 4], ["batch", 3], opsets, ir_version=p["ir_version"])


def _check_ir(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria, given = Criteria(), _from_the_future(p)
    criteria.add(
        f"the IR version is one the device loads, {p['device_ir']} or older",
        model.ir_version <= p["device_ir"],
        f"It is {model.ir_version}, and the device says: Unsupported model IR version: {model.ir_version}.",
    )
    oldest = _ir_of(p["opset"])
    criteria.add(
        "the IR version is not older than the opset",
        model.ir_version >= oldest,
        f"IR {model.ir_version} is older than opset {p['opset']}, which came with IR {oldest}.",
    )
    criteria.add(
        f"the opset is still {p['opset']}",
        {o.domain: o.version for o in model.opset_import} == {"": p["opset"]},
        "The opset was not the trouble: the message names the IR version. Change ir_version alone.",
    )
    if not _same_graph(model, given, criteria) or not is_sound(model, criteria):
        return criteria
    feed = {"x": numpy_source(rng).normal(0, 2, (6, 4)).astype(np.float32)}
    given.ir_version = oldest
    expected = next(iter(run(session_for(given), feed).values()))
    computes(model, feed, expected, criteria, "it gives the numbers of the given model", "Start from the given file.")
    return criteria


# 2.5: two dictionaries

_STANDARD = "Relu Sigmoid Tanh LeakyRelu Erf Abs Softmax"  # unchanged from opset 16 to HORIZON


def _draw_domains(rng: Random) -> Params:
    return {
        "operators": rng.sample(_STANDARD.split(), 3),
        "foreign": rng.choice(["Gelu", "QuickGelu", "FastGelu"]),
        "device_opset": rng.randint(17, 22),
        "seed": rng.getrandbits(32),
    }


def _unnamed_domain(p: Params) -> onnx.ModelProto:
    scale = np.random.default_rng(p["seed"]).normal(0, 1, 4).astype(np.float32)
    names = ["scaled", "t1", "t2", "t3", "y"]
    chain = [(p["operators"][0], ""), (p["foreign"], "com.microsoft"), *((op, "") for op in p["operators"][1:])]
    nodes = [helper.make_node("Mul", ["x", "scale"], ["scaled"], "scale_input")] + [
        helper.make_node(op, [names[i]], [names[i + 1]], f"node_{i}", domain=domain)
        for i, (op, domain) in enumerate(chain)
    ]
    return x_to_y("two_domains", nodes, {"scale": scale}, ["batch", 4], ["batch", 4], {"": HORIZON})


def _check_domains(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria, given = Criteria(), _unnamed_domain(p)
    imports = [(o.domain, o.version) for o in model.opset_import]
    versions = dict(imports)
    criteria.add(
        "com.microsoft is named, with its opset 1",
        versions.get("com.microsoft") == 1,
        f"It is named with opset {versions['com.microsoft']}, and ONNX Runtime has 1 only."
        if "com.microsoft" in versions
        else f"No opset_import names it, and {p['foreign']} is from there: onnx.checker says what is missing.",
    )
    stated = versions.get("", 0)
    criteria.add(
        f"ai.onnx has an opset the device loads, {p['device_opset']} or older",
        0 < stated <= p["device_opset"],
        f"It is {stated}, and the device says: official support for domain ai.onnx is till opset {p['device_opset']}.",
    )
    used = {op: _used(op, HORIZON) for op in ("Mul", *p["operators"])}
    changed = [op for op, version in used.items() if _used(op, stated) != version]
    criteria.add(
        "every standard node means what it meant",
        not changed,
        f"In opset {stated}, {', '.join(changed)} would have another version than in opset {HORIZON}: not so low.",
    )
    criteria.add(
        "each domain is named once, and no other",
        len(imports) == len(versions) and set(versions) <= {"", "com.microsoft"},
        f"The list is {imports}: change the entry that is there instead of adding another one.",
    )
    if not _same_graph(model, given, criteria) or not is_sound(model, criteria):
        return criteria
    feed = {"x": numpy_source(rng).normal(0, 2, (6, 4)).astype(np.float32)}
    given.opset_import[0].version = max(used.values())
    given.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    expected = next(iter(run(session_for(given), feed).values()))
    computes(model, feed, expected, criteria, "it gives the numbers of the given model", "Start from the given file.")
    return criteria


# What the tasks share


def _nodes(model: onnx.ModelProto) -> list[tuple]:
    """The nodes as far as they matter for the result: names and notes left out."""
    return [
        (
            node.domain,
            node.op_type,
            tuple(node.input),
            tuple(node.output),
            tuple(sorted(a.SerializeToString(deterministic=True) for a in node.attribute)),
        )
        for node in model.graph.node
    ]


def _weights_differ(model: onnx.ModelProto, given: onnx.ModelProto) -> str:
    """A sentence naming the first weight of the given model that is missing or has other values; empty when none."""
    got = {t.name: t for t in model.graph.initializer}
    for tensor in given.graph.initializer:
        if tensor.name not in got:
            return f"The weight {tensor.name!r} is missing."
        if got[tensor.name].data_location == TensorProto.EXTERNAL:
            return f"The weight {tensor.name!r} lies in another file: save the model in one file."
        old, new = numpy_helper.to_array(tensor), numpy_helper.to_array(got[tensor.name])
        if old.dtype != new.dtype or not np.array_equal(old, new):
            return f"The weight {tensor.name!r} has other values than in the given model."
    return ""


def _same_graph(model: onnx.ModelProto, given: onnx.ModelProto, criteria: Criteria) -> bool:
    """Add: nodes, weights, inputs and outputs are the given ones, so that only the file's head was changed."""
    before, after = _nodes(given), _nodes(model)
    odd = [node[1] for node in after if node not in before] or [node[1] for node in before if node not in after]
    same = criteria.add(
        "the nodes are the given ones",
        before == after and not model.functions,
        f"The graph was changed{' at ' + odd[0] if odd else ''}: load the given file, and change only its head.",
    )
    wrong = _weights_differ(model, given)
    if not wrong and len(model.graph.initializer) != len(given.graph.initializer):
        wrong = "There are more weights than in the given model."
    same &= criteria.add("the weights are the given ones", not wrong, wrong)
    return same and has_io(model, {"x": "float"}, {"y": "float"}, criteria)


TASKS = (
    Task("2.1", "Look up the history", "json", _check_history, _draw_history),
    Task("2.2", "The lowest opset", "json", _check_lowest, _draw_chain, lambda p: {"2.2.onnx": _chain(p)}),
    Task(
        "2.3", "Convert to another opset", "onnx", _check_convert, _draw_convert, lambda p: {"2.3.onnx": _old_model(p)}
    ),
    Task(
        "2.4", "An IR version from the future", "onnx", _check_ir, _draw_ir, lambda p: {"2.4.onnx": _from_the_future(p)}
    ),
    Task(
        "2.5",
        "Name your dictionaries",
        "onnx",
        _check_domains,
        _draw_domains,
        lambda p: {"2.5.onnx": _unnamed_domain(p)},
    ),
)
