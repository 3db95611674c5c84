"""Tasks 2.4 and 2.5: models whose graph is sound, and whose head (IR version, opset imports) is not."""

from __future__ import annotations

from random import Random

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ...lab.graphs import type_text
from ...lab.opsets import editions_of
from .. import Criteria, Criterion, Params
from ..examine import is_sound
from ..handouts import x_to_y

HORIZON = 24  # the newest opset of onnx 1.19, the oldest package the course allows


def used_version(operator: str, opset: int) -> int:
    """The version of an operator that a model with this opset uses; 0 when there is none."""
    return max((edition.opset for edition in editions_of(operator) if edition.opset <= opset), default=0)


# 2.4: an IR version from the future


def draw_ir(rng: Random) -> Params:
    """Personal parameters of 2.4."""
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


def from_the_future(p: Params) -> onnx.ModelProto:
    """A sound model that says it was written in a format that does not exist yet."""
    draw = np.random.default_rng(p["seed"])
    weight, bias = draw.normal(0, 0.5, (4, 3)).astype(np.float32), draw.normal(0, 1, 3).astype(np.float32)
    nodes = [
        helper.make_node("Gemm", ["x", "weight", "bias"], ["h"], "linear"),
        helper.make_node("Softmax", ["h"], ["y"], "shares", axis=-1),
    ]
    weights = {"weight": weight, "bias": bias}
    opsets = {"": p["opset"]}
    return x_to_y("future", nodes, weights, ["batch", 4], ["batch", 3], opsets, ir_version=p["ir_version"])


def check_ir(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    """The check of 2.4."""
    criteria, given = Criteria(), from_the_future(p)
    oldest, got = _ir_of(p["opset"]), model.ir_version
    criteria.add(
        f"the device loads its IR version ({p['device_ir']} or older), which is not older than the opset",
        oldest <= got <= p["device_ir"],
        f"IR {got} is older than opset {p['opset']}, which came with IR {oldest}."
        if got < oldest
        else f"It is {got}, and the device says: Unsupported model IR version: {got}.",
    )
    criteria.require(
        f"the opset is still {p['opset']}",
        imports(model) == {"": p["opset"]},
        "The opset was not the trouble: the message names the IR version. Change ir_version alone.",
    )
    if is_sound(model, criteria):
        _is_given(model, given, criteria)
    return criteria


# 2.5: two domains

_STANDARD = "Relu Sigmoid Tanh LeakyRelu Erf Abs Softmax"  # unchanged from opset 16 to HORIZON


def draw_domains(rng: Random) -> Params:
    """Personal parameters of 2.5."""
    return {
        "operators": rng.sample(_STANDARD.split(), 3),
        "foreign": rng.choice(["Gelu", "QuickGelu", "FastGelu"]),
        "device_opset": rng.randint(17, 22),
        "seed": rng.getrandbits(32),
    }


def unnamed_domain(p: Params) -> onnx.ModelProto:
    """Nodes of two domains, one of which the file does not name."""
    scale = np.random.default_rng(p["seed"]).normal(0, 1, 4).astype(np.float32)
    names = ["scaled", "t1", "t2", "t3", "y"]
    chain = [(p["operators"][0], ""), (p["foreign"], "com.microsoft"), *((op, "") for op in p["operators"][1:])]
    nodes = [helper.make_node("Mul", ["x", "scale"], ["scaled"], "scale_input")] + [
        helper.make_node(op, [names[i]], [names[i + 1]], f"node_{i}", domain=domain)
        for i, (op, domain) in enumerate(chain)
    ]
    return x_to_y("two_domains", nodes, {"scale": scale}, ["batch", 4], ["batch", 4], {"": HORIZON})


def check_domains(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    """The check of 2.5."""
    criteria, given = Criteria(), unnamed_domain(p)
    versions = imports(model)
    criteria.add(
        "com.microsoft is named, with its opset 1",
        versions.get("com.microsoft") == 1,
        f"It is named with opset {versions['com.microsoft']}, and ONNX Runtime has 1 only."
        if "com.microsoft" in versions
        else f"No opset_import names it, and {p['foreign']} is from there: onnx.checker says what is missing.",
    )
    stated = versions.get("", 0)
    used = {op: used_version(op, HORIZON) for op in ("Mul", *p["operators"])}
    changed = [op for op, version in used.items() if used_version(op, stated) != version]
    criteria.add(
        f"ai.onnx has an opset the device loads, {p['device_opset']} or older, and every node means what it meant",
        0 < stated <= p["device_opset"] and not changed,
        f"It is {stated}, and the device says: official support for domain ai.onnx is till opset {p['device_opset']}."
        if stated > p["device_opset"]
        else f"In opset {stated}, {', '.join(changed)} would have another version than in opset {HORIZON}: not so low."
        if stated > 0
        else f"No opset_import names it: {', '.join(used)} are from there.",
    )
    criteria.require(
        "each domain is named once, and no other",
        len(model.opset_import) == len(versions) and set(versions) <= {"", "com.microsoft"},
        f"The list is {[(o.domain, o.version) for o in model.opset_import]}: change the entry that is there instead of "
        f"adding another one.",
    )
    if is_sound(model, criteria):
        _is_given(model, given, criteria)
    return criteria


# What the tasks share


def nodes_of(model: onnx.ModelProto) -> list[tuple]:
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


def imports(model: onnx.ModelProto) -> dict[str, int]:
    """Domain → opset; "ai.onnx" is another way to write ""."""
    return {"" if o.domain == "ai.onnx" else o.domain: o.version for o in model.opset_import}


def weights_differ(model: onnx.ModelProto, given: onnx.ModelProto) -> str:
    """A sentence naming the first weight of the given model that is missing or has other values; empty when none."""
    got = {t.name: t for t in model.graph.initializer}
    for tensor in given.graph.initializer:
        if tensor.name not in got:
            return f"The weight {tensor.name!r} is missing."
        old, new = numpy_helper.to_array(tensor), numpy_helper.to_array(got[tensor.name])
        if old.dtype != new.dtype or not np.array_equal(old, new):
            return f"The weight {tensor.name!r} has other values than in the given model."
    return ""


def _is_given(model: onnx.ModelProto, given: onnx.ModelProto, criteria: Criteria) -> None:
    """Add: nodes, weights, inputs and outputs are the given ones, so that only the file's head was changed."""
    before, after = nodes_of(given), nodes_of(model)
    names = [node.name for node in given.graph.node] == [node.name for node in model.graph.node]
    odd = [node[1] for node in after if node not in before] or [node[1] for node in before if node not in after]
    criteria.require(
        "the nodes are the given ones",
        before == after and names and not model.functions,
        f"The graph was changed{f' at {odd[0]}' if odd else ''}: load the given file, and change only its head.",
    )
    wrong = weights_differ(model, given)
    if not wrong and len(model.graph.initializer) != len(given.graph.initializer):
        wrong = "There are more weights than in the given model."
    criteria.require("the weights are the given ones", not wrong, wrong)
    ends, meant = ([(v.name, *type_text(v)) for v in (*m.graph.input, *m.graph.output)] for m in (model, given))
    criteria.require(
        "inputs and outputs are the given ones", ends == meant, f"They are {ends}, and the given ones are {meant}."
    )
