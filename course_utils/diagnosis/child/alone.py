"""One node of a model by itself, to ask the runtime about it."""

from __future__ import annotations

import onnx

from ..parts import Scope, domain
from ..patient import Patient
from . import runtime

_LARGEST = 4096  # bytes of an attribute: longer ones do not decide whether the runtime knows the operator


def alone(patient: Patient, scope: Scope, node: onnx.NodeProto) -> bytes:
    """A model of this node and made-up inputs, to ask the runtime about it."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for a in list(copy.attribute):
        if a.HasField("g") or a.graphs or a.ref_attr_name or a.ByteSize() > _LARGEST:
            copy.attribute.remove(a)
    known = {} if scope.label else patient.inferred
    inputs = {name: known.get(name) or _made_up(patient, scope, node, i) for i, name in enumerate(node.input) if name}
    outputs = [known.get(name, onnx.ValueInfoProto(name=name)) for name in node.output if name]
    graph = onnx.helper.make_graph([copy], "alone", list(inputs.values()), outputs)
    opsets = {"": runtime.newest(""), **{d: v for d, v in scope.opsets.items() if d in runtime.domains()}}
    imports = [onnx.helper.make_opsetid(d, v) for d, v in opsets.items()]
    return onnx.helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()


def _made_up(patient: Patient, scope: Scope, node: onnx.NodeProto, position: int) -> onnx.ValueInfoProto:
    """An input of the type of the stored tensor there, or else of a type that the operator's definition allows."""
    name, types = node.input[position], onnx.TensorProto.DataType
    stored = patient.stored(scope, name)
    if stored is not None:
        return onnx.helper.make_tensor_value_info(name, stored.data_type, None)
    version = scope.version(node) or 1
    inforce = [s for s in runtime.schemas().get((domain(node), node.op_type), ()) if s.since <= version]
    letter = inforce[-1].inputs[min(position, len(inforce[-1].inputs) - 1)] if inforce and inforce[-1].inputs else ""
    usual = (inforce[-1].types.get(letter, letter) if letter else "").removeprefix("tensor(").removesuffix(")").upper()
    return onnx.helper.make_tensor_value_info(name, dict(types.items()).get(usual, types.FLOAT), None)
