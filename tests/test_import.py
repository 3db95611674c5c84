"""`import course_utils` is quick and says what it offers."""

from __future__ import annotations

import importlib.util

import pytest

import course_utils as cu


def test_import_loads_nothing_heavy(python, tmp_path):
    """The robust form of the promise "≤ 0.15 s": what takes the time is not there after the import."""
    done = python(
        """
        import sys
        import course_utils
        heavy = {"torch", "onnx", "onnxruntime", "numpy", "pandas", "matplotlib", "IPython"}
        print(sorted(heavy & set(sys.modules)))
        """,
        cwd=tmp_path,
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", cu.__all__)
def test_every_public_name_is_there(name):
    home = cu._HOME[name]
    assert importlib.util.find_spec(f"course_utils.{home}"), f"{name} should live in course_utils/{home}.py"
    assert getattr(cu, name) is not None


def test_unknown_name_lists_what_there_is():
    with pytest.raises(AttributeError, match=r"has no 'shwo'.*op_histogram, .*show"):
        _ = cu.shwo


def test_dir_is_the_public_names():
    assert dir(cu) == sorted(cu.__all__)
