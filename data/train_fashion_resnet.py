"""Train `fashion_resnet` on the full Fashion-MNIST training set. One-off: the result is committed.

    python data/train_fashion_resnet.py --dataset FOLDER

FOLDER holds the four original `*-ubyte.gz` files. The run is seeded, shows its progress, and resumes from
`data/.training/checkpoint.pt` after an interruption. It writes, beside this file:

    fashion_resnet.safetensors   the weights
    fashion_resnet.json          metrics, settings and the versions they were measured with
    fashion_resnet.md            the model card

The recipe is fixed in advance (one-cycle SGD, weight averaging over the last epochs); the test set is read once,
after the last epoch, and nothing is chosen by it.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import sys
import time
from datetime import date
from pathlib import Path

import numpy as np
import safetensors
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from course_utils.lab.data import CLASS_NAMES, FASHION_MEAN, FASHION_STD, read_idx  # noqa: E402
from course_utils.lab.models import FashionResNet  # noqa: E402

SEED, BATCH, PEAK_LR, WEIGHT_DECAY, EMA = 2026, 128, 0.2, 5e-4, 0.998
CHECKPOINT = HERE / ".training" / "checkpoint.pt"


def load(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    """Images float32 `[N, 1, 28, 28]`, normalized; labels int64 `[N]`."""
    images = torch.from_numpy(read_idx(folder / f"{part}-images-idx3-ubyte.gz")).float().div(255)
    labels = torch.from_numpy(read_idx(folder / f"{part}-labels-idx1-ubyte.gz")).long()
    return images.sub(FASHION_MEAN).div(FASHION_STD).unsqueeze(1), labels


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift by up to two pixels, mirror half of the images, erase one random patch of each (cutout)."""
    n = len(images)
    padded = F.pad(images, (2, 2, 2, 2), value=-FASHION_MEAN / FASHION_STD)
    dy, dx = (torch.randint(0, 5, (n, 1, 1), generator=generator) for _ in range(2))
    rows = dy + torch.arange(28).view(1, 28, 1)
    cols = dx + torch.arange(28).view(1, 1, 28)
    out = padded[torch.arange(n).view(n, 1, 1), 0, rows, cols]
    mirror = torch.rand(n, generator=generator) < 0.5
    out[mirror] = out[mirror].flip(-1)
    cy, cx = (torch.randint(0, 28, (n, 1), generator=generator) for _ in range(2))
    line = torch.arange(28).view(1, 28)
    hole = ((line - cy).abs() < 5).unsqueeze(2) & ((line - cx).abs() < 5).unsqueeze(1)
    return out.masked_fill(hole, 0.0).unsqueeze(1)


def average(ema: torch.nn.Module, model: torch.nn.Module) -> None:
    """Move `ema` a little towards `model`; integer buffers are copied."""
    with torch.no_grad():
        for old, new in zip(ema.state_dict().values(), model.state_dict().values(), strict=True):
            old.lerp_(new, 1 - EMA) if old.is_floating_point() else old.copy_(new)


@torch.no_grad()
def predict(model: torch.nn.Module, images: Tensor) -> Tensor:
    model.eval()
    return torch.cat([model(chunk) for chunk in images.split(500)])


