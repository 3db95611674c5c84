"""A short training on the test pictures, for pages whose subject is what comes after it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from .data import fashion_mnist, normalize

LEARNT = 8000  # pictures to learn from; the others judge
_STEPS, _BATCH, _RATE = 400, 100, 3e-3


def train_pictures(
    net: nn.Module, weights: Iterable[Tensor], change: Callable[[Tensor], Tensor] = lambda pictures: pictures
) -> None:
    """Train some weights of a network on 8 000 of the test pictures. First used in the page on adapters.

    net: flat pictures, float32 `[batch, 784]`, normalised → logits `[batch, 10]`. weights: those that may change.
    change: what happens to a batch of pictures before. 400 steps of 100 pictures, on one thread: a few seconds.
    The same start gives the same end. Raises RuntimeError where sizes do not fit.
    """
    pictures, labels = (array[:LEARNT] for array in fashion_mnist("test"))
    x, y = torch.tensor(normalize(pictures)).flatten(1), torch.tensor(labels, dtype=torch.int64)
    optimizer, draw = torch.optim.AdamW(list(weights), lr=_RATE), torch.Generator().manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the products are small
    try:
        for _ in range(_STEPS):
            some = torch.randint(LEARNT, (_BATCH,), generator=draw)
            loss = nn.functional.cross_entropy(net(change(x[some])), y[some])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    finally:
        torch.set_num_threads(threads)
