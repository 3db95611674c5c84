"""Small models that decide or repeat, as somebody writes them, and rewritten so that the default exporter takes them.

Import the module by name: it loads PyTorch. `torch.jit.script` reads the source of these classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Gate(nn.Module):
    """Double x where its sum is positive, else lower it by one. x: float32, any shape."""

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x * 2
        return x - 1


class Where(nn.Module):
    """`Gate`, with both sides computed."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x.sum() > 0, x * 2, x - 1)


class Conditional(nn.Module):
    """`Gate`, with one side executed."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda x: x * 2, lambda x: x - 1, (x,))


class Reader(nn.Module):
    """A sequence, float32 [length, width] → what is remembered at its end, float32 [width]."""

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros_like(x[0])
        for i in range(x.shape[0]):
            h = torch.tanh(x[i] + 0.5 * h)
        return h


class Scanned(nn.Module):
    """`Reader`, with a loop that stays in the file."""

    def forward(self, x: Tensor) -> Tensor:
        from torch._higher_order_ops.scan import scan  # a private module, which may move

        def step(h: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
            h = torch.tanh(row + 0.5 * h)
            return h, h.clone()  # the next state, and what is kept of this step: two tensors

        return scan(step, torch.zeros_like(x[0]), x)[0]


class Mixer(nn.Module):
    """The sum of all parts, times the option "scale". parts: float32, all of one shape."""

    def forward(self, options: dict[str, Tensor], parts: list[Tensor]) -> Tensor:
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total * options["scale"]


class Stacked(nn.Module):
    """`Mixer`, with the parts in one tensor, float32 [parts, …]."""

    def forward(self, options: dict[str, Tensor], parts: Tensor) -> Tensor:
        return parts.sum(0) * options["scale"]


class Untyped(nn.Module):
    """The sum of two parts. Nothing says that `parts` is a list."""

    def forward(self, parts):
        return parts[0] + parts[1]
