"""The shape of a lesson: one sitting, short cells of code, prose that reads the result."""

from __future__ import annotations

import ast
import importlib
import itertools
import re
import statistics

import jupytext
import pytest
import yaml
from checkout import ROOT
from nbformat import NotebookNode

NOTEBOOKS = ROOT / "notebooks"
CORE = [path.stem for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.py"))]
DEEPER = [f"deeper/{path.stem}" for path in sorted(NOTEBOOKS.glob("deeper/[0-9][0-9]_*.py"))]
MOST_MINUTES = 45
all_pages = pytest.mark.parametrize("name", CORE + DEEPER)


@pytest.fixture(scope="module")
def sittings():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(NOTEBOOKS)
        yield importlib.import_module("sittings")


def read(name: str) -> NotebookNode:
    return jupytext.read(NOTEBOOKS / f"{name}.py", fmt="py:percent")


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def is_claim(cell: NotebookNode) -> bool:
    return cell.source.startswith("cu.claim(")


def code(book: NotebookNode) -> list[NotebookNode]:
    """The cells whose code is there to be read: no question, no drawing, no claim."""
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    return [cell for cell in cells if "remove-input" not in tags(cell) and not is_claim(cell)]


def faults(name: str, sittings) -> list[str]:
    """How the notebook is more than one sitting."""
    book = read(name)
    cells, read_cells = book.cells, code(book)
    lengths = [len(sittings.lines(cell)) for cell in read_cells]
    most = 35 if name.startswith("deeper/") else 45
    wrong = [] if len(cells) <= most else [f"{len(cells)} cells, not {most} at most"]
    if (time := sittings.minutes(book)) > MOST_MINUTES:
        wrong.append(f"{time} minutes, not {MOST_MINUTES} at most")
    if statistics.median(lengths) > 4:
        wrong.append(f"{statistics.median(lengths)} lines in the median code cell, not 4 at most")
    wrong += [f"{len(sittings.lines(c))} lines: {c.source[:60]!r}" for c in read_cells if len(sittings.lines(c)) > 12]
    shown = [cell for cell in cells if cell.cell_type == "markdown" or cell in read_cells]
    followed = [b.cell_type == "markdown" for a, b in itertools.pairwise(shown) if a.cell_type == "code"]
    wrong += [f"more than 84 columns: {line}" for line in wide(book)]
    if sum(followed) < 0.8 * len(followed):
        wrong.append(f"{sum(followed)} of {len(followed)} code cells are followed by prose, not four in five")
    helpers = [node.name for cell in read_cells for node in parsed(cell).body if isinstance(node, ast.FunctionDef)]
    if len(helpers) > 3:
        wrong.append(f"{len(helpers)} helper functions, not 3 at most: {', '.join(helpers)}")
    return wrong


def wide(book: NotebookNode) -> list[str]:
    """Lines of code that the book's column does not hold; those of a claim are folded there."""
    return [line for cell in code(book) for line in cell.source.splitlines() if len(line) > 84]


def parsed(cell: NotebookNode) -> ast.Module:
    """The Python of a cell; a magic of IPython is none."""
    plain = "\n".join("pass" if line.startswith(("%", "!")) else line for line in cell.source.splitlines())
    return ast.parse("" if cell.source.startswith("%%") else plain)


@all_pages
def test_one_sitting(name, sittings):
    assert faults(name, sittings) == []


@all_pages
def test_a_lesson_opens_with_what_it_is_for_and_ends_with_a_recap(name):
    book = read(name)
    prose = [cell.source for cell in book.cells if cell.cell_type == "markdown"]
    number = name.rpartition("/")[2][:2]
    assert re.match(rf"# {number} · \S", prose[0]), "a lesson opens with its number and title"
    assert "you will be able to" in prose[0]
    assert not re.search(r"\b(minutes|hours?)\b", prose[0]), "the generator writes how long it takes"
    headings = [line for text in prose for line in text.splitlines() if line.startswith("# ")]
    assert len(headings) == 1
    assert prose[-1].startswith("## Recap")
    assert 3 <= len(re.findall(r"^- ", prose[-1], re.MULTILINE)) <= 6


@all_pages
def test_a_claim_stands_last_in_its_section_and_is_folded(name):
    cells = read(name).cells
    for at, cell in enumerate(cells):
        if cell.cell_type == "code" and "cu.claim(" in cell.source:
            assert is_claim(cell), "a claim has a cell of its own"
            assert "hide-input" in tags(cell), "the book folds it"
            following = [c for c in cells[at + 1 :] if not (c.cell_type == "code" and is_claim(c))]
            assert following[0].source.startswith("## "), f"after the claim comes {following[0].source[:40]!r}"


@all_pages
def test_the_notebook_says_how_long_it_takes(name, sittings):
    made = (NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8")
    assert f"about {sittings.minutes(read(name))} minutes*" in made


def test_the_map_has_every_notebook_with_its_title(sittings):
    listed = [(row["file"], row["title"]) for row in sittings.lessons()]
    listed += [
        (f"deeper/{page['file']}", page["title"]) for row in sittings.lessons() for page in row.get("deeper", [])
    ]
    assert sorted(name for name, _ in listed) == sorted(CORE + DEEPER)
    for name, title in listed:
        assert read(name).cells[0].source.splitlines()[0] == f"# {name.rpartition('/')[2][:2]} · {title}"
    assert all(page["file"][:2] == row["file"][:2] for row in sittings.lessons() for page in row.get("deeper", []))


def test_the_map_names_times_and_deeper_pages(sittings):
    text = sittings.course_map()
    for row in sittings.lessons():
        line = next(line for line in text.splitlines() if f"({row['file']}.ipynb)" in line)
        assert f"| {sittings.minutes_of(row['file'])} min |" in line
        for page in row.get("deeper", []):
            assert f"(deeper/{page['file']}.ipynb) ({sittings.minutes_of('deeper/' + page['file'])} min)" in line


def test_time_counts_words_questions_and_lines(sittings):
    book = jupytext.reads(
        "# %% [markdown]\n# " + "word " * 1500 + "\n\n# %%\nx = 1\n\n" + "x += 1\n" * 159, fmt="py:percent"
    )
    assert sittings.minutes(book) == 1500 // 150 + 160 // 8
    question = jupytext.reads('# %% tags=["remove-input"]\ncu.quiz("00_start_here", 1)\n', fmt="py:percent")
    assert sittings.words(question) > 20
    plain = jupytext.reads("# %%\nx = 1\n", fmt="py:percent")
    shown = '# %%\ncu.listing(files / "batching.py", "Batcher")\ncu.listing(files / "app.py")\n'
    assert sittings.minutes(jupytext.reads(shown, fmt="py:percent")) >= sittings.minutes(plain) + 15, "it is read, too"
    link = jupytext.reads("# %% [markdown]\n# [two words](https://onnx.ai/)\n", fmt="py:percent")
    assert sittings.words(link) == 2


def test_the_titles_of_the_map_are_yaml_that_people_edit():
    assert yaml.safe_load((ROOT / "data" / "lessons.yml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", sorted((ROOT / "data" / "exercises").glob("*.py")), ids=lambda path: path.stem)
def test_the_code_of_an_exercise_fits_its_column(path):
    assert wide(jupytext.read(path, fmt="py:percent")) == []


@pytest.mark.parametrize("path", sorted((ROOT / "data" / "exercises").glob("*.py")), ids=lambda path: path.stem)
def test_the_prose_of_a_task_is_wrapped(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    too_long = [line for line in lines if len(line) > 120 and not line.startswith("# |")]  # a table has no other form
    assert too_long == []
