"""The provider experiment: the records that are kept have its form, and it runs, here and in the second environment."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT

import course_utils as cu
from course_utils.errors import CourseError
from course_utils.lab.sessions import EXPERIMENT

CPU = "CPUExecutionProvider"
RECORDS = sorted((ROOT / "data" / "ep_records").glob("*.json"))


def check_form(record: dict[str, Any]) -> None:
    """What the lesson and the widget rely on."""
    keys = {
        "format",
        "provider",
        "date",
        "machine",
        "versions",
        "available",
        "models",
        "placements",
        "timed",
        "others",
        "latencies",
    }
    assert set(record) == keys
    assert record["format"] == 1
    assert record["provider"] in record["available"]
    assert date.fromisoformat(record["date"]) <= date.today()
    assert set(record["machine"]) == {"processor", "cores"}, "nothing else of the machine belongs into a record"
    assert record["machine"]["cores"] >= 1
    assert set(record["versions"]) == {"python", "package", "onnxruntime", "onnx", "numpy"}
    for entry in record["placements"]:
        check_placement(entry, record)
    for row in record["latencies"]:
        assert row["provider"] in (CPU, record["provider"])
        assert row["create_ms"] > 0
        assert 0 < row["run_ms"] <= row["run_median_ms"]
        assert row["difference"] < 1e-3, "a time of a wrong result is worth nothing"
        assert row["provider"] != CPU or row["ratio"] == 1


def check_placement(entry: dict[str, Any], record: dict[str, Any]) -> None:
    assert set(entry) == {"model", "title", "providers", "config", "said", "error", "registered", "recorded", "ran"}
    if entry["error"]:
        assert not entry["ran"]
        return
    assert entry["registered"]
    nodes = [name for _, names in entry["recorded"] for name in names]
    assert sorted(nodes) == sorted(name for name, _ in record["models"][entry["model"]])
    assert {provider for provider, _ in entry["recorded"]} == {provider for provider, _ in entry["ran"]}
    assert {provider for provider, _ in entry["ran"]} <= set(entry["registered"])


def entry(record: dict[str, Any], model: str, title: str) -> dict[str, Any]:
    return next(e for e in record["placements"] if (e["model"], e["title"]) == (model, title))


def on_cpu(record: dict[str, Any], title: str) -> bool:
    return {provider for provider, _ in entry(record, "plain", title)["ran"]} == {CPU}


def check_fallbacks(record: dict[str, Any], provider: str) -> None:
    """The silent fallbacks happen, and the option makes errors of them."""
    misspelled = entry(record, "plain", f"{provider}, name misspelled")
    assert any("Unknown Provider Type" in line for line in misspelled["said"])
    assert on_cpu(record, f"{provider}, name misspelled")
    assert (
        "explicitly added the CPU EP"
        in entry(record, "plain", f"{provider}, name misspelled, fallback forbidden")["error"]
    )
    lacking = next(e["title"] for e in record["placements"] if e["title"].endswith("which this package lacks"))
    assert len(entry(record, "plain", lacking)["said"]) == 1
    assert on_cpu(record, lacking)
    assert "explicitly disabled" in entry(record, "plain", f"{lacking}, fallback forbidden")["error"]


def check_openvino(record: dict[str, Any]) -> None:
    check_form(record)
    check_fallbacks(record, "OpenVINO")
    both = entry(record, "mixed", "OpenVINO first, then CPU")
    assert [nodes for provider, nodes in both["recorded"] if provider == CPU] == [["Unique_u"]]
    assert [provider for provider, _ in both["ran"]] == ["OpenVINOExecutionProvider", CPU, "OpenVINOExecutionProvider"]
    assert on_cpu(record, "CPU first, then OpenVINO")
    assert not on_cpu(record, "OpenVINO first, then CPU")
    assert "explicitly disabled" in entry(record, "mixed", "OpenVINO alone, fallback forbidden")["error"]
    assert any("tempo" in line for line in entry(record, "mixed", "OpenVINO with an unknown option")["said"])


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_record_has_the_form(path: Path) -> None:
    record = json.loads(path.read_text(encoding="utf-8"))
    check_form(record)
    assert record["latencies"]
    assert record["machine"]["processor"] != "unknown"
    assert not re.search(r"/(home|root|tmp|usr|Users)/|[A-Z]:\\\\|https?:", path.read_text(encoding="utf-8"))


def test_there_are_records_of_the_cpu_and_of_openvino() -> None:
    assert {"cpu", "openvino"} <= {path.stem for path in RECORDS}
    check_fallbacks(cu.ep_record("cpu"), "CPU")
    check_openvino(cu.ep_record("openvino"))


def test_a_record_that_nobody_made_is_none() -> None:
    assert cu.ep_record("abacus") is None


def test_damaged_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "odd.json").write_text("{}")
    monkeypatch.setattr("course_utils.lab.sessions.data_path", lambda name: tmp_path)
    with pytest.raises(CourseError, match=r"odd\.json.* is damaged"):
        cu.ep_record("odd")


def test_experiment_runs_here() -> None:
    record = cu.run_ep_experiment(rounds=1)
    check_form(record)
    check_fallbacks(record, "CPU")
    assert entry(record, "plain", "CPU with an unknown option")["said"] == []
    assert len(record["latencies"]) == 3


def test_experiment_needs_nothing_of_the_course(tmp_path: Path) -> None:
    """It is copied elsewhere and run in an interpreter that cannot import the course."""
    copy = tmp_path / "alone.py"
    copy.write_bytes(EXPERIMENT.read_bytes())
    out = tmp_path / "new" / "cpu.json"
    block = f"import sys, runpy; sys.modules['course_utils'] = None; sys.argv = ['alone.py', '--rounds', '0', '--out', {str(out)!r}]"
    command = [sys.executable, "-c", f"{block}; runpy.run_path({str(copy)!r}, run_name='__main__')"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    check_form(json.loads(out.read_text(encoding="utf-8")))
    assert [path.name for path in out.parent.iterdir()] == ["cpu.json"]


def test_provider_that_the_package_does_not_have() -> None:
    with pytest.raises(CourseError, match=r"has no 'TpuExecutionProvider'; it has .*CPUExecutionProvider"):
        cu.run_ep_experiment("TpuExecutionProvider")


def test_interpreter_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CourseError, match="did not run"):
        cu.run_ep_experiment(python=tmp_path / "python")


def test_experiment_runs_in_the_second_environment() -> None:
    python = cu.second_environment()
    if python is None:
        pytest.skip("there is no .venv-openvino here: `make ep-openvino` builds it")
    check_openvino(cu.run_ep_experiment("OpenVINOExecutionProvider", python=python))
