"""Task 11.3: token by token, exactly."""

from __future__ import annotations

from functools import cache
from random import Random
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from ...lab.small_decoder import cache_names, decoder_model, pieces, sizes, small_decoder_weights
from ...running import run, session_for
from .. import Criteria, Criterion, Params
from ..examine import wants_keys, whole
from ..slips import Feed

COUNT = 24
_NEAR = 1e-3  # scores that are nearer to each other than that are taken as equal: kernels round differently
_SHORTEST = 5  # bytes of a word that a prompt is made of, with the space before it


def draw_prompt(rng: Random) -> Params:
    """Personal parameters of 11.3: the tokens of a prompt, each of them a word."""
    words = [
        n for n, piece in enumerate(pieces()) if len(piece) >= _SHORTEST and piece[:1] == b" " and piece[1:].isalpha()
    ]
    return {"prompt": rng.sample(words, rng.randint(5, 9))}


def plain_decoder(p: Params) -> onnx.ModelProto:
    """The file of 11.3; the same for all, the prompt is not. Its weights are stored in int8: it is no answer to 11.1 or 11.2."""
    return decoder_model(small_decoder_weights(), sizes(), small=True)


@cache
def _session() -> ort.InferenceSession:
    return session_for(plain_decoder({}))


def check_greedy(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    """The check of 11.3: each token is the best one after those before it. One run tells it for all of them."""
    criteria = Criteria()
    if not wants_keys(answer, {"greedy", "no_repeat"}, criteria):
        return criteria
    greedy, fresh = answer["greedy"], answer["no_repeat"]
    hint = _form(greedy, p) or _first_wrong(_ids(greedy), p, set())
    criteria.add(f"greedy: the {COUNT} tokens with the highest scores", not hint, hint)
    hint = _form(fresh, p) or _first_wrong(_ids(fresh), p, set(p["prompt"]))
    criteria.add(
        f"no_repeat: the {COUNT} tokens with the highest scores among those that are not there yet", not hint, hint
    )
    return criteria


def _ids(value: list) -> list[int]:
    return [n for v in value if (n := whole(v)) is not None]


def _form(value: object, p: Params) -> str:
    """What is wrong with the form of an answer; empty when nothing is."""
    if not isinstance(value, list) or len(_ids(value)) < len(value):
        return "It must be a list of whole numbers: the tokens."
    ids = _ids(value)
    if ids[: len(p["prompt"])] == p["prompt"]:
        return "It begins with the prompt: write the new tokens alone."
    if len(ids) != COUNT:
        return f"It has {len(ids)} tokens, and {COUNT} are asked for."
    if odd := [n for n in ids if not 0 <= n < sizes().words]:
        return f"{odd[0]} is no token: they go from 0 to {sizes().words - 1}."
    return ""


def _scores(ids: list[list[int]]) -> np.ndarray:
    """Scores of the right decoder, float32 `[texts, tokens, words]`, from an empty past."""
    its = sizes()
    empty = np.zeros((len(ids), its.kv_heads, 0, its.size), np.float32)
    feed: Feed = {"ids": np.array(ids, np.int64), **{f"past.{name}": empty for name in cache_names(its)}}
    return run(_session(), feed)["logits"]


def _first_wrong(ids: list[int], p: Params, taken: set[int]) -> str:
    """The first token that is not the best one, and why; empty when each is. taken: tokens that may not come again."""
    prompt, fresh = p["prompt"], bool(taken)
    scores = _scores([prompt + ids])[0]
    taken = set(taken)
    for at, token in enumerate(ids):
        row = scores[len(prompt) + at - 1].astype(float)
        if fresh and token in taken:
            return f"Token {at} ({token}) stands in the prompt or was chosen before: it may not come again."
        row[list(taken)] = -np.inf
        if row[token] < row.max() - _NEAR:
            return f"Token {at} ({token}) does not have the highest score after those before it. {_cause(ids, at, p, scores)}"
        if fresh:
            taken.add(token)
    return ""


def _cause(ids: list[int], at: int, p: Params, scores: np.ndarray) -> str:
    """The slip that explains the first wrong token."""
    text = p["prompt"] + ids
    place = len(p["prompt"]) + at - 1
    if at == 0 and place and scores[place - 1].argmax() == ids[0]:
        return "It is what follows the last token but one: take logits[0, -1]."
    if at and _scores([[text[place]]])[0, -1].argmax() == ids[at]:
        return "It is what follows the last token alone: the past is missing. Feed what the step before has returned."
    if _scores([[p["prompt"][-1], *ids[:at]]])[0, -1].argmax() == ids[at]:
        return "It is what follows when only the last token of the prompt was fed."
    if (-scores[place]).argsort()[1] == ids[at]:
        return "It has the second highest score."
    return "Compute the whole text anew for each token, and compare with your loop."
