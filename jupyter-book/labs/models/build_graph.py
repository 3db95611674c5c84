"""Files of the lab *build_graph*: a graph of five nodes as text, changes to it, and what `onnx.checker` says to each.

`build_graph.json`: `text`, `values` of its input, and `changes`: what is replaced by what, `checker`: its words, empty where
it finds nothing.
"""

from __future__ import annotations

import json
from pathlib import Path

import onnx

TEXT = """<ir_version: 10, opset_import: ["" : 18]>
five (float[N, 3] x) => (float[N, 2] y)
<float[3, 2] W = {1, -2, 3, 4, -5, 6},
 float[2] b = {0.5, -0.5},
 int64[1] last = {1}>
{
   xw = MatMul (x, W)
   s = Add (xw, b)
   e = Exp (s)
   sum = ReduceSum <keepdims = 1> (e, last)
   y = Div (e, sum)
}
"""
VALUES = "[[1, 1, 1], [1, 0, -1]]"
# name, words on the button, what is replaced, by what
CHANGES = [
    ("keepdims", "keepdims = 0", "keepdims = 1", "keepdims = 0"),
    ("name", "Misspell a name", "Add (xw, b)", "Add (xw, bias)"),
    ("order", "Swap two nodes", "xw = MatMul (x, W)\n   s = Add (xw, b)", "s = Add (xw, b)\n   xw = MatMul (x, W)"),
    ("twice", "Write a name twice", "e = Exp (s)", "s = Exp (s)"),
    ("operator", "Misspell an operator", "Exp (s)", "Expo (s)"),
    ("type", "Another type", "float[2] b = {0.5, -0.5}", "int64[2] b = {1, -1}"),
    ("shape", "Another shape", "float[3, 2] W", "float[2, 3] W"),
    ("attribute", "An attribute too many", "Exp (s)", "Exp <axis = 1> (s)"),
]


def make(folder: Path) -> None:
    """Write the lab's file into `folder`."""
    changes = []
    for name, label, old, new in CHANGES:
        text = TEXT.replace(old, new)
        if TEXT.count(old) != 1:
            raise ValueError(f"{old!r} stands {TEXT.count(old)} times in the text, and must stand there once.")
        changes.append({"name": name, "label": label, "text": text, "checker": checked(text)})
    facts = {"text": TEXT, "values": {"x": VALUES}, "changes": changes}
    (folder / "build_graph.json").write_text(json.dumps(facts, separators=(",", ":")), encoding="utf-8")


def checked(text: str) -> str:
    """What the checker says, in one line; empty when it finds nothing."""
    try:
        onnx.checker.check_model(onnx.parser.parse_model(text), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return " ".join(str(error).split())
    return ""
