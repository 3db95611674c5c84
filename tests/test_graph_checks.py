"""The checks of exercises 01, 04, 8.4, 8.5, 10.3 at their borders, and slips that other tests do not make."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import numpy as np
import pytest
from answers import accepted, criteria, failed, given, params
from onnx import ModelProto, TensorProto, helper
from test_exercise_01 import counted, formula, formula_text
from test_exercise_04 import STEPS, WEIGHTED, any_batch, any_size, between, reader
from test_exercise_08 import outcome, settings_for
from test_exercise_10 import shipped

from course_utils.exercises import fashion_reference
from course_utils.exercises.ch08 import server_limits

# 1.1


@pytest.mark.parametrize(
    ("numbers", "cause"),
    [
        ({"a": 1.0}, "a is missing, or is 1"),
        ({"a": "c", "c": "a"}, "a and c are exchanged"),
        ({"a": "b", "b": "c", "c": "a"}, "b, c and a stand where a, b and c belong"),
        ({"a": "c", "b": "a", "c": "b"}, "c, a and b stand where a, b and c belong"),
    ],
)
def test_numbers_of_the_formula(numbers: dict[str, Any], cause: str) -> None:
    p = params("1.1")
    assert cause in failed("1.1", formula(**{name: p.get(value, value) for name, value in numbers.items()}))


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ("ax = Mul(a, x)  o = F(ax)  s = Add(o, b)  cx = Mul(c, x)  y = Add(s, cx)", "b is added after f"),
        ("ax = Mul(a, x)  i = Add(ax, b)  o = F(i)  y = Mul(c, o)", "c multiplies f, not x"),
        ("ax = Mul(a, x)  i = Add(ax, b)  o = F(i)  cx = Mul(c, x)  y = Mul(o, cx)", "is multiplied by c·x, not added"),
    ],
)
def test_nodes_of_the_formula(body: str, cause: str) -> None:
    assert cause in failed("1.1", formula_text("ada", body))


@pytest.mark.parametrize("dims", [("batch", 4), ("batch", "three"), ("batch", 3, 3), (3,)])
def test_shapes_of_x(dims: tuple[int | str, ...]) -> None:
    model = formula()
    for value in (model.graph.input[0], model.graph.output[0]):
        value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, dims))
    assert "The first dimension must be a name such as 'batch', the second one 3" in failed("1.1", model)


# 1.2


def test_dims_added_up_and_the_goals_one_by_one() -> None:
    graph = given("1.2").graph
    read = {name for node in graph.node for name in node.input}
    total = sum(sum(t.dims) for t in graph.initializer if t.name in read)
    assert "You added up the dims" in failed("1.2", counted(parameters=total))
    unread = [t.name for t in graph.initializer if t.name not in read]
    for wrong, at in (
        ({"nodes": len(graph.node) + 1}, 0), ({"parameters": 1}, 1), ({"unused": [*unread, "x"]}, 2),
        ({"unused": [*unread[1:], "x"]}, 2),
    ):  # fmt: skip
        passed = [c.passed for c in criteria("1.2", counted(**wrong)) if not c.condition]
        assert passed == [i != at for i in range(3)], wrong


# 4.1, 4.2 and 4.4


def test_neither_mean_nor_std() -> None:
    model = any_batch(steps="a = Div({input}, full)  x = Reshape(a, shape)")
    assert "mean and std are missing" in failed("4.1", model)


@pytest.mark.parametrize("dims", [("requests",), ("requests", 10, 1)])
def test_axes_too_few_or_too_many(dims: tuple[int | str, ...]) -> None:
    """Nobody infers the rank: it hangs on numbers that are known when the model runs."""
    p = params("4.1")
    weights = {"full": 255.0, "mean": p["mean"], "std": p["std"], "shape": [-1, 1, 28, 28], "two": [1, 1]}
    behind = f"s = Shape(middle)  t = Cast<to = 9>(two)  k = Compress(s, t)  {p['output']} = Reshape(middle, k)"
    ends = (p["input"], [p["name"], 784]), (p["output"], list(dims))
    model = between(fashion_reference.network(), STEPS.format(**p), behind, *ends, weights)
    assert f"[{', '.join(map(str, dims))}]. It must have 2 axes." in failed("4.1", model)


def test_the_sum_of_the_maps() -> None:
    model = any_size(
        pool="m = ReduceSum<keepdims = 0>(middle, places)  h = ReduceMax<keepdims = 0>(middle, places)  "
        "sm = Mul(share, m)  rh = Mul(rest, h)  both = Add(sm, rh)"
    )
    assert "The sum is taken in place of the mean" in failed("4.2", model)


LIKE_ONE = WEIGHTED.replace("w = Pow(decay, af)", "zeros = Sub(af, af)  w = Pow(decay, zeros)")
FLIPPED = WEIGHTED.replace("Range(last, minus, minus)", "Range(nought, n, one)").replace(
    "last = Sub(n, one)", "nought = Sub(one, one)"
)


@pytest.mark.parametrize(
    ("steps", "start", "cause"),
    [
        (LIKE_ONE, 0.0, "All steps count alike, and the start is not in it"),
        (FLIPPED, 0.0, "The weights run the wrong way, and the start is not in it"),
        (WEIGHTED.replace("xs = Add(x, rows)", "xs = Sub(x, rows)"), None, "The table of positions is subtracted"),
        (WEIGHTED.replace("xs = Add(x, rows)", "xs = Identity(x)"), None, "The table of positions is not added"),
    ],
)
def test_slips_of_the_reader(steps: str, start: float | None, cause: str) -> None:
    changed = {} if start is None else {"start": start}
    assert cause in failed("4.4", reader(steps=steps, **changed))


# 8.4


@pytest.mark.parametrize(("largest", "wait"), [(1, 0), (32, 1000), (32, 0)])
def test_settings_at_their_borders_are_looked_at(largest: int, wait: float) -> None:
    found = criteria("8.4", outcome("ada", largest, wait))
    assert all(c.passed for c in found if c.condition)
    assert [c for c in found if not c.condition]


@pytest.mark.parametrize(
    "change", [{"wait_ms": 1000.5}, {"largest_batch": 33}, {"largest_batch": 0}, {"wait_ms": -0.1}]
)
def test_settings_beyond_their_borders(change: dict[str, float]) -> None:
    found = criteria("8.4", settings_for("ada") | change)
    assert not [c for c in found if not c.condition]


def test_an_outcome_may_be_rounded() -> None:
    right = settings_for("ada")
    for near in ({"p99_ms": right["p99_ms"] * 1.008}, {"busy": right["busy"] + 0.005}, {"busy": right["busy"] - 0.005}):
        accepted("8.4", right | near)


def test_the_limits_themselves_are_allowed() -> None:
    p, answer = params("8.4"), settings_for("ada")
    found = server_limits.served(p, 16, answer["wait_ms"], Random(3).randrange(10**6))
    exact = {"p99_ms": float(np.percentile(found.latencies, 99)), "busy": float(found.busy)}
    for limits, passed in ((exact, [True, True]), ({k: v * 0.999 for k, v in exact.items()}, [False, False])):
        judged = server_limits.check_settings(answer, p | limits, Random(3))
        assert [c.passed for c in judged if not c.condition] == passed


def test_why_the_model_is_busy() -> None:
    for answer, cause in (
        (outcome("ada", 1, 0), "No more fit into a batch"),
        (outcome("ada", 16, 0), "wait longer for others"),
    ):
        busy = next(c for c in criteria("8.4", answer) if "is busy" in c.what)
        assert not busy.passed
        assert cause in busy.hint


# 8.5


LIMITS = {"most_bytes": 4000, "most_images": 3, "queue": 20}
PICTURE = np.zeros((28, 28), np.uint8)


def as_json(value: Any) -> bytes:
    return json.dumps({"pixels": value}).encode()


@pytest.mark.parametrize(
    ("kind", "waiting", "body", "status"),
    [
        (server_limits.NPY, 19, server_limits._npy(PICTURE), 200),
        (server_limits.NPY, 20, server_limits._npy(PICTURE), 503),
        (server_limits.NPY, 0, server_limits._npy(np.stack([PICTURE] * 3)), 200),
        (server_limits.NPY, 0, server_limits._npy(np.stack([PICTURE] * 4)), 422),
        (server_limits.NPY, 0, server_limits._npy(PICTURE[None][:0]), 422),
        (server_limits.NPY, 0, server_limits._npy(PICTURE[:, :27]), 422),
        (server_limits.NPY, 0, server_limits._npy(PICTURE.astype(np.int8)), 422),
        (server_limits.NPY, 0, server_limits._npy(PICTURE)[:-1], 400),
        (server_limits.NPY, 0, b"x" * 4000, 400),
        (server_limits.NPY, 0, b"x" * 4001, 413),
        ("image/png", 20, server_limits._npy(PICTURE), 415),
        (server_limits.JSON, 0, as_json(PICTURE.tolist()), 200),
        (server_limits.JSON, 0, as_json([[256] + [0] * 27] + [[0] * 28] * 27), 422),
        (server_limits.JSON, 0, as_json([[255] + [0] * 27] + [[0] * 28] * 27), 200),
        (server_limits.JSON, 0, as_json([[-1] + [0] * 27] + [[0] * 28] * 27), 422),
        (server_limits.JSON, 0, as_json([[0.5] + [0] * 27] + [[0] * 28] * 27), 422),
        (server_limits.JSON, 0, b"[", 400),
    ],
)  # fmt: skip
def test_what_the_server_of_the_task_answers(kind: str, waiting: int, body: bytes, status: int) -> None:
    assert server_limits.status(kind, waiting, body, LIMITS) == status


def test_nine_of_twelve() -> None:
    right = {
        k: server_limits.status(*r, params("8.5")["limits"])
        for k, r in server_limits.requests_of(params("8.5")).items()
    }
    for wrong, passed in ((3, [True, False]), (4, [False, False])):
        answer = right | {k: 400 if right[k] != 400 else 422 for k in list(right)[:wrong]}
        assert [c.passed for c in criteria("8.5", answer) if not c.condition] == passed
        assert ("First most of them" in failed("8.5", answer)) is not passed[0]


# 10.3


def failing(model: ModelProto) -> list[str]:
    return [c.what for c in criteria("10.3", model) if not c.passed]


def fill(model: ModelProto, size: int) -> None:
    """A note of the student's own makes the file so large."""
    model.metadata_props.add(key="more", value="x" * 1000)
    while model.ByteSize() != size:
        length = len(model.metadata_props[-1].value) + size - model.ByteSize()
        model.metadata_props[-1].value = "x" * length


