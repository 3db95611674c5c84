"""Tables of what is in a graph: nodes, tensors, operators, and what changed between two models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import onnx
from onnx import AttributeProto, TensorProto, ValueInfoProto

from ..onnx_files import Model, as_model

if TYPE_CHECKING:
    import pandas as pd


_SUB_BYTE = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}  # bits per value, packed


def attribute_text(attribute: AttributeProto) -> str:
    """One attribute as `name=value`; a tensor as its dtype and shape, a subgraph as its number of nodes."""
    try:
        value = onnx.helper.get_attribute_value(attribute)
    except ValueError:  # a reference inside a function
        value = None
    if value is None:  # as also where the type was left out, in a model made by hand
        return f"{attribute.name}=?"
    if attribute.type == AttributeProto.TENSOR:
        text = f"{TensorProto.DataType.Name(value.data_type).lower()}{list(value.dims)}"
    elif attribute.type == AttributeProto.GRAPH:
        text = f"graph of {len(value.node)} nodes"
    elif isinstance(value, bytes):
        text = value.decode(errors="replace")
    elif attribute.type == AttributeProto.STRINGS:
        text = str([item.decode(errors="replace") for item in value])
    elif attribute.type in (AttributeProto.GRAPHS, AttributeProto.TENSORS):
        text = f"{len(value)} {'graphs' if attribute.type == AttributeProto.GRAPHS else 'tensors'}"
    else:
        text = str(list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value)
    return f"{attribute.name}={text}"


def type_text(value: ValueInfoProto) -> tuple[str, str]:
    """The dtype and the shape of a value as text; `?` where the model does not say."""
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return kind or "?", "?"
    tensor = value.type.tensor_type
    dtype = TensorProto.DataType.Name(tensor.elem_type).lower()
    if not tensor.HasField("shape"):
        return dtype, "?"
    return dtype, str([d.dim_param or (d.dim_value if d.HasField("dim_value") else "?") for d in tensor.shape.dim])


def node_table(model: Model) -> pd.DataFrame:
    """One row per node, in the order of the file: op, name, inputs, outputs, attributes. First used in lesson 01."""
    import pandas as pd

    rows = [
        {
            "op": f"{node.domain}::{node.op_type}" if node.domain else node.op_type,
            "inputs": ", ".join(node.input),
            "outputs": ", ".join(node.output),
            "attributes": ", ".join(map(attribute_text, node.attribute)),
            "name": node.name,
        }
        for node in as_model(model, external_data=False).graph.node
    ]
    return pd.DataFrame(rows, columns=["op", "inputs", "outputs", "attributes", "name"])


def tensor_table(model: Model) -> pd.DataFrame:
    """One row per named tensor: role (input, initializer, intermediate, output), dtype, shape, bytes of stored data.

    Intermediates are those the model describes in its value info. An initializer that is listed among the inputs too,
    as in files of IR version 3, stands here once, as an initializer. First used in lesson 01.
    """
    import pandas as pd

    graph = as_model(model, external_data=False).graph
    stored = {tensor.name for tensor in graph.initializer}  # exporters describe these in the value info, too
    rows = [
        {"tensor": value.name, "role": role, "dtype": dtype, "shape": shape, "bytes": 0}
        for role, values in (("input", graph.input), ("intermediate", graph.value_info), ("output", graph.output))
        for value in values
        if value.name not in stored
        for dtype, shape in [type_text(value)]
    ]
    rows += [
        {
            "tensor": tensor.name,
            "role": "initializer",
            "dtype": TensorProto.DataType.Name(tensor.data_type).lower(),
            "shape": str(list(tensor.dims)),
            "bytes": stored_bytes(tensor),
        }
        for tensor in graph.initializer
    ]
    return pd.DataFrame(rows, columns=["tensor", "role", "dtype", "shape", "bytes"])


def stored_bytes(tensor: TensorProto) -> int:
    """Bytes of a tensor's values, from its dtype and shape alone: they may lie in another file. 2- and 4-bit types round up."""
    count = 1
    for size in tensor.dims:
        count *= size
    name = TensorProto.DataType.Name(tensor.data_type)
    if name in _SUB_BYTE:
        return -(-count * _SUB_BYTE[name] // 8)
    if tensor.data_type in (TensorProto.UNDEFINED, TensorProto.STRING):
        return sum(map(len, tensor.string_data))
    return count * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize


def op_histogram(model: Model) -> pd.Series:
    """How often each operator stands in the graph (subgraphs included), most frequent first. First used in lesson 00."""
    import pandas as pd

    return pd.Series(operator_counts(model), name="nodes", dtype=int).rename_axis("op")


def operator_counts(model: Model) -> dict[str, int]:
    """As `op_histogram`, without pandas: what the checks need runs without the packages of the lessons."""
    counts: Counter[str] = Counter()

    def count(graph: onnx.GraphProto) -> None:
        for node in graph.node:
            counts[f"{node.domain}::{node.op_type}" if node.domain else node.op_type] += 1
            for attribute in node.attribute:
                for inner in (attribute.g, *attribute.graphs):
                    count(inner)

    count(as_model(model, external_data=False).graph)
    return dict(counts.most_common())


def graph_diff(before: Model, after: Model) -> pd.DataFrame:
    """What changed from one model to another: operators whose count differs, nodes, parameters, bytes, opset and IR version.

    Returns one row per quantity that differs, with columns before, after, change. Empty when nothing differs.
    First used in lesson 02.
    """
    import pandas as pd

    table = pd.DataFrame({"before": _quantities(before), "after": _quantities(after)}).fillna(0).astype(int)
    table["change"] = table["after"] - table["before"]
    return table[table["change"] != 0]


def _quantities(model: Model) -> dict[str, int]:
    proto = as_model(model, external_data=False)
    ops = {f"op {name}": int(number) for name, number in op_histogram(proto).items()}
    return {
        "nodes": sum(ops.values()),
        "initializers": len(proto.graph.initializer),
        "bytes of weights": sum(map(stored_bytes, proto.graph.initializer)),
        "IR version": proto.ir_version,
        **{f"opset {o.domain or 'ai.onnx'}": o.version for o in proto.opset_import},
        **ops,
    }
