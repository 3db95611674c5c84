"""Exercises 04: right answers pass for any student; each typical mistake fails with a hint that names its cause."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.shape_inference
import pytest
import torch
from answers import accepted, failed, given, params
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnxruntime.tools.onnx_model_utils import fix_output_shapes, make_dim_param_fixed
from torch import nn
from torch.export import Dim

import course_utils as cu
from course_utils.exercises import Params, task
from course_utils.exercises.ch04 import _kinds

STUDENTS = ["ada", "grace@example.org", "s-1234567", "Жанна", "guest"]
ADA = {f"4.{n}": params(f"4.{n}", "ada") for n in range(1, 7)}


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ModelProto]:
    """torch.onnx.export into a model. names: input names, then one output name."""
    folder, made = tmp_path_factory.mktemp("export"), {}

    def run(key: str, module: nn.Module, example: tuple, names: list[str], **how: object) -> ModelProto:
        if key not in made:
            with cu.exporter_messages():
                torch.onnx.export(
                    module.eval(), example, folder / "model.onnx", input_names=names[:-1], output_names=names[-1:],
                    external_data=False, verbose=False, **how,
                )  # fmt: skip
            made[key] = (folder / "model.onnx").read_bytes()
        return ModelProto.FromString(made[key])

    return run


def renamed(model: ModelProto, dims: dict[str, str | int], io: dict[str, str] | None = None) -> ModelProto:
    """A copy in which dimensions (name → other name, or number), inputs and outputs are called differently."""
    copy = ModelProto.FromString(model.SerializeToString())
    names = io or {}
    for value in (*copy.graph.input, *copy.graph.output, *copy.graph.value_info):
        value.name = names.get(value.name, value.name)
        for dim in value.type.tensor_type.shape.dim:
            if isinstance(new := dims.get(dim.dim_param), int):
                dim.dim_value = new
            elif new:
                dim.dim_param = new
    for node in copy.graph.node:
        node.input[:] = [names.get(n, n) for n in node.input]
        node.output[:] = [names.get(n, n) for n in node.output]
    return copy


@pytest.fixture(scope="module")
def free(export: Callable[..., ModelProto]) -> ModelProto:
    """fashion_resnet with batch B, height H and width W free."""
    shapes = ({0: "B", 2: "H", 3: "W"},)
    return export("free", cu.fashion_resnet(), (torch.randn(2, 1, 28, 28),), ["i", "o"], dynamic_shapes=shapes)


# 4.1


def any_batch(free: ModelProto, p: Params, **dims: str | int) -> ModelProto:
    return renamed(free, {"B": p["name"], "H": 28, "W": 28} | dims, {"i": p["input"], "o": p["output"]})


@pytest.mark.parametrize("student", STUDENTS)
def test_any_batch_passes(free: ModelProto, student: str) -> None:
    accepted("4.1", any_batch(free, params("4.1", student)), student)


@pytest.mark.parametrize(
    ("dims", "cause"),
    [
        ({"B": 2}, "Axis 0 is frozen at 2: name it"),
        ({"B": "s77"}, "give it as a label, not as Dim.AUTO"),
        ({"H": "height"}, "Axis 2 must stay the number 28"),
    ],
)
def test_any_batch_mistakes(free: ModelProto, dims: dict, cause: str) -> None:
    assert cause in failed("4.1", any_batch(free, ADA["4.1"], **dims))


def test_a_frozen_batch_is_refused_at_the_run(free: ModelProto) -> None:
    assert "was fed shape" in failed("4.1", any_batch(free, ADA["4.1"], B=2))


def test_any_batch_with_the_wrong_names(free: ModelProto) -> None:
    p = ADA["4.1"]
    assert "Names and dtypes must be as the task says" in failed("4.1", any_batch(free, {**p, "input": "x"}))


def test_another_network(free: ModelProto) -> None:
    model = any_batch(free, ADA["4.1"])
    bias = next(t for t in model.graph.initializer if list(t.dims) == [10])
    bias.CopyFrom(numpy_helper.from_array(np.ones(10, np.float32), bias.name))
    assert "the numbers differ from PyTorch's" in failed("4.1", model)


# 4.2


def any_size(free: ModelProto, p: Params, **dims: str | int) -> ModelProto:
    return renamed(free, {"B": p["batch"], "H": p["height"], "W": p["width"]} | dims, {"i": "image", "o": "logits"})


@pytest.mark.parametrize("student", STUDENTS)
def test_any_size_passes(free: ModelProto, student: str) -> None:
    accepted("4.2", any_size(free, params("4.2", student)), student)


class Pooled(nn.Module):
    """The network of the task with another pooling."""

    def __init__(self, pool: Callable[[torch.Tensor], torch.Tensor], resize: bool = False) -> None:
        super().__init__()
        self.net, self.pool, self.resize = cu.fashion_resnet(), pool, resize

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.resize:
            x = nn.functional.interpolate(x, size=(28, 28))
        return self.net.classifier(self.pool(self.net.stage2(self.net.stage1(self.net.stem(x)))).flatten(1))


def test_any_size_mistakes(export: Callable[..., ModelProto], free: ModelProto) -> None:
    p = ADA["4.2"]
    frozen = failed("4.2", any_size(free, p, H=28, W=28))
    assert "frozen at 28: name it" in frozen
    assert "It is refused: Input 'image' was fed shape" in frozen
    example, names = (torch.randn(2, 1, 28, 28),), ["image", "logits"]
    as_dims = {0: Dim(p["batch"]), 2: Dim(p["height"]), 3: Dim(p["width"])}
    window = Pooled(lambda maps: nn.functional.avg_pool2d(maps, 7))
    cornered = export("window", window, example, names, dynamic_shapes=(as_dims,))
    assert "pooling a fixed window is something else" in failed("4.2", cornered)
    labels = {0: p["batch"], 2: p["height"], 3: p["width"]}
    resized = Pooled(lambda maps: maps.mean((2, 3)), resize=True)
    assert "Resizing the picture" in failed("4.2", export("resize", resized, example, names, dynamic_shapes=(labels,)))
    largest = Pooled(lambda maps: maps.amax((2, 3)))
    assert "Even the size of the training differs" in failed(
        "4.2", export("max", largest, example, names, dynamic_shapes=(labels,))
    )


# 4.3


def shared(student: str = "ada", length: tuple = ("L", "L"), keep: str = "", **changed: float) -> ModelProto:
    """By hand: exporting it for each mistake would take long. keep: a part that is left out."""
    p = {**params("4.3", student), **changed}
    first, second = (p["length"] if name == "L" else name for name in length)
    steps = [
        "weights = Cast<to = 1>(mask)" if keep != "mask" else "weights = Sigmoid(large)",
        "w3 = Unsqueeze(weights, two)",
        "scaled = Mul(values, scale)",
        "t = Tanh(scaled)",
        "tw = Mul(t, w3)",
        "total = ReduceSum<keepdims = 0>(tw, one)",
        "count = ReduceSum<keepdims = 0>(w3, one)" if keep != "count" else "count = Identity(seven)",
        "m = Div(total, count)",
        "mean = Add(m, shift)",
    ]
    if keep == "mask":
        steps[:0] = ["f = Cast<to = 1>(mask)", "a = Abs(f)", "large = Add(a, hundred)"]
    if keep == "length":
        steps[6] = "count = ReduceMean<keepdims = 0>(w3, one)"
    model = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["": 18]>
        g (float[{p["batch"]}, {first}, 4] values, int64[{p["batch"]}, {second}] mask) => (float[{p["batch"]}, 4] mean)
        <float[1] scale = {{{p["scale"]}}}, float[1] shift = {{{p["shift"]}}}, int64[1] one = {{1}}, int64[1] two = {{2}},
         float[1] seven = {{7.0}}, float[1] hundred = {{100.0}}>
        {{ {chr(10).join(steps)} }}""")
    if keep == "count":  # the steps of the example in place of those of the mask
        node = next(n for n in model.graph.node if n.output[0] == "total")
        node.op_type = "ReduceMean"
        model.graph.node.remove(next(n for n in model.graph.node if n.output[0] == "count"))
        next(n for n in model.graph.node if n.output[0] == "m").op_type = "Identity"
        del next(n for n in model.graph.node if n.output[0] == "m").input[1]
    return model


