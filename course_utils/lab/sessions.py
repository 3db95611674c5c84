"""What a session says about itself: its log, and the records of the provider experiment."""

from __future__ import annotations

import difflib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from ..errors import CourseError
from ..onnx_files import Model, as_model, is_compiled
from ..paths import PACKAGE, data_path, inside, is_file
from ..processes import ending, environment
from ..running import RefusedError, open_session, runtime_words
from ..words import listed, plain
from .providers import CPU, PLUGINS, asked_by_child, must_work, plugin_of

if TYPE_CHECKING:
    import onnxruntime as ort
    import pandas as pd

EXPERIMENT = PACKAGE / "ep_experiment"
# Creates the session several times: the first one also pays for things that a process needs once.
_VERBOSE = """
import sys
import onnxruntime as ort
options = ort.SessionOptions()
options.log_severity_level = 0
for _ in range(int(sys.argv[2])):
    ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
"""
_LINE = re.compile(r"(\d\d):(\d\d):(\d\d\.\d+) \[[A-Z]:[^\],]*, (\S+):\d+ ([^\]]+)\] (.*)")


def session_log(model: str | os.PathLike[str], times: int = 5) -> pd.DataFrame:
    """ONNX Runtime's verbose log of creating a session, as a table: one row per line. First used in lesson 05.

    model: path of an ONNX file. times: sessions that are created, one after the other; column `creation` counts them.
    Columns: creation, ms (milliseconds since the first line of this creation), place (the function that wrote the
    line), message. It happens in a process of its own: the log goes to the standard error, past Python.
    Raises CourseError when the file is not there or the session cannot be created.
    """
    import pandas as pd

    if not Path(model).is_file():
        raise CourseError(f"There is no file {str(model)!r}: give the path of an ONNX model.")
    if times < 1:
        raise CourseError(f"session_log() was given times={times}: it needs at least 1.")
    child = subprocess.run(
        [sys.executable, "-c", _VERBOSE, os.fspath(model), str(times)],
        capture_output=True,
        text=True,
        errors="replace",
        env=environment(),
        timeout=300,
        check=False,
    )
    if child.returncode:
        last = (child.stderr.strip().splitlines() or ["no message"])[-1]
        words = runtime_words(re.sub(r"^[\w.]+: ", "", last))  # the class of the error tells nothing
        raise CourseError(f"No session could be created from {Path(model).name!r}: {words}")
    rows, creation, start = [], 0, 0.0
    for line in re.sub(r"\x1b\[[0-9;]*m", "", child.stderr).splitlines():
        found = _LINE.search(line)
        if not found:
            continue
        hours, minutes, seconds, _, place, message = found.groups()
        now = 1e3 * (3600 * int(hours) + 60 * int(minutes) + float(seconds))
        if message.startswith("Session Options"):
            creation, start = creation + 1, now
        if creation:
            rows.append((creation, now - start, place, message))
    return pd.DataFrame(rows, columns=["creation", "ms", "place", "message"])


def strict_session(
    model: Model, provider: str | Sequence[ort.OrtEpDevice], options: Mapping[str, Any] | None = None
) -> ort.InferenceSession:
    """A session in which every node runs on one provider, or a CourseError that says why not. First used in lesson 05.

    provider: its name; for a plug-in its devices, as `cu.provider_devices` returns them. options: of the provider.
    Refuses, with one sentence each: a provider that does not exist, one that the installed package lacks, a plug-in that is not
    installed, not registered, without a device here, or asked for by its name; an option that the CPU provider does not know;
    a provider that fails; a file that was compiled for another one; and nodes that would fall back to the CPU.
    """
    import onnxruntime as ort

    if options is not None and not isinstance(options, Mapping):
        raise CourseError(
            f"strict_session() was given options of type {type(options).__name__}: it expects a dict, such as {{'device_id': 0}}."
        )
    strict = ort.SessionOptions()
    strict.log_severity_level = 4
    said = {key: str(value) for key, value in (options or {}).items()}
    if isinstance(provider, str):
        _must_be_there(provider)
        name, asked = provider, [(provider, said)]
    else:
        name, asked = _one_provider(provider), []
    _check_options(name, said)
    if name != CPU:
        strict.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if not isinstance(provider, str):
        # Before the plug-in sees it: QNN ends the process over a long name.
        code = "" if name == CPU else _missing_code(model, _compiled(model))
        if code:
            raise CourseError(f"No session on {name!r} alone: {code}.")
        strict.add_provider_for_devices(provider, said)
    try:
        return open_session(model, strict, asked, enable_fallback=0)  # else Python tries once more, on the CPU
    except RefusedError as error:
        words = error.words
    if "epcontext" in words.lower():
        words = _bound(model, name) or words
    elif "explicitly disabled" in words and isinstance(provider, str):
        words = "nodes would run on the CPU, because the provider does not take them or its device is not there."
    elif "explicitly disabled" in words:
        words = _share(model, name, provider, said)
    raise CourseError(f"No session on {name!r} alone: {words.rstrip('.')}.")


