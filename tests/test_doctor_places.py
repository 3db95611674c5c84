"""The same fault twice is counted twice: each finding that speaks of nodes or tensors names them all."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from doctor_models import linear
from onnx import compose, helper, numpy_helper
from test_doctor_findings import PAIRS

import course_utils as cu

# These speak of the whole file, of one circle, or of a loop; or their words are those of a tool, which stops at the first.
ONCE = {
    "cycle", "recursive-function", "checker-objects", "checker-formality", "ir-too-new", "opset-too-new", "opset-too-old",
    "loop-unrolled", "shape-conflict", "dtype-not-allowed", "heavy-notes",
}  # fmt: skip


def twice(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph, and beside it the same with other names."""
    both, other = onnx.ModelProto(), compose.add_prefix(model, "other/", rename_functions=False)
    both.CopyFrom(model)
    for field in ("node", "initializer", "sparse_initializer", "input", "output", "value_info"):
        getattr(both.graph, field).extend(getattr(other.graph, field))
    return both


@pytest.mark.parametrize("code", [code for code in PAIRS if code not in ONCE])
def test_two_are_counted(code):
    model = PAIRS[code][0]()
    one, two = (next(f for f in cu.doctor(made).findings if f.code.id == code) for made in (model, twice(model)))
    assert two.count == 2 * one.count
    assert len(set(two.where)) > len(set(one.where))


def test_sparse_weights_are_fed_by_nobody():
    """Also where an older file lists them among its inputs, as it does the others."""
    model = linear()
    values, at = numpy_helper.from_array(np.ones(1, np.float32), "s"), numpy_helper.from_array(np.array([2]), "at")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, at, [4]))
    model.graph.input.append(helper.make_tensor_value_info("s", 1, [4]))
    assert cu.doctor(model).facts["inputs"] == cu.doctor(linear()).facts["inputs"] == "1"
