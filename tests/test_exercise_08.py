"""The exercises of lesson 08: right answers of several students pass, each wrong one gets a hint that names the cause."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import onnx
import pytest
from answers import STUDENTS, accepted, criteria, failed, given, params
from onnx import compose, helper, numpy_helper, parser
from onnxruntime.tools.make_dynamic_shape_fixed import make_dim_param_fixed

from course_utils.exercises import ch08

HEADER = '<ir_version: 9, opset_import: ["": 20]>'


# 8.1

STEPS = ("gather", "scale", "mean", "deviation", "transpose")


def with_preparation(
    who: str,
    steps: str = " ".join(STEPS),
    perm: str = "0, 3, 1, 2",
    divide: str = "Div",
    first: str = "t1 = Cast<to = 1>(pixels)",
) -> onnx.ModelProto:
    """The model with the steps in this order. The step "other" turns the channels if the camera's order is right."""
    p = params("8.1", who)
    bgr = p["camera"] == "BGR"
    nodes = {
        "gather": "Gather<axis = 3>({}, order)" if bgr else "Identity({})",
        "other": "Identity({})" if bgr else "Gather<axis = 3>({}, order)",
        "scale": "Div({}, scale)",
        "mean": "Sub({}, mean)",
        "deviation": f"{divide}({{}}, deviation)",
        "transpose": f"Transpose<perm = [{perm}]>({{}})",
        "reshape": "Reshape({}, shape)",
    }
    lines, last = [first], "t1"
    for number, step in enumerate(steps.split(), 2):
        last, before = f"t{number}", last
        lines.append(f"{last} = {nodes[step].format(before)}")
    lines.append(f"prepared = Identity({last})")
    mean, deviation = (", ".join(map(str, p[name])) for name in ("mean", "deviation"))
    front = parser.parse_model(
        f"{HEADER} before (uint8[batch, 8, 8, 3] pixels) => (float[batch, 3, 8, 8] prepared) "
        "<int64[4] shape = {-1, 3, 8, 8}, uint8 whole = {255}, "
        f"int64[3] order = {{2, 1, 0}}, float scale = {{255.0}}, float[3] mean = {{{mean}}}, "
        f"float[3] deviation = {{{deviation}}}> {{ " + "\n".join(lines) + " }"
    )
    return compose.merge_models(front, given("8.1", who), io_map=[("prepared", "x")])


@pytest.mark.parametrize("who", STUDENTS)
def test_preparation(who: str) -> None:
    accepted("8.1", with_preparation(who), who)


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"steps": "gather mean deviation transpose"}, "division by 255 is missing"),
        ({"steps": "gather scale deviation transpose"}, "mean is not subtracted"),
        ({"steps": "gather scale mean transpose"}, "division by the deviation is missing"),
        ({"divide": "Mul"}, "multiplied by the deviation"),
        ({"steps": "other scale mean deviation transpose"}, "channels are in the wrong order"),
        ({"steps": "gather scale transpose"}, "Neither mean nor deviation"),
        ({"perm": "0, 3, 2, 1"}, "Rows and columns are swapped"),
        ({"steps": "gather scale mean deviation reshape"}, "use Transpose"),
        (
            {"first": "t0 = Div(pixels, whole)\n t1 = Cast<to = 1>(t0)", "steps": "gather mean deviation transpose"},
            "Whole numbers were divided",
        ),
        ({"steps": "gather mean deviation scale transpose"}, "Compare the tensor"),
    ],
)
@pytest.mark.parametrize("who", ["ada", "grace", "s-001"])
def test_wrong_preparation_is_named(change: dict[str, str], hint: str, who: str) -> None:
    assert hint in failed("8.1", with_preparation(who, **change), who)


def test_channels_turned_after_the_mean() -> None:
    who = next(w for w in map(str, range(50)) if params("8.1", w)["camera"] == "BGR")
    assert "after the channels were put in order" in failed(
        "8.1", with_preparation(who, "scale mean deviation gather transpose"), who
    )


def test_preparation_with_a_frozen_batch_or_without_any() -> None:
    frozen = with_preparation("ada")
    make_dim_param_fixed(frozen.graph, "batch", 1)
    assert "[1, 8, 8, 3]" in failed("8.1", frozen)
    assert "pixels (uint8)" in " ".join(c.what for c in criteria("8.1", given("8.1")) if not c.passed)
    failed("8.1", onnx.ModelProto(ir_version=8))


# 8.2


