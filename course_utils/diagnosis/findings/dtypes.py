"""Inputs of one node that must have one dtype, and have two."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import onnx
from onnx import NodeProto

from ..child import runtime
from ..parts import Scope, domain, dtype_name
from ..patient import Patient
from ..vocabulary import ERROR, Finding, code, finding, nodes, plain

DIFFER = code(
    "dtypes-differ",
    ERROR,
    "01",
    "An operator is fed two dtypes, and wants one",
    "Put a Cast before one of the inputs, or store the constant in the dtype of the other. PyTorch converts by itself, ONNX never does.",
)


def differing(patient: Patient, scope: Scope, node: NodeProto) -> dict[str, str]:
    """Input → dtype, of the inputs that share one type by the operator's definition and have several; empty if there are none."""
    if scope.label:  # types are known for the main graph alone
        return {}
    groups: dict[str, dict[str, str]] = defaultdict(dict)
    for name, letter in zip(node.input, _letters(scope, node), strict=False):
        dtype = patient.tensor_types.get(name, 0)
        if letter and dtype:
            groups[letter][name] = dtype_name(dtype)
    return next((group for group in groups.values() if len(set(group.values())) > 1), {})


def _letters(scope: Scope, node: NodeProto) -> list[str]:
    """What stands for the type of each input, such as T; empty where it may differ from others of its name."""
    version, where = scope.version(node), domain(node)
    if version is None:
        return []
    try:
        formal = onnx.defs.get_schema(node.op_type, version, where).inputs
    except (onnx.defs.SchemaError, TypeError):  # not of the standard; or a name that is no text
        known = [s for s in runtime.schemas().get((where, node.op_type), []) if s.since <= version]
        return list(known[-1].inputs) if known else []
    letters = [p.type_str if p.is_homogeneous else "" for p in formal]
    many = bool(formal) and formal[-1].option == onnx.defs.OpSchema.FormalParameterOption.Variadic
    return letters + letters[-1:] * (len(node.input) - len(letters) if many else 0)


def differ(patient: Patient) -> Iterator[Finding]:
    found = [
        (scope.place(index), node.op_type, group)
        for scope, index, node in patient.each_node()
        if (group := differing(patient, scope, node))
    ]
    if found:
        _, op, group = found[0]
        inputs = " and ".join(f"{dtype} ({plain(name)!r})" for name, dtype in list(group.items())[:3])
        text = f"{plain(op)} reads {inputs}, and takes one dtype for all of these. So in {nodes(len(found))}."
        yield finding(DIFFER, text, [place for place, *_ in found])


CHECKS = (differ,)
