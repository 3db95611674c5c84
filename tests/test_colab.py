"""A rehearsal of Colab: one notebook alone in a folder, in an environment that has never seen the course.

The environment is a new venv with a pip of its own. What Colab brings along (torch, NumPy, pandas, Matplotlib, the
kernel and what they need) is taken from the environment of the tests: each of those packages, and no other, is linked
into a folder outside the venv that is on its path. That saves installing a gigabyte, pip sees these packages as
installed, and it cannot change them. The rest is real: the notebook's own cell calls pip, pip builds the course as
a wheel from this checkout and fetches what is missing, and a kernel of the venv runs the whole notebook.

`google.colab` is a stand-in, loaded before the kernel starts as on Colab; it notes down what the viewer asks of it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

import nbformat
import pytest
from checkout import ROOT, project_files
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from packaging.requirements import Requirement

COLAB_HAS = ["torch", "torchvision", "numpy", "pandas", "matplotlib", "ipykernel", "ipywidgets", "tqdm", "psutil"]
COLAB_HAS += ["PyYAML", "safetensors"]
STAND_IN = """
import json, os

def serve_kernel_port_as_iframe(port, path="/", width="100%", height="400", cache_in_notebook=False):
    import urllib.request
    served = len(urllib.request.urlopen(f"http://127.0.0.1:{port}{path.split('?')[0]}").read())
    with open(os.environ["COLAB_CALLS"], "a") as stream:
        stream.write(json.dumps({"path": path, "height": height, "served": served}) + "\\n")
"""
ASK = """
import json, sys, torch, numpy, course_utils
from course_utils.paths import data_path
print(json.dumps({"home": course_utils.__file__, "data": str(data_path()), "torch": torch.__version__,
                  "numpy": numpy.__version__, "prefix": sys.prefix, "executable": sys.executable}))
"""


def with_dependencies(names: list[str]) -> set[str]:
    """Names of the packages and of all that they need, as far as it is installed."""
    found: set[str] = set()
    todo = list(names)
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        try:
            requirements = distribution(name).requires or []
        except PackageNotFoundError:
            continue
        if name not in found:
            found.add(name)
            wanted = [r for r in map(Requirement, requirements) if not r.marker or r.marker.evaluate({"extra": ""})]
            todo += [requirement.name for requirement in wanted]
    return found


def link_packages(names: set[str], folder: Path) -> None:
    folder.mkdir()
    for name in names:
        files = distribution(name).files or []
        for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            source = Path(distribution(name).locate_file(top))
            if source.exists() and not (folder / top).exists():
                (folder / top).symlink_to(source)


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    """The folder of the rehearsal: `venv/`, and `content/` as the notebook's place."""
    if sys.platform == "win32":
        pytest.skip("Colab is Linux, and links need rights on Windows")
    root = tmp_path_factory.mktemp("colab")
    probe = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(root / "probe")]
    reachable = subprocess.run([*probe, f"py-cpuinfo=={version('py-cpuinfo')}"], capture_output=True, check=False)
    if reachable.returncode and not os.environ.get("CI"):
        pytest.skip("pip reaches no package index here, and this rehearsal installs packages")
    subprocess.run([sys.executable, "-m", "venv", str(root / "venv")], check=True)
    link_packages(with_dependencies(COLAB_HAS), root / "brought-along")
    stand_in = root / "stand-in" / "google" / "colab"
    stand_in.mkdir(parents=True)
    (stand_in / "__init__.py").write_text("")
    (stand_in / "output.py").write_text(STAND_IN)
    site = next((root / "venv").glob("lib/python*/site-packages"))
    lines = [str(root / "brought-along"), str(root / "stand-in"), "import google.colab"]
    (site / "colab.pth").write_text("\n".join(lines) + "\n")
    (root / "jupyter" / "kernels" / "colab").mkdir(parents=True)
    argv = [str(root / "venv" / "bin" / "python"), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "Colab", "language": "python"}
    (root / "jupyter" / "kernels" / "colab" / "kernel.json").write_text(json.dumps(spec))
    (root / "content").mkdir()
    shutil.copy(ROOT / "notebooks" / "00_start_here.ipynb", root / "content")
    return root


