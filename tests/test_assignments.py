"""The bundles of a class: built by the command, worked in by a student, graded by the class file."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
from checkout import ROOT
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell
from test_class_file import class_of
from test_exercises import ANSWER, CHECK
from test_grading import results

from course_utils import exercises
from course_utils.classroom import fingerprint
from course_utils.errors import CourseError
from course_utils.grading.__main__ import main
from course_utils.handin import solutions
from course_utils.processes import environment

sys.path.append(str(ROOT / "notebooks"))
sys.path.append(str(ROOT / "notebooks" / "assignments"))
import generate
import selection

KEY = "autumn-2026-7f3a"
CLASS = f"""title: Autumn $x$
tasks: [2.4, 1.1, 1.4]
points: {{1: 10}}
due: {{1: 2026-10-30 12:00Z}}
late: {{percent_per_day: 10}}
key: {KEY}
solutions: off
"""
SOURCES = {int(p.name[:2]): p.read_text(encoding="utf-8") for p in sorted(generate.EXERCISES.glob("[0-9]*.py"))}


def build(folder: Path, text: str = CLASS, *, ok: bool = True) -> subprocess.CompletedProcess[str]:
    (folder / "my class.yaml").write_text(text, encoding="utf-8")
    command = [
        sys.executable,
        str(ROOT / "notebooks" / "assignments" / "bundles.py"),
        "--class",
        "my class.yaml",
        "--out",
        "built",
    ]
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False, timeout=500
    )
    assert not ok or done.returncode == 0, done.stdout + done.stderr
    return done


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assignments")
    build(folder)
    return folder / "built"


@pytest.fixture(scope="module")
def bundle(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The student's zip, unpacked where the course is not."""
    place = tmp_path_factory.mktemp("student")
    with zipfile.ZipFile(built / "students.zip") as archive:
        archive.extractall(place)
    return place / "onnx-scroll-students"


def test_zips_hold_what_the_folders_hold(built, bundle):
    assert content(bundle) == content(built / "students")
    with zipfile.ZipFile(built / "instructor.zip") as archive:
        names = {name.removeprefix("onnx-scroll-instructor/") for name in archive.namelist()}
    assert names == content(built / "instructor").keys()


def test_no_solution_is_in_any_byte_of_the_students(bundle):
    """Of no task, also of those that are not in the class: neither the code nor the explanation."""
    everything = content(bundle)
    texts = {name: json.dumps(data.decode("utf-8", "replace")) for name, data in everything.items()}
    checked = 0
    for id in (id for chapter in exercises.chapters() for id in exercises.tasks_of(chapter)):
        source = SOURCES[int(id.partition(".")[0])]
        shown = solutions.read_solution(exercises.task(id), source)
        for line in shown.text.splitlines():
            if len(line) > 60:
                checked += 1
                assert [name for name, text in texts.items() if json.dumps(line)[1:-1] in text] == [], line
    assert checked > 200
    code = {
        line
        for s in SOURCES.values()
        for part in re.findall(r"### BEGIN SOLUTION\n(.*?)### END", s, re.DOTALL)
        for line in part.splitlines()
    }
    given = {
        line.strip()
        for s in SOURCES.values()
        for line in re.sub(r"### BEGIN SOLUTION\n.*?### END", "", s, flags=re.DOTALL).splitlines()
    }
    for name in (name for name in everything if name.startswith("notebooks/exercises/")):
        cells = nbformat.reads(everything[name].decode(), as_version=4).cells
        lines = {line.strip() for cell in cells for line in cell.source.splitlines()}
        assert lines & ({line.strip() for line in code} - given - {""}) == set()
    assert not [
        name
        for name in everything
        if "data/exercises" in name
        or name.startswith("tests")
        or ("secret" in name.lower() and not name.endswith(".py"))
    ]
    assert not [name for name, data in everything.items() if b"### BEGIN SOLUTION" in data]


