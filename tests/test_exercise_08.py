"""The exercises of lesson 08: right answers of several students pass, each wrong one gets a hint that names the cause."""

from __future__ import annotations

import functools
import io
import json
import math
import re
import sys
from importlib.util import find_spec
from random import Random
from typing import Any

import numpy as np
import onnx
import pytest
from answers import STUDENTS, accepted, criteria, failed, given, given_files, params
from browser import give_up
from numpy.lib import format as npy
from onnx import compose, helper, numpy_helper, parser
from onnxruntime.tools.make_dynamic_shape_fixed import make_dim_param_fixed

import course_utils as cu
from course_utils.exercises import task, tasks_of
from course_utils.exercises.ch08 import server_limits, triton_text
from course_utils.exercises.fashion_reference import said_of
from course_utils.exercises.trained_network import float_logits
from course_utils.handin.assessing import assessed

HEADER = '<ir_version: 9, opset_import: ["": 20]>'


# 8.1

STEPS = ("gather", "scale", "mean", "deviation", "transpose")


def with_preparation(
    who: str,
    steps: str = " ".join(STEPS),
    perm: str = "0, 3, 1, 2",
    divide: str = "Div",
    first: str = "t1 = Cast<to = 1>(pixels)",
) -> onnx.ModelProto:
    """The model with the steps in this order. The step "other" turns the channels if the camera's order is right."""
    p = params("8.1", who)
    bgr = p["camera"] == "BGR"
    nodes = {
        "gather": "Gather<axis = 3>({}, order)" if bgr else "Identity({})",
        "other": "Identity({})" if bgr else "Gather<axis = 3>({}, order)",
        "scale": "Div({}, scale)",
        "mean": "Sub({}, mean)",
        "deviation": f"{divide}({{}}, deviation)",
        "transpose": f"Transpose<perm = [{perm}]>({{}})",
        "reshape": "Reshape({}, shape)",
    }
    nodes |= {
        "plus": "Add({}, mean)",
        "exchanged": "Sub({}, deviation)",
        "behind": "Div({}, mean)",
        "times_255": "Mul({}, scale)",
    }
    lines, last = [first], "t1"
    for number, step in enumerate(steps.split(), 2):
        last, before = f"t{number}", last
        lines.append(f"{last} = {nodes[step].format(before)}")
    lines.append(f"prepared = Identity({last})")
    mean, deviation = (", ".join(map(str, p[name])) for name in ("mean", "deviation"))
    front = parser.parse_model(
        f"{HEADER} before (uint8[batch, 8, 8, 3] pixels) => (float[batch, 3, 8, 8] prepared) "
        "<int64[4] shape = {-1, 3, 8, 8}, uint8 whole = {255}, "
        f"int64[3] order = {{2, 1, 0}}, float scale = {{255.0}}, float[3] mean = {{{mean}}}, "
        f"float[3] deviation = {{{deviation}}}> {{ " + "\n".join(lines) + " }"
    )
    return compose.merge_models(front, given("8.1", who), io_map=[("prepared", "x")])


def folded_preparation(who: str) -> onnx.ModelProto:
    """One product and one sum per channel, made with onnx.helper, behind the transposition; the camera's order as it is."""
    p, model = params("8.1", who), given("8.1", who)
    mean, deviation = np.array(p["mean"]), np.array(p["deviation"])
    values = {"factor": 1 / (255 * deviation), "offset": -mean / deviation}
    kernel = next(t for t in model.graph.initializer if t.name == "w1")
    if p["camera"] == "BGR":  # the kernel's input channels are turned, in place of the picture's
        kernel.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(kernel)[:, ::-1].copy(), "w1"))
        values = {name: value[::-1] for name, value in values.items()}
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["turned"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["turned"], ["numbers"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", ["numbers", "factor"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["x"]),
    ]
    graph = helper.make_graph(
        [*nodes, *model.graph.node], "whole",
        [helper.make_tensor_value_info("pixels", onnx.TensorProto.UINT8, ["n", 8, 8, 3])], list(model.graph.output),
        [*model.graph.initializer, *(numpy_helper.from_array(v.astype(np.float32).reshape(1, 3, 1, 1), n) for n, v in values.items())],
    )  # fmt: skip
    return helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 20)])


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"steps": "gather mean deviation transpose"}, "division by 255 is missing"),
        ({"steps": "gather scale deviation transpose"}, "mean is not subtracted"),
        ({"steps": "gather scale mean transpose"}, "division by the deviation is missing"),
        ({"divide": "Mul"}, "multiplied by the deviation"),
        ({"steps": "other scale mean deviation transpose"}, "channels are in the wrong order"),
        ({"steps": "gather scale transpose"}, "Neither mean nor deviation"),
        ({"perm": "0, 3, 2, 1"}, "Rows and columns are swapped"),
        ({"steps": "gather scale mean deviation reshape"}, "use Transpose"),
        (
            {"first": "t0 = Div(pixels, whole)\n t1 = Cast<to = 1>(t0)", "steps": "gather mean deviation transpose"},
            "Whole numbers were divided",
        ),
        ({"steps": "gather mean deviation scale transpose"}, "division by 255 comes too late"),
        ({"steps": "gather scale deviation mean transpose"}, "comes before the mean is subtracted"),
        ({"steps": "gather scale plus deviation transpose"}, "The mean is added"),
        ({"steps": "gather scale exchanged behind transpose"}, "Mean and deviation are exchanged"),
        ({"steps": "gather times_255 mean deviation transpose"}, "multiplied by 255"),
        ({"steps": "gather transpose"}, "scale, mean and deviation are missing"),
        ({"steps": "other mean deviation transpose"}, "wrong order, and the division by 255"),
        ({"steps": "gather gather scale scale mean deviation transpose"}, "Compare the tensor"),
    ],
)
@pytest.mark.parametrize("who", ["ada", "grace", "s-001"])
def test_wrong_preparation_is_named(change: dict[str, str], hint: str, who: str) -> None:
    assert hint in failed("8.1", with_preparation(who, **change), who)


def test_channels_turned_after_the_mean() -> None:
    who = next(w for w in map(str, range(50)) if params("8.1", w)["camera"] == "BGR")
    assert "after the channels were put in order" in failed(
        "8.1", with_preparation(who, "scale mean deviation gather transpose"), who
    )


