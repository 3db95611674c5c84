"""The checks of exercise 02: right answers pass, and each likely mistake gets a hint that names it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import pytest
from answers import STUDENTS, accepted, criteria, failed, given, params
from onnx import helper, numpy_helper, version_converter

from course_utils.exercises import ch02, tasks_of
from course_utils.opsets import editions_of

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


def right_lowest(who: str) -> dict[str, Any]:
    model = given("2.2", who)
    stated = model.opset_import[0].version
    used = {n.op_type: onnx.defs.get_schema(n.op_type, stated).since_version for n in model.graph.node}
    return {"opset": max(used.values()), "because": [o for o, v in used.items() if v == max(used.values())]}


def right_converted(who: str) -> onnx.ModelProto:
    return version_converter.convert_version(given("2.3", who), params("2.3", who)["target"])


def right_ir(who: str) -> onnx.ModelProto:
    model = given("2.4", who)
    model.ir_version = params("2.4", who)["device_ir"]
    return model


def right_domains(who: str) -> onnx.ModelProto:
    model = given("2.5", who)
    model.opset_import[0].version = params("2.5", who)["device_opset"]
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


RIGHT = {
    "2.1": right_history,
    "2.2": right_lowest,
    "2.3": right_converted,
    "2.4": right_ir,
    "2.5": right_domains,
}


@pytest.mark.parametrize("who", STUDENTS)
@pytest.mark.parametrize("task_id", RIGHT)
def test_right_answer_passes(task_id: str, who: str) -> None:
    accepted(task_id, RIGHT[task_id](who), who)


def test_tasks_are_complete_and_personal() -> None:
    assert list(tasks_of(2)) == list(RIGHT)
    for task_id in RIGHT:
        drawn = [str(params(task_id, who)) for who in STUDENTS]
        assert len(set(drawn)) > 1
        assert params(task_id, "ada") == params(task_id, "ada")


@pytest.mark.parametrize("task_id", ["2.1", "2.2"])
@pytest.mark.parametrize("value", [None, [], 3, "13", {}, {"opset": 13}, math.nan])
def test_json_answer_of_another_shape(task_id: str, value: Any) -> None:
    assert "exactly those keys" in failed(task_id, value)


@pytest.mark.parametrize("task_id", ["2.3", "2.4", "2.5"])
def test_model_handed_in_as_it_was_given(task_id: str) -> None:
    failed(task_id, given(task_id))


@pytest.mark.parametrize("task_id", ["2.3", "2.4", "2.5"])
def test_empty_model(task_id: str) -> None:
    failed(task_id, onnx.ModelProto(ir_version=8))


# 2.1


@pytest.mark.parametrize("value", [math.nan, "13", 13.0, True, None, [13]])
def test_history_wants_whole_numbers(value: Any) -> None:
    answer = right_history("ada")
    answer["introduced"][params("2.1")["newcomers"][0]] = value
    assert "not a whole number" in failed("2.1", answer)
    assert "not a whole number" in failed("2.1", {**right_history("ada"), "moved": value})
    assert "list of whole numbers" in failed("2.1", {**right_history("ada"), "versions": [value]})


def test_history_of_a_later_version() -> None:
    who = next(w for w in map(str, range(50)) if any(len(versions(n)) > 1 for n in params("2.1", w)["newcomers"]))
    answer = right_history(who)
    name = next(n for n in params("2.1", who)["newcomers"] if len(versions(n)) > 1)
    answer["introduced"][name] = versions(name)[-1]
    assert "it was there before" in failed("2.1", answer, who)


def test_history_with_other_operators() -> None:
    answer = {**right_history("ada"), "introduced": {"Conv": 1}}
    assert "exactly these operators" in failed("2.1", answer)


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (lambda v: v[1:], "versions are missing"),
        (lambda v: [*v, 99], "newer than opset 24"),
        (lambda v: [*v[:-1], v[-1] - 1 if v[-1] - 1 not in v else 2, v[-1]], "was not changed"),
        (lambda v: v[::-1], "oldest first"),
        (lambda v: [v[0], *v], "each version once"),
        (lambda v: [float(x) for x in v], "whole numbers"),
    ],
)
def test_history_versions(change: Any, hint: str) -> None:
    answer = right_history("ada")
    assert hint in failed("2.1", {**answer, "versions": change(answer["versions"])})


def test_history_moved() -> None:
    answer = right_history("ada")
    assert "still an attribute" in failed("2.1", {**answer, "moved": answer["moved"] - 1})
    assert "for a while" in failed("2.1", {**answer, "moved": answer["moved"] + 1})


# 2.2


@pytest.mark.parametrize("who", STUDENTS)
def test_lowest_is_not_the_opset_that_brought_the_youngest(who: str) -> None:
    born = max(versions(n.op_type)[0] for n in given("2.2", who).graph.node)
    assert "when the youngest operator came" in failed("2.2", {**right_lowest(who), "opset": born}, who)


def test_lowest_names_the_cause() -> None:
    answer = right_lowest("ada")
    stated = given("2.2").opset_import[0].version
    assert "can go lower" in failed("2.2", {**answer, "opset": stated})
    assert "the model uses another one" in failed("2.2", {**answer, "opset": answer["opset"] - 1})
    assert "not a whole number" in failed("2.2", {**answer, "opset": math.nan})
    assert "list of operator names" in failed("2.2", {**answer, "because": answer["because"][0]})
    assert "list of operator names" in failed("2.2", {**answer, "because": [13]})
    assert "is missing" in failed("2.2", {**answer, "because": []})
    assert "too many" in failed("2.2", {**answer, "because": [*answer["because"], "Conv"]})


def test_lowest_one_too_high() -> None:
    who = next(
        w for w in map(str, range(200)) if right_lowest(w)["opset"] + 1 < given("2.2", w).opset_import[0].version
    )
    answer = right_lowest(who)
    hints = failed("2.2", {**answer, "opset": answer["opset"] + 1}, who)
    assert "a lower one does not either" in hints or "youngest operator" in hints


# 2.3


@pytest.mark.parametrize("who", STUDENTS)
def test_only_the_number_was_changed(who: str) -> None:
    model = given("2.3", who)
    model.opset_import[0].version = params("2.3", who)["target"]
    assert "only the number was changed" in failed("2.3", model, who)


def test_converted_to_another_target() -> None:
    model = version_converter.convert_version(given("2.3"), 14)
    assert f"your target is {params('2.3')['target']}" in failed("2.3", model)


def test_repaired_until_it_loads_but_softmax_forgotten() -> None:
    who = next(w for w in STUDENTS if params("2.3", w)["target"] < 18)
    model = given("2.3", who)
    model.opset_import[0].version = params("2.3", who)["target"]
    (node,) = (n for n in model.graph.node if n.op_type == "Unsqueeze")
    del node.attribute[:]
    node.input.append("axes")
    model.graph.initializer.append(numpy_helper.from_array(np.array([2]), "axes"))
    assert "Softmax means something else" in failed("2.3", model, who)


def test_converted_with_other_weights() -> None:
    model = right_converted("ada")
    (weight,) = (t for t in model.graph.initializer if t.name == "weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 1.01, "weight"))
    assert "'weight' has other values" in failed("2.3", model)


def test_converted_model_of_somebody_else() -> None:
    other = next(
        w
        for w in map(str, range(100))
        if params("2.3", w)["target"] == params("2.3")["target"] and params("2.3", w)["width"] == params("2.3")["width"]
    )
    assert "has other values" in failed("2.3", right_converted(other))


# 2.4


def test_ir_still_too_new() -> None:
    model = given("2.4")
    model.ir_version = params("2.4")["device_ir"] + 1
    assert "Unsupported model IR version" in failed("2.4", model)


def test_ir_older_than_the_opset() -> None:
    model = given("2.4")
    model.ir_version = 4
    assert "is older than opset" in failed("2.4", model)


def test_opset_changed_in_place_of_the_ir() -> None:
    model = right_ir("ada")
    model.opset_import[0].version = 14
    assert "the opset was not the trouble" in failed("2.4", model).lower()


def test_healed_graph_was_changed() -> None:
    model = right_ir("ada")
    model.graph.node[1].attribute[0].i = 0
    assert "The graph was changed at Softmax" in failed("2.4", model)
    model = right_ir("ada")
    model.graph.node[1].op_type = "LogSoftmax"
    assert "The graph was changed at LogSoftmax" in failed("2.4", model)


def test_healed_weights_were_changed() -> None:
    model = right_ir("ada")
    bias = numpy_helper.to_array(model.graph.initializer[1]).copy()
    bias[0] = np.nan
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(bias, "bias"))
    assert "'bias' has other values" in failed("2.4", model)
    del model.graph.initializer[1]
    assert "'bias' is missing" in failed("2.4", model)


def test_healed_model_with_an_added_weight_or_renamed_output() -> None:
    model = right_ir("ada")
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "x"))
    assert "more weights" in failed("2.4", model)
    model = right_ir("ada")
    model.graph.output[0].name = "h"
    assert "the outputs" in " ".join(c.what for c in criteria("2.4", model) if not c.passed)


def test_healed_model_may_carry_notes() -> None:
    model = onnx.shape_inference.infer_shapes(right_ir("ada"))
    model.doc_string = "healed"
    assert all(c.passed for c in criteria("2.4", model))


def test_every_device_can_be_pleased() -> None:
    for who in map(str, range(100)):
        p = params("2.4", who)
        assert p["device_ir"] >= helper.OP_SET_ID_VERSION_MAP["ai.onnx", p["opset"]]


# 2.5


def test_standard_nodes_do_not_change_up_to_the_horizon() -> None:
    for operator in [*ch02._STANDARD.split(), "Mul"]:
        assert all(e.opset <= 17 or e.opset > ch02.HORIZON for e in editions_of(operator))


def test_domain_not_named() -> None:
    model = right_domains("ada")
    del model.opset_import[1]
    assert "No opset_import names it" in failed("2.5", model)


def test_domain_with_another_opset() -> None:
    model = right_domains("ada")
    model.opset_import[1].version = 2
    assert "ONNX Runtime has 1 only" in failed("2.5", model)


def test_default_opset_left_or_too_low_or_twice() -> None:
    model = right_domains("ada")
    model.opset_import[0].version = 24
    assert "official support for domain ai.onnx is till opset" in failed("2.5", model)
    model.opset_import[0].version = 12
    assert "would have another version than in opset 24" in failed("2.5", model)
    model = right_domains("ada")
    model.opset_import.append(helper.make_opsetid("", 17))
    assert "change the entry that is there" in failed("2.5", model)


def test_foreign_node_was_replaced() -> None:
    model = right_domains("ada")
    (node,) = (n for n in model.graph.node if n.domain)
    node.op_type, node.domain = "Relu", ""
    assert "The graph was changed" in failed("2.5", model)


def test_foreign_node_was_defined_anew() -> None:
    model = right_domains("ada")
    (node,) = (n for n in model.graph.node if n.domain)
    body = [helper.make_node("Identity", ["a"], ["b"])]
    model.functions.append(
        helper.make_function("com.microsoft", node.op_type, ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    )
    assert "The graph was changed" in failed("2.5", model)
