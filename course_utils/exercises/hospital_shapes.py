"""The hospital: shapes and feeds. A fixed batch, an unrolled loop, unknown shapes, a caller who sends something else."""

from __future__ import annotations

from functools import partial
from random import Random

import numpy as np
import onnx
from onnx import TensorProto, helper

from ..errors import CourseError
from ..graphs import op_histogram
from ..running import run_all
from . import Criteria, Criterion, Params, Task
from .examine import computes, has_io, is_sound, numpy_source, result
from .hospital import any_size, inner_nodes, judged, patient, promises_any_size

node = helper.make_node


# 9.1: fixed batch


def _draw_batch(rng: Random) -> Params:
    return {"batch": rng.choice([1, 2, 4]), "features": rng.choice([6, 8, 10]), "seed": rng.getrandbits(32)}


def _fixed(p: Params, rows: int | str | None = None, stored: int | None = None) -> onnx.ModelProto:
    """rows: the first dimension of input and output. stored: the number of rows in the shapes that Reshape reads."""
    rows, stored = (p["batch"] if rows is None else rows), (p["batch"] if stored is None else stored)
    draw = np.random.default_rng(p["seed"])
    nodes = [
        node("MatMul", ["x", "weight1"], ["h"], "layer1"),
        node("Reshape", ["h", "table"], ["t"], "to_table"),
        node("Transpose", ["t"], ["u"], "turn", perm=[0, 2, 1]),
        node("Relu", ["u"], ["v"], "activation"),
        node("Reshape", ["v", "flat"], ["w"], "to_rows"),
        node("MatMul", ["w", "weight2"], ["y"], "layer2"),
    ]
    weights = {
        "weight1": draw.normal(0, 1, (p["features"], 12)),
        "weight2": draw.normal(0, 1, (12, 3)),
        "table": np.array([stored, 3, 4]),
        "flat": np.array([stored, 12]),
    }
    return patient("fixed", nodes, weights, [rows, p["features"]], [rows, 3])


