"""How long a provider takes, beside the CPU provider."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime as ort

from .models import TIMED
from .placement import STRICT, largest_difference, without_folders
from .plugin import CPU, PluginLibrary, devices_of


def latencies(
    provider: str, library: PluginLibrary | None, rounds: int, seconds: float, threads: int
) -> list[dict[str, Any]]:
    """Times of creating a session and of a run, the CPU provider and `provider` in turns.

    The fastest of all rounds counts, because other programs can only make a round slower; the median stands beside it.
    ratio: time of the CPU provider with as many threads ÷ this time. difference: largest one from the CPU's output.
    A model that does not run wholly on the provider is left out, and the standard error says why.
    """
    rows = []
    for name, (build, shape, batches) in TIMED.items():
        model = build().SerializeToString()
        for batch in batches:
            x = np.random.default_rng(1).normal(size=(batch, *shape)).astype(np.float32)
            try:
                raced = _race(model, {"image": x}, provider, library, threads, rounds, seconds)
            except Exception as problem:  # ONNX Runtime's own classes derive from Exception alone
                print(f"Not timed: {name}, batch {batch} ({without_folders(str(problem))}).", file=sys.stderr)
                continue
            rows += [{"model": name, "batch": batch, "threads": threads, **row} for row in raced]
    return rows


def _race(
    model: bytes,
    feed: Mapping[str, np.ndarray],
    provider: str,
    library: PluginLibrary | None,
    threads: int,
    rounds: int,
    seconds: float,
) -> list[dict[str, Any]]:
    names = list(dict.fromkeys([CPU, provider]))
    creation: dict[str, list[float]] = {name: [] for name in names}
    sessions = {}
    for _ in range(7):
        for name in names:
            start = time.perf_counter()
            sessions[name] = _session(model, name, threads, library)
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
            "difference": largest_difference(outputs[name], outputs[CPU]),
        }
        for name in names
    ]


def _session(model: bytes, provider: str, threads: int, library: PluginLibrary | None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    own = {"num_of_threads": str(threads)} if provider == "OpenVINOExecutionProvider" else {}
    if provider != CPU:
        options.add_session_config_entry(STRICT, "1")  # a time of the wrong provider is worse than none
    if library is None or provider == CPU:
        return ort.InferenceSession(model, options, providers=[(provider, own)])
    options.add_provider_for_devices(devices_of(provider), {**library.options, **own})
    return ort.InferenceSession(model, options)
