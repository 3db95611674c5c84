"""Task 11.4: the decoder in 4 bits, below a size, and with nearly the perplexity of the float file."""

from __future__ import annotations

import io
import math
from collections import Counter
from functools import cache
from random import Random

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, numpy_helper

from ...errors import CourseError
from ...lab.graphs import operator_counts
from ...lab.small_decoder import PIECE, cache_names, decoder_model, held_out_pieces, sizes, small_decoder_weights
from ...running import run, session_for
from .. import Criteria, Criterion, Params
from ..examine import has_io, is_small, is_sound
from .decoders import INPUTS, OUTPUTS, right_session

# Products of which 4 bits spoil much, once a few of their inputs are wide: measured; in the other layers it costs less.
SPOTS = (("down", 0), ("down", 4), ("out", 3), ("out", 4))
_WIDER = 128  # a power of two: the float network computes the same, to the last digit
_EVERY = 16  # one wide input among so many: no size of blocks keeps away from them
# Bytes that leave room for blocks of 64 with the one product in float32, and not for blocks of 32 with it.
_BYTES = {"down": 880_000, "out": 783_000}
_RISE = 1.05
_FOUR_BITS = 30  # of 36 products
_TEXTS = 8  # pieces that a check reads
_SOME = 8  # each eighth token is enough to tell one network from another
_CUT = PIECE // 2  # where the second part of a text begins
_AFTER = 8  # tokens of it that are compared with the whole text
_OTHER_CACHE = 0.02  # of the scores
# Of the scores, too. What the spoiled product costs stays below it, and a network that knows how frequent words are does not.
_OTHER_NETWORK = 0.8


def draw_four_bits(rng: Random) -> Params:
    """Personal parameters of 11.4."""
    kind, layer = rng.choice(SPOTS)
    return {
        "seed": rng.getrandbits(32),
        "kind": kind,
        "layer": layer,
        "most_bytes": _BYTES[kind] + 1000 * rng.randrange(17),
        "perplexity": _RISE,
    }


def tokens(p: Params) -> np.ndarray:
    """What each token of the course's decoder is called in a student's one, int64 `[words]`."""
    return np.random.default_rng(p["seed"]).permutation(sizes().words)


