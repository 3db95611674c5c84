"""What the tasks of lesson 06 share: nodes and models to hand out, and a look at the operators of an answer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper

from ...lab.graphs import operator_counts
from .. import Criteria
from ..handouts import x_to_y

OPSET, IR = 17, 8
Weights = dict[str, np.ndarray]


def conv_node(source: str, weights: list[str], target: str) -> onnx.NodeProto:
    """A convolution of 3 × 3 that keeps the size."""
    return helper.make_node(
        "Conv", [source, *weights], [target], f"conv_{target}", kernel_shape=[3, 3], pads=[1, 1, 1, 1]
    )


def norm_node(source: str, layer: str, target: str, epsilon: float) -> onnx.NodeProto:
    """A BatchNormalization with the weights of this layer."""
    weights = [f"{layer}.{name}" for name in ("scale", "shift", "mean", "variance")]
    return helper.make_node("BatchNormalization", [source, *weights], [target], f"norm_{target}", epsilon=epsilon)


def float32_model(
    name: str,
    nodes: list[onnx.NodeProto],
    weights: Mapping[str, np.ndarray],
    shape_in: list[int | str],
    shape_out: list[int | str],
    opsets: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """A model from `x` to `y`; weights are stored as float32."""
    single = {key: np.asarray(values, np.float32) for key, values in weights.items()}
    return x_to_y(name, nodes, single, shape_in, shape_out, opsets or {"": OPSET}, ir_version=IR)


def is_standard(model: onnx.ModelProto, criteria: Criteria) -> bool:
    """Add: all nodes are of standard operators, in subgraphs too, and there are no functions."""
    foreign = sorted({op for op in operator_counts(model) if "::" in op and not op.startswith("ai.onnx::")})
    return criteria.require(
        "only standard operators are in the file",
        not foreign and not model.functions,
        f"There are nodes of {', '.join(foreign) or 'a function'}. Leave the fusing to the optimiser: hand in the model "
        f"as it is before.",
    )
