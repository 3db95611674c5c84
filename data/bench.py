"""Measure the course's promises about speed, size and memory on this machine: `make bench`.

Every figure of speed is a ratio of things timed in turns in one run, with one thread each (`cu.compare`). The tables go
to the terminal and, with machine, versions and date, to `data/bench.json`, which the book shows. Nothing here is a
test: the numbers belong to the machine they were taken on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before onnxruntime is imported

import numpy as np
import onnx
import onnxruntime as ort
import torch
from bench_grading import measure_grading, ratio
from bench_language import measure_language
from bench_notebooks import measure_notebook
from bench_page import measure_live_page
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quant_pre_process, quantize_static

HERE = Path(__file__).parent
TARGET = HERE / "bench.json"
sys.path.insert(0, str(HERE.parent))

import course_utils as cu  # noqa: E402

Level = ort.GraphOptimizationLevel
LEVELS = {
    "as written": Level.ORT_DISABLE_ALL,
    "basic": Level.ORT_ENABLE_BASIC,
    "extended": Level.ORT_ENABLE_EXTENDED,
    "all": Level.ORT_ENABLE_ALL,
}
IMPORT = "import time; start = time.perf_counter(); import course_utils; print(time.perf_counter() - start)"


class Pictures(CalibrationDataReader):
    """Hands out calibration batches one by one."""

    def __init__(self, batches: list[np.ndarray]) -> None:
        self._left = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._left, None)
        return None if batch is None else {"image": batch}


def session(path: Path, level: Level = Level.ORT_ENABLE_ALL) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = level
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def runner(path: Path, x: np.ndarray, level: Level = Level.ORT_ENABLE_ALL) -> Callable[[], Any]:
    ready = session(path, level)
    return lambda: ready.run(None, {"image": x})


def export(model: torch.nn.Module, x: np.ndarray, path: Path, *, dynamic: bool = True) -> Path:
    shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
    example = (torch.from_numpy(np.repeat(x[:1], 2, 0) if dynamic else x),)
    names = {"input_names": ["image"], "output_names": ["logits"]}
    torch.onnx.export(model, example, path, **names, dynamic_shapes=shapes, external_data=False, verbose=False)
    return path


def quantize(path: Path, batches: list[np.ndarray]) -> Path:
    """Static int8 in QDQ form: activations uint8, weights int8, one scale per tensor."""
    prepared, target = path.with_suffix(".prepared.onnx"), path.with_suffix(".int8.onnx")
    quant_pre_process(path, prepared, skip_symbolic_shape=True)
    kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(prepared, target, Pictures(batches), quant_format=QuantFormat.QDQ, **kinds)
    return target


def size(path: Path) -> int:
    """Bytes of what a session needs: without the exporter's notes and the shapes of inner tensors."""
    model = onnx.load(path)
    for part in (model, model.graph, *model.graph.node, *model.graph.initializer):
        del part.metadata_props[:]
    del model.graph.value_info[:]
    return model.ByteSize()


def accuracy(path: Path) -> float:
    """Of `fashion_resnet` in this file, on all 10 000 test images."""
    images, labels = cu.fashion_mnist("test")
    ready = session(path)
    guesses = [ready.run(None, {"image": cu.normalize(part)})[0].argmax(1) for part in np.split(images, 20)]
    return float((np.concatenate(guesses) == labels).mean())