def test_preparation_with_a_frozen_batch_or_without_any() -> None:
    frozen = with_preparation("ada")
    make_dim_param_fixed(frozen.graph, "batch", 1)
    assert "[1, 8, 8, 3]" in failed("8.1", frozen)
    assert "pixels (uint8)" in " ".join(c.what for c in criteria("8.1", given("8.1")) if not c.passed)
    failed("8.1", onnx.ModelProto(ir_version=8))


# 8.2


def with_answer(who: str, body: str, best: int | None = None, more: str = "") -> onnx.ModelProto:
    p = params("8.2", who)
    best = best or p["best"]
    after = parser.parse_model(
        f"{HEADER} after (float[batch, 8] scores) => (int64[batch, {best}] id, float[batch, {best}] probability) "
        f"<int64[8] ids = {{{', '.join(map(str, p['ids']))}}}, float t = {{{float(p['temperature'])}}}, "
        f"int64[1] k = {{{best}}}{more}> {{ {body} }}"
    )
    return compose.merge_models(given("8.2", who), after, io_map=[("y", "scores")])


ANSWER = """c = Div(scores, t)
    all = Softmax<axis = 1>(c)
    probability, place = TopK<axis = 1>(all, k)
    id = Gather<axis = 0>(ids, place)"""


def answer_by_hand(who: str) -> onnx.ModelProto:
    """The softmax written out, TopK on the scores, and the probabilities looked up."""
    return with_answer(
        who,
        """c = Div(scores, t)
        largest = ReduceMax<keepdims = 1>(c, axis)
        moved = Sub(c, largest)
        e = Exp(moved)
        sum = ReduceSum<keepdims = 1>(e, axis)
        all = Div(e, sum)
        v, place = TopK<axis = -1>(scores, k)
        probability = GatherElements<axis = 1>(all, place)
        id = Gather(ids, place)""",
        more=", int64[1] axis = {1}",
    )


@pytest.mark.parametrize(
    ("old", "new", "hint"),
    [
        ("Div(scores, t)", "Identity(scores)", "temperature is missing"),
        ("Div(scores, t)", "Mul(scores, t)", "multiplied by the temperature"),
        ("Softmax<axis = 1>(c)", "Identity(c)", "scores divided by the temperature: a softmax is missing"),
        ("c = Div(scores, t)\n    all = Softmax<axis = 1>(c)", "all = Identity(scores)", "a softmax is missing"),
        ("c = Div(scores, t)\n    all = Softmax<axis = 1>(c)", "c = Softmax<axis = 1>(scores)\n all = Div(c, t)", "before the softmax"),
        ("all = Softmax<axis = 1>(c)\n    probability, place = TopK<axis = 1>(all, k)",
         "v, place = TopK<axis = 1>(c, k)\n probability = Softmax<axis = 1>(v)", "over all classes"),
        ("Gather<axis = 0>(ids, place)", "Identity(place)", "positions"),
        ("TopK<axis = 1>(all, k)", "TopK<axis = 1, largest = 0>(all, k)", "smallest"),
        ("Softmax<axis = 1>(c)", "Softmax<axis = 0>(c)", "goes over the classes, axis 1"),
        ("Softmax<axis = 1>(c)", "LogSoftmax<axis = 1>(c)", "logarithms"),
        ("Softmax<axis = 1>(c)", "Sigmoid(c)", "sigmoid of each score"),
    ],
)  # fmt: skip
def test_wrong_answer_is_named(old: str, new: str, hint: str) -> None:
    assert old in ANSWER
    for who in ("ada", "emmy"):
        assert hint in failed("8.2", with_answer(who, ANSWER.replace(old, new)), who)


def test_answers_with_a_frozen_batch() -> None:
    """Also one that is as large as a row: a check with a square input would not see it."""
    for batch in (1, 6):
        frozen = with_answer("ada", ANSWER)
        make_dim_param_fixed(frozen.graph, "batch", batch)
        assert f"[{batch}, 6]" in failed("8.2", frozen)


def test_wrong_number_of_classes() -> None:
    assert "shape" in " ".join(c.what for c in criteria("8.2", with_answer("ada", ANSWER, best=1)) if not c.passed)
    assert "id (int64)" in " ".join(c.what for c in criteria("8.2", given("8.2")) if not c.passed)


# 8.3

REPLACED = {
    ("HardSwish", "NNAPI"): "a = Mul x sixth; b = Add a half; c = Clip b zero one; y = Mul x c",
    ("Mish", "NNAPI"): "a = Exp x; b = Add a one; c = Log b; d = Tanh c; y = Mul x d",
    ("Softsign", "NNAPI"): "a = Abs x; b = Add a one; y = Div x b",
    ("HardSwish", "CoreML MLProgram"): "a = Mul x sixth; b = Add a half; c = Clip b zero one; y = Mul x c",
    ("Mish", "CoreML MLProgram"): "a = Softplus x; b = Tanh a; y = Mul x b",
    ("Softsign", "CoreML MLProgram"): "a = Sub zero x; b = Max x a; c = Add b one; y = Div x c",
}
CONSTANTS = {"one": 1, "half": 0.5, "sixth": 1 / 6, "zero": 0, "three": 3, "six": 6}


def variant(who: str, steps: str = "", only: int | None = None, fix: bool = True) -> onnx.ModelProto:
    """The handed-out model with its activations (or only one of them) written in these steps."""
    p, model = params("8.3", who), given("8.3", who)
    steps = steps or REPLACED[p["activation"], p["accelerator"]]
    nodes, seen = [], 0
    for node in model.graph.node:
        if node.op_type != p["activation"] or (seen := seen + 1) - 1 not in ([only] if only is not None else [0, 1]):
            nodes.append(node)
            continue
        names = {"x": node.input[0], "y": node.output[0]} | {name: name for name in CONSTANTS}
        for step in steps.split("; "):
            output, _, op, *inputs = step.split()
            names.setdefault(output, f"{node.name}_{output}")
            nodes.append(helper.make_node(op, [names[i] for i in inputs], [names[output]], names[output]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(np.float32(v), n) for n, v in CONSTANTS.items())
    if fix:
        make_dim_param_fixed(model.graph, "batch", 1)
    return model


OTHER = {
    "HardSwish": "a = Add x three; b = Clip a zero six; c = Mul b sixth; y = Mul c x",
    "Softsign": "a = Sub zero x; b = Max a x; c = Add one b; y = Div x c",
    "Mish": "a = Exp x; b = Add a one; c = Mul b b; d = Add c one; e = Sub c one; f = Div e d; y = Mul f x",  # tanh(log(u))
}


def other_variant(who: str) -> onnx.ModelProto:
    """In other words, with all shapes written into the file, and the batch fixed by hand."""
    model = variant(who, OTHER[params("8.3", who)["activation"]], fix=False)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)


