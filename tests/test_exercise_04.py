"""Exercises 04: right answers by different roads pass; each typical mistake fails with a hint that names its cause."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
import pytest
import torch
from answers import STUDENTS, accepted, criteria, damaged, failed, given, given_files, hints, nearly, params
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnxruntime.tools.onnx_model_utils import fix_output_shapes, make_dim_param_fixed
from torch import nn
from torch.export import Dim

import course_utils as cu
from course_utils.exercises import Params, fashion_reference, task
from course_utils.exercises.ch04 import suspects
from course_utils.handin.points import task_points

HEAD = '<ir_version: 10, opset_import: ["": 18]>'
Dims = list[str | int]


def exported(module: nn.Module, example: tuple, folder: Path, names: list[str], shapes: tuple) -> ModelProto:
    """torch.onnx.export into a model. names: input names, then one output name."""
    with cu.exporter_messages():
        torch.onnx.export(
            module.eval(), example, folder / "model.onnx", input_names=names[:-1], output_names=names[-1:],
            external_data=False, verbose=False, dynamic_shapes=shapes,
        )  # fmt: skip
    return onnx.load(folder / "model.onnx")


def between(
    middle: ModelProto, before: str, behind: str, x: tuple[str, Dims], y: tuple[str, Dims], weights: dict[str, Any]
) -> ModelProto:
    """A part of the trained network with other nodes around it, both as text.

    before: makes `x` from the model's input. behind: makes the model's output from `middle`.
    """
    model = ModelProto.FromString(middle.SerializeToString())
    last = model.graph.node[-1]
    first, end = (onnx.parser.parse_model(f"{HEAD} g () => () {{ {text} }}").graph.node for text in (before, behind))
    last.output[0] = "middle"
    nodes = [*first, *model.graph.node, *end]
    del model.graph.node[:], model.graph.input[:], model.graph.output[:]
    model.graph.node.extend(nodes)
    model.graph.input.append(helper.make_tensor_value_info(x[0], TensorProto.FLOAT, x[1]))
    model.graph.output.append(helper.make_tensor_value_info(y[0], TensorProto.FLOAT, y[1]))
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array(v, np.int64 if np.array(v).dtype.kind == "i" else np.float32), n)
        for n, v in weights.items()
    )
    return model


# 4.1

STEPS = "a = Div({input}, full)  b = Sub(a, mean)  c = Div(b, std)  x = Reshape(c, shape)"


def any_batch(
    who: str = "ada",
    steps: str = STEPS,
    shape: tuple = (-1, 1, 28, 28),
    dims: tuple[Dims, Dims] | None = None,
    **changed: Any,
) -> ModelProto:
    p = {**params("4.1", who), **changed}
    x, y = dims or ([p["name"], 784], [p["name"], 10])
    weights = {"full": 255.0, "mean": p["mean"], "std": p["std"], "shape": list(shape)}
    behind = f"{p['output']} = Identity(middle)"
    return between(fashion_reference.network(), steps.format(**p), behind, (p["input"], x), (p["output"], y), weights)


def any_batch_by_one_product(who: str) -> ModelProto:
    """Division, mean and std in one factor and one summand, after the reshape; the batch is copied from the input."""
    p = params("4.1", who)
    weights = {"factor": 1 / 255 / p["std"], "summand": -p["mean"] / p["std"], "shape": [0, 1, 28, 28]}
    return between(
        fashion_reference.network(),
        f"pictures = Reshape({p['input']}, shape)  scaled = Mul(factor, pictures)  x = Add(scaled, summand)",
        f"{p['output']} = Identity(middle)",
        (p["input"], [p["name"], 784]),
        (p["output"], [p["name"], 10]),
        weights,
    )


class Flat(nn.Module):
    def __init__(self, p: Params) -> None:
        super().__init__()
        self.p, self.net = p, cu.fashion_resnet()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(((x / 255 - self.p["mean"]) / self.p["std"]).reshape(-1, 1, 28, 28))


def test_any_batch_as_it_is_exported(tmp_path: Path) -> None:
    p = params("4.1")
    names = [p["input"], p["output"]]
    as_dim = exported(Flat(p), (torch.zeros(2, 784),), tmp_path, names, ({0: Dim(p["name"])},))
    accepted("4.1", as_dim)


# 4.2


def any_size(who: str = "ada", pool: str = "", dims: tuple[Dims, Dims] | None = None, **changed: Any) -> ModelProto:
    """pool: makes `both`, [batch, 64], from the maps."""
    p = {**params("4.2", who), **changed}
    pool = pool or (
        "m = ReduceMean<keepdims = 0>(middle, places)  h = ReduceMax<keepdims = 0>(middle, places)  "
        "sm = Mul(share, m)  rh = Mul(rest, h)  both = Add(sm, rh)"
    )
    weights = {"share": p["share"], "rest": 1 - p["share"], "places": [2, 3], "zero": [0, 0], "seven": [7, 7], "one": 1}
    model = between(
        fashion_reference.maps(),
        "x = Identity(image)",
        f"{pool}  logits = Gemm<transB = 1>(both, W, B)",
        ("image", (dims or ([p["batch"], 1, p["height"], p["width"]], []))[0]),
        ("logits", dims[1] if dims else [p["batch"], 10]),
        weights,
    )
    stored = fashion_reference.stored_weights()
    for name, key in (("W", "classifier.weight"), ("B", "classifier.bias")):
        model.graph.initializer.append(numpy_helper.from_array(stored[key], name))
    return model


def any_size_by_global_pooling(who: str) -> ModelProto:
    return any_size(
        who,
        "m = GlobalAveragePool(middle)  h = GlobalMaxPool(middle)  d = Sub(m, h)  sd = Mul(d, share)  s = Add(h, sd)  "
        "both = Flatten(s)",
    )


class AnySize(nn.Module):
    def __init__(self, share: float, resize: bool = False) -> None:
        super().__init__()
        self.net, self.share, self.resize = cu.fashion_resnet(), share, resize

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.resize:
            x = nn.functional.interpolate(x, size=(28, 28))
        maps = self.net.stage2(self.net.stage1(self.net.stem(x)))
        return self.net.classifier(self.share * maps.mean((2, 3)) + (1 - self.share) * maps.amax((2, 3)))


def test_any_size_as_it_is_exported(tmp_path: Path) -> None:
    p = params("4.2")
    shapes = ({0: p["batch"], 2: p["height"], 3: p["width"]},)
    example, names = (torch.randn(2, 1, 28, 28),), ["image", "logits"]
    accepted("4.2", exported(AnySize(p["share"]), example, tmp_path, names, shapes))
    resized = failed("4.2", exported(AnySize(p["share"], resize=True), example, tmp_path, names, shapes))
    assert "Resizing the picture" in resized


# 4.3

MASKED = (
    "weights = Cast<to = 1>(mask)  w3 = Unsqueeze(weights, two)  scaled = Mul(values, scale)  t = Tanh(scaled)  "
    "tw = Mul(t, w3)  total = ReduceSum<keepdims = 0>(tw, one)  count = ReduceSum<keepdims = 0>(w3, one)  "
    "m = Div(total, count)  result = Add(m, shift)"
)


def shared(who: str = "ada", steps: str = MASKED, length: tuple = ("L", "L"), **changed: float) -> ModelProto:
    """By hand: exporting it for each mistake would take long. length: of values and mask, "L" is the student's name."""
    p = {**params("4.3", who), **changed}
    first, second = (p["length"] if name == "L" else name for name in length)
    return onnx.parser.parse_model(f"""{HEAD}
        g (float[{p["batch"]}, {first}, 4] values, int64[{p["batch"]}, {second}] mask) => (float[{p["batch"]}, 4] result)
        <float[1] scale = {{{p["scale"]}}}, float[1] shift = {{{p["shift"]}}}, int64[1] one = {{1}}, int64[1] two = {{2}},
         float[1] low = {{-1000.0}}, int64 none = {{0}}> {{ {steps} }}""")


