"""The checks of exercise 03: right answers pass, and each likely mistake gets a hint that names it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import pytest
from answers import STUDENTS, accepted, criteria, failed, given, params
from onnx import numpy_helper

from course_utils.exercises import ch03, tasks_of

HEAD = '<ir_version: 10, opset_import: ["": 18]>'


def parsed(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(HEAD + text)


def gate(p: dict[str, Any], *, mean: str = "ReduceMean<keepdims=0>", test: str = "Greater", rows: str = "batch"):
    return parsed(f"""g (float[{rows}, 4] x) => (float[{rows}, 4] y) {{
        m = {mean}(x)
        t = Constant<value_float={p["threshold"]}>()
        above = {test}(m, t)
        y = If(above)<
            then_branch = up () => (float[{rows}, 4] a) {{
                u = Constant<value_float={p["up"]}>()
                a = Mul(x, u) }},
            else_branch = down () => (float[{rows}, 4] b) {{
                d = Constant<value_float={p["down"]}>()
                s = Constant<value_float={p["shift"]}>()
                scaled = Mul(x, d)
                b = Add(scaled, s) }}
        > }}""")


def loop(p: dict[str, Any], *, direction: int = 0) -> onnx.ModelProto:
    return parsed(f"""g (float[length, 3] x) => (float[3] y) <float[3] zero = {{0, 0, 0}}> {{
        y = Scan<num_scan_inputs = 1, scan_input_directions = [{direction}],
            body = step (float[3] h, float[3] row) => (float[3] after) {{
                a = Constant<value_float={p["a"]}>()
                b = Constant<value_float={p["b"]}>()
                c = Constant<value_float={p["c"]}>()
                ar = Mul(a, row)
                bh = Mul(b, h)
                sum = Add(ar, bh)
                all = Add(sum, c)
                after = Tanh(all) }}
        >(zero, x) }}""")


def unrolled(p: dict[str, Any], steps: int, length: str | int = "length") -> onnx.ModelProto:
    lines = []
    for i in range(steps):
        lines += [
            f"i{i} = Constant<value_int={i}>()",
            f"r{i} = Gather<axis=0>(x, i{i})",
            f"ar{i} = Mul(a, r{i})",
            f"bh{i} = Mul(b, {f'h{i - 1}' if i else 'zero'})",
            f"s{i} = Add(ar{i}, bh{i})",
            f"t{i} = Add(s{i}, c)",
            f"{'y' if i == steps - 1 else f'h{i}'} = Tanh(t{i})",
        ]
    return parsed(f"""g (float[{length}, 3] x) => (float[3] y)
        <float a = {{{p["a"]}}}, float b = {{{p["b"]}}}, float c = {{{p["c"]}}}, float[3] zero = {{0, 0, 0}}>
        {{ {chr(10).join(lines)} }}""")


def hump(p: dict[str, Any], *, scale: str = "Div", rows: str = "batch") -> onnx.ModelProto:
    return parsed(f"""g (float[{rows}, 4] x) => (float[{rows}, 4] y)
        <float w = {{{p["width"]}}}, float e = {{{p["power"]}}}, float one = {{1}}, float height = {{{p["height"]}}},
         float slope = {{{p["slope"]}}}> {{
        ratio = {scale}(x, w)
        power = Pow(ratio, e)
        below = Add(power, one)
        bump = Div(height, below)
        tilt = Mul(slope, x)
        y = Add(bump, tilt) }}""")


def lies(p: dict[str, Any]) -> dict[str, list[float]]:
    inputs = [[a, b, -0.1, 0.1] for a in (-4.0, 0.0) for b in (-3.0, 4.0)]
    first, second = p["path"]
    wanted = {"first": (not first, second), "second": (first, not second), "both": (not first, not second)}
    return {k: next(x for x in inputs if ch03.route(np.array(x), p)[1] == w) for k, w in wanted.items()}


def healed(who: str, *, norm: bool = True, drop: bool = True) -> onnx.ModelProto:
    model = given("3.5", who)
    if norm:
        del node(model, "BatchNormalization").attribute[:]
        del node(model, "BatchNormalization").output[1:]
    if drop:
        del node(model, "Dropout").input[2:]
    return model


def node(model: onnx.ModelProto, op: str) -> onnx.NodeProto:
    return next(n for n in model.graph.node if n.op_type == op)


RIGHT = {
    "3.1": lambda who: gate(params("3.1", who)),
    "3.2": lambda who: loop(params("3.2", who)),
    "3.3": lambda who: hump(params("3.3", who)),
    "3.4": lambda who: lies(params("3.4", who)),
    "3.5": healed,
}


@pytest.mark.parametrize("who", STUDENTS)
@pytest.mark.parametrize("task_id", RIGHT)
def test_right_answer_passes(task_id: str, who: str) -> None:
    accepted(task_id, RIGHT[task_id](who), who)


def test_tasks_are_complete_and_personal() -> None:
    assert list(tasks_of(3)) == list(RIGHT)
    for task_id in RIGHT:
        assert len({str(params(task_id, who)) for who in STUDENTS}) > 1
        assert params(task_id, "ada") == params(task_id, "ada")


@pytest.mark.parametrize("task_id", ["3.1", "3.2", "3.3", "3.5"])
def test_empty_model_and_answer_of_somebody_else(task_id: str) -> None:
    failed(task_id, onnx.ModelProto(ir_version=8))
    failed(task_id, RIGHT[task_id]("grace"))


@pytest.mark.parametrize("task_id", ["3.1", "3.2", "3.3"])
def test_model_for_one_size_only(task_id: str) -> None:
    model = RIGHT[task_id]("ada")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    assert "Dim.DYNAMIC" in failed(task_id, model)


# 3.1


@pytest.mark.parametrize("who", STUDENTS)
def test_gate_with_one_branch(who: str) -> None:
    p = params("3.1", who)
    upper = parsed(f"g (float[n, 4] x) => (float[n, 4] y) {{ u = Constant<value_float={p['up']}>()  y = Mul(x, u) }}")
    assert "takes the upper branch whatever comes" in failed("3.1", upper, who)
    lower = parsed(
        f"g (float[n, 4] x) => (float[n, 4] y) <float d = {{{p['down']}}}, float s = {{{p['shift']}}}>"
        "{ a = Mul(x, d)  y = Add(a, s) }"
    )
    assert "takes the lower branch whatever comes" in failed("3.1", lower, who)
    assert len([c for c in criteria("3.1", upper, who) if not c.passed]) == 1, "the other side is right"


@pytest.mark.parametrize("who", STUDENTS)
def test_gate_with_a_wrong_decision(who: str) -> None:
    p = params("3.1", who)
    assert "exchanged" in failed("3.1", gate(p, test="Less"), who)
    assert "compared with 0" in failed("3.1", gate({**p, "threshold": 0.0}), who)
    assert "sum with the threshold" in failed("3.1", gate(p, mean="ReduceSum<keepdims=0>"), who)
    assert "shift of the lower branch" in failed("3.1", gate({**p, "shift": 0.0}), who)
    assert "subtracted in place of added" in failed("3.1", gate({**p, "shift": -p["shift"]}), who)


def test_gate_that_decides_for_each_row() -> None:
    p = params("3.1")
    model = parsed(f"""g (float[n, 4] x) => (float[n, 4] y) <int64[1] axis = {{1}}, float t = {{{p["threshold"]}}},
        float u = {{{p["up"]}}}, float d = {{{p["down"]}}}, float s = {{{p["shift"]}}}> {{
        m = ReduceMean(x, axis)
        above = Greater(m, t)
        up = Mul(x, u)
        scaled = Mul(x, d)
        down = Add(scaled, s)
        y = Where(above, up, down) }}""")
    assert "row by row" in failed("3.1", model)


def test_gate_that_looks_at_the_first_row() -> None:
    model = gate(params("3.1"))
    next(n for n in model.graph.node if n.op_type == "ReduceMean").input[0] = "row"
    model.graph.node.insert(0, onnx.helper.make_node("Gather", ["x", "first"], ["row"], axis=0))
    model.graph.initializer.append(numpy_helper.from_array(np.array(0), "first"))
    assert "first row only" in failed("3.1", model)


def test_gate_by_where_is_as_good() -> None:
    p = params("3.1")
    model = parsed(f"""g (float[n, 4] x) => (float[n, 4] y) <float t = {{{p["threshold"]}}},
        float u = {{{p["up"]}}}, float d = {{{p["down"]}}}, float s = {{{p["shift"]}}}> {{
        m = ReduceMean<keepdims=0>(x)
        above = Greater(m, t)
        up = Mul(x, u)
        scaled = Mul(x, d)
        down = Add(scaled, s)
        y = Where(above, up, down) }}""")
    assert all(c.passed for c in criteria("3.1", model))


# 3.2


@pytest.mark.parametrize("steps", [1, 2, 5, 10])
def test_loop_written_out(steps: int) -> None:
    hints = failed("3.2", unrolled(params("3.2"), steps))
    assert f"{steps} times Tanh" in hints
    assert f"It reads {steps} rows" in hints


@pytest.mark.parametrize("who", STUDENTS)
def test_loop_with_a_wrong_step(who: str) -> None:
    p = params("3.2", who)
    assert "c is missing" in failed("3.2", loop({**p, "c": 0.0}), who)
    assert "a and b are exchanged" in failed("3.2", loop({**p, "a": p["b"], "b": p["a"]}), who)
    assert "not carried on" in failed("3.2", loop({**p, "b": 0.0}), who)
    assert "reverse order" in failed("3.2", loop(p, direction=1), who)


def test_loop_with_c_outside_of_the_tanh() -> None:
    p = params("3.2")
    model = loop(p)
    body = next(a.g for a in model.graph.node[0].attribute if a.name == "body")
    steps = {n.output[0]: n for n in body.node}
    steps["after"].op_type, steps["all"].op_type = "Add", "Tanh"
    steps["all"].input[:], steps["after"].input[:] = ["sum"], ["all", "c"]
    assert "outside of the tanh" in failed("3.2", model)


def test_long_loop_written_out_beside_a_loop_that_does_nothing() -> None:
    """Zeros behind the rows, forty steps, and the state after the last real row: right up to forty rows."""
    p = params("3.2")
    model = unrolled(p, 40)
    for node in model.graph.node:
        node.input[:] = ["padded" if name == "x" else name for name in node.input]
        node.output[:] = ["h39" if name == "y" else name for name in node.output]
    zeros = ", ".join(["0"] * 120)
    before = parsed(f"""g (float[length, 3] x) => (float[n, 3] padded) <float[40, 3] zeros = {{{zeros}}}> {{
        padded = Concat<axis = 0>(x, zeros) }}""")
    behind = parsed("""g (float[40, 3] states) => (float[3] y)
        <int64 one = {1}, int64 zero_i = {0}, float[3] nothing = {0, 0, 0}> {
        sizes = Shape(x)
        rows = Gather<axis = 0>(sizes, zero_i)
        last = Sub(rows, one)
        found = Gather<axis = 0>(states, last)
        idle = Scan<num_scan_inputs = 1, body = step (float[3] h, float[3] row) => (float[3] after) {
            after = Identity(h) }>(nothing, x)
        y = Add(found, idle) }""")
    rows = [onnx.helper.make_node("Unsqueeze", [f"h{i}", "first"], [f"row{i}"]) for i in range(40)]
    stack = onnx.helper.make_node("Concat", [f"row{i}" for i in range(40)], ["states"], axis=0)
    nodes = [*before.graph.node, *model.graph.node, *rows, stack, *behind.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend([*before.graph.initializer, *behind.graph.initializer])
    model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "first"))
    found = criteria("3.2", model)
    assert [c.what for c in found if c.what.startswith("right with") and c.passed], "short ones are right"
    assert any(c.what == "the loop is alive" and c.passed for c in found)
    failed("3.2", model)


def test_loop_that_returns_every_step() -> None:
    p = params("3.2")
    model = loop(p)
    scan = model.graph.node[0]
    del scan.output[:]
    scan.output.extend(["last", "y"])
    body = next(a.g for a in scan.attribute if a.name == "body")
    body.node.append(onnx.helper.make_node("Identity", ["after"], ["noted"]))
    body.output.append(onnx.helper.make_tensor_value_info("noted", 1, [3]))
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("y", 1, ["length", 3]))
    assert "returns all steps" in failed("3.2", model)


# 3.3


@pytest.mark.parametrize("who", STUDENTS)
def test_hump_with_a_wrong_translation(who: str) -> None:
    p = params("3.3", who)
    assert "width is not in it" in failed("3.3", hump({**p, "width": 1.0}), who)
    assert "height is not in it" in failed("3.3", hump({**p, "height": 1.0}), who)
    assert "takes the square" in failed("3.3", hump({**p, "power": 2}), who)
    assert "multiplies by the width" in failed("3.3", hump(p, scale="Mul"), who)
    assert "slope is missing" in failed("3.3", hump({**p, "slope": 0.0}), who)
    exchanged = {**p, "width": p["height"], "height": p["width"]}
    if p["width"] != p["height"]:
        assert "exchanged" in failed("3.3", hump(exchanged), who)


def test_hump_without_the_one() -> None:
    model = hump(params("3.3"))
    one = next(t for t in model.graph.initializer if t.name == "one")
    one.CopyFrom(numpy_helper.from_array(np.array(0, np.float32), "one"))
    assert "1 in the denominator" in failed("3.3", model)


def test_hump_left_as_it_is() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 18, "scroll": 1]> g (float[n, 4] x) => (float[n, 4] y) '
        "{ y = scroll.hump(x) }"
    )
    assert "scroll::hump is in the file" in failed("3.3", model)


def test_hump_for_as_many_rows_as_the_check_might_feed() -> None:
    model = hump(params("3.3"))
    shape = numpy_helper.from_array(np.array([5, 4]), "shape")
    model.graph.initializer.append(shape)
    model.graph.node[-1].output[0] = "flat"
    model.graph.node.append(onnx.helper.make_node("Reshape", ["flat", "shape"], ["y"]))
    failed("3.3", model)


def test_hump_as_a_function_of_the_model_is_as_good() -> None:
    p = params("3.3")
    model = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["": 18, "scroll": 1]>
        g (float[n, 4] x) => (float[n, 4] y) <float slope = {{{p["slope"]}}}> {{
            bump = scroll.hump(x)
            tilt = Mul(slope, x)
            y = Add(bump, tilt) }}
        <domain: "scroll", opset_import: ["": 18]>
        hump (a) => (b) {{
            w = Constant<value_float={p["width"]}>()
            e = Constant<value_float={float(p["power"])}>()
            one = Constant<value_float=1.0>()
            height = Constant<value_float={p["height"]}>()
            ratio = Div(a, w)
            power = Pow(ratio, e)
            below = Add(power, one)
            b = Div(height, below) }}""")
    assert [c for c in criteria("3.3", model) if not c.passed] == []