@pytest.mark.parametrize("student", STUDENTS)
def test_shared_passes(student: str) -> None:
    accepted("4.3", shared(student), student)


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ({"length": ("L", "mask_length")}, "use the same label"),
        ({"length": (7, "L")}, "Axis 1 is frozen at 7"),
        ({"length": (7, 7)}, "It is refused"),
        ({"length": ("s27", "s27")}, "give it as a label"),
        ({"keep": "mask"}, "The mask has no effect"),
        ({"keep": "count"}, "divides by the whole length"),
        ({"shift": 0.0}, "The shift is missing"),
        ({"scale": 1.0}, "The scale is missing"),
    ],
)
def test_shared_mistakes(how: dict, cause: str) -> None:
    assert cause in failed("4.3", shared(**how))


# 4.4


class Reader(nn.Module):
    """The network of the task in one of several forms."""

    def __init__(self, form: str, seed: int, decay: float, length: int) -> None:
        super().__init__()
        self.register_buffer("table", torch.from_numpy(np.random.default_rng(seed).normal(0, 1, (48, 6))).float())
        self.form, self.decay, self.length = form, decay, length

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.table[: x.shape[1]] if self.form != "no table" else x
        if self.form == "loop":
            state = torch.zeros_like(x[:, 0])
            for t in range(x.shape[1]):
                state = self.decay * state + x[:, t]
            return state
        age = torch.arange(x.shape[1] - 1, -1, -1)
        if self.form == "flipped":
            age = torch.arange(x.shape[1])
        decay = 1.0 if self.form == "no decay" else self.decay
        return (x * (decay**age)[:, None]).sum(1)


