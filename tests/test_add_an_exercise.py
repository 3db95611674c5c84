"""The page "Add an exercise" is followed to the letter, in a copy of the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from checkout import ROOT, project_files

PAGE = ROOT / "jupyter-book" / "add_an_exercise.md"
TASKS, TEXT = "course_utils/exercises/ch01/tasks.py", "data/exercises/01_graph_structure.py"
TESTS, NOTEBOOK = "tests/test_exercise_01.py", "notebooks/exercises/01_graph_structure.ipynb"


def insert(path: Path, what: str, before: str) -> None:
    """In front of the last line that begins so."""
    text = path.read_text(encoding="utf-8")
    start, found, rest = text.rpartition(f"\n{before}")
    assert found, f"the page sends people to a place that is not in {path.name}: {before}"
    path.write_text(f"{start}\n{what}{found}{rest}", encoding="utf-8")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fork")
    for path in project_files():
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    check, json_check, task, text, tests = re.findall(
        r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL
    )
    insert(folder / TEXT, text, "# %% [markdown]\n# ## Hand in")
    for name, added in ((TASKS, f"{check}\n\n{json_check}\n\n{task}"), (TESTS, tests)):
        with open(folder / name, "a", encoding="utf-8") as stream:
            stream.write(f"\n\n{added}")
    return folder


def run(copy: Path, *command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    done = subprocess.run(
        [sys.executable, *command], check=False, cwd=copy, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_new_task(copy: Path) -> None:
    run(copy, "notebooks/generate.py")
    cells = nbformat.read(copy / NOTEBOOK, as_version=4).cells
    (answer,) = [c for c in cells if c.source.startswith("# Task 1.7:")]
    assert "Softmax" not in answer.source, "the solution is not handed out"
    assert 'cu.check("1.7", "work/1.7.onnx")' in [c.source for c in cells]
    said = run(
        copy,
        "-m",
        "pytest",
        "tests/test_every_exercise.py",
        "tests/test_solutions.py",
        "-k",
        "1.7",
        "-q",
        "-p",
        "no:cacheprovider",
    )
    assert int(re.search(r"(\d+) passed", said)[1]) >= 10, said
    assert "failed" not in said


def test_the_solution_earns_the_point(copy: Path) -> None:
    solve = (
        "import re, pathlib, onnx, course_utils as cu\n"
        "from course_utils import exercises\n"
        "from course_utils.handin import solutions\n"
        "cu.setup(student='ada')\n"
        "pathlib.Path('work').mkdir(exist_ok=True)\n"
        f"text = pathlib.Path({TEXT!r}).read_text(encoding='utf-8')\n"
        "exec(solutions.read_solution(exercises.task('1.7'), text).code)\n"
        "print(cu.check('1.7', 'work/1.7.onnx').passed)\n"
    )
    assert run(copy, "-c", solve).splitlines()[-1] == "True"


def test_the_check_of_json(copy: Path) -> None:
    """It takes any value, and lets nobody pass who did not count."""
    ask = (
        "from random import Random\n"
        "from course_utils.exercises.ch01 import tasks\n"
        "p = {'seed': 7}\n"
        "right = len(tasks._counting_model(p).graph.node)\n"
        "for value in ({'nodes': right}, {'nodes': right + 1}, {'nodes': None}, {'nodes': [right]}, {}, [], None, 7):\n"
        "    print(all(c.passed for c in tasks._check_nodes(value, p, Random(0))))\n"
    )
    assert run(copy, "-c", ask).split() == ["True"] + ["False"] * 7


def test_the_edits_are_clean(copy: Path) -> None:
    for path in (TASKS, TESTS):
        run(copy, "-m", "ruff", "check", path)
        run(copy, "-m", "ruff", "format", "--check", path)
