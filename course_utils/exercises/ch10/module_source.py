"""`scroll.py` of the capstone: a student's own model, as its author wrote it in PyTorch."""

from __future__ import annotations

from ...lab.data import FASHION_MEAN, FASHION_STD
from .. import Params

SIDE = 28
EDGES = {"columns": ("photo[:, [0, 27]]", 2), "rows": ("photo[[0, 27]]", 1)}  # in PyTorch; the axis in ONNX

SOURCES = {
    "kthvalue": """
        # Fog: nothing is black, nothing is white. Stretch the light between the {k}-th and the {high}-th of 784 pixels.
        flat = light.flatten(1)
        low = flat.kthvalue({k}, dim=1).values[:, None, None]
        high = flat.kthvalue({high}, dim=1).values[:, None, None]
        return ((light - low) / (high - low + 0.01)).clamp(0, 1)
""",
    "median": """
        # Dead pixels are quite black or quite white. They become the median of the nine pixels around them.
        wide = nn.functional.pad(light[:, None], (1, 1, 1, 1), mode="reflect")
        median = nn.functional.unfold(wide, 3).median(dim=1).values.reshape(light.shape)
        return torch.where((light == 0) | (light == 1), median, light)
""",
    "searchsorted": """
        # The camera bends the light. Find each pixel on its curve.
        return torch.searchsorted(self.curve, light).float() / {k}
""",
}
_TEMPLATE = '''"""The scroll of the archive: what is on a photograph? Its author has left. It is right; do not change it."""

import torch
from torch import nn

import course_utils as cu


class Scroll(nn.Module):
    """Photographs, uint8 [batch, 28, 28] → scores of ten classes, float32 [batch, 10]."""

    def __init__(self):
        super().__init__()
        self.network = cu.fashion_resnet()
        self.order = {order}{curve}

    def forward(self, pixels):
        light = self.repaired(pixels.float() / 255)
        photos = []
        for photo in light:
            # Garments on white paper are dark. The network knows light ones on black.
            if {edge}.mean() > {threshold}:
                photo = {negative}
            photos.append(photo)
        x = (torch.stack(photos) - {mean}) / {std}
        return self.network(x[:, None])[:, self.order]

    def repaired(self, light):{repair}'''


def source(p: Params) -> bytes:
    """`scroll.py`: the model, as its author wrote it."""
    k = p["strength"]
    curve = f"\n        self.curve = ((torch.arange({k}) + 0.5) / {k}) ** {p['gamma']}"
    text = _TEMPLATE.format(
        order=p["order"],
        curve=curve if p["operator"] == "searchsorted" else "",
        edge=EDGES[p["edge"]][0],
        threshold=p["threshold"],
        negative="(1 - photo).flip(1)  # and mirrored" if p["mirrored"] else "1 - photo",
        mean=FASHION_MEAN,
        std=FASHION_STD,
        repair=SOURCES[p["operator"]].format(k=k, high=SIDE**2 + 1 - k),
    )
    return text.encode()
