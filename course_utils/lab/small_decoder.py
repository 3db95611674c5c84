"""The course's own small language model: its weights, its tokens, and its ONNX file with a cache. PyTorch is not needed.

`data/train_decoder.py` has trained it on the prose of the course; `data/small_decoder.md` tells what it can do: little.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

from ..paths import data_path
from .data import verified

OPSET, IR = 20, 10
EPSILON = 1e-5
BASE = 10000.0  # of the rotations
PIECE = 128  # tokens of one piece of the held-out pages
HIDDEN = -1e9  # what is added to the score of a place that may not be seen


@dataclass(frozen=True)
class Sizes:
    """words: tokens in the vocabulary. places: longest text. heads ask, kv_heads are kept; inner: width of the gated network."""

    words: int
    layers: int
    width: int
    inner: int
    heads: int
    kv_heads: int
    places: int

    @property
    def size(self) -> int:
        """Numbers of one head."""
        return self.width // self.heads


@cache
def small_decoder_facts() -> dict:
    """What is recorded about the model: sizes, losses, settings; see the model card."""
    return json.loads(data_path("small_decoder.json").read_text(encoding="utf-8"))


def sizes() -> Sizes:
    """The sizes of the trained model."""
    return Sizes(**small_decoder_facts()["sizes"])


def rotations(sizes: Sizes) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines for each place, float32 `[places, size / 2]` each (https://arxiv.org/abs/2104.09864)."""
    speeds = BASE ** (-np.arange(0, sizes.size, 2) / sizes.size)
    angles = np.outer(np.arange(sizes.places), speeds)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def small_decoder_weights() -> dict[str, np.ndarray]:
    """Name → weight, float32. `layers.0.q.weight` has the shape *out × in*, as in PyTorch.

    Stored are int8 and a scale for each row.
    """
    stored = {name: part.astype(np.float32) for name, part in load_file(data_path("small_decoder.safetensors")).items()}
    weights = {name: part for name, part in stored.items() if not name.endswith(".scale")}
    return {name: weight * stored.get(f"{name}.scale", np.float32(1)) for name, weight in weights.items()}


@cache
def pieces() -> tuple[bytes, ...]:
    """The bytes of each token; of the token that stands before a page, none."""
    stored = json.loads(data_path("small_decoder_tokenizer.json").read_text(encoding="utf-8"))
    signs = _signs()
    special = {token["id"] for token in stored["added_tokens"]}
    tokens = sorted(stored["model"]["vocab"].items(), key=lambda item: item[1])
    return tuple(b"" if number in special else bytes(signs[sign] for sign in token) for token, number in tokens)


@cache
def held_out_pieces() -> np.ndarray:
    """Tokens of whole pages of the course that the model has not been trained on, int64 `[38, 128]`, in the order of the text.

    Raises CourseError when the file in `data/` is missing or was changed.
    """
    return load_file(verified("small_decoder_held_out.safetensors"))["ids"].astype(np.int64)


def small_decoder_text(ids: Sequence[int]) -> str:
    """The text of tokens of the small decoder; bytes that are no whole letter become U+FFFD. First used in exercise 11."""
    return b"".join(pieces()[number] for number in ids).decode(errors="replace")


def cache_names(sizes: Sizes) -> list[str]:
    """`key.0`, `value.0`, `key.1`, …: with `past.` the inputs, with `present.` the outputs."""
    return [f"{what}.{layer}" for layer in range(sizes.layers) for what in ("key", "value")]


