"""Exercises of lesson 04: free the batch, free the size, link, cure, freeze again, find out.

Every check runs the artefact with sizes the student has not seen. What a file declares is looked at only to name the cause.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..errors import CourseError
from ..running import run, session_for
from . import Criteria, Criterion, Params, Task
from .examine import has_io, is_sound, numpy_source, wants_keys

OPSET, IR = 18, 10

Shape = Sequence[str | int]
Feed = dict[str, np.ndarray]


def _dims(value: onnx.ValueInfoProto) -> list[str | int]:
    return [d.dim_param or (d.dim_value if d.HasField("dim_value") else "?") for d in value.type.tensor_type.shape.dim]


def _declares(model: onnx.ModelProto, wanted: Mapping[str, Shape], criteria: Criteria) -> None:
    """Add, for each input and output: its dimensions are named and numbered as the task says."""
    for value in (*model.graph.input, *model.graph.output):
        if value.name not in wanted:
            continue
        got, want = _dims(value), list(wanted[value.name])
        criteria.add(f"{value.name} has the shape {_text(want)}", got == want, _shape_hint(got, want))


def _text(shape: Shape) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"


def _shape_hint(got: list[str | int], want: list[str | int]) -> str:
    says = f"The file says {_text(got)}."
    if len(got) != len(want):
        return f"{says} It must have {len(want)} axes."
    for axis, (g, w) in enumerate(zip(got, want, strict=True)):
        if isinstance(g, int) and isinstance(w, str):
            return f"{says} Axis {axis} is frozen at {g}: name it {w!r} in dynamic_shapes, and see whether the exporter kept it."
        if isinstance(w, int) and g != w:
            return f"{says} Axis {axis} must stay the number {w}: leave it out of dynamic_shapes."
        if g != w:
            return f"{says} Axis {axis} is free, but its name must be {w!r}: give it as a label, not as Dim.AUTO or Dim.DYNAMIC."
    return says


def _gives(model: onnx.ModelProto, feed: Feed) -> tuple[np.ndarray | None, str]:
    """The first output and "", or None and ONNX Runtime's first line."""
    try:
        return next(iter(run(session_for(model), feed).values())), ""
    except CourseError as error:
        return None, str(error)


def _same(got: np.ndarray | None, want: np.ndarray) -> bool:
    return got is not None and got.shape == want.shape and np.allclose(got, want, atol=1e-4, rtol=1e-3)


def _runs_at(
    model: onnx.ModelProto,
    cases: Mapping[str, tuple[Feed, np.ndarray]],
    criteria: Criteria,
    wrong: Callable[[Feed, np.ndarray], str] = lambda feed, got: "",
) -> None:
    """Add one criterion per case (what it is → feed, expected). wrong: names the cause of wrong numbers, or ""."""
    for what, (feed, want) in cases.items():
        got, said = _gives(model, feed)
        if got is None:
            hint = f"It is refused: {said}"
        elif got.shape != want.shape:
            hint = f"The result has the shape {list(got.shape)}, expected {list(want.shape)}."
        else:
            delta = np.abs(got.astype(np.float64) - want).max(initial=0)
            hint = wrong(feed, got) or f"It runs, but the numbers differ from PyTorch's by up to {delta:.3g}."
        criteria.add(what, _same(got, want), hint)


# 4.1: any batch, 4.2: any size

_NAMES = ["batch", "requests", "pictures", "customers", "n"]
_PAIRS = [("height", "width"), ("rows", "columns"), ("h", "w"), ("lines", "pixels")]


def _draw_batch(rng: Random) -> Params:
    return {
        "input": rng.choice(["picture", "pixels", "grey"]),
        "output": rng.choice(["scores", "classes"]),
        "name": rng.choice(_NAMES),
    }


