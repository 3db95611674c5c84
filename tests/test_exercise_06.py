"""Exercises 06: right answers pass for any student; each typical mistake fails with a hint that names its cause."""

from __future__ import annotations

import itertools
import json
import re
import statistics
from collections import Counter
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from answers import accepted, criteria, failed, given_files, params
from checkout import ROOT
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnxruntime.transformers import optimizer

import course_utils as cu
from course_utils.exercises import examine, task, tasks_of
from course_utils.exercises.ch06 import attention_fusion, batchnorm_folding, profile_reading
from course_utils.exercises.ch06 import tasks as ch06
from course_utils.handin.points import task_points

STUDENTS = ["ada", "grace@example.org", "s-1234567", "Жанна", "guest"]


def handed_out(task_id: str, student: str = "ada") -> list[ModelProto]:
    it = task(task_id)
    assert it.given is not None
    return list(it.given(params(task_id, student)).values())


def somebody(task_id: str, wanted: Any) -> str:
    return next(who for who in map(str, range(300)) if wanted(params(task_id, who)))


# Right answers, made from what was handed out.


def stored(model: ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer}


def folded(student: str = "ada") -> ModelProto:
    (model,) = handed_out("6.1", student)
    graph, weights = model.graph, stored(model)
    one, two = (n for n in graph.node if n.op_type == "BatchNormalization")
    first, second = (n for n in graph.node if n.op_type == "Conv")
    kept = {}
    scale, shift, mean, variance = (weights[name] for name in one.input[1:])
    factor = scale / np.sqrt(variance + helper.get_node_attr_value(one, "epsilon"))
    kept["one.weight"] = weights["one.weight"] * factor[:, None, None, None]
    kept["one.bias"] = shift + (weights["one.bias"] - mean) * factor
    scale, shift, mean, variance = (weights[name] for name in two.input[1:])
    factor = scale / np.sqrt(variance + helper.get_node_attr_value(two, "epsilon"))
    kept["two.weight"] = weights["two.weight"] * factor[None, :, None, None]
    kept["two.bias"] = np.einsum("oihw,i->o", weights["two.weight"], shift - mean * factor)
    first.output[0] = one.output[0]
    second.input[:] = [two.input[0], "two.weight", "two.bias"]
    graph.node.remove(one)
    graph.node.remove(two)
    del graph.initializer[:]
    graph.initializer.extend(numpy_helper.from_array(v.astype(np.float32), n) for n, v in kept.items())
    return model


def folded_anew(student: str = "ada") -> ModelProto:
    """Measured instead of computed: what each norm does to 0 and to 1. In float32, as nodes with constants, scaled."""
    (model,) = handed_out("6.1", student)
    weights = {name: value.astype(np.float32) for name, value in stored(model).items()}
    lines = {}
    for name in ("one", "two"):
        norm = next(n for n in model.graph.node if n.op_type == "BatchNormalization" and f"{name}.scale" in n.input)
        ends = []
        for value in (0.0, 1.0):
            scale, shift, mean, variance = (weights[n] for n in norm.input[1:])
            small = np.float32(helper.get_node_attr_value(norm, "epsilon"))
            ends.append((np.float32(value) - mean) / np.sqrt(variance + small) * scale + shift)
        lines[name] = (ends[1] - ends[0], ends[0])
    kernel_one = weights["one.weight"] * lines["one"][0].reshape(4, 1, 1, 1)
    bias_one = weights["one.bias"] * lines["one"][0] + lines["one"][1]
    kernel_two = weights["two.weight"] * lines["two"][0].reshape(1, 4, 1, 1)
    bias_two = sum(weights["two.weight"][:, i].sum((1, 2)) * lines["two"][1][i] for i in range(4))
    # A Relu lets a positive factor through: what is twice as large behind it, the next layer halves.
    values = {"k1": kernel_one * 2, "b1": bias_one * 2, "k2": kernel_two / 2, "b2": bias_two}
    nodes = [
        helper.make_node("Constant", [], [n], value=numpy_helper.from_array(np.asarray(v, np.float32)))
        for n, v in values.items()
    ]
    nodes += [
        helper.make_node("Conv", ["x", "k1", "b1"], ["h"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Conv", ["r", "k2", "b2"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "anew", list(model.graph.input), list(model.graph.output))
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])


def folded_wrongly(layer: str, mistake: str) -> Any:
    """The right answer, but for one layer."""

    def make(student: str) -> ModelProto:
        model = folded(student)
        parts = batchnorm_folding.folded_layer(params("6.1", student), layer, mistake)
        new = dict(zip((f"{layer}.weight", f"{layer}.bias"), parts, strict=True))
        for tensor in model.graph.initializer:
            if tensor.name in new:
                tensor.CopyFrom(numpy_helper.from_array(new[tensor.name].astype(np.float32), tensor.name))
        return model

    return make


def renamed(student: str = "ada") -> ModelProto:
    """The runtime's own file, with the names that the weights had."""
    model = cu.optimized(handed_out("6.1", student)[0], "basic")
    kernel = next(n for n in model.graph.node if n.op_type == "Conv").input[1]
    for node in model.graph.node:
        node.input[:] = ["one.weight" if name == kernel else name for name in node.input]
    next(t for t in model.graph.initializer if t.name == kernel).name = "one.weight"
    return model


def tidy(student: str = "ada", but: str = "") -> ModelProto:
    (model,) = handed_out("6.2", student)
    graph = model.graph
    if but != "output":
        del graph.output[1:]
    if but != "input":
        del graph.input[1:]
    for node in graph.node:
        if node.op_type == "Max" and but != "max":
            node.op_type = "Relu"
            node.input.pop()
    return model


def tidy_by_hand(student: str = "ada") -> ModelProto:
    """Written anew, each norm folded with NumPy."""
    (model,) = handed_out("6.2", student)
    weights, nodes, values, last = stored(model), [], {}, "x"
    for number in (1, 2, 3):
        scale, shift, mean, variance = (weights[f"layer{number}.{n}"] for n in ("scale", "shift", "mean", "variance"))
        factor = scale / np.sqrt(variance + 1e-5)
        values |= {
            f"k{number}": weights[f"layer{number}.weight"] * factor[:, None, None, None],
            f"b{number}": shift - mean * factor,
        }
        nodes.append(helper.make_node("Conv", [last, f"k{number}", f"b{number}"], [f"c{number}"], pads=[1, 1, 1, 1]))
        last = "y" if number == 3 else f"r{number}"
        nodes.append(helper.make_node("Relu", [f"c{number}"], [last]))
    graph = helper.make_graph(
        nodes, "tidy", [model.graph.input[0]], [model.graph.output[0]],
        [numpy_helper.from_array(v.astype(np.float32), n) for n, v in values.items()],
    )  # fmt: skip
    return helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 20)])


