"""Does the ONNX model compute what the PyTorch model computes, and if not, from which node on?"""

from __future__ import annotations

import html
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import AttributeProto

from ..errors import CourseError
from ..onnx_files import Model, as_model
from ..running import run, run_all, session_for

if TYPE_CHECKING:
    import onnx
    import torch


@dataclass(frozen=True)
class Parity:
    """The differences between two runs of one model, over all outputs.

    max_abs: largest |Δ|. max_rel: largest |Δ| ÷ largest |reference value|, per output. mismatch: a sentence when an
    output has another shape or dtype, else None. first_divergent_node: "name (op)" of the first node whose result
    PyTorch never produced, on a path to a wrong output; None when the outputs agree. Where PyTorch computes in one step
    what the graph spells out in several nodes, it is the first of these. last_agreeing_tensor: the last tensor before it
    that both computed.
    """

    max_abs: float
    max_rel: float
    atol: float
    rtol: float
    within: bool
    mismatch: str | None = None
    first_divergent_node: str | None = None
    last_agreeing_tensor: str | None = None

    def __str__(self) -> str:
        if self.mismatch:
            return f"different: {self.mismatch}"
        line = f"max |Δ| = {self.max_abs:.2e}, relative {self.max_rel:.2e}: "
        if self.within:
            return line + f"equal within atol {self.atol:g}, rtol {self.rtol:g}"
        after = f", after {self.last_agreeing_tensor!r} still agreed" if self.last_agreeing_tensor else ""
        return line + f"different; first divergent node: {self.first_divergent_node}{after}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        mark = "✓" if self.within else "✗"
        return f"<p><b>{mark} parity</b> {html.escape(str(self))}</p>"


def parity(
    torch_model: torch.nn.Module,
    onnx_model: Model,
    inputs: torch.Tensor | tuple[torch.Tensor, ...],
    *,
    atol: float = 1e-4,
    rtol: float = 1e-3,
) -> Parity:
    """Run both models on the same inputs and compare every output. First used in lesson 00.

    inputs: one tensor or a tuple, in the order of the ONNX model's inputs. Values x, y agree when
    |x - y| ≤ atol + rtol·|y|, as in `numpy.allclose`. When they do not agree, all tensors inside both runs are compared
    by value: a node of the ONNX graph is divergent when PyTorch produced no tensor equal to its result.
    The PyTorch model is run as it is (train or eval mode), without gradients; its buffers and the random state are kept.
    Raises CourseError when the ONNX model cannot be loaded or the inputs do not fit it.
    """
    import torch

    inputs = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
    for value in inputs:
        if not isinstance(value, torch.Tensor):
            raise CourseError(
                f"parity() was given a {type(value).__name__} as input, it expects torch tensors: "
                f"torch.from_numpy(…) makes one of a NumPy array."
            )
    session = session_for(onnx_model)
    names = [i.name for i in session.get_inputs()]
    if len(names) != len(inputs):
        raise CourseError(f"The ONNX model has {len(names)} inputs {names}, and parity() was given {len(inputs)}.")
    feed = {name: as_numpy(value) for name, value in zip(names, inputs, strict=True)}
    got = list(run(session, feed).values())
    with untouched(torch_model):
        try:
            want = [as_numpy(t) for t in tensors_in(torch_model(*copied(inputs)))]
        except Exception as error:  # whatever a module raises
            raise CourseError(
                f"The PyTorch model, a {type(torch_model).__name__}, does not take the inputs that the ONNX model takes: "
                f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0]}"
            ) from error
    if len(want) != len(got):
        raise CourseError(f"The PyTorch model returns {len(want)} tensors, the ONNX model {len(got)}.")
    worst_abs = worst_rel = 0.0
    for index, (x, y) in enumerate(zip(got, want, strict=True)):
        if x.shape != y.shape or x.dtype != y.dtype:
            text = f"output {index} is {x.dtype} {list(x.shape)} in ONNX, {y.dtype} {list(y.shape)} in PyTorch"
            return Parity(np.inf, np.inf, atol, rtol, within=False, mismatch=text)
        delta = difference(x, y)
        worst_abs = max(worst_abs, delta)
        scale = float(np.abs(y[np.isfinite(y)]).max(initial=0)) if y.dtype.kind == "f" else 1.0
        worst_rel = max(worst_rel, delta / scale if scale else delta)
    wrong = [
        output.name
        for output, x, y in zip(session.get_outputs(), got, want, strict=True)
        if not _close(x, y, atol, rtol)
    ]
    if not wrong:
        return Parity(worst_abs, worst_rel, atol, rtol, within=True)
    node, before = _first_divergent(torch_model, inputs, as_model(onnx_model), feed, wrong, atol, rtol)
    return Parity(
        worst_abs, worst_rel, atol, rtol, within=False, first_divergent_node=node, last_agreeing_tensor=before
    )


@contextmanager
def untouched(model: torch.nn.Module) -> Iterator[None]:
    """Run a model without a trace: no gradients, the random state kept, and what the run changed in it put back.

    That is BatchNorm's running statistics, and whatever a module keeps from call to call in a buffer or an attribute.
    """
    import torch

    modules = list(model.modules()) if isinstance(model, torch.nn.Module) else []
    attributes = [(m.__dict__, {k: v for k, v in m.__dict__.items() if k != "_buffers"}) for m in modules]
    tensors = [v for _, kept in attributes for v in kept.values() if isinstance(v, torch.Tensor)]
    buffers = [(m._buffers, dict(m._buffers)) for m in modules]
    tensors += [b for _, kept in buffers for b in kept.values() if b is not None]
    before = [(tensor, tensor.detach().clone()) for tensor in tensors]
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            for now, kept in (*attributes, *buffers):
                for name in set(now) - set(kept) - {"_buffers"}:
                    del now[name]
                now.update(kept)
            for tensor, value in before:
                if not torch.equal(tensor, value):
                    tensor.copy_(value)


