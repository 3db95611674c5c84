"""The checks of exercise 11: right answers pass, and each likely mistake gets a hint that names it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from answers import criteria, given, params
from onnx import helper, numpy_helper

from course_utils.exercises.ch11 import decoders, files, greedy
from course_utils.lab.small_decoder import cache_names, sizes
from course_utils.running import run, session_for

# 11.1


def node(model: onnx.ModelProto, output: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if output in node.output)


def unfrozen(who: str, what: str = "key", add: int = 0) -> onnx.ModelProto:
    """The given file, with the number of the example made from the shape of a past tensor. add: to the places of the rotations."""
    model = given("11.1", who)
    graph = model.graph
    (number,) = (t for t in graph.initializer if t.name == "example_past")
    graph.initializer.remove(number)
    graph.initializer.append(numpy_helper.from_array(np.int64(2), "two"))
    for n in reversed(
        [
            helper.make_node("Shape", [f"past.{what}.0"], ["its_shape"]),
            helper.make_node("Gather", ["its_shape", "two"], ["example_past"]),
        ]
    ):
        graph.node.insert(0, n)
    if add:
        node(model, "example_all" if any("example_all" in n.output for n in graph.node) else "all_size")
        decoders.late(model)
        for name in ("cos", "sin"):
            node(model, name).input[1] = "places_late"
    return model


def begun_at_zero(who: str) -> onnx.ModelProto:
    return decoders.decoder(params("11.1", who), decoders.frozen(0, everywhere=False))


def with_other_weights(id: str) -> onnx.ModelProto:
    model = right(id, "ada")
    (tensor,) = (t for t in model.graph.initializer if t.name == "layers.0.q.weight")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 1.5, tensor.name))
    return model


def right(id: str, who: str) -> onnx.ModelProto:
    return decoders.decoder(params(id, who))


# 11.2


def mended(who: str) -> onnx.ModelProto:
    """The given file, with the mask of the layer as the others have it."""
    model, layer = given("11.2", who), params("11.2", who)["layer"]
    seen = node(model, f"layers.{layer}.seen")
    seen.op_type, seen.input[:] = "LessOrEqual", ["columns", "rows"]
    return model


def one_mask_for_all(who: str) -> onnx.ModelProto:
    """All layers read one mask, which is written in another way."""
    model = given("11.2", who)
    for layer in range(sizes().layers):
        seen = node(model, f"layers.{layer}.seen")
        seen.op_type, seen.input[:] = "GreaterOrEqual", ["rows", "columns"]
    return model


def wrong_layer(who: str) -> onnx.ModelProto:
    """Another layer is made as the wrong one is."""
    p = params("11.2", who)
    return decoders.decoder(p, decoders.MASKS[p["kind"]]((p["layer"] + 1) % sizes().layers))


# 11.3


def written(who: str, *, fresh: bool = False, cached: bool = True, **how: Any) -> list[int]:
    """24 tokens. how: rank (1: the second best), place (-2: the last but one), forget (no past), last (of the prompt alone)."""
    prompt = params("11.3", who)["prompt"]
    session, chosen = session_for(given("11.3", who)), []
    empty = np.zeros((1, sizes().kv_heads, 0, sizes().size), np.float32)
    new, cache = prompt[-1:] if how.get("last") else prompt, [empty] * (2 * sizes().layers)
    for _ in range(24):
        feed = {f"past.{name}": value for name, value in zip(cache_names(sizes()), cache, strict=True)}
        logits, *longer = run(session, {"ids": np.array([new]), **feed}).values()
        scores = logits[0, how.get("place", -1) if not chosen else -1].copy()
        if fresh:
            scores[[*prompt, *chosen]] = -np.inf
        chosen.append(int((-scores).argsort(kind="stable")[how.get("rank", 0)]))
        new = chosen[-1:] if cached else [*prompt, *chosen]
        if cached and not how.get("forget"):
            cache = longer
    return chosen


def both(who: str = "ada", **how: Any) -> dict[str, list[int]]:
    return {"greedy": written(who, **how), "no_repeat": written(who, fresh=True, **how)}


def changed(**more: list[int]) -> dict[str, list[int]]:
    return {**both(), **more}


RIGHT = {
    "11.1": (unfrozen, lambda who: unfrozen(who, "value"), lambda who: right("11.1", who)),
    "11.2": (mended, one_mask_for_all, lambda who: right("11.2", who)),
    "11.3": (both, lambda who: both(who, cached=False)),
}
WRONG: dict[str, Any] = {
    "11.1": {
        "as it was": (lambda who: given("11.1", who), "still in the file"),
        "the rotations begin at zero": (begun_at_zero, "begin at place 0"),
        "one too many": (lambda who: decoders.decoder(params("11.1", who), decoders.late), "of the next place"),
        "other weights": (lambda who: with_other_weights("11.1"), "has other values"),
    },
    "11.2": {
        "as it was": (lambda who: given("11.2", who), "In one layer"),
        "right without a past": (
            lambda who: decoders.decoder(params("11.2", who), decoders.from_the_first(params("11.2", who)["layer"])),
            "from the first key",
        ),
        "another layer": (wrong_layer, "who sees whom"),
        "other weights": (lambda who: with_other_weights("11.2"), "has other values"),
    },
    "11.3": {
        "the last but one": (lambda who: both(who, place=-2), "last token but one"),
        "no past": (lambda who: both(who, forget=True), "the past is missing"),
        "the last word alone": (lambda who: both(who, last=True), "only the last token of the prompt"),
        "the second best": (lambda who: both(who, rank=1), "second highest"),
        "with the prompt": (
            lambda who: {k: params("11.3", who)["prompt"] + v for k, v in both(who).items()},
            "begins with the prompt",
        ),
        "too few": (lambda who: {k: v[:9] for k, v in both(who).items()}, "has 9 tokens"),
        "no token": (lambda who: changed(greedy=[9999] * 24), "9999 is no token"),
        "again": (lambda who: changed(no_repeat=written(who)), "may not come again"),
    },
}


def test_the_file_of_11_3_is_no_answer_to_the_others():
    for id in ("11.1", "11.2"):
        assert not all(c.passed for c in criteria(id, given("11.3")))


@pytest.mark.parametrize("kind", sorted(decoders.MASKS))
@pytest.mark.parametrize("layer", [0, 4])
def test_each_mask_is_wrong_with_a_past_and_without(kind, layer):
    p = {"scale": 2.0, "layer": layer, "kind": kind}
    source = np.random.default_rng(1)
    for size in ((1, 6, 0), (1, 3, 9), (2, 2, 5)):
        feed = decoders.feed(source, *size)
        scores = run(session_for(files.masked_decoder(p)), feed)["logits"]
        assert abs(scores - decoders.right_scores(p)(feed)).max() > 0.05


@pytest.mark.parametrize("everywhere", [False, True])
def test_the_frozen_file_is_right_at_the_past_of_its_example(everywhere):
    p = {"scale": 1.5, "past": 7, "everywhere": everywhere}
    feed = decoders.feed(np.random.default_rng(1), 2, 3, 7)
    found = run(session_for(files.frozen_decoder(p)), feed)["logits"]
    np.testing.assert_allclose(found, decoders.right_scores(p)(feed), atol=1e-4)


def test_a_prompt_is_made_of_words():
    for who in map(str, range(30)):
        prompt = params("11.3", who)["prompt"]
        assert all(greedy.pieces()[n].decode().strip().isalpha() for n in prompt)
        assert len(set(prompt)) == len(prompt)