def with_answer(who: str, body: str, best: int | None = None) -> onnx.ModelProto:
    p = params("8.2", who)
    best = best or p["best"]
    after = parser.parse_model(
        f"{HEADER} after (float[batch, 8] scores) => (int64[batch, {best}] id, float[batch, {best}] probability) "
        f"<int64[8] ids = {{{', '.join(map(str, p['ids']))}}}, float t = {{{float(p['temperature'])}}}, "
        f"int64[1] k = {{{best}}}> {{ {body} }}"
    )
    return compose.merge_models(given("8.2", who), after, io_map=[("y", "scores")])


ANSWER = """c = Div(scores, t)
    all = Softmax<axis = 1>(c)
    probability, place = TopK<axis = 1>(all, k)
    id = Gather<axis = 0>(ids, place)"""


@pytest.mark.parametrize("who", STUDENTS)
def test_answer(who: str) -> None:
    accepted("8.2", with_answer(who, ANSWER), who)


@pytest.mark.parametrize(
    ("old", "new", "hint"),
    [
        ("Div(scores, t)", "Identity(scores)", "temperature is missing"),
        ("Div(scores, t)", "Mul(scores, t)", "multiplied by the temperature"),
        ("Softmax<axis = 1>(c)", "Identity(c)", "scores divided by the temperature: a softmax is missing"),
        ("c = Div(scores, t)\n    all = Softmax<axis = 1>(c)", "all = Identity(scores)", "a softmax is missing"),
        ("c = Div(scores, t)\n    all = Softmax<axis = 1>(c)", "c = Softmax<axis = 1>(scores)\n all = Div(c, t)", "before the softmax"),
        ("all = Softmax<axis = 1>(c)\n    probability, place = TopK<axis = 1>(all, k)",
         "v, place = TopK<axis = 1>(c, k)\n probability = Softmax<axis = 1>(v)", "over all classes"),
        ("Gather<axis = 0>(ids, place)", "Identity(place)", "positions"),
        ("TopK<axis = 1>(all, k)", "TopK<axis = 1, largest = 0>(all, k)", "smallest"),
    ],
)  # fmt: skip
def test_wrong_answer_is_named(old: str, new: str, hint: str) -> None:
    assert old in ANSWER
    for who in ("ada", "emmy"):
        assert hint in failed("8.2", with_answer(who, ANSWER.replace(old, new)), who)


def test_answers_with_a_frozen_batch() -> None:
    """Also one that is as large as a row: a check with a square input would not see it."""
    for batch in (1, 6):
        frozen = with_answer("ada", ANSWER)
        make_dim_param_fixed(frozen.graph, "batch", batch)
        assert f"[{batch}, 6]" in failed("8.2", frozen)


def test_wrong_number_of_classes() -> None:
    assert "shape" in " ".join(c.what for c in criteria("8.2", with_answer("ada", ANSWER, best=1)) if not c.passed)
    assert "id (int64)" in " ".join(c.what for c in criteria("8.2", given("8.2")) if not c.passed)


# 8.3

REPLACED = {
    ("HardSwish", "NNAPI"): "a = Mul x sixth; b = Add a half; c = Clip b zero one; y = Mul x c",
    ("Mish", "NNAPI"): "a = Exp x; b = Add a one; c = Log b; d = Tanh c; y = Mul x d",
    ("Softsign", "NNAPI"): "a = Abs x; b = Add a one; y = Div x b",
    ("HardSwish", "CoreML MLProgram"): "a = Mul x sixth; b = Add a half; c = Clip b zero one; y = Mul x c",
    ("Mish", "CoreML MLProgram"): "a = Softplus x; b = Tanh a; y = Mul x b",
    ("Softsign", "CoreML MLProgram"): "a = Sub zero x; b = Max x a; c = Add b one; y = Div x c",
}
CONSTANTS = {"one": 1, "half": 0.5, "sixth": 1 / 6, "zero": 0}


