"""What the installed ONNX Runtime knows, asked of itself. No model of anybody's is loaded for it."""

from __future__ import annotations

import functools
from collections import defaultdict
from typing import Any

import onnx

from ..opsets import _probe, why_not_loaded


@functools.cache
def version() -> str:
    import onnxruntime

    return onnxruntime.__version__


@functools.cache
def refusal(ir_version: int, domain: str, opset: int) -> str:
    """Why the runtime refuses these numbers, in its own words; empty when it takes them.

    It is asked with a model of one Identity node, so that the numbers alone decide.
    """
    newest = _newest_opset()
    model = _probe(ir_version, opset if domain == "" else newest)
    if domain:
        model.opset_import.append(onnx.helper.make_opsetid(domain, opset))
    return why_not_loaded(model)


@functools.cache
def _newest_opset() -> int:
    """An opset that this runtime surely loads."""
    return next(o for o in range(onnx.defs.onnx_opset_version(), 0, -1) if not why_not_loaded(_probe(8, o)))


@functools.cache
def newest(domain: str) -> int:
    """The newest opset of a known domain that this runtime loads."""
    highest = max((s.since_version for s in schemas_of(domain)), default=1)
    return next((o for o in range(highest + 12, 0, -1) if not refusal(8, domain, o)), 0)


@functools.cache
def newest_ir() -> int:
    return next((v for v in range(onnx.IR_VERSION + 4, 0, -1) if not refusal(v, "", _newest_opset())), 0)


@functools.cache
def schemas() -> dict[tuple[str, str], list]:
    """(domain, operator) → its definitions that the runtime holds, oldest first. Where it does not tell: those of onnx."""
    try:
        from onnxruntime.capi import onnxruntime_pybind11_state as state

        found = state.get_all_operator_schema()
    except (ImportError, AttributeError):  # a build without this door
        found = onnx.defs.get_all_schemas_with_history()
    table = defaultdict(list)
    for schema in found:
        table[schema.domain, schema.name].append(schema)
    return {key: sorted(group, key=lambda s: s.since_version) for key, group in table.items()}


def schemas_of(domain: str) -> list:
    return [s for (d, _), group in schemas().items() if d == domain for s in group]


@functools.cache
def domains() -> frozenset[str]:
    return frozenset(d for d, _ in schemas())


@functools.cache
def kernels() -> dict[tuple[str, str], list]:
    """(domain, operator) → the implementations for the CPU; empty where the runtime does not tell."""
    try:
        from onnxruntime.capi import onnxruntime_pybind11_state as state

        found = state.get_all_opkernel_def()
    except (ImportError, AttributeError):
        return {}
    table = defaultdict(list)
    for kernel in found:
        if kernel.provider == "CPUExecutionProvider":
            table[kernel.domain, kernel.op_name].append(kernel)
    return dict(table)


_OPEN = 2**31 - 1


@functools.cache
def implemented(domain: str, op_type: str, since: int, types: tuple[str, ...]) -> bool:
    """Whether the CPU implements the definition that came with opset `since`, for inputs of these types.

    types: such as "tensor(float)", one per input; empty where it is not known. True where the runtime does not tell.
    """
    if not kernels():
        return True
    schema = next((s for s in schemas().get((domain, op_type), ()) if s.since_version == since), None)
    for kernel in kernels().get((domain, op_type), ()):
        first, last = kernel.version_range
        # As ONNX Runtime has it: an implementation without an end serves its first version alone.
        if (first == since or (first <= since <= last and last != _OPEN)) and _takes(kernel, schema, types):
            return True
    return False


def _takes(kernel: Any, schema: Any, types: tuple[str, ...]) -> bool:
    formal = [p.typeStr for p in schema.inputs] if schema is not None else []
    for position, given in enumerate(types):
        letter = formal[min(position, len(formal) - 1)] if formal else ""  # the last one may stand for many
        allowed = kernel.type_constraints.get(letter)
        # For float16 ONNX Runtime puts a Cast before and behind, and computes in float32.
        if (
            given
            and allowed
            and given not in allowed
            and not (given == "tensor(float16)" and "tensor(float)" in allowed)
        ):
            return False
    return True
