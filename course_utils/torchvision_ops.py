"""torchvision beside a CPU-only torch.

The torchvision wheel on the package index is built against CUDA. Beside a CPU build of torch its C++ library cannot be
loaded, its operators are never declared, and `import torchvision` dies with `operator torchvision::nms does not exist`:
torchvision registers Python shape rules for operators, and `nms` is not there to take one. Models, transforms and
datasets need none of those operators. Declaring the two missing schemas before the import is enough; calling
`torchvision.ops.nms` itself still fails, as it must.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[object] = []  # a torch.library.Library undoes its declarations when it is collected


def make_importable() -> bool:
    """Declare `torchvision::nms` and `torchvision::qnms` where torchvision's own library cannot; True if that was needed.

    Call it before the first import of torchvision (`transformers` imports torchvision too). Called by `cu.setup()`.
    Does nothing where torchvision is missing, is imported already, or brings its operators itself.
    """
    import torch

    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None or hasattr(torch.ops.torchvision, "nms"):
        return False
    for file in Path(spec.origin).parent.glob("_C*.*"):
        try:
            torch.ops.load_library(str(file))
        except OSError:
            continue
    if hasattr(torch.ops.torchvision, "nms"):
        return False
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(name + _SCHEMA)
    _declared.append(library)
    return True
