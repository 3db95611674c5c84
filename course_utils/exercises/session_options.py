"""Tasks 5.2 and 5.3: a profile that proves where the nodes of a session ran, and a session within limits."""

from __future__ import annotations

import difflib
import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

from . import Criteria, Criterion, Params
from .examine import is_whole, wants_keys, whole
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
    """Pictures [rows, 3, 6, 6]: nodes that the basic rewrites remove, and a pair that the extended ones fuse.

    Names and the number of channels are personal: nobody's profile becomes another one's by a changed name.
    """
    draw, tag, channels = np.random.default_rng(p["seed"]), f"{p['seed']:06}", 4 + p["seed"] % 7
    weights = {
        "w1": draw.normal(0, 0.4, (channels, 3, 3, 3)),
        "a": draw.normal(0, 1, (1, channels, 1, 1)),
        "b": np.ones((1, channels, 1, 1)),
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
    shape = ["rows", channels, 6, 6]
    return x_to_y("layered", nodes, weights, ["rows", 3, 6, 6], shape, {"": OPSET}, ir_version=IR)


def _record(model: onnx.ModelProto, level: str, rows: int) -> dict[str, dict[str, Any]]:
    """Node → what a profile of this runtime says of it, after one run of this many rows."""
    options = _at_level(level)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder, "profile"))
        session = ort.InferenceSession(model.SerializeToString(), options, providers=[CPU])
        session.run(None, {"x": np.zeros((rows, 3, 6, 6), np.float32)})
        return dict(_kernels(json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))))


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
    if not criteria.require(
        "the file is a profile of ONNX Runtime",
        is_profile and any(e.get("name") == "session_initialization" for e in answer),
        "A profile is a list of events, one of them session_initialization: copy the file that end_profiling() names.",
    ):
        return criteria
    ran = _kernels(answer)
    if not criteria.require(
        "it has events of nodes",
        bool(ran),
        "No node ran before the profile was ended: call run first, end_profiling after it.",
    ):
        return criteria
    names, own = {name for name, _ in ran}, {node.name for node in model.graph.node}
    found = {_rows(arguments) for _, arguments in ran} - {1} or {1}  # the addition of two weights has one row
    rows = next((n for n in found if is_whole(n) and 0 < n <= 1000), p["rows"])
    levels = [p["level"], *(level for level in _LEVELS if level != p["level"])]
    records = ((level, _record(model, level, rows)) for level in levels)
    level, record = next(((at, nodes) for at, nodes in records if set(nodes) == names), ("", {}))
    if not criteria.require(
        "the nodes are those of your model",
        bool(level or names & own),
        "None of them is in your model: profile the model that was handed out to you.",
    ):
        return criteria
    runs = sum(e.get("name") == "model_run" for e in answer)
    # Runs of several sizes have no one record to compare with.
    odd = _not_written(answer, ran, record, runs) if level and len(found) == 1 else ""
    if not criteria.require(
        "it was written by ONNX Runtime",
        not odd,
        f"{odd} Copy the file as it is.",
    ):
        return criteria
    criteria.add(
        f"the nodes are those of your model at {p['level']}",
        level == p["level"],
        f"These are the nodes at {level}: set options.graph_optimization_level before you create the session."
        if level
        else f"Among them are {', '.join(sorted(names)[:9])}: that is the model at none of the levels. Profile your model "
        f"alone, and as it was handed out.",
    )
    criteria.add(
        f"the model ran {p['runs']} times",
        runs == p["runs"],
        f"The profile has {runs} events model_run. Every run with this session counts, also a first try.",
    )
    criteria.add(
        f"each run had {p['rows']} rows",
        found == {p["rows"]},
        f"Its first dimension was {', '.join(map(str, sorted(found, key=str)))} there.",
    )
    elsewhere = {str(arguments.get("provider")) for _, arguments in ran} - {CPU}
    criteria.require("all nodes ran on the CPU provider", not elsewhere, f"Some ran on {', '.join(sorted(elsewhere))}.")
    return criteria


_FACTS = ("op_name", "input_type_shape", "output_type_shape", "output_size", "parameter_size")


