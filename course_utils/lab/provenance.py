"""What an optimiser did to a graph: which original nodes became which node, and how many bytes travel between nodes.

Names alone do not tell: an optimiser renames tensors and changes their layout. So both models are run on the same input,
and a tensor of the optimised model is recognised by its name, or else by its values.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from ..errors import CourseError
from ..onnx_files import Model, as_model
from ..running import open_session, run_all

if TYPE_CHECKING:
    import pandas as pd

LEVELS = {
    "none": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "layout": "ORT_ENABLE_LAYOUT",
    "all": "ORT_ENABLE_ALL",
}
_BLOCKED = "com.microsoft.nchwc"  # its tensors hold channels in blocks: [N, C/b, H, W, b] in the shape [N, C, H, W]
_BLOCKS = (16, 8, 4, 32)
_CLOSE = 1e-4  # of the largest value: folding weights changes the last digits

Tensors = dict[str, np.ndarray]


def optimized(model: Model, level: str = "all") -> onnx.ModelProto:
    """The model as ONNX Runtime would run it on the CPU provider of this machine. First used in lesson 06.

    level: "none", "basic", "extended", "layout" or "all". Raises CourseError for another one, or when ONNX Runtime
    refuses the model.
    """
    import onnxruntime as ort

    if level not in LEVELS:
        raise CourseError(f"There is no level {level!r}. ONNX Runtime has: {', '.join(LEVELS)}.")
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, LEVELS[level])
        options.optimized_model_filepath = str(Path(folder, "optimized.onnx"))
        options.intra_op_num_threads = 1  # nothing is run
        options.log_severity_level = 4  # it warns that the file fits this machine; ours lives for a moment only
        open_session(model, options, ["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath)


def traffic(model: Model, feed: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Bytes that travel between the nodes of a model, in one run without further optimisation. First used in lesson 06.

    One row per node: op, reads (bytes of the tensors it takes from the input or from other nodes; weights do not count),
    writes. What a kernel does inside, and what a cache spares, is not in it. Nodes inside subgraphs are not counted.
    Raises CourseError when the model cannot be read or the feed does not fit it.
    """
    import pandas as pd

    proto = as_model(model)
    size = {name: value.nbytes for name, value in {**feed, **run_all(proto, feed)}.items()}
    rows = [
        {
            "op": _op(node),
            "reads": sum(size.get(name, 0) for name in node.input),
            "writes": sum(size.get(name, 0) for name in node.output),
            "output": node.output[0],
        }
        for node in proto.graph.node
    ]
    return pd.DataFrame(rows, columns=["op", "reads", "writes", "output"])


