"""What the checks of all chapters share: numbers of JSON, hints in one line, tasks by id, what lies anywhere in a model."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from google.protobuf.message import Message
from onnx import helper, numpy_helper

from course_utils.errors import CourseError
from course_utils.exercises import Criteria, Task, hidden_inputs, personal_params, task
from course_utils.exercises.examine import computes, every_node, every_tensor, has_io, left_notes, wants_keys, whole


@pytest.mark.parametrize(
    ("value", "number"),
    [(13, 13), (13.0, 13), (-2.0, -2), (0, 0), (2.0**53 - 1, 2**53 - 1), (1 - 2.0**53, 1 - 2**53), (10**30, 10**30),
     (2.0**53, None), (13.5, None), (True, None), (False, None), ("13", None), (None, None), (float("nan"), None), (float("inf"), None)],
)  # fmt: skip
def test_whole_numbers(value, number):
    found = whole(value)
    assert found == number
    assert type(found) is type(number)


def hint_of(text: str) -> str:
    criteria = Criteria()
    criteria.add("it", False, text)
    return criteria[0].hint


def test_a_hint_is_one_line_of_limited_length():
    assert hint_of("a\n\tb  c\x1b[1m") == "a b c [1m"
    assert hint_of("half \ud800") == "half ?"
    assert hint_of("x" * 600) == "x" * 600
    assert hint_of("x" * 601) == "x" * 600 + " …"
    assert hint_of(" " * 5999 + "ab") == "a", "6000 characters are looked at"


def test_what_was_met_has_no_hint_and_finds_no_cause():
    criteria = Criteria()
    assert criteria.add("goal", True, lambda: pytest.fail("computed, though nothing is wrong")) is True
    assert criteria.require("condition", False, lambda: "why") is False
    assert [(c.what, c.passed, c.hint, c.condition) for c in criteria] == [
        ("goal", True, "", False),
        ("condition", False, "why", True),
    ]


@pytest.mark.parametrize("id", ["1.99", "1.x", "x.1", "1", "", "1.1.1", "99.1", "0.1", "1.²"])
def test_ids_of_no_task(id):
    with pytest.raises(CourseError, match="There is no task"):
        task(id)
    assert task("1.2").id == "1.2"


def test_a_chapter_says_which_tasks_it_has():
    with pytest.raises(CourseError, match=r"Chapter 1 has: 1\.1, 1\.2, 1\.3, 1\.4, 1\.5, 1\.6\."):
        task("1.7")


def test_draws_depend_on_the_student_the_task_and_a_secret():
    """A task that shares the parameters of another one has inputs of its own."""
    first = Task("1.1", "t", "json", lambda *_: [], lambda rng: {"n": rng.getrandbits(64)}, points=1)
    twin = Task("1.2", "t", "json", lambda *_: [], lambda rng: {"n": rng.getrandbits(64)}, same_as="1.1", points=1)
    assert personal_params(first, "ada") == personal_params(twin, "ada")
    drawn = [(it, who, secret) for it in (first, twin) for who in ("ada", "grace") for secret in ("", "word")]
    assert len({hidden_inputs(*how).getrandbits(64) for how in drawn}) == len(drawn)
    mine = [(who, secret) for who in ("ada", "grace") for secret in ("", "word")]
    assert len({personal_params(first, *how)["n"] for how in mine}) == len(mine)


def nested() -> onnx.ModelProto:
    """A graph with an If, whose branch has a Constant, and a function with another one."""
    constant = helper.make_node("Constant", [], ["k"], "inner", value=numpy_helper.from_array(np.float32(2)))
    end = helper.make_tensor_value_info("k", 1, [])
    branch = helper.make_graph([constant], "branch", [], [end])
    choice = helper.make_node("If", ["c"], ["y"], "choice", then_branch=branch, else_branch=branch)
    weight = numpy_helper.from_array(np.ones(3, np.float32), "w")
    graph = helper.make_graph(
        [choice],
        "g",
        [helper.make_tensor_value_info("c", 9, [])],
        [helper.make_tensor_value_info("y", 1, [])],
        [weight],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])
    outer = helper.make_node("Constant", [], ["b"], "in_function", value=numpy_helper.from_array(np.float32(3)))
    model.functions.append(helper.make_function("own", "F", [], ["b"], [outer], [helper.make_opsetid("", 18)]))
    return model


def test_what_lies_anywhere_in_a_model():
    model = nested()
    assert sorted(n.name for n in every_node(model)) == ["choice", "in_function", "inner", "inner"]
    assert sorted(float(numpy_helper.to_array(t).sum()) for t in every_tensor(model)) == [2, 2, 3, 3]


def test_notes_that_an_exporter_left():
    model = nested()
    model.doc_string = " "
    helper.set_model_props(model, {"asked": "for"})
    assert left_notes(model) == []
    branch = model.graph.node[0].attribute[0].g
    branch.node[0].metadata_props.add(key="deep", value="1")
    branch.node[0].doc_string = "words"
    model.graph.doc_string = "  "
    model.functions[0].metadata_props.add(key="of the function", value="1")
    assert sorted(left_notes(model)) == ["deep", "of the function", "the doc_string of inner"]
    model.doc_string = "words"
    assert "the doc_string of the model" in left_notes(model)


def doubled(rows: str = "n") -> onnx.ModelProto:
    return onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 18]> g (float[{rows}] x) => (float[{rows}] y) <float two = {{2}}> {{ y = Mul(x, two) }}'
    )


def of_doubled(x: list[float], expected: list[float], rows: str = "n", **how: object) -> tuple[bool, str, bool]:
    criteria = Criteria()
    feed = {"x": np.array(x, np.float32)}
    passed = computes(doubled(rows), feed, np.array(expected, np.float32), criteria, "it", "Why.", **how)
    (c,) = criteria
    assert passed == c.passed
    return c.passed, c.hint, c.condition


def test_numbers_that_a_model_computes():
    assert of_doubled([1, 2], [2, 4]) == (True, "", False)
    assert of_doubled([1, 2], [2, 4], condition=True) == (True, "", True)
    assert of_doubled([1, 2], [2, 5]) == (False, "The largest difference is 1. Why.", False)
    assert of_doubled([0, 0], [9e-6, 0])[0]
    assert not of_doubled([0, 0], [11e-6, 0])[0]
    assert of_doubled([500, 0], [1000.09, 0])[0]
    assert not of_doubled([500, 0], [1000.11, 0])[0]
    assert of_doubled([1, 2], [2, 5], atol=1)[0]
    assert of_doubled([1, 2], [2, 5], rtol=0.2, condition=True) == (True, "", True)
    assert of_doubled([1, 2], [[2], [4]], condition=True) == (False, "The result has shape [2], expected [2, 1].", True)
    passed, hint, condition = of_doubled([1, 2], [2, 4], rows="3", condition=True)
    assert (passed, condition) == (False, True)
    assert hint.startswith("Input 'x' was fed shape [2]")


def test_names_that_a_model_must_have():
    """Weights that are inputs as well are none. Both ends are looked at, also where the first one is wrong."""
    model = doubled()
    model.graph.input.append(helper.make_tensor_value_info("two", 1, []))
    for inputs, outputs in (
        ({"x": "float"}, {"y": "float"}),
        ({"z": "float"}, {"y": "float"}),
        ({"x": "float"}, {"y": "int64"}),
    ):
        criteria = Criteria()
        right = (inputs == {"x": "float"}, outputs == {"y": "float"})
        assert has_io(model, inputs, outputs, criteria) == all(right)
        assert tuple(c.passed for c in criteria) == right
        assert all(c.condition and (c.passed or c.hint.startswith("They are ")) for c in criteria)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        ({"b": 1, "a": 2}, ""),
        ({"a": 1}, "It has a:"),
        ([], "It has none:"),
        ({"a": 1, "b": 2, "c": 3}, "It has a, b, c:"),
    ],
)
def test_keys_that_an_answer_must_have(answer, hint):
    criteria = Criteria()
    assert wants_keys(answer, {"b", "a"}, criteria) == (not hint)
    assert criteria[0].what == "the answer has the keys a, b"
    assert criteria[0].hint.startswith(hint)
    assert criteria[0].condition


def _walked(message: Message, kind: type[Message]) -> list[bytes]:
    """Every part of a kind, whatever it stands in: slow, and nothing is forgotten."""
    found = []
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if isinstance(value, Message) else value:
                if isinstance(part, kind):
                    found.append(part.SerializeToString())
                found += _walked(part, kind)
    return found


def test_no_node_and_no_tensor_is_forgotten():
    """In every place that the format has for one, in a graph, in a function, in its defaults, and in training."""

    def filled(message: Message, depth: int) -> None:
        """Each field that may hold graphs, nodes, attributes or tensors gets one part, several levels deep."""
        for field in message.DESCRIPTOR.fields:
            kind = field.message_type.name if field.message_type is not None else ""
            if kind in PARTS and (depth or kind in ("TensorProto", "SparseTensorProto")):
                value = getattr(message, field.name)
                part = value.add() if hasattr(value, "add") else value
                part.SetInParent()
                filled(part, depth - 1)
        if isinstance(message, onnx.NodeProto | onnx.TensorProto):
            message.name = str(next(numbers))

    numbers, model = itertools.count(), onnx.ModelProto()
    filled(model, 6)
    for walk, kind in ((every_tensor, onnx.TensorProto), (every_node, onnx.NodeProto)):
        found = [part.SerializeToString() for part in walk(model)]
        assert len(found) > 10
        assert sorted(found) == sorted(_walked(model, kind))


PARTS = {
    "GraphProto", "NodeProto", "AttributeProto", "TensorProto", "SparseTensorProto", "FunctionProto", "TrainingInfoProto",
}  # fmt: skip
