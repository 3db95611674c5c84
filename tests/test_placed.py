"""Tasks 5.6 and 5.7 without a plug-in, and what they assume about ONNX Runtime's WebGPU plug-in, where it works, with it."""

from __future__ import annotations

import contextlib
import json
import math
import multiprocessing
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from answers import STUDENTS, criteria, failed, given, params
from copied_models import listed, model_of, moved, replaced
from onnx import TensorProto, helper, numpy_helper, parser
from test_exercise_05 import right_causes

import course_utils as cu
from course_utils.ep_experiment.placement import overheard
from course_utils.errors import CourseError
from course_utils.exercises.ch05.placed import CPU, LEFT, TAKES, WEBGPU, copies, islands, provider_of, record
from course_utils.exercises.examine import result

# Without a plug-in


def parsed(text: str) -> onnx.ModelProto:
    return parser.parse_model(
        f'<ir_version: 9, opset_import: ["": 20]> g (float[2] x) => (float[2] y) <float[2] w = {{1, 2}}> {{ {text} }}'
    )


@pytest.mark.parametrize(
    ("text", "to_host", "from_host", "groups"),
    [
        ("y = Relu(x)", "", "", 0),
        ("y = Selu(x)", "", "", 1),
        ("a = Relu(x) y = Selu(a)", "a", "", 1),
        ("a = Selu(x) y = Relu(a)", "", "a", 1),
        ("a = Selu(x) b = Celu(a) y = Relu(b)", "", "b", 1),
        ("a = Selu(x) b = Relu(a) c = Tanh(a) y = Add(b, c)", "", "a", 1),  # read twice, copied once
        ("a = Relu(x) b = Selu(a) c = Celu(a) y = Sum(b, c)", "a", "", 1),
        ("a = Relu(x) b = Selu(a) c = Celu(a) y = Add(b, c)", "a", "b c", 2),
        ("a = Relu(x) b = Selu(x) y = Add(a, b)", "", "x b", 1),  # x is read on both
        ("a = Sum(x, w) b = Mul(a, w) y = Tanh(b)", "", "a", 1),  # weights are brought before the run
        ("a = Selu(x) b = Relu(a) c = Celu(b) d = Tanh(c) e = Sum(a, d) y = Exp(e)", "b d", "a c e", 2),
    ],
)
def test_counted_by_hand(text: str, to_host: str, from_host: str, groups: int) -> None:
    model = parsed(text)
    assert copies(model) == (to_host.split(), from_host.split())
    assert islands(model) == groups


def test_every_student_can_save_copies() -> None:
    for who in map(str, range(60)):
        model, most = given("5.7", who), params("5.7", who)["most_copies"]
        before = copies(model).number
        assert before - most >= 5
        assert most < (before + most) // 2 < before - 1
        assert copies(moved(who)).number == most
        assert listed(who)["islands"] < listed(who)["on_cpu"]


def test_every_operator_on_the_cpu_counts() -> None:
    """Where one could be left out, and nobody would see it in the numbers, there was nothing to be solved."""
    for who in map(str, range(20)):
        model = given("5.7", who)
        feed = feed_of(model)
        expected = result(model, feed)
        for node in model.graph.node:
            if node.op_type in LEFT:
                other = onnx.ModelProto()
                other.CopyFrom(model)
                same = next(n for n in other.graph.node if n.name == node.name)
                same.op_type = "Identity"
                del same.attribute[:]
                assert np.abs(result(other, feed) - expected).max() > 1e-3, (who, node.name)


@pytest.mark.parametrize("who", STUDENTS)
def test_points_for_each_step(who: str) -> None:
    def goals(model: onnx.ModelProto) -> list[bool]:
        return [c.passed for c in criteria("5.7", model, who) if not c.condition]

    assert goals(given("5.7", who)) == [False]
    assert goals(moved(who, join=False, chains=False)) == [True, False]
    assert goals(moved(who, end=False)) == [True, True, False]
    assert goals(moved(who)) == goals(replaced(who)) == [True] * 3


@pytest.mark.parametrize(
    "odd", [None, 3, "t1", [], [1], ["t1"], [["x"]], [None], {"x": 1}, [math.nan], ["w0"]], ids=repr
)
@pytest.mark.parametrize("key", ["to_host", "from_host"])
def test_lists_of_another_kind(key: str, odd: Any) -> None:
    assert "names of tensors" in failed("5.6", listed("ada") | {key: odd})


@pytest.mark.parametrize("odd", [None, True, "3", 2.5, math.nan, [3], -1, 10**30])
def test_counts_of_another_kind(odd: Any) -> None:
    assert "islands: " in failed("5.6", listed("ada") | {"islands": odd})
    assert "on_cpu: " in failed("5.6", listed("ada") | {"on_cpu": odd})


def test_counts_cannot_be_found_by_trying() -> None:
    wrong = listed("ada") | {"to_host": ["x"]}
    assert not any("islands" in c.what for c in criteria("5.6", wrong) if not c.condition)


