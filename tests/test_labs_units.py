"""The labs' modules that need no page: their own tests, run by Node. And the list of the labs beside the folders."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from browser import give_up
from checkout import ROOT

from course_utils.pages.browser_lab import node, npm_package

LABS = ROOT / "jupyter-book" / "labs"
sys.path.append(str(LABS))
import site_labs  # noqa: E402 - jupyter-book/labs/site_labs.py
import vendor  # noqa: E402 - jupyter-book/labs/vendor.py

sys.path.append(str(ROOT / "notebooks"))
import generate  # noqa: E402 - notebooks/generate.py

FILES = sorted(p.relative_to(LABS).as_posix() for p in LABS.rglob("*.test.mjs"))


@pytest.fixture(scope="module")
def vendored() -> None:
    if not node() or npm_package("protobufjs") is None:
        give_up("Node or the packages of the labs are missing: make book installs them.")
    vendor.write(LABS / "kit" / "vendor")


@pytest.mark.usefixtures("vendored")
@pytest.mark.parametrize("file", FILES)
def test_units(file: str) -> None:
    done = subprocess.run(
        [node(), "--test", file], cwd=LABS, capture_output=True, text=True, timeout=120, check=False, encoding="utf-8"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "# pass 0" not in done.stdout


def test_every_lab_is_listed_and_has_its_files() -> None:
    names = [lab.name for lab in site_labs.labs()]
    assert len(set(names)) == len(names)
    folders = {p.name for p in LABS.iterdir() if (p / "lab.js").exists()}
    assert folders == set(names) == {p.stem for p in (LABS / "models").glob("*.py")}
    for lab in site_labs.labs():
        assert (LABS / lab.name / "lab.css").exists()
        assert lab.look_for.count("\n") == 0
        assert len(lab.alternative.split()) > 40


def test_a_lab_sits_behind_its_section() -> None:
    for lab in site_labs.labs():
        book = site_labs.put_into(generate.notebook(Path(f"{lab.page}.py")), lab.page)
        heads = [line for cell in book.cells if cell.cell_type == "markdown" for line in cell.source.splitlines()]
        heads = [line for line in heads if line.startswith("## ")]
        assert heads[heads.index(f"## {lab.after}") + 1] == f"## Lab: {lab.title}"


def test_a_section_that_is_gone_is_named() -> None:
    lab = site_labs.labs()[0]
    book = generate.notebook(Path(f"{lab.page}.py"))
    book.cells = [cell for cell in book.cells if not cell.source.startswith(f"## {lab.after}")]
    with pytest.raises(ValueError, match=f"sits below '{lab.after}'"):
        site_labs.put_into(book, lab.page)
