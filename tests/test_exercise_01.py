"""Exercises 01: right answers pass for any student; each typical mistake fails with a hint that names its cause."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx.utils
import pytest
import torch
from answers import accepted, failed, given, params
from onnx import ModelProto, TensorProto, helper, numpy_helper

from course_utils.models import fashion_resnet

STUDENTS = ["ada", "grace@example.org", "s-1234567", "Жанна", "guest"]


def formula(
    student: str = "ada", dtype: int = TensorProto.FLOAT, batch: str | int = "batch", **changed: float
) -> ModelProto:
    p = {**params("1.1", student), **changed}
    nodes = [
        helper.make_node("Mul", ["x", "a"], ["ax"]),
        helper.make_node("Add", ["ax", "b"], ["inner"]),
        helper.make_node(p["f"], ["inner"], ["outer"]),
        helper.make_node("Mul", ["x", "c"], ["cx"]),
        helper.make_node("Add", ["outer", "cx"], ["y"]),
    ]
    numpy_type = helper.tensor_dtype_to_np_dtype(dtype)
    weights = [numpy_helper.from_array(np.array(p[n], numpy_type), n) for n in "abc"]
    x, y = (helper.make_tensor_value_info(n, dtype, [batch, 3]) for n in "xy")
    graph = helper.make_graph(nodes, "formula", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.mark.parametrize("student", STUDENTS)
def test_formula_passes(student: str) -> None:
    accepted("1.1", formula(student), student)


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (lambda p: formula(c=0), "The term c·x is missing"),
        (lambda p: formula(b=0), "b is missing"),
        (lambda p: formula(b=-p["b"]), "b has the wrong sign"),
        (lambda p: formula(c=-p["c"]), "c has the wrong sign"),
        (lambda p: formula(a=p["b"], b=p["a"]), "a and b are exchanged"),
        (lambda p: formula(a=p["a"] + 1), "Print each step"),
        (lambda p: formula(batch=5), "must be a name such as 'batch'"),
        (lambda p: formula(dtype=TensorProto.DOUBLE), "x (double)"),
        (lambda p: formula(f="Neg"), f"Your f is {params('1.1', 'ada')['f']}"),
    ],
)
def test_formula_mistakes(answer: Callable[[dict], ModelProto], cause: str) -> None:
    assert cause in failed("1.1", answer(params("1.1", "ada")))


def test_formula_of_another_student_fails() -> None:
    failed("1.1", formula("grace@example.org"), "ada")


def counts(student: str = "ada") -> dict:
    graph = given("1.2", student).graph
    read = {name for node in graph.node for name in node.input}
    ops = [node.op_type for node in graph.node]
    return {
        "nodes": len(ops),
        "ops": {op: ops.count(op) for op in ops},
        "parameters": sum(int(np.prod(t.dims)) for t in graph.initializer if t.name in read),
        "unused": sorted(t.name for t in graph.initializer if t.name not in read),
    }


@pytest.mark.parametrize("student", STUDENTS)
def test_counts_pass(student: str) -> None:
    accepted("1.2", counts(student), student)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"nodes": 99}, "len(model.graph.node)"),
        ({"ops": ["Add"]}, "It is a dict"),
        ({"parameters": sum(int(np.prod(t.dims)) for t in given("1.2").graph.initializer)}, "no node reads"),
        ({"parameters": 4 * counts()["parameters"]}, "not bytes"),
        ({"unused": []}, "whose name is not in it"),
        ({"extra": 1}, "exactly those keys"),
    ],
)
def test_count_mistakes(change: dict, cause: str) -> None:
    assert cause in failed("1.2", counts() | change)


@pytest.mark.parametrize("answer", [None, 3, "text", [], [1, 2]])
def test_an_answer_that_is_no_object(answer: object) -> None:
    assert "write a dict with exactly those keys" in failed("1.2", answer)


def test_the_models_handed_out_are_broken_as_told() -> None:
    for task_id, words in {"1.3": "topologically sorted", "1.4": "topologically sorted"}.items():
        with pytest.raises(onnx.checker.ValidationError, match=words):
            onnx.checker.check_model(given(task_id))
    onnx.checker.check_model(given("1.5"))  # the plain check finds nothing, as the task says
    with pytest.raises(onnx.shape_inference.InferenceError):
        onnx.checker.check_model(given("1.5"), full_check=True)


def sorted_nodes(model: ModelProto) -> ModelProto:
    waiting, known = list(model.graph.node), {"x"} | {t.name for t in model.graph.initializer}
    del model.graph.node[:]
    while waiting:
        ready = next(node for node in waiting if known.issuperset(node.input))
        waiting.remove(ready)
        model.graph.node.append(ready)
        known.update(ready.output)
    return model


def renamed(model: ModelProto) -> ModelProto:
    right = {t.name.replace("_", ""): t.name for t in model.graph.initializer}
    for node in model.graph.node:
        node.input[:] = [right.get(name, name) for name in node.input]
        if node.name == "activate_1":
            node.output[0] = "hidden"
    return model


def retyped(model: ModelProto) -> ModelProto:
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 4
    return model


REPAIRS = {"1.3": sorted_nodes, "1.4": renamed, "1.5": retyped}


@pytest.mark.parametrize("student", STUDENTS)
@pytest.mark.parametrize("task_id", REPAIRS)
def test_repairs_pass(task_id: str, student: str) -> None:
    accepted(task_id, REPAIRS[task_id](given(task_id, student)), student)


@pytest.mark.parametrize(
    ("task_id", "cause"),
    [("1.3", "topologically sorted"), ("1.4", "topologically sorted"), ("1.5", "inconsistent type")],
)
def test_handing_back_the_broken_model(task_id: str, cause: str) -> None:
    assert cause in failed(task_id, given(task_id))


def test_a_weight_renamed_instead_of_the_node() -> None:
    model = renamed(given("1.4"))
    model.graph.initializer[0].name = "other"
    for node in model.graph.node:
        node.input[:] = ["other" if name == "kernel_1" else name for name in node.input]
    assert "made to fit the weights" in failed("1.4", model)


def test_a_node_left_out() -> None:
    model = sorted_nodes(given("1.3"))
    model.graph.node[-1].op_type = "Sigmoid"
    assert "Repair it, do not rewrite it" in failed("1.3", model)


def test_names_that_fit_but_are_exchanged() -> None:
    model = sorted_nodes(given("1.3"))
    by_name = {node.name: node for node in model.graph.node}
    by_name["multiply_2"].input[0] = by_name["activate_1"].input[0]  # reads the sum before the ReLU
    assert "reads or writes a wrong name" in failed("1.3", model)


def test_an_empty_model() -> None:
    assert "The checker says: The model does not have an ir_version" in failed("1.3", ModelProto())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("whole") / "fashion_resnet.onnx")
    batch = ({0: torch.export.Dim("batch")},)
    example = (torch.randn(2, 1, 28, 28),)
    torch.onnx.export(fashion_resnet(), example, path, dynamic_shapes=batch, external_data=False, verbose=False)
    return path


BLOCKS = ["stage1.0", "stage1.1", "stage2.0", "stage2.1", "stage2.2", "stage2.3"]


def cut(whole: str, first: int, last: int, *, relu: bool = True) -> ModelProto:
    """The blocks first … last of the network; relu: with the last ReLU."""
    nodes = onnx.load(whole).graph.node
    sums = [node.output[0] for node in nodes if node.op_type == "Add"]
    ends = [node.output[0] for node in nodes if node.op_type == "Relu" and node.input[0] in sums]
    path = whole.replace(".onnx", "_cut.onnx")
    onnx.utils.extract_model(whole, path, [ends[first - 1]], [ends[last] if relu else sums[last]])
    return onnx.load(path)


@pytest.mark.parametrize("student", STUDENTS)
def test_cut_passes(whole: str, student: str) -> None:
    index = BLOCKS.index(params("1.6", student)["block"])
    accepted("1.6", cut(whole, index, index), student)


def test_cut_mistakes(whole: str) -> None:
    student = next(s for s in map(str, range(100)) if params("1.6", s)["block"] == "stage2.2")
    assert "The last ReLU is missing" in failed("1.6", cut(whole, 4, 4, relu=False), student)
    assert "one of its neighbours" in failed("1.6", cut(whole, 5, 5), student)
    assert "Begin at the block's input" in failed("1.6", cut(whole, 4, 5), student)
    assert "The cut begins after the ReLU of the block before" in failed("1.6", onnx.load(whole), student)
    accepted("1.6", cut(whole, 4, 4), student)
