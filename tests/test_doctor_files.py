"""The doctor and the file: whatever stands in place of a model, weights in other files, and hostile contents."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from doctor_models import external, found, linear, nested, parsed, weights
from onnx import TensorProto, helper

import course_utils as cu
from course_utils.diagnosis.file import skeleton
from course_utils.file_formats import recognise
from course_utils.running import session_for

WHOLE = linear(64).SerializeToString()
HTML = b"<!DOCTYPE html>\n<html><head><title>404</title></head></html>"


def archive(**entries: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in entries.items():
            file.writestr(name.replace("__", "/"), data)
    return stream.getvalue()


def checkpoint(**how: bool) -> bytes:
    import torch

    stream = io.BytesIO()
    torch.save(torch.nn.Linear(2, 2).state_dict(), stream, **how)
    return stream.getvalue()


def safetensors() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4)


def npz() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, a=np.arange(3))
    return stream.getvalue()


# what it is → (its bytes, the finding, words that must be there)
NO_MODELS = {
    "empty": (b"", "empty-file", "0 bytes"),
    "text": (b"This is no model.\n" * 50, "not-onnx", "a text file"),
    "one word": (b"hello", "not-onnx", "a text file"),
    "utf-16 text": ("some words\n" * 9).encode("utf-16"),
    "web page": (HTML, "not-onnx", "a web page, so the download went wrong"),
    "web page after a comment": (b"<!-- c -->\n" + HTML, "not-onnx", "a web page"),
    "error in json": (b'{"error": "not found"}', "not-onnx", "a JSON file"),
    "git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "not-onnx", "git lfs pull"),
    "torch checkpoint": (checkpoint(), "not-onnx", "from PyTorch"),
    "old torch checkpoint": (checkpoint(_use_new_zipfile_serialization=False), "not-onnx", "a pickle"),
    "pickle": (pickle.dumps({"a": 1}), "not-onnx", "a pickle"),
    "zip with a model": (archive(**{"model.onnx": WHOLE}), "not-onnx", "the .onnx file in it"),
    "zip bomb": (archive(**{"bomb.onnx": bytes(50_000_000)}), "not-onnx", "a zip archive"),
    "keras": (archive(**{"config.json": b"{}", "model.weights.h5": b""}), "not-onnx", "Keras"),
    "npz": (npz(), "not-onnx", "a NumPy archive"),
    "gzip": (gzip.compress(WHOLE), "not-onnx", "a gzip archive"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "not-onnx", "an HDF5 file"),
    "ort format": (b"\x1c\x00\x00\x00ORTM" + bytes(100), "not-onnx", "(.ort)"),
    "tflite": (b"\x1c\x00\x00\x00TFL3" + bytes(100), "not-onnx", "TensorFlow Lite"),
    "safetensors": (safetensors(), "not-onnx", "safetensors"),
    "gguf": (b"GGUF\x03\x00\x00\x00" + bytes(100), "not-onnx", "GGUF"),
    "openvino": (b'<?xml version="1.0"?>\n<net name="m" version="11"></net>', "not-onnx", "OpenVINO"),
    "onnx text": (onnx.printer.to_text(linear()).encode(), "not-onnx", "onnx.parser.parse_model"),
    "zeros": (bytes(500), "not-onnx", "all zeros"),
    "noise": (np.random.default_rng(3).bytes(5000), "damaged", "not in the format"),
    "cut in the middle": (WHOLE[: len(WHOLE) // 2], "truncated", "says that it ends at byte"),
    "last byte gone": (WHOLE[:-1], None, ""),
    "header alone": (WHOLE[:2], "truncated", "no graph"),
}  # fmt: skip
NO_MODELS["utf-16 text"] = (NO_MODELS["utf-16 text"], "not-onnx", "a text file")


@pytest.mark.parametrize("kind", NO_MODELS)
def test_file_that_is_no_model(kind, folder):
    data, code, words = NO_MODELS[kind]
    (folder / "mine.onnx").write_bytes(data)
    report = cu.doctor("mine.onnx")
    assert len(report.findings) == 1
    assert code in (None, report.codes[0])
    assert report.findings[0].severity == "error"
    assert words in f"{report.findings[0].cause} {report.findings[0].cure}"
    assert "mine.onnx" in repr(report)
    assert "\n" not in report.findings[0].cause
    assert [p.name for p in folder.iterdir()] == ["mine.onnx"]
    assert (folder / "mine.onnx").read_bytes() == data
    assert cu.doctor(data).codes == report.codes


def test_every_cut_is_found():
    """Wherever a file was cut, it is no healthy model."""
    data = linear().SerializeToString()
    assert found(data) == []
    assert all(cu.doctor(data[:end]).errors for end in range(len(data)))


def test_every_damaged_byte_is_survived():
    """A changed byte gives a report, whatever it says."""
    data, rng = bytearray(linear().SerializeToString()), np.random.default_rng(0)
    for at in range(len(data)):
        hurt = bytes(data[:at]) + rng.bytes(1) + bytes(data[at + 1 :])
        report = cu.doctor(hurt)
        assert repr(report)
        assert json.loads(report.to_json())


def test_nothing_to_examine_is_a_course_error(folder):
    (folder / "models").mkdir()
    (folder / "models" / "a.onnx").write_bytes(WHOLE)
    for given, words in {
        "nowhere.onnx": "There is no file 'nowhere.onnx'",
        "models": "is a folder: give the path of an .onnx file. In it there are: a.onnx.",
        "a\0b": "There is no file|cannot be read",
        "x" * 5000: "cannot be read",
        None: "This is a NoneType.",
        7: "This is a int.",
    }.items():
        with pytest.raises(cu.CourseError, match=words.replace("(", r"\(")) as caught:
            cu.doctor(given)
        assert "\n" not in str(caught.value)
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    "options",
    [{"budget_mb": -1}, {"seconds": "long"}, {"requested_opset": 0}, {"provider": "XnnpackExecutionProvider"}],
    ids=lambda o: next(iter(o)),
)
def test_options_that_make_no_sense(options):
    with pytest.raises(cu.CourseError, match=f"doctor\\(\\) was given (a )?{next(iter(options))}"):
        cu.doctor(linear(), **options)


# Weights in other files


def saved(model: onnx.ModelProto, data: bytes | None = None, location: str = "w.bin") -> str:
    onnx.save(model, "m.onnx")
    if data is not None:
        Path(location).write_bytes(data)
    return "m.onnx"


def test_external_data_in_order(folder):
    model = linear(64)
    data = external(model)
    assert found(saved(model, data)) == []


def test_external_file_missing(folder):
    model = linear(64)
    external(model)
    report = cu.doctor(saved(model))
    assert report.codes == ["external-file-missing"]
    assert "'w.bin' is not in the model's folder. It holds 1 tensor" in report.findings[0].cause


def test_each_external_file_is_looked_at(folder):
    model = parsed(
        "g (float[N, 4] x) => (float[N, 4] y) { h = Add(x, v)  y = Add(h, w) }", {"v": weights(4), "w": weights(4)}
    )
    external(model, "v.bin")
    first = model.graph.initializer.pop(0)
    data = external(model, "w.bin")
    model.graph.initializer.append(first)
    causes = [f.cause.split(" is not")[0] for f in cu.doctor(saved(model)).findings]
    assert causes == ["'w.bin'", "'v.bin'"]
    (finding,) = cu.doctor(saved(model, data)).findings
    assert finding.cause.startswith("'v.bin' is not")


def test_external_file_too_short(folder):
    model = linear(64)
    assert found(saved(model, external(model)[:-1])) == ["external-file-too-short"]


def test_three_gigabytes_that_are_not_there(folder):
    model = parsed("g (float[N, 1] x) => (float[N, K] y) { y = MatMul(x, w) }")
    tensor = model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[1, 800_000_000])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    report = cu.doctor(saved(model))
    assert report.codes == ["external-file-missing"]
    assert "at least 3.2 GB" in report.findings[0].cause


@pytest.mark.parametrize(
    "location", ["../secret.bin", "/etc/hostname", "a/../../secret.bin", "..\\secret.bin", "C:\\secret.bin"]
)
def test_no_file_outside_is_opened(location, tmp_path, monkeypatch):
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.chdir(inside)
    model = linear(64)
    (tmp_path / "secret.bin").write_bytes(external(model, location))
    onnx.save(model, "m.onnx")
    opened = []
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *a, **k: (opened.append(self.name), real(self, *a, **k))[1])
    report = cu.doctor("m.onnx", run=True)
    assert report.codes == ["external-path-outside"]
    assert "The model was not run, because of external-path-outside." in report.not_checked
    assert opened == ["m.onnx"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links(tmp_path, monkeypatch):
    """A link out of the folder is not followed. In a hub's cache model and weights are links into one folder: that is fine."""
    for name in ("blobs", "cache", "trap"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "blobs")
    model = linear(64)
    saved(model, external(model))
    for name in ("m.onnx", "w.bin"):
        (tmp_path / "cache" / name).symlink_to(tmp_path / "blobs" / name)
    (tmp_path / "trap" / "m.onnx").write_bytes(Path("m.onnx").read_bytes())
    (tmp_path / "trap" / "w.bin").symlink_to(tmp_path / "blobs" / "w.bin")
    assert found(tmp_path / "cache" / "m.onnx") == []
    assert found(tmp_path / "trap" / "m.onnx") == ["external-path-outside"]


