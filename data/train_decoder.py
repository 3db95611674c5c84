"""Train `small_decoder`, a language model of about one million weights, on the prose of this course. One-off: the result is
committed.

    python data/train_decoder.py

The text is that of the lessons, of the pages that lie deeper, and of the book's own pages, in plain words; whole pages are
held out. The run is seeded, prints its progress, and takes about ten minutes on one processor core. It writes, beside this file:

    small_decoder.safetensors      the weights: int8 with a scale for each row, norms in float16
    small_decoder_tokenizer.json   byte pairs, in the format of the package tokenizers
    small_decoder_held_out.safetensors   the tokens of the held-out pages, in pieces
    small_decoder.json             sizes, losses, settings, versions
    small_decoder.md               the model card

Nothing is chosen by the held-out pages: the number of steps is fixed in advance, and the last weights are kept.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
import sys
import time
from datetime import date
from pathlib import Path

import jupytext
import numpy as np
import safetensors
import tokenizers
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

from course_utils.lab.small_decoder import PIECE, Sizes, decoder_model, rotations, small_decoder_weights  # noqa: E402
from course_utils.running import run, session_for  # noqa: E402

SEED, STEPS, BATCH, LENGTH, PEAK_LR, DROPOUT, HELD_OUT = 2026, 600, 16, 256, 2e-3, 0.2, 0.05
SIZES = Sizes(words=768, layers=5, width=128, inner=352, heads=4, kv_heads=2, places=512)
START = "<start>"
PAGES = ("notebooks/*.py", "notebooks/deeper/*.py", "notebooks/*.md", "jupyter-book/*.md")


def pages() -> dict[str, str]:
    """Path of each page → its prose."""
    found = {}
    for file in sorted(file for pattern in PAGES for file in ROOT.glob(pattern)):
        source = file.read_text(encoding="utf-8")
        if file.suffix == ".py":
            if not source.startswith("# %%"):
                continue  # the generator
            cells = jupytext.reads(source, "py:percent").cells
            source = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        found[file.relative_to(ROOT).as_posix()] = plain(source)
    return found


def plain(markdown: str) -> str:
    """Prose without code blocks, tables, HTML, directives, addresses and marks; one line a paragraph."""
    text = re.sub(r"^(```|:::).*?^\1.*?$", "", markdown, flags=re.M | re.S)
    text = re.sub(r"!\[[^]]*]\([^)]*\)|<[^>\n]+>", "", text)
    text = re.sub(r"\[([^]]*)]\([^)]*\)", r"\1", text)
    text = re.sub(r"^\s*(\||---|\(.*\)=).*$", "", text, flags=re.M)
    text = re.sub(r"^ *> ?", "", text, flags=re.M)
    text = re.sub(r"\n *(?=[-*] |\d+\. |#)", "\n\n", text)
    text = re.sub(r"[*`$]|^#+ |^ *[-*] ", "", text, flags=re.M)
    paragraphs = (" ".join(part.split()) for part in text.split("\n\n"))
    return "\n".join(part for part in paragraphs if part)


def byte_pairs(texts: list[str]) -> Tokenizer:
    """A tokenizer of pairs of bytes; its first token stands before each page."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=SIZES.words, special_tokens=[START], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