@functools.cache
def student_with(activation: str, accelerator: str) -> str:
    want = {"activation": activation, "accelerator": accelerator}
    return next(w for w in map(str, range(300)) if want.items() <= params("8.3", w).items())


@pytest.mark.parametrize(("activation", "accelerator"), REPLACED)
def test_variant(activation: str, accelerator: str) -> None:
    who = student_with(activation, accelerator)
    accepted("8.3", variant(who), who)
    accepted("8.3", other_variant(who), who)
    assert failed("8.3", variant(who, fix=False), who).count("make_dim_param_fixed") == 1
    assert "still there: activate_2" in failed("8.3", variant(who, only=0), who)
    assert "were taken out" in failed("8.3", variant(who, "y = Max x x"), who)


def test_operators_that_the_other_accelerator_has() -> None:
    """NNAPI has no Softplus, CoreML no Abs."""
    nnapi, coreml = student_with("Mish", "NNAPI"), student_with("Softsign", "CoreML MLProgram")
    assert "lacks Softplus" in failed("8.3", variant(nnapi, REPLACED["Mish", "CoreML MLProgram"]), nnapi)
    assert "lacks Abs" in failed("8.3", variant(coreml, REPLACED["Softsign", "NNAPI"]), coreml)


@pytest.mark.parametrize(
    ("activation", "steps", "hint"),
    [
        ("HardSwish", "a = Mul x half; y = Mul x a", "Compare each new piece"),
        ("HardSwish", "a = Mul x sixth; b = Add a half; y = Clip b zero one", "factor x is missing"),
        ("HardSwish", "a = Mul x sixth; b = Add a half; y = Mul x b", "bounds 0 and 1 are missing"),
        ("HardSwish", "a = Mul x sixth; b = Add a half; c = Mul x b; y = Clip c zero one", "bounds belong around"),
        ("Mish", "a = Softplus x; y = Tanh a", "factor x is missing"),
        ("Mish", "a = Softplus x; y = Mul x a", "tanh is missing"),
        ("Softsign", "a = Abs x; y = Div x a", "1 is missing"),
    ],
)
def test_forgotten_part_of_an_activation_is_named(activation: str, steps: str, hint: str) -> None:
    who = student_with(activation, "NNAPI")
    assert hint in failed("8.3", variant(who, steps), who)


def test_a_yes_is_not_bought_with_nodes_that_do_nothing() -> None:
    """All work in operators that the accelerator lacks, and behind them many nodes that it takes."""
    who = student_with("HardSwish", "NNAPI")
    inner = given("8.3", who).graph
    del inner.node[1], inner.node[2]  # the two HardSwish
    sigmoid = {"alpha": 1 / 6, "beta": 0.5}
    parts = [
        [helper.make_node("HardSigmoid", [f"c{i}"], [f"h{i}"], **sigmoid), helper.make_node("Einsum", [f"c{i}", f"h{i}"], [f"a{i}"], equation="nchw,nchw->nchw")]
        for i in (1, 2)
    ]  # fmt: skip
    convs = [helper.make_node("FusedConv", list(n.input), list(n.output), domain="com.microsoft", kernel_shape=[3, 3],
                              pads=[1, 1, 1, 1]) for n in inner.node if n.op_type == "Conv"]  # fmt: skip
    nodes = [convs[0], *parts[0], convs[1], *parts[1], helper.make_node("GlobalAveragePool", ["a2"], ["z0"])]
    nodes += [helper.make_node("Add", [f"z{i}", "zero"], [f"z{i + 1}" if i < 39 else "y"]) for i in range(40)]
    graph = variant(who).graph
    del graph.node[:]
    graph.node.extend(nodes)
    known = {"c": [1, 6, 8, 8], "h": [1, 6, 8, 8], "a": [1, 6, 8, 8], "z": [1, 4, 1, 1]}
    for name in [n.output[0] for n in nodes[:-1]]:
        shape = [1, 4, 8, 8] if name in ("c2", "h2", "a2") else known[name[0]]
        graph.value_info.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    opsets = [helper.make_opsetid("", 22), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    found = {c.what: c.passed for c in criteria("8.3", model, who)}
    assert found.pop("the checker says YES for NNAPI, and it takes every node") is False
    assert all(found.values()), "it fails for no other reason"


def with_constant_nodes(who: str, steps: str = "") -> onnx.ModelProto:
    model = variant(who, steps)
    for tensor in list(model.graph.initializer):
        if tensor.name in CONSTANTS:
            model.graph.initializer.remove(tensor)
            model.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
    return model


def test_constants_as_nodes_get_a_hint() -> None:
    """Alone; beside another operator that is lacking, both are named."""
    who = student_with("HardSwish", "NNAPI")
    assert "write their values as initializers" in failed("8.3", with_constant_nodes(who), who)
    who = student_with("Mish", "NNAPI")
    hint = failed("8.3", with_constant_nodes(who, REPLACED["Mish", "CoreML MLProgram"]), who)
    assert "NNAPI lacks Constant, Softplus." in hint


def test_what_was_handed_out_and_other_models() -> None:
    assert "0 of 5 nodes" in failed("8.3", given("8.3"))
    failed("8.3", onnx.ModelProto(ir_version=8))
    constant = variant("ada")
    del constant.graph.node[:]
    constant.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 4, 1, 1), np.float32), "y"))
    assert "The largest difference" in failed("8.3", constant)


def test_a_function_hides_what_the_accelerator_lacks() -> None:
    """The handed-out activations, each in a function of the file: it computes the same, and no such node is in the graph."""
    hidden = given("8.3")
    make_dim_param_fixed(hidden.graph, "batch", 1)
    activation = params("8.3")["activation"]
    body = [helper.make_node(activation, ["a"], ["b"])]
    hidden.functions.append(helper.make_function("own", "act", ["a"], ["b"], body, hidden.opset_import))
    hidden.opset_import.add(domain="own", version=1)
    for node in hidden.graph.node:
        if node.op_type == activation:
            node.op_type, node.domain = "act", "own"
    assert "A function hides its nodes: write the nodes into the graph." in failed("8.3", hidden)


