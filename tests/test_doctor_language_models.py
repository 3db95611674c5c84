"""The doctor on files of language models: ONNX Runtime's own operators are no errors, and mistakes in them are found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from doctor_models import found
from onnx import NodeProto, TensorProto, numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

WIDTH, HEAD, HEADS, PAIRS, WORDS, BLOCK = 64, 16, 4, 2, 100, 32


def written(path: Path) -> onnx.ModelProto:
    """One layer as the builder of ONNX Runtime GenAI writes it: fused operators, weights in 4 bits, a cache."""
    rng = np.random.default_rng(0)
    tables: dict[str, np.ndarray] = {
        "words": rng.standard_normal((WORDS, WIDTH)).astype(np.float32),
        "norm": np.ones(WIDTH, np.float32),
        "cos": np.ones((64, HEAD // 2), np.float32),
        "sin": np.zeros((64, HEAD // 2), np.float32),
        "one": np.array([1]),
    }

    def product(name: str, source: str, result: str, rows: int) -> NodeProto:
        tables[f"{name}.q"] = rng.integers(0, 255, (rows, WIDTH // BLOCK, BLOCK // 2)).astype(np.uint8)
        tables[f"{name}.scale"] = rng.random(rows * WIDTH // BLOCK).astype(np.float32)
        return make_node(
            "MatMulNBits", [source, f"{name}.q", f"{name}.scale"], [result], name, domain="com.microsoft",
            K=WIDTH, N=rows, bits=4, block_size=BLOCK, accuracy_level=4,
        )  # fmt: skip

    cache = ["past_key_values.0.key", "past_key_values.0.value"], ["present.0.key", "present.0.value"]
    nodes = [
        make_node("Gather", ["words", "input_ids"], ["x"], "embed"),
        make_node("SimplifiedLayerNormalization", ["x", "norm"], ["n"], "norm", epsilon=1e-5, axis=-1, stash_type=1),
        product("qkv", "n", "packed", WIDTH + 2 * PAIRS * HEAD),
        make_node("ReduceSum", ["attention_mask", "one"], ["long"], "sum", keepdims=1),
        make_node("Sub", ["long", "one"], ["last"], "last"),
        make_node("Cast", ["last"], ["last32"], "cast", to=TensorProto.INT32),
        make_node("Shape", ["attention_mask"], ["size"], "size", start=1),
        make_node("Squeeze", ["size"], ["total"], "total"),
        make_node("Cast", ["total"], ["total32"], "cast_total", to=TensorProto.INT32),
        make_node(
            "GroupQueryAttention", ["packed", "", "", *cache[0], "last32", "total32", "cos", "sin"], ["a", *cache[1]],
            "attention", domain="com.microsoft", num_heads=HEADS, kv_num_heads=PAIRS, do_rotary=1,
        ),
        product("o", "a", "b", WIDTH),
        make_node("SkipSimplifiedLayerNormalization", ["x", "b", "norm"], ["y"], "skip", domain="com.microsoft"),
        product("head", "y", "logits", WORDS),
    ]  # fmt: skip
    ids = [make_tensor_value_info(name, TensorProto.INT64, ["batch", name]) for name in ("input_ids", "attention_mask")]
    old, new = (
        [make_tensor_value_info(name, TensorProto.FLOAT, ["batch", PAIRS, length, HEAD]) for name in names]
        for names, length in zip(cache, ("past", "total"), strict=True)
    )
    logits = make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "input_ids", WORDS])
    weights = [numpy_helper.from_array(values, name) for name, values in tables.items()]
    graph = make_graph(nodes, "decoder", [*ids, *old], [logits, *new], weights)
    model = make_model(graph, opset_imports=[make_opsetid("", 21), make_opsetid("com.microsoft", 1)], ir_version=10)
    onnx.save(model, path)
    return model


def test_the_operators_of_the_builder_are_no_errors(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    written(file)
    feed = {name: np.ones((1, 3), np.int64) for name in ("input_ids", "attention_mask")}
    feed |= {f"past_key_values.0.{part}": np.zeros((1, PAIRS, 0, HEAD), np.float32) for part in ("key", "value")}
    logits, key, _ = ort.InferenceSession(file).run(None, feed)
    assert logits.shape == (1, 3, WORDS)
    assert key.shape == (1, PAIRS, 3, HEAD)
    assert found(file) == []


@pytest.mark.parametrize("right", ["MatMulNBits", "GroupQueryAttention", "SkipSimplifiedLayerNormalization"])
def test_a_slip_in_such_a_name_is_found(right: str, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    model = written(file)
    next(node for node in model.graph.node if node.op_type == right).op_type = f"{right}s"
    onnx.save(model, file)
    assert "operator-unknown" in found(file)
