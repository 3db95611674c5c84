"""The model, for the processes of Ray: each of them has a session of its own."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault(
    "ORT_DISABLE_TELEMETRY", "1"
)  # before onnxruntime is imported

import numpy as np
import onnxruntime as ort

MODEL = Path("model.onnx").read_bytes()  # travels along, also to other machines


class Fashion:
    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        self.session = ort.InferenceSession(MODEL, options, providers=providers)

    def labels(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 [n, 28, 28] → int64 [n]."""
        return self.session.run(["label"], {"pixels": pixels})[0]