@pytest.mark.parametrize(("key", "value"), [("offset", "-4"), ("offset", "many"), ("length", "-1"), ("location", "")])
def test_entries_that_make_no_sense(key, value, folder):
    model = linear(64)
    data = external(model)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == key:
            entry.value = value
    assert found(saved(model, data)) == ["external-entry-damaged"]


def test_length_that_does_not_fit(folder):
    model = linear(64)
    assert found(saved(model, external(model, length=16))) == ["weights-size-mismatch"]


def test_file_that_grew_with_each_save(folder):
    model = linear(64)
    assert found(saved(model, external(model) + bytes(3 * 2**20))) == ["external-file-stale"]


def test_nan_and_copies_in_other_files(folder):
    """Weights are read from where they lie: the model's own file, or another one."""
    w = weights(200, 200)
    w[3, 3] = np.nan
    body = "g (float[N, 200] x) => (float[N, 200] y) { a = MatMul(x, w)  y = MatMul(a, v) }"
    model = parsed(body, {"w": w, "v": w})
    wanted = ["weights-not-finite", "weights-stored-twice"]
    assert found(model) == wanted
    onnx.save(model, "inside.onnx")
    assert found("inside.onnx") == wanted
    onnx.save(model, "outside.onnx", save_as_external_data=True, location="outside.bin", size_threshold=0)
    assert found("outside.onnx") == wanted
    shared = onnx.load("outside.onnx", load_external_data=False)
    for name in ("external_data",):
        shared.graph.initializer[1].ClearField(name)
        shared.graph.initializer[1].external_data.extend(shared.graph.initializer[0].external_data)
    onnx.save(shared, "shared.onnx")
    assert found("shared.onnx") == ["weights-not-finite"], "one piece of a file with two names is stored once"


