"""The same fault twice is counted twice: each finding that speaks of nodes or tensors names them all."""

from __future__ import annotations

from collections.abc import Iterable

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


def beside(parts: Iterable[onnx.ModelProto]) -> onnx.ModelProto:
    """The graphs one after the other, in one file, with names of their own."""
    whole = onnx.ModelProto()
    for number, part in enumerate(parts):
        named = compose.add_prefix(part, f"{number}/", rename_functions=False)
        if not number:
            whole.CopyFrom(named)
            continue
        for field in ("node", "initializer", "sparse_initializer", "input", "output", "value_info"):
            getattr(whole.graph, field).extend(getattr(named.graph, field))
    return whole


def plain(model: onnx.ModelProto) -> bool:
    """Whether it can stand in one file with the others."""
    model_of_all = linear()
    same = [(o.domain, o.version) for o in model.opset_import] == [
        (o.domain, o.version) for o in model_of_all.opset_import
    ]
    return same and model.ir_version == model_of_all.ir_version and not model.functions and not model.metadata_props


# These judge a file as a whole: a share of its weights, of its inputs, or a sum of bytes.
OF_ALL = {"batch-fixed", "float64", "subnormal-numbers", "unused-weights", "weights-stored-twice"}
HEALTHY = [twin for _, make in PAIRS.values() if plain(twin := make())]


def test_the_healthy_ones_are_healthy_together():
    assert len(HEALTHY) > 40
    assert cu.doctor(beside(HEALTHY)).codes == []


@pytest.mark.parametrize("code", [code for code in PAIRS if code not in OF_ALL and plain(PAIRS[code][0]())])
def test_a_fault_is_found_behind_all_that_is_healthy(code):
    """No check ends at a node that does not concern it."""
    sick = PAIRS[code][0]()
    alone, crowd = cu.doctor(sick), cu.doctor(beside([*HEALTHY, sick]))
    assert crowd.codes == alone.codes
    assert [f.count for f in crowd.findings] == [f.count for f in alone.findings]


def test_sparse_weights_are_fed_by_nobody():
    """Also where an older file lists them among its inputs, as it does the others."""
    model = linear()
    values, at = numpy_helper.from_array(np.ones(1, np.float32), "s"), numpy_helper.from_array(np.array([2]), "at")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, at, [4]))
    model.graph.input.append(helper.make_tensor_value_info("s", 1, [4]))
    assert cu.doctor(model).facts["inputs"] == cu.doctor(linear()).facts["inputs"] == "1"