class Bench:
    """Collects ratios, and the promises that some of them keep or miss.

    others: share of the processors that other programs used while a ratio was measured.
    """

    def __init__(self) -> None:
        self.ratios: list[dict[str, Any]] = []
        self.promises: list[dict[str, Any]] = []

    def time(
        self, group: str, model: str, batch: int, candidates: dict[str, Callable[[], Any]], slow: str | None = None
    ) -> None:
        """How many times less time each candidate takes than `slow`, the first one unless another is named."""
        slow = slow or next(iter(candidates))
        result = cu.compare(candidates, threads=1, rounds=40, seconds=25)
        for fast in candidates:
            if fast != slow:
                self.ratio(group, model, batch, slow, fast, result.ratio(slow, fast), result.others)

    def ratio(
        self, group: str, model: str, batch: int | None, slow: str, fast: str, ratio: float, others: float | None = None
    ) -> None:
        others = None if others is None else round(others, 2)
        row = {"group": group, "model": model, "batch": batch, "slow": slow, "fast": fast, "ratio": round(ratio, 3)}
        self.ratios.append(row | {"others": others})
        print(f"  {model:22} {batch or '':>3}  {f'{slow} ÷ {fast}':32} {ratio:8.2f}", flush=True)

    def found(self, model: str, batch: int | None, slow: str, fast: str) -> float:
        key = (model, batch, slow, fast)
        return next(r["ratio"] for r in self.ratios if (r["model"], r["batch"], r["slow"], r["fast"]) == key)

    def promise(self, what: str, sign: str, reach: float, measured: float, unit: str) -> None:
        kept = measured >= reach if sign == "≥" else measured <= reach
        row = {"what": what, "reach": f"{sign} {reach:g} {unit}", "measured": f"{measured:.3g} {unit}", "kept": kept}
        self.promises.append(row)
        print(f"  {what:62} {row['reach']:>12} {row['measured']:>13}  {'kept' if kept else 'MISSED'}", flush=True)


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--no-notebooks", action="store_true", help="leave the notebooks out: a few minutes less")
    parse.add_argument("--only-grading", action="store_true", help="measure the grader anew, and keep all the rest")
    parse.add_argument("--only-language", action="store_true", help="measure chapter 11 anew, and keep all the rest")
    arguments = parse.parse_args()
    if arguments.only_grading:
        write(json.loads(TARGET.read_text(encoding="utf-8")) | {"grading": grading()})
        return
    if arguments.only_language:
        write(json.loads(TARGET.read_text(encoding="utf-8")) | {"language": language()})
        return
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    bench = Bench()
    images, _ = cu.fashion_mnist("calibration")
    calibration = [cu.normalize(part) for part in np.split(images[:500], 10)]
    big = np.random.default_rng(0).normal(size=(64, 3, 224, 224)).astype(np.float32)
    measure_model(bench, folder, "fashion_resnet", cu.fashion_resnet(), cu.normalize(images[:64]), calibration)
    measure_model(bench, folder, "resnet18", cu.resnet18(), big, [big[i : i + 4] for i in range(0, 16, 4)])
    lost = (accuracy(folder / "fashion_resnet.onnx") - accuracy(folder / "fashion_resnet.int8.onnx")) * 100
    notebooks = [] if arguments.no_notebooks else measure_notebooks()

    print("promises")
    for model, batch in [("fashion_resnet", 64), ("resnet18", 1)]:
        faster = bench.found(model, batch, "fp32", "int8")
        bench.promise(f"static int8 is faster than fp32: {model}, batch {batch}", "≥", 2.2, faster, "×")
    for model in ("fashion_resnet", "resnet18"):
        smaller = bench.found(model, None, "fp32 bytes", "int8 bytes")
        bench.promise(f"static int8 is smaller than fp32: {model}", "≥", 3.6, smaller, "×")
    bench.promise("static int8 loses accuracy: fashion_resnet, 10 000 images", "≤", 0.5, lost, "points")
    faster = bench.found("resnet18", 1, "eager", "ORT")
    bench.promise("ONNX Runtime is faster than PyTorch eager: resnet18, batch 1", "≥", 1.5, faster, "×")
    seconds = float(subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, check=True).stdout)
    bench.promise("import course_utils", "≤", 0.15, seconds, "s")
    if notebooks:
        slowest, largest = (max(row[key] for row in notebooks) for key in ("seconds", "peak_mib"))
        bench.promise("the slowest notebook, start to end", "≤", 60, slowest, "s")
        bench.promise("the largest notebook, resident memory", "≤", 2048, largest, "MiB")
    print("the book, in a browser")
    if waited := measure_live_page(HERE.parent / "jupyter-book" / "_build" / "html"):
        bench.promise("the first prediction in a page of the book, from the click on", "≤", 3, waited, "s")
    record = json.loads(TARGET.read_text(encoding="utf-8")) if TARGET.exists() else {}
    record |= provenance() | {"promises": bench.promises, "ratios": bench.ratios, "notebooks": notebooks}
    write(record)  # what took a quarter of an hour stays, whatever comes next
    write(record := record | {"grading": grading()})
    write(record | {"language": language()})


