"""A model by its path: it is handed to ONNX Runtime as it is, whatever its size; and whatever stands in its place is named."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from doctor_models import external, found, linear, parsed, weights
from onnx import TensorProto

import course_utils as cu
from course_utils import running
from course_utils.diagnosis.file.skeleton import _head
from course_utils.file_formats import explain, recognise
from course_utils.running import run, runtime_words, session_for

WHOLE = linear(8).SerializeToString()


def message(*fields: tuple[int, int | bytes]) -> bytes:
    """A protobuf message of numbers and texts or messages."""
    parts = (_head(n, len(v)) + v if isinstance(v, bytes) else bytes([n << 3, v]) for n, v in fields)
    return b"".join(parts)


def coreml(kind: int) -> bytes:
    inputs = message((1, message((1, b"image"), (3, b"\n\x22\x08\xe0\x01\x10\xe0\x01"))), (10, b"\n\x05probs"))
    return message((1, 4), (2, inputs), (kind, message((1, message((1, b"conv1"), (2, b"image"))))))


PLACEHOLDER = message((1, b"input"), (2, b"Placeholder"), (5, message((1, b"dtype"), (2, b"\x30\x01"))))
CONSTANT = message((1, b"w"), (2, b"Const"), (5, message((1, b"value"), (2, bytes(range(30))))))
# bytes → what they are
FORMATS = {
    "core ml, a classifier": (coreml(403), "a Core ML model"),
    "core ml, a network": (coreml(500), "a Core ML model"),
    "core ml, an ml program": (coreml(502), "a Core ML model"),
    "core ml, trees": (coreml(302), "a Core ML model"),
    "tensorflow graph": (message((1, PLACEHOLDER), (1, CONSTANT)), "a TensorFlow graph"),
    "tensorflow saved model": (
        message((1, 1), (2, message((1, b"\x12\x05serve"), (2, message((1, PLACEHOLDER)))))),
        "a TensorFlow SavedModel",
    ),
    "paddle": (message((1, b"\x08\x00\x10\x01" + message((3, b"\n\x01x")))), "a PaddlePaddle model"),
    "caffe": (message((1, b"LeNet"), (100, message((1, b"conv1"), (2, b"Convolution")))), "a Caffe model"),
    "a tensor": (onnx.numpy_helper.from_array(weights(3, 2), "x").SerializeToString(), "a single tensor"),
    "plain text": (b"Entry not found", "a text file that begins with “Entry not found”"),
    "words of a server": (b"\n\nRepository is gated: log in\nmore", "begins with “Repository is gated: log in”"),
    "a long line": (b"no model " * 40, "begins with “" + "no model " * 8 + "no model…”"),
    "json": (b'{"error":"Invalid username or password."}', "begins with “{\"error\":\"Invalid username or password.\"}”"),
    "xml": (b"<Error><Code>AccessDenied</Code></Error>", "an XML file that begins with “<Error><Code>AccessDenied"),
    "an escape sequence": (("Fort \u202e\x1b[2J " + "ab und zu, " * 20).encode(), "begins with “Fort   [2J ab und zu"),
    "a library": (b"\x7fELF" + bytes(60), "a compiled program"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FORMATS)
def test_other_formats_have_one_name_everywhere(kind, folder):
    """The doctor and the helpers say the same, and no control character reaches the screen."""
    data, words = FORMATS[kind]
    (folder / "mine.onnx").write_bytes(data)
    report = cu.doctor("mine.onnx")
    assert report.codes == ["not-onnx"]
    assert words in report.findings[0].cause
    for helper_ in (cu.op_histogram, session_for):
        with pytest.raises(cu.CourseError, match="is not an ONNX model: it looks like") as caught:
            helper_("mine.onnx")
        assert words in str(caught.value)
        assert str(caught.value).isprintable()


def opsets(model: onnx.ModelProto, count: int) -> bytes:
    for i in range(count):
        model.opset_import.add(domain=f"my.domain.{i}", version=1)
    model.metadata_props.add(key="author", value="somebody")
    return model.SerializeToString()


BEHIND = {
    "newline": b"\n", "windows newline": b"\r\n", "zeros": bytes(64), "one zero": b"\0", "end of a DOS file": b"\x1a",
    "page": b"</body></html>", "boundary of a form": b"\r\n------WebKitFormBoundaryX--", "words": b"Best regards",
}  # fmt: skip


@pytest.mark.parametrize("kind", BEHIND)
@pytest.mark.parametrize(
    "model", [WHOLE, opsets(linear(8), 3), linear(300).SerializeToString()], ids=["small", "props", "large"]
)
def test_bytes_behind_a_model(kind, model, folder):
    (folder / "m.onnx").write_bytes(model + BEHIND[kind])
    with pytest.raises(Exception, match="Protobuf parsing failed"):
        ort.InferenceSession("m.onnx", providers=["CPUExecutionProvider"])
    report = cu.doctor("m.onnx")
    assert report.codes == ["extra-bytes"]
    assert f"ends at byte {len(model):,}" in report.findings[0].cause
    assert f"first {len(model):,} bytes" in report.findings[0].cure
    with pytest.raises(cu.CourseError, match=f"not only an ONNX model: a model ends at byte {len(model):,}"):
        session_for("m.onnx")
    (folder / "m.onnx").write_bytes((folder / "m.onnx").read_bytes()[: len(model)])  # what the cure says
    assert found("m.onnx") == []


@pytest.mark.parametrize("front", [b"\xef\xbb\xbf", b"\n", b"\r\n\r\n"])
def test_bytes_before_a_model(front, folder):
    (folder / "m.onnx").write_bytes(front + WHOLE)
    report = cu.doctor("m.onnx")
    assert report.codes == ["extra-bytes"]
    assert f"Leave out its first {len(front)} byte" in report.findings[0].cure


def test_a_cut_is_still_a_cut():
    """At every byte of a model with texts, opsets and properties behind its graph."""
    data = opsets(linear(4), 2)
    first = len(linear(4).SerializeToString())
    for end in range(1, first):
        assert explain(data[:end]).kind == "truncated", end
    kinds = {explain(data[:end]).kind for end in range(first, len(data)) if not parses(data[:end])}
    assert kinds == {"truncated"}
    noted = linear(4)
    noted.doc_string, noted.producer_name = "A modèl\nof 数 words", "pytorch"
    data = noted.SerializeToString()
    assert {explain(data[:end]).kind for end in range(3, len(data) - 8)} == {"truncated"}


def parses(data: bytes) -> bool:
    try:
        onnx.ModelProto.FromString(data)
    except Exception:  # protobuf's DecodeError has no stable home
        return False
    return True


def test_noise_is_damage():
    rng = np.random.default_rng(5)
    assert {explain(bytes([0x0F]) + rng.bytes(400)).kind for _ in range(20)} == {"damaged"}
    assert recognise(WHOLE) is None


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 16384\n"
IN_PLACE = {
    "git-lfs pointer": (LFS, "a Git LFS pointer", "git lfs pull"),
    "text": (b"Entry not found", "begins with “Entry not found”", "Download"),
    "page": (b"<!DOCTYPE html><html>404</html>", "a web page", "Download"),
}


@pytest.mark.parametrize("kind", IN_PLACE)
def test_something_else_in_place_of_weights(kind, folder):
    data, words, cure = IN_PLACE[kind]
    model = linear(64)
    whole = external(model)
    onnx.save(model, "m.onnx")
    Path("w.bin").write_bytes(data)
    report = cu.doctor("m.onnx")
    assert report.codes == ["external-file-foreign"]
    assert words in report.findings[0].cause
    assert cure in report.findings[0].cure
    Path("w.bin").write_bytes(whole[:-4])
    assert found("m.onnx") == ["external-file-too-short"]
    Path("w.bin").write_bytes(bytes(100))
    assert found("m.onnx") == ["external-file-too-short"], "zeros may be weights"
    Path("w.bin").write_bytes(whole)
    assert found("m.onnx") == []


def test_a_pointer_that_is_as_long_as_the_weights(folder):
    """Nothing is too short, and the runtime would compute with the letters of the pointer."""
    model = linear(4)
    external(model)
    onnx.save(model, "m.onnx")
    Path("w.bin").write_bytes(LFS)
    assert found("m.onnx") == ["external-file-foreign"]
    Path("w.bin").write_bytes(b"version: my weights " * 4)
    assert found("m.onnx") == []


def test_helpers_name_the_pointer(folder):
    model = linear(64)
    external(model)
    onnx.save(model, "m.onnx")
    for data, words in ((LFS, "it is a Git LFS pointer, .*: run  git lfs pull"), (None, "there is no such file")):
        if data is None:
            Path("w.bin").unlink()
        else:
            Path("w.bin").write_bytes(data)
        for helper_ in (session_for, cu.optimized, lambda m: cu.strict_session(m, "CPUExecutionProvider")):
            with pytest.raises(cu.CourseError, match=rf"keeps its weights in 'w\.bin', .*\({words}"):
                helper_("m.onnx")


@pytest.mark.parametrize("location", ["../secret.bin", "a/../../secret.bin"])
def test_no_file_outside_is_opened_to_say_what_is_wrong(location, tmp_path, monkeypatch):
    """A pointer outside the folder would be named, if anybody looked at it."""
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    model = linear(64)
    external(model, location)
    onnx.save(model, "m.onnx")
    (tmp_path / "secret.bin").write_bytes(LFS)
    for helper_ in (session_for, lambda m: cu.parity(None, m, ()), cu.optimized):
        with pytest.raises(cu.CourseError) as caught:
            helper_("m.onnx")
        assert "Git LFS" not in str(caught.value)
    (tmp_path / "inside" / "w.bin").symlink_to(tmp_path / "secret.bin")
    model = linear(64)
    external(model)
    onnx.save(model, "m.onnx")
    with pytest.raises(cu.CourseError) as caught:
        session_for("m.onnx")
    assert "Git LFS" not in str(caught.value)


def table(rows: int) -> onnx.ModelProto:
    """Looks rows up in a table of int64 that lies in a file of zeros: of 8 GB none is read but what is looked up."""
    model = parsed("g (int64[N] i) => (int64[N] y) { y = Gather(t, i) }")
    tensor = model.graph.initializer.add(name="t", data_type=TensorProto.INT64, dims=[rows])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "t.bin", "offset": 0, "length": 8 * rows}.items():
        tensor.external_data.add(key=key, value=str(value))
    return model


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")
def test_four_gigabytes_are_loaded_by_their_path(folder, python):
    """Sparse files: they take no room on the disk, and no memory but what is read."""
    rows = 2**29
    onnx.save(table(rows), "m.onnx")
    with open("t.bin", "wb") as file:
        file.truncate(8 * rows)
    code = """
        import re
        import numpy as np
        import course_utils as cu
        from course_utils.running import run, session_for
        feed = {"i": np.array([3, 2**29 - 1])}
        for session in (session_for("m.onnx"), cu.strict_session("m.onnx", "CPUExecutionProvider")):
            assert run(session, feed)["y"].tolist() == [0, 0]
        assert cu.run_in_batches("m.onnx", feed, 1)["y"].tolist() == [0, 0]
        assert list(cu.probe_sizes("m.onnx", feed["i"])["verdict"]) == ["free"]
        print(int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) // 1024)
    """
    assert int(python(code, cwd=folder).stdout) < 900, "MiB, most of them for the libraries"


@pytest.mark.parametrize("opened", [session_for, lambda m: cu.strict_session(m, "CPUExecutionProvider")])
def test_a_model_in_memory_that_protobuf_does_not_take(opened, monkeypatch, folder):
    """Beyond 2 GB it cannot be serialised: its weights go through a file of their own. Here the limit is lower."""
    monkeypatch.setattr(running, "LIMIT", running._MARGIN + 10_000)
    model = linear(64)
    before = model.SerializeToString()
    x = weights(3, 64)
    got = run(opened(model), {"x": x})["y"]
    assert np.allclose(got, x @ onnx.numpy_helper.to_array(model.graph.initializer[0]), atol=1e-4)
    assert model.SerializeToString() == before
    assert list(folder.iterdir()) == []


def test_one_file_that_is_too_large_is_not_called_refused(folder):
    with open("m.onnx", "wb") as file:
        file.write(b"\x08\x0a" + _head(7, 2_600_000_000))
        file.truncate(2_600_000_000)
    for helper_ in (session_for, cu.op_histogram):
        with pytest.raises(cu.CourseError, match=r"has 2\.6 GB in one file, and protobuf takes at most 2\.1 GB"):
            helper_("m.onnx")


def test_of_many_files_the_nearest_are_named(folder):
    for i in range(70):
        (folder / f"run_{i:02}.onnx").write_bytes(WHOLE)
    (folder / "fashion_resnet.onnx").write_bytes(WHOLE)
    for helper_ in (session_for, cu.doctor, cu.op_histogram):
        with pytest.raises(
            cu.CourseError, match=r"of the 71 in its folder the nearest names are: fashion_resnet\.onnx, "
        ) as c:
            helper_("fashion_restnet.onnx")
        assert str(c.value).count("run_") == 4


def whole_words(model: onnx.ModelProto) -> str:
    onnx.save(model, "m.onnx")
    with pytest.raises(Exception, match=r"\[ONNXRuntimeError\]") as caught:
        ort.InferenceSession(str(Path("m.onnx").resolve()), providers=["CPUExecutionProvider"])
    return str(caught.value)


REFUSED = {
    "an operator with brackets": (
        lambda: parsed("g (int16[N] x) => (int16[N] y) { y = Max(x, x) }"), "Could not find an implementation for Max(13)",
    ),
    "types": (
        lambda: parsed("g (float[N] x, double[N] z) => (float[N] y) { y = Add(x, z) }"),
        "Type Error: Type parameter (T) of Optype (Add) bound to different types (tensor(float) and tensor(double)",
    ),
    "a name that is nowhere": (
        lambda: parsed("g (float[N] x) => (float[N] y) { y = Relu(z) }"), "Invalid model. Node input 'z' is not a graph input",
    ),
    "a place in the source": (lambda: linear(opset=99), "ONNX Runtime only *guarantees* support for models"),
    "colons": (
        lambda: parsed("g (float[N] x) => (float[N] y) { y = Relu<alpha = 1.0>(x) }"),
        'This is an invalid model. In Node, ("", Relu, "", -1) : ("x": tensor(float),)',
    ),
    "another place in the source": (
        lambda: changed_dims(linear()), "Initializer 'w': raw_data size (64 bytes) does not match",
    ),
}  # fmt: skip


def changed_dims(model: onnx.ModelProto) -> onnx.ModelProto:
    model.graph.initializer[0].dims.append(7)
    return model


@pytest.mark.parametrize("kind", REFUSED)
def test_words_of_the_runtime_stay_whole(kind, folder):
    """From its first word to its last; without its own source, and without folders."""
    model, start = REFUSED[kind][0](), REFUSED[kind][1]
    said = whole_words(model)
    end = " ".join(said.split())[-30:].rstrip(".")
    for helper_ in (session_for, lambda m: cu.strict_session(m, "CPUExecutionProvider")):
        for given in ("m.onnx", model):
            with pytest.raises(cu.CourseError) as caught:
                helper_(given)
            sentence = str(caught.value)
            assert f": {start}" in sentence
            assert end in sentence
            assert not re.search(r"ONNXRuntimeError|\.(cc|h):\d", sentence)
            assert str(folder) not in sentence


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            "[ONNXRuntimeError] : 1 : FAIL : Deserialize tensor w failed.tensorprotoutils.cc:1876 GetExtDataFromTensorProto "
            "External initializer: w offset: 0 are out of bounds.",
            "Deserialize tensor w failed. External initializer: w offset: 0 are out of bounds.",
        ),
        (
            "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Non-zero status code returned while running Add node. Name:'a' Status "
            "Message: /onnxruntime_src/onnxruntime/core/providers/cpu/math/element_wise_ops.h:560 void onnxruntime::"
            "BroadcastIterator::Init(ptrdiff_t, ptrdiff_t) axis == 1 was false. Attempting to broadcast",
            "Non-zero status code returned while running Add node. Name:'a' Status Message: axis == 1 was false. Attempting to "
            "broadcast",
        ),
        ("", "str"),
    ],
)  # fmt: skip
def test_places_in_the_source_are_left_out(said, words):
    assert runtime_words(said) == words


def test_a_plug_in_is_asked_for_by_its_device(monkeypatch):
    """Of a plug-in that the course does not know: its device, as ONNX Runtime lists it, stands for it."""
    device = type("Device", (), {"ep_name": "MyPluginExecutionProvider", "ep_metadata": {"library_path": "my.so"}})()
    listed = ort.get_ep_devices()
    monkeypatch.setattr(ort, "get_ep_devices", lambda: [*listed, device])
    with pytest.raises(
        cu.CourseError, match=r"'MyPluginExecutionProvider' is a plug-in .*its devices .*get_ep_devices"
    ):
        cu.strict_session(linear(), "MyPluginExecutionProvider")
    with pytest.raises(cu.CourseError, match="There is no execution provider 'OtherExecutionProvider'"):
        cu.strict_session(linear(), "OtherExecutionProvider")
    assert cu.strict_session(linear(), "CPUExecutionProvider").get_providers() == ["CPUExecutionProvider"]