def _check_options(name: str, said: Mapping[str, str]) -> None:
    """Raise CourseError for options that a provider would pass over without a word."""
    if said and name == CPU:
        raise CourseError(f"{CPU!r} knows no options, and it was given {_list(said)}: set them in SessionOptions.")
    library = said.get("backend_path", "")
    if os.path.dirname(library) and not os.path.isfile(library):  # QNN would leave every node to the CPU
        raise CourseError(
            f"The option 'backend_path' names {library!r}, and there is no such file: give the library's path."
        )


def _bound(model: Model, name: str) -> str:
    """Why compiled code does not run on a provider, in words; empty where nothing is seen."""
    told = _compiled(model)
    makers = sorted({_text(attributes.get("source")) for attributes in told} - {""})
    if makers and name not in makers:
        return f"the file is code that was compiled for {listed(makers)}, and no other provider can run it"
    return _missing_code(model, told)


def _compiled(model: Model) -> list[dict[str, Any]]:
    """The attributes of each node that is compiled code."""
    nodes = [node for node in as_model(model, external_data=False).graph.node if is_compiled(node)]
    return [{a.name: a.s if a.type == onnx.AttributeProto.STRING else a.i for a in node.attribute} for node in nodes]


def _missing_code(model: Model, told: list[dict[str, Any]]) -> str:
    """Which file of compiled code is not beside the model, in words; empty where nothing is seen."""
    beside = [t for t in told if t.get("embed_mode") == 0 and t.get("main_context", 1) != 0]
    files = list(filter(None, (_text(t.get("ep_cache_context")) for t in beside)))
    path = Path(model) if isinstance(model, str | os.PathLike) else None
    for file in files:
        if path is None:
            return f"its compiled code lies in the file {plain(file)!r}, so give the model's path in place of its bytes"
        if inside(path, file) and not is_file(path.parent / file):
            return f"its compiled code lies in the file {plain(file)!r}, which is not beside it: copy it there"
    return ""


def _text(value: bytes | int | None) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else ""


def _must_be_there(provider: str) -> None:
    """Raise CourseError where asking for a provider by its name cannot give one that runs."""
    import onnxruntime as ort

    known, available = ort.get_all_providers(), ort.get_available_providers()
    plugin = plugin_of(provider)
    how = f"cu.provider_devices({plugin.name!r})" if plugin else "entries of onnxruntime.get_ep_devices()"
    if provider in {device.ep_name for device in ort.get_ep_devices() if "library_path" in device.ep_metadata}:
        raise CourseError(
            f"{provider!r} is a plug-in that is registered in this process, and by its name a plug-in runs nothing, without a "
            f"word: give its devices in place of the name, {how}."
        )
    if plugin and provider not in available:
        must_work(plugin)
        raise CourseError(
            f"{provider!r} is the plug-in {plugin.package!r}, installed but not registered in this process: give its devices "
            f"in place of the name, {how}, which registers it."
        )
    if provider not in known:
        lower = {name.lower(): name for name in known}
        near = difflib.get_close_matches(provider.lower(), lower, n=1, cutoff=0.7)
        short = next((p for p in PLUGINS if p.name.lower() == provider.lower()), None)
        guess = f" Did you mean {lower[near[0]]!r}?" if near else ""
        guess = f" Did you mean the devices cu.provider_devices({short.name!r})?" if short else guess
        raise CourseError(
            f"There is no execution provider {provider!r}.{guess} These are available: {_list(available)}."
        )
    if provider not in available:
        raise CourseError(
            f"{provider!r} exists, but the installed package of ONNX Runtime lacks it: it has {_list(available)}. "
            f"Install the package that brings it into an environment of its own."
        )


