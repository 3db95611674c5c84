"""Each finding of the doctor: a model that has it, and a healthy near-twin that has not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from doctor_models import (
    by_channel,
    chain,
    convolution,
    found,
    int8_weights,
    joined_scores,
    linear,
    named_function,
    parsed,
    quantized,
    weights,
)
from onnx import TensorProto, helper

import course_utils as cu
from course_utils.diagnosis.vocabulary import all_codes

Maker = Callable[[], onnx.ModelProto]


def changed(make: Maker, change: Callable[[onnx.ModelProto], object]) -> Maker:
    """The model of `make`, with one thing changed."""

    def made() -> onnx.ModelProto:
        model = make()
        change(model)
        return model

    return made


def two_nodes() -> onnx.ModelProto:
    return parsed("g (float[N] x) => (float[N] y) { a = Relu(x)  y = Tanh(a) }")


def swap(model: onnx.ModelProto) -> None:
    first, second = (onnx.NodeProto.FromString(n.SerializeToString()) for n in model.graph.node)
    model.graph.node[0].CopyFrom(second)
    model.graph.node[1].CopyFrom(first)


def names(model: onnx.ModelProto, *given: str) -> None:
    for node, name in zip(model.graph.node, given, strict=True):
        node.name = name


def with_function(calls: str) -> onnx.ModelProto:
    model = named_function("Mine")
    model.functions[0].node[0].op_type = calls
    model.functions[0].node[0].domain = "my.own" if calls == "Mine" else ""
    model.functions[0].opset_import.append(helper.make_opsetid("my.own", 1))
    return model


def nan_at(model: onnx.ModelProto, value: float) -> None:
    data = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy()
    data.flat[3] = value
    model.graph.initializer[0].raw_data = data.tobytes()


def dropout(mode: str, ratio: float = 0.5) -> onnx.ModelProto:
    return parsed(
        "g (float[N] x) => (float[N] y) { y = Dropout(x, r, t) }",
        {"r": np.array(ratio, np.float32), "t": np.array(mode == "training")},
    )


def batchnorm(training: int) -> onnx.ModelProto:
    stored = {"s": weights(3), "b": weights(3), "m": weights(3), "v": np.ones(3, np.float32)}
    out = "y, m2, v2" if training else "y"
    return parsed(
        f"g (float[N, 3, 4] x) => (float[N, 3, 4] y) {{ {out} = BatchNormalization<training_mode = {training}>(x, s, b, m, v) }}",
        stored,
    )


def own_statistics(axes: str, more: str = "", opset: int = 21) -> onnx.ModelProto:
    """BatchNormalization of x, with the mean and the variance of `axes` of it; `more` goes before, and may replace them."""
    stored = {"s": weights(3), "b": weights(3), "m": weights(3), "v": np.ones(3, np.float32), "a": np.array([0, 2])}
    out = "y, m2, v2, m3, v3" if opset < 14 else "y"
    mean = f"ReduceMean<keepdims = 0, axes = {axes}>(x)" if opset < 18 else "ReduceMean<keepdims = 0>(x, a)"
    square = f"ReduceMean<keepdims = 0, axes = {axes}>(q)" if opset < 18 else "ReduceMean<keepdims = 0>(q, a)"
    return parsed(
        f"g (float[N, 3, 4] x) => (float[N, 3, 4] y) {{ {more or f'q = Mul(x, x)  mean = {mean}  var = {square}'}  "
        f"{out} = BatchNormalization(x, s, b, mean, var) }}",
        {
            k: v
            for k, v in stored.items()
            if k in "sb" or f"({k}" in more or f", {k})" in more or (k == "a" and opset >= 18 and not more)
        },
        opset=opset,
    )


# Mean and variance that are computed, but not from the data: from weights, and from a shape.
FROM_WEIGHTS = "mean = Neg(m)  var = Exp(v)"


def copies(alike: bool) -> onnx.ModelProto:
    w = weights(200, 200)
    return parsed(
        "g (float[N, 200] x) => (float[N, 200] y) { a = MatMul(x, w)  y = MatMul(a, v) }",
        {"w": w, "v": w if alike else weights(200, 200)},
    )


def transposes(back: str) -> onnx.ModelProto:
    return parsed(
        f"g (float[N, 2, 3] x) => (float[?, ?, ?] y) {{ a = Transpose<perm = [0, 2, 1]>(x)  b = Transpose<perm = {back}>(a)  y = Relu(b) }}"
    )


def row(steps: list[str], x: str = "float[N, 2, 3]") -> onnx.ModelProto:
    """y = the steps, one after the other, such as `Relu` or `Cast<to = 11>`."""
    body = "  ".join(f"t{i + 1} = {step}(t{i})" for i, step in enumerate(steps))
    return parsed(f"g ({x} t0) => ({x} t{len(steps)}) {{ {body} }}")


def casts(through: int) -> onnx.ModelProto:
    return parsed(f"g (float[N] x) => (float[N] y) {{ a = Cast<to = {through}>(x)  b = Cast<to = 1>(a)  y = Relu(b) }}")


def dynamic_quantized(op: str) -> onnx.ModelProto:
    shape, out, w = ("N, 3, 8, 8", "N, 8, 6, 6", (8, 3, 3, 3)) if op == "ConvInteger" else ("N, 8", "N, 8", (8, 8))
    return parsed(
        f"g (float[{shape}] x) => (int32[{out}] y) {{ q, s, z = DynamicQuantizeLinear(x)  y = {op}(q, w, z) }}",
        {"w": RNG_BYTES.reshape(-1)[: int(np.prod(w))].reshape(w)},
    )


RNG_BYTES = np.random.default_rng(1).integers(0, 255, (1000,), np.uint8)


def one_wide_channel(per_channel: bool) -> onnx.ModelProto:
    w = int8_weights(1.2) if not per_channel else int8_weights()
    w[1:] = np.clip(w[1:], -3, 3) if not per_channel else w[1:]
    return quantized(w, scale=np.full(16, 0.01, np.float32) if per_channel else 0.01)


def saturated(share: float) -> onnx.ModelProto:
    w = int8_weights()
    w.reshape(-1)[: int(share * w.size)] = 127
    return quantized(w)


def notes(model: onnx.ModelProto, text: str) -> None:
    model.graph.node[0].metadata_props.add(key="pkg.torch.onnx.stack_trace", value=text)


def reshape_by(shape: str) -> onnx.ModelProto:
    return parsed(
        f"g (float[N, 4] x, int64[{shape}] s) => (float y) {{ a = Reshape(x, s)  y = ReduceMax<keepdims = 0>(a) }}"
    )


def filled(*size: int) -> onnx.ModelProto:
    return parsed("g (float x) => (float[?, ?] y) { a = ConstantOfShape(s)  y = Add(a, x) }", {"s": np.array(size)})


def listed_as_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 4]))


def spare(size: int, beside: int = 64) -> onnx.ModelProto:
    """So many numbers that nothing reads, and weights of `beside` × `beside` that are read."""
    model = linear(beside)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights(size), "left_over"))
    return model


def old_format(model: onnx.ModelProto) -> None:
    model.ir_version = 3
    model.opset_import[0].version = 9


LINEAR = "g (float[N, 16] x) => (float[N, 16] y) { y = MatMul(x, w) }"


def added(dtype: type) -> onnx.ModelProto:
    return parsed("g (float[N, 4] x) => (float[N, 4] y) { y = Add(x, c) }", {"c": np.ones(4, dtype)})


# code → (a model that has it, a near-twin that has not)
PAIRS: dict[str, tuple[Maker, Maker]] = {
    "cycle": (changed(two_nodes, lambda m: m.graph.node[0].input.__setitem__(0, "y")), two_nodes),
    "not-sorted": (changed(two_nodes, swap), two_nodes),
    "tensor-undefined": (changed(linear, lambda m: m.graph.node[0].input.__setitem__(0, "xx")), linear),
    "tensor-written-twice": (changed(two_nodes, lambda m: m.graph.node[1].output.__setitem__(0, "a")), two_nodes),
    "output-undefined": (changed(linear, lambda m: setattr(m.graph.output[0], "name", "yy")), linear),
    "input-type-missing": (changed(linear, lambda m: m.graph.input[0].ClearField("type")), linear),
    "node-names-repeat": (changed(two_nodes, lambda m: names(m, "n", "n")), changed(two_nodes, lambda m: names(m, "n", "o"))),
    "dead-nodes": (lambda: parsed("g (float[N] x) => (float[N] y) { a = Relu(x)  y = Tanh(x) }"), two_nodes),
    "unused-weights": (lambda: spare(9000), lambda: spare(2)),
    "weights-are-inputs": (changed(linear, listed_as_input), changed(changed(linear, listed_as_input), old_format)),
    "recursive-function": (lambda: with_function("Mine"), lambda: with_function("Relu")),
    "checker-objects": (changed(linear, lambda m: m.graph.node[0].input.append("x")), linear),
    "checker-formality": (changed(linear, lambda m: m.graph.output[0].type.tensor_type.ClearField("shape")), linear),
    "ir-too-new": (lambda: linear(ir=99), linear),
    "opset-too-new": (lambda: linear(opset=99), linear),
    "opset-too-old": (lambda: parsed("g (float[N] x) => (float[N] y) { y = Relu(x) }", opset=6), lambda: linear(opset=7)),
    "opset-missing": (changed(linear, lambda m: setattr(m.graph.node[0], "domain", "ai.onnx.ml")), linear),
    "domain-unknown": (
        lambda: parsed("g (float[N] x) => (float[N] y) { y = my.own.Mine(x) }", more=', "my.own": 1'),
        lambda: named_function("Mine"),
    ),
    "operator-unknown": (changed(linear, lambda m: setattr(m.graph.node[0], "op_type", "Matmul")), linear),
    "attribute-unknown": (lambda: parsed("g (float[N] x) => (float[N] y) { y = Relu<alpha = 1.0>(x) }"), two_nodes),
    "operator-not-implemented": (
        lambda: parsed("g (int16[N] x, int16[N] z) => (int16[N] y) { y = Max(x, z) }"),
        lambda: parsed("g (int32[N] x, int32[N] z) => (int32[N] y) { y = Max(x, z) }"),
    ),
    "function-name-clash": (lambda: named_function("Add"), lambda: named_function("Relu")),
    "dropout-in-training": (lambda: dropout("training"), lambda: dropout("inference")),
    "batchnorm-in-training": (lambda: batchnorm(1), lambda: batchnorm(0)),
    "batchnorm-without-statistics": (lambda: own_statistics("[0, 2]"), lambda: own_statistics("", FROM_WEIGHTS)),
    "loop-unrolled": (lambda: chain(12), lambda: chain(12, shared=False)),
    "batch-fixed": (lambda: linear(batch="1"), linear),
    "shape-unknown": (lambda: reshape_by("K"), lambda: reshape_by("2")),
    "shape-conflict": (
        lambda: parsed("g (float[N, 4] x) => (float[N, 5] y) { y = Relu(x) }"),
        lambda: parsed("g (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }"),
    ),
    "dtype-not-allowed": (
        lambda: parsed("g (double[N] x) => (seq(map(int64, float)) y) { y = ai.onnx.ml.ZipMap<classlabels_int64s = [0]>(x) }", more=', "ai.onnx.ml": 1'),
        lambda: parsed("g (float[N] x) => (seq(map(int64, float)) y) { y = ai.onnx.ml.ZipMap<classlabels_int64s = [0]>(x) }", more=', "ai.onnx.ml": 1'),
    ),
    "dtypes-differ": (lambda: added(np.float64), lambda: added(np.float32)),
    "subnormal-numbers": (lambda: parsed(LINEAR, {"w": weights(16, 16, scale=1e-40)}), lambda: parsed(LINEAR, {"w": weights(16, 16, scale=1e-30)})),
    "scale-length-wrong": (lambda: by_channel(1), lambda: by_channel(0)),
    "scores-lost": (lambda: joined_scores(together=True), lambda: joined_scores(together=False)),
    "tensor-huge": (lambda: filled(2**20, 2**20), lambda: filled(2**10, 2**10)),
    "weights-size-mismatch": (changed(linear, lambda m: m.graph.initializer[0].dims.append(7)), linear),
    "weights-not-finite": (changed(linear, lambda m: nan_at(m, np.nan)), changed(linear, lambda m: nan_at(m, 1e30))),
    "float64": (lambda: linear(dtype="double"), linear),
    "weights-stored-twice": (lambda: copies(True), lambda: copies(False)),
    "batchnorm-not-folded": (lambda: convolution(batchnorm=True), convolution),
    "pairs-that-cancel": (lambda: transposes("[0, 2, 1]"), lambda: transposes("[2, 0, 1]")),
    "nodes-without-effect": (lambda: row(["Identity"] * 3), lambda: row(["Identity", "Relu", "Identity", "Identity"])),
    "scale-impossible": (lambda: quantized(int8_weights(), x_scale=0.0), lambda: quantized(int8_weights())),
    "scale-not-calibrated": (
        lambda: quantized(int8_weights(), y_scale=1.0),
        lambda: quantized(int8_weights(), x_scale=1.0),  # pictures of 0 … 255
    ),
    "weights-collapsed": (lambda: one_wide_channel(False), lambda: one_wide_channel(True)),
    "weights-saturated": (lambda: saturated(0.3), lambda: saturated(0.01)),
    "dynamic-quantized-conv": (lambda: dynamic_quantized("ConvInteger"), lambda: dynamic_quantized("MatMulInteger")),
    "qdq-incomplete": (lambda: quantized(int8_weights(), behind=False), lambda: quantized(int8_weights())),
    "paths-of-a-machine": (
        changed(linear, lambda m: notes(m, 'File "/home/user/project/net.py", line 3')),
        changed(linear, lambda m: notes(m, 'File "/tmp/ipykernel_1/2.py", line 3')),
    ),
    "heavy-notes": (changed(linear, lambda m: notes(m, "x" * 100_000)), changed(linear, lambda m: notes(m, "x" * 100))),
}  # fmt: skip


# What follows from a fault, and is a fault of its own.
FOLLOWS = {"tensor-written-twice": ["output-undefined", "dead-nodes"], "output-undefined": ["dead-nodes"]}


@pytest.mark.parametrize("code", PAIRS)
def test_the_sick_model_has_it_alone_and_its_twin_has_not(code):
    sick, twin = PAIRS[code]
    assert found(sick()) == [code, *FOLLOWS.get(code, [])]
    assert found(twin()) == []


@pytest.mark.parametrize("code", PAIRS)
def test_from_a_file_it_is_the_same(code, folder):
    for model in (make() for make in PAIRS[code]):
        data = model.SerializeToString()
        (folder / "m.onnx").write_bytes(data)
        assert found("m.onnx") == found(model) == found(data)
    assert [p.name for p in folder.iterdir()] == ["m.onnx"]


# Findings that need a file, or a process: their tests are in the other files.
ELSEWHERE = {
    "empty-file", "not-onnx", "truncated", "damaged", "over-2gb", "too-complex", "external-file-missing",
    "external-file-too-short", "external-file-foreign", "extra-bytes", "external-path-outside", "external-entry-damaged", "external-file-stale",
    "runtime-refuses", "runtime-dies", "over-limits", "run-fails", "outputs-nan", "outputs-change", "batch-not-free",
    "provider-missing", "fallback", "made-for-one-processor", "made-for-one-provider", "compiled-code-missing", "opset-not-as-requested", "onnx-tools-die",
    "size-not-free", "output-shape-differs",
}  # fmt: skip


# What is no error is a warning or a note.
NOTES = {
    "batch-fixed", "batchnorm-not-folded", "checker-formality", "dead-nodes", "external-file-stale", "heavy-notes", "loop-unrolled",
    "made-for-one-processor", "made-for-one-provider", "nodes-without-effect", "pairs-that-cancel", "paths-of-a-machine", "qdq-incomplete",
    "shape-unknown", "weights-stored-twice",
}  # fmt: skip
WARNINGS = {
    "batch-not-free", "batchnorm-in-training", "batchnorm-without-statistics", "dropout-in-training", "dynamic-quantized-conv", "fallback",
    "float64", "opset-not-as-requested", "opset-too-old", "output-shape-differs", "outputs-change", "outputs-nan", "over-limits",
    "scale-not-calibrated", "scores-lost", "shape-conflict", "size-not-free", "subnormal-numbers", "unused-weights", "weights-are-inputs",
    "weights-collapsed", "weights-saturated",
}  # fmt: skip


def test_how_severe_each_finding_is():
    """The exit status of the command depends on it."""
    severe = cu.doctor_codes().set_index("code")["severity"]
    assert set(severe[severe == "note"].index) == NOTES
    assert set(severe[severe == "warning"].index) == WARNINGS
    assert set(severe[~severe.index.isin(NOTES | WARNINGS)]) == {"error"}


def test_every_code_has_a_test():
    assert set(PAIRS) | ELSEWHERE == {c.id for c in all_codes()}
    assert not set(PAIRS) & ELSEWHERE
