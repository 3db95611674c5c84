"""Exercises 09, the hospital: every patient fails and is told its illness, the healed pass, typical mistakes are named."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from answers import STUDENTS, criteria, failed, params
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference

import course_utils as cu
from course_utils.exercises import examine, personal_params, task, tasks_of
from course_utils.exercises.ch09 import diverging, hospital
from course_utils.exercises.ch09 import export as hospital_export
from course_utils.exercises.ch09 import speed as hospital_speed
from course_utils.running import run_all


@pytest.fixture(autouse=True)
def _no_recommendations() -> Iterator[None]:
    """Quantization recommends a step that no case needs. Other tests in this process listen to what is logged."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    yield
    root.setLevel(level)


node = helper.make_node
NUMBERS = [f"9.{n}" for n in range(1, 17)]
FEW = STUDENTS[:3]


def handed_out(task_id: str, who: str = "ada") -> dict[str, Any]:
    it = task(task_id)
    assert it.given is not None
    return dict(it.given(personal_params(it, who)))


def the(task_id: str, who: str = "ada", ending: str = ".onnx") -> ModelProto:
    return next(m for name, m in handed_out(task_id, who).items() if name.endswith(ending))


def numbers_of(model: ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def put(model: ModelProto, **values: np.ndarray) -> ModelProto:
    """Replace or add stored tensors."""
    for name, value in values.items():
        old = next((t for t in model.graph.initializer if t.name == name), None)
        (old if old is not None else model.graph.initializer.add()).CopyFrom(numpy_helper.from_array(value, name))
    return model


def shape_of(value: onnx.ValueInfoProto, *dims: int | str) -> None:
    for dim, size in zip(value.type.tensor_type.shape.dim, dims, strict=False):
        dim.Clear()
        if isinstance(size, str):
            dim.dim_param = size
        else:
            dim.dim_value = size


# The healed


def free_batch(who: str = "ada", table: int = 0) -> ModelProto:
    model = the("9.1", who)
    for value in (model.graph.input[0], model.graph.output[0]):
        shape_of(value, "batch")
    return put(model, table=np.array([table, 3, 4]), flat=np.array([table, 12]))


def older_opset(who: str = "ada", axes: tuple[int, ...] = (1,)) -> ModelProto:
    model = the("9.2", who)
    model.opset_import[0].version = params("9.2", who)["opset"]
    for n in model.graph.node:
        if n.op_type == "Split":
            del n.attribute[1]
        elif n.op_type == "ReduceMean":
            del n.input[1]
            if axes:
                n.attribute.append(helper.make_attribute("axes", axes))
    stored = [t for t in model.graph.initializer if t.name != "axes"]
    del model.graph.initializer[:]
    model.graph.initializer.extend(stored)
    return model


def older_ir(who: str = "ada") -> ModelProto:
    model = the("9.3", who)
    model.ir_version = params("9.3", who)["reads"]
    return model


def with_weights(who: str = "ada", way: str = "right") -> ModelProto:
    files = handed_out("9.4", who)
    model, data, at = files["9.4.onnx"], files["9.4_weights.bin"], 0
    for tensor in model.graph.initializer:
        entry = {e.key: e.value for e in tensor.external_data}
        length = int(entry["length"])
        start = {"right": int(entry["offset"]), "from the start": 0, "in order": at, "zeros": 0}[way]
        tensor.raw_data = bytes(length) if way == "zeros" else data[start : start + length]
        at += length
        tensor.ClearField("external_data")
        tensor.data_location = TensorProto.DEFAULT
    return model


def rewritten(who: str = "ada", value: float | None = None, ops: list[onnx.NodeProto] | None = None) -> ModelProto:
    model, p = the("9.5", who), params("9.5", who)
    put(model, k=np.float32(p["value"] if value is None else value))
    steps = (
        ops
        or {
            "ScaledSwish": [
                node("Mul", ["h", "k"], ["i"]),
                node("Sigmoid", ["i"], ["j"]),
                node("Mul", ["h", "j"], ["a"]),
            ],
            "SquaredRelu": [node("Relu", ["h"], ["i"]), node("Mul", ["i", "i"], ["j"]), node("Mul", ["j", "k"], ["a"])],
            "SoftClip": [node("Div", ["h", "k"], ["i"]), node("Tanh", ["i"], ["j"]), node("Mul", ["j", "k"], ["a"])],
        }[p["operator"]]
    )
    kept = [ModelProto.FromString(model.SerializeToString()).graph.node[i] for i in (0, 2)]
    nodes = [kept[0], *steps, kept[1]]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.opset_import[1]
    return model


def both_branches(
    who: str = "ada",
    *,
    threshold: float | None = None,
    swap: bool = False,
    measure: str = "ReduceMean",
    first: str = "9.6_above.onnx",
) -> ModelProto:
    p, files = params("9.6", who), handed_out("9.6", who)
    graphs, weights = {}, []
    for name, model in files.items():
        branch = onnx.compose.add_prefix(model, f"{name[4:-5]}/", rename_inputs=False, rename_outputs=True).graph
        graphs[name] = helper.make_graph(branch.node, name, [], branch.output)
        weights += list(branch.initializer)
    names = ["9.6_above.onnx", "9.6_below.onnx"]
    if swap:
        names.reverse()
    measured = (
        node("ReduceSum", ["x"], ["m"], keepdims=0)
        if measure == "ReduceSum"
        else node(measure, ["x"], ["m"], keepdims=0)
    )
    nodes = [
        measured,
        node("Greater", ["m", "t"], ["c"]),
        node("If", ["c"], ["y"], then_branch=graphs[names[0]], else_branch=graphs[names[1]]),
    ]
    base = files[first]
    del base.graph.node[:], base.graph.initializer[:]
    base.graph.node.extend(nodes)
    base.graph.initializer.extend(weights)
    return put(base, t=np.float32(p["threshold"] if threshold is None else threshold))


def by_row(who: str = "ada") -> ModelProto:
    model = both_branches(who)
    mean, greater, choice = model.graph.node
    bodies = [n for a in choice.attribute for n in a.g.node]
    ends = [a.g.output[0].name for a in choice.attribute if a.name == "then_branch"]
    ends += [a.g.output[0].name for a in choice.attribute if a.name == "else_branch"]
    mean.attribute[0].i = 1
    mean.attribute.append(helper.make_attribute("axes", [1]))
    nodes = [mean, greater, *bodies, node("Where", ["c", *ends], ["y"])]
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    return model


def in_evaluation(who: str = "ada", *, norm: bool = True, outputs: bool = True, dropout: bool = True) -> ModelProto:
    model = the("9.7", who)
    for n in model.graph.node:
        if n.op_type == "BatchNormalization":
            if norm:
                n.attribute[0].i = 0
            if norm and outputs:
                del n.output[1:]
    return put(model, training=np.array(False)) if dropout else model


def strict_session(who: str = "ada") -> dict[str, Any]:
    p = params("9.8", who)
    left = [n.name for n in the("9.8", who).graph.node if n.op_type not in p["takes"]]
    config = {"session.disable_cpu_ep_fallback": "1"}
    return {"providers": [hospital_speed._right_name(p)], "config": config, "on_cpu": left}


def static(source: ModelProto, data: np.ndarray, **options: Any) -> ModelProto:
    settings = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "per_channel": True}
    with TemporaryDirectory() as folder:
        file = str(Path(folder, "int8.onnx"))
        source = ModelProto.FromString(source.SerializeToString())  # it is changed on the way
        quantize_static(source, file, cu.Calibration(source, {"x": data}), **(settings | options))
        return onnx.load(file)