def shared_by_products(who: str) -> ModelProto:
    """Where in place of a product, and a product of matrices in place of a sum."""
    return shared(
        who,
        "yes = Greater(mask, none)  y3 = Unsqueeze(yes, two)  scaled = Mul(scale, values)  t = Tanh(scaled)  "
        "off = Sub(low, low)  kept = Where(y3, t, off)  w = Cast<to = 1>(yes)  ones = Unsqueeze(w, one)  "
        "total = MatMul(ones, kept)  flat = Squeeze(total, one)  count = ReduceSum<keepdims = 1>(w, one)  "
        "m = Div(flat, count)  result = Sum(shift, m)",
    )


class MaskedMean(nn.Module):
    def __init__(self, p: Params) -> None:
        super().__init__()
        self.p = p

    def forward(self, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        weights = mask.unsqueeze(2).float()
        return (torch.tanh(values * self.p["scale"]) * weights).sum(1) / weights.sum(1) + self.p["shift"]


@pytest.mark.parametrize("sizes", [(2, 7), (3, 3), (1, 1)])
def test_shared_as_it_is_exported_whatever_the_example(tmp_path: Path, sizes: tuple[int, int]) -> None:
    p = params("4.3")
    example = (torch.randn(*sizes, 4), torch.ones(sizes, dtype=torch.int64))
    both = {0: p["batch"], 1: p["length"]}
    accepted("4.3", exported(MaskedMean(p), example, tmp_path, ["values", "mask", "result"], (both, both)))


class MeanOfAll(MaskedMean):
    def forward(self, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return (torch.tanh(values * self.p["scale"]) * mask.unsqueeze(2)).mean(1) + self.p["shift"]


def test_shared_exported_with_the_mean_of_all_steps_names_that_mistake(tmp_path: Path) -> None:
    """The exporter names tensors after the calls, such as mean: the task's output must not have such a name."""
    p = params("4.3")
    example = (torch.randn(2, 7, 4), torch.ones(2, 7, dtype=torch.int64))
    both = {0: p["batch"], 1: p["length"]}
    said = failed("4.3", exported(MeanOfAll(p), example, tmp_path, ["values", "mask", "result"], (both, both)))
    assert "divides by the whole length" in said


# 4.4

WEIGHTED = (
    "sizes = Shape<start = 1, end = 2>(x)  rows = Slice(table, zero, sizes, zero)  xs = Add(x, rows)  "
    "n = Squeeze(sizes)  last = Sub(n, one)  age = Range(last, minus, minus)  af = Cast<to = 1>(age)  "
    "w = Pow(decay, af)  w3 = Unsqueeze(w, axis)  weighted = Mul(xs, w3)  total = ReduceSum<keepdims = 0>(weighted, axis)  "
    "nf = Cast<to = 1>(n)  end = Pow(decay, nf)  begun = Mul(start, end)  y = Add(total, begun)"
)


def reader(
    who: str = "ada", steps: str = WEIGHTED, length: str | int = "length", rows: int = 48, **changed: float
) -> ModelProto:
    p = {**params("4.4", who), **changed}
    model = onnx.parser.parse_model(f"""{HEAD}
        g (float[batch, {length}, 6] x) => (float[batch, 6] y)
        <float decay = {{{p["decay"]}}}, float start = {{{p["start"]}}}, int64[1] zero = {{0}}, int64 one = {{1}},
         int64 minus = {{-1}}, int64[1] axis = {{1}}, int64[1] used = {{{p["length"]}}}, int64[1] six = {{6}}> {{ {steps} }}""")
    table = np.random.default_rng(p["seed"]).normal(0, 1, (48, 6)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(table[:rows], "table"))
    return model


def reader_by_scan(who: str) -> ModelProto:
    """The loop as it was written, alive."""
    return reader(
        who,
        "sizes = Shape<start = 1, end = 2>(x)  rows = Slice(table, zero, sizes, zero)  xs = Add(x, rows)  "
        "b = Shape<start = 0, end = 1>(x)  shape = Concat<axis = 0>(b, six)  first = Expand(start, shape)  "
        "y = Scan<num_scan_inputs = 1, scan_input_axes = [1], body = step (float[b, 6] s, float[b, 6] row) => (float[b, 6] o) "
        "{ ds = Mul(decay, s)  o = Add(ds, row) }>(first, xs)",
    )


UNROLLED = WEIGHTED.replace(
    "xs = Add(x, rows)  n = Squeeze(sizes)",
    "all = Add(x, rows)  xs = Slice(all, zero, used, axis)  some = Shape<start = 1, end = 2>(xs)  n = Squeeze(some)",
)


# 4.5


def fixed(who: str = "ada", infer: bool = True, outputs: bool = True, **sizes: int) -> ModelProto:
    model, p = given("4.5", who), params("4.5", who)
    for name in ("batch", "length"):
        if name not in sizes or sizes[name]:
            make_dim_param_fixed(model.graph, name, sizes.get(name, p[name]))
    if outputs:
        fix_output_shapes(model)
    if infer:
        del model.graph.value_info[:]
        model = onnx.shape_inference.infer_shapes(model)
    return model


def fixed_by_hand(who: str) -> ModelProto:
    """Every name and formula replaced where it stands."""
    model, p = given("4.5", who), params("4.5", who)
    sizes = {"batch": p["batch"], "length": p["length"], "2*length": 2 * p["length"]}
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_value = sizes[dim.dim_param]
    return model


def only_the_ends() -> ModelProto:
    model, p = given("4.5"), params("4.5")
    for axis, name in enumerate(("batch", "length")):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = p[name]
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = p["batch"]
    return model


def not_described() -> ModelProto:
    model = fixed()
    del model.graph.value_info[:]
    return model


def described_without_shapes() -> ModelProto:
    model = fixed()
    for value in model.graph.value_info:
        value.type.tensor_type.ClearField("shape")
    return model


def with_other_sizes_inside() -> ModelProto:
    model = fixed()
    for value in model.graph.value_info:
        if value.name == "projected":
            value.type.tensor_type.shape.dim[1].ClearField("dim_value")
    return model


def with_another_weight() -> ModelProto:
    model = fixed()
    tensor = next(t for t in model.graph.initializer if t.name == "weight")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.1), "weight"))
    return model


