"""Files of the lab *quantize*: the course's network, which it quantizes in the page, and pictures to ask it about.

`float.onnx`: pixels uint8 [batch, 28, 28] → label int64 [batch], probability. `pictures.bin`: 200 pictures of the test set, a byte
for a pixel. `quantize.json`: their labels, how many the float file names right, and the names of the weights.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before onnxruntime is imported

import onnx

import course_utils as cu
from course_utils.paths import data_path
from course_utils.running import run, session_for

ASKED = 200  # pictures
CONV_RANK = 4  # dimensions of the weights of a convolution


def make(folder: Path) -> None:
    """Write the lab's files into `folder`."""
    shutil.copy(data_path("deploy/model/model.onnx"), folder / "float.onnx")
    pixels, labels = (part[:ASKED] for part in cu.fashion_mnist("test"))
    right = int((run(session_for(folder / "float.onnx"), {"pixels": pixels})["label"] == labels).sum())
    stored = onnx.load(folder / "float.onnx").graph.initializer
    facts = {
        "labels": labels.tolist(),
        "right": right,
        "weights": [tensor.name for tensor in stored if len(tensor.dims) == CONV_RANK],
    }
    (folder / "pictures.bin").write_bytes(pixels.tobytes())
    (folder / "quantize.json").write_text(json.dumps(facts, separators=(",", ":")), encoding="utf-8")
