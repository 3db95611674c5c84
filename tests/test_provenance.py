"""Which original nodes became which node, and the bytes between nodes: on graphs where the answer is known."""

from __future__ import annotations

import io
import re

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import course_utils as cu
from course_utils.lab import provenance
from course_utils.widgets.levels import frame

FEED = {"x": np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)}
SHAPES = {
    "kernel": (4, 3, 3, 3),
    "kernel2": (4, 4, 3, 3),
    **dict.fromkeys(("scale", "shift", "mean", "variance"), (4,)),
    "gain": (4, 1, 1),
    "matrix": (4, 5),
    "bias": (5,),
}
CONV = "<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>"


def model(body: str, result: str = "float[2, 4, 8, 8] y") -> onnx.ModelProto:
    made = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]>
        g (float[2, 3, 8, 8] x) => ({result}) {{ {body} }}""")
    read = {name for node in made.graph.node for name in node.input}
    draw = np.random.default_rng(1)
    for name, shape in SHAPES.items():
        sign = 1 if name == "variance" else draw.choice([-1, 1], shape)
        values = (sign * draw.uniform(0.5, 1.5, shape)).astype(np.float32)
        if name in read:
            made.graph.initializer.append(numpy_helper.from_array(values, name))
    return made


LAYER = f"c = Conv {CONV} (x, kernel) n = BatchNormalization (c, scale, shift, mean, variance) "


def rows(before: onnx.ModelProto, after: onnx.ModelProto) -> list[tuple[str, str, str]]:
    table = cu.origins(before, after, FEED)
    return list(zip(table["what"], table["node"], table["from"], strict=True))


def test_a_model_comes_from_itself() -> None:
    same = model(LAYER + "y = Relu (n)")
    assert [what for what, _, _ in rows(same, same)] == ["kept", "kept", "kept"]


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("basic", [("fused", "Conv", "Conv + BatchNormalization"), ("kept", "Relu", "Relu")]),
        ("extended", [("fused", "com.microsoft::FusedConv", "Conv + BatchNormalization + Relu")]),
    ],
)
def test_levels(level: str, expected: list[tuple[str, str, str]]) -> None:
    before = model(LAYER + "y = Relu (n)")
    assert rows(before, cu.optimized(before, level)) == expected


def test_layout_is_read_by_values() -> None:
    """With nchwc all names are new and the numbers are in another order. Without, it is as the level extended."""
    before = model(f"{LAYER} r = Relu (n) d = Conv {CONV} (r, kernel2) s = Add (d, r) y = Relu (s)")
    after = cu.optimized(before, "layout")
    found = [origin for what, _, origin in rows(before, after) if what == "fused"]
    assert found[0] == "Conv + BatchNormalization + Relu"
    if any(node.domain == "com.microsoft.nchwc" for node in after.graph.node):
        assert found == ["Conv + BatchNormalization + Relu", "Conv + Add + Relu"]
        assert {what for what, _, _ in rows(before, after)} <= {"fused", "inserted"}


def test_a_relu_over_positive_numbers_is_not_idle() -> None:
    before = model("r = Relu (x) y = Neg (r)", "float[2, 3, 8, 8] y")
    positive = {"x": np.abs(FEED["x"])}
    after = model("r = Relu (x) y = Mul (r, minus)", "float[2, 3, 8, 8] y")
    after.graph.initializer.append(numpy_helper.from_array(np.array(-1, np.float32), "minus"))
    assert list(cu.origins(before, after, positive)["what"]) == ["kept", "rewritten"]


def test_removed_and_folded() -> None:
    before = model("e = Exp (gain) i = Identity (x) d = Dropout (i) c = Conv " + CONV + "(d, kernel) y = Mul (c, e)")
    after = model("c = Conv " + CONV + "(x, kernel) y = Mul (c, e)")
    weights = {t.name: numpy_helper.to_array(t) for t in before.graph.initializer}
    del after.graph.initializer[:]
    for name, values in {"kernel": weights["kernel"], "e": np.exp(weights["gain"])}.items():
        after.graph.initializer.append(numpy_helper.from_array(values, name))
    assert rows(before, after) == [
        ("kept", "Conv", "Conv"),
        ("kept", "Mul", "Mul"),
        ("folded", "", "Exp"),
        ("removed", "", "Identity"),
        ("removed", "", "Dropout"),
    ]


def test_a_node_that_nobody_needs_is_removed() -> None:
    before, after = model(LAYER + "unused = Sigmoid (c) y = Relu (n)"), model(LAYER + "y = Relu (n)")
    assert ("removed", "", "Sigmoid") in rows(before, after)


def test_rewritten_and_inserted() -> None:
    before = model("y = Neg (x)", "float[2, 3, 8, 8] y")
    after = model(
        "t = Transpose <perm = [0, 2, 3, 1]> (x) m = Mul (t, minus) y = Transpose <perm = [0, 3, 1, 2]> (m)",
        "float[2, 3, 8, 8] y",
    )
    after.graph.initializer.append(numpy_helper.from_array(np.array(-1, np.float32), "minus"))
    what = rows(before, after)
    assert what[0] == ("unknown", "Transpose", "")  # this order of numbers is nowhere in the original
    assert what[2][2] == "Neg"
    after = model("f = Flatten (x) y = Neg (x)", "float[2, 3, 8, 8] y, float[2, 192] f")
    assert rows(before, after) == [("inserted", "Flatten", ""), ("kept", "Neg", "Neg")]
    after = model("y = Mul (x, minus)", "float[2, 3, 8, 8] y")
    after.graph.initializer.append(numpy_helper.from_array(np.array(-1, np.float32), "minus"))
    assert rows(before, after) == [("rewritten", "Mul", "Neg")]


def test_another_computation_is_unknown() -> None:
    before, after = (model(f"y = {op} (x)", "float[2, 3, 8, 8] y") for op in ("Neg", "Exp"))
    assert rows(before, after)[0] == ("unknown", "Exp", "")


def test_every_batchnorm_of_the_trained_network_is_found() -> None:
    """The two exporters name nothing alike; values connect them."""
    import torch

    picture = torch.randn(2, 1, 28, 28)
    files = {}
    for way, options in {"raw": {"do_constant_folding": False}, "folded": {}}.items():
        stream = io.BytesIO()
        with cu.exporter_messages():
            torch.onnx.export(cu.fashion_resnet(), (picture,), stream, input_names=["x"], dynamo=False, **options)
        files[way] = onnx.ModelProto.FromString(stream.getvalue())
    table = cu.origins(files["raw"], files["folded"], {"x": picture.numpy()})
    assert (table["from"] == "Conv + BatchNormalization").sum() == 15


def test_traffic_is_read_off_the_shapes() -> None:
    layer = model(LAYER + "y = Relu (n)")
    one = 4 * 2 * 4 * 8 * 8
    table = cu.traffic(layer, FEED)
    assert list(table["reads"]) == [FEED["x"].nbytes, one, one]
    assert list(table["writes"]) == [one] * 3
    assert (
        cu.traffic(cu.optimized(layer, "extended"), FEED)[["reads", "writes"]].to_numpy().sum()
        == FEED["x"].nbytes + one
    )


def test_wrong_use_gets_one_sentence() -> None:
    layer = model(LAYER + "y = Relu (n)")
    with pytest.raises(cu.CourseError, match=r"no level 'full'\. ONNX Runtime has: none, basic"):
        cu.optimized(layer, "full")
    with pytest.raises(cu.CourseError, match="inputs are named"):
        cu.origins(layer, layer, {"picture": FEED["x"]})
    with pytest.raises(cu.CourseError, match="expects float32"):
        cu.traffic(layer, {"x": FEED["x"].astype(np.float64)})
    broken = model("y = Nothing (x)", "float[2, 3, 8, 8] y")
    with pytest.raises(cu.CourseError, match="does not load"):
        cu.optimized(broken, "basic")
    with pytest.raises(cu.CourseError, match=r"^There is no file 'missing\.onnx'"):
        cu.optimized("missing.onnx")
    with pytest.raises(cu.CourseError, match="no model"):
        cu.level_explorer({})


def test_explorer_has_a_frame_for_each_level_and_model() -> None:
    layer = model(LAYER + "y = Relu (n)")
    box = cu.level_explorer({"one": (layer, FEED), "two": (layer, FEED)})
    chooser, slider, outer = box.children
    assert list(chooser.options) == ["one", "two"]
    assert list(slider.options) == list(provenance.LEVELS)
    assert [len(stack.children) for stack in outer.children] == [5, 5]
    assert slider.value == "layout"
    assert all(stack.selected_index == slider.index for stack in outer.children)
    basic = outer.children[0].children[1].value
    assert "2 nodes" in basic
    assert "Conv + BatchNormalization" in basic


def test_a_frame_escapes_names_and_has_no_fixed_ink() -> None:
    layer = model(LAYER + "y = Relu (n)")
    table = cu.origins(layer, layer, FEED)
    table.loc[0, ["what", "node", "from"]] = ["fused", "<b>", "<i>"]
    page = frame("none", table, cu.op_histogram(layer), 1024, 1)
    assert "&lt;b&gt;" in page
    assert "<i>" not in page
    assert not re.search(r"[^-]color:\s*(black|#000)", page)


ACTIVATIONS = {
    "silu": ("s = Sigmoid (c) a = Mul (c, s)", "com.microsoft::QuickGelu", "Sigmoid + Mul"),
    "gelu": ("a = Gelu (c)", "Gelu", "Gelu"),
    "tanh": ("a = Tanh (c)", "Tanh", "Tanh"),
}


@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("channels", [4, 16])
def test_activations_between_blocked_layers(kind: str, channels: int) -> None:
    """They compute on channels in blocks, and are no operators of the blocked domain. No tensor there is of unknown origin."""
    body, new, old = ACTIVATIONS[kind]
    before = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["": 20]>
        g (float[2, 3, 8, 8] x) => (float[2, {channels}, 8, 8] y) {{
            c = Conv {CONV} (x, k) {body} y = Conv {CONV} (a, l) }}""")
    draw = np.random.default_rng(2)
    for name, shape in {"k": (channels, 3, 3, 3), "l": (channels, channels, 3, 3)}.items():
        before.graph.initializer.append(numpy_helper.from_array(draw.normal(size=shape).astype(np.float32), name))
    after = cu.optimized(before, "all")
    table = cu.origins(before, after, FEED)
    assert "unknown" not in set(table["what"])
    fused = [n for n in after.graph.node if n.domain == "com.microsoft.nchwc"]
    activations = table[table["node"] == new]
    if any(n.op_type == "Conv" for n in fused) and len(
        activations
    ):  # else it was fused into the convolution, or nothing is blocked
        assert list(activations["from"]) == [old]
