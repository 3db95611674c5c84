"""More models for the lab "doctor": hostile ones, and one for each turn that its checks can take."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from doctor_models import external, linear, nested, parsed, quantized, weights
from onnx import TensorProto, helper, numpy_helper
from test_doctor_files import WHOLE
from test_doctor_findings import added, changed, nan_at, row

from course_utils.diagnosis.file import skeleton


def empty_parts(count: int) -> bytes:
    """Two bytes in the file, a hundred in memory."""
    parts = b"\x0a\x00" * count
    return b"\x08\x0a" + skeleton._head(7, len(parts)) + parts


def outside(location: str) -> Callable[[], onnx.ModelProto]:
    return changed(lambda: linear(64), lambda model: external(model, location))


def compiled(**attributes: object) -> onnx.ModelProto:
    model = parsed("g (float[N] x) => (float[N] y) { y = com.microsoft.EPContext(x) }", more=', "com.microsoft": 1')
    model.graph.node[0].attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
    return model


def called(name: str) -> Callable[[], onnx.ModelProto]:
    """A name that every object of JavaScript knows, for all that can have one."""

    def make() -> onnx.ModelProto:
        model = parsed(
            f'g (float[N] {name}) => (float[N] y) {{ y = "{name}".{name}({name}) }}'.replace('"', ""),
            more=f', "{name}": 1',
        )
        return model

    return make


def noise(model: onnx.ModelProto, share: float) -> None:
    weights = model.graph.initializer[0]
    values = onnx.numpy_helper.to_array(weights).copy()
    values.flat[: int(share * values.size)] = np.float32(1e-40)
    weights.raw_data = values.tobytes()


MORE: dict[str, Callable[[], onnx.ModelProto | bytes]] = {
    "bytes behind": lambda: WHOLE + b"\n",
    "bytes before": lambda: b"\xef\xbb\xbf" + WHOLE,
    "graphs in graphs, 25": lambda: nested(25),
    "graphs in graphs, 60": lambda: nested(60),
    "graphs in graphs, 400": lambda: nested(400),
    "graphs in graphs, 10 000": lambda: nested(10_000),
    "empty parts, 10 000": lambda: empty_parts(10_000),
    "empty parts, two million": lambda: empty_parts(2_000_000),
    "outside, absolute": outside("/etc/hostname"),
    "outside, above": outside("../../secret.bin"),
    "outside, in a turn": outside("a/../../secret.bin"),
    "outside, of Windows": outside("..\\secret.bin"),
    "outside, a drive": outside("C:\\secret.bin"),
    "no location": outside(""),
    "offset of no sense": changed(
        outside("w.bin"), lambda m: setattr(m.graph.initializer[0].external_data[1], "value", "many")
    ),
    "blocked": lambda: parsed(
        "g (float[N, 8, 4, 4] x) => (float[N, 8, 4, 4] y) { y = com.microsoft.nchwc.ReorderOutput<channels = 8>(x) }",
        more=', "com.microsoft.nchwc": 1',
    ),
    "copied to a device": lambda: parsed("g (float[N] x) => (float[N] y) { y = MemcpyFromHost(x) }"),
    "compiled": lambda: compiled(embed_mode=1, ep_cache_context=b"\1" * 100, source="QNNExecutionProvider"),
    "compiled, outside": lambda: compiled(embed_mode=0, ep_cache_context="../../code.bin"),
    "int8 of zeros, scale 0": lambda: quantized(np.zeros((16, 4, 3, 3), np.int8), scale=0.0),
    "names of JavaScript": called("constructor"),
    "more names of JavaScript": called("__proto__"),
    "few subnormal numbers": changed(lambda: linear(16), lambda m: noise(m, 0.2)),
    "many subnormal numbers": changed(lambda: linear(16), lambda m: noise(m, 0.3)),
    "idle in a row": lambda: row(["Identity"] * 12),
    "another dtype": lambda: added(np.float64),
}  # fmt: skip


def stored(dtype: int, values: list[float], *, typed: bool = False) -> Callable[[], onnx.ModelProto]:
    """y = x · w, with weights of a dtype, as raw data or in the field of their type."""

    def make() -> onnx.ModelProto:
        model = parsed("g (float[N, 4] x) => (float[N, 1] y) { c = Cast<to = 1>(w)  y = MatMul(x, c) }")
        array = np.array(values, np.float32).astype(helper.tensor_dtype_to_np_dtype(dtype)).reshape(-1, 1)
        tensor = numpy_helper.from_array(array, "w")
        if typed:
            tensor = helper.make_tensor("w", dtype, [len(values), 1], np.array(values, np.float32).tolist())
        model.graph.initializer.append(tensor)
        return model

    return make


def of_text(
    graph: str, opset: int = 21, ir: int = 10, more: str = "", **values: object
) -> Callable[[], onnx.ModelProto]:
    arrays = {k: v if isinstance(v, np.ndarray) else np.array(v, np.float32) for k, v in values.items()}
    return lambda: parsed(graph, arrays, opset=opset, ir=ir, more=more)


def sparse(read: str) -> Callable[[], onnx.ModelProto]:
    def make() -> onnx.ModelProto:
        model = parsed(f"g (float[N, 4] x) => (float[N, 4] y) {{ y = MatMul(x, {read}) }}")
        values, indices = (
            numpy_helper.from_array(np.ones(2, np.float32), "s"),
            numpy_helper.from_array(np.array([0, 5]), "i"),
        )
        model.graph.sparse_initializer.append(onnx.SparseTensorProto(values=values, indices=indices, dims=[4, 4]))
        return model

    return make


def pruned(zero_weights: bool) -> Callable[[], onnx.ModelProto]:
    """A scale of 0 for one channel, with weights of zeros in it or not."""

    def make() -> onnx.ModelProto:
        w = np.ones((4, 3, 3, 3), np.int8)
        w[1] = 0 if zero_weights else 5
        return quantized(w, scale=np.array([0.1, 0, 0.1, 0.1], np.float32))

    return make


XY = "g (float[N, 4] x) => (float[N, 4] y)"
NORM = {"s": np.ones(4), "b": np.ones(4), "m": np.ones(4), "v": np.ones(4)}
NORM = {k: v.astype(np.float32) for k, v in NORM.items()}
LSTM = {"w": weights(1, 16, 4), "r": weights(1, 16, 4)}
INF, NAN = np.inf, np.nan
BRANCH = "then_branch = t () => (float[N, 4] a) {{ a = {} }}, else_branch = e () => (float[N, 4] b) {{ b = Relu(x) }}"
TURNS: dict[str, Callable[[], onnx.ModelProto]] = {
    "Dropout of opset 6": of_text(f"{XY} {{ y = Dropout(x) }}", opset=6),
    "Dropout of opset 6, a test": of_text(f"{XY} {{ y = Dropout<is_test = 1>(x) }}", opset=6),
    "Dropout of opset 6, ratio 0": of_text(f"{XY} {{ y = Dropout<ratio = 0.0>(x) }}", opset=6),
    "Dropout of opset 10": of_text(f"{XY} {{ y = Dropout(x) }}", opset=10),
    "Dropout of ratio 0": of_text(f"{XY} {{ y = Dropout(x, r, t) }}", r=0.0, t=np.array(True)),
    "BatchNormalization of opset 6": of_text(f"{XY} {{ y = BatchNormalization(x, s, b, m, v) }}", opset=6, **NORM),
    "BatchNormalization of opset 6, a test": of_text(f"{XY} {{ y = BatchNormalization<is_test = 1>(x, s, b, m, v) }}", opset=6, **NORM),
    "BatchNormalization of opset 9": of_text(f"{XY} {{ y, m2, v2 = BatchNormalization(x, s, b, m, v) }}", opset=9, **NORM),
    "a sparse tensor is read": sparse("s"),
    "a sparse tensor of another name": sparse("t"),
    "NaN in float16": stored(TensorProto.FLOAT16, [1, 2, NAN, 3]),
    "infinity in float16, one by one": stored(TensorProto.FLOAT16, [1, 2, INF, 3], typed=True),
    "float16 that is well": stored(TensorProto.FLOAT16, [1, 2, 65504, 3]),
    "NaN in bfloat16": stored(TensorProto.BFLOAT16, [1, 2, NAN, 3]),
    "minus infinity in bfloat16": stored(TensorProto.BFLOAT16, [1, 2, -INF, 3]),
    "NaN in float64": stored(TensorProto.DOUBLE, [1, 2, NAN, 3]),
    "NaN in floats, one by one": stored(TensorProto.FLOAT, [1, 2, NAN, 3], typed=True),
    "minus infinity is multiplied": changed(linear, lambda m: nan_at(m, -INF)),
    "minus infinity in a mask": of_text(f"{XY} {{ y = Add(x, m) }}", m=[0, -INF, 0, 0]),
    "minus infinity as a factor": of_text(f"{XY} {{ y = Mul(x, m) }}", m=[0, -INF, 0, 0]),
    "infinity in a table": of_text("g (int64[N] i) => (float[N, 4] y) { e = Gather(t, i)  y = Relu(e) }", t=[[0, INF, 0, 0]]),
    "minus infinity in a table": of_text("g (int64[N] i) => (float[N, 4] y) { e = Gather(t, i)  y = Relu(e) }", t=[[0, -INF, 0, 0]]),
    "infinity as a bound from a table": of_text("g (int64[N] i, float[N, 4] x) => (float[N, 4] y) { e = Gather(t, i)  y = Min(x, e) }", t=[[0, INF, 0, 0]]),
    "NaN that is asked for": of_text("g (float[N, 4] x) => (bool[N, 4] y) { y = Equal(x, c) }", c=[0, NAN, 0, 0]),
    "NaN that is carried": of_text(f"{XY} {{ t = Transpose(w)  u = Identity(t)  y = MatMul(x, u) }}", w=np.full((4, 4), NAN, np.float32)),
    "NaN in a branch": of_text(f"g (bool c, float[N, 4] x) => (float[N, 4] y) {{ y = If (c) <{BRANCH.format('MatMul(x, w)')}> }}", w=np.full((4, 4), NAN, np.float32)),
    "a name missing in a branch": of_text(f"g (bool c, float[N, 4] x) => (float[N, 4] y) {{ y = If (c) <{BRANCH.format('Relu(z)')}> }}"),
    "a branch reads what comes later": of_text(f"g (bool c, float[N, 4] x) => (float[N, 4] y, float[N, 4] z) {{ y = If (c) <{BRANCH.format('Relu(z)')}> z = Relu(x) }}"),
    "a result is read in a branch alone": of_text(f"g (bool c, float[N, 4] x) => (float[N, 4] y) {{ z = Tanh(x) y = If (c) <{BRANCH.format('Relu(z)')}> }}"),
    "weights in a Constant": of_text(f"{XY} {{ w = Constant<value = float[4] {{1, 2, 3, 4}}>()  y = Mul(x, w) }}"),
    "a scale in a Constant": of_text(f"{XY} {{ s = Constant<value_float = 0.0>() z = Constant<value = int8 {{0}}>() q = QuantizeLinear(x, s, z)  y = DequantizeLinear(q, s, z) }}"),
    "a channel that was pruned": pruned(True),
    "a channel that was lost": pruned(False),
    "weights as inputs in IR 3, with BatchNormalization": changed(
        of_text("g (float[N, 4, 3] x, float[4] s) => (float[N, 4, 1] y) { c = Conv(x, w)  y = BatchNormalization(c, s, b, m, v) }", ir=3, opset=8, w=weights(4, 4, 3), **NORM),
        lambda m: None,
    ),
    "BatchNormalization whose scale may be fed": of_text("g (float[N, 4, 3] x, float[4] s) => (float[N, 4, 1] y) { c = Conv(x, w)  y = BatchNormalization(c, s, b, m, v) }", w=weights(4, 4, 3), **NORM),
    "BatchNormalization of a result that is read twice": of_text("g (float[N, 4, 3] x) => (float[N, 4, 1] y, float[N, 4, 1] c) { c = Conv(x, w)  y = BatchNormalization(c, s, b, m, v) }", w=weights(4, 4, 3), **NORM),
    "a recurrent layer with the batch second": of_text("g (float[T, 1, 4] x) => (float[T, 1, 1, 4] y) { y = LSTM<hidden_size = 4>(x, w, r) }", **LSTM),
    "a recurrent layer with free batch": of_text("g (float[3, N, 4] x) => (float[3, 1, N, 4] y) { y = LSTM<hidden_size = 4>(x, w, r) }", **LSTM),
    "a recurrent layer behind a Transpose": of_text("g (float[1, T, 4] x) => (float[T, 1, 1, 4] y) { t = Transpose<perm = [1, 0, 2]>(x)  y = LSTM<hidden_size = 4>(t, w, r) }", **LSTM),
    "an operator of a newer opset": of_text(f"{XY} {{ y = Gelu(x) }}", opset=17),
    "an operator that was withdrawn": of_text("g (float[N, 4] x) => (float[N, 4] y) { y = Upsample(x, s) }", opset=17, s=[1, 1]),
    "an operator of another domain": of_text(f"{XY} {{ y = FusedGemm(x, x) }}"),
    "a file from before lists of opsets": changed(of_text(f"{XY} {{ y = Relu(x) }}", ir=2), lambda m: m.ClearField("opset_import")),
}  # fmt: skip
MORE |= TURNS
