"""The parity gate: equal models pass, and for others the first node that went wrong is named."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import course_utils as cu


@pytest.fixture(scope="module")
def images():
    return torch.from_numpy(cu.normalize(cu.fashion_mnist("calibration")[0][:8]))


@pytest.fixture(scope="module")
def model():
    return cu.fashion_resnet()


@pytest.fixture(scope="module")
def files(model, fashion_onnx, tmp_path_factory):
    """The reference model from both exporters."""
    path = tmp_path_factory.mktemp("torchscript") / "fashion_resnet.onnx"
    names = {"input_names": ["image"], "output_names": ["logits"], "dynamic_axes": {"image": {0: "batch"}}}
    torchscript = through_onnx(model, (torch.randn(2, 1, 28, 28),), path, **names)
    return {"dynamo": fashion_onnx, "torchscript": torchscript}


def through_onnx(model: nn.Module, inputs: tuple[torch.Tensor, ...], path, **how) -> str:
    """Export with the older exporter, which takes a moment only and spells more out. It says that it is old: no news."""
    with pytest.warns(DeprecationWarning, match="legacy TorchScript-based ONNX export"):
        torch.onnx.export(model, inputs, path, dynamo=False, **how)
    return str(path)


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_equal(exporter, model, files, images):
    gate = cu.parity(model, files[exporter], images)
    assert gate.within
    assert gate.max_abs < 1e-4
    assert (gate.first_divergent_node, gate.mismatch) == (None, None)
    assert str(gate).endswith("equal within atol 0.0001, rtol 0.001")


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize("op", ["Conv", "Gemm"])
@pytest.mark.parametrize("position", [0, 0.4, 0.8, 1])
def test_one_wrong_weight_is_found(position, op, exporter, model, files, images):
    """One weight of one layer, anywhere in the network, whatever the exporter folded into it."""
    broken = onnx.load(files[exporter])
    layers = [node for node in broken.graph.node if node.op_type == op]
    node = layers[round(position * (len(layers) - 1))]
    weight = next(t for t in broken.graph.initializer if t.name == node.input[1])
    values = numpy_helper.to_array(weight).copy()
    values.flat[np.abs(values).argmax()] += 3
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    gate = cu.parity(model, broken, images)
    assert not gate.within
    assert gate.first_divergent_node == f"{node.name} ({op})"
    producers = {name for other in broken.graph.node for name in other.output}
    assert gate.last_agreeing_tensor == (node.input[0] if node.input[0] in producers else None)


def test_wrong_operator_is_found(model, fashion_onnx, images):
    """A ReLU that became something else, as a slip in a hand-made graph would."""
    broken = onnx.load(fashion_onnx)
    node = [n for n in broken.graph.node if n.op_type == "Relu"][5]
    node.op_type = "Abs"
    assert cu.parity(model, broken, images).first_divergent_node == f"{node.name} (Abs)"


def test_shape_computations_are_not_blamed(tmp_path):
    """The batch size is read first, so Shape and Gather lead the graph; PyTorch never has such tensors."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv2d(1, 2, 3), nn.Linear(2 * 4 * 4, 3)

        def forward(self, x):
            n = x.size(0)
            return self.last(torch.relu(self.first(x)).view(n, -1))

    net, x = Net().eval(), torch.randn(2, 1, 6, 6)
    path = through_onnx(net, (x,), tmp_path / "n.onnx", input_names=["x"], dynamic_axes={"x": {0: "n"}})
    broken = onnx.load(path)
    assert broken.graph.node[0].op_type == "Shape"
    assert cu.parity(net, broken, x).within
    bias = next(t for t in broken.graph.initializer if t.name == "first.bias")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 1, bias.name))
    assert cu.parity(net, broken, x).first_divergent_node == "/first/Conv (Conv)"


def test_decomposed_layers_before_the_wrong_one_are_not_blamed(tmp_path):
    """A layer that the exporter spells out in several nodes has inner tensors PyTorch never had; its result counts."""
    net = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 4)).eval()
    x = torch.randn(3, 5, 8)
    path = through_onnx(net, (x,), tmp_path / "n.onnx", opset_version=17)
    assert cu.parity(net, path, x).within
    broken = onnx.load(path)
    bias = next(t for t in broken.graph.initializer if t.name == "3.bias")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 1, bias.name))
    # PyTorch multiplies and adds in one step, the graph in two; the first of them is as close as values can tell.
    assert cu.parity(net, broken, x).first_divergent_node == "/3/MatMul (MatMul)"


