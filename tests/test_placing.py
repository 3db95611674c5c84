"""What became of a request for providers, as chapter 05 shows it."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import course_utils as cu

CPU = "CPUExecutionProvider"
FEED = {"x": np.array([-1, 2], np.float32)}


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
        g (float[2] x) => (float[2] y) { a = Neg(x)  u = Unique<sorted = 1>(a)  y = Add(a, u) }""")


@pytest.mark.parametrize("by", ["name", "device"])
def test_the_cpu_takes_all_by_name_and_by_device(model: onnx.ModelProto, by: str) -> None:
    found = cu.placed(model, FEED, [CPU], by=by)
    assert found["chosen"] == [CPU]
    assert found["ran"] == [[CPU, "Neg"], [CPU, "Unique"], [CPU, "Add"]]
    assert (found["error"], found["said"], found["difference"]) == (None, [], 0)


def test_options_of_a_provider_are_passed_on(model: onnx.ModelProto) -> None:
    missing = next(name for name in ort.get_all_providers() if name not in ort.get_available_providers())
    found = cu.placed(model, FEED, [(missing, {"tempo": "presto"}), CPU])
    assert found["chosen"] == [CPU]
    assert any(missing in line for line in found["said"])


def test_strict_makes_an_error_of_a_fallback(model: onnx.ModelProto) -> None:
    found = cu.placed(model, FEED, ["AzureExecutionProvider"], strict=True)
    if "AzureExecutionProvider" not in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has no second provider")
    assert "explicitly disabled" in found["error"]
    assert found["ran"] == []
    assert cu.placed(model, FEED, ["AzureExecutionProvider"])["error"] is None


def test_it_has_the_keys_of_a_record(model: onnx.ModelProto) -> None:
    entry = cu.ep_records()["cpu"]["placements"][0]
    assert set(cu.placed(model, FEED, [CPU])) == set(entry) - {"model", "title", "by", "providers", "config"}


def test_a_way_of_asking_that_is_none(model: onnx.ModelProto) -> None:
    with pytest.raises(cu.CourseError, match="given by='colour': it takes 'name' or 'device'"):
        cu.placed(model, FEED, [CPU], by="colour")
