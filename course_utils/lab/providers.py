"""Execution providers that are plug-ins: which there are, which work on this machine, and their devices.

    python -m course_utils.lab.providers PLUGIN WAY      tries one; started by this module in a process of its own

A plug-in and the driver below it are native code, and either may end the process. So each is tried first in a process of its
own, with a small model and a time limit; only what worked there is registered here.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import CourseError, missing
from ..processes import ending, environment
from .drivers import Way, driver, in_software, ways

if TYPE_CHECKING:
    import onnxruntime as ort
    import pandas as pd

CPU = "CPUExecutionProvider"
_REGISTERING = threading.RLock()
SECONDS = 60.0  # for trying one: it takes about one, and a driver that waits would wait for ever


@dataclass(frozen=True)
class Plugin:
    """What is known about a plug-in without running it. megabytes: of the download, for Linux on x86-64."""

    name: str
    provider: str
    package: str
    extra: str
    megabytes: int
    licence: str
    needs: str
    fixed_shapes: bool = False

    @property
    def module(self) -> str:
        return self.package.replace("-", "_")

    @property
    def version(self) -> str:
        """The installed version; empty where the package is not installed."""
        if importlib.util.find_spec(self.module) is None:
            return ""
        try:
            return importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:  # a copy of the folder, without its metadata
            return "unknown"

    @property
    def options(self) -> dict[str, str]:
        """What it must be told to work on an ordinary machine."""
        return {"backend_path": self.said("get_qnn_htp_path")} if self.name == "QNN" else {}

    def said(self, function: str) -> str:
        """What a function of the package returns: a path. Raises CourseError where the package is damaged."""
        try:
            return str(getattr(importlib.import_module(self.module), function)())
        except Exception as error:  # whatever is wrong in a package of somebody else
            raise CourseError(
                f"The package {self.package!r} is installed but damaged ({type(error).__name__} in {function}()): install it anew."
            ) from None


PLUGINS = (
    Plugin(
        *("WebGPU", "WebGpuExecutionProvider", "onnxruntime-ep-webgpu", "providers", 7, "MIT"),
        "a graphics card with its driver, or a Vulkan driver in software, as Chromium brings one",
    ),
    Plugin(
        *("QNN", "QNNExecutionProvider", "onnxruntime-qnn", "qnn", 99, "MIT, and Qualcomm's own for its libraries"),
        "fixed shapes; an NPU of Qualcomm, or on x86-64 nothing: it emulates one",
        fixed_shapes=True,
    ),
    Plugin(
        *("OpenVINO", "OpenVINOExecutionProvider", "onnxruntime-ep-openvino", "providers", 53, "MIT"),
        "a processor, graphics card or NPU of Intel",
    ),
)


# What students call


def provider_plugins() -> pd.DataFrame:
    """The plug-ins of chapter 05, one per row, and whether they work on this machine. First used in lesson 05.

    Columns: plug-in, provider, package, version (empty where it is not installed), MB (of the download), licence, needs, devices
    (what it offers here), here ("works", or one sentence that says why not). Each is tried in a process of its own, about a
    second; nothing is registered in this one.
    """
    import pandas as pd

    rows = []
    for plugin in PLUGINS:
        devices, here = "", "works"
        try:
            devices = ", ".join(_working(plugin)[1])
        except CourseError as error:
            here = str(error)
        rows.append(
            {
                "plug-in": plugin.name, "provider": plugin.provider, "package": plugin.package, "version": plugin.version,
                "MB": plugin.megabytes, "licence": plugin.licence, "needs": plugin.needs, "devices": devices, "here": here,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def provider_devices(name: str) -> list[ort.OrtEpDevice]:
    """The devices of a plug-in, for `SessionOptions.add_provider_for_devices`. First used in lesson 05.

    name: "WebGPU", "QNN", "OpenVINO", or the provider's own name; "CPU" needs no plug-in. The library is registered once in
    this process, under the provider's name; a second call finds it registered. WebGPU is given a driver in software where there
    is no graphics card.
    Raises CourseError, in one sentence, where the package is not installed, its library cannot be loaded, it offers no device
    here, or a driver fails or ends the process that tried it.
    """
    import onnxruntime as ort

    if str(name).lower() in {"cpu", CPU.lower()}:
        return _devices(CPU)
    plugin = _plugin(name)
    with _REGISTERING:  # of two threads the second one would unregister the devices of the first
        there = _devices(plugin.provider)
        if there:
            return there
        way, _ = _working(plugin)
        way.prepare()
        try:
            _register(plugin)
        except Exception as error:  # its exception classes derive from Exception alone
            if "already registered" not in str(error):
                raise CourseError(f"The library of {plugin.package!r} cannot be registered: {_words(error)}.") from None
            # Under this name and without a device, so nothing can be using it: it read the environment too early.
            ort.unregister_execution_provider_library(plugin.provider)
            _register(plugin)
        return _devices(plugin.provider)


def second_provider() -> tuple[list[ort.OrtEpDevice], dict[str, str]]:
    """Devices and options of the first plug-in that works here: WebGPU, then QNN, then OpenVINO. First used in lesson 05.

    Prints one sentence that says which. Where none works it is the CPU provider's own device, so that cells run for everyone.
    """
    for plugin in PLUGINS:
        try:
            devices = provider_devices(plugin.name)
        except CourseError:
            continue
        by = f", by the driver {driver()}" if plugin.name == "WebGPU" and driver() else ""
        print(f"The second provider is {plugin.provider} ({plugin.package} {plugin.version}){by}.")
        return devices, plugin.options
    print(
        "No plug-in works on this machine, so the CPU provider stands in for a second one; cu.provider_plugins() says why."
    )
    return _devices(CPU), {}


def _plugin(name: str) -> Plugin:
    known = {key.lower(): plugin for plugin in PLUGINS for key in (plugin.name, plugin.provider, plugin.package)}
    if str(name).lower() in known:
        return known[str(name).lower()]
    near = difflib.get_close_matches(str(name).lower(), known, n=1, cutoff=0.6)
    guess = f" Did you mean {known[near[0]].name!r}?" if near else ""
    names = ", ".join(repr(plugin.name) for plugin in PLUGINS)
    raise CourseError(f"There is no plug-in {name!r} in this course.{guess} It has {names}, and 'CPU'.")


def plugin_of(provider: str) -> Plugin | None:
    """The plug-in that brings a provider; None for one that this course has no plug-in of."""
    return next((plugin for plugin in PLUGINS if plugin.provider == provider), None)


def _devices(provider: str) -> list[ort.OrtEpDevice]:
    from ..ep_experiment.plugin import devices_of

    return devices_of(provider)


def _register(plugin: Plugin) -> None:
    import onnxruntime as ort

    from ..ep_experiment.placement import overheard

    with overheard([]):  # it warns that a device in software is taken, and that was asked for
        ort.register_execution_provider_library(plugin.provider, plugin.said("get_library_path"))


# Trying one, in a process of its own


def must_work(plugin: Plugin) -> None:
    """Raise CourseError, in one sentence, where a plug-in is not installed, or does not work on this machine."""
    _working(plugin)


def asked_by_child(plugin: Plugin) -> tuple[list[str], dict[str, str]]:
    """Arguments and variables with which `ep_experiment` tries a plug-in, in the way that works here, if any does.

    Raises CourseError where the package is not installed.
    """
    if not plugin.version:
        raise CourseError(missing(plugin.package, plugin.extra))
    way = Way()
    with contextlib.suppress(CourseError):  # one that offers no device can be looked at, too
        way, _ = _working(plugin)
    arguments = ["--plugin", plugin.module, *[f"--option={key}={value}" for key, value in plugin.options.items()]]
    stand_in = "Qualcomm's emulator of its NPU" if plugin.name == "QNN" else in_software(way)
    if stand_in:
        arguments += ["--emulated", f"{stand_in}, on the processor"]
    return arguments, way.environment()


def _working(plugin: Plugin) -> tuple[Way, list[str]]:
    """The first way in which a plug-in runs a small model here, and its devices. Raises CourseError with why none does."""
    if not plugin.version:
        raise CourseError(missing(plugin.package, plugin.extra))
    why = ""
    for way in ways() if plugin.name == "WebGPU" else [Way()]:
        devices, problem = _tried(plugin, way)
        if not problem:
            return way, devices
        if devices or not why:  # a driver that fails tells more than that there was no device without it
            why = problem
    raise CourseError(f"{plugin.name} ({plugin.package} {plugin.version}) cannot be used on this machine: {why}")


@functools.cache
def _tried(plugin: Plugin, way: Way) -> tuple[list[str], str]:
    """The devices that it offers, and why it does not work; empty where it does."""
    command = [sys.executable, "-m", __name__, plugin.name, json.dumps([way.variables, way.loader])]
    try:
        child = subprocess.run(command, capture_output=True, env=environment(), timeout=SECONDS, check=False)
        said, errors, end = child.stdout, child.stderr, ending(child.returncode)
    except subprocess.TimeoutExpired as late:
        said, errors, end = late.stdout or b"", late.stderr or b"", ""
    facts: dict[str, Any] = {}
    for line in said.decode(errors="replace").splitlines():
        facts |= json.loads(line)
    return facts.get("devices", []), _problem(plugin, way, facts, end, errors.decode(errors="replace"))


def _problem(plugin: Plugin, way: Way, facts: dict[str, Any], end: str, errors: str) -> str:
    if "largest" in facts:
        right = facts["largest"] < 1e-2
        return "" if right else f"its results are wrong, by {facts['largest']:.3g} in a small model."
    named = driver(dict(way.variables)) if "devices" in facts else ""  # before that, no driver is loaded
    by = f"the Vulkan driver {named!r}" if named else "its driver" if "devices" in facts else "its library"
    if facts.get("devices") == []:
        return f"it registers and offers no device; it needs {plugin.needs}."
    if "error" not in facts:  # it ended in native code
        cure = "name another one in VK_ICD_FILENAMES." if named else "install it anew, or leave it out."
        what = f"ended the process that tried it ({end})" if end else f"gave no answer within {SECONDS:g} s"
        return f"{by} {what}: {cure}"
    if "devices" not in facts:
        return f"its library cannot be registered ({facts['error']}): install {plugin.package!r} anew."
    # Of the Vulkan loader, and of Dawn, the layer above it.
    warned = re.findall(r"^Warning: (.+)", errors, flags=re.MULTILINE)
    reason = re.sub(r"(?:/\S*/)(?=\S)", "", warned[0] if warned else facts["error"])
    return f"no session can be created with {by} ({reason.rstrip('.')}): it needs {plugin.needs}."


_MODEL = """<ir_version: 8, opset_import: ["": 17]> probe (float[1, 2, 4, 4] x) => (float[1, 3] y) {
    c = Conv<kernel_shape = [3, 3]>(x, w)
    r = Relu(c)
    f = Flatten(r)
    y = MatMul(f, v) }"""


def _words(error: Exception) -> str:
    from ..running import runtime_words

    return runtime_words(error).rstrip(".")


def _try(plugin: Plugin, way: Way) -> Iterator[dict[str, Any]]:
    """Register, create a session, run it: what is known after each step, for the case that the next one ends the process."""
    import numpy as np
    import onnx
    import onnxruntime as ort

    way.prepare()
    _register(plugin)
    devices = _devices(plugin.provider)
    yield {"devices": [f"{d.device.type.name} ({d.device.vendor or 'no vendor'})" for d in devices]}
    if not devices:
        return
    model, draw = onnx.parser.parse_model(_MODEL), np.random.default_rng(0)
    for name, shape in {"w": (3, 2, 3, 3), "v": (12, 3)}.items():
        weight = draw.normal(0, 0.3, shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    options = ort.SessionOptions()
    options.add_provider_for_devices(devices, plugin.options)
    feed, data = {"x": draw.normal(size=(1, 2, 4, 4)).astype(np.float32)}, model.SerializeToString()
    session = ort.InferenceSession(data, options, enable_fallback=0)
    wanted = ort.InferenceSession(data, providers=[CPU]).run(None, feed)[0]
    yield {"largest": float(np.abs(session.run(None, feed)[0] - wanted).max())}


def main() -> None:
    """Answer with one line of JSON per step."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # native libraries print, and that must not get among the answers
    variables, loader = json.loads(sys.argv[2])
    try:
        for fact in _try(_plugin(sys.argv[1]), Way(tuple(map(tuple, variables)), loader)):
            print(json.dumps(fact), file=answers, flush=True)
    except Exception as error:  # ONNX Runtime's classes derive from Exception alone
        print(json.dumps({"error": _words(error)}), file=answers, flush=True)


if __name__ == "__main__":
    main()
