"""Where nodes run and how long it takes: the experiment of lesson 05, a plain script for any interpreter.

    python ep_experiment.py                                             the CPU provider
    python ep_experiment.py --provider OpenVINOExecutionProvider --out openvino.json

It needs NumPy, onnx and some ONNX Runtime package, not the course. It asks this runtime for the given provider in
several ways, right and wrong, and writes down for each what was said, which providers the session names, where every
node was placed and where it ran. Then it times the provider against the CPU provider. The result is JSON, on the
standard output or in the file of `--out`. `make ep-openvino` runs it in an environment of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime reads it when it is imported

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper, parser

FORMAT = 1
CPU = "CPUExecutionProvider"
RECORD = "session.record_ep_graph_assignment_info"
STRICT = "session.disable_cpu_ep_fallback"


# The models. Random weights: where a node runs and how long it takes does not depend on them.


def plain() -> onnx.ModelProto:
    """A small classifier of pictures [N, 3, 16, 16], every operator of which is common."""
    return _parsed(
        """<ir_version: 8, opset_import: ["": 17]> plain (float[N, 3, 16, 16] x) => (float[N, 10] y) {
        c1 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x, w1)
        r1 = Relu(c1)
        c2 = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(r1, w2)
        s = Add(c2, r1)
        r2 = Relu(s)
        p = GlobalAveragePool(r2)
        f = Flatten(p)
        y = Gemm(f, w3) }""",
        {"w1": (8, 3, 3, 3), "w2": (8, 8, 3, 3), "w3": (8, 10)},
    )


def mixed() -> onnx.ModelProto:
    """Rows [N, 8], with one unusual operator in the middle: `Unique`, whose output has a size that depends on the data."""
    return _parsed(
        """<ir_version: 8, opset_import: ["": 17]> mixed (float[N, 8] x) => (float[N, 8] y) {
        a = MatMul(x, w)
        b = Relu(a)
        u = Unique<sorted = 1>(b)
        m = ReduceMax<keepdims = 0>(u)
        d = Div(b, m)
        y = Sigmoid(d) }""",
        {"w": (8, 8)},
    )


def scattered() -> onnx.ModelProto:
    """Square matrices [4, 4], with an unusual operator, `Det`, between every few common ones."""
    return _parsed(
        """<ir_version: 8, opset_import: ["": 17]> scattered (float[4, 4] x) => (float[4, 4] y) {
        a = MatMul(x, w)
        d1 = Det(a)
        b = Add(a, d1)
        c = Tanh(b)
        d2 = Det(c)
        e = Add(c, d2)
        d3 = Det(e)
        y = Mul(e, d3) }""",
        {"w": (4, 4)},
    )


PLACED: dict[str, tuple[Callable[[], onnx.ModelProto], tuple[int, ...]]] = {
    "plain": (plain, (2, 3, 16, 16)),
    "mixed": (mixed, (2, 8)),
    "scattered": (scattered, (4, 4)),
}


def _parsed(text: str, weights: Mapping[str, tuple[int, ...]]) -> onnx.ModelProto:
    model, draw = parser.parse_model(text), np.random.default_rng(0)
    for node in model.graph.node:
        node.name = f"{node.op_type}_{node.output[0]}"
    for name, shape in weights.items():
        values = draw.normal(0, 0.3, shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


def residual_network(size: int, channels: int, stages: Sequence[tuple[int, int]], classes: int) -> onnx.ModelProto:
    """A residual network with folded BatchNorm: float32 [N, channels, size, size] → [N, classes].

    stages: (width, number of blocks) of each; every stage halves the picture. Blocks as in `fashion_resnet`.
    """
    draw = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def weight(*shape: int) -> str:
        weights.append(
            numpy_helper.from_array(
                draw.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32), f"w{len(weights)}"
            )
        )
        return weights[-1].name

    def node(op: str, inputs: list[str], **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [f"t{len(nodes)}"], f"{op}_{len(nodes)}", **attributes))
        return nodes[-1].output[0]

    def conv(x: str, have: int, want: int, kernel: int, stride: int) -> str:
        inputs = [x, weight(want, have, kernel, kernel), weight(want)]
        pads = [kernel // 2] * 4
        return node("Conv", inputs, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads)

    have = stages[0][0]
    x = node("Relu", [conv("image", channels, have, 3, 1 if size < 64 else 2)])
    for want, blocks in stages:
        for block in range(blocks):
            stride = 1 if block else 2
            y = conv(node("Relu", [conv(x, have, want, 3, stride)]), want, want, 3, 1)
            shortcut = conv(x, have, want, 1, stride) if stride == 2 else x
            x, have = node("Relu", [node("Add", [y, shortcut])]), want
    x = node("Flatten", [node("GlobalAveragePool", [x])])
    nodes.append(helper.make_node("Gemm", [x, weight(have, classes)], ["logits"], "Gemm_last"))
    graph = helper.make_graph(
        nodes,
        "residual",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", channels, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes])],
        weights,
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


TIMED: dict[str, tuple[Callable[[], onnx.ModelProto], tuple[int, int, int], tuple[int, ...]]] = {
    "28×28, 0.3 M weights": (lambda: residual_network(28, 1, [(32, 2), (64, 4)], 10), (1, 28, 28), (1, 64)),
    "224×224, 11 M weights": (
        lambda: residual_network(224, 3, [(64, 2), (128, 2), (256, 2), (512, 2)], 1000),
        (3, 224, 224),
        (1,),
    ),
}


# Where nodes run


def requests(provider: str) -> list[dict[str, Any]]:
    """What a session is asked for, and what that is meant to show: providers with their options, and configuration."""
    available, wanted = ort.get_available_providers(), _short(provider)
    misspelled = provider.replace("ExecutionProvider", "Executionprovider")
    missing = next(
        f"{n}ExecutionProvider" for n in ("CUDA", "Tensorrt", "QNN") if f"{n}ExecutionProvider" not in available
    )
    strict = {STRICT: "1"}
    found: list[tuple[str, list[tuple[str, dict[str, str]]], dict[str, str]]] = [
        ("CPU alone", [(CPU, {})], {}),
        (f"{wanted} first, then CPU", [(provider, {}), (CPU, {})], {}),
        (f"CPU first, then {wanted}", [(CPU, {}), (provider, {})], {}),
        (f"{wanted} alone", [(provider, {})], {}),
        (f"{wanted} alone, fallback forbidden", [(provider, {})], strict),
        (f"{wanted} with an unknown option", [(provider, {"tempo": "presto"}), (CPU, {})], {}),
        (f"{wanted}, name misspelled", [(misspelled, {}), (CPU, {})], {}),
        (f"{wanted}, name misspelled, fallback forbidden", [(misspelled, {})], strict),
        (f"{_short(missing)}, which this package lacks", [(missing, {}), (CPU, {})], {}),
        (f"{_short(missing)}, which this package lacks, fallback forbidden", [(missing, {})], strict),
    ]
    if provider == "OpenVINOExecutionProvider":
        found.insert(5, ("OpenVINO for a GPU that is not there", [(provider, {"device_type": "GPU"}), (CPU, {})], {}))
    if "AzureExecutionProvider" in available:
        found.append(("Azure, which knows none of these operators", [("AzureExecutionProvider", {}), (CPU, {})], {}))
    kept: dict[str, dict[str, Any]] = {}  # for the CPU provider some of them are the same
    for title, providers, config in found:
        once = [list(p) for i, p in enumerate(providers) if p[0] not in [name for name, _ in providers[:i]]]
        kept.setdefault(repr((once, config)), {"title": title, "providers": once, "config": config})
    return list(kept.values())


def _short(provider: str) -> str:
    return provider.removesuffix("ExecutionProvider")


def place(
    model: onnx.ModelProto, feed: Mapping[str, np.ndarray], providers: Sequence[Any], config: Mapping[str, str]
) -> dict[str, Any]:
    """Create a session as asked, run it once, and tell what happened.

    said: lines that were printed, logged or warned. error: what creating the session raised, or None.
    registered: `get_providers()`. recorded: ONNX Runtime's own record of the placement, or None where it has none.
    ran: the nodes that the profile saw, in their order; a subgraph that a provider compiled counts as one.
    """
    options = ort.SessionOptions()
    for key, value in {RECORD: "1", **config}.items():
        options.add_session_config_entry(key, value)
    options.enable_profiling = True
    session, error, ran = None, None, []
    said: list[str] = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        options.profile_file_prefix = str(Path(folder, "profile"))
        with overheard(said):
            try:
                session = ort.InferenceSession(
                    model.SerializeToString(), options, providers=[(name, dict(o)) for name, o in providers]
                )
                session.run(None, dict(feed))
            except Exception as problem:  # ONNX Runtime's own classes derive from Exception alone
                error = " ".join(_clean(str(problem)))
        if session is not None:
            ran = _nodes_in(Path(session.end_profiling()))
    record = getattr(session, "get_provider_graph_assignment_info", None)
    return {
        "said": said,
        "error": error,
        "registered": session.get_providers() if session else [],
        "recorded": [[g.ep_name, [n.name for n in g.get_nodes()]] for g in record()] if record else None,
        "ran": ran,
    }


def _nodes_in(profile: Path) -> list[list[str]]:
    """[provider, operator or subgraph] of each node that ran."""
    events = json.loads(profile.read_text(encoding="utf-8"))
    kernels = [e for e in events if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")]
    return [[e["args"]["provider"], re.sub(r"^.*subgraph.*$", "subgraph", e["args"]["op_name"])] for e in kernels]


@contextlib.contextmanager
def overheard(said: list[str]) -> Iterator[None]:
    """Collect what is printed by Python and by C++ (file descriptor 2), and Python's warnings, as clean lines in `said`.

    First used in lesson 05.
    """
    printed = io.StringIO()
    with tempfile.TemporaryFile() as native, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        sys.stderr.flush()
        before = os.dup(2)
        os.dup2(native.fileno(), 2)
        try:
            with contextlib.redirect_stdout(printed):
                yield
        finally:
            os.dup2(before, 2)
            os.close(before)
            native.seek(0)
            logged = native.read().decode(errors="replace")
            said += [line for w in warned for line in _clean(str(w.message))]
            said += [line for text in (printed.getvalue(), logged) for line in _clean(text)]


def _clean(text: str) -> list[str]:
    """Lines without colours, times, rows of stars, source files and addresses."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    text = re.sub(r"^\d{4}-\d\d-\d\d \S+ \[(\w):[^\]]*\] ?", "", text, flags=re.MULTILINE)
    text = re.sub(r"\S*/\S+\.(cc|h|py):\d+ [^\n]*?\) ?", "", text)
    text = re.sub(r"\S*/\S+\.(cc|h|py):\d+ [^\n]*?(?=\[ERROR\])", "", text)
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r" Please refer http\S+ to ensure", " Ensure that", text)
    lines = (line.strip(" *\t") for line in text.splitlines())
    return [line for line in lines if line and line != "EP Error"]


