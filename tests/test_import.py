"""`import course_utils` is quick and says what it offers."""

from __future__ import annotations

import ast
import importlib.util
import re

import pytest
from checkout import ROOT

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


FIRST_USED = re.compile(r"First used in\s+(lesson|exercise)\s+(\d\d)")
TEXTS = {path: path.read_text(encoding="utf-8") for path in (ROOT / "course_utils").rglob("*.py")}
SAYING = {
    node.name: FIRST_USED.search(ast.get_docstring(node) or "")
    for text in TEXTS.values()
    for node in ast.walk(ast.parse(text))
    if isinstance(node, ast.FunctionDef | ast.ClassDef) and FIRST_USED.search(ast.get_docstring(node) or "")
}


def test_every_first_use_is_looked_at():
    assert len(SAYING) == sum(len(FIRST_USED.findall(text)) for text in TEXTS.values()) > 40


@pytest.mark.parametrize("name", SAYING)
def test_first_used_where_it_says(name):
    """In the code; what is only named in prose, such as a hint, where it is named first."""
    notebooks = [*(ROOT / "notebooks").rglob("[0-9][0-9]_*.py"), *(ROOT / "data" / "exercises").glob("*.py")]
    notebooks.sort(key=lambda path: (path.name[:2], "exercises" in path.parts, "deeper" in path.parts, path.name))
    uses = re.compile(rf"\bcu\.{name}\b")
    texts = {path: path.read_text(encoding="utf-8") for path in notebooks}
    in_code = [path for path, text in texts.items() if uses.search(re.sub(r"^#.*", "", text, flags=re.MULTILINE))]
    first = next(iter(in_code or [path for path, text in texts.items() if uses.search(text)]))
    assert SAYING[name].groups() == ("exercise" if "exercises" in first.parts else "lesson", first.name[:2])
