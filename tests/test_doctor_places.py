"""The same fault twice is counted twice: each finding that speaks of nodes or tensors names them all."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
import pytest
from doctor_models import convolution, external, linear, parsed, weights
from onnx import compose, helper, numpy_helper
from test_doctor_findings import PAIRS

import course_utils as cu

# These speak of the whole file, of one circle, or of a loop; or their words are those of a tool, which stops at the first.
ONCE = {
    "cycle", "recursive-function", "checker-objects", "checker-formality", "ir-too-new", "opset-too-new", "opset-too-old",
    "loop-unrolled", "shape-conflict", "dtype-not-allowed", "heavy-notes",
}  # fmt: skip


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


@pytest.mark.parametrize("code", [code for code in PAIRS if code not in ONCE])
def test_two_are_counted(code):
    model = PAIRS[code][0]()
    one, two = (
        next(f for f in cu.doctor(made).findings if f.code.id == code) for made in (model, beside([model, model]))
    )
    assert two.count == 2 * one.count
    assert len(set(two.where)) > len(set(one.where))


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


def chain_of(*steps: str) -> onnx.ModelProto:
    """y0 → y1 → …: {0} is what a step reads, {1} what it writes."""
    body = "  ".join(step.format(f"y{i}", f"y{i + 1}") for i, step in enumerate(steps))
    stored = {
        "s": np.array(0.1, np.float32),
        "t": np.array(0.2, np.float32),
        "a": np.array([0, 6]),
        "b": np.array([0, 2, 3]),
    }
    used = {name: value for name, value in stored.items() if f" {name})" in body}
    return parsed(f"g (float[N, 2, 3] y0) => (float[N, 2, 3] y{len(steps)}) {{ {body} }}", used)


MOVED = ["{1} = Reshape({0}, a)", "{1} = Reshape({0}, b)"] * 12
LOOP = ["{1} = Mul({0}, s)", "{1} = Tanh({0})"] * 12
FEW, MANY = ["{1} = Mul({0}, s)"] * 5, ["{1} = Mul({0}, t)"] * 12


@pytest.mark.parametrize(
    ("before", "loop", "words"),
    [(MOVED, LOOP, "12 steps of 2 nodes each"), ([*FEW, "{1} = Tanh({0})"], MANY, "12 steps of 1 node each")],
)
def test_a_loop_behind_what_is_none(before, loop, words):
    (finding,) = cu.doctor(chain_of(*before, *loop)).findings
    assert finding.code.id == "loop-unrolled"
    assert finding.cause.startswith(words)
    assert "loop-unrolled" not in cu.doctor(chain_of(*before)).codes


def test_a_pair_to_fold_behind_one_in_training():
    training, folded = convolution(batchnorm=True), convolution(batchnorm=True)
    training.graph.node[1].attribute.append(helper.make_attribute("training_mode", 1))
    report = cu.doctor(beside([training, folded]))
    assert [f.count for f in report.findings if f.code.id == "batchnorm-not-folded"] == [1]


def test_compiled_code_behind_another_node():
    code = helper.make_node(
        "EPContext", ["x"], ["y"], "c", domain="com.microsoft", main_context=1, ep_cache_context=b"1"
    )
    relu = parsed("g (float[N] x) => (float[N] y) { y = Relu(x) }", more=', "com.microsoft": 1')
    compiled = parsed("g (float[N] x) => (float[N] y) { y = Relu(x) }", more=', "com.microsoft": 1')
    compiled.graph.node[0].CopyFrom(code)
    assert "made-for-one-provider" in cu.doctor(beside([relu, compiled])).codes


def test_the_second_scale_of_a_node_whose_first_one_is_computed():
    w = np.ones((4, 1, 3, 3), np.int8)
    stored = {"w": w, "ws": np.float32(0), "ys": np.float32(0.1), "z": np.uint8(0), "wz": np.int8(0)}
    body = "y = QLinearConv(x, xs, z, w, ws, wz, ys, z)"
    model = parsed(
        f"g (uint8[N, 1, 8, 8] x, float xs) => (uint8[N, 4, 6, 6] y) {{ {body} }}",
        {k: np.asarray(v) for k, v in stored.items()},
    )
    assert "scale-impossible" in cu.doctor(model).codes


def test_an_opset_that_is_too_new_behind_one_of_somebody_else():
    model = parsed("g (float[N] x) => (float[N] y) { y = Relu(x) }", more=', "a.own": 1, "com.microsoft": 99')
    assert "opset-too-new" in cu.doctor(model).codes


def weighted(**stored: np.ndarray) -> onnx.ModelProto:
    """x times each of these in turn, [4, 4] or larger, added up."""
    size = len(next(iter(stored.values())))
    products = "  ".join(f"p_{name} = MatMul(x, {name})" for name in stored)
    names = ", ".join(f"p_{name}" for name in stored)
    return parsed(f"g (float[N, {size}] x) => (float[N, {size}] y) {{ {products}  y = Sum({names}) }}", stored)


def test_a_size_that_is_wrong_behind_a_size_below_nothing():
    model = weighted(a=weights(4, 4), b=weights(4, 4))
    model.graph.initializer[0].dims[0], model.graph.initializer[1].dims[0] = -4, 5
    report = cu.doctor(model)
    assert [f.count for f in report.findings if f.code.id == "weights-size-mismatch"] == [2]


def test_weights_elsewhere_and_here(folder):
    """Those of a file that is missing, and behind them NaN and copies."""
    same = weights(600, 600)
    same[0, 0] = np.nan
    model = weighted(a=same * 2, b=same, c=same)
    external(model, "gone.bin")
    onnx.save(model, "m.onnx")
    codes = cu.doctor("m.onnx").codes
    assert {"external-file-missing", "weights-not-finite", "weights-stored-twice"} <= set(codes)
    model.graph.initializer.append(model.graph.initializer[0])
    del model.graph.initializer[0]
    onnx.save(model, "m.onnx")
    assert "external-file-missing" in cu.doctor("m.onnx").codes


def test_sparse_weights_are_fed_by_nobody():
    """Also where an older file lists them among its inputs, as it does the others."""
    model = linear()
    values, at = numpy_helper.from_array(np.ones(1, np.float32), "s"), numpy_helper.from_array(np.array([2]), "at")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, at, [4]))
    model.graph.input.append(helper.make_tensor_value_info("s", 1, [4]))
    assert cu.doctor(model).facts["inputs"] == cu.doctor(linear()).facts["inputs"] == "1"