def reader(export: Callable[..., ModelProto], form: str, shapes: dict, student: str = "ada") -> ModelProto:
    p = params("4.4", student)
    key = f"{form} {list(map(str, shapes.values()))} {student}"
    return export(key, Reader(form, **p), (torch.randn(2, p["length"], 6),), ["x", "y"], dynamic_shapes=(shapes,))


LABELS = {0: "batch", 1: "length"}


@pytest.mark.parametrize("student", STUDENTS[:3])
def test_reader_passes(export: Callable[..., ModelProto], student: str) -> None:
    accepted("4.4", reader(export, "sum", LABELS, student), student)


@pytest.mark.parametrize(
    ("form", "shapes", "cause"),
    [
        ("loop", {0: Dim("batch"), 1: Dim("length")}, "see whether the exporter kept it"),
        ("loop", {0: Dim.AUTO, 1: Dim.AUTO}, "ignores the others: the loop over range"),
        ("flipped", LABELS, "The weights run the wrong way"),
        ("no decay", LABELS, "the decay got lost"),
        ("no table", LABELS, "The table of positions is not added"),
    ],
)
def test_reader_mistakes(export: Callable[..., ModelProto], form: str, shapes: dict, cause: str) -> None:
    assert cause in failed("4.4", reader(export, form, shapes))


# 4.5


def fixed(student: str = "ada", infer: bool = True, outputs: bool = True, **sizes: int) -> ModelProto:
    model, p = given("4.5", student), params("4.5", student)
    for name in ("batch", "length"):
        if name not in sizes or sizes[name]:
            make_dim_param_fixed(model.graph, name, sizes.get(name, p[name]))
    if outputs:
        fix_output_shapes(model)
    if infer:
        del model.graph.value_info[:]
        model = onnx.shape_inference.infer_shapes(model)
    return model


@pytest.mark.parametrize("student", STUDENTS)
def test_static_passes(student: str) -> None:
    accepted("4.5", fixed(student), student)


def only_the_inputs() -> ModelProto:
    model, p = given("4.5"), ADA["4.5"]
    for axis, name in enumerate(("batch", "length")):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = p[name]
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = p["batch"]
    return model


