"""ONNX Runtime's telemetry is off wherever the course runs, on for those who ask for it, and the observation that shows it is real."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from checkout import ROOT, project_files

import course_utils as cu
from course_utils.lab import lookups
from course_utils.lab.lookups import BUILD_SERVICES, SWITCH

IMPORTS = "import course_utils\nimport onnxruntime as ort\n"
SESSION = """
from onnx import parser
model = parser.parse_model('<ir_version: 8, opset_import: ["": 17]> g (float[N] x) => (float[N] y) { y = Relu(x) }')
session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
"""
# ONNX Runtime 1.31.1 asks for the first time about nine seconds after its import.
LIVES = "import time\ntime.sleep(15)\n"


def watched(program: str, **environment: str) -> lookups.Watched:
    """The program, cut off; skips the test where that is not permitted (macOS, Windows, most containers)."""
    if started := lookups.watch_lookups(program, environment):
        return started
    # The system's own tool for it: where that one can, the course must be able to, too.
    tool = shutil.which("unshare")
    can = (
        tool
        and subprocess.run([tool, "-rnm", "mount", "--bind", "/etc/hosts", "/etc/hosts"], check=False).returncode == 0
    )
    assert not can, "unshare can cut a program off here, watch_lookups cannot"
    pytest.skip(lookups.CUT_OFF)


def test_a_session_asks_for_no_name_and_writes_no_device_id() -> None:
    """Neither `CI` nor the variable is in the environment: `import course_utils` alone prevents it. Beside it, the contrast."""
    ways = {"course": IMPORTS, "allowed": "import onnxruntime as ort\n"}
    runs = {way: watched(imports + SESSION + LIVES) for way, imports in ways.items()}
    found = {way: run.result() for way, run in runs.items()}
    assert (found["course"]["lookups"], found["course"]["files"]) == ([], [])
    # What would be seen otherwise: without it, the test above could not fail.
    assert found["allowed"]["lookups"], "this onnxruntime sends nothing: the claim model-runs-silently has changed"
    assert any("deviceid" in file for file in found["allowed"]["files"])


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """An environment in which nothing but the course prevents telemetry, with an empty home."""
    kept = {name: value for name, value in os.environ.items() if name not in {SWITCH, *BUILD_SERVICES}}
    homes = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"), str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return kept | homes | {"PYTHONPATH": str(ROOT)}


def python_says(code: str, environment: dict[str, str]) -> str:
    command = [sys.executable, "-W", "always", "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_no_device_id_on_any_system(bare: dict[str, str], tmp_path: Path) -> None:
    """This needs no namespace: the id is written at the import, and a process this short asks for no name."""
    assert python_says(IMPORTS + SESSION, bare) == ""
    assert list((tmp_path / "home").rglob("*")) == []


GENAI = """
import onnxruntime_genai
try:
    onnxruntime_genai.Model("no such folder")
except RuntimeError:
    pass
"""


def test_genai_has_telemetry_of_its_own_and_the_same_switch(bare: dict[str, str], tmp_path: Path) -> None:
    """Its first call writes a device id, too."""
    pytest.importorskip("onnxruntime_genai")
    assert python_says("import course_utils" + GENAI, bare) == ""
    assert list((tmp_path / "home").rglob("*")) == []
    assert any("genai" in file for file in watched(GENAI).result()["files"]), "it writes nothing: say less in 11_genai"


@pytest.mark.parametrize(("own", "becomes"), [(None, "1"), ("", "1"), ("0", "0"), ("1", "1"), ("false", "false")])
def test_a_setting_of_ones_own_wins(own: str | None, becomes: str, bare: dict[str, str]) -> None:
    environment = bare | ({} if own is None else {SWITCH: own})
    assert python_says(f"import course_utils, os; print(os.environ[{SWITCH!r}])", environment).strip() == becomes


def test_allowed_telemetry_is_not_prevented() -> None:
    found = watched(IMPORTS, **{SWITCH: "0"}).result()
    assert any("deviceid" in file for file in found["files"])


@pytest.mark.parametrize("own", [None, "0", "1"])
def test_too_late_is_said_once(own: str | None, bare: dict[str, str]) -> None:
    """A stand-in for onnxruntime: the real one would write its device id."""
    code = "import sys\nsys.modules['onnxruntime'] = sys\nimport course_utils\nfrom course_utils import check\n"
    said = python_says(code, bare | ({} if own is None else {SWITCH: own}))
    assert said.count("onnxruntime was imported before course_utils") == (own is None)


def test_the_record_is_what_the_lesson_says() -> None:
    record = cu.telemetry_record()
    assert list(record["runs"]) == list(lookups.WAYS)
    sends = [way for way, run in record["runs"].items() if run["lookups"] and run["files"]]
    silent = [way for way, run in record["runs"].items() if not run["lookups"] and not run["files"]]
    assert (sends, silent) == (list(lookups.WAYS)[:3], list(lookups.WAYS)[3:])
    assert all(run["seconds"] > 30 for run in record["runs"].values())


# The observation


def test_a_look_up_is_seen_and_refused() -> None:
    code = """
    import socket
    try:
        socket.getaddrinfo("model.example", 443)
    except socket.gaierror:
        open(os.path.expanduser("~/refused"), "w").close()
    try:
        socket.create_connection(("192.0.2.1", 443), timeout=5)
    except OSError as error:
        open(os.path.expanduser("~/unreachable"), "w").close()
    """
    found = watched("import os" + code.replace("\n    ", "\n")).result()
    assert {name for _, name in found["lookups"]} == {"model.example"}
    assert found["files"] == ["refused", "unreachable"]


def test_a_program_that_fails() -> None:
    with pytest.raises(cu.CourseError, match=r"The watched program failed: ZeroDivisionError"):
        watched("1 / 0").result()


def test_where_nothing_can_be_cut_off_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """The child is told that it is on another system: it refuses before the program starts."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.platform = 'darwin'\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert cu.watch_lookups(f"open({str(tmp_path / 'ran')!r}, 'w')") is None
    assert capsys.readouterr().out == f"Not run here: {lookups.CUT_OFF}.\n"
    assert not (tmp_path / "ran").exists()


