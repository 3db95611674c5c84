"""Each finding of the doctor: a model that has it, and a healthy near-twin that has not."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from doctor_models import (
    by_channel,
    chain,
    convolution,
    external,
    found,
    int8_weights,
    joined_scores,
    linear,
    named_function,
    parsed,
    quantized,
    weights,
)  # fmt: skip
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


@pytest.mark.parametrize("code", PAIRS)
def test_the_sick_model_has_it_and_its_twin_has_not(code):
    sick, twin = PAIRS[code]
    assert code in found(sick())
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
    "provider-missing", "fallback", "made-for-one-processor", "made-for-one-provider", "opset-not-as-requested", "onnx-tools-die",
    "size-not-free", "output-shape-differs",
}  # fmt: skip


def test_every_code_has_a_test():
    assert set(PAIRS) | ELSEWHERE == {c.id for c in all_codes()}
    assert not set(PAIRS) & ELSEWHERE


def test_the_opset_that_was_asked_for():
    assert found(linear(opset=18), requested_opset=13) == ["opset-not-as-requested"]
    assert found(linear(opset=18), requested_opset=18) == []


def test_refusals_of_the_runtime_are_quoted():
    """The same words as when the model is loaded."""
    from course_utils.opsets import why_not_loaded

    for model in (linear(opset=99), linear(ir=99)):
        assert why_not_loaded(model) in cu.doctor(model).findings[0].cause


@pytest.mark.parametrize(
    ("graph", "words"),
    [
        ("y = Reluu(x)", "ai.onnx never had an operator of this name. Is it Relu?"),
        ("y = Gelu(x)", "ai.onnx has it from opset 20 on, and the file has opset 17."),
        ("y = Upsample(x, x)", "ai.onnx withdrew it with opset 10, and the file has opset 17."),
        ("y = BiasGelu(x, x)", "The domain com.microsoft has one."),
    ],
)
def test_unknown_operators_are_explained(graph, words):
    report = cu.doctor(parsed(f"g (float[N] x) => (float[N] y) {{ {graph} }}", opset=17))
    assert report.codes == ["operator-unknown"]
    assert words in report.findings[0].cause


def test_attributes_of_other_opsets_are_explained():
    """As the default exporter left one behind in a conversion to 17; and one that the installed runtime may not know."""
    older = parsed("g (float[N] x) => (float[1] y) { y = ReduceL2<noop_with_empty_axes = 0>(x) }", opset=17)
    report = cu.doctor(older)
    assert report.codes == ["attribute-unknown"]
    assert "ReduceL2 has it from opset 18 on." in report.findings[0].cause
    assert found(parsed("g (float[N] x) => (float[1] y) { y = ReduceL2<noop_with_empty_axes = 0>(x) }", opset=18)) == []


def test_an_opset_that_nobody_knows_cannot_be_converted():
    cure = cu.doctor(linear(opset=99)).findings[0].cure
    assert "Is the number right?" in cure
    assert "opset_version=" in cure


@pytest.mark.parametrize(("layout", "codes"), [(0, []), (1, ["operator-not-implemented"])])
def test_recurrent_layers_with_the_batch_first(layout, codes):
    """The standard has this layout, ONNX Runtime on the CPU has not."""
    stored = {"w": weights(1, 12, 4), "r": weights(1, 12, 3)}
    report = cu.doctor(
        parsed(
            f"g (float[2, 5, 4] x) => (float[?, ?, ?, ?] y) {{ y = GRU<hidden_size = 3, layout = {layout}>(x, w, r) }}",
            stored,
        )
    )
    assert [c for c in report.codes if c != "batch-fixed"] == codes
    assert not codes or "layout=0" in report.findings[0].cure


def test_where_names_the_place():
    report = cu.doctor(parsed("g (float[N] x) => (float[N] y) { hidden = Relu(x)  y = Tanh(hiden) }"))
    (finding,) = [f for f in report.findings if f.code.id == "tensor-undefined"]
    assert str(finding.where[0]) == "node #1 'y'"
    assert "reads 'hiden'. The nearest name that is written: 'hidden'." in finding.cause


def test_inside_a_branch():
    """Names from outside count as known in a branch; a name that nobody writes is found there, too."""

    def branch(name: str) -> onnx.ModelProto:
        return parsed(
            f"""g (bool c, float[N] x) => (float[N] y) {{
            y = If (c) <then_branch = a () => (float[N] t) {{ t = Relu({name}) }},
                        else_branch = b () => (float[N] e) {{ e = Tanh(x) }}>
            }}"""
        )

    assert found(branch("x")) == []
    report = cu.doctor(branch("nobody"))
    assert report.codes == ["tensor-undefined"]
    assert "then_branch" in report.findings[0].where[0].graph


def test_a_default_value_of_an_input_is_no_weight():
    model = parsed("g (float[N] x, float k) => (float[N] y) { y = Mul(x, k) }", {"k": np.array(2, np.float32)})
    assert found(model) == []


@pytest.mark.parametrize(("ir", "codes"), [(3, ["batchnorm-not-folded"]), (4, ["weights-are-inputs"])])
def test_what_a_caller_may_replace_is_constant_up_to_ir_version_3(ir, codes):
    """Until then every initializer had to be listed among the inputs, and none of them could be fed."""
    model = convolution(batchnorm=True)
    model.ir_version, model.opset_import[0].version = ir, 9
    for t in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(t.name, t.data_type, t.dims))
    assert found(model) == codes


@pytest.mark.parametrize("renamed", [1, 3, 12])
def test_a_constant_behind_many_names(renamed):
    """Each Identity gives it another one."""
    renames = "  ".join(f"t{i + 1} = Identity(t{i})" for i in range(renamed))
    stored = {"r": np.array(0.5, np.float32), "t0": np.array(True)}
    model = parsed(f"g (float[N] x) => (float[N] y) {{ {renames}  y = Dropout(x, r, t{renamed}) }}", stored)
    assert "dropout-in-training" in found(model)


def test_infinity_in_a_mask_is_meant_so():
    mask = np.where(np.tri(40) > 0, 0, -np.inf).astype(np.float32)
    assert found(parsed("g (float[N, 40, 40] x) => (float[N, 40, 40] y) { y = Add(x, m) }", {"m": mask})) == []


def test_minus_infinity_in_a_table_is_a_mask_unless_somebody_multiplies_with_it():
    """An attention bias by distance: a row that is looked up, and added before a Softmax. Seen in a published model."""
    table = weights(40, 8)
    table[3] = -np.inf
    looked_up = "g (int64[N] i) => (float[N, 8] y) { r = Gather(t, i)  y = Softmax(r) }"
    assert found(parsed(looked_up, {"t": table})) == []
    tied = "g (int64[N] i, float[N, 40] x) => (float[N, 8] y) { r = Gather(t, i)  m = MatMul(x, t)  y = Add(r, m) }"
    assert found(parsed(tied, {"t": table})) == ["weights-not-finite"]
    assert found(parsed(looked_up, {"t": -table})) == ["weights-not-finite"]
    table[4, 0] = np.nan
    assert found(parsed(looked_up, {"t": table})) == ["weights-not-finite"]


@pytest.mark.parametrize(
    ("bits", "codes"), [(0xFF80, []), (0x7F80, ["weights-not-finite"]), (0x7FC0, ["weights-not-finite"])]
)
def test_minus_infinity_in_bfloat16_is_a_mask_too(bits, codes):
    """The bits of minus infinity, of infinity and of NaN."""
    table = np.full(40 * 8, 0x3F80, np.uint16)  # ones
    table[24:32] = bits
    model = parsed("g (int64[N] i) => (float[N, 8] y) { r = Gather(t, i)  c = Cast<to = 1>(r)  y = Softmax(c) }")
    model.graph.initializer.append(helper.make_tensor("t", TensorProto.BFLOAT16, [40, 8], table.tobytes(), raw=True))
    assert found(model) == codes


@pytest.mark.parametrize("folder", ["/srv/env", "/home/{}".format("runner")])
def test_packages_tell_nothing_of_a_person(folder):
    text, model = f"{folder}/lib/python3.11/site-packages/torch/nn/linear.py", linear()
    notes(model, f'File "{text}", line 3')
    assert found(model) == []
    notes(model, f'File "/home/user{text}", line 3')
    assert found(model) == ["paths-of-a-machine"]


def test_quoted_words_stand_on_one_line():
    report = cu.doctor(filled(2**20, 2**20))
    assert all("\\n" not in f.cause for f in report.findings), report


def test_branches_side_by_side_are_no_loop():
    """A detector's heads share weights, and a sum of many branches is a chain; neither is a loop."""
    heads = "  ".join(f"y{i} = MatMul(x{i}, w)" for i in range(12))
    ins, outs = (", ".join(f"float[N, 4] {c}{i}" for i in range(12)) for c in "xy")
    assert found(parsed(f"g ({ins}) => ({outs}) {{ {heads} }}", {"w": weights(4, 4)})) == []
    layers = "  ".join(f"b{i} = MatMul(x, w{i})" for i in range(12))
    total = "s0 = Max(b0, b1)  " + "  ".join(f"s{i} = Max(s{i - 1}, b{i + 1})" for i in range(1, 11))
    stored = {f"w{i}": weights(4, 4) for i in range(12)}
    assert found(parsed(f"g (float[N, 4] x) => (float[N, 4] s10) {{ {layers}  {total} }}", stored)) == []