def cases(student: str = "ada") -> dict[str, str]:
    return ch06._details(params("6.3", student))["cases"]


def reasons(student: str = "ada") -> dict[str, dict[str, str]]:
    """By optimising, and looking at what is left."""
    answer = {}
    for letter, model in zip("abcde", handed_out("6.3", student), strict=True):
        graph, done = model.graph, cu.optimized(model, "extended")
        read = [name for node in graph.node for name in node.input]
        inner = [node.output[0] for node in graph.node if node.output[0] != "y"]
        activation = next(n for n in graph.node if n.op_type not in ("Conv", "BatchNormalization", "Add"))
        if len(done.graph.node) == 1:
            reason, where = "fuses", ""
        elif len(graph.output) > 1:
            reason, where = "output", graph.output[1].name
        elif len(graph.input) > 1:
            reason, where = "can be fed", graph.input[1].name
        elif twice := [name for name in inner if read.count(name) > 1]:
            reason, where = "two readers", twice[0]
        else:
            before = activation.input[0] == graph.node[0].output[0]
            reason, where = ("order" if before else "no kernel"), activation.output[0]
        answer[letter] = {"reason": reason, "where": where}
    return answer


def reasons_by_looking(student: str = "ada") -> dict[str, dict[str, str]]:
    """Without running anything: from how each model was built."""
    details = ch06._details(params("6.3", student))
    return {k: {"where": ch06._case(details, r)[1], "reason": r} for k, r in reversed(details["cases"].items())}


def traced(student: str = "ada") -> dict[str, Any]:
    before, after = handed_out("6.4", student)
    x = np.random.default_rng(1).normal(size=(1, 4, 8, 8)).astype(np.float32)
    table = cu.origins(before, after, {"x": x})
    here = table[table["node"] != ""]
    return {
        "from": {row.output: row.originals.split(", ")[::-1] for row in here.itertuples()},
        "gone": list(table.loc[table["node"] == "", "originals"]),
    }


def traced_by_thinking(student: str = "ada") -> dict[str, Any]:
    """Along both chains: what each operator of the optimised model is made of."""
    before, after = handed_out("6.4", student)
    idle = [n.name for n in before.graph.node if n.op_type in ("Identity", "Dropout", "Exp")]
    chain = [n for n in before.graph.node if n.name not in idle]
    came: dict[str, list[str]] = {}
    for node in after.graph.node:
        mine = came[node.output[0]] = [chain.pop(0).name]
        if node.op_type in ("Conv", "FusedConv") and chain[0].op_type == "BatchNormalization":
            mine.append(chain.pop(0).name)
        if node.op_type in ("FusedConv", "Gemm"):
            mine.append(chain.pop(0).name)
    assert not chain
    return {"gone": idle, "from": came}


def attention(student: str = "ada", **faults: str) -> ModelProto:
    return attention_fusion.attention(params("6.5", student), **faults)