def test_each_goal_of_shipping_alone() -> None:
    p = params("10.3")
    model = shipped("ada")
    accepted("10.3", model)
    entry = next(e for e in model.metadata_props if e.key == "version")
    entry.value = p["version"] + " "
    assert failing(model) == [f"metadata_props: version is {p['version']}"]
    model.metadata_props.remove(entry)
    assert "It is missing: set_model_props, as for classes" in failed("10.3", model)
    model = shipped("ada")
    fill(model, p["most_bytes"])
    accepted("10.3", model)
    model.metadata_props[-1].value += "x"
    assert failing(model) == [f"the file has at most {p['most_bytes']:,} bytes"]


def test_as_many_nodes_as_allowed() -> None:
    p = params("10.3")
    model = shipped("ada")
    last = model.graph.node[-1]
    last.output[0] = "end0"
    more = p["most_nodes"] - len(model.graph.node)
    for i in range(more):
        target = "logits" if i == more - 1 else f"end{i + 1}"
        model.graph.node.append(helper.make_node("Identity", [f"end{i}"], [target]))
    accepted("10.3", model)
    model.graph.node[-1].output[0] = "nearly"
    model.graph.node.append(helper.make_node("Identity", ["nearly"], ["logits"]))
    assert failing(model) == [f"it has at most {p['most_nodes']} nodes"]