def dynamic(source: ModelProto, **options: Any) -> ModelProto:
    with TemporaryDirectory() as folder:
        files = [str(Path(folder, name)) for name in ("float.onnx", "int8.onnx")]
        onnx.save(source, files[0])
        quantize_dynamic(*files, **options)
        return onnx.load(files[1])


def normal(n: int = 100) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 3, 10, 10)).astype(np.float32)


def narrowed(who: str = "ada") -> ModelProto:
    """The wide channel is found by its size, as a student would."""
    model = the("9.9", who)
    values = {name: value.copy() for name, value in numbers_of(model).items()}
    for i in (1, 2):
        sizes = np.abs(values[f"weight{i}"]).max((1, 2, 3))
        channel, f = int(sizes.argmax()), float(sizes.max() / np.median(sizes))
        if f > 100:
            values[f"weight{i}"][channel] /= f
            values[f"bias{i}"][channel] /= f
            values[f"weight{i + 1}"][:, channel] *= f
    return put(model, **values)


def without_descriptions(who: str = "ada") -> ModelProto:
    model = the("9.10", who)
    del model.graph.value_info[:]
    return model


def uniform(who: str = "ada", stretch: float = 1) -> np.ndarray:
    p = params("9.11", who)
    draw = np.random.default_rng(0).uniform(p["low"] * stretch, p["high"] * stretch, (100, 3, 10, 10))
    return draw.astype(np.float32)


def scanned(who: str = "ada", *, start: str = "start", mistake: str = "") -> ModelProto:
    model, width = the("9.12", who), params("9.12", who)["width"]
    state = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [width]) for n in ("s_in", "x_t", "s_out", "s_all")]
    body = [
        node("MatMul", ["x_t", "from_input"], ["a"]),
        node("MatMul", ["s_in", "from_state"], ["b"]),
        node("Add", ["a", "b"], ["c"]),
        node("Tanh", ["c"], ["s_out"]),
    ]
    outputs, names = [state[2]], ["y"]
    if mistake == "all":
        body.append(node("Identity", ["s_out"], ["s_all"]))
        outputs, names = [state[2], state[3]], ["last", "y"]
    step = helper.make_graph(body, "step", state[:2], outputs)
    more = {"scan_input_directions": [1]} if mistake == "reversed" else {}
    scan = node("Scan", [start, "x"], names, "scan", body=step, num_scan_inputs=1, **more)
    stored = [t for t in model.graph.initializer if not t.name.startswith("index")]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.append(scan)
    model.graph.initializer.extend(stored)
    shape_of(model.graph.input[0], "steps")
    if mistake == "all":
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["steps", width]))
    return put(model, zeros=np.zeros(width, np.float32)) if start == "zeros" else model


def with_shapes(who: str = "ada", source: ModelProto | None = None) -> ModelProto:
    return SymbolicShapeInference.infer_shapes(source or the("9.13", who), auto_merge=True)


def merged(who: str = "ada", order: list[str] | None = None) -> ModelProto:
    files = handed_out("9.14", who)
    whole = None
    for letter in order or params("9.14", who)["order"]:
        stage = onnx.compose.add_prefix(files[f"9.14_{letter}.onnx"], f"{letter}/")
        if whole is None:
            whole = stage
            continue
        link = [(whole.graph.output[0].name, stage.graph.input[0].name)]
        whole = onnx.compose.merge_models(whole, stage, io_map=link)
    return renamed(whole, {whole.graph.input[0].name: "x", whole.graph.output[0].name: "y"})


def renamed(model: ModelProto, names: dict[str, str]) -> ModelProto:
    for n in model.graph.node:
        n.input[:] = [names.get(i, i) for i in n.input]
        n.output[:] = [names.get(o, o) for o in n.output]
    for value in (*model.graph.input, *model.graph.output):
        value.name = names.get(value.name, value.name)
    return model


def accepting(who: str = "ada", steps: list[str] | None = None, dtype: int = TensorProto.UINT8) -> ModelProto:
    model, p = the("9.15", who), params("9.15", who)
    current, nodes = p["sends"], []
    kinds: dict[str, Callable[[str, str], onnx.NodeProto]] = {
        "cast": lambda a, b: node("Cast", [a], [b], to=TensorProto.FLOAT),
        "divide": lambda a, b: node("Div", [a, "full"], [b]),
        "mean": lambda a, b: node("Sub", [a, "mean"], [b]),
        "deviation": lambda a, b: node("Div", [a, "deviation"], [b]),
        "times deviation": lambda a, b: node("Mul", [a, "deviation"], [b]),
        "turn": lambda a, b: node("Transpose", [a], [b], perm=[0, 3, 1, 2]),
        "swap": lambda a, b: node("Transpose", [a], [b], perm=[0, 3, 2, 1]),
        "reshape": lambda a, b: node("Reshape", [a, "target"], [b]),
    }
    steps = steps or ["cast", "divide", "mean", "deviation", "turn"]
    for i, step in enumerate(steps):
        after = "x" if i == len(steps) - 1 else f"p{i}"
        nodes.append(kinds[step](current, after))
        current = after
    old = [onnx.NodeProto.FromString(n.SerializeToString()) for n in model.graph.node]
    del model.graph.node[:], model.graph.input[:]
    model.graph.node.extend([*nodes, *old])
    model.graph.input.append(helper.make_tensor_value_info(p["sends"], dtype, p["shape"]))
    target = np.array([-1, 3, *p["shape"][1:3]])
    single = {"full": np.float32(255), "mean": np.float32(p["mean"]), "deviation": np.float32(p["deviation"])}
    return put(model, target=target, **single)


def both_files(who: str) -> tuple[ModelProto, ModelProto]:
    old, new = handed_out("9.16", who).values()
    return old, new


def inside(model: ModelProto) -> dict[str, np.ndarray]:
    """Node → its result for the picture of the task."""
    x = np.sin(np.arange(512)).reshape(2, 4, 8, 8).astype(np.float32)
    seen = run_all(model, {"x": x})
    return {n.name: seen[n.output[0]] for n in model.graph.node}


def diverged(who: str = "ada") -> dict[str, Any]:
    """By comparing all results, and then weights and attributes."""
    old, new = both_files(who)
    before, after = inside(old), inside(new)
    name = next(n for n in after if np.abs(before[n] - after[n]).max() > 1e-4)
    first, second = (next(n for n in m.graph.node if n.name == name) for m in (old, new))
    stored, changed = numbers_of(old), numbers_of(new)
    parts = [n for n in first.input if n in stored and not np.allclose(stored[n], changed[n], atol=1e-6)]
    said, says = ({a.name: helper.get_attribute_value(a) for a in n.attribute} for n in (first, second))
    parts += [n for n in ("pads", "alpha", "epsilon") if n in said and said[n] != says.get(n, said[n])]
    parts += ["axis"] * (says.get("axis", -1) not in (-1, 2))
    (part,) = parts
    return {"node": name, "difference": float(np.abs(before[name] - after[name]).max()), "part": part}