def _of_fashion_resnet(values: np.random.Generator, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    """A random input, and what the PyTorch model makes of it."""
    import torch

    from ..models import fashion_resnet

    x = values.normal(0, 1, shape).astype(np.float32)
    with torch.no_grad():
        return x, fashion_resnet()(torch.from_numpy(x)).numpy()


def _check_batch(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not is_sound(model, criteria) or not has_io(model, {p["input"]: "float"}, {p["output"]: "float"}, criteria):
        return criteria
    _declares(model, {p["input"]: [p["name"], 1, 28, 28], p["output"]: [p["name"], 10]}, criteria)
    values = numpy_source(rng)
    cases = {}
    for n in (1, rng.randint(3, 9), rng.randint(10, 40)):
        x, want = _of_fashion_resnet(values, n, 1, 28, 28)
        cases[f"{f'{n} pictures at once give' if n > 1 else 'a single picture gives'} PyTorch's numbers"] = (
            {p["input"]: x},
            want,
        )
    _runs_at(model, cases, criteria)
    return criteria


def _draw_size(rng: Random) -> Params:
    height, width = rng.choice(_PAIRS)
    return {"batch": rng.choice(_NAMES[:3]), "height": height, "width": width}


def _check_size(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not is_sound(model, criteria) or not has_io(model, {"image": "float"}, {"logits": "float"}, criteria):
        return criteria
    _declares(model, {"image": [p["batch"], 1, p["height"], p["width"]], "logits": [p["batch"], 10]}, criteria)
    values = numpy_source(rng)
    cases = {}
    h, w = rng.choice([32, 36, 40, 44]), rng.choice([20, 24, 52, 56])
    for what, shape in {
        "pictures of 28×28": (2, 1, 28, 28),
        f"a tall or wide one of {h}×{w}": (1, 1, h, w),
        f"one of odd size, {h - 3}×{w + 7}": (1, 1, h - 3, w + 7),
        "a small one of 9×11": (3, 1, 9, 11),
    }.items():
        x, want = _of_fashion_resnet(values, *shape)
        cases[f"{what} give PyTorch's numbers"] = ({"image": x}, want)
    _runs_at(model, cases, criteria, lambda feed, got: _pooling_cause(feed["image"].shape))
    return criteria


def _pooling_cause(shape: tuple[int, ...]) -> str:
    if shape[2:] == (28, 28):
        return "Even the size of the training differs: is the rest of the network untouched?"
    return (
        "Right at 28×28, wrong here: average each channel over all that is there, whatever its size. Resizing the picture "
        "or pooling a fixed window is something else."
    )


# 4.3: two inputs that share a length


def _draw_shared(rng: Random) -> Params:
    return {
        "scale": rng.randint(11, 29) / 10,
        "shift": rng.randint(1, 9) / 10,
        "batch": rng.choice(_NAMES[:4]),
        "length": rng.choice(["length", "steps", "words", "time"]),
    }


def _shared(p: Params, values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    weights = mask[:, :, None].astype(np.float32)
    return (np.tanh(values * p["scale"]) * weights).sum(1) / weights.sum(1) + p["shift"]


def _check_shared(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    inputs = {"values": "float", "mask": "int64"}
    if not is_sound(model, criteria) or not has_io(model, inputs, {"mean": "float"}, criteria):
        return criteria
    b, n = p["batch"], p["length"]
    by_name = {v.name: _dims(v) for v in model.graph.input}
    got = [by_name[name][1] if len(by_name[name]) > 1 else "?" for name in inputs]
    criteria.add(
        "both inputs have the same name for their length",
        isinstance(got[0], str) and got[0] != "?" and got[0] == got[1],
        f"Axis 1 is {got[0]!r} in values and {got[1]!r} in mask: use the same label {n!r} in both entries of dynamic_shapes.",
    )
    _declares(model, {"values": [b, n, 4], "mask": [b, n], "mean": [b, 4]}, criteria)
    source = numpy_source(rng)
    cases = {}
    for batch, length in ((1, 1), (2, rng.randint(3, 6)), (rng.randint(3, 6), rng.randint(12, 30))):
        values = source.normal(0, 1, (batch, length, 4)).astype(np.float32)
        mask = (source.random((batch, length)) < 0.6).astype(np.int64)
        mask[:, 0] = 1
        cases[f"batch {batch}, length {length}: the mean over the real steps"] = (
            {"values": values, "mask": mask},
            _shared(p, values, mask).astype(np.float32),
        )
    _runs_at(model, cases, criteria, lambda feed, got: _shared_cause(p, feed, got))
    return criteria


def _shared_cause(p: Params, feed: Feed, got: np.ndarray) -> str:
    values, mask = feed["values"], feed["mask"]
    likely = {
        "The mask has no effect: all steps are counted.": _shared(p, values, np.ones_like(mask)),
        "It divides by the whole length, not by the number of real steps: where a length became a number, the "
        "division did, too.": (np.tanh(values * p["scale"]) * mask[:, :, None]).mean(1) + p["shift"],
        "The shift is missing.": _shared(p, values, mask) - p["shift"],
        "The scale is missing.": _shared({**p, "scale": 1.0}, values, mask),
    }
    return next((sentence for sentence, wrong in likely.items() if _same(got, wrong)), "")


# 4.4: cure the over-specialised export

ROWS, WIDTH = 48, 6  # of the table of positions


def _draw_reader(rng: Random) -> Params:
    return {"seed": rng.randrange(10**6), "decay": rng.choice([0.5, 0.6, 0.7, 0.8]), "length": rng.randint(7, 12)}


def _table(p: Params) -> np.ndarray:
    return np.random.default_rng(p["seed"]).normal(0, 1, (ROWS, WIDTH)).astype(np.float32)


def _read(p: Params, x: np.ndarray, steps: int | None = None) -> np.ndarray:
    """What the network of the task computes. steps: from so many steps only, a mistake."""
    used = (x + _table(p)[: x.shape[1]])[:, :steps]
    age = np.arange(used.shape[1] - 1, -1, -1)
    return (used * (p["decay"] ** age)[:, None]).sum(1).astype(np.float32)


def _check_reader(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    _declares(model, {"x": ["batch", "length", WIDTH], "y": ["batch", WIDTH]}, criteria)
    values = numpy_source(rng)
    cases = {}
    shorter, longer = rng.randint(2, p["length"] - 2), rng.randint(p["length"] + 2, ROWS - 1)
    for what, batch, length in (
        ("the example's length", 2, p["length"]),
        ("another batch", rng.randint(3, 9), p["length"]),
        (f"a shorter length ({shorter})", 2, shorter),
        (f"a longer length ({longer})", 2, longer),
        ("a single step", 1, 1),
        (f"the longest that the table allows ({ROWS})", 1, ROWS),
    ):
        x = values.normal(0, 1, (batch, length, WIDTH)).astype(np.float32)
        cases[f"{what}: the numbers of the network as it was given"] = ({"x": x}, _read(p, x))
    _runs_at(model, cases, criteria, lambda feed, got: _reader_cause(p, feed["x"], got))
    return criteria


def _reader_cause(p: Params, x: np.ndarray, got: np.ndarray) -> str:
    n = p["length"]
    if x.shape[1] > n and _same(got, _read(p, x, steps=n)):
        return (
            f"It reads the first {n} steps and ignores the others: the loop over range(…) was unrolled for the example."
        )
    if _same(got, _read({**p, "decay": 1.0}, x)):
        return "All steps count alike: the decay got lost."
    flipped = ((x + _table(p)[: x.shape[1]]) * (p["decay"] ** np.arange(x.shape[1]))[:, None]).sum(1)
    if _same(got, flipped):
        return "The weights run the wrong way: the last step counts fully, older ones less. The exponent counts down."
    no_table = (x * (p["decay"] ** np.arange(x.shape[1] - 1, -1, -1))[:, None]).sum(1)
    if _same(got, no_table):
        return "The table of positions is not added any more."
    return ""


# 4.5: make it static again


def _draw_static(rng: Random) -> Params:
    return {"seed": rng.randrange(10**6), "batch": rng.randint(2, 9), "length": rng.randint(5, 16)}


def _free_model(p: Params) -> onnx.ModelProto:
    """Twice the mean over a sequence of any length; one tensor inside has a formula of the length in its shape."""
    values = np.random.default_rng(p["seed"])
    weight = values.normal(0, 1, (6, 4)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["projected"]),
        helper.make_node("Tanh", ["projected"], ["active"]),
        helper.make_node("Concat", ["active", "active"], ["doubled"], axis=1),
        helper.make_node("Shape", ["x"], ["sizes"]),
        helper.make_node("Gather", ["sizes", "one"], ["steps"], axis=0),
        helper.make_node("Cast", ["steps"], ["divisor"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["doubled", "axis"], ["total"], keepdims=0),
        helper.make_node("Div", ["total", "divisor"], ["y"]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "free",
        [info("x", TensorProto.FLOAT, ["batch", "length", 6])],
        [info("y", TensorProto.FLOAT, ["batch", 4])],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(np.array(1, np.int64), "one"),
            numpy_helper.from_array(np.array([1], np.int64), "axis"),
        ],
        value_info=[
            info("projected", TensorProto.FLOAT, ["batch", "length", 4]),
            info("active", TensorProto.FLOAT, ["batch", "length", 4]),
            info("doubled", TensorProto.FLOAT, ["batch", "2*length", 4]),
            info("total", TensorProto.FLOAT, ["batch", 4]),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)


def _check_static(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    stale = [v.name for v in model.graph.value_info if any(isinstance(d, str) for d in _dims(v))]
    named = [v.name for v in (*model.graph.input, *model.graph.output) if any(isinstance(d, str) for d in _dims(v))]
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    for value, want in ((model.graph.input[0], [p["batch"], p["length"], 6]), (model.graph.output[0], [p["batch"], 4])):
        got = _dims(value)
        swapped = value.name == "x" and got[:2] == [p["length"], p["batch"]] and p["length"] != p["batch"]
        names = [d for d in got if isinstance(d, str)]
        hint = (
            "Batch and length are exchanged."
            if swapped
            else f"It is {_text(got)}: {names[0]!r} is still a name. Call make_dim_param_fixed for each name, with the name as "
            "it stands in the file; fix_output_shapes sees to the outputs."
            if names
            else f"It is {_text(got)}, and your sizes are batch {p['batch']} and length {p['length']}."
        )
        criteria.add(f"{value.name} has the shape {_text(want)}", got == want, hint)
    criteria.add(
        "no tensor inside has a name for a dimension",
        not stale,
        f"{', '.join(stale[:4])} still {'has one' if len(stale) == 1 else 'have them'}: "
        + (
            "the inputs were changed by hand; make_dim_param_fixed goes through the whole graph."
            if not named and len(stale) > 1
            else "a formula of a name is not replaced. Empty graph.value_info and run shape inference anew."
        ),
    )
    described = {v.name for v in model.graph.value_info if v.type.tensor_type.HasField("shape")}
    missing = [v.name for v in _free_model(p).graph.value_info if v.name not in described]
    criteria.add(
        "the tensors inside are described",
        not missing,
        f"{', '.join(missing)} have no shape in the file: run onnx.shape_inference.infer_shapes and save what it returns.",
    )
    x = numpy_source(rng).normal(0, 1, (p["batch"], p["length"], 6)).astype(np.float32)
    want, _ = _gives(_free_model(p), {"x": x})
    assert want is not None
    _runs_at(model, {"it computes what the free model computes": ({"x": x}, want)}, criteria)
    return criteria


# 4.6: find out what each file really takes

_KINDS = ["free", "frozen", "only", "wrong"]


def _draw_suspects(rng: Random) -> Params:
    return {"seed": rng.randrange(10**6), "example": rng.randint(6, 11), "factor": rng.randint(2, 9)}


def _kinds(p: Params) -> dict[str, str]:
    """Letter → kind. Not a parameter: those are shown."""
    return dict(zip("abcd", Random(p["seed"]).sample(_KINDS, 4), strict=True))


def _suspect(kind: str, p: Params) -> onnx.ModelProto:
    """float32 [batch, length, 3] → [batch, 3], the sum over the length times the factor; of one of four kinds."""
    n = p["example"]
    stored = {"factor": np.array([p["factor"]], np.float32), "axis": np.array([1], np.int64)}
    middle = {
        # What a size that became a Python number leaves behind: in a reshape, and in a loop that was unrolled.
        "only": (helper.make_node("Reshape", ["scaled", "sizes"], ["shaped"]), {"sizes": [0, n, 3]}),
        "wrong": (
            helper.make_node("Slice", ["scaled", "begin", "end", "axis"], ["shaped"]),
            {"begin": [0], "end": [n]},
        ),
    }.get(kind, (helper.make_node("Identity", ["scaled"], ["shaped"]), {}))
    stored |= {name: np.array(values, np.int64) for name, values in middle[1].items()}
    nodes = [
        helper.make_node("Mul", ["x", "factor"], ["scaled"]),
        middle[0],
        helper.make_node("ReduceSum", ["shaped", "axis"], ["y"], keepdims=0),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "suspect",
        [info("x", TensorProto.FLOAT, ["batch", n if kind == "frozen" else "length", 3])],
        [info("y", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(values, name) for name, values in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)


def _suspects(p: Params) -> dict[str, onnx.ModelProto]:
    return {f"4.6{letter}.onnx": _suspect(kind, p) for letter, kind in _kinds(p).items()}


def _check_suspects(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not wants_keys(answer, set("abcd"), criteria):
        return criteria
    right = f"{p['factor']} · x.sum(axis=1)"
    why = {
        ("free", "frozen"): "The file has a name there, not a number.",
        ("frozen", "free"): "Look at the shape of its input: there is a number.",
        ("frozen", "only"): "It refuses other lengths, and the file says so: there is a number in the shape.",
        ("only", "frozen"): "It refuses other lengths, but its file has a name there, not a number.",
        ("only", "free"): "Feed it other lengths: it refuses them, whatever its file says.",
        ("wrong", "free"): f"It takes other lengths. Compare the numbers with {right}, for longer ones, too.",
        ("wrong", "only"): f"It does take other lengths. Compare the numbers with {right}.",
        ("free", "wrong"): f"Its numbers are right at every length: compare with {right}.",
    }
    for letter, kind in _kinds(p).items():
        got = answer[letter]
        hint = why.get((kind, got)) if isinstance(got, str) else None
        if got not in _KINDS:
            hint = f"{str(got)[:40]!r} is not one of {', '.join(_KINDS)}."
        criteria.add(
            f"what model {letter} does with other lengths",
            got == kind,
            hint or "Probe it: several lengths, shorter and longer, with the expected result beside it.",
        )
    return criteria


TASKS = (
    Task("4.1", "Any batch", "onnx", _check_batch, _draw_batch),
    Task("4.2", "Any size", "onnx", _check_size, _draw_size),
    Task("4.3", "Two inputs that share a length", "onnx", _check_shared, _draw_shared),
    Task("4.4", "Cure the over-specialised export", "onnx", _check_reader, _draw_reader),
    Task("4.5", "Make it static again", "onnx", _check_static, _draw_static, lambda p: {"4.5.onnx": _free_model(p)}),
    Task("4.6", "Four suspects", "json", _check_suspects, _draw_suspects, _suspects),
)
