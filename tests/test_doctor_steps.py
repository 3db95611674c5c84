"""The doctor and loops written out step by step: where they begin, and what makes the steps of one loop equal."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from doctor_models import found, parsed, weights

import course_utils as cu

Step = Callable[[int], str]
W, K = weights(4, 4), np.array(0.5, np.float32)


def steps(
    count: int, step: Step, stored: dict[str, np.ndarray], *, before: str = "", inputs: str = "", opset: int = 21
) -> onnx.ModelProto:
    """h0 is the input; step i writes h(i + 1). before: nodes in front of all steps. inputs: more of them."""
    body = "  ".join(step(i) for i in range(count))
    used = {k: v for k, v in stored.items() if any(f"{a}{k}{b}" in f"{before} {body}" for a in "( " for b in ",)")}
    return parsed(f"g (float[4, 4] h0{inputs}) => (float[?, ?] h{count}) {{ {before} {body} }}", used, opset=opset)


def is_loop(model: onnx.ModelProto) -> bool:
    return "loop-unrolled" in found(model)


# Where it begins


@pytest.mark.parametrize(
    ("count", "step", "words"),
    [
        (11, "h{1} = MatMul(h{0}, w)", None),
        (12, "h{1} = MatMul(h{0}, w)", "12 steps of 1 node each (MatMul), which"),
        (5, "a{0} = MatMul(h{0}, w)  h{1} = Tanh(a{0})", None),
        (6, "a{0} = MatMul(h{0}, w)  h{1} = Tanh(a{0})", "6 steps of 2 nodes each (MatMul, Tanh), which"),
        (4, "a{0} = MatMul(h{0}, w)  b{0} = Tanh(a{0})  c{0} = Neg(b{0})  d{0} = Abs(c{0})  e{0} = Relu(d{0})  h{1} = Exp(e{0})",
         "4 steps of 6 nodes each (MatMul, Tanh, Neg, Abs, Relu, Exp), which"),
        (4, "a{0} = MatMul(h{0}, w)  b{0} = Tanh(a{0})  c{0} = Neg(b{0})  d{0} = Abs(c{0})  e{0} = Relu(d{0})  f{0} = Exp(e{0})  h{1} = Log(f{0})",
         "4 steps of 7 nodes each (MatMul, Tanh, Neg, Abs, Relu, Exp …), which"),
    ],
)  # fmt: skip
def test_twelve_nodes_in_all(count, step, words):
    """And one finding, though two steps are a period as well. All nodes of the loop are places."""
    model = steps(count, lambda i: step.format(i, i + 1), {"w": W}, before="z = Identity(h0)")
    causes = [(f.cause, f.where) for f in cu.doctor(model).findings if f.code.id == "loop-unrolled"]
    assert [cause.startswith(words) for cause, _ in causes] == ([] if words is None else [True])
    assert all([place.index for place in where] == list(range(1, len(model.graph.node))) for _, where in causes)


@pytest.mark.parametrize(("length", "loop"), [(400, True), (401, False)])
def test_a_step_has_400_nodes_at_most(length, loop):
    def long(i: int) -> str:
        names = [f"h{i}", *(f"h{i}_{j}" for j in range(1, length)), f"h{i + 1}"]
        rest = [f"{names[j + 1]} = LeakyRelu<alpha = 0.{j:03}>({names[j]})" for j in range(1, length)]
        return "  ".join([f"{names[1]} = MatMul({names[0]}, w)", *rest])

    assert is_loop(steps(4, long, {"w": W})) == loop


def test_two_loops_one_behind_the_other():
    body = "  ".join(
        [f"a{i + 1} = MatMul(a{i}, w)" for i in range(12)] + [f"b{i + 1} = Add(b{i}, a12)" for i in range(14)]
    )
    model = parsed(f"g (float[4, 4] a0, float[4, 4] b0) => (float[4, 4] b14) {{ {body} }}", {"w": W})
    causes = [f.cause for f in cu.doctor(model).findings if f.code.id == "loop-unrolled"]
    assert [cause[:8] for cause in causes] == ["12 steps", "14 steps"]


def test_a_short_graph_has_no_loop():
    assert found(parsed("g (float[N] x) => (float[N] y) { y = Identity(x) }")) == []
    assert found(steps(3, lambda i: f"h{i + 1} = MatMul(h{i}, w)", {"w": W})) == []


# What only moves data


MOVES = {
    "Reshape": "a{0} = Reshape(h{0}, size)",
    "Unsqueeze": "u{0} = Unsqueeze(h{0}, zero)  a{0} = Squeeze(u{0}, zero)",
    "Expand": "a{0} = Expand(h{0}, size)",
    "Tile": "a{0} = Tile(h{0}, ones)",
    "Pad": "a{0} = Pad(h{0}, zeros)",
    "Slice": "a{0} = Slice(h{0}, none, size)",
    "Split": "p{0}, q{0} = Split<axis = 1>(h{0}, halves)  a{0} = Concat<axis = 1>(p{0}, q{0})",
    "Gather": "a{0} = Gather(h{0}, all)",
    "GatherElements": "a{0} = GatherElements(h{0}, grid)",
    "GatherND": "a{0} = GatherND(h{0}, rows)",
    "CastLike": "a{0} = CastLike(h{0}, k)",
    "QuantizeLinear": "u{0} = QuantizeLinear(h{0}, k, z)  a{0} = DequantizeLinear(u{0}, k, z)",
    "Clip": "a{0} = Clip(h{0}, k)",
    "Dropout": "a{0} = Dropout(h{0}, k)",
    "Resize": "a{0} = Resize(h{0}, , scales)",
    "Upsample": "a{0} = Upsample(h{0}, scales)",
    "Trilu": "a{0} = Trilu(h{0}, one)",
    "Range": "u{0} = Shape(h{0})  v{0} = ReduceMax<keepdims = 0>(u{0})  r{0} = Range(nought, v{0}, one)  a{0} = Gather(h{0}, r{0})",
    "Sequence": "s{0} = SequenceConstruct(h{0}, h{0})  t{0} = SequenceInsert(s{0}, h{0})  a{0} = SequenceAt(t{0}, one)",
    "ReverseSequence": "a{0} = ReverseSequence(h{0}, size)",
}  # fmt: skip


@pytest.mark.parametrize("op", MOVES)
def test_a_chain_of_moves_is_no_loop(op):
    """With a product in each step, it is one."""
    stored = {
        "size": np.array([4, 4]), "zero": np.array([0]), "ones": np.array([1, 1]), "zeros": np.zeros(4, np.int64), "none": np.array([0, 0]),
        "halves": np.array([2, 2]), "all": np.arange(4), "grid": np.tile(np.arange(4), (4, 1)), "rows": np.arange(4)[:, None], "k": K,
        "z": np.array(0, np.uint8), "scales": np.ones(2, np.float32), "one": np.array(1), "nought": np.array(0),
    }  # fmt: skip
    if op == "ReverseSequence":
        stored["size"] = np.full(4, 4)
    opset = 9 if op == "Upsample" else 21
    assert not is_loop(steps(12, lambda i: f"{MOVES[op].format(i)}  h{i + 1} = Neg(a{i})", stored, opset=opset))
    assert is_loop(steps(12, lambda i: f"{MOVES[op].format(i)}  h{i + 1} = Mul(a{i}, k)", stored, opset=opset))


# Equal steps


IRREGULAR = (0, 1, 0, 0, 1, 1, 1, 0, 1, 0, 1, 1, 0, 0)


def mixed(one: str, other: str, stored: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Steps of two kinds, without any order."""
    return steps(
        14,
        lambda i: (other if IRREGULAR[i] else one).format(i, i + 1),
        stored,
        inputs=", float b, float[4, 4] x, float[4, 4] z",
    )


