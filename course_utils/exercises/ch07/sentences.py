"""Task 7.7: a trained sentence encoder, small, with the end that a search needs.

What the float encoder makes of the sentences is recorded (`data/record_minilm.py`), so no PyTorch takes part.
"""

from __future__ import annotations

import io
import math
from functools import cache
from random import Random

import numpy as np
import onnx
from onnx import TensorProto
from safetensors.numpy import load_file

from ...errors import CourseError
from ...lab.data import verified
from ...running import run, session_for
from .. import Criteria, Criterion, Params
from ..examine import every_tensor, has_io, is_small, is_sound, numpy_source

WIDTH, SHORT = 384, 64
_ASKED, _BATCH = 32, 8  # sentences
_LEAST, _OTHER_ENCODER = 0.98, 0.8  # cosines; no way to 4 or 8 bits falls below the second one


def draw_encoder(rng: Random) -> Params:
    return {"seed": rng.getrandbits(32), "most_bytes": 100_000 * rng.randint(236, 242), "cosine": _LEAST}


def projection(p: Params) -> np.ndarray:
    """float32 [384, 64], its columns at right angles to each other."""
    drawn = np.random.default_rng(p["seed"]).normal(size=(WIDTH, SHORT))
    return np.linalg.qr(drawn)[0].round(4).astype(np.float32)


def given_projection(p: Params) -> dict[str, bytes]:
    stream = io.BytesIO()
    np.save(stream, projection(p), allow_pickle=False)
    return {"7.7_projection.npy": stream.getvalue()}


@cache
def recorded() -> dict[str, np.ndarray]:
    """ids [48, words], mean and first [48, 384], as `data/record_minilm.py` says."""
    return load_file(verified("minilm_sentences.safetensors"))


def _unit(vectors: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _cosine(got: np.ndarray, wanted: np.ndarray) -> float:
    """The mean over all sentences; 0 where one is no number."""
    found = float((_unit(got.astype(np.float64)) * _unit(wanted.astype(np.float64))).sum(1).mean())
    return found if math.isfinite(found) else 0.0


def check_encoder(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    sound = is_sound(model, criteria)
    if not sound or not has_io(model, {"ids": "int64", "mask": "int64"}, {"vector": "float"}, criteria):
        return criteria
    chosen = numpy_source(rng).permutation(len(recorded()["ids"]))[:_ASKED]
    ids, matrix = recorded()["ids"][chosen].astype(np.int64), projection(p)
    wanted = recorded()["mean"][chosen] @ matrix
    what = f"vector has the shape [texts, {SHORT}], for any number of texts and words"
    try:
        got = _vectors(model, ids, _BATCH)
    except CourseError as error:
        criteria.require(what, False, str(error))
        return criteria
    if not criteria.require(
        what,
        got.shape == wanted.shape,
        f"For {_ASKED} texts it is {list(got.shape)}. The mean over the words comes first, and then the product with "
        f"your projection, [{WIDTH}, {SHORT}].",
    ):
        return criteria
    lengths = np.linalg.norm(got.astype(np.float64), axis=1)
    longest = f"The first one has {lengths[0]:.3g}: divide each by its own length, in the graph."
    if not criteria.require("each vector has the length 1", bool(np.allclose(lengths, 1, atol=0.01)), longest):
        return criteria
    near = _cosine(got, wanted)

    def other() -> str:
        return f"The mean of the cosines is {near:.3f}. {_end_cause(model, chosen, got, matrix)}"

    if not criteria.require("it is MiniLM, with the end that your search needs", near >= _OTHER_ENCODER, other):
        return criteria
    is_small(model, p["most_bytes"], criteria, lambda: _size_cause(model))
    criteria.add(
        f"the mean of the cosines is at least {p['cosine']}",
        near >= p["cosine"],
        lambda: f"It is {near:.4f}. {_quality_cause(model, chosen, matrix)}",
    )
    return criteria


def _vectors(model: onnx.ModelProto, ids: np.ndarray, batch: int) -> np.ndarray:
    """vector of all sentences, some at a time, each time without columns that hold padding alone."""
    # As it stands in the file: to optimise it takes longer than to run it on so few sentences.
    session, found = session_for(model, optimize=False), []
    for at in range(0, len(ids), batch):
        part = ids[at : at + batch]
        part = part[:, : int((part != 0).sum(1).max())]
        found.append(run(session, {"ids": part, "mask": (part != 0).astype(np.int64)})["vector"])
    if any(part.ndim != 2 or part.shape[1] != found[0].shape[1] for part in found):
        return found[0]
    return np.concatenate(found)


def _end_cause(model: onnx.ModelProto, chosen: np.ndarray, got: np.ndarray, matrix: np.ndarray) -> str:
    """What is wrong behind the encoder, if it is a usual slip."""
    if _cosine(got, recorded()["first"][chosen] @ matrix) > _OTHER_ENCODER:
        return "It is the vector of the first word: take the mean over all words."
    if _cosine(got, recorded()["mean"][chosen][:, :SHORT]) > _OTHER_ENCODER:
        return "These are the first 64 of the 384 numbers: multiply by your projection."
    return _padding_cause(model, chosen, matrix, _OTHER_ENCODER) or "Was it made with your own projection?"


def _padding_cause(model: onnx.ModelProto, chosen: np.ndarray, matrix: np.ndarray, least: float) -> str:
    few = chosen[:_BATCH]
    alone = _vectors(model, recorded()["ids"][few].astype(np.int64), 1)
    if _cosine(alone, recorded()["mean"][few] @ matrix) < least:
        return ""
    return "A sentence alone is right, and beside longer ones it is not: the mean is over the words where mask is 1."


def _quality_cause(model: onnx.ModelProto, chosen: np.ndarray, matrix: np.ndarray) -> str:
    padding = _padding_cause(model, chosen, matrix, _LEAST)
    if padding:
        return padding
    bits = {a.i for n in model.graph.node if n.op_type == "MatMulNBits" for a in n.attribute if a.name == "bits"}
    if bits and min(bits) < 8:
        return f"The weights have {min(bits)} bits: that is too little for this encoder."
    if _one_scale(model):
        return "Each weight has one scale for all its columns: per_channel=True gives each column its own."
    return "Compare with the float model, with one change at a time, as the page on language models does."


def _one_scale(model: onnx.ModelProto) -> bool:
    """Whether integer products have weights with a zero point of one number alone."""
    size = {t.name: math.prod(t.dims) for t in model.graph.initializer}
    products = [n for n in model.graph.node if n.op_type == "MatMulInteger" and len(n.input) > 3]
    return bool(products) and all(size.get(n.input[3]) == 1 for n in products)


def _size_cause(model: onnx.ModelProto) -> str:
    large = [t for t in every_tensor(model) if t.data_type == TensorProto.FLOAT and math.prod(t.dims) > 100_000]
    largest = max(large, key=lambda t: math.prod(t.dims), default=None)
    if largest is None:
        return "Blocks with a scale each take room: larger blocks have fewer of them."
    if largest.dims[0] > 20_000:
        return "The table of words, which Gather reads, is still float32: quantize all operators, not MatMul alone."
    return f"{len(large)} large weights are float32, the largest is {list(largest.dims)}: quantize all operators."
