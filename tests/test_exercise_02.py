"""The checks of exercise 02: right answers pass, and each likely mistake gets a hint that names it."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import onnx
import pytest
from answers import STUDENTS, criteria, damaged, failed, given, hints, nearly, params
from onnx import helper, numpy_helper, version_converter

import course_utils as cu
from course_utils.exercises import task
from course_utils.exercises.ch02 import gate_inputs, model_heads
from course_utils.handin.points import task_points
from course_utils.lab.opsets import editions_of
from course_utils.running import run, session_for

# Right answers, made with onnx alone: the checks read histories with the course's own helper.


def versions(operator: str) -> list[int]:
    return sorted(
        s.since_version for s in onnx.defs.get_all_schemas_with_history() if (s.name, s.domain) == (operator, "")
    )


def right_history(who: str) -> dict[str, Any]:
    p = params("2.1", who)
    moved = p["moved"]
    as_input = (
        v
        for v in versions(moved["operator"])
        if moved["name"] in [i.name for i in onnx.defs.get_schema(moved["operator"], v).inputs]
    )
    return {
        "introduced": {name: versions(name)[0] for name in p["newcomers"]},
        "versions": [v for v in versions(p["restless"]) if v <= 24],
        "moved": next(as_input),
    }


def history_from_the_tables(who: str) -> dict[str, Any]:
    """With the course's tables; whole numbers come out as floats."""
    p = params("2.1", who)
    moved = cu.operator_history(p["moved"]["operator"])
    is_input = moved["inputs"].str.split(", ").apply(lambda names: p["moved"]["name"] in names)
    restless = cu.operator_history(p["restless"])["opset"].astype(float)
    return {
        "introduced": {n: float(cu.operator_history(n)["opset"].min()) for n in reversed(p["newcomers"])},
        "versions": sorted(restless[restless <= 24].tolist()),
        "moved": float(moved[is_input]["opset"].min()),
    }


def history(key: str, change: Any) -> dict[str, Any]:
    """Ada's right answer, but for one key. change: what to make of its value."""
    answer = right_history("ada")
    return {**answer, key: change(answer[key])}


def of_one_newcomer(value: Any) -> dict[str, Any]:
    return history("introduced", lambda found: {**found, next(iter(found)): value})


def a_changed_newcomer() -> dict[str, Any]:
    name = next(n for n in params("2.1")["newcomers"] if len(versions(n)) > 1)
    return history("introduced", lambda found: {**found, name: versions(name)[-1]})


def another_version(step: int) -> dict[str, Any]:
    """moved is the version of the operator before or after the right one."""
    known = versions(params("2.1")["moved"]["operator"])
    return history("moved", lambda v: known[known.index(v) + step])


def right_lowest(who: str) -> dict[str, Any]:
    model = given("2.2", who)
    stated = model.opset_import[0].version
    used = {n.op_type: onnx.defs.get_schema(n.op_type, stated).since_version for n in model.graph.node}
    return {"versions": used, "opset": max(used.values())}


def lowest_from_the_history(who: str) -> dict[str, Any]:
    """The newest version up to the file's opset, from the lists of versions, in another order, as floats."""
    model = given("2.2", who)
    stated = model.opset_import[0].version
    used = {n.op_type: float(max(v for v in versions(n.op_type) if v <= stated)) for n in reversed(model.graph.node)}
    return {"opset": max(used.values()), "versions": used}


def lowest(**changed: Any) -> dict[str, Any]:
    return {**right_lowest("ada"), **changed}


def versions_by(which: Any) -> dict[str, int]:
    return {n.op_type: which(versions(n.op_type)) for n in given("2.2").graph.node}


def right_converted(who: str) -> onnx.ModelProto:
    return version_converter.convert_version(given("2.3", who), params("2.3", who)["target"])


