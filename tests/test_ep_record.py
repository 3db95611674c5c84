"""The provider experiment: records have the form of the schema, and it runs here on every provider that this machine has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from checkout import ROOT

import course_utils as cu
from course_utils.errors import CourseError
from course_utils.lab.providers import PLUGINS
from course_utils.lab.sessions import EXPERIMENT

CPU = "CPUExecutionProvider"
FOLDER = ROOT / "data" / "ep_records"
SCHEMA = json.loads((FOLDER / "schema.json").read_text(encoding="utf-8"))
RECORDS = sorted(path for path in FOLDER.glob("*.json") if path.name != "schema.json")
_HERE: dict[str, dict[str, Any]] = {}


def check_form(record: dict[str, Any]) -> None:
    """The schema, and what no schema can say."""
    jsonschema.validate(record, SCHEMA, format_checker=jsonschema.FormatChecker())
    assert date.fromisoformat(record["date"]) <= date.today()
    assert (record["provider"] in record["available"]) == bool(record["devices"] or not record["plugin"])
    for entry in record["placements"]:
        check_placement(entry, record)
    for row in record["latencies"]:
        assert row["provider"] in (CPU, record["provider"])
        assert row["run_ms"] <= row["run_median_ms"]
        assert row["provider"] != CPU or row["ratio"] == 1
    if record["emulated"]:
        assert not record["latencies"], "the speed of a stand-in says nothing about the device"


def check_placement(entry: dict[str, Any], record: dict[str, Any]) -> None:
    if entry["error"]:
        assert not entry["ran"]
        return
    assert entry["chosen"]
    assert {provider for provider, _ in entry["ran"]} == {provider for provider, _ in entry["recorded"]}
    assert {provider for provider, _ in entry["ran"]} <= set(entry["chosen"])
    assert entry["difference"] is not None


def entry(record: dict[str, Any], model: str, title: str) -> dict[str, Any]:
    return next(e for e in record["placements"] if (e["model"], e["title"]) == (model, title))


def ran_on(record: dict[str, Any], model: str, title: str) -> dict[str, int]:
    """Kernels per provider; the copies between devices are named `copies`."""
    found = Counter("copies" if "Memcpy" in op else p for p, op in entry(record, model, title)["ran"])
    return dict(found)


def on_cpu(record: dict[str, Any], title: str, model: str = "plain") -> bool:
    return set(ran_on(record, model, title)) == {CPU}


def check_fallbacks(record: dict[str, Any], provider: str) -> None:
    """The silent fallbacks happen, and the option makes errors of them."""
    misspelled = entry(record, "plain", f"{provider}, name misspelled")
    assert any("Unknown Provider Type" in line for line in misspelled["said"])
    assert on_cpu(record, f"{provider}, name misspelled")
    strictly = entry(record, "plain", f"{provider}, name misspelled, fallback forbidden")
    assert "explicitly added the CPU EP" in strictly["error"]
    lacking = next(e["title"] for e in record["placements"] if e["title"].endswith("which this package lacks"))
    assert len(entry(record, "plain", lacking)["said"]) == 1
    assert on_cpu(record, lacking)
    assert "explicitly disabled" in entry(record, "plain", f"{lacking}, fallback forbidden")["error"]


def check_plugin(record: dict[str, Any]) -> None:
    """What holds for every plug-in: by its name it is not used; by its devices it is."""
    name = record["provider"].removesuffix("ExecutionProvider")
    asleep = f"{name} by name, library not registered"
    assert any("not in available provider names" in line for line in entry(record, "fixed", asleep)["said"])
    assert on_cpu(record, asleep, "fixed")
    by_name = entry(record, "fixed", f"{name} by name, then CPU")
    assert by_name["chosen"] == [CPU]
    if not record["devices"]:
        assert len(record["placements"]) == 3, "no session by device where there is none"
        assert not record["compiled"]
        return
    assert by_name["said"] == [], "the quietest fallback of all"
    assert ran_on(record, "fixed", f"{name} by device").keys() == {record["provider"]}
    assert on_cpu(record, "the CPU's device first", "fixed")
    assert entry(record, "fixed", f"{name} by device, an unknown option")["error"] is None
    forbidden = entry(record, "mixed", f"{name} by device, fallback forbidden")["error"] or ""
    assert ("explicitly disabled" in forbidden) == (CPU in ran_on(record, "mixed", f"{name} by device"))


def check_webgpu(record: dict[str, Any]) -> None:
    ran = ran_on(record, "mixed", "WebGpu by device")
    assert (ran["copies"], ran[CPU]) == (2, 1), "Unique runs on the CPU, with a copy there and one back"
    int8 = ran_on(record, "int8", "WebGpu by device")
    assert int8["copies"] > int8[CPU] > 5, "QuantizeLinear runs on the CPU"
    assert "signal" in record["compiled"][0]["error"]


def check_qnn(record: dict[str, Any]) -> None:
    assert on_cpu(record, "QNN by device", "plain"), "a free batch: no node"
    assert ran_on(record, "fixed", "QNN by device") == {record["provider"]: 1}, "one kernel, compiled by the library"
    assert record["provider"] in ran_on(record, "int8", "QNN by device")
    for row in record["compiled"]:
        assert row["inside"]["creation"] > 2
        assert row["outside"]["creation"] > 2
        assert len(row["outside"]["files"]) == 2
        assert "is not compatible with any execution provider" in row["on_cpu"]


CHECKS = {"WebGpuExecutionProvider": check_webgpu, "QNNExecutionProvider": check_qnn}


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_record_has_the_form(path: Path) -> None:
    record = json.loads(path.read_text(encoding="utf-8"))
    check_form(record)
    assert record["machine"]["processor"] != "unknown"
    assert not re.search(r"/(home|root|tmp|usr|Users|opt)/|[A-Z]:\\\\|https?:", path.read_text(encoding="utf-8"))


def test_there_are_records_of_the_cpu_and_of_every_plugin() -> None:
    records = cu.ep_records()
    assert {"cpu", "webgpu", "qnn", "openvino"} <= set(records)
    check_fallbacks(records["cpu"], "CPU")
    assert records["cpu"]["timed"]
    for record in records.values():
        if record["plugin"]:
            check_plugin(record)
            if record["devices"]:
                CHECKS.get(record["provider"], check_form)(record)


@pytest.mark.parametrize("key", ["placements", "devices", "emulated"])
def test_schema_refuses_a_record_without(key: str) -> None:
    record = dict(cu.ep_records()["cpu"])
    del record[key]
    with pytest.raises(jsonschema.ValidationError, match=key):
        check_form(record)


def test_schema_refuses_more_about_a_machine() -> None:
    record = dict(cu.ep_records()["cpu"])
    record["machine"] = {**record["machine"], "host": "laptop of Ada"}
    with pytest.raises(jsonschema.ValidationError, match="host"):
        check_form(record)


def test_a_record_that_nobody_made_is_none() -> None:
    assert cu.ep_record("abacus") is None
    assert cu.ep_record("schema") is None


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


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: plugin.name)
def test_experiment_runs_on_a_plugin(plugin: Any) -> None:
    if not plugin.version:
        pytest.skip(f"{plugin.package} is not installed")
    record = cu.run_ep_experiment(plugin.provider)
    check_form(record)
    check_plugin(record)
    if record["devices"]:
        CHECKS.get(record["provider"], check_form)(record)


def test_experiment_needs_nothing_of_the_course(tmp_path: Path) -> None:
    """It is copied elsewhere and run in an interpreter that cannot import the course."""
    copy = tmp_path / "ep_experiment"
    shutil.copytree(EXPERIMENT, copy, ignore=shutil.ignore_patterns("__pycache__"))
    out = tmp_path / "new" / "cpu.json"
    arguments = ["ep_experiment", "--rounds", "0", "--out", str(out)]
    block = f"import sys, runpy; sys.modules['course_utils'] = None; sys.argv = {arguments!r}"
    command = [sys.executable, "-c", f"{block}; runpy.run_path({str(copy)!r}, run_name='__main__')"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    check_form(json.loads(out.read_text(encoding="utf-8")))
    assert [path.name for path in out.parent.iterdir()] == ["cpu.json"]


def test_provider_that_the_package_does_not_have() -> None:
    with pytest.raises(CourseError, match=r"has no 'TpuExecutionProvider'; it has .*CPUExecutionProvider"):
        cu.run_ep_experiment("TpuExecutionProvider")


def test_module_that_is_no_plugin() -> None:
    command = [sys.executable, str(EXPERIMENT), "--plugin", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "'json' is no plug-in that is installed here" in done.stderr


def test_make_providers_names_one_that_is_not_there(tmp_path: Path) -> None:
    script = ROOT / "data" / "record_providers.py"
    done = subprocess.run([sys.executable, script, "abacus"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "there is no provider abacus here: choose among cpu, " in done.stderr