# 3.4


@pytest.mark.parametrize("value", [None, [], 3, {}, {"first": [0, 0, 0, 0]}, math.nan])
def test_lies_of_another_shape(value: Any) -> None:
    assert "exactly those keys" in failed("3.4", value)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (None, "four numbers"),
        ([1, 2, 3], "four numbers"),
        (["1", 2, 3, 4], "four numbers"),
        ([True, 2, 3, 4], "four numbers"),
        ([math.nan, 0, 0, 0], "between -5 and 5"),
        ([math.inf, 0, 0, 0], "between -5 and 5"),
        ([10**400, 0, 0, 0], "between -5 and 5"),
        ([5.1, 0, 0, 0], "between -5 and 5"),
    ],
)
def test_lie_that_is_no_input(value: Any, hint: str) -> None:
    assert hint in failed("3.4", {**lies(params("3.4")), "both": value})


@pytest.mark.parametrize("who", STUDENTS)
def test_lies_that_are_none_or_in_the_wrong_place(who: str) -> None:
    p = params("3.4", who)
    right = lies(p)
    truth = next(
        x
        for x in ([a, b, -0.1, 0.1] for a in (-4.0, 0.0) for b in (-3.0, 4.0))
        if list(ch03.route(np.array(x), p)[1]) == p["path"]
    )
    assert "the file is right" in failed("3.4", {**right, "first": truth}, who)
    assert "Here both decisions differ from" in failed("3.4", {**right, "first": right["both"]}, who)
    swapped = {**right, "first": right["second"], "second": right["first"]}
    assert "Here the first decision differs from" in failed("3.4", swapped, who)


