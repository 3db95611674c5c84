"""The doctor's reports and its command line."""

from __future__ import annotations

import html
import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import onnx
import pytest
from checkout import ROOT
from doctor_models import chain, external, linear, parsed

import course_utils as cu
from course_utils.diagnosis.report import Report
from course_utils.diagnosis.vocabulary import LESSONS, SEVERITIES, Finding, all_codes, finding, lesson_name

SICK = linear(dtype="double", batch="1", opset=99)  # an error, a warning, a note


@pytest.fixture
def models(folder):
    onnx.save(SICK, "sick.onnx")
    onnx.save(linear(), "well.onnx")
    onnx.save(chain(12), "warned.onnx")
    return folder


@pytest.fixture
def command(capsys):
    """Run the command line in this process: exit status, standard output, standard error."""
    from course_utils.doctor import main

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            status = main(arguments)
        except SystemExit as stop:  # argparse
            status = stop.code
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_exit_status(command, models):
    """0 without errors, 1 with one, 2 where there is nothing to examine."""
    assert command("well.onnx") == (0, command("well.onnx")[1], "")
    assert command("warned.onnx")[0] == 0
    assert command("sick.onnx")[0] == 1
    assert command("well.onnx", "sick.onnx")[0] == 1
    (models / "text.onnx").write_text("no model")
    assert command("text.onnx")[0] == 1
    for wrong in (["nowhere.onnx"], ["."], [], ["well.onnx", "--nonsense"], ["well.onnx", "--provider", "X"]):
        status, out, err = command(*wrong)
        assert status == 2, wrong
        assert out == ""
        assert "Traceback" not in err
        assert err


def test_one_wrong_path_does_not_stop_the_others(command, models):
    status, out, err = command("nowhere.onnx", "sick.onnx", ".", "well.onnx")
    assert status == 2
    assert (out.count("sick.onnx: 1 error"), out.count("well.onnx: nothing found")) == (1, 1)
    assert [line[:20] for line in err.splitlines()] == ["doctor: There is no ", "doctor: '.' is a fol"]
    status, out, err = command("nowhere.onnx", "well.onnx", "--json")
    assert status == 2
    assert [r["file"] for r in json.loads(out)] == ["well.onnx"]
    assert command("well.onnx", "sick.onnx", "--provider", "X")[2].count("doctor:") == 1


def test_in_a_process_of_its_own(python, models):
    code = (
        "import runpy, sys; sys.argv = ['doctor', {!r}]; runpy.run_module('course_utils.doctor', run_name='__main__')"
    )
    done = python(code.format("sick.onnx"), cwd=models, ok=False)
    assert done.returncode == 1
    assert "✗ error: The opset is newer than this runtime takes [opset-too-new]" in done.stdout
    assert done.stderr == ""
    done = python(code.format("nowhere.onnx"), cwd=models, ok=False)
    assert done.returncode == 2
    assert done.stderr.startswith("doctor: There is no file 'nowhere.onnx'; in its folder there are: sick.onnx,")
    assert done.stderr.count("\n") == 1


