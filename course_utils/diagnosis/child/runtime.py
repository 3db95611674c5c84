"""What the installed ONNX Runtime knows, asked of itself. No model of anybody's is loaded for it."""

from __future__ import annotations

import difflib
import functools
import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx

from ...lab.opsets import _probe, why_not_loaded
from ...processes import environment
from ..vocabulary import plain


@functools.cache
def version() -> str:
    import onnxruntime

    return onnxruntime.__version__


@functools.cache
def absent() -> str:
    """Why ONNX Runtime cannot be asked, in one sentence; empty where it can."""
    try:
        version()
    except (ImportError, OSError) as error:  # not installed, or one of its libraries is missing
        why = plain(" ".join(str(error).split()), 200)
        return (
            f"ONNX Runtime cannot be loaded here ({why}), so the model was not compared with what it takes, and not run: "
            f"install the package onnxruntime, and examine the model again."
        )
    return ""


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
    highest = max((s.since for s in schemas_of(domain)), default=1)
    return next((o for o in range(highest + 12, 0, -1) if not refusal(8, domain, o)), 0)


@functools.cache
def newest_ir() -> int:
    return next((v for v in range(onnx.IR_VERSION + 4, 0, -1) if not refusal(v, "", _newest_opset())), 0)


def provider_meant(name: str) -> str:
    """How ONNX Runtime spells the provider that a name stands for, such as `cuda`; empty where it is right, or like none."""
    try:
        import onnxruntime
    except ImportError:
        return ""
    known = onnxruntime.get_all_providers()
    if name in known or not isinstance(name, str):
        return ""
    short = {p.removesuffix(_PROVIDER).lower(): p for p in known}
    given = re.sub(r"[^a-z0-9]", "", re.sub(r"(exec\w*|provider|ep)$", "", name.lower().strip()))
    near = difflib.get_close_matches(_ALSO.get(given, given), short, n=1, cutoff=0.75)
    return short[near[0]] if near else ""


_PROVIDER = "ExecutionProvider"
_ALSO = {
    "gpu": "cuda",
    "nvidia": "cuda",
    "trt": "tensorrt",
    "directml": "dml",
    "amd": "migraphx",
    "rocm": "migraphx",
    "onednn": "dnnl",
}


@dataclass(frozen=True)
class Schema:
    """One definition of an operator. inputs: the letter that stands for the type of each input, such as T.

    attributes: their names. types: letter → a type that it may be.
    """

    domain: str
    name: str
    since: int
    withdrawn: bool
    inputs: tuple[str, ...]
    attributes: frozenset[str]
    types: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Kernel:
    """One implementation for the CPU. versions: of the definitions that it serves. types: letter → types it takes."""

    domain: str
    name: str
    versions: tuple[int, int]
    types: dict[str, list[str]]


@functools.cache
def _catalogue() -> tuple[list[Schema], list[Kernel]]:
    """What the runtime tells of itself, in another process; what it does not tell, onnx tells, or nobody."""
    command = [sys.executable, "-m", f"{__package__}.runtime_child"]
    try:
        told = subprocess.run(command, capture_output=True, env=environment(), timeout=60, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        told = b""
    lines = [json.loads(line) for line in told.splitlines() if line.endswith(b"]")]
    if lines:
        sets = {"inputs": tuple, "attributes": frozenset}
        known = [Schema(**{k: sets[k](v) if k in sets else v for k, v in entry.items()}) for entry in lines[0]]
    else:
        known = [
            Schema(
                s.domain,
                s.name,
                s.since_version,
                s.deprecated,
                tuple(p.type_str for p in s.inputs),
                frozenset(s.attributes),
            )
            for s in onnx.defs.get_all_schemas_with_history()
        ]
    made = [Kernel(**{**k, "versions": tuple(k["versions"])}) for k in lines[1]] if len(lines) > 1 else []
    return known, made


@functools.cache
def schemas() -> dict[tuple[str, str], list[Schema]]:
    """(domain, operator) → its definitions, oldest first."""
    table = defaultdict(list)
    for schema in sorted(_catalogue()[0], key=lambda s: s.since):
        table[schema.domain, schema.name].append(schema)
    return dict(table)


def schemas_of(domain: str) -> list[Schema]:
    return [s for (d, _), group in schemas().items() if d == domain for s in group]


@functools.cache
def domains() -> frozenset[str]:
    """The domains whose operators the runtime knows. Where it does not tell: also those that it has always had."""
    told = {d for d, _ in schemas()}
    return frozenset(told if "com.microsoft" in told else told | {"com.microsoft", "com.microsoft.nchwc"})


@functools.cache
def kernels() -> dict[tuple[str, str], list[Kernel]]:
    """(domain, operator) → the implementations for the CPU; empty where the runtime does not tell."""
    table = defaultdict(list)
    for kernel in _catalogue()[1]:
        table[kernel.domain, kernel.name].append(kernel)
    return dict(table)


_OPEN = 2**31 - 1


@functools.cache
def implemented(domain: str, op_type: str, since: int, types: tuple[str, ...]) -> bool:
    """Whether the CPU implements the definition that came with opset `since`, for inputs of these types.

    types: such as "tensor(float)", one per input; empty where it is not known. True where the runtime does not tell.
    """
    if not kernels():
        return True
    schema = next((s for s in schemas().get((domain, op_type), ()) if s.since == since), None)
    for kernel in kernels().get((domain, op_type), ()):
        first, last = kernel.versions
        # As ONNX Runtime has it: an implementation without an end serves its first version alone.
        if (first == since or (first <= since <= last and last != _OPEN)) and _takes(kernel, schema, types):
            return True
    return False


def _takes(kernel: Kernel, schema: Schema | None, types: tuple[str, ...]) -> bool:
    formal = schema.inputs if schema is not None else ()
    for position, given in enumerate(types):
        letter = formal[min(position, len(formal) - 1)] if formal else ""  # the last one may stand for many
        allowed = kernel.types.get(letter)
        # For float16 ONNX Runtime puts a Cast before and behind, and computes in float32.
        if (
            given
            and allowed
            and given not in allowed
            and not (given == "tensor(float16)" and "tensor(float)" in allowed)
        ):
            return False
    return True