def diverged_by_mending(who: str = "ada") -> dict[str, Any]:
    """Put what one node of the old file reads or is told into the new one, until the result is as it was."""
    old, new = both_files(who)
    want, stored = inside(old), numbers_of(old)
    for n in old.graph.node:
        for part in [*(a.name for a in n.attribute), *(i for i in n.input if i in stored)]:
            if n.name == "classify" or part in ("auto_pad", "kernel_shape"):
                continue
            mended = ModelProto()
            mended.CopyFrom(new)
            other = next(m for m in mended.graph.node if m.name == n.name)
            if part in stored:
                put(mended, **{part: stored[part]})
            else:
                for a in [a for a in other.attribute if a.name in (part, "auto_pad")]:
                    other.attribute.remove(a)
                other.attribute.append(next(a for a in n.attribute if a.name == part))
            if np.allclose(inside(mended)["classify"], want["classify"], atol=2e-5):
                delta = np.abs(inside(new)[n.name] - inside(mended)[n.name]).max()
                return {"part": part, "node": n.name, "difference": round(float(delta), 7)}
    raise AssertionError("nothing mends it")


def with_node(choose: Callable[[dict[str, np.ndarray], dict[str, np.ndarray]], str]) -> Callable[[str], Any]:
    """The right answer with another node, and the true difference there."""

    def make(who: str) -> dict[str, Any]:
        before, after = map(inside, both_files(who))
        name = choose(before, after)
        return diverged(who) | {"node": name, "difference": float(np.abs(before[name] - after[name]).max())}

    return make


def with_difference(measure: Callable[[np.ndarray, np.ndarray], Any], at: str = "") -> Callable[[str], Any]:
    def make(who: str) -> dict[str, Any]:
        before, after = map(inside, both_files(who))
        name = at or diverged(who)["node"]
        return diverged(who) | {"difference": float(measure(before[name], after[name]))}

    return make


def relative_difference(before: np.ndarray, after: np.ndarray) -> Any:
    """Half of it for a student whose largest value is nearly 1: there, the relative difference is the right one."""
    largest = np.abs(before).max()
    return np.abs(before - after).max() / (largest if abs(largest - 1) > 0.1 else 2)


HEALED: dict[str, Callable[[str], Any]] = {
    "9.1": free_batch,
    "9.2": older_opset,
    "9.3": older_ir,
    "9.4": with_weights,
    "9.5": rewritten,
    "9.6": both_branches,
    "9.7": in_evaluation,
    "9.8": strict_session,
    "9.9": lambda who: static(narrowed(who), normal()),
    "9.10": lambda who: dynamic(without_descriptions(who)),
    "9.11": lambda who: static(the("9.11", who), uniform(who)),
    "9.12": scanned,
    "9.13": with_shapes,
    "9.14": merged,
    "9.15": accepting,
    "9.16": diverged,
}
# What the first hint of the check names when the patient itself is handed in.
ILLNESS = {
    "9.1": "refuses any other",
    "9.2": "too new for the server",
    "9.3": "reads files up to IR version",
    "9.4": "which does not exist",
    "9.5": "is no standard operator",
    "9.6": "that branch is baked in",
    "9.7": "training mode",
    "9.9": "a float model",
    "9.10": "value_info still describes the weights",
    "9.11": "a float model",
    "9.12": "the loop is unrolled",
    "9.13": "does not know com.microsoft::Gelu",
    "9.14": "there are three of them",
    "9.15": "goes by the name",
}


def test_the_hospital_is_complete() -> None:
    assert sorted(tasks_of(9)) == sorted(NUMBERS) == sorted(HEALED)
    for task_id in NUMBERS:
        assert len({str(params(task_id, who)) for who in STUDENTS}) > 1


@pytest.mark.parametrize("who", STUDENTS)
@pytest.mark.parametrize("task_id", NUMBERS)
def test_healed_passes(task_id: str, who: str) -> None:
    assert [c for c in criteria(task_id, HEALED[task_id](who), who) if not c.passed] == []


@pytest.mark.parametrize("who", STUDENTS)
@pytest.mark.parametrize("task_id", ILLNESS)
def test_patient_fails_and_its_illness_is_named(task_id: str, who: str) -> None:
    for model in handed_out(task_id, who).values():
        if isinstance(model, ModelProto):
            assert ILLNESS[task_id] in failed(task_id, model, who)


# What ONNX Runtime says to a patient; what the doctor finds in it.
SAID = {
    "9.1": "Got invalid dimensions for input: x",
    "9.2": "is under development",
    "9.3": "Unsupported model IR version",
    "9.4": "External data path",
    "9.5": "is not a registered function/op",
    "9.12": "Got invalid dimensions for input: x",
}
FOUND = {
    "9.1": "batch-fixed",
    "9.2": "opset-too-new",
    "9.3": "ir-too-new",
    "9.4": "external-file-missing",
    "9.5": "domain-unknown",
    "9.7": "batchnorm-in-training",
    "9.12": "loop-unrolled",
}


def on_disk(task_id: str) -> Path:
    cu.setup(student="ada")
    files = cu.given(task_id)
    return files[0] if isinstance(files, list) else files


def use(path: Path) -> None:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    session.run(None, {"x": np.zeros((11, session.get_inputs()[0].shape[1]), np.float32)})


@pytest.mark.parametrize("task_id", SAID)
def test_patients_are_ill(task_id: str, folder: Path) -> None:
    path = on_disk(task_id)
    with pytest.raises(Exception, match=SAID[task_id]):
        use(path)


@pytest.mark.parametrize("task_id", FOUND)
def test_the_doctor_sees_what_the_notebook_says(task_id: str, folder: Path) -> None:
    assert FOUND[task_id] in cu.doctor(on_disk(task_id)).codes
    assert FOUND[task_id] not in cu.doctor(HEALED[task_id]("ada")).codes


@pytest.mark.parametrize("task_id", ILLNESS)
def test_the_doctor_finds_no_error_in_the_healed(task_id: str) -> None:
    assert cu.doctor(HEALED[task_id]("ada")).errors == ()


@pytest.mark.parametrize("who", FEW)
def test_int8_really_collapses(who: str) -> None:
    x = normal()
    got, expected = (examine.result(m, {"x": x}) for m in (static(the("9.9", who), x), the("9.9", who)))
    assert hospital.relative_error(got, expected) > 0.3


@pytest.mark.parametrize("task_id", ILLNESS)
def test_nothing_and_something_else(task_id: str) -> None:
    assert failed(task_id, ModelProto())
    assert failed(task_id, HEALED["9.3" if task_id != "9.3" else "9.14"]("grace"))


@pytest.mark.parametrize("task_id", NUMBERS)
def test_three_hints_from_vague_to_plain(task_id: str) -> None:
    hints = task(task_id).hints
    assert len(hints) == len(set(hints)) == 3
    assert all(20 < len(hint) <= 500 for hint in hints)
    # What the answer is written with stands in the last hint, and not in the first.
    answer = {
        "9.1": "dim_param", "9.2": "axes", "9.3": "one number", "9.4": "load_external_data_for_model", "9.5": "initializer",
        "9.6": "ReduceMean", "9.7": "training_mode", "9.8": "disable_cpu_ep_fallback", "9.9": "Divide", "9.10": "del model",
        "9.11": "quantize_static", "9.12": "Scan", "9.13": "SymbolicShapeInference", "9.14": "merge_models", "9.15": "Cast",
        "9.16": "np.allclose",
    }[task_id]  # fmt: skip
    assert answer in hints[2]
    assert answer not in hints[0]


def test_hints_are_shown_one_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    cu.hint("9.4")
    assert capsys.readouterr().out == f"Hint 1 of 3: {task('9.4').hints[0]}\n"
    cu.hint("9.4", 3)
    assert "Hint 3 of 3: Load with" in capsys.readouterr().out
    for wrong in (0, 4, "2", True):
        with pytest.raises(cu.CourseError, match="numbered from 1 to 3"):
            cu.hint("9.4", wrong)
    with pytest.raises(cu.CourseError, match="There is no task"):
        cu.hint("9.99")


# Typical mistakes