def _check_batch(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not any_size(model, criteria, "rows") or not promises_any_size(model, criteria, "rows"):
        return criteria
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    source, free = numpy_source(rng), _fixed(p, "batch", -1)
    stored = {t.name: t for t in model.graph.initializer}
    shapes = [n.input[1] for n in model.graph.node if n.op_type == "Reshape" and len(n.input) > 1]
    frozen = [s for s in shapes if s in stored and onnx.numpy_helper.to_array(stored[s]).ravel()[:1].tolist() > [0]]
    hint = (
        f"Reshape reads the stored shape {frozen[0]}, which begins with a number of rows: there the batch is frozen, too. "
        "0 stands for “as it was”, -1 for “what is left”."
        if frozen
        else "Start again from the patient: only sizes are wrong in it."
    )
    for rows in (p["batch"], p["batch"] + 1, int(source.integers(6, 40))):
        x = source.normal(0, 1, (rows, p["features"])).astype(np.float32)
        what = f"it computes the right result for {rows} row{'s' * (rows > 1)}"
        if not computes(model, {"x": x}, result(free, {"x": x}), Criteria(), what, "") and frozen:
            criteria.add(what, False, hint)
        else:
            computes(model, {"x": x}, result(free, {"x": x}), criteria, what, hint)
    return criteria


# 9.12: an unrolled loop


def _draw_loop(rng: Random) -> Params:
    return {"steps": rng.randint(6, 9), "width": rng.choice([3, 4, 5]), "seed": rng.getrandbits(32)}


def _loop_weights(p: Params) -> dict[str, np.ndarray]:
    draw, width = np.random.default_rng(p["seed"]), p["width"]
    return {
        "from_input": draw.normal(0, 0.7, (width, width)).astype(np.float32),
        "from_state": draw.normal(0, 0.7, (width, width)).astype(np.float32),
        "start": draw.normal(0, 1, width).astype(np.float32),
    }


def _unrolled(p: Params) -> onnx.ModelProto:
    """What tracing makes of `for x_t in x: state = tanh(x_t @ from_input + state @ from_state)`."""
    nodes, state, weights = [], "start", dict(_loop_weights(p))
    for t in range(p["steps"]):
        weights[f"index{t}"] = np.array(t)
        after = "y" if t == p["steps"] - 1 else f"state{t}"
        nodes += [
            node("Gather", ["x", f"index{t}"], [f"x{t}"], f"take{t}", axis=0),
            node("MatMul", [f"x{t}", "from_input"], [f"a{t}"], f"input{t}"),
            node("MatMul", [state, "from_state"], [f"b{t}"], f"state_product{t}"),
            node("Add", [f"a{t}", f"b{t}"], [f"c{t}"], f"sum{t}"),
            node("Tanh", [f"c{t}"], [after], f"tanh{t}"),
        ]
        state = after
    return patient("unrolled", nodes, weights, [p["steps"], p["width"]], [p["width"]])


def _states(p: Params, x: np.ndarray, mistake: str = "") -> np.ndarray:
    w = _loop_weights(p)
    state = {"zero start": np.zeros_like(w["start"]), "one start": np.ones_like(w["start"])}.get(mistake, w["start"])
    if mistake == "exchanged":
        w["from_input"], w["from_state"] = w["from_state"], w["from_input"]
    steps = x[::-1] if mistake == "reversed" else x[: p["steps"]] if mistake == "cut" else x
    states = []
    for row in {"one less": steps[:-1], "no first": steps[1:]}.get(mistake, steps):
        total = row @ w["from_input"] + state @ w["from_state"]
        state = (total if mistake == "no tanh" else np.tanh(total)).astype(np.float32)
        states.append(state)
    return np.array(states) if mistake == "all" else states[0] if mistake == "first" else state


_LOOP_CAUSES = {
    "zero start": "The loop starts with zeros: it must start with the stored tensor start.",
    "reversed": "The rows are read from the last to the first: leave scan_input_directions alone.",
    "cut": "It stops after as many steps as the patient had: the loop is still unrolled.",
    "one less": "The last step is missing.",
    "all": "These are the states of all steps, one below the other: y is the last one only.",
    "first": "This is the state after the first step.",
    "one start": "The loop starts with ones: it must start with the stored tensor start.",
    "no first": "The first row is left out.",
    "exchanged": "The two weights are exchanged: from_input belongs to x_t, and from_state to the state.",
    "no tanh": "The tanh is missing.",
}


def _check_loop(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    count = int(op_histogram(model).sum())
    if not criteria.require(
        "the loop stands in the graph once",
        count <= 20,
        f"There are {count} nodes, and one step has 5: the loop is unrolled, and its {p['steps']} steps are frozen. A Scan "
        "or a Loop holds one step as a subgraph.",
    ):
        return criteria
    if not any_size(model, criteria, "steps"):
        return criteria
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    source = numpy_source(rng)
    for steps in (p["steps"] + int(source.integers(3, 30)), p["steps"], 2):
        x = source.normal(0, 1, (steps, p["width"])).astype(np.float32)
        what = f"y is the last of {steps} states"
        judged(
            model,
            {"x": x},
            _states(p, x),
            criteria,
            what,
            partial(_loop_mistakes, p, x),
            "One step is tanh(x_t @ from_input + state @ from_state).",
        )
    return criteria


def _loop_mistakes(p: Params, x: np.ndarray) -> dict[str, np.ndarray]:
    return {text: _states(p, x, kind) for kind, text in _LOOP_CAUSES.items()}


# 9.13: unknown shapes


def _draw_unknown(rng: Random) -> Params:
    return {
        "channels": rng.choice([4, 6, 8]),
        "size": rng.choice([6, 8, 10]),
        "parts": rng.choice([2, 4]),
        "seed": rng.getrandbits(32),
    }


def _unknown(p: Params) -> onnx.ModelProto:
    """Optimised offline: behind an operator of com.microsoft, onnx does not know any shape."""
    draw, c, size = np.random.default_rng(p["seed"]), p["channels"], p["size"]
    features = c * size * size // p["parts"]
    nodes = [
        node("Conv", ["x", "kernel"], ["c"], "conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Gelu", ["c"], ["g"], "gelu", domain="com.microsoft"),
        node("Shape", ["g"], ["shape"], "shape"),
        node("Gather", ["shape", "zero"], ["rows"], "rows", axis=0),
        node("Concat", ["rows", "rest"], ["target"], "target", axis=0),
        node("Reshape", ["g", "target"], ["t"], "reshape"),
        node("MatMul", ["t", "weight"], ["m"], "product"),
        node("ReduceMean", ["m"], ["y"], "mean", axes=[1], keepdims=0),
    ]
    weights = {
        "kernel": draw.normal(0, 0.5, (c, 3, 3, 3)),
        "weight": draw.normal(0, 0.2, (features, 5)),
        "zero": np.array([0]),
        "rest": np.array([p["parts"], features]),
    }
    model = patient("unknown", nodes, weights, ["batch", 3, size, size], ["batch", 5])
    model.opset_import.add(domain="com.microsoft", version=1)
    return model


def _check_unknown(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    hidden = inner_nodes(model)
    if not criteria.require(
        "all nodes stand in the main graph",
        not hidden,
        f"{len(hidden)} nodes stand in functions or subgraphs, where value_info says nothing about them. Leave the nodes as they are.",
    ):
        return criteria
    inner = [name for n in model.graph.node for name in n.output if name not in ("", "y")]
    known = {v.name: v.type.tensor_type for v in model.graph.value_info if v.type.HasField("tensor_type")}
    blank = [name for name in inner if name not in known or not known[name].HasField("shape")]
    if not criteria.require(
        "every tensor between the nodes has a shape in the file",
        bool(inner) and not blank,
        f"Unknown: {', '.join(blank)[:200] or 'all'}. onnx.shape_inference does not know com.microsoft::Gelu, and stops there: "
        "the inference of ONNX Runtime does.",
    ):
        return criteria
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    source, size = numpy_source(rng), p["size"]
    wrong: list[str] = []
    frozen = False
    for rows in (1, int(source.integers(2, 9))):
        feed = {"x": source.normal(0, 1, (rows, 3, size, size)).astype(np.float32)}
        try:
            seen = run_all(model, feed)
        except CourseError as error:
            criteria.require("it runs", False, str(error))
            return criteria
        for name in inner:
            dims = [d.dim_value if d.HasField("dim_value") else d.dim_param for d in known[name].shape.dim]
            declared = [rows if d == "batch" else d for d in dims]
            if declared != list(seen[name].shape) and name not in wrong:
                wrong.append(name)
                frozen |= bool(dims) and isinstance(dims[0], int) and len(dims) == seen[name].ndim > 1
    hint = f"Not so for {', '.join(wrong)[:200]}. "
    hint += (
        "The number of rows is frozen there: infer with the input as it is, its first dimension named batch."
        if frozen
        else "Sizes must be numbers, and the first dimension must have the name that the input gives it: batch."
    )
    criteria.require("the shapes are those that tensors have in a run", not wrong, hint)
    x = source.normal(0, 1, (3, 3, size, size)).astype(np.float32)
    expected = result(_unknown(p), {"x": x})
    judged(model, {"x": x}, expected, criteria, "it computes what it computed", dict, "Only value_info is to be added.")
    return criteria


# 9.15: the caller sends something else

_SENT = ["pictures", "photos", "frames"]


def _draw_caller(rng: Random) -> Params:
    height = rng.choice([6, 8, 10])
    return {
        "sends": rng.choice(_SENT),
        "shape": ["batch", height, height + rng.choice([2, 4]), 3],
        "mean": rng.choice([0.4, 0.45, 0.5]),
        "deviation": rng.choice([0.2, 0.25, 0.3]),
        "seed": rng.getrandbits(32),
    }


def _strict(p: Params) -> onnx.ModelProto:
    draw, (_, height, width, _) = np.random.default_rng(p["seed"]), p["shape"]
    nodes = [
        node("Conv", ["x", "kernel"], ["c"], "conv", kernel_shape=[3, 2]),
        node("Relu", ["c"], ["r"], "relu"),
        node("GlobalAveragePool", ["r"], ["g"], "pool"),
        node("Flatten", ["g"], ["f"], "flatten"),
        node("MatMul", ["f", "weight"], ["y"], "product"),
    ]
    weights = {"kernel": draw.normal(0, 1, (4, 3, 3, 2)), "weight": draw.normal(0, 1, (4, 3))}
    return patient("strict", nodes, weights, ["batch", 3, height, width], ["batch", 3])


def _prepared(p: Params, pictures: np.ndarray, mistake: str = "") -> np.ndarray:
    """What the model was trained with; or what a mistake in the preparation gives."""
    x = pictures.astype(np.float64)
    if mistake == "reshaped":
        x = x.reshape(len(x), 3, *x.shape[1:3])
    elif mistake == "turned":
        x = x.transpose(0, 3, 2, 1)
    elif mistake == "turned and reshaped":
        x = x.transpose(0, 3, 2, 1).reshape(len(x), 3, *x.shape[1:3])
    else:
        x = x.transpose(0, 3, 1, 2)
    x = x if mistake == "not divided" else x / 255
    mean, deviation = p["mean"], p["deviation"]
    if mistake == "not normalised":
        return x.astype(np.float32)
    if mistake == "added":
        return ((x + mean) / deviation).astype(np.float32)
    if mistake == "exchanged":
        return ((x - deviation) / mean).astype(np.float32)
    if mistake == "multiplied":
        return ((x - mean) * deviation).astype(np.float32)
    if mistake == "order":
        return (x / deviation - mean).astype(np.float32)
    return ((x - mean) / deviation).astype(np.float32)


_CALLER_CAUSES = {
    "reshaped": "Reshape only counts the same numbers in another way, and mixes colours with places: use Transpose.",
    "turned": "Height and width have changed places: the Transpose needs perm=[0, 3, 1, 2].",
    "not divided": "The pixels are not divided by 255.",
    "not normalised": "mean and deviation are missing: the model was trained with (pixels / 255 - mean) / deviation.",
    "multiplied": "It is multiplied with the deviation: divide by it.",
    "added": "The mean is added: subtract it.",
    "exchanged": "Mean and deviation are exchanged.",
    "order": "The mean goes off first, and the division by the deviation comes behind.",
}


def _check_caller(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    stored = {t.name for t in model.graph.initializer}
    inputs = {v.name: v.type.tensor_type for v in model.graph.input if v.name not in stored}
    if not criteria.require(
        f"its one input is {p['sends']}",
        list(inputs) == [p["sends"]],
        f"Its inputs are {', '.join(inputs)[:100] or 'none'}, and the caller sends {p['sends']}: ONNX Runtime goes by the name.",
    ):
        return criteria
    kind = inputs[p["sends"]].elem_type
    dtype = TensorProto.DataType.Name(kind).lower() if kind in TensorProto.DataType.values() else str(kind)
    if not criteria.require(
        "its input is uint8",
        kind == TensorProto.UINT8,
        f"It is {dtype}, and the caller sends uint8, which ONNX Runtime does not convert: put a Cast in front.",
    ):
        return criteria
    dims = [d.dim_value if d.HasField("dim_value") else d.dim_param for d in inputs[p["sends"]].shape.dim]
    shape = p["shape"]
    if not criteria.require(
        f"its input takes shape {shape}",
        len(dims) == 4
        and not isinstance(dims[0], int)
        and all(isinstance(d, str) or d == s for d, s in zip(dims[1:], shape[1:], strict=True)),
        f"It has {dims[:6]}: the caller sends colours last, and any number of pictures.",
    ):
        return criteria
    if not is_sound(model, criteria) or not has_io(model, {p["sends"]: "uint8"}, {"y": "float"}, criteria):
        return criteria
    source = numpy_source(rng)
    pictures = source.integers(0, 256, (int(source.integers(2, 7)), *shape[1:]), np.uint8)

    def mistakes() -> dict[str, np.ndarray]:
        found = {
            text: result(_strict(p), {"x": _prepared(p, pictures, k)})
            for k, text in _CALLER_CAUSES.items()
            if k != "turned"
        }
        return found | {_CALLER_CAUSES["turned"]: _turned(p, pictures)}

    expected = result(_strict(p), {"x": _prepared(p, pictures)})
    otherwise = (
        "Prepare as in training: Cast, divide by 255, subtract the mean, divide by the deviation, then Transpose."
    )
    judged(
        model,
        {p["sends"]: pictures},
        expected,
        criteria,
        "it computes what the model does with prepared pictures",
        mistakes,
        otherwise,
    )
    return criteria


def _turned(p: Params, pictures: np.ndarray) -> np.ndarray:
    """The result where height and width have changed places; the convolution takes both."""
    free = _strict(p)
    for axis in (2, 3):
        free.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = "any"
    return result(free, {"x": _prepared(p, pictures, "turned")})


FIXED_BATCH = Task(
    "9.1",
    "Fixed batch",
    "onnx",
    _check_batch,
    _draw_batch,
    lambda p: {"9.1.onnx": _fixed(p)},
    (
        "Where does the number of rows stand in this file? The input is one place, and not the only one.",
        "Give the first dimension of x and of y a name. Then feed two sizes: which node complains now, and what does it read?",
        "Besides the two dim_param, change the stored shapes table and flat, which Reshape reads: their first number "
        "becomes 0 (take it from the input) or -1 (work it out).",
    ),
    points=3,
)
UNROLLED = Task(
    "9.12",
    "An unrolled loop",
    "onnx",
    _check_loop,
    _draw_loop,
    lambda p: {"9.12.onnx": _unrolled(p)},
    (
        "Compare the nodes of the first step with those of the second. What changes from step to step, and what stays?",
        "An operator of ONNX runs a subgraph once for each row of a tensor, and hands a state on: Scan. Its state begins "
        "with start, its scan input is x.",
        "Make a graph with the inputs s_in and x_t, four nodes, and the output s_out. Then one node "
        "Scan(start, x) → y with body=that graph and num_scan_inputs=1. Weights of the main graph are visible in the body. "
        "The first dimension of x becomes a name.",
    ),
    points=3,
)
UNKNOWN = Task(
    "9.13",
    "Unknown shapes",
    "onnx",
    _check_unknown,
    _draw_unknown,
    lambda p: {"9.13.onnx": _unknown(p)},
    (
        "From which node on are the shapes unknown? Who defined that operator?",
        "onnx knows standard operators only. ONNX Runtime brings an inference of its own, which keeps names of dimensions.",
        "from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference; its method infer_shapes(model, "
        "auto_merge=True) returns the model with value_info.",
    ),
    points=1,
)
CALLER = Task(
    "9.15",
    "The caller sends something else",
    "onnx",
    _check_caller,
    _draw_caller,
    lambda p: {"9.15.onnx": _strict(p)},
    (
        "The name, the dtype and the order of the axes do not fit. Which of the three does ONNX Runtime tell you first?",
        "The caller will not change, so the model must: nodes in front of the first Conv can do all that the caller does not. "
        "Which four steps lead from pixels to what the model was trained with?",
        "New input: the caller's name, UINT8, the caller's shape. Then Cast to float, Div by 255, Sub mean, Div by the "
        "deviation, Transpose with perm=[0, 3, 1, 2], whose output is x, and x is no input any more.",
    ),
    points=1,
)
