"""The checks of exercises 02 at their borders: one thing wrong in an otherwise right answer."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
from answers import accepted, criteria, failed, params
from onnx import helper
from test_exercise_02 import converted_by_hand, right_domains, right_history, right_ir, right_lowest, versions


def who_has(task_id: str, **wanted: Any) -> str:
    return next(w for w in map(str, range(300)) if wanted.items() <= params(task_id, w).items())


def lost(task_id: str, answer: Any, who: str = "ada") -> list[bool]:
    return [c.passed for c in criteria(task_id, answer, who) if not c.condition]


def test_every_student_has_a_right_history() -> None:
    """What became an input was an attribute of the same name in the version before, and no input earlier."""
    drawn = {}
    for who in map(str, range(150)):
        moved, restless = params("2.1", who)["moved"], params("2.1", who)["restless"]
        drawn |= {tuple(moved.values()): who, restless: who} | dict.fromkeys(params("2.1", who)["newcomers"], who)
    assert len(drawn) > 50
    for who in set(drawn.values()):
        accepted("2.1", right_history(who), who)
        (operator, name), opset = params("2.1", who)["moved"].values(), right_history(who)["moved"]
        before = [onnx.defs.get_schema(operator, v) for v in versions(operator) if v < opset]
        assert name in before[-1].attributes
        assert not [schema for schema in before if name in [i.name for i in schema.inputs]]


def test_a_version_of_the_last_opset_counts() -> None:
    who = who_has("2.1", restless="Cast")
    assert 24 in versions("Cast")
    accepted("2.1", right_history(who), who)
    answer = right_history(who)
    answer["versions"].remove(24)
    assert "1 versions are missing" in failed("2.1", answer, who)
    answer["versions"] += [24, 25]
    assert "[25] is newer than opset 24" in failed("2.1", answer, who)


@pytest.mark.parametrize("odd", [True, 13.5, "13", None])
def test_no_whole_numbers(odd: Any) -> None:
    right = right_history("ada")
    name = next(iter(right["introduced"]))
    assert "is not a whole number" in failed("2.1", right | {"introduced": right["introduced"] | {name: odd}})
    assert "is not a whole number" in failed("2.1", right | {"moved": odd})
    assert "a list of whole numbers" in failed("2.1", right | {"versions": [*right["versions"][:-1], odd]})
    assert "is not a whole number" in failed("2.2", right_lowest("ada") | {"opset": odd})


def test_the_second_goal_of_the_history_takes_both() -> None:
    right = right_history("ada")
    assert lost("2.1", right | {"versions": right["versions"][1:]}) == [True, False]
    assert lost("2.1", right | {"moved": -3}) == [True, False]
    assert lost("2.1", right | {"introduced": {}}) == [False, True]
    hints = failed("2.1", right | {"versions": right["versions"][1:], "moved": -3})
    assert "versions: 1 versions are missing" in hints
    assert "moved: In opset -3" in hints


def test_the_mean_over_all_axes() -> None:
    for who in (who_has("2.3", target=13), who_has("2.3", target=21)):
        model = converted_by_hand(who)
        mean = next(n for n in model.graph.node if n.op_type == "ReduceMean")
        del mean.input[1:]
        kept = [a for a in mean.attribute if a.name != "axes"]
        del mean.attribute[:]
        mean.attribute.extend(kept)
        assert "the mean over all axes" in failed("2.3", model, who)


def test_ir_versions_from_the_opsets_to_the_devices() -> None:
    who = next(w for w in map(str, range(300)) if params("2.4", w)["device_ir"] > oldest(w))
    for version, fine in ((oldest(who) - 1, False), (oldest(who), True), (params("2.4", who)["device_ir"], True)):
        model = right_ir(who)
        model.ir_version = version
        assert all(c.passed for c in criteria("2.4", model, who)) is fine
    model.ir_version = params("2.4", who)["device_ir"] + 1
    assert "Unsupported model IR version" in failed("2.4", model, who)


def oldest(who: str) -> int:
    return helper.OP_SET_ID_VERSION_MAP["ai.onnx", params("2.4", who)["opset"]]


def test_opset_imports_one_by_one() -> None:
    model = right_domains("ada")
    model.opset_import[0].version += 1
    assert "official support for domain ai.onnx is till opset" in failed("2.5", model)
    model = right_domains("ada")
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    assert "change the entry that is there" in failed("2.5", model)
    model = right_domains("ada")
    del model.opset_import[1]
    assert lost("2.5", model) == [False, True]
    model = right_domains("ada")
    model.opset_import[0].version = 24
    assert lost("2.5", model) == [True, False]
