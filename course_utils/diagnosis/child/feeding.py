"""Made-up inputs for a session: which sizes a model leaves free, what to try for them, and arrays of these sizes.

Imported by `trial_child` alone, so by no process that must live on.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

_NUMPY = {
    "float": "float32", "double": "float64", "float16": "float16", "int64": "int64", "int32": "int32", "int16": "int16",
    "int8": "int8", "uint8": "uint8", "uint16": "uint16", "uint32": "uint32", "uint64": "uint64", "bool": "bool",
}  # fmt: skip
_FLOATS = ("float", "double", "float16")
_LARGEST = 64 * 2**20  # elements of one made-up input
_USUAL = (16, 32, 64, 224)
_RARER = (*range(3, 16), 28, 96, 112, 128, 160, 192, 256, 299, 320, 384, 416, 448, 512, 640)
_BATCHES = (1, 2, 3, 4, 8, 16, 32, 64)
_MOST = 96  # combinations of sizes that are tried

Sizes = dict[str, int]


class UnmadeError(Exception):
    """An input that cannot be made up."""


@dataclass
class Shapes:
    """The inputs of a session: what is free in them.

    first: names of free sizes that stand first in an input: the batch, in most models. other: all other ones.
    A size without a name gets one from its place.
    """

    inputs: list[Any]
    first: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        in_front = {name for i in self.inputs for name in self.of(i)[:1]}  # a name counts as such everywhere
        free = dict.fromkeys(name for i in self.inputs for name in self.of(i) if isinstance(name, str))
        plain = [name for name in free if formula(name, dict.fromkeys(free, 1)) is None]
        self.first = [name for name in plain if name in in_front]
        self.other = [name for name in plain if name not in in_front]

    @staticmethod
    def of(value: Any) -> list[int | str]:
        """A number, or the name of a free size, for each axis."""
        return [
            d if isinstance(d, str) or (isinstance(d, int) and d >= 0) else f"axis {axis} of {value.name}"
            for axis, d in enumerate(value.shape)
        ]

    @property
    def free(self) -> list[str]:
        return [*self.first, *self.other]

    @property
    def only_floats(self) -> bool:
        """Whether what is fed cannot be at fault: whole numbers can be indices, lengths, or shapes."""
        return all(_inner(i) in _FLOATS for i in self.inputs)

    def tries(self, hints: list[int]) -> Iterator[Sizes]:
        """Sizes to try, the likely ones first. hints: numbers that stand in the file, where a frozen size may be one of them."""
        tried = []
        for sizes in self._tries(hints):
            if sizes not in tried:
                tried.append(sizes)
                yield sizes
            if len(tried) == _MOST:
                return

    def _tries(self, hints: list[int]) -> Iterator[Sizes]:
        def sized(first: int, other: int, **more: int) -> Sizes:
            return {**dict.fromkeys(self.first, first), **dict.fromkeys(self.other, other), **more}

        if not self.other:
            yield from (sized(n, n) for n in (*_BATCHES, *hints))
            return
        yield from (sized(1, n) for n in _USUAL)
        if len(self.other) > 1:  # a cache that is empty; caches stand behind what they are for
            yield from (sized(1, 16, **{name: 0}) for name in reversed(self.other))
        yield from (sized(1, n) for n in hints)
        yield from (sized(n, n) for n in (1, 2, 16, *hints))
        yield from (sized(n, 16) for n in (2, 3, 4))
        if len(self.other) == 2:
            pairs = product(hints[:6], repeat=2)
            yield from (sized(1, 1, **dict(zip(self.other, pair, strict=True))) for pair in pairs)
        yield from (sized(1, n) for n in _RARER)

    def feed(self, sizes: Sizes, kind: str) -> dict[str, np.ndarray]:
        """Arrays of these sizes. kind: "normal" gives normal numbers, zeros and False, "uniform" numbers from 0.1 to 1, ones and True."""
        rng = np.random.default_rng(0)
        made: dict[str, np.ndarray] = {}
        for value in self.inputs:
            shape = [_known(d, sizes) for d in self.of(value)]
            inner = _inner(value)
            if math.prod(shape) > _LARGEST:
                raise UnmadeError(f"the input {value.name!r} of shape {shape} is too large to make up")
            if inner == "string":
                made[value.name] = np.full(shape, "a", dtype=np.object_)
            elif inner not in _NUMPY:
                raise UnmadeError(f"the input {value.name!r} is a {value.type}, which cannot be made up")
            elif inner in _FLOATS:
                numbers = rng.standard_normal(shape) if kind == "normal" else rng.uniform(0.1, 1, shape)
                made[value.name] = np.asarray(numbers, _NUMPY[inner])
            else:
                made[value.name] = np.full(shape, int(kind != "normal"), _NUMPY[inner])
        return made


def others(shapes: Shapes, name: str, base: Sizes) -> list[int]:
    """What else to put in the place of a size that ran. Not 1, which fits nearly everything."""
    size = base[name]
    if name in shapes.first:
        wanted = [2, 3] if size < 3 else [2, 3, size + 1]
    else:
        wanted = [size + 1, size // 2, 2 * size, *([3 * size] if size <= 64 else []), 16, 32, 64] if size else [1, 8]
    return [n for n in dict.fromkeys(wanted) if n != size and n > (size > 0)]


def together(shapes: Shapes, name: str, base: Sizes, size: int) -> list[Sizes]:
    """A size changed with others: it may be free, and have to be equal to these."""
    kin = shapes.first if name in shapes.first else shapes.other
    same = [other for other in base if base[other] == base[name]]
    changes = [{**base, **dict.fromkeys(names, size)} for names in (kin, same, base)]
    return [c for i, c in enumerate(changes) if c not in changes[:i] and c != {**base, name: size}]


_SIGNS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv}


def formula(name: str, sizes: Sizes) -> int | None:
    """The value of a size such as `past + 1` or `2*s0`, as exporters write them; None where the name is no formula of known sizes."""

    def value(node: ast.expr) -> int:
        if isinstance(node, ast.BinOp) and type(node.op) in _SIGNS:
            return _SIGNS[type(node.op)](value(node.left), value(node.right))
        if isinstance(node, ast.Constant) and isinstance(node.value, int) and abs(node.value) < 10**6:
            return node.value
        if isinstance(node, ast.Name):
            return sizes[node.id]
        raise KeyError(name)

    try:
        tree = ast.parse(name[:200], mode="eval").body
        return None if isinstance(tree, ast.Name | ast.Constant) else value(tree)
    except (SyntaxError, KeyError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def size_of(dim: int | str, sizes: Sizes) -> int | None:
    """The number that stands for a dimension; None for a name that is not known."""
    if isinstance(dim, int):
        return dim
    return sizes[dim] if dim in sizes else formula(dim, sizes)


def _known(dim: int | str, sizes: Sizes) -> int:
    size = size_of(dim, sizes)
    if size is None:  # such as a // b where b is 0: with these sizes it does not run
        raise ValueError(f"The size {dim!r} has no value here.")
    return size


def _inner(value: Any) -> str:
    return value.type.removeprefix("tensor(").removesuffix(")") if value.type.startswith("tensor(") else ""