def converted_by_hand(
    who: str, *, softmax: str = "over all", mean_axis: int = 2, first: str = "shares", keep_weight: bool = True
) -> onnx.ModelProto:
    """Written anew for the target. softmax: "over all", or the axis of the new Softmax."""
    target, old = params("2.3", who)["target"], given("2.3", who)
    axes = "(h)" if target < 18 else "(h, mean_axis)"
    attribute = f"<axes = [{mean_axis}]>" if target < 18 else "<keepdims = 1>"
    flat = (
        "flat = Flatten<axis = 1>(h)  soft = Softmax<axis = 1>(flat)  sizes = Shape(h)  shares = Reshape(soft, sizes)"
    )
    shares = flat if softmax == "over all" else f"shares = Softmax<axis = {softmax}>(h)"
    second = "mean" if first == "shares" else "shares"
    width = params("2.3", who)["width"]
    model = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["": {target}]>
        g (float[batch, 3, 4] x) => (float[batch, 3, {width}] y) <int64[1] mean_axis = {{{mean_axis}}}> {{
            h = MatMul(x, weight)
            {shares}
            mean = ReduceMean{attribute}{axes}
            y = Sub({first}, {second}) }}""")
    model.graph.initializer.extend(old.graph.initializer)
    if not keep_weight:
        tensor = model.graph.initializer[-1]
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.01), tensor.name))
    return model


def converted_with_exp(who: str) -> onnx.ModelProto:
    """Softmax from its formula, so that no node means something else in any opset."""
    target, old, width = params("2.3", who)["target"], given("2.3", who), params("2.3", who)["width"]
    how = "<axes = [2]>(h)" if target < 18 else "(h, last)"
    model = onnx.parser.parse_model(f"""<ir_version: 9, opset_import: ["": {target}]>
        g (float[batch, 3, 4] x) => (float[batch, 3, {width}] y) <int64[2] all = {{1, 2}}, int64[1] last = {{2}}> {{
            h = MatMul(x, weight)
            e = Exp(h)
            total = ReduceSum(e, all)
            shares = Div(e, total)
            mean = ReduceMean{how}
            y = Sub(shares, mean) }}""")
    model.graph.initializer.extend(old.graph.initializer)
    return model


def only_the_number() -> onnx.ModelProto:
    model = given("2.3")
    model.opset_import[0].version = params("2.3")["target"]
    return model


def right_ir(who: str) -> onnx.ModelProto:
    model = given("2.4", who)
    model.ir_version = params("2.4", who)["device_ir"]
    return model


def oldest_ir_and_notes(who: str) -> onnx.ModelProto:
    model = given("2.4", who)
    model.ir_version = helper.OP_SET_ID_VERSION_MAP["ai.onnx", params("2.4", who)["opset"]]
    model = onnx.shape_inference.infer_shapes(model)
    model.doc_string = "healed"
    return model


def ir(change: Any, version: int | None = None) -> onnx.ModelProto:
    """Ada's right answer, changed. version: another IR version."""
    model = right_ir("ada")
    model.ir_version = model.ir_version if version is None else version
    change(model)
    return model


def other_attribute(model: onnx.ModelProto) -> None:
    model.graph.node[1].attribute[0].i = 0


def other_name(model: onnx.ModelProto) -> None:
    model.graph.node[0].name = "another"


def other_operator(model: onnx.ModelProto) -> None:
    model.graph.node[1].op_type = "LogSoftmax"


def nan_in_bias(model: onnx.ModelProto) -> None:
    bias = numpy_helper.to_array(model.graph.initializer[1]).copy()
    bias[0] = np.nan
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(bias, "bias"))


def one_weight_more(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "more"))


def other_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "h"
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 3


def other_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 14


def frozen_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1


def right_domains(who: str) -> onnx.ModelProto:
    model = given("2.5", who)
    model.opset_import[0].version = params("2.5", who)["device_opset"]
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def domains_named_anew(who: str) -> onnx.ModelProto:
    """In the other order, "ai.onnx" in full, and the lowest opset that changes no node."""
    model = given("2.5", who)
    lowest = max(max(v for v in versions(n.op_type) if v <= 24) for n in model.graph.node if not n.domain)
    del model.opset_import[:]
    model.opset_import.extend([helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("ai.onnx", lowest)])
    return model


def domains(change: Any) -> onnx.ModelProto:
    model = right_domains("ada")
    change(model)
    return model


def put(index: int, version: int) -> Any:
    def change(model: onnx.ModelProto) -> None:
        model.opset_import[index].version = version

    return change


def drop_foreign(model: onnx.ModelProto) -> None:
    (node,) = (n for n in model.graph.node if n.domain)
    node.op_type, node.domain = "Relu", ""


def define_foreign(model: onnx.ModelProto) -> None:
    (node,) = (n for n in model.graph.node if n.domain)
    body, opset = [helper.make_node("Identity", ["a"], ["b"])], [model.opset_import[0]]
    model.functions.append(helper.make_function("com.microsoft", node.op_type, ["a"], ["b"], body, opset))


