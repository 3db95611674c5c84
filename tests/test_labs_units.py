"""The labs' modules that need no page: their own tests, run by Node. And the list of the labs beside the folders."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from browser import give_up
from checkout import ROOT
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_notebook

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


@pytest.mark.parametrize("lab", site_labs.labs(), ids=lambda lab: lab.name)
def test_a_lab_sits_behind_its_section(lab: site_labs.Lab) -> None:
    before = generate.notebook(Path(f"{lab.page}.py"))
    book = site_labs.put_into(generate.notebook(Path(f"{lab.page}.py")), lab.page)
    nbformat.validate(book)
    heads = [line for line in prose(book) if line.startswith("## ")]
    assert heads[heads.index(f"## {lab.after}") + 1] == f"## Lab: {lab.title}"
    cell = next(cell for cell in book.cells if cell.id == f"lab-{lab.name.replace('_', '-')}")
    without = book.copy() | {"cells": [c for c in book.cells if c is not cell]}
    assert prose(nbformat.from_dict(without)) == prose(before), "no line of the lesson is lost or moved"


def prose(book: NotebookNode) -> list[str]:
    """The lines of a notebook's text that are not empty."""
    return [line for c in book.cells if c.cell_type == "markdown" for line in c.source.splitlines() if line.strip()]


def test_a_listing_is_no_heading() -> None:
    text = "## Without PyTorch\n\n```\n## not one\n```\nend\n## Next\nmore"
    book = site_labs.put_into(new_notebook(cells=[new_markdown_cell(text)]), "00_start_here")
    assert [cell.source.splitlines()[0] for cell in book.cells] == ["## Without PyTorch", "## Lab: Classify", "## Next"]
    assert book.cells[0].source.endswith("end")


def test_labs_come_into_notebooks_that_have_run(tmp_path: Path) -> None:
    """The book runs a notebook as it lies in `notebooks/`, so that pytest need not run it a second time."""
    for lab in site_labs.labs():
        generate.write(generate.notebook(Path(f"{lab.page}.py")), tmp_path / f"{lab.page}.ipynb")
    site_labs.embed(tmp_path)
    for lab in site_labs.labs():
        book = nbformat.read(tmp_path / f"{lab.page}.ipynb", as_version=4)
        assert f'data-lab="{lab.name}"' in "\n".join(prose(book))
    build = (ROOT / "jupyter-book" / "build.py").read_text(encoding="utf-8")
    assert (
        build.index("execution.run_all(") < build.index("site_labs.embed(") < build.index("site = run_jupyter_book()")
    )


def test_the_gallery_has_all_labs_and_no_heading_twice() -> None:
    text = site_labs.gallery()
    heads = [line for line in text.splitlines() if line.startswith("## ")]
    assert heads == [f"## Lab: {lab.title}" for lab in site_labs.labs()]
    assert all(f'data-lab="{lab.name}"' in text and f"notebooks/{lab.page}.ipynb" in text for lab in site_labs.labs())


def test_a_section_that_is_gone_is_named() -> None:
    lab = site_labs.labs()[0]
    book = generate.notebook(Path(f"{lab.page}.py"))
    for cell in book.cells:
        cell.source = cell.source.replace(f"## {lab.after}", "## Elsewhere")
    with pytest.raises(ValueError, match=f"sits below '{lab.after}'"):
        site_labs.put_into(book, lab.page)
