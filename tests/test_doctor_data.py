"""Stored data that does not fit its dtype and shape, and files with weights beside the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from doctor_models import external, found, linear, parsed, weights
from onnx import TensorProto, helper

import course_utils as cu

WRONG = "weights-size-mismatch"
TYPES = {v: k for k, v in TensorProto.DataType.items() if k not in ("UNDEFINED", "STRING")}
FIELDS = {
    "FLOAT": "float_data", "COMPLEX64": "float_data", "DOUBLE": "double_data", "COMPLEX128": "double_data", "INT64": "int64_data",
    "UINT32": "uint64_data", "UINT64": "uint64_data",
}  # fmt: skip


def holding(tensor: TensorProto) -> onnx.ModelProto:
    """A model with this tensor beside its weights."""
    model = linear()
    tensor.name = "t"
    model.graph.initializer.append(tensor)
    return model


def said(model: object) -> list[str]:
    return [f.cause for f in cu.doctor(model).findings if f.code.id == WRONG]


def typed(kind: str, count: int) -> TensorProto:
    """Six numbers by its shape, of which `count` are stored in the field for this dtype."""
    tensor = TensorProto(data_type=TensorProto.DataType.Value(kind), dims=[2, 3])
    each = 2 if kind.startswith("COMPLEX") else 1
    getattr(tensor, FIELDS.get(kind, "int32_data")).extend([1] * (count * each))
    return tensor


@pytest.mark.parametrize("kind", sorted(k for k in TYPES.values() if TensorProto.DataType.Value(k) < TensorProto.UINT4))
def test_numbers_in_the_field_of_their_dtype(kind):
    assert said(holding(typed(kind, 6))) == []
    for count in (5, 7):
        (cause,) = said(holding(typed(kind, count)))
        assert cause.startswith(f"Of 't': {kind.lower()}[2, 3] takes ")
    size = helper.tensor_dtype_to_np_dtype(TensorProto.DataType.Value(kind)).itemsize
    assert cause.endswith(f"[2, 3] takes {6 * size} bytes, and {7 * size} bytes are stored.")


@pytest.mark.parametrize("kind", ["INT4", "UINT4", "FLOAT4E2M1"])
def test_numbers_of_four_bits_are_not_counted(kind):
    """In fields they are packed in several ways; as raw data they are two to a byte."""
    assert said(holding(typed(kind, 1))) == []
    tensor = TensorProto(data_type=TensorProto.DataType.Value(kind), dims=[3, 3])
    for count, codes in ((5, 0), (4, 1), (6, 1)):
        tensor.raw_data = b"\0" * count
        assert len(said(holding(tensor))) == codes


def test_nothing_is_stored():
    assert said(holding(TensorProto(data_type=TensorProto.FLOAT, dims=[0, 3]))) == []
    assert said(holding(TensorProto(data_type=TensorProto.FLOAT, dims=[2]))) == [
        "Of 't': float[2] takes 8 bytes, and 0 bytes are stored."
    ]
    assert said(holding(TensorProto(data_type=TensorProto.STRING, dims=[2]))) == [], "of texts no length is known"
    assert said(holding(TensorProto(data_type=TensorProto.FLOAT, dims=[-2]))) == [
        "Of 't': float[-2] has a negative dimension."
    ]
    two = holding(TensorProto(data_type=TensorProto.FLOAT, dims=[0, -1]))
    two.graph.initializer[0].dims[0] = 5
    (finding,) = [f for f in cu.doctor(two).findings if f.code.id == WRONG]
    assert finding.count == 2
    assert finding.cause.startswith("Of 'w': float[5, 4] takes 80 bytes, and 64 bytes are stored.")


def test_from_a_file_it_is_the_same(folder):
    """Long data is not read, neither raw nor in a field."""
    w = weights(100, 100)
    for raw in (True, False):
        for dims, codes in (([100, 100], 0), ([100, 101], 1)):
            model = linear()
            tensor = helper.make_tensor("t", TensorProto.FLOAT, [100, 100], w.tobytes() if raw else w.ravel(), raw=raw)
            tensor.dims[:] = dims
            model.graph.initializer.append(tensor)
            onnx.save(model, "m.onnx")
            assert len(said("m.onnx")) == codes


# Files beside the model


def beside(size: int = 64, **how: object) -> tuple[onnx.ModelProto, bytes]:
    model = linear(size)
    return model, external(model, **how)


def examined(model: onnx.ModelProto, **files: bytes) -> cu.diagnosis.report.Report:
    onnx.save(model, "m.onnx")
    for name, data in files.items():
        Path(name + ".bin").write_bytes(data)
    return cu.doctor("m.onnx")


def test_a_file_that_is_too_short(folder):
    model, data = beside()
    finding = examined(model, w=data[:-1]).findings[0]
    assert finding.cause == "'w.bin' has 16.4 kB (16,383), and the model's weights in it reach to byte 16,384."
    assert finding.places == "tensor 'w'"
    assert examined(model, w=data).codes == []
    shifted, data = beside(offset=4096)
    assert examined(shifted, w=bytes(4096) + data).codes == []
    finding = examined(shifted, w=bytes(4000) + data).findings[0]
    assert "reach to byte 20,480" in finding.cause


def test_what_else_lies_in_place_of_a_file(folder):
    """A pointer of Git LFS; an archive that is too short. Data that only looks like an archive is data."""
    model, data = beside()
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 16384\n"
    finding = examined(model, w=pointer).findings[0]
    assert finding.code.id == "external-file-foreign"
    assert finding.cause.startswith("'w.bin' has 67 bytes, and looks like ")
    assert "git lfs pull" in finding.cure
    assert examined(model, w=b"PK\x03\x04" + data[:500]).codes == ["external-file-foreign"]
    assert examined(model, w=b"PK\x03\x04" + data[4:]).codes == []
    assert examined(model, w=b"").codes == ["external-file-too-short"]


def two_pieces(first: tuple[int, int], second: tuple[int, int]) -> onnx.ModelProto:
    """Two tensors in one file, at (offset, length)."""
    model = parsed(
        "g (float[N, 64] x) => (float[N, 64] y) { a = MatMul(x, w)  y = MatMul(a, v) }",
        {"w": weights(64, 64), "v": weights(64, 64)},
    )
    for tensor, (offset, length) in zip(model.graph.initializer, (first, second), strict=True):
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": "w.bin", "offset": offset, "length": length}.items():
            tensor.external_data.add(key=key, value=str(value))
    return model


def test_two_tensors_in_one_file(folder):
    data = weights(64, 64).tobytes()
    apart, same = two_pieces((0, 16384), (16384, 16384)), two_pieces((0, 16384), (0, 16384))
    onnx.save(apart, "m.onnx")
    finding = cu.doctor("m.onnx").findings[0]
    assert finding.cause == "'w.bin' is not in the model's folder. It holds 2 tensors, and has at least 32.8 kB."
    finding = examined(apart, w=data).findings[0]
    assert (finding.code.id, finding.places) == ("external-file-too-short", "tensor 'v'")
    assert examined(same, w=data).codes == []
    wrong = two_pieces((0, 16384), (0, 16))
    assert examined(wrong, w=data[:-8]).codes[0] == "external-file-too-short"


@pytest.mark.parametrize(("spare", "codes"), [(2**20, []), (2**20 + 1, ["external-file-stale"])])
def test_a_megabyte_that_nobody_uses(spare, codes, folder):
    model, data = beside()
    assert examined(model, w=data + bytes(spare)).codes == codes
    if codes:
        finding = cu.doctor("m.onnx").findings[0]
        assert finding.cause == "'w.bin' has 1.1 MB, and this model uses 16.4 kB of it."
        assert finding.places == "file 'w.bin'"


def test_half_of_a_file_that_nobody_uses(folder):
    size = 600  # 1.44 MB of weights
    model, data = beside(size)
    assert examined(model, w=data + bytes(len(data) - 8)).codes == []
    assert examined(model, w=data + bytes(len(data) + 8)).codes == ["external-file-stale"]
    twice = two_pieces((0, 16384), (0, 16384))
    assert examined(twice, w=bytes(2**20 + 16384 + 8)).codes == ["external-file-stale"], (
        "a piece that two tensors share is used once"
    )


def test_entries_and_places_are_counted(folder):
    damaged = two_pieces((0, 16384), (16384, 16384))
    for tensor, value in zip(damaged.graph.initializer, ("-4", "many"), strict=True):
        tensor.external_data[1].value = value
    finding = examined(damaged).findings[0]
    assert finding.cause == "2 tensors; of the first: its offset or length is no number."
    outside = two_pieces((0, 16384), (16384, 16384))
    for tensor in outside.graph.initializer:
        tensor.external_data[0].value = "../secret.bin"
    finding = examined(outside).findings[0]
    assert finding.cause == "It names '../secret.bin'. The doctor does not open that, and ONNX Runtime refuses it."
    assert finding.count == 2
    assert (
        "2 tensors in other files. Give the model's path to have them examined."
        in cu.doctor(two_pieces((0, 1), (2, 3))).not_checked
    )


def test_a_length_that_is_not_given_is_that_of_the_tensor(folder):
    for size, codes in ((16384, []), (16383, ["external-file-too-short"])):
        model, data = beside()
        del model.graph.initializer[0].external_data[2]
        assert examined(model, w=data[:size]).codes == codes
    assert found(model) == []


def test_no_numbers_need_no_data(folder):
    """An empty tensor without a length, in an empty file."""
    model = linear()
    tensor = model.graph.initializer.add(
        name="t", data_type=TensorProto.FLOAT, dims=[0, 3], data_location=TensorProto.EXTERNAL
    )
    tensor.external_data.add(key="location", value="w.bin")
    assert examined(model, w=b"").codes == []


@pytest.mark.parametrize("location", ["a/../w.bin", "./w.bin", "../m/w.bin"])
def test_a_way_that_leads_back_into_the_folder(location, folder):
    """ONNX Runtime loads it; a way out is refused, as above."""
    (folder / "m" / "a").mkdir(parents=True)
    model = linear(64)
    (folder / "m" / "w.bin").write_bytes(external(model, location))
    onnx.save(model, "m/m.onnx")
    assert not cu.doctor("m/m.onnx", run=True).errors
    assert cu.doctor("m/m.onnx").codes in ([], ["checker-objects"])


@pytest.mark.parametrize("stored", [31_999, 32_400])
def test_long_weights_of_another_length(folder, stored):
    """They are left in the file, and what is wrong with their length is said once: nothing looks at what stands behind them."""
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[8000])
    tensor.raw_data = np.concatenate([np.ones(8000, np.float32), np.full(100, np.nan, np.float32)]).tobytes()[:stored]
    model = parsed("g (float[N, 8000] x) => (float[N, 8000] y) { y = Add(x, t) }")
    model.graph.initializer.append(tensor)
    onnx.save(model, "m.onnx")
    report = cu.doctor("m.onnx")
    assert WRONG in report.codes
    assert "weights-not-finite" not in report.codes
    assert not [words for words in report.not_checked if "stopped" in words]
