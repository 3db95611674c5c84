"""The course's own small language model: its file, its cache, its tokens, and that it has learned something."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

from course_utils.lab.small_decoder import (
    cache_names,
    decoder_model,
    pieces,
    rotations,
    sizes,
    small_decoder_facts,
    small_decoder_text,
    small_decoder_weights,
)
from course_utils.paths import data_path
from course_utils.running import run, session_for


@pytest.fixture(scope="module")
def session():
    return session_for(decoder_model(small_decoder_weights(), sizes()))


def step(session, ids, cache=None):
    """Logits, and the longer cache."""
    its = sizes()
    cache = cache or [np.zeros((len(ids), its.kv_heads, 0, its.size), np.float32)] * (2 * its.layers)
    feed = {f"past.{name}": value for name, value in zip(cache_names(its), cache, strict=True)}
    logits, *longer = run(session, {"ids": np.array(ids), **feed}).values()
    return logits, longer


def test_the_file_is_sound_and_small():
    model = decoder_model(small_decoder_weights(), sizes(), small=True)
    onnx.checker.check_model(model, full_check=True)
    assert model.ByteSize() < 1_200_000
    assert data_path("small_decoder.safetensors").stat().st_size < 1_200_000


def test_a_text_in_parts_is_as_the_whole_text(session):
    ids = np.random.default_rng(1).integers(1, sizes().words, (3, 12))
    whole, long = step(session, ids)
    _, cache = step(session, ids[:, :5])
    _, cache = step(session, ids[:, 5:6], cache)
    rest, longer = step(session, ids[:, 6:], cache)
    np.testing.assert_allclose(whole[:, 6:], rest, atol=1e-3)
    for one, other in zip(long, longer, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


def test_no_token_sees_those_behind_it(session):
    ids = np.random.default_rng(2).integers(1, sizes().words, (1, 9))
    before, _ = step(session, ids)
    ids[0, 6] = ids[0, 6] % (sizes().words - 1) + 1
    after, _ = step(session, ids)
    np.testing.assert_allclose(before[:, :6], after[:, :6], atol=1e-3)
    assert abs(before[:, 6:] - after[:, 6:]).max() > 0.1


def test_the_small_file_is_the_same_model(session):
    small = session_for(decoder_model(small_decoder_weights(), sizes(), small=True))
    ids = np.random.default_rng(3).integers(1, sizes().words, (2, 20))
    one, other = step(session, ids)[0], step(small, ids)[0]
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_it_has_learned_english_words(session):
    """On a story that it has never read: far better than a guess, and not as good as on its own kind of text."""
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install -e '.[llm]'")
    tokenizer = tokenizers.Tokenizer.from_file(str(data_path("small_decoder_tokenizer.json")))
    story = data_path("ferry.txt").read_text(encoding="utf-8")
    ids = tokenizer.encode(" ".join(story.split())).ids[:400]
    assert small_decoder_text(ids) == tokenizer.decode(ids)
    logits = step(session, [ids])[0][0, :-1].astype(float)
    shift = logits.max(-1)
    total = np.log(np.exp(logits - shift[:, None]).sum(-1)) + shift
    loss = (total - logits[np.arange(len(ids) - 1), ids[1:]]).mean()
    assert small_decoder_facts()["loss"]["held_out"] < loss < 0.85 * np.log(sizes().words)


def test_the_bytes_of_a_token_are_those_of_its_signs():
    stored = json.loads(data_path("small_decoder_tokenizer.json").read_text(encoding="utf-8"))
    assert len(pieces()) == len(stored["model"]["vocab"]) == sizes().words
    assert sorted(piece for piece in pieces() if len(piece) == 1) == [bytes([n]) for n in range(256)]
    assert pieces()[0] == b""


def test_rotations_keep_lengths():
    cos, sin = rotations(sizes())
    assert cos.shape == sin.shape == (sizes().places, sizes().size // 2)
    np.testing.assert_allclose(cos**2 + sin**2, 1, atol=1e-6)
    assert (cos[0] == 1).all()