class Layer(nn.Module):
    """One layer of a Llama, without a cache: in training all places of a text are there at once."""

    def __init__(self) -> None:
        super().__init__()
        width, kept = SIZES.width, SIZES.kv_heads * SIZES.size
        self.norm, self.net_norm = nn.RMSNorm(width, eps=1e-5), nn.RMSNorm(width, eps=1e-5)
        self.q, self.out = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.k, self.v = (nn.Linear(width, kept, bias=False) for _ in range(2))
        self.gate, self.up = (nn.Linear(width, SIZES.inner, bias=False) for _ in range(2))
        self.down = nn.Linear(SIZES.inner, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        y = self.norm(x)
        q, k, v = (part(y).unflatten(-1, (-1, SIZES.size)).transpose(1, 2) for part in (self.q, self.k, self.v))
        q, k = (self._turned(part, cos, sin) for part in (q, k))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + F.dropout(self.out(mixed.transpose(1, 2).flatten(2)), DROPOUT, self.training)
        y = self.net_norm(x)
        return x + F.dropout(self.down(F.silu(self.gate(y)) * self.up(y)), DROPOUT, self.training)

    @staticmethod
    def _turned(part: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        a, b = part.chunk(2, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Decoder(nn.Module):
    """ids, int64 `[batch, length]` → logits, float32 `[batch, length, words]`."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(SIZES.words, SIZES.width)
        self.layers = nn.ModuleList(Layer() for _ in range(SIZES.layers))
        self.norm = nn.RMSNorm(SIZES.width, eps=1e-5)
        self.turn = [torch.from_numpy(part) for part in rotations(SIZES)]
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                last = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * SIZES.layers) if last else 0.02)

    def forward(self, ids: Tensor) -> Tensor:
        x = F.dropout(self.words(ids), DROPOUT, self.training)
        for layer in self.layers:
            x = layer(x, *(part[: ids.shape[1]] for part in self.turn))
        return F.linear(self.norm(x), self.words.weight)


def loss_of(model: Decoder, ids: Tensor) -> float:
    """Mean loss of a token in nats, in windows of LENGTH, each read from its own beginning."""
    model.eval()
    count = (len(ids) - 1) // LENGTH
    x, y = (ids[at : at + count * LENGTH].view(count, LENGTH) for at in (0, 1))
    with torch.no_grad():
        return F.cross_entropy(model(x).flatten(0, 1), y.flatten()).item()


def train(learned: Tensor, held_out: Tensor) -> tuple[Decoder, float]:
    """The model after the last step, and the seconds that it took."""
    torch.manual_seed(SEED)
    model, random = Decoder(), np.random.default_rng(SEED)
    matrices = [weight for weight in model.parameters() if weight.ndim == 2]
    scales = [weight for weight in model.parameters() if weight.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": scales, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK_LR, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, total_steps=STEPS, pct_start=0.08)
    start = time.perf_counter()
    for step in range(1, STEPS + 1):
        model.train()
        at = torch.from_numpy(random.integers(0, len(learned) - LENGTH - 1, BATCH))[:, None] + torch.arange(LENGTH)
        loss = F.cross_entropy(model(learned[at]).flatten(0, 1), learned[at + 1].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == 1:
            spent = time.perf_counter() - start
            print(f"{step}: loss {loss:.3f}, held out {loss_of(model, held_out):.3f}, {spent:.0f} s", flush=True)
    return model.eval(), time.perf_counter() - start


def packed(model: Decoder) -> dict[str, Tensor]:
    """The weights as they are stored: matrices int8, from -127 to 127, with a scale for each row, `NAME.scale`, float16."""
    stored = {}
    for name, weight in model.state_dict().items():
        if weight.ndim == 1:
            stored[name] = weight.half()
            continue
        scale = (weight.abs().amax(1, keepdim=True) / 127).half()
        stored[name], stored[f"{name}.scale"] = (weight / scale.float()).round().clamp(-127, 127).to(torch.int8), scale
    return stored


def in_pieces(ids: Tensor) -> dict[str, Tensor]:
    """Tokens as they are stored, int16 `[pieces, PIECE]`; the rest at the end is left out."""
    return {"ids": ids[: len(ids) // PIECE * PIECE].view(-1, PIECE).to(torch.int16)}


def main() -> None:
    torch.set_num_threads(1)  # two wait for each other as soon as anything else runs
    texts = pages()
    random = np.random.default_rng(SEED)
    names = sorted(texts)
    held = sorted(str(name) for name in random.choice(names, max(2, round(HELD_OUT * len(names))), replace=False))
    tokenizer = byte_pairs([texts[name] for name in names if name not in held])

    def ids(chosen: list[str]) -> Tensor:
        return torch.tensor([n for name in chosen for n in tokenizer.encode(START + texts[name]).ids])

    kept = [str(name) for name in random.permutation([name for name in names if name not in held])]
    learned, held_out = ids(kept), ids(held)
    print(f"{len(names)} pages, {len(learned):,} tokens, {len(held_out):,} held out: {', '.join(held)}")
    model, seconds = train(learned, held_out)
    before = loss_of(model, held_out)
    save_file(packed(model), HERE / "small_decoder.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(HERE / "small_decoder_tokenizer.json"), pretty=False)
    save_file(in_pieces(held_out), HERE / "small_decoder_held_out.safetensors", metadata={"format": "pt"})
    arrays = small_decoder_weights()  # as everybody reads them
    model.load_state_dict({name: torch.from_numpy(weight) for name, weight in arrays.items()})
    some = held_out[None, :100].clone()
    empty = np.zeros((1, SIZES.kv_heads, 0, SIZES.size), np.float32)
    past = {f"past.{what}.{layer}": empty for layer in range(SIZES.layers) for what in ("key", "value")}
    found = run(session_for(decoder_model(arrays, SIZES)), {"ids": some.numpy(), **past})["logits"]
    apart = float(abs(found - model(some).detach().numpy()).max())
    assert apart < 1e-3, apart
    report = {
        "sizes": vars(SIZES),
        "loss": {
            "learned": round(loss_of(model, learned), 3),
            "held_out": round(loss_of(model, held_out), 3),
            "held_out_before_int8": round(before, 3),
        },
        "tokens": {"learned": len(learned), "held_out": len(held_out)},
        "characters": sum(map(len, texts.values())),
        "held_out": held,
        "text_sha256": hashlib.sha256("\n".join(texts[name] for name in names).encode()).hexdigest(),
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "training_seconds": round(seconds),
        "settings": {
            "seed": SEED,
            "steps": STEPS,
            "batch": BATCH,
            "length": LENGTH,
            "peak_lr": PEAK_LR,
            "dropout": DROPOUT,
        },
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "date": date.today().isoformat(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__.split("+")[0],
            "tokenizers": tokenizers.__version__,
            "safetensors": safetensors.__version__,
        },
    }
    (HERE / "small_decoder.json").write_text(json.dumps(report, indent=2) + "\n")
    (HERE / "small_decoder.md").write_text(model_card(report))
    from build_dataset import write_sums

    write_sums()
    print(f"loss {report['loss']}, {report['parameters']:,} parameters, ONNX apart by {apart:.0e}")


def model_card(report: dict) -> str:
    sizes, settings, tokens, loss = (report[part] for part in ("sizes", "settings", "tokens", "loss"))
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    return f"""# Model card: small_decoder

Written by `data/train_decoder.py`; do not edit.

| | |
|---|---|
| task | continues a text: scores for the next token |
| architecture | {sizes["layers"]} layers as in a Llama, {report["parameters"]:,} parameters: width {sizes["width"]}, {sizes["heads"]} heads that ask, {sizes["kv_heads"]} that are kept, table of words shared with the last product |
| stored | matrices in int8 with a scale for each row, norms in float16 |
| tokens | {sizes["words"]}, pairs of bytes, learned on the same text |
| training data | the prose of this course: lessons, deeper pages, glossary, the book's pages, without code and tables; {report["characters"]:,} characters, SHA-256 of the text `{report["text_sha256"][:16]}…` |
| held out | whole pages: {", ".join(report["held_out"])}; their tokens are in `small_decoder_held_out.safetensors` |
| recipe | seed {settings["seed"]}, {settings["steps"]} steps of AdamW with {settings["batch"]} texts of {settings["length"]} tokens, one cycle up to {settings["peak_lr"]}, dropout {settings["dropout"]}; nothing is chosen by the held-out pages |
| **loss of a token** | **{loss["held_out"]:.2f}** nats on {tokens["held_out"]:,} held-out tokens (perplexity {math.exp(loss["held_out"]):.0f}; {loss["held_out_before_int8"]:.2f} before the weights were stored in int8), {loss["learned"]:.2f} on the {tokens["learned"]:,} tokens that it was trained on |
| trained | {report["date"]}, {report["machine"]}, one thread, {report["training_seconds"] / 60:.0f} minutes; {versions} |
| intended use | teaching. It writes sentences that look like this course and mean little. Do not believe what it says |
| licence | Apache-2.0, as the other weights of the course; the text that it was trained on is the course's own |
"""


if __name__ == "__main__":
    main()
