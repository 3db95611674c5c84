"""Build `data/fashion-mnist/` from the four original Fashion-MNIST files. One-off: the result is committed.

    python data/build_dataset.py --dataset FOLDER

Writes the 10 000 test images, a calibration set of 1 000 training images (100 per class, drawn with a fixed seed), and
`data/SHA256SUMS` for every file that the course loads.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import struct
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from course_utils.lab.data import read_idx  # noqa: E402

SEED, PER_CLASS = 2026, 100
CHECKED = (
    "fashion-mnist/*.gz",
    "fashion_resnet.safetensors",
    "fashion_answers.safetensors",
    "minilm_sentences.safetensors",
    "small_decoder.safetensors",
    "small_decoder_held_out.safetensors",
)


def write_idx(path: Path, values: np.ndarray) -> None:
    """Write unsigned bytes as gzipped IDX; no name or time goes into the file, so that the bytes depend on values alone."""
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    path.write_bytes(gzip.compress(header + values.astype(np.uint8).tobytes(), 9, mtime=0))


def calibration_indices(labels: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(SEED)
    chosen = [rng.choice(np.flatnonzero(labels == c), PER_CLASS, replace=False) for c in range(10)]
    return rng.permutation(np.concatenate(chosen))


def write_sums() -> None:
    files = sorted(path for pattern in CHECKED for path in HERE.glob(pattern))
    lines = [f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.relative_to(HERE).as_posix()}\n" for f in files]
    (HERE / "SHA256SUMS").write_text("".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True, help="folder with the four *-ubyte.gz files")
    folder = parser.parse_args().dataset
    out = HERE / "fashion-mnist"
    out.mkdir(exist_ok=True)
    parts = {
        p: [read_idx(folder / f"{p}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1")]
        for p in ("t10k", "train")
    }
    write_idx(out / "test-images.gz", parts["t10k"][0])
    write_idx(out / "test-labels.gz", parts["t10k"][1])
    pick = calibration_indices(parts["train"][1])
    write_idx(out / "calibration-images.gz", parts["train"][0][pick])
    write_idx(out / "calibration-labels.gz", parts["train"][1][pick])
    write_sums()


if __name__ == "__main__":
    main()
