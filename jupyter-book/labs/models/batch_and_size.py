"""Files of the lab *batch_and_size*: the loop of lesson 04, over the rows of a picture, exported in four ways.

`<name>.onnx` for each of the four, and `batch_and_size.json`: the pictures, and PyTorch's answers for each size.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

import course_utils as cu

HEIGHTS, WIDTHS, BATCHES = (14, 27, 28, 29, 42), (14, 28, 42), (1, 2, 3, 4)
FILES = ("frozen", "wish", "guess", "promise")
PICTURES = (0, 1, 2, 3)  # of the test pictures: an ankle boot, a pullover, two pairs of trousers


class Rows(torch.nn.Module):
    """float32 [batch, height, width] → [batch, width]: from top to bottom, rows further up count less."""

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        state = picture[:, 0]
        for row in range(1, picture.shape[1]):
            state = 0.9 * state + picture[:, row]
        return state


class Weighted(torch.nn.Module):
    """The same function, without a loop."""

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        age = torch.arange(picture.shape[1] - 1, -1, -1)
        return (picture * (0.9**age)[:, None]).sum(1)


def make(folder: Path) -> None:
    """Write the lab's files into `folder`."""
    dim = torch.export.Dim
    one, two = torch.rand(1, 28, 28), torch.rand(2, 28, 28)
    export(Rows(), one, folder / "frozen.onnx", None)
    export(Rows(), two, folder / "wish.onnx", {0: dim("batch"), 1: dim("height"), 2: dim("width")})
    export(Rows(), two, folder / "guess.onnx", dict.fromkeys(range(3), dim.AUTO))
    export(Weighted(), two, folder / "promise.onnx", {0: "batch", 1: "height", 2: "width"})
    pictures, labels = cu.fashion_mnist("test")
    chosen = pictures[list(PICTURES)]
    facts = {
        "batches": BATCHES,
        "heights": HEIGHTS,
        "widths": WIDTHS,
        "shapes": {name: cu.written_shapes(folder / f"{name}.onnx")["picture"] for name in FILES},
        "classes": [cu.CLASS_NAMES[label] for label in labels[list(PICTURES)]],
        "pictures": chosen.reshape(len(PICTURES), -1).tolist(),
        "torch": {f"{h}×{w}": answers(chosen, h, w) for h in HEIGHTS for w in WIDTHS},
    }
    (folder / "batch_and_size.json").write_text(json.dumps(facts, separators=(",", ":")), encoding="utf-8")


def export(network: torch.nn.Module, example: torch.Tensor, file: Path, shapes: dict[int, object] | None) -> None:
    """Write the network as the lesson does, by the default exporter."""
    names = {"input_names": ["picture"], "output_names": ["columns"]}
    how = {"external_data": False, "verbose": False, **names}
    with cu.exporter_messages():
        free = {} if shapes is None else {"dynamic_shapes": (shapes,)}
        torch.onnx.export(network.eval(), (example,), file, **how, **free)


def resized(pictures: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 [n, 28, 28] → float32 [n, height, width] from 0 to 1, each pixel the nearest one; `lab.js` does the same."""
    rows, columns = np.arange(height) * 28 // height, np.arange(width) * 28 // width
    return (pictures[:, rows][:, :, columns] / np.float32(255)).astype(np.float32)


def answers(pictures: np.ndarray, height: int, width: int) -> list[list[float]]:
    """What PyTorch gives for each picture."""
    with torch.no_grad():
        given = Rows()(torch.from_numpy(resized(pictures, height, width)))
    return [[round(value, 6) for value in row] for row in given.tolist()]
