"""The checks of exercises 05 at their borders: one thing wrong in an otherwise right answer."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import onnx
import pytest
from answers import accepted, criteria, failed, given
from onnx import helper, numpy_helper
from test_exercise_05 import (
    CPU,
    changed,
    rewritten,
    right_configuration,
    right_placement,
    some_profile,
    student_with,
)


def lost(task_id: str, answer: Any) -> list[str]:
    return [c.what for c in criteria(task_id, answer) if not c.passed]


# 5.1


@pytest.mark.parametrize("change", [lambda p: p | {"more": CPU}, lambda p: dict(list(p.items())[1:])])
def test_a_node_too_many_or_too_few(change: Any) -> None:
    right = right_placement("ada")
    assert "the name of each node" in failed("5.1", right | {"placement": change(right["placement"])})


def test_one_of_the_two_questions_alone_is_wrong() -> None:
    right = right_placement("ada")
    assert lost("5.1", right | {"crossings": right["crossings"] + 1}) == [
        "crossings counts the connections between nodes on different providers"
    ]
    assert len(lost("5.1", right | {"strict_error": not right["strict_error"]})) == 1
    assert "without quotes" in failed("5.1", right | {"strict_error": int(right["strict_error"])})
    for number in (1e300, 2.0**53, float("inf"), -0.5):  # from 2**53 on, a float does not say which whole number it is
        assert "It is not a whole number" in failed("5.1", right | {"crossings": number})


# 5.2


def events() -> list[dict[str, Any]]:
    return copy.deepcopy(some_profile("ada"))


def of_kind(found: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Events of runs, and of nodes."""
    return [e for e in found if e.get("name") == "model_run"], [e for e in found if e.get("cat") == "Node"]


@pytest.mark.parametrize(("early", "fine"), [(10, True), (11, False)])
def test_a_node_a_little_before_its_run(early: int, fine: bool) -> None:
    found = events()
    runs, nodes = of_kind(found)
    nodes[0].update(ts=min(e["ts"] for e in runs) - early, dur=1)
    assert lost("5.2", found) == ([] if fine else ["it was written by ONNX Runtime"])


@pytest.mark.parametrize(("late", "fine"), [(1000, True), (1001, False)])
def test_a_node_a_little_behind_its_run(late: int, fine: bool) -> None:
    found = events()
    runs, nodes = of_kind(found)
    final = max(runs, key=lambda e: e["ts"])
    nodes[0].update(ts=final["ts"] + final["dur"], dur=late)
    assert lost("5.2", found) == ([] if fine else ["it was written by ONNX Runtime"])


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("change", [{"ts": "1"}, {"dur": None}, {"dur": -1}, {"ts": 1.5}, {"dur": True}])
def test_events_without_times(kind: int, change: dict[str, Any]) -> None:
    found = events()
    of_kind(found)[kind][0].update(change)
    assert "Events have no times" in failed("5.2", found)


def test_a_node_that_took_less_than_a_microsecond() -> None:
    found = events()
    of_kind(found)[1][0]["dur"] = 0
    assert lost("5.2", found) == []


@pytest.mark.parametrize("change", [{}, {"args": None}, {"args": []}, {"args": "CPUExecutionProvider"}])
def test_a_node_without_its_facts_did_not_run(change: dict[str, Any]) -> None:
    found = events()
    runs, nodes = of_kind(found)
    event = next(e for e in nodes if e["name"].endswith("_kernel_time"))
    del event["args"]
    event.update(change)
    name = event["name"].removesuffix("_kernel_time")
    assert f"{name} ran {len(runs) - 1} times in {len(runs)} events model_run" in failed("5.2", found)


def test_nodes_of_another_provider() -> None:
    found = events()
    for event in of_kind(found)[1]:
        if "provider" in event["args"]:
            event["args"]["provider"] = "CUDAExecutionProvider"
    assert "Some ran on CUDAExecutionProvider" in failed("5.2", found)


def test_nodes_of_two_models() -> None:
    found = events()
    found += [e for e in some_profile("grace") if e.get("cat") == "Node"]
    assert "that is the model at none of the levels" in failed("5.2", found)


@pytest.mark.parametrize("fact", ["op_name", "input_type_shape", "output_type_shape", "output_size", "parameter_size"])
def test_each_fact_of_a_node_is_compared(fact: str) -> None:
    found = events()
    event = next(e for e in of_kind(found)[1] if fact in e["args"] and e["name"].endswith("_kernel_time"))
    event["args"][fact] = "other" if isinstance(event["args"][fact], str) else event["args"][fact] * 2
    assert f"has {fact}" in failed("5.2", found)


