"""Does a `config.pbtxt` of Triton fit the model that it describes? Its format is a protobuf message, so no server is needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnxruntime as ort

from ..errors import CourseError, require

_TYPES = {
    "tensor(bool)": "TYPE_BOOL", "tensor(uint8)": "TYPE_UINT8", "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32", "tensor(uint64)": "TYPE_UINT64", "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16", "tensor(int32)": "TYPE_INT32", "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16", "tensor(float)": "TYPE_FP32", "tensor(double)": "TYPE_FP64",
    "tensor(bfloat16)": "TYPE_BF16", "tensor(string)": "TYPE_STRING",
}  # fmt: skip


def read_config(text: str) -> Any:
    """The ModelConfig of Triton in the text of a `config.pbtxt`.

    Raises CourseError with the parser's words for a text that is none, or when the package tritonclient is missing; it has
    the definition of the message.
    """
    require("tritonclient", "serve")
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    config = model_config_pb2.ModelConfig()
    try:
        text_format.Parse(text, config)
    except text_format.ParseError as error:
        raise CourseError(str(error).rsplit(" : ", maxsplit=1)[-1]) from None
    return config


def triton_findings(text: str, session: ort.InferenceSession) -> list[str]:
    """What the text of a `config.pbtxt` says of its model's inputs and outputs, and is not so. First used in lesson 08.

    The model's first dimension is the batch. A text that is no such message gives one finding: the parser's.
    Raises CourseError when the package tritonclient is missing; it has the definition of the message.
    """
    require("tritonclient", "serve")
    try:
        config = read_config(text)
    except CourseError as error:
        return [str(error)]
    return config_findings(config, session)


def config_findings(config: Any, session: ort.InferenceSession) -> list[str]:
    """The findings about a ModelConfig that was read."""
    found, sides = [], ((config.input, session.get_inputs()), (config.output, session.get_outputs()))
    fixed = [t.name for _, tensors in sides for t in tensors if not t.shape or isinstance(t.shape[0], int)]
    if fixed and config.max_batch_size > 0:
        found.append(f"{fixed[0]} has no free batch, so max_batch_size must be 0, and dims the whole shape")
    elif not fixed and config.max_batch_size < 1:
        found.append("max_batch_size is not given, so Triton takes dims for the whole shape")
    for size in config.dynamic_batching.preferred_batch_size:
        if size > config.max_batch_size and (fixed or config.max_batch_size > 0):
            found.append(f"preferred_batch_size {size} is more than max_batch_size {config.max_batch_size}")
    for kind, (all_stated, all_real) in zip(("inputs", "outputs"), sides, strict=True):
        real = {tensor.name: tensor for tensor in all_real}
        if {tensor.name for tensor in all_stated} != set(real):
            found.append(f"{kind} are {list(real)}")
        for stated in all_stated:
            if stated.name in real:
                found += _misfits(stated, real[stated.name], batched=not fixed)
    return found


def _misfits(stated: Any, real: Any, *, batched: bool) -> Iterator[str]:
    from tritonclient.grpc import model_config_pb2

    dims = list(stated.reshape.shape if stated.HasField("reshape") else stated.dims)
    wanted = _TYPES.get(real.type, real.type)
    if model_config_pb2.DataType.Name(stated.data_type) != wanted:
        yield f"{stated.name} is {wanted}"
    shape = [n if isinstance(n, int) else -1 for n in real.shape[1 if batched else 0 :]]  # -1: any size
    if dims != shape:
        yield f"{stated.name} is {shape}{' without the batch' if batched else ''}, not {dims}"
