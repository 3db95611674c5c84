"""Asks the installed ONNX Runtime whether it would load small models. Started by `runtime`, never imported by it.

Each is one node of somebody's model with made-up inputs: nothing of it is run, but loading alone can end a process. Reads
models (eight bytes of length, then the model) from the standard input, and answers each with one line of JSON, at once.
"""

from __future__ import annotations

import json
import sys

import onnxruntime as ort


def words(data: bytes) -> str:
    """Why ONNX Runtime does not load a model; empty where it does."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    try:
        ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exception classes derive from Exception alone
        return " ".join(str(error).split()) or type(error).__name__
    return ""


def main() -> None:
    given = sys.stdin.buffer
    while len(head := given.read(8)) == 8:
        print(json.dumps(words(given.read(int.from_bytes(head, "little")))), flush=True)


if __name__ == "__main__":
    main()