def attention_rebuilt(student: str = "ada") -> ModelProto:
    """By hand, from the file: the nodes of scores and mask are replaced, the mask cast to float at the last moment."""
    (model,) = handed_out("6.5", student)
    graph, size = model.graph, params("6.5", student)
    gone = {"divide", "match", "mask_sub", "mask_mul"}
    kept = [
        n for n in graph.node if n.name not in gone and not n.name.startswith(("mask_axis", "mask_axes", "mask_cast"))
    ]
    at = next(i for i, n in enumerate(kept) if n.name == "mask_add")
    new = [
        helper.make_node("MatMul", ["query", "key"], ["my_raw"]),
        helper.make_node("Div", ["my_raw", "my_root"], ["my_scores"]),
        helper.make_node("Unsqueeze", ["mask", "my_one"], ["m1"]),
        helper.make_node("Unsqueeze", ["m1", "my_one"], ["m2"]),
        helper.make_node("Cast", ["m2"], ["m3"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["my_1", "m3"], ["m4"]),
        helper.make_node("Mul", ["m4", "my_far"], ["m5"]),
    ]
    kept[at].input[:] = ["m5", "my_scores"]
    del graph.node[:]
    graph.node.extend([*kept[:at], *new, *kept[at:]])
    root = np.array(np.sqrt(size["hidden"] // size["heads"]), np.float32)
    for name, value in {"my_1": 1, "my_far": -10000}.items():
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    graph.initializer.extend(
        [numpy_helper.from_array(root, "my_root"), numpy_helper.from_array(np.array([1]), "my_one")]
    )
    return model


def attention_with(node: str, op: str, *inputs: str) -> Any:
    return lambda student: attention_fusion._changed(params("6.5", student), node, op, *inputs)


def medians(student: str = "ada") -> pd.Series:
    events = pd.DataFrame(json.loads(given_files("6.6", student)["6.6_profile.json"]))
    return events[events["name"].str.endswith("_kernel_time")].groupby("name")["dur"].median()


def note_of(node: onnx.NodeProto, key: str) -> str:
    return next(note.value for note in node.metadata_props if note.key == f"pkg.torch.onnx.{key}")


def frames(node: onnx.NodeProto) -> list[tuple[str, int]]:
    trace = note_of(node, "stack_trace")
    return [(file, int(line)) for file, line in re.findall(r'File "(.*?)", line (\d+)', trace)]


def profile_read(student: str = "ada") -> dict[str, Any]:
    took = medians(student)
    name = took.idxmax().removesuffix("_kernel_time")
    model = onnx.load_from_string(given_files("6.6", student)["6.6.onnx"])
    node = next(n for n in model.graph.node if n.name == name)
    return {
        "node": name,
        "share": round(float(took.max() / took.sum()), 2),
        "module": re.findall(r"'([^']*)'", note_of(node, "name_scopes"))[-2],
        "line": [line for file, line in frames(node) if file == "recognizer.py"][-1],
    }


def profile_read_otherwise(student: str = "ada") -> dict[str, Any]:
    """Without pandas; the module from the names of the weights and the class, the line from the source."""
    events = json.loads(given_files("6.6", student)["6.6_profile.json"])
    runs: dict[str, list[int]] = {}
    for event in events:
        if event["cat"] == "Node":
            runs.setdefault(event["name"], []).append(event["dur"])
    middle = {name: statistics.median_low(row) for name, row in runs.items()}
    name = max(middle, key=lambda n: middle[n])
    module, line = profile_reading.origin(profile_reading._notes()[name.removesuffix("_kernel_time")])
    return {"line": float(line), "module": module, "share": middle[name] / sum(middle.values()), "node": name}


def profile_misread(**changes: Any) -> Any:
    """The right answer with some of its values replaced: by a value, or by a function of the student."""
    return lambda who: profile_read(who) | {k: v(who) if callable(v) else v for k, v in changes.items()}


def summed(student: str) -> str:
    return max((took := profile_reading.times(params("6.6", student))), key=lambda n: sum(took[n]))


def own_median(student: str) -> float:
    return float(medians(student).max())


def slowest_node(student: str) -> onnx.NodeProto:
    model = onnx.load_from_string(given_files("6.6", student)["6.6.onnx"])
    return next(n for n in model.graph.node if n.name == profile_read(student)["node"])


def share_of_operator(student: str) -> float:
    """Of the slowest node's operator, all its nodes together."""
    took, operator = medians(student), slowest_node(student).op_type
    alike = [f"{n.name}_kernel_time" for n in slowest_node_graph(student) if n.op_type == operator]
    return float(took[took.index.intersection(alike)].sum() / took.sum())


RIGHT = {
    "6.1": (folded, folded_anew),
    "6.2": (tidy, tidy_by_hand),
    "6.3": (reasons, reasons_by_looking),
    "6.4": (traced, traced_by_thinking),
    "6.5": (attention, attention_rebuilt),
    "6.6": (profile_read, profile_read_otherwise),
}


def swapped_reasons(student: str) -> dict[str, Any]:
    answer = reasons(student)
    answer["a"]["reason"], answer["b"]["reason"] = answer["b"]["reason"], answer["a"]["reason"]
    return answer


def with_gone(change: Any) -> Any:
    return lambda student: (answer := traced(student)) | {"gone": change(answer["gone"])}


WRONG = {
    "6.1": {
        "the runtime's own file": (lambda who: cu.optimized(handed_out("6.1", who)[0], "basic"), "still a BatchNormalization"),
        "that file, renamed": (renamed, "still a BatchNormalization"),
        "without epsilon": (folded_wrongly("one", "epsilon"), "The epsilon is missing"),
        "epsilons exchanged": (folded_wrongly("two", "other epsilon"), "that of the other layer"),
        "the axis of the other layer": (folded_wrongly("two", "axis"), "wrong axis"),
        "the sign of the mean": (folded_wrongly("two", "sign"), "wrong sign"),
        "nothing added in the second": (folded_wrongly("two", "no bias"), "goes through the weights"),
        "added as in the first": (folded_wrongly("two", "as behind"), "sum over all but outputs"),
        "the new kernel for the bias": (folded_wrongly("two", "new kernel"), "with the old weights"),
    },
    "6.2": {
        "an output left": (lambda who: tidy(who, but="output"), "is an output, too"),
        "an input left": (lambda who: tidy(who, but="input"), "is listed among the inputs"),
        "the Max left": (lambda who: tidy(who, but="max"), "Max with zero is a Relu"),
        "the optimised model": (lambda who: cu.optimized(tidy(who), "extended"), "Leave the fusing to the optimiser"),
    },
    "6.3": {
        "two exchanged": (swapped_reasons, "3 of 5 are right. One that you call"),
        "all fuse": (lambda who: {k: {"reason": "fuses", "where": ""} for k in "abcde"}, "[01] of 5 are right. One that you call 'fuses'"),
        "no places": (lambda who: {k: v | {"where": ""} for k, v in reasons(who).items()}, "[01] of 5 are right. Of a"),
        "a reason of its own": (lambda who: reasons(who) | {"a": {"reason": "magic", "where": ""}}, "reason is one of"),
    },
    "6.4": {
        "only the last of each": (
            lambda who: (a := traced(who)) | {"from": {t: names[:1] for t, names in a["from"].items()}},
            "0 of [0-9] are right. [12] missing",
        ),
        "one gone forgotten": (with_gone(lambda gone: gone[1:]), "1 missing: a node is gone when"),
        "tensors for names": (with_gone(lambda gone: [f"t_{name}" for name in gone]), "not the name of a node"),
        "gone is among the others": (
            lambda who: (a := traced(who)) | {"from": {t: [*names, *a["gone"]] for t, names in a["from"].items()}},
            "0 of [0-9] are right. .* belongs to gone",
        ),
    },
    "6.5": {
        "times the root": (attention_with("divide", "Mul", "raw", "root"), "multiplied by the root"),
        "upside down": (attention_with("divide", "Div", "root", "raw"), "upside down"),
        "without the root": (attention_with("divide", "Identity", "raw"), "division by the root is missing"),
        "mask the wrong way round": (attention_with("mask_sub", "Identity", "mask_float"), "on the words that count"),
        "mask without effect": (attention_with("mask_mul", "Sub", "far", "far"), "no effect"),
        "the root of all": (lambda who: attention_fusion._with_root(params("6.5", who), params("6.5", who)["hidden"] ** 0.5), "size of one head"),
        "only the scores": (lambda who: attention(who, mask=attention_fusion.faults(params("6.5", who))[1]), "failed to match mask path"),
        "only the mask": (lambda who: attention(who, scores=attention_fusion.faults(params("6.5", who))[0]), "wants MatMul, then Div, then Add"),
    },
    "6.6": {
        "the largest sum": (profile_misread(node=summed), "in one run only"),
        "another node": (profile_misread(node="node_Reshape_82"), "another node takes longer"),
        "an operator": (profile_misread(node="MatMul"), "'MatMul' is the name of no node"),
        "in per cent": (profile_misread(share=lambda who: 100 * profile_read(who)["share"]), "in per cent"),
        "of the sums": (
            profile_misread(share=lambda who: (t := profile_reading.times(params("6.6", who)))
                and sum(t[profile_read(who)["node"]]) / sum(map(sum, t.values()))),
            "share of sums over all runs",
        ),
        "of the others": (
            profile_misread(share=lambda who: (t := medians(who)).max() / (t.sum() - t.max())),
            "time of all other nodes",
        ),
        "of the mean of the runs": (
            profile_misread(share=lambda who: (t := profile_reading.times(params("6.6", who)))
                and len(t["node_Reshape_82"]) * own_median(who) / sum(map(sum, t.values()))),
            "divide a median by the mean of the runs",
        ),
        "of all such operators": (
            profile_misread(share=share_of_operator),
            "share of all nodes with that operator",
        ),
        "the longest run": (
            profile_misread(share=lambda who: max(profile_reading.times(params("6.6", who))[profile_read(who)["node"]])
                / float(medians(who).sum())),
            "You take its longest run",
        ),
        "twice as much": (profile_misread(share=lambda who: 3 * profile_read(who)["share"]), "the share is not: divide the median"),
        "of model_run": (profile_misread(share=lambda who: 0.92 * profile_read(who)["share"]), "such as model_run"),
        "the operation": (
            profile_misread(module=lambda who: re.findall(r"'([^']*)'", note_of(slowest_node(who), "name_scopes"))[-1]),
            "That is the operation",
        ),
        "the whole model": (profile_misread(module=""), "holds the one that is asked for"),
        "a class": (profile_misread(module="Recognizer"), "That is a class"),
        "the line further out": (profile_misread(line=lambda who: frames(slowest_node(who))[0][1]), "calls the module further out"),
        "a line as text": (profile_misread(line="21"), "write a whole number"),
    },
}  # fmt: skip


def test_tasks_are_complete_and_personal() -> None:
    assert list(tasks_of(6)) == list(RIGHT)
    for task_id in RIGHT:
        assert len({str(params(task_id, who)) for who in STUDENTS}) > 1


@pytest.mark.parametrize("task_id", ["6.3", "6.4"])
@pytest.mark.parametrize("answer", [None, 3, "text", [], {}, {"a": 1}])
def test_json_answer_of_another_shape(task_id: str, answer: object) -> None:
    assert "exactly those keys" in failed(task_id, answer)


# 6.1


FOLDING = {
    "epsilon": "The epsilon is missing",
    "other epsilon": "The epsilon is that of the other layer",
    "epsilon behind": "The epsilon belongs under the square root",
    "root": "The square root is missing",
    "times": "multiplied by the square root",
    "axis": "The factor is on the wrong axis",
    "sign": "The mean has the wrong sign",
    "mean": "The mean is missing",
    "shift": "The shift is missing",
}
FOLDING_ONE = {
    "bias": "that the convolution had is lost",
    "unscaled": "The old bias must be multiplied with the factor",
}
FOLDING_TWO = {
    "no bias": "Its new bias is missing",
    "as behind": "and sum over all but outputs",
    "new kernel": "multiplied with the old weights",
    "one tap": "add them up, do not take the mean",
}


@pytest.mark.parametrize(("layer", "own"), [("one", FOLDING_ONE), ("two", FOLDING_TWO)])
@pytest.mark.parametrize("student", STUDENTS[:3])
def test_folding_mistakes(layer: str, own: dict[str, str], student: str) -> None:
    for mistake, cause in {**FOLDING, **own}.items():
        assert cause in failed("6.1", folded_wrongly(layer, mistake)(student), student), mistake


def test_a_convolution_with_weights_that_are_not_stored() -> None:
    """It reads the picture as its weights."""
    model = folded()
    (*_, second) = (n for n in model.graph.node if n.op_type == "Conv")
    second.input[1:] = ["x"]
    for attribute in [a for a in second.attribute if a.name == "kernel_shape"]:
        second.attribute.remove(attribute)
    for axis, dim in enumerate(model.graph.output[0].type.tensor_type.shape.dim):
        dim.dim_param = f"free_{axis}"
    assert "Its weights are not stored in the file." in failed("6.1", model)


def test_one_layer_folded_is_worth_a_third() -> None:
    found = criteria("6.1", folded_wrongly("two", "no bias")("ada"))
    assert task_points(task("6.1"), found) == (1, 3)


@pytest.mark.parametrize(("more", "points"), [(0.0005, (2, 3)), (0.005, (1, 3))])
def test_a_thousandth_of_a_weight_is_too_much(more: float, points: tuple[int, int]) -> None:
    """For the result. For the layer itself it is not, and five are."""
    model = folded()
    for tensor in model.graph.initializer:
        if tensor.name == "two.weight":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1 + more), tensor.name))
    found = criteria("6.1", model)
    assert "the result is the same to 1e-5" in [c.what for c in found if not c.passed]
    assert task_points(task("6.1"), found) == points