def test_nodes_that_were_not_tried() -> None:
    other = given("5.7")
    other.graph.node[-1].op_type, other.graph.node[-1].domain = "Gelu", "com.microsoft"
    other.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert failed("5.7", other)
    model = moved("ada")
    model.opset_import[0].version = 21
    assert "holds for single nodes at the opset" in failed("5.7", model)
    model = moved("ada")
    model.graph.node.insert(0, helper.make_node("Constant", [], ["unused"], value_float=1.0))
    assert "Store constants as initializers" in failed("5.7", model)
    model = moved("ada")
    model.graph.node.insert(0, helper.make_node("Cast", ["x"], ["unused"], to=TensorProto.DOUBLE))
    assert "Not tried on the plug-in: Cast" in failed("5.7", model)
    model = moved("ada")
    model.graph.initializer.append(numpy_helper.from_array(np.int64([1, 2]), "numbers"))
    model.graph.node.insert(0, helper.make_node("Neg", ["numbers"], ["unused"]))
    assert "unused have another type" in failed("5.7", model)


def test_function_does_not_hide_a_node() -> None:
    model = moved("ada", join=False)
    body = [helper.make_node("Identity", ["a"], ["b"])]
    model.functions.append(helper.make_function("own", "Cut", ["a"], ["b"], body, list(model.opset_import)))
    model.opset_import.append(helper.make_opsetid("own", 1))
    assert "holds for single nodes" in failed("5.7", model)


# With the plug-in


@pytest.fixture(scope="module")
def webgpu() -> Iterator[Callable[..., Any]]:
    """Calls a function in a process in which the plug-in is registered: here it would stay for the tests that follow."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            pool.submit(registered, "WebGPU").result()
        except CourseError as error:
            pytest.skip(str(error))
        yield lambda what, *given: pool.submit(what, *given).result()


def registered(name: str) -> str:
    return cu.provider_devices(name)[0].ep_name


Shape = tuple[int, ...]
Ran = tuple[dict[str, str], Counter[tuple[str, Shape]], list[tuple[str, str]]]


def really(model: bytes, feed: dict[str, np.ndarray], level: str = "ORT_DISABLE_ALL") -> Ran:
    """Node → provider; (direction, shape) of each copy in one run; (provider, operator) of each node that ran."""
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.log_severity_level = 4
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    options.add_provider_for_devices(cu.provider_devices("WebGPU"), {})
    with tempfile.TemporaryDirectory() as folder:
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder, "profile"))
        session = ort.InferenceSession(model, options, enable_fallback=0)
        session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    ran = [e["args"] for e in events if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")]
    copied = Counter(
        (a["op_name"], tuple(next(iter(a["input_type_shape"][0].values()))))
        for a in ran
        if a["op_name"].startswith("Memcpy")
    )
    return assigned(session), copied, [(a["provider"], a["op_name"]) for a in ran]


def assigned(session: ort.InferenceSession) -> dict[str, str]:
    return {n.name: g.ep_name for g in session.get_provider_graph_assignment_info() for n in g.get_nodes()}


def counted(model: onnx.ModelProto) -> Counter[tuple[str, Shape]]:
    """What the tasks' rule says of a model with fixed shapes."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    shapes = {
        v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim)
        for v in (*inferred.value_info, *inferred.input, *inferred.output)
    }
    to_host, from_host = copies(model)
    found = [("MemcpyToHost", shapes[name]) for name in to_host]
    return Counter([*found, *(("MemcpyFromHost", shapes[name]) for name in from_host)])


def feed_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    return {"x": np.random.default_rng(0).normal(size=shape).astype(np.float32)}


@pytest.mark.parametrize("make", [model_of, moved, replaced])
@pytest.mark.parametrize("who", STUDENTS[:2])
def test_the_plug_in_places_and_copies_so(who: str, make: Any, webgpu: Any) -> None:
    """The hand-out, and answers: what is told of them is what ONNX Runtime does."""
    model = make(who)
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"n{index}"
    feed = feed_of(model)
    placed, copied, ran = webgpu(really, model.SerializeToString(), feed)
    assert placed == {node.name: provider_of(node) for node in model.graph.node}
    assert copied == counted(model)
    told = record(model)
    assert {name: p for p, names in told["recorded"] for name in names} == placed
    assert Counter(map(tuple, told["ran"])) == Counter(ran)
    _, copied, _ = webgpu(really, model.SerializeToString(), feed, "ORT_ENABLE_ALL")
    assert copied == counted(model), "the optimiser saves no copy"


def random_graph(seed: int) -> onnx.ModelProto:
    rng, tensors, text = Random(seed), ["x"], []
    for index in range(count := rng.randint(4, 10)):
        op = rng.choice(["Relu", "Selu", "Celu", "Tanh", "Softsign", "Add", "Sum", "Mul"])
        more = [rng.choice([*tensors[-3:], "x", "w"])] if op in ("Add", "Sum", "Mul") else []
        tensors.append("y" if index == count - 1 else f"t{index}")
        text.append(f"{tensors[-1]} = {op}({', '.join([tensors[-2], *more])})")
    model = parsed("\n".join(text))
    for index, node in enumerate(model.graph.node):
        node.name = f"n{index}"
    return model