def test_the_checker_is_loaded_without_pytorch(python: Any, tmp_path: Any) -> None:
    done = python(
        """
        import sys
        import onnx
        from course_utils.exercises.ch08 import phone_variant
        checker, _ = phone_variant._usability_checker()
        print("torch" in sys.modules, "onnxruntime.tools" in sys.modules, callable(checker.check_nnapi_partitions))
        """,
        cwd=tmp_path,
    )
    assert done.stdout.split() == ["False", "False", "True"]


# 8.4


def outcome(who: str, largest_batch: float, wait_ms: float, **other: Any) -> dict[str, Any]:
    """An answer with what these settings give, in the student's numbers."""
    p = params("8.4", who)
    found = server_limits.served(p, int(largest_batch), wait_ms, p["seed"])
    p99, busy = round(float(np.percentile(found.latencies, 99)), 2), round(float(found.busy), 3)
    return {"largest_batch": largest_batch, "wait_ms": wait_ms, "p99_ms": p99, "busy": busy} | other


@functools.cache
def best_wait(who: str, largest_batch: int) -> float:
    """What is farthest from both limits."""
    p, best = params("8.4", who), {}
    for wait in np.linspace(0, 60, 41):
        found = server_limits.served(p, largest_batch, float(wait), 5)
        margin = min(1 - np.percentile(found.latencies, 99) / p["p99_ms"], 5 * (p["busy"] - found.busy))
        best[float(wait)] = margin
    return max(best, key=best.get)


def settings_for(who: str) -> dict[str, Any]:
    return outcome(who, 16, best_wait(who, 16))


def settings_with_full_batches(who: str) -> dict[str, Any]:
    """The largest batches that were measured, and numbers written with a point."""
    return outcome(who, 32.0, best_wait(who, 32))


@pytest.mark.parametrize("who", [str(n) for n in range(12)])
def test_settings(who: str) -> None:
    accepted("8.4", settings_for(who), who)


def test_settings_at_the_edge_and_an_outcome_that_is_only_near() -> None:
    p, right = params("8.4"), settings_for("ada")

    def passed(answer: dict[str, Any], **other: Any) -> list[bool]:
        return [c.passed for c in server_limits.check_settings(answer, p | other, Random(3)) if not c.condition]

    assert passed(right) == [True, True]
    assert passed(right, p99_ms=0.8 * right["p99_ms"]) == [False, True]
    assert passed(right, busy=right["busy"] - 0.05) == [True, False]
    assert passed(right | {"p99_ms": 1.02 * right["p99_ms"]}) == []
    assert passed(right | {"busy": right["busy"] + 0.01}) == []


@pytest.mark.parametrize("who", STUDENTS)
def test_settings_beyond_the_limits(who: str) -> None:
    wait = best_wait(who, 16)
    assert "let requests wait longer" in failed("8.4", outcome(who, 16, 0), who)
    assert "lower wait_ms" in failed("8.4", outcome(who, 16, 3 * wait), who)
    assert "allow larger ones" in failed("8.4", outcome(who, 1, 0), who)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("largest_batch", 0), ("largest_batch", 33), ("largest_batch", True), ("largest_batch", "16"),
        ("largest_batch", 10**30), ("largest_batch", 8.5), ("wait_ms", -1), ("wait_ms", math.nan),
        ("wait_ms", math.inf), ("wait_ms", None), ("wait_ms", False), ("wait_ms", 10**400), ("wait_ms", [1]),
        ("p99_ms", math.nan), ("p99_ms", None), ("busy", "0.5"), ("busy", True),
    ],
)  # fmt: skip
def test_absurd_settings(key: str, value: Any) -> None:
    assert "It is" in failed("8.4", {"largest_batch": 8, "wait_ms": 1, "p99_ms": 1, "busy": 1, key: value})


def test_settings_of_another_shape() -> None:
    failed("8.4", {"largest_batch": 8})
    failed("8.4", [8, 1])


# 8.5


def asked(who: str) -> list[tuple[str, str, int, bytes]]:
    """Letter, Content-Type, waiting and body of each request, as a student gets them."""
    files, table = given_files("8.5", who), params("8.5", who)["requests"]
    return [(k, r["Content-Type"], r["waiting"], files[f"8.5_{k}.bin"]) for k, r in table.items()]


def statuses(who: str, *, slip: str = "") -> dict[str, int]:
    """By NumPy's and Python's own readers. slip: what is done in another way than the rules say."""
    limits, found = params("8.5", who)["limits"], {}
    for letter, kind, waiting, body in asked(who):
        plain = kind if slip == "semicolon" else kind.split(";")[0]
        large, busy = len(body) > limits["most_bytes"], waiting >= limits["queue"]
        if large and slip != "size last":
            found[letter] = 413
        elif plain not in ("application/x-npy", "application/json"):
            found[letter] = 415
        elif busy and slip == "queue first":
            found[letter] = 503
        else:
            try:
                npy = plain == "application/x-npy"
                a = np.load(io.BytesIO(body)) if npy else np.array(json.loads(body)["pixels"])
            except ValueError:
                found[letter] = 422 if slip == "unreadable" else 400
                continue
            small = a.dtype == np.uint8 if npy else ((a >= 0) & (a <= 255)).all()
            images = a.shape[0] if a.ndim == 3 else 1
            most = limits["most_images"] - (slip == "limit")
            fine = (small or slip == "any dtype") and a.shape[-2:] == (28, 28) and 0 < images <= most
            found[letter] = 422 if not fine else 503 if busy else 200
    return found


def statuses_from_headers(who: str) -> dict[str, float]:
    """As the lesson's server does it: the header of .npy is read, and the bytes behind it are counted."""
    limits, found = params("8.5", who)["limits"], {}
    for letter, kind, waiting, body in asked(who):
        stream = io.BytesIO(body)
        if len(body) > limits["most_bytes"]:
            answer = 413
        elif kind.startswith("application/x-npy"):
            npy.read_magic(stream)
            shape, _, dtype = npy.read_array_header_1_0(stream)
            if dtype != np.uint8 or shape[-2:] != (28, 28) or (len(shape) == 3 and shape[0] > limits["most_images"]):
                answer = 422
            elif len(body) - stream.tell() != math.prod(shape):
                answer = 400
            else:
                answer = 503 if waiting == limits["queue"] else 200
        elif kind == "application/json":
            values = [int(word) for word in re.findall(rb"-?[0-9]+", body)]
            answer = 400 if not body.endswith(b"]]}") else 422 if max(values) > 255 or min(values) < 0 else 200
        else:
            answer = 415
        found = {letter: float(answer), **found}
    return found


