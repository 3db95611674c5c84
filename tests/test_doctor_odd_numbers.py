"""The doctor and single numbers in weights: every dtype, every way to store them, and files longer than one piece."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from doctor_models import external, found, parsed
from onnx import TensorProto, helper

import course_utils as cu

ODD = [np.nan, -np.nan, np.nan, np.inf, np.inf, -np.inf, 1.0, 0.0, -0.0, -2.0]
DTYPES = {name: helper.tensor_dtype_to_np_dtype(number) for name, number in (
    ("float", TensorProto.FLOAT), ("double", TensorProto.DOUBLE), ("float16", TensorProto.FLOAT16), ("bfloat16", TensorProto.BFLOAT16)
)}  # fmt: skip


def multiplied(dtype: str, tensor: onnx.TensorProto) -> onnx.ModelProto:
    size = tensor.dims[0]
    model = parsed(f"g ({dtype}[N, {size}] x) => ({dtype}[N, {size}] y) {{ y = Mul(x, w) }}")
    model.graph.initializer.append(tensor)
    return model


def cause(model: object, **options: object) -> str:
    (finding,) = (f for f in cu.doctor(model, **options).findings if f.code.id == "weights-not-finite")
    return finding.cause


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("raw", [True, False])
def test_odd_numbers_in_every_dtype(dtype, raw):
    number, values = TensorProto.DataType.Value(dtype.upper()), np.array(ODD, DTYPES[dtype])
    given = values.tobytes() if raw else values.astype(np.float64).tolist()
    assert (
        cause(multiplied(dtype, helper.make_tensor("w", number, [10], given, raw=raw)))
        == "NaN: 3, infinite: 3, in 1 tensor."
    )
    whole = np.array([1.0, 0.0, -3e4, 2e-4], DTYPES[dtype])
    given = whole.tobytes() if raw else whole.astype(np.float64).tolist()
    assert "weights-not-finite" not in found(multiplied(dtype, helper.make_tensor("w", number, [4], given, raw=raw)))


@pytest.mark.parametrize(
    ("bits", "counts"),
    [(0x7F81, "NaN: 1, infinite: 0"), (0x7FC0, "NaN: 1, infinite: 0"), (0x7F80, "NaN: 0, infinite: 1"), (0xFF80, "NaN: 0, infinite: 1")],
)  # fmt: skip
def test_a_bfloat16_is_nan_or_infinite_by_its_last_bits(bits, counts):
    """Zeros behind an exponent of ones: infinite. Any bit there: NaN."""
    data = np.array([0x3F80, bits], "<u2").tobytes()
    model = multiplied("bfloat16", helper.make_tensor("w", TensorProto.BFLOAT16, [2], data, raw=True))
    assert cause(model) == f"{counts}, in 1 tensor."


def test_fewer_numbers_than_the_shape_tells():
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [4], [np.nan, 1.0, 1.0, 1.0])
    del tensor.float_data[3]
    assert found(multiplied("float", tensor)) == ["weights-size-mismatch"]


# Longer than one piece of 4 MiB


LONG = 2**20 + 3


def long(*odd: tuple[int, float]) -> onnx.TensorProto:
    values = np.arange(1, LONG + 1, dtype=np.float32)
    for at, value in odd:
        values[at] = value
    return onnx.numpy_helper.from_array(values, "w")


@pytest.mark.parametrize("how", ["memory", "file", "another file", "another file, without a length"])
def test_each_piece_is_searched_once(how, folder):
    """The last number of the first piece, the first of the second, and the last of all."""
    model = multiplied("float", long((2**20 - 1, np.nan), (2**20, np.inf), (LONG - 1, -np.inf)))
    if how.startswith("another"):
        (folder / "w.bin").write_bytes(bytes(64) + external(model, offset=64))
        if "without" in how:
            del model.graph.initializer[0].external_data[2]
    onnx.save(model, "m.onnx")
    assert cause(model if how == "memory" else "m.onnx") == "NaN: 1, infinite: 2, in 1 tensor."


@pytest.mark.parametrize(("at", "codes"), [(0, []), (2**20, []), (LONG - 1, []), (None, ["weights-stored-twice"])])
def test_copies_are_compared_to_their_end(at, codes, folder):
    model = multiplied("float", long())
    other = long() if at is None else long((at, 0.5))
    other.name = "v"
    model.graph.initializer.append(other)
    model.graph.node[0].output[0] = "a"
    model.graph.node.append(helper.make_node("Mul", ["a", "v"], ["y"]))
    onnx.save(model, "m.onnx")
    assert found("m.onnx") == codes


def test_a_file_that_is_too_short_is_not_read(folder):
    """What is missing is the finding; what is there is not judged."""
    model = multiplied("float", long((5, np.nan)))
    data = external(model)
    onnx.save(model, "m.onnx")
    (folder / "w.bin").write_bytes(data[:-4])
    assert found("m.onnx") == ["external-file-too-short"]
    (folder / "w.bin").write_bytes(data)
    assert found("m.onnx") == ["weights-not-finite"]
