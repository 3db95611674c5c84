"""The doctor and loops that were written out step by step, and what only looks like one."""

from __future__ import annotations

import numpy as np
import pytest
from doctor_models import found, parsed, weights
from test_doctor_findings import row

import course_utils as cu


def test_branches_side_by_side_are_no_loop():
    """A detector's heads share weights, and a sum of many branches is a chain; neither is a loop."""
    heads = "  ".join(f"y{i} = MatMul(x{i}, w)" for i in range(12))
    ins, outs = (", ".join(f"float[N, 4] {c}{i}" for i in range(12)) for c in "xy")
    assert found(parsed(f"g ({ins}) => ({outs}) {{ {heads} }}", {"w": weights(4, 4)})) == []
    layers = "  ".join(f"b{i} = MatMul(x, w{i})" for i in range(12))
    total = "s0 = Max(b0, b1)  " + "  ".join(f"s{i} = Max(s{i - 1}, b{i + 1})" for i in range(1, 11))
    stored = {f"w{i}": weights(4, 4) for i in range(12)}
    assert found(parsed(f"g (float[N, 4] x) => (float[N, 4] s10) {{ {layers}  {total} }}", stored)) == []


def test_a_loop_without_weights_counts_its_steps():
    """Each step picks one row of the input by its index, as a traced loop over the length does."""
    steps, h = [], "z"
    for i in range(9):
        steps.append(f"r{i} = Gather(x, i{i})  a{i} = Mul({h}, k)  h{i} = Add(a{i}, r{i})")
        h = f"h{i}"
    stored = {f"i{i}": np.array(i) for i in range(9)} | {"k": np.array(0.5, np.float32)}
    report = cu.doctor(parsed(f"g (float[9, 4] x, float[4] z) => (float[4] {h}) {{ {'  '.join(steps)} }}", stored))
    assert report.codes == ["loop-unrolled"]
    assert "9 steps of 3 nodes" in report.findings[0].cause


@pytest.mark.parametrize(("steps", "codes"), [(3, []), (4, ["loop-unrolled"])])
def test_four_steps_are_a_loop(steps, codes):
    """Of four nodes each, so that three would be long enough."""
    body = "  ".join(
        f"a{i} = MatMul(h{i}, w)  b{i} = Add(a{i}, h0)  c{i} = Tanh(b{i})  h{i + 1} = Neg(c{i})" for i in range(steps)
    )
    assert found(parsed(f"g (float[N, 4] h0) => (float[N, 4] h{steps}) {{ {body} }}", {"w": weights(4, 4)})) == codes


@pytest.mark.parametrize("name", [b"weight", b"own.ops"])
def test_names_that_are_no_text(name):
    """Of a stored tensor, and of a domain: as another program's encoding writes them."""
    body = "  ".join(
        f"a{i} = MatMul(h{i}, weight)  b{i} = Add(a{i}, h0)  h{i + 1} = own.ops.Turn(b{i})" for i in range(5)
    )
    model = parsed(
        f"g (float[N, 4] h0) => (float[N, 4] h5) {{ {body} }}", {"weight": weights(4, 4)}, more=', "own.ops": 1'
    )
    data = model.SerializeToString()
    assert "loop-unrolled" in found(data)
    assert "loop-unrolled" in found(data.replace(name, name[:-1] + b"\xff"))


def test_a_loop_over_pieces_that_were_cut_beforehand():
    """`for t in x.unbind(1)`: one Split, then a Squeeze and a step for each piece."""
    pieces = ", ".join(f"p{i}" for i in range(6))
    cut = "  ".join(f"t{i} = Squeeze(p{i}, one)" for i in range(6))
    steps = "  ".join(
        f"a{i} = MatMul(t{i}, w)  b{i} = Add(a{i}, {f'h{i - 1}' if i else 'z'})  h{i} = Tanh(b{i})" for i in range(6)
    )
    model = parsed(
        f"g (float[N, 6, 4] x, float[N, 4] z) => (float[N, 4] h5) {{ {pieces} = Split<axis = 1, num_outputs = 6>(x)  {cut}  {steps} }}",
        {"w": weights(4, 4), "one": np.array([1])},
    )
    report = cu.doctor(model)
    assert report.codes == ["loop-unrolled"]
    assert report.findings[0].cause.startswith("6 steps of 3 nodes")


@pytest.mark.parametrize(
    "step",
    [["Relu"], ["Tanh"], ["Relu", "Cast<to = 10>", "Cast<to = 1>"], ["Softmax"], ["Clip"], ["Neg", "Transpose<perm = [1, 0, 2]>"]],
    ids=lambda step: step[0],
)  # fmt: skip
def test_one_function_again_and_again_is_no_loop(step):
    assert "loop-unrolled" not in found(row(step * 40))


def test_data_that_is_only_moved_is_no_loop():
    """Of two inputs each: a shape, and the scale of a quantization."""
    stored = {"a": np.array([0, 6]), "b": np.array([0, 2, 3]), "s": np.float32(0.1), "z": np.uint8(0)}
    body = "".join(f"a{i} = Reshape(y{i}, a)  y{i + 1} = Reshape(a{i}, b)  " for i in range(12))
    assert "loop-unrolled" not in found(parsed(f"g (float[N, 2, 3] y0) => (float[N, 2, 3] y12) {{ {body} }}", stored))
    body = "".join(f"a{i} = QuantizeLinear(y{i}, s, z)  y{i + 1} = DequantizeLinear(a{i}, s, z)  " for i in range(12))
    arrays = {k: np.asarray(v) for k, v in stored.items()}
    assert "loop-unrolled" not in found(parsed(f"g (float[N] y0) => (float[N] y12) {{ {body} }}", arrays))
    body = "".join(f"y{i + 1} = Mul(y{i}, s)  " for i in range(12))
    assert "loop-unrolled" in found(parsed(f"g (float[N] y0) => (float[N] y12) {{ {body} }}", arrays))


@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_layers_of_equal_weights_are_no_loop(dynamo, shared, folder):
    """An untrained encoder's layers are copies, and exporters store their weights once. One layer called again is a loop."""
    import copy

    import torch
    from torch import nn

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.dense = nn.LayerNorm(4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.tanh(self.dense(self.norm(x)))

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            first = Layer()
            self.layers = nn.ModuleList([first, *(copy.deepcopy(first) for _ in range(5))])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for i in range(6):
                x = self.layers[0 if shared else i](x)
            return x

    with cu.exporter_messages():
        torch.onnx.export(Encoder().eval(), (torch.randn(2, 4),), "m.onnx", dynamo=dynamo, external_data=False)
    assert ("loop-unrolled" in found("m.onnx")) == shared
