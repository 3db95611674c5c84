"""Task 5.3: the options of a session, within limits."""

from __future__ import annotations

import difflib
from random import Random
from typing import Any

import onnx
import onnxruntime as ort

from .. import Criteria, Criterion, Params
from ..examine import wants_keys, whole
from .profile_proof import CPU, LEVELS, at_level, layered, record_of_run

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
    built = at_level("ORT_ENABLE_ALL")
    built.intra_op_num_threads = 0
    try:
        for name, value in options.items():
            number = whole(value) if name.endswith("_num_threads") else value
            setattr(built, name, LEVELS[value] if name == "graph_optimization_level" else number)
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
        isinstance(level, str) and level in LEVELS,
        f"It must be one of {', '.join(LEVELS)}, as text.",
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
        ran = {level: sorted(record_of_run(model, level, p["rows"])) for level in (p["level"], got)}
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
