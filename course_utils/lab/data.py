"""Fashion-MNIST as the course uses it: read from `data/`, every file checked against its SHA-256."""

from __future__ import annotations

import gzip
import hashlib
import os
import socket
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Literal

import numpy as np

from ..errors import CourseError, require
from ..paths import cannot_write, data_path

CLASS_NAMES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
FASHION_MEAN, FASHION_STD = 0.2860, 0.3530  # of the 60 000 training images, scaled to [0, 1]


def read_idx(path: Path) -> np.ndarray:
    """Read a gzipped IDX file of unsigned bytes (format: http://yann.lecun.com/exdb/mnist). Returns uint8, any rank."""
    with gzip.open(path, "rb") as stream:
        _, rank = struct.unpack(">3sB", stream.read(4))
        shape = struct.unpack(f">{rank}I", stream.read(4 * rank))
        return np.frombuffer(stream.read(), np.uint8).reshape(shape).copy()


def verified(name: str) -> Path:
    """The path of a file in `data/`, after its SHA-256 was compared with `data/SHA256SUMS`.

    Raises CourseError when the file is missing or was changed.
    """
    path = data_path(name)
    for needed in (data_path("SHA256SUMS"), path):
        if not needed.exists():
            raise CourseError(
                f"The data file {str(needed)!r} is missing: restore it with  "
                f"git checkout -- data/{needed.relative_to(data_path()).as_posix()}  or install the course again."
            )
    lines = data_path("SHA256SUMS").read_text().splitlines()
    sums = {file: digest for digest, file in map(str.split, lines)}
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sums.get(name):
        raise CourseError(
            f"The data file {str(path)!r} was changed or is damaged: its SHA-256 begins {found[:12]}, expected "
            f"{sums.get(name, 'an entry in SHA256SUMS')[:12]}. Restore it with  git checkout -- data/{name}  or install the course again."
        )
    return path


def fashion_mnist(
    part: Literal["test", "calibration", "train"] = "test", folder: str | Path = "work/fashion-mnist"
) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 `[N, 28, 28]` and labels int64 `[N]` of one part of Fashion-MNIST. First used in lesson 00.

    part: "test" (10 000 images) and "calibration" (1 000 of the training images, 100 per class) come with the course.
    "train" (60 000) is downloaded once into `folder` by torchvision, and needs the internet.
    Raises CourseError for another name, a damaged file, or a network that is not there.
    """
    if part in ("test", "calibration"):
        stem = f"fashion-mnist/{part}"
        return read_idx(verified(f"{stem}-images.gz")), read_idx(verified(f"{stem}-labels.gz")).astype(np.int64)
    if part != "train":
        raise CourseError(f"Fashion-MNIST has no part {part!r}: ask for 'test', 'calibration' or 'train'.")
    return _training_set(Path(folder))


def _training_set(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    from ..torchvision_ops import make_importable

    make_importable()
    require("torchvision")
    from torchvision.datasets import FashionMNIST

    try:
        folder.mkdir(parents=True, exist_ok=True)
        # torchvision takes any file of the right name for a whole one, so what it fetches is moved in when complete.
        partial = tempfile.TemporaryDirectory(prefix=".partial-", dir=folder)
    except OSError as error:
        raise CourseError(cannot_write(folder, error)) from None
    try:
        with partial, impatient_network(), redirect_stdout(StringIO()):
            if not (folder / "FashionMNIST").exists():
                FashionMNIST(partial.name, train=True, download=True)
                os.replace(Path(partial.name, "FashionMNIST"), folder / "FashionMNIST")
            full = FashionMNIST(str(folder), train=True)
    except (OSError, RuntimeError) as error:
        if not any(folder.iterdir()):
            folder.rmdir()
        raise CourseError(
            f"The full training set could not be downloaded into {str(folder)!r} ({type(error).__name__}). Check the "
            f"network, or go on with cu.fashion_mnist('test') and ('calibration'), which come with the course."
        ) from None
    return full.data.numpy(), full.targets.numpy()


@contextmanager
def impatient_network(seconds: float = 10) -> Iterator[None]:
    """Let no connection wait longer than this: torchvision's own downloads would wait for ever behind a silent firewall."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def normalize(images: np.ndarray) -> np.ndarray:
    """Turn images uint8 `[N, 28, 28]` into the input of `fashion_resnet`: float32 `[N, 1, 28, 28]`. First used in lesson 00.

    Raises CourseError for another dtype or shape.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != (28, 28):
        raise CourseError(
            f"normalize() was given {images.dtype} {list(images.shape)}, it expects uint8 [N, 28, 28], as "
            f"cu.fashion_mnist() returns. One image alone goes in as images[:1]."
        )
    scaled = images.astype(np.float32) / np.float32(255)
    return ((scaled - np.float32(FASHION_MEAN)) / np.float32(FASHION_STD))[:, None]
