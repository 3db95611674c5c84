"""Make two files for lesson 08 and the pages below it.

    python data/build_deploy.py

`deploy/model/model.onnx`: `fashion_resnet` with its processing inside: pixels uint8 [batch, 28, 28] → label int64
[batch], probability float32 [batch, 10]. The exporter's notes are left out: they name folders of the machine.
`deploy/page/pictures.json`: the names of the classes, and six test images.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before onnxruntime is imported

import torch

import course_utils as cu
from course_utils.lab.data import FASHION_MEAN, FASHION_STD

DEPLOY = Path(__file__).parent / "deploy"


class Whole(torch.nn.Module):
    """Bytes in, label and probabilities out."""

    def __init__(self) -> None:
        super().__init__()
        self.network = cu.fashion_resnet()

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        image = (pixels.unsqueeze(1).float() / 255 - FASHION_MEAN) / FASHION_STD
        probability = torch.softmax(self.network(image), 1)
        return probability.argmax(1), probability


def main() -> None:
    example = torch.zeros(2, 28, 28, dtype=torch.uint8)
    names = {"input_names": ["pixels"], "output_names": ["label", "probability"]}
    batch = ({0: torch.export.Dim("batch")},)
    with cu.exporter_messages():
        program = torch.onnx.export(Whole().eval(), (example,), **names, dynamic_shapes=batch, verbose=False)
    model = program.model_proto
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info):
        del part.metadata_props[:]
    write("model/model.onnx", model.SerializeToString())
    pictures = cu.fashion_mnist("test")[0][:6].reshape(6, -1).tolist()
    write("page/pictures.json", json.dumps({"names": cu.CLASS_NAMES, "pictures": pictures}).encode())


def write(name: str, content: bytes) -> None:
    (DEPLOY / name).parent.mkdir(parents=True, exist_ok=True)
    (DEPLOY / name).write_bytes(content)
    print(f"Written: {name}, {len(content)} bytes")


if __name__ == "__main__":
    main()
