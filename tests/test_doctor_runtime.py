"""What ONNX Runtime itself knows, beside the standard: its own operators, other providers' operators, compiled nodes."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from doctor_models import convolution, found, linear, parsed, weights
from onnx import TensorProto, helper, numpy_helper

import course_utils as cu
from course_utils.diagnosis.child import runtime

MICROSOFT = ', "com.microsoft": 1'


def refusal(model: onnx.ModelProto) -> str:
    """Why ONNX Runtime does not load a model; empty where it does."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exception classes derive from Exception alone
        return str(error)
    return ""


# Models of onnxruntime-genai's builder


class Decoder:
    """A decoder of int4 weights as the builder of onnxruntime-genai writes it: operators of ONNX Runtime for everything."""

    HIDDEN, HEADS, KV, SIZE, INTER, VOCAB, BLOCK = 64, 4, 2, 16, 96, 128, 32

    def __init__(self, dtype: type = np.float32, layers: int = 2, opset: int = 14) -> None:
        self.rng, self.dtype, self.opset = np.random.default_rng(0), dtype, opset
        self.nodes: list[onnx.NodeProto] = []
        self.stored: list[TensorProto] = []
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        value = helper.make_tensor_value_info
        inputs = [
            value("input_ids", TensorProto.INT64, ["batch_size", "sequence_length"]),
            value("attention_mask", TensorProto.INT64, ["batch_size", "total_sequence_length"]),
        ]
        outputs = [value("logits", kind, ["batch_size", "sequence_length", self.VOCAB])]
        table, one, first = (
            self.keep(self.floats(self.VOCAB, self.HIDDEN)), self.keep(np.array([1])), self.keep(np.array(1)),
        )  # fmt: skip
        self.add("Gather", [table, "input_ids"], ["embedded"])
        self.add("ReduceSum", ["attention_mask", one], ["sums"])
        self.add("Sub", ["sums", one], ["less"])
        self.add("Cast", ["less"], ["lengths"], to=TensorProto.INT32)
        self.add("Shape", ["attention_mask"], ["shape"])
        self.add("Gather", ["shape", first], ["whole"], axis=0)
        self.add("Cast", ["whole"], ["total"], to=TensorProto.INT32)
        cos, sin = (self.keep(self.floats(4096, self.SIZE // 2)) for _ in range(2))
        x = skip = "embedded"
        for i in range(layers):
            past = [f"past_key_values.{i}.{n}" for n in ("key", "value")]
            present = [f"present.{i}.{n}" for n in ("key", "value")]
            inputs += [value(n, kind, ["batch_size", self.KV, "past_sequence_length", self.SIZE]) for n in past]
            outputs += [value(n, kind, ["batch_size", self.KV, "total_sequence_length", self.SIZE]) for n in present]
            normed, skip = self.norm(x, skip, first=not i)
            qkv = self.matmul(normed, self.HIDDEN, (self.HEADS + 2 * self.KV) * self.SIZE)
            self.own(
                "GroupQueryAttention", [qkv, "", "", *past, "lengths", "total", cos, sin], [f"attention{i}", *present],
                num_heads=self.HEADS, kv_num_heads=self.KV, do_rotary=1, rotary_interleaved=0,
            )  # fmt: skip
            out = self.matmul(f"attention{i}", self.HEADS * self.SIZE, self.HIDDEN)
            normed, skip = self.norm(out, skip)
            gate, up = (self.matmul(normed, self.HIDDEN, self.INTER) for _ in range(2))
            self.add("Sigmoid", [gate], [f"sigmoid{i}"])
            self.add("Mul", [gate, f"sigmoid{i}"], [f"silu{i}"])
            self.add("Mul", [f"silu{i}", up], [f"product{i}"])
            x = self.matmul(f"product{i}", self.INTER, self.HIDDEN)
        final, _ = self.norm(x, skip)
        self.matmul(final, self.HIDDEN, self.VOCAB, "logits")
        self.graph = helper.make_graph(self.nodes, "main_graph", inputs, outputs, self.stored)

    def model(self) -> onnx.ModelProto:
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(self.graph, opset_imports=opsets, ir_version=7, producer_name="onnxruntime-genai")

    def floats(self, *shape: int) -> np.ndarray:
        return self.rng.random(shape).astype(self.dtype)

    def keep(self, array: np.ndarray) -> str:
        self.stored.append(numpy_helper.from_array(array, f"stored{len(self.stored)}"))
        return self.stored[-1].name

    def add(self, op: str, inputs: list[str], outputs: list[str], **more: object) -> None:
        self.nodes.append(helper.make_node(op, inputs, outputs, name=f"/model/{op}_{len(self.nodes)}", **more))

    def own(self, op: str, inputs: list[str], outputs: list[str], **more: object) -> None:
        self.add(op, inputs, outputs, domain="com.microsoft", **more)

    def norm(self, x: str, skip: str, *, first: bool = False) -> tuple[str, str]:
        scale, at = self.keep(self.floats(self.HIDDEN)), len(self.nodes)
        if first:  # the builder writes this one into the standard domain, where no standard has it
            self.add("SimplifiedLayerNormalization", [x, scale], [f"n{at}"], axis=-1, epsilon=1e-5, stash_type=1)
            return f"n{at}", x
        self.own("SkipSimplifiedLayerNormalization", [skip, x, scale], [f"n{at}", "", "", f"s{at}"], epsilon=1e-5)
        return f"n{at}", f"s{at}"

    def matmul(self, x: str, k: int, n: int, out: str = "") -> str:
        blocks = k // self.BLOCK
        stored = [
            self.keep(self.rng.integers(0, 255, (n, blocks, self.BLOCK // 2), dtype=np.uint8)),
            self.keep((0.01 * self.rng.random(n * blocks)).astype(self.dtype)),
            self.keep(np.full(n * -(-blocks // 2), 0x88, np.uint8)),
        ]
        out = out or f"m{len(self.nodes)}"
        self.own("MatMulNBits", [x, *stored], [out], K=k, N=n, bits=4, block_size=self.BLOCK, accuracy_level=4)
        return out


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("opset", [14, 21])
def test_a_decoder_of_onnxruntime_genai_is_healthy(dtype, opset):
    model = Decoder(dtype, opset=opset).model()
    assert refusal(model) == ""
    assert found(model) == []
    assert not cu.doctor(model, run=True).errors
    model.graph.node[7].op_type = "SimplifiedLayerNormalisation"  # its twin
    assert found(model)[0] == "operator-unknown"


OWN = {
    "a norm of its own": ("SimplifiedLayerNormalization(x, s)", 17),
    "a norm of later opsets": ("LayerNormalization(x, s)", 13),
    "a copy of a provider": ("MemcpyFromHost(x)", 17),
}


@pytest.mark.parametrize("kind", OWN)
def test_the_checker_is_not_asked_about_operators_of_the_runtime(kind):
    """And what else it objects to in such a model is still found."""
    body, opset = OWN[kind]
    model = parsed(
        f"g (float[N, 4] x) => (float[N, 4] y) {{ a = {body}  y = Relu(a) }}", {"s": weights(4)}, opset=opset
    )
    assert "checker-objects" not in found(model)
    if "Memcpy" not in body:
        assert refusal(model) == ""
        assert found(model) == []
    model.graph.node[1].input.append("x")
    assert "checker-objects" in found(model)


def test_formal_points_are_notes():
    for change in (lambda m: setattr(m.graph, "name", ""), lambda m: [m.metadata_props.add(key="a") for _ in range(2)]):
        model = linear()
        change(model)
        assert refusal(model) == ""
        assert found(model) == ["checker-formality"]


@pytest.mark.parametrize("run", [False, True])
def test_loading_disproves_what_was_said_of_it(run):
    """Two initializers of one name: the checker objects, and ONNX Runtime loads the model. Not so with a real refusal."""
    model = linear()
    model.graph.initializer.append(model.graph.initializer[0])
    assert refusal(model) == ""
    report = cu.doctor(model, run=run)
    assert report.codes == ["checker-formality"]
    assert "initializer name is not unique" in report.findings[0].cause
    refused = linear()
    refused.graph.node[0].input.append("x")
    assert found(refused, run=run) == ["checker-objects"]


@pytest.mark.parametrize("run", [False, True])
def test_loading_disproves_the_runtimes_own_list(run, monkeypatch):
    """Whatever the doctor took from lists: a model that was loaded has no operator that cannot be loaded."""
    from course_utils.diagnosis.findings import versions

    monkeypatch.setattr(versions, "_reason", lambda *given: ("nobody knows it.", 0))
    report = cu.doctor(linear(), run=run)
    assert report.codes == []
    assert "ONNX Runtime loads the model, so this was no finding: MatMul: nobody knows it." in report.not_checked
    with_nan = linear()
    with_nan.graph.initializer[0].raw_data = np.full((4, 4), np.nan, np.float32).tobytes()
    assert "weights-not-finite" in cu.doctor(with_nan, run=run).codes


# Operators that other providers have

ABSENT = {
    "Rfft": ("y = com.microsoft.Rfft<signal_ndim = 1, normalized = 0, onesided = 1>(x)", "float[?, ?, ?]"),
    "BiasSplitGelu": ("y = com.microsoft.BiasSplitGelu(x, b)", "float[?, ?, ?]"),
    "GroupNorm": ("y = com.microsoft.GroupNorm<groups = 1, epsilon = 0.1, activation = 0>(x, b, b)", "float[?, ?, ?]"),
    "BiasSoftmax": ("y = com.microsoft.BiasSoftmax<axis = 1, is_inner_broadcast = 0>(x, x)", "float[?, ?, ?]"),
}


@pytest.mark.parametrize("kind", ABSENT)
def test_operators_without_a_kernel_for_the_cpu(kind):
    body, out = ABSENT[kind]
    model = parsed(f"g (float[2, 4, 8] x) => ({out} y) {{ {body} }}", {"b": weights(8)}, more=MICROSOFT, opset=17)
    assert "Could not find an implementation" in refusal(model)
    report = cu.doctor(model)
    assert "operator-not-implemented" in report.codes
    assert f"{kind} of " in report.errors[0].cause
    assert "has no implementation for the CPU" in report.errors[0].cause
    assert "other execution providers, such as CUDA" in report.errors[0].cure


def test_an_operator_of_another_provider_in_float16():
    """The runtime tries float32 in its place, and says something else when that does not help."""
    model = parsed(
        """g (float[2, 4, 8] x, float16[2, 2, 4, 8] h) => (float16[2, 2, 4, 8] y, float16[2, 2, 4, 8] z) {
        y, z = com.microsoft.GemmaRotaryEmbedding(x, h, h, h, h) }""",
        more=MICROSOFT,
    )
    assert refusal(model)
    assert "operator-not-implemented" in found(model)


def test_a_kernel_for_other_dtypes_alone():
    """QuickGelu has one for float32 and is no function: asked about double, the runtime says so itself."""
    body = "g ({0}[N] x) => ({0}[N] y) {{ y = com.microsoft.QuickGelu(x) }}"
    for dtype in ("float", "double", "float16"):
        model = parsed(body.format(dtype), more=MICROSOFT)
        assert ("operator-not-implemented" in found(model)) == ("Could not find" in refusal(model)), dtype


def test_operators_of_the_runtime_that_it_has_are_healthy():
    """All that have a kernel: none is doubted, and nothing is asked."""
    for body in (
        "com.microsoft.QuickGelu(x)",
        "com.microsoft.FusedMatMul(x, w)",
        "com.microsoft.Gelu(x)",
        "com.microsoft.BiasGelu(x, b)",
    ):
        model = parsed(
            f"g (float[N, 4] x) => (float[N, 4] y) {{ y = {body} }}",
            {"w": weights(4, 4), "b": weights(4)},
            more=MICROSOFT,
        )
        assert refusal(model) == ""
        assert found(model) in ([], ["unused-weights"])


def test_doubts_are_put_to_the_runtime(monkeypatch):
    """An operator that its list does not hold an implementation of, and that it loads all the same, is no finding."""
    monkeypatch.setattr(runtime, "kernels", lambda: {("", "Relu"): []})
    runtime.implemented.cache_clear()
    try:
        for op in ("QuickGelu", "Gelu"):
            assert (
                found(parsed(f"g (float[N] x) => (float[N] y) {{ y = com.microsoft.{op}(x) }}", more=MICROSOFT)) == []
            )
    finally:
        runtime.implemented.cache_clear()


def test_a_runtime_that_gives_no_answer(monkeypatch):
    from course_utils.diagnosis.child import onnx_tools as tools
    from course_utils.diagnosis.findings import versions

    monkeypatch.setattr(versions, "ask_runtime", lambda *given: tools.Verdict(None, "signal SIGSEGV", "signal SIGSEGV"))
    body = ABSENT["Rfft"][0]
    report = cu.doctor(parsed(f"g (float[2, 4, 8] x) => (float[?, ?, ?] y) {{ {body} }}", more=MICROSOFT))
    assert report.codes == ["operator-not-implemented"], "then the words of loading the whole model say so"
    assert report.findings[0].cause.startswith("ONNX Runtime says:")
    assert found(parsed("g (float[N] x) => (float[N] y) { y = Relu<alpha = 1.0>(x) }")) == ["attribute-unknown"]


# Files that are bound to a provider or a processor


def compiled(**more: object) -> onnx.ModelProto:
    node = helper.make_node("EPContext", ["x"], ["y"], name="context", domain="com.microsoft", main_context=1, **more)
    value = helper.make_tensor_value_info
    graph = helper.make_graph([node], "g", [value("x", 1, [1, 4])], [value("y", 1, [1, 4])])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


COMPILED = {
    "QNN": {"embed_mode": 1, "ep_cache_context": b"\x01" * 9000, "source": "QNNExecutionProvider", "max_size": 0, "spill_fill": 1},
    "OpenVINO": {"embed_mode": 0, "ep_cache_context": "m.blob", "source": "OpenVINOExecutionProvider"},
    "Tensorrt": {"embed_mode": 0, "ep_cache_context": "m.engine", "source": "TensorrtExecutionProvider", "sm_version": "90"},
    "a provider that it does not name": {"embed_mode": 0, "ep_cache_context": "m.bin"},
}  # fmt: skip


@pytest.mark.parametrize("kind", COMPILED)
def test_compiled_nodes_are_noted(kind):
    """Such a node takes any attribute; an operator of the standard does not."""
    report = cu.doctor(compiled(**COMPILED[kind]))
    assert report.codes == ["made-for-one-provider"]
    why = "It was not run: it is bound to one provider, and nobody can look into compiled code."
    assert cu.doctor(compiled(**COMPILED[kind]), run=True).not_checked[-1:] == (why,)
    assert report.findings[0].cause.startswith("1 node of it is compiled code, bound to ")
    assert kind in report.findings[0].cause
    odd = parsed("g (float[N] x) => (float[N] y) { y = com.microsoft.QuickGelu<spill_fill = 1>(x) }", more=MICROSOFT)
    assert "Unrecognized attribute" in refusal(odd)
    assert found(odd) == ["attribute-unknown"]


def test_compiled_nodes_of_two_providers():
    model, other = compiled(**COMPILED["QNN"]), compiled(**COMPILED["OpenVINO"])
    model.graph.node[0].output[0] = other.graph.node[0].input[0] = "h"
    model.graph.node.extend([*other.graph.node, *compiled(**COMPILED["QNN"]).graph.node])
    model.graph.node[1].output[0] = model.graph.node[2].input[0] = "k"
    for node in model.graph.node:
        node.name = node.output[0]
    report = cu.doctor(model)
    assert report.codes == ["made-for-one-provider"] * 2
    assert [f.cause for f in report.findings] == [
        "2 nodes of it are compiled code, bound to QNNExecutionProvider, 9.0 kB inside the file.",
        "1 node of it is compiled code, bound to OpenVINOExecutionProvider, in the file 'm.blob' beside it.",
    ]


def optimised(model: onnx.ModelProto, level: str, folder: object) -> onnx.ModelProto:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimised.onnx")


def test_files_for_one_processor_are_noted(folder):
    """Only what was optimised for the layout of this machine; the runtime's own list says whether it can be loaded here."""
    model = convolution(batchnorm=True, size=32)
    for level in ("ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED"):
        assert found(optimised(model, level, folder)) == []
    bound = optimised(model, "ORT_ENABLE_ALL", folder)
    blocked = [n for n in bound.graph.node if n.domain == "com.microsoft.nchwc"]
    report = cu.doctor(bound, run=True)
    assert report.codes == (["made-for-one-processor"] if blocked else [])
    if blocked:
        assert f"{len(blocked)} nodes (" in report.findings[0].cause


def test_copies_between_devices_belong_to_a_provider():
    model = parsed("g (float[N, 4] x) => (float[N, 4] y) { a = MemcpyFromHost(x)  b = Relu(a)  y = MemcpyToHost(b) }")
    assert refusal(model) == ""
    report = cu.doctor(model)
    assert report.codes == ["made-for-one-provider"]
    assert "2 nodes (1 × MemcpyFromHost, 1 × MemcpyToHost)" in report.findings[0].cause


def test_another_layout_belongs_to_another_provider():
    model = parsed(
        "g (float[1, 8, 8, 4] x) => (float[?, ?, ?, ?] y) { y = com.ms.internal.nhwc.GlobalMaxPool(x) }",
        more=', "com.ms.internal.nhwc": 17',
        opset=17,
    )
    report = cu.doctor(model)
    assert "made-for-one-provider" in report.codes
    assert ("operator-not-implemented" in report.codes) == bool(refusal(model))