def test_a_loop_without_weights_counts_its_steps():
    """Each step picks one row of the input by its index, as a traced loop over the length does."""
    steps, h = [], "z"
    for i in range(9):
        steps.append(f"r{i} = Gather(x, i{i})  a{i} = Mul({h}, k)  h{i} = Add(a{i}, r{i})")
        h = f"h{i}"
    stored = {f"i{i}": np.array(i) for i in range(9)} | {"k": np.array(0.5, np.float32)}
    report = cu.doctor(parsed(f"g (float[9, 4] x, float[4] z) => (float[4] {h}) {{ {'  '.join(steps)} }}", stored))
    assert report.codes == ["loop-unrolled"]
    assert "9 steps of 3 nodes" in report.findings[0].cause


@pytest.mark.parametrize(("steps", "codes"), [(3, []), (4, ["loop-unrolled"])])
def test_four_steps_are_a_loop(steps, codes):
    """Of four nodes each, so that three would be long enough."""
    body = "  ".join(
        f"a{i} = MatMul(h{i}, w)  b{i} = Add(a{i}, h0)  c{i} = Tanh(b{i})  h{i + 1} = Neg(c{i})" for i in range(steps)
    )
    assert found(parsed(f"g (float[N, 4] h0) => (float[N, 4] h{steps}) {{ {body} }}", {"w": weights(4, 4)})) == codes


