"""Prints what the installed ONNX Runtime knows: operators and implementations. Started by `runtime`, never imported by it.

The two functions that tell it are not part of the public interface, and in some builds the second one ends the process
(onnxruntime-openvino 1.24.1). So they are called here, and the first answer is out before the second is asked for.
"""

from __future__ import annotations

import json

import onnxruntime  # noqa: F401 - loads the libraries that the module below needs
from onnxruntime.capi import onnxruntime_pybind11_state as state


def _usual(types: list[str]) -> str:
    """One of the types that may stand for a letter."""
    return next((t for t in ("tensor(float)", "tensor(uint8)") if t in types), next(iter(types), ""))


def main() -> None:
    schemas = [
        {
            "domain": s.domain,
            "name": s.name,
            "since": s.since_version,
            "withdrawn": bool(s.deprecated),
            "inputs": [p.typeStr for p in s.inputs],
            "types": {c.type_param_str: _usual(c.allowed_type_strs) for c in s.type_constraints},
            "attributes": list(s.attributes),
        }
        for s in state.get_all_operator_schema()
    ]
    print(json.dumps(schemas), flush=True)
    kernels = [
        {"domain": k.domain, "name": k.op_name, "versions": list(k.version_range), "types": dict(k.type_constraints)}
        for k in state.get_all_opkernel_def()
        if k.provider == "CPUExecutionProvider"
    ]
    print(json.dumps(kernels), flush=True)


if __name__ == "__main__":
    main()
