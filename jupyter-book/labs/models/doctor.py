"""Files of the lab "doctor": what Python's doctor knows, as `doctor.json`, and example models.

Nothing of it is written a second time: titles, cures, severities and lessons come from the catalogue of `cu.doctor`, lists of
operators and limits from the modules of its checks, and what ONNX Runtime takes from ONNX Runtime.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper, parser

from course_utils import file_formats, onnx_files
from course_utils.diagnosis import parts, verdict, vocabulary
from course_utils.diagnosis.child import runtime

CODES = json.loads((Path(__file__).parent.parent / "doctor" / "codes.json").read_text(encoding="utf-8"))
# The modules whose lists and limits the page's checks read.
TABLES = (
    "file.skeleton", "findings.structure", "findings.versions", "findings.hardware", "findings.loops", "findings.shapes",
    "findings.numbers", "findings.quantization", "findings.quantized_weights", "findings.metadata", "findings.external_data",
)  # fmt: skip


def make(folder: Path) -> None:
    """Write `doctor.json` and the examples into `folder`."""
    (folder / "doctor.json").write_text(json.dumps(catalogue(), ensure_ascii=False), encoding="utf-8")
    for name, data in examples().items():
        (folder / name).write_bytes(data)


def catalogue() -> dict[str, Any]:
    """What the page's checks and the page itself read."""
    known = {c.id: c for c in vocabulary.all_codes()}
    decided = verdict.OF_THE_RUNTIME | verdict.OF_THE_GRAPH | verdict.OF_THE_WEIGHTS
    examined = [id for family in CODES["examined"].values() for id in family]
    return {
        "severities": vocabulary.SEVERITIES,
        "codes": {id: _code(known[id]) | {"runtime_decides": id in decided} for id in examined},
        "left_out": {why: {id: known[id].title for id in ids} for why, ids in CODES["left_out"].items()},
        "tables": dict(_tables()),
        "runtime": {
            "version": runtime.version(),
            "newest_ir": runtime.newest_ir(),
            "newest": {domain: runtime.newest(domain) for domain in sorted(runtime.domains())},
            "operators": _operators(),
        },
    }


def _code(code: vocabulary.Code) -> dict[str, Any]:
    page = f"{code.lesson_file.removesuffix('.ipynb')}.html"
    lesson = {"name": code.lesson_name, "page": page}
    return {"severity": code.severity, "title": code.title, "cure": code.cure, "lesson": lesson}


def _operators() -> dict[str, dict[str, list[int]]]:
    """Domain → operator → the opsets that define it anew; negative where one withdraws it."""
    found: dict[str, dict[str, list[int]]] = {}
    for (domain, name), schemas in runtime.schemas().items():
        found.setdefault(domain, {})[name] = [-s.since if s.withdrawn else s.since for s in schemas]
    return found


def _tables() -> Iterator[tuple[str, Any]]:
    """Module → its constants, as JSON, without the underscore before their names."""
    yield "dtypes", dict(_dtypes())
    yield "file_formats", _constants(file_formats)
    for name in TABLES:
        module = importlib.import_module(f"{vocabulary.__package__}.{name}")
        constants = _constants(module)
        if name == "findings.metadata":
            constants["PATH"] = _with_letters(module._PATH.pattern)
        if name == "findings.hardware":
            constants["COMPILED"] = onnx_files.COMPILED
        yield name.rpartition(".")[2], constants


def _dtypes() -> Iterator[tuple[int, dict[str, Any]]]:
    """Number of a dtype → its name, and the bits of an element; 0 where it has no size."""
    for number in TensorProto.DataType.values():
        size = parts.expected_bytes(TensorProto(data_type=number, dims=[8]))
        yield number, {"name": parts.dtype_name(number), "bits": size or 0}


def _constants(module: Any) -> dict[str, Any]:
    """The constants of a module that JSON can hold; lists of checks, say, it cannot."""
    found = {}
    for name, value in vars(module).items():
        if name.isupper():
            with contextlib.suppress(TypeError):
                json.dumps(_as_json(value))
                found[name.lstrip("_")] = _as_json(value)
    return found


