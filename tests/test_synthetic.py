"""The command that grades a thousand made-up submissions: a small one, and that it notices a mark that is not as known."""

import re
from collections import Counter

import pytest
import synthetic
from synthetic import KINDS, STUDENTS, differences, make, unlike

from course_utils.exercises import task
from course_utils.grading.runs import grade
from course_utils.handin import guarded
from course_utils.handin.assessing import read

# Of each kind, with and without PyTorch in a right answer's making; all of them take a second or two.
TASKS = ("1.2", "1.3", "2.4", "2.6", "3.2", "5.6", "6.4", "7.1", "7.2", "7.6", "9.16", "10.5")


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic")
    (folder / "in").mkdir()
    made = make(folder / "in", 24, TASKS, STUDENTS[:2], bad_models=0)
    with synthetic.Watch() as watch:
        grade(folder / "in", folder / "out", workers=2, secret=synthetic.SECRET)
    return folder / "out", made, watch


def test_all_marks_are_as_known(graded):
    report, made, _ = graded
    assert differences(report, made) == []
    kinds = Counter(one.kind for one in made.values())
    assert {"right", "wrong", "mixed"} < set(kinds)
    assert sum(bool(one.says) for one in made.values()) >= 2


def test_a_mark_that_is_not_as_known_is_named(graded):
    report, made, _ = graded
    name, one = next((name, one) for name, one in made.items() if one.kind == "right")
    changed = {**made, name: synthetic.Made("right", one.points | {"1.2": (0, 0)})}
    assert re.fullmatch(rf"{name} \(right\), task 1\.2: \d+ points, not 0 to 0", *differences(report, changed))


def test_what_it_took_is_measured(graded):
    watch = graded[2]
    assert 0 < watch.one <= watch.all
    assert watch.one < guarded.MEMORY
    assert watch.core_seconds > 0
    assert watch.seconds > 0


@pytest.mark.parametrize("id", ["1.2", "2.4", "7.2"])
def test_other_bytes_are_the_same_answer(id):
    it, (data, _) = task(id), synthetic._answers(id, STUDENTS[0])["right"][0]
    files = {unlike(it, data, number) for number in range(300)}
    assert len(files) == 300
    values = [read(it, file, "it") for file in sorted(files)[:20]]
    for value in values:
        if it.kind == "onnx":
            value.model_version = 0
    assert all(value == values[0] for value in values)


def test_every_kind_has_its_share():
    assert sum(KINDS.values()) == 20