def test_what_was_not_read_is_named(folder):
    w = weights(600, 600)
    onnx.save(parsed("g (float[N, 600] x) => (float[N, 600] y) { y = MatMul(x, w) }", {"w": w}), "m.onnx")
    report = cu.doctor("m.onnx", budget_mb=1)
    assert report.codes == []
    assert "1.4 MB of weights were not searched for NaN" in report.not_checked[0]


# Large and hostile files


def test_skeleton_is_the_model_without_long_data():
    w = weights(300, 300)
    model = parsed(
        "g (float[N, 300] x) => (float[N, 300] y) { a = MatMul(x, w)  y = Add(a, b) }", {"w": w, "b": weights(300)}
    )
    data = model.SerializeToString()
    result = skeleton.read_skeleton(memoryview(data))
    assert len(result.data) < 3000
    (token,) = result.pieces
    piece = result.pieces[token]
    assert data[piece.offset : piece.offset + piece.length] == w.tobytes()
    bare = onnx.ModelProto.FromString(result.data)
    assert bare.graph.initializer[0].raw_data == token
    bare.graph.initializer[0].raw_data = w.tobytes()
    assert bare == model


def test_lists_in_attributes_are_one_part_each():
    """Trees of ai.onnx.ml keep a million numbers and texts so. Going through them one by one took minutes, or was too much."""
    size = 250_000
    lists = {"nodes_nodeids": [7] * size, "nodes_values": [0.5] * size, "nodes_modes": ["LEAF"] * size}
    names = ("nodes_nodeids", "nodes_treeids", "nodes_featureids", "nodes_truenodeids", "nodes_falsenodeids")
    lists |= dict.fromkeys(names, lists["nodes_nodeids"])
    trees = onnx.helper.make_node("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", n_targets=1, **lists)
    model = linear(more=', "ai.onnx.ml": 3')
    model.graph.node[0].CopyFrom(trees)
    result = skeleton.read_skeleton(memoryview(model.SerializeToString()))
    assert result.fields < 1000
    assert result.cut_lists  # the texts alone take 1.5 MB
    kept = onnx.ModelProto.FromString(result.data).graph.node[0]
    assert {a.name for a in kept.attribute} == {*lists, "n_targets"}
    few = {"nodes_nodeids": [300] * 20_000, "nodes_modes": ["LEAF"] * 20_000, "nodes_values": [0.5] * 20_000}
    model.graph.node[0].CopyFrom(onnx.helper.make_node("T", ["x"], ["y"], domain="ai.onnx.ml", **few))
    result = skeleton.read_skeleton(memoryview(model.SerializeToString()))
    assert (result.fields < 1000, result.cut_lists) == (True, False)
    assert onnx.ModelProto.FromString(result.data) == model


