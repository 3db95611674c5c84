"""Artefacts that bring code along, or want to change the session that they are run in: each is refused, and nothing of it runs."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

import onnx
import pytest
from onnx import helper
from submissions import right

from course_utils.exercises import task
from course_utils.handin import guarded
from course_utils.handin.assessing import Verdict

COMPILED = "holds code that was compiled for one execution provider (EPContext), and nobody can look into that"


def checked(data: bytes, id: str = "2.4") -> Verdict:
    return guarded.examine(task(id), data, task(id).file, "ada")


def compiled(outputs: list[str], inputs: Sequence[str] = ()) -> onnx.NodeProto:
    """Code of an execution provider, in a library that the node names by its path."""
    return helper.make_node(
        "EPContext", inputs, outputs, domain="com.microsoft", ep_cache_context="evil.so", embed_mode=0
    )


def at_the_top(model: onnx.ModelProto) -> None:
    model.graph.node.append(compiled(["e"], ["x"]))


def in_a_branch(model: onnx.ModelProto) -> None:
    branch = helper.make_graph([compiled(["e"])], "b", [], [helper.make_tensor_value_info("e", 1, [1])])
    model.graph.initializer.append(helper.make_tensor("go", onnx.TensorProto.BOOL, [], [True]))
    model.graph.node.append(helper.make_node("If", ["go"], ["e2"], then_branch=branch, else_branch=branch))


def in_a_function(model: onnx.ModelProto) -> None:
    imports = [helper.make_opsetid("com.microsoft", 1)]
    model.functions.append(helper.make_function("own", "f", ["a"], ["b"], [compiled(["b"], ["a"])], imports))


@pytest.mark.parametrize("place", [at_the_top, in_a_branch, in_a_function])
def test_compiled_code_is_refused_wherever_it_stands(place: Callable[[onnx.ModelProto], None]):
    model = onnx.load_from_string(right("2.4", "ada"))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    place(model)
    verdict = checked(model.SerializeToString())
    assert verdict.problem.startswith(f"'2.4.onnx' {COMPILED}")
    assert not verdict.criteria


@pytest.mark.parametrize("domain", ["ai.onnx.contrib", "own.ops", "com.microsoft"])
def test_an_operator_that_only_a_library_knows_is_not_loaded_from_one(domain: str):
    """A model can name no library: only who makes the session could, and no check does."""
    model = onnx.load_from_string(right("1.1", "ada"))
    model.graph.node.append(
        helper.make_node("Evil", [model.graph.input[0].name], ["e"], domain=domain, library="evil.so")
    )
    model.opset_import.append(helper.make_opsetid(domain, 1))
    hints = [c.hint for c in checked(model.SerializeToString(), "1.1").criteria if not c.passed]
    assert any("It is refused: ONNX Runtime does not load this model" in hint and "Evil" in hint for hint in hints), (
        hints
    )


def test_options_of_the_session_in_a_model_are_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """ONNX Runtime reads them where a variable says so, even when the whole class has set it."""
    monkeypatch.setenv("ORT_LOAD_CONFIG_FROM_MODEL", "1")
    guarded.Worker.current().stop()
    model = onnx.load_from_string(right("1.1", "ada"))
    options = {"enable_profiling": 1, "profile_file_prefix": str(tmp_path / "profile"), "execution_mode": 7}
    model.metadata_props.add(key="ort_config", value=json.dumps({"session_options": options}))
    verdict = checked(model.SerializeToString(), "1.1")
    assert all(c.passed for c in verdict.criteria), verdict
    assert verdict.criteria
    assert not list(tmp_path.iterdir())
    assert os.listdir(guarded.Worker.current().folder) == []


class Evil:
    """What it is unpickled to is what it does."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return open, (str(self.path), "w")


def checkpoint(new: bool) -> Callable[[Path], bytes]:
    def make(path: Path) -> bytes:
        import torch

        stream = io.BytesIO()
        torch.save({"weights": Evil(path)}, stream, _use_new_zipfile_serialization=new)
        return stream.getvalue()

    return make


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (checkpoint(True), "looks like a zip archive from PyTorch"),
        (checkpoint(False), "looks like a pickle, perhaps an old PyTorch checkpoint"),
        (lambda path: pickle.dumps(Evil(path)), "looks like a pickle"),
        (lambda path: pickle.dumps(Evil(path), protocol=0), "is not an ONNX model"),
        (lambda path: gzip.compress(pickle.dumps(Evil(path))), "looks like a gzip archive"),
    ],
    ids=["PyTorch", "old PyTorch", "pickle", "pickle in text", "packed pickle"],
)
def test_a_pickle_named_onnx_is_not_unpickled(tmp_path: Path, make: Callable[[Path], bytes], said: str):
    data = make(tmp_path / "it ran")
    assert said in checked(data).problem
    assert not (tmp_path / "it ran").exists()


def test_what_the_pickles_would_do_if_they_were_unpickled(tmp_path: Path):
    """Otherwise the test above could not fail."""
    pickle.loads(pickle.dumps(Evil(tmp_path / "it ran"))).close()
    assert (tmp_path / "it ran").exists()


@pytest.mark.parametrize("id", ["1.2", "10.2"])
def test_a_pickle_in_place_of_json(tmp_path: Path, id: str):
    assert "is not a JSON file" in checked(pickle.dumps(Evil(tmp_path / "it ran")), id).problem
    assert not (tmp_path / "it ran").exists()
