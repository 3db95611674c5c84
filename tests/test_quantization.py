"""The calibration reader, the look at a model before it is quantized, and the explorer of lesson 07."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import QuantType, quantize_dynamic, quantize_static

import course_utils as cu
from course_utils.exercises.ch07 import network as int8_network
from course_utils.lab import quantization
from course_utils.widgets import quantization as widget_quantization

MODEL = int8_network.network(list(range(10)))
PICTURES = cu.normalize(cu.fashion_mnist("calibration")[0][:20])


def test_batches_are_handed_out_once_in_order():
    reader = cu.Calibration(MODEL, {"image": PICTURES}, batch=8)
    batches = [batch["image"] for batch in reader]
    assert [len(batch) for batch in batches] == [8, 8, 4]
    assert np.array_equal(np.concatenate(batches), PICTURES)
    assert reader.get_next() is None
    reader.rewind()
    assert len(reader.get_next()["image"]) == 8
    assert len(reader) == 20


def broken(value):
    data = PICTURES.copy()
    data[3, 0, 5, 5] = data[7, 0, 1, 1] = value
    return data


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (
            {"image": broken(np.nan)},
            r"2 of 20 calibration examples hold NaN or infinity in 'image' \(the first is number 3\)",
        ),
        ({"image": broken(-np.inf)}, r"2 of 20 calibration examples hold NaN or infinity"),
        ({"image": PICTURES[:0]}, "The calibration set is empty: give at least one"),
        ({"picture": PICTURES}, r"inputs are named \['image'\], and it was fed \['picture'\]"),
        ({"image": PICTURES.astype(np.float64)}, "fed float64, the model expects float32"),
        ({"image": PICTURES[:, 0]}, r"fed shape \[20, 28, 28\]"),
        ({"image": PICTURES.tolist()}, "fed a list, the model expects a NumPy array"),
        ({"image": PICTURES, "more": PICTURES[:3]}, "as many examples as the others"),
        ({}, "an empty dict"),
        (PICTURES, "this is a ndarray"),
    ],
)
def test_bad_calibration_data_get_one_sentence(data, sentence):
    with pytest.raises(cu.CourseError, match=sentence):
        cu.Calibration(MODEL, data)


@pytest.mark.parametrize("batch", [0, -1, 2.5, None])
def test_batch_that_is_no_number(batch):
    with pytest.raises(cu.CourseError, match="a whole number of at least 1"):
        cu.Calibration(MODEL, {"image": PICTURES}, batch=batch)


def test_quantized_model_is_refused_whatever_its_form(folder):
    onnx.save(MODEL, "float.onnx")
    options = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    reader = cu.Calibration("float.onnx", {"image": PICTURES})
    quantize_static(quantization.ready_to_quantize("float.onnx"), "static.onnx", reader, **options)
    quantize_dynamic(quantization.ready_to_quantize("float.onnx"), "dynamic.onnx")
    for file, operator in {"static.onnx": "DequantizeLinear", "dynamic.onnx": "ConvInteger"}.items():
        with pytest.raises(cu.CourseError, match=rf"'{file}' is quantized already: it holds .*{operator}"):
            quantization.ready_to_quantize(file)
        with pytest.raises(cu.CourseError, match="is quantized already"):
            cu.Calibration(file, {"image": PICTURES})
    with pytest.raises(cu.CourseError, match="This model is quantized already"):
        quantization.ready_to_quantize(onnx.load("static.onnx"))


def test_model_that_cannot_be_read(folder):
    with pytest.raises(cu.CourseError, match=r"no file 'none\.onnx'"):
        quantization.ready_to_quantize("none.onnx")


def test_quantized_node_in_a_subgraph_is_found():
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
        g (float[2] x, bool c, float s, uint8 z) => (uint8[2] y) {
            y = If (c) <then_branch = a () => (uint8[2] p) { p = QuantizeLinear (x, s, z) },
                        else_branch = b () => (uint8[2] r) { r = QuantizeLinear (x, s, z) }>
        }""")
    assert quantization.quantized_operators(model) == {"QuantizeLinear"}


WEIGHTS = np.random.default_rng(0).normal(0, 0.1, (8, 4, 3, 3)).astype(np.float32)
WEIGHTS[2] *= 10


def test_explorer_has_a_frame_for_every_layer_and_way_and_needs_no_kernel():
    box = cu.scale_explorer({"one": WEIGHTS, "two": WEIGHTS * 2})
    layer, way, outer = box.children
    assert layer.options == ("one", "two")
    assert len(way.options) == 8
    assert [len(stack.children) for stack in outer.children] == [8, 8]
    frames = [frame.value for stack in outer.children for frame in stack.children]
    assert sum(map(len, frames)) < 400_000
    assert all('role="img" aria-label=' in frame for frame in frames)


def test_frame_says_what_a_way_costs():
    def error(*way):
        return float(widget_quantization.frame("w", WEIGHTS, *way).split("error ")[1].split()[0])

    assert error(8, True, True) < error(8, True, False) < error(4, True, False)
    assert error(4, False, False) < error(4, True, False) * 1.05


def test_frame_says_what_one_scale_leaves_to_the_narrowest_channel():
    rows = np.linspace([-127.0, -2.0], [127.0, 2.0], 255).T.astype(np.float32)
    assert "its narrowest channel, 1</td><td>1.00000</td><td>0</td><td>5 of 256" in widget_quantization.frame(
        "w", rows, 8, True, False
    )
    assert "narrowest" not in widget_quantization.frame("w", rows, 8, True, True)


def test_scale_and_zero_point():
    rows = np.array([[-1.0, 3.0], [0.0, 0.0], [1.0, 2.55]])
    scale, zero = widget_quantization.scale_and_zero_point(rows, 8, symmetric=False)
    assert scale == pytest.approx([4 / 255, 1, 0.01])  # 0 belongs to every range; a row of zeros needs no scale
    assert list(zero) == [64, 0, 0]
    scale, zero = widget_quantization.scale_and_zero_point(rows, 8, symmetric=True)
    assert scale == pytest.approx([3 / 127, 1, 2.55 / 127])
    assert not zero.any()


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ({}, "was given no tensor"),
        ({"w": WEIGHTS.astype(np.int8)}, "'w' is not a float array with at least two axes"),
        ({"w": WEIGHTS[0, 0, 0]}, "'w' is not a float array"),
        ({"w": np.full((2, 2), np.nan, np.float32)}, "'w' holds NaN"),
    ],
)
def test_explorer_refuses(weights, sentence):
    with pytest.raises(cu.CourseError, match=sentence):
        cu.scale_explorer(weights)
