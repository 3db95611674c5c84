"""What the tests of exercises share: handing an answer to a check, and what it says of a wrong one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from random import Random
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from course_utils.errors import CourseError
from course_utils.exercises import Criterion, personal_params, task
from course_utils.handin.assessing import assess
from course_utils.onnx_files import parse

STUDENTS = ["ada", "grace", "emmy", "s-001", "guest", "x"]


def criteria(task_id: str, value: Any, who: str = "ada") -> list[Criterion]:
    return assess(task(task_id), value, who)


def failed(task_id: str, value: Any, who: str = "ada") -> str:
    """All hints of the criteria that failed; it must be at least one, and each must have a hint."""
    found = [c for c in criteria(task_id, value, who) if not c.passed]
    assert found, f"{task_id} accepts a wrong answer"
    assert all(c.hint for c in found)
    return " ".join(c.hint for c in found)


def accepted(task_id: str, value: Any, who: str = "ada") -> None:
    """Asserts that a right answer meets every criterion, and that there is at least one."""
    found = criteria(task_id, value, who)
    assert found
    assert [c for c in found if not c.passed] == []


def hints(found: list[Criterion]) -> str:
    """What a student reads of the criteria that are not met."""
    return " ".join(c.hint for c in found if not c.passed)


def given_files(task_id: str, who: str = "ada", key: str = "") -> dict[str, bytes]:
    """The bytes of each file that a task hands out, by name. key: that of a class."""
    it = task(task_id)
    files = it.given(personal_params(it, who, key)) if it.given else {}
    return {name: m if isinstance(m, bytes) else m.SerializeToString() for name, m in files.items()}


def given(task_id: str, who: str = "ada") -> onnx.ModelProto:
    """The one model that a task hands out."""
    it = task(task_id)
    assert it.given is not None
    (model,) = it.given(personal_params(it, who)).values()
    return model


def damaged(model: onnx.ModelProto, seed: str, tries: int = 100) -> Iterator[onnx.ModelProto]:
    """Copies of a model with a few bytes changed, as far as they can still be parsed."""
    right, rng = model.SerializeToString(), Random(seed)
    for _ in range(tries):
        data = bytearray(right)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        with contextlib.suppress(CourseError):
            yield parse(bytes(data), "it")


def nearly(model: onnx.ModelProto, factor: float = 1.01) -> onnx.ModelProto:
    """A model whose first output is one hundredth too large, or multiplied by another factor."""
    end = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["exactly" if name == end else name for name in node.output]
    model.graph.initializer.append(numpy_helper.from_array(np.array(factor, np.float32), "more"))
    model.graph.node.append(helper.make_node("Mul", ["exactly", "more"], [end]))
    return model


def params(task_id: str, who: str = "ada") -> dict[str, Any]:
    return personal_params(task(task_id), who)