@pytest.mark.parametrize("who", FEW)
def test_half_free_batches(who: str) -> None:
    batch = params("9.1", who)["batch"]
    assert "there the batch is frozen, too" in failed("9.1", free_batch(who, table=batch), who)
    assert "there the batch is frozen, too" in failed("9.1", free_batch(who, table=5), who)
    model = free_batch(who)
    shape_of(model.graph.output[0], batch)
    assert "contradicts itself" in failed("9.1", model, who)
    assert all(c.passed for c in criteria("9.1", free_batch(who, table=-1), who))


@pytest.mark.parametrize("who", FEW)
def test_opsets_that_are_only_renumbered(who: str) -> None:
    model = the("9.2", who)
    model.opset_import[0].version = params("9.2", who)["opset"]
    assert "Only the number was changed" in failed("9.2", model, who)
    assert "over all axes" in failed("9.2", older_opset(who, ()), who)
    assert "over the rows" in failed("9.2", older_opset(who, (0,)), who)


@pytest.mark.parametrize("who", FEW)
def test_other_versions_changed_in_place_of_the_ir_version(who: str) -> None:
    model = the("9.3", who)
    model.opset_import[0].version = 13
    assert "put it back" in failed("9.3", model, who)
    model.ir_version = 8
    assert "was not what is wrong" in failed("9.3", model, who)
    model = older_ir(who)
    model.ir_version = 3
    assert "each weight had to be an input" in failed("9.3", model, who)


@pytest.mark.parametrize("who", FEW)
def test_weights_read_the_wrong_way(who: str) -> None:
    assert "has an offset of its own" in failed("9.4", with_weights(who, "from the start"), who)
    assert "were never read" in failed("9.4", with_weights(who, "zeros"), who)
    order = params("9.4", who)["order"]
    if order != ["weight1", "bias1", "weight2"]:
        assert "Use offset and length" in failed("9.4", with_weights(who, "in order"), who)
    model = the("9.4", who)
    for tensor in model.graph.initializer:
        tensor.external_data[0].value = "9.4_weights.bin"
    assert "has none of them" in failed("9.4", model, who)


@pytest.mark.parametrize("who", STUDENTS)
def test_operators_that_are_not_the_same(who: str) -> None:
    value = params("9.5", who)["value"]
    assert "is ignored" in failed("9.5", rewritten(who, 1.0), who)
    assert "upside down" in failed("9.5", rewritten(who, 1 / value), who)
    assert "nothing stands in its place" in failed("9.5", rewritten(who, ops=[node("Identity", ["h"], ["a"])]), who)
    assert "plain Relu" in failed("9.5", rewritten(who, ops=[node("Relu", ["h"], ["a"])]), who)
    assert "compare your nodes" in failed("9.5", rewritten(who, ops=[node("Abs", ["h"], ["a"])]), who)


def test_operator_defined_in_the_file_is_no_stranger() -> None:
    model, p = the("9.5"), params("9.5")
    ops = list(rewritten().graph.node)[1:-1]
    constant = node("Constant", [], ["k"], value=numpy_helper.from_array(np.float32(p["value"])))
    imports = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("com.example", p["operator"], ["h"], ["a"], [constant, *ops], imports))
    del model.graph.node[1].attribute[:]
    assert all(c.passed for c in criteria("9.5", model))


@pytest.mark.parametrize("who", FEW)
def test_conditions_that_are_not_the_program(who: str) -> None:
    p = params("9.6", who)
    assert "are swapped" in failed("9.6", both_branches(who, swap=True), who)
    assert "compared with 0" in failed("9.6", both_branches(who, threshold=0.0), who)
    assert "wrong sign" in failed("9.6", both_branches(who, threshold=-p["threshold"]), who)
    assert "The sum is compared" in failed("9.6", both_branches(who, measure="ReduceSum"), who)
    assert "The largest number" in failed("9.6", both_branches(who, measure="ReduceMax"), who)
    assert "The smallest number" in failed("9.6", both_branches(who, measure="ReduceMin"), who)
    assert "Each row decides for itself" in failed("9.6", by_row(who), who)


@pytest.mark.parametrize("who", FEW)
def test_half_out_of_training(who: str) -> None:
    assert "BatchNormalization is in training mode" in failed("9.7", in_evaluation(who, norm=False), who)
    assert "Dropout is still switched on" in failed("9.7", in_evaluation(who, dropout=False), who)
    assert "Outside of training it has one output" in failed("9.7", in_evaluation(who, outputs=False), who)
    hidden = put(in_evaluation(who, dropout=False), ratio=np.float32(0))
    assert "the mode is still training" in failed("9.7", hidden, who)
    p = params("9.7", who)
    assert "made smaller" in failed("9.7", hospital_export._layers(p, norm="inference", dropout="shrunk"), who)
    assert "gone altogether" in failed("9.7", hospital_export._layers(p, norm="none", dropout="inference"), who)
    assert "still made larger" in failed("9.7", hospital_export._layers(p, norm="inference", dropout="scaled"), who)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda a, p: a | {"providers": [p["wrong_name"], "CPUExecutionProvider"], "config": {}}, "that is the illness"),
        (lambda a, p: a | {"providers": [p["wrong_name"]]}, "a name that nobody knows lands on the CPU"),
        (lambda a, p: a | {"providers": [*a["providers"], "CPUExecutionProvider"]}, "permission to fall back"),
        (lambda a, p: a | {"providers": a["providers"][0]}, "Write a list of names"),
        (lambda a, p: a | {"providers": ["GpuExecutionProvider"]}, "lists all real names"),
        (lambda a, p: a | {"config": {}}, "It started here, silently, on CPUExecutionProvider"),
        (lambda a, p: a | {"config": {"session.disable_cpu_ep_fallback": True}}, 'the texts "0" and "1" only'),
        (lambda a, p: a | {"config": {"session.disable_cpu_ep_fallback": "1", "a": "b"}}, "more in it"),
        (lambda a, p: a | {"config": None}, "a dict of text to text"),
        (lambda a, p: a | {"on_cpu": p["takes"]}, "names of operators"),
        (lambda a, p: a | {"on_cpu": [f"{op.lower()}_{i}" for i, op in enumerate(p["chain"]) if op in p["takes"]]}, "takes: the others"),
        (lambda a, p: a | {"on_cpu": a["on_cpu"][:1]}, "1 missing"),
        (lambda a, p: a | {"on_cpu": 3}, "a list of node names"),
        (lambda a, p: [], "exactly those keys"),
        (lambda a, p: a | {"more": 1}, "exactly those keys"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("who", FEW)
def test_sessions_that_fall_back(change: Any, cause: str, who: str) -> None:
    assert cause in failed("9.8", change(strict_session(who), params("9.8", who)), who)


@pytest.mark.parametrize("who", FEW)
def test_collapsed_and_not_quite_rescued(who: str) -> None:
    assert "still a thousand times wider" in failed("9.9", static(the("9.9", who), normal(), per_channel=False), who)
    assert "still a thousand times wider" in failed("9.9", static(the("9.9", who), normal()), who)
    layer = params("9.9", who)["layer"]
    left = [f"conv{layer}", f"conv{layer + 1}"]
    assert "1 do. The others stay in float" in failed(
        "9.9", static(the("9.9", who), normal(), nodes_to_exclude=left), who
    )
    assert "quantized dynamically" in failed("9.9", dynamic(the("9.9", who)), who)


@pytest.mark.parametrize("who", FEW)
def test_wrong_ways_around_the_crash(who: str) -> None:
    with pytest.raises(Exception, match="Inferred shape and existing shape differ"):
        dynamic(the("9.10", who))
    left = dynamic(without_descriptions(who), nodes_to_exclude=["first_MatMul"])
    assert "nodes_to_exclude" in failed("9.10", left, who)
    other = dynamic(without_descriptions(who))
    for t in other.graph.initializer:
        if t.name.endswith("scale"):
            t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(t) * 2, t.name))
    assert "quantize the patient itself" in failed("9.10", other, who)


