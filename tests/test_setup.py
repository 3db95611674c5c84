"""The first call of every notebook, what it says of the machine, and the questions."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

import course_utils as cu
from course_utils import environment

pytestmark = pytest.mark.usefixtures("folder", "nobody_known")


def draw():
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_setup_prepares_folder_seeds_threads_and_says_so(folder, capsys):
    assert cu.setup() is None
    first = draw()
    cu.setup()
    assert draw() == first
    cu.setup(seed=1)
    assert draw() != first
    assert [p.name for p in folder.iterdir()] == ["work"]
    assert not list((folder / "work").iterdir()), "the probe is gone"
    line = capsys.readouterr().out.splitlines()[0]
    assert f"torch {torch.__version__.split('+')[0]} · onnx " in line
    assert line.endswith(f"{environment.usable_cores()} threads")


def test_threads_and_student(capsys):
    cu.setup(student="ada", threads=1)
    assert torch.get_num_threads() == 1
    assert capsys.readouterr().out.endswith("1 threads · exercises for 'ada'\n")


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2"])
def test_impossible_threads(threads, folder):
    with pytest.raises(cu.CourseError, match=r"expects a whole number of at least 1"):
        cu.setup(threads=threads)
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("text", "cores"), [("200000 100000\n", 2), ("50000 100000\n", 1), ("350000 100000\n", 3), ("max 100000\n", None)]
)
def test_a_containers_limit_counts(text, cores, folder):
    """On Binder the machine has many processors and a notebook may use two: threads for all of them only wait."""
    (folder / "cpu.max").write_text(text)
    found = environment._quota(folder / "cpu.max")
    assert found == cores if cores else found > 10_000
    assert environment._quota(folder / "no such file") > 10_000


def test_machine_is_told():
    machine = cu.machine()
    rows = dict(machine.rows())
    assert "CPUExecutionProvider" in rows["execution providers"]
    assert rows["onnxruntime"].count(".") == 2
    assert 1 <= machine.cores <= machine.threads
    assert machine.memory_gib > 0.5
    assert "<th>processor</th>" in machine._repr_html_()
    assert str(machine).splitlines()[0].startswith("system")
