"""The labs' reader and writer of ONNX files, beside Python's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from course_utils.pages.browser_lab import node, npm_package

ROOT = Path(__file__).resolve().parents[1]
BACKEND = Path(onnx.__file__).parent / "backend" / "test" / "data"
LARGEST = 2**53

pytestmark = pytest.mark.skipif(
    node() is None or npm_package("protobufjs") is None, reason="needs Node and the packages that make book installs"
)


def every_type() -> onnx.ModelProto:
    """A model with a tensor of each type, in both ways to store it, and with attributes of many kinds."""
    values = np.array([0, 1, -1, 0.5, 3, -2.5, 100])
    skipped = {"UNDEFINED", "STRING", "FLOAT8E8M0", "FLOAT6E2M3", "FLOAT6E3M2"}
    tensors = [helper.make_tensor("STRING", TensorProto.STRING, [2], [b"cat", "é".encode()])]
    for name, number in TensorProto.DataType.items():
        if name in skipped:
            continue
        kind = helper.tensor_dtype_to_np_dtype(number)
        array = np.abs(values).astype(kind) if "U" in name[0] or name == "BOOL" else values.astype(kind)
        tensors.append(numpy_helper.from_array(array, f"{name} raw"))
        assert tensors[-1].data_type == number
        listed = helper.make_tensor(f"{name} listed", number, [7], array.tolist())
        tensors.append(listed)
    least = np.array([-(2**63), 2**63 - 1, LARGEST + 1])
    tensors.append(helper.make_tensor("int64 far", TensorProto.INT64, [3], least.tolist()))
    tensors.append(helper.make_tensor("uint64 far", TensorProto.UINT64, [1], [2**64 - 1]))
    branch = helper.make_graph([], "branch", [], [])
    attributes = {
        "f": 0.5,
        "i": 2**63 - 1,
        "s": "é",
        "t": tensors[0],
        "g": branch,
        "fs": [1.5, 2.0],
        "is": [1, -1],
        "ss": ["a"],
    }
    graph = helper.make_graph(
        [helper.make_node("Odd", ["x", ""], ["y"], domain="elsewhere", **attributes)],
        "types",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["n", None, 0])],
        [onnx.ValueInfoProto(name="y")],
        initializer=tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("elsewhere", 1)])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    (folder / "every_type.onnx").write_bytes(every_type().SerializeToString())
    files = [ROOT / "data/deploy/model/model.onnx", ROOT / "data/profiled/recognizer.onnx"]
    files += [BACKEND / "light" / f"light_{name}.onnx" for name in ("resnet50", "inception_v2")]
    files += sorted(BACKEND.glob("simple/*/*.onnx")) + sorted(BACKEND.glob("pytorch-converted/*/*.onnx"))[:20]
    for file in files:
        name = file.name if file.stem != "model" else f"{file.parent.name}.onnx"
        (folder / name).write_bytes(file.read_bytes())
    return folder


@pytest.fixture(scope="module")
def found(models: Path) -> dict[str, Any]:
    subprocess.run([sys.executable, str(ROOT / "jupyter-book" / "labs" / "vendor.py")], check=True, timeout=60)
    program = [str(node()), str(ROOT / "tests" / "read_models.mjs"), str(models)]
    return json.loads(subprocess.run(program, check=True, capture_output=True, timeout=60).stdout)


def test_graphs_are_read_as_python_reads_them(models: Path, found: dict[str, Any]) -> None:
    assert len(found) > 30
    for name, seen in found.items():
        model = onnx.load(models / name)
        graph = model.graph
        assert seen["opsets"] == [[o.domain, o.version] for o in model.opset_import]
        assert seen["nodes"] == [
            [
                n.op_type,
                list(n.input),
                list(n.output),
                [[a.name, simple(helper.get_attribute_value(a))] for a in n.attribute],
            ]
            for n in graph.node
        ], name
        assert [end[0] for end in seen["ends"]] == [v.name for v in [*graph.input, *graph.output]]
        for (_, kind, shape), info in zip(seen["ends"], [*graph.input, *graph.output], strict=True):
            if info.type.HasField("tensor_type"):
                tensor = info.type.tensor_type
                assert TensorProto.DataType.Name(tensor.elem_type) == {"float32": "FLOAT", "float64": "DOUBLE"}.get(
                    kind, kind.upper()
                )
                assert shape == [
                    d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim
                ]


def test_weights_have_the_values_that_numpy_gives(models: Path, found: dict[str, Any]) -> None:
    for name, seen in found.items():
        tensors = onnx.load(models / name).graph.initializer
        for (label, kind, dims, values), tensor in zip(seen["weights"], tensors, strict=True):
            array = numpy_helper.to_array(tensor)
            assert (label, dims) == (tensor.name, list(array.shape))
            if kind == "string":
                assert values == [str(v, "utf-8") if isinstance(v, bytes) else v for v in array.tolist()]
            elif "int" in kind:
                assert [int(v) for v in values] == array.ravel().tolist(), label
            elif kind.startswith("complex"):
                assert [float(v) for v in values] == array.ravel().view(array.real.dtype).tolist(), label
            else:
                np.testing.assert_array_equal(np.array(values, np.float64), array.ravel().astype(np.float64), label)


def test_what_is_written_anew_is_the_same_model(models: Path, found: dict[str, Any]) -> None:
    for name in found:
        again = models / f"{name}.again"
        assert onnx.ModelProto.FromString(again.read_bytes()) == onnx.load(models / name), name


@pytest.mark.parametrize(
    "name", ["recognizer.onnx", "light_resnet50.onnx", "test_strnorm_model_nostopwords_nochangecase.onnx"]
)
def test_onnxruntime_loads_what_is_written(models: Path, found: dict[str, Any], name: str) -> None:
    assert name in found
    session = ort.InferenceSession((models / f"{name}.again").read_bytes(), providers=["CPUExecutionProvider"])
    assert session.get_outputs()


def simple(value: object) -> object:
    """What `read_models.mjs` prints of an attribute's value."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, int) and abs(value) > LARGEST:
        return str(value)
    if isinstance(value, str | int | float):
        return value
    if hasattr(value, "DESCRIPTOR"):
        return "…"
    return [simple(one) for one in value]  # type: ignore[attr-defined]
