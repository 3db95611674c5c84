"""Exercises of lesson 05: predict placement, prove it, configure a session, diagnose a fallback, make a model fit."""

from __future__ import annotations

import difflib
import json
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

from ..graphs import op_histogram
from . import Criteria, Criterion, Params, Task
from .examine import computes, has_io, is_sound, is_whole, numpy_source, wants_keys
from .handouts import x_to_y

CPU = "CPUExecutionProvider"
OPSET, IR = 20, 9


# 5.1: predict the placement

_FAST, _WIDE = "FastExecutionProvider", "WideExecutionProvider"
_UNARY = ["Relu", "Sigmoid", "Tanh", "Erf", "Neg", "Abs", "Softmax"]
_BINARY = ["Add", "Mul", "Sub"]


def _draw_providers(rng: Random) -> Params:
    used = rng.sample(_UNARY, 4) + rng.sample(_BINARY, 2)
    rng.shuffle(used)
    # One operator only the first takes, two that both take, two only the second takes, one that is left over or not.
    fast, wide = used[:3], used[1:5]
    if rng.random() < 0.5:
        wide.append(used[5])
    return {
        "seed": rng.randrange(10**6),
        "operators": sorted(used),
        "providers": {_FAST: sorted(fast), _WIDE: sorted(wide)},
    }


def _branching(p: Params) -> onnx.ModelProto:
    """Ten nodes in which every operator occurs; most nodes read the last tensor, some read an older one, too."""
    rng = Random(p["seed"])
    kinds = [*p["operators"], *rng.choices(p["operators"], k=4)]
    rng.shuffle(kinds)
    nodes, tensors = [], ["x"]
    for index, kind in enumerate(kinds):
        inputs = [tensors[-1], *([rng.choice(tensors)] if kind in _BINARY else [])]
        tensors.append("y" if index == len(kinds) - 1 else f"t{index}")
        nodes.append(helper.make_node(kind, inputs, [tensors[-1]], f"n{index}"))
    return x_to_y("branching", nodes, {}, ["batch", 4], ["batch", 4], {"": OPSET}, ir_version=IR)


def _placement(p: Params) -> dict[str, str]:
    def first(op: str) -> str:
        return next((name for name, takes in p["providers"].items() if op in takes), CPU)

    return {node.name: first(node.op_type) for node in _branching(p).graph.node}


def _crossings(p: Params, where: Mapping[str, str]) -> int:
    nodes = _branching(p).graph.node
    made_by = {node.output[0]: node.name for node in nodes}
    pairs = [(made_by[name], node.name) for node in nodes for name in node.input if name in made_by]
    return sum(where[a] != where[b] for a, b in pairs)


