"""Loads and runs a model in this process, which may die of it. Started by `trial`, never imported by it.

Reads a JSON request from the standard input, and writes one JSON line per thing that it learnt to the standard output,
at once: what was said before the process died still counts.
"""

from __future__ import annotations

import json
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...processes import alarm
from ..vocabulary import spoken
from .feeding import Shapes, Sizes, UnmadeError, others, size_of, together

_SHARE = 0.5  # of the time that is allowed, for trying sizes
_NO_SPACE = ("bad_alloc", "Failed to allocate memory", "Cannot allocate memory", "failed to map segment")
_DEEP = 256 * 2**20  # bytes: of larger files the tensors inside are not looked at
_LEAST = 8  # numbers: fewer tell nothing
_MANY = 0.1  # of a tensor's numbers
# Operators that compute; what others give on was computed before.
_COMPUTE = (
    "Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "Mul", "Div", "Add", "Sub", "Pow", "Exp", "Log", "Sqrt", "Sigmoid", "Softmax",
    "Tanh", "Relu", "LSTM", "GRU", "RNN", "BatchNormalization", "LayerNormalization", "InstanceNormalization", "ReduceMean", "ReduceSum",
)  # fmt: skip


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def limit_memory(size: int) -> bool:
    """An upper limit for this process; where the system knows none, only the parent's time limit holds.

    Returns whether there is any room left in it for a model.
    """
    try:
        import resource
    except ImportError:  # Windows
        return True
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    try:
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:  # not Linux; or nothing can be opened any more
        return True
    say(event="room", taken=taken)
    return size - taken > 32 * 2**20


def load(ort: Any, model: Any, provider: str | None, folder: str = "") -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    if folder:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    providers = ["CPUExecutionProvider"]
    if provider and provider != providers[0]:
        if provider not in ort.get_available_providers():
            say(event="provider-missing", available=ort.get_available_providers())
        else:
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
            providers.insert(0, provider)
    return ort.InferenceSession(model, options, providers=providers)


def placement(session: Any) -> list[tuple[str, str, str]]:
    """(provider, operator, name) of each node of the optimised graph; empty where it was not recorded."""
    record = getattr(session, "get_provider_graph_assignment_info", None)
    if record is None or len(session.get_providers()) < 2:
        return []
    return [(g.ep_name, n.op_type, n.name) for g in record() for n in g.get_nodes()]


def words(error: Exception) -> str:
    return " ".join(str(error).split())[:1500]


@dataclass
class Runs:
    """A session, run with made-up inputs. failures: (sizes, kind of the numbers, words) of the runs that failed."""

    session: Any
    shapes: Shapes
    until: float
    failures: list[tuple[Sizes, str, str]] = field(default_factory=list)
    seconds: float = 0.0  # of the first run that succeeded

    def run(self, sizes: Sizes, kind: str = "normal") -> list[Any] | None:
        start = time.monotonic()
        try:
            results = self.session.run(None, self.shapes.feed(sizes, kind))
        except (UnmadeError, MemoryError):
            raise
        except Exception as error:  # ONNX Runtime's own classes derive from Exception alone
            if any(part in str(error) for part in _NO_SPACE):
                raise MemoryError from error
            self.failures.append((sizes, kind, words(error)))
            return None
        self.seconds = self.seconds or time.monotonic() - start
        return results

    def late(self, factor: float = 1) -> bool:
        return time.monotonic() + factor * self.seconds > self.until


