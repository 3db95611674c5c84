"""The doctor reads long files field by field: the numbers of the fields are those of ONNX."""

from __future__ import annotations

import onnx
import pytest

from course_utils.diagnosis.file import skeleton

TYPE = onnx.TypeProto
MESSAGES = {
    "Model": [onnx.ModelProto],
    "Graph": [onnx.GraphProto],
    "Function": [onnx.FunctionProto],
    "Training": [onnx.TrainingInfoProto],
    "Node": [onnx.NodeProto],
    "Attribute": [onnx.AttributeProto],
    "Sparse": [onnx.SparseTensorProto],
    "Tensor": [onnx.TensorProto],
    "Value": [onnx.ValueInfoProto],
    "Type": [TYPE],
    "TypeOfMany": [TYPE.Sequence, TYPE.Map, TYPE.Optional],
    "TypeOfTensor": [TYPE.Tensor, TYPE.SparseTensor],
    "Parts": [onnx.TensorShapeProto, onnx.TensorAnnotation],
}
KIND = {message.DESCRIPTOR.full_name: kind for kind, messages in MESSAGES.items() for message in messages}


@pytest.mark.parametrize("kind", MESSAGES)
def test_where_messages_lie_in_messages(kind):
    fields = [
        field for message in MESSAGES[kind] for field in message.DESCRIPTOR.fields if field.message_type is not None
    ]
    known = {field.number: KIND.get(field.message_type.full_name) for field in fields}
    left_out = {"Attribute": {14, 15}}.get(kind, set())  # types in an attribute hold no tensors, and nobody writes many
    assert skeleton._INNER[kind] == {number: what for number, what in known.items() if what and number not in left_out}


def test_where_the_data_of_a_tensor_lies():
    numbers = {
        name: onnx.TensorProto.DESCRIPTOR.fields_by_name[name].number
        for name in onnx.TensorProto.DESCRIPTOR.fields_by_name
    }
    raw, varint = ("raw_data", "float_data", "double_data"), ("int32_data", "int64_data", "uint64_data")
    assert {numbers[n]: "raw" for n in raw} | {numbers[n]: "varint" for n in varint} == skeleton._DATA
    assert numbers["raw_data"] == skeleton._RAW
    assert onnx.AttributeProto.DESCRIPTOR.fields_by_name["s"].number == skeleton._TEXT
    assert set(skeleton._INNER) == set(MESSAGES)