def decoder_model(weights: Mapping[str, np.ndarray], sizes: Sizes, *, small: bool = False) -> onnx.ModelProto:
    """The ONNX model of a decoder: `ids`, int64 `[text, new]`, and the cache → `logits`, float32 `[text, new, words]`.

    The cache is `past.key.0`, … in and `present.key.0`, … out, float32 `[text, kv_heads, past, size]`; past may be 0.
    weights: as of `small_decoder_weights`. small: store matrices in int8 with a scale for each row, as they are kept; they are
    computed with in float32. Opset 20.
    """
    graph = _Graph(small)
    graph.begin(sizes)
    table = graph.matrix("words.weight", weights["words.weight"])
    x = graph.node("Gather", [table, "ids"], "embedded")
    for layer in range(sizes.layers):
        x = graph.layer(x, layer, weights, sizes)
    x = graph.normal(x, weights["norm.weight"], "norm")
    turned = graph.node("Transpose", [table], "words_turned", perm=[1, 0])
    graph.node("MatMul", [x, turned], "logits")
    kept: list[list[str | int | None]] = [["text", sizes.kv_heads, past, sizes.size] for past in ("past", "all")]
    names = cache_names(sizes)
    real = TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info("ids", TensorProto.INT64, ["text", "new"])]
    inputs += [helper.make_tensor_value_info(f"past.{name}", real, kept[0]) for name in names]
    outputs = [helper.make_tensor_value_info("logits", real, ["text", "new", sizes.words])]
    outputs += [helper.make_tensor_value_info(f"present.{name}", real, kept[1]) for name in names]
    proto = helper.make_graph(graph.nodes, "small_decoder", inputs, outputs, graph.stored)
    return helper.make_model(proto, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)


