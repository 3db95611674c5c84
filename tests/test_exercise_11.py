"""The checks of exercise 11: right answers pass, and each likely mistake gets a hint that names it."""

from __future__ import annotations

import logging
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import pytest
from answers import criteria, given, params
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantFormat, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from course_utils.exercises.ch11 import decoders, files, four_bits, greedy
from course_utils.lab.small_decoder import (
    cache_names,
    decoder_model,
    held_out_pieces,
    sizes,
    small_decoder_facts,
    small_decoder_weights,
)
from course_utils.running import run, session_for

logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer").setLevel(logging.ERROR)  # it names each node

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


# 11.4

TABLE_TOO = {"op_types_to_quantize": ("MatMul", "Gather")}


def spoiled(who: str) -> str:
    """The product that 4 bits spoil."""
    p = params("11.4", who)
    return f"layers.{p['layer']}.{p['kind']}/MatMul"


def in_bits(model: onnx.ModelProto, block: int, *left_out: str, bits: int = 4, **more: Any) -> onnx.ModelProto:
    tool = MatMulNBitsQuantizer(model, bits=bits, block_size=block, nodes_to_exclude=list(left_out), **more)
    with np.errstate(invalid="ignore"):  # rows of zeros among the sines
        tool.process()
    return tool.model.model


def float_decoder(who: str) -> onnx.ModelProto:
    return four_bits.float_decoder(params("11.4", who))


def kept_float(who: str, block: int = 64, **more: Any) -> onnx.ModelProto:
    return in_bits(float_decoder(who), block, spoiled(who), **(TABLE_TOO | more))


def eight_for_one(who: str) -> onnx.ModelProto:
    """The product that 4 bits spoil has 8."""
    return in_bits(kept_float(who, 128), 32, bits=8, nodes_to_include=[spoiled(who)])


def made_even(who: str) -> onnx.ModelProto:
    """The wide inputs are divided, and what makes them is multiplied; then all products have 4 bits."""
    p, model = params("11.4", who), float_decoder(who)
    stored = {t.name: t for t in model.graph.initializer}
    before, after = {"down": ("up", "down"), "out": ("v", "out")}[p["kind"]]
    made, read = (stored[f"layers.{p['layer']}.{name}.weight"] for name in (before, after))
    columns, rows = numpy_helper.to_array(made).copy(), numpy_helper.to_array(read).copy()
    size = np.abs(rows).max(1)
    wide = size > 20 * np.median(size)
    rows[wide] /= 128
    if p["kind"] == "out":  # two heads that ask share one that is kept
        wide = wide.reshape(sizes().kv_heads, -1, sizes().size)[:, 0].ravel()
    columns[:, wide] *= 128
    made.CopyFrom(numpy_helper.from_array(columns, made.name))
    read.CopyFrom(numpy_helper.from_array(rows, read.name))
    return in_bits(model, 32, **TABLE_TOO)


def another_left_out(who: str) -> onnx.ModelProto:
    return in_bits(float_decoder(who), 128, "layers.1.q/MatMul", **TABLE_TOO)


def many_left_out(who: str) -> onnx.ModelProto:
    every = [f"layers.{layer}.down/MatMul" for layer in range(sizes().layers)]
    return in_bits(float_decoder(who), 128, *every, spoiled(who), is_symmetric=True, **TABLE_TOO)


def of_8_bits(who: str) -> onnx.ModelProto:
    with TemporaryDirectory() as folder:
        quantize_dynamic(float_decoder(who), str(Path(folder, "it.onnx")))
        return onnx.load(str(Path(folder, "it.onnx")))


def usual_tokens(who: str) -> onnx.ModelProto:
    """The course's own decoder in 4 bits: the same network, with the usual names of the tokens."""
    return in_bits(decoder_model(small_decoder_weights(), sizes()), 64)


def shared(who: str) -> onnx.ModelProto:
    """Products of all layers read the integers of the first one: each is counted once."""
    model = kept_float(who)
    for name in ("gate", "up"):
        for layer in range(sizes().layers):
            node(model, f"layers.{layer}.{name}").input[1:] = node(model, f"layers.0.{name}").input[1:]
    return model


def forgetting(who: str) -> onnx.ModelProto:
    """In one layer the values of past tokens are zero. The perplexity hardly shows it."""
    model = kept_float(who)
    model.graph.node.insert(0, helper.make_node("Mul", ["past.value.3", "nothing"], ["forgotten"]))
    node(model, "present.value.3").input[0] = "forgotten"
    return model


