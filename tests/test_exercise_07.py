"""Exercises 07: right answers pass for any student; each typical mistake fails with a hint that names its cause."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import pytest
from answers import STUDENTS, accepted, criteria, failed, given, params
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from onnxruntime.transformers.float16 import convert_float_to_float16

import course_utils as cu
from course_utils.exercises import int8_by_hand, int8_network, tasks_of

IMAGES = cu.fashion_mnist("calibration")[0]
GOOD: dict[str, Any] = {
    "quant_format": QuantFormat.QOperator,
    "activation_type": QuantType.QUInt8,
    "weight_type": QuantType.QInt8,
    "per_channel": True,
}


@cache
def pictures(kind: str = "normalised") -> np.ndarray:
    raw = IMAGES[:60, None].astype(np.float32)
    return {"normalised": cu.normalize(IMAGES[:60]), "raw": raw, "scaled": raw / 255}[kind]


def static(source: ModelProto, data: np.ndarray | None = None, **options: Any) -> ModelProto:
    data = pictures() if data is None else data
    with TemporaryDirectory() as folder:
        file = str(Path(folder, "int8.onnx"))
        quantize_static(source, file, cu.Calibration(source, {"image": data}), **(GOOD | options))
        return onnx.load(file)


def dynamic(source: ModelProto) -> ModelProto:
    with TemporaryDirectory() as folder:
        file = str(Path(folder, "int8.onnx"))
        quantize_dynamic(source, file)
        return onnx.load(file)


def rescued(who: str = "ada", *, leave: tuple[int, ...] = (0, 1)) -> ModelProto:
    conv = params("7.3", who)["conv"]
    return static(given("7.3", who), nodes_to_exclude=[f"conv{conv + i:02}" for i in leave])


def nbits(source: ModelProto, **options: Any) -> ModelProto:
    quantizer = MatMulNBitsQuantizer(ModelProto.FromString(source.SerializeToString()), **options)
    quantizer.process()
    return quantizer.model.model


BLOCK = {0.118: 16, 0.148: 32, 0.188: 64}


def four(who: str = "ada", **options: Any) -> ModelProto:
    block = BLOCK[params("7.5", who)["error"]]
    return nbits(given("7.5", who), **({"bits": 4, "block_size": block, "is_symmetric": False} | options))


def by_hand(who: str = "ada", mistake: str = "") -> dict[str, Any]:
    return dict(
        zip(("scale", "zero_point", "integers", "back"), int8_by_hand.by_hand(params("7.1", who), mistake), strict=True)
    )


def readers(who: str = "ada") -> dict[str, dict[str, Any]]:
    answer, p = {}, params("7.4", who)
    for letter, kind in p["cases"].items():
        scale, zero = int8_by_hand.scale_of(p, kind)
        answer[letter] = {"reader": kind, "largest": float(scale) * (255 - zero)}
    return answer


RIGHT = {
    "7.1": by_hand,
    "7.2": lambda who: static(given("7.2", who)),
    "7.3": rescued,
    "7.4": readers,
    "7.5": four,
}


@pytest.mark.parametrize("who", STUDENTS)
@pytest.mark.parametrize("task_id", RIGHT)
def test_right_answer_passes(task_id: str, who: str) -> None:
    accepted(task_id, RIGHT[task_id](who), who)


def test_tasks_are_complete_and_personal() -> None:
    assert list(tasks_of(7)) == list(RIGHT)
    for task_id in RIGHT:
        assert len({str(params(task_id, who)) for who in STUDENTS}) > 1


@pytest.mark.parametrize("task_id", ["7.2", "7.3", "7.5"])
def test_model_handed_in_as_it_was_given(task_id: str) -> None:
    onnx.checker.check_model(given(task_id), full_check=True)
    assert failed(task_id, given(task_id))
    assert failed(task_id, ModelProto())


@pytest.mark.parametrize("task_id", ["7.1", "7.4"])
@pytest.mark.parametrize("answer", [None, 3, "text", [], {}, {"a": 1}])
def test_json_answer_of_another_shape(task_id: str, answer: object) -> None:
    assert "exactly those keys" in failed(task_id, answer)


# 7.1


@pytest.mark.parametrize("who", STUDENTS)
@pytest.mark.parametrize(
    ("mistake", "cause"),
    [
        ("half up", "even neighbour"),
        ("cut", "cut the fraction off"),
        ("no zero point", "zero point is not added"),
        ("wrapped", "from the other end"),
        ("not saturated", "ends at 0 and 255"),
        ("shifted", "These are int8"),
    ],
)
def test_integers_of_a_likely_mistake(mistake: str, cause: str, who: str) -> None:
    hints = failed("7.1", by_hand(who, mistake), who)
    assert cause in hints
    assert "mend those first" in hints


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda p, a: a | {"scale": (p["high"] - p["low"]) / 256}, "255 steps between them"),
        (lambda p, a: a | {"scale": max(-p["low"], p["high"]) / 127}, "the symmetric way"),
        (lambda p, a: a | {"scale": 1 / a["scale"]}, "upside down"),
        (lambda p, a: a | {"scale": "0.5"}, "one Python float"),
        (lambda p, a: a | {"scale": float("nan")}, "one Python float"),
        (lambda p, a: a | {"scale": 10**400}, "one Python float"),
        (lambda p, a: a | {"zero_point": -a["zero_point"]}, "The sign is wrong"),
        (lambda p, a: a | {"zero_point": a["zero_point"] - 128}, "zero point of int8"),
        (lambda p, a: a | {"zero_point": float(a["zero_point"])}, "a whole number"),
        (lambda p, a: a | {"zero_point": True}, "a whole number"),
        (lambda p, a: a | {"zero_point": 0}, "Which integer stands for 0.0"),
        (lambda p, a: a | {"integers": a["integers"][:5]}, "Write 12 Python ints"),
        (lambda p, a: a | {"integers": [float(n) for n in a["integers"]]}, "Write 12 Python ints"),
        (lambda p, a: a | {"integers": a["integers"][::-1]}, "are wrong: round(value / scale)"),
        (lambda p, a: a | {"back": p["values"]}, "the values themselves"),
        (lambda p, a: a | {"back": [a["scale"] * n for n in a["integers"]]}, "is not subtracted"),
        (lambda p, a: a | {"back": [[1]] * 12}, "Write 12 Python floats"),
        (lambda p, a: a | {"back": [1.0] * 12}, "scale × (integer - zero point)"),
    ],
)
def test_parts_of_the_answer_by_hand(change: Any, cause: str) -> None:
    assert cause in failed("7.1", change(params("7.1"), by_hand()))


# 7.2


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"quant_format": QuantFormat.QDQ}, "the format QOperator is smaller"),
        ({"activation_type": QuantType.QInt8, "quant_format": QuantFormat.QDQ}, "activation_type=QuantType.QUInt8"),
        ({"activation_type": QuantType.QInt8}, "tensors are int8"),
        (
            {"nodes_to_exclude": ["conv05", "conv09"]},
            "conv05.weight is stored as float",
        ),
        ({"data": "raw"}, "Pixels were not normalised"),
        ({"data": "scaled"}, "Negative values are cut off"),
    ],
)
def test_quantized_with_other_settings(options: dict[str, Any], cause: str) -> None:
    data = pictures(options.pop("data", "normalised"))
    assert cause in failed("7.2", static(given("7.2"), data, **options))


def test_other_kinds_of_small_models() -> None:
    assert "This is a float model" in failed("7.2", given("7.2"))
    assert "ConvInteger comes from quantize_dynamic" in failed("7.2", dynamic(given("7.2")))
    half = convert_float_to_float16(given("7.2"), keep_io_types=True)
    casts = [node for node in half.graph.node if node.op_type == "Cast"]
    for node in casts:  # the converter does not keep the order
        half.graph.node.remove(node)
    half.graph.node.insert(0, casts[0])
    half.graph.node.append(casts[1])
    assert "casts back to float32" in failed("7.2", half)


def test_model_of_somebody_else() -> None:
    assert "The range of the input is right" in failed("7.2", static(given("7.2", "grace")))
    assert "usual order of classes" in failed("7.2", static(int8_network.network(list(range(10)))))


def test_ranges_of_noise() -> None:
    noise = np.random.default_rng(0).normal(0, 3, (60, 1, 28, 28)).astype(np.float32)
    model = static(given("7.2"), noise * 0.01)
    assert "Real pictures reach" in failed("7.2", model) or "Negative values" in failed("7.2", model)


# 7.3


@pytest.mark.parametrize("who", STUDENTS[:3])
def test_collapsed_model(who: str) -> None:
    assert "still a wide channel in int8" in failed("7.3", static(given("7.3", who)), who)
    alone = failed("7.3", rescued(who, leave=(0,)), who)  # newer runtimes quantize a single layer by themselves
    assert "ONNX Runtime quantized a layer that you left" in alone or "An activation has a scale" in alone
    assert "still a wide channel in int8" in failed("7.3", rescued(who, leave=(1,)), who)


def test_rescued_with_too_much_left_in_float() -> None:
    many = [f"conv{n:02}" for n in (*range(5, 7), *range(10, 16))]
    assert "Leave only those two in float" in failed("7.3", static(given("7.3"), nodes_to_exclude=many))
    assert "This is a float model" in failed("7.3", given("7.3"))
    assert "ConvInteger" in failed("7.3", dynamic(given("7.3")))


def test_rescued_by_mending_the_weights_and_in_qdq_form() -> None:
    """Another way to the goal counts as well."""
    p = params("7.3")
    mended = int8_network.network(p["order"])
    assert all(c.passed for c in criteria("7.3", static(mended, quant_format=QuantFormat.QDQ)))


# Models that only look like int8: convolutions in int8 beside the network that does the work


JUNK = """<ir_version: 8, opset_import: ["": 17]>
    junk (float[batch, 1, 28, 28] image) => (float[batch, 1] nothing)
    <float s = {0.02}, uint8 z = {103}, int8 wz = {0}> {
        q = QuantizeLinear (image, s, z)
        BODY
        back = DequantizeLinear (p, s, z)
        mean = ReduceMean <axes = [2, 3], keepdims = 0> (back)
        zero = Sub (mean, mean)
        nothing = Abs (zero)
    }"""


def with_junk(model: ModelProto, count: int) -> ModelProto:
    """The model as it is, and beside it `count` small convolutions in int8, whose result is added as zero."""
    lines = [f"{'p' if i == count else f'q{i}'} = QLinearConv ({'q' if i == 1 else f'q{i - 1}'}, s, z, junk_w{i}, s, wz, s, z)"
             for i in range(1, count + 1)]  # fmt: skip
    junk = onnx.parser.parse_model(JUNK.replace("BODY", "\n".join(lines)))
    for i in range(1, count + 1):
        junk.graph.initializer.append(numpy_helper.from_array(np.full((1, 1, 1, 1), i, np.int8), f"junk_w{i}"))
    model = ModelProto.FromString(model.SerializeToString())
    last = model.graph.node[-1]
    last.output[0] = "real_logits"
    model.graph.node.extend(junk.graph.node)
    model.graph.node.append(helper.make_node("Add", ["real_logits", "nothing"], ["logits"]))
    model.graph.initializer.extend(junk.graph.initializer)
    onnx.checker.check_model(model, full_check=True)
    return model


def weights_only(model: ModelProto) -> ModelProto:
    """Weights stored in int8, and computed back to float in the run: small, and no range of an activation is needed."""
    model = ModelProto.FromString(model.SerializeToString())
    casts = []
    for tensor in list(model.graph.initializer):
        values = numpy_helper.to_array(tensor)
        if values.ndim == 4:
            scale = np.abs(values).max((1, 2, 3), keepdims=True) / np.float32(127)
            model.graph.initializer.remove(tensor)
            name = tensor.name
            model.graph.initializer.append(
                numpy_helper.from_array(np.rint(values / scale).astype(np.int8), f"{name}_q")
            )
            model.graph.initializer.append(numpy_helper.from_array(scale, f"{name}_s"))
            casts.append(helper.make_node("Cast", [f"{name}_q"], [f"{name}_c"], to=1))
            casts.append(helper.make_node("Mul", [f"{name}_c", f"{name}_s"], [name]))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def in_a_branch(model: ModelProto) -> ModelProto:
    """All that the model does, inside an If."""
    model = ModelProto.FromString(model.SerializeToString())
    output = model.graph.output[0]
    inner = helper.make_graph(list(model.graph.node), "branch", [], [output], list(model.graph.initializer))
    other = helper.make_graph(list(model.graph.node), "other", [], [output], list(model.graph.initializer))
    nodes = [
        helper.make_node("ReduceMax", ["image"], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["yes"], to=TensorProto.BOOL),
        helper.make_node("If", ["yes"], ["logits"], then_branch=inner, else_branch=other),
    ]
    graph = helper.make_graph(nodes, "network", list(model.graph.input), [output])
    return helper.make_model(graph, ir_version=8, opset_imports=model.opset_import)


@pytest.mark.parametrize(("task_id", "count"), [("7.2", 15), ("7.3", 13)])
@pytest.mark.parametrize("real", [lambda model: model, weights_only, in_a_branch])
def test_int8_convolutions_beside_the_float_network(task_id: str, count: int, real: Any) -> None:
    assert "the network itself must run in int8" in failed(task_id, with_junk(real(given(task_id)), count))


def test_unseen_pictures_are_none_of_the_test_images() -> None:
    known = {image.tobytes() for image in cu.normalize(cu.fashion_mnist("test")[0])}
    unseen, labels = int8_network._unseen(300, Random(0))
    assert not any(picture.tobytes() in known for picture in unseen)
    assert labels.shape == (300,)


# 7.4


@pytest.mark.parametrize("who", STUDENTS)
@pytest.mark.parametrize("said", list(int8_by_hand.READERS))
def test_wrong_readers(said: str, who: str) -> None:
    p, answer = params("7.4", who), readers(who)
    for letter, kind in p["cases"].items():
        if kind != said:
            assert int8_by_hand.READERS[said] in failed(
                "7.4", answer | {letter: answer[letter] | {"reader": said}}, who
            )


@pytest.mark.parametrize(
    ("values", "cause"),
    [
        ({"reader": "magic"}, "reader is one of: right, raw"),
        ({"reader": ["right"]}, "reader is one of: right, raw"),
        ({"largest": None}, "one Python float"),
        ({"largest": 255}, "Which real number does the integer 255 stand for"),
        ({"more": 1}, "exactly those keys"),
    ],
)
def test_wrong_parts_of_a_reader(values: dict[str, Any], cause: str) -> None:
    answer = readers()
    letter = next(k for k, kind in params("7.4")["cases"].items() if kind not in ("raw", "one broken"))
    assert cause in failed("7.4", answer | {letter: answer[letter] | values})


def test_largest_number_without_the_zero_point() -> None:
    p, answer = params("7.4"), readers()
    letter = next(k for k, kind in p["cases"].items() if kind in ("right", "dark", "noise"))
    scale, zero = int8_by_hand.scale_of(p, p["cases"][letter])
    for largest, cause in {float(scale) * 255: "is not subtracted", float(scale) * (127 - zero): "uint8"}.items():
        assert cause in failed("7.4", answer | {letter: answer[letter] | {"largest": largest}})


# 7.5


@pytest.mark.parametrize("who", STUDENTS)
def test_blocks_of_another_size(who: str) -> None:
    block = BLOCK[params("7.5", who)["error"]]
    assert "make the blocks smaller" in failed("7.5", four(who, block_size=2 * block), who)
    if block > 16:
        assert "with larger blocks there are fewer" in failed("7.5", four(who, block_size=block // 2), who)
    assert "is_symmetric=False" in failed("7.5", four(who, is_symmetric=True), who)


def test_other_ways_to_store_fewer_bits() -> None:
    assert "give bits=4" in failed("7.5", four(bits=8))
    assert "take QOperator, the default" in failed("7.5", four(quant_format=QuantFormat.QDQ))
    assert "comes from quantize_dynamic" in failed("7.5", dynamic(given("7.5")))
    assert "and call process()" in failed("7.5", given("7.5"))


def test_small_products_in_four_bits_beside_the_given_ones() -> None:
    """The weights are stored in 4 bits in another way; the MatMulNBits that the task asks for do nothing."""
    who = next(name for name in map(str, range(99)) if BLOCK[params("7.5", name)["error"]] == 16)
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]>
        g (float[batch, 256] x) => (float[batch, 64] y) <float nothing = {0}> {
            h1 = DequantizeLinear <axis = 0, block_size = 8> (q1, s1)
            h2 = DequantizeLinear <axis = 0, block_size = 8> (q2, s2)
            w1 = Cast <to = 1> (h1)
            w2 = Cast <to = 1> (h2)
            a = Einsum <equation = "bi,io->bo"> (x, w1)
            b = Relu (a)
            real = Einsum <equation = "bi,io->bo"> (b, w2)
            one = com.microsoft.MatMulNBits <K = 256, N = 1, bits = 4, block_size = 16> (x, j1, js)
            two = com.microsoft.MatMulNBits <K = 256, N = 1, bits = 4, block_size = 16> (x, j2, js)
            both = Mul (one, two)
            gone = Mul (both, nothing)
            y = Add (real, gone)
        }""")
    source = {t.name: numpy_helper.to_array(t) for t in given("7.5", who).graph.initializer}
    for number, weight in enumerate((source["first"], source["second"]), 1):
        blocks = weight.reshape(32, 8, -1)
        widest = np.take_along_axis(blocks, np.abs(blocks).argmax(1)[:, None], 1)
        scale = (widest[:, 0] / -8).astype(np.float16)
        integers = np.rint(blocks / scale[:, None]).clip(-8, 7).reshape(weight.shape).astype(np.int8)
        halves = integers.ravel().reshape(-1, 2) & 15
        packed = (halves[:, 0] | halves[:, 1] << 4).astype(np.uint8).tobytes()
        tensor = helper.make_tensor(f"q{number}", TensorProto.INT4, weight.shape, packed, raw=True)
        model.graph.initializer.extend([tensor, numpy_helper.from_array(scale, f"s{number}")])
    for name in ("j1", "j2"):
        model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 16, 8), np.uint8), name))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 16), np.float32), "js"))
    assert "Each of the two has its own weights" in failed("7.5", model, who)


def test_four_bits_of_another_model() -> None:
    model = four()
    scales = next(t for t in model.graph.initializer if t.name.endswith("scales"))
    scales.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scales) * 9, scales.name))
    assert "That is another model" in failed("7.5", model)
