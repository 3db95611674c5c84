"""Files of the lab *three_exports*: four small modules, each exported by the three mechanisms of lesson 03.

`<module>_<mechanism>.onnx` where there is a file, and `three_exports.json`: the source of each module, the inputs,
PyTorch's answers, and what the exporter said.
"""

from __future__ import annotations

import inspect
import io
import json
import re
import textwrap
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import GraphProto, ModelProto
from torch import Tensor, nn

import course_utils as cu
from course_utils.lab.exports import reason

EXAMPLE = [[1.0, -2.0], [3.0, 4.0], [5.0, -6.0]]
INPUTS = {
    "example": EXAMPLE,
    "values": [[-1.0, 2.0], [-3.0, -4.0], [-5.0, 4.0]],
    "rows": [*EXAMPLE, [2.0, 7.0], [-8.0, 3.0]],
}
MECHANISMS = ("trace", "script", "default")
NAMES = {"input_names": ["x"], "output_names": ["y"]}


class Plain(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x) * 2


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x * 2
        return x - 1


class Loop(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros_like(x[0])
        for row in x:
            h = 0.5 * h + row
        return h


class Number(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        largest = x.max().item()
        return x / largest


# Each module, and the line of it that matters to an exporter.
MODULES = {
    "plain": (Plain(), ""),
    "branch": (Branch(), "if x.sum() > 0:"),
    "loop": (Loop(), "for row in x:"),
    "number": (Number(), "largest = x.max().item()"),
}


def make(folder: Path) -> None:
    """Write the lab's files into `folder`."""
    facts: dict[str, Any] = {"inputs": INPUTS, "modules": {}}
    for name, (module, line) in MODULES.items():
        facts["modules"][name] = {
            "source": source(module),
            "line": line,
            "torch": {key: module(torch.tensor(x)).tolist() for key, x in INPUTS.items()},
            "exports": {how: write(module.eval(), how, folder / f"{name}_{how}.onnx") for how in MECHANISMS},
        }
    (folder / "three_exports.json").write_text(json.dumps(facts, separators=(",", ":")), encoding="utf-8")


def source(module: nn.Module) -> list[str]:
    """The lines of the module's `forward`, without the types of its argument and of its answer."""
    text = textwrap.dedent(inspect.getsource(type(module).forward))
    return text.replace("x: Tensor) -> Tensor", "x)").splitlines()


def write(module: nn.Module, how: str, file: Path) -> dict[str, Any]:
    """Export the module. Returns what was said: a refusal, or the warning that the file may be wrong."""
    with cu.exporter_messages() as said:
        try:
            model = export(module, how, torch.tensor(EXAMPLE))
        except Exception as error:
            return {"refused": re.sub(r"\(\S+\.py, line \d+: ", "(", reason(error))}  # the page shows no line numbers
    without_notes(model.graph)
    onnx.save(model, file)
    warned = next((text.partition(". ")[0] for text in said if "might cause the trace to be incorrect" in text), "")
    return {"warned": warned}


def export(module: nn.Module, how: str, x: Tensor) -> ModelProto:
    """The module as a model. The number of rows is asked to be free."""
    if how == "default":
        free = ({0: torch.export.Dim.DYNAMIC},)
        program = torch.onnx.export(module, (x,), dynamic_shapes=free, verbose=False, **NAMES)
        assert program is not None
        return program.model_proto
    written = io.BytesIO()
    given = torch.jit.script(module) if how == "script" else module
    torch.onnx.export(given, (x,), written, dynamo=False, dynamic_axes={"x": {0: "rows"}}, **NAMES)
    return onnx.load_from_string(written.getvalue())


def without_notes(graph: GraphProto) -> None:
    """Take out the exporter's notes: places in the source on the machine that built the book."""
    for part in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                without_notes(attribute.g)