def test_every_student_has_counterexamples() -> None:
    for who in map(str, range(200)):
        assert all(c.passed for c in criteria("3.4", lies(params("3.4", who)), who))


# 3.5


def test_half_healed() -> None:
    assert "Dropout is still switched on" in failed("3.5", healed("ada", drop=False))
    assert "takes mean and variance from the batch" in failed("3.5", healed("ada", norm=False))
    assert "Dropout is still switched on" in failed("3.5", given("3.5"))


@pytest.mark.parametrize("who", STUDENTS)
def test_node_taken_out(who: str) -> None:
    model = healed(who)
    node(model, "Relu").input[0] = "h"
    model.graph.node.remove(node(model, "BatchNormalization"))
    assert "BatchNormalization is gone" in failed("3.5", model, who)
    model = healed(who)
    list(model.graph.node)[-1].input[0] = "active"
    model.graph.node.remove(node(model, "Dropout"))
    assert all(c.passed for c in criteria("3.5", model, who)), "without Dropout it is the same in eval mode"


@pytest.mark.parametrize("scale", ["up", "down"])
def test_dropout_replaced_by_a_factor(scale: str) -> None:
    model, keep = healed("ada"), 1 - params("3.5")["ratio"]
    factor = np.array(1 / keep if scale == "up" else keep, np.float32)
    model.graph.initializer.append(numpy_helper.from_array(factor, "factor"))
    drop = node(model, "Dropout")
    drop.op_type = "Mul"
    drop.input[1] = "factor"
    hint = "scaled by 1 / (1 - ratio)" if scale == "up" else "scaled by 1 - ratio"
    assert hint in failed("3.5", model)


def test_norm_switched_but_its_outputs_left() -> None:
    model = given("3.5")
    del node(model, "Dropout").input[2:]
    node(model, "BatchNormalization").attribute[0].i = 0
    failed("3.5", model)