def _one_provider(devices: Sequence[ort.OrtEpDevice]) -> str:
    """The provider of devices. Raises CourseError for what are none, for devices of several, and for one that is gone."""
    import onnxruntime as ort

    there = ort.get_ep_devices()
    if not isinstance(devices, Sequence) or not devices or not all(isinstance(d, ort.OrtEpDevice) for d in devices):
        given = (
            "an empty list"
            if isinstance(devices, Sequence) and not devices
            else f"a value of type {type(devices).__name__}"
        )
        raise CourseError(
            f"strict_session() was given {given}: it expects a provider's name, or a list of devices as "
            f"cu.provider_devices() returns them."
        )
    # ONNX Runtime hands out the same objects each time. One that is gone points to freed memory: nothing of it may be read.
    if any(all(device is not one for one in there) for device in devices):
        raise CourseError(
            "A device of this list is gone, for its plug-in was unregistered in this process: ask cu.provider_devices() for new ones."
        )
    names = sorted({device.ep_name for device in devices})
    if len(names) > 1:
        raise CourseError(f"These devices belong to {_list(names)}: give the devices of one provider.")
    return names[0]


def _share(model: Model, name: str, devices: Sequence[ort.OrtEpDevice], said: Mapping[str, str]) -> str:
    """Which nodes a provider does not take, in words: from a session in which they may run on the CPU."""
    import onnxruntime as ort

    lax = ort.SessionOptions()
    lax.log_severity_level = 4
    lax.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    lax.add_provider_for_devices(devices, said)
    session = open_session(model, lax, [], enable_fallback=0)
    placed = [
        (part.ep_name, node) for part in session.get_provider_graph_assignment_info() for node in part.get_nodes()
    ]
    left = Counter(node.op_type for provider, node in placed if provider != name)
    first = _list(f"{count} {op}" for op, count in left.most_common(5)) + (", …" if len(left) > 5 else "")
    free = [i.name for i in session.get_inputs() if not all(isinstance(size, int) for size in i.shape)]
    taken = len(placed) - left.total()
    words = f"it takes {taken or 'none'} of {len(placed)} nodes, and the CPU would run {first}"
    plugin = plugin_of(name)
    if not taken and free and plugin and plugin.fixed_shapes:
        words += f"; it needs fixed shapes, and a size of the input {free[0]!r} is free"
    return words


def _list(names: Iterable[str]) -> str:
    return ", ".join(map(str, names))


# The provider experiment


def run_ep_experiment(provider: str = CPU, *, rounds: int = 0) -> dict[str, Any]:
    """Run the provider experiment in a process of its own and return its record. First used in lesson 05.

    provider: one that is built into this package of ONNX Runtime, or that of an installed plug-in. rounds: runs per time;
    with 0, only placement is looked at. Raises CourseError with one sentence when it cannot be done.
    """
    if not isinstance(provider, str) or not provider.isprintable():
        raise CourseError(
            f"run_ep_experiment() was given the provider {provider!r}: it expects a name, such as {CPU!r}."
        )
    if not isinstance(rounds, int) or rounds < 0:
        raise CourseError(f"run_ep_experiment() was given rounds={rounds!r}: it expects a whole number, at least 0.")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        out = Path(folder, "record.json")  # plug-ins print, so the record does not come by the standard output
        plugin = plugin_of(provider)
        asked, variables = asked_by_child(plugin) if plugin else ([f"--provider={provider}"], {})
        command = [sys.executable, str(EXPERIMENT), *asked, "--rounds", str(rounds), "--out", str(out)]
        env = {**os.environ, "PYTHONUTF8": "1", **variables}
        try:
            child = subprocess.run(command, capture_output=True, env=env, timeout=600, check=False)
        except subprocess.TimeoutExpired:
            raise CourseError("The experiment did not end within ten minutes.") from None
        if child.returncode:
            last = (child.stderr.decode(errors="replace").strip().splitlines() or [ending(child.returncode)])[-1]
            raise CourseError(f"The experiment did not run: {last}")
        return json.loads(out.read_text(encoding="utf-8"))


def ep_records() -> dict[str, dict[str, Any]]:
    """All recorded runs of the provider experiment, by the name of their file in `data/ep_records`. First used in lesson 05.

    Raises CourseError when a file is damaged.
    """
    found = {}
    for file in sorted(data_path("ep_records").glob("*.json")):
        if file.name == "schema.json":
            continue
        try:
            found[file.stem] = record = json.loads(file.read_text(encoding="utf-8"), parse_constant=_no_number)
            if record["format"] != 2 or not record["placements"]:
                raise ValueError("another format")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            why = f"{error} is missing" if isinstance(error, KeyError) else getattr(error, "strerror", None) or error
            raise CourseError(f"The record {file.name!r} is damaged ({why}): run the experiment again.") from None
    return found


def _no_number(word: str) -> None:
    raise ValueError(f"it holds {word}, which JSON does not have")


def ep_record(name: str) -> dict[str, Any] | None:
    """One of `ep_records()`; None where nobody has recorded it. First used in lesson 05."""
    return ep_records().get(str(name))
