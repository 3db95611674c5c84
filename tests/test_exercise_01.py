"""Exercises 01: right answers by different roads pass; each typical mistake fails with a hint that names its cause."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.utils
import pytest
import torch
from answers import accepted, criteria, damaged, failed, given, hints, nearly, params
from onnx import ModelProto, TensorProto, helper, numpy_helper

import course_utils as cu
from course_utils.exercises import task
from course_utils.exercises.ch01 import tasks as ch01
from course_utils.exercises.examine import result
from course_utils.exercises.fashion_reference import BLOCKS, blocks, network
from course_utils.handin.points import task_points

# 1.1


def formula(who: str = "ada", dtype: int = TensorProto.FLOAT, batch: str | int = "batch", **changed: Any) -> ModelProto:
    p = {**params("1.1", who), **changed}
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


def formula_text(who: str, body: str, functions: str = "", imports: str = '"": 18') -> ModelProto:
    """As text. f, a, b, c: the student's."""
    p = params("1.1", who)
    stored = ", ".join(f"float {n} = {{{p[n]}}}" for n in "abc")
    return onnx.parser.parse_model(
        f"<ir_version: 10, opset_import: [{imports}]> formula (float[n, 3] x) => (float[n, 3] y) <{stored}> "
        f"{{ {body.replace('F(', p['f'] + '(')} }} {functions.replace('F(', p['f'] + '(')}"
    )


def formula_as_gemm(who: str) -> ModelProto:
    p = params("1.1", who)
    nodes = [
        helper.make_node("Gemm", ["x", "A", "B"], ["inner"]),
        helper.make_node("MatMul", ["x", "C"], ["cx"]),
        helper.make_node(p["f"], ["inner"], ["outer"]),
        helper.make_node("Sum", ["cx", "outer"], ["y"]),
    ]
    stored = {"A": p["a"] * np.eye(3), "B": np.full(3, p["b"]), "C": p["c"] * np.eye(3)}
    model = formula(who)
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(v.astype(np.float32), n) for n, v in stored.items())
    return model


def weights_listed_first(model: ModelProto) -> ModelProto:
    """As files of IR version 3 have it, and older exporters: initializers among the inputs, in front of `x`."""
    real = list(model.graph.input)
    del model.graph.input[:]
    model.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in model.graph.initializer
    )
    model.graph.input.extend(real)
    return model


def in_a_function(who: str) -> ModelProto:
    return formula_text(
        who,
        "y = own.part(x, a, b, c)",
        '<domain: "own", opset_import: ["": 18]> part (x, a, b, c) => (y) '
        "{ ax = Mul(a, x)  i = Add(b, ax)  o = F(i)  cx = Mul(c, x)  y = Add(cx, o) }",
        '"": 18, "own": 1',
    )


def with_constants() -> ModelProto:
    model = formula()
    constants = [helper.make_node("Constant", [], [t.name], value=t) for t in model.graph.initializer]
    nodes = [*constants, *model.graph.node]
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def with_dangling_f() -> ModelProto:
    """f by other operators; the node of that name stands there, and changes nothing."""
    assert params("1.1")["f"] == "Relu"
    return formula_text(
        "ada",
        "ax = Mul(a, x)  i = Add(ax, b)  z = Sub(a, a)  o = Max(i, z)  idle = F(i)  cx = Mul(c, x)  y = Add(o, cx)",
    )


def with_f_times_zero() -> ModelProto:
    return formula_text(
        "ada",
        "ax = Mul(a, x)  i = Add(ax, b)  z = Sub(a, a)  o = Max(i, z)  f = F(i)  idle = Mul(f, z)  cx = Mul(c, x) "
        "s = Add(o, cx)  y = Add(s, idle)",
    )


def other_head(**head: int) -> ModelProto:
    model = formula()
    model.ir_version = head.get("ir", 10)
    model.opset_import[0].version = head.get("opset", 18)
    return model


# 1.2


def test_unread_tensors_stand_anywhere() -> None:
    """Where one stands in the list tells nothing."""
    for end in (0, -1):
        unread = {given("1.2", who).graph.initializer[end].name in counts(who)["unused"] for who in map(str, range(30))}
        assert unread == {True, False}


def counts(who: str = "ada") -> dict[str, Any]:
    graph = given("1.2", who).graph
    read = {name for node in graph.node for name in node.input}
    ops = [node.op_type for node in graph.node]
    return {
        "nodes": len(ops),
        "ops": {op: ops.count(op) for op in ops},
        "parameters": sum(int(np.prod(t.dims)) for t in graph.initializer if t.name in read),
        "unused": sorted(t.name for t in graph.initializer if t.name not in read),
    }