def run(colab: Path, monkeypatch: pytest.MonkeyPatch, *, source: str, cells: slice, ask: str = "") -> list:
    """Run the notebook's cells with a kernel of the venv; `ask` is added behind them. Returns the code cells."""
    for name in ("PYTHONPATH", "PYTHONHOME", "COURSE_STRICT", "COURSE_STUDENT", "JUPYTERHUB_SERVICE_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JUPYTER_PATH", str(colab / "jupyter"))
    monkeypatch.setenv("ONNX_SCROLL_SOURCE", source)
    monkeypatch.setenv("COLAB_CALLS", str(colab / "calls.jsonl"))
    # Colab would take the newest of everything; a test takes what the course was tested with. What Colab brings along
    # stays as it is, also where newer packages than the pins are tried.
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    brought = with_dependencies(COLAB_HAS)
    pins = [line for line in pins if re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower() not in brought]
    (colab / "constraints.txt").write_text("\n".join(pins))
    monkeypatch.setenv("PIP_CONSTRAINT", str(colab / "constraints.txt"))
    book = nbformat.read(colab / "content" / "00_start_here.ipynb", as_version=4)
    book.cells = book.cells[cells] + ([nbformat.v4.new_code_cell(ask)] if ask else [])
    where = {"metadata": {"path": str(colab / "content")}}
    NotebookClient(book, timeout=240, kernel_name="colab", resources=where).execute()
    return [cell for cell in book.cells if cell.cell_type == "code"]


def test_the_notebook_alone_installs_the_course_and_runs(colab, monkeypatch):
    # A bootstrap cell that does not work must not go unnoticed: nothing else brings the course here.
    with pytest.raises(CellExecutionError, match="No module named 'course_utils'"):
        run(colab, monkeypatch, source=(colab / "nowhere").as_uri(), cells=slice(0, 5))
    cells = run(colab, monkeypatch, source=ROOT.as_uri(), cells=slice(None), ask=ASK)
    install = cells[0]
    assert "%pip install" in install.source
    said = "".join(output.get("text", "") for output in install.outputs)
    assert "ERROR" not in said
    told = json.loads(cells[-1].outputs[0].text)
    assert Path(told["prefix"]) == colab / "venv"
    assert Path(told["home"]).is_relative_to(colab / "venv"), "the course is a wheel in the venv, not this checkout"
    data = Path(told["home"]).parent / "_data"
    assert Path(told["data"]) == data
    brought = {p.relative_to(data) for p in data.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    belongs = {p.relative_to(ROOT / "data") for p in project_files() if p.is_relative_to(ROOT / "data")}
    belongs = {path for path in belongs if path.suffix != ".py" or len(path.parts) > 1}
    assert brought == belongs, "the wheel brings the data, no maintainers' script, and no checkpoint that lay there"
    # Colab's own packages stay as they are: replacing torch there would take minutes and a restart.
    assert told["torch"].split("+")[0] == version("torch").split("+")[0]
    assert told["numpy"] == version("numpy")
    site = next((colab / "venv").glob("lib/python*/site-packages"))
    assert not [name for name in ("torch", "numpy", "pandas", "matplotlib") if (site / name).exists()]
    calls = [json.loads(line) for line in (colab / "calls.jsonl").read_text().splitlines()]
    assert calls, "the viewer asks Colab for its window"
    assert all(call["path"].startswith("/netron/index.html?url=../models/") and call["served"] for call in calls)
    assert all(call["height"].isdigit() for call in calls)
    assert sorted(p.name for p in (colab / "content").iterdir()) == ["00_start_here.ipynb", "work"]