def name_it_twice(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("", 17))


def forget_domain(model: onnx.ModelProto) -> None:
    del model.opset_import[1]


def nothing(model: onnx.ModelProto) -> None:
    pass


def gate_of(rows: dict[int, list[float]], others: float | None = 1.0) -> Any:
    """One input, longer than in the old gate. rows: which row → numbers where the activation reads them, others follow.

    others: the numbers that follow; None counts up from 3.
    """

    def make(who: str) -> dict[str, Any]:
        p = params("2.6", who)
        d = gate_inputs.details(p)
        columns = p["length"] + 2
        read = np.ones((len(rows), columns)) * (0 if others is None else others)
        for at, numbers in rows.items():
            if others is None:
                read[at] = np.arange(columns) + 3 + at
            read[at, : len(numbers)] = [d["limit"] + 4 if n == np.inf else n for n in numbers]
        return {"inputs": [{p["input"]: (d["offset"] + read / d["factor"]).tolist()}]}

    return make


def one_row_of_the_usual_length(who: str) -> dict[str, Any]:
    made = gate_of({0: [0.5, 1.5, 2.5, -9, np.inf]})(who)
    p = params("2.6", who)
    return {"inputs": [{p["input"]: [row[: p["length"]] for row in made["inputs"][0][p["input"]]]}]}


def one_gate(who: str) -> dict[str, Any]:
    return gate_of({0: [0.5, 1.5, 2.5, -9, np.inf], 1: [7, 3, 9]}, None)(who)


def two_gates(who: str) -> dict[str, Any]:
    """One input for the numbers, of the usual length; and a shorter one with three rows for the shapes."""
    p = params("2.6", who)
    d = gate_inputs.details(p)
    numbers = np.full((1, p["length"]), 1.0)
    numbers[0, :5] = 5.5, -10, d["limit"] + 3, 6.5, -60
    shapes = np.arange(3 * (p["length"] - 2)).reshape(3, -1) % 11
    return {"inputs": [{p["input"]: (d["offset"] + part / d["factor"]).tolist()} for part in (numbers, shapes)]}


def old_gate(who: str) -> dict[str, Any]:
    return gate_inputs.old_gate(params("2.6", who))


def old_gate_with(change: Any) -> Any:
    """The old gate's rows, changed: NumPy in, NumPy out."""

    def make(who: str) -> dict[str, Any]:
        name = params("2.6", who)["input"]
        return {"inputs": [{name: change(np.array(old_gate(who)["inputs"][0][name])).tolist()}]}

    return make


RIGHT = {
    "2.1": (right_history, history_from_the_tables),
    "2.2": (right_lowest, lowest_from_the_history),
    "2.3": (right_converted, converted_by_hand, converted_with_exp),
    "2.4": (right_ir, oldest_ir_and_notes),
    "2.5": (right_domains, domains_named_anew),
    "2.6": (one_gate, two_gates),
}

