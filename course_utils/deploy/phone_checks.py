"""Which part of a model would an accelerator of a phone take? ONNX Runtime's usability checker, as a table."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CourseError

if TYPE_CHECKING:
    import onnx
    import pandas as pd


def prepared_for_checker(file: str | os.PathLike[str]) -> onnx.ModelProto:
    """The model as the checker wants it: optimised to the level *basic*, with all shapes written in. First used in lesson 08.

    Raises CourseError when there is no such file.
    """
    from onnxruntime.tools.onnx_model_utils import ModelProtoWithShapeInfo, optimize_model

    if not Path(file).is_file():
        raise CourseError(f"There is no model {os.fspath(file)!r}: give the path of an .onnx file.")
    with tempfile.TemporaryDirectory() as folder:
        simpler = Path(folder, "model.onnx")
        optimize_model(Path(file), simpler)
        return ModelProtoWithShapeInfo(simpler).model_with_shape_info


def usability(file: str | os.PathLike[str]) -> pd.DataFrame:
    """One row per accelerator: nodes it would take, in how many pieces, verdict, operators it lacks. First used in lesson 08.

    These are look-ups in ONNX Runtime's own lists; nothing is run. CoreML has two kinds of models, with a list each.
    Raises CourseError when there is no such file.
    """
    import pandas as pd
    from onnxruntime.tools.mobile_helpers import usability_checker as checker

    model = prepared_for_checker(file)
    found = {"NNAPI": checker.check_nnapi_partitions(model, True)}
    for kind in ("NeuralNetwork", "MLProgram"):
        listed = f"coreml_supported_{kind.lower()}_ops.md"
        found[f"CoreML {kind}"] = checker.check_coreml_partitions(model, True, listed)
    rows = {
        name: {
            "nodes": f"{info.num_supported_nodes}/{info.num_nodes}",
            "pieces": info.num_partitions,
            "verdict": info.suitability().name,
            "lacks": ", ".join(sorted(op.split(":")[1] for op in info.unsupported_ops)),
        }
        for name, info in found.items()
    }
    return pd.DataFrame(rows).T
