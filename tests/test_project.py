"""The project as a whole: versions that agree, a layout that is fixed, and nothing of anybody's machine."""

from __future__ import annotations

import re
import shutil
import subprocess
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
WANTED = [*PROJECT["dependencies"], *(r for extra in PROJECT["optional-dependencies"].values() for r in extra)]
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
    assert {"-c constraints.txt", "-e .[lab,nlp]"} <= set(lines)
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