class _Graph:
    """Nodes and weights, as they are added. Each method returns the name of the tensor that it adds."""

    def __init__(self, small: bool) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.stored: list[onnx.TensorProto] = []
        self._small = small

    def node(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=f"{output}/{op}", **attributes))
        return output

    def constant(self, value: Any, name: str) -> str:
        array = np.asarray(value)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        if all(tensor.name != name for tensor in self.stored):
            self.stored.append(numpy_helper.from_array(array, name))
        return name

    def matrix(self, name: str, value: np.ndarray, turned: bool = False) -> str:
        """value: *out × in*. turned: the other way round, as MatMul wants it."""
        if not self._small:
            return self.constant(np.ascontiguousarray(value.T if turned else value), name)
        scale = np.abs(value).max(1, keepdims=True) / np.float32(127)
        whole = np.rint(value / np.where(scale > 0, scale, 1)).astype(np.int8)
        parts = (part.T if turned else part for part in (whole, scale))
        stored, scales = (
            self.constant(np.ascontiguousarray(part), f"{name}.{what}")
            for part, what in zip(parts, ("int8", "scale"), strict=True)
        )
        wide = self.node("Cast", [stored], f"{name}.wide", to=TensorProto.FLOAT)
        return self.node("Mul", [wide, scales], name)

    def begin(self, sizes: Sizes) -> None:
        """The places of the new tokens, of all tokens, and the rotations of the new ones."""
        for number in (0, 1, 2):
            self.constant([number], f"axis_{number}")
        zero, one = self.constant(np.int64(0), "zero"), self.constant(np.int64(1), "one")
        past = self.node("Shape", ["past.key.0"], "past_shape", start=2, end=3)
        past = self.node("Squeeze", [past], "past_size")
        new = self.node("Squeeze", [self.node("Shape", ["ids"], "new_shape", start=1, end=2)], "new_size")
        total = self.node("Add", [past, new], "all_size")
        places = self.node("Range", [past, total, one], "places")
        every = self.node("Range", [zero, total, one], "every_place")
        self.node("Unsqueeze", [places, "axis_1"], "rows")
        self.node("Unsqueeze", [every, "axis_0"], "columns")
        for name, table in zip(("cos", "sin"), rotations(sizes), strict=True):
            self.node("Gather", [self.constant(table, f"{name}_table"), places], name)

    def layer(self, x: str, number: int, weights: Mapping[str, np.ndarray], sizes: Sizes) -> str:
        """Attention with a cache, then a gated network; each is added to its input."""
        at, size, kv = f"layers.{number}", sizes.size, sizes.kv_heads
        group = sizes.heads // kv

        def product(x: str, name: str) -> str:
            turned = self.matrix(f"{at}.{name}.weight", weights[f"{at}.{name}.weight"], turned=True)
            return self.node("MatMul", [x, turned], f"{at}.{name}")

        y = self.normal(x, weights[f"{at}.norm.weight"], f"{at}.norm")
        asked = self.constant([0, 0, kv, group, size], "shape_asked")
        q = self.node("Reshape", [product(y, "q"), asked], f"{at}.q_heads")
        q = self.turned(self.node("Transpose", [q], f"{at}.q_rows", perm=[0, 2, 3, 1, 4]), f"{at}.q")
        kept = {}
        for name, what in (("k", "key"), ("v", "value")):
            heads = self.node(
                "Reshape", [product(y, name), self.constant([0, 0, kv, size], "shape_kept")], f"{at}.{name}_heads"
            )
            new = self.node("Transpose", [heads], f"{at}.{name}_rows", perm=[0, 2, 1, 3])
            if name == "k":
                new = self.turned(new, f"{at}.k")
            longer = self.node("Concat", [f"past.{what}.{number}", new], f"present.{what}.{number}", axis=2)
            kept[name] = self.node("Unsqueeze", [longer, "axis_2"], f"{at}.{name}_all")
        columns = self.node("Transpose", [kept["k"]], f"{at}.k_columns", perm=[0, 1, 2, 4, 3])
        scores = self.node("MatMul", [q, columns], f"{at}.products")
        scores = self.node("Mul", [scores, self.constant(float(size**-0.5), "scale")], f"{at}.scores")
        seen = self.node("LessOrEqual", ["columns", "rows"], f"{at}.seen")
        hidden = self.constant(np.float32(0), "nothing"), self.constant(np.float32(HIDDEN), "hidden")
        mask = self.node("Where", [seen, *hidden], f"{at}.mask")
        share = self.node("Softmax", [self.node("Add", [scores, mask], f"{at}.masked")], f"{at}.share", axis=-1)
        mixed = self.node("MatMul", [share, kept["v"]], f"{at}.mixed")
        mixed = self.node("Transpose", [mixed], f"{at}.mixed_rows", perm=[0, 3, 1, 2, 4])
        mixed = self.node("Reshape", [mixed, self.constant([0, 0, sizes.width], "shape_width")], f"{at}.mixed_heads")
        x = self.node("Add", [x, product(mixed, "out")], f"{at}.attended")
        y = self.normal(x, weights[f"{at}.net_norm.weight"], f"{at}.net_norm")
        gate = product(y, "gate")
        open_gate = self.node("Mul", [gate, self.node("Sigmoid", [gate], f"{at}.share_open")], f"{at}.opened")
        inner = self.node("Mul", [open_gate, product(y, "up")], f"{at}.inner")
        return self.node("Add", [x, product(inner, "down")], f"{at}.written")

    def normal(self, x: str, scale: np.ndarray, name: str) -> str:
        """RMSNorm (https://arxiv.org/abs/1910.07467)."""
        square = self.node(
            "ReduceMean", [self.node("Mul", [x, x], f"{name}.square"), self.constant([-1], "last")], f"{name}.mean"
        )
        root = self.node(
            "Sqrt", [self.node("Add", [square, self.constant(EPSILON, "epsilon")], f"{name}.safe")], f"{name}.root"
        )
        return self.node(
            "Mul", [self.node("Div", [x, root], f"{name}.even"), self.constant(scale, f"{name}.weight")], name
        )

    def turned(self, x: str, name: str) -> str:
        """Each pair of numbers, one of either half of a head, turned by the angle of its place."""
        half = f"{name}_a", f"{name}_b"
        self.nodes.append(helper.make_node("Split", [x], half, name=f"{name}/Split", axis=-1, num_outputs=2))
        a, b = half
        parts = {
            f"{one}_{turn}": self.node("Mul", [one, turn], f"{one}_{turn}") for one in half for turn in ("cos", "sin")
        }
        first = self.node("Sub", [parts[f"{a}_cos"], parts[f"{b}_sin"]], f"{name}_first")
        second = self.node("Add", [parts[f"{b}_cos"], parts[f"{a}_sin"]], f"{name}_second")
        return self.node("Concat", [first, second], f"{name}_turned", axis=-1)


@cache
def _signs() -> dict[str, int]:
    """The sign that stands for a byte in a vocabulary of pairs of bytes → the byte, as GPT-2 has it."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + at): byte for at, byte in enumerate(rest)}
