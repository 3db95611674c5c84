"""Measure the course's promises about speed and size on this machine: `make bench`.

Every figure is a ratio of things timed in turns in one run, with one thread each (`cu.compare`). The table goes to the
terminal and, with machine, versions and date, to `data/bench.json`, which the book shows. Nothing here is a test: the
numbers belong to the machine they were taken on.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quant_pre_process, quantize_static

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import course_utils as cu  # noqa: E402

Level = ort.GraphOptimizationLevel
LEVELS = {
    "as written": Level.ORT_DISABLE_ALL,
    "basic": Level.ORT_ENABLE_BASIC,
    "extended": Level.ORT_ENABLE_EXTENDED,
    "all": Level.ORT_ENABLE_ALL,
}


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
    """Static int8: activations uint8, weights int8 per channel, in QDQ form."""
    prepared, target = path.with_suffix(".prepared.onnx"), path.with_suffix(".int8.onnx")
    quant_pre_process(path, prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared,
        target,
        Pictures(batches),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    return target


def accuracy(path: Path) -> float:
    """Of `fashion_resnet` in this file, on all 10 000 test images."""
    images, labels = cu.fashion_mnist("test")
    ready = session(path)
    guesses = [ready.run(None, {"image": cu.normalize(part)})[0].argmax(1) for part in np.split(images, 20)]
    return float((np.concatenate(guesses) == labels).mean())


class Bench:
    """Collects rows: what was compared, the ratio, and the busy share of other programs while it was measured."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def time(self, what: str, model: str, batch: int, slow: str, candidates: dict[str, Callable[[], Any]]) -> None:
        """One row for each candidate against `slow`: how many times less time it takes."""
        result = cu.compare(candidates, threads=1, rounds=40, seconds=25)
        for fast in candidates:
            if fast != slow:
                self.add(what, model, batch, f"{slow} ÷ {fast}", result.ratio(slow, fast), result.others)

    def add(
        self, what: str, model: str, batch: int | None, ratio_of: str, ratio: float, others: float | None = None
    ) -> None:
        row = {"what": what, "model": model, "batch": batch, "ratio of": ratio_of, "ratio": round(ratio, 3)}
        self.rows.append({**row, "others": None if others is None else round(others, 2)})
        print(f"  {model:15} {batch or '':>3}  {ratio_of:38} {ratio:8.2f}", flush=True)


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    bench = Bench()
    images, _ = cu.fashion_mnist("calibration")
    calibration = [cu.normalize(part) for part in np.split(images[:500], 10)]
    rng = np.random.default_rng(0)
    big = rng.normal(size=(64, 3, 224, 224)).astype(np.float32)
    models = {
        "fashion_resnet": (cu.fashion_resnet(), cu.normalize(images[:64]), calibration),
        "resnet18": (cu.resnet18(), big, [big[i : i + 4] for i in range(0, 16, 4)]),
    }
    for name, (model, x, batches) in models.items():
        measure(bench, folder, name, model, x, batches)
    ratio_of_points = (accuracy(folder / "fashion_resnet.onnx") - accuracy(folder / "fashion_resnet.int8.onnx")) * 100
    bench.add("points of accuracy lost", "fashion_resnet", None, "fp32 − int8, percentage points", ratio_of_points)
    machine = cu.machine()
    record = {
        "date": date.today().isoformat(),
        "machine": {"processor": machine.processor, "cores": machine.cores, "extensions": machine.extensions},
        "versions": machine.versions,
        "threads": 1,
        "rows": bench.rows,
    }
    (HERE / "bench.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print("\nwritten to data/bench.json")


def measure(
    bench: Bench, folder: Path, name: str, model: torch.nn.Module, x: np.ndarray, batches: list[np.ndarray]
) -> None:
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
        bench.time("ONNX Runtime and PyTorch", name, batch, "eager", everyone)
        bench.time("int8", name, batch, "fp32", {"fp32": runner(fp32, array), "int8": runner(int8, array)})
    one = x[:1]
    levels = {label: runner(fp32, one, level) for label, level in LEVELS.items()}
    bench.time("optimisation level", name, 1, "as written", levels)
    static = export(model, one, folder / f"{name}.static.onnx", dynamic=False)
    bench.time("shapes", name, 1, "dynamic", {"dynamic": runner(fp32, one), "static": runner(static, one)})
    bench.time("session", name, 1, "create", {"create": lambda: session(fp32), "run": runner(fp32, one)})
    bench.add("size", name, None, "fp32 ÷ int8, bytes", fp32.stat().st_size / int8.stat().st_size)


if __name__ == "__main__":
    main()
