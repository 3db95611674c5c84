"""Tasks 5.2 and 5.3: a profile that proves where the nodes of a session ran, and a session within limits."""

from __future__ import annotations

import difflib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

from . import Criteria, Criterion, Params
from .examine import is_whole, numpy_source, wants_keys
from .handouts import x_to_y

CPU = "CPUExecutionProvider"
OPSET, IR = 20, 9


# 5.2: a profile as proof

_LEVELS = {
    "ORT_DISABLE_ALL": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "ORT_ENABLE_BASIC": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "ORT_ENABLE_EXTENDED": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "ORT_ENABLE_ALL": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


def draw_profile(rng: Random) -> Params:
    return {
        "level": rng.choice(["ORT_DISABLE_ALL", "ORT_ENABLE_BASIC"]),
        "runs": rng.randint(3, 9),
        "rows": rng.randint(2, 9),
        "seed": rng.randrange(10**6),
    }


def layered(p: Params) -> onnx.ModelProto:
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


def check_profile(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    criteria, model = Criteria(), layered(p)
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


def draw_limits(rng: Random) -> Params:
    return {
        "threads": rng.randint(2, 4),
        "level": rng.choice(["ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED"]),
        "rows": rng.randint(2, 12),
        "subnormals": rng.choice(["kept", "set to zero"]),
        "seed": rng.randrange(10**6),
    }


def check_configuration(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    criteria, model = Criteria(), layered(p)
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