def provenance() -> dict[str, Any]:
    """When and where figures were taken."""
    machine = cu.machine()
    return {
        "date": date.today().isoformat(),
        "machine": {"processor": machine.processor, "cores": machine.cores, "extensions": machine.extensions},
        "versions": machine.versions,
    }


def language() -> dict[str, Any]:
    """The figures of chapter 11, with their own date and machine, since they can be taken alone."""
    return provenance() | measure_language()


def grading() -> dict[str, Any]:
    """The grader's figures, with their own date and machine, since they can be taken alone."""
    bench = Bench()
    found = measure_grading()
    print("promises of the grader")
    both = found["a_second"]["2"]
    bench.promise("a full course graded, processor time", "≤", 1, found["core_seconds"], "core-s")
    bench.promise("full courses graded a second, two workers", "≥", 2, both, "/s")
    bench.promise("the grader is faster than nbgrader on the same exercises", "≥", 100, ratio(found), "×")
    return provenance() | found | {"promises": bench.promises}


def write(record: dict[str, Any]) -> None:
    TARGET.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print("\nwritten to data/bench.json")


def measure_model(
    bench: Bench, folder: Path, name: str, model: torch.nn.Module, x: np.ndarray, batches: list[np.ndarray]
) -> None:
    """Everything that is compared with one model. x: 64 inputs. batches: what calibration sees."""
    print(name)
    fp32 = export(model, x, folder / f"{name}.onnx")
    int8 = quantize(fp32, batches)
    compiled = torch.compile(model)
    for batch in (1, 64):
        array, tensor = x[:batch], torch.from_numpy(x[:batch])

        def eager(tensor: torch.Tensor = tensor) -> torch.Tensor:
            with torch.inference_mode():
                return model(tensor)

        def inductor(tensor: torch.Tensor = tensor) -> torch.Tensor:
            with torch.inference_mode():
                return compiled(tensor)

        everyone = {"eager": eager, "torch.compile": inductor, "ORT": runner(fp32, array)}
        try:
            inductor()
        except Exception as error:  # no C++ compiler, for one
            print(f"  torch.compile does not work here: {str(error).splitlines()[0]}")
            del everyone["torch.compile"]
        bench.time("ONNX Runtime and PyTorch", name, batch, everyone)
        if "torch.compile" in everyone:
            compile_ratio = bench.found(name, batch, "eager", "ORT") / bench.found(
                name, batch, "eager", "torch.compile"
            )
            bench.ratio("ONNX Runtime and PyTorch", name, batch, "torch.compile", "ORT", compile_ratio)
        bench.time("int8", name, batch, {"fp32": runner(fp32, array), "int8": runner(int8, array)})
    one = x[:1]
    levels = {label: runner(fp32, one, level) for label, level in LEVELS.items()}
    bench.time("optimisation level", name, 1, levels)
    static = export(model, one, folder / f"{name}.static.onnx", dynamic=False)
    bench.time("shapes", name, 1, {"dynamic": runner(fp32, one), "static": runner(static, one)})
    bench.time("session", name, 1, {"create": lambda: session(fp32), "run": runner(fp32, one)})
    bench.ratio("size", name, None, "fp32 bytes", "int8 bytes", size(fp32) / size(int8))


def measure_notebooks() -> list[dict[str, Any]]:
    """Every lesson, run from start to end in a kernel of its own."""
    print("notebooks")
    rows = []
    notebooks = HERE.parent / "notebooks"
    for path in [*sorted(notebooks.glob("[0-9]*.ipynb")), *sorted(notebooks.glob("deeper/[0-9]*.ipynb"))]:
        seconds, peak = measure_notebook(path)
        rows.append({"notebook": path.stem, "seconds": round(seconds, 1), "peak_mib": round(peak)})
        print(f"  {path.stem:32} {seconds:6.1f} s {peak:8.0f} MiB", flush=True)
    return rows


if __name__ == "__main__":
    main()