def examine(ort: Any, runs: Runs, request: dict[str, Any]) -> None:
    found = _first(runs, request["hints"])
    if found is None:
        return
    sizes, kind, first = found
    say(event="ran")
    again = runs.run(sizes, kind)
    same = again is not None and all(_same(a, b) for a, b in zip(first, again, strict=True))
    other = runs.run(sizes, "uniform" if kind == "normal" else "normal") or [None] * len(first)
    names = [o.name for o in runs.session.get_outputs()]
    both = list(zip(names, first, other, strict=True))
    nan = [name for name, a, b in both if _has(np.isnan, a) and _has(np.isnan, b)]
    infinite = [name for name, a, b in both if _has(np.isposinf, a) and _has(np.isposinf, b)]
    infinite += [name for name, a, b in both if name not in infinite and _nothing_finite(a) and _nothing_finite(b)]
    infinite = [name for name in infinite if name not in nan]
    say(event="outputs", same=same, nan=nan, infinite=infinite)
    compare(runs, sizes, first)
    probe(runs, sizes, kind)
    inside(ort, request, runs, sizes, kind)


def _first(runs: Runs, hints: list[int]) -> tuple[Sizes, str, list[Any]] | None:
    """The first sizes that run, with the results; else says what came of all."""
    late, unmade = False, None
    for kind in ("normal",) if runs.shapes.only_floats else ("normal", "uniform"):
        for sizes in runs.shapes.tries(hints) if runs.shapes.free else [{}]:
            try:
                results = runs.run(sizes, kind)
            except UnmadeError as error:
                unmade = error
                continue
            if results is not None:
                return sizes, kind, results
            if late := time.monotonic() > runs.until:
                break
    if unmade is not None and not runs.failures:
        raise unmade
    said: dict[str, set[str]] = {}
    for sizes, _, text in runs.failures:
        said.setdefault(str(sizes), set()).add(text)
    by_values = any(len(texts) > 1 for texts in said.values())
    tried = {name: list(dict.fromkeys(s[name] for s, *_ in runs.failures)) for name in runs.shapes.free}
    say(event="fails", why=runs.failures[0][2], tried=tried, by_values=by_values, certain=not late and _certain(runs))
    return None


def _certain(runs: Runs) -> bool:
    """Whether no other inputs would run, either.

    So where only the batch was free, or nothing. Else the words must be the same for all sizes and for all numbers, and
    tell sizes: some messages are the same because they tell nothing.
    """
    said = {re.sub(r"Name: ?'.*?'", "", spoken(text)) for *_, text in runs.failures}
    same, one = len(said) == 1, next(iter(said), "")
    unsupported = same and re.search(r"not (implemented|supported)|unsupported|NOT_IMPLEMENTED", one, re.IGNORECASE)
    tells = same and re.search(r"\d", one.partition("Status Message:")[2]) is not None
    if not runs.shapes.only_floats:
        return bool(unsupported) or (tells and len(runs.failures) > 1)
    return not runs.shapes.other or bool(unsupported) or (tells and len(runs.failures) > 2)


def _same(a: Any, b: Any) -> bool:
    if not isinstance(a, np.ndarray):
        return True
    return a.shape == b.shape and bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))


def _has(what: Any, a: Any) -> bool:
    return isinstance(a, np.ndarray) and a.dtype.kind == "f" and bool(what(a).any())


def _nothing_finite(a: Any) -> bool:
    return isinstance(a, np.ndarray) and a.dtype.kind == "f" and a.size > 0 and not np.isfinite(a).any()


def compare(runs: Runs, sizes: Sizes, results: list[Any]) -> bool:
    """Whether the outputs have the shapes that the file says; says so where they have not."""
    known, wrong = dict(sizes), []
    for value, result in zip(runs.session.get_outputs(), results, strict=True):
        if not isinstance(result, np.ndarray) or not value.type.startswith("tensor("):
            continue
        says, has = list(value.shape or []), list(result.shape)
        if not says:  # ONNX Runtime gives no shape for both: none, and that of a single number
            continue
        differs, named = len(says) != len(has), False
        for d, n in zip(says, has, strict=False):
            if isinstance(d, int):
                differs |= d != n and d > 0
            elif isinstance(d, str):
                meant = size_of(d, known)
                named |= meant is not None and meant != n
                known.setdefault(d, n)
        if differs or named:
            wrong.append([value.name, says, has, bool(differs)])
    if wrong:
        say(event="shapes", wrong=wrong, sizes=list(sizes.items()))
    return not wrong