def test_the_rule_of_copies(webgpu: Any) -> None:
    for seed in range(20):
        model = random_graph(seed)
        _, copied, _ = webgpu(really, model.SerializeToString(), feed_of(model))
        assert copied == counted(model), onnx.printer.to_text(model)


NUMBERS = {
    "Slice": [[1], [3], [1]],
    "Reshape": [[3, 8]],
    "Tile": [[1, 2]],
    "Expand": [[4, 6]],
    "Unsqueeze": [[0]],
    "Squeeze": [],
}
NUMBERS |= {"Gather": [[0, 1]], "Pad": [[0, 1, 0, 1]], "CumSum": [0], "Clip": []}
ATTRIBUTES: dict[str, dict[str, Any]] = {"Concat": {"axis": 0}, "Split": {"num_outputs": 2}}


def one_node(op: str) -> onnx.ModelProto:
    """A node of this operator between others, in shapes that it takes."""
    schema = onnx.defs.get_schema(op, 20, "")
    numbers = [numpy_helper.from_array(np.int64(v), f"k{i}") for i, v in enumerate(NUMBERS.get(op, []))]
    names = (
        ["c", "x", "x"] if op == "Where" else ["c"] * 2 if op in ("And", "Or", "Xor") else ["c"] if op == "Not" else []
    )
    names = names or (["x", *(n.name for n in numbers)] if op in NUMBERS else ["x"] * max(schema.min_input, 1))
    if op in ("MatMul", "Gemm"):
        names[1] = "w"
        numbers.append(numpy_helper.from_array(np.ones((6, 6), np.float32), "w"))
    outputs = ["y", "y2"] if op == "Split" else ["y"]
    nodes = [
        helper.make_node("Relu", ["x0"], ["x"], "before"),
        helper.make_node("Greater", ["x", "x0"], ["c"], "compare"),
        helper.make_node(op, names, outputs, "it", **ATTRIBUTES.get(op, {})),
    ]
    x = helper.make_tensor_value_info("x0", TensorProto.FLOAT, [4, 6])
    graph = helper.make_graph(nodes, "one", [x], [helper.make_empty_tensor_value_info("y")], numbers)
    model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 20)])
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def where_it_is(model: bytes) -> str:
    options = ort.SessionOptions()
    options.graph_optimization_level, options.log_severity_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL, 4
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    options.add_provider_for_devices(cu.provider_devices("WebGPU"), {})
    return assigned(ort.InferenceSession(model, options, enable_fallback=0))["it"]


@pytest.mark.parametrize("op", sorted(TAKES | LEFT))
def test_the_plug_in_takes_or_leaves(op: str, webgpu: Any) -> None:
    assert webgpu(where_it_is, one_node(op).SerializeToString()) == (WEBGPU if op in TAKES else CPU)


# What task 5.4 quotes


def heard(providers: list[str] | None = None, **own: str) -> tuple[list[str], list[str]]:
    """What is said, and get_providers(). own: options for WebGPU's device, where no providers are named."""
    said: list[str] = []
    options = ort.SessionOptions()
    if own:
        options.add_provider_for_devices(cu.provider_devices("WebGPU"), own)
    with overheard(said):
        session = ort.InferenceSession(parsed("y = Mul(x, w)").SerializeToString(), options, providers)
    return said, session.get_providers()


def quoted(cause: str) -> dict[str, Any]:
    letter = next(k for k, v in right_causes("ada")["causes"].items() if v == cause)
    return params("5.4")["transcripts"][letter]


def test_a_plug_in_by_name_and_a_wrong_option(webgpu: Any) -> None:
    seen = quoted("plug-in by name")
    for name in ("WebGPU", "QNN"):
        with contextlib.suppress(CourseError):
            told = webgpu(heard, [webgpu(registered, name), CPU])
            assert told == (seen["said"], seen["get_providers()"])
    seen = quoted("wrong option")
    said, providers = webgpu(by_layout, seen["said"][0].split()[-1])
    assert set(seen["said"]) <= set(said)
    assert providers == seen["get_providers()"]


def by_layout(layout: str) -> tuple[list[str], list[str]]:
    return heard(preferredLayout=layout)


def test_a_wrong_name_and_a_missing_provider() -> None:
    for cause in ("wrong name", "missing provider"):
        seen = quoted(cause)
        if seen["asked for"][0] in ort.get_available_providers():
            continue
        said, providers = heard(seen["asked for"])
        assert all(any(line.startswith(words) for line in said) for words in seen["said"])
        assert len([line for line in said if "EP Error" in line]) == len([w for w in seen["said"] if "EP Error" in w])
        assert providers == seen["get_providers()"]


@pytest.mark.parametrize(("key", "cause"), [("islands", "an island ends"), ("on_cpu", "count the nodes")])
def test_none_is_a_number_too(key: str, cause: str) -> None:
    said = failed("5.6", listed("ada") | {key: 0})
    assert cause in said
    assert "not a whole number" not in said