@pytest.mark.parametrize("rows", [-5, 0, 1, 10**9, "many"])
def test_rows_that_are_not_asked_for(rows: Any) -> None:
    """No such input is made up to compare with."""
    found = events()
    for event in of_kind(found)[1]:
        for shape in event["args"].get("input_type_shape", []):
            for dims in shape.values():
                dims[:1] = [rows]
    assert "it was written by ONNX Runtime" in lost("5.2", found)


def test_runs_of_one_row() -> None:
    assert "Its first dimension was 1 there" in failed("5.2", some_profile("ada", rows=1))


# 5.3


def test_threads_and_rows_at_their_borders() -> None:
    assert "There are 64 threads inside a node, yours are" in failed(
        "5.3", changed("options", "intra_op_num_threads", 64)
    )
    assert "one per core" in failed("5.3", changed("options", "intra_op_num_threads", 0))
    for rows in (1, 1000):
        assert "Your number of rows is" in failed("5.3", changed("free_dimensions", "rows", rows))
    accepted("5.3", changed("config", "session.dynamic_block_base", "9999"))
    accepted("5.3", changed("options", "inter_op_num_threads", 64))


def test_each_option_alone_is_one_goal() -> None:
    spinning = changed("config", "session.intra_op.allow_spinning", "1")
    assert lost("5.3", spinning) == ["waiting threads sleep"]
    assert lost("5.3", changed("options", "enable_cpu_mem_arena", True)) == ["no memory arena"]
    assert lost("5.3", changed("options", "enable_cpu_mem_arena", 1)) == ["switches are true or false"]
    del spinning["config"]["session.intra_op.allow_spinning"]
    assert "'not set': by default" in failed("5.3", spinning)


@pytest.mark.parametrize("providers", [[], [CPU, CPU], ["CUDAExecutionProvider", CPU], ["AzureExecutionProvider"]])
def test_the_cpu_provider_alone(providers: list[str]) -> None:
    answer = right_configuration("ada") | {"providers": providers}
    assert lost("5.3", answer) == ["the providers are the CPU provider alone"]


@pytest.mark.parametrize("providers", [CPU, [3], {CPU: 1}, None])
def test_providers_that_are_no_list_of_names(providers: Any) -> None:
    assert "the providers as a list of strings" in failed("5.3", right_configuration("ada") | {"providers": providers})


@pytest.mark.parametrize(
    "key",
    [
        "session.inter_op.allow_spinning",
        "session.disable_prepacking",
        "session.use_env_allocators",
        "session.use_device_allocator_for_initializers",
        "session.record_ep_graph_assignment_info",
    ],
)
def test_keys_that_do_no_harm(key: str) -> None:
    accepted("5.3", changed("config", key, "0"))


@pytest.mark.parametrize("value", ["", "1.5", "²", "12345", "-1"])
def test_blocks_that_are_no_number(value: str) -> None:
    assert "a number is expected" in failed("5.3", changed("config", "session.dynamic_block_base", value))


# 5.5


def test_constants_as_nodes() -> None:
    who = student_with("Softsign")
    model = rewritten(who)
    one = next(t for t in model.graph.initializer if t.name == "one")
    model.graph.initializer.remove(one)
    model.graph.node.insert(0, helper.make_node("Constant", [], ["one"], value=one))
    assert "Constants are best stored as initializers" in failed("5.5", model, who)


def test_a_slip_in_the_first_of_both() -> None:
    who = student_with("Celu")
    right, wrong = rewritten(who), rewritten(who, "y = Max x zero", only=0)
    second = [n for n in right.graph.node if n.name.startswith("activate_2") or n.output[0] == "y"]
    kept = [n for n in wrong.graph.node if n.name != "activate_2"]
    del wrong.graph.node[:]
    wrong.graph.node.extend([*kept, *second])
    assert "In the first of both: That is Relu" in failed("5.5", wrong, who)


def test_what_is_nearly_a_slip_is_none() -> None:
    who = student_with("Gelu")
    model = rewritten(who, "a = Mul x root; b = Erf a; c = Add b one; y = Mul c x")  # without the factor 0.5
    bias = next(t for t in model.graph.initializer if t.name == "b1")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.3), "b1"))
    assert "Compare each new piece" in failed("5.5", model, who)


def test_one_awkward_node_left_is_worth_a_point() -> None:
    who = student_with("Mish")
    assert [c.passed for c in criteria("5.5", rewritten(who, only=0), who) if not c.condition] == [True, False]
    given_back = [c.passed for c in criteria("5.5", onnx.ModelProto.FromString(given("5.5", who).SerializeToString()), who)
                  if not c.condition]  # fmt: skip
    assert given_back == [False]