def test_dropout_in_train_mode(model, fashion_onnx, images):
    training = copy.deepcopy(model)
    training.dropout.train()
    gate = cu.parity(training, fashion_onnx, images)
    assert not gate.within
    assert gate.first_divergent_node.endswith("(Gemm)"), "everything before the dropout agrees"


def test_comparing_changes_nothing(model, fashion_onnx, images):
    """A model in train mode would move BatchNorm's statistics; random numbers would be used up."""
    training = copy.deepcopy(model).train()
    before = {name: value.clone() for name, value in training.state_dict().items()}
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    assert not cu.parity(training, fashion_onnx, images).within
    assert torch.rand(1) == expected
    assert training.training
    assert all(torch.equal(before[name], value) for name, value in training.state_dict().items())


def graph(nodes, inputs, outputs, initializers=()):
    """A small model; inputs and outputs as name → (dtype, shape)."""
    info = [[helper.make_tensor_value_info(n, *what) for n, what in values.items()] for values in (inputs, outputs)]
    made = helper.make_graph(nodes, "small", *info, list(initializers))
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


FLOAT3 = (TensorProto.FLOAT, [3])


def test_nan_on_both_sides_agrees_on_one_side_it_does_not():
    square_root = graph([helper.make_node("Sqrt", ["x"], ["y"])], {"x": FLOAT3}, {"y": FLOAT3})
    x = torch.tensor([1.0, -1.0, 4.0])
    both = cu.parity(_module(torch.sqrt), square_root, x)
    one = cu.parity(_module(lambda x: torch.sqrt(x.abs())), square_root, x)
    assert both.within
    assert both.max_abs == 0
    assert not one.within
    assert (one.max_abs, one.max_rel) == (np.inf, np.inf)
    assert one.first_divergent_node == "y (Sqrt)"


def test_difference_beside_a_nan_is_still_measured():
    halves = graph(
        [helper.make_node("Mul", ["x", "two"], ["y"])],
        {"x": FLOAT3},
        {"y": FLOAT3},
        [numpy_helper.from_array(np.float32(2), "two")],
    )
    gate = cu.parity(_module(lambda x: 4 * x), halves, torch.tensor([1.0, float("nan"), 4.0]))
    assert gate.max_abs == 8
    assert gate.max_rel == 0.5


def test_integer_outputs_must_be_equal():
    largest = graph(
        [helper.make_node("ArgMax", ["x"], ["y"], axis=0, keepdims=0)], {"x": FLOAT3}, {"y": (TensorProto.INT64, [])}
    )
    x = torch.tensor([1.0, 3.0, 2.0])
    assert cu.parity(_module(lambda x: x.argmax()), largest, x).within
    assert not cu.parity(_module(lambda x: x.argmin()), largest, x, atol=10).within


def test_only_the_wrong_output_is_followed():
    """Two outputs; the wrong one comes from a later node than the right one."""
    two = graph(
        [
            helper.make_node("Abs", ["x"], ["a"], name="absolute"),
            helper.make_node("Neg", ["x"], ["b"], name="negative"),
        ],
        {"x": FLOAT3},
        {"a": FLOAT3, "b": FLOAT3},
    )
    x = torch.tensor([1.0, -2.0, 3.0])
    assert cu.parity(_module(lambda x: (x.abs(), -x)), two, x).within
    gate = cu.parity(_module(lambda x: {"a": x.abs(), "b": x + 1}), two, x)
    assert gate.first_divergent_node == "negative (Neg)"
    with pytest.raises(cu.CourseError, match="returns 1 tensors, the ONNX model 2"):
        cu.parity(_module(torch.abs), two, x)


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda x: x[:2].abs(), r"output 0 is float32 \[3\] in ONNX, float32 \[2\] in PyTorch"),
        (lambda x: x.abs().double(), r"output 0 is float32 \[3\] in ONNX, float64 \[3\] in PyTorch"),
    ],
    ids=["shape", "dtype"],
)
def test_another_shape_or_dtype(function, sentence):
    absolute = graph([helper.make_node("Abs", ["x"], ["y"])], {"x": FLOAT3}, {"y": FLOAT3})
    gate = cu.parity(_module(function), absolute, torch.ones(3))
    assert not gate.within
    assert str(gate).startswith("different: ")
    assert gate.mismatch is not None
    with pytest.raises(AssertionError, match=sentence):
        assert gate.within, gate