def variant(who: str, steps: str = "", only: int | None = None, fix: bool = True) -> onnx.ModelProto:
    """The handed-out model with its activations (or only one of them) written in these steps."""
    p, model = params("8.3", who), given("8.3", who)
    steps = steps or REPLACED[p["activation"], p["accelerator"]]
    nodes, seen = [], 0
    for node in model.graph.node:
        if node.op_type != p["activation"] or (seen := seen + 1) - 1 not in ([only] if only is not None else [0, 1]):
            nodes.append(node)
            continue
        names = {"x": node.input[0], "y": node.output[0]} | {name: name for name in CONSTANTS}
        for step in steps.split("; "):
            output, _, op, *inputs = step.split()
            names.setdefault(output, f"{node.name}_{output}")
            nodes.append(helper.make_node(op, [names[i] for i in inputs], [names[output]], names[output]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(np.float32(v), n) for n, v in CONSTANTS.items())
    if fix:
        make_dim_param_fixed(model.graph, "batch", 1)
    return model


@functools.cache
def student_with(activation: str, accelerator: str) -> str:
    want = {"activation": activation, "accelerator": accelerator}
    return next(w for w in map(str, range(300)) if want.items() <= params("8.3", w).items())


@pytest.mark.parametrize(("activation", "accelerator"), REPLACED)
def test_variant(activation: str, accelerator: str) -> None:
    who = student_with(activation, accelerator)
    accepted("8.3", variant(who), who)
    assert failed("8.3", variant(who, fix=False), who).count("make_dim_param_fixed") == 1
    assert "still there: activate_2" in failed("8.3", variant(who, only=0), who)
    assert "were taken out" in failed("8.3", variant(who, "y = Max x x"), who)


def test_operators_that_the_other_accelerator_has() -> None:
    """NNAPI has no Softplus, CoreML no Abs."""
    nnapi, coreml = student_with("Mish", "NNAPI"), student_with("Softsign", "CoreML MLProgram")
    assert "lacks Softplus" in failed("8.3", variant(nnapi, REPLACED["Mish", "CoreML MLProgram"]), nnapi)
    assert "lacks Abs" in failed("8.3", variant(coreml, REPLACED["Softsign", "NNAPI"]), coreml)


@pytest.mark.parametrize(
    ("activation", "steps", "hint"),
    [
        ("HardSwish", "a = Mul x half; y = Mul x a", "Compare each replacement"),
        ("HardSwish", "a = Mul x sixth; b = Add a half; y = Clip b zero one", "factor x is missing"),
        ("HardSwish", "a = Mul x sixth; b = Add a half; y = Mul x b", "limits 0 and 1 are missing"),
        ("HardSwish", "a = Mul x sixth; b = Add a half; c = Mul x b; y = Clip c zero one", "limits belong around"),
        ("Mish", "a = Softplus x; y = Tanh a", "factor x is missing"),
        ("Mish", "a = Softplus x; y = Mul x a", "Tanh is missing"),
        ("Softsign", "a = Abs x; y = Div x a", "1 is missing"),
    ],
)
def test_forgotten_part_of_an_activation_is_named(activation: str, steps: str, hint: str) -> None:
    who = student_with(activation, "NNAPI")
    assert hint in failed("8.3", variant(who, steps), who)


def test_a_yes_is_not_bought_with_nodes_that_do_nothing() -> None:
    """All work in operators that the accelerator lacks, and behind them many nodes that it takes."""
    who = student_with("HardSwish", "NNAPI")
    inner = given("8.3", who).graph
    del inner.node[1], inner.node[2]  # the two HardSwish
    sigmoid = {"alpha": 1 / 6, "beta": 0.5}
    parts = [
        [helper.make_node("HardSigmoid", [f"c{i}"], [f"h{i}"], **sigmoid), helper.make_node("Einsum", [f"c{i}", f"h{i}"], [f"a{i}"], equation="nchw,nchw->nchw")]
        for i in (1, 2)
    ]  # fmt: skip
    convs = [helper.make_node("FusedConv", list(n.input), list(n.output), domain="com.microsoft", kernel_shape=[3, 3],
                              pads=[1, 1, 1, 1]) for n in inner.node if n.op_type == "Conv"]  # fmt: skip
    nodes = [convs[0], *parts[0], convs[1], *parts[1], helper.make_node("GlobalAveragePool", ["a2"], ["z0"])]
    nodes += [helper.make_node("Add", [f"z{i}", "zero"], [f"z{i + 1}" if i < 39 else "y"]) for i in range(40)]
    graph = variant(who).graph
    del graph.node[:]
    graph.node.extend(nodes)
    known = {"c": [1, 6, 8, 8], "h": [1, 6, 8, 8], "a": [1, 6, 8, 8], "z": [1, 4, 1, 1]}
    for name in [n.output[0] for n in nodes[:-1]]:
        shape = [1, 4, 8, 8] if name in ("c2", "h2", "a2") else known[name[0]]
        graph.value_info.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    opsets = [helper.make_opsetid("", 22), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    found = {c.what: c.passed for c in criteria("8.3", model, who)}
    assert found.pop("NNAPI takes every node") is False
    assert all(found.values()), "it fails for no other reason"


def test_constants_as_nodes_get_a_hint() -> None:
    who = student_with("HardSwish", "NNAPI")
    model = variant(who)
    for tensor in list(model.graph.initializer):
        if tensor.name in CONSTANTS:
            model.graph.initializer.remove(tensor)
            model.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
    assert "write their values as initializers" in failed("8.3", model, who)


def test_what_was_handed_out_and_other_models() -> None:
    assert "0 of 5 nodes" in failed("8.3", given("8.3"))
    failed("8.3", onnx.ModelProto(ir_version=8))
    constant = variant("ada")
    del constant.graph.node[:]
    constant.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 4, 1, 1), np.float32), "y"))
    assert "usability checker fails" in failed("8.3", constant)
    hidden = variant("ada")
    hidden.functions.append(helper.make_function("own", "f", ["a"], ["b"], [], []))
    failed("8.3", hidden)