@pytest.mark.parametrize(("size", "beside"), [(100, 4), (1200, 512)])
def test_weights_that_waste_little(size, beside):
    """Most of a tiny file, and five kilobytes of a megabyte."""
    assert found(spare(size, beside)) == []


def float64_columns(count: int) -> onnx.ModelProto:
    """256 weights in float32, and 16 in float64 for each column."""
    stored = {"w": weights(16, 16), "v": weights(16, count).astype(np.float64)}
    body = "a = MatMul(x, w)  c = Cast<to = 11>(a)  y = MatMul(c, v)"
    return parsed(f"g (float[N, 16] x) => (double[N, {count}] y) {{ {body} }}", stored)


def stored_twice(size: int, beside: int = 1) -> onnx.ModelProto:
    w = weights(size, size)
    body = "a = MatMul(x, w)  b = MatMul(a, v)  c = MatMul(z, u)"
    graph = f"g (float[N, {size}] x, float[N, {beside}] z) => (float[N, {size}] b, float[N, {beside}] c) {{ {body} }}"
    return parsed(graph, {"w": w, "v": w, "u": weights(beside, beside)})


def added_input(size: int) -> onnx.ModelProto:
    return parsed(
        f"g (float[N, {size}] x, float[{size}] c) => (float[N, {size}] y) {{ y = Add(x, c) }}", {"c": weights(size)}
    )


