"""The archive of lesson 10: its photographs, and the state that the first sitting leaves for the second."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..paths import WORK, write_whole
from .data import fashion_mnist

if TYPE_CHECKING:  # torch is imported only when something is missing
    import torch

_FOLDER, _FILE, _TRUTH = "10_capstone", "scroll.onnx", "truth.npz"


def archive_photographs(
    split: Literal["test", "calibration"], count: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Garments as the archive's camera sees them: photos, labels, and whether each is on white paper. First used in lesson 10.

    Returns uint8 [count, 28, 28], the labels [count], and bool [count]. The lens lets half of the light through in the
    corners; about half of the garments lie on white paper, and those photographs are negatives of the data set's.
    """
    images, labels = fashion_mnist(split)
    light, draw = images[:count] / 255, np.random.default_rng(seed)
    on_white = draw.random(len(light)) < 0.5
    light[on_white] = 1 - light[on_white]
    from_middle = np.arange(28) - 13.5
    fading = 1 + np.hypot(from_middle[:, None], from_middle) ** 2 / 365  # 2 in the corners
    return np.rint(light / fading * 255).astype(np.uint8), labels[:count], on_white


def first_sitting() -> Path:
    """The folder with what lesson 10 saved, for the page that goes on from there; what is not there is made.

    It holds `scroll.onnx`: pixels uint8 [batch, 28, 28] → logits float32 [batch, 10], and `truth.npz`: `photos`, `labels`,
    `on_white`, and `scores`, float32 [2000, 10], of the PyTorch model.
    """
    folder = WORK / _FOLDER
    above = Path("..") / folder  # from deeper/, where the lesson's own work folder is
    if all((above / name).is_file() for name in (_FILE, _TRUTH)):
        return above
    if not (folder / _FILE).exists():
        with write_whole(folder / _FILE) as stream:
            stream.write(_exported())
    if not (folder / _TRUTH).exists():
        photos, labels, on_white = archive_photographs("test", 2000, seed=1)
        np.savez(stored := io.BytesIO(), photos=photos, labels=labels, on_white=on_white, scores=_scores(photos))
        with write_whole(folder / _TRUTH) as stream:
            stream.write(stored.getvalue())
    return folder


def _ready() -> torch.nn.Module:
    """What the lesson arrives at: no loop, no `if`, no operator without a translation."""
    import torch
    from torch import nn

    from .models import fashion_resnet

    class Ready(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = fashion_resnet()

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            x = torch.arange(28) - 13.5
            light = (pixels.float() / 255 * (1 + (x[:, None] ** 2 + x**2) / 365)).clamp(0, 1)
            on_white = light[:, ::27, ::27].mean((1, 2), keepdim=True) > 0.5
            light = torch.where(on_white, 1 - light, light)
            return self.network((light[:, None] - 0.286) / 0.353)

    return Ready().eval()


def _exported() -> bytes:
    import torch

    from .exporter import exporter_messages

    with exporter_messages():
        program = torch.onnx.export(
            _ready(),
            (torch.zeros(2, 28, 28, dtype=torch.uint8),),
            opset_version=18,
            input_names=["pixels"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None
    return program.model_proto.SerializeToString()


def _scores(photos: np.ndarray) -> np.ndarray:
    """float32 [n, 10] of PyTorch, in parts: all at once would need much memory."""
    import torch

    model = _ready()
    with torch.no_grad():
        return torch.cat([model(part) for part in torch.from_numpy(photos).split(200)]).numpy()
