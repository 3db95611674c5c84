"""A package that is not installed: what needs it says so in one sentence, and everything else goes on working.

Each test runs in a fresh interpreter in which importing the package fails as it does where it was never installed.
"""

from __future__ import annotations

import pytest

BLOCK = """
from importlib.machinery import PathFinder

find = PathFinder.find_spec
PathFinder.find_spec = staticmethod(
    lambda name, path=None, target=None: None if name.split(".")[0] in {names!r} else find(name, path, target)
)
import course_utils as cu
"""
SENTENCE = "The package {!r} is not installed, and this step needs it. Run  %pip install {!r}  in a cell"


@pytest.mark.parametrize(
    ("package", "step"),
    [
        ("netron", "import onnx; cu.show(onnx.ModelProto())"),
        ("torchvision", "cu.resnet18()"),
        ("torchvision", "cu.fashion_mnist('train')"),
        ("matplotlib", "cu.compare({'x': int}, rounds=1).plot()"),
        ("matplotlib", "cu.setup()"),
        ("torch", "cu.setup()"),
    ],
)
def test_a_step_says_what_it_needs(package, step, python, tmp_path):
    code = BLOCK.format(names=[package]) + f"try:\n    {step}\nexcept cu.CourseError as error:\n    print(error)\n"
    done = python(code, cwd=tmp_path)
    last = done.stdout.strip().splitlines()[-1]
    name = "matplotlib.pyplot" if package == "matplotlib" else package
    assert last.startswith(SENTENCE.format(name, package))


def test_setup_and_lesson_steps_work_without_the_optional_ones(python, tmp_path):
    """Without the viewer and torchvision a lesson still exports, runs and compares."""
    code = BLOCK.format(names=["netron", "torchvision"])
    code += "cu.setup()\nprint(cu.fashion_mnist('calibration')[0].shape, cu.fashion_resnet().training, cu.machine())"
    done = python(code, cwd=tmp_path)
    assert "onnxruntime" in done.stdout.splitlines()[0]
    assert "(1000, 28, 28) False" in done.stdout
    assert (tmp_path / "work").is_dir()


def test_a_package_that_lacks_its_own_dependency_is_not_called_missing(python, tmp_path):
    """Installing it again would not help, so Python's own message stays."""
    (tmp_path / "broken_one.py").write_text("import surely_not_installed")
    code = "from course_utils.errors import require\nrequire('broken_one')"
    done = python(code, cwd=tmp_path, ok=False)
    assert "No module named 'surely_not_installed'" in done.stderr
    assert "CourseError" not in done.stderr