def counts_with_the_helpers(who: str) -> dict[str, Any]:
    """Tables in place of loops; numbers come as floats, and names in the file's order."""
    model = given("1.2", who)
    stored = cu.tensor_table(model).query("role == 'initializer'").set_index("tensor")["bytes"] / 4
    used = {name for names in cu.node_table(model)["inputs"] for name in names.split(", ")}
    ops = cu.op_histogram(model).astype(float)
    return {
        "nodes": float(ops.sum()),
        "ops": ops.to_dict(),
        "parameters": float(stored[stored.index.isin(used)].sum()),
        "unused": [name for name in stored.index if name not in used],
    }


def counted(**changed: Any) -> dict[str, Any]:
    return counts() | changed


def sizes(read: bool | None = None) -> list[int]:
    """Of the initializers of ada's model: all, those that are read, or those that are not."""
    idle = counts()["unused"]
    stored = given("1.2").graph.initializer
    return [int(np.prod(t.dims)) for t in stored if read is None or (t.name not in idle) == read]


# 1.3 to 1.5


def sorted_nodes(model: ModelProto, pick: int = 0) -> ModelProto:
    """pick: which of the nodes that can come next is taken, first or last."""
    waiting, known = list(model.graph.node), {"x"} | {t.name for t in model.graph.initializer}
    del model.graph.node[:]
    while waiting:
        ready = [node for node in waiting if known.issuperset(node.input)][pick]
        waiting.remove(ready)
        model.graph.node.append(ready)
        known.update(ready.output)
    return model


def other_names(model: ModelProto) -> ModelProto:
    """Every tensor between two nodes is called differently, nodes have no names, and shapes are written down."""
    inner = {name: f"tensor_{name}" for node in model.graph.node for name in node.output if name != "y"}
    for node in model.graph.node:
        node.input[:] = [inner.get(name, name) for name in node.input]
        node.output[:] = [inner.get(name, name) for name in node.output]
        node.name = ""
    return onnx.shape_inference.infer_shapes(model)


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


def retyped_in_place(model: ModelProto) -> ModelProto:
    """Values as a list of floats, not as raw bytes; the promise is taken back, not corrected."""
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(helper.make_tensor(tensor.name, TensorProto.FLOAT, values.shape, values.ravel().tolist()))
    model.graph.output[0].type.tensor_type.shape.dim[1].Clear()
    return model


REPAIRS = {"1.3": sorted_nodes, "1.4": renamed, "1.5": retyped}


def repaired(task_id: str, who: str = "ada") -> ModelProto:
    return REPAIRS[task_id](given(task_id, who))


def rewired(task_id: str, name: str, source: str, at: int = 0) -> ModelProto:
    """A repaired model in which one node reads what another node writes."""
    model = repaired(task_id)
    by_name = {node.name: node for node in model.graph.node}
    by_name[name].input[at] = by_name[source].output[0] if source in by_name else source
    return sorted_nodes(model)


def with_other_weight(task_id: str) -> ModelProto:
    model = repaired(task_id)
    tensor = model.graph.initializer[1]
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(1e-3), tensor.name))
    return model


def with_other_node(task_id: str) -> ModelProto:
    model = repaired(task_id)
    model.graph.node[-1].op_type = "Sigmoid"
    return model


def weight_renamed_in_place_of_the_node() -> ModelProto:
    model = repaired("1.4")
    model.graph.initializer[0].name = "other"
    for node in model.graph.node:
        node.input[:] = ["other" if name == "weight_1" else name for name in node.input]
    return model


def with_a_cast() -> ModelProto:
    """A node that converts the weight, in place of a weight of the right type."""
    model = given("1.5")
    (tensor,) = (t for t in model.graph.initializer if t.data_type == TensorProto.DOUBLE)
    for node in model.graph.node:
        node.input[:] = ["narrow" if name == tensor.name else name for name in node.input]
    model.graph.node.insert(0, helper.make_node("Cast", [tensor.name], ["narrow"], to=TensorProto.FLOAT))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 4
    return model


def half_repaired(task_id: str, broken: ModelProto) -> ModelProto:
    if task_id == "1.4":
        broken.graph.node[2].output[0] = "hidden"  # the misspelled name stays
    else:
        broken.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 4  # the double stays
    return broken


# 1.6