# 4.6


def judged(who: str) -> dict[str, list]:
    """By looking into the files."""
    found = {}
    for name, data in given_files("4.6", who).items():
        model = onnx.load_from_string(data)
        stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        axis = model.graph.input[0].type.tensor_type.shape.dim[1]
        verdict = (
            ["frozen", axis.dim_value] if axis.HasField("dim_value")
            else ["only", len(stored["table"])] if "table" in stored
            else ["wrong", int(stored["end"][0])] if "end" in stored
            else ["free", 64]
        )  # fmt: skip
        found[name.removesuffix(".onnx")[-1]] = verdict
    return found


def probed(who: str) -> dict[str, list]:
    """By running every length, as a student would; whole numbers as floats."""
    p, found = params("4.6", who), {}
    x = np.random.default_rng(0).normal(size=(2, 64, 3)).astype(np.float32)
    for name, data in given_files("4.6", who).items():
        session = cu.running.session_for(onnx.load_from_string(data))
        right, refused = [], []
        for length in range(1, 65):
            try:
                got = cu.running.run(session, {"x": x[:, :length]})["y"]
            except cu.CourseError:
                refused.append(length)
                continue
            if np.allclose(got, p["factor"] * x[:, :length].sum(1), atol=1e-3):
                right.append(length)
        frozen = isinstance(session.get_inputs()[0].shape[1], int)
        kind = "frozen" if frozen else "only" if refused else "wrong" if len(right) < 64 else "free"
        found[name.removesuffix(".onnx")[-1]] = [kind, float(max(right))]
    return found


