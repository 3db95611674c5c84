"""What a session says about itself: its log, and the records of the provider experiment."""

from __future__ import annotations

import difflib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CourseError
from ..onnx_files import Model
from ..paths import PACKAGE, data_path
from ..processes import ending, environment
from ..running import RefusedError, open_session, runtime_words
from .providers import asked_by_child, plugin_of

if TYPE_CHECKING:
    import onnxruntime as ort
    import pandas as pd

CPU = "CPUExecutionProvider"
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


def strict_session(model: Model, provider: str, options: Mapping[str, Any] | None = None) -> ort.InferenceSession:
    """A session in which every node runs on `provider`, or a CourseError that says why not. First used in lesson 05.

    options: of the provider. Refuses, with one sentence each: a provider that does not exist, one that the installed
    package lacks, an option that the provider does not know, and nodes that would fall back to the CPU.
    """
    import onnxruntime as ort

    known, available = ort.get_all_providers(), ort.get_available_providers()
    if provider not in available and provider in _registered():
        raise CourseError(
            f"{provider!r} is a plug-in that is registered in this process, and a plug-in is asked for by its devices, not by "
            f"its name: use SessionOptions.add_provider_for_devices with the entries of onnxruntime.get_ep_devices()."
        )
    if provider not in known:
        lower = {name.lower(): name for name in known}
        near = difflib.get_close_matches(str(provider).lower(), lower, n=1, cutoff=0.7)
        guess = f" Did you mean {lower[near[0]]!r}?" if near else ""
        raise CourseError(
            f"There is no execution provider {provider!r}.{guess} These are available: {_list(available)}."
        )
    if provider not in available:
        raise CourseError(
            f"{provider!r} exists, but the installed package of ONNX Runtime lacks it: it has {_list(available)}. "
            f"Install the package that brings it into an environment of its own."
        )
    if options and provider == CPU:  # it would ignore them without a word
        raise CourseError(f"{CPU!r} knows no options, and it was given {_list(options)}: set them in SessionOptions.")
    strict = ort.SessionOptions()
    strict.log_severity_level = 4
    if provider != CPU:
        strict.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    asked = [(provider, {key: str(value) for key, value in (options or {}).items()})]
    try:
        return open_session(model, strict, asked, enable_fallback=0)
    except RefusedError as error:
        words = error.words
    if "explicitly disabled" in words:
        words = "nodes would run on the CPU, because the provider does not take them or its device is not there."
    raise CourseError(f"No session on {provider!r} alone: {words.rstrip('.')}.")


def _registered() -> set[str]:
    """The providers that have a device in this process; plug-ins are among them once their library is registered."""
    import onnxruntime as ort

    devices = getattr(ort, "get_ep_devices", None)
    return {device.ep_name for device in devices()} if devices else set()


def _list(names: Iterable[str]) -> str:
    return ", ".join(map(str, names))


# The provider experiment


def run_ep_experiment(provider: str = CPU, *, rounds: int = 0) -> dict[str, Any]:
    """Run the provider experiment in a process of its own and return its record. First used in lesson 05.

    provider: one that is built into this package of ONNX Runtime, or that of an installed plug-in. rounds: runs per time;
    with 0, only placement is looked at. Raises CourseError with one sentence when it cannot be done.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        out = Path(folder, "record.json")  # plug-ins print, so the record does not come by the standard output
        plugin = plugin_of(provider)
        asked, variables = asked_by_child(plugin) if plugin else (["--provider", provider], {})
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
            found[file.stem] = record = json.loads(file.read_text(encoding="utf-8"))
            if record["format"] != 2 or not record["placements"]:
                raise ValueError("another format")
        except (ValueError, KeyError, TypeError) as error:
            raise CourseError(f"The record {file.name!r} is damaged ({error}): run the experiment again.") from None
    return found


def ep_record(name: str) -> dict[str, Any] | None:
    """One of `ep_records()`; None where nobody has recorded it. First used in lesson 05."""
    return ep_records().get(name)
