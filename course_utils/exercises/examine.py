"""What the checks of several chapters look at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from random import Random

import numpy as np
import onnx
from google.protobuf.message import Message

from ..errors import CourseError
from ..lab.graphs import type_text
from ..running import run, session_for
from . import Criteria, Hint


def numpy_source(rng: Random) -> np.random.Generator:
    """A NumPy generator for input tensors, from a check's source."""
    return np.random.default_rng(rng.getrandbits(64))


def is_sound(model: onnx.ModelProto, criteria: Criteria) -> bool:
    """Add: the checker accepts the model, types and shapes agree, and its weights are in the file."""
    outside = [t for t in every_tensor(model) if t.data_location == onnx.TensorProto.EXTERNAL]
    if not criteria.require(
        "the file holds all its weights",
        not outside,
        f"{len(outside)} tensors lie in another file: save with external_data=False, or load and onnx.save again.",
    ):
        return False
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the checker and shape inference raise classes of their own
        words = " ".join(str(error).split())[:300]
        return criteria.require("onnx.checker accepts the model", False, f"The checker says: {words}")
    return criteria.require("onnx.checker accepts the model", True, "")


def every_tensor(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """All tensors in a model: initializers and attributes of its graph, of graphs inside it, and of its functions."""
    for graph in _graphs(model):
        yield from graph.initializer
        yield from _dense(graph.sparse_initializer)
    for attributes in (*(node.attribute for node in every_node(model)), *(f.attribute_proto for f in model.functions)):
        for a in attributes:
            if a.HasField("t"):
                yield a.t
            yield from a.tensors
            if a.HasField("sparse_tensor"):
                yield from _dense([a.sparse_tensor])
            yield from _dense(a.sparse_tensors)


def every_node(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """All nodes in a model: of its graph, of graphs inside it, and of its functions."""
    for graph in _outer(model):
        yield from _nodes(graph.node)
    for function in model.functions:
        yield from _nodes(function.node)
        for graph in _inner(function.attribute_proto):
            yield from _nodes(graph.node)


def _dense(sparse: Iterable[onnx.SparseTensorProto]) -> Iterator[onnx.TensorProto]:
    for tensor in sparse:
        yield tensor.values
        yield tensor.indices


def _outer(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    yield model.graph
    for training in model.training_info:
        yield training.initialization
        yield training.algorithm


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for graph in _inner(node.attribute):
            yield from _nodes(graph.node)


def _inner(attributes: Iterable[onnx.AttributeProto]) -> Iterator[onnx.GraphProto]:
    for a in attributes:
        if a.HasField("g"):
            yield a.g
        yield from a.graphs


def _graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    yield from _outer(model)
    for node in every_node(model):
        yield from _inner(node.attribute)
    for function in model.functions:  # the defaults of its attributes
        yield from _inner(function.attribute_proto)


def left_notes(part: Message) -> list[str]:
    """Keys of notes that an exporter left anywhere inside; those of the model itself are what the task asks for."""
    found: list[str] = []
    for kind, value in part.ListFields():
        if kind.name == "metadata_props" and not isinstance(part, onnx.ModelProto):
            found += [entry.key for entry in value]
        elif kind.name == "doc_string" and value.strip():
            found.append(f"the doc_string of {getattr(part, 'name', '') or 'the model'}")
        elif kind.message_type is not None:
            for inner in [value] if isinstance(value, Message) else value:
                found += left_notes(inner)
    return found


def has_io(model: onnx.ModelProto, inputs: dict[str, str], outputs: dict[str, str], criteria: Criteria) -> bool:
    """Add: the graph's inputs and outputs have these names and dtypes (name → dtype, such as "float")."""
    initialized = {t.name for t in model.graph.initializer}
    got = {v.name: type_text(v)[0] for v in model.graph.input if v.name not in initialized}
    named = criteria.require(
        f"the inputs are {_listed(inputs)}",
        got == inputs,
        f"They are {_listed(got)}. Names and dtypes must be as the task says; weights belong in initializers.",
    )
    got = {v.name: type_text(v)[0] for v in model.graph.output}
    return (
        criteria.require(
            f"the outputs are {_listed(outputs)}",
            got == outputs,
            f"They are {_listed(got)}. The last node must write a tensor of that name, and the graph must list it.",
        )
        and named
    )


def _listed(values: dict[str, str]) -> str:
    return ", ".join(f"{name} ({dtype})" for name, dtype in values.items()) or "none"


def is_small(model: onnx.ModelProto, most_bytes: int, criteria: Criteria, cause: Hint) -> bool:
    """Add: the file has at most so many bytes. cause: what stands behind its size in the hint."""
    size = model.ByteSize()
    what = f"the file has at most {most_bytes:,} bytes"
    return criteria.add(
        what, size <= most_bytes, lambda: f"It has {size:,}. {cause if isinstance(cause, str) else cause()}"
    )


def result(model: onnx.ModelProto, feed: Mapping[str, np.ndarray]) -> np.ndarray:
    """The first output of a model that is known to run, as it stands in the file."""
    return next(iter(run(session_for(model, optimize=False), feed).values()))


def computes(
    model: onnx.ModelProto,
    feed: dict[str, np.ndarray],
    expected: np.ndarray,
    criteria: Criteria,
    what: str,
    hint: Hint,
    *,
    atol: float = 1e-5,
    rtol: float = 1e-4,
    condition: bool = False,
) -> bool:
    """Add: ONNX Runtime loads the model, and its first output on `feed` equals `expected` (`numpy.allclose`).

    hint: the cause of a difference, or a function that finds it, which is called only where there is one.
    condition: as in `Criteria.add`.
    """
    try:
        got = next(iter(run(session_for(model), feed).values()))
    except CourseError as error:
        return criteria.add(what, False, str(error), condition=condition)
    except Exception as error:  # ONNX Runtime's own classes derive from Exception alone
        words = f"Running it failed: {str(error).strip().splitlines()[0]}"
        return criteria.add(what, False, words, condition=condition)
    if got.shape != expected.shape:
        words = f"The result has shape {list(got.shape)}, expected {list(expected.shape)}."
        return criteria.add(what, False, words, condition=condition)
    delta = float(np.abs(got.astype(np.float64) - expected).max(initial=0))
    same = np.allclose(got, expected, atol=atol, rtol=rtol)

    def said() -> str:
        return f"The largest difference is {delta:.3g}. {hint if isinstance(hint, str) else hint()}"

    return criteria.add(what, same, said, condition=condition)


def wants_keys(answer: object, keys: set[str], criteria: Criteria) -> bool:
    """Add: the JSON answer is an object with exactly these keys."""
    got = set(answer) if isinstance(answer, dict) else set()
    return criteria.require(
        f"the answer has the keys {', '.join(sorted(keys))}",
        got == keys,
        f"It has {', '.join(sorted(map(str, got))) or 'none'}: write a dict with exactly those keys.",
    )


def whole(value: object) -> int | None:
    """A whole number of a JSON answer, also one that is written as 13.0; None for anything else, true and false too."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
