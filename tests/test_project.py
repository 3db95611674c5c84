"""The project as a whole: versions that agree, a layout that is fixed, and nothing of anybody's machine."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml
from checkout import ROOT, project_files
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import course_utils as cu

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINS = {
    canonicalize_name(name): number
    for name, _, number in (
        line.partition("==")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    )
}
EXTRAS = [r for extra in PROJECT["optional-dependencies"].values() for r in extra]
WANTED = [r for r in [*PROJECT["dependencies"], *EXTRAS] if not r.startswith("onnx-scroll[")]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))


def test_version_is_the_same_everywhere():
    assert cu.__version__ == PROJECT["version"]


def test_constraints_are_exact_and_name_no_place():
    """One pin a line: an address would tie the course to a machine or to one build."""
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        assert line.startswith("#") or re.fullmatch(r"[\w.-]+==[\w.]+", line), line
    assert len(PINS) > 50


@pytest.mark.parametrize("requirement", list(map(Requirement, WANTED)), ids=WANTED)
def test_every_dependency_is_pinned_within_its_range(requirement):
    pin = PINS.get(canonicalize_name(requirement.name))
    assert pin, f"{requirement.name} is missing in constraints.txt"
    assert requirement.specifier.contains(pin, prereleases=True)


def test_environment_yml_has_the_same_pins():
    assert ENVIRONMENT["name"] == PROJECT["name"]
    *conda, pip = ENVIRONMENT["dependencies"]
    lines = pip["pip"]
    assert {"-c constraints.txt", "-e .[lab,nlp,llm,providers]"} <= set(lines)
    pinned = dict(line.split("==") for line in lines if not line.startswith("-"))
    assert {canonicalize_name(name): number for name, number in pinned.items()}.items() <= PINS.items()
    assert {"torch", "torchvision", "onnx", "onnxruntime", "onnxscript", "jupyterlab"} <= pinned.keys()
    python = next(entry for entry in conda if entry.startswith("python=")).removeprefix("python=")
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(python)
    assert "pip" in conda


LAYOUT = {"README.md", "environment.yml", "pyproject.toml", "constraints.txt", "Makefile", "notebooks", "course_utils"}
LAYOUT |= {"data", "tests", "jupyter-book", ".ci", ".github"}
CUSTOMARY = {
    ".gitignore",
    ".gitattributes",
    ".pre-commit-config.yaml",
    "CONTRIBUTING.md",
    "LICENSE",
    "LICENSE-prose.md",
}


def test_top_level_is_as_fixed():
    found = {path.relative_to(ROOT).parts[0] for path in project_files()}
    assert found - CUSTOMARY == LAYOUT


def test_nothing_of_anybodys_machine_is_committed():
    """Paths and package hosts of the machine somebody worked on would fail, or mislead, everywhere else."""
    start = r"(?<![\w.*~>}-])/"  # a path that begins here, not a part of a longer one
    patterns = [
        start + "(?:work|root)/",
        start + r"home/(?!user\b|jovyan\b)\w+/",
        start + "opt/",
        r"[A-Z]:\\{1,2}Users",
        r"\.\./" + "shared",
        "python" + r"hosted\.org",
        "registry" + r"\.npmjs",
        r"pypi\." + "org/simple",
        "art" + "ifactory",
    ]
    forbidden = re.compile("|".join(patterns))
    found = []
    for path in project_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            text = path.read_bytes().decode("latin-1") if path.suffix != ".gz" else ""
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in forbidden.finditer(text)]
    assert found == []


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed here")
def test_make_alone_lists_every_target():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split()
    defined = re.findall(r"^([a-z-]+):", text, re.MULTILINE)
    assert sorted(targets) == sorted(defined)
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    listed = dict(re.findall(r"^ +make ([\w-]+) +(\S.*)$", shown, re.MULTILINE))
    assert list(listed) == targets
    assert {"lab", "test", "book", "serve", "notebooks", "assignments", "clean"} <= listed.keys()


def test_licences_are_there():
    for name in PROJECT["license-files"]:
        assert (ROOT / name).is_file()
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "MIT" in (ROOT / "data" / "LICENSE-fashion-mnist").read_text(encoding="utf-8")


WORKFLOWS = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in (ROOT / ".github" / "workflows").glob("*.yml")
}


def test_actions_are_pinned_by_hash():
    """A tag can be moved to other code; a commit cannot. The comment says which release it is."""
    lines = [
        line.strip()
        for path in (ROOT / ".github" / "workflows").glob("*.yml")
        for line in path.read_text(encoding="utf-8").splitlines()
        if "uses:" in line
    ]
    assert len(lines) >= 5
    assert [x for x in lines if not re.fullmatch(r"(- )?uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", x)] == []
    assert len({x.partition("uses: ")[2] for x in lines}) == len({re.search(r"[\w-]+/[\w-]+", x)[0] for x in lines})


def test_nothing_is_published_before_its_tests_passed():
    jobs = {(flow, name): job for flow, text in WORKFLOWS.items() for name, job in text["jobs"].items()}
    publishing = {key: job for key, job in jobs.items() if "deploy-pages" in str(job)}
    assert list(publishing) == [("tests", "publish")]
    publish, test = publishing["tests", "publish"], jobs["tests", "test"]
    assert publish["needs"] == "test"
    assert "always" not in publish["if"]
    steps = [str(step) for step in test["steps"]]
    tested = next(i for i, step in enumerate(steps) if ".ci/run" in step)
    given = next(i for i, step in enumerate(steps) if "upload-pages-artifact" in step)
    assert tested < given
    assert "always" not in steps[given]
    # Only the job that publishes may do more than read.
    assert all(text["permissions"] == {"contents": "read"} for text in WORKFLOWS.values())
    assert [key for key, job in jobs.items() if "permissions" in job] == [("tests", "publish")]


def test_the_nightly_job_has_what_the_tests_need():
    """In CI a test fails, and is not skipped, where an extra or the book is missing."""
    extras = re.compile(r'--editable "\.\[([\w,]+)\]"')
    rule = re.search(
        r"^\$\(VENV\)/\.all:.*\n(?:\t.*\n)+", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )[0]
    runs = [step["run"] for step in WORKFLOWS["nightly"]["jobs"]["newest"]["steps"] if "run" in step]
    install, build, test = (next(i for i, run in enumerate(runs) if x in run) for x in ("pip", "build.py", "pytest"))
    assert install < build < test
    # The extra that brings a licence of its own is asked for by itself, as in .ci/run.
    assert set(extras.search(runs[install])[1].split(",")) == {*extras.search(rule)[1].split(","), "qnn"}
    assert "make QNN=1 test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_random_order_leaves_the_cells_of_a_notebook_in_theirs():
    files = ["tests/test_import.py", "notebooks/00_start_here.ipynb", "tests/test_project.py"]
    orders = []
    for seed in (1, 2):
        command = [sys.executable, "-m", "pytest", "--collect-only", "-q", f"--random-order-seed={seed}", *files]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
        found = [line for line in done.stdout.splitlines() if "::" in line]
        cells = [line for line in found if ".ipynb::" in line]
        assert cells == [f"notebooks/00_start_here.ipynb::Cell {i}" for i in range(len(cells))]
        orders.append([line for line in found if line not in cells])
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


def test_pytest_finds_the_notebooks_that_the_build_has_run(monkeypatch):
    """Both name the folder alike, whatever a package that is imported adds to the path: setuptools does."""
    monkeypatch.syspath_prepend(str(ROOT / "jupyter-book"))
    import execution
    import setuptools

    monkeypatch.setattr(sys, "path", [place for place in sys.path if not place.endswith("_vendor")])
    alone = execution.folder.__wrapped__()
    monkeypatch.syspath_prepend(setuptools.__file__.replace("__init__.py", "_vendor"))
    assert execution.folder.__wrapped__() == alone
    monkeypatch.setattr(execution, "distributions", lambda **_: [])
    assert execution.folder.__wrapped__() != alone, "other packages, another folder"
