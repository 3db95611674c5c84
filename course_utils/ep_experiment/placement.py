"""What a session is asked for, what it says, and where each node goes and runs."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from .models import PLACED
from .plugin import CPU, PluginLibrary, devices_of

RECORD = "session.record_ep_graph_assignment_info"
STRICT = "session.disable_cpu_ep_fallback"
_ONE_AT_A_TIME = threading.RLock()  # the standard streams belong to the whole process
ONCE = "fixed"  # the model of requests whose answer depends on no model
POLICIES = ("PREFER_CPU", "PREFER_GPU", "PREFER_NPU")
Request = dict[str, Any]


def requests(provider: str) -> list[Request]:
    """What a provider that is built in is asked for by its name, right and wrong; some requests are about other providers."""
    available, wanted = ort.get_available_providers(), short(provider)
    misspelled = provider.replace("ExecutionProvider", "Executionprovider")
    missing = next(
        f"{n}ExecutionProvider" for n in ("CUDA", "Tensorrt", "QNN") if f"{n}ExecutionProvider" not in available
    )
    strict = {STRICT: "1"}
    found = [
        _request("CPU alone", [(CPU, {})]),
        _request(f"{wanted} first, then CPU", [(provider, {}), (CPU, {})]),
        _request(f"CPU first, then {wanted}", [(CPU, {}), (provider, {})]),
        _request(f"{wanted} alone", [(provider, {})]),
        _request(f"{wanted} alone, fallback forbidden", [(provider, {})], strict),
        _request(f"{wanted} with an unknown option", [(provider, {"tempo": "presto"}), (CPU, {})]),
        _request(f"{wanted}, name misspelled", [(misspelled, {}), (CPU, {})]),
        _request(f"{wanted}, name misspelled, fallback forbidden", [(misspelled, {})], strict),
        _request(f"{short(missing)}, which this package lacks", [(missing, {}), (CPU, {})]),
        _request(f"{short(missing)}, which this package lacks, fallback forbidden", [(missing, {})], strict),
    ]
    if "AzureExecutionProvider" in available:
        found.append(
            _request("Azure, which knows none of these operators", [("AzureExecutionProvider", {}), (CPU, {})])
        )
    kept: dict[str, Request] = {}  # for the CPU provider some of them are the same
    for one in found:
        names = [name for name, _ in one["providers"]]
        once = [list(p) for i, p in enumerate(one["providers"]) if p[0] not in names[:i]]
        kept.setdefault(repr((once, one["config"])), {**one, "providers": once})
    return list(kept.values())


def plugin_requests(library: PluginLibrary) -> list[Request]:
    """What a plug-in is asked for: by its devices, by its name, and by a policy, after its library was registered."""
    provider, own, wanted = library.provider, library.options, short(library.provider)
    by_name = [
        _request("CPU alone", [(CPU, {})], once=True),
        _request(f"{wanted} by name, then CPU", [(provider, own), (CPU, {})], once=True),
    ]
    if not devices_of(provider):
        return by_name
    odd = {**own, "tempo": "presto"}
    return [
        *by_name,
        _request(f"{wanted} by device", [(provider, own)], by="device"),
        _request(f"{wanted} by device, then the CPU's device", [(provider, own), (CPU, {})], by="device"),
        _request("the CPU's device first", [(CPU, {}), (provider, own)], by="device", once=True),
        _request(f"{wanted} by device, fallback forbidden", [(provider, own)], {STRICT: "1"}, by="device"),
        _request(f"{wanted} by device, an unknown option", [(provider, odd)], by="device", once=True),
        *[_request(f"policy {policy}", [], by=policy, once=True) for policy in POLICIES],
    ]


def unregistered_requests(library: PluginLibrary) -> list[Request]:
    """What is asked for before the library is registered: the package is installed, and the session does not know it."""
    title = f"{short(library.provider)} by name, library not registered"
    return [_request(title, [(library.provider, library.options), (CPU, {})], once=True)]


def _request(
    title: str,
    providers: list[tuple[str, dict[str, str]]],
    config: dict[str, str] | None = None,
    by: str = "name",
    once: bool = False,
) -> Request:
    """once: its answer does not depend on the model, so it is asked for with one of them."""
    return {"title": title, "by": by, "providers": [list(p) for p in providers], "config": config or {}, "once": once}


def short(provider: str) -> str:
    """A provider's name without the words that all of them end with."""
    return provider.removesuffix("ExecutionProvider")


def session_as_asked(model: bytes, request: Request, options: ort.SessionOptions) -> ort.InferenceSession:
    """A session with the providers of a request: by their names, by their devices, or by a policy."""
    for key, value in request["config"].items():
        options.add_session_config_entry(key, value)
    asked = [(name, dict(own)) for name, own in request["providers"]]
    if request["by"] == "name":
        return ort.InferenceSession(model, options, providers=asked)
    if request["by"] == "device":
        for name, own in asked:
            options.add_provider_for_devices(devices_of(name), own)
    else:
        policy = getattr(ort.OrtExecutionProviderDevicePolicy, request["by"])
        options.set_provider_selection_policy(policy)
    return ort.InferenceSession(model, options)


