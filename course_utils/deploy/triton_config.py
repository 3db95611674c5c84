"""Does a `config.pbtxt` of Triton fit the model that it describes? Its format is a protobuf message, so no server is needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnxruntime as ort

from ..errors import require

_TYPES = {"tensor(uint8)": "TYPE_UINT8", "tensor(int64)": "TYPE_INT64", "tensor(float)": "TYPE_FP32"}


def triton_findings(text: str, session: ort.InferenceSession) -> list[str]:
    """What the text of a `config.pbtxt` says of its model's inputs and outputs, and is not so. First used in lesson 08.

    The model's first dimension is the batch. A text that is no such message gives one finding: the parser's.
    Raises CourseError when the package tritonclient is missing; it has the definition of the message.
    """
    require("tritonclient", "serve")
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    config, found = model_config_pb2.ModelConfig(), []
    try:
        text_format.Parse(text, config)
    except text_format.ParseError as error:
        return [str(error).split(" : ")[-1]]
    if config.max_batch_size < 1:
        found.append("max_batch_size is not given, so Triton takes dims for the whole shape")
    for kind, all_stated, all_real in (
        ("inputs", config.input, session.get_inputs()),
        ("outputs", config.output, session.get_outputs()),
    ):
        real = {tensor.name: tensor for tensor in all_real}
        if {tensor.name for tensor in all_stated} != set(real):
            found.append(f"{kind} are {list(real)}")
        for stated in all_stated:
            if stated.name in real:
                found += _misfits(stated, real[stated.name], model_config_pb2)
    return found


def _misfits(stated: Any, real: Any, definition: Any) -> Iterator[str]:
    dims = list(stated.reshape.shape if stated.HasField("reshape") else stated.dims)
    wanted = _TYPES.get(real.type, real.type)
    if definition.DataType.Name(stated.data_type) != wanted:
        yield f"{stated.name} is {wanted}"
    if dims != real.shape[1:]:
        yield f"{stated.name} is {real.shape[1:]} without the batch, not {dims}"
