"""Students keep their parameters and files when the course is updated: both are as they were recorded."""

from __future__ import annotations

import json

import pytest
from recorded_tasks import RECORD, TASKS, drawn, handed_out

from course_utils import exercises

KNOWN = json.loads(RECORD.read_text(encoding="utf-8"))
ON_PURPOSE = "if it is meant, raise exercises.VERSION and run: python tests/recorded_tasks.py"


def test_the_record_is_of_this_version_and_of_all_tasks():
    assert KNOWN["version"] == exercises.VERSION
    assert list(KNOWN["tasks"]) == TASKS


@pytest.mark.parametrize("id", TASKS)
def test_what_students_draw(id):
    assert drawn(id) == KNOWN["tasks"][id]["drawn"], f"others than before, {ON_PURPOSE}"


@pytest.mark.parametrize("id", TASKS)
def test_what_students_are_handed_out(id):
    now, then = handed_out(id), KNOWN["tasks"][id]["handed_out"]
    assert list(now) == list(then)
    for name, before in then.items():
        for found, recorded in zip(now[name], before, strict=True):
            assert found == [pytest.approx(x, rel=2e-3) if isinstance(x, float) else x for x in recorded], (
                f"{name} is another file than before, {ON_PURPOSE}"
            )