def test_the_case_rests_on_the_file_and_not_on_a_tool() -> None:
    """What the file says of its weights is wrong by itself: the checker sees it, too, and ONNX Runtime runs the model."""
    model = the("9.10")
    with pytest.raises(onnx.shape_inference.InferenceError, match="existing shape differ"):
        onnx.checker.check_model(model, full_check=True)
    assert examine.result(model, {"x": np.zeros((2, params("9.10")["sizes"][0]), np.float32)}).shape[0] == 2


@pytest.mark.parametrize("who", STUDENTS)
def test_no_two_causes_of_a_wrong_branch_look_alike(who: str) -> None:
    p = params("9.6", who)
    feeds = hospital_export._branch_feeds(p, np.random.default_rng(1))
    rules = ["", *hospital_export._BAKED_IN, *hospital_export._BRANCH_CAUSES]
    found = [
        np.concatenate([hospital_export._by_rule(p, feed["x"], rule) for feed in feeds.values()]) for rule in rules
    ]
    for i, one in enumerate(found):
        for j, other in enumerate(found[:i]):
            assert not np.allclose(one, other, atol=1e-3), (rules[i], rules[j])


@pytest.mark.parametrize("who", FEW)
def test_other_quantizations_of_the_slow_one(who: str) -> None:
    assert "quantized dynamically" in failed("9.11", dynamic(the("9.11", who)), who)
    source = the("9.11", who)
    assert "is cut off" in failed("9.11", static(source, uniform(who, 0.3)), who)
    for stretch in (3, 10, 40):
        assert "much wider than in use" in failed("9.11", static(source, uniform(who, stretch)), who)
    left = static(source, uniform(who), nodes_to_exclude=["conv2"])
    assert "is that layer in nodes_to_exclude" in failed("9.11", left, who)
    left = static(source, uniform(who), nodes_to_exclude=["conv2"], quant_format=QuantFormat.QOperator)
    assert "weight2 is stored in float" in failed("9.11", left, who)
    signed = static(source, uniform(who), activation_type=QuantType.QInt8, quant_format=QuantFormat.QOperator)
    assert "QuantType.QUInt8" in failed("9.11", signed, who)


@pytest.mark.parametrize("who", FEW)
def test_loops_that_are_not_the_loop(who: str) -> None:
    assert "starts with zeros" in failed("9.12", scanned(who, start="zeros"), who)
    assert "starts with ones" in failed(
        "9.12", put(scanned(who), start=np.ones(params("9.12", who)["width"], np.float32)), who
    )
    swapped = numbers_of(scanned(who))
    swapped = put(scanned(who), from_input=swapped["from_state"], from_state=swapped["from_input"])
    assert "are exchanged" in failed("9.12", swapped, who)
    assert "from the last to the first" in failed("9.12", scanned(who, mistake="reversed"), who)
    assert "states of all steps" in failed("9.12", scanned(who, mistake="all"), who)
    model = scanned(who)
    shape_of(model.graph.input[0], 7)
    assert "Give it a name (dim_param), such as steps" in failed("9.12", model, who)


@pytest.mark.parametrize("who", FEW)
def test_shapes_that_are_not_those_of_a_run(who: str) -> None:
    plain = onnx.shape_inference.infer_shapes(the("9.13", who), data_prop=True)
    assert "Unknown: g" in failed("9.13", plain, who)
    frozen = the("9.13", who)
    shape_of(frozen.graph.input[0], 1)
    frozen = with_shapes(who, frozen)
    shape_of(frozen.graph.input[0], "batch")
    assert "number of rows is frozen" in failed("9.13", frozen, who)
    other = with_shapes(who)
    for value in other.graph.value_info:
        if value.name == "t":
            shape_of(value, "batch", "parts", "features")
    assert "Sizes must be numbers" in failed("9.13", other, who)


@pytest.mark.parametrize("who", FEW)
def test_chains_that_are_not_the_chain(who: str) -> None:
    order = params("9.14", who)["order"]
    assert "and should be" in failed("9.14", merged(who, order[::-1]), who)
    assert f"stage {order[2]} is missing" in failed("9.14", merged(who, order[:2]), who)
    clash = merged(who)
    values = numbers_of(clash)
    put(clash, **{f"{s}/{part}": values[f"{order[0]}/{part}"] for s in order for part in ("weight", "bias")})
    assert f"the weights of stage {order[0]}" in failed("9.14", clash, who)
    fixed = merged(who)
    shape_of(fixed.graph.input[0], 1)
    assert "refuses any other" in failed("9.14", fixed, who)


@pytest.mark.parametrize(
    ("steps", "cause"),
    [
        (["cast", "divide", "mean", "deviation", "reshape"], "mixes colours with places"),
        (["cast", "mean", "deviation", "turn"], "not divided by 255"),
        (["cast", "divide", "turn"], "mean and deviation are missing"),
        (["cast", "divide", "mean", "times deviation", "turn"], "divide by it"),
        (["cast", "divide", "deviation", "mean", "turn"], "The mean goes off first"),
    ],
)
@pytest.mark.parametrize("who", FEW)
def test_preparations_that_are_not_those_of_training(steps: list[str], cause: str, who: str) -> None:
    assert cause in failed("9.15", accepting(who, steps), who)


@pytest.mark.parametrize("who", FEW)
def test_inputs_that_the_caller_does_not_send(who: str) -> None:
    swapped = accepting(who, ["cast", "divide", "mean", "deviation", "swap"])
    assert "have changed places" in failed("9.15", swapped, who)
    single = accepting(who, ["divide", "mean", "deviation", "turn"], TensorProto.FLOAT)
    assert "put a Cast in front" in failed("9.15", single, who)
    first = accepting(who)
    shape_of(first.graph.input[0], "batch", 3)
    assert "colours last" in failed("9.15", first, who)
    del first.graph.input[0].type.tensor_type.shape.dim[3:]
    assert "colours last" in failed("9.15", first, who)
    named = renamed(accepting(who), {params("9.15", who)["sends"]: "image"})
    assert "goes by the name" in failed("9.15", named, who)


# Ways to pass without the work


def beside(source: ModelProto, decoy: ModelProto) -> ModelProto:
    """The source computes the result; the decoy runs beside it, and adds next to nothing."""
    model, other = (
        ModelProto.FromString(source.SerializeToString()),
        onnx.compose.add_prefix(decoy, "decoy/", rename_inputs=False),
    )
    model.graph.node[-1].output[0] = "own"
    model.graph.node.extend(other.graph.node)
    model.graph.initializer.extend(other.graph.initializer)
    model.graph.node.append(node("Mul", [other.graph.output[0].name, "tiny"], ["next_to_nothing"]))
    model.graph.node.append(node("Add", ["own", "next_to_nothing"], ["y"]))
    here = {o.domain for o in model.opset_import}
    model.opset_import.extend(o for o in other.opset_import if o.domain not in here)
    return put(model, tiny=np.float32(1e-9))


def test_a_float_network_with_an_int8_one_for_show() -> None:
    for task_id, data in (("9.9", normal()), ("9.11", uniform())):
        shown = beside(the(task_id), static(the(task_id), data))
        assert "a network in float computes the result" in failed(task_id, shown)


