"""The session's log as a table, and the widget that compares placements."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import onnx
import onnxruntime as ort
import pytest

import course_utils as cu
from course_utils.errors import CourseError
from course_utils.widgets.placement import frame


@pytest.fixture
def small(tmp_path: Path) -> Path:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
        g (float[2] x) => (float[2] y) { y = Relu(x) }""")
    onnx.save(model, tmp_path / "small.onnx")
    return tmp_path / "small.onnx"


def test_log_is_a_table_with_one_part_per_creation(small: Path) -> None:
    log = cu.session_log(small, times=3)
    assert list(log.columns) == ["creation", "ms", "place", "message"]
    assert set(log["creation"]) == {1, 2, 3}
    for _, lines in log.groupby("creation"):
        assert lines["ms"].iloc[0] == 0
        assert lines["ms"].is_monotonic_increasing
        assert lines["message"].str.contains("Session successfully initialized").sum() == 1


def test_log_of_what_is_no_model(tmp_path: Path, small: Path) -> None:
    with pytest.raises(CourseError, match="There is no file"):
        cu.session_log(tmp_path / "nothing.onnx")
    (tmp_path / "odd.onnx").write_bytes(b"odd")
    with pytest.raises(CourseError, match=r"No session could be created from 'odd\.onnx'"):
        cu.session_log(tmp_path / "odd.onnx")
    with pytest.raises(CourseError, match="at least 1"):
        cu.session_log(small, times=0)


def widgets_in(widget: object) -> list:
    return [widget, *(w for child in getattr(widget, "children", ()) for w in widgets_in(child))]


def test_explorer_is_linked_and_small() -> None:
    records = [cu.ep_record("webgpu"), cu.ep_record("cpu")]
    explorer = cu.placement_explorer(records)
    found = widgets_in(explorer)
    shown = [w for w in found if type(w).__name__ == "HTML"]
    assert len(shown) == sum(len(record["placements"]) for record in records)
    choosers = [w for w in found if type(w).__name__ == "Dropdown"]
    assert len(choosers) == 1 + len(records[0]["models"])
    assert sum(len(json.dumps(w.get_state(), default=str)) for w in found) < 300_000


def test_frame_tells_placement_in_words_and_not_by_colour_alone() -> None:
    record = cu.ep_record("webgpu")
    title = "WebGpu by device"
    entry = next(e for e in record["placements"] if (e["model"], e["title"]) == ("mixed", title))
    text = frame(record, entry)
    assert "asked for</b> by device" in text
    assert text.count("WebGpu</small>") == 5
    assert "And 2 copies between" in text
    assert text.count("CPU</small>") == 1
    failing = next(e for e in record["placements"] if e["error"])
    assert "no session" in frame(record, failing)


def test_frame_escapes_what_was_said() -> None:
    record = cu.ep_record("cpu")
    entry = {**record["placements"][0], "said": ["<script>alert(1)</script>"]}
    assert "<script>" not in frame(record, entry)


def test_explorer_without_placements() -> None:
    with pytest.raises(CourseError, match="no placements"):
        cu.placement_explorer([])


def test_strict_session_runs_what_it_was_asked_for(small: Path) -> None:
    session = cu.strict_session(small, "CPUExecutionProvider")
    assert session.get_providers() == ["CPUExecutionProvider"]


@pytest.mark.parametrize(
    ("provider", "options", "words"),
    [
        ("DirectMLExecutionProvider", {}, "There is no execution provider .* Did you mean 'DmlExecutionProvider'"),
        ("TensorRTExecutionProvider", {}, "Did you mean 'TensorrtExecutionProvider'"),
        ("Abacus", {}, "There is no execution provider 'Abacus'. These are available: .*CPUExecutionProvider"),
        ("RknpuExecutionProvider", {}, "exists, but the installed package of ONNX Runtime lacks it"),
        ("CPUExecutionProvider", {"tempo": "presto"}, "knows no options, and it was given tempo"),
    ],
)
def test_strict_session_names_what_is_wrong(small: Path, provider: str, options: dict, words: str) -> None:
    with pytest.raises(CourseError, match=words):
        cu.strict_session(small, provider, options)


def test_strict_session_refuses_a_fallback(small: Path) -> None:
    if "AzureExecutionProvider" not in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has no second provider")
    with pytest.raises(CourseError, match="No session on 'AzureExecutionProvider' alone: nodes would run on the CPU"):
        cu.strict_session(small, "AzureExecutionProvider")


TINY = """
import sys
import numpy as np
import onnx
import onnxruntime as ort
model = onnx.parser.parse_model('''<ir_version: 8, opset_import: ["": 17]>
    g (float[1] x) => (float[1] y) { y = Mul(x, x) }''').SerializeToString()
for value in sys.argv[1]:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.set_denormal_as_zero", value)
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    print(session.run(None, {"x": np.array([1e-20], np.float32)})[0][0] > 0)
"""


@pytest.mark.parametrize(("asked", "kept"), [("1", ["False"]), ("01", ["True", "True"]), ("10", ["False", "False"])])
def test_only_the_first_session_of_a_process_decides_about_subnormals(asked: str, kept: list[str]) -> None:
    """What chapter 05 says of session.set_denormal_as_zero: 1e-20 squared is subnormal."""
    child = subprocess.run([sys.executable, "-c", TINY, asked], capture_output=True, text=True, check=True, timeout=60)
    assert child.stdout.split() == kept


def test_overheard_collects_the_native_log_prints_and_warnings(small: Path) -> None:
    said: list[str] = []
    options = ort.SessionOptions()
    options.log_severity_level = 0
    with cu.overheard(said):
        ort.InferenceSession(small, options, providers=["NoExecutionProvider", "CPUExecutionProvider"])
    assert any("Session successfully initialized" in line for line in said)
    assert any("Unknown Provider Type" in line for line in said)
    assert any("is not in available provider names" in line for line in said)
