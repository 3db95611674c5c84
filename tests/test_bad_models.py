"""Whatever is handed to a helper in place of a model gets one clear sentence, and nothing is written."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import course_utils as cu

HELPERS = {
    "node_table": cu.node_table,
    "tensor_table": cu.tensor_table,
    "op_histogram": cu.op_histogram,
    "graph_diff": lambda model: cu.graph_diff(model, model),
    "show": cu.show,
    "parity": lambda model: cu.parity(torch.nn.Identity(), model, torch.zeros(1)),
    "step_through": lambda model: cu.step_through(model, {}),
}


def small_model() -> onnx.ModelProto:
    """y = x + w, with 2 000 weights, so that saving can move them into a file of their own."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"], name="add")],
        "small",
        [value("x", TensorProto.FLOAT, [2000])],
        [value("y", TensorProto.FLOAT, [2000])],
        [numpy_helper.from_array(np.arange(2000, dtype=np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("model.onnx", small_model().SerializeToString())
    return stream.getvalue()


def checkpoint(**how: bool) -> bytes:
    stream = io.BytesIO()
    torch.save(torch.nn.Linear(2, 2).state_dict(), stream, **how)
    return stream.getvalue()


WHOLE = small_model().SerializeToString()
# Bytes behind the graph: the opset import, the last field of this model.
BEHIND_GRAPH = len(onnx.ModelProto(opset_import=[helper.make_opsetid("", 21)]).SerializeToString())
CONTENTS = {
    "empty": (b"", "is empty"),
    "cut at byte 1": (WHOLE[:1], "not a whole ONNX model"),
    "cut in the middle": (WHOLE[: len(WHOLE) // 2], "not a whole ONNX model"),
    "cut before the graph": (WHOLE[:2], "not a whole ONNX model"),
    "cut behind the graph": (WHOLE[:-BEHIND_GRAPH], "not a whole ONNX model"),
    "last byte gone": (WHOLE[:-1], "not a whole ONNX model"),
    "text": (b"This is no model.\n" * 50, "a text file that begins with “This is no model.”"),
    "zeros": (bytes(500), "all zeros"),
    "web page": (b"<!DOCTYPE html><html>404</html>", "a web page, so the download went wrong"),
    "zip": (archive(), "a zip archive"),
    "torch checkpoint": (checkpoint(), "a zip archive from PyTorch"),
    "old torch checkpoint": (checkpoint(_use_new_zipfile_serialization=False), "a pickle, perhaps an old PyTorch"),
    "git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git lfs pull"),
    "gzip": (gzip.compress(WHOLE), "a gzip archive"),
    "keras": (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file"),
}


def refusal(helper_name: str, model: object) -> str:
    """The sentence a helper says; asserts that it is one, and that it comes without a tail of other errors."""
    with pytest.raises(cu.CourseError) as caught:
        HELPERS[helper_name](model)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert len(sentence) < 400
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return sentence


@pytest.mark.parametrize("helper_name", HELPERS)
@pytest.mark.parametrize("kind", CONTENTS)
def test_file_that_is_no_model(kind, helper_name, folder):
    data, expected = CONTENTS[kind]
    (folder / "mine.onnx").write_bytes(data)
    sentence = refusal(helper_name, "mine.onnx")
    assert "'mine.onnx'" in sentence
    assert expected in sentence
    assert [p.name for p in folder.iterdir()] == ["mine.onnx"]
    assert (folder / "mine.onnx").read_bytes() == data


@pytest.mark.parametrize("helper_name", HELPERS)
def test_missing_file_names_those_that_are_there(helper_name, folder):
    (folder / "other.onnx").write_bytes(WHOLE)
    sentence = refusal(helper_name, Path("mine.onnx"))
    assert "There is no file 'mine.onnx'; in its folder there are: other.onnx" in sentence
    assert "there is no .onnx file in its folder" in refusal(helper_name, "nowhere/mine.onnx")
    assert [p.name for p in folder.iterdir()] == ["other.onnx"]


@pytest.mark.parametrize("helper_name", HELPERS)
def test_folder_in_place_of_a_file(helper_name, folder):
    (folder / "mine").mkdir()
    assert "'mine' is a folder" in refusal(helper_name, "mine")


@pytest.mark.parametrize("helper_name", HELPERS)
@pytest.mark.parametrize("model", [None, 7, torch.nn.Identity(), ["a.onnx"]], ids=["None", "7", "torch", "list"])
def test_another_type(model, helper_name, folder):
    assert f"This is a {type(model).__name__}." in refusal(helper_name, model)


@pytest.mark.parametrize("helper_name", HELPERS)
@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"], ids=["too long", "zero byte"])
def test_impossible_names(name, helper_name, folder):
    with pytest.raises(cu.CourseError):
        HELPERS[helper_name](name)


@pytest.mark.parametrize("helper_name", HELPERS)
def test_damaged_bytes(helper_name, folder):
    assert refusal(helper_name, WHOLE[:-1]).startswith("these bytes (")


@pytest.fixture
def split_model(folder):
    onnx.save_model(small_model(), "split.onnx", save_as_external_data=True, location="split.bin", size_threshold=0)
    return folder


@pytest.mark.parametrize("helper_name", ["parity", "step_through"])
def test_weight_file_missing(helper_name, split_model):
    (split_model / "split.bin").unlink()
    sentence = refusal(helper_name, "split.onnx")
    assert "'split.onnx' keeps its weights in 'split.bin'" in sentence
    assert "Copy the weight file into the same folder" in sentence


@pytest.mark.parametrize("helper_name", ["parity", "step_through"])
def test_weight_file_cut_short(helper_name, split_model):
    (split_model / "split.bin").write_bytes(b"1234")
    with pytest.raises(cu.CourseError, match=r"split\.bin|does not load this model"):
        HELPERS[helper_name]("split.onnx")


@pytest.mark.parametrize("helper_name", ["parity", "step_through"])
def test_weight_file_outside_the_folder(helper_name, split_model):
    """A model from elsewhere must not make the course read any file of the machine."""
    model = onnx.load("split.onnx", load_external_data=False)
    model.graph.initializer[0].external_data[0].value = "../secret.bin"
    onnx.save(model, "split.onnx")
    (split_model.parent / "secret.bin").write_bytes(bytes(8000))
    with pytest.raises(cu.CourseError, match=r"\.\./secret\.bin"):
        HELPERS[helper_name]("split.onnx")


@pytest.mark.parametrize("helper_name", ["node_table", "tensor_table", "op_histogram", "graph_diff", "show"])
def test_looking_needs_no_weight_file(helper_name, split_model):
    (split_model / "split.bin").unlink()
    assert HELPERS[helper_name]("split.onnx") is not None


def test_model_that_the_runtime_refuses(folder):
    """It parses, so it can be looked at; but the operator does not exist."""
    model = small_model()
    model.graph.node[0].op_type = "Addd"
    assert cu.op_histogram(model).to_dict() == {"Addd": 1}
    assert "ONNX Runtime does not load this model" in refusal("parity", model)


def test_tables_of_a_model_made_by_hand(folder):
    """Bytes by dtype; an attribute without a type; an initializer that is listed as an input as well."""
    model = small_model()
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [2000]))
    model.graph.node[0].attribute.add(name="untyped")
    for dtype in (TensorProto.INT64, TensorProto.UINT4, TensorProto.BFLOAT16, TensorProto.UNDEFINED):
        model.graph.initializer.add(name=TensorProto.DataType.Name(dtype), data_type=dtype, dims=[3])
    table = cu.tensor_table(model).set_index("tensor")
    assert table["bytes"].to_dict() == {
        "x": 0, "y": 0, "w": 8000, "INT64": 24, "UINT4": 2, "BFLOAT16": 6, "UNDEFINED": 0,
    }  # fmt: skip
    assert table.loc["w", "role"] == "initializer"
    assert cu.node_table(model).loc[0, "attributes"] == "untyped=?"