@pytest.mark.parametrize("who", [*STUDENTS, *map(str, range(8))])
def test_every_status_occurs_and_each_wrong_one_is_explained(who: str) -> None:
    right = statuses(who)
    assert set(right.values()) == set(server_limits._STATUS)
    for letter, status in right.items():
        hint = failed("8.5", {**right, letter: 200 if status != 200 else 422}, who)
        assert hint.startswith("11 of 12 are right. Of one you say ")
        assert server_limits._STATUS[status] in hint


def test_most_right_is_worth_a_half() -> None:
    right = statuses("ada")
    some = {letter: status if number < 9 else 413 for number, (letter, status) in enumerate(right.items())}
    assert [c.passed for c in criteria("8.5", some) if not c.condition] == [True, False]


@pytest.mark.parametrize("value", ["200", 404, True, None, [200], 200.5, math.nan])
def test_statuses_of_another_kind(value: Any) -> None:
    assert "without quotes" in failed("8.5", {**statuses("ada"), "A": value})


def test_answers_of_another_shape() -> None:
    failed("8.5", {"A": 200})
    failed("8.5", [200] * 12)


# 8.6


def test_what_is_recorded_of_the_network_is_what_it_answers():
    numbers = np.arange(0, 10_000, 97)
    logits = float_logits(cu.normalize(cu.fashion_mnist("test")[0][numbers])).astype(np.float64)
    classes, shares = said_of(numbers)
    assert np.array_equal(classes, logits.argmax(1))
    assert np.allclose(shares, 1 / np.exp(logits - logits.max(1, keepdims=True)).sum(1), atol=1e-5)


SHAPES = {"flat": [784], "square": [28, 28], "last": [28, 28, 1]}


def page_parts(who: str) -> tuple[dict[str, Any], onnx.ModelProto, str]:
    """Parameters, the handed-out model, and the code of the page."""
    files = given_files("8.6", who)
    return params("8.6", who), onnx.load_from_string(files["8.6.onnx"]), files["8.6_page.js"].decode()


def bare(model: onnx.ModelProto) -> onnx.ModelProto:
    for part in [model.graph, *model.graph.node, *model.graph.initializer]:
        del part.metadata_props[:]
        part.ClearField("doc_string")
    return model


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """Large weights in float16, with a Cast behind each."""
    casts = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size > 1000:
            casts.append(helper.make_node("Cast", [f"{tensor.name}.16"], [tensor.name], to=1))
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{tensor.name}.16"))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def for_the_page(
    who: str, *, half: bool = True, clear: bool = True, convert: bool = True, ir: int = 0, classes: list[int] | None = None,
    prepared: str = "", share: str = "soft = Softmax<axis = 1>(scores)", kind: str = "int32",
) -> onnx.ModelProto:  # fmt: skip
    """Parts in text, joined. prepared: other nodes from `ink` (numbers as they are drawn) to `y`."""
    p, model, code = page_parts(who)
    opset = p["opset"] if convert else 21
    model = onnx.version_converter.convert_version(model, opset) if convert else model
    model.ir_version = ir or p["ir"]
    header = f'<ir_version: {model.ir_version}, opset_import: ["": {opset}]>'
    tail = re.search(r"/ 784, ([0-9, ]+)\]", code)[1]
    negative = "white = Sub(most, ink)" if "black on white" in code else "white = Identity(ink)"
    nodes = (
        prepared
        or f"""{negative}
        a = Div(white, most)
        b = Sub(a, mean)
        y = Div(b, deviation)"""
    )
    before = parser.parse_model(f"""{header} before (uint8[n, {tail}] {p["input"]}) => (float[n, 1, 28, 28] x)
        <float most = {{255.0}}, float mean = {{0.286}}, float deviation = {{0.353}}, int64[4] shape = {{-1, 1, 28, 28}}> {{
        ink = Cast<to = 1>({p["input"]})
        {nodes}
        x = Reshape(y, shape) }}""")
    numbers = ", ".join(map(str, classes or p["order"]))
    after = parser.parse_model(f"""{header} after (float[n, 10] scores) => ({kind}[n] {p["label"]}, float[n] {p["share"]})
        <int64[1] one = {{1}}, {kind}[10] classes = {{{numbers}}}> {{
        {share}
        top, position = TopK<axis = 1>(soft, one)
        {p["share"]} = Squeeze(top, one)
        place = Squeeze(position, one)
        {p["label"]} = Gather(classes, place) }}""")
    front = compose.merge_models(before, model, io_map=[("x", "image")])
    whole = compose.merge_models(front, after, io_map=[("logits", "scores")])
    whole = halved(whole) if half else whole
    return bare(whole) if clear else whole