WRONG = {
    "2.1": {
        "a later version": (lambda who: a_changed_newcomer(), r"2 of 3 are right.*it was there before"),
        "nothing happened then": (lambda who: of_one_newcomer(2), r"2 of 3 are right.*nothing happened to its operator"),
        "other operators": (lambda who: history("introduced", lambda v: {"Conv": 1}), r"exactly these operators"),
        "the first one missing": (lambda who: history("versions", lambda v: v[1:]), r"1 versions are missing"),
        "one too new": (lambda who: history("versions", lambda v: [*v, 99]), r"newer than opset 24"),
        "one too many": (lambda who: history("versions", lambda v: sorted([*v, 3])), r"In opset 3 .* not changed"),
        "newest first": (lambda who: history("versions", lambda v: v[::-1]), r"oldest first"),
        "one twice": (lambda who: history("versions", lambda v: [v[0], *v]), r"each version once"),
        "opset 0": (lambda who: history("versions", lambda v: [0, *v]), r"In opset 0 .* not changed"),
        "brought by opset 0": (lambda who: of_one_newcomer(0), r"2 of 3 are right.*nothing happened to its operator"),
        "moved in opset 0": (lambda who: history("moved", lambda v: 0), r"In opset 0 nothing happened"),
        "before it moved": (lambda who: another_version(-1), r"still an attribute"),
        "after it moved": (lambda who: another_version(1), r"for a while"),
        "long before": (lambda who: history("moved", lambda v: -3), r"In opset -3 nothing happened"),
        "text": (lambda who: history("moved", str), r"not a whole number"),
    },
    "2.2": {
        "born": (lambda who: lowest(versions=versions_by(min)), r"opsets that brought the operators"),
        "newest": (
            lambda who: lowest(versions=versions_by(lambda v: max(w for w in v if w <= 24))), r"These are the newest",
        ),
        "the file's": (
            lambda who: lowest(versions=versions_by(lambda v: params("2.2")["stated"])), r"The model says one opset for all",
        ),
        "one wrong": (
            lambda who: lowest(versions={**right_lowest("ada")["versions"], params("2.2")["operators"][0]: 2}),
            r"4 are right. Ask onnx\.defs\.get_schema",
        ),
        "one is 0": (
            lambda who: lowest(versions={**right_lowest("ada")["versions"], params("2.2")["operators"][0]: 0}),
            r"4 are right. Ask onnx\.defs\.get_schema",
        ),
        "no lower": (lambda who: lowest(opset=params("2.2")["stated"]), r"It can go lower"),
        "the youngest": (lambda who: lowest(opset=max(versions_by(min).values())), r"when the youngest operator came"),
        "one too low": (lambda who: lowest(opset=right_lowest("ada")["opset"] - 1), r"the model uses another one"),
        "nan": (lambda who: lowest(opset=math.nan), r"not a whole number"),
        "a list": (lambda who: lowest(versions=[13] * 5), r"It must be a dict with the keys"),
        "an operator missing": (lambda who: lowest(versions={"Relu": 14}), r"It must be a dict with the keys"),
    },
    "2.3": {
        "as handed out": (lambda who: given("2.3"), r"your target is"),
        "only the number": (lambda who: only_the_number(), r"only the number was changed"),
        "another target": (lambda who: version_converter.convert_version(given("2.3"), 14), r"It says 14: your target"),
        "Softmax over axis 1": (lambda who: converted_by_hand(who, softmax="1"), r"with axis=1 it sees one axis"),
        "Softmax over the last": (lambda who: converted_by_hand(who, softmax="-1"), r"it sees the last axis alone"),
        "mean over axis 1": (lambda who: converted_by_hand(who, mean_axis=1), r"over axis 1, not over axis 2"),
        "exchanged": (lambda who: converted_by_hand(who, first="mean"), r"two sides of the difference are exchanged"),
        "another weight": (lambda who: converted_by_hand(who, keep_weight=False), r"'weight' has other values"),
    },
    "2.4": {
        "as handed out": (lambda who: given("2.4"), r"Unsupported model IR version"),
        "still too new": (lambda who: ir(nothing, params("2.4")["device_ir"] + 1), r"Unsupported model IR version"),
        "too old": (lambda who: ir(nothing, 4), r"IR 4 is older than opset"),
        "none": (lambda who: ir(nothing, 0), r"IR 0 is older than opset"),
        "the opset in its place": (lambda who: ir(other_opset), r"The opset was not the trouble"),
        "an attribute": (lambda who: ir(other_attribute), r"The graph was changed at Softmax"),
        "an operator": (lambda who: ir(other_operator), r"The graph was changed at LogSoftmax"),
        "a name": (lambda who: ir(other_name), r"The graph was changed"),
        "a weight": (lambda who: ir(nan_in_bias), r"'bias' has other values"),
        "one weight more": (lambda who: ir(one_weight_more), r"There are more weights"),
        "another output": (lambda who: ir(other_output), r"the given ones are"),
        "a frozen batch": (lambda who: ir(frozen_batch), r"the given ones are"),
    },
    "2.5": {
        "as handed out": (lambda who: given("2.5"), r"No opset_import names it"),
        "domain not named": (lambda who: domains(forget_domain), r"No opset_import names it"),
        "domain with opset 2": (lambda who: domains(put(1, 2)), r"ONNX Runtime has 1 only"),
        "opset left": (lambda who: domains(put(0, 24)), r"official support for domain ai\.onnx is till opset"),
        "opset too low": (lambda who: domains(put(0, 12)), r"would have another version than in opset 24"),
        "opset zero": (lambda who: domains(put(0, 0)), r"No opset_import names it: Mul"),
        "named twice": (lambda who: domains(name_it_twice), r"change the entry that is there"),
        "node replaced": (lambda who: domains(drop_foreign), r"The graph was changed"),
        "node defined anew": (lambda who: domains(define_foreign), r"The graph was changed"),
    },
    "2.6": {
        "the old gate": (old_gate, r"one row only.*half-way.*negative"),
        "one row": (one_row_of_the_usual_length, r"^It passes\. Each of your inputs has one row only\.$"),
        "twice the same row": (old_gate_with(lambda x: np.concatenate([x, x])), r"too much alike"),
        "extremes": (old_gate_with(lambda x: np.random.default_rng(0).normal(0, 1e8, (4, 14))), r"switched off"),
        "too many numbers": (old_gate_with(lambda x: np.tile(x, (20, 1))), r"more than many random ones"),
        "too many inputs": (lambda who: {"inputs": one_gate(who)["inputs"] * 3}, r"a list of 3"),
        "the name of another input": (lambda who: {"inputs": [{"x": [[1.0]]}]}, r"the name of the model's input"),
        "one row without its brackets": (old_gate_with(lambda x: x[0]), r"lists of lists"),
        "nan": (old_gate_with(lambda x: x * np.nan), r"lists of lists"),
    },
}  # fmt: skip