def place(model: onnx.ModelProto, feed: Mapping[str, np.ndarray], request: Request) -> dict[str, Any]:
    """Create a session as asked, run it once, and tell what happened.

    said: lines that were printed, logged or warned. error: what creating the session raised, or None.
    chosen: `get_providers()`. recorded: ONNX Runtime's own record of the placement, or None where it has none.
    ran: [provider, operator] of the nodes that the profile saw, in their order; a subgraph that a provider compiled
    counts as one, and the copies between devices are among them. difference: largest one from the CPU's output, or None
    where there is none, or an output holds no numbers that can be compared.
    """
    options = ort.SessionOptions()
    options.add_session_config_entry(RECORD, "1")
    options.enable_profiling = True
    session, error, outputs, ran = None, None, None, []
    said: list[str] = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        options.profile_file_prefix = str(Path(folder, "profile"))
        with overheard(said):
            try:
                session = session_as_asked(model.SerializeToString(), request, options)
                outputs = session.run(None, dict(feed))
            except Exception as problem:  # ONNX Runtime's own classes derive from Exception alone
                error = " ".join(_clean(str(problem)))
        if session is not None:
            ran = nodes_in(Path(session.end_profiling()))
    record = getattr(session, "get_provider_graph_assignment_info", None)
    return {
        "said": said,
        "error": error,
        "chosen": session.get_providers() if session else [],
        "recorded": [[g.ep_name, [n.name for n in g.get_nodes()]] for g in record()] if record else None,
        "ran": ran,
        "difference": None if outputs is None else _difference(outputs, model, feed),
    }


def _difference(outputs: list[np.ndarray], model: onnx.ModelProto, feed: Mapping[str, np.ndarray]) -> float | None:
    wanted = ort.InferenceSession(model.SerializeToString(), providers=[CPU]).run(None, dict(feed))
    found = [largest_difference(a, b) for a, b in zip(outputs, wanted, strict=True)]
    known = [value for value in found if value is not None]
    return max(known, default=0.0) if len(known) == len(found) else None


def largest_difference(a: Any, b: Any) -> float | None:
    """The largest one between two outputs; None for text and sequences, and where only one of both is NaN or infinite."""
    if not all(isinstance(x, np.ndarray) and x.dtype.kind in "biuf" for x in (a, b)):
        return None
    a, b = a.astype(np.float64), b.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    most = float(np.abs(a - b, where=~same, out=np.zeros(a.shape)).max(initial=0.0)) if not same.all() else 0.0
    return most if np.isfinite(most) else None  # JSON has no NaN


def nodes_in(profile: Path) -> list[list[str]]:
    """[provider, operator or subgraph] of each node that ran."""
    events = json.loads(profile.read_text(encoding="utf-8"))
    kernels = [e for e in events if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")]
    compiled = re.compile(r"^.*(subgraph|ExecutionProvider_\d).*$")  # each plug-in names its subgraphs in its own way
    return [[e["args"]["provider"], compiled.sub("subgraph", e["args"]["op_name"])] for e in kernels]


@contextlib.contextmanager
def overheard(said: list[str]) -> Iterator[None]:
    """Collect what is printed by Python and by C++ (file descriptor 2), and Python's warnings, as clean lines in `said`.

    First used in lesson 05.
    """
    printed = io.StringIO()
    with _ONE_AT_A_TIME, tempfile.TemporaryFile() as native, warnings.catch_warnings(record=True) as warned:
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
    text = without_folders(text)
    lines = (line.strip(" *\t") for line in text.splitlines())
    return [line for line in lines if line and line != "EP Error"]


def without_folders(text: str) -> str:
    """Text without the folders of its paths: they tell something about the machine."""
    text = re.sub(r"(?<![A-Za-z])[A-Za-z]:[\\/](?:[^\\/\n:\"'<>|]*[\\/])*", "", text)  # a name may hold spaces there
    return re.sub(r"(?<![\w.])/\S*/", "", text)


def placements(asked: list[Request]) -> list[dict[str, Any]]:
    """Every request for every model, with what came of it."""
    found = []
    for name, (build, shape) in PLACED.items():
        model, feed = build(), {"x": np.random.default_rng(1).normal(size=shape).astype(np.float32)}
        for request in asked:
            if request["once"] and name != ONCE:
                continue
            clean = [[p, {key: Path(value).name for key, value in own.items()}] for p, own in request["providers"]]
            asked_for = {key: value for key, value in request.items() if key != "once"}
            found.append({"model": name, **asked_for, "providers": clean, **place(model, feed, request)})
    return found