def _not_written(events: list[Any], ran: list[tuple[str, Any]], record: dict[str, dict[str, Any]], runs: int) -> str:
    """What shows that this is no record of real runs; empty when nothing does. record: of a run here."""
    counted = Counter(name for name, _ in ran)
    for name, arguments in ran:
        for fact in _FACTS:
            if fact in record[name] and arguments.get(fact) != record[name][fact]:
                return f"{name} has {fact} {arguments.get(fact)!r}, a run has {record[name][fact]!r}."
    if uneven := [name for name, times in counted.items() if times != runs]:
        return f"{uneven[0]} ran {counted[uneven[0]]} times in {runs} events model_run."
    timed = [e for e in events if e.get("cat") == "Node" or e.get("name") == "model_run"]
    if not all(is_whole(e.get("ts")) and is_whole(e.get("dur")) and e["dur"] >= 0 for e in timed):
        return "Events have no times."
    return ""


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
_BLOCK = "session.dynamic_block_base"
_KEYS = (
    _SPINNING,
    "session.inter_op.allow_spinning",
    "session.set_denormal_as_zero",
    "session.disable_prepacking",
    "session.use_env_allocators",
    "session.use_device_allocator_for_initializers",
    _BLOCK,
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
    if not criteria.require(
        "options, config and free_dimensions are dicts, providers is a list of names",
        all(isinstance(part, dict) for part in (options, config, free))
        and isinstance(answer["providers"], list)
        and all(isinstance(name, str) for name in answer["providers"]),
        "Write {} where nothing is set, and the providers as a list of strings.",
    ):
        return criteria
    if not _known(options, config, free, criteria):
        return criteria
    if not criteria.require(
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
            number = whole(value) if name.endswith("_num_threads") else value
            setattr(built, name, _LEVELS[value] if name == "graph_optimization_level" else number)
        for key, value in config.items():
            built.add_session_config_entry(key, value)
        for name, size in free.items():
            built.add_free_dimension_override_by_name(name, whole(size))
        session = ort.InferenceSession(model.SerializeToString(), built, providers=[CPU])
    except Exception as error:  # ONNX Runtime's own classes derive from Exception alone
        words = str(error).strip().splitlines()[0].rpartition(" : ")[2]
        criteria.require("a session can be created", False, f"ONNX Runtime says: {words}")
        return criteria
    _within_limits(session, model, options, p, criteria)
    return criteria


def _is_block(key: str, value: object) -> bool:
    return key == _BLOCK and isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 5


def _known(options: dict, config: dict, free: dict, criteria: Criteria) -> bool:
    odd = sorted(set(options) - _OPTIONS)
    fine = criteria.require(
        "all options are among those of the task",
        not odd,
        f"{', '.join(odd)}: these are allowed: {', '.join(sorted(_OPTIONS))}. Keys with a dot belong into config.",
    )
    odd = sorted(set(map(str, config)) - set(_KEYS))
    near = difflib.get_close_matches(odd[0], _KEYS, n=1) if odd else []
    fine &= criteria.require(
        "all keys of config exist",
        not odd,
        f"{odd[0] if odd else ''!r} is no key that this task allows. ONNX Runtime would accept and ignore it."
        + (f" Did you mean {near[0]!r}?" if near else ""),
    )
    fine &= criteria.require(
        "all values of config are text",
        all(isinstance(value, str) for value in config.values()),
        'ONNX Runtime wants text: "0" or "1" in quotes.',
    )
    wrong = [key for key, value in config.items() if value not in ("0", "1") and not _is_block(key, value)]
    fine &= criteria.require(
        "all values of config are of their key's kind",
        not wrong,
        f"{wrong[0]} is {str(config[wrong[0]])[:40]!r}: "
        + ("a number is expected." if wrong[0] == _BLOCK else '"1" switches it on, and "0" off. No other word counts.')
        if wrong
        else "",
    )
    level = options.get("graph_optimization_level", "ORT_ENABLE_ALL")
    fine &= criteria.require(
        "graph_optimization_level is the name of a level",
        isinstance(level, str) and level in _LEVELS,
        f"It must be one of {', '.join(_LEVELS)}, as text.",
    )
    numbers = {name: value for name, value in options.items() if name.endswith("_num_threads")}
    fine &= criteria.require(
        "numbers of threads are whole numbers from 0 to 64",
        all((n := whole(value)) is not None and 0 <= n <= 64 for value in numbers.values()),
        f"They are {numbers}.",
    )
    flags = {name: v for name, v in options.items() if name not in numbers and name != "graph_optimization_level"}
    fine &= criteria.require(
        "switches are true or false",
        all(isinstance(value, bool) for value in flags.values()),
        f"They are {flags}: in Python True and False, without quotes.",
    )
    return fine & criteria.require(
        "free dimensions have a size from 1 to 1000",
        all((n := whole(size)) is not None and 1 <= n <= 1000 for size in free.values()),
        f"They are {free}: name of the dimension → whole number.",
    )


def _within_limits(
    session: ort.InferenceSession, model: onnx.ModelProto, options: dict, p: Params, criteria: Criteria
) -> None:
    """Add: what the real session says and does is what the task asks for; first of all, what is asked of this student."""
    real = session.get_session_options()

    def entry(key: str) -> str:
        try:
            return real.get_session_config_entry(key)
        except RuntimeError:  # not set
            return ""

    threads, shape = real.intra_op_num_threads, session.get_inputs()[0].shape
    zero = entry("session.set_denormal_as_zero") == "1"
    wrong = []
    if threads != p["threads"]:
        wrong.append(
            "intra_op_num_threads is not your number. inter_op_num_threads is something else: the nodes that run at the "
            "same time."
            if options.get("inter_op_num_threads") == p["threads"]
            else "intra_op_num_threads is 0, which means one per core: the device has more cores than you may use."
            if threads == 0
            else f"There are {threads} threads inside a node, yours are {p['threads']}."
        )
    if shape[0] != p["rows"]:
        wrong.append(
            f"The input has shape {shape}. "
            + (
                "The dimension is named 'rows': that name is the key in free_dimensions."
                if isinstance(shape[0], str)
                else f"Your number of rows is {p['rows']}."
            )
        )
    if zero != (p["subnormals"] == "set to zero"):
        wrong.append(
            "session.set_denormal_as_zero is '1', and yours shall be kept."
            if zero
            else "session.set_denormal_as_zero must be '1'; by default they are kept."
        )
    got = options.get("graph_optimization_level", "ORT_ENABLE_ALL")
    if got != p["level"]:
        ran = {level: sorted(_record(model, level, p["rows"])) for level in (p["level"], got)}
        if ran[got] != ran[p["level"]]:
            wrong.append(
                f"At {got} these nodes run: {', '.join(ran[got])}. At {p['level']}: {', '.join(ran[p['level']])}."
            )
    if not criteria.add("threads, level, rows and subnormal numbers are yours", not wrong, " ".join(wrong)):
        return
    criteria.add(
        "waiting threads sleep",
        entry(_SPINNING) == "0",
        f"{_SPINNING} is {entry(_SPINNING) or 'not set'!r}: by default threads wait in a busy loop. '0' switches it off.",
    )
    criteria.add("no memory arena", not real.enable_cpu_mem_arena, "enable_cpu_mem_arena is on, as it is by default.")
