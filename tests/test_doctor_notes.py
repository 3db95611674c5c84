"""What a file tells besides the model: paths in its notes, and how much of it they are."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest
from doctor_models import found, linear, named_function, parsed

import course_utils as cu

PATHS, HEAVY = "paths-of-a-machine", "heavy-notes"
TOLD = 'File "/srv/app/net.py", line 3'
DRIVE = "{}:\\Users".format("C")  # no path of a real machine stands in this file
PEOPLE = "Users"
SHOWN = DRIVE.replace("\\", "\\\\")


def noted(text: str, model: onnx.ModelProto | None = None) -> onnx.ModelProto:
    model = model or linear()
    model.graph.node[0].doc_string = text
    return model


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('File "/srv/app/net.py", line 3', "/srv/app/net.py"), ('File "C:\\app\\net.py", line 3', "C:\\\\app\\\\net.py"),
        ("see /srv/app/net.py:12", "/srv/app/net.py"), ("/srv/app/net.py(7): forward", "/srv/app/net.py"), ("'/srv/my app/net.py'", "/srv/my app/net.py"),
        (f"/{PEOPLE}/ann/net", f"/{PEOPLE}/ann/net"), ("from /{}/ann/data, again".format("home"), "/{}/ann/data".format("home")),
        (f"{DRIVE}\\ann\\net", f"{SHOWN}\\\\ann\\\\net"), (f"/{PEOPLE}/ann/v/site-packages/torch/nn.py", f"/{PEOPLE}/ann/v/site-packages/torch/nn.py"),
        (f'File "{DRIVE}\\ann\\site-packages\\torch\\nn.py", line 1', f"{SHOWN}\\\\ann\\\\site-packages\\\\torch\\\\nn.py"),
        ("/tmp/build/net.py:1", "/tmp/build/net.py"),
    ],
)  # fmt: skip
def test_paths_that_tell_something(text, path):
    report = cu.doctor(noted(text))
    assert report.codes == [PATHS]
    assert report.findings[0].cause.startswith(f"Notes name source files or folders, such as '{path}")


@pytest.mark.parametrize(
    "text",
    [
        "", "forward", "a/b/net.py:3", "net.py:3", "https://pytorch.org/docs/nn.py:1", "/srv/app/net.txt:1", "/net.py:1",
        'File "/tmp/ipykernel_12/3.py", line 1', 'File "/usr/lib/python3/x.py", line 1', 'File "/usr/local/lib/x.py", line 1',
        'File "/content/x.py", line 1', 'File "/srv/v/site-packages/torch/x.py", line 1', 'File "/srv/v/dist-packages/torch/x.py", line 1',
        'File "/{}/runner/v/site-packages/torch/x.py", line 1'.format("home"), 'File "C:\\v\\site-packages\\torch\\x.py", line 1', "x" * 20_001 + TOLD,
    ],
    ids=range(16),
)  # fmt: skip
def test_texts_that_tell_nothing(text):
    """Folders that are the same everywhere, packages, the build servers of a public service; and of a long text only the beginning is read."""
    assert found(noted(text)) == []


@pytest.mark.parametrize(("before", "codes"), [(0, [PATHS]), (1, [])])
def test_how_much_of_a_text_is_read(before, codes):
    """20,000 characters: up to the second quotation mark, or not quite."""
    quoted = 'File "/srv/app/net.py"'
    assert found(noted("x" * (19_999 - len(quoted) + before) + " " + quoted)) == codes


def test_the_shortest_path_is_the_example():
    """The outer frames of a stack trace are those of packages; those that tell nothing are passed over."""
    trace = 'File "/srv/v/site-packages/torch/x.py", line 1\n  File "/srv/ann/project/net.py", line 2\n  File "/a/b.py", line 3'
    model = noted(trace)
    assert "such as '/srv/ann/project/net.py'" in cu.doctor(model).findings[0].cause
    model.graph.doc_string = 'File "/a/much/longer/path/to/some/net.py", line 3'
    model.doc_string = 'File "/a/bc/net.py", line 3'
    finding = cu.doctor(model).findings[0]
    assert "such as '/a/bc/net.py'" in finding.cause
    assert finding.count == 3


BRANCHES = """g (bool c, float[N] x) => (float[N] y) {
    y = If (c) <then_branch = a () => (float[N] t) { t = Relu(x) }, else_branch = b () => (float[N] e) { e = Tanh(x) }> }"""


def with_note_on_a_tensor() -> onnx.ModelProto:
    model = parsed("g (float[N, 4] x) => (float[N, 4] y) { a = Relu(x)  y = Tanh(a) }")
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("a", 1, ["N", 4], TOLD))
    return model


def with_note_in_a_function() -> onnx.ModelProto:
    model = named_function("Mine")
    model.functions[0].node[0].doc_string = TOLD
    return model


def with_note_in_a_branch() -> onnx.ModelProto:
    model = parsed(BRANCHES)
    model.graph.node[0].attribute[1].g.node[0].doc_string = TOLD
    return model


def changed(change: Callable[[onnx.ModelProto], object], model: onnx.ModelProto | None = None) -> onnx.ModelProto:
    model = model or linear()
    change(model)
    return model


PLACES = {
    "the model": (lambda: changed(lambda m: setattr(m, "doc_string", TOLD)), "file \"the model's own notes\""),
    "its metadata": (lambda: changed(lambda m: m.metadata_props.add(key="a", value=TOLD)), "file \"the model's own notes\""),
    "the graph": (lambda: changed(lambda m: setattr(m.graph, "doc_string", TOLD)), "graph 'g'"),
    "a node": (lambda: changed(lambda m: setattr(m.graph.node[0], "doc_string", TOLD)), "node #0 ''"),
    "a node's metadata": (lambda: changed(lambda m: m.graph.node[0].metadata_props.add(key="a", value=TOLD)), "node #0 ''"),
    "weights": (lambda: changed(lambda m: setattr(m.graph.initializer[0], "doc_string", TOLD)), "tensor 'w'"),
    "an input": (lambda: changed(lambda m: setattr(m.graph.input[0], "doc_string", TOLD)), "tensor 'x'"),
    "an output": (lambda: changed(lambda m: setattr(m.graph.output[0], "doc_string", TOLD)), "tensor 'y'"),
    "a tensor inside": (with_note_on_a_tensor, "tensor 'a'"),
    "a function": (lambda: changed(lambda m: setattr(m.functions[0], "doc_string", TOLD), named_function("Mine")), "graph 'Mine'"),
    "a node of a function": (with_note_in_a_function, "node #0 '' in Mine"),
    "a branch": (with_note_in_a_branch, "node #0 '' in g"),
}  # fmt: skip


@pytest.mark.parametrize("kind", PLACES)
def test_wherever_a_note_stands(kind):
    make, place = PLACES[kind]
    (finding,) = cu.doctor(make()).findings
    assert finding.code.id == PATHS
    assert finding.places == place


def heavy(notes: int, size: int) -> list[str]:
    """Notes of so many characters in all, beside weights of size × size."""
    model = linear(size)
    model.doc_string, model.graph.doc_string = "x" * (notes // 2), "x" * (notes - notes // 2)
    return found(model)


def test_notes_that_are_much_of_a_file():
    """64 KiB, and a fifth of all."""
    assert heavy(65_536, 4) == []
    assert heavy(65_537, 4) == [HEAVY]
    assert heavy(100_000, 310) == [HEAVY]
    assert heavy(100_000, 320) == []
    model = linear()
    model.doc_string = "x" * 100_000
    finding = cu.doctor(model).findings[0]
    assert (
        finding.cause
        == f"100.0 kB of the file's {len(model.SerializeToString()) / 1000:.1f} kB are notes, such as stack traces."
    )