def not_described() -> ModelProto:
    model = fixed()
    del model.graph.value_info[:]
    return model


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (lambda: given("4.5"), "is still a name"),
        (lambda: fixed(length=0), "'length' is still a name"),
        (lambda: fixed(infer=False), "a formula of a name is not replaced"),
        (only_the_inputs, "the inputs were changed by hand"),
        (not_described, "run onnx.shape_inference.infer_shapes"),
        (lambda: fixed(batch=ADA["4.5"]["length"], length=ADA["4.5"]["batch"]), "Batch and length are exchanged"),
        (lambda: fixed(batch=33), "your sizes are batch"),
    ],
)
def test_static_mistakes(answer: Callable[[], ModelProto], cause: str) -> None:
    assert cause in failed("4.5", answer())


# 4.6


def test_descriptions_without_a_shape_are_no_shapes() -> None:
    model = fixed()
    for value in model.graph.value_info:
        value.type.tensor_type.ClearField("shape")
    assert "have no shape in the file" in failed("4.5", model)


@pytest.mark.parametrize("student", STUDENTS)
def test_suspects_pass(student: str) -> None:
    accepted("4.6", _kinds(params("4.6", student)), student)


def test_each_suspect_is_what_it_is_said_to_be() -> None:
    """Probed as a student would, so that the answer follows from the files."""
    p, it = ADA["4.6"], task("4.6")

    class Meant(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return p["factor"] * x.sum(1)

    verdicts = {"free": "free", "frozen": "frozen at", "only": "says any, takes", "wrong": "wrong numbers"}
    assert it.given is not None
    for (letter, kind), model in zip(_kinds(p).items(), it.given(p).values(), strict=True):
        found = cu.probe_sizes(model, torch.randn(2, p["example"], 3), Meant())["verdict"].iloc[1]
        assert found.startswith(verdicts[kind]), letter


def test_the_answer_is_not_among_the_parameters() -> None:
    assert set(ADA["4.6"]) == {"seed", "example", "factor"}


@pytest.mark.parametrize(
    ("kind", "said", "cause"),
    [
        ("free", "frozen", "has a name there"),
        ("frozen", "free", "there is a number"),
        ("frozen", "only", "the file says so"),
        ("only", "frozen", "has a name there"),
        ("only", "free", "whatever its file says"),
        ("wrong", "free", "for longer ones, too"),
        ("wrong", "only", "does take other lengths"),
        ("free", "wrong", "right at every length"),
        ("free", "free!", "is not one of"),
        ("free", ["free"], "is not one of"),
        ("wrong", "frozen", "Probe it"),
    ],
)
def test_suspects_mistakes(kind: str, said: object, cause: str) -> None:
    right = _kinds(ADA["4.6"])
    letter = next(name for name, value in right.items() if value == kind)
    assert cause in failed("4.6", right | {letter: said})


@pytest.mark.parametrize("answer", [None, 3, "text", [], {"a": "free"}])
def test_an_answer_of_another_form(answer: object) -> None:
    assert "write a dict with exactly those keys" in failed("4.6", answer)


# Absurd artefacts


def scalar_model() -> ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, [])],
        [value("y", TensorProto.FLOAT, [])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.mark.parametrize("task_id", ["4.1", "4.2", "4.3", "4.4", "4.5"])
@pytest.mark.parametrize("answer", [ModelProto, scalar_model], ids=["empty", "a single number"])
def test_absurd_models_get_a_hint(task_id: str, answer: Callable[[], ModelProto]) -> None:
    failed(task_id, answer())


def test_no_answer_of_another_student_passes(free: ModelProto) -> None:
    grace = params("4.5", "grace@example.org")
    assert (grace["batch"], grace["length"]) != (ADA["4.5"]["batch"], ADA["4.5"]["length"])
    failed("4.5", fixed("grace@example.org"))
    failed("4.3", shared("grace@example.org"))


def test_nothing_is_written_beside_the_notebook(folder: Path) -> None:
    accepted("4.5", fixed())
    assert list(folder.iterdir()) == []
