"""The provider experiment: records have the form of the schema, and it runs here on every provider that this machine has."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnxruntime as ort
import pytest
from checkout import ROOT

import course_utils as cu
from course_utils.ep_experiment.models import PLACED
from course_utils.ep_experiment.placement import largest_difference, overheard, without_folders
from course_utils.errors import CourseError
from course_utils.lab.providers import PLUGINS
from course_utils.lab.sessions import EXPERIMENT

CPU = "CPUExecutionProvider"
FOLDER = ROOT / "data" / "ep_records"
SCHEMA = json.loads((FOLDER / "schema.json").read_text(encoding="utf-8"))
RECORDS = sorted(path for path in FOLDER.glob("*.json") if path.name != "schema.json")
_HERE: dict[str, dict[str, Any]] = {}


PATH = re.compile(r"(?<![\w.])(~|\.\.?)?/\w|(?<![A-Za-z])[A-Za-z]:[\\/]|\\\\\w|\w+://")


def texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value, the keys among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in (*value, *value.values()) if isinstance(value, dict) else value:
            yield from texts(one)


def check_form(record: dict[str, Any]) -> None:
    """The schema, and what no schema can say."""
    json.dumps(record, allow_nan=False)  # a schema takes NaN for a number of any size
    jsonschema.validate(record, SCHEMA, format_checker=jsonschema.FormatChecker())
    assert [text for text in texts(record) if PATH.search(text)] == [], "a path tells something about a machine"
    for day in filter(None, (record["date"], record["timed"])):
        assert date.fromisoformat(day) <= date.today()
    assert record["models"] == {
        name: [[n.name, n.op_type] for n in make().graph.node] for name, (make, _) in PLACED.items()
    }
    assert {entry["model"] for entry in (*record["placements"], *record["compiled"])} <= set(record["models"])
    assert bool(record["timed"]) == bool(record["latencies"])
    assert (record["provider"] in record["available"]) == bool(record["devices"] or not record["plugin"])
    for entry in record["placements"]:
        check_placement(entry, record)
    for row in record["latencies"]:
        assert row["provider"] in (CPU, record["provider"])
        assert row["run_ms"] <= row["run_median_ms"]
        (on_cpu,) = [other for other in record["latencies"] if other["provider"] == CPU and race(other) == race(row)]
        assert row["ratio"] == pytest.approx(on_cpu["run_ms"] / row["run_ms"], rel=0.01)
    if record["emulated"]:
        assert not record["latencies"], "the speed of a stand-in says nothing about the device"


def race(row: dict[str, Any]) -> tuple[str, int, int]:
    return row["model"], row["batch"], row["threads"]


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


LIES = {
    "a difference that is no number": ("placements", 0, "difference", math.nan),
    "a time of a wrong result": ("latencies", 0, "difference", math.nan),
    "a ratio that its times do not give": ("latencies", 0, "ratio", 40.0),
    "more about a time": ("latencies", 0, "host", "laptop of Ada"),
    "a folder of Linux": ("placements", 0, "said", ["cannot open /mnt/ada/x.so"]),
    "a folder of Windows": ("placements", 0, "said", ["cannot open C:" + r"\Users\Ada\x.dll"]),
    "a shared folder": ("placements", 0, "said", ["cannot open \\\\ada\\x.dll"]),
    "a model that nobody built": ("placements", 0, "model", "abacus"),
    "a node that is not there": ("models", "plain", 0, ["Det_1", "Det"]),
    "times without a day": ("timed", None),
    "times of tomorrow": ("timed", "2999-01-01"),
    "another format": ("format", 1),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_record_that_lies_is_refused(lie: str) -> None:
    record: Any = json.loads((FOLDER / "cpu.json").read_text(encoding="utf-8"))
    check_form(record)
    *way, key, value = LIES[lie]
    place = record
    for step in way:
        place = place[step]
    place[key] = value
    with pytest.raises((AssertionError, ValueError, jsonschema.ValidationError)):
        check_form(record)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("cannot open /mnt/ada/x.so: bad", "cannot open x.so: bad"),
        ("cannot open 'C:" + r"\Users\Ada B\x.dll'", "cannot open 'x.dll'"),
        ("D:/a b/x.dll", "x.dll"),
        ("EP Error: 3/4 of a node", "EP Error: 3/4 of a node"),
    ],
)
def test_folders_are_left_out(said: str, kept: str) -> None:
    assert without_folders(said) == kept


def test_differences_that_are_no_numbers() -> None:
    one, odd = np.ones(2, np.float32), np.array([1, np.nan], np.float32)
    assert largest_difference(odd, odd) == 0
    assert largest_difference(odd, one) is None
    assert largest_difference(np.zeros((0, 4)), np.zeros((0, 4))) == 0
    assert largest_difference(np.array(["a"], object), np.array(["a"], object)) is None
    assert largest_difference(one, 3 * one) == 2


def test_two_threads_get_their_standard_streams_back() -> None:
    before, heard = sys.stdout, [[] for _ in range(8)]
    first = os.fstat(2).st_ino

    def listen(said: list[str]) -> None:
        with overheard(said):
            print(id(said))
            time.sleep(0.02)

    threads = [threading.Thread(target=listen, args=(said,)) for said in heard]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sys.stdout is before
    assert os.fstat(2).st_ino == first
    assert heard == [[str(id(said))] for said in heard]


def test_a_record_that_nobody_made_is_none() -> None:
    assert cu.ep_record("abacus") is None
    assert cu.ep_record("schema") is None


def test_damaged_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("course_utils.lab.sessions.data_path", lambda name: tmp_path)
    for text in ("{}", "[]", "", '{"format": 1}', '{"format": NaN}', "[" * 100_000):
        (tmp_path / "odd.json").write_text(text)
        with pytest.raises(CourseError, match=r"odd\.json.* is damaged"):
            cu.ep_record("odd")
    (tmp_path / "odd.json").unlink()
    (tmp_path / "odd.json").mkdir()
    with pytest.raises(CourseError, match=r"odd\.json.* is damaged \(Is a directory\)"):
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


@pytest.mark.parametrize(
    ("given", "words"),
    [((5,), "the provider 5"), (("a\0b",), "the provider 'a.x00b'"), (("--help",), "has no '--help'"), ((CPU, -1), "rounds=-1"),
     ((CPU, 1.5), "rounds=1.5")],
)  # fmt: skip
def test_arguments_of_the_experiment(given: tuple[Any, ...], words: str) -> None:
    with pytest.raises(CourseError, match=words):
        cu.run_ep_experiment(given[0], rounds=given[1] if len(given) > 1 else 0)


def experiment(*given: object, block: str = "") -> subprocess.CompletedProcess[str]:
    """Run as a reader does, where `block` cannot be imported."""
    hidden = f"import sys, runpy; sys.modules[{block!r}] = None; sys.argv = {['x', *map(str, given)]!r}"
    command = [sys.executable, "-c", f"{hidden}; runpy.run_path({str(EXPERIMENT)!r}, run_name='__main__')"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_a_command_line_that_cannot_be_meant(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("")
    for given, words in {
        ("--out", tmp_path): "is a folder: give the name of the file",
        ("--out", tmp_path / "text" / "cpu.json"): "cannot be written (",
        ("--rounds", -1): "-1 is not a number from 0 on",
        ("--seconds", "nan"): "nan is not a number from 0 on",
        ("--threads", 0): "0 is not a number from 1 on",
        ("--plugin", ""): "'' is no plug-in that is installed here",
        ("--plugin", "json", "--option", "novalue"): "'novalue' is not KEY=VALUE",
        ("--compile", "int8"): "--compile needs --plugin",
    }.items():
        done = experiment(*given)
        assert done.returncode == 2
        assert words in done.stderr
        assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_an_interpreter_without_onnx() -> None:
    done = experiment(block="onnx")
    assert done.returncode == 1
    assert done.stderr.startswith("This interpreter has no 'onnx'; the experiment needs numpy, onnx and ")


def test_a_provider_that_does_not_take_every_node_is_recorded_without_times(tmp_path: Path) -> None:
    if "AzureExecutionProvider" not in ort.get_available_providers():
        pytest.skip("this package of ONNX Runtime has no AzureExecutionProvider")
    out = tmp_path / "azure.json"
    (tmp_path / "azure.partial").write_text("mine")
    done = experiment("--provider", "AzureExecutionProvider", "--rounds", 1, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "Not timed: 28×28" in done.stderr
    record = json.loads(out.read_text(encoding="utf-8"))
    check_form(record)
    assert record["timed"] is None
    assert (tmp_path / "azure.partial").read_text() == "mine"


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
    (tmp_path / "text").write_text("")
    command = [sys.executable, script, "cpu", "--out", tmp_path / "text"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "cannot be made (File exists): give another one" in done.stderr