def test_every_solution_is_searched_for_in_a_way_that_finds_it(built):
    """The same search finds them in the instructor's bundle."""
    found = (built / "instructor" / "answer_guide.md").read_text(encoding="utf-8")
    for id in ("1.1", "1.4", "2.4"):
        shown = solutions.read_solution(exercises.task(id), SOURCES[int(id[0])])
        assert all(line in found for line in shown.text.splitlines())
        assert shown.code in found


def test_the_notebooks_have_the_tasks_of_the_class(bundle, built):
    for folder in (bundle / "notebooks" / "exercises", built / "instructor" / "notebooks"):
        assert sorted(p.name for p in folder.glob("*.ipynb")) == ["01_graph_structure.ipynb", "02_opsets.ipynb"]
        first, second = (nbformat.read(p, as_version=4).cells for p in sorted(folder.glob("*.ipynb")))
        assert [CHECK.findall(c.source) for c in first if CHECK.search(c.source)] == [["1.1"], ["1.4"]]
        assert [CHECK.findall(c.source) for c in second if CHECK.search(c.source)] == [["2.4"]]
        title = first[1].source
        assert title.startswith(
            "# 01 · Exercises: graph structure\n\n*Autumn \\$x\\$ · 20 points · due 2026-10-30 12:00 (UTC)*\n"
        )
        assert "**In this class:** 1.1, 1.4." in title
        assert "colab-badge" not in str([c.source for c in first])
        assert [c.source.splitlines()[0] for c in first if c.source.startswith("## ")] == [
            *("## 1.1 Build a formula by hand", "## Three broken graphs", "## 1.4 Repair the names", "## Hand in"),
        ]


def test_readme_rubric_and_guide(bundle, built):
    readme = (bundle / "README.md").read_text(encoding="utf-8")
    assert "| 1.1 | Build a formula by hand | 10 | 2026-10-30 12:00 (UTC) |" in readme
    assert "| 2.4 | An IR version from the future | 1 | – |" in readme
    assert readme.index("| 2.4 |") < readme.index("| 1.1 |"), "the order of the class file"
    assert "10 % less for each day begun after the due date" in readme
    assert "{{" not in readme
    rubric = (built / "instructor" / "rubric.md").read_text(encoding="utf-8")
    for id, worth in (("1.1", "10"), ("1.4", "10"), ("2.4", "1")):
        section = rubric.partition(f"### {id} ")[2].partition("\n### ")[0]
        assert f"**{worth} point" in section
        goals = re.findall(r"^\| .* \| goal \| (\S+) \|$", section, re.MULTILINE)
        assert len(goals) == exercises.task(id).points
        assert sum(map(float, goals)) == float(worth)
        assert "| condition | – |" in section
        assert "**Note**" not in section
    assert "3 of 3 tasks" in rubric
    guide = (built / "instructor" / "answer_guide.html").read_text(encoding="utf-8")
    assert guide.count("<h3>") == 3
    assert (built / "instructor" / "class.yaml").read_text(encoding="utf-8") == CLASS
    assert json.loads((bundle / "class.json").read_text(encoding="utf-8"))["key"] == KEY