def _as_json(value: Any) -> Any:
    """The same for JSON: bytes as numbers, sets as lists, and of keys of two texts one, such as `com.microsoft::QGemm`."""
    if isinstance(value, dict):
        return {"::".join(k) if isinstance(k, tuple) else k: _as_json(v) for k, v in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(value)
    return [_as_json(v) for v in value] if isinstance(value, list | tuple | bytes) else value


def _with_letters(pattern: str) -> str:
    """A pattern of Python for JavaScript with its flag u, where `\\w` has to be told that letters are not only A to Z."""
    return re.sub(r"\\([\"'])", r"\1", pattern).replace(r"\w", r"\p{L}\p{N}_")


# The examples: file → bytes. Small, and each of them what somebody really has.


def examples() -> dict[str, bytes]:
    """Example files by name: healthy and sick ones, two versions of one model, and something else that was named .onnx."""
    made = {
        "healthy.onnx": network(),
        "in_training.onnx": network(head="d = Dropout(r, ratio, on)  y = MatMul(d, w2)", ratio=0.5, on=True),
        "misspelt.onnx": _misspelt(),
        "not_a_number.onnx": _not_a_number(),
        "int8.onnx": quantized(),
        "int8_gone_wrong.onnx": quantized(scale=0.0, saturated=True),
        "too_new.onnx": network(opset=99),
        "fixed_batch.onnx": network(batch="1"),
        "talkative.onnx": _talkative(),
    }
    whole = made["healthy.onnx"].SerializeToString()
    page = b"<!DOCTYPE html>\n<html><head><title>404: not found</title></head></html>\n"
    return {name: m.SerializeToString() for name, m in made.items()} | {
        "half.onnx": whole[: len(whole) // 2],
        "web_page.onnx": page,
    }


def network(*, batch: str = "N", opset: int = 18, head: str = "y = MatMul(r, w2)", **more: Any) -> onnx.ModelProto:
    """Two layers, with weights that are the same on each machine."""
    stored = {"w1": _weights(16, 16), "b1": _weights(16), "w2": _weights(16, 4)}
    stored |= {name: np.array(value, np.float32 if isinstance(value, float) else bool) for name, value in more.items()}
    body = f"h = MatMul(x, w1)  a = Add(h, b1)  r = Relu(a)  {head}"
    model = parser.parse_model(
        f'<ir_version: 10, opset_import: ["": {opset}], producer_name: "onnx-scroll">'
        f"network (float[{batch}, 16] x) => (float[{batch}, 4] y) {{ {body} }}"
    )
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in stored.items())
    for node in model.graph.node:
        node.name = f"{node.op_type.lower()}_{node.output[0]}"
    return model


def _weights(*shape: int) -> np.ndarray:
    """Numbers between -1 and 1 that look like chance, without a generator whose numbers may change."""
    count = int(np.prod(shape))
    return np.sin(np.arange(1, count + 1) * 12.9898).astype(np.float32).reshape(shape)


def _misspelt() -> onnx.ModelProto:
    model = network()
    model.graph.node[1].input[0] = "H"
    return model


def _not_a_number() -> onnx.ModelProto:
    model = network()
    weights = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weights[3, :4] = np.nan
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "w1"))
    return model


def _talkative() -> onnx.ModelProto:
    model = network()
    trace = 'File "/home/user/secret_project/net.py", line 3, in forward'
    model.graph.node[0].metadata_props.add(key="pkg.torch.onnx.stack_trace", value=trace)
    spare = numpy_helper.from_array(_weights(64, 64), "left_over")
    model.graph.initializer.append(spare)
    return model


def quantized(scale: float = 0.02, saturated: bool = False) -> onnx.ModelProto:
    """A convolution as static quantization writes it."""
    weight = np.round(_weights(8, 4, 3, 3) * 120).astype(np.int8)
    if saturated:
        weight[:, ::2] = 127
    numbers = {"ws": 0.01, "xs": scale, "ys": 0.1}
    stored = {"w": weight, "wz": np.int8(0), "z": np.uint8(0), **{k: np.float32(v) for k, v in numbers.items()}}
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 18], producer_name: "onnx.quantize">'
        "int8 (float[N, 4, 8, 8] x) => (float[N, 8, 6, 6] y) { xq = QuantizeLinear(x, xs, z) xd = DequantizeLinear(xq, xs, z) "
        "wd = DequantizeLinear(w, ws, wz) c = Conv(xd, wd) q = QuantizeLinear(c, ys, z) y = DequantizeLinear(q, ys, z) }"
    )
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in stored.items())
    return model