RIGHT = {
    "11.1": (unfrozen, lambda who: unfrozen(who, "value"), lambda who: right("11.1", who)),
    "11.2": (mended, one_mask_for_all, lambda who: right("11.2", who)),
    "11.3": (both, lambda who: both(who, cached=False)),
    "11.4": (kept_float, lambda who: kept_float(who, 128, is_symmetric=True), eight_for_one, made_even),
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
    "11.4": {
        "the defaults": (
            lambda who: in_bits(float_decoder(who), 128),
            "Gather reads, is in float.* that spoils one of them: a few inputs",
        ),
        "all products": (lambda who: in_bits(float_decoder(who), 64, **TABLE_TOO), "Find it by nodes_to_exclude"),
        "another left out": (another_left_out, "spoil still has 4 bits"),
        "small blocks": (lambda who: kept_float(who, 32), "larger blocks have fewer"),
        "the table in float": (
            lambda who: in_bits(float_decoder(who), 64, spoiled(who)),
            "table of words, which Gather reads, is in float",
        ),
        "five left out": (many_left_out, "products are in float"),
        "eight bits": (lambda who: in_bits(float_decoder(who), 128, bits=8), "0 are. Give bits=4"),
        "behind DequantizeLinear": (
            lambda who: in_bits(float_decoder(who), 64, quant_format=QuantFormat.QDQ),
            "take QOperator",
        ),
        "dynamic": (of_8_bits, "comes from quantize_dynamic"),
        "as it was": (float_decoder, "and call process"),
        "shared integers": (shared, "27 are"),
        "a cache that forgets": (forgetting, "leave the cache as it is"),
        "the course's own decoder": (usual_tokens, "start from your file"),
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


def test_the_float_files_of_all_students_are_one_network():
    """Apart from the names of the tokens; also where a few inputs are wide."""
    found, ids = set(), held_out_pieces()[:2, :20]
    empty = np.zeros((2, sizes().kv_heads, 0, sizes().size), np.float32)
    past = {f"past.{name}": empty for name in cache_names(sizes())}
    right = run(decoders.right_session(), {"ids": ids, **past})["logits"]
    for who in map(str, range(12)):
        p = params("11.4", who)
        if (p["kind"], p["layer"]) not in found:
            found.add((p["kind"], p["layer"]))
            names = four_bits.tokens(p)
            scores = run(session_for(four_bits.float_decoder(p)), {"ids": names[ids], **past})["logits"]
            np.testing.assert_allclose(scores[..., names], right, atol=1e-3)
    assert found == set(four_bits.SPOTS)


def test_the_check_reads_no_text_that_was_handed_out():
    pieces = held_out_pieces()
    assert len(pieces) == small_decoder_facts()["tokens"]["held_out"] // pieces.shape[1]
    p = params("11.4", "ada")
    text = np.load(BytesIO(four_bits.files(p)["11.4_text.npy"]))
    told = {piece.tobytes() for piece in text}
    assert not told & {piece.tobytes() for piece in four_bits.tokens(p)[pieces[1::2]]}
    assert len(told) == len(text) == 19


def test_each_half_of_11_4_earns_its_own_point():
    """Small and spoiled, or large and good: and neither mark falls when the other budget is kept, too."""
    for make, kept in (
        (lambda: in_bits(float_decoder("ada"), 128, **TABLE_TOO), "bytes"),
        (lambda: kept_float("ada", 16), "times"),
    ):
        goals = [c for c in criteria("11.4", make()) if not c.condition]
        assert [c.passed for c in goals] == [kept in c.what for c in goals]


@pytest.mark.parametrize("kind", ["down", "out"])
def test_the_bytes_leave_room_for_one_float_product_and_blocks_of_64(kind):
    """For whoever has the fewest; and nobody's are enough for blocks of 32."""
    every = [params("11.4", str(n)) | {"who": str(n)} for n in range(200)]
    drawn = [p["most_bytes"] for p in every if p["kind"] == kind]
    who = next(p["who"] for p in every if p["kind"] == kind)
    assert kept_float(who).ByteSize() < min(drawn) < max(drawn) < kept_float(who, 32, is_symmetric=True).ByteSize()
