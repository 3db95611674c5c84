"""`python course_utils/ep_experiment`, in an interpreter that need not have the course."""

import sys
from pathlib import Path

# At the end: the modules beside this folder must not hide others of the same name.
sys.path.append(str(Path(__file__).resolve().parents[1]))

try:
    from ep_experiment.record import main  # type: ignore[import-not-found]
except ModuleNotFoundError as error:
    if error.name not in {"numpy", "onnx", "onnxruntime"}:
        raise
    sys.exit(f"This interpreter has no {error.name!r}; the experiment needs numpy, onnx and a package of ONNX Runtime.")

if __name__ == "__main__":
    main()