def _check_placement(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not wants_keys(answer, {"placement", "crossings", "strict_error"}, criteria):
        return criteria
    right, got = _placement(p), answer["placement"]
    nodes = {node.name: node.op_type for node in _branching(p).graph.node}
    complete = isinstance(got, dict) and set(got) == set(nodes)
    if criteria.add(
        "placement names every node once",
        complete,
        f"It is a dict from the name of each node ({', '.join(nodes)}) to the name of its provider.",
    ):
        wrong = [name for name in nodes if got[name] != right[name]]
        criteria.add(
            "every node is where the list of providers puts it",
            not wrong,
            _placement_hint(wrong[0], nodes[wrong[0]], got[wrong[0]], p) if wrong else "",
        )
    crossings = answer["crossings"]
    own = None
    if complete and all(isinstance(v, str) for v in got.values()):
        own = _crossings(p, got)
    criteria.add(
        "crossings counts the connections between nodes on different providers",
        is_whole(crossings) and crossings == _crossings(p, right),
        "It is not a whole number."
        if not is_whole(crossings)
        else "It fits your placement, so the placement is what is wrong."
        if crossings == own
        else "Take each input of each node that another node has made, and count those with two different providers. "
        "The input x of the model is made by no node.",
    )
    to_cpu = CPU in right.values()
    criteria.add(
        "strict_error says whether the session fails with session.disable_cpu_ep_fallback",
        answer["strict_error"] is to_cpu,
        "It is true or false, without quotes."
        if not isinstance(answer["strict_error"], bool)
        else "A node is left for the CPU, and with this option that is an error."
        if to_cpu
        else "No node is left for the CPU: nothing falls back, and so there is no error.",
    )
    return criteria


def _placement_hint(name: str, op: str, got: object, p: Params) -> str:
    takes = [provider for provider, ops in p["providers"].items() if op in ops]
    if got not in (*p["providers"], CPU):
        return f"{name} is placed on {got!r}: the providers are {', '.join(p['providers'])} and {CPU}."
    if got == CPU:
        return f"{name} ({op}) is placed on the CPU, but {takes[0]} takes {op}: the CPU gets only what is left."
    if got not in takes:
        return f"{name} is placed on {got}, which does not take {op}."
    return f"{name} ({op}): both providers take {op}, and the first one in the list gets it."


# 5.2: a profile as proof

_LEVELS = {
    "ORT_DISABLE_ALL": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "ORT_ENABLE_BASIC": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "ORT_ENABLE_EXTENDED": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "ORT_ENABLE_ALL": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


def _draw_profile(rng: Random) -> Params:
    return {
        "level": rng.choice(["ORT_DISABLE_ALL", "ORT_ENABLE_BASIC"]),
        "runs": rng.randint(3, 9),
        "rows": rng.randint(2, 9),
        "seed": rng.randrange(10**6),
    }


def _layered(p: Params) -> onnx.ModelProto:
    """Pictures [rows, 3, 6, 6]: nodes that the basic rewrites remove, and a pair that the extended ones fuse."""
    draw, tag = np.random.default_rng(p["seed"]), f"{p['seed'] % 1000:03}"
    weights = {
        "w1": draw.normal(0, 0.4, (4, 3, 3, 3)),
        "a": draw.normal(0, 1, (1, 4, 1, 1)),
        "b": np.ones((1, 4, 1, 1)),
    }
    steps = [
        ("Identity", ["x"], {}),
        ("Conv", ["t0", "w1"], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
        ("Relu", ["t1"], {}),
        ("Add", ["a", "b"], {}),
        ("Mul", ["t2", "t3"], {}),
        ("Dropout", ["t4"], {}),
        ("Sigmoid", ["t5"], {}),
    ]
    nodes = [
        helper.make_node(op, inputs, ["y" if i == len(steps) - 1 else f"t{i}"], f"{op.lower()}_{tag}", **attributes)
        for i, (op, inputs, attributes) in enumerate(steps)
    ]
    weights = {name: value.astype(np.float32) for name, value in weights.items()}
    return x_to_y("layered", nodes, weights, ["rows", 3, 6, 6], ["rows", 4, 6, 6], {"": OPSET}, ir_version=IR)


def _nodes_that_ran(model: onnx.ModelProto, options: ort.SessionOptions, feed: Mapping[str, np.ndarray]) -> set[str]:
    """Names of the nodes in the profile of one run in this runtime."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder, "profile"))
        session = ort.InferenceSession(model.SerializeToString(), options, providers=[CPU])
        session.run(None, dict(feed))
        return {name for name, _ in _kernels(json.loads(Path(session.end_profiling()).read_text(encoding="utf-8")))}


def _kernels(events: list[Any]) -> list[tuple[str, dict[str, Any]]]:
    """(node, arguments) of each event of a node that ran."""
    return [
        (e["name"].removesuffix("_kernel_time"), e["args"])
        for e in events
        if e.get("cat") == "Node" and str(e.get("name")).endswith("_kernel_time") and isinstance(e.get("args"), dict)
    ]


def _at_level(level: str) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.graph_optimization_level = _LEVELS[level]
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return options


def _check_profile(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    criteria, model = Criteria(), _layered(p)
    is_profile = isinstance(answer, list) and bool(answer) and all(isinstance(e, dict) for e in answer)
    if not criteria.add(
        "the file is a profile of ONNX Runtime",
        is_profile and any(e.get("name") == "session_initialization" for e in answer),
        "A profile is a list of events, one of them session_initialization: copy the file that end_profiling() names.",
    ):
        return criteria
    ran = _kernels(answer)
    if not criteria.add(
        "it has events of nodes",
        bool(ran),
        "No node ran before the profile was ended: call run first, end_profiling after it.",
    ):
        return criteria
    feed = {"x": numpy_source(rng).normal(size=(p["rows"], 3, 6, 6)).astype(np.float32)}
    expected = {level: _nodes_that_ran(model, _at_level(level), feed) for level in _LEVELS}
    names, own = {name for name, _ in ran}, {node.name for node in model.graph.node}
    other = next((level for level, nodes in expected.items() if nodes == names), None)
    criteria.add(
        f"the nodes are those of your model at {p['level']}",
        names == expected[p["level"]],
        f"These are the nodes at {other}: set options.graph_optimization_level before you create the session."
        if other
        else "None of them is in your model: profile the model that was handed out to you."
        if not names & own
        else f"{', '.join(sorted(names ^ expected[p['level']]))}: there is one too many, or one is missing.",
    )
    runs = sum(e.get("name") == "model_run" for e in answer)
    criteria.add(
        f"the model ran {p['runs']} times",
        runs == p["runs"],
        f"The profile has {runs} events model_run. Every run with this session counts, also a first try.",
    )
    sizes = {_rows(arguments) for _, arguments in ran} - {1} or {1}  # the addition of two weights has one row
    criteria.add(
        f"each run had {p['rows']} rows",
        sizes == {p["rows"]},
        f"Its first dimension was {', '.join(map(str, sorted(sizes, key=str)))} there.",
    )
    elsewhere = {str(arguments.get("provider")) for _, arguments in ran} - {CPU}
    criteria.add("all nodes ran on the CPU provider", not elsewhere, f"Some ran on {', '.join(sorted(elsewhere))}.")
    return criteria


def _rows(arguments: Mapping[str, Any]) -> object:
    """First dimension of a node's first input, as the profile has it; None where it has none."""
    try:
        (shape,) = arguments["input_type_shape"][0].values()
        return shape[0] if is_whole(shape[0]) else None
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return None


# 5.3: a configuration within limits

_OPTIONS = {"intra_op_num_threads", "inter_op_num_threads", "graph_optimization_level", "enable_cpu_mem_arena"}
_OPTIONS |= {"enable_mem_pattern", "use_deterministic_compute"}
_SPINNING = "session.intra_op.allow_spinning"
_KEYS = (
    _SPINNING,
    "session.inter_op.allow_spinning",
    "session.set_denormal_as_zero",
    "session.disable_prepacking",
    "session.use_env_allocators",
    "session.use_device_allocator_for_initializers",
    "session.dynamic_block_base",
    "session.disable_cpu_ep_fallback",
    "session.record_ep_graph_assignment_info",
)


def _draw_limits(rng: Random) -> Params:
    return {
        "threads": rng.randint(2, 4),
        "level": rng.choice(["ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED"]),
        "rows": rng.randint(2, 12),
        "subnormals": rng.choice(["kept", "set to zero"]),
        "seed": rng.randrange(10**6),
    }


def _check_configuration(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    criteria, model = Criteria(), _layered(p)
    if not wants_keys(answer, {"options", "config", "free_dimensions", "providers"}, criteria):
        return criteria
    options, config, free = (answer[key] for key in ("options", "config", "free_dimensions"))
    if not criteria.add(
        "options, config and free_dimensions are dicts, providers is a list of names",
        all(isinstance(part, dict) for part in (options, config, free))
        and isinstance(answer["providers"], list)
        and all(isinstance(name, str) for name in answer["providers"]),
        "Write {} where nothing is set, and the providers as a list of strings.",
    ):
        return criteria
    if not _known(options, config, free, criteria):
        return criteria
    if not criteria.add(
        "the providers are the CPU provider alone",
        answer["providers"] == [CPU],
        f"They are {answer['providers']}: it must be exactly [{CPU!r}].",
    ):
        return criteria
    # Only what passed above reaches ONNX Runtime: nothing that writes files or loads a library.
    built = _at_level("ORT_ENABLE_ALL")
    built.intra_op_num_threads = 0
    try:
        for name, value in options.items():
            setattr(built, name, _LEVELS[value] if name == "graph_optimization_level" else value)
        for key, value in config.items():
            built.add_session_config_entry(key, value)
        for name, size in free.items():
            built.add_free_dimension_override_by_name(name, size)
        session = ort.InferenceSession(model.SerializeToString(), built, providers=[CPU])
    except Exception as error:  # ONNX Runtime's own classes derive from Exception alone
        criteria.add("a session can be created", False, str(error).strip().splitlines()[0].rpartition(" : ")[2])
        return criteria
    _within_limits(session, model, options, p, rng, criteria)
    return criteria


def _known(options: dict, config: dict, free: dict, criteria: Criteria) -> bool:
    odd = sorted(set(options) - _OPTIONS)
    fine = criteria.add(
        "all options are among those of the task",
        not odd,
        f"{', '.join(odd)}: these are allowed: {', '.join(sorted(_OPTIONS))}. Keys with a dot belong into config.",
    )
    odd = sorted(set(map(str, config)) - set(_KEYS))
    near = difflib.get_close_matches(odd[0], _KEYS, n=1) if odd else []
    fine &= criteria.add(
        "all keys of config exist",
        not odd,
        f"{odd[0] if odd else ''!r} is no key that this task allows. ONNX Runtime would accept and ignore it."
        + (f" Did you mean {near[0]!r}?" if near else ""),
    )
    fine &= criteria.add(
        "all values of config are text",
        all(isinstance(value, str) and len(value) < 40 for value in config.values()),
        'ONNX Runtime wants text: "0" or "1" in quotes.',
    )
    level = options.get("graph_optimization_level", "ORT_ENABLE_ALL")
    fine &= criteria.add(
        "graph_optimization_level is the name of a level",
        isinstance(level, str) and level in _LEVELS,
        f"It must be one of {', '.join(_LEVELS)}, as text.",
    )
    numbers = {name: value for name, value in options.items() if name.endswith("_num_threads")}
    fine &= criteria.add(
        "numbers of threads are whole numbers from 0 to 64",
        all(is_whole(value) and 0 <= value <= 64 for value in numbers.values()),
        f"They are {numbers}.",
    )
    flags = {name: v for name, v in options.items() if name not in numbers and name != "graph_optimization_level"}
    fine &= criteria.add(
        "switches are true or false",
        all(isinstance(value, bool) for value in flags.values()),
        f"They are {flags}: in Python True and False, without quotes.",
    )
    return fine & criteria.add(
        "free dimensions have a size from 1 to 1000",
        all(isinstance(name, str) and is_whole(size) and 1 <= size <= 1000 for name, size in free.items()),
        f"They are {free}: name of the dimension → whole number.",
    )


def _within_limits(
    session: ort.InferenceSession, model: onnx.ModelProto, options: dict, p: Params, rng: Random, criteria: Criteria
) -> None:
    """Add: what the real session says and does is what the task asks for."""
    real = session.get_session_options()

    def entry(key: str) -> str:
        try:
            return real.get_session_config_entry(key)
        except RuntimeError:  # not set
            return ""

    threads = real.intra_op_num_threads
    criteria.add(
        f"{p['threads']} threads inside a node",
        threads == p["threads"],
        "intra_op_num_threads is not your number. inter_op_num_threads is something else: the nodes that run at the same time."
        if options.get("inter_op_num_threads") == p["threads"]
        else "It is 0, which means one per core: the device has more cores than you may use."
        if threads == 0
        else f"They are {threads}.",
    )
    criteria.add(
        "waiting threads sleep",
        entry(_SPINNING) == "0",
        f"{_SPINNING} is {entry(_SPINNING) or 'not set'!r}: by default threads wait in a busy loop. '0' switches it off.",
    )
    criteria.add("no memory arena", not real.enable_cpu_mem_arena, "enable_cpu_mem_arena is on, as it is by default.")
    zero = entry("session.set_denormal_as_zero") == "1"
    criteria.add(
        f"subnormal numbers are {p['subnormals']}",
        zero == (p["subnormals"] == "set to zero"),
        "session.set_denormal_as_zero is '1', and yours shall be kept."
        if zero
        else "session.set_denormal_as_zero must be '1'; by default they are kept.",
    )
    shape = session.get_inputs()[0].shape
    fixed = criteria.add(
        f"the session takes exactly {p['rows']} rows",
        shape[0] == p["rows"],
        f"The input has shape {shape}. "
        + (
            "The dimension is named 'rows': that name is the key in free_dimensions."
            if isinstance(shape[0], str)
            else f"Your number is {p['rows']}."
        ),
    )
    rows = p["rows"] if fixed or not is_whole(shape[0]) else shape[0]
    feed = {"x": numpy_source(rng).normal(size=(rows, 3, 6, 6)).astype(np.float32)}
    got = options.get("graph_optimization_level", "ORT_ENABLE_ALL")
    ran = {level: _nodes_that_ran(model, _at_level(level), feed) for level in (p["level"], got)}
    criteria.add(
        f"the graph is rewritten as far as {p['level']}, and no further",
        ran[got] == ran[p["level"]],
        f"At {got} these nodes ran: {', '.join(sorted(ran[got]))}. At {p['level']}: {', '.join(sorted(ran[p['level']]))}.",
    )
    expected = ort.InferenceSession(model.SerializeToString(), _at_level("ORT_DISABLE_ALL"), providers=[CPU])
    same = np.allclose(session.run(None, feed)[0], expected.run(None, feed)[0], atol=1e-5)
    criteria.add("it gives the numbers of the model", same, "The numbers differ from those of the plain model.")


# 5.4: what happened here?

_CAUSES = ("nothing wrong", "wrong name", "missing provider", "unknown option", "unsupported operators")
_NAMES = {  # real name → how people write it
    "TensorrtExecutionProvider": "TensorRTExecutionProvider",
    "DmlExecutionProvider": "DirectMLExecutionProvider",
    "NnapiExecutionProvider": "NNAPIExecutionProvider",
    "OpenVINOExecutionProvider": "OpenVinoExecutionProvider",
    "CoreMLExecutionProvider": "CoreMlExecutionProvider",
}


def _draw_transcripts(rng: Random) -> Params:
    real = rng.sample(sorted(_NAMES), 5)
    nodes, few = rng.randint(20, 60), rng.randint(1, 5)
    lacking = "Specified provider {!r} is not in available provider names."
    again = f"Falling back to [{CPU!r}] and retrying."
    wrong = _NAMES[real[0]]
    option = rng.choice(["device", "num_thread", "precison"])
    found = [
        (wrong, [lacking.format(wrong), f"EP Error Unknown Provider Type: {wrong}", again], [CPU], {CPU: nodes}),
        (real[1], [lacking.format(real[1])], [CPU], {CPU: nodes}),
        (real[2], [f"EP Error Invalid EP option: {option}", again], [CPU], {CPU: nodes}),
        (real[3], [], [real[3], CPU], {CPU: nodes}),
        (real[4], [], [real[4], CPU], {real[4]: nodes - few, CPU: few}),
        (real[1], [], [real[1], CPU], {real[1]: nodes}),
    ]
    rng.shuffle(found)
    keys = ("asked for", "said", "get_providers()", "record: nodes per provider")
    return {
        "transcripts": {
            letter: dict(zip(keys, ([first, CPU], said, names, record), strict=True))
            for letter, (first, said, names, record) in zip("ABCDEF", found, strict=True)
        }
    }


def _cause(transcript: Mapping[str, Any]) -> str:
    said, record = " ".join(transcript["said"]), transcript["record: nodes per provider"]
    if "Unknown Provider Type" in said:
        return "wrong name"
    if "option" in said:
        return "unknown option"
    if "not in available" in said:
        return "missing provider"
    return "unsupported operators" if CPU in record else "nothing wrong"


_SIGNS = {
    "wrong name": "It says that this type of provider is unknown: no package has a provider of this name.",
    "unknown option": "It says that an option is invalid. Provider and name are fine.",
    "missing provider": "The warning is all there is: the name is right, but the installed package lacks it.",
    "unsupported operators": "Nothing is said and the provider is registered. Look at the record: who has the nodes?",
    "nothing wrong": "All nodes are on the provider that was asked for first.",
}


def _check_transcripts(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    criteria, transcripts = Criteria(), p["transcripts"]
    if not wants_keys(answer, {"causes", "right_name"}, criteria):
        return criteria
    causes = answer["causes"]
    if criteria.add(
        "causes names one of the five causes for each transcript",
        isinstance(causes, dict) and set(causes) == set(transcripts) and all(c in _CAUSES for c in causes.values()),
        f"It is a dict with the keys {', '.join(transcripts)}; the causes are: {', '.join(_CAUSES)}.",
    ):
        for letter, transcript in transcripts.items():
            right = _cause(transcript)
            criteria.add(f"{letter} is explained", causes[letter] == right, _SIGNS[right])
    wrong = next(t["asked for"][0] for t in transcripts.values() if _cause(t) == "wrong name")
    right = next(real for real, written in _NAMES.items() if written == wrong)
    name = answer["right_name"]
    criteria.add(
        "right_name is the real name of the misspelled provider",
        name == right,
        f"{name!r} is no provider that ONNX Runtime knows: search in ort.get_all_providers(), capital letters count."
        if name not in ort.get_all_providers()
        else "That is another provider.",
    )
    return criteria


# 5.5: make the model fit the provider


def _softplus(v: np.ndarray) -> np.ndarray:
    return np.logaddexp(v, 0)


_erf = np.vectorize(math.erf, otypes=[np.float64])
# Operator → its meaning, the operators that are enough to say it, and wrong ways to say it with the cause of each.
_AWKWARD: dict[str, tuple[Callable, list[str], dict[str, Callable]]] = {
    "Softsign": (
        lambda v: v / (1 + np.abs(v)),
        ["Abs", "Add", "Div"],
        {"The absolute value is missing: it is x / (1 + x).": lambda v: v / (1 + v)},
    ),
    "HardSwish": (
        lambda v: v * np.clip(v / 6 + 0.5, 0, 1),
        ["Add", "Mul", "Max", "Min"],
        {
            "The bounds 0 and 1 are missing.": lambda v: v * (v / 6 + 0.5),
            "Only the lower bound is there, 1 is missing.": lambda v: v * np.maximum(v / 6 + 0.5, 0),
            "That is HardSigmoid: the factor x is missing.": lambda v: np.clip(v / 6 + 0.5, 0, 1),
        },
    ),
    "Mish": (
        lambda v: v * np.tanh(_softplus(v)),
        ["Exp", "Log", "Add", "Tanh", "Mul"],
        {
            "The factor x is missing.": lambda v: np.tanh(_softplus(v)),
            "The tanh is missing.": lambda v: v * _softplus(v),
            "That is x · sigmoid(x), another function.": lambda v: v / (1 + np.exp(-v)),
        },
    ),
    "Gelu": (
        lambda v: 0.5 * v * (1 + _erf(v / np.sqrt(2))),
        ["Erf", "Add", "Mul"],
        {
            "The factor 0.5 is missing.": lambda v: v * (1 + _erf(v / np.sqrt(2))),
            "The division by the square root of 2 is missing.": lambda v: 0.5 * v * (1 + _erf(v)),
            "The 1 is missing before the product with x.": lambda v: 0.5 * v * _erf(v / np.sqrt(2)),
        },
    ),
    "Celu": (
        lambda v: np.maximum(v, 0) + np.minimum(np.expm1(v), 0),
        ["Exp", "Sub", "Add", "Max", "Min"],
        {
            "The positive part is missing.": lambda v: np.minimum(np.expm1(v), 0),
            "That is Relu: the negative part is missing.": lambda v: np.maximum(v, 0),
        },
    ),
}


def _draw_fit(rng: Random) -> Params:
    awkward = rng.choice(sorted(_AWKWARD))
    needed = {"MatMul", "Add", *_AWKWARD[awkward][1]}
    more = rng.sample(sorted({"Relu", "Sqrt", "Concat", "Reshape", "Neg", "Sub"} - needed), 2)
    return {"awkward": awkward, "takes": sorted(needed | set(more)), "seed": rng.randrange(10**6)}


def _weights_of(p: Params) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(p["seed"])
    shapes = {"w1": (5, 6), "b1": (6,), "w2": (6, 4)}
    return {name: draw.normal(0, 0.7, shape).astype(np.float32) for name, shape in shapes.items()}


def _unfit(p: Params) -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["p1"], "multiply_1"),
        helper.make_node("Add", ["p1", "b1"], ["s1"], "add_1"),
        helper.make_node(p["awkward"], ["s1"], ["a1"], "activate_1"),
        helper.make_node("MatMul", ["a1", "w2"], ["p2"], "multiply_2"),
        helper.make_node(p["awkward"], ["p2"], ["y"], "activate_2"),
    ]
    return x_to_y("unfit", nodes, _weights_of(p), ["batch", 5], ["batch", 4], {"": OPSET}, ir_version=IR)


def _expected(p: Params, x: np.ndarray, function: Callable) -> np.ndarray:
    w = {name: value.astype(np.float64) for name, value in _weights_of(p).items()}
    return function(function(x @ w["w1"] + w["b1"]) @ w["w2"]).astype(np.float32)


def _check_fit(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    if not criteria.add(
        "the model has no functions",
        not model.functions,
        "A function hides its nodes, it does not change them: write the nodes into the graph.",
    ):
        return criteria  # a provider sees the nodes inside, and ONNX Runtime can die of a function with a bad name
    used = set(op_histogram(model).index) | {f"{n.domain}.{n.op_type}" for n in model.graph.node if n.domain}
    left = sorted(used - set(p["takes"]))
    still = [n.name or n.output[0] for n in model.graph.node if n.op_type == p["awkward"]]
    criteria.add(
        "the provider takes every node",
        not left,
        f"{p['awkward']} is still there: {', '.join(still)}."
        if still
        else f"The provider does not take {', '.join(left)}. Constants are best stored as initializers."
        if "Constant" in left
        else f"The provider does not take {', '.join(left)}: it takes {', '.join(p['takes'])}.",
    )
    function, _, wrongs = _AWKWARD[p["awkward"]]
    x = numpy_source(rng).normal(0, 1.5, (16, 5)).astype(np.float32)
    cause = "Compare each new piece with the old node, on the same input, before you put it in."
    for sentence, wrong in wrongs.items():
        with np.errstate(all="ignore"):
            guess = _expected(p, x, wrong)
        if np.isfinite(guess).all() and computes(model, {"x": x}, guess, Criteria(), "", "", atol=1e-4):
            cause = sentence
    computes(model, {"x": x}, _expected(p, x, function), criteria, "it computes what it computed", cause, atol=1e-4)
    return criteria


# What the tasks share


TASKS = (
    Task(
        "5.1",
        "Predict the placement",
        "json",
        _check_placement,
        _draw_providers,
        lambda p: {"5.1.onnx": _branching(p)},
    ),
    Task(
        "5.2", "Prove where the nodes ran", "json", _check_profile, _draw_profile, lambda p: {"5.2.onnx": _layered(p)}
    ),
    Task(
        "5.3",
        "A configuration within limits",
        "json",
        _check_configuration,
        _draw_limits,
        lambda p: {"5.3.onnx": _layered(p)},
    ),
    Task("5.4", "What happened here?", "json", _check_transcripts, _draw_transcripts),
    Task("5.5", "Make the model fit", "onnx", _check_fit, _draw_fit, lambda p: {"5.5.onnx": _unfit(p)}),
)
