"""Students keep their parameters and files when the course is updated, and checks ask the same: all is as it was recorded."""

from __future__ import annotations

import json

import numpy as np
import pytest
import recorded_checks
from recorded_tasks import RECORD, TASKS, drawn, handed_out, others

from course_utils import exercises
from course_utils.exercises.activations import AWKWARD, Meaning, likely_slip

KNOWN = json.loads(RECORD.read_text(encoding="utf-8"))
CHECKS = json.loads(recorded_checks.RECORD.read_text(encoding="utf-8"))
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


@pytest.mark.parametrize("id", TASKS)
def test_what_other_students_are_handed_out(id):
    assert others(id) == KNOWN["tasks"][id]["others"], f"other files than before, {ON_PURPOSE}"


@pytest.mark.parametrize("id", recorded_checks.CHECKED)
def test_what_a_check_asks(id):
    now, then = recorded_checks.asked(id), CHECKS["checks"][id]
    assert now["tolerances"] == then["tolerances"], f"others than before, {recorded_checks.ON_PURPOSE}"
    assert now["inputs"] == {what: pytest.approx(number, rel=2e-3) for what, number in then["inputs"].items()}, (
        f"others than before, {recorded_checks.ON_PURPOSE}"
    )
    for found, recorded in zip(now["slips"], then["slips"], strict=True):
        assert found == pytest.approx(recorded, rel=2e-3), f"a slip is computed otherwise, {recorded_checks.ON_PURPOSE}"


@pytest.mark.parametrize("of", [recorded_checks.activations, recorded_checks.scrolls])
def test_what_operators_and_their_slips_compute(of):
    assert of() == {
        operator: [pytest.approx(x, rel=2e-3) if isinstance(x, float) else x for x in recorded]
        for operator, recorded in CHECKS[of.__name__].items()
    }


def test_the_likely_slip_is_told():
    """In both places, or in one of them; where none fits nine numbers of ten, there is advice."""
    x = np.linspace(-4.9, 5.2, 60)

    def network(first: Meaning, second: Meaning) -> np.ndarray:
        return second(first(x) + 4 * np.sin(5 * x)) + 0.3 * first(x)

    for operator, (meaning, _, wrongs) in AWKWARD.items():
        with np.errstate(all="ignore"):
            for sentence, wrong in wrongs.items():
                assert likely_slip(operator, network(wrong, meaning), network) == f"In the first of both: {sentence}"
                assert likely_slip(operator, network(meaning, wrong), network) == f"In the second of both: {sentence}"
                assert likely_slip(operator, network(wrong, wrong), network) == sentence
            off = network(meaning, next(iter(wrongs.values())))
            for spoilt, told in ((5, True), (6, False)):
                partly = np.where(np.arange(60) < spoilt, 99, off)
                assert likely_slip(operator, partly, network).startswith("In the second") == told
