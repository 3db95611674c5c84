"""Make the two files of exercise 6.6 from `profiled/recognizer.py`: what the exporter and ONNX Runtime wrote.

    python data/build_profiled.py

`profiled/recognizer.onnx`: with the exporter's notes on each node, without the folders of this machine.
`profiled/profile.json`: the events of one session with one run, all optimisations off. The exercise repeats the run, and puts
times of its own in: they are drawn for each student, so that the answer is sure.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before onnxruntime is imported

import numpy as np
import onnxruntime as ort
import torch

import course_utils as cu

FOLDER = Path(__file__).parent / "profiled"
NOTES = ("pkg.torch.onnx.class_hierarchy", "pkg.torch.onnx.name_scopes", "pkg.torch.onnx.stack_trace")


def main() -> None:
    sys.path.insert(0, str(FOLDER))
    from recognizer import Recognizer

    torch.manual_seed(0)
    example = (torch.zeros(2, 1, 28, 28),)
    batch = ({0: torch.export.Dim("batch")},)
    with cu.exporter_messages():
        program = torch.onnx.export(
            Recognizer().eval(), example, input_names=["image"], output_names=["y"], dynamic_shapes=batch, verbose=False
        )
    model = program.model_proto
    graph = model.graph
    for part in (model, graph, *graph.input, *graph.output, *graph.initializer, *graph.value_info):
        del part.metadata_props[:]
    for node in graph.node:
        kept = {note.key: without_folders(note.value) for note in node.metadata_props if note.key in NOTES}
        del node.metadata_props[:]
        for key, value in kept.items():
            node.metadata_props.add(key=key, value=value)
    data = model.SerializeToString(deterministic=True)
    (FOLDER / "recognizer.onnx").write_bytes(data)

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder, "profile"))
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        session.run(None, {"image": np.zeros((32, 1, 28, 28), np.float32)})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    text = ",\n".join(json.dumps(event, sort_keys=True) for event in events)
    (FOLDER / "profile.json").write_text(f"[\n{text}\n]\n", encoding="utf-8")
    print(len(data), "bytes,", len(graph.node), "nodes,", len(events), "events")


def without_folders(text: str) -> str:
    """Files of PyTorch from `torch/` on, and other files by their name alone."""

    def shorter(found: re.Match[str]) -> str:
        path = found[1].replace("\\", "/")
        return f'File "{path.partition("/site-packages/")[2] or path.rpartition("/")[2]}"'

    return re.sub(r'File "([^"]*)"', shorter, text)


if __name__ == "__main__":
    main()
