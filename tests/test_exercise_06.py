"""Exercises 06: right answers pass for any student; each typical mistake fails with a hint that names its cause."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from answers import accepted, failed, params
from onnx import ModelProto, helper, numpy_helper
from onnxruntime.transformers import optimizer

import course_utils as cu
from course_utils.exercises import attention_fusion, batchnorm_folding, ch06, examine, task, tasks_of

STUDENTS = ["ada", "grace@example.org", "s-1234567", "Жанна", "guest"]


def handed_out(task_id: str, student: str = "ada") -> list[ModelProto]:
    it = task(task_id)
    assert it.given is not None
    return list(it.given(params(task_id, student)).values())


def somebody(task_id: str, wanted: Any) -> str:
    return next(who for who in map(str, range(300)) if wanted(params(task_id, who)))


# Right answers, made from what was handed out.


def folded(student: str = "ada") -> ModelProto:
    (model,) = handed_out("6.1", student)
    graph = model.graph
    weights = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in graph.initializer}
    kept = {}
    for norm in [n for n in graph.node if n.op_type == "BatchNormalization"]:
        conv = next(n for n in graph.node if n.output[0] == norm.input[0])
        scale, shift, mean, variance = (weights[name] for name in norm.input[1:])
        factor = scale / np.sqrt(variance + helper.get_node_attr_value(norm, "epsilon"))
        old = weights[conv.input[2]] if len(conv.input) > 2 else 0
        kept[conv.input[1]] = weights[conv.input[1]] * factor[:, None, None, None]
        kept[conv.name] = shift + (old - mean) * factor
        conv.input[:] = [*conv.input[:2], conv.name]
        conv.output[0] = norm.output[0]
        graph.node.remove(norm)
    del graph.initializer[:]
    graph.initializer.extend(numpy_helper.from_array(v.astype(np.float32), n) for n, v in kept.items())
    return model


def tidy(student: str = "ada", but: str = "") -> ModelProto:
    (model,) = handed_out("6.2", student)
    graph = model.graph
    if but != "output":
        del graph.output[1:]
    if but != "input":
        del graph.input[1:]
    for node in graph.node:
        if node.op_type == "Max" and but != "max":
            node.op_type = "Relu"
            node.input.pop()
    return model


def reasons(student: str = "ada") -> dict[str, dict[str, str]]:
    p = params("6.3", student)
    return {letter: {"reason": r, "where": ch06._case(p, r)[1]} for letter, r in p["cases"].items()}


def traced(student: str = "ada") -> dict[str, Any]:
    before, after = handed_out("6.4", student)
    x = np.random.default_rng(1).normal(size=(1, 4, 8, 8)).astype(np.float32)
    table = cu.origins(before, after, {"x": x})
    here = table[table["node"] != ""]
    return {
        "from": {row.output: row.originals.split(", ")[::-1] for row in here.itertuples()},
        "gone": list(table.loc[table["node"] == "", "originals"]),
    }


def attention(student: str = "ada") -> ModelProto:
    return attention_fusion.attention(params("6.5", student), "")


RIGHT = {"6.1": folded, "6.2": tidy, "6.3": reasons, "6.4": traced, "6.5": attention}


@pytest.mark.parametrize("student", STUDENTS)
@pytest.mark.parametrize("task_id", RIGHT)
def test_right_answer_passes(task_id: str, student: str) -> None:
    accepted(task_id, RIGHT[task_id](student), student)


def test_tasks_are_complete_and_personal() -> None:
    assert list(tasks_of(6)) == list(RIGHT)
    for task_id in RIGHT:
        assert len({str(params(task_id, who)) for who in STUDENTS}) > 1


@pytest.mark.parametrize("task_id", ["6.1", "6.2", "6.5"])
def test_model_handed_in_as_it_was_given(task_id: str) -> None:
    (model,) = handed_out(task_id)
    onnx.checker.check_model(model, full_check=True)
    assert failed(task_id, model)
    assert failed(task_id, ModelProto())


@pytest.mark.parametrize("task_id", ["6.3", "6.4"])
@pytest.mark.parametrize("answer", [None, 3, "text", [], {}, {"a": 1}])
def test_json_answer_of_another_shape(task_id: str, answer: object) -> None:
    assert "exactly those keys" in failed(task_id, answer)


# 6.1


@pytest.mark.parametrize(
    ("mistake", "cause"),
    [
        ("epsilon", "The epsilon is missing"),
        ("root", "The square root is missing"),
        ("axis", "the first axis of a kernel counts the output channels"),
        ("mean", "The mean is missing"),
        ("bias", "The bias that the first convolution had is lost"),
        ("unscaled", "old bias must be multiplied"),
        ("shift", "The shift is missing"),
    ],
)
@pytest.mark.parametrize("student", STUDENTS[:3])
def test_folding_mistakes(mistake: str, cause: str, student: str) -> None:
    assert cause in failed("6.1", batchnorm_folding._folded(params("6.1", student), mistake), student)


def test_folded_by_the_runtime() -> None:
    (model,) = handed_out("6.1")
    assert "Do it yourself, with NumPy" in failed("6.1", cu.optimized(model, "basic"))


def test_folded_but_nodes_are_left_or_weights_renamed() -> None:
    assert "There is still a BatchNormalization" in failed("6.1", handed_out("6.1")[0])
    model = folded()
    for node in model.graph.node:
        node.input[:] = ["k" if name == "one.kernel" else name for name in node.input]
    model.graph.initializer[0].name = "k"
    assert "change the values of one.kernel" in failed("6.1", model)


def test_folded_model_of_somebody_else() -> None:
    assert "one layer after the other" in failed("6.1", folded("grace@example.org"))


# 6.2


@pytest.mark.parametrize("student", STUDENTS)
@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("output", "is an output, too, so it must exist"),
        ("input", "is listed among the inputs"),
        ("max", "Max with zero is a Relu"),
    ],
)
def test_one_fault_left(fault: str, cause: str, student: str) -> None:
    assert cause in failed("6.2", tidy(student, but=fault), student)


def test_handing_in_the_optimised_model() -> None:
    assert "Leave the fusing to the optimiser" in failed("6.2", cu.optimized(tidy(), "extended"))


def test_few_nodes_that_compute_something_else() -> None:
    model = tidy()
    del model.graph.node[3:]
    model.graph.node[2].output[0] = "y"
    assert "Start again from the given model" in failed("6.2", model)


def test_a_second_reader() -> None:
    model = tidy()
    last = model.graph.node[-1]
    last.output[0] = "done"
    nothing = numpy_helper.from_array(np.zeros((), np.float32), "nothing")
    model.graph.initializer.append(nothing)
    model.graph.node.append(helper.make_node("Mul", [last.input[0], "nothing"], ["none"]))
    model.graph.node.append(helper.make_node("Add", ["done", "none"], ["y"]))
    assert "who else needs the tensors in it" in failed("6.2", model)


# 6.3


@pytest.mark.parametrize("student", STUDENTS)
def test_the_cases_are_as_told(student: str) -> None:
    p = params("6.3", student)
    for reason in ch06._REASONS:
        model, where = ch06._case(p, reason)
        onnx.checker.check_model(model, full_check=True)
        left = cu.op_histogram(cu.optimized(model, "extended")).sum()
        assert (left == 1) == (reason == "fuses") == (where == "")


def changed(reason: str, /, **values: object) -> tuple[str, dict[str, Any]]:
    """A student who has a case of this kind, and the answer with that case changed."""
    who = somebody("6.3", lambda p: reason in p["cases"].values())
    answer: dict[str, Any] = reasons(who)
    letter = next(k for k, r in params("6.3", who)["cases"].items() if r == reason)
    answer[letter] = {**answer[letter], **values}
    return who, answer


@pytest.mark.parametrize(
    ("reason", "values", "cause"),
    [
        ("output", {"reason": "fuses"}, "more than one node is left"),
        ("fuses", {"reason": "order"}, "one node is left"),
        ("two readers", {"reason": "output"}, "It is not that (a tensor that would disappear is among the outputs"),
        ("output", {"where": "y"}, "name the output that is not y"),
        ("two readers", {"where": "x"}, "name the tensor that two nodes read"),
        ("can be fed", {"where": "x"}, "name the weight"),
        ("order", {"where": "y"}, "name the tensor that the activation writes"),
        ("no kernel", {"where": "Elu"}, "name the tensor that the activation writes"),
        ("fuses", {"where": "y"}, "where is an empty text"),
        ("order", {"reason": "magic"}, "is none of: fuses"),
        ("order", {"reason": ["order"]}, "is none of: fuses"),
        ("order", {"reason": None}, "is none of: fuses"),
        ("order", {"more": 1}, "keys reason and where"),
    ],
)
def test_wrong_reasons(reason: str, values: dict[str, object], cause: str) -> None:
    who, answer = changed(reason, **values)
    assert cause in failed("6.3", answer, who)


def test_a_reason_that_is_no_dict() -> None:
    assert "keys reason and where" in failed("6.3", dict.fromkeys("abcde", "fuses"))


# 6.4


@pytest.mark.parametrize("student", STUDENTS)
def test_both_models_compute_the_same(student: str) -> None:
    before, after = handed_out("6.4", student)
    x = {"x": np.random.default_rng(2).normal(size=(1, 4, 8, 8)).astype(np.float32)}
    assert np.allclose(examine.result(before, x), examine.result(after, x), atol=1e-4)


def test_tracing_mistakes() -> None:
    answer = traced()
    fused = next(tensor for tensor, names in answer["from"].items() if len(names) > 1)
    single = next(tensor for tensor, names in answer["from"].items() if len(names) == 1)
    gone, names = answer["gone"], answer["from"][fused]

    def with_entry(tensor: str, value: object) -> dict[str, Any]:
        return {**answer, "from": {**answer["from"], tensor: value}}

    assert "1 missing" in failed("6.4", with_entry(fused, names[:1])) or len(names) > 2
    assert "belongs to gone" in failed("6.4", with_entry(fused, [*names, gone[0]]))
    assert "A node too many" in failed("6.4", with_entry(single, [*answer["from"][single], *names]))
    assert "not the name of a node" in failed("6.4", with_entry(single, ["Conv"]))
    assert "Write a list" in failed("6.4", with_entry(single, "n01"))
    assert "Write a list" in failed("6.4", with_entry(single, [1]))
    assert "Its keys must be" in failed("6.4", {**answer, "from": {"y": names}})
    assert "Its keys must be" in failed("6.4", {**answer, "from": None})
    assert "1 missing: a node is gone when" in failed("6.4", {**answer, "gone": gone[:-1]})
    assert "twice" in failed("6.4", {**answer, "gone": [*gone, gone[0]]})
    assert f"{names[0]} is not gone" in failed("6.4", {**answer, "gone": [*gone, names[0]]})
    assert "not the name of a node" in failed("6.4", {**answer, "gone": [*gone, "Exp"]})
    assert "list of node names" in failed("6.4", {**answer, "gone": None})


# 6.5


@pytest.mark.parametrize(
    ("fault", "cause"), [("mask", "it wants Unsqueeze, Unsqueeze"), ("scale", "it wants MatMul, then Div, then Add")]
)
def test_attention_as_handed_out_names_the_path(fault: str, cause: str) -> None:
    who = somebody("6.5", lambda p: p["fault"] == fault)
    assert cause in failed("6.5", handed_out("6.5", who)[0], who)


def test_attention_without_its_mask_or_root() -> None:
    model = attention()
    mix = next(n for n in model.graph.node if n.op_type == "Softmax")
    mix.input[0] = "scores"
    assert "The mask has no effect" in failed("6.5", model)
    model = attention()
    divide = next(n for n in model.graph.node if n.name == "divide")
    divide.op_type = "Identity"
    del divide.input[1:]
    assert "division by the root is missing" in failed("6.5", model)


def test_something_that_is_no_attention() -> None:
    model = attention()
    del model.graph.node[:]
    model.graph.node.append(helper.make_node("Neg", ["x"], ["y"]))
    assert "finds nothing that looks like attention" in failed("6.5", model)


def test_attention_that_only_stands_beside_the_old_nodes() -> None:
    """The given nodes still compute y; the ones that match are a copy whose result is multiplied by zero."""
    model, copy = handed_out("6.5")[0], attention()
    made = {name for node in copy.graph.node for name in node.output}
    for node in model.graph.node:
        node.output[:] = ["old_y" if name == "y" else name for name in node.output]
    for node in copy.graph.node:
        node.input[:] = [f"copy_{name}" if name in made else name for name in node.input]
        node.output[:] = [f"copy_{name}" for name in node.output]
        node.name = f"copy_{node.name}"
    stored = {t.name for t in model.graph.initializer}
    model.graph.initializer.extend(t for t in copy.graph.initializer if t.name not in stored)
    model.graph.initializer.append(numpy_helper.from_array(np.array(0, np.float32), "nothing"))
    model.graph.node.extend(copy.graph.node)
    model.graph.node.append(helper.make_node("Mul", ["copy_y", "nothing"], ["zeros"]))
    model.graph.node.append(helper.make_node("Add", ["old_y", "zeros"], ["y"]))
    assert "old pattern is still there beside it" in failed("6.5", model)


def test_attention_after_the_optimiser() -> None:
    p = params("6.5")
    done = optimizer.optimize_by_fusion(attention(), "bert", num_heads=p["heads"], hidden_size=p["hidden"])
    assert "Leave the fusing to the optimiser" in failed("6.5", done.model)


def test_attention_of_somebody_else() -> None:
    other = somebody("6.5", lambda p: p["heads"] == params("6.5")["heads"] and p["seed"] != params("6.5")["seed"])
    assert "no number may change" in failed("6.5", attention(other))
