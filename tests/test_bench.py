"""`make bench`: the record it writes, the memory and time of a notebook, and the book's page of it. No time is judged."""

import json
import sys

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook

from course_utils.paths import data_path

ROOT = data_path().parent
sys.path[:0] = [str(ROOT / "data"), str(ROOT / "jupyter-book")]

import bench_grading  # noqa: E402
import bench_language  # noqa: E402
import bench_notebooks  # noqa: E402
import bench_page  # noqa: E402
import measured  # noqa: E402

RECORD = json.loads(data_path("bench.json").read_text(encoding="utf-8"))
LESSONS = [path.stem for place in ("", "deeper/") for path in ROOT.glob(f"notebooks/{place}[0-9]*.py")]


def written(tmp_path, *sources: str):
    path = tmp_path / "sample.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(source) for source in sources]), path)
    return path


def test_the_memory_of_a_notebook_counts_what_its_children_hold(tmp_path):
    hold = "import sys; block = b'x' * (200 << 20); sys.stdin.readline()"
    child = f"import subprocess, sys, time\nchild = subprocess.Popen([sys.executable, '-c', {hold!r}], stdin=subprocess.PIPE)"
    path = written(tmp_path, child, "block = b'x' * (200 << 20)\ntime.sleep(1)", "child.communicate(b'end')")
    seconds, peak = bench_notebooks.measure_notebook(path)
    assert seconds >= 1
    assert 400 < peak < 800


def test_a_notebook_that_fails_is_not_measured(tmp_path):
    with pytest.raises(CellExecutionError, match="no such thing"):
        bench_notebooks.measure_notebook(written(tmp_path, "raise ValueError('no such thing')"))


def test_the_record_is_complete():
    assert {row["group"] for row in RECORD["ratios"]} == set(measured.GROUPS)
    assert {row["notebook"] for row in RECORD["notebooks"]} <= set(LESSONS), "a lesson has another name: make bench"
    assert {"processor", "cores", "extensions"} <= RECORD["machine"].keys()


def test_the_page_shows_every_figure_and_says_what_was_missed():
    missed = {"what": "a promise", "reach": "≥ 2 ×", "measured": "1 ×", "kept": False}
    page = measured.page(RECORD | {"promises": [*RECORD["promises"], missed]})
    assert "| a promise | ≥ 2 × | ✗ 1 × |" in page
    promises = RECORD["promises"] + RECORD.get("grading", {}).get("promises", [])
    assert page.count("| ✗ ") == 1 + sum(not row["kept"] for row in promises)
    assert page.count('class="ratio"') == len(RECORD["ratios"])
    assert all(f"| {row['notebook']} | {row['seconds']:.0f} s |" in page for row in RECORD["notebooks"])


def test_the_page_shows_the_grader():
    about = {name: RECORD[name] for name in ("date", "machine", "versions", "promises")}
    figures = {"tasks": 72, "students": 6, "core_seconds": 3.5, "a_second": {"1": 0.25, "2": 0.5}, "peak_mib": 444}
    found = about | figures | {"lost": ["9.11"], "nbgrader": [{"chapter": "01_x", "nbgrader": 20.04, "grader": 0.1}]}
    page = measured.page(RECORD | {"grading": found})
    assert "| 01_x | 20.0 s | 0.100 s | 200× |" in page
    assert "0.25 a second with 1 worker · 0.5 a second with 2 workers" in page
    assert f"a worker held at most {found['peak_mib']} MiB" in page
    assert "right answers lost points** in 9.11" in page
    assert "right answers lost points" not in measured.page(RECORD | {"grading": found | {"lost": []}})
    assert "## The grader" not in measured.page({name: part for name, part in RECORD.items() if name != "grading"})


def test_the_page_shows_the_language_model():
    about = {name: RECORD[name] for name in ("date", "machine", "versions")}
    steps = [{"tokens": n, "without": n * 2.0, "with": 4.0} for n in bench_language.LENGTHS]
    figures = {"steps": steps, "order": {"without": 1.0, "with": 0.0}, "ratios": [{"what": "a ÷ b", "ratio": 1.5}]}
    page = measured.page(RECORD | {"language": about | figures})
    assert "| 512 | 1024.0 ms | 4.0 ms | 256.0× |" in page
    assert "to the power 1 without a cache, and 0 with it" in page
    assert "| a ÷ b | 1.50× |" in page
    assert "## A language model" not in measured.page({n: part for n, part in RECORD.items() if n != "language"})


@pytest.mark.parametrize("power", [0, 1, 2])
def test_the_order_of_growth(power):
    assert bench_language.order([16, 64, 256], [3.0 * n**power for n in (16, 64, 256)]) == power


@pytest.mark.parametrize("workers", [1, 2])
def test_the_grader_is_measured(workers):
    found = bench_grading._graded(["1.2", "2.4"], workers)
    assert found["lost"] == []
    assert found["seconds"] > 0
    assert found["core_seconds"] >= 0
    assert found["peak_mib"] > 10


def test_a_new_kind_of_ratio_needs_a_title():
    row = RECORD["ratios"][0] | {"group": "something new"}
    with pytest.raises(ValueError, match="something new"):
        measured.page(RECORD | {"ratios": [row]})


def test_without_a_book_no_page_is_timed(tmp_path, capsys):
    assert bench_page.measure_live_page(tmp_path) is None
    assert "the book is not built here: make book" in capsys.readouterr().out


@pytest.mark.book
def test_the_live_page_of_the_book_is_timed():
    pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[test]'")
    from browser import give_up

    site = ROOT / "jupyter-book" / "_build" / "html"
    if not site.exists() or bench_page.missing():
        give_up("The site is not built, or no browser is here: run `make book`, and install Chromium.")
    assert bench_page.measure_live_page(site) > 0
