"""File of the lab *opset_explorer*: all versions of all operators of ai.onnx, as `onnx.defs` has them.

`opsets.json`: `newest`, the newest opset of `onnx`, and `operators`: name → editions, oldest first. Each has `opset`,
`event`, `what` (as `cu.operator_history` gives them), `inputs` [name, option, letter of its type], `outputs` likewise, `attributes`
[name, default], `types` (letter → types of tensors) and, where a node without a graph inside can be made, `needs`: the attributes
that it must have, [name, type, a usual value]. option: 0 for one, 1 for one that may be missing, 2 for any number.
"""

from __future__ import annotations

import json
from pathlib import Path

import onnx

import course_utils as cu
from course_utils.lab.opsets import editions

OPTIONS = {
    onnx.defs.OpSchema.FormalParameterOption.Single: 0,
    onnx.defs.OpSchema.FormalParameterOption.Optional: 1,
    onnx.defs.OpSchema.FormalParameterOption.Variadic: 2,
}
USUAL = {"INT": 1, "FLOAT": 1.0, "INTS": [1, 1], "FLOATS": [1.0, 1.0]}
TEXTS = {"direction": "LEFT", "equation": "ij->ij", "mode": "TF", "to": "FLOAT"}


def make(folder: Path) -> None:
    """Write the lab's file into `folder`."""
    facts = {"newest": onnx.defs.onnx_opset_version(), "operators": {}}
    for name, versions in editions().items():
        facts["operators"][name] = [_edition(edition) for edition in versions]
    (folder / "opsets.json").write_text(json.dumps(facts, separators=(",", ":")), encoding="utf-8")


def _edition(edition: cu.lab.opsets.Edition) -> dict[str, object]:
    schema = onnx.defs.get_schema(edition.operator, edition.opset)
    letters = {one.type_str for one in (*schema.inputs, *schema.outputs)}
    types = {constraint.type_param_str: constraint.allowed_type_strs for constraint in schema.type_constraints}
    found = {
        "opset": edition.opset,
        "event": edition.event,
        "what": edition.what,
        "inputs": [[one.name, OPTIONS[one.option], one.type_str] for one in schema.inputs],
        "outputs": [[one.name, OPTIONS[one.option], one.type_str] for one in schema.outputs],
        "attributes": [[name, edition.defaults.get(name, "")] for name in edition.attributes],
        "types": {letter: _tensors(types.get(letter, [letter])) for letter in sorted(letters)},
    }
    needs = [_needed(attribute) for attribute in schema.attributes.values() if attribute.required]
    if all(value is not None for *_, value in needs):
        found["needs"] = needs
    return found


def _tensors(types: list[str]) -> list[str]:
    """`tensor(float)` → `float`; sequences, maps and optionals are left out."""
    return [text.removeprefix("tensor(").removesuffix(")") for text in types if text.startswith("tensor(")]


def _needed(attribute: onnx.defs.OpSchema.Attribute) -> tuple[str, str, object]:
    """Name, type and a usual value, which is None for a graph or a tensor."""
    kind = attribute.type.name
    return attribute.name, kind, TEXTS.get(attribute.name) if kind == "STRING" else USUAL.get(kind)