@pytest.mark.parametrize("level", ["basic", "extended", "all"])
def test_no_level_folds_both(level: str) -> None:
    assert failed("6.1", cu.optimized(handed_out("6.1")[0], level))


def test_folded_model_of_somebody_else_or_with_other_pads() -> None:
    assert "one layer after the other" in failed("6.1", folded("grace@example.org"))
    model = folded()
    model.graph.node[-1].attribute.append(helper.make_attribute("pads", [1, 1, 1, 1]))
    model.graph.output[0].type.tensor_type.shape.dim[2].dim_value = 8
    model.graph.output[0].type.tensor_type.shape.dim[3].dim_value = 8
    assert "expected [1, 4, 6, 6]" in failed("6.1", model)


def test_weights_in_constant_nodes_are_looked_at() -> None:
    model = folded_wrongly("two", "no bias")("ada")
    for tensor in model.graph.initializer:
        model.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
    del model.graph.initializer[:]
    assert task_points(task("6.1"), criteria("6.1", model)) == (1, 3)
    assert "Its new bias is missing" in failed("6.1", model)


def test_a_function_does_not_hide_the_norm() -> None:
    """A 'Relu' of one's own that normalises first: the ops are the right ones, and so are the numbers."""
    model, (given,) = folded(), handed_out("6.1")
    norm = next(n for n in given.graph.node if n.op_type == "BatchNormalization")
    body = [helper.make_node("BatchNormalization", list("abcde"), ["n"]), helper.make_node("Relu", ["n"], ["r"])]
    body[0].attribute.extend(norm.attribute)
    model.functions.append(helper.make_function("own", "Relu", list("abcde"), ["r"], body, given.opset_import))
    model.opset_import.append(helper.make_opsetid("own", 1))
    conv, relu = model.graph.node[:2]
    conv.CopyFrom(given.graph.node[0])
    relu.CopyFrom(helper.make_node("Relu", list(norm.input), list(relu.output), domain="own"))
    kept = [t for t in model.graph.initializer if t.name.startswith("two.")]
    kept += [t for t in given.graph.initializer if t.name.startswith("one.")]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    assert task_points(task("6.1"), criteria("6.1", model)) == (0, 3)
    assert "Fold into the weights" in failed("6.1", model)