@pytest.mark.parametrize("tag", [0x00, 0x4B, 0x4C, 0x4E, 0x4F], ids=hex)
def test_a_byte_that_begins_no_field(tag, folder):
    """A part without a number, or of a type that files of ONNX do not have: the message names its first byte."""
    model = linear(100)
    graph = model.graph.SerializeToString() + bytes([tag]) + b"\x50\x01"  # behind it, a part as it may be
    model.ClearField("graph")
    header = model.SerializeToString() + skeleton._head(7, len(graph))
    Path("m.onnx").write_bytes(header + graph)
    (finding,) = cu.doctor("m.onnx").findings
    assert finding.code.id == "damaged"
    assert finding.cause.endswith(f": byte {len(header + graph) - 3:,} begins no field.")


def test_weights_that_are_not_there_are_not_called_too_large(folder):
    """3 GB that the model declares, and nobody has: the missing file is the one cause."""
    model = linear()
    tensor = model.graph.initializer[0]
    external(model, length=3 * 2**30)
    tensor.dims[:] = [3 * 2**20, 256]
    onnx.save(model, "m.onnx")
    report = cu.doctor("m.onnx")
    assert report.codes == ["external-file-missing"]
    assert not any("NaN" in text for text in report.not_checked)


def test_skeleton_of_typed_data():
    """Data in float_data or int64_data in place of raw_data, and long lists in attributes."""
    values = helper.make_tensor("w", TensorProto.FLOAT, [100, 100], weights(100, 100).ravel().tolist())
    model = parsed("g (float[N, 100] x) => (float[N, 100] y) { y = MatMul(x, w) }")
    model.graph.initializer.append(values)
    data = model.SerializeToString()
    result = skeleton.read_skeleton(memoryview(data))
    assert [p.length for p in result.pieces.values()] == [40_000]
    assert found(data) == []
    values.float_data[7] = np.nan
    model.graph.initializer[0].CopyFrom(values)
    assert found(model) == ["weights-not-finite"]


