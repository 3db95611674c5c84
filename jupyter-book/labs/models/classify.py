"""Files of the lab *classify*: the course's network in float and in int8, each with its processing inside, and pictures.

The float weights keep 16 of the 24 bits of their significand: compressed, the file is a fifth smaller.

`float.onnx` and `int8.onnx`: pixels uint8 [batch, 28, 28] → label int64 [batch], probability float32 [batch, 10].
`classify.json`: names of the classes, pictures, and what Python's ONNX Runtime answers to them.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before onnxruntime is imported

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

import course_utils as cu
from course_utils.paths import data_path
from course_utils.running import run, session_for

CALIBRATED_WITH = 100  # training pictures, as in lesson 07
LOOKED_AT = 1000  # test pictures, among which those are searched that the two files see differently
DIFFERENT = 2  # of them are shown


class Reader(CalibrationDataReader):
    """Gives all the examples in one batch."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.batches = iter([{"pixels": pixels}])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


def make(folder: Path) -> None:
    """Write the lab's files into `folder`."""
    files = {name: folder / f"{name}.onnx" for name in ("float", "int8")}
    onnx.save(rounded(onnx.load(data_path("deploy/model/model.onnx"))), files["float"])
    quantize(files["float"], files["int8"])
    pixels, labels = cu.fashion_mnist("test")
    answers = {name: run(session_for(file), {"pixels": pixels[:LOOKED_AT]}) for name, file in files.items()}
    chosen = [int(np.flatnonzero(labels == label)[0]) for label in range(10)]
    chosen += seen_differently(answers["float"]["probability"], answers["int8"]["probability"])
    facts = {
        "names": cu.CLASS_NAMES,
        "pictures": pixels[chosen].reshape(len(chosen), -1).tolist(),
        "labels": labels[chosen].tolist(),
        "answers": {
            name: [[round(float(p), 6) for p in row] for row in answer["probability"][chosen]]
            for name, answer in answers.items()
        },
    }
    (folder / "classify.json").write_text(json.dumps(facts, separators=(",", ":")), encoding="utf-8")


def rounded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, its float32 weights rounded to 16 significant bits: a last byte that is always 0 compresses well."""
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            bits = numpy_helper.to_array(tensor).view(np.uint32)
            nearest = ((bits + np.uint32(0x80)) & np.uint32(0xFFFFFF00)).view(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(nearest, tensor.name))
    return model


def quantize(source: Path, target: Path) -> None:
    """Static quantization as in lesson 07: uint8 activations, int8 weights, a scale per channel. The processing stays float."""
    examples = cu.fashion_mnist("calibration")[0][:CALIBRATED_WITH]
    logging.getLogger().disabled = True  # it advises what is done here already
    try:
        with tempfile.TemporaryDirectory() as place:
            prepared = Path(place, "prepared.onnx")
            quant_pre_process(source, prepared)
            quantize_static(
                prepared, target, Reader(examples), per_channel=True, activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8, op_types_to_quantize=["Conv", "Relu", "Add", "GlobalAveragePool", "ReduceMean", "Gemm"],
            )  # fmt: skip
    finally:
        logging.getLogger().disabled = False


def seen_differently(one: np.ndarray, other: np.ndarray) -> list[int]:
    """Pictures of which the two say different classes, the surest ones first: elsewhere kernels round otherwise."""
    first, second = one.argmax(1), other.argmax(1)
    at = np.flatnonzero(first != second)
    sure = np.minimum(one[at, first[at]] - one[at, second[at]], other[at, second[at]] - other[at, first[at]])
    return at[np.argsort(-sure)][:DIFFERENT].tolist()
