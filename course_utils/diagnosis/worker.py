"""Loads and runs a model in this process, which may die of it. Started by `trial`, never imported by it.

Reads a JSON request from the standard input, and writes one JSON line per thing that it learnt to the standard output,
at once: what was said before the process died still counts.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

_NUMPY = {
    "float": "float32", "double": "float64", "float16": "float16", "int64": "int64", "int32": "int32", "int16": "int16",
    "int8": "int8", "uint8": "uint8", "uint16": "uint16", "uint32": "uint32", "uint64": "uint64", "bool": "bool",
}  # fmt: skip
_SIZES = (1, 16, 32, 64, 224, 640)  # tried for sizes that are free
_LARGEST = 64 * 2**20  # elements of one made-up input


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def limit_memory(size: int) -> None:
    """An upper limit for this process; where the system knows none, only the parent's time limit holds."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def load(request: dict[str, Any]) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    provider = request["provider"]
    providers = ["CPUExecutionProvider"]
    if provider and provider != providers[0]:
        if provider not in ort.get_available_providers():
            say(event="provider-missing", available=ort.get_available_providers())
        else:
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
            providers.insert(0, provider)
    return ort.InferenceSession(request["path"], options, providers=providers)


def placement(session: Any) -> list[tuple[str, str, str]]:
    """(provider, operator, name) of each node of the optimised graph; empty where it was not recorded."""
    record = getattr(session, "get_provider_graph_assignment_info", None)
    if record is None or len(session.get_providers()) < 2:
        return []
    return [(g.ep_name, n.op_type, n.name) for g in record() for n in g.get_nodes()]


def feeds(session: Any, sizes: dict[str, int], free: int, kind: str) -> dict[str, np.ndarray]:
    """Made-up inputs. sizes: by the name of a dimension. free: for all other free ones behind the first axis."""
    rng, made = np.random.default_rng(0), {}
    for value in session.get_inputs():
        inner = value.type.removeprefix("tensor(").removesuffix(")")
        shape = []
        for axis, size in enumerate(value.shape):
            if isinstance(size, int) and size >= 0:
                shape.append(size)
            else:
                shape.append(
                    sizes.get(size, 1 if axis == 0 else free) if isinstance(size, str) else 1 if axis == 0 else free
                )
        if np.prod(shape, dtype=float) > _LARGEST:
            raise ValueError(f"the input {value.name!r} of shape {shape} is too large to make up")
        if inner == "string":
            made[value.name] = np.full(shape, "a", dtype=object)
        elif inner not in _NUMPY or not value.type.startswith("tensor("):
            raise ValueError(f"the input {value.name!r} is a {value.type}, which cannot be made up")
        elif inner in ("float", "double", "float16"):
            numbers = rng.standard_normal(shape) if kind == "normal" else rng.uniform(0.1, 1, shape)
            made[value.name] = np.asarray(numbers, _NUMPY[inner])
        else:
            one = kind != "normal" or inner == "bool"
            made[value.name] = np.full(shape, int(one), _NUMPY[inner])
    return made


def words(error: Exception) -> str:
    return " ".join(str(error).split())[:1500]


def examine(session: Any) -> None:
    frozen = all(isinstance(d, int) and d >= 0 for i in session.get_inputs() for d in i.shape)
    loose = any(not (isinstance(d, int) and d >= 0) for i in session.get_inputs() for d in i.shape[1:])
    last = ""
    for free in _SIZES if loose else (1,):
        try:
            feed = feeds(session, {}, free, "normal")
            first = session.run(None, feed)
        except ValueError as error:
            return say(event="not-run", why=words(error), frozen=False)
        except Exception as error:  # ONNX Runtime's own classes derive from Exception alone
            last = words(error)
            continue
        break
    else:
        return say(event="not-run", why=last, frozen=frozen)
    say(event="ran")
    again = session.run(None, feed)
    same = all(_same(a, b) for a, b in zip(first, again, strict=True))
    say(event="outputs", same=same, nan=_nan(session, first, free))
    batches(session, free)
    return None


def _nan(session: Any, first: list[Any], free: int) -> list[str]:
    """Outputs that hold NaN for two kinds of inputs. With whole numbers among the inputs, such as lengths, NaN may be right."""
    if any(not i.type.startswith(("tensor(float", "tensor(double")) for i in session.get_inputs()):
        return []
    other = session.run(None, feeds(session, {}, free, "uniform"))
    return [o.name for o, a, b in zip(session.get_outputs(), first, other, strict=True) if _has_nan(a) and _has_nan(b)]


def _same(a: Any, b: Any) -> bool:
    if not isinstance(a, np.ndarray):
        return True
    return a.shape == b.shape and bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))


def _has_nan(a: Any) -> bool:
    return isinstance(a, np.ndarray) and a.dtype.kind == "f" and bool(np.isnan(a).any())


def batches(session: Any, free: int) -> None:
    """Whether the name in the first axis of the inputs stands for any size, as it says."""
    named = {i.shape[0] for i in session.get_inputs() if len(i.shape) > 1 and isinstance(i.shape[0], str)}
    inputs = [i for i in session.get_inputs() if i.shape]
    if len(named) != 1 or any(i.shape[0] not in named for i in inputs):
        return
    (name,) = named
    for batch in (2, 3):
        try:
            session.run(None, feeds(session, {name: batch}, free, "normal"))
        except Exception as error:
            return say(event="batch", name=name, size=batch, why=words(error))
    return None


def main() -> None:
    request = json.load(sys.stdin)
    limit_memory(request["memory"])
    say(event="start")
    try:
        session = load(request)
    except MemoryError:
        return say(event="memory")
    except Exception as error:
        if "bad_alloc" in str(error) or "Failed to allocate memory" in str(error):
            return say(event="memory")
        return say(event="refused", why=words(error))
    try:
        say(event="loaded", placement=placement(session) if request["provider"] else [])
        examine(session)
    except MemoryError:
        say(event="memory")
    except Exception as error:
        say(event="not-run", why=words(error), frozen=False)
    return say(event="end")


if __name__ == "__main__":
    main()
