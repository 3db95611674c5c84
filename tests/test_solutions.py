"""`cu.solution`: for whoever has tried, and only where the class has it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from checkout import ROOT

import course_utils as cu
from course_utils import exercises
from course_utils.handin import solutions

IDS = [id for chapter in exercises.chapters() for id in exercises.tasks_of(chapter)]


def source_of(id: str) -> str:
    (path,) = (ROOT / "data" / "exercises").glob(f"{int(id.partition('.')[0]):02}_*.py")
    return path.read_text(encoding="utf-8")


@pytest.fixture
def ada(folder, nobody_known):
    cu.setup(student="ada")
    return folder


@pytest.mark.parametrize("id", IDS)
def test_every_task_has_a_solution(id):
    found = solutions.read_solution(exercises.task(id), source_of(id))
    assert found.code.startswith(f"# Task {id}")
    assert "SOLUTION" not in repr(found)
    assert len(found.code.splitlines()) > 2
    compile(found.code.replace("await ", ""), id, "exec")


@pytest.mark.parametrize("id", IDS)
def test_every_task_is_explained(id):
    assert len(exercises.task(id).hints) >= 2
    assert 40 <= len(solutions.read_solution(exercises.task(id), source_of(id)).text.split()) <= 120


def test_first_a_try(ada):
    with pytest.raises(
        cu.CourseError, match=r'no try of task 1\.2 yet: make a file.*cu\.check\("1\.2", "work/1\.2\.json"\)'
    ):
        cu.solution("1.2")
    cu.check("1.2", "work/1.2.json")  # there is no file: that is no try
    with pytest.raises(cu.CourseError, match="no try"):
        cu.solution("1.2")
    Path("work/1.2.json").write_text(json.dumps({"nodes": 0}))
    assert not cu.check("1.2", "work/1.2.json").passed
    assert repr(cu.solution("1.2")).startswith("A solution of task 1.2\n\n# Task 1.2")
    with pytest.raises(cu.CourseError, match=r"no try of task 1\.3"):
        cu.solution("1.3")


def test_a_class_without_solutions(ada, monkeypatch):
    monkeypatch.setenv("COURSE_SOLUTIONS", "0")
    with pytest.raises(cu.CourseError, match="This class works without shown solutions"):
        cu.solution("1.2")


def test_any_other_word_leaves_them_on(ada, monkeypatch):
    monkeypatch.setenv("COURSE_SOLUTIONS", "1")
    with pytest.raises(cu.CourseError, match="no try of task 1"):
        cu.solution("1.2")


def test_a_course_that_was_handed_out_without_them(ada, monkeypatch):
    monkeypatch.setattr(solutions, "data_path", lambda name: ada / name)
    with pytest.raises(cu.CourseError, match="This class works without shown solutions"):
        cu.solution("1.2")


def test_the_explanation_is_the_task_s_own():
    text = """# %%
# Task 1.1: one
### BEGIN SOLUTION
x = 1
### END SOLUTION

# %%
cu.check("1.1", "work/1.1.onnx")

# %% [markdown] tags=["solution"]
# Because of one.
#
# - And so.

# %%
# Task 1.2: two
y = 2

# %% [markdown] tags=["solution"]
# Because of two.
"""
    found = solutions.read_solution(exercises.task("1.1"), text)
    assert (found.code, found.text) == ("# Task 1.1: one\nx = 1", "Because of one.\n\n- And so.")
    shown = found._repr_markdown_()
    assert "```python\n# Task 1.1: one\nx = 1\n```" in shown
    assert shown.endswith("- And so.")


def test_no_such_task(ada):
    with pytest.raises(cu.CourseError, match=r"no task '1\.99'"):
        cu.solution("1.99")
