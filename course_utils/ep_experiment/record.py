"""The whole experiment, as a record that is kept, and its command line."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from . import __doc__ as description
from .compiled import MODELS, compile_model, compiled
from .machine import cores, processor, processor_seconds, runtime_package
from .models import PLACED
from .placement import placements, plugin_requests, requests, unregistered_requests
from .plugin import CPU, PluginLibrary, described, plugin_library
from .timing import latencies

FORMAT = 2


def record(
    provider: str, library: PluginLibrary | None, emulated: str | None, rounds: int, seconds: float, threads: int
) -> dict[str, Any]:
    """What `data/ep_records/schema.json` describes.

    library: of a plug-in, or None for a provider that is built in. emulated: what stands in for the device, if anything
    does; then nothing is timed, because its speed says nothing about the device. rounds: runs per time, or 0.
    """
    if library is None:
        placed = placements(requests(provider))
    else:
        placed = placements(unregistered_requests(library))
        library.register()
        placed += placements(plugin_requests(library))
    devices = described(provider)
    before, start = processor_seconds(), time.perf_counter()
    timed = rounds and not emulated and (library is None or devices)
    times = latencies(provider, library, rounds, seconds, threads) if timed else []
    after, passed = processor_seconds(), time.perf_counter() - start
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
            "package": library.package if library else runtime_package(),
            "onnxruntime": ort.__version__,
            "onnx": onnx.__version__,
            "numpy": np.__version__,
        },
        "plugin": library is not None,
        "devices": devices,
        "emulated": emulated,
        "available": ort.get_available_providers(),
        "models": {name: [[n.name, n.op_type] for n in build().graph.node] for name, (build, _) in PLACED.items()},
        "placements": placed,
        "compiled": compiled(library) if library and devices else [],
        "timed": date.today().isoformat() if times else None,
        "others": others,
        "latencies": times,
    }


def as_text(found: Mapping[str, Any]) -> str:
    """JSON with one line per entry of a list, so that two records can be compared by eye."""
    parts = []
    for key, value in found.items():
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        if key in ("placements", "compiled", "latencies") and value:
            text = "[\n" + ",\n".join("  " + json.dumps(entry, ensure_ascii=False) for entry in value) + "\n ]"
        parts.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _at_least(least: int, kind: type) -> Callable[[str], Any]:
    def number(text: str) -> Any:
        value = kind(text)
        if not least <= value < 1e9:
            raise argparse.ArgumentTypeError(f"{text} is not a number from {least} on")
        return value

    return number


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def _write(text: str, out: Path) -> None:
    """The whole file or none: it is renamed when all is written."""
    handle, beside = tempfile.mkstemp(prefix=f".{out.name}.", dir=out.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
        os.chmod(beside, 0o644)
        os.replace(beside, out)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def main() -> None:
    """The command line."""
    parse = argparse.ArgumentParser(
        "ep_experiment", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parse.add_argument("--provider", default=CPU, help=f"a provider that is built into this package (default: {CPU})")
    parse.add_argument("--plugin", help="instead: the module of a plug-in package, such as onnxruntime_ep_webgpu")
    parse.add_argument(
        "--option", type=_pair, action="append", default=[], metavar="KEY=VALUE", help="the plug-in needs it"
    )
    parse.add_argument("--emulated", help="what stands in for the device, in a few words; nothing is timed then")
    parse.add_argument("--compile", choices=list(MODELS), help="only compile this model with the plug-in")
    parse.add_argument(
        "--rounds", type=_at_least(0, int), default=100, help="runs per time (default: 100); 0 leaves times out"
    )
    parse.add_argument("--threads", type=_at_least(1, int), default=1, help="threads of each session (default: 1)")
    parse.add_argument(
        "--seconds", type=_at_least(0, float), default=15.0, help="no new round of one time after this (default: 15)"
    )
    parse.add_argument("--out", type=Path, help="file to write (default: the standard output)")
    args = parse.parse_args()
    if args.out is not None:
        if args.out.is_dir():
            parse.exit(2, f"{str(args.out)!r} is a folder: give the name of the file to write. Nothing was measured.\n")
        try:
            args.out.parent.mkdir(parents=True, exist_ok=True)  # now, not after minutes of measuring
        except OSError as error:
            parse.exit(2, f"{str(args.out)!r} cannot be written ({error.strerror}). Nothing was measured.\n")
    if args.compile and args.plugin is None:
        parse.exit(2, "--compile needs --plugin: only plug-ins are asked to compile. Nothing was measured.\n")
    library = None
    if args.plugin is not None:
        try:
            library = plugin_library(args.plugin, dict(args.option))
        except Exception as error:  # whatever is wrong in a package of somebody else
            parse.exit(2, f"{args.plugin!r} is no plug-in that is installed here ({error}). Nothing was measured.\n")
    elif args.provider not in ort.get_available_providers():
        have = ", ".join(ort.get_available_providers())
        parse.exit(2, f"{runtime_package()} has no {args.provider!r}; it has {have}. Nothing was measured.\n")
    if library and args.compile:
        library.register()
        text = json.dumps(compile_model(MODELS[args.compile](), library))
    else:
        provider = library.provider if library else args.provider
        text = as_text(record(provider, library, args.emulated, args.rounds, args.seconds, args.threads))
    if args.out is None:
        sys.stdout.buffer.write(text.encode())
        return
    try:
        _write(text, args.out)
    except OSError as error:
        parse.exit(2, f"{str(args.out)!r} cannot be written ({error.strerror or error}). Nothing was kept.\n")
    print(f"wrote {args.out}")