def _module(function) -> nn.Module:
    class Module(nn.Module):
        def forward(self, *inputs):
            return function(*inputs)

    return Module()


class Written(nn.Module):
    """Writes rows, or single numbers, at given places; in the third way at a place that it computes."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way

    def forward(self, x: torch.Tensor, i: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        y = x * 2
        if self.way == "rows":
            return torch.relu(y.index_put((i,), v + 1))
        if self.way == "numbers":
            return torch.relu(y.index_put((i, i), v[:, 0] + 1))
        return torch.relu(y.index_put(((x.sum(1).argmax() + 0 * i[:1]),), v[:1] + 1))


@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize("way", ["rows", "numbers", "computed"])
def test_the_form_of_indices_is_not_blamed(dynamo, way, tmp_path):
    """PyTorch keeps its indices in a form of its own: a ScatterND that writes wrongly is the first wrong node."""
    module, given = Written(way), (torch.rand(5, 5), torch.tensor([1, 3]), torch.rand(2, 5))
    path = tmp_path / "m.onnx"
    with cu.exporter_messages():
        torch.onnx.export(module, given, path, dynamo=dynamo, external_data=False, opset_version=18)
    made = onnx.load(path)
    assert cu.parity(module, made, given).within
    (scatter,) = (node for node in made.graph.node if node.op_type == "ScatterND")
    for attribute in [a for a in scatter.attribute if a.name == "reduction"]:
        scatter.attribute.remove(attribute)
    scatter.attribute.append(helper.make_attribute("reduction", "add"))
    found = cu.parity(module, made, given)
    assert found.first_divergent_node == f"{scatter.name or scatter.output[0]} (ScatterND)"
    assert found.last_agreeing_tensor


def test_wrong_indices_are_found_behind_their_form():
    """The node that computes them is to blame, not the ones that shape them, and not the one that reads with them."""

    class Picks(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[x.sum(1).argmax()] * 2

    def made(op: str) -> onnx.ModelProto:
        return onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["": 18]>
            g (float[5, 4] x) => (float[4] y) <int64[1] a = {{1}}, int64[1] one = {{-1}}, float two = {{2.0}}> {{
                s = ReduceSum<keepdims = 0>(x, a)  i = {op}<axis = 0, keepdims = 1>(s)  j = Reshape(i, one)
                g = Gather<axis = 0>(x, j)  h = Squeeze(g)  y = Mul(h, two) }}""")

    x = torch.arange(20.0).reshape(5, 4) ** 1.5
    assert cu.parity(Picks(), made("ArgMax"), x).within
    assert cu.parity(Picks(), made("ArgMin"), x).first_divergent_node == "i (ArgMin)"


def test_numbers_in_a_wrong_order_are_blamed():
    """Only whole numbers are passed over: a Transpose of data that PyTorch has in another order is the first wrong node."""

    def made(perm: str) -> onnx.ModelProto:
        return onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["": 18]>
            g (float[2, 3, 3] x) => (float[2, 3, 3] y) {{
                a = Neg(x)  t = Transpose<perm = {perm}>(a)  y = Softmax<axis = -1>(t) }}""")

    module, x = _module(lambda x: torch.softmax((-x).permute(0, 2, 1), -1)), torch.arange(18.0).reshape(2, 3, 3).sqrt()
    assert cu.parity(module, made("[0, 2, 1]"), x).within
    square = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 18]>
        g (float[3, 3, 3] x) => (float[3, 3, 3] y) {
            a = Neg(x)  t = Transpose<perm = [2, 1, 0]>(a)  y = Softmax<axis = -1>(t) }""")
    cube = torch.arange(27.0).reshape(3, 3, 3).sqrt()
    assert cu.parity(module, square, cube).first_divergent_node == "t (Transpose)"


def test_inputs_that_the_module_does_not_take():
    square_root = graph([helper.make_node("Sqrt", ["x"], ["y"])], {"x": FLOAT3}, {"y": FLOAT3})
    with pytest.raises(cu.CourseError, match=r"a Linear, does not take the inputs .*: RuntimeError: "):
        cu.parity(nn.Linear(7, 7), square_root, torch.ones(3))
