"""Making the models that tasks of several chapters hand out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def x_to_y(
    name: str,
    nodes: list[onnx.NodeProto],
    weights: Mapping[str, np.ndarray],
    x: list[int | str],
    y: list[int | str],
    opsets: Mapping[str, int],
    *,
    ir_version: int = 10,
) -> onnx.ModelProto:
    """A model with one float32 input `x` and one float32 output `y` of the given shapes. opsets: domain → version."""
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, y)],
        [numpy_helper.from_array(value, key) for key, value in weights.items()],
    )
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    return helper.make_model(graph, ir_version=ir_version, opset_imports=imports, producer_name="onnx-scroll")
