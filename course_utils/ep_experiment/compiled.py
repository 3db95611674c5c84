"""A file with an EPContext: the graph as a provider has compiled it, inside the file or beside it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from .models import fixed, int8
from .placement import largest_difference, overheard, without_folders
from .plugin import CPU, PluginLibrary, devices_of

MODELS: dict[str, Callable[[], onnx.ModelProto]] = {"fixed": fixed, "int8": int8}
_TIMES = 7
SECONDS = 180.0  # for one model: a compiler that hangs gets a sentence, too


def compiled(library: PluginLibrary) -> list[dict[str, Any]]:
    """What `compile_model` finds for each model, in processes of their own: a plug-in that cannot compile may end its process."""
    return [{"model": name, **_in_a_child(name, library)} for name in MODELS]


def _in_a_child(name: str, library: PluginLibrary) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        out = Path(folder, "found.json")
        options = [f"--option={key}={value}" for key, value in library.options.items()]
        command = [sys.executable, str(Path(__file__).parent), "--plugin", library.module, *options]
        command += ["--compile", name, "--out", str(out)]
        try:
            child = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return {"error": f"it did not compile within {SECONDS:g} s"}
        if not child.returncode:
            return json.loads(out.read_text(encoding="utf-8"))
    how = f"signal {-child.returncode}" if child.returncode < 0 else f"exit status {child.returncode}"
    return {"error": f"the process ended with {how} while it compiled"}


def compile_model(model: onnx.ModelProto, library: PluginLibrary) -> dict[str, Any]:
    """Bytes of the files, and how much longer it takes to create a session without the compiled graph.

    creation: median time of creating a session from the plain file ÷ from the compiled one, with the context inside the
    file and outside. difference: largest one between the outputs of both. on_cpu: what the CPU provider says to the file.
    error: why the provider cannot compile, or None.
    """
    found: dict[str, Any] = {"error": None, "plain_bytes": model.ByteSize()}
    said: list[str] = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, overheard(said):
        plain = Path(folder, "plain.onnx")
        onnx.save(model, plain)
        for place, inside in (("inside", True), ("outside", False)):
            target = Path(folder, place, "model.onnx")
            target.parent.mkdir()
            try:
                ort.ModelCompiler(_options(library), plain, embed_compiled_data_into_model=inside).compile_to_file(
                    target
                )
            except Exception as problem:
                return {**found, "error": without_folders(str(problem).split(" : ")[-1])[:300]}
            if not any(node.op_type == "EPContext" for node in onnx.load(target, load_external_data=False).graph.node):
                return {**found, "error": "the compiler left the graph as it was"}
            found[place] = {
                "files": [f.stat().st_size for f in sorted(target.parent.iterdir(), key=lambda f: f != target)],
                **_compared(plain, target, library),
            }
        try:
            ort.InferenceSession(Path(folder, "inside", "model.onnx"), providers=[CPU])
        except Exception as problem:
            found["on_cpu"] = without_folders(str(problem).split(" : ")[-1].split(" EPContext node name")[0])
    return found


def _compared(plain: Path, target: Path, library: PluginLibrary) -> dict[str, float | None]:
    spent: dict[Path, list[float]] = {plain: [], target: []}
    outputs = {}
    for _ in range(_TIMES):
        for file, times in spent.items():
            start = time.perf_counter()
            session = ort.InferenceSession(file, _options(library))
            times.append(time.perf_counter() - start)
            (x,) = session.get_inputs()
            outputs[file] = session.run(
                None, {x.name: np.linspace(-1, 1, 2 * 3 * 256, dtype=np.float32).reshape(2, 3, 16, 16)}
            )[0]
    return {
        "creation": round(float(np.median(spent[plain]) / np.median(spent[target])), 2),
        "difference": largest_difference(outputs[plain], outputs[target]),
    }


def _options(library: PluginLibrary) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_provider_for_devices(devices_of(library.provider), library.options)
    return options