def copied(inputs: Any) -> Any:
    """The same tuples, lists and dicts with copies of their tensors: some models change what they are given."""
    import torch
    from torch.utils._pytree import tree_map

    return tree_map(lambda x: x.detach().clone() if isinstance(x, torch.Tensor) else x, inputs)


def as_numpy(tensor: torch.Tensor) -> np.ndarray:
    """The values of a tensor, from any device, without gradients."""
    return tensor.detach().cpu().numpy()


def tensors_in(result: Any) -> list[torch.Tensor]:
    """All tensors in nested tuples, lists and dicts, in the order in which the exporters flatten them."""
    from torch.utils._pytree import tree_leaves

    return [leaf for leaf in tree_leaves(result) if hasattr(leaf, "detach")]


def difference(x: np.ndarray, y: np.ndarray) -> float:
    """Largest |x - y|; equal infinities and NaN at the same place count as equal, a NaN on one side as infinite."""
    if x.size == 0:
        return 0.0
    x, y = x.astype(np.float64), y.astype(np.float64)
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    with np.errstate(invalid="ignore"):
        delta = np.where(same, 0.0, np.abs(x - y))
    return float(np.where(np.isnan(delta), np.inf, delta).max())


def _close(x: np.ndarray, y: np.ndarray, atol: float, rtol: float) -> bool:
    if x.dtype.kind != "f":
        return bool(np.array_equal(x, y))
    return bool(np.allclose(x, y, atol=atol, rtol=rtol, equal_nan=True))


def _torch_tensors(
    model: torch.nn.Module, inputs: tuple[torch.Tensor, ...]
) -> dict[tuple[np.dtype, int], list[np.ndarray]]:
    """Every tensor that any operator produced during one run, flattened, by dtype and number of elements."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    seen: dict[tuple[np.dtype, int], list[np.ndarray]] = {}

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = func(*args, **(kwargs or {}))
            for tensor in tensors_in(result):
                if tensor.dtype is not torch.bfloat16:  # NumPy has no such type
                    values = as_numpy(tensor).reshape(-1).copy()  # a copy: in-place operators overwrite
                    seen.setdefault((values.dtype, values.size), []).append(values)
            return result

    given = copied(inputs)
    with untouched(model), Recorder():
        model(*given)
    return seen


def _first_divergent(
    torch_model: torch.nn.Module,
    inputs: tuple[torch.Tensor, ...],
    proto: onnx.ModelProto,
    feed: dict[str, np.ndarray],
    wrong_outputs: list[str],
    atol: float,
    rtol: float,
) -> tuple[str | None, str | None]:
    """Walk back from the wrong outputs over tensors that PyTorch never produced; the earliest node met is the answer.

    Tensors made of weights and of shapes alone are passed over: PyTorch keeps shapes as Python numbers, and arranges
    its weights in its own way, so that it never has such a tensor. So are whole numbers that were only put into another
    form, as the indices of ScatterND are. The node that uses them is judged by its result.
    """
    known = _torch_tensors(torch_model, inputs)
    for value in feed.values():
        known.setdefault((value.dtype, value.size), []).append(value.reshape(-1))
    inside = run_all(proto, feed)
    agrees = {
        name: any(_close(value.reshape(-1), other, atol, rtol) for other in known.get((value.dtype, value.size), []))
        for name, value in inside.items()
        if isinstance(value, np.ndarray)
    }
    apart = _not_from_data(proto.graph)
    agrees |= dict.fromkeys(apart, True)
    makers = {name: index for index, node in enumerate(proto.graph.node) for name in node.output}
    # A wrong output can agree by value with some other tensor, so these always start the walk.
    todo = [makers[name] for name in wrong_outputs if name in makers]
    wrong, seen, starts = set(), set(), set(todo)
    while todo:
        index = todo.pop()
        if index in seen:
            continue
        seen.add(index)
        if index in starts or not _another_form(proto.graph.node[index], inside):
            wrong.add(index)
        todo += [makers[n] for n in proto.graph.node[index].input if n in makers and not agrees.get(n, True)]
    if not wrong:
        return None, None
    node = proto.graph.node[min(wrong)]
    before = [name for name in node.input if agrees.get(name) and name not in apart]
    return f"{node.name or node.output[0]} ({node.op_type})", before[-1] if before else None


_FORMS = (
    "Unsqueeze", "Squeeze", "Reshape", "Flatten", "Expand", "Tile", "Concat", "Cast", "Transpose", "Identity", "Where", "Slice",
)  # fmt: skip


def _another_form(node: onnx.NodeProto, inside: dict[str, np.ndarray]) -> bool:
    """Whether a node only puts whole numbers, such as indices, into another form: PyTorch has no tensor for that."""
    value = inside.get(node.output[0])
    return node.op_type in _FORMS and isinstance(value, np.ndarray) and value.dtype.kind in "iu"


def _not_from_data(graph: onnx.GraphProto) -> set[str]:
    """Names of the intermediate tensors that depend on weights, constants and shapes, never on an input's values."""
    stored = {tensor.name for tensor in graph.initializer} | {""}
    found: set[str] = set()
    for node in graph.node:
        subgraph = any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in node.attribute)
        random = node.op_type.startswith(("Random", "Bernoulli", "Multinomial"))
        if node.op_type in ("Shape", "Size") or not (
            subgraph or random or any(name not in stored and name not in found for name in node.input)
        ):
            found.update(node.output)
    return found