def train(folder: Path, epochs: int) -> tuple[torch.nn.Module, float]:
    """Return the averaged model and the training time in seconds, over all resumed runs."""
    images, labels = load(folder, "train")
    torch.manual_seed(SEED)
    model = FashionResNet().to(memory_format=torch.channels_last)
    ema = copy.deepcopy(model)
    steps = len(images) // BATCH
    optimizer = torch.optim.SGD(model.parameters(), lr=PEAK_LR, momentum=0.9, weight_decay=WEIGHT_DECAY, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_LR, total_steps=steps * epochs, pct_start=0.2, final_div_factor=100
    )
    parts = {"model": model, "ema": ema, "optimizer": optimizer, "schedule": schedule}
    first, spent = 0, 0.0
    if CHECKPOINT.exists():
        saved = torch.load(CHECKPOINT, weights_only=True)
        if saved["epochs"] != epochs:
            sys.exit(f"{CHECKPOINT} is from a run of {saved['epochs']} epochs, not {epochs}: delete it to start again.")
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        first, spent = saved["epoch"] + 1, saved["seconds"]
        print(f"resuming after epoch {first}")
    for epoch in range(first, epochs):
        start, model_loss = time.perf_counter(), 0.0
        generator = torch.Generator().manual_seed(SEED * 1000 + epoch)  # so that a resumed run draws the same
        torch.manual_seed(SEED * 1000 + epoch)
        order = torch.randperm(len(images), generator=generator)
        model.train()
        bar = tqdm(range(steps), desc=f"epoch {epoch + 1}/{epochs}", mininterval=2)
        for step in bar:
            pick = order[step * BATCH : (step + 1) * BATCH]
            batch = augment(images[pick], generator).to(memory_format=torch.channels_last)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model(batch)
            loss = F.cross_entropy(logits.float(), labels[pick], label_smoothing=0.1)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            average(ema, model)
            model_loss += (loss.item() - model_loss) / (step + 1)
            bar.set_postfix(loss=f"{model_loss:.4f}", refresh=False)
        spent += time.perf_counter() - start
        CHECKPOINT.parent.mkdir(exist_ok=True)
        state = {name: part.state_dict() for name, part in parts.items()}
        partial = CHECKPOINT.with_suffix(".partial")
        torch.save({**state, "epoch": epoch, "epochs": epochs, "seconds": spent}, partial)
        os.replace(partial, CHECKPOINT)
    return ema, spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True, help="folder with the four *-ubyte.gz files")
    parser.add_argument("--epochs", type=int, default=24)
    args = parser.parse_args()
    model, seconds = train(args.dataset, args.epochs)
    model = model.to(memory_format=torch.contiguous_format)

    images, labels = load(args.dataset, "t10k")
    logits = predict(model, images)
    hits = logits.argmax(1) == labels
    per_class = {name: round(hits[labels == i].float().mean().item(), 4) for i, name in enumerate(CLASS_NAMES)}
    parameters = sum(p.numel() for p in model.parameters())
    weights = {k: v.contiguous() for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    save_file(weights, HERE / "fashion_resnet.safetensors", metadata={"format": "pt"})
    report = {
        "test_accuracy": hits.float().mean().item(),
        "test_images": len(labels),
        "test_loss": F.cross_entropy(logits, labels).item(),
        "per_class_accuracy": per_class,
        "parameters": parameters,
        "epochs": args.epochs,
        "training_seconds": round(seconds),
        "settings": {"seed": SEED, "batch": BATCH, "peak_lr": PEAK_LR, "weight_decay": WEIGHT_DECAY, "ema": EMA},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "date": date.today().isoformat(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__.split("+")[0],
            "numpy": np.__version__,
            "safetensors": safetensors.__version__,
        },
    }
    (HERE / "fashion_resnet.json").write_text(json.dumps(report, indent=2) + "\n")
    (HERE / "fashion_resnet.md").write_text(model_card(report))
    from build_dataset import write_sums

    write_sums()
    print(f"test accuracy {report['test_accuracy']:.4f} with {parameters:,} parameters")


def model_card(report: dict) -> str:
    rows = "\n".join(f"| {name} | {value:.1%} |" for name, value in report["per_class_accuracy"].items())
    versions = ", ".join(f"{k} {v}" for k, v in report["versions"].items())
    return f"""# Model card: fashion_resnet

Written by `data/train_fashion_resnet.py`; do not edit.

| | |
|---|---|
| task | 28×28 grey images of clothes → one of ten classes |
| architecture | residual network of Conv-BN-ReLU blocks, {report["parameters"]:,} parameters |
| input | float32 `[N, 1, 28, 28]`: pixels / 255, minus {FASHION_MEAN}, divided by {FASHION_STD} |
| output | float32 `[N, 10]`, logits |
| training data | the 60 000 training images of Fashion-MNIST (Zalando SE, MIT licence) |
| recipe | {report["epochs"]} epochs of one-cycle SGD, batch {BATCH}, shift, mirror, cutout, label smoothing 0.1, averaged weights |
| **test accuracy** | **{report["test_accuracy"]:.2%}** of {report["test_images"]:,} images, read once after the last epoch |
| trained | {report["date"]}, {report["machine"]}, {report["training_seconds"] / 60:.0f} minutes; {versions} |
| intended use | teaching. It knows ten kinds of catalogue pictures and nothing else |
| licence | Apache-2.0 |

| class | test accuracy |
|---|---|
{rows}
"""


if __name__ == "__main__":
    main()
