"""The lab "doctor": its checks find in a file what Python's doctor finds, for the codes that the page looks for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from answers import given_files
from lab_doctor_models import MORE
from lab_files import LABS, maker
from recorded_reports import GIVING, MODELS
from test_doctor_files import NO_MODELS

import course_utils as cu
from course_utils.diagnosis.vocabulary import all_codes
from course_utils.pages.browser_lab import node, npm_package

ROOT = Path(__file__).resolve().parents[1]
BACKEND = Path(onnx.__file__).parent / "backend" / "test" / "data"
CODES = json.loads((LABS / "doctor" / "codes.json").read_text(encoding="utf-8"))
LOOKED_FOR = {code for family in CODES["examined"].values() for code in family}

needs_node = pytest.mark.skipif(
    node() is None or npm_package("protobufjs") is None, reason="needs Node and the packages that make book installs"
)


# Where the answer depends on the folder of the file, Python's doctor is given a file, and the rest as bytes.
IN_A_FILE = {name for name in MORE if name.startswith(("outside", "compiled"))}


def every_file() -> dict[str, bytes]:
    """Name → bytes: the sick models of the doctor's tests and their twins, what the course hands out, its own models, what
    is no model at all, and models of the onnx package."""
    made: dict[str, onnx.ModelProto | bytes] = {name: make() for name, make in (MODELS | MORE).items()}
    made |= {f"no model: {name}": data for name, (data, *_) in NO_MODELS.items()}
    made |= {f"task {id}, {name}": d for id in GIVING for name, d in given_files(id).items() if name.endswith(".onnx")}
    made |= {f"example {name}": data for name, data in maker("doctor").examples().items()}
    files = [*(ROOT / "data").glob("**/*.onnx"), *sorted(BACKEND.glob("**/*.onnx"))]
    made |= {f"file {path.parent.name}/{path.name}": path.read_bytes() for path in files}
    return {name: data if isinstance(data, bytes) else data.SerializeToString() for name, data in made.items()}


def of_python(name: str, data: bytes, folder: Path) -> cu.diagnosis.report.Report:  # type: ignore[name-defined]
    if name not in IN_A_FILE:
        return cu.doctor(data)
    path = folder / "inside" / "m.onnx"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return cu.doctor(path)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, Any], Any]]:
    """Name → what the page's checks say of a file, and the report of Python's doctor. One process of Node for all."""
    folder = tmp_path_factory.mktemp("doctor")
    maker("doctor").make(folder)
    subprocess.run([sys.executable, str(LABS / "vendor.py")], check=True, timeout=60)
    files = every_file()
    (folder / "files").mkdir()
    for number, data in enumerate(files.values()):
        (folder / "files" / f"{number:04}").write_bytes(data)
    command = [
        str(node()),
        str(LABS / "doctor" / "in_node.mjs"),
        str(folder / "doctor.json"),
        str(folder / "files"),
    ]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=300).stdout)
    return {
        name: (told[f"{number:04}"], of_python(name, data, folder)) for number, (name, data) in enumerate(files.items())
    }


@needs_node
def test_the_same_codes_for_each_file(found: dict[str, tuple[dict[str, Any], Any]]) -> None:
    assert len(found) > 300
    stopped = {name: page["stopped"] for name, (page, _) in found.items() if page["stopped"]}
    assert stopped == {}
    of_page = {name: sorted(set(page["codes"])) for name, (page, _) in found.items()}
    of_doctor = {name: sorted({*report.codes} & LOOKED_FOR) for name, (_, report) in found.items()}
    assert of_page == of_doctor


@needs_node
def test_each_code_is_seen_at_least_once_and_healthy_files_too(found: dict[str, tuple[dict[str, Any], Any]]) -> None:
    seen = {code for page, _ in found.values() for code in page["codes"]}
    assert seen == LOOKED_FOR
    assert sum(not page["codes"] for page, _ in found.values()) > 60


@needs_node
def test_the_same_facts(found: dict[str, tuple[dict[str, Any], Any]]) -> None:
    """Sizes in words are left out: JavaScript and Python round a half to different sides."""
    for name, (page, report) in found.items():
        for fact in ("nodes", "inputs", "outputs", "IR version", "opset", "written by"):
            assert page["facts"].get(fact) == report.facts.get(fact), (name, fact)


def test_each_code_is_looked_for_or_left_out_for_a_reason() -> None:
    left_out = [code for group in CODES["left_out"].values() for code in group]
    assert sorted([*LOOKED_FOR, *left_out]) == sorted(code.id for code in all_codes())
    assert len(LOOKED_FOR) >= 40


def test_texts_come_from_the_catalogue_of_the_doctor() -> None:
    told = maker("doctor").catalogue()
    for code in (c for c in all_codes() if c.id in LOOKED_FOR):
        shown = told["codes"][code.id]
        assert (shown["severity"], shown["title"], shown["cure"]) == (code.severity, code.title, code.cure)
        assert shown["lesson"]["name"] == code.lesson_name
        assert (ROOT / shown["lesson"]["page"]).with_suffix(".py").is_file()


def test_unit_tests_of_the_lab() -> None:
    if node() is None or npm_package("protobufjs") is None:
        pytest.skip("needs Node and the packages that make book installs")
    subprocess.run([sys.executable, str(LABS / "vendor.py")], check=True, timeout=60)
    files = sorted(map(str, (LABS / "doctor").glob("*.test.mjs")))
    done = subprocess.run([str(node()), "--test", *files], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
