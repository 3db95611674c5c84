"""The small decoder that the tasks of chapter 11 hand out, right and with faults, and what the right one computes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from random import Random

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from ...lab.small_decoder import Sizes, cache_names, decoder_model, sizes, small_decoder_weights
from ...running import run, session_for
from .. import Criteria, Params
from ..slips import Calculation, Feed

Fault = Callable[[onnx.ModelProto], None]

INPUTS = {"ids": "int64", **{f"past.{name}": "float" for name in cache_names(sizes())}}
OUTPUTS = {"logits": "float", **{f"present.{name}": "float" for name in cache_names(sizes())}}


def draw_scale(rng: Random) -> Params:
    """What makes a student's file their own: its scores are multiplied by this number."""
    return {"scale": rng.randrange(110, 400) / 100}


@cache
def _right() -> bytes:
    return decoder_model(small_decoder_weights(), sizes()).SerializeToString()


def decoder(p: Params, fault: Fault | None = None) -> onnx.ModelProto:
    """The decoder of a student. fault: changes it."""
    model = onnx.load_from_string(_right())
    (scale,) = (tensor for tensor in model.graph.initializer if tensor.name == "norm.weight")
    values = numpy_helper.to_array(scale) * np.float32(p["scale"])
    scale.CopyFrom(numpy_helper.from_array(values, scale.name))
    if fault:
        fault(model)
    return model


@cache
def right_session() -> ort.InferenceSession:
    """The right decoder, with the scale 1. The same for all students."""
    return session_for(_right())


def right_scores(p: Params) -> Calculation:
    """What a student's decoder computes when nothing is wrong with it."""
    return lambda feed: run(right_session(), feed)["logits"] * np.float32(p["scale"])


def scores_with(p: Params, fault: Fault) -> Calculation:
    """What it computes with a fault; nan where it refuses the input. The file is made when it is first asked."""

    @cache
    def session() -> ort.InferenceSession:
        return session_for(decoder(p, fault))

    def calculate(feed: Feed) -> np.ndarray:
        try:
            return next(iter(run(session(), feed).values()))
        except Exception:
            return np.full((1,), np.nan)

    return calculate


def feed(source: np.random.Generator, texts: int, new: int, past: int) -> Feed:
    """Tokens, and keys and values of as many past ones, drawn."""
    its: Sizes = sizes()
    shape = (texts, its.kv_heads, past, its.size)
    kept = {f"past.{name}": source.normal(0, 1, shape).astype(np.float32) for name in cache_names(its)}
    return {"ids": source.integers(1, its.words, (texts, new)), **kept}


def weights_are_given(model: onnx.ModelProto, given: onnx.ModelProto, criteria: Criteria) -> bool:
    """Add: each weight of the given model that a product or a norm reads is there, with its values."""
    got = {tensor.name: tensor for tensor in model.graph.initializer}
    wrong = ""
    for tensor in given.graph.initializer:
        if not tensor.name.endswith(".weight") or wrong:
            continue
        if tensor.name not in got:
            wrong = f"The weight {tensor.name!r} is missing."
        elif not np.array_equal(numpy_helper.to_array(tensor), numpy_helper.to_array(got[tensor.name])):
            wrong = f"The weight {tensor.name!r} has other values than in the given model."
    return criteria.require("the weights are the given ones", not wrong, f"{wrong} Mend the nodes, not the weights.")


def node(model: onnx.ModelProto, output: str) -> onnx.NodeProto:
    """The node that writes a tensor."""
    return next(node for node in model.graph.node if output in node.output)


def put_before(model: onnx.ModelProto, before: str, new: onnx.NodeProto) -> None:
    """Insert a node in front of the one that writes `before`."""
    at = next(at for at, node in enumerate(model.graph.node) if before in node.output)
    model.graph.node.insert(at, new)


# 11.1: the past of the exporter's example is in the file


def frozen(past: int, everywhere: bool) -> Fault:
    """The size of the past is a number in the file: everywhere, or only where the rotations are chosen."""

    def change(model: onnx.ModelProto) -> None:
        graph = model.graph
        graph.initializer.append(numpy_helper.from_array(np.array(past, np.int64), "example_past"))
        if everywhere:
            for name in ("past_size", "past_shape"):
                graph.node.remove(node(model, name))
            for other in graph.node:
                other.input[:] = ["example_past" if name == "past_size" else name for name in other.input]
            return
        new = [
            helper.make_node("Add", ["example_past", "new_size"], ["example_all"], "example_all/Add"),
            helper.make_node(
                "Range", ["example_past", "example_all", "one"], ["example_places"], "example_places/Range"
            ),
        ]
        for one in new:
            put_before(model, "cos", one)
        for name in ("cos", "sin"):
            node(model, name).input[1] = "example_places"

    return change


def late(model: onnx.ModelProto) -> None:
    """The rotations of a token are those of the next place."""
    put_before(model, "cos", helper.make_node("Add", ["places", "one"], ["places_late"], "places_late/Add"))
    for name in ("cos", "sin"):
        node(model, name).input[1] = "places_late"


# 11.2: one layer has another mask


def blind(layer: int) -> Fault:
    """A token does not see itself."""

    def change(model: onnx.ModelProto) -> None:
        node(model, f"layers.{layer}.seen").op_type = "Less"

    return change


def ahead(layer: int) -> Fault:
    """A token sees the next one."""

    def change(model: onnx.ModelProto) -> None:
        name = f"layers.{layer}.seen"
        put_before(model, name, helper.make_node("Add", ["rows", "one"], ["rows_to"], "rows_to/Add"))
        node(model, name).input[1] = "rows_to"

    return change


def unmasked(layer: int) -> Fault:
    """A token sees all others, the later ones, too."""

    def change(model: onnx.ModelProto) -> None:
        node(model, f"layers.{layer}.seen").input[1] = "all_size"

    return change


def from_the_first(layer: int) -> Fault:
    """The mask counts from the first key: right as long as the past is empty."""

    def change(model: onnx.ModelProto) -> None:
        name = f"layers.{layer}.seen"
        put_before(model, name, helper.make_node("Sub", ["rows", "past_size"], ["rows_new"], "rows_new/Sub"))
        node(model, name).input[1] = "rows_new"

    return change


MASKS: dict[str, Callable[[int], Fault]] = {"blind": blind, "ahead": ahead, "unmasked": unmasked}