@pytest.mark.parametrize(
    ("one", "other", "loop"),
    [
        ("h{1} = Gemm<alpha = 0.5, beta = 0.25>(h{0}, w)", "h{1} = Gemm<beta = 0.25, alpha = 0.5>(h{0}, w)", True),
        ("h{1} = Gemm<alpha = 0.5>(h{0}, w)", "h{1} = Gemm<alpha = 0.25>(h{0}, w)", False),
        ("h{1} = MatMul(h{0}, w)", "h{1} = MatMul(h{0}, v)", False),
        ("h{1} = MatMul(h{0}, w)", "h{1} = MatMul(w, h{0})", False),
        ("h{1} = MatMul(h{0}, w)", "h{1} = Add(h{0}, w)", False),
        ("a{0} = Clip(h{0}, b)  h{1} = Add(a{0}, w)", "a{0} = Clip(h{0}, , b)  h{1} = Add(a{0}, w)", False),
        ("h{1} = Mul(h{0}, x)", "h{1} = Mul(h{0}, x)", True),
        ("h{1} = Mul(h{0}, x)", "h{1} = Mul(h{0}, z)", False),
        ("h{1} = Mul(h{0}, k)", "h{1} = Mul(h{0}, l)", False),
    ],
)  # fmt: skip
def test_steps_are_equal(one, other, loop):
    """In operator, attributes, weights, and which inputs they have; the order of the attributes does not count."""
    assert is_loop(mixed(one, other, {"w": W, "v": W.copy(), "k": K, "l": np.array(0.25, np.float32)})) == loop


@pytest.mark.parametrize(("once", "loop"), [("x", True), ("z", False)])
def test_a_step_that_reads_something_else(once, loop):
    """The first step begins elsewhere; all others read the same."""
    step = "a{0} = MatMul(h{0}, w)  h{1} = Add(a{0}, {2})"
    model = steps(
        12, lambda i: step.format(i, i + 1, once if i == 5 else "x"), {"w": W}, inputs=", float[4, 4] x, float[4, 4] z"
    )
    assert is_loop(model) == loop