def test_file_over_two_gigabytes(folder):
    """A sparse file: all of its 2.6 GB are weights that are stepped over."""
    length = 2_600_000_000
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[length // 4]).SerializeToString()
    tensor += skeleton._head(9, length)
    graph = parsed("g (float[1] x) => (float[M] y) { y = Add(x, w) }").graph.SerializeToString()
    graph += skeleton._head(5, len(tensor) + length) + tensor
    opset = onnx.ModelProto(ir_version=10, opset_import=[helper.make_opsetid("", 21)]).SerializeToString()
    with open("m.onnx", "wb") as file:
        file.write(opset + skeleton._head(7, len(graph) + length) + graph)
        file.truncate(file.tell() + length)
    assert found("m.onnx") == ["over-2gb"]


def test_large_foreign_file(folder):
    """5 GB of weights in safetensors, most of them a hole: only its beginning is looked at."""
    with open("m.onnx", "wb") as file:
        file.write(safetensors())
        file.truncate(5_000_000_000)
    assert found("m.onnx") == ["not-onnx"]


@pytest.mark.skipif(os.name == "nt", reason="no such files on Windows")
def test_files_that_are_no_ordinary_files(folder):
    os.mkfifo("pipe.onnx")
    for name in ("pipe.onnx", "/dev/zero"):
        for helper_ in (cu.doctor, cu.op_histogram, session_for):
            with pytest.raises(cu.CourseError, match="is no ordinary file"):
                helper_(name)


# The peak of this process alone: getrusage would count what the parent had before the fork, too.
MEASURED = """
    import re, sys
    import course_utils as cu
    report = cu.doctor("m.onnx")
    peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())
    print(report.codes, int(peak[1]) // 1024)
"""
linux = pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")


@linux
def test_three_gigabytes_beside_the_model_take_little_memory(folder, python):
    """A sparse file of 3 GB; the model runs nowhere, and its weights are never held."""
    size, side = 12, 8192
    body = "  ".join(f"h{i + 1} = MatMul(h{i}, w{i})" for i in range(size))
    model = parsed(f"g (float[N, {side}] h0) => (float[N, {side}] h{size}) {{ {body} }}")
    for i in range(size):
        tensor = model.graph.initializer.add(name=f"w{i}", data_type=TensorProto.FLOAT, dims=[side, side])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": "w.bin", "offset": i * 4 * side**2, "length": 4 * side**2}.items():
            tensor.external_data.add(key=key, value=str(value))
    onnx.save(model, "m.onnx")
    with open("w.bin", "wb") as file:
        file.truncate(size * 4 * side**2)
    codes, memory = python(MEASURED, cwd=folder).stdout.rsplit(maxsplit=1)
    assert codes == "[]"
    assert int(memory) < 400, "MiB, most of them for onnx and onnxruntime themselves"


@linux
@pytest.mark.parametrize("where", ["nodes", "dims"])
def test_empty_parts_by_the_million(where, folder, python):
    """Two bytes in the file, a hundred in memory: such a file is not parsed at all."""
    parts = b"\x0a\x00" * 5_000_000
    if where == "dims":
        for number in (2, 1, 2):  # dims in a shape, in a tensor type, in a type, in a value info
            parts = skeleton._head(number, len(parts)) + parts
        parts = skeleton._head(11, len(parts)) + parts
    (folder / "m.onnx").write_bytes(b"\x08\x0a" + skeleton._head(7, len(parts)) + parts)
    codes, memory = python(MEASURED, cwd=folder).stdout.rsplit(maxsplit=1)
    assert codes == "['too-complex']"
    assert int(memory) < 300


def test_graphs_within_graphs_without_end(folder):
    """Deeper than protobuf reads; and as deep as it reads, which is no error."""
    assert found(nested(60)) == ["too-complex"]
    assert "too-complex" not in found(nested(25))
    for levels in (400, 3000):  # the second one is too large to be read in one piece
        (folder / "m.onnx").write_bytes(nested(levels))
        (finding,) = cu.doctor("m.onnx").findings
        assert finding.code.id == "too-complex"
        assert finding.cause.startswith("Graphs stand within graphs, more than ")


def test_hostile_names_are_shown_harmlessly():
    """No control characters in the terminal, no tags in the page; names that are not UTF-8; names without end."""
    evil = "\x1b[2J\x1b]0;owned\x07<script>alert(1)</script>\u202egnp" + "x" * 10_000
    model = parsed("g (float[N] x) => (float[N] y) { y = Relu(x) }")
    model.graph.node[0].name = evil
    model.graph.node[0].op_type = evil
    model.graph.node[0].domain = evil
    model.opset_import.append(helper.make_opsetid(evil, 1))
    model.producer_name = evil
    report = cu.doctor(model)
    assert "domain-unknown" in report.codes
    assert all(c.isprintable() or c == "\n" for c in repr(report))
    assert len(repr(report)) < 5000
    page = report._repr_html_()
    assert "<script" not in page
    assert all(c.isprintable() for c in page)
    assert all(c.isprintable() or c == "\n" for c in report.to_json())
    odd = linear().SerializeToString().replace(b"MatMul", b"M\xff\xfeMul")
    assert found(odd) == ["operator-unknown"]


def test_recognise_says_nothing_about_a_model():
    assert recognise(WHOLE) is None