def placements(provider: str) -> list[dict[str, Any]]:
    """Every request for every model, with what came of it."""
    found = []
    for name, (build, shape) in PLACED.items():
        model, feed = build(), {"x": np.random.default_rng(1).normal(size=shape).astype(np.float32)}
        found += [
            {"model": name, **request, **place(model, feed, request["providers"], request["config"])}
            for request in requests(provider)
        ]
    return found


# How long it takes


def latencies(provider: str, rounds: int, seconds: float, threads: int) -> list[dict[str, Any]]:
    """Times of creating a session and of a run, the CPU provider and `provider` in turns.

    The fastest of all rounds counts, because other programs can only make a round slower; the median stands beside it.
    ratio: time of the CPU provider with as many threads ÷ this time. difference: largest one from the CPU's output.
    """
    rows = []
    for name, (build, shape, batches) in TIMED.items():
        model = build().SerializeToString()
        for batch in batches:
            x = np.random.default_rng(1).normal(size=(batch, *shape)).astype(np.float32)
            rows += [
                {"model": name, "batch": batch, "threads": threads, **row}
                for row in _race(model, {"image": x}, provider, threads, rounds, seconds)
            ]
    return rows


def _race(
    model: bytes, feed: Mapping[str, np.ndarray], provider: str, threads: int, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    names = list(dict.fromkeys([CPU, provider]))
    creation: dict[str, list[float]] = {name: [] for name in names}
    sessions = {}
    for _ in range(7):
        for name in names:
            start = time.perf_counter()
            sessions[name] = _session(model, name, threads)
            creation[name].append(time.perf_counter() - start)
    outputs = {name: session.run(None, feed)[0] for name, session in sessions.items()}  # warms up, too
    runs: dict[str, list[float]] = {name: [] for name in names}
    deadline = time.perf_counter() + seconds
    for turn in range(rounds):
        if turn >= 5 and time.perf_counter() > deadline:
            break
        for name in names if turn % 2 else names[::-1]:
            start = time.perf_counter()
            sessions[name].run(None, feed)
            runs[name].append(time.perf_counter() - start)
    best = {name: min(values) for name, values in runs.items()}
    return [
        {
            "provider": name,
            "create_ms": round(1e3 * min(creation[name]), 3),
            "run_ms": round(1e3 * best[name], 4),
            "run_median_ms": round(1e3 * float(np.median(runs[name])), 4),
            "creation_to_run": round(min(creation[name]) / best[name], 2),
            "ratio": round(best[CPU] / best[name], 3),
            "rounds": len(runs[name]),
            "difference": float(np.abs(outputs[name] - outputs[CPU]).max()),
        }
        for name in names
    ]


def _session(model: bytes, provider: str, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    own = {"num_of_threads": str(threads)} if provider == "OpenVINOExecutionProvider" else {}
    if provider != CPU:
        options.add_session_config_entry(STRICT, "1")  # a time of the wrong provider is worse than none
    return ort.InferenceSession(model, options, providers=[(provider, own)])


# The record


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """The brand of the processor, as the system tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    return platform.processor() or platform.machine() or "unknown"


def runtime_package() -> str:
    """The installed package that brings `onnxruntime`, with its version, such as "onnxruntime-openvino 1.24.1"."""
    for name in metadata.packages_distributions().get("onnxruntime", []):
        return f"{name} {metadata.version(name)}"
    return f"onnxruntime {ort.__version__}"


def _processor_seconds() -> tuple[float, float] | None:
    """Seconds that all programs together, and this one, have used the processors; None where Linux does not tell."""
    try:
        user, nice, system, _, _, interrupts, soft, *_ = map(
            float, Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:]
        )
    except (OSError, ValueError):
        return None
    own = os.times()
    return (user + nice + system + interrupts + soft) / os.sysconf("SC_CLK_TCK"), own.user + own.system


def record(provider: str, rounds: int, seconds: float, threads: int) -> dict[str, Any]:
    """The whole experiment.

    timed: the day on which times were taken, or None. others: processors that other programs kept busy meanwhile, on
    average.
    """
    placed = placements(provider)
    before, start = _processor_seconds(), time.perf_counter()
    times = latencies(provider, rounds, seconds, threads) if rounds else []
    after, passed = _processor_seconds(), time.perf_counter() - start
    others = None
    if times and before and after:
        others = round(max(0.0, (after[0] - before[0]) - (after[1] - before[1])) / passed, 2)
    return {
        "format": FORMAT,
        "provider": provider,
        "date": date.today().isoformat(),
        "machine": {"processor": processor(), "cores": cores()},
        "versions": {
            "python": platform.python_version(),
            "package": runtime_package(),
            "onnxruntime": ort.__version__,
            "onnx": onnx.__version__,
            "numpy": np.__version__,
        },
        "available": ort.get_available_providers(),
        "models": {name: [[n.name, n.op_type] for n in build().graph.node] for name, (build, _) in PLACED.items()},
        "placements": placed,
        "timed": date.today().isoformat() if times else None,
        "others": others,
        "latencies": times,
    }


def as_text(found: Mapping[str, Any]) -> str:
    """JSON with one line per entry of a list, so that two records can be compared by eye."""
    parts = []
    for key, value in found.items():
        text = json.dumps(value, ensure_ascii=False)
        if key in ("placements", "latencies") and value:
            text = "[\n" + ",\n".join("  " + json.dumps(entry, ensure_ascii=False) for entry in value) + "\n ]"
        parts.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--provider", default=CPU, help=f"the provider to look at (default: {CPU})")
    parse.add_argument("--rounds", type=int, default=100, help="runs per time (default: 100); 0 leaves times out")
    parse.add_argument("--threads", type=int, default=1, help="threads of each session (default: 1)")
    parse.add_argument("--seconds", type=float, default=15.0, help="no new round of one time after this (default: 15)")
    parse.add_argument("--out", type=Path, help="file to write (default: the standard output)")
    args = parse.parse_args()
    if args.provider not in ort.get_available_providers():
        parse.exit(
            2,
            f"{runtime_package()} has no {args.provider!r}; it has {', '.join(ort.get_available_providers())}. "
            f"Nothing was measured.\n",
        )
    text = as_text(record(args.provider, args.rounds, args.seconds, args.threads))
    if args.out is None:
        sys.stdout.buffer.write(text.encode())
        return
    args.out.parent.mkdir(parents=True, exist_ok=True)
    beside = args.out.with_suffix(".partial")
    beside.write_text(text, encoding="utf-8", newline="\n")
    os.replace(beside, args.out)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