def _wide_inputs(p: Params) -> np.ndarray:
    """Inputs of the product `kind`, one in each group of `_EVERY`; for `out`, of one head that is kept: int64."""
    its = sizes()
    count = its.inner if p["kind"] == "down" else its.kv_heads * its.size
    within = np.random.default_rng(p["seed"] + 1).integers(_EVERY, size=count // _EVERY)
    return np.arange(0, count, _EVERY) + within


def _weights(p: Params) -> dict[str, np.ndarray]:
    """Weights of the same network, with other names of the tokens, and with wide inputs of one product."""
    its, weights, at = sizes(), small_decoder_weights(), f"layers.{p['layer']}"
    weights["words.weight"] = weights["words.weight"][np.argsort(tokens(p))]
    chosen = _wide_inputs(p)
    before, after = (
        (f"{at}.up.weight", f"{at}.down.weight") if p["kind"] == "down" else (f"{at}.v.weight", f"{at}.out.weight")
    )
    weights[before][chosen] /= _WIDER
    if p["kind"] == "out":  # each head that is kept answers several that ask
        heads = np.arange(its.heads * its.size).reshape(its.kv_heads, -1, its.size)
        chosen = heads[chosen // its.size, :, chosen % its.size].ravel()
    weights[after][:, chosen] *= _WIDER
    return weights


def float_decoder(p: Params) -> onnx.ModelProto:
    """The model of 11.4. The last product has a weight of its own, the turned table of words."""
    model = decoder_model(_weights(p), sizes())
    graph = model.graph
    (turn,) = (node for node in graph.node if node.op_type == "Transpose" and node.output[0] == "words_turned")
    (words,) = (tensor for tensor in graph.initializer if tensor.name == turn.input[0])
    turned = np.ascontiguousarray(numpy_helper.to_array(words).T)
    graph.initializer.append(numpy_helper.from_array(turned, turn.output[0]))
    graph.node.remove(turn)
    model.opset_import[0].version = 21  # which has types of 4 bits
    return model


def files(p: Params) -> dict[str, onnx.ModelProto | bytes]:
    """The model, and every second piece of the held-out pages in the student's tokens, int64 `[pieces, PIECE]`."""
    stream = io.BytesIO()
    np.save(stream, tokens(p)[held_out_pieces()[::2]], allow_pickle=False)
    return {"11.4.onnx": float_decoder(p), "11.4_text.npy": stream.getvalue()}


@cache
def _right_scores(piece: int) -> np.ndarray:
    """What the float network says of one of the other pieces, float32 `[PIECE, words]`. The same for all students."""
    its = sizes()
    empty = np.zeros((1, its.kv_heads, 0, its.size), np.float32)
    ids = held_out_pieces()[1::2][[piece]]
    return run(right_session(), {"ids": ids} | {f"past.{name}": empty for name in cache_names(its)})["logits"][0]


def _scores(session: ort.InferenceSession, ids: np.ndarray, cut: int) -> np.ndarray:
    """All scores, float `[texts, tokens, words]`. The tokens from `cut` on follow the cache of those before it; 0: no token does."""
    its = sizes()
    kept = {name: np.zeros((len(ids), its.kv_heads, 0, its.size), np.float32) for name in cache_names(its)}
    found = []
    for part in np.split(ids, [cut], axis=1):
        if not part.size:
            continue
        got = run(session, {"ids": part} | {f"past.{name}": value for name, value in kept.items()})
        kept = {name: got[f"present.{name}"] for name in kept}
        wanted = (*part.shape, its.words)
        if got["logits"].shape != wanted:
            raise CourseError(f"logits has the shape {list(got['logits'].shape)}, expected {list(wanted)}.")
        found.append(got["logits"])
    return np.concatenate(found, axis=1)


def _losses(scores: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The loss of each token but the first, float64 `[texts, PIECE - 1]`, in nats."""
    scores = scores[:, :-1].astype(np.float64)
    scores = scores - scores.max(-1, keepdims=True)
    return np.log(np.exp(scores).sum(-1)) - np.take_along_axis(scores, ids[:, 1:, None], -1)[..., 0]


def _apart(got: np.ndarray, right: np.ndarray) -> float:
    """Root mean square of the difference of scores, as a share of the right ones; a number that is added to all counts not."""
    right = right - right.mean(-1, keepdims=True)
    off = got - got.mean(-1, keepdims=True) - right
    return float(np.sqrt(np.square(off, dtype=np.float64).mean() / np.square(right, dtype=np.float64).mean()))


def check_four_bits(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    """The check of 11.4."""
    criteria = Criteria()
    if not is_sound(model, criteria) or not has_io(model, INPUTS, OUTPUTS, criteria):
        return criteria
    every, small = _products(), _products_in_four_bits(model)
    count = sum((Counter(small.values()) & Counter(every.values())).values())
    if not criteria.require(
        f"at least {_FOUR_BITS} of the {len(every)} products with weights are MatMulNBits of 4 bits",
        count >= _FOUR_BITS,
        lambda: f"{count} are. {_form_cause(model)}",
    ):
        return criteria
    chosen = sorted(rng.sample(range(len(held_out_pieces()) // 2), _TEXTS))
    ids = held_out_pieces()[1::2][chosen]
    right = np.stack([_right_scores(piece) for piece in chosen])
    got = _given_network(model, tokens(p), ids, right, criteria)
    if got is None:
        return criteria
    is_small(model, p["most_bytes"], criteria, lambda: _size_cause(model))
    ratio = math.exp(float((_losses(got, ids) - _losses(right, ids)).mean()))
    criteria.add(
        f"its perplexity is at most {p['perplexity']:.2f} times that of the float file",
        ratio <= p["perplexity"],
        lambda: f"On {_TEXTS} other texts it is {ratio:.3f} times as high. {_quality_cause(small, p)}",
    )
    return criteria


def _given_network(
    model: onnx.ModelProto, names: np.ndarray, ids: np.ndarray, right: np.ndarray, criteria: Criteria
) -> np.ndarray | None:
    """Add: it is the network of the given file, with its cache. Returns its scores in the order of `right`; None when it is not."""
    what = "it runs with a past, and without one"
    try:
        session = session_for(model, optimize=False)  # optimising it takes longer than it saves
        got = _scores(session, names[ids], _CUT)[..., names]
        whole = _scores(session, names[ids[:1, : _CUT + _AFTER]], 0)[..., names]
    except CourseError as error:
        criteria.require(what, False, str(error))
        return None
    if not criteria.require(what, bool(np.isfinite(got).all()), "Some scores are nan or infinite."):
        return None
    after = slice(_CUT, _CUT + _AFTER)
    if not criteria.require(
        "a text in two parts has the scores of the whole text",
        _apart(got[:1, after], whole[:, after]) <= _OTHER_CACHE,
        "It has other ones. Change the products with weights alone, and leave the cache as it is.",
    ):
        return None
    off = _apart(got[:, ::_SOME], right[:, ::_SOME])
    near = criteria.require(
        "the scores are near those of your file",
        off <= _OTHER_NETWORK,
        f"They differ by {off:.0%}: start from your file.",
    )
    return got if near else None


def _products() -> dict[str, tuple[int, int]]:
    """Output of each product with weights → rows and columns of its matrix."""
    its = sizes()
    kept = its.kv_heads * its.size
    one = {
        "q": (its.width, its.width),
        "k": (its.width, kept),
        "v": (its.width, kept),
        "out": (its.width, its.width),
        "gate": (its.width, its.inner),
        "up": (its.width, its.inner),
        "down": (its.inner, its.width),
    }
    layers = {f"layers.{layer}.{name}": size for layer in range(its.layers) for name, size in one.items()}
    return {**layers, "logits": (its.width, its.words)}


def _products_in_four_bits(model: onnx.ModelProto) -> dict[str, tuple[int, int]]:
    """Output of each MatMulNBits of 4 bits → rows and columns. Each has integers of its own in the file."""
    stored, found = {t.name for t in model.graph.initializer}, {}
    for node in model.graph.node:
        if node.op_type == "MatMulNBits" and len(node.input) > 1 and node.input[1] in stored:
            values = {a.name: a.i for a in node.attribute}
            if values.get("bits", 4) == 4:
                found[node.output[0]] = (values.get("K", 0), values.get("N", 0))
                stored.remove(node.input[1])
    return found


def _form_cause(model: onnx.ModelProto) -> str:
    operators = operator_counts(model)
    if "com.microsoft::MatMulNBits" in operators:
        return "Give bits=4, and leave out only what must keep more bits."
    if "MatMulInteger" in operators:
        return "MatMulInteger comes from quantize_dynamic, with 8 bits."
    if "DequantizeLinear" in operators:
        return "quant_format=QDQ leaves a MatMul behind DequantizeLinear: take QOperator, the default."
    return "Give your model to MatMulNBitsQuantizer, and call process()."


def _size_cause(model: onnx.ModelProto) -> str:
    wide = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
    its, shapes = sizes(), [tuple(t.dims) for t in model.graph.initializer if t.data_type in wide]
    if (its.words, its.width) in shapes:
        return (
            "The table of words, which Gather reads, is in float: op_types_to_quantize says which operators get 4 bits."
        )
    matrices = [shape for shape in shapes if shape in _products().values()]
    if len(matrices) > 1:
        return f"{len(matrices)} products are in float: leave out only the one that 4 bits spoil."
    return "Each block has a scale of its own: larger blocks have fewer of them."


def _quality_cause(small: dict[str, tuple[int, int]], p: Params) -> str:
    if f"layers.{p['layer']}.{p['kind']}" not in small:
        return "What you left out is right. Change one setting at a time, and look at the perplexity after each change."
    reason = "a few inputs of its matrix are far wider than the others, and the scales of its blocks follow them"
    if len(small) == len(_products()):
        return f"All products have 4 bits, and that spoils one of them: {reason}. Find it by nodes_to_exclude."
    return f"One product that 4 bits spoil still has 4 bits: {reason}."
