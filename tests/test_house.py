"""The order of `course_utils`: which folder may import which, right types, short modules, and the public names."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import check
import pytest
from checkout import ROOT

import course_utils as cu

PACKAGE = ROOT / "course_utils"
LONGEST = 350  # lines of a module
PUBLIC = [
    "CLASS_NAMES",
    "Calibration",
    "CourseError",
    "archive_photographs",
    "batching_explorer",
    "check",
    "checkpoint",
    "claim",
    "compare",
    "course_files",
    "decoder_file",
    "deployment_record",
    "doctor",
    "doctor_codes",
    "ep_record",
    "ep_records",
    "exporter_messages",
    "fashion_mnist",
    "fashion_resnet",
    "give_back",
    "given",
    "graph_diff",
    "hint",
    "in_browser",
    "in_node",
    "level_explorer",
    "listing",
    "loads_in_this_runtime",
    "machine",
    "mechanism_explorer",
    "minilm",
    "node_table",
    "normalize",
    "onnxruntime_web",
    "op_histogram",
    "operator_history",
    "opset_explorer",
    "optimized",
    "origins",
    "overheard",
    "params",
    "parity",
    "picture",
    "placed",
    "placement_explorer",
    "prepared_for_checker",
    "probe_sizes",
    "provider_devices",
    "provider_plugins",
    "quest_page",
    "quiz",
    "report_card",
    "resnet18",
    "run_ep_experiment",
    "run_in_batches",
    "scale_explorer",
    "second_provider",
    "sentence_encoder",
    "session_log",
    "setup",
    "shape_explorer",
    "show",
    "show_page",
    "small_decoder_text",
    "smollm2",
    "solution",
    "start_server",
    "step_through",
    "story",
    "strict_session",
    "submit",
    "symptom_explorer",
    "telemetry_record",
    "tensor_table",
    "traffic",
    "train_pictures",
    "triton_findings",
    "try_export",
    "usability",
    "watch_lookups",
    "webgpu_in_browser",
    "written_shapes",
]


def run(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """With this checkout's package, and colours off."""
    env = {**os.environ, "PYTHONPATH": str(cwd), "NO_COLOR": "1", "PYTHONUTF8": "1", "COLUMNS": "200"}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=300)


def test_imports_run_down_the_floors():
    """The layers and the independence of the chapters, as pyproject.toml has them."""
    done = run(check.tool("lint-imports"), "--no-cache")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 kept, 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("lab/pictures.py", "from ..widgets import levels"),
        ("exercises/ch01/tasks.py", "from ..ch02 import model_heads"),
    ],
    ids=["up a floor", "another chapter"],
)
def test_an_import_against_the_order_is_found(tmp_path, file, line):
    shutil.copytree(PACKAGE, tmp_path / "course_utils", ignore=shutil.ignore_patterns("__pycache__", "_data"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    changed = tmp_path / "course_utils" / file
    changed.write_text(changed.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")
    done = run(check.tool("lint-imports"), "--no-cache", cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 kept, 1 broken" in done.stdout


def test_types_are_right():
    done = run(sys.executable, "-m", "mypy")
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_module_is_long():
    lines = {p.relative_to(PACKAGE).as_posix(): len(p.read_text("utf-8").splitlines()) for p in PACKAGE.rglob("*.py")}
    assert {name for name, n in lines.items() if n > LONGEST} == set()


def test_public_names():
    """What students call: a name that comes or goes is a decision, and stands here."""
    assert cu.__all__ == sorted(PUBLIC)


def test_every_public_name_has_a_reader():
    """What no notebook and no page of the book mentions is for the package alone: not public."""
    places = [*ROOT.glob("notebooks/**/*.py"), *ROOT.glob("data/exercises/*.py"), *ROOT.glob("jupyter-book/*.md")]
    read = "\n".join(file.read_text(encoding="utf-8") for file in places)
    assert [name for name in PUBLIC if not re.search(rf"\bcu\.{name}\b", read)] == []


def test_type_checkers_see_the_same_names():
    """`course_utils/__init__.py` has them twice: imported for type checkers, and by home for the import on use."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    (block,) = [n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    seen = {a.asname or a.name: n.module for n in block.body if isinstance(n, ast.ImportFrom) for a in n.names}
    assert seen == cu._HOME


def test_every_folder_says_what_is_in_it():
    folders = {file.parent for file in PACKAGE.rglob("*.py")}
    silent = [f for f in folders if not ast.get_docstring(ast.parse((f / "__init__.py").read_text(encoding="utf-8")))]
    assert len(folders) >= 20
    assert not silent


def test_lab_needs_no_widgets(python, tmp_path):
    done = python(
        """
        import importlib, pkgutil, sys
        sys.modules["ipywidgets"] = None  # an import of it fails
        import course_utils.lab as lab
        for module in pkgutil.iter_modules(lab.__path__):
            importlib.import_module(f"course_utils.lab.{module.name}")
        print("loaded")
        """,
        cwd=tmp_path,
    )
    assert done.stdout.strip() == "loaded"
    assert not [p for p in (PACKAGE / "lab").glob("*.py") if "ipywidgets" in p.read_text(encoding="utf-8")]


def test_the_quick_tests_are_there():
    """`make check` runs them."""
    assert check.QUICK
    assert not [name for name in check.QUICK if not (ROOT / "tests" / f"test_{name}.py").exists()]
