"""Models of the capstone that need no exporter: a student's scroll, and the same with a page's canvas in front."""

from __future__ import annotations

import numpy as np
import onnx
from answers import params
from onnx import compose, helper, numpy_helper, parser

from course_utils.exercises.ch10 import canvas as quest_canvas
from course_utils.exercises.ch10 import scroll as quest


def built(who: str, fault: str = "") -> onnx.ModelProto:
    """As a student's own: with other names than in the file of task 10.2, and the decision asked the other way round."""
    model = quest.built(params("10.1", who), fault)
    nodes = {node.name: node for node in model.graph.node}
    where = nodes["chosen"]
    where.input[:] = ["on_black", where.input[2], where.input[1]]
    _put_behind(model, nodes["on_white"], helper.make_node("Not", ["on_white"], ["on_black"], "on_black"))
    return compose.add_prefix(model, "own_", rename_inputs=False, rename_outputs=False)


def another_road(who: str) -> onnx.ModelProto:
    """The same by other operators: Slice, ReduceSum and a product with a permutation."""
    p = params("10.1", who)
    model = quest.built(p)
    graph = model.graph
    nodes = {node.name: node for node in graph.node}
    axis = 1 if p["edge"] == "rows" else 2

    def constant(name: str, value: list | np.ndarray, dtype: type = np.int64) -> str:
        graph.initializer.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    bounds = [constant(f"cut.{i}", [value]) for i, value in enumerate((0, 28, axis, 27))]
    nodes["edge"].CopyFrom(helper.make_node("Slice", [nodes["edge"].input[0], *bounds], ["edge"], "edge"))
    axes = constant("all.axes", [1, 2])
    total = helper.make_node("ReduceSum", ["edge", axes], ["edge_total"], "edge_total", keepdims=1)
    _put_behind(model, nodes["edge"], total)
    nodes = {node.name: node for node in graph.node}
    size = constant("edge.size", 56, np.float32)
    nodes["edge_mean"].CopyFrom(helper.make_node("Div", ["edge_total", size], ["edge_mean"], "edge_mean"))
    permutation = constant("permutation", np.eye(10)[p["order"]].T, np.float32)
    nodes["logits"].CopyFrom(helper.make_node("MatMul", ["scores", permutation], ["logits"], "logits"))
    return compose.add_prefix(model, "other_", rename_inputs=False, rename_outputs=False)


def _put_behind(model: onnx.ModelProto, node: onnx.NodeProto, new: onnx.NodeProto) -> None:
    at = [n.name for n in model.graph.node].index(node.name)
    model.graph.node.insert(at + 1, new)


def page(who: str, fault: str = "", end: str = "probability", scroll: onnx.ModelProto | None = None) -> onnx.ModelProto:
    """What task 10.6 asks for. fault: of `quest_canvas._PAGE_FAULTS`. scroll: what is inside it, not `built(who)`."""
    p = params("10.6", who)
    weights = quest_canvas._GREYS[p["grey"]]
    if fault == "weights":
        weights = next(w for name, w in quest_canvas._GREYS.items() if name != p["grey"])
    weights = {"mean": (1 / 3,) * 3, "bgr": weights[::-1]}.get(fault, weights)
    behind = 255.0 if (p["behind"] == "white") != (fault == "behind") else 0.0
    seen = "seen = Identity(colour)" if fault == "alpha" else "seen = Add(shown, through)"
    mode = {"nearest": '"nearest"', "antialias": '"linear", antialias = 1'}.get(fault, '"linear"')
    whole = "Identity" if fault == "cut off" else "Round"
    core = compose.add_prefix(scroll or built(who), "scroll_", rename_inputs=False, rename_outputs=False)
    if not scroll:
        core = onnx.version_converter.convert_version(core, 18)
    opset = next(o.version for o in core.opset_import if not o.domain)
    header = f'<ir_version: {core.ir_version}, opset_import: ["": {opset}]>'
    before = parser.parse_model(f"""{header}
        before (uint8[height, width, 4] rgba) => (uint8[one, 28, 28] small)
        <int64[2] parts = {{3, 1}}, float[3] weights = {{{", ".join(map(str, weights))}}}, float behind = {{{behind}}},
         float full = {{255.0}}, float unit = {{1.0}}, int64[1] last = {{2}}, int64[2] front = {{0, 1}},
         int64[1] second = {{1}}, int64[4] sizes = {{1, 1, 28, 28}}> {{
            numbers = Cast<to = 1>(rgba)
            colour, raw = Split<axis = 2>(numbers, parts)
            alpha = Div(raw, full)
            shown = Mul(colour, alpha)
            open = Sub(unit, alpha)
            through = Mul(open, behind)
            {seen}
            weighted = Mul(seen, weights)
            grey = ReduceSum<keepdims = 0>(weighted, last)
            four = Unsqueeze(grey, front)
            resized = Resize<mode = {mode}>(four, , , sizes)
            flat = Squeeze(resized, second)
            whole = {whole}(flat)
            small = Cast<to = 2>(whole)
        }}""")
    score = "probability = Identity(result)" if end == "scores" else "probability = Softmax<axis = 1>(result)"
    label = "ArgMin" if end == "smallest" else "ArgMax"
    after = parser.parse_model(f"""{header}
        after (float[batch, 10] result) => (int64[batch] label, float[batch, 10] probability) {{
            {score}
            label = {label}<axis = 1, keepdims = 0>(result)
        }}""")
    front = compose.merge_models(before, core, io_map=[("small", "pixels")])
    return compose.merge_models(front, after, io_map=[("logits", "result")])
