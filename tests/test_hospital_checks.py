"""The hospital's checks at their borders: one thing wrong in an otherwise healed model, and the cause that is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from answers import accepted, criteria, failed, params
from onnx import ModelProto, helper
from test_exercise_09 import (
    as_constants,
    both_branches,
    free_batch,
    in_evaluation,
    node,
    numbers_of,
    older_ir,
    older_opset,
    put,
    rewritten,
    static,
    strict_session,
    the,
    uniform,
)


def who_has(task_id: str, **wanted: Any) -> str:
    """A student with these parameters."""
    return next(w for w in map(str, range(200)) if wanted.items() <= params(task_id, w).items())


def in_front(model: ModelProto, *nodes: onnx.NodeProto) -> ModelProto:
    for n in reversed(nodes):
        model.graph.node.insert(0, n)
    return model


def reads_instead(model: ModelProto, old: str, new: str) -> ModelProto:
    for n in model.graph.node:
        n.input[:] = [new if name == old else name for name in n.input]
    return model


# 9.1


def test_frozen_in_one_of_two_shapes() -> None:
    model = put(free_batch(), flat=np.array([params("9.1")["batch"], 12]))
    assert "Reshape reads the stored shape flat" in failed("9.1", model)


def test_other_weights_are_no_frozen_batch() -> None:
    model = put(free_batch(), weight2=numbers_of(free_batch())["weight2"] * 2)
    hints = failed("9.1", model)
    assert "only sizes are wrong" in hints
    assert "frozen" not in hints


# 9.2 and 9.3


def test_an_opset_below_the_servers_is_fine() -> None:
    who = who_has("9.2", opset=17)
    model = older_opset(who)
    model.opset_import[0].version = 13
    accepted("9.2", model, who)
    model.opset_import[0].version = 18
    assert "It is 18, too new for the server, which takes up to 17" in failed("9.2", model, who)


def test_an_opset_that_is_not_stated() -> None:
    model = older_opset()
    del model.opset_import[:]
    hints = failed("9.2", model)
    assert "too new" not in hints
    assert "opset" in hints


@pytest.mark.parametrize(("op", "text"), [("ReduceMean", "mean still has the form"), ("Split", "split still has")])
def test_one_of_two_nodes_has_the_new_form(op: str, text: str) -> None:
    model = older_opset()
    new = next(n for n in the("9.2").graph.node if n.op_type == op)
    old = next(n for n in model.graph.node if n.op_type == op)
    old.CopyFrom(new)
    assert text in failed("9.2", put(model, axes=np.array([1])))


def test_both_nodes_have_the_new_form() -> None:
    model = the("9.2")
    model.opset_import[0].version = params("9.2")["opset"]
    assert "split, mean still have the form" in failed("9.2", model)


def test_ir_versions_from_4_to_the_readers() -> None:
    for version in (4, params("9.3")["reads"]):
        model = older_ir()
        model.ir_version = version
        accepted("9.3", as_constants(model))  # in a file of version 4, an initializer need not be an input
    model.ir_version = params("9.3")["reads"] + 1
    hints = failed("9.3", model)
    assert "reads files up to" in hints
    assert "opset" not in hints


def test_other_domains_beside_the_opset() -> None:
    model = older_ir()
    model.opset_import.insert(0, helper.make_opsetid("ai.onnx.ml", 3))
    accepted("9.3", model)


# 9.5


@pytest.mark.parametrize(
    ("operator", "change", "cause"),
    [
        ("ScaledSwish", lambda who, v: rewritten(who, -v), "beta has the wrong sign"),
        ("SquaredRelu", lambda who, v: rewritten(who, -v), "scale has the wrong sign"),
        ("ScaledSwish", lambda who, v: rewritten(who, ops=steps("Mul h k i", "Sigmoid i a")), "product with x is missing"),
        ("ScaledSwish", lambda who, v: rewritten(who, ops=steps("Sigmoid h a")), "A plain Sigmoid"),
        ("SquaredRelu", lambda who, v: rewritten(who, ops=steps("Relu h i", "Mul i k a")), "It is not squared"),
        ("SquaredRelu", lambda who, v: rewritten(who, ops=steps("Relu h a")), "A plain Relu"),
        ("SoftClip", lambda who, v: rewritten(who, ops=steps("Div h k i", "Tanh i a")), "product with the limit"),
        ("SoftClip", lambda who, v: rewritten(who, 1.0), "limit is ignored: its value is"),
        ("SoftClip", lambda who, v: rewritten(who, 1 / v), "limit is used upside down"),
    ],
)  # fmt: skip
def test_slips_in_the_formula(operator: str, change: Callable[[str, float], ModelProto], cause: str) -> None:
    for value in (0.4, 2.3):
        who = who_has("9.5", operator=operator, value=value)
        assert cause in failed("9.5", change(who, value), who)


def steps(*lines: str) -> list[onnx.NodeProto]:
    """Such as "Mul h k i": operator, inputs, output."""
    return [node(op, inputs, [output]) for op, *inputs, output in map(str.split, lines)]


# 9.6


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"measure": "ReduceSum"}, "The sum is compared"),
        ({"measure": "ReduceMin"}, "The smallest number is compared"),
        ({"measure": "ReduceMax"}, "The largest number is compared"),
        ({"threshold": -1}, "The threshold has the wrong sign"),
    ],
)
@pytest.mark.parametrize("who", ["ada", "grace", "emmy"])
def test_slips_in_the_condition(options: dict[str, Any], cause: str, who: str) -> None:
    if "threshold" in options:
        options = {"threshold": -params("9.6", who)["threshold"]}
    assert cause in failed("9.6", both_branches(who, **options), who)


@pytest.mark.parametrize("place", ["then_branch", "else_branch"])
def test_one_branch_alone_is_wrong(place: str) -> None:
    model = both_branches()
    branch = next(a.g for n in model.graph.node for a in n.attribute if a.name == place)
    branch.node.append(node("Neg", [branch.output[0].name], [f"{place}_negative"]))
    branch.output[0].name = f"{place}_negative"
    found = criteria("9.6", model)
    assert 0 < sum(c.passed for c in found if not c.condition) < 9
    assert "Each branch must compute what the model that was handed out computes" in failed("9.6", model)


# 9.7


def test_which_of_two_layers_trains() -> None:
    hints = failed("9.7", in_evaluation(dropout=False))
    assert "mend Dropout first" in hints
    assert "BatchNormalization is in training mode" not in hints
    hints = failed("9.7", in_evaluation(norm=False))
    assert "BatchNormalization is in training mode" in hints
    assert "Dropout is still" not in hints


def test_a_training_mode_that_a_ratio_of_0_hides() -> None:
    model = put(in_evaluation(dropout=False), ratio=np.float32(0))
    assert "A ratio of 0 hides it" in failed("9.7", model)
    assert "A ratio of 0 hides it" in failed("9.7", as_constants(model))


@pytest.mark.parametrize("more", [["new_mean", "new_variance"], ["", ""]])
def test_more_outputs_than_an_evaluation_has(more: list[str]) -> None:
    model = in_evaluation()
    norm = next(n for n in model.graph.node if n.op_type == "BatchNormalization")
    norm.output.extend(more)
    assert "Outside of training it has one output" in failed("9.7", model)


@pytest.mark.parametrize("inputs", [1, 2])
def test_a_dropout_without_its_third_input_does_not_train(inputs: int) -> None:
    model = in_evaluation()
    dropout = next(n for n in model.graph.node if n.op_type == "Dropout")
    del dropout.input[inputs:]
    accepted("9.7", model)


def test_an_evaluation_that_does_not_run() -> None:
    model = in_evaluation()
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([99]), "far"))
    reads_instead(model, "x", "seen")
    in_front(model, node("Gather", ["x", "far"], ["one"]), node("Add", ["x", "one"], ["seen"]))
    hints = failed("9.7", model)
    assert "out of" in hints
    assert "Dropout is still" not in hints
    assert "BatchNormalization is in training" not in hints


# 9.8


RIGHT_NAMES = {
    "CudaExecutionProvider": "CUDAExecutionProvider",
    "TensorRTExecutionProvider": "TensorrtExecutionProvider",
    "DirectMLExecutionProvider": "DmlExecutionProvider",
    "OpenVinoExecutionProvider": "OpenVINOExecutionProvider",
    "CoreMlExecutionProvider": "CoreMLExecutionProvider",
}


@pytest.mark.parametrize("wrong", RIGHT_NAMES)
def test_the_name_that_was_meant(wrong: str) -> None:
    who = who_has("9.8", wrong_name=wrong)
    answer = strict_session(who) | {"providers": [RIGHT_NAMES[wrong]]}
    accepted("9.8", answer, who)
    other = next(name for name in RIGHT_NAMES.values() if name != RIGHT_NAMES[wrong])
    assert "Another provider than the one" in failed("9.8", answer | {"providers": [other]}, who)


@pytest.mark.parametrize("providers", [5, None, "CUDAExecutionProvider", [5], [["CUDAExecutionProvider"]], {}])
def test_providers_that_are_no_list_of_names(providers: Any) -> None:
    answer = strict_session() | {"providers": providers}
    assert "Write a list of names" in failed("9.8", answer)
    assert not [c for c in criteria("9.8", answer) if "refuses to start" in c.what]


STRICT = "session.disable_cpu_ep_fallback"


@pytest.mark.parametrize(
    ("config", "cause"),
    [
        ({STRICT: "0"}, "Its value is '0'"),
        ({STRICT: 1}, "Its value is '1'"),
        ({STRICT: "1", "session.set_denormal_as_zero": "1"}, "There is more in it"),
        ({}, "Nothing in it forbids the fallback"),
        ([STRICT], "Write a dict of text to text"),
    ],
)
def test_configurations_that_fall_back(config: Any, cause: str) -> None:
    assert cause in failed("9.8", strict_session() | {"config": config})


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda left, taken, ops: left[:-1], "1 missing, 0 too many"),
        (lambda left, taken, ops: [*left, taken[0]], "0 missing, 1 too many"),
        (lambda left, taken, ops: taken, "the nodes that the provider takes"),
        (lambda left, taken, ops: ops, "names of operators"),
        (lambda left, taken, ops: [*left[:-1], 3], "Write a list of node names"),
        (lambda left, taken, ops: left[0], "Write a list of node names"),
        (lambda left, taken, ops: [*left, left[0]], "too many"),
        (lambda left, taken, ops: [], "2 missing, 0 too many"),
    ],
)
def test_nodes_that_are_left(change: Any, cause: str) -> None:
    left, nodes = strict_session()["on_cpu"], the("9.8").graph.node
    taken = [n.name for n in nodes if n.name not in left]
    ops = [n.op_type for n in nodes if n.name in left]
    assert cause in failed("9.8", strict_session() | {"on_cpu": change(left, taken, ops)})


# 9.11


@pytest.mark.parametrize(
    ("low", "high", "cause"),
    [(1, 0.7, "cut off"), (0.7, 1, "cut off"), (1.8, 1.8, "much wider than in use")],
)
def test_ranges_of_other_data(low: float, high: float, cause: str) -> None:
    p = params("9.11")
    data = np.random.default_rng(0).uniform(p["low"] * low, p["high"] * high, (60, 3, 10, 10)).astype(np.float32)
    assert cause in failed("9.11", static(the("9.11"), data))


def test_a_range_that_is_a_little_wider() -> None:
    accepted("9.11", static(the("9.11"), uniform("ada", 1.4)))
