"""One model, loaded once."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

os.environ.setdefault(
    "ORT_DISABLE_TELEMETRY", "1"
)  # before onnxruntime is imported

import numpy as np
import onnxruntime as ort


class Predictor:
    """A model that takes `pixels`, uint8 [n, 28, 28], and gives arrays of n rows.

    model: its file. threads: of one run. sha256: of the file; "" allows any.
    Raises ValueError when the file has another SHA-256.
    """

    def __init__(
        self, model: str, name: str, threads: int, sha256: str = ""
    ) -> None:
        content = Path(model).read_bytes()  # what is hashed is what is loaded
        found = hashlib.sha256(content).hexdigest()
        if sha256 not in ("", found):
            raise ValueError(f"{model} has the SHA-256 {found}, expected {sha256}.")
        self.about = {"name": name, "sha256": found}
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        providers = ["CPUExecutionProvider"]
        self.session = ort.InferenceSession(content, options, providers=providers)
        self.outputs = [output.name for output in self.session.get_outputs()]
        # Warm up: the first run is slow.
        self.run(np.zeros((1, 28, 28), np.uint8))

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        """uint8 [n, 28, 28] → an array of n rows for each of `outputs`."""
        return self.session.run(self.outputs, {"pixels": pixels})