# Every place from which ONNX Runtime may be started

SOURCES = [path for path in project_files() if path.suffix == ".py" and path.parts[-2] != "tests"]
COPIED = [ROOT / "course_utils" / "server", ROOT / "course_utils" / "on_ray", ROOT / "data" / "deploy"]
LOADS = re.compile(r"^ *(?:import|from) [^\n#]*\bonnxruntime(?:_genai)?\b|\"onnxruntime-node\"", re.MULTILINE)
PREPARES = re.compile(rf"\b{SWITCH}\b|^ *(?:import|from) course_utils\b", re.MULTILINE)


def prepared(text: str) -> bool:
    """Is the switch set, or course_utils imported, before onnxruntime is?"""
    first = LOADS.search(text)
    return not first or bool(PREPARES.search(text, 0, first.start()))


def own_programs(text: str) -> Iterator[str]:
    """The files that a notebook writes: they are started by others, too."""
    for cell in re.split(r"^# %%(?: .*)?\n", text, flags=re.MULTILINE):
        if cell.startswith("# %%writefile"):
            yield cell
        yield from re.findall(r'\.write_text\("""(.*?)"""\)', cell, re.DOTALL)


def test_scripts_and_notebooks_prepare() -> None:
    """Modules of the package need no line of their own: the package is imported before them."""
    alone = [p for p in SOURCES if "course_utils" not in p.parts or p.parts[-2:] == ("ep_experiment", "__init__.py")]
    texts = {path: path.read_text(encoding="utf-8") for path in alone}
    assert sum(bool(LOADS.search(text)) for text in texts.values()) > 15
    assert [path.name for path, text in texts.items() if not prepared(text)] == []


def test_files_that_a_notebook_writes_or_copies_prepare() -> None:
    """A copied program runs without the course, so it needs the line although it lies in the package."""
    texts = [(path, path.read_text(encoding="utf-8")) for path in SOURCES if "notebooks" in path.parts]
    written = [(path.name, program) for path, text in texts for program in own_programs(text)]
    for folder in COPIED:
        programs = [path for path in folder.rglob("*") if path.suffix in {".py", ".js", ".mjs"}]
        written += [(path.name, path.read_text(encoding="utf-8")) for path in programs]
    loading = [(name, program) for name, program in written if LOADS.search(program)]
    assert {"predictor.py", "fashion.py", "predict.mjs"} <= {name for name, _ in loading}
    assert [(name, program[:60]) for name, program in loading if not prepared(program)] == []


def test_every_child_gets_the_variable() -> None:
    """A child without `env=` inherits it; an `env=` must begin from this process's own."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
    functions = {f.name: f for tree in trees.values() for f in ast.walk(tree) if isinstance(f, ast.FunctionDef)}
    found, bare = 0, []
    for path, tree in trees.items():
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            for given in (k.value for k in call.keywords if k.arg == "env"):
                found += 1
                text = ast.unparse(given)
                if isinstance(given, ast.Name):  # a variable: what is assigned to it in this file
                    text = " ".join(
                        ast.unparse(node.value)
                        for node in ast.walk(tree)
                        if isinstance(node, ast.Assign) and given.id in map(ast.unparse, node.targets)
                    )
                elif isinstance(given, ast.Call) and (made := functions.get(ast.unparse(given.func).split(".")[-1])):
                    text = ast.unparse(made)
                if "os.environ" not in text and not (path.name == "lookups.py" and text == "request['env']"):
                    bare.append(f"{path.name}: {ast.unparse(call)[:80]}")
    assert found >= 6
    assert bare == []


def test_the_other_ways_in() -> None:
    """make, conda and Binder, the build services, JupyterLab."""
    assert re.search(rf"^export {SWITCH} \?= 1$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["variables"] == {SWITCH: "1"}
    for workflow in (ROOT / ".github" / "workflows").glob("*.yml"):
        assert yaml.safe_load(workflow.read_text(encoding="utf-8"))["env"][SWITCH] == "1", workflow.name
    text = (ROOT / "notebooks" / "open_lab.py").read_text(encoding="utf-8")
    assert re.search(rf'setdefault\(\s*"{SWITCH}", "1"', text)
    for notebook in (ROOT / "notebooks").rglob("[0-9][0-9]_*.ipynb"):
        text = notebook.read_text(encoding="utf-8")
        assert 0 < text.find(SWITCH) < text.find("pip install"), notebook.name