@pytest.mark.parametrize(
    ("step", "numbers", "loop"),
    [
        ("g{0} = Gather(x, i{0})  h{1} = Add(h{0}, g{0})", [np.array(i % 4) for i in range(12)], True),
        ("g{0} = Gather(x, i{0})  h{1} = Add(h{0}, g{0})", [np.array([i % 4], np.int32) for i in range(12)], True),
        ("g{0} = Gather(x, i{0})  h{1} = Add(h{0}, g{0})", [np.array([i % 4, 0, 0, 0]) for i in range(12)], False),
        ("g{0} = Where(i{0}, x, z)  h{1} = Add(h{0}, g{0})", [np.array(bool(i % 5)) for i in range(12)], True),
        ("h{1} = Mul(h{0}, i{0})", [np.array(i, np.float32) for i in range(12)], False),
    ],
)  # fmt: skip
def test_the_index_of_a_step_may_differ(step, numbers, loop):
    """A whole number, or True and False; also where the piece that it takes is cut beforehand."""
    stored = {f"i{i}": number for i, number in enumerate(numbers)}
    inputs = ", float[4, 4] x, float[4, 4] z"
    assert is_loop(steps(12, lambda i: step.format(i, i + 1), stored, inputs=inputs)) == loop
    if "g{0}" in step:
        cut, rest = step.split("  ")
        before = "  ".join(cut.format(i) for i in range(12))
        assert is_loop(steps(12, lambda i: rest.format(i, i + 1), stored, inputs=inputs, before=before)) == loop


@pytest.mark.parametrize(("between", "loop"), [(0, True), (3, True), (4, False)])
def test_pieces_that_were_cut_beforehand(between, loop):
    """One node cuts, and up to three change a piece before a step reads it; their origin is followed so far."""
    chains = []
    for i in range(12):
        names = [f"g{i}", *(f"g{i}_{j}" for j in range(between))]
        ops = ("Neg", "Abs", "Exp", "Sin")
        chains += [f"{names[0]} = Gather(c, i{i})", *(f"{names[j + 1]} = {ops[j]}({names[j]})" for j in range(between))]
    last = f"_{between - 1}" if between else ""
    stored = {f"i{i}": np.array(i % 4) for i in range(12)} | {"w": W}
    model = steps(
        12, lambda i: f"a{i} = MatMul(h{i}, w)  h{i + 1} = Add(a{i}, g{i}{last})", stored, inputs=", float[4, 4] x",
        before="  ".join(["c = Abs(x)", *chains]),
    )  # fmt: skip
    assert is_loop(model) == loop


@pytest.mark.parametrize("same", [True, False])
def test_weights_in_constants(same):
    """They have no name that tells them apart: their data does."""
    body = "  ".join(
        f"w{i} = Constant<value = float[2] {{1.0, {2 if same else i}.5}}>()  h{i + 1} = Mul(h{i}, w{i})"
        for i in range(12)
    )
    model = parsed(f"g (float[N, 2] h0) => (float[N, 2] h12) {{ {body} }}")
    for i, node in enumerate(n for n in model.graph.node if n.op_type == "Constant"):
        node.attribute[0].t.name = f"value {i}"
    assert is_loop(model) == same


def test_initializers_with_names_of_their_own_are_not_the_same():
    """Layers that were initialised alike, for example with zeros."""
    assert not is_loop(steps(12, lambda i: f"h{i + 1} = MatMul(h{i}, w{i})", {f"w{i}": W for i in range(12)}))


# Modules, as exporters name them


@pytest.mark.parametrize(
    ("modules", "loop"),
    [
        (["layer.{}", "layer.{}"], False), (["layer.{}", "layer"], True), (["layer", "layer"], True),
        (["layer.{}", "layer", "layer"], True), (["layer.{}", "layer.{}", "layer"], False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("how", ["name", "scopes"])
def test_most_nodes_of_a_step_come_from_the_same_module(modules, loop, how):
    middle = "".join(f"m{{0}}_{j} = Neg(m{{0}}_{j - 1})  " for j in range(1, len(modules) - 1))
    step = f"m{{0}}_0 = MatMul(h{{0}}, w)  {middle}h{{1}} = Tanh(m{{0}}_{len(modules) - 2})"
    model = steps(12, lambda i: step.format(i, i + 1), {"w": W})
    for number, node in enumerate(model.graph.node):
        i, j = divmod(number, len(modules))
        module = modules[j].format(i)
        if how == "name":
            node.name = f"/{module}_{i}/{node.op_type}_{number}" if module == "layer" else f"/{module}/{node.op_type}"
        else:
            node.name = f"/{i}/{node.op_type}"
            node.metadata_props.add(key="namespace", value=f"layer {i}")
            node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=f"['', '{module}', 'node_{number}']")
    assert is_loop(model) == loop