def for_the_page_by_hand(who: str) -> onnx.ModelProto:
    """A network that computes in float16; one product and one sum before it, and classes in their order behind it."""
    p, source, _ = page_parts(who)
    values = {t.name: numpy_helper.to_array(t).astype(np.float16) for t in source.graph.initializer}
    for name in ("last.weight", "last.bias"):
        values[name] = values[name][np.argsort(p["order"])]
    sign = -1 if p["ink"] == "black on white" else 1
    offset = (1 if sign < 0 else 0) - 0.286
    values |= {
        "factor": np.float16(sign / 255 / 0.353),
        "offset": np.float16(offset / 0.353),
        "like": np.array([0, 1, 28, 28]),
    }
    make, label, share = helper.make_node, p["label"], p["share"]
    nodes = [
        make("Reshape", [p["input"], "like"], ["grid"]),
        make("Cast", ["grid"], ["half"], to=10),
        make("Mul", ["half", "factor"], ["scaled"]),
        make("Add", ["scaled", "offset"], ["image"]),
        *source.graph.node,
        make("Cast", ["logits"], ["scores"], to=1),
        make("ArgMax", ["scores"], ["place"], axis=1, keepdims=0),
        make("Cast", ["place"], [label], to=6),
        make("ReduceLogSumExp", ["scores"], ["all"], keepdims=0, **({} if p["opset"] > 17 else {"axes": [1]})),
        make("TopK", ["scores", "one"], ["peak", "where"], axis=1),
        make("Squeeze", ["peak", "one"], ["largest"]),
        make("Sub", ["largest", "all"], ["log"]),
        make("Exp", ["log"], [share]),
    ]  # fmt: skip
    values["one"] = np.array([1])
    if p["opset"] > 17:
        nodes[-5].input.append("one")
    graph = helper.make_graph(
        nodes, "page", [helper.make_tensor_value_info(p["input"], onnx.TensorProto.UINT8, ["n", *SHAPES[p["shape"]]])],
        [helper.make_tensor_value_info(label, onnx.TensorProto.INT32, ["n"]),
         helper.make_tensor_value_info(share, onnx.TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(v, n) for n, v in values.items()],
    )  # fmt: skip
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", p["opset"])])
    return bare(model)


def test_pages_differ_and_their_code_holds_what_the_check_wants() -> None:
    codes = {page_parts(who)[2] for who in STUDENTS}
    assert len(codes) == len(STUDENTS)
    for who in STUDENTS:
        p, model, code = page_parts(who)
        for word in (p["input"], p["label"], p["share"], p["ink"], f"opset {p['opset']}", f"IR version {p['ir']}"):
            assert word in code
        assert (model.ir_version, model.opset_import[0].version) == (10, 21)
        assert len(model.SerializeToString()) > p["most_bytes"]


def test_a_foreign_operator_for_the_page() -> None:
    model = for_the_page("ada")
    model.opset_import.add(domain="com.microsoft", version=1)
    assert "not com.microsoft" in failed("8.6", model)


def test_facts_about_the_model_are_notes_too() -> None:
    model = for_the_page("ada")
    model.metadata_props.add(key="made on", value="a machine")
    assert "made on of the model" in failed("8.6", model)


# 8.7


def served(who: str) -> tuple[dict[str, Any], Any, str]:
    """Parameters, a session of the handed-out model, and the text that does not fit it. Skips where tritonclient is missing."""
    if not find_spec("tritonclient"):
        give_up("tritonclient is not installed: it comes with the extra serve.")
    files = given_files("8.7", who)
    session = cu.running.session_for(files["8.7.onnx"])
    return params("8.7", who), session, files["8.7_config.pbtxt"].decode()


def rewritten(who: str, *faults: str) -> dict[str, str]:
    """The text as it was meant, with some of its faults."""
    p, _, _ = served(who)
    return {"config": triton_text.config_text(p, set(faults))}


def described(who: str) -> dict[str, str]:
    """A message made from the session, written as text; other words for the same."""
    p, session, _ = served(who)
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2 as definition

    agreed, config = p["agreed"], definition.ModelConfig(name=p["folder"], platform="onnxruntime_onnx")
    config.default_model_filename = "model.onnx"
    free = "batch" in agreed
    for side, tensors in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        for tensor in tensors:
            stated = side.add(name=tensor.name)
            plain = tensor.type[7:-1].replace("double", "float64").upper()
            plain = {"FLOAT": "FP32", "FLOAT16": "FP16"}.get(plain, plain)
            stated.data_type = definition.DataType.Value(f"TYPE_{plain}")
            dims = [n if isinstance(n, int) else -1 for n in tensor.shape][free:]
            stated.dims.extend(dims or [1])
            if not dims:
                stated.reshape.SetInParent()
    if free:
        config.max_batch_size = agreed["batch"]
        config.dynamic_batching.max_queue_delay_microseconds = 1000 * agreed["wait_ms"]
    for count in (1, agreed["sessions"] - 1):
        group = config.instance_group.add(count=count)
        group.kind = definition.ModelInstanceGroup.Kind.Value(f"KIND_{agreed['on'][:3]}")
        group.gpus.extend(int(n) for n in agreed["on"][4:])
    config.version_policy.specific.versions.append(agreed["versions"][-1])
    return {"config": text_format.MessageToString(config)}


def of_kind(*, fixed: bool) -> str:
    """A student whose model has a fixed batch, or a free one."""
    return next(str(n) for n in range(99) if ("batch" not in params("8.7", str(n))["agreed"]) == fixed)


@pytest.mark.parametrize("who", [*STUDENTS, *map(str, range(20))])
def test_the_handed_out_text_is_wrong_in_several_ways(who: str) -> None:
    p, session, text = served(who)
    assert "no field named" in failed("8.7", {"config": text}, who)
    spelled = {"config": triton_text.config_text(p, triton_text.details(p)["faults"])}
    found = criteria("8.7", spelled, who)
    assert [c.passed for c in found if not c.condition] == [False, False]
    assert re.search(r"[2-9] things do not fit", found[-2].hint)
    assert len(cu.triton_findings(spelled["config"], session)) >= 2
    onnx.checker.check_model(triton_text.served_model(p), full_check=True)
    accepted("8.7", rewritten(who), who)


@pytest.mark.parametrize(
    ("fixed", "fault", "hint"),
    [
        (True, "batch", "has no free batch, so max_batch_size must be 0"),
        (False, "batch", r"without the batch, not \[-1, "),
        (False, "preferred", "preferred_batch_size .* is more than max_batch_size"),
        (False, "wait", "it counts microseconds"),
        (True, "free words", r"\[1, -1\], not \[1, 128\]"),
        (False, "free words", r"is \[-1\] without the batch, not \[128\]"),
        (False, "order of dims", "without the batch, not"),
        (True, "name of an output", "outputs are"),
    ],
)
def test_one_fault_alone(fixed: bool, fault: str, hint: str) -> None:
    who = of_kind(fixed=fixed)
    assert re.search(hint, failed("8.7", rewritten(who, fault), who))


@pytest.mark.parametrize("value", ["", "x" * 30_000, "name: 3", "{", 7, ["name"], "\x00", "input { " * 2000])
def test_odd_texts(value: Any) -> None:
    served("ada")
    found = criteria("8.7", {"config": value})
    assert not found[-1].passed
    assert found[-1].condition
    assert found[-1].what != "the answer can be examined"


def test_without_tritonclient_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is not to blame, so it is no failed criterion."""
    monkeypatch.setitem(sys.modules, "tritonclient", None)
    verdict = assessed(task("8.7"), b'{"config": "name: \\"x\\""}', "8.7.json", "ada")
    assert verdict.lacking
    assert not verdict.criteria
    assert re.fullmatch(r"The package 'tritonclient' is not installed.*onnx-scroll\[serve\].*", verdict.problem)


# What holds for all exercises


def slip_of_8_3(steps: dict[str, str], cause: dict[str, str]) -> tuple[Any, str]:
    activation = params("8.3")["activation"]
    return (lambda who: variant(who, steps[activation])), cause[activation]


def negative_for_the_page(
    who: str, *, flip: bool = True, end: str = "a = Div(white, most)\n b = Sub(a, mean)\n y = Div(b, deviation)"
) -> onnx.ModelProto:
    """flip: with the colours the wrong way round. end: from white to y."""
    black = page_parts(who)[0]["ink"] == "black on white"
    first = "white = Sub(most, ink)" if black != flip else "white = Identity(ink)"
    return for_the_page(who, prepared=f"{first}\n {end}")


RIGHT = {
    "8.1": (with_preparation, folded_preparation),
    "8.2": (lambda who: with_answer(who, ANSWER), answer_by_hand),
    "8.3": (variant, other_variant),
    "8.4": (settings_for, settings_with_full_batches),
    "8.5": (statuses, statuses_from_headers),
    "8.6": (for_the_page, for_the_page_by_hand),
    "8.7": (rewritten, described),
}
WRONG = {
    "8.1": {
        "no scale": (lambda who: with_preparation(who, "gather mean deviation transpose"), "division by 255 is missing"),
        "mean added": (lambda who: with_preparation(who, "gather scale plus deviation transpose"), "The mean is added"),
        "channels": (lambda who: with_preparation(who, "other scale mean deviation transpose"), "channels are in the wrong order"),
        "axes": (lambda who: with_preparation(who, perm="0, 3, 2, 1"), "Rows and columns are swapped"),
        "reshaped": (lambda who: with_preparation(who, "gather scale mean deviation reshape"), "use Transpose"),
    },
    "8.2": {
        "no temperature": (lambda who: with_answer(who, ANSWER.replace("Div(scores, t)", "Identity(scores)")), "temperature is missing"),
        "positions": (lambda who: with_answer(who, ANSWER.replace("Gather<axis = 0>(ids, place)", "Identity(place)")), "positions"),
        "other axis": (lambda who: with_answer(who, ANSWER.replace("Softmax<axis = 1>", "Softmax<axis = 0>")), "axis 1"),
        "smallest": (lambda who: with_answer(who, ANSWER.replace("TopK<axis = 1>", "TopK<axis = 1, largest = 0>")), "smallest"),
    },
    "8.3": {
        "free batch": (lambda who: variant(who, fix=False), "make_dim_param_fixed"),
        "one left": (lambda who: variant(who, only=0), "still there: activate_2"),
        "taken out": (lambda who: variant(who, "y = Max x x"), "were taken out"),
        "a part forgotten": slip_of_8_3(
            {"HardSwish": "a = Mul x sixth; b = Add a half; y = Mul x b", "Mish": "a = Exp x; b = Add a one; c = Log b; y = Mul x c",
             "Softsign": "a = Max x x; b = Add a one; y = Div x b"},
            {"HardSwish": "bounds 0 and 1 are missing", "Mish": "tanh is missing", "Softsign": "absolute value is missing"},
        ),
    },
    "8.4": {
        "no waiting": (lambda who: outcome(who, 16, 0), "let requests wait longer"),
        "too long": (lambda who: outcome(who, 16, 3 * best_wait(who, 16)), "lower wait_ms"),
        "one by one": (lambda who: outcome(who, 1, 0), "allow larger ones"),
        "the outcome of others": (lambda who: settings_for(who) | {"p99_ms": settings_for("grace")["p99_ms"]}, "for them, with your numbers"),
    },
    "8.5": {
        "the queue first": (lambda who: statuses(who, slip="queue first"), "of 12 are right. Of one you say 503"),
        "the size last": (lambda who: statuses(who, slip="size last"), "this is seen first"),
        "a limit is too much": (lambda who: statuses(who, slip="limit"), "a limit itself is allowed"),
        "what follows the semicolon": (lambda who: statuses(who, slip="semicolon"), "Of one you say 415"),
        "any dtype": (lambda who: statuses(who, slip="any dtype"), "what it holds is wrong"),
        "unreadable is 422": (lambda who: statuses(who, slip="unreadable"), "is not what its Content-Type says"),
    },
    "8.6": {
        "float32": (lambda who: for_the_page(who, half=False), r"\d tensors are float32, the largest is .*: store them in float16"),
        "notes": (lambda who: for_the_page(who, clear=False), "doc_string of .* is one|stack_trace.* is one"),
        "not converted": (lambda who: for_the_page(who, convert=False), "convert_version writes an older opset"),
        "a newer format": (lambda who: for_the_page(who, ir=10), "model.ir_version can be set"),
        "positions": (lambda who: for_the_page(who, classes=list(range(10))), "These are positions of the logits"),
        "the inverse": (lambda who: for_the_page(who, classes=np.argsort(params("8.6", who)["order"]).tolist()), "the wrong way round"),
        "a negative": (negative_for_the_page, "as a negative|into a negative"),
        "no mean": (lambda who: negative_for_the_page(who, flip=False, end="y = Div(white, most)"), "Mean and deviation are missing"),
        "no scale": (
            lambda who: negative_for_the_page(who, flip=False, end="a = Sub(white, mean)\n y = Div(a, deviation)"), "division by 255 is missing",
        ),
        "scores": (lambda who: for_the_page(who, share="soft = Identity(scores)"), "a Softmax over the ten classes is missing"),
        "other probabilities": (
            lambda who: for_the_page(who, share="all = Softmax<axis = 1>(scores)\n soft = Mul(all, all)"),
            "is the largest value of the Softmax",
        ),
        "rows and columns": (
            lambda who: negative_for_the_page(
                who, flip=False,
                end="m = Reshape(white, shape)\n t = Transpose<perm = [0, 1, 3, 2]>(m)\n a = Div(t, most)\n b = Sub(a, mean)\n"
                " y = Div(b, deviation)",
            ),
            "Rows and columns are swapped",
        ),
        "no mean, and coarse": (
            lambda who: negative_for_the_page(
                who, flip=False,
                end="k = Constant<value_float = 24.0>()\n q = Div(white, k)\n f = Floor(q)\n r = Mul(f, k)\n y = Div(r, most)",
            ),
            "Mean and deviation are missing",
        ),
        "another deviation": (
            lambda who: negative_for_the_page(who, flip=False, end="a = Div(white, most)\n b = Sub(a, deviation)\n y = Mul(b, mean)"),
            "Compare with NumPy",
        ),
        "int64": (lambda who: for_the_page(who, kind="int64"), r"\(int64\)"),
    },
    "8.7": {
        "a type": (lambda who: rewritten(who, "image type"), "1 thing does not fit. The first one: .* is TYPE_"),
        "sides exchanged": (lambda who: rewritten(who, "order of dims"), r"is \[.*\].*, not \["),
        "another name": (lambda who: rewritten(who, "name of an output"), "outputs are"),
        "not the folder's name": (lambda who: rewritten(who, "name"), "Triton refuses a name that differs"),
        "an old version": (lambda who: rewritten(who, "versions"), "version_policy would serve"),
        "a session too many": (lambda who: rewritten(who, "sessions"), r"starts \d sessions, agreed were \d"),
        "another device": (lambda who: rewritten(who, "place"), "must put all sessions on"),
        "a misspelled field": (
            lambda who: {"config": rewritten(who)["config"].replace("data_type", "datatype", 1)}, "no field named .datatype",
        ),
    },
}  # fmt: skip


def test_tasks_are_complete() -> None:
    assert list(tasks_of(8)) == list(RIGHT) == list(WRONG)


# Borders of 8.4 and 8.5


@pytest.mark.parametrize(
    ("key", "value", "fits"),
    [("largest_batch", 0, False), ("largest_batch", 1, True), ("largest_batch", 32, True), ("largest_batch", 33, False),
     ("wait_ms", -0.01, False), ("wait_ms", 0, True), ("wait_ms", 1000, True), ("wait_ms", 1000.1, False), ("p99_ms", True, False),
     ("p99_ms", 0, True), ("p99_ms", 1e9, True), ("p99_ms", 1.1e9, False), ("busy", "0.5", False), ("busy", 0, True)],
)  # fmt: skip
def test_settings_that_can_be_examined(key: str, value: Any, fits: bool) -> None:
    found = criteria("8.4", {"largest_batch": 8, "wait_ms": 1, "p99_ms": 1, "busy": 1, key: value})
    (seen,) = (c for c in found if c.what.startswith(key) and " a " in c.what)
    assert seen.passed == fits
    assert len(found) == 6 if fits else len(found) == 5, "what outcome() gives is looked at for sound settings alone"


@pytest.mark.parametrize(
    ("key", "factor", "more", "told"),
    [("p99_ms", 1.0098, 0, True), ("p99_ms", 1.0103, 0, False), ("p99_ms", 0.9902, 0, True), ("p99_ms", 0.9897, 0, False),
     ("busy", 1, 0.0059, True), ("busy", 1, 0.0061, False), ("busy", 1, -0.0059, True), ("busy", 1, -0.0061, False)],
)  # fmt: skip
def test_how_exact_an_outcome_is(key: str, factor: float, more: float, told: bool) -> None:
    p, right = params("8.4"), settings_for("ada")
    own = server_limits.served(p, right["largest_batch"], right["wait_ms"], p["seed"])
    exact = right | {"p99_ms": float(np.percentile(own.latencies, 99)), "busy": float(own.busy)}
    found = criteria("8.4", exact | {key: exact[key] * factor + more})
    (seen,) = (c for c in found if "outcome()" in c.what)
    assert seen.passed == told
    assert len([c for c in found if not c.condition]) == (2 if told else 0)


@pytest.mark.parametrize(("wrong", "goals"), [(0, [True, True]), (3, [True, False]), (4, [False, False])])
def test_how_many_statuses_are_enough(wrong: int, goals: list[bool]) -> None:
    answer = statuses("ada")
    for letter in "LKJIHGFEDCBA"[:wrong]:
        answer[letter] = 413 if answer[letter] != 413 else 200
    found = criteria("8.5", answer)
    assert [c.passed for c in found if not c.condition] == goals
    assert not wrong or f"{12 - wrong} of 12 are right" in found[-1 if wrong < 4 else -2].hint


def test_each_rule_of_the_server_at_its_border() -> None:
    limits = {"most_bytes": 6000, "most_images": 3, "queue": 10}
    npy, js = server_limits.NPY, server_limits.JSON

    def of(kind: str, body: bytes, waiting: int = 0) -> int:
        return server_limits.status(kind, waiting, body, limits)

    def array(*shape: int, dtype: type = np.uint8) -> bytes:
        return server_limits._npy(np.zeros(shape, dtype))

    def pixels(first: float) -> bytes:
        return server_limits._json([[first] + [0] * 27] + [[0] * 28] * 27)

    assert of("image/png", bytes(6000)) == 415
    assert of("image/png", bytes(6001)) == 413
    assert of(npy, array(28, 28)) == of(f"{npy}; x=y", array(1, 28, 28)) == of(npy, array(3, 28, 28)) == 200
    assert of(npy, array(28, 28), 9) == 200
    assert of(npy, array(28, 28), 10) == of(npy, array(28, 28), 11) == 503
    assert (
        of(npy, array(4, 28, 28))
        == of(npy, array(0, 28, 28))
        == of(npy, array(28, 27))
        == of(npy, array(27, 28))
        == 422
    )
    assert of(npy, array(28, 28, dtype=np.int8)) == of(npy, array(28, 28, dtype=np.float32), 10) == 422
    assert of(npy, array(28, 28)[:-1]) == of(js, pixels(0)[:-1]) == 400
    assert [of(js, pixels(v)) for v in (-1, 0, 255, 256, 0.5)] == [422, 200, 200, 422, 422]


@pytest.mark.parametrize(
    ("share", "kept", "says"),
    [
        (1.0, 100, "is the largest value of the Softmax."),
        (1.0, 99, "is the largest value of the Softmax."),
        (1.0, 98, "Weights lost too much on the way"),
        (1.0, 60, "Weights lost too much on the way"),
        (1.002, 100, "Probabilities lie between 0 and 1"),
        (-0.001, 100, "Probabilities lie between 0 and 1"),
    ],
)
def test_why_probabilities_differ(share: float, kept: int, says: str) -> None:
    """As many labels of a hundred are as they were."""
    from course_utils.exercises.ch08.page_file import _share_cause

    labels = np.zeros(100, np.int64)
    found = {"share": np.full(100, share, np.float32), "label": (np.arange(100) >= kept).astype(np.int64)}
    assert says in _share_cause(found, {"share": "share", "label": "label"}, labels)
