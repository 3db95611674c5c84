"""Tasks 11.1 and 11.2: a decoder whose past is frozen, and one with a wrong mask in one layer."""

from __future__ import annotations

from random import Random

import onnx

from ...lab.small_decoder import sizes
from .. import Criteria, Criterion, Params
from ..examine import has_io, is_sound, numpy_source
from ..slips import Calculation, compare
from .decoders import (
    INPUTS,
    MASKS,
    OUTPUTS,
    decoder,
    draw_scale,
    feed,
    from_the_first,
    frozen,
    late,
    right_scores,
    scores_with,
    weights_are_given,
)

_TOLERANCE = {"atol": 2e-3, "rtol": 1e-3}


def _compared(
    model: onnx.ModelProto, given: onnx.ModelProto, p: Params, rng: Random, slips: dict[str, Calculation], advice: str
) -> list[Criterion]:
    """Two goals: one text at a time, and several. Each has an empty past, and pasts of other lengths than the given file's."""
    criteria = Criteria()
    if not is_sound(model, criteria) or not has_io(model, INPUTS, OUTPUTS, criteria):
        return criteria
    if not weights_are_given(model, given, criteria):
        return criteria
    source = numpy_source(rng)
    lengths = source.choice([n for n in range(2, 40) if n != p.get("past")], 3, replace=False).tolist()
    # Rotations tell how far tokens are apart: without a past it does not matter where they begin.
    one = [(1, 7, 0), (1, 3, lengths[0])]
    several = [(3, 4, 0), (2, 5, lengths[1]), (2, 2, lengths[2])]
    compare(
        model,
        {
            "the scores are right for one text, with a past and without": [feed(source, *size) for size in one],
            "the scores are right for several texts, with a past and without": [
                feed(source, *size) for size in several
            ],
        },
        right_scores(p),
        slips,
        criteria,
        otherwise=advice,
        **_TOLERANCE,
    )
    return criteria


# 11.1


def draw_past(rng: Random) -> Params:
    """Personal parameters of 11.1."""
    return draw_scale(rng) | {"past": rng.randrange(5, 30), "everywhere": rng.random() < 0.5}


def frozen_decoder(p: Params) -> onnx.ModelProto:
    """The file of 11.1."""
    return decoder(p, frozen(p["past"], p["everywhere"]))


def check_past(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    """The check of 11.1."""
    slips = {
        "The number of the past is still in the file.": scores_with(p, frozen(p["past"], p["everywhere"])),
        "The rotations begin at place 0, whatever the past is.": scores_with(p, frozen(0, False)),
        "The rotations are those of the next place: the first new token must stand at the place `past`.": scores_with(
            p, late
        ),
    }
    advice = "Give a text as a whole and in two parts, at three lengths, and compare."
    return _compared(model, frozen_decoder(p), p, rng, slips, advice)


# 11.2


def draw_mask(rng: Random) -> Params:
    """Personal parameters of 11.2."""
    return draw_scale(rng) | {"layer": rng.randrange(sizes().layers), "kind": rng.choice(sorted(MASKS))}


def masked_decoder(p: Params) -> onnx.ModelProto:
    """The file of 11.2."""
    return decoder(p, MASKS[p["kind"]](p["layer"]))


def check_mask(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    """The check of 11.2."""
    layer = p["layer"]
    sentences = {
        "blind": "In one layer a token does not see itself.",
        "ahead": "In one layer a token sees the next token, too.",
        "unmasked": "In one layer a token sees all later tokens.",
    }
    slips = {sentences[kind]: scores_with(p, mask(layer)) for kind, mask in MASKS.items()}
    slips["The mask of the layer counts from the first key: that is right only without a past."] = scores_with(
        p, from_the_first(layer)
    )
    advice = "Add the shares of each layer to the outputs (layers.0.share, …) and look at who sees whom."
    return _compared(model, masked_decoder(p), p, rng, slips, advice)
