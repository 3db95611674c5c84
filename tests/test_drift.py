"""`make drift` sees what fails, and tells causes from consequences."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import drift
import nbformat
import pytest

from course_utils.lab.claims import ledger

OK, FAILS = "import course_utils as cu\nx = 1", "y = [][0]"
GOOD = 'cu.claim("runs-without-pytorch", {"it does": x == 1})'
BAD = 'cu.claim("graph-static-topological", {"one is even": x % 2 == 0})'
UNREACHED = 'cu.claim("protobuf-hierarchy", {"y is there": y})'


def notebook(*sources: str) -> nbformat.NotebookNode:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# words"), *cells])


def after_a_run(tmp_path, *sources: str) -> list[drift.Change]:
    book = notebook(*sources)
    drift.run(book, tmp_path)
    return drift.changes("made_up", book)


def test_nothing_changed(tmp_path):
    assert after_a_run(tmp_path, OK, GOOD) == []


def test_causes_and_consequences(tmp_path):
    found = after_a_run(tmp_path, OK, FAILS, "print(y)", GOOD, BAD, UNREACHED, "open('made.onnx')")
    assert [(c.cell, c.claim) for c in found] == [
        (1, ""),
        (4, "graph-static-topological"),
        (5, "protobuf-hierarchy"),
        (1, ""),
    ]
    first, claim, unreached, rest = (c.what for c in found)
    assert first == "IndexError: list index out of range"
    assert "is not upheld: one is even" in claim
    assert unreached == "not reached"
    assert rest == "3 cells lack what failed cells make"
    lines = drift.table(found).splitlines()
    assert lines[0].split() == ["notebook", "cell", "claim", "what", "happened"]
    assert len(lines) == 5


def test_a_name_error_that_comes_first_is_a_cause(tmp_path):
    assert [c.what for c in after_a_run(tmp_path, "nowhere")] == ["NameError: name 'nowhere' is not defined"]


def test_a_claim_that_is_excused_is_told(tmp_path):
    """As with packages that are older than a claim needs."""
    old = "from course_utils.lab import claims\nclaims.versions = lambda: dict.fromkeys(('onnx', 'onnxruntime', 'torch'), '0.1')"
    since = next(c for c in ledger().values() if c.since)
    (found,) = after_a_run(tmp_path, OK, old, f"cu.claim({since.id!r}, {{'it is': False}})")
    assert found.claim == since.id
    assert found.what.startswith("Not upheld here: it needs")


@pytest.mark.skipif(os.name == "nt", reason="Windows sends such a signal to whole groups only")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends(number, tmp_path):
    """And does not go on to the next notebook."""
    nbformat.write(notebook("import time; open('begun', 'w').close(); time.sleep(100)"), tmp_path / "long.ipynb")
    code = (
        "import drift, nbformat, pathlib; drift.run(nbformat.read('long.ipynb', 4), pathlib.Path()); print('went on')"
    )
    variables = os.environ | {"PYTHONPATH": os.pathsep.join([str(drift.ROOT / "tests"), str(drift.ROOT)])}
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=variables, stdout=subprocess.PIPE) as started:
        ends = time.monotonic() + 60
        while not (tmp_path / "begun").exists() and time.monotonic() < ends:
            time.sleep(0.1)
        started.send_signal(number)
        said, _ = started.communicate(timeout=60)
    assert said == b""
    assert started.returncode == -number


def test_a_build_tag_is_no_difference(monkeypatch):
    pins = re.findall(r"^([\w.-]+)==(\S+)$", (drift.ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    monkeypatch.setattr(drift, "version", lambda name: f"{dict(pins)[name]}+cpu")
    told = drift.versions()
    assert f"torch {dict(pins)['torch']}, " in told
    assert "+cpu" not in told
    assert "pinned" not in told


@pytest.mark.parametrize(("pin", "said"), [("0.0.1", "(pinned: 0.0.1)"), (drift.version("onnx"), "")])
def test_versions_name_what_differs(pin, said, tmp_path, monkeypatch):
    pins = {name: drift.version(name) for name in drift.WATCHED} | {"onnx": pin}
    (tmp_path / "constraints.txt").write_text("\n".join(f"{name}=={number}" for name, number in pins.items()))
    monkeypatch.setattr(drift, "ROOT", tmp_path)
    assert drift.versions().split(", ")[0] == f"onnx {drift.version('onnx')} {said}".strip()


def test_an_unknown_notebook(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["drift.py", "07_quantisation"])
    with pytest.raises(SystemExit) as ended:
        drift.main()
    assert ended.value.code == 2
    assert "there is no notebook 07_quantisation; there are 00_start_here" in capsys.readouterr().err
