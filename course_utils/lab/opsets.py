"""Opsets and IR versions: the history of the operators, what this runtime loads, what the exporter says."""

from __future__ import annotations

import difflib
import functools
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx
from onnx import helper

from ..errors import CourseError
from .graphs import attribute_text

if TYPE_CHECKING:
    import pandas as pd
    from onnx.defs import OpSchema


@dataclass(frozen=True)
class Edition:
    """One version of one operator, as `onnx.defs` has it.

    event: "new", "changed", or "withdrawn" (models may not use the operator from this opset on).
    defaults: attributes that have one. types: all dtypes its type constraints allow. what: the difference from the
    edition before, in words.
    """

    operator: str
    opset: int
    event: str
    inputs: tuple[str, ...]
    attributes: tuple[str, ...]
    defaults: dict[str, str]
    types: frozenset[str]
    what: str


@functools.cache
def editions(domain: str = "") -> dict[str, tuple[Edition, ...]]:
    """All versions of all operators of one domain: name → editions, oldest first. "" is ai.onnx.

    Raises CourseError for a domain that the installed onnx package has no operators of.
    """
    schemas: dict[str, list[OpSchema]] = defaultdict(list)
    domains = set()
    for schema in onnx.defs.get_all_schemas_with_history():
        domains.add(schema.domain)
        if schema.domain == domain:
            schemas[schema.name].append(schema)
    if not schemas:
        known = ", ".join(repr(d or "") for d in sorted(domains))
        raise CourseError(f"onnx.defs has no operators of the domain {domain!r}. It has: {known} ('' is ai.onnx).")
    return {name: _editions_of(sorted(found, key=lambda s: s.since_version)) for name, found in sorted(schemas.items())}


def _editions_of(schemas: list[OpSchema]) -> tuple[Edition, ...]:
    found: list[Edition] = []
    for schema in schemas:
        before = found[-1] if found else None
        edition = Edition(
            operator=schema.name,
            opset=schema.since_version,
            event="withdrawn" if schema.deprecated else "changed" if before else "new",
            inputs=tuple(i.name for i in schema.inputs),
            attributes=tuple(sorted(schema.attributes)),
            defaults={name: text for name, a in schema.attributes.items() if (text := _default(a))},
            types=frozenset(_short(t) for c in schema.type_constraints for t in c.allowed_type_strs),
            what="",
        )
        found.append(Edition(**{**vars(edition), "what": _difference(before, edition)}))
    return tuple(found)


def _default(attribute: OpSchema.Attribute) -> str:
    value = attribute.default_value
    return attribute_text(value).partition("=")[2] if value.type else ""


def _short(type_text: str) -> str:
    """`tensor(float)` → `float`; sequences, maps and optionals stay as they are."""
    return type_text[len("tensor(") : -1] if type_text.startswith("tensor(") else type_text


def _difference(before: Edition | None, now: Edition) -> str:
    if before is None:
        return "new"
    if now.event == "withdrawn":
        return "withdrawn"
    moved = (set(before.attributes) - set(now.attributes)) & (set(now.inputs) - set(before.inputs))
    parts = [f"{name}: attribute → input" for name in sorted(moved)]
    for kind, old, new in (
        ("input", set(before.inputs) - moved, set(now.inputs) - moved),
        ("attribute", set(before.attributes) - moved, set(now.attributes) - moved),
        ("type", before.types, now.types),
    ):
        parts += [f"{kind} + {name}" for name in sorted(new - old)]
        parts += [f"{kind} − {name}" for name in sorted(old - new)]
    parts[:0] = [
        f"default of {name}: {before.defaults.get(name, 'none')} → {now.defaults.get(name, 'none')}"
        for name in sorted(set(before.attributes) & set(now.attributes))
        if before.defaults.get(name) != now.defaults.get(name)
    ]
    # A definition can change without a trace in the signature: that is the dangerous kind.
    return ", ".join(parts) or "only the definition's text"


def editions_of(operator: str, domain: str = "") -> tuple[Edition, ...]:
    """The editions of one operator, oldest first. Raises CourseError, with the closest names, for an unknown one."""
    known = editions(domain)
    if operator in known:
        return known[operator]
    by_lower = {name.lower(): name for name in known}
    near = [by_lower[n] for n in difflib.get_close_matches(str(operator).lower(), by_lower, n=3, cutoff=0.5)]
    where = domain or "ai.onnx"
    hint = f"Did you mean {' or '.join(near)}?" if near else "cu.operator_history() lists all names."
    raise CourseError(f"There is no operator {operator!r} in the domain {where}. {hint}")


def operator_history(operator: str | None = None, domain: str = "") -> pd.DataFrame:
    """The history of the operators, read from `onnx.defs`. First used in lesson 02.

    operator: one operator's name; None for all of the domain. domain: "" is ai.onnx.
    Returns one row per version, oldest first: operator, opset (int, the first one with this version), event ("new",
    "changed" or "withdrawn"), inputs and attributes (names, comma separated), what (the difference from the version
    before). Raises CourseError for an operator or a domain that `onnx.defs` does not have, with the closest names.
    """
    import pandas as pd

    chosen = [editions_of(operator, domain)] if operator is not None else editions(domain).values()
    rows = [
        {
            "operator": edition.operator,
            "opset": edition.opset,
            "event": edition.event,
            "inputs": ", ".join(edition.inputs),
            "attributes": ", ".join(edition.attributes),
            "what": edition.what,
        }
        for versions in chosen
        for edition in versions
    ]
    return pd.DataFrame(rows).sort_values(["opset", "operator"], ignore_index=True)


def loads_in_this_runtime(
    opsets: Iterable[int] | None = None, ir_versions: Iterable[int] | None = None
) -> pd.DataFrame:
    """Which (IR version, opset) the installed ONNX Runtime loads, by trying each. First used in lesson 02.

    Each try is a model of one Identity node, an operator that every opset has, so that the numbers alone decide.
    opsets, ir_versions: positive integers; by default from the oldest to two above the newest that the installed onnx
    package knows. Returns bool, one row per IR version, one column per opset.
    Raises CourseError when a number is not a positive integer.
    """
    import pandas as pd

    columns = _numbers("opsets", opsets, onnx.defs.onnx_opset_version() + 2)
    rows = _numbers("ir_versions", ir_versions, onnx.IR_VERSION + 2)
    table = [[why_not_loaded(_probe(ir, opset)) == "" for opset in columns] for ir in rows]
    return pd.DataFrame(
        table, index=pd.Index(rows, name="IR version"), columns=pd.Index(columns, name="opset"), dtype=bool
    )


def _numbers(name: str, given: Iterable[int] | None, newest: int) -> list[int]:
    numbers = list(range(1, newest + 1)) if given is None else list(given)
    for number in numbers:
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise CourseError(f"{name} holds {number!r}: it expects whole numbers from 1 on, such as range(7, 27).")
    return numbers


def _probe(ir_version: int, opset: int) -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "probe", [x], [y])
    return helper.make_model(graph, ir_version=ir_version, opset_imports=[helper.make_opsetid("", opset)])


def why_not_loaded(model: onnx.ModelProto) -> str:
    """ONNX Runtime's reason for refusing a model, without the source file it names; empty when it loads."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4  # the refusal comes back as an exception; the same words on stderr help nobody
    try:
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exception classes derive from Exception alone
        words = " ".join(str(error).split())
        for start in ("Unsupported model", "ONNX Runtime only", "Missing opset", "Could not find", "In Node"):
            if start in words:
                return words[words.index(start) :]
        return words
    return ""