# 6.2


@pytest.mark.parametrize("student", STUDENTS)
def test_one_layer_with_a_maximum_in_place_of_its_activation(student: str) -> None:
    (model,) = handed_out("6.2", student)
    count = Counter(node.op_type for node in model.graph.node)
    assert (count["Conv"], count["BatchNormalization"], count["Relu"], count["Max"]) == (3, 3, 2, 1)
    assert len(model.graph.output) == 2


@pytest.mark.parametrize("student", STUDENTS)
@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("output", "is an output, too, so it must exist"),
        ("input", "is listed among the inputs"),
        ("max", "Max with zero is a Relu"),
    ],
)
def test_one_fault_left(fault: str, cause: str, student: str) -> None:
    assert cause in failed("6.2", tidy(student, but=fault), student)


def test_handing_in_the_optimised_model() -> None:
    assert "Leave the fusing to the optimiser" in failed("6.2", cu.optimized(tidy(), "extended"))


def test_few_nodes_that_compute_something_else() -> None:
    model = tidy()
    del model.graph.node[3:]
    model.graph.node[2].output[0] = "y"
    assert "Start again from the given model" in failed("6.2", model)


def test_a_second_reader() -> None:
    model = tidy()
    last = model.graph.node[-1]
    last.output[0] = "done"
    nothing = numpy_helper.from_array(np.zeros((), np.float32), "nothing")
    model.graph.initializer.append(nothing)
    model.graph.node.append(helper.make_node("Mul", [last.input[0], "nothing"], ["none"]))
    model.graph.node.append(helper.make_node("Add", ["done", "none"], ["y"]))
    assert "who else needs the tensors in it" in failed("6.2", model)


# 6.3


@pytest.mark.parametrize("student", STUDENTS)
def test_the_cases_are_as_told(student: str) -> None:
    details = ch06._details(params("6.3", student))
    for reason in ch06._REASONS:
        model, where = ch06._case(details, reason)
        onnx.checker.check_model(model, full_check=True)
        left = cu.op_histogram(cu.optimized(model, "extended")).sum()
        assert (left == 1) == (reason == "fuses") == (where == "")