def through_int8(source: ModelProto, data: np.ndarray) -> ModelProto:
    """The source computes the result, from weights that are stored flat. Three int8 convolutions then pass it on as it is."""
    model = ModelProto.FromString(source.SerializeToString())
    largest = float(np.abs(examine.result(model, {"x": data})).max())
    for name, weight in numbers_of(model).items():
        if weight.ndim == 4:
            model.graph.initializer.remove(next(t for t in model.graph.initializer if t.name == name))
            put(model, **{f"{name}.flat": weight.ravel(), f"{name}.shape": np.array(weight.shape)})
            model.graph.node.insert(0, node("Reshape", [f"{name}.flat", f"{name}.shape"], [name]))
    model.graph.node[-1].output[0] = "own"
    same = np.eye(4, dtype=np.int8)[:, :, None, None] * np.int8(64)
    put(model, step=np.float32(largest / 100), middle=np.uint8(128), part=np.float32(1 / 64), none=np.int8(0))
    put(model, picture=np.array([0, 4, 1, 1]), row=np.array([0, 4]), same1=same, same2=same, same3=same)
    model.graph.node.append(node("Reshape", ["own", "picture"], ["passed0"]))
    for i in (1, 2, 3):
        model.graph.node.extend([
            node("QuantizeLinear", [f"passed{i - 1}", "step", "middle"], [f"q{i}"]),
            node("DequantizeLinear", [f"q{i}", "step", "middle"], [f"d{i}"]),
            node("DequantizeLinear", [f"same{i}", "part", "none"], [f"w{i}"]),
            node("Conv", [f"d{i}", f"w{i}"], [f"passed{i}"]),
        ])  # fmt: skip
    model.graph.node.append(node("QuantizeLinear", ["passed3", "step", "middle"], ["q4"]))
    model.graph.node.append(node("DequantizeLinear", ["q4", "step", "middle"], ["d4"]))
    model.graph.node.append(node("Reshape", ["d4", "row"], ["y"]))
    return model


def test_a_float_network_whose_result_goes_through_int8() -> None:
    model = through_int8(the("9.9"), normal())
    got, right = (examine.result(m, {"x": normal(10)}) for m in (model, the("9.9")))
    assert hospital.relative_error(got, right) < 0.1, "near enough, were it not for the float convolutions"
    assert "a network in float computes the result" in failed("9.9", model)


def test_int8_convolutions_that_the_result_does_not_need() -> None:
    """No convolution in float is left, and the result goes around those in int8."""
    way = hospital.least_on_the_way
    healed = static(narrowed(), normal())
    assert way(healed.graph, ("Conv",)) == 3
    model = beside(the("9.5"), healed)
    assert way(model.graph, ("Conv",)) == 0
    assert way(both_branches().graph, ("If",)) == 1  # reads x inside
    assert way(both_branches().graph, ("MatMul", "Gemm")) == 0


def test_matrices_that_are_stored_in_8_bits_and_not_used() -> None:
    model = without_descriptions()
    values = numbers_of(model)
    for name in ("first", "second"):
        w = values[f"{name}.weight"]
        model.graph.initializer.remove(next(t for t in model.graph.initializer if t.name == f"{name}.weight"))
        put(model, **{f"{name}.flat": w.ravel(), f"{name}.shape": np.array(w.shape), f"{name}.int8": w.astype(np.int8)})
        model.graph.node.insert(0, node("Reshape", [f"{name}.flat", f"{name}.shape"], [f"{name}.weight"]))
        model.graph.node.append(node("Cast", [f"{name}.int8"], [f"{name}.unused"], to=TensorProto.FLOAT))
    assert "Gemm computes in float" in failed("9.10", model)
    for gemm, name in [(n, n.name) for n in model.graph.node if n.op_type == "Gemm"]:
        x, flat, bias = gemm.input
        gemm.CopyFrom(node("Add", [f"{name}.sum", bias], list(gemm.output)))
        at = list(model.graph.node).index(gemm)
        steps = [
            node("Unsqueeze", [x, "axis1"], [f"{name}.x"]),
            node("Mul", [f"{name}.x", flat], [f"{name}.products"]),
            node("ReduceSum", [f"{name}.products", "axis2"], [f"{name}.sum"], keepdims=0),
        ]
        for step in reversed(steps):
            model.graph.node.insert(at, step)
    put(model, axis1=np.array([1]), axis2=np.array([2]))
    assert "DynamicQuantizeLinear before each product" in failed("9.10", model)


def test_a_stranger_in_a_function() -> None:
    """com.microsoft::QuickGelu is what ScaledSwish is, and no standard operator either."""
    who = next(w for w in map(str, range(50)) if params("9.5", w)["operator"] == "ScaledSwish")
    model, alpha = the("9.5", who), params("9.5", who)["value"]
    body = [node("QuickGelu", ["h"], ["a"], domain="com.microsoft", alpha=alpha)]
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model.functions.append(helper.make_function("com.example", "ScaledSwish", ["h"], ["a"], body, imports))
    del model.graph.node[1].attribute[:]
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model.graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, ["batch", 6]))
    assert "com.microsoft::QuickGelu is no standard operator" in failed("9.5", model, who)


def test_nodes_hidden_from_shape_inference() -> None:
    model = the("9.13")
    names = ["x", *(t.name for t in model.graph.initializer)]
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model.functions.append(helper.make_function("my", "whole", names, ["y"], model.graph.node, imports))
    del model.graph.node[:]
    model.graph.node.extend([node("Identity", ["x"], ["i"]), node("whole", ["i", *names[1:]], ["y"], domain="my")])
    model.opset_import.append(helper.make_opsetid("my", 1))
    size = params("9.13")["size"]
    model.graph.value_info.append(helper.make_tensor_value_info("i", TensorProto.FLOAT, ["batch", 3, size, size]))
    assert "where value_info says nothing" in failed("9.13", model)


# What `test_every_exercise` asks of all tasks


def as_constants(model: ModelProto) -> ModelProto:
    """The same with each stored tensor written by a Constant node."""
    nodes = [node("Constant", [], [t.name], value=t) for t in model.graph.initializer]
    nodes += [onnx.NodeProto.FromString(n.SerializeToString()) for n in model.graph.node]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    return model


def free_batch_by_counting(who: str) -> ModelProto:
    """The number of rows is asked of the input."""
    model = free_batch(who)
    for name, rest in (("table", [3, 4]), ("flat", [12])):
        model.graph.initializer.remove(next(t for t in model.graph.initializer if t.name == name))
        put(model, **{f"{name}.rest": np.array(rest)})
    steps = [
        node("Shape", ["x"], ["rows"], start=0, end=1),
        node("Concat", ["rows", "table.rest"], ["table"], axis=0),
        node("Concat", ["rows", "flat.rest"], ["flat"], axis=0),
    ]
    for step in reversed(steps):
        model.graph.node.insert(0, step)
    return model


def older_opset_by_slices(who: str) -> ModelProto:
    model, half = older_opset(who), params("9.2", who)["features"] // 2
    for name, value in {"zero": [0], "half": [half], "end": [2 * half], "one": [1]}.items():
        put(model, **{name: np.array(value)})
    model.graph.node[0].CopyFrom(node("Slice", ["x", "zero", "half", "one"], ["a"]))
    model.graph.node.insert(1, node("Slice", ["x", "half", "end", "one"], ["b"]))
    return model