def origins(before: Model, after: Model, feed: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Where each node of an optimised model comes from. First used in lesson 06.

    feed: input name → array, as for `InferenceSession.run`; use random numbers, so that different tensors differ.
    Returns one row per node of `after`, then one per original node that is gone. Columns:

    - what: `kept`; `rewritten` (one node became another one); `fused` (several became one); `inserted` (nothing of the
      original is computed here, as in a change of layout); `unknown` (its result is nowhere in the original); and of the
      nodes that are gone `folded` (computed beforehand, from constants) and `removed` (it passed its input on unchanged,
      or nobody needed it).
    - node: operator of the node in `after`, empty for one that is gone. output: the tensor it writes.
    - from: the original operators, in their order. originals: the names of those nodes, or their outputs where unnamed.

    Method: both models run on `feed`. A tensor of `after` is the original one of the same name and values, or else the
    first original tensor with the same values, of the same shape if there is one (nchwc tensors are unpacked before). A
    node stands for all original nodes between the tensors it reads and the tensors it writes. Nodes inside subgraphs are
    not looked at.
    Raises CourseError when a model cannot be read or the feed does not fit.
    """
    import pandas as pd

    old, new = _Run(before, feed), _Run(after, feed)
    origin = {name: _same(name, value, old, packed=name in new.packed) for name, value in new.values.items()}
    rewritten = {o: n.op_type for n in new.nodes for o in n.output}
    # A Relu changes nothing where all is positive: only what passes the negative of the feed unchanged, too, is idle.
    mirrored = _Run(before, {name: -v if v.dtype.kind == "f" else v for name, v in feed.items()})
    idle = {i for i in old.idle() & mirrored.idle() if rewritten.get(old.nodes[i].output[0]) != old.nodes[i].op_type}
    folded = {i for i in old.constant if not set(old.nodes[i].output) & set(rewritten)}
    rows, used = [], set()
    for node in new.nodes:
        ends = [origin[name][0] for name in node.output if origin.get(name)]
        starts = {found for name in node.input for found in origin.get(name, ())}
        between = old.between(starts, ends) - folded
        used |= between
        rows.append(_row(_what(node, [old.nodes[i] for i in sorted(between - idle)], ends), node, old, between - idle))
    for i in range(len(old.nodes)):
        if i in folded:
            rows.append(_row("folded", None, old, [i]))
        elif i in idle or i not in used:
            rows.append(_row("removed", None, old, [i]))
    return pd.DataFrame(rows, columns=["what", "node", "output", "from", "originals"])


def _what(node: onnx.NodeProto, originals: list[onnx.NodeProto], ends: list[str]) -> str:
    if not ends:
        return "unknown"
    if len(originals) > 1:
        return "fused"
    if not originals:
        return "inserted"
    return "kept" if _op(originals[0]) == _op(node) else "rewritten"


def _row(what: str, node: onnx.NodeProto | None, old: _Run, originals: Iterable[int]) -> dict[str, str]:
    found = [old.nodes[i] for i in sorted(originals)]
    return {
        "what": what,
        "node": _op(node) if node is not None else "",
        "output": node.output[0] if node is not None else "",
        "from": " + ".join(map(_op, found)),
        "originals": ", ".join(n.name or n.output[0] for n in found),
    }


def _op(node: onnx.NodeProto) -> str:
    return f"{node.domain}::{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type


class _Run:
    """A model and all tensors of one run. values: those that depend on the input, in the order in which they come to be."""

    def __init__(self, model: Model, feed: Mapping[str, np.ndarray]) -> None:
        proto = as_model(model)
        self.nodes = list(proto.graph.node)
        computed = run_all(proto, feed) if self.nodes else {}
        known = (
            {t.name for t in proto.graph.initializer} | {t.values.name for t in proto.graph.sparse_initializer} | {""}
        )
        self.constant: set[int] = set()  # nodes that compute from constants alone
        for index, node in enumerate(self.nodes):
            if known.issuperset(node.input) and not node.op_type.startswith("Random"):
                self.constant.add(index)
                known.update(node.output)
        self.values: Tensors = {**feed, **computed}
        self.varying = [name for name in self.values if name not in known]
        self.packed: set[str] = set()
        for node in self.nodes:  # between blocked nodes, what works element by element takes the blocks as they are
            blocked = node.domain == _BLOCKED or not self.packed.isdisjoint(node.input)
            if blocked and node.op_type != "ReorderOutput":
                self.packed.update(filter(None, node.output))
        self.producer = {name: i for i, node in enumerate(self.nodes) for name in node.output if name}

    def idle(self) -> set[int]:
        """Nodes whose output is their input, in every value."""
        found = set()
        for index, node in enumerate(self.nodes):
            value = self.values.get(node.output[0])
            sources = (self.values.get(name) for name in node.input if name in self.varying)
            if value is not None and any(
                s is not None
                and s.shape == value.shape
                and s.dtype == value.dtype
                and np.array_equal(s, value, equal_nan=value.dtype.kind == "f")
                for s in sources
            ):
                found.add(index)
        return found

    def between(self, starts: set[str], ends: Iterable[str]) -> set[int]:
        """Nodes on the way back from `ends` to `starts`; constants and the graph's inputs end the way, too."""
        found: set[int] = set()
        waiting = [name for name in ends if name not in starts]
        while waiting:
            index = self.producer.get(waiting.pop())
            if index is None or index in found:
                continue
            found.add(index)
            waiting += [n for n in self.nodes[index].input if n and n not in starts and n in self.varying]
        return found


def _same(name: str, value: np.ndarray, old: _Run, *, packed: bool) -> list[str]:
    """Names of the original tensors that this one is: the one of the same name, or else all of the same values.

    Those of the same shape go before: Flatten, for one, changes nothing but the shape.
    """
    forms = [value, *_unpacked(value)] if packed else [value]
    if name in old.values and any(_close(form, old.values[name]) for form in forms):
        return [name]
    found = [n for n in old.varying if any(_close(form, old.values[n]) for form in forms)]
    return [n for n in found if _fits(value.shape, old.values[n].shape)] or found


def _fits(new: tuple[int, ...], old: tuple[int, ...]) -> bool:
    """Whether the shapes are the same, but for channels of padding."""
    return new == old or (len(new) == len(old) == 4 and (new[0], new[2:]) == (old[0], old[2:]) and new[1] > old[1])


def _unpacked(value: np.ndarray) -> list[np.ndarray]:
    """What an nchwc tensor `[N, C, H, W]` may be in the usual order, for each possible size of a block."""
    if value.ndim != 4:
        return []
    n, c, h, w = value.shape
    return [
        value.reshape(n, c // b, h, w, b).transpose(0, 1, 4, 2, 3).reshape(n, c, h, w) for b in _BLOCKS if c % b == 0
    ]


def _close(new: np.ndarray, old: np.ndarray) -> bool:
    """Whether the values are the same up to rounding. Another shape of as many values is the same; so are added channels of padding."""
    if new.shape != old.shape and _fits(new.shape, old.shape):
        new = new[:, : old.shape[1]]
    if new.size != old.size or not new.size or new.dtype != old.dtype:
        return False
    if old.dtype.kind != "f":
        return np.array_equal(new.ravel(), old.ravel())
    a, b = new.ravel().astype(np.float64), old.ravel().astype(np.float64)
    return bool(np.abs(a - b).max() <= _CLOSE * np.abs(b).max())
