"""The doctor and BatchNormalization: whose mean and variance it takes."""

from __future__ import annotations

import numpy as np
import pytest
from doctor_models import found, parsed, weights
from test_doctor_findings import own_statistics

import course_utils as cu


@pytest.mark.parametrize("opset", [14, 21])
def test_training_shows_in_an_attribute_from_opset_14_on(opset):
    """Whether the running statistics are asked for, or not."""
    for outputs in ("y", "y, m2, v2"):
        stored = {"s": weights(3), "b": weights(3), "m": weights(3), "v": np.ones(3, np.float32)}
        body = f"{outputs} = BatchNormalization<training_mode = 1>(x, s, b, m, v)"
        graph = f"g (float[N, 3, 4] x) => (float[N, 3, 4] y) {{ {body} }}"
        assert "batchnorm-in-training" in found(parsed(graph, stored, opset=opset))


@pytest.mark.parametrize("opset", [9, 13, 17, 21])
def test_statistics_of_the_batch_in_every_opset(opset):
    """In older ones, too, where the training mode shows in the number of outputs: eval() would be the wrong cure."""
    report = cu.doctor(own_statistics("[0, 2]", opset=opset))
    assert report.codes == ["batchnorm-without-statistics"]
    assert "track_running_stats" in report.findings[0].cure
    from_shape = "h = Shape(x)  f = Cast<to = 1>(h)  t = ReduceMax<keepdims = 1>(f)  mean = Mul(m, t)  var = Add(v, t)"
    assert "batchnorm-without-statistics" not in found(own_statistics("", from_shape, opset=17))


@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize("tracked", [True, False])
def test_a_layer_without_running_statistics(dynamo, tracked, folder):
    import torch
    from torch import nn

    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3, track_running_stats=tracked)).eval()
    with cu.exporter_messages():  # the older exporter does it for a fixed batch alone
        torch.onnx.export(model, (torch.randn(2, 1, 6, 6),), "m.onnx", dynamo=dynamo, external_data=False)
    codes = set(found("m.onnx")) - {"paths-of-a-machine", "batchnorm-not-folded", "batch-fixed"}
    assert codes == (set() if tracked else {"batchnorm-without-statistics"})


def test_instance_normalization_has_its_own_mean():
    model = parsed(
        "g (float[N, 3, 4] x) => (float[N, 3, 4] y) { y = InstanceNormalization(x, s, b) }",
        {"s": weights(3), "b": weights(3)},
    )
    assert found(model) == []