@functools.cache
def whole(dynamo: bool) -> bytes:
    """The trained network by either exporter; the older one folds each BatchNormalization into its convolution."""
    with tempfile.TemporaryDirectory() as folder, cu.exporter_messages():
        path, example = Path(folder, "whole.onnx"), (torch.randn(2, 1, 28, 28),)
        how: dict[str, Any] = (
            {"dynamic_shapes": ({0: torch.export.Dim("batch")},), "external_data": False, "verbose": False}
            if dynamo
            else {"dynamic_axes": {"x": {0: "batch"}}, "dynamo": False, "input_names": ["x"]}
        )
        torch.onnx.export(cu.fashion_resnet(), example, path, **how)
        return path.read_bytes()


def cut(first: int, last: int, *, dynamo: bool = True, early: bool = False, relu: bool = True) -> ModelProto:
    """The blocks first … last of the network. early: with the ReLU in front of it. relu: with the last ReLU."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "whole.onnx"), Path(folder, "cut.onnx")
        source.write_bytes(whole(dynamo))
        nodes = onnx.load(source).graph.node
        sums = [node.output[0] for node in nodes if node.op_type == "Add"]
        ends = [node.output[0] for node in nodes if node.op_type == "Relu" and node.input[0] in sums]
        stem = next(node for node in nodes if node.op_type == "Relu")  # in front of the first block
        begin = ([stem.input[0], *sums] if early else [stem.output[0], *ends])[first]
        onnx.utils.extract_model(str(source), str(target), [begin], [ends[last] if relu else sums[last]])
        return onnx.load(target)


def own_blocks(who: str) -> tuple[int, int]:
    p = params("1.6", who)
    return BLOCKS.index(p["first"]), BLOCKS.index(p["last"])


def from_the_weights(who: str) -> ModelProto:
    first, last = own_blocks(who)
    model, value = blocks(BLOCKS[first : last + 1]), helper.make_tensor_value_info
    model.graph.input[0].CopyFrom(value("x", 1, ["n", 32, 14, 14] if first <= 2 else ["n", 64, 7, 7]))
    model.graph.output[0].CopyFrom(value(model.graph.output[0].name, 1, ["n", None, None, None]))
    return weights_listed_first(model)


RIGHT = {
    "1.1": (
        formula,
        formula_as_gemm,
        in_a_function,
        lambda who: weights_listed_first(formula(who)),
        lambda who: formula_text(who, "cx = Mul(c, x)  ax = Mul(a, x)  i = Add(b, ax)  o = F(i)  y = Add(cx, o)"),
    ),
    "1.2": (counts, counts_with_the_helpers),
    "1.3": (
        lambda who: repaired("1.3", who),
        lambda who: other_names(sorted_nodes(given("1.3", who), pick=-1)),
        lambda who: weights_listed_first(repaired("1.3", who)),
    ),
    "1.4": (lambda who: repaired("1.4", who), lambda who: other_names(repaired("1.4", who))),
    "1.5": (lambda who: repaired("1.5", who), lambda who: retyped_in_place(given("1.5", who))),
    "1.6": (
        lambda who: cut(*own_blocks(who)),
        lambda who: cut(*own_blocks(who), dynamo=False),
        from_the_weights,
    ),
}


def ours(name: str) -> float:
    return params("1.1")[name]


WRONG = {
    "1.1": {
        "c left out": (lambda who: formula(c=0), r"term c·x is missing"),
        "b left out": (lambda who: formula(b=0), r"b is missing"),
        "b subtracted": (lambda who: formula(b=-ours("b")), r"b has the wrong sign"),
        "c subtracted": (lambda who: formula(c=-ours("c")), r"c has the wrong sign"),
        "a negative": (lambda who: formula(a=-ours("a")), r"a has the wrong sign"),
        "a and b exchanged": (lambda who: formula(a=ours("b"), b=ours("a")), r"a and b are exchanged"),
        "b and c exchanged": (lambda who: formula(b=ours("c"), c=ours("b")), r"b and c are exchanged"),
        "c before f": (
            lambda who: formula_text(who, "ax = Mul(a, x)  i = Add(ax, b)  cx = Mul(c, x)  s = Add(i, cx)  y = F(s)"),
            r"f is applied to all of it",
        ),
        "b added first": (
            lambda who: formula_text(who, "s = Add(x, b)  i = Mul(s, a)  o = F(i)  cx = Mul(c, x)  y = Add(o, cx)"),
            r"b is added before a multiplies",
        ),
        "c not multiplied": (
            lambda who: formula_text(who, "ax = Mul(a, x)  i = Add(ax, b)  o = F(i)  y = Add(o, c)"),
            r"c is added, and not multiplied by x",
        ),
        "some other number": (lambda who: formula(a=ours("a") + 1), r"Print each step"),
        "batch frozen": (lambda who: formula(batch=5), r"must be a name such as 'batch'"),
        "double": (lambda who: formula(dtype=TensorProto.DOUBLE), r"x \(double\)"),
        "another f": (lambda who: formula(f="Neg"), r"your f is Relu"),
        "another opset": (lambda who: other_head(opset=17), r"opset 17 and IR version 10"),
        "another IR version": (lambda who: other_head(ir=8), r"opset 18 and IR version 8"),
        "Constant nodes": (lambda who: with_constants(), r"Constant make some of them: make initializers"),
        "f dangles": (lambda who: with_dangling_f(), r"y must be made with it"),
        "f times zero": (lambda who: with_f_times_zero(), r"y must be made with it"),
    },
    "1.2": {
        "nodes": (lambda who: counted(nodes=99), r"len\(model\.graph\.node\)"),
        "ops is a list": (lambda who: counted(ops=list(counts()["ops"])), r"It is a dict"),
        "one node forgotten": (lambda who: counted(ops=counts()["ops"] | {"Identity": 0}), r"ops is not right"),
        "unread ones counted": (lambda who: counted(parameters=sum(sizes())), r"You counted initializers that no node"),
        "only the unread": (lambda who: counted(parameters=sum(sizes(read=False))), r"and not those that are read"),
        "bytes": (lambda who: counted(parameters=4 * counts()["parameters"]), r"You counted bytes"),
        "tensors": (lambda who: counted(parameters=len(sizes(read=True))), r"the initializers, not the values"),
        "not a number": (lambda who: counted(parameters="many"), r"Multiply the dims"),
        "nothing unused": (lambda who: counted(unused=[]), r"whose name is not in it"),
        "all called unused": (
            lambda who: counted(unused=[t.name for t in given("1.2").graph.initializer]), r"whose name is not in it",
        ),
        "unused as one name": (lambda who: counted(unused=counts()["unused"][0]), r"whose name is not in it"),
        "the read ones": (
            lambda who: counted(
                unused=[t.name for t in given("1.2").graph.initializer if t.name not in counts()["unused"]]
            ),
            r"Those are the initializers that are read",
        ),
        "a key too many": (lambda who: counted(extra=1), r"exactly those keys"),
    },
    "1.3": {
        "as handed out": (lambda who: given("1.3"), r"topologically sorted"),
        "the ReLU passed by": (
            lambda who: rewired("1.3", "multiply_2", "add_1"),
            r"'multiply_2' takes 'add_1', and its author meant 'activate_1'",
        ),
        "the sum passed by": (lambda who: rewired("1.3", "activate_2", "add_2"), r"its author meant 'add_skip'"),
        "another operator": (lambda who: with_other_node("1.3"), r"Repair it, do not rewrite it"),
        "another weight": (lambda who: with_other_weight("1.3"), r"bias_1 was renamed, lost or changed"),
    },
    "1.4": {
        "as handed out": (lambda who: given("1.4"), r"topologically sorted"),
        "one of two": (lambda who: half_repaired("1.4", given("1.4")), r"topologically sorted"),
        "a weight renamed": (lambda who: weight_renamed_in_place_of_the_node(), r"made to fit the weights"),
        "the ReLU passed by": (lambda who: rewired("1.4", "multiply_2", "add_1"), r"its author meant 'activate_1'"),
        "x added nowhere": (lambda who: rewired("1.4", "add_skip", "add_2", at=1), r"'add_skip' takes 'add_2'.*'x'"),
    },
    "1.5": {
        "as handed out": (lambda who: given("1.5"), r"inconsistent type"),
        "one of two": (lambda who: half_repaired("1.5", given("1.5")), r"inconsistent type"),
        "a Cast": (lambda who: with_a_cast(), r"Repair it, do not rewrite it"),
        "another weight": (lambda who: with_other_weight("1.5"), r"was renamed, lost or changed"),
    },
    "1.6": {
        "no last ReLU": (lambda who: cut(*own_blocks(who), relu=False), r"The last ReLU is missing"),
        "begun before the ReLU": (lambda who: cut(*own_blocks(who), early=True), r"in front of the ReLU of the block"),
        "both": (
            lambda who: cut(*own_blocks(who), early=True, relu=False),
            r"in front of the ReLU.*The last ReLU is missing",
        ),
        "one block less": (lambda who: cut(own_blocks(who)[0] + 1, own_blocks(who)[1]), r"It holds stage2\.2 to stage2\.3"),
        "begun too early": (lambda who: cut(own_blocks(who)[0] - 1, own_blocks(who)[1]), r"begins behind the ReLU of the"),
        "the whole network": (lambda who: onnx.load_from_string(whole(dynamo=True)), r"begins behind the ReLU of the"),
    },
}  # fmt: skip


@pytest.mark.parametrize("answer", [None, 3, "text", [], [1, 2], {"nodes": 1}])
def test_an_answer_that_is_no_object(answer: object) -> None:
    assert "write a dict with exactly those keys" in failed("1.2", answer)


def test_no_formula_passes_by_luck() -> None:
    """Numbers that are a little off are seen, whatever was drawn and wherever f is flat."""
    for who in map(str, range(60)):
        p = params("1.1", who)
        for name in "abc":
            failed("1.1", formula(who, **{name: p[name] * 1.05}), who)


@pytest.mark.parametrize("odd", [None, True, float("nan"), 10**400, -1, [[]], {"Relu": {}}, "12"], ids=repr)
def test_odd_counts_get_a_hint_and_no_points(odd: object) -> None:
    found = criteria("1.2", dict.fromkeys(counts(), odd))
    assert "the answer can be examined" not in [c.what for c in found]
    assert not any(c.passed for c in found if not c.condition)


def test_the_models_handed_out_are_broken_as_told() -> None:
    for task_id, words in {"1.3": "topologically sorted", "1.4": "topologically sorted"}.items():
        with pytest.raises(onnx.checker.ValidationError, match=words):
            onnx.checker.check_model(given(task_id))
    onnx.checker.check_model(given("1.5"))  # the plain check finds nothing, as the task says
    with pytest.raises(onnx.shape_inference.InferenceError):
        onnx.checker.check_model(given("1.5"), full_check=True)


def test_an_empty_model() -> None:
    assert "The checker says: The model does not have an ir_version" in failed("1.3", ModelProto())


@pytest.mark.parametrize("task_id", ["1.1", "1.3", "1.4", "1.5"])
def test_damaged_models_get_a_hint(task_id: str) -> None:
    for model in damaged(RIGHT[task_id][0]("ada"), task_id):
        assert "the answer can be examined" not in [c.what for c in criteria(task_id, model)]


def test_names_of_unread_initializers_tell_nothing() -> None:
    assert all(t.name.startswith("w") and len(t.name) == 4 for t in given("1.2").graph.initializer)


def test_nan_in_the_result_is_called_nan() -> None:
    model = formula()
    (tensor,) = (t for t in model.graph.initializer if t.name == "b")
    tensor.CopyFrom(numpy_helper.from_array(np.array(np.nan, np.float32), "b"))
    assert "15 of 15 numbers of the result are nan or infinite" in hints(criteria("1.1", model))


def test_the_reference_is_the_trained_network() -> None:
    x = np.random.default_rng(0).normal(size=(2, 1, 28, 28)).astype(np.float32)
    with torch.no_grad():
        want = cu.fashion_resnet()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(result(network(), {"x": x}), want, atol=1e-4)


def test_checking_a_cut_needs_no_pytorch(python, tmp_path: Path) -> None:
    (tmp_path / "cut.onnx").write_bytes(from_the_weights("ada").SerializeToString())
    python(
        """
        import sys, onnx
        from course_utils.handin.assessing import assess
        from course_utils.exercises import task
        assert all(c.passed for c in assess(task("1.6"), onnx.load("cut.onnx"), "ada"))
        assert "torch" not in sys.modules
        """,
        cwd=tmp_path,
    )


def test_every_student_can_cut() -> None:
    """Every pair of blocks that may be drawn."""
    drawn = {(p["first"], p["last"]) for p in (params("1.6", str(n)) for n in range(300))}
    assert len(drawn) == 15
    assert {first for first, _ in drawn} == set(ch01.BLOCKS[1:])
    accepted("1.6", from_the_weights("grace"), "grace")


@pytest.mark.parametrize("task_id", ["1.1", "1.6"])
def test_one_percent_off_is_wrong(task_id: str) -> None:
    """And the hint blames nothing that is in order."""
    found = criteria(task_id, nearly(RIGHT[task_id][0]("ada")))
    assert task_points(task(task_id), found)[0] == 0
    assert hints(found).startswith("The largest difference")