@pytest.mark.parametrize("task_id", ["2.1", "2.2"])
@pytest.mark.parametrize("value", [None, [], 3, "13", {}, {"opset": 13}, math.nan])
def test_json_answer_of_another_shape(task_id: str, value: Any) -> None:
    assert "exactly those keys" in failed(task_id, value)


@pytest.mark.parametrize("value", [math.nan, math.inf, "13", 13.5, True, None, [13], {"a": 1}, 10**400, -1], ids=repr)
def test_odd_numbers_get_a_hint_and_no_points(value: Any) -> None:
    newcomers = dict.fromkeys(params("2.1")["newcomers"], value)
    history = {"introduced": newcomers, "versions": [value], "moved": value}
    used = dict.fromkeys(params("2.2")["operators"], value)
    for task_id, answer in (("2.1", history), ("2.2", {"versions": used, "opset": value})):
        found = criteria(task_id, answer)
        assert "the answer can be examined" not in [c.what for c in found]
        assert not any(c.passed for c in found if not c.condition)


def test_history_wants_whole_numbers() -> None:
    assert "13.5 is not a whole number" in failed("2.1", of_one_newcomer(13.5))
    assert "list of whole numbers" in failed("2.1", history("versions", lambda v: ["13"]))


def test_hints_do_not_say_which_newcomer_is_right() -> None:
    """Else numbers could be tried out, each for itself."""
    said = [failed("2.1", history("introduced", lambda v, n=n: {**v, n: 2})) for n in params("2.1")["newcomers"]]
    assert len(set(said)) == 1


def test_the_opset_alone_earns_nothing() -> None:
    answer = lowest(versions=dict.fromkeys(params("2.2")["operators"], 1))
    assert not any(c.passed for c in criteria("2.2", answer) if not c.condition)


@pytest.mark.parametrize("who", STUDENTS)
def test_lowest_is_not_the_opset_that_brought_the_youngest(who: str) -> None:
    born = max(versions(n.op_type)[0] for n in given("2.2", who).graph.node)
    assert "when the youngest operator came" in failed("2.2", {**right_lowest(who), "opset": born}, who)


def test_lowest_one_too_high() -> None:
    who = next(
        w for w in map(str, range(200)) if right_lowest(w)["opset"] + 1 < given("2.2", w).opset_import[0].version
    )
    answer = right_lowest(who)
    hints = failed("2.2", {**answer, "opset": answer["opset"] + 1}, who)
    assert "a lower one does not either" in hints or "youngest operator" in hints


@pytest.mark.parametrize("who", STUDENTS)
def test_the_axis_of_softmax_is_named_whatever_the_target(who: str) -> None:
    assert "with axis=1 it sees one axis" in failed("2.3", converted_by_hand(who, softmax="1"), who)


@pytest.mark.parametrize("task_id", ["2.3", "2.4", "2.5"])
def test_damaged_models_get_a_hint(task_id: str) -> None:
    """Bytes changed here and there: what can still be parsed is examined without an error of the check."""
    for model in damaged(RIGHT[task_id][0]("ada"), task_id):
        assert "the answer can be examined" not in [c.what for c in criteria(task_id, model)]