# 8.4


def settings_for(who: str) -> dict[str, Any]:
    """What is farthest from both limits."""
    p, best = params("8.4", who), {}
    for wait in np.linspace(0, 40, 61):
        found = ch08._served(p, 16, float(wait), 5)
        margin = min(1 - np.percentile(found.latencies, 99) / p["p99_ms"], 5 * (p["busy"] - found.busy))
        best[float(wait)] = margin
    return {"largest_batch": 16, "wait_ms": max(best, key=best.get)}


@pytest.mark.parametrize("who", [*STUDENTS, *map(str, range(12))])
def test_settings(who: str) -> None:
    accepted("8.4", settings_for(who), who)


def test_no_settings_suit_most_students() -> None:
    """So that a number handed on is worth little."""
    limits = [params("8.4", str(i)) for i in range(30)]
    for wait in (5, 7, 9, 11, 14, 18):
        found = [(p, ch08._served(p, 16, wait, 3)) for p in limits]
        fits = [np.percentile(f.latencies, 99) <= p["p99_ms"] and f.busy <= p["busy"] for p, f in found]
        assert sum(fits) < len(limits) / 2, wait


@pytest.mark.parametrize("who", STUDENTS)
def test_settings_beyond_the_limits(who: str) -> None:
    right = settings_for(who)
    assert "let requests wait longer" in failed("8.4", {**right, "wait_ms": 0}, who)
    assert "lower wait_ms" in failed("8.4", {**right, "wait_ms": 3 * right["wait_ms"]}, who)
    assert "allow larger ones" in failed("8.4", {"largest_batch": 1, "wait_ms": 0}, who)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("largest_batch", 0), ("largest_batch", 33), ("largest_batch", True), ("largest_batch", "16"),
        ("largest_batch", 10**30), ("largest_batch", 8.0), ("wait_ms", -1), ("wait_ms", math.nan),
        ("wait_ms", math.inf), ("wait_ms", None), ("wait_ms", False), ("wait_ms", 10**400), ("wait_ms", [1]),
    ],
)  # fmt: skip
def test_absurd_settings(key: str, value: Any) -> None:
    assert "It is" in failed("8.4", {"largest_batch": 8, "wait_ms": 1, key: value})


def test_settings_of_another_shape() -> None:
    failed("8.4", {"largest_batch": 8})
    failed("8.4", [8, 1])


# 8.5


def statuses(who: str) -> dict[str, int]:
    p = params("8.5", who)
    return {letter: ch08._status(request, p["limits"]) for letter, request in p["requests"].items()}


@pytest.mark.parametrize("who", STUDENTS)
def test_every_status_occurs_and_each_wrong_one_is_explained(who: str) -> None:
    right = statuses(who)
    assert set(right.values()) == set(ch08._STATUS)
    accepted("8.5", right, who)
    for letter, status in right.items():
        other = 200 if status != 200 else 422
        hint = failed("8.5", {**right, letter: other}, who)
        assert ("nothing is wrong" in hint) if status == 200 else (ch08._STATUS[status] in hint)


@pytest.mark.parametrize("value", ["200", 404, True, None, [200], 200.5, math.nan])
def test_statuses_of_another_kind(value: Any) -> None:
    assert "without quotes" in failed("8.5", {**statuses("ada"), "A": value})


def test_answers_of_another_shape() -> None:
    failed("8.5", {"A": 200})
    failed("8.5", [200] * 10)