def test_again_it_is_the_same_and_nothing_else_is_replaced(built):
    before = content(built)
    done = build(built.parent)
    assert "Autumn $x$: 3 tasks, 21 points." in done.stdout
    assert content(built) == before
    readme = built / "students" / "README.md"
    kept = readme.read_bytes()
    for change, name in ((readme, "students/README.md"), (built / "my notes.txt", "my notes.txt")):
        change.write_text("mine")
        done = build(built.parent, ok=False)
        assert done.returncode == 2
        assert done.stderr.startswith(
            f"assignments: '{name}' in 'built' is new or was changed since the bundles were built:"
        )
        assert change.read_text() == "mine"
    (built / "my notes.txt").unlink()
    readme.write_bytes(kept)
    assert content(built) == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tasks: [1.7]\n", "line 1: There is no task or chapter '1.7'"),
        (CLASS, "'built' was not made by this command ('old.txt' is in it)"),
    ],
)
def test_what_is_refused_leaves_everything_as_it_was(tmp_path, text, said):
    (tmp_path / "built").mkdir()
    (tmp_path / "built" / "old.txt").write_text("old")
    done = build(tmp_path, text, ok=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["built", "my class.yaml"]
    assert content(tmp_path / "built") == {"old.txt": b"old"}


# A student's way


def answered(bundle: Path, built: Path, name: str) -> NotebookNode:
    """The student's notebook with right answers in its gaps, and an id."""
    book = nbformat.read(bundle / "notebooks" / "exercises" / name, as_version=4)
    solved = nbformat.read(built / "instructor" / "notebooks" / name, as_version=4)
    answers = {m[1]: c.source for c in solved.cells if (m := ANSWER.match(c.source))}
    for cell in book.cells:
        if match := ANSWER.match(cell.source):
            assert "raise NotImplementedError()" in cell.source
            cell.source = answers[match[1]]
        cell.source = cell.source.replace('cu.setup(student="guest")', 'cu.setup(student="ada")')
    return book


def work(bundle: Path, book: NotebookNode) -> str:
    """Run it where the bundle is, with the package that is in it; returns what was shown."""
    kept = {k: v for k, v in os.environ.items() if k not in ("COURSE_STUDENT", "COURSE_STRICT", "COURSE_CLASS")}
    where = {"metadata": {"path": str(bundle / "notebooks" / "exercises")}}
    NotebookClient(book, timeout=180, kernel_name="python3", resources=where).execute(
        env={**kept, "PYTHONPATH": str(bundle)}
    )
    return "".join(str(cell.outputs) for cell in book.cells if cell.cell_type == "code")


@pytest.fixture(scope="module")
def handed_in(bundle: Path, built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zip of a student with right answers to chapter 1, in a folder of its own."""
    place = tmp_path_factory.mktemp("at-work") / "course"
    shutil.copytree(bundle, place)
    book = answered(bundle, built, "01_graph_structure.ipynb")
    asked = 'print(cu.__file__)\ntry:\n    cu.solution("1.1")\nexcept cu.CourseError as error:\n    print(error)'
    book.cells.append(new_code_cell(asked))
    shown = work(place, book)
    assert "exercises for 'ada' · class 'Autumn $x$'" in shown
    assert shown.count(": passed, ") >= 2
    assert str(place / "course_utils") in shown
    assert "This class works without shown solutions" in shown
    (made,) = (place / "notebooks" / "exercises" / "work").glob("submission_ada_*.zip")
    folder = tmp_path_factory.mktemp("handed-in")
    shutil.copyfile(made, folder / made.name)
    return folder


def graded(handed_in: Path, folder: Path, text: str) -> dict:
    class_of(folder, text)
    os.utime(next(handed_in.glob("*.zip")), (1_793_000_000,) * 2)  # before the due date
    command = ["grade", str(handed_in), "--out", str(folder / "out"), "--workers", "1"]
    assert main([*command, "--class", str(folder / "class.yaml")]) == 0
    (one,) = results(folder / "out").values()
    return one


def test_right_answers_have_all_points_under_the_key_of_their_class(handed_in, tmp_path):
    one = graded(handed_in, tmp_path, CLASS)
    assert (one["student"], one["points"], one["of"], one["chapters"]) == ("ada", 20, 21, {"2": 0.0, "1": 1.0})
    assert one["notes"] == []


@pytest.mark.parametrize("key", ["autumn-2025", ""])
def test_under_another_key_the_same_zip_has_none_where_parameters_are_personal(handed_in, tmp_path, key):
    one = graded(handed_in, tmp_path, CLASS.replace(KEY, f"'{key}'"))
    assert one["tasks"]["1.1"]["points"] == one["tasks"]["1.4"]["points"] == one["points"] == 0
    assert one["notes"][0].startswith("It was made with the key of the class ")


def test_a_forged_class_file_brings_nothing(bundle, built, tmp_path):
    """Somebody writes another key into class.json, for which there are answers; and then the right fingerprint into the zip."""
    place = tmp_path / "forger"
    shutil.copytree(bundle, place)
    about = json.loads((place / "class.json").read_text(encoding="utf-8"))
    (place / "class.json").write_text(json.dumps(about | {"key": "last-year", "solutions": True}))
    shown = work(place, answered(bundle, built, "01_graph_structure.ipynb"))
    assert shown.count(": passed, ") >= 2, "on the own machine it looks right"
    (made,) = (place / "notebooks" / "exercises" / "work").glob("submission_ada_*.zip")
    with zipfile.ZipFile(made) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    (tmp_path / "in").mkdir()
    shutil.copyfile(made, tmp_path / "in" / made.name)
    one = graded(tmp_path / "in", tmp_path, CLASS)
    assert one["points"] == 0
    assert one["notes"][0].startswith("It was made with the key of the class ")
    claimed = json.loads(entries["answers.json"])
    entries["answers.json"] = json.dumps(claimed | {"class": fingerprint(KEY)}).encode()
    with zipfile.ZipFile(tmp_path / "in" / made.name, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    one = graded(tmp_path / "in", tmp_path, CLASS)
    assert one["points"] == 0
    assert "The notebook claims 1 of 1 points, the grader counted 0 of 1." in one["tasks"]["1.1"]["notes"]


# Cutting notebooks

NEEDS = {"10.3": "10.1", "10.4": "10.3", "10.5": "10.4", "10.6": "10.3"}  # tasks made from the answer to another one


@pytest.mark.parametrize("chapter", exercises.chapters())
def test_each_task_alone_has_all_names_that_it_uses(chapter):
    """What a kept cell uses is defined before it, in the notebook of every single task and of every pair of neighbours."""
    ids = list(exercises.tasks_of(chapter))
    (source,) = (s for s in generate.sources() if s.parent.name == "exercises" and int(s.name[:2]) == chapter)
    for chosen in [*([id] for id in ids), *map(list, itertools.pairwise(ids)), ids]:
        if [id for id in chosen if NEEDS.get(id, id) not in chosen]:
            with pytest.raises(
                CourseError, match=r"^One of the tasks 10.* builds on the answer to 10\.\d, .*: select it, too\.$"
            ):
                selection.cut(generate.read(source), chosen)
            continue
        book = selection.cut(generate.read(source), chosen)
        checks = [id for cell in book.cells for id in CHECK.findall(cell.source)]
        assert checks == chosen
        assert [m[1] for cell in book.cells if (m := ANSWER.match(cell.source))] == chosen
        known = set(dir(__builtins__) if not isinstance(__builtins__, dict) else __builtins__)
        known |= {"display", "get_ipython"}
        for cell in (cell for cell in book.cells if cell.cell_type == "code"):
            defines, uses = selection._names(cell.source)
            assert uses - defines - known == set(), (chosen, cell.source)
            known |= defines


@pytest.mark.parametrize("chapter", exercises.chapters())
def test_all_tasks_leave_a_notebook_as_it_is(chapter):
    (source,) = (s for s in generate.sources() if s.parent.name == "exercises" and int(s.name[:2]) == chapter)
    book, whole = selection.cut(generate.read(source), exercises.tasks_of(chapter)), generate.read(source)

    def words(cells: list[NotebookNode]) -> list[str]:
        return " ".join(cell.source for cell in cells).split()

    assert words(book.cells) == words(whole.cells)


def test_wards_without_patients_are_left_out():
    (source,) = (s for s in generate.sources() if s.parent.name == "exercises" and s.name.startswith("09"))
    book = selection.cut(generate.read(source), ["9.8"])
    headings = [
        line
        for cell in book.cells
        if cell.cell_type == "markdown"
        for line in re.findall(r"^##+ .*", cell.source, re.MULTILINE)
    ]
    assert [line for line in headings if "Ward" in line] == ["## Ward 3: slow"]
    assert [line for line in headings if line.startswith("###")] == [next(h for h in headings if "9.8" in h)]
    assert {"## The ward round", "## Discharge", "## Hand in"} <= set(headings)