def changed(reason: str, /, **values: object) -> tuple[str, dict[str, Any]]:
    """A student who has a case of this kind, and the answer with that case changed."""
    who = next(w for w in map(str, range(300)) if reason in cases(w).values())
    answer: dict[str, Any] = reasons(who)
    letter = next(k for k, r in cases(who).items() if r == reason)
    answer[letter] = {**answer[letter], **values}
    return who, answer


@pytest.mark.parametrize(
    ("reason", "values", "cause"),
    [
        ("output", {"reason": "fuses"}, "'fuses' does not"),
        ("fuses", {"reason": "order"}, "'order' becomes one node"),
        ("two readers", {"reason": "output"}, "a tensor that would disappear is among the outputs is not so there"),
        ("output", {"where": "y"}, "name the output that is not y"),
        ("two readers", {"where": "x"}, "name the tensor that two nodes read"),
        ("can be fed", {"where": "x"}, "name the weight"),
        ("order", {"where": "y"}, "name the tensor that the activation writes"),
        ("no kernel", {"where": "Elu"}, "name the tensor that the activation writes"),
        ("fuses", {"where": "y"}, "where is an empty text"),
        ("order", {"where": ["y"]}, "name the tensor that the activation writes"),
    ],
)
def test_wrong_reasons(reason: str, values: dict[str, object], cause: str) -> None:
    who, answer = changed(reason, **values)
    hints = failed("6.3", answer, who)
    assert hints.startswith("4 of 5 are right. ")
    assert cause in hints


@pytest.mark.parametrize("who", ["ada", "grace", "7"])
def test_the_first_wrong_place_is_spoken_of(who: str) -> None:
    first = reasons(who)["a"]["reason"]
    said = {
        "output": "Of a tensor that is an output",
        "two readers": "Of a tensor with two readers",
        "can be fed": "Of a weight that can be fed",
        "order": "Of a wrong order",
        "no kernel": "Of an activation without a kernel",
        "fuses": "Where nothing is in the way",
    }
    answer = {letter: {**entry, "where": "nowhere"} for letter, entry in reasons(who).items()}
    assert failed("6.3", answer, who).startswith(f"0 of 5 are right. {said[first]}")


def test_any_weight_may_be_one_that_can_be_fed() -> None:
    seen = {ch06._details(params("6.3", student))["weight"] for student in map(str, range(40))}
    assert seen == {"scale", "shift", "mean", "variance", "weight"}


@pytest.mark.parametrize("reason", ["output", "two readers"])
def test_either_tensor_may_be_in_the_way(reason: str) -> None:
    """The one between the convolution and the norm, or the one behind the norm."""
    writers = set()
    for student in map(str, range(20)):
        for letter, kind in cases(student).items():
            graph = handed_out("6.3", student)["abcde".index(letter)].graph
            if kind == reason:
                where = reasons(student)[letter]["where"]
                writers |= {node.op_type for node in graph.node if where in node.output}
    assert writers == {"Conv", "BatchNormalization"}


@pytest.mark.parametrize("values", [{"reason": "magic"}, {"reason": ["order"]}, {"reason": None}, {"more": 1}])
def test_reasons_of_another_kind(values: dict[str, object]) -> None:
    who, answer = changed("order", **values)
    assert "the keys are reason and where" in failed("6.3", answer, who)
    assert "the keys are reason and where" in failed("6.3", dict.fromkeys("abcde", "fuses"))


@pytest.mark.parametrize("task_id", ["6.2", "6.5"])
def test_what_is_no_standard_is_named(task_id: str) -> None:
    it = task(task_id)
    assert it.given is not None
    (model,) = it.given(params(task_id)).values()
    model.opset_import.add(domain="com.microsoft", version=1)
    model.graph.node[-1].domain = "com.microsoft"
    assert f"nodes of com.microsoft::{model.graph.node[-1].op_type}." in failed(task_id, model)
    own = it.given(params(task_id))[f"{task_id}.onnx"]
    relu, opset = helper.make_node("Relu", ["a"], ["b"]), helper.make_opsetid("", 17)
    own.functions.append(helper.make_function("own", "f", ["a"], ["b"], [relu], [opset]))
    assert "nodes of a function." in failed(task_id, own)


# 6.4


def test_what_goes_differs_among_students() -> None:
    """Two of: Identity, Dropout, and a factor that is computed from a constant."""
    pairs = set()
    for student in map(str, range(20)):
        before, _ = handed_out("6.4", student)
        pairs.add(frozenset(n.op_type for n in before.graph.node) & {"Identity", "Dropout", "Exp"})
    assert {tuple(sorted(pair)) for pair in pairs} == {("Dropout", "Exp"), ("Dropout", "Identity"), ("Exp", "Identity")}


@pytest.mark.parametrize("student", STUDENTS)
def test_both_models_compute_the_same(student: str) -> None:
    before, after = handed_out("6.4", student)
    x = {"x": np.random.default_rng(2).normal(size=(1, 4, 8, 8)).astype(np.float32)}
    assert np.allclose(examine.result(before, x), examine.result(after, x), atol=1e-4)


@pytest.mark.parametrize("student", STUDENTS)
def test_what_the_two_models_are_made_of(student: str) -> None:
    """Three blocks that become a node each, and two things that go. Nothing is left over that would tell of the other model."""
    before, after = handed_out("6.4", student)
    for model in (before, after):
        read = {name for node in model.graph.node for name in node.input}
        assert {t.name for t in model.graph.initializer} <= read
    old, new = (Counter(node.op_type for node in model.graph.node) for model in (before, after))
    assert (old["Conv"], old["BatchNormalization"], old["Relu"]) == (3, 2, 2)
    assert (new["FusedConv"], new["Conv"], new["BatchNormalization"]) == (2, 1, 0)
    assert old["Identity"] + old["Dropout"] + old["Exp"] == len(traced(student)["gone"]) == 2


