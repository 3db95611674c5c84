"""Files of the lab *fusion*: the graph of lesson 06 at three levels, as ONNX Runtime in Python saves it.

`<model>_<level>.onnx`, and `fusion.json`: where each node comes from, the bytes between nodes, an input and its answers.
The levels `layout` and `all` are left out: what they write fits the processor of the machine that built the book.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto

import course_utils as cu
from course_utils.running import run_all

LEVELS = ("none", "basic", "extended")
# As in notebooks/06_fusion.py; tests/test_lab_fusion.py compares the two.
UNTIDY = """<ir_version: 10, opset_import: ["": 20]>
untidy (float[1, 2, 8, 8] x) => (float[1, 3] y)
<float[2, 2, 1, 1] W1 = {1, -2, -3, 4}, float[2, 2, 1, 1] W2 = {2, 1, -1, 3},
 float[2] scale = {2, 1}, float[2] shift = {-1, 1}, float[2] mean = {0, 1},
 float[2] variance = {1, 2}, float[2, 1, 1] log_gain = {0, 1},
 float[2, 3] W3 = {1, 2, 3, 4, 5, 6}, float[3] bias = {1, 2, 3}>
{ c = Conv (x, W1)  n = BatchNormalization (c, scale, shift, mean, variance)
  r = Relu (n)  d = Dropout (r)  i = Identity (d)  gain = Exp (log_gain)
  m = Mul (i, gain)  c2 = Conv (m, W2)  a = Add (c2, m)  r2 = Relu (a)
  p = GlobalAveragePool (r2)  f = Flatten (p)
  t = MatMul (f, W3)  y = Add (t, bias) }"""


def make(folder: Path) -> None:
    """Write the lab's files into `folder`."""
    untidy = onnx.parser.parse_model(UNTIDY)
    debug = ModelProto.FromString(untidy.SerializeToString())
    debug.graph.output.append(onnx.helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, [1, 2, 8, 8]))
    x = np.random.default_rng(0).normal(size=(1, 2, 8, 8)).astype(np.float32)
    facts: dict[str, Any] = {"x": x.ravel().tolist(), "models": {}}
    for name, model in {"untidy": untidy, "debug": debug}.items():
        facts["models"][name] = {level: _level(folder, name, level, model, {"x": x}) for level in LEVELS}
    (folder / "fusion.json").write_text(json.dumps(facts, separators=(",", ":")), encoding="utf-8")


def _level(folder: Path, name: str, level: str, model: ModelProto, feed: dict[str, np.ndarray]) -> dict[str, Any]:
    optimized = cu.optimized(model, level)
    onnx.save(optimized, folder / f"{name}_{level}.onnx")
    places = {output: at for at, node in enumerate(model.graph.node) for output in node.output}
    origins = cu.origins(model, optimized, feed)
    come_from = [[places[output] for output in filter(None, row.split(", "))] for row in origins["originals"]]
    count = len(optimized.graph.node)
    traffic = cu.traffic(optimized, feed)
    return {
        "nodes": [
            {"what": what, "from": found, "reads": int(reads), "writes": int(writes)}
            for what, found, reads, writes in zip(
                origins["what"][:count], come_from, traffic["reads"], traffic["writes"], strict=False
            )
        ],
        "gone": {found[0]: what for what, found in zip(origins["what"][count:], come_from[count:], strict=True)},
        "y": run_all(optimized, feed)["y"].ravel().tolist(),
    }