def judgement(who: str, **changes: Any) -> dict[str, Any]:
    """kind → what is said of the file of this kind instead."""
    letters = {kind: letter for letter, (kind, _) in judged(who).items()}
    return {**judged(who), **{letters[kind]: said for kind, said in changes.items()}}


def off_by_one() -> dict[str, list]:
    return {x: [kind, n + (kind in ("only", "wrong"))] for x, (kind, n) in judged("ada").items()}


RIGHT = {
    "4.1": (any_batch, any_batch_by_one_product),
    "4.2": (any_size, any_size_by_global_pooling),
    "4.3": (shared, shared_by_products),
    "4.4": (reader, reader_by_scan),
    "4.5": (fixed, fixed_by_hand),
    "4.6": (judged, probed),
}

ADA = {f"4.{n}": params(f"4.{n}") for n in range(1, 7)}
NAME, BATCH = ADA["4.1"]["name"], ADA["4.2"]["batch"]
MEANS = "m = ReduceMean<keepdims = 0>(middle, places)  h = ReduceMax<keepdims = 0>(middle, places)  "

WRONG = {
    "4.1": {
        "batch frozen": (lambda who: any_batch(dims=([2, 784], [2, 10])), r"Axis 0 is frozen at 2: name it"),
        "frozen inside": (lambda who: any_batch(shape=(2, 1, 28, 28)), r"It is refused"),
        "no label": (lambda who: any_batch(dims=(["s77", 784], ["s77", 10])), r"give it as a label, not as Dim\.AUTO"),
        "pixels named": (lambda who: any_batch(dims=([NAME, "pixels"], [NAME, 10])), r"Axis 1 must stay the number 784"),
        "wrong input name": (lambda who: any_batch(input="x0"), r"Names and dtypes must be as the task says"),
        "no 255": (
            lambda who: any_batch(steps=STEPS.replace("Div({input}, full)", "Identity({input})")), r"division by 255",
        ),
        "mean added": (lambda who: any_batch(steps=STEPS.replace("Sub", "Add")), r"mean is added"),
        "times std": (lambda who: any_batch(steps=STEPS.replace("Div(b", "Mul(b")), r"std multiplies"),
        "mean and std exchanged": (
            lambda who: any_batch(mean=ADA["4.1"]["std"], std=ADA["4.1"]["mean"]), r"mean and std are exchanged",
        ),
        "std first": (
            lambda who: any_batch(steps=STEPS.replace("Sub(a, mean)", "Div(a, std)").replace("Div(b, std)", "Sub(b, mean)")),
            r"mean is subtracted after std has divided",
        ),
        "nothing prepared": (lambda who: any_batch(steps="x = Reshape({input}, shape)"), r"reach the network as they are"),
        "columns first": (
            lambda who: any_batch(steps=STEPS.replace("x = Reshape(c, shape)", "d = Reshape(c, shape)  x = Transpose<perm = [0, 1, 3, 2]>(d)")),
            r"Rows and columns of the pictures are exchanged",
        ),
        "another mean": (lambda who: any_batch(mean=0.5), r"Compare with PyTorch at several sizes"),
    },
    "4.2": {
        "size frozen": (lambda who: any_size(dims=([BATCH, 1, 28, 28], [BATCH, 10])), r"Axis 2 is frozen at 28: name it"),
        "names exchanged": (
            lambda who: any_size(height=ADA["4.2"]["width"], width=ADA["4.2"]["height"]), r"stand in each other's places",
        ),
        "the corner": (
            lambda who: any_size(pool="m7 = Slice(middle, zero, seven, places)  " + MEANS.replace("middle", "m7")
                                 + "sm = Mul(share, m)  rh = Mul(rest, h)  both = Add(sm, rh)"),
            r"one corner of the maps only",
        ),
        "mean alone": (lambda who: any_size(share=1.0), r"The maximum is not in it"),
        "maximum alone": (lambda who: any_size(share=0.0), r"The mean is not in it"),
        "share of the other": (lambda who: any_size(share=1 - ADA["4.2"]["share"]), r"share is the maximum's"),
        "no share": (lambda who: any_size(pool=MEANS + "both = Add(m, h)"), r"without the share"),
        "a fixed window": (
            lambda who: any_size(pool="p = AveragePool<kernel_shape = [7, 7]>(middle)  " + MEANS.replace("middle", "p")
                                 + "sm = Mul(share, m)  rh = Mul(rest, h)  both = Add(sm, rh)"),
            r"must be taken over all of each map",
        ),
    },
    "4.3": {
        "two names": (lambda who: shared(length=("L", "mask_length")), r"use the same label"),
        "one frozen": (lambda who: shared(length=(7, "L")), r"Axis 1 is frozen at 7"),
        "both frozen": (lambda who: shared(length=(7, 7)), r"It is refused"),
        "no label": (lambda who: shared(length=("s27", "s27")), r"give it as a label"),
        "mask unused": (
            lambda who: shared(steps="scaled = Mul(values, scale)  t = Tanh(scaled)  "
                               "m = ReduceMean<keepdims = 0>(t, one)  result = Add(m, shift)"),
            r"The mask has no effect",
        ),
        "whole length": (
            lambda who: shared(steps=MASKED.replace("total = ReduceSum", "total = ReduceMean").replace("Div(total, count)", "Identity(total)")),
            r"divides by the whole length",
        ),
        "sum": (lambda who: shared(steps=MASKED.replace("Div(total, count)", "Identity(total)")), r"the sum, not the mean"),
        "maximum": (
            lambda who: shared(steps="yes = Greater(mask, none)  y3 = Unsqueeze(yes, two)  scaled = Mul(scale, values)  "
                               "t = Tanh(scaled)  kept = Where(y3, t, low)  m = ReduceMax<keepdims = 0>(kept, one)  result = Add(m, shift)"),
            r"the maximum, not the mean",
        ),
        "mask inverted": (
            lambda who: shared(steps=MASKED.replace("weights = Cast<to = 1>(mask)",
                                                    "no = Equal(mask, none)  weights = Cast<to = 1>(no)")),
            r"nan or infinite. The mask is the wrong way round",
        ),
        "no shift": (lambda who: shared(shift=0.0), r"The shift is missing"),
        "shift subtracted": (lambda who: shared(shift=-ADA["4.3"]["shift"]), r"The shift is subtracted"),
        "no scale": (lambda who: shared(scale=1.0), r"The scale is missing"),
        "scale negative": (lambda who: shared(scale=-ADA["4.3"]["scale"]), r"The scale has the wrong sign"),
        "exchanged": (lambda who: shared(scale=ADA["4.3"]["shift"], shift=ADA["4.3"]["scale"]), r"Scale and shift are exchanged"),
        "scale outside": (
            lambda who: shared(steps=MASKED.replace("scaled = Mul(values, scale)  t = Tanh(scaled)",
                                                    "s = Tanh(values)  t = Mul(s, scale)")),
            r"The scale stands outside of tanh",
        ),
        "no tanh": (lambda who: shared(steps=MASKED.replace("Tanh(", "Identity(")), r"tanh is missing"),
        "tanh of the mean": (
            lambda who: shared(steps=MASKED.replace("Tanh(", "Identity(").replace("m = Div(total, count)", "r = Div(total, count)  m = Tanh(r)")),
            r"tanh is taken of the mean",
        ),
        "shift inside": (
            lambda who: shared(steps=MASKED.replace("t = Tanh(scaled)", "in = Add(scaled, shift)  t = Tanh(in)").replace("Add(m, shift)", "Identity(m)")),
            r"The shift is inside of tanh",
        ),
        "other axis": (
            lambda who: shared(steps=MASKED.replace("total = ReduceSum<keepdims = 0>(tw, one)",
                                                    "total = ReduceSum<keepdims = 0>(tw, two)")
                               .replace("m = Div(total, count)", "r = ReduceSum<keepdims = 1>(total, one)  m = Div(r, count)")),
            r"differ in dimension 1",
        ),
    },
    "4.4": {
        "length frozen": (lambda who: reader(length=9), r"Axis 1 is frozen at 9.*see whether the exporter kept it"),
        "unrolled": (lambda who: reader(steps=UNROLLED), r"ignores the others: the loop over range"),
        "no start": (lambda who: reader(start=0.0), r"The start is not in it"),
        "start not decayed": (
            lambda who: reader(steps=WEIGHTED.replace("Mul(start, end)", "Identity(start)")), r"start does not lose weight",
        ),
        "one round too few": (
            lambda who: reader(steps=WEIGHTED.replace("nf = Cast<to = 1>(n)", "nf = Cast<to = 1>(last)")),
            r"in one round too few",
        ),
        "start negative": (lambda who: reader(start=-ADA["4.4"]["start"]), r"The start has the wrong sign"),
        "flipped": (
            lambda who: reader(steps=WEIGHTED.replace("Range(last, minus, minus)", "Range(nought, n, one)")
                               .replace("last = Sub(n, one)", "nought = Sub(one, one)")),
            r"The weights run the wrong way",
        ),
        "no decay": (lambda who: reader(steps=WEIGHTED.replace("w = Pow(decay, af)", "zeros = Sub(af, af)  w = Pow(decay, zeros)")), r"the decay got lost"),
        "no table": (lambda who: reader(steps=WEIGHTED.replace("xs = Add(x, rows)", "xs = Identity(x)")), r"table of positions is not added"),
        "a row of the table lost": (lambda who: reader(rows=47), r"It is refused"),
        "another decay": (lambda who: reader(decay=0.5), r"Write down what the loop gives for two steps"),
    },
    "4.5": {
        "as handed out": (lambda who: given("4.5"), r"is still a name"),
        "one name left": (lambda who: fixed(length=0), r"'length' is still a name.*as x or y has"),
        "formula left": (lambda who: fixed(infer=False), r"a formula of a name is not replaced"),
        "only the ends": (lambda who: only_the_ends(), r"the ends were changed by hand"),
        "not described": (lambda who: not_described(), r"run onnx\.shape_inference\.infer_shapes"),
        "described without shapes": (lambda who: described_without_shapes(), r"have no shape in the file"),
        "a size missing": (lambda who: with_other_sizes_inside(), r"projected"),
        "exchanged": (
            lambda who: fixed(batch=ADA["4.5"]["length"], length=ADA["4.5"]["batch"]), r"Batch and length are exchanged",
        ),
        "another size": (lambda who: fixed(batch=33), r"your sizes are batch"),
        "another weight": (lambda who: with_another_weight(), r"Only sizes may be changed"),
    },
    "4.6": {
        "all free": (lambda who: {x: ["free", 64] for x in "abcd"}, r"1 of 4 are right\. Not every word is right"),
        "words exchanged": (
            lambda who: judgement(who, only=["wrong", 20], wrong=["only", 20]), r"2 of 4 are right\. Not every word",
        ),
        "the example's length": (
            lambda who: judgement(who, wrong=["wrong", ADA["4.6"]["example"]]), r"3 of 4 are right\. The words are right, and not",
        ),
        "the first wrong one": (lambda who: off_by_one(), r"2 of 4 are right.*Give the last length that is right"),
        "words alone": (lambda who: {x: kind for x, (kind, _) in judged(who).items()}, r"a, b, c, d: it must be a list such as"),
        "no length": (lambda who: judgement(who, free=["free", None]), r"it must be a list such as"),
        "no kind": (lambda who: judgement(who, free=["free!", 64]), r"one of free, frozen, only, wrong"),
        "no lists": (lambda who: 3, r"write a dict with exactly those keys"),
    },
}  # fmt: skip


