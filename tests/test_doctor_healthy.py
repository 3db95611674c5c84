"""No false alarm: models that are well, of our own export and of others'."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from doctor_models import found

import course_utils as cu

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
# The default exporter leaves stack traces on the nodes, and these name folders: a note that is true of each of its files.
TRACES = "paths-of-a-machine"


def errors_of_runtime(path: Path) -> str:
    """ONNX Runtime's reason for not loading a file; empty where it loads."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exception classes derive from Exception alone
        return str(error)
    return ""


@pytest.fixture(scope="module")
def older_onnx(tmp_path_factory):
    """`fashion_resnet` by the older exporter, any batch."""
    import torch

    path = tmp_path_factory.mktemp("export") / "older.onnx"
    with cu.exporter_messages():
        torch.onnx.export(
            cu.fashion_resnet(), (torch.randn(2, 1, 28, 28),), path, dynamo=False, opset_version=17,
            input_names=["image"], output_names=["logits"], dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def quantized_onnx(older_onnx, tmp_path_factory):
    """The same, quantized statically as lesson 07 does it."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            images = cu.normalize(cu.fashion_mnist("calibration")[0][:32])
            self.batches = iter([{"image": np.asarray(images[i : i + 8])} for i in range(0, 32, 8)])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    folder = tmp_path_factory.mktemp("quantized")
    quant_pre_process(older_onnx, folder / "prepared.onnx")
    quantize_static(
        folder / "prepared.onnx", folder / "int8.onnx", Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    return folder / "int8.onnx"


def test_our_own_exports(fashion_onnx, older_onnx):
    assert set(found(fashion_onnx, run=True)) <= {TRACES}
    assert found(older_onnx, run=True) == []


def test_our_own_quantized_model(quantized_onnx):
    assert found(quantized_onnx, run=True) == []


def test_weights_beside_the_model(fashion_onnx, folder):
    onnx.save(onnx.load(fashion_onnx), "split.onnx", save_as_external_data=True, location="split.bin", size_threshold=0)
    assert set(found("split.onnx")) <= {TRACES}


def test_what_runtime_writes(older_onnx, folder):
    """Optimised models hold operators of ONNX Runtime's own domains."""
    import onnxruntime as ort

    for level in (ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED, ort.GraphOptimizationLevel.ORT_ENABLE_ALL):
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = level
        options.optimized_model_filepath = "optimised.onnx"
        ort.InferenceSession(older_onnx, options, providers=["CPUExecutionProvider"])
        blocked = any(n.domain == "com.microsoft.nchwc" for n in onnx.load("optimised.onnx").graph.node)
        assert found("optimised.onnx") == ["made-for-one-processor"] * blocked


@pytest.mark.skipif(not DATA.is_dir(), reason="this onnx package comes without its test models")
def test_models_of_the_onnx_package():
    """Errors are those of ONNX Runtime, no more; warnings are few, and each is known."""
    paths = sorted(DATA.rglob("*.onnx"))
    assert len(paths) > 50
    warned = {}
    for path in paths:
        report = cu.doctor(path)
        assert not [text for text in report.not_checked if text.startswith("The check")], (path, report.not_checked)
        if report.errors:
            assert errors_of_runtime(path), (path, report.errors)
        for finding in report.findings:
            if finding.severity == "warning":
                warned.setdefault(finding.code.id, []).append(path)
    # Models that PyTorch 0.x wrote, in opset 6.
    assert set(warned) <= {"opset-too-old"}


def test_datasets_of_runtime():
    import onnxruntime.datasets

    for path in Path(onnxruntime.datasets.__file__).parent.glob("*.onnx"):
        assert not cu.doctor(path, run=True).errors