def probe(runs: Runs, base: Sizes, kind: str) -> None:
    """Whether each free size stands for any number, as the file says."""
    left = []
    for name in runs.shapes.free:
        verdicts: dict[int, str] = {}
        for size in others(runs.shapes, name, base):
            if runs.late(max(1.0, (size / max(base[name], 1)) ** 2)):
                break
            changes = [{**base, name: size}, *together(runs.shapes, name, base, size)]
            try:
                at = len(runs.failures)
                results = next((r for c in changes if (r := runs.run(c, kind)) is not None), None)
                verdicts[size] = "" if results is not None else runs.failures[at][2]
            except (UnmadeError, MemoryError):  # too large for here: that says nothing of the model
                continue
            if not verdicts[size] and name not in runs.shapes.first:
                break
        if not verdicts:
            left.append(name)
            continue
        bad = [size for size, why in verdicts.items() if why]
        fits = not bad if name in runs.shapes.first else len(bad) < len(verdicts)
        if not fits and 0 in base.values():  # one size is the sum of others, so it cannot be changed alone
            left.append(name)
        elif not fits:
            say(
                event="frozen", name=name, runs=base[name], fails=bad, why=verdicts[bad[0]],
                batch=name in runs.shapes.first or "batch" in name.lower(),
            )  # fmt: skip
    if left:
        say(event="not-probed", names=left)


def inside(ort: Any, request: dict[str, Any], runs: Runs, sizes: Sizes, kind: str) -> None:
    """Numbers that are so small that processors are slow with them, and the first NaN: each result inside becomes an output."""
    path = Path(request["path"])
    if path.stat().st_size > _DEEP or runs.late(10):
        return
    import onnx

    model = onnx.load(path, load_external_data=False)
    own = {o.name for o in model.graph.output}
    nodes = [n for n in model.graph.node if n.op_type in _COMPUTE and n.domain in ("", "ai.onnx")]
    makers = {name: node.name or node.op_type for node in nodes for name in node.output if name}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in makers if name not in own)
    try:
        session = load(ort, model.SerializeToString(), None, str(path.parent))
        results = session.run(None, runs.shapes.feed(sizes, kind))
    except Exception:  # as it is, the model runs: this is no finding
        return
    found = dict(zip((o.name for o in session.get_outputs()), results, strict=True))
    slow = [name for name in makers if _subnormal(found.get(name)) > _MANY]
    nan = [name for name in makers if _has(np.isnan, found.get(name))]
    say(event="inside", slow=[[name, makers[name], _subnormal(found[name])] for name in slow], nan=nan[:1])


def _subnormal(a: Any) -> float:
    """The share of numbers other than zero that are too small for the usual form of their dtype."""
    if not isinstance(a, np.ndarray) or a.dtype not in (np.float32, np.float64) or a.size < _LEAST:
        return 0.0
    size = np.abs(a[a != 0])
    return float((size < np.finfo(a.dtype).tiny).mean()) if size.size >= _LEAST else 0.0


def main() -> None:
    request = json.load(sys.stdin)
    alarm(2 * request["seconds"])  # the parent is far earlier
    try:
        import onnxruntime as ort
    except ImportError as error:
        return say(event="absent", why=words(error))
    if not limit_memory(request["memory"]):
        return say(event="memory")
    say(event="start")
    try:
        session = load(ort, request["path"], request["provider"])
    except MemoryError:
        return say(event="memory")
    except Exception as error:
        if any(part in str(error) for part in _NO_SPACE):
            return say(event="memory")
        return say(event="refused", why=words(error))
    try:
        say(event="loaded", placement=placement(session) if request["provider"] else [])
        runs = Runs(session, Shapes(session.get_inputs()), time.monotonic() + _SHARE * request["seconds"])
        examine(ort, runs, request)
    except MemoryError:
        say(event="memory")
    except UnmadeError as error:
        say(event="not-run", why=words(error))
    return say(event="end")


if __name__ == "__main__":
    main()