def test_tracing_mistakes() -> None:
    answer = traced()
    fused = next(tensor for tensor, names in answer["from"].items() if len(names) > 1)
    single = next(tensor for tensor, names in answer["from"].items() if len(names) == 1)
    gone, names = answer["gone"], answer["from"][fused]

    def with_entry(tensor: str, value: object) -> dict[str, Any]:
        return {**answer, "from": {**answer["from"], tensor: value}}

    assert "1 missing" in failed("6.4", with_entry(fused, names[:1])) or len(names) > 2
    assert "belongs to gone" in failed("6.4", with_entry(fused, [*names, gone[0]]))
    assert "A node too many" in failed("6.4", with_entry(single, [*answer["from"][single], *names]))
    assert "not the name of a node" in failed("6.4", with_entry(single, ["Conv"]))
    assert "Write a list" in failed("6.4", with_entry(single, "n01"))
    assert "Write a list" in failed("6.4", with_entry(single, [1]))
    assert "Its keys must be" in failed("6.4", {**answer, "from": {"y": names}})
    assert "Its keys must be" in failed("6.4", {**answer, "from": None})
    assert "1 missing: a node is gone when" in failed("6.4", {**answer, "gone": gone[:-1]})
    assert "twice" in failed("6.4", {**answer, "gone": [*gone, gone[0]]})
    assert f"{names[0]} is not gone" in failed("6.4", {**answer, "gone": [*gone, names[0]]})
    assert "not the name of a node" in failed("6.4", {**answer, "gone": [*gone, "Exp"]})
    assert "list of node names" in failed("6.4", {**answer, "gone": None})


# 6.5


def test_the_number_of_heads_is_the_student_s() -> None:
    seen = set()
    for student in map(str, range(8)):
        (model,), heads = handed_out("6.5", student), params("6.5", student)["heads"]
        (split,) = (t for t in model.graph.initializer if t.name == "split")
        assert numpy_helper.to_array(split).tolist() == [0, 0, heads, 4]
        seen.add(heads)
    assert seen == {2, 4}


@pytest.mark.parametrize("scores", ["", *attention_fusion._SCORES])
@pytest.mark.parametrize("mask", ["", *attention_fusion._MASKS])
def test_each_fault_keeps_attention_from_being_recognised(scores: str, mask: str) -> None:
    model = attention(scores=scores, mask=mask)
    onnx.checker.check_model(model, full_check=True)
    hints = " ".join(c.hint for c in criteria("6.5", model)).strip()
    assert bool(hints) == bool(scores or mask)
    assert ("wants MatMul, then Div, then Add" in hints) is bool(scores), (
        "the log names the mask for a wrong product, too"
    )
    assert ("it wants Unsqueeze, Unsqueeze" in hints) is (mask in ("one step", "expanded") and not scores)
    assert ("must read what Sub computed first" in hints) is (mask == "order" and not scores)


def test_something_that_is_no_attention() -> None:
    model = attention()
    del model.graph.node[:]
    model.graph.node.append(helper.make_node("Neg", ["x"], ["y"]))
    assert "no number may change" in failed("6.5", model)


def test_attention_that_only_stands_beside_the_old_nodes() -> None:
    """The given nodes still compute y; the ones that match are a copy whose result is multiplied by zero."""
    model, copy = attention(mask="one step"), attention()
    made = {name for node in copy.graph.node for name in node.output}
    for node in model.graph.node:
        node.output[:] = ["old_y" if name == "y" else name for name in node.output]
    for node in copy.graph.node:
        node.input[:] = [f"copy_{name}" if name in made else name for name in node.input]
        node.output[:] = [f"copy_{name}" for name in node.output]
        node.name = f"copy_{node.name}"
    stored = {t.name for t in model.graph.initializer}
    model.graph.initializer.extend(t for t in copy.graph.initializer if t.name not in stored)
    model.graph.initializer.append(numpy_helper.from_array(np.array(0, np.float32), "nothing"))
    model.graph.node.extend(copy.graph.node)
    model.graph.node.append(helper.make_node("Mul", ["copy_y", "nothing"], ["zeros"]))
    model.graph.node.append(helper.make_node("Add", ["old_y", "zeros"], ["y"]))
    assert "old pattern is still there beside it" in failed("6.5", model)


def test_attention_beside_a_softmax_in_other_words() -> None:
    """As above, but the old nodes hold no Softmax: exponentials, divided by their sum."""
    model, copy = attention(), attention()
    at = next(i for i, n in enumerate(model.graph.node) if n.op_type == "Softmax")
    model.graph.node.remove(model.graph.node[at])
    axis = numpy_helper.from_array(np.array([-1]), "last_axis")
    steps = [
        helper.make_node("ReduceMax", ["masked"], ["most"], axes=[-1], keepdims=1),
        helper.make_node("Sub", ["masked", "most"], ["below"]),
        helper.make_node("Exp", ["below"], ["raised"]),
        helper.make_node("ReduceSum", ["raised", "last_axis"], ["sum"], keepdims=1),
        helper.make_node("Div", ["raised", "sum"], ["shares"]),
    ]
    for number, step in enumerate(steps):
        model.graph.node.insert(at + number, step)
    model.graph.initializer.append(axis)
    for node in model.graph.node:
        node.output[:] = ["old_y" if name == "y" else name for name in node.output]
    made = {name for node in copy.graph.node for name in node.output}
    for node in copy.graph.node:
        node.input[:] = [f"copy_{name}" if name in made else name for name in node.input]
        node.output[:] = [f"copy_{name}" for name in node.output]
        node.name = f"copy_{node.name}"
    model.graph.initializer.append(numpy_helper.from_array(np.array(0, np.float32), "nothing"))
    model.graph.node.extend(copy.graph.node)
    model.graph.node.append(helper.make_node("Mul", ["copy_y", "nothing"], ["zeros"]))
    model.graph.node.append(helper.make_node("Add", ["old_y", "zeros"], ["y"]))
    assert "old pattern is still there beside it" in failed("6.5", model)