def relu_of(rows: int) -> onnx.ModelProto:
    """2²⁰ × rows numbers, that nobody stores."""
    return parsed(f"g (float[1048576, {rows}] x) => (float[1048576, {rows}] y) {{ y = Relu(x) }}")


# What it begins with → a model just below, one just above, and the code of the latter.
BEGINS = {
    "256 GiB": (lambda: relu_of(2**16), lambda: relu_of(2**16 + 1), "tensor-huge"),
    "a tenth in float64": (lambda: float64_columns(1), lambda: float64_columns(2), "float64"),
    "64 KiB twice": (lambda: stored_twice(128), lambda: stored_twice(130), "weights-stored-twice"),
    "a twentieth twice": (lambda: stored_twice(140, 650), lambda: stored_twice(140, 550), "weights-stored-twice"),
    "16 numbers that may be fed": (lambda: added_input(15), lambda: added_input(16), "weights-are-inputs"),
    "a twentieth at the end": (lambda: saturated(0.04), lambda: saturated(0.07), "weights-saturated"),
    "steps of a quarter": (
        lambda: joined_scores(together=True, scale=0.24), lambda: joined_scores(together=True, scale=0.26), "scores-lost",
    ),
    "64 KiB of notes": (
        changed(linear, lambda m: notes(m, "x" * 60_000)), changed(linear, lambda m: notes(m, "x" * 70_000)), "heavy-notes",
    ),
    "a fifth of notes": (
        changed(lambda: linear(320), lambda m: notes(m, "x" * 90_000)),
        changed(lambda: linear(280), lambda m: notes(m, "x" * 90_000)),
        "heavy-notes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BEGINS)
def test_where_a_finding_begins(what):
    below, above, code = BEGINS[what]
    assert found(below()) == []
    assert found(above()) == [code]


def test_casts_that_lose_something_do_not_cancel():
    assert found(casts(TensorProto.DOUBLE)) == ["pairs-that-cancel"]
    assert found(casts(TensorProto.FLOAT16)) == []
    assert found(casts(TensorProto.INT32)) == []


def test_float16_weights_that_overflowed():
    w = np.full((8, 8), np.inf, np.float16)
    assert found(parsed("g (float16[N, 8] x) => (float16[N, 8] y) { y = MatMul(x, w) }", {"w": w})) == [
        "weights-not-finite"
    ]


def test_pruned_and_binary_weights_are_healthy():
    pruned, binary = int8_weights(), np.where(int8_weights() > 0, 127, -127).astype(np.int8)
    pruned[1:, 1:] = 0
    assert found(quantized(pruned)) == []
    assert found(quantized(binary)) == []


def test_external_data_of_a_model_without_a_file(folder):
    model = linear()
    external(model)
    report = cu.doctor(model)
    assert report.codes == []
    assert "Give the model's path" in report.not_checked[0]
    assert cu.doctor(model, run=True).codes == []


def test_inputs_of_other_kinds_have_types():
    sequence = parsed("g (seq(float[N]) x, int64 i) => (float[N] y) { y = SequenceAt(x, i) }")
    assert found(sequence) == []
    sequence.graph.input[0].type.sequence_type.elem_type.ClearField("tensor_type")
    assert found(sequence) == ["input-type-missing"]
    optional = parsed("g (optional(float[N]) x) => (float[N] y) { y = OptionalGetElement(x) }")
    assert found(optional) == []


def test_tools_that_die(monkeypatch):
    """The checker and shape inference are compiled code: when their process ends, that is a finding, and the next model is fine."""
    from course_utils.diagnosis import patient, tools

    died = tools.Opinion(died="signal SIGSEGV", during="onnx.shape_inference")
    with monkeypatch.context() as patched:
        patched.setattr(patient, "ask", lambda *given: died)
        report = cu.doctor(linear())
    assert report.codes == ["onnx-tools-die"]
    assert report.findings[0].cause.startswith("onnx.shape_inference: signal SIGSEGV.")
    assert report.findings[0].severity == "warning", "ONNX Runtime lives, and loads it"
    bench = tools._Bench.current()
    bench.child.kill()
    bench.child.wait()
    assert found(linear()) == []


@pytest.mark.parametrize("code", ["cycle", "recursive-function", "tensor-undefined"])
def test_tools_are_not_asked_about_a_broken_graph(code):
    """Their words would tell nothing new, and some errors end their process."""
    report = cu.doctor(PAIRS[code][0]())
    assert report.codes == [code]
    assert "onnx.checker and onnx.shape_inference were not asked, because of what was found." in report.not_checked


def test_the_checker_has_no_word_beside_an_error():
    """Most of what it says then follows from that. Once the error is mended, it is heard."""
    model = PAIRS["checker-formality"][0]()
    nan_at(model, np.nan)
    assert found(model) == ["weights-not-finite"]
    nan_at(model, 1)
    assert found(model) == ["checker-formality"]


def test_tools_that_do_not_start_are_no_finding(monkeypatch):
    """As where no process can be started: that says nothing about the model, and is no clean bill either."""
    from course_utils.diagnosis import patient, tools

    monkeypatch.setattr(patient, "ask", lambda *given: tools.Opinion(died="exit status 1", during=tools.STARTING))
    report = cu.doctor(linear())
    assert report.codes == []
    assert report.unfinished == ("The tools of onnx did not start: exit status 1.",)


def test_tools_that_never_come_back():
    """An equation that is not ASCII: onnx 1.23 runs in a circle. Where it is mended, it is an error of another kind, or none."""
    model = parsed(
        'g (float[5, 2, 3] x, float[5, 3, 4] z) => (float[5, 2, 4] y) { y = Einsum<equation = "E">(x, z) }', opset=12
    )
    model.graph.node[0].attribute[0].s = b"bij, bjk\xee-> bik"
    codes = found(model, seconds=3)
    assert codes == ["onnx-tools-die"] or "onnx-tools-die" not in codes
    assert found(linear()) == []


def test_tools_are_asked_one_after_the_other():
    """Several threads share the one process of the tools."""
    from concurrent.futures import ThreadPoolExecutor

    models = [linear(), linear(dtype="double"), convolution(), chain(12)] * 4
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(found, models)) == [[], ["float64"], [], ["loop-unrolled"]] * 4


def test_a_loop_over_pieces_that_were_cut_beforehand():
    """`for t in x.unbind(1)`: one Split, then a Squeeze and a step for each piece."""
    pieces = ", ".join(f"p{i}" for i in range(6))
    cut = "  ".join(f"t{i} = Squeeze(p{i}, one)" for i in range(6))
    steps = "  ".join(
        f"a{i} = MatMul(t{i}, w)  b{i} = Add(a{i}, {f'h{i - 1}' if i else 'z'})  h{i} = Tanh(b{i})" for i in range(6)
    )
    model = parsed(
        f"g (float[N, 6, 4] x, float[N, 4] z) => (float[N, 4] h5) {{ {pieces} = Split<axis = 1, num_outputs = 6>(x)  {cut}  {steps} }}",
        {"w": weights(4, 4), "one": np.array([1])},
    )
    report = cu.doctor(model)
    assert report.codes == ["loop-unrolled"]
    assert report.findings[0].cause.startswith("6 steps of 3 nodes")


@pytest.fixture
def silent_runtime(monkeypatch):
    """A build of ONNX Runtime that does not tell what it knows, as when its process dies of the question."""
    from course_utils.diagnosis import runtime

    def forget() -> None:
        for name in ("_catalogue", "schemas", "domains", "kernels", "implemented", "newest"):
            getattr(runtime, name).cache_clear()

    forget()
    with monkeypatch.context() as patched:
        patched.setattr(runtime.subprocess, "run", lambda *a, **k: SimpleNamespace(stdout=b""))
        yield
    forget()


def test_a_runtime_that_tells_nothing(silent_runtime):
    """Operators of the standard are known from onnx; whether there is an implementation, loading tells."""
    assert found(PAIRS["operator-unknown"][0]()) == ["operator-unknown"]
    assert found(PAIRS["domain-unknown"][0]()) == ["domain-unknown"]
    report = cu.doctor(PAIRS["operator-not-implemented"][0]())
    assert report.codes == ["operator-not-implemented"]
    assert report.findings[0].cause.startswith("ONNX Runtime says:")
    contrib = parsed("g (float[N] x) => (float[N] y) { y = com.microsoft.QuickGelu(x) }", more=', "com.microsoft": 1')
    for model in (linear(), convolution(), quantized(int8_weights()), contrib):
        assert found(model) == []


THERE_AND_BACK = {
    "casts": (["Cast<to = 11>", "Cast<to = 1>"], 30),
    "casts of whole numbers": (["Cast<to = 7>", "Cast<to = 6>"], 8),
    "transposes": (["Transpose<perm = [0, 2, 1]>"] * 2, 10),
    "transposes of all axes": (["Transpose"] * 2, 7),
}


@pytest.mark.parametrize("kind", THERE_AND_BACK)
def test_there_and_back_again_is_no_loop(kind):
    """Pairs, each counted once; the types within the chain are those that were inferred."""
    pair, times = THERE_AND_BACK[kind]
    model = row(pair * times, "int32[N, 2, 3]" if "whole" in kind else "float[N, 2, 3]")
    report = cu.doctor(model)
    assert report.codes == ["pairs-that-cancel"]
    assert report.findings[0].cause.startswith(f"{times} pairs of nodes")
    odd = cu.doctor(row([*pair, pair[0]], "int32[N, 2, 3]" if "whole" in kind else "float[N, 2, 3]"))
    (finding,) = (f for f in odd.findings if f.code.id == "pairs-that-cancel")
    assert finding.cause.startswith("1 pair of nodes")


@pytest.mark.parametrize(
    "step",
    [["Relu"], ["Tanh"], ["Relu", "Cast<to = 10>", "Cast<to = 1>"], ["Softmax"], ["Clip"], ["Neg", "Transpose<perm = [1, 0, 2]>"]],
    ids=lambda step: step[0],
)  # fmt: skip
def test_one_function_again_and_again_is_no_loop(step):
    assert "loop-unrolled" not in found(row(step * 40))


def test_only_the_way_back_undoes_a_transpose():
    """Of three axes that go round, the same step again is no way back."""
    there, back = "Transpose<perm = [1, 2, 0]>", "Transpose<perm = [2, 0, 1]>"
    assert found(row(["Relu", there, back, "Tanh"], "float[?, ?, ?]")) == ["pairs-that-cancel"]
    assert found(row(["Relu", there, there, "Tanh"], "float[?, ?, ?]")) == []


def test_a_single_vector_has_no_batch():
    assert found(parsed("g (float[4] x) => (float[4] y) { y = MatMul(x, w) }", {"w": weights(4, 4)})) == []


@pytest.mark.parametrize("opset", [14, 21])
def test_training_shows_in_an_attribute_from_opset_14_on(opset):
    """Whether the running statistics are asked for, or not."""
    for outputs in ("y", "y, m2, v2"):
        stored = {"s": weights(3), "b": weights(3), "m": weights(3), "v": np.ones(3, np.float32)}
        body = f"{outputs} = BatchNormalization<training_mode = 1>(x, s, b, m, v)"
        graph = f"g (float[N, 3, 4] x) => (float[N, 3, 4] y) {{ {body} }}"
        assert "batchnorm-in-training" in found(parsed(graph, stored, opset=opset))


def test_data_that_is_only_moved_is_no_loop():
    """Of two inputs each: a shape, and the scale of a quantization."""
    stored = {"a": np.array([0, 6]), "b": np.array([0, 2, 3]), "s": np.float32(0.1), "z": np.uint8(0)}
    body = "".join(f"a{i} = Reshape(y{i}, a)  y{i + 1} = Reshape(a{i}, b)  " for i in range(12))
    assert "loop-unrolled" not in found(parsed(f"g (float[N, 2, 3] y0) => (float[N, 2, 3] y12) {{ {body} }}", stored))
    body = "".join(f"a{i} = QuantizeLinear(y{i}, s, z)  y{i + 1} = DequantizeLinear(a{i}, s, z)  " for i in range(12))
    arrays = {k: np.asarray(v) for k, v in stored.items()}
    assert "loop-unrolled" not in found(parsed(f"g (float[N] y0) => (float[N] y12) {{ {body} }}", arrays))
    body = "".join(f"y{i + 1} = Mul(y{i}, s)  " for i in range(12))
    assert "loop-unrolled" in found(parsed(f"g (float[N] y0) => (float[N] y12) {{ {body} }}", arrays))


@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_layers_of_equal_weights_are_no_loop(dynamo, shared, folder):
    """An untrained encoder's layers are copies, and exporters store their weights once. One layer called again is a loop."""
    import copy

    import torch
    from torch import nn

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.dense = nn.LayerNorm(4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.tanh(self.dense(self.norm(x)))

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            first = Layer()
            self.layers = nn.ModuleList([first, *(copy.deepcopy(first) for _ in range(5))])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for i in range(6):
                x = self.layers[0 if shared else i](x)
            return x

    with cu.exporter_messages():
        torch.onnx.export(Encoder().eval(), (torch.randn(2, 4),), "m.onnx", dynamo=dynamo, external_data=False)
    assert ("loop-unrolled" in found("m.onnx")) == shared


def test_chains_of_nodes_that_do_nothing():
    """Of several kinds, and only where they stand in a row; a Dropout in training does something."""
    for steps in (
        ["Identity", "Cast<to = 1>", "Transpose<perm = [0, 1, 2]>"],
        ["Dropout", "Identity", "Dropout", "Identity"],
    ):
        report = cu.doctor(row(["Relu", *steps, "Tanh"]))
        assert report.codes == ["nodes-without-effect"]
        assert report.findings[0].cause.startswith(f"{len(steps)} nodes,")
    assert found(row(["Identity"] * 2)) == []
    assert found(row(["Identity", "Transpose<perm = [0, 2, 1]>", "Identity"], "float[N, 2, 2]")) == []
    assert found(row(["Identity", "Cast<to = 10>", "Cast<to = 1>", "Identity"])) == []
    names_for_weights = "a = Identity(w)  b = Identity(w)  c = Identity(w)  d = Add(x, a)  e = Add(d, b)  y = Add(e, c)"
    assert found(parsed(f"g (float[N, 4] x) => (float[N, 4] y) {{ {names_for_weights} }}", {"w": weights(4)})) == []


@pytest.mark.parametrize("opset", [9, 13, 17, 21])
def test_statistics_of_the_batch_in_every_opset(opset):
    """In older ones, too, where the training mode shows in the number of outputs: eval() would be the wrong cure."""
    report = cu.doctor(own_statistics("[0, 2]", opset=opset))
    assert report.codes == ["batchnorm-without-statistics"]
    assert "track_running_stats" in report.findings[0].cure
    from_shape = "h = Shape(x)  f = Cast<to = 1>(h)  t = ReduceMax<keepdims = 1>(f)  mean = Mul(m, t)  var = Add(v, t)"
    assert "batchnorm-without-statistics" not in found(own_statistics("", from_shape, opset=17))


@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize("tracked", [True, False])
def test_a_layer_without_running_statistics(dynamo, tracked, folder):
    import torch
    from torch import nn

    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3, track_running_stats=tracked)).eval()
    with cu.exporter_messages():  # the older exporter does it for a fixed batch alone
        torch.onnx.export(model, (torch.randn(2, 1, 6, 6),), "m.onnx", dynamo=dynamo, external_data=False)
    codes = set(found("m.onnx")) - {"paths-of-a-machine", "batchnorm-not-folded", "batch-fixed"}
    assert codes == (set() if tracked else {"batchnorm-without-statistics"})


def test_instance_normalization_has_its_own_mean():
    model = parsed(
        "g (float[N, 3, 4] x) => (float[N, 3, 4] y) { y = InstanceNormalization(x, s, b) }",
        {"s": weights(3), "b": weights(3)},
    )
    assert found(model) == []
