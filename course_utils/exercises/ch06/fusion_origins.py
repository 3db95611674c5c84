"""Task 6.4: trace the nodes of an optimised model back to the original ones."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import onnx
from onnx import helper

from .. import Criteria, Criterion, Params
from ..examine import wants_keys
from .fusion_models import OPSET, Weights, float32_model


def draw_origins(rng: Random) -> Params:
    return {"seed": rng.getrandbits(32)}


def _plan(p: Params) -> tuple[list[str], list[str]]:
    """The blocks, and what stands behind each: not among the parameters, it is what the task asks for."""
    rng = Random(f"{p['seed']}/plan")
    blocks = rng.sample(["conv norm relu", "conv relu", "conv norm"], 3)
    between = [*rng.sample(["identity", "dropout", "gain"], 2), ""]
    rng.shuffle(between)
    return blocks, between


class _Pair:
    """A model and its optimised form, built side by side, with the truth about which node became which.

    Names tell nothing: those of the nodes are drawn, and all tensors of the second model have new ones.
    """

    def __init__(self, p: Params) -> None:
        self.draw = np.random.default_rng(p["seed"])
        self.labels = [f"n{number:02}" for number in Random(p["seed"]).sample(range(100), 30)]
        self.old_nodes: list[onnx.NodeProto] = []
        self.new_nodes: list[onnx.NodeProto] = []
        self.old_weights: Weights = {}
        self.new_weights: Weights = {}
        self.truth: dict[str, list[str]] = {}
        self.gone: list[str] = []
        self.old = self.new = "x"

    def before(self, op: str, *weights: str, target: str = "", **attributes: Any) -> str:
        """Add a node behind the last one of the first model; return its name."""
        label = self.labels.pop()
        self.old, source = target or f"t_{label}", self.old
        self.old_nodes.append(helper.make_node(op, [source, *weights], [self.old], label, **attributes))
        return label

    def after(self, op: str, *weights: str, target: str, originals: list[str], **attributes: Any) -> None:
        """Add a node behind the last one of the second model, made of `originals`."""
        self.new_nodes.append(helper.make_node(op, [self.new, *weights], [target], **attributes))
        self.truth[target], self.new = originals, target


_CONV: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}


def _before_after(p: Params) -> _Pair:
    pair = _Pair(p)
    for index, (block, between) in enumerate(zip(*_plan(p), strict=True)):
        _add_block(pair, index, block)
        if between in ("identity", "dropout"):
            pair.gone.append(pair.before(between.capitalize()))
        elif between == "gain":
            label = pair.labels.pop()
            pair.old_nodes.append(helper.make_node("Exp", ["log_gain"], ["gain"], label))
            pair.gone.append(label)
            pair.old_weights["log_gain"] = pair.draw.normal(0, 0.3, (4, 1, 1)).astype(np.float32)
            pair.new_weights["w9"] = np.exp(pair.old_weights["log_gain"])
            pair.after("Mul", "w9", target="u9", originals=[pair.before("Mul", "gain")])
    for target, op in {"u4": "GlobalAveragePool", "u5": "Flatten"}.items():
        pair.after(op, target=target, originals=[pair.before(op)])
    matrix, offset = pair.draw.normal(0, 1, (4, 3)), pair.draw.normal(0, 1, 3)
    pair.old_weights |= {"matrix": matrix, "offset": offset}
    pair.new_weights |= {"w7": matrix, "w8": offset}
    originals = [pair.before("MatMul", "matrix"), pair.before("Add", "offset", target="y")]
    pair.after("Gemm", "w7", "w8", target="y", originals=originals)
    return pair


def _add_block(pair: _Pair, index: int, block: str) -> None:
    kernel, bias = pair.draw.normal(0, 0.4, (4, 4, 3, 3)), pair.draw.normal(0, 1, 4)
    pair.old_weights |= {f"k{index}": kernel, f"b{index}": bias}
    originals = [pair.before("Conv", f"k{index}", f"b{index}", **_CONV)]
    if "norm" in block:
        scale, shift, mean, variance = (pair.draw.uniform(0.5, 1.5, 4) for _ in range(4))
        names = [f"{letter}{index}" for letter in "sfmv"]
        pair.old_weights |= dict(zip(names, (scale, shift, mean, variance), strict=True))
        originals.append(pair.before("BatchNormalization", *names, epsilon=1e-5))
        factor = scale / np.sqrt(variance + 1e-5)
        kernel, bias = kernel * factor[:, None, None, None], shift + (bias - mean) * factor
    pair.new_weights |= {f"w{2 * index}": kernel, f"w{2 * index + 1}": bias}
    fused: dict[str, Any] = {}
    if "relu" in block:
        originals.append(pair.before("Relu"))
        fused = {"domain": "com.microsoft", "activation": "Relu"}
    weights = f"w{2 * index}", f"w{2 * index + 1}"
    pair.after("FusedConv" if fused else "Conv", *weights, target=f"u{index}", originals=originals, **_CONV, **fused)


def shown_origins(p: Params) -> dict[str, onnx.ModelProto]:
    pair, both = _before_after(p), {"": OPSET, "com.microsoft": 1}
    return {
        "6.4_before.onnx": float32_model("before", pair.old_nodes, pair.old_weights, [1, 4, 8, 8], [1, 3]),
        "6.4_after.onnx": float32_model("after", pair.new_nodes, pair.new_weights, [1, 4, 8, 8], [1, 3], both),
    }


def check_origins(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    pair = _before_after(p)
    truth, gone = pair.truth, pair.gone
    if not wants_keys(answer, {"from", "gone"}, criteria):
        return criteria
    came, known = answer["from"], {node.name for node in pair.old_nodes}
    if not criteria.require(
        "from has one entry for each tensor that a node of the optimised model writes",
        isinstance(came, dict) and set(came) == set(truth),
        f"Its keys must be {', '.join(sorted(truth))}.",
    ):
        return criteria
    parts = {
        "the nodes that several became": {t: names for t, names in truth.items() if len(names) > 1},
        "the nodes that one became": {t: names for t, names in truth.items() if len(names) == 1},
    }
    for what, part in parts.items():
        wrong = [t for t, names in part.items() if _as_set(came[t]) != set(names)]
        criteria.add(
            f"{what} are traced back",
            not wrong,
            f"{len(part) - len(wrong)} of {len(part)} are right. {_origin_hint(came[wrong[0]], truth[wrong[0]], gone, known)}"
            if wrong
            else "",
        )
    found = answer["gone"]
    criteria.add(
        "gone lists the nodes that are in none of them",
        _as_set(found) == set(gone) and len(found) == len(gone),
        _gone_hint(found, gone, known),
    )
    return criteria


def _gone_hint(got: object, gone: list[str], known: set[str]) -> str:
    found = _as_set(got)
    if found is None:
        return "Write a list of node names."
    if strange := sorted(found - known):
        return f"{strange[0][:40]} is not the name of a node of the original model."
    if extra := sorted(found - set(gone)):
        return f"{extra[0]} is not gone: a node of the optimised model computes what it computed."
    if missing := set(gone) - found:
        return (
            f"{len(missing)} missing: a node is gone when it changed nothing, or when it computed from constants alone."
        )
    return "A name stands in the list twice."


def _as_set(names: object) -> set[str] | None:
    return set(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _origin_hint(got: object, names: list[str], gone: list[str], known: set[str]) -> str:
    found = _as_set(got)
    if found is None:
        return "Write a list of names of original nodes."
    if strange := sorted(found - known):
        return f"{strange[0][:40]} is not the name of a node of the original model."
    if found & set(gone):
        return f"{sorted(found & set(gone))[0]} changed nothing, or read constants only: it belongs to gone."
    if missing := set(names) - found:
        return f"{len(missing)} missing: what stands between the tensors that the new node reads and the one it writes?"
    return "A node too many: another node of the optimised model computes it."