def test_weights_of_another_shape_stop_the_optimiser() -> None:
    model = attention()
    for tensor in model.graph.initializer:
        if tensor.name == "query.bias":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[:1].copy(), tensor.name))
    assert not any("can be examined" in c.what for c in criteria("6.5", model))
    failed("6.5", model)


def test_attention_after_the_optimiser() -> None:
    p = params("6.5")
    done = optimizer.optimize_by_fusion(attention(), "bert", num_heads=p["heads"], hidden_size=p["hidden"])
    assert "Leave the fusing to the optimiser" in failed("6.5", done.model)


def test_attention_of_somebody_else() -> None:
    other = somebody("6.5", lambda p: p["heads"] == params("6.5")["heads"] and p["seed"] != params("6.5")["seed"])
    assert "no number may change" in failed("6.5", attention(other))


# 6.6


@pytest.mark.parametrize("student", STUDENTS)
def test_the_profile_is_as_told(student: str) -> None:
    """One node is the slowest by far in the median, and another one by its sum; every run has every node once."""
    p, took = params("6.6", student), medians(student).sort_values()
    assert took.iloc[-1] > 1.4 * took.iloc[-2]
    assert summed(student) != profile_read(student)["node"]
    events = json.loads(given_files("6.6", student)["6.6_profile.json"])
    names = {f"{node.name}_kernel_time" for node in slowest_node_graph(student)}
    assert Counter(e["name"] for e in events if e["cat"] == "Node") == dict.fromkeys(names, p["runs"])
    runs = [(e["ts"], e["ts"] + e["dur"]) for e in events if e["name"] == "model_run"]
    assert all(end < begin for (_, end), (begin, _) in itertools.pairwise(runs))
    nodes = [e for e in events if e["cat"] == "Node"]
    assert all(any(a <= e["ts"] and e["ts"] + e["dur"] <= b for a, b in runs) for e in nodes)


def slowest_node_graph(student: str) -> list[onnx.NodeProto]:
    return list(onnx.load_from_string(given_files("6.6", student)["6.6.onnx"]).graph.node)


def test_the_notes_fit_the_source() -> None:
    """Each line that a note quotes stands in the source under that number, and no folder of a machine is told."""
    source = (ROOT / "data" / "profiled" / "recognizer.py").read_text(encoding="utf-8").splitlines()
    nodes = slowest_node_graph("ada")
    for node in nodes:
        quoted = re.findall(r'File "recognizer\.py", line (\d+), in \w+\n *(.*)', note_of(node, "stack_trace"))
        assert quoted
        assert all(source[int(line) - 1].strip() == text.strip() for line, text in quoted)
        assert {file.partition("/")[0] for file, _ in frames(node)} <= {"recognizer.py", "torch"}


def test_lines_of_pytorch_are_told_apart() -> None:
    inner = next(who for who in map(str, range(99)) if frames(slowest_node(who))[-1][0] != "recognizer.py")
    assert "a file of PyTorch" in failed("6.6", profile_misread(line=frames(slowest_node(inner))[-1][1])(inner), inner)


@pytest.mark.parametrize("value", [None, "0.3", True, float("nan"), float("inf"), [0.3], 10**400])
def test_shares_of_another_kind(value: object) -> None:
    assert "number between 0 and 1" in failed("6.6", profile_misread(share=value)("ada"))


@pytest.mark.parametrize("value", [None, 3, ["layers.0"], {}, "x" * 10000])
def test_names_of_another_kind(value: object) -> None:
    assert "the name of no node" in failed("6.6", profile_misread(node=value)("ada"))
    assert "name_scopes" in failed("6.6", profile_misread(module=value)("ada"))
    assert "line" in failed("6.6", profile_misread(line=value)("ada"))


@pytest.mark.parametrize("off", [0.0049, -0.0049, 0.0053, -0.0053])
def test_two_decimals_of_a_share_are_enough(off: float) -> None:
    took = medians()
    found = criteria("6.6", profile_misread(share=float(took.max() / took.sum()) + off)("ada"))
    assert all(c.passed for c in found) == (abs(off) < 0.005)
    assert len([c for c in found if not c.condition]) == (3 if abs(off) < 0.005 else 1), (
        "nothing else is looked at then"
    )


@pytest.mark.parametrize(
    ("factor", "cause"),
    [(0.84, "the share is not: divide"), (0.86, "such as model_run"), (0.97, "such as model_run"), (1.03, "the share is not: divide"),
     (98.5, "in per cent"), (101.5, "in per cent"), (98.0, "the share is not: divide"), (102.0, "the share is not: divide")],
)  # fmt: skip
def test_how_near_a_share_must_lie_to_a_slip(factor: float, cause: str) -> None:
    took = medians()
    assert cause in failed("6.6", profile_misread(share=factor * float(took.max() / took.sum()))("ada"))


def test_an_endless_share_is_no_number() -> None:
    assert "number between 0 and 1" in failed("6.6", profile_misread(share=1e9)("ada"))
    assert "number between 0 and 1" not in failed("6.6", profile_misread(share=0.99e9)("ada"))


def test_a_node_may_have_the_ending_of_its_event() -> None:
    accepted("6.6", profile_misread(node=lambda who: f"{profile_read(who)['node']}_kernel_time")("ada"))
