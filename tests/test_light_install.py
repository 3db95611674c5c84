"""The package alone, without the extra `lessons`: the doctor and the checks work; a step of a lesson says what it needs."""

from __future__ import annotations

import json
import pickle
import tomllib

import pytest
from checkout import ROOT
from packaging.requirements import Requirement
from test_every_exercise import roads
from test_missing_package import BLOCK

import course_utils as cu
from course_utils import exercises
from course_utils.exercises import task

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
IMPORTED = {"py-cpuinfo": "cpuinfo", "prometheus-client": "prometheus_client"}
LESSONS = [Requirement(text).name for text in PROJECT["optional-dependencies"]["lessons"]]
MISSING = [IMPORTED.get(name, name) for name in LESSONS] + ["IPython", "jupyterlab", "jupytext", "scipy"]
# One of each chapter, the first that needs neither an export nor a calibration to be made.
TASKS = ["1.1", "2.1", "3.1", "4.2", "5.5", "6.1", "6.2", "7.1", "8.3", "9.12", "10.2", "11.3"]
ALONE = BLOCK.format(names=MISSING)


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Right answers, as bytes by task."""
    found = {}
    for id in TASKS:
        value = roads(id)[0]("ada")
        found[id] = value.SerializeToString() if task(id).kind == "onnx" else json.dumps(value).encode()
    path = tmp_path_factory.mktemp("answers") / "right"
    path.write_bytes(pickle.dumps(found))
    return path


def test_one_task_of_each_chapter_is_looked_at():
    assert {int(id.partition(".")[0]) for id in TASKS} == set(exercises.chapters())


def test_right_answers_pass(answers, python, tmp_path):
    code = (
        ALONE
        + f"""
import pickle
from course_utils.handin.assessing import assessed
from course_utils.exercises import task
for id, data in pickle.load(open({str(answers)!r}, "rb")).items():
    found = assessed(task(id), data, id, "ada")
    print(id, found.problem or [c.what + c.hint for c in found.criteria if not c.passed] or "passed")
"""
    )
    said = python(code, cwd=tmp_path).stdout.splitlines()
    assert said == [f"{id} passed" for id in TASKS]


def test_the_doctor_examines(python, tmp_path, fashion_onnx):
    code = (
        ALONE
        + f"""
import sys
sys.argv = ["doctor", "--run", {str(fashion_onnx)!r}]
from course_utils import doctor
import runpy
runpy.run_module("course_utils.doctor", run_name="__main__")
"""
    )
    done = python(code, cwd=tmp_path, ok=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fashion_resnet.onnx: 1 note" in done.stdout


def test_a_step_of_a_lesson_says_what_it_needs(python, tmp_path):
    code = ALONE + "try:\n    cu.fashion_resnet()\nexcept cu.CourseError as error:\n    print(error)\n"
    said = python(code, cwd=tmp_path).stdout
    assert "'torch' is not installed, and this step needs it. Run  %pip install 'onnx-scroll[lessons]'" in said


def test_the_extra_of_the_lessons_is_a_part_of_lab():
    assert "onnx-scroll[lessons]" in PROJECT["optional-dependencies"]["lab"]
    assert cu.__version__ == PROJECT["version"]
