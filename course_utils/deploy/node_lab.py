"""A model in Node, outside the browser: the same bytes as in Python, and what it answers."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CourseError
from ..pages.browser_lab import node, npm_package


def in_node(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Run `node predict.mjs PACKAGES model.onnx pictures.bin` in `folder`, with 200 pictures. First used in lesson 08.

    folder: holds `predict.mjs` and the model. Returns the version of onnxruntime-node, whether it read the same bytes and
    gave the same labels as ONNX Runtime in Python, and the largest difference of a probability; None, after one sentence,
    where Node or onnxruntime-node is missing. Raises CourseError with Node's own words when the program fails.
    """
    import onnxruntime as ort

    from ..lab.data import fashion_mnist

    folder, package, program = Path(folder), npm_package("onnxruntime-node"), node()
    if not package or not program:
        print("Not run here, because this is missing: Node, or onnxruntime-node. What follows was recorded.")
        return None
    pixels = fashion_mnist("test")[0][:200]
    (folder / "pictures.bin").write_bytes(pixels.tobytes())
    command = [program, "predict.mjs", package.parent, "model.onnx", "pictures.bin"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        words = [line for line in done.stderr.splitlines() if "Error" in line] or ["no message"]
        raise CourseError(f"The program failed in Node: {words[0].strip()}")
    said, content = json.loads(done.stdout), (folder / "model.onnx").read_bytes()
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    label, probability = session.run(["label", "probability"], {"pixels": pixels})
    there = np.reshape(said["probability"], probability.shape)
    return {
        "version": said["version"],
        "same bytes": said["sha256"] == hashlib.sha256(content).hexdigest(),
        "same labels": said["label"] == label.tolist(),
        "largest difference": float(np.abs(there - probability).max()),
    }