def test_a_terminal_that_cannot_show_everything(python, models):
    code = (
        "import runpy, sys; sys.argv = ['d', 'sick.onnx']; runpy.run_module('course_utils.doctor', run_name='__main__')"
    )
    done = python(code, cwd=models, ok=False, env={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (1, "")
    assert "? error" in done.stdout


def test_text(models):
    text = repr(cu.doctor("sick.onnx"))
    assert text.startswith("sick.onnx: 1 error, 1 warning, 1 note\n")
    assert re.search(
        r"where: +file 'opset of ai.onnx'\n +cause: .*\n(.*\n)* +cure: .*\n(.*\n)* +lesson: 02 · Opsets", text
    )
    assert [f.severity for f in cu.doctor("sick.onnx").findings] == ["error", "warning", "note"]
    assert repr(cu.doctor("well.onnx")).startswith("well.onnx: nothing found\n")


def test_json(command, models):
    status, out, _ = command("sick.onnx", "--json")
    report = json.loads(out)
    assert status == 1
    assert report.keys() == {
        "format", "course_utils", "file", "facts", "counts", "findings", "not_examined", "complete", "seconds",
    }  # fmt: skip
    assert (report["format"], report["file"]) == (1, "sick.onnx")
    assert report["counts"] == {"error": 1, "warning": 1, "note": 1}
    for found in report["findings"]:
        assert found.keys() == {"code", "severity", "title", "cause", "cure", "lesson", "count", "where"}
        assert found["severity"] in SEVERITIES
        assert re.fullmatch(r"notebooks/(deeper/)?\d\d_\w+\.ipynb", found["lesson"]["file"])
        assert all(p.keys() == {"kind", "name", "index", "graph"} for p in found["where"])
        assert found["count"] >= len(found["where"])
    several = json.loads(command("sick.onnx", "well.onnx", "--json")[1])
    assert [r["file"] for r in several] == ["sick.onnx", "well.onnx"]


def test_json_has_the_seconds_in_milliseconds():
    assert Report("m.onnx", {}, (), seconds=1.23456).as_dict()["seconds"] == 1.235


def test_many_places_are_counted(models):
    """60 nodes, 50 places, 3 shown."""
    body = "  ".join(f"y{i} = Relu(x)" for i in range(60))
    report = cu.doctor(parsed(f"g (float[N] x) => (float[N] y0) {{ {body} }}"))
    (finding,) = report.findings
    assert (finding.count, len(finding.where)) == (59, 50)
    assert finding.places.endswith("and 56 more")


class Page(HTMLParser):
    """Checks that every tag is closed, and collects links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.links += [value for name, value in attrs if name == "href"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_html(models, monkeypatch):
    report = cu.doctor("sick.onnx")
    page = report._repr_html_()
    assert Page(page).links == []
    assert "opset-too-new" in page
    assert page.count(">where</small>") == sum(bool(f.where) for f in report.findings) > 0
    assert all(html.escape(f.places) in page for f in report.findings)
    # Only marks carry a colour of their own: the text takes that of the page, in light and in dark.
    assert "background" not in page
    (models / "02_opsets.ipynb").touch()
    assert Page(report._repr_html_()).links == ["02_opsets.ipynb"]
    monkeypatch.setenv("COURSE_BOOK_MODELS", "somewhere")
    assert Page(report._repr_html_()).links == ["02_opsets.html"]
    (models / "exercises").mkdir()
    monkeypatch.chdir(models / "exercises")
    assert Page(report._repr_html_()).links == ["../02_opsets.html"]


def test_html_links_a_page_below_a_lesson(models, monkeypatch):
    weight = SICK.graph.initializer[0]
    fed = linear()
    fed.graph.input.append(onnx.helper.make_tensor_value_info(weight.name, onnx.TensorProto.FLOAT, weight.dims))
    report = cu.doctor(fed)
    assert "lesson: 06 · Why it does not fuse" in repr(report)
    page = models / "deeper" / "06_why_not_fused.ipynb"
    page.parent.mkdir()
    page.touch()
    assert Page(report._repr_html_()).links == ["deeper/06_why_not_fused.ipynb"]
    monkeypatch.chdir(page.parent)
    assert Page(report._repr_html_()).links == ["../deeper/06_why_not_fused.ipynb"]


def test_codes(command):
    """The list of codes is made from the code itself; ids are plain, sentences end as sentences do."""
    table = cu.doctor_codes()
    assert list(table["code"]) == [c.id for c in all_codes()]
    assert table["code"].is_unique
    assert table["code"].str.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*").all()
    assert not table["title"].str.endswith(".").any()
    assert table["cure"].str.endswith(".").all()
    status, out, _ = command("--codes")
    assert status == 0
    assert len(out.splitlines()) == len(table)
    assert json.loads(command("--codes", "--json")[1])[0].keys() == {"code", "severity", "title", "cure", "lesson"}


def test_lessons_are_there():
    """Titles are those of the pages."""
    from checkout import ROOT

    for lesson, (_, file) in LESSONS.items():
        assert file.startswith(f"{lesson}_") if lesson.isdigit() else file == f"deeper/{lesson}"
        source = ROOT / "notebooks" / f"{file}.py"
        assert f"# # {lesson_name(lesson)}\n" in source.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "first", ["import course_utils.doctor", "import course_utils.diagnosis", "from course_utils import doctor"]
)
def test_the_function_is_there_whatever_was_imported(first, python, models):
    """A submodule of the same name takes the place of the function; it can be called all the same."""
    code = f"""
        import course_utils as cu
        {first}
        print(cu.doctor("well.onnx").codes, cu.doctor("well.onnx", run=True).codes)
    """
    assert python(code, cwd=models).stdout == "[] []\n"


def test_called_as_a_module(models):
    module = importlib.import_module("course_utils.doctor")
    assert module("well.onnx").codes == []
    sys.modules.pop("course_utils.doctor")
    vars(cu).pop("doctor")
    assert cu.doctor("well.onnx").codes == []


def test_nothing_is_left_behind(models):
    model = linear(64)
    (models / "w.bin").write_bytes(external(model))
    onnx.save(model, "outside.onnx")
    before = {p.name: p.read_bytes() for p in models.iterdir()}
    for name in ("sick.onnx", "well.onnx", "outside.onnx"):
        cu.doctor(name, run=True)
    assert {p.name: p.read_bytes() for p in models.iterdir()} == before


@pytest.mark.parametrize("arguments", [["--codes"], ["--codes", "--json"], ["sick.onnx"], ["sick.onnx", "--json"]])
def test_a_reader_that_has_seen_enough(arguments, models):
    """`| head`: no traceback, and the status says what was found all the same."""
    child = subprocess.Popen(
        [sys.executable, "-m", "course_utils.doctor", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=models, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    child.stdout.close()
    assert child.stderr.read() == b""
    assert child.wait() == int("sick.onnx" in arguments)


@pytest.fixture(scope="module")
def interpreter_without(tmp_path_factory):
    """A function that makes an environment of its own: an interpreter with all packages of this one, but for some."""
    import sysconfig
    import venv

    def make(*left_out: str) -> dict[str, str]:
        folder = tmp_path_factory.mktemp("environment")
        venv.create(folder / "venv", with_pip=False)
        (folder / "packages").mkdir()
        for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
            if re.split(r"[-.]", entry.name)[0] not in left_out:
                (folder / "packages" / entry.name).symlink_to(entry)
        python = folder / "venv" / "bin" / "python"
        return {"python": str(python), "PYTHONPATH": f"{ROOT}{os.pathsep}{folder / 'packages'}"}

    return make


def examined(environment: dict[str, str], folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [environment["python"], "-m", "course_utils.doctor", *arguments], capture_output=True, text=True, check=False,
        cwd=folder, env={**os.environ, "PYTHONPATH": environment["PYTHONPATH"], "COLUMNS": "1000"}, timeout=120,
    )  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_without_onnxruntime_nothing_found_is_no_clean_bill(interpreter_without, models):
    """In an interpreter that has no ONNX Runtime: no finding about the model, and a status of its own."""
    bare = interpreter_without("onnxruntime")
    assert subprocess.run(
        [bare["python"], "-c", "import onnxruntime"], env={**os.environ, "PYTHONPATH": bare["PYTHONPATH"]}, capture_output=True, check=False,
    ).returncode  # fmt: skip
    for arguments in (["well.onnx"], ["well.onnx", "--run"]):
        done = examined(bare, models, *arguments)
        assert (done.returncode, done.stderr) == (3, "")
        assert done.stdout.startswith("well.onnx: nothing found, and the examination is not complete\n")
        assert (
            done.stdout.count("ONNX Runtime cannot be loaded here (No module named 'onnxruntime'), so the model") == 1
        )
        assert "✗" not in done.stdout
        assert "stopped" not in done.stdout
    report = json.loads(examined(bare, models, "well.onnx", "--json").stdout)
    assert (report["complete"], report["findings"]) == (False, [])
    broken = models / "broken.onnx"
    broken.write_bytes(b"Entry not found")
    done = examined(bare, models, "broken.onnx")
    assert done.returncode == 1, "what is no model needs no runtime"
    assert "not complete" not in done.stdout
    assert examined(bare, models, "warned.onnx").returncode == 3
    assert examined(interpreter_without(), models, "well.onnx", "--run").returncode == 0


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
@pytest.mark.parametrize("package", ["onnx", "numpy"])
def test_without_onnx_nothing_is_examined(package, interpreter_without, models):
    done = examined(interpreter_without(package), models, "well.onnx")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("doctor: nothing was examined, as a package is missing (No module named ")
    assert done.stderr.count("\n") == 1


def test_a_runtime_whose_libraries_do_not_load(models, folder):
    """As on a system that is too old for it: an ImportError of another kind."""
    (folder / "onnxruntime.py").write_text("raise ImportError('libcudart.so.13: cannot open shared object file')")
    here = {"python": sys.executable, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    done = examined(here, models, "well.onnx", "--run")
    assert done.returncode == 3
    assert "ONNX Runtime cannot be loaded here (libcudart.so.13: cannot open" in done.stdout


def test_a_check_that_stops_is_no_clean_bill(command, models, monkeypatch):
    from course_utils.diagnosis.findings import loops

    def unrolled(patient: object) -> list:
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr(loops, "CHECKS", (unrolled,))
    status, out, err = command("well.onnx")
    assert (status, err) == (3, "")
    assert "not complete" in out
    assert "The check “unrolled” stopped: ZeroDivisionError: of all things" in out
    assert command("sick.onnx")[0] == 1


def test_what_is_found_before_and_after_a_check_that_stops(monkeypatch):
    from course_utils.diagnosis.findings import loops

    def unrolled(patient: object) -> Iterator[Finding]:
        yield finding(all_codes()[0], "It is so.")
        raise ZeroDivisionError("of all things")

    alone = cu.doctor(SICK).codes
    monkeypatch.setattr(loops, "CHECKS", (unrolled, *loops.CHECKS, unrolled))
    assert sorted(cu.doctor(SICK).codes) == sorted([*alone, *2 * [all_codes()[0].id]])


def test_a_run_that_was_asked_for_and_not_made_is_no_clean_bill(command, models):
    """Nothing can be said where its weights are missing; a limit of what was looked at is no such thing."""
    model = linear(600)
    external(model)
    report = cu.doctor(model, run=True)
    assert not report.errors
    assert "The model was not run" in report.unfinished[0]
    assert "not complete" in repr(report)
    onnx.save(linear(600), "large.onnx")
    assert command("large.onnx", "--budget-mb", "1")[0] == 0