def rewritten_otherwise(who: str) -> ModelProto:
    return rewritten(who, ops={
        "ScaledSwish": [
            node("Mul", ["h", "k"], ["i"]), node("Neg", ["i"], ["n"]), node("Exp", ["n"], ["e"]),
            node("Add", ["e", "unit"], ["d"]), node("Div", ["h", "d"], ["a"]),
        ],
        "SquaredRelu": [
            node("Max", ["h", "none"], ["i"]), node("Pow", ["i", "two"], ["j"]), node("Mul", ["k", "j"], ["a"]),
        ],
        "SoftClip": [
            node("Reciprocal", ["k"], ["r"]), node("Mul", ["h", "r"], ["i"]), node("Tanh", ["i"], ["j"]),
            node("Mul", ["k", "j"], ["a"]),
        ],
    }[params("9.5", who)["operator"]])  # fmt: skip


def with_numbers(model: ModelProto) -> ModelProto:
    return put(model, unit=np.float32(1), none=np.float32(0), two=np.float32(2))


def branches_by_where(who: str) -> ModelProto:
    """Both branches are computed, and the mean chooses."""
    model = by_row(who)
    mean, _, *_ = model.graph.node
    del mean.attribute[:]
    mean.attribute.append(helper.make_attribute("keepdims", 0))
    return model


def evaluated_without_dropout(who: str) -> ModelProto:
    model = in_evaluation(who)
    at = next(i for i, n in enumerate(model.graph.node) if n.op_type == "Dropout")
    model.graph.node[at - 1].output[0] = "y"
    del model.graph.node[at]
    return model