def test_every_device_can_be_pleased() -> None:
    for who in map(str, range(100)):
        p = params("2.4", who)
        assert p["device_ir"] >= helper.OP_SET_ID_VERSION_MAP["ai.onnx", p["opset"]]


# 2.5


def test_standard_nodes_do_not_change_up_to_the_horizon() -> None:
    for operator in [*model_heads._STANDARD.split(), "Mul"]:
        assert all(e.opset <= 17 or e.opset > model_heads.HORIZON for e in editions_of(operator))


@pytest.mark.parametrize("task_id", ["2.3"])
def test_one_percent_off_is_wrong(task_id: str) -> None:
    """And the hint blames nothing that is in order."""
    found = criteria(task_id, nearly(RIGHT[task_id][0]("ada")))
    assert task_points(task(task_id), found)[0] == 0
    assert hints(found).startswith("The largest difference")


# 2.6


def who_has_fault(fault: str) -> tuple[str, int]:
    """A student with this fault, and which of the three goals it is."""
    for who in map(str, range(999)):
        faults = list(gate_inputs.details(params("2.6", who))["faults"].values())
        if fault in faults:
            return who, faults.index(fault)
    raise AssertionError(fault)


def hint_of(fault: str, make: Any) -> str:
    """What is said of this fault; empty where it is caught."""
    who, at = who_has_fault(fault)
    goals = [c for c in criteria("2.6", make(who), who) if not c.condition]
    return goals[at].hint


FAULTS = (*gate_inputs.SIGN, *gate_inputs.SIZE_OR_TIE, *gate_inputs.BATCH_OR_LENGTH)


@pytest.mark.parametrize("fault", FAULTS)
def test_what_each_fault_needs(fault: str) -> None:
    """The old gate lets it pass and is told what is missing; the right ones catch it."""
    asked = {
        **dict.fromkeys(gate_inputs.SIGN, "negative where the activation reads it"),
        **dict.fromkeys(("no limit", "limit doubled"), "above the upper limit"),
        **dict.fromkeys(("half up", "half down"), "exactly half-way"),
        **dict.fromkeys(("mean of all rows", "last of the first row"), "one row only"),
        **dict.fromkeys(("frozen place", "frozen count"), "as long as in the old gate"),
    }
    assert asked[fault] in hint_of(fault, old_gate)
    assert hint_of(fault, one_gate) == hint_of(fault, two_gates) == ""


@pytest.mark.parametrize(
    ("fault", "rows", "cause"),
    [
        ("half up", {0: [1.5, 3.5], 1: [1.5]}, "take the next half, too"),
        ("half down", {0: [0.5, 2.5], 1: [4.5]}, "take the next half, too"),
        ("no slope", {0: [-0.5]}, "Clip or Round makes the same of them"),
        ("no activation", {0: [-300]}, "Clip or Round makes the same of them"),
        ("mean of all rows", {0: [2, 3], 1: [2, 3]}, "too much alike"),
        ("last of the first row", {0: [2, 3], 1: [5, 3]}, "too much alike"),
        ("frozen place", {0: [2, 3]}, "too much alike"),
    ],
)
def test_a_difference_that_does_not_get_through(fault: str, rows: dict[int, list[float]], cause: str) -> None:
    assert cause in hint_of(fault, gate_of(rows))


@pytest.mark.parametrize("who", STUDENTS)
def test_the_right_file_has_no_fault(who: str) -> None:
    p = params("2.6", who)
    onnx.checker.check_model(gate_inputs.converted(p), full_check=True)
    x = np.random.default_rng(0).normal(0, 20, (3, 9)).astype(np.float32)
    got, want = (run(session_for(m), {p["input"]: x})["y"] for m in (gate_inputs.converted(p), gate_inputs.before(p)))
    assert np.allclose(got, want, atol=1e-4)


@pytest.mark.parametrize("value", [None, 3, "text", {}, [], [None], [[1.0]], [{"x": 1}]])
def test_inputs_of_another_kind(value: object) -> None:
    assert re.search("no list|a list of 0|the name of the model's input", failed("2.6", {"inputs": value}))


@pytest.mark.parametrize(
    "value", [None, 3, [], [[]], [[1], [1, 2]], [["1"]], [[True]], [[float("inf")]], [[10**400]], [[[1]]]]
)
def test_rows_of_another_kind(value: object) -> None:
    assert "lists of lists" in failed("2.6", {"inputs": [{params("2.6")["input"]: value}]})