def test_each_suspect_is_what_it_is_said_to_be() -> None:
    """Probed with the tool of the lesson, so that the answer follows from the files."""
    p, it = ADA["4.6"], task("4.6")

    class Meant(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return p["factor"] * x.sum(1)

    assert it.given is not None
    for (letter, (kind, limit)), model in zip(suspects.verdicts(p).items(), it.given(p).values(), strict=True):
        probe = cu.probe_sizes(model, torch.randn(2, p["example"], 3), Meant(), sizes=range(1, 65))
        assert int(probe["works"].iloc[1].split(", ")[-1]) == limit, letter
        assert bool(probe["wrong numbers"].iloc[1]) == (kind == "wrong")


def test_suspects_cannot_be_told_by_trying() -> None:
    """How many are right is said, and the lengths are too many to try."""
    limits = {
        n for who in map(str, range(60)) for kind, n in suspects.verdicts(params("4.6", who)).values() if kind == "only"
    }
    assert len(limits) > 25
    assert set(ADA["4.6"]) == {"seed", "example", "factor"}
    once = failed("4.6", judgement("ada", only=["only", 1]))
    assert once == failed("4.6", judgement("ada", wrong=["wrong", 1]))


@pytest.mark.parametrize(
    "odd", [None, True, float("nan"), 10**400, [[]], ["only", float("inf")], ["only", True]], ids=repr
)
def test_odd_verdicts_get_a_hint_and_no_points(odd: object) -> None:
    found = criteria("4.6", dict.fromkeys("abcd", odd))
    assert "the answer can be examined" not in [c.what for c in found]
    assert not all(c.passed for c in found)


# Absurd artefacts


def scalar_model() -> ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, [])],
        [value("y", TensorProto.FLOAT, [])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.mark.parametrize("task_id", ["4.1", "4.2", "4.3", "4.4", "4.5"])
@pytest.mark.parametrize("make", [ModelProto, scalar_model], ids=["empty", "a single number"])
def test_absurd_models_get_a_hint(task_id: str, make: Any) -> None:
    failed(task_id, make())


@pytest.mark.parametrize("task_id", ["4.3", "4.4", "4.5"])
def test_damaged_models_get_a_hint(task_id: str) -> None:
    for model in damaged(RIGHT[task_id][0]("ada"), task_id, tries=60):
        assert "the answer can be examined" not in [c.what for c in criteria(task_id, model)]


@pytest.mark.parametrize("task_id", ["4.3", "4.4", "4.5"])
def test_weights_listed_among_the_inputs_do_no_harm(task_id: str) -> None:
    model = RIGHT[task_id][0]("ada")
    real = list(model.graph.input)
    del model.graph.input[:]
    model.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in model.graph.initializer
    )
    model.graph.input.extend(real)
    accepted(task_id, model)