def looped(who: str) -> ModelProto:
    """A Loop that counts the rows and takes one after the other."""
    model = scanned(who)
    body = model.graph.node[0].attribute[0].g if model.graph.node[0].attribute[0].name == "body" else next(
        a.g for a in model.graph.node[0].attribute if a.name == "body"
    )  # fmt: skip
    steps = [onnx.NodeProto.FromString(n.SerializeToString()) for n in body.node]
    width = params("9.12", who)["width"]
    value = helper.make_tensor_value_info
    step = helper.make_graph(
        [node("Gather", ["x", "i"], ["x_t"], axis=0), *steps, node("Identity", ["go"], ["on"])],
        "step",
        [
            value("i", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("s_in", TensorProto.FLOAT, [width]),
        ],
        [value("on", TensorProto.BOOL, []), value("s_out", TensorProto.FLOAT, [width])],
    )
    del model.graph.node[:]
    model.graph.node.extend(
        [
            node("Shape", ["x"], ["count"], start=0, end=1),
            node("Squeeze", ["count"], ["rows"]),
            node("Loop", ["rows", "", "start"], ["y"], body=step),
        ]
    )
    return model


def by_the_operator_rnn(who: str) -> ModelProto:
    model, w = scanned(who), numbers_of(scanned(who))
    stored = {
        "W": w["from_input"].T[None],
        "R": w["from_state"].T[None],
        "first": w["start"][None, None],
        "axis": np.array([1]),
        "flat": np.array([-1]),
    }
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(
        [
            node("Unsqueeze", ["x", "axis"], ["sequence"]),
            node("RNN", ["sequence", "W", "R", "", "", "first"], ["", "last"], hidden_size=w["start"].size),
            node("Reshape", ["last", "flat"], ["y"]),
        ]
    )
    return put(model, **stored)


def shapes_of_a_run(who: str) -> ModelProto:
    """Written by hand, from what the tensors have."""
    model, p = the("9.13", who), params("9.13", who)
    size, features = p["size"], p["channels"] * p["size"] ** 2 // p["parts"]
    picture = ["batch", p["channels"], size, size]
    shapes = {
        "c": picture, "g": picture, "shape": [4], "rows": [1], "target": [3],
        "t": ["batch", p["parts"], features], "m": ["batch", p["parts"], 5],
    }  # fmt: skip
    whole = {"shape", "rows", "target"}
    model.graph.value_info.extend(
        helper.make_tensor_value_info(n, TensorProto.INT64 if n in whole else TensorProto.FLOAT, s)
        for n, s in shapes.items()
    )
    return model


def prepared_in_one_step(who: str) -> ModelProto:
    """Transpose first, and mean and deviation as one product and one sum."""
    p = params("9.15", who)
    model = accepting(who, ["cast", "turn", "mean", "divide"])
    k = 1 / (255 * p["deviation"])
    return put(model, mean=np.float32(p["mean"] * 255), full=np.float32(1 / k))


def swapped_halves(who: str) -> ModelProto:
    model = older_opset(who)
    model.graph.node[0].output[:] = ["b", "a"]
    return model


def ir_of(who: str, version: int) -> ModelProto:
    model = older_ir(who)
    model.ir_version = version
    return model


def negated(model: ModelProto) -> ModelProto:
    return put(model, **{"second.weight": -numbers_of(model)["second.weight"]})


def another_shape(who: str) -> ModelProto:
    model = shapes_of_a_run(who)
    value = next(v for v in model.graph.value_info if v.name == "g")
    value.type.tensor_type.shape.dim[1].dim_param = "channels"
    return model


RIGHT = {
    "9.1": (free_batch, lambda who: free_batch(who, table=-1), free_batch_by_counting),
    "9.2": (older_opset, older_opset_by_slices, lambda who: as_constants(older_opset(who))),
    "9.3": (older_ir, lambda who: as_constants(older_ir(who))),
    "9.4": (with_weights, lambda who: as_constants(with_weights(who))),
    "9.5": (rewritten, lambda who: with_numbers(rewritten_otherwise(who))),
    "9.6": (both_branches, branches_by_where),
    "9.7": (in_evaluation, evaluated_without_dropout),
    "9.8": (strict_session, lambda who: strict_session(who) | {"on_cpu": strict_session(who)["on_cpu"][::-1]}),
    "9.9": (HEALED["9.9"], lambda who: static(narrowed(who), normal(), quant_format=QuantFormat.QOperator)),
    "9.10": (HEALED["9.10"], lambda who: dynamic(without_descriptions(who), per_channel=True)),
    "9.11": (HEALED["9.11"], lambda who: static(the("9.11", who), uniform(who), quant_format=QuantFormat.QOperator)),
    "9.12": (scanned, looped, by_the_operator_rnn),
    "9.13": (with_shapes, shapes_of_a_run),
    "9.14": (merged, lambda who: as_constants(merged(who))),
    "9.15": (accepting, prepared_in_one_step),
    "9.16": (diverged, diverged_by_mending),
}
WRONG: dict[str, dict[str, tuple[Callable[[str], Any], str]]] = {
    "9.1": {
        "frozen in the table": (lambda who: free_batch(who, table=params("9.1", who)["batch"]), "frozen, too"),
        "the patient": (lambda who: the("9.1", who), "refuses any other"),
        "turned the other way": (
            lambda who: put(free_batch(who), table=np.array([0, 4, 3])),
            "only sizes are wrong|shape",
        ),
    },
    "9.2": {
        "all axes": (lambda who: older_opset(who, ()), "over all axes"),
        "rows": (lambda who: older_opset(who, (0,)), "over the rows"),
        "halves exchanged": (swapped_halves, "have changed places"),
    },
    "9.3": {
        "the patient": (lambda who: the("9.3", who), "reads files up to"),
        "too old": (lambda who: ir_of(who, 3), "each weight had to be an input"),
        "other weights": (lambda who: put(older_ir(who), bias=np.zeros(4, np.float32)), "Only one number"),
    },
    "9.4": {
        "from the start": (lambda who: with_weights(who, "from the start"), "an offset of its own"),
        "zeros": (lambda who: with_weights(who, "zeros"), "were never read"),
        "the patient": (lambda who: the("9.4", who), "does not exist"),
    },
    "9.5": {
        "attribute ignored": (lambda who: rewritten(who, 1.0), "is ignored"),
        "upside down": (lambda who: rewritten(who, 1 / params("9.5", who)["value"]), "upside down"),
        "nothing": (lambda who: rewritten(who, ops=[node("Identity", ["h"], ["a"])]), "nothing stands in its place"),
    },
    "9.6": {
        "swapped": (lambda who: both_branches(who, swap=True), "are swapped"),
        "largest": (lambda who: both_branches(who, measure="ReduceMax"), "The largest number"),
        "zero": (lambda who: both_branches(who, threshold=0.0), "compared with 0"),
        "by row": (by_row, "Each row decides"),
    },
    "9.7": {
        "Dropout only": (lambda who: in_evaluation(who, norm=False), "BatchNormalization is in training mode"),
        "BatchNormalization only": (lambda who: in_evaluation(who, dropout=False), "still switched on"),
        "ratio 0": (lambda who: put(in_evaluation(who, dropout=False), ratio=np.float32(0)), "still training"),
    },
    "9.8": {
        "the illness": (lambda who: strict_session(who) | {"config": {}}, "Nothing in it forbids"),
        "what it takes": (
            lambda who: strict_session(who) | {"on_cpu": params("9.8", who)["takes"]},
            "names of operators",
        ),
        "the CPU in the list": (
            lambda who: strict_session(who) | {"providers": [*strict_session(who)["providers"], hospital_speed.CPU]},
            "permission to fall back",
        ),
    },
    "9.9": {
        "still wide": (lambda who: static(the("9.9", who), normal()), "thousand times wider"),
        "a layer in float": (lambda who: static(narrowed(who), normal(), nodes_to_exclude=["conv1"]), "stay in float"),
        "dynamic": (lambda who: dynamic(the("9.9", who)), "quantized dynamically"),
    },
    "9.10": {
        "the patient": (lambda who: the("9.10", who), "value_info still describes"),
        "one of two": (
            lambda who: dynamic(without_descriptions(who), nodes_to_exclude=["first_MatMul"]),
            "nodes_to_exclude",
        ),
        "other weights": (lambda who: dynamic(negated(without_descriptions(who))), "quantize the patient itself"),
    },
    "9.11": {
        "dynamic": (lambda who: dynamic(the("9.11", who)), "quantized dynamically"),
        "ten times the range": (lambda who: static(the("9.11", who), uniform(who, 10)), "much wider than in use"),
        "a layer left out": (
            lambda who: static(the("9.11", who), uniform(who), nodes_to_exclude=["conv2"]),
            "nodes_to_exclude",
        ),
    },
    "9.12": {
        "zeros": (lambda who: scanned(who, start="zeros"), "starts with zeros"),
        "reversed": (lambda who: scanned(who, mistake="reversed"), "from the last to the first"),
        "all states": (lambda who: scanned(who, mistake="all"), "states of all steps"),
    },
    "9.13": {
        "by onnx": (
            lambda who: onnx.shape_inference.infer_shapes(the("9.13", who), data_prop=True),
            "Unknown: g",
        ),
        "the patient": (lambda who: the("9.13", who), "does not know com.microsoft::Gelu"),
        "another shape": (another_shape, "Not so for g"),
    },
    "9.14": {
        "backwards": (lambda who: merged(who, params("9.14", who)["order"][::-1]), "and should be"),
        "two of three": (lambda who: merged(who, params("9.14", who)["order"][:2]), "is missing"),
        "one of three": (lambda who: merged(who, params("9.14", who)["order"][:1]), "alone"),
    },
    "9.15": {
        "reshape": (lambda who: accepting(who, ["cast", "divide", "mean", "deviation", "reshape"]), "mixes colours"),
        "not divided": (lambda who: accepting(who, ["cast", "mean", "deviation", "turn"]), "not divided by 255"),
        "mean added": (lambda who: put(accepting(who), mean=np.float32(-params("9.15", who)["mean"])), "is added"),
    },
    "9.16": {
        "the last node": (with_node(lambda b, a: "classify"), "already reads something wrong"),
        "the first that differs at all": (
            with_node(lambda b, a: next(n for n in a if (b[n] != a[n]).any())),
            "the last digits may differ",
        ),
        "the difference at the end": (
            with_difference(lambda b, a: np.abs(b - a).max(), "classify"),
            "at the end, in y",
        ),
        "the mean": (with_difference(lambda b, a: np.abs(b - a).mean()), "the mean of the differences"),
        "relative": (with_difference(relative_difference), "This is relative"),
        "signed": (with_difference(lambda b, a: (b - a).max() / 2), "all numbers of the output"),
        "a word": (lambda who: diverged(who) | {"part": "kernel"}, "neither an attribute nor a weight"),
        "a tensor": (lambda who: diverged(who) | {"node": "tensor_3"}, "the name of no node"),
    },
}


@pytest.mark.parametrize(
    ("at", "other", "cause"),
    [
        ("norm1", "axis", "That attribute means the same in both files"),
        ("norm2", "norm2.scale", "That weight is the same in both files"),
        ("conv2", "strides", "'strides' is neither an attribute nor a weight"),
    ],
)
def test_another_part_of_the_node(at: str, other: str, cause: str) -> None:
    who = next(w for w in map(str, range(99)) if diverging.fault(params("9.16", w)).node == at)
    assert cause in failed("9.16", diverged(who) | {"part": other}, who)


@pytest.mark.parametrize("wrong", diverging.FAULTS, ids=lambda f: f"{f.node} {f.part}")
def test_each_fault_is_larger_than_rounding(wrong: diverging.Fault) -> None:
    """And its node is the first; a file without a fault differs by rounding alone."""
    who = next(w for w in map(str, range(2000)) if diverging.fault(params("9.16", w)) is wrong)
    p = params("9.16", who)
    before, after = map(inside, both_files(who))
    unharmed = inside(diverging.as_it_is(p, faulty=False))
    assert max(np.abs(before[n] - unharmed[n]).max() for n in before) < 5e-5
    assert next(n for n in after if np.abs(before[n] - after[n]).max() > 1e-4) == wrong.node
    assert np.abs(before[wrong.node] - after[wrong.node]).max() > 2e-4
    assert diverged(who)["part"] == diverged_by_mending(who)["part"] == wrong.part


def test_nodes_in_another_order() -> None:
    """Who pairs them by their places takes the exchanged ones for wrong."""
    who = next(w for w in map(str, range(99)) if diverging.fault(params("9.16", w)).node == "shares1")
    assert "another order" in failed("9.16", diverged(who) | {"node": "key1"}, who)


@pytest.mark.parametrize("value", [None, True, "0.1", float("nan"), float("inf"), -1, [0.1]])
def test_differences_of_another_kind(value: object) -> None:
    assert "is no difference" in failed("9.16", diverged() | {"difference": value})
    assert "neither an attribute nor a weight" in failed("9.16", diverged() | {"part": value})
    assert "the name of no node" in failed("9.16", diverged() | {"node": value})


def test_other_pads_keep_the_size_of_the_map() -> None:
    """Begin and end of each axis add up to 2, as [1, 1, 1, 1] has it, and it is never that."""
    assert all(len(pads) == 4 and pads[0] + pads[2] == pads[1] + pads[3] == 2 for pads in diverging._PADS)
    assert len({tuple(pads) for pads in diverging._PADS} - {(1, 1, 1, 1)}) == len(diverging._PADS) == 6
