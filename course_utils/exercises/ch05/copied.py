"""Tasks 5.6 and 5.7: which tensors a provider's placement copies, and a model that computes the same with fewer copies."""

from __future__ import annotations

import itertools
import json
from functools import partial
from random import Random
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, shape_inference

from .. import Criteria, Criterion, Params
from ..examine import computes, every_node, has_io, is_sound, numpy_source, result, wants_keys, whole
from ..handouts import x_to_y
from .placed import CPU, LEFT, TAKES, copies, islands, makers, provider_of, readers, record
from .profile_proof import IR, OPSET

_UNARY: dict[str, dict[str, Any]] = {
    "Celu": {},
    "Selu": {},
    "Softsign": {},
    "Shrink": {"lambd": 0.1, "bias": 0.1},  # so that it makes no jump, where rounding could decide
}
_SIGNED = ["Tanh", "Neg", "Erf"]  # both signs, as Celu does nothing to positive values; and different near zero
_LAYOUT = ["Slice", "Reshape", "Tile"]


def draw_copied(rng: Random) -> Params:
    p = {"seed": rng.randrange(10**6)}
    return {**p, "most_copies": _Builder(p["seed"]).most}


class _Builder:
    """A chain with three places where copies can be saved, and perhaps one at its start where none can."""

    def __init__(self, seed: int) -> None:
        self.rng, self.draw = Random(seed), np.random.default_rng(seed)
        self.names = iter(f"t{n}" for n in self.rng.sample(range(100, 1000), 60))
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        rng = self.rng
        self.rows, width = rng.randint(2, 5), 4 * rng.randint(1, 2)
        self.input = [self.rows, width]
        starts, apart, branches = rng.random() < 0.5, rng.randint(2, 3), rng.randint(2, 3)
        doubled = rng.randrange(apart)  # here two nodes in a row are left for the CPU
        self.most = starts + 2 + 2 + 1

        x = self.unary("x") if starts else "x"
        x = self.linear(x, width, 24)
        shape = [self.rows, 24]
        for index in range(apart):  # the same values in other places between nodes on the CPU
            if index:
                x, shape = self.layout(x, shape)
            x = self.unary(self.unary(x) if index == doubled else x)
        left = rng.choice(list(_UNARY))  # one of these in each branch, and their results side by side
        ends = [self.unary(self.node(op, [x]), left) for op in rng.sample(_SIGNED, branches)]
        x, shape = self.node("Concat", ends, axis=1), [shape[0], shape[1] * branches]
        x = self.unary(self.linear(x, shape[1], 12))
        x, shape = self.layout(x, [shape[0], 12], last=True)
        self.output = shape

    def node(self, op: str, inputs: list[str], out: str = "", **attributes: Any) -> str:
        out = out or next(self.names)
        self.nodes.append(helper.make_node(op, inputs, [out], f"{op}_{out}", **attributes))
        return out

    def weight(self, value: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = value
        return name

    def unary(self, x: str, op: str = "") -> str:
        op = op or self.rng.choice(list(_UNARY))
        return self.node(op, [x], **_UNARY[op])

    def linear(self, x: str, have: int, want: int) -> str:
        matrix = self.draw.normal(0, 1.5 / have**0.5, (have, want)).astype(np.float32)
        x = self.node("MatMul", [x, self.weight(matrix)])
        return self.node("Add", [x, self.weight(self.draw.normal(0, 0.5, want).astype(np.float32))])

    def layout(self, x: str, shape: list[int], *, last: bool = False) -> tuple[str, list[int]]:
        """The same values in other places, or a part of them."""
        rows, width = shape
        op, out = self.rng.choice(_LAYOUT), "y" if last else ""

        def numbers(*values: int) -> str:
            return self.weight(np.array(values, np.int64))

        if op == "Slice":
            return self.node(op, [x, numbers(width // 2), numbers(width), numbers(1)], out), [rows, width // 2]
        if op == "Reshape":
            return self.node(op, [x, numbers(2 * rows, width // 2)], out), [2 * rows, width // 2]
        return self.node(op, [x, numbers(1, 2)], out), [rows, 2 * width]


def scattered(p: Params) -> onnx.ModelProto:
    """13 to 22 nodes from float32 `x` to `y`; six to nine of them are left for the CPU by WebGPU."""
    b = _Builder(p["seed"])
    return x_to_y("scattered", b.nodes, b.weights, [*b.input], [*b.output], {"": OPSET}, ir_version=IR)


def handed_out(p: Params) -> dict[str, onnx.ModelProto | bytes]:
    model = scattered(p)
    return {"5.6.onnx": model, "5.6_record.json": json.dumps(record(model)).encode()}


# 5.6: which tensors are copied


def check_copies(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    criteria, model = Criteria(), scattered(p)
    if not wants_keys(answer, {"on_cpu", "islands", "to_host", "from_host"}, criteria):
        return criteria
    known = {"x", *(name for node in model.graph.node for name in node.output)}
    lists = [answer["to_host"], answer["from_host"]]
    if not criteria.require(
        "to_host and from_host are lists of tensors of your model",
        all(
            isinstance(names, list) and names and all(isinstance(n, str) and n in known for n in names)
            for names in lists
        ),
        "They are lists of text: the names of tensors that a node of your model makes or reads, without weights.",
    ):
        return criteria
    right = copies(model)
    both = True
    for key, names in right._asdict().items():
        got = answer[key]
        both &= criteria.add(
            f"{key} lists the tensors that are copied {'to' if key == 'to_host' else 'from'} the host",
            sorted(got) == sorted(names),
            partial(_list_hint, got, key, model),
        )
    if not both:
        return criteria  # what is counted beside wrong lists could be found by trying
    counts = {"on_cpu": sum(provider_of(n) == CPU for n in model.graph.node), "islands": islands(model)}
    wrong = [key for key, number in counts.items() if whole(answer[key]) != number]
    criteria.add(
        "on_cpu and islands are counted",
        not wrong,
        f"{' and '.join(wrong)}: {_count_hint(whole(answer[wrong[0]]), wrong[0], counts)}" if wrong else "",
    )
    return criteria


def _list_hint(got: list[str], key: str, model: onnx.ModelProto) -> str:
    found = copies(model)
    right, other = (found.to_host, found.from_host) if key == "to_host" else (found.from_host, found.to_host)
    made_on, read_on = makers(model), readers(model)
    counted = (
        f"{len(set(got) & set(right))} of the {len(set(got))} that you list are copied so, there are {len(right)}."
    )
    inside = [name for name in got if name in made_on and read_on.get(name) == {made_on[name]}]
    if set(got) == set(other):
        return "Those are copied in the other direction: the host is the CPU's memory."
    if len(set(got)) < len(got):
        return f"{counted} A tensor is copied once, however many nodes read it."
    if "x" in got:
        return f"{counted} x is in the host's memory when it comes, and one provider alone reads it: no node copies it."
    if "y" in got:
        return f"{counted} y is read by no node: the session brings it to you, and no node of the graph copies it."
    if inside:
        return f"{counted} One of them is made and read on the same provider: nothing has to be copied there."
    return f"{counted} A tensor is copied where the provider of its maker is not that of a reader."


def _count_hint(got: int | None, key: str, right: dict[str, int]) -> str:
    if got is None:
        return "it is not a whole number."
    if key == "islands" and got == right["on_cpu"]:
        return "that is the number of nodes. Two nodes on the CPU of which one reads the other's result are one island."
    return {
        "on_cpu": "count the nodes that the record has on the CPU provider, without copies.",
        "islands": "an island ends where no node on the CPU reads, or makes, a tensor of it any more.",
    }[key]


# 5.7: the same numbers with fewer copies


def check_fewer(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria, given = Criteria(), scattered(p)
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    if not _is_recorded(model, criteria):
        return criteria
    (shape,) = [[d.dim_value for d in v.type.tensor_type.shape.dim] for v in given.graph.input]
    x = numpy_source(rng).normal(0, 1.5, shape).astype(np.float32)
    expected = result(given, {"x": x})
    if not computes(
        model, {"x": x}, expected, criteria, "it computes what it computed",
        lambda: _fewer_cause(model, x, given), atol=1e-4, condition=True,
    ):  # fmt: skip
        return criteria
    before, now, most = copies(given).number, copies(model), p["most_copies"]
    half = (before + most) // 2
    listed = f"Now {now.number} are made: {', '.join(now.to_host) or 'none'} to the host, {', '.join(now.from_host) or 'none'} back."
    steps = [
        (f"fewer copies than the {before} before", before - 1),
        *((f"at most {n} copies", n) for n in (half, most)),
    ]
    for what, number in steps:
        if not criteria.add(what, now.number <= number, listed):
            break
    return criteria


def _is_recorded(model: onnx.ModelProto, criteria: Criteria) -> bool:
    """Add: of each node it is known where the plug-in puts it."""
    opsets = {o.domain or "ai.onnx": o.version for o in model.opset_import}
    domains = {node.domain or "ai.onnx" for node in every_node(model)}
    single = domains == {"ai.onnx"} and len(list(every_node(model))) == len(model.graph.node)
    if not criteria.require(
        f"the model has opset {OPSET}, only ONNX's own operators, no functions and no graphs inside of nodes",
        single and opsets["ai.onnx"] == OPSET,
        "The record of the plug-in holds for single nodes at the opset of the model that was handed out.",
    ):
        return False
    unknown = sorted({node.op_type for node in model.graph.node} - TAKES - LEFT)
    if not criteria.require(
        "its operators are in the record",
        not unknown,
        f"Not tried on the plug-in: {', '.join(unknown)}."
        + (" Store constants as initializers." if "Constant" in unknown else f" It takes {', '.join(sorted(TAKES))}."),
    ):
        return False
    inferred = shape_inference.infer_shapes(model, strict_mode=True)
    types = {v.name: v.type.tensor_type.elem_type for v in (*inferred.graph.value_info, *inferred.graph.output)}
    odd = sorted({name for name, type_ in types.items() if type_ not in (TensorProto.FLOAT, TensorProto.BOOL)})
    return criteria.require(
        "all that its nodes compute is float32 or bool",
        not odd,
        f"The operators were tried with float32, and {', '.join(odd)} have another type.",
    )


def _fewer_cause(model: onnx.ModelProto, x: np.ndarray, given: onnx.ModelProto) -> str:
    got = result(model, {"x": x})

    def same(other: onnx.ModelProto) -> bool:
        expected = result(other, {"x": x})
        return expected.shape == got.shape and np.allclose(got, expected, atol=1e-4, rtol=1e-4)

    joins = next(n for n in given.graph.node if n.op_type == "Concat")
    for order in itertools.permutations(joins.input):
        if list(order) != list(joins.input) and same(_with(given, joins.output[0], inputs=list(order))):
            return "The inputs of Concat have another order."
    for node in given.graph.node:
        if provider_of(node) == CPU and same(_with(given, node.output[0], op="Identity")):
            return f"That is the result with one {node.op_type} less."
    if same(_exchanged(given, joins)):
        return "In each branch the two operators are exchanged: with values that change, the order counts."
    return "Run your model and the old one with the same input, and compare tensor by tensor from x on: where do they part?"


def _with(given: onnx.ModelProto, output: str, *, op: str = "", inputs: list[str] | None = None) -> onnx.ModelProto:
    """A copy in which the node that makes this tensor is another one."""
    model = onnx.ModelProto()
    model.CopyFrom(given)
    node = next(n for n in model.graph.node if n.output[0] == output)
    node.input[:] = inputs or node.input
    if op:
        node.op_type = op
        del node.attribute[:]
    return model


def _exchanged(given: onnx.ModelProto, joins: onnx.NodeProto) -> onnx.ModelProto:
    """A copy in which each branch has its last two operators the other way round."""
    model = onnx.ModelProto()
    model.CopyFrom(given)
    made_by = {n.output[0]: n for n in model.graph.node}
    for name in joins.input:
        last = made_by[name]
        first, ends = made_by[last.input[0]], (last.input[0], name)
        before = onnx.NodeProto()
        before.CopyFrom(first)
        first.CopyFrom(last)
        first.input[:], first.output[:] = before.input, ends[:1]
        last.CopyFrom(before)
        last.input[:], last.output[:] = ends[:1], ends[1:]
    return model