def test_checking_needs_no_pytorch(python, tmp_path: Path) -> None:
    (tmp_path / "one.onnx").write_bytes(any_batch().SerializeToString())
    (tmp_path / "two.onnx").write_bytes(any_size().SerializeToString())
    python(
        """
        import sys, onnx
        from course_utils.handin.assessing import assess
        from course_utils.exercises import task
        for id, name in (("4.1", "one.onnx"), ("4.2", "two.onnx")):
            assert all(c.passed for c in assess(task(id), onnx.load(name), "ada"))
        assert "torch" not in sys.modules
        """,
        cwd=tmp_path,
    )


def test_nothing_is_written_beside_the_notebook(folder: Path) -> None:
    accepted("4.5", fixed())
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("who", STUDENTS)
def test_the_usual_slips_are_named_for_every_student(who: str) -> None:
    p = params("4.3", who)
    assert "Scale and shift are exchanged" in failed("4.3", shared(who, scale=p["shift"], shift=p["scale"]), who)
    assert "in one round too few" in failed(
        "4.4", reader(who, WEIGHTED.replace("nf = Cast<to = 1>(n)", "nf = Cast<to = 1>(last)")), who
    )


@pytest.mark.parametrize("task_id", ["4.1", "4.2", "4.3", "4.4", "4.5"])
def test_one_percent_off_is_wrong(task_id: str) -> None:
    """And the hint blames nothing that is in order."""
    found = criteria(task_id, nearly(RIGHT[task_id][0]("ada")))
    assert task_points(task(task_id), found)[0] == 0
    assert hints(found).startswith(("The largest difference", "Only sizes"))
